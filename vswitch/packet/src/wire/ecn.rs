//! Explicit Congestion Notification (RFC 3168), and how a tunnel combines two of its fields.

use super::field::be16;
use super::{checksum, ipv6};

/// The two bits of Explicit Congestion Notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ecn(u8);

impl Ecn {
    /// The field's bits in a type-of-service or traffic-class byte.
    pub const MASK: u8 = 3;
    const NOT_CAPABLE: Self = Self(0);
    const CAPABLE_1: Self = Self(1);
    const CAPABLE_0: Self = Self(2);
    const CONGESTED: Self = Self(3);

    /// The field of a type-of-service or traffic-class byte.
    #[inline(always)]
    pub const fn of_class(class: u8) -> Self {
        Self(class & Self::MASK)
    }

    /// The field of an IP packet's header.
    #[inline(always)]
    pub fn of(packet: &[u8]) -> Self {
        match packet.first_chunk::<2>() {
            Some([first, tos]) if first >> 4 == 4 => Self::of_class(*tos),
            _ => Self::of_class(ipv6::traffic_class(packet)),
        }
    }

    /// The field with which the inner packet leaves the tunnel (RFC 6040, section 4.2, figure 4);
    /// `None` if the packet must be dropped.
    #[inline(always)]
    pub const fn within(inner: Self, outer: Self) -> Option<Self> {
        match (inner, outer) {
            (Self::NOT_CAPABLE, Self::CONGESTED) => None,
            (Self::NOT_CAPABLE, _) => Some(inner),
            (_, Self::CONGESTED) => Some(outer),
            (Self::CAPABLE_0, Self::CAPABLE_1) => Some(outer),
            _ => Some(inner),
        }
    }

    /// Writes the field into an IP packet's header.
    pub fn write(self, packet: &mut [u8]) {
        let Some(head) = packet.first_chunk_mut::<2>() else {
            return;
        };
        if head[0] >> 4 == 4 {
            let old = be16(head, 0);
            head[1] = head[1] & !Self::MASK | self.0;
            let new = be16(head, 0);
            if packet.len() >= 20 {
                checksum::adjust(packet, 10, old, new);
            }
        } else {
            head[1] = head[1] & !(Self::MASK << 4) | self.0 << 4;
        }
    }
}
