//! Contention for the worker's CPU.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::idle::{POLL_FOR, POLL_FOR_CONTENDED, POLL_FOR_DENSE};

/// How long a worker on a contended CPU runs before it yields. Left alone, the scheduler switches
/// at its next tick, some milliseconds later, and the other threads would wait for that long.
pub const YIELD_AFTER: Duration = Duration::from_micros(100);
/// How long the CPU counts as contended after the worker had to wait for it.
pub const CONTENTION_HOLD: Duration = Duration::from_secs(2);

/// Contention for the CPU, as the worker sees it: it was ready to run and had to wait.
#[derive(Debug)]
pub(super) struct CpuContention {
    /// The scheduler's account of this thread; `None` if the kernel keeps none.
    schedstat: Option<File>,
    read_at: Duration,
    waited: Duration,
    /// Until then the worker polls less: the CPU time would be missing elsewhere.
    poll_less_until: Duration,
    /// Until then the worker yields every [`YIELD_AFTER`].
    yield_until: Duration,
    /// When the worker last gave up the CPU.
    last_yield: Duration,
}

impl CpuContention {
    /// The part of the time spent waiting, as a divisor, from which the worker polls less. Two
    /// switches on one CPU make each other wait for half of it; the kernel's own threads, for some
    /// hundredths.
    const CONTENTION_HIGH: u32 = 5;
    /// The same, from which the worker yields. Yielding is nearly free on an idle CPU, and a worker
    /// that never yields would take more than its fair share.
    const CONTENTION_MIN: u32 = 100;

    pub(super) fn new() -> Self {
        Self {
            schedstat: File::open("/proc/thread-self/schedstat").ok(),
            read_at: Duration::ZERO,
            waited: Duration::ZERO,
            poll_less_until: Duration::ZERO,
            yield_until: Duration::ZERO,
            last_yield: Duration::ZERO,
        }
    }

    /// Reads the scheduler's account. To be called every [`super::TIMER_INTERVAL`].
    pub(super) fn read(&mut self, now: Duration) {
        // Three decimal numbers of 64 bits.
        let mut text = [0; 64];
        let read = self
            .schedstat
            .as_ref()
            .map(|file| file.read_at(&mut text, 0));
        let Some(waited) = read.and_then(|len| waited(text.get(..len.ok()?)?)) else {
            return;
        };
        self.update(waited, now);
    }

    fn update(&mut self, waited: Duration, now: Duration) {
        let since = now.saturating_sub(self.read_at);
        let waited_since = waited.saturating_sub(self.waited);
        if waited_since * Self::CONTENTION_HIGH >= since {
            self.poll_less_until = now + CONTENTION_HOLD;
        }
        if waited_since * Self::CONTENTION_MIN >= since {
            self.yield_until = now + CONTENTION_HOLD;
        }
        (self.waited, self.read_at) = (waited, now);
    }

    /// Whether to yield now.
    pub(super) fn yield_is_due(&self, now: Duration) -> bool {
        now < self.yield_until && now.saturating_sub(self.last_yield) >= YIELD_AFTER
    }

    /// Notes that the worker has just come back from a sleep or a yield.
    pub(super) fn yielded(&mut self, now: Duration) {
        self.last_yield = now;
    }

    /// How long to poll after the last frame, if frames have come for `active` without a longer
    /// pause.
    pub(super) fn poll_for(&self, now: Duration, active: Duration) -> Duration {
        if now < self.poll_less_until {
            POLL_FOR_CONTENDED
        } else {
            (active / 10).clamp(POLL_FOR, POLL_FOR_DENSE)
        }
    }
}

/// How long the thread was ready and waited: the second number of proc_pid_schedstat(5), in
/// nanoseconds.
fn waited(schedstat: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(schedstat).ok()?;
    let nanoseconds = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contended_worker_polls_less_for_two_seconds() {
        let mut contention = CpuContention::new();
        let at = Duration::from_millis;
        let mut after = |waited, now| {
            contention.update(waited, now);
            contention.poll_for(now, Duration::ZERO)
        };
        assert_eq!(after(at(19), at(100)), POLL_FOR, "kernel threads");
        assert_eq!(after(at(38), at(200)), POLL_FOR, "19 ms in each interval");
        assert_eq!(after(at(58), at(300)), POLL_FOR_CONTENDED);
        assert_eq!(
            after(at(58), at(2_200)),
            POLL_FOR_CONTENDED,
            "it sleeps more, and so waits less"
        );
        assert_eq!(after(at(58), at(2_300)), POLL_FOR);
    }

    #[test]
    fn contended_worker_yields_every_100_us() {
        let mut contention = CpuContention::new();
        let at = Duration::from_micros;
        assert!(!contention.yield_is_due(at(50_000)), "no contention");
        contention.update(at(2_000), at(100_000));
        contention.yielded(at(100_050));
        assert!(!contention.yield_is_due(at(100_149)));
        assert!(contention.yield_is_due(at(100_150)));
    }

    #[test]
    fn dense_traffic_prolongs_polling() {
        let contention = CpuContention::new();
        let after = |active| contention.poll_for(Duration::from_secs(9), active);
        assert_eq!(after(Duration::from_micros(900)), POLL_FOR);
        assert_eq!(after(Duration::from_millis(7)), Duration::from_micros(700));
        assert_eq!(after(Duration::from_secs(7)), POLL_FOR_DENSE);
    }

    #[test]
    fn waiting_time_is_second_field_of_schedstat() {
        assert_eq!(
            waited(b"580054756 141418 19\n"),
            Some(Duration::from_nanos(141_418))
        );
        assert_eq!(waited(b"580054756\n"), None);
        assert_eq!(waited(b""), None);
    }
}
