//! The output of programs.

use std::fmt::Debug;
use std::process::Output;

/// The output of a program, which must have succeeded.
#[track_caller]
pub(crate) fn written(output: &Output, command: impl Debug) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
