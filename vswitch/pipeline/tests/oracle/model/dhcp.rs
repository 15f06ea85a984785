//! DHCP: the shape of the messages, and the port that they go to.

use super::*;

/// IPv4 5: a DHCP client's message.
pub(super) fn is_dhcp_clients(packet: &Packet<'_>, mac: MacAddr) -> bool {
    packet.fragment == Fragment::No
        && packet.udp_ports() == Some((68, 67))
        && Message::read(packet.payload)
            .is_some_and(|message| message.mac == mac.octets() && !message.relayed)
}

/// IPv4 5: "a BOOTP message of at least 240 bytes with op …, htype 1, hlen 6 …, and the magic
/// cookie".
pub(super) fn is_bootp(message: &[u8], op: u8) -> bool {
    message.len() >= 240 && message[0..3] == [op, 1, 6] && message[236..240] == [99, 130, 83, 99]
}

/// IPv4 7: "UDP from port 67, or to port 68 as a first fragment or with a first payload byte of 2".
pub(super) fn is_dhcp_servers(packet: &Packet<'_>) -> bool {
    let reply = packet.fragment == Fragment::First || packet.payload.get(8) == Some(&2);
    packet.source.is_ipv4()
        && packet
            .udp_ports()
            .is_some_and(|(from, to)| from == 67 || (to == 68 && reply))
}

/// IPv6 4: "UDP from port 547 or to port 546".
pub(super) fn is_dhcpv6_servers(packet: &Packet<'_>) -> bool {
    packet.source.is_ipv6()
        && packet
            .udp_ports()
            .is_some_and(|(from, to)| from == 547 || to == 546)
}

/// Route 1: "with the broadcast flag set, if its `ciaddr` is 0.0.0.0".
fn have_answers_broadcast(datagram: &mut [u8]) {
    if datagram[20..24] != [0; 4] || datagram[18] & 0x80 != 0 {
        return;
    }
    datagram[18] |= 0x80;
    let checksum = be16(datagram, 6);
    if checksum != 0 {
        // By as much as the word grew, in one's complement; a sum of zero is written as all ones.
        let sum =
            ones_complement_sum(&[checksum.to_be_bytes(), (!0x8000_u16).to_be_bytes()].concat());
        datagram[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    }
}

impl Model {
    /// Route 1: "a DHCP client's broadcast", where a port serves: its message of ports 68 to 67 or
    /// 4011, to 255.255.255.255 or the broadcast address of the gateway's subnet.
    pub(super) fn is_to_all_servers(&self, port: &PortConfig, packet: &Packet<'_>) -> bool {
        let served = self.config.ports.iter().any(|port| port.dhcp_server);
        self.is_for_all_servers(packet)
            && served
            && Message::read(packet.payload)
                .is_some_and(|message| message.mac == port.mac.octets() && !message.relayed)
    }

    /// The same, whatever it says.
    pub(super) fn is_for_all_servers(&self, packet: &Packet<'_>) -> bool {
        packet.source.is_ipv4()
            && packet.fragment == Fragment::No
            && matches!(packet.udp_ports(), Some((68, 67 | 4011)))
            && self.is_multicast(packet.destination)
            && !packet.destination.is_multicast()
    }

    /// The frame to each of these servers whose MTU it does not exceed.
    pub(super) fn copies_to_servers(&mut self, takers: &[usize], packet: &Packet<'_>) -> Outcome {
        let fits = |to: &usize| packet.whole.len() <= usize::from(self.config.ports[*to].mtu);
        let (fit, small): (Vec<usize>, Vec<usize>) = takers.iter().partition(|to| fits(to));
        if takers.is_empty() {
            return DhcpNoServer.into();
        }
        if fit.is_empty() {
            return Mtu.into();
        }
        self.groups
            .unsent
            .extend(small.into_iter().map(|to| (to, Mtu)));
        let mut whole = packet.whole.to_vec();
        if packet.udp_ports().is_some_and(|(from, _)| from == 68) {
            let at = packet.whole.len() - packet.payload.len();
            have_answers_broadcast(&mut whole[at..]);
        }
        let packet = Packet {
            whole: &whole,
            ..*packet
        };
        let mut copies: Vec<Outcome> = fit
            .into_iter()
            .map(|to| self.leave(to, &packet, |_| Mtu.into()))
            .collect();
        match copies.len() {
            1 => copies.remove(0),
            _ => Outcome::Copies(copies),
        }
    }

    /// Route 1: the ports that a client's message to all servers goes to, or a server's to a
    /// client; empty if there is none. `None` for other packets.
    pub(super) fn dhcp_taker(
        &self,
        from: usize,
        port: &PortConfig,
        packet: &Packet<'_>,
    ) -> Option<Vec<usize>> {
        let mut others = (0..self.config.ports.len()).filter(|&other| other != from);
        let servers = others
            .clone()
            .filter(|&other| self.config.ports[other].dhcp_server);
        if packet.source.is_ipv6() {
            let (source, to) = packet.udp_ports()?;
            let all_servers: IpAddr = "ff02::1:2".parse().expect("an address");
            if !port.dhcp_server {
                let asks = to == 547 && packet.destination == all_servers;
                return asks.then(|| servers.collect());
            }
            if packet.fragment != Fragment::No || (source != 547 && to != 546) {
                return None;
            }
            let client = self.port_of_link_local(packet.destination);
            return client.filter(|client| *client != from).map(|to| vec![to]);
        }
        if packet.source.is_unspecified() || self.is_to_all_servers(port, packet) {
            return Some(servers.collect());
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
            return Some(others.find(is_clients).into_iter().collect());
        }
        None
    }
}
