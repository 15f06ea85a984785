//! The spoof filter: may this port send this frame? `docs/reference/spoof-filter.md` is its specification, and
//! the functions here follow that page row by row.
//!
//! Default deny: a frame passes only by reaching the end of its function.

use super::nd;
use super::tables::{Lead, PortRules, Tables, UplinkRules};
use super::tunnel::{Ecn, Tunnel};
use super::wire::{
    self, Arp, Bootp, ETHERNET_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_RARP,
    ETHERTYPE_VLAN, Fragment, Ip, Ipv4, Ipv6, Packet, TAG_LEN, Transport, be16, mac_at, protocol,
};
use packet::DropReason;
use packet::Frame;

const BOOTP_SERVER: u16 = 67;
const BOOTP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;
const DHCPV6_SERVER: u16 = 547;
const TEREDO: u16 = 3544;
const BOOTREPLY: u8 = 2;

/// The sender of a frame, as far as the Ethernet rows care.
struct Station<'a> {
    /// The one source MAC (with `extra_macs`), or none where any station may send.
    rules: Option<&'a PortRules>,
    mtu: u16,
    trunk: &'a [u16],
}

/// What the Ethernet rows leave of a frame.
struct Ethernet {
    vid: Option<u16>,
    group: bool,
    ethertype: u16,
}

/// The Ethernet rows 1 to 6, for both sides. Takes an allowed tag out of the frame.
#[inline(always)]
fn ethernet(station: &Station<'_>, frame: &mut Frame<'_>) -> Result<Ethernet, DropReason> {
    let head = frame
        .bytes()
        .first_chunk::<ETHERNET_LEN>()
        .ok_or(DropReason::Malformed)?;
    let mut ethertype = be16(head, 12);
    let group = head[0] & 1 != 0;
    let longest = usize::from(station.mtu) + ETHERNET_LEN;
    if frame.len() > longest {
        let allowance = match frame.bytes().first_chunk::<18>() {
            Some(tagged)
                if ethertype == ETHERTYPE_VLAN
                    && frame.stripped_tag().is_none()
                    && station.lists(be16(tagged, 14)) =>
            {
                TAG_LEN
            }
            _ => 0,
        };
        if frame.len() > longest + allowance {
            return Err(DropReason::Malformed);
        }
    }
    let source = mac_at(head, 6);
    if source[0] & 1 != 0 || source == [0; 6] {
        return Err(DropReason::SrcMacGroup);
    }
    if let Some(rules) = station.rules
        && source != rules.mac
        && !rules.extra_macs.contains(&source)
    {
        return Err(DropReason::SrcMac);
    }
    let mut vid = None;
    if let Some(tag) = frame.stripped_tag() {
        if !station.lists(tag) {
            return Err(DropReason::VlanTag);
        }
        vid = Some(tag & 0x0fff);
    }
    if matches!(ethertype, ETHERTYPE_VLAN | 0x88a8 | 0x9100) {
        if ethertype != ETHERTYPE_VLAN || vid.is_some() || station.trunk.is_empty() {
            return Err(DropReason::VlanTag);
        }
        let tagged = frame
            .bytes()
            .first_chunk::<18>()
            .ok_or(DropReason::Malformed)?;
        if !station.lists(be16(tagged, 14)) {
            return Err(DropReason::VlanTag);
        }
        vid = Some(be16(tagged, 14) & 0x0fff);
        ethertype = be16(tagged, 16);
        if matches!(ethertype, ETHERTYPE_VLAN | 0x88a8 | 0x9100) {
            return Err(DropReason::VlanTag);
        }
        frame.remove_tag();
    }
    if ethertype < 0x0600 {
        return Err(DropReason::Llc);
    }
    if group {
        let to = mac_at(frame.bytes(), 0);
        if to[..5] == [0x01, 0x80, 0xc2, 0x00, 0x00] && to[5] < 0x10 {
            return Err(DropReason::LinkLocalL2);
        }
    }
    if matches!(ethertype, 0x88cc | 0x8808) {
        return Err(DropReason::LinkLocalL2);
    }
    Ok(Ethernet {
        vid,
        group,
        ethertype,
    })
}

impl Station<'_> {
    /// Whether the station may use the tag with this control information.
    #[inline(always)]
    fn lists(&self, tag: u16) -> bool {
        self.trunk.contains(&(tag & 0x0fff))
    }
}

