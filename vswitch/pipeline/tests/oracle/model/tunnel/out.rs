//! The rows of "Out of the tunnel".

use super::*;

const TRANSPARENT_ETHERNET: u16 = 0x6558;
const ECN_CE: u8 = 3;

impl Model {
    /// Whether `packet` "is UDP to the VTEP's address and the tunnel's port".
    pub(in crate::oracle::model) fn is_tunnelled(&self, packet: &Packet<'_>) -> bool {
        self.config.tunnel.as_ref().is_some_and(|tunnel| {
            packet.destination == tunnel.vtep
                && packet
                    .udp_ports()
                    .is_some_and(|(_, port)| port == tunnel.port)
        })
    }

    pub(in crate::oracle::model) fn out_of_tunnel(
        &mut self,
        outer: &Packet<'_>,
        carried: Option<Carried>,
    ) -> Result<Outcome, DropReason> {
        let tunnel = &self.tunnel().clone();
        // Out 1
        if outer.fragment != Fragment::No {
            return Err(TunnelFragment);
        }
        // Out 2
        let mut peers = tunnel.peers.iter();
        let sender = peers.find(|it| it.vtep == outer.source || it.sources.contains(&outer.source));
        let Some(sender) = sender.cloned() else {
            return Err(TunnelPeer);
        };
        let sender = &sender;
        let by = carried.map(|carried| carried.by);
        if self.requires_ipsec(sender.vtep) && by != Some(outer.source) {
            return Err(IpsecPlain);
        }
        // Out 3
        let datagram = self.outer_datagram(outer, carried.is_none_or(|carried| carried.checked))?;
        // Out 4 to 6
        let inner = self.behind_tunnel_header(datagram)?;
        // Out 8
        let ethernet = self.inner_ethernet(inner)?;
        // Out 9
        let packet = match ethernet.ethertype {
            ARP => return self.arp_out_of_tunnel(sender, inner, &ethernet),
            IPV4 => ipv4(ethernet.payload)?,
            _ => ipv6(ethernet.payload)?,
        };
        // Out 7, "checked after row 9"
        let outer_ecn = traffic_class(outer.whole) & 3;
        let Some(ecn) = combined_ecn(traffic_class(packet.whole) & 3, outer_ecn) else {
            return Err(TunnelEcn);
        };
        // Out 10
        let link_local = packet.source.is_unspecified() || is_link_local(packet.source);
        let honest = (packet.source.is_ipv6() && link_local)
            || self.peer_with(packet.source, sender.vtep).is_some();
        let (reports, groups) = (
            self.reports_groups(&packet),
            self.is_listed_group(packet.destination),
        );
        let on_link = groups && is_link_local(packet.source) && packet.source.is_ipv6();
        if !reports && ((is_invalid_source(&packet) && !on_link) || !honest) {
            return Err(IngressSource);
        }
        // Out 11
        unwanted_from_outside(&packet)?;
        // Out 12
        if is_nested(tunnel, &packet) {
            return Err(TunnelNested);
        }
        // "Then the gateway's services."
        if answers_nothing(&ethernet, &packet) {
            return Err(DstMac);
        }
        self.mld_said(Listener::Peer(sender.vtep), &ethernet, &packet);
        if let Some(outcome) = self.nd_out_of_tunnel(sender, inner, &packet)? {
            return Ok(outcome);
        }
        if self.is_gateway(packet.destination) {
            if is_group(ethernet.destination) {
                return Err(DstMac);
            }
            return self.echo_out_of_tunnel(sender, inner, &packet);
        }
        self.route_out_of_tunnel(sender, (inner, &ethernet), ecn, packet)
    }

