//! The load's thread: sends, forwards what VMs forward, and counts what comes out.

use std::time::{Duration, Instant};

use anyhow::bail;
use dpdk::{Burst, Eal, EalOptions, Mbuf, Mempool, Port, PortOptions, cycles};
use tenant_config::Memory;

use super::arp;
use super::frames::{ATTACK_MARK, Tag, intact};
use super::path::{FloodState, Path, Progress, due};
use super::{LoadDevice, LoadPlan, LoadPort, LoadReport, Pace, STALLED};

/// How long a load waits for its links and for the first frame of each path.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long frames in flight may still come back at the end.
const DRAIN: Duration = Duration::from_millis(300);
/// Packet memory, in MiB and in frames.
const MEMORY_MIB: u32 = 256;
const FRAMES: u32 = 32_768;
/// Attempts to send what a VM forwards, before it is lost.
const TRIES: usize = 100_000;

/// A port with the frames that VMs forward there.
struct TxPort {
    port: Port,
    queues: u16,
    pending: Burst,
}

impl TxPort {
    fn open(eal: &Eal, number: usize, plan: &LoadPort, pool: &Mempool) -> anyhow::Result<Self> {
        let options = PortOptions {
            queues: plan.queues,
            ..PortOptions::default()
        };
        let name = format!("load{number}");
        let port = match &plan.device {
            LoadDevice::Ours(device) => Port::open(eal, &name, device, pool, &options),
            LoadDevice::Virtual { name, arguments } => {
                retried(|| Port::open_virtual(eal, name, arguments, pool, &options))
            }
        };
        Ok(Self {
            port: port?,
            queues: plan.queues,
            pending: Burst::new(),
        })
    }

    fn flush(&mut self) {
        let mut tries = 0;
        while !self.pending.is_empty() && tries < TRIES {
            self.port.tx(&mut self.pending);
            tries += 1;
        }
        self.pending.clear();
    }
}

pub(super) struct Worker {
    paths: Vec<Path>,
    floods: Vec<FloodState>,
    ports: Vec<TxPort>,
    pool: Mempool,
    pattern: Vec<u8>,
    len: usize,
    pace: Pace,
    cycles_per_second: u64,
    phase: Instant,
    measuring: bool,
    report: LoadReport,
}

impl Worker {
    /// Opens all ports.
    pub(super) fn new(plan: &LoadPlan) -> anyhow::Result<Self> {
        let eal = Eal::start(&EalOptions {
            memory: Memory {
                mib: MEMORY_MIB,
                hugepages: plan.hugepages,
            },
            cpu: plan.cpu,
            name: format!("load{}", std::process::id()),
            pci: Vec::new(),
            one_file: true,
        })?;
        let pool = Mempool::new(&eal, FRAMES, 1500)?;
        let ports = plan.ports.iter().enumerate();
        let paths = plan.paths.iter().enumerate();
        let cycles_per_second = eal.cycles_per_second();
        Ok(Self {
            ports: ports
                .map(|(number, port)| TxPort::open(&eal, number, port, &pool))
                .collect::<anyhow::Result<_>>()?,
            paths: paths
                .map(|(number, hops)| Path::new(plan, number, hops))
                .collect(),
            floods: plan
                .floods
                .iter()
                .map(|flood| FloodState::new(flood, cycles_per_second))
                .collect(),
            pool,
            pattern: plan.shape.pattern(),
            len: plan.shape.len(),
            pace: plan.pace,
            cycles_per_second,
            phase: Instant::now(),
            measuring: false,
            report: LoadReport::default(),
        })
    }

