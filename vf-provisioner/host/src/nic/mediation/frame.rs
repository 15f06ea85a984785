//! The frames of a probe, and how they are recognised.

use packet::number::ethertype;
use packet::wire::arp::{self, ARP_LEN};
use packet::wire::ethernet::ETHERNET_LEN;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpAddress, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, Ipv6Address, Ipv6Packet, Ipv6Repr,
    UdpPacket, UdpRepr,
};

use crate::nic::parts::tag::Tag;

/// The payload of a frame; some NICs classify by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// EtherType 0x88B5, for local experiments (IEEE 802).
    Plain,
    /// An ARP probe for an unused address.
    Arp,
    /// UDP to port 9 between two documentation addresses (RFC 5737).
    Ipv4,
    /// The same in IPv6 (RFC 3849).
    Ipv6,
}

impl Shape {
    pub(super) const ALL: [Self; 4] = [Self::Plain, Self::Arp, Self::Ipv4, Self::Ipv6];

    fn ethertype(self) -> u16 {
        match self {
            Self::Plain => 0x88b5,
            Self::Arp => ethertype::ARP,
            Self::Ipv4 => ethertype::IPV4,
            Self::Ipv6 => ethertype::IPV6,
        }
    }
}

/// Identifies the frames of one run among all others, including those of another run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token([u8; 16]);

impl Token {
    pub(super) fn random() -> std::io::Result<Self> {
        use std::io::Read;
        let mut bytes = [0; 16];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// A frame with this token and `number`.
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
            Shape::Arp => arp_probe(source, &mark),
            Shape::Ipv4 => ipv4(&mark),
            Shape::Ipv6 => ipv6(&mark),
        });
        // The minimum length of a frame without its FCS, plus a tag that a NIC may remove.
        bytes.resize(bytes.len().max(64), 0);
        bytes
    }

    /// The number of a frame with this token, even if its headers were changed.
    pub(super) fn number(self, frame: &[u8]) -> Option<u32> {
        let at = frame
            .windows(self.0.len())
            .position(|window| window == self.0)?;
        let rest = frame.get(at + self.0.len()..)?;
        Some(u32::from_be_bytes(*rest.first_chunk()?))
    }
}

/// An ARP probe (RFC 5227), from which no cache learns.
fn arp_probe(source: [u8; 6], mark: &[u8]) -> Vec<u8> {
    let mut frame = [0; ETHERNET_LEN + ARP_LEN];
    let wanted = Ipv4Address::new(203, 0, 113, 9);
    arp::request(&mut frame, [0; 6], (source, 0), wanted.into());
    [&frame[ETHERNET_LEN..], mark].concat()
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
    use packet::number::ethertype::{SERVICE_VLAN, VLAN};
    use smoltcp::wire::{ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol};

    use super::*;
    use crate::nic::parts::tag::tags;

    const TO: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const FROM: [u8; 6] = [2, 0, 0, 0, 0, 2];

    #[test]
    fn frame_of_each_shape_is_valid_and_recognised() {
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
    fn tags_are_read_outermost_first_and_within_bounds() {
        let token = Token([7; 16]);
        let both = [(SERVICE_VLAN, 101), (VLAN, 0)];
        let bytes = token.frame(5, TO, FROM, &both, Shape::Ipv4);
        assert_eq!(tags(&bytes), both);
        assert_eq!(token.number(&bytes), Some(5));
        for length in 0..bytes.len() {
            let cut = &bytes[..length];
            assert!(both.starts_with(&tags(cut)));
            assert!(token.number(cut).is_none_or(|number| number == 5));
        }
        let deep = token.frame(5, TO, FROM, &[(VLAN, 1); 9], Shape::Plain);
        assert_eq!(tags(&deep).len(), 4);
    }
}
