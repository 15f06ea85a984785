//! `encrypted`: TCP through the tunnel between two switches, without IPsec and with each of its
//! transforms.
//!
//! A tenant is onboarded on two hosts as an operator does it, with its IKE daemons. iperf3 sends
//! from a VM of one host to a VM of the other. All share the CPUs of this machine, so a figure
//! alone says little; the protections alternate within each round.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use super::{extremes, median};
use crate::command::output;
use crate::hosts::{End, Joined, Protection, address};
use crate::interrupt;
use crate::report::{Bar, Chart, Outcome, Table, figure, spread};
use crate::switches::{ChildGuard, wait_for};

/// The programs that it needs beside those of the hosts.
pub const PROGRAMS: [&str; 3] = ["ping", "ss", "iperf3"];

/// The protections, the reference first.
const PROTECTIONS: [Protection; 5] = [
    Protection(None),
    Protection(Some("aes128gcm16")),
    Protection(Some("aes256gcm16")),
    Protection(Some("chacha20poly1305")),
    Protection(Some("aes256-sha256")),
];

/// One run of iperf3.
#[derive(Debug, Clone, Copy)]
struct Sample {
    mbit: f64,
    retransmits: f64,
    /// Percent of one CPU, of the sending VM's switch and of the receiving VM's.
    cpu: [f64; 2],
}

/// The result of one protection.
#[derive(Debug, Clone, Serialize)]
struct Row {
    protection: &'static str,
    /// Medians over the rounds.
    mbit: f64,
    mbit_spread: [f64; 2],
    /// The median over the rounds of this throughput divided by that without IPsec.
    ratio: f64,
    retransmits: f64,
    near_cpu_percent: f64,
    far_cpu_percent: f64,
    /// CPU time of both switches for a megabyte of TCP's payload.
    cpu_ms_per_megabyte: f64,
    rounds: usize,
}

/// The steps of so many rounds.
pub fn steps(rounds: u32) -> usize {
    rounds as usize * PROTECTIONS.len()
}

/// Measures all protections in each round.
///
/// # Errors
/// The first command that fails, and a tunnel that carries nothing.
pub fn run(rounds: u32, time: Duration, progress: &mut dyn FnMut(&str)) -> anyhow::Result<Outcome> {
    let joined = Joined::new(1)?;
    let mut all: Vec<Vec<Sample>> = Vec::new();
    for round in 1..=rounds {
        let mut row = Vec::new();
        for protection in PROTECTIONS {
            interrupt::check()?;
            progress(&format!("{}: round {round} of {rounds}", protection.name()));
            joined.apply(protection)?;
            joined.wait_for_answers()?;
            let sample = measure(&joined, time);
            row.push(sample.with_context(|| protection.name())?);
        }
        all.push(row);
    }
    outcome(&rows(&all))
}

fn measure(joined: &Joined, time: Duration) -> anyhow::Result<Sample> {
    let _server = serve(joined)?;
    let cpu = || -> anyhow::Result<[Duration; 2]> {
        let [near, far] = [End::Near, End::Far].map(|end| joined.host(end).switch_cpu());
        Ok([near?, far?])
    };
    let before = cpu()?;
    let mut client = inside(joined, End::Near, "iperf3");
    client
        .args(["--json", "--client", &address(0, End::Far), "--time"])
        .arg(format!("{:.1}", time.as_secs_f64().max(1.0).round()));
    let printed = output(&mut client)?;
    let after = cpu()?;
    let result: Value =
        serde_json::from_str(&printed).with_context(|| format!("iperf3 printed {printed:?}"))?;
    let end = &result["end"];
    let number = |value: &Value, what: &str| {
        let value = value.as_f64();
        value.with_context(|| format!("iperf3 printed no {what}: {printed}"))
    };
    let received = &end["sum_received"];
    let seconds = number(&received["seconds"], "seconds")?;
    let share = |at: usize| {
        let used = after[at].saturating_sub(before[at]);
        100.0 * used.as_secs_f64() / seconds
    };
    Ok(Sample {
        mbit: number(&received["bits_per_second"], "throughput")? / 1e6,
        retransmits: number(&end["sum_sent"]["retransmits"], "retransmits")?,
        cpu: [share(0), share(1)],
    })
}

