//! The mutable half of a switch: what one worker remembers from frame to frame. All of it is
//! bounded and allocated with the generation, off the worker. It is never shared: each worker has
//! its own.

mod bindings;
mod copies;
mod guess;
mod holder;
mod ipsec;
mod lease;
mod members;
mod multicast;
mod next_hop;
mod owners;
mod path_mtu;
mod questions;
mod tags;

pub(crate) use self::bindings::Bindings;
pub(crate) use self::copies::{Copied, Copies, Fragments, Receiver};
pub(crate) use self::guess::GuessesByKind;
pub(crate) use self::holder::Holder;
pub(crate) use self::ipsec::Ipsec;
pub(crate) use self::lease::LeaseState;
pub(crate) use self::multicast::Groups;
pub(crate) use self::next_hop::NextHop;
use self::owners::Owners;
pub(crate) use self::path_mtu::{PathMtu, Reported, SentLately};
pub(crate) use self::questions::{Asker, Question, Questions};
pub(crate) use self::tags::TagCache;

use std::net::IpAddr;
use std::sync::Arc;

use packet::addr;
use packet::wire::{dhcp, dhcp6};

use crate::bucket::Bucket;
use crate::clients::{Claims, Clients, Family};
use crate::ids::{NextHopId, PortId, SharedId};
use crate::metadata;
use crate::tables::{PortRules, Tables, Target};

/// The token buckets of storm control at one port.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StormBuckets {
    pub(crate) arp_nd: Bucket,
    pub(crate) dhcp: Bucket,
    pub(crate) broadcast: Bucket,
    pub(crate) frames: Bucket,
    pub(crate) bits: Bucket,
    /// Group frames that the port sends to others.
    pub(crate) groups_sent: Bucket,
    /// Group frames that it gets from others.
    pub(crate) groups_got: Bucket,
}

/// What is remembered of one port.
#[derive(Debug, Default)]
pub(crate) struct PortState {
    pub(crate) storm: StormBuckets,
    pub(crate) icmp_errors: Bucket,
    /// Packets to the port's metadata.
    pub(crate) metadata: Bucket,
    /// Queries for resolvers.
    pub(crate) queries: Bucket,
    /// Packets that are fragmented.
    pub(crate) fragmented: Bucket,
    pub(crate) lease: LeaseState,
    /// Present where a port of the tenant serves DHCP.
    pub(crate) claims: Option<Box<Claims>>,
    /// The same for DHCPv6.
    pub(crate) claims6: Option<Box<Claims>>,
    /// Present where the port may use IPv6.
    pub(crate) bindings: Option<Box<Bindings>>,
    /// Present on trunk ports.
    pub(crate) tags: Option<Box<TagCache>>,
}

impl PortState {
    fn new(tables: &Tables, rules: &PortRules) -> Self {
        Self {
            claims: tables.has_dhcp.then(Box::default),
            claims6: tables.has_dhcp.then(Box::default),
            bindings: (!rules.deny_ipv6).then(Box::default),
            tags: (!rules.trunk.is_empty()).then(Box::default),
            ..Self::default()
        }
    }

    /// Whether the port has claimed the address.
    #[inline]
    fn has_claimed(&self, address: u128) -> bool {
        let bindings = self.bindings.as_deref();
        bindings.is_some_and(|bindings| bindings.has(address))
    }

