//! `apps`: programs that talk through a switch: iperf3, Apache and Memcached, as MTS measured.
//!
//! A guest stands for a VM, and another for the host beyond the uplink: a network namespace with
//! the kernel's own stack, whose interface is the load's end of a wire. A server is in a guest, its
//! client beyond the uplink (`p2v`) or in another guest (`v2v`). All of them run on the load's CPU;
//! the switch has its own. Ours runs as delivered: it sleeps when idle.
//!
//! Guests send what a cable could carry: checksums are written and segments are cut before they
//! leave (no offloads, an MTU of 1500), whatever switch is under test. The kernel could carry 64
//! KiB at once from guest to guest, which no NIC would see.

mod guest;
mod session;

use anyhow::{Context, bail};
use serde::Serialize;

use super::{Settings, Task, extremes, median};
use crate::network::{Topology, tenant};
use crate::report::{Bar, Chart, Outcome, Table};
use crate::site::{Site, Wires};
use crate::switches::{Peer, PollMode, Switch, Vswitch};

use session::Session;

/// One measured quantity.
struct Figure {
    app: &'static str,
    unit: &'static str,
    less_is_better: bool,
}

const fn figure(app: &'static str, unit: &'static str, less_is_better: bool) -> Figure {
    Figure {
        app,
        unit,
        less_is_better,
    }
}

const FIGURES: [Figure; 8] = [
    figure("iperf3, TCP, 1 stream", "Mbit/s", false),
    figure("iperf3, TCP, 4 streams", "Mbit/s", false),
    figure("iperf3, UDP, under 0.1 % lost", "Mbit/s", false),
    figure("Apache, 1 KiB", "requests/s", false),
    figure("Apache, 1 KiB, p99", "ms", true),
    figure("Apache, 1 MiB", "requests/s", false),
    figure("Apache, 1 MiB, p99", "ms", true),
    figure("Memcached", "operations/s", false),
];

/// One value of each of [`FIGURES`].
type Figures = [f64; FIGURES.len()];

/// The programs beside the switches.
pub const PROGRAMS: [&str; 10] = [
    "ip",
    "ethtool",
    "taskset",
    "ping",
    "ss",
    "iperf3",
    "apache2",
    "ab",
    "memcached",
    "memcaslap",
];

/// One figure of our switch and of a peer.
#[derive(Debug, Clone, Serialize)]
struct Pair {
    peer: Peer,
    app: &'static str,
    path: Topology,
    unit: &'static str,
    /// Medians over the rounds.
    ours: f64,
    peer_value: f64,
    /// The median over the rounds of our value divided by the peer's. Less is better for
    /// milliseconds, more for everything else.
    ratio: f64,
    rounds: usize,
}

/// Measures our switch, as delivered, beside each peer.
///
/// # Errors
/// A peer that does not route, or the first error of a switch or a program.
pub fn run(Task(settings, peers, progress): Task<'_>) -> anyhow::Result<Outcome> {
    if let Some(peer) = peers.iter().find(|peer| !peer.switch().checks()) {
        bail!("{peer} does not route, as apps needs: use linux-bridge or ovs-dpdk");
    }
    let mut results = Vec::new();
    for path in [Topology::P2v, Topology::V2v] {
        // A row for each round: our switch, then the peers.
        let mut rounds: Vec<Vec<Figures>> = Vec::new();
        for round in 1..=settings.rounds {
            let ours = Vswitch {
                wires: Wires::Veth,
                poll: PollMode::Adaptive,
            };
            let mut row = Vec::new();
            let mut once = |name: &str, switch: &dyn Switch| -> anyhow::Result<()> {
                let mut progress = |app: &str| {
                    progress(&format!(
                        "{path}, {name}: {app}: round {round} of {}",
                        settings.rounds
                    ));
                };
                let figures = measure(settings, switch, path, &mut progress)
                    .with_context(|| format!("{name}, {path}"))?;
                row.push(figures);
                Ok(())
            };
            once("ours", &ours)?;
            for peer in peers {
                once(&peer.to_string(), peer.switch().as_ref())?;
            }
            rounds.push(row);
        }
        results.push((path, rounds));
    }
    let rules = peers
        .iter()
        .map(|peer| {
            let site = lay(settings, Topology::V2v)?;
            Ok((peer.to_string(), peer.switch().rules(&site)))
        })
        .collect::<anyhow::Result<_>>()?;
    Ok(Outcome {
        rules,
        ..outcome(peers, &results)?
    })
}

fn lay(settings: &Settings, path: Topology) -> anyhow::Result<Site> {
    Site::lay(Wires::Veth, settings.cpus, vec![tenant(0, path.size())])
}

