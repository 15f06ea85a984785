//! One frame's way through the stages: what the filter lets pass is answered by the gateway, routed,
//! and given the headers of the next link.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::answer::{self, Advertisement, IcmpError};
use super::state::{ICMP_ERRORS_PER_SECOND, State};
use super::tables::{PortRules, Tables, Target, UplinkRules};
use super::wire::{self, Arp, ETHERNET_LEN, Ip, Ipv4, Ipv6, Packet};
use super::{Counters, Notes, PortId, Stage, filter, nd};
use packet::DropReason;
use packet::Frame;

/// Where a frame goes that goes somewhere.
pub(super) enum Sent {
    To(PortId),
    Back,
}

/// Why a frame goes nowhere, and whether it has become an ICMP error.
pub(super) struct Refusal {
    pub(super) reason: DropReason,
    pub(super) reported: bool,
}

impl From<DropReason> for Refusal {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self {
            reason,
            reported: false,
        }
    }
}

pub(super) type Outcome = Result<Sent, Refusal>;

/// One frame's way through the stages.
pub(super) struct Pass<'s, N> {
    pub(super) tables: &'s Tables,
    pub(super) counters: &'s Counters,
    pub(super) state: &'s mut State,
    pub(super) now_ns: u64,
    pub(super) notes: &'s mut N,
}

/// How a packet is sent on.
#[derive(Clone, Copy)]
pub(super) enum Hop {
    Port(u16),
    Uplink,
}

