//! The rows of "Beside the tunnel".

use super::*;

pub(super) fn add(rows: &mut Rows) {
    plain_packets(rows);
    next_hops(rows);
    vteps(rows);
    only_from_uplink(rows);
    only_from_port(rows);
    path_mtus(rows);
    path_mtu_quotes(rows);
    unreachables(rows);
}

/// An IPv4 packet from the router's MAC to the uplink's, outside the tunnel.
fn plain(packet: &V4) -> Vec<u8> {
    ethernet(UPLINK, ROUTER, IPV4, &packet.bytes())
}

/// The same by IPv6.
fn plain6(packet: &V6) -> Vec<u8> {
    ethernet(UPLINK, ROUTER, IPV6, &packet.bytes())
}

/// From an external address to `vm1`.
fn inbound() -> V4 {
    V4::new(EXTERNAL, IP1, 17, udp(53, 1000, b"answer"))
}

/// The same by IPv6.
fn inbound6() -> V6 {
    V6::new(EXTERNAL6, inner(0x11), 17, udp(53, 1000, b"answer"))
}

#[rustfmt::skip] // A table: one frame a statement.
fn plain_packets(rows: &mut Rows) {
    rows.on(configs::geneve(), OUT);
    rows.row = "Beside: plain packets";
    rows.forward(0, "from an external address", plain(&inbound()));
    for from in [IP71, IP81, [10, 0, 8, 9].into(), [172, 20, 0, 1].into(), [172, 16, 0, 1].into()] {
        rows.drop(IngressSource, "a source behind a peer", plain(&V4 { from, ..inbound() }));
    }
    for from in [[10, 0, 8, 9].into(), [172, 20, 0, 1].into()] {
        rows.reply("an echo request of such to the uplink",
            plain(&V4::new(from, UPLINK_IP, 1, icmp(8, 0, ECHO))));
    }
    for from in [IP71, IP81, [172, 16, 0, 1].into()] {
        rows.drop(IngressSource, "an echo request of the gateway's subnet or a port's address",
            plain(&V4::new(from, UPLINK_IP, 1, icmp(8, 0, ECHO))));
    }
    rows.drop(IngressSource, "a source behind a peer by IPv6",
        plain6(&V6 { from: inner(0x71), ..inbound6() }));
    let echo6 = |from| plain6(&V6::icmp(from, UPLINK6, icmpv6(128, 0, ECHO)));
    rows.reply("an echo request of such to the uplink by IPv6",
        echo6("fd00:0:0:8::9".parse().expect("an address")));
    rows.drop(IngressSource, "an echo request of the gateway's subnet by IPv6", echo6(inner(0x71)));
    for to in [IP71, IP82, [172, 20, 0, 1].into(), [10, 0, 16, 1].into()] {
        rows.drop(NoTransit, "to an address behind a peer", plain(&V4 { to, ..inbound() }));
    }
    rows.drop(NoTransit, "to an address behind a peer by IPv6",
        plain6(&V6 { to: inner(0x71), ..inbound6() }));
    rows.on(configs::geneve(), 0);
    rows.forward(OUT, "a port to an external address", v4(&V4 { to: EXTERNAL, ..away() }));
}

