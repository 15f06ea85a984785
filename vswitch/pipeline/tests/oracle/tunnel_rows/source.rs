//! Row 10 of "Out of the tunnel": the inner source.

use super::*;

pub(super) fn add(rows: &mut Rows) {
    listed_prefixes(rows);
    default_routes(rows);
}

#[rustfmt::skip] // A table: one frame a statement.
fn listed_prefixes(rows: &mut Rows) {
    let config = configs::geneve();
    rows.on(config.clone(), OUT);
    rows.row = "Out 10";
    let v4 = |peer, from: Ipv4Addr| from4(&config, peer, &V4 { from, ..home() }).frame();
    let v6 = |peer, from: Ipv6Addr| from6(&config, peer, &V6 { from, ..home6() }).frame();
    for from in [IP71, [10, 0, 8, 0].into(), [10, 0, 8, 255].into(), [172, 16, 1, 1].into(),
        [172, 31, 255, 255].into()] {
        rows.forward(0, "a source behind the peer", v4(B, from));
        rows.drop(IngressSource, "behind another peer", v4(C1, from));
    }
    for from in [IP1, IP2, GATEWAY, UNOWNED, EXTERNAL, UPLINK_IP, NEXT_HOP, [172, 16, 0, 1].into(),
        [172, 32, 0, 0].into(), [10, 0, 9, 0].into(), IP81] {
        rows.drop(IngressSource, "not behind the peer", v4(B, from));
    }
    for peer in [C1, C2] {
        for from in [IP81, IP82, [10, 0, 16, 7].into()] {
            rows.forward(0, "two peers with one VTEP, each with either's", v4(peer, from));
        }
        rows.forward(0, "the same by IPv6", v6(peer, inner(0x82)));
    }
    for from in [ZERO, [0, 1, 2, 3].into(), [240, 0, 0, 1].into(), [169, 254, 1, 1].into()] {
        rows.drop(IngressSource, "an unowned address", v4(B, from));
    }
    rows.forward(0, "by IPv6", v6(B, inner(0x71)));
    for from in [inner(0x11), inner(0x12), inner(1), inner(0x99), inner(0x81), EXTERNAL6, UPLINK6,
        ANY6, Ipv6Addr::LOCALHOST, ALL_NODES, link_local(VM1), IP71.to_ipv6_mapped()] {
        rows.drop(IngressSource, "not behind the peer, by IPv6", v6(B, from));
        rows.drop(IngressSource, "an echo request of theirs",
            from6(&config, B, &V6::icmp(from, inner(1), icmpv6(128, 0, ECHO))).frame());
    }
    let arp = |peer: usize, sender: Ipv4Addr, target: Ipv4Addr| {
        let mac = tunnel(&config).peers[peer].mac.octets();
        let message = Arp { opcode: 1, sender_mac: mac, sender, target_mac: [0; 6], target };
        TunnelPacket::new(&config, peer, ethernet(BROADCAST, mac, ARP, &message.bytes())).frame()
    };
    for sender in [ZERO, IP1, GATEWAY, UNOWNED, EXTERNAL, IP81, [169, 254, 0, 1].into(),
        UPLINK_IP] {
        rows.drop(ArpSenderIp, "ARP of another station", arp(B, sender, IP1));
        rows.drop(ArpSenderIp, "an announcement of another station", arp(B, sender, sender));
    }
    rows.reply("ARP of a VM behind the peer", arp(B, IP71, IP1));
    rows.drop(TunnelNested, "row 10 before row 12",
        from4(&config, B, &V4 { payload: udp(1, 6081, b""), ..home() }).frame());
    rows.drop(IngressSource, "row 10 before row 11",
        from4(&config, C1, &V4 { payload: udp(67, 9, b""), ..home() }).frame());
}

#[rustfmt::skip] // A table: one frame a statement.
fn default_routes(rows: &mut Rows) {
    rows.row = "Out 10";
    let config = configs::only();
    rows.on(config.clone(), OUT);
    let v4 = |peer, from: Ipv4Addr| from4(&config, peer, &V4 { from, ..home() }).frame();
    let v6 = |peer, from: Ipv6Addr| from6(&config, peer, &V6 { from, ..home6() }).frame();
    rows.drop(IngressSource, "a peer's VTEP", v4(0, [203, 0, 113, 9].into()));
    for from in [[8, 8, 8, 8].into(), [203, 0, 113, 10].into(), [223, 255, 255, 255].into()] {
        rows.forward(0, "an external address, behind 0.0.0.0/0", v4(0, from));
        rows.drop(IngressSource, "an external address, of another peer", v4(1, from));
    }
    for from in [ZERO, [0, 1, 2, 3].into(), [240, 0, 0, 1].into(), [169, 254, 1, 1].into(), IP71,
        EXTERNAL, UNOWNED, GATEWAY, IP1, UPLINK_IP, NEXT_HOP] {
        rows.drop(IngressSource, "behind 0.0.0.0/0, but not the peer's", v4(0, from));
    }
    rows.forward(0, "an external address, behind ::/0", v6(0, EXTERNAL6));
    for from in [ANY6, Ipv6Addr::LOCALHOST, ALL_NODES, link_local(VM1), IP71.to_ipv6_mapped(),
        inner(0x71), inner(0x99), inner(1), UPLINK6, NEXT_HOP6] {
        rows.drop(IngressSource, "behind ::/0, but not the peer's", v6(0, from));
    }
    let config = configs::narrow();
    rows.on(config.clone(), OUT);
    rows.forward(0, "of the gateway's subnet, where that is behind the peer",
        from4(&config, B, &V4 { from: UNOWNED, ..home() }).frame());
    for from in [IP1, IP2, GATEWAY, [10, 0, 0, 255].into()] {
        rows.drop(IngressSource, "a port's, within the peer's prefix",
            from4(&config, B, &V4 { from, ..home() }).frame());
    }
    let mut config = configs::geneve();
    let prefix = "fd00:0:0:1::/64".parse().expect("a prefix");
    config.tunnel.as_mut().expect("a tunnel").peers[B].prefixes.push(prefix);
    rows.on(config.clone(), OUT);
    let v6 = |from| from6(&config, B, &V6 { from, ..home6() }).frame();
    rows.forward(0, "the same by IPv6", v6(inner(0x99)));
    for from in [inner(0), inner(1), inner(0x11)] {
        rows.drop(IngressSource, "nobody's, the gateway's or a port's, within the peer's prefix",
            v6(from));
    }
}
