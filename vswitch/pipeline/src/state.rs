//! The mutable half of a switch: what the worker remembers from frame to frame. All of it is bounded
//! and allocated with the generation, off the worker.

use super::storm::{Bucket, Storm};
use super::tables::{NextHopId, PortRules, Tables, Target};
use super::tunnel::VtepState;
use super::wire::Bootp;

/// ICMP errors per second and port.
pub(super) const ICMP_ERRORS_PER_SECOND: u64 = 100;

const SECOND_NS: u64 = 1_000_000_000;

/// What is remembered of one port.
#[derive(Debug)]
pub(super) struct PortState {
    pub(super) storm: Storm,
    pub(super) icmp_errors: Bucket,
    pub(super) lease: LeaseState,
    /// Present on trunk ports.
    pub(super) tags: Option<Box<TagCache>>,
}

impl PortState {
    /// Goes on from what was remembered of the port under the rules before.
    /// A lease of an address that is no longer free does not come along.
    pub(super) fn take_over(&mut self, tables: &Tables, rules: &PortRules, before: &mut Self) {
        self.storm = before.storm;
        self.icmp_errors = before.icmp_errors;
        let address = before.lease.address(0);
        if rules.learns && address.is_none_or(|address| tables.is_free4(address)) {
            std::mem::swap(&mut self.lease, &mut before.lease);
        }
        if self.tags.is_some() && before.tags.is_some() {
            std::mem::swap(&mut self.tags, &mut before.tags);
        }
    }
}

/// What is remembered of all.
#[derive(Debug)]
pub(super) struct State {
    /// The tenant's ports.
    pub(super) ports: Box<[PortState]>,
    /// In the order of [`Tables::next_hops`].
    pub(super) next_hops: Box<[NextHop]>,
    /// The next hop that is looked at first when there are more than may be asked for at once.
    pub(super) ask_from: usize,
    /// The tunnel's endpoints.
    pub(super) vteps: Box<[VtepState]>,
    pub(super) next_advertisement_ns: u64,
}

impl State {
    pub(super) fn new(tables: &Tables) -> Self {
        let ports = tables.ports.iter().map(|rules| PortState {
            storm: Storm::new(),
            icmp_errors: Bucket::FULL,
            lease: LeaseState::default(),
            tags: (!rules.trunk.is_empty()).then(Box::default),
        });
        Self {
            ports: ports.collect(),
            next_hops: tables
                .next_hops
                .iter()
                .map(|_| NextHop::default())
                .collect(),
            ask_from: 0,
            vteps: tables
                .tunnel
                .iter()
                .flat_map(|tunnel| {
                    let new = VtepState::new(tunnel);
                    tunnel.vteps().iter().map(move |_| new)
                })
                .collect(),
            next_advertisement_ns: 0,
        }
    }

    /// The MAC of the uplink's next hop, or of another, while it answers.
    #[inline(always)]
    pub(super) fn next_hop_mac(&self, id: Option<NextHopId>) -> Option<[u8; 6]> {
        self.next_hops.get(usize::from(id?))?.mac()
    }

    /// The port to which DHCP has given the address.
    pub(super) fn lease_owner(&self, tables: &Tables, address: u32, now_ns: u64) -> Option<u16> {
        if !tables.learns {
            return None;
        }
        let mut ports = self.ports.iter().zip(&tables.ports);
        ports
            .find(|(port, rules)| rules.learns && port.lease.address(now_ns) == Some(address))
            .map(|(_, rules)| rules.id)
    }

    /// Goes on from what was known of the next hops and endpoints that the tables before had too.
    pub(super) fn take_over_underlay(&mut self, tables: &Tables, old: &Tables, before: &Self) {
        for (address, next_hop) in tables.next_hops.iter().zip(&mut self.next_hops) {
            if let Some(id) = old.next_hop_at(*address) {
                *next_hop = before.next_hops[usize::from(id)];
            }
        }
        let (Some(tunnel), Some(old)) = (&tables.tunnel, &old.tunnel) else {
            return;
        };
        for (address, vtep) in tunnel.endpoints() {
            if let Some(known) = old.vtep_at(address) {
                self.vteps[usize::from(vtep)].take_over(tunnel, before.vteps[usize::from(known)]);
            }
        }
    }

    /// Where a destination leads, leases included.
    #[inline(always)]
    pub(super) fn route4(&self, tables: &Tables, address: u32, now_ns: u64) -> Option<Target> {
        match tables.route4(address) {
            Some(Target::Unowned) => match self.lease_owner(tables, address, now_ns) {
                Some(id) => Some(Target::Port(id)),
                None => Some(Target::Unowned),
            },
            target => target,
        }
    }
}

/// A learning port's address: given by an acknowledgement of the tenant's server that answers the
/// port's own transaction, and gone with the lease.
#[derive(Debug, Default)]
pub(super) struct LeaseState {
    transaction: Option<u32>,
    lease: Option<(u32, u64)>,
}

impl LeaseState {
    const MESSAGE_TYPE: u8 = 53;
    const LEASE_TIME: u8 = 51;
    const REQUEST_TYPES: [u8; 2] = [1, 3];
    const RELEASE: u8 = 7;
    const ACK: u8 = 5;
    const NAK: u8 = 6;

