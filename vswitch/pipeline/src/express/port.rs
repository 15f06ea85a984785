//! From a port: to another port, to the uplink, or into the tunnel.

use packet::number::protocol;
use packet::wire::ethernet::source_and_type;
use packet::wire::flow::Inner;
use packet::wire::{ETHERNET_LEN, be16, be32, be128, ipv4};
use packet::{Frame, addr, encapsulation};

use super::header::{HEAD4, HEAD6, Upper, tcp, udp};
use crate::counters::Counters;
use crate::ids::{PeerId, PortId};
use crate::peer_route::{self, PeerRoute};
use crate::state::State;
use crate::tables::{PackedTarget, PortRules, Tables};

/// Where a common frame goes.
enum Decision {
    /// Out of that port, this long; its headers are written.
    Out(PortId, usize),
    /// Through the tunnel to that peer, this long.
    Peer(PeerId, usize, Inner),
}

/// Forwards the frame, if nothing about it is unusual. `None`: the general path decides.
#[inline(always)]
pub(crate) fn forward(
    tables: &Tables,
    state: &mut State,
    counters: &Counters,
    rules: &PortRules,
    now_ns: u64,
    frame: &mut Frame<'_>,
) -> Option<PortId> {
    if frame.stripped_tag().is_some() {
        return None;
    }
    let bytes = frame.bytes_mut();
    let room = bytes.len().wrapping_sub(ETHERNET_LEN);
    let head = bytes.first_chunk_mut::<HEAD4>()?;
    if room > usize::from(rules.mtu) {
        return None;
    }
    let sender = source_and_type(head.first_chunk()?);
    let decision = if sender == rules.express4 {
        forward4(tables, state, rules, head, room)?
    } else if sender == rules.express6 {
        forward6(tables, state, rules, bytes, room)?
    } else {
        return None;
    };
    match decision {
        Decision::Out(to, len) => {
            frame.truncate(len);
            Some(to)
        }
        Decision::Peer(id, len, inner) => {
            let out = into_tunnel(tables, state, counters, id, (len, inner), frame)?;
            let tunnel = tables.tunnel.as_ref()?;
            peer_route::remember(tunnel, state, id, (&inner, len), now_ns);
            Some(out)
        }
    }
}

/// Not inlined, so that frames without a tunnel do not pay for it.
#[inline(never)]
fn into_tunnel(
    tables: &Tables,
    state: &State,
    counters: &Counters,
    id: PeerId,
    (len, inner): (usize, Inner),
    frame: &mut Frame<'_>,
) -> Option<PortId> {
    let route = PeerRoute::new(tables.tunnel.as_ref()?, state, id, len).ok()?;
    // Nothing may fail once the frame is changed.
    if !frame.has_headroom() {
        return None;
    }
    frame.truncate(ETHERNET_LEN + len);
    route.set_macs(frame);
    route.seal(counters, inner, frame)?;
    Some(tables.uplink_id())
}

