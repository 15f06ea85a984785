//! `apps`: what programs get that talk to each other through a switch: iperf3, Apache and Memcached, as MTS measured.
//!
//! A guest stands for a VM, and one more for what is beyond the uplink: a network namespace with the kernel's own stack, whose interface is
//! the load's end of a wire. A server is in a guest, its client outside (`p2v`) or in another guest (`v2v`). All of them run
//! on the load's CPU; the switch has its own. Ours is as it is delivered: it sleeps when there is nothing to do.
//!
//! Guests send what could go over a cable: checksums are written, and segments are cut before they leave (no offloads, an MTU
//! of 1500), for whoever is under test. The kernel could carry 64 KiB at once from guest to guest, which no NIC would see.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;
use tenant_config::MacAddr;

use super::{Settings, ends, median};
use crate::command::{output, run as run_program};
use crate::network::{NEXT_HOP, NEXT_HOP_MAC, Topology, tenant, vm_ipv4};
use crate::report::{Bar, Chart, Outcome, Table};
use crate::site::{Namespace, Site, Wires};
use crate::switches::{ChildGuard, Peer, PollMode, Switch, Vswitch, wait_for};

/// The client's address where it is outside.
const OUTSIDE: &str = "198.18.0.1";
/// How TCP avoids congestion, whatever the machine has as its default: this is Linux's.
const CONGESTION: &str = "cubic";
/// Connections at a time, of `ab` and of `memcaslap`.
const CONCURRENCY: u32 = 16;
/// Bytes of the values that Memcached is asked for.
const VALUE: u32 = 128;
/// Of UDP's payload, so that a packet is not cut.
const DATAGRAM: u32 = 1400;
/// A rate at which no more is lost counts.
const LOST_PERCENT: f64 = 0.1;
/// Where the search for that rate begins, and how often it is then made twice that, and how often the gap is halved.
const FIRST_MBIT: f64 = 50.0;
const DOUBLINGS: u32 = 8;
const HALVINGS: u32 = 4;

/// What is measured, and in what.
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

/// What is run besides the switches.
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

/// One figure of ours and of a peer.
#[derive(Debug, Clone, Serialize)]
struct Pair {
    peer: Peer,
    app: &'static str,
    path: Topology,
    unit: &'static str,
    /// Medians over the rounds.
    ours: f64,
    peer_value: f64,
    /// The median of each round's ours by its peer. Of milliseconds less is better, of all else more.
    ratio: f64,
    rounds: usize,
}

