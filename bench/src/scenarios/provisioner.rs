//! `provisioner`: how long `vf-provisioner` takes by the number of tenants, each with a switch of
//! its own, in network namespaces of this machine.
//!
//! Each tenant has two ports, which are veth pairs, and an uplink on the host's bridge.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::{extremes, median};
use crate::hosts::{Host, Took, available_mib, enough_memory};
use crate::interrupt;
use crate::report::{Bar, Chart, Outcome, Table, figure, spread};

/// The prefix of names of everything that the provisioner makes for this scenario.
const INSTANCE: &str = "bench";
/// The first of its users: in the range that Debian hands out to nobody.
const UID_BASE: u32 = 95_000;
const PORTS: usize = 2;
/// Packet memory of one switch, in MiB: the least that the provisioner takes.
const PACKET_MEMORY_MIB: u32 = 8;
/// What a switch takes at most, in MiB, until switches were measured.
const SWITCH_MIB: f64 = 64.0;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Provisioner {
    /// The numbers of tenants, ascending.
    pub tenants: Vec<usize>,
    /// How often everything but the first apply and the release is measured.
    pub rounds: u32,
    /// The switch's executable, if it is not the one beside this program.
    pub switch: Option<PathBuf>,
}

/// The result for one number of tenants.
#[derive(Debug, Clone, Serialize)]
struct Row {
    tenants: usize,
    ports: usize,
    /// The first apply of all tenants.
    apply_s: f64,
    apply_cpu_s: f64,
    apply_ms_per_tenant: f64,
    /// A plan with nothing to do.
    plan_s: f64,
    plan_spread: [f64; 2],
    plan_cpu_s: f64,
    verify_s: f64,
    verify_spread: [f64; 2],
    verify_cpu_s: f64,
    status_s: f64,
    status_spread: [f64; 2],
    /// An apply of all tenants with nothing to do.
    again_s: f64,
    again_spread: [f64; 2],
    /// An apply of one tenant that got a further address.
    reload_ms: f64,
    reload_spread: [f64; 2],
    reload_cpu_ms: f64,
    /// The release of all tenants.
    release_s: f64,
    /// Resident memory of one switch, which includes pages that switches share.
    switch_resident_mib: f64,
    /// What the machine has less of for each tenant.
    tenant_mib: f64,
    rounds: u32,
}

impl Provisioner {
    /// Measures one number of tenants after the other, with results so far in `rows`.
    ///
    /// # Errors
    /// The first command that fails, and if the memory does not suffice for so many switches.
    pub fn run(&self, progress: &mut dyn FnMut(&str)) -> (Option<Outcome>, anyhow::Result<()>) {
        let mut rows = Vec::new();
        let mut done = Ok(());
        for &tenants in &self.tenants {
            let each = rows.last().map_or(SWITCH_MIB, |row: &Row| row.tenant_mib);
            let row = enough_memory(tenants, each).and_then(|()| self.row(tenants, progress));
            match row {
                Ok(row) => rows.push(row),
                Err(error) => {
                    done = Err(error);
                    break;
                }
            }
        }
        if rows.is_empty() {
            return (None, done);
        }
        match outcome(&rows) {
            Ok(outcome) => (Some(outcome), done),
            Err(error) => (None, done.and(Err(error))),
        }
    }

    fn row(&self, tenants: usize, progress: &mut dyn FnMut(&str)) -> anyhow::Result<Row> {
        let mut step = |what: &str| {
            progress(&format!("{tenants} tenants: {what}"));
            interrupt::check()
        };
        let host = host(self.switch.as_deref(), tenants)?;
        let all = host.files().to_string_lossy().into_owned();
        let before = available_mib();
        step("first apply")?;
        let apply = host.timed(&["apply", &all])?;
        let status = host.status()?;
        let tenant_mib = before.saturating_sub(available_mib()) as f64 / tenants as f64;
        let [mut plan, mut verify, mut shown, mut again, mut reload] = [const { Vec::new() }; 5];
        for round in 1..=self.rounds {
            step(&format!("round {round} of {}", self.rounds))?;
            plan.push(host.timed(&["plan", "--detailed-exit-code", &all])?);
            verify.push(host.timed(&["verify"])?);
            shown.push(host.timed(&["status"])?);
            again.push(host.timed(&["apply", &all])?);
            let changed = write(&host, tenants / 2, round)?;
            reload.push(host.timed(&["apply", &changed.to_string_lossy()])?);
        }
        step("release")?;
        let release = host.timed(&["release", "--all"])?;
        let wall = |all: &[Took]| median(all.iter().map(|took| took.wall.as_secs_f64()));
        let cpu = |all: &[Took]| median(all.iter().map(|took| took.cpu.as_secs_f64()));
        let range = |all: &[Took]| extremes(all.iter().map(|took| took.wall.as_secs_f64()));
        let known = |value: Option<f64>| value.unwrap_or(f64::NAN);
        Ok(Row {
            tenants,
            ports: PORTS,
            apply_s: apply.wall.as_secs_f64(),
            apply_cpu_s: apply.cpu.as_secs_f64(),
            apply_ms_per_tenant: apply.wall.as_secs_f64() * 1e3 / tenants as f64,
            plan_s: known(wall(&plan)),
            plan_spread: range(&plan),
            plan_cpu_s: known(cpu(&plan)),
            verify_s: known(wall(&verify)),
            verify_spread: range(&verify),
            verify_cpu_s: known(cpu(&verify)),
            status_s: known(wall(&shown)),
            status_spread: range(&shown),
            again_s: known(wall(&again)),
            again_spread: range(&again),
            reload_ms: known(wall(&reload)) * 1e3,
            reload_spread: range(&reload).map(|seconds| seconds * 1e3),
            reload_cpu_ms: known(cpu(&reload)) * 1e3,
            release_s: release.wall.as_secs_f64(),
            switch_resident_mib: known(resident_mib(&status)),
            tenant_mib,
            rounds: self.rounds,
        })
    }
}

