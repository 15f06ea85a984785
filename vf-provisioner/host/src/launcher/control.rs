//! The control API of a running switch, through its client: the switch's own command line.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use vswitch_api::client::{Client, ClientError};
use vswitch_api::endpoint::Endpoint;

use super::files::TenantFiles;
use super::launched::Launched;
use super::switch::Switch;
use crate::error::HostError;
use crate::files::pin_socket;

/// How long a switch may take to say that it forwards frames, if its launcher does not say more.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// Why a switch does not say that it forwards frames, if it does not. The wait is bounded.
pub(super) fn unready(files: &TenantFiles, switch: &Switch) -> Option<String> {
    let socket = files.control_socket();
    let (_file, pinned) = match pin(&socket) {
        Ok(pinned) => pinned,
        Err(message) => return Some(message),
    };
    let client = Client::new(&pinned, switch.answers_within().unwrap_or(READY_WITHIN));
    let error = client.get(Endpoint::Readyz.spec().path).err()?;
    if let ClientError::Refused(_) = error {
        return Some("its worker forwards no frames".to_owned());
    }
    Some(named(&error.to_string(), &pinned, &socket))
}

/// The socket's folder belongs to the switch, so a link in the place of the socket is not followed.
fn pin(socket: &Path) -> Result<(File, PathBuf), String> {
    pin_socket(socket).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("{} is not there", socket.display()),
        _ => format!("{}: {error}", socket.display()),
    })
}

/// A message about the pinned socket, with the socket's name.
fn named(message: &str, pinned: &Path, socket: &Path) -> String {
    let (pinned, socket) = (pinned.display().to_string(), socket.display().to_string());
    message.replace(&pinned, &socket)
}

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

fn command(
    files: &TenantFiles,
    switch: &Switch,
    arguments: &[&str],
    file: Option<&Path>,
) -> Result<Vec<u8>, String> {
    let socket = files.control_socket();
    let (_file, pinned) = pin(&socket)?;
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
        return Err(named(message.trim(), &pinned, &socket));
    }
    Ok(output.stdout)
}
