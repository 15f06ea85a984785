//! The worker: one thread that carries every frame of the switch, run to completion.
//!
//! A round receives a burst from each port, decides on each frame, and sends what goes out; then the next
//! round begins. Nothing in a round waits, locks or allocates. While there are frames the worker polls.
//! When there have been none for [`POLL_FOR`], or somewhat longer after dense traffic, it sleeps until a port has frames again, a timer is due, or
//! the control thread wakes it; on devices that cannot wake anybody it naps, at most [`NAP_MAX`] at a time, and longer, up to
//! [`NAP_LONG`], the longer nothing has come.
//!
//! The control thread talks to it through a [`Link`]: new generations in, old ones out (so that the worker
//! never frees a table), and the order to stop.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};

use dpdk::{Burst, Eal, Mbuf, Mempool, Port, cycles, set_time_slice};
use pipeline::DropReason;
use pipeline::{Generation, Pipeline, PortId, Verdict};

/// How long the worker polls on after the last frame, at least.
pub const POLL_FOR: Duration = Duration::from_micros(100);
/// How long at most: a tenth of the time that frames have come without a longer pause. So it bridges the pauses of dense traffic,
/// where a nap would make the next frames late, and spends little on it.
pub const POLL_FOR_DENSE: Duration = Duration::from_millis(2);
/// The same where others want the CPU too: what it polls for in vain is taken from them.
pub const POLL_FOR_SHARED: Duration = Duration::from_micros(5);
/// How long a worker that shares its CPU goes on before it lets the others have it. The scheduler would by itself, at its next
/// tick: some milliseconds later, for which all that the others have to do would wait.
pub const TURN: Duration = Duration::from_micros(100);
/// For how long a worker that had to wait takes its CPU to be shared.
pub const SHARED_FOR: Duration = Duration::from_secs(2);
/// The longest nap between two looks at a device that cannot wake the worker, for as long as frames come now and then.
pub const NAP_MAX: Duration = Duration::from_micros(128);
/// The longest of all. Between the two it is a thousandth of the time that nothing has come: whoever paused for that long hardly sees
/// what it adds, and a switch that nobody uses costs little.
pub const NAP_LONG: Duration = Duration::from_micros(4_096);
/// How often the pipeline's timers are looked at.
pub const TIMER_EVERY: Duration = Duration::from_millis(100);
/// How often the devices are asked for what they have lost.
pub const DEVICES_EVERY: Duration = Duration::from_secs(1);

/// The first nap of a pause. Each is twice as long as the one before, up to the longest.
const NAP_MIN: Duration = Duration::from_micros(8);

/// Whether the worker may sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum PollMode {
    /// It polls while there is traffic and sleeps while there is none.
    #[default]
    Adaptive,
    /// It never sleeps: a whole CPU, for benchmarks.
    Busy,
}

/// What the worker did; one writer, read by anybody.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Rounds over all ports.
    pub rounds: AtomicU64,
    /// Rounds that found frames.
    pub busy_rounds: AtomicU64,
    /// Frames found.
    pub busy_frames: AtomicU64,
    /// Cycles spent in them, sending included.
    pub busy_cycles: AtomicU64,
    /// What `busy_cycles` counts in a second.
    pub cycles_per_second: AtomicU64,
    /// Times the worker went to sleep.
    pub sleeps: AtomicU64,
    /// Sleeps that ended in a busy round.
    pub wakes: AtomicU64,
    /// Nanoseconds from those wakes to the end of their rounds: all together.
    pub wake_sum_ns: AtomicU64,
    /// The longest of them.
    pub wake_max_ns: AtomicU64,
    /// How many took at most [`WAKE_BOUNDS_NS`], each bucket alone; the last has no bound.
    pub wake_buckets: [AtomicU64; WAKE_BOUNDS_NS.len() + 1],
    /// The generation in use, from 1.
    pub generation: AtomicU64,
}

/// The upper bounds of [`WorkerStats::wake_buckets`], in nanoseconds.
pub const WAKE_BOUNDS_NS: [u64; 7] = [5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 1_000_000];

/// Adds to a counter that this thread alone writes: no locked instruction.
fn add(counter: &AtomicU64, by: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}

