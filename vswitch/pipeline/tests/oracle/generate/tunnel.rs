//! Random frames into tunnels, out of them and beside them.

use tenant_config::TunnelKind;

use super::super::tunnel_frames::{
    Sum, TunnelPacket, geneve_header, geneve_option, odd_routers, quote_of, report, report_from,
    too_big, tunnel, unreachable,
};
use super::*;

/// A frame from anywhere to anywhere, of a tenant with a tunnel: more often than not a tunnel's.
pub(crate) fn frame(choices: &mut Choices<'_>, config: &SwitchConfig) -> Sent {
    match choices.pick(&[0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 4]) {
        0 => Sent {
            from: config.ports.len(),
            tag: None,
            bytes: out_of_tunnel(choices, config),
        },
        1 => away(choices, config),
        2 => Sent {
            from: config.ports.len(),
            tag: None,
            bytes: path_mtu(choices, config),
        },
        3 => large_packet(choices, config),
        _ => super::frame(choices, config),
    }
}

/// Addresses of interest behind peer number `peer`.
fn behind(config: &SwitchConfig, peer: usize) -> Vec<IpAddr> {
    let prefixes = &tunnel(config).peers[peer].prefixes;
    let mut addresses: Vec<IpAddr> = prefixes
        .iter()
        .filter(|net| net.prefix_len() > 0)
        .flat_map(|net| ends(net).into_iter().take(2))
        .collect();
    if prefixes.iter().any(|net| net.prefix_len() == 0) {
        for text in ["8.8.8.8", "203.0.113.10", "2600::1", "2001:db8:ffff::7"] {
            addresses.push(text.parse().expect("an address"));
        }
    }
    addresses
}

/// From a port to an address behind a peer.
pub(crate) fn away(choices: &mut Choices<'_>, config: &SwitchConfig) -> Sent {
    let from = choices.below(config.ports.len());
    let peer = choices.below(tunnel(config).peers.len());
    let addresses = behind(config, peer);
    let sender = Sender {
        peers4: only4(&addresses),
        peers6: only6(&addresses),
        ..Sender::new(config, from)
    };
    let (tag, bytes) = sender.frame(choices);
    Sent { from, tag, bytes }
}

/// A tunnel packet from the underlay, with all that may be wrong about it.
fn out_of_tunnel(choices: &mut Choices<'_>, config: &SwitchConfig) -> Vec<u8> {
    let peer = choices.below(tunnel(config).peers.len());
    let mut frame = packet(choices, config, peer).frame();
    if choices.once_in(12) {
        damage(choices, &mut frame);
    }
    frame
}

/// A tunnel packet from that peer, with all that may be wrong about it.
pub(crate) fn packet(
    choices: &mut Choices<'_>,
    config: &SwitchConfig,
    peer: usize,
) -> TunnelPacket {
    let tunnel = tunnel(config);
    let addresses = behind(config, peer);
    let mut own6 = only6(&addresses);
    own6.push(tunnel.peers[peer].mac.link_local());
    let ports: Vec<IpAddr> = config
        .ports
        .iter()
        .flat_map(|port| {
            prefixes(port)
                .iter()
                .flat_map(ends)
                .take(2)
                .collect::<Vec<_>>()
        })
        .chain(config.gateway.ipv4.map(|net| net.addr().into()))
        .chain(config.gateway.ipv6.map(|net| net.addr().into()))
        .collect();
    let sender = Sender {
        port: None,
        mac: tunnel.peers[peer].mac.octets(),
        to: tunnel.mac.octets(),
        own4: only4(&addresses),
        own6,
        peers4: only4(&ports),
        peers6: only6(&ports),
        ..Sender::new(config, config.ports.len())
    };
    let (_, inner) = sender.frame(choices);
    let mut packet = TunnelPacket::new(config, peer, inner);
    packet.class = choices.pick(&[0, 0, 1, 2, 3, 0xb8, 0xbb]);
    packet.ttl = choices.pick(&[64, 255, 1]);
    packet.source_port = choices.mostly(&[50_000], &[0, 67, 547, 4789, 6081, 65_535]);
    packet.port = choices.mostly(&[tunnel.port; 12], &[4789, 6081, 16081, 53]);
    packet.sum = choices.mostly(&[packet.sum], &[Sum::Zero, Sum::Right, Sum::Wrong]);
    packet.fragment = choices.mostly(&[DONT_FRAGMENT, 0], &[MORE_FRAGMENTS, 1, 0x1fff]);
    let sources = &tunnel.peers[peer].sources;
    if !sources.is_empty() && choices.once_in(4) {
        packet.from = choices.pick(sources);
    }
    if choices.once_in(12) {
        packet.from = choices.pick(&same_family(packet.from, &pool(config)));
    }
    if choices.once_in(24) {
        packet.to = choices.pick(&same_family(packet.to, &pool(config)));
    }
    if choices.once_in(16) {
        packet.options = ipv4_options(choices);
        packet.extensions = extensions(choices);
    }
    if choices.once_in(16) {
        packet.behind = vec![0xee; choices.pick(&[1, 2, 7, 64])];
    }
    if choices.once_in(16) {
        let whole = 8 + packet.header.len() + packet.inner.len();
        let strange = [0, 7, 8, 15, 16, 20, whole - 1, whole + 1, 0xffff];
        packet.length = Some(choices.pick(&strange) as u16);
    }
    packet.header = header(choices, config, packet.header);
    if choices.once_in(24) {
        let left = choices.below(packet.header.len() + 1);
        packet.header.truncate(left);
        packet.inner.clear();
    }
    if choices.once_in(24) {
        packet.mac_to = choices.pick(&sender.other_macs());
    }
    packet
}