impl<N: Notes> Pass<'_, N> {
    /// Notes why a stage refuses the frame.
    #[inline(always)]
    pub(super) fn refuse<T>(&mut self, stage: Stage, reason: DropReason) -> Result<T, Refusal> {
        self.notes
            .note(stage, format_args!("drop {reason}: {}", reason.help()));
        Err(reason.into())
    }

    pub(super) fn port_frame(&mut self, rules: &PortRules, frame: &mut Frame<'_>) -> Outcome {
        let id = usize::from(rules.id);
        let leased = if rules.learns {
            self.state.ports[id].lease.address(self.now_ns)
        } else {
            None
        };
        let received = frame.len();
        let packet = match filter::from_port(self.tables, rules, leased, frame) {
            Ok(packet) => packet,
            Err(reason) => return self.refuse(Stage::Filter, reason),
        };
        self.notes
            .note(Stage::Filter, format_args!("pass: {}", Describe(&packet)));
        if rules.limited {
            let storm = &mut self.state.ports[id].storm;
            if let Err(reason) = storm.admit(&rules.limits, self.now_ns, &packet, received) {
                return self.refuse(Stage::Storm, reason);
            }
            self.notes
                .note(Stage::Storm, format_args!("pass: within the port's limits"));
        }
        if let Some(tags) = &mut self.state.ports[id].tags {
            tags.learn(packet.ip.source(), packet.vid);
        }
        match packet.ip {
            Ip::V4(ip) => self.ipv4_from_port(rules, &packet, &ip, frame),
            Ip::V6(ip) => self.ipv6_from_port(rules, &packet, &ip, frame),
            Ip::Arp(arp) => self.arp_from_port(rules, &packet, &arp, frame),
            Ip::Rarp => self.refuse(Stage::Service, DropReason::Absorbed),
        }
    }

    /// The frame has become an answer: put the asker's tag back, and return it.
    fn answered(
        &mut self,
        built: Option<()>,
        vid: Option<u16>,
        frame: &mut Frame<'_>,
        what: fmt::Arguments<'_>,
    ) -> Outcome {
        match with_tag(built, vid, frame) {
            Some(()) => {
                self.notes
                    .note(Stage::Service, format_args!("reply: {what}"));
                Ok(Sent::Back)
            }
            None => self.refuse(Stage::Service, DropReason::NoBuffer),
        }
    }

    fn arp_from_port(
        &mut self,
        rules: &PortRules,
        packet: &Packet,
        arp: &Arp,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let target = self.state.route4(self.tables, arp.target_ip, self.now_ns);
        let own = target == Some(Target::Port(rules.id));
        if !arp.request || arp.sender_ip == arp.target_ip || own {
            return self.refuse(Stage::Service, DropReason::Absorbed);
        }
        match target {
            Some(Target::Gateway | Target::Port(_) | Target::Uplink | Target::Peer(_))
                if wire::is_unicast_destination4(arp.target_ip) =>
            {
                let built = answer::arp_reply(frame, rules.gateway_mac, arp);
                self.answered(built, packet.vid, frame, format_args!("ARP"))
            }
            _ => self.refuse(Stage::Service, DropReason::ArpUnknown),
        }
    }

    #[inline(always)]
    fn ipv4_from_port(
        &mut self,
        rules: &PortRules,
        packet: &Packet,
        ip: &Ipv4,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        if self.tables.has_dhcp {
            if let Some(outcome) = self.dhcp_from_port(rules, ip, frame) {
                return outcome;
            }
        } else if ip.source == 0 {
            return self.refuse(Stage::Service, DropReason::DhcpNoServer);
        }
        let target = self.state.route4(self.tables, ip.destination, self.now_ns);
        if target == Some(Target::Gateway) {
            if answer::is_echo_request4(ip) {
                let built = answer::echo_reply4(frame, rules.gateway_mac, ip);
                return self.answered(built, packet.vid, frame, format_args!("ICMP echo"));
            }
            let unserved = ip.udp().map(|_| IcmpError::PortUnreachable);
            let reason = DropReason::GatewayService;
            return self.report4(Stage::Service, rules, packet, ip, frame, reason, unserved);
        }
        if let Some(reason) = unroutable4(packet, ip, target) {
            return self.refuse(Stage::Route, reason);
        }
        let (reason, error) = match target {
            Some(Target::Port(id)) if id != rules.id => {
                return self.forward4(Some(rules), packet, ip, frame, Hop::Port(id));
            }
            Some(Target::Uplink) => {
                return self.forward4(Some(rules), packet, ip, frame, Hop::Uplink);
            }
            Some(Target::Peer(id)) => return self.encapsulate4(rules, packet, ip, frame, id),
            Some(Target::Underlay | Target::UplinkSelf) => (DropReason::Underlay, None),
            Some(_) => (DropReason::RouteNone, Some(IcmpError::HostUnreachable)),
            None => (DropReason::RouteNone, Some(IcmpError::NoRoute)),
        };
        self.report4(Stage::Route, rules, packet, ip, frame, reason, error)
    }

    /// The way of DHCP between a tenant's clients and its server. `None`: a packet like any other.
    fn dhcp_from_port(
        &mut self,
        rules: &PortRules,
        ip: &Ipv4,
        frame: &mut Frame<'_>,
    ) -> Option<Outcome> {
        let packet = frame.bytes().get(ETHERNET_LEN..)?;
        let payload = filter::udp_payload(ip, packet);
        if rules.learns && filter::is_dhcp_request(ip) {
            self.state.ports[usize::from(rules.id)]
                .lease
                .client_said(payload);
        }
        let receiver = if filter::is_dhcp_broadcast(ip) {
            self.tables.dhcp_server_for(rules.id)
        } else if rules.dhcp_server && filter::is_dhcp_reply(ip, packet) {
            self.dhcp_client_of(rules, payload)
        } else {
            return None;
        };
        let Some(id) = receiver else {
            return Some(self.refuse(Stage::Service, DropReason::DhcpNoServer));
        };
        if ip.total_len > self.tables.ports[usize::from(id)].mtu {
            return Some(self.refuse(Stage::Service, DropReason::Mtu));
        }
        self.notes.note(
            Stage::Service,
            format_args!("DHCP between a client and the server"),
        );
        Some(self.rewrite_to_port(frame, usize::from(ip.total_len), id, None))
    }

    /// The port that a server's message is for; where the port learns, its lease is noted.
    fn dhcp_client_of(&mut self, server: &PortRules, payload: &[u8]) -> Option<u16> {
        let reply = wire::Bootp::parse(payload)?;
        let id = self
            .tables
            .port_of_mac(reply.client_mac)
            .filter(|&id| id != server.id)?;
        if self.tables.ports[usize::from(id)].learns {
            let holder = self
                .state
                .lease_owner(self.tables, reply.your_ip, self.now_ns);
            let free = self.tables.is_free4(reply.your_ip) && holder.is_none_or(|port| port == id);
            let lease = &mut self.state.ports[usize::from(id)].lease;
            lease.server_said(payload, self.now_ns, free);
        }
        Some(id)
    }

    #[inline(always)]
    pub(super) fn forward4(
        &mut self,
        sender: Option<&PortRules>,
        packet: &Packet,
        ip: &Ipv4,
        frame: &mut Frame<'_>,
        hop: Hop,
    ) -> Outcome {
        let tables = self.tables;
        let too_big = |mtu| (ip.total_len > mtu).then_some(IcmpError::TooBig { mtu });
        match hop {
            Hop::Port(id) => {
                let to = &tables.ports[usize::from(id)];
                if let Some(error) = too_big(to.mtu) {
                    return self.report4_to(sender, packet, ip, frame, DropReason::Mtu, error);
                }
                self.note_route(hop);
                let destination = u128::from(ip.destination);
                self.rewrite_to_port(frame, usize::from(ip.total_len), id, Some(destination))
            }
            Hop::Uplink => {
                let Some(uplink) = &tables.uplink else {
                    return self.refuse(Stage::Route, DropReason::RouteNone);
                };
                if filter::is_link_local4(ip.source) {
                    return self.refuse(Stage::Route, DropReason::LinkLocalIp);
                }
                if ip.ttl <= 1 {
                    let error = IcmpError::TimeExceeded;
                    return self.report4_to(sender, packet, ip, frame, DropReason::Ttl, error);
                }
                if let Some(error) = too_big(uplink.mtu) {
                    return self.report4_to(sender, packet, ip, frame, DropReason::Mtu, error);
                }
                let Some(mac) = self.state.next_hop_mac(uplink.next_hop4) else {
                    return self.refuse(Stage::Route, DropReason::NeighbourUnresolved);
                };
                self.note_route(hop);
                wire::decrement_ttl(frame.bytes_mut(), ip.ttl);
                self.rewrite_to_uplink(frame, usize::from(ip.total_len), uplink, mac)
            }
        }
    }

    #[inline(always)]
    fn note_route(&mut self, hop: Hop) {
        match hop {
            Hop::Port(id) => {
                let name = &self.tables.names[usize::from(id)];
                self.notes
                    .note(Stage::Route, format_args!("to port {name}"));
            }
            Hop::Uplink => self
                .notes
                .note(Stage::Route, format_args!("to the uplink's next hop")),
        }
    }

    /// Gives the frame the headers of the port's link. `destination` finds the tag on a trunk.
    #[inline(always)]
    fn rewrite_to_port(
        &mut self,
        frame: &mut Frame<'_>,
        ip_len: usize,
        id: u16,
        destination: Option<u128>,
    ) -> Outcome {
        let to = &self.tables.ports[usize::from(id)];
        frame.truncate(ETHERNET_LEN + ip_len);
        if let Some(macs) = frame.bytes_mut().first_chunk_mut::<12>() {
            *macs = to.header;
        }
        if !to.trunk.is_empty()
            && let (Some(tags), Some(destination)) =
                (&self.state.ports[usize::from(id)].tags, destination)
            && let Some(vid) = tags.vid(destination)
            && frame.insert_tag(vid).is_none()
        {
            return self.refuse(Stage::Rewrite, DropReason::NoBuffer);
        }
        self.notes.note(
            Stage::Rewrite,
            format_args!("from the port's Gw MAC to its VM's"),
        );
        Ok(Sent::To(PortId(id)))
    }

    #[inline(always)]
    fn rewrite_to_uplink(
        &mut self,
        frame: &mut Frame<'_>,
        ip_len: usize,
        uplink: &UplinkRules,
        next_hop: [u8; 6],
    ) -> Outcome {
        frame.truncate(ETHERNET_LEN + ip_len);
        frame.set_macs(next_hop, uplink.mac);
        self.notes.note(
            Stage::Rewrite,
            format_args!("from the In/Out MAC to the next hop's"),
        );
        Ok(Sent::To(self.tables.uplink_id()))
    }

    /// [`Self::report4`] where there is a sender to tell; a sender outside is told nothing.
    #[cold]
    pub(super) fn report4_to(
        &mut self,
        sender: Option<&PortRules>,
        packet: &Packet,
        ip: &Ipv4,
        frame: &mut Frame<'_>,
        reason: DropReason,
        error: IcmpError,
    ) -> Outcome {
        match sender {
            Some(rules) => {
                self.report4(Stage::Route, rules, packet, ip, frame, reason, Some(error))
            }
            None => self.refuse(Stage::Route, reason),
        }
    }

    /// Drops the packet and, where IP asks for it and the rate allows, tells its sender why.
    #[cold]
    #[expect(
        clippy::too_many_arguments,
        reason = "one packet's whole context, passed once"
    )]
    fn report4(
        &mut self,
        stage: Stage,
        rules: &PortRules,
        packet: &Packet,
        ip: &Ipv4,
        frame: &mut Frame<'_>,
        reason: DropReason,
        error: Option<IcmpError>,
    ) -> Outcome {
        let error = error.filter(|_| answer::may_be_reported4(ip));
        let build = error.zip(self.tables.gateway4).map(|(error, gateway)| {
            let from = (rules.gateway_mac, gateway);
            move |frame: &mut Frame<'_>| answer::icmp4_error(frame, from, ip, error)
        });
        self.report(stage, rules, packet, frame, reason, build)
    }

    /// As [`Self::report4`].
    #[cold]
    #[expect(
        clippy::too_many_arguments,
        reason = "one packet's whole context, passed once"
    )]
    pub(super) fn report6(
        &mut self,
        stage: Stage,
        rules: &PortRules,
        packet: &Packet,
        ip: &Ipv6,
        frame: &mut Frame<'_>,
        reason: DropReason,
        error: Option<IcmpError>,
    ) -> Outcome {
        let error = error.filter(|_| answer::may_be_reported6(ip));
        let build = error.zip(self.tables.gateway6).map(|(error, gateway)| {
            let from = (rules.gateway_mac, gateway);
            move |frame: &mut Frame<'_>| answer::icmp6_error(frame, from, ip, error)
        });
        self.report(stage, rules, packet, frame, reason, build)
    }

    /// Drops the packet; `build` makes it the ICMP error, if one is owed.
    fn report(
        &mut self,
        stage: Stage,
        rules: &PortRules,
        packet: &Packet,
        frame: &mut Frame<'_>,
        reason: DropReason,
        build: Option<impl FnOnce(&mut Frame<'_>) -> Option<()>>,
    ) -> Outcome {
        let errors = &mut self.state.ports[usize::from(rules.id)].icmp_errors;
        let reported = match build {
            Some(build) if !packet.group && errors.take(self.now_ns, ICMP_ERRORS_PER_SECOND, 1) => {
                let built = build(frame);
                with_tag(built, packet.vid, frame).is_some()
            }
            _ => false,
        };
        let told = if reported {
            "; the sender is told by ICMP"
        } else {
            ""
        };
        self.notes.note(
            stage,
            format_args!("drop {reason}: {}{told}", reason.help()),
        );
        Err(Refusal { reason, reported })
    }

    #[inline(always)]
    fn ipv6_from_port(
        &mut self,
        rules: &PortRules,
        packet: &Packet,
        ip: &Ipv6,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        if let Some(kind) = ip.icmp_type()
            && nd::is_for_gateway(kind)
        {
            return self.nd_from_port(rules, packet, ip, kind, frame);
        }
        let target = self.tables.route6(ip.destination);
        if target == Some(Target::Gateway) || ip.destination == rules.gateway_link_local {
            if answer::is_echo_request6(ip) {
                let built = answer::echo_reply6(frame, rules.gateway_mac, ip);
                return self.answered(built, packet.vid, frame, format_args!("ICMPv6 echo"));
            }
            let unserved = ip.udp().map(|_| IcmpError::PortUnreachable);
            let reason = DropReason::GatewayService;
            return self.report6(Stage::Service, rules, packet, ip, frame, reason, unserved);
        }
        if let Some(reason) = unroutable6(packet, ip) {
            return self.refuse(Stage::Route, reason);
        }
        let (reason, error) = match target {
            Some(Target::Port(id)) if id != rules.id => {
                return self.forward6(Some(rules), packet, ip, frame, Hop::Port(id));
            }
            Some(Target::Uplink) => {
                return self.forward6(Some(rules), packet, ip, frame, Hop::Uplink);
            }
            Some(Target::Peer(id)) => return self.encapsulate6(rules, packet, ip, frame, id),
            Some(Target::Underlay | Target::UplinkSelf) => (DropReason::Underlay, None),
            Some(_) => (DropReason::RouteNone, Some(IcmpError::HostUnreachable)),
            None => (DropReason::RouteNone, Some(IcmpError::NoRoute)),
        };
        self.report6(Stage::Route, rules, packet, ip, frame, reason, error)
    }

    /// ND and MLD, which the gateway takes and never passes on.
    fn nd_from_port(
        &mut self,
        rules: &PortRules,
        packet: &Packet,
        ip: &Ipv6,
        kind: u8,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let layer3 = frame.bytes().get(ETHERNET_LEN..).unwrap_or_default();
        match (kind, nd::target(ip, layer3)) {
            (nd::ROUTER_SOLICITATION, _) => match self.tables.advertisement(rules) {
                Some(advertisement) => {
                    let built = advertisement.answer(frame, ip);
                    self.answered(
                        built,
                        packet.vid,
                        frame,
                        format_args!("Router Advertisement"),
                    )
                }
                None => self.refuse(Stage::Service, DropReason::Absorbed),
            },
            (nd::NEIGHBOR_SOLICITATION, Some(wanted)) => {
                let target = self.tables.route6(wanted);
                let is_gateway =
                    target == Some(Target::Gateway) || wanted == rules.gateway_link_local;
                let own = target == Some(Target::Port(rules.id)) || wanted == rules.link_local;
                if own {
                    return self.refuse(Stage::Service, DropReason::Absorbed);
                }
                let reachable = matches!(
                    target,
                    Some(Target::Port(_) | Target::Uplink | Target::Peer(_))
                ) && !filter::is_link_local6(wanted)
                    && !wire::is_embedded4(wanted);
                if !is_gateway && !reachable {
                    return self.refuse(Stage::Service, DropReason::NdUnknown);
                }
                let mac = rules.gateway_mac;
                let built = answer::neighbor_advertisement(frame, mac, ip, wanted, is_gateway);
                self.answered(
                    built,
                    packet.vid,
                    frame,
                    format_args!("Neighbor Advertisement"),
                )
            }
            _ => self.refuse(Stage::Service, DropReason::Absorbed),
        }
    }

    #[inline(always)]
    pub(super) fn forward6(
        &mut self,
        sender: Option<&PortRules>,
        packet: &Packet,
        ip: &Ipv6,
        frame: &mut Frame<'_>,
        hop: Hop,
    ) -> Outcome {
        let tables = self.tables;
        let too_big = |mtu: u16| {
            (ip.total_len > usize::from(mtu))
                .then_some((DropReason::Mtu, IcmpError::TooBig { mtu }))
        };
        let (refused, mac) = match hop {
            Hop::Port(id) => (too_big(tables.ports[usize::from(id)].mtu), None),
            Hop::Uplink => {
                let Some(uplink) = &tables.uplink else {
                    return self.refuse(Stage::Route, DropReason::RouteNone);
                };
                if filter::is_link_local6(ip.source) {
                    return self.refuse(Stage::Route, DropReason::LinkLocalIp);
                }
                let spent = ip.hop_limit <= 1;
                let refused = if spent {
                    Some((DropReason::Ttl, IcmpError::TimeExceeded))
                } else {
                    too_big(uplink.mtu)
                };
                let mac = self.state.next_hop_mac(uplink.next_hop6);
                (refused, Some((uplink, mac)))
            }
        };
        if let Some((reason, error)) = refused {
            return match sender {
                Some(rules) => {
                    self.report6(Stage::Route, rules, packet, ip, frame, reason, Some(error))
                }
                None => self.refuse(Stage::Route, reason),
            };
        }
        match (hop, mac) {
            (Hop::Port(id), _) => {
                self.note_route(hop);
                self.rewrite_to_port(frame, ip.total_len, id, Some(ip.destination))
            }
            (Hop::Uplink, Some((uplink, Some(mac)))) => {
                self.note_route(hop);
                frame.bytes_mut()[ETHERNET_LEN + 7] = ip.hop_limit - 1;
                self.rewrite_to_uplink(frame, ip.total_len, uplink, mac)
            }
            (Hop::Uplink, _) => self.refuse(Stage::Route, DropReason::NeighbourUnresolved),
        }
    }

    pub(super) fn uplink_frame(&mut self, frame: &mut Frame<'_>) -> Outcome {
        let tables = self.tables;
        let Some(uplink) = &tables.uplink else {
            return self.refuse(Stage::Filter, DropReason::RouteNone);
        };
        let packet = match filter::from_uplink(tables, uplink, frame) {
            Ok(packet) => packet,
            Err(reason) => return self.refuse(Stage::Filter, reason),
        };
        self.notes
            .note(Stage::Filter, format_args!("pass: {}", Describe(&packet)));
        match packet.ip {
            Ip::V4(ip) => self.ipv4_from_uplink(uplink, &packet, &ip, frame),
            Ip::V6(ip) => self.ipv6_from_uplink(uplink, &packet, &ip, frame),
            Ip::Arp(arp) => self.arp_from_uplink(uplink, &arp, frame),
            Ip::Rarp => self.refuse(Stage::Service, DropReason::Absorbed),
        }
    }

    fn arp_from_uplink(
        &mut self,
        uplink: &UplinkRules,
        arp: &Arp,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let sender = Ipv4Addr::from_bits(arp.sender_ip).into();
        let next_hop = self.tables.next_hop_at(sender);
        if let Some(id) = next_hop
            && uplink.is_other_station(arp.sender_mac)
        {
            self.state.next_hops[usize::from(id)].confirm(self.now_ns, arp.sender_mac);
        }
        if arp.request && arp.sender_ip != arp.target_ip {
            if uplink.ipv4 == Some(arp.target_ip) {
                let built = answer::arp_reply(frame, uplink.mac, arp);
                return self.answered(built, None, frame, format_args!("ARP"));
            }
            return self.refuse(Stage::Service, DropReason::ArpUnknown);
        }
        if next_hop.is_some() {
            return self.refuse(Stage::Service, DropReason::Absorbed);
        }
        self.refuse(Stage::Service, DropReason::ArpUnknown)
    }

    #[inline(always)]
    fn ipv4_from_uplink(
        &mut self,
        uplink: &UplinkRules,
        packet: &Packet,
        ip: &Ipv4,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let target = self.state.route4(self.tables, ip.destination, self.now_ns);
        if target == Some(Target::UplinkSelf) {
            if answer::is_echo_request4(ip) {
                let built = answer::echo_reply4(frame, uplink.mac, ip);
                return self.answered(built, None, frame, format_args!("ICMP echo"));
            }
            if let Some(tunnel) = &self.tables.tunnel
                && tunnel.takes(Ipv4Addr::from_bits(ip.destination).into(), ip.udp())
            {
                return self.decapsulate(tunnel, ip.into(), frame);
            }
            let told = self.path_mtu4(ip, &frame.bytes()[ETHERNET_LEN..]);
            return self.refuse(Stage::Service, taken_or_unserved(told));
        }
        if let Some(reason) = unroutable4(packet, ip, target) {
            return self.refuse(Stage::Route, reason);
        }
        match target {
            Some(Target::Port(_)) if self.tables.takes_only_tunnel() => {
                self.refuse(Stage::Route, DropReason::TunnelOnly)
            }
            Some(Target::Port(id)) => self.forward4(None, packet, ip, frame, Hop::Port(id)),
            Some(Target::Uplink | Target::Underlay | Target::Peer(_)) => {
                self.refuse(Stage::Route, DropReason::NoTransit)
            }
            _ => self.refuse(Stage::Route, DropReason::RouteNone),
        }
    }

    #[inline(always)]
    fn ipv6_from_uplink(
        &mut self,
        uplink: &UplinkRules,
        packet: &Packet,
        ip: &Ipv6,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        if let Some(kind) = ip.icmp_type()
            && nd::is_for_gateway(kind)
        {
            return self.nd_from_uplink(uplink, ip, kind, frame);
        }
        let target = self.tables.route6(ip.destination);
        if target == Some(Target::UplinkSelf) {
            if answer::is_echo_request6(ip) {
                let built = answer::echo_reply6(frame, uplink.mac, ip);
                return self.answered(built, None, frame, format_args!("ICMPv6 echo"));
            }
            if let Some(tunnel) = &self.tables.tunnel
                && tunnel.takes(Ipv6Addr::from_bits(ip.destination).into(), ip.udp())
            {
                return self.decapsulate(tunnel, ip.into(), frame);
            }
            let told = self.path_mtu6(ip, &frame.bytes()[ETHERNET_LEN..]);
            return self.refuse(Stage::Service, taken_or_unserved(told));
        }
        if let Some(reason) = unroutable6(packet, ip) {
            return self.refuse(Stage::Route, reason);
        }
        match target {
            Some(Target::Port(_)) if self.tables.takes_only_tunnel() => {
                self.refuse(Stage::Route, DropReason::TunnelOnly)
            }
            Some(Target::Port(id)) => self.forward6(None, packet, ip, frame, Hop::Port(id)),
            Some(Target::Uplink | Target::Underlay | Target::Peer(_)) => {
                self.refuse(Stage::Route, DropReason::NoTransit)
            }
            _ => self.refuse(Stage::Route, DropReason::RouteNone),
        }
    }

    fn nd_from_uplink(
        &mut self,
        uplink: &UplinkRules,
        ip: &Ipv6,
        kind: u8,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let layer3 = frame.bytes().get(ETHERNET_LEN..).unwrap_or_default();
        match (kind, nd::target(ip, layer3)) {
            (nd::NEIGHBOR_SOLICITATION, Some(wanted))
                if uplink.ipv6 == Some(wanted) && ip.source != 0 =>
            {
                let built = answer::neighbor_advertisement(frame, uplink.mac, ip, wanted, true);
                self.answered(built, None, frame, format_args!("Neighbor Advertisement"))
            }
            (nd::NEIGHBOR_SOLICITATION, _) => self.refuse(Stage::Service, DropReason::NdUnknown),
            (nd::NEIGHBOR_ADVERTISEMENT, Some(target)) => {
                let next_hop = self.tables.next_hop_at(Ipv6Addr::from_bits(target).into());
                let Some(id) = next_hop else {
                    return self.refuse(Stage::Service, DropReason::NdUnknown);
                };
                let named = nd::target_link_layer(ip, layer3);
                let mac = named.unwrap_or_else(|| wire::mac_at(frame.bytes(), 6));
                if uplink.is_other_station(mac) {
                    self.state.next_hops[usize::from(id)].confirm(self.now_ns, mac);
                }
                self.refuse(Stage::Service, DropReason::Absorbed)
            }
            _ => self.refuse(Stage::Service, DropReason::Absorbed),
        }
    }
}

