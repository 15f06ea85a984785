//! ARP for Ethernet and IPv4 (RFC 826), and RARP's announcement (RFC 903).

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

use super::ethernet;
use super::ethernet::ETHERNET_LEN;
use super::field::{be16, be32, mac_at};
use crate::frame::Frame;
use crate::number::ethertype;
use crate::reason::DropReason;

/// Bytes of an ARP packet.
pub const ARP_LEN: usize = 28;

/// An ARP packet whose form is sound.
#[derive(Debug, Clone, Copy)]
pub struct Arp {
    /// Whether it is a request; else it is a reply.
    pub request: bool,
    /// The sender's hardware address.
    pub sender_mac: [u8; 6],
    /// The sender's protocol address.
    pub sender_ip: u32,
    /// The target's protocol address.
    pub target_ip: u32,
}

/// Row "ARP 1": the fields that say what kind of packet this is.
#[inline(always)]
pub fn parse(bytes: &[u8]) -> Result<Arp, DropReason> {
    let head = bytes
        .first_chunk::<ARP_LEN>()
        .ok_or(DropReason::ArpMalformed)?;
    let opcode = be16(head, 6);
    if head[..6] != [0, 1, 8, 0, 6, 4] || !(1..=2).contains(&opcode) {
        return Err(DropReason::ArpMalformed);
    }
    Ok(Arp {
        request: opcode == 1,
        sender_mac: mac_at(head, 8),
        sender_ip: be32(head, 14),
        target_ip: be32(head, 24),
    })
}

/// Whether `bytes` are the RARP request by which QEMU announces `mac` after a migration.
pub fn is_announcement(bytes: &[u8], mac: [u8; 6]) -> bool {
    bytes.first_chunk::<ARP_LEN>().is_some_and(|rarp| {
        rarp[..8] == [0, 1, 8, 0, 6, 4, 0, 3]
            && mac_at(rarp, 8) == mac
            && mac_at(rarp, 18) == mac
            && rarp[14..18] == [0; 4]
            && rarp[24..28] == [0; 4]
    })
}

/// Turns an ARP request into the reply that `own_mac` has the target. `None` if it does not fit.
#[inline(always)]
pub fn reply(frame: &mut Frame<'_>, own_mac: [u8; 6], request: &Arp) -> Option<()> {
    frame.resize(ETHERNET_LEN + ARP_LEN)?;
    write(
        frame.bytes_mut(),
        request.sender_mac,
        own_mac,
        &ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(own_mac),
            source_protocol_addr: request.target_ip.into(),
            target_hardware_addr: EthernetAddress(request.sender_mac),
            target_protocol_addr: request.sender_ip.into(),
        },
    );
    Some(())
}

/// Writes an ARP request for `wanted` from the station `own`; returns the frame's length.
///
/// # Panics
/// If `bytes` are fewer than the frame.
pub fn request(bytes: &mut [u8], to: [u8; 6], own: ([u8; 6], u32), wanted: u32) -> usize {
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(own.0),
        source_protocol_addr: own.1.into(),
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: wanted.into(),
    };
    write(bytes, to, own.0, &request);
    ETHERNET_LEN + ARP_LEN
}

#[inline(always)]
fn write(bytes: &mut [u8], to: [u8; 6], from: [u8; 6], arp: &ArpRepr) {
    ethernet::write(bytes, to, from, ethertype::ARP);
    // Of known length, so that the bounds are checked once.
    if let Some(packet) = bytes[ETHERNET_LEN..].first_chunk_mut::<ARP_LEN>() {
        arp.emit(&mut ArpPacket::new_unchecked(packet));
    }
}
