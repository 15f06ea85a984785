//! `ike`: the IKE daemons of many tenants: their memory, and how long all tunnels take until they
//! carry packets, after the first apply and after one of two hosts has lost all its processes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::{Process, all_processes};
use serde::Serialize;

use super::median;
use crate::hosts::{End, Joined, Protection, enough_memory};
use crate::interrupt;
use crate::report::{Bar, Chart, Outcome, Table, figure};
use crate::switches::ChildGuard;

/// The programs that it needs beside those of the hosts.
pub const PROGRAMS: [&str; 1] = ["ping"];

const PROTECTION: Protection = Protection(Some("aes256gcm16"));
/// What a tenant takes at most, in MiB: two switches and two daemons.
const TENANT_MIB: f64 = 100.0;

/// The result for one number of tenants.
#[derive(Debug, Clone, Serialize)]
struct Row {
    tenants: usize,
    /// The first apply on both hosts, with all switches and daemons.
    apply_s: f64,
    /// From its end until every tenant's VMs reach each other.
    first_s: f64,
    /// From the end of all switches and daemons of one host to that, by `supervise` alone.
    again_s: f64,
    /// Medians of one daemon.
    daemon_resident_mib: f64,
    daemon_proportional_mib: f64,
}

/// Measures one number of tenants after the other.
///
/// # Errors
/// The first command that fails, a tunnel that carries nothing, and too little memory.
pub fn run(numbers: &[usize], progress: &mut dyn FnMut(&str)) -> anyhow::Result<Outcome> {
    let mut rows = Vec::new();
    for &tenants in numbers {
        enough_memory(tenants, TENANT_MIB)?;
        rows.push(row(tenants, progress)?);
    }
    outcome(&rows)
}

fn row(tenants: usize, progress: &mut dyn FnMut(&str)) -> anyhow::Result<Row> {
    let mut step = |what: &str| {
        progress(&format!("{tenants} tenants: {what}"));
        interrupt::check()
    };
    let joined = Joined::new(tenants)?;
    step("first apply")?;
    let began = Instant::now();
    joined.apply(PROTECTION)?;
    let apply = began.elapsed();
    joined.wait_for_answers()?;
    let first = began.elapsed() - apply;
    let memory = daemons(&joined)?;
    ensure!(
        memory.len() == 2 * tenants,
        "{} daemons run for {tenants} tenants on two hosts",
        memory.len()
    );
    let each = |of: fn(&Memory) -> u64| {
        let bytes = median(memory.iter().map(|it| of(it) as f64));
        bytes.unwrap_or(f64::NAN) / f64::from(1 << 20)
    };
    step("one host starts again")?;
    let again = start_again(&joined)?;
    step("release")?;
    Ok(Row {
        tenants,
        apply_s: apply.as_secs_f64(),
        first_s: first.as_secs_f64(),
        again_s: again.as_secs_f64(),
        daemon_resident_mib: each(|it| it.resident),
        daemon_proportional_mib: each(|it| it.proportional),
    })
}

/// Memory of one daemon, in bytes.
struct Memory {
    resident: u64,
    proportional: u64,
}

/// The memory of the daemons of both hosts.
fn daemons(joined: &Joined) -> anyhow::Result<Vec<Memory>> {
    let all = [End::Near, End::Far].map(|end| confined(joined, end));
    let [near, far] = all;
    let mut memory = Vec::new();
    for process in near?.into_iter().chain(far?) {
        let program = process.cmdline().unwrap_or_default();
        if !program
            .first()
            .is_some_and(|it| it.ends_with("/vswitch-charon"))
        {
            continue;
        }
        let rollup = process.smaps_rollup()?;
        let sum = |name: &str| {
            let maps = rollup.memory_map_rollup.0.iter();
            maps.filter_map(|map| map.extension.map.get(name)).sum()
        };
        memory.push(Memory {
            resident: sum("Rss"),
            proportional: sum("Pss"),
        });
    }
    Ok(memory)
}

/// The processes of the tenants of a host: those of its users.
fn confined(joined: &Joined, end: End) -> anyhow::Result<Vec<Process>> {
    let users = joined.host(end).users();
    let processes = all_processes()?.filter_map(Result::ok);
    Ok(processes
        .filter(|process| process.uid().is_ok_and(|uid| users.contains(&uid)))
        .collect())
}

/// Ends all processes of the tenants of the near host, as a crash of the host does, and lets
/// `supervise` bring them back.
fn start_again(joined: &Joined) -> anyhow::Result<Duration> {
    for process in confined(joined, End::Near)? {
        // One may have ended by itself.
        let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
    }
    let began = Instant::now();
    let mut supervise = joined.host(End::Near).command()?;
    supervise.arg("supervise").stdout(Stdio::null());
    let mut supervisor = ChildGuard(supervise.spawn().context("cannot run vf-provisioner")?);
    joined.wait_for_answers()?;
    let took = began.elapsed();
    // Only then it gives up what it owns.
    kill(Pid::from_raw(supervisor.0.id() as i32), Signal::SIGTERM)?;
    supervisor.0.wait()?;
    Ok(took)
}

fn outcome(rows: &[Row]) -> anyhow::Result<Outcome> {
    let table = Table::new(
        "ike: tunnels under IPsec between two hosts of this machine",
        [
            "tenants",
            "apply on both, s",
            "until all tunnels carry packets, s",
            "after one host's restart, s",
            "MiB resident, a daemon",
            "proportional",
        ],
    );
    let row = |row: &Row| {
        vec![
            row.tenants.to_string(),
            figure(row.apply_s),
            figure(row.first_s),
            figure(row.again_s),
            figure(row.daemon_resident_mib),
            figure(row.daemon_proportional_mib),
        ]
    };
    let bars = |row: &Row| {
        let bar = |value| {
            let (low, high) = (value, value);
            Some(Bar { value, low, high })
        };
        let bars = vec![bar(row.first_s), bar(row.again_s)];
        (format!("{} tenants", row.tenants), bars)
    };
    let chart = Chart {
        title: "Until all tunnels carry packets, less is better".to_owned(),
        unit: "seconds".to_owned(),
        series: ["after the first apply", "after one host's restart"]
            .map(str::to_owned)
            .to_vec(),
        groups: rows.iter().map(bars).collect(),
    };
    let table = table.with(rows.iter().map(row));
    Outcome::new("ike", rows, table, vec![chart])
}
