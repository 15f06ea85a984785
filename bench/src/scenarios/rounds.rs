//! Rounds of our switch and one peer in turn, and their statistics.

use super::{Sample, extremes, median};

/// Rounds, each with one sample of our switch and one of the peer.
#[derive(Debug, Default)]
pub(super) struct Rounds(Vec<(Sample, Sample)>);

impl Rounds {
    /// Adds a round.
    pub(super) fn push(&mut self, ours: Sample, theirs: Sample) {
        self.0.push((ours, theirs));
    }

    /// The number of rounds.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn values<T>(&self, value: impl Fn(&Sample, &Sample) -> T) -> impl Iterator<Item = T> {
        self.0.iter().map(move |(ours, theirs)| value(ours, theirs))
    }

    /// The median of a value that rounds may lack; `None` if all lack it.
    pub(super) fn median_of(&self, value: impl Fn(&Sample, &Sample) -> Option<f64>) -> Option<f64> {
        median(self.values(value).flatten())
    }

    /// The median over all rounds; NaN without rounds.
    pub(super) fn median(&self, value: impl Fn(&Sample, &Sample) -> f64) -> f64 {
        median(self.values(value)).unwrap_or(f64::NAN)
    }

    /// The minimum and the maximum over all rounds.
    pub(super) fn spread(&self, value: impl Fn(&Sample, &Sample) -> f64) -> [f64; 2] {
        extremes(self.values(value))
    }

    /// The sum over all rounds.
    pub(super) fn sum(&self, value: impl Fn(&Sample, &Sample) -> u64) -> u64 {
        self.values(value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadReport;

    #[test]
    fn rounds_have_median_spread_and_sum() {
        let sample = |mpps: f64, cycles_per_frame| Sample {
            mpps,
            cycles_per_frame,
            load: LoadReport::default(),
        };
        let mut rounds = Rounds::default();
        for (ours, cycles) in [(3.0, None), (1.0, Some(200.0)), (2.0, Some(100.0))] {
            rounds.push(sample(ours, cycles), sample(2.0, None));
        }
        assert_eq!(rounds.len(), 3);
        assert_eq!(rounds.median(|ours, theirs| ours.mpps / theirs.mpps), 1.0);
        assert_eq!(rounds.spread(|ours, _| ours.mpps), [1.0, 3.0]);
        assert_eq!(
            rounds.median_of(|ours, _| ours.cycles_per_frame),
            Some(150.0)
        );
        assert_eq!(rounds.median_of(|_, theirs| theirs.cycles_per_frame), None);
        assert_eq!(rounds.sum(|_, _| 2), 6);
        assert!(Rounds::default().median(|ours, _| ours.mpps).is_nan());
    }
}
