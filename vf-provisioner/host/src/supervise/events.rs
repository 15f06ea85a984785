//! What happened, one JSON object per line on standard output.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;
use tenant_config::{Name, PciAddress};
use vswitch_api::channel::Totals;
use vswitch_api::plain;

use crate::key::Key;

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    Watching {
        tenant: &'a Name,
    },
    Down {
        tenant: &'a Name,
        /// By port, what it had counted a few seconds before.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        last_counters: BTreeMap<String, Totals>,
    },
    /// It is alive and executes nothing: it is killed, to be restarted.
    Stuck {
        tenant: &'a Name,
        why: String,
    },
    Restarted {
        tenant: &'a Name,
        /// From its death being seen to its being ready again.
        outage_s: f64,
    },
    /// The leases that its predecessor reported were given to it.
    LeasesRestored {
        tenant: &'a Name,
        leases: usize,
    },
    RestartFailed {
        tenant: &'a Name,
        error: String,
        next_try_s: f64,
    },
    /// These objects do not exist any more; they are made again.
    Missing {
        tenant: &'a Name,
        objects: Vec<String>,
    },
    /// These objects were made again, as they were recorded.
    Healed {
        tenant: &'a Name,
        objects: Vec<String>,
    },
    HealFailed {
        tenant: &'a Name,
        error: String,
        next_try_s: f64,
    },
    /// A killed apply was completed; or, with the error, it could not be, and the tenant is as it
    /// was before.
    Recovered {
        tenant: Option<&'a Name>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// What a killed apply or release had left was removed.
    Removed {
        objects: Vec<String>,
    },
    RecoverFailed {
        #[serde(skip_serializing_if = "Option::is_none")]
        tenant: Option<&'a Name>,
        error: String,
        next_try_s: f64,
    },
    /// This tenant's switch cannot be watched now; the others' are.
    WatchFailed {
        tenant: &'a Name,
        error: String,
    },
    /// There are more tenants than the supervisor has descriptors for.
    TooManyTenants {
        error: String,
    },
    /// The state cannot be read; the tenants are watched as it last said.
    StateUnreadable {
        error: String,
    },
    Released {
        tenant: &'a Name,
    },
    /// It has another name now.
    Renamed {
        tenant: &'a Name,
        to: &'a Name,
    },
    /// An operator has drained or stopped it.
    Paused {
        tenant: &'a Name,
        mode: &'static str,
    },
    /// One that was drained or stopped runs again.
    Resumed {
        tenant: &'a Name,
    },
    /// The lock of its In/Out port is lost: the port was taken down.
    Unlocked {
        tenant: &'a Name,
        why: &'a str,
    },
    /// The lock is back, and the port is up.
    Locked {
        tenant: &'a Name,
        /// From the loss being seen.
        closed_s: f64,
    },
    /// The port cannot be taken down, or the lock not be restored; it is tried again.
    LockFailed {
        tenant: &'a Name,
        error: String,
    },
    /// So many hugepages were missing for its switch, and were reserved.
    HugepagesReserved {
        tenant: &'a Name,
        pages: u64,
    },
    /// What differs from what was set: of a tenant, or what an interrupted apply has left.
    Drift {
        #[serde(skip_serializing_if = "Option::is_none")]
        tenant: Option<&'a Name>,
        found: &'a [String],
    },
    /// These settings differed, and were set again.
    Mended {
        tenant: &'a Name,
        changes: Vec<String>,
    },
    /// What was repaired has changed again: the next repair waits.
    Contended {
        tenant: &'a Name,
        repairs: u64,
        next_try_s: f64,
    },
    /// The cable of a physical function has lost its link, or has one again.
    Carrier {
        pf: &'a str,
        address: PciAddress,
        carrier: bool,
        tenants: Vec<&'a Name>,
    },
    /// Its IKE daemon has ended: there are no keys until it runs again.
    IkeDown {
        tenant: &'a Name,
    },
    /// It is alive and does not answer: it is killed, to be restarted.
    IkeStuck {
        tenant: &'a Name,
        why: String,
    },
    IkeRestarted {
        tenant: &'a Name,
        /// From its death being seen to its being configured again.
        outage_s: f64,
    },
    /// A file of a key or certificate was replaced, and the daemon has the new one.
    IkeReloaded {
        tenant: &'a Name,
    },
    IkeFailed {
        tenant: &'a Name,
        error: String,
        next_try_s: f64,
    },
    /// A certificate or a list of revoked ones cannot be read.
    IkeFileUnreadable {
        tenant: &'a Name,
        error: String,
    },
    /// A certificate, or a list of revoked ones, ends within 30 days, or has ended.
    Expires {
        tenant: &'a Name,
        file: String,
        /// When, in seconds since the epoch.
        at: i64,
        expired: bool,
    },
    VerifyFailed {
        error: String,
    },
    Stopped {
        signal: &'static str,
    },
}

/// A trouble that may last, and is reported once.
#[derive(Debug, Default)]
pub(super) struct Once(Option<String>);

impl Once {
    pub(super) fn note<'a, E: std::fmt::Display>(
        &mut self,
        result: Result<(), E>,
        event: impl FnOnce(String) -> Event<'a>,
    ) {
        let error = result.err().map(|error| error.to_string());
        if error != self.0
            && let Some(error) = error.clone()
        {
            emit(&event(error));
        }
        self.0 = error;
    }
}

impl<'a> Event<'a> {
    pub(super) fn missing(tenant: &'a Name, keys: &[Key]) -> Self {
        let objects = names(keys);
        Self::Missing { tenant, objects }
    }

    pub(super) fn healed(tenant: &'a Name, keys: &[Key]) -> Self {
        let objects = names(keys);
        Self::Healed { tenant, objects }
    }

    pub(super) fn removed(keys: &[Key]) -> Self {
        let objects = names(keys);
        Self::Removed { objects }
    }
}

fn names(keys: &[Key]) -> Vec<String> {
    keys.iter().map(Key::to_string).collect()
}

/// Prints an event with the time.
pub(super) fn emit(event: &Event<'_>) {
    let now = since_epoch();
    let mut line = serde_json::json!({ "time": now });
    if let (Some(line), Ok(serde_json::Value::Object(event))) =
        (line.as_object_mut(), serde_json::to_value(event))
    {
        line.extend(event);
    }
    // Every value can be written.
    let line = plain::json(&line).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    // The switches are watched even if nobody reads the events.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Seconds since the epoch.
pub(super) fn since_epoch() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