    /// Keeps what was remembered of the port under the previous rules, `old`. A port with another
    /// MAC is another station: only its limits remain as they were.
    fn keep(&mut self, tables: &Tables, rules: &PortRules, old: &PortRules, previous: &mut Self) {
        self.storm = previous.storm;
        self.icmp_errors = previous.icmp_errors;
        self.metadata = previous.metadata;
        self.queries = previous.queries;
        self.fragmented = previous.fragmented;
        if rules.mac != old.mac {
            return;
        }
        for (new, old) in [
            (&mut self.claims, &mut previous.claims),
            (&mut self.claims6, &mut previous.claims6),
        ] {
            if let (Some(new), Some(old)) = (new, old) {
                new.keep(old);
            }
        }
        if rules.learns {
            self.lease
                .keep(&mut previous.lease, |address| tables.is_free4(address));
        }
        if let (Some(new), Some(old)) = (&mut self.bindings, &mut previous.bindings) {
            std::mem::swap(new, old);
            new.add_restored(old);
        }
        if self.tags.is_some() && previous.tags.is_some() {
            std::mem::swap(&mut self.tags, &mut previous.tags);
            if let Some(tags) = self.tags.as_mut().filter(|_| rules.trunk != old.trunk) {
                tags.retain(&rules.trunk);
            }
        }
    }
}

/// What is remembered of all ports and of the underlay.
///
/// A new generation keeps all of it: by one swap where the tables share the part that it
/// belongs to, else entry by entry. A lease is checked when it is used, by the number of the
/// generation.
#[derive(Debug)]
pub(crate) struct State {
    /// Counts the generations of the pipeline.
    generation: u64,
    /// The generation for which every lease was checked.
    leases_checked: u64,
    /// Whether a lease, an identifier or a holder was restored before this state was installed.
    restored: bool,
    /// The tenant's ports.
    pub(crate) ports: Box<[PortState]>,
    /// Which of them has claimed which IPv6 address.
    claimants: Owners<u128>,
    /// Which of them has a lease of which IPv4 address.
    lessees: Owners<u32>,
    /// Who holds the shared addresses, in the order of [`Tables::shared`].
    pub(crate) holders: Box<[Holder]>,
    /// The shared address that comes first when more are unknown than may be asked for at once.
    pub(crate) ask_from: usize,
    /// In the order of [`Tables::next_hops`].
    pub(crate) next_hops: Box<[NextHop]>,
    /// The next hop that comes first when there are more than may be solicited at once.
    pub(crate) solicit_from: usize,
    /// The other station that has claimed our endpoint's address last, and when, in nanoseconds.
    pub(crate) vtep_conflict: Option<([u8; 6], u64)>,
    /// The tunnel's endpoints.
    pub(crate) paths: Box<[PathMtu]>,
    /// Who forges reports about them.
    pub(crate) guesses: Box<GuessesByKind>,
    /// Of the ICMP errors to senders on the underlay.
    pub(crate) uplink_errors: Bucket,
    /// Of those to the VMs of each peer.
    pub(crate) peer_errors: Box<[Bucket]>,
    /// Their SAs.
    pub(crate) ipsec: Box<Ipsec>,
    /// To whoever serves metadata.
    pub(crate) metadata: Option<Arc<metadata::Channel>>,
    /// What resolvers were asked.
    pub(crate) questions: Questions,
    pub(crate) next_advertisement_ns: u64,
    /// No advertisement to one port alone is due before.
    pub(crate) next_detected_ns: u64,
    /// Who listens to which group, where the tenant allows any.
    pub(crate) groups: Option<Box<Groups>>,
    /// The receivers of the last frame that several get.
    pub(crate) copies: Box<Copies>,
}

impl State {
    pub(crate) fn new(tables: &Tables) -> Self {
        let ports = tables.ports.iter();
        let ports = ports.map(|rules| PortState::new(tables, rules));
        let next_hops = tables.next_hops.iter().map(|_| NextHop::default());
        let paths = tables.tunnel.iter().flat_map(|tunnel| {
            let new = |vtep| PathMtu::new(tunnel, vtep);
            tunnel.vteps().iter().map(new)
        });
        let peers = tables.tunnel.as_ref();
        let peers = peers.map_or(0, |tunnel| tunnel.peers().len());
        let vteps = tables.tunnel.iter().flat_map(|tunnel| tunnel.vteps());
        let room = tables.multicast.as_ref().map_or(0, |_| vteps.count());
        Self {
            generation: 0,
            leases_checked: 0,
            restored: false,
            ports: ports.collect(),
            claimants: Owners::new(bindings::MAX * tables.ports.len()),
            lessees: Owners::new(tables.ports.len()),
            holders: tables.shared.iter().map(|_| Holder::default()).collect(),
            ask_from: 0,
            next_hops: next_hops.collect(),
            solicit_from: 0,
            vtep_conflict: None,
            paths: paths.collect(),
            guesses: Box::default(),
            uplink_errors: Bucket::FULL,
            peer_errors: vec![Bucket::FULL; peers].into(),
            ipsec: Box::new(Ipsec::new(tables)),
            metadata: None,
            questions: Questions::new(tables),
            next_advertisement_ns: 0,
            next_detected_ns: 0,
            groups: Groups::new(tables),
            copies: Box::new(Copies::with_room(room)),
        }
    }

