//! "Multicast", into the tunnel and out of it.

use super::*;

const GROUP: [u8; 4] = [239, 192, 1, 1];
const LINK: [u8; 4] = [224, 0, 0, 18];
const ROUTERS: [u8; 4] = [224, 0, 0, 22];

/// The frame of an IPv4 packet from `mac` to its group.
fn grouped(mac: Mac, packet: &V4) -> Vec<u8> {
    let [_, b, c, d] = packet.to.octets();
    ethernet([1, 0, 0x5e, b & 0x7f, c, d], mac, IPV4, &packet.bytes())
}

/// An IGMPv3 report of [`GROUP`], or another message.
fn report(kind: u8, record: u8) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 1, record, 0, 0, 0];
    message.extend(GROUP);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

#[rustfmt::skip] // A table: one frame a statement.
pub(super) fn add(rows: &mut Rows) {
    let [(_, config), ..] = &configs::grouped_tunnels()[..] else { unreachable!("there are some") };
    let mac = tunnel(config).peers[B].mac.octets();
    let from_peer = |inner: Vec<u8>| TunnelPacket::new(config, B, inner).frame();
    let ipv4 = |packet: &V4| from_peer(grouped(mac, packet));
    let ipv6 = |packet: &V6| from_peer(ethernet(group_mac(packet.to), mac, IPV6, &packet.bytes()));
    let igmp = |from: Ipv4Addr, to: [u8; 4], message| V4::new(from, to.into(), 2, message);
    let vrrp6: Ipv6Addr = "ff02::12".parse().expect("a group");
    let peers = link_local(mac);

    rows.row = "Out 10";
    rows.on(config.clone(), OUT);
    rows.drop(Absorbed, "a switch's report, from no address",
        ipv4(&igmp(ZERO, ROUTERS, report(0x22, 2))));
    rows.drop(Absorbed, "a report of a VM behind the peer",
        ipv4(&igmp(IP71, ROUTERS, report(0x22, 2))));
    rows.drop(IngressSource, "one of IGMPv2 from no address",
        ipv4(&igmp(ZERO, GROUP, report(0x16, 2))));
    rows.drop(IngressSource, "one to another group",
        ipv4(&igmp(ZERO, LINK, report(0x22, 2))));
    rows.drop(IngressSource, "a packet from no address",
        ipv4(&V4 { from: ZERO, to: LINK.into(), ..home() }));
    rows.drop(IngressSource, "one in the name of our VM",
        ipv4(&V4 { from: IP1, to: LINK.into(), ..home() }));
    rows.drop(IngressSource, "a link-local source to a group that is not listed",
        ipv6(&V6 { from: peers, to: "ff02::13".parse().expect("a group"), ..home6() }));
    rows.row = "Multicast";
    rows.copies(2, "a group of the link goes to all ports",
        ipv4(&V4 { to: LINK.into(), ..home() }));
    rows.copies(2, "from a link-local source", ipv6(&V6 { from: peers, to: vrrp6, ..home6() }));
    rows.drop(NoMember, "a group without members", ipv4(&V4 { to: GROUP.into(), ..home() }));
    rows.drop(Multicast, "a group that is not listed",
        ipv4(&V4 { to: [239, 193, 0, 0].into(), ..home() }));
    rows.drop(Multicast, "a broadcast",
        from_peer(ethernet(BROADCAST, mac, IPV4,
            &V4 { to: Ipv4Addr::BROADCAST, ..home() }.bytes())));
    rows.drop(DstMac, "a group in a unicast",
        from4(config, B, &V4 { to: LINK.into(), ..home() }).frame());

    rows.on(config.clone(), 0);
    let packet = |group: [u8; 4]| grouped(VM1, &V4 { to: group.into(), ..away() });
    rows.before_from = Some(OUT);
    rows.forward(1, "without a report from the peer", packet(LINK));
    rows.drop(NoMember, "without one, a group beyond the link", packet(GROUP));
    rows.before = vec![ipv4(&igmp(ZERO, ROUTERS, report(0x22, 2)))];
    rows.forward(OUT, "to a peer with a member", packet(GROUP));
    rows.drop(TunnelNested, "a tunnel packet inside the tunnel",
        grouped(VM1, &V4 { to: GROUP.into(), payload: udp(1, 4789, b""), ..away() }));
    let large = |more: usize| {
        let payload = udp(1, 2, &vec![0; 1422 + more]);
        grouped(VM1, &V4 { to: GROUP.into(), payload, ..away() })
    };
    let mut usual = config.clone();
    usual.uplink.as_mut().expect("an uplink").mtu = 1500;
    rows.on(usual, 0);
    rows.forward(OUT, "as large as the tunnel carries", large(0));
    rows.drop(Mtu, "larger than the tunnel carries", large(1));
    rows.on(config.clone(), 0);
    rows.before = vec![
        ipv4(&igmp(ZERO, ROUTERS, report(0x22, 2))),
        ipv4(&igmp(ZERO, ROUTERS, report(0x22, 3))),
    ];
    rows.drop(NoMember, "to one that has left", packet(GROUP));
    rows.resolved = false;
    rows.before = vec![ipv4(&igmp(ZERO, ROUTERS, report(0x22, 2)))];
    rows.drop(NeighbourUnresolved, "with an unknown next hop", packet(GROUP));
    rows.resolved = true;
    rows.before = Vec::new();
    rows.before_from = None;
}