/// Puts the asker's tag back into what was built for it, if it had one.
fn with_tag(built: Option<()>, vid: Option<u16>, frame: &mut Frame<'_>) -> Option<()> {
    built.and_then(|()| vid.map_or(Some(()), |vid| frame.insert_tag(vid)))
}

/// What becomes of a packet to our own address on the underlay that asks for no service there.
fn taken_or_unserved(told: bool) -> DropReason {
    if told {
        DropReason::Absorbed
    } else {
        DropReason::GatewayService
    }
}

/// Rows "Route 3 to 5": what no route is looked up for.
#[inline(always)]
pub(super) fn unroutable4(
    packet: &Packet,
    ip: &Ipv4,
    target: Option<Target>,
) -> Option<DropReason> {
    if ip.destination >> 28 >= 0xe || target == Some(Target::Broadcast) {
        Some(DropReason::Multicast)
    } else if ip.destination >> 16 == 0xa9fe {
        Some(DropReason::LinkLocalIp)
    } else if packet.group {
        Some(DropReason::DstMac)
    } else {
        None
    }
}

/// As [`unroutable4`].
#[inline(always)]
pub(super) fn unroutable6(packet: &Packet, ip: &Ipv6) -> Option<DropReason> {
    if ip.destination >> 120 == 0xff {
        Some(DropReason::Multicast)
    } else if filter::is_link_local6(ip.destination) {
        Some(DropReason::LinkLocalIp)
    } else if wire::is_embedded4(ip.destination) {
        Some(DropReason::RouteNone)
    } else if packet.group {
        Some(DropReason::DstMac)
    } else {
        None
    }
}

