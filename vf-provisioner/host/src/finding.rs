//! What is said of whether this host can carry tenants.

use std::fmt;
use std::process::{Command, Stdio};

use serde::Serialize;

/// How much hangs on a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is there.
    Good,
    /// It is not there, and only some uses need it.
    Optional,
    /// It is not there, and nothing works without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// With which result.
    pub verdict: Verdict,
    /// What was seen, and what to do.
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

/// Whether a program starts, and which version it is.
pub(crate) fn program(name: &str, argument: &str) -> Result<String, String> {
    let output = Command::new(name)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{name} does not start ({error}): install its package"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
