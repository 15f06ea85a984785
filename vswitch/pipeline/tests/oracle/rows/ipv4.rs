//! The rows of "IPv4".

use super::*;

pub(super) fn add(rows: &mut Rows) {
    headers(rows);
    addresses(rows);
    source_routes(rows);
    fragments(rows);
    dhcp_clients(rows);
    sources(rows);
    dhcp_servers(rows);
    routers_messages(rows);
    encapsulation(rows);
}

fn with_options(options: &[u8]) -> V4 {
    V4 {
        options: options.to_vec(),
        ..plain()
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn headers(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv4 1";
    let good = v4(&plain());
    rows.drop(Ipv4Malformed, "no byte of it", good[..14].to_vec());
    rows.drop(Ipv4Malformed, "nineteen bytes", good[..33].to_vec());
    rows.drop(Ipv4Malformed, "version 6", patched(&plain(), 0, &[0x65]).frame());
    rows.drop(Ipv4Malformed, "a header of four words", patched(&plain(), 0, &[0x44]).frame());
    rows.drop(Ipv4Malformed, "a header beyond the total length",
        patched(&plain(), 0, &[0x4f]).frame());
    rows.drop(Ipv4Malformed, "a total length of 19", patched(&plain(), 2, &[0, 19]).frame());
    rows.drop(Ipv4Malformed, "a total length of 0", patched(&plain(), 2, &[0, 0]).frame());
    rows.drop(Ipv4Malformed, "one byte short of its total length", good[..good.len() - 1].to_vec());
    rows.drop(Ipv4Malformed, "a wrong checksum", {
        let mut frame = good.clone();
        frame[24] ^= 1;
        frame
    });
    rows.forward(1, "padding", [good.clone(), vec![0xaa; 13]].concat());
    rows.forward(1, "record route", v4(&with_options(&[7, 7, 4, 0, 0, 0, 0])));
    rows.drop(Ipv4Malformed, "an option beyond the header",
        v4(&with_options(&[7, 9, 4, 0, 0, 0, 0, 0])));
    rows.drop(Ipv4Malformed, "an option of length 0", v4(&with_options(&[7, 0, 0, 0])));
    rows.drop(Ipv4Malformed, "an option of length 1", v4(&with_options(&[7, 1, 0, 0])));
    rows.drop(Ipv4Malformed, "an option without its length", v4(&with_options(&[1, 1, 1, 7])));
}

#[rustfmt::skip] // A table: one frame a statement.
fn addresses(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv4 2";
    let from = |ip: [u8; 4]| { v4(&V4 { from: ip.into(), ..plain() }) };
    let to = |ip: [u8; 4]| { v4(&V4 { to: ip.into(), ..plain() }) };
    rows.drop(Ipv4Martian, "from loopback", from([127, 0, 0, 1]));
    rows.drop(Ipv4Martian, "from a group", from([224, 0, 0, 1]));
    rows.drop(Ipv4Martian, "from broadcast", from([255; 4]));
    rows.drop(Ipv4Martian, "to loopback", to([127, 255, 255, 255]));
    rows.drop(Ipv4Martian, "to 0.0.0.0", to([0; 4]));
    rows.drop(Ipv4Martian, "to 0.1.2.3", to([0, 1, 2, 3]));
    rows.drop(Ipv4Martian, "to class E", to([240, 0, 0, 1]));
    rows.drop(Ipv4Martian, "to 255.255.255.254", to([255, 255, 255, 254]));
    rows.drop(Ipv4Source, "from class E, which is reserved", from([240, 0, 0, 1]));
}

#[rustfmt::skip] // A table: one frame a statement.
fn source_routes(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv4 3";
    let loose = [131, 7, 4, 10, 0, 0, 12];
    let strict = [137, 7, 4, 10, 0, 0, 12];
    rows.drop(Ipv4SourceRoute, "loose", v4(&with_options(&loose)));
    rows.drop(Ipv4SourceRoute, "strict", v4(&with_options(&strict)));
    rows.drop(Ipv4SourceRoute, "behind other options",
        v4(&with_options(&[&[1, 148, 4, 0, 0], &loose[..]].concat())));
    rows.forward(1, "behind the end of the options",
        v4(&with_options(&[&[0], &loose[..]].concat())));
    rows.drop(Ipv4Malformed, "but an option behind it runs over",
        v4(&with_options(&[&loose[..], &[7, 9, 4, 0, 0]].concat())));
    for protocol in [135, 139, 140] {
        rows.drop(SecondAddress, "a protocol that binds addresses",
            v4(&V4 { protocol, ..plain() }));
        rows.drop(SecondAddress, "a fragment of it",
            v4(&V4 { protocol, fragment: 7, ..plain() }));
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn fragments(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv4 4";
    let fragment = |protocol, fragment, payload| V4 { protocol, fragment, payload, ..plain() };
    let segment = tcp(1, 2, 5, b"data");
    rows.drop(Ipv4Fragment, "TCP at offset 1", v4(&fragment(6, 1, segment.clone())));
    rows.drop(Ipv4Fragment, "TCP at offset 1, more to follow",
        v4(&fragment(6, MORE_FRAGMENTS | 1, segment.clone())));
    rows.forward(1, "TCP at offset 2", v4(&fragment(6, 2, segment.clone())));
    rows.forward(1, "UDP at offset 1", v4(&fragment(17, 1, vec![0; 3])));
    for length in [0, 13, 19] {
        let cut = segment[..length].to_vec();
        rows.drop(Ipv4Malformed, "TCP cut off", v4(&fragment(6, 0, cut.clone())));
        rows.drop(Ipv4Fragment, "TCP's first fragment cut off",
            v4(&fragment(6, MORE_FRAGMENTS, cut)));
    }
    rows.drop(Ipv4Malformed, "TCP whose options are cut off",
        v4(&fragment(6, 0, tcp(1, 2, 8, b"")[..28].to_vec())));
    rows.drop(Ipv4Fragment, "TCP's first fragment whose options are cut off",
        v4(&fragment(6, MORE_FRAGMENTS, tcp(1, 2, 8, b"")[..24].to_vec())));
    rows.drop(Ipv4Malformed, "TCP with a header of four words",
        v4(&fragment(6, 0, tcp(1, 2, 4, b"data"))));
    rows.forward(1, "TCP with options", v4(&fragment(6, DONT_FRAGMENT, tcp(1, 2, 8, b"data"))));
    rows.drop(Ipv4Malformed, "UDP cut off", v4(&fragment(17, 0, vec![0; 7])));
    rows.drop(Ipv4Fragment, "UDP's first fragment cut off",
        v4(&fragment(17, MORE_FRAGMENTS, vec![0; 7])));
    rows.drop(Ipv4Malformed, "ICMP cut off", v4(&fragment(1, 0, vec![8; 7])));
    rows.drop(Ipv4Fragment, "ICMP's first fragment cut off",
        v4(&fragment(1, MORE_FRAGMENTS, vec![8; 7])));
    rows.forward(1, "an unknown protocol without a byte", v4(&fragment(253, 0, vec![])));

    rows.drop(Ipv4Fragment, "one that ends beyond 65535 bytes",
        v4(&fragment(17, 8191, vec![0; 8])));
    rows.forward(1, "one that ends there", v4(&fragment(17, 8191, vec![0; 7])));
}

#[rustfmt::skip] // A table: one frame a statement.
fn dhcp_clients(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv4 5";
    let dhcp = |message: Vec<u8>| V4::new(ZERO, Ipv4Addr::BROADCAST, 17, udp(68, 67, &message));
    let discover = dhcp(bootp(1, VM1));
    rows.forward(2, "a DHCP client's message", broadcast(&discover));
    rows.forward(2, "a DHCP client's message in an Ethernet unicast", v4(&discover));
    let changed = |at: usize, value: u8| {
        let mut message = bootp(1, VM1);
        message[at] = value;
        broadcast(&dhcp(message))
    };
    rows.drop(DhcpClient, "for the sibling's MAC", broadcast(&dhcp(bootp(1, VM2))));
    rows.drop(DhcpClient, "a reply", broadcast(&dhcp(bootp(2, VM1))));
    rows.drop(DhcpClient, "hardware type 6", changed(1, 6));
    rows.drop(DhcpClient, "hardware length 16", changed(2, 16));
    rows.drop(DhcpClient, "without the cookie", changed(239, 0));
    rows.drop(DhcpClient, "by way of a relay", changed(27, 9));
    rows.drop(DhcpClient, "of 239 bytes", broadcast(&dhcp(bootp(1, VM1)[..239].to_vec())));
    rows.drop(DhcpClient, "from another port", {
        let payload = udp(67, 67, &bootp(1, VM1));
        broadcast(&V4 {
            payload,
            ..discover.clone()
        })
    });
    rows.drop(DhcpClient, "to another port", {
        let payload = udp(68, 53, &bootp(1, VM1));
        broadcast(&V4 {
            payload,
            ..discover.clone()
        })
    });
    rows.drop(DhcpClient, "its first fragment",
        broadcast(&V4 { fragment: MORE_FRAGMENTS, ..discover.clone() }));
    rows.drop(DhcpClient, "a later fragment", broadcast(&V4 { fragment: 4, ..discover.clone() }));
    rows.drop(Ipv4Source, "0.0.0.0 to one station", v4(&V4 { to: IP2, ..discover.clone() }));
    rows.drop(Ipv4Source, "0.0.0.0 by TCP",
        broadcast(&V4 { protocol: 6, payload: tcp(1, 2, 5, b""), ..discover.clone() }));
}

#[rustfmt::skip] // A table: one frame a statement.
fn sources(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv4 6";
    rows.drop(Ipv4Source, "the sibling's", v4(&V4 { from: IP2, ..plain() }));
    rows.drop(Ipv4Source, "the gateway's", v4(&V4 { from: GATEWAY, ..plain() }));
    rows.drop(Ipv4Source, "an unowned address of the subnet", v4(&V4 { from: UNOWNED, ..plain() }));
    rows.drop(Ipv4Source, "an external one", v4(&V4 { from: EXTERNAL, ..plain() }));
    // Long enough for the fast path.
    let payload = udp(1000, 2000, &[7; 100]);
    rows.drop(Ipv4Source, "one of a single bit",
        v4(&V4 { from: [1, 0, 0, 0].into(), payload, ..plain() }));
    rows.drop(Ipv4Source, "a forged later fragment",
        v4(&V4 { from: IP2, fragment: 100, ..plain() }));
    rows.on(configs::three(), 1);
    let of_vm2 = |from: [u8; 4]| {
        let packet = V4::new(from.into(), IP1, 17, udp(1000, 2000, b"hello"));
        ethernet(GW, VM2, IPV4, &packet.bytes())
    };
    rows.forward(0, "the first of a prefix", of_vm2([10, 0, 0, 64]));
    rows.forward(0, "the last of a prefix", of_vm2([10, 0, 0, 79]));
    rows.drop(Ipv4Source, "one before the prefix", of_vm2([10, 0, 0, 63]));
    rows.drop(Ipv4Source, "one behind the prefix", of_vm2([10, 0, 0, 80]));
    rows.forward(0, "a prefix beside the gateway's subnet", of_vm2([172, 16, 255, 255]));
}

#[rustfmt::skip] // A table: one frame a statement.
fn dhcp_servers(rows: &mut Rows) {
    rows.on(configs::three(), 0);
    rows.row = "IPv4 7";
    let datagram = |from, to, payload: &[u8]| V4 { payload: udp(from, to, payload), ..plain() };
    rows.drop(DhcpServer, "from port 67", v4(&datagram(67, 9, b"")));
    rows.drop(DhcpServer, "the first fragment from port 67",
        v4(&V4 { fragment: MORE_FRAGMENTS, ..datagram(67, 9, b"") }));
    rows.drop(DhcpServer, "a BOOTREPLY to port 68", v4(&datagram(9, 68, &bootp(2, VM2))));
    rows.drop(DhcpServer, "a first fragment to port 68",
        v4(&V4 { fragment: MORE_FRAGMENTS, ..datagram(9, 68, &[1; 8]) }));
    rows.forward(1, "a client's own message to one server", v4(&datagram(68, 67, &bootp(1, VM1))));
    rows.drop(DhcpClient, "the sibling's release", v4(&datagram(68, 67, &bootp(1, VM2))));
    rows.drop(DhcpClient, "to port 67 from another port", v4(&datagram(9, 67, &bootp(1, VM1))));
    rows.drop(DhcpClient, "a first fragment to port 67",
        v4(&V4 { fragment: MORE_FRAGMENTS, ..datagram(68, 67, &bootp(1, VM1)) }));
    rows.forward(1, "no BOOTREPLY to port 68", v4(&datagram(9, 68, &[1, 2])));
    rows.forward(1, "nothing to port 68", v4(&datagram(9, 68, b"")));
    rows.forward(1, "a later fragment whose bytes look so",
        v4(&V4 { fragment: 8, ..datagram(67, 68, &[2]) }));
    rows.on(configs::three(), 2);
    rows.forward(0, "by the DHCP server", {
        let packet = V4::new(IP3, IP1, 17, udp(67, 68, &bootp(2, VM1)));
        ethernet(GW, VM3, IPV4, &packet.bytes())
    });
}

#[rustfmt::skip] // A table: one frame a statement.
fn routers_messages(rows: &mut Rows) {
    rows.row = "IPv4 8";
    rows.on(configs::three(), 0);
    rows.drop(Redirect, "an ICMP redirect", v4(&V4::new(IP1, IP2, 1, icmp(5, 1, ECHO))));
    rows.drop(Redirect, "an ICMP redirect of a mobile host",
        v4(&V4::new(IP1, IP2, 1, icmp(32, 0, ECHO))));
    rows.drop(RouterAdvertisement, "an ICMP router advertisement",
        v4(&V4::new(IP1, IP2, 1, icmp(9, 0, ECHO))));

    rows.row = "IPv4 9";
    let igmp = |kind: u8| V4::new(IP1, IP2, 2, vec![kind, 0, 0, 0, 0, 0, 0, 0]);
    rows.drop(IgmpQuery, "an IGMP query to the sibling", v4(&igmp(17)));
    rows.drop(IgmpQuery, "an IGMP query to all",
        ethernet([1, 0, 0x5e, 0, 0, 1], VM1, IPV4,
            &V4 { to: [224, 0, 0, 1].into(), options: vec![148, 4, 0, 0], ..igmp(17) }.bytes()));
    rows.drop(IgmpQuery, "a query in a first fragment",
        v4(&V4 { fragment: MORE_FRAGMENTS, ..igmp(17) }));
    for kind in [19, 20, 48, 50] {
        rows.drop(RouterAdvertisement, "a multicast router's message", v4(&igmp(kind)));
    }
    for kind in [16, 18, 21, 22, 23, 34, 47, 49, 51] {
        rows.forward(1, "another IGMP message", v4(&igmp(kind)));
    }
    rows.drop(Ipv4Malformed, "IGMP cut off", v4(&V4 { payload: vec![17; 7], ..igmp(17) }));
    rows.drop(Ipv4Fragment, "IGMP's first fragment cut off",
        v4(&V4 { payload: vec![17; 7], fragment: MORE_FRAGMENTS, ..igmp(17) }));
    rows.forward(1, "a later fragment of IGMP", v4(&V4 { fragment: 9, ..igmp(17) }));
}

#[rustfmt::skip] // A table: one frame a statement.
fn encapsulation(rows: &mut Rows) {
    rows.row = "IPv4 10";
    let of_vm2 = |packet: &V4| ethernet(GW, VM2, IPV4, &packet.bytes());
    let harmless = [1, 2, 6, 17, 33, 46, 50, 58, 59, 88, 89, 112, 132, 136];
    let binding = [135, 139, 140];
    for protocol in (0..=255).filter(|protocol| !binding.contains(protocol)) {
        rows.on(configs::three(), 1);
        let payload = match protocol {
            1 => icmp(8, 0, ECHO),
            6 => tcp(1000, 80, 5, b"data"),
            51 => vec![4; 40],
            _ => udp(1000, 2000, &plain().bytes()),
        };
        let packet = V4::new(IP2, IP1, protocol, payload);
        let (whole, later) = (of_vm2(&packet), of_vm2(&V4 { fragment: 9, ..packet.clone() }));
        if harmless.contains(&protocol) {
            rows.forward(0, "a protocol that carries no packet", whole);
            rows.forward(0, "a later fragment of it", later);
        } else {
            rows.drop(DropReason::Encapsulation, "a protocol that may carry packets", whole);
            rows.drop(DropReason::Encapsulation, "a later fragment of it", later);
        }
        rows.on(configs::three(), 0);
        rows.forward(1, "the same where it is not denied",
            v4(&V4 { from: IP1, to: IP2, ..packet }));
    }
    rows.on(configs::three(), 1);
    for port in CARRIERS {
        for (from, to) in [(port, 9), (9, port)] {
            let packet = V4::new(IP2, IP1, 17, udp(from, to, b"a packet"));
            rows.drop(DropReason::Encapsulation, "a tunnel by UDP", of_vm2(&packet));
            rows.forward(0, "a later fragment that looks like it",
                of_vm2(&V4 { fragment: 9, ..packet }));
        }
    }
    for port in [53, 443, 500, 1194, 1700, 1702, 4500, 4788, 4791, 6082, 8471, 51820] {
        rows.forward(0, "another UDP port", of_vm2(&V4::new(IP2, IP1, 17, udp(port, port, b""))));
    }
    for (from, to) in [(7471, 9), (9, 7471)] {
        let segment = |from, to| of_vm2(&V4::new(IP2, IP1, 6, tcp(from, to, 5, b"a frame")));
        rows.drop(DropReason::Encapsulation, "STT", segment(from, to));
        rows.forward(0, "another TCP port", segment(from ^ 1, to ^ 1));
    }
    rows.forward(0, "a UDP carrier's port in TCP",
        of_vm2(&V4::new(IP2, IP1, 6, tcp(4789, 4789, 5, b""))));
    rows.forward(0, "a TCP carrier's port in UDP",
        of_vm2(&V4::new(IP2, IP1, 17, udp(7471, 7471, b""))));
    behind_authentication(rows);
}

/// The UDP ports of tunnels.
pub(super) const CARRIERS: [u16; 30] = [
    434, 1701, 2123, 2152, 2268, 3386, 3544, 3653, 4191, 4341, 4342, 4754, 4755, 4789, 4790, 5072,
    5246, 5247, 5436, 5437, 6080, 6081, 6633, 6635, 6636, 8060, 8472, 12222, 12223, 17754,
];

#[rustfmt::skip] // A table: one frame a statement.
fn behind_authentication(rows: &mut Rows) {
    rows.on(configs::three(), 1);
    let packet = |count: usize, last: u8, payload: &[u8]| {
        let mut bytes = Vec::new();
        for number in 0..count {
            bytes.push(if number + 1 == count { last } else { 51 });
            bytes.extend(authentication());
        }
        bytes.extend(payload);
        V4::new(IP2, IP1, 51, bytes)
    };
    let of_vm2 = |packet: &V4| ethernet(GW, VM2, IPV4, &packet.bytes());
    let plain = plain().bytes();
    for count in [1, 2, 8] {
        for last in [4, 41, 47, 97, 115, 137, 253] {
            rows.drop(DropReason::Encapsulation, "a tunnel behind authentication headers",
                of_vm2(&packet(count, last, &plain)));
        }
        rows.forward(0, "UDP behind them", of_vm2(&packet(count, 17, &udp(1000, 2000, b""))));
        rows.forward(0, "TCP behind them", of_vm2(&packet(count, 6, &tcp(1000, 80, 5, b""))));
        rows.forward(0, "ESP behind them", of_vm2(&packet(count, 50, b"")));
        rows.drop(DropReason::Encapsulation, "a tunnel by UDP behind them",
            of_vm2(&packet(count, 17, &udp(1000, 4789, b""))));
        rows.drop(DropReason::Encapsulation, "STT behind them",
            of_vm2(&packet(count, 6, &tcp(1000, 7471, 5, b""))));
        rows.drop(DropReason::Encapsulation, "UDP whose ports are cut off",
            of_vm2(&packet(count, 17, &[0, 9, 0])));
    }
    rows.drop(DropReason::Encapsulation, "a ninth authentication header",
        of_vm2(&packet(9, 17, &udp(1000, 2000, b""))));
    let good = packet(1, 17, &udp(1000, 2000, b""));
    for length in [0, 1, 2, 11, 23] {
        let payload = good.payload[..length].to_vec();
        rows.drop(DropReason::Encapsulation, "a cut-off authentication header",
            of_vm2(&V4 { payload, ..good.clone() }));
    }
    for fragment in [MORE_FRAGMENTS, 9] {
        rows.drop(DropReason::Encapsulation, "an authentication header in a fragment",
            of_vm2(&V4 { fragment, ..good.clone() }));
    }
    rows.on(configs::three(), 0);
    rows.forward(1, "a tunnel behind one, where it is not denied",
        v4(&V4 { from: IP1, to: IP2, ..packet(1, 4, &plain) }));
}