/// Measures ours, as it is delivered, beside each peer.
///
/// # Errors
/// A peer that does not route, and the first that a switch or a program says.
pub fn run(
    settings: &Settings,
    peers: &[Peer],
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Outcome> {
    if let Some(peer) = peers.iter().find(|peer| !peer.switch().checks()) {
        bail!(
            "{peer} does not route, and programs need that: apps goes against linux-bridge or ovs-dpdk"
        );
    }
    let mut results = Vec::new();
    for path in [Topology::P2v, Topology::V2v] {
        // A row for each round: ours, then the peers.
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

/// All programs once, through one switch.
fn measure(
    settings: &Settings,
    switch: &dyn Switch,
    path: Topology,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Figures> {
    let site = lay(settings, path)?;
    let running = switch.start(&site)?;
    let stage = Stage::set(&site, path)?;
    let mut figures = [0.0; FIGURES.len()];
    progress("iperf3, TCP");
    for (streams, value) in [1, 4].into_iter().zip(&mut figures[..2]) {
        *value = stage.tcp(settings.measure, streams)?;
    }
    progress("iperf3, UDP");
    figures[2] = search(|mbit| stage.udp(settings.measure / 2, mbit))?;
    progress("Apache");
    [figures[3], figures[4]] = stage.requests(settings.measure, "small")?;
    [figures[5], figures[6]] = stage.requests(settings.measure, "large")?;
    progress("Memcached");
    figures[7] = stage.operations(settings.measure)?;
    drop(stage);
    drop(running);
    Ok(figures)
}

/// A client and a server, which runs all daemons.
struct Stage<'a> {
    site: &'a Site,
    client: Guest<'a>,
    // In this order: the daemons end before their guest does.
    _daemons: Vec<ChildGuard>,
    server: Guest<'a>,
    address: String,
}

impl<'a> Stage<'a> {
    fn set(site: &'a Site, path: Topology) -> anyhow::Result<Self> {
        let (client, server) = match path {
            Topology::V2v => (Guest::vm(site, 0)?, Guest::vm(site, 1)?),
            Topology::P2v | Topology::P2p => (Guest::outside(site)?, Guest::vm(site, 0)?),
        };
        let address = server.address.clone();
        wait_for("the client reaches the server", || {
            let mut ping = client.command("ping");
            ping.args(["-q", "-c", "1", "-W", "1", &address]);
            Ok(ping.output()?.status.success().then_some(()))
        })?;
        let daemons = daemons(site.directory(), &server)?;
        wait_for("all servers listen", || {
            let mut list = server.command("ss");
            let told = output(list.args(["-H", "-l", "-t", "-n"]))?;
            let all = [":5201 ", ":80 ", ":11211 "];
            Ok(all.iter().all(|port| told.contains(port)).then_some(()))
        })?;
        Ok(Self {
            site,
            client,
            _daemons: daemons,
            server,
            address,
        })
    }

    fn iperf(&self, time: Duration, more: &[String]) -> anyhow::Result<Value> {
        let mut client = self.client.command("iperf3");
        client
            .args([
                "--json",
                "--connect-timeout",
                "3000",
                "--client",
                &self.address,
            ])
            .args(["--time", &seconds(time)])
            .args(more);
        let told = output(&mut client)?;
        serde_json::from_str(&told).with_context(|| format!("iperf3 says {told:?}"))
    }

    /// Mbit/s of so many streams.
    fn tcp(&self, time: Duration, streams: u32) -> anyhow::Result<f64> {
        let said = self.iperf(time, &["--parallel".to_owned(), streams.to_string()])?;
        received(&said).map(|(mbit, _)| mbit)
    }

    /// Mbit/s that came in of what was asked for, and percent lost.
    fn udp(&self, time: Duration, mbit: f64) -> anyhow::Result<(f64, f64)> {
        let options = ["--udp", "--bitrate", &format!("{mbit:.0}M"), "--length"].map(str::to_owned);
        let said = self.iperf(time, &[&options[..], &[DATAGRAM.to_string()]].concat())?;
        received(&said)
    }

    /// Requests a second, and the milliseconds that 99 of 100 took at most.
    fn requests(&self, time: Duration, file: &str) -> anyhow::Result<[f64; 2]> {
        let table = self.site.directory().join("ab.csv");
        let url = format!("http://{}/{file}", self.address);
        // Without a number it ends at 50,000, whatever the time.
        let told = output(
            self.client
                .command("ab")
                .args(["-q", "-c", &CONCURRENCY.to_string(), "-t", &seconds(time)])
                .args(["-n", "1000000", "-e"])
                .args([table.as_os_str(), url.as_ref()]),
        )?;
        let percentiles = std::fs::read_to_string(&table)?;
        let p99 = percentiles
            .lines()
            .find_map(|line| line.strip_prefix("99,"));
        let p99 = p99.context("ab gives no percentiles")?.parse()?;
        Ok([requests(&told)?, p99])
    }

    fn operations(&self, time: Duration) -> anyhow::Result<f64> {
        let told = output(self.client.command("memcaslap").args([
            "-s",
            &format!("{}:11211", self.address),
            "-T",
            "1",
            "-c",
            &CONCURRENCY.to_string(),
            "-X",
            &VALUE.to_string(),
            "-t",
            &format!("{}s", seconds(time)),
        ]))?;
        operations(&told)
    }
}

impl std::fmt::Debug for Stage<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} and {}", self.client.address, self.server.address)
    }
}

/// Somebody with an interface, `eth0`, and a kernel's network of its own.
struct Guest<'a> {
    site: &'a Site,
    namespace: Namespace,
    address: String,
}

impl<'a> Guest<'a> {
    /// The VM at that port, from 0.
    fn vm(site: &'a Site, port: usize) -> anyhow::Result<Self> {
        let config = &site.tenants[0];
        let gateway = config
            .gateway
            .ipv4
            .context("a tenant without a gateway")?
            .addr();
        let (own, behind) = (config.ports[port].mac, config.ports[port].gateway_mac);
        let address = vm_ipv4(port as u16 + 1, 0).to_string();
        let lines = format!(
            "address add {address}/32 dev eth0
neighbour replace {gateway} lladdr {behind} dev eth0 nud permanent
route add {gateway} dev eth0
route add default via {gateway} congctl {CONGESTION}
"
        );
        Self::with(site, port, own, address, &lines)
    }

