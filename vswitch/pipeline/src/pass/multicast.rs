//! Frames that several ports get: of groups, broadcasts, and clients of several DHCP servers. The
//! rows are those of "Multicast and broadcast" of `docs/reference/spoof-filter.md`.

use std::fmt;

use packet::number::protocol;
use packet::wire::flow::Inner;
use packet::wire::membership::{self, Change};
use packet::wire::{ETHERNET_LEN, Ipv4, Ipv6, Packet, mac_at};
use packet::{DropReason, Frame, addr};

use super::{Outcome, Pass, Sent, Side};
use crate::ids::{PortId, VtepId};
use crate::peer_route::{self, PeerRoute, Unfit};
use crate::stage::{Notes, Stage};
use crate::state::{Copied, Copies, Receiver};
use crate::tables::{PortRules, Tables, Target, Tunnel};

/// A packet to a group, or to all.
struct Grouped {
    /// The group; `None` for a broadcast.
    group: Option<u128>,
    /// The MAC that its frame must be to.
    mac: [u8; 6],
    len: usize,
    inner: Inner,
    udp: Option<(u16, u16)>,
}

impl<'s, N: Notes> Pass<'s, N> {
    /// Whether a packet is for the rows of this file: one to a group or to all, where the tenant
    /// allows any.
    #[inline(always)]
    pub(crate) fn is_to_group4(&self, ip: &Ipv4, target: Option<Target>) -> bool {
        self.tables.multicast.is_some()
            && (addr::is_multicast4(ip.destination)
                || ip.destination == u32::MAX
                || target == Some(Target::Broadcast))
    }

    /// As [`Self::is_to_group4`].
    #[inline(always)]
    pub(crate) fn is_to_group6(&self, ip: &Ipv6) -> bool {
        self.tables.multicast.is_some() && addr::is_multicast6(ip.destination)
    }

