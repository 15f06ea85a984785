//! "DHCPv6 clients".

use super::*;

const TWO_MINUTES_NS: u64 = 120_000_000_000;
const DAY_NS: u64 = 86_400_000_000_000;

/// A DUID that a client uses.
#[derive(Debug, Clone)]
struct Duid {
    value: Vec<u8>,
    until_ns: u64,
    /// The kind and number of each identity association.
    associations: Vec<(u16, Vec<u8>)>,
}

/// What is remembered of one port, by its name.
#[derive(Debug, Clone, Default)]
pub(super) struct Client6 {
    duids: Vec<Duid>,
    /// The number, the DUID, and the end of the last transaction.
    transaction: Option<(Vec<u8>, Vec<u8>, u64)>,
    declined_until_ns: Vec<u64>,
}

/// Options of DHCPv6, each by its code and its value.
pub(super) type Options = Vec<(u16, Vec<u8>)>;

/// A DHCPv6 message: its type and number, and its options.
pub(super) struct Message6 {
    pub(super) kind: u8,
    pub(super) number: Vec<u8>,
    pub(super) options: Options,
}

/// Options to the end of `bytes`; `None` if one is cut off.
fn options6(mut bytes: &[u8]) -> Option<Options> {
    let mut options = Vec::new();
    while !bytes.is_empty() {
        if bytes.len() < 4 {
            return None;
        }
        let end = 4 + usize::from(be16(bytes, 2));
        options.push((be16(bytes, 0), bytes.get(4..end)?.to_vec()));
        bytes = &bytes[end..];
    }
    Some(options)
}

impl Message6 {
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let head = message.get(..4)?;
        Some(Self {
            kind: head[0],
            number: head[1..].to_vec(),
            options: options6(&message[4..])?,
        })
    }

    /// Each identity association: its kind, its number, and the options in it.
    pub(super) fn associations(&self) -> Option<Vec<(u16, Vec<u8>, Options)>> {
        let mut found = Vec::new();
        for (kind, value) in &self.options {
            let fixed = match kind {
                3 | 25 => 12,
                4 => 4,
                _ => continue,
            };
            let inner = options6(value.get(fixed..)?)?;
            found.push((*kind, value[..4].to_vec(), inner));
        }
        Some(found)
    }

    /// The address, or a prefix's first, and the valid lifetime of everything in the associations.
    fn leases(&self) -> Option<Vec<(Ipv6Addr, u32)>> {
        let mut leases = Vec::new();
        for (kind, value) in self
            .associations()?
            .into_iter()
            .flat_map(|(.., inner)| inner)
        {
            let (address, valid) = match kind {
                5 => (value.get(..16)?, value.get(20..24)?),
                26 => (value.get(9..25)?, value.get(4..8)?),
                _ => continue,
            };
            let address = <[u8; 16]>::try_from(address).expect("sixteen bytes");
            let valid = <[u8; 4]>::try_from(valid).expect("four bytes");
            leases.push((address.into(), u32::from_be_bytes(valid)));
        }
        Some(leases)
    }

    pub(super) fn duid(&self) -> Option<&Vec<u8>> {
        let mut options = self.options.iter();
        options.find(|(code, _)| *code == 1).map(|(_, value)| value)
    }

    /// DHCPv6 client 1.
    fn is_clients(&self) -> bool {
        let count = |wanted: u16| {
            self.options
                .iter()
                .filter(|(code, _)| *code == wanted)
                .count()
        };
        let is_named = match self.duid() {
            Some(value) => (3..=130).contains(&value.len()),
            None => self.kind == 11,
        };
        [1, 3, 4, 5, 6, 8, 9, 11].contains(&self.kind)
            && is_named
            && count(1) < 2
            && count(2) < 2
            && [9, 18, 37, 38, 79].iter().all(|code| count(*code) == 0)
            && self.leases().is_some()
            && self.associations().is_some_and(|all| all.len() <= 4)
    }
}

/// IPv6 4: a DHCPv6 client's message.
pub(super) fn is_dhcpv6_clients(packet: &Packet<'_>) -> bool {
    packet.fragment == Fragment::No
        && packet.payload.len() >= 8
        && usize::from(be16(packet.payload, 4)) == packet.payload.len()
        && Message6::read(&packet.payload[8..]).is_some_and(|message| message.is_clients())
}

/// The MAC that a DUID of type 1 or 3 names.
fn mac_of_duid(duid: &[u8]) -> Option<&[u8]> {
    match duid.get(..4)? {
        [0, 1, 0, 1] if duid.len() == 14 => duid.get(8..),
        [0, 3, 0, 1] if duid.len() == 10 => duid.get(4..),
        _ => None,
    }
}