    /// Whoever is beyond the uplink; the router is the same.
    fn outside(site: &'a Site) -> anyhow::Result<Self> {
        let config = &site.tenants[0];
        let gateway = config.gateway.ipv4.context("a tenant without a gateway")?;
        let uplink = config
            .uplink
            .as_ref()
            .context("a tenant without an uplink")?;
        let own = uplink.ipv4.context("an uplink without an address")?;
        let (via, length, net) = (own.addr(), own.prefix_len(), gateway.trunc());
        let lines = format!(
            "address add {NEXT_HOP}/{length} dev eth0
address add {OUTSIDE}/32 dev lo
neighbour replace {via} lladdr {} dev eth0 nud permanent
route add {net} via {via} src {OUTSIDE} congctl {CONGESTION}
",
            uplink.mac
        );
        let mac = MacAddr::new(NEXT_HOP_MAC).context("the router's MAC")?;
        Self::with(site, config.ports.len(), mac, OUTSIDE.to_owned(), &lines)
    }

    /// Has the load's end of the wire of that number.
    fn with(
        site: &'a Site,
        wire: usize,
        mac: MacAddr,
        address: String,
        lines: &str,
    ) -> anyhow::Result<Self> {
        let namespace = Namespace::add(&format!("-guest{wire}"))?;
        let interface = format!("load{wire}");
        run_program(site.load_command("ip").args([
            "link",
            "set",
            &interface,
            "netns",
            namespace.name(),
            "name",
            "eth0",
        ]))?;
        // Each of the requests of `ab` takes a port.
        namespace.set(&[
            "net.ipv4.ip_local_port_range=1024 65000",
            "net.ipv4.tcp_tw_reuse=1",
        ])?;
        let guest = Self {
            site,
            namespace,
            address,
        };
        // There is no NIC that would cut segments and write checksums, and a frame without one is a frame with a wrong one.
        run_program(guest.command("ethtool").args([
            "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off",
        ]))?;
        let file = site.directory().join(format!("guest{wire}"));
        let links = format!("link set lo up\nlink set eth0 address {mac} mtu 1500 arp on up\n");
        std::fs::write(&file, links + lines)?;
        run_program(guest.command("ip").arg("-batch").arg(&file))?;
        Ok(guest)
    }

    /// A command in it, on the load's CPU.
    fn command(&self, program: &str) -> Command {
        let mut command = self.namespace.command("taskset");
        let cpu = self.site.cpus.load.to_string();
        command.args(["--cpu-list", &cpu, program]);
        command
    }

    /// The same as a child that ends with its owner.
    fn daemon(
        &self,
        program: &str,
        arguments: &[&str],
        directory: &Path,
    ) -> anyhow::Result<ChildGuard> {
        let log = || std::fs::File::create(directory.join(format!("{program}.log")));
        let child: Child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log()?)
            .stderr(log()?)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(ChildGuard(child))
    }
}

/// All servers, in the foreground and each one process, so that nothing is left when it is ended.
fn daemons(directory: &Path, server: &Guest<'_>) -> anyhow::Result<Vec<ChildGuard>> {
    use std::os::unix::fs::PermissionsExt as _;
    let documents = directory.join("documents");
    std::fs::create_dir(&documents)?;
    // Apache reads them as a user without rights.
    for (place, mode) in [(directory, 0o711), (documents.as_path(), 0o755)] {
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(mode))?;
    }
    for (name, bytes) in [("small", 1 << 10), ("large", 1 << 20)] {
        std::fs::write(documents.join(name), vec![b'x'; bytes])?;
    }
    let config = directory.join("apache.conf");
    std::fs::write(&config, apache(directory, &server.address))?;
    let config = config.to_string_lossy();
    let memcached = [
        "-u",
        "nobody",
        "-l",
        &server.address,
        "-p",
        "11211",
        "-m",
        "64",
        "-t",
        "1",
    ];
    Ok(vec![
        server.daemon("iperf3", &["--server"], directory)?,
        server.daemon("apache2", &["-X", "-f", &config], directory)?,
        server.daemon("memcached", &memcached, directory)?,
    ])
}

fn apache(directory: &Path, address: &str) -> String {
    let directory = directory.display();
    format!(
        "ServerRoot {directory}
ServerName bench
DefaultRuntimeDir {directory}
PidFile {directory}/apache.pid
ErrorLog {directory}/apache.log
Listen {address}:80
User www-data
Group www-data
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
DocumentRoot {directory}/documents
"
    )
}

/// As `iperf3`, `ab` and `memcaslap` take it: whole, and at least one.
fn seconds(time: Duration) -> String {
    (time.as_secs_f64().round() as u64).max(1).to_string()
}