impl WorkerStats {
    fn woke(&self, took_ns: u64) {
        add(&self.wakes, 1);
        add(&self.wake_sum_ns, took_ns);
        if took_ns > self.wake_max_ns.load(Ordering::Relaxed) {
            self.wake_max_ns.store(took_ns, Ordering::Relaxed);
        }
        let bucket = WAKE_BOUNDS_NS.partition_point(|bound| *bound < took_ns);
        add(&self.wake_buckets[bucket], 1);
    }
}

/// What joins the worker and the control thread.
#[derive(Debug)]
pub struct Link {
    /// Something is in `inbox`, or `stop` is set: the one word the worker reads every round.
    attention: AtomicBool,
    stop: AtomicBool,
    inbox: ArrayQueue<Generation>,
    retired: ArrayQueue<Generation>,
    wake: EventFd,
    stats: CachePadded<WorkerStats>,
    devices: Box<[DeviceState]>,
}

/// What a device says of itself, looked at every second.
#[derive(Debug, Default)]
pub struct DeviceState {
    /// Whether its link is up.
    pub link_up: AtomicBool,
    /// Frames lost before the switch saw them, because the device's ring was full.
    pub rx_missed: AtomicU64,
}

impl Link {
    /// A link to a worker of so many ports, with nothing on it.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn new(ports: usize) -> io::Result<Arc<Self>> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Arc::new(Self {
            attention: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            inbox: ArrayQueue::new(1),
            retired: ArrayQueue::new(1),
            wake: EventFd::from_flags(flags)?,
            stats: CachePadded::default(),
            devices: (0..ports).map(|_| DeviceState::default()).collect(),
        }))
    }

    /// What the worker did so far.
    pub fn stats(&self) -> &WorkerStats {
        &self.stats
    }

    /// What the devices say, in the order of [`PortId`].
    pub fn devices(&self) -> &[DeviceState] {
        &self.devices
    }

    /// Hands the worker a new generation. It is in use when [`WorkerStats::generation`] has gone up; the
    /// old one is then to be had from [`Self::take_retired`].
    ///
    /// # Errors
    /// The generation itself, if the one before was not taken yet.
    pub fn install(&self, generation: Generation) -> Result<(), Generation> {
        self.inbox.push(generation)?;
        self.call();
        Ok(())
    }

    /// The generation that the worker has put out of use, to be dropped by the caller.
    pub fn take_retired(&self) -> Option<Generation> {
        self.retired.pop()
    }

    /// Ends [`Worker::run`] after the round under way.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.call();
    }

    fn call(&self) {
        self.attention.store(true, Ordering::Release);
        // A full counter is a wake-up that is under way already.
        let _ = self.wake.write(1);
    }
}

/// The worker's own: devices, tables, and the frames under way.
#[derive(Debug)]
pub struct Worker {
    outlets: Vec<Outlet>,
    pipeline: Pipeline,
    pool: Mempool,
    link: Arc<Link>,
    waiter: Waiter,
    neighbours: Neighbours,
    started: Instant,
}

impl Worker {
    /// A worker for `ports`, which are in the order of [`PortId`]. To be made on the thread that runs it.
    ///
    /// # Errors
    /// If the kernel does not let the thread wait for frames.
    pub fn new(
        eal: &Eal,
        ports: Vec<Port>,
        pool: Mempool,
        generation: Generation,
        link: Arc<Link>,
    ) -> io::Result<Self> {
        // Naps are to last as long as they say; the default slack adds 50 µs.
        nix::sys::prctl::set_timerslack(1)?;
        if let Err(error) = set_time_slice(TURN) {
            tracing::warn!(%error, "the scheduler takes no wish for short turns: beside others on its CPU the switch has less of it");
        }
        let stats = &link.stats;
        stats.generation.store(1, Ordering::Relaxed);
        stats
            .cycles_per_second
            .store(eal.cycles_per_second(), Ordering::Relaxed);
        let outlet = |port| Outlet {
            port,
            burst: Burst::new(),
            sent: false,
            tx_full: 0,
            no_buffer: 0,
        };
        let outlets: Vec<Outlet> = ports.into_iter().map(outlet).collect();
        let mut worker = Self {
            waiter: Waiter::new(&link, &outlets)?,
            outlets,
            pipeline: Pipeline::new(generation),
            pool,
            link,
            neighbours: Neighbours::new(),
            started: Instant::now(),
        };
        worker.hear_groups();
        Ok(worker)
    }

