//! What resolvers are asked: `docs/reference/services.md`, "Resolvers".

use super::dns::{Asked, options_of};
use super::tunnel::udp_sum;
use super::*;

/// "More than 100 queries of the port in a second."
const PER_SECOND: u64 = 100;
const UNANSWERED: usize = 64;
const UNANSWERED_NS: u64 = 5_000_000_000;
const REPEATED_NS: u64 = 1_000_000_000;

/// The query to a resolver, but for its ID and source port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    /// The frame with an ID and a source port of zero, and no UDP checksum.
    frame: Vec<u8>,
    /// Source ports that it may not have.
    taken: Vec<u16>,
}

impl Query {
    /// Checks the frame that left; returns its source port and ID.
    pub(crate) fn check(&self, left: &[u8]) -> Result<(u16, u16), String> {
        let head = match self.frame[12..14] {
            [0x08, 0] => 14 + 20,
            _ => 14 + 40,
        };
        if left.len() != self.frame.len() {
            return Err(format!("a query of {} bytes", left.len()));
        }
        let (port, id) = (be16(left, head), be16(left, head + 8));
        let mut expected = self.frame.clone();
        expected[head..head + 2].copy_from_slice(&left[head..head + 2]);
        expected[head + 8..head + 10].copy_from_slice(&left[head + 8..head + 10]);
        let addresses = match head {
            34 => &left[26..34],
            _ => &left[22..54],
        };
        if be16(left, head + 6) == 0 || udp_sum(addresses, &left[head..]) != 0xffff {
            return Err("a query with a wrong checksum".to_owned());
        }
        expected[head + 6..head + 8].copy_from_slice(&left[head + 6..head + 8]);
        if expected != left {
            return Err(format!("another query than {expected:02x?}"));
        }
        if port < 1024 || self.taken.contains(&port) {
            return Err(format!("a query from port {port}"));
        }
        Ok((port, id))
    }
}

/// A query that a resolver may still answer.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// The number of the port.
    from: usize,
    address: IpAddr,
    udp_port: u16,
    gateway: IpAddr,
    mac: [u8; 6],
    tag: Option<u16>,
    /// The message that the client sent.
    message: Vec<u8>,
    resolver: IpAddr,
    /// The source port and ID, when they are known.
    by: Option<(u16, u16)>,
    sent_ns: u64,
    wrong: u8,
}

impl Waiting {
    fn question(&self) -> &[u8] {
        let asked = Asked::read(&self.message[12..]).expect("a question");
        &self.message[12..12 + asked.length]
    }

    fn is_repeated_by(&self, other: &Self) -> bool {
        let of = |it: &Self| (it.from, it.address, it.udp_port, it.gateway, it.mac, it.tag);
        of(self) == of(other)
            && self.message[..2] == other.message[..2]
            && self.question() == other.question()
    }

    /// The size and DO of its whole OPT record.
    fn options(&self) -> Option<(u16, u8)> {
        let rest = &self.message[12 + self.question().len()..];
        let counted = be16(&self.message, 10) > 0;
        let (size, _) = options_of(rest).filter(|_| counted)?;
        Some((size, rest[7] & 0x80))
    }
}

/// What is remembered of queries.
#[derive(Debug, Clone, Default)]
pub(super) struct Resolvers {
    waiting: Vec<Waiting>,
    preferred: usize,
    /// When each answered last.
    answered_ns: BTreeMap<IpAddr, u64>,
    buckets: BTreeMap<usize, Bucket>,
}

