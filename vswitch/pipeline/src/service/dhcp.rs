//! DHCP's relay between a tenant's clients and its server, and the leases that ports learn from it.

use packet::number::port;
use packet::wire::dhcp::{self, Bootp, ClientMessage};
use packet::wire::{ETHERNET_LEN, Fragment, Ipv4, Ipv6, Packet, dhcp6};
use packet::{DropReason, Frame, addr};

use crate::filter::client;
use crate::ids::PortId;
use crate::pass::{Outcome, Pass};
use crate::stage::{Notes, Stage};
use crate::tables::{PortRules, Target};

impl<N: Notes> Pass<'_, N> {
    /// Passes a client's broadcast to the server, and the server's messages to their client. Where
    /// no port serves, the gateway does. `None` for any other packet.
    #[inline(always)]
    pub(super) fn relay_dhcp(
        &mut self,
        rules: &PortRules,
        (packet, ip): (&Packet, &Ipv4),
        frame: &mut Frame<'_>,
    ) -> Option<Outcome> {
        if self.tables.has_dhcp {
            self.relay_to_receiver(rules, ip, frame)
        } else if dhcp::is_request(ip) {
            self.serve_dhcp(rules, (packet, ip), frame)
        } else {
            None
        }
    }

    fn relay_to_receiver(
        &mut self,
        rules: &PortRules,
        ip: &Ipv4,
        frame: &mut Frame<'_>,
    ) -> Option<Outcome> {
        let packet = frame.bytes().get(ETHERNET_LEN..)?;
        let payload = ip.udp_payload(packet);
        let to_all = self.is_to_all_servers(ip);
        let is_proxys = to_all && dhcp::is_proxy_request(ip);
        if is_proxys || (dhcp::is_request(ip) && (to_all || !rules.dhcp_server)) {
            let message = ClientMessage::parse(ip.payload(packet));
            let message = message.filter(|message| message.bootp.client_mac == rules.mac);
            // The filter has let pass no other message to port 67 of a port that is no server.
            let Some(message) = message else {
                return is_proxys.then(|| self.refuse(Stage::Service, DropReason::DhcpClient));
            };
            let judged = client::from_client(self.tables, self.state, rules, &message, self.now_ns);
            if let Err(reason) = judged {
                return Some(self.refuse(Stage::Service, reason));
            }
            if to_all {
                let datagram = ETHERNET_LEN + usize::from(ip.header_len);
                dhcp::ask_for_broadcasts(frame.bytes_mut().get_mut(datagram..).unwrap_or_default());
                let len = usize::from(ip.total_len);
                return Some(self.relay_to_servers(rules, len, frame));
            }
        }
        let receiver = if rules.dhcp_server && dhcp::is_reply(ip, packet) {
            self.dhcp_client_of(rules, payload)
        } else {
            return None;
        };
        let Some(id) = receiver else {
            return Some(self.refuse(Stage::Service, DropReason::DhcpNoServer));
        };
        let to = self.tables.port(id);
        if ip.total_len > to.mtu {
            return Some(self.refuse(Stage::Service, DropReason::Mtu));
        }
        self.notes.note(
            Stage::Service,
            format_args!("DHCP between a client and the server"),
        );
        Some(self.rewrite_to_port(
            frame,
            usize::from(ip.total_len),
            to,
            Some(u128::from(ip.destination)),
        ))
    }

    /// Whether a packet is a broadcast, which all DHCP servers get.
    fn is_to_all_servers(&self, ip: &Ipv4) -> bool {
        ip.destination == u32::MAX || self.tables.route4(ip.destination) == Some(Target::Broadcast)
    }

    /// Passes a client's message to all servers on.
    fn relay_to_servers(
        &mut self,
        rules: &PortRules,
        len: usize,
        frame: &mut Frame<'_>,
    ) -> Outcome {
        let servers = self.tables.dhcp_servers_for(rules.id);
        self.notes.note(
            Stage::Service,
            format_args!("DHCP from a client to all servers"),
        );
        self.send_to_servers(rules.id, servers, len, frame)
    }

    /// Judges what a DHCPv6 client says to a server, and notes what a server grants. Passes a
    /// client's message to all servers to the tenant's, and the server's messages to the client's
    /// link-local address. Where no port serves, the gateway does. `None` for any other packet,
    /// which goes its way by its address.
    #[inline(always)]
    pub(super) fn relay_dhcp6(
        &mut self,
        rules: &PortRules,
        (packet, ip): (&Packet, &Ipv6),
        frame: &mut Frame<'_>,
    ) -> Option<Outcome> {
        let ports = ip.udp().filter(|ports| port::is_dhcpv6(*ports))?;
        if self.tables.has_dhcp {
            self.relay_datagram6(rules, ip, ports, frame)
        } else if ports.1 == port::DHCPV6_SERVER {
            self.serve_dhcp6(rules, (packet, ip), frame)
        } else {
            None
        }
    }

    fn relay_datagram6(
        &mut self,
        rules: &PortRules,
        ip: &Ipv6,
        (from, to): (u16, u16),
        frame: &mut Frame<'_>,
    ) -> Option<Outcome> {
        let packet = &frame.bytes()[ETHERNET_LEN..];
        if let Err(refusal) = self.hear_datagram6(rules, ip, (from, to), packet) {
            return Some(Err(refusal));
        }
        let is_servers = port::is_dhcpv6_server(from, to) && ip.fragment == Fragment::Whole;
        let receiver = match rules.dhcp_server {
            false if to == port::DHCPV6_SERVER && ip.destination == addr::ALL_DHCP_AGENTS => {
                return Some(self.relay_to_servers(rules, ip.total_len, frame));
            }
            // A receiver that is no client's goes by the rows of any other packet.
            true if is_servers => {
                let station = self.state.port_of_link_local(self.tables, ip.destination);
                Some(station.filter(|id| *id != rules.id)?)
            }
            _ => return None,
        };
        let Some(id) = receiver else {
            return Some(self.refuse(Stage::Service, DropReason::DhcpNoServer));
        };
        let to = self.tables.port(id);
        if ip.total_len > usize::from(to.mtu) {
            return Some(self.refuse(Stage::Service, DropReason::Mtu));
        }
        self.notes.note(
            Stage::Service,
            format_args!("DHCPv6 between a client and the server"),
        );
        Some(self.rewrite_to_port(frame, ip.total_len, to, Some(ip.destination)))
    }

    fn hear_datagram6(
        &mut self,
        rules: &PortRules,
        ip: &Ipv6,
        (from, to): (u16, u16),
        packet: &[u8],
    ) -> Outcome<()> {
        if rules.dhcp_server {
            let is_reply = port::is_dhcpv6_server(from, to) && ip.fragment == Fragment::Whole;
            let station = self.state.station6(self.tables, ip.destination);
            if let Some(id) = station.filter(|_| is_reply) {
                let payload = ip.payload(packet).get(8..).unwrap_or_default();
                client::from_server6(self.state, id, payload, self.now_ns);
            }
        } else if to == port::DHCPV6_SERVER
            // The filter has let pass nothing else.
            && let Some(message) = dhcp6::ClientMessage::parse(ip.payload(packet))
        {
            let judged =
                client::from_client6(self.tables, self.state, rules, &message, self.now_ns);
            if let Err(reason) = judged {
                return self.refuse(Stage::Service, reason);
            }
        }
        Ok(())
    }

    /// The port that a server's message is for; what it grants is noted.
    fn dhcp_client_of(&mut self, server: &PortRules, payload: &[u8]) -> Option<PortId> {
        let reply = Bootp::parse(payload)?;
        let id = self
            .tables
            .port_of_mac(reply.client_mac)
            .filter(|&id| id != server.id)?;
        let rules = self.tables.port(id);
        let reply = (&reply, payload);
        client::from_server(self.tables, self.state, rules, reply, self.now_ns);
        Some(id)
    }
}
