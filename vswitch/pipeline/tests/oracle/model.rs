//! The slow, obvious model of `docs/reference/spoof-filter.md` and, in [`tunnel`], of
//! `docs/reference/tunnel.md`: what one frame must get, row by row in the pages' order, each row's
//! code below a comment that names it. It shares nothing with the switch but the names of the
//! reasons and the configuration's types, and prefers clarity to speed everywhere.

pub(crate) mod tunnel;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use pipeline::DropReason::{self, *};
use tenant_config::{Addresses, Encapsulation, MacAddr, PortConfig, SwitchConfig, UplinkConfig};

use self::tunnel::{Outer, TunnelReply};

/// What must become of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It leaves by that port (the number of ports: the uplink) as these bytes.
    Forward { to: usize, bytes: Vec<u8> },
    /// It leaves by the uplink, inside this tunnel packet.
    Tunnel(Outer),
    /// It is answered to where it came from.
    Reply(Answer),
    /// It came through the tunnel and is answered into it.
    TunnelReply(TunnelReply),
    /// It goes nowhere; where an ICMP error is owed, one goes back unless their rate is spent.
    Drop {
        reason: DropReason,
        icmp_error: bool,
        /// What an ICMP error says that the next link carries.
        mtu: Option<u16>,
    },
}

/// The gateway's (or, on the uplink, the switch's) own answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// An ARP reply that says `mac` has `address`.
    Arp { mac: [u8; 6], address: Ipv4Addr },
    /// A Neighbor Advertisement that says `mac` has `address`.
    NeighborAdvertisement { mac: [u8; 6], address: Ipv6Addr },
    /// A Router Advertisement of the port's gateway.
    RouterAdvertisement {
        mac: [u8; 6],
        /// The MTU that it says, where it must say one.
        mtu: Option<u16>,
    },
    /// The echo reply to an echo request.
    Echo,
}

impl From<DropReason> for Outcome {
    fn from(reason: DropReason) -> Self {
        Self::Drop {
            reason,
            icmp_error: false,
            mtu: None,
        }
    }
}

/// One switch as the page describes it: its configuration and the little it remembers.
#[derive(Debug)]
pub(crate) struct Model {
    config: Arc<SwitchConfig>,
    buckets: Vec<[Option<Bucket>; 5]>,
    /// The VID of the frame that was judged last: its answer's.
    last_tag: Option<u16>,
    /// By port and address, the VID with which it last sent.
    tags: BTreeMap<(usize, IpAddr), Option<u16>>,
    neighbours: BTreeMap<IpAddr, [u8; 6]>,
    /// By tunnel endpoint, what the path to it carries, and until when that holds.
    path_mtus: BTreeMap<IpAddr, (u16, u64)>,
    now_ns: u64,
}

impl Model {
    pub(crate) fn new(config: &SwitchConfig) -> Self {
        Self {
            config: Arc::new(config.clone()),
            last_tag: None,
            tags: BTreeMap::new(),
            buckets: config.ports.iter().map(Bucket::of_port).collect(),
            neighbours: BTreeMap::new(),
            path_mtus: BTreeMap::new(),
            now_ns: 0,
        }
    }

    /// The number that stands for the uplink.
    pub(crate) fn uplink(&self) -> usize {
        self.config.ports.len()
    }

    /// Lets the switch know the MACs of all next hops, as if they had been learned.
    pub(crate) fn teach_all(&mut self, mac: [u8; 6]) {
        for next_hop in self.next_hops() {
            self.teach(next_hop, mac);
        }
    }

    /// The routers of the underlay, and who takes packets for the tunnel's peers.
    fn next_hops(&self) -> Vec<IpAddr> {
        let uplink = self.config.uplink.iter();
        let routers = uplink.flat_map(|uplink| {
            let ipv4 = uplink.next_hops.ipv4.map(IpAddr::V4);
            ipv4.into_iter()
                .chain(uplink.next_hops.ipv6.map(IpAddr::V6))
        });
        let peers = self.config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
        routers.chain(peers.map(|peer| peer.next_hop)).collect()
    }

    fn teach(&mut self, next_hop: IpAddr, mac: [u8; 6]) {
        self.neighbours.insert(next_hop, mac);
    }

    /// The VID of the tag that an answer to the last frame carries.
    pub(crate) fn tag_of_answer(&self) -> Option<u16> {
        self.last_tag
    }

    /// What becomes of `frame`, from port number `from`. `tag` is the control information of a VLAN
    /// tag that the device has moved into metadata.
    pub(crate) fn expect(
        &mut self,
        now_ns: u64,
        from: usize,
        frame: &[u8],
        tag: Option<u16>,
    ) -> Outcome {
        self.now_ns = now_ns;
        let config = Arc::clone(&self.config);
        let outcome = match (config.ports.get(from), &config.uplink) {
            (Some(port), _) => self.of_port(now_ns, from, port, frame, tag),
            (None, Some(uplink)) => self.of_uplink(uplink, frame, tag),
            (None, None) => panic!("a frame from an uplink that is not there"),
        };
        outcome.unwrap_or_else(Outcome::from)
    }

    // # From a port

    fn of_port(
        &mut self,
        now_ns: u64,
        from: usize,
        port: &PortConfig,
        frame: &[u8],
        tag: Option<u16>,
    ) -> Result<Outcome, DropReason> {
        let ethernet = ethernet(frame, tag, port.mtu, &port.trunk, |source| {
            source == port.mac.octets() || port.extra_macs.iter().any(|mac| mac.octets() == source)
        })?;
        self.last_tag = ethernet.tag;
        match ethernet.ethertype {
            RARP => {
                // Ethernet 7
                if !(port.announce && is_announce(&ethernet, port.mac)) {
                    return Err(Rarp);
                }
                self.admit(now_ns, from, frame, &ethernet, None)?;
                Err(Absorbed)
            }
            ARP => {
                let arp = arp(&ethernet)?;
                // ARP 3
                let probe = arp.opcode == 1 && arp.sender.is_unspecified();
                if !(probe || owns(port, arp.sender.into())) {
                    return Err(ArpSenderIp);
                }
                self.admit(now_ns, from, frame, &ethernet, None)?;
                self.arp_service(from, port, &arp)
            }
            IPV4 => {
                let packet = ipv4(ethernet.payload)?;
                ipv4_from_port(port, &packet)?;
                self.admit(now_ns, from, frame, &ethernet, Some(&packet))?;
                Ok(self.services_and_route(from, port, &ethernet, &packet))
            }
            IPV6 => {
                let packet = ipv6(ethernet.payload)?;
                ipv6_from_port(port, &packet)?;
                self.admit(now_ns, from, frame, &ethernet, Some(&packet))?;
                if let Some(icmp_type) = packet.icmpv6_type()
                    && let Some(outcome) = self.nd_service(from, port, icmp_type, &packet)
                {
                    return Ok(outcome);
                }
                Ok(self.services_and_route(from, port, &ethernet, &packet))
            }
            // Ethernet 8
            _ => Err(EtherType),
        }
    }

