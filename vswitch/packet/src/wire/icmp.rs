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

/// A report about a packet that its sender could not deliver, or could not forward.
#[derive(Debug, Clone, Copy)]
pub struct Report<'p> {
    /// What it says.
    pub said: Said,
    /// The beginning of the packet, from its IP header on. `None` if the report is a fragment, cut
    /// off, or has a wrong checksum.
    pub quote: Option<&'p [u8]>,
}

/// What a report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The packet is larger than what the router's next link carries.
    TooBig {
        /// What that link carries, in bytes; 0 if the report is cut off.
        mtu: u32,
    },
    /// The packet does not get there.
    Unreachable(Unreachable),
}

/// Why a packet does not get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// A router has no route.
    Network,
    /// The last router finds no station with that address.
    Host,
    /// The host does not speak the protocol.
    Protocol,
    /// Nobody listens on the port.
    Port,
    /// A filter forbids it.
    Prohibited,
}

impl Unreachable {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::Network,
        Self::Host,
        Self::Protocol,
        Self::Port,
        Self::Prohibited,
    ];

    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Host => "host",
            Self::Protocol => "protocol",
            Self::Port => "port",
            Self::Prohibited => "prohibited",
        }
    }

    /// By the code of ICMP type 3 (RFC 792, RFC 1812).
    const fn of4(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Network),
            1 => Some(Self::Host),
            2 => Some(Self::Protocol),
            3 => Some(Self::Port),
            9 | 10 | 13 => Some(Self::Prohibited),
            _ => None,
        }
    }

    /// By the code of ICMPv6 type 1 (RFC 4443, section 3.1).
    const fn of6(code: u8) -> Option<Self> {
        match code {
            // No route, and a source that may not leave its zone.
            0 | 2 => Some(Self::Network),
            // A filter, a source that a filter refuses, and a route that rejects.
            1 | 5 | 6 => Some(Self::Prohibited),
            3 => Some(Self::Host),
            4 => Some(Self::Port),
            _ => None,
        }
    }
}

/// The report in an ICMP packet, if it is one. `packet` begins with the IP header.
pub fn report4<'p>(ip: &Ipv4, packet: &'p [u8]) -> Option<Report<'p>> {
    let message = ip.payload(packet);
    let code = *message.get(1)?;
    if ip.icmp_type() != Some(icmp::UNREACHABLE) {
        return None;
    }
    let split = message.split_at_checked(ICMP_HEADER_LEN);
    let said = match code {
        FRAGMENTATION_NEEDED => Said::TooBig {
            mtu: split.map_or(0, |(head, _)| be16(head, 6).into()),
        },
        code => Said::Unreachable(Unreachable::of4(code)?),
    };
    let quote = split.map(|(_, quote)| quote);
    let quote = quote.filter(|_| ip.fragment == Fragment::Whole && checksum::holds(message));
    Some(Report { said, quote })
}

/// As [`report4`]. RFC 4443, section 3.2: of a packet that is too big, the receiver ignores the
/// code.
pub fn report6<'p>(ip: &Ipv6, packet: &'p [u8]) -> Option<Report<'p>> {
    let message = ip.payload(packet);
    let split = message.split_at_checked(ICMP_HEADER_LEN);
    let said = match ip.icmp_type()? {
        icmpv6::PACKET_TOO_BIG => Said::TooBig {
            mtu: split.map_or(0, |(head, _)| be32(head, 4)),
        },
        icmpv6::UNREACHABLE => Said::Unreachable(Unreachable::of6(*message.get(1)?)?),
        _ => return None,
    };
    let holds = || {
        Icmpv6Packet::new_unchecked(message)
            .verify_checksum(&ip.source.into(), &ip.destination.into())
    };
    let quote = split.map(|(_, quote)| quote);
    let quote = quote.filter(|_| ip.fragment == Fragment::Whole && holds());
    Some(Report { said, quote })
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
