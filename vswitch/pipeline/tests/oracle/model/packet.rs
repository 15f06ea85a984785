//! An IP packet as the rows of both families see it.

use super::*;

pub(super) const ICMP: u8 = 1;
pub(super) const IGMP: u8 = 2;
pub(super) const AH: u8 = 51;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fragment {
    /// No fragment at all; for IPv6, without a fragment header.
    No,
    /// Offset 0.
    First,
    /// Any other offset.
    Later,
}

/// An IPv4 or IPv6 packet that has passed the rows about its shape.
pub(super) struct Packet<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) hop_limit: u8,
    pub(super) fragment: Fragment,
    /// The upper layer; unknown behind an IPv6 fragment header with an offset.
    pub(super) upper: Option<u8>,
    /// The bytes behind the headers of the IP layer.
    pub(super) payload: &'a [u8],
    /// The packet without the frame's padding.
    pub(super) whole: &'a [u8],
}

impl Packet<'_> {
    /// The protocol whose header begins the payload.
    pub(super) fn transport(&self) -> Option<u8> {
        self.upper.filter(|_| self.fragment != Fragment::Later)
    }

    /// UDP's source and destination port; `None` if this packet has no UDP header.
    pub(super) fn udp_ports(&self) -> Option<(u16, u16)> {
        (self.transport() == Some(UDP)).then(|| (be16(self.payload, 0), be16(self.payload, 2)))
    }

    pub(super) fn icmpv6_type(&self) -> Option<u8> {
        (self.source.is_ipv6() && self.transport() == Some(ICMPV6)).then(|| self.payload[0])
    }

    pub(super) fn icmpv4_type(&self) -> Option<u8> {
        (self.source.is_ipv4() && self.transport() == Some(ICMP)).then(|| self.payload[0])
    }

    pub(super) fn igmp_type(&self) -> Option<u8> {
        (self.source.is_ipv4() && self.transport() == Some(IGMP)).then(|| self.payload[0])
    }

    /// Route 2: "an ICMP echo request that is no fragment and whose checksum is right".
    pub(super) fn is_echo_request(&self) -> bool {
        let right = || match self.source {
            IpAddr::V4(_) => ones_complement_sum(self.payload) == 0xffff,
            IpAddr::V6(_) => icmpv6_sum(self) == 0xffff,
        };
        self.fragment == Fragment::No
            && (self.icmpv4_type() == Some(8) || self.icmpv6_type() == Some(128))
            && right()
    }

    /// RFC 1122 3.2.2 and RFC 4443 2.1 name the error messages.
    pub(super) fn is_icmp_error(&self) -> bool {
        self.icmpv4_type()
            .is_some_and(|icmp_type| [3, 4, 5, 11, 12].contains(&icmp_type))
            || self.icmpv6_type().is_some_and(|icmp_type| icmp_type < 128)
    }
}

/// Whether TCP's header, with its options, lies within `segment`.
pub(super) fn tcp_is_whole(segment: &[u8]) -> bool {
    segment.len() >= 20 && {
        let words = usize::from(segment[12] >> 4);
        words >= 5 && words * 4 <= segment.len()
    }
}
