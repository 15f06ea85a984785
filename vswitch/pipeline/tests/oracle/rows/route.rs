//! The rows of "Services and route".

use super::*;

pub(super) fn add(rows: &mut Rows) {
    dhcp(rows);
    gateway(rows);
    closed_destinations(rows);
    longest_prefix(rows);
    behind_ports(rows);
    hop_limits(rows);
    sizes(rows);
    unresolved_next_hop(rows);
}

/// An echo request of `vm1`.
fn echo(to: Ipv4Addr) -> V4 {
    V4::new(IP1, to, 1, icmp(8, 0, ECHO))
}

/// The same by IPv6.
fn echo6(to: Ipv6Addr) -> V6 {
    V6::icmp(inner(0x11), to, icmpv6(128, 0, ECHO))
}

#[rustfmt::skip] // A table: one frame a statement.
fn dhcp(rows: &mut Rows) {
    let discover = V4::new(ZERO, Ipv4Addr::BROADCAST, 17, udp(68, 67, &bootp(1, VM1)));

    rows.row = "Route 1";
    let mut unserved = configs::lone();
    unserved.gateway.dhcp.enabled = false;
    rows.on(unserved, 0);
    rows.drop(DhcpNoServer, "a client without a server", broadcast(&discover));
    rows.on(configs::inside(), 0);
    rows.forward(1, "a server as the client of the other", broadcast(&discover));
    rows.on(configs::three(), 2);
    let offer = |client| {
        let packet = V4::new(IP3, Ipv4Addr::BROADCAST, 17, udp(67, 68, &bootp(2, client)));
        ethernet(BROADCAST, VM3, IPV4, &packet.bytes())
    };
    rows.forward(1, "a server's broadcast goes to its client alone", offer(VM2));
    rows.drop(DhcpNoServer, "a server's reply to no port's MAC", offer(ROUTER));
    rows.drop(DhcpNoServer, "a server's reply to itself", offer(VM3));
    let from_server = |packet: V4| ethernet(GW, VM3, IPV4, &packet.bytes());
    rows.drop(DhcpNoServer, "a server's reply without the cookie",
        from_server(V4::new(IP3, IP2, 17, udp(67, 68, &bootp(2, VM2)[..236]))));
    let reply = V4::new(IP3, IP2, 17, udp(67, 68, &bootp(2, VM1)));
    rows.forward(0, "a server's reply goes by its chaddr", from_server(reply.clone()));
    rows.forward(1, "a fragment of it goes by its address",
        from_server(V4 { fragment: MORE_FRAGMENTS, ..reply }));
    rows.drop(Multicast, "from 67 to 68, but no BOOTREPLY", {
        let packet = V4::new(IP3, Ipv4Addr::BROADCAST, 17, udp(67, 68, &bootp(1, VM2)));
        ethernet(BROADCAST, VM3, IPV4, &packet.bytes())
    });
}

