//! Shell commands of tests.

use std::process::Command;

use crate::output::written;

/// Runs a shell command, which must succeed; returns its output.
#[track_caller]
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).output();
    written(&output.expect("sh starts"), command)
}
