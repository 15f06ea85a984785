//! The gateway's own DHCPv6 server: `docs/reference/services.md`, and RFC 8415 where that page
//! names it.

use ipnet::IpNet;

use super::*;

/// A server's message, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dhcp6Answer {
    pub(crate) from: Ipv6Addr,
    pub(crate) to: Ipv6Addr,
    pub(crate) to_mac: [u8; 6],
    /// The UDP payload.
    pub(crate) message: Vec<u8>,
}

const SOLICIT: u8 = 1;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;
const INFORMATION_REQUEST: u8 = 11;

const IA_NA: u16 = 3;
const IA_TA: u16 = 4;

/// Whether the gateway serves anything of `[gateway.dhcp]`.
pub(super) fn serves(config: &SwitchConfig) -> bool {
    config.gateway.dhcp.enabled && config.ports.iter().all(|port| !port.dhcp_server)
}

/// Whether the gateway serves DHCPv6.
pub(super) fn serves6(config: &SwitchConfig) -> bool {
    serves(config)
        && config.gateway.ipv6.is_some()
        && config.gateway.ipv6_autoconf != Ipv6Autoconf::None
}

/// "The offered address", where addresses are given.
pub(super) fn offered6(port: &PortConfig) -> Option<Ipv6Addr> {
    let Addresses::Static(nets) = &port.addresses else {
        return None;
    };
    if port.addresses6.is_some() {
        return None;
    }
    let mut nets = nets.iter();
    nets.find_map(|net| match net {
        IpNet::V4(_) => None,
        IpNet::V6(net) if net.prefix_len() < 127 => {
            let anycast = net.trunc().addr().to_bits();
            Some(Ipv6Addr::from_bits(anycast + 1))
        }
        IpNet::V6(net) => Some(net.trunc().addr()),
    })
}

/// The IPv6 addresses among those of a list of the file.
pub(super) fn ipv6_of(list: &[IpAddr]) -> Vec<[u8; 16]> {
    let mut found = Vec::new();
    for address in list {
        if let IpAddr::V6(address) = address {
            found.push(address.octets());
        }
    }
    found
}

/// "`search`, or if that is empty `domain`", as DNS writes names.
pub(super) fn search_of(config: &SwitchConfig) -> Vec<u8> {
    let dhcp = &config.gateway.dhcp;
    let mut names: Vec<String> = dhcp.search.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        names.extend(dhcp.domain.as_ref().map(ToString::to_string));
    }
    let mut bytes = Vec::new();
    for name in names {
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).expect("at most 63"));
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
    }
    bytes
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).expect("a short value");
    [&code.to_be_bytes()[..], &len.to_be_bytes(), value].concat()
}

fn status(code: u16) -> Vec<u8> {
    option(13, &code.to_be_bytes())
}

/// The value of an option that clients ask for.
fn value(config: &SwitchConfig, code: u16, informs: bool) -> Option<Vec<u8>> {
    let dhcp = &config.gateway.dhcp;
    let value = match code {
        23 => ipv6_of(&dhcp.dns).concat(),
        24 => search_of(config),
        31 => ipv6_of(&dhcp.ntp).concat(),
        32 if informs => dhcp.lease_s.get().max(600).to_be_bytes().to_vec(),
        56 => {
            let servers = ipv6_of(&dhcp.ntp);
            let servers = servers.iter().map(|server| option(1, server));
            servers.collect::<Vec<_>>().concat()
        }
        _ => Vec::new(),
    };
    Some(value).filter(|value| !value.is_empty())
}

/// An identity association: its kind, IAID, and the addresses in it.
struct Asked {
    kind: u16,
    id: Vec<u8>,
    addresses: Vec<Ipv6Addr>,
}

fn asked_of(message: &Message6) -> Vec<Asked> {
    let all = message.associations().expect("the filter let it pass");
    let asked = all.into_iter().map(|(kind, id, inner)| {
        let mut addresses = Vec::new();
        for (code, value) in inner {
            match code {
                5 => addresses.push(ipv6_at(&value, 0)),
                26 => addresses.push(ipv6_at(&value, 9)),
                _ => {}
            }
        }
        Asked {
            kind,
            id,
            addresses,
        }
    });
    asked.collect()
}

