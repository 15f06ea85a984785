//! `apply`: onboards tenants.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use nix::sys::signal::{self, Signal};
use serde_json::{Value, json};
use tenant_config::Name;
use vf_host::apply::{Applied, Change, apply, never};
use vf_host::batch::{Looked, Outcome, Part, Progress, apply_seen, look};
use vf_host::error::HostError;
use vf_host::nic::mediation::{self, Options, onboarded};
use vf_host::nic::sriov::sysfs;
use vf_host::plan::Action;
use vf_host::state::{self, HostLock};

use super::options::Global;
use super::output::{complain, paused_lines, print, print_json};
use super::progress::Shown;
use super::wanted::Wanted;
use super::{CliError, need_root};

/// Onboard these tenants: afterwards each one's switch runs and answers. Each succeeds or fails
/// alone: all completed steps of one that fails are rolled back, and the others are onboarded.
/// Tenants that are not named stay as they are
#[derive(Debug, Args)]
pub(super) struct Apply {
    /// Tenants' files, or directories of them (*.toml)
    #[arg(required = true, value_name = "DIR|FILE")]
    tenants: Vec<PathBuf>,
    /// Release tenants of this host that have no file in the directories
    #[arg(long)]
    prune: bool,
    /// Repeat the mediation probe when all switches run. If it finds a leak, new tenants are
    /// released again
    #[arg(long)]
    prove: bool,
    /// Skip the mediation probe of new virtual functions before their switches start
    #[arg(long, conflicts_with = "prove")]
    no_prove: bool,
}

impl Apply {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        need_root()?;
        // Nobody waits while this looks at the host.
        let before = state::read(&global.state_dir)?;
        let mut wanted = global.wanted(&self.tenants, &before, self.prune)?;
        let change = wanted.change();
        let looked = look(&global.host(), &change);
        let mut store = HostLock::open(&global.state_dir)?;
        let applied = if *store.state() == before {
            self.apply(global, &mut store, &wanted, &change, Some(looked))
        } else {
            let wanted = global.wanted(&self.tenants, store.state(), self.prune);
            wanted.and_then(|mut wanted| {
                let change = wanted.change();
                self.apply(global, &mut store, &wanted, &change, None)
            })
        };
        // A refused apply leaves nothing, not even an empty state.
        store.remove_if_empty()?;
        applied
    }

    fn apply(
        &self,
        global: &Global,
        store: &mut HostLock,
        wanted: &Wanted,
        change: &Change,
        looked: Option<Looked<'_>>,
    ) -> Result<ExitCode, CliError> {
        let refused = wanted.complaints();
        for line in &refused {
            complain(&format!("vf-provisioner: {line}"));
        }
        let before: BTreeSet<Name> = store.state().tenants.keys().cloned().collect();
        let mut done = global.apply(store, change, looked, self.no_prove, wanted);
        done.refused = refused;
        done.unnamed = wanted.unnamed.difference(&wanted.prune).cloned().collect();
        if self.prove {
            global.prove(store, &done.set, &before)?;
        }
        done.print(global);
        if !global.json {
            print(&paused_lines(store.state(), wanted));
            print(&wanted.unnamed_line().unwrap_or_default());
        }
        Ok(ExitCode::from(done.exit_code()))
    }
}

/// What became of the parts of a change.
pub(super) struct Done {
    /// The tenants that are as they should be.
    set: BTreeSet<Name>,
    actions: Vec<Action>,
    probed: Vec<Name>,
    /// Why something failed, and the code that says so.
    failed: Vec<(String, u8)>,
    /// What could not be tried.
    refused: Vec<String>,
    /// Tenants without a file.
    unnamed: Vec<Name>,
    parts: Vec<Value>,
}

impl Done {
    pub(super) fn new(outcomes: Vec<Outcome<Applied>>, wanted: &Wanted) -> Self {
        let mut done = Self {
            set: BTreeSet::new(),
            actions: Vec::new(),
            probed: Vec::new(),
            failed: Vec::new(),
            refused: Vec::new(),
            unnamed: Vec::new(),
            parts: Vec::new(),
        };
        for Outcome { part, result } in outcomes {
            let (actions, error) = match result {
                Ok(applied) => {
                    if let Part::Set(names) = &part {
                        done.set.extend(names.iter().cloned());
                    }
                    done.probed.extend(applied.probed);
                    let count = applied.actions.len();
                    done.actions.extend(applied.actions);
                    (count, None)
                }
                Err(error) => {
                    let text = format!("{}: {error}", wanted.part(&part));
                    let code = CliError::Apply(error).exit_code();
                    done.failed.push((text.clone(), code));
                    (0, Some(text))
                }
            };
            done.parts
                .push(json!({"part": part, "actions": actions, "error": error}));
        }
        done
    }

    /// Says what was done.
    pub(super) fn print(&self, global: &Global) {
        if global.json {
            print_json(&json!({
                "actions": self.actions,
                "probed": self.probed,
                "parts": self.parts,
                "refused": self.refused,
                "unnamed": self.unnamed,
            }));
        } else if !self.actions.is_empty() {
            let mut text = format!("{} actions done", self.actions.len());
            if !self.probed.is_empty() {
                let count = self.probed.len();
                text += &format!("; {count} gateways answered with real frames");
            }
            print(&format!("{text}\n"));
        } else if self.failed.is_empty() && self.refused.is_empty() {
            print("nothing to do\n");
        }
    }

    /// Whether the tenant is as it should be.
    pub(super) fn is_set(&self, name: &Name) -> bool {
        self.set.contains(name)
    }

    /// That of the worst failure: what was tried counts more than what was not.
    pub(super) fn exit_code(&self) -> u8 {
        let codes = self.failed.iter().map(|(_, code)| *code);
        let refused = self.refused.iter().map(|_| 2);
        codes.chain(refused).min().unwrap_or(0)
    }
}

impl Wanted {
    /// A part of a change as messages name it.
    pub(super) fn part(&self, part: &Part) -> String {
        let (Part::Release(names) | Part::Set(names)) = part else {
            return match part {
                Part::LeftOver => "left over".to_owned(),
                _ => "shared by tenants".to_owned(),
            };
        };
        let labels: Vec<String> = names.iter().map(|name| self.label(name)).collect();
        labels.join(", ")
    }
}

impl Global {
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
        apply(&mut self.host(), store, &change, &never())?;
        Err(CliError::Failed(format!("{error}; {taken}")))
    }

    /// Kills this program at the moment that fault injection asks for; never returns true.
    pub(super) fn crash(&self, passed: &AtomicUsize) -> bool {
        if self.kill_at == Some(passed.fetch_add(1, Ordering::Relaxed)) {
            let _ = signal::kill(nix::unistd::getpid(), Signal::SIGKILL);
        }
        false
    }

    /// Carries out the change, each part by itself, and says what fails.
    pub(super) fn apply(
        &self,
        store: &mut HostLock,
        change: &Change,
        looked: Option<Looked<'_>>,
        skip_probe: bool,
        wanted: &Wanted,
    ) -> Done {
        let mut host = self.host();
        host.skip_probe = skip_probe;
        let passed = AtomicUsize::new(0);
        let crash = || self.crash(&passed);
        let shown = Shown::new(change.set.len() + change.release.len(), self.json);
        let report = |progress: Progress<'_>| shown.tell(&progress, &|part| wanted.part(part));
        Done::new(
            apply_seen(&mut host, store, change, looked, &crash, &report),
            wanted,
        )
    }
}
