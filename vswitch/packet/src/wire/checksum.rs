//! The Internet checksum (RFC 1071).
//!
//! Sums do not depend on byte order, so whole words are added as they lie in memory.

use super::field::be16;

/// The sum that a checksum is made of, in memory's byte order; of an odd length, as if a zero byte
/// followed.
#[inline(always)]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let whole: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    whole + u64::from(u32::from_ne_bytes(last))
}

/// A sum folded to 16 bits, in memory's byte order.
#[inline(always)]
pub const fn folded(sum: u64) -> u16 {
    // After the first, 33 bits are left; then 18, 17 and 16.
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Whether the checksum that `message` contains, and that covers `message` alone, is right.
pub fn holds(message: &[u8]) -> bool {
    folded(sum(message)) == u16::MAX
}

/// Corrects the checksum at `at` for a 16-bit word that changed (RFC 1624, equation 3).
#[inline(always)]
pub fn adjust(bytes: &mut [u8], at: usize, old: u16, new: u16) {
    let sum = u32::from(!be16(bytes, at)) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    bytes[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// The sum over an IPv4 header without options.
#[inline(always)]
pub(super) fn ipv4_sum(head: &[u8; 20]) -> u64 {
    let word = |at: usize| {
        u64::from(u32::from_ne_bytes([
            head[at],
            head[at + 1],
            head[at + 2],
            head[at + 3],
        ]))
    };
    word(0) + word(4) + word(8) + word(12) + word(16)
}

/// Whether the sum, folded to 16 bits, is all ones: folding keeps the remainder by 2^16 - 1, and of
/// the two numbers with remainder 0 the other is reached from a sum of 0 only, which no header has.
#[inline(always)]
pub const fn is_all_ones(sum: u64) -> bool {
    sum.is_multiple_of(0xffff)
}
