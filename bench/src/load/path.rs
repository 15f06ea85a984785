//! The state of one path, and of the attacks and floods beside it.

use dpdk::{Burst, cycles};

use super::frames::HEADERS;
use super::ledger::Ledger;
use super::{Flood, LoadPlan, Pace};
use crate::network::Hop;

/// A path of frames, ready to be sent.
pub(super) struct Path {
    pub(super) hops: Vec<Leg>,
    /// The order in which flows take turns, and the next turn.
    pub(super) order: Vec<u32>,
    pub(super) turn: usize,
    pub(super) ledger: Ledger,
    /// For an open loop: the time stamp at which the next frame is due.
    pub(super) due: u64,
    /// For a closed loop.
    pub(super) progress: Progress,
    pub(super) attacks: Vec<AttackState>,
}

impl Path {
    /// The path of that number, which takes these hops.
    pub(super) fn new(plan: &LoadPlan, number: usize, hops: &[Hop]) -> Self {
        let attacks = plan.attacks.iter().filter(|attack| attack.path == number);
        Self {
            hops: hops
                .iter()
                .map(|hop| Leg {
                    from: hop.from,
                    to: hop.to,
                    headers: plan.shape.headers(hop),
                })
                .collect(),
            order: plan.shape.order(),
            turn: 0,
            ledger: Ledger::new(plan.shape.flows, matches!(plan.pace, Pace::Open { .. })),
            due: 0,
            progress: Progress::at(cycles()),
            attacks: attacks
                .map(|attack| AttackState {
                    port: attack.port,
                    every: attack.every,
                    frames: attack.frames.clone(),
                    countdown: attack.every,
                    next: 0,
                })
                .collect(),
        }
    }
}

/// A hop with the headers of each flow.
pub(super) struct Leg {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) headers: Vec<[u8; HEADERS]>,
}

/// An attack beside a path.
pub(super) struct AttackState {
    pub(super) port: usize,
    every: u32,
    frames: Vec<Vec<u8>>,
    /// Frames of the path until the next attack.
    countdown: u32,
    next: usize,
}

impl AttackState {
    /// Counts one frame of the path, and returns the attack that is due after it.
    pub(super) fn after_frame(&mut self) -> Option<&[u8]> {
        self.countdown -= 1;
        if self.countdown > 0 {
            return None;
        }
        self.countdown = self.every;
        let frame = self.next;
        self.next = (frame + 1) % self.frames.len();
        Some(&self.frames[frame])
    }
}

/// A flood.
pub(super) struct FloodState {
    pub(super) port: usize,
    /// Cycles from one frame to the next.
    step: u64,
    /// The time stamp at which the next frame is due.
    due: u64,
    frames: Vec<Vec<u8>>,
    next: usize,
}

impl FloodState {
    pub(super) fn new(flood: &Flood, cycles_per_second: u64) -> Self {
        Self {
            port: flood.port,
            step: (cycles_per_second / flood.per_second).max(1),
            due: cycles(),
            frames: flood.frames.clone(),
            next: 0,
        }
    }

    /// The number of frames that are due.
    pub(super) fn due(&mut self, now: u64) -> usize {
        due(&mut self.due, self.step, now)
    }

    /// The next frame.
    pub(super) fn next(&mut self) -> &[u8] {
        let frame = self.next;
        self.next = (frame + 1) % self.frames.len();
        &self.frames[frame]
    }
}

/// The time stamp at which a frame of a path last made progress, or at which none was in flight.
pub(super) struct Progress(u64);

impl Progress {
    pub(super) fn at(now: u64) -> Self {
        Self(now)
    }

    /// Whether the frames in flight have made no progress for longer than `patience` cycles. If so,
    /// the time starts again.
    pub(super) fn has_stalled(&mut self, in_flight: u32, now: u64, patience: u64) -> bool {
        let stalled = in_flight > 0 && now.saturating_sub(self.0) > patience;
        if in_flight == 0 || stalled {
            self.0 = now;
        }
        stalled
    }
}

/// The number of frames that are due, at most a burst. Frames that are late are sent later.
pub(super) fn due(next: &mut u64, step: u64, now: u64) -> usize {
    let late = now.wrapping_sub(*next);
    if late > u64::MAX / 2 {
        return 0;
    }
    let count = (late / step + 1).min(Burst::CAPACITY as u64);
    *next = next.wrapping_add(count * step);
    count as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalled_path_is_reported_once() {
        let mut progress = Progress::at(100);
        assert!(!progress.has_stalled(0, 500, 50), "nothing is in flight");
        assert!(!progress.has_stalled(8, 550, 50), "it is not late yet");
        assert!(progress.has_stalled(8, 551, 50));
        assert!(!progress.has_stalled(8, 601, 50), "others were sent since");
        assert!(progress.has_stalled(8, 602, 50));
        progress = Progress::at(640);
        assert!(!progress.has_stalled(8, 690, 50), "one made progress");
    }
}
