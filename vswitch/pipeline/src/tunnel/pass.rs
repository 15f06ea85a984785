//! A frame's way into the tunnel, and out of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::Icmpv6Packet;

use super::header::{self, Inner};
use super::{Ecn, Tunnel, Unfit, clamp_mss};
use crate::answer;
use crate::filter;
use crate::pass::{Describe, Hop, Outcome, Pass, Sent, unroutable4, unroutable6};
use crate::tables::{PortRules, Target};
use crate::wire::{
    self, Arp, ETHERNET_LEN, Fragment, Ip, Ipv4, Ipv6, Packet, Transport, be16, be32, be128,
    protocol,
};
use crate::{Notes, Stage, nd};
use packet::DropReason;
use packet::Frame;

/// The outer headers of a packet that came for the tunnel, as far as decisions need them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outer {
    source: IpAddr,
    fragment: Fragment,
    /// Where UDP begins, and where the packet ends, from the IP header on.
    udp_at: usize,
    len: usize,
}

impl From<&Ipv4> for Outer {
    fn from(ip: &Ipv4) -> Self {
        Self {
            source: Ipv4Addr::from_bits(ip.source).into(),
            fragment: ip.fragment,
            udp_at: usize::from(ip.header_len),
            len: usize::from(ip.total_len),
        }
    }
}

impl From<&Ipv6> for Outer {
    fn from(ip: &Ipv6) -> Self {
        Self {
            source: Ipv6Addr::from_bits(ip.source).into(),
            fragment: ip.fragment,
            udp_at: usize::from(ip.upper_at),
            len: ip.total_len,
        }
    }
}

/// A packet that is to go into the tunnel.
struct Bound {
    link_local: bool,
    udp: Option<(u16, u16)>,
    len: usize,
    /// Where TCP begins, from the IP header on, if the packet has it, and how much smaller a segment is than its
    /// packet.
    tcp: Option<(usize, u16)>,
    inner: Inner,
}

/// Sizes of an IP header and of a TCP header without options, together.
const TCP_HEADERS_IPV4: u16 = 40;
const TCP_HEADERS_IPV6: u16 = 60;

fn tcp4(ip: &Ipv4) -> Option<(usize, u16)> {
    (ip.transport == Transport::Tcp).then(|| (usize::from(ip.header_len), TCP_HEADERS_IPV4))
}

fn tcp6(ip: &Ipv6) -> Option<(usize, u16)> {
    (ip.transport == Transport::Tcp).then(|| (usize::from(ip.upper_at), TCP_HEADERS_IPV6))
}

/// Lowers a SYN's segment size, where there is one, to what a packet of `longest` bytes holds.
fn clamp(packet: &mut [u8], tcp: Option<(usize, u16)>, longest: u16) {
    if let Some((at, headers)) = tcp
        && let Some(segment) = packet.get_mut(at..)
    {
        clamp_mss(segment, longest.saturating_sub(headers));
    }
}