impl Model {
    /// The rows of "DHCPv6 clients", and what a server grants.
    pub(super) fn dhcpv6_said(
        &mut self,
        from: usize,
        port: &PortConfig,
        packet: &Packet<'_>,
    ) -> Result<(), DropReason> {
        let served = self.config.ports.iter().any(|port| port.dhcp_server);
        let Some((source, to)) = packet.udp_ports().filter(|_| served) else {
            return Ok(());
        };
        if port.dhcp_server {
            if packet.fragment == Fragment::No && (source == 547 || to == 546) {
                self.dhcpv6_server_said(packet);
            }
            return Ok(());
        }
        if to != 547 {
            return Ok(());
        }
        let message = Message6::read(&packet.payload[8..]).expect("the filter let it pass");
        let now_ns = self.now_ns;
        // DHCPv6 client 2
        for (address, _) in message.leases().expect("the filter let it pass") {
            let near = self
                .config
                .gateway
                .ipv6
                .is_some_and(|net| net.contains(&address));
            let anothers = match self.route(address.into()) {
                Route::Port(owner) => owner != from,
                route => near && (self.is_gateway(address.into()) || route != Route::Nowhere),
            };
            if anothers {
                return Err(DhcpIdentity);
            }
        }
        // DHCPv6 client 3
        let Some(duid) = message.duid() else {
            return Ok(());
        };
        let names = |port: &PortConfig| {
            let mut macs = port.extra_macs.iter().chain([&port.mac]);
            mac_of_duid(duid).is_some_and(|named| macs.any(|mac| mac.octets() == *named))
        };
        for (number, other) in self.config.ports.iter().enumerate() {
            let client = self.clients6.get(other.name.as_str());
            let mut duids = client.into_iter().flat_map(|client| &client.duids);
            let owned = duids.any(|it| now_ns < it.until_ns && it.value == *duid);
            if number != from && !names(port) && (owned || names(other)) {
                return Err(DhcpIdentity);
            }
        }
        // DHCPv6 client 4
        let client = self.clients6.entry(port.name.to_string()).or_default();
        client.duids.retain(|it| now_ns < it.until_ns);
        if client.duids.iter().all(|it| it.value != *duid) {
            if client.duids.len() == 4 {
                return Err(DhcpIdentity);
            }
            client.duids.push(Duid {
                value: duid.clone(),
                until_ns: 0,
                associations: Vec::new(),
            });
        }
        let mut duids = client.duids.iter_mut();
        let known = duids.find(|it| it.value == *duid).expect("it is there now");
        let soon_ns = now_ns + TWO_MINUTES_NS;
        known.until_ns = known.until_ns.max(soon_ns);
        let mut too_many = false;
        for (kind, id, _) in message.associations().expect("the filter let it pass") {
            let association = (kind, id);
            if known.associations.contains(&association) {
                continue;
            }
            if known.associations.len() == 4 {
                too_many = true;
            } else {
                known.associations.push(association);
            }
        }
        if too_many {
            return Err(DhcpIdentity);
        }
        // DHCPv6 client 5
        if message.kind == 9 {
            client
                .declined_until_ns
                .retain(|until_ns| now_ns < *until_ns);
            if client.declined_until_ns.len() == 4 {
                return Err(DhcpIdentity);
            }
            client.declined_until_ns.push(now_ns + DAY_NS);
        }
        if [1, 3, 5, 6].contains(&message.kind) {
            client.transaction = Some((message.number.clone(), duid.clone(), soon_ns));
        }
        Ok(())
    }

    /// A server's message to the client that its destination is.
    fn dhcpv6_server_said(&mut self, packet: &Packet<'_>) {
        let now_ns = self.now_ns;
        let to = match self.route(packet.destination) {
            Route::Port(to) => Some(to),
            _ => self.port_of_link_local(packet.destination),
        };
        let message = Message6::read(packet.payload.get(8..).unwrap_or_default());
        let reply = message.filter(|message| message.kind == 7);
        let (Some(to), Some(reply)) = (to, reply) else {
            return;
        };
        let Some(leases) = reply.leases() else {
            return;
        };
        let seconds = leases
            .iter()
            .map(|(_, seconds)| *seconds)
            .max()
            .unwrap_or(0);
        let until_ns = now_ns + u64::from(seconds) * 1_000_000_000;
        let name = self.config.ports[to].name.to_string();
        let client = self.clients6.entry(name).or_default();
        let answered = client
            .transaction
            .as_ref()
            .filter(|(number, _, until_ns)| *number == reply.number && now_ns < *until_ns);
        for duid in &mut client.duids {
            let is_meant = answered.is_none_or(|(_, value, _)| *value == duid.value);
            if seconds > 0 && is_meant && now_ns < duid.until_ns {
                duid.until_ns = duid.until_ns.max(until_ns);
            }
        }
    }
}
