//! `release`: removes tenants from the host.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use tenant_config::Name;
use vf_host::apply::Change;
use vf_host::state::HostLock;

use super::options::Global;
use super::output::{complain, unknown as unknown_tenant};
use super::wanted::Wanted;
use super::{CliError, need_root};

/// Stop tenants' switches and remove everything made for them. Exits with 2 if a tenant is not
/// onboarded
#[derive(Debug, Args)]
pub(super) struct Release {
    /// Which ones
    #[arg(required_unless_present = "all", value_name = "TENANT")]
    tenants: Vec<Name>,
    /// All of them, and everything that an interrupted apply left
    #[arg(long, conflicts_with = "tenants")]
    all: bool,
    /// Exit with 0 if a tenant is not onboarded
    #[arg(long)]
    ignore_missing: bool,
}

impl Release {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        need_root()?;
        let mut store = HostLock::open(&global.state_dir)?;
        let release: BTreeSet<Name> = if self.all {
            store.state().tenants.keys().cloned().collect()
        } else {
            self.tenants.iter().cloned().collect()
        };
        let change = Change {
            release,
            ..Change::default()
        };
        let unknown = change.release.iter();
        let unknown: Vec<String> = unknown
            .filter(|name| !store.state().tenants.contains_key(*name))
            .map(|name| unknown_tenant(name, store.state()).to_string())
            .collect();
        // What an interrupted release has left belongs to a tenant that is not recorded any more.
        let completes = !store.state().left_over().is_empty();
        for line in unknown.iter().filter(|_| !completes) {
            complain(&format!("vf-provisioner: {line}"));
        }
        let done = global.apply(&mut store, &change, None, false, &Wanted::default());
        done.print(global);
        store.remove_if_empty()?;
        let missing = !unknown.is_empty() && !completes && !self.ignore_missing;
        match done.exit_code() {
            0 if missing => Ok(ExitCode::from(2)),
            code => Ok(ExitCode::from(code)),
        }
    }
}
