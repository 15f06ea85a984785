//! Membership of multicast groups: reports and queries of IGMP (RFC 2236, RFC 3376) and MLD (RFC
//! 2710, RFC 3810).
//!
//! Groups are numbers of IPv6 addresses; those of IPv4 are as [`addr::mapped4`] makes them. Lists
//! of sources count as "from any source", as RFC 4541 lets a snooping switch do.

use super::checksum;
use super::ethernet::{self, ETHERNET_LEN};
use super::field::{be16, be32, be128};
use super::ipv4::{self, Ipv4};
use super::ipv6::{self, Ipv6};
use super::transport::Fragment;
use crate::addr;
use crate::number::{ethertype, icmpv6, igmp, protocol};

/// What a report says of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// There is a listener.
    Join,
    /// A listener has left; there may be others.
    Leave,
}

/// How long listeners may take to answer a general query, in seconds (RFC 3376, section 8.3).
pub const RESPONSE_S: u8 = 10;
/// How long they may take to answer a query for a group (RFC 3376, section 8.8).
pub const LAST_MEMBER_S: u8 = 1;
/// Between two general queries, in seconds (RFC 3376, section 8.2).
pub const INTERVAL_S: u8 = 125;
/// How often a message is sent so that one may be lost (RFC 3376, section 8.1).
pub const ROBUSTNESS: u8 = 2;

/// Records of a report of the later versions.
mod record {
    pub(super) const MODE_IS_INCLUDE: u8 = 1;
    pub(super) const MODE_IS_EXCLUDE: u8 = 2;
    pub(super) const CHANGE_TO_INCLUDE: u8 = 3;
    pub(super) const CHANGE_TO_EXCLUDE: u8 = 4;
    pub(super) const ALLOW_NEW_SOURCES: u8 = 5;
}

/// What a record of that kind says, with so many sources.
fn change_of(kind: u8, sources: u16) -> Option<Change> {
    match (kind, sources) {
        (record::MODE_IS_INCLUDE | record::CHANGE_TO_INCLUDE, 0) => Some(Change::Leave),
        (record::ALLOW_NEW_SOURCES, 0) => None,
        (
            record::MODE_IS_INCLUDE
            | record::CHANGE_TO_INCLUDE
            | record::ALLOW_NEW_SOURCES
            | record::MODE_IS_EXCLUDE
            | record::CHANGE_TO_EXCLUDE,
            _,
        ) => Some(Change::Join),
        // Sources that are blocked change nothing about the others.
        _ => None,
    }
}

/// Calls `each` with every record of a report of the later versions, whose addresses have `LEN`
/// bytes. `None` if it is cut off; what came before it counts.
fn records<const LEN: usize>(
    message: &[u8],
    mut each: impl FnMut(&[u8; LEN], Change),
) -> Option<()> {
    let count = be16(message.first_chunk::<8>()?, 6);
    let mut rest = &message[8..];
    for _ in 0..count {
        let head = rest.first_chunk::<4>()?;
        let (kind, auxiliary, sources) = (head[0], usize::from(head[1]) * 4, be16(head, 2));
        let group = rest[4..].first_chunk::<LEN>()?;
        rest = rest.get(4 + LEN + usize::from(sources) * LEN + auxiliary..)?;
        if let Some(change) = change_of(kind, sources) {
            each(group, change);
        }
    }
    Some(())
}

/// Calls `each` with every group that an IGMP message reports. `None` if it is no well-formed
/// report of version 2 or 3.
pub fn igmp_reports(ip: &Ipv4, packet: &[u8], mut each: impl FnMut(u128, Change)) -> Option<()> {
    let message = ip.payload(packet);
    if ip.fragment != Fragment::Whole || !checksum::holds(message) {
        return None;
    }
    let mut tell = |group: u32, change| {
        if addr::is_multicast4(group) {
            each(addr::mapped4(group), change);
        }
    };
    match ip.igmp_type()? {
        igmp::REPORT_V2 => tell(be32(message.first_chunk::<8>()?, 4), Change::Join),
        igmp::LEAVE => tell(be32(message.first_chunk::<8>()?, 4), Change::Leave),
        igmp::REPORT_V3 => {
            return records::<4>(message, |group, change| tell(be32(group, 0), change));
        }
        _ => return None,
    }
    Some(())
}

