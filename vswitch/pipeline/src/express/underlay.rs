//! From the underlay to a port: out of the tunnel, or in plain.

use packet::number::{ethertype, protocol};
use packet::refused::SPECIAL_PORTS;
use packet::wire::tunnel::Opened;
use packet::wire::{ETHERNET_LEN, be16, be32, be128, ipv4, mac_at};
use packet::{Frame, addr};

use super::header::{HEAD4, HEAD6, Upper, tcp, udp};
use crate::counters::Counters;
use crate::ids::PortId;
use crate::tables::{PackedTarget, Tables};

/// Opens a tunnel packet without anything unusual, and forwards the inner frame. `None`: the
/// general path decides.
#[inline(always)]
pub(crate) fn decapsulate(
    tables: &Tables,
    counters: &Counters,
    now_ns: u64,
    frame: &mut Frame<'_>,
) -> Option<PortId> {
    let (uplink, tunnel) = (tables.uplink.as_ref()?, tables.tunnel.as_ref()?);
    if frame.stripped_tag().is_some() {
        return None;
    }
    let bytes = frame.bytes_mut();
    let head = bytes.first_chunk::<ETHERNET_LEN>()?;
    let for_us = mac_at(head, 0) == uplink.mac && uplink.is_other_station(mac_at(head, 6));
    if !for_us || bytes.len() - ETHERNET_LEN > usize::from(uplink.mtu) {
        return None;
    }
    let opened = tunnel.carrier.open_plain(bytes)?;
    let vtep = tunnel.vtep_by_number(opened.source)?;
    let Opened { begin, end, .. } = opened;
    let inside = bytes.get_mut(begin..end)?;
    let room = inside.len().wrapping_sub(ETHERNET_LEN);
    let head = inside.first_chunk_mut::<HEAD4>()?;
    if mac_at(head, 0) != tunnel.mac || !addr::is_station_mac(mac_at(head, 6)) {
        return None;
    }
    if !opened.keeps_ecn(&head[ETHERNET_LEN..]) {
        return None;
    }
    let passes = |upper: Upper| upper.passes(tunnel);
    let (len, from, to) = match be16(head, 12) {
        ethertype::IPV4 => {
            let (len, source, destination) = common4(head, room, passes)?;
            (len, tables.packed4(source)?, tables.packed4(destination)?)
        }
        ethertype::IPV6 => {
            let (len, source, destination) = common6(inside, room, passes)?;
            (len, tables.packed6(source)?, tables.packed6(destination)?)
        }
        _ => return None,
    };
    let (peer, id) = (from.peer()?, to.port()?);
    if tunnel.peers().get(peer.index())?.vtep != vtep {
        return None;
    }
    let to = tables.egress.get(id.index())?;
    if len > usize::from(to.max_len) {
        return None;
    }
    inside.first_chunk_mut::<12>()?.copy_from_slice(&to.header);
    // Counted with its padding, as the general path does.
    counters.peer(peer).received(end - begin, now_ns);
    frame.shrink_front(begin);
    frame.truncate(ETHERNET_LEN + len);
    Some(id)
}

/// Forwards a packet without anything unusual from the underlay to a VM. `None`: the general path
/// decides.
#[inline(always)]
pub(crate) fn deliver(tables: &Tables, frame: &mut Frame<'_>) -> Option<PortId> {
    let uplink = tables.uplink.as_ref()?;
    if frame.stripped_tag().is_some() || tables.takes_only_tunnel() {
        return None;
    }
    let bytes = frame.bytes_mut();
    let room = bytes.len().wrapping_sub(ETHERNET_LEN);
    let head = bytes.first_chunk::<HEAD4>()?;
    let for_us = mac_at(head, 0) == uplink.mac && uplink.is_other_station(mac_at(head, 6));
    if !for_us || room > usize::from(uplink.mtu) {
        return None;
    }
    let (len, from, to) = match be16(head, 12) {
        ethertype::IPV4 => {
            let (len, source, destination) = common4(head, room, |_| true)?;
            (len, tables.packed4(source), tables.packed4(destination)?)
        }
        ethertype::IPV6 => {
            let (len, source, destination) = common6(bytes, room, |_| true)?;
            if addr::may_embed4(source) {
                return None;
            }
            (len, tables.packed6(source), tables.packed6(destination)?)
        }
        _ => return None,
    };
    let id = to.port().filter(|_| PackedTarget::is_external(from))?;
    let to = tables.egress.get(id.index())?;
    if len > usize::from(to.max_len) {
        return None;
    }
    bytes.first_chunk_mut::<12>()?.copy_from_slice(&to.header);
    frame.truncate(ETHERNET_LEN + len);
    Some(id)
}

/// The length, source and destination of an IPv4 packet without anything unusual, whose upper layer
/// `passes`. The source is a unicast address.
#[inline(always)]
fn common4(
    head: &[u8; HEAD4],
    room: usize,
    passes: impl FnOnce(Upper) -> bool,
) -> Option<(usize, u32, u32)> {
    let len = usize::from(be16(head, 16));
    let fragment = be16(head, 20) & 0x3fff;
    if head[14] != 0x45 || fragment != 0 || len > room {
        return None;
    }
    let upper = match head[23] {
        protocol::UDP => {
            let to = be16(head, 36);
            udp(len, 28, (be16(head, 34), to), &SPECIAL_PORTS).map(|()| Upper::Udp(to))?
        }
        protocol::TCP => tcp(len, 20, head[46]).map(|()| Upper::Tcp(head[47]))?,
        _ => return None,
    };
    let ip: &[u8; 20] = head[ETHERNET_LEN..].first_chunk()?;
    let source = be32(head, 26);
    let common = ipv4::plain_checksum_holds(ip) && addr::is_routable4(source) && passes(upper);
    common.then(|| (len, source, be32(head, 30)))
}

/// As [`common4`].
#[inline(always)]
fn common6(
    bytes: &[u8],
    room: usize,
    passes: impl FnOnce(Upper) -> bool,
) -> Option<(usize, u128, u128)> {
    let head = bytes.first_chunk::<HEAD6>()?;
    let len = 40 + usize::from(be16(head, 18));
    if head[14] >> 4 != 6 || len > room {
        return None;
    }
    let upper = match head[20] {
        protocol::UDP => {
            let to = be16(head, 56);
            udp(len, 48, (be16(head, 54), to), &SPECIAL_PORTS).map(|()| Upper::Udp(to))?
        }
        protocol::TCP => {
            let flags = *bytes.get(67)?;
            tcp(len, 40, *bytes.get(66)?).map(|()| Upper::Tcp(flags))?
        }
        _ => return None,
    };
    let source = be128(head, 22);
    (addr::is_routable6(source) && passes(upper)).then(|| (len, source, be128(head, 38)))
}