    /// Has every NIC give us the groups that the tables need.
    fn hear_groups(&mut self) {
        let tables = self.pipeline.tables();
        let sides = tables.names().iter().zip(tables.groups());
        for (outlet, (name, groups)) in self.outlets.iter_mut().zip(sides) {
            if !outlet.port.set_multicast(&groups.listed, groups.others) {
                tracing::warn!(
                    port = name,
                    "the device does not give us the frames of all groups that we ask for, so IPv6 may not find the gateway, or \
                     what is behind it, there; of a virtual function, its physical one's driver may say why"
                );
            }
        }
    }

    /// Carries frames until [`Link::stop`].
    pub fn run(&mut self, mode: PollMode) {
        let mut idle = Idle::since(self.now());
        let mut timers_due = Duration::ZERO;
        let mut devices_due = Duration::ZERO;
        // When the frames began that came without a sleep between them.
        let mut active_since = idle.since;
        loop {
            let now = self.now();
            if self.neighbours.are_due(now) {
                std::thread::yield_now();
                self.neighbours.turn_since = self.now();
                continue;
            }
            if self.link.attention.load(Ordering::Relaxed) && !self.attend() {
                return;
            }
            if now >= timers_due {
                self.timers(now);
                timers_due = now + TIMER_EVERY;
                self.neighbours.look(now);
                if now >= devices_due {
                    self.look_at_devices();
                    devices_due = now + DEVICES_EVERY;
                }
            }
            let begin = cycles();
            let frames = self.round(now);
            let holds_frames = self.send_held();
            let stats = self.link.stats();
            add(&stats.rounds, 1);
            let woke_at = idle.woke_at.take();
            if frames > 0 {
                add(&stats.busy_rounds, 1);
                add(&stats.busy_frames, frames);
                add(&stats.busy_cycles, cycles().wrapping_sub(begin));
                if let Some(woke_at) = woke_at {
                    active_since = woke_at;
                    stats.woke(nanoseconds(self.now().saturating_sub(woke_at)));
                }
                if idle.armed {
                    self.disarm();
                }
                idle = Idle::since(now);
            } else if mode == PollMode::Adaptive
                && now.saturating_sub(idle.since)
                    >= self
                        .neighbours
                        .poll_for(now, idle.since.saturating_sub(active_since))
            {
                if idle.armed || !self.waiter.all_wake {
                    add(&stats.sleeps, 1);
                    let timer = timers_due.saturating_sub(now);
                    let nap_max = nap_max(now.saturating_sub(idle.since));
                    // Also what the timers have just sent: nothing would wake us for it.
                    idle.can_wait &= !holds_frames;
                    self.waiter.wait(&mut idle, timer, nap_max);
                    if idle.armed {
                        self.disarm();
                        idle.armed = false;
                    }
                    let woke_at = self.now();
                    self.neighbours.turn_since = woke_at;
                    idle.woke_at = Some(woke_at);
                } else {
                    // What came before the devices were armed raises no event: one more look.
                    idle.can_wait = self.arm();
                    idle.armed = true;
                }
            }
        }
    }

    /// Has the kernel go on with what it had no room for, where nothing was sent in this round; false if nothing is left anywhere.
    fn send_held(&mut self) -> bool {
        let mut holds_frames = false;
        for Outlet { port, sent, .. } in &mut self.outlets {
            if !std::mem::take(sent) && port.may_hold_frames() {
                port.flush_tx();
            }
            holds_frames |= port.may_hold_frames();
        }
        holds_frames
    }

    /// Asks every device to wake us; false if one cannot.
    fn arm(&mut self) -> bool {
        self.outlets.iter_mut().all(|outlet| outlet.port.arm())
    }

    fn disarm(&mut self) {
        for outlet in &mut self.outlets {
            outlet.port.disarm();
        }
    }

    /// Time since the worker began.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Does what the control thread asks for; false if that is to stop.
    fn attend(&mut self) -> bool {
        // Reads the last `call`'s store and so sees what was put before it; a later one sets the flag again.
        self.link.attention.swap(false, Ordering::AcqRel);
        // Empty unless it was a wake-up; either way it wakes nobody any more.
        let _ = self.link.wake.read();
        if self.link.stop.load(Ordering::Relaxed) {
            return false;
        }
        if let Some(generation) = self.link.inbox.pop() {
            let old = self.pipeline.install(generation);
            if old.tables().groups() != self.pipeline.tables().groups() {
                self.hear_groups();
            }
            // The control thread takes one out before it puts the next in, so there is room.
            if self.link.retired.push(old).is_err() {
                tracing::warn!("a retired configuration was not collected");
            }
            add(&self.link.stats.generation, 1);
        }
        true
    }