impl Tables {
    pub(super) fn uplink_id(&self) -> PortId {
        PortId(self.ports.len() as u16)
    }

    /// What the gateway says of itself at that port, if the tenant has an IPv6 gateway.
    pub(super) fn advertisement(&self, rules: &PortRules) -> Option<Advertisement> {
        self.gateway6.map(|gateway| Advertisement {
            mac: rules.gateway_mac,
            link_local: rules.gateway_link_local,
            gateway,
            prefix_len: self.gateway6_subnet.map_or(0, |net| net.len),
            mtu: match &self.tunnel {
                Some(tunnel) => rules.mtu.min(tunnel.longest),
                None => rules.mtu,
            },
        })
    }

    /// Whether nothing comes in from the underlay but through the tunnel.
    #[inline(always)]
    pub(super) fn takes_only_tunnel(&self) -> bool {
        self.tunnel.as_ref().is_some_and(|tunnel| tunnel.only)
    }
}

/// A packet in a trace.
pub(super) struct Describe<'a>(pub(super) &'a Packet);

impl fmt::Display for Describe<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(vid) = self.0.vid {
            write!(out, "VLAN {vid}, ")?;
        }
        match &self.0.ip {
            Ip::Arp(arp) => {
                let kind = if arp.request { "request" } else { "reply" };
                let (sender, target) =
                    (Ipv4Addr::from(arp.sender_ip), Ipv4Addr::from(arp.target_ip));
                write!(out, "ARP {kind}, sender {sender}, target {target}")
            }
            Ip::Rarp => write!(out, "RARP announce"),
            Ip::V4(ip) => {
                let (source, destination) =
                    (Ipv4Addr::from(ip.source), Ipv4Addr::from(ip.destination));
                let (protocol, len) = (ip.protocol, ip.total_len);
                write!(
                    out,
                    "IPv4 {source} to {destination}, protocol {protocol}, {len} bytes"
                )?;
                write!(out, ", {:?}, {:?}", ip.fragment, ip.transport)
            }
            Ip::V6(ip) => {
                let (source, destination) =
                    (Ipv6Addr::from(ip.source), Ipv6Addr::from(ip.destination));
                let (upper, len) = (ip.upper, ip.total_len);
                write!(
                    out,
                    "IPv6 {source} to {destination}, upper layer {upper}, {len} bytes"
                )?;
                write!(out, ", {:?}, {:?}", ip.fragment, ip.transport)
            }
        }
    }
}
