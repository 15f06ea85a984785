//! The switches under test: ours, and what a user would pick instead. Each carries the frames of a [`Site`] on one CPU.

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

/// What our switch is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// `dpdk-testpmd --forward-mode=io`: moves frames and looks at none. The limit.
    Testpmd,
    /// `dpdk-testpmd --forward-mode=macswap`: writes two MACs and looks at nothing.
    TestpmdMacswap,
    /// Linux's bridge and router with nftables, with the same checks as ours.
    LinuxBridge,
    /// Open vSwitch with DPDK, and rules that check the same, on memif.
    OvsDpdk,
    /// The same on vhost-user; ours beside it is on memif.
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

/// One that can be put under test.
pub trait Switch {
    /// The wires it is at its best on, and which ours is then measured on too, if it has a driver for them.
    fn wires(&self) -> Wires;

    /// Queues that it sends on.
    fn queues(&self) -> u16 {
        1
    }

    /// Whether it checks what ours checks. One that does not lets attacks through.
    fn checks(&self) -> bool;

    /// What must be installed to start it: names, or whole paths.
    fn programs(&self) -> &'static [&'static str] {
        &[]
    }

    /// What it is told to do, as its own tools would be told.
    fn rules(&self, site: &Site) -> String;

    /// Starts it. It then waits for the load's ends of the wires.
    ///
    /// # Errors
    /// What is missing, or what it says itself.
    fn start(&self, site: &Site) -> anyhow::Result<Box<dyn Running>>;
}

/// One that runs. Dropped, it has ended.
pub trait Running {
    /// The load's ends are there: what can only be done now. As a rule nothing.
    ///
    /// # Errors
    /// What it says itself.
    fn connected(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Its processes, as far as it is made of processes.
    fn processes(&self) -> Vec<u32>;

    /// What it has done so far.
    ///
    /// # Errors
    /// What it says itself.
    fn counters(&mut self) -> anyhow::Result<Counters>;
}

/// What a switch tells of its work.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counters {
    /// Frames received, on all ports.
    pub frames: u64,
    /// Cycles of the time stamp counter that it spent in rounds that had frames.
    pub busy_cycles: f64,
}

impl Counters {
    /// Cycles per frame since `before`; `None` if there was none.
    pub fn cycles_per_frame(self, before: Self) -> Option<f64> {
        let frames = self.frames.checked_sub(before.frames)?;
        (frames > 0).then(|| (self.busy_cycles - before.busy_cycles) / frames as f64)
    }
}

/// A process of ours that ends with this.
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

/// Waits until `done` gives something.
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
            bail!("{what}: not after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
