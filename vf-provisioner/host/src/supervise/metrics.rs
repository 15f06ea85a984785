//! The supervisor's metrics, as a file for a textfile collector.

use std::path::Path;

use vswitch_api::metrics::{Metric, Unit, Writer};

use super::drift::Drift;
use super::restarts::Watched;
use crate::files::replace;
use crate::state::State;

const VERIFICATIONS: Metric<0> = Metric::counter(
    "vf_provisioner_verifications_total",
    Unit::Number,
    [],
    "Verifications since the supervisor's start.",
);
const VERIFIED: Metric<0> = Metric::gauge(
    "vf_provisioner_verified_timestamp_seconds",
    Unit::Seconds,
    [],
    "When the last verification ended.",
);
const VERIFY_FAILED: Metric<0> = Metric::gauge(
    "vf_provisioner_verify_failed",
    Unit::Bool,
    [],
    "1 if the last verification could not be made.",
);
const DRIFT: Metric<0> = Metric::gauge(
    "vf_provisioner_drift",
    Unit::Number,
    [],
    "Settings that differed at the last verification.",
);
const SWITCH_UP: Metric<1> = Metric::gauge(
    "vf_provisioner_switch_up",
    Unit::Bool,
    ["tenant"],
    "1 while the tenant's switch runs.",
);
const NIC_ACCEPTED: Metric<2> = Metric::gauge(
    "vf_provisioner_nic_accepted",
    Unit::Bool,
    ["tenant", "setting"],
    "Settings of virtual functions that the tenant's file lets the NIC lack.",
);

/// The rows of the reference.
#[cfg(test)]
pub(crate) fn rows() -> Vec<String> {
    vec![
        VERIFICATIONS.markdown_row(),
        VERIFIED.markdown_row(),
        VERIFY_FAILED.markdown_row(),
        DRIFT.markdown_row(),
        SWITCH_UP.markdown_row(),
        NIC_ACCEPTED.markdown_row(),
    ]
}

/// The metrics file.
pub(super) struct MetricsFile<'a> {
    path: &'a Path,
    written: String,
}

impl<'a> MetricsFile<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        Self {
            path,
            written: String::new(),
        }
    }

    /// Writes the file if anything has changed.
    pub(super) fn write(&mut self, drift: &Drift, state: &State, watched: &Watched) {
        let text = text(drift, state, watched);
        if text == self.written {
            return;
        }
        // A reader sees by the file's age that it is no longer written.
        match replace(self.path, text.as_bytes(), 0o644) {
            Ok(()) => self.written = text,
            Err(error) => tracing::warn!(file = %self.path.display(), %error, "no metrics"),
        }
    }
}

/// In Prometheus' text format.
fn text(drift: &Drift, state: &State, watched: &Watched) -> String {
    let mut out = Writer::default();
    out.single(&VERIFICATIONS, [], drift.verifications);
    if drift.verifications > 0 {
        out.single(&VERIFIED, [], drift.at);
        out.single(&VERIFY_FAILED, [], drift.found.is_none());
    }
    if let Some(found) = drift.found {
        out.single(&DRIFT, [], found as u64);
    }
    if !watched.is_empty() {
        let mut up = out.family(&SWITCH_UP);
        for (tenant, it) in watched {
            up.sample([tenant.as_str()], it.down_since.is_none());
        }
    }
    let accepted: Vec<_> = state
        .tenants
        .iter()
        .flat_map(|(tenant, record)| record.accepted().into_iter().map(move |it| (tenant, it)))
        .collect();
    if !accepted.is_empty() {
        let mut family = out.family(&NIC_ACCEPTED);
        for (tenant, setting) in accepted {
            family.sample([tenant.as_str(), setting.as_str()], true);
        }
    }
    out.finish()
}
