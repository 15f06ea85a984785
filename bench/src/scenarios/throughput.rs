//! `p2p`, `p2v` and `v2v`: the throughput of a switch, and its cycles per frame.

use std::collections::HashMap;

use serde::Serialize;

use super::rounds::Rounds;
use super::{Sample, Settings, Work, sample};
use crate::load::Attack;
use crate::network::{Topology, tenant};
use crate::report::{Bar, Chart, Outcome, Table, figure, figure_or_none, spread};
use crate::site::{Site, Wires};
use crate::stages;
use crate::switches::{Peer, PollMode, Switch, Vswitch};

/// Good frames for each attack, so that a tenth of all frames are attacks.
const GOOD_PER_ATTACK: u32 = 9;

/// One kind of traffic.
#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq)]
pub struct Variant {
    /// Bytes of a frame, with the check sequence.
    pub frame: u16,
    /// The number of flows.
    pub flows: u32,
    /// Whether a tenth of the VMs' frames are attacks.
    pub attacks: bool,
}

impl Variant {
    /// Each size with each number of flows. With [`Traffic::Both`], attacks come last, only with
    /// the smallest frames and the fewest flows.
    pub fn all(frames: &[u16], flows: &[u32], traffic: Traffic) -> Vec<Self> {
        let each = |attacks| {
            frames.iter().flat_map(move |&frame| {
                flows.iter().map(move |&flows| Self {
                    frame,
                    flows,
                    attacks,
                })
            })
        };
        match traffic {
            Traffic::Clean => each(false).collect(),
            Traffic::Attacks => each(true).collect(),
            Traffic::Both => {
                let hardest = each(true).min_by_key(|variant| (variant.frame, variant.flows));
                each(false).chain(hardest).collect()
            }
        }
    }

    /// Such as `64 B, 10000 flows, attacks`.
    fn label(self) -> String {
        let flows = match self.flows {
            1 => "1 flow".to_owned(),
            more => format!("{more} flows"),
        };
        let attacks = if self.attacks { ", attacks" } else { "" };
        format!("{} B, {flows}{attacks}", self.frame)
    }
}

/// The attacks in the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// None.
    Clean,
    /// A tenth of the VMs' frames in all variants.
    Attacks,
    /// None, and then one variant with attacks.
    Both,
}

/// The comparison with one peer on one kind of traffic.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// The peer.
    pub peer: Peer,
    /// The peer's wires.
    pub wires: Wires,
    /// The traffic.
    #[serde(flatten)]
    pub variant: Variant,
    /// Our median over the rounds, in millions of frames a second.
    pub ours_mpps: f64,
    /// The same of the peer.
    pub peer_mpps: f64,
    /// Our minimum and maximum.
    pub ours_mpps_spread: [f64; 2],
    /// The same of the peer.
    pub peer_mpps_spread: [f64; 2],
    /// The median over the rounds of our rate divided by the peer's.
    pub ratio: f64,
    /// The minimum and maximum of these ratios.
    pub ratio_spread: [f64; 2],
    /// Our median of the busy cycles per frame, if known.
    pub ours_cycles: Option<f64>,
    /// The same of the peer.
    pub peer_cycles: Option<f64>,
    /// The median over the rounds of the peer's cycles divided by ours; more is better for us.
    pub cycles_ratio: Option<f64>,
    /// The number of rounds.
    pub rounds: usize,
    /// Frames that our switch delivered with wrong content or at a wrong port, and attacks that it
    /// delivered.
    pub lost_wrong: u64,
    /// Frames that our switch lost.
    pub ours_lost: u64,
    /// The same of the peer.
    pub peer_lost: u64,
    /// Frames of our switch that overtook another of their flow.
    pub ours_reordered: u64,
    /// Wrong frames and attacks that the peer delivered, if it checks the same as ours.
    pub peer_wrong: Option<u64>,
}

/// One of the three scenarios.
#[derive(Debug, Clone)]
pub struct Throughput {
    /// The path of frames.
    pub topology: Topology,
    /// The peers.
    pub peers: Vec<Peer>,
    /// The kinds of traffic.
    pub variants: Vec<Variant>,
}

