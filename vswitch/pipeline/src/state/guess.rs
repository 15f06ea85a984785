//! Who guesses what only a witness can know.

use packet::wire::icmp::Said;

/// How long a wrong guess counts: as long as a right one would.
const WINDOW_NS: u64 = 600_000_000_000;
/// Wrong guesses of one source after which it is believed no more.
const WRONG_OF_SOURCE: u32 = 3;
/// Wrong guesses of all sources after which nobody is. One of 16,384 source ports is right, so the
/// best that an attacker can do is a chance of 0.6 % in ten minutes.
const WRONG_OF_ALL: u32 = 100;
/// Sources that are remembered.
const SOURCES: usize = 16;

/// The sources that quoted packets as they were never sent, for ten minutes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guesses {
    sources: [Source; SOURCES],
    /// The place of the next new source.
    next: usize,
    all: Wrong,
}

#[derive(Debug, Clone, Copy, Default)]
struct Source {
    address: u128,
    wrong: Wrong,
}

/// Wrong guesses within [`WINDOW_NS`] of the first.
#[derive(Debug, Clone, Copy, Default)]
struct Wrong {
    count: u32,
    until_ns: u64,
}

impl Wrong {
    fn count(&self, now_ns: u64) -> u32 {
        if now_ns < self.until_ns {
            self.count
        } else {
            0
        }
    }

    fn add(&mut self, now_ns: u64) {
        if self.count(now_ns) == 0 {
            let until_ns = now_ns.saturating_add(WINDOW_NS);
            *self = Self { count: 0, until_ns };
        }
        self.count = self.count.saturating_add(1);
    }
}

impl Guesses {
    /// Whether what that source says is not even looked at.
    pub(crate) fn distrusts(&self, address: u128, now_ns: u64) -> bool {
        let of = |source: &Source| source.address == address;
        self.all.count(now_ns) >= WRONG_OF_ALL
            || self
                .sources
                .iter()
                .any(|source| of(source) && source.wrong.count(now_ns) >= WRONG_OF_SOURCE)
    }

    /// The source guessed wrong.
    pub(crate) fn wrong(&mut self, address: u128, now_ns: u64) {
        self.all.add(now_ns);
        let known = self
            .sources
            .iter()
            .position(|source| source.address == address && source.wrong.count > 0);
        let place = known.unwrap_or_else(|| {
            let place = self.next;
            self.next = (place + 1) % SOURCES;
            let wrong = Wrong::default();
            self.sources[place] = Source { address, wrong };
            place
        });
        self.sources[place].wrong.add(now_ns);
    }
}

/// Guesses in reports about packets of the tunnel. What is only shown never uses up what a path
/// MTU may cost.
#[derive(Debug, Default)]
pub(crate) struct GuessesByKind {
    too_big: Guesses,
    undelivered: Guesses,
}

impl GuessesByKind {
    /// Those in reports of that kind.
    pub(crate) fn about(&mut self, said: Said) -> &mut Guesses {
        match said {
            Said::TooBig { .. } => &mut self.too_big,
            Said::Unreachable(_) => &mut self.undelivered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_is_distrusted_after_three_wrong_guesses_for_ten_minutes() {
        let mut guesses = Guesses::default();
        for now_ns in 1..=3 {
            assert!(!guesses.distrusts(7, now_ns));
            guesses.wrong(7, now_ns);
        }
        assert!(guesses.distrusts(7, WINDOW_NS) && !guesses.distrusts(8, WINDOW_NS));
        assert!(!guesses.distrusts(7, WINDOW_NS + 1));
        guesses.wrong(7, WINDOW_NS + 1);
        assert!(!guesses.distrusts(7, WINDOW_NS + 1));
    }

    #[test]
    fn everybody_is_distrusted_after_a_hundred_wrong_guesses() {
        let mut guesses = Guesses::default();
        for source in 0..100 {
            assert!(!guesses.distrusts(1000, 5));
            guesses.wrong(source, 5);
        }
        assert!(guesses.distrusts(1000, 5));
        assert!(!guesses.distrusts(1000, 5 + WINDOW_NS));
    }

    #[test]
    fn wrong_guesses_are_their_sources() {
        let mut guesses = Guesses::default();
        for source in [0, 0, 8, 8] {
            guesses.wrong(source, 5);
        }
        assert!(!guesses.distrusts(0, 5) && !guesses.distrusts(8, 5));
        guesses.wrong(0, 5);
        assert!(guesses.distrusts(0, 5) && !guesses.distrusts(8, 5));
    }
}
