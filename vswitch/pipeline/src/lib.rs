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
//! | words | `ids`, `secret`, `stage` (names of stages), `bucket`, `lpm`, `shared`, `trouble` |
//! | tables | `tables/`: immutable, built off the worker |
//! | IPsec | `ipsec/`: SAs, orders and notices |
//! | metadata | `metadata`: packets to the thread that serves it, and answers |
//! | memory | `clients`, `counters`, `state/`: what the worker counts and remembers |
//! | policy | `filter/`, `storm`, `peer_route`, `clock`, `querier` (frames due by the clock) |
//! | fast path | `express/` |
//! | stages | `pass/` (route, rewrite, tunnel, answers), `service/` (one file a service) |
//! | order | `order`: one short function that runs the stages |
//! | face | this file |
//!
//! State belongs to one [`Pipeline`], and so to one worker; workers share nothing but the
//! [`Tables`] and the [`Counters`], by `Arc`.

#![forbid(unsafe_code)]

mod bucket;
mod clients;
mod clock;
mod counter;
mod counters;
mod express;
mod filter;
mod ids;
pub mod ipsec;
mod lpm;
pub mod metadata;
mod order;
mod pass;
mod peer_route;
mod querier;
mod secret;
mod service;
mod shared;
mod stage;
mod state;
mod storm;
mod tables;
mod trouble;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use esp::Outbound;
use packet::{Buffer, Frame};
use tenant_config::{MacAddr, SwitchConfig};

pub use self::clients::{Client, Clients, Family, PublishedAddresses, PublishedClients};
pub use self::counters::{
    Counter, Counters, HolderView, NextHopView, PeerCounters, PortCounters, ReportCounters,
    ReportRejection,
};
pub use self::ids::PortId;
pub use self::secret::FlowSecret;
pub use self::stage::Stage;
pub use self::tables::{Groups, Route, Tables};
pub use self::trouble::{OtherMac, ShownUnreachable, Trouble, UnreachableView};
pub use packet::DropReason;

use self::express::{Decision, Early, FromUnderlay, IntoTunnel, Lane, Waiting, WayOut};
use self::ids::VtepId;
use self::ipsec::sa::Stamped;
use self::pass::{Pass, Refusal, Sent};
use self::stage::Notes;
use self::state::{Receiver, State};
use self::tables::PortRules;

/// What becomes of a frame. The frame's bytes are then what is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Send it out of that port.
    Forward(PortId),
    /// Several ports get it, each with headers of its own, or it leaves in fragments. Where the
    /// buffers can be copied ([`Buffer::COPIES`]) the copies are made at once, and this is no
    /// frame's verdict; else [`Pipeline::send_copies`] makes them.
    Copies,
    /// It has become the gateway's answer: send it back to where it came from.
    Reply,
    /// It goes nowhere.
    Drop(DropReason),
    /// It goes nowhere, and has become an ICMP error, or the advertisement that another station has
    /// the address that it claims, to send back to where it came from.
    DropWithError(DropReason),
}

/// One configuration, made ready: tables, counters, and room for what is remembered. Building one
/// allocates; installing one does not.
#[derive(Debug)]
pub struct Generation {
    tables: Arc<Tables>,
    counters: Arc<Counters>,
    state: Box<State>,
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
            state: Box::new(State::new(&tables)),
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

    /// Lets a port hold a shared address that it held before the switch was restarted, by that MAC.
    /// What the pipeline knows of the address when it installs this generation wins over it.
    ///
    /// Refused, with `false`, if it cannot have been so: the port does not list the address, or has
    /// no such MAC.
    pub fn restore_holder(&mut self, (port, mac): (&str, MacAddr), address: IpAddr) -> bool {
        let station = (port, mac.octets());
        self.state.restore_holder(&self.tables, station, address)
    }

    /// Restores what was remembered of a port's DHCP clients before the switch was restarted. What
    /// the port has said since is added to it; an identifier that another port has used since is
    /// this port's again.
    ///
    /// Refused, with `false`, if it cannot have been so: the port has another MAC, no port of the
    /// tenant serves DHCP, there are too many identifiers, or one is another port's.
    pub fn restore_clients(
        &mut self,
        (port, mac): (&str, MacAddr),
        family: Family,
        clients: &Clients,
    ) -> bool {
        let station = (port, mac.octets());
        self.state
            .restore_clients(&self.tables, station, family, clients)
    }

