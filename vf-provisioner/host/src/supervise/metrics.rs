//! The supervisor's metrics, as a file for a textfile collector.

use std::path::Path;

use vswitch_api::metrics::{Metric, Unit, Writer};

use super::carrier::Carriers;
use super::drift::Drift;
use super::heal::Healing;
use super::ike::Daemons;
use super::report::Troubles;
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
    "1 while the tenant's switch runs, and forwards frames when it is asked.",
);
const NIC_ACCEPTED: Metric<2> = Metric::gauge(
    "vf_provisioner_nic_accepted",
    Unit::Bool,
    ["tenant", "setting"],
    "Settings of virtual functions that the tenant's file lets the NIC lack.",
);

const REPAIRS: Metric<1> = Metric::counter(
    "vf_provisioner_repairs_total",
    Unit::Number,
    ["tenant"],
    "Repairs of lost objects and of settings that differed, since the supervisor's start.",
);
const TROUBLED: Metric<1> = Metric::gauge(
    "vf_provisioner_troubled",
    Unit::Bool,
    ["tenant"],
    "1 while the tenant is not as it was set: it cannot be repaired or restarted, differs, or is \
     changed again and again. `status` says why.",
);
const PF_CARRIER: Metric<2> = Metric::gauge(
    "vf_provisioner_pf_carrier",
    Unit::Bool,
    ["pf", "address"],
    "1 while the cable of a physical function that tenants are on has a link.",
);
const IKE_UP: Metric<1> = Metric::gauge(
    "vf_provisioner_ike_up",
    Unit::Bool,
    ["tenant"],
    "1 while the tenant's IKE daemon runs and is configured.",
);
const EXPIRES: Metric<2> = Metric::gauge(
    "vf_provisioner_ipsec_expires_timestamp_seconds",
    Unit::Seconds,
    ["tenant", "file"],
    "When a certificate expires, or the next list of revoked ones is due.",
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
        REPAIRS.markdown_row(),
        TROUBLED.markdown_row(),
        PF_CARRIER.markdown_row(),
        IKE_UP.markdown_row(),
        EXPIRES.markdown_row(),
    ]
}

/// What the supervisor knows.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) drift: &'a Drift,
    pub(super) state: &'a State,
    pub(super) watched: &'a Watched,
    pub(super) healing: &'a Healing,
    pub(super) troubles: &'a Troubles,
    pub(super) carriers: &'a Carriers,
    pub(super) daemons: &'a Daemons,
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
    pub(super) fn write(&mut self, seen: &Seen<'_>) {
        let text = text(seen);
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
fn text(seen: &Seen<'_>) -> String {
    let Seen {
        drift,
        state,
        watched,
        healing,
        troubles,
        carriers,
        daemons,
    } = *seen;
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
            up.sample([tenant.as_str()], it.forwards());
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
    if !state.tenants.is_empty() {
        let mut repairs = out.family(&REPAIRS);
        for tenant in state.tenants.keys() {
            repairs.sample([tenant.as_str()], healing.repairs(tenant));
        }
        let mut troubled = out.family(&TROUBLED);
        for tenant in state.tenants.keys() {
            troubled.sample([tenant.as_str()], troubles.contains_key(tenant));
        }
    }
    let mut pfs = carriers.all().peekable();
    if pfs.peek().is_some() {
        let mut family = out.family(&PF_CARRIER);
        for ([pf, address], carrier) in pfs {
            family.sample([pf.as_str(), address.as_str()], carrier);
        }
    }
    if daemons.up().next().is_some() {
        let mut up = out.family(&IKE_UP);
        for (tenant, is_up) in daemons.up() {
            up.sample([tenant.as_str()], is_up);
        }
    }
    if daemons.expiries().next().is_some() {
        let mut expires = out.family(&EXPIRES);
        for (tenant, expiry) in daemons.expiries() {
            let file = expiry.file.display().to_string();
            expires.sample([tenant.as_str(), &file], expiry.at as f64);
        }
    }
    out.finish()
}
