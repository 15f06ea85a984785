//! Frames built by hand. Fields that are not set have the values of a valid frame.

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) type Mac = [u8; 6];

pub(crate) const BROADCAST: Mac = [0xff; 6];
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const RARP: u16 = 0x8035;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;

/// An Ethernet frame.
pub(crate) fn ethernet(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to);
    frame.extend(from);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `frame` with a tag in front of its EtherType.
pub(crate) fn tagged(frame: &[u8], protocol: u16, control: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend(protocol.to_be_bytes());
    tagged.extend(control.to_be_bytes());
    tagged.extend(&frame[12..]);
    tagged
}

/// The group MAC of an IPv6 group (RFC 2464).
pub(crate) fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// An ARP or RARP message.
#[derive(Debug, Clone)]
pub(crate) struct Arp {
    pub(crate) opcode: u16,
    pub(crate) sender_mac: Mac,
    pub(crate) sender: Ipv4Addr,
    pub(crate) target_mac: Mac,
    pub(crate) target: Ipv4Addr,
}

impl Arp {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut message = vec![0, 1, 8, 0, 6, 4];
        message.extend(self.opcode.to_be_bytes());
        message.extend(self.sender_mac);
        message.extend(self.sender.octets());
        message.extend(self.target_mac);
        message.extend(self.target.octets());
        message
    }
}

