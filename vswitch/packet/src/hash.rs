//! The multiplicative hashes of the switch: one for tables, and one with a key.

use std::fmt;

/// 2^64 divided by the golden ratio, odd (Knuth, TAOCP 3, 6.4).
pub const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// One round; the upper bits are well mixed.
#[inline(always)]
pub const fn mixed(word: u64) -> u64 {
    let product = word.wrapping_mul(MULTIPLIER);
    product ^ (product >> 32)
}

/// The secret of a hash that is a cookie: only who has seen results can foretell others.
///
/// For any word, the result of [`Key::hash`] is uniform over all keys, so that a guess of `n` of
/// its bits is right once in 2^n times. It is no signature: results that somebody has seen give the
/// key away. So a key is used where nobody who sees a result gains by the others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    mask: u64,
    multiplier: u64,
}

impl Key {
    /// The key of two random words.
    pub const fn new([mask, multiplier]: [u64; 2]) -> Self {
        Self {
            mask,
            // An odd factor maps the words one to one.
            multiplier: multiplier | 1,
        }
    }

    /// The hash of a word; the upper bits are the best.
    #[inline(always)]
    pub const fn hash(self, word: u64) -> u64 {
        (word ^ self.mask).wrapping_mul(self.multiplier)
    }
}

/// Without the key.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over many keys, the upper 14 bits of one word's hash, and the difference of two words', take
    /// no value much more often than chance.
    #[test]
    fn keyed_hash_is_uniform_over_keys() {
        const KEYS: u64 = 1 << 18;
        let mut seen = vec![[0_u32; 2]; 1 << 14];
        for number in 0..KEYS {
            let random = mixed(mixed(number) ^ 1);
            let key = Key::new([mixed(random ^ 2), mixed(random ^ 3)]);
            let (one, other) = (key.hash(7) >> 50, key.hash(8 << 32) >> 50);
            seen[one as usize][0] += 1;
            seen[(one ^ other) as usize][1] += 1;
        }
        let most = seen.iter().flatten().max();
        // 16 are expected.
        assert!(most < Some(&48), "{most:?}");
        assert_eq!(format!("{:?}", Key::new([1, 2])), "Key(..)");
    }
}
