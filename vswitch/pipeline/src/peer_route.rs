//! The way of one packet to a peer of the tunnel.

use packet::wire::flow::Inner;
use packet::wire::tunnel::Template;
use packet::{DropReason, Frame};

use crate::counters::Counters;
use crate::ids::{PeerId, VtepId};
use crate::ipsec::sa::Stamped;
use crate::state::{SentLately, State};
use crate::tables::Tunnel;

/// The way of one packet to a peer.
#[derive(Clone, Copy)]
pub(crate) struct PeerRoute<'t> {
    pub(crate) tunnel: &'t Tunnel,
    pub(crate) peer: PeerId,
    mac: [u8; 6],
    template: &'t Template,
    next_hop: [u8; 6],
    /// The largest IP packet that the tunnel carries there, in bytes.
    pub(crate) max_len: u16,
    /// IPsec is required, and there is an SA for that endpoint.
    pub(crate) sealed: Option<VtepId>,
}

/// Why a packet does not go into the tunnel.
pub(crate) enum Unfit {
    Reason(DropReason),
    /// It is larger than that.
    TooBig(u16),
    /// IPsec is required, and there is no SA for that endpoint.
    NoSa(VtepId),
}

impl<'t> PeerRoute<'t> {
    /// The way of an IP packet of `len` bytes to a peer.
    #[inline(always)]
    pub(crate) fn new(
        tunnel: &'t Tunnel,
        state: &State,
        id: PeerId,
        len: usize,
        now_ns: u64,
    ) -> Result<Self, Unfit> {
        let peer = tunnel.peer(id);
        let vtep = tunnel.vtep(peer.vtep);
        let max_len = state.paths[peer.vtep.index()].max_len();
        if len > usize::from(max_len) {
            return Err(Unfit::TooBig(max_len));
        }
        let next_hop = state.next_hop_mac(Some(vtep.next_hop));
        let next_hop = next_hop.ok_or(Unfit::Reason(DropReason::NeighbourUnresolved))?;
        if vtep.protected && !state.ipsec.may_seal(peer.vtep, now_ns) {
            return Err(Unfit::NoSa(peer.vtep));
        }
        Ok(Self {
            tunnel,
            peer: id,
            mac: peer.mac,
            template: &vtep.template,
            next_hop,
            max_len,
            sealed: vtep.protected.then_some(peer.vtep),
        })
    }

    /// Whether the packet leaves under IPsec.
    #[inline(always)]
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// Whether the segment size of TCP is lowered to what fits.
    #[inline(always)]
    pub(crate) fn clamps_segments(&self) -> bool {
        self.tunnel.mss_clamp
    }

    /// Writes the inner frame's MACs.
    #[inline(always)]
    pub(crate) fn set_macs(&self, frame: &mut Frame<'_>) {
        frame.set_macs(self.mac, self.tunnel.mac);
    }

    /// Puts the outer headers around the frame, and counts it. `None` if there is no room for them.
    /// With a place for `later`, a packet that is better sealed with others is only stamped: then
    /// it is there, and its frame must not leave before it is sealed.
    #[inline(always)]
    pub(crate) fn seal(
        &self,
        (counters, state): (&Counters, &mut State),
        inner: Inner,
        frame: &mut Frame<'_>,
        now_ns: u64,
        later: Option<&mut Option<Stamped>>,
    ) -> Option<()> {
        let carried = frame.len();
        let carrier = &self.tunnel.carrier;
        carrier.seal(self.template, self.next_hop, inner, frame)?;
        if let Some(vtep) = self.sealed {
            state.ipsec.seal(vtep, frame, now_ns, later)?;
        }
        counters.peer(self.peer).sent(carried);
        Some(())
    }
}

/// Remembers that an IP packet of `len` bytes went to a peer, if a router can report it as too big.
/// Apart from [`PeerRoute::seal`], which has no register to spare.
#[inline(always)]
pub(crate) fn remember(
    tunnel: &Tunnel,
    state: &mut State,
    peer: PeerId,
    (inner, len): (&Inner, usize),
    now_ns: u64,
) {
    let vtep = tunnel.peer(peer).vtep;
    if len <= usize::from(tunnel.min_len(tunnel.vtep(vtep).protected)) {
        return;
    }
    let sent = &mut state.paths[vtep.index()].sent;
    if sent.is_noted(len as u16, now_ns) {
        return;
    }
    let template = &tunnel.vtep(vtep).template;
    note(sent, template, (inner.flow(), len as u16), now_ns);
}

/// Not inlined: it happens a few times in a period.
#[inline(never)]
fn note(sent: &mut SentLately, template: &Template, (flow, len): (u64, u16), now_ns: u64) {
    sent.note(len, template.source_port(flow), now_ns);
}