    pub(super) fn wait_for_links(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while let Some(down) = self.ports.iter().position(|port| !port.port.link_up()) {
            if begin.elapsed() > PATIENCE {
                bail!(
                    "port {down} has no link after {PATIENCE:?}: the switch under test has not \
                     opened its end"
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Sends single frames until one has come back on every path.
    pub(super) fn make_ready(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            for path in 0..self.paths.len() {
                if !self.paths[path].ledger.has_received() {
                    self.send(path, 1);
                }
            }
            // The switch's other threads are on this CPU, and some switches still need them before
            // they use a port.
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(1));
                self.receive();
            }
            let silent = self
                .paths
                .iter()
                .position(|path| !path.ledger.has_received());
            let Some(silent) = silent else {
                break;
            };
            if begin.elapsed() > PATIENCE {
                bail!("no frame came back on path {silent} in {PATIENCE:?}");
            }
        }
        // Frames sent before the switch had resolved its neighbours do not count as lost.
        for path in &mut self.paths {
            path.ledger.reset();
            path.due = cycles();
        }
        self.report = LoadReport::default();
        self.phase = Instant::now();
        Ok(())
    }

    /// The time since the load was ready.
    pub(super) fn phase_time(&self) -> Duration {
        self.phase.elapsed()
    }

    /// Sends and receives until `done`, which is called every 64 rounds.
    pub(super) fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        loop {
            for _ in 0..64 {
                self.round();
            }
            if done(self) {
                return;
            }
        }
    }

    /// Measures for a time, and returns the time that it took.
    pub(super) fn measure(&mut self, time: Duration) -> Duration {
        self.measuring = true;
        let begin = Instant::now();
        self.run_until(|_| begin.elapsed() >= time);
        self.measuring = false;
        begin.elapsed()
    }

    fn round(&mut self) {
        let now = cycles();
        for path in 0..self.paths.len() {
            let count = self.allowed(path, now);
            if count > 0 {
                self.send(path, count);
            }
        }
        self.flood(now);
        self.receive();
    }

    /// The number of frames that a path may send now, at most a burst.
    fn allowed(&mut self, path: usize, now: u64) -> usize {
        // Switches that share a CPU take turns: a path may have to wait for all others.
        let patience =
            self.cycles_per_second * STALLED.as_millis() as u64 / 1000 * self.paths.len() as u64;
        let path = &mut self.paths[path];
        match self.pace {
            Pace::Closed { in_flight } => {
                if path
                    .progress
                    .has_stalled(path.ledger.in_flight, now, patience)
                {
                    path.ledger.give_up();
                }
                let room = in_flight.saturating_sub(path.ledger.in_flight) as usize;
                // Whole bursts, as a NIC's ring would have them.
                if room < Burst::CAPACITY.min(in_flight as usize) {
                    return 0;
                }
                room.min(Burst::CAPACITY)
            }
            Pace::Open { per_second } => {
                let step = (self.cycles_per_second / per_second).max(1);
                due(&mut path.due, step, now)
            }
        }
    }

    /// Sends `count` frames of a path, at most a burst, and its attacks.
    fn send(&mut self, path: usize, count: usize) {
        let number = path as u8;
        let path = &mut self.paths[path];
        let first = &path.hops[0];
        let mut burst = Burst::new();
        self.pool.fill(&mut burst, count);
        let count = burst.len();
        let begin = path.turn;
        let sent = cycles();
        for mbuf in burst.iter_mut() {
            let flow = path.order[path.turn];
            path.turn = (path.turn + 1) % path.order.len();
            let tag = Tag {
                path: number,
                hop: 0,
                flow,
                number: path.ledger.number(flow),
                sent,
            };
            let headers = &first.headers[flow as usize];
            tag.write(headers, &self.pattern, mbuf.reset(self.len));
        }
        let taken = self.ports[first.from].port.tx(&mut burst);
        if taken < count {
            for back in taken..count {
                let turn = (begin + back) % path.order.len();
                path.ledger.unsend(path.order[turn]);
            }
            path.turn = (begin + taken) % path.order.len();
            burst.clear();
        }
        for attack in &mut path.attacks {
            let mut burst = Burst::new();
            for _ in 0..taken {
                let mbuf = attack
                    .after_frame()
                    .and_then(|frame| self.pool.alloc_with(frame));
                if let Some(mbuf) = mbuf {
                    let _ = burst.push(mbuf);
                }
            }
            if !burst.is_empty() {
                self.report.attacks_sent += self.ports[attack.port].port.tx(&mut burst) as u64;
                burst.clear();
            }
        }
    }