impl Model {
    /// Route 1, where no port serves: what the gateway's own DHCPv6 server says. `None` for packets
    /// that are not for it.
    pub(super) fn own_dhcp6(
        &self,
        port: &PortConfig,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
    ) -> Option<Outcome> {
        let config = &self.written;
        let (IpAddr::V6(source), IpAddr::V6(to)) = (packet.source, packet.destination) else {
            return None;
        };
        let (_, 547) = packet.udp_ports()? else {
            return None;
        };
        if !serves6(config) || packet.fragment != Fragment::No {
            return None;
        }
        // Which DHCPv6 messages
        let all: Ipv6Addr = "ff02::1:2".parse().expect("an address");
        let gateway = config.gateway.ipv6.expect("a gateway").addr();
        let own = port.gateway_mac.link_local();
        if ![all, gateway, own].contains(&to) {
            return None;
        }
        if to != all && is_group(ethernet.destination) {
            return Some(DstMac.into());
        }
        let message = Message6::read(&packet.payload[8..]).expect("the filter let it pass");
        let kind = message.kind;
        // 1
        if port.addresses6.is_some() && kind != INFORMATION_REQUEST {
            return Some(DhcpNoServer.into());
        }
        // 2
        let [_, a, b, c] = config.vni.get().to_be_bytes();
        let identifier = vec![0, 3, 0, 1, 0x02, a, b, c, 0, 0];
        let mut servers = message.options.iter().filter(|(code, _)| *code == 2);
        let server = servers.next().map(|(_, value)| value);
        let discarded = match kind {
            SOLICIT | CONFIRM | REBIND => server.is_some(),
            REQUEST | RENEW | RELEASE | DECLINE => server != Some(&identifier),
            _ => server.is_some_and(|server| *server != identifier),
        };
        if discarded {
            return Some(Absorbed.into());
        }
        let reply = |kind: u8, options: Vec<Vec<u8>>| {
            let mut bytes = vec![kind];
            bytes.extend(&message.number);
            if let Some(duid) = message.duid() {
                bytes.extend(option(1, duid));
            }
            bytes.extend(option(2, &identifier));
            let most = usize::from(port.mtu).min(1500) - 48;
            for option in options {
                if bytes.len() + option.len() <= most {
                    bytes.extend(option);
                }
            }
            Some(Outcome::Reply(Answer::Dhcp6(Dhcp6Answer {
                from: own,
                to: source,
                to_mac: ethernet.source,
                message: bytes,
            })))
        };
        if to != all {
            return match kind {
                // 3
                SOLICIT | CONFIRM | REBIND | INFORMATION_REQUEST => Some(Absorbed.into()),
                // 4
                _ => reply(7, vec![status(5)]),
            };
        }
        // 5
        match self.options_of_answer(port, &message) {
            Ok((number, options)) => reply(number, options),
            Err(reason) => Some(reason.into()),
        }
    }

    /// The table: the type of the answer, and its options behind the identifiers.
    fn options_of_answer(
        &self,
        port: &PortConfig,
        message: &Message6,
    ) -> Result<(u8, Vec<Vec<u8>>), DropReason> {
        let asked = asked_of(message);
        let address = offered6(port);
        let has_code = |wanted: u16| message.options.iter().any(|(code, _)| *code == wanted);
        match message.kind {
            CONFIRM => {
                let named: Vec<Ipv6Addr> =
                    asked.iter().flat_map(|it| it.addresses.clone()).collect();
                if named.is_empty() {
                    return Err(Absorbed);
                }
                let right = named.iter().all(|named| Some(*named) == address);
                Ok((7, vec![status(if right { 0 } else { 4 })]))
            }
            RELEASE | DECLINE => {
                let mut options = vec![status(0)];
                for it in &asked {
                    let bound = address.is_some_and(|address| it.addresses.contains(&address));
                    if it.kind != IA_NA || !bound {
                        options.push(association(it, [0; 2], &status(3)));
                    }
                }
                Ok((7, options))
            }
            INFORMATION_REQUEST if !asked.is_empty() => Err(Absorbed),
            INFORMATION_REQUEST => Ok((7, self.told6(message, true))),
            kind => {
                let has_ia_na = asked.iter().any(|it| it.kind == IA_NA);
                let rapid = has_code(14) && has_ia_na && address.is_some();
                let (number, mut options) = match kind {
                    SOLICIT if rapid => (7, vec![option(14, &[])]),
                    SOLICIT => (2, vec![option(7, &[255])]),
                    _ => (7, Vec::new()),
                };
                let room = usize::from(port.mtu).min(1500) - 48;
                // The server's identifier has ten bytes.
                let before = 4
                    + message.duid().map_or(0, |duid| 4 + duid.len())
                    + 14
                    + options.concat().len();
                options.extend(self.associated(port, kind, &asked, room - before));
                options.extend(self.told6(message, false));
                Ok((number, options))
            }
        }
    }

