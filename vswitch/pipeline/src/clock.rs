//! The switch's own frames, which are due by the clock.

use std::net::IpAddr;

use packet::number::ethertype;
use packet::wire::{ETHERNET_LEN, arp, be32, be128, esp, ipv4, ipv6, nd};
use packet::{Frame, addr};

use crate::ids::PortId;
use crate::ipsec::link::DATAGRAM_MAX;
use crate::ipsec::obey;
use crate::ipsec::rules::IKE_PORT;
use crate::metadata;
use crate::state::{PortState, State};
use crate::tables::{PortRules, Tables};

/// The longest of the frames that the switch sends by the clock.
const MAX_FRAME_LEN: usize = 128;
/// Next hops that one poll may solicit: as many as a burst holds.
const MAX_SOLICITATIONS: usize = 32;
/// RFC 4861, section 6.2.1 (MaxRtrAdvInterval), shortened so that a lost one costs little.
const ADVERTISEMENT_INTERVAL_NS: u64 = 200_000_000_000;

/// Solicits the next hops that have not answered lately.
pub(crate) fn solicit_next_hops(
    tables: &Tables,
    state: &mut State,
    now_ns: u64,
    send: &mut impl FnMut(PortId, &[u8]),
) {
    let Some(uplink) = &tables.uplink else {
        return;
    };
    let mut frame = [0; MAX_FRAME_LEN];
    let mut solicited = 0;
    let all = tables.next_hops.len();
    for step in 0..all {
        let at = (state.solicit_from + step) % all;
        if solicited == MAX_SOLICITATIONS {
            state.solicit_from = at;
            break;
        }
        let next_hop = &mut state.next_hops[at];
        if !next_hop.wants_solicitation(now_ns) {
            continue;
        }
        let len = match tables.next_hops[at] {
            IpAddr::V4(wanted) => uplink.ipv4.map(|own| {
                let to = next_hop.mac().unwrap_or(addr::BROADCAST_MAC);
                arp::request(&mut frame, to, (uplink.mac, own), wanted.to_bits())
            }),
            IpAddr::V6(wanted) => uplink
                .source_to(wanted.to_bits())
                .map(|own| nd::solicit(&mut frame, (uplink.mac, own), wanted.to_bits())),
        };
        let Some(len) = len else {
            continue;
        };
        solicited += 1;
        send(tables.uplink_id(), &frame[..len]);
    }
}

/// Asks every port that may hold a shared address for it, while none is known to: programs that
/// move addresses announce them once, and not again for a switch that has forgotten.
pub(crate) fn ask_for_holders(
    tables: &Tables,
    state: &mut State,
    now_ns: u64,
    send: &mut impl FnMut(PortId, &[u8]),
) {
    let mut frame = [0; MAX_FRAME_LEN];
    let mut asked = 0;
    let all = tables.shared.len();
    for step in 0..all {
        let at = (state.ask_from + step) % all;
        if asked >= MAX_SOLICITATIONS {
            state.ask_from = at;
            break;
        }
        if !state.holders[at].wants_asking(now_ns) {
            continue;
        }
        let shared = &tables.shared[at];
        for rules in shared.ports.iter().map(|id| tables.port(*id)) {
            let mac = rules.gateway_mac;
            let len = match (shared.address, tables.gateway4) {
                (IpAddr::V4(wanted), Some(own)) => {
                    let wanted = wanted.to_bits();
                    arp::request(&mut frame, addr::BROADCAST_MAC, (mac, own), wanted)
                }
                (IpAddr::V6(wanted), _) => {
                    let own = (mac, rules.gateway_link_local);
                    nd::solicit(&mut frame, own, wanted.to_bits())
                }
                (IpAddr::V4(_), None) => continue,
            };
            asked += 1;
            send(rules.id, &frame[..len]);
        }
    }
}

/// Asks stations whether they still have the addresses that they have claimed.
pub(crate) fn ask_claimants(
    tables: &Tables,
    state: &mut State,
    now_ns: u64,
    send: &mut impl FnMut(PortId, &[u8]),
) {
    let mut buffer = [0; Frame::HEADROOM + MAX_FRAME_LEN];
    let mut asked = 0;
    for rules in tables.ports.iter() {
        let PortState { bindings, tags, .. } = state.port(rules.id);
        let Some(bindings) = bindings.as_mut().filter(|it| !it.is_empty()) else {
            continue;
        };
        while asked < MAX_SOLICITATIONS
            && let Some(address) = bindings.next_question(now_ns)
        {
            asked += 1;
            let own = (rules.gateway_mac, rules.gateway_link_local);
            let len = nd::solicit(&mut buffer[Frame::HEADROOM..], own, address);
            let mut frame = Frame::new(&mut buffer, Frame::HEADROOM, len, None);
            let tagged = match tags.as_ref().and_then(|tags| tags.vid(address)) {
                Some(vid) => frame.insert_tag(vid),
                None => Some(()),
            };
            if tagged.is_some() {
                send(rules.id, frame.bytes());
            }
        }
    }
}

