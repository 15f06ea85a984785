//! The user ids of released tenants, so that they are not given again at once.
//!
//! A file of its own in the state directory. It outlives the last tenant: files or processes that a
//! compromised switch left must not belong to the next one. An older version ignores the file.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::reserve::replace;

/// The file's name.
const FILE: &str = "released-users.json";

/// User ids that no tenant has now, the least recently released first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Released {
    uids: Vec<u32>,
}

impl Released {
    /// A missing file is an empty list, and so is a damaged one: then an id may be given early.
    pub(crate) fn read(dir: &Path) -> Self {
        let text = std::fs::read(dir.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Adds the ids that were in use `before` and are not `now`, and removes those in use.
    ///
    /// # Errors
    /// If the file cannot be replaced.
    pub(crate) fn record(
        dir: &Path,
        before: &BTreeSet<u32>,
        now: &BTreeSet<u32>,
    ) -> std::io::Result<()> {
        let old = Self::read(dir);
        let mut uids = old.uids.clone();
        uids.retain(|uid| !now.contains(uid) && !before.contains(uid));
        uids.extend(before.difference(now));
        let new = Self { uids };
        if new == old {
            return Ok(());
        }
        replace(dir, &dir.join(FILE), &serde_json::to_vec(&new)?, 0o600)
    }

    pub(crate) fn into_uids(self) -> Vec<u32> {
        self.uids
    }
}
