//! The rows of "Services and route".

use super::*;

/// The target of an address in the route table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Port(usize),
    /// A shared address: to whoever holds it.
    Shared,
    /// Into the tunnel, to the peer of that number.
    Peer(usize),
    Uplink,
    Underlay,
    Nowhere,
}

impl Model {
    pub(super) fn services_and_route(
        &mut self,
        from: usize,
        port: &PortConfig,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
    ) -> Outcome {
        let group = is_group(ethernet.destination);

        // Route 1
        if let Some(outcome) = self.own_dhcp(from, group, packet) {
            return outcome;
        }
        if let Some(outcome) = self.own_dhcp6(port, ethernet, packet) {
            return outcome;
        }
        if let Some(takers) = self.dhcp_taker(from, port, packet) {
            return self.copies_to_servers(&takers, packet);
        }
        // Route 2: "by the rows of metadata"
        if let Some(outcome) = self.metadata(from, ethernet, packet) {
            return outcome;
        }
        let with_error_of = |reason, mtu| self.with_error(ethernet, packet, reason, mtu);
        let with_error = |reason| with_error_of(reason, None);
        let too_big = |mtu| with_error_of(Mtu, Some(mtu));
        // Route 2
        if self.is_gateway(packet.destination)
            || packet.destination == IpAddr::V6(port.gateway_mac.link_local())
        {
            return if group {
                DstMac.into()
            } else if packet.is_echo_request() {
                Outcome::Reply(Answer::Echo)
            } else if let Some(answer) = self.name_service(from, port, ethernet, packet) {
                answer
            } else if packet.udp_ports().is_some() {
                self.with_error(ethernet, packet, GatewayService, None)
            } else {
                GatewayService.into()
            };
        }
        // Route 3
        if self.is_multicast(packet.destination) {
            return self.group_row(Listener::Port(from), ethernet, packet);
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
        let way = self.route(packet.destination);
        if let Some(outcome) = self.fragmented(from, way, packet) {
            return outcome;
        }
        match way {
            Route::Nowhere => with_error(RouteNone),
            Route::Port(to) if to == from => with_error(RouteNone),
            Route::Underlay => Underlay.into(),
            Route::Shared if self.holder(packet.destination).is_none() => HolderUnknown.into(),
            Route::Shared if self.is_holder(from, packet.destination) => with_error(RouteNone),
            Route::Uplink if self.stands_for_closed(packet.destination) => EmbeddedAddress.into(),
            // Route 7
            _ if is_link_local(packet.source) => LinkLocalIp.into(),
            Route::Shared => match self.leave_to_holder(packet, too_big) {
                Ok(outcome) => outcome,
                Err(reason) => reason.into(),
            },
            Route::Port(to) => self.leave(to, packet, too_big),
            Route::Peer(peer) => self.enter_tunnel(peer, packet, with_error_of),
            Route::Uplink if packet.hop_limit <= 1 => with_error(Ttl),
            Route::Uplink => self.leave(self.uplink(), packet, too_big),
        }
    }

    /// A drop with an ICMP error: "None is sent where the gateway has no address of that family,
    /// about a fragment other than the first, about an ICMP error, or about a packet with an
    /// Ethernet group destination."
    pub(super) fn with_error(
        &self,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
        reason: DropReason,
        mtu: Option<u16>,
    ) -> Outcome {
        let has_address = match packet.source {
            IpAddr::V4(_) => self.config.gateway.ipv4.is_some(),
            IpAddr::V6(_) => self.config.gateway.ipv6.is_some(),
        };
        Outcome::Drop {
            reason,
            icmp_error: packet.fragment != Fragment::Later
                && !packet.is_icmp_error()
                && !is_group(ethernet.destination)
                && has_address,
            mtu,
        }
    }

    /// "Larger than the port's own `mtu`."
    pub(super) fn too_large(
        &self,
        port: &PortConfig,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
    ) -> Option<Outcome> {
        let too_large = packet.whole.len() > usize::from(port.mtu);
        too_large.then(|| self.with_error(ethernet, packet, Mtu, Some(port.mtu)))
    }

    /// Route 8 and 9, and the frame that leaves.
    pub(super) fn leave(
        &self,
        to: usize,
        packet: &Packet<'_>,
        too_big: impl FnOnce(u16) -> Outcome,
    ) -> Outcome {
        let (mtu, own_mac, next_mac) = match self.config.ports.get(to) {
            Some(port) => {
                let shared = self.is_shared(packet.destination);
                let held = self.holder(packet.destination).filter(|_| shared);
                let mac = held.map_or(port.mac.octets(), |(_, mac)| mac);
                (port.mtu, port.gateway_mac, Some(mac))
            }
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
            // Route 7: "otherwise it is decremented".
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

    /// Route 6: "longest prefix".
    pub(super) fn route(&self, destination: IpAddr) -> Route {
        let mut routes: Vec<(u8, Route)> = Vec::new();
        for (number, port) in self.config.ports.iter().enumerate() {
            for prefix in prefixes(port) {
                if prefix.contains(&destination) {
                    routes.push((prefix.prefix_len(), Route::Port(number)));
                }
            }
        }
        if self.is_shared(destination) {
            let whole = if destination.is_ipv4() { 32 } else { 128 };
            routes.push((whole, Route::Shared));
        }
        let tunnel = self.config.tunnel.as_ref();
        for (number, peer) in tunnel.iter().flat_map(|tunnel| &tunnel.peers).enumerate() {
            for prefix in &peer.prefixes {
                // "The gateway's own address and its subnet's first and broadcast address are
                // behind no peer."
                let ours = self.is_gateway(destination)
                    || self.is_multicast(destination)
                    || self.is_first(destination)
                    || tunnel.is_some_and(|it| it.peers.iter().any(|it| is_of(it, destination)));
                if prefix.contains(&destination) && !ours {
                    routes.push((prefix.prefix_len(), Route::Peer(number)));
                }
            }
            // "The VTEPs and sources of peers are closed to the VMs."
            if is_of(peer, destination) {
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
            // With `only`, neither external addresses nor the underlay are reached.
            let has_next_hop = has_next_hop && !tunnel.is_some_and(|tunnel| tunnel.only);
            let allowed = has_next_hop
                && uplink.allow.iter().any(|net| net.contains(&destination))
                && uplink.own_addresses().all(|own| own != destination)
                && !self.is_edge_of_underlay(destination);
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
        // Of equal lengths the first wins: a port or a peer before the subnet of the same length.
        let longest = routes.iter().map(|(length, _)| *length).max();
        let found = routes.iter().find(|(length, _)| Some(*length) == longest);
        found.map_or(Route::Nowhere, |(_, route)| *route)
    }

    /// Whether `address` is the first of the gateway's subnet, which no station may have unless the
    /// subnet has at most two addresses.
    pub(super) fn is_first(&self, address: IpAddr) -> bool {
        nets(self.config.gateway.ipv4, self.config.gateway.ipv6)
            .into_iter()
            .any(|net| net.max_prefix_len() - net.prefix_len() > 1 && net.network() == address)
    }

    /// Whether the gateway answers with its MAC for `address` at port `from`: its own address, or
    /// "an address whose packets would be routed to another port, a peer or the uplink".
    pub(super) fn answers_for(&self, from: usize, address: IpAddr) -> bool {
        let leads_on = match self.route(address) {
            Route::Uplink if self.stands_for_closed(address) => false,
            Route::Port(to) => to != from,
            Route::Uplink | Route::Peer(_) => true,
            // Asked before.
            Route::Shared | Route::Underlay | Route::Nowhere => false,
        };
        self.is_gateway(address)
            || self.serves_metadata(from, address)
            || (self.reaches_the_route(address) && leads_on)
    }

    /// Whether packets to `address` reach the longest prefix of row 6.
    pub(super) fn reaches_the_route(&self, address: IpAddr) -> bool {
        !is_martian_destination(address)
            && !self.is_multicast(address)
            && !is_link_local(address)
            && !address.is_unspecified()
            && !is_embedded_ipv4(address)
    }
}