    /// What is remembered of a tenant's port.
    #[inline(always)]
    pub(crate) fn port(&mut self, id: PortId) -> &mut PortState {
        &mut self.ports[id.index()]
    }

    /// The port's VM detects duplicates of its link-local address: it is told of its router once
    /// it has done so, unless it soon is anyway.
    pub(crate) fn advertise_after_detection(&mut self, id: PortId, now_ns: u64) {
        let Some(bindings) = &mut self.ports[id.index()].bindings else {
            return;
        };
        if bindings.advertise_at_ns.is_none() {
            let due_ns = now_ns.saturating_add(bindings::DETECTION_NS);
            bindings.advertise_at_ns = Some(due_ns);
            self.next_detected_ns = self.next_detected_ns.min(due_ns);
        }
    }

    /// The MAC of a next hop, while it answers.
    #[inline(always)]
    pub(crate) fn next_hop_mac(&self, id: Option<NextHopId>) -> Option<[u8; 6]> {
        self.next_hops.get(id?.index())?.mac()
    }

    /// Marks all next hops as resolved, with that MAC.
    pub(crate) fn confirm_next_hops(&mut self, now_ns: u64, mac: [u8; 6]) {
        for next_hop in &mut self.next_hops {
            next_hop.confirm(now_ns, mac);
        }
    }

    /// The lease of a port.
    #[inline]
    pub(crate) fn lease(&mut self, tables: &Tables, id: PortId) -> &mut LeaseState {
        let lease = &mut self.ports[id.index()].lease;
        lease.revalidate(self.generation, |address| tables.is_free4(address));
        lease
    }

    /// The identifiers of the port's DHCP client, where a port of the tenant serves DHCP.
    pub(crate) fn claims(&mut self, id: PortId) -> Option<&mut Claims> {
        self.ports[id.index()].claims.as_deref_mut()
    }

    /// As [`Self::claims`], of DHCPv6.
    pub(crate) fn claims6(&mut self, id: PortId) -> Option<&mut Claims> {
        self.ports[id.index()].claims6.as_deref_mut()
    }

    /// As [`Self::is_claimed`], of DHCPv6.
    pub(crate) fn is_claimed6(
        &self,
        tables: &Tables,
        id: PortId,
        identifier: &[u8],
        now_ns: u64,
    ) -> bool {
        let others = tables.ports.iter().filter(|rules| rules.id != id);
        let mut claims = others.filter_map(|rules| self.ports[rules.id.index()].claims6.as_ref());
        !identifier.is_empty() && claims.any(|claims| claims.owns(identifier, now_ns))
    }

    /// Whether another port than `id` owns an identifier of DHCP.
    pub(crate) fn is_claimed(
        &self,
        tables: &Tables,
        id: PortId,
        identifier: &[u8],
        now_ns: u64,
    ) -> bool {
        let others = tables.ports.iter().filter(|rules| rules.id != id);
        let mut claims = others.filter_map(|rules| self.ports[rules.id.index()].claims.as_ref());
        !identifier.is_empty() && claims.any(|claims| claims.owns(identifier, now_ns))
    }

    /// Whether the port has claimed the address.
    #[inline]
    pub(crate) fn has_claimed(&self, id: PortId, address: u128) -> bool {
        self.ports[id.index()].has_claimed(address)
    }

