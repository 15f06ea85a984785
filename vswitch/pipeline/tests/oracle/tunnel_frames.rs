//! Tunnel packets built by hand. Fields that are not set have the values of a valid packet.

use std::net::IpAddr;

use tenant_config::{SwitchConfig, TunnelConfig, TunnelKind};

use super::frames::{self, *};
use super::rows;

/// The UDP checksum of an outer packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sum {
    Zero,
    Right,
    Wrong,
}

/// A tunnel packet from the underlay.
#[derive(Debug, Clone)]
pub(crate) struct TunnelPacket {
    pub(crate) mac_to: Mac,
    pub(crate) mac_from: Mac,
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    /// TOS or traffic class.
    pub(crate) class: u8,
    pub(crate) ttl: u8,
    /// Flags and fragment offset, over IPv4.
    pub(crate) fragment: u16,
    /// Options, over IPv4.
    pub(crate) options: Vec<u8>,
    /// Extension headers, over IPv6.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) source_port: u16,
    pub(crate) port: u16,
    /// UDP's length, where it lies.
    pub(crate) length: Option<u16>,
    pub(crate) sum: Sum,
    /// The tunnel's header with its options.
    pub(crate) header: Vec<u8>,
    pub(crate) inner: Vec<u8>,
    /// What lies in the IP packet behind the datagram.
    pub(crate) behind: Vec<u8>,
}

impl TunnelPacket {
    /// `inner` from peer number `peer` to us.
    pub(crate) fn new(config: &SwitchConfig, peer: usize, inner: Vec<u8>) -> Self {
        let tunnel = tunnel(config);
        let vni = config.vni.get();
        Self {
            mac_to: rows::UPLINK,
            mac_from: rows::ROUTER,
            from: tunnel.peers[peer].vtep,
            to: tunnel.vtep,
            class: 0,
            ttl: 64,
            fragment: DONT_FRAGMENT,
            options: Vec::new(),
            extensions: Vec::new(),
            source_port: 50_000,
            port: tunnel.port,
            length: None,
            sum: if tunnel.udp_checksum {
                Sum::Right
            } else {
                Sum::Zero
            },
            header: match tunnel.kind {
                TunnelKind::Vxlan => vxlan_header(vni),
                TunnelKind::Geneve => geneve_header(vni, &[]),
            },
            inner,
            behind: Vec::new(),
        }
    }

    /// The UDP datagram, with what lies behind it.
    pub(crate) fn datagram(&self) -> Vec<u8> {
        let mut datagram = udp(
            self.source_port,
            self.port,
            &[&self.header[..], &self.inner].concat(),
        );
        if let Some(length) = self.length {
            datagram[4..6].copy_from_slice(&length.to_be_bytes());
        }
        set_udp_checksum(self.from, self.to, self.sum, &mut datagram);
        datagram.extend(&self.behind);
        datagram
    }

    /// The outer frame.
    pub(crate) fn frame(&self) -> Vec<u8> {
        self.frame_of(17, self.datagram())
    }

    /// The outer frame with something else behind its IP header.
    pub(crate) fn frame_of(&self, protocol: u8, payload: Vec<u8>) -> Vec<u8> {
        let (ethertype, packet) = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut packet = V4::new(from, to, protocol, payload);
                packet.class = self.class;
                packet.ttl = self.ttl;
                packet.fragment = self.fragment;
                packet.options.clone_from(&self.options);
                (IPV4, packet.bytes())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut packet = V6::new(from, to, protocol, payload);
                packet.class = self.class;
                packet.hop_limit = self.ttl;
                packet.extensions.clone_from(&self.extensions);
                (IPV6, packet.bytes())
            }
            _ => panic!("an outer packet of two families"),
        };
        frames::ethernet(self.mac_to, self.mac_from, ethertype, &packet)
    }
}

/// The tunnel of a configuration that has one.
pub(crate) fn tunnel(config: &SwitchConfig) -> &TunnelConfig {
    config.tunnel.as_ref().expect("a tunnel")
}

/// An inner frame from peer number `peer` to our tunnel side.
pub(crate) fn inner_frame(
    config: &SwitchConfig,
    peer: usize,
    ethertype: u16,
    payload: &[u8],
) -> Vec<u8> {
    let tunnel = tunnel(config);
    let from = tunnel.peers[peer].mac.octets();
    frames::ethernet(tunnel.mac.octets(), from, ethertype, payload)
}

/// RFC 7348: flag I and the VNI.
pub(crate) fn vxlan_header(vni: u32) -> Vec<u8> {
    [[8, 0, 0, 0], (vni << 8).to_be_bytes()].concat()
}

/// RFC 8926: no flags, Ethernet, the VNI and whole words of options.
pub(crate) fn geneve_header(vni: u32, options: &[u8]) -> Vec<u8> {
    let words = (options.len() / 4) as u8;
    let fixed = [[words, 0, 0x65, 0x58], (vni << 8).to_be_bytes()].concat();
    [&fixed, options].concat()
}

/// A Geneve option with so many words of data; the type's highest bit makes it critical.
pub(crate) fn geneve_option(kind: u8, words: u8) -> Vec<u8> {
    let mut option = vec![0x01, 0x02, kind, words];
    option.resize(4 + usize::from(words) * 4, 0xab);
    option
}

