//! `tenants`: so many tenants on one CPU, each with a switch of its own, beside one switch of a peer that serves all of them.

use serde::Serialize;

use super::{IN_FLIGHT, Sample, Settings, Work, median, sample};
use crate::load::{Pace, Shape};
use crate::network::{Size, Topology, tenant};
use crate::report::{Bar, Chart, Outcome, Table};
use crate::site::Site;
use crate::switches::{Peer, PollMode, Switch, Vswitch};

/// How many tenants there are.
const TENANTS: [u8; 5] = [1, 2, 4, 8, 16];
const FRAME: u16 = 64;

/// The comparison with one peer, for so many tenants.
#[derive(Debug, Clone, Serialize)]
struct Pair {
    peer: Peer,
    tenants: u8,
    frame: u16,
    flows: u32,
    /// Of all tenants together.
    ours_mpps: f64,
    peer_mpps: f64,
    ratio: f64,
    ratio_spread: [f64; 2],
    /// By what one tenant alone has.
    ours_of_one: f64,
    peer_of_one: f64,
    /// What the tenant with the least has by its equal share.
    ours_least: f64,
    peer_least: f64,
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
    let mut pairs: Vec<Pair> = Vec::new();
    for &peer in peers {
        let theirs = peer.switch();
        let ours = Vswitch {
            wires: theirs.wires().ours(),
            poll: PollMode::Adaptive,
        };
        let mut of_one = None;
        for tenants in TENANTS {
            let mut rounds = Vec::new();
            for round in 1..=settings.rounds {
                progress(&format!(
                    "{tenants} tenants, {peer}: round {round} of {}",
                    settings.rounds
                ));
                let ours = once(settings, &ours, tenants)?;
                rounds.push((ours, once(settings, theirs.as_ref(), tenants)?));
            }
            let middle = |value: &dyn Fn(&(Sample, Sample)) -> f64| {
                median(rounds.iter().map(value)).unwrap_or(f64::NAN)
            };
            let (ours_mpps, peer_mpps) = (
                middle(&|(ours, _)| ours.mpps),
                middle(&|(_, theirs)| theirs.mpps),
            );
            let (ours_one, peer_one) = *of_one.get_or_insert((ours_mpps, peer_mpps));
            let ratios = || rounds.iter().map(|(ours, theirs)| ours.mpps / theirs.mpps);
            pairs.push(Pair {
                peer,
                tenants,
                frame: FRAME,
                flows: 1,
                ours_mpps,
                peer_mpps,
                ratio: middle(&|(ours, theirs)| ours.mpps / theirs.mpps),
                ratio_spread: [
                    ratios().fold(f64::INFINITY, f64::min),
                    ratios().fold(f64::NEG_INFINITY, f64::max),
                ],
                ours_of_one: ours_mpps / ours_one,
                peer_of_one: peer_mpps / peer_one,
                ours_least: middle(&|(ours, _)| least(ours)),
                peer_least: middle(&|(_, theirs)| least(theirs)),
                rounds: settings.rounds,
                lost_wrong: rounds.iter().map(|(ours, _)| ours.load.wrong()).sum(),
            });
        }
    }
    outcome(&pairs)
}

/// The poorest tenant's part of an equal share.
fn least(sample: &Sample) -> f64 {
    let measured = || sample.load.paths.iter().map(|path| path.measured as f64);
    let mean = measured().sum::<f64>() / sample.load.paths.len() as f64;
    measured().fold(f64::INFINITY, f64::min) / mean
}

fn once(settings: &Settings, switch: &dyn Switch, tenants: u8) -> anyhow::Result<Sample> {
    let topology = Topology::P2p;
    let size = Size {
        ports: topology.vms(),
        addresses: 1,
    };
    let configs = (0..tenants).map(|number| tenant(number, size)).collect();
    let site = Site::lay(switch.wires(), settings.cpus, configs)?;
    let work = Work {
        paths: site.paths(topology),
        shape: Shape {
            bytes: FRAME,
            flows: 1,
            seed: settings.seed,
        },
        pace: Pace::Closed {
            in_flight: IN_FLIGHT,
        },
        attacks: Vec::new(),
        floods: Vec::new(),
    };
    sample(settings, &site, switch, &work)
}

fn outcome(pairs: &[Pair]) -> anyhow::Result<Outcome> {
    let columns = [
        "tenants",
        "peer",
        "ours Mpps",
        "peer Mpps",
        "ratio (spread)",
        "ours of one",
        "peer of one",
        "ours least",
        "peer least",
    ];
    let row = |pair: &Pair| {
        vec![
            pair.tenants.to_string(),
            pair.peer.to_string(),
            format!("{:.2}", pair.ours_mpps),
            format!("{:.2}", pair.peer_mpps),
            format!(
                "{:.2} ({:.2}–{:.2})",
                pair.ratio, pair.ratio_spread[0], pair.ratio_spread[1]
            ),
            format!("{:.2}", pair.ours_of_one),
            format!("{:.2}", pair.peer_of_one),
            format!("{:.2}", pair.ours_least),
            format!("{:.2}", pair.peer_least),
        ]
    };
    let bar = |value| Some(Bar::exact(value));
    Ok(Outcome {
        scenario: "tenants".to_owned(),
        pairs: pairs
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<_, _>>()?,
        tables: vec![Table {
            title: "Tenants on one CPU: ours has a switch for each, the peer one for all"
                .to_owned(),
            columns: columns.map(str::to_owned).to_vec(),
            rows: pairs.iter().map(row).collect(),
        }],
        charts: vec![Chart {
            title: "All tenants together".to_owned(),
            unit: "Mpps".to_owned(),
            series: vec!["ours".to_owned(), "peer".to_owned()],
            groups: pairs
                .iter()
                .map(|pair| {
                    (
                        format!("{} {}", pair.tenants, pair.peer),
                        vec![bar(pair.ours_mpps), bar(pair.peer_mpps)],
                    )
                })
                .collect(),
        }],
        rules: Vec::new(),
    })
}
