//! Where things lie in a packet of ESP (RFC 4303), bare or in UDP (RFC 3948). No cryptography: the
//! ESP packet is a piece of the frame that somebody else seals and opens.

use std::ops::Range;

use super::checksum;
use super::ethernet::ETHERNET_LEN;
use super::field::be16;
use super::tunnel::{UDP_LEN, udp_sum};
use super::{ipv4, ipv6};
use crate::frame::Frame;
use crate::number::{ethertype, protocol};

/// How a packet is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carriage {
    /// The whole IP packet is carried, and not only what is behind its header.
    pub whole: bool,
    /// The source and destination port of ESP in UDP.
    pub udp: Option<(u16, u16)>,
}

/// The bytes of an IP header without options or extension headers, by its first byte.
fn header_len(packet: &[u8]) -> usize {
    match packet.first() {
        Some(first) if first >> 4 == 4 => ipv4::HEADER_LEN,
        _ => ipv6::HEADER_LEN,
    }
}

impl Carriage {
    /// The bytes that ESP carries of a frame whose packet has a plain IP header.
    #[inline]
    pub fn payload_len(&self, frame: &[u8]) -> usize {
        let packet = frame.get(ETHERNET_LEN..).unwrap_or_default();
        match self.whole {
            true => packet.len(),
            false => packet.len().saturating_sub(header_len(packet)),
        }
    }

    /// The protocol that ESP carries.
    #[inline]
    pub fn next_header(&self, frame: &[u8]) -> u8 {
        match (self.whole, frame.get(ETHERNET_LEN)) {
            (false, _) => protocol::UDP,
            (true, Some(first)) if first >> 4 == 4 => protocol::IPV4,
            (true, _) => protocol::IPV6,
        }
    }

    /// Makes room for an ESP packet of `sealed` bytes, whose payload has `head` bytes in front of
    /// it, and writes the headers outside. Returns its place in the frame. The frame is unchanged
    /// where there is no room: `None`.
    #[inline]
    pub fn wrap(&self, frame: &mut Frame<'_>, head: usize, sealed: usize) -> Option<Range<usize>> {
        let ip_len = header_len(frame.bytes().get(ETHERNET_LEN..)?);
        let moved = ETHERNET_LEN + ip_len;
        let udp_len = if self.udp.is_some() { UDP_LEN } else { 0 };
        let kept = if self.whole { ip_len } else { 0 };
        let grown = udp_len + head + kept;
        let (before, len) = (frame.len(), moved + udp_len + sealed);
        frame.make_front(grown)?;
        if frame.resize(len).is_none() {
            frame.shrink_front(grown);
            frame.truncate(before);
            return None;
        }
        let bytes = frame.bytes_mut();
        bytes.copy_within(grown..grown + moved, 0);
        let upper = match self.udp {
            Some(_) => protocol::UDP,
            None => protocol::ESP,
        };
        set_upper(&mut bytes[ETHERNET_LEN..], upper, udp_len + sealed);
        if let Some((from, to)) = self.udp {
            let udp = &mut bytes[moved..moved + UDP_LEN];
            udp[..2].copy_from_slice(&from.to_be_bytes());
            udp[2..4].copy_from_slice(&to.to_be_bytes());
            udp[4..6].copy_from_slice(&((UDP_LEN + sealed) as u16).to_be_bytes());
            udp[6..8].fill(0);
        }
        Some(moved + udp_len..len)
    }

    /// Completes a packet whose ESP is sealed. In IPv6 UDP has a checksum; in IPv4 none (RFC 3948,
    /// section 2.1).
    #[inline]
    pub fn finish(&self, frame: &mut Frame<'_>) {
        let packet = frame
            .bytes_mut()
            .get_mut(ETHERNET_LEN..)
            .unwrap_or_default();
        if self.udp.is_some() && packet.first().is_some_and(|first| first >> 4 == 6) {
            write_udp_checksum(packet, ipv6::HEADER_LEN);
        }
    }
}

