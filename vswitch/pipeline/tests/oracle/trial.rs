//! A switch and its model side by side: every frame goes to both, and everything is compared.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use packet::Frame;
use pipeline::DropReason;
use pipeline::ipsec::{
    Channel, Direction, InboundSa, Notice, Order, OutboundSa, Rules, SaCounters,
};
use pipeline::metadata;
use pipeline::{Clients, Counters, Family, Generation, Pipeline, PortId, Verdict};
use serde::{Deserialize, Serialize};
use tenant_config::{MacAddr, PortConfig, SwitchConfig};

use super::ipsec_frames::Sa;
use super::model::ipsec::{Told, Use};
use super::model::tunnel::path_mtu::Belief;
use super::model::tunnel::{Flow, Outer};
use super::model::{Model, Outcome};
use super::owned::Owned;
use super::{answers, rows};

/// One second: after it every bucket is full again, and an ICMP error may be sent.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// All that is counted about one port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) rx_frames: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) forwarded: u64,
    pub(crate) replies: u64,
    pub(crate) icmp_errors: u64,
    pub(crate) tx_frames: u64,
    pub(crate) tx_bytes: u64,
    /// By the reason's name; reasons that dropped nothing are absent.
    pub(crate) drops: BTreeMap<String, u64>,
}

impl Tally {
    fn sent(&mut self, bytes: usize) {
        self.tx_frames += 1;
        self.tx_bytes += bytes as u64;
    }

    fn dropped(&mut self, reason: DropReason) {
        *self.drops.entry(reason.name().to_owned()).or_default() += 1;
    }
}

/// The whole counter state of a switch, port by port.
pub(crate) fn counted(counters: &Counters) -> Vec<Tally> {
    counters
        .ports()
        .map(|port| Tally {
            rx_frames: port.rx_frames.get(),
            rx_bytes: port.rx_bytes.get(),
            forwarded: port.forwarded.get(),
            replies: port.replies.get(),
            icmp_errors: port.icmp_errors.get(),
            tx_frames: port.tx_frames.get(),
            tx_bytes: port.tx_bytes.get(),
            drops: DropReason::ALL
                .iter()
                .map(|reason| (reason.name(), port.drops(*reason).get()))
                .filter(|(_, count)| *count > 0)
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
        })
        .collect()
}

/// A switch without a model, for what is checked independently of it.
#[derive(Debug)]
pub(crate) struct Switch {
    pub(crate) config: SwitchConfig,
    pipeline: Pipeline,
    counters: Arc<Counters>,
    /// What lies in the buffer around each frame.
    residue: u8,
    /// Whether it is traced, which the fast path does not support.
    pub(crate) traced: bool,
    /// To whoever negotiates SAs, and what those SAs count.
    channel: Arc<Channel>,
    sas: HashMap<(Direction, u32), Arc<SaCounters>>,
    /// The copies of the last frame, each with its port.
    copies: Vec<(usize, Vec<u8>)>,
    /// To whoever serves metadata.
    metadata: Arc<metadata::Channel>,
}

impl Switch {
    pub(crate) fn new(config: &SwitchConfig, residue: u8) -> Self {
        let generation = Generation::build(config, None);
        let counters = generation.counters();
        let mut pipeline = Pipeline::new(generation);
        let channel = Arc::new(Channel::default());
        channel.give_blanks();
        pipeline.join_ipsec(Arc::clone(&channel));
        let metadata = Arc::new(metadata::Channel::default());
        metadata.give_blanks();
        pipeline.join_metadata(Arc::clone(&metadata));
        Self {
            config: config.clone(),
            counters,
            pipeline,
            residue,
            traced: false,
            channel,
            sas: HashMap::new(),
            copies: Vec::new(),
            metadata,
        }
    }

    /// Installs an SA. An outbound one is used at once.
    pub(crate) fn install(&mut self, now_ns: u64, direction: Direction, sa: &Sa) {
        let rules = Rules::of(&self.config).expect("IPsec");
        let (request, keys) = (sa.request(rules.own), sa.secret.keys());
        let counters = match direction {
            Direction::In => {
                let sa = InboundSa::new(&rules, request, &keys).expect("an SA");
                let counters = sa.counters();
                self.order(now_ns, Order::InstallIn(sa));
                counters
            }
            Direction::Out => {
                let sa = OutboundSa::new(&rules, request, &keys).expect("an SA");
                let counters = sa.counters();
                self.order(now_ns, Order::InstallOut(sa));
                let (peer, spi) = (request.peer, request.spi);
                self.order(now_ns, Order::Use { peer, spi });
                counters
            }
        };
        self.sas.insert((direction, sa.spi), counters);
    }