/// Obeys the orders of whoever negotiates SAs, and sends its IKE datagrams.
pub(crate) fn obey_ipsec(
    tables: &Tables,
    state: &mut State,
    now_ns: u64,
    send: &mut impl FnMut(PortId, &[u8]),
) -> bool {
    obey::obey(
        tables,
        state,
        now_ns,
        &mut |tunnel, state, vtep, datagram| {
            let mut frame = [0; MAX_FRAME_LEN + DATAGRAM_MAX];
            let ends = (datagram.from, datagram.to);
            let marker = datagram.from.port() != IKE_PORT;
            let next_hop = state.next_hop_mac(Some(tunnel.vtep(vtep).next_hop));
            let len = esp::write_datagram(&mut frame, ends, marker, datagram.bytes());
            let fits = |len: &usize| *len <= ETHERNET_LEN + usize::from(tunnel.mtu);
            // What is lost is sent again by whoever negotiates.
            let (Some(uplink), Some(next_hop), Some(len)) =
                (&tables.uplink, next_hop, len.filter(fits))
            else {
                return;
            };
            frame[..6].copy_from_slice(&next_hop);
            frame[6..12].copy_from_slice(&uplink.mac);
            send(tables.uplink_id(), &frame[..len]);
        },
    )
}

/// Sends what whoever serves metadata answers. Returns whether more waits.
pub(crate) fn send_metadata(
    tables: &Tables,
    state: &mut State,
    send: &mut impl FnMut(PortId, &[u8]),
) -> bool {
    let Some(channel) = state.metadata.take() else {
        return false;
    };
    for _ in 0..metadata::Channel::PACKETS {
        let took = channel.take_answer(|packet| {
            // The configuration may have changed meanwhile.
            let id = tables.port_of_mac(packet.station());
            if let Some(rules) = id.map(|id| tables.port(id)).filter(|rules| rules.metadata) {
                send_answer(rules, &mut state.ports, packet.bytes(), send);
            }
        });
        if !took {
            break;
        }
    }
    let more = channel.has_answers();
    state.metadata = Some(channel);
    more
}

/// Sends one packet of metadata to the VM of a port.
fn send_answer(
    rules: &PortRules,
    ports: &mut [PortState],
    packet: &[u8],
    send: &mut impl FnMut(PortId, &[u8]),
) {
    const MAX_LEN: usize = Frame::HEADROOM + ETHERNET_LEN + metadata::PACKET_MAX;
    let (kind, source, to) = match packet {
        [0x45, ..] if packet.len() >= ipv4::HEADER_LEN => {
            let [source, to] = [12, 16].map(|at| be32(packet, at));
            (ethertype::IPV4, source == addr::METADATA4, to.into())
        }
        [0x60..=0x6f, ..] if packet.len() >= ipv6::HEADER_LEN => {
            let [source, to] = [8, 24].map(|at| be128(packet, at));
            (ethertype::IPV6, source == addr::METADATA6, to)
        }
        _ => return,
    };
    if !source || packet.len() > usize::from(rules.mtu) {
        return;
    }
    let mut buffer = [0; MAX_LEN];
    let ip_at = Frame::HEADROOM + ETHERNET_LEN;
    buffer[Frame::HEADROOM..][..12].copy_from_slice(&rules.header);
    buffer[ip_at - 2..ip_at].copy_from_slice(&kind.to_be_bytes());
    let Some(room) = buffer.get_mut(ip_at..ip_at + packet.len()) else {
        return;
    };
    room.copy_from_slice(packet);
    let len = ETHERNET_LEN + packet.len();
    let mut frame = Frame::new(&mut buffer, Frame::HEADROOM, len, None);
    let tags = ports[rules.id.index()].tags.as_ref();
    let tagged = match tags.and_then(|tags| tags.vid(to)) {
        Some(vid) => frame.insert_tag(vid),
        None => Some(()),
    };
    if tagged.is_some() {
        send(rules.id, frame.bytes());
    }
}

/// Sends the Router Advertisements that are due: of all ports, and of those whose VMs have just
/// detected duplicates of their link-local addresses.
pub(crate) fn advertise(
    tables: &Tables,
    state: &mut State,
    now_ns: u64,
    send: &mut impl FnMut(PortId, &[u8]),
) {
    let all = now_ns >= state.next_advertisement_ns;
    if all {
        state.next_advertisement_ns = now_ns.saturating_add(ADVERTISEMENT_INTERVAL_NS);
    }
    let some = now_ns >= state.next_detected_ns;
    if some {
        state.next_detected_ns = u64::MAX;
    }
    if !all && !some {
        return;
    }
    let mut frame = [0; nd::MAX_ADVERTISEMENT_LEN];
    for rules in tables.ports.iter() {
        let due_ns = state.port(rules.id).bindings.as_deref_mut();
        let mut due_ns = due_ns.map(|bindings| &mut bindings.advertise_at_ns);
        let is_due = due_ns
            .as_mut()
            .is_some_and(|due_ns| due_ns.take_if(|due_ns| now_ns >= *due_ns).is_some());
        if let Some(due_ns) = due_ns.and_then(|due_ns| *due_ns) {
            state.next_detected_ns = state.next_detected_ns.min(due_ns);
        }
        if (all || is_due)
            && let Some(advertisement) = tables.advertisement(rules)
        {
            let len = advertisement.announce(&mut frame);
            send(rules.id, &frame[..len]);
        }
    }
}
