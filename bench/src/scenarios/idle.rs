//! `idle`: what switches cost that have nothing to do, and how long the first frame takes that ends it.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::{Settings, Work, load_of, median};
use crate::load::{Event, Pace};
use crate::network::{Topology, tenants};
use crate::report::{Bar, Chart, Outcome, Table};
use crate::site::{Site, Wires};
use crate::switches::{Peer, PollMode, Running, Switch, Vswitch};

/// Switches of ours, or tenants of a peer's one switch.
const TENANTS: u8 = 16;
/// Nothing is sent for so long before the first look, so that whoever sleeps by then sleeps.
const SETTLE: Duration = Duration::from_secs(5);
/// Frames a second that wake one of the switches, each out of its sleep.
const WAKES_PER_SECOND: u64 = 20;

/// One kind of wires, or one peer.
#[derive(Debug, Clone, Serialize)]
struct Row {
    /// `ours` or the peer's name.
    switch: String,
    wires: Wires,
    tenants: u8,
    /// Of one CPU, all processes together.
    cpu_percent: f64,
    /// Resident memory of all processes together, without hugepages.
    resident_mib: f64,
    /// From a frame's sending into a sleeping switch to its coming out.
    wake_median_us: Option<f64>,
    wake_p99_us: Option<f64>,
    rounds: u32,
}

/// Measures ours, as it is delivered, on kernel interfaces and on memif, and each peer.
///
/// # Errors
/// The first that a switch or a load has.
pub fn run(
    settings: &Settings,
    peers: &[Peer],
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Outcome> {
    let mut rows = Vec::new();
    for wires in [Wires::Veth, Wires::Memif] {
        let ours = Vswitch {
            wires,
            poll: PollMode::Adaptive,
        };
        rows.push(row(settings, "ours", &ours, progress)?);
    }
    for peer in peers {
        rows.push(row(
            settings,
            &peer.to_string(),
            peer.switch().as_ref(),
            progress,
        )?);
    }
    outcome(&rows)
}

fn row(
    settings: &Settings,
    name: &str,
    switch: &dyn Switch,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Row> {
    let topology = Topology::P2p;
    let (mut cpu, mut resident, mut wake) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=settings.rounds {
        progress(&format!(
            "{TENANTS} tenants, {name} on {}: round {round} of {}",
            switch.wires(),
            settings.rounds
        ));
        let tenants = tenants(TENANTS, topology.size());
        let site = Site::lay(switch.wires(), settings.cpus, tenants)?;
        let mut running = switch.start(&site)?;
        // The others stay idle.
        let paths = site.paths(topology).into_iter().take(1).collect();
        let pace = Pace::Open {
            per_second: WAKES_PER_SECOND,
        };
        let work = Work::good(paths, settings.plain(), pace);
        let mut load = load_of(settings, &site, switch, &work)?;
        load.wait_for(&Event::Open)?;
        running.connected()?;
        // The load waits for us, and sends nothing.
        std::thread::sleep(SETTLE);
        let before = spent(running.as_ref())?;
        std::thread::sleep(settings.measure);
        let after = spent(running.as_ref())?;
        cpu.push((after - before).as_secs_f64() / settings.measure.as_secs_f64() * 100.0);
        resident.push(memory(running.as_ref())?);
        load.end_phase()?;
        load.wait_for(&Event::Begin)?;
        load.wait_for(&Event::End)?;
        let report = load.finish()?;
        drop(running);
        wake.extend(report.paths[0].latency);
    }
    Ok(Row {
        switch: name.to_owned(),
        wires: switch.wires(),
        tenants: TENANTS,
        cpu_percent: median(cpu).unwrap_or(f64::NAN),
        resident_mib: median(resident).unwrap_or(f64::NAN),
        wake_median_us: median(wake.iter().map(|latency| latency.median_us())),
        wake_p99_us: median(wake.iter().map(|latency| latency.p99_us())),
        rounds: settings.rounds,
    })
}

/// Processor time of all threads of a switch's processes, as the scheduler counts it, to the nanosecond.
fn spent(running: &dyn Running) -> anyhow::Result<Duration> {
    let mut spent = Duration::ZERO;
    for process in running.processes() {
        let threads = format!("/proc/{process}/task");
        let threads = std::fs::read_dir(&threads).with_context(|| threads)?;
        for thread in threads {
            let path = thread?.path().join("schedstat");
            let text =
                std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            spent += on_cpu(&text).with_context(|| format!("{} says {text:?}", path.display()))?;
        }
    }
    Ok(spent)
}

/// The first number of proc_pid_schedstat(5), in nanoseconds.
fn on_cpu(schedstat: &str) -> Option<Duration> {
    let nanoseconds = schedstat.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// MiB in memory of all of a switch's processes.
fn memory(running: &dyn Running) -> anyhow::Result<f64> {
    let mut kib = 0;
    for process in running.processes() {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        kib += status
            .lines()
            .find_map(|line| {
                let value = line.strip_prefix("VmRSS:")?.split_whitespace().next()?;
                value.parse::<u64>().ok()
            })
            .unwrap_or(0);
    }
    Ok(kib as f64 / 1024.0)
}

fn outcome(rows: &[Row]) -> anyhow::Result<Outcome> {
    let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
    let row = |row: &Row| {
        vec![
            row.switch.clone(),
            row.wires.to_string(),
            format!("{:.2}", row.cpu_percent),
            format!("{:.1}", row.resident_mib),
            shown(row.wake_median_us),
            shown(row.wake_p99_us),
        ]
    };
    let table = Table::new(
        format!("{TENANTS} tenants without a frame, and the first frame after that"),
        [
            "switch",
            "wires",
            "CPU %",
            "MiB",
            "wake median µs",
            "wake p99 µs",
        ],
    );
    let bar = |row: &Row| {
        let label = format!("{} {}", row.switch, row.wires);
        (label, vec![Some(Bar::exact(row.cpu_percent))])
    };
    let chart = Chart {
        title: format!("What {TENANTS} idle tenants take, less is better"),
        unit: "% of a CPU".to_owned(),
        series: vec!["CPU".to_owned()],
        groups: rows.iter().map(bar).collect(),
    };
    Outcome::new("idle", rows, table.with(rows.iter().map(row)), vec![chart])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheduler_tells_the_time_on_a_cpu() {
        assert_eq!(
            on_cpu("580054756 141418 19\n"),
            Some(Duration::from_nanos(580_054_756))
        );
        assert_eq!(on_cpu(""), None);
    }
}