    pub(crate) fn order(&mut self, now_ns: u64, order: Order) {
        self.channel.order(order).expect("room for an order");
        self.pipeline.obey_ipsec(now_ns, &mut |_, _| {});
        while self.channel.retired().is_some() {}
    }

    /// What the daemon was told about packets.
    pub(crate) fn told(&self) -> Vec<Told> {
        let mut told = Vec::new();
        while let Some(notice) = self.channel.notice() {
            match notice {
                Notice::Acquire { peer } => told.push(Told::Acquire(peer)),
                Notice::Ike(came) => {
                    told.push(Told::Ike {
                        from: came.from,
                        to: came.to,
                        bytes: came.bytes().to_vec(),
                    });
                    self.channel.give_blank(came);
                }
                // Of the lives of SAs.
                Notice::Soft { .. } | Notice::Hard { .. } => {}
            }
        }
        told
    }

    /// What was passed on to be served as metadata: the port and the packet.
    pub(crate) fn passed(&self) -> Vec<(usize, Vec<u8>)> {
        let mut passed = Vec::new();
        let mut take = |packet: &metadata::Packet| {
            let is_its = |port: &PortConfig| port.mac.octets() == packet.station();
            let port = self.config.ports.iter().position(is_its);
            passed.push((port.expect("a VM"), packet.bytes().to_vec()));
        };
        while self.metadata.request(&mut take) {}
        passed
    }

    /// What leaves when `packet` is the answer to the VM of a port: the port and the frame.
    pub(crate) fn answer(&mut self, port: usize, packet: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let port = self.config.ports.get(port);
        self.answer_to(port.map_or([2; 6], |port| port.mac.octets()), packet)
    }

    /// The same, by the VM's MAC.
    pub(crate) fn answer_to(&mut self, station: [u8; 6], packet: &[u8]) -> Vec<(usize, Vec<u8>)> {
        assert!(self.metadata.answer(station, packet), "there is room");
        let mut sent = Vec::new();
        self.pipeline.send_metadata(&mut |port, bytes| {
            sent.push((port.index(), bytes.to_vec()));
        });
        sent
    }

    /// What is counted of an SA.
    fn used(&self, direction: Direction, spi: u32) -> Use {
        let counters = &self.sas[&(direction, spi)];
        Use {
            packets: counters.packets.get(),
            bytes: counters.bytes.get(),
            replayed: counters.replayed.get(),
            forged: counters.forged.get(),
        }
    }

    /// Lets all next hops be known.
    pub(crate) fn resolve(&mut self, now_ns: u64) {
        let router = MacAddr::new(rows::ROUTER).expect("a station's MAC");
        self.pipeline.assume_next_hops(now_ns, router);
    }

    /// What the switch says to `bytes`, and what they have become.
    pub(crate) fn process(
        &mut self,
        now_ns: u64,
        from: usize,
        bytes: &[u8],
        tag: Option<u16>,
    ) -> (Verdict, Vec<u8>) {
        // The room behind a frame is that for an answer of the longest packet, as a device's.
        let mut buffer = vec![self.residue; Frame::HEADROOM + bytes.len().max(1514) + 128];
        buffer[Frame::HEADROOM..][..bytes.len()].copy_from_slice(bytes);
        let mut frame = Frame::new(&mut buffer, Frame::HEADROOM, bytes.len(), tag);
        let from = u16::try_from(from).expect("few ports");
        let from = PortId(from);
        let verdict = if self.traced {
            let mut notes = |_, _: std::fmt::Arguments<'_>| {};
            self.pipeline
                .process_traced(now_ns, from, &mut frame, &mut notes)
        } else {
            self.pipeline.process(now_ns, from, &mut frame)
        };
        let bytes = frame.bytes().to_vec();
        self.copies.clear();
        if verdict == Verdict::Copies {
            let Self {
                pipeline, copies, ..
            } = self;
            pipeline.send_copies((now_ns, from), &bytes, &mut |port, copy| {
                copies.push((port.index(), copy.to_vec()));
            });
        }
        (verdict, bytes)
    }

