//! The headers of the UDP frames that the load and the stages send.

use std::net::{Ipv4Addr, Ipv6Addr};

use packet::number::{ethertype, protocol};
use packet::wire::{ETHERNET_LEN, ethernet, ipv4};

/// The MACs of a frame: destination and source.
pub(crate) type Macs = ([u8; 6], [u8; 6]);

/// The TTL or hop limit of all frames.
const HOPS: u8 = 64;
const UDP_LEN: usize = 8;

/// The headers of a datagram over IPv4 without a UDP checksum; `len` is the length of the packet.
pub(crate) fn headers4(
    macs: Macs,
    (source, destination): (Ipv4Addr, Ipv4Addr),
    ports: (u16, u16),
    len: u16,
) -> [u8; 42] {
    const IP_LEN: usize = 20;
    let mut ip = [0; IP_LEN];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    ip[8..10].copy_from_slice(&[HOPS, protocol::UDP]);
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&destination.octets());
    let checksum = ipv4::plain_checksum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_ne_bytes());

    let mut headers = [0; ETHERNET_LEN + IP_LEN + UDP_LEN];
    ethernet::write(&mut headers, macs.0, macs.1, ethertype::IPV4);
    headers[ETHERNET_LEN..][..IP_LEN].copy_from_slice(&ip);
    headers[ETHERNET_LEN + IP_LEN..].copy_from_slice(&udp(ports, len - IP_LEN as u16));
    headers
}

/// The same over IPv6; `len` is the length of the datagram.
pub(crate) fn headers6(
    macs: Macs,
    (source, destination): (Ipv6Addr, Ipv6Addr),
    ports: (u16, u16),
    len: u16,
) -> [u8; 62] {
    const IP_LEN: usize = 40;
    let mut headers = [0; ETHERNET_LEN + IP_LEN + UDP_LEN];
    ethernet::write(&mut headers, macs.0, macs.1, ethertype::IPV6);
    let ip = &mut headers[ETHERNET_LEN..];
    ip[0] = 0x60;
    ip[4..6].copy_from_slice(&len.to_be_bytes());
    ip[6..8].copy_from_slice(&[protocol::UDP, HOPS]);
    ip[8..24].copy_from_slice(&source.octets());
    ip[24..40].copy_from_slice(&destination.octets());
    ip[IP_LEN..].copy_from_slice(&udp(ports, len));
    headers
}

fn udp((source, destination): (u16, u16), len: u16) -> [u8; UDP_LEN] {
    let [a, b] = source.to_be_bytes();
    let [c, d] = destination.to_be_bytes();
    let [e, f] = len.to_be_bytes();
    [a, b, c, d, e, f, 0, 0]
}
