//! `GET /v1/drops`: dropped frames by port and reason.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ANSWER_MAX, Flag, Operation, PORTS_MAX, Reply, Show, Spec, schema_of, show};
use crate::bounded::List;
use crate::table::{Table, left, right};

/// The flag that includes reasons without frames.
pub const ALL: Flag = Flag {
    name: "all",
    help: "Also reasons without frames",
};

/// What the endpoint offers.
pub const SPEC: Spec = Spec {
    path: "/v1/drops",
    get: Operation {
        summary: "Frames dropped, by port and reason",
        flags: &[ALL],
        reply: Reply::Json(schema_of::<Vec<Drop>>),
        // Each port's every reason: at most 3 MiB.
        answer_max: 4 * ANSWER_MAX,
        failures: &[],
    },
    put: None,
    show: Some(Show {
        name: "drops",
        help: "Frames dropped, by port and reason",
        print: |answer, form| show(answer, form, text),
    }),
};

/// The answer, as a client reads it. A reason's number has 8 bits.
pub type Drops = List<Drop, { PORTS_MAX << 8 }>;

/// An element of the answer of `GET /v1/drops`. Reasons without frames are left out unless
/// `?all=1` asks for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drop {
    /// The port that received the frames.
    pub port: String,
    /// The reason's name.
    pub reason: String,
    /// The reason's number.
    pub number: u8,
    /// How many frames.
    pub frames: u64,
    /// The reason in a sentence.
    pub help: String,
}

fn text(drops: &Drops) -> String {
    let mut table = Table::new([
        left("PORT"),
        left("REASON"),
        right("FRAMES"),
        left("MEANING"),
    ]);
    for drop in drops.iter() {
        table.row([
            drop.port.clone(),
            drop.reason.clone(),
            drop.frames.to_string(),
            drop.help.clone(),
        ]);
    }
    table.to_string()
}