    /// Sends the packet to the group's members, or a broadcast to all; takes reports.
    #[inline(never)]
    pub(crate) fn send_group4(
        &mut self,
        (side, packet, ip): (Side<'s>, &Packet, &Ipv4),
        frame: &mut Frame<'_>,
    ) -> Outcome {
        if let Side::Uplink(_) = side {
            return self.refuse(Stage::Route, DropReason::Multicast);
        }
        let is_group = addr::is_multicast4(ip.destination);
        let layer3 = &frame.bytes()[ETHERNET_LEN..];
        let grouped = Grouped {
            group: is_group.then(|| addr::mapped4(ip.destination)),
            mac: match is_group {
                true => addr::group_mac4(ip.destination),
                false => addr::BROADCAST_MAC,
            },
            len: usize::from(ip.total_len),
            inner: Inner::of4(ip, layer3),
            udp: ip.udp(),
        };
        if ip.protocol == protocol::IGMP {
            if mac_at(frame.bytes(), 0) != grouped.mac {
                return self.refuse(Stage::Service, DropReason::DstMac);
            }
            // A message that is cut off counts as far as it goes.
            let _ = membership::igmp_reports(ip, layer3, |group, change| {
                self.hear_report(side, packet.vid, group, change);
            });
            return self.refuse(Stage::Service, DropReason::Absorbed);
        }
        self.replicate(side, &grouped, frame)
    }

    /// As [`Self::send_group4`]; reports are taken before.
    #[inline(never)]
    pub(crate) fn send_group6(
        &mut self,
        side: Side<'s>,
        ip: &Ipv6,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let grouped = Grouped {
            group: Some(ip.destination),
            mac: addr::group_mac(ip.destination),
            len: ip.total_len,
            inner: Inner::of6(ip, &frame.bytes()[ETHERNET_LEN..]),
            udp: ip.udp(),
        };
        match side {
            Side::Uplink(_) => self.refuse(Stage::Route, DropReason::Multicast),
            Side::Port(_) | Side::Peer(_) => self.replicate(side, &grouped, frame),
        }
    }

    /// Takes what an MLD report says.
    pub(crate) fn hear_mld(
        &mut self,
        side: Side<'_>,
        packet: &Packet,
        ip: &Ipv6,
        frame: &Frame<'_>,
    ) {
        if self.tables.multicast.is_some() && packet.group {
            let layer3 = frame.bytes().get(ETHERNET_LEN..).unwrap_or_default();
            let _ = membership::mld_reports(ip, layer3, |group, change| {
                self.hear_report(side, packet.vid, group, change);
            });
        }
    }

    /// A station behind a port, or a peer's switch, reports.
    fn hear_report(&mut self, side: Side<'_>, vid: Option<u16>, group: u128, change: Change) {
        if !self.tables.allows_group(group) {
            return;
        }
        let Some(groups) = &mut self.state.groups else {
            return;
        };
        let (had_room, counted) = match side {
            Side::Port(rules) => (
                groups.heard(rules.id, vid, (group, change), self.now_ns),
                rules.id,
            ),
            Side::Peer(from) => {
                let vtep = from.tunnel.peer(from.id).vtep;
                let had_room = groups.told(vtep, (group, change), self.now_ns);
                (had_room, self.tables.uplink_id())
            }
            Side::Uplink(_) => return,
        };
        if !had_room {
            self.counters.port(counted.index()).refused_joins.add(1);
        }
    }

    fn replicate(&mut self, side: Side<'s>, grouped: &Grouped, frame: &mut Frame<'_>) -> Outcome {
        let allowed = match (grouped.group, side) {
            (Some(group), _) => self.tables.allows_group(group),
            (None, Side::Port(_)) => {
                let rules = self.tables.multicast.as_ref();
                rules.is_some_and(|rules| rules.broadcast)
            }
            (None, _) => false,
        };
        if !allowed {
            return self.refuse(Stage::Route, DropReason::Multicast);
        }
        if mac_at(frame.bytes(), 0) != grouped.mac {
            return self.refuse(Stage::Route, DropReason::DstMac);
        }
        if let Side::Port(rules) = side {
            let sent = &mut self.state.port(rules.id).storm.groups_sent;
            if !sent.take(self.now_ns, rules.multicast_pps, 1) {
                return self.refuse(Stage::Storm, DropReason::RateMulticast);
            }
        }
        self.state.copies.begin(Copied {
            group: grouped.group,
            len: grouped.len,
            inner: Some(grouped.inner),
        });
        let mut lost = self.choose_ports(side, grouped);
        if let (Side::Port(_), Some(group), Some(tunnel)) =
            (side, grouped.group, &self.tables.tunnel)
        {
            let at_peers = self.choose_peers(tunnel, group, grouped);
            lost = lost.or(at_peers);
        }
        self.finish_inner(side, None, frame);
        let counted = match side {
            Side::Port(rules) => rules.id,
            Side::Uplink(_) | Side::Peer(_) => self.tables.uplink_id(),
        };
        let reason = lost.unwrap_or(DropReason::NoMember);
        self.send_copies((Stage::Route, counted), reason, frame)
    }

    /// Adds the ports that get the packet. Returns why the first of the others does not that is a
    /// member.
    fn choose_ports(&mut self, side: Side<'_>, grouped: &Grouped) -> Option<DropReason> {
        let (tables, now_ns) = (self.tables, self.now_ns);
        let from = match side {
            Side::Port(rules) => Some(rules.id),
            Side::Uplink(_) | Side::Peer(_) => None,
        };
        let mut lost = None;
        for to in tables.ports.iter().filter(|to| Some(to.id) != from) {
            let is_member = match (grouped.group, &self.state.groups) {
                (Some(group), Some(groups)) if !addr::is_link_group(group) => {
                    groups.ports[to.id.index()].find(group, now_ns).is_some()
                }
                _ => true,
            };
            if !is_member {
                continue;
            }
            let got = &mut self.state.ports[to.id.index()].storm.groups_got;
            let reason = if grouped.len > usize::from(to.mtu) {
                DropReason::Mtu
            } else if !got.take(now_ns, to.multicast_pps, 1) {
                DropReason::RateMulticast
            } else {
                self.state.copies.ports.insert(to.id);
                continue;
            };
            self.count_unsent(to.id, reason);
            lost.get_or_insert(reason);
        }
        lost
    }

    /// As [`Self::choose_ports`], of the endpoints of peers.
    fn choose_peers(
        &mut self,
        tunnel: &Tunnel,
        group: u128,
        grouped: &Grouped,
    ) -> Option<DropReason> {
        let mut lost = None;
        for (vtep, at) in tunnel.vteps().iter().zip(0..) {
            let groups = self.state.groups.as_ref()?;
            if groups.vteps[usize::from(at)]
                .find(group, self.now_ns)
                .is_none()
            {
                continue;
            }
            let (peer, len) = (vtep.first_peer, grouped.len);
            let route = match tunnel.refuses(grouped.udp) {
                true => Err(Unfit::Reason(DropReason::TunnelNested)),
                false => PeerRoute::new(tunnel, self.state, peer, len, self.now_ns),
            };
            let reason = match route {
                Ok(_) => {
                    self.state.copies.add_vtep(VtepId(at));
                    continue;
                }
                Err(Unfit::Reason(reason)) => reason,
                Err(Unfit::TooBig(_)) => DropReason::Mtu,
                Err(Unfit::NoSa(vtep)) => {
                    self.acquire(tunnel, vtep);
                    DropReason::IpsecNoSa
                }
            };
            self.count_unsent(self.tables.uplink_id(), reason);
            lost.get_or_insert(reason);
        }
        lost
    }

    /// Sends the packet to several DHCP servers, to the MAC of each one's VM.
    pub(crate) fn send_to_servers<'p>(
        &mut self,
        from: PortId,
        servers: impl Iterator<Item = &'p PortRules> + Clone,
        len: usize,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        self.state.copies.begin(Copied {
            group: None,
            len,
            inner: None,
        });
        let fits = |to: &&PortRules| len <= usize::from(to.mtu);
        for to in servers.clone().filter(fits) {
            self.state.copies.ports.insert(to.id);
        }
        let mut lost = servers.filter(|to| !fits(to)).peekable();
        let reason = match lost.peek() {
            Some(_) => DropReason::Mtu,
            None => DropReason::DhcpNoServer,
        };
        if self.state.copies.len() > 0 {
            lost.for_each(|to| self.count_unsent(to.id, DropReason::Mtu));
        }
        self.send_copies((Stage::Service, from), reason, frame)
    }