#[inline(always)]
fn forward4(
    tables: &Tables,
    state: &State,
    rules: &PortRules,
    head: &mut [u8; HEAD4],
    room: usize,
) -> Option<Decision> {
    let total_len = be16(head, 16);
    let [first, group] = [head[14], head[0] & 1];
    let fragment = be16(head, 20) & 0x3fff;
    // One branch for four rare conditions.
    if (first ^ 0x45) | group != 0 || fragment != 0 || usize::from(total_len) > room {
        return None;
    }
    let (source, destination) = (be32(head, 26), be32(head, 30));
    let ports = (be16(head, 34), be16(head, 36));
    match head[23] {
        protocol::UDP => udp(usize::from(total_len), 28, ports, rules.special_ports)?,
        protocol::TCP if !encapsulation::is_tcp(ports) => {
            tcp(usize::from(total_len), 20, head[46])?;
        }
        _ => return None,
    }
    let ip: &[u8; 20] = head[ETHERNET_LEN..].first_chunk()?;
    if !ipv4::plain_checksum_holds(ip) || tables.packed4(source) != Some(rules.target) {
        return None;
    }
    let target = tables.packed4(destination)?;
    let len = usize::from(total_len);
    if let Some(id) = target.port() {
        return to_port(tables, rules, head, id, len);
    }
    if let Some(peer) = target.peer() {
        let upper = match head[23] {
            protocol::UDP => Upper::Udp(be16(head, 36)),
            _ => Upper::Tcp(head[47]),
        };
        if !upper.passes(tables.tunnel.as_ref()?)
            || addr::is_link_local4(source)
            || !addr::is_routable4(destination)
        {
            return None;
        }
        let ends = (source, destination);
        let inner = Inner::flow4(head[15], head[22], ends, head[23], be32(head, 34));
        return Some(Decision::Peer(peer, len, inner));
    }
    let uplink = tables
        .uplink
        .as_ref()
        .filter(|_| target == PackedTarget::UPLINK)?;
    let ttl = head[22];
    let next_hop = state.next_hop_mac(uplink.next_hop4)?;
    let routable = addr::is_routable4(destination) && !addr::is_link_local4(source);
    if ttl <= 1 || total_len > uplink.mtu || !routable {
        return None;
    }
    ipv4::decrement_ttl(head, ttl);
    head[..6].copy_from_slice(&next_hop);
    head[6..12].copy_from_slice(&uplink.mac);
    Some(Decision::Out(tables.uplink_id(), ETHERNET_LEN + len))
}

#[inline(always)]
fn forward6(
    tables: &Tables,
    state: &State,
    rules: &PortRules,
    bytes: &mut [u8],
    room: usize,
) -> Option<Decision> {
    let head = bytes.first_chunk::<HEAD6>()?;
    let total_len = 40 + usize::from(be16(head, 18));
    if (head[14] >> 4) ^ 6 | (head[0] & 1) != 0 || total_len > room {
        return None;
    }
    let ports = (be16(head, 54), be16(head, 56));
    match head[20] {
        protocol::UDP => udp(total_len, 48, ports, rules.special_ports)?,
        protocol::TCP if !encapsulation::is_tcp(ports) => tcp(total_len, 40, *bytes.get(66)?)?,
        _ => return None,
    }
    let (source, destination) = (be128(head, 22), be128(head, 38));
    if tables.packed6(source) != Some(rules.target) {
        return None;
    }
    let target = tables.packed6(destination)?;
    if let Some(id) = target.port() {
        return to_port(tables, rules, bytes.first_chunk_mut()?, id, total_len);
    }
    if !addr::is_routable6(destination) || addr::is_link_local6(source) {
        return None;
    }
    if let Some(peer) = target.peer() {
        let upper = match head[20] {
            protocol::UDP => Upper::Udp(be16(head, 56)),
            _ => Upper::Tcp(*bytes.get(67)?),
        };
        let class = (be16(head, 14) >> 4) as u8;
        let ends = (source, destination);
        let inner = Inner::flow6(class, head[21], ends, head[20], be32(head, 54));
        let passes = upper.passes(tables.tunnel.as_ref()?);
        return passes.then_some(Decision::Peer(peer, total_len, inner));
    }
    let uplink = tables
        .uplink
        .as_ref()
        .filter(|_| target == PackedTarget::UPLINK)?;
    let next_hop = state.next_hop_mac(uplink.next_hop6)?;
    let hops = head[21];
    if addr::may_embed4(destination) || hops <= 1 || total_len > usize::from(uplink.mtu) {
        return None;
    }
    let head = bytes.first_chunk_mut::<HEAD6>()?;
    head[21] = hops - 1;
    head[..6].copy_from_slice(&next_hop);
    head[6..12].copy_from_slice(&uplink.mac);
    Some(Decision::Out(tables.uplink_id(), ETHERNET_LEN + total_len))
}

#[inline(always)]
fn to_port(
    tables: &Tables,
    rules: &PortRules,
    head: &mut [u8; HEAD4],
    id: PortId,
    total_len: usize,
) -> Option<Decision> {
    let to = tables.egress.get(id.index())?;
    if total_len > usize::from(to.max_len) || id == rules.id {
        return None;
    }
    head[..12].copy_from_slice(&to.header);
    Some(Decision::Out(id, ETHERNET_LEN + total_len))
}
