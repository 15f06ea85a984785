//! The pipeline alone, without a device: switches of several sizes, and frames of each kind.
//!
//! ```text
//!  list ──► attacks ──► frames     which scenarios there are, and their frames
//!    └────► remote                 the tunnel's other end
//!           copied                 buffers that frames are copied into
//! ```
//!
//! `round` adds a worker, for some of them.

mod attacks;
mod copied;
mod frames;
mod list;
mod remote;
mod round;

use anyhow::bail;
use dpdk::cycles;
use packet::{DropReason, Frame};
use pipeline::{Generation, Pipeline, PortId, Verdict};
use tenant_config::{
    Addresses, Addresses6, AnyGroup, Ipv6Autoconf, LearnedFrom, MacAddr, MulticastGroups,
    SwitchConfig,
};

use crate::network::{self, Size};

pub use attacks::{attacks, flood};
pub use list::{Scale, scale, scenarios};
use remote::Remote;
pub use round::{Round, Wire, round_names};

/// The frames of one burst.
pub const BURST: usize = 32;

/// The bytes of a frame's buffer.
const BUFFER: usize = 2048;

/// Frames of one kind, again and again, through one switch.
pub struct Scenario {
    /// The name, such as `v4-to-uplink/64-ports-1-addresses`.
    pub name: String,
    size: Size,
    with: With,
    /// The port that the frames come from.
    from: PortId,
    frames: Vec<Vec<u8>>,
    expected: Expected,
}

/// What a tenant has beside its VMs and an uplink.
#[derive(Debug, Clone, Copy)]
enum With {
    /// Nothing.
    Nothing,
    /// A tunnel.
    Tunnel(Remote),
    /// Groups, which its VMs may send to.
    Groups,
    /// IPv6 addresses that its VMs have claimed, so many each.
    Claims(u16),
    /// A DHCP server at the first port, and VMs at all others that have their addresses from it.
    Leases,
}

/// The verdict on every frame of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Forward,
    Reply,
    Drop(DropReason),
}

impl From<Verdict> for Expected {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Forward(_) | Verdict::Copies => Self::Forward,
            Verdict::Reply => Self::Reply,
            Verdict::Drop(reason) | Verdict::DropWithError(reason) => Self::Drop(reason),
        }
    }
}

impl Scenario {
    /// Builds the switch.
    ///
    /// # Panics
    /// If a frame does not get the expected verdict.
    pub fn start(&self) -> Run {
        let mut run = Run {
            pipeline: self.pipeline(),
            from: self.from,
            frames: (0..BURST)
                .map(|nth| self.frames[nth % self.frames.len()].clone())
                .collect(),
            buffers: vec![[0; BUFFER]; BURST],
            verdicts: Vec::new(),
            spare: copied::Spare::default(),
            copies: false,
            receivers: usize::from(self.size.ports) - 1,
        };
        run.claim(self);
        run.verdicts = (0..BURST).map(|nth| run.decide(nth)).collect();
        run.copies = run.verdicts.contains(&Verdict::Copies);
        for verdict in &run.verdicts {
            assert_eq!(Expected::from(*verdict), self.expected, "{}", self.name);
        }
        run
    }

    /// The switch's configuration.
    fn config(&self) -> SwitchConfig {
        let mut config = match &self.with {
            With::Tunnel(remote) => remote.tenant(self.size),
            _ => network::tenant(0, self.size),
        };
        match self.with {
            With::Groups => {
                config.multicast.groups = MulticastGroups::Any(AnyGroup::Any);
                for port in &mut config.ports {
                    // The clock stands still.
                    port.limits.multicast_pps = Some(u32::MAX);
                }
            }
            With::Claims(_) => {
                config.gateway.ipv6_autoconf = Ipv6Autoconf::Slaac;
                for port in &mut config.ports {
                    port.addresses6 = Some(Addresses6::LearnNd);
                }
            }
            With::Leases => {
                let (server, clients) = config.ports.split_first_mut().expect("it has ports");
                server.dhcp_server = true;
                for port in clients {
                    port.addresses = Addresses::Learned(LearnedFrom::Dhcp);
                }
            }
            With::Nothing | With::Tunnel(_) => {}
        }
        config
    }

    /// The switch, with all next hops resolved.
    fn pipeline(&self) -> Pipeline {
        let config = self.config();
        let mut generation = Generation::build(&config, None);
        if matches!(self.with, With::Leases) {
            for (index, port) in (1..).zip(&config.ports).skip(1) {
                let station = (port.name.as_str(), port.mac);
                let address = network::vm_ipv4(index, 0);
                assert!(generation.restore_lease(station, address, u64::MAX));
            }
        }
        let mut pipeline = Pipeline::new(generation);
        let next_hop = MacAddr::new(network::NEXT_HOP_MAC).expect("a unicast MAC");
        pipeline.assume_next_hops(0, next_hop);
        pipeline
    }
}

/// A scenario's switch at work.
pub struct Run {
    pipeline: Pipeline,
    from: PortId,
    /// One for each buffer, all of the same length.
    frames: Vec<Vec<u8>>,
    buffers: Vec<[u8; BUFFER]>,
    /// The expected verdict on each frame.
    verdicts: Vec<Verdict>,
    /// For the copies of frames that several ports get.
    spare: copied::Spare,
    /// Whether there are such frames.
    copies: bool,
    /// How many ports get each of them.
    receivers: usize,
}