    /// What leaves, and by which port, when a worker processes frames: in buffers that can be
    /// copied.
    pub(crate) fn work(
        &mut self,
        now_ns: u64,
        from: usize,
        frames: &[Vec<u8>],
    ) -> Vec<(usize, Vec<u8>)> {
        let mut left = Vec::new();
        let from = PortId(u16::try_from(from).expect("few ports"));
        let mut pass = self.pipeline.burst(now_ns, from);
        let buffers = frames.iter().map(|bytes| Owned::new(bytes));
        pass.process_all(buffers, |buffer, verdict| match verdict {
            Verdict::Forward(port) => left.push((port.index(), buffer.bytes().to_vec())),
            Verdict::Reply | Verdict::DropWithError(_) => {
                left.push((from.index(), buffer.bytes().to_vec()))
            }
            Verdict::Drop(_) => {}
            Verdict::Copies => panic!("a worker has nothing to do with that"),
        });
        left
    }

    /// The copies of the last frame, each with its port.
    pub(crate) fn copies(&self) -> &[(usize, Vec<u8>)] {
        &self.copies
    }

    /// What a trace of `bytes` says.
    pub(crate) fn trace(&mut self, now_ns: u64, from: usize, bytes: &[u8]) -> Vec<String> {
        let mut buffer = vec![self.residue; Frame::HEADROOM + bytes.len() + 128];
        buffer[Frame::HEADROOM..][..bytes.len()].copy_from_slice(bytes);
        let mut frame = Frame::new(&mut buffer, Frame::HEADROOM, bytes.len(), None);
        let mut said = Vec::new();
        let mut note = |_, what: std::fmt::Arguments<'_>| said.push(what.to_string());
        let from = PortId(u16::try_from(from).expect("few ports"));
        let _: Verdict = self
            .pipeline
            .process_traced(now_ns, from, &mut frame, &mut note);
        said
    }

    /// What the switch sends by the clock: the port and the frame.
    pub(crate) fn poll(&mut self, now_ns: u64) -> Vec<(usize, Vec<u8>)> {
        let mut sent = Vec::new();
        let mut emit = |port: PortId, bytes: &[u8]| sent.push((port.index(), bytes.to_vec()));
        self.pipeline.poll(now_ns, &mut emit);
        sent
    }

    /// Installs a new generation of the same configuration, which `change` may alter before.
    pub(crate) fn reload(&mut self, change: impl FnOnce(&mut Generation)) {
        self.configure_with(&self.config.clone(), change);
    }

    /// Replaces the configuration in use.
    pub(crate) fn configure(&mut self, config: &SwitchConfig) {
        self.configure_with(config, |_| {});
    }

    /// As [`Self::configure`], with a generation that `change` may alter before.
    pub(crate) fn configure_with(
        &mut self,
        config: &SwitchConfig,
        change: impl FnOnce(&mut Generation),
    ) {
        let tables = self.pipeline.tables();
        let mut generation = Generation::build(config, Some((&tables, &self.counters)));
        change(&mut generation);
        self.counters = generation.counters();
        self.config = config.clone();
        drop(self.pipeline.install(generation));
    }

    /// The lease of a port as it was at the last poll: the address, and when it ends.
    pub(crate) fn lease(&self, port: usize) -> (u64, u64) {
        let port = self.counters.port(port);
        (port.leased_ipv4.get(), port.leased_until_ns.get())
    }

    /// The addresses that a port has claimed, as they were at the last poll.
    pub(crate) fn claimed(&self, port: usize) -> Vec<std::net::Ipv6Addr> {
        let published = &self.counters.port(port).claimed;
        published.get().expect("nobody writes")
    }

    /// The DHCP clients of a port, as they were at the last poll.
    pub(crate) fn clients(&self, port: usize, family: Family, now_ns: u64) -> Clients {
        let published = self.counters.port(port).clients(family);
        published.get(now_ns).expect("nobody writes")
    }

