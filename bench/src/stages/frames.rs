//! The scenarios' frames. Nearly all are a VM's: from its MAC to its gateway's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tenant_config::{MacAddr, TunnelKind};

use super::remote::{Remote, distant};
use crate::load::ones_complement_sum;
use crate::network::{self, vm_ipv4};

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// UDP ports where they do not matter.
pub(super) const PORTS: (u16, u16) = (12345, 80);

/// The MAC of the VM that sends the frames.
pub(super) fn vm_mac() -> [u8; 6] {
    network::vm_mac(0, 1).octets()
}

/// The MAC of the switch on the underlay.
fn uplink_mac() -> [u8; 6] {
    network::uplink_mac(0).octets()
}

fn ethernet(destination: [u8; 6], source: [u8; 6], ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&destination);
    frame.extend_from_slice(&source);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
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
    let mut frame = ethernet([2, 0, 0, 0, 0, 1], vm_mac(), IPV4);
    let mut header = [
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let check = !ones_complement_sum(&header);
    header[10..12].copy_from_slice(&check.to_be_bytes());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(&ports.0.to_be_bytes());
    frame.extend_from_slice(&ports.1.to_be_bytes());
    frame.extend_from_slice(&(len - 20).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.resize(14 + usize::from(len), 0);
    frame
}

/// The same as [`udp4`] from the underlay's router to the uplink.
pub(super) fn udp4_from_uplink(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut frame = udp4(source, destination, PORTS);
    frame[..6].copy_from_slice(&uplink_mac());
    frame[6..12].copy_from_slice(&network::NEXT_HOP_MAC);
    frame
}

/// An IPv6 packet with an empty UDP datagram.
pub(super) fn udp6(source: &str, destination: &str) -> Vec<u8> {
    let octets = |text: &str| {
        let address: Ipv6Addr = text.parse().expect("an address");
        address.octets()
    };
    let mut frame = ethernet([2, 0, 0, 0, 0, 1], vm_mac(), IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0, 0, 8, 17, 64]);
    frame.extend_from_slice(&octets(source));
    frame.extend_from_slice(&octets(destination));
    frame.extend_from_slice(&[0x30, 0x39, 0, 80, 0, 8, 0, 0]);
    frame
}

/// ARP from the VM to all stations.
pub(super) fn arp(opcode: u8, sender_mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet([0xff; 6], vm_mac(), ARP);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, opcode]);
    frame.extend_from_slice(&sender_mac);
    frame.extend_from_slice(&sender.octets());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&target.octets());
    frame.resize(60, 0);
    frame
}

/// The frame in which a peer's switch sends a packet of `len` bytes from its VM number `nth` to the
/// first VM.
pub(super) fn tunnelled(remote: Remote, len: u16, nth: u32) -> Vec<u8> {
    let vni = network::vni(0);
    let number = 1 + (nth % u32::from(remote.peers)) as u16;
    let (own, peer) = (remote.vtep(0), remote.vtep(number));
    let mut inner = udp4_of(len, distant(nth), vm_ipv4(1, 0), PORTS);
    inner[..6].copy_from_slice(&MacAddr::of_vtep(vni, own).octets());
    inner[6..12].copy_from_slice(&MacAddr::of_vtep(vni, peer).octets());
    let datagram = 16 + inner.len() as u16;
    let mut frame = match (peer, own) {
        (IpAddr::V4(peer), IpAddr::V4(own)) => {
            let mut frame = udp4_of(20 + datagram, peer, own, (0xc000, 0));
            frame.truncate(34);
            frame
        }
        (peer, own) => {
            let mut frame = udp6(&peer.to_string(), &own.to_string());
            frame[18..20].copy_from_slice(&datagram.to_be_bytes());
            frame.truncate(54);
            frame
        }
    };
    frame[..6].copy_from_slice(&uplink_mac());
    frame.extend_from_slice(&0xc000u16.to_be_bytes());
    frame.extend_from_slice(&remote.kind.default_port().to_be_bytes());
    frame.extend_from_slice(&datagram.to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(match remote.kind {
        TunnelKind::Vxlan => &[8, 0, 0, 0],
        TunnelKind::Geneve => &[0, 0, 0x65, 0x58],
    });
    frame.extend_from_slice(&(vni.get() << 8).to_be_bytes());
    frame.extend_from_slice(&inner);
    frame
}
