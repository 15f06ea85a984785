//! `GET /healthz`: whether the process is alive.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ANSWER_MAX, Operation, Reply, Spec, schema_of};

/// The answer of `/healthz` and `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// `ok` or `ready`.
    pub status: String,
}

/// What the endpoint offers.
pub const SPEC: Spec = Spec {
    path: "/healthz",
    get: Operation {
        summary: "Whether the process is alive",
        flags: &[],
        reply: Reply::Json(schema_of::<Health>),
        answer_max: ANSWER_MAX,
        failures: &[],
    },
    put: None,
    show: None,
};
