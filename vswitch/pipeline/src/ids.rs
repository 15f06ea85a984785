//! Places in the tables, which number what a configuration lists.

/// A port's place in the switch: the tenant's ports in the order of their configuration, then the
/// uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

impl PortId {
    /// The place as an index.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A peer's place among the tunnel's peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerId(pub(crate) u16);

impl PeerId {
    /// The place as an index.
    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// An endpoint's place among those of the tunnel's peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VtepId(pub(crate) u16);

impl VtepId {
    /// The place as an index.
    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A shared address's place among the tenant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SharedId(pub(crate) u16);

impl SharedId {
    /// The place as an index.
    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A next hop's place among those of the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NextHopId(pub(crate) u16);

impl NextHopId {
    /// The place as an index.
    #[inline(always)]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}
