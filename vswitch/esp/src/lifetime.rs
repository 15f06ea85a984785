//! How long an SA may be used.

/// Upper bounds of an SA's use; `u64::MAX` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Packets.
    pub packets: u64,
    /// Bytes of payload.
    pub bytes: u64,
    /// Age in nanoseconds of the caller's clock.
    pub age_ns: u64,
}

impl Bounds {
    /// No bound.
    pub const NONE: Self = Self {
        packets: u64::MAX,
        bytes: u64::MAX,
        age_ns: u64::MAX,
    };

    /// Whether any of them is reached.
    #[inline]
    fn are_reached(&self, packets: u64, bytes: u64, age_ns: u64) -> bool {
        packets >= self.packets || bytes >= self.bytes || age_ns >= self.age_ns
    }
}

/// The bounds of an SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// From there on another SA should take its place.
    pub soft: Bounds,
    /// From there on it is not used.
    pub hard: Bounds,
}

/// The part of its life that an SA is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing is reached.
    Fresh,
    /// A soft bound is reached.
    Soft,
    /// A hard bound is reached.
    Expired,
}

impl Lifetime {
    /// It is used for ever: sequence numbers are its only bound.
    pub const UNBOUNDED: Self = Self {
        soft: Bounds::NONE,
        hard: Bounds::NONE,
    };

    /// The phase of an SA that was used so far.
    #[inline]
    pub fn phase(&self, packets: u64, bytes: u64, age_ns: u64) -> Phase {
        if self.hard.are_reached(packets, bytes, age_ns) {
            Phase::Expired
        } else if self.soft.are_reached(packets, bytes, age_ns) {
            Phase::Soft
        } else {
            Phase::Fresh
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_counts_by_itself_and_soft_comes_before_hard() {
        let bounds = |packets, bytes, age_ns| Bounds {
            packets,
            bytes,
            age_ns,
        };
        let lifetime = Lifetime {
            soft: bounds(10, 1_000, 100),
            hard: bounds(20, 2_000, 200),
        };
        for (used, phase) in [
            ((9, 999, 99), Phase::Fresh),
            ((10, 0, 0), Phase::Soft),
            ((0, 1_000, 0), Phase::Soft),
            ((0, 0, 100), Phase::Soft),
            ((19, 1_999, 199), Phase::Soft),
            ((20, 0, 0), Phase::Expired),
            ((0, 2_000, 0), Phase::Expired),
            ((0, 0, 200), Phase::Expired),
        ] {
            assert_eq!(lifetime.phase(used.0, used.1, used.2), phase, "{used:?}");
        }
        let all = Lifetime::UNBOUNDED.phase(u64::MAX - 1, u64::MAX - 1, u64::MAX - 1);
        assert_eq!(all, Phase::Fresh);
    }
}
