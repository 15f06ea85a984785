//! What happens to one frame, from the port it came from to the port it leaves by.
//!
//! The pipeline knows nothing of DPDK: it is given bytes and a clock, rewrites the bytes in place, and
//! says where they go. The worker drives it with mbufs, `replay` with captures, the tests with both.
//! `docs/reference/spoof-filter.md` is the specification; [`Stage::ORDER`] is the order of the stages.
//!
//! A frame costs no allocation, lock or system call, whatever it holds, and nothing in it can make
//! the pipeline panic or loop.

#![forbid(unsafe_code)]

mod answer;
mod counters;
mod express;
mod filter;
mod groups;
mod lpm;
mod nd;
mod pass;
mod state;
mod storm;
mod tables;
mod tunnel;
mod wire;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use packet::Frame;
use tenant_config::{MacAddr, SwitchConfig};

pub use self::counters::{Counter, Counters, NextHopView, PeerCounters, PortCounters};
pub use self::groups::Groups;
pub use self::tables::{Route, Tables};
pub use packet::DropReason;

use self::answer::OWN_FRAME_LEN;
use self::pass::{Pass, Refusal, Sent};
use self::state::State;
use self::tables::PortRules;

/// A port's place in the switch: the tenant's ports in the order of their configuration, then the
/// uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

impl PortId {
    /// The place as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What becomes of a frame. The frame's bytes are then what is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Send it out of that port.
    Forward(PortId),
    /// It has become the gateway's answer: send it back to where it came from.
    Reply,
    /// It goes nowhere.
    Drop(DropReason),
    /// It goes nowhere, and has become an ICMP error to send back to where it came from.
    DropWithError(DropReason),
}

/// The steps of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Parse and spoof filter: may this be sent at all, from here, by this source?
    Filter,
    /// Storm control: is it within the port's limits?
    Storm,
    /// The gateway's own services: ARP, ND, echo, DHCP's way.
    Service,
    /// Where does the destination lead, and may it go there?
    Route,
    /// The headers of the next link.
    Rewrite,
    /// Into the tunnel; or out of it, before the filter sees what was inside.
    Tunnel,
}

impl Stage {
    /// The order in which a frame passes the stages; it may leave at any of them. What comes out of a tunnel passes
    /// the filter on both sides of it.
    pub const ORDER: [Self; 6] = [
        Self::Filter,
        Self::Storm,
        Self::Service,
        Self::Route,
        Self::Rewrite,
        Self::Tunnel,
    ];

    /// The name in traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Storm => "storm",
            Self::Service => "service",
            Self::Route => "route",
            Self::Rewrite => "rewrite",
            Self::Tunnel => "tunnel",
        }
    }
}

/// Where a decision's notes go; `()` takes none and costs nothing.
trait Notes {
    /// Whether nobody listens, so that the express lane may be taken.
    const SILENT: bool;
    fn note(&mut self, stage: Stage, what: fmt::Arguments<'_>);
}

impl Notes for () {
    const SILENT: bool = true;
    #[inline(always)]
    fn note(&mut self, _: Stage, _: fmt::Arguments<'_>) {}
}

impl Notes for &mut dyn FnMut(Stage, fmt::Arguments<'_>) {
    const SILENT: bool = false;
    fn note(&mut self, stage: Stage, what: fmt::Arguments<'_>) {
        self(stage, what);
    }
}

/// One configuration, made ready: tables, counters, and room for what is remembered. Building one
/// allocates; installing one does not.
#[derive(Debug)]
pub struct Generation {
    tables: Arc<Tables>,
    counters: Arc<Counters>,
    state: State,
}

impl Generation {
    /// Makes `config` ready. Ports that `previous` counts, by their name, go on counting.
    pub fn build(config: &SwitchConfig, previous: Option<&Counters>) -> Self {
        let tables = Tables::build(config);
        let counters = Counters::new(&tables, previous);
        Self {
            state: State::new(&tables),
            tables: Arc::new(tables),
            counters: Arc::new(counters),
        }
    }

    /// The counters that its worker writes.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// The tables that its worker reads.
    pub fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.tables)
    }
}

/// A switch's whole packet processing and its state. One worker owns it.
#[derive(Debug)]
pub struct Pipeline {
    tables: Arc<Tables>,
    counters: Arc<Counters>,
    state: State,
}