    /// The identity associations of an ADVERTISE, or of a REPLY that grants. `room` is what there
    /// is for them and all that follows.
    fn associated(
        &self,
        port: &PortConfig,
        kind: u8,
        asked: &[Asked],
        mut room: usize,
    ) -> Vec<Vec<u8>> {
        let config = &self.written;
        let gateway = config.gateway.ipv6.expect("a gateway");
        let address = offered6(port);
        let naming = asked.iter().position(|it| {
            it.kind == IA_NA && address.is_some_and(|address| it.addresses.contains(&address))
        });
        let first = asked.iter().position(|it| it.kind == IA_NA);
        let chosen = naming.or(first);
        let lease = config.gateway.dhcp.lease_s.get();
        let leased = |address: Ipv6Addr, seconds: u32| {
            let mut value = address.octets().to_vec();
            value.extend(seconds.to_be_bytes());
            value.extend(seconds.to_be_bytes());
            option(5, &value)
        };
        let mut all = Vec::new();
        for (place, it) in asked.iter().enumerate() {
            let strange = it.addresses.iter().any(|ip| !gateway.contains(ip));
            if kind == REQUEST && (it.kind == IA_NA || it.kind == IA_TA) && strange {
                all.push(association(it, [0; 2], &status(4)));
                room -= all.last().map_or(0, Vec::len);
                continue;
            }
            let given = address.filter(|_| chosen == Some(place));
            let (times, mut inner) = match given {
                Some(address) => {
                    let rebind = (u64::from(lease) * 7).div_ceil(8);
                    let rebind = u32::try_from(rebind).expect("less");
                    ([lease / 2, rebind], leased(address, lease))
                }
                None if it.kind == IA_NA || it.kind == IA_TA => ([0; 2], status(2)),
                None => ([0; 2], status(6)),
            };
            if it.kind == IA_NA && (kind == RENEW || kind == REBIND) {
                for other in &it.addresses {
                    let fits = 16 + inner.len() + 28 <= room;
                    if Some(*other) != given && fits {
                        inner.extend(leased(*other, 0));
                    }
                }
            }
            let whole = association(it, times, &inner);
            if whole.len() <= room {
                room -= whole.len();
                all.push(whole);
            }
        }
        all
    }

    /// The options that the client asks for.
    fn told6(&self, message: &Message6, informs: bool) -> Vec<Vec<u8>> {
        let mut lists = message.options.iter().filter(|(code, _)| *code == 6);
        let mut codes: Vec<u16> = match lists.next() {
            Some((_, list)) => list.chunks_exact(2).map(|code| be16(code, 0)).collect(),
            None => vec![23, 24, 31, 32, 56],
        };
        let mut seen = Vec::new();
        codes.retain(|code| {
            let new = !seen.contains(code);
            seen.push(*code);
            new
        });
        let values = codes.into_iter().filter_map(|code| {
            let value = value(&self.written, code, informs)?;
            Some(option(code, &value))
        });
        values.collect()
    }
}

/// An identity association; one for temporary addresses has no times.
fn association(asked: &Asked, times: [u32; 2], inner: &[u8]) -> Vec<u8> {
    let mut value = asked.id.clone();
    if asked.kind != IA_TA {
        value.extend(times.iter().flat_map(|seconds| seconds.to_be_bytes()));
    }
    value.extend(inner);
    option(asked.kind, &value)
}
