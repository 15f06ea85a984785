//! What may come from the underlay: the rows of "From the uplink".

use packet::number::ethertype;
use packet::wire::icmp;
use packet::wire::{Arp, ETHERNET_LEN, Ip, Ipv4, Ipv6, Packet, arp, ipv4, ipv6, mac_at};
use packet::{DropReason, Frame, addr};

use super::ethernet::{self, Sender, Station};
use super::outside;
use crate::tables::{Tables, Target, UplinkRules};

/// Accepts what may come from the underlay, and writes it to `packet`.
#[inline(always)]
pub(crate) fn from_uplink(
    tables: &Tables,
    uplink: &UplinkRules,
    frame: &mut Frame<'_>,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    let station = Station {
        sender: Sender::Other(uplink.mac),
        mtu: uplink.mtu,
        trunk: &[ethernet::PRIORITY_VID],
    };
    let ethertype = ethernet::parse(&station, frame, packet)?;
    let bytes = frame.bytes();
    let payload = &bytes[ETHERNET_LEN..];
    outside::known_ethertype(ethertype)?;
    if uplink.software_mac_filter && !packet.group && mac_at(bytes, 0) != uplink.mac {
        return Err(DropReason::DstMac);
    }
    match ethertype {
        ethertype::IPV4 => packet.ip = Ip::V4(ipv4_from_uplink(tables, payload)?),
        ethertype::IPV6 => packet.ip = Ip::V6(ipv6_from_uplink(tables, payload)?),
        _ => packet.ip = Ip::Arp(arp_from_uplink(tables, uplink, payload)?),
    }
    Ok(())
}

/// Row 2 of "From the uplink", as far as the filter goes.
fn arp_from_uplink(
    tables: &Tables,
    uplink: &UplinkRules,
    payload: &[u8],
) -> Result<Arp, DropReason> {
    let arp = arp::parse(payload)?;
    // It need not be the frame's source: routers that share an address (VRRP, CARP) say the virtual
    // MAC in a frame from their own.
    if !uplink.is_other_station(arp.sender_mac) {
        return Err(DropReason::ArpSenderMac);
    }
    let sender = arp.sender_ip;
    let no_station = addr::is_martian_source4(sender)
        || addr::is_reserved4(sender)
        || (addr::is_this_network4(sender) && sender != 0)
        || tables.route4(sender) == Some(Target::UnderlayEdge);
    if no_station {
        return Err(DropReason::ArpSenderIp);
    }
    Ok(arp)
}

#[inline(always)]
fn ipv4_from_uplink(tables: &Tables, payload: &[u8]) -> Result<Ipv4, DropReason> {
    let ip = ipv4::parse(payload)?;
    let closed =
        addr::is_invalid_outside_source4(ip.source) || tables.is_inside4(ip.source, ip.destination);
    if closed && !is_report4(tables, &ip, payload) {
        return Err(DropReason::IngressSource);
    }
    outside::services4(&ip, payload)?;
    Ok(ip)
}

#[inline(always)]
fn ipv6_from_uplink(tables: &Tables, payload: &[u8]) -> Result<Ipv6, DropReason> {
    let ip = ipv6::parse(payload)?;
    let closed = outside::has_invalid_source6(&ip)
        || tables.is_inside6(ip.source, ip.destination)
        || tables.stands_for_closed4(ip.source);
    if closed && !is_report6(tables, &ip, payload) {
        return Err(DropReason::IngressSource);
    }
    outside::services6(&ip, payload)?;
    Ok(ip)
}

/// Whether the packet says that one of the tunnel's was too big or did not get there. The links of
/// the router that says so may be numbered as the tenant's network is, or not at all (RFC 7404): it
/// is judged by what it quotes.
#[cold]
fn is_report4(tables: &Tables, ip: &Ipv4, packet: &[u8]) -> bool {
    let router = addr::is_routable4(ip.source) || addr::is_link_local4(ip.source);
    router
        && is_report(
            tables,
            tables.route4(ip.source),
            tables.route4(ip.destination),
        )
        && icmp::report4(ip, packet).is_some()
}

/// As [`is_report4`].
#[cold]
fn is_report6(tables: &Tables, ip: &Ipv6, packet: &[u8]) -> bool {
    let router = addr::is_link_local6(ip.source) || !outside::has_invalid_source6(ip);
    router
        && !tables.stands_for_closed4(ip.source)
        && is_report(
            tables,
            tables.route6(ip.source),
            tables.route6(ip.destination),
        )
        && icmp::report6(ip, packet).is_some()
}

/// Whether these may be the ends of a report.
fn is_report(tables: &Tables, from: Option<Target>, to: Option<Target>) -> bool {
    tables.tunnel.is_some()
        && to == Some(Target::UplinkSelf)
        && !matches!(from, Some(Target::UplinkSelf | Target::UnderlayEdge))
}
