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

impl Model {
    /// Route 1: the port that a client's message to all servers goes to, or a server's to a client;
    /// `Some(None)` if there is none. `None` for other packets.
    pub(super) fn dhcp_taker(
        &self,
        from: usize,
        port: &PortConfig,
        packet: &Packet<'_>,
    ) -> Option<Option<usize>> {
        let mut others = (0..self.config.ports.len()).filter(|&other| other != from);
        if packet.source.is_ipv6() {
            let (source, to) = packet.udp_ports()?;
            let all_servers: IpAddr = "ff02::1:2".parse().expect("an address");
            if !port.dhcp_server {
                let asks = to == 547 && packet.destination == all_servers;
                return asks.then(|| others.find(|&other| self.config.ports[other].dhcp_server));
            }
            if packet.fragment != Fragment::No || (source != 547 && to != 546) {
                return None;
            }
            let client = self.port_of_link_local(packet.destination);
            return client.filter(|client| *client != from).map(Some);
        }
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
}
