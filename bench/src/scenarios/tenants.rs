//! `tenants`: several tenants on one CPU, each with a switch of its own, beside one peer that
//! serves all of them.
//!
//! Linux is such a peer too: one kernel with a bridge and rules for each tenant. Its wires are
//! veth, and so are ours beside it. The kernel has one queue for all frames that arrive on a CPU,
//! so the tenants share the number of frames in flight there.

use serde::Serialize;

use super::rounds::Rounds;
use super::{FLOWS, FRAME, Sample, Settings, Task, Work, sample};
use crate::network::{Topology, tenants};
use crate::report::{Chart, Outcome, Table, figure, spread};
use crate::site::Site;
use crate::switches::{Peer, PollMode, Switch, Vswitch};

/// The numbers of tenants.
const TENANTS: [u8; 5] = [1, 2, 4, 8, 16];

/// The comparison with one peer for one number of tenants.
#[derive(Debug, Clone, Serialize)]
struct Pair {
    peer: Peer,
    /// Our switch's poll mode.
    poll: PollMode,
    tenants: u8,
    frame: u16,
    flows: u32,
    /// The sum of all tenants.
    ours_mpps: f64,
    peer_mpps: f64,
    ratio: f64,
    ratio_spread: [f64; 2],
    /// The sum divided by the throughput of a single tenant.
    ours_of_one: f64,
    peer_of_one: f64,
    /// The slowest tenant's throughput divided by an equal share.
    ours_least: f64,
    peer_least: f64,
    rounds: u32,
    lost_wrong: u64,
    ours_lost: u64,
    peer_lost: u64,
}

/// Measures our switch beside each peer.
///
/// # Errors
/// The first error of a switch or a load.
pub fn run(Task(settings, peers, progress): Task<'_>) -> anyhow::Result<Outcome> {
    let mut pairs: Vec<Pair> = Vec::new();
    for &peer in peers {
        let theirs = peer.switch();
        let ours = Vswitch::beside(theirs.as_ref(), settings.poll);
        let mut of_one = None;
        for tenants in TENANTS {
            let mut rounds = Rounds::default();
            for round in 1..=settings.rounds {
                progress(&format!(
                    "{tenants} tenants, {peer}: round {round} of {}",
                    settings.rounds
                ));
                let ours = once(settings, &ours, tenants)?;
                rounds.push(ours, once(settings, theirs.as_ref(), tenants)?);
            }
            let ours_mpps = rounds.median(|ours, _| ours.mpps);
            let peer_mpps = rounds.median(|_, theirs| theirs.mpps);
            let (ours_one, peer_one) = *of_one.get_or_insert((ours_mpps, peer_mpps));
            let ratio = |ours: &Sample, theirs: &Sample| ours.mpps / theirs.mpps;
            pairs.push(Pair {
                peer,
                poll: settings.poll,
                tenants,
                frame: FRAME,
                flows: FLOWS,
                ours_mpps,
                peer_mpps,
                ratio: rounds.median(ratio),
                ratio_spread: rounds.spread(ratio),
                ours_of_one: ours_mpps / ours_one,
                peer_of_one: peer_mpps / peer_one,
                ours_least: rounds.median(|ours, _| least(ours)),
                peer_least: rounds.median(|_, theirs| least(theirs)),
                rounds: settings.rounds,
                lost_wrong: rounds.sum(|ours, _| ours.load.wrong()),
                ours_lost: rounds.sum(|ours, _| ours.load.lost()),
                peer_lost: rounds.sum(|_, theirs| theirs.load.lost()),
            });
        }
    }
    outcome(&pairs)
}

/// The slowest tenant's throughput divided by an equal share.
fn least(sample: &Sample) -> f64 {
    let measured = || sample.load.paths.iter().map(|path| path.measured as f64);
    let mean = measured().sum::<f64>() / sample.load.paths.len() as f64;
    measured().fold(f64::INFINITY, f64::min) / mean
}

fn once(settings: &Settings, switch: &dyn Switch, count: u8) -> anyhow::Result<Sample> {
    let topology = Topology::P2p;
    let tenants = tenants(count, topology.size());
    let site = Site::lay(switch.wires(), settings.cpus, tenants)?;
    let work = Work::most(&site, topology, settings.plain());
    sample(settings, &site, switch, &work)
}

fn outcome(pairs: &[Pair]) -> anyhow::Result<Outcome> {
    let row = |pair: &Pair| {
        vec![
            pair.tenants.to_string(),
            pair.peer.to_string(),
            figure(pair.ours_mpps),
            figure(pair.peer_mpps),
            spread(pair.ratio, pair.ratio_spread),
            figure(pair.ours_of_one),
            figure(pair.peer_of_one),
            figure(pair.ours_least),
            figure(pair.peer_least),
            pair.lost_wrong.to_string(),
            pair.ours_lost.to_string(),
            pair.peer_lost.to_string(),
        ]
    };
    let table = Table::new(
        "Tenants on one CPU: a switch of ours for each, one peer for all",
        [
            "tenants",
            "peer",
            "ours Mpps",
            "peer Mpps",
            "ratio (spread)",
            "ours of one",
            "peer of one",
            "ours least",
            "peer least",
            "wrong",
            "lost",
            "peer lost",
        ],
    );
    // A chart for each peer, because rates differ tenfold between wires.
    let of_peer = |pairs: &[Pair]| {
        Chart::beside(
            format!(
                "All tenants together, ours and {}, more is better",
                pairs[0].peer
            ),
            "Mpps",
            pairs.iter().map(|pair| {
                let label = match pair.tenants {
                    1 => "1 tenant".to_owned(),
                    more => format!("{more} tenants"),
                };
                (label, [pair.ours_mpps, pair.peer_mpps])
            }),
        )
    };
    let charts = pairs
        .chunk_by(|one, next| one.peer == next.peer)
        .map(of_peer)
        .collect();
    Outcome::new("tenants", pairs, table.with(pairs.iter().map(row)), charts)
}
