//! What a tunnel's outer headers take from the packet inside: class, TTL, and a hash of its flow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ethernet::ETHERNET_LEN;
use super::field::{be16, be32, be128};
use super::ipv4::{self, Ipv4};
use super::ipv6::{self, Ipv6, flow_label, traffic_class};
use super::transport::Fragment;
use crate::frame::Frame;
use crate::hash::mixed;
use crate::number::{has_flow, protocol};

/// Bytes of the ports, at the beginning of an upper layer.
const PORTS_LEN: usize = 4;

/// What the outer headers take from the packet that they carry.
#[derive(Debug, Clone, Copy)]
pub struct Inner {
    /// The type of service or traffic class.
    pub(super) tos: u8,
    /// The TTL or hop limit.
    pub(super) ttl: u8,
    /// A hash of the addresses, the protocol and the ports, or what takes their place.
    pub(super) flow: u64,
}

impl Inner {
    /// A frame that is no IP packet.
    const OTHER: Self = Self {
        tos: 0,
        ttl: 64,
        flow: 0,
    };

    /// A hash of the addresses, the protocol and the ports, or what takes their place, without a
    /// key.
    #[inline(always)]
    pub fn flow(&self) -> u64 {
        self.flow
    }

    /// `packet` begins with the IP header.
    #[inline(always)]
    pub fn of4(ip: &Ipv4, packet: &[u8]) -> Self {
        let whole = ip.fragment == Fragment::Whole;
        let packet = packet.get(..usize::from(ip.total_len)).unwrap_or(packet);
        let ports = ports(whole, ip.protocol, packet, usize::from(ip.header_len));
        let tos = packet.get(1).copied().unwrap_or_default();
        let ends = (ip.source, ip.destination);
        Self::flow4(tos, ip.ttl, ends, ip.protocol, ports.unwrap_or(0))
    }

    /// As [`Self::of4`] of the fields alone. `ports` are both as one number, or what else tells the
    /// flow from others between the same ends; 0 where there is nothing.
    #[inline(always)]
    pub fn flow4(
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

    /// As [`Self::of4`]. Behind a fragment header with another offset than 0 the upper layer is
    /// unknown.
    #[inline(always)]
    pub fn of6(ip: &Ipv6, packet: &[u8]) -> Self {
        let whole = ip.fragment == Fragment::Whole;
        let packet = packet.get(..ip.total_len).unwrap_or(packet);
        let ports = ports(whole, ip.upper, packet, usize::from(ip.upper_at));
        let ports = ports.unwrap_or_else(|| flow_label(packet));
        let upper = if whole { ip.upper } else { protocol::NONE };
        let ends = (ip.source, ip.destination);
        Self::flow6(traffic_class(packet), ip.hop_limit, ends, upper, ports)
    }

    /// As [`Self::flow4`].
    #[inline(always)]
    pub fn flow6(
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

    /// As [`Self::of4`] or [`Self::of6`], of a packet of which only the beginning is there. `None`
    /// if that does not show the flow.
    pub(super) fn of_beginning(packet: &[u8]) -> Option<Beginning> {
        match packet.first()? >> 4 {
            4 => Self::of_beginning4(packet),
            6 => Self::of_beginning6(packet),
            _ => None,
        }
    }

    fn of_beginning4(packet: &[u8]) -> Option<Beginning> {
        let head = packet.first_chunk::<{ ipv4::HEADER_LEN }>()?;
        let (source, destination) = (be32(head, 12), be32(head, 16));
        let whole = be16(head, 6) & 0x3fff == 0;
        let at = usize::from(head[0] & 0x0f) * 4;
        let len = usize::from(be16(head, 2));
        let ports = ports_of_beginning(whole, head[9], (packet, len), at)?.unwrap_or(0);
        let inner = Self::flow4(head[1], head[8], (source, destination), head[9], ports);
        Some(Beginning {
            inner,
            source: Ipv4Addr::from_bits(source).into(),
            destination: Ipv4Addr::from_bits(destination).into(),
            len,
        })
    }

    fn of_beginning6(packet: &[u8]) -> Option<Beginning> {
        let head = packet.first_chunk::<{ ipv6::HEADER_LEN }>()?;
        let (source, destination) = (be128(head, 8), be128(head, 24));
        let (upper, at, fragment) = ipv6::upper(packet)?;
        let whole = fragment == Fragment::Whole;
        let upper = if whole { upper } else { protocol::NONE };
        let len = ipv6::HEADER_LEN + usize::from(be16(head, 4));
        let ports = ports_of_beginning(whole, upper, (packet, len), at)?;
        let ports = ports.unwrap_or_else(|| flow_label(packet));
        let class = traffic_class(packet);
        let inner = Self::flow6(class, head[7], (source, destination), upper, ports);
        Some(Beginning {
            inner,
            source: Ipv6Addr::from_bits(source).into(),
            destination: Ipv6Addr::from_bits(destination).into(),
            len,
        })
    }

    /// As [`Self::of4`], of a whole frame that was just written.
    pub fn of_frame(frame: &Frame<'_>) -> Self {
        let packet = frame.bytes().get(ETHERNET_LEN..).unwrap_or_default();
        match packet.first().map(|first| first >> 4) {
            Some(4) => ipv4::parse(packet).map_or(Self::OTHER, |ip| Self::of4(&ip, packet)),
            _ => ipv6::parse(packet).map_or(Self::OTHER, |ip| Self::of6(&ip, packet)),
        }
    }
}

/// What the beginning of a packet shows.
pub(super) struct Beginning {
    pub(super) inner: Inner,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Bytes of the whole packet, as its header says.
    pub(super) len: usize,
}

/// As [`ports`], of a packet of `len` bytes that the filter has passed whole. `None` if the ports
/// are not there, but in the packet.
fn ports_of_beginning(
    whole: bool,
    upper: u8,
    (packet, len): (&[u8], usize),
    at: usize,
) -> Option<Option<u32>> {
    match whole && has_flow(upper) && at + PORTS_LEN <= len {
        true => Some(Some(be32(packet.get(at..)?.first_chunk::<PORTS_LEN>()?, 0))),
        false => Some(None),
    }
}

/// Both ports as one number, or ESP's SPI; `None` where the upper layer has neither, or a fragment
/// may lack them. `packet` ends with the packet.
#[inline(always)]
fn ports(whole: bool, upper: u8, packet: &[u8], at: usize) -> Option<u32> {
    if !whole || !has_flow(upper) {
        return None;
    }
    let upper = packet.get(at..)?;
    Some(be32(upper.first_chunk::<PORTS_LEN>()?, 0))
}
