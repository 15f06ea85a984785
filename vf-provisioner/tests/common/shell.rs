//! What tests do by hand on their host.

use std::process::Command;

/// Runs a shell's line, which must succeed; what it wrote.
#[track_caller]
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).output();
    let output = output.expect("sh starts");
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
