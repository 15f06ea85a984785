//! Longest-prefix match: one hash table per prefix length in use, longest first.
//!
//! A tenant's routes are almost all host routes, so their table answers almost every look-up of the
//! tenant's own addresses, however many there are. External destinations usually miss on the first
//! byte and skip the hash tables. The tables are built off the worker from a checked configuration; a
//! guest chooses which keys are looked up but not which are stored, so it cannot lengthen a probe.

use std::fmt::Debug;
use std::ops::BitAnd;

use packet::hash;

/// An address as a number.
pub(crate) trait Key: Copy + Eq + Debug + Default + BitAnd<Output = Self> {
    /// Bits of an address.
    const WIDTH: u8;

    /// A mask of `len` leading ones.
    fn mask(len: u8) -> Self;
    /// The leading eight bits.
    fn first_byte(self) -> u8;
    /// Well-mixed upper bits.
    fn hash(self) -> u64;
}

/// Mixes twice: addresses come in lattices (subnets times hosts), which one multiplication leaves in
/// clusters.
#[inline(always)]
fn mixed_twice(word: u64) -> u64 {
    hash::mixed(word).wrapping_mul(hash::MULTIPLIER)
}

impl Key for u32 {
    const WIDTH: u8 = 32;

    fn mask(len: u8) -> Self {
        Self::MAX
            .checked_shl(u32::from(Self::WIDTH - len))
            .unwrap_or(0)
    }

    #[inline(always)]
    fn first_byte(self) -> u8 {
        (self >> 24) as u8
    }

    #[inline(always)]
    fn hash(self) -> u64 {
        mixed_twice(u64::from(self))
    }
}

impl Key for u128 {
    const WIDTH: u8 = 128;

    fn mask(len: u8) -> Self {
        Self::MAX
            .checked_shl(u32::from(Self::WIDTH - len))
            .unwrap_or(0)
    }

    #[inline(always)]
    fn first_byte(self) -> u8 {
        (self >> 120) as u8
    }

    #[inline(always)]
    fn hash(self) -> u64 {
        let (hi, lo) = ((self >> 64) as u64, self as u64);
        mixed_twice(hi.wrapping_mul(hash::MULTIPLIER).rotate_left(32) ^ lo)
    }
}

/// The prefixes of one length: a hash table with open addressing. A key is looked for in the slots
/// `home ^ 0`, `home ^ 1`, and so on; the first two share a cache line.
#[derive(Debug)]
struct Level<K, V> {
    mask: K,
    /// A power of two of slots, at most a quarter of them taken; `last` is the number of the last.
    slots: Box<[Option<(K, V)>]>,
    last: usize,
    shift: u32,
}

impl<K: Key, V: Copy> Level<K, V> {
    /// A table this large costs nobody's cache much: it may be emptier than others.
    const SMALL: usize = 256;

    fn new(mask: K, entries: &[(K, V)]) -> Self {
        let mut size = (entries.len() * 4).next_power_of_two().max(2);
        loop {
            let (level, farthest) = Self::of_size(size, mask, entries);
            // What is in the first two slots is found without a call.
            if farthest < 2 || size >= Self::SMALL {
                return level;
            }
            size *= 2;
        }
    }

    /// The table, and the longest walk to a key in it.
    fn of_size(size: usize, mask: K, entries: &[(K, V)]) -> (Self, usize) {
        let mut level = Self {
            mask,
            slots: vec![None; size].into(),
            last: size - 1,
            shift: 64 - size.trailing_zeros(),
        };
        let mut farthest = 0;
        for &(key, value) in entries {
            let home = level.home(key);
            let is_for_it = |slot: &Option<(K, V)>| slot.is_none_or(|(other, _)| other == key);
            let step = (0..size)
                .find(|step| is_for_it(&level.slots[home ^ step]))
                .expect("most slots are empty");
            level.slots[home ^ step] = Some((key, value));
            farthest = farthest.max(step);
        }
        (level, farthest)
    }

    #[inline(always)]
    fn home(&self, key: K) -> usize {
        (key.hash() >> self.shift) as usize & self.last
    }

    fn get(&self, key: K) -> Option<V> {
        let home = self.home(key);
        // Most slots are empty, so the walk soon ends at one of them.
        for step in 0..self.slots.len() {
            let (other, value) = (*self.slots.get(home ^ step)?)?;
            if other == key {
                return Some(value);
            }
        }
        None
    }
}

/// Prefixes shorter than an address, longest first.
#[derive(Debug)]
enum Shorter<K, V> {
    /// So few that looking at each costs less than one hash: mask, prefix, value.
    Few(Box<[(K, K, V)]>),
    /// A table for each length.
    Many(Box<[Level<K, V>]>),
}

/// An immutable map from prefixes to values.
#[derive(Debug)]
pub(crate) struct Lpm<K, V> {
    /// Where all addresses with that first byte lead, if that is one place.
    first: Box<[Option<V>; 256]>,
    /// Prefixes of full length, alone because almost every look-up ends here.
    hosts: Level<K, V>,
    shorter: Shorter<K, V>,
    routes: Box<[(K, u8, V)]>,
}

impl<K: Key, V: Copy> Lpm<K, V> {
    const FEW: usize = 8;

