//! IPv4 (RFC 791).

use super::checksum::{self, ipv4_sum, is_all_ones};
use super::ethernet::ETHERNET_LEN;
use super::field::{be16, be32};
use super::transport;
use super::transport::{Fragment, MAX_PACKET_LEN, Transport};
use crate::addr;
use crate::number::{is_binding, protocol};
use crate::reason::DropReason;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// An IPv4 packet whose header is sound.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4 {
    /// The source address.
    pub source: u32,
    /// The destination address.
    pub destination: u32,
    /// The time to live.
    pub ttl: u8,
    /// The protocol that it carries.
    pub protocol: u8,
    /// Bytes of the header, with its options.
    pub header_len: u8,
    /// Bytes of the packet, with its header.
    pub total_len: u16,
    /// Its place among its fragments.
    pub fragment: Fragment,
    /// The transport header.
    pub transport: Transport,
}

impl Ipv4 {
    /// UDP's ports: source, destination.
    #[inline(always)]
    pub fn udp(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Udp { from, to } => Some((from, to)),
            _ => None,
        }
    }

    /// The ICMP type.
    #[inline(always)]
    pub fn icmp_type(&self) -> Option<u8> {
        match self.transport {
            Transport::Icmp { kind } => Some(kind),
            _ => None,
        }
    }

    /// The IGMP type.
    #[inline(always)]
    pub fn igmp_type(&self) -> Option<u8> {
        match self.transport {
            Transport::Igmp { kind } => Some(kind),
            _ => None,
        }
    }

    /// The bytes behind the IP header.
    pub fn payload<'p>(&self, packet: &'p [u8]) -> &'p [u8] {
        packet
            .get(usize::from(self.header_len)..usize::from(self.total_len))
            .unwrap_or_default()
    }

    /// The payload of UDP, by the IP length.
    pub fn udp_payload<'p>(&self, packet: &'p [u8]) -> &'p [u8] {
        self.payload(packet).get(8..).unwrap_or_default()
    }
}

/// Rows "IPv4 1 to 4". `bytes` begin with the IP header and may end in padding.
#[inline(always)]
pub fn parse(bytes: &[u8]) -> Result<Ipv4, DropReason> {
    use DropReason::Ipv4Malformed;
    let head = bytes.first_chunk::<HEADER_LEN>().ok_or(Ipv4Malformed)?;
    let header_len = usize::from(head[0] & 0x0f) * 4;
    let total_len = be16(head, 2);
    let whole = usize::from(total_len);
    if head[0] >> 4 != 4 || header_len < 20 || header_len > whole || whole > bytes.len() {
        return Err(Ipv4Malformed);
    }
    let (header, payload) = bytes[..whole].split_at(header_len);
    if !checksum_holds(head, &header[20..]) {
        return Err(Ipv4Malformed);
    }
    let source_route = if header.len() > 20 {
        has_source_route(&header[20..])?
    } else {
        false
    };
    let (source, destination) = (be32(head, 12), be32(head, 16));
    if addr::is_martian_source4(source) || addr::is_martian_destination4(destination) {
        return Err(DropReason::Ipv4Martian);
    }
    if source_route {
        return Err(DropReason::Ipv4SourceRoute);
    }
    let protocol = head[9];
    if is_binding(protocol) {
        return Err(DropReason::SecondAddress);
    }
    let flags = be16(head, 6);
    let (offset, more) = (flags & 0x1fff, flags & 0x2000 != 0);
    let (fragment, transport) = if offset == 0 {
        let transport = match protocol {
            protocol::ICMP => transport::parse::<8>(protocol, payload),
            protocol::IGMP => payload
                .first_chunk::<8>()
                .map(|head| Transport::Igmp { kind: head[0] }),
            _ => transport::parse::<0>(protocol, payload),
        };
        match (transport, more) {
            (Some(transport), true) => (Fragment::First, transport),
            (Some(transport), false) => (Fragment::Whole, transport),
            (None, true) => return Err(DropReason::Ipv4Fragment),
            (None, false) => return Err(Ipv4Malformed),
        }
    } else if (protocol == protocol::TCP && offset == 1)
        || usize::from(offset) * 8 + payload.len() > MAX_PACKET_LEN
    {
        return Err(DropReason::Ipv4Fragment);
    } else {
        (Fragment::Later, Transport::Opaque)
    };
    Ok(Ipv4 {
        source,
        destination,
        ttl: head[8],
        protocol,
        header_len: header_len as u8,
        total_len,
        fragment,
        transport,
    })
}

