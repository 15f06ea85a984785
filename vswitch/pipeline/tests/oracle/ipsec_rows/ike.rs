//! The rows of "IKE" and "Port 4500".

use super::*;

/// An IKE header (RFC 7296, section 3.1) without payloads.
const MESSAGE: [u8; 28] = [7; 28];

pub(super) fn add(rows: &mut Rows) {
    for (_, config, peer) in tenants() {
        rows.on(config.clone(), OUT);
        messages(rows, &config, peer);
        port_4500(rows, &config, peer);
    }
    rows.row = "without IPsec";
    rows.on(configs::geneve(), OUT);
    let outer = to_vm1(&configs::geneve(), B);
    let sa = Sa::new(&configs::geneve(), B, SPI);
    let esp = IpsecPacket::new(&sa, 1, &outer);
    rows.drop(GatewayService, "ESP", esp.frame());
    let ike = IpsecPacket::datagram(&outer, (IKE_PORT, IKE_PORT), &MESSAGE);
    rows.drop(GatewayService, "IKE", ike.frame());
}

#[rustfmt::skip] // A table: one frame a statement.
fn messages(rows: &mut Rows, config: &SwitchConfig, peer: usize) {
    let outer = to_vm1(config, peer);
    let marked = [&[0; 4][..], &MESSAGE].concat();
    for (ports, message) in [
        ((IKE_PORT, IKE_PORT), &MESSAGE[..]),
        ((1234, IKE_PORT), &MESSAGE[..]),
        ((NAT_PORT, NAT_PORT), &marked[..]),
    ] {
        let good = IpsecPacket::datagram(&outer, ports, message);
        rows.row = "IKE";
        rows.drop(Absorbed, "from a peer", good.frame());
        rows.row = "IKE 1";
        rows.drop(DstMac, "in a group frame", [&BROADCAST[..], &good.frame()[6..]].concat());
        for more in [true, false] {
            let fragment = TunnelPacket { fragment: MORE_FRAGMENTS,
                extensions: vec![(44, fragment_header(0, more))], ..outer.clone() };
            rows.drop(EspFragment, "a first fragment, or a whole one",
                IpsecPacket { outer: fragment, ..good.clone() }.frame());
        }
        rows.row = "IKE 2";
        let others = [stranger(outer.from), tunnel(config).peers[B].vtep,
            tunnel(config).peers[C1].vtep];
        for from in others {
            let theirs = IpsecPacket { outer: TunnelPacket { from, ..outer.clone() },
                ..good.clone() };
            let required = tunnel(config).peers.iter()
                .any(|peer| peer.vtep == from && peer.ipsec == Protection::Required);
            rows.drop(if required { Absorbed } else { IkePeer }, "from another", theirs.frame());
        }
        rows.row = "IKE 3";
        rows.drop(IkeMalformed, "a wrong checksum",
            IpsecPacket { sum: Sum::Wrong, ..good.clone() }.frame());
        let without = IpsecPacket { sum: Sum::Zero, ..good.clone() };
        let reason = if outer.from.is_ipv4() { Absorbed } else { IkeMalformed };
        rows.drop(reason, "no checksum", without.frame());
        let whole = 8 + message.len() as u16;
        for length in [0, 7, whole - 1, whole + 1] {
            rows.drop(IkeMalformed, "another length",
                IpsecPacket { length: Some(length), ..good.clone() }.frame());
        }
        let long = |length: usize| IpsecPacket {
            bytes: [message, &vec![7; length - MESSAGE.len()]].concat(), ..good.clone() };
        rows.drop(Absorbed, "a long one", long(1300).frame());
        rows.row = "IKE 4";
        rows.before = vec![good.frame(); 49];
        rows.drop(Absorbed, "the last of a second", good.frame());
        rows.before = vec![good.frame(); 50];
        rows.drop(IkeRate, "one more", good.frame());
        rows.before = vec![good.frame(); 51];
        rows.drop(IkeMalformed, "row 3 before row 4",
            IpsecPacket { sum: Sum::Wrong, ..good.clone() }.frame());
        rows.before = Vec::new();
    }
    let mut jumbo = config.clone();
    jumbo.uplink.as_mut().expect("an uplink").mtu = 9000;
    rows.on(jumbo, OUT);
    rows.row = "IKE 3";
    let sized = |length: usize|
        IpsecPacket::datagram(&outer, (IKE_PORT, IKE_PORT), &vec![7; length]).frame();
    for (length, reason) in [(27, IkeMalformed), (28, Absorbed), (2048, Absorbed),
        (2049, IkeMalformed)] {
        rows.drop(reason, "a length", sized(length));
    }
    rows.on(config.clone(), OUT);
}

#[rustfmt::skip] // A table: one frame a statement.
fn port_4500(rows: &mut Rows, config: &SwitchConfig, peer: usize) {
    let outer = to_vm1(config, peer);
    let datagram = |bytes: &[u8]|
        IpsecPacket::datagram(&outer, (NAT_PORT, NAT_PORT), bytes).frame();
    rows.row = "Port 4500";
    rows.drop(Absorbed, "one byte 0xff", datagram(&[0xff]));
    for bytes in [&[][..], &[0], &[0xfe], &[0xff, 0xff], &[1, 2, 3], &[0; 4]] {
        rows.drop(EspMalformed, "too short", datagram(bytes));
    }
    rows.drop(IkeMalformed, "a marker and too little", datagram(&[0; 5]));
    rows.drop(EspMalformed, "ESP that is cut off", datagram(&[1; 7]));
    rows.drop(EspSpi, "ESP", datagram(&[1; 60]));
}
