//! `latency`: the latency of frames through a switch at a tenth of its peer's capacity.

use serde::Serialize;

use super::rounds::Rounds;
use super::{FLOWS, FRAME, Sample, Settings, Task, Work, sample};
use crate::load::Pace;
use crate::network::{Topology, tenant};
use crate::report::{Chart, Outcome, Table};
use crate::site::Site;
use crate::switches::{Peer, PollMode, Switch, Vswitch};

/// The load on both, as a share of the peer's capacity.
const PART: f64 = 0.1;

/// The comparison with one peer on one path.
#[derive(Debug, Clone, Serialize)]
struct Pair {
    peer: Peer,
    /// Our switch's poll mode.
    poll: PollMode,
    topology: Topology,
    frame: u16,
    flows: u32,
    /// Frames a second through each of both.
    per_second: u64,
    ours_median_us: f64,
    peer_median_us: f64,
    ours_p99_us: f64,
    peer_p99_us: f64,
    /// Our value divided by the peer's; less is better for us.
    ratio_median: f64,
    ratio_p99: f64,
    ours_lost: u64,
    peer_lost: u64,
    rounds: u32,
    lost_wrong: u64,
}

/// Measures our switch beside each peer.
///
/// # Errors
/// The first error of a switch or a load.
pub fn run(Task(settings, peers, progress): Task<'_>) -> anyhow::Result<Outcome> {
    let mut pairs = Vec::new();
    for topology in [Topology::P2p, Topology::P2v] {
        for &peer in peers {
            pairs.push(pair(settings, topology, peer, progress)?);
        }
    }
    outcome(&pairs)
}

fn pair(
    settings: &Settings,
    topology: Topology,
    peer: Peer,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Pair> {
    let theirs = peer.switch();
    let ours = Vswitch::beside(theirs.as_ref(), settings.poll);
    let once = |switch: &dyn Switch, per_second: Option<u64>| {
        let tenants = vec![tenant(0, topology.size())];
        let site = Site::lay(switch.wires(), settings.cpus, tenants)?;
        let shape = settings.plain();
        let work = match per_second {
            None => Work::most(&site, topology, shape),
            Some(per_second) => Work::good(site.paths(topology), shape, Pace::Open { per_second }),
        };
        sample(settings, &site, switch, &work)
    };
    progress(&format!("{topology}: the capacity of {peer}"));
    let most = once(theirs.as_ref(), None)?;
    let per_second = ((most.mpps * 1e6 * PART) as u64).max(1);
    let mut rounds = Rounds::default();
    for round in 1..=settings.rounds {
        progress(&format!(
            "{topology}, {per_second} frames a second, {peer}: round {round} of {}",
            settings.rounds
        ));
        let ours = once(&ours, Some(per_second))?;
        rounds.push(ours, once(theirs.as_ref(), Some(per_second))?);
    }
    let middle = |value: &dyn Fn(&Sample, &Sample) -> Option<f64>| {
        rounds.median_of(value).unwrap_or(f64::NAN)
    };
    Ok(Pair {
        peer,
        poll: settings.poll,
        topology,
        frame: FRAME,
        flows: FLOWS,
        per_second,
        ours_median_us: middle(&|ours, _| Some(ours.latency()?.median_us())),
        peer_median_us: middle(&|_, theirs| Some(theirs.latency()?.median_us())),
        ours_p99_us: middle(&|ours, _| Some(ours.latency()?.p99_us())),
        peer_p99_us: middle(&|_, theirs| Some(theirs.latency()?.p99_us())),
        ratio_median: middle(&|ours, theirs| {
            Some(ours.latency()?.median_us() / theirs.latency()?.median_us())
        }),
        ratio_p99: middle(&|ours, theirs| {
            Some(ours.latency()?.p99_us() / theirs.latency()?.p99_us())
        }),
        ours_lost: rounds.sum(|ours, _| ours.load.lost()),
        peer_lost: rounds.sum(|_, theirs| theirs.load.lost()),
        rounds: settings.rounds,
        lost_wrong: rounds.sum(|ours, _| ours.load.wrong()),
    })
}

fn outcome(pairs: &[Pair]) -> anyhow::Result<Outcome> {
    let row = |pair: &Pair| {
        vec![
            pair.topology.to_string(),
            pair.peer.to_string(),
            pair.per_second.to_string(),
            format!("{:.1}", pair.ours_median_us),
            format!("{:.1}", pair.peer_median_us),
            format!("{:.1}", pair.ours_p99_us),
            format!("{:.1}", pair.peer_p99_us),
            format!("{:.2}", pair.ratio_p99),
            format!("{}/{}", pair.ours_lost, pair.peer_lost),
        ]
    };
    let table = Table::new(
        "Latency in microseconds, at a tenth of the peer's capacity",
        [
            "path",
            "peer",
            "frames/s",
            "ours median",
            "peer median",
            "ours p99",
            "peer p99",
            "p99 ratio",
            "lost ours/peer",
        ],
    );
    let chart = Chart::beside(
        "99th percentile of the latency, less is better",
        "µs",
        pairs.iter().map(|pair| {
            (
                format!("{} {}", pair.topology, pair.peer),
                [pair.ours_p99_us, pair.peer_p99_us],
            )
        }),
    );
    Outcome::new(
        "latency",
        pairs,
        table.with(pairs.iter().map(row)),
        vec![chart],
    )
}
