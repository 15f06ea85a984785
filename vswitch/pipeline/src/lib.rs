//! What happens to one frame, from the port it came from to the port it leaves by.
//!
//! The pipeline does no I/O: it receives bytes and a clock, rewrites the bytes in place, and
//! returns a [`Verdict`]. The worker drives it with packet buffers, `replay` with captures, the
//! tests with both. `docs/reference/spoof-filter.md` is the specification.
//!
//! No frame, with any content, costs an allocation, lock or system call, and nothing in it can make
//! the pipeline panic or loop.
//!
//! Layers, from the bottom; each file imports only files above it in this list, which
//! `tests/layers.rs` checks:
//!
//! | layer | files |
//! |---|---|
//! | formats | the crate `packet` |
//! | words | `ids`, `secret`, `stage` (names of stages, traces), `bucket`, `lpm`, `shared` |
//! | tables | `tables/`: immutable, built off the worker |
//! | memory | `counters`, `state/`: what the worker counts and remembers |
//! | policy | `filter/`, `storm`, `peer_route`, `clock` (frames that are due by the clock) |
//! | fast path | `express/` |
//! | stages | `pass/` (route, rewrite, tunnel, answers), `service/` (one file a service) |
//! | order | `order`: one short function that runs the stages |
//! | face | this file |
//!
//! State belongs to one [`Pipeline`], and so to one worker; workers share nothing but the
//! [`Tables`] and the [`Counters`], by `Arc`.

#![forbid(unsafe_code)]

mod bucket;
mod clock;
mod counters;
mod express;
mod filter;
mod ids;
mod lpm;
mod order;
mod pass;
mod peer_route;
mod secret;
mod service;
mod shared;
mod stage;
mod state;
mod storm;
mod tables;

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use packet::Frame;
use tenant_config::{MacAddr, SwitchConfig};

pub use self::counters::{
    Counter, Counters, NextHopView, PathMtuCounters, PathMtuRejection, PeerCounters, PortCounters,
};
pub use self::ids::PortId;
pub use self::secret::FlowSecret;
pub use self::stage::Stage;
pub use self::tables::{Groups, Route, Tables};
pub use packet::DropReason;

use self::pass::{Pass, Refusal, Sent};
use self::stage::Notes;
use self::state::State;
use self::tables::PortRules;

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

/// One configuration, made ready: tables, counters, and room for what is remembered. Building one
/// allocates; installing one does not.
#[derive(Debug)]
pub struct Generation {
    tables: Arc<Tables>,
    counters: Arc<Counters>,
    state: State,
}

impl Generation {
    /// Makes `config` ready. Ports and peers keep the counters that `previous` has for their names,
    /// and parts of the tables that do not change are shared with it. So is the secret; without
    /// `previous` there is none ([`FlowSecret::PUBLIC`]).
    pub fn build(config: &SwitchConfig, previous: Option<(&Tables, &Counters)>) -> Self {
        let secret = previous.map_or(FlowSecret::PUBLIC, |(tables, _)| tables.secret.clone());
        Self::with(config, previous, secret)
    }

    /// Makes the first configuration of a switch ready, with the secret that the switch keeps to
    /// its end.
    pub fn first(config: &SwitchConfig, secret: FlowSecret) -> Self {
        Self::with(config, None, secret)
    }

    fn with(
        config: &SwitchConfig,
        previous: Option<(&Tables, &Counters)>,
        secret: FlowSecret,
    ) -> Self {
        let tables = Tables::build(config, previous.map(|(tables, _)| tables), secret);
        let counters = Counters::new(&tables, previous.map(|(_, counters)| counters));
        Self {
            state: State::new(&tables),
            tables: Arc::new(tables),
            counters: Arc::new(counters),
        }
    }