#[rustfmt::skip] // A table: one frame a statement.
fn next_hops(rows: &mut Rows) {
    rows.on(configs::geneve(), OUT);
    let arp = |opcode, sender: [u8; 4], target| {
        let message = Arp { opcode, sender_mac: ROUTER, sender: sender.into(), target_mac: [0; 6],
            target };
        ethernet(UPLINK, ROUTER, ARP, &message.bytes())
    };
    rows.row = "Beside: the next hops' ARP and ND";
    for hop in [[192, 0, 2, 66], [192, 0, 2, 254], [192, 0, 2, 1]] {
        rows.drop(Absorbed, "a next hop's reply", arp(2, hop, UPLINK_IP));
        rows.reply("a next hop's request", arp(1, hop, UPLINK_IP));
    }
    rows.drop(ArpUnknown, "a stranger's reply", arp(2, [192, 0, 2, 67], UPLINK_IP));
    rows.on(configs::geneve6(), OUT);
    for hop in ["2001:db8::66", "2001:db8::fe", "2001:db8::1"] {
        let hop: Ipv6Addr = hop.parse().expect("an address");
        rows.drop(Absorbed, "a next hop's advertisement",
            plain6(&V6::icmp(hop, UPLINK6, neighbor(136, 0x60, hop, &[link_layer(2, ROUTER)]))));
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn vteps(rows: &mut Rows) {
    rows.row = "Beside: the VTEPs of peers";
    rows.on(configs::geneve(), 0);
    for to in [[192, 0, 2, 66].into(), [203, 0, 113, 9].into()] {
        rows.drop(Underlay, "are closed", v4(&V4 { to, ..away() }));
    }
    rows.on(configs::geneve6(), 0);
    rows.drop(Underlay, "are closed by IPv6",
        v6(&V6 { to: "2001:db8:c::9".parse().expect("an address"), ..away6() }));
    rows.on(configs::only(), 0);
    rows.drop(Underlay, "are closed, though an external address is a peer's",
        v4(&V4 { to: [203, 0, 113, 9].into(), ..away() }));
    rows.drop(ArpUnknown, "ARP for one", ethernet(BROADCAST, VM1, ARP,
        &Arp { opcode: 1, sender_mac: VM1, sender: IP1, target_mac: [0; 6],
            target: [203, 0, 113, 9].into() }.bytes()));
}

#[rustfmt::skip] // A table: one frame a statement.
fn only_from_uplink(rows: &mut Rows) {
    rows.row = "Beside: only";
    let only = configs::only();
    rows.on(only, OUT);
    for from in [[8, 8, 8, 8].into(), EXTERNAL, IP71] {
        rows.drop(IngressSource, "plain, from behind a peer",
            plain(&V4 { from, ..inbound() }));
    }
    let router = V4 { from: NEXT_HOP, ..inbound() };
    rows.drop(TunnelOnly, "plain, to a port", plain(&router));
    rows.drop(TunnelOnly, "plain, to a port by IPv6",
        plain6(&V6 { from: NEXT_HOP6, ..inbound6() }));
    rows.drop(TunnelOnly, "plain, too large for the port",
        plain(&V4 { to: IP2, payload: udp(1, 2, &[0; 1400]), ..router.clone() }));
    rows.drop(NoTransit, "plain, to an address behind a peer",
        plain(&V4 { to: IP71, ..router.clone() }));
    rows.drop(NoTransit, "plain, to the underlay",
        plain(&V4 { to: [192, 0, 2, 200].into(), ..router.clone() }));
    rows.reply("an echo request of an external address to the uplink",
        plain(&V4::new([8, 8, 8, 8].into(), UPLINK_IP, 1, icmp(8, 0, ECHO))));
    rows.reply("an echo request to the uplink",
        plain(&V4::new(NEXT_HOP, UPLINK_IP, 1, icmp(8, 0, ECHO))));
}

#[rustfmt::skip] // A table: one frame a statement.
fn only_from_port(rows: &mut Rows) {
    rows.row = "Beside: only";
    rows.on(configs::only(), 0);
    let from_vm1 = |to: Ipv4Addr| v4(&V4 { to, ..away() });
    rows.forward(OUT, "a port to an external address, through the tunnel",
        from_vm1([8, 8, 8, 8].into()));
    rows.forward(OUT, "a port to an external address by IPv6",
        v6(&V6 { to: EXTERNAL6, ..away6() }));
    for to in [NEXT_HOP, UPLINK_IP, [192, 0, 2, 200].into()] {
        rows.drop(Underlay, "a port to the underlay", from_vm1(to));
    }
    rows.error(RouteNone, "a port to an unowned address of the subnet", from_vm1(UNOWNED));
    let mut closed = configs::only();
    closed.tunnel.as_mut().expect("a tunnel").peers.remove(0);
    rows.on(closed.clone(), 0);
    rows.error(RouteNone, "a port to an external address, where that is behind no peer",
        from_vm1([8, 8, 8, 8].into()));
    rows.error(RouteNone, "the same by IPv6", v6(&V6 { to: EXTERNAL6, ..away6() }));
    rows.drop(Underlay, "a port to the underlay", from_vm1([192, 0, 2, 200].into()));
    rows.drop(ArpUnknown, "ARP for an external address", ethernet(BROADCAST, VM1, ARP,
        &Arp { opcode: 1, sender_mac: VM1, sender: IP1, target_mac: [0; 6],
            target: EXTERNAL.octets().map(|octet| octet ^ 1).into() }.bytes()));
    rows.on(closed, OUT);
    rows.drop(TunnelOnly, "plain from an external address to a port",
        plain(&V4 { from: [8, 8, 8, 8].into(), ..inbound() }));
}

#[rustfmt::skip] // A table: one frame a statement.
fn path_mtus(rows: &mut Rows) {
    rows.row = "Beside: path MTU";
    for (name, config) in configs::tunnels() {
        let vtep = tunnel(&config).vtep;
        let port = tunnel(&config).port;
        let peer = tunnel(&config).peers[B].vtep;
        rows.on(config.clone(), OUT);
        for mtu in [0, 1, 575, 576, 1279, 1280, 1400, 1570, 9000, 0xffff, 0x1_0580, u32::MAX] {
            rows.drop(GatewayService, name, too_big(&config, mtu, vtep, peer, port));
        }
        let mut wrong_sum = too_big(&config, 1400, vtep, peer, port);
        wrong_sum[if vtep.is_ipv4() { 36 } else { 56 }] ^= 1;
        rows.drop(GatewayService, "with a wrong checksum", wrong_sum);
        let stranger: IpAddr = if vtep.is_ipv4() { EXTERNAL.into() } else { EXTERNAL6.into() };
        rows.drop(GatewayService, "of a packet to an unknown VTEP",
            too_big(&config, 1400, vtep, stranger, port));
        rows.drop(GatewayService, "of a packet that is not ours",
            too_big(&config, 1400, stranger, peer, port));
        rows.drop(GatewayService, "of a packet from the peer",
            too_big(&config, 1400, peer, vtep, port));
        rows.drop(GatewayService, "of another port", too_big(&config, 1400, vtep, peer, port ^ 1));
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn path_mtu_quotes(rows: &mut Rows) {
    rows.row = "Beside: path MTU";
    rows.on(configs::geneve(), OUT);
    let quote = V4::new(UPLINK_IP, [192, 0, 2, 66].into(), 17, udp(50_000, 6081, &[0; 8]));
    let error = |kind, code,
        quote: &[u8]| plain(&V4::new(NEXT_HOP, UPLINK_IP, 1,
        icmp(kind, code, &[&[0, 0, 5, 0x78], quote].concat())));
    rows.drop(GatewayService, "a whole quote of what was never sent", error(3, 4, &quote.bytes()));
    rows.drop(GatewayService, "the least that is quoted", error(3, 4, &quote.bytes()[..28]));
    rows.drop(GatewayService, "a quote cut off", error(3, 4, &quote.bytes()[..19]));
    rows.drop(GatewayService, "no quote", error(3, 4, &[]));
    rows.drop(GatewayService, "another code", error(3, 3, &quote.bytes()));
    rows.drop(GatewayService, "another type", error(11, 4, &quote.bytes()));
    rows.drop(GatewayService, "a quote of TCP",
        error(3, 4, &V4 { protocol: 6, ..quote.clone() }.bytes()));
    rows.drop(GatewayService, "a quote with options",
        error(3, 4, &V4 { options: vec![1, 1, 1, 1], ..quote.clone() }.bytes()));
    rows.drop(GatewayService, "a quote of a later fragment",
        error(3, 4, &V4 { fragment: 9, ..quote.clone() }.bytes()));
    rows.drop(GatewayService, "a fragment", {
        let message = icmp(3, 4, &[&[0, 0, 5, 0x78], &quote.bytes()[..]].concat());
        plain(&V4 { fragment: MORE_FRAGMENTS, ..V4::new(NEXT_HOP, UPLINK_IP, 1, message) })
    });
    rows.drop(GatewayService, "bytes of such a message in another protocol", {
        let message = icmp(3, 4, &[&[0, 0, 5, 0x78], &quote.bytes()[..]].concat());
        plain(&V4::new(NEXT_HOP, UPLINK_IP, 128, message))
    });
    rows.drop(GatewayService, "a quote of IPv6", error(3, 4, &away6().bytes()));
}

#[rustfmt::skip] // A table: one frame a statement.
fn unreachables(rows: &mut Rows) {
    rows.row = "Beside: unreachable";
    rows.on(configs::geneve(), OUT);
    let quote = V4::new(UPLINK_IP, [192, 0, 2, 66].into(), 17, udp(50_000, 6081, &[0; 60]));
    let said = |from: Ipv4Addr, code| plain(&V4::new(from, UPLINK_IP, 1,
        icmp(3, code, &[&[0; 4], &quote.bytes()[..]].concat())));
    for code in [0, 1, 2, 3, 5, 9, 10, 13, 14] {
        rows.drop(GatewayService, "of what was never sent", said([192, 0, 2, 66].into(), code));
    }
    for code in [0, 1, 2, 3, 4, 9, 10, 13] {
        rows.drop(GatewayService, "a report from a source that only routers have", said(IP1, code));
    }
    for code in [5, 6, 7, 8, 11, 12, 14] {
        rows.drop(IngressSource, "another code from such a source", said(IP1, code));
    }
    rows.drop(IngressSource, "a report from the uplink itself", said(UPLINK_IP, 3));
    let short = |len| plain(&V4::new(NEXT_HOP, UPLINK_IP, 1, icmp(3, 3, &[0; 4])[..len].to_vec()));
    for len in [2, 4, 7] {
        rows.drop(Ipv4Malformed, "cut off", short(len));
    }
    rows.drop(GatewayService, "without a quote", short(8));
    rows.on(configs::geneve6(), OUT);
    let peer: Ipv6Addr = "2001:db8::66".parse().expect("an address");
    let quote = V6::new(UPLINK6, peer, 17, udp(50_000, 6081, &[0; 60]));
    let said = |from: Ipv6Addr, code| plain6(&V6::icmp(from, UPLINK6,
        icmpv6(1, code, &[&[0; 4], &quote.bytes()[..]].concat())));
    for code in 0..=7 {
        rows.drop(GatewayService, "of what was never sent, by IPv6", said(peer, code));
        let reason = if code == 7 { IngressSource } else { GatewayService };
        rows.drop(reason, "the same from a VM's address", said(inner(0x11), code));
    }
}
