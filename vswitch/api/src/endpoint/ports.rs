//! `GET /v1/ports`: the counters of each port, and what the worker spent on them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::worker::Worker;
use super::{ANSWER_MAX, Operation, PORTS_MAX, Reply, Show, Spec, schema_of, show};
use crate::bounded::list;
use crate::table::{Table, left, right};

/// What the endpoint offers.
pub const SPEC: Spec = Spec {
    path: "/v1/ports",
    get: Operation {
        summary: "The counters of each port, and what the worker spent on them",
        flags: &[],
        reply: Reply::Json(schema_of::<Ports>),
        answer_max: ANSWER_MAX,
        failures: &[],
    },
    put: None,
    show: Some(Show {
        name: "ports",
        help: "Each port's counters, and what a frame costs",
        print: |answer, form| show(answer, form, text),
    }),
};

/// The answer of `GET /v1/ports`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ports {
    /// The tenant's name.
    pub tenant: String,
    /// The tenant's ports in the order of the configuration, then the uplink.
    #[serde(deserialize_with = "list::<_, _, PORTS_MAX>")]
    pub ports: Vec<Port>,
    /// What the worker spent on them.
    pub worker: Worker,
}

/// One port's counters, from the switch's point of view: `rx` is what the VM sent. Every frame that
/// was received is in exactly one of `forwarded`, `replies` and `dropped`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Port {
    /// The port's name; `uplink` is the uplink VF.
    pub name: String,
    /// The port's device, as `af_packet:red-gw1`.
    pub device: String,
    /// Whether the device's link is up; at most a second old.
    pub link_up: bool,
    /// What the device does: `running`; `resetting`, after a reset of its physical function;
    /// `failed` if the last reset failed, which is tried again; `removed` if the kernel wants it
    /// back, and the switch ends. Empty in the answer of an older switch.
    #[serde(default)]
    pub state: String,
    /// Resets of the device that succeeded.
    #[serde(default)]
    pub resets: u64,
    /// Resets of the device that failed.
    #[serde(default)]
    pub reset_failures: u64,
    /// Frames that the device dropped before the switch saw them, because its ring was full.
    pub rx_missed: u64,
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received, from the destination MAC on, without the FCS.
    pub rx_bytes: u64,
    /// Received frames that were forwarded to another port.
    pub forwarded: u64,
    /// Received frames that the gateway answered.
    pub replies: u64,
    /// ICMP errors sent to the port, and advertisements that defended an address. The frames that
    /// caused them are dropped.
    pub icmp_errors: u64,
    /// Received frames that were dropped, for all reasons.
    pub dropped: u64,
    /// Frames sent to the port: forwarded, answers, errors and the gateway's own.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Of these, the ones that could not be sent (`tx-full`, `no-buffer`).
    #[serde(default)]
    pub unsent: u64,
}

/// The state of a port in one word: its link's, unless its device does not run.
fn link(port: &Port) -> &str {
    match (port.state.as_str(), port.link_up) {
        ("running" | "", true) => "up",
        ("running" | "", false) => "down",
        (state, _) => state,
    }
}

fn text(ports: &Ports) -> String {
    let mut table = Table::new([
        left("PORT"),
        left("DEVICE"),
        left("LINK"),
        right("RX"),
        right("MISSED"),
        right("RX BYTES"),
        right("TX"),
        right("TX BYTES"),
        right("FORWARDED"),
        right("ANSWERED"),
        right("DROPPED"),
    ]);
    for port in &ports.ports {
        table.row([
            port.name.clone(),
            port.device.clone(),
            link(port).to_owned(),
            port.rx_frames.to_string(),
            port.rx_missed.to_string(),
            port.rx_bytes.to_string(),
            port.tx_frames.to_string(),
            port.tx_bytes.to_string(),
            port.forwarded.to_string(),
            port.replies.to_string(),
            port.dropped.to_string(),
        ]);
    }
    let mut text = table.to_string();
    let worker = &ports.worker;
    if let Some(cycles) = worker.cycles_per_frame {
        let frames = worker.busy_frames as f64 / worker.busy_rounds as f64;
        text += &format!("\n{cycles} cycles per frame in busy rounds of {frames:.1} frames\n");
    }
    text
}
