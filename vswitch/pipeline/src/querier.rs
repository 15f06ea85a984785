//! The switch as the querier of its ports' multicast groups, and as the host that reports them to
//! peers (RFC 4605): frames that are due by the clock.

use packet::wire::ETHERNET_LEN;
use packet::wire::flow::Inner;
use packet::wire::membership::{self, Change, FRAME_MAX, REPORTED_MAX};
use packet::{Frame, addr};

use crate::bucket::SECOND_NS;
use crate::counters::Counters;
use crate::ids::{PortId, VtepId};
use crate::peer_route::{PeerRoute, Unfit};
use crate::state::State;
use crate::tables::{MulticastRules, PortRules, Tables, Tunnel};

/// Endpoints that one poll may report to.
const REPORTED_AT_ONCE: usize = 8;
/// The most tags with which one port is asked.
const ASKED_TAGS: usize = 16;
/// Room for a tag in front of a query.
const TAG_ROOM: usize = 4;

/// What a query is from and about.
struct Query {
    /// 0: all groups.
    group: u128,
    ipv4: bool,
}

/// Asks the listeners of every port, and those of groups that some have left.
pub(crate) fn ask(
    tables: &Tables,
    state: &mut State,
    now_ns: u64,
    send: &mut impl FnMut(PortId, &[u8]),
) {
    let (Some(rules), Some(groups)) = (&tables.multicast, &mut state.groups) else {
        return;
    };
    groups.expire(now_ns);
    if std::mem::take(&mut groups.asks) {
        for (to, members) in tables.ports.iter().zip(&mut groups.ports) {
            groups.asks |= members.due((now_ns, SECOND_NS), |group, vid| {
                let ipv4 = addr::unmapped4(group).is_some();
                ask_port(tables, to, &Query { group, ipv4 }, vid, send);
            });
        }
    }
    if !groups.query_is_due(now_ns) {
        return;
    }
    for to in tables.ports.iter() {
        let mut tags = [None; ASKED_TAGS];
        let mut count = 1;
        for (_, vid) in groups.ports[to.id.index()].groups(now_ns) {
            if count < ASKED_TAGS && !tags[..count].contains(&vid) {
                tags[count] = vid;
                count += 1;
            }
        }
        for vid in &tags[..count] {
            for ipv4 in families(rules) {
                ask_port(tables, to, &Query { group: 0, ipv4 }, *vid, send);
            }
        }
    }
}

/// Of IPv4, and not.
fn families(rules: &MulticastRules) -> impl Iterator<Item = bool> {
    let all = [(rules.queries4, true), (rules.queries6, false)];
    all.into_iter()
        .filter_map(|(asks, ipv4)| asks.then_some(ipv4))
}

fn ask_port(
    tables: &Tables,
    to: &PortRules,
    query: &Query,
    vid: Option<u16>,
    send: &mut impl FnMut(PortId, &[u8]),
) {
    let mut buffer = [0; TAG_ROOM + FRAME_MAX];
    let bytes = &mut buffer[TAG_ROOM..];
    let len = match (query.ipv4, tables.gateway4) {
        (true, Some(own)) => {
            let group = addr::unmapped4(query.group).unwrap_or(0);
            membership::igmp_query(bytes, (to.gateway_mac, own), group)
        }
        (false, _) if !to.deny_ipv6 => {
            let own = (to.gateway_mac, to.gateway_link_local);
            membership::mld_query(bytes, own, query.group)
        }
        _ => return,
    };
    let mut frame = Frame::new(&mut buffer, TAG_ROOM, len, None);
    if let Some(vid) = vid
        && frame.insert_tag(vid).is_none()
    {
        return;
    }
    send(to.id, frame.bytes());
}

/// Reports the groups of all ports to the peers' endpoints.
pub(crate) fn report(
    tables: &Tables,
    counters: &Counters,
    state: &mut State,
    now_ns: u64,
    send: &mut impl FnMut(PortId, &[u8]),
) {
    let Some(tunnel) = &tables.tunnel else {
        return;
    };
    for _ in 0..REPORTED_AT_ONCE {
        let Some(groups) = &mut state.groups else {
            return;
        };
        groups.begin_reports(now_ns);
        let reports = &mut groups.reports;
        let Some(vtep) = reports.next else {
            return;
        };
        let after = VtepId(vtep.0 + 1);
        reports.next = (after.index() < tunnel.vteps().len()).then_some(after);
        // Lent out, so that the rest of the state can be used.
        let list = std::mem::take(&mut reports.list);
        report_to((tables, counters, tunnel), state, vtep, &list, now_ns, send);
        if let Some(groups) = &mut state.groups {
            groups.reports.list = list;
        }
    }
}

fn report_to(
    (tables, counters, tunnel): (&Tables, &Counters, &Tunnel),
    state: &mut State,
    vtep: VtepId,
    list: &[(u128, Change)],
    now_ns: u64,
    send: &mut impl FnMut(PortId, &[u8]),
) {
    /// Room for what ESP appends.
    const TAILROOM: usize = 128;
    let mut buffer = [0; Frame::HEADROOM + FRAME_MAX + TAILROOM];
    let mut carry = |len: usize, buffer: &mut [u8]| {
        let mut frame = Frame::new(buffer, Frame::HEADROOM, len, None);
        let peer = tunnel.vtep(vtep).first_peer;
        match PeerRoute::new(tunnel, state, peer, len - ETHERNET_LEN, now_ns) {
            Ok(route) => {
                let inner = Inner::of_frame(&frame);
                let parts = (counters, &mut *state);
                if route.seal(parts, inner, &mut frame, now_ns, None).is_some() {
                    send(tables.uplink_id(), frame.bytes());
                }
            }
            Err(Unfit::NoSa(vtep)) => {
                let address = tunnel.vtep(vtep).address;
                state.ipsec.acquire(vtep, address, now_ns);
            }
            // The next report comes by the clock.
            Err(Unfit::Reason(_) | Unfit::TooBig(_)) => {}
        }
    };
    let ipv4 = |(group, change): &(u128, Change)| Some((addr::unmapped4(*group)?, *change));
    let mut part4 = [(0, Change::Join); REPORTED_MAX];
    let mut of_ipv4 = list.iter().filter_map(ipv4);
    while let count @ 1.. = fill(&mut part4, &mut of_ipv4) {
        let bytes = &mut buffer[Frame::HEADROOM..];
        let len = membership::igmp_report(bytes, tunnel.mac, &part4[..count]);
        carry(len, &mut buffer);
    }
    let ipv6 = |(group, _): &(u128, Change)| addr::is_multicast6(*group);
    let mut part6 = [(0, Change::Join); REPORTED_MAX];
    let mut of_ipv6 = list.iter().copied().filter(ipv6);
    while let count @ 1.. = fill(&mut part6, &mut of_ipv6) {
        let bytes = &mut buffer[Frame::HEADROOM..];
        let own = (tunnel.mac, addr::link_local6(tunnel.mac));
        let len = membership::mld_report(bytes, own, &part6[..count]);
        carry(len, &mut buffer);
    }
}

/// Fills `part` from the front; returns how many there were.
fn fill<T>(part: &mut [T], from: &mut impl Iterator<Item = T>) -> usize {
    let mut count = 0;
    for (place, item) in part.iter_mut().zip(from) {
        *place = item;
        count += 1;
    }
    count
}