    /// The port that has claimed the address.
    #[inline]
    pub(crate) fn claimant(&self, address: u128) -> Option<PortId> {
        let id = self.claimants.last(address)?;
        self.has_claimed(id, address).then_some(id)
    }

    /// Lets the port claim the address, or confirms that it has. False if it has no room.
    pub(crate) fn claim(&mut self, id: PortId, address: u128, now_ns: u64) -> bool {
        let Some(bindings) = &mut self.ports[id.index()].bindings else {
            return false;
        };
        let version = bindings.version;
        let claimed = bindings.claim(address, now_ns);
        if bindings.version != version {
            let ports = &self.ports;
            let has = |id: PortId, address| ports[id.index()].has_claimed(address);
            self.claimants.note(address, id, has);
        }
        claimed
    }

    /// Whether the port may claim the address, or has done so, if it has room.
    pub(crate) fn may_claim(&self, tables: &Tables, rules: &PortRules, address: u128) -> bool {
        self.ports[rules.id.index()].bindings.is_some()
            && tables.is_claimable6(rules, address)
            && self.claimant(address).is_none_or(|id| id == rules.id)
    }

    /// Whether the port has room for the claim of the address beside those that it has.
    pub(crate) fn has_room(&self, id: PortId, address: u128, now_ns: u64) -> bool {
        let bindings = self.ports[id.index()].bindings.as_deref();
        bindings.is_some_and(|bindings| bindings.has_room(address, now_ns))
    }

    /// Where a destination leads, claimed addresses included.
    #[inline(always)]
    pub(crate) fn route6(&self, tables: &Tables, address: u128) -> Option<Target> {
        match tables.route6(address) {
            Some(Target::Unowned) if tables.learns6 => self.claimed6(tables, address),
            target => target,
        }
    }

    #[inline(never)]
    fn claimed6(&self, tables: &Tables, address: u128) -> Option<Target> {
        let owner = self.claimant(address);
        let owner = owner.filter(|id| tables.port(*id).learns6);
        Some(owner.map_or(Target::Unowned, Target::Port))
    }

    /// Whether a station other than the one behind that port has the address, or the gateway has.
    pub(crate) fn is_anothers6(&self, tables: &Tables, id: PortId, address: u128) -> bool {
        match self.route6(tables, address) {
            Some(Target::Port(owner)) => owner != id,
            Some(Target::Unowned) => false,
            _ => tables.is_near6(address),
        }
    }

    /// The port whose station has that link-local address.
    pub(crate) fn port_of_link_local(&self, tables: &Tables, address: u128) -> Option<PortId> {
        if !addr::is_link_local6(address) {
            return None;
        }
        let by_mac = tables.port_of_link_local(address);
        by_mac.or_else(|| self.claimant(address))
    }

    /// The port whose station has the address.
    pub(crate) fn station6(&self, tables: &Tables, address: u128) -> Option<PortId> {
        match self.route6(tables, address) {
            Some(Target::Port(id)) => Some(id),
            _ => self.port_of_link_local(tables, address),
        }
    }

    /// Whether a station other than the one behind that port has the address, or the gateway has.
    pub(crate) fn is_anothers4(
        &mut self,
        tables: &Tables,
        id: PortId,
        address: u32,
        now_ns: u64,
    ) -> bool {
        match self.route4(tables, address, now_ns) {
            Some(Target::Port(owner)) => owner != id,
            Some(Target::Unowned) => false,
            _ => tables.is_near4(address),
        }
    }

    /// Checks every lease that was not used since the generation began.
    pub(crate) fn revalidate_leases(&mut self, tables: &Tables) {
        if self.leases_checked == self.generation {
            return;
        }
        for rules in tables.ports.iter().filter(|rules| rules.learns) {
            self.lease(tables, rules.id);
        }
        self.leases_checked = self.generation;
    }

