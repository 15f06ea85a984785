//! A wire in memory: two ports, joined by a bounded queue each way.
//!
//! It carries what a device would, but without one: worker tests hold one end and give the worker
//! the other. Unlike DPDK's `net_ring` it wakes a sleeping receiver, has a link that goes down, and
//! shows the multicast groups that the other end subscribed to.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::queue::ArrayQueue;
use dpdk::{Burst, Mbuf, PortStats, ResetError, Signals};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// One direction of the wire.
#[derive(Debug)]
struct Lane {
    frames: ArrayQueue<Mbuf>,
    /// The receiver sleeps, or is about to.
    armed: AtomicBool,
    wake: EventFd,
    /// What the receiver subscribed to.
    multicast: Mutex<(Vec<[u8; 6]>, bool)>,
    /// What the receiver's device reports.
    signals: Arc<Signals>,
    /// How many resets of the receiver's device fail from now on.
    failing: AtomicU32,
    /// How many were tried.
    resets: AtomicU32,
}

impl Lane {
    fn new(capacity: usize) -> io::Result<Arc<Self>> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Arc::new(Self {
            frames: ArrayQueue::new(capacity),
            armed: AtomicBool::new(false),
            wake: EventFd::from_flags(flags)?,
            multicast: Mutex::default(),
            signals: Arc::default(),
            failing: AtomicU32::new(0),
            resets: AtomicU32::new(0),
        }))
    }
}

/// One end of a wire in memory.
#[derive(Debug)]
pub struct MemoryPort {
    incoming: Arc<Lane>,
    outgoing: Arc<Lane>,
    stats: PortStats,
}

/// Both ends of a wire that holds `capacity` frames each way.
///
/// # Errors
/// If the process has no descriptor left.
///
/// # Panics
/// If `capacity` is 0.
pub fn pair(capacity: usize) -> io::Result<(MemoryPort, MemoryPort)> {
    let (there, back) = (Lane::new(capacity)?, Lane::new(capacity)?);
    let end = |incoming: &Arc<Lane>, outgoing: &Arc<Lane>| MemoryPort {
        incoming: Arc::clone(incoming),
        outgoing: Arc::clone(outgoing),
        stats: PortStats::default(),
    };
    Ok((end(&there, &back), end(&back, &there)))
}

impl MemoryPort {
    /// As [`crate::Port::rx`].
    pub fn rx(&mut self, burst: &mut Burst) -> usize {
        let before = burst.len();
        while !burst.is_full()
            && let Some(mbuf) = self.incoming.frames.pop()
        {
            self.stats.rx_frames += 1;
            self.stats.rx_bytes += mbuf.bytes().len() as u64;
            // It is not full.
            let _ = burst.push(mbuf);
        }
        burst.len() - before
    }

    /// As [`crate::Port::tx`].
    pub fn tx(&mut self, burst: &mut Burst) -> usize {
        let Lane {
            frames,
            armed,
            wake,
            ..
        } = &*self.outgoing;
        let mut taken = 0;
        let mut left = Burst::new();
        for mbuf in burst.drain() {
            let len = mbuf.bytes().len() as u64;
            let refused = if left.is_empty() {
                frames.push(mbuf).err()
            } else {
                Some(mbuf)
            };
            match refused {
                // They came out of one burst, so they fit into another.
                Some(mbuf) => drop(left.push(mbuf)),
                None => {
                    taken += 1;
                    self.stats.tx_frames += 1;
                    self.stats.tx_bytes += len;
                }
            }
        }
        *burst = left;
        // Pairs with the fence in `arm`: either this sees the flag, or the receiver sees the
        // frames.
        fence(Ordering::SeqCst);
        if taken > 0 && armed.load(Ordering::Relaxed) {
            // A full counter means that a wake-up is pending already.
            let _ = wake.write(1);
        }
        taken
    }

    /// As [`crate::Port::wait_fd`].
    pub fn wait_fd(&self) -> BorrowedFd<'_> {
        self.incoming.wake.as_fd()
    }

    /// As [`crate::Port::arm`].
    pub fn arm(&mut self) {
        self.incoming.armed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// As [`crate::Port::disarm`].
    pub fn disarm(&mut self) {
        self.incoming.armed.store(false, Ordering::Relaxed);
        // Empty unless it was signalled.
        let _ = self.incoming.wake.read();
    }

    /// As [`crate::Port::set_multicast`]. The wire delivers all frames whatever the receiver asked
    /// for.
    pub fn set_multicast(&mut self, groups: &[[u8; 6]], all: bool) {
        let multicast = self.incoming.multicast.lock();
        *multicast.unwrap_or_else(PoisonError::into_inner) = (groups.to_vec(), all);
    }

    /// What the other end subscribed to last.
    pub fn multicast_of_peer(&self) -> (Vec<[u8; 6]>, bool) {
        let multicast = self.outgoing.multicast.lock();
        multicast.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As [`crate::Port::signals`].
    pub fn signals(&self) -> Arc<Signals> {
        Arc::clone(&self.incoming.signals)
    }

    /// What the other end's device reports: the holder of this end may set it.
    pub fn signals_of_peer(&self) -> Arc<Signals> {
        Arc::clone(&self.outgoing.signals)
    }

    /// Lets so many resets of the other end fail, and returns how many were tried so far.
    pub fn fail_resets_of_peer(&self, count: u32) -> u32 {
        self.outgoing.failing.store(count, Ordering::Relaxed);
        self.outgoing.resets.load(Ordering::Relaxed)
    }

    /// As [`crate::Port::reset`]. Like a device, it loses the frames that wait and the groups.
    ///
    /// # Errors
    /// As often as the other end wants.
    pub fn reset(&mut self) -> Result<(), ResetError> {
        let lane = &self.incoming;
        lane.resets.fetch_add(1, Ordering::Relaxed);
        let less = |left: u32| left.checked_sub(1);
        if lane
            .failing
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
        {
            return Err(ResetError::Step {
                step: "start",
                cause: "the other end of the wire wants it so".to_owned(),
            });
        }
        while lane.frames.pop().is_some() {}
        self.set_multicast(&[], false);
        Ok(())
    }

    /// Whether the other end is still there.
    pub fn link_up(&self) -> bool {
        Arc::strong_count(&self.incoming) == 2
    }

    /// As [`crate::Port::stats`].
    pub fn stats(&self) -> PortStats {
        self.stats
    }
}