impl Model {
    /// A query of row 7, where there are resolvers.
    pub(super) fn forwarded(
        &mut self,
        from: usize,
        ethernet: &Ethernet<'_>,
        packet: &Packet<'_>,
    ) -> Outcome {
        let now_ns = self.now_ns;
        let list = self.config.gateway.dns.forward.clone();
        let uplink = self.config.uplink.clone().expect("an uplink");
        let (udp_port, _) = packet.udp_ports().expect("UDP");
        let mut query = Waiting {
            from,
            address: packet.source,
            udp_port,
            gateway: packet.destination,
            mac: ethernet.source,
            tag: ethernet.tag,
            message: packet.payload[8..].to_vec(),
            resolver: list[0],
            by: None,
            sent_ns: now_ns,
            wrong: 0,
        };
        // Resolvers 1
        let resolvers = &mut self.resolvers;
        let bucket = resolvers.buckets.entry(from);
        if !bucket
            .or_insert_with(|| Bucket::new(PER_SECOND))
            .take(now_ns, 1)
        {
            return DnsRate.into();
        }
        let is_over = |it: &Waiting| it.from == from && now_ns - it.sent_ns >= UNANSWERED_NS;
        let is_late =
            |it: &Waiting| it.is_repeated_by(&query) && now_ns - it.sent_ns >= REPEATED_NS;
        let answered = &resolvers.answered_ns;
        let silent = |it: &&Waiting| answered.get(&it.resolver).is_none_or(|at| *at < it.sent_ns);
        let late = resolvers
            .waiting
            .iter()
            .filter(|it| is_over(it) || is_late(it));
        let failed: Vec<IpAddr> = late.filter(silent).map(|it| it.resolver).collect();
        resolvers.waiting.retain(|it| !is_over(it));
        let others = resolvers.waiting.iter().filter(|it| it.from == from);
        let others = others.filter(|it| !it.is_repeated_by(&query)).count();
        let repeats = resolvers.waiting.iter().any(|it| it.is_repeated_by(&query));
        if others == UNANSWERED && !repeats {
            return DnsRate.into();
        }
        // Resolvers 2
        let turn = |preferred: usize| {
            let mut in_turn: Vec<_> = list.iter().copied().enumerate().collect();
            in_turn.rotate_left(preferred);
            in_turn.into_iter().find_map(|(place, resolver)| {
                let hop = next_hop_to(&uplink, resolver)?;
                Some((place, resolver, *self.neighbours.get(&hop)?))
            })
        };
        let mut preferred = self.resolvers.preferred;
        for _ in 0..list.len() {
            match turn(preferred) {
                Some((place, resolver, _)) if failed.contains(&resolver) => {
                    preferred = (place + 1) % list.len();
                }
                _ => break,
            }
        }
        let chosen = turn(preferred);
        self.resolvers.preferred = preferred;
        let Some((_, resolver, mac)) = chosen else {
            return NeighbourUnresolved.into();
        };
        query.resolver = resolver;
        let mut taken = vec![4500];
        taken.extend(self.config.tunnel.iter().map(|tunnel| tunnel.port));
        let ports = self.resolvers.waiting.iter().filter_map(|it| it.by);
        taken.extend(ports.map(|(port, _)| port));
        let mut own = uplink.own_addresses();
        let own = own.find(|own| own.is_ipv4() == resolver.is_ipv4());
        let own = own.expect("an address of that family");
        // "It has the client's RD, AD and CD; the question as it was written; and …"
        let flags = [query.message[2] & 0x01, query.message[3] & 0x30];
        let options = query.options();
        let mut message = vec![0, 0, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0];
        message.push(u8::from(options.is_some()));
        message.extend(query.question());
        if let Some((_, dnssec)) = options {
            let headers = if resolver.is_ipv4() { 28 } else { 48 };
            let [high, low] = (uplink.mtu - headers).min(1232).to_be_bytes();
            message.extend([0, 0, 41, high, low, 0, 0, dnssec, 0, 0, 0]);
        }
        let frame = datagram(
            (mac, uplink.mac.octets()),
            (own, 0),
            (resolver, 53),
            &message,
        );
        let waiting = &mut self.resolvers.waiting;
        waiting.retain(|it| !it.is_repeated_by(&query));
        waiting.push(query);
        Outcome::Query(Query { frame, taken })
    }

    /// The last query left with that source port and ID.
    pub(crate) fn asked_by(&mut self, by: (u16, u16)) {
        let last = self.resolvers.waiting.last_mut();
        last.expect("a query").by = Some(by);
    }

    /// UDP from port 53 to an own address of the uplink, where there are resolvers.
    pub(super) fn resolver_says(&mut self, packet: &Packet<'_>) -> Option<Outcome> {
        let (53, to) = packet.udp_ports()? else {
            return None;
        };
        let dns = &self.config.gateway.dns;
        if !dns.enabled || dns.forward.is_empty() {
            return None;
        }
        // Row 1
        let datagram_bytes = packet.payload;
        let addresses = match packet.source {
            IpAddr::V4(_) => &packet.whole[12..20],
            IpAddr::V6(_) => &packet.whole[8..40],
        };
        let sum_is_right = match be16(datagram_bytes, 6) {
            0 => packet.source.is_ipv4(),
            _ => udp_sum(addresses, datagram_bytes) == 0xffff,
        };
        let is_sound = packet.fragment == Fragment::No
            && usize::from(be16(datagram_bytes, 4)) == datagram_bytes.len()
            && sum_is_right;
        let message = &datagram_bytes[8..];
        let is_answer =
            is_sound && message.len() >= 12 && message[2] & 0xf8 == 0x80 && be16(message, 4) == 1;
        let Some(asked) = Some(())
            .filter(|()| is_answer)
            .and_then(|()| Asked::read(&message[12..]))
        else {
            return Some(DnsMalformed.into());
        };
        // Row 2
        let now_ns = self.now_ns;
        let is_meant = |it: &Waiting| {
            it.by.is_some_and(|(port, _)| port == to)
                && it.resolver == packet.source
                && now_ns - it.sent_ns < UNANSWERED_NS
        };
        let waiting = &mut self.resolvers.waiting;
        let Some(at) = waiting.iter().position(is_meant) else {
            return Some(DnsUnsolicited.into());
        };
        let own = Asked::read(waiting[at].question()).expect("a question");
        let of = |asked: &Asked| (asked.labels.clone(), asked.kind, asked.class);
        let id = waiting[at].by.map(|(_, id)| id);
        if id != Some(be16(message, 0)) || of(&own) != of(&asked) {
            waiting[at].wrong += 1;
            if waiting[at].wrong == 3 {
                waiting.remove(at);
            }
            return Some(DnsUnsolicited.into());
        }
        // Row 3
        let query = waiting.remove(at);
        let answered = &mut self.resolvers.answered_ns;
        answered.insert(query.resolver, now_ns);
        Some(self.response_of(&query, message))
    }