    pub(crate) fn counted(&self) -> Vec<Tally> {
        counted(&self.counters)
    }

    /// How many reports have lowered a path MTU.
    pub(crate) fn path_mtus_believed(&self) -> u64 {
        self.counters.path_mtu.believed.get()
    }

    /// All that is counted and shown.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How often another station than a next hop has claimed its address.
    pub(crate) fn contested_next_hops(&self) -> u64 {
        self.counters.contested_next_hops.get()
    }
}

/// A switch, its model, and what the model says must have been counted.
#[derive(Debug)]
pub(crate) struct Trial {
    switch: Switch,
    /// Gets the same by the general path, in buffers that held something else: what leaves must not
    /// differ.
    twin: Switch,
    model: Model,
    tally: Vec<Tally>,
    /// The UDP source ports of the inner flows that have gone into the tunnel.
    pub(crate) flows: BTreeMap<Flow, u16>,
    /// The last frame that has gone into the tunnel, or to a resolver, as it left.
    pub(crate) last_left: Option<Vec<u8>>,
    /// Whether the rate of ICMP errors may be spent, so that one that is owed may stay away.
    pub(crate) errors_may_be_spent: bool,
}

impl Trial {
    pub(crate) fn new(config: &SwitchConfig) -> Self {
        let switch = Switch::new(config, 0xee);
        Self {
            tally: vec![Tally::default(); switch.counted().len()],
            switch,
            twin: Switch {
                traced: true,
                ..Switch::new(config, 0x11)
            },
            model: Model::new(config),
            flows: BTreeMap::new(),
            last_left: None,
            errors_may_be_spent: false,
        }
    }

    pub(crate) fn config(&self) -> &SwitchConfig {
        &self.switch.config
    }

    /// What the switch and its twin, which takes no short cut, show.
    pub(crate) fn counters(&self) -> [&Counters; 2] {
        [&self.switch, &self.twin].map(Switch::counters)
    }

    /// Installs the same configuration again, which must change nothing.
    pub(crate) fn reload(&mut self) {
        self.switch.reload(|_| {});
        self.twin.reload(|_| {});
    }

    /// Lets both know all next hops.
    pub(crate) fn resolve(&mut self, now_ns: u64) {
        self.switch.resolve(now_ns);
        self.twin.resolve(now_ns);
        self.model.teach_all(rows::ROUTER);
    }

    /// Replaces the configuration of both, which has the same ports.
    pub(crate) fn configure(&mut self, config: &SwitchConfig) {
        self.switch.configure(config);
        self.twin.configure(config);
        self.model.configure(config);
    }

    /// Lets both do what is due by the clock, which is at least to forget; hands back what is sent.
    pub(crate) fn poll(&mut self, now_ns: u64) -> Vec<(usize, Vec<u8>)> {
        let sent = self.switch.poll(now_ns);
        self.twin.poll(now_ns);
        self.model.expire(now_ns);
        let ports = self.model.uplink();
        let is_question = |(port, frame): &&(usize, Vec<u8>)| {
            *port < ports && answers::untagged(frame).get(54) == Some(&135)
        };
        let asked: Vec<_> = sent.iter().filter(is_question).cloned().collect();
        assert_eq!(asked, self.model.solicitations(now_ns), "at {now_ns} ns");
        for (port, bytes) in &sent {
            self.tally[*port].sent(bytes.len());
        }
        sent
    }

    /// Lets both have an SA.
    pub(crate) fn install(&mut self, now_ns: u64, direction: Direction, sa: &Sa) {
        self.switch.install(now_ns, direction, sa);
        self.twin.install(now_ns, direction, sa);
        match direction {
            Direction::In => self.model.install_in(now_ns, sa),
            Direction::Out => self.model.install_out(now_ns, sa),
        }
    }

    /// Takes an SA away from both.
    pub(crate) fn remove(&mut self, now_ns: u64, direction: Direction, peer: IpAddr, spi: u32) {
        for switch in [&mut self.switch, &mut self.twin] {
            let order = Order::Remove {
                direction,
                peer,
                spi,
            };
            switch.order(now_ns, order);
        }
        match direction {
            Direction::In => self.model.remove_in(spi),
            Direction::Out => self.model.remove_out(peer, spi),
        }
    }

