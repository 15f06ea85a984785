//! `journal`: who changed tenants, what, when, and with which result.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use tenant_config::Name;
use vf_host::history::{self, Filter};

use super::CliError;
use super::options::Global;
use super::output::{print, print_json};

/// Show who changed tenants, what, when, and with which result: applies, releases, restored backups
/// and the supervisor's repairs. The last one or two MiB of it are kept
#[derive(Debug, Args)]
pub(super) struct Journal {
    /// Only changes of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<Name>,
    /// Only changes since then: 90s, 15m, 2h or 7d ago, or a UTC time, 2026-11-29 or
    /// 2026-11-29T17:30
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<f64>,
}

fn time(text: &str) -> Result<f64, String> {
    history::time_of(text, history::now())
}

impl Journal {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        let filter = Filter {
            tenant: self.tenant.clone(),
            since: self.since,
        };
        let dir = &global.state_dir;
        let changes = history::read(dir, &filter).map_err(|error| {
            CliError::Failed(format!(
                "cannot read the journal in {}: {error}",
                dir.display()
            ))
        })?;
        if global.json {
            print_json(&json!({"changes": changes}));
        } else {
            print(&history::lines(&changes));
        }
        Ok(ExitCode::SUCCESS)
    }
}
