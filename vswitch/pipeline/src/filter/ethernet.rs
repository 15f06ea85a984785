//! The Ethernet rows, for every side.

use packet::number::ethertype;
use packet::wire::ethernet::{TAG_LEN, VID_MASK};
use packet::wire::{ETHERNET_LEN, Packet, be16, mac_at};
use packet::{DropReason, Frame, addr};

use crate::tables::PortRules;

/// Whose MACs a frame may come from.
pub(super) enum Sender<'a> {
    /// Those of a port.
    Port(&'a PortRules),
    /// Any station's but our own, which is this.
    Other([u8; 6]),
}

/// The sender of a frame, as far as the Ethernet rows need it.
pub(super) struct Station<'a> {
    pub(super) sender: Sender<'a>,
    pub(super) mtu: u16,
    /// The VIDs of the tags that it may use, of which 0 stands for a priority tag.
    pub(super) trunk: &'a [u16],
}

/// "No VLAN" (IEEE 802.1Q, table 9-2): the tag has a priority only.
pub(super) const PRIORITY_VID: u16 = 0;

impl Station<'_> {
    /// Whether the station is told by ICMP that a packet of that type is too large, once all rows
    /// have let it pass.
    #[inline(always)]
    fn is_told_of_mtu(&self, ethertype: u16) -> bool {
        matches!(self.sender, Sender::Port(_))
            && matches!(ethertype, ethertype::IPV4 | ethertype::IPV6)
    }

    /// Whether the station may use the tag with this control information.
    #[inline(always)]
    fn lists(&self, tag: u16) -> bool {
        self.trunk.contains(&(tag & VID_MASK))
    }
}

/// The Ethernet rows 1 to 6. Removes an allowed tag from the frame, and returns the type of what is
/// behind it; `packet` gets everything else.
#[inline(always)]
pub(super) fn parse(
    station: &Station<'_>,
    frame: &mut Frame<'_>,
    packet: &mut Packet,
) -> Result<u16, DropReason> {
    let head = frame
        .bytes()
        .first_chunk::<ETHERNET_LEN>()
        .ok_or(DropReason::Malformed)?;
    let mut ethertype = be16(head, 12);
    let group = addr::is_group_mac(mac_at(head, 0));
    let max_len = usize::from(station.mtu) + ETHERNET_LEN;
    if frame.len() > max_len {
        let (allowance, carried) = match frame.bytes().first_chunk::<18>() {
            Some(tagged)
                if ethertype == ethertype::VLAN
                    && frame.stripped_tag().is_none()
                    && station.lists(be16(tagged, 14)) =>
            {
                (TAG_LEN, be16(tagged, 16))
            }
            _ => (0, ethertype),
        };
        if frame.len() > max_len + allowance && !station.is_told_of_mtu(carried) {
            return Err(DropReason::Malformed);
        }
    }
    let source = mac_at(head, 6);
    if !addr::is_station_mac(source) {
        return Err(DropReason::SrcMacGroup);
    }
    let allowed = match station.sender {
        Sender::Port(rules) => rules.has_mac(source),
        Sender::Other(own) => source != own,
    };
    if !allowed {
        return Err(DropReason::SrcMac);
    }
    let mut vid = None;
    if let Some(tag) = frame.stripped_tag() {
        if !station.lists(tag) {
            return Err(DropReason::VlanTag);
        }
        vid = Some(tag & VID_MASK);
    }
    if ethertype::is_tag(ethertype) {
        let second = frame.stripped_tag().is_some();
        if ethertype != ethertype::VLAN || second || station.trunk.is_empty() {
            return Err(DropReason::VlanTag);
        }
        let tagged = frame
            .bytes()
            .first_chunk::<18>()
            .ok_or(DropReason::Malformed)?;
        if !station.lists(be16(tagged, 14)) {
            return Err(DropReason::VlanTag);
        }
        vid = Some(be16(tagged, 14) & VID_MASK);
        ethertype = be16(tagged, 16);
        if ethertype::is_tag(ethertype) {
            return Err(DropReason::VlanTag);
        }
        frame.remove_tag();
    }
    if ethertype < ethertype::FIRST {
        return Err(DropReason::Llc);
    }
    if group && addr::is_bridge_group_mac(mac_at(frame.bytes(), 0)) {
        return Err(DropReason::LinkLocalL2);
    }
    if matches!(ethertype, ethertype::LLDP | ethertype::PAUSE) {
        return Err(DropReason::LinkLocalL2);
    }
    packet.vid = vid.filter(|vid| *vid != PRIORITY_VID);
    packet.group = group;
    Ok(ethertype)
}
