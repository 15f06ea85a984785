//! The commands.

mod options;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use tenant_config::{Name, Tenant};

use options::{Cli, Command, Global};

use vf_host::accounts::account_of;
use vf_host::apply::{ApplyError, Change, apply, never, plan_change};
use vf_host::check;
use vf_host::error::{HostError, OptionError};
use vf_host::host::FakeHost;
use vf_host::hugepages::Hugepages;
use vf_host::launcher::registry::LauncherKind;
use vf_host::launcher::{Launcher, ask, confine, vm};
use vf_host::nic::mediation::{self, Options, Weakness, onboarded};
use vf_host::nic::sriov::sysfs;
use vf_host::plan::{Action, Plan};
use vf_host::resource::Resource;
use vf_host::state::{self, HostLock, Record, State, StateError};
use vf_host::status;
use vf_host::supervise;
use vf_host::tenants::{PlacementError, Site, records};
use vf_host::verify::{UnderWay, verify};
use vswitch_api::plain::{self, PlainWriter};

/// How a command fails.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Tenants(#[from] tenant_config::ConfigErrors),
    #[error(transparent)]
    Placement(#[from] PlacementError),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Tenants(_) | Self::Placement(_) | Self::Usage(_) => 2,
            Self::Apply(ApplyError::Plan(_) | ApplyError::Refused { .. }) => 2,
            Self::Apply(_) | Self::State(_) | Self::Failed(_) => 1,
        }
    }
}

impl From<OptionError> for CliError {
    fn from(error: OptionError) -> Self {
        match error {
            OptionError::Usage(message) => Self::Usage(message),
            OptionError::Host(error) => Self::Failed(error.to_string()),
        }
    }
}