    /// The port to which DHCP has given the address.
    pub(crate) fn lease_owner(
        &mut self,
        tables: &Tables,
        address: u32,
        now_ns: u64,
    ) -> Option<PortId> {
        if !tables.learns {
            return None;
        }
        let id = self.lessees.last(address)?;
        let has_it = self.lease(tables, id).address(now_ns) == Some(address);
        (has_it && tables.port(id).learns).then_some(id)
    }

    /// A server has granted the address, which no other port has, to the port's client.
    pub(crate) fn grant(&mut self, tables: &Tables, id: PortId, address: u32, until_ns: u64) {
        self.lease(tables, id).grant(address, until_ns);
        self.note_lessee(address, id);
    }

    fn note_lessee(&mut self, address: u32, id: PortId) {
        let ports = &self.ports;
        let has = |id: PortId, address| ports[id.index()].lease.address(0) == Some(address);
        self.lessees.note(address, id, has);
    }

    /// Gives a port the lease that it had before a restart. False if DHCP could not have given it:
    /// the port has another MAC or does not learn, the address is not free, or another port has it.
    pub(crate) fn restore_lease(
        &mut self,
        tables: &Tables,
        (port, mac): (&str, [u8; 6]),
        address: u32,
        until_ns: u64,
    ) -> bool {
        let is_taken = self
            .ports
            .iter()
            .any(|port| port.lease.address(0) == Some(address));
        let rules = tables
            .ports
            .iter()
            .find(|rules| rules.learns && tables.names[rules.id.index()] == port);
        match rules.filter(|rules| rules.mac == mac) {
            Some(rules) if !is_taken && tables.is_free4(address) => {
                self.port(rules.id).lease.restore(address, until_ns);
                self.note_lessee(address, rules.id);
                self.restored = true;
                true
            }
            _ => false,
        }
    }

    /// Gives a port the identifiers that its clients had before a restart. False if they can not
    /// have had them: the port has another MAC, the tenant has no DHCP server, there are too many,
    /// or one is another port's.
    pub(crate) fn restore_clients(
        &mut self,
        tables: &Tables,
        (port, mac): (&str, [u8; 6]),
        family: Family,
        clients: &Clients,
    ) -> bool {
        let mut known = tables.ports.iter();
        let rules = known.find(|rules| tables.names[rules.id.index()] == port);
        let Some(rules) = rules.filter(|rules| rules.mac == mac) else {
            return false;
        };
        let id = rules.id;
        let is_anothers = |identifier: &[u8]| {
            let (named, claimed) = match family {
                Family::V4 => (
                    dhcp::named_mac(identifier),
                    self.is_claimed(tables, id, identifier, 0),
                ),
                Family::V6 => (
                    dhcp6::named_mac(identifier),
                    self.is_claimed6(tables, id, identifier, 0),
                ),
            };
            let owner = named.and_then(|mac| tables.owner_of_mac(mac));
            owner.map_or(claimed, |owner| owner != id)
        };
        if clients
            .identifiers
            .iter()
            .any(|it| is_anothers(&it.identifier))
        {
            return false;
        }
        let claims = match family {
            Family::V4 => self.claims(id),
            Family::V6 => self.claims6(id),
        };
        let restored = claims.is_some_and(|claims| claims.restore(clients));
        self.restored |= restored;
        restored
    }

    /// Gives a port the addresses that it had claimed before a restart. False if it can not have
    /// had one of them: the port has another MAC, may not claim it, or another port has it.
    pub(crate) fn restore_claimed(
        &mut self,
        tables: &Tables,
        (port, mac): (&str, [u8; 6]),
        addresses: &[u128],
        now_ns: u64,
    ) -> bool {
        let mut known = tables.ports.iter();
        let rules = known.find(|rules| tables.names[rules.id.index()] == port);
        let Some(rules) = rules.filter(|rules| rules.mac == mac) else {
            return false;
        };
        let may_claim = |address: &u128| self.may_claim(tables, rules, *address);
        if !addresses.iter().all(may_claim) {
            return false;
        }
        let Some(bindings) = &mut self.ports[rules.id.index()].bindings else {
            return false;
        };
        let restored = addresses.iter().filter(|it| bindings.restore(**it, now_ns));
        let restored = restored.count();
        self.restored |= restored > 0;
        self.note_owners();
        restored == addresses.len()
    }

