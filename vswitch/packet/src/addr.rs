//! Questions about addresses: what kind of address this is, and which group belongs to it.
//!
//! IPv4 addresses are `u32`, IPv6 addresses `u128`, MAC addresses six bytes; all in network order.

/// The broadcast MAC address.
pub const BROADCAST_MAC: [u8; 6] = [0xff; 6];

/// All nodes of the link: ff02::1 (RFC 4291, section 2.7.1).
pub const ALL_NODES: u128 = 0xff02 << 112 | 1;

/// All routers of the link: ff02::2 (RFC 4291, section 2.7.1).
pub const ALL_ROUTERS: u128 = 0xff02 << 112 | 2;

/// All DHCPv6 relay agents and servers of the link: ff02::1:2 (RFC 8415, section 7.1).
pub const ALL_DHCP_AGENTS: u128 = 0xff02 << 112 | 0x1_0002;

/// All MLDv2 routers of the link: ff02::16 (RFC 3810, section 5.2.14).
pub const ALL_MLD_ROUTERS: u128 = 0xff02 << 112 | 0x16;

/// All systems of the link: 224.0.0.1 (RFC 1112).
pub const ALL_SYSTEMS4: u32 = 0xe000_0001;

/// All routers of the link: 224.0.0.2 (RFC 2236).
pub const ALL_ROUTERS4: u32 = 0xe000_0002;

/// All IGMPv3 routers of the link: 224.0.0.22 (RFC 3376, section 4.2.14).
pub const ALL_IGMP_ROUTERS4: u32 = 0xe000_0016;

/// 0.0.0.0/8, "this network".
#[inline(always)]
pub const fn is_this_network4(address: u32) -> bool {
    address >> 24 == 0
}

/// 127.0.0.0/8.
#[inline(always)]
pub const fn is_loopback4(address: u32) -> bool {
    address >> 24 == 127
}

/// 169.254.0.0/16.
#[inline(always)]
pub const fn is_link_local4(address: u32) -> bool {
    address >> 16 == 0xa9fe
}

/// fe80::/10.
#[inline(always)]
pub const fn is_link_local6(address: u128) -> bool {
    address >> 118 == 0xfe80 >> 6
}

/// 224.0.0.0/4.
#[inline(always)]
pub const fn is_multicast4(address: u32) -> bool {
    address >> 28 == 0xe
}

/// ff00::/8.
#[inline(always)]
pub const fn is_multicast6(address: u128) -> bool {
    address >> 120 == 0xff
}

/// 224.0.0.0/4 and 240.0.0.0/4, which the limited broadcast address is in: no unicast address.
#[inline(always)]
pub const fn is_multicast_or_reserved4(address: u32) -> bool {
    address >> 28 >= 0xe
}

/// 240.0.0.0/4, the limited broadcast address included.
#[inline(always)]
pub const fn is_reserved4(address: u32) -> bool {
    address >> 28 == 0xf
}

/// ::/96 and ::ffff:0:0/96: IPv4 addresses as IPv6, `::` and `::1`. No packet on a wire may have
/// one (RFC 4291, sections 2.5.2, 2.5.3 and 2.5.5).
#[inline(always)]
pub const fn is_embedded4(address: u128) -> bool {
    matches!(address >> 32, 0 | 0xffff)
}

/// The IPv4 addresses that an IPv6 address stands for where a translator or tunnel router reads it
/// so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedded {
    /// The addresses, the rest `None`.
    pub addresses: [Option<u32>; 5],
    /// Whether these are all readings of it, or the translator's configuration decides which of
    /// them counts.
    pub exact: bool,
}

const NAT64: u32 = 0x0064_ff9b;
const TEREDO: u32 = 0x2001_0000;
const SIX_TO_FOUR: u32 = 0x2002;
/// An interface identifier of ISATAP, without its universal bit.
const ISATAP: u32 = 0x0000_5efe;
const UNIVERSAL_BIT: u32 = 0x0200_0000;

/// Whether [`embedded4`] may find an address: a cheap test that is true for all that do, and few
/// others.
#[inline(always)]
pub const fn may_embed4(address: u128) -> bool {
    let first = (address >> 96) as u32;
    let interface = (address >> 32) as u32;
    first == NAT64
        || first == TEREDO
        || first >> 16 == SIX_TO_FOUR
        || first == 0
        || interface & !UNIVERSAL_BIT == ISATAP
}

/// The IPv4 addresses that an IPv6 address stands for: by NAT64's prefixes (RFC 6052, section 2.2;
/// RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380: server and client), SIIT (RFC 2765) and ISATAP
/// (RFC 5214).
pub const fn embedded4(address: u128) -> Embedded {
    let first = (address >> 96) as u32;
    let last = address as u32;
    let mut exact = true;
    let mut addresses = [None; 5];
    if first == NAT64 && (address >> 32) as u64 == 0 {
        addresses[0] = Some(last);
    } else if first == NAT64 && (address >> 80) as u16 == 1 {
        // The prefix is longer, by the operator's choice: 48, 56, 64 or 96 bits.
        exact = false;
        let (high, low) = ((address >> 64) as u16 as u32, (address >> 40) as u16 as u32);
        addresses[0] = Some(high << 16 | low);
        let (high, low) = ((address >> 64) as u8 as u32, (address >> 32) as u32);
        addresses[1] = Some(high << 24 | low & 0x00ff_ffff);
        addresses[2] = Some((address >> 24) as u32);
        addresses[3] = Some(last);
    } else if first >> 16 == SIX_TO_FOUR {
        addresses[0] = Some((address >> 80) as u32);
    } else if first == TEREDO {
        addresses[0] = Some((address >> 64) as u32);
        addresses[1] = Some(!last);
    } else if address >> 32 == 0xffff_0000 {
        addresses[0] = Some(last);
    }
    if (address >> 32) as u32 & !UNIVERSAL_BIT == ISATAP {
        addresses[4] = Some(last);
    }
    Embedded { addresses, exact }
}

