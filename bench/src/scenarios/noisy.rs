//! `noisy`: the effect of a tenant that floods broadcasts and attacks on its neighbour on the same
//! CPU.

use serde::Serialize;

use super::rounds::Rounds;
use super::{Sample, Settings, Task, Work, sample};
use crate::load::{Flood, Pace};
use crate::network::{Topology, tenants};
use crate::report::{Chart, Outcome, Table};
use crate::site::Site;
use crate::stages;
use crate::switches::{Peer, PollMode, Switch, Vswitch};

/// The victim's frames a second.
const VICTIM_PER_SECOND: u64 = 100_000;
/// The flooding neighbour's frames a second.
const FLOOD_PER_SECOND: u64 = 1_000_000;

/// The victim's loss and latency, alone and beside the flood.
#[derive(Debug, Clone, Serialize)]
struct Pair {
    peer: Peer,
    /// Our switch's poll mode.
    poll: PollMode,
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
    /// Frames of the flood that our switch, and the peer, delivered wrongly.
    lost_wrong: u64,
    peer_wrong: u64,
    rounds: u32,
}

/// Measures our switch beside each peer.
///
/// # Errors
/// The first error of a switch or a load.
pub fn run(Task(settings, peers, progress): Task<'_>) -> anyhow::Result<Outcome> {
    let mut pairs = Vec::new();
    for &peer in peers {
        let theirs = peer.switch();
        let ours = Vswitch::beside(theirs.as_ref(), settings.poll);
        let (mut alone, mut flooded) = (Rounds::default(), Rounds::default());
        for round in 1..=settings.rounds {
            progress(&format!("{peer}: round {round} of {}", settings.rounds));
            for (rounds, flood) in [(&mut alone, false), (&mut flooded, true)] {
                let ours = once(settings, &ours, flood)?;
                rounds.push(ours, once(settings, theirs.as_ref(), flood)?);
            }
        }
        let middle = |rounds: &Rounds, value: &dyn Fn(&Sample, &Sample) -> Option<f64>| {
            rounds.median_of(value).unwrap_or(f64::NAN)
        };
        let p99 = |sample: &Sample| Some(sample.latency()?.p99_us());
        let half = |sample: &Sample| Some(sample.latency()?.median_us());
        let lost = |sample: &Sample| {
            let path = &sample.load.paths[0];
            path.lost as f64 / path.sent.max(1) as f64
        };
        pairs.push(Pair {
            peer,
            poll: settings.poll,
            victim_per_second: VICTIM_PER_SECOND,
            flood_per_second: FLOOD_PER_SECOND,
            ours_lost_share: flooded.median(|ours, _| lost(ours)),
            peer_lost_share: flooded.median(|_, theirs| lost(theirs)),
            ours_p99_us_alone: middle(&alone, &|ours, _| p99(ours)),
            peer_p99_us_alone: middle(&alone, &|_, theirs| p99(theirs)),
            ours_p99_us: middle(&flooded, &|ours, _| p99(ours)),
            peer_p99_us: middle(&flooded, &|_, theirs| p99(theirs)),
            ours_median_us: middle(&flooded, &|ours, _| half(ours)),
            peer_median_us: middle(&flooded, &|_, theirs| half(theirs)),
            lost_wrong: flooded.sum(|ours, _| ours.load.wrong()),
            peer_wrong: flooded.sum(|_, theirs| theirs.load.wrong()),
            rounds: settings.rounds,
        });
    }
    outcome(&pairs)
}

/// One run: the first tenant is the victim; the second only floods.
fn once(settings: &Settings, switch: &dyn Switch, flood: bool) -> anyhow::Result<Sample> {
    let topology = Topology::P2p;
    let tenants = tenants(2, topology.size());
    let site = Site::lay(switch.wires(), settings.cpus, tenants)?;
    let mut paths = site.paths(topology);
    let neighbour = paths.remove(1);
    let pace = Pace::Open {
        per_second: VICTIM_PER_SECOND,
    };
    let mut work = Work::good(paths, settings.plain(), pace);
    if flood {
        work.floods.push(Flood {
            port: neighbour[0].from,
            per_second: FLOOD_PER_SECOND,
            frames: stages::flood(),
        });
    }
    sample(settings, &site, switch, &work)
}

fn outcome(pairs: &[Pair]) -> anyhow::Result<Outcome> {
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
    let table = Table::new(
        format!(
            "The victim's loss and latency in microseconds, at {VICTIM_PER_SECOND} frames a \
             second, beside a flood of {FLOOD_PER_SECOND}"
        ),
        [
            "peer",
            "lost ours",
            "lost peer",
            "median ours",
            "median peer",
            "p99 ours",
            "p99 peer",
            "p99 ours alone",
            "p99 peer alone",
        ],
    );
    let chart = Chart::beside(
        "99th percentile of the victim's latency beside a flood, less is better",
        "µs",
        pairs
            .iter()
            .map(|pair| (pair.peer.to_string(), [pair.ours_p99_us, pair.peer_p99_us])),
    );
    Outcome::new(
        "noisy",
        pairs,
        table.with(pairs.iter().map(row)),
        vec![chart],
    )
}
