//! What is on the wire: the outer headers that are written and read, checksums, ECN, TCP's segment size.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tenant_config::{MacAddr, TunnelConfig, TunnelKind, TunnelTtl, Vni};

use super::{Tunnel, number};
use crate::wire::{
    self, ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Fragment, Ipv4, Ipv6, Transport,
    adjust_checksum, be16, be32, be128, protocol,
};
use packet::DropReason;
use packet::Frame;

const UDP_LEN: usize = 8;
/// Without options, both kinds' headers are as long.
const TUNNEL_LEN: usize = 8;
/// What goes in front of an inner Ethernet frame.
const OUTER4_LEN: usize = ETHERNET_LEN + 20 + UDP_LEN + TUNNEL_LEN;
const OUTER6_LEN: usize = ETHERNET_LEN + 40 + UDP_LEN + TUNNEL_LEN;
const _: () = assert!(
    OUTER6_LEN <= Frame::HEADROOM,
    "the outer headers must fit in front"
);

/// RFC 8926, section 3.4: Trans Ether Bridging.
const PROTOCOL_ETHERNET: u16 = 0x6558;
/// RFC 7348, section 5: the VNI is valid.
const VXLAN_FLAG_I: u8 = 0x08;
/// RFC 8926, section 3.4.
const GENEVE_FLAG_O: u8 = 0x80;
const GENEVE_FLAG_C: u8 = 0x40;
const GENEVE_CRITICAL: u8 = 0x80;

/// The outer headers of all packets to one endpoint; what differs from packet to packet is zero.
#[derive(Debug, Clone)]
pub(super) struct Template {
    bytes: [u8; OUTER6_LEN],
    /// The sum of the IPv4 header as it is here: reading it back from where it was just written would wait for that.
    sum4: u64,
}

impl Template {
    pub(super) fn new(vni: Vni, tunnel: &TunnelConfig, own_mac: MacAddr, peer: IpAddr) -> Self {
        let ttl = match tunnel.ttl {
            TunnelTtl::Fixed(ttl) => ttl,
            TunnelTtl::Inherit(_) => 0,
        };
        let mut outer = vec![0; 6];
        outer.extend(own_mac.octets());
        let dont_fragment = [0x40, 0];
        match (tunnel.vtep, peer) {
            (IpAddr::V4(own), IpAddr::V4(peer)) => {
                outer.extend(ETHERTYPE_IPV4.to_be_bytes());
                outer.extend([0x45, 0, 0, 0, 0, 0]);
                outer.extend(dont_fragment);
                outer.extend([ttl, protocol::UDP, 0, 0]);
                outer.extend(own.octets());
                outer.extend(peer.octets());
            }
            (own, peer) => {
                outer.extend(ETHERTYPE_IPV6.to_be_bytes());
                outer.extend([0x60, 0, 0, 0, 0, 0, protocol::UDP, ttl]);
                outer.extend(number(own).to_be_bytes());
                outer.extend(number(peer).to_be_bytes());
            }
        }
        outer.extend([0, 0]);
        outer.extend(tunnel.port.to_be_bytes());
        outer.extend([0; 4]);
        match tunnel.kind {
            TunnelKind::Vxlan => outer.extend([VXLAN_FLAG_I, 0, 0, 0]),
            TunnelKind::Geneve => {
                let [hi, lo] = PROTOCOL_ETHERNET.to_be_bytes();
                outer.extend([0, 0, hi, lo]);
            }
        }
        let [_, a, b, c] = vni.get().to_be_bytes();
        outer.extend([a, b, c, 0]);
        outer.resize(OUTER6_LEN, 0);
        let mut bytes = [0; OUTER6_LEN];
        bytes.copy_from_slice(&outer);
        let sum4 = wire::sum(&bytes[ETHERNET_LEN..ETHERNET_LEN + 20]);
        Self { bytes, sum4 }
    }
}

/// An ordinary tunnel packet: where its inner frame is in the frame, the endpoint it is from, and its ECN field.
pub(crate) struct Carrier {
    pub(crate) begin: usize,
    pub(crate) end: usize,
    pub(crate) vtep: u16,
    marked: Ecn,
}

impl Carrier {
    /// Whether the way through the tunnel leaves the ECN field of that packet as it is.
    #[inline(always)]
    pub(crate) fn leaves(&self, packet: &[u8]) -> bool {
        let inner = Ecn::of(packet);
        Ecn::within(inner, self.marked) == Some(inner)
    }
}

