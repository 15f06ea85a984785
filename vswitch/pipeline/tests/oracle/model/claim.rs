//! The rows of "Claimed addresses".

use super::*;
use crate::oracle::{frames, rows};

const SECOND_NS: u64 = 1_000_000_000;

/// An address that a port has claimed.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    address: Ipv6Addr,
    heard_ns: u64,
    /// Solicitations since then, and when the next is due, or the end.
    solicited: u32,
    due_ns: u64,
}

impl Claim {
    /// "Heard of" at that time.
    fn new(address: Ipv6Addr, now_ns: u64) -> Self {
        Self {
            address,
            heard_ns: now_ns,
            solicited: 0,
            due_ns: now_ns + 300 * SECOND_NS,
        }
    }
}

impl Model {
    fn claims_of(&self, port: &PortConfig) -> &[Claim] {
        let claims = self.claims.get(port.name.as_str());
        claims.map_or(&[], Vec::as_slice)
    }

    /// What the port has claimed in the gateway's subnet.
    pub(super) fn claimed_in_subnet(&self, port: &PortConfig) -> Vec<ipnet::IpNet> {
        let all = self.claims_of(port).iter().map(|claim| claim.address);
        let global = all.filter(|address| !is_link_local((*address).into()));
        global.map(|address| IpAddr::V6(address).into()).collect()
    }

    /// Whether the port has claimed the address.
    pub(super) fn has_claimed(&self, port: &PortConfig, address: Ipv6Addr) -> bool {
        let claims = self.claims_of(port);
        claims.iter().any(|claim| claim.address == address)
    }

    /// Whether `address` is "one of the port's addresses (its link-local counts)".
    pub(super) fn has6(&self, port: &PortConfig, address: Ipv6Addr) -> bool {
        owns_or_link_local(port, address) || self.has_claimed(port, address)
    }

    /// The port to whose station a link-local address leads: it is made from its `mac`, or claimed.
    pub(super) fn port_of_link_local(&self, address: IpAddr) -> Option<usize> {
        let IpAddr::V6(address) = address else {
            return None;
        };
        let has_it = |port: &PortConfig| {
            port.mac.link_local() == address
                || (is_link_local(address.into()) && self.has_claimed(port, address))
        };
        self.config.ports.iter().position(has_it)
    }

    /// "A port may claim …".
    pub(super) fn may_claim(&self, port: &PortConfig, address: Ipv6Addr) -> bool {
        let mut others = self
            .config
            .ports
            .iter()
            .filter(|other| other.name != port.name);
        self.is_claimable(port.name.as_str(), address)
            && !others.any(|other| self.has_claimed(other, address))
    }

    fn is_claimable(&self, name: &str, address: Ipv6Addr) -> bool {
        let ports = &self.written.ports;
        if is_link_local(address.into()) {
            return !ports.iter().any(|port| {
                address == port.mac.link_local() || address == port.gateway_mac.link_local()
            });
        }
        let port = ports.iter().find(|port| port.name.as_str() == name);
        let subnet = self.written.gateway.ipv6;
        port.is_some_and(|port| port.addresses6.is_some())
            && subnet.is_some_and(|net| {
                net.contains(&address) && address != net.network() && address != net.addr()
            })
            && !ports.iter().any(|port| owns(port, address.into()))
            && matches!(self.route(address.into()), Route::Nowhere | Route::Port(_))
    }

    /// "One more takes the place …": that place.
    fn room(&self, port: &PortConfig, address: Ipv6Addr) -> Option<usize> {
        let claims = self.claims_of(port);
        let near = is_link_local(address.into());
        let alike: Vec<usize> = (0..claims.len())
            .filter(|place| is_link_local(claims[*place].address.into()) == near)
            .collect();
        if alike.len() < if near { 4 } else { 8 } {
            return Some(claims.len());
        }
        let silent = alike
            .into_iter()
            .min_by_key(|place| claims[*place].heard_ns);
        silent.filter(|place| self.now_ns >= claims[*place].heard_ns + 60 * SECOND_NS)
    }

    pub(super) fn has_room(&self, port: &PortConfig, address: Ipv6Addr) -> bool {
        self.room(port, address).is_some()
    }

    /// Whether the file gives the port the address, or it is made from its `mac`.
    fn is_assigned(&self, port: &PortConfig, address: Ipv6Addr) -> bool {
        let mut ports = self.written.ports.iter();
        let written = ports.find(|written| written.name == port.name);
        written.is_some_and(|written| owns_or_link_local(written, address))
    }