impl<N: Notes> Pass<'_, N> {
    /// Sends a port's packet to what is behind a peer. `Err`: nothing was done to the frame.
    #[inline(always)]
    fn encapsulate(
        &mut self,
        id: u16,
        bound: &Bound,
        frame: &mut Frame<'_>,
    ) -> Result<Outcome, Unfit> {
        let Some(tunnel) = &self.tables.tunnel else {
            return Err(Unfit::Reason(DropReason::RouteNone));
        };
        if bound.link_local {
            return Err(Unfit::Reason(DropReason::LinkLocalIp));
        }
        if tunnel.refuses(bound.udp) {
            return Err(Unfit::Reason(DropReason::TunnelNested));
        }
        let way = tunnel.way_to(self.state, id, bound.len)?;
        frame.truncate(ETHERNET_LEN + bound.len);
        way.address(frame);
        if tunnel.mss_clamp {
            clamp(
                &mut frame.bytes_mut()[ETHERNET_LEN..],
                bound.tcp,
                way.longest,
            );
        }
        if way.send(self.counters, bound.inner, frame).is_none() {
            return Ok(self.refuse(Stage::Tunnel, DropReason::NoBuffer));
        }
        self.note_peer(id, "into the tunnel to peer");
        Ok(Ok(Sent::To(self.tables.uplink_id())))
    }

    fn note_peer(&mut self, id: u16, what: &str) {
        let name = &self.tables.peer_names[usize::from(id)];
        self.notes
            .note(Stage::Tunnel, format_args!("{what} {name}"));
    }

    #[inline(always)]
    pub(crate) fn encapsulate4(
        &mut self,
        rules: &PortRules,
        packet: &Packet,
        ip: &Ipv4,
        frame: &mut Frame<'_>,
        id: u16,
    ) -> Outcome {
        let bound = Bound {
            link_local: filter::is_link_local4(ip.source),
            udp: ip.udp(),
            len: usize::from(ip.total_len),
            tcp: tcp4(ip),
            inner: Inner::of4(ip, &frame.bytes()[ETHERNET_LEN..]),
        };
        match self.encapsulate(id, &bound, frame) {
            Ok(outcome) => outcome,
            Err(Unfit::Reason(reason)) => self.refuse(Stage::Route, reason),
            Err(Unfit::TooBig(mtu)) => {
                let error = answer::IcmpError::TooBig { mtu };
                self.report4_to(Some(rules), packet, ip, frame, DropReason::Mtu, error)
            }
        }
    }

    #[inline(always)]
    pub(crate) fn encapsulate6(
        &mut self,
        rules: &PortRules,
        packet: &Packet,
        ip: &Ipv6,
        frame: &mut Frame<'_>,
        id: u16,
    ) -> Outcome {
        let bound = Bound {
            link_local: filter::is_link_local6(ip.source),
            udp: ip.udp(),
            len: ip.total_len,
            tcp: tcp6(ip),
            inner: Inner::of6(ip, &frame.bytes()[ETHERNET_LEN..]),
        };
        match self.encapsulate(id, &bound, frame) {
            Ok(outcome) => outcome,
            Err(Unfit::Reason(reason)) => self.refuse(Stage::Route, reason),
            Err(Unfit::TooBig(mtu)) => {
                let error = Some(answer::IcmpError::TooBig { mtu });
                let reason = DropReason::Mtu;
                self.report6(Stage::Route, rules, packet, ip, frame, reason, error)
            }
        }
    }

    /// What came for our endpoint and the tunnel's port.
    #[inline(always)]
    pub(crate) fn decapsulate(
        &mut self,
        tunnel: &Tunnel,
        outer: Outer,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        if outer.fragment != Fragment::Whole {
            return self.refuse(Stage::Tunnel, DropReason::TunnelFragment);
        }
        let Some(vtep) = tunnel.vtep_at(outer.source) else {
            return self.refuse(Stage::Tunnel, DropReason::TunnelPeer);
        };
        let packet = &frame.bytes()[ETHERNET_LEN..];
        let marked = Ecn::of(packet);
        let opened = match packet.get(..outer.len) {
            Some(packet) => tunnel.open(packet, outer.udp_at),
            None => Err(DropReason::TunnelTruncated),
        };
        let (begin, end) = match opened {
            Ok(inner) => inner,
            Err(reason) => return self.refuse(Stage::Tunnel, reason),
        };
        frame.truncate(ETHERNET_LEN + end);
        frame.shrink_front(ETHERNET_LEN + begin);
        self.notes.note(
            Stage::Tunnel,
            format_args!("out of the tunnel: {} bytes", end - begin),
        );
        let arrived = frame.len();
        let from = filter::Remote {
            tables: self.tables,
            tunnel,
            vtep,
            marked,
        };
        let (packet, id, ecn) = match filter::from_tunnel(&from, frame) {
            Ok(passed) => passed,
            Err(reason) => return self.refuse(Stage::Filter, reason),
        };
        let counters = self.counters.peer(usize::from(id));
        counters.received(arrived, self.now_ns);
        self.note_peer(id, "from peer");
        self.notes
            .note(Stage::Filter, format_args!("pass: {}", Describe(&packet)));
        match packet.ip {
            Ip::V4(ip) => self.ipv4_from_tunnel(tunnel, id, ecn, &packet, &ip, frame),
            Ip::V6(ip) => self.ipv6_from_tunnel(tunnel, id, ecn, &packet, &ip, frame),
            Ip::Arp(arp) => self.arp_from_tunnel(tunnel, id, &arp, frame),
            Ip::Rarp => self.refuse(Stage::Service, DropReason::Absorbed),
        }
    }

    /// The frame has become an answer, from our side's MAC to the asker's: sends it to where the question came
    /// from.
    fn answer_through_tunnel(
        &mut self,
        tunnel: &Tunnel,
        id: u16,
        built: Option<()>,
        inner: Inner,
        frame: &mut Frame<'_>,
        what: &str,
    ) -> Outcome {
        if built.is_none() {
            return self.refuse(Stage::Service, DropReason::NoBuffer);
        }
        let way = match tunnel.way_to(self.state, id, frame.len() - ETHERNET_LEN) {
            Ok(way) => way,
            Err(Unfit::Reason(reason)) => return self.refuse(Stage::Tunnel, reason),
            Err(Unfit::TooBig(_)) => return self.refuse(Stage::Tunnel, DropReason::Mtu),
        };
        if way.send(self.counters, inner, frame).is_none() {
            return self.refuse(Stage::Tunnel, DropReason::NoBuffer);
        }
        self.notes
            .note(Stage::Service, format_args!("reply: {what}"));
        self.note_peer(id, "into the tunnel to peer");
        Ok(Sent::Back)
    }

    fn arp_from_tunnel(
        &mut self,
        tunnel: &Tunnel,
        id: u16,
        arp: &Arp,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        if !arp.request || arp.sender_ip == arp.target_ip {
            return self.refuse(Stage::Service, DropReason::Absorbed);
        }
        match self.state.route4(self.tables, arp.target_ip, self.now_ns) {
            Some(Target::Gateway | Target::Port(_)) => {
                let built = answer::arp_reply(frame, tunnel.mac, arp);
                self.answer_through_tunnel(tunnel, id, built, Inner::ARP, frame, "ARP")
            }
            _ => self.refuse(Stage::Service, DropReason::ArpUnknown),
        }
    }

    #[inline(always)]
    fn ipv4_from_tunnel(
        &mut self,
        tunnel: &Tunnel,
        id: u16,
        ecn: Option<Ecn>,
        packet: &Packet,
        ip: &Ipv4,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let target = self.state.route4(self.tables, ip.destination, self.now_ns);
        if target == Some(Target::Gateway) {
            if answer::is_echo_request4(ip) {
                let built = answer::echo_reply4(frame, tunnel.mac, ip);
                let inner = Inner::of_reply(frame);
                return self.answer_through_tunnel(tunnel, id, built, inner, frame, "ICMP echo");
            }
            return self.refuse(Stage::Service, DropReason::GatewayService);
        }
        if let Some(reason) = unroutable4(packet, ip, target) {
            return self.refuse(Stage::Route, reason);
        }
        match target {
            Some(Target::Port(port)) => {
                self.mark_and_clamp(tunnel, id, ecn, tcp4(ip), frame);
                self.forward4(None, packet, ip, frame, Hop::Port(port))
            }
            Some(Target::Uplink | Target::Underlay | Target::UplinkSelf | Target::Peer(_)) => {
                self.refuse(Stage::Route, DropReason::NoTransit)
            }
            _ => self.refuse(Stage::Route, DropReason::RouteNone),
        }
    }

    #[inline(always)]
    fn ipv6_from_tunnel(
        &mut self,
        tunnel: &Tunnel,
        id: u16,
        ecn: Option<Ecn>,
        packet: &Packet,
        ip: &Ipv6,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        if let Some(kind) = ip.icmp_type()
            && nd::is_for_gateway(kind)
        {
            return self.nd_from_tunnel(tunnel, id, ip, kind, frame);
        }
        let target = self.tables.route6(ip.destination);
        if target == Some(Target::Gateway) {
            if answer::is_echo_request6(ip) {
                let built = answer::echo_reply6(frame, tunnel.mac, ip);
                let inner = Inner::of_reply(frame);
                return self.answer_through_tunnel(tunnel, id, built, inner, frame, "ICMPv6 echo");
            }
            return self.refuse(Stage::Service, DropReason::GatewayService);
        }
        if let Some(reason) = unroutable6(packet, ip) {
            return self.refuse(Stage::Route, reason);
        }
        match target {
            Some(Target::Port(port)) => {
                self.mark_and_clamp(tunnel, id, ecn, tcp6(ip), frame);
                self.forward6(None, packet, ip, frame, Hop::Port(port))
            }
            Some(Target::Uplink | Target::Underlay | Target::UplinkSelf | Target::Peer(_)) => {
                self.refuse(Stage::Route, DropReason::NoTransit)
            }
            _ => self.refuse(Stage::Route, DropReason::RouteNone),
        }
    }

    /// What the way through the tunnel does to a packet for a port.
    #[inline(always)]
    fn mark_and_clamp(
        &mut self,
        tunnel: &Tunnel,
        id: u16,
        ecn: Option<Ecn>,
        tcp: Option<(usize, u16)>,
        frame: &mut Frame<'_>,
    ) {
        let packet = &mut frame.bytes_mut()[ETHERNET_LEN..];
        if let Some(ecn) = ecn {
            ecn.write(packet);
        }
        if tunnel.mss_clamp {
            let vtep = tunnel.peers[usize::from(id)].vtep;
            clamp(packet, tcp, self.state.vteps[usize::from(vtep)].longest());
        }
    }

    fn nd_from_tunnel(
        &mut self,
        tunnel: &Tunnel,
        id: u16,
        ip: &Ipv6,
        kind: u8,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let packet = frame.bytes().get(ETHERNET_LEN..).unwrap_or_default();
        match (kind, nd::target(ip, packet)) {
            (nd::NEIGHBOR_SOLICITATION, Some(wanted)) if ip.source != 0 => {
                let is_gateway = match self.tables.route6(wanted) {
                    Some(Target::Gateway) => true,
                    Some(Target::Port(_)) => false,
                    _ => return self.refuse(Stage::Service, DropReason::NdUnknown),
                };
                let mac = tunnel.mac;
                let built = answer::neighbor_advertisement(frame, mac, ip, wanted, is_gateway);
                let (inner, what) = (Inner::of_reply(frame), "Neighbor Advertisement");
                self.answer_through_tunnel(tunnel, id, built, inner, frame, what)
            }
            _ => self.refuse(Stage::Service, DropReason::Absorbed),
        }
    }

    /// A router of the underlay says that it carries no more than so much: row 4 of "Beside the tunnel".
    /// Whether it was about a packet of ours.
    pub(crate) fn path_mtu4(&mut self, ip: &Ipv4, packet: &[u8]) -> bool {
        const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
        let message = ip.payload(packet);
        let (Some(tunnel), Some(head)) = (&self.tables.tunnel, message.first_chunk::<36>()) else {
            return false;
        };
        let icmp = matches!(ip.transport, Transport::Icmp { .. });
        if !icmp || ip.fragment != Fragment::Whole || head[..2] != FRAGMENTATION_NEEDED {
            return false;
        }
        let quote = &message[8..];
        // What we send is no fragment and has no options.
        let plain = quote[0] == 0x45 && be16(quote, 6) & 0x3fff == 0;
        let ours = plain && quote[9] == protocol::UDP && header::sum_holds(message);
        let (from, to) = (be32(quote, 12), be32(quote, 16));
        ours && self.path_mtu(
            tunnel,
            (
                Ipv4Addr::from_bits(from).into(),
                Ipv4Addr::from_bits(to).into(),
            ),
            quote.get(20..),
            u32::from(be16(head, 6)),
        )
    }

    /// As [`Self::path_mtu4`].
    pub(crate) fn path_mtu6(&mut self, ip: &Ipv6, packet: &[u8]) -> bool {
        // RFC 4443, section 3.2: the receiver ignores the code.
        const PACKET_TOO_BIG: u8 = 2;
        let message = ip.payload(packet);
        let (Some(tunnel), Some(head)) = (&self.tables.tunnel, message.first_chunk::<56>()) else {
            return false;
        };
        let icmp = matches!(ip.transport, Transport::Icmp { .. });
        if !icmp || ip.fragment != Fragment::Whole || head[0] != PACKET_TOO_BIG {
            return false;
        }
        let quote = &message[8..];
        let sound = Icmpv6Packet::new_unchecked(message)
            .verify_checksum(&ip.source.into(), &ip.destination.into());
        let ours = quote[0] >> 4 == 6 && quote[6] == protocol::UDP && sound;
        let end = |at| Ipv6Addr::from_bits(be128(quote, at)).into();
        let ends = (end(8), end(24));
        ours && self.path_mtu(tunnel, ends, quote.get(40..), be32(head, 4))
    }

    fn path_mtu(
        &mut self,
        tunnel: &Tunnel,
        (from, to): (IpAddr, IpAddr),
        udp: Option<&[u8]>,
        mtu: u32,
    ) -> bool {
        let Some(ports) = udp.and_then(|udp| udp.first_chunk::<4>()) else {
            return false;
        };
        let ports = (be16(ports, 0), be16(ports, 2));
        match tunnel.vtep_at(to) {
            Some(vtep) if tunnel.takes(from, Some(ports)) => {
                self.state.vteps[usize::from(vtep)].path_carries(tunnel, mtu, self.now_ns);
                true
            }
            _ => false,
        }
    }
}

impl Inner {
    /// What the outer headers take from an answer of the gateway's.
    fn of_reply(frame: &Frame<'_>) -> Self {
        let packet = frame.bytes().get(ETHERNET_LEN..).unwrap_or_default();
        match packet.first().map(|first| first >> 4) {
            Some(4) => wire::ipv4(packet).map_or(Self::ARP, |ip| Self::of4(&ip, packet)),
            _ => wire::ipv6(packet).map_or(Self::ARP, |ip| Self::of6(&ip, packet)),
        }
    }
}