/// What the outer headers take from the packet that they carry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inner {
    tos: u8,
    ttl: u8,
    flow: u64,
}

impl Inner {
    /// An answer of the gateway's that is no IP packet.
    pub(super) const ARP: Self = Self {
        tos: 0,
        ttl: 64,
        flow: 0,
    };

    /// `packet` begins with the IP header.
    #[inline(always)]
    pub(super) fn of4(ip: &Ipv4, packet: &[u8]) -> Self {
        let has_ports = ip.fragment == Fragment::Whole;
        let ports = ports(has_ports, ip.transport, packet, usize::from(ip.header_len));
        let tos = packet.get(1).copied().unwrap_or_default();
        Self::flow4(tos, ip.ttl, (ip.source, ip.destination), ip.protocol, ports)
    }

    /// `ports` are both as one number, 0 where there are none.
    #[inline(always)]
    pub(crate) fn flow4(
        tos: u8,
        ttl: u8,
        (source, destination): (u32, u32),
        protocol: u8,
        ports: u32,
    ) -> Self {
        let addresses = u64::from(source) << 32 | u64::from(destination);
        let flow = mixed(addresses ^ mixed(u64::from(ports) << 8 | u64::from(protocol)));
        Self { tos, ttl, flow }
    }

    /// As [`Self::of4`]. Behind a fragment header with another offset than 0 the upper layer is unknown.
    #[inline(always)]
    pub(super) fn of6(ip: &Ipv6, packet: &[u8]) -> Self {
        let whole = ip.fragment == Fragment::Whole;
        let ports = ports(whole, ip.transport, packet, usize::from(ip.upper_at));
        let upper = if whole { ip.upper } else { protocol::NONE };
        let ends = (ip.source, ip.destination);
        Self::flow6(traffic_class(packet), ip.hop_limit, ends, upper, ports)
    }

    /// As [`Self::flow4`].
    #[inline(always)]
    pub(crate) fn flow6(
        tos: u8,
        ttl: u8,
        (source, destination): (u128, u128),
        upper: u8,
        ports: u32,
    ) -> Self {
        let halves = |address: u128| mixed((address >> 64) as u64 ^ mixed(address as u64));
        let addresses = halves(source) ^ halves(destination).rotate_left(32);
        let flow = mixed(addresses ^ mixed(u64::from(ports) << 8 | u64::from(upper)));
        Self { tos, ttl, flow }
    }
}

/// TCP's and UDP's ports, both as one number; 0 where a fragment may lack them.
#[inline(always)]
fn ports(has_ports: bool, transport: Transport, packet: &[u8], at: usize) -> u32 {
    match transport {
        Transport::Udp { .. } | Transport::Tcp if has_ports => packet
            .get(at..)
            .and_then(|transport| transport.first_chunk::<4>())
            .map_or(0, |ports| be32(ports, 0)),
        _ => 0,
    }
}

