//! The transport header, and fragments.

use super::field::be16;
use crate::number::protocol;

/// Bytes that a reassembled packet may have.
pub(super) const MAX_PACKET_LEN: usize = 65_535;

/// A packet's place among its fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// No fragment.
    Whole,
    /// IPv6 only: a fragment header, but offset 0 and no more to follow (RFC 6946).
    Atomic,
    /// Offset 0 and more to follow: it has the transport header.
    First,
    /// Another offset: it has no transport header.
    Later,
}

/// The part of the transport header that decisions need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp {
        /// The source port.
        from: u16,
        /// The destination port.
        to: u16,
    },
    /// TCP.
    Tcp,
    /// ICMP in IPv4 and ICMPv6 in IPv6.
    Icmp {
        /// The type.
        kind: u8,
    },
    /// IGMP.
    Igmp {
        /// The type.
        kind: u8,
    },
    /// A protocol that is not parsed, or a fragment that has no transport header.
    Opaque,
}

/// The transport header, or `None` if it is cut off. `ICMP_LEN` is the length of the shortest ICMP
/// message, and 0 where this layer's ICMP has another protocol number.
#[inline(always)]
pub(super) fn parse<const ICMP_LEN: usize>(protocol: u8, payload: &[u8]) -> Option<Transport> {
    match protocol {
        protocol::UDP => {
            let head = payload.first_chunk::<8>()?;
            Some(Transport::Udp {
                from: be16(head, 0),
                to: be16(head, 2),
            })
        }
        protocol::TCP => {
            let head = payload.first_chunk::<20>()?;
            let words = usize::from(head[12] >> 4);
            (words >= 5 && words * 4 <= payload.len()).then_some(Transport::Tcp)
        }
        _ if ICMP_LEN > 0 => {
            let head = payload.get(..ICMP_LEN)?;
            Some(Transport::Icmp { kind: head[0] })
        }
        _ => Some(Transport::Opaque),
    }
}
