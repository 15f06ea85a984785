//! Token buckets in exact integers.

/// Nanoseconds of a second.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// Parts of a token: one nanosecond at one token per second.
const PARTS: u128 = SECOND_NS as u128;

/// A bucket that holds one second's worth of tokens and starts full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    /// In parts of a token; more than the capacity means full.
    level: u128,
    filled_at_ns: u64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self::FULL
    }
}

impl Bucket {
    pub(crate) const FULL: Self = Self {
        level: u128::MAX,
        filled_at_ns: 0,
    };

    /// Takes `tokens` if it holds them. `rate` is in tokens per second.
    pub(crate) fn take(&mut self, now_ns: u64, rate: u64, tokens: u64) -> bool {
        let capacity = u128::from(rate) * PARTS;
        let elapsed_ns = now_ns.saturating_sub(self.filled_at_ns);
        self.filled_at_ns = self.filled_at_ns.max(now_ns);
        let gained = u128::from(elapsed_ns) * u128::from(rate);
        self.level = self.level.saturating_add(gained).min(capacity);
        let wanted = u128::from(tokens) * PARTS;
        let available = self.level >= wanted;
        if available {
            self.level -= wanted;
        }
        available
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_of_one_second_refills_exactly() {
        let mut bucket = Bucket::FULL;
        assert_eq!((0..10).filter(|_| bucket.take(5, 3, 1)).count(), 3);
        assert!(
            !bucket.take(333_333_337, 3, 1),
            "one part of a token is still missing"
        );
        assert!(bucket.take(333_333_339, 3, 1));
        assert!(!bucket.take(333_333_339, 3, 1));
        assert_eq!((0..10).filter(|_| bucket.take(u64::MAX, 3, 1)).count(), 3);
        assert!(
            !bucket.take(0, 3, 1),
            "a clock that runs backwards adds nothing"
        );
    }
}
