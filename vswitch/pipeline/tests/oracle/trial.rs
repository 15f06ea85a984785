//! A switch and its model side by side: every frame goes to both, and everything is compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use packet::Frame;
use pipeline::DropReason;
use pipeline::{Counters, Generation, Pipeline, PortId, Verdict};
use serde::{Deserialize, Serialize};
use tenant_config::{MacAddr, SwitchConfig};

use super::model::tunnel::Flow;
use super::model::tunnel::path_mtu::Belief;
use super::model::{Model, Outcome};
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
}

impl Switch {
    pub(crate) fn new(config: &SwitchConfig, residue: u8) -> Self {
        let generation = Generation::build(config, None);
        Self {
            config: config.clone(),
            counters: generation.counters(),
            pipeline: Pipeline::new(generation),
            residue,
            traced: false,
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
        let mut buffer = vec![self.residue; Frame::HEADROOM + bytes.len() + 128];
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
        (verdict, frame.bytes().to_vec())
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

    pub(crate) fn counted(&self) -> Vec<Tally> {
        counted(&self.counters)
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
    /// The last frame that has gone into the tunnel, as it left.
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
        for (port, bytes) in &sent {
            self.tally[*port].sent(bytes.len());
        }
        sent
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
        let (verdict, became) = self.switch.process(now_ns, from, bytes, tag);
        self.count(from, bytes, &verdict, &became);
        let mut wrong = self.compare(from, bytes, &expected, &verdict, &became);
        let counted = self.switch.counted();
        if wrong.is_ok() && counted != self.tally {
            wrong = Err(format!("counted {counted:?}, not {:?}", self.tally));
        }
        let twin = self.twin.process(now_ns, from, bytes, tag);
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
        let behind_tag = match (self.model.tag_of_answer(), became.get(12..16)) {
            (Some(tag), Some([0x81, 0, rest @ ..])) if rest == tag.to_be_bytes() => {
                answers::untagged(became)
            }
            _ => became.to_vec(),
        };
        match (expected, *verdict) {
            (Outcome::Forward { to, bytes }, Verdict::Forward(port))
                if usize::from(port.0) == *to =>
            {
                if bytes == became {
                    Ok(())
                } else {
                    Err("forwarded, but other bytes".to_owned())
                }
            }
            (Outcome::Tunnel(outer), Verdict::Forward(port))
                if usize::from(port.0) == self.model.uplink() =>
            {
                let source_port = outer.check(became)?;
                self.left(became);
                self.check_flow(outer.flow, source_port)
            }
            (Outcome::Reply(answer), Verdict::Reply) => {
                let own_mac = answers::side(config, from);
                answers::check(answer, own_mac, bytes, &behind_tag)
                    .map_err(|wrong| format!("a wrong answer: {wrong}"))
            }
            (Outcome::TunnelReply(reply), Verdict::Reply) => {
                let tunnel = config.tunnel.as_ref().expect("a tunnel");
                let in_front = usize::from(tunnel.overhead());
                let Some(inner) = became.get(in_front..) else {
                    return Err("an answer that is no tunnel packet".to_owned());
                };
                answers::check(&reply.answer, tunnel.mac, &reply.asked, inner)
                    .map_err(|wrong| format!("a wrong answer in the tunnel: {wrong}"))?;
                if inner.get(12..14) == Some(&[8, 6]) && inner.len() != 42 {
                    return Err("an ARP answer with padding".to_owned());
                }
                let outer = self.model.encapsulated(reply.peer, inner);
                let source_port = outer.check(became)?;
                self.left(became);
                self.check_flow(outer.flow, source_port)
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
                if !icmp_error || self.errors_may_be_spent {
                    Ok(())
                } else {
                    Err("dropped, but an ICMP error is owed".to_owned())
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

    /// A frame has left into the tunnel.
    fn left(&mut self, frame: &[u8]) {
        self.model.left(frame);
        self.last_left = Some(frame.to_vec());
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
