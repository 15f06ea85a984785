//! Which addresses are a port's own.

use crate::state::State;
use crate::tables::{PackedTarget, PortRules, Tables};

/// A port that sends, and the addresses that it may send from.
pub(super) struct Owner<'a> {
    pub(super) tables: &'a Tables,
    pub(super) rules: &'a PortRules,
    /// The address that its DHCP lease gives it.
    pub(super) leased: Option<u32>,
    /// What ports have claimed.
    pub(super) state: &'a State,
    pub(super) now_ns: u64,
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
            || self.state.has_claimed(self.rules.id, address)
    }

    /// Whether the address there is one that the port shares with others.
    #[inline(always)]
    fn may_hold(&self, target: Option<PackedTarget>) -> bool {
        let shared = || target.and_then(PackedTarget::shared);
        self.rules.shares
            && shared().is_some_and(|shared| self.tables.may_hold(self.rules.id, shared))
    }

    /// Whether the port may claim an address that it lacks.
    #[inline(never)]
    pub(super) fn may_claim(&self, address: u128) -> bool {
        self.state.has_room(self.rules.id, address, self.now_ns)
            && self.state.may_claim(self.tables, self.rules, address)
    }
}