/// Runs each program once through one switch.
fn measure(
    settings: &Settings,
    switch: &dyn Switch,
    path: Topology,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Figures> {
    let site = lay(settings, path)?;
    let running = switch.start(&site)?;
    let session = Session::start(&site, path)?;
    let mut figures = [0.0; FIGURES.len()];
    progress("iperf3, TCP");
    for (streams, value) in [1, 4].into_iter().zip(&mut figures[..2]) {
        *value = session.tcp(settings.measure, streams)?;
    }
    progress("iperf3, UDP");
    figures[2] = session.udp(settings.measure / 2)?;
    progress("Apache");
    [figures[3], figures[4]] = session.requests(settings.measure, "small")?;
    [figures[5], figures[6]] = session.requests(settings.measure, "large")?;
    progress("Memcached");
    figures[7] = session.operations(settings.measure)?;
    drop(session);
    drop(running);
    Ok(figures)
}

/// For each path its rounds, and for each round our switch and the peers.
type Results = [(Topology, Vec<Vec<Figures>>)];

fn outcome(peers: &[Peer], results: &Results) -> anyhow::Result<Outcome> {
    let mut pairs = Vec::new();
    let mut charts: Vec<Chart> = Vec::new();
    for (path, rounds) in results {
        for (index, figure) in FIGURES.iter().enumerate() {
            let of = |switch: usize| rounds.iter().map(move |round| round[switch][index]);
            for (number, &peer) in peers.iter().enumerate() {
                let ratios = of(0)
                    .zip(of(number + 1))
                    .map(|(ours, theirs)| ours / theirs);
                pairs.push(Pair {
                    peer,
                    app: figure.app,
                    path: *path,
                    unit: figure.unit,
                    ours: median(of(0)).unwrap_or(f64::NAN),
                    peer_value: median(of(number + 1)).unwrap_or(f64::NAN),
                    ratio: median(ratios).unwrap_or(f64::NAN),
                    rounds: rounds.len(),
                });
            }
            let bars = (0..=peers.len())
                .map(|switch| {
                    let [low, high] = extremes(of(switch));
                    let value = median(of(switch))?;
                    Some(Bar { value, low, high })
                })
                .collect();
            let group = (format!("{path}: {}", figure.app), bars);
            match charts.iter_mut().find(|chart| chart.unit == figure.unit) {
                Some(chart) => chart.groups.push(group),
                None => charts.push(Chart {
                    title: match figure.less_is_better {
                        true => "Waiting time of programs, less is better".to_owned(),
                        false => "Throughput of programs, more is better".to_owned(),
                    },
                    unit: figure.unit.to_owned(),
                    series: [("ours".to_owned())]
                        .into_iter()
                        .chain(peers.iter().map(Peer::to_string))
                        .collect(),
                    groups: vec![group],
                }),
            }
        }
    }
    let row = |pair: &Pair| {
        vec![
            pair.path.to_string(),
            pair.app.to_owned(),
            pair.unit.to_owned(),
            pair.peer.to_string(),
            format!("{:.1}", pair.ours),
            format!("{:.1}", pair.peer_value),
            format!("{:.2}", pair.ratio),
        ]
    };
    let table = Table::new(
        "Throughput of programs (more is better, except ms)",
        ["path", "program", "unit", "peer", "ours", "peer's", "ratio"],
    );
    Outcome::new("apps", &pairs, table.with(pairs.iter().map(row)), charts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_has_the_medians_of_all_rounds() {
        let round = |ours: f64, peer: f64| vec![[ours; 8], [peer; 8]];
        let results = [(
            Topology::P2v,
            vec![round(1.0, 2.0), round(3.0, 3.0), round(2.0, 1.0)],
        )];
        let outcome = outcome(&[Peer::LinuxBridge], &results).expect("plain values");
        assert_eq!(outcome.pairs.len(), 8);
        assert_eq!(
            outcome.pairs[4],
            serde_json::json!({
                "peer": "linux-bridge",
                "app": "Apache, 1 KiB, p99",
                "path": "p2v",
                "unit": "ms",
                "ours": 2.0,
                "peer_value": 2.0,
                "ratio": 1.0,
                "rounds": 3,
            })
        );
        assert_eq!(
            outcome.tables[0].rows[7],
            [
                "p2v",
                "Memcached",
                "operations/s",
                "linux-bridge",
                "2.0",
                "2.0",
                "1.00"
            ]
        );
        let groups: Vec<usize> = outcome
            .charts
            .iter()
            .map(|chart| chart.groups.len())
            .collect();
        assert_eq!(groups, [3, 2, 2, 1], "Mbit/s, requests/s, ms, operations/s");
        let expected = Bar {
            value: 2.0,
            low: 1.0,
            high: 3.0,
        };
        assert_eq!(outcome.charts[3].groups[0].1, [Some(expected); 2]);
    }
}
