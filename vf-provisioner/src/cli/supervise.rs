//! `supervise`: watches the switches.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use vf_host::supervise::{self, MendRule};

use super::options::Global;
use super::{CliError, need_root};

/// Watch the switches: restart those that are dead or forward nothing, recreate what is missing,
/// set again what differs, complete killed applies. Ends on SIGTERM or SIGINT; the switches keep
/// running
#[derive(Debug, Args)]
pub(super) struct Supervise {
    /// Seconds between two verifications; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    verify_every: u64,
    /// Whether settings that differ from what was set are set again (on), or only reported
    /// (report). TENANT=on and TENANT=report are for one tenant. Lost objects are made again in
    /// either case
    #[arg(long, value_name = "[TENANT=]on|report", value_delimiter = ',')]
    mend: Vec<MendRule>,
    /// Write metrics to this file, in Prometheus' text format for a textfile collector
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
}

impl Supervise {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        need_root()?;
        let options = supervise::Options {
            verify_every: Duration::from_secs(self.verify_every),
            policy: self.mend.iter().cloned().collect(),
            metrics: self.metrics.clone(),
        };
        let dir = &global.state_dir;
        supervise::run(dir, &|| global.host(), &global.switches(), &options)
            .map_err(|error| CliError::Failed(error.to_string()))?;
        Ok(ExitCode::SUCCESS)
    }
}
