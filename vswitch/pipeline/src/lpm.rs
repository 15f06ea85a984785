//! Longest-prefix match: one hash table per prefix length in use, longest first.
//!
//! A tenant's routes are almost all host routes, so their table answers almost every look-up of the
//! tenant's own addresses, however many there are. External destinations usually miss on the first
//! byte and skip the hash tables. The tables are built off the worker from a checked configuration;
//! a guest chooses which keys are looked up but not which are stored, so it cannot lengthen a
//! probe.

use std::fmt::Debug;
use std::ops::BitAnd;
use std::sync::Arc;

use packet::hash;

/// An address as a number.
pub(crate) trait Key: Copy + Eq + Debug + Default + BitAnd<Output = Self> {
    /// Bits of an address.
    const WIDTH: u8;

    /// A mask of `len` leading ones.
    fn mask(len: u8) -> Self;
    /// The leading eight bits.
    fn first_byte(self) -> u8;
    /// The address in one word, from which a multiplication makes a hash.
    fn word(self) -> u64;
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
    fn word(self) -> u64 {
        self.into()
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
    fn word(self) -> u64 {
        let (hi, lo) = ((self >> 64) as u64, self as u64);
        hi.wrapping_mul(hash::MULTIPLIER).rotate_left(32) ^ lo
    }
}

/// The prefixes of one length: a hash table with open addressing. A key is looked for in the slots
/// `home ^ 0`, `home ^ 1`, and so on; the first two share a cache line.
///
/// The hash is one multiplication. Addresses come in lattices (subnets times hosts), which some
/// factors spread and others leave in clusters, so the table is built with the best of several.
#[derive(Debug, Clone)]
struct Level<K, V> {
    mask: K,
    /// A power of two of slots, at most a quarter of them in use.
    slots: Arc<[Option<(K, V)>]>,
    factor: u64,
    shift: u32,
}

impl<K: Key, V: Copy> Level<K, V> {
    /// Up to this many slots a table is small enough to be emptier than others.
    const SMALL: usize = 256;
    /// Factors that are tried for a table of one size, or for a large table, which takes long.
    const FACTORS: u64 = 16;
    const FACTORS_OF_LARGE: u64 = 4;
    const LARGE: usize = 1 << 14;

    fn new(mask: K, entries: &[(K, V)]) -> Self {
        let mut size = (entries.len() * 4).next_power_of_two().max(2);
        loop {
            let factors = match size {
                ..Self::LARGE => Self::FACTORS,
                _ => Self::FACTORS_OF_LARGE,
            };
            let mut best: Option<(Self, usize)> = None;
            for number in 0..factors {
                let factor = hash::mixed(hash::MULTIPLIER.wrapping_add(number)) | 1;
                let Some((level, apart)) = Self::with(size, factor, mask, entries) else {
                    continue;
                };
                // What is in the first two slots is found without a call.
                if apart == 0 {
                    return level;
                }
                if best.as_ref().is_none_or(|(_, least)| apart < *least) {
                    best = Some((level, apart));
                }
            }
            if let Some((level, _)) = best.filter(|_| size >= Self::SMALL) {
                return level;
            }
            size *= 2;
        }
    }

    /// The table, and how many keys are in none of their first two slots. `None` if the factor
    /// leaves so large clusters that building it takes long, but for a very empty table.
    fn with(size: usize, factor: u64, mask: K, entries: &[(K, V)]) -> Option<(Self, usize)> {
        let mut slots = vec![None; size];
        let mut level = Self {
            mask,
            slots: Arc::default(),
            factor,
            shift: 64 - size.trailing_zeros(),
        };
        let (mut apart, mut steps) = (0, 0);
        for &(key, value) in entries {
            let home = level.home(key);
            let is_for_it = |slot: &Option<(K, V)>| slot.is_none_or(|(other, _)| other == key);
            let step = (0..size)
                .find(|step| is_for_it(&slots[home ^ step]))
                .expect("most slots are empty");
            slots[home ^ step] = Some((key, value));
            apart += usize::from(step > 1);
            steps += step;
            if steps > size * 4 && size / 64 < entries.len() {
                return None;
            }
        }
        level.slots = slots.into();
        Some((level, apart))
    }