    /// Has the indices agree with what the ports have.
    fn note_owners(&mut self) {
        let ports = || (0..).map(PortId).zip(&self.ports);
        let claimed = ports().flat_map(|(id, port)| {
            let bindings = port.bindings.iter();
            let addresses = bindings.flat_map(|bindings| bindings.addresses());
            addresses.map(move |address| (address, id))
        });
        self.claimants.rebuild(claimed);
        let leased = ports().filter_map(|(id, port)| Some((port.lease.current(0)?, id)));
        // Of a lease that has ended, the address may be another port's by now.
        let mut leased: Vec<_> = leased.collect();
        leased.sort_by_key(|((_, until_ns), _)| *until_ns);
        let leased = leased.into_iter().map(|((address, _), id)| (address, id));
        self.lessees.rebuild(leased);
    }

    /// Where a destination leads, leases included.
    #[inline(always)]
    pub(crate) fn route4(&mut self, tables: &Tables, address: u32, now_ns: u64) -> Option<Target> {
        match tables.route4(address) {
            Some(Target::Unowned) => match self.lease_owner(tables, address, now_ns) {
                Some(id) => Some(Target::Port(id)),
                None => Some(Target::Unowned),
            },
            target => target,
        }
    }

    /// Keeps what is remembered of ports, next hops and endpoints that the previous tables had too.
    pub(crate) fn keep(&mut self, tables: &Tables, old: &Tables, previous: &mut Self) {
        self.generation = previous.generation + 1;
        self.leases_checked = previous.leases_checked;
        self.keep_ports(tables, old, previous);
        self.keep_holders(tables, old, previous);
        if std::mem::take(&mut self.restored) {
            self.end_contested_leases();
            self.end_contested_claims();
            self.end_contested_bindings();
        }
        for (rules, port) in tables.ports.iter().zip(&mut self.ports) {
            if let Some(bindings) = port.bindings.as_mut().filter(|it| !it.is_empty()) {
                bindings.keep_if(|address| tables.is_claimable6(rules, address));
            }
        }
        self.note_owners();
        if Arc::ptr_eq(&tables.next_hops, &old.next_hops) {
            std::mem::swap(&mut self.next_hops, &mut previous.next_hops);
        } else {
            for (address, next_hop) in tables.next_hops.iter().zip(&mut self.next_hops) {
                if let Some(id) = old.next_hop_at(*address) {
                    *next_hop = previous.next_hops[id.index()];
                }
            }
        }
        if let Some(uplink) = &tables.uplink {
            for next_hop in &mut self.next_hops {
                next_hop.forget_if(uplink.mac);
            }
        }
        std::mem::swap(&mut self.guesses, &mut previous.guesses);
        self.uplink_errors = previous.uplink_errors;
        if self.peer_errors.len() == previous.peer_errors.len() {
            std::mem::swap(&mut self.peer_errors, &mut previous.peer_errors);
        }
        self.keep_groups(tables, old, previous);
        self.metadata = previous.metadata.take();
        self.questions.keep(tables, old, &mut previous.questions);
        self.ipsec.keep(tables, old, &mut previous.ipsec);
        let (Some(tunnel), Some(old)) = (&tables.tunnel, &old.tunnel) else {
            return;
        };
        if tunnel.carrier.own() == old.carrier.own() {
            self.vtep_conflict = previous.vtep_conflict;
        }
        if tunnel.has_same_paths(old) {
            std::mem::swap(&mut self.paths, &mut previous.paths);
            return;
        }
        for (address, vtep) in tunnel.endpoints() {
            if let Some(known) = old.endpoint_at(address) {
                self.paths[vtep.index()].keep(tunnel, previous.paths[known.index()]);
            }
        }
    }

