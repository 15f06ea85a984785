//! Who may send which message of DHCP and DHCPv6.

use packet::DropReason;
use packet::number::{port, protocol};
use packet::wire::dhcp::{self, ClientMessage};
use packet::wire::{Fragment, Ipv4, Ipv6, dhcp6};

use crate::tables::PortRules;

/// Row "IPv4 5": from 0.0.0.0 there is nothing but a DHCP client's broadcast.
pub(super) fn client_broadcast(
    rules: &PortRules,
    ip: &Ipv4,
    packet: &[u8],
) -> Result<(), DropReason> {
    if ip.destination != u32::MAX || ip.protocol != protocol::UDP {
        return Err(DropReason::Ipv4Source);
    }
    if is_client(rules, ip, packet) {
        Ok(())
    } else {
        Err(DropReason::DhcpClient)
    }
}

/// Row "IPv4 7".
#[inline(always)]
pub(super) fn from_port(
    rules: &PortRules,
    ip: &Ipv4,
    (from, to): (u16, u16),
    packet: &[u8],
) -> Result<(), DropReason> {
    if rules.dhcp_server {
        return Ok(());
    }
    not_from_server(ip, (from, to), packet)?;
    if to == port::DHCP_SERVER && !is_client(rules, ip, packet) {
        return Err(DropReason::DhcpClient);
    }
    Ok(())
}

/// A message of the port's own DHCP client, to any address.
fn is_client(rules: &PortRules, ip: &Ipv4, packet: &[u8]) -> bool {
    dhcp::is_request(ip)
        && ClientMessage::parse(ip.payload(packet))
            .is_some_and(|message| message.bootp.client_mac == rules.mac)
}

/// Row "IPv4 7", the first half. The next fragment may change what a first one seems to carry, so a
/// first fragment is not trusted.
#[inline(always)]
pub(super) fn not_from_server(
    ip: &Ipv4,
    (from, to): (u16, u16),
    packet: &[u8],
) -> Result<(), DropReason> {
    let reply = || ip.fragment == Fragment::First || dhcp::is_reply_payload(ip.udp_payload(packet));
    if from == port::DHCP_SERVER || (to == port::DHCP_CLIENT && reply()) {
        return Err(DropReason::DhcpServer);
    }
    Ok(())
}

/// Row 5 of "From the uplink": servers would believe what a client outside says of those inside.
#[inline(always)]
pub(super) fn not_to_server((_, to): (u16, u16)) -> Result<(), DropReason> {
    if to == port::DHCP_SERVER {
        return Err(DropReason::DhcpClient);
    }
    Ok(())
}

/// As [`not_to_server`].
#[inline(always)]
pub(super) fn not_to_server6(udp: Option<(u16, u16)>) -> Result<(), DropReason> {
    match udp {
        Some((_, port::DHCPV6_SERVER)) => Err(DropReason::Dhcpv6Client),
        _ => Ok(()),
    }
}

/// Row "IPv6 4".
#[inline(always)]
pub(super) fn from_port6(
    rules: &PortRules,
    ip: &Ipv6,
    (from, to): (u16, u16),
    packet: &[u8],
) -> Result<(), DropReason> {
    if rules.dhcp_server {
        return Ok(());
    }
    not_from_server6(Some((from, to)))?;
    if to == port::DHCPV6_SERVER && !is_client6(ip, packet) {
        return Err(DropReason::Dhcpv6Client);
    }
    Ok(())
}

/// A message of a DHCPv6 client.
fn is_client6(ip: &Ipv6, packet: &[u8]) -> bool {
    ip.fragment == Fragment::Whole && dhcp6::ClientMessage::parse(ip.payload(packet)).is_some()
}

/// Row "IPv6 4", the first half.
#[inline(always)]
pub(super) fn not_from_server6(udp: Option<(u16, u16)>) -> Result<(), DropReason> {
    match udp {
        Some((from, to)) if port::is_dhcpv6_server(from, to) => Err(DropReason::Dhcpv6Server),
        _ => Ok(()),
    }
}
