//! Neighbour Discovery and Router Advertisements: the switch answers for every address that the
//! side may reach, and forwards no message of ND or MLD.

use std::net::Ipv6Addr;

use packet::number::{ethertype, icmpv6};
use packet::wire::{ETHERNET_LEN, Ipv6, Packet, ipv6, mac_at, nd};
use packet::{DropReason, Frame, addr};

use super::Owner;
use crate::pass::{Outcome, Pass, Side};
use crate::stage::{Notes, Stage};
use crate::tables::{PortRules, Target, UplinkRules};

impl<N: Notes> Pass<'_, N> {
    /// Answers a solicitation, and learns from next hops. `kind` is the type of the message.
    pub(super) fn serve_nd(
        &mut self,
        side: Side<'_>,
        packet: &Packet,
        ip: &Ipv6,
        kind: u8,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        if packet.group && !addr::is_multicast6(ip.destination) {
            return self.refuse(Stage::Service, DropReason::DstMac);
        }
        let layer3 = frame.bytes().get(ETHERNET_LEN..).unwrap_or_default();
        match (kind, nd::target(ip, layer3), side) {
            (icmpv6::ROUTER_SOLICITATION, _, Side::Port(rules)) => {
                self.advertise_router(rules, packet, ip, frame)
            }
            (icmpv6::NEIGHBOR_SOLICITATION, Some(wanted), Side::Port(rules)) if ip.source == 0 => {
                self.detect_duplicate(rules, packet, (ip, wanted), frame)
            }
            (icmpv6::NEIGHBOR_SOLICITATION, Some(wanted), _) => {
                if let Side::Uplink(uplink) = side {
                    let said = nd::source_link_layer(ip, layer3);
                    self.hear_solicitation(uplink, ip, said);
                    if ip.source == 0 {
                        let source = mac_at(frame.bytes(), 6);
                        self.hear_claim(Ipv6Addr::from_bits(wanted).into(), source);
                    }
                }
                let is_router = match self.owner6(side, ip, wanted) {
                    Owner::Switch => true,
                    Owner::Station => false,
                    Owner::Sender => return self.refuse(Stage::Service, DropReason::Absorbed),
                    Owner::None => return self.refuse(Stage::Service, DropReason::NdUnknown),
                };
                let built = nd::advertise(frame, side.own_mac(), ip, wanted, is_router);
                let what = format_args!("Neighbor Advertisement");
                self.answer(side, built, packet.vid, frame, what)
            }
            (icmpv6::NEIGHBOR_ADVERTISEMENT, Some(announced), Side::Port(rules)) => {
                if let Some(bindings) = &mut self.state.port(rules.id).bindings {
                    bindings.heard(announced, self.now_ns);
                }
                if rules.shares {
                    let source = mac_at(frame.bytes(), 6);
                    self.hear_holder6(rules, (ip, layer3), (announced, source));
                }
                self.refuse(Stage::Service, DropReason::Absorbed)
            }
            (icmpv6::NEIGHBOR_ADVERTISEMENT, Some(announced), Side::Uplink(uplink)) => {
                let reason = self.learn_next_hop6(uplink, ip, announced, frame);
                self.refuse(Stage::Service, reason)
            }
            _ => {
                self.hear_mld(side, packet, ip, frame);
                self.refuse(Stage::Service, DropReason::Absorbed)
            }
        }
    }

    /// Duplicate Address Detection: the port claims the address, if no other station has it; else
    /// the switch defends it.
    fn detect_duplicate(
        &mut self,
        rules: &PortRules,
        packet: &Packet,
        (ip, wanted): (&Ipv6, u128),
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let (tables, now_ns) = (self.tables, self.now_ns);
        let target = tables.route6(wanted);
        let shared = match target {
            Some(Target::Shared(shared)) => Some(shared),
            _ => None,
        };
        // Who is about to take a shared address over is not kept from it.
        if target == Some(Target::Port(rules.id))
            || wanted == rules.link_local
            || shared.is_some_and(|shared| tables.may_hold(rules.id, shared))
        {
            if wanted == rules.link_local {
                self.state.advertise_after_detection(rules.id, now_ns);
            }
            return self.refuse(Stage::Service, DropReason::Absorbed);
        }
        if self.state.may_claim(tables, rules, wanted) {
            let reason = if self.state.claim(rules.id, wanted, now_ns) {
                if addr::is_link_local6(wanted) {
                    self.state.advertise_after_detection(rules.id, now_ns);
                }
                DropReason::Absorbed
            } else {
                DropReason::NdLimit
            };
            return self.refuse(Stage::Service, reason);
        }
        if let Some(id) = self.state.claimant(wanted) {
            if let Some(bindings) = &mut self.state.port(id).bindings {
                bindings.contest(wanted, now_ns);
            }
        } else if !tables.has_station6(wanted) && !shared.is_some_and(|it| self.state.is_held(it)) {
            return self.refuse(Stage::Service, DropReason::NdSpoof);
        }
        let is_router = target == Some(Target::Gateway) || wanted == rules.gateway_link_local;
        let built = nd::advertise(frame, rules.gateway_mac, ip, wanted, is_router);
        self.refuse_with(Stage::Service, DropReason::NdSpoof, packet, built, frame)
    }

    fn advertise_router(
        &mut self,
        rules: &PortRules,
        packet: &Packet,
        ip: &Ipv6,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let Some(advertisement) = self.tables.advertisement(rules) else {
            return self.refuse(Stage::Service, DropReason::Absorbed);
        };
        let built = advertisement.answer(frame, ip);
        let what = format_args!("Router Advertisement");
        self.answer(Side::Port(rules), built, packet.vid, frame, what)
    }

    /// Learns the MAC of a next hop on the underlay from its Neighbor Advertisement. Returns the
    /// reason of the drop.
    fn learn_next_hop6(
        &mut self,
        uplink: &UplinkRules,
        ip: &Ipv6,
        announced: u128,
        frame: &Frame<'_>,
    ) -> DropReason {
        let layer3 = frame.bytes().get(ETHERNET_LEN..).unwrap_or_default();
        let named = nd::target_link_layer(ip, layer3);
        let mac = named.unwrap_or_else(|| mac_at(frame.bytes(), 6));
        let address = Ipv6Addr::from_bits(announced).into();
        if uplink.is_other_station(mac) {
            self.hear_claim(address, mac);
        }
        let Some(id) = self.tables.next_hop_at(address) else {
            return DropReason::NdUnknown;
        };
        // Without the override flag it says nothing against what is known (RFC 4861, 7.2.5).
        let known = self.state.next_hop_mac(Some(id));
        let differs = known.is_some_and(|known| known != mac);
        if uplink.is_other_station(mac) && (!differs || nd::overrides(ip, layer3)) {
            self.hear_next_hop(id, mac);
        }
        DropReason::Absorbed
    }

    /// A packet from the underlay that the filter has refused for its source: if that is our own,
    /// and the packet is one of Neighbour Discovery, which no router forwards, another station of
    /// the link uses our address.
    #[cold]
    pub(crate) fn hear_refused6(&mut self, frame: &Frame<'_>) {
        let bytes = frame.bytes();
        let is_ipv6 = bytes.get(12..14) == Some(&ethertype::IPV6.to_be_bytes());
        let layer3 = bytes.get(ETHERNET_LEN..).filter(|_| is_ipv6);
        let Some(ip) = layer3.and_then(|layer3| ipv6::parse(layer3).ok()) else {
            return;
        };
        let is_nd = matches!(
            ip.icmp_type(),
            Some(icmpv6::NEIGHBOR_SOLICITATION | icmpv6::NEIGHBOR_ADVERTISEMENT)
        );
        if is_nd && ip.hop_limit == 255 {
            self.hear_claim(Ipv6Addr::from_bits(ip.source).into(), mac_at(bytes, 6));
        }
    }

    /// Learns the MAC of a next hop on the underlay that solicits, and says its own.
    fn hear_solicitation(&mut self, uplink: &UplinkRules, ip: &Ipv6, said: Option<[u8; 6]>) {
        let next_hop = self
            .tables
            .next_hop_at(Ipv6Addr::from_bits(ip.source).into());
        if let (Some(id), Some(mac)) = (next_hop, said)
            && uplink.is_other_station(mac)
        {
            self.hear_next_hop(id, mac);
        }
    }

    /// The owner of an address, as seen from that side. On the underlay and in the tunnel a station
    /// without an address gets no answer.
    fn owner6(&self, side: Side<'_>, ip: &Ipv6, address: u128) -> Owner {
        match side {
            Side::Uplink(uplink) if uplink.has6(address) && ip.source != 0 => Owner::Switch,
            Side::Uplink(_) => Owner::None,
            Side::Peer(_) if ip.source == 0 => Owner::Sender,
            Side::Peer(_) => match self.state.route6(self.tables, address) {
                Some(Target::Gateway) => Owner::Switch,
                Some(Target::Port(_)) => Owner::Station,
                Some(Target::Shared(shared)) => self.owner_of_shared(None, shared, false),
                _ => Owner::None,
            },
            Side::Port(rules) => {
                let target = self.state.route6(self.tables, address);
                if target == Some(Target::Port(rules.id))
                    || address == rules.link_local
                    || self.state.has_claimed(rules.id, address)
                {
                    return Owner::Sender;
                }
                if let Some(Target::Shared(shared)) = target {
                    return self.owner_of_shared(Some(rules), shared, false);
                }
                let metadata = rules.metadata && address == addr::METADATA6;
                if metadata || address == rules.gateway_link_local {
                    return Owner::Switch;
                }
                // By which it reaches its clients.
                let station = || self.state.port_of_link_local(self.tables, address);
                if rules.dhcp_server && station().is_some() {
                    return Owner::Station;
                }
                let on_link_only = addr::is_link_local6(address) || addr::is_embedded4(address);
                match target {
                    Some(Target::Gateway) => Owner::Switch,
                    Some(Target::Uplink) if self.tables.stands_for_closed4(address) => Owner::None,
                    Some(Target::Port(_) | Target::Uplink | Target::Peer(_)) if !on_link_only => {
                        Owner::Station
                    }
                    _ => Owner::None,
                }
            }
        }
    }
}