    /// Keeps who listens to the groups that both configurations allow. A port with another MAC is
    /// another station.
    fn keep_groups(&mut self, tables: &Tables, old: &Tables, previous: &mut Self) {
        let (Some(groups), Some(rules), Some(before)) =
            (&mut self.groups, &tables.multicast, &mut previous.groups)
        else {
            return;
        };
        let port_of = |at: usize| {
            let is_same = |id: &usize| {
                old.names[*id] == tables.names[at] && old.ports[*id].mac == tables.ports[at].mac
            };
            let place = Some(at).filter(|id| *id < old.ports.len() && is_same(id));
            place.or_else(|| (0..old.ports.len()).find(is_same))
        };
        let vtep_of = |at: usize| {
            let vtep = tables.tunnel.as_ref()?.vteps().get(at)?;
            Some(old.tunnel.as_ref()?.endpoint_at(vtep.address)?.index())
        };
        groups.keep((tables, rules), before, port_of, vtep_of);
    }

    /// Ends each restored lease whose address DHCP has given to another port meanwhile.
    fn end_contested_leases(&mut self) {
        for at in 0..self.ports.len() {
            if !self.ports[at].lease.take_restored() {
                continue;
            }
            let address = self.ports[at].lease.address(0);
            let has_it = |(other, port): (usize, &PortState)| {
                other != at && address.is_some() && port.lease.address(0) == address
            };
            if self.ports.iter().enumerate().any(has_it) {
                self.ports[at].lease.reset();
            }
        }
    }

    /// Restored identifiers are their ports': whoever else has used one since the restart came
    /// later.
    fn end_contested_claims(&mut self) {
        for at in 0..self.ports.len() {
            let (before, rest) = self.ports.split_at_mut(at);
            let Some((port, after)) = rest.split_first_mut() else {
                return;
            };
            if let Some(claims) = &mut port.claims {
                for (len, value) in claims.take_restored() {
                    for other in before.iter_mut().chain(after.iter_mut()) {
                        other
                            .claims
                            .iter_mut()
                            .for_each(|it| it.disown(&value[..len]));
                    }
                }
            }
            if let Some(claims) = &mut port.claims6 {
                for (len, value) in claims.take_restored() {
                    for other in before.iter_mut().chain(after.iter_mut()) {
                        other
                            .claims6
                            .iter_mut()
                            .for_each(|it| it.disown(&value[..len]));
                    }
                }
            }
        }
    }

    /// Keeps who holds a shared address, if that port may still, by that MAC. What was restored
    /// stays where nobody has announced the address since.
    fn keep_holders(&mut self, tables: &Tables, old: &Tables, previous: &mut Self) {
        let same = Arc::ptr_eq(&tables.names, &old.names)
            && Arc::ptr_eq(&tables.ports, &old.ports)
            && Arc::ptr_eq(&tables.shared, &old.shared);
        if same && !self.restored {
            std::mem::swap(&mut self.holders, &mut previous.holders);
            return;
        }
        for (shared, holder) in tables.shared.iter().zip(&mut self.holders) {
            let known = old.shared_at(shared.address);
            let held = known.and_then(|id| previous.holders[id.index()].held());
            let Some((port, mac)) = held else {
                continue;
            };
            let (name, old) = (&old.names[port.index()], old.port(port));
            let listed = shared.ports.iter().map(|id| tables.port(*id));
            let mut same = listed.filter(|rules| tables.names[rules.id.index()] == *name);
            if let Some(rules) = same.find(|rules| rules.mac == old.mac && rules.has_mac(mac)) {
                holder.announced(rules.id, mac);
            }
        }
    }

    /// Restored addresses are their ports': whoever else has claimed one since the restart came
    /// later.
    fn end_contested_bindings(&mut self) {
        for at in 0..self.ports.len() {
            let (before, rest) = self.ports.split_at_mut(at);
            let Some((port, after)) = rest.split_first_mut() else {
                return;
            };
            let Some(bindings) = &mut port.bindings else {
                continue;
            };
            while let Some(address) = bindings.take_restored() {
                for other in before.iter_mut().chain(after.iter_mut()) {
                    other.bindings.iter_mut().for_each(|it| it.disown(address));
                }
            }
        }
    }