    /// "The gateway then takes it; no ARP is ever forwarded."
    fn arp_service(
        &self,
        from: usize,
        port: &PortConfig,
        arp: &Arp,
    ) -> Result<Outcome, DropReason> {
        if arp.opcode == 2 || arp.sender == arp.target || owns(port, arp.target.into()) {
            return Err(Absorbed);
        }
        if !self.answers_for(from, arp.target.into()) {
            return Err(ArpUnknown);
        }
        Ok(Outcome::Reply(Answer::Arp {
            mac: port.gateway_mac.octets(),
            address: arp.target,
        }))
    }

    /// "No ND is ever forwarded." `None` for other messages.
    fn nd_service(
        &self,
        from: usize,
        port: &PortConfig,
        icmp_type: u8,
        packet: &Packet<'_>,
    ) -> Option<Outcome> {
        let mac = port.gateway_mac.octets();
        match icmp_type {
            NA | MLD_REPORT | MLD_DONE | MLDV2_REPORT => Some(Absorbed.into()),
            NS => {
                let target = nd_target(packet.payload);
                let known = target == port.gateway_mac.link_local()
                    || self.answers_for(from, target.into());
                Some(if owns_or_link_local(port, target) {
                    Absorbed.into()
                } else if known {
                    Outcome::Reply(Answer::NeighborAdvertisement {
                        mac,
                        address: target,
                    })
                } else {
                    NdUnknown.into()
                })
            }
            RS if self.config.gateway.ipv6.is_some() => {
                Some(Outcome::Reply(Answer::RouterAdvertisement {
                    mac,
                    mtu: self.advertised_mtu(port),
                }))
            }
            RS => Some(Absorbed.into()),
            _ => None,
        }
    }

    /// Whether the gateway lends its MAC to `address` at port `from`: its own address, or one that
    /// the route leads to another port or to the uplink.
    fn answers_for(&self, from: usize, address: IpAddr) -> bool {
        let leads_on = match self.route(address) {
            Route::Port(to) => to != from,
            Route::Uplink | Route::Peer(_) => true,
            Route::Underlay | Route::Nowhere => false,
        };
        self.is_gateway(address) || (self.reaches_the_route(address) && leads_on)
    }

    /// Whether packets to `address` get as far as the longest prefix.
    fn reaches_the_route(&self, address: IpAddr) -> bool {
        !is_martian_destination(address)
            && !self.is_multicast(address)
            && !is_link_local(address)
            && !address.is_unspecified()
            && !is_embedded_ipv4(address)
    }

    // ## Storm control

    fn admit(
        &mut self,
        now_ns: u64,
        from: usize,
        frame: &[u8],
        ethernet: &Ethernet<'_>,
        packet: Option<&Packet<'_>>,
    ) -> Result<(), DropReason> {
        let nd = packet.and_then(Packet::icmpv6_type).is_some_and(is_nd);
        let dhcp = packet
            .and_then(Packet::udp_ports)
            .is_some_and(|(_, to)| [67, 68, 546, 547].contains(&to));
        let bits = frame.len() as u64 * 8;
        let falls_under = [
            (packet.is_none() || nd, 1, RateArpNd),
            (dhcp, 1, RateDhcp),
            (is_group(ethernet.destination), 1, RateBroadcast),
            (true, 1, RatePps),
            (true, bits, RateBps),
        ];
        for (bucket, (falls, tokens, reason)) in self.buckets[from].iter_mut().zip(falls_under) {
            if let Some(bucket) = bucket
                && falls
                && !bucket.take(now_ns, tokens)
            {
                return Err(reason);
            }
        }
        // "What goes to a trunk port bears the tag with which its destination address last sent
        // ARP, IPv4 or IPv6 that passed the filter and storm control."
        let address = match ethernet.ethertype {
            ARP => Some(ipv4_at(ethernet.payload, 14).into()),
            _ => packet.map(|packet| packet.source),
        };
        if let Some(address) = address {
            self.tags.insert((from, address), ethernet.tag);
        }
        Ok(())
    }

    // ## Services and route of IPv4 and IPv6

    fn services_and_route(
        &self,
        from: usize,
        port: &PortConfig,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
    ) -> Outcome {
        let group = is_group(ethernet.destination);
        // "An ICMP error is never sent about a fragment other than the first, an ICMP error, or a
        // packet with an Ethernet group destination", and only where the gateway has an address of
        // that family to send it from.
        let has_address = match packet.source {
            IpAddr::V4(_) => self.config.gateway.ipv4.is_some(),
            IpAddr::V6(_) => self.config.gateway.ipv6.is_some(),
        };
        let with_error_of = |reason, mtu| Outcome::Drop {
            reason,
            icmp_error: packet.fragment != Fragment::Later
                && !packet.is_icmp_error()
                && !group
                && has_address,
            mtu,
        };
        let with_error = |reason| with_error_of(reason, None);
        let too_big = |mtu| with_error_of(Mtu, Some(mtu));

        // Route 1
        if let Some(to) = self.dhcp_taker(from, port, packet) {
            return match to {
                Some(to) => self.leave(to, packet, |_| Mtu.into()),
                None => DhcpNoServer.into(),
            };
        }
        // Route 2
        if self.is_gateway(packet.destination)
            || packet.destination == IpAddr::V6(port.gateway_mac.link_local())
        {
            return if packet.is_echo_request() {
                Outcome::Reply(Answer::Echo)
            } else if packet.udp_ports().is_some() {
                with_error(GatewayService)
            } else {
                GatewayService.into()
            };
        }
        // Route 3
        if self.is_multicast(packet.destination) {
            return Multicast.into();
        }
        // Route 4
        if is_link_local(packet.destination) {
            return LinkLocalIp.into();
        }
        if is_embedded_ipv4(packet.destination) {
            return RouteNone.into();
        }
        // Route 5
        if group {
            return DstMac.into();
        }
        // Route 6
        match self.route(packet.destination) {
            Route::Nowhere => with_error(RouteNone),
            Route::Port(to) if to == from => with_error(RouteNone),
            Route::Underlay => Underlay.into(),
            Route::Port(to) => self.leave(to, packet, too_big),
            Route::Peer(peer) => self.enter_tunnel(peer, packet, too_big),
            // Route 7
            Route::Uplink if is_link_local(packet.source) => LinkLocalIp.into(),
            Route::Uplink if packet.hop_limit <= 1 => with_error(Ttl),
            Route::Uplink => self.leave(self.uplink(), packet, too_big),
        }
    }

