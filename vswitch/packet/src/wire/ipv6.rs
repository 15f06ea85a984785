//! IPv6 and its extension headers (RFC 8200).

use super::field::{be16, be32, be128};
use super::transport;
use super::transport::{Fragment, MAX_PACKET_LEN, Transport};
use crate::number::{has_no_address, is_binding, is_extension, is_upper_layer, option6, protocol};
use crate::reason::DropReason;

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

/// At most this many extension headers.
const MAX_EXTENSION_HEADERS: usize = 8;

/// An IPv6 packet whose header chain is sound.
#[derive(Debug, Clone, Copy)]
pub struct Ipv6 {
    /// The source address.
    pub source: u128,
    /// The destination address.
    pub destination: u128,
    /// The hop limit.
    pub hop_limit: u8,
    /// The upper layer; none (59) behind a fragment header with another offset than 0.
    pub upper: u8,
    /// The offset of the upper layer from the start of the IPv6 header.
    pub upper_at: u16,
    /// Bytes of the packet, with the IPv6 header.
    pub total_len: usize,
    /// Its place among its fragments.
    pub fragment: Fragment,
    /// The transport header.
    pub transport: Transport,
}

impl Ipv6 {
    /// UDP's ports: source, destination.
    #[inline(always)]
    pub fn udp(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Udp { from, to } => Some((from, to)),
            _ => None,
        }
    }

    /// The ICMPv6 type.
    #[inline(always)]
    pub fn icmp_type(&self) -> Option<u8> {
        match self.transport {
            Transport::Icmp { kind } => Some(kind),
            _ => None,
        }
    }

    /// The bytes of the upper layer.
    pub fn payload<'p>(&self, packet: &'p [u8]) -> &'p [u8] {
        packet
            .get(usize::from(self.upper_at)..self.total_len)
            .unwrap_or_default()
    }
}

/// Rows "IPv6 1 and 2". `bytes` begin with the IPv6 header and may end in padding.
#[inline(always)]
pub fn parse(bytes: &[u8]) -> Result<Ipv6, DropReason> {
    let head = bytes
        .first_chunk::<HEADER_LEN>()
        .ok_or(DropReason::Ipv6Malformed)?;
    let total_len = HEADER_LEN + usize::from(be16(head, 4));
    if head[0] >> 4 != 6 || total_len > bytes.len() {
        return Err(DropReason::Ipv6Malformed);
    }
    let packet = &bytes[..total_len];
    let chain = chain(head[6], packet)?;
    let transport = if chain.fragment == Fragment::Later {
        Transport::Opaque
    } else {
        let payload = &packet[chain.upper_at..];
        let transport = match chain.upper {
            protocol::ICMPV6 => transport::parse::<4>(chain.upper, payload),
            _ => transport::parse::<0>(chain.upper, payload),
        };
        transport.ok_or_else(|| chain.fragment.cut_off())?
    };
    Ok(Ipv6 {
        source: be128(head, 8),
        destination: be128(head, 24),
        hop_limit: head[7],
        upper: chain.upper,
        upper_at: chain.upper_at as u16,
        total_len,
        fragment: chain.fragment,
        transport,
    })
}

/// The traffic class of an IPv6 packet; 0 if it is cut off.
#[inline(always)]
pub fn traffic_class(packet: &[u8]) -> u8 {
    packet
        .first_chunk::<2>()
        .map_or(0, |head| (be16(head, 0) >> 4) as u8)
}

/// The flow label of an IPv6 packet; 0 if it is cut off.
#[inline(always)]
pub(super) fn flow_label(packet: &[u8]) -> u32 {
    packet
        .first_chunk::<4>()
        .map_or(0, |head| be32(head, 0) & 0x000f_ffff)
}

impl Fragment {
    /// The reason where an IPv6 header is cut off.
    fn cut_off(self) -> DropReason {
        match self {
            Self::First => DropReason::Ipv6Fragment,
            _ => DropReason::Ipv6Malformed,
        }
    }
}

