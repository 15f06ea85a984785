//! The counts of one path: frames that came back, their order and their latency.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::PathReport;
use super::frames::Tag;

/// The latency of frames in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub median_ns: u64,
    /// The 99th percentile.
    pub p99_ns: u64,
    /// The 99.9th percentile.
    pub p999_ns: u64,
    /// The maximum.
    pub max_ns: u64,
    /// The number of frames.
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

/// The counts of one path, and the numbers of its frames.
pub(super) struct Ledger {
    /// The number of each flow's next frame to send.
    sent: Vec<u32>,
    /// The number of each flow's next frame to receive.
    expected: Vec<u32>,
    report: PathReport,
    /// Frames in flight, for a closed loop.
    pub(super) in_flight: u32,
    /// In cycles; only for an open loop.
    latency: Option<Histogram<u64>>,
}

/// The longest latency that the histogram resolves, in cycles: a minute at 4 GHz.
const MAX_CYCLES: u64 = 240_000_000_000;

impl Ledger {
    pub(super) fn new(flows: u32, latency: bool) -> Self {
        let flows = flows as usize;
        Self {
            sent: vec![0; flows],
            expected: vec![0; flows],
            report: PathReport::default(),
            in_flight: 0,
            latency: latency
                .then(|| Histogram::new_with_max(MAX_CYCLES, 3).expect("bounds that it allows")),
        }
    }

    /// Counts a frame as sent, and returns its number within the flow.
    #[inline]
    pub(super) fn number(&mut self, flow: u32) -> u32 {
        let next = &mut self.sent[flow as usize];
        let number = *next;
        *next = number.wrapping_add(1);
        self.report.sent += 1;
        self.in_flight += 1;
        number
    }

    /// Undoes [`Self::number`] for the flow's last frame, which could not be sent.
    pub(super) fn unsend(&mut self, flow: u32) {
        let next = &mut self.sent[flow as usize];
        *next = next.wrapping_sub(1);
        self.report.sent -= 1;
        self.in_flight -= 1;
    }

    /// Counts a frame that came out of the last hop. Latencies are recorded only while `measuring`.
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

    /// Counts a frame with wrong content or from a wrong port.
    pub(super) fn wrong(&mut self) {
        self.report.wrong += 1;
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Gives up the frames in flight, because none comes back.
    pub(super) fn give_up(&mut self) {
        self.report.stalls += 1;
        self.in_flight = 0;
    }

    /// Restarts all counts; the frames' numbers continue.
    pub(super) fn reset(&mut self) {
        self.report = PathReport::default();
        self.in_flight = 0;
    }

    pub(super) fn has_received(&self) -> bool {
        self.report.received > 0
    }

    /// Whether all sent frames were received.
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
    fn lost_reordered_and_wrong_frames_are_counted_apart() {
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
    fn late_frame_after_give_up_is_received() {
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