/// An IPv4 packet.
#[derive(Debug, Clone)]
pub(crate) struct V4 {
    pub(crate) from: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    /// TOS: DSCP and ECN.
    pub(crate) class: u8,
    /// Flags and fragment offset.
    pub(crate) fragment: u16,
    /// Padded with zeroes to a whole word.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;
pub(crate) const DONT_FRAGMENT: u16 = 0x4000;

impl V4 {
    pub(crate) fn new(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            from,
            to,
            protocol,
            ttl: 64,
            class: 0,
            fragment: 0,
            options: Vec::new(),
            payload,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let words = 5 + options.len() / 4;
        let total = words * 4 + self.payload.len();
        let mut packet = vec![0x40 | words as u8, self.class];
        packet.extend((total as u16).to_be_bytes());
        packet.extend([0x12, 0x34]);
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([self.ttl, self.protocol, 0, 0]);
        packet.extend(self.from.octets());
        packet.extend(self.to.octets());
        packet.extend(options);
        set_ipv4_checksum(&mut packet);
        packet.extend(&self.payload);
        packet
    }
}

/// Sets the correct checksum of an IPv4 header, valid or not.
pub(crate) fn set_ipv4_checksum(packet: &mut [u8]) {
    let header = (usize::from(packet[0] & 0x0f) * 4).min(packet.len());
    if header >= 20 {
        packet[10..12].fill(0);
        let sum = checksum(&packet[..header]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// An IPv6 packet.
#[derive(Debug, Clone)]
pub(crate) struct V6 {
    pub(crate) from: Ipv6Addr,
    pub(crate) to: Ipv6Addr,
    pub(crate) hop_limit: u8,
    /// Traffic class: DSCP and ECN.
    pub(crate) class: u8,
    /// The flow label, of 20 bits.
    pub(crate) label: u32,
    /// Extension headers, each by its number and its bytes without the first, which is the next
    /// header.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) upper: u8,
    pub(crate) payload: Vec<u8>,
}

impl V6 {
    pub(crate) fn new(from: Ipv6Addr, to: Ipv6Addr, upper: u8, payload: Vec<u8>) -> Self {
        Self {
            from,
            to,
            hop_limit: 64,
            class: 0,
            label: 0,
            extensions: Vec::new(),
            upper,
            payload,
        }
    }

    /// An ICMPv6 message with its checksum right, at the hop limit of Neighbour Discovery.
    pub(crate) fn icmp(from: Ipv6Addr, to: Ipv6Addr, mut message: Vec<u8>) -> Self {
        set_icmpv6_checksum(from, to, &mut message);
        Self {
            hop_limit: 255,
            ..Self::new(from, to, 58, message)
        }
    }

    pub(crate) fn with(mut self, number: u8, rest: Vec<u8>) -> Self {
        self.extensions.push((number, rest));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let numbers = self.extensions.iter().map(|(number, _)| *number);
        let mut numbers = numbers.chain([self.upper]);
        let first = numbers.next().expect("at least the upper layer");
        for ((_, rest), next) in self.extensions.iter().zip(numbers) {
            body.push(next);
            body.extend(rest);
        }
        body.extend(&self.payload);
        let head = 6 << 28 | u32::from(self.class) << 20 | self.label & 0xf_ffff;
        let mut packet = head.to_be_bytes().to_vec();
        packet.extend((body.len() as u16).to_be_bytes());
        packet.extend([first, self.hop_limit]);
        packet.extend(self.from.octets());
        packet.extend(self.to.octets());
        packet.extend(body);
        packet
    }
}

/// Hop-by-hop or destination options of `units` + 1 eight-byte units, filled by PadN.
pub(crate) fn padding_options(units: u8) -> Vec<u8> {
    let length = (usize::from(units) + 1) * 8;
    let mut rest = vec![units, 1, (length - 4) as u8];
    rest.resize(length - 1, 0);
    rest
}

/// A routing header of that type with no segment left.
pub(crate) fn routing(kind: u8) -> Vec<u8> {
    vec![0, kind, 0, 0, 0, 0, 0]
}

/// A routing header of that type with so many segments left, and one address.
pub(crate) fn routing_by(kind: u8, left: u8, way: Ipv6Addr) -> Vec<u8> {
    let mut rest = vec![2, kind, left, 0, 0, 0, 0];
    rest.extend(way.octets());
    rest
}

/// A header of options: `option` alone, padded to whole units of eight bytes.
pub(crate) fn one_option(option: &[u8]) -> Vec<u8> {
    let units = (option.len() + 2).div_ceil(8);
    let mut rest = vec![(units - 1) as u8];
    rest.extend(option);
    rest.resize(units * 8 - 1, 0);
    rest
}

/// The Home Address option (RFC 6275, section 6.3).
pub(crate) fn home_address(home: Ipv6Addr) -> Vec<u8> {
    [&[1, 2, 0, 0, 201, 16][..], &home.octets()].concat()
}

/// A fragment header: the offset in units of eight bytes.
pub(crate) fn fragment_header(offset: u16, more: bool) -> Vec<u8> {
    let mut rest = vec![0];
    rest.extend((offset << 3 | u16::from(more)).to_be_bytes());
    rest.extend([0, 0, 0x12, 0x34]);
    rest
}

/// An authentication header with a twelve-byte check value.
pub(crate) fn authentication() -> Vec<u8> {
    let mut rest = vec![4];
    rest.resize(23, 0);
    rest
}

/// A UDP datagram without a checksum.
pub(crate) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(from.to_be_bytes());
    datagram.extend(to.to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// A TCP segment with a header of `words` words.
pub(crate) fn tcp(from: u16, to: u16, words: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, words << 4, 2, 0x20, 0, 0, 0, 0, 0]);
    segment.resize(usize::from(words.max(5)) * 4, 1);
    segment.extend(payload);
    segment
}

/// An ICMP message with its checksum right.
pub(crate) fn icmp(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// An ICMPv6 message without its checksum; [`V6::icmp`] sets it.
pub(crate) fn icmpv6(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message
}

/// An echo's identifier, sequence number and data.
pub(crate) const ECHO: &[u8] = &[0x0a, 0x0b, 0, 1, b'd', b'a', b't', b'a'];

/// Neighbor Solicitation (135) or Advertisement (136), with its flags byte.
pub(crate) fn neighbor(kind: u8, flags: u8, target: Ipv6Addr, options: &[Vec<u8>]) -> Vec<u8> {
    let mut rest = vec![flags, 0, 0, 0];
    rest.extend(target.octets());
    rest.extend(options.concat());
    icmpv6(kind, 0, &rest)
}

/// Router Solicitation.
pub(crate) fn router_solicitation(options: &[Vec<u8>]) -> Vec<u8> {
    icmpv6(133, 0, &[vec![0; 4], options.concat()].concat())
}

/// Router Advertisement.
pub(crate) fn router_advertisement(options: &[Vec<u8>]) -> Vec<u8> {
    let fixed = vec![64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    icmpv6(134, 0, &[fixed, options.concat()].concat())
}

/// Redirect.
pub(crate) fn redirect(target: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut rest = vec![0; 4];
    rest.extend(target.octets());
    rest.extend(destination.octets());
    icmpv6(137, 0, &rest)
}

/// A source (1) or target (2) link-layer option.
pub(crate) fn link_layer(kind: u8, mac: Mac) -> Vec<u8> {
    let mut option = vec![kind, 1];
    option.extend(mac);
    option
}

/// A BOOTP message (RFC 951) with DHCP's cookie and no options.
pub(crate) fn bootp(op: u8, client: Mac) -> Vec<u8> {
    let mut message = vec![op, 1, 6, 0];
    message.resize(240, 0);
    message[28..34].copy_from_slice(&client);
    message[236..240].copy_from_slice(&[99, 130, 83, 99]);
    message
}

/// An option of DHCPv6 (RFC 8415).
pub(crate) fn option6(code: u16, value: &[u8]) -> Vec<u8> {
    let mut option = code.to_be_bytes().to_vec();
    option.extend((value.len() as u16).to_be_bytes());
    option.extend(value);
    option
}

/// An identity association for addresses, each with its valid lifetime.
pub(crate) fn association6(id: u8, addresses: &[(Ipv6Addr, u32)]) -> Vec<u8> {
    let mut value = vec![0, 0, 0, id, 0, 0, 0, 0, 0, 0, 0, 0];
    for (address, seconds) in addresses {
        let mut lease = address.octets().to_vec();
        lease.extend(seconds.to_be_bytes());
        lease.extend(seconds.to_be_bytes());
        value.extend(option6(5, &lease));
    }
    option6(3, &value)
}

/// A DHCPv6 message of that type and transaction.
pub(crate) fn dhcp6(kind: u8, transaction: u8, options: &[Vec<u8>]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, transaction];
    message.extend(options.concat());
    message
}

/// Makes an ICMPv6 message's checksum right.
pub(crate) fn set_icmpv6_checksum(from: Ipv6Addr, to: Ipv6Addr, message: &mut [u8]) {
    if message.len() < 4 {
        return;
    }
    message[2..4].fill(0);
    let mut covered = Vec::new();
    covered.extend(from.octets());
    covered.extend(to.octets());
    covered.extend((message.len() as u32).to_be_bytes());
    covered.extend([0, 0, 0, 58]);
    covered.extend(&*message);
    let sum = checksum(&covered);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071).
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