impl Throughput {
    /// Measures all pairs; `progress` gets each next step. The pairs go into `pairs`, even before
    /// an error.
    ///
    /// # Errors
    /// The first error of a switch or a load.
    pub fn run(
        &self,
        settings: &Settings,
        progress: &mut dyn FnMut(&str),
        pairs: &mut Vec<Pair>,
    ) -> anyhow::Result<()> {
        for &variant in &self.variants {
            let mut rounds: Vec<Rounds> = Vec::new();
            rounds.resize_with(self.peers.len(), Rounds::default);
            let mut done = Ok(());
            for round in 1..=settings.rounds {
                let (traffic, all) = (variant.label(), settings.rounds);
                let mut switch =
                    |name: &str| progress(&format!("{traffic}: round {round} of {all}: {name}"));
                match self.round(settings, variant, &mut switch) {
                    Ok(round) => {
                        for (rounds, (ours, theirs)) in rounds.iter_mut().zip(round) {
                            rounds.push(ours, theirs);
                        }
                    }
                    Err(error) => {
                        done = Err(error.context(traffic));
                        break;
                    }
                }
            }
            for (&peer, rounds) in self.peers.iter().zip(&rounds) {
                if rounds.len() > 0 {
                    pairs.push(compare(peer, variant, rounds));
                }
            }
            done?;
        }
        Ok(())
    }

    /// The number of switch starts.
    pub fn runs(&self, settings: &Settings) -> usize {
        let mut wires: Vec<Wires> = Vec::new();
        for peer in &self.peers {
            let ours = peer.switch().wires().ours();
            if !wires.contains(&ours) {
                wires.push(ours);
            }
        }
        self.variants.len() * settings.rounds as usize * (wires.len() + self.peers.len())
    }

    /// Runs our switch and each peer once. Ours runs once for all peers on the same wires.
    fn round(
        &self,
        settings: &Settings,
        variant: Variant,
        progress: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Vec<(Sample, Sample)>> {
        let mut ours: Vec<(Wires, Sample)> = Vec::new();
        let mut results = Vec::new();
        for peer in &self.peers {
            let theirs = peer.switch();
            let wires = theirs.wires().ours();
            let ours = match ours.iter().find(|(on, _)| *on == wires) {
                Some((_, sample)) => sample.clone(),
                None => {
                    let switch = Vswitch::beside(theirs.as_ref(), PollMode::Busy);
                    progress("ours");
                    let sample = self.once(settings, variant, &switch)?;
                    ours.push((wires, sample.clone()));
                    sample
                }
            };
            progress(&peer.to_string());
            let theirs_sample = self.once(settings, variant, theirs.as_ref())?;
            results.push((ours, theirs_sample));
        }
        Ok(results)
    }

    fn once(
        &self,
        settings: &Settings,
        variant: Variant,
        switch: &dyn Switch,
    ) -> anyhow::Result<Sample> {
        let tenants = vec![tenant(0, self.topology.size())];
        let site = Site::lay(switch.wires(), settings.cpus, tenants)?;
        let shape = settings.shape(variant.frame, variant.flows);
        let mut work = Work::most(&site, self.topology, shape);
        if variant.attacks && switch.checks() {
            work.attacks.push(Attack {
                path: 0,
                port: 0,
                every: GOOD_PER_ATTACK,
                frames: stages::attacks(),
            });
        }
        sample(settings, &site, switch, &work)
    }
}

fn compare(peer: Peer, variant: Variant, rounds: &Rounds) -> Pair {
    let theirs = peer.switch();
    let ratio = |ours: &Sample, theirs: &Sample| ours.mpps / theirs.mpps;
    let reordered = |ours: &Sample| ours.load.paths.iter().map(|path| path.reordered).sum();
    Pair {
        peer,
        wires: theirs.wires(),
        variant,
        ours_mpps: rounds.median(|ours, _| ours.mpps),
        peer_mpps: rounds.median(|_, theirs| theirs.mpps),
        ours_mpps_spread: rounds.spread(|ours, _| ours.mpps),
        peer_mpps_spread: rounds.spread(|_, theirs| theirs.mpps),
        ratio: rounds.median(ratio),
        ratio_spread: rounds.spread(ratio),
        ours_cycles: rounds.median_of(|ours, _| ours.cycles_per_frame),
        peer_cycles: rounds.median_of(|_, theirs| theirs.cycles_per_frame),
        cycles_ratio: rounds
            .median_of(|ours, theirs| Some(theirs.cycles_per_frame? / ours.cycles_per_frame?)),
        rounds: rounds.len(),
        lost_wrong: rounds.sum(|ours, _| ours.load.wrong()),
        ours_lost: rounds.sum(|ours, _| ours.load.lost()),
        peer_lost: rounds.sum(|_, theirs| theirs.load.lost()),
        ours_reordered: rounds.sum(|ours, _| reordered(ours)),
        peer_wrong: theirs
            .checks()
            .then(|| rounds.sum(|_, theirs| theirs.load.wrong())),
    }
}

impl Throughput {
    /// The outcome of these pairs.
    ///
    /// # Errors
    /// If a pair cannot be written as JSON.
    pub fn outcome(&self, pairs: &[Pair]) -> anyhow::Result<Outcome> {
        let table = Table::new(
            format!(
                "{}: frames received at the end, and the switch's busy cycles per frame and pass; \
                 medians of {} rounds",
                self.topology,
                pairs.iter().map(|pair| pair.rounds).max().unwrap_or(0)
            ),
            [
                "peer",
                "frame",
                "flows",
                "attacks",
                "ours Mpps",
                "peer Mpps",
                "ratio (spread)",
                "ours cycles",
                "peer cycles",
                "cycles ratio",
                "wrong",
                "lost",
                "peer lost",
            ],
        );
        let table = table.with(pairs.iter().map(row));
        Outcome::new(self.topology.to_string(), pairs, table, self.charts(pairs))
    }

