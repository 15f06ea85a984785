//! The route: where a packet leaves, and everything that may refuse it there.

use packet::wire::icmp::IcmpError;
use packet::wire::{ETHERNET_LEN, Ip, Ipv4, Ipv6, Packet};
use packet::{DropReason, Frame, addr};

use super::report::Refused;
use super::{Egress, Outcome, Pass, Side};
use crate::ids::{NextHopId, PeerId, PortId, SharedId};
use crate::peer_route::{PeerRoute, Unfit};
use crate::stage::{Notes, Stage};
use crate::state::State;
use crate::tables::{Tables, Target, UplinkRules};

/// Where packets from a side to a target go.
enum Hop {
    Port(PortId),
    /// To that MAC there.
    Holder(PortId, [u8; 6]),
    Uplink,
    Peer(PeerId),
}

/// What the checks of a hop need to know of a packet.
struct Bound {
    /// Whether the source is link-local.
    link_local: bool,
    /// The TTL or hop limit.
    hops: u8,
    len: usize,
    udp: Option<(u16, u16)>,
}

impl<'s, N: Notes> Pass<'s, N> {
    /// The first row of "Services and route": what is larger than its own link carries, in a frame
    /// that came with so many bytes.
    #[inline(always)]
    pub(crate) fn fit(
        &mut self,
        side: Side<'s>,
        packet: &Packet,
        received: usize,
        frame: &mut Frame<'_>,
    ) -> Outcome<()> {
        match side {
            Side::Port(rules) if received > usize::from(rules.mtu) + ETHERNET_LEN => {
                self.refuse_larger(side, packet, rules.mtu, frame)
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn refuse_larger(
        &mut self,
        side: Side<'s>,
        packet: &Packet,
        mtu: u16,
        frame: &mut Frame<'_>,
    ) -> Outcome<()> {
        let refused = Refused::with(DropReason::Mtu, IcmpError::TooBig { mtu });
        match &packet.ip {
            Ip::V4(ip) if ip.total_len > mtu => {
                self.report4(Stage::Route, (side, packet, ip), frame, refused)
            }
            Ip::V6(ip) if ip.total_len > usize::from(mtu) => {
                self.report6(Stage::Route, (side, packet, ip), frame, refused)
            }
            // A tag, or padding.
            _ => Ok(()),
        }
    }

    /// Where the packet leaves.
    #[inline(always)]
    pub(crate) fn route4(
        &mut self,
        (side, packet, ip): (Side<'s>, &Packet, &Ipv4),
        target: Option<Target>,
        frame: &mut Frame<'_>,
    ) -> Outcome<Egress<'s>> {
        if let Some(reason) = unroutable4(packet, ip, target) {
            return self.refuse(Stage::Route, reason);
        }
        let bound = Bound {
            link_local: addr::is_link_local4(ip.source),
            hops: ip.ttl,
            len: usize::from(ip.total_len),
            udp: ip.udp(),
        };
        let next_hop = |uplink: &UplinkRules| uplink.next_hop4;
        match self.egress(side, target, &bound, next_hop) {
            Ok(egress) => Ok(egress),
            Err(refused) => match self.fragment(side, target, ip, &refused, frame) {
                Some(outcome) => outcome,
                None => self.report4(Stage::Route, (side, packet, ip), frame, refused),
            },
        }
    }

    /// As [`Self::route4`].
    #[inline(always)]
    pub(crate) fn route6(
        &mut self,
        (side, packet, ip): (Side<'s>, &Packet, &Ipv6),
        target: Option<Target>,
        frame: &mut Frame<'_>,
    ) -> Outcome<Egress<'s>> {
        if let Some(reason) = unroutable6(packet, ip) {
            return self.refuse(Stage::Route, reason);
        }
        if matches!((side, target), (Side::Port(_), Some(Target::Uplink)))
            && self.tables.stands_for_closed4(ip.destination)
        {
            return self.refuse(Stage::Route, DropReason::EmbeddedAddress);
        }
        let bound = Bound {
            link_local: addr::is_link_local6(ip.source),
            hops: ip.hop_limit,
            len: ip.total_len,
            udp: ip.udp(),
        };
        let next_hop = |uplink: &UplinkRules| uplink.next_hop6;
        match self.egress(side, target, &bound, next_hop) {
            Ok(egress) => Ok(egress),
            Err(refused) => self.report6(Stage::Route, (side, packet, ip), frame, refused),
        }
    }

    /// Rows 6 to 9 of the route, and those of "Into the tunnel".
    #[inline(always)]
    fn egress(
        &mut self,
        side: Side<'s>,
        target: Option<Target>,
        bound: &Bound,
        next_hop: impl Fn(&UplinkRules) -> Option<NextHopId>,
    ) -> Result<Egress<'s>, Refused> {
        let tables = self.tables;
        let too_big = |mtu: u16| Refused::with(DropReason::Mtu, IcmpError::TooBig { mtu });
        let hop = hop(tables, self.state, side, target)?;
        if bound.link_local {
            return Err(Refused::silently(DropReason::LinkLocalIp));
        }
        match hop {
            Hop::Port(id) => {
                let to = tables.port(id);
                if bound.len > usize::from(to.mtu) {
                    return Err(too_big(to.mtu));
                }
                let name = &tables.names[id.index()];
                self.notes
                    .note(Stage::Route, format_args!("to port {name}"));
                Ok(Egress::Port(to))
            }
            Hop::Holder(id, mac) => {
                let to = tables.port(id);
                if bound.len > usize::from(to.mtu) {
                    return Err(too_big(to.mtu));
                }
                let name = &tables.names[id.index()];
                self.notes.note(
                    Stage::Route,
                    format_args!("to port {name}, which holds the shared address"),
                );
                Ok(Egress::Holder(to, mac))
            }
            Hop::Uplink => {
                let Some(uplink) = &tables.uplink else {
                    return Err(Refused::silently(DropReason::RouteNone));
                };
                if bound.hops <= 1 {
                    return Err(Refused::with(DropReason::Ttl, IcmpError::TimeExceeded));
                }
                if bound.len > usize::from(uplink.mtu) {
                    return Err(too_big(uplink.mtu));
                }
                let mac = self.state.next_hop_mac(next_hop(uplink));
                let mac = mac.ok_or(Refused::silently(DropReason::NeighbourUnresolved))?;
                self.notes
                    .note(Stage::Route, format_args!("to the uplink's next hop"));
                Ok(Egress::Uplink(uplink, mac))
            }
            Hop::Peer(id) => {
                let Some(tunnel) = &tables.tunnel else {
                    return Err(Refused::silently(DropReason::RouteNone));
                };
                if tunnel.refuses(bound.udp) {
                    return Err(Refused::with(
                        DropReason::TunnelNested,
                        IcmpError::Prohibited,
                    ));
                }
                match PeerRoute::new(tunnel, self.state, id, bound.len, self.now_ns) {
                    Ok(route) => Ok(Egress::Peer(route)),
                    Err(Unfit::Reason(reason)) => Err(Refused::silently(reason)),
                    Err(Unfit::TooBig(mtu)) => Err(too_big(mtu)),
                    Err(Unfit::NoSa(vtep)) => {
                        self.acquire(tunnel, vtep);
                        Err(Refused::silently(DropReason::IpsecNoSa))
                    }
                }
            }
        }
    }
}

/// Row 6 of the route, and row 8 of "From the uplink".
#[inline(always)]
fn hop(
    tables: &Tables,
    state: &State,
    side: Side<'_>,
    target: Option<Target>,
) -> Result<Hop, Refused> {
    use DropReason::{NoTransit, RouteNone, TunnelOnly, Underlay};
    match (side, target) {
        (Side::Port(rules), Some(Target::Port(id))) if id != rules.id => Ok(Hop::Port(id)),
        (Side::Port(_), Some(Target::Uplink)) => Ok(Hop::Uplink),
        (Side::Port(_), Some(Target::Peer(id))) => Ok(Hop::Peer(id)),
        (Side::Port(_), Some(Target::Underlay | Target::UplinkSelf | Target::UnderlayEdge)) => {
            Err(Refused::silently(Underlay))
        }
        (Side::Port(_), Some(Target::Shared(shared))) => to_holder(state, side, shared),
        (Side::Port(_), Some(_)) => Err(Refused::with(RouteNone, IcmpError::HostUnreachable)),
        (Side::Port(_), None) => Err(Refused::with(RouteNone, IcmpError::NoRoute)),
        (Side::Uplink(_), Some(Target::Port(_) | Target::Shared(_)))
            if tables.takes_only_tunnel() =>
        {
            Err(Refused::silently(TunnelOnly))
        }
        (_, Some(Target::Shared(shared))) => to_holder(state, side, shared),
        (Side::Uplink(_) | Side::Peer(_), Some(Target::Port(id))) => Ok(Hop::Port(id)),
        (
            Side::Uplink(_) | Side::Peer(_),
            Some(
                Target::Uplink
                | Target::Underlay
                | Target::UplinkSelf
                | Target::UnderlayEdge
                | Target::Peer(_),
            ),
        ) => Err(Refused::silently(NoTransit)),
        (Side::Uplink(_) | Side::Peer(_), _) => Err(Refused::silently(RouteNone)),
    }
}

/// To the port that holds a shared address.
#[cold]
fn to_holder(state: &State, side: Side<'_>, shared: SharedId) -> Result<Hop, Refused> {
    match (side, state.holders[shared.index()].held()) {
        (_, None) => Err(Refused::silently(DropReason::HolderUnknown)),
        (Side::Port(rules), Some((port, _))) if port == rules.id => Err(Refused::with(
            DropReason::RouteNone,
            IcmpError::HostUnreachable,
        )),
        (_, Some((port, mac))) => Ok(Hop::Holder(port, mac)),
    }
}

/// Rows 3 to 5 of the route: destinations that are never routed.
#[inline(always)]
fn unroutable4(packet: &Packet, ip: &Ipv4, target: Option<Target>) -> Option<DropReason> {
    if addr::is_multicast_or_reserved4(ip.destination) || target == Some(Target::Broadcast) {
        Some(DropReason::Multicast)
    } else if addr::is_link_local4(ip.destination) {
        Some(DropReason::LinkLocalIp)
    } else if packet.group {
        Some(DropReason::DstMac)
    } else {
        None
    }
}

/// As [`unroutable4`].
#[inline(always)]
fn unroutable6(packet: &Packet, ip: &Ipv6) -> Option<DropReason> {
    if addr::is_multicast6(ip.destination) {
        Some(DropReason::Multicast)
    } else if addr::is_link_local6(ip.destination) {
        Some(DropReason::LinkLocalIp)
    } else if addr::is_embedded4(ip.destination) {
        Some(DropReason::RouteNone)
    } else if packet.group {
        Some(DropReason::DstMac)
    } else {
        None
    }
}
