//! The process: sends, carries on what a VM is to carry on, and counts what comes out.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use dpdk::{Burst, Eal, EalOptions, Mbuf, Mempool, Port, PortOptions, cycles};
use tenant_config::Memory;

use super::frames::{ATTACK_MARK, HEADERS, Tag, intact};
use super::ledger::Ledger;
use super::{Event, LoadDevice, LoadPlan, LoadReport, Pace, STALLED};

/// How long a load waits for its links and for the first frame of each path.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what is under way may still come back at the end.
const DRAIN: Duration = Duration::from_millis(300);
const MEMORY_MIB: u32 = 256;
/// Tries to send what a VM carries on, before it is lost there.
const TRIES: usize = 100_000;

/// Does what the plan on standard input says, and tells standard output of it; errors as [`Event::Failed`].
pub fn serve() {
    let event = carry_out().unwrap_or_else(|error| Event::Failed(format!("{error:#}")));
    tell(&event);
    if matches!(event, Event::Done(_)) {
        // The ports stay open until nobody needs them: some peers do not survive their going.
        let _ = std::io::stdin().lock().lines().next();
    }
}

fn tell(event: &Event) {
    let line = serde_json::to_string(event).expect("plain numbers and text");
    // Nobody there to be told: then nobody waits either.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn carry_out() -> anyhow::Result<Event> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let plan: LoadPlan = serde_json::from_str(&line).context("the plan cannot be read")?;
    let mut worker = Worker::new(&plan)?;
    worker.wait_for_links()?;
    tell(&Event::Open);
    std::io::stdin().lock().read_line(&mut line)?;
    worker.make_ready()?;
    worker.go_on(|worker| worker.since() >= plan.warm_up);
    tell(&Event::Begin);
    let measured = worker.measure(plan.measure);
    tell(&Event::End);
    let told = Arc::new(AtomicBool::new(false));
    let tell_us = Arc::clone(&told);
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read_line(&mut String::new());
        tell_us.store(true, Ordering::Relaxed);
    });
    worker.go_on(|_| told.load(Ordering::Relaxed));
    Ok(Event::Done(worker.close(measured)))
}

/// One way of frames, ready to be sent.
struct Route {
    hops: Vec<Leg>,
    /// The order in which flows take turns, and whose turn it is.
    order: Vec<u32>,
    turn: usize,
    ledger: Ledger,
    /// Of an open loop: cycles when the next frame is due.
    due: u64,
    /// Of a closed loop.
    progress: Progress,
    attacks: Vec<Assault>,
}

struct Leg {
    from: usize,
    to: usize,
    headers: Vec<[u8; HEADERS]>,
}

struct Assault {
    port: usize,
    every: u32,
    frames: Vec<Vec<u8>>,
    /// Frames of the path until the next.
    countdown: u32,
    next: usize,
}

struct Stream {
    port: usize,
    step: u64,
    /// Cycles when the next frame is due.
    due: u64,
    frames: Vec<Vec<u8>>,
    next: usize,
}

struct Outlet {
    port: Port,
    queues: u16,
    /// What VMs carry on.
    onwards: Burst,
}

