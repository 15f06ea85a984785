//! From a port: to another port, to the uplink, or into the tunnel.

use packet::wire::flow::Inner;
use packet::wire::{ETHERNET_LEN, be16, ethernet, ipv4};
use packet::{Frame, addr};

use super::header::{Decision, HEAD4, IntoTunnel, Upper, Usual, WayOut, WaysOut, plain4, plain6};
use crate::counters::Counters;
use crate::ids::{NextHopId, PortId};
use crate::ipsec::sa::Stamped;
use crate::peer_route::{self, PeerRoute};
use crate::state::State;
use crate::tables::{
    PackedTarget, PortEgress, PortExpress, Tables, Tunnel, UplinkRules, View4, View6,
};

/// What serves a burst from a tenant's port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FromPort<'t> {
    port: PortExpress,
    tunnel: Option<&'t Tunnel>,
    routes4: View4<'t>,
    routes6: View6<'t>,
    ports: WaysOut<'t>,
    /// The way out by the uplink; `None` while the next hop is unknown.
    up4: Option<Up<'t>>,
    up6: Option<Up<'t>>,
}

/// The way out by the uplink, as it is in this burst.
#[derive(Debug, Clone, Copy)]
struct Up<'t> {
    way: WayOut<'t>,
    /// Destination and source MAC.
    header: [u8; 12],
    /// The longest IP packet.
    max_len: u16,
}

impl<'t> Up<'t> {
    fn new(
        tables: &Tables,
        counters: &'t Counters,
        state: &State,
        next_hop: impl Fn(&UplinkRules) -> Option<NextHopId>,
    ) -> Option<Self> {
        let uplink = tables.uplink.as_ref()?;
        let mac = state.next_hop_mac(next_hop(uplink))?;
        let mut header = [0; 12];
        header[..6].copy_from_slice(&mac);
        header[6..].copy_from_slice(&uplink.mac);
        let to = tables.uplink_id();
        Some(Self {
            way: WayOut {
                to,
                counters: counters.port(to.index()),
            },
            header,
            max_len: uplink.mtu,
        })
    }

    #[inline(always)]
    fn send(&self, head: &mut [u8; HEAD4], len: usize) -> Decision<'t> {
        head[..12].copy_from_slice(&self.header);
        Decision::out(self.way, 0, len)
    }
}

impl<'t> FromPort<'t> {
    #[inline]
    pub(super) fn new(
        tables: &'t Tables,
        counters: &'t Counters,
        state: &State,
        port: PortExpress,
    ) -> Self {
        let (routes4, routes6) = tables.views();
        Self {
            port,
            tunnel: tables.tunnel.as_ref(),
            routes4,
            routes6,
            ports: WaysOut::new(tables, counters),
            up4: Up::new(tables, counters, state, |uplink| uplink.next_hop4),
            up6: Up::new(tables, counters, state, |uplink| uplink.next_hop6),
        }
    }

