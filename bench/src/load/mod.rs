//! The load: one process that is generator, tenant VMs and sink, on its own CPU, over the project's own DPDK wrappers.
//!
//! DPDK starts once in a process, so every run has a load of its own: this binary again, told by a [`LoadPlan`] what to do.
//! The two speak in lines of JSON: the plan goes in, then what happens comes out as an [`Event`] each; where a phase lasts
//! until it is told so, an empty line tells it.

mod frames;
mod ledger;
mod run;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tenant_config::Device;

use crate::network::Hop;

pub(crate) use frames::ones_complement_sum;
pub use frames::{ATTACK_MARK, Shape};
pub use ledger::Latency;
pub use run::serve;

/// What a load is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadPlan {
    /// Where it runs.
    pub cpu: usize,
    /// Whether its packet memory is in hugepages.
    pub hugepages: bool,
    /// The ports, which hops name by their place.
    pub ports: Vec<LoadPort>,
    /// The ways that frames take, each with flows and books of its own.
    pub paths: Vec<Vec<Hop>>,
    /// How the frames look.
    pub shape: Shape,
    /// How many are sent.
    pub pace: Pace,
    /// What is sent besides, and must not come out anywhere.
    pub attacks: Vec<Attack>,
    /// The same, but whatever the paths do.
    pub floods: Vec<Flood>,
    /// Before anything is counted.
    pub warm_up: Duration,
    /// What is counted.
    pub measure: Duration,
}

/// One port of the load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadPort {
    /// The other end of a port of the switch under test.
    pub device: LoadDevice,
    /// Receive queues: some peers send on several.
    pub queues: u16,
}

/// What a load opens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LoadDevice {
    /// A device that a switch of ours may have too.
    Ours(Device),
    /// A virtual device by its DPDK name and arguments.
    Virtual {
        /// As in `net_virtio_user0`.
        name: String,
        /// As in `path=/run/wire0`.
        arguments: String,
    },
}

/// How many frames are sent.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Pace {
    /// As many as come back: never more than so many under way on each path. Where nothing comes back for [`STALLED`], what is
    /// under way is given up.
    Closed {
        /// Frames under way.
        in_flight: u32,
    },
    /// So many a second on each path, whatever comes back. Their time under way is measured.
    Open {
        /// Frames.
        per_second: u64,
    },
}

/// A path's closed loop in which nothing comes back for so long, times the number of paths, has lost what was under way.
pub const STALLED: Duration = Duration::from_millis(20);

/// Frames that a switch must refuse, sent beside a path's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attack {
    /// The path whose frames they go beside.
    pub path: usize,
    /// The port that they are sent into.
    pub port: usize,
    /// One for so many frames of the path; 9 is a tenth of all.
    pub every: u32,
    /// Sent by turns. Each ends in [`ATTACK_MARK`].
    pub frames: Vec<Vec<u8>>,
}

/// Frames that a switch must refuse, sent at a rate of their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Flood {
    /// The port that they are sent into.
    pub port: usize,
    /// Frames.
    pub per_second: u64,
    /// Sent by turns. Each ends in [`ATTACK_MARK`].
    pub frames: Vec<Vec<u8>>,
}

/// What a load says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    /// Its ports are open and have a link. It waits for a line; then it sends until frames have come back on every path, and
    /// warms up.
    Open,
    /// What follows counts.
    Begin,
    /// Nothing more counts. Frames go on until a line comes in.
    End,
    /// It has sent its last frame, waited for what was under way, and counted.
    Done(LoadReport),
    /// It cannot go on.
    Failed(String),
}

/// What a load counted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// Seconds that were measured.
    pub seconds: f64,
    /// In the order of the plan.
    pub paths: Vec<PathReport>,
    /// Attack frames sent.
    pub attacks_sent: u64,
    /// Attack frames that came out of the switch.
    pub attacks_delivered: u64,
    /// Frames that came out and are nobody's here: a kernel's own, as a rule.
    pub foreign: u64,
}

/// What became of one path's frames. All but `measured` count from the first frame to the last.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PathReport {
    /// Sent into the first hop.
    pub sent: u64,
    /// Come out of the last, right in every byte that is checked.
    pub received: u64,
    /// Of these, in the time that was measured.
    pub measured: u64,
    /// Sent, and never seen again.
    pub lost: u64,
    /// Received after a later frame of the same flow.
    pub reordered: u64,
    /// Come out of a hop with other content, or at another port.
    pub wrong: u64,
    /// Times that a closed loop stood still.
    pub stalls: u64,
    /// Under way in the time that was measured; of an open loop.
    pub latency: Option<Latency>,
}

impl LoadReport {
    /// Frames a second, received at the end of all paths.
    pub fn frames_per_second(&self) -> f64 {
        let measured: u64 = self.paths.iter().map(|path| path.measured).sum();
        measured as f64 / self.seconds
    }

    /// Frames sent and never seen again, of all paths.
    pub fn lost(&self) -> u64 {
        self.paths.iter().map(|path| path.lost).sum()
    }

    /// Frames that a switch that works does not let happen.
    pub fn wrong(&self) -> u64 {
        self.attacks_delivered + self.paths.iter().map(|path| path.wrong).sum::<u64>()
    }
}

/// A load at work, seen from outside.
#[derive(Debug)]
pub struct Load {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Load {
    /// Starts one; `command` is this program's own `load`.
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
        load.say(&serde_json::to_string(plan)?)?;
        Ok(load)
    }

    fn say(&mut self, line: &str) -> anyhow::Result<()> {
        writeln!(self.to, "{line}").context("the load has ended")
    }

    fn next(&mut self) -> anyhow::Result<Event> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            bail!("the load ended ({})", self.child.wait()?);
        }
        match serde_json::from_str(&line).with_context(|| format!("the load says {line:?}"))? {
            Event::Failed(why) => bail!("the load: {why}"),
            event => Ok(event),
        }
    }

    /// Waits for the phase whose beginning is told by `event`.
    ///
    /// # Errors
    /// If the load says something else, or ends.
    pub fn wait_for(&mut self, event: &Event) -> anyhow::Result<()> {
        let said = self.next()?;
        if std::mem::discriminant(&said) != std::mem::discriminant(event) {
            bail!("the load says {said:?} where {event:?} was due");
        }
        Ok(())
    }

    /// Ends a phase that lasts until then.
    ///
    /// # Errors
    /// If it has ended.
    pub fn go_on(&mut self) -> anyhow::Result<()> {
        self.say("")
    }

    /// After [`Event::End`]: has it stop sending and count. It keeps its ports open until it is dropped.
    ///
    /// # Errors
    /// If it ends instead.
    pub fn finish(&mut self) -> anyhow::Result<LoadReport> {
        self.go_on()?;
        match self.next()? {
            Event::Done(report) => Ok(report),
            other => bail!("the load says {other:?} where its report was due"),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Nothing of it is worth waiting for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
