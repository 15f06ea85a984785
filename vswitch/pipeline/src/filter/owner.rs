//! Which addresses are a port's own.

use crate::tables::{PortRules, Tables};

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
        self.tables.packed4(address) == Some(self.rules.target) || self.leased == Some(address)
    }

    #[inline(always)]
    pub(super) fn has6(&self, address: u128) -> bool {
        self.tables.packed6(address) == Some(self.rules.target) || address == self.rules.link_local
    }
}