/// The one's complement sum over the header is all ones (RFC 1071).
#[inline(always)]
fn checksum_holds(head: &[u8; HEADER_LEN], options: &[u8]) -> bool {
    let options = match options {
        [] => 0,
        options => checksum::sum(options),
    };
    is_all_ones(ipv4_sum(head) + options)
}

/// Whether the checksum of a header without options is right.
#[inline(always)]
pub fn plain_checksum_holds(head: &[u8; HEADER_LEN]) -> bool {
    is_all_ones(ipv4_sum(head))
}

/// The checksum of a header without options whose checksum field is zero, in memory's byte order.
pub fn plain_checksum(head: &[u8; HEADER_LEN]) -> u16 {
    !checksum::folded(ipv4_sum(head))
}

/// Decrements the TTL of the IPv4 packet in an Ethernet frame, and corrects the header checksum
/// (RFC 1624, equation 3).
#[inline(always)]
pub fn decrement_ttl(frame: &mut [u8], ttl: u8) {
    const TTL_AT: usize = ETHERNET_LEN + 8;
    const CHECKSUM_AT: usize = ETHERNET_LEN + 10;
    /// The complement of the word that holds the TTL, plus the word with one less: whatever it is.
    const CHANGE: u32 = 0xffff - 0x0100;
    let Some(head) = frame.first_chunk_mut::<{ ETHERNET_LEN + HEADER_LEN }>() else {
        return;
    };
    head[TTL_AT] = ttl.wrapping_sub(1);
    let sum = u32::from(!be16(head, CHECKSUM_AT)) + CHANGE;
    let sum = (sum & 0xffff) + (sum >> 16);
    head[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Walks the options; true if one is a source route.
fn has_source_route(mut options: &[u8]) -> Result<bool, DropReason> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    let mut source_route = false;
    while let [kind, rest @ ..] = options {
        options = match *kind {
            END => break,
            NO_OPERATION => rest,
            kind => {
                let len = usize::from(*rest.first().ok_or(DropReason::Ipv4Malformed)?);
                if len < 2 {
                    return Err(DropReason::Ipv4Malformed);
                }
                source_route |= matches!(kind, LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE);
                options.get(len..).ok_or(DropReason::Ipv4Malformed)?
            }
        };
    }
    Ok(source_route)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The correction is that of [`checksum::adjust`] for the whole word, and the checksum holds.
    #[test]
    fn decremented_ttl_keeps_the_checksum() {
        for ttl in 1..=u8::MAX {
            for identification in [0, 1, 0x7fff, 0xfffe, u16::MAX] {
                for low in 0..=u8::MAX {
                    let mut frame = [0; ETHERNET_LEN + HEADER_LEN];
                    frame[14] = 0x45;
                    frame[18..20].copy_from_slice(&identification.to_be_bytes());
                    (frame[22], frame[23], frame[33]) = (ttl, protocol::UDP, low);
                    let head = frame[ETHERNET_LEN..].first_chunk().expect("a header");
                    let sum = plain_checksum(head).to_ne_bytes();
                    frame[24..26].copy_from_slice(&sum);
                    let mut adjusted = frame;
                    let old = be16(&frame, 22);
                    adjusted[22] = ttl - 1;
                    checksum::adjust(&mut adjusted, 24, old, old - 0x0100);
                    decrement_ttl(&mut frame, ttl);
                    assert_eq!(frame, adjusted);
                    let head = frame[ETHERNET_LEN..].first_chunk().expect("a header");
                    assert!(plain_checksum_holds(head));
                }
            }
        }
    }
}
