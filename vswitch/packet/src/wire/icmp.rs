//! ICMP and ICMPv6: echo, and errors about a packet (RFC 792, RFC 4443).

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
};

use super::ethernet::ETHERNET_LEN;
use super::field::{be16, be32, mac_at};
use super::ipv4::Ipv4;
use super::ipv6::Ipv6;
use super::transport::Fragment;
use super::{checksum, ethernet, ipv4, ipv6};
use crate::frame::Frame;
use crate::number::{ethertype, icmp, icmpv6};

/// TTL and hop limit of the gateway's own packets.
pub(super) const HOPS: u8 = 64;

const ICMP_HEADER_LEN: usize = 8;
/// RFC 1812, section 4.3.2.3: as much of the packet as fits in 576 bytes.
const MAX_ERROR4_LEN: usize = 576;
/// RFC 4443, section 2.4: as much as fits in the smallest IPv6 MTU.
const MAX_ERROR6_LEN: usize = 1280;

/// Whether the packet is an echo request that may be answered in place: whole, and its checksum is
/// right. `packet` begins with the IP header.
pub fn is_echo_request4(ip: &Ipv4, packet: &[u8]) -> bool {
    ip.fragment == Fragment::Whole
        && ip.icmp_type() == Some(icmp::ECHO_REQUEST)
        && checksum::holds(ip.payload(packet))
}

/// As [`is_echo_request4`].
pub fn is_echo_request6(ip: &Ipv6, packet: &[u8]) -> bool {
    let (source, destination) = (ip.source.into(), ip.destination.into());
    ip.fragment == Fragment::Whole
        && ip.icmp_type() == Some(icmpv6::ECHO_REQUEST)
        && Icmpv6Packet::new_unchecked(ip.payload(packet)).verify_checksum(&source, &destination)
}

/// Turns an echo request into its reply, without the request's options.
pub fn echo_reply4(frame: &mut Frame<'_>, own_mac: [u8; 6], ip: &Ipv4) -> Option<()> {
    frame.truncate(ETHERNET_LEN + usize::from(ip.total_len));
    let header_len = usize::from(ip.header_len);
    let to = remove_behind_header::<{ ipv4::HEADER_LEN }>(frame, header_len)?;
    let bytes = frame.bytes_mut();
    ethernet::write(bytes, to, own_mac, ethertype::IPV4);
    let (header, message) = bytes[ETHERNET_LEN..].split_at_mut(ipv4::HEADER_LEN);
    let total_len = (ipv4::HEADER_LEN + message.len()) as u16;
    let mut header = Ipv4Packet::new_unchecked(header);
    header.set_header_len(ipv4::HEADER_LEN as u8);
    header.set_total_len(total_len);
    header.set_src_addr(ip.destination.into());
    header.set_dst_addr(ip.source.into());
    header.set_hop_limit(HOPS);
    header.fill_checksum();
    message[0] = icmp::ECHO_REPLY;
    let words = [icmp::ECHO_REQUEST, icmp::ECHO_REPLY].map(type_word);
    checksum::adjust(message, 2, words[0], words[1]);
    Some(())
}

/// Turns an echo request into its reply, without the request's extension headers.
pub fn echo_reply6(frame: &mut Frame<'_>, own_mac: [u8; 6], ip: &Ipv6) -> Option<()> {
    frame.truncate(ETHERNET_LEN + ip.total_len);
    let upper_at = usize::from(ip.upper_at);
    let to = remove_behind_header::<{ ipv6::HEADER_LEN }>(frame, upper_at)?;
    let bytes = frame.bytes_mut();
    ethernet::write(bytes, to, own_mac, ethertype::IPV6);
    let (header, message) = bytes[ETHERNET_LEN..].split_at_mut(ipv6::HEADER_LEN);
    let mut header = Ipv6Packet::new_unchecked(header);
    header.set_next_header(IpProtocol::Icmpv6);
    header.set_payload_len(message.len() as u16);
    header.set_src_addr(ip.destination.into());
    header.set_dst_addr(ip.source.into());
    header.set_hop_limit(HOPS);
    message[0] = icmpv6::ECHO_REPLY;
    let words = [icmpv6::ECHO_REQUEST, icmpv6::ECHO_REPLY].map(type_word);
    checksum::adjust(message, 2, words[0], words[1]);
    Some(())
}

