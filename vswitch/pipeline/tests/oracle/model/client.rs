//! "DHCP clients" and "Learned addresses": what the switch remembers of the clients behind its
//! ports.

use super::*;

const SECOND_NS: u64 = 1_000_000_000;
const TWO_MINUTES_NS: u64 = 120 * SECOND_NS;
const DAY_NS: u64 = 86_400 * SECOND_NS;

/// A learned address.
#[derive(Debug, Clone)]
struct Lease {
    address: Ipv4Addr,
    until_ns: u64,
}

/// An identifier that a client uses; `None` for a client without one.
#[derive(Debug, Clone)]
struct Identifier {
    value: Option<Vec<u8>>,
    owned_until_ns: u64,
    counted_until_ns: u64,
    granted: Option<Ipv4Addr>,
}

#[derive(Debug, Clone)]
struct Transaction {
    xid: [u8; 4],
    identifier: Option<Vec<u8>>,
    until_ns: u64,
}

/// What is remembered of one port, by its name.
#[derive(Debug, Clone, Default)]
pub(super) struct Client {
    lease: Option<Lease>,
    identifiers: Vec<Identifier>,
    transaction: Option<Transaction>,
    declined_until_ns: Vec<u64>,
}

/// A DHCP message of a client.
pub(super) struct Message {
    pub(super) mac: [u8; 6],
    pub(super) relayed: bool,
    xid: [u8; 4],
    pub(super) kind: Option<u8>,
    pub(super) ciaddr: Ipv4Addr,
    pub(super) requested: Option<Ipv4Addr>,
    pub(super) server: Option<Vec<u8>>,
    identifier: Option<Vec<u8>>,
}

fn ipv4_of(bytes: &[u8]) -> Ipv4Addr {
    <[u8; 4]>::try_from(bytes).expect("four bytes").into()
}

/// The options of a DHCP message in their order; `None` if one is cut off.
pub(super) fn options(message: &[u8]) -> Option<Vec<(u8, Vec<u8>)>> {
    let mut options = Vec::new();
    let mut at = 240;
    while at < message.len() && message[at] != 255 {
        if message[at] == 0 {
            at += 1;
            continue;
        }
        let length = usize::from(*message.get(at + 1)?);
        let value = message.get(at + 2..at + 2 + length)?;
        options.push((message[at], value.to_vec()));
        at += 2 + length;
    }
    Some(options)
}

impl Message {
    /// Client 1: the datagram as a client's message, or `None`.
    pub(super) fn read(datagram: &[u8]) -> Option<Self> {
        let message = datagram.get(8..)?;
        if usize::from(be16(datagram, 4)) != datagram.len() || !is_bootp(message, 1) {
            return None;
        }
        let options = options(message)?;
        let all = |code: u8| options.iter().filter(move |(other, _)| *other == code);
        let once = |code: u8| all(code).next().map(|(_, value)| value.clone());
        let lengths = [(50, 4..=4), (53, 1..=1), (54, 4..=4), (61, 2..=255)];
        for (code, allowed) in lengths {
            if all(code).count() > 1 || all(code).any(|(_, value)| !allowed.contains(&value.len()))
            {
                return None;
            }
        }
        if [52, 82, 118].iter().any(|code| all(*code).count() > 0) {
            return None;
        }
        let kind = once(53).map(|value| value[0]);
        if kind.is_some_and(|kind| ![1, 3, 4, 7, 8].contains(&kind)) {
            return None;
        }
        Some(Self {
            mac: mac_at(message, 28),
            relayed: message[24..28] != [0; 4],
            xid: message[4..8].try_into().expect("four bytes"),
            kind,
            ciaddr: ipv4_of(&message[12..16]),
            requested: once(50).map(|value| ipv4_of(&value)),
            server: once(54),
            identifier: once(61),
        })
    }
}

impl Model {
    /// The configuration in which each learning port has what it has learned or claimed.
    pub(super) fn with_leases(&self, now_ns: u64) -> Arc<SwitchConfig> {
        let nothing = self.claims.is_empty();
        if nothing && self.clients.values().all(|client| client.lease.is_none()) {
            return Arc::clone(&self.written);
        }
        let mut config = SwitchConfig::clone(&self.written);
        for port in &mut config.ports {
            if let (Addresses::Learned(_), Some(client)) =
                (&port.addresses, self.clients.get(port.name.as_str()))
            {
                let lease = client.lease.iter().filter(|lease| now_ns < lease.until_ns);
                let net = lease.map(|lease| ipnet::IpNet::from(IpAddr::from(lease.address)));
                port.addresses = Addresses::Static(net.collect());
            }
            let claimed = self.claimed_in_subnet(port);
            match &mut port.addresses {
                Addresses::Static(nets) => nets.extend(claimed),
                learned => {
                    if !claimed.is_empty() {
                        *learned = Addresses::Static(claimed);
                    }
                }
            }
        }
        Arc::new(config)
    }

