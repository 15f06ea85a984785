//! Programs that are run to their end.

use std::process::Command;

use anyhow::{Context, bail};

/// What a command writes; an error is what it says.
pub(crate) fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}", format!("{error} {said}").trim());
    }
    Ok(said)
}

/// The same of one that has nothing to tell.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    said(command).map(drop)
}
