//! One result of the host's check.

use std::fmt;
use std::process::Command;

use crate::child;

use serde::Serialize;

/// How severe a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Present.
    Good,
    /// Missing, and only some uses need it.
    Optional,
    /// Missing, and nothing works without it.
    Missing,
}

impl Verdict {
    /// Of something missing that is needed, or not.
    pub(crate) fn unless_needed(needed: bool) -> Self {
        if needed {
            Self::Missing
        } else {
            Self::Optional
        }
    }
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name.
    pub what: &'static str,
    /// The result.
    pub verdict: Verdict,
    /// What was found, and what to do.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict {
            Verdict::Good => "good",
            Verdict::Optional => "optional",
            Verdict::Missing => "MISSING",
        };
        write!(out, "{word:<9} {:<18} {}", self.what, self.detail)
    }
}

impl Finding {
    /// A good finding, or `otherwise` with what to do.
    pub(crate) fn new(
        what: &'static str,
        otherwise: Verdict,
        result: Result<String, String>,
    ) -> Self {
        let (verdict, detail) = match result {
            Ok(detail) => (Verdict::Good, detail),
            Err(detail) => (otherwise, detail),
        };
        Self {
            what,
            verdict,
            detail,
        }
    }
}

/// The version of a program, if it starts.
pub(crate) fn program(name: &str, argument: &str) -> Result<String, String> {
    let output = child::output(Command::new(name).arg(argument), &[])
        .map_err(|error| format!("{name} does not start ({error}): install its package"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
