//! What an idle worker does: it polls for a while, then sleeps or naps.

use std::io;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};

use ports::Port;

use super::link::Link;
use super::nanoseconds;
use super::round::TxPort;

/// How long the worker polls after the last frame, at least.
pub const POLL_FOR: Duration = Duration::from_micros(100);
/// How long at most. In between, a tenth of the time that frames have come without a longer pause:
/// enough to bridge the pauses of dense traffic, where a nap would delay the next frames, at little
/// cost.
pub const POLL_FOR_DENSE: Duration = Duration::from_millis(2);
/// How long on a contended CPU, where polling takes time from other threads.
pub const POLL_FOR_CONTENDED: Duration = Duration::from_micros(5);
/// The longest nap between two polls of a device that cannot wake the worker, while frames come now
/// and then.
pub const NAP_MAX: Duration = Duration::from_micros(128);
/// Upper bound of all naps. In between, naps last 1/1000 of the idle time, so they add at most 0.1
/// % to a pause, and an unused switch costs little.
pub const NAP_IDLE_MAX: Duration = Duration::from_micros(4_096);

/// The first nap of a pause. Each is twice as long as the one before, up to the maximum.
const NAP_MIN: Duration = Duration::from_micros(8);

/// How long the worker has been idle, and what it has done about it.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) since: Duration,
    /// The devices were asked to wake the worker.
    pub(super) armed: bool,
    /// All of them can.
    pub(super) can_wait: bool,
    /// Consecutive waits that ended at once and without a frame.
    spurious: u32,
    nap: Duration,
    pub(super) woke_at: Option<Duration>,
}

impl Idle {
    pub(super) fn since(since: Duration) -> Self {
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

/// What an idle worker waits on: the link's wake-up, and every port that can wake it.
#[derive(Debug)]
pub(super) struct Waiter {
    epoll: Epoll,
    /// Every port can; otherwise the worker naps.
    pub(super) all_wake: bool,
}

impl Waiter {
    pub(super) fn new(link: &Link, ports: &[TxPort]) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let event = || EpollEvent::new(EpollFlags::EPOLLIN, 0);
        epoll.add(&link.wake, event())?;
        let mut all_wake = true;
        for TxPort { port, .. } in ports {
            match port.wait_fd() {
                Some(fd) => epoll.add(fd, event())?,
                None => all_wake = false,
            }
        }
        Ok(Self { epoll, all_wake })
    }

    /// Waits also for a port that has come back: its descriptor may be another. The kernel has
    /// forgotten the closed one.
    pub(super) fn add(&self, port: &Port) {
        if let Some(fd) = port.wait_fd() {
            // The same descriptor as before is no error.
            let _ = self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, 0));
        }
    }

    /// Waits for frames, the control thread, or `timer`. Naps instead if a device cannot wake the
    /// worker, or one wakes it again and again without a frame.
    pub(super) fn wait(&self, idle: &mut Idle, timer: Duration, nap_max: Duration) {
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
            // After a few naps the device gets another chance.
            idle.spurious = idle.spurious.saturating_sub(1);
        }
    }
}

/// The longest nap after `idle` without a frame.
pub(super) fn nap_max(idle: Duration) -> Duration {
    (idle / 1_000).clamp(NAP_MAX, NAP_IDLE_MAX)
}

/// Sleeps until the next multiple of `length` on CLOCK_MONOTONIC. Aligned wake-ups let the workers
/// on one CPU share the expensive part: leaving the CPU's idle state.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_idle_time_allows_longer_naps() {
        assert_eq!(nap_max(Duration::from_millis(100)), NAP_MAX);
        assert_eq!(nap_max(Duration::from_secs(1)), Duration::from_millis(1));
        assert_eq!(nap_max(Duration::from_secs(60)), NAP_IDLE_MAX);
    }

    #[test]
    fn naps_end_at_multiples_of_their_length() {
        let at = Duration::from_micros;
        for (now, until) in [(0, 128), (63, 128), (64, 256), (128, 256), (190, 256)] {
            assert_eq!(nap_until(at(now), at(128)), at(until), "from {now} µs on");
        }
        // A worker that naps twice as long wakes at every second multiple.
        assert_eq!(nap_until(at(70), at(256)), at(256));
    }
}
