//! `docs/reference/tunnel.md` by example: for each of its rows, frames that fall under it and
//! frames that only just do not. This table is kept by hand; the model and the switch must both
//! agree with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pipeline::DropReason::{self, *};
use tenant_config::SwitchConfig;

use super::configs;
use super::frames::*;
use super::rows::{
    Case, EXTERNAL, EXTERNAL6, GATEWAY, GW, IP1, IP2, NEXT_HOP, NEXT_HOP6, ROUTER, Rows, UNOWNED,
    UPLINK, UPLINK_IP, UPLINK6, VM1, inner, link_local, solicited_node,
};
use super::tunnel_frames::*;

/// VMs behind host B and behind the two peers of host C's VTEP.
pub(crate) const IP71: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 71);
pub(crate) const IP81: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 81);
pub(crate) const IP82: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 82);
/// The numbers of the peers, and of the uplink.
pub(crate) const B: usize = 0;
pub(crate) const C1: usize = 1;
pub(crate) const C2: usize = 2;
pub(crate) const OUT: usize = 2;
const ZERO: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const CE: u8 = 3;

/// The whole table.
pub(crate) fn cases() -> Vec<Case> {
    let mut rows = Rows::new();
    into_rows(&mut rows);
    outer_rows(&mut rows);
    header_rows(&mut rows);
    inner_rows(&mut rows);
    source_rows(&mut rows);
    service_rows(&mut rows);
    route_rows(&mut rows);
    ecn_rows(&mut rows);
    beside_rows(&mut rows);
    rows.cases()
}

/// An IPv4 packet from `vm1`'s MAC to the gateway's.
fn v4(packet: &V4) -> Vec<u8> {
    ethernet(GW, VM1, IPV4, &packet.bytes())
}

/// An IPv6 packet from `vm1`'s MAC to the gateway's.
fn v6(packet: &V6) -> Vec<u8> {
    ethernet(GW, VM1, IPV6, &packet.bytes())
}

/// `vm1` to a VM behind host B by UDP.
pub(crate) fn away() -> V4 {
    V4::new(IP1, IP71, 17, udp(1000, 2000, b"hello"))
}

/// The same by IPv6.
pub(crate) fn away6() -> V6 {
    V6::new(inner(0x11), inner(0x71), 17, udp(1000, 2000, b"hello"))
}

/// From a VM behind host B to `vm1`.
pub(crate) fn home() -> V4 {
    V4::new(IP71, IP1, 17, udp(2000, 1000, b"hello"))
}

/// The same by IPv6.
pub(crate) fn home6() -> V6 {
    V6::new(inner(0x71), inner(0x11), 17, udp(2000, 1000, b"hello"))
}

/// A SYN with a maximum segment size behind `front` of other options.
pub(crate) fn syn(front: &[u8], mss: u16) -> Vec<u8> {
    let mut options = [front, &[2, 4], &mss.to_be_bytes()].concat();
    options.resize(options.len().next_multiple_of(4), 1);
    let words = 5 + options.len() / 4;
    let mut segment = tcp(1000, 80, words as u8, b"");
    segment[20..].copy_from_slice(&options);
    segment
}

/// `packet` from peer number `peer`.
fn from4(config: &SwitchConfig, peer: usize, packet: &V4) -> TunnelPacket {
    TunnelPacket::new(
        config,
        peer,
        inner_frame(config, peer, IPV4, &packet.bytes()),
    )
}

/// `packet` from peer number `peer`.
fn from6(config: &SwitchConfig, peer: usize, packet: &V6) -> TunnelPacket {
    TunnelPacket::new(
        config,
        peer,
        inner_frame(config, peer, IPV6, &packet.bytes()),
    )
}

