//! What joins a worker and the control thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use nix::sys::eventfd::{EfdFlags, EventFd};

use pipeline::Generation;

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
}

/// The upper bounds of [`WorkerStats::wake_buckets`], in nanoseconds.
pub const WAKE_BOUNDS_NS: [u64; 7] = [5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 1_000_000];

/// Adds to a counter that only this thread writes: no locked instruction.
pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}

impl WorkerStats {
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

/// The state of a device, read every [`super::DEVICE_INTERVAL`].
#[derive(Debug, Default)]
pub struct DeviceState {
    /// Whether its link is up.
    pub link_up: AtomicBool,
    /// Frames lost before the switch saw them, because the device's ring was full.
    pub rx_missed: AtomicU64,
}

/// Joins **one** worker and the control thread: generations in, retired ones out, statistics, and the
/// order to stop.
///
/// A worker has a `Link`, a [`pipeline::Pipeline`] and ports of its own, and shares none of them
/// with another worker. A switch with several workers would have as many links; the control thread would
/// hand each its own [`Generation`] and add up what they count.
#[derive(Debug)]
pub struct Link {
    /// Set when `inbox` was filled or `stop` was set: the only word that the worker reads every round.
    pub(super) pending: AtomicBool,
    pub(super) stop: AtomicBool,
    pub(super) inbox: ArrayQueue<Generation>,
    pub(super) retired: ArrayQueue<Generation>,
    pub(super) wake: EventFd,
    pub(super) stats: CachePadded<WorkerStats>,
    pub(super) devices: Box<[DeviceState]>,
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

    /// Passes a new generation to the worker. It is in use when [`WorkerStats::generation`] has gone up;
    /// [`Self::take_retired`] then returns the old one.
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