    /// Builds the map from `(address, prefix length, value)`; of equal prefixes the last counts.
    pub(crate) fn build(routes: Vec<(K, u8, V)>) -> Self {
        let entries = |len: u8| -> Vec<(K, V)> {
            let of_len = routes.iter().filter(|route| route.1 == len);
            of_len
                .map(|&(key, _, value)| (key & K::mask(len), value))
                .collect()
        };
        let lengths = (0..K::WIDTH).rev().map(|len| (K::mask(len), entries(len)));
        let lengths: Vec<_> = lengths.filter(|(_, entries)| !entries.is_empty()).collect();
        let shorter = if lengths
            .iter()
            .map(|(_, entries)| entries.len())
            .sum::<usize>()
            <= Self::FEW
        {
            let each = |(mask, entries): (K, Vec<(K, V)>)| {
                // Backwards, so that of equal prefixes the last is met first.
                entries
                    .into_iter()
                    .rev()
                    .map(move |(key, value)| (mask, key, value))
            };
            Shorter::Few(lengths.into_iter().flat_map(each).collect())
        } else {
            let levels = lengths
                .iter()
                .map(|(mask, entries)| Level::new(*mask, entries));
            Shorter::Many(levels.collect())
        };
        Self {
            first: by_first_byte(&routes),
            hosts: Level::new(K::mask(K::WIDTH), &entries(K::WIDTH)),
            shorter,
            routes: routes.into(),
        }
    }

    /// The value of the longest prefix that `key` lies in.
    #[inline(always)]
    pub(crate) fn lookup(&self, key: K) -> Option<V> {
        let whole = self.first[usize::from(key.first_byte())];
        if whole.is_some() {
            return whole;
        }
        let home = self.hosts.home(key);
        for at in [home, home ^ 1] {
            if let Some(&Some((host, value))) = self.hosts.slots.get(at)
                && host == key
            {
                return Some(value);
            }
        }
        self.lookup_on(key)
    }

    /// As [`Self::lookup`], where neither the first byte nor the first two slots answered. Apart, so that what is inlined
    /// is short.
    #[inline(never)]
    fn lookup_on(&self, key: K) -> Option<V> {
        self.hosts.get(key).or_else(|| match &self.shorter {
            Shorter::Few(prefixes) => {
                let matches = |&&(mask, prefix, _): &&(K, K, V)| key & mask == prefix;
                prefixes.iter().find(matches).map(|&(_, _, value)| value)
            }
            Shorter::Many(levels) => levels.iter().find_map(|level| level.get(key & level.mask)),
        })
    }

    /// What the map was built from.
    pub(crate) fn routes(&self) -> &[(K, u8, V)] {
        &self.routes
    }
}

/// For each first byte the value of all keys that have it, if no prefix tells some of them from others.
fn by_first_byte<K: Key, V: Copy>(routes: &[(K, u8, V)]) -> Box<[Option<V>; 256]> {
    let mut covering: [Option<(u8, V)>; 256] = [None; 256];
    let mut divided = [false; 256];
    for &(prefix, len, value) in routes {
        let first = usize::from((prefix & K::mask(len)).first_byte());
        if len > 8 {
            divided[first] = true;
            continue;
        }
        for longest in &mut covering[first..first + (256 >> len)] {
            if longest.is_none_or(|(other, _)| len >= other) {
                *longest = Some((len, value));
            }
        }
    }
    let whole = |byte: usize| covering[byte].filter(|_| !divided[byte]);
    Box::new(std::array::from_fn(|byte| {
        whole(byte).map(|(_, value)| value)
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The slow table: every route is looked at.
    fn scan<K: Key, V: Copy>(routes: &[(K, u8, V)], key: K) -> Option<V> {
        let mut best: Option<(u8, V)> = None;
        for &(prefix, len, value) in routes {
            let mask = K::mask(len);
            let inside = key & mask == prefix & mask;
            if inside && best.is_none_or(|(longest, _)| len >= longest) {
                best = Some((len, value));
            }
        }
        best.map(|(_, value)| value)
    }

    proptest! {
        #[test]
        fn agrees_with_a_scan_for_ipv4(
            routes in prop_oneof![
                prop::collection::vec((any::<u32>(), 0u8..=32, any::<u16>()), 0..8),
                prop::collection::vec((any::<u32>(), 0u8..=32, any::<u16>()), 0..80),
            ],
            keys in prop::collection::vec(any::<u32>(), 0..20),
        ) {
            let table = Lpm::build(routes.clone());
            let near = routes.iter().flat_map(|route| [route.0, route.0 ^ 1]);
            for key in keys.into_iter().chain(near) {
                prop_assert_eq!(table.lookup(key), scan(&routes, key));
            }
        }

        #[test]
        fn agrees_with_a_scan_for_ipv6(
            routes in prop_oneof![
                prop::collection::vec((any::<u128>(), 0u8..=128, any::<u16>()), 0..8),
                prop::collection::vec((any::<u128>(), 0u8..=128, any::<u16>()), 0..80),
            ],
            keys in prop::collection::vec(any::<u128>(), 0..20),
        ) {
            let table = Lpm::build(routes.clone());
            let near = routes.iter().flat_map(|route| [route.0, route.0 ^ 1]);
            for key in keys.into_iter().chain(near) {
                prop_assert_eq!(table.lookup(key), scan(&routes, key));
            }
        }
    }
}
