//! `p2p`, `p2v` and `v2v`: how many frames a switch carries, and what each costs it.

use serde::Serialize;

use super::{Sample, Settings, Work, median, sample};
use crate::load::{Attack, Pace, Shape};
use crate::network::{Size, Topology, tenant};
use crate::site::{Site, Wires};
use crate::stages;
use crate::switches::{Peer, PollMode, Switch, Vswitch};

/// Frames under way on each path.
const IN_FLIGHT: u32 = 512;
/// One attack for so many good frames: a tenth of all.
const GOOD_PER_ATTACK: u32 = 9;

/// One kind of traffic.
#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq)]
pub struct Variant {
    /// Bytes of a frame, with its check sequence.
    pub frame: u16,
    /// Flows.
    pub flows: u32,
    /// Whether a tenth of what VMs send is attacks.
    pub attacks: bool,
}

/// The comparison of our switch with one peer, on one kind of traffic.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// The peer.
    pub peer: Peer,
    /// The wires that both were measured on.
    pub wires: Wires,
    /// The traffic.
    #[serde(flatten)]
    pub variant: Variant,
    /// Medians over the rounds, in millions of frames a second.
    pub ours_mpps: f64,
    /// The same of the peer.
    pub peer_mpps: f64,
    /// The median of each round's ours by its peer.
    pub ratio: f64,
    /// The least and the most of them.
    pub ratio_spread: [f64; 2],
    /// Medians of the busy cycles per frame, where the switch tells.
    pub ours_cycles: Option<f64>,
    /// The same of the peer.
    pub peer_cycles: Option<f64>,
    /// The median of each round's peer's cycles by ours: more is better for us.
    pub cycles_ratio: Option<f64>,
    /// Rounds.
    pub rounds: usize,
    /// Frames of ours that came out with wrong content or at a wrong port, and attacks that came out.
    pub lost_wrong: u64,
    /// Frames of ours that did not come out.
    pub ours_lost: u64,
    /// The same of the peer.
    pub peer_lost: u64,
    /// Frames of ours that overtook another of their flow.
    pub ours_reordered: u64,
    /// What the peer let through that it should not; only of one that checks.
    pub peer_wrong: Option<u64>,
}

/// One of the three scenarios.
#[derive(Debug, Clone)]
pub struct Throughput {
    /// Where frames go.
    pub topology: Topology,
    /// Whom we are measured against.
    pub peers: Vec<Peer>,
    /// The kinds of traffic.
    pub variants: Vec<Variant>,
}

impl Throughput {
    /// Every kind of traffic.
    pub const ALL: [Variant; 7] = [
        variant(64, 1, false),
        variant(64, 10_000, false),
        variant(512, 1, false),
        variant(512, 10_000, false),
        variant(1500, 1, false),
        variant(1500, 10_000, false),
        variant(64, 1, true),
    ];

    /// Measures all pairs; `progress` is told what is done next.
    ///
    /// # Errors
    /// The first that a switch or a load has.
    pub fn run(
        &self,
        settings: &Settings,
        mut progress: impl FnMut(&str),
    ) -> anyhow::Result<Vec<Pair>> {
        let mut pairs = Vec::new();
        for &variant in &self.variants {
            let mut rounds = Vec::new();
            for round in 1..=settings.rounds {
                progress(&format!(
                    "{} bytes, {} flows{}: round {round} of {}",
                    variant.frame,
                    variant.flows,
                    if variant.attacks { ", attacks" } else { "" },
                    settings.rounds
                ));
                rounds.push(self.round(settings, variant)?);
            }
            for (index, &peer) in self.peers.iter().enumerate() {
                pairs.push(compare(
                    peer,
                    variant,
                    rounds.iter().map(|round| &round[index]),
                ));
            }
        }
        Ok(pairs)
    }

