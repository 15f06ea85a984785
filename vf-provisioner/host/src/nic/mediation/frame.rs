//! The frames of a probe, and how one of them is known again.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, IpAddress, IpProtocol, Ipv4Address,
    Ipv4Packet, Ipv4Repr, Ipv6Address, Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr,
};

/// A VLAN tag: its EtherType and its VLAN.
pub(super) type Tag = (u16, u16);

pub(super) const CUSTOMER: u16 = 0x8100;
pub(super) const SERVICE: u16 = 0x88a8;

/// What a frame looks like beyond its MACs: NICs sort frames by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// EtherType 0x88B5, for local experiments (IEEE 802).
    Plain,
    /// A question for an address that nobody has.
    Arp,
    /// UDP to port 9 between two addresses of documentation (RFC 5737).
    Ipv4,
    /// The same (RFC 3849).
    Ipv6,
}

impl Shape {
    pub(super) const ALL: [Self; 4] = [Self::Plain, Self::Arp, Self::Ipv4, Self::Ipv6];

    fn ethertype(self) -> u16 {
        match self {
            Self::Plain => 0x88b5,
            Self::Arp => 0x0806,
            Self::Ipv4 => 0x0800,
            Self::Ipv6 => 0x86dd,
        }
    }
}

/// What tells the frames of one run from everything else on the wires, also from another run's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token([u8; 16]);

impl Token {
    pub(super) fn random() -> std::io::Result<Self> {
        use std::io::Read;
        let mut bytes = [0; 16];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// A frame that bears this token and `number`.
    pub(super) fn frame(
        self,
        number: u32,
        destination: [u8; 6],
        source: [u8; 6],
        tags: &[Tag],
        shape: Shape,
    ) -> Vec<u8> {
        let mut bytes = [destination, source].concat();
        for (kind, vlan) in tags {
            bytes.extend(kind.to_be_bytes());
            bytes.extend(vlan.to_be_bytes());
        }
        bytes.extend(shape.ethertype().to_be_bytes());
        let mark = [&self.0[..], &number.to_be_bytes()].concat();
        bytes.extend(match shape {
            Shape::Plain => mark,
            Shape::Arp => arp(source, &mark),
            Shape::Ipv4 => ipv4(&mark),
            Shape::Ipv6 => ipv6(&mark),
        });
        // The shortest frame, without its checksum, and a tag that a NIC may take off.
        bytes.resize(bytes.len().max(64), 0);
        bytes
    }

    /// The number of a frame that bears this token, whatever was done to its head.
    pub(super) fn number(self, frame: &[u8]) -> Option<u32> {
        let at = frame
            .windows(self.0.len())
            .position(|window| window == self.0)?;
        let rest = frame.get(at + self.0.len()..)?;
        Some(u32::from_be_bytes(*rest.first_chunk()?))
    }
}

/// The tags in a frame's bytes, outermost first.
pub(super) fn tags(frame: &[u8]) -> Vec<Tag> {
    let word = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let mut found = Vec::new();
    let mut at = 12;
    while let (Some(kind @ (CUSTOMER | SERVICE | 0x9100)), Some(control)) = (word(at), word(at + 2))
        && found.len() < 4
    {
        found.push((kind, control & 0x0fff));
        at += 4;
    }
    found
}

fn arp(source: [u8; 6], mark: &[u8]) -> Vec<u8> {
    // An ARP probe (RFC 5227), from which no cache learns.
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(source),
        source_protocol_addr: Ipv4Address::UNSPECIFIED,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: Ipv4Address::new(203, 0, 113, 9),
    };
    let mut bytes = vec![0; arp.buffer_len()];
    arp.emit(&mut ArpPacket::new_unchecked(&mut bytes[..]));
    bytes.extend(mark);
    bytes
}

const DISCARD: UdpRepr = UdpRepr {
    src_port: 9,
    dst_port: 9,
};

fn udp(source: IpAddress, destination: IpAddress, mark: &[u8], into: &mut [u8]) {
    DISCARD.emit(
        &mut UdpPacket::new_unchecked(into),
        &source,
        &destination,
        mark.len(),
        |payload| payload.copy_from_slice(mark),
        &ChecksumCapabilities::default(),
    );
}