    /// Does what is due by the clock.
    fn timers(&mut self, now: Duration) {
        let Self {
            pipeline,
            pool,
            outlets,
            ..
        } = self;
        pipeline.poll(nanoseconds(now), &mut |port, bytes| {
            let outlet = &mut outlets[port.index()];
            match pool.alloc_with(bytes) {
                Some(mbuf) => outlet.send(mbuf),
                None => outlet.no_buffer += 1,
            }
        });
        self.flush();
    }

    /// Some system calls for each port, so not in every round.
    fn look_at_devices(&mut self) {
        for (outlet, state) in self.outlets.iter_mut().zip(&self.link.devices) {
            let missed = outlet.port.stats().rx_missed;
            state.rx_missed.store(missed, Ordering::Relaxed);
            state
                .link_up
                .store(outlet.port.link_up(), Ordering::Relaxed);
        }
    }

    /// One burst from every port; says how many frames there were.
    fn round(&mut self, now: Duration) -> u64 {
        let now_ns = nanoseconds(now);
        let mut frames = 0;
        let mut burst = Burst::new();
        for index in 0..self.outlets.len() {
            let received = self.outlets[index].port.rx(&mut burst);
            if received == 0 {
                continue;
            }
            frames += received as u64;
            burst.prefetch();
            let port = PortId(index as u16);
            self.carry(now_ns, port, &mut burst);
        }
        if frames > 0 {
            self.flush();
        }
        frames
    }

    /// Decides on the frames of a burst, and puts each where it goes.
    fn carry(&mut self, now_ns: u64, port: PortId, burst: &mut Burst) {
        // In several buffers: longer than any MTU that the pool was made for.
        let mut too_long = 0;
        let mut pass = self.pipeline.burst(now_ns, port);
        for mut mbuf in burst.drain() {
            let Some(mut frame) = mbuf.frame() else {
                too_long += 1;
                continue;
            };
            let verdict = pass.process(&mut frame);
            let position = frame.position();
            let out = match verdict {
                Verdict::Drop(_) => continue,
                Verdict::Forward(out) => out,
                Verdict::Reply | Verdict::DropWithError(_) => port,
            };
            mbuf.set_position(position);
            self.outlets[out.index()].send(mbuf);
        }
        if too_long > 0 {
            self.pipeline.unsent(port, DropReason::Malformed, too_long);
        }
    }

    /// Sends what the round has for every port, and counts what could not go.
    fn flush(&mut self) {
        for (index, outlet) in self.outlets.iter_mut().enumerate() {
            outlet.transmit();
            let port = PortId(index as u16);
            for (reason, count) in [
                (DropReason::TxFull, &mut outlet.tx_full),
                (DropReason::NoBuffer, &mut outlet.no_buffer),
            ] {
                if *count > 0 {
                    self.pipeline.unsent(port, reason, std::mem::take(count));
                }
            }
        }
    }
}

/// A port, with what it is to send in this round.
#[derive(Debug)]
struct Outlet {
    port: Port,
    burst: Burst,
    /// Whether it sent in this round.
    sent: bool,
    /// Frames that the device did not take, and that found no buffer, since they were last counted.
    tx_full: u64,
    no_buffer: u64,
}

impl Outlet {
    /// Takes a frame to be sent; a full burst goes out first.
    fn send(&mut self, mbuf: Mbuf) {
        let Err(mbuf) = self.burst.push(mbuf) else {
            return;
        };
        self.transmit();
        // Empty now, so there is room.
        let _ = self.burst.push(mbuf);
    }

