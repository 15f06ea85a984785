//! IPv4 packets without DF that are larger than the next link carries leave in fragments, where the
//! tenant's file says so. The rows are those of "Fragmentation" of
//! `docs/reference/spoof-filter.md`.

use packet::wire::flow::Inner;
use packet::wire::fragmentation::Cut;
use packet::wire::icmp::IcmpError;
use packet::wire::{ETHERNET_LEN, Ipv4, ipv4};
use packet::{DropReason, Frame};

use super::report::Refused;
use super::rewrite::Segment;
use super::{Egress, Outcome, Pass, Side};
use crate::ids::PortId;
use crate::peer_route::{self, PeerRoute, Unfit};
use crate::stage::{Notes, Stage};
use crate::state::{Copied, Fragments};
use crate::tables::Target;

/// Packets a second of one port that are fragmented.
const PACKETS_PER_SECOND: u64 = 1_000;

impl<'s, N: Notes> Pass<'s, N> {
    /// Cuts a port's packet that is refused as too large. `None` if that is not allowed, or it is
    /// refused for another reason.
    #[cold]
    pub(super) fn fragment(
        &mut self,
        side: Side<'s>,
        target: Option<Target>,
        ip: &Ipv4,
        refused: &Refused,
        frame: &mut Frame<'_>,
    ) -> Option<Outcome<Egress<'s>>> {
        let uplink = self.tables.uplink.as_ref().filter(|it| it.fragment)?;
        let (Side::Port(rules), Some(IcmpError::TooBig { mtu })) = (side, refused.error) else {
            return None;
        };
        let peer = match target? {
            Target::Uplink => None,
            Target::Peer(id) => Some(id),
            _ => return None,
        };
        let cut = Cut::new(ip, frame.bytes().get(ETHERNET_LEN..)?, mtu)?;
        let port = self.state.port(rules.id);
        if !port.fragmented.take(self.now_ns, PACKETS_PER_SECOND, 1) {
            return Some(self.refuse(Stage::Route, DropReason::FragmentRate));
        }
        let unfit = match (peer, &self.tables.tunnel) {
            (Some(id), Some(tunnel)) => {
                let len = usize::from(mtu);
                match PeerRoute::new(tunnel, self.state, id, len, self.now_ns) {
                    Ok(_) => None,
                    Err(Unfit::Reason(reason)) => Some(reason),
                    Err(Unfit::TooBig(_)) => Some(DropReason::Mtu),
                    Err(Unfit::NoSa(vtep)) => {
                        self.acquire(tunnel, vtep);
                        Some(DropReason::IpsecNoSa)
                    }
                }
            }
            _ => match self.state.next_hop_mac(uplink.next_hop4) {
                Some(_) => None,
                None => Some(DropReason::NeighbourUnresolved),
            },
        };
        if let Some(reason) = unfit {
            return Some(self.refuse(Stage::Route, reason));
        }
        let clamps = self.tables.tunnel.as_ref().is_some_and(|it| it.mss_clamp);
        if let (Some(_), true, Some(segment)) = (peer, clamps, Segment::of4(ip)) {
            segment.clamp(&mut frame.bytes_mut()[ETHERNET_LEN..], mtu);
        }
        let copies = &mut self.state.copies;
        copies.begin(Copied {
            group: None,
            len: usize::from(ip.total_len),
            inner: None,
        });
        copies.fragments = Some(Fragments { cut, peer, next: 0 });
        let count = cut.count();
        self.notes.note(
            Stage::Route,
            format_args!("in {count} fragments of at most {mtu} bytes"),
        );
        Some(Ok(Egress::Fragments))
    }

    /// Makes a frame with the whole packet one with that fragment, with the headers of the next
    /// link. Returns the port that it leaves by; `None` if there is no room, or no way any more.
    #[cold]
    pub(super) fn finish_fragment(&mut self, number: u16, frame: &mut Frame<'_>) -> Option<PortId> {
        let Fragments { cut, peer, .. } = self.state.copies.fragments?;
        cut.apply(number, frame)?;
        let Some(peer) = peer else {
            let uplink = self.tables.uplink.as_ref()?;
            let next_hop = self.state.next_hop_mac(uplink.next_hop4)?;
            let ttl = *frame.bytes().get(ETHERNET_LEN + 8)?;
            ipv4::decrement_ttl(frame.bytes_mut(), ttl);
            frame.set_macs(next_hop, uplink.mac);
            return Some(self.tables.uplink_id());
        };
        let tunnel = self.tables.tunnel.as_ref()?;
        let len = frame.len() - ETHERNET_LEN;
        let route = PeerRoute::new(tunnel, self.state, peer, len, self.now_ns).ok()?;
        route.set_macs(frame);
        let inner = Inner::of_frame(frame);
        let parts = (self.counters, &mut *self.state);
        route.seal(parts, inner, frame, self.now_ns, None)?;
        peer_route::remember(tunnel, self.state, peer, (&inner, len), self.now_ns);
        self.note_peer(peer, "into the tunnel to peer");
        self.note_sealed(&route);
        Some(self.tables.uplink_id())
    }
}
