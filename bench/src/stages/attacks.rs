//! Frames that a VM must not send.

use std::net::Ipv4Addr;

use packet::DropReason;

use super::frames::{PORTS, arp_request, udp4, udp6};
use crate::load::ATTACK_MARK;
use crate::network::{vm_ipv4, vm_ipv6};

/// Frames that the first VM of a tenant of two must not send, each with the reason for the drop.
pub(super) fn refused() -> Vec<(DropReason, Vec<u8>)> {
    let (own, other) = (vm_ipv4(1, 0), vm_ipv4(2, 0));
    let gateway = Ipv4Addr::new(10, 0, 0, 1);
    let changed = |at: usize, value: u8| {
        let mut frame = udp4(own, other, PORTS);
        frame[at] = value;
        frame
    };
    let to = |destination| udp4(own, destination, PORTS);
    let mdns = Ipv4Addr::new(224, 0, 0, 251);
    let mut forged_reply = arp_request(gateway, own);
    forged_reply[21] = 2;
    let mut forged_sender = arp_request(own, gateway);
    forged_sender[22..28].fill(2);
    vec![
        (DropReason::Malformed, vec![0; 8]),
        (DropReason::SrcMacGroup, changed(6, 0x53)),
        (DropReason::SrcMac, changed(11, 9)),
        (DropReason::VlanTag, changed(12, 0x81)),
        (DropReason::Llc, changed(12, 0x00)),
        (DropReason::EtherType, changed(13, 0x01)),
        (DropReason::Ipv4Malformed, changed(15, 1)),
        (DropReason::Ipv4Source, udp4(other, other, PORTS)),
        (DropReason::Ipv4Martian, to(Ipv4Addr::LOCALHOST)),
        (DropReason::DhcpServer, udp4(own, other, (67, 68))),
        (DropReason::Encapsulation, udp4(own, other, (12345, 3544))),
        (DropReason::Multicast, udp4(own, mdns, (5353, 5353))),
        (DropReason::Underlay, to(Ipv4Addr::new(192, 0, 2, 9))),
        (DropReason::ArpSenderIp, forged_reply),
        (DropReason::ArpSenderMac, forged_sender),
        (DropReason::Ipv6Source, udp6(&vm_ipv6(2, 0), &vm_ipv6(2, 0))),
    ]
}

/// The same as attacks on a running switch, marked so that the load recognises them where they must
/// not come out. Frames that are too short for the wire are left out.
pub fn attacks() -> Vec<Vec<u8>> {
    refused()
        .into_iter()
        .map(|(_, frame)| frame)
        .filter(|frame| frame.len() >= 60)
        .map(marked)
        .collect()
}

/// The same with as many broadcasts, which a switch must answer or drop.
pub fn flood() -> Vec<Vec<u8>> {
    let mut broadcast = udp4(vm_ipv4(1, 0), Ipv4Addr::BROADCAST, PORTS);
    broadcast[..6].copy_from_slice(&[0xff; 6]);
    let broadcast = marked(broadcast);
    attacks()
        .into_iter()
        .flat_map(|attack| [attack, broadcast.clone()])
        .collect()
}

fn marked(mut frame: Vec<u8>) -> Vec<u8> {
    let end = frame.len();
    frame[end - ATTACK_MARK.len()..].copy_from_slice(&ATTACK_MARK);
    frame
}