/// The upper layer, its offset and the packet's place among its fragments, of a packet of which at
/// least the chain of headers is there.
pub(super) fn upper(packet: &[u8]) -> Option<(u8, usize, Fragment)> {
    let next = packet.first_chunk::<HEADER_LEN>()?[6];
    let chain = chain(next, packet).ok()?;
    Some((chain.upper, chain.upper_at, chain.fragment))
}

struct Chain {
    upper: u8,
    upper_at: usize,
    fragment: Fragment,
}

/// Walks the extension headers of `packet` (RFC 8200, section 4), of which `next` is the first.
#[inline(always)]
fn chain(mut next: u8, packet: &[u8]) -> Result<Chain, DropReason> {
    let mut at = HEADER_LEN;
    let mut fragment = Fragment::Whole;
    for header in 0..=MAX_EXTENSION_HEADERS {
        match next {
            // Twice the same result: the first is what almost every packet is.
            protocol::TCP | protocol::UDP | protocol::ICMPV6 => {
                return Ok(Chain {
                    upper: next,
                    upper_at: at,
                    fragment,
                });
            }
            upper if is_upper_layer(upper) => {
                return Ok(Chain {
                    upper,
                    upper_at: at,
                    fragment,
                });
            }
            protocol::HOP_BY_HOP if header != 0 => return Err(DropReason::Ipv6Chain),
            extension if is_extension(extension) => {}
            binding if is_binding(binding) => return Err(DropReason::SecondAddress),
            _ => return Err(DropReason::Ipv6Chain),
        }
        if header == MAX_EXTENSION_HEADERS {
            break;
        }
        if next == protocol::FRAGMENT && fragment != Fragment::Whole {
            return Err(DropReason::Ipv6Chain);
        }
        let head = packet[at..]
            .first_chunk::<8>()
            .ok_or_else(|| fragment.cut_off())?;
        let len = match next {
            protocol::FRAGMENT => 8,
            protocol::AUTHENTICATION => (usize::from(head[1]) + 2) * 4,
            _ => (usize::from(head[1]) + 1) * 8,
        };
        if packet.len() - at < len {
            return Err(fragment.cut_off());
        }
        match next {
            protocol::ROUTING if head[2] == 0 => return Err(DropReason::Ipv6Chain),
            // Segments left: the packet goes on from its destination.
            protocol::ROUTING if head[3] != 0 => return Err(DropReason::SecondAddress),
            protocol::HOP_BY_HOP | protocol::DESTINATION_OPTIONS => {
                options_without_address(&packet[at + 2..at + len])?;
            }
            protocol::FRAGMENT => {
                let field = be16(head, 2);
                if usize::from(field & !7) + (packet.len() - at - len) > MAX_PACKET_LEN {
                    return Err(DropReason::Ipv6Fragment);
                }
                fragment = match (field >> 3, field & 1) {
                    (0, 0) => Fragment::Atomic,
                    (0, _) => Fragment::First,
                    _ => {
                        let fragment = Fragment::Later;
                        return Ok(Chain {
                            upper: protocol::NONE,
                            upper_at: at + len,
                            fragment,
                        });
                    }
                };
            }
            _ => {}
        }
        next = head[0];
        at += len;
    }
    Err(DropReason::Ipv6Chain)
}

/// Walks the options of a header (RFC 8200, section 4.2), of which none may have an address.
fn options_without_address(mut options: &[u8]) -> Result<(), DropReason> {
    while let [kind, rest @ ..] = options {
        if !has_no_address(*kind) {
            return Err(DropReason::SecondAddress);
        }
        options = match *kind {
            option6::PAD1 => rest,
            _ => {
                let len = *rest.first().ok_or(DropReason::Ipv6Malformed)?;
                rest.get(1 + usize::from(len)..)
                    .ok_or(DropReason::Ipv6Malformed)?
            }
        };
    }
    Ok(())
}