    /// Route 1: the port that a DHCP message goes to (`None`: there is none), where it is a DHCP
    /// client's broadcast or a server's BOOTREPLY.
    fn dhcp_taker(
        &self,
        from: usize,
        port: &PortConfig,
        packet: &Packet<'_>,
    ) -> Option<Option<usize>> {
        if !packet.source.is_ipv4() {
            return None;
        }
        let mut others = (0..self.config.ports.len()).filter(|&other| other != from);
        if packet.source.is_unspecified() {
            return Some(others.find(|&other| self.config.ports[other].dhcp_server));
        }
        let message = packet.payload.get(8..).unwrap_or_default();
        if port.dhcp_server
            && packet.fragment == Fragment::No
            && packet.udp_ports() == Some((67, 68))
            && message.first() == Some(&2)
        {
            let is_clients = |other: &usize| {
                is_bootp(message, 2)
                    && mac_at(message, 28) == self.config.ports[*other].mac.octets()
            };
            return Some(others.find(is_clients));
        }
        None
    }

    /// Route 8 and 9, and the frame as it leaves.
    fn leave(
        &self,
        to: usize,
        packet: &Packet<'_>,
        too_big: impl FnOnce(u16) -> Outcome,
    ) -> Outcome {
        let (mtu, own_mac, next_mac) = match self.config.ports.get(to) {
            Some(port) => (port.mtu, port.gateway_mac, Some(port.mac.octets())),
            None => {
                let uplink = self.config.uplink.as_ref().expect("an uplink is routed to");
                let next_hop = match packet.destination {
                    IpAddr::V4(_) => uplink.next_hops.ipv4.map(IpAddr::V4),
                    IpAddr::V6(_) => uplink.next_hops.ipv6.map(IpAddr::V6),
                };
                let known = next_hop.and_then(|hop| self.neighbours.get(&hop)).copied();
                (uplink.mtu, uplink.mac, known)
            }
        };
        // Route 8
        if packet.whole.len() > usize::from(mtu) {
            return too_big(mtu);
        }
        // Route 9
        let Some(next_mac) = next_mac else {
            return NeighbourUnresolved.into();
        };
        let mut whole = packet.whole.to_vec();
        let ethertype = match packet.source {
            IpAddr::V4(_) => IPV4,
            IpAddr::V6(_) => IPV6,
        };
        if to == self.uplink() {
            // Route 7: "it goes down by one".
            match packet.source {
                IpAddr::V4(_) => {
                    whole[8] -= 1;
                    let header = usize::from(whole[0] & 0x0f) * 4;
                    whole[10..12].fill(0);
                    let sum = !ones_complement_sum(&whole[..header]);
                    whole[10..12].copy_from_slice(&sum.to_be_bytes());
                }
                IpAddr::V6(_) => whole[7] -= 1,
            }
        }
        let mut bytes = Vec::new();
        bytes.extend(next_mac);
        bytes.extend(own_mac.octets());
        if let Some(Some(tag)) = self.tags.get(&(to, packet.destination)) {
            bytes.extend(0x8100_u16.to_be_bytes());
            bytes.extend(tag.to_be_bytes());
        }
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend(whole);
        Outcome::Forward { to, bytes }
    }

    /// The first address of the gateway's subnet, which no station may have unless the subnet has
    /// two addresses.
    fn is_first(&self, address: IpAddr) -> bool {
        nets(self.config.gateway.ipv4, self.config.gateway.ipv6)
            .into_iter()
            .any(|net| net.max_prefix_len() - net.prefix_len() > 1 && net.network() == address)
    }

    /// Route 6: "longest prefix".
    fn route(&self, destination: IpAddr) -> Route {
        let mut routes: Vec<(u8, Route)> = Vec::new();
        for (number, port) in self.config.ports.iter().enumerate() {
            for prefix in prefixes(port) {
                if prefix.contains(&destination) {
                    routes.push((prefix.prefix_len(), Route::Port(number)));
                }
            }
        }
        let tunnel = self.config.tunnel.as_ref();
        for (number, peer) in tunnel.iter().flat_map(|tunnel| &tunnel.peers).enumerate() {
            for prefix in &peer.prefixes {
                // "The gateway's own address and its subnet's first and broadcast address are
                // behind no peer."
                let ours = self.is_gateway(destination)
                    || self.is_multicast(destination)
                    || self.is_first(destination)
                    || tunnel.is_some_and(|it| it.peers.iter().any(|it| it.vtep == destination));
                if prefix.contains(&destination) && !ours {
                    routes.push((prefix.prefix_len(), Route::Peer(number)));
                }
            }
            // "The VTEPs of peers are closed to the VMs."
            if destination == peer.vtep {
                routes.push((
                    if destination.is_ipv4() { 32 } else { 128 },
                    Route::Underlay,
                ));
            }
        }
        let gateway = &self.config.gateway;
        for prefix in nets(gateway.ipv4, gateway.ipv6) {
            if prefix.contains(&destination) {
                routes.push((prefix.prefix_len(), Route::Nowhere));
            }
        }
        if let Some(uplink) = &self.config.uplink {
            let has_next_hop = match destination {
                IpAddr::V4(_) => uplink.next_hops.ipv4.is_some(),
                IpAddr::V6(_) => uplink.next_hops.ipv6.is_some(),
            };
            // "With `only`": neither external addresses nor the underlay.
            let has_next_hop = has_next_hop && !tunnel.is_some_and(|tunnel| tunnel.only);
            let allowed = has_next_hop
                && uplink.allow.iter().any(|net| net.contains(&destination))
                && uplink.own_addresses().all(|own| own != destination);
            for prefix in nets(uplink.ipv4, uplink.ipv6) {
                if prefix.contains(&destination) {
                    let route = if allowed {
                        Route::Uplink
                    } else {
                        Route::Underlay
                    };
                    routes.push((prefix.prefix_len(), route));
                }
            }
            if has_next_hop {
                routes.push((0, Route::Uplink));
            }
        }
        // Of equal lengths the first: a port or a peer before the subnet it fills.
        let longest = routes.iter().map(|(length, _)| *length).max();
        let found = routes.iter().find(|(length, _)| Some(*length) == longest);
        found.map_or(Route::Nowhere, |(_, route)| *route)
    }

