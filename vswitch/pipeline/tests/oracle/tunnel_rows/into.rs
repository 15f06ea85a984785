//! The rows of "Into the tunnel".

use super::*;

pub(super) fn add(rows: &mut Rows) {
    as_for_another_port(rows);
    nested_tunnels(rows);
    sizes(rows);
    unresolved_next_hop(rows);
    outer_packets(rows);
    segment_sizes(rows);
    fragments(rows);
}

#[rustfmt::skip] // A table: one frame a statement.
fn as_for_another_port(rows: &mut Rows) {
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
}

#[rustfmt::skip] // A table: one frame a statement.
fn nested_tunnels(rows: &mut Rows) {
    rows.on(configs::geneve(), 0);
    rows.row = "Into 1";
    rows.drop(LinkLocalIp, "a link-local source", v6(&V6 { from: link_local(VM1), ..away6() }));
    rows.row = "Into 2";
    for port in [4789, 4790, 6081, 8472] {
        rows.error(TunnelNested, "to a tunnel's port",
            v4(&V4 { payload: udp(1000, port, b""), ..away() }));
        rows.error(TunnelNested, "to a tunnel's port by IPv6",
            v6(&V6 { payload: udp(1000, port, b""), ..away6() }));
        rows.error(TunnelNested, "a first fragment",
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
    for port in [4789, 4790, 6081, 8472, 16081] {
        rows.forward(OUT, "allowed", v4(&V4 { payload: udp(1000, port, b""), ..away() }));
    }
    let mut own_port = configs::geneve();
    own_port.tunnel.as_mut().expect("a tunnel").port = 16081;
    rows.on(own_port, 0);
    for port in [4789, 4790, 6081, 8472, 16081] {
        rows.error(TunnelNested, "where the tunnel's port is its own",
            v4(&V4 { payload: udp(1000, port, b""), ..away() }));
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn sizes(rows: &mut Rows) {
    rows.row = "Into 3";
    let sized = |length: usize| V4 { payload: udp(1, 2, &vec![0; length - 28]), ..away() };
    let sized6 = |length: usize| V6 { payload: udp(1, 2, &vec![0; length - 48]), ..away6() };
    for (name, config, carries) in [
        ("Geneve over IPv4", configs::geneve(), 1500),
        ("VXLAN over IPv4", configs::vxlan(), 1450),
        ("Geneve over IPv6", configs::geneve6(), 1500),
        ("VXLAN over IPv6", configs::vxlan6(), 1280),
        ("a narrow underlay", configs::narrow(), 576),
        ("a narrow path", configs::uneven(), 1400),
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
}

#[rustfmt::skip] // A table: one frame a statement.
fn unresolved_next_hop(rows: &mut Rows) {
    rows.row = "Into 4";
    rows.on(configs::geneve(), 0);
    rows.resolved = false;
    rows.drop(NeighbourUnresolved, "a next hop that has not answered", v4(&away()));
    rows.drop(NeighbourUnresolved, "an off-link peer's router",
        v6(&V6 { to: inner(0x81), ..away6() }));
    rows.error(TunnelNested, "row 2 before row 4",
        v4(&V4 { payload: udp(1, 6081, b""), ..away() }));
    rows.resolved = true;
}

#[rustfmt::skip] // A table: one frame a statement.
fn outer_packets(rows: &mut Rows) {
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
}

#[rustfmt::skip] // A table: one frame a statement.
fn segment_sizes(rows: &mut Rows) {
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
fn fragments(rows: &mut Rows) {
    rows.row = "Fragmentation, into";
    rows.on(configs::cutting_tunnel(), 0);
    let sized = |len: usize, place| v4(&V4 {
        payload: udp(1000, 2000, &vec![7; len - 28]),
        fragment: place,
        ..away()
    });
    rows.forward(OUT, "what the tunnel carries", sized(576, 0));
    rows.copies(2, "a byte more", sized(577, 0));
    rows.copies(8, "eight", sized(4000, 0));
    rows.copies(17, "the most", sized(9216, 0));
    rows.copies(8, "a fragment", sized(4000, 0x2000 | 100));
    rows.error(Mtu, "with DF", sized(577, DONT_FRAGMENT));
    let mut options = vec![0x82, 4, 1, 1, 1];
    options.extend([7, 7, 4, 0, 0, 0, 0]);
    rows.copies(8, "with options", v4(&V4 {
        payload: udp(1000, 2000, &[7; 3900]),
        options,
        ..away()
    }));
    rows.error(TunnelNested, "to a tunnel's port", v4(&V4 {
        payload: udp(1000, 4789, &[7; 900]),
        ..away()
    }));
    rows.copies(2, "a large SYN", v4(&V4 {
        payload: tcp(1000, 2000, 6, &[2; 700]),
        protocol: 6,
        ..away()
    }));
    rows.resolved = false;
    rows.drop(NeighbourUnresolved, "to an unknown next hop", sized(4000, 0));
    rows.resolved = true;
}
