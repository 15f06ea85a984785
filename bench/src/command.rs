//! Runs programs to their end.

use std::process::Command;

use anyhow::{Context, bail};

/// Runs a command and returns its standard output; the error holds everything it printed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}", format!("{error} {printed}").trim());
    }
    Ok(printed)
}

/// Runs a command whose output does not matter.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    output(command).map(drop)
}