    /// Sends the burst; what the device does not take is freed.
    fn transmit(&mut self) {
        if self.burst.is_empty() {
            return;
        }
        self.port.tx(&mut self.burst);
        self.sent = true;
        self.tx_full += self.burst.len() as u64;
        self.burst.clear();
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    // 584 years of them fit.
    duration.as_nanos() as u64
}

/// Who else wants the worker's CPU, as far as it can tell: it was ready to run, and had to wait for them.
#[derive(Debug)]
struct Neighbours {
    /// The scheduler's account of this thread; `None` where the kernel keeps none.
    account: Option<File>,
    looked_at: Duration,
    waited: Duration,
    /// Until then what is polled for in vain counts as taken from them.
    shared_until: Duration,
    /// Until then they are given their turns.
    turns_until: Duration,
    /// When this worker last let them have the CPU.
    turn_since: Duration,
}

impl Neighbours {
    /// The part of the time, as a divisor, that goes to somebody who counts: two switches take half of it from each other, the
    /// kernel's own threads some hundredths from anybody.
    const SHARE: u32 = 5;
    /// The same from which on turns are taken. That costs hardly anything where there is nobody, and whoever took none beside others who
    /// do would have more than they.
    const NOTICED: u32 = 100;

    fn new() -> Self {
        Self {
            account: File::open("/proc/thread-self/schedstat").ok(),
            looked_at: Duration::ZERO,
            waited: Duration::ZERO,
            shared_until: Duration::ZERO,
            turns_until: Duration::ZERO,
            turn_since: Duration::ZERO,
        }
    }

    /// To be called every [`TIMER_EVERY`].
    fn look(&mut self, now: Duration) {
        // Three numbers of 64 bits.
        let mut text = [0; 64];
        let read = self.account.as_ref().map(|file| file.read_at(&mut text, 0));
        let Some(waited) = read.and_then(|len| waited(text.get(..len.ok()?)?)) else {
            return;
        };
        self.note(waited, now);
    }

    fn note(&mut self, waited: Duration, now: Duration) {
        let since = now.saturating_sub(self.looked_at);
        let waited_since = waited.saturating_sub(self.waited);
        if waited_since * Self::SHARE >= since {
            self.shared_until = now + SHARED_FOR;
        }
        if waited_since * Self::NOTICED >= since {
            self.turns_until = now + SHARED_FOR;
        }
        (self.waited, self.looked_at) = (waited, now);
    }

    /// Whether it is their turn.
    fn are_due(&self, now: Duration) -> bool {
        now < self.turns_until && now.saturating_sub(self.turn_since) >= TURN
    }

