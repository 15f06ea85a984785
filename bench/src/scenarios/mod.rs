//! What is measured, and how: each scenario is a file.

pub mod apps;
pub mod idle;
pub mod latency;
pub mod noisy;
mod rounds;
pub mod scale;
pub mod stages;
pub mod tenants;
mod throughput;

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tenant_config::SwitchConfig;

use crate::load::{Attack, Event, Flood, Latency, Load, LoadPlan, LoadReport, Pace, Shape};
use crate::network::{Hop, Topology};
use crate::site::{Cpus, Site, Wires};
use crate::switches::{Counters, PollMode, Switch};

pub use throughput::{Pair, Throughput, Traffic, Variant};

/// Frames under way on each path of a closed loop, at most. It is half of what the rings of the wires hold: one that were full
/// would lose frames, as its reader gives back what it has read only at its next look.
const IN_FLIGHT: u32 = 256;
/// The same of all paths together where the wires are the kernel's: what arrives on any of them waits in one queue, its CPU's
/// backlog, which loses what is more than `net.core.netdev_max_backlog`, by default 1000.
const IN_FLIGHT_OF_KERNEL: u32 = 512;
/// Bytes and flows where a scenario varies neither.
const FRAME: u16 = 64;
const FLOWS: u32 = 1;

/// What all scenarios are given.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Settings {
    /// Where things run.
    pub cpus: Cpus,
    /// How often each pair is measured, ours and the peer by turns.
    pub rounds: u32,
    /// How long a switch carries frames before they count.
    pub warm_up: Duration,
    /// How long they count.
    pub measure: Duration,
    /// Of flows and their order.
    pub seed: u64,
    /// How ours waits for frames, in scenarios where that is part of what is measured.
    pub poll: PollMode,
}

impl Settings {
    /// How frames of that size look, in so many flows.
    fn shape(&self, bytes: u16, flows: u32) -> Shape {
        Shape {
            bytes,
            flows,
            seed: self.seed,
        }
    }

    /// The same where neither is what a scenario varies: the smallest, as the bytes are the wires' affair, and one flow.
    fn plain(&self) -> Shape {
        self.shape(FRAME, FLOWS)
    }
}

/// One run of one switch.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Frames that came out at the end, in millions a second.
    pub mpps: f64,
    /// What the switch says that a frame costs it, each time that it has it.
    pub cycles_per_frame: Option<f64>,
    /// What the load counted.
    pub load: LoadReport,
}

impl Sample {
    /// Of the first path, in an open loop.
    fn latency(&self) -> Option<Latency> {
        self.load.paths[0].latency
    }
}

/// What one run sends.
#[derive(Debug, Clone)]
pub struct Work {
    /// The ways of the frames.
    pub paths: Vec<Vec<Hop>>,
    /// How they look.
    pub shape: Shape,
    /// How many they are.
    pub pace: Pace,
    /// What goes besides.
    pub attacks: Vec<Attack>,
    /// What else does.
    pub floods: Vec<Flood>,
}

impl Work {
    /// Good frames alone.
    pub fn good(paths: Vec<Vec<Hop>>, shape: Shape, pace: Pace) -> Self {
        Self {
            paths,
            shape,
            pace,
            attacks: Vec::new(),
            floods: Vec::new(),
        }
    }

    /// As many of them as the switch carries, in a closed loop through all tenants.
    fn most(site: &Site, topology: Topology, shape: Shape) -> Self {
        let paths = site.paths(topology);
        let in_flight = in_flight(site.wires, paths.len());
        Self::good(paths, shape, Pace::Closed { in_flight })
    }
}

/// Frames under way on each of so many paths.
fn in_flight(wires: Wires, paths: usize) -> u32 {
    match wires {
        Wires::Memif | Wires::VhostUser => IN_FLIGHT,
        Wires::Veth => IN_FLIGHT.min(IN_FLIGHT_OF_KERNEL / paths as u32),
    }
}

/// Starts a switch on the site, has it carry the work, and ends it.
///
/// # Errors
/// What the switch or the load says.
pub fn sample(
    settings: &Settings,
    site: &Site,
    switch: &dyn Switch,
    work: &Work,
) -> anyhow::Result<Sample> {
    let mut running = switch.start(site)?;
    let mut load = load_of(settings, site, switch, work)?;
    load.wait_for(&Event::Open)?;
    running.connected()?;
    load.end_phase()?;
    load.wait_for(&Event::Begin)?;
    let before = running.counters()?;
    load.wait_for(&Event::End)?;
    let after = running.counters()?;
    let report = load.finish()?;
    // First the switch: not every one survives the load's going.
    drop(running);
    Ok(Sample {
        mpps: report.frames_per_second() / 1e6,
        cycles_per_frame: Counters::cycles_per_frame(after, before),
        load: report,
    })
}

/// Starts the load of a switch that runs already.
fn load_of(
    settings: &Settings,
    site: &Site,
    switch: &dyn Switch,
    work: &Work,
) -> anyhow::Result<Load> {
    let (mut attacks, mut floods) = (work.attacks.clone(), work.floods.clone());
    for attack in &mut attacks {
        aim(site, attack.port, &mut attack.frames);
    }
    for flood in &mut floods {
        aim(site, flood.port, &mut flood.frames);
    }
    let plan = LoadPlan {
        cpu: settings.cpus.load,
        hugepages: true,
        ports: site.load_ports(switch.queues()),
        paths: work.paths.clone(),
        shape: work.shape,
        pace: work.pace,
        attacks,
        floods,
        warm_up: settings.warm_up,
        measure: settings.measure,
    };
    Load::start(load_command(site)?, &plan)
}

/// Addresses frames that are for one station to the switch at that port. One that hands on by MACs would not know another
/// station, and drop an attack without having seen what is wrong with it.
fn aim(site: &Site, port: usize, frames: &mut [Vec<u8>]) {
    let sides = site.tenants.iter().flat_map(SwitchConfig::devices);
    let mac = sides.map(|side| side.mac).nth(port);
    for (frame, mac) in frames.iter_mut().zip(mac.iter().cycle()) {
        if frame[0] & 1 == 0 {
            frame[..6].copy_from_slice(&mac.octets());
        }
    }
}

/// This program again, as a load.
fn load_command(site: &Site) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("this program does not know where it is")?;
    // Ahead of what else is on its CPU: a load that has to wait looks like a switch that is late.
    // In a session of its own: the kernel shares a CPU among sessions first (sched_autogroup), and weighs each there by what it
    // has elsewhere. Beside such a load a switch of the same session is left next to nothing, once another session wants its CPU.
    let mut command = site.load_command("setsid");
    command.args(["nice", "--adjustment=-20"]);
    command.arg(own).arg("load");
    Ok(command)
}

/// The value in the middle; of an even number, the mean of the two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// The least and the most.
pub(crate) fn ends(values: impl IntoIterator<Item = f64>) -> [f64; 2] {
    values
        .into_iter()
        .fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| {
            [low.min(value), high.max(value)]
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_wires_share_what_may_be_under_way() {
        let veth = [1, 2, 4, 16].map(|paths| in_flight(Wires::Veth, paths));
        assert_eq!(veth, [256, 256, 128, 32]);
        assert_eq!(in_flight(Wires::Memif, 16), 256);
    }

    #[test]
    fn the_median_is_the_value_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
