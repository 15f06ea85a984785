//! The mutable half of a switch: what one worker remembers from frame to frame. All of it is bounded
//! and allocated with the generation, off the worker. It is never shared: each worker has its own.

mod lease;
mod next_hop;
mod path_mtu;
mod tags;

pub(crate) use self::lease::LeaseState;
pub(crate) use self::next_hop::NextHop;
pub(crate) use self::path_mtu::PathMtu;
pub(crate) use self::tags::TagCache;

use crate::bucket::Bucket;
use crate::ids::{NextHopId, PortId};
use crate::tables::{PortRules, Tables, Target};

/// The token buckets of storm control at one port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StormBuckets {
    pub(crate) arp_nd: Bucket,
    pub(crate) dhcp: Bucket,
    pub(crate) broadcast: Bucket,
    pub(crate) frames: Bucket,
    pub(crate) bits: Bucket,
}

impl StormBuckets {
    const FULL: Self = Self {
        arp_nd: Bucket::FULL,
        dhcp: Bucket::FULL,
        broadcast: Bucket::FULL,
        frames: Bucket::FULL,
        bits: Bucket::FULL,
    };
}

/// What is remembered of one port.
#[derive(Debug)]
pub(crate) struct PortState {
    pub(crate) storm: StormBuckets,
    pub(crate) icmp_errors: Bucket,
    pub(crate) lease: LeaseState,
    /// Present on trunk ports.
    pub(crate) tags: Option<Box<TagCache>>,
}

impl PortState {
    /// Keeps what was remembered of the port under the previous rules. A lease of an address that is
    /// no longer free ends.
    fn keep(&mut self, tables: &Tables, rules: &PortRules, previous: &mut Self) {
        self.storm = previous.storm;
        self.icmp_errors = previous.icmp_errors;
        if rules.learns {
            self.lease
                .keep(&mut previous.lease, |address| tables.is_free4(address));
        }
        if self.tags.is_some() && previous.tags.is_some() {
            std::mem::swap(&mut self.tags, &mut previous.tags);
        }
    }
}

/// What is remembered of all ports and of the underlay.
#[derive(Debug)]
pub(crate) struct State {
    /// The tenant's ports.
    pub(crate) ports: Box<[PortState]>,
    /// In the order of [`Tables::next_hops`].
    pub(crate) next_hops: Box<[NextHop]>,
    /// The next hop that comes first when there are more than may be solicited at once.
    pub(crate) solicit_from: usize,
    /// The tunnel's endpoints.
    pub(crate) paths: Box<[PathMtu]>,
    pub(crate) next_advertisement_ns: u64,
}

impl State {
    pub(crate) fn new(tables: &Tables) -> Self {
        let ports = tables.ports.iter().map(|rules| PortState {
            storm: StormBuckets::FULL,
            icmp_errors: Bucket::FULL,
            lease: LeaseState::default(),
            tags: (!rules.trunk.is_empty()).then(Box::default),
        });
        let next_hops = tables.next_hops.iter().map(|_| NextHop::default());
        let paths = tables.tunnel.iter().flat_map(|tunnel| {
            let new = PathMtu::new(tunnel);
            tunnel.vteps().iter().map(move |_| new)
        });
        Self {
            ports: ports.collect(),
            next_hops: next_hops.collect(),
            solicit_from: 0,
            paths: paths.collect(),
            next_advertisement_ns: 0,
        }
    }

    /// What is remembered of a tenant's port.
    #[inline(always)]
    pub(crate) fn port(&mut self, id: PortId) -> &mut PortState {
        &mut self.ports[id.index()]
    }

    /// The MAC of a next hop, while it answers.
    #[inline(always)]
    pub(crate) fn next_hop_mac(&self, id: Option<NextHopId>) -> Option<[u8; 6]> {
        self.next_hops.get(id?.index())?.mac()
    }

    /// The port to which DHCP has given the address.
    pub(crate) fn lease_owner(&self, tables: &Tables, address: u32, now_ns: u64) -> Option<PortId> {
        if !tables.learns {
            return None;
        }
        let mut ports = self.ports.iter().zip(&tables.ports);
        ports
            .find(|(port, rules)| rules.learns && port.lease.address(now_ns) == Some(address))
            .map(|(_, rules)| rules.id)
    }

    /// Gives a port the lease that it had before a restart. False if DHCP could not have given it: the
    /// port does not learn, the address is not free, or another port has it.
    pub(crate) fn restore_lease(
        &mut self,
        tables: &Tables,
        port: &str,
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
        match rules {
            Some(rules) if !is_taken && tables.is_free4(address) => {
                self.port(rules.id).lease.restore(address, until_ns);
                true
            }
            _ => false,
        }
    }

    /// Where a destination leads, leases included.
    #[inline(always)]
    pub(crate) fn route4(&self, tables: &Tables, address: u32, now_ns: u64) -> Option<Target> {
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
        for rules in &tables.ports {
            let name = &tables.names[rules.id.index()];
            let is_same = |port: &&PortRules| old.names[port.id.index()] == *name;
            if let Some(before) = old.ports.iter().find(is_same) {
                let previous = previous.port(before.id);
                self.port(rules.id).keep(tables, rules, previous);
            }
        }
        for (address, next_hop) in tables.next_hops.iter().zip(&mut self.next_hops) {
            if let Some(id) = old.next_hop_at(*address) {
                *next_hop = previous.next_hops[id.index()];
            }
        }
        let (Some(tunnel), Some(old)) = (&tables.tunnel, &old.tunnel) else {
            return;
        };
        for (address, vtep) in tunnel.endpoints() {
            if let Some(known) = old.vtep_at(address) {
                self.paths[vtep.index()].keep(tunnel, previous.paths[known.index()]);
            }
        }
    }
}
