//! Who may send which message of Neighbour Discovery and MLD (RFC 4861, RFC 4862, RFC 6980).

use packet::number::icmpv6;
use packet::refused::icmpv6_reason;
use packet::wire::Ipv6;
use packet::wire::nd::{Message, SOURCE_LINK_LAYER, TARGET_LINK_LAYER};
use packet::{DropReason, addr};

use super::owner::Owner;

/// Rows "IPv6 6". `packet` begins with the IPv6 header.
pub(super) fn from_port(owner: &Owner<'_>, ip: &Ipv6, packet: &[u8]) -> Result<(), DropReason> {
    let Some(kind) = ip.icmp_type() else {
        return Ok(());
    };
    if icmpv6::is_nd(kind) {
        let message = Message::parse(ip, packet)?;
        let own_mac = |mac: [u8; 6]| owner.rules.has_mac(mac);
        let honest = match kind {
            icmpv6::ROUTER_ADVERTISEMENT | icmpv6::REDIRECT => true,
            icmpv6::NEIGHBOR_SOLICITATION if ip.source == 0 => {
                ip.destination == addr::solicited_node(message.target())
                    && message.link_layer(SOURCE_LINK_LAYER).next().is_none()
            }
            icmpv6::NEIGHBOR_ADVERTISEMENT => {
                owner.has6(message.target()) && message.link_layer(TARGET_LINK_LAYER).all(own_mac)
            }
            _ if ip.source == 0 => message.link_layer(SOURCE_LINK_LAYER).next().is_none(),
            _ => message.link_layer(SOURCE_LINK_LAYER).all(own_mac),
        };
        if !honest {
            return Err(DropReason::NdSpoof);
        }
    }
    not_refused(kind)
}

/// Row 6 of "From the uplink".
pub(super) fn from_outside(ip: &Ipv6, packet: &[u8]) -> Result<(), DropReason> {
    let Some(kind) = ip.icmp_type() else {
        return Ok(());
    };
    if icmpv6::is_nd(kind) {
        Message::parse(ip, packet)?;
    }
    not_refused(kind)
}

/// Types that neither a VM nor the underlay may send.
fn not_refused(kind: u8) -> Result<(), DropReason> {
    match icmpv6_reason(kind) {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}