    /// Restores the IPv6 addresses that a port had claimed before the switch was restarted;
    /// `now_ns` is the pipeline's time. An address that another port has claimed since is this
    /// port's again.
    ///
    /// Refused, with `false`, if it cannot have been so: the port has another MAC, there are too
    /// many addresses, or the port may not claim one of them.
    pub fn restore_claimed(
        &mut self,
        (port, mac): (&str, MacAddr),
        addresses: &[Ipv6Addr],
        now_ns: u64,
    ) -> bool {
        let addresses: Vec<u128> = addresses.iter().map(|it| it.to_bits()).collect();
        let station = (port, mac.octets());
        self.state
            .restore_claimed(&self.tables, station, &addresses, now_ns)
    }

    /// As [`Pipeline::assume_next_hops`], for a worker whose first generation this is: for
    /// measurements, in which no next hop answers.
    pub fn assume_next_hops(&mut self, now_ns: u64, mac: MacAddr) {
        self.state.confirm_next_hops(now_ns, mac.octets());
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
    state: Box<State>,
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

    /// Joins the pipeline with whoever negotiates SAs for it. Without it there are none, and what a
    /// peer requires IPsec for is dropped.
    pub fn join_ipsec(&mut self, channel: Arc<ipsec::Channel>) {
        self.state.ipsec.channel = Some(channel);
    }

    /// Obeys the orders that wait in its [`ipsec::Channel`]. `emit` receives each frame to send,
    /// and the port it leaves by. Returns whether more wait.
    pub fn obey_ipsec(&mut self, now_ns: u64, emit: &mut dyn FnMut(PortId, &[u8])) -> bool {
        let counters = &self.counters;
        clock::obey_ipsec(&self.tables, &mut self.state, now_ns, &mut |port, bytes| {
            counters.port(port.index()).sent(bytes.len());
            emit(port, bytes);
        })
    }

    /// Joins the pipeline with whoever serves metadata. Without it, packets for it are dropped.
    pub fn join_metadata(&mut self, channel: Arc<metadata::Channel>) {
        self.state.metadata = Some(channel);
    }

    /// Sends the packets that wait in its [`metadata::Channel`]. `emit` receives each frame, and
    /// the port it leaves by. Returns whether more wait.
    pub fn send_metadata(&mut self, emit: &mut dyn FnMut(PortId, &[u8])) -> bool {
        let counters = &self.counters;
        clock::send_metadata(&self.tables, &mut self.state, &mut |port, bytes| {
            counters.port(port.index()).sent(bytes.len());
            emit(port, bytes);
        })
    }

    /// Whether one frame may become many: whether the tenant has multicast or fragmentation.
    pub fn replicates(&self) -> bool {
        let uplink = self.tables.uplink.as_ref();
        self.tables.multicast.is_some() || uplink.is_some_and(|uplink| uplink.fragment)
    }

    /// What decides on the frames of one burst, which all came from `port` at `now_ns`: monotonic
    /// nanoseconds from any origin.
    #[inline]
    pub fn burst(&mut self, now_ns: u64, port: PortId) -> BurstPass<'_> {
        let (origin, pass) = self.pass(now_ns, port, ());
        BurstPass { origin, pass }
    }

    #[inline(always)]
    fn pass<N>(&mut self, now_ns: u64, port: PortId, notes: N) -> (Origin<'_>, Pass<'_, N>) {
        let origin = Origin {
            rules: self.tables.ports.get(port.index()),
            counters: self.counters.port(port.index()),
        };
        let pass = Pass {
            tables: &self.tables,
            counters: &self.counters,
            state: &mut self.state,
            now_ns,
            notes,
        };
        (origin, pass)
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
        let (origin, mut pass) = self.pass(now_ns, port, notes);
        decide(&mut pass, origin, frame)
    }

    /// Makes the copies of the frame whose verdict was [`Verdict::Copies`], before the next frame.
    /// `frame` is what it has become. `emit` receives each copy and the port that it leaves by. It
    /// allocates: for captures.
    pub fn send_copies(
        &mut self,
        (now_ns, from): (u64, PortId),
        frame: &[u8],
        emit: &mut dyn FnMut(PortId, &[u8]),
    ) {
        /// Room for what ESP appends.
        const TAILROOM: usize = 128;
        let (_, mut pass) = self.pass(now_ns, from, ());
        let mut buffer = vec![0; Frame::HEADROOM + frame.len() + TAILROOM];
        while let Some(to) = pass.state.copies.take() {
            buffer[Frame::HEADROOM..][..frame.len()].copy_from_slice(frame);
            let mut copy = Frame::new(&mut buffer, Frame::HEADROOM, frame.len(), None);
            match finish_copy(&mut pass, to, &mut copy) {
                Some(port) => emit(port, copy.bytes()),
                None => lose_copy(&pass, to),
            }
        }
    }

