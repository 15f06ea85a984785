//! What is remembered of multicast groups: who listens, and what is due to be asked and told.

use packet::wire::membership::{Change, INTERVAL_S, LAST_MEMBER_S, RESPONSE_S, ROBUSTNESS};

use super::members::{Joined, Members};
use crate::bucket::SECOND_NS;
use crate::ids::{PortId, VtepId};
use crate::tables::{MulticastRules, Tables};

/// The most groups that one port may be a member of.
pub(crate) const PORT_GROUPS: usize = 64;
/// The most groups that one endpoint may be a member of, and that peers are told of.
pub(crate) const PEER_GROUPS: usize = 256;

/// How long a member is believed: Group Membership Interval (RFC 3376, section 8.4).
const MEMBER_NS: u64 = (ROBUSTNESS as u64 * INTERVAL_S as u64 + RESPONSE_S as u64) * SECOND_NS;
/// How long one that left is: Last Member Query Time (RFC 3376, section 8.8).
const LEFT_NS: u64 = ROBUSTNESS as u64 * LAST_MEMBER_S as u64 * SECOND_NS;

/// The reports that peers get.
#[derive(Debug)]
pub(crate) struct Reports {
    /// Whether a group has got its first member, or lost its last.
    changed: bool,
    begun_ns: u64,
    due_ns: u64,
    /// How often a change is told again.
    repeat: u8,
    /// What is being told: at most [`PEER_GROUPS`] joined, and as many left.
    pub(crate) list: Vec<(u128, Change)>,
    /// The endpoint that is next; `None` between two rounds.
    pub(crate) next: Option<VtepId>,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Groups {
    /// In the order of the ports.
    pub(crate) ports: Box<[Members]>,
    /// In the order of the tunnel's endpoints.
    pub(crate) vteps: Box<[Members]>,
    /// Whether any port is to be asked for a group that a listener has left.
    pub(crate) asks: bool,
    pub(crate) reports: Reports,
    /// When all are asked again, and how often that is early.
    next_query_ns: u64,
    early: u8,
    expiry_ns: u64,
}

impl Groups {
    /// `None` where the tenant allows no group.
    pub(super) fn new(tables: &Tables) -> Option<Box<Self>> {
        tables.multicast.as_ref()?;
        let room =
            |room: usize, count: usize| (0..count).map(|_| Members::with_room(room)).collect();
        let vteps = tables
            .tunnel
            .iter()
            .flat_map(|tunnel| tunnel.vteps())
            .count();
        Some(Box::new(Self {
            ports: room(PORT_GROUPS, tables.ports.len()),
            vteps: room(PEER_GROUPS, vteps),
            asks: false,
            reports: Reports {
                changed: false,
                begun_ns: 0,
                due_ns: 0,
                repeat: 0,
                list: Vec::with_capacity(2 * PEER_GROUPS),
                next: None,
            },
            next_query_ns: 0,
            early: ROBUSTNESS,
            expiry_ns: 0,
        }))
    }

    /// A station behind a port reports. Returns whether there was room.
    pub(crate) fn heard(
        &mut self,
        port: PortId,
        vid: Option<u16>,
        (group, change): (u128, Change),
        now_ns: u64,
    ) -> bool {
        let members = &mut self.ports[port.index()];
        match change {
            Change::Join => {
                let until_ns = now_ns.saturating_add(MEMBER_NS);
                let joined = members.join(group, vid, (now_ns, until_ns));
                self.reports.changed |= joined == Joined::New;
                joined != Joined::Full
            }
            Change::Leave => {
                if members.shorten(group, now_ns.saturating_add(LEFT_NS)) {
                    members.ask(group, ROBUSTNESS, now_ns);
                    self.asks = true;
                }
                true
            }
        }
    }

