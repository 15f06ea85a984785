//! The names of the tenant's ports: `docs/reference/services.md`, "DNS".

use ipnet::IpNet;

use super::*;

/// A response, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DnsAnswer {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) to_port: u16,
    pub(crate) to_mac: [u8; 6],
    /// The UDP payload.
    pub(crate) message: Vec<u8>,
}

/// What a query asks for: the labels of the name, type, class.
pub(super) struct Asked {
    pub(super) labels: Vec<Vec<u8>>,
    pub(super) kind: u16,
    pub(super) class: u16,
    /// Bytes of the question.
    pub(super) length: usize,
}

impl Asked {
    /// Row 2: the question behind the header.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (mut labels, mut at) = (Vec::new(), 0);
        loop {
            let length = usize::from(*bytes.get(at)?);
            if length > 63 {
                return None;
            }
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(bytes.get(at..at + length)?.to_ascii_lowercase());
            at += length;
        }
        let rest = bytes.get(at..at + 4)?;
        (at <= 255).then(|| Self {
            labels,
            kind: be16(rest, 0),
            class: be16(rest, 2),
            length: at + 4,
        })
    }

    fn text(&self) -> Option<String> {
        let labels = self
            .labels
            .iter()
            .map(|label| String::from_utf8(label.clone()));
        let labels: Result<Vec<String>, _> = labels.collect();
        // A dot within a label is none between two.
        let labels = labels.ok()?;
        let plain = labels.iter().all(|label| !label.contains('.'));
        plain.then(|| labels.join("."))
    }
}

/// "Its IPv4 addresses", "its IPv6 addresses": the first 8 of each family.
fn addresses_of(port: &PortConfig) -> (Vec<Ipv4Addr>, Vec<Ipv6Addr>) {
    let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
    if let Addresses::Static(nets) = &port.addresses {
        for net in nets {
            match net {
                IpNet::V4(net) => {
                    let first = u32::from(net.prefix_len() < 31);
                    ipv4.push(Ipv4Addr::from_bits(net.network().to_bits() + first));
                }
                IpNet::V6(net) => {
                    let first = u128::from(net.prefix_len() < 127);
                    ipv6.push(Ipv6Addr::from_bits(net.network().to_bits() + first));
                }
            }
        }
    }
    ipv4.truncate(8);
    ipv6.truncate(8);
    (ipv4, ipv6)
}

/// Row 6: the addresses that begin with the numbers next to in-addr.arpa or ip6.arpa, as the first
/// and the last of them, and whether anything is in front of the numbers.
fn reversed(asked: &Asked) -> Option<((IpAddr, IpAddr), bool)> {
    let ends_with = |names: &[&str]| {
        let count = asked.labels.len().checked_sub(names.len())?;
        let ends = asked.labels[count..].iter().zip(names);
        let all = ends
            .into_iter()
            .all(|(label, name)| label == name.as_bytes());
        all.then(|| &asked.labels[..count])
    };
    if let Some(labels) = ends_with(&["in-addr", "arpa"]) {
        let number = |label: &&Vec<u8>| {
            let text = String::from_utf8((*label).clone()).ok()?;
            let value = text.parse::<u8>().ok()?;
            (value.to_string() == text).then_some(value)
        };
        let numbers: Vec<u8> = labels.iter().rev().map_while(|it| number(&it)).collect();
        let numbers = &numbers[..numbers.len().min(4)];
        let (mut first, mut last) = ([0; 4], [255; 4]);
        first[..numbers.len()].copy_from_slice(numbers);
        last[..numbers.len()].copy_from_slice(numbers);
        let ends = (IpAddr::V4(first.into()), IpAddr::V4(last.into()));
        return Some((ends, labels.len() > numbers.len()));
    }
    let labels = ends_with(&["ip6", "arpa"])?;
    let digit = |label: &Vec<u8>| match label[..] {
        [digit] => u8::try_from(char::from(digit).to_digit(16)?).ok(),
        _ => None,
    };
    let digits: Vec<u8> = labels.iter().rev().map_while(digit).collect();
    let digits = &digits[..digits.len().min(32)];
    let (mut first, mut last) = ([0_u8; 16], [255_u8; 16]);
    for (at, digit) in digits.iter().enumerate() {
        let shift = if at % 2 == 0 { 4 } else { 0 };
        for end in [&mut first, &mut last] {
            end[at / 2] = end[at / 2] & !(15 << shift) | digit << shift;
        }
    }
    let ends = (IpAddr::V6(first.into()), IpAddr::V6(last.into()));
    Some((ends, labels.len() > digits.len()))
}

