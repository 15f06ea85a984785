//! `GET /v1/worker`: what the worker did and what it cost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounded::list;

use super::{ANSWER_MAX, Operation, Reply, Spec, schema_of};

/// What the endpoint offers.
pub const SPEC: Spec = Spec {
    path: "/v1/worker",
    get: Operation {
        summary: "What the worker did and what it cost",
        flags: &[],
        reply: Reply::Json(schema_of::<Worker>),
        answer_max: ANSWER_MAX,
        failures: &[],
    },
    put: None,
    show: None,
};

/// The most buckets of a histogram.
const BUCKETS_MAX: usize = 64;

/// The answer of `GET /v1/worker`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Worker {
    /// The configuration's generation, from 1.
    pub generation: u64,
    /// Rounds over all ports.
    pub rounds: u64,
    /// Rounds that received frames.
    pub busy_rounds: u64,
    /// Frames received in them.
    pub busy_frames: u64,
    /// Cycles of the time stamp counter spent in them, sending included.
    pub busy_cycles: u64,
    /// The time stamp counter's rate.
    pub cycles_per_second: u64,
    /// Busy cycles per frame; `null` before the first frame.
    pub cycles_per_frame: Option<u64>,
    /// Times the worker slept because no frames came.
    pub sleeps: u64,
    /// Sleeps that ended with a frame.
    pub wakes: u64,
    /// The sum over all wakes of the time from the wake until the round's last frame was sent, in
    /// nanoseconds.
    pub wake_sum_ns: u64,
    /// The longest such time, in nanoseconds.
    pub wake_max_ns: u64,
    /// Wakes by that time. Each bucket counts its own wakes only, not those of smaller buckets.
    #[serde(deserialize_with = "list::<_, _, BUCKETS_MAX>")]
    pub wake_histogram: Vec<WakeBucket>,
}

/// One bucket of [`Worker::wake_histogram`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WakeBucket {
    /// The bucket's upper bound; `null` in the last.
    pub at_most_ns: Option<u64>,
    /// How many wakes.
    pub wakes: u64,
}
