//! Which addresses are a port's own.

use crate::tables::{PackedTarget, PortRules, Tables};

/// A port that sends, and the addresses that it may send from.
pub(super) struct Owner<'a> {
    pub(super) tables: &'a Tables,
    pub(super) rules: &'a PortRules,
    /// The address that its DHCP lease gives it.
    pub(super) leased: Option<u32>,
}

impl Owner<'_> {
    #[inline(always)]
    pub(super) fn has4(&self, address: u32) -> bool {
        let target = self.tables.packed4(address);
        target == Some(self.rules.target) || self.leased == Some(address) || self.may_hold(target)
    }

    #[inline(always)]
    pub(super) fn has6(&self, address: u128) -> bool {
        let target = self.tables.packed6(address);
        target == Some(self.rules.target)
            || address == self.rules.link_local
            || self.may_hold(target)
    }

    /// Whether the address there is one that the port shares with others.
    #[inline(always)]
    fn may_hold(&self, target: Option<PackedTarget>) -> bool {
        let shared = || target.and_then(PackedTarget::shared);
        self.rules.shares
            && shared().is_some_and(|shared| self.tables.may_hold(self.rules.id, shared))
    }
}