    /// Sends the frame to those that were chosen; with none it is dropped for `reason`.
    fn send_copies(
        &mut self,
        (stage, counted): (Stage, PortId),
        reason: DropReason,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let copies = &mut self.state.copies;
        frame.truncate(ETHERNET_LEN + copies.packet.len);
        let count = copies.len();
        if count == 0 {
            return self.refuse(stage, reason);
        }
        let receivers = Receivers(self.tables, copies);
        self.notes
            .note(stage, format_args!("to {count} receivers: {receivers}"));
        self.counters.port(counted.index()).copies.add(count as u64);
        if count > 1 {
            return Ok(Sent::Copies);
        }
        let sent = self
            .state
            .copies
            .take()
            .map(|to| self.finish_copy(to, frame));
        match sent.flatten() {
            Some(port) => Ok(Sent::To(port)),
            None => self.refuse(Stage::Rewrite, DropReason::NoBuffer),
        }
    }

    /// Gives a copy of the frame the headers of its receiver's link. Returns the port that it
    /// leaves by; `None` if there was no room for them.
    pub(crate) fn finish_copy(&mut self, to: Receiver, frame: &mut Frame<'_>) -> Option<PortId> {
        let Copied { group, len, inner } = self.state.copies.packet;
        match to {
            Receiver::Port(id) => {
                let rules = self.tables.port(id);
                if inner.is_none() {
                    frame.set_macs(rules.mac, rules.gateway_mac);
                    return Some(id);
                }
                let to_mac = mac_at(frame.bytes(), 0);
                frame.set_macs(to_mac, rules.gateway_mac);
                let members = self.state.groups.as_ref();
                let members = members.map(|groups| &groups.ports[id.index()]);
                if let (Some(group), Some(members)) = (group, members)
                    && let Some(Some(vid)) = members.find(group, self.now_ns)
                {
                    frame.insert_tag(vid)?;
                }
                Some(id)
            }
            Receiver::Fragment(number) => self.finish_fragment(number, frame),
            Receiver::Vtep(vtep) => {
                let tunnel = self.tables.tunnel.as_ref()?;
                let peer = tunnel.vtep(vtep).first_peer;
                let route = PeerRoute::new(tunnel, self.state, peer, len, self.now_ns).ok()?;
                let (to_mac, inner) = (mac_at(frame.bytes(), 0), inner?);
                frame.set_macs(to_mac, tunnel.mac);
                let parts = (self.counters, &mut *self.state);
                route.seal(parts, inner, frame, self.now_ns, None)?;
                peer_route::remember(tunnel, self.state, peer, (&inner, len), self.now_ns);
                self.note_peer(peer, "into the tunnel to peer");
                self.note_sealed(&route);
                Some(self.tables.uplink_id())
            }
        }
    }

    /// Counts a copy that is not sent to the port.
    pub(crate) fn count_unsent(&self, to: PortId, reason: DropReason) {
        let counters = self.counters.port(to.index());
        counters.drops(reason).add(1);
        counters.unsent.add(1);
    }
}

/// The names of receivers.
struct Receivers<'a>(&'a Tables, &'a Copies);

impl fmt::Display for Receivers<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(tables, copies) = self;
        let ports = copies
            .ports
            .iter()
            .map(|id| ("port", &tables.names[id.index()]));
        let tunnel = tables.tunnel.iter();
        let peers = tunnel.flat_map(|tunnel| {
            let ids = copies
                .vteps
                .iter()
                .map(|vtep| tunnel.vtep(*vtep).first_peer);
            ids.map(|id| ("peer", &tables.peer_names[id.index()]))
        });
        for (nth, (kind, name)) in ports.chain(peers).enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            write!(out, "{comma}{kind} {name}")?;
        }
        Ok(())
    }
}
