//! The route of "Out of the tunnel".

use super::*;

pub(super) fn add(rows: &mut Rows) {
    destinations(rows);
    segment_sizes(rows);
}

#[rustfmt::skip] // A table: one frame a statement.
fn destinations(rows: &mut Rows) {
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
    rows.error(DropReason::Mtu, "one byte larger", from4(&config, B, &sized(1301)).frame());
    rows.error(DropReason::Mtu, "one byte larger, without DF",
        from4(&config, B, &V4 { fragment: 0, ..sized(1301) }).frame());
    rows.drop(DropReason::Mtu, "a later fragment that is larger",
        from4(&config, B, &V4 { fragment: 3, ..sized(1301) }).frame());
    rows.drop(DropReason::Mtu, "an ICMP error that is larger",
        from4(&config, B, &V4 { protocol: 1, payload: icmp(3, 1, &[0; 1277]), ..sized(1301) })
            .frame());
    rows.forward(0, "as large as the tunnel carries",
        from4(&config, B, &V4 { to: IP1, ..sized(1500) }).frame());
    rows.drop(Malformed, "larger than the uplink carries",
        from4(&config, B, &V4 { to: IP1, ..sized(1501) }).frame());
}

#[rustfmt::skip] // A table: one frame a statement.
fn segment_sizes(rows: &mut Rows) {
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