    /// Takes all SAs away.
    pub(crate) fn wipe(&mut self, now_ns: u64) {
        self.switch.order(now_ns, Order::Wipe);
        self.twin.order(now_ns, Order::Wipe);
        self.model.wipe();
    }

    /// Compares what the daemon is told and what is counted of SAs.
    fn compare_ipsec(&mut self) -> Result<(), String> {
        let expected = self.model.told();
        for (told, who) in [
            (self.switch.told(), "it"),
            (self.twin.told(), "the general path"),
        ] {
            if told != expected {
                return Err(format!("{who} told the daemon {told:?}, not {expected:?}"));
            }
        }
        for (direction, spi, expected) in self.model.used() {
            for switch in [&self.switch, &self.twin] {
                let used = switch.used(direction, spi);
                if used != expected {
                    return Err(format!("the SA {spi:#x} counts {used:?}, not {expected:?}"));
                }
            }
        }
        Ok(())
    }

    /// Compares what is passed on to be served as metadata.
    fn compare_metadata(&mut self) -> Result<(), String> {
        let expected = self.model.passed();
        for (switch, who) in [(&self.switch, "it"), (&self.twin, "the general path")] {
            let passed = switch.passed();
            if passed != expected {
                return Err(format!("{who} passed on {passed:?}, not {expected:?}"));
            }
        }
        Ok(())
    }

    /// Gives a frame to both and compares verdict, reason, bytes and the whole counter state. What
    /// the switch did is handed back; an error is a sentence with everything needed to see it
    /// again.
    pub(crate) fn send(
        &mut self,
        now_ns: u64,
        from: usize,
        bytes: &[u8],
        tag: Option<u16>,
    ) -> Result<Verdict, String> {
        let expected = self.model.expect(now_ns, from, bytes, tag);
        for (port, reason) in self.model.unsent() {
            self.tally[port].dropped(reason);
        }
        let (verdict, became) = self.switch.process(now_ns, from, bytes, tag);
        self.count(from, bytes, &verdict, &became);
        let mut wrong = self.compare(from, bytes, &expected, &verdict, &became);
        let counted = self.switch.counted();
        if wrong.is_ok() && counted != self.tally {
            wrong = Err(format!("counted {counted:?}, not {:?}", self.tally));
        }
        let twin = self.twin.process(now_ns, from, bytes, tag);
        if wrong.is_ok() && self.twin.copies != self.switch.copies {
            wrong = Err(format!("the general path made {:?}", self.twin.copies));
        }
        if wrong.is_ok() && twin != (verdict, became.clone()) {
            let (verdict, bytes) = twin;
            wrong = Err(format!(
                "the general path, or what lay in the buffer, shows: {verdict:?} {}",
                hex(&bytes)
            ));
        }
        if wrong.is_ok() && self.twin.counted() != self.tally {
            wrong = Err(format!(
                "the general path counted {:?}",
                self.twin.counted()
            ));
        }
        if wrong.is_ok() {
            wrong = self.compare_ipsec();
        }
        if wrong.is_ok() {
            wrong = self.compare_metadata();
        }
        wrong.map(|()| verdict).map_err(|wrong| {
            format!(
                "{wrong}\n  from port {from}, tag {tag:?}, at {now_ns} ns: {}\n  \
                 expected {}\n  got {verdict:?} {}",
                hex(bytes),
                describe(&expected),
                hex(&became),
            )
        })
    }

    /// Counts what the verdict says; whether the verdict is right is compared apart.
    fn count(&mut self, from: usize, bytes: &[u8], verdict: &Verdict, became: &[u8]) {
        self.tally[from].rx_frames += 1;
        self.tally[from].rx_bytes += bytes.len() as u64;
        match *verdict {
            Verdict::Forward(PortId(to)) => {
                self.tally[from].forwarded += 1;
                self.tally[usize::from(to)].sent(became.len());
            }
            Verdict::Copies => {
                self.tally[from].forwarded += 1;
                for (to, copy) in &self.switch.copies {
                    self.tally[*to].sent(copy.len());
                }
            }
            Verdict::Reply => {
                self.tally[from].replies += 1;
                self.tally[from].sent(became.len());
            }
            Verdict::Drop(reason) => self.tally[from].dropped(reason),
            Verdict::DropWithError(reason) => {
                self.tally[from].dropped(reason);
                self.tally[from].icmp_errors += 1;
                self.tally[from].sent(became.len());
            }
        }
    }