/// Everything a port's VM may send passes; anything else has its reason.
#[inline(always)]
pub(super) fn from_port(
    tables: &Tables,
    rules: &PortRules,
    leased: Option<u32>,
    frame: &mut Frame<'_>,
) -> Result<Packet, DropReason> {
    let station = Station {
        rules: Some(rules),
        mtu: rules.mtu,
        trunk: &rules.trunk,
    };
    let Ethernet {
        vid,
        group,
        ethertype,
    } = ethernet(&station, frame)?;
    let owner = Owner {
        tables,
        rules,
        leased,
    };
    let bytes = frame.bytes();
    let payload = &bytes[ETHERNET_LEN..];
    let ip = match ethertype {
        ETHERTYPE_IPV4 => Ip::V4(ipv4_from_port(&owner, payload)?),
        ETHERTYPE_IPV6 => Ip::V6(ipv6_from_port(&owner, payload)?),
        ETHERTYPE_ARP => Ip::Arp(arp_from_port(&owner, mac_at(bytes, 6), payload)?),
        ETHERTYPE_RARP if is_own_announce(rules, bytes) => Ip::Rarp,
        ETHERTYPE_RARP => return Err(DropReason::Rarp),
        _ => return Err(DropReason::EtherType),
    };
    Ok(Packet { vid, group, ip })
}

/// Which addresses are a port's own.
pub(super) struct Owner<'a> {
    pub(super) tables: &'a Tables,
    pub(super) rules: &'a PortRules,
    /// The address that its DHCP lease gives it.
    pub(super) leased: Option<u32>,
}

impl Owner<'_> {
    #[inline(always)]
    fn has4(&self, address: u32) -> bool {
        self.tables.lead4(address) == Some(self.rules.lead) || self.leased == Some(address)
    }

    #[inline(always)]
    pub(super) fn has6(&self, address: u128) -> bool {
        self.tables.lead6(address) == Some(self.rules.lead) || address == self.rules.link_local
    }
}

/// Row "Ethernet 7": QEMU's announce after a migration (RFC 903's reverse request).
fn is_own_announce(rules: &PortRules, bytes: &[u8]) -> bool {
    let own = rules.mac;
    rules.announce
        && mac_at(bytes, 0) == [0xff; 6]
        && bytes[ETHERNET_LEN..]
            .first_chunk::<28>()
            .is_some_and(|rarp| {
                rarp[..8] == [0, 1, 8, 0, 6, 4, 0, 3]
                    && mac_at(rarp, 8) == own
                    && mac_at(rarp, 18) == own
                    && rarp[14..18] == [0; 4]
                    && rarp[24..28] == [0; 4]
            })
}

fn arp_from_port(owner: &Owner<'_>, source: [u8; 6], payload: &[u8]) -> Result<Arp, DropReason> {
    let arp = wire::arp(payload)?;
    if arp.sender_mac != source {
        return Err(DropReason::ArpSenderMac);
    }
    let probe = arp.request && arp.sender_ip == 0;
    if !probe && !owner.has4(arp.sender_ip) {
        return Err(DropReason::ArpSenderIp);
    }
    Ok(arp)
}

#[inline(always)]
fn ipv4_from_port(owner: &Owner<'_>, payload: &[u8]) -> Result<Ipv4, DropReason> {
    let ip = wire::ipv4(payload)?;
    let rules = owner.rules;
    if !owner.has4(ip.source) {
        if ip.source != 0 {
            return Err(DropReason::Ipv4Source);
        }
        dhcp_client(rules, &ip, payload)?;
    }
    if let Some((from, to)) = ip.udp() {
        if !rules.dhcp_server {
            if is_dhcp_server(&ip, from, to, payload) {
                return Err(DropReason::DhcpServer);
            }
            if to == BOOTP_SERVER && !is_dhcp_client(rules, &ip, payload) {
                return Err(DropReason::DhcpClient);
            }
        }
        if rules.deny_encapsulation && (from == TEREDO || to == TEREDO) {
            return Err(DropReason::Encapsulation);
        }
    } else {
        no_router(&ip)?;
        if rules.deny_encapsulation && is_tunnel(ip.protocol) {
            return Err(DropReason::Encapsulation);
        }
    }
    Ok(ip)
}

