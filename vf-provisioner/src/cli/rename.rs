//! `rename`: gives a tenant another name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicUsize;

use clap::Args;
use tenant_config::{Name, TenantFiles, load_each};
use vf_host::apply::{Change, apply};
use vf_host::batch::{Outcome, Part};
use vf_host::state::{HostLock, Record, State};

use super::apply::Done;
use super::options::Global;
use super::output::{complain, unknown};
use super::wanted::Wanted;
use super::{CliError, need_root};

/// Give a tenant the name that its file has now. Guests keep their links and addresses; the switch
/// is restarted, and keeps its user, its log and its leases
#[derive(Debug, Args)]
pub(super) struct Rename {
    /// The name that it has on this host
    #[arg(value_name = "TENANT")]
    old: Name,
    /// Its file, in which the new name is set
    file: PathBuf,
}

impl Rename {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        need_root()?;
        let mut store = HostLock::open(&global.state_dir)?;
        let renamed = self.rename(global, &mut store);
        store.remove_if_empty()?;
        renamed
    }

    fn rename(&self, global: &Global, store: &mut HostLock) -> Result<ExitCode, CliError> {
        let Some(new) = self.new_name()? else {
            return Ok(ExitCode::from(2));
        };
        let is_done = self.check(&new, store.state())?;
        // What the tenant has is its own under the new name.
        let mut state = store.state().clone();
        if let Some(record) = state.tenants.remove(&self.old).filter(|_| !is_done) {
            state.tenants.insert(new.clone(), record);
        }
        let mut wanted = global.wanted(std::slice::from_ref(&self.file), &state, false)?;
        let refused = wanted.complaints();
        for line in &refused {
            complain(&format!("vf-provisioner: {line}"));
        }
        if !refused.is_empty() {
            return Ok(ExitCode::from(2));
        }
        let mut change = wanted.change();
        if !is_done {
            change.release = BTreeSet::from([self.old.clone()]);
            change.renamed = BTreeMap::from([(new.clone(), self.old.clone())]);
        }
        let done = global.change_together(store, &change, &wanted);
        done.print(global);
        Ok(ExitCode::from(done.exit_code()))
    }

    /// The name in the file; `None`, and why, if it is invalid.
    fn new_name(&self) -> Result<Option<Name>, CliError> {
        let usage = |why: &str| CliError::Usage(format!("{}: {why}", self.file.display()));
        if self.file.is_dir() {
            return Err(usage("it is a directory: name the tenant's file"));
        }
        let TenantFiles { valid, invalid } =
            load_each(std::slice::from_ref(&self.file), &|_| false);
        for error in invalid.iter().flat_map(|file| file.errors.as_slice()) {
            complain(&format!("vf-provisioner: {error}"));
        }
        let Some((_, tenant)) = valid.first() else {
            return Ok(None);
        };
        if *tenant.name() == self.old {
            let why = format!(
                "name: it is still {}: set the new name there first",
                self.old
            );
            return Err(usage(&why));
        }
        Ok(Some(tenant.name().clone()))
    }

    /// Whether the tenant has the new name already; an error if it cannot get it.
    fn check(&self, new: &Name, state: &State) -> Result<bool, CliError> {
        let (old, tenants) = (&self.old, &state.tenants);
        let refused = |why: &str| Err(CliError::Usage(format!("tenant {old}: {why}")));
        match (tenants.get(old), tenants.get(new)) {
            (None, Some(record)) if record.formerly.as_ref() == Some(old) => Ok(true),
            (None, _) => Err(CliError::Usage(unknown(old, state).to_string())),
            (Some(_), Some(_)) => refused(&format!("{new} is onboarded, too: release one of them")),
            (Some(record), None) if !record.complete => {
                refused("it is interrupted: apply its former file, or release it")
            }
            (Some(record), None) if is_bound(record) => refused(
                "it has functions of a NIC, or its switch is a machine: release it, and apply \
                 the file",
            ),
            (Some(_), None) => Ok(false),
        }
    }
}

/// Whether what the tenant has cannot be renamed: functions are cleaned between two tenants, and a
/// machine is known by its tenant.
fn is_bound(record: &Record) -> bool {
    let is_machine = record
        .switch()
        .is_some_and(|switch| switch.machine.is_some());
    is_machine
        || record
            .resources
            .iter()
            .any(|it| it.idle_settings().is_some())
}

impl Global {
    /// Carries out a change that succeeds or fails as a whole.
    fn change_together(&self, store: &mut HostLock, change: &Change, wanted: &Wanted) -> Done {
        let passed = AtomicUsize::new(0);
        let result = apply(&mut self.host(), store, change, &|| self.crash(&passed));
        let part = Part::Set(change.set.keys().cloned().collect());
        let outcome = Outcome { part, result };
        if let Err(error) = &outcome.result {
            complain(&format!(
                "vf-provisioner: {}: {error}",
                wanted.part(&outcome.part)
            ));
        }
        Done::new(vec![outcome], wanted)
    }
}