/// Removes what lies between the first `HEADER` bytes of the IP header and `upper_at`: options or
/// extension headers. Returns the source MAC; the Ethernet header is to be written anew.
fn remove_behind_header<const HEADER: usize>(
    frame: &mut Frame<'_>,
    upper_at: usize,
) -> Option<[u8; 6]> {
    let source = mac_at(frame.bytes(), 6);
    let header: [u8; HEADER] = *frame.bytes().get(ETHERNET_LEN..)?.first_chunk()?;
    frame.shrink_front(upper_at.checked_sub(HEADER)?);
    let place = frame.bytes_mut().get_mut(ETHERNET_LEN..)?;
    *place.first_chunk_mut()? = header;
    Some(source)
}

/// The first 16 bits of a message of that type and code 0.
fn type_word(kind: u8) -> u16 {
    u16::from(kind) << 8
}

/// The error that a sender receives about its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpError {
    /// No route to the destination.
    NoRoute,
    /// No station has the destination address.
    HostUnreachable,
    /// No service listens on the destination port.
    PortUnreachable,
    /// The configuration forbids such packets.
    Prohibited,
    /// The TTL or hop limit is spent.
    TimeExceeded,
    /// The packet is larger than the next link's MTU.
    TooBig {
        /// That MTU, in bytes.
        mtu: u16,
    },
}

impl IcmpError {
    /// Type, code and the second word (RFC 792, RFC 1191, RFC 1812).
    fn ipv4(self) -> (u8, u8, u32) {
        match self {
            Self::NoRoute => (icmp::UNREACHABLE, 0, 0),
            Self::HostUnreachable => (icmp::UNREACHABLE, 1, 0),
            Self::PortUnreachable => (icmp::UNREACHABLE, 3, 0),
            Self::Prohibited => (icmp::UNREACHABLE, 13, 0),
            Self::TimeExceeded => (icmp::TIME_EXCEEDED, 0, 0),
            Self::TooBig { mtu } => (icmp::UNREACHABLE, FRAGMENTATION_NEEDED, u32::from(mtu)),
        }
    }

    /// Type, code and the second word (RFC 4443).
    fn ipv6(self) -> (u8, u8, u32) {
        match self {
            Self::NoRoute => (icmpv6::UNREACHABLE, 0, 0),
            Self::HostUnreachable => (icmpv6::UNREACHABLE, 3, 0),
            Self::PortUnreachable => (icmpv6::UNREACHABLE, 4, 0),
            Self::Prohibited => (icmpv6::UNREACHABLE, 1, 0),
            Self::TimeExceeded => (icmpv6::TIME_EXCEEDED, 0, 0),
            Self::TooBig { mtu } => (icmpv6::PACKET_TOO_BIG, 0, u32::from(mtu)),
        }
    }
}

/// The code of [`icmp::UNREACHABLE`] that reports a smaller MTU (RFC 1191).
pub const FRAGMENTATION_NEEDED: u8 = 4;

/// A router's report that a packet is larger than what its next link carries.
#[derive(Debug, Clone, Copy)]
pub struct TooBig<'p> {
    /// What that link carries, in bytes.
    pub mtu: u32,
    /// The beginning of the packet, from its IP header on.
    pub quote: &'p [u8],
}

/// Why a packet is no [`TooBig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTooBig {
    /// It says something else.
    Other,
    /// It is a fragment, cut off, or has a wrong checksum.
    Malformed,
}

/// The report in an ICMP packet. `packet` begins with the IP header.
pub fn too_big4<'p>(ip: &Ipv4, packet: &'p [u8]) -> Result<TooBig<'p>, NotTooBig> {
    let message = ip.payload(packet);
    let code = message.get(1).copied();
    if ip.icmp_type() != Some(icmp::UNREACHABLE) || code != Some(FRAGMENTATION_NEEDED) {
        return Err(NotTooBig::Other);
    }
    match message.split_at_checked(ICMP_HEADER_LEN) {
        Some((head, quote)) if ip.fragment == Fragment::Whole && checksum::holds(message) => {
            let mtu = u32::from(be16(head, 6));
            Ok(TooBig { mtu, quote })
        }
        _ => Err(NotTooBig::Malformed),
    }
}