fn same_family(as_this: IpAddr, addresses: &[IpAddr]) -> Vec<IpAddr> {
    let same = addresses
        .iter()
        .filter(|address| address.is_ipv4() == as_this.is_ipv4());
    same.copied().collect()
}

/// A tunnel's header, `good` more often than not.
fn header(choices: &mut Choices<'_>, config: &SwitchConfig, good: Vec<u8>) -> Vec<u8> {
    let mut header = good;
    if tunnel(config).kind == TunnelKind::Geneve && choices.once_in(3) {
        let mut options = Vec::new();
        for _ in 0..choices.pick(&[1, 1, 2, 3, 20]) {
            let kind = choices.mostly(&[1, 2, 0x7f], &[0x80, 0xff]);
            let mut option = geneve_option(kind, choices.pick(&[0, 1, 2, 7]));
            if choices.once_in(12) {
                option[3] = choices.byte();
            }
            options.extend(option);
        }
        options.truncate(252);
        header = geneve_header(config.vni.get(), &options);
        if choices.once_in(12) {
            header[0] = header[0] & 0xc0 | choices.byte() & 0x3f;
        }
    }
    if choices.once_in(8) {
        let at = choices.below(8);
        header[at] ^= 1 << (choices.byte() % 8);
    }
    if choices.once_in(24) {
        let at = choices.below(8);
        header[at] = choices.byte();
    }
    header
}

/// A router's word about the size of a packet of ours, or of what it says is ours.
fn path_mtu(choices: &mut Choices<'_>, config: &SwitchConfig) -> Vec<u8> {
    let tunnel = tunnel(config);
    let peer = choices.pick(&tunnel.peers).vtep;
    let strangers = same_family(peer, &pool(config));
    let mtu = choices.pick(&[
        1400, 1330, 1329, 1500, 1549, 1550, 1551, 1350, 1349, 1280, 1279, 626, 625, 576, 575, 0,
        1600, 0x1_0578,
    ]);
    let from = choices.mostly(&[tunnel.vtep], &strangers);
    let to = choices.mostly(&[peer], &strangers);
    let port = choices.mostly(&[tunnel.port], &[4789, 4790, 6081, 8472, 16081]);
    let mut frame = too_big(config, mtu, from, to, port);
    if choices.once_in(6) {
        damage(choices, &mut frame);
    }
    frame
}

