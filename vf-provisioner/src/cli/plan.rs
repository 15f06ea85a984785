//! `plan`: what an apply would do.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use tenant_config::Name;
use vf_host::batch::{Outcome, plan_each};
use vf_host::host::FakeHost;
use vf_host::interruption::{Interruption, interruptions};
use vf_host::launcher::registry::LauncherKind;
use vf_host::launcher::vm;
use vf_host::plan::{Action, Plan as Steps};
use vf_host::resource::Resource;
use vf_host::state::{self, State};
use vf_host::status::replaced;

use super::options::Global;
use super::output::{complain, paused_lines, print, print_json};
use super::wanted::Wanted;
use super::{CliError, need_root};

/// Print what apply would do, and whom that interrupts; changes nothing
#[derive(Debug, Args)]
pub(super) struct Plan {
    /// Tenants' files, or directories of them (*.toml)
    #[arg(required = true, value_name = "DIR|FILE")]
    tenants: Vec<PathBuf>,
    /// Exit with 3 if there is something to do
    #[arg(long)]
    detailed_exit_code: bool,
    /// Release tenants of this host that have no file in the directories
    #[arg(long)]
    prune: bool,
    /// Print the tenants' virtual machines as libvirt's domains instead; needs no root
    #[arg(long)]
    print_libvirt: bool,
    /// Plan against the objects in this JSON file instead of this host; needs no root
    #[arg(long, hide = true, value_name = "FILE")]
    fake_host: Option<PathBuf>,
}

impl Plan {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        if self.print_libvirt {
            return print_libvirt(global, &self.tenants);
        }
        let state = state::read(&global.state_dir)?;
        let mut wanted = global.wanted(&self.tenants, &state, self.prune)?;
        let change = wanted.change();
        let parts = match &self.fake_host {
            Some(file) => plan_each(&read_fake(file)?, &state, &change),
            None => {
                need_root()?;
                plan_each(&global.host(), &state, &change)
            }
        };
        let planned = Planned::new(global, &state, &wanted, parts);
        planned.print(global, &wanted);
        Ok(ExitCode::from(match planned.actions.is_empty() {
            _ if !planned.refused.is_empty() => 2,
            false if self.detailed_exit_code => 3,
            _ => 0,
        }))
    }
}

/// What an apply would do.
struct Planned {
    actions: Vec<Action>,
    interruptions: Vec<Interruption>,
    /// A line about each switch whose executable was replaced.
    replaced: Vec<String>,
    refused: Vec<String>,
    /// A line about each tenant that is stopped.
    paused: String,
}

impl Planned {
    fn new(global: &Global, state: &State, wanted: &Wanted, parts: Vec<Outcome<Steps>>) -> Self {
        let switches = global.switches();
        let last_start_s = |name: &Name| switches.last_start_s(name);
        let mut planned = Self {
            actions: Vec::new(),
            interruptions: Vec::new(),
            replaced: Vec::new(),
            refused: wanted.complaints(),
            paused: paused_lines(state, wanted),
        };
        for Outcome { part, result } in parts {
            match result {
                Ok(plan) => {
                    let more = interruptions(&part, &plan, state, &last_start_s);
                    planned.interruptions.extend(more);
                    planned.actions.extend(plan.actions);
                }
                Err(error) => {
                    let line = format!("{}: {error}", wanted.part(&part));
                    planned.refused.push(line);
                }
            }
        }
        for name in wanted.files.keys() {
            let path = switches.replaced(name);
            planned
                .replaced
                .extend(path.map(|path| replaced(name, &path, None)));
        }
        planned
    }

    fn print(&self, global: &Global, wanted: &Wanted) {
        if global.json {
            print_json(&json!({
                "actions": self.actions,
                "interruptions": self.interruptions,
                "replaced": self.replaced,
                "unnamed": wanted.unnamed,
                "refused": self.refused,
            }));
        } else {
            print_actions(&self.actions);
            for it in &self.interruptions {
                print(&format!("! {it}\n"));
            }
            for line in &self.replaced {
                print(&format!("{line}\n"));
            }
            print(&self.paused);
            print(&wanted.unnamed_line().unwrap_or_default());
        }
        for line in &self.refused {
            complain(&format!("vf-provisioner: {line}"));
        }
    }
}

fn read_fake(file: &Path) -> Result<FakeHost, CliError> {
    let failed =
        |error: &dyn std::fmt::Display| CliError::Usage(format!("{}: {error}", file.display()));
    let text = std::fs::read(file).map_err(|error| failed(&error))?;
    let objects: Vec<Resource> = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
    let mut host = FakeHost::default();
    host.objects
        .extend(objects.into_iter().map(|object| (object.key(), object)));
    Ok(host)
}

/// The machines that an apply would make, or would make with `--launcher libvirt`.
fn print_libvirt(global: &Global, tenants: &[PathBuf]) -> Result<ExitCode, CliError> {
    let state = state::read(&global.state_dir)?;
    let kind = match global.launcher {
        LauncherKind::Process => LauncherKind::Libvirt,
        machine => machine,
    };
    let wanted = global.wanted_with(Some(kind), tenants, &state, false)?;
    let context = global.context();
    for record in wanted.set.values() {
        let switch = record.switch();
        let domain = switch.and_then(|switch| vm::domain(&context, switch));
        print(&domain.unwrap_or_default());
    }
    let refused = wanted.complaints();
    for line in &refused {
        complain(&format!("vf-provisioner: {line}"));
    }
    Ok(ExitCode::from(if refused.is_empty() { 0 } else { 2 }))
}

fn print_actions(actions: &[Action]) {
    if actions.is_empty() {
        print("nothing to do\n");
    }
    for action in actions {
        let sign = match action {
            Action::Create { .. } => '+',
            Action::Update { .. } => '~',
            Action::Delete { .. } => '-',
        };
        print(&format!("{sign} {action}\n"));
    }
}