#[rustfmt::skip] // A table: one frame a statement.
fn gateway(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "Route 2";
    rows.reply("an echo request", v4(&echo(GATEWAY)));
    rows.reply("an echo request by IPv6", v6(&echo6(inner(1))));
    rows.reply("an echo request with options",
        v4(&V4 { options: vec![7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0], ..echo(GATEWAY) }));
    rows.reply("an echo request behind extension headers",
        v6(&echo6(inner(1)).with(60, padding_options(2)).with(43, routing_by(4, 0, inner(0x12)))
            .with(51, authentication())));
    rows.reply("an echo request to the link-local address",
        v6(&V6::icmp(link_local(VM1), link_local(GW), icmpv6(128, 0, ECHO))));
    rows.drop(GatewayService, "a fragment of an echo request",
        v4(&V4 { fragment: MORE_FRAGMENTS, ..echo(GATEWAY) }));
    rows.drop(GatewayService, "an echo reply",
        v4(&V4 { payload: icmp(0, 0, ECHO), ..echo(GATEWAY) }));
    rows.drop(GatewayService, "TCP", v4(&V4::new(IP1, GATEWAY, 6, tcp(1000, 22, 5, b""))));
    rows.error(GatewayService, "UDP", v4(&V4 { to: GATEWAY, ..plain() }));
    rows.error(GatewayService, "UDP by IPv6", v6(&V6 { to: inner(1), ..plain6() }));
    rows.drop(GatewayService, "a later fragment of UDP",
        v4(&V4 { to: GATEWAY, fragment: 7, ..plain() }));
    rows.drop(DstMac, "UDP in an Ethernet broadcast",
        broadcast(&V4 { to: GATEWAY, ..plain() }));
    rows.drop(DstMac, "an echo request in an Ethernet broadcast", broadcast(&echo(GATEWAY)));
    rows.drop(DstMac, "an echo request by IPv6 in a group frame",
        ethernet(group_mac(ALL_NODES), VM1, IPV6, &echo6(inner(1)).bytes()));
    rows.drop(DstMac, "an echo request to the link-local address in a group frame",
        ethernet(group_mac(ALL_NODES), VM1, IPV6, &echo6(link_local(GW)).bytes()));
    for at in [0, 1, 3, 7] {
        rows.drop(GatewayService, "an echo request with a wrong checksum", {
            let mut payload = icmp(8, 0, ECHO);
            payload[if at == 0 { 2 } else { at }] ^= 1;
            v4(&V4 { payload, ..echo(GATEWAY) })
        });
        rows.drop(GatewayService, "an echo request by IPv6 with a wrong checksum", {
            let mut packet = echo6(inner(1));
            packet.payload[if at == 0 { 2 } else { at }] ^= 1;
            v6(&packet)
        });
    }
    rows.forward(1, "one with a wrong checksum to the sibling", {
        let mut payload = icmp(8, 0, ECHO);
        payload[2] ^= 1;
        v4(&V4 { payload, ..echo(IP2) })
    });
    rows.drop(LinkLocalIp, "the link-local address at another port",
        v6(&echo6(link_local([2, 0, 0x13, 0x89, 0, 2]))));
}

#[rustfmt::skip] // A table: one frame a statement.
fn closed_destinations(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "Route 3";
    rows.drop(Multicast, "mDNS", {
        let packet = V4 {
            to: [224, 0, 0, 251].into(),
            ..plain()
        };
        ethernet([1, 0, 0x5e, 0, 0, 0xfb], VM1, IPV4, &packet.bytes())
    });
    rows.drop(Multicast, "a group in an Ethernet unicast",
        v4(&V4 { to: [239, 1, 1, 1].into(), ..plain() }));
    rows.drop(Multicast, "broadcast", broadcast(&V4 { to: Ipv4Addr::BROADCAST, ..plain() }));
    rows.drop(Multicast, "the subnet's broadcast",
        broadcast(&V4 { to: [10, 0, 0, 255].into(), ..plain() }));
    rows.drop(Multicast, "an IPv6 group", v6_group(&V6 { to: ALL_NODES, ..plain6() }));

    rows.row = "Route 4";
    rows.drop(LinkLocalIp, "the metadata service's address",
        v4(&V4 { to: [169, 254, 169, 254].into(), ..plain() }));
    rows.drop(LinkLocalIp, "the sibling's link-local", v6(&V6 { to: link_local(VM2), ..plain6() }));
    rows.drop(LinkLocalIp, "the end of fe80::/10",
        v6(&V6 { to: Ipv6Addr::new(0xfebf, 0, 0, 0, 0, 0, 0, 1), ..plain6() }));
    rows.drop(RouteNone, "to ::", v6(&V6 { to: ANY6, ..plain6() }));
    rows.drop(RouteNone, "an IPv4 address as IPv6",
        v6(&V6 { to: EXTERNAL.to_ipv6_mapped(), ..plain6() }));
    rows.drop(RouteNone, "to ::1", v6(&V6 { to: Ipv6Addr::LOCALHOST, ..plain6() }));

    rows.row = "Route 5";
    rows.drop(DstMac, "the sibling's address in a broadcast", broadcast(&plain()));
    rows.drop(DstMac, "an external address in a group",
        ethernet(group_mac(ALL_NODES), VM1, IPV6, &V6 { to: EXTERNAL6, ..plain6() }.bytes()));
}

