//! The one table of assigned numbers that the filter refuses, and why.
//!
//! The filter and the fast path take their look-ups from it. The specification's page is compared
//! with it, and so can other rules be that must agree with the filter.

use crate::number::{ethertype, icmp, icmpv6, port, protocol};
use crate::reason::DropReason;

/// A field of a frame that holds an assigned number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// Ethernet's type.
    EtherType,
    /// The protocol of IPv4, the upper layer of IPv6.
    Protocol,
    /// UDP's source port.
    UdpSource,
    /// UDP's destination port.
    UdpDestination,
    /// The type of ICMP in IPv4.
    Icmp,
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
    /// Where the port denies encapsulation.
    EncapsulationDenied,
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
    use Field::{EtherType, Icmp, Icmpv6, Protocol, UdpDestination, UdpSource};
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
        row(UdpSource, port::TEREDO, Encapsulation, EncapsulationDenied),
        row(
            UdpDestination,
            port::TEREDO,
            Encapsulation,
            EncapsulationDenied,
        ),
        row(
            Protocol,
            protocol::IPV4 as u16,
            Encapsulation,
            EncapsulationDenied,
        ),
        row(
            Protocol,
            protocol::IPV6 as u16,
            Encapsulation,
            EncapsulationDenied,
        ),
        row(
            Protocol,
            protocol::GRE as u16,
            Encapsulation,
            EncapsulationDenied,
        ),
        row(Icmp, icmp::REDIRECT as u16, Redirect, Always),
        row(
            Icmp,
            icmp::ROUTER_ADVERTISEMENT as u16,
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

static REFUSED_PROTOCOLS: [Option<DropReason>; 256] = reasons_of(Field::Protocol);
static REFUSED_ICMP: [Option<DropReason>; 256] = reasons_of(Field::Icmp);
static REFUSED_ICMPV6: [Option<DropReason>; 256] = reasons_of(Field::Icmpv6);

/// Why a port that denies encapsulation may not send that protocol.
#[inline(always)]
pub fn protocol_reason(protocol: u8) -> Option<DropReason> {
    REFUSED_PROTOCOLS[usize::from(protocol)]
}

/// Why nobody may send that ICMP type.
#[inline(always)]
pub fn icmp_reason(kind: u8) -> Option<DropReason> {
    REFUSED_ICMP[usize::from(kind)]
}

/// Why nobody may send that ICMPv6 type.
#[inline(always)]
pub fn icmpv6_reason(kind: u8) -> Option<DropReason> {
    REFUSED_ICMPV6[usize::from(kind)]
}

/// The UDP ports of one field that mean something to the filter or to storm control, which a fast
/// path must leave to the general one, repeated until there are eight.
pub const fn special_ports(field: Field) -> [u16; 8] {
    let mut ports = [0; 8];
    let mut count = 0;
    let mut at = 0;
    while at < REFUSED.len() {
        if REFUSED[at].field as u8 == field as u8 {
            ports[count] = REFUSED[at].number;
            count += 1;
        }
        at += 1;
    }
    if matches!(field, Field::UdpDestination) {
        // Not refused, but counted as DHCP.
        ports[count] = port::DHCPV6_SERVER;
        count += 1;
    }
    let mut copy = 0;
    while count + copy < ports.len() {
        ports[count + copy] = ports[copy];
        copy += 1;
    }
    ports
}

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
            assert_eq!(protocol_reason(number), of(Field::Protocol));
            assert_eq!(icmp_reason(number), of(Field::Icmp));
            assert_eq!(icmpv6_reason(number), of(Field::Icmpv6));
        }
    }

    #[test]
    fn special_ports_cover_refusals_and_dhcp() {
        let from = special_ports(Field::UdpSource);
        let to = special_ports(Field::UdpDestination);
        for number in 0..=u16::MAX {
            let refused = |field| {
                let mut rows = REFUSED.iter();
                rows.any(|row| row.field == field && row.number == number)
            };
            let special = refused(Field::UdpSource);
            assert_eq!(from.contains(&number), special, "from {number}");
            let special = refused(Field::UdpDestination) || port::is_dhcp(number);
            assert_eq!(to.contains(&number), special, "to {number}");
        }
    }
}
