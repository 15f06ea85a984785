//! Shows the progress of a run, and the time left.

use std::time::{Duration, Instant};

/// Printed on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    scenario: String,
    begin: Instant,
    done: usize,
    steps: usize,
    /// The time of a step, until one has been measured.
    guess: Duration,
}

impl Progress {
    /// The progress of a scenario with `steps` steps; 0 if the number is unknown.
    pub(crate) fn new(scenario: impl Into<String>, steps: usize, guess: Duration) -> Self {
        Self {
            scenario: scenario.into(),
            begin: Instant::now(),
            done: 0,
            steps,
            guess,
        }
    }

    /// Announces a step.
    pub(crate) fn step(&mut self, what: &str) {
        let left = left(self.begin.elapsed(), self.done, self.steps, self.guess);
        eprintln!(
            "bench: {}: {what}{}",
            self.scenario,
            left.map(shown).unwrap_or_default()
        );
        self.done += 1;
    }
}

/// The time left, where `done` steps took the elapsed time.
fn left(elapsed: Duration, done: usize, steps: usize, guess: Duration) -> Option<Duration> {
    let left = u32::try_from(steps.checked_sub(done)?)
        .ok()
        .filter(|left| *left > 0)?;
    let each = match u32::try_from(done) {
        Ok(0) | Err(_) => guess,
        Ok(done) => elapsed / done,
    };
    Some(each * left)
}

fn shown(left: Duration) -> String {
    match left.as_secs() {
        0 => String::new(),
        seconds @ 1..90 => format!(" (about {seconds} s left)"),
        seconds => format!(" (about {} min left)", (seconds + 30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_follows_from_steps_done() {
        let seconds = Duration::from_secs;
        assert_eq!(left(seconds(0), 0, 4, seconds(3)), Some(seconds(12)));
        assert_eq!(left(seconds(10), 2, 4, seconds(3)), Some(seconds(10)));
        assert_eq!(left(seconds(10), 4, 4, seconds(3)), None);
        assert_eq!(left(seconds(10), 9, 0, seconds(3)), None);
    }

    #[test]
    fn short_time_is_shown_in_seconds() {
        let shown = [0, 40, 100, 3000].map(|seconds| shown(Duration::from_secs(seconds)));
        let expected = [
            "",
            " (about 40 s left)",
            " (about 2 min left)",
            " (about 50 min left)",
        ];
        assert_eq!(shown, expected);
    }
}