    fn flood(&mut self, now: u64) {
        for flood in &mut self.floods {
            let mut burst = Burst::new();
            for _ in 0..flood.due(now) {
                if let Some(mbuf) = self.pool.alloc_with(flood.next()) {
                    let _ = burst.push(mbuf);
                }
            }
            if !burst.is_empty() {
                self.report.attacks_sent += self.ports[flood.port].port.tx(&mut burst) as u64;
                // Frames that do not fit into the ring are not sent.
                burst.clear();
            }
        }
    }

    /// Receives a burst from every queue of every port.
    fn receive(&mut self) {
        let mut burst = Burst::new();
        for index in 0..self.ports.len() {
            for queue in 0..self.ports[index].queues {
                if self.ports[index].port.rx_queue(queue, &mut burst) == 0 {
                    continue;
                }
                burst.prefetch();
                let now = cycles();
                for mbuf in burst.drain() {
                    self.take(index, mbuf, now);
                }
            }
        }
        for port in &mut self.ports {
            port.flush();
        }
    }

    /// Counts a received frame, and forwards it if a VM would.
    #[inline]
    fn take(&mut self, port: usize, mut mbuf: Mbuf, now: u64) {
        let Some(tag) = Tag::read(mbuf.bytes()) else {
            self.take_other(port, &mbuf);
            return;
        };
        let Some(path) = self.paths.get_mut(usize::from(tag.path)) else {
            self.report.foreign += 1;
            return;
        };
        let right = path.hops.get(usize::from(tag.hop)).is_some_and(|leg| {
            let headers = leg.headers.get(tag.flow as usize);
            leg.to == port
                && headers.is_some_and(|headers| intact(mbuf.bytes(), headers, &self.pattern))
        });
        if !right {
            path.ledger.wrong();
            return;
        }
        path.progress = Progress::at(now);
        match path.hops.get(usize::from(tag.hop) + 1) {
            None => path.ledger.received(tag, now, self.measuring),
            Some(next) => {
                let frame = mbuf.bytes_mut();
                Tag::forward(tag.hop + 1, &next.headers[tag.flow as usize], frame);
                let out = &mut self.ports[next.from];
                if out.pending.is_full() {
                    out.flush();
                }
                // A frame that does not fit even now is lost, and counted as lost.
                let _ = out.pending.push(mbuf);
            }
        }
    }

    /// Handles a frame without a tag: an attack that got through, the switch's ARP request, or a
    /// foreign frame.
    #[cold]
    fn take_other(&mut self, port: usize, mbuf: &Mbuf) {
        let bytes = mbuf.bytes();
        if bytes.ends_with(&ATTACK_MARK) {
            self.report.attacks_delivered += 1;
        } else if let Some(reply) = arp::reply(bytes) {
            let mut burst = Burst::new();
            if let Some(mbuf) = self.pool.alloc_with(&reply) {
                let _ = burst.push(mbuf);
            }
            self.ports[port].port.tx(&mut burst);
        } else {
            self.report.foreign += 1;
        }
    }

    /// Waits for the frames in flight and returns all counts.
    pub(super) fn finish(mut self, measured: Duration) -> LoadReport {
        let end = Instant::now() + DRAIN;
        while Instant::now() < end && !self.paths.iter().all(|path| path.ledger.is_balanced()) {
            self.receive();
        }
        self.report.seconds = measured.as_secs_f64();
        self.report.paths = self
            .paths
            .into_iter()
            .map(|path| path.ledger.close(self.cycles_per_second))
            .collect();
        // Closing a memif closes it for the other side, which may crash.
        std::mem::forget(self.ports);
        self.report
    }
}

/// Repeats an attempt until it succeeds, or for [`PATIENCE`]. Open vSwitch takes all of its memory
/// while it makes room for a port's frames, and then refuses the next client.
fn retried<T, E>(mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let begin = Instant::now();
    loop {
        let result = attempt();
        if result.is_ok() || begin.elapsed() > PATIENCE {
            return result;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_attempt_is_repeated() {
        let mut answers = [Err("no memory"), Ok("open")].into_iter();
        let mut attempt = || answers.next().expect("no attempt after a success");
        assert_eq!(retried(&mut attempt), Ok("open"));
    }
}