/// The median resident memory of a switch.
fn resident_mib(status: &Value) -> Option<f64> {
    let tenants = status["tenants"].as_array().into_iter().flatten();
    median(tenants.filter_map(|it| Some(it["switch"]["memory_bytes"].as_u64()? as f64)))
        .map(|bytes| bytes / f64::from(1 << 20))
}

/// A host with this many tenants' files.
fn host(switch: Option<&Path>, tenants: usize) -> anyhow::Result<Host> {
    let host = Host::new(INSTANCE, UID_BASE, PACKET_MEMORY_MIB, switch)?;
    for number in 0..tenants {
        write(&host, number, 0)?;
    }
    Ok(host)
}

/// Writes a tenant's file. The first port has a further address with each `version`.
fn write(host: &Host, number: usize, version: u32) -> anyhow::Result<PathBuf> {
    host.write(&format!("t{number}"), &tenant(number, version))
}

/// The file of a tenant with two ports and an uplink.
fn tenant(number: usize, version: u32) -> String {
    let (high, low) = (number / 250, number % 250 + 1);
    let vni = 1000 + number;
    let mut text = format!(
        "name = \"t{number}\"\nvni = {vni}\n[gateway]\nipv4 = \"10.{high}.{low}.1/24\"\nipv6 = \
         \"fd00:{high}:{low}::1/64\"\n[uplink]\naddress = \"172.16.{high}.{low}/16\"\nnext_hop = \
         \"172.16.255.254\"\n"
    );
    for port in 1..=PORTS {
        let own = 10 * port;
        let further = match port {
            1 if version > 0 => format!(", \"10.{high}.{low}.{}\"", 100 + version % 100),
            _ => String::new(),
        };
        text += &format!(
            "[[port]]\nname = \"t{number}-vm{port}\"\nmac = \"52:54:00:{high:02x}:{low:02x}:\
             {port:02x}\"\naddresses = [\"10.{high}.{low}.{own}\"{further}, \
             \"fd00:{high}:{low}::{own}\"]\n"
        );
    }
    text
}

fn outcome(rows: &[Row]) -> anyhow::Result<Outcome> {
    let row = |row: &Row| {
        vec![
            row.tenants.to_string(),
            figure(row.apply_s),
            figure(row.apply_ms_per_tenant),
            spread(row.plan_s, row.plan_spread),
            figure(row.plan_cpu_s),
            spread(row.verify_s, row.verify_spread),
            figure(row.verify_cpu_s),
            spread(row.status_s, row.status_spread),
            spread(row.again_s, row.again_spread),
            spread(row.reload_ms, row.reload_spread),
            figure(row.release_s),
            figure(row.tenant_mib),
        ]
    };
    let table = Table::new(
        "vf-provisioner on tenants of two ports and an uplink, seconds",
        [
            "tenants",
            "apply",
            "ms a tenant",
            "plan (spread)",
            "plan CPU",
            "verify (spread)",
            "verify CPU",
            "status (spread)",
            "apply again (spread)",
            "reload of one, ms (spread)",
            "release",
            "MiB a tenant",
        ],
    );
    let bars = |row: &Row| {
        let bar = |value, [low, high]: [f64; 2]| Some(Bar { value, low, high });
        let bars = vec![
            bar(row.plan_s, row.plan_spread),
            bar(row.verify_s, row.verify_spread),
            bar(row.reload_ms / 1e3, row.reload_spread.map(|ms| ms / 1e3)),
        ];
        (format!("{} tenants", row.tenants), bars)
    };
    let chart = Chart {
        title: "The provisioner with nothing to do, and with one changed tenant, less is better"
            .to_owned(),
        unit: "seconds".to_owned(),
        series: ["plan", "verify", "reload of one"]
            .map(str::to_owned)
            .to_vec(),
        groups: rows.iter().map(bars).collect(),
    };
    let table = table.with(rows.iter().map(row));
    Outcome::new("provisioner", rows, table, vec![chart])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn tenants_are_valid_and_differ_in_all_that_must() {
        let files = tempfile::tempdir().expect("a directory");
        for number in 0..600 {
            let path = files.path().join(format!("t{number}.toml"));
            fs::write(path, tenant(number, 7)).expect("it is written");
        }
        let all = tenant_config::load_all(&[files.path().to_owned()]).expect("they are valid");
        assert_eq!(all.len(), 600);
        let same = tenant(3, 0);
        assert_ne!(same, tenant(3, 1));
        assert_ne!(tenant(3, 1), tenant(3, 2));
    }

    #[test]
    fn resident_memory_is_the_median_of_the_running_switches() {
        let status = serde_json::json!({"tenants": [
            {"switch": {"memory_bytes": 3 << 20}}, {"switch": null},
            {"switch": {"memory_bytes": 5 << 20}}
        ]});
        assert_eq!(resident_mib(&status), Some(4.0));
    }
}
