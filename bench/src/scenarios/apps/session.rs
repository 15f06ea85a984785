//! A client and a server that runs all daemons, and what the clients measure.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::guest::Guest;
use crate::command::output;
use crate::network::Topology;
use crate::site::Site;
use crate::switches::{ChildGuard, wait_for};

/// Concurrent connections of `ab` and of `memcaslap`.
const CONCURRENCY: u32 = 16;
/// The bytes of a value in Memcached.
const VALUE: u32 = 128;
/// The bytes of UDP's payload, so that a packet is not fragmented.
const DATAGRAM: u32 = 1400;
/// A UDP rate counts if no more than this is lost.
const LOST_PERCENT: f64 = 0.1;
/// The search for that rate: the first rate, and the most steps that double it or halve the gap.
const FIRST_MBIT: f64 = 50.0;
const DOUBLINGS: u32 = 8;
const HALVINGS: u32 = 4;

/// A client guest and a server guest.
pub(super) struct Session<'a> {
    site: &'a Site,
    client: Guest<'a>,
    // Dropped in this order: the daemons end before their guest.
    _daemons: Vec<ChildGuard>,
    _server: Guest<'a>,
    /// The server's.
    address: String,
}

impl<'a> Session<'a> {
    /// Starts all servers and waits until they listen.
    pub(super) fn start(site: &'a Site, path: Topology) -> anyhow::Result<Self> {
        let (client, server) = match path {
            Topology::V2v => (Guest::vm(site, 0)?, Guest::vm(site, 1)?),
            Topology::P2v | Topology::P2p => (Guest::external(site)?, Guest::vm(site, 0)?),
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
            let sockets = output(list.args(["-H", "-l", "-t", "-n"]))?;
            let all = [":5201 ", ":80 ", ":11211 "];
            Ok(all.iter().all(|port| sockets.contains(port)).then_some(()))
        })?;
        Ok(Self {
            site,
            client,
            _daemons: daemons,
            _server: server,
            address,
        })
    }

    fn command(&self, program: &str) -> Command {
        self.client.command(program)
    }

    fn iperf(&self, time: Duration, more: &[String]) -> anyhow::Result<Value> {
        let mut client = self.command("iperf3");
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
        let printed = output(&mut client)?;
        serde_json::from_str(&printed).with_context(|| format!("iperf3 printed {printed:?}"))
    }

    /// Mbit/s of several TCP streams together.
    pub(super) fn tcp(&self, time: Duration, streams: u32) -> anyhow::Result<f64> {
        let result = self.iperf(time, &["--parallel".to_owned(), streams.to_string()])?;
        received(&result).map(|(mbit, _)| mbit)
    }

    /// Mbit/s of UDP, as far as at most [`LOST_PERCENT`] is lost.
    pub(super) fn udp(&self, time: Duration) -> anyhow::Result<f64> {
        search(|mbit| {
            let options = ["--udp", "--bitrate", &format!("{mbit:.0}M"), "--length"];
            let options = options.map(str::to_owned);
            let result = self.iperf(time, &[&options[..], &[DATAGRAM.to_string()]].concat())?;
            received(&result)
        })
    }

    /// Requests a second, and the 99th percentile of their time in milliseconds.
    pub(super) fn requests(&self, time: Duration, file: &str) -> anyhow::Result<[f64; 2]> {
        let table = self.site.directory().join("ab.csv");
        let url = format!("http://{}/{file}", self.address);
        // Without -n it ends after 50,000 requests, whatever the time.
        let printed = output(
            self.command("ab")
                .args(["-q", "-c", &CONCURRENCY.to_string(), "-t", &seconds(time)])
                .args(["-n", "1000000", "-e"])
                .args([table.as_os_str(), url.as_ref()]),
        )?;
        let percentiles = std::fs::read_to_string(&table)?;
        let p99 = percentiles
            .lines()
            .find_map(|line| line.strip_prefix("99,"));
        let p99 = p99.context("ab printed no percentiles")?.parse()?;
        Ok([requests(&printed)?, p99])
    }

    /// Memcached's operations a second.
    pub(super) fn operations(&self, time: Duration) -> anyhow::Result<f64> {
        let printed = output(self.command("memcaslap").args([
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
        operations(&printed)
    }
}

/// Starts all servers in the foreground, each as one process, so that none outlives its guard.
fn daemons(directory: &Path, server: &Guest<'_>) -> anyhow::Result<Vec<ChildGuard>> {
    use std::os::unix::fs::PermissionsExt as _;
    let documents = directory.join("documents");
    std::fs::create_dir(&documents)?;
    // Apache reads them as an unprivileged user.
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

/// A time as `iperf3`, `ab` and `memcaslap` take it: whole seconds, at least one.
fn seconds(time: Duration) -> String {
    (time.as_secs_f64().round() as u64).max(1).to_string()
}

/// The highest received rate with hardly any loss. `try_rate` returns the received rate and the
/// percentage lost.
fn search(mut try_rate: impl FnMut(f64) -> anyhow::Result<(f64, f64)>) -> anyhow::Result<f64> {
    let (mut good, mut bad, mut best) = (0.0, f64::INFINITY, 0.0_f64);
    let mut rate = FIRST_MBIT;
    for _ in 0..DOUBLINGS + HALVINGS {
        let (received, lost) = try_rate(rate)?;
        if lost <= LOST_PERCENT {
            best = best.max(received);
            // The client cannot send faster.
            if received < 0.9 * rate {
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

/// The received Mbit/s and the percentage lost, from iperf3's JSON.
fn received(result: &Value) -> anyhow::Result<(f64, f64)> {
    let sum = &result["end"]["sum_received"];
    let bits = sum["bits_per_second"]
        .as_f64()
        .with_context(|| format!("iperf3 received nothing: {}", result["error"]))?;
    Ok((bits / 1e6, sum["lost_percent"].as_f64().unwrap_or(0.0)))
}

/// `Requests per second:    7825.82 [#/sec] (mean)`; an error if requests failed.
fn requests(printed: &str) -> anyhow::Result<f64> {
    let number = |head: &str| -> Option<f64> {
        let line = printed.lines().find_map(|line| line.strip_prefix(head))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let failed =
        number("Failed requests:").unwrap_or(0.0) + number("Non-2xx responses:").unwrap_or(0.0);
    if failed > 0.0 {
        bail!("{failed} of ab's requests failed");
    }
    number("Requests per second:").with_context(|| format!("ab printed {printed:?}"))
}

/// `Run time: 2.0s Ops: 112915 TPS: 56446 Net_rate: 14.9M/s`
fn operations(printed: &str) -> anyhow::Result<f64> {
    printed
        .split_once("TPS:")
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("memcaslap printed {printed:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_output_parses_to_rates() {
        let iperf = serde_json::json!({
            "end": {"sum_received": {"bits_per_second": 2e9, "lost_percent": 0.5}},
        });
        assert_eq!(received(&iperf).expect("all there"), (2000.0, 0.5));
        let error =
            received(&serde_json::json!({"error": "no route"})).map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("iperf3 received nothing: \"no route\"".to_owned())
        );
        let ab = "Failed requests:        0\nRequests per second:    7825.82 [#/sec] (mean)\n";
        assert_eq!(requests(ab).expect("all there"), 7825.82);
        let error = requests(&ab.replace("  0", "  3")).map_err(|error| error.to_string());
        assert_eq!(error, Err("3 of ab's requests failed".to_owned()));
        let memcaslap = "Run time: 2.0s Ops: 112915 TPS: 56446 Net_rate: 14.9M/s\n";
        assert_eq!(operations(memcaslap).expect("all there"), 56446.0);
    }

    #[test]
    fn search_finds_the_rate_without_loss() {
        let wire = |limit: f64| {
            move |rate: f64| Ok((rate.min(limit), if rate > limit { 5.0 } else { 0.0 }))
        };
        let found = search(wire(730.0)).expect("no error");
        assert!((690.0..=730.0).contains(&found), "{found}");
        let found = search(wire(31.0)).expect("no error");
        assert!((29.0..=31.0).contains(&found), "{found}");
        // A client that cannot send faster.
        let found = search(|rate: f64| Ok((rate.min(1234.0), 0.0))).expect("no error");
        assert_eq!(found, 1234.0);
    }
}
