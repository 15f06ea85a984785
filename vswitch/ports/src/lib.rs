//! The ports of a switch, as its worker uses them.
//!
//! [`Port`] is one port of any kind. It is an enum, so a burst costs one predictable branch and no
//! indirect call; the frames themselves are DPDK's packet memory for every kind ([`dpdk::Burst`]).
//!
//! This crate is the home of the kinds that are not DPDK's, one file each, with a variant here.
//! Such a file may allow `unsafe` for itself, each block with a SAFETY comment; none has needed it
//! so far.

mod memory;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use dpdk::{Burst, PortStats, ResetError, Signals};

pub use self::memory::{MemoryPort, pair};

/// A port that is open.
#[derive(Debug)]
pub enum Port {
    /// A device that DPDK drives.
    Dpdk(dpdk::Port),
    /// One end of a wire in memory.
    Memory(MemoryPort),
    /// None: another thread has the port, to reset it. Nothing is received, and nothing sent.
    Absent,
}

impl From<dpdk::Port> for Port {
    fn from(port: dpdk::Port) -> Self {
        Self::Dpdk(port)
    }
}

impl From<MemoryPort> for Port {
    fn from(port: MemoryPort) -> Self {
        Self::Memory(port)
    }
}

impl Port {
    /// Receives as many frames as `burst` has room for, behind those in it; returns how many.
    #[inline]
    pub fn rx(&mut self, burst: &mut Burst) -> usize {
        match self {
            Self::Dpdk(port) => port.rx(burst),
            Self::Memory(port) => port.rx(burst),
            Self::Absent => 0,
        }
    }

    /// Sends from the front of `burst`; returns how many frames the port took. The others stay in
    /// the burst, in order.
    #[inline]
    pub fn tx(&mut self, burst: &mut Burst) -> usize {
        match self {
            Self::Dpdk(port) => port.tx(burst),
            Self::Memory(port) => port.tx(burst),
            Self::Absent => 0,
        }
    }

    /// Whether frames that [`Self::tx`] took may still wait for [`Self::flush_tx`].
    #[inline]
    pub fn may_hold_frames(&self) -> bool {
        match self {
            Self::Dpdk(port) => port.may_hold_frames(),
            Self::Memory(_) | Self::Absent => false,
        }
    }

    /// Flushes frames left in the TX ring. To be called again while [`Self::may_hold_frames`].
    pub fn flush_tx(&mut self) {
        match self {
            Self::Dpdk(port) => port.flush_tx(),
            Self::Memory(_) | Self::Absent => {}
        }
    }

    /// A descriptor that polls readable when a frame waits, between [`Self::arm`] and
    /// [`Self::disarm`]; `None` if the port can only be polled.
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Dpdk(port) => port.wait_fd(),
            Self::Memory(port) => Some(port.wait_fd()),
            Self::Absent => None,
        }
    }

    /// Asks the port to signal frames on [`Self::wait_fd`]; false if it cannot. A frame that came
    /// just before raises no event, so receive once more between this and the sleep.
    pub fn arm(&mut self) -> bool {
        match self {
            Self::Dpdk(port) => port.arm(),
            Self::Memory(port) => {
                port.arm();
                true
            }
            Self::Absent => true,
        }
    }

    /// Stops the signals and clears those that are pending.
    pub fn disarm(&mut self) {
        match self {
            Self::Dpdk(port) => port.disarm(),
            Self::Memory(port) => port.disarm(),
            Self::Absent => {}
        }
    }

    /// Subscribes to these multicast groups, and to all others if `all`; false if the port refuses.
    pub fn set_multicast(&mut self, groups: &[[u8; 6]], all: bool) -> bool {
        match self {
            Self::Dpdk(port) => port.set_multicast(groups, all),
            Self::Memory(port) => {
                port.set_multicast(groups, all);
                true
            }
            // It is asked again when the port is back.
            Self::Absent => true,
        }
    }

    /// What the port's device reports by itself; `None` if it reports nothing.
    pub fn signals(&self) -> Option<Arc<Signals>> {
        match self {
            Self::Dpdk(port) => port.signals(),
            Self::Memory(port) => Some(port.signals()),
            Self::Absent => None,
        }
    }

    /// Resets the port's device. Takes milliseconds or more: not for the packet path.
    ///
    /// # Errors
    /// As [`dpdk::Port::reset`].
    pub fn reset(&mut self) -> Result<(), ResetError> {
        match self {
            Self::Dpdk(port) => port.reset(),
            Self::Memory(port) => port.reset(),
            Self::Absent => Err(ResetError::Unable),
        }
    }

    /// Whether the port has a link.
    pub fn link_up(&self) -> bool {
        match self {
            Self::Dpdk(port) => port.link_up(),
            Self::Memory(port) => port.link_up(),
            Self::Absent => false,
        }
    }

    /// What the port has counted since it was opened. Not for the packet path.
    pub fn stats(&mut self) -> PortStats {
        match self {
            Self::Dpdk(port) => port.stats(),
            Self::Memory(port) => port.stats(),
            Self::Absent => PortStats::default(),
        }
    }
}
