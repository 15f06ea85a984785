//! Out of the tunnel.

use packet::wire::ecn::Ecn;
use packet::wire::tunnel::Outer;
use packet::wire::{ETHERNET_LEN, Fragment, Ip, Packet, mac_at};
use packet::{DropReason, Frame, addr};

use super::{FromPeer, Outcome, Pass, Side};
use crate::filter::{self, Remote};
use crate::ids::{PeerId, VtepId};
use crate::stage::{Notes, Stage};
use crate::tables::{Target, Tunnel};

impl<'s, N: Notes> Pass<'s, N> {
    /// Opens a packet that came for the tunnel: `packet` is then what is inside, which comes from a
    /// peer. Any other packet stays as it is. `sealed_by` is the endpoint whose SA carried it.
    #[inline(always)]
    pub(crate) fn leave_tunnel(
        &mut self,
        side: Side<'s>,
        sealed_by: Option<VtepId>,
        frame: &mut Frame<'_>,
        packet: &mut Packet,
    ) -> Outcome<Side<'s>> {
        let (Side::Uplink(_), Some(tunnel)) = (side, &self.tables.tunnel) else {
            return Ok(side);
        };
        match Outer::of(&packet.ip) {
            Some(outer) if tunnel.carrier.takes(&outer) && self.is_to_uplink(&packet.ip) => {
                self.open((tunnel, sealed_by), &outer, frame, packet)
            }
            _ => Ok(side),
        }
    }

    /// Whether the destination is the switch's own address on the underlay.
    #[inline(always)]
    fn is_to_uplink(&self, ip: &Ip) -> bool {
        let target = match ip {
            Ip::V4(ip) => self.tables.route4(ip.destination),
            Ip::V6(ip) => self.tables.route6(ip.destination),
            Ip::Arp(_) | Ip::Rarp => None,
        };
        target == Some(Target::UplinkSelf)
    }

    /// Opens a tunnel packet, and filters what is inside.
    #[inline(always)]
    fn open(
        &mut self,
        (tunnel, sealed_by): (&'s Tunnel, Option<VtepId>),
        outer: &Outer,
        frame: &mut Frame<'_>,
        inner: &mut Packet,
    ) -> Outcome<Side<'s>> {
        if inner.group {
            return self.refuse(Stage::Tunnel, DropReason::DstMac);
        }
        if outer.fragment != Fragment::Whole {
            return self.refuse(Stage::Tunnel, DropReason::TunnelFragment);
        }
        let Some(vtep) = tunnel.vtep_at(outer.source) else {
            return self.refuse(Stage::Tunnel, DropReason::TunnelPeer);
        };
        if tunnel.vtep(vtep).protected && sealed_by != Some(vtep) {
            return self.refuse(Stage::Ipsec, DropReason::IpsecPlain);
        }
        let packet = &frame.bytes()[ETHERNET_LEN..];
        let ecn = Ecn::of(packet);
        let (begin, end) = match tunnel.carrier.open(outer, packet) {
            Ok(place) => place,
            Err(reason) => return self.refuse(Stage::Tunnel, reason),
        };
        frame.truncate(ETHERNET_LEN + end);
        frame.shrink_front(ETHERNET_LEN + begin);
        self.notes.note(
            Stage::Tunnel,
            format_args!("out of the tunnel: {} bytes", end - begin),
        );
        let received = frame.len();
        let from = Remote {
            tables: self.tables,
            tunnel,
            vtep,
            ecn,
        };
        let (id, ecn) = match filter::from_tunnel(&from, frame, inner) {
            Ok(accepted) => accepted,
            Err(reason) => return self.refuse(Stage::Filter, reason),
        };
        self.counters.peer(id).received(received, self.now_ns);
        self.note_peer(id, "from peer");
        self.note_mac(tunnel, id, (frame, inner));
        self.notes
            .note(Stage::Filter, format_args!("pass: {inner}"));
        Ok(Side::Peer(FromPeer { tunnel, id, ecn }))
    }

    /// Notes a MAC other than the peer's, if the frame has a source by which the peer was found.
    #[inline(always)]
    fn note_mac(&mut self, tunnel: &Tunnel, id: PeerId, (frame, inner): (&Frame<'_>, &Packet)) {
        let source = mac_at(frame.bytes(), 6);
        let by_source = match &inner.ip {
            Ip::V4(ip) => ip.source != 0,
            Ip::V6(ip) => ip.source != 0 && !addr::is_link_local6(ip.source),
            Ip::Arp(_) => true,
            Ip::Rarp => false,
        };
        if by_source && source != tunnel.peer(id).mac {
            self.counters.peer(id).other_mac.set(source, self.now_ns);
            self.notes.note(
                Stage::Tunnel,
                format_args!("from another MAC than the peer's"),
            );
        }
    }

    pub(super) fn note_peer(&mut self, id: PeerId, what: &str) {
        let name = &self.tables.peer_names[id.index()];
        self.notes
            .note(Stage::Tunnel, format_args!("{what} {name}"));
    }
}