/// Row "IPv4 8": what only a router says.
#[inline(always)]
fn no_router(ip: &Ipv4) -> Result<(), DropReason> {
    const REDIRECT: u8 = 5;
    const ROUTER_ADVERTISEMENT: u8 = 9;
    match ip.transport {
        Transport::Icmp { kind: REDIRECT } => Err(DropReason::Redirect),
        Transport::Icmp {
            kind: ROUTER_ADVERTISEMENT,
        } => Err(DropReason::RouterAdvertisement),
        _ => Ok(()),
    }
}

#[inline(always)]
fn is_tunnel(protocol: u8) -> bool {
    matches!(protocol, protocol::IPV4 | protocol::IPV6 | protocol::GRE)
}

/// Row "IPv4 5": from 0.0.0.0 there is nothing but a DHCP client's broadcast.
fn dhcp_client(rules: &PortRules, ip: &Ipv4, payload: &[u8]) -> Result<(), DropReason> {
    if ip.destination != u32::MAX || ip.protocol != protocol::UDP {
        return Err(DropReason::Ipv4Source);
    }
    if is_dhcp_client(rules, ip, payload) {
        Ok(())
    } else {
        Err(DropReason::DhcpClient)
    }
}

/// A message of the port's own DHCP client, to whatever address.
fn is_dhcp_client(rules: &PortRules, ip: &Ipv4, payload: &[u8]) -> bool {
    is_dhcp_request(ip)
        && Bootp::parse(udp_payload(ip, payload))
            .is_some_and(|bootp| bootp.request && bootp.client_mac == rules.mac && bootp.relay == 0)
}

/// Row "IPv4 7". What a first fragment carries may be told by the next one, so it is not trusted.
#[inline(always)]
fn is_dhcp_server(ip: &Ipv4, from: u16, to: u16, payload: &[u8]) -> bool {
    let reply =
        || ip.fragment == Fragment::First || udp_payload(ip, payload).first() == Some(&BOOTREPLY);
    from == BOOTP_SERVER || (to == BOOTP_CLIENT && reply())
}

/// Row "IPv6 4".
#[inline(always)]
fn is_dhcpv6_server(from: u16, to: u16) -> bool {
    from == DHCPV6_SERVER || to == DHCPV6_CLIENT
}

/// What UDP carries, by the IP length.
pub(super) fn udp_payload<'p>(ip: &Ipv4, packet: &'p [u8]) -> &'p [u8] {
    ip.payload(packet).get(8..).unwrap_or_default()
}

#[inline(always)]
fn ipv6_from_port(owner: &Owner<'_>, payload: &[u8]) -> Result<Ipv6, DropReason> {
    let ip = wire::ipv6(payload)?;
    let rules = owner.rules;
    if ip.source == 0 {
        let allowed = matches!(ip.icmp_type(), Some(131 | 132 | 133 | 135 | 143));
        if !allowed || ip.fragment != Fragment::Whole {
            return Err(DropReason::Ipv6Source);
        }
    } else if !owner.has6(ip.source) {
        return Err(DropReason::Ipv6Source);
    }
    if let Some((from, to)) = ip.udp() {
        if !rules.dhcp_server && is_dhcpv6_server(from, to) {
            return Err(DropReason::Dhcpv6Server);
        }
        if rules.deny_encapsulation && (from == TEREDO || to == TEREDO) {
            return Err(DropReason::Encapsulation);
        }
    } else if rules.deny_encapsulation && is_tunnel(ip.upper) {
        return Err(DropReason::Encapsulation);
    }
    if ip.upper == protocol::ICMPV6 && ip.fragment != Fragment::Later {
        nd::from_port(owner, &ip, payload)?;
    }
    Ok(ip)
}

/// What may come in from the underlay.
#[inline(always)]
pub(super) fn from_uplink(
    tables: &Tables,
    uplink: &UplinkRules,
    frame: &mut Frame<'_>,
) -> Result<Packet, DropReason> {
    let station = Station {
        rules: None,
        mtu: uplink.mtu,
        trunk: &[],
    };
    let Ethernet {
        vid,
        group,
        ethertype,
    } = ethernet(&station, frame)?;
    let bytes = frame.bytes();
    let payload = &bytes[ETHERNET_LEN..];
    known_from_outside(ethertype)?;
    if uplink.filters_mac_here && !group && mac_at(bytes, 0) != uplink.mac {
        return Err(DropReason::DstMac);
    }
    let ip = match ethertype {
        ETHERTYPE_IPV4 => Ip::V4(ipv4_from_uplink(tables, payload)?),
        ETHERTYPE_IPV6 => Ip::V6(ipv6_from_uplink(tables, payload)?),
        _ => Ip::Arp(arp_from_outside(mac_at(bytes, 6), payload)?),
    };
    Ok(Packet { vid, group, ip })
}

