//! What joins a worker and the control thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use nix::sys::eventfd::{EfdFlags, EventFd};

use pipeline::ipsec::{Channel, Order};
use pipeline::{Generation, metadata};
use vswitch_api::declare_metrics;
use vswitch_api::metrics::{Metric, Reading, Unit};

const TENANT: [&str; 1] = ["tenant"];

/// What one worker did; it alone writes, any thread reads.
#[derive(Debug, Default)]
pub struct WorkerStats {
    /// Rounds over all ports.
    pub rounds: AtomicU64,
    /// Rounds that received frames.
    pub busy_rounds: AtomicU64,
    /// Frames received.
    pub busy_frames: AtomicU64,
    /// Cycles spent in busy rounds, sending included.
    pub busy_cycles: AtomicU64,
    /// The frequency of `busy_cycles`, in Hz.
    pub cycles_per_second: AtomicU64,
    /// Times the worker went to sleep.
    pub sleeps: AtomicU64,
    /// Sleeps that ended in a busy round.
    pub wakes: AtomicU64,
    /// Nanoseconds from those wake-ups to the end of their rounds, summed up.
    pub wake_sum_ns: AtomicU64,
    /// The longest of them.
    pub wake_max_ns: AtomicU64,
    /// Wake-ups by duration: bucket `n` counts those up to `WAKE_BOUNDS_NS[n]` and above the bound
    /// before; the last has no upper bound.
    pub wake_buckets: [AtomicU64; WAKE_BOUNDS_NS.len() + 1],
    /// The generation in use, from 1.
    pub generation: AtomicU64,
    /// Packet buffers in the pool.
    pub buffers: AtomicU64,
    /// Packet buffers in use: in the devices' rings or with frames in them. Read every
    /// [`super::DEVICE_INTERVAL`].
    pub buffers_in_use: AtomicU64,
}

/// The upper bounds of [`WorkerStats::wake_buckets`], in nanoseconds.
pub const WAKE_BOUNDS_NS: [u64; 7] = [5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 1_000_000];

/// The value a moment ago.
pub(crate) fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Adds to a counter that only this thread writes: no locked instruction.
pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}

impl WorkerStats {
    /// The metrics of the worker, each with what it reads.
    pub const METRICS: &'static [Reading<Self, 1>] = declare_metrics! {
        TENANT;
        gauge "vswitch_config_generation" Number
            "The configuration's generation, from 1."
            => |stats| load(&stats.generation);
        counter "vswitch_worker_rounds_total" Number
            "Rounds over all ports."
            => |stats| load(&stats.rounds);
        counter "vswitch_worker_busy_rounds_total" Number
            "Rounds that found frames."
            => |stats| load(&stats.busy_rounds);
        counter "vswitch_worker_busy_frames_total" Frames
            "Frames received in busy rounds."
            => |stats| load(&stats.busy_frames);
        counter "vswitch_worker_sleeps_total" Number
            "Times the worker slept for want of frames."
            => |stats| load(&stats.sleeps);
        counter "vswitch_worker_busy_cycles_total" Cycles
            "Cycles of busy rounds, sending included."
            => |stats| load(&stats.busy_cycles);
        gauge "vswitch_worker_cycles_per_second" Cycles
            "The rate of the cycles."
            => |stats| load(&stats.cycles_per_second);
        gauge "vswitch_packet_buffers" Number
            "Packet buffers in the pool."
            => |stats| load(&stats.buffers);
        gauge "vswitch_packet_buffers_in_use" Number
            "Packet buffers in the devices' rings, or with frames in them."
            => |stats| load(&stats.buffers_in_use);
    };

    /// The metric of [`Self::wake_buckets`].
    pub const WAKE: Metric<1> = Metric::histogram(
        "vswitch_worker_wake_seconds",
        Unit::Seconds,
        TENANT,
        "From a wake for frames to the last of its round being sent.",
    );

    /// Counts a wake-up whose round ended after `took_ns`.
    pub(super) fn woke(&self, took_ns: u64) {
        add(&self.wakes, 1);
        add(&self.wake_sum_ns, took_ns);
        if took_ns > self.wake_max_ns.load(Ordering::Relaxed) {
            self.wake_max_ns.store(took_ns, Ordering::Relaxed);
        }
        let bucket = WAKE_BOUNDS_NS.partition_point(|bound| *bound < took_ns);
        add(&self.wake_buckets[bucket], 1);
    }
}

/// What a port's device does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PortState {
    /// It carries frames.
    Running,
    /// It is being reset, because its physical function was.
    Resetting,
    /// The last reset failed; it is tried again.
    Failed,
    /// The kernel wants the device back, and the switch ends.
    Removed,
}

impl PortState {
    const ALL: [Self; 4] = [Self::Running, Self::Resetting, Self::Failed, Self::Removed];

    /// Its name in the control API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Resetting => "resetting",
            Self::Failed => "failed",
            Self::Removed => "removed",
        }
    }
}

/// The state of a device, read every [`super::DEVICE_INTERVAL`].
#[derive(Debug, Default)]
pub struct DeviceState {
    /// Whether its link is up.
    pub link_up: AtomicBool,
    /// Frames lost before the switch saw them, because the device's ring was full.
    pub rx_missed: AtomicU64,
    /// A [`PortState`].
    state: AtomicU8,
    /// Resets that succeeded.
    pub resets: AtomicU64,
    /// Resets that failed, each of which was tried again.
    pub reset_failures: AtomicU64,
}