    fn home(&self, key: K) -> usize {
        home(key, self.factor, self.shift)
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
#[derive(Debug, Clone)]
enum Shorter<K, V> {
    /// So few that comparing each costs less than one hash: mask, prefix, value.
    Few(Arc<[(K, K, V)]>),
    /// A table for each length.
    Many(Arc<[Level<K, V>]>),
}

/// Routes of one length: prefix and value.
type Entries<K, V> = Vec<(K, V)>;

/// An immutable map from prefixes to values. A clone shares all tables.
#[derive(Debug, Clone)]
pub(crate) struct Lpm<K, V> {
    /// The value of all addresses with that first byte, if they have the same.
    first: Arc<[Option<V>; 256]>,
    /// Prefixes of full length, apart because almost every look-up ends here.
    hosts: Level<K, V>,
    shorter: Shorter<K, V>,
    routes: Arc<[(K, u8, V)]>,
}

impl<K: Key, V: Copy + PartialEq> Lpm<K, V> {
    const FEW: usize = 8;

    /// Builds the map from `(address, prefix length, value)`; of equal prefixes the last counts.
    /// The tables of those lengths whose routes are as in `previous` are shared with it.
    pub(crate) fn build(routes: Vec<(K, u8, V)>, previous: Option<&Self>) -> Self {
        if let Some(same) = previous.filter(|previous| *previous.routes == routes) {
            return same.clone();
        }
        let mut lengths = by_length(&routes);
        let hosts = lengths.pop().unwrap_or_default();
        let old = previous.map(|previous| (previous, by_length(&previous.routes)));
        let hosts = match &old {
            Some((previous, old)) if old.last() == Some(&hosts) => previous.hosts.clone(),
            _ => Level::new(K::mask(K::WIDTH), &hosts),
        };
        Self {
            first: Arc::new(by_first_byte(&routes)),
            hosts,
            shorter: Self::build_shorter(lengths, old.as_ref()),
            routes: routes.into(),
        }
    }

    /// The tables of the lengths below the full one, which are in `lengths` by their length.
    fn build_shorter(
        lengths: Vec<Entries<K, V>>,
        old: Option<&(&Self, Vec<Entries<K, V>>)>,
    ) -> Shorter<K, V> {
        let total: usize = lengths.iter().map(Vec::len).sum();
        let lengths = lengths.into_iter().enumerate().rev();
        let lengths = lengths.filter(|(_, entries)| !entries.is_empty());
        if total <= Self::FEW {
            let each = |(len, entries): (usize, Entries<K, V>)| {
                let mask = K::mask(len as u8);
                // Backwards, so that of equal prefixes the last is met first.
                let prefixes = entries.into_iter().rev();
                prefixes.map(move |(key, value)| (mask, key, value))
            };
            return Shorter::Few(lengths.flat_map(each).collect());
        }
        let levels = lengths.map(|(len, entries)| {
            let mask = K::mask(len as u8);
            let same = old.filter(|(_, old)| old[len] == entries);
            let same = same.and_then(|(previous, _)| match &previous.shorter {
                Shorter::Many(levels) => levels.iter().find(|level| level.mask == mask),
                Shorter::Few(_) => None,
            });
            same.map_or_else(|| Level::new(mask, &entries), Level::clone)
        });
        Shorter::Many(levels.collect())
    }

    /// The parts that a look-up reads, for a burst of look-ups.
    #[inline(always)]
    pub(crate) fn view(&self) -> LpmView<'_, K, V> {
        LpmView {
            first: &self.first,
            slots: &self.hosts.slots,
            factor: self.hosts.factor,
            shift: self.hosts.shift,
            all: self,
        }
    }

    /// The value of the longest prefix that `key` lies in.
    #[inline(always)]
    pub(crate) fn lookup(&self, key: K) -> Option<V> {
        self.view().lookup(key)
    }

    /// As [`Self::lookup`], where neither the first byte nor the first two slots answered. Not
    /// inlined, so that callers stay short.
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

    /// Whether both were built from the same routes, one after the other.
    pub(crate) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.routes, &other.routes)
    }

    /// The routes that the map was built from.
    pub(crate) fn routes(&self) -> &[(K, u8, V)] {
        &self.routes
    }
}

/// The parts of a map that a look-up reads. A caller with many look-ups keeps them in registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LpmView<'m, K, V> {
    first: &'m [Option<V>; 256],
    slots: &'m [Option<(K, V)>],
    factor: u64,
    shift: u32,
    all: &'m Lpm<K, V>,
}

impl<K: Key, V: Copy + PartialEq> LpmView<'_, K, V> {
    /// The value of the longest prefix that `key` lies in.
    #[inline(always)]
    pub(crate) fn lookup(&self, key: K) -> Option<V> {
        let whole = self.first[usize::from(key.first_byte())];
        if whole.is_some() {
            return whole;
        }
        let home = home(key, self.factor, self.shift);
        for at in [home, home ^ 1] {
            if let Some(&Some((host, value))) = self.slots.get(at)
                && host == key
            {
                return Some(value);
            }
        }
        self.all.lookup_on(key)
    }
}

