//! The rows of "Out of the tunnel" about the outer packet.

use super::*;

pub(super) fn add(rows: &mut Rows) {
    for (name, config) in configs::tunnels() {
        let peer = if name == "only" { 1 } else { B };
        let good = from4(&config, peer, &home());
        rows.on(config.clone(), OUT);
        uplink_checks(rows, name, &good);
        fragments(rows, &good);
        peers(rows, &good);
        sources(rows, &config, &good);
        lengths_and_sums(rows, &config, &good);
        networks(rows, &good);
    }
    later_fragment(rows);
}

/// An address of `good`'s family that is no VTEP of a peer.
fn stranger(good: &TunnelPacket) -> IpAddr {
    if good.from.is_ipv4() {
        [203, 0, 113, 99].into()
    } else {
        EXTERNAL6.into()
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn uplink_checks(rows: &mut Rows, name: &'static str, good: &TunnelPacket) {
    rows.row = "Out: a packet that passed the uplink's rows";
    if name == "only" {
        rows.forward(0, "from a peer", good.frame());
    } else {
        rows.forward(0, name, good.frame());
        rows.forward(0, "any source port",
            TunnelPacket { source_port: 1, ..good.clone() }.frame());
        rows.forward(0, "with padding", [good.frame(), vec![0; 3]].concat());
    }
    let mut cut = good.frame();
    cut.truncate(cut.len() - 1);
    let malformed = if good.from.is_ipv4() { Ipv4Malformed } else { Ipv6Malformed };
    rows.drop(malformed, "shorter than its IP header says", cut);
    rows.drop(VlanTag, "a tag outside", tagged(&good.frame(), 0x8100, 100));
    for group in [BROADCAST, [0x33, 0x33, 0, 0, 0, 1]] {
        rows.drop(DstMac, "in a group frame", [&group[..], &good.frame()[6..]].concat());
    }
    rows.drop(SrcMac, "from the uplink's own MAC",
        [&good.frame()[..6], &good.frame()[..6], &good.frame()[12..]].concat());
    rows.drop(if good.from.is_ipv4() { DhcpServer } else { Dhcpv6Server },
        "from a DHCP server's port",
        TunnelPacket { source_port: if good.from.is_ipv4() { 67 } else { 547 },
            ..good.clone() }.frame());
    rows.drop(IngressSource, "from our own VTEP",
        TunnelPacket { from: good.to, ..good.clone() }.frame());
    rows.drop(GatewayService, "to another port",
        TunnelPacket { port: 5555, ..good.clone() }.frame());
}

#[rustfmt::skip] // A table: one frame a statement.
fn fragments(rows: &mut Rows, good: &TunnelPacket) {
    rows.row = "Out 1";
    if good.from.is_ipv4() {
        rows.drop(TunnelFragment, "a first fragment",
            TunnelPacket { fragment: MORE_FRAGMENTS, ..good.clone() }.frame());
    } else {
        for more in [false, true] {
            rows.drop(TunnelFragment, "a first fragment",
                TunnelPacket { extensions: vec![(44, fragment_header(0, more))],
                    ..good.clone() }.frame());
        }
        rows.forward(0, "destination options in front",
            TunnelPacket { extensions: vec![(60, padding_options(0))],
            ..good.clone() }.frame());
    }
    rows.drop(TunnelFragment, "row 1 before row 2", TunnelPacket {
        from: stranger(good), fragment: MORE_FRAGMENTS,
            extensions: vec![(44, fragment_header(0, true))], ..good.clone() }.frame());
}

#[rustfmt::skip] // A table: one frame a statement.
fn peers(rows: &mut Rows, good: &TunnelPacket) {
    rows.row = "Out 2";
    let router: IpAddr = if good.from.is_ipv4() { NEXT_HOP.into() } else { NEXT_HOP6.into() };
    for from in [stranger(good), router] {
        rows.drop(TunnelPeer, "from a stranger", TunnelPacket { from, ..good.clone() }.frame());
        rows.drop(TunnelPeer, "row 2 before row 3",
            TunnelPacket { from, sum: Sum::Wrong, ..good.clone() }.frame());
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn sources(rows: &mut Rows, config: &SwitchConfig, good: &TunnelPacket) {
    rows.row = "Out 2, sources";
    let peers = &tunnel(config).peers;
    let peer = &peers[B % peers.len()];
    for &from in &peer.sources {
        rows.forward(0, "from another address of the peer",
            TunnelPacket { from, ..good.clone() }.frame());
        if tunnel(config).nested == tenant_config::Encapsulation::Deny {
            let nested = V4 { payload: udp(1, 4789, b""), ..home() };
            rows.drop(TunnelNested, "from there, and refused as from the VTEP",
                TunnelPacket { from, ..from4(config, B, &nested) }.frame());
        }
        rows.drop(IngressSource, "from there, of another peer",
            TunnelPacket { from, ..from4(config, C1, &V4 { from: IP81, ..home() }) }.frame());
        let other = peers[C1].vtep;
        rows.drop(IngressSource, "a source of the peer's, from another's VTEP",
            TunnelPacket { from: other, ..good.clone() }.frame());
        rows.reply("answered to the VTEP",
            TunnelPacket { from, ..from4(config, B,
                &V4::new(IP71, GATEWAY, 1, icmp(8, 0, ECHO))) }.frame());
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn lengths_and_sums(rows: &mut Rows, config: &SwitchConfig, good: &TunnelPacket) {
    rows.row = "Out 3";
    let whole = (16 + good.inner.len()) as u16;
    for length in [0, 7, whole + 1, 0xffff] {
        rows.drop(TunnelTruncated, "a length that lies",
            TunnelPacket { length: Some(length), sum: Sum::Zero, ..good.clone() }.frame());
    }
    rows.forward(0, "something behind the datagram",
        TunnelPacket { behind: vec![9; 5], ..good.clone() }.frame());
    rows.drop(TunnelChecksum, "a wrong checksum",
        TunnelPacket { sum: Sum::Wrong, ..good.clone() }.frame());
    rows.forward(0, "a right checksum",
        TunnelPacket { sum: Sum::Right, ..good.clone() }.frame());
    let zero = TunnelPacket { sum: Sum::Zero, ..good.clone() };
    if good.from.is_ipv6() && tunnel(config).udp_checksum {
        rows.drop(TunnelChecksum, "no checksum", zero.frame());
    } else {
        rows.forward(0, "no checksum", zero.frame());
    }
    rows.drop(TunnelChecksum, "row 3 before row 4",
        TunnelPacket { sum: Sum::Wrong, header: vec![0xff; 8], ..good.clone() }.frame());
    rows.drop(TunnelChecksum, "a checksum over less than the datagram says", {
        let mut frame = TunnelPacket { sum: Sum::Right, ..good.clone() }.frame();
        let last = frame.len() - 1;
        frame[last] ^= 0x55;
        frame
    });
}

#[rustfmt::skip] // A table: one frame a statement.
fn networks(rows: &mut Rows, good: &TunnelPacket) {
    rows.row = "Out 4";
    for length in 0..8 {
        rows.drop(TunnelTruncated, "a header cut off",
            TunnelPacket { header: good.header[..length].to_vec(), inner: vec![],
                sum: Sum::Right, ..good.clone() }.frame());
        rows.drop(TunnelTruncated, "a header that the datagram ends in",
            TunnelPacket { length: Some(8 + length as u16), sum: Sum::Right,
                ..good.clone() }.frame());
    }
    rows.row = "Out 5";
    for bit in 0..24 {
        let mut header = good.header.clone();
        header[4 + bit / 8] ^= 1 << (bit % 8);
        rows.drop(TunnelVni, "another network",
            TunnelPacket { header, ..good.clone() }.frame());
    }
    rows.row = "Out 5: the reserved byte";
    let mut header = good.header.clone();
    header[7] = 0xff;
    rows.forward(0, "is ignored", TunnelPacket { header, ..good.clone() }.frame());
    rows.row = "Out 8";
    rows.drop(Malformed, "no inner frame at all",
        TunnelPacket { inner: vec![], ..good.clone() }.frame());
}

#[rustfmt::skip] // A table: one frame a statement.
fn later_fragment(rows: &mut Rows) {
    rows.row = "Out 1";
    rows.on(configs::geneve(), OUT);
    let good = from4(&configs::geneve(), B, &home());
    rows.drop(GatewayService, "a later fragment, whose port cannot be seen",
        TunnelPacket { fragment: 100, ..good }.frame());
}