    /// Sends what is due by the clock: solicitations of the next hops, of claimed addresses and of
    /// shared ones whose holder is unknown, Router Advertisements, queries for multicast groups,
    /// and reports of them to peers. `emit` receives each frame and the port it leaves by. Cheap
    /// when nothing is due; to be called several times a second.
    pub fn poll(&mut self, now_ns: u64, emit: &mut dyn FnMut(PortId, &[u8])) {
        let counters = &self.counters;
        let mut send = |port: PortId, bytes: &[u8]| {
            counters.port(port.index()).sent(bytes.len());
            emit(port, bytes);
        };
        clock::solicit_next_hops(&self.tables, &mut self.state, now_ns, &mut send);
        clock::ask_for_holders(&self.tables, &mut self.state, now_ns, &mut send);
        clock::ask_claimants(&self.tables, &mut self.state, now_ns, &mut send);
        clock::advertise(&self.tables, &mut self.state, now_ns, &mut send);
        querier::ask(&self.tables, &mut self.state, now_ns, &mut send);
        querier::report(&self.tables, counters, &mut self.state, now_ns, &mut send);
        if let Some(tunnel) = &self.tables.tunnel {
            for path in &mut self.state.paths {
                path.poll(tunnel, now_ns);
            }
        }
        self.state.ipsec.poll(now_ns);
        self.publish(now_ns);
    }

    /// Publishes leases and DHCP clients, and what is known of the underlay.
    fn publish(&mut self, now_ns: u64) {
        self.state.revalidate_leases(&self.tables);
        for (rules, port) in self.tables.ports.iter().zip(&self.state.ports) {
            let lease = port.lease.current(now_ns);
            let (leased, until_ns) = lease.unwrap_or_default();
            let counters = self.counters.port(rules.id.index());
            let groups = self.state.groups.as_ref();
            let groups = groups.map_or(0, |groups| groups.ports[rules.id.index()].len());
            counters.groups.set(groups as u64);
            counters.leased_mac.set(lease.map(|_| rules.mac));
            counters.leased_ipv4.set(u64::from(leased));
            counters.leased_until_ns.set(until_ns);
            let [v4, v6] = [Family::V4, Family::V6].map(|family| counters.clients(family));
            v4.publish(port.claims.as_deref());
            v6.publish(port.claims6.as_deref());
            let bindings = port.bindings.as_ref();
            let version = bindings.map_or(0, |it| it.version);
            let addresses = bindings.into_iter().flat_map(|it| it.addresses());
            counters.claimed.publish(version, addresses);
        }
        let Counters {
            holders,
            next_hops,
            inner_mtu,
            undelivered,
            vtep_conflict,
            polled_ns,
            ..
        } = &*self.counters;
        polled_ns.set(now_ns);
        for (view, holder) in holders.iter().zip(&self.state.holders) {
            view.publish(holder.held());
        }
        for (view, next_hop) in next_hops.iter().zip(&self.state.next_hops) {
            view.publish(next_hop.mac(), next_hop.other());
        }
        vtep_conflict.publish(self.state.vtep_conflict);
        self.state.ipsec.publish(&self.counters);
        for (counter, path) in inner_mtu.iter().zip(&self.state.paths) {
            counter.set(path.max_len().into());
        }
        for (view, path) in undelivered.iter().zip(&self.state.paths) {
            view.publish(path.undelivered);
        }
    }

    /// Marks all next hops as resolved, with that MAC: for captures, in which no next hop answers.
    pub fn assume_next_hops(&mut self, now_ns: u64, mac: MacAddr) {
        self.state.confirm_next_hops(now_ns, mac.octets());
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
    origin: Origin<'p>,
    pass: Pass<'p, ()>,
}

/// The port that frames came from.
#[derive(Debug, Clone, Copy)]
struct Origin<'p> {
    /// `None` for the uplink.
    rules: Option<&'p PortRules>,
    counters: &'p PortCounters,
}