    /// "The response goes from the address that was asked …"
    fn response_of(&self, query: &Waiting, answer: &[u8]) -> Outcome {
        let port = &self.config.ports[query.from];
        let headers = if query.address.is_ipv4() { 28 } else { 48 };
        let options = query.options();
        let size = options.map_or(512, |(size, _)| usize::from(size).clamp(512, 1232));
        let size = size.min(usize::from(port.mtu) - headers);
        let fits = answer.len() <= size;
        let asked = &query.message;
        let mut message = asked[..2].to_vec();
        let truncated = if fits { 0 } else { 0x02 };
        message.push(answer[2] & 0x86 | asked[2] & 0x01 | truncated);
        message.push(answer[3] & 0x8f | asked[3] & 0x10);
        if fits {
            message.extend(&answer[4..12]);
            message.extend(query.question());
            message.extend(&answer[12 + query.question().len()..]);
        } else {
            message.extend([0, 1, 0, 0, 0, 0, 0, u8::from(options.is_some())]);
            message.extend(query.question());
            if let Some((_, dnssec)) = options {
                message.extend([0, 0, 41, 0x04, 0xd0, 0, 0, dnssec, 0, 0, 0]);
            }
        }
        let macs = (query.mac, port.gateway_mac.octets());
        let to = (query.address, query.udp_port);
        let mut bytes = datagram(macs, (query.gateway, 53), to, &message);
        // The checksum, which is not that of nothing.
        let head = bytes.len() - message.len() - 8;
        let addresses = match query.address {
            IpAddr::V4(_) => bytes[26..34].to_vec(),
            IpAddr::V6(_) => bytes[22..54].to_vec(),
        };
        let sum = match !udp_sum(&addresses, &bytes[head..]) {
            0 => 0xffff,
            sum => sum,
        };
        bytes[head + 6..head + 8].copy_from_slice(&sum.to_be_bytes());
        if let Some(tag) = query.tag {
            let tag = [[0x81, 0], tag.to_be_bytes()].concat();
            bytes.splice(12..12, tag);
        }
        Outcome::Forward {
            to: query.from,
            bytes,
        }
    }

    /// "A new configuration keeps the queries if …"
    pub(super) fn keep_queries(&mut self, old: &SwitchConfig) {
        let new = &self.written;
        let own = |config: &SwitchConfig| {
            let uplink = config.uplink.iter();
            uplink
                .flat_map(UplinkConfig::own_addresses)
                .collect::<Vec<_>>()
        };
        let same = new.ports == old.ports
            && new.gateway.dns.forward == old.gateway.dns.forward
            && own(new) == own(old);
        if !same {
            self.resolvers.waiting.clear();
            self.resolvers.preferred = 0;
            self.resolvers.answered_ns.clear();
        }
    }
}

/// "The resolver itself, if it is on the uplink's link, or else the uplink's."
pub(super) fn next_hop_to(uplink: &UplinkConfig, resolver: IpAddr) -> Option<IpAddr> {
    let on_link = nets(uplink.ipv4, uplink.ipv6).any(|net| net.contains(&resolver));
    match resolver {
        _ if on_link => Some(resolver),
        IpAddr::V4(_) => uplink.next_hops.ipv4.map(IpAddr::V4),
        IpAddr::V6(_) => uplink.next_hops.ipv6.map(IpAddr::V6),
    }
}

/// "With DF and a TTL or hop limit of 64."
fn datagram(
    (to_mac, from_mac): ([u8; 6], [u8; 6]),
    (from, from_port): (IpAddr, u16),
    (to, to_port): (IpAddr, u16),
    message: &[u8],
) -> Vec<u8> {
    let length = 8 + message.len() as u16;
    let mut bytes = [to_mac, from_mac].concat();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = !ones_complement_sum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            bytes.extend([0x08, 0]);
            bytes.extend(header);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend([UDP, 64]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        _ => panic!("two families"),
    }
    bytes.extend(from_port.to_be_bytes());
    bytes.extend(to_port.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(message);
    bytes
}