    fn compare(
        &mut self,
        from: usize,
        bytes: &[u8],
        expected: &Outcome,
        verdict: &Verdict,
        became: &[u8],
    ) -> Result<(), String> {
        let config = &self.switch.config.clone();
        // An answer carries the tag of the frame that it answers; the checks read what is behind
        // it.
        let tag = self.model.tag_of_answer();
        let behind_tag = match (tag, became.get(12..16)) {
            (Some(tag), Some([0x81, 0, rest @ ..])) if rest == tag.to_be_bytes() => {
                answers::untagged(became)
            }
            (Some(tag), _) if matches!(verdict, Verdict::Reply | Verdict::DropWithError(_)) => {
                return Err(format!("an answer without the tag {tag}"));
            }
            _ => became.to_vec(),
        };
        match (expected, *verdict) {
            (Outcome::Forward { to, bytes }, Verdict::Forward(port))
                if usize::from(port.0) == *to =>
            {
                let same = (bytes == became).then_some(());
                same.ok_or_else(|| "forwarded, but other bytes".to_owned())
            }
            (Outcome::Tunnel(outer), Verdict::Forward(port))
                if usize::from(port.0) == self.model.uplink() =>
            {
                self.compare_tunnel(outer, became)
            }
            (Outcome::Query(query), Verdict::Forward(port))
                if usize::from(port.0) == self.model.uplink() =>
            {
                self.model.asked_by(query.check(became)?);
                self.last_left = Some(became.to_vec());
                Ok(())
            }
            (Outcome::Copies(expected), Verdict::Copies) => self.compare_copies(expected),
            (Outcome::Reply(answer), Verdict::Reply) => {
                let own_mac = answers::side(config, from);
                answers::check(answer, own_mac, bytes, &behind_tag)
                    .map_err(|wrong| format!("a wrong answer: {wrong}"))
            }
            (Outcome::Defend(answer), Verdict::DropWithError(DropReason::NdSpoof)) => {
                let own_mac = answers::side(config, from);
                answers::check(answer, own_mac, bytes, &behind_tag)
                    .map_err(|wrong| format!("a wrong defence: {wrong}"))
            }
            (Outcome::TunnelReply(reply), Verdict::Reply) => {
                let own_mac = config.tunnel.as_ref().expect("a tunnel").mac;
                self.compare_inside(reply.peer, became, |inner| {
                    if inner.get(12..14) == Some(&[8, 6]) && inner.len() != 42 {
                        return Err("an ARP answer with padding".to_owned());
                    }
                    answers::check(&reply.answer, own_mac, &reply.asked, inner)
                })
            }
            (Outcome::TunnelError { .. }, Verdict::Drop(DropReason::Mtu)) => self.may_be_silent(),
            (
                Outcome::TunnelError { mtu, asked, peer },
                Verdict::DropWithError(DropReason::Mtu),
            ) => {
                let own_mac = config.tunnel.as_ref().expect("a tunnel").mac;
                self.compare_inside(*peer, became, |inner| {
                    answers::check_tunnel_error(*mtu, own_mac, asked, inner)
                })
            }
            (
                Outcome::Report(belief),
                Verdict::Drop(got @ (DropReason::Absorbed | DropReason::GatewayService)),
            ) => {
                let heard = got == DropReason::Absorbed;
                self.model.heard(heard);
                match belief {
                    Belief::Must if !heard => Err("a router's report is not heard".to_owned()),
                    Belief::Never if heard => Err("a forged report is believed".to_owned()),
                    _ => Ok(()),
                }
            }
            (
                Outcome::Drop {
                    reason, icmp_error, ..
                },
                Verdict::Drop(got),
            ) if got == *reason => {
                if *icmp_error {
                    self.may_be_silent()
                } else {
                    Ok(())
                }
            }
            (
                Outcome::Drop {
                    reason,
                    icmp_error,
                    mtu,
                },
                Verdict::DropWithError(got),
            ) if got == *reason => {
                if !icmp_error {
                    return Err("dropped, but no ICMP error is owed".to_owned());
                }
                answers::check_error(got, *mtu, config, from, bytes, &behind_tag)
                    .map_err(|wrong| format!("a wrong ICMP error: {wrong}"))
            }
            _ => Err("another verdict".to_owned()),
        }
    }