/// As [`igmp_reports`], of MLD's versions 1 and 2.
pub fn mld_reports(ip: &Ipv6, packet: &[u8], mut each: impl FnMut(u128, Change)) -> Option<()> {
    let message = ip.payload(packet);
    let sum = pseudo_sum6(ip.source, ip.destination, message.len()) + checksum::sum(message);
    if ip.fragment != Fragment::Whole || checksum::folded(sum) != u16::MAX {
        return None;
    }
    let mut tell = |group: u128, change| {
        if addr::is_multicast6(group) {
            each(group, change);
        }
    };
    match ip.icmp_type()? {
        icmpv6::MLD_REPORT => tell(be128(message.first_chunk::<24>()?, 8), Change::Join),
        icmpv6::MLD_DONE => tell(be128(message.first_chunk::<24>()?, 8), Change::Leave),
        icmpv6::MLD2_REPORT => {
            return records::<16>(message, |group, change| tell(be128(group, 0), change));
        }
        _ => return None,
    }
    Some(())
}

/// The sum of the pseudo-header of ICMPv6 (RFC 8200, section 8.1).
fn pseudo_sum6(from: u128, to: u128, len: usize) -> u64 {
    let tail = [0, 0, 0, protocol::ICMPV6];
    checksum::sum(&from.to_be_bytes())
        + checksum::sum(&to.to_be_bytes())
        + checksum::sum(&(len as u32).to_be_bytes())
        + checksum::sum(&tail)
}

/// Bytes of the headers in front of an IGMP message: with the router alert option (RFC 2113).
const BEFORE_IGMP: usize = ETHERNET_LEN + ipv4::HEADER_LEN + 4;
/// The same of MLD: with the router alert in a hop-by-hop header (RFC 2711).
const BEFORE_MLD: usize = ETHERNET_LEN + ipv6::HEADER_LEN + 8;

/// The most groups of one report that the switch writes.
pub const REPORTED_MAX: usize = 32;
/// The longest frame that the functions of this file write.
pub const FRAME_MAX: usize = BEFORE_MLD + 8 + REPORTED_MAX * 20;

