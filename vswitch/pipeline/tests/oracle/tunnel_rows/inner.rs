//! The rows of "Out of the tunnel" about the inner frame.

use super::*;

pub(super) fn add(rows: &mut Rows) {
    ethernet_headers(rows);
    ip_and_arp_headers(rows);
    services_messages(rows);
    nested_tunnels(rows);
}

/// The MAC of the tunnel's side of this switch.
fn side() -> Mac {
    tunnel(&configs::geneve()).mac.octets()
}

/// The MAC of host B's side.
fn peer() -> Mac {
    tunnel(&configs::geneve()).peers[B].mac.octets()
}

/// `inner` from host B.
fn carry(inner: Vec<u8>) -> Vec<u8> {
    TunnelPacket::new(&configs::geneve(), B, inner).frame()
}

fn from_b(packet: &V4) -> Vec<u8> {
    from4(&configs::geneve(), B, packet).frame()
}

fn from_b6(packet: &V6) -> Vec<u8> {
    from6(&configs::geneve(), B, packet).frame()
}

/// A valid inner frame of host B.
fn good() -> Vec<u8> {
    ethernet(side(), peer(), IPV4, &home().bytes())
}

#[rustfmt::skip] // A table: one frame a statement.
fn ethernet_headers(rows: &mut Rows) {
    rows.on(configs::geneve(), OUT);
    rows.row = "Out 8";
    for length in 0..14 {
        rows.drop(Malformed, "shorter than an Ethernet header", carry(good()[..length].to_vec()));
    }
    rows.drop(Ipv4Malformed, "an Ethernet header alone", carry(good()[..14].to_vec()));
    for mac in [[0; 6], BROADCAST, [1, 0, 0x5e, 0, 0, 1]] {
        rows.drop(SrcMacGroup, "from a group or zero",
            carry(ethernet(side(), mac, IPV4, &home().bytes())));
    }
    rows.drop(SrcMac, "from our own side's MAC",
        carry(ethernet(side(), side(), IPV4, &home().bytes())));
    rows.forward(0, "from any station", carry(ethernet(side(), VM1, IPV4, &home().bytes())));
    for protocol in [0x8100, 0x88a8, 0x9100] {
        rows.drop(VlanTag, "an inner tag", carry(tagged(&good(), protocol, 100)));
        rows.drop(VlanTag, "an inner priority tag", carry(tagged(&good(), protocol, 0)));
    }
    rows.drop(Llc, "LLC",
        carry(ethernet([1, 0x80, 0xc2, 0, 0, 0], peer(), 38, &[0x42, 0x42, 3, 0, 0])));
    rows.drop(LinkLocalL2, "LLDP", carry(ethernet(side(), peer(), 0x88cc, &[0; 46])));
    rows.drop(LinkLocalL2, "to a bridge's group",
        carry(ethernet([1, 0x80, 0xc2, 0, 0, 0x0f], peer(), IPV4, &home().bytes())));
    rows.drop(Rarp, "RARP", carry(ethernet(BROADCAST, peer(), RARP, &[0; 28])));
    for ethertype in [0x0600, 0x6558, 0x8847, 0xffff] {
        rows.drop(EtherType, "any other type",
            carry(ethernet(side(), peer(), ethertype, &[0; 46])));
    }
    for to in [peer(), VM1, UPLINK, GW, [0x0e, 0, 0, 0, 0, 3], [0; 6]] {
        rows.drop(DstMac, "to another station", carry(ethernet(to, peer(), IPV4, &home().bytes())));
    }
    rows.forward(0, "with inner padding", carry([good(), vec![0; 20]].concat()));
}

#[rustfmt::skip] // A table: one frame a statement.
fn ip_and_arp_headers(rows: &mut Rows) {
    rows.on(configs::geneve(), OUT);
    rows.row = "Out 9";
    let message = Arp { opcode: 1, sender_mac: peer(), sender: IP71, target_mac: [0; 6],
        target: IP1 };
    let arp = |message: &[u8]| carry(ethernet(BROADCAST, peer(), ARP, message));
    rows.drop(ArpMalformed, "ARP cut off", arp(&message.bytes()[..27]));
    rows.drop(ArpMalformed, "RARP's opcode", arp(&Arp { opcode: 3, ..message.clone() }.bytes()));
    rows.drop(ArpSenderMac, "another's hardware address",
        arp(&Arp { sender_mac: VM1, ..message.clone() }.bytes()));
    rows.drop(Ipv4Malformed, "a wrong header checksum", {
        let mut inner = good();
        inner[24] ^= 1;
        carry(inner)
    });
    rows.drop(Ipv4Malformed, "a total length beyond the frame",
        carry(good()[..good().len() - 1].to_vec()));
    rows.drop(Ipv4Martian, "from loopback", from_b(&V4 { from: Ipv4Addr::LOCALHOST, ..home() }));
    rows.drop(Ipv4Martian, "to loopback", from_b(&V4 { to: Ipv4Addr::LOCALHOST, ..home() }));
    rows.drop(Ipv4SourceRoute, "strict", from_b(&V4 { options: vec![137, 3, 4], ..home() }));
    rows.drop(Ipv4Fragment, "a first fragment cut off",
        from_b(&V4 { fragment: MORE_FRAGMENTS, payload: vec![0; 4], ..home() }));
    rows.forward(0, "a later fragment", from_b(&V4 { fragment: 9, ..home() }));
    rows.drop(Ipv6Malformed, "IPv6 beyond the frame",
        carry(ethernet(side(), peer(), IPV6, &home6().bytes()[..40])));
    rows.drop(Ipv6Chain, "a routing header of type 0", from_b6(&home6().with(43, routing(0))));
    rows.drop(Ipv6Fragment, "an IPv6 first fragment cut off",
        from_b6(&V6 { payload: vec![], ..home6() }.with(44, fragment_header(0, true))));
    rows.drop(Ipv4Malformed, "IPv6 that says it is IPv4",
        carry(ethernet(side(), peer(), IPV4, &home6().bytes())));
}

#[rustfmt::skip] // A table: one frame a statement.
fn services_messages(rows: &mut Rows) {
    rows.on(configs::geneve(), OUT);
    rows.row = "Out 11";
    rows.drop(DhcpServer, "from port 67", from_b(&V4 { payload: udp(67, 9, b""), ..home() }));
    rows.drop(DhcpServer, "a BOOTREPLY",
        from_b(&V4 { payload: udp(9, 68, &bootp(2, VM1)), ..home() }));
    rows.drop(DhcpClient, "a client's message to a server",
        from_b(&V4 { payload: udp(68, 67, &bootp(1, VM1)), ..home() }));
    rows.drop(Dhcpv6Client, "to port 547", from_b6(&V6 { payload: udp(546, 547, b""), ..home6() }));
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
}

#[rustfmt::skip] // A table: one frame a statement.
fn nested_tunnels(rows: &mut Rows) {
    rows.on(configs::geneve(), OUT);
    rows.row = "Out 12";
    for port in [4789, 4790, 6081, 8472] {
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
    for port in [4789, 4790, 6081, 8472, 16081] {
        rows.forward(0, "allowed",
            from4(&allow, B, &V4 { payload: udp(1000, port, b""), ..home() }).frame());
    }
}

/// All sixteen combinations (RFC 6040, figure 4), by both inner and both outer families.
#[rustfmt::skip] // A table: one frame a statement.
pub(super) fn add_ecn(rows: &mut Rows) {
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