/// Parses the command line and runs it.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let step = match &cli.command {
        Command::Ask => Some(ask::answer()),
        Command::Confine { inner: None } => Some(confine::outer()),
        Command::Confine { inner: Some(task) } => Some(Err(confine::inner(task))),
        _ => None,
    };
    if let Some(result) = step {
        return match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                complain(&message);
                ExitCode::from(1)
            }
        };
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("VF_PROVISIONER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| PlainWriter(std::io::stderr()))
        .with_ansi(false)
        .without_time()
        .init();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            if cli.global.json {
                print_json(&json!({"error": error.to_string()}));
            }
            complain(&format!("vf-provisioner: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// What is printed may quote a switch, a log or a file, so a terminal must not obey it. A closed
/// standard output is no failure.
fn print(text: &str) {
    let _ = PlainWriter(std::io::stdout()).write_all(text.as_bytes());
}

fn complain(text: &str) {
    let _ = writeln!(PlainWriter(std::io::stderr()), "{text}");
}

fn print_json(value: &serde_json::Value) {
    // Every value can be written.
    print(&plain::json_pretty(value).unwrap_or_default());
    print("\n");
}

fn run(cli: &Cli) -> Result<ExitCode, CliError> {
    let global = &cli.global;
    match &cli.command {
        Command::Check => run_check(global),
        Command::Nic => run_nic(global),
        Command::Plan {
            tenants,
            detailed_exit_code,
            print_libvirt,
            fake_host,
        } if !print_libvirt => run_plan(global, tenants, *detailed_exit_code, fake_host.as_deref()),
        Command::Plan { tenants, .. } => print_libvirt(global, tenants),
        Command::Apply {
            tenants,
            prove,
            no_prove,
        } => {
            need_root()?;
            let tenants = load(tenants)?;
            let mut store = HostLock::open(&global.state_dir)?;
            let applied = global.records(&tenants, store.state()).and_then(|set| {
                let names: BTreeSet<Name> = set.keys().cloned().collect();
                let before: BTreeSet<Name> = store.state().tenants.keys().cloned().collect();
                let change = Change {
                    set,
                    ..Change::default()
                };
                let code = global.apply(&mut store, change, *no_prove)?;
                if *prove {
                    global.prove(&mut store, &names, &before)?;
                }
                Ok(code)
            });
            if applied.is_err() {
                // A refused apply leaves nothing, not even an empty state.
                store.remove_if_empty()?;
            }
            applied
        }
        Command::Status { tenant, metrics } => run_status(global, tenant.as_ref(), *metrics),
        Command::Verify => run_verify(global),
        Command::Probe {
            tenants,
            wire,
            accept,
        } => run_probe(global, tenants, wire.as_deref(), accept),
        Command::Release { tenants, all } => {
            need_root()?;
            run_release(global, tenants, *all)
        }
        Command::Supervise {
            verify_every,
            metrics,
        } => {
            need_root()?;
            let every = std::time::Duration::from_secs(*verify_every);
            let dir = &global.state_dir;
            let metrics = metrics.as_deref();
            supervise::run(dir, &|| global.host(), &global.switches(), every, metrics)
                .map_err(|error| CliError::Failed(error.to_string()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Ask | Command::Confine { .. } => Ok(ExitCode::SUCCESS),
    }
}

fn need_root() -> Result<(), CliError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(CliError::Usage(
        "this needs root to make network namespaces and control groups: run it with sudo"
            .to_owned(),
    ))
}

fn load(paths: &[PathBuf]) -> Result<Vec<Tenant>, CliError> {
    Ok(tenant_config::load_all(paths)?)
}

impl Global {
    fn records(
        &self,
        tenants: &[Tenant],
        state: &State,
    ) -> Result<BTreeMap<Name, Record>, CliError> {
        let launcher = self.launchers.launcher(self.launcher, &self.instance)?;
        self.records_for(&*launcher, tenants, state)
    }

    fn records_for(
        &self,
        launcher: &dyn Launcher,
        tenants: &[Tenant],
        state: &State,
    ) -> Result<BTreeMap<Name, Record>, CliError> {
        let site = Site {
            placement: self.placement()?,
            uid_base: self.uid_base,
            uids_in_use: check::uids_in_use(),
            released_uids: state::released_uids(&self.state_dir),
            account_of,
        };
        let nic = self.nics.backend(self.nic, &self.names(), state)?;
        let records = records(tenants, state, &site, &*nic, launcher)?;
        self.enough_hugepages(launcher, &records, state)?;
        Ok(records)
    }

    /// Refuses switches that would not start for lack of hugepages.
    fn enough_hugepages(
        &self,
        launcher: &dyn Launcher,
        records: &BTreeMap<Name, Record>,
        state: &State,
    ) -> Result<(), CliError> {
        let new = records
            .keys()
            .filter(|name| !state.tenants.contains_key(name));
        let needed = new.count() as u64 * u64::from(launcher.hugepages_mib());
        if !self.launchers.process.hugepages || self.nics.sriov.is_fake() || needed == 0 {
            return Ok(());
        }
        let host = Hugepages::read();
        let more = host.missing(needed);
        if more == 0 {
            return Ok(());
        }
        let (free_mib, size_kib) = ((host.free * host.page_bytes) >> 20, host.page_bytes >> 10);
        Err(CliError::Usage(format!(
            "--hugepages: the new switches need {needed} MiB and {free_mib} MiB are free: reserve \
             {more} more pages of {size_kib} KiB (`sysctl vm.nr_hugepages`), or leave out \
             --hugepages"
        )))
    }

    /// Probes with real frames whether any frame of these tenants bypasses their switches.
    fn prove(
        &self,
        store: &mut HostLock,
        names: &BTreeSet<Name>,
        before: &BTreeSet<Name>,
    ) -> Result<(), CliError> {
        let locks = store.lock_tenants(names)?;
        let look = || -> Result<(), HostError> {
            let inventory = sysfs::read()?;
            let switches = self.switches();
            let control = |name: &Name| switches.control_socket(name);
            for group in onboarded::groups(store.state(), &inventory, names, control, None)? {
                if let Some(message) = group.unanswered.into_iter().next() {
                    return Err(HostError::Program {
                        program: "the mediation probe",
                        message,
                    });
                }
                let mut options = Options::new(group.fabric);
                options.accepted = group.accepted;
                mediation::require(&group.stations, &options)?;
            }
            Ok(())
        };
        let looked = look();
        drop(locks);
        let Err(error) = looked else {
            if !self.json {
                print("no frame gets around their switches\n");
            }
            return Ok(());
        };
        let release: BTreeSet<Name> = names.difference(before).cloned().collect();
        let taken = match release.len() {
            0 => "the tenants were onboarded before and stay".to_owned(),
            count => format!("the {count} new tenants were released again"),
        };
        let change = Change {
            release,
            ..Change::default()
        };
        apply(&mut self.host(), store, &change, &mut never())?;
        Err(CliError::Failed(format!("{error}; {taken}")))
    }

    fn apply(
        &self,
        store: &mut HostLock,
        change: Change,
        skip_probe: bool,
    ) -> Result<ExitCode, CliError> {
        let mut host = self.host();
        host.skip_probe = skip_probe;
        let applied = match self.kill_at {
            None => apply(&mut host, store, &change, &mut never())?,
            Some(at) => {
                let mut left = at;
                let mut crash = || {
                    if left == 0 {
                        let _ = nix::sys::signal::kill(
                            nix::unistd::getpid(),
                            nix::sys::signal::Signal::SIGKILL,
                        );
                    }
                    left = left.saturating_sub(1);
                    false
                };
                apply(&mut host, store, &change, &mut crash)?
            }
        };
        if self.json {
            print_json(&json!(applied));
        } else if applied.actions.is_empty() {
            print("nothing to do\n");
        } else {
            print(&format!("{} actions done", applied.actions.len()));
            if !applied.probed.is_empty() {
                print(&format!(
                    "; {} gateways answered with real frames",
                    applied.probed.len()
                ));
            }
            print("\n");
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn run_check(global: &Global) -> Result<ExitCode, CliError> {
    let findings = check::run(&global.launchers.process.binary(), global.nic);
    let ready = check::is_ready(&findings);
    if global.json {
        print_json(&json!({"ready": ready, "findings": findings}));
    } else {
        for finding in &findings {
            print(&format!("{finding}\n"));
        }
        print(if ready {
            "this host is ready\n"
        } else {
            "this host is not ready\n"
        });
    }
    Ok(ExitCode::from(if ready { 0 } else { 3 }))
}

fn run_nic(global: &Global) -> Result<ExitCode, CliError> {
    let inventory = global.nics.sriov.inventory()?;
    if global.json {
        print_json(&json!(inventory));
    } else if inventory.pfs.is_empty() {
        print("this host has no SR-IOV NIC\n");
    } else {
        print(&inventory.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

fn run_plan(
    global: &Global,
    tenants: &[PathBuf],
    detailed_exit_code: bool,
    fake_host: Option<&Path>,
) -> Result<ExitCode, CliError> {
    let tenants = load(tenants)?;
    let state = state::read(&global.state_dir)?;
    let change = Change {
        set: global.records(&tenants, &state)?,
        ..Change::default()
    };
    let plan = match fake_host {
        Some(file) => {
            let failed = |error: &dyn std::fmt::Display| {
                CliError::Usage(format!("{}: {error}", file.display()))
            };
            let text = std::fs::read(file).map_err(|error| failed(&error))?;
            let objects: Vec<Resource> =
                serde_json::from_slice(&text).map_err(|error| failed(&error))?;
            let mut host = FakeHost::default();
            host.objects
                .extend(objects.into_iter().map(|object| (object.key(), object)));
            plan_change(&host, &state, &change)?
        }
        None => {
            need_root()?;
            plan_change(&global.host(), &state, &change)?
        }
    };
    if global.json {
        print_json(&json!(plan));
    } else {
        print_plan(&plan);
    }
    let code = if detailed_exit_code && !plan.actions.is_empty() {
        3
    } else {
        0
    };
    Ok(ExitCode::from(code))
}

/// The machines that an apply would make, or would make with `--launcher libvirt`.
fn print_libvirt(global: &Global, tenants: &[PathBuf]) -> Result<ExitCode, CliError> {
    let tenants = load(tenants)?;
    let state = state::read(&global.state_dir)?;
    let kind = match global.launcher {
        LauncherKind::Process => LauncherKind::Libvirt,
        machine => machine,
    };
    let launcher = global.launchers.launcher(kind, &global.instance)?;
    let records = global.records_for(&*launcher, &tenants, &state)?;
    let context = global.context();
    for record in records.values() {
        let switch = record.switch();
        let domain = switch.and_then(|switch| vm::domain(&context, switch));
        print(&domain.unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}

fn print_plan(plan: &Plan) {
    if plan.actions.is_empty() {
        print("nothing to do\n");
    }
    for action in &plan.actions {
        let sign = match action {
            Action::Create { .. } => '+',
            Action::Update { .. } => '~',
            Action::Delete { .. } => '-',
        };
        print(&format!("{sign} {action}\n"));
    }
}

fn run_status(global: &Global, only: Option<&Name>, metrics: bool) -> Result<ExitCode, CliError> {
    let state = state::read(&global.state_dir)?;
    let switches = global.switches();
    if let Some(name) = only
        && !state.tenants.contains_key(name)
    {
        return Err(unknown(name, &state));
    }
    let all = status::look(&switches, &state, only)
        .map_err(|error| CliError::Failed(error.to_string()))?;
    if metrics {
        print(&status::metrics(&all));
    } else if global.json {
        print_json(&status::document(&all));
    } else {
        print(&status::table(&all));
        let asked = |name: &Name| only.is_none_or(|only| only == name);
        for (name, record) in state.tenants.iter().filter(|(name, _)| asked(name)) {
            if let Some(line) = accepted(name, record) {
                print(&line);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings that a tenant's file allows its NIC to lack, as a line.
fn accepted(name: &Name, record: &Record) -> Option<String> {
    let names: Vec<_> = record.accepted().iter().map(ToString::to_string).collect();
    (!names.is_empty()).then(|| {
        format!(
            "tenant {name}: accepted by its file, not checked: {}\n",
            names.join(", ")
        )
    })
}

fn unknown(name: &Name, state: &State) -> CliError {
    let known: Vec<&str> = state.tenants.keys().map(Name::as_str).collect();
    let known = if known.is_empty() {
        "none is".to_owned()
    } else {
        known.join(", ")
    };
    CliError::Usage(format!(
        "tenant {name} is not onboarded (onboarded: {known})"
    ))
}

fn run_verify(global: &Global) -> Result<ExitCode, CliError> {
    need_root()?;
    let (dir, none) = (&global.state_dir, BTreeSet::new());
    let found = verify(&|| global.host(), dir, &none, UnderWay::Wait)?.unwrap_or_default();
    let tenants = state::read(dir)?.tenants;
    if global.json {
        let accepted: BTreeMap<_, _> = tenants
            .iter()
            .map(|(name, record)| (name, record.accepted()))
            .filter(|(_, accepted)| !accepted.is_empty())
            .collect();
        print_json(&json!({"drift": found, "accepted": accepted}));
        return Ok(ExitCode::from(if found.is_empty() { 0 } else { 3 }));
    }
    for (name, record) in &tenants {
        if let Some(line) = accepted(name, record) {
            print(&line);
        }
    }
    let tenants = tenants.len();
    if found.is_empty() {
        print(&format!("{tenants} tenants: everything is as it was set\n"));
    } else {
        for line in &found {
            print(&format!("{line}\n"));
        }
    }
    Ok(ExitCode::from(if found.is_empty() { 0 } else { 3 }))
}

fn run_probe(
    global: &Global,
    tenants: &[Name],
    wire: Option<&str>,
    accept: &[Weakness],
) -> Result<ExitCode, CliError> {
    need_root()?;
    // Waits for an apply under way, whose unfinished work cannot be probed.
    let store = HostLock::open(&global.state_dir)?;
    let state = store.state();
    if let Some(name) = tenants
        .iter()
        .find(|name| !state.tenants.contains_key(*name))
    {
        return Err(unknown(name, state));
    }
    let chosen: BTreeSet<Name> = match tenants {
        [] => state.tenants.keys().cloned().collect(),
        some => some.iter().cloned().collect(),
    };
    let failed = |error: HostError| CliError::Failed(error.to_string());
    let _locks = store.lock_tenants(&chosen)?;
    let switches = global.switches();
    let control = |name: &Name| switches.control_socket(name);
    let inventory = global.nics.sriov.inventory()?;
    let groups = onboarded::groups(state, &inventory, &chosen, control, wire).map_err(failed)?;
    let mut reports = Vec::new();
    let mut unanswered = Vec::new();
    for group in groups {
        unanswered.extend(group.unanswered);
        let mut options = Options::new(group.fabric);
        options.accepted = group.accepted;
        options.accepted.extend(accept);
        reports.push(mediation::run(&group.stations, &options).map_err(failed)?);
    }
    let good = unanswered.is_empty() && reports.iter().all(mediation::Report::is_good);
    if global.json {
        print_json(&json!({"good": good, "unanswered": unanswered, "reports": reports}));
    } else if reports.is_empty() {
        print("no tenant is onboarded\n");
    } else {
        for report in &reports {
            print(&report.to_string());
        }
        for sentence in &unanswered {
            print(&format!("{sentence}\n"));
        }
        print(if good {
            "everything is as it must be\n"
        } else {
            "not everything is as it must be\n"
        });
    }
    store.remove_if_empty()?;
    Ok(ExitCode::from(if good { 0 } else { 3 }))
}

fn run_release(global: &Global, tenants: &[Name], all: bool) -> Result<ExitCode, CliError> {
    let mut store = HostLock::open(&global.state_dir)?;
    let release: BTreeSet<Name> = if all {
        store.state().tenants.keys().cloned().collect()
    } else {
        tenants.iter().cloned().collect()
    };
    let change = Change {
        release,
        ..Change::default()
    };
    for name in &change.release {
        if !store.state().tenants.contains_key(name) {
            complain(&format!("vf-provisioner: tenant {name} is not onboarded"));
        }
    }
    let code = global.apply(&mut store, change, false)?;
    store.remove_if_empty()?;
    Ok(code)
}
