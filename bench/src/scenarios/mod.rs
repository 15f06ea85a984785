//! The scenarios, a file for each.

pub mod apps;
pub mod encrypted;
pub mod idle;
pub mod ike;
pub mod latency;
pub mod noisy;
pub mod provisioner;
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
use crate::switches::{Counters, Peer, PollMode, Switch};

pub use throughput::{Pair, Throughput, Traffic, Variant};

/// The most frames in flight on each path of a closed loop: half of the capacity of the wires'
/// rings. A full ring would lose frames, because its reader frees entries only at its next poll.
const IN_FLIGHT: u32 = 256;
/// The same for all paths together on kernel interfaces: their frames share one queue, the CPU's
/// backlog, which drops frames above `net.core.netdev_max_backlog`, by default 1000.
const IN_FLIGHT_OF_KERNEL: u32 = 512;
/// The bytes of a frame in a scenario that does not vary them.
const FRAME: u16 = 64;
/// The flows in a scenario that does not vary them.
const FLOWS: u32 = 1;

/// The settings of all scenarios.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Settings {
    /// The CPUs.
    pub cpus: Cpus,
    /// Measurements of each pair; our switch and the peer take turns.
    pub rounds: u32,
    /// The time before a measurement.
    pub warm_up: Duration,
    /// The time of a measurement.
    pub measure: Duration,
    /// The seed of the flows and their order.
    pub seed: u64,
    /// Our switch's poll mode, in scenarios where it can be chosen.
    pub poll: PollMode,
}

/// A scenario's settings, its peers, and the receiver of a description of each step.
pub struct Task<'a>(
    pub &'a Settings,
    pub &'a [Peer],
    pub &'a mut dyn FnMut(&str),
);

impl Settings {
    /// Frames of a size in a number of flows.
    fn shape(&self, bytes: u16, flows: u32) -> Shape {
        Shape {
            bytes,
            flows,
            seed: self.seed,
        }
    }

    /// The frames of a scenario that varies neither: the smallest, because the bytes load only the
    /// wires, in one flow.
    fn plain(&self) -> Shape {
        self.shape(FRAME, FLOWS)
    }
}

/// The result of one run of one switch.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Frames that were received at the end, in millions a second.
    pub mpps: f64,
    /// The switch's own count of cycles per frame and pass.
    pub cycles_per_frame: Option<f64>,
    /// The load's counts.
    pub load: LoadReport,
}

impl Sample {
    /// The latency of the first path, in an open loop.
    fn latency(&self) -> Option<Latency> {
        self.load.paths[0].latency
    }
}

/// The traffic of one run.
#[derive(Debug, Clone)]
pub struct Work {
    /// The paths of the frames.
    pub paths: Vec<Vec<Hop>>,
    /// Their size and flows.
    pub shape: Shape,
    /// Their rate.
    pub pace: Pace,
    /// Attacks beside them.
    pub attacks: Vec<Attack>,
    /// Floods beside them.
    pub floods: Vec<Flood>,
}

impl Work {
    /// Good frames only.
    pub fn good(paths: Vec<Vec<Hop>>, shape: Shape, pace: Pace) -> Self {
        Self {
            paths,
            shape,
            pace,
            attacks: Vec::new(),
            floods: Vec::new(),
        }
    }

    /// As many good frames as the switch can forward, in a closed loop through all tenants.
    fn most(site: &Site, topology: Topology, shape: Shape) -> Self {
        let paths = site.paths(topology);
        let in_flight = in_flight(site.wires, paths.len());
        Self::good(paths, shape, Pace::Closed { in_flight })
    }
}

/// The most frames in flight on each of `paths` paths.
fn in_flight(wires: Wires, paths: usize) -> u32 {
    match wires {
        Wires::Memif | Wires::VhostUser => IN_FLIGHT,
        Wires::Veth => IN_FLIGHT.min(IN_FLIGHT_OF_KERNEL / paths as u32),
    }
}

/// Runs a switch on the site under the work.
///
/// # Errors
/// The switch's or the load's error.
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
    // The switch first: some crash if the load ends before them.
    drop(running);
    Ok(Sample {
        mpps: report.frames_per_second() / 1e6,
        cycles_per_frame: Counters::cycles_per_frame(after, before),
        load: report,
    })
}

/// Starts the load of a running switch.
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

/// Addresses unicast frames to the switch's MAC at a port. A switch that forwards by MAC would drop
/// an attack to an unknown MAC without checking it.
fn aim(site: &Site, port: usize, frames: &mut [Vec<u8>]) {
    let sides = site.tenants.iter().flat_map(SwitchConfig::devices);
    let mac = sides.map(|side| side.mac).nth(port);
    for (frame, mac) in frames.iter_mut().zip(mac.iter().cycle()) {
        if frame[0] & 1 == 0 {
            frame[..6].copy_from_slice(&mac.octets());
        }
    }
}

/// This program as a load.
fn load_command(site: &Site) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("the path of this program is unknown")?;
    // A high priority, because a load that waits for its CPU looks like a slow switch. Its own
    // session, because the kernel shares a CPU among sessions first (sched_autogroup), and weighs a
    // session by its use of all CPUs. In the load's session, the switch would get next to nothing
    // as soon as another session wants its CPU.
    let mut command = site.load_command("setsid");
    command.args(["nice", "--adjustment=-20"]);
    command.arg(own).arg("load");
    Ok(command)
}

/// The median; for an even number of values, the mean of the middle two.
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

/// The minimum and the maximum.
pub(crate) fn extremes(values: impl IntoIterator<Item = f64>) -> [f64; 2] {
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
    fn paths_on_kernel_interfaces_share_the_frames_in_flight() {
        let veth = [1, 2, 4, 16].map(|paths| in_flight(Wires::Veth, paths));
        assert_eq!(veth, [256, 256, 128, 32]);
        assert_eq!(in_flight(Wires::Memif, 16), 256);
    }

    #[test]
    fn median_is_the_middle_value_or_the_mean_of_two() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