    /// The address, if the lease still runs.
    #[inline(always)]
    pub(super) fn address(&self, now_ns: u64) -> Option<u32> {
        self.lease
            .and_then(|(address, until_ns)| (now_ns < until_ns).then_some(address))
    }

    /// The port's VM sent this BOOTP payload.
    pub(super) fn client_said(&mut self, payload: &[u8]) {
        let Some(bootp) = Bootp::parse(payload).filter(|bootp| bootp.request) else {
            return;
        };
        match Bootp::option(payload, Self::MESSAGE_TYPE) {
            Some([kind]) if Self::REQUEST_TYPES.contains(kind) => {
                self.transaction = Some(bootp.xid);
            }
            Some(&[Self::RELEASE]) => *self = Self::default(),
            _ => {}
        }
    }

    /// The tenant's server sent this BOOTP payload to the port's VM. `free` says whether the address
    /// it gives is in the gateway's subnet and nobody else's.
    pub(super) fn server_said(&mut self, payload: &[u8], now_ns: u64, free: bool) {
        let Some(bootp) = Bootp::parse(payload) else {
            return;
        };
        if self.transaction != Some(bootp.xid) {
            return;
        }
        match Bootp::option(payload, Self::MESSAGE_TYPE) {
            Some(&[Self::ACK]) => {
                let Some(&[a, b, c, d]) = Bootp::option(payload, Self::LEASE_TIME) else {
                    return;
                };
                let seconds = u32::from_be_bytes([a, b, c, d]);
                if free {
                    let until_ns = now_ns.saturating_add(u64::from(seconds) * SECOND_NS);
                    *self = Self {
                        transaction: None,
                        lease: Some((bootp.your_ip, until_ns)),
                    };
                }
            }
            Some(&[Self::NAK]) => *self = Self::default(),
            _ => {}
        }
    }
}

/// The tag with which each address behind a trunk port last sent: direct-mapped, so bounded.
#[derive(Debug)]
pub(super) struct TagCache([(u128, Option<u16>); Self::SLOTS]);

impl Default for TagCache {
    fn default() -> Self {
        Self([(0, None); Self::SLOTS])
    }
}

impl TagCache {
    const SLOTS: usize = 1024;

    fn slot(address: u128) -> usize {
        let folded = (address >> 64) as u64 ^ address as u64;
        (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize
    }

    pub(super) fn learn(&mut self, address: u128, vid: Option<u16>) {
        // Nobody sends to the unspecified address, of a probe or a DHCP client.
        if address == 0 {
            return;
        }
        self.0[Self::slot(address)] = (address, vid);
    }

    pub(super) fn vid(&self, address: u128) -> Option<u16> {
        let (known, vid) = self.0[Self::slot(address)];
        if known == address { vid } else { None }
    }
}

/// A neighbour on the underlay: known while it answers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NextHop {
    mac: Option<[u8; 6]>,
    confirmed_ns: u64,
    solicited_ns: Option<u64>,
    unanswered: u32,
}

impl NextHop {
    /// RFC 4861, section 10: REACHABLE_TIME, RETRANS_TIMER and MAX_UNICAST_SOLICIT.
    const REACHABLE_NS: u64 = 30 * SECOND_NS;
    const RETRANSMIT_NS: u64 = SECOND_NS;
    const MAX_UNANSWERED: u32 = 3;

    #[inline(always)]
    pub(super) fn mac(&self) -> Option<[u8; 6]> {
        self.mac
    }

    /// The neighbour was heard with that MAC.
    pub(super) fn confirm(&mut self, now_ns: u64, mac: [u8; 6]) {
        *self = Self {
            mac: Some(mac),
            confirmed_ns: now_ns,
            solicited_ns: None,
            unanswered: 0,
        };
    }

    /// Whether to ask for it now; forgets it after too many questions without an answer.
    pub(super) fn wants_solicitation(&mut self, now_ns: u64) -> bool {
        let waiting = self
            .solicited_ns
            .is_some_and(|asked_ns| now_ns.saturating_sub(asked_ns) < Self::RETRANSMIT_NS);
        let fresh = now_ns.saturating_sub(self.confirmed_ns) < Self::REACHABLE_NS;
        if waiting || (self.mac.is_some() && fresh) {
            return false;
        }
        if self.unanswered >= Self::MAX_UNANSWERED {
            self.mac = None;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.solicited_ns = Some(now_ns);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_asked_once_a_second_and_forgotten_after_three_questions() {
        let mut next_hop = NextHop::default();
        let second = |count: u64| count * SECOND_NS;
        assert!(next_hop.wants_solicitation(0));
        assert!(!next_hop.wants_solicitation(second(1) - 1));
        assert!(next_hop.wants_solicitation(second(1)));
        next_hop.confirm(second(1), [2; 6]);
        assert!(!next_hop.wants_solicitation(second(30)));
        for (asked, known) in [(31, true), (32, true), (33, true), (34, false), (35, false)] {
            assert!(next_hop.wants_solicitation(second(asked)));
            assert_eq!(next_hop.mac().is_some(), known, "at second {asked}");
        }
        next_hop.confirm(second(36), [4; 6]);
        assert_eq!(next_hop.mac(), Some([4; 6]));
        assert!(!next_hop.wants_solicitation(second(36)));
    }
}