    /// Replaces the configuration. What is remembered of a port stays while the port has its MAC
    /// and the tenant a DHCP server, and a lease also while its port learns and nothing else has
    /// the address.
    pub(crate) fn configure(&mut self, config: &SwitchConfig) {
        let old = std::mem::replace(&mut self.written, Arc::new(config.clone()));
        let served = |config: &SwitchConfig| config.ports.iter().any(|port| port.dhcp_server);
        self.config = Arc::clone(&self.written);
        self.forget_holders(&old);
        self.keep_queries(&old);
        let port = |config: &SwitchConfig, name: &str| {
            let mut ports = config.ports.iter();
            ports.find(|port| port.name.as_str() == name).cloned()
        };
        let stays = |name: &str| match (port(config, name), port(&old, name)) {
            (Some(new), Some(former)) => new.mac == former.mac && served(config) && served(&old),
            _ => false,
        };
        self.clients6.retain(|name, _| stays(name));
        let mut clients = std::mem::take(&mut self.clients);
        clients.retain(|name, client| {
            let learns = port(config, name)
                .is_some_and(|port| matches!(port.addresses, Addresses::Learned(_)));
            let holds = |lease: &Lease| learns && self.is_free(lease.address);
            client.lease = client.lease.take().filter(holds);
            stays(name)
        });
        self.clients = clients;
        self.keep_claims(&old);
        let trunks = |number: usize| config.ports.get(number).map(|port| &port.trunk);
        let same = |number: usize| {
            let mac = |config: &SwitchConfig| config.ports.get(number).map(|port| port.mac);
            mac(config) == mac(&old)
        };
        self.tags.retain(|(number, _), tag| {
            let may = |vid: u16| {
                trunks(*number).is_some_and(|trunk| trunk.iter().any(|listed| listed.get() == vid))
            };
            same(*number) && tag.is_none_or(|control| may(control & 0x0fff))
        });
    }

    /// Whether DHCP may give the address: it is in the gateway's subnet, and neither its first, its
    /// broadcast, the gateway's nor a port's or a peer's by the configuration.
    fn is_free(&self, address: Ipv4Addr) -> bool {
        let subnet = self.written.gateway.ipv4;
        subnet.is_some_and(|net| {
            net.contains(&address) && address != net.network() && address != net.addr()
        }) && !self.is_multicast(address.into())
            && !self
                .written
                .ports
                .iter()
                .any(|port| owns(port, address.into()))
            && matches!(self.route(address.into()), Route::Nowhere | Route::Port(_))
    }

    /// Whether the address is another's than port `from`'s.
    fn is_anothers(&self, from: usize, address: Ipv4Addr) -> bool {
        let near = self
            .config
            .gateway
            .ipv4
            .is_some_and(|net| net.contains(&address));
        match self.route(address.into()) {
            Route::Port(owner) => owner != from,
            route => {
                near && (self.is_gateway(address.into())
                    || self.is_multicast(address.into())
                    || route != Route::Nowhere)
            }
        }
    }

    /// Client 3: whether the identifier names a MAC of another port than `from`, or another port
    /// owns it; what names a MAC of this port is this port's.
    fn is_anothers_identifier(&self, from: usize, value: &Vec<u8>) -> bool {
        let names_a_mac = |port: &PortConfig| {
            let mut macs = port.extra_macs.iter().chain([&port.mac]);
            macs.any(|mac| *value == [&[1], &mac.octets()[..]].concat())
        };
        let owns_it = |port: &PortConfig| {
            let client = self.clients.get(port.name.as_str());
            let mut identifiers = client.into_iter().flat_map(|client| &client.identifiers);
            identifiers
                .any(|it| self.now_ns < it.owned_until_ns && it.value.as_ref() == Some(value))
        };
        let ports = &self.config.ports;
        let mut others = ports
            .iter()
            .enumerate()
            .filter(|(number, _)| *number != from);
        !names_a_mac(&ports[from]) && others.any(|(_, port)| names_a_mac(port) || owns_it(port))
    }

