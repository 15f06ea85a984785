//! The one multiplicative hash of the switch.

/// 2^64 divided by the golden ratio, odd (Knuth, TAOCP 3, 6.4).
pub const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// One round; the upper bits are well mixed.
#[inline(always)]
pub const fn mixed(word: u64) -> u64 {
    let product = word.wrapping_mul(MULTIPLIER);
    product ^ (product >> 32)
}
