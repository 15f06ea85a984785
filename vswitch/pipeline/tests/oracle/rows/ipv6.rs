//! The rows of "IPv6" up to row 5; row 6 is in `nd`.

use super::*;

pub(super) fn add(rows: &mut Rows) {
    headers(rows);
    chains(rows);
    second_addresses(rows);
    cut_off_chains(rows);
    sources(rows);
    dhcp_servers(rows);
    routers_messages(rows);
    encapsulation(rows);
}

/// The plain packet behind `count` extension headers.
fn behind_headers(count: usize) -> V6 {
    (0..count).fold(plain6(), |packet, _| packet.with(60, padding_options(0)))
}

/// `packet` as the first fragment of several.
fn first(packet: &V6) -> V6 {
    packet.clone().with(44, fragment_header(0, true))
}

/// `packet` behind a fragment header, but whole.
fn atomic(packet: &V6) -> V6 {
    packet.clone().with(44, fragment_header(0, false))
}

#[rustfmt::skip] // A table: one frame a statement.
fn headers(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv6 1";
    let good = v6(&plain6());
    rows.forward(1, "a plain packet", good.clone());
    rows.drop(Ipv6Malformed, "no byte of it", good[..14].to_vec());
    rows.drop(Ipv6Malformed, "39 bytes", good[..53].to_vec());
    rows.drop(Ipv6Malformed, "version 4", {
        let mut frame = good.clone();
        frame[14] = 0x45;
        frame
    });
    rows.drop(Ipv6Malformed, "one byte short of its length", good[..good.len() - 1].to_vec());
    rows.forward(1, "padding", [good.clone(), vec![0xaa; 9]].concat());
}

