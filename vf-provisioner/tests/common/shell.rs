//! What tests do by hand on their host.

use std::process::Command;

use crate::output::written;

/// Runs a shell's line, which must succeed; what it wrote.
#[track_caller]
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).output();
    written(&output.expect("sh starts"), command)
}