    /// What left into the tunnel is that packet.
    fn compare_tunnel(&mut self, outer: &Outer, left: &[u8]) -> Result<(), String> {
        let bare = self.model.bare(outer.endpoint, left)?;
        let source_port = outer.check(&bare)?;
        self.left(outer.endpoint, &bare);
        self.check_flow(outer.flow, source_port)
    }

    /// Whether an ICMP error that is owed may be left out.
    fn may_be_silent(&self) -> Result<(), String> {
        match self.errors_may_be_spent {
            true => Ok(()),
            false => Err("dropped, but an ICMP error is owed".to_owned()),
        }
    }

    /// What left into the tunnel to that peer has an answer inside, which `check` judges.
    fn compare_inside(
        &mut self,
        peer: usize,
        left: &[u8],
        check: impl FnOnce(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let config = self.switch.config.clone();
        let tunnel = config.tunnel.as_ref().expect("a tunnel");
        let in_front = usize::from(tunnel.overhead());
        let bare = self.model.bare(tunnel.peers[peer].vtep, left)?;
        let Some(inner) = bare.get(in_front..) else {
            return Err("an answer that is no tunnel packet".to_owned());
        };
        check(inner).map_err(|wrong| format!("a wrong answer in the tunnel: {wrong}"))?;
        let outer = self.model.encapsulated(peer, inner);
        let source_port = outer.check(&bare)?;
        self.left(outer.endpoint, &bare);
        self.check_flow(outer.flow, source_port)
    }

    /// Each expected copy is there, and no other.
    fn compare_copies(&mut self, expected: &[Outcome]) -> Result<(), String> {
        let made = self.switch.copies.clone();
        if made.len() != expected.len() {
            return Err(format!("{} copies, not {}", made.len(), expected.len()));
        }
        for copy in expected {
            match copy {
                Outcome::Forward { to, bytes } => {
                    if !made.contains(&(*to, bytes.clone())) {
                        return Err(format!("no copy {} to {to}: {made:?}", hex(bytes)));
                    }
                }
                Outcome::Tunnel(outer) => {
                    let uplink = self.model.uplink();
                    let mut left = made.iter().filter(|(port, _)| *port == uplink);
                    let found = left.find_map(|(_, bytes)| {
                        let bare = self.model.bare(outer.endpoint, bytes).ok()?;
                        let source_port = outer.check(&bare).ok()?;
                        Some((bare, source_port))
                    });
                    let (bare, source_port) = found.ok_or("no copy into the tunnel")?;
                    self.left(outer.endpoint, &bare);
                    self.check_flow(outer.flow, source_port)?;
                }
                other => return Err(format!("{other:?} is no copy")),
            }
        }
        Ok(())
    }

    /// How many copies the last frame was sent as.
    pub(crate) fn copies(&self) -> usize {
        self.switch.copies.len()
    }

    /// A frame has left into the tunnel, which is this without what ESP adds.
    fn left(&mut self, endpoint: IpAddr, bare: &[u8]) {
        if self.model.requires_ipsec(endpoint) {
            return self.model.sealed(endpoint, bare);
        }
        self.model.left(bare);
        self.last_left = Some(bare.to_vec());
    }

    /// Equal flows have equal source ports.
    fn check_flow(&mut self, flow: Option<Flow>, source_port: u16) -> Result<(), String> {
        let Some(flow) = flow else {
            return Ok(());
        };
        let before = *self.flows.entry(flow).or_insert(source_port);
        if before == source_port {
            Ok(())
        } else {
            Err(format!("the source port {source_port}, once {before}"))
        }
    }
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Forward { to, bytes } => format!("Forward(PortId({to})) {}", hex(bytes)),
        Outcome::Tunnel(outer) => format!("into the tunnel: {}", hex(outer.bytes())),
        other => format!("{other:?}"),
    }
}

/// `bytes` as the command line's `trace` takes them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