    /// Out 3: the UDP datagram. Its checksum counts unless it came through ESP in UDP.
    fn outer_datagram<'a>(
        &self,
        outer: &Packet<'a>,
        checked: bool,
    ) -> Result<&'a [u8], DropReason> {
        let length = usize::from(be16(outer.payload, 4));
        if length < 8 || length > outer.payload.len() {
            return Err(TunnelTruncated);
        }
        let datagram = &outer.payload[..length];
        let addresses = match outer.source {
            IpAddr::V4(_) => &outer.whole[12..20],
            IpAddr::V6(_) => &outer.whole[8..40],
        };
        let right = if be16(datagram, 6) == 0 {
            outer.source.is_ipv4() || !self.tunnel().udp_checksum
        } else {
            udp_sum(addresses, datagram) == 0xffff
        };
        if checked && !right {
            return Err(TunnelChecksum);
        }
        Ok(datagram)
    }

    /// Out 4 to 6: the bytes behind the tunnel's header and its options.
    fn behind_tunnel_header<'a>(&self, datagram: &'a [u8]) -> Result<&'a [u8], DropReason> {
        let tunnel = self.tunnel();
        // Out 4
        if datagram.len() < 16 {
            return Err(TunnelTruncated);
        }
        let header = &datagram[8..16];
        let sound = match tunnel.kind {
            TunnelKind::Vxlan => header[0] & 0x08 != 0,
            TunnelKind::Geneve => {
                let version = header[0] >> 6;
                let control = header[1] & 0x80 != 0;
                version == 0 && !control && be16(header, 2) == TRANSPARENT_ETHERNET
            }
        };
        if !sound {
            return Err(TunnelMalformed);
        }
        // Out 5
        let vni = u32::from(be16(header, 4)) * 256 + u32::from(header[6]);
        if vni != self.config.vni.get() {
            return Err(TunnelVni);
        }
        // Out 6
        let inner = &datagram[16..];
        if tunnel.kind == TunnelKind::Vxlan {
            return Ok(inner);
        }
        let options = usize::from(header[0] & 0x3f) * 4;
        if options > inner.len() {
            return Err(TunnelTruncated);
        }
        let types = geneve_option_types(&inner[..options])?;
        if header[1] & 0x40 != 0 || types.iter().any(|kind| kind & 0x80 != 0) {
            return Err(TunnelOption);
        }
        Ok(&inner[options..])
    }

    /// Out 8.
    fn inner_ethernet<'a>(&self, inner: &'a [u8]) -> Result<Ethernet<'a>, DropReason> {
        let own = self.tunnel().mac.octets();
        let ethernet = ethernet(inner, None, (u16::MAX, false), &[], |source| source != own)?;
        match ethernet.ethertype {
            ARP | IPV4 | IPV6 => {}
            RARP => return Err(Rarp),
            _ => return Err(EtherType),
        }
        let own_mac = self.tunnel().mac.octets();
        if !is_group(ethernet.destination) && ethernet.destination != own_mac {
            return Err(DstMac);
        }
        Ok(ethernet)
    }

    /// The gateway's ND. `None` for other packets.
    fn nd_out_of_tunnel(
        &self,
        sender: &PeerConfig,
        inner: &[u8],
        packet: &Packet<'_>,
    ) -> Result<Option<Outcome>, DropReason> {
        let tunnel = self.tunnel();
        match packet.icmpv6_type() {
            Some(NA | RS | MLD_REPORT | MLD_DONE | MLDV2_REPORT) => Err(Absorbed),
            Some(NS) if packet.source.is_unspecified() => Err(Absorbed),
            Some(NS) => {
                let target = nd_target(packet.payload);
                if !self.answers_into_tunnel_for(target.into()) {
                    return Err(NdUnknown);
                }
                // The answer goes to the VTEP that sent it. Any peer with that VTEP is right.
                let first = |peer: &PeerConfig| peer.vtep == sender.vtep;
                let peer = tunnel.peers.iter().position(first);
                let reply = TunnelReply {
                    answer: Answer::NeighborAdvertisement {
                        mac: tunnel.mac.octets(),
                        address: target,
                    },
                    asked: inner.to_vec(),
                    peer: peer.expect("the outer source's"),
                };
                self.answer_into_tunnel(reply).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// A packet to the gateway's own address.
    fn echo_out_of_tunnel(
        &self,
        sender: &PeerConfig,
        inner: &[u8],
        packet: &Packet<'_>,
    ) -> Result<Outcome, DropReason> {
        if !packet.is_echo_request() {
            return Err(GatewayService);
        }
        let peer = self.peer_with(packet.source, sender.vtep);
        let peer = peer.expect("an echo's source is behind a peer");
        if packet.whole.len() > usize::from(self.carries(peer)) {
            return Err(Mtu);
        }
        self.answer_into_tunnel(TunnelReply {
            answer: Answer::Echo,
            asked: inner.to_vec(),
            peer,
        })
    }

    /// "Then the route: rows 3 to 5 as from the uplink."
    fn route_out_of_tunnel(
        &mut self,
        sender: &PeerConfig,
        (inner, ethernet): (&[u8], &Ethernet<'_>),
        ecn: u8,
        packet: Packet<'_>,
    ) -> Result<Outcome, DropReason> {
        if self.is_multicast(packet.destination) {
            let whole = with_ecn(packet.whole, ecn);
            let changed = Packet {
                whole: &whole,
                ..packet
            };
            return Ok(self.group_row(Listener::Peer(sender.vtep), ethernet, &changed));
        }
        let tunnel = self.tunnel();
        if is_link_local(packet.destination) {
            return Err(LinkLocalIp);
        }
        if is_embedded_ipv4(packet.destination) {
            return Err(RouteNone);
        }
        if is_group(ethernet.destination) {
            return Err(DstMac);
        }
        let target = match self.route(packet.destination) {
            Route::Shared => {
                let (holder, _) = self.holder(packet.destination).ok_or(HolderUnknown)?;
                Route::Port(holder)
            }
            route => route,
        };
        match target {
            Route::Port(to) => {
                // What the tunnel carries back to the sender: the same for all peers of one VTEP.
                let same = |peer: &PeerConfig| peer.vtep == sender.vtep;
                let peer = tunnel.peers.iter().position(same).expect("the sender");
                let whole = with_ecn(packet.whole, ecn);
                let whole = clamped(tunnel, &whole, &packet, self.carries(peer));
                let owed = self.with_error(ethernet, &packet, Mtu, None);
                let owed = matches!(
                    owed,
                    Outcome::Drop {
                        icmp_error: true,
                        ..
                    }
                );
                let source = packet.source;
                let changed = Packet {
                    whole: &whole,
                    ..packet
                };
                Ok(self.leave(to, &changed, |mtu| {
                    if owed {
                        self.too_big_for_port(sender, inner, source, mtu)
                    } else {
                        Mtu.into()
                    }
                }))
            }
            Route::Peer(_) | Route::Uplink | Route::Underlay => Err(NoTransit),
            Route::Shared | Route::Nowhere => Err(RouteNone),
        }
    }

    /// "`mtu` …, with an ICMP error into the tunnel": unless that does not get there.
    fn too_big_for_port(
        &self,
        sender: &PeerConfig,
        inner: &[u8],
        source: IpAddr,
        mtu: u16,
    ) -> Outcome {
        let known = self.neighbours.contains_key(&sender.next_hop);
        if !known || self.may_enter(sender.vtep).is_err() {
            return Mtu.into();
        }
        let peer = self.peer_with(source, sender.vtep);
        Outcome::TunnelError {
            mtu,
            asked: inner.to_vec(),
            peer: peer.expect("a source behind the peer"),
        }
    }

    fn arp_out_of_tunnel(
        &self,
        from: &PeerConfig,
        inner: &[u8],
        ethernet: &Ethernet<'_>,
    ) -> Result<Outcome, DropReason> {
        let arp = arp(ethernet)?;
        // Out 10
        let sender: IpAddr = arp.sender.into();
        let invalid = arp.sender.octets()[0] == 0
            || arp.sender.octets()[0] >= 224
            || arp.sender.is_loopback()
            || is_link_local(sender);
        let Some(peer) = self.peer_with(sender, from.vtep) else {
            return Err(ArpSenderIp);
        };
        if invalid {
            return Err(ArpSenderIp);
        }
        // "Then the gateway's services."
        if in_strange_group(ethernet) {
            return Err(DstMac);
        }
        if arp.opcode == 2 || arp.sender == arp.target {
            return Err(Absorbed);
        }
        if !self.answers_into_tunnel_for(arp.target.into()) {
            return Err(ArpUnknown);
        }
        self.answer_into_tunnel(TunnelReply {
            answer: Answer::Arp {
                mac: self.tunnel().mac.octets(),
                address: arp.target,
            },
            asked: inner.to_vec(),
            peer,
        })
    }

    /// Out 10: the peer that `source` leads to, "by longest prefix", if its VTEP is `vtep`.
    fn peer_with(&self, source: IpAddr, vtep: IpAddr) -> Option<usize> {
        match self.route(source) {
            Route::Peer(peer) => (self.tunnel().peers[peer].vtep == vtep).then_some(peer),
            _ => None,
        }
    }

    /// Whether ARP and NS for `address` are answered: "for the gateway's address or one that leads
    /// to a port (never link-local)".
    fn answers_into_tunnel_for(&self, address: IpAddr) -> bool {
        let leads_to_port = match self.route(address) {
            Route::Port(_) => true,
            Route::Shared => self.holder(address).is_some(),
            _ => false,
        };
        self.is_gateway(address) || (self.reaches_the_route(address) && leads_to_port)
    }

    /// An answer "whose next hop is not known" is dropped "as `neighbour-unresolved`".
    fn answer_into_tunnel(&self, reply: TunnelReply) -> Result<Outcome, DropReason> {
        let next_hop = self.tunnel().peers[reply.peer].next_hop;
        if !self.neighbours.contains_key(&next_hop) {
            return Err(NeighbourUnresolved);
        }
        self.may_enter(self.tunnel().peers[reply.peer].vtep)?;
        Ok(Outcome::TunnelReply(reply))
    }
}

/// Out 6: the types of the options. An option has a header of four bytes; its last five bits give
/// the number of words that follow (RFC 8926, 3.5).
fn geneve_option_types(options: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut rest = options;
    let mut types = Vec::new();
    while !rest.is_empty() {
        let length = 4 + usize::from(rest[3] & 0x1f) * 4;
        if length > rest.len() {
            return Err(TunnelTruncated);
        }
        types.push(rest[2]);
        rest = &rest[length..];
    }
    Ok(types)
}

/// RFC 6040, 4.2, figure 4; `None`: drop.
pub(in crate::oracle::model) fn combined_ecn(inner: u8, outer: u8) -> Option<u8> {
    const NOT_ECT: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    match (inner, outer) {
        (NOT_ECT, ECN_CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, ECN_CE) | (ECN_CE, _) => Some(ECN_CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

/// `packet` with that ECN field; its header checksum is updated if the field changes.
pub(in crate::oracle::model) fn with_ecn(packet: &[u8], ecn: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if traffic_class(&packet) & 3 == ecn {
        return packet;
    }
    if packet[0] >> 4 == 6 {
        packet[1] = packet[1] & 0xcf | ecn << 4;
        return packet;
    }
    packet[1] = packet[1] & 0xfc | ecn;
    let header = usize::from(packet[0] & 0x0f) * 4;
    packet[10..12].fill(0);
    let sum = !ones_complement_sum(&packet[..header]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}
