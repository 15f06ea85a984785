//! ARP, as a station sends it.

use packet::DropReason;
use packet::wire::{Arp, arp};

/// ARP rows 1 and 2: a station speaks for itself.
#[inline(always)]
pub(super) fn of_station(source: [u8; 6], payload: &[u8]) -> Result<Arp, DropReason> {
    let arp = arp::parse(payload)?;
    if arp.sender_mac != source {
        return Err(DropReason::ArpSenderMac);
    }
    Ok(arp)
}
