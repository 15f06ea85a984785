//! The services of "Out of the tunnel": ARP, ND and echo.

use super::*;

pub(super) fn add(rows: &mut Rows) {
    for (name, config) in configs::tunnels() {
        let b = if name == "only" { 1 } else { B };
        rows.on(config.clone(), OUT);
        arp_messages(rows, &config, b);
        echoes(rows, &config, b);
        unresolved_next_hop(rows, &config, b);
        if config.gateway.ipv6.is_some() {
            nd_messages(rows, &config, b);
            echoes6(rows, &config, b);
        }
    }
    senders_of_one_vtep(rows);
}

fn asker(config: &SwitchConfig, b: usize) -> Mac {
    tunnel(config).peers[b].mac.octets()
}

/// ARP from host B with a sender's MAC.
fn arp_from(config: &SwitchConfig, b: usize, mac: Mac, opcode: u16, target: Ipv4Addr) -> Vec<u8> {
    let message = Arp {
        opcode,
        sender_mac: mac,
        sender: IP71,
        target_mac: [0; 6],
        target,
    };
    TunnelPacket::new(config, b, ethernet(BROADCAST, mac, ARP, &message.bytes())).frame()
}

/// ARP from host B.
fn arp(config: &SwitchConfig, b: usize, opcode: u16, target: Ipv4Addr) -> Vec<u8> {
    arp_from(config, b, asker(config, b), opcode, target)
}

/// An echo request from host B.
fn echo(config: &SwitchConfig, b: usize, to: Ipv4Addr) -> TunnelPacket {
    let payload = icmp(8, 0, ECHO);
    from4(
        config,
        b,
        &V4 {
            to,
            protocol: 1,
            payload,
            ..home()
        },
    )
}

