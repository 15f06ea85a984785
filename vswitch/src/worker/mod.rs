//! The worker: one thread that carries every frame of the switch, run to completion.
//!
//! A round receives a burst from each port, decides on each frame, and transmits; then the next
//! round begins. Nothing in a round waits, locks or allocates. While there are frames the worker
//! polls. After [`POLL_FOR`] without a frame, or somewhat later after dense traffic, it sleeps
//! until a port has frames, a timer is due, or the control thread wakes it. If a device cannot wake
//! it, it naps: at most [`NAP_MAX`], and up to [`NAP_IDLE_MAX`] after a long pause.
//!
//! The control thread talks to it through a [`Link`]: new generations in, retired ones out (the
//! worker never frees a table), and the order to stop.
//!
//! - `round`: a burst from every port, and what it sends
//! - `idle`: polling, sleeping, napping
//! - `contention`: other threads on the worker's CPU
//! - `link`: what the worker shares with the control thread
//! - `repair`: resets of devices, on another thread

mod contention;
mod idle;
mod link;
mod repair;
mod round;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dpdk::{Eal, Mempool, cycles, set_time_slice};
use ports::Port;

use self::contention::CpuContention;
pub use self::contention::{CONTENTION_HOLD, YIELD_AFTER};
use self::idle::{Idle, Waiter, nap_max};
pub use self::idle::{NAP_IDLE_MAX, NAP_MAX, POLL_FOR, POLL_FOR_CONTENDED, POLL_FOR_DENSE};
use self::link::add;
pub(crate) use self::link::load;
pub use self::link::{DeviceState, Link, PortState, WAKE_BOUNDS_NS, WorkerStats};
pub use self::repair::Repair;
use self::repair::{Parcel, Workshop};
use self::round::TxPort;
use pipeline::{Generation, Pipeline};

/// How often the pipeline's timers run.
pub const TIMER_INTERVAL: Duration = Duration::from_millis(100);
/// How often the devices' link state and counters are read.
pub const DEVICE_INTERVAL: Duration = Duration::from_secs(1);

/// Whether the worker may sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum PollMode {
    /// It polls while there is traffic and sleeps while there is none.
    #[default]
    Adaptive,
    /// It never sleeps: a whole CPU, for benchmarks.
    Busy,
}

/// One worker's own: its ports, its pipeline, and the frames it is handling.
#[derive(Debug)]
pub struct Worker {
    /// In the order of [`pipeline::PortId`].
    ports: Vec<TxPort>,
    pipeline: Pipeline,
    pool: Mempool,
    link: Arc<Link>,
    waiter: Waiter,
    contention: CpuContention,
    started: Instant,
    workshop: Workshop,
    repair: Option<Repair>,
}

/// Why a worker has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By [`Link::stop`].
    Stopped,
    /// The kernel wants the device of this port back. It waits until the process has closed it.
    Removed {
        /// The port's name.
        port: String,
    },
}

