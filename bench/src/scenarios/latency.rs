//! `latency`: how long frames are under way through a switch that has a tenth of the work that its peer could do.

use serde::Serialize;

use super::{IN_FLIGHT, Settings, Work, median, sample};
use crate::load::{Latency, Pace, Shape};
use crate::network::{Size, Topology, tenant};
use crate::report::{Bar, Chart, Outcome, Table};
use crate::site::Site;
use crate::switches::{Peer, PollMode, Switch, Vswitch};

/// The part of the peer's capacity that both are then given.
const PART: f64 = 0.1;
const FRAME: u16 = 64;
const FLOWS: u32 = 1;

/// The comparison with one peer, on one way.
#[derive(Debug, Clone, Serialize)]
struct Pair {
    peer: Peer,
    topology: Topology,
    frame: u16,
    flows: u32,
    /// Frames a second that both were given.
    per_second: u64,
    ours_median_us: f64,
    peer_median_us: f64,
    ours_p99_us: f64,
    peer_p99_us: f64,
    /// Ours by the peer's: less is better for us.
    ratio_median: f64,
    ratio_p99: f64,
    ours_lost: u64,
    peer_lost: u64,
    rounds: u32,
    lost_wrong: u64,
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
    let ours = Vswitch {
        wires: theirs.wires().ours(),
        poll: PollMode::Adaptive,
    };
    let size = Size {
        ports: topology.vms(),
        addresses: 1,
    };
    let once = |switch: &dyn Switch, pace| {
        let site = Site::lay(switch.wires(), settings.cpus, vec![tenant(0, size)])?;
        let work = Work {
            paths: site.paths(topology),
            shape: Shape {
                bytes: FRAME,
                flows: FLOWS,
                seed: settings.seed,
            },
            pace,
            attacks: Vec::new(),
            floods: Vec::new(),
        };
        sample(settings, &site, switch, &work)
    };
    progress(&format!("{topology}: what {peer} can carry"));
    let most = once(
        theirs.as_ref(),
        Pace::Closed {
            in_flight: IN_FLIGHT,
        },
    )?;
    let per_second = ((most.mpps * 1e6 * PART) as u64).max(1);
    let mut timed = Vec::new();
    for round in 1..=settings.rounds {
        progress(&format!(
            "{topology}, {per_second} frames a second, {peer}: round {round} of {}",
            settings.rounds
        ));
        let pace = Pace::Open { per_second };
        timed.push((once(&ours, pace)?, once(theirs.as_ref(), pace)?));
    }
    let latency = |sample: &super::Sample| -> Option<Latency> { sample.load.paths[0].latency };
    let middle = |value: &dyn Fn(&(super::Sample, super::Sample)) -> Option<f64>| {
        median(timed.iter().filter_map(value)).unwrap_or(f64::NAN)
    };
    let micros = |nanos: u64| nanos as f64 / 1e3;
    let [ours_median_us, peer_median_us, ours_p99_us, peer_p99_us] = [
        middle(&|(ours, _)| Some(micros(latency(ours)?.median_ns))),
        middle(&|(_, theirs)| Some(micros(latency(theirs)?.median_ns))),
        middle(&|(ours, _)| Some(micros(latency(ours)?.p99_ns))),
        middle(&|(_, theirs)| Some(micros(latency(theirs)?.p99_ns))),
    ];
    Ok(Pair {
        peer,
        topology,
        frame: FRAME,
        flows: FLOWS,
        per_second,
        ours_median_us,
        peer_median_us,
        ours_p99_us,
        peer_p99_us,
        ratio_median: middle(&|(ours, theirs)| {
            Some(latency(ours)?.median_ns as f64 / latency(theirs)?.median_ns as f64)
        }),
        ratio_p99: middle(&|(ours, theirs)| {
            Some(latency(ours)?.p99_ns as f64 / latency(theirs)?.p99_ns as f64)
        }),
        ours_lost: timed.iter().map(|(ours, _)| ours.load.lost()).sum(),
        peer_lost: timed.iter().map(|(_, theirs)| theirs.load.lost()).sum(),
        rounds: settings.rounds,
        lost_wrong: timed.iter().map(|(ours, _)| ours.load.wrong()).sum(),
    })
}

fn outcome(pairs: &[Pair]) -> anyhow::Result<Outcome> {
    let columns = [
        "way",
        "peer",
        "frames/s",
        "ours median",
        "peer median",
        "ours p99",
        "peer p99",
        "p99 ratio",
        "lost ours/peer",
    ];
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
    let bar = |value| Some(Bar::exact(value));
    Ok(Outcome {
        scenario: "latency".to_owned(),
        pairs: pairs
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<_, _>>()?,
        tables: vec![Table {
            title: "Microseconds under way, at a tenth of the peer's capacity".to_owned(),
            columns: columns.map(str::to_owned).to_vec(),
            rows: pairs.iter().map(row).collect(),
        }],
        charts: vec![Chart {
            title: "99 of 100 frames take at most".to_owned(),
            unit: "µs".to_owned(),
            series: vec!["ours".to_owned(), "peer".to_owned()],
            groups: pairs
                .iter()
                .map(|pair| {
                    (
                        format!("{} {}", pair.topology, pair.peer),
                        vec![bar(pair.ours_p99_us), bar(pair.peer_p99_us)],
                    )
                })
                .collect(),
        }],
        rules: Vec::new(),
    })
}