    /// Ours and each peer once. Ours runs once for all peers on the same wires.
    fn round(
        &self,
        settings: &Settings,
        variant: Variant,
    ) -> anyhow::Result<Vec<(Wires, Sample, Sample)>> {
        let mut ours: Vec<(Wires, Sample)> = Vec::new();
        let mut results = Vec::new();
        for peer in &self.peers {
            let theirs = peer.switch();
            let wires = theirs.wires().ours();
            let ours = match ours.iter().find(|(on, _)| *on == wires) {
                Some((_, sample)) => sample.clone(),
                None => {
                    let switch = Vswitch {
                        wires,
                        poll: PollMode::Busy,
                    };
                    let sample = self.once(settings, variant, &switch)?;
                    ours.push((wires, sample.clone()));
                    sample
                }
            };
            let theirs_sample = self.once(settings, variant, theirs.as_ref())?;
            results.push((theirs.wires(), ours, theirs_sample));
        }
        Ok(results)
    }

    fn once(
        &self,
        settings: &Settings,
        variant: Variant,
        switch: &dyn Switch,
    ) -> anyhow::Result<Sample> {
        let size = Size {
            ports: self.topology.vms(),
            addresses: 1,
        };
        let site = Site::lay(switch.wires(), settings.cpus, vec![tenant(0, size)])?;
        let attacks = variant.attacks && switch.checks();
        let work = Work {
            paths: site.paths(self.topology),
            shape: Shape {
                bytes: variant.frame,
                flows: variant.flows,
                seed: settings.seed,
            },
            pace: Pace::Closed {
                in_flight: IN_FLIGHT,
            },
            attacks: if attacks {
                vec![Attack {
                    path: 0,
                    port: 0,
                    every: GOOD_PER_ATTACK,
                    frames: stages::attacks(),
                }]
            } else {
                Vec::new()
            },
            floods: Vec::new(),
        };
        sample(settings, &site, switch, &work)
    }
}

const fn variant(frame: u16, flows: u32, attacks: bool) -> Variant {
    Variant {
        frame,
        flows,
        attacks,
    }
}

fn compare<'a>(
    peer: Peer,
    variant: Variant,
    rounds: impl Iterator<Item = &'a (Wires, Sample, Sample)>,
) -> Pair {
    let rounds: Vec<_> = rounds.collect();
    let of = |value: &dyn Fn(&Sample, &Sample) -> f64| {
        median(rounds.iter().map(|(_, ours, theirs)| value(ours, theirs))).unwrap_or(f64::NAN)
    };
    let cycles = |value: &dyn Fn(&Sample, &Sample) -> Option<f64>| {
        median(
            rounds
                .iter()
                .filter_map(|(_, ours, theirs)| value(ours, theirs)),
        )
    };
    let sum = |value: &dyn Fn(&Sample, &Sample) -> u64| {
        rounds
            .iter()
            .map(|(_, ours, theirs)| value(ours, theirs))
            .sum()
    };
    let ratios = || {
        rounds
            .iter()
            .map(|(_, ours, theirs)| ours.mpps / theirs.mpps)
    };
    Pair {
        peer,
        wires: rounds[0].0,
        variant,
        ours_mpps: of(&|ours, _| ours.mpps),
        peer_mpps: of(&|_, theirs| theirs.mpps),
        ratio: of(&|ours, theirs| ours.mpps / theirs.mpps),
        ratio_spread: [
            ratios().fold(f64::INFINITY, f64::min),
            ratios().fold(f64::NEG_INFINITY, f64::max),
        ],
        ours_cycles: cycles(&|ours, _| ours.cycles_per_frame),
        peer_cycles: cycles(&|_, theirs| theirs.cycles_per_frame),
        cycles_ratio: cycles(&|ours, theirs| {
            Some(theirs.cycles_per_frame? / ours.cycles_per_frame?)
        }),
        rounds: rounds.len(),
        lost_wrong: sum(&|ours, _| ours.load.wrong()),
        ours_lost: sum(&|ours, _| ours.load.lost()),
        peer_lost: sum(&|_, theirs| theirs.load.lost()),
        ours_reordered: sum(&|ours, _| ours.load.paths.iter().map(|path| path.reordered).sum()),
        peer_wrong: peer
            .switch()
            .checks()
            .then(|| sum(&|_, theirs| theirs.load.wrong())),
    }
}
