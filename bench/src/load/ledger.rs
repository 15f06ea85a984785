//! The books of one path: which frames came back, in which order, and after how long.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::PathReport;
use super::frames::Tag;

/// How long frames were under way, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half took at most that.
    pub median_ns: u64,
    /// 99 of 100 did.
    pub p99_ns: u64,
    /// 999 of 1000 did.
    pub p999_ns: u64,
    /// All did.
    pub max_ns: u64,
    /// How many were measured.
    pub frames: u64,
}

impl Latency {
    /// [`Self::median_ns`] in microseconds.
    pub fn median_us(&self) -> f64 {
        self.median_ns as f64 / 1e3
    }

    /// [`Self::p99_ns`] in microseconds.
    pub fn p99_us(&self) -> f64 {
        self.p99_ns as f64 / 1e3
    }
}

/// One path's.
pub(super) struct Ledger {
    /// The number of each flow's next frame, when it is sent and when it is received.
    sent: Vec<u32>,
    expected: Vec<u32>,
    report: PathReport,
    /// Of a closed loop: under way.
    pub(super) in_flight: u32,
    /// In cycles; only kept for an open loop.
    latency: Option<Histogram<u64>>,
}

/// Cycles that a frame may be under way and still be told apart: a minute at 4 GHz.
const LONGEST: u64 = 240_000_000_000;

impl Ledger {
    pub(super) fn new(flows: u32, latency: bool) -> Self {
        let flows = flows as usize;
        Self {
            sent: vec![0; flows],
            expected: vec![0; flows],
            report: PathReport::default(),
            in_flight: 0,
            latency: latency
                .then(|| Histogram::new_with_max(LONGEST, 3).expect("bounds that it allows")),
        }
    }

    /// The number that the flow's next frame has.
    #[inline]
    pub(super) fn number(&mut self, flow: u32) -> u32 {
        let next = &mut self.sent[flow as usize];
        let number = *next;
        *next = number.wrapping_add(1);
        self.report.sent += 1;
        self.in_flight += 1;
        number
    }

    /// The flow's last frame was not sent after all.
    pub(super) fn unsend(&mut self, flow: u32) {
        let next = &mut self.sent[flow as usize];
        *next = next.wrapping_sub(1);
        self.report.sent -= 1;
        self.in_flight -= 1;
    }

    /// A frame has come out of the last hop. Latencies are only noted while it is `measuring`.
    #[inline]
    pub(super) fn received(&mut self, tag: Tag, now: u64, measuring: bool) {
        let Some(expected) = self.expected.get_mut(tag.flow as usize) else {
            self.wrong();
            return;
        };
        let ahead = tag.number.wrapping_sub(*expected);
        if ahead < u32::MAX / 2 {
            *expected = tag.number.wrapping_add(1);
        } else {
            self.report.reordered += 1;
        }
        self.report.received += 1;
        self.in_flight = self.in_flight.saturating_sub(1);
        if measuring {
            self.report.measured += 1;
            if let Some(latency) = &mut self.latency {
                latency.saturating_record(tag.age(now).max(1));
            }
        }
    }

    /// A frame has come out that is not as it was sent, or where it should not.
    pub(super) fn wrong(&mut self) {
        self.report.wrong += 1;
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Nothing comes back any more: what is under way is given up.
    pub(super) fn give_up(&mut self) {
        self.report.stalls += 1;
        self.in_flight = 0;
    }

    /// Begins the counting anew; numbers go on.
    pub(super) fn forget(&mut self) {
        self.report = PathReport::default();
        self.in_flight = 0;
    }

    pub(super) fn has_received(&self) -> bool {
        self.report.received > 0
    }

    /// Everything sent was received.
    pub(super) fn is_balanced(&self) -> bool {
        self.report.received + self.report.wrong >= self.report.sent
    }

    pub(super) fn close(self, cycles_per_second: u64) -> PathReport {
        let ns = |cycles: u64| {
            (u128::from(cycles) * 1_000_000_000 / u128::from(cycles_per_second)) as u64
        };
        PathReport {
            lost: self
                .report
                .sent
                .saturating_sub(self.report.received + self.report.wrong),
            latency: self
                .latency
                .filter(|latency| !latency.is_empty())
                .map(|latency| Latency {
                    median_ns: ns(latency.value_at_quantile(0.5)),
                    p99_ns: ns(latency.value_at_quantile(0.99)),
                    p999_ns: ns(latency.value_at_quantile(0.999)),
                    max_ns: ns(latency.max()),
                    frames: latency.len(),
                }),
            ..self.report
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(flow: u32, number: u32) -> Tag {
        Tag {
            path: 0,
            hop: 0,
            flow,
            number,
            sent: 1000,
        }
    }

    #[test]
    fn loss_and_disorder_are_told_apart() {
        let mut ledger = Ledger::new(2, true);
        let numbers: Vec<u32> = [0, 0, 1, 0, 0].map(|flow| ledger.number(flow)).to_vec();
        assert_eq!(numbers, [0, 1, 0, 2, 3]);
        ledger.unsend(0);
        assert_eq!(ledger.in_flight, 4);
        // The flow's second frame is overtaken by its third, and the other flow's is lost.
        for (flow, number) in [(0, 0), (0, 2), (0, 1)] {
            ledger.received(tag(flow, number), 3000, true);
        }
        ledger.received(tag(9, 0), 3000, true);
        let report = ledger.close(1_000_000_000);
        assert_eq!((report.sent, report.received, report.measured), (4, 3, 3));
        assert_eq!((report.lost, report.reordered, report.wrong), (0, 1, 1));
        let latency = report.latency.expect("three frames were timed");
        assert_eq!((latency.median_ns, latency.frames), (2000, 3));
    }

    #[test]
    fn what_was_given_up_may_still_come() {
        let mut ledger = Ledger::new(1, false);
        ledger.number(0);
        ledger.number(0);
        ledger.give_up();
        assert_eq!(ledger.in_flight, 0);
        ledger.received(tag(0, 0), 0, false);
        assert_eq!(ledger.in_flight, 0);
        assert!(!ledger.is_balanced());
        let report = ledger.close(1);
        assert_eq!(
            (report.sent, report.received, report.lost, report.stalls),
            (2, 1, 1, 1)
        );
        assert_eq!((report.measured, report.latency), (0, None));
    }
}