#[rustfmt::skip] // A table: one frame a statement.
fn behind_ports(rows: &mut Rows) {
    let behind1 = Ipv4Addr::new(10, 244, 1, 5);
    let behind1_v6: Ipv6Addr = "fd00:244:1::5".parse().expect("an address");
    let behind3_v6: Ipv6Addr = "fd00:244:3:9::5".parse().expect("an address");
    rows.on(configs::routed(), 0);
    rows.row = "Route 6";
    rows.forward(1, "from behind the port to a sibling", v4(&V4 { from: behind1, ..plain() }));
    rows.forward(1, "the same by IPv6", v6(&V6 { from: behind1_v6, ..plain6() }));
    rows.forward(2, "to an address behind a sibling",
        v4(&V4 { to: [10, 244, 3, 7].into(), ..plain() }));
    rows.forward(2, "the same by IPv6", v6(&V6 { to: behind3_v6, ..plain6() }));
    rows.forward(3, "beside what is behind a sibling",
        v4(&V4 { to: [10, 244, 3, 8].into(), ..plain() }));
    rows.error(RouteNone, "to an address behind the port itself",
        v4(&V4 { to: behind1, ..plain() }));
    rows.drop(Ipv4Source, "from behind a sibling",
        v4(&V4 { from: [10, 244, 3, 7].into(), ..plain() }));
    rows.drop(Ipv6Source, "the same by IPv6", v6(&V6 { from: behind3_v6, ..plain6() }));
    rows.on(configs::routed(), 3);
    rows.drop(IngressSource, "from outside, with a source behind a port",
        ethernet(UPLINK, ROUTER, IPV4, &V4 { from: behind1, to: IP2, ..plain() }.bytes()));
}

#[rustfmt::skip] // A table: one frame a statement.
fn longest_prefix(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "Route 6";
    rows.error(RouteNone, "the own address", v4(&V4 { to: IP1, ..plain() }));
    rows.error(RouteNone, "an unowned address of the subnet", v4(&V4 { to: UNOWNED, ..plain() }));
    rows.error(RouteNone, "an unowned address of the IPv6 subnet",
        v6(&V6 { to: inner(0x99), ..plain6() }));
    rows.error(RouteNone, "the first fragment for an unowned address",
        v4(&V4 { to: UNOWNED, fragment: MORE_FRAGMENTS, ..plain() }));
    rows.drop(RouteNone, "a later fragment for an unowned address",
        v4(&V4 { to: UNOWNED, fragment: 9, ..plain() }));
    for kind in [3, 4, 11, 12] {
        rows.drop(RouteNone, "an ICMP error for an unowned address",
            v4(&V4 { payload: icmp(kind, 0, ECHO), ..echo(UNOWNED) }));
    }
    rows.drop(RouteNone, "an ICMPv6 error for an unowned address",
        v6(&V6::icmp(inner(0x11), inner(0x99), icmpv6(1, 0, ECHO))));
    rows.error(RouteNone, "an echo request for an unowned address", v4(&echo(UNOWNED)));
    rows.drop(Underlay, "the next hop", v4(&V4 { to: NEXT_HOP, ..plain() }));
    rows.drop(Underlay, "the uplink's own address", v4(&V4 { to: UPLINK_IP, ..plain() }));
    for last in [0, 255] {
        rows.drop(Underlay, "the underlay's first or broadcast address, also in a hole",
            v4(&V4 { to: [192, 0, 2, last].into(), ..plain() }));
    }
    rows.drop(Underlay, "the underlay by IPv6", v6(&V6 { to: NEXT_HOP6, ..plain6() }));
    rows.forward(3, "the hole in the underlay", v4(&V4 { to: [192, 0, 2, 200].into(), ..plain() }));
    rows.forward(1, "within the sibling's prefix",
        v4(&V4 { to: [172, 16, 1, 1].into(), ..plain() }));
    rows.forward(3, "an external address", v4(&V4 { to: EXTERNAL, ..plain() }));
    rows.forward(3, "an external address by IPv6", v6(&V6 { to: EXTERNAL6, ..plain6() }));
    for ip in [[10, 0, 0, 12], [10, 0, 0, 1], [10, 0, 0, 99], [172, 16, 1, 1], [192, 0, 2, 1],
        [192, 0, 2, 2], [192, 0, 2, 255]] {
        for to in standing_for(ip) {
            rows.drop(EmbeddedAddress, "what stands for the inside or the underlay",
                v6(&V6 { to, ..plain6() }));
            let message = neighbor(135, 0, to, &[]);
            rows.drop(NdUnknown, "a solicitation for it",
                v6_group(&V6::icmp(inner(0x11), solicited_node(to), message)));
        }
    }
    for ip in [[127, 0, 0, 1], [169, 254, 169, 254], [224, 0, 0, 1], [0, 0, 0, 0]] {
        let to = standing_for(ip).into_iter();
        for to in to.filter(|to| to.segments()[..3] != [0x64, 0xff9b, 1]) {
            rows.drop(EmbeddedAddress, "what stands for an address that is never routed",
                v6(&V6 { to, ..plain6() }));
        }
    }
    for ip in [[198, 51, 100, 7], [192, 0, 2, 200]] {
        for to in standing_for(ip) {
            rows.forward(3, "what stands for an external address",
                v6(&V6 { to, ..plain6() }));
        }
    }
    rows.on(configs::lone(), 0);
    rows.error(RouteNone, "an external address, without an uplink",
        v4(&V4 { to: EXTERNAL, ..plain() }));
}

