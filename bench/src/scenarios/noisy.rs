//! `noisy`: what a tenant notices of its neighbour on the same CPU, which floods broadcasts and attacks.

use serde::Serialize;

use super::{Sample, Settings, Work, median, sample};
use crate::load::{Flood, Pace, Shape};
use crate::network::{Size, Topology, tenant};
use crate::report::{Bar, Chart, Outcome, Table};
use crate::site::Site;
use crate::stages;
use crate::switches::{Peer, PollMode, Switch, Vswitch};

/// What the victim sends.
const VICTIM_PER_SECOND: u64 = 100_000;
/// What the neighbour sends, in frames a second.
const FLOOD_PER_SECOND: u64 = 1_000_000;
const FRAME: u16 = 64;

/// The victim's loss and latency, alone and beside the flood.
#[derive(Debug, Clone, Serialize)]
struct Pair {
    peer: Peer,
    victim_per_second: u64,
    flood_per_second: u64,
    ours_lost_share: f64,
    peer_lost_share: f64,
    ours_p99_us_alone: f64,
    peer_p99_us_alone: f64,
    ours_p99_us: f64,
    peer_p99_us: f64,
    ours_median_us: f64,
    peer_median_us: f64,
    /// Of the flood: what came out of ours and should not, and what the peer let out.
    lost_wrong: u64,
    peer_wrong: u64,
    rounds: u32,
}

/// Measures ours, as it is delivered, beside each peer.
///
/// # Errors
/// The first that a switch or a load has.
pub fn run(
    settings: &Settings,
    peers: &[Peer],
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Outcome> {
    let mut pairs = Vec::new();
    for &peer in peers {
        let theirs = peer.switch();
        let ours = Vswitch {
            wires: theirs.wires().ours(),
            poll: PollMode::Adaptive,
        };
        let mut rounds = Vec::new();
        for round in 1..=settings.rounds {
            progress(&format!("{peer}: round {round} of {}", settings.rounds));
            let both = |flood| {
                Ok::<_, anyhow::Error>((
                    once(settings, &ours, flood)?,
                    once(settings, theirs.as_ref(), flood)?,
                ))
            };
            rounds.push((both(false)?, both(true)?));
        }
        let middle = |value: &dyn Fn(&(Sample, Sample)) -> Option<f64>, flooded: bool| {
            let of = rounds
                .iter()
                .map(|(alone, beside)| if flooded { beside } else { alone });
            median(of.filter_map(value)).unwrap_or(f64::NAN)
        };
        let p99 = |sample: &Sample| Some(sample.load.paths[0].latency?.p99_ns as f64 / 1e3);
        let half = |sample: &Sample| Some(sample.load.paths[0].latency?.median_ns as f64 / 1e3);
        let lost = |sample: &Sample| {
            let path = &sample.load.paths[0];
            Some(path.lost as f64 / path.sent.max(1) as f64)
        };
        pairs.push(Pair {
            peer,
            victim_per_second: VICTIM_PER_SECOND,
            flood_per_second: FLOOD_PER_SECOND,
            ours_lost_share: middle(&|(ours, _)| lost(ours), true),
            peer_lost_share: middle(&|(_, theirs)| lost(theirs), true),
            ours_p99_us_alone: middle(&|(ours, _)| p99(ours), false),
            peer_p99_us_alone: middle(&|(_, theirs)| p99(theirs), false),
            ours_p99_us: middle(&|(ours, _)| p99(ours), true),
            peer_p99_us: middle(&|(_, theirs)| p99(theirs), true),
            ours_median_us: middle(&|(ours, _)| half(ours), true),
            peer_median_us: middle(&|(_, theirs)| half(theirs), true),
            lost_wrong: rounds.iter().map(|(_, (ours, _))| ours.load.wrong()).sum(),
            peer_wrong: rounds
                .iter()
                .map(|(_, (_, theirs))| theirs.load.wrong())
                .sum(),
            rounds: settings.rounds,
        });
    }
    outcome(&pairs)
}

/// The first tenant is the victim; the second, which has no traffic of its own, floods.
fn once(settings: &Settings, switch: &dyn Switch, flood: bool) -> anyhow::Result<Sample> {
    let topology = Topology::P2p;
    let size = Size {
        ports: topology.vms(),
        addresses: 1,
    };
    let tenants = vec![tenant(0, size), tenant(1, size)];
    let site = Site::lay(switch.wires(), settings.cpus, tenants)?;
    let mut paths = site.paths(topology);
    let neighbour = paths.remove(1);
    let work = Work {
        paths,
        shape: Shape {
            bytes: FRAME,
            flows: 1,
            seed: settings.seed,
        },
        pace: Pace::Open {
            per_second: VICTIM_PER_SECOND,
        },
        attacks: Vec::new(),
        floods: if flood {
            vec![Flood {
                port: neighbour[0].from,
                per_second: FLOOD_PER_SECOND,
                frames: stages::flood(),
            }]
        } else {
            Vec::new()
        },
    };
    sample(settings, &site, switch, &work)
}

fn outcome(pairs: &[Pair]) -> anyhow::Result<Outcome> {
    let columns = [
        "peer",
        "lost ours",
        "lost peer",
        "median ours",
        "median peer",
        "p99 ours",
        "p99 peer",
        "p99 ours alone",
        "p99 peer alone",
    ];
    let row = |pair: &Pair| {
        vec![
            pair.peer.to_string(),
            format!("{:.3} %", pair.ours_lost_share * 100.0),
            format!("{:.3} %", pair.peer_lost_share * 100.0),
            format!("{:.1}", pair.ours_median_us),
            format!("{:.1}", pair.peer_median_us),
            format!("{:.1}", pair.ours_p99_us),
            format!("{:.1}", pair.peer_p99_us),
            format!("{:.1}", pair.ours_p99_us_alone),
            format!("{:.1}", pair.peer_p99_us_alone),
        ]
    };
    let bar = |value| Some(Bar::exact(value));
    Ok(Outcome {
        scenario: "noisy".to_owned(),
        pairs: pairs
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<_, _>>()?,
        tables: vec![Table {
            title: format!(
                "The victim's loss and microseconds under way, at {VICTIM_PER_SECOND} frames a second, beside a flood of {FLOOD_PER_SECOND}"
            ),
            columns: columns.map(str::to_owned).to_vec(),
            rows: pairs.iter().map(row).collect(),
        }],
        charts: vec![Chart {
            title: "99 of 100 of the victim's frames take at most".to_owned(),
            unit: "µs".to_owned(),
            series: vec!["ours".to_owned(), "peer".to_owned()],
            groups: pairs
                .iter()
                .map(|pair| {
                    (
                        pair.peer.to_string(),
                        vec![bar(pair.ours_p99_us), bar(pair.peer_p99_us)],
                    )
                })
                .collect(),
        }],
        rules: Vec::new(),
    })
}
