//! What the supervisor cannot set right, for `status`: a file in the state directory that is
//! replaced when that changes, and removed when there is nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tenant_config::Name;

use crate::files::replace;
use crate::state::TROUBLES;

/// By tenant.
pub type Troubles = BTreeMap<Name, Trouble>;

/// Why a tenant is not as it was set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// What is the matter, as the end of a sentence.
    pub state: String,
    /// Why.
    pub why: String,
    /// Since when, in seconds since the epoch.
    pub since: f64,
    /// When it is tried again, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<f64>,
}

impl Trouble {
    pub(super) fn new(state: &str, why: &str, since: f64) -> Self {
        Self {
            state: state.to_owned(),
            why: why.to_owned(),
            since,
            next_try: None,
        }
    }

    pub(super) fn again(self, next_try: Option<f64>) -> Self {
        Self { next_try, ..self }
    }

    /// Whether it says the same; a time is computed anew at each look.
    fn is_same(&self, other: &Self) -> bool {
        let near = match (self.next_try, other.next_try) {
            (Some(one), Some(other)) => (one - other).abs() < 0.5,
            (one, other) => one == other,
        };
        near && (&self.state, &self.why) == (&other.state, &other.why)
    }
}

/// The troubles that the supervisor last wrote. Without a supervisor they are those of the last
/// one, and without a readable file none.
pub fn troubles(dir: &Path) -> Troubles {
    let text = std::fs::read(dir.join(TROUBLES)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The file.
pub(super) struct TroublesFile {
    path: PathBuf,
    written: Option<Troubles>,
}

impl TroublesFile {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            path: dir.join(TROUBLES),
            written: None,
        }
    }

    /// Writes what has changed.
    pub(super) fn write(&mut self, troubles: Troubles) {
        let is_same = self.written.as_ref().is_some_and(|written| {
            let pairs = written.iter().zip(&troubles);
            let mut pairs = pairs.map(|(one, other)| one.0 == other.0 && one.1.is_same(other.1));
            written.len() == troubles.len() && pairs.all(|same| same)
        });
        if is_same {
            return;
        }
        let written = if troubles.is_empty() {
            match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        } else {
            let text = serde_json::to_vec(&troubles).unwrap_or_default();
            replace(&self.path, &text, 0o600)
        };
        // A full disk is no reason to try at every look: what is written next says it all.
        if let Err(error) = written {
            tracing::warn!(file = %self.path.display(), %error, "status does not show troubles");
        }
        self.written = Some(troubles);
    }
}
