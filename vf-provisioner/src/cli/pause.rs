//! `drain`, `stop`, `start` and `restart`: whether onboarded tenants run.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use tenant_config::Name;
use vf_host::apply::Change;
use vf_host::state::{HostLock, Mode, Record};
use vswitch_api::endpoint::ports::Ports;

use super::apply::Done;
use super::options::Global;
use super::output::{complain, unknown};
use super::wanted::Wanted;
use super::{CliError, need_root};

/// How long the guests' ports must be silent to count as drained.
const SILENT_FOR: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Which tenants.
#[derive(Debug, Args)]
struct Which {
    /// Which ones
    #[arg(required_unless_present = "all", value_name = "TENANT")]
    tenants: Vec<Name>,
    /// All of them
    #[arg(long, conflicts_with = "tenants")]
    all: bool,
}

/// Take the links of tenants' guests down, and wait until their switches have forwarded what was
/// under way. The switches keep running. Exits with 3 if a port does not fall silent in time
#[derive(Debug, Args)]
pub(super) struct Drain {
    #[command(flatten)]
    which: Which,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    within: u32,
}

/// Stop tenants' switches and take the links of their guests down. Everything else of them stays,
/// and they stay stopped until they are started, whatever is applied and whoever supervises
#[derive(Debug, Args)]
pub(super) struct Stop {
    #[command(flatten)]
    which: Which,
}

/// Start tenants that were stopped or drained, as they were applied last
#[derive(Debug, Args)]
pub(super) struct Start {
    #[command(flatten)]
    which: Which,
}

/// Stop tenants' switches and start them again, as after an upgrade of the switch's executable. The
/// links of guests stay up
#[derive(Debug, Args)]
pub(super) struct Restart {
    #[command(flatten)]
    which: Which,
}

impl Drain {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        let drained = self.which.change(global, Whether::Stays, |record| {
            record.paused(Mode::Drained)
        })?;
        let within = Duration::from_secs(self.within.into());
        let mut loud = Vec::new();
        for (name, record) in &drained.records {
            if let Err(why) = wait_until_silent(global, record, within) {
                loud.push(format!("tenant {name}: {why}"));
            }
        }
        drained.done.print(global);
        for line in &loud {
            complain(&format!("vf-provisioner: {line}"));
        }
        Ok(ExitCode::from(match drained.code {
            0 if !loud.is_empty() => 3,
            code => code,
        }))
    }
}

impl Stop {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        let stopped = self.which.change(global, Whether::Stays, |record| {
            record.paused(Mode::Stopped)
        })?;
        stopped.done.print(global);
        Ok(ExitCode::from(stopped.code))
    }
}

impl Start {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        let started = self.which.change(global, Whether::Stays, Record::started)?;
        started.done.print(global);
        Ok(ExitCode::from(started.code))
    }
}

impl Restart {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        let restarted = self
            .which
            .change(global, Whether::Restarts, |record| record)?;
        restarted.done.print(global);
        Ok(ExitCode::from(restarted.code))
    }
}

/// Whether a change restarts switches that run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whether {
    Stays,
    Restarts,
}

/// How a change of modes ended.
struct Changed {
    done: Done,
    /// The tenants that are as they should be now.
    records: BTreeMap<Name, Record>,
    code: u8,
}

impl Which {
    fn change(
        &self,
        global: &Global,
        whether: Whether,
        mode: impl Fn(Record) -> Record,
    ) -> Result<Changed, CliError> {
        need_root()?;
        let mut store = HostLock::open(&global.state_dir)?;
        let state = store.state();
        let mut code = 0;
        let names: BTreeSet<Name> = match self.all {
            true => state.tenants.keys().cloned().collect(),
            false => self.tenants.iter().cloned().collect(),
        };
        let mut set = BTreeMap::new();
        for name in names {
            let Some(record) = state.tenants.get(&name) else {
                complain(&format!("vf-provisioner: {}", unknown(&name, state)));
                code = 2;
                continue;
            };
            if !record.complete {
                complain(&format!(
                    "vf-provisioner: tenant {name} is interrupted: apply its file first"
                ));
                code = 1;
                continue;
            }
            set.insert(name, mode(record.clone()));
        }
        let restart = set.keys().filter(|_| whether == Whether::Restarts);
        let change = Change {
            restart: restart.cloned().collect(),
            set,
            ..Change::default()
        };
        let done = global.apply(&mut store, &change, None, false, &Wanted::default());
        store.remove_if_empty()?;
        let code = match done.exit_code() {
            0 => code,
            failed => failed,
        };
        let records = change.set.into_iter().filter(|(name, _)| done.is_set(name));
        let records = records.collect();
        Ok(Changed {
            done,
            records,
            code,
        })
    }
}

/// Waits until the switch receives nothing more from guests.
fn wait_until_silent(global: &Global, record: &Record, within: Duration) -> Result<(), String> {
    let Some(switch) = record.running_switch() else {
        return Ok(());
    };
    let uplink = tenant_config::UPLINK_NAME;
    let received = |ports: &Ports| -> u64 {
        let guests = ports.ports.iter().filter(|port| port.name != uplink);
        let frames = guests.map(|port| port.rx_frames);
        frames.fold(0, u64::saturating_add)
    };
    let until = Instant::now() + within;
    let mut last = None;
    let mut since = Instant::now();
    loop {
        let now = received(&global.switches().ports(switch)?);
        if last != Some(now) {
            (last, since) = (Some(now), Instant::now());
        } else if since.elapsed() >= SILENT_FOR {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(format!(
                "its guests still send after {} s, {now} frames so far",
                within.as_secs()
            ));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