/// Ethernet rows 7 and 8 where nobody may announce.
fn known_from_outside(ethertype: u16) -> Result<(), DropReason> {
    match ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 | ETHERTYPE_ARP => Ok(()),
        ETHERTYPE_RARP => Err(DropReason::Rarp),
        _ => Err(DropReason::EtherType),
    }
}

fn arp_from_outside(source: [u8; 6], payload: &[u8]) -> Result<Arp, DropReason> {
    let arp = wire::arp(payload)?;
    if arp.sender_mac != source {
        return Err(DropReason::ArpSenderMac);
    }
    Ok(arp)
}

/// Where a frame was that came out of the tunnel.
pub(super) struct Remote<'a> {
    pub(super) tables: &'a Tables,
    pub(super) tunnel: &'a Tunnel,
    /// The endpoint that sent it.
    pub(super) vtep: u16,
    /// The ECN field of the packet that carried it.
    pub(super) marked: Ecn,
}

/// What may come out of the tunnel, the peer that sent it, and the ECN field that it goes on with, if that is
/// another.
#[inline(always)]
pub(super) fn from_tunnel(
    from: &Remote<'_>,
    frame: &mut Frame<'_>,
) -> Result<(Packet, u16, Option<Ecn>), DropReason> {
    let station = Station {
        rules: None,
        // The device has seen to that.
        mtu: u16::MAX,
        trunk: &[],
    };
    let Ethernet {
        vid,
        group,
        ethertype,
    } = ethernet(&station, frame)?;
    let bytes = frame.bytes();
    let payload = &bytes[ETHERNET_LEN..];
    known_from_outside(ethertype)?;
    if !group && mac_at(bytes, 0) != from.tunnel.mac {
        return Err(DropReason::DstMac);
    }
    let (ip, peer, ecn) = match ethertype {
        ETHERTYPE_IPV4 => {
            let ip = wire::ipv4(payload)?;
            let ecn = from.ecn(payload)?;
            (Ip::V4(ip), from.ipv4(&ip, payload)?, ecn)
        }
        ETHERTYPE_IPV6 => {
            let ip = wire::ipv6(payload)?;
            let ecn = from.ecn(payload)?;
            (Ip::V6(ip), from.ipv6(&ip, payload)?, ecn)
        }
        _ => {
            let arp = arp_from_outside(mac_at(bytes, 6), payload)?;
            let sender = Some(arp.sender_ip).filter(|ip| wire::is_unicast_destination4(*ip));
            let peer = sender.and_then(|ip| from.peer_of(from.tables.lead4(ip)));
            (Ip::Arp(arp), peer.ok_or(DropReason::ArpSenderIp)?, None)
        }
    };
    Ok((Packet { vid, group, ip }, peer, ecn))
}

impl Remote<'_> {
    /// The peer that a source belongs to, if that is at the endpoint.
    #[inline(always)]
    fn peer_of(&self, lead: Option<Lead>) -> Option<u16> {
        let peer = lead?.peer()?;
        (self.tunnel.peers()[usize::from(peer)].vtep == self.vtep).then_some(peer)
    }

    #[inline(always)]
    fn ecn(&self, packet: &[u8]) -> Result<Option<Ecn>, DropReason> {
        let inner = Ecn::of(packet);
        match Ecn::within(inner, self.marked) {
            Some(ecn) if ecn == inner => Ok(None),
            Some(ecn) => Ok(Some(ecn)),
            None => Err(DropReason::TunnelEcn),
        }
    }

    #[inline(always)]
    fn ipv4(&self, ip: &Ipv4, packet: &[u8]) -> Result<u16, DropReason> {
        let peer = self.peer_of(self.tables.lead4(ip.source));
        let peer = peer.filter(|_| !is_nobody4(ip.source));
        let peer = peer.ok_or(DropReason::IngressSource)?;
        from_outside4(ip, packet)?;
        self.no_nested(ip.udp())?;
        Ok(peer)
    }

    #[inline(always)]
    fn ipv6(&self, ip: &Ipv6, packet: &[u8]) -> Result<u16, DropReason> {
        let peer = if ip.source == 0 || is_link_local6(ip.source) {
            Some(self.tunnel.vteps()[usize::from(self.vtep)].first_peer())
        } else {
            self.peer_of(self.tables.lead6(ip.source))
        };
        let peer = peer.filter(|_| !is_nobody6(ip));
        let peer = peer.ok_or(DropReason::IngressSource)?;
        from_outside6(ip, packet)?;
        self.no_nested(ip.udp())?;
        Ok(peer)
    }

    #[inline(always)]
    fn no_nested(&self, udp: Option<(u16, u16)>) -> Result<(), DropReason> {
        if self.tunnel.refuses(udp) {
            return Err(DropReason::TunnelNested);
        }
        Ok(())
    }
}

