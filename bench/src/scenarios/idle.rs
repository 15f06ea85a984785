//! `idle`: the cost of idle switches, and the latency of the first frame that wakes one.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::{Settings, Task, Work, load_of, median};
use crate::load::{Event, Pace};
use crate::network::{Topology, tenants};
use crate::report::{Bar, Chart, Outcome, Table};
use crate::site::{Site, Wires};
use crate::switches::{PollMode, Running, Switch, Vswitch};

/// The number of our switches, or of tenants of one peer.
const TENANTS: u8 = 16;
/// The time without frames before the measurement, so that switches that sleep are asleep.
const SETTLE: Duration = Duration::from_secs(5);
/// Frames a second to one of the switches, each of which wakes it.
const WAKES_PER_SECOND: u64 = 20;

/// The result for our switch on one kind of wires, or for one peer.
#[derive(Debug, Clone, Serialize)]
struct Row {
    /// `ours` or the peer's name.
    switch: String,
    wires: Wires,
    tenants: u8,
    /// The share of one CPU, of all processes together.
    cpu_percent: f64,
    /// Resident memory of all processes together, without hugepages.
    resident_mib: f64,
    /// The latency of a frame through a sleeping switch.
    wake_median_us: Option<f64>,
    wake_p99_us: Option<f64>,
    rounds: u32,
}

/// Measures our switch, as delivered, on kernel interfaces and on memif, and each peer.
///
/// # Errors
/// The first error of a switch or a load.
pub fn run(Task(settings, peers, progress): Task<'_>) -> anyhow::Result<Outcome> {
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
        // The other tenants stay idle.
        let paths = site.paths(topology).into_iter().take(1).collect();
        let pace = Pace::Open {
            per_second: WAKES_PER_SECOND,
        };
        let work = Work::good(paths, settings.plain(), pace);
        let mut load = load_of(settings, &site, switch, &work)?;
        load.wait_for(&Event::Open)?;
        running.connected()?;
        // The load waits for the next line, and sends nothing.
        std::thread::sleep(SETTLE);
        let before = cpu_time(running.as_ref())?;
        std::thread::sleep(settings.measure);
        let after = cpu_time(running.as_ref())?;
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

/// The scheduler's count of the processor time of all threads of a switch's processes.
fn cpu_time(running: &dyn Running) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for process in running.processes() {
        let threads = format!("/proc/{process}/task");
        let threads = std::fs::read_dir(&threads).with_context(|| threads)?;
        for thread in threads {
            let path = thread?.path().join("schedstat");
            let text =
                std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            total += on_cpu(&text).with_context(|| format!("{} holds {text:?}", path.display()))?;
        }
    }
    Ok(total)
}

/// The first number of proc_pid_schedstat(5), in nanoseconds.
fn on_cpu(schedstat: &str) -> Option<Duration> {
    let nanoseconds = schedstat.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// Resident MiB of all processes of a switch.
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
        format!("{TENANTS} idle tenants, and the first frame that wakes a switch"),
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
        title: format!("CPU share of {TENANTS} idle tenants, less is better"),
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
    fn schedstat_parses_to_cpu_time() {
        assert_eq!(
            on_cpu("580054756 141418 19\n"),
            Some(Duration::from_nanos(580_054_756))
        );
        assert_eq!(on_cpu(""), None);
    }
}