#[rustfmt::skip] // A table: one frame a statement.
fn arp_messages(rows: &mut Rows, config: &SwitchConfig, b: usize) {
    rows.row = "Out: ARP";
    for target in [GATEWAY, IP1, IP2, [172, 16, 0, 1].into()] {
        rows.reply("a request for the gateway's or a port's address", arp(config, b, 1, target));
        rows.reply("of a station that is not the peer's", arp_from(config, b, VM1, 1, target));
        rows.drop(Absorbed, "a reply", arp(config, b, 2, target));
    }
    rows.drop(Absorbed, "an announcement", arp(config, b, 1, IP71));
    for target in [UNOWNED, IP82, [10, 0, 8, 1].into(), EXTERNAL, UPLINK_IP, NEXT_HOP, ZERO,
        [10, 0, 0, 255].into(), [169, 254, 0, 1].into()] {
        rows.drop(ArpUnknown, "a request for anything else", arp(config, b, 1, target));
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn echoes(rows: &mut Rows, config: &SwitchConfig, b: usize) {
    rows.row = "Out: echo";
    rows.reply("an echo request to the gateway", echo(config, b, GATEWAY).frame());
    rows.reply("an echo request as large as the tunnel carries", {
        let uplink = config.uplink.as_ref().expect("an uplink");
        let room = usize::from(uplink.mtu - tunnel(config).overhead());
        let payload = icmp(8, 0, &vec![7; room - 24]);
        from4(config, b, &V4 { to: GATEWAY, protocol: 1, payload, ..home() }).frame()
    });
    rows.forward(0, "an echo request to a port", echo(config, b, IP1).frame());
    rows.reply("an echo request that was marked",
        from4(config, b,
        &V4 { class: 0xba, ..V4::new(IP71, GATEWAY, 1, icmp(8, 0, ECHO)) }).frame());
    rows.drop(DstMac, "an echo request in a group frame", {
        let packet = V4 { to: GATEWAY, protocol: 1, payload: icmp(8, 0, ECHO), ..home() };
        let frame = ethernet(BROADCAST, asker(config, b), IPV4, &packet.bytes());
        TunnelPacket::new(config, b, frame).frame()
    });
    rows.drop(GatewayService, "an echo request with a wrong checksum", {
        let mut payload = icmp(8, 0, ECHO);
        payload[2] ^= 1;
        from4(config, b, &V4 { to: GATEWAY, protocol: 1, payload, ..home() }).frame()
    });
    rows.drop(GatewayService, "a fragment of one",
        from4(config, b,
        &V4 { to: GATEWAY, protocol: 1, payload: icmp(8, 0, ECHO), fragment: MORE_FRAGMENTS,
        ..home() }).frame());
    rows.drop(GatewayService, "an echo reply",
        from4(config, b,
        &V4 { to: GATEWAY, protocol: 1, payload: icmp(0, 0, ECHO), ..home() }).frame());
    rows.drop(GatewayService, "UDP to the gateway",
        from4(config, b, &V4 { to: GATEWAY, ..home() }).frame());
    rows.drop(GatewayService, "TCP to the gateway",
        from4(config, b,
        &V4 { to: GATEWAY, protocol: 6, payload: tcp(1, 22, 5, b""), ..home() }).frame());
}

#[rustfmt::skip] // A table: one frame a statement.
fn unresolved_next_hop(rows: &mut Rows, config: &SwitchConfig, b: usize) {
    rows.row = "Out: no next hop for the answer";
    rows.resolved = false;
    rows.drop(NeighbourUnresolved, "an echo", echo(config, b, GATEWAY).frame());
    rows.drop(NeighbourUnresolved, "ARP", arp(config, b, 1, GATEWAY));
    rows.forward(0, "a packet to a port, all the same", echo(config, b, IP1).frame());
    rows.resolved = true;
}

#[rustfmt::skip] // A table: one frame a statement.
fn nd_messages(rows: &mut Rows, config: &SwitchConfig, b: usize) {
    let asker = asker(config, b);
    rows.row = "Out: ND";
    let ns = |from: Ipv6Addr, target: Ipv6Addr| {
        from6(config, b,
            &V6::icmp(from, solicited_node(target), neighbor(135, 0, target, &[]))).frame()
    };
    let station = link_local(asker);
    for target in [inner(1), inner(0x11), inner(0x12)] {
        rows.reply("a solicitation", ns(inner(0x71), target));
        rows.reply("from a link-local address", ns(station, target));
        rows.drop(Absorbed, "from ::", ns(ANY6, target));
    }
    for target in [inner(0x71), inner(0x99), link_local(VM1), link_local(GW),
        link_local(tunnel(config).mac.octets()), station, EXTERNAL6, UPLINK6] {
        rows.drop(NdUnknown, "a solicitation for anything else", ns(inner(0x71), target));
        rows.drop(NdUnknown, "from a link-local address for anything else",
            ns(station, target));
    }
    rows.drop(IngressSource, "of another station", ns(inner(0x11), inner(1)));
    for from in [inner(0x71), station] {
        let nd = |message| from6(config, b, &V6::icmp(from, ALL_NODES, message)).frame();
        rows.drop(Absorbed, "an advertisement",
            nd(neighbor(136, 0x20, inner(0x71), &[link_layer(2, asker)])));
        rows.drop(Absorbed, "an advertisement of a lie",
            nd(neighbor(136, 0xa0, inner(1), &[link_layer(2, asker)])));
        rows.drop(Absorbed, "a Router Solicitation", nd(router_solicitation(&[])));
        for kind in [131, 132, 143] {
            rows.drop(Absorbed, "an MLD report", nd(icmpv6(kind, 0, &[0; 20])));
        }
    }
}

#[rustfmt::skip] // A table: one frame a statement.
fn echoes6(rows: &mut Rows, config: &SwitchConfig, b: usize) {
    rows.row = "Out: echo";
    rows.reply("an echo request by IPv6",
        from6(config, b, &V6::icmp(inner(0x71), inner(1), icmpv6(128, 0, ECHO))).frame());
    rows.drop(GatewayService, "UDP to the gateway by IPv6",
        from6(config, b, &V6 { to: inner(1), ..home6() }).frame());
    rows.drop(LinkLocalIp, "an echo request to a link-local address",
        from6(config, b,
        &V6::icmp(inner(0x71), link_local(GW), icmpv6(128, 0, ECHO))).frame());
}

#[rustfmt::skip] // A table: one frame a statement.
fn senders_of_one_vtep(rows: &mut Rows) {
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
