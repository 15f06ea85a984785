//! Headers without anything unusual, read in words.
//!
//! Words and addresses are as they lie in memory, with the first byte as the lowest, but where a
//! name says that they are numbers.

use std::sync::Arc;

use crossbeam::utils::CachePadded;
use packet::encapsulation;
use packet::number::protocol;
use packet::refused::SpecialPorts;
use packet::wire::checksum::is_all_ones;
use packet::wire::flow::Inner;
use packet::wire::{ETHERNET_LEN, be16, be32, tcp};

use crate::counters::{Counters, PortCounters};
use crate::ids::{PeerId, PortId};
use crate::tables::{PackedTarget, PortEgress, Tables, Tunnel};

/// Where a common frame goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Decision<'t> {
    /// Out of a port; its headers are written. What leaves begins at `begin` and has `len` bytes.
    Out {
        way: WayOut<'t>,
        begin: usize,
        len: usize,
    },
    /// Into the tunnel.
    IntoTunnel(IntoTunnel),
}

/// The way of a packet into the tunnel; its headers are not written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IntoTunnel {
    pub(super) peer: PeerId,
    /// Bytes of the IP packet.
    pub(super) len: u16,
    pub(super) inner: Inner,
}

/// A port that frames leave by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WayOut<'t> {
    pub(crate) to: PortId,
    /// The counters of that port.
    pub(crate) counters: &'t PortCounters,
}

/// The ports of a tenant as ways out, by their places.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaysOut<'t> {
    /// As long as `counters`, so that one look-up is checked.
    egress: &'t [PortEgress],
    counters: &'t [Arc<CachePadded<PortCounters>>],
}

impl<'t> WaysOut<'t> {
    #[inline(always)]
    pub(super) fn new(tables: &'t Tables, counters: &'t Counters) -> Self {
        let (egress, counters) = (&tables.egress, counters.each_port());
        let len = egress.len().min(counters.len());
        Self {
            egress: &egress[..len],
            counters: &counters[..len],
        }
    }

    /// The way out by the port that `target` leads to, if it leads to one.
    #[inline(always)]
    pub(super) fn get(&self, target: PackedTarget) -> Option<(WayOut<'t>, &'t PortEgress)> {
        let place = target.place();
        let way = WayOut {
            to: PortId(place as u16),
            counters: self.counters.get(place)?,
        };
        Some((way, self.egress.get(place)?))
    }
}

impl<'t> Decision<'t> {
    /// By that way, as an IP packet of `len` bytes behind an Ethernet header at `begin`.
    #[inline(always)]
    pub(super) fn out(way: WayOut<'t>, begin: usize, len: usize) -> Self {
        Self::Out {
            way,
            begin,
            len: ETHERNET_LEN + len,
        }
    }
}

/// The longest prefix of a frame that the fast path reads: Ethernet, IPv4, TCP's fixed part.
pub(super) const HEAD4: usize = ETHERNET_LEN + 40;
/// Ethernet, IPv6, UDP.
pub(super) const HEAD6: usize = ETHERNET_LEN + 48;

/// The word of eight bytes from `at` on.
#[inline(always)]
pub(super) fn word(bytes: &[u8], at: usize) -> u64 {
    let mut octets = [0; 8];
    octets.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(octets)
}

/// As [`word`], of four bytes.
#[inline(always)]
fn half(bytes: &[u8], at: usize) -> u32 {
    let mut octets = [0; 4];
    octets.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(octets)
}

/// What only some carriers accept of a packet's upper layer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Upper {
    /// A datagram to that port.
    Udp(u16),
    /// A segment with those flags.
    Tcp(u8),
}

impl Upper {
    /// That of a packet; `flags` are TCP's.
    #[inline(always)]
    pub(super) fn new<A>(plain: &Plain<A>, flags: u8) -> Self {
        match plain.protocol {
            protocol::UDP => Self::Udp(plain.ports as u16),
            _ => Self::Tcp(flags),
        }
    }

    /// Whether the tunnel carries a packet with that upper layer unchanged.
    #[inline(always)]
    pub(super) fn passes(self, tunnel: &Tunnel) -> bool {
        match self {
            Self::Udp(to) => !tunnel.refuses(Some((0, to))),
            Self::Tcp(flags) => !tunnel.mss_clamp || flags & tcp::SYN == 0,
        }
    }
}

/// Which ports are unusual.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usual<'t> {
    /// Those of UDP that mean something to the filter.
    pub(super) special: &'t SpecialPorts,
    /// Whether TCP that may carry packets is unusual.
    pub(super) only_plain_tcp: bool,
}

/// An IP packet of TCP or UDP without anything unusual.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain<A> {
    /// Bytes of the packet, with its header.
    pub(super) len: usize,
    pub(super) source: A,
    pub(super) destination: A,
    /// The ports as one number.
    pub(super) ports: u32,
    pub(super) protocol: u8,
}

/// The packet in a frame with `room` bytes behind its Ethernet header.
#[inline(always)]
pub(super) fn plain4(head: &[u8; HEAD4], room: usize, usual: Usual<'_>) -> Option<Plain<u32>> {
    /// Version and header length; what makes a fragment.
    const SHAPE: u64 = u64::from_le_bytes([0xff, 0, 0, 0, 0, 0, 0x3f, 0xff]);
    const USUAL_SHAPE: u64 = 0x45;
    // The fields before the words that they are in: read from a word, each would cost a shift.
    let len = usize::from(be16(head, 16));
    let protocol = head[23];
    let (source, destination) = (half(head, 26), half(head, 30));
    let ports = be32(head, 34);
    let (first, second) = (word(head, 14), word(head, 22));
    if first & SHAPE != USUAL_SHAPE {
        return None;
    }
    let upper_len = upper(protocol, ports, usual, || Some(head[46]))?;
    if len > room || len < 20 + upper_len {
        return None;
    }
    // The first word is below 2^56 by its shape, so only the second addition has a carry.
    let (sum, carry) = (first + u64::from(destination)).overflowing_add(second);
    is_all_ones(sum + u64::from(carry)).then_some(Plain {
        len,
        source,
        destination,
        ports,
        protocol,
    })
}

/// As [`plain4`]; `frame` begins with the Ethernet header.
#[inline(always)]
pub(super) fn plain6(frame: &[u8], room: usize, usual: Usual<'_>) -> Option<Plain<u128>> {
    let head = frame.first_chunk::<HEAD6>()?;
    if head[14] >> 4 != 6 {
        return None;
    }
    let len = 40 + usize::from(be16(head, 18));
    let ports = be32(head, 54);
    let protocol = head[20];
    let upper_len = upper(protocol, ports, usual, || frame.get(66).copied())?;
    let address = |at| u128::from(word(head, at + 8)) << 64 | u128::from(word(head, at));
    (len <= room && len >= 40 + upper_len).then(|| Plain {
        len,
        source: address(22),
        destination: address(38),
        ports,
        protocol,
    })
}

/// Bytes of an upper layer's header, if its ports are usual. `offset` reads the byte that holds
/// TCP's data offset.
#[inline(always)]
fn upper(
    protocol: u8,
    ports: u32,
    usual: Usual<'_>,
    offset: impl FnOnce() -> Option<u8>,
) -> Option<usize> {
    let ports = ((ports >> 16) as u16, ports as u16);
    match protocol {
        protocol::UDP => (!usual.special.has_any(ports)).then_some(8),
        protocol::TCP => {
            let words = usize::from(offset()? >> 4);
            let carries = usual.only_plain_tcp && encapsulation::is_tcp(ports);
            (words >= 5 && !carries).then_some(words * 4)
        }
        _ => None,
    }
}