struct Worker {
    routes: Vec<Route>,
    floods: Vec<Stream>,
    outlets: Vec<Outlet>,
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
    fn new(plan: &LoadPlan) -> anyhow::Result<Self> {
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
        const FRAMES: u32 = 32_768;
        let pool = Mempool::new(&eal, FRAMES, 1500)?;
        let outlets = plan
            .ports
            .iter()
            .enumerate()
            .map(|(index, port)| {
                let options = PortOptions {
                    queues: port.queues,
                    ..PortOptions::default()
                };
                let name = format!("load{index}");
                let opened = match &port.device {
                    LoadDevice::Ours(device) => Port::open(&eal, &name, device, &pool, &options),
                    LoadDevice::Virtual { name, arguments } => {
                        patiently(|| Port::open_virtual(&eal, name, arguments, &pool, &options))
                    }
                };
                Ok(Outlet {
                    port: opened?,
                    queues: port.queues,
                    onwards: Burst::new(),
                })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let routes = plan
            .paths
            .iter()
            .enumerate()
            .map(|(index, hops)| Route {
                hops: hops
                    .iter()
                    .map(|hop| Leg {
                        from: hop.from,
                        to: hop.to,
                        headers: plan.shape.headers(hop),
                    })
                    .collect(),
                order: plan.shape.order(),
                turn: 0,
                ledger: Ledger::new(plan.shape.flows, matches!(plan.pace, Pace::Open { .. })),
                due: 0,
                progress: Progress::at(cycles()),
                attacks: plan
                    .attacks
                    .iter()
                    .filter(|attack| attack.path == index)
                    .map(|attack| Assault {
                        port: attack.port,
                        every: attack.every,
                        frames: attack.frames.clone(),
                        countdown: attack.every,
                        next: 0,
                    })
                    .collect(),
            })
            .collect();
        let floods = plan
            .floods
            .iter()
            .map(|flood| Stream {
                port: flood.port,
                step: (eal.cycles_per_second() / flood.per_second).max(1),
                due: cycles(),
                frames: flood.frames.clone(),
                next: 0,
            })
            .collect();
        Ok(Self {
            routes,
            floods,
            outlets,
            pool,
            pattern: plan.shape.pattern(),
            len: plan.shape.len(),
            pace: plan.pace,
            cycles_per_second: eal.cycles_per_second(),
            phase: Instant::now(),
            measuring: false,
            report: LoadReport::default(),
        })
    }

    fn wait_for_links(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while let Some(down) = self
            .outlets
            .iter()
            .position(|outlet| !outlet.port.link_up())
        {
            if begin.elapsed() > PATIENCE {
                bail!(
                    "port {down} has no link after {PATIENCE:?}: the switch under test has not opened its end"
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Sends single frames until one has come back on every path.
    fn make_ready(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            for path in 0..self.routes.len() {
                if !self.routes[path].ledger.has_received() {
                    self.send(path, 1);
                }
            }
            // The switch's other threads are on this CPU, and some switches still need them to take a port into use.
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(1));
                self.receive();
            }
            let silent = self
                .routes
                .iter()
                .position(|route| !route.ledger.has_received());
            let Some(silent) = silent else {
                break;
            };
            if begin.elapsed() > PATIENCE {
                bail!("no frame came back on path {silent} in {PATIENCE:?}");
            }
        }
        // What was sent before the switch knew its neighbours is nobody's loss.
        for route in &mut self.routes {
            route.ledger.forget();
            route.due = cycles();
        }
        self.report = LoadReport::default();
        self.phase = Instant::now();
        Ok(())
    }

    fn since(&self) -> Duration {
        self.phase.elapsed()
    }

    /// Sends and receives until it is enough, which is asked now and then.
    fn go_on(&mut self, enough: impl Fn(&Self) -> bool) {
        loop {
            for _ in 0..64 {
                self.round();
            }
            if enough(self) {
                return;
            }
        }
    }

    fn measure(&mut self, time: Duration) -> Duration {
        self.measuring = true;
        let begin = Instant::now();
        self.go_on(|_| begin.elapsed() >= time);
        self.measuring = false;
        begin.elapsed()
    }

    fn round(&mut self) {
        let now = cycles();
        // Switches that share a CPU have it by turns: a path may have to wait for all others'.
        let stalled =
            self.cycles_per_second * STALLED.as_millis() as u64 / 1000 * self.routes.len() as u64;
        for path in 0..self.routes.len() {
            let count = match self.pace {
                Pace::Closed { in_flight } => {
                    let route = &mut self.routes[path];
                    if route
                        .progress
                        .has_stalled(route.ledger.in_flight, now, stalled)
                    {
                        route.ledger.give_up();
                    }
                    let room = in_flight.saturating_sub(route.ledger.in_flight);
                    // Whole bursts, as a NIC's ring would have them.
                    if room < (Burst::CAPACITY as u32).min(in_flight) {
                        continue;
                    }
                    room.min(Burst::CAPACITY as u32)
                }
                Pace::Open { per_second } => {
                    let step = (self.cycles_per_second / per_second).max(1);
                    due(&mut self.routes[path].due, step, now) as u32
                }
            };
            if count > 0 {
                self.send(path, count as usize);
            }
        }
        self.flood(now);
        self.receive();
    }

    /// Sends so many frames of the path, at most a burst, and its attacks.
    fn send(&mut self, path: usize, count: usize) {
        let Self {
            routes,
            outlets,
            pool,
            pattern,
            len,
            report,
            ..
        } = self;
        let route = &mut routes[path];
        let first = &route.hops[0];
        let mut burst = Burst::new();
        pool.fill(&mut burst, count);
        let count = burst.len();
        let begin = route.turn;
        let sent = cycles();
        for mbuf in burst.iter_mut() {
            let flow = route.order[route.turn];
            route.turn = (route.turn + 1) % route.order.len();
            let tag = Tag {
                path: path as u8,
                hop: 0,
                flow,
                number: route.ledger.number(flow),
                sent,
            };
            tag.write(&first.headers[flow as usize], pattern, mbuf.reset(*len));
        }
        let taken = outlets[first.from].port.tx(&mut burst);
        if taken < count {
            for back in taken..count {
                let turn = (begin + back) % route.order.len();
                route.ledger.unsend(route.order[turn]);
            }
            route.turn = (begin + taken) % route.order.len();
            burst.clear();
        }
        for assault in &mut route.attacks {
            let mut burst = Burst::new();
            for _ in 0..taken {
                assault.countdown -= 1;
                if assault.countdown == 0 {
                    assault.countdown = assault.every;
                    if let Some(mbuf) = pool.alloc_with(&assault.frames[assault.next]) {
                        let _ = burst.push(mbuf);
                    }
                    assault.next = (assault.next + 1) % assault.frames.len();
                }
            }
            if !burst.is_empty() {
                report.attacks_sent += outlets[assault.port].port.tx(&mut burst) as u64;
                burst.clear();
            }
        }
    }

    fn flood(&mut self, now: u64) {
        for stream in &mut self.floods {
            let mut burst = Burst::new();
            for _ in 0..due(&mut stream.due, stream.step, now) {
                if let Some(mbuf) = self.pool.alloc_with(&stream.frames[stream.next]) {
                    let _ = burst.push(mbuf);
                }
                stream.next = (stream.next + 1) % stream.frames.len();
            }
            if !burst.is_empty() {
                self.report.attacks_sent += self.outlets[stream.port].port.tx(&mut burst) as u64;
                // A full ring is the flood's own loss.
                burst.clear();
            }
        }
    }

    /// A burst from every queue of every port.
    fn receive(&mut self) {
        let mut burst = Burst::new();
        for index in 0..self.outlets.len() {
            for queue in 0..self.outlets[index].queues {
                if self.outlets[index].port.rx_queue(queue, &mut burst) == 0 {
                    continue;
                }
                burst.prefetch();
                let now = cycles();
                for mbuf in burst.drain() {
                    self.take(index, mbuf, now);
                }
            }
        }
        for outlet in &mut self.outlets {
            outlet.flush();
        }
    }

    /// What a frame came to.
    #[inline]
    fn take(&mut self, port: usize, mut mbuf: Mbuf, now: u64) {
        let Some(tag) = Tag::read(mbuf.bytes()) else {
            self.take_other(port, &mbuf);
            return;
        };
        let Some(route) = self.routes.get_mut(usize::from(tag.path)) else {
            self.report.foreign += 1;
            return;
        };
        let right = route.hops.get(usize::from(tag.hop)).is_some_and(|leg| {
            let headers = leg.headers.get(tag.flow as usize);
            leg.to == port
                && headers.is_some_and(|headers| intact(mbuf.bytes(), headers, &self.pattern))
        });
        if !right {
            route.ledger.wrong();
            return;
        }
        route.progress = Progress::at(now);
        match route.hops.get(usize::from(tag.hop) + 1) {
            None => route.ledger.received(tag, now, self.measuring),
            Some(next) => {
                let frame = mbuf.bytes_mut();
                Tag::forward(tag.hop + 1, &next.headers[tag.flow as usize], frame);
                let outlet = &mut self.outlets[next.from];
                if outlet.onwards.is_full() {
                    outlet.flush();
                }
                // What does not fit after so many tries is lost, and found to be.
                let _ = outlet.onwards.push(mbuf);
            }
        }
    }

    /// An attack that got through, the switch's question for a neighbour, or a stranger's frame.
    #[cold]
    fn take_other(&mut self, port: usize, mbuf: &Mbuf) {
        let bytes = mbuf.bytes();
        if bytes.ends_with(&ATTACK_MARK) {
            self.report.attacks_delivered += 1;
        } else if let Some(answer) = arp_answer(bytes) {
            let mut burst = Burst::new();
            if let Some(mbuf) = self.pool.alloc_with(&answer) {
                let _ = burst.push(mbuf);
            }
            self.outlets[port].port.tx(&mut burst);
        } else {
            self.report.foreign += 1;
        }
    }

    fn close(mut self, measured: Duration) -> LoadReport {
        let end = Instant::now() + DRAIN;
        while Instant::now() < end && !self.routes.iter().all(|route| route.ledger.is_balanced()) {
            self.receive();
        }
        self.report.seconds = measured.as_secs_f64();
        self.report.paths = self
            .routes
            .into_iter()
            .map(|route| route.ledger.close(self.cycles_per_second))
            .collect();
        // Closing a memif ends it for the other side, which may not like it.
        std::mem::forget(self.outlets);
        self.report
    }
}

/// Tries until it succeeds, or for [`PATIENCE`]. Open vSwitch takes all the memory it may have while it makes room for a port's frames, and
/// then refuses who comes for the next.
fn patiently<T, E>(mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let begin = Instant::now();
    loop {
        let result = attempt();
        if result.is_ok() || begin.elapsed() > PATIENCE {
            return result;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// When a frame of a path last came a hop further, or there was none to wait for: in cycles.
struct Progress(u64);

impl Progress {
    fn at(now: u64) -> Self {
        Self(now)
    }

    /// Whether the frames under way have not come further for longer than `patience`. Then the next are waited for from now on.
    fn has_stalled(&mut self, in_flight: u32, now: u64, patience: u64) -> bool {
        let stalled = in_flight > 0 && now.saturating_sub(self.0) > patience;
        if in_flight == 0 || stalled {
            self.0 = now;
        }
        stalled
    }
}

/// How many frames are to be sent now, at most a burst; what could not be sent in time is made up for.
fn due(next: &mut u64, step: u64, now: u64) -> usize {
    let late = now.wrapping_sub(*next);
    if late > u64::MAX / 2 {
        return 0;
    }
    let count = (late / step + 1).min(Burst::CAPACITY as u64);
    *next = next.wrapping_add(count * step);
    count as usize
}

impl Outlet {
    fn flush(&mut self) {
        let mut tries = 0;
        while !self.onwards.is_empty() && tries < TRIES {
            self.port.tx(&mut self.onwards);
            tries += 1;
        }
        self.onwards.clear();
    }
}

/// The router's answer to a question for its address (RFC 826).
fn arp_answer(question: &[u8]) -> Option<Vec<u8>> {
    use crate::network::{NEXT_HOP, NEXT_HOP_MAC};
    let arp = question.get(12..42)?;
    if arp[..10] != [8, 6, 0, 1, 8, 0, 6, 4, 0, 1] || arp[26..30] != NEXT_HOP.octets() {
        return None;
    }
    let mut answer = Vec::with_capacity(60);
    answer.extend_from_slice(&question[6..12]);
    answer.extend_from_slice(&NEXT_HOP_MAC);
    answer.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    answer.extend_from_slice(&NEXT_HOP_MAC);
    answer.extend_from_slice(&NEXT_HOP.octets());
    answer.extend_from_slice(&question[22..32]);
    answer.resize(60, 0);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_not_the_last_word() {
        let mut answers = [Err("no memory"), Ok("open")].into_iter();
        let mut attempt = || answers.next().expect("nobody asks after a success");
        assert_eq!(patiently(&mut attempt), Ok("open"));
    }

    #[test]
    fn a_path_that_stands_still_is_found_out_once() {
        let mut progress = Progress::at(100);
        assert!(!progress.has_stalled(0, 500, 50), "nothing is under way");
        assert!(!progress.has_stalled(8, 550, 50), "it is not late yet");
        assert!(progress.has_stalled(8, 551, 50));
        assert!(!progress.has_stalled(8, 601, 50), "others were sent since");
        assert!(progress.has_stalled(8, 602, 50));
        progress = Progress::at(640);
        assert!(!progress.has_stalled(8, 690, 50), "one came further");
    }

    #[test]
    fn the_router_answers_for_itself_alone() {
        let mut question = vec![0xff; 6];
        question.extend_from_slice(&[2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        question.extend_from_slice(&[
            2, 0, 0, 0, 0, 1, 192, 0, 2, 2, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1,
        ]);
        let answer = arp_answer(&question).expect("it is asked for");
        assert_eq!(answer[..6], [2, 0, 0, 0, 0, 1]);
        assert_eq!(answer[20..22], [0, 2]);
        assert_eq!(answer[28..32], [192, 0, 2, 1]);
        assert_eq!(answer[32..42], [2, 0, 0, 0, 0, 1, 192, 0, 2, 2]);
        question[41] = 9;
        assert_eq!(arp_answer(&question), None);
        assert_eq!(arp_answer(&question[..30]), None);
    }
}
