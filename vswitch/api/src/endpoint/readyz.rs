//! `GET /readyz`: whether the worker forwards frames.

use super::healthz::Health;
use super::{ANSWER_MAX, Operation, Reply, Spec, schema_of};

/// What the endpoint offers.
pub const SPEC: Spec = Spec {
    path: "/readyz",
    get: Operation {
        summary: "Whether the worker is running",
        flags: &[],
        reply: Reply::Json(schema_of::<Health>),
        answer_max: ANSWER_MAX,
        failures: &[(503, "The worker made no round within 2 s")],
    },
    put: None,
    show: None,
};