impl<'p> BurstPass<'p> {
    /// Decides on one frame, rewrites it, and counts it.
    #[inline]
    pub fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        let mut decided = None;
        self.process_all(std::iter::once(frame), |_, verdict| decided = Some(verdict));
        decided.unwrap_or(Verdict::Drop(DropReason::Malformed))
    }

    /// Decides on every frame of the burst, rewrites it, and counts it. `done` receives each frame
    /// with its verdict, in order.
    #[inline(always)]
    pub fn process_all<B: Buffer>(
        &mut self,
        buffers: impl Iterator<Item = B>,
        done: impl FnMut(B, Verdict),
    ) {
        let Pass {
            tables,
            counters,
            ref state,
            now_ns,
            ..
        } = self.pass;
        match Lane::new(tables, counters, state, self.origin.rules, now_ns) {
            Lane::General => self.carry::<0, false, _>(buffers, done, |_| None),
            Lane::Port(lane) => {
                self.carry::<0, false, _>(buffers, done, |frame| lane.forward::<false>(frame));
            }
            Lane::IntoTunnel(lane) => {
                self.carry::<0, false, _>(buffers, done, |frame| lane.forward::<true>(frame));
            }
            Lane::IntoProtectedTunnel(lane) => {
                self.carry::<{ Outbound::TOGETHER }, false, _>(buffers, done, |frame| {
                    lane.forward::<true>(frame)
                });
            }
            Lane::Plain(lane) => {
                self.carry::<0, false, _>(buffers, done, |frame| lane.deliver(frame));
            }
            Lane::OutOfTunnel(lane) => {
                self.carry::<0, true, _>(buffers, done, |frame| lane.deliver_or_open(frame));
            }
        }
    }

    /// The frames that `lane` forwards take the fast path, all others the general one. `ROOM`: how
    /// many frames may wait to be sealed together. `OPENS`: ESP without anything unusual is opened
    /// before the general path.
    #[inline(always)]
    fn carry<const ROOM: usize, const OPENS: bool, B: Buffer>(
        &mut self,
        buffers: impl Iterator<Item = B>,
        mut done: impl FnMut(B, Verdict),
        lane: impl Fn(&mut [u8]) -> Option<Decision<'p>>,
    ) {
        let (mut frames, mut bytes) = (0, 0);
        let mut waiting = Waiting::<B, ROOM>::new();
        for mut buffer in buffers {
            let mut received = 0;
            let decision = buffer.plain().and_then(|frame| {
                received = frame.len();
                lane(frame)
            });
            let ends_waiting = !matches!(decision, Some(Decision::IntoTunnel(_)));
            if ends_waiting && !waiting.is_empty() {
                self.seal_waiting(&mut waiting, &mut done);
            }
            // `done` is inlined in each branch, and only the last two have the buffer in memory, as
            // a copy: the first keeps it in registers.
            match decision {
                Some(Decision::Out {
                    way: WayOut { to, counters },
                    begin,
                    len,
                }) => {
                    buffer.keep(begin, len);
                    frames += 1;
                    bytes += received as u64;
                    counters.sent(len);
                    done(buffer, Verdict::Forward(to));
                }
                Some(Decision::IntoTunnel(into)) => {
                    let mut buffer = buffer;
                    let mut stamped = None;
                    let verdict = buffer.change(|frame| {
                        let later = (ROOM > 0).then_some(&mut stamped);
                        self.enter_tunnel(into, frame, later)
                    });
                    if let Some(stamped) = stamped {
                        if let Some(buffer) = waiting.add(buffer, stamped) {
                            self.seal_waiting(&mut waiting, &mut done);
                            waiting.add(buffer, stamped);
                        }
                        continue;
                    }
                    if !waiting.is_empty() {
                        self.seal_waiting(&mut waiting, &mut done);
                    }
                    self.pass_on(buffer, verdict, &mut done);
                }
                None => {
                    let mut buffer = buffer;
                    let verdict = buffer.change(|frame| self.decide::<OPENS>(frame));
                    self.pass_on(buffer, verdict, &mut done);
                }
            }
        }
        if !waiting.is_empty() {
            self.seal_waiting(&mut waiting, &mut done);
        }
        self.origin.counters.rx_frames.add(frames);
        self.origin.counters.rx_bytes.add(bytes);
        self.origin.counters.forwarded.add(frames);
    }

    /// Passes a frame on with the general path's verdict, or its copies.
    #[inline(always)]
    fn pass_on<B: Buffer>(
        &mut self,
        buffer: B,
        verdict: Option<Verdict>,
        done: &mut impl FnMut(B, Verdict),
    ) {
        if B::COPIES && verdict == Some(Verdict::Copies) {
            return self.copy(buffer, done);
        }
        let verdict = self.or_too_long(verdict, &buffer);
        done(buffer, verdict);
    }

    /// Makes the copies of a frame that several ports get: one buffer for each receiver, of which
    /// one is the frame's own.
    #[inline(never)]
    fn copy<B: Buffer>(&mut self, buffer: B, done: &mut impl FnMut(B, Verdict)) {
        let others = self.pass.state.copies.len().saturating_sub(1);
        let allocations = buffer.copies(others, |copy| self.send_copy(copy, done));
        let counters = self.origin.counters;
        counters.copy_allocations.add(allocations);
        self.send_copy(Some(buffer), done);
    }

    /// Makes a copy, if there is room for one, that of the next receiver.
    fn send_copy<B: Buffer>(&mut self, copy: Option<B>, done: &mut impl FnMut(B, Verdict)) {
        let Some(to) = self.pass.state.copies.take() else {
            return;
        };
        let sent = copy.and_then(|mut copy| {
            let sent = copy.change(|frame| finish_copy(&mut self.pass, to, frame));
            Some((copy, sent.flatten()?))
        });
        match sent {
            Some((copy, port)) => done(copy, Verdict::Forward(port)),
            None => lose_copy(&self.pass, to),
        }
    }

    /// Seals the frames that wait, and passes them on.
    #[inline(never)]
    fn seal_waiting<const ROOM: usize, B: Buffer>(
        &mut self,
        waiting: &mut Waiting<B, ROOM>,
        done: &mut impl FnMut(B, Verdict),
    ) {
        if waiting.seal(&mut self.pass.state.ipsec) {
            let verdict = Verdict::Forward(self.pass.tables.uplink_id());
            waiting.drain().for_each(|buffer| done(buffer, verdict));
            return;
        }
        // An SA does not end within a burst; but nothing may leave in plain.
        let reason = DropReason::IpsecNoSa;
        for buffer in waiting.drain() {
            self.origin.counters.drops(reason).add(1);
            done(buffer, Verdict::Drop(reason));
        }
    }

    /// The verdict, or that on a frame that does not fit into one buffer: it is longer than any MTU
    /// that the buffers are for.
    #[inline(always)]
    fn or_too_long<B: Buffer>(&self, verdict: Option<Verdict>, buffer: &B) -> Verdict {
        verdict.unwrap_or_else(|| self.refuse_too_long(buffer.frame_len()))
    }

    /// Drops a frame of `bytes` bytes that does not fit into one buffer, and counts it.
    #[cold]
    fn refuse_too_long(&self, bytes: usize) -> Verdict {
        self.origin.counters.rx_frames.add(1);
        self.origin.counters.rx_bytes.add(bytes as u64);
        self.origin.counters.drops(DropReason::Malformed).add(1);
        Verdict::Drop(DropReason::Malformed)
    }

    /// Puts a frame into the tunnel, as the lane has decided, and counts it; `later` as in
    /// [`peer_route::PeerRoute::seal`]: beside the verdict it would cost every frame a copy. Not
    /// inlined, so that frames without a tunnel do not pay for it.
    #[inline(never)]
    fn enter_tunnel(
        &mut self,
        into: IntoTunnel,
        frame: &mut Frame<'_>,
        later: Option<&mut Option<Stamped>>,
    ) -> Verdict {
        let received = frame.len();
        let parts = (self.pass.tables, self.pass.counters, &mut *self.pass.state);
        let Some(to) = express::enter_tunnel(parts, self.pass.now_ns, into, frame, later) else {
            return decide(&mut self.pass, self.origin, frame);
        };
        self.origin.counters.rx_frames.add(1);
        self.origin.counters.rx_bytes.add(received as u64);
        self.origin.counters.forwarded.add(1);
        self.pass.counters.port(to.index()).sent(frame.len());
        Verdict::Forward(to)
    }

    /// Decides on one frame by the general path; if `OPENS`, ESP without anything unusual is opened
    /// first.
    #[inline(never)]
    fn decide<const OPENS: bool>(&mut self, frame: &mut Frame<'_>) -> Verdict {
        if OPENS && self.pass.state.ipsec.sas.is_some() {
            return self.open_and_decide(frame);
        }
        decide(&mut self.pass, self.origin, frame)
    }

    #[inline(never)]
    fn open_and_decide(&mut self, frame: &mut Frame<'_>) -> Verdict {
        let mut arrived = Arrived::plain(frame);
        let (tables, now_ns) = (self.pass.tables, self.pass.now_ns);
        match express::open_esp(tables, self.pass.state, now_ns, frame) {
            Early::Untouched => {}
            Early::Dropped(reason) => {
                self.origin.counters.drops(reason).add(1);
                self.received(arrived);
                return Verdict::Drop(reason);
            }
            Early::Opened(vtep) => {
                arrived.sealed_by = Some(vtep);
                let lane = FromUnderlay::new(tables, self.pass.counters, now_ns);
                let decision = lane.and_then(|lane| lane.open_sealed(frame.bytes_mut()));
                if let Some(Decision::Out { way, begin, len }) = decision {
                    frame.shrink_front(begin);
                    frame.truncate(len);
                    self.received(arrived);
                    self.origin.counters.forwarded.add(1);
                    way.counters.sent(len);
                    return Verdict::Forward(way.to);
                }
            }
        }
        decide_opened(&mut self.pass, self.origin.counters, arrived, frame)
    }

    fn received(&self, arrived: Arrived) {
        self.origin.counters.rx_frames.add(1);
        self.origin.counters.rx_bytes.add(arrived.bytes as u64);
    }
}