fn ipv4(mark: &[u8]) -> Vec<u8> {
    let ip = Ipv4Repr {
        src_addr: Ipv4Address::new(203, 0, 113, 8),
        dst_addr: Ipv4Address::new(203, 0, 113, 9),
        next_header: IpProtocol::Udp,
        payload_len: DISCARD.header_len() + mark.len(),
        hop_limit: 1,
    };
    let mut bytes = vec![0; ip.buffer_len() + ip.payload_len];
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[..]);
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    let (source, destination) = (ip.src_addr.into(), ip.dst_addr.into());
    udp(source, destination, mark, packet.payload_mut());
    bytes
}

fn ipv6(mark: &[u8]) -> Vec<u8> {
    let ip = Ipv6Repr {
        src_addr: Ipv6Address::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 8),
        dst_addr: Ipv6Address::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9),
        next_header: IpProtocol::Udp,
        payload_len: DISCARD.header_len() + mark.len(),
        hop_limit: 1,
    };
    let mut bytes = vec![0; ip.buffer_len() + ip.payload_len];
    let mut packet = Ipv6Packet::new_unchecked(&mut bytes[..]);
    ip.emit(&mut packet);
    let (source, destination) = (ip.src_addr.into(), ip.dst_addr.into());
    udp(source, destination, mark, packet.payload_mut());
    bytes
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{EthernetFrame, EthernetProtocol};

    use super::*;

    const TO: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const FROM: [u8; 6] = [2, 0, 0, 0, 0, 2];

    #[test]
    fn a_frame_of_each_shape_is_what_it_says_and_is_known_again() {
        let token = Token([7; 16]);
        for shape in Shape::ALL {
            let bytes = token.frame(0x0102_0304, TO, FROM, &[], shape);
            assert!(bytes.len() >= 64, "{shape:?}");
            assert_eq!(token.number(&bytes), Some(0x0102_0304));
            assert_eq!(Token([8; 16]).number(&bytes), None);
            assert_eq!(tags(&bytes), []);
            let frame = EthernetFrame::new_checked(&bytes[..]).expect("a frame");
            assert_eq!((frame.dst_addr().0, frame.src_addr().0), (TO, FROM));
            match shape {
                Shape::Plain => assert_eq!(frame.ethertype(), EthernetProtocol::Unknown(0x88b5)),
                Shape::Arp => {
                    let packet = ArpPacket::new_checked(frame.payload()).expect("ARP");
                    assert!(ArpRepr::parse(&packet).is_ok());
                }
                Shape::Ipv4 => {
                    let packet = Ipv4Packet::new_checked(frame.payload()).expect("IPv4");
                    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
                    let udp = UdpPacket::new_checked(packet.payload()).expect("UDP");
                    assert!(packet.verify_checksum() && udp.verify_checksum(&from, &to));
                }
                Shape::Ipv6 => {
                    let packet = Ipv6Packet::new_checked(frame.payload()).expect("IPv6");
                    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
                    let udp = UdpPacket::new_checked(packet.payload()).expect("UDP");
                    assert!(udp.verify_checksum(&from, &to));
                }
            }
        }
    }

    #[test]
    fn tags_are_read_from_the_outside_in_and_never_past_the_end() {
        let token = Token([7; 16]);
        let both = [(SERVICE, 101), (CUSTOMER, 0)];
        let bytes = token.frame(5, TO, FROM, &both, Shape::Ipv4);
        assert_eq!(tags(&bytes), both);
        assert_eq!(token.number(&bytes), Some(5));
        for length in 0..bytes.len() {
            let cut = &bytes[..length];
            assert!(both.starts_with(&tags(cut)));
            assert!(token.number(cut).is_none_or(|number| number == 5));
        }
        let deep = token.frame(5, TO, FROM, &[(CUSTOMER, 1); 9], Shape::Plain);
        assert_eq!(tags(&deep).len(), 4);
    }
}
