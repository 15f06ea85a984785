//! One frame's way through the stages, which `order.rs` runs. Each stage is a method of [`Pass`];
//! the side from which the frame came is a parameter.

mod fragments;
mod ipsec;
mod multicast;
mod reply;
pub(crate) mod report;
mod rewrite;
mod route;
mod tunnel;

use packet::DropReason;
use packet::wire::ecn::Ecn;

use crate::counters::Counters;
use crate::ids::{PeerId, PortId};
use crate::peer_route::PeerRoute;
use crate::stage::{Notes, Stage};
use crate::state::State;
use crate::tables::{PortRules, Tables, Target, Tunnel, UplinkRules};

/// Where a frame goes that is not dropped.
pub(crate) enum Sent {
    To(PortId),
    /// To several receivers, which [`crate::state::Copies`] has.
    Copies,
    Back,
}

/// Why a frame is dropped, and whether it has become an ICMP error.
pub(crate) struct Refusal {
    pub(crate) reason: DropReason,
    pub(crate) reported: bool,
}

impl From<DropReason> for Refusal {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self {
            reason,
            reported: false,
        }
    }
}

/// What a stage came to; the last one sends the frame.
pub(crate) type Outcome<T = Sent> = Result<T, Refusal>;

/// Where a frame came from.
#[derive(Clone, Copy)]
pub(crate) enum Side<'t> {
    /// A tenant's port.
    Port(&'t PortRules),
    /// The underlay, in plain.
    Uplink(&'t UplinkRules),
    /// A peer, through the tunnel.
    Peer(FromPeer<'t>),
}

/// The peer that sent a frame through the tunnel.
#[derive(Clone, Copy)]
pub(crate) struct FromPeer<'t> {
    pub(crate) tunnel: &'t Tunnel,
    pub(crate) id: PeerId,
    /// The packet's new ECN field, if that changes.
    pub(crate) ecn: Option<Ecn>,
}

impl Side<'_> {
    /// The MAC with which the switch answers.
    #[inline(always)]
    pub(crate) fn own_mac(&self) -> [u8; 6] {
        match self {
            Self::Port(rules) => rules.gateway_mac,
            Self::Uplink(uplink) => uplink.mac,
            Self::Peer(from) => from.tunnel.mac,
        }
    }

    /// The target of the addresses at which the switch itself is reached.
    #[inline(always)]
    pub(crate) fn own_target(&self) -> Target {
        match self {
            Self::Port(_) | Self::Peer(_) => Target::Gateway,
            Self::Uplink(_) => Target::UplinkSelf,
        }
    }
}

/// Where a packet leaves, with everything that its new headers need.
#[derive(Clone, Copy)]
pub(crate) enum Egress<'t> {
    Port(&'t PortRules),
    /// The port that holds a shared address, with the MAC by which it does.
    Holder(&'t PortRules, [u8; 6]),
    /// With the next hop's MAC.
    Uplink(&'t UplinkRules, [u8; 6]),
    Peer(PeerRoute<'t>),
    /// In fragments, which [`crate::state::Copies`] has.
    Fragments,
}

/// The way of frames through the stages.
#[derive(Debug)]
pub(crate) struct Pass<'s, N> {
    pub(crate) tables: &'s Tables,
    pub(crate) counters: &'s Counters,
    pub(crate) state: &'s mut State,
    pub(crate) now_ns: u64,
    pub(crate) notes: N,
}

impl<N: Notes> Pass<'_, N> {
    /// Drops the frame at a stage.
    #[inline(always)]
    pub(crate) fn refuse<T>(&mut self, stage: Stage, reason: DropReason) -> Outcome<T> {
        self.notes
            .note(stage, format_args!("drop {reason}: {}", reason.help()));
        Err(reason.into())
    }
}