/// The most that comes in at a rate at which hardly anything is lost. `try_rate` gives what came in, and percent lost.
fn search(mut try_rate: impl FnMut(f64) -> anyhow::Result<(f64, f64)>) -> anyhow::Result<f64> {
    let (mut good, mut bad, mut best) = (0.0, f64::INFINITY, 0.0_f64);
    let mut rate = FIRST_MBIT;
    for _ in 0..DOUBLINGS + HALVINGS {
        let (came, lost) = try_rate(rate)?;
        if lost <= LOST_PERCENT {
            best = best.max(came);
            // The client cannot send more.
            if came < 0.9 * rate {
                break;
            }
            good = rate;
        } else {
            bad = rate;
        }
        rate = match (bad.is_finite(), good > 0.0) {
            (false, _) => rate * 2.0,
            (true, true) => (good + bad) / 2.0,
            (true, false) => rate / 2.0,
        };
        if bad - good < 0.05 * bad {
            break;
        }
    }
    Ok(best)
}

/// Mbit/s that came in, and percent lost.
fn received(said: &Value) -> anyhow::Result<(f64, f64)> {
    let sum = &said["end"]["sum_received"];
    let bits = sum["bits_per_second"].as_f64().with_context(|| {
        format!(
            "iperf3 tells nothing of what was received: {}",
            said["error"]
        )
    })?;
    Ok((bits / 1e6, sum["lost_percent"].as_f64().unwrap_or(0.0)))
}

/// `Requests per second:    7825.82 [#/sec] (mean)`, where none failed.
fn requests(said: &str) -> anyhow::Result<f64> {
    let number = |head: &str| -> Option<f64> {
        let line = said.lines().find_map(|line| line.strip_prefix(head))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let failed =
        number("Failed requests:").unwrap_or(0.0) + number("Non-2xx responses:").unwrap_or(0.0);
    if failed > 0.0 {
        bail!("{failed} of ab's requests failed");
    }
    number("Requests per second:").with_context(|| format!("ab says {said:?}"))
}

/// `Run time: 2.0s Ops: 112915 TPS: 56446 Net_rate: 14.9M/s`
fn operations(said: &str) -> anyhow::Result<f64> {
    said.split_once("TPS:")
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("memcaslap says {said:?}"))
}

/// Of every path the rounds, of every round ours and the peers.
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
                    let [low, high] = ends(of(switch));
                    let value = median(of(switch))?;
                    Some(Bar { value, low, high })
                })
                .collect();
            let group = (format!("{path}: {}", figure.app), bars);
            match charts.iter_mut().find(|chart| chart.unit == figure.unit) {
                Some(chart) => chart.groups.push(group),
                None => charts.push(Chart {
                    title: match figure.less_is_better {
                        true => "What programs wait for, less is better".to_owned(),
                        false => "What programs get through, more is better".to_owned(),
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
        "What programs get through (more is better, other than of ms)",
        ["way", "program", "unit", "peer", "ours", "peer's", "ratio"],
    );
    Outcome::new("apps", &pairs, table.with(pairs.iter().map(row)), charts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_understood() {
        let iperf = serde_json::json!({"end": {"sum_received": {"bits_per_second": 2e9, "lost_percent": 0.5}}});
        assert_eq!(received(&iperf).expect("all there"), (2000.0, 0.5));
        let error =
            received(&serde_json::json!({"error": "no route"})).map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("iperf3 tells nothing of what was received: \"no route\"".to_owned())
        );
        let ab = "Failed requests:        0\nRequests per second:    7825.82 [#/sec] (mean)\n";
        assert_eq!(requests(ab).expect("all there"), 7825.82);
        let error = requests(&ab.replace("  0", "  3")).map_err(|error| error.to_string());
        assert_eq!(error, Err("3 of ab's requests failed".to_owned()));
        let memcaslap = "Run time: 2.0s Ops: 112915 TPS: 56446 Net_rate: 14.9M/s\n";
        assert_eq!(operations(memcaslap).expect("all there"), 56446.0);
    }

    #[test]
    fn the_rate_is_found_at_which_nothing_is_lost() {
        let wire = |limit: f64| {
            move |rate: f64| Ok((rate.min(limit), if rate > limit { 5.0 } else { 0.0 }))
        };
        let found = search(wire(730.0)).expect("no error");
        assert!((690.0..=730.0).contains(&found), "{found}");
        let found = search(wire(31.0)).expect("no error");
        assert!((29.0..=31.0).contains(&found), "{found}");
        // A client that cannot send more than that.
        let found = search(|rate: f64| Ok((rate.min(1234.0), 0.0))).expect("no error");
        assert_eq!(found, 1234.0);
    }

    #[test]
    fn pairs_are_medians_of_rounds() {
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