    /// Forwards the frame, if nothing about it is unusual. `None`: the general path decides.
    /// `TUNNEL`: there is a tunnel.
    #[inline(always)]
    pub(crate) fn forward<const TUNNEL: bool>(&self, frame: &mut [u8]) -> Option<Decision<'t>> {
        let room = frame.len().wrapping_sub(ETHERNET_LEN);
        let head = frame.first_chunk_mut::<HEAD4>()?;
        if room > self.port.mtu {
            return None;
        }
        let sender = ethernet::source_and_type(head.first_chunk()?);
        if sender == self.port.sender4 {
            self.forward4::<TUNNEL>(head, room)
        } else if sender == self.port.sender6 {
            self.forward6::<TUNNEL>(frame, room)
        } else {
            None
        }
    }

    #[inline(always)]
    fn forward4<const TUNNEL: bool>(
        &self,
        head: &mut [u8; HEAD4],
        room: usize,
    ) -> Option<Decision<'t>> {
        let plain = plain4(head, room, self.usual())?;
        if addr::is_group_mac([head[0]; 6]) {
            return None;
        }
        if u64::from(plain.source) != self.port.own4 && !self.owns4(plain.source) {
            return None;
        }
        let destination = u32::from_be(plain.destination);
        let target = self.routes4.lookup(destination)?;
        if let Some(to) = self.ports.get(target) {
            return self.send_to_port(head, target, to, plain.len);
        }
        if !addr::is_routable4_fast(destination) {
            return None;
        }
        let ttl = head[22];
        if target == PackedTarget::UPLINK {
            let up = self.up4.as_ref()?;
            if ttl <= 1 || plain.len > usize::from(up.max_len) {
                return None;
            }
            ipv4::decrement_ttl(head, ttl);
            return Some(up.send(head, plain.len));
        }
        if !TUNNEL {
            return None;
        }
        let ends = (u32::from_be(plain.source), destination);
        let inner = Inner::flow4(head[15], ttl, ends, plain.protocol, plain.ports);
        self.send_to_peer(target, plain.len, Upper::new(&plain, head[47]), inner)
    }

    #[inline(always)]
    fn forward6<const TUNNEL: bool>(&self, frame: &mut [u8], room: usize) -> Option<Decision<'t>> {
        let plain = plain6(frame, room, self.usual())?;
        let flags = frame.get(67).copied().unwrap_or_default();
        let head = frame.first_chunk_mut::<HEAD4>()?;
        if addr::is_group_mac([head[0]; 6]) {
            return None;
        }
        if self.port.own6 != Some(plain.source) && !self.owns6(plain.source) {
            return None;
        }
        let destination = u128::from_be(plain.destination);
        let target = self.routes6.lookup(destination)?;
        if let Some(to) = self.ports.get(target) {
            return self.send_to_port(head, target, to, plain.len);
        }
        // Half of the address of metadata. With the whole of it, the compiler keeps more for the
        // rare case, and every frame between ports takes seven instructions more.
        let may_be_metadata = destination >> 64 == addr::METADATA6 >> 64;
        if !addr::is_routable6(destination) || may_be_metadata {
            return None;
        }
        let hops = head[21];
        if target == PackedTarget::UPLINK {
            let up = self.up6.as_ref()?;
            let too_long = plain.len > usize::from(up.max_len);
            if hops <= 1 || too_long || addr::may_embed4(destination) {
                return None;
            }
            head[21] = hops - 1;
            return Some(up.send(head, plain.len));
        }
        if !TUNNEL {
            return None;
        }
        let class = (be16(head, 14) >> 4) as u8;
        let ends = (u128::from_be(plain.source), destination);
        let inner = Inner::flow6(class, hops, ends, plain.protocol, plain.ports);
        self.send_to_peer(target, plain.len, Upper::new(&plain, flags), inner)
    }

    #[inline(always)]
    fn usual(&self) -> Usual<'t> {
        Usual {
            special: self.port.special_ports,
            only_plain_tcp: true,
        }
    }

    /// Whether a source that is not the usual one, as it lies in memory, is the port's.
    #[inline(always)]
    fn owns4(&self, source: u32) -> bool {
        self.routes4.lookup(u32::from_be(source)) == Some(self.port.target)
    }

    /// As [`Self::owns4`].
    #[inline(always)]
    fn owns6(&self, source: u128) -> bool {
        self.routes6.lookup(u128::from_be(source)) == Some(self.port.target)
    }

    /// `port` is the one that `target` leads to.
    #[inline(always)]
    fn send_to_port(
        &self,
        head: &mut [u8; HEAD4],
        target: PackedTarget,
        (way, port): (WayOut<'t>, &PortEgress),
        len: usize,
    ) -> Option<Decision<'t>> {
        if len > usize::from(port.max_len) || target == self.port.target {
            return None;
        }
        head[..12].copy_from_slice(&port.header);
        Some(Decision::out(way, 0, len))
    }

    #[inline(always)]
    fn send_to_peer(
        &self,
        target: PackedTarget,
        len: usize,
        upper: Upper,
        inner: Inner,
    ) -> Option<Decision<'t>> {
        let into = IntoTunnel {
            peer: target.peer()?,
            // A port's MTU is no more.
            len: len as u16,
            inner,
        };
        let passes = upper.passes(self.tunnel?);
        passes.then_some(Decision::IntoTunnel(into))
    }
}

/// Puts a frame for which the lane decided so into the tunnel; `later` as in [`PeerRoute::seal`].
/// `None`, with the frame unchanged: it is for the general path.
#[inline(always)]
pub(crate) fn enter_tunnel(
    (tables, counters, state): (&Tables, &Counters, &mut State),
    now_ns: u64,
    into: IntoTunnel,
    frame: &mut Frame<'_>,
    later: Option<&mut Option<Stamped>>,
) -> Option<PortId> {
    let IntoTunnel { peer, len, inner } = into;
    let len = usize::from(len);
    let tunnel = tables.tunnel.as_ref()?;
    let route = PeerRoute::new(tunnel, state, peer, len, now_ns).ok()?;
    // Nothing may fail once the frame is changed.
    let has_room = frame.has_headroom() && (!route.is_sealed() || frame.has_tailroom());
    if !has_room {
        return None;
    }
    frame.truncate(ETHERNET_LEN + len);
    route.set_macs(frame);
    route.seal((counters, &mut *state), inner, frame, now_ns, later)?;
    peer_route::remember(tunnel, state, peer, (&inner, len), now_ns);
    Some(tables.uplink_id())
}