/// The first slot of a key, in a table of as many slots as the shift leaves numbers.
#[inline(always)]
fn home<K: Key>(key: K, factor: u64, shift: u32) -> usize {
    (key.word().wrapping_mul(factor) >> shift) as usize
}

/// The routes of each prefix length, in their order.
fn by_length<K: Key, V: Copy>(routes: &[(K, u8, V)]) -> Vec<Entries<K, V>> {
    let mut lengths = vec![Vec::new(); usize::from(K::WIDTH) + 1];
    for &(key, len, value) in routes {
        lengths[usize::from(len)].push((key & K::mask(len), value));
    }
    lengths
}

/// For each first byte the value of all keys that have it, if no prefix divides them.
fn by_first_byte<K: Key, V: Copy>(routes: &[(K, u8, V)]) -> [Option<V>; 256] {
    let mut covering: [Option<(u8, V)>; 256] = [None; 256];
    let mut divided = [false; 256];
    for &(prefix, len, value) in routes {
        let first = usize::from((prefix & K::mask(len)).first_byte());
        if len > 8 {
            divided[first] = true;
            continue;
        }
        for covering in &mut covering[first..first + (256 >> len)] {
            if covering.is_none_or(|(other, _)| len >= other) {
                *covering = Some((len, value));
            }
        }
    }
    let whole = |byte: usize| covering[byte].filter(|_| !divided[byte]);
    std::array::from_fn(|byte| whole(byte).map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The slow table: compares every route.
    fn scan<K: Key, V: Copy>(routes: &[(K, u8, V)], key: K) -> Option<V> {
        let mut best: Option<(u8, V)> = None;
        for &(prefix, len, value) in routes {
            let mask = K::mask(len);
            let inside = key & mask == prefix & mask;
            if inside && best.is_none_or(|(other, _)| len >= other) {
                best = Some((len, value));
            }
        }
        best.map(|(_, value)| value)
    }

    /// Routes of one width: few, or many.
    fn routes<K: Key + Arbitrary>(width: u8) -> impl Strategy<Value = Vec<(K, u8, u16)>> {
        let route = || (any::<K>(), 0..=width, any::<u16>());
        prop_oneof![
            prop::collection::vec(route(), 0..8),
            prop::collection::vec(route(), 0..80),
        ]
    }

    /// Compares the table with a scan, for the keys and for addresses near the routes; and so one
    /// that is built on top of it from other routes.
    fn check<K: Key>(
        before: Vec<(K, u8, u16)>,
        changed: Vec<(K, u8, u16)>,
        keys: &[K],
        near: impl Fn(K) -> K,
    ) {
        let previous = Lpm::build(before.clone(), None);
        // Half of the routes stay.
        let mut after = before.clone();
        after.truncate(before.len() / 2);
        after.extend(changed);
        let next = Lpm::build(after.clone(), Some(&previous));
        for (table, routes) in [(&previous, &before), (&next, &after)] {
            let near = routes.iter().flat_map(|route| [route.0, near(route.0)]);
            for key in keys.iter().copied().chain(near) {
                assert_eq!(table.lookup(key), scan(routes, key));
            }
        }
    }

    proptest! {
        #[test]
        fn table_agrees_with_scan_for_ipv4(
            before in routes::<u32>(32),
            changed in routes::<u32>(32),
            keys in prop::collection::vec(any::<u32>(), 0..20),
        ) {
            check(before, changed, &keys, |key| key ^ 1);
        }

        #[test]
        fn table_agrees_with_scan_for_ipv6(
            before in routes::<u128>(128),
            changed in routes::<u128>(128),
            keys in prop::collection::vec(any::<u128>(), 0..20),
        ) {
            check(before, changed, &keys, |key| key ^ 1);
        }
    }

    #[test]
    fn lengths_without_a_change_are_shared() {
        let hosts: Vec<(u32, u8, u16)> = (0..100).map(|host| (host, 32, 1)).collect();
        let nets = |value| (0..100u32).map(move |net| (net << 8, 24, value));
        let build = |value, previous| {
            let routes = hosts.iter().copied().chain(nets(value)).collect();
            Lpm::build(routes, previous)
        };
        let previous = build(2, None);
        let changed = build(3, Some(&previous));
        assert!(Arc::ptr_eq(&previous.hosts.slots, &changed.hosts.slots));
        assert_eq!(
            (previous.lookup(0x1ff), changed.lookup(0x1ff)),
            (Some(2), Some(3))
        );
        let same = build(3, Some(&changed));
        assert!(Arc::ptr_eq(&same.routes, &changed.routes));
    }
}