impl Worker {
    /// A worker for `ports`, which are in the order of [`pipeline::PortId`]. To be called on the
    /// thread that runs it.
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
        // Naps should last as long as they say; the default slack adds 50 µs.
        nix::sys::prctl::set_timerslack(1)?;
        if let Err(error) = set_time_slice(YIELD_AFTER) {
            tracing::warn!(
                %error,
                "the scheduler refuses short time slices: on a contended CPU the switch gets less \
                 of it"
            );
        }
        let stats = &link.stats;
        stats.generation.store(1, Ordering::Relaxed);
        stats
            .cycles_per_second
            .store(eal.cycles_per_second(), Ordering::Relaxed);
        stats
            .buffers
            .store(pool.capacity().into(), Ordering::Relaxed);
        let ports: Vec<TxPort> = ports.into_iter().map(TxPort::new).collect();
        let (workshop, repair) = Workshop::new(ports.len(), &link);
        let mut worker = Self {
            workshop,
            repair: Some(repair),
            waiter: Waiter::new(&link, &ports)?,
            ports,
            pipeline: Pipeline::new(generation),
            pool,
            link,
            contention: CpuContention::new(),
            started: Instant::now(),
        };
        worker.pipeline.join_ipsec(Arc::clone(worker.link.ipsec()));
        let metadata = Arc::clone(worker.link.metadata());
        worker.pipeline.join_metadata(metadata);
        worker.set_multicast();
        Ok(worker)
    }

    /// What resets the ports' devices, to be run by another thread, once. Without it a device that
    /// demands a reset stays as it is.
    pub fn take_repair(&mut self) -> Option<Repair> {
        self.repair.take()
    }

    /// Subscribes every port to the multicast groups that the tables need.
    fn set_multicast(&mut self) {
        let tables = self.pipeline.tables();
        let groups = tables.names().iter().zip(tables.groups());
        for (tx, (name, groups)) in self.ports.iter_mut().zip(groups) {
            if !tx.port.set_multicast(&groups.listed, groups.others) {
                tracing::warn!(
                    port = name,
                    "the device refuses some multicast groups, so IPv6 stations there may not find \
                     the gateway, or the gateway them; for a virtual function, the physical \
                     function's driver may log why"
                );
            }
        }
    }

    /// Carries frames until [`Link::stop`], or until a device must be given back.
    pub fn run(&mut self, mode: PollMode) -> Ended {
        let mut idle = Idle::since(self.now());
        let mut timers_due = Duration::ZERO;
        let mut devices_due = Duration::ZERO;
        // When the current run of frames without a sleep began.
        let mut active_since = idle.since;
        loop {
            let now = self.now();
            if self.contention.yield_is_due(now) {
                std::thread::yield_now();
                self.contention.yielded(self.now());
                continue;
            }
            if self.link.pending.load(Ordering::Relaxed) && !self.handle_orders() {
                return Ended::Stopped;
            }
            if now >= timers_due {
                self.run_timers(now);
                timers_due = now + TIMER_INTERVAL;
                match self.hear_devices(now) {
                    Heard::Nothing => {}
                    Heard::LinkChange => devices_due = now,
                    Heard::Removal(port) => return Ended::Removed { port },
                }
                self.contention.read(now);
                if now >= devices_due {
                    self.read_devices();
                    devices_due = now + DEVICE_INTERVAL;
                }
            }
            let begin = cycles();
            let frames = self.round(now);
            let holds_frames = self.flush_tx();
            if self.link.ipsec().take_noticed() {
                // A full counter means that a wake-up is pending already.
                let _ = self.link.ipsec_wake.write(1);
            }
            if self.link.metadata().take_noticed() {
                self.link.wake_metadata();
            }
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
                        .contention
                        .poll_for(now, idle.since.saturating_sub(active_since))
            {
                // Frames left in a TX ring, also those of the timers, raise no event.
                idle.can_wait &= !holds_frames;
                self.rest(now, &mut idle, timers_due.saturating_sub(now));
            }
        }
    }

    /// Handles one burst from every port, as [`Self::run`] does again and again, and returns the
    /// number of frames: for measurements.
    pub fn step(&mut self) -> u64 {
        let now = self.now();
        let frames = self.round(now);
        self.flush_tx();
        frames
    }

    /// Sleeps until something happens or `timer` has passed. If the devices must be armed for that,
    /// it only arms them: frames that came before raise no event, so the caller polls once more.
    fn rest(&mut self, now: Duration, idle: &mut Idle, timer: Duration) {
        if !idle.armed && self.waiter.all_wake {
            idle.can_wait = self.arm();
            idle.armed = true;
            return;
        }
        add(&self.link.stats.sleeps, 1);
        let nap_max = nap_max(now.saturating_sub(idle.since));
        self.waiter.wait(idle, timer, nap_max);
        if idle.armed {
            self.disarm();
            idle.armed = false;
        }
        let woke_at = self.now();
        self.contention.yielded(woke_at);
        idle.woke_at = Some(woke_at);
    }

    /// Asks every port to wake the worker; false if one cannot.
    fn arm(&mut self) -> bool {
        self.ports.iter_mut().all(|tx| tx.port.arm())
    }

    fn disarm(&mut self) {
        for tx in &mut self.ports {
            tx.port.disarm();
        }
    }

    /// Time since the worker began.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Executes the control thread's orders; false if the order is to stop.
    fn handle_orders(&mut self) -> bool {
        // Synchronises with the store in `Link::notify`, so what was queued before it is seen; a
        // later one sets the flag again.
        self.link.pending.swap(false, Ordering::AcqRel);
        // Empties the counter, so that it does not end the next sleep.
        let _ = self.link.wake.read();
        if self.link.stop.load(Ordering::Relaxed) {
            return false;
        }
        if let Some(generation) = self.link.inbox.pop() {
            let old = self.pipeline.install(generation);
            if old.tables().groups() != self.pipeline.tables().groups() {
                self.set_multicast();
            }
            // The control thread takes one out before it puts the next in, so there is room.
            if self.link.retired.push(old).is_err() {
                tracing::warn!("a retired configuration was not collected");
            }
            add(&self.link.stats.generation, 1);
        }
        self.obey_ipsec();
        self.send_metadata();
        true
    }

    /// Obeys the thread that negotiates SAs.
    fn obey_ipsec(&mut self) {
        let now_ns = nanoseconds(self.now());
        let Self {
            pipeline,
            pool,
            ports,
            ..
        } = self;
        let more = pipeline.obey_ipsec(now_ns, &mut |port, bytes| {
            let tx = &mut ports[port.index()];
            match pool.alloc_with(bytes) {
                Some(mbuf) => tx.send(mbuf),
                None => tx.no_buffer += 1,
            }
        });
        if more {
            // The next round goes on.
            self.link.pending.store(true, Ordering::Relaxed);
        }
        self.transmit();
    }

    /// Sends what the thread that serves metadata answers.
    fn send_metadata(&mut self) {
        let Self {
            pipeline,
            pool,
            ports,
            ..
        } = self;
        let more = pipeline.send_metadata(&mut |port, bytes| {
            let tx = &mut ports[port.index()];
            match pool.alloc_with(bytes) {
                Some(mbuf) => tx.send(mbuf),
                None => tx.no_buffer += 1,
            }
        });
        if more {
            // The next round goes on.
            self.link.pending.store(true, Ordering::Relaxed);
        }
        self.transmit();
    }

    /// Sends what is due by the clock.
    fn run_timers(&mut self, now: Duration) {
        let Self {
            pipeline,
            pool,
            ports,
            ..
        } = self;
        pipeline.poll(nanoseconds(now), &mut |port, bytes| {
            let tx = &mut ports[port.index()];
            match pool.alloc_with(bytes) {
                Some(mbuf) => tx.send(mbuf),
                None => tx.no_buffer += 1,
            }
        });
        // Also the orders for which there was no room.
        self.obey_ipsec();
    }

    /// Takes note of what the devices have reported by themselves: hands those that must be reset
    /// to the thread that does it, and takes back those that were.
    fn hear_devices(&mut self, now: Duration) -> Heard {
        let mut heard = Heard::Nothing;
        while let Some(Parcel { index, port, .. }) = self.workshop.take() {
            self.waiter.add(&port);
            self.ports[index].port = port;
            self.link.devices[index].set(PortState::Running);
            // The configuration may have changed meanwhile.
            self.set_multicast();
            heard = Heard::LinkChange;
        }
        let tables = self.pipeline.tables();
        let names = tables.names();
        for (index, (tx, name)) in self.ports.iter_mut().zip(names).enumerate() {
            let Some(signals) = &tx.signals else {
                continue;
            };
            let device = &self.link.devices[index];
            if signals.must_close() {
                device.set(PortState::Removed);
                return Heard::Removal(name.clone());
            }
            if signals.take_link() {
                heard = Heard::LinkChange;
            }
            if matches!(tx.port, Port::Absent) {
                continue;
            }
            let demanded = signals.take_reset();
            let is_stuck = tx.is_stuck(now) && tx.port.link_up();
            if !(demanded || is_stuck) {
                continue;
            }
            tracing::warn!(
                port = name,
                cause = if demanded {
                    "its driver demands it"
                } else {
                    "it sends no frame"
                },
                "the device is being reset"
            );
            device.set(PortState::Resetting);
            device.link_up.store(false, Ordering::Relaxed);
            let (name, port) = (name.clone(), tx.take_out());
            if let Some(port) = self.workshop.send(Parcel { index, name, port }) {
                tx.port = port;
                device.set(PortState::Running);
            }
        }
        heard
    }

    /// Reads the devices' state: some system calls per port, so not in every round.
    fn read_devices(&mut self) {
        for (tx, state) in self.ports.iter_mut().zip(&self.link.devices) {
            if matches!(tx.port, Port::Absent) {
                continue;
            }
            let missed = tx.port.stats().rx_missed;
            state.rx_missed.store(missed, Ordering::Relaxed);
            state.link_up.store(tx.port.link_up(), Ordering::Relaxed);
        }
        let in_use = self.pool.capacity() - self.pool.available();
        let stats = self.link.stats();
        stats.buffers_in_use.store(in_use.into(), Ordering::Relaxed);
    }
}

/// What the devices have reported.
enum Heard {
    Nothing,
    LinkChange,
    /// The device of the port of this name must be closed.
    Removal(String),
}

fn nanoseconds(duration: Duration) -> u64 {
    // Enough for 584 years.
    duration.as_nanos() as u64
}