/// Sources that no IPv4 packet may have, from any sender.
#[inline(always)]
pub const fn is_martian_source4(source: u32) -> bool {
    is_loopback4(source) || is_multicast4(source) || source == u32::MAX
}

/// Destinations that no IPv4 packet may have, from any sender.
#[inline(always)]
pub const fn is_martian_destination4(destination: u32) -> bool {
    is_loopback4(destination)
        || is_this_network4(destination)
        || (is_reserved4(destination) && destination != u32::MAX)
}

/// IPv4 sources that are invalid in a packet from outside, in addition to the martian ones.
#[inline(always)]
pub const fn is_invalid_outside_source4(source: u32) -> bool {
    is_this_network4(source) || is_reserved4(source) || is_link_local4(source)
}

/// Whether packets to the address may be routed: no martian, group or link-local address.
#[inline(always)]
pub const fn is_routable4(address: u32) -> bool {
    !is_martian_destination4(address)
        && !is_multicast_or_reserved4(address)
        && !is_link_local4(address)
}

/// By the first byte: whether all addresses that have it are as [`is_routable4`] demands.
static ROUTABLE4: [bool; 256] = {
    let mut routable = [false; 256];
    let mut first = 0;
    while first < 256 {
        // Of link-local addresses the second byte decides, of the others the first alone.
        routable[first] = first != 169 && is_routable4((first as u32) << 24);
        first += 1;
    }
    routable
};

/// As [`is_routable4`], in fewer instructions for almost every address.
#[inline(always)]
pub fn is_routable4_fast(address: u32) -> bool {
    ROUTABLE4[(address >> 24) as usize] || is_routable4(address)
}

/// Whether packets to the address may be routed: no group, link-local or embedded IPv4 address.
#[inline(always)]
pub const fn is_routable6(address: u128) -> bool {
    !is_multicast6(address) && !is_link_local6(address) && !is_embedded4(address)
}

/// The address of metadata for cloud images: 169.254.169.254.
pub const METADATA4: u32 = u32::from_be_bytes([169, 254, 169, 254]);
/// The same of IPv6: fd00:ec2::254.
pub const METADATA6: u128 = 0xfd00_0ec2 << 96 | 0x254;

/// The link-local address that is made from a MAC (RFC 4291, appendix A).
pub const fn link_local6(mac: [u8; 6]) -> u128 {
    let [a, b, c, d, e, f] = mac;
    let interface = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    0xfe80 << 112 | interface as u128
}

/// The solicited-node group of an address (RFC 4291, section 2.7.1).
pub const fn solicited_node(address: u128) -> u128 {
    0xff02_0000_0000_0000_0000_0001_ff00_0000 | (address & 0x00ff_ffff)
}

/// The MAC address of an IPv6 group (RFC 2464, section 7).
pub const fn group_mac(group: u128) -> [u8; 6] {
    let [a, b, c, d] = (group as u32).to_be_bytes();
    [0x33, 0x33, a, b, c, d]
}

/// The MAC address of an IPv4 group (RFC 1112, section 6.4).
pub const fn group_mac4(group: u32) -> [u8; 6] {
    let [_, b, c, d] = group.to_be_bytes();
    [0x01, 0x00, 0x5e, b & 0x7f, c, d]
}

/// An IPv4 address as one of IPv6 (RFC 4291, section 2.5.5.2).
#[inline(always)]
pub const fn mapped4(address: u32) -> u128 {
    0xffff << 32 | address as u128
}

/// The IPv4 address of a number that [`mapped4`] made.
#[inline(always)]
pub const fn unmapped4(address: u128) -> Option<u32> {
    if address >> 32 == 0xffff {
        Some(address as u32)
    } else {
        None
    }
}

/// Whether a group, of IPv4 as [`mapped4`] makes it, is one of the link: 224.0.0.0/24, ff02::/16.
pub const fn is_link_group(group: u128) -> bool {
    group >> 8 == (0xffff << 32 | 0xe000_0000) >> 8 || group >> 112 == 0xff02
}

/// Whether the MAC address has the group bit: multicast or broadcast.
#[inline(always)]
pub const fn is_group_mac(mac: [u8; 6]) -> bool {
    mac[0] & 1 != 0
}

/// Whether one station may have the MAC address: it is neither a group's nor zero.
#[inline(always)]
pub fn is_station_mac(mac: [u8; 6]) -> bool {
    !is_group_mac(mac) && mac != [0; 6]
}

/// 01:80:c2:00:00:00 to :0f, which no bridge forwards (IEEE 802.1Q, table 8-1).
#[inline(always)]
pub fn is_bridge_group_mac(mac: [u8; 6]) -> bool {
    mac[..5] == [0x01, 0x80, 0xc2, 0x00, 0x00] && mac[5] < 0x10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_answer_agrees_with_the_slow_one() {
        for prefix in 0..=u32::from(u16::MAX) {
            for address in [prefix << 16, prefix << 16 | 0x1234, prefix << 16 | 0xffff] {
                assert_eq!(
                    is_routable4_fast(address),
                    is_routable4(address),
                    "{address:x}"
                );
            }
        }
    }
}
