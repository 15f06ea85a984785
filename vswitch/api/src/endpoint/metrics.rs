//! `GET /metrics`: all counters for Prometheus.

use super::{ANSWER_MAX, Operation, Reply, Spec};
use crate::metrics::CONTENT_TYPE;

/// What the endpoint offers.
pub const SPEC: Spec = Spec {
    path: "/metrics",
    get: Operation {
        summary: "All counters as Prometheus text 0.0.4",
        flags: &[],
        reply: Reply::Text(CONTENT_TYPE),
        answer_max: 4 * ANSWER_MAX,
        failures: &[],
    },
    put: None,
    show: None,
};