    /// How long to poll on, where frames have come for so long before.
    fn poll_for(&self, now: Duration, active: Duration) -> Duration {
        if now < self.shared_until {
            POLL_FOR_SHARED
        } else {
            (active / 10).clamp(POLL_FOR, POLL_FOR_DENSE)
        }
    }
}

/// How long the thread was ready and waited: the second number of proc_pid_schedstat(5), in nanoseconds.
fn waited(account: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(account).ok()?;
    let nanoseconds = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// The longest nap after so long a time without a frame.
fn nap_max(idle: Duration) -> Duration {
    (idle / 1_000).clamp(NAP_MAX, NAP_LONG)
}

/// Sleeps until the machine's clock is at a multiple of `length`, which is about so long. Who naps for the same time thus wakes at the same
/// moments: that the CPU comes out of its own sleep is the dear part, and then serves all switches on it.
fn nap(length: Duration) {
    const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;
    let Ok(now) = CLOCK.now() else {
        return std::thread::sleep(length);
    };
    let until = nap_until(now.into(), length);
    // A signal ends it early, which does no harm.
    let _ = clock_nanosleep(CLOCK, ClockNanosleepFlags::TIMER_ABSTIME, &until.into());
}

/// The multiple of `length` that is nearest to `length` from now.
fn nap_until(now: Duration, length: Duration) -> Duration {
    let length = nanoseconds(length);
    let multiples = (nanoseconds(now) + length / 2) / length + 1;
    Duration::from_nanos(multiples * length)
}

/// How long there was nothing to do, and what was done about it.
#[derive(Debug)]
struct Idle {
    since: Duration,
    /// The devices were asked to wake us.
    armed: bool,
    /// All of them can.
    can_wait: bool,
    /// Waits that ended at once, and for nothing, one after the other.
    spurious: u32,
    nap: Duration,
    woke_at: Option<Duration>,
}

impl Idle {
    fn since(since: Duration) -> Self {
        Self {
            since,
            armed: false,
            can_wait: false,
            spurious: 0,
            nap: NAP_MIN,
            woke_at: None,
        }
    }
}

/// What an idle worker waits on: the link's wake-up and every port that can wake it.
#[derive(Debug)]
struct Waiter {
    epoll: Epoll,
    /// Every port can; else the worker naps.
    all_wake: bool,
}

impl Waiter {
    fn new(link: &Link, outlets: &[Outlet]) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let event = || EpollEvent::new(EpollFlags::EPOLLIN, 0);
        epoll.add(&link.wake, event())?;
        let mut all_wake = true;
        for outlet in outlets {
            match outlet.port.wait_fd() {
                Some(fd) => epoll.add(fd, event())?,
                None => all_wake = false,
            }
        }
        Ok(Self { epoll, all_wake })
    }

    /// Waits for frames, a call from the control thread, or `timer`; naps where a device cannot wake us, or
    /// one wakes us again and again for nothing.
    fn wait(&self, idle: &mut Idle, timer: Duration, nap_max: Duration) {
        const SPURIOUS_MAX: u32 = 4;
        if idle.can_wait && idle.spurious < SPURIOUS_MAX {
            let milliseconds = timer.as_millis().min(1_000) as u16 + 1;
            let woken = self.epoll.wait(&mut [EpollEvent::empty()], milliseconds);
            idle.spurious = if woken == Ok(0) { 0 } else { idle.spurious + 1 };
        } else {
            nap(idle.nap);
            if idle.nap * 2 <= nap_max {
                idle.nap *= 2;
            }
            // Then a device that cried wolf is believed once more.
            idle.spurious = idle.spurious.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_had_to_wait_polls_less_for_a_while() {
        let mut neighbours = Neighbours::new();
        let at = Duration::from_millis;
        let mut after = |waited, now| {
            neighbours.note(waited, now);
            neighbours.poll_for(now, Duration::ZERO)
        };
        assert_eq!(after(at(19), at(100)), POLL_FOR, "kernel threads");
        assert_eq!(after(at(38), at(200)), POLL_FOR, "19 ms in each span");
        assert_eq!(after(at(58), at(300)), POLL_FOR_SHARED);
        assert_eq!(
            after(at(58), at(2_200)),
            POLL_FOR_SHARED,
            "it sleeps more, and so waits less"
        );
        assert_eq!(after(at(58), at(2_300)), POLL_FOR);
    }

    #[test]
    fn who_shares_a_cpu_takes_turns() {
        let mut neighbours = Neighbours::new();
        let at = Duration::from_micros;
        assert!(!neighbours.are_due(at(50_000)), "nobody is there");
        neighbours.note(at(2_000), at(100_000));
        neighbours.turn_since = at(100_050);
        assert!(!neighbours.are_due(at(100_149)));
        assert!(neighbours.are_due(at(100_150)));
    }

    #[test]
    fn dense_traffic_is_waited_for_longer() {
        let neighbours = Neighbours::new();
        let after = |active| neighbours.poll_for(Duration::from_secs(9), active);
        assert_eq!(after(Duration::from_micros(900)), POLL_FOR);
        assert_eq!(after(Duration::from_millis(7)), Duration::from_micros(700));
        assert_eq!(after(Duration::from_secs(7)), POLL_FOR_DENSE);
    }

    #[test]
    fn who_heard_nothing_for_long_naps_longer() {
        assert_eq!(nap_max(Duration::from_millis(100)), NAP_MAX);
        assert_eq!(nap_max(Duration::from_secs(1)), Duration::from_millis(1));
        assert_eq!(nap_max(Duration::from_secs(60)), NAP_LONG);
    }

    #[test]
    fn naps_end_at_the_same_moments_for_all() {
        let at = Duration::from_micros;
        for (now, until) in [(0, 128), (63, 128), (64, 256), (128, 256), (190, 256)] {
            assert_eq!(nap_until(at(now), at(128)), at(until), "from {now} µs on");
        }
        // Of whoever naps twice as long, every second one.
        assert_eq!(nap_until(at(70), at(256)), at(256));
    }

    #[test]
    fn the_scheduler_tells_who_waits() {
        assert_eq!(
            waited(b"580054756 141418 19\n"),
            Some(Duration::from_nanos(141_418))
        );
        assert_eq!(waited(b"580054756\n"), None);
        assert_eq!(waited(b""), None);
    }
}