    // # From the uplink

    fn of_uplink(
        &mut self,
        uplink: &UplinkConfig,
        frame: &[u8],
        tag: Option<u16>,
    ) -> Result<Outcome, DropReason> {
        self.last_tag = None;
        // Uplink 1: Ethernet 1, 2 and 4 to 8.
        let ethernet = ethernet(frame, tag, uplink.mtu, &[], |_| true)?;
        match ethernet.ethertype {
            ARP | IPV4 | IPV6 => {}
            RARP => return Err(Rarp),
            _ => return Err(EtherType),
        }
        if !uplink.device.filters_mac()
            && !is_group(ethernet.destination)
            && ethernet.destination != uplink.mac.octets()
        {
            return Err(DstMac);
        }
        match ethernet.ethertype {
            ARP => self.arp_from_uplink(uplink, &ethernet),
            IPV4 => self.ip_from_uplink(uplink, &ethernet, &ipv4(ethernet.payload)?),
            _ => self.ip_from_uplink(uplink, &ethernet, &ipv6(ethernet.payload)?),
        }
    }

    /// Uplink 2.
    fn arp_from_uplink(
        &mut self,
        uplink: &UplinkConfig,
        ethernet: &Ethernet<'_>,
    ) -> Result<Outcome, DropReason> {
        let arp = arp(ethernet)?;
        let says_where_it_is = arp.opcode == 2 || arp.sender == arp.target;
        if self.next_hops().contains(&arp.sender.into()) {
            if ethernet.source != uplink.mac.octets() {
                self.teach(arp.sender.into(), ethernet.source);
            }
            if says_where_it_is {
                return Err(Absorbed);
            }
        }
        let own = uplink.own_addresses().any(|own| own == arp.target);
        if !says_where_it_is && own {
            return Ok(Outcome::Reply(Answer::Arp {
                mac: uplink.mac.octets(),
                address: arp.target,
            }));
        }
        Err(ArpUnknown)
    }

    fn ip_from_uplink(
        &mut self,
        uplink: &UplinkConfig,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
    ) -> Result<Outcome, DropReason> {
        // Uplink 4
        let gateway = &self.config.gateway;
        let inside = nets(gateway.ipv4, gateway.ipv6).any(|net| net.contains(&packet.source))
            || uplink.own_addresses().any(|own| own == packet.source)
            || self
                .config
                .ports
                .iter()
                .any(|port| owns(port, packet.source));
        // "A plain packet from the uplink whose source is behind a peer: as one of the tenant's
        // own; but not if it is to one of the uplink's own addresses."
        let to_us = uplink.own_addresses().any(|own| own == packet.destination);
        // "Link-local addresses and `::` never are."
        let of_the_link = match packet.source {
            IpAddr::V4(ip) => ip.is_unspecified() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unspecified() || ip.is_unicast_link_local(),
        };
        let behind_peer =
            !to_us && !of_the_link && matches!(self.route(packet.source), Route::Peer(_));
        if inside || behind_peer || is_nobodys(packet) {
            return Err(IngressSource);
        }
        // Uplink 5 and 6
        unwanted_from_outside(packet)?;
        if self.is_tunnelled(packet) {
            return self.out_of_tunnel(packet);
        }
        // Uplink 6
        if let Some(icmp_type) = packet.icmpv6_type() {
            match icmp_type {
                RS | MLD_REPORT | MLD_DONE | MLDV2_REPORT => return Err(Absorbed),
                NA => {
                    let target = nd_target(packet.payload);
                    if !self.next_hops().contains(&target.into()) {
                        return Err(NdUnknown);
                    }
                    let reported = nd_options(icmp_type, packet.payload)
                        .into_iter()
                        .find(|option| option.kind == TARGET_LINK_LAYER)
                        .and_then(|option| <[u8; 6]>::try_from(option.body).ok());
                    let mac = reported.unwrap_or(ethernet.source);
                    if !is_group(mac) && mac != [0; 6] && mac != uplink.mac.octets() {
                        self.teach(target.into(), mac);
                    }
                    return Err(Absorbed);
                }
                NS => {
                    let target = nd_target(packet.payload);
                    let own = uplink.own_addresses().any(|own| own == target);
                    if !own || packet.source.is_unspecified() {
                        return Err(NdUnknown);
                    }
                    return Ok(Outcome::Reply(Answer::NeighborAdvertisement {
                        mac: uplink.mac.octets(),
                        address: target,
                    }));
                }
                _ => {}
            }
        }
        // Uplink 7
        if uplink.own_addresses().any(|own| own == packet.destination) {
            if packet.is_echo_request() {
                return Ok(Outcome::Reply(Answer::Echo));
            }
            if self.tells_path_mtu(packet) {
                return Err(Absorbed);
            }
            return Err(GatewayService);
        }
        // Uplink 8
        if self.is_multicast(packet.destination) {
            return Err(Multicast);
        }
        if is_link_local(packet.destination) {
            return Err(LinkLocalIp);
        }
        if is_embedded_ipv4(packet.destination) {
            return Err(RouteNone);
        }
        if is_group(ethernet.destination) {
            return Err(DstMac);
        }
        let only = self
            .config
            .tunnel
            .as_ref()
            .is_some_and(|tunnel| tunnel.only);
        match self.route(packet.destination) {
            Route::Port(_) if only => Err(TunnelOnly),
            Route::Port(to) => Ok(self.leave(to, packet, |_| Mtu.into())),
            Route::Peer(_) | Route::Uplink | Route::Underlay => Err(NoTransit),
            Route::Nowhere => Err(RouteNone),
        }
    }

    fn is_gateway(&self, address: IpAddr) -> bool {
        let gateway = &self.config.gateway;
        nets(gateway.ipv4, gateway.ipv6).any(|net| net.addr() == address)
    }

    /// Route 3: "multicast, 255.255.255.255, or the gateway subnet's broadcast address".
    fn is_multicast(&self, address: IpAddr) -> bool {
        let subnet_broadcast = self.config.gateway.ipv4.is_some_and(|net| {
            // A /31 and a /32 have no broadcast address (RFC 3021).
            net.prefix_len() < 31 && address == net.broadcast()
        });
        address.is_multicast() || address == Ipv4Addr::BROADCAST || subnet_broadcast
    }
}

/// Where the route table leads an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Port(usize),
    /// Into the tunnel, to the peer of that number.
    Peer(usize),
    Uplink,
    Underlay,
    Nowhere,
}

// ### Ethernet

