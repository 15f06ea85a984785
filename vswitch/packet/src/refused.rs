//! The one table of assigned numbers that the filter refuses, and why.
//!
//! The filter and the fast path take their look-ups from it. The specification's page is compared
//! with it, and so can other rules be that must agree with the filter.

use crate::encapsulation;
use crate::number::{ethertype, icmp, icmpv6, igmp, port};
use crate::port_set::{PortSet, factor_of};
use crate::reason::DropReason;

/// A field of a frame that holds an assigned number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// Ethernet's type.
    EtherType,
    /// UDP's source port.
    UdpSource,
    /// UDP's destination port.
    UdpDestination,
    /// The type of ICMP in IPv4.
    Icmp,
    /// The type of IGMP.
    Igmp,
    /// The type of ICMPv6.
    Icmpv6,
}

/// The condition under which a number is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Always, from a port and from the underlay.
    Always,
    /// Unless the port may use this tag.
    NoTrunk,
    /// Unless the port is a DHCP server.
    NoDhcpServer,
    /// As [`Self::NoDhcpServer`], and only in a first fragment or a server's message.
    NoDhcpServerReply,
    /// Unless the port is a DHCP server, or it is a DHCP client's message of the port.
    NoDhcpClient,
}

/// A number that the filter refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Refused {
    /// The field that holds the number.
    pub field: Field,
    /// The number.
    pub number: u16,
    /// The reason of the drop.
    pub reason: DropReason,
    /// When it is refused.
    pub condition: Condition,
}

/// One row of [`REFUSED`].
const fn row(field: Field, number: u16, reason: DropReason, condition: Condition) -> Refused {
    Refused {
        field,
        number,
        reason,
        condition,
    }
}

/// Every assigned number that the filter refuses, and why.
pub const REFUSED: &[Refused] = {
    use Condition::*;
    use DropReason::*;
    use Field::{EtherType, Icmp, Icmpv6, Igmp, UdpDestination, UdpSource};
    &[
        row(EtherType, ethertype::VLAN, VlanTag, NoTrunk),
        row(EtherType, ethertype::SERVICE_VLAN, VlanTag, Always),
        row(EtherType, ethertype::OLD_SERVICE_VLAN, VlanTag, Always),
        row(EtherType, ethertype::LLDP, LinkLocalL2, Always),
        row(EtherType, ethertype::PAUSE, LinkLocalL2, Always),
        row(UdpSource, port::DHCP_SERVER, DhcpServer, NoDhcpServer),
        row(
            UdpDestination,
            port::DHCP_CLIENT,
            DhcpServer,
            NoDhcpServerReply,
        ),
        row(UdpDestination, port::DHCP_SERVER, DhcpClient, NoDhcpClient),
        row(UdpSource, port::DHCPV6_SERVER, Dhcpv6Server, NoDhcpServer),
        row(
            UdpDestination,
            port::DHCPV6_CLIENT,
            Dhcpv6Server,
            NoDhcpServer,
        ),
        row(
            UdpDestination,
            port::DHCPV6_SERVER,
            Dhcpv6Client,
            NoDhcpClient,
        ),
        row(Icmp, icmp::REDIRECT as u16, Redirect, Always),
        row(Icmp, icmp::MOBILE_REDIRECT as u16, Redirect, Always),
        row(
            Icmp,
            icmp::ROUTER_ADVERTISEMENT as u16,
            RouterAdvertisement,
            Always,
        ),
        row(Igmp, igmp::QUERY as u16, IgmpQuery, Always),
        row(Igmp, igmp::DVMRP as u16, RouterAdvertisement, Always),
        row(Igmp, igmp::PIM as u16, RouterAdvertisement, Always),
        row(
            Igmp,
            igmp::MULTICAST_ROUTER_ADVERTISEMENT as u16,
            RouterAdvertisement,
            Always,
        ),
        row(
            Igmp,
            igmp::MULTICAST_ROUTER_TERMINATION as u16,
            RouterAdvertisement,
            Always,
        ),
        row(Icmpv6, icmpv6::MLD_QUERY as u16, MldQuery, Always),
        row(
            Icmpv6,
            icmpv6::ROUTER_ADVERTISEMENT as u16,
            RouterAdvertisement,
            Always,
        ),
        row(Icmpv6, icmpv6::REDIRECT as u16, Redirect, Always),
        row(
            Icmpv6,
            icmpv6::ROUTER_RENUMBERING as u16,
            RouterAdvertisement,
            Always,
        ),
        row(
            Icmpv6,
            icmpv6::HOME_AGENT_REPLY as u16,
            RouterAdvertisement,
            Always,
        ),
        row(
            Icmpv6,
            icmpv6::MOBILE_PREFIX_ADVERTISEMENT as u16,
            RouterAdvertisement,
            Always,
        ),
        row(
            Icmpv6,
            icmpv6::CERTIFICATION_PATH_ADVERTISEMENT as u16,
            RouterAdvertisement,
            Always,
        ),
        row(
            Icmpv6,
            icmpv6::FAST_HANDOVER as u16,
            RouterAdvertisement,
            Always,
        ),
        row(Icmpv6, icmpv6::RPL as u16, RouterAdvertisement, Always),
        row(Icmpv6, icmpv6::LOCATOR_UPDATE as u16, Redirect, Always),
        row(
            Icmpv6,
            icmpv6::DUPLICATE_ADDRESS_REQUEST as u16,
            NdSpoof,
            Always,
        ),
        row(
            Icmpv6,
            icmpv6::DUPLICATE_ADDRESS_CONFIRMATION as u16,
            NdSpoof,
            Always,
        ),
        row(Icmpv6, icmpv6::INVERSE_SOLICITATION as u16, NdSpoof, Always),
        row(
            Icmpv6,
            icmpv6::INVERSE_ADVERTISEMENT as u16,
            NdSpoof,
            Always,
        ),
        row(
            Icmpv6,
            icmpv6::MULTICAST_ROUTER_ADVERTISEMENT as u16,
            RouterAdvertisement,
            Always,
        ),
        row(
            Icmpv6,
            icmpv6::MULTICAST_ROUTER_TERMINATION as u16,
            RouterAdvertisement,
            Always,
        ),
    ]
};