#[rustfmt::skip] // A table: one frame a statement.
fn hop_limits(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "Route 7";
    rows.drop(LinkLocalIp, "a link-local source",
        v6(&V6 { from: link_local(VM1), to: EXTERNAL6, ..plain6() }));
    for ttl in [0, 1] {
        rows.error(DropReason::Ttl, "TTL spent", v4(&V4 { to: EXTERNAL, ttl, ..plain() }));
        rows.error(DropReason::Ttl, "hop limit spent",
            v6(&V6 { to: EXTERNAL6, hop_limit: ttl, ..plain6() }));
        rows.forward(1, "TTL between siblings", v4(&V4 { ttl, ..plain() }));
    }
    rows.forward(3, "TTL 2", v4(&V4 { to: EXTERNAL, ttl: 2, ..plain() }));
}

#[rustfmt::skip] // A table: one frame a statement.
fn sizes(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "Route 8";
    let sized = |to, length: usize| V4 { to, payload: udp(1, 2, &vec![0; length - 28]), ..plain() };
    rows.forward(2, "as large as the sibling's link", v4(&sized(IP3, 1300)));
    rows.error(DropReason::Mtu, "one byte larger", v4(&sized(IP3, 1301)));
    rows.error(DropReason::Mtu, "one byte larger by IPv6",
        v6(&V6 { to: inner(0x13), payload: udp(1, 2, &[0; 1301 - 48]), ..plain6() }));
    rows.forward(2, "as large, with padding beyond", [v4(&sized(IP3, 1300)), vec![0; 7]].concat());

    let discover = |length: usize| {
        let mut message = bootp(1, VM1);
        message.resize(length - 28, 0);
        broadcast(&V4::new(ZERO, Ipv4Addr::BROADCAST, 17, udp(68, 67, &message)))
    };
    rows.forward(2, "a DHCP client's message as large as the server's link", discover(1300));
    rows.drop(DropReason::Mtu, "a DHCP client's message one byte larger", discover(1301));
}

#[rustfmt::skip] // A table: one frame a statement.
fn unresolved_next_hop(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "Route 9";
    rows.resolved = false;
    rows.drop(NeighbourUnresolved, "an external address", v4(&V4 { to: EXTERNAL, ..plain() }));
    rows.drop(NeighbourUnresolved, "an external address by IPv6",
        v6(&V6 { to: EXTERNAL6, ..plain6() }));
    rows.forward(1, "the sibling, all the same", v4(&plain()));
    rows.resolved = true;
}