const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// A frame whose one allowed tag, if any, is taken off.
struct Ethernet<'a> {
    destination: [u8; 6],
    source: [u8; 6],
    ethertype: u16,
    /// The VID of the tag that was taken off.
    tag: Option<u16>,
    payload: &'a [u8],
}

/// Ethernet 1 to 6.
fn ethernet<'a>(
    frame: &'a [u8],
    stripped_tag: Option<u16>,
    mtu: u16,
    trunk: &[tenant_config::VlanId],
    may_be_source: impl Fn([u8; 6]) -> bool,
) -> Result<Ethernet<'a>, DropReason> {
    let listed = |control: u16| trunk.iter().any(|vid| vid.get() == control & 0x0fff);
    // Ethernet 1
    if frame.len() < 14 {
        return Err(Malformed);
    }
    let outer_type = be16(frame, 12);
    let allowed_tag = stripped_tag.is_none()
        && outer_type == 0x8100
        && frame.len() >= 16
        && listed(be16(frame, 14));
    let longest = usize::from(mtu) + 14 + if allowed_tag { 4 } else { 0 };
    if frame.len() > longest {
        return Err(Malformed);
    }
    // Ethernet 2
    let (destination, source) = (mac_at(frame, 0), mac_at(frame, 6));
    if source == [0; 6] || is_group(source) {
        return Err(SrcMacGroup);
    }
    // Ethernet 3
    if !may_be_source(source) {
        return Err(SrcMac);
    }
    // Ethernet 4: the tag in the metadata is the outermost.
    let (ethertype, tag, payload) = match stripped_tag {
        Some(control) if !listed(control) || TAGS.contains(&outer_type) => return Err(VlanTag),
        None if trunk.is_empty() && TAGS.contains(&outer_type) => return Err(VlanTag),
        None if TAGS.contains(&outer_type) => {
            if outer_type != 0x8100 {
                return Err(VlanTag);
            }
            if frame.len() < 18 {
                return Err(Malformed);
            }
            if !listed(be16(frame, 14)) || TAGS.contains(&be16(frame, 16)) {
                return Err(VlanTag);
            }
            (
                be16(frame, 16),
                Some(be16(frame, 14) & 0x0fff),
                &frame[18..],
            )
        }
        _ => (
            outer_type,
            stripped_tag.map(|control| control & 0x0fff),
            &frame[14..],
        ),
    };
    // Ethernet 5
    if ethertype < 0x0600 {
        return Err(Llc);
    }
    // Ethernet 6
    let bridge_group = destination[..5] == [0x01, 0x80, 0xc2, 0, 0] && destination[5] <= 0x0f;
    if bridge_group || ethertype == 0x88cc || ethertype == 0x8808 {
        return Err(LinkLocalL2);
    }
    Ok(Ethernet {
        destination,
        source,
        ethertype,
        tag,
        payload,
    })
}

/// Ethernet 7: QEMU's announce after a migration.
fn is_announce(ethernet: &Ethernet<'_>, mac: MacAddr) -> bool {
    let message = ethernet.payload;
    ethernet.destination == [0xff; 6]
        && message.len() >= 28
        && be16(message, 0) == 1
        && be16(message, 2) == IPV4
        && message[4..6] == [6, 4]
        && be16(message, 6) == 3
        && mac_at(message, 8) == mac.octets()
        && message[14..18] == [0; 4]
        && mac_at(message, 18) == mac.octets()
        && message[24..28] == [0; 4]
}

// ### ARP

struct Arp {
    opcode: u16,
    sender: Ipv4Addr,
    target: Ipv4Addr,
}

/// ARP 1 and 2.
fn arp(ethernet: &Ethernet<'_>) -> Result<Arp, DropReason> {
    let message = ethernet.payload;
    // ARP 1
    if message.len() < 28
        || be16(message, 0) != 1
        || be16(message, 2) != IPV4
        || message[4..6] != [6, 4]
        || !(1..=2).contains(&be16(message, 6))
    {
        return Err(ArpMalformed);
    }
    // ARP 2
    if mac_at(message, 8) != ethernet.source {
        return Err(ArpSenderMac);
    }
    Ok(Arp {
        opcode: be16(message, 6),
        sender: ipv4_at(message, 14),
        target: ipv4_at(message, 24),
    })
}

// ### IPv4 and IPv6

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fragment {
    /// No fragment at all; for IPv6, without a fragment header.
    No,
    /// Offset 0.
    First,
    /// Any other offset.
    Later,
}

/// An IPv4 or IPv6 packet that has passed the rows about its shape.
struct Packet<'a> {
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
    fragment: Fragment,
    /// The upper layer; unknown behind an IPv6 fragment header with an offset.
    upper: Option<u8>,
    /// What lies behind the headers of the IP layer.
    payload: &'a [u8],
    /// The packet without the frame's padding.
    whole: &'a [u8],
}

impl Packet<'_> {
    /// The protocol whose header begins the payload.
    fn transport(&self) -> Option<u8> {
        self.upper.filter(|_| self.fragment != Fragment::Later)
    }

    /// UDP's source and destination port, where this packet has them.
    fn udp_ports(&self) -> Option<(u16, u16)> {
        (self.transport() == Some(UDP)).then(|| (be16(self.payload, 0), be16(self.payload, 2)))
    }

    fn icmpv6_type(&self) -> Option<u8> {
        (self.source.is_ipv6() && self.transport() == Some(ICMPV6)).then(|| self.payload[0])
    }

    fn icmpv4_type(&self) -> Option<u8> {
        (self.source.is_ipv4() && self.transport() == Some(ICMP)).then(|| self.payload[0])
    }

    /// Route 2: "an ICMP echo request that is no fragment".
    fn is_echo_request(&self) -> bool {
        self.fragment == Fragment::No
            && (self.icmpv4_type() == Some(8) || self.icmpv6_type() == Some(128))
    }

    /// RFC 1122 3.2.2 and RFC 4443 2.1 name the error messages.
    fn is_icmp_error(&self) -> bool {
        self.icmpv4_type()
            .is_some_and(|icmp_type| [3, 4, 5, 11, 12].contains(&icmp_type))
            || self.icmpv6_type().is_some_and(|icmp_type| icmp_type < 128)
    }
}

/// Whether TCP's header, with its options, lies within `segment`.
fn tcp_is_whole(segment: &[u8]) -> bool {
    segment.len() >= 20 && {
        let words = usize::from(segment[12] >> 4);
        words >= 5 && words * 4 <= segment.len()
    }
}

// ### IPv4