/// The reasons of [`REFUSED`] for a field of one byte, by its number.
const fn reasons_of(field: Field) -> [Option<DropReason>; 256] {
    let mut reasons = [None; 256];
    let mut at = 0;
    while at < REFUSED.len() {
        if REFUSED[at].field as u8 == field as u8 {
            reasons[REFUSED[at].number as usize] = Some(REFUSED[at].reason);
        }
        at += 1;
    }
    reasons
}

static REFUSED_ICMP: [Option<DropReason>; 256] = reasons_of(Field::Icmp);
static REFUSED_IGMP: [Option<DropReason>; 256] = reasons_of(Field::Igmp);
static REFUSED_ICMPV6: [Option<DropReason>; 256] = reasons_of(Field::Icmpv6);

/// Why nobody may send that ICMP type.
#[inline(always)]
pub fn icmp_reason(kind: u8) -> Option<DropReason> {
    REFUSED_ICMP[usize::from(kind)]
}

/// Why nobody may send that IGMP type.
#[inline(always)]
pub fn igmp_reason(kind: u8) -> Option<DropReason> {
    REFUSED_IGMP[usize::from(kind)]
}

/// Why nobody may send that ICMPv6 type.
#[inline(always)]
pub fn icmpv6_reason(kind: u8) -> Option<DropReason> {
    REFUSED_ICMPV6[usize::from(kind)]
}

/// How many UDP ports [`REFUSED`] has.
const fn count_ports() -> usize {
    let (mut count, mut at) = (0, 0);
    while at < REFUSED.len() {
        if matches!(REFUSED[at].field, Field::UdpSource | Field::UdpDestination) {
            count += 1;
        }
        at += 1;
    }
    count
}

/// The UDP ports that mean something to the filter or to storm control, of either end, and `more`.
const fn special_ports<const N: usize>(more: &[u16]) -> [u16; N] {
    let mut ports = [0; N];
    let (mut count, mut at) = (0, 0);
    while at < REFUSED.len() {
        if matches!(REFUSED[at].field, Field::UdpSource | Field::UdpDestination) {
            ports[count] = REFUSED[at].number;
            count += 1;
        }
        at += 1;
    }
    let mut at = 0;
    while at < more.len() {
        ports[count] = more[at];
        count += 1;
        at += 1;
    }
    ports
}

const FEW: [u16; count_ports()] = special_ports(&[]);
const MANY: [u16; FEW.len() + encapsulation::UDP_PORTS.len()] =
    special_ports(&encapsulation::UDP_PORTS);

/// A set of UDP ports that a fast path must leave to the general one.
pub type SpecialPorts = PortSet<{ factor_of(&MANY) }>;

/// Those of a port that may encapsulate, and of the underlay.
pub static SPECIAL_PORTS: SpecialPorts = PortSet::new(&FEW);

/// Those of a port that denies encapsulation.
pub static SPECIAL_PORTS_OF_DENYING: SpecialPorts = PortSet::new(&MANY);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_number_appears_once() {
        let mut seen = std::collections::HashSet::new();
        for refused in REFUSED {
            assert!(seen.insert((refused.field, refused.number)), "{refused:?}");
        }
    }

    #[test]
    fn lookup_agrees_with_the_table() {
        for number in 0..=255u8 {
            let of = |field| {
                let mut rows = REFUSED.iter();
                rows.find(|row| row.field == field && row.number == u16::from(number))
                    .map(|row| row.reason)
            };
            assert_eq!(icmp_reason(number), of(Field::Icmp));
            assert_eq!(igmp_reason(number), of(Field::Igmp));
            assert_eq!(icmpv6_reason(number), of(Field::Icmpv6));
        }
    }

    #[test]
    fn special_ports_cover_refusals_and_dhcp() {
        for number in 0..=u16::MAX {
            let udp = |field| matches!(field, Field::UdpSource | Field::UdpDestination);
            let refused = REFUSED
                .iter()
                .any(|row| udp(row.field) && row.number == number);
            let special = refused || port::is_dhcp(number);
            assert_eq!(SPECIAL_PORTS.has(number), special, "{number}");
            let special = special || encapsulation::is_udp((number, 0));
            assert_eq!(SPECIAL_PORTS_OF_DENYING.has(number), special, "{number}");
        }
    }
}