#[rustfmt::skip] // A table: one frame a statement.
fn into_rows(rows: &mut Rows) {
    rows.on(configs::geneve(), 0);
    rows.row = "Into, as for another port";
    let ask = |target| Arp { opcode: 1, sender_mac: VM1, sender: IP1, target_mac: [0; 6], target };
    let arp = |target| ethernet(BROADCAST, VM1, ARP, &ask(target).bytes());
    rows.reply("ARP for a VM behind a peer", arp(IP71));
    rows.reply("ARP for an address of a peer's prefix", arp([10, 0, 8, 9].into()));
    rows.drop(ArpUnknown, "ARP for an unowned address", arp(UNOWNED));
    let solicit = |target| v6(&V6::icmp(inner(0x11), solicited_node(target),
        neighbor(135, 0, target, &[link_layer(1, VM1)])));
    rows.reply("a solicitation for a VM behind a peer", solicit(inner(0x71)));
    rows.drop(NdUnknown, "a solicitation for an unowned address", solicit(inner(0x99)));
    rows.drop(Ipv4Source, "a forged source", v4(&V4 { from: IP81, ..away() }));
    rows.drop(DstMac, "in a broadcast", ethernet(BROADCAST, VM1, IPV4, &away().bytes()));
    rows.forward(1, "the port's own address, within a peer's prefix",
        v4(&V4 { to: [172, 16, 0, 9].into(), ..away() }));
    rows.forward(OUT, "a peer's prefix around a port's",
        v4(&V4 { to: [172, 16, 1, 9].into(), ..away() }));
    rows.reply("a Router Solicitation, with the port's MTU or the tunnel's",
        v6(&V6::icmp(inner(0x11), [0xff02, 0, 0, 0, 0, 0, 0, 2].into(), router_solicitation(&[]))));

    rows.row = "Into 1";
    rows.drop(LinkLocalIp, "a link-local source", v6(&V6 { from: link_local(VM1), ..away6() }));
    rows.row = "Into 2";
    for port in [4789, 6081] {
        rows.drop(TunnelNested, "to a tunnel's port",
            v4(&V4 { payload: udp(1000, port, b""), ..away() }));
        rows.drop(TunnelNested, "to a tunnel's port by IPv6",
            v6(&V6 { payload: udp(1000, port, b""), ..away6() }));
        rows.drop(TunnelNested, "a first fragment",
            v4(&V4 { payload: udp(1000, port, b""), fragment: MORE_FRAGMENTS, ..away() }));
        rows.forward(OUT, "a later fragment",
            v4(&V4 { payload: udp(1000, port, b""), fragment: 9, ..away() }));
        rows.forward(OUT, "from a tunnel's port",
            v4(&V4 { payload: udp(port, 1000, b""), ..away() }));
        rows.forward(OUT, "to such a port by TCP",
            v4(&V4 { payload: tcp(1000, port, 5, b""), protocol: 6, ..away() }));
        rows.forward(1, "to such a port of the sibling",
            v4(&V4 { to: IP2, payload: udp(1000, port, b""), ..away() }));
    }
    rows.forward(OUT, "to another tenant's port",
        v4(&V4 { payload: udp(1000, 16081, b""), ..away() }));
    rows.on(configs::geneve6(), 0);
    for port in [4789, 6081, 16081] {
        rows.forward(OUT, "allowed", v4(&V4 { payload: udp(1000, port, b""), ..away() }));
    }
    let mut own_port = configs::geneve();
    own_port.tunnel.as_mut().expect("a tunnel").port = 16081;
    rows.on(own_port, 0);
    for port in [4789, 6081, 16081] {
        rows.drop(TunnelNested, "where the tunnel's port is its own",
            v4(&V4 { payload: udp(1000, port, b""), ..away() }));
    }

    rows.row = "Into 3";
    let sized = |length: usize| V4 { payload: udp(1, 2, &vec![0; length - 28]), ..away() };
    let sized6 = |length: usize| V6 { payload: udp(1, 2, &vec![0; length - 48]), ..away6() };
    for (name, config, carries) in [
        ("Geneve over IPv4", configs::geneve(), 1500),
        ("VXLAN over IPv4", configs::vxlan(), 1450),
        ("Geneve over IPv6", configs::geneve6(), 1500),
        ("VXLAN over IPv6", configs::vxlan6(), 1280),
        ("a narrow underlay", configs::narrow(), 576),
    ] {
        let with_ipv6 = config.gateway.ipv6.is_some();
        rows.on(config, 0);
        rows.forward(OUT, name, v4(&sized(carries)));
        if with_ipv6 {
            rows.forward(OUT, name, v6(&sized6(carries)));
        }
        if carries < 1500 {
            rows.error(DropReason::Mtu, name, v4(&sized(carries + 1)));
            rows.forward(OUT, name, [v4(&sized(carries)), vec![0; 9]].concat());
            rows.drop(DropReason::Mtu, "a later fragment",
                v4(&V4 { fragment: 9, ..sized(carries + 1) }));
            rows.error(DropReason::Mtu, "without DF all the same",
                v4(&V4 { fragment: 0, ..sized(1500) }));
        }
        if carries < 1500 && with_ipv6 {
            rows.error(DropReason::Mtu, name, v6(&sized6(carries + 1)));
        }
    }

    rows.row = "Into 4";
    rows.on(configs::geneve(), 0);
    rows.resolved = false;
    rows.drop(NeighbourUnresolved, "a next hop that has not answered", v4(&away()));
    rows.drop(NeighbourUnresolved, "an off-link peer's router",
        v6(&V6 { to: inner(0x81), ..away6() }));
    rows.drop(TunnelNested, "row 2 before row 4", v4(&V4 { payload: udp(1, 6081, b""), ..away() }));
    rows.resolved = true;

    rows.row = "The outer packet";
    for (name, config) in configs::tunnels() {
        let with_ipv6 = config.gateway.ipv6.is_some();
        rows.on(config, 0);
        for ttl in [0, 1, 2, 64, 255] {
            for class in [0, 1, 2, CE, 0xb8, 0xff] {
                rows.forward(OUT, name, v4(&V4 { ttl, class, ..away() }));
                if with_ipv6 {
                    rows.forward(OUT, name, v6(&V6 { hop_limit: ttl, class, ..away6() }));
                }
            }
        }
        rows.forward(OUT, "padding is cut off", [v4(&away()), vec![0xa5; 13]].concat());
        rows.forward(OUT, "an echo request",
            v4(&V4 { protocol: 1, payload: icmp(8, 0, ECHO), ..away() }));
        rows.forward(OUT, "any protocol", v4(&V4 { protocol: 253, ..away() }));
    }
    rows.on(configs::geneve(), 0);
    for to in [IP81, IP82, [10, 0, 16, 1].into(), [10, 0, 31, 255].into()] {
        rows.forward(OUT, "a peer with a MAC of its own, behind a router",
            v4(&V4 { to, ..away() }));
    }
    rows.forward(OUT, "one peer of two with one VTEP, by IPv6",
        v6(&V6 { to: inner(0x82), ..away6() }));
    rows.on(configs::geneve(), 1);
    let of_vm2 = V4 { from: IP2, ..away() }.bytes();
    let of_vm2 = ethernet([2, 0, 0x13, 0x89, 0, 2], [0x52, 0x54, 0, 0xaa, 0, 2], IPV4, &of_vm2);
    rows.forward(OUT, "the VM's tag stays behind", tagged(&of_vm2, 0x8100, 100));

    rows.row = "Into: mss_clamp";
    for (name, config, most) in [("over IPv4", configs::vxlan(), 1410),
        ("narrow", configs::narrow(), 536), ("over IPv6", configs::vxlan6(), 1240),
        ("not where it is off", configs::geneve(), 1460)] {
        let with_ipv6 = config.gateway.ipv6.is_some();
        rows.on(config, 0);
        for mss in [0, most - 1, most, most + 1, 1460, 0xffff] {
            for front in [&[][..], &[1], &[1, 1], &[1, 1, 1], &[4, 2], &[3, 3, 7],
                &[8, 10, 1, 2, 3, 4, 5, 6, 7, 8]] {
                rows.forward(OUT, name,
                    v4(&V4 { protocol: 6, payload: syn(front, mss), ..away() }));
            }
            let mut synack = syn(&[], mss);
            synack[13] = 0x12;
            rows.forward(OUT, "SYN-ACK",
                v4(&V4 { protocol: 6, payload: synack.clone(), ..away() }));
            synack[13] = 0x10;
            rows.forward(OUT, "no SYN", v4(&V4 { protocol: 6, payload: synack, ..away() }));
            rows.forward(OUT, "behind the end of options",
                v4(&V4 { protocol: 6, payload: syn(&[0], mss), ..away() }));
            rows.forward(OUT, "a length of zero",
                v4(&V4 { protocol: 6, payload: syn(&[9, 0], mss), ..away() }));
            rows.forward(OUT, "a length of one",
                v4(&V4 { protocol: 6, payload: syn(&[9, 1], mss), ..away() }));
            rows.forward(OUT, "a length beyond the header",
                v4(&V4 { protocol: 6, payload: syn(&[9, 40], mss), ..away() }));
            rows.forward(OUT, "two of them",
                v4(&V4 { protocol: 6, payload: syn(&[2, 4, 0xff, 0xff], mss), ..away() }));
            if with_ipv6 {
                rows.forward(OUT, name, v6(&V6 { upper: 6, payload: syn(&[1], mss), ..away6() }));
            }
        }
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn outer_rows(rows: &mut Rows) {
    for (name, config) in configs::tunnels() {
        let good = from4(&config, if name == "only" { 1 } else { B }, &home());
        rows.on(config.clone(), OUT);
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
        rows.drop(if good.from.is_ipv4() { DhcpServer } else { Dhcpv6Server },
            "from a DHCP server's port",
            TunnelPacket { source_port: if good.from.is_ipv4() { 67 } else { 547 },
                ..good.clone() }.frame());
        rows.drop(IngressSource, "from our own VTEP",
            TunnelPacket { from: good.to, ..good.clone() }.frame());
        rows.drop(GatewayService, "to another port",
            TunnelPacket { port: 5555, ..good.clone() }.frame());

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
        let stranger: IpAddr = if good.from.is_ipv4() { [203, 0, 113,
            99].into() } else { EXTERNAL6.into() };
        rows.drop(TunnelFragment, "row 1 before row 2", TunnelPacket {
            from: stranger, fragment: MORE_FRAGMENTS,
                extensions: vec![(44, fragment_header(0, true))], ..good.clone() }.frame());

        rows.row = "Out 2";
        let router: IpAddr = if good.from.is_ipv4() { NEXT_HOP.into() } else { NEXT_HOP6.into() };
        for from in [stranger, router] {
            rows.drop(TunnelPeer, "from a stranger", TunnelPacket { from, ..good.clone() }.frame());
            rows.drop(TunnelPeer, "row 2 before row 3",
                TunnelPacket { from, sum: Sum::Wrong, ..good.clone() }.frame());
        }

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
        if good.from.is_ipv6() && tunnel(&config).udp_checksum {
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
    rows.row = "Out 1";
    rows.on(configs::geneve(), OUT);
    let good = from4(&configs::geneve(), B, &home());
    rows.drop(GatewayService, "a later fragment, whose port cannot be seen",
        TunnelPacket { fragment: 100, ..good }.frame());
}

#[rustfmt::skip] // A table: one frame a statement.
fn header_rows(rows: &mut Rows) {
    rows.row = "Out 4";
    let config = configs::vxlan();
    let good = from4(&config, B, &home());
    rows.on(config.clone(), OUT);
    let vxlan = |flags: u8| TunnelPacket { header: [&[flags], &good.header[1..]].concat(),
        ..good.clone() }.frame();
    for bit in 0..8 {
        if bit == 3 {
            rows.drop(TunnelMalformed, "flag I alone is clear", vxlan(!(1 << bit)));
        } else {
            rows.drop(TunnelMalformed, "another flag than I", vxlan(1 << bit));
            rows.forward(0, "another flag beside I", vxlan(8 | 1 << bit));
        }
    }
    rows.drop(TunnelMalformed, "no flag", vxlan(0));
    rows.drop(TunnelMalformed, "row 4 before row 5",
        TunnelPacket { header: vec![0; 8], ..good.clone() }.frame());
    rows.forward(0, "reserved bytes",
        TunnelPacket { header: [&[8, 1, 2, 3], &good.header[4..7], &[4]].concat(),
        ..good.clone() }.frame());

    let config = configs::geneve();
    let vni = config.vni.get();
    let good = from4(&config, B, &home());
    rows.on(config.clone(), OUT);
    let with = |at: usize, value: u8| {
        let mut header = good.header.clone();
        header[at] = value;
        TunnelPacket { header, ..good.clone() }.frame()
    };
    for version in [0x40, 0x80, 0xc0] {
        rows.drop(TunnelMalformed, "another version", with(0, version));
    }
    rows.drop(TunnelMalformed, "a control packet", with(1, 0x80));
    rows.drop(TunnelMalformed, "a critical control packet", with(1, 0xc0));
    rows.forward(0, "reserved flags", with(1, 0x3f));
    for protocol in [[0x08, 0x00], [0x65, 0x59], [0x64, 0x58], [0x86, 0xdd], [0, 0]] {
        let header = [&good.header[..2], &protocol, &good.header[4..]].concat();
        rows.drop(TunnelMalformed, "another protocol",
            TunnelPacket { header, ..good.clone() }.frame());
    }
    rows.drop(TunnelVni, "row 5 before row 6",
        TunnelPacket { header: geneve_header(vni + 1, &geneve_option(0x80, 0)),
        ..good.clone() }.frame());

    rows.row = "Out 6";
    let options = |options: &[Vec<u8>]| TunnelPacket { header: geneve_header(vni,
        &options.concat()), ..good.clone() };
    rows.drop(TunnelOption, "flag C without an option", with(1, 0x40));
    for words in [0, 1, 31] {
        rows.forward(0, "an option", options(&[geneve_option(1, words)]).frame());
        rows.drop(TunnelOption, "a critical option",
            options(&[geneve_option(0x81, words)]).frame());
        rows.drop(TunnelOption, "a critical option behind another",
            options(&[geneve_option(1, words), geneve_option(0x80, 0)]).frame());
    }
    rows.forward(0, "252 bytes of options",
        options(&[geneve_option(1, 31), geneve_option(2, 30)]).frame());
    rows.forward(0, "63 options", options(&vec![geneve_option(0x7f, 0); 63]).frame());
    rows.drop(TunnelOption, "63 options, the last critical",
        options(&[vec![geneve_option(0x7f, 0); 62].concat(), geneve_option(0xff, 0)]).frame());
    rows.forward(0, "reserved bits of an option", {
        let mut option = geneve_option(1, 2);
        option[3] |= 0xe0;
        options(&[option]).frame()
    });
    rows.drop(TunnelTruncated, "an option beyond the options", {
        let mut option = geneve_option(1, 2);
        option[3] = 3;
        options(&[option]).frame()
    });
    rows.drop(TunnelTruncated, "a critical option beyond the options", {
        let mut option = geneve_option(0x81, 2);
        option[3] = 31;
        options(&[option]).frame()
    });
    rows.drop(TunnelTruncated, "flag C and an option beyond the options", {
        let mut option = geneve_option(1, 0);
        option[3] = 1;
        let mut header = geneve_header(vni, &option);
        header[1] = 0x40;
        TunnelPacket { header, ..good.clone() }.frame()
    });
    for words in [1, 5, 63] {
        let mut header = geneve_header(vni, &[]);
        header[0] = words;
        rows.drop(TunnelTruncated, "options beyond the packet",
            TunnelPacket { header, inner: vec![], ..good.clone() }.frame());
    }
    rows.drop(Malformed, "options, and no inner frame",
        TunnelPacket { inner: vec![], ..options(&[geneve_option(1, 4)]) }.frame());
}

#[rustfmt::skip] // A table: one frame a statement.
fn inner_rows(rows: &mut Rows) {
    let config = configs::geneve();
    let side = tunnel(&config).mac.octets();
    let peer = tunnel(&config).peers[B].mac.octets();
    let carry = |inner: Vec<u8>| TunnelPacket::new(&config, B, inner).frame();
    let good = ethernet(side, peer, IPV4, &home().bytes());
    rows.on(config.clone(), OUT);
    rows.row = "Out 8";
    for length in 0..14 {
        rows.drop(Malformed, "shorter than an Ethernet header", carry(good[..length].to_vec()));
    }
    rows.drop(Ipv4Malformed, "an Ethernet header alone", carry(good[..14].to_vec()));
    for mac in [[0; 6], BROADCAST, [1, 0, 0x5e, 0, 0, 1]] {
        rows.drop(SrcMacGroup, "from a group or zero",
            carry(ethernet(side, mac, IPV4, &home().bytes())));
    }
    rows.forward(0, "from any station", carry(ethernet(side, VM1, IPV4, &home().bytes())));
    for protocol in [0x8100, 0x88a8, 0x9100] {
        rows.drop(VlanTag, "an inner tag", carry(tagged(&good, protocol, 100)));
        rows.drop(VlanTag, "an inner priority tag", carry(tagged(&good, protocol, 0)));
    }
    rows.drop(Llc, "LLC",
        carry(ethernet([1, 0x80, 0xc2, 0, 0, 0], peer, 38, &[0x42, 0x42, 3, 0, 0])));
    rows.drop(LinkLocalL2, "LLDP", carry(ethernet(side, peer, 0x88cc, &[0; 46])));
    rows.drop(LinkLocalL2, "to a bridge's group",
        carry(ethernet([1, 0x80, 0xc2, 0, 0, 0x0f], peer, IPV4, &home().bytes())));
    rows.drop(Rarp, "RARP", carry(ethernet(BROADCAST, peer, RARP, &[0; 28])));
    for ethertype in [0x0600, 0x6558, 0x8847, 0xffff] {
        rows.drop(EtherType, "any other type", carry(ethernet(side, peer, ethertype, &[0; 46])));
    }
    for to in [peer, VM1, UPLINK, GW, [0x0e, 0, 0, 0, 0, 3], [0; 6]] {
        rows.drop(DstMac, "to another station", carry(ethernet(to, peer, IPV4, &home().bytes())));
    }
    rows.forward(0, "with inner padding", carry([good.clone(), vec![0; 20]].concat()));

    rows.row = "Out 9";
    let message = Arp { opcode: 1, sender_mac: peer, sender: IP71, target_mac: [0; 6],
        target: IP1 };
    let arp = |message: &[u8]| carry(ethernet(BROADCAST, peer, ARP, message));
    rows.drop(ArpMalformed, "ARP cut off", arp(&message.bytes()[..27]));
    rows.drop(ArpMalformed, "RARP's opcode", arp(&Arp { opcode: 3, ..message.clone() }.bytes()));
    rows.drop(ArpSenderMac, "another's hardware address",
        arp(&Arp { sender_mac: VM1, ..message.clone() }.bytes()));
    let from_b = |packet: &V4| from4(&config, B, packet).frame();
    let from_b6 = |packet: &V6| from6(&config, B, packet).frame();
    rows.drop(Ipv4Malformed, "a wrong header checksum", {
        let mut inner = good.clone();
        inner[24] ^= 1;
        carry(inner)
    });
    rows.drop(Ipv4Malformed, "a total length beyond the frame",
        carry(good[..good.len() - 1].to_vec()));
    rows.drop(Ipv4Martian, "from loopback", from_b(&V4 { from: Ipv4Addr::LOCALHOST, ..home() }));
    rows.drop(Ipv4Martian, "to loopback", from_b(&V4 { to: Ipv4Addr::LOCALHOST, ..home() }));
    rows.drop(Ipv4SourceRoute, "strict", from_b(&V4 { options: vec![137, 3, 4], ..home() }));
    rows.drop(Ipv4Fragment, "a first fragment cut off",
        from_b(&V4 { fragment: MORE_FRAGMENTS, payload: vec![0; 4], ..home() }));
    rows.forward(0, "a later fragment", from_b(&V4 { fragment: 9, ..home() }));
    rows.drop(Ipv6Malformed, "IPv6 beyond the frame",
        carry(ethernet(side, peer, IPV6, &home6().bytes()[..40])));
    rows.drop(Ipv6Chain, "a routing header of type 0", from_b6(&home6().with(43, routing(0))));
    rows.drop(Ipv6Fragment, "an IPv6 first fragment cut off",
        from_b6(&V6 { payload: vec![], ..home6() }.with(44, fragment_header(0, true))));
    rows.drop(Ipv4Malformed, "IPv6 that says it is IPv4",
        carry(ethernet(side, peer, IPV4, &home6().bytes())));

    rows.row = "Out 11";
    rows.drop(DhcpServer, "from port 67", from_b(&V4 { payload: udp(67, 9, b""), ..home() }));
    rows.drop(DhcpServer, "a BOOTREPLY",
        from_b(&V4 { payload: udp(9, 68, &bootp(2, VM1)), ..home() }));
    rows.drop(Redirect, "a redirect",
        from_b(&V4 { protocol: 1, payload: icmp(5, 1, ECHO), ..home() }));
    rows.drop(RouterAdvertisement, "IRDP",
        from_b(&V4 { protocol: 1, payload: icmp(9, 0, ECHO), ..home() }));
    rows.drop(Dhcpv6Server, "from port 547", from_b6(&V6 { payload: udp(547, 9, b""), ..home6() }));
    rows.drop(Dhcpv6Server, "to port 546", from_b6(&V6 { payload: udp(9, 546, b""), ..home6() }));
    for from in [inner(0x71), link_local(VM1), ANY6] {
        let nd = |message| from_b6(&V6::icmp(from, ALL_NODES, message));
        rows.drop(MldQuery, "a query", nd(icmpv6(130, 0, &[0; 20])));
        rows.drop(RouterAdvertisement, "a Router Advertisement", nd(router_advertisement(&[])));
        rows.drop(Redirect, "a Redirect", nd(redirect(inner(0x71), inner(0x71))));
        rows.drop(NdMalformed, "an option of length zero",
            nd(neighbor(135, 0, inner(0x11), &[vec![1, 0, 0, 0, 0, 0, 0, 0]])));
        rows.drop(NdMalformed, "an advertisement over a router",
            from_b6(&V6 { hop_limit: 254,
            ..V6::icmp(from, ALL_NODES, neighbor(136, 0, inner(0x71), &[])) }));
    }
    rows.drop(RouterAdvertisement, "router renumbering",
        from_b6(&V6::icmp(inner(0x71), inner(0x11), icmpv6(138, 0, &[0; 20]))));
    for kind in [141, 142] {
        rows.drop(NdSpoof, "inverse ND",
            from_b6(&V6::icmp(inner(0x71), ALL_NODES, icmpv6(kind, 0, &[0; 20]))));
    }

    rows.row = "Out 12";
    for port in [4789, 6081] {
        rows.drop(TunnelNested, "a tunnel inside",
            from_b(&V4 { payload: udp(1000, port, b""), ..home() }));
        rows.drop(TunnelNested, "a tunnel inside by IPv6",
            from_b6(&V6 { payload: udp(1000, port, b""), ..home6() }));
        rows.drop(TunnelNested, "to the gateway",
            from_b(&V4 { to: GATEWAY, payload: udp(1000, port, b""), ..home() }));
        rows.forward(0, "a later fragment",
            from_b(&V4 { payload: udp(1000, port, b""), fragment: 7, ..home() }));
    }
    let allow = configs::geneve6();
    rows.on(allow.clone(), OUT);
    for port in [4789, 6081, 16081] {
        rows.forward(0, "allowed",
            from4(&allow, B, &V4 { payload: udp(1000, port, b""), ..home() }).frame());
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn source_rows(rows: &mut Rows) {
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
}

#[rustfmt::skip] // A table: one frame a statement.
fn service_rows(rows: &mut Rows) {
    for (name, config) in configs::tunnels() {
        let b = if name == "only" { 1 } else { B };
        let with_ipv6 = config.gateway.ipv6.is_some();
        rows.on(config.clone(), OUT);
        let asker = tunnel(&config).peers[b].mac.octets();
        let arp_from = |mac: Mac, opcode, target| {
            let message = Arp { opcode, sender_mac: mac, sender: IP71, target_mac: [0; 6], target };
            TunnelPacket::new(&config, b, ethernet(BROADCAST, mac, ARP, &message.bytes())).frame()
        };
        let arp = |opcode, target| arp_from(asker, opcode, target);
        rows.row = "Out: ARP";
        for target in [GATEWAY, IP1, IP2, [172, 16, 0, 1].into()] {
            rows.reply("a request for the gateway's or a port's address", arp(1, target));
            rows.reply("of a station that is not the peer's", arp_from(VM1, 1, target));
            rows.drop(Absorbed, "a reply", arp(2, target));
        }
        rows.drop(Absorbed, "an announcement", arp(1, IP71));
        for target in [UNOWNED, IP82, [10, 0, 8, 1].into(), EXTERNAL, UPLINK_IP, NEXT_HOP, ZERO,
            [10, 0, 0, 255].into(), [169, 254, 0, 1].into()] {
            rows.drop(ArpUnknown, "a request for anything else", arp(1, target));
        }

        rows.row = "Out: echo";
        let echo = |to| from4(&config, b,
            &V4 { to, protocol: 1, payload: icmp(8, 0, ECHO), ..home() });
        rows.reply("an echo request to the gateway", echo(GATEWAY).frame());
        rows.forward(0, "an echo request to a port", echo(IP1).frame());
        rows.reply("an echo request that was marked",
            from4(&config, b,
            &V4 { class: 0xba, ..V4::new(IP71, GATEWAY, 1, icmp(8, 0, ECHO)) }).frame());
        rows.drop(GatewayService, "a fragment of one",
            from4(&config, b,
            &V4 { to: GATEWAY, protocol: 1, payload: icmp(8, 0, ECHO), fragment: MORE_FRAGMENTS,
            ..home() }).frame());
        rows.drop(GatewayService, "an echo reply",
            from4(&config, b,
            &V4 { to: GATEWAY, protocol: 1, payload: icmp(0, 0, ECHO), ..home() }).frame());
        rows.drop(GatewayService, "UDP to the gateway",
            from4(&config, b, &V4 { to: GATEWAY, ..home() }).frame());
        rows.drop(GatewayService, "TCP to the gateway",
            from4(&config, b,
            &V4 { to: GATEWAY, protocol: 6, payload: tcp(1, 22, 5, b""), ..home() }).frame());
        rows.row = "Out: no next hop for the answer";
        rows.resolved = false;
        rows.drop(NeighbourUnresolved, "an echo", echo(GATEWAY).frame());
        rows.drop(NeighbourUnresolved, "ARP", arp(1, GATEWAY));
        rows.forward(0, "a packet to a port, all the same", echo(IP1).frame());
        rows.resolved = true;
        if !with_ipv6 {
            continue;
        }

        rows.row = "Out: ND";
        let ns = |from: Ipv6Addr, target: Ipv6Addr| {
            from6(&config, b,
                &V6::icmp(from, solicited_node(target), neighbor(135, 0, target, &[]))).frame()
        };
        let station = link_local(asker);
        for target in [inner(1), inner(0x11), inner(0x12)] {
            rows.reply("a solicitation", ns(inner(0x71), target));
            rows.reply("from a link-local address", ns(station, target));
            rows.drop(Absorbed, "from ::", ns(ANY6, target));
        }
        for target in [inner(0x71), inner(0x99), link_local(VM1), link_local(GW),
            link_local(tunnel(&config).mac.octets()), station, EXTERNAL6, UPLINK6] {
            rows.drop(NdUnknown, "a solicitation for anything else", ns(inner(0x71), target));
            rows.drop(NdUnknown, "from a link-local address for anything else",
                ns(station, target));
        }
        rows.drop(IngressSource, "of another station", ns(inner(0x11), inner(1)));
        for from in [inner(0x71), station] {
            let nd = |message| from6(&config, b, &V6::icmp(from, ALL_NODES, message)).frame();
            rows.drop(Absorbed, "an advertisement",
                nd(neighbor(136, 0x20, inner(0x71), &[link_layer(2, asker)])));
            rows.drop(Absorbed, "an advertisement of a lie",
                nd(neighbor(136, 0xa0, inner(1), &[link_layer(2, asker)])));
            rows.drop(Absorbed, "a Router Solicitation", nd(router_solicitation(&[])));
            for kind in [131, 132, 143] {
                rows.drop(Absorbed, "an MLD report", nd(icmpv6(kind, 0, &[0; 20])));
            }
        }
        rows.row = "Out: echo";
        rows.reply("an echo request by IPv6",
            from6(&config, b, &V6::icmp(inner(0x71), inner(1), icmpv6(128, 0, ECHO))).frame());
        rows.drop(GatewayService, "UDP to the gateway by IPv6",
            from6(&config, b, &V6 { to: inner(1), ..home6() }).frame());
        rows.drop(LinkLocalIp, "an echo request to a link-local address",
            from6(&config, b,
            &V6::icmp(inner(0x71), link_local(GW), icmpv6(128, 0, ECHO))).frame());
    }
    let config = configs::geneve();
    rows.on(config.clone(), OUT);
    for (peer, sender) in [(C1, IP81), (C1, IP82), (C2, IP81), (C2, IP82)] {
        rows.row = "Out: the answer's peer is the sender's";
        let message = Arp { opcode: 1, sender_mac: VM1, sender, target_mac: [0; 6],
            target: GATEWAY };
        rows.reply("ARP",
            TunnelPacket::new(&config, peer,
            ethernet(BROADCAST, VM1, ARP, &message.bytes())).frame());
        rows.reply("an echo",
            from4(&config, peer, &V4::new(sender, GATEWAY, 1, icmp(8, 0, ECHO))).frame());
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn route_rows(rows: &mut Rows) {
    let config = configs::geneve();
    rows.on(config.clone(), OUT);
    rows.row = "Out: the route";
    let to = |to: Ipv4Addr| from4(&config, B, &V4 { to, ..home() }).frame();
    let to6 = |to: Ipv6Addr| from6(&config, B, &V6 { to, ..home6() }).frame();
    for ttl in [0, 1, 255] {
        rows.forward(0, "the TTL stays", from4(&config, B, &V4 { ttl, ..home() }).frame());
    }
    rows.forward(1, "another port", to(IP2));
    rows.forward(1, "within a port's prefix", to([172, 16, 0, 77].into()));
    rows.forward(1, "another port by IPv6", to6(inner(0x12)));
    for group in [[224, 0, 0, 1].into(), [239, 1, 1, 1].into(), Ipv4Addr::BROADCAST,
        [10, 0, 0, 255].into()] {
        rows.drop(Multicast, "a group", to(group));
    }
    rows.drop(Multicast, "a group by IPv6", to6(ALL_NODES));
    rows.drop(LinkLocalIp, "link-local", to([169, 254, 169, 254].into()));
    rows.drop(LinkLocalIp, "a port's link-local address", to6(link_local(VM1)));
    rows.drop(RouteNone, "an IPv4 address as IPv6", to6(IP1.to_ipv6_mapped()));
    let side = inner_frame(&config, B, IPV4, &home().bytes());
    for group in [BROADCAST, [1, 0, 0x5e, 1, 1, 1]] {
        rows.drop(DstMac, "a unicast address in a group's frame",
            TunnelPacket::new(&config, B, [&group[..], &side[6..]].concat()).frame());
    }
    for peers in [IP71, IP81, [10, 0, 8, 9].into(), [172, 17, 0, 1].into()] {
        rows.drop(NoTransit, "back into the tunnel", to(peers));
    }
    for outside in [EXTERNAL, UPLINK_IP, NEXT_HOP, [192, 0, 2, 66].into()] {
        rows.drop(NoTransit, "out by the uplink", to(outside));
    }
    rows.drop(NoTransit, "back into the tunnel by IPv6", to6(inner(0x81)));
    rows.drop(NoTransit, "out by the uplink by IPv6", to6(EXTERNAL6));
    rows.drop(RouteNone, "an unowned address", to(UNOWNED));
    rows.drop(RouteNone, "an unowned address by IPv6", to6(inner(0x99)));
    let sized = |length: usize| V4 { to: IP2, payload: udp(1, 2, &vec![0; length - 28]), ..home() };
    rows.forward(1, "as large as the port's link", from4(&config, B, &sized(1300)).frame());
    rows.drop(DropReason::Mtu, "one byte larger", from4(&config, B, &sized(1301)).frame());
    rows.forward(0, "as large as the tunnel carries",
        from4(&config, B, &V4 { to: IP1, ..sized(1500) }).frame());
    rows.drop(Malformed, "larger than the uplink carries",
        from4(&config, B, &V4 { to: IP1, ..sized(1501) }).frame());

    rows.row = "Out: mss_clamp";
    for (name, config, most) in [("over IPv4", configs::vxlan(), 1410),
        ("narrow", configs::narrow(), 536), ("over IPv6", configs::vxlan6(), 1240),
        ("not where it is off", configs::geneve(), 1460)] {
        rows.on(config.clone(), OUT);
        for mss in [0, most, most + 1, 1460, 0xffff] {
            for front in [&[][..], &[1], &[4, 2], &[3, 3, 7], &[0]] {
                rows.forward(0, name,
                    from4(&config, B,
                    &V4 { protocol: 6, payload: syn(front, mss), ..home() }).frame());
            }
            if config.gateway.ipv6.is_some() {
                rows.forward(0, name,
                    from6(&config, B,
                    &V6 { upper: 6, payload: syn(&[1], mss), ..home6() }).frame());
            }
        }
    }
}

/// All sixteen combinations (RFC 6040, figure 4), by both inner and both outer families.
#[rustfmt::skip] // A table: one frame a statement.
fn ecn_rows(rows: &mut Rows) {
    rows.row = "Out 7";
    for config in [configs::geneve(), configs::vxlan(), configs::geneve6(), configs::vxlan6()] {
        rows.on(config.clone(), OUT);
        for outer in 0..4 {
            for ecn in 0..4 {
                for dscp in [0, 0xb8] {
                    let packet = from4(&config, B, &V4 { class: dscp | ecn, ..home() });
                    let packet6 = from6(&config, B, &V6 { class: dscp | ecn, ..home6() });
                    for packet in [packet, packet6] {
                        let frame = TunnelPacket { class: 0x50 | outer, ..packet }.frame();
                        if outer == CE && ecn == 0 {
                            rows.drop(TunnelEcn, "a mark that cannot be carried", frame);
                        } else {
                            rows.forward(0, "ECN", frame);
                        }
                    }
                }
            }
        }
        let marked = |packet: TunnelPacket| TunnelPacket { class: CE, ..packet }.frame();
        rows.drop(Ipv4Malformed, "row 9 before row 7",
            marked(from4(&config, B, &V4 { payload: vec![], ..home() })));
        rows.drop(TunnelEcn, "row 7 before row 10",
            marked(from4(&config, B, &V4 { from: IP1, ..home() })));
        rows.drop(DstMac, "row 8 before row 7",
            marked(TunnelPacket::new(&config, B, ethernet(VM1, VM1, IPV4, &home().bytes()))));
        let mac = tunnel(&config).peers[B].mac.octets();
        let message = Arp { opcode: 1, sender_mac: mac, sender: IP71, target_mac: [0; 6],
            target: IP1 };
        rows.reply("ARP has no such field",
            marked(TunnelPacket::new(&config, B, ethernet(BROADCAST, mac, ARP, &message.bytes()))));
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn beside_rows(rows: &mut Rows) {
    let plain = |packet: &V4| ethernet(UPLINK, ROUTER, IPV4, &packet.bytes());
    let plain6 = |packet: &V6| ethernet(UPLINK, ROUTER, IPV6, &packet.bytes());
    let inbound = V4::new(EXTERNAL, IP1, 17, udp(53, 1000, b"answer"));
    let inbound6 = V6::new(EXTERNAL6, inner(0x11), 17, udp(53, 1000, b"answer"));
    rows.on(configs::geneve(), OUT);
    rows.row = "Beside: plain packets";
    rows.forward(0, "from an external address", plain(&inbound));
    for from in [IP71, IP81, [10, 0, 8, 9].into(), [172, 20, 0, 1].into(), [172, 16, 0, 1].into()] {
        rows.drop(IngressSource, "a source behind a peer", plain(&V4 { from, ..inbound.clone() }));
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
        plain6(&V6 { from: inner(0x71), ..inbound6.clone() }));
    for to in [IP71, IP82, [172, 20, 0, 1].into(), [10, 0, 16, 1].into()] {
        rows.drop(NoTransit, "to an address behind a peer", plain(&V4 { to, ..inbound.clone() }));
    }
    rows.drop(NoTransit, "to an address behind a peer by IPv6",
        plain6(&V6 { to: inner(0x71), ..inbound6.clone() }));
    rows.on(configs::geneve(), 0);
    rows.forward(OUT, "a port to an external address", v4(&V4 { to: EXTERNAL, ..away() }));
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

    rows.row = "Beside: only";
    let only = configs::only();
    rows.on(only, OUT);
    for from in [[8, 8, 8, 8].into(), EXTERNAL, IP71] {
        rows.drop(IngressSource, "plain, from behind a peer",
            plain(&V4 { from, ..inbound.clone() }));
    }
    let router = V4 { from: NEXT_HOP, ..inbound.clone() };
    rows.drop(TunnelOnly, "plain, to a port", plain(&router));
    rows.drop(TunnelOnly, "plain, to a port by IPv6",
        plain6(&V6 { from: NEXT_HOP6, ..inbound6.clone() }));
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
        plain(&V4 { from: [8, 8, 8, 8].into(), ..inbound.clone() }));

    rows.row = "Beside: path MTU";
    for (name, config) in configs::tunnels() {
        let vtep = tunnel(&config).vtep;
        let port = tunnel(&config).port;
        let peer = tunnel(&config).peers[B].vtep;
        rows.on(config.clone(), OUT);
        for mtu in [0, 1, 575, 576, 1279, 1280, 1400, 1570, 9000, 0xffff, 0x1_0580, u32::MAX] {
            rows.drop(Absorbed, name, too_big(&config, mtu, vtep, peer, port));
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
    rows.on(configs::geneve(), OUT);
    let quote = V4::new(UPLINK_IP, [192, 0, 2, 66].into(), 17, udp(50_000, 6081, &[0; 8]));
    let error = |kind, code,
        quote: &[u8]| plain(&V4::new(NEXT_HOP, UPLINK_IP, 1,
        icmp(kind, code, &[&[0, 0, 5, 0x78], quote].concat())));
    rows.drop(Absorbed, "the least that is quoted", error(3, 4, &quote.bytes()[..28]));
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
