//! The rows of "Multicast and broadcast".

use super::*;

/// A packet of `vm1` to a group, in the group's MAC.
fn to_group(group: [u8; 4], packet: &V4) -> Vec<u8> {
    let packet = V4 {
        to: group.into(),
        ..packet.clone()
    };
    ethernet(group_mac4(group), VM1, IPV4, &packet.bytes())
}

fn group_mac4([_, b, c, d]: [u8; 4]) -> Mac {
    [1, 0, 0x5e, b & 0x7f, c, d]
}

/// An IGMP message of `vm1`'s.
fn igmp(to: [u8; 4], message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    to_group(to, &V4::new(IP1, IP2, 2, message))
}

pub(super) fn add(rows: &mut Rows) {
    allowed(rows);
    refused(rows);
    servers(rows);
}

#[rustfmt::skip] // A table: one frame a statement.
fn allowed(rows: &mut Rows) {
    rows.on(configs::grouped(), 0);
    rows.row = "Multicast 2";
    let reports = |version: u8| igmp([239, 192, 1, 1], &[version, 0, 0, 0, 239, 192, 1, 1]);
    let vrrp6: Ipv6Addr = "ff02::12".parse().expect("a group");
    rows.drop(Absorbed, "a report of IGMPv2", reports(0x16));
    rows.drop(Absorbed, "a report of IGMPv1", reports(0x12));
    rows.drop(Absorbed, "a report of IGMPv3",
        igmp([224, 0, 0, 22], &[0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 239, 192, 1, 1]));
    rows.drop(Absorbed, "a leave", igmp([224, 0, 0, 2], &[0x17, 0, 0, 0, 239, 192, 1, 1]));
    rows.drop(DstMac, "a report to another MAC", {
        let mut frame = igmp([239, 192, 1, 1], &[0x16, 0, 0, 0, 239, 192, 1, 1]);
        frame[5] ^= 1;
        frame
    });
    rows.drop(IgmpQuery, "a query", igmp([224, 0, 0, 1], &[0x11, 100, 0, 0, 0, 0, 0, 0]));
    rows.row = "Multicast 6";
    rows.copies(3, "a group of the link", to_group([224, 0, 0, 18], &plain()));
    rows.copies(3, "one of IPv6", v6_group(&V6 { to: vrrp6, ..plain6() }));
    rows.copies(3, "one of IPv6 from the link-local address",
        v6_group(&V6 { from: link_local(VM1), to: vrrp6, ..plain6() }));
    rows.copies(3, "a fragment goes by its address",
        to_group([224, 0, 0, 18], &V4 { fragment: 7, ..plain() }));
    rows.copies(3, "whatever its TTL", to_group([224, 0, 0, 18], &V4 { ttl: 1, ..plain() }));
    rows.drop(NoMember, "a group without members", to_group([239, 192, 1, 1], &plain()));
    rows.copies(3, "a broadcast", broadcast(&V4 { to: Ipv4Addr::BROADCAST, ..plain() }));
    rows.copies(3, "the subnet's broadcast",
        broadcast(&V4 { to: [10, 0, 0, 255].into(), ..plain() }));
    rows.row = "Multicast 7";
    let large = V4 { payload: udp(1, 2, &[0; 1300]), ..plain() };
    rows.copies(2, "larger than one receiver takes", to_group([224, 0, 0, 18], &large));
    rows.on(configs::grouped(), 1);
    rows.before = vec![reports(0x16)];
    rows.before_from = Some(0);
    rows.forward(0, "a group with one member", {
        let packet = V4 { from: IP2, to: [239, 192, 1, 1].into(), ..plain() };
        ethernet(group_mac4([239, 192, 1, 1]), VM2, IPV4, &packet.bytes())
    });
    rows.on(configs::grouped(), 0);
    rows.drop(NoMember, "a group whose only member is the sender",
        to_group([239, 192, 1, 1], &plain()));
    rows.before = Vec::new();
    rows.before_from = None;
}

#[rustfmt::skip] // A table: one frame a statement.
fn refused(rows: &mut Rows) {
    rows.on(configs::grouped(), 0);
    rows.row = "Multicast 3";
    rows.drop(Multicast, "a group that is not listed", to_group([239, 193, 1, 1], &plain()));
    rows.drop(Multicast, "one of the link", to_group([224, 0, 0, 19], &plain()));
    rows.drop(Multicast, "all systems, whatever is listed", to_group([224, 0, 0, 1], &plain()));
    rows.drop(Multicast, "all nodes", v6_group(&V6 { to: ALL_NODES, ..plain6() }));
    rows.row = "Multicast 4";
    rows.drop(DstMac, "a group in another MAC", {
        let mut frame = to_group([224, 0, 0, 18], &plain());
        frame[5] ^= 1;
        frame
    });
    rows.drop(DstMac, "a group in a unicast", v4(&V4 { to: [224, 0, 0, 18].into(), ..plain() }));
    rows.drop(DstMac, "a broadcast in a group", {
        let mut frame = broadcast(&V4 { to: Ipv4Addr::BROADCAST, ..plain() });
        frame[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 18]);
        frame
    });
    rows.row = "IPv4 6";
    rows.drop(Ipv4Source, "a forged source to a group",
        to_group([224, 0, 0, 18], &V4 { from: IP2, ..plain() }));
    rows.row = "From the uplink 8";
    rows.on(configs::grouped(), 4);
    rows.drop(Multicast, "a group, from the underlay", {
        let packet = V4 { from: EXTERNAL, to: [239, 192, 1, 1].into(), ..plain() };
        ethernet(group_mac4([239, 192, 1, 1]), ROUTER, IPV4, &packet.bytes())
    });
}

/// A client's message to all servers goes to each.
#[rustfmt::skip] // A table: one frame a statement.
fn servers(rows: &mut Rows) {
    let mut config = configs::grouped();
    config.ports[1].dhcp_server = true;
    config.ports[2].dhcp_server = true;
    rows.row = "Route 1";
    let mut one = config.clone();
    one.ports[2].dhcp_server = false;
    let rebind = |to: [u8; 4], port| V4::new(IP1, to.into(), 17, udp(68, port, &bootp(1, VM1)));
    let everyone = [255; 4];
    let subnet = [10, 0, 0, 255];
    let discover = V4::new(ZERO, Ipv4Addr::BROADCAST, 17, udp(68, 67, &bootp(1, VM1)));
    rows.on(config, 0);
    rows.copies(2, "a client without an address, to two servers", broadcast(&discover));
    rows.copies(2, "a client with one", broadcast(&rebind(everyone, 67)));
    rows.copies(2, "to the subnet's broadcast", broadcast(&rebind(subnet, 67)));
    rows.copies(2, "to a server of boot files", broadcast(&rebind(everyone, 4011)));
    rows.drop(DhcpClient, "in another's name to one",
        broadcast(&V4::new(IP1, everyone.into(), 17, udp(68, 4011, &bootp(1, VM2)))));
    rows.copies(2, "DHCPv6", {
        let message = dhcp6(1, 1, &[option6(1, &[0, 3, 0, 1, 1, 2, 3])]);
        let all: Ipv6Addr = "ff02::1:2".parse().expect("a group");
        v6_group(&V6::new(link_local(VM1), all, 17, udp(546, 547, &message)))
    });
    rows.on(one, 0);
    rows.forward(1, "a client with an address, to the only server",
        broadcast(&rebind(everyone, 67)));
}