/// A name in a message.
fn written(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// The response to a query.
enum Response {
    Ours(Vec<u8>),
    OfResolver,
}

/// What a response has: its RCODE, AA, and the records' types and values.
type Said = (u16, bool, Vec<(u16, Vec<u8>)>);

/// "An address at or behind a port or peer."
fn is_behind(config: &SwitchConfig, address: IpAddr) -> bool {
    let mut ports = config.ports.iter();
    let peers = config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
    let mut prefixes = peers.flat_map(|peer| &peer.prefixes);
    let has = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
    let listed = |port: &PortConfig| match &port.addresses {
        Addresses::Static(nets) => has(nets),
        Addresses::Learned(_) => false,
    };
    ports.any(|port| listed(port) || has(&port.routes))
        || prefixes.any(|net| net.contains(&address))
}

/// Rows 4 to 7; `None` if a resolver is asked.
fn said(config: &SwitchConfig, asked: &Asked) -> Option<Said> {
    const REFUSED: Said = (5, false, Vec::new());
    const NO_NAME: Said = (3, true, Vec::new());
    let domain = match &config.gateway.dns.domain {
        Some(domain) => domain.to_string().to_ascii_lowercase(),
        None => format!("{}.internal", config.tenant),
    };
    let whole = |port: &PortConfig| {
        let name = format!("{}.{domain}", port.name);
        Some(name).filter(|name| written(name).len() <= 255)
    };
    // 4
    if asked.class != 1 {
        return Some(REFUSED);
    }
    let wants = |kind: u16| asked.kind == kind || asked.kind == 255;
    // 5
    let ends: Vec<Vec<u8>> = domain
        .split('.')
        .map(|label| label.as_bytes().to_vec())
        .collect();
    if asked.labels.ends_with(&ends) {
        if asked.labels == ends {
            return Some((0, true, Vec::new()));
        }
        let name = asked.text();
        let mut ports = config.ports.iter();
        let Some(port) = ports.find(|port| name.is_some() && whole(port) == name) else {
            return Some(NO_NAME);
        };
        let (ipv4, ipv6) = addresses_of(port);
        let mut records = Vec::new();
        if wants(1) {
            records.extend(ipv4.iter().map(|ip| (1, ip.octets().to_vec())));
        }
        if wants(28) {
            records.extend(ipv6.iter().map(|ip| (28, ip.octets().to_vec())));
        }
        return Some((0, true, records));
    }
    // 6
    let in_zone = |(first, last): (IpAddr, IpAddr)| {
        let gateway = &config.gateway;
        nets(gateway.ipv4, gateway.ipv6).any(|net| net.contains(&first) && net.contains(&last))
    };
    let Some((ends, more)) = reversed(asked).filter(|(ends, _)| in_zone(*ends)) else {
        // 7
        let between_servers = matches!(asked.kind, 41 | 249..=254);
        if config.gateway.dns.forward.is_empty() || between_servers {
            return Some(REFUSED);
        }
        let is_short = asked.labels.len() == 1 && matches!(asked.kind, 1 | 28 | 255);
        let address = reversed(asked).filter(|((first, last), more)| first == last && !more);
        let is_tenants = address.is_some_and(|((address, _), _)| is_behind(config, address));
        return (is_short || is_tenants).then(|| (3, false, Vec::new()));
    };
    let (address, last) = ends;
    if address != last {
        return Some(if more { NO_NAME } else { (0, true, Vec::new()) });
    }
    if more {
        return Some(NO_NAME);
    }
    let has = |port: &&PortConfig| match &port.addresses {
        Addresses::Static(nets) => nets.iter().any(|net| net.contains(&address)),
        Addresses::Learned(_) => false,
    };
    Some(match config.ports.iter().find(has).and_then(whole) {
        Some(name) if wants(12) => (0, true, vec![(12, written(&name))]),
        Some(_) => (0, true, Vec::new()),
        None => NO_NAME,
    })
}

/// The size and version in a whole OPT record with which `additional` begins.
pub(super) fn options_of(additional: &[u8]) -> Option<(u16, u8)> {
    let [0, 0, 41, high, low, _, version, _, _, more, most, rest @ ..] = additional else {
        return None;
    };
    let whole = rest.len() >= usize::from(u16::from_be_bytes([*more, *most]));
    whole.then(|| (u16::from_be_bytes([*high, *low]), *version))
}

/// What becomes of a message; `None` if it is no query.
fn response(config: &SwitchConfig, message: &[u8], room: usize) -> Option<Response> {
    if message.len() < 12 || message[2] & 0x80 != 0 {
        return None;
    }
    let (head, rest) = message.split_at(12);
    let counts = [4, 6, 8, 10].map(|at| be16(head, at));
    let mut asked = Asked::read(rest).filter(|_| counts[..3] == [1, 0, 0]);
    let mut options = None;
    let (code, authoritative, records) = if head[2] & 0x78 != 0 {
        // 1
        asked = None;
        (4, false, Vec::new())
    } else if let Some(known) = &asked {
        options = Some(counts[3])
            .filter(|count| *count > 0)
            .and_then(|_| options_of(&rest[known.length..]));
        if options.is_some_and(|(_, version)| version != 0) {
            // 3
            asked = None;
            (16, false, Vec::new())
        } else {
            match said(config, known) {
                Some(said) => said,
                None => return Some(Response::OfResolver),
            }
        }
    } else {
        // 2
        (1, false, Vec::new())
    };
    let size = options.map_or(512, |(size, _)| usize::from(size).clamp(512, 1232));
    let size = size.min(room);
    let mut answers = Vec::new();
    for (kind, value) in &records {
        answers.extend([0xc0, 12]);
        answers.extend(kind.to_be_bytes());
        answers.extend(1_u16.to_be_bytes());
        answers.extend(60_u32.to_be_bytes());
        answers.extend((value.len() as u16).to_be_bytes());
        answers.extend(value);
    }
    let question = asked.map_or(&[][..], |asked| &rest[..asked.length]);
    let opt = options.map_or_else(Vec::new, |_| {
        let upper = (code >> 4) as u8;
        vec![0, 0, 41, 0x04, 0xd0, upper, 0, 0, 0, 0, 0]
    });
    let fits = 12 + question.len() + answers.len() + opt.len() <= size;
    let mut bytes = head[..2].to_vec();
    bytes.push(0x80 | head[2] & 0x79 | u8::from(authoritative) << 2 | u8::from(!fits) << 1);
    bytes.push(code as u8 & 0x0f);
    let count = if fits { records.len() } else { 0 };
    bytes.extend([0, u8::from(!question.is_empty())]);
    bytes.extend((count as u16).to_be_bytes());
    bytes.extend([0, 0, 0, u8::from(!opt.is_empty())]);
    bytes.extend(question);
    if fits {
        bytes.extend(answers);
    }
    bytes.extend(opt);
    Some(Response::Ours(bytes))
}

impl Model {
    /// The response to a packet to the gateway that came in a frame of its own; `None` if it is no
    /// query.
    pub(super) fn name_service(
        &mut self,
        from: usize,
        port: &PortConfig,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
    ) -> Option<Outcome> {
        let config = Arc::clone(&self.written);
        let (to_port, 53) = packet.udp_ports()? else {
            return None;
        };
        let whole = packet.payload.len() >= 8
            && usize::from(be16(packet.payload, 4)) == packet.payload.len();
        if !config.gateway.dns.enabled || packet.fragment != Fragment::No || !whole {
            return None;
        }
        let headers = if packet.source.is_ipv4() { 28 } else { 48 };
        let room = usize::from(port.mtu) - headers;
        let message = match response(&config, &packet.payload[8..], room)? {
            Response::Ours(message) => message,
            Response::OfResolver => return Some(self.forwarded(from, ethernet, packet)),
        };
        Some(Outcome::Reply(Answer::Dns(DnsAnswer {
            from: packet.destination,
            to: packet.source,
            to_port,
            to_mac: ethernet.source,
            message,
        })))
    }
}