/// How a frame came.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    /// Its bytes then.
    bytes: usize,
    /// The endpoint whose SA carried it, if it is opened already.
    sealed_by: Option<VtepId>,
}

impl Arrived {
    /// As it is.
    #[inline(always)]
    fn plain(frame: &Frame<'_>) -> Self {
        Self {
            bytes: frame.len(),
            sealed_by: None,
        }
    }
}

/// Gives a copy its headers, and counts it. Returns the port that it leaves by.
fn finish_copy<N: Notes>(
    pass: &mut Pass<'_, N>,
    to: Receiver,
    frame: &mut Frame<'_>,
) -> Option<PortId> {
    let port = pass.finish_copy(to, frame)?;
    pass.counters.port(port.index()).sent(frame.len());
    Some(port)
}

/// Counts a copy for which there is no buffer.
#[cold]
fn lose_copy<N: Notes>(pass: &Pass<'_, N>, to: Receiver) {
    let port = match to {
        Receiver::Port(id) => id,
        Receiver::Vtep(_) | Receiver::Fragment(_) => pass.tables.uplink_id(),
    };
    pass.count_unsent(port, DropReason::NoBuffer);
}

/// Decides on one frame by the general path, rewrites it, and counts it.
#[inline(never)]
fn decide<'p, N: Notes>(
    pass: &mut Pass<'p, N>,
    origin: Origin<'p>,
    frame: &mut Frame<'_>,
) -> Verdict {
    settle(pass, origin, Arrived::plain(frame), frame)
}