/// Writes the upper layer and its length into an IP header without options.
fn set_upper(packet: &mut [u8], upper: u8, len: usize) {
    if packet.first().is_some_and(|first| first >> 4 == 4) {
        let header = usize::from(packet[0] & 0x0f) * 4;
        replace(packet, 2, (header + len) as u16);
        let ttl = packet[8];
        replace(packet, 8, u16::from_be_bytes([ttl, upper]));
    } else {
        packet[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        packet[6] = upper;
    }
}

/// Replaces a word of an IPv4 header.
fn replace(header: &mut [u8], at: usize, new: u16) {
    let old = be16(header, at);
    header[at..at + 2].copy_from_slice(&new.to_be_bytes());
    checksum::adjust(header, 10, old, new);
}

fn write_udp_checksum(packet: &mut [u8], udp_at: usize) {
    packet[udp_at + 6..udp_at + 8].fill(0);
    let sum = !checksum::folded(udp_sum(packet, udp_at));
    let sum = if sum == 0 { u16::MAX } else { sum };
    packet[udp_at + 6..udp_at + 8].copy_from_slice(&sum.to_ne_bytes());
}

/// Removes what is between the IP header, which ends at `upper_at` of the packet, and the payload
/// of ESP: `payload` is its place in the frame, of UDP. So it is the packet that was sealed in
/// transport mode.
#[inline]
pub fn unwrap_transport(frame: &mut Frame<'_>, upper_at: usize, payload: Range<usize>) {
    let head = ETHERNET_LEN + upper_at;
    let Some(cut) = payload.start.checked_sub(head) else {
        return;
    };
    frame.truncate(payload.end);
    frame.bytes_mut().copy_within(..head, cut);
    frame.shrink_front(cut);
    let len = frame.len() - head;
    set_upper(&mut frame.bytes_mut()[ETHERNET_LEN..], protocol::UDP, len);
}

/// The same of an IP packet of the same family that was sealed in tunnel mode.
#[inline]
pub fn unwrap_tunnel(frame: &mut Frame<'_>, payload: Range<usize>) {
    let Some(cut) = payload.start.checked_sub(ETHERNET_LEN) else {
        return;
    };
    frame.truncate(payload.end);
    frame.bytes_mut().copy_within(..ETHERNET_LEN, cut);
    frame.shrink_front(cut);
}

/// Makes the checksum of a UDP datagram right whose packet passed address translation (RFC 3948,
/// section 3.1.2): in IPv4 there is none, in IPv6 it is written.
#[inline]
pub fn renew_udp_checksum(frame: &mut Frame<'_>, upper_at: usize) {
    let packet = frame
        .bytes_mut()
        .get_mut(ETHERNET_LEN..)
        .unwrap_or_default();
    if packet.len() < upper_at + UDP_LEN {
        return;
    }
    match packet[0] >> 4 {
        4 => packet[upper_at + 6..upper_at + 8].fill(0),
        _ => {
            // It covers the datagram, and not what may lie behind it in the packet.
            let len = usize::from(be16(packet, upper_at + 4));
            let datagram = packet.get_mut(..upper_at + len);
            if let Some(datagram) = datagram.filter(|_| len >= UDP_LEN) {
                write_udp_checksum(datagram, upper_at);
            }
        }
    }
}

/// The payload of UDP at port 4500 (RFC 3948, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// IKE, behind four zero bytes.
    Ike,
    /// One byte 0xff: it keeps the address translation alive.
    Keepalive,
    /// ESP.
    Esp,
    /// Too short for any of them.
    Nothing,
}

impl Marked {
    /// Bytes in front of IKE.
    pub const MARKER_LEN: usize = 4;

    /// What a datagram's payload is.
    #[inline]
    pub fn of(payload: &[u8]) -> Self {
        match payload {
            [0xff] => Self::Keepalive,
            [0, 0, 0, 0, _, ..] => Self::Ike,
            [0, 0, 0, 0] | [] | [_] | [_, _] | [_, _, _] => Self::Nothing,
            _ => Self::Esp,
        }
    }
}

/// The payload of the UDP datagram at `udp_at` of a packet, if its length and checksum are sound; a
/// checksum of 0 is none, which IPv6 does not allow.
pub fn sound_datagram(packet: &[u8], udp_at: usize) -> Option<&[u8]> {
    let udp = packet.get(udp_at..)?;
    let head = udp.first_chunk::<UDP_LEN>()?;
    let len = usize::from(be16(head, 4));
    let datagram = udp.get(..len)?;
    let whole = packet.get(..udp_at + len)?;
    let is_absent = be16(head, 6) == 0 && packet.first()? >> 4 == 4;
    let holds =
        is_absent || (be16(head, 6) != 0 && checksum::folded(udp_sum(whole, udp_at)) == u16::MAX);
    datagram.get(UDP_LEN..).filter(|_| holds)
}

/// Writes an IP packet with a UDP datagram that carries `payload`, behind the room for an Ethernet
/// header. Returns the length of the frame; `None` if it does not fit or the families differ.
pub fn write_datagram(
    frame: &mut [u8],
    (from, to): (std::net::SocketAddr, std::net::SocketAddr),
    marker: bool,
    payload: &[u8],
) -> Option<usize> {
    use std::net::IpAddr;
    let marker_len = if marker { Marked::MARKER_LEN } else { 0 };
    let udp_len = UDP_LEN + marker_len + payload.len();
    let udp_len16 = u16::try_from(udp_len).ok()?;
    let (ip_len, kind) = match (from.ip(), to.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (ipv4::HEADER_LEN, ethertype::IPV4),
        (IpAddr::V6(_), IpAddr::V6(_)) => (ipv6::HEADER_LEN, ethertype::IPV6),
        _ => return None,
    };
    let len = ETHERNET_LEN + ip_len + udp_len;
    let frame = frame.get_mut(..len)?;
    frame[..ETHERNET_LEN + ip_len + UDP_LEN].fill(0);
    frame[12..ETHERNET_LEN].copy_from_slice(&kind.to_be_bytes());
    let packet = &mut frame[ETHERNET_LEN..];
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&u16::try_from(ip_len + udp_len).ok()?.to_be_bytes());
            packet[6] = 0x40;
            (packet[8], packet[9]) = (64, protocol::UDP);
            packet[12..16].copy_from_slice(&from.octets());
            packet[16..20].copy_from_slice(&to.octets());
            let sum = !checksum::folded(checksum::sum(&packet[..ip_len]));
            packet[10..12].copy_from_slice(&sum.to_ne_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&udp_len16.to_be_bytes());
            (packet[6], packet[7]) = (protocol::UDP, 64);
            packet[8..24].copy_from_slice(&from.octets());
            packet[24..40].copy_from_slice(&to.octets());
        }
        _ => return None,
    }
    let udp = &mut packet[ip_len..];
    udp[..2].copy_from_slice(&from.port().to_be_bytes());
    udp[2..4].copy_from_slice(&to.port().to_be_bytes());
    udp[4..6].copy_from_slice(&udp_len16.to_be_bytes());
    udp[UDP_LEN..UDP_LEN + marker_len].fill(0);
    udp[UDP_LEN + marker_len..].copy_from_slice(payload);
    write_udp_checksum(packet, ip_len);
    Some(len)
}