    /// A group for each kind of traffic. Our switch has a bar for each kind of its wires.
    fn charts(&self, pairs: &[Pair]) -> Vec<Chart> {
        type Value = fn(&Pair) -> (Option<Bar>, Option<Bar>);
        let mpps: Value = |pair| {
            let bar = |value, [low, high]: [f64; 2]| Some(Bar { value, low, high });
            (
                bar(pair.ours_mpps, pair.ours_mpps_spread),
                bar(pair.peer_mpps, pair.peer_mpps_spread),
            )
        };
        let cycles: Value = |pair| {
            (
                pair.ours_cycles.map(Bar::exact),
                pair.peer_cycles.map(Bar::exact),
            )
        };
        [
            ("throughput, more is better", "Mpps", mpps),
            (
                "busy cycles per frame and pass, less is better",
                "cycles",
                cycles,
            ),
        ]
        .map(|(title, unit, value)| {
            let mut series: Vec<String> = Vec::new();
            let mut labels: Vec<String> = Vec::new();
            let mut bars: HashMap<(String, String), Bar> = HashMap::new();
            for pair in pairs {
                let label = pair.variant.label();
                let (ours, theirs) = value(pair);
                let ours = (format!("vswitch ({})", pair.wires.ours()), ours);
                for (name, bar) in [ours, (pair.peer.to_string(), theirs)] {
                    if !series.contains(&name) {
                        series.push(name.clone());
                    }
                    bars.extend(bar.map(|bar| ((label.clone(), name), bar)));
                }
                if !labels.contains(&label) {
                    labels.push(label);
                }
            }
            let of = |label: &String, name: &String| bars.get(&(label.clone(), name.clone()));
            let groups = labels.iter().map(|label| {
                let bars = series.iter().map(|name| of(label, name).copied());
                (label.clone(), bars.collect())
            });
            Chart {
                title: format!("{}: {title}", self.topology),
                unit: unit.to_owned(),
                groups: groups.collect(),
                series,
            }
        })
        .to_vec()
    }
}

fn row(pair: &Pair) -> Vec<String> {
    vec![
        pair.peer.to_string(),
        pair.variant.frame.to_string(),
        pair.variant.flows.to_string(),
        if pair.variant.attacks { "10 %" } else { "0" }.to_owned(),
        figure(pair.ours_mpps),
        figure(pair.peer_mpps),
        spread(pair.ratio, pair.ratio_spread),
        figure_or_none(pair.ours_cycles),
        figure_or_none(pair.peer_cycles),
        figure_or_none(pair.cycles_ratio),
        pair.lost_wrong.to_string(),
        pair.ours_lost.to_string(),
        pair.peer_lost.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(peer: Peer, wires: Wires, variant: Variant, ours_mpps: f64) -> Pair {
        Pair {
            peer,
            wires,
            variant,
            ours_mpps,
            peer_mpps: 4.0,
            ours_mpps_spread: [ours_mpps - 0.5, ours_mpps + 0.5],
            peer_mpps_spread: [3.5, 4.5],
            ratio: ours_mpps / 4.0,
            ratio_spread: [0.7, 0.9],
            ours_cycles: Some(120.0),
            peer_cycles: None,
            cycles_ratio: None,
            rounds: 3,
            lost_wrong: 0,
            ours_lost: 7,
            peer_lost: 8,
            ours_reordered: 0,
            peer_wrong: None,
        }
    }

    const CLEAN: Variant = Variant {
        frame: 64,
        flows: 1,
        attacks: false,
    };
    const ATTACKED: Variant = Variant {
        attacks: true,
        ..CLEAN
    };

    #[test]
    fn variants_combine_all_sizes_and_flows() {
        let labels = |frames: &[u16], flows: &[u32], traffic| -> Vec<String> {
            let variants = Variant::all(frames, flows, traffic);
            variants.into_iter().map(Variant::label).collect()
        };
        assert_eq!(
            labels(&[512, 64], &[1, 10_000], Traffic::Both),
            [
                "512 B, 1 flow",
                "512 B, 10000 flows",
                "64 B, 1 flow",
                "64 B, 10000 flows",
                "64 B, 1 flow, attacks"
            ]
        );
        assert_eq!(labels(&[64], &[1], Traffic::Clean), ["64 B, 1 flow"]);
        assert_eq!(
            labels(&[64], &[1], Traffic::Attacks),
            ["64 B, 1 flow, attacks"]
        );
    }

    #[test]
    fn pairs_become_rows_and_bars() {
        let throughput = Throughput {
            topology: Topology::P2p,
            peers: vec![Peer::Testpmd, Peer::TestpmdMacswap],
            variants: vec![CLEAN, ATTACKED],
        };
        let pairs = [
            pair(Peer::Testpmd, Wires::Memif, CLEAN, 3.0),
            pair(Peer::TestpmdMacswap, Wires::Veth, CLEAN, 2.0),
            pair(Peer::Testpmd, Wires::Memif, ATTACKED, 2.5),
        ];
        let outcome = throughput.outcome(&pairs).expect("it is JSON");
        assert_eq!(
            outcome.tables[0].rows[2],
            [
                "testpmd",
                "64",
                "1",
                "10 %",
                "2.50",
                "4.00",
                "0.62 (0.70–0.90)",
                "120",
                "–",
                "–",
                "0",
                "7",
                "8"
            ]
        );
        let members: Vec<_> = outcome.pairs[0]
            .as_object()
            .expect("an object")
            .keys()
            .collect();
        assert_eq!(
            members,
            [
                "peer",
                "wires",
                "frame",
                "flows",
                "attacks",
                "ours_mpps",
                "peer_mpps",
                "ours_mpps_spread",
                "peer_mpps_spread",
                "ratio",
                "ratio_spread",
                "ours_cycles",
                "peer_cycles",
                "cycles_ratio",
                "rounds",
                "lost_wrong",
                "ours_lost",
                "peer_lost",
                "ours_reordered",
                "peer_wrong",
            ]
        );
        let chart = &outcome.charts[0];
        assert_eq!(
            chart.series,
            [
                "vswitch (memif)",
                "testpmd",
                "vswitch (veth)",
                "testpmd-macswap"
            ]
        );
        let bar = |value| {
            Some(Bar {
                value,
                low: value - 0.5,
                high: value + 0.5,
            })
        };
        assert_eq!(
            chart.groups,
            [
                (
                    "64 B, 1 flow".to_owned(),
                    vec![bar(3.0), bar(4.0), bar(2.0), bar(4.0)]
                ),
                (
                    "64 B, 1 flow, attacks".to_owned(),
                    vec![bar(2.5), bar(4.0), None, None]
                ),
            ]
        );
    }
}