    /// A peer's switch reports for its ports. Returns whether there was room.
    pub(crate) fn told(
        &mut self,
        vtep: VtepId,
        (group, change): (u128, Change),
        now_ns: u64,
    ) -> bool {
        let members = &mut self.vteps[vtep.index()];
        match change {
            Change::Join => {
                let until_ns = now_ns.saturating_add(MEMBER_NS);
                members.join(group, None, (now_ns, until_ns)) != Joined::Full
            }
            Change::Leave => {
                members.shorten(group, now_ns);
                true
            }
        }
    }

    /// Forgets what has ended; at most once a second.
    pub(crate) fn expire(&mut self, now_ns: u64) {
        if now_ns < self.expiry_ns {
            return;
        }
        self.expiry_ns = now_ns.saturating_add(SECOND_NS);
        for members in &mut self.ports {
            self.reports.changed |= members.expire(now_ns);
        }
        for members in &mut self.vteps {
            members.expire(now_ns);
        }
    }

    /// Whether all listeners are to be asked now: twice soon after the start, and then by the
    /// interval (RFC 3376, section 8.6).
    pub(crate) fn query_is_due(&mut self, now_ns: u64) -> bool {
        if now_ns < self.next_query_ns {
            return false;
        }
        self.early = self.early.saturating_sub(1);
        let seconds = match self.early {
            0 => u64::from(INTERVAL_S),
            _ => u64::from(INTERVAL_S) / 4,
        };
        self.next_query_ns = now_ns.saturating_add(seconds * SECOND_NS);
        true
    }

    /// Begins a round of reports to all endpoints, if one is due: by the interval, and for a change
    /// at once and a second later, but at most one a second.
    pub(crate) fn begin_reports(&mut self, now_ns: u64) {
        let reports = &mut self.reports;
        let rested = now_ns >= reports.begun_ns.saturating_add(SECOND_NS);
        if reports.changed && rested {
            reports.changed = false;
            reports.due_ns = now_ns;
            reports.repeat = ROBUSTNESS;
        }
        if reports.next.is_some() || now_ns < reports.due_ns || self.vteps.is_empty() {
            return;
        }
        reports.repeat = reports.repeat.saturating_sub(1);
        let wait_s = match reports.repeat {
            0 => u64::from(INTERVAL_S),
            _ => 1,
        };
        reports.begun_ns = now_ns;
        reports.due_ns = now_ns.saturating_add(wait_s * SECOND_NS);
        reports.next = Some(VtepId(0));
        // What was told and has no member any more is told once as left.
        reports.list.retain(|(_, change)| *change == Change::Join);
        for (_, change) in &mut reports.list {
            *change = Change::Leave;
        }
        let mut joined = 0;
        for (group, _) in self.ports.iter().flat_map(|members| members.groups(now_ns)) {
            match reports
                .list
                .binary_search_by_key(&group, |(group, _)| *group)
            {
                Ok(place) if joined < PEER_GROUPS || reports.list[place].1 == Change::Join => {
                    joined += usize::from(reports.list[place].1 == Change::Leave);
                    reports.list[place].1 = Change::Join;
                }
                Err(place) if joined < PEER_GROUPS => {
                    joined += 1;
                    reports.list.insert(place, (group, Change::Join));
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Keeps what was remembered under other tables. `port_of` and `vtep_of` find the former place.
    pub(super) fn keep(
        &mut self,
        (tables, rules): (&Tables, &MulticastRules),
        previous: &mut Self,
        port_of: impl Fn(usize) -> Option<usize>,
        vtep_of: impl Fn(usize) -> Option<usize>,
    ) {
        for (at, members) in self.ports.iter_mut().enumerate() {
            if let Some(before) = port_of(at) {
                std::mem::swap(members, &mut previous.ports[before]);
                members.retain(|group| rules.allows(group), &tables.ports[at].trunk);
            }
        }
        for (at, members) in self.vteps.iter_mut().enumerate() {
            if let Some(before) = vtep_of(at) {
                std::mem::swap(members, &mut previous.vteps[before]);
                members.retain(|group| rules.allows(group), &[]);
            }
        }
        self.asks = true;
        self.reports.changed = true;
        self.expiry_ns = previous.expiry_ns;
    }
}