    /// The rows of "DHCP clients", for a message that the filter let pass.
    pub(super) fn dhcp_client_said(
        &mut self,
        from: usize,
        port: &PortConfig,
        packet: &Packet<'_>,
    ) -> Result<(), DropReason> {
        let served = self.config.ports.iter().any(|port| port.dhcp_server);
        let to_all = self.is_for_all_servers(packet);
        let is_clients = packet.fragment == Fragment::No
            && packet.source.is_ipv4()
            && packet.udp_ports() == Some((68, 67))
            && !port.dhcp_server;
        if !served || !(is_clients || to_all) {
            return Ok(());
        }
        let message = Message::read(packet.payload)
            .filter(|message| message.mac == port.mac.octets() && !message.relayed);
        let Some(message) = message else {
            // "One to port 4011 that is no client's message."
            let is_proxys = packet.udp_ports() == Some((68, 4011));
            return if is_proxys { Err(DhcpClient) } else { Ok(()) };
        };
        let now_ns = self.now_ns;
        // Client 2
        for address in [Some(message.ciaddr), message.requested]
            .into_iter()
            .flatten()
        {
            if !address.is_unspecified() && self.is_anothers(from, address) {
                return Err(DhcpIdentity);
            }
        }
        // Client 3
        if let Some(value) = &message.identifier
            && self.is_anothers_identifier(from, value)
        {
            return Err(DhcpIdentity);
        }
        // Client 4
        let client = self.clients.entry(port.name.to_string()).or_default();
        client.identifiers.retain(|it| now_ns < it.counted_until_ns);
        let known = client
            .identifiers
            .iter()
            .any(|it| it.value == message.identifier);
        if !known {
            if client.identifiers.len() == 4 {
                return Err(DhcpIdentity);
            }
            client.identifiers.push(Identifier {
                value: message.identifier.clone(),
                owned_until_ns: 0,
                counted_until_ns: 0,
                granted: None,
            });
        }
        let mut identifiers = client.identifiers.iter_mut();
        let identifier = identifiers.find(|it| it.value == message.identifier);
        let identifier = identifier.expect("it is there now");
        let soon_ns = now_ns + TWO_MINUTES_NS;
        identifier.owned_until_ns = identifier.owned_until_ns.max(soon_ns);
        identifier.counted_until_ns = identifier.counted_until_ns.max(soon_ns);
        // Client 5
        if message.kind == Some(4) {
            client
                .declined_until_ns
                .retain(|until_ns| now_ns < *until_ns);
            if client.declined_until_ns.len() == 4 {
                return Err(DhcpIdentity);
            }
            client.declined_until_ns.push(now_ns + DAY_NS);
        }
        // What it says of itself.
        match message.kind {
            Some(1 | 3) => {
                client.transaction = Some(Transaction {
                    xid: message.xid,
                    identifier: message.identifier.clone(),
                    until_ns: soon_ns,
                });
            }
            Some(4 | 7) => {
                let named = match message.kind {
                    Some(4) => message.requested,
                    _ => Some(message.ciaddr).filter(|address| !address.is_unspecified()),
                };
                if named.is_none() || named == identifier.granted {
                    identifier.owned_until_ns = 0;
                }
                client.transaction = None;
                client.lease = client
                    .lease
                    .take()
                    .filter(|lease| named.is_some_and(|address| address != lease.address));
            }
            _ => {}
        }
        if message.kind == Some(3) && message.server.is_some() && message.requested.is_some() {
            let selected = message.requested;
            client.lease = client
                .lease
                .take()
                .filter(|lease| Some(lease.address) == selected);
        }
        Ok(())
    }

    /// What a DHCP server says to the client behind port `to`.
    pub(super) fn dhcp_server_said(&mut self, to: usize, message: &[u8]) {
        let now_ns = self.now_ns;
        // A server writes its type and its time in the options' own field.
        let mut readable = Vec::new();
        let mut at = 240;
        while at + 1 < message.len() && message[at] != 255 {
            if message[at] == 0 {
                at += 1;
                continue;
            }
            let end = at + 2 + usize::from(message[at + 1]);
            let Some(value) = message.get(at + 2..end) else {
                break;
            };
            readable.push((message[at], value.to_vec()));
            at = end;
        }
        let first = |code: u8| {
            let mut options = readable.iter();
            options
                .find(|(other, _)| *other == code)
                .map(|(_, value)| value.clone())
        };
        let yours = ipv4_of(&message[16..20]);
        let others = self
            .clients
            .iter()
            .filter(|(name, _)| **name != *self.config.ports[to].name.as_str());
        let taken = others
            .filter_map(|(_, client)| client.lease.as_ref())
            .any(|lease| now_ns < lease.until_ns && lease.address == yours);
        let learnable = !taken && self.is_free(yours);
        let port = &self.written.ports[to];
        let learns = matches!(port.addresses, Addresses::Learned(_));
        let client = self.clients.entry(port.name.to_string()).or_default();
        let answered = client.transaction.clone().filter(|transaction| {
            now_ns < transaction.until_ns && transaction.xid == message[4..8]
        });
        match (first(53).as_deref(), first(51).as_deref()) {
            (Some([5]), Some([a, b, c, d])) => {
                let seconds = u32::from_be_bytes([*a, *b, *c, *d]);
                let until_ns = now_ns + u64::from(seconds) * SECOND_NS;
                for identifier in &mut client.identifiers {
                    match &answered {
                        Some(transaction) if transaction.identifier == identifier.value => {
                            identifier.owned_until_ns = identifier.owned_until_ns.max(until_ns);
                            identifier.counted_until_ns = identifier.counted_until_ns.max(until_ns);
                            identifier.granted = Some(yours);
                        }
                        Some(_) => {}
                        None => {
                            for end in [
                                &mut identifier.owned_until_ns,
                                &mut identifier.counted_until_ns,
                            ] {
                                if now_ns < *end {
                                    *end = until_ns.max(*end);
                                }
                            }
                        }
                    }
                }
                let learned = answered.is_some() && learnable && seconds > 0;
                if learns && learned {
                    client.lease = Some(Lease {
                        address: yours,
                        until_ns,
                    });
                }
                if answered.is_some() && (learned || !learns) {
                    client.transaction = None;
                }
            }
            (Some([6]), _) if answered.is_some() => {
                client.transaction = None;
                client.lease = None;
            }
            _ => {}
        }
    }
}
