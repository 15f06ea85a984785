//! `nic`: the SR-IOV NICs.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::CliError;
use super::options::Global;
use super::output::{print, print_json};

/// Show the SR-IOV NICs: their functions with settings and users
#[derive(Debug, Args)]
pub(super) struct Nic {}

impl Nic {
    pub(super) fn run(&self, global: &Global) -> Result<ExitCode, CliError> {
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
}
