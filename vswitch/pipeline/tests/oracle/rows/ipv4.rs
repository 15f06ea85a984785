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
    rows.drop(RouterAdvertisement, "an ICMP router advertisement",
        v4(&V4::new(IP1, IP2, 1, icmp(9, 0, ECHO))));
}

#[rustfmt::skip] // A table: one frame a statement.
fn encapsulation(rows: &mut Rows) {
    rows.row = "IPv4 9";
    for protocol in [4, 41, 47] {
        rows.on(configs::three(), 1);
        let packet = V4::new(IP2, IP1, protocol, plain().bytes());
        rows.drop(DropReason::Encapsulation, "a tunnel", ethernet(GW, VM2, IPV4, &packet.bytes()));
        rows.drop(DropReason::Encapsulation, "a later fragment of a tunnel",
            ethernet(GW, VM2, IPV4, &V4 { fragment: 9, ..packet }.bytes()));
        rows.on(configs::three(), 0);
        rows.forward(1, "a tunnel that is not denied",
            v4(&V4 { protocol, payload: plain().bytes(), ..plain() }));
    }
    rows.on(configs::three(), 1);
    for (from, to) in [(3544, 9), (9, 3544)] {
        let packet = V4::new(IP2, IP1, 17, udp(from, to, b"teredo"));
        rows.drop(DropReason::Encapsulation, "Teredo", ethernet(GW, VM2, IPV4, &packet.bytes()));
        rows.forward(0, "a later fragment that looks like Teredo",
            ethernet(GW, VM2, IPV4, &V4 { fragment: 9, ..packet }.bytes()));
    }
}
