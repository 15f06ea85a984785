//! The load: one process that is generator, tenant VMs and sink, on its own CPU, over the project's
//! own DPDK wrappers.
//!
//! DPDK can be started only once in a process, so every run has its own load: this binary again,
//! with a [`LoadPlan`]. The two processes exchange lines of JSON: the plan goes in, an [`Event`]
//! for each phase comes out; an empty line ends a phase without a fixed time.
//!
//! ```text
//!  serve ──► worker ──► path ──► ledger     phases; the loop; a path's state; its counts
//!               └──► frames, arp            bytes
//! ```

mod arp;
mod frames;
mod ledger;
mod path;
mod serve;
mod worker;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tenant_config::Device;

use crate::network::Hop;

pub use frames::{ATTACK_MARK, Shape};
pub use ledger::Latency;
pub use serve::serve;

/// The plan of a load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadPlan {
    /// The CPU it runs on.
    pub cpu: usize,
    /// Whether its packet memory is in hugepages.
    pub hugepages: bool,
    /// The ports; hops refer to them by their index.
    pub ports: Vec<LoadPort>,
    /// The paths of frames, each with its own flows and counts.
    pub paths: Vec<Vec<Hop>>,
    /// The frames' size and flows.
    pub shape: Shape,
    /// The rate of the frames.
    pub pace: Pace,
    /// Frames beside those of a path, which must not come out anywhere.
    pub attacks: Vec<Attack>,
    /// The same at their own rate.
    pub floods: Vec<Flood>,
    /// The time before the measurement.
    pub warm_up: Duration,
    /// The time of the measurement.
    pub measure: Duration,
}

/// One port of the load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadPort {
    /// The other end of a port of the switch under test.
    pub device: LoadDevice,
    /// Receive queues; some peers send on several.
    pub queues: u16,
}

/// The device of a port.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LoadDevice {
    /// A device that our switch supports too.
    Ours(Device),
    /// A virtual device of DPDK.
    Virtual {
        /// Such as `net_virtio_user0`.
        name: String,
        /// Such as `path=/run/wire0`.
        arguments: String,
    },
}

/// The rate of frames.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Pace {
    /// As many as come back: a bounded number is in flight on each path. If nothing comes back for
    /// [`STALLED`], the frames in flight are given up.
    Closed {
        /// The most frames in flight.
        in_flight: u32,
    },
    /// A fixed rate on each path. The frames' latency is measured.
    Open {
        /// Frames a second.
        per_second: u64,
    },
}

/// A closed loop without a returning frame for this time, times the number of paths, has lost its
/// frames in flight.
pub const STALLED: Duration = Duration::from_millis(20);

/// Frames that a switch must drop, sent beside those of a path.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attack {
    /// The index of the path.
    pub path: usize,
    /// The index of the port that they are sent into.
    pub port: usize,
    /// Frames of the path for each attack; with 9, a tenth of all frames are attacks.
    pub every: u32,
    /// The frames, sent in turn. Each ends in [`ATTACK_MARK`].
    pub frames: Vec<Vec<u8>>,
}

/// Frames that a switch must drop, sent at their own rate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Flood {
    /// The index of the port that they are sent into.
    pub port: usize,
    /// Frames a second.
    pub per_second: u64,
    /// The frames, sent in turn. Each ends in [`ATTACK_MARK`].
    pub frames: Vec<Vec<u8>>,
}

/// A message of a load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    /// The ports are open and have a link. The load waits for a line; then it sends until frames
    /// have come back on every path, and warms up.
    Open,
    /// The measurement begins.
    Begin,
    /// The measurement has ended. Frames are sent until a line comes in.
    End,
    /// The last frame was sent, and the frames in flight were waited for.
    Done(LoadReport),
    /// The load failed.
    Failed(String),
}

/// The counts of a load.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// The time of the measurement in seconds.
    pub seconds: f64,
    /// The paths, in the order of the plan.
    pub paths: Vec<PathReport>,
    /// Attack frames sent.
    pub attacks_sent: u64,
    /// Attack frames that came out of the switch.
    pub attacks_delivered: u64,
    /// Foreign frames that came out, usually a kernel's own.
    pub foreign: u64,
}

/// The counts of one path. All but `measured` cover the time from the first frame to the last.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PathReport {
    /// Sent into the first hop.
    pub sent: u64,
    /// Received from the last hop, with every checked byte right.
    pub received: u64,
    /// The part of `received` within the measurement.
    pub measured: u64,
    /// Sent and never received.
    pub lost: u64,
    /// Received after a later frame of the same flow.
    pub reordered: u64,
    /// Received with wrong content or at a wrong port.
    pub wrong: u64,
    /// Stalls of a closed loop.
    pub stalls: u64,
    /// The latency within the measurement; only of an open loop.
    pub latency: Option<Latency>,
}

impl LoadReport {
    /// Frames a second that were received at the end of all paths.
    pub fn frames_per_second(&self) -> f64 {
        let measured: u64 = self.paths.iter().map(|path| path.measured).sum();
        measured as f64 / self.seconds
    }

    /// Frames of all paths that were sent and never received.
    pub fn lost(&self) -> u64 {
        self.paths.iter().map(|path| path.lost).sum()
    }

    /// Frames that a correct switch would not deliver.
    pub fn wrong(&self) -> u64 {
        self.attacks_delivered + self.paths.iter().map(|path| path.wrong).sum::<u64>()
    }
}

/// The parent's side of a running load.
#[derive(Debug)]
pub struct Load {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Load {
    /// Starts a load; `command` is this program's own `load`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(mut command: Command, plan: &LoadPlan) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let to = child.stdin.take().context("the load has no input")?;
        let from = child.stdout.take().context("the load has no output")?;
        let mut load = Self {
            child,
            to,
            from: BufReader::new(from),
        };
        load.send_line(&serde_json::to_string(plan)?)?;
        Ok(load)
    }

    fn send_line(&mut self, line: &str) -> anyhow::Result<()> {
        writeln!(self.to, "{line}").context("the load has ended")
    }

    fn next(&mut self) -> anyhow::Result<Event> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            bail!("the load ended ({})", self.child.wait()?);
        }
        match serde_json::from_str(&line).with_context(|| format!("the load printed {line:?}"))? {
            Event::Failed(why) => bail!("the load: {why}"),
            event => Ok(event),
        }
    }

    /// Waits for the phase that begins with `event`.
    ///
    /// # Errors
    /// If another event comes, or the load ends.
    pub fn wait_for(&mut self, event: &Event) -> anyhow::Result<()> {
        let next = self.next()?;
        if std::mem::discriminant(&next) != std::mem::discriminant(event) {
            bail!("the load reported {next:?} instead of {event:?}");
        }
        Ok(())
    }

    /// Ends a phase without a fixed time.
    ///
    /// # Errors
    /// If the load has ended.
    pub fn end_phase(&mut self) -> anyhow::Result<()> {
        self.send_line("")
    }

    /// After [`Event::End`]: stops the load and returns its counts. Its ports stay open until it is
    /// dropped.
    ///
    /// # Errors
    /// If the load ends without a report.
    pub fn finish(&mut self) -> anyhow::Result<LoadReport> {
        self.end_phase()?;
        match self.next()? {
            Event::Done(report) => Ok(report),
            other => bail!("the load sent {other:?} instead of its report"),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It holds nothing that must be closed cleanly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
