//! The headers of the next link.

use packet::wire::flow::Inner;
use packet::wire::{ETHERNET_LEN, Ipv4, Ipv6, Transport, ipv4, tcp};
use packet::{DropReason, Frame};

use super::{Egress, Outcome, Pass, Sent, Side};
use crate::peer_route::{self, PeerRoute};
use crate::stage::{Notes, Stage};
use crate::tables::{PortRules, UplinkRules};

/// A TCP segment in a packet.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    /// The offset of the TCP header from the start of the IP header.
    at: usize,
    /// Bytes of an IP header and a TCP header without options, together.
    headers: u16,
}

impl Segment {
    #[inline(always)]
    pub(super) fn of4(ip: &Ipv4) -> Option<Self> {
        (ip.transport == Transport::Tcp).then(|| Self {
            at: usize::from(ip.header_len),
            headers: 40,
        })
    }

    #[inline(always)]
    fn of6(ip: &Ipv6) -> Option<Self> {
        (ip.transport == Transport::Tcp).then(|| Self {
            at: usize::from(ip.upper_at),
            headers: 60,
        })
    }

    /// Lowers a SYN's segment size to what a packet of `max_len` bytes holds.
    pub(super) fn clamp(self, packet: &mut [u8], max_len: u16) {
        if let Some(segment) = packet.get_mut(self.at..) {
            tcp::clamp_segment_size(segment, max_len.saturating_sub(self.headers));
        }
    }
}