/// Sets the checksum of the datagram that its length field covers (RFC 768).
pub(crate) fn set_udp_checksum(from: IpAddr, to: IpAddr, sum: Sum, datagram: &mut [u8]) {
    datagram[6..8].fill(0);
    if sum == Sum::Zero {
        return;
    }
    let length = usize::from(u16::from_be_bytes([datagram[4], datagram[5]]));
    let mut covered = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
        _ => panic!("a datagram of two families"),
    };
    covered.extend([0, 17]);
    covered.extend((length as u32).to_be_bytes());
    covered.extend(&datagram[..length.min(datagram.len())]);
    let mut right = match checksum(&covered) {
        0 => 0xffff,
        right => right,
    };
    if sum == Sum::Wrong {
        // Neither zero nor the other way to write the right one.
        right = if right == 0x1234 { 0x1235 } else { 0x1234 };
    }
    datagram[6..8].copy_from_slice(&right.to_be_bytes());
}

/// ICMP "fragmentation needed" or ICMPv6 "packet too big" to the VTEP, from the router, about a
/// datagram between those addresses to `port` that the switch never sent.
pub(crate) fn too_big(
    config: &SwitchConfig,
    mtu: u32,
    quoted_from: IpAddr,
    quoted_to: IpAddr,
    port: u16,
) -> Vec<u8> {
    let datagram = udp(50_000, port, &[0xcd; 24]);
    let quote = match (quoted_from, quoted_to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let quote = V4 {
                fragment: DONT_FRAGMENT,
                ..V4::new(from, to, 17, datagram)
            };
            quote.bytes()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => V6::new(from, to, 17, datagram).bytes(),
        _ => panic!("a quote of two families"),
    };
    report(config, 0, mtu, &quote)
}

/// ICMP "fragmentation needed" or ICMPv6 "packet too big" to the VTEP about the packet that begins
/// with `quote`, from router number `router`, or from the uplink's next hop if that is 0.
pub(crate) fn report(config: &SwitchConfig, router: u8, mtu: u32, quote: &[u8]) -> Vec<u8> {
    let from: IpAddr = match (tunnel(config).vtep, router) {
        (IpAddr::V4(_), 0) => rows::NEXT_HOP.into(),
        (IpAddr::V4(_), router) => [203, 0, 113, 100 + router].into(),
        (IpAddr::V6(_), 0) => rows::NEXT_HOP6.into(),
        (IpAddr::V6(_), router) => {
            std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xd, router.into(), 0, 0, 0, 1).into()
        }
    };
    report_from(config, from, mtu, quote)
}

/// As [`report`], from a router with that address.
pub(crate) fn report_from(config: &SwitchConfig, from: IpAddr, mtu: u32, quote: &[u8]) -> Vec<u8> {
    let rest = [&mtu.to_be_bytes()[..], quote].concat();
    match (from, tunnel(config).vtep) {
        (IpAddr::V4(from), IpAddr::V4(vtep)) => {
            let packet = V4::new(from, vtep, 1, icmp(3, 4, &rest));
            frames::ethernet(rows::UPLINK, rows::ROUTER, IPV4, &packet.bytes())
        }
        (IpAddr::V6(from), IpAddr::V6(vtep)) => {
            let packet = V6::icmp(from, vtep, icmpv6(2, 0, &rest));
            frames::ethernet(rows::UPLINK, rows::ROUTER, IPV6, &packet.bytes())
        }
        _ => panic!("a router of another family"),
    }
}

/// ICMP "destination unreachable" of either family to the VTEP about the packet that begins with
/// `quote`, from that address.
pub(crate) fn unreachable(config: &SwitchConfig, from: IpAddr, code: u8, quote: &[u8]) -> Vec<u8> {
    let rest = [&[0; 4], quote].concat();
    match (from, tunnel(config).vtep) {
        (IpAddr::V4(from), IpAddr::V4(vtep)) => {
            let packet = V4::new(from, vtep, 1, icmp(3, code, &rest));
            frames::ethernet(rows::UPLINK, rows::ROUTER, IPV4, &packet.bytes())
        }
        (IpAddr::V6(from), IpAddr::V6(vtep)) => {
            let packet = V6::icmp(from, vtep, icmpv6(1, code, &rest));
            frames::ethernet(rows::UPLINK, rows::ROUTER, IPV6, &packet.bytes())
        }
        _ => panic!("a router of another family"),
    }
}

/// Sources of reports that no other packet from the underlay may have, and whether a router may
/// have them: link-local ones, the gateway's, a port's, one behind a peer; the uplink's own, and
/// those that are invalid on any wire.
pub(crate) fn odd_routers(config: &SwitchConfig) -> Vec<(IpAddr, bool)> {
    let own = tunnel(config).vtep;
    let all: [(IpAddr, bool); 11] = [
        ([169, 254, 7, 1].into(), true),
        (rows::GATEWAY.into(), true),
        (rows::IP1.into(), true),
        ([10, 0, 0, 71].into(), true),
        ([0, 0, 0, 7].into(), false),
        ([240, 0, 0, 1].into(), false),
        ([0xfe80, 0, 0, 0, 0, 0, 0, 7].into(), true),
        (rows::inner(1).into(), true),
        (rows::inner(0x11).into(), true),
        ([0, 0, 0, 0, 0, 0, 0, 7].into(), false),
        (own, false),
    ];
    let of_family = |(address, _): &(IpAddr, bool)| address.is_ipv4() == own.is_ipv4();
    all.into_iter().filter(of_family).collect()
}

/// The packet in a frame that went into the tunnel, as a router quotes it: as much as fits, with
/// its TTL decremented if that was not 1.
pub(crate) fn quote_of(left: &[u8]) -> Vec<u8> {
    let packet = &left[14..];
    match packet[0] >> 4 {
        4 => {
            let mut quote = packet[..packet.len().min(548)].to_vec();
            quote[8] = (quote[8] - 1).max(1);
            set_ipv4_checksum(&mut quote);
            quote
        }
        _ => {
            let mut quote = packet[..packet.len().min(1232)].to_vec();
            quote[7] = (quote[7] - 1).max(1);
            quote
        }
    }
}