impl Run {
    /// Cycles of the time stamp counter that the switch spends on one frame, without the filling of
    /// buffers.
    ///
    /// # Panics
    /// If a verdict differs from the first burst's.
    pub fn cycles_per_frame(&mut self) -> f64 {
        const BURSTS: usize = 500;
        let mut spend = |step: fn(&mut Self) -> usize| {
            let begin = cycles();
            let right: usize = (0..BURSTS).map(|_| step(self)).sum();
            let took = cycles().wrapping_sub(begin);
            assert_eq!(right, BURSTS * BURST, "a verdict was not as expected");
            took as f64 / (BURSTS * BURST) as f64
        };
        let harness = spend(Self::baseline);
        spend(Self::burst) - harness
    }

    /// Has each VM claim its addresses.
    fn claim(&mut self, scenario: &Scenario) {
        let With::Claims(each) = scenario.with else {
            return;
        };
        let of_port = |port| (0..each).map(move |nth| (port, nth));
        for (port, nth) in (1..=scenario.size.ports).flat_map(of_port) {
            let bytes = frames::detection(port, frames::claimed(port, nth));
            let mut frame = filled(&mut self.buffers[0], &bytes);
            let verdict = self.pipeline.process(1, PortId(port - 1), &mut frame);
            assert_eq!(
                verdict,
                Verdict::Drop(DropReason::Absorbed),
                "{}",
                scenario.name
            );
        }
    }

    fn decide(&mut self, nth: usize) -> Verdict {
        let mut frame = filled(&mut self.buffers[nth], &self.frames[nth]);
        self.pipeline.process(1, self.from, &mut frame)
    }

    /// Fills a burst of buffers with the frames and decides on each of them. Returns the number of
    /// verdicts that were as expected.
    pub fn burst(&mut self) -> usize {
        if self.copies {
            return self.burst_of_copies();
        }
        let mut right = 0;
        let mut expected = self.verdicts.iter();
        let frames = self.buffers.iter_mut().zip(&self.frames);
        let filled = frames.map(|(buffer, bytes)| filled(buffer, bytes));
        let mut pass = self.pipeline.burst(1, self.from);
        pass.process_all(filled, |_, verdict| {
            right += usize::from(Some(&verdict) == expected.next());
        });
        right
    }

    /// The same where each frame goes to several ports: with the copies. Those of a frame come one
    /// after the other.
    fn burst_of_copies(&mut self) -> usize {
        let mut copies = 0;
        let frames = self.frames.iter().map(|bytes| self.spare.fill(bytes));
        let mut pass = self.pipeline.burst(1, self.from);
        pass.process_all(frames, |_, verdict| {
            copies += usize::from(matches!(verdict, Verdict::Forward(_)));
        });
        copies / self.receivers
    }

    /// The harness's part of [`Self::burst`]: fills the buffers.
    pub fn baseline(&mut self) -> usize {
        let mut right = 0;
        let frames = self.frames.iter().zip(&self.verdicts);
        for (buffer, (bytes, expected)) in self.buffers.iter_mut().zip(frames) {
            let mut frame = filled(buffer, bytes);
            let verdict = std::hint::black_box(*expected);
            right += usize::from(verdict == *expected);
            std::hint::black_box(frame.bytes_mut());
        }
        right
    }
}

/// A frame with these bytes in a buffer.
#[inline(always)]
fn filled<'b>(buffer: &'b mut [u8; BUFFER], bytes: &[u8]) -> Frame<'b> {
    buffer[Frame::HEADROOM..Frame::HEADROOM + bytes.len()].copy_from_slice(bytes);
    Frame::new(buffer, Frame::HEADROOM, bytes.len(), None)
}

/// The stages whose names begin with one of `only`; all if `only` is empty.
///
/// # Errors
/// If there is none.
pub fn chosen<T>(
    mut stages: Vec<T>,
    name: impl Fn(&T) -> &str,
    only: &[String],
) -> anyhow::Result<Vec<T>> {
    let begins = |stage: &T| only.iter().any(|prefix| name(stage).starts_with(prefix));
    stages.retain(|stage| only.is_empty() || begins(stage));
    if stages.is_empty() {
        bail!(
            "no stage's name begins with {}: bench list shows all names",
            only.join(" or ")
        );
    }
    Ok(stages)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use pipeline::Stage;

    use super::*;

    #[test]
    fn scenarios_pass_every_stage_that_all_tenants_have() {
        let mut passed = HashSet::new();
        for scenario in scenarios() {
            let mut run = scenario.start();
            let mut frame = filled(&mut run.buffers[0], &run.frames[0]);
            let mut note = |stage, _: std::fmt::Arguments<'_>| {
                passed.insert(stage);
            };
            let verdict = run
                .pipeline
                .process_traced(1, run.from, &mut frame, &mut note);
            assert_eq!(Expected::from(verdict), scenario.expected);
        }
        // Without limits storm control does nothing, and without IPsec nothing is opened; the
        // benchmarks' tenants have neither. `esp-cost` measures ESP.
        passed.extend([Stage::Storm, Stage::Ipsec]);
        let missing = Stage::ALL.iter().filter(|stage| !passed.contains(*stage));
        assert_eq!(missing.collect::<Vec<_>>(), Vec::<&Stage>::new());
    }

    #[test]
    fn every_scenario_keeps_its_verdicts() {
        let scale = scale().into_iter().map(|scale| scale.scenario);
        for scenario in scenarios().into_iter().chain(scale) {
            let mut run = scenario.start();
            assert_eq!(run.burst(), BURST, "{}", scenario.name);
            assert_eq!(run.burst(), BURST, "{} again", scenario.name);
        }
    }
}
