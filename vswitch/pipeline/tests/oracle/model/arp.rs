//! The rows of "ARP", and what the gateway answers.

use super::*;

pub(super) struct Arp {
    pub(super) opcode: u16,
    pub(super) hardware: [u8; 6],
    pub(super) sender: Ipv4Addr,
    pub(super) target: Ipv4Addr,
}

/// ARP 1 and 2.
pub(super) fn arp(ethernet: &Ethernet<'_>) -> Result<Arp, DropReason> {
    let arp = well_formed_arp(ethernet.payload)?;
    if arp.hardware != ethernet.source {
        return Err(ArpSenderMac);
    }
    Ok(arp)
}

/// ARP 1.
pub(super) fn well_formed_arp(message: &[u8]) -> Result<Arp, DropReason> {
    if message.len() < 28
        || be16(message, 0) != 1
        || be16(message, 2) != IPV4
        || message[4..6] != [6, 4]
        || !(1..=2).contains(&be16(message, 6))
    {
        return Err(ArpMalformed);
    }
    Ok(Arp {
        opcode: be16(message, 6),
        hardware: mac_at(message, 8),
        sender: ipv4_at(message, 14),
        target: ipv4_at(message, 24),
    })
}

/// "An ARP packet in a group frame other than a broadcast."
pub(super) fn in_strange_group(ethernet: &Ethernet<'_>) -> bool {
    is_group(ethernet.destination) && ethernet.destination != [0xff; 6]
}

impl Model {
    /// "The gateway then handles it; no ARP is ever forwarded."
    pub(super) fn arp_service(
        &mut self,
        from: usize,
        port: &PortConfig,
        ethernet: &Ethernet<'_>,
        arp: &Arp,
    ) -> Result<Outcome, DropReason> {
        if in_strange_group(ethernet) {
            return Err(DstMac);
        }
        if arp.opcode == 2 || arp.sender == arp.target {
            self.hear_holder(port, arp.sender.into(), arp.hardware);
            return Err(Absorbed);
        }
        if self.is_shared(arp.target.into()) {
            let asks = (from, arp.sender.is_unspecified());
            self.asked_for_shared(asks, arp.target.into(), ArpUnknown)?;
        } else if owns(port, arp.target.into()) {
            return Err(Absorbed);
        } else if !self.answers_for(from, arp.target.into()) {
            return Err(ArpUnknown);
        }
        Ok(Outcome::Reply(Answer::Arp {
            mac: port.gateway_mac.octets(),
            address: arp.target,
        }))
    }
}
