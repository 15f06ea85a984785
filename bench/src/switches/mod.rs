//! The switches under test: ours and its alternatives. Each forwards the frames of a [`Site`] on
//! one CPU.

mod bridge;
mod checks;
mod ovs;
mod testpmd;
mod vswitch;

use std::fmt;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::site::{Site, Wires};

pub use vswitch::{PollMode, Vswitch};

/// The switches beside which ours is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// `dpdk-testpmd --forward-mode=io`: forwards frames without reading them; the upper bound
    Testpmd,
    /// `dpdk-testpmd --forward-mode=macswap`: rewrites two MACs and checks nothing
    TestpmdMacswap,
    /// Linux's bridge and router with nftables, with the same checks as ours
    LinuxBridge,
    /// Open vSwitch with DPDK and rules for the same checks, on memif
    OvsDpdk,
    /// The same on vhost-user; ours beside it is on memif
    OvsDpdkVhost,
}

impl Peer {
    /// The switch.
    pub fn switch(self) -> Box<dyn Switch> {
        match self {
            Self::Testpmd => Box::new(testpmd::Testpmd { mode: "io" }),
            Self::TestpmdMacswap => Box::new(testpmd::Testpmd { mode: "macswap" }),
            Self::LinuxBridge => Box::new(bridge::LinuxBridge),
            Self::OvsDpdk => Box::new(ovs::Ovs {
                wires: Wires::Memif,
            }),
            Self::OvsDpdkVhost => Box::new(ovs::Ovs {
                wires: Wires::VhostUser,
            }),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("none is skipped");
        out.write_str(value.get_name())
    }
}

/// A switch that can be put under test.
pub trait Switch {
    /// The wires on which it is fastest. Ours is measured on the same if it has a driver for them.
    fn wires(&self) -> Wires;

    /// The number of queues that it sends on.
    fn queues(&self) -> u16 {
        1
    }

    /// Whether it checks the same as ours. Otherwise it delivers attacks.
    fn checks(&self) -> bool;

    /// The programs that it needs: names or absolute paths.
    fn programs(&self) -> &'static [&'static str] {
        &[]
    }

    /// Its configuration, in the notation of its own tools.
    fn rules(&self, site: &Site) -> String;

    /// Starts it. It then waits for the load's ends of the wires.
    ///
    /// # Errors
    /// A missing program, or the switch's own error.
    fn start(&self, site: &Site) -> anyhow::Result<Box<dyn Running>>;
}

/// A running switch, which ends when dropped.
pub trait Running {
    /// Called when the load's ends are open.
    ///
    /// # Errors
    /// The switch's own error.
    fn connected(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Its processes, if it has any.
    fn processes(&self) -> Vec<u32>;

    /// Its counters.
    ///
    /// # Errors
    /// The switch's own error.
    fn counters(&mut self) -> anyhow::Result<Counters>;
}

/// The counters of a switch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counters {
    /// Frames received, on all ports.
    pub frames: u64,
    /// Cycles of the time stamp counter that it spent in rounds with frames.
    pub busy_cycles: f64,
}

impl Counters {
    /// Cycles per frame since `before`; `None` without a frame.
    pub fn cycles_per_frame(self, before: Self) -> Option<f64> {
        let frames = self.frames.checked_sub(before.frames)?;
        (frames > 0).then(|| (self.busy_cycles - before.busy_cycles) / frames as f64)
    }
}

/// A child process, killed when dropped.
#[derive(Debug)]
pub(crate) struct ChildGuard(pub(crate) Child);

impl ChildGuard {
    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `done` returns a value.
pub(crate) fn wait_for<T>(
    what: &str,
    mut done: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let begin = Instant::now();
    loop {
        if let Some(value) = done()? {
            return Ok(value);
        }
        if begin.elapsed() > PATIENCE {
            bail!("timeout after {PATIENCE:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
