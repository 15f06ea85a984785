//! The rows of "Ethernet".

use super::*;

pub(super) const ARP: u16 = 0x0806;
pub(super) const RARP: u16 = 0x8035;
pub(super) const IPV4: u16 = 0x0800;
pub(super) const IPV6: u16 = 0x86dd;
pub(super) const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// A frame without its one allowed tag.
pub(super) struct Ethernet<'a> {
    pub(super) destination: [u8; 6],
    pub(super) source: [u8; 6],
    pub(super) ethertype: u16,
    /// The VID of the removed tag; none if it was a priority tag.
    pub(super) tag: Option<u16>,
    pub(super) payload: &'a [u8],
}

/// Ethernet 1 to 6.
pub(super) fn ethernet<'a>(
    frame: &'a [u8],
    stripped_tag: Option<u16>,
    (mtu, told_by_icmp): (u16, bool),
    trunk: &[u16],
    may_be_source: impl Fn([u8; 6]) -> bool,
) -> Result<Ethernet<'a>, DropReason> {
    let listed = |control: u16| trunk.contains(&(control & 0x0fff));
    // Ethernet 1
    if frame.len() < 14 {
        return Err(Malformed);
    }
    let outer_type = be16(frame, 12);
    let allowed_tag = stripped_tag.is_none()
        && outer_type == 0x8100
        && frame.len() >= 16
        && listed(be16(frame, 14));
    let longest = usize::from(mtu) + 14 + if allowed_tag { 4 } else { 0 };
    let inner_type = match allowed_tag {
        true if frame.len() >= 18 => be16(frame, 16),
        _ => outer_type,
    };
    let told = told_by_icmp && [IPV4, IPV6].contains(&inner_type);
    if frame.len() > longest && !told {
        return Err(Malformed);
    }
    // Ethernet 2
    let (destination, source) = (mac_at(frame, 0), mac_at(frame, 6));
    if source == [0; 6] || is_group(source) {
        return Err(SrcMacGroup);
    }
    // Ethernet 3
    if !may_be_source(source) {
        return Err(SrcMac);
    }
    // Ethernet 4: the tag in the metadata is the outermost.
    let (ethertype, tag, payload) = match stripped_tag {
        Some(control) if !listed(control) || TAGS.contains(&outer_type) => return Err(VlanTag),
        None if trunk.is_empty() && TAGS.contains(&outer_type) => return Err(VlanTag),
        None if TAGS.contains(&outer_type) => {
            if outer_type != 0x8100 {
                return Err(VlanTag);
            }
            if frame.len() < 18 {
                return Err(Malformed);
            }
            if !listed(be16(frame, 14)) || TAGS.contains(&be16(frame, 16)) {
                return Err(VlanTag);
            }
            (
                be16(frame, 16),
                Some(be16(frame, 14) & 0x0fff),
                &frame[18..],
            )
        }
        _ => (
            outer_type,
            stripped_tag.map(|control| control & 0x0fff),
            &frame[14..],
        ),
    };
    // Ethernet 5
    if ethertype < 0x0600 {
        return Err(Llc);
    }
    // Ethernet 6
    let bridge_group = destination[..5] == [0x01, 0x80, 0xc2, 0, 0] && destination[5] <= 0x0f;
    if bridge_group || ethertype == 0x88cc || ethertype == 0x8808 {
        return Err(LinkLocalL2);
    }
    Ok(Ethernet {
        destination,
        source,
        ethertype,
        tag: tag.filter(|vid| *vid != 0),
        payload,
    })
}

/// Ethernet 7: QEMU's announce after a migration.
pub(super) fn is_announce(ethernet: &Ethernet<'_>, mac: MacAddr) -> bool {
    let message = ethernet.payload;
    ethernet.destination == [0xff; 6]
        && message.len() >= 28
        && be16(message, 0) == 1
        && be16(message, 2) == IPV4
        && message[4..6] == [6, 4]
        && be16(message, 6) == 3
        && mac_at(message, 8) == mac.octets()
        && message[14..18] == [0; 4]
        && mac_at(message, 18) == mac.octets()
        && message[24..28] == [0; 4]
}

pub(super) fn is_group(mac: [u8; 6]) -> bool {
    mac[0] & 1 != 0
}