impl Pipeline {
    /// RFC 4861, section 6.2.1 (MaxRtrAdvInterval), shortened so that a lost one costs little.
    const ADVERTISEMENT_INTERVAL_NS: u64 = 200_000_000_000;
    /// Next hops that one poll may ask for: all that a burst holds.
    const SOLICITATIONS_AT_ONCE: usize = 32;

    /// Begins with that generation.
    pub fn new(generation: Generation) -> Self {
        let Generation {
            tables,
            counters,
            state,
        } = generation;
        Self {
            tables,
            counters,
            state,
        }
    }

    /// The tables in use.
    pub fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.tables)
    }

    /// The counters that this pipeline writes.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Goes on with another generation; what is remembered of ports and next hops that both have
    /// is kept. Hands the old one back, to be dropped elsewhere: dropping frees memory.
    pub fn install(&mut self, generation: Generation) -> Generation {
        let mut old = std::mem::replace(self, Self::new(generation));
        for rules in &self.tables.ports {
            let name = &self.tables.names[usize::from(rules.id)];
            let is_same = |port: &&PortRules| old.tables.names[usize::from(port.id)] == *name;
            if let Some(before) = old.tables.ports.iter().find(is_same) {
                let new = &mut self.state.ports[usize::from(rules.id)];
                new.take_over(
                    &self.tables,
                    rules,
                    &mut old.state.ports[usize::from(before.id)],
                );
            }
        }
        self.state
            .take_over_underlay(&self.tables, &old.tables, &old.state);
        self.publish(old.counters.polled_ns.get());
        Generation {
            tables: old.tables,
            counters: old.counters,
            state: old.state,
        }
    }

    /// What decides on the frames of one burst, which all came from `port` at `now_ns`: monotonic
    /// nanoseconds from any origin.
    #[inline]
    pub fn burst(&mut self, now_ns: u64, port: PortId) -> BurstPass<'_> {
        let tables = &*self.tables;
        let rules = tables.ports.get(port.index());
        BurstPass {
            tables,
            rules,
            express: rules.filter(|rules| rules.express),
            all: &self.counters,
            counters: self.counters.port(port.index()),
            state: &mut self.state,
            now_ns,
        }
    }

    /// Decides on one frame that came from `port`, rewrites it, and counts it: a burst of one.
    #[inline]
    pub fn process(&mut self, now_ns: u64, port: PortId, frame: &mut Frame<'_>) -> Verdict {
        self.burst(now_ns, port).process(frame)
    }

    /// As [`Self::process`], and tells what each stage found.
    pub fn process_traced(
        &mut self,
        now_ns: u64,
        port: PortId,
        frame: &mut Frame<'_>,
        notes: &mut dyn FnMut(Stage, fmt::Arguments<'_>),
    ) -> Verdict {
        self.burst(now_ns, port).run(frame, &mut &mut *notes)
    }

    /// Sends what is due by the clock: solicitations of the next hops, and Router Advertisements.
    /// `emit` is given each frame and the port it leaves by. Cheap when nothing is due; to be called
    /// several times a second.
    pub fn poll(&mut self, now_ns: u64, emit: &mut dyn FnMut(PortId, &[u8])) {
        let mut frame = [0; OWN_FRAME_LEN];
        let counters = &self.counters;
        let mut send = |port: PortId, bytes: &[u8]| {
            counters.port(port.index()).sent(bytes.len());
            emit(port, bytes);
        };
        if let Some(uplink) = &self.tables.uplink {
            let port = self.tables.uplink_id();
            let mut asked = 0;
            let all = self.tables.next_hops.len();
            for step in 0..all {
                let at = (self.state.ask_from + step) % all;
                if asked == Self::SOLICITATIONS_AT_ONCE {
                    self.state.ask_from = at;
                    break;
                }
                let next_hop = &mut self.state.next_hops[at];
                if !next_hop.wants_solicitation(now_ns) {
                    continue;
                }
                let len = match (self.tables.next_hops[at], uplink.ipv4, uplink.ipv6) {
                    (IpAddr::V4(wanted), Some(own), _) => {
                        let to = next_hop.mac().unwrap_or([0xff; 6]);
                        let own = (uplink.mac, own);
                        answer::arp_request(&mut frame, to, own, wanted.to_bits())
                    }
                    (IpAddr::V6(wanted), _, Some(own)) => {
                        let own = (uplink.mac, own);
                        answer::neighbor_solicitation(&mut frame, own, wanted.to_bits())
                    }
                    _ => continue,
                };
                asked += 1;
                send(port, &frame[..len]);
            }
        }
        if let Some(tunnel) = &self.tables.tunnel {
            for vtep in &mut self.state.vteps {
                vtep.poll(tunnel, now_ns);
            }
        }
        if now_ns >= self.state.next_advertisement_ns {
            self.state.next_advertisement_ns =
                now_ns.saturating_add(Self::ADVERTISEMENT_INTERVAL_NS);
            for rules in &self.tables.ports {
                if let Some(advertisement) = self.tables.advertisement(rules) {
                    let len = advertisement.announce(&mut frame);
                    send(PortId(rules.id), &frame[..len]);
                }
            }
        }
        self.publish(now_ns);
        for (index, port) in self.state.ports.iter().enumerate() {
            let leased = port.lease.address(now_ns).unwrap_or(0);
            self.counters.port(index).leased_ipv4.set(u64::from(leased));
        }
    }

    /// Tells what is known of the underlay.
    fn publish(&self, now_ns: u64) {
        let Counters {
            next_hops,
            longest,
            polled_ns,
            ..
        } = &*self.counters;
        polled_ns.set(now_ns);
        for (view, next_hop) in next_hops.iter().zip(&self.state.next_hops) {
            view.publish(next_hop.mac());
        }
        for (counter, vtep) in longest.iter().zip(&self.state.vteps) {
            counter.set(vtep.longest().into());
        }
    }

    /// Takes all next hops for resolved, with that MAC: for captures, where nobody answers.
    pub fn assume_next_hops(&mut self, now_ns: u64, mac: MacAddr) {
        for next_hop in &mut self.state.next_hops {
            next_hop.confirm(now_ns, mac.octets());
        }
    }

    /// The worker could not send `count` frames that were to leave by `port`, and freed them.
    pub fn unsent(&mut self, port: PortId, reason: DropReason, count: u64) {
        self.counters.port(port.index()).drops(reason).add(count);
    }
}