/// IPv4 1 to 4.
fn ipv4(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    // IPv4 1
    if bytes.len() < 20 || bytes[0] >> 4 != 4 {
        return Err(Ipv4Malformed);
    }
    let header = usize::from(bytes[0] & 0x0f) * 4;
    let total = usize::from(be16(bytes, 2));
    if header < 20 || header > total || total > bytes.len() {
        return Err(Ipv4Malformed);
    }
    if ones_complement_sum(&bytes[..header]) != 0xffff {
        return Err(Ipv4Malformed);
    }
    let options = ipv4_option_types(&bytes[20..header])?;
    let (source, destination) = (ipv4_at(bytes, 12), ipv4_at(bytes, 16));
    // IPv4 2
    if source.is_loopback() || source.is_multicast() || source.is_broadcast() {
        return Err(Ipv4Martian);
    }
    if is_martian_destination(destination.into()) {
        return Err(Ipv4Martian);
    }
    // IPv4 3
    if options.contains(&131) || options.contains(&137) {
        return Err(Ipv4SourceRoute);
    }
    // IPv4 4
    let more = be16(bytes, 6) & 0x2000 != 0;
    let offset = be16(bytes, 6) & 0x1fff;
    let protocol = bytes[9];
    let payload = &bytes[header..total];
    if protocol == TCP && offset == 1 {
        return Err(Ipv4Fragment);
    }
    if offset > 0 && usize::from(offset) * 8 + payload.len() > 65_535 {
        return Err(Ipv4Fragment);
    }
    let whole_transport = match protocol {
        TCP => tcp_is_whole(payload),
        UDP | ICMP => payload.len() >= 8,
        _ => true,
    };
    if offset == 0 && !whole_transport {
        return Err(if more { Ipv4Fragment } else { Ipv4Malformed });
    }
    Ok(Packet {
        source: source.into(),
        destination: destination.into(),
        hop_limit: bytes[8],
        fragment: match (offset, more) {
            (0, false) => Fragment::No,
            (0, true) => Fragment::First,
            _ => Fragment::Later,
        },
        upper: Some(protocol),
        payload,
        whole: &bytes[..total],
    })
}

/// The types of the options before the end of their list; `ipv4-malformed` where one runs over the
/// end.
fn ipv4_option_types(mut options: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut types = Vec::new();
    while let Some(&kind) = options.first() {
        let length = match kind {
            0 => break,
            1 => 1,
            _ => {
                let length = usize::from(*options.get(1).ok_or(Ipv4Malformed)?);
                if length < 2 || length > options.len() {
                    return Err(Ipv4Malformed);
                }
                length
            }
        };
        types.push(kind);
        options = &options[length..];
    }
    Ok(types)
}

/// Uplink 4: sources that no packet on a wire may have.
fn is_nobodys(packet: &Packet<'_>) -> bool {
    let of_this_link = packet
        .icmpv6_type()
        .is_some_and(|icmp_type| matches!(icmp_type, 130..=137 | 143));
    match packet.source {
        IpAddr::V4(ip) => {
            ip.octets()[0] == 0 || ip.octets()[0] >= 240 || is_link_local(packet.source)
        }
        IpAddr::V6(ip) => {
            (is_embedded_ipv4(packet.source) && !ip.is_unspecified())
                || ip.is_multicast()
                || (!of_this_link && (ip.is_unspecified() || is_link_local(packet.source)))
        }
    }
}

/// Uplink 5, and what uplink 6 drops.
fn unwanted_from_outside(packet: &Packet<'_>) -> Result<(), DropReason> {
    // Uplink 5
    if is_dhcp_servers(packet) {
        return Err(DhcpServer);
    }
    routers_icmpv4(packet)?;
    if is_dhcpv6_servers(packet) {
        return Err(Dhcpv6Server);
    }
    // Uplink 6
    let Some(icmp_type) = packet.icmpv6_type() else {
        return Ok(());
    };
    if icmp_type == MLD_QUERY {
        return Err(MldQuery);
    }
    nd_well_formed(icmp_type, packet)?;
    match icmp_type {
        RA | 138 | 151 | 153 => Err(RouterAdvertisement),
        REDIRECT => Err(Redirect),
        141 | 142 => Err(NdSpoof),
        _ => Ok(()),
    }
}

/// IPv4 2, the destination's half.
fn is_martian_destination(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            ip.octets()[0] == 127
                || ip.octets()[0] == 0
                || (ip.octets()[0] >= 240 && !ip.is_broadcast())
        }
        IpAddr::V6(_) => false,
    }
}

/// IPv4 5 to 8.
fn ipv4_from_port(port: &PortConfig, packet: &Packet<'_>) -> Result<(), DropReason> {
    // IPv4 5
    if packet.source.is_unspecified() {
        if packet.destination != Ipv4Addr::BROADCAST || packet.upper != Some(UDP) {
            return Err(Ipv4Source);
        }
        return if is_dhcp_clients(packet, port.mac) {
            Ok(())
        } else {
            Err(DhcpClient)
        };
    }
    // IPv4 6
    if !owns(port, packet.source) {
        return Err(Ipv4Source);
    }
    // IPv4 7
    if !port.dhcp_server {
        if is_dhcp_servers(packet) {
            return Err(DhcpServer);
        }
        let to_server = packet.udp_ports().is_some_and(|(_, to)| to == 67);
        if to_server && !is_dhcp_clients(packet, port.mac) {
            return Err(DhcpClient);
        }
    }
    // IPv4 8
    routers_icmpv4(packet)?;
    // IPv4 9
    encapsulation(port, packet)
}

/// IPv4 8.
fn routers_icmpv4(packet: &Packet<'_>) -> Result<(), DropReason> {
    match packet.icmpv4_type() {
        Some(5) => Err(Redirect),
        Some(9) => Err(RouterAdvertisement),
        _ => Ok(()),
    }
}

/// IPv4 5: a DHCP client's message.
fn is_dhcp_clients(packet: &Packet<'_>, mac: MacAddr) -> bool {
    let message = packet.payload.get(8..).unwrap_or_default();
    packet.fragment == Fragment::No
        && packet.udp_ports() == Some((68, 67))
        && is_bootp(message, 1)
        && mac_at(message, 28) == mac.octets()
        && message[24..28] == [0; 4]
}

/// IPv4 5: "a BOOTP message of at least 240 bytes with op …, htype 1, hlen 6 …, and the magic
/// cookie".
fn is_bootp(message: &[u8], op: u8) -> bool {
    message.len() >= 240 && message[0..3] == [op, 1, 6] && message[236..240] == [99, 130, 83, 99]
}

