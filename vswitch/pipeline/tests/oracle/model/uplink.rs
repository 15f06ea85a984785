//! The rows of "From the uplink".

use super::*;

/// Uplink 4: sources that are invalid on a wire.
pub(super) fn is_invalid_source(packet: &Packet<'_>) -> bool {
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

/// Uplink 5, and the drops of uplink 6.
pub(super) fn unwanted_from_outside(packet: &Packet<'_>) -> Result<(), DropReason> {
    // Uplink 5
    if is_dhcp_servers(packet) {
        return Err(DhcpServer);
    }
    let to = packet.udp_ports().map(|(_, to)| to);
    if to == Some(67) && packet.source.is_ipv4() {
        return Err(DhcpClient);
    }
    routers_messages4(packet)?;
    if is_dhcpv6_servers(packet) {
        return Err(Dhcpv6Server);
    }
    if to == Some(547) && packet.source.is_ipv6() {
        return Err(Dhcpv6Client);
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
        RA | 138 | 145 | 147 | 149 | 151 | 153 | 154 | 155 => Err(RouterAdvertisement),
        REDIRECT | 156 => Err(Redirect),
        141 | 142 | 157 | 158 => Err(NdSpoof),
        _ => Ok(()),
    }
}

impl Model {
    pub(super) fn of_uplink(
        &mut self,
        uplink: &UplinkConfig,
        frame: &[u8],
        tag: Option<u16>,
    ) -> Result<Outcome, DropReason> {
        self.last_tag = None;
        // Uplink 1: Ethernet 1, 2 and 4 to 8, as with `trunk` and the VID 0.
        let ethernet = ethernet(frame, tag, (uplink.mtu, false), &[0], |source| {
            source != uplink.mac.octets()
        })?;
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
    pub(super) fn arp_from_uplink(
        &mut self,
        uplink: &UplinkConfig,
        ethernet: &Ethernet<'_>,
    ) -> Result<Outcome, DropReason> {
        let arp = well_formed_arp(ethernet.payload)?;
        // "A sender hardware address that is no unicast station's, or the uplink's own."
        let own_mac = uplink.mac.octets();
        if is_group(arp.hardware) || arp.hardware == [0; 6] || arp.hardware == own_mac {
            return Err(ArpSenderMac);
        }
        let no_station = match arp.sender.octets()[0] {
            0 => !arp.sender.is_unspecified(),
            first => first == 127 || first >= 224,
        };
        if no_station || self.is_edge_of_underlay(arp.sender.into()) {
            return Err(ArpSenderIp);
        }
        if in_strange_group(ethernet) {
            return Err(DstMac);
        }
        let announces = arp.opcode == 2 || arp.sender == arp.target;
        if self.next_hops().contains(&arp.sender.into()) {
            self.teach(arp.sender.into(), arp.hardware);
            if announces {
                return Err(Absorbed);
            }
        }
        let own = uplink.own_addresses().any(|own| own == arp.target);
        if !announces && own {
            return Ok(Outcome::Reply(Answer::Arp {
                mac: uplink.mac.octets(),
                address: arp.target,
            }));
        }
        Err(ArpUnknown)
    }

    pub(super) fn ip_from_uplink(
        &mut self,
        uplink: &UplinkConfig,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
    ) -> Result<Outcome, DropReason> {
        self.rows_4_to_6(uplink, packet)?;
        if let Some(outcome) = self.ipsec_from_uplink(uplink, ethernet, packet) {
            return outcome;
        }
        self.behind_ipsec(uplink, ethernet, packet, None)
    }

    /// Uplink 4, 5, and the drops of 6.
    pub(super) fn rows_4_to_6(
        &self,
        uplink: &UplinkConfig,
        packet: &Packet<'_>,
    ) -> Result<(), DropReason> {
        // Uplink 4
        let gateway = &self.config.gateway;
        let inside = nets(gateway.ipv4, gateway.ipv6).any(|net| net.contains(&packet.source))
            || uplink.own_addresses().any(|own| own == packet.source)
            || self
                .config
                .ports
                .iter()
                .any(|port| owns(port, packet.source));
        // "Behind a peer (unless the packet is to the uplink's own address)."
        let to_us = uplink.own_addresses().any(|own| own == packet.destination);
        // Link-local addresses and `::` are behind no peer.
        let of_the_link = match packet.source {
            IpAddr::V4(ip) => ip.is_unspecified() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unspecified() || ip.is_unicast_link_local(),
        };
        let behind_peer =
            !to_us && !of_the_link && matches!(self.route(packet.source), Route::Peer(_));
        let edge = self.is_edge_of_underlay(packet.source);
        let closed = self.stands_for_closed(packet.source);
        let refused = inside || behind_peer || edge || closed || is_invalid_source(packet);
        if refused && !self.is_of_a_router(uplink, packet) {
            return Err(IngressSource);
        }
        // Uplink 5 and 6
        unwanted_from_outside(packet)
    }

    /// "A report that a packet is too big or does not arrive": its router has any address but the
    /// uplink's own, the subnet's first or last one, and those that are invalid on any wire.
    fn is_of_a_router(&self, uplink: &UplinkConfig, packet: &Packet<'_>) -> bool {
        let is_own = |address| uplink.own_addresses().any(|own| own == address);
        let invalid = is_invalid_source(packet) && !is_link_local(packet.source);
        self.config.tunnel.is_some()
            && is_own(packet.destination)
            && !is_own(packet.source)
            && !invalid
            && !self.is_edge_of_underlay(packet.source)
            && !self.stands_for_closed(packet.source)
            && Complaint::of(packet).is_some()
    }

    /// The rows that follow those of IPsec; `carried` if an SA has carried the packet.
    pub(super) fn behind_ipsec(
        &mut self,
        uplink: &UplinkConfig,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
        carried: Option<Carried>,
    ) -> Result<Outcome, DropReason> {
        if self.is_tunnelled(packet) {
            if is_group(ethernet.destination) {
                return Err(DstMac);
            }
            return self.out_of_tunnel(packet, carried);
        }
        // Uplink 6
        if answers_nothing(ethernet, packet) {
            return Err(DstMac);
        }
        if let Some(icmp_type) = packet.icmpv6_type()
            && let Some(outcome) = self.nd_from_uplink(uplink, ethernet, icmp_type, packet)
        {
            return Ok(outcome);
        }
        // Uplink 7
        if uplink.own_addresses().any(|own| own == packet.destination) {
            if is_group(ethernet.destination) {
                return Err(DstMac);
            }
            if packet.is_echo_request() {
                return Ok(Outcome::Reply(Answer::Echo));
            }
            if let Some(outcome) = self.report(packet) {
                return Ok(outcome);
            }
            if let Some(outcome) = self.resolver_says(packet) {
                return Ok(outcome);
            }
            return Err(GatewayService);
        }
        self.route_from_uplink(ethernet, packet)
    }

    /// Uplink 6: the messages that the switch handles itself. `None` for other messages.
    fn nd_from_uplink(
        &mut self,
        uplink: &UplinkConfig,
        ethernet: &Ethernet<'_>,
        icmp_type: u8,
        packet: &Packet<'_>,
    ) -> Option<Outcome> {
        match icmp_type {
            RS | MLD_REPORT | MLD_DONE | MLDV2_REPORT => Some(Absorbed.into()),
            NA => {
                let target = nd_target(packet.payload);
                if !self.next_hops().contains(&target.into()) {
                    return Some(NdUnknown.into());
                }
                let reported = nd_options(icmp_type, packet.payload)
                    .into_iter()
                    .find(|option| option.kind == TARGET_LINK_LAYER)
                    .and_then(|option| <[u8; 6]>::try_from(option.body).ok());
                let mac = reported.unwrap_or(ethernet.source);
                if !is_group(mac) && mac != [0; 6] && mac != uplink.mac.octets() {
                    self.teach(target.into(), mac);
                }
                Some(Absorbed.into())
            }
            NS => {
                let said = nd_options(icmp_type, packet.payload)
                    .into_iter()
                    .find(|option| option.kind == SOURCE_LINK_LAYER)
                    .and_then(|option| <[u8; 6]>::try_from(option.body).ok());
                if let Some(mac) = said
                    && self.next_hops().contains(&packet.source)
                    && !is_group(mac)
                    && mac != [0; 6]
                    && mac != uplink.mac.octets()
                {
                    self.teach(packet.source, mac);
                }
                let target = nd_target(packet.payload);
                let linked = |hop: &IpAddr| hop.is_ipv6() && is_link_local(*hop);
                let own = uplink.own_addresses().any(|own| own == target)
                    || (self.next_hops().iter().any(linked) && target == uplink.mac.link_local());
                if !own || packet.source.is_unspecified() {
                    return Some(NdUnknown.into());
                }
                Some(Outcome::Reply(Answer::NeighborAdvertisement {
                    mac: uplink.mac.octets(),
                    address: target,
                }))
            }
            _ => None,
        }
    }

    /// Uplink 8.
    fn route_from_uplink(
        &self,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
    ) -> Result<Outcome, DropReason> {
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
        let too_big = |mtu| self.with_error(ethernet, packet, Mtu, Some(mtu));
        match self.route(packet.destination) {
            Route::Port(_) | Route::Shared if only => Err(TunnelOnly),
            Route::Shared => self.leave_to_holder(packet, too_big),
            Route::Port(to) => Ok(self.leave(to, packet, too_big)),
            Route::Peer(_) | Route::Uplink | Route::Underlay => Err(NoTransit),
            Route::Nowhere => Err(RouteNone),
        }
    }
}
