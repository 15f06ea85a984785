//! What a port's VM may send: the rows of "From a port".

use packet::number::{ethertype, icmpv6, port, protocol};
use packet::wire::{Arp, ETHERNET_LEN, Fragment, Ip, Ipv4, Ipv6, Packet, arp, ipv4, ipv6, mac_at};
use packet::{DropReason, Frame, addr};

use super::ethernet::{self, Sender, Station};
use super::outside::not_of_routers;
use super::owner::Owner;
use super::{dhcp, encapsulation, nd};
use crate::state::State;
use crate::tables::{PortRules, Tables};

/// Accepts what a port's VM may send, and writes it to `packet`. The state has what ports have
/// claimed; `leased` is the address that DHCP gave the port.
#[inline(always)]
pub(crate) fn from_port(
    (tables, state, now_ns): (&Tables, &State, u64),
    (rules, leased): (&PortRules, Option<u32>),
    frame: &mut Frame<'_>,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    let station = Station {
        sender: Sender::Port(rules),
        mtu: rules.mtu,
        trunk: &rules.trunk,
    };
    let ethertype = ethernet::parse(&station, frame, packet)?;
    // Each row has its own: one for all would lie in memory, for the sake of Neighbour Discovery.
    let owner = || Owner {
        tables,
        rules,
        leased,
        state,
        now_ns,
    };
    let bytes = frame.bytes();
    let payload = &bytes[ETHERNET_LEN..];
    // Each writes its own: a value that is chosen among them would be copied field by field.
    match ethertype {
        ethertype::IPV4 => packet.ip = Ip::V4(ipv4_from_port(&owner(), payload)?),
        ethertype::IPV6 if rules.deny_ipv6 => return Err(DropReason::EtherType),
        ethertype::IPV6 => packet.ip = Ip::V6(ipv6_from_port(&owner(), payload)?),
        ethertype::ARP => {
            packet.ip = Ip::Arp(arp_from_port(&owner(), mac_at(bytes, 6), payload)?);
        }
        ethertype::RARP if is_own_announcement(rules, bytes) => packet.ip = Ip::Rarp,
        ethertype::RARP => return Err(DropReason::Rarp),
        _ => return Err(DropReason::EtherType),
    }
    Ok(())
}

/// Row "Ethernet 7": QEMU's announcement after a migration.
fn is_own_announcement(rules: &PortRules, bytes: &[u8]) -> bool {
    rules.announce
        && mac_at(bytes, 0) == addr::BROADCAST_MAC
        && arp::is_announcement(&bytes[ETHERNET_LEN..], rules.mac)
}

#[inline(always)]
fn arp_from_port(owner: &Owner<'_>, source: [u8; 6], payload: &[u8]) -> Result<Arp, DropReason> {
    let arp = super::arp::of_station(source, payload)?;
    let probe = arp.request && arp.sender_ip == 0;
    if !probe && !owner.has4(arp.sender_ip) {
        return Err(DropReason::ArpSenderIp);
    }
    Ok(arp)
}

#[inline(always)]
fn ipv4_from_port(owner: &Owner<'_>, payload: &[u8]) -> Result<Ipv4, DropReason> {
    let ip = ipv4::parse(payload)?;
    let rules = owner.rules;
    if !owner.has4(ip.source) {
        if ip.source != 0 {
            return Err(DropReason::Ipv4Source);
        }
        dhcp::client_broadcast(rules, &ip, payload)?;
    }
    if let Some(udp) = ip.udp() {
        dhcp::from_port(rules, &ip, udp, payload)?;
    } else {
        not_of_routers(&ip)?;
    }
    if rules.deny_encapsulation && encapsulation::is_carrier4(&ip, payload) {
        return Err(DropReason::Encapsulation);
    }
    Ok(ip)
}

#[inline(always)]
fn ipv6_from_port(owner: &Owner<'_>, payload: &[u8]) -> Result<Ipv6, DropReason> {
    let ip = ipv6::parse(payload)?;
    let rules = owner.rules;
    if ip.source == 0 {
        let allowed = ip.icmp_type().is_some_and(icmpv6::is_from_unspecified);
        if !allowed || ip.fragment != Fragment::Whole {
            return Err(DropReason::Ipv6Source);
        }
    } else if !owner.has6(ip.source) && !claims_source(owner, &ip) {
        return Err(DropReason::Ipv6Source);
    }
    if let Some(udp) = ip.udp() {
        dhcp::from_port6(rules, &ip, udp, payload)?;
    }
    if rules.deny_encapsulation && encapsulation::is_carrier6(&ip, payload) {
        return Err(DropReason::Encapsulation);
    }
    if ip.upper == protocol::ICMPV6 && ip.fragment != Fragment::Later {
        nd::from_port(owner, &ip, payload)?;
    }
    Ok(ip)
}

/// Row "IPv6 3": whether the packet claims the address that it comes from.
#[cold]
fn claims_source(owner: &Owner<'_>, ip: &Ipv6) -> bool {
    let by_nd = matches!(
        ip.icmp_type(),
        Some(icmpv6::ROUTER_SOLICITATION | icmpv6::NEIGHBOR_SOLICITATION)
    );
    let by_dhcp = ip.udp().is_some_and(|(_, to)| to == port::DHCPV6_SERVER);
    (by_nd || by_dhcp) && owner.may_claim(ip.source)
}