/// One round of a multiplicative hash; its upper bits are well mixed.
#[inline(always)]
fn mixed(word: u64) -> u64 {
    let product = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

/// The traffic class of an IPv6 packet.
#[inline(always)]
fn traffic_class(packet: &[u8]) -> u8 {
    packet
        .first_chunk::<2>()
        .map_or(0, |head| (be16(head, 0) >> 4) as u8)
}

impl Tunnel {
    /// Puts the outer headers in front of an Ethernet frame. `None` if there is no room.
    #[inline(always)]
    pub(super) fn encapsulate(
        &self,
        template: &Template,
        next_hop: [u8; 6],
        inner: Inner,
        frame: &mut Frame<'_>,
    ) -> Option<()> {
        let carried = frame.len();
        let udp_len = (UDP_LEN + TUNNEL_LEN + carried) as u16;
        // RFC 6335: the dynamic ports.
        let source_port = 0xc000 | (inner.flow >> 50) as u16;
        let (taken, fixed) = self.tos;
        let tos = inner.tos & taken | fixed;
        let udp_at = match self.vtep {
            IpAddr::V4(_) => {
                frame.grow_front(OUTER4_LEN)?;
                let outer: &mut [u8; OUTER4_LEN] = frame.bytes_mut().first_chunk_mut()?;
                outer.copy_from_slice(&template.bytes[..OUTER4_LEN]);
                let [hi, lo] = (udp_len + 20).to_be_bytes();
                let ttl = if self.inherits_ttl {
                    inner.ttl.max(1)
                } else {
                    0
                };
                outer[15] = tos;
                outer[16..18].copy_from_slice(&[hi, lo]);
                outer[22] |= ttl;
                let own = u64::from(u32::from_ne_bytes([0, tos, hi, lo]))
                    + u64::from(u32::from_ne_bytes([ttl, 0, 0, 0]));
                let sum = !wire::folded(template.sum4 + own);
                outer[24..26].copy_from_slice(&sum.to_ne_bytes());
                ETHERNET_LEN + 20
            }
            IpAddr::V6(_) => {
                frame.grow_front(OUTER6_LEN)?;
                let outer: &mut [u8; OUTER6_LEN] = frame.bytes_mut().first_chunk_mut()?;
                *outer = template.bytes;
                outer[14] |= tos >> 4;
                outer[15] = tos << 4;
                outer[18..20].copy_from_slice(&udp_len.to_be_bytes());
                if self.inherits_ttl {
                    outer[21] = inner.ttl.max(1);
                }
                ETHERNET_LEN + 40
            }
        };
        let bytes = frame.bytes_mut();
        bytes[..6].copy_from_slice(&next_hop);
        let udp: &mut [u8; UDP_LEN] = bytes[udp_at..].first_chunk_mut()?;
        udp[..2].copy_from_slice(&source_port.to_be_bytes());
        udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
        if self.udp_checksum {
            let sum = !wire::folded(udp_sum(&bytes[ETHERNET_LEN..], udp_at - ETHERNET_LEN));
            // RFC 768: a sum of zero is sent as all ones.
            let sum = if sum == 0 { u16::MAX } else { sum };
            bytes[udp_at + 6..udp_at + 8].copy_from_slice(&sum.to_ne_bytes());
        }
        Some(())
    }

    /// The tunnel's header, without options, as one number; what is otherwise is not ordinary.
    pub(super) fn plain_header(kind: TunnelKind, vni: Vni) -> u64 {
        let first = match kind {
            TunnelKind::Vxlan => u32::from(VXLAN_FLAG_I) << 24,
            TunnelKind::Geneve => u32::from(PROTOCOL_ETHERNET),
        };
        u64::from(first) << 32 | u64::from(vni.get()) << 8
    }

    /// Whether the UDP checksum of a packet that ends with its datagram at `udp_at` is right, or rightly absent.
    #[inline(always)]
    pub(crate) fn checksum_holds(&self, packet: &[u8], udp_at: usize) -> bool {
        let udp = packet.get(udp_at..);
        match udp.and_then(|udp| udp.first_chunk::<UDP_LEN>()) {
            Some(udp) if be16(udp, 6) == 0 => !(self.udp_checksum && self.vtep.is_ipv6()),
            Some(_) => wire::folded(udp_sum(packet, udp_at)) == u16::MAX,
            None => false,
        }
    }

    /// As the general path's filter and [`Self::open`] would, of a frame whose Ethernet header is in order, if
    /// nothing about the outer packet is rare.
    #[inline(always)]
    pub(crate) fn open_plain(&self, bytes: &[u8]) -> Option<Carrier> {
        match (self.vtep, be16(bytes.first_chunk::<ETHERNET_LEN>()?, 12)) {
            (IpAddr::V4(own), ETHERTYPE_IPV4) => self.open_plain4(own.to_bits(), bytes),
            (IpAddr::V6(own), ETHERTYPE_IPV6) => self.open_plain6(own.to_bits(), bytes),
            _ => None,
        }
    }

    #[inline(always)]
    fn open_plain4(&self, own: u32, bytes: &[u8]) -> Option<Carrier> {
        const UDP_AT: usize = ETHERNET_LEN + 20;
        let head = bytes.first_chunk::<UDP_AT>()?;
        let end = ETHERNET_LEN + usize::from(be16(head, 16));
        let plain = head[14] == 0x45
            && be16(head, 20) & 0x3fff == 0
            && head[23] == protocol::UDP
            && be32(head, 30) == own;
        let ip: &[u8; 20] = head[ETHERNET_LEN..].first_chunk()?;
        if !plain || !wire::ipv4_sum_holds(ip) {
            return None;
        }
        Some(Carrier {
            begin: self.open_plain_datagram(bytes.get(..end)?, UDP_AT)?,
            end,
            vtep: self.vtep_at(Ipv4Addr::from_bits(be32(head, 26)).into())?,
            marked: Ecn(head[15] & Ecn::MASK),
        })
    }

    #[inline(always)]
    fn open_plain6(&self, own: u128, bytes: &[u8]) -> Option<Carrier> {
        const UDP_AT: usize = ETHERNET_LEN + 40;
        let head = bytes.first_chunk::<UDP_AT>()?;
        let end = UDP_AT + usize::from(be16(head, 18));
        if head[14] >> 4 != 6 || head[20] != protocol::UDP || be128(head, 38) != own {
            return None;
        }
        Some(Carrier {
            begin: self.open_plain_datagram(bytes.get(..end)?, UDP_AT)?,
            end,
            vtep: self.vtep_at(Ipv6Addr::from_bits(be128(head, 22)).into())?,
            marked: Ecn(traffic_class(&head[ETHERNET_LEN..]) & Ecn::MASK),
        })
    }

    /// Where the inner frame begins in a frame that ends with an ordinary datagram.
    #[inline(always)]
    fn open_plain_datagram(&self, bytes: &[u8], at: usize) -> Option<usize> {
        /// The source ports of DHCP servers' answers, for which the filter looks.
        const DHCP_SERVERS: [u16; 2] = [67, 547];
        let udp = bytes.get(at..)?.first_chunk::<{ UDP_LEN + TUNNEL_LEN }>()?;
        let header = u64::from(be32(udp, 8)) << 32 | u64::from(be32(udp, 12));
        let plain = !DHCP_SERVERS.contains(&be16(udp, 0))
            && be16(udp, 2) == self.port
            && usize::from(be16(udp, 4)) == bytes.len() - at
            && header == self.plain_header;
        let holds = || self.checksum_holds(&bytes[ETHERNET_LEN..], at - ETHERNET_LEN);
        (plain && holds()).then_some(at + UDP_LEN + TUNNEL_LEN)
    }

    /// Where the inner frame is in an outer IP packet whose UDP header is at `udp_at`: its first byte, and the
    /// byte behind it. Rows 3 to 6 of "Out of the tunnel"; `packet` ends where the IP header says.
    #[inline(always)]
    pub(super) fn open(&self, packet: &[u8], udp_at: usize) -> Result<(usize, usize), DropReason> {
        let truncated = DropReason::TunnelTruncated;
        let udp = packet.get(udp_at..).ok_or(truncated)?;
        let len = usize::from(be16(udp.first_chunk::<UDP_LEN>().ok_or(truncated)?, 4));
        if len < UDP_LEN {
            return Err(truncated);
        }
        let datagram = udp.get(..len).ok_or(truncated)?;
        let whole = &packet[..udp_at + len];
        if !self.checksum_holds(whole, udp_at) {
            return Err(DropReason::TunnelChecksum);
        }
        let tunnel = &datagram[UDP_LEN..];
        let head = tunnel.first_chunk::<TUNNEL_LEN>().ok_or(truncated)?;
        let options_len = match self.kind {
            TunnelKind::Vxlan if head[0] & VXLAN_FLAG_I != 0 => 0,
            TunnelKind::Geneve
                if head[0] >> 6 == 0
                    && head[1] & GENEVE_FLAG_O == 0
                    && be16(head, 2) == PROTOCOL_ETHERNET =>
            {
                usize::from(head[0] & 0x3f) * 4
            }
            _ => return Err(DropReason::TunnelMalformed),
        };
        if be32(head, 4) >> 8 != self.vni {
            return Err(DropReason::TunnelVni);
        }
        if self.kind == TunnelKind::Geneve {
            let options = tunnel.get(TUNNEL_LEN..TUNNEL_LEN + options_len);
            let critical = has_critical_option(options.ok_or(truncated)?).ok_or(truncated)?;
            if critical || head[1] & GENEVE_FLAG_C != 0 {
                return Err(DropReason::TunnelOption);
            }
        }
        Ok((udp_at + UDP_LEN + TUNNEL_LEN + options_len, udp_at + len))
    }
}

/// Whether an option is critical; `None` if one is cut off (RFC 8926, section 3.5).
fn has_critical_option(mut options: &[u8]) -> Option<bool> {
    let mut critical = false;
    while !options.is_empty() {
        let head = options.first_chunk::<4>()?;
        critical |= head[2] & GENEVE_CRITICAL != 0;
        options = options.get(4 + usize::from(head[3] & 0x1f) * 4..)?;
    }
    Some(critical)
}

/// The sum that a UDP checksum is made of, of the datagram at `udp_at` of an IP packet which ends with it.
fn udp_sum(packet: &[u8], udp_at: usize) -> u64 {
    let datagram = packet.get(udp_at..).unwrap_or_default();
    // The addresses of both families end a header without options; and what lies between is no part of the sum.
    let addresses = match packet.first().map_or(0, |first| first >> 4) {
        4 => packet.get(12..20),
        _ => packet.get(8..40),
    };
    let pseudo =
        u64::from(u16::from(protocol::UDP).to_be()) + u64::from((datagram.len() as u16).to_be());
    wire::sum(addresses.unwrap_or_default()) + pseudo + wire::sum(datagram)
}

/// Whether the checksum of a message that it covers alone is right.
pub(super) fn sum_holds(message: &[u8]) -> bool {
    wire::folded(wire::sum(message)) == u16::MAX
}

/// The two bits of Explicit Congestion Notification (RFC 3168).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ecn(u8);

impl Ecn {
    pub(super) const MASK: u8 = 3;
    const NOT_CAPABLE: Self = Self(0);
    const CAPABLE_1: Self = Self(1);
    const CAPABLE_0: Self = Self(2);
    const CONGESTED: Self = Self(3);

    /// That of the IP packet's header.
    pub(crate) fn of(packet: &[u8]) -> Self {
        match packet.first_chunk::<2>() {
            Some([first, tos]) if first >> 4 == 4 => Self(tos & Self::MASK),
            _ => Self(traffic_class(packet) & Self::MASK),
        }
    }

    /// What the inner packet goes on with (RFC 6040, section 4.2, figure 4); `None` if it must be dropped.
    pub(crate) fn within(inner: Self, outer: Self) -> Option<Self> {
        match (inner, outer) {
            (Self::NOT_CAPABLE, Self::CONGESTED) => None,
            (Self::NOT_CAPABLE, _) => Some(inner),
            (_, Self::CONGESTED) => Some(outer),
            (Self::CAPABLE_0, Self::CAPABLE_1) => Some(outer),
            _ => Some(inner),
        }
    }

    /// Writes it into an IP packet's header.
    pub(crate) fn write(self, packet: &mut [u8]) {
        let Some(head) = packet.first_chunk_mut::<2>() else {
            return;
        };
        if head[0] >> 4 == 4 {
            let old = be16(head, 0);
            head[1] = head[1] & !Self::MASK | self.0;
            let new = be16(head, 0);
            if packet.len() >= 20 {
                adjust_checksum(packet, 10, old, new);
            }
        } else {
            head[1] = head[1] & !(Self::MASK << 4) | self.0 << 4;
        }
    }
}

/// Lowers the maximum segment size that a TCP SYN announces to `most` (RFC 9293, section 3.7.1). `segment`
/// begins with a TCP header that is whole.
pub(crate) fn clamp_mss(segment: &mut [u8], most: u16) {
    const SYN: u8 = 0x02;
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const MAXIMUM_SEGMENT_SIZE: u8 = 2;
    let Some(head) = segment.first_chunk::<20>() else {
        return;
    };
    let end = (usize::from(head[12] >> 4) * 4).min(segment.len());
    if head[13] & SYN == 0 {
        return;
    }
    let mut at = 20;
    while at < end {
        let len = match (segment[at], segment.get(at + 1)) {
            (END, _) => return,
            (NO_OPERATION, _) => 1,
            (MAXIMUM_SEGMENT_SIZE, Some(4)) if at + 4 <= end => {
                let old = be16(segment, at + 2);
                if old > most {
                    segment[at + 2..at + 4].copy_from_slice(&most.to_be_bytes());
                    // At an odd place its bytes count for the other halves of two words.
                    let (old, new) = if at % 2 == 0 {
                        (old, most)
                    } else {
                        (old.swap_bytes(), most.swap_bytes())
                    };
                    adjust_checksum(segment, 16, old, new);
                }
                4
            }
            (_, Some(&len)) if len >= 2 => usize::from(len),
            _ => return,
        };
        at += len;
    }
}