#[rustfmt::skip] // A table: one frame a statement.
fn chains(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv6 2";
    rows.forward(1, "eight extension headers", v6(&behind_headers(8)));
    rows.drop(Ipv6Chain, "a ninth", v6(&behind_headers(9)));
    rows.forward(1, "one of each kind", {
        v6(&plain6()
            .with(0, padding_options(0))
            .with(60, padding_options(1))
            .with(43, routing(4))
            .with(44, fragment_header(0, false))
            .with(51, authentication()))
    });
    rows.drop(Ipv6Chain, "hop-by-hop behind another",
        v6(&plain6().with(60, padding_options(0)).with(0, padding_options(0))));
    rows.drop(Ipv6Chain, "two fragment headers",
        v6(&plain6().with(44, fragment_header(0, true)).with(44, fragment_header(0, false))));
    rows.drop(Ipv6Chain, "a routing header of type 0", v6(&plain6().with(43, routing(0))));
    rows.forward(1, "a routing header of type 2", v6(&plain6().with(43, routing(2))));
    let layers = (1..=255).filter(|upper| {
        !matches!(upper, 6 | 17 | 43 | 44 | 51 | 58 | 60 | 135 | 139 | 140 | 253 | 254)
    });
    for upper in layers {
        rows.forward(1, "an upper layer without a byte",
            v6(&V6 { upper, payload: vec![], ..plain6() }));
    }
    for upper in [1, 2, 88, 115, 142, 200, 255] {
        rows.forward(1, "an upper layer that is not known, behind others",
            v6(&V6 { upper, ..behind_headers(3) }));
        rows.forward(1, "a fragment of it",
            v6(&V6 { upper, ..plain6() }.with(44, fragment_header(0, true))));
    }
    for upper in [253, 254] {
        rows.drop(Ipv6Chain, "a header of an experiment", v6(&V6 { upper, ..plain6() }));
        rows.drop(Ipv6Chain, "one behind others", v6(&V6 { upper, ..behind_headers(3) }));
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn second_addresses(rows: &mut Rows) {
    rows.row = "IPv6 2, second-address";
    rows.on(configs::three(), 0);
    let behind = |number: u8, rest: Vec<u8>| v6(&plain6().with(number, rest));
    let home = home_address(inner(0x12));
    rows.drop(SecondAddress, "a home address", behind(60, one_option(&home)));
    rows.drop(SecondAddress, "the own address as a home address",
        behind(60, one_option(&home_address(inner(0x11)))));
    rows.drop(SecondAddress, "a home address in the hop-by-hop header",
        behind(0, one_option(&home)));
    rows.drop(SecondAddress, "a home address behind other headers",
        v6(&plain6().with(0, padding_options(0)).with(51, authentication())
            .with(60, one_option(&home))));
    rows.drop(SecondAddress, "a home address in a first fragment",
        v6(&first(&plain6()).with(60, one_option(&home))));
    rows.drop(SecondAddress, "a home address in an echo request to the gateway",
        v6(&V6::icmp(inner(0x11), inner(1), icmpv6(128, 0, ECHO)).with(60, one_option(&home))));
    for kind in [1, 2, 3, 4, 5, 6, 253, 255] {
        rows.drop(SecondAddress, "a segment left", behind(43, routing_by(kind, 1, inner(0x13))));
        rows.drop(SecondAddress, "a segment left, without an address", behind(43, {
            let mut rest = routing(kind);
            rest[2] = 255;
            rest
        }));
        rows.forward(1, "no segment left", behind(43, routing_by(kind, 0, inner(0x13))));
    }
    rows.drop(Ipv6Chain, "type 0, with a segment left", behind(43, routing_by(0, 1, inner(0x13))));
    for number in [135, 139, 140] {
        rows.drop(SecondAddress, "a header that binds addresses",
            behind(number, padding_options(4)));
        rows.drop(SecondAddress, "the same at the end", v6(&V6 { upper: number, ..plain6() }));
    }
    rows.forward(1, "padding of one byte each", behind(60, one_option(&[0, 0, 0, 0])));
    for option in [1, 4, 5, 7, 15, 17, 18, 35, 38, 48, 49, 50, 99, 238] {
        rows.forward(1, "an option without an address", behind(60, one_option(&[option, 0])));
        rows.forward(1, "the same, hop by hop", behind(0, one_option(&[option, 2, 9, 9])));
    }
    for option in [2, 3, 6, 8, 0x1e, 0x6d, 0x8a, 0x8b, 0x8c, 0xc2, 0xc9, 0xfe, 0xff] {
        rows.drop(SecondAddress, "another option", behind(60, one_option(&[option, 0])));
        rows.drop(SecondAddress, "another option, hop by hop",
            behind(0, one_option(&[1, 0, 0, option, 0])));
    }
    rows.drop(Ipv6Malformed, "an option over the header's end",
        behind(60, vec![0, 1, 5, 0, 0, 0, 0]));
    rows.forward(1, "an option up to the header's end", behind(60, vec![0, 1, 4, 0, 0, 0, 0]));
    rows.drop(Ipv6Malformed, "an option without its length",
        behind(60, vec![0, 0, 0, 0, 0, 0, 1]));
    rows.drop(SecondAddress, "another option over the header's end",
        behind(60, vec![0, 201, 16, 0, 0, 0, 0]));
    rows.on(configs::three(), 3);
    let inbound = V6::new(EXTERNAL6, inner(0x11), 17, udp(53, 1000, b"answer"));
    rows.drop(SecondAddress, "from outside, at home inside",
        ethernet(UPLINK, ROUTER, IPV6, &inbound.clone().with(60, one_option(&home)).bytes()));
    rows.drop(SecondAddress, "from outside, with a segment left",
        ethernet(UPLINK, ROUTER, IPV6,
            &inbound.with(43, routing_by(4, 1, inner(0x12))).bytes()));
}

#[rustfmt::skip] // A table: one frame a statement.
fn cut_off_chains(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv6 2";
    let good = v6(&plain6());
    let cut = |packet: &V6, left: usize| {
        let mut packet = packet.clone();
        packet.payload.truncate(left);
        packet
    };
    let of_tcp = V6 { upper: 6, payload: tcp(1, 2, 8, b"data"), ..plain6() };
    for (name, packet) in [
        ("UDP cut off", cut(&plain6(), 7)),
        ("TCP cut off", cut(&of_tcp, 19)),
        ("TCP whose options are cut off", cut(&of_tcp, 31)),
        (
            "TCP with a header of four words",
            V6 {
                payload: tcp(1, 2, 4, b"data"),
                ..of_tcp.clone()
            },
        ),
        (
            "ICMPv6 cut off",
            V6 {
                upper: 58,
                payload: vec![128, 0, 0],
                ..plain6()
            },
        ),
        (
            "a cut-off header",
            V6 {
                upper: 60,
                payload: vec![17, 0, 1, 4, 0, 0, 0],
                ..plain6()
            },
        ),
        (
            "a header longer than the packet",
            V6 {
                upper: 60,
                payload: vec![17, 1, 1, 4, 0, 0, 0, 0],
                ..plain6()
            },
        ),
        (
            "a header that is announced only",
            V6 {
                upper: 60,
                payload: vec![],
                ..plain6()
            },
        ),
    ] {
        rows.drop(Ipv6Malformed, name, v6(&packet));
        rows.drop(Ipv6Malformed, name, v6(&atomic(&packet)));
        rows.drop(Ipv6Fragment, name, v6(&first(&packet)));
    }
    rows.drop(Ipv6Malformed, "a cut-off fragment header",
        v6(&V6 { upper: 44, payload: vec![17, 0, 0, 1, 0, 0, 0], ..plain6() }));
    rows.drop(Ipv6Malformed, "a length of zero", {
        let mut frame = good.clone();
        frame[18..20].fill(0);
        frame
    });
    rows.forward(1, "anything behind a fragment header with an offset",
        v6(&V6 { upper: 253, payload: vec![0; 3], ..plain6() }.with(44,
            fragment_header(1, false))));
    rows.forward(1, "a whole first fragment", v6(&first(&of_tcp)));
}

#[rustfmt::skip] // A table: one frame a statement.
fn sources(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv6 3";
    let from = |ip| { v6(&V6 { from: ip, ..plain6() }) };
    rows.drop(Ipv6Source, "the sibling's", from(inner(0x12)));
    rows.drop(Ipv6Source, "the gateway's", from(inner(1)));
    rows.drop(Ipv6Source, "the gateway's link-local", from(link_local(GW)));
    rows.drop(Ipv6Source, "the sibling's link-local", from(link_local(VM2)));
    rows.drop(Ipv6Source, "loopback", from(Ipv6Addr::LOCALHOST));
    rows.drop(Ipv6Source, "one of a single bit", from(Ipv6Addr::from_bits(1 << 120)));
    rows.drop(Ipv6Source, "a group", from(ALL_NODES));
    rows.drop(Ipv6Source, "unspecified, by UDP", from(ANY6));
    rows.drop(Ipv6Source, "the own IPv4 address, mapped", from(IP1.to_ipv6_mapped()));
    rows.drop(LinkLocalIp, "the own link-local", from(link_local(VM1)));
    rows.drop(Ipv6Source, "a free link-local, by UDP", from(STABLE));
    rows.on(configs::three(), 1);
    rows.forward(0, "one of a prefix", {
        let packet = V6::new(
            "fd00:0:0:2::ffff".parse().expect("an address"),
            inner(0x11),
            59,
            vec![],
        );
        ethernet(GW, VM2, IPV6, &packet.bytes())
    });
    rows.on(configs::three(), 0);
    let report = icmpv6(143, 0, &[0, 0, 0, 0]);
    rows.drop(Ipv6Source, "unspecified, in a fragment",
        v6_group(&V6::icmp(ANY6, MLD_ROUTERS, report.clone()).with(44, fragment_header(0, false))));
    rows.drop(Ipv6Source, "unspecified, in an echo request",
        v6(&V6::icmp(ANY6, inner(1), icmpv6(128, 0, ECHO))));
    rows.drop(Ipv6Source, "unspecified, in an advertisement", {
        let na = neighbor(136, 0, inner(0x11), &[]);
        v6_group(&V6::icmp(ANY6, ALL_NODES, na))
    });
}

#[rustfmt::skip] // A table: one frame a statement.
fn dhcp_servers(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv6 4";
    rows.drop(Dhcpv6Server, "from port 547", v6(&V6 { payload: udp(547, 546, b""), ..plain6() }));
    rows.drop(Dhcpv6Server, "to port 546", v6(&V6 { payload: udp(9, 546, b""), ..plain6() }));
    rows.drop(Dhcpv6Server, "from port 547, behind other headers",
        v6(&V6 { payload: udp(547, 546, b""), ..behind_headers(2) }));
    rows.on(configs::three(), 2);
    rows.forward(0, "by the DHCP server", {
        let packet = V6::new(inner(0x13), inner(0x11), 17, udp(547, 546, b"reply"));
        ethernet(GW, VM3, IPV6, &packet.bytes())
    });
}

#[rustfmt::skip] // A table: one frame a statement.
fn routers_messages(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv6 6";
    for kind in [138, 145, 147, 149, 151, 153, 154, 155] {
        rows.drop(RouterAdvertisement, "another router's message",
            v6(&V6::icmp(inner(0x11), inner(0x12), icmpv6(kind, 0, &[0; 20]))));
    }
    rows.drop(Redirect, "a locator update",
        v6(&V6::icmp(inner(0x11), inner(0x12), icmpv6(156, 0, &[0; 20]))));
    for kind in [139, 140, 144, 146, 148, 150, 152, 159, 160, 161] {
        rows.forward(1, "another message",
            v6(&V6::icmp(inner(0x11), inner(0x12), icmpv6(kind, 0, &[0; 20]))));
    }
    for kind in [141, 142, 157, 158] {
        rows.drop(NdSpoof, "inverse ND, or duplicates over several hops",
            v6(&V6::icmp(inner(0x11), inner(0x12), icmpv6(kind, 0, &[0; 20]))));
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn encapsulation(rows: &mut Rows) {
    rows.row = "IPv6 5";
    rows.on(configs::three(), 1);
    let of_vm2 = |packet: &V6| ethernet(GW, VM2, IPV6, &packet.bytes());
    let tunnel = |upper| V6::new(inner(0x12), inner(0x11), upper, plain().bytes());
    for upper in [4, 41, 47, 97, 103, 108, 115, 137, 143, 200] {
        rows.drop(DropReason::Encapsulation, "a tunnel", of_vm2(&tunnel(upper)));
        rows.drop(DropReason::Encapsulation, "a tunnel behind other headers",
            of_vm2(&tunnel(upper).with(60, padding_options(0))));
        rows.drop(DropReason::Encapsulation, "a tunnel behind an authentication header",
            of_vm2(&tunnel(upper).with(51, authentication())));
        rows.drop(DropReason::Encapsulation, "a tunnel's first fragment",
            of_vm2(&tunnel(upper).with(44, fragment_header(0, true))));
    }
    for upper in [1, 2, 33, 46, 50, 59, 88, 89, 112, 132, 136] {
        rows.forward(0, "an upper layer that carries no packet", of_vm2(&tunnel(upper)));
    }
    for port in super::ipv4::CARRIERS {
        for (from, to) in [(port, 9), (9, port)] {
            let packet = V6::new(inner(0x12), inner(0x11), 17, udp(from, to, b""));
            rows.drop(DropReason::Encapsulation, "a tunnel by UDP", of_vm2(&packet));
            rows.drop(DropReason::Encapsulation, "a tunnel by UDP behind authentication",
                of_vm2(&packet.with(51, authentication())));
        }
    }
    for (from, to) in [(7471, 9), (9, 7471)] {
        let packet = V6::new(inner(0x12), inner(0x11), 6, tcp(from, to, 5, b""));
        rows.drop(DropReason::Encapsulation, "STT", of_vm2(&packet));
    }
    rows.on(configs::three(), 0);
    rows.forward(1, "a tunnel that is not denied", v6(&V6 { upper: 41, ..plain6() }));
}
