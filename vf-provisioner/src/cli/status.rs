//! `status`: each tenant's switch.

use std::process::ExitCode;

use clap::Args;
use tenant_config::Name;
use vf_host::{state, status, supervise};

use super::CliError;
use super::options::Global;
use super::output::{accepted, print, print_json, unknown};

/// Show each tenant's switch and its usage. Exits with 3 if one is not up
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Only this tenant
    tenant: Option<Name>,
    /// Print it in Prometheus' text format
    #[arg(long, conflicts_with = "json")]
    metrics: bool,
}

impl Status {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        let only = self.tenant.as_ref();
        let state = state::read(&global.state_dir)?;
        let switches = global.switches();
        if let Some(name) = only
            && !state.tenants.contains_key(name)
        {
            return Err(unknown(name, &state));
        }
        let mut all = status::look(&switches, &state, only)
            .map_err(|error| CliError::Failed(error.to_string()))?;
        status::add_troubles(&mut all, supervise::troubles(&global.state_dir));
        if self.metrics {
            print(&status::metrics(&all));
        } else if global.json {
            print_json(&status::document(&all));
        } else {
            print(&status::table(&all));
            print(&status::trouble_lines(&all));
            for line in all.iter().filter_map(status::Status::replaced) {
                print(&format!("{line}\n"));
            }
            let asked = |name: &Name| only.is_none_or(|only| only == name);
            for (name, record) in state.tenants.iter().filter(|(name, _)| asked(name)) {
                if let Some(line) = accepted(name, record) {
                    print(&line);
                }
            }
            for line in all.iter().flat_map(status::Status::unprotected) {
                print(&format!("{line}\n"));
            }
        }
        // Metrics say it themselves.
        let good = self.metrics || all.iter().all(status::Status::is_up);
        Ok(ExitCode::from(if good { 0 } else { 3 }))
    }
}
