//! The rows of "ESP".

use super::*;

pub(super) fn add(rows: &mut Rows) {
    for (tenant, (name, config, peer)) in tenants().into_iter().enumerate() {
        rows.on(config.clone(), OUT);
        for (at, sa) in styles(&config, peer).into_iter().enumerate() {
            rows.sas = vec![(Direction::In, sa.clone())];
            carried(rows, name, &config, (peer, &sa));
            // Each suite in two of the eight ways: others with another tenant.
            if (at / 8 + at + tenant) % 4 != 0 {
                continue;
            }
            shapes(rows, &config, (peer, &sa));
            numbers(rows, &config, (peer, &sa));
            selectors(rows, &config, (peer, &sa));
        }
        rows.sas = vec![(Direction::In, Sa::new(&config, peer, SPI))];
        plain(rows, &config, peer);
        rows.sas = Vec::new();
    }
}

/// Row 10's sentence about what comes out, and "a tunnel packet that did not come out of an SA".
#[rustfmt::skip] // A table: one frame a statement.
fn plain(rows: &mut Rows, config: &SwitchConfig, peer: usize) {
    rows.row = "plain";
    let good = to_vm1(config, peer);
    rows.drop(IpsecPlain, "from a peer that requires IPsec", good.frame());
    rows.drop(IpsecPlain, "before row 3 of the tunnel",
        TunnelPacket { sum: Sum::Wrong, ..good.clone() }.frame());
    rows.drop(TunnelPeer, "from a stranger",
        TunnelPacket { from: stranger(good.from), ..good.clone() }.frame());
    let fragment = TunnelPacket { fragment: MORE_FRAGMENTS,
        extensions: vec![(44, fragment_header(0, true))], ..good };
    rows.drop(TunnelFragment, "row 1 of the tunnel before", fragment.frame());
    for other in [B, C1] {
        if tunnel(config).peers[other].ipsec == Protection::Off {
            rows.forward(0, "from a peer that does not", to_vm1(config, other).frame());
        }
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn carried(rows: &mut Rows, name: &'static str, config: &SwitchConfig, (peer, sa): (usize, &Sa)) {
    let good = to_vm1(config, peer);
    let packet = IpsecPacket::new(sa, 1, &good);
    rows.row = "ESP";
    rows.forward(0, name, packet.frame());
    rows.forward(0, "with padding behind the packet", [packet.frame(), vec![0; 7]].concat());
    rows.drop(SrcMac, "from our own MAC",
        [&packet.frame()[..6], &packet.frame()[..6], &packet.frame()[12..]].concat());
    let other = TunnelPacket { from: good.to, ..good.clone() };
    rows.drop(IngressSource, "from our own address",
        IpsecPacket { outer: other, ..packet.clone() }.frame());
    let behind = TunnelPacket { behind: vec![9; 5], ..good.clone() };
    rows.forward(0, "something behind the datagram", IpsecPacket::new(sa, 1, &behind).frame());
    let wrong = TunnelPacket { sum: Sum::Wrong, ..good.clone() };
    let wrong = IpsecPacket::new(sa, 1, &wrong).frame();
    if sa.in_udp.is_some() && !sa.whole {
        rows.forward(0, "a checksum that address translation made wrong", wrong);
    } else {
        rows.drop(TunnelChecksum, "a wrong checksum inside", wrong);
    }
    let mut header = good.header.clone();
    header[5] ^= 1;
    let network = TunnelPacket { header, ..good.clone() };
    rows.drop(TunnelVni, "another network inside", IpsecPacket::new(sa, 1, &network).frame());
    let marked = TunnelPacket { class: 3, ..good.clone() };
    rows.drop(TunnelEcn, "a congestion mark outside", IpsecPacket {
        outer: marked, ..packet.clone() }.frame());
    rows.row = "ESP 1";
    for group in [BROADCAST, [0x33, 0x33, 0, 0, 0, 1]] {
        rows.drop(DstMac, "in a group frame", [&group[..], &packet.frame()[6..]].concat());
    }
    for more in [true, false] {
        let fragment = TunnelPacket { fragment: MORE_FRAGMENTS,
            extensions: vec![(44, fragment_header(0, more))], ..good.clone() };
        rows.drop(EspFragment, "a first fragment, or a whole one",
            IpsecPacket { outer: fragment, ..packet.clone() }.frame());
    }
    let fragment = TunnelPacket { fragment: 9, extensions: vec![(44, fragment_header(9, false))],
        ..good };
    let reason = match sa.in_udp {
        Some(_) => GatewayService,
        None => EspFragment,
    };
    // Behind a fragment header with an offset nobody knows IPv6's protocol.
    let reason = if fragment.from.is_ipv6() { GatewayService } else { reason };
    rows.drop(reason, "a later fragment", IpsecPacket { outer: fragment, ..packet }.frame());
}

#[rustfmt::skip] // A table: one frame a statement.
fn shapes(rows: &mut Rows, config: &SwitchConfig, (peer, sa): (usize, &Sa)) {
    let good = to_vm1(config, peer);
    let packet = IpsecPacket::new(sa, 1, &good);
    rows.row = "ESP 2";
    let options = TunnelPacket { options: vec![1; 4], extensions: vec![(60, padding_options(0))],
        ..good.clone() };
    rows.drop(EspMalformed, "behind options",
        IpsecPacket { outer: options, ..packet.clone() }.frame());
    if sa.in_udp.is_some() {
        let whole = 8 + packet.bytes.len() as u16;
        for length in [0, 8, whole - 1, whole + 1] {
            rows.drop(EspMalformed, "UDP of another length",
                IpsecPacket { length: Some(length), ..packet.clone() }.frame());
        }
    }
    let cut = |length: usize| IpsecPacket {
        bytes: packet.bytes[..length].to_vec(), ..packet.clone() };
    // In UDP, one byte may be anything but 0xff here.
    for length in 1..8 {
        rows.drop(EspMalformed, "cut off", cut(length).frame());
    }
    rows.row = "ESP 3";
    let mut other = packet.clone();
    other.bytes[3] ^= 1;
    rows.drop(EspSpi, "another SPI", other.frame());
    rows.row = "ESP 4";
    for from in [stranger(good.from), tunnel(config).peers[if peer == B { C1 } else { B }].vtep] {
        let outer = TunnelPacket { from, ..good.clone() };
        rows.drop(EspPeer, "from another",
            IpsecPacket { outer, ..packet.clone() }.frame());
    }
    rows.row = "ESP 6";
    let (iv, alignment) = Secret::lengths(sa.secret.suite);
    for length in [8, 8 + iv + 16, 8 + iv + 16 + alignment - 1, packet.bytes.len() - 1] {
        rows.drop(EspMalformed, "a length that the suite does not have", cut(length).frame());
    }
    rows.row = "ESP 8";
    rows.drop(EspIcv, "a whole block less", cut(packet.bytes.len() - alignment).frame());
    for at in [4, 5, 8, 8 + iv, packet.bytes.len() - 1] {
        let mut forged = packet.clone();
        forged.bytes[at] ^= 0x40;
        rows.drop(EspIcv, "a bit of it", forged.frame());
    }
    rows.row = "ESP 9";
    let text = |text: &[u8]| IpsecPacket::of_text(sa, 1, &good, text).frame();
    let (payload, next) = sa.payload(&good);
    rows.drop(EspDummy, "a dummy", text(&sa.secret.text(b"nothing", DUMMY)));
    rows.drop(EspDummy, "an empty dummy", text(&sa.secret.text(b"", DUMMY)));
    let mut wrong = sa.secret.text(&payload[..(payload.len() - 16) & !15 | 1], next);
    let last = wrong.len() - 3;
    wrong[last] ^= 1;
    rows.drop(EspMalformed, "wrong padding", text(&wrong));
    let mut long = vec![1; alignment];
    long[alignment - 2] = alignment as u8;
    rows.drop(EspMalformed, "padding longer than the text", text(&long));
    let mut more = payload.clone();
    let padding = 200 + (alignment - (more.len() + 202) % alignment) % alignment;
    more.extend(1..=padding as u8);
    more.extend([padding as u8, next]);
    rows.forward(0, "more padding than there must be", text(&more));
}

#[rustfmt::skip] // A table: one frame a statement.
fn numbers(rows: &mut Rows, config: &SwitchConfig, (peer, sa): (usize, &Sa)) {
    let good = to_vm1(config, peer);
    let numbered = |sequence| IpsecPacket::new(sa, sequence, &good).frame();
    rows.row = "ESP 7";
    rows.drop(EspReplay, "number 0", numbered(0));
    let last = numbered(0xffff_ffff);
    if sa.esn {
        rows.drop(EspReplay, "left of the window around the first number", last.clone());
    }
    rows.before = vec![numbered(0xffff_ff00)];
    rows.forward(0, "the last that 32 bits have", last);
    rows.before = vec![numbered(100)];
    rows.drop(EspReplay, "the same once more", numbered(100));
    // With ESN it looks like one of the next half.
    let reason = if sa.esn { EspIcv } else { EspReplay };
    rows.drop(reason, "left of the window", numbered(36));
    rows.forward(0, "the last within it", numbered(37));
    rows.forward(0, "the next", numbered(101));
    let mut forged = numbered(500);
    *forged.last_mut().expect("a byte") ^= 1;
    rows.before = vec![numbered(100), forged];
    rows.forward(0, "a forged one moves no window", numbered(37));
    rows.before = vec![numbered(0xffff_ff00), numbered(0xffff_fff0)];
    if sa.esn {
        rows.forward(0, "across the half", numbered(0x1_0000_0005));
        rows.before.push(numbered(0x1_0000_0005));
        rows.forward(0, "back across it", numbered(0xffff_fff1));
        rows.drop(EspReplay, "and the first again", numbered(0xffff_fff0));
    } else {
        rows.drop(EspReplay, "no half to cross", numbered(0x1_0000_0005));
    }
    rows.row = "ESP 5";
    rows.before = vec![numbered(1)];
    let (payload, _) = sa.payload(&good);
    for (name, hard) in [
        ("packets", Bounds { packets: 1, ..Bounds::NONE }),
        ("bytes", Bounds { bytes: payload.len() as u64, ..Bounds::NONE }),
    ] {
        rows.sas = vec![(Direction::In, Sa { hard, ..sa.clone() })];
        rows.drop(EspExpired, name, numbered(2));
        rows.drop(EspExpired, "row 5 before row 7", numbered(1));
    }
    let hard = Bounds { packets: 2, bytes: payload.len() as u64 + 1, ..Bounds::NONE };
    rows.sas = vec![(Direction::In, Sa { hard, ..sa.clone() })];
    rows.forward(0, "not yet", numbered(2));
    rows.sas = vec![(Direction::In, Sa { hard: Bounds { age_ns: 0, ..Bounds::NONE },
        ..sa.clone() })];
    rows.before = Vec::new();
    rows.drop(EspExpired, "time", numbered(1));
    rows.sas = vec![(Direction::In, sa.clone())];
}

#[rustfmt::skip] // A table: one frame a statement.
fn selectors(rows: &mut Rows, config: &SwitchConfig, (peer, sa): (usize, &Sa)) {
    let good = to_vm1(config, peer);
    let sealed = |packet: &TunnelPacket| IpsecPacket::new(sa, 1, packet).frame();
    rows.row = "ESP 10";
    let (payload, right) = sa.payload(&good);
    for next in [4, 6, 17, 41, 50, 1, 0] {
        if next != right {
            rows.drop(EspSelector, "another next header",
                IpsecPacket::of_text(sa, 1, &good, &sa.secret.text(&payload, next)).frame());
        }
    }
    rows.drop(EspSelector, "to another port",
        sealed(&TunnelPacket { port: 5555, ..good.clone() }));
    let dhcp = TunnelPacket { source_port: 67, port: 68, ..good.clone() };
    let reason = match (sa.whole, good.from) {
        (false, _) => EspSelector,
        (true, IpAddr::V4(_)) => DhcpServer,
        (true, IpAddr::V6(_)) => EspSelector,
    };
    rows.drop(reason, "to a port of DHCP", sealed(&dhcp));
    if sa.whole {
        let from = TunnelPacket { from: stranger(good.from), ..good.clone() };
        let outer = good.clone();
        let inside = |packet: &TunnelPacket| {
            let packet = IpsecPacket::new(sa, 1, packet);
            IpsecPacket { outer: outer.clone(), ..packet }.frame()
        };
        rows.drop(EspSelector, "from another inside", inside(&from));
        let other = tunnel(config).peers[if peer == B { C1 } else { B }].vtep;
        rows.drop(EspSelector, "from another peer inside",
            inside(&TunnelPacket { from: other, ..good.clone() }));
        rows.drop(TunnelFragment, "a first fragment inside",
            inside(&TunnelPacket { fragment: MORE_FRAGMENTS,
                extensions: vec![(44, fragment_header(0, true))], ..good.clone() }));
    } else {
        let short = sa.secret.text(&payload[..7], right);
        let reason = if good.from.is_ipv4() { Ipv4Malformed } else { Ipv6Malformed };
        rows.drop(reason, "no whole UDP header",
            IpsecPacket::of_text(sa, 1, &good, &short).frame());
    }
    let any = Sa { own_port: None, peer_port: Some(tunnel(config).port), ..sa.clone() };
    rows.sas = vec![(Direction::In, any)];
    rows.drop(EspSelector, "from a port that is not selected", sealed(&good));
    let port = tunnel(config).port;
    rows.forward(0, "from the port that is selected",
        sealed(&TunnelPacket { source_port: port, ..good.clone() }));
    rows.drop(GatewayService, "to any port, behind which is nothing",
        sealed(&TunnelPacket { source_port: port, port: 5555, ..good.clone() }));
    for port_of_ipsec in [IKE_PORT, NAT_PORT] {
        rows.drop(GatewayService, "IPsec inside IPsec",
            sealed(&TunnelPacket { source_port: port, port: port_of_ipsec, ..good.clone() }));
    }
    rows.sas = vec![(Direction::In, sa.clone())];
}