/// IPv4 7: "UDP from port 67, or to port 68 as a first fragment or with a first payload byte of 2".
fn is_dhcp_servers(packet: &Packet<'_>) -> bool {
    let reply = packet.fragment == Fragment::First || packet.payload.get(8) == Some(&2);
    packet.source.is_ipv4()
        && packet
            .udp_ports()
            .is_some_and(|(from, to)| from == 67 || (to == 68 && reply))
}

/// IPv6 4: "UDP from port 547 or to port 546".
fn is_dhcpv6_servers(packet: &Packet<'_>) -> bool {
    packet.source.is_ipv6()
        && packet
            .udp_ports()
            .is_some_and(|(from, to)| from == 547 || to == 546)
}

/// IPv4 9 and IPv6 5.
fn encapsulation(port: &PortConfig, packet: &Packet<'_>) -> Result<(), DropReason> {
    let tunnel = matches!(packet.upper, Some(4 | 41 | 47));
    let teredo = packet
        .udp_ports()
        .is_some_and(|(from, to)| from == 3544 || to == 3544);
    if port.encapsulation == Encapsulation::Deny && (tunnel || teredo) {
        return Err(DropReason::Encapsulation);
    }
    Ok(())
}

// ### IPv6

const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const RS: u8 = 133;
const RA: u8 = 134;
const NS: u8 = 135;
const NA: u8 = 136;
const REDIRECT: u8 = 137;
const MLDV2_REPORT: u8 = 143;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

fn is_nd(icmp_type: u8) -> bool {
    (RS..=REDIRECT).contains(&icmp_type)
}

/// IPv6 1 and 2.
fn ipv6(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    // IPv6 1
    if bytes.len() < 40 || bytes[0] >> 4 != 6 {
        return Err(Ipv6Malformed);
    }
    let end = 40 + usize::from(be16(bytes, 4));
    if end > bytes.len() {
        return Err(Ipv6Malformed);
    }
    // IPv6 2
    let whole = &bytes[..end];
    let mut at = 40;
    let mut next = whole[6];
    let mut extension_headers = 0;
    let mut fragment = Fragment::No;
    let mut more = false;
    let cut_off = |fragment, more| {
        if fragment == Fragment::First && more {
            Ipv6Fragment
        } else {
            Ipv6Malformed
        }
    };
    let upper = loop {
        match next {
            // Extension headers.
            0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 => {}
            // Upper layers.
            TCP | UDP | ICMPV6 | 132 | 33 | 136 | 50 | 47 | 4 | 41 | 89 | 103 | 112 | 46 | 97
            | 108 | 59 => break Some(next),
            _ => return Err(Ipv6Chain),
        }
        let hop_by_hop_behind_another = next == 0 && extension_headers > 0;
        let second_fragment_header = next == 44 && fragment != Fragment::No;
        if hop_by_hop_behind_another || second_fragment_header || extension_headers == 8 {
            return Err(Ipv6Chain);
        }
        let rest = &whole[at..];
        if rest.len() < 8 {
            return Err(cut_off(fragment, more));
        }
        let length = match next {
            44 => 8,
            51 => (usize::from(rest[1]) + 2) * 4,
            _ => (usize::from(rest[1]) + 1) * 8,
        };
        if length > rest.len() {
            return Err(cut_off(fragment, more));
        }
        if next == 43 && rest[2] == 0 {
            return Err(Ipv6Chain);
        }
        extension_headers += 1;
        at += length;
        if next == 44 {
            let field = be16(rest, 2);
            if usize::from(field >> 3) * 8 + (whole.len() - at) > 65_535 {
                return Err(Ipv6Fragment);
            }
            more = field & 1 != 0;
            fragment = if field >> 3 == 0 {
                Fragment::First
            } else {
                Fragment::Later
            };
        }
        next = rest[0];
        // "Behind a fragment header with offset ≠ 0 nothing is read."
        if fragment == Fragment::Later {
            break None;
        }
    };
    let payload = &whole[at..];
    let whole_transport = match upper {
        Some(TCP) => tcp_is_whole(payload),
        Some(UDP) => payload.len() >= 8,
        Some(ICMPV6) => payload.len() >= 4,
        _ => true,
    };
    if !whole_transport {
        return Err(cut_off(fragment, more));
    }
    Ok(Packet {
        source: ipv6_at(bytes, 8).into(),
        destination: ipv6_at(bytes, 24).into(),
        hop_limit: bytes[7],
        fragment,
        upper,
        payload,
        whole,
    })
}

/// IPv6 3 to 6.
fn ipv6_from_port(port: &PortConfig, packet: &Packet<'_>) -> Result<(), DropReason> {
    let IpAddr::V6(source) = packet.source else {
        unreachable!("an IPv6 packet has an IPv6 source");
    };
    // IPv6 3
    if source.is_unspecified() {
        let may_be_unspecified = packet.fragment == Fragment::No
            && matches!(
                packet.icmpv6_type(),
                Some(RS | NS | MLD_REPORT | MLD_DONE | MLDV2_REPORT)
            );
        if !may_be_unspecified {
            return Err(Ipv6Source);
        }
    } else if !owns_or_link_local(port, source) {
        return Err(Ipv6Source);
    }
    // IPv6 4
    if !port.dhcp_server && is_dhcpv6_servers(packet) {
        return Err(Dhcpv6Server);
    }
    // IPv6 5
    encapsulation(port, packet)?;
    // IPv6 6
    let Some(icmp_type) = packet.icmpv6_type() else {
        return Ok(());
    };
    nd_well_formed(icmp_type, packet)?;
    let mac = port.mac.octets();
    let says = |kind, allowed: bool| {
        nd_options(icmp_type, packet.payload)
            .iter()
            .filter(|option| option.kind == kind)
            .all(|option| allowed && option.body == mac)
    };
    let honest = match icmp_type {
        RA | 138 | 151 | 153 => return Err(RouterAdvertisement),
        REDIRECT => return Err(Redirect),
        141 | 142 => return Err(NdSpoof),
        NS if !source.is_unspecified() => says(SOURCE_LINK_LAYER, true),
        NS => {
            let target = nd_target(packet.payload);
            owns_or_link_local(port, target)
                && packet.destination == solicited_node(target)
                && says(SOURCE_LINK_LAYER, false)
        }
        NA => {
            let router_flag = packet.payload[4] & 0x80 != 0;
            owns_or_link_local(port, nd_target(packet.payload))
                && says(TARGET_LINK_LAYER, true)
                && !router_flag
        }
        RS => says(SOURCE_LINK_LAYER, !source.is_unspecified()),
        MLD_QUERY => return Err(MldQuery),
        _ => true,
    };
    if honest { Ok(()) } else { Err(NdSpoof) }
}