/// A packet from a port to an address behind a peer, of about the size that the tunnel carries.
fn large_packet(choices: &mut Choices<'_>, config: &SwitchConfig) -> Sent {
    let peer = choices.below(tunnel(config).peers.len());
    let addresses = only4(&behind(config, peer));
    let port = choices.below(config.ports.len());
    let own = only4(
        &prefixes(&config.ports[port])
            .iter()
            .flat_map(ends)
            .collect::<Vec<_>>(),
    );
    let mtu = config.uplink.as_ref().expect("an uplink").mtu;
    let most = (mtu - tunnel(config).overhead()).min(config.ports[port].mtu);
    let length = most - choices.pick(&[0, 0, 1, 21, 40]);
    let flow = choices.pick(&[1, 2]);
    let packet = V4::new(
        choices.pick(&own),
        choices.pick(&addresses),
        17,
        udp(1000, flow, &vec![0; usize::from(length) - 28]),
    );
    let port_config = &config.ports[port];
    let (to, from) = (port_config.gateway_mac.octets(), port_config.mac.octets());
    Sent {
        from: port,
        tag: None,
        bytes: ethernet(to, from, IPV4, &packet.bytes()),
    }
}

/// A router's word about a frame that went into the tunnel, or about one like it.
pub(crate) fn report_about(choices: &mut Choices<'_>, config: &SwitchConfig, left: &[u8]) -> Sent {
    let mut quote = quote_of(left);
    let length = quote.len();
    quote.truncate(choices.mostly(&[length, length, 128], &[28, 48, 50, 60, length / 2]));
    let forged = choices.once_in(3);
    if forged {
        let at = choices.below(quote.len().min(100));
        quote[at] ^= 1 << (choices.byte() % 8);
        if quote[0] >> 4 == 4 && quote.len() >= 20 && !choices.once_in(4) {
            set_ipv4_checksum(&mut quote[..20]);
        }
    }
    let router = if forged {
        choices.pick(&[1, 2, 3, 4, 5, 6])
    } else {
        0
    };
    let full = left.len() as u32 - 14;
    let mtu = choices.mostly(
        &[full - 1, full - 20],
        &[1330, 1350, 626, 576, 0, full, full + 1],
    );
    let (odd, _) = choices.pick(&odd_routers(config));
    let bytes = match choices.below(16) {
        0 | 1 => report_from(config, odd, mtu, &quote),
        2 => unreachable(config, odd, choices.byte() % 16, &quote),
        3..=6 => {
            let from = choices.pick(&tunnel(config).peers).vtep;
            let code = choices.mostly(&[3, 13], &[0, 1, 2, 4, 5, 6, 7, 9, 10, 11]);
            unreachable(config, from, code, &quote)
        }
        _ => report(config, router, mtu, &quote),
    };
    Sent {
        from: config.ports.len(),
        tag: None,
        bytes,
    }
}

/// Makes the checksums of a tunnel packet right again that its bytes still point to: those of the
/// inner packet, of the outer UDP header unless it has none, and of the outer IPv4 header.
/// `inner_at` is where the inner frame begins.
pub(crate) fn mend(frame: &mut [u8], inner_at: usize) {
    if let Some(inner) = frame.get_mut(inner_at..)
        && inner.len() >= 34
    {
        match inner[12..14] {
            [0x08, 0x00] => set_ipv4_checksum(&mut inner[14..]),
            [0x86, 0xdd] if inner.len() > 58 && inner[20] == 58 => {
                let (from, to) = (ipv6_at(inner, 22), ipv6_at(inner, 38));
                set_icmpv6_checksum(from, to, &mut inner[54..]);
            }
            _ => {}
        }
    }
    let (from, to, udp_at): (IpAddr, IpAddr, usize) = match frame[12..14] {
        [0x08, 0x00] => {
            let address =
                |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
            (address(26).into(), address(30).into(), 34)
        }
        _ => (ipv6_at(frame, 22).into(), ipv6_at(frame, 38).into(), 54),
    };
    if frame.len() >= udp_at + 8 && frame[udp_at + 6..udp_at + 8] != [0, 0] {
        super::super::tunnel_frames::set_udp_checksum(from, to, Sum::Right, &mut frame[udp_at..]);
    }
    if udp_at == 34 {
        set_ipv4_checksum(&mut frame[14..]);
    }
}

fn ipv6_at(bytes: &[u8], at: usize) -> Ipv6Addr {
    let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("sixteen bytes");
    octets.into()
}
