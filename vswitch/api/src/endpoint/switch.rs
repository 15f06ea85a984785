//! `GET /v1/switch`: which switch runs, and since when.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ANSWER_MAX, Operation, Reply, Show, Spec, schema_of, show};
use crate::table::{Table, left, right};

/// What the endpoint offers.
pub const SPEC: Spec = Spec {
    path: "/v1/switch",
    get: Operation {
        summary: "Which switch runs, and since when",
        flags: &[],
        reply: Reply::Json(schema_of::<Switch>),
        answer_max: ANSWER_MAX,
        failures: &[],
    },
    put: None,
    show: Some(Show {
        name: "switch",
        help: "Its version, uptime and the configuration's generation",
        print: |answer, form| show(answer, form, text),
    }),
};

/// The answer of `GET /v1/switch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Switch {
    /// The tenant's name.
    pub tenant: String,
    /// The running version.
    pub version: String,
    /// When the process started, in seconds since the Unix epoch.
    pub started_at: u64,
    /// Seconds since then, by the monotonic clock.
    pub uptime_s: u64,
    /// The configuration's generation, from 1.
    pub generation: u64,
    /// The pool of packet buffers.
    pub packet_buffers: PacketBuffers,
}

/// The pool of packet buffers. Without a free one, frames are lost: received ones as `rx_missed`,
/// the gateway's own as `no-buffer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PacketBuffers {
    /// All buffers.
    pub total: u64,
    /// Those in the devices' rings, or with frames in them; at most a second old.
    pub in_use: u64,
}

fn text(switch: &Switch) -> String {
    let table = Table::new([
        left("TENANT"),
        left("VERSION"),
        right("UPTIME s"),
        right("GENERATION"),
        right("BUFFERS"),
        right("IN USE"),
    ]);
    let row = [
        switch.tenant.clone(),
        switch.version.clone(),
        switch.uptime_s.to_string(),
        switch.generation.to_string(),
        switch.packet_buffers.total.to_string(),
        switch.packet_buffers.in_use.to_string(),
    ];
    table.with([row]).to_string()
}
