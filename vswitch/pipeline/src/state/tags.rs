//! VLAN tags behind trunk ports.

use packet::hash;

/// The tag with which each address behind a trunk port last sent: direct-mapped, so bounded.
#[derive(Debug)]
pub(crate) struct TagCache([(u128, Option<u16>); Self::SLOTS]);

impl Default for TagCache {
    fn default() -> Self {
        Self([(0, None); Self::SLOTS])
    }
}

impl TagCache {
    const SLOTS: usize = 1024;

    fn slot(address: u128) -> usize {
        let folded = (address >> 64) as u64 ^ address as u64;
        (folded.wrapping_mul(hash::MULTIPLIER) >> (64 - Self::SLOTS.ilog2())) as usize
    }

    pub(crate) fn learn(&mut self, address: u128, vid: Option<u16>) {
        // The source of probes and DHCP clients, which is never a destination.
        if address == 0 {
            return;
        }
        self.0[Self::slot(address)] = (address, vid);
    }

    /// Forgets the tags that the port may no longer use.
    pub(crate) fn retain(&mut self, trunk: &[u16]) {
        for slot in &mut self.0 {
            if slot.1.is_some_and(|vid| !trunk.contains(&vid)) {
                *slot = (0, None);
            }
        }
    }

    pub(crate) fn vid(&self, address: u128) -> Option<u16> {
        let (known, vid) = self.0[Self::slot(address)];
        if known == address { vid } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neighbours do not displace each other, of either family.
    #[test]
    fn each_address_has_its_tag() {
        let prefix = 0xfd00_0000_0000_0001_u128 << 64;
        for first in [0x0a00_000a, prefix | 0x10] {
            let mut tags = TagCache::default();
            for (address, vid) in (first..).zip(100..108) {
                tags.learn(address, Some(vid));
            }
            for (address, vid) in (first..).zip(100..108) {
                assert_eq!(tags.vid(address), Some(vid), "{address:x}");
            }
        }
        // The same in another prefix.
        let mut tags = TagCache::default();
        tags.learn(prefix | 0x10, Some(100));
        tags.learn(prefix << 1 | 0x10, Some(101));
        assert_eq!(tags.vid(prefix | 0x10), Some(100));
    }
}