impl<N: Notes> Pass<'_, N> {
    /// Gives the packet the headers of the link that it leaves by.
    #[inline(always)]
    pub(crate) fn send4(
        &mut self,
        side: Side<'_>,
        ip: &Ipv4,
        egress: Egress<'_>,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let len = usize::from(ip.total_len);
        match egress {
            Egress::Port(to) => {
                self.finish_inner(side, Segment::of4(ip), frame);
                self.rewrite_to_port(frame, len, to, Some(u128::from(ip.destination)))
            }
            Egress::Holder(to, mac) => {
                self.finish_inner(side, Segment::of4(ip), frame);
                let destination = u128::from(ip.destination);
                self.rewrite_to_holder(frame, len, (to, mac), destination)
            }
            Egress::Uplink(uplink, next_hop) => {
                ipv4::decrement_ttl(frame.bytes_mut(), ip.ttl);
                self.rewrite_to_uplink(frame, len, uplink, next_hop)
            }
            Egress::Peer(route) => {
                let inner = Inner::of4(ip, &frame.bytes()[ETHERNET_LEN..]);
                self.send_to_peer(frame, len, route, inner, Segment::of4(ip))
            }
            Egress::Fragments => {
                frame.truncate(ETHERNET_LEN + len);
                Ok(Sent::Copies)
            }
        }
    }

    /// As [`Self::send4`].
    #[inline(always)]
    pub(crate) fn send6(
        &mut self,
        side: Side<'_>,
        ip: &Ipv6,
        egress: Egress<'_>,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let len = ip.total_len;
        match egress {
            Egress::Port(to) => {
                self.finish_inner(side, Segment::of6(ip), frame);
                self.rewrite_to_port(frame, len, to, Some(ip.destination))
            }
            Egress::Holder(to, mac) => {
                self.finish_inner(side, Segment::of6(ip), frame);
                self.rewrite_to_holder(frame, len, (to, mac), ip.destination)
            }
            Egress::Uplink(uplink, next_hop) => {
                frame.bytes_mut()[ETHERNET_LEN + 7] = ip.hop_limit - 1;
                self.rewrite_to_uplink(frame, len, uplink, next_hop)
            }
            Egress::Peer(route) => {
                let inner = Inner::of6(ip, &frame.bytes()[ETHERNET_LEN..]);
                self.send_to_peer(frame, len, route, inner, Segment::of6(ip))
            }
            // IPv6 packets are fragmented by their senders only.
            Egress::Fragments => self.refuse(Stage::Rewrite, DropReason::Mtu),
        }
    }

    /// Gives the frame the headers of the port's link, to the MAC by which its VM holds a shared
    /// address.
    fn rewrite_to_holder(
        &mut self,
        frame: &mut Frame<'_>,
        ip_len: usize,
        (to, mac): (&PortRules, [u8; 6]),
        destination: u128,
    ) -> Outcome {
        let sent = self.rewrite_to_port(frame, ip_len, to, Some(destination))?;
        if let Some(to) = frame.bytes_mut().first_chunk_mut::<6>() {
            *to = mac;
        }
        Ok(sent)
    }

    /// Gives the frame the headers of the port's link. `destination` finds the tag on a trunk.
    #[inline(always)]
    pub(crate) fn rewrite_to_port(
        &mut self,
        frame: &mut Frame<'_>,
        ip_len: usize,
        to: &PortRules,
        destination: Option<u128>,
    ) -> Outcome {
        frame.truncate(ETHERNET_LEN + ip_len);
        if let Some(macs) = frame.bytes_mut().first_chunk_mut::<12>() {
            *macs = to.header;
        }
        if !to.trunk.is_empty()
            && let (Some(tags), Some(destination)) = (&self.state.port(to.id).tags, destination)
            && let Some(vid) = tags.vid(destination)
            && frame.insert_tag(vid).is_none()
        {
            return self.refuse(Stage::Rewrite, DropReason::NoBuffer);
        }
        self.notes.note(
            Stage::Rewrite,
            format_args!("from the port's Gw MAC to its VM's"),
        );
        Ok(Sent::To(to.id))
    }

    #[inline(always)]
    fn rewrite_to_uplink(
        &mut self,
        frame: &mut Frame<'_>,
        ip_len: usize,
        uplink: &UplinkRules,
        next_hop: [u8; 6],
    ) -> Outcome {
        frame.truncate(ETHERNET_LEN + ip_len);
        frame.set_macs(next_hop, uplink.mac);
        self.notes.note(
            Stage::Rewrite,
            format_args!("from the In/Out MAC to the next hop's"),
        );
        Ok(Sent::To(self.tables.uplink_id()))
    }

    /// Puts the packet into the tunnel.
    #[inline(always)]
    fn send_to_peer(
        &mut self,
        frame: &mut Frame<'_>,
        ip_len: usize,
        route: PeerRoute<'_>,
        inner: Inner,
        segment: Option<Segment>,
    ) -> Outcome {
        frame.truncate(ETHERNET_LEN + ip_len);
        route.set_macs(frame);
        if let (true, Some(segment)) = (route.clamps_segments(), segment) {
            segment.clamp(&mut frame.bytes_mut()[ETHERNET_LEN..], route.max_len);
        }
        let parts = (self.counters, &mut *self.state);
        if route.seal(parts, inner, frame, self.now_ns, None).is_none() {
            return self.refuse(Stage::Tunnel, DropReason::NoBuffer);
        }
        let sent = (&inner, ip_len);
        peer_route::remember(route.tunnel, self.state, route.peer, sent, self.now_ns);
        self.note_peer(route.peer, "into the tunnel to peer");
        self.note_sealed(&route);
        Ok(Sent::To(self.tables.uplink_id()))
    }

    /// Applies what the tunnel changes in a packet that came out of it: ECN, and a SYN's segment
    /// size.
    #[inline(always)]
    pub(super) fn finish_inner(
        &mut self,
        side: Side<'_>,
        segment: Option<Segment>,
        frame: &mut Frame<'_>,
    ) {
        let Side::Peer(from) = side else {
            return;
        };
        let packet = &mut frame.bytes_mut()[ETHERNET_LEN..];
        if let Some(ecn) = from.ecn {
            ecn.write(packet);
        }
        if let (true, Some(segment)) = (from.tunnel.mss_clamp, segment) {
            let vtep = from.tunnel.peer(from.id).vtep;
            segment.clamp(packet, self.state.paths[vtep.index()].max_len());
        }
    }
}