    /// Whether a port is known to hold the shared address.
    pub(crate) fn is_held(&self, shared: SharedId) -> bool {
        self.holders[shared.index()].port().is_some()
    }

    /// Lets a port hold a shared address that it held before a restart. False if it cannot have
    /// been so: the port does not list the address, or the MAC is not one of its own.
    pub(crate) fn restore_holder(
        &mut self,
        tables: &Tables,
        (port, mac): (&str, [u8; 6]),
        address: IpAddr,
    ) -> bool {
        let Some(shared) = tables.shared_at(address) else {
            return false;
        };
        let listed = tables.shared[shared.index()].ports.iter();
        let mut listed = listed.map(|id| tables.port(*id));
        let rules = listed.find(|rules| tables.names[rules.id.index()] == port);
        let Some(rules) = rules.filter(|rules| rules.has_mac(mac)) else {
            return false;
        };
        self.holders[shared.index()].announced(rules.id, mac);
        self.restored = true;
        true
    }

    fn keep_ports(&mut self, tables: &Tables, old: &Tables, previous: &mut Self) {
        let same = Arc::ptr_eq(&tables.names, &old.names) && Arc::ptr_eq(&tables.ports, &old.ports);
        // A restored lease may be one that the previous state lacks.
        if same && !self.restored {
            std::mem::swap(&mut self.ports, &mut previous.ports);
            return;
        }
        for rules in tables.ports.iter() {
            let name = &tables.names[rules.id.index()];
            let is_same = |id: &usize| old.names[*id] == *name;
            // Almost always, the port has its previous place.
            let place = Some(rules.id.index()).filter(|id| *id < old.ports.len() && is_same(id));
            if let Some(id) = place.or_else(|| (0..old.ports.len()).find(is_same)) {
                let old = &old.ports[id];
                self.port(rules.id)
                    .keep(tables, rules, old, &mut previous.ports[id]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tenant_config::SwitchConfig;

    use super::*;
    use crate::secret::FlowSecret;

    fn tables() -> Tables {
        let port = |number: u8| {
            format!(
                r#"{{"name": "vm{number}", "device": {{"driver": "offline"}},
                    "gateway_mac": "02:00:00:00:00:0{number}", "mac": "52:54:00:00:00:0{number}",
                    "addresses": {}, "dhcp_server": {}}}"#,
                if number == 1 {
                    "[\"10.0.0.2/32\"]"
                } else {
                    "\"learn-dhcp\""
                },
                number == 1,
            )
        };
        let ports = [1, 2, 3].map(port).join(",");
        let text = format!(
            r#"{{"tenant": "red", "vni": 5001, "gateway": {{"ipv4": "10.0.0.1/24"}},
                "ports": [{ports}]}}"#
        );
        let config = SwitchConfig::from_json("test", &text).expect("a configuration");
        Tables::build(&config, None, FlowSecret::new([7; 32]))
    }

    /// A lease that has ended does not hide whose the address is now, whoever comes first.
    #[test]
    fn address_given_anew_is_its_new_ports_after_a_reload() {
        const ADDRESS: u32 = 0x0a00_0032;
        let tables = tables();
        for (before, now) in [(PortId(1), PortId(2)), (PortId(2), PortId(1))] {
            let mut state = State::new(&tables);
            state.grant(&tables, before, ADDRESS, 100);
            assert_eq!(state.lease_owner(&tables, ADDRESS, 99), Some(before));
            assert_eq!(state.lease_owner(&tables, ADDRESS, 100), None);
            state.grant(&tables, now, ADDRESS, 1_000);
            let mut new = State::new(&tables);
            new.keep(&tables, &tables, &mut state);
            assert_eq!(new.lease_owner(&tables, ADDRESS, 200), Some(now));
        }
    }
}
