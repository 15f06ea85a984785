//! A worker's round: from the buffers that a port has received to those that another sends.
//!
//! The frames come over a wire in memory and leave by a device that drops them, so that nothing but
//! the worker is left when the harness's part is subtracted: filling the buffers, and the wire.

use anyhow::{Context, ensure};
use dpdk::{Burst, Eal, EalOptions, Mempool, PortOptions};
use ports::{MemoryPort, Port};
use tenant_config::{MacAddr, Memory};
use vswitch::worker::{Link, Worker};

use super::{BURST, Scenario, scenarios};
use crate::network;

/// What a round's name begins with; the scenario's name follows.
const PREFIX: &str = "round/";
/// The scenarios whose rounds are counted, by the beginnings of their names. Each port is a device,
/// and DPDK has at most 32.
const COUNTED: [&str; 6] = [
    "v4-port-to-port/2-ports-1-",
    "v6-port-to-port/2-ports-1-",
    "v4-to-uplink/1-ports-1-",
    "v4-from-uplink/1-ports-1-",
    "tunnel/into-geneve-64",
    "tunnel/out-of-geneve-64",
];

/// The names of all rounds, in the order of the report.
pub fn round_names() -> Vec<String> {
    let all = scenarios().into_iter();
    let counted = all.filter(|scenario| COUNTED.iter().any(|name| scenario.name.starts_with(name)));
    counted
        .map(|scenario| format!("{PREFIX}{}", scenario.name))
        .collect()
}

/// A worker, and the other end of the wire that its frames come over.
pub struct Round {
    worker: Worker,
    feed: MemoryPort,
    pool: Mempool,
    frames: Vec<Vec<u8>>,
    forwarded: Box<dyn Fn() -> u64>,
}

/// The wire alone.
pub struct Wire {
    feed: MemoryPort,
    end: Port,
    pool: Mempool,
    frames: Vec<Vec<u8>>,
}

/// DPDK, and a pool of buffers.
fn start() -> anyhow::Result<(Eal, Mempool)> {
    let eal = Eal::start(&EalOptions {
        memory: Memory {
            mib: 32,
            hugepages: false,
        },
        cpu: 0,
        name: format!("round{}", std::process::id()),
        pci: Vec::new(),
        one_file: false,
    })?;
    let pool = Mempool::new(&eal, 512, 1500)?;
    Ok((eal, pool))
}

/// Fills a burst of buffers with the frames, and sends it.
fn send(pool: &Mempool, frames: &[Vec<u8>], feed: &mut MemoryPort) {
    let mut burst = Burst::new();
    pool.fill(&mut burst, BURST);
    for (mbuf, bytes) in burst.iter_mut().zip(frames.iter().cycle()) {
        mbuf.reset(bytes.len()).copy_from_slice(bytes);
    }
    feed.tx(&mut burst);
}

/// The scenario of a round's name.
fn scenario(name: &str) -> anyhow::Result<Scenario> {
    let known = |scenario: &Scenario| name.strip_prefix(PREFIX) == Some(&*scenario.name);
    let scenario = scenarios().into_iter().find(known);
    scenario.with_context(|| format!("there is no round {name}"))
}

impl Round {
    /// The round of that name. To be called once in a process: DPDK starts only once.
    ///
    /// # Errors
    /// If there is no such round, or DPDK does not start.
    pub fn start(name: &str) -> anyhow::Result<Self> {
        let scenario = scenario(name)?;
        let (eal, pool) = start()?;
        let config = scenario.config();
        let mut generation = pipeline::Generation::build(&config, None);
        let next_hop = MacAddr::new(network::NEXT_HOP_MAC).context("the next hop's MAC")?;
        generation.assume_next_hops(0, next_hop);
        let counters = generation.counters();
        let from = scenario.from.index();
        let (feed, end) = ports::pair(BURST)?;
        let mut end = Some(Port::from(end));
        let mut own = Vec::new();
        for number in 0..=config.ports.len() {
            own.push(match end.take_if(|_| number == from) {
                Some(end) => end,
                None => {
                    let device = format!("net_null{number}");
                    let options = PortOptions::default();
                    let null = dpdk::Port::open_virtual(&eal, &device, "no-rx=1", &pool, &options)?;
                    null.into()
                }
            });
        }
        let link = Link::new(own.len())?;
        let worker = Worker::new(&eal, own, pool.clone(), generation, link)?;
        Ok(Self {
            worker,
            feed,
            pool,
            frames: scenario.frames,
            forwarded: Box::new(move || counters.port(from).forwarded.get()),
        })
    }

    /// So many bursts of frames.
    ///
    /// # Errors
    /// If a frame was not forwarded.
    pub fn run(&mut self, bursts: usize) -> anyhow::Result<()> {
        let before = (self.forwarded)();
        for _ in 0..bursts {
            send(&self.pool, &self.frames, &mut self.feed);
            self.worker.step();
        }
        let forwarded = (self.forwarded)() - before;
        let expected = (bursts * BURST) as u64;
        ensure!(
            forwarded == expected,
            "{forwarded} of {expected} frames were forwarded"
        );
        Ok(())
    }
}

impl Wire {
    /// The harness's part of a round. To be called once in a process.
    ///
    /// # Errors
    /// As [`Round::start`].
    pub fn start(name: &str) -> anyhow::Result<Self> {
        let scenario = scenario(name)?;
        let (_, pool) = start()?;
        let (feed, end) = ports::pair(BURST)?;
        Ok(Self {
            feed,
            end: end.into(),
            pool,
            frames: scenario.frames,
        })
    }

    /// So many bursts of frames, which are received and freed.
    pub fn run(&mut self, bursts: usize) {
        let mut burst = Burst::new();
        for _ in 0..bursts {
            send(&self.pool, &self.frames, &mut self.feed);
            self.end.rx(&mut burst);
            burst.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, because DPDK starts once in a process.
    #[test]
    fn round_forwards_every_frame() {
        let names = round_names();
        assert_eq!(names.len(), COUNTED.len());
        let mut round = Round::start(&names[0]).expect("it starts");
        round.run(3).expect("all are forwarded");
    }
}