/// A source that no packet on a wire may have, beside those that no packet at all may have.
#[inline(always)]
fn is_nobody4(source: u32) -> bool {
    source >> 24 == 0 || source >> 28 == 0xf || is_link_local4(source)
}

/// As [`is_nobody4`]; some may speak the protocols of their own link.
#[inline(always)]
fn is_nobody6(ip: &Ipv6) -> bool {
    let embedded = ip.source != 0 && wire::is_embedded4(ip.source);
    let on_link_only = ip.source == 0 || is_link_local6(ip.source);
    let on_link_protocol = matches!(ip.icmp_type(), Some(130..=137 | 143));
    embedded || ip.source >> 120 == 0xff || (on_link_only && !on_link_protocol)
}

#[inline(always)]
fn ipv4_from_uplink(tables: &Tables, payload: &[u8]) -> Result<Ipv4, DropReason> {
    let ip = wire::ipv4(payload)?;
    if is_nobody4(ip.source) || tables.is_inside4(ip.source, ip.destination) {
        return Err(DropReason::IngressSource);
    }
    from_outside4(&ip, payload)?;
    Ok(ip)
}

/// Row 5 of what comes from the uplink, for IPv4.
#[inline(always)]
fn from_outside4(ip: &Ipv4, payload: &[u8]) -> Result<(), DropReason> {
    if let Some((from, to)) = ip.udp()
        && is_dhcp_server(ip, from, to, payload)
    {
        return Err(DropReason::DhcpServer);
    }
    no_router(ip)
}

#[inline(always)]
fn ipv6_from_uplink(tables: &Tables, payload: &[u8]) -> Result<Ipv6, DropReason> {
    let ip = wire::ipv6(payload)?;
    if is_nobody6(&ip) || tables.is_inside6(ip.source, ip.destination) {
        return Err(DropReason::IngressSource);
    }
    from_outside6(&ip, payload)?;
    Ok(ip)
}

/// Rows 5 and 6 of what comes from the uplink, for IPv6.
#[inline(always)]
fn from_outside6(ip: &Ipv6, payload: &[u8]) -> Result<(), DropReason> {
    if ip
        .udp()
        .is_some_and(|(from, to)| is_dhcpv6_server(from, to))
    {
        return Err(DropReason::Dhcpv6Server);
    }
    if ip.upper == protocol::ICMPV6 && ip.fragment != Fragment::Later {
        nd::from_uplink(ip, payload)?;
    }
    Ok(())
}

/// 169.254.0.0/16.
#[inline(always)]
pub(super) fn is_link_local4(address: u32) -> bool {
    address >> 16 == 0xa9fe
}

/// fe80::/10.
#[inline(always)]
pub(super) fn is_link_local6(address: u128) -> bool {
    address >> 118 == 0xfe80 >> 6
}

/// A DHCP client's broadcast, which only the tenant's server is to see.
pub(super) fn is_dhcp_broadcast(ip: &Ipv4) -> bool {
    ip.source == 0
}

/// A DHCP server's message to a client.
#[inline(always)]
pub(super) fn is_dhcp_reply(ip: &Ipv4, packet: &[u8]) -> bool {
    ip.fragment == Fragment::Whole
        && ip.udp() == Some((BOOTP_SERVER, BOOTP_CLIENT))
        && udp_payload(ip, packet).first() == Some(&BOOTREPLY)
}

/// A DHCP client's message to a server.
#[inline(always)]
pub(super) fn is_dhcp_request(ip: &Ipv4) -> bool {
    ip.fragment == Fragment::Whole && ip.udp() == Some((BOOTP_CLIENT, BOOTP_SERVER))
}
