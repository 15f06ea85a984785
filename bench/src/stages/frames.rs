//! The scenarios' frames. Nearly all are a VM's: from its MAC to its gateway's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::addr;
use packet::number::{ethertype, icmpv6, protocol};
use packet::wire::{ETHERNET_LEN, arp, checksum, ethernet};
use tenant_config::{MacAddr, TunnelKind};

use super::remote::{Remote, distant};
use crate::network::{self, vm_ipv4};
use crate::udp::{Macs, headers4, headers6};

/// UDP ports where they do not matter.
pub(super) const PORTS: (u16, u16) = (12345, 80);
/// The source port of tunnel packets.
const TUNNEL_PORT: u16 = 0xc000;
/// The bytes of the shortest frame, without the frame check sequence.
const MIN_LEN: usize = 60;

/// The MACs of a VM's frame.
fn vm_macs() -> Macs {
    ([2, 0, 0, 0, 0, 1], network::vm_mac(0, 1).octets())
}

/// The MACs of a frame from the underlay's router.
fn uplink_macs() -> Macs {
    (network::uplink_mac(0).octets(), network::NEXT_HOP_MAC)
}

/// A 60-byte frame (64 with the frame check sequence) with UDP over IPv4.
pub(super) fn udp4(source: Ipv4Addr, destination: Ipv4Addr, ports: (u16, u16)) -> Vec<u8> {
    udp4_of(46, source, destination, ports)
}

/// The same with an IP packet of `len` bytes.
pub(super) fn udp4_of(
    len: u16,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ports: (u16, u16),
) -> Vec<u8> {
    padded4(vm_macs(), len, (source, destination), ports)
}

/// The same as [`udp4`] from the underlay's router to the uplink.
pub(super) fn udp4_from_uplink(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    padded4(uplink_macs(), 46, (source, destination), PORTS)
}

/// The same as [`udp4`] to a group.
pub(super) fn udp4_to_group(source: Ipv4Addr, group: Ipv4Addr) -> Vec<u8> {
    let macs = (addr::group_mac4(group.to_bits()), vm_macs().1);
    padded4(macs, 46, (source, group), PORTS)
}

fn padded4(macs: Macs, len: u16, ends: (Ipv4Addr, Ipv4Addr), ports: (u16, u16)) -> Vec<u8> {
    let mut frame = headers4(macs, ends, ports, len).to_vec();
    frame.resize(ETHERNET_LEN + usize::from(len), 0);
    frame
}

/// An address that the VM at a port, counted from 1, has claimed; `nth` counts from 0.
pub(super) fn claimed(port: u16, nth: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0xc1a1, 0, port, nth)
}

/// The Neighbor Solicitation by which the VM at a port, counted from 1, detects whether another
/// station has the address (RFC 4862, 5.4).
pub(super) fn detection(port: u16, address: Ipv6Addr) -> Vec<u8> {
    const LEN: usize = 24;
    let group = addr::solicited_node(address.to_bits());
    let macs = (addr::group_mac(group), network::vm_mac(0, port).octets());
    let mut message = [0; LEN];
    message[0] = icmpv6::NEIGHBOR_SOLICITATION;
    message[8..].copy_from_slice(&address.octets());
    // The pseudo header's source is the unspecified address.
    let pseudo = [
        &group.to_be_bytes()[..],
        &[0, 0, 0, LEN as u8, 0, 0, 0, protocol::ICMPV6],
    ];
    let covered = [&pseudo.concat()[..], &message].concat();
    message[2..4].copy_from_slice(&(!checksum::folded(checksum::sum(&covered))).to_ne_bytes());
    let mut frame = vec![0; ETHERNET_LEN];
    ethernet::write(&mut frame, macs.0, macs.1, ethertype::IPV6);
    frame.extend([0x60, 0, 0, 0, 0, LEN as u8, protocol::ICMPV6, 255]);
    frame.extend([0; 16]);
    frame.extend(group.to_be_bytes());
    frame.extend(message);
    frame
}

/// An IPv6 packet with an empty UDP datagram.
pub(super) fn udp6(source: &str, destination: &str) -> Vec<u8> {
    let address = |text: &str| -> Ipv6Addr { text.parse().expect("an address") };
    let ends = (address(source), address(destination));
    headers6(vm_macs(), ends, PORTS, 8).to_vec()
}

/// An ARP request from the VM to all stations.
pub(super) fn arp_request(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0; MIN_LEN];
    let own = (vm_macs().1, sender.to_bits());
    arp::request(&mut frame, [0xff; 6], own, target.to_bits());
    frame
}

/// The frame in which a peer's switch sends a packet of `len` bytes from its VM number `nth` to the
/// first VM.
pub(super) fn tunnelled(remote: Remote, len: u16, nth: u32) -> Vec<u8> {
    let vni = network::vni(0);
    let number = 1 + (nth % u32::from(remote.peers)) as u16;
    let (own, peer) = (remote.vtep(0), remote.vtep(number));
    let vtep_mac = |address| MacAddr::of_vtep(vni, address).octets();
    let inner_macs = (vtep_mac(own), vtep_mac(peer));
    let inner = padded4(inner_macs, len, (distant(nth), vm_ipv4(1, 0)), PORTS);
    let datagram = 16 + inner.len() as u16;
    let (macs, ports) = (
        (uplink_macs().0, vm_macs().1),
        (TUNNEL_PORT, remote.kind.default_port()),
    );
    let mut frame = match (peer, own) {
        (IpAddr::V4(peer), IpAddr::V4(own)) => {
            headers4(macs, (peer, own), ports, 20 + datagram).to_vec()
        }
        (IpAddr::V6(peer), IpAddr::V6(own)) => {
            headers6(macs, (peer, own), ports, datagram).to_vec()
        }
        _ => unreachable!("both endpoints have one family"),
    };
    let [high, low] = ethertype::ETHERNET.to_be_bytes();
    frame.extend_from_slice(&match remote.kind {
        TunnelKind::Vxlan => [8, 0, 0, 0],
        TunnelKind::Geneve => [0, 0, high, low],
    });
    frame.extend_from_slice(&(vni.get() << 8).to_be_bytes());
    frame.extend_from_slice(&inner);
    frame
}