/// Writes the headers around an IGMP message that is there, and its checksum.
fn finish_igmp(frame: &mut [u8], from_mac: [u8; 6], from: u32, to: u32) {
    let len = frame.len() - ETHERNET_LEN;
    ethernet::write(frame, addr::group_mac4(to), from_mac, ethertype::IPV4);
    let (head, message) = frame[ETHERNET_LEN..].split_at_mut(ipv4::HEADER_LEN + 4);
    message[2..4].fill(0);
    let sum = !checksum::folded(checksum::sum(message));
    message[2..4].copy_from_slice(&sum.to_ne_bytes());
    // Internetwork control, as RFC 3376, section 4, has it; one hop.
    head[..2].copy_from_slice(&[0x46, 0xc0]);
    head[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    head[4..12].copy_from_slice(&[0, 0, 0, 0, 1, protocol::IGMP, 0, 0]);
    head[12..16].copy_from_slice(&from.to_be_bytes());
    head[16..20].copy_from_slice(&to.to_be_bytes());
    head[20..].copy_from_slice(&[0x94, 4, 0, 0]);
    let sum = !checksum::folded(checksum::sum(head));
    head[10..12].copy_from_slice(&sum.to_ne_bytes());
}

/// Writes the headers around an MLD message that is there, and its checksum.
fn finish_mld(frame: &mut [u8], from_mac: [u8; 6], from: u128, to: u128) {
    let len = frame.len() - ETHERNET_LEN - ipv6::HEADER_LEN;
    ethernet::write(frame, addr::group_mac(to), from_mac, ethertype::IPV6);
    let (head, message) = frame[ETHERNET_LEN..].split_at_mut(ipv6::HEADER_LEN + 8);
    message[2..4].fill(0);
    let sum = pseudo_sum6(from, to, message.len()) + checksum::sum(message);
    message[2..4].copy_from_slice(&(!checksum::folded(sum)).to_ne_bytes());
    head[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    head[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    head[6..8].copy_from_slice(&[protocol::HOP_BY_HOP, 1]);
    head[8..24].copy_from_slice(&from.to_be_bytes());
    head[24..40].copy_from_slice(&to.to_be_bytes());
    head[40..].copy_from_slice(&[protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
}

/// The seconds to answer in: a group's listeners have less time than all.
fn response_s(group: u128) -> u8 {
    if group == 0 {
        RESPONSE_S
    } else {
        LAST_MEMBER_S
    }
}

/// Writes a query of IGMPv3 from the router `own`, for one group or, with 0, for all; returns the
/// frame's length.
///
/// # Panics
/// If `bytes` are fewer than [`FRAME_MAX`].
pub fn igmp_query(bytes: &mut [u8], (mac, own): ([u8; 6], u32), group: u32) -> usize {
    let len = BEFORE_IGMP + 12;
    let tenths = response_s(group.into()) * 10;
    let message = &mut bytes[BEFORE_IGMP..len];
    message[..4].copy_from_slice(&[igmp::QUERY, tenths, 0, 0]);
    message[4..8].copy_from_slice(&group.to_be_bytes());
    message[8..].copy_from_slice(&[ROBUSTNESS, INTERVAL_S, 0, 0]);
    let to = if group == 0 {
        addr::ALL_SYSTEMS4
    } else {
        group
    };
    finish_igmp(&mut bytes[..len], mac, own, to);
    len
}

/// As [`igmp_query`], of MLDv2.
///
/// # Panics
/// If `bytes` are fewer than [`FRAME_MAX`].
pub fn mld_query(bytes: &mut [u8], (mac, own): ([u8; 6], u128), group: u128) -> usize {
    let len = BEFORE_MLD + 28;
    let milliseconds = u16::from(response_s(group)) * 1000;
    let message = &mut bytes[BEFORE_MLD..len];
    message[..4].copy_from_slice(&[icmpv6::MLD_QUERY, 0, 0, 0]);
    message[4..6].copy_from_slice(&milliseconds.to_be_bytes());
    message[6..8].fill(0);
    message[8..24].copy_from_slice(&group.to_be_bytes());
    message[24..].copy_from_slice(&[ROBUSTNESS, INTERVAL_S, 0, 0]);
    let to = if group == 0 { addr::ALL_NODES } else { group };
    finish_mld(&mut bytes[..len], mac, own, to);
    len
}

/// The record of a switch that reports as a host.
fn record_of(change: Change) -> u8 {
    match change {
        Change::Join => record::MODE_IS_EXCLUDE,
        Change::Leave => record::CHANGE_TO_INCLUDE,
    }
}

/// Writes a report of IGMPv3 of up to [`REPORTED_MAX`] groups, from no address (RFC 3376, section
/// 4.2.13); returns the frame's length.
///
/// # Panics
/// If `bytes` are fewer than [`FRAME_MAX`], or there are more groups.
pub fn igmp_report(bytes: &mut [u8], mac: [u8; 6], groups: &[(u32, Change)]) -> usize {
    let len = BEFORE_IGMP + 8 + groups.len() * 8;
    let message = &mut bytes[BEFORE_IGMP..len];
    message[..6].copy_from_slice(&[igmp::REPORT_V3, 0, 0, 0, 0, 0]);
    message[6..8].copy_from_slice(&(groups.len() as u16).to_be_bytes());
    for ((group, change), record) in groups.iter().zip(message[8..].chunks_exact_mut(8)) {
        record[..4].copy_from_slice(&[record_of(*change), 0, 0, 0]);
        record[4..].copy_from_slice(&group.to_be_bytes());
    }
    finish_igmp(&mut bytes[..len], mac, 0, addr::ALL_IGMP_ROUTERS4);
    len
}

/// As [`igmp_report`], of MLDv2, from a link-local address.
///
/// # Panics
/// If `bytes` are fewer than [`FRAME_MAX`], or there are more groups.
pub fn mld_report(
    bytes: &mut [u8],
    (mac, own): ([u8; 6], u128),
    groups: &[(u128, Change)],
) -> usize {
    let len = BEFORE_MLD + 8 + groups.len() * 20;
    let message = &mut bytes[BEFORE_MLD..len];
    message[..6].copy_from_slice(&[icmpv6::MLD2_REPORT, 0, 0, 0, 0, 0]);
    message[6..8].copy_from_slice(&(groups.len() as u16).to_be_bytes());
    for ((group, change), record) in groups.iter().zip(message[8..].chunks_exact_mut(20)) {
        record[..4].copy_from_slice(&[record_of(*change), 0, 0, 0]);
        record[4..].copy_from_slice(&group.to_be_bytes());
    }
    finish_mld(&mut bytes[..len], mac, own, addr::ALL_MLD_ROUTERS);
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OWN6: u128 = 0xfe80 << 112 | 1;

    fn told4(frame: &[u8]) -> Option<Vec<(u128, Change)>> {
        let packet = &frame[ETHERNET_LEN..];
        let ip = ipv4::parse(packet).ok()?;
        let mut told = Vec::new();
        igmp_reports(&ip, packet, |group, change| told.push((group, change)))?;
        Some(told)
    }

    fn told6(frame: &[u8]) -> Option<Vec<(u128, Change)>> {
        let packet = &frame[ETHERNET_LEN..];
        let ip = ipv6::parse(packet).ok()?;
        let mut told = Vec::new();
        mld_reports(&ip, packet, |group, change| told.push((group, change)))?;
        Some(told)
    }

    #[test]
    fn written_reports_are_read_again() {
        let mut bytes = [0xee; FRAME_MAX];
        let (one, two) = (0xefc0_0101, 0xe000_0012);
        let len = igmp_report(
            &mut bytes,
            MAC,
            &[(one, Change::Join), (two, Change::Leave)],
        );
        let expected = vec![
            (addr::mapped4(one), Change::Join),
            (addr::mapped4(two), Change::Leave),
        ];
        assert_eq!(told4(&bytes[..len]), Some(expected));
        let groups: Vec<_> = (1..=REPORTED_MAX as u128)
            .map(|last| (0xff05 << 112 | last, Change::Join))
            .collect();
        let len = mld_report(&mut bytes, (MAC, OWN6), &groups);
        assert_eq!(len, FRAME_MAX);
        assert_eq!(told6(&bytes[..len]), Some(groups));
    }

    #[test]
    fn damaged_reports_say_nothing() {
        let mut bytes = [0; FRAME_MAX];
        let len = igmp_report(&mut bytes, MAC, &[(0xefc0_0101, Change::Join)]);
        for at in BEFORE_IGMP..len {
            let mut damaged = bytes[..len].to_vec();
            damaged[at] ^= 1;
            assert_eq!(told4(&damaged), None, "{at}");
        }
        let len = mld_report(&mut bytes, (MAC, OWN6), &[(0xff05 << 112, Change::Join)]);
        for at in BEFORE_MLD + 1..len {
            let mut damaged = bytes[..len].to_vec();
            damaged[at] ^= 1;
            assert_eq!(told6(&damaged), None, "{at}");
        }
    }

    #[test]
    fn queries_are_sound_and_no_report() {
        let mut bytes = [0xee; FRAME_MAX];
        for group in [0, 0xefc0_0101] {
            let len = igmp_query(&mut bytes, (MAC, 0x0a00_0001), group);
            let packet = &bytes[ETHERNET_LEN..len];
            let ip = ipv4::parse(packet).expect("IPv4");
            assert!(checksum::holds(ip.payload(packet)));
            assert_eq!((ip.igmp_type(), ip.ttl), (Some(igmp::QUERY), 1));
            assert_eq!(told4(&bytes[..len]), None);
        }
        for group in [0, 0xff05 << 112 | 7] {
            let len = mld_query(&mut bytes, (MAC, OWN6), group);
            let packet = &bytes[ETHERNET_LEN..len];
            let ip = ipv6::parse(packet).expect("IPv6");
            let sum =
                pseudo_sum6(ip.source, ip.destination, 28) + checksum::sum(ip.payload(packet));
            assert_eq!(checksum::folded(sum), u16::MAX);
            assert_eq!((ip.icmp_type(), ip.hop_limit), (Some(icmpv6::MLD_QUERY), 1));
            assert_eq!(told6(&bytes[..len]), None);
        }
    }

    #[test]
    fn records_say_join_or_leave() {
        use Change::{Join, Leave};
        for (kind, sources, expected) in [
            (1, 0, Some(Leave)),
            (1, 2, Some(Join)),
            (2, 0, Some(Join)),
            (2, 3, Some(Join)),
            (3, 0, Some(Leave)),
            (3, 1, Some(Join)),
            (4, 0, Some(Join)),
            (5, 0, None),
            (5, 1, Some(Join)),
            (6, 1, None),
            (7, 0, None),
        ] {
            assert_eq!(change_of(kind, sources), expected, "{kind} {sources}");
        }
    }
}