/// A server in the far VM that listens.
fn serve(joined: &Joined) -> anyhow::Result<ChildGuard> {
    let mut server = inside(joined, End::Far, "iperf3");
    server
        .args(["--server", "--one-off"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let server = ChildGuard(server.spawn().context("cannot run iperf3")?);
    wait_for("iperf3 listens", || {
        let mut list = inside(joined, End::Far, "ss");
        let sockets = output(list.args(["-H", "-l", "-t", "-n"]))?;
        Ok(sockets.contains(":5201 ").then_some(()))
    })?;
    Ok(server)
}

/// A command in the VM's namespace, which the provisioner has made.
fn inside(joined: &Joined, end: End, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{}", joined.guest(end, 0)))
        .arg(program);
    command
}

/// A row for each protection, of rounds that have a sample for each.
fn rows(all: &[Vec<Sample>]) -> Vec<Row> {
    let of = |at: usize, value: fn(&Sample) -> f64| all.iter().map(move |row| value(&row[at]));
    let middle = |at, value| median(of(at, value)).unwrap_or(f64::NAN);
    let row = |(at, protection): (usize, &Protection)| Row {
        protection: protection.name(),
        mbit: middle(at, |it| it.mbit),
        mbit_spread: extremes(of(at, |it| it.mbit)),
        ratio: median(all.iter().map(|row| row[at].mbit / row[0].mbit)).unwrap_or(f64::NAN),
        retransmits: middle(at, |it| it.retransmits),
        near_cpu_percent: middle(at, |it| it.cpu[0]),
        far_cpu_percent: middle(at, |it| it.cpu[1]),
        // Of a second: percent are 10 ms, and 8 Mbit are a megabyte.
        cpu_ms_per_megabyte: middle(at, |it| 80.0 * (it.cpu[0] + it.cpu[1]) / it.mbit),
        rounds: all.len(),
    };
    PROTECTIONS.iter().enumerate().map(row).collect()
}

fn outcome(rows: &[Row]) -> anyhow::Result<Outcome> {
    let table = Table::new(
        "encrypted: one TCP stream through the tunnel between two switches",
        [
            "protection",
            "Mbit/s (spread)",
            "ratio",
            "retransmits",
            "CPU of the sender's switch, %",
            "of the receiver's, %",
            "CPU ms a megabyte",
        ],
    );
    let row = |row: &Row| {
        vec![
            row.protection.to_owned(),
            spread(row.mbit, row.mbit_spread),
            format!("{:.2}", row.ratio),
            figure(row.retransmits),
            figure(row.near_cpu_percent),
            figure(row.far_cpu_percent),
            figure(row.cpu_ms_per_megabyte),
        ]
    };
    let bars = |row: &Row| {
        let [low, high] = row.mbit_spread;
        let value = row.mbit;
        (
            row.protection.to_owned(),
            vec![Some(Bar { value, low, high })],
        )
    };
    let chart = Chart {
        title: "TCP through the tunnel, more is better".to_owned(),
        unit: "Mbit/s".to_owned(),
        series: vec!["one stream".to_owned()],
        groups: rows.iter().map(bars).collect(),
    };
    let table = table.with(rows.iter().map(row));
    Outcome::new("encrypted", rows, table, vec![chart])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let sample = |mbit: f64| Sample {
            mbit,
            retransmits: 3.0,
            cpu: [50.0, 30.0],
        };
        let round = |none: f64, others: f64| {
            let others = std::iter::repeat_n(sample(others), PROTECTIONS.len() - 1);
            std::iter::once(sample(none)).chain(others).collect()
        };
        let rows = rows(&[round(800.0, 400.0), round(80.0, 60.0), round(100.0, 90.0)]);
        assert_eq!(rows.len(), PROTECTIONS.len());
        assert_eq!((rows[0].protection, rows[0].ratio), ("none", 1.0));
        assert_eq!((rows[4].mbit, rows[4].ratio), (90.0, 0.75));
        assert_eq!(rows[4].mbit_spread, [60.0, 400.0]);
        // 80 % of a CPU for 100 Mbit/s are 64 ms for each of the 12.5 megabytes of a second.
        assert_eq!(rows[0].cpu_ms_per_megabyte, 64.0);
    }
}
