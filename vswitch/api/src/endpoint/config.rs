//! `GET` and `PUT /v1/config`: the configuration in use, and a new one.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{ANSWER_MAX, CONFIG_MAX, Operation, Put, Reply, Spec, schema_of};

/// What the endpoint offers.
pub const SPEC: Spec = Spec {
    path: "/v1/config",
    get: Operation {
        summary: "The configuration in use",
        flags: &[],
        reply: Reply::Json(switch_config),
        answer_max: CONFIG_MAX,
        failures: &[],
    },
    put: Some(Put {
        operation: Operation {
            summary: "Replaces the configuration; answers once the new one is in use",
            flags: &[],
            reply: Reply::Json(schema_of::<Installed>),
            answer_max: ANSWER_MAX,
            failures: &[
                (409, "The difference takes a restart of the switch"),
                (413, "The body is larger than 8 MiB"),
                (422, "The body is not a valid configuration"),
                (503, "The worker did not take the configuration within 2 s"),
            ],
        },
        body: switch_config,
    }),
    show: None,
};

/// The crate `tenant-config` has the type. Its schema is a file beside the OpenAPI document.
fn switch_config(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "switch.schema.json" })
}

/// The answer of `PUT /v1/config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Installed {
    /// The generation of the new configuration.
    pub generation: u64,
}
