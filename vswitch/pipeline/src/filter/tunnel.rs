//! What may come out of the tunnel: the rows of "Out of the tunnel" about the inner frame.

use packet::number::{ethertype, igmp};
use packet::wire::ecn::Ecn;
use packet::wire::{ETHERNET_LEN, Ip, Ipv4, Ipv6, Packet, ipv4, ipv6, mac_at};
use packet::{DropReason, Frame, addr};

use super::ethernet::{self, Sender, Station};
use super::{arp, outside};
use crate::ids::{PeerId, VtepId};
use crate::tables::{PackedTarget, Tables, Tunnel};

/// The outer packet that carried an inner frame.
pub(crate) struct Remote<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) tunnel: &'a Tunnel,
    /// The endpoint that sent it.
    pub(crate) vtep: VtepId,
    /// The ECN field of the outer packet.
    pub(crate) ecn: Ecn,
}

/// Accepts what may come out of the tunnel, and writes it to `packet`. Returns the peer that sent
/// it, and its new ECN field, if that changes.
#[inline(always)]
pub(crate) fn from_tunnel(
    from: &Remote<'_>,
    frame: &mut Frame<'_>,
    packet: &mut Packet,
) -> Result<(PeerId, Option<Ecn>), DropReason> {
    let station = Station {
        sender: Sender::Other(from.tunnel.mac),
        // The device has limited the outer packet.
        mtu: u16::MAX,
        trunk: &[],
    };
    let ethertype = ethernet::parse(&station, frame, packet)?;
    let bytes = frame.bytes();
    let payload = &bytes[ETHERNET_LEN..];
    outside::known_ethertype(ethertype)?;
    if !packet.group && mac_at(bytes, 0) != from.tunnel.mac {
        return Err(DropReason::DstMac);
    }
    Ok(match ethertype {
        ethertype::IPV4 => {
            let ip = ipv4::parse(payload)?;
            let ecn = from.combined_ecn(payload)?;
            packet.ip = Ip::V4(ip);
            (from.ipv4(&ip, payload)?, ecn)
        }
        ethertype::IPV6 => {
            let ip = ipv6::parse(payload)?;
            let ecn = from.combined_ecn(payload)?;
            packet.ip = Ip::V6(ip);
            (from.ipv6(&ip, payload)?, ecn)
        }
        _ => {
            let arp = arp::of_station(mac_at(bytes, 6), payload)?;
            let sender = Some(arp.sender_ip).filter(|ip| addr::is_routable4(*ip));
            let peer = sender.and_then(|ip| from.peer_of(from.tables.packed4(ip)));
            packet.ip = Ip::Arp(arp);
            (peer.ok_or(DropReason::ArpSenderIp)?, None)
        }
    })
}

impl Remote<'_> {
    /// The peer that a source belongs to, if that is at the endpoint.
    #[inline(always)]
    fn peer_of(&self, source: Option<PackedTarget>) -> Option<PeerId> {
        let peer = source?.peer()?;
        (self.tunnel.peer(peer).vtep == self.vtep).then_some(peer)
    }

    #[inline(always)]
    fn combined_ecn(&self, packet: &[u8]) -> Result<Option<Ecn>, DropReason> {
        let inner = Ecn::of(packet);
        match Ecn::within(inner, self.ecn) {
            Some(ecn) if ecn == inner => Ok(None),
            Some(ecn) => Ok(Some(ecn)),
            None => Err(DropReason::TunnelEcn),
        }
    }

    /// A peer's switch reports the groups of its ports, from no address.
    #[inline(always)]
    fn is_report4(&self, ip: &Ipv4) -> bool {
        ip.source == 0
            && ip.destination == addr::ALL_IGMP_ROUTERS4
            && ip.igmp_type() == Some(igmp::REPORT_V3)
            && self.tables.multicast.is_some()
    }

    #[inline(always)]
    fn ipv4(&self, ip: &Ipv4, packet: &[u8]) -> Result<PeerId, DropReason> {
        let peer = if self.is_report4(ip) {
            Some(self.tunnel.vtep(self.vtep).first_peer)
        } else {
            let peer = self.peer_of(self.tables.packed4(ip.source));
            peer.filter(|_| !addr::is_invalid_outside_source4(ip.source))
        };
        let peer = peer.ok_or(DropReason::IngressSource)?;
        outside::services4(ip, packet)?;
        self.not_nested(ip.udp())?;
        Ok(peer)
    }

    #[inline(always)]
    fn ipv6(&self, ip: &Ipv6, packet: &[u8]) -> Result<PeerId, DropReason> {
        let peer = if ip.source == 0 || addr::is_link_local6(ip.source) {
            Some(self.tunnel.vtep(self.vtep).first_peer)
        } else {
            self.peer_of(self.tables.packed6(ip.source))
        };
        let to_group = addr::is_link_local6(ip.source) && self.tables.allows_group(ip.destination);
        let peer = peer.filter(|_| to_group || !outside::has_invalid_source6(ip));
        let peer = peer.ok_or(DropReason::IngressSource)?;
        outside::services6(ip, packet)?;
        self.not_nested(ip.udp())?;
        Ok(peer)
    }

    #[inline(always)]
    fn not_nested(&self, udp: Option<(u16, u16)>) -> Result<(), DropReason> {
        if self.tunnel.refuses(udp) {
            return Err(DropReason::TunnelNested);
        }
        Ok(())
    }
}
