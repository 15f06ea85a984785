//! The control API of a running switch, through its client: the switch's own command line.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

use super::files::TenantFiles;
use super::launched::Launched;
use super::switch::Switch;
use crate::error::HostError;
use crate::files::pin_socket;

/// The ports as the switch reports them.
pub(super) fn ports(files: &TenantFiles, switch: &Switch) -> Result<Vec<u8>, String> {
    command(files, switch, &["show", "ports", "--json"], None)
}

/// Gives a running switch another configuration without losing a frame. A switch that refuses it (a
/// new MTU, for example) returns the reason, and must be restarted.
pub(super) fn reload(
    files: &TenantFiles,
    switch: &Switch,
) -> Result<Result<(), String>, HostError> {
    let launched = files.launched()?;
    files.write_config(&switch.config, switch.uid)?;
    let config = files.config();
    let reload = command(files, switch, &["reload", "--config"], Some(&config));
    match (reload, launched) {
        (Ok(_), Some(launched)) => {
            files.remember(&Launched {
                switch: switch.clone(),
                ..launched
            })?;
            Ok(Ok(()))
        }
        (reload, _) => Ok(Err(reload.err().unwrap_or_default())),
    }
}

/// The socket's folder belongs to the switch, so a link in the place of the socket is not followed.
fn command(
    files: &TenantFiles,
    switch: &Switch,
    arguments: &[&str],
    file: Option<&Path>,
) -> Result<Vec<u8>, String> {
    let socket = files.control_socket();
    let (_file, pinned) = pin_socket(&socket).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("{} is not there", socket.display()),
        _ => format!("{}: {error}", socket.display()),
    })?;
    let mut command = Command::new(&switch.binary);
    command.args(arguments).args(file);
    if let Some(patience) = switch.answers_within() {
        command.args(["--timeout", &patience.as_secs().to_string()]);
    }
    let output = command
        .arg("--control")
        .arg(&pinned)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", switch.binary.display()))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        if message.trim().is_empty() {
            return Err(format!(
                "{} ended without a message ({})",
                switch.binary.display(),
                output.status
            ));
        }
        let (pinned, socket) = (pinned.display().to_string(), socket.display().to_string());
        return Err(message.trim().replace(&pinned, &socket));
    }
    Ok(output.stdout)
}