/// As [`decide`], of a frame from the underlay that may be opened already. Apart, so that all
/// others carry nothing of this.
#[inline(never)]
fn decide_opened<'p, N: Notes>(
    pass: &mut Pass<'p, N>,
    counters: &'p PortCounters,
    arrived: Arrived,
    frame: &mut Frame<'_>,
) -> Verdict {
    let rules = None;
    settle(pass, Origin { rules, counters }, arrived, frame)
}

#[inline(always)]
fn settle<'p, N: Notes>(
    pass: &mut Pass<'p, N>,
    Origin { rules, counters }: Origin<'p>,
    arrived: Arrived,
    frame: &mut Frame<'_>,
) -> Verdict {
    counters.rx_frames.add(1);
    counters.rx_bytes.add(arrived.bytes as u64);
    // Twice, so that each copy knows its side.
    let outcome = match rules {
        Some(rules) => pass.run(Some(rules), None, frame),
        None => pass.run(None, arrived.sealed_by, frame),
    };
    match outcome {
        Ok(Sent::To(to)) => {
            counters.forwarded.add(1);
            pass.counters.port(to.index()).sent(frame.len());
            Verdict::Forward(to)
        }
        Ok(Sent::Copies) => {
            counters.forwarded.add(1);
            Verdict::Copies
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
