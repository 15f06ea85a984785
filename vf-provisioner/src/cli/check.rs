//! `check`: whether the host is ready.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use vf_host::{check, state};

use super::CliError;
use super::options::Global;
use super::output::{print, print_json};

/// Check whether this host is ready, and print what to do if not
#[derive(Debug, Args)]
pub(super) struct Check {}

impl Check {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
        // Without root the state cannot be read, which the check says.
        let state = state::read(&global.state_dir).unwrap_or_default();
        let nic = global.nics.kind(global.nic, &state);
        let findings = check::run(&global.launchers.process.binary(), nic);
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
}
