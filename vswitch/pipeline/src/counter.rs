//! A number with one writer.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread adds to and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One that has counted nothing.
    pub(crate) const fn zero() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The value a moment ago.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds, by the one writer.
    #[inline(always)]
    pub(crate) fn add(&self, count: u64) {
        self.set(self.get().wrapping_add(count));
    }

    /// Replaces the value, by the one writer.
    #[inline(always)]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A MAC, or none, that one thread sets and others read.
#[derive(Debug, Default)]
pub struct PublishedMac(Counter);

impl PublishedMac {
    const PRESENT: u64 = 1 << 48;

    /// The MAC a moment ago.
    pub fn get(&self) -> Option<[u8; 6]> {
        let value = self.0.get();
        let [_, _, mac @ ..] = value.to_be_bytes();
        (value & Self::PRESENT != 0).then_some(mac)
    }

    pub(crate) fn set(&self, mac: Option<[u8; 6]>) {
        self.0.set(mac.map_or(0, |[a, b, c, d, e, f]| {
            Self::PRESENT | u64::from_be_bytes([0, 0, a, b, c, d, e, f])
        }));
    }
}
