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
struct Asked {
    labels: Vec<Vec<u8>>,
    kind: u16,
    class: u16,
    /// Bytes of the question.
    length: usize,
}

impl Asked {
    /// Row 2: the question behind the header.
    fn read(bytes: &[u8]) -> Option<Self> {
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

/// Row 6: the address whose reverse name that is.
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(numbers) = name.strip_suffix(".in-addr.arpa") {
        let mut parts: Vec<&str> = numbers.split('.').collect();
        parts.reverse();
        // It refuses leading zeros.
        return parts.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let mut digits: Vec<&str> = digits.split('.').collect();
    digits.reverse();
    let all_single = digits.iter().all(|digit| digit.len() == 1);
    if digits.len() != 32 || !all_single {
        return None;
    }
    let groups: Vec<String> = digits.chunks(4).map(<[&str]>::concat).collect();
    groups.join(":").parse::<Ipv6Addr>().ok().map(IpAddr::V6)
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

/// What a response has: its RCODE, AA, and the records' types and values.
type Said = (u16, bool, Vec<(u16, Vec<u8>)>);

/// Rows 4 to 7.
fn said(config: &SwitchConfig, asked: &Asked) -> Said {
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
        return REFUSED;
    }
    let wants = |kind: u16| asked.kind == kind || asked.kind == 255;
    // 5
    let ends: Vec<Vec<u8>> = domain
        .split('.')
        .map(|label| label.as_bytes().to_vec())
        .collect();
    if asked.labels.ends_with(&ends) {
        if asked.labels == ends {
            return (0, true, Vec::new());
        }
        let name = asked.text();
        let mut ports = config.ports.iter();
        let Some(port) = ports.find(|port| name.is_some() && whole(port) == name) else {
            return NO_NAME;
        };
        let (ipv4, ipv6) = addresses_of(port);
        let mut records = Vec::new();
        if wants(1) {
            records.extend(ipv4.iter().map(|ip| (1, ip.octets().to_vec())));
        }
        if wants(28) {
            records.extend(ipv6.iter().map(|ip| (28, ip.octets().to_vec())));
        }
        return (0, true, records);
    }
    // 6
    let Some(address) = asked.text().and_then(|name| reversed(&name)) else {
        return REFUSED;
    };
    let gateway = &config.gateway;
    let near = match address {
        IpAddr::V4(ip) => gateway.ipv4.is_some_and(|net| net.contains(&ip)),
        IpAddr::V6(ip) => gateway.ipv6.is_some_and(|net| net.contains(&ip)),
    };
    if !near {
        return REFUSED;
    }
    let has = |port: &&PortConfig| match &port.addresses {
        Addresses::Static(nets) => nets.iter().any(|net| net.contains(&address)),
        Addresses::Learned(_) => false,
    };
    match config.ports.iter().find(has).and_then(whole) {
        Some(name) if wants(12) => (0, true, vec![(12, written(&name))]),
        Some(_) => (0, true, Vec::new()),
        None => NO_NAME,
    }
}

/// The size and version in a whole OPT record with which `additional` begins.
fn options_of(additional: &[u8]) -> Option<(u16, u8)> {
    let [0, 0, 41, high, low, _, version, _, _, more, most, rest @ ..] = additional else {
        return None;
    };
    let whole = rest.len() >= usize::from(u16::from_be_bytes([*more, *most]));
    whole.then(|| (u16::from_be_bytes([*high, *low]), *version))
}

/// The response to a message; `None` if it is no query.
fn response(config: &SwitchConfig, message: &[u8], room: usize) -> Option<Vec<u8>> {
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
            said(config, known)
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
    Some(bytes)
}

impl Model {
    /// The response to a packet to the gateway that came in a frame of its own; `None` if it is no
    /// query.
    pub(super) fn name_service(
        &self,
        port: &PortConfig,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
    ) -> Option<Outcome> {
        let config = &self.written;
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
        Some(Outcome::Reply(Answer::Dns(DnsAnswer {
            from: packet.destination,
            to: packet.source,
            to_port,
            to_mac: ethernet.source,
            message: response(config, &packet.payload[8..], room)?,
        })))
    }
}