/// IPv6 6, its first point.
fn nd_well_formed(icmp_type: u8, packet: &Packet<'_>) -> Result<(), DropReason> {
    if !is_nd(icmp_type) {
        return Ok(());
    }
    let message = packet.payload;
    let unicast_target = || !matches!(icmp_type, NS | NA) || !nd_target(message).is_multicast();
    let well_formed = packet.fragment == Fragment::No
        && packet.hop_limit == 255
        && message[1] == 0
        && message.len() >= nd_fixed_part(icmp_type)
        && nd_options_are_whole(icmp_type, message)
        && unicast_target()
        && icmpv6_sum(packet) == 0xffff;
    if well_formed {
        Ok(())
    } else {
        Err(NdMalformed)
    }
}

fn nd_fixed_part(icmp_type: u8) -> usize {
    match icmp_type {
        RS => 8,
        RA => 16,
        NS | NA => 24,
        _ => 40,
    }
}

/// The target of a solicitation or advertisement whose fixed part is whole.
fn nd_target(message: &[u8]) -> Ipv6Addr {
    ipv6_at(message, 8)
}

struct NdOption<'a> {
    kind: u8,
    /// What follows type and length.
    body: &'a [u8],
}

fn nd_options_are_whole(icmp_type: u8, message: &[u8]) -> bool {
    let mut rest = &message[nd_fixed_part(icmp_type)..];
    while !rest.is_empty() {
        if rest.len() < 2 {
            return false;
        }
        let (kind, length) = (rest[0], usize::from(rest[1]) * 8);
        let link_layer = kind == SOURCE_LINK_LAYER || kind == TARGET_LINK_LAYER;
        if length == 0 || length > rest.len() || (link_layer && length != 8) {
            return false;
        }
        rest = &rest[length..];
    }
    true
}

/// The options of a message that [`nd_options_are_whole`].
fn nd_options(icmp_type: u8, message: &[u8]) -> Vec<NdOption<'_>> {
    let mut rest = &message[nd_fixed_part(icmp_type)..];
    let mut options = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(rest[1]) * 8;
        options.push(NdOption {
            kind: rest[0],
            body: &rest[2..length],
        });
        rest = &rest[length..];
    }
    options
}

fn solicited_node(target: Ipv6Addr) -> IpAddr {
    let [.., a, b, c] = target.octets();
    let mut group = "ff02::1:ff00:0"
        .parse::<Ipv6Addr>()
        .expect("an address")
        .octets();
    group[13..].copy_from_slice(&[a, b, c]);
    Ipv6Addr::from(group).into()
}

/// RFC 4443 2.3: over the pseudo-header and the message; right where it is 0xffff.
fn icmpv6_sum(packet: &Packet<'_>) -> u16 {
    let mut covered = Vec::new();
    covered.extend(&packet.whole[8..40]);
    covered.extend((packet.payload.len() as u32).to_be_bytes());
    covered.extend([0, 0, 0, ICMPV6]);
    covered.extend(packet.payload);
    ones_complement_sum(&covered)
}

// ### Storm control

/// A token bucket with a burst of one second, in billionths of a token so that no rounding occurs.
#[derive(Debug, Clone)]
struct Bucket {
    per_second: u128,
    nano_tokens: u128,
    filled_ns: u64,
}

impl Bucket {
    const NANO: u128 = 1_000_000_000;

    fn new(per_second: u64) -> Self {
        Self {
            per_second: per_second.into(),
            nano_tokens: u128::from(per_second) * Self::NANO,
            filled_ns: 0,
        }
    }

    /// The port's buckets in the order of the page.
    fn of_port(port: &PortConfig) -> [Option<Self>; 5] {
        let limits = &port.limits;
        [
            limits.arp_nd_pps.map(u64::from),
            limits.dhcp_pps.map(u64::from),
            limits.broadcast_pps.map(u64::from),
            limits.pps.map(u64::from),
            limits.bps,
        ]
        .map(|limit| limit.map(Self::new))
    }

    fn take(&mut self, now_ns: u64, tokens: u64) -> bool {
        let elapsed = u128::from(now_ns - self.filled_ns);
        self.filled_ns = now_ns;
        self.nano_tokens =
            (self.nano_tokens + elapsed * self.per_second).min(self.per_second * Self::NANO);
        match self
            .nano_tokens
            .checked_sub(u128::from(tokens) * Self::NANO)
        {
            Some(rest) => {
                self.nano_tokens = rest;
                true
            }
            None => false,
        }
    }
}

// What the rows speak of.

fn prefixes(port: &PortConfig) -> &[ipnet::IpNet] {
    match &port.addresses {
        Addresses::Static(prefixes) => prefixes,
        // Nothing is acknowledged in these tests.
        Addresses::Learned(_) => &[],
    }
}

/// "One of the port's addresses."
fn owns(port: &PortConfig, address: IpAddr) -> bool {
    prefixes(port).iter().any(|net| net.contains(&address))
}

/// "One of the port's addresses (its link-local counts)."
fn owns_or_link_local(port: &PortConfig, address: Ipv6Addr) -> bool {
    owns(port, address.into()) || address == port.mac.link_local()
}

fn nets(
    ipv4: Option<ipnet::Ipv4Net>,
    ipv6: Option<ipnet::Ipv6Net>,
) -> impl Iterator<Item = ipnet::IpNet> {
    let ipv4 = ipv4.map(ipnet::IpNet::V4);
    let ipv6 = ipv6.map(ipnet::IpNet::V6);
    ipv4.into_iter().chain(ipv6)
}

/// Route 4: 169.254.0.0/16 or fe80::/10.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.octets()[..2] == [169, 254],
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// Route 4: ::/96 and ::ffff:0:0/96.
fn is_embedded_ipv4(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.segments()[..5] == [0; 5] && [0, 0xffff].contains(&ip.segments()[5]),
    }
}

fn is_group(mac: [u8; 6]) -> bool {
    mac[0] & 1 != 0
}

// Reading bytes, in network order.

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) * 256 + u16::from(bytes[at + 1])
}

fn mac_at(bytes: &[u8], at: usize) -> [u8; 6] {
    bytes[at..at + 6].try_into().expect("six bytes")
}

fn ipv4_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    let octets: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
    octets.into()
}

fn ipv6_at(bytes: &[u8], at: usize) -> Ipv6Addr {
    let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("sixteen bytes");
    octets.into()
}

/// RFC 1071; an odd last byte counts as if a zero followed it.
fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