/// Decides on the frames of one burst from one port. What is the same for all of them is looked up
/// once.
#[derive(Debug)]
pub struct BurstPass<'p> {
    tables: &'p Tables,
    /// `None` for the uplink.
    rules: Option<&'p PortRules>,
    /// The same, if the express lane serves the port.
    express: Option<&'p PortRules>,
    all: &'p Counters,
    counters: &'p PortCounters,
    state: &'p mut State,
    now_ns: u64,
}

impl BurstPass<'_> {
    /// Decides on one frame, rewrites it, and counts it.
    #[inline]
    pub fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        self.run(frame, &mut ())
    }

    #[inline(always)]
    fn run<N: Notes>(&mut self, frame: &mut Frame<'_>, notes: &mut N) -> Verdict {
        self.counters.rx_frames.add(1);
        self.counters.rx_bytes.add(frame.len() as u64);
        if N::SILENT {
            let sent = match (self.express, self.rules) {
                (Some(rules), _) => {
                    express::forward(self.tables, self.state, self.all, rules, frame)
                }
                (None, None) => express::decapsulate(self.tables, self.all, self.now_ns, frame)
                    .or_else(|| express::deliver(self.tables, frame)),
                (None, Some(_)) => None,
            };
            if let Some(to) = sent {
                self.counters.forwarded.add(1);
                self.all.port(to.index()).sent(frame.len());
                return Verdict::Forward(to);
            }
        }
        self.run_general(frame, notes)
    }

    #[inline(never)]
    fn run_general<N: Notes>(&mut self, frame: &mut Frame<'_>, notes: &mut N) -> Verdict {
        let Self {
            tables,
            counters,
            now_ns,
            ..
        } = *self;
        let mut pass = Pass {
            tables,
            counters: self.all,
            state: self.state,
            now_ns,
            notes,
        };
        let outcome = match self.rules {
            Some(rules) => pass.port_frame(rules, frame),
            None => pass.uplink_frame(frame),
        };
        match outcome {
            Ok(Sent::To(to)) => {
                counters.forwarded.add(1);
                self.all.port(to.index()).sent(frame.len());
                Verdict::Forward(to)
            }
            Ok(Sent::Back) => {
                counters.replies.add(1);
                counters.sent(frame.len());
                Verdict::Reply
            }
            Err(Refusal {
                reason,
                reported: false,
            }) => {
                counters.drops(reason).add(1);
                Verdict::Drop(reason)
            }
            Err(Refusal {
                reason,
                reported: true,
            }) => {
                counters.drops(reason).add(1);
                counters.icmp_errors.add(1);
                counters.sent(frame.len());
                Verdict::DropWithError(reason)
            }
        }
    }
}
