//! Rows that the uplink and the tunnel share: what may come from outside.

use packet::number::{ethertype, icmpv6};
use packet::refused::{icmp_reason, igmp_reason};
use packet::wire::{Ipv4, Ipv6, Transport};
use packet::{DropReason, addr};

use super::{dhcp, nd};

/// Ethernet rows 7 and 8, where no station may announce.
pub(super) fn known_ethertype(ethertype: u16) -> Result<(), DropReason> {
    match ethertype {
        ethertype::IPV4 | ethertype::IPV6 | ethertype::ARP => Ok(()),
        ethertype::RARP => Err(DropReason::Rarp),
        _ => Err(DropReason::EtherType),
    }
}

/// Sources that are invalid on the wire, in addition to those that are always invalid. Link-local
/// and unspecified sources may use the protocols of their own link.
#[inline(always)]
pub(super) fn has_invalid_source6(ip: &Ipv6) -> bool {
    let embedded = ip.source != 0 && addr::is_embedded4(ip.source);
    let on_link_only = ip.source == 0 || addr::is_link_local6(ip.source);
    let on_link_protocol = ip.icmp_type().is_some_and(icmpv6::is_on_link);
    embedded || addr::is_multicast6(ip.source) || (on_link_only && !on_link_protocol)
}

/// Row 5 of "From the uplink", for IPv4.
#[inline(always)]
pub(super) fn services4(ip: &Ipv4, packet: &[u8]) -> Result<(), DropReason> {
    if let Some(udp) = ip.udp() {
        dhcp::not_from_server(ip, udp, packet)?;
        dhcp::not_to_server(udp)?;
    }
    not_of_routers(ip)
}

/// Rows "IPv4 8 and 9".
#[inline(always)]
pub(super) fn not_of_routers(ip: &Ipv4) -> Result<(), DropReason> {
    let refused = match ip.transport {
        Transport::Icmp { kind } => icmp_reason(kind),
        Transport::Igmp { kind } => igmp_reason(kind),
        _ => None,
    };
    match refused {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}

/// Rows 5 and 6 of "From the uplink", for IPv6.
#[inline(always)]
pub(super) fn services6(ip: &Ipv6, packet: &[u8]) -> Result<(), DropReason> {
    dhcp::not_from_server6(ip.udp())?;
    dhcp::not_to_server6(ip.udp())?;
    nd::from_outside(ip, packet)
}
