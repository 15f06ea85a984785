//! `probe`: the mediation probe of onboarded tenants.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use tenant_config::Name;
use vf_host::error::HostError;
use vf_host::nic::mediation::{self, Options, Weakness, onboarded};
use vf_host::state::HostLock;

use super::options::Global;
use super::output::{print, print_json, unknown};
use super::{CliError, need_root};

/// Show with real frames that no tenant's frame bypasses its switch: guests send everything
/// that they could try, and only their own switch may receive it. Switches count the frames
/// that they drop
#[derive(Debug, Args)]
pub(super) struct Probe {
    /// Only these tenants send [default: all]
    #[arg(value_name = "TENANT")]
    tenants: Vec<Name>,
    /// An interface at the other end of the NIC's cable, or of the bridge's wire: frames that
    /// reach it, or come from it, are reported
    #[arg(long, value_name = "INTERFACE")]
    wire: Option<String>,
    /// Accepted weaknesses: forged-source, uplink-tag [default: those that the tenants' files
    /// accept]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    accept: Vec<Weakness>,
}

impl Probe {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        let (tenants, wire) = (self.tenants.as_slice(), self.wire.as_deref());
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
        let groups =
            onboarded::groups(state, &inventory, &chosen, control, wire).map_err(failed)?;
        let mut reports = Vec::new();
        let mut unanswered = Vec::new();
        for group in groups {
            unanswered.extend(group.unanswered);
            let mut options = Options::new(group.fabric);
            options.accepted = group.accepted;
            options.accepted.extend(&self.accept);
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
}
