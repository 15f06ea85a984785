//! The rows of "From the uplink".

use super::*;

pub(super) fn add(rows: &mut Rows) {
    frames(rows);
    arp_messages(rows);
    headers(rows);
    sources(rows);
    dhcp_and_redirects(rows);
    icmpv6_messages(rows);
    services(rows);
    destinations(rows);
}

fn from_router(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    ethernet(UPLINK, ROUTER, ethertype, payload)
}

/// An IPv4 packet from the router's MAC to the uplink's.
fn v4(packet: &V4) -> Vec<u8> {
    from_router(IPV4, &packet.bytes())
}

/// An IPv6 packet from the router's MAC to the uplink's.
fn v6(packet: &V6) -> Vec<u8> {
    from_router(IPV6, &packet.bytes())
}

/// From an external address to `vm1`.
fn inbound() -> V4 {
    V4::new(EXTERNAL, IP1, 17, udp(53, 1000, b"answer"))
}

/// The same by IPv6.
fn inbound6() -> V6 {
    V6::new(EXTERNAL6, inner(0x11), 17, udp(53, 1000, b"answer"))
}

/// An ARP message with the router's MAC.
fn of_router(opcode: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Arp {
    Arp {
        sender_mac: ROUTER,
        ..arp(opcode, sender, target)
    }
}

/// An ICMPv6 message of the next hop to all nodes.
fn to_all(message: Vec<u8>) -> Vec<u8> {
    v6(&V6::icmp(NEXT_HOP6, ALL_NODES, message))
}

#[rustfmt::skip] // A table: one frame a statement.
fn frames(rows: &mut Rows) {
    rows.on(configs::three(), 3);
    rows.row = "Uplink 1";
    rows.forward(0, "an answer", v4(&inbound()));
    rows.forward(0, "an answer by IPv6", v6(&inbound6()));
    rows.drop(Malformed, "thirteen bytes", v4(&inbound())[..13].to_vec());
    rows.drop(Malformed, "too long", [v4(&inbound()), vec![0; 1500]].concat());
    rows.drop(SrcMacGroup, "from a group", ethernet(UPLINK, BROADCAST, IPV4, &inbound().bytes()));
    rows.drop(SrcMac, "from the uplink's own MAC",
        ethernet(UPLINK, UPLINK, IPV4, &inbound().bytes()));
    rows.drop(SrcMac, "an echo request from the uplink's own MAC, with a tag",
        tagged(&ethernet(UPLINK, UPLINK, IPV4, &inbound().bytes()), 0x8100, 100));
    rows.drop(VlanTag, "a tag", tagged(&v4(&inbound()), 0x8100, 100));
    rows.forward(0, "a priority tag", tagged(&v4(&inbound()), 0x8100, 0xe000));
    rows.add("a priority tag in the metadata", Some(0x6000), v4(&inbound()), Expect::Forward(0));
    rows.reply("a request with a priority tag",
        tagged(&from_router(ARP, &of_router(1, NEXT_HOP, UPLINK_IP).bytes()), 0x8100, 0xa000));
    rows.drop(VlanTag, "a service tag of VID 0", tagged(&v4(&inbound()), 0x88a8, 0));
    rows.drop(VlanTag, "two priority tags", tagged(&tagged(&v4(&inbound()), 0x8100, 0), 0x8100, 0));
    rows.add("a priority tag behind one in the metadata", Some(0),
        tagged(&v4(&inbound()), 0x8100, 0), Expect::Drop(VlanTag));
    rows.drop(Malformed, "cut off in a priority tag",
        tagged(&v4(&inbound()), 0x8100, 0)[..17].to_vec());
    rows.add("a tag in the metadata", Some(100), v4(&inbound()), Expect::Drop(VlanTag));
    rows.drop(Llc, "LLC", from_router(38, &[0x42, 0x42, 3]));
    rows.drop(LinkLocalL2, "LLDP", from_router(0x88cc, &[0; 46]));
    rows.drop(Rarp, "RARP", from_router(RARP, &arp(3, ZERO, ZERO).bytes()));
    rows.drop(EtherType, "MPLS", from_router(0x8847, &[0; 46]));
    rows.on(configs::trunk(), 3);
    rows.drop(DstMac, "another station's, where the device does not filter",
        ethernet(VM1, ROUTER, IPV4, &inbound().bytes()));
    rows.forward(0, "the own MAC, where the device does not filter", v4(&inbound()));
}

#[rustfmt::skip] // A table: one frame a statement.
fn arp_messages(rows: &mut Rows) {
    rows.on(configs::three(), 3);
    rows.row = "Uplink 2";
    rows.drop(ArpMalformed, "cut off",
        from_router(ARP, &of_router(1, NEXT_HOP, UPLINK_IP).bytes()[..27]));
    let says = |sender_mac| {
        from_router(ARP, &Arp { sender_mac, ..of_router(2, NEXT_HOP, UPLINK_IP) }.bytes())
    };
    rows.drop(ArpSenderMac, "a group's hardware address", says(BROADCAST));
    rows.drop(ArpSenderMac, "nobody's hardware address", says([0; 6]));
    rows.drop(ArpSenderMac, "our hardware address", says(UPLINK));
    rows.drop(Absorbed, "the next hop's reply with its virtual MAC", says(VIRTUAL_ROUTER));
    rows.drop(Absorbed, "the next hop's reply",
        from_router(ARP, &of_router(2, NEXT_HOP, UPLINK_IP).bytes()));
    rows.drop(Absorbed, "the next hop's announcement",
        from_router(ARP, &of_router(1, NEXT_HOP, NEXT_HOP).bytes()));
    rows.reply("a request for the uplink's address",
        from_router(ARP, &of_router(1, NEXT_HOP, UPLINK_IP).bytes()));
    rows.drop(SrcMac, "a request from the uplink's own MAC",
        ethernet(BROADCAST, UPLINK, ARP,
            &Arp { sender_mac: UPLINK, ..arp(1, NEXT_HOP, UPLINK_IP) }.bytes()));
    rows.reply("a probe for the uplink's address",
        from_router(ARP, &of_router(1, ZERO, UPLINK_IP).bytes()));
    for sender in [[192, 0, 2, 0], [192, 0, 2, 255], [224, 0, 0, 1], [255; 4], [127, 0, 0, 1],
        [0, 0, 0, 1], [240, 0, 0, 1]] {
        rows.drop(ArpSenderIp, "from what no station has",
            from_router(ARP, &of_router(1, sender.into(), UPLINK_IP).bytes()));
    }
    rows.drop(DstMac, "a request in a group frame",
        ethernet([1, 0, 0x5e, 0, 0, 1], ROUTER, ARP,
            &of_router(1, NEXT_HOP, UPLINK_IP).bytes()));
    rows.drop(ArpUnknown, "a stranger's announcement of the uplink's address",
        from_router(ARP, &of_router(1, UPLINK_IP, UPLINK_IP).bytes()));
    rows.drop(ArpUnknown, "another's reply",
        from_router(ARP, &of_router(2, EXTERNAL, UPLINK_IP).bytes()));
    rows.drop(ArpUnknown, "a request for a port's address",
        from_router(ARP, &of_router(1, NEXT_HOP, IP1).bytes()));
    // RFC 3021: both addresses of a /31 are stations'.
    let mut narrow = configs::three();
    let uplink = narrow.uplink.as_mut().expect("an uplink");
    let own = Ipv4Addr::new(192, 0, 2, 0);
    uplink.ipv4 = Some("192.0.2.0/31".parse().expect("an address"));
    uplink.allow.clear();
    rows.on(narrow, 3);
    rows.drop(Absorbed, "the other station of a /31",
        from_router(ARP, &of_router(2, NEXT_HOP, own).bytes()));
    rows.reply("its request", from_router(ARP, &of_router(1, NEXT_HOP, own).bytes()));
    let mut narrow = configs::three();
    let uplink = narrow.uplink.as_mut().expect("an uplink");
    let hop: Ipv6Addr = "2001:db8::".parse().expect("an address");
    uplink.ipv6 = Some("2001:db8::1/127".parse().expect("an address"));
    uplink.next_hops.ipv6 = Some(hop);
    uplink.allow.clear();
    rows.on(narrow, 3);
    rows.drop(Absorbed, "the other station of a /127 (RFC 6164)",
        v6(&V6::icmp(hop, NEXT_HOP6, neighbor(136, 0x60, hop, &[link_layer(2, ROUTER)]))));
}

#[rustfmt::skip] // A table: one frame a statement.
fn headers(rows: &mut Rows) {
    rows.on(configs::three(), 3);
    rows.row = "Uplink 3";
    rows.drop(Ipv4Malformed, "a wrong checksum", {
        let mut frame = v4(&inbound());
        frame[24] ^= 1;
        frame
    });
    rows.drop(Ipv4Martian, "from loopback",
        v4(&V4 { from: Ipv4Addr::LOCALHOST, ..inbound() }));
    rows.drop(Ipv4SourceRoute, "loose", v4(&V4 { options: vec![131, 3, 4], ..inbound() }));
    rows.drop(Ipv4Fragment, "a first fragment cut off",
        v4(&V4 { fragment: MORE_FRAGMENTS, payload: vec![0; 4], ..inbound() }));
    rows.drop(Ipv6Malformed, "cut off", v6(&inbound6())[..60].to_vec());
    rows.drop(Ipv6Chain, "a routing header of type 0", v6(&inbound6().with(43, routing(0))));
    rows.drop(Ipv6Fragment, "an IPv6 first fragment cut off",
        v6(&V6 { payload: vec![], ..inbound6() }.with(44, fragment_header(0, true))));
}

#[rustfmt::skip] // A table: one frame a statement.
fn sources(rows: &mut Rows) {
    rows.on(configs::three(), 3);
    rows.row = "Uplink 4";
    rows.drop(IngressSource, "a port's own address", v4(&V4 { from: IP2, ..inbound() }));
    rows.drop(IngressSource, "of a port's prefix",
        v4(&V4 { from: [172, 16, 3, 3].into(), ..inbound() }));
    rows.drop(IngressSource, "the gateway's address", v4(&V4 { from: GATEWAY, ..inbound() }));
    rows.drop(IngressSource, "an unowned address of the gateway's subnet",
        v4(&V4 { from: UNOWNED, ..inbound() }));
    rows.drop(IngressSource, "the uplink's own",
        v4(&V4::new(UPLINK_IP, UPLINK_IP, 1, icmp(8, 0, ECHO))));
    for last in [0, 255] {
        rows.drop(IngressSource, "the underlay's first or broadcast address",
            v4(&V4 { from: [192, 0, 2, last].into(), ..inbound() }));
        rows.drop(IngressSource, "an echo request from there",
            v4(&V4::new([192, 0, 2, last].into(), UPLINK_IP, 1, icmp(8, 0, ECHO))));
    }
    rows.drop(IngressSource, "the underlay's first IPv6 address",
        v6(&V6 { from: "2001:db8::".parse().expect("an address"), ..inbound6() }));
    for ip in [[10, 0, 0, 12], [172, 16, 3, 3], [192, 0, 2, 9]] {
        for from in standing_for(ip) {
            rows.drop(IngressSource, "what stands for the inside or the underlay",
                v6(&V6 { from, ..inbound6() }));
        }
    }
    for from in standing_for([198, 51, 100, 7]) {
        rows.forward(0, "what stands for an external address", v6(&V6 { from, ..inbound6() }));
    }
    rows.forward(0, "another of the underlay",
        v4(&V4 { from: [192, 0, 2, 254].into(), ..inbound() }));
    rows.drop(IngressSource, "of 240.0.0.0/4",
        v4(&V4 { from: [240, 0, 0, 1].into(), ..inbound() }));
    rows.drop(IngressSource, "of 0.0.0.0/8",
        v4(&V4 { from: [0, 0, 0, 9].into(), ..inbound() }));
    rows.drop(IngressSource, "an IPv4 address as IPv6",
        v6(&V6 { from: IP2.to_ipv6_mapped(), ..inbound6() }));
    rows.drop(IngressSource, "0.0.0.0", v4(&V4 { from: ZERO, ..inbound() }));
    rows.drop(IngressSource, "a port's IPv6 address",
        v6(&V6 { from: inner(0x12), ..inbound6() }));
    rows.drop(IngressSource, "the gateway's IPv6 address",
        v6(&V6 { from: inner(1), ..inbound6() }));
    rows.drop(IngressSource, "::", v6(&V6 { from: ANY6, ..inbound6() }));
    rows.drop(IngressSource, "::1", v6(&V6 { from: Ipv6Addr::LOCALHOST, ..inbound6() }));
    rows.drop(IngressSource, "an IPv6 group", v6(&V6 { from: ALL_NODES, ..inbound6() }));
    rows.drop(IngressSource, "an IPv4 link-local address",
        v4(&V4 { from: [169, 254, 1, 1].into(), ..inbound() }));
    rows.drop(IngressSource, "an IPv6 link-local address",
        v6(&V6 { from: link_local(ROUTER), ..inbound6() }));
    rows.drop(Absorbed, ":: in an MLD report, all the same",
        v6(&V6::icmp(ANY6, MLD_ROUTERS, icmpv6(143, 0, &[0; 4]))));
}

#[rustfmt::skip] // A table: one frame a statement.
fn dhcp_and_redirects(rows: &mut Rows) {
    rows.on(configs::three(), 3);
    rows.row = "Uplink 5";
    rows.drop(DhcpServer, "from port 67", v4(&V4 { payload: udp(67, 9, b""), ..inbound() }));
    rows.drop(DhcpServer, "a BOOTREPLY",
        v4(&V4 { payload: udp(9, 68, &bootp(2, VM1)), ..inbound() }));
    rows.drop(DhcpServer, "a first fragment to port 68",
        v4(&V4 { fragment: MORE_FRAGMENTS, payload: udp(9, 68, &[1; 8]), ..inbound() }));
    rows.drop(DhcpClient, "a client's release to the server",
        v4(&V4 { to: IP3, payload: udp(68, 67, &bootp(1, VM1)), ..inbound() }));
    rows.drop(DhcpClient, "a relay agent's message, by its first fragment",
        v4(&V4 { fragment: MORE_FRAGMENTS, payload: udp(9, 67, &bootp(1, VM1)), ..inbound() }));
    rows.forward(0, "a later fragment whose bytes look so",
        v4(&V4 { fragment: 9, payload: udp(68, 67, b""), ..inbound() }));
    rows.drop(Redirect, "an ICMP redirect",
        v4(&V4 { payload: icmp(5, 1, ECHO), protocol: 1, ..inbound() }));
    for (kind, reason) in [(17, IgmpQuery), (48, RouterAdvertisement), (19, RouterAdvertisement)] {
        rows.drop(reason, "a multicast router's message",
            v4(&V4 { payload: vec![kind; 8], protocol: 2, ..inbound() }));
    }
    rows.forward(0, "a tunnel, which the port's own rule does not concern",
        v4(&V4 { payload: udp(4789, 4789, b""), ..inbound() }));
    rows.drop(Dhcpv6Server, "to port 546",
        v6(&V6 { payload: udp(9, 546, b""), ..inbound6() }));
    rows.drop(Dhcpv6Server, "from port 547",
        v6(&V6 { payload: udp(547, 9, b""), ..inbound6() }));
    rows.drop(Dhcpv6Client, "to port 547",
        v6(&V6 { payload: udp(546, 547, b""), ..inbound6() }));
}

#[rustfmt::skip] // A table: one frame a statement.
fn icmpv6_messages(rows: &mut Rows) {
    rows.on(configs::three(), 3);
    rows.row = "Uplink 6";
    rows.drop(MldQuery, "a query", to_all(icmpv6(130, 0, &[0; 20])));
    rows.drop(NdMalformed, "over a router",
        v6(&V6 { hop_limit: 64,
            ..V6::icmp(NEXT_HOP6, ALL_NODES, neighbor(135, 0, UPLINK6, &[])) }));
    rows.drop(RouterAdvertisement, "a Router Advertisement", to_all(router_advertisement(&[])));
    rows.drop(Redirect, "a Redirect", to_all(redirect(EXTERNAL6, EXTERNAL6)));
    rows.drop(Absorbed, "a Router Solicitation", to_all(router_solicitation(&[])));
    rows.drop(NdSpoof, "an inverse solicitation", to_all(icmpv6(141, 0, &[0; 20])));
    for kind in [131, 132, 143] {
        rows.drop(Absorbed, "an MLD report", to_all(icmpv6(kind, 0, &[0; 20])));
    }
    rows.drop(Absorbed, "the next hop's advertisement",
        to_all(neighbor(136, 0xa0, NEXT_HOP6, &[link_layer(2, ROUTER)])));
    rows.drop(NdUnknown, "another's advertisement", to_all(neighbor(136, 0xa0, EXTERNAL6, &[])));
    rows.reply("a solicitation for the uplink's address",
        to_all(neighbor(135, 0, UPLINK6, &[link_layer(1, ROUTER)])));
    rows.drop(NdUnknown, "a solicitation from ::",
        v6(&V6::icmp(ANY6, solicited_node(UPLINK6), neighbor(135, 0, UPLINK6, &[]))));
    rows.drop(NdUnknown, "a solicitation for a port's address",
        to_all(neighbor(135, 0, inner(0x11), &[])));
    rows.drop(NdUnknown, "a solicitation for the uplink's link-local address",
        to_all(neighbor(135, 0, link_local(UPLINK), &[link_layer(1, ROUTER)])));
    rows.on(configs::linked(), 3);
    let router: Ipv6Addr = "fe80::fe".parse().expect("an address");
    let from_router = |to, message| v6(&V6::icmp(router, to, message));
    let own = link_local(UPLINK);
    rows.drop(Absorbed, "a link-local next hop's advertisement",
        from_router(own, neighbor(136, 0xe0, router, &[link_layer(2, ROUTER)])));
    rows.drop(NdUnknown, "another link-local's advertisement",
        from_router(own, neighbor(136, 0xe0, link_local(VM1), &[link_layer(2, ROUTER)])));
    for to in [own, solicited_node(own)] {
        rows.reply("a solicitation for the uplink's link-local address",
            from_router(to, neighbor(135, 0, own, &[link_layer(1, ROUTER)])));
    }
    rows.reply("a solicitation for the uplink's address, from a link-local one",
        from_router(UPLINK6, neighbor(135, 0, UPLINK6, &[link_layer(1, ROUTER)])));
    rows.drop(NdUnknown, "detection of the uplink's link-local address",
        v6(&V6::icmp(ANY6, solicited_node(own), neighbor(135, 0, own, &[]))));
    rows.drop(NdUnknown, "a solicitation for the next hop's own address",
        from_router(UPLINK6, neighbor(135, 0, router, &[link_layer(1, ROUTER)])));
    rows.drop(IngressSource, "a packet from a link-local address",
        v6(&V6 { from: router, ..inbound6() }));
    rows.drop(LinkLocalIp, "an echo request to the uplink's link-local address",
        v6(&V6::icmp(EXTERNAL6, own, icmpv6(128, 0, ECHO))));
}

#[rustfmt::skip] // A table: one frame a statement.
fn services(rows: &mut Rows) {
    rows.on(configs::three(), 3);
    rows.row = "Uplink 7";
    rows.reply("an echo request", v4(&V4::new(EXTERNAL, UPLINK_IP, 1, icmp(8, 0, ECHO))));
    rows.reply("an echo request by IPv6", v6(&V6::icmp(EXTERNAL6, UPLINK6, icmpv6(128, 0, ECHO))));
    rows.drop(GatewayService, "an echo request with a wrong checksum", {
        let mut payload = icmp(8, 0, ECHO);
        payload[2] ^= 1;
        v4(&V4::new(EXTERNAL, UPLINK_IP, 1, payload))
    });
    rows.drop(GatewayService, "an echo request by IPv6 with a wrong checksum", {
        let mut packet = V6::icmp(EXTERNAL6, UPLINK6, icmpv6(128, 0, ECHO));
        packet.payload[2] ^= 1;
        v6(&packet)
    });
    rows.drop(DstMac, "an echo request in an Ethernet broadcast",
        ethernet(BROADCAST, ROUTER, IPV4,
            &V4::new(EXTERNAL, UPLINK_IP, 1, icmp(8, 0, ECHO)).bytes()));
    rows.drop(DstMac, "an echo request by IPv6 in a group frame",
        ethernet(group_mac(ALL_NODES), ROUTER, IPV6,
            &V6::icmp(EXTERNAL6, UPLINK6, icmpv6(128, 0, ECHO)).bytes()));
    rows.drop(DstMac, "a solicitation to one station in a group frame",
        ethernet(group_mac(ALL_NODES), ROUTER, IPV6,
            &V6::icmp(NEXT_HOP6, UPLINK6, neighbor(135, 0, UPLINK6, &[])).bytes()));
    rows.drop(GatewayService, "TCP", v4(&V4::new(EXTERNAL, UPLINK_IP, 6, tcp(1, 22, 5, b""))));
    rows.drop(GatewayService, "UDP", v4(&V4 { to: UPLINK_IP, ..inbound() }));
}

#[rustfmt::skip] // A table: one frame a statement.
fn destinations(rows: &mut Rows) {
    rows.on(configs::three(), 3);
    rows.row = "Uplink 8";
    rows.drop(Multicast, "a group", v4(&V4 { to: [224, 0, 0, 5].into(), ..inbound() }));
    rows.drop(LinkLocalIp, "a port's link-local address",
        v6(&V6 { to: link_local(VM1), ..inbound6() }));
    rows.forward(0, "with a TTL of 1", v4(&V4 { ttl: 1, ..inbound() }));
    rows.drop(NoTransit, "an external address",
        v4(&V4 { to: [203, 0, 113, 1].into(), ..inbound() }));
    rows.drop(RouteNone, "an unowned address of the gateway's subnet",
        v4(&V4 { to: UNOWNED, ..inbound() }));
    rows.drop(RouteNone, "the gateway's own address", v4(&V4 { to: GATEWAY, ..inbound() }));
    rows.error(DropReason::Mtu, "larger than the port's link",
        v4(&V4 { to: IP3, payload: udp(1, 2, &[0; 1301 - 28]), ..inbound() }));
}