    /// Restores a lease that a port had before the switch was restarted, until `until_ns` of the
    /// pipeline's clock. A lease that the pipeline has when it installs this generation wins over
    /// it.
    ///
    /// Refused, with `false`, if DHCP could not have given it: the port has another MAC or does not
    /// learn, the address is not free in the gateway's subnet, or another port has it.
    pub fn restore_lease(
        &mut self,
        (port, mac): (&str, MacAddr),
        address: Ipv4Addr,
        until_ns: u64,
    ) -> bool {
        let (station, address) = ((port, mac.octets()), address.to_bits());
        self.state
            .restore_lease(&self.tables, station, address, until_ns)
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
    /// Starts with that generation.
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

    /// Replaces the generation in use; what is remembered of ports and next hops that both have is
    /// kept. Returns the old generation, to be dropped elsewhere: dropping frees memory.
    pub fn install(&mut self, generation: Generation) -> Generation {
        let mut old = std::mem::replace(self, Self::new(generation));
        old.state.revalidate_leases(&old.tables);
        self.state.keep(&self.tables, &old.tables, &mut old.state);
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

    /// As [`Self::process`], and passes on the note of each stage.
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
    /// `emit` receives each frame and the port it leaves by. Cheap when nothing is due; to be
    /// called several times a second.
    pub fn poll(&mut self, now_ns: u64, emit: &mut dyn FnMut(PortId, &[u8])) {
        let counters = &self.counters;
        let mut send = |port: PortId, bytes: &[u8]| {
            counters.port(port.index()).sent(bytes.len());
            emit(port, bytes);
        };
        clock::solicit_next_hops(&self.tables, &mut self.state, now_ns, &mut send);
        clock::advertise(&self.tables, &mut self.state, now_ns, &mut send);
        if let Some(tunnel) = &self.tables.tunnel {
            for path in &mut self.state.paths {
                path.poll(tunnel, now_ns);
            }
        }
        self.publish(now_ns);
    }

    /// Publishes the leases, and what is known of the underlay.
    fn publish(&mut self, now_ns: u64) {
        self.state.revalidate_leases(&self.tables);
        for (rules, port) in self.tables.ports.iter().zip(&self.state.ports) {
            let lease = port.lease.current(now_ns);
            let (leased, until_ns) = lease.unwrap_or_default();
            let counters = self.counters.port(rules.id.index());
            counters.leased_mac.set(lease.map(|_| rules.mac));
            counters.leased_ipv4.set(u64::from(leased));
            counters.leased_until_ns.set(until_ns);
        }
        let Counters {
            next_hops,
            inner_mtu,
            polled_ns,
            ..
        } = &*self.counters;
        polled_ns.set(now_ns);
        for (view, next_hop) in next_hops.iter().zip(&self.state.next_hops) {
            view.publish(next_hop.mac());
        }
        for (counter, path) in inner_mtu.iter().zip(&self.state.paths) {
            counter.set(path.max_len().into());
        }
    }

    /// Marks all next hops as resolved, with that MAC: for captures, in which no next hop answers.
    pub fn assume_next_hops(&mut self, now_ns: u64, mac: MacAddr) {
        for next_hop in &mut self.state.next_hops {
            next_hop.confirm(now_ns, mac.octets());
        }
    }

    /// Counts, for that reason, `count` frames that were to leave by `port`, but that the worker
    /// could not send.
    pub fn unsent(&mut self, port: PortId, reason: DropReason, count: u64) {
        let counters = self.counters.port(port.index());
        counters.drops(reason).add(count);
        counters.unsent.add(count);
    }
}

/// Decides on the frames of one burst from one port. What they share is looked up once.
#[derive(Debug)]
pub struct BurstPass<'p> {
    tables: &'p Tables,
    /// `None` for the uplink.
    rules: Option<&'p PortRules>,
    /// The same, if the fast path serves the port.
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

    /// Drops a frame of `bytes` bytes that does not fit into one buffer, and counts it.
    #[cold]
    pub fn refuse_too_long(&mut self, bytes: usize) {
        self.counters.rx_frames.add(1);
        self.counters.rx_bytes.add(bytes as u64);
        self.counters.drops(DropReason::Malformed).add(1);
    }

    #[inline(always)]
    fn run<N: Notes>(&mut self, frame: &mut Frame<'_>, notes: &mut N) -> Verdict {
        self.counters.rx_frames.add(1);
        self.counters.rx_bytes.add(frame.len() as u64);
        if N::SILENT {
            let sent = match (self.express, self.rules) {
                (Some(rules), _) => {
                    let state = &mut *self.state;
                    express::forward(self.tables, state, self.all, rules, self.now_ns, frame)
                }
                (None, None) => {
                    let inner = express::decapsulate(self.tables, self.all, self.now_ns, frame);
                    match inner {
                        Some(to) => Some(to),
                        None => express::deliver(self.tables, frame),
                    }
                }
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
        // Twice, so that each copy knows its side.
        let outcome = match self.rules {
            Some(rules) => pass.run(Some(rules), frame),
            None => pass.run(None, frame),
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
