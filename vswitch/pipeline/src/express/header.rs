//! Headers without anything unusual.

use packet::refused::SpecialPorts;
use packet::wire::{ETHERNET_LEN, tcp};

use crate::tables::Tunnel;

/// The longest prefix of a frame that the fast path reads: Ethernet, IPv4, TCP's fixed part.
pub(super) const HEAD4: usize = ETHERNET_LEN + 40;
/// Ethernet, IPv6, UDP.
pub(super) const HEAD6: usize = ETHERNET_LEN + 48;

/// What only some carriers accept of a packet's upper layer.
pub(super) enum Upper {
    /// A datagram to that port.
    Udp(u16),
    /// A segment with those flags.
    Tcp(u8),
}

impl Upper {
    /// Whether the tunnel carries a packet with that upper layer unchanged.
    #[inline(always)]
    pub(super) fn passes(self, tunnel: &Tunnel) -> bool {
        match self {
            Self::Udp(to) => !tunnel.refuses(Some((0, to))),
            Self::Tcp(flags) => !tunnel.mss_clamp || flags & tcp::SYN == 0,
        }
    }
}

/// Passes UDP whose header is whole and whose ports mean nothing to the filter.
#[inline(always)]
pub(super) fn udp(
    total_len: usize,
    min_len: usize,
    ports: (u16, u16),
    special: &SpecialPorts,
) -> Option<()> {
    let ordinary = !special.has_any(ports);
    (ordinary & (total_len >= min_len)).then_some(())
}

/// Passes TCP whose header is whole.
#[inline(always)]
pub(super) fn tcp(total_len: usize, header_len: usize, offset: u8) -> Option<()> {
    let words = usize::from(offset >> 4);
    (words >= 5 && header_len + words * 4 <= total_len).then_some(())
}