impl DeviceState {
    /// What the device does.
    pub fn state(&self) -> PortState {
        let state = usize::from(self.state.load(Ordering::Relaxed));
        PortState::ALL[state.min(PortState::ALL.len() - 1)]
    }

    pub(super) fn set(&self, state: PortState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }
}

impl DeviceState {
    /// The metrics of a port's device, each with what it reads.
    pub const METRICS: &'static [Reading<Self, 2>] = declare_metrics! {
        ["tenant", "port"];
        counter "vswitch_rx_missed_frames_total" Frames
            "Frames that the device lost because its ring was full."
            => |device| load(&device.rx_missed);
        gauge "vswitch_link_up" Bool
            "Whether the port's device has a link."
            => |device| device.link_up.load(Ordering::Relaxed).into();
        gauge "vswitch_port_running" Bool
            "Whether the port's device carries frames: 0 while it is being reset."
            => |device| (device.state() == PortState::Running).into();
        counter "vswitch_port_resets_total" Number
            "Resets of the port's device, after one of its physical function."
            => |device| load(&device.resets);
        counter "vswitch_port_reset_failures_total" Number
            "Resets of the port's device that failed and were tried again."
            => |device| load(&device.reset_failures);
    };
}

/// Joins **one** worker and the control thread: generations in, retired ones out, statistics, and
/// the order to stop.
///
/// A worker has a `Link`, a [`pipeline::Pipeline`] and ports of its own, and shares none of them
/// with another worker. A switch with several workers would have as many links; the control thread
/// would hand each its own [`Generation`] and add up what they count.
#[derive(Debug)]
pub struct Link {
    /// Set when `inbox` was filled or `stop` was set: the only word that the worker reads every
    /// round.
    pub(super) pending: AtomicBool,
    pub(super) stop: AtomicBool,
    pub(super) inbox: ArrayQueue<Generation>,
    pub(super) retired: ArrayQueue<Generation>,
    pub(super) wake: EventFd,
    pub(super) stats: CachePadded<WorkerStats>,
    pub(super) devices: Box<[DeviceState]>,
    /// To the thread that negotiates SAs, where there is one.
    ipsec: Arc<Channel>,
    /// Readable when that thread has something to take out of `ipsec`.
    pub(super) ipsec_wake: EventFd,
    /// To the thread that serves metadata.
    metadata: Arc<metadata::Channel>,
    /// Readable when that thread has something to do.
    pub(super) metadata_wake: EventFd,
}

impl Link {
    /// A link to a worker of `ports` ports.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn new(ports: usize) -> io::Result<Arc<Self>> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Arc::new(Self {
            pending: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            inbox: ArrayQueue::new(1),
            retired: ArrayQueue::new(1),
            wake: EventFd::from_flags(flags)?,
            stats: CachePadded::default(),
            devices: (0..ports).map(|_| DeviceState::default()).collect(),
            ipsec: Arc::default(),
            ipsec_wake: EventFd::from_flags(flags)?,
            metadata: Arc::default(),
            metadata_wake: EventFd::from_flags(flags)?,
        }))
    }

    /// What the worker did so far.
    pub fn stats(&self) -> &WorkerStats {
        &self.stats
    }

    /// The state of the devices, in the order of [`pipeline::PortId`].
    pub fn devices(&self) -> &[DeviceState] {
        &self.devices
    }

    /// Passes a new generation to the worker. It is in use when [`WorkerStats::generation`] has
    /// gone up; [`Self::take_retired`] then returns the old one.
    ///
    /// # Errors
    /// The generation itself, if the worker has not taken the one before.
    pub fn install(&self, generation: Generation) -> Result<(), Generation> {
        self.inbox.push(generation)?;
        self.notify();
        Ok(())
    }

    /// The generation that the worker no longer uses, for the caller to drop.
    pub fn take_retired(&self) -> Option<Generation> {
        self.retired.pop()
    }

    /// What joins the worker and the thread that negotiates SAs for it.
    pub fn ipsec(&self) -> &Arc<Channel> {
        &self.ipsec
    }

    /// Readable when the worker has noticed something that waits in [`Self::ipsec`]; to be read
    /// first, and then the notices.
    pub fn ipsec_wake(&self) -> &EventFd {
        &self.ipsec_wake
    }

    /// Gives the worker an order about SAs.
    ///
    /// # Errors
    /// The order itself, if too many wait.
    pub fn order(&self, order: Order) -> Result<(), Order> {
        self.ipsec.order(order)?;
        self.notify();
        Ok(())
    }

    /// What joins the worker and the thread that serves metadata.
    pub fn metadata(&self) -> &Arc<metadata::Channel> {
        &self.metadata
    }

    /// Readable when a packet waits in [`Self::metadata`], or [`Self::wake_metadata`] was called;
    /// to be read first.
    pub fn metadata_wake(&self) -> &EventFd {
        &self.metadata_wake
    }

    /// Wakes the thread that serves metadata.
    pub fn wake_metadata(&self) {
        // A full counter means that a wake-up is pending already.
        let _ = self.metadata_wake.write(1);
    }

    /// Has the worker send the answers that wait in [`Self::metadata`].
    pub fn send_metadata(&self) {
        self.notify();
    }

    /// Ends [`super::Worker::run`] after the current round.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.notify();
    }

    fn notify(&self) {
        self.pending.store(true, Ordering::Release);
        // A full counter means that a wake-up is pending already.
        let _ = self.wake.write(1);
    }
}