    /// The port claims the address, or is heard of with it; whether there was room.
    pub(super) fn claim(&mut self, port: &PortConfig, address: Ipv6Addr) -> bool {
        let new = Claim::new(address, self.now_ns);
        let room = self.room(port, address);
        let claims = self.claims.entry(port.name.to_string()).or_default();
        let known = claims.iter().position(|claim| claim.address == address);
        match known.or(room) {
            Some(place) if place < claims.len() => claims[place] = new,
            Some(_) => claims.push(new),
            None => return false,
        }
        true
    }

    /// A packet of the port has passed the filter and storm control.
    pub(super) fn heard_from(&mut self, port: &PortConfig, packet: &Packet<'_>) {
        let IpAddr::V6(source) = packet.source else {
            return;
        };
        if !source.is_unspecified() && !self.is_assigned(port, source) {
            assert!(self.claim(port, source), "the filter knows of room");
        }
    }

    /// NA for an address that the port has.
    pub(super) fn advertised(&mut self, port: &PortConfig, address: Ipv6Addr) {
        if self.has_claimed(port, address) {
            self.claim(port, address);
        }
    }

    /// "NS from `::` (Duplicate Address Detection)".
    pub(super) fn detected(&mut self, port: &PortConfig, address: Ipv6Addr) -> Outcome {
        if self.is_assigned(port, address) || port.shared.contains(&address.into()) {
            return Absorbed.into();
        }
        if self.may_claim(port, address) {
            return if self.claim(port, address) {
                Absorbed.into()
            } else {
                NdLimit.into()
            };
        }
        let now_ns = self.now_ns;
        for claim in self.claims.values_mut().flatten() {
            if claim.address == address && claim.solicited == 0 {
                claim.due_ns = now_ns;
            }
        }
        let is_of_somebody = if is_link_local(address.into()) {
            true
        } else {
            let route = self.route(address.into());
            self.is_gateway(address.into())
                || self.holder(address.into()).is_some()
                || (matches!(route, Route::Port(_) | Route::Peer(_))
                    && !is_embedded_ipv4(address.into()))
        };
        if is_of_somebody {
            Outcome::Defend(Answer::NeighborAdvertisement {
                mac: port.gateway_mac.octets(),
                address,
            })
        } else {
            NdSpoof.into()
        }
    }

    /// What the clock does: the solicitations that are due, each with its port; claims that were
    /// solicited in vain end.
    pub(crate) fn solicitations(&mut self, now_ns: u64) -> Vec<(usize, Vec<u8>)> {
        let mut due = Vec::new();
        for (number, port) in self.written.ports.iter().enumerate() {
            let Some(claims) = self.claims.get_mut(port.name.as_str()) else {
                continue;
            };
            claims.retain(|claim| claim.solicited < 3 || now_ns < claim.due_ns);
            let is_far = |claim: &&mut Claim| !is_link_local(claim.address.into());
            let mut of_port: Vec<&mut Claim> = claims.iter_mut().collect();
            of_port.sort_by_key(is_far);
            for claim in of_port.into_iter().filter(|claim| now_ns >= claim.due_ns) {
                claim.solicited += 1;
                claim.due_ns = now_ns + SECOND_NS;
                let gateway = port.gateway_mac;
                let mac = frames::link_layer(1, gateway.octets());
                let message = frames::neighbor(135, 0, claim.address, &[mac]);
                let group = rows::solicited_node(claim.address);
                let packet = frames::V6::icmp(gateway.link_local(), group, message);
                let to = frames::group_mac(group);
                let frame = frames::ethernet(to, gateway.octets(), IPV6, &packet.bytes());
                due.push((
                    number,
                    match self.tags.get(&(number, claim.address.into())) {
                        Some(Some(vid)) => frames::tagged(&frame, 0x8100, *vid),
                        _ => frame,
                    },
                ));
            }
        }
        due
    }

    /// A new configuration: another station has no claims, nor has somebody else's address any.
    pub(super) fn keep_claims(&mut self, old: &SwitchConfig) {
        let mut claims = std::mem::take(&mut self.claims);
        let port = |config: &SwitchConfig, name: &str| {
            let mut ports = config.ports.iter();
            ports.find(|port| port.name.as_str() == name).cloned()
        };
        claims.retain(|name, claims| {
            claims.retain(|claim| self.is_claimable(name, claim.address));
            match (port(&self.written, name), port(old, name)) {
                (Some(new), Some(former)) => {
                    new.mac == former.mac
                        && new.ipv6 == Ipv6Use::Allow
                        && former.ipv6 == Ipv6Use::Allow
                }
                _ => false,
            }
        });
        self.claims = claims;
    }
}