/// As [`too_big4`]. RFC 4443, section 3.2: the receiver ignores the code.
pub fn too_big6<'p>(ip: &Ipv6, packet: &'p [u8]) -> Result<TooBig<'p>, NotTooBig> {
    if ip.icmp_type() != Some(icmpv6::PACKET_TOO_BIG) {
        return Err(NotTooBig::Other);
    }
    let message = ip.payload(packet);
    let holds = || {
        Icmpv6Packet::new_unchecked(message)
            .verify_checksum(&ip.source.into(), &ip.destination.into())
    };
    match message.split_at_checked(ICMP_HEADER_LEN) {
        Some((head, quote)) if ip.fragment == Fragment::Whole && holds() => {
            let mtu = be32(head, 4);
            Ok(TooBig { mtu, quote })
        }
        _ => Err(NotTooBig::Malformed),
    }
}

/// Whether an error may be sent about the packet (RFC 1122, section 3.2.2).
pub fn may_be_reported4(ip: &Ipv4) -> bool {
    ip.fragment != Fragment::Later && !ip.icmp_type().is_some_and(icmp::is_error)
}

/// Whether an error may be sent about the packet (RFC 4443, section 2.4).
pub fn may_be_reported6(ip: &Ipv6) -> bool {
    ip.fragment != Fragment::Later && !ip.icmp_type().is_some_and(icmpv6::is_error)
}

/// Turns a packet into the ICMP error about it, from the gateway's MAC and IPv4 address. `None` if
/// it does not fit.
pub fn error4(
    frame: &mut Frame<'_>,
    gateway: ([u8; 6], u32),
    ip: &Ipv4,
    error: IcmpError,
) -> Option<()> {
    const HEADERS: usize = ipv4::HEADER_LEN + ICMP_HEADER_LEN;
    let to = mac_at(frame.bytes(), 6);
    let quoted = usize::from(ip.total_len).min(MAX_ERROR4_LEN - HEADERS);
    frame.truncate(ETHERNET_LEN + quoted);
    frame.grow_front(HEADERS)?;
    let bytes = frame.bytes_mut();
    ethernet::write(bytes, to, gateway.0, ethertype::IPV4);
    let (header, message) = bytes[ETHERNET_LEN..].split_at_mut(ipv4::HEADER_LEN);
    Ipv4Repr {
        src_addr: gateway.1.into(),
        dst_addr: ip.source.into(),
        next_header: IpProtocol::Icmp,
        payload_len: ICMP_HEADER_LEN + quoted,
        hop_limit: HOPS,
    }
    .emit(
        &mut Ipv4Packet::new_unchecked(header),
        &ChecksumCapabilities::default(),
    );
    write_header(message, error.ipv4());
    Icmpv4Packet::new_unchecked(message).fill_checksum();
    Some(())
}

/// Turns a packet into the ICMPv6 error about it, from the gateway's MAC and IPv6 address. `None`
/// if it does not fit.
pub fn error6(
    frame: &mut Frame<'_>,
    gateway: ([u8; 6], u128),
    ip: &Ipv6,
    error: IcmpError,
) -> Option<()> {
    const HEADERS: usize = ipv6::HEADER_LEN + ICMP_HEADER_LEN;
    let to = mac_at(frame.bytes(), 6);
    let quoted = ip.total_len.min(MAX_ERROR6_LEN - HEADERS);
    frame.truncate(ETHERNET_LEN + quoted);
    frame.grow_front(HEADERS)?;
    let bytes = frame.bytes_mut();
    ethernet::write(bytes, to, gateway.0, ethertype::IPV6);
    let (header, message) = bytes[ETHERNET_LEN..].split_at_mut(ipv6::HEADER_LEN);
    let (from, to) = (gateway.1.into(), ip.source.into());
    Ipv6Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len: ICMP_HEADER_LEN + quoted,
        hop_limit: HOPS,
    }
    .emit(&mut Ipv6Packet::new_unchecked(header));
    write_header(message, error.ipv6());
    Icmpv6Packet::new_unchecked(message).fill_checksum(&from, &to);
    Some(())
}

fn write_header(message: &mut [u8], (kind, code, word): (u8, u8, u32)) {
    message[..4].copy_from_slice(&[kind, code, 0, 0]);
    message[4..8].copy_from_slice(&word.to_be_bytes());
}
