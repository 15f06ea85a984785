//! Where a route leads.

use std::num::NonZeroU16;

use crate::ids::{PeerId, PortId, SharedId};

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The port that has the address.
    Port(PortId),
    /// The port that holds this shared address, if one does.
    Shared(SharedId),
    /// The gateway's own address.
    Gateway,
    /// The gateway's subnet, where no port has the address.
    Unowned,
    /// The broadcast address of the gateway's subnet.
    Broadcast,
    /// Out, by way of the next hop.
    Uplink,
    /// The underlay's own network, closed to the tenant.
    Underlay,
    /// The switch's own address on the underlay.
    UplinkSelf,
    /// The first or broadcast address of the underlay's own network, which no station has.
    UnderlayEdge,
    /// Through the tunnel to a peer.
    Peer(PeerId),
}

impl Target {
    /// Whether the address is the switch's, its tenant's, or no station's.
    pub(crate) fn is_inside(self) -> bool {
        match self {
            Self::Port(_)
            | Self::Shared(_)
            | Self::Gateway
            | Self::Unowned
            | Self::Broadcast
            | Self::UplinkSelf
            | Self::UnderlayEdge
            | Self::Peer(_) => true,
            Self::Uplink | Self::Underlay => false,
        }
    }
}

/// A [`Target`] in 16 bits that are never all zero, so that "no route" needs no more room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedTarget(NonZeroU16);

impl PackedTarget {
    /// Peers start here; a switch has far fewer ports.
    const PEERS: u16 = 0x4000;
    /// Targets that are neither port, peer nor shared address start here.
    const OTHERS: u16 = 0x8000;
    /// Shared addresses start here.
    const SHARED: u16 = 0xbfff;
    const OTHER_TARGETS: [Target; 7] = [
        Target::Gateway,
        Target::Unowned,
        Target::Broadcast,
        Target::Uplink,
        Target::Underlay,
        Target::UplinkSelf,
        Target::UnderlayEdge,
    ];
    /// [`Target::Uplink`].
    pub(crate) const UPLINK: Self = Self::new(Target::Uplink);
    /// [`Target::Underlay`].
    pub(crate) const UNDERLAY: Self = Self::new(Target::Underlay);

    pub(crate) const fn new(target: Target) -> Self {
        let code = match target {
            Target::Port(id) => id.0 % Self::PEERS + 1,
            Target::Peer(id) => id.0 % (Self::OTHERS - Self::PEERS) + Self::PEERS + 1,
            Target::Shared(id) => id.0 % (u16::MAX - Self::SHARED) + Self::SHARED + 1,
            Target::Gateway => Self::OTHERS + 1,
            Target::Unowned => Self::OTHERS + 2,
            Target::Broadcast => Self::OTHERS + 3,
            Target::Uplink => Self::OTHERS + 4,
            Target::Underlay => Self::OTHERS + 5,
            Target::UplinkSelf => Self::OTHERS + 6,
            Target::UnderlayEdge => Self::OTHERS + 7,
        };
        match NonZeroU16::new(code) {
            Some(code) => Self(code),
            None => unreachable!(),
        }
    }

    #[inline(always)]
    pub(crate) fn target(self) -> Target {
        if let Some(id) = self.port() {
            return Target::Port(id);
        }
        if let Some(id) = self.peer() {
            return Target::Peer(id);
        }
        if let Some(id) = self.shared() {
            return Target::Shared(id);
        }
        let place = usize::from(self.0.get() - Self::OTHERS - 1);
        Self::OTHER_TARGETS[place % Self::OTHER_TARGETS.len()]
    }

    /// The place of the port, if it leads to one; else a number that no port has.
    #[inline(always)]
    pub(crate) fn place(self) -> usize {
        usize::from(self.0.get()) - 1
    }

    /// The port, if it leads to one.
    #[inline(always)]
    pub(crate) fn port(self) -> Option<PortId> {
        let code = self.0.get();
        (code <= Self::PEERS).then(|| PortId(code - 1))
    }

    /// The peer, if it leads to one.
    #[inline(always)]
    pub(crate) fn peer(self) -> Option<PeerId> {
        let code = self.0.get();
        (code > Self::PEERS && code <= Self::OTHERS).then(|| PeerId(code - Self::PEERS - 1))
    }

    /// The shared address, if it is one.
    #[inline(always)]
    pub(crate) fn shared(self) -> Option<SharedId> {
        let code = self.0.get();
        (code > Self::SHARED).then(|| SharedId(code - Self::SHARED - 1))
    }

    /// Whether an address that leads there is external.
    #[inline(always)]
    pub(crate) fn is_external(target: Option<Self>) -> bool {
        target.is_none_or(|target| target == Self::UPLINK || target == Self::UNDERLAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and the last of each kind are of that kind alone.
    #[test]
    fn targets_are_unpacked_as_they_were() {
        let last_peer = PackedTarget::OTHERS - PackedTarget::PEERS - 1;
        let last_shared = u16::MAX - PackedTarget::SHARED - 1;
        let mut all = PackedTarget::OTHER_TARGETS.to_vec();
        all.extend([0, PackedTarget::PEERS - 1].map(|id| Target::Port(PortId(id))));
        all.extend([0, last_peer].map(|id| Target::Peer(PeerId(id))));
        all.extend([0, last_shared].map(|id| Target::Shared(SharedId(id))));
        for target in all {
            let packed = PackedTarget::new(target);
            assert_eq!(packed.target(), target);
            let port = matches!(target, Target::Port(_));
            let peer = matches!(target, Target::Peer(_));
            let shared = matches!(target, Target::Shared(_));
            assert_eq!(packed.port().is_some(), port, "{target:?}");
            assert_eq!(packed.peer().is_some(), peer, "{target:?}");
            assert_eq!(packed.shared().is_some(), shared, "{target:?}");
        }
    }
}
