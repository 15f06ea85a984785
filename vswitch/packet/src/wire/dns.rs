//! DNS (RFC 1035) as a server of few names speaks it: reads a query, and writes the response.

use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, Ipv6Repr, UdpPacket};

use super::ethernet::{self, ETHERNET_LEN};
use super::field::{be16, mac_at};
use super::icmp::HOPS;
use super::ipv4::{self, Ipv4};
use super::ipv6::{self, Ipv6};
use crate::frame::Frame;
use crate::number::{ethertype, port};

pub(super) const HEAD_LEN: usize = 12;
pub(super) const UDP_HEADER_LEN: usize = 8;
/// The longest name, with its labels' lengths and its end.
pub const MAX_NAME: usize = 255;
const MAX_LABEL: u8 = 63;
/// The longest response to a client that does not say what it takes.
pub(super) const MIN_RESPONSE: usize = 512;
/// The longest that we send, which fits every IPv6 link.
pub const MAX_RESPONSE: usize = 1232;
/// The option record of EDNS (RFC 6891).
pub(super) const OPT: u16 = 41;
pub(super) const OPT_LEN: usize = 11;
/// RFC 3225: the client takes records of DNSSEC. In the eighth byte of the option record.
pub(super) const DNSSEC_OK: u8 = 0x80;
/// How long an answer may be kept, in seconds.
const TTL_S: u32 = 60;

/// Flags of a message, as its third and fourth byte.
pub(super) mod flag {
    pub(crate) const RESPONSE: u16 = 0x8000;
    pub(crate) const OPCODE: u16 = 0x7800;
    pub(crate) const AUTHORITATIVE: u16 = 0x0400;
    pub(crate) const TRUNCATED: u16 = 0x0200;
    pub(crate) const RECURSION_DESIRED: u16 = 0x0100;
    pub(crate) const RECURSION_AVAILABLE: u16 = 0x0080;
    pub(crate) const AUTHENTIC_DATA: u16 = 0x0020;
    pub(crate) const CHECKING_DISABLED: u16 = 0x0010;
    pub(crate) const CODE: u16 = 0x000f;
}

/// Types and classes of records.
pub mod kind {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// Another name.
    pub const PTR: u16 = 12;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
    /// All types.
    pub const ANY: u16 = 255;
    /// The class of the Internet.
    pub const INTERNET: u16 = 1;
}

/// How a response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Records, or none of that type.
    NoError,
    /// The query cannot be read.
    FormatError,
    /// There is no such name.
    NoSuchName,
    /// Not a query of the usual kind.
    NotImplemented,
    /// Not a name of ours.
    Refused,
    /// A version of EDNS that we do not speak.
    BadVersion,
}

impl Code {
    const fn number(self) -> u16 {
        match self {
            Self::NoError => 0,
            Self::FormatError => 1,
            Self::NoSuchName => 3,
            Self::NotImplemented => 4,
            Self::Refused => 5,
            Self::BadVersion => 16,
        }
    }

    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoError => "NOERROR",
            Self::FormatError => "FORMERR",
            Self::NoSuchName => "NXDOMAIN",
            Self::NotImplemented => "NOTIMP",
            Self::Refused => "REFUSED",
            Self::BadVersion => "BADVERS",
        }
    }
}

/// The one question of a query.
#[derive(Debug, Clone, Copy)]
pub struct Question<'p> {
    /// The name: labels, each behind its length, and a zero.
    pub name: &'p [u8],
    /// The type of the wanted records.
    pub kind: u16,
    /// Their class.
    pub class: u16,
    pub(super) bytes: &'p [u8],
}

/// A query.
#[derive(Debug, Clone, Copy)]
pub struct Query<'p> {
    pub(super) id: u16,
    pub(super) flags: u16,
    /// Its question, or how it is wrong.
    pub question: Result<Question<'p>, Code>,
    /// The size of the longest response that the client takes by EDNS.
    pub(super) size: Option<u16>,
    /// Whether it takes records of DNSSEC (DO).
    pub(super) dnssec: bool,
}

impl<'p> Query<'p> {
    /// Reads a UDP datagram, from its header on. `None` if it is no query.
    pub fn parse(datagram: &'p [u8]) -> Option<Self> {
        let (header, message) = datagram.split_first_chunk::<UDP_HEADER_LEN>()?;
        let (head, rest) = message.split_first_chunk::<HEAD_LEN>()?;
        let flags = be16(head, 2);
        if usize::from(be16(header, 4)) != datagram.len() || flags & flag::RESPONSE != 0 {
            return None;
        }
        let mut query = Self {
            id: be16(head, 0),
            flags,
            question: Err(Code::FormatError),
            size: None,
            dnssec: false,
        };
        if flags & flag::OPCODE != 0 {
            query.question = Err(Code::NotImplemented);
        } else if (be16(head, 4), be16(head, 6), be16(head, 8)) == (1, 0, 0)
            && let Some(question) = Question::parse(rest)
        {
            query.question = Ok(question);
            if be16(head, 10) > 0 {
                query.read_options(&rest[question.bytes.len()..]);
            }
        }
        Some(query)
    }

    /// The option record, if it is the first of the additional section.
    fn read_options(&mut self, additional: &[u8]) {
        let Some((record, rest)) = additional.split_first_chunk::<OPT_LEN>() else {
            return;
        };
        let is_whole = rest.len() >= usize::from(be16(record, 9));
        if record[0] != 0 || be16(record, 1) != OPT || !is_whole {
            return;
        }
        self.size = Some(be16(record, 3));
        self.dnssec = record[7] & DNSSEC_OK != 0;
        if record[6] != 0 {
            self.question = Err(Code::BadVersion);
        }
    }
}

impl<'p> Question<'p> {
    /// `None` if it is cut off, or its name is too long or compressed.
    pub(super) fn parse(bytes: &'p [u8]) -> Option<Self> {
        let mut end = 0;
        loop {
            let len = *bytes.get(end)?;
            end += 1 + usize::from(len);
            if len > MAX_LABEL || end > MAX_NAME {
                return None;
            }
            if len == 0 {
                break;
            }
        }
        let bytes = bytes.get(..end + 4)?;
        Some(Self {
            name: &bytes[..end],
            kind: be16(bytes, end),
            class: be16(bytes, end + 2),
            bytes,
        })
    }

    /// Whether the type is none of records, but of the transfer of zones and of what two servers
    /// agree on (RFC 6895, section 3.1).
    pub fn is_meta(&self) -> bool {
        matches!(self.kind, OPT | 249..=254)
    }

    /// Whether records of that type are wanted.
    pub fn wants(&self, kind: u16) -> bool {
        self.kind == kind || self.kind == kind::ANY
    }

    /// Whether it is for the addresses of a name of one label, which searches a domain.
    pub fn is_short_name(&self) -> bool {
        let (label, rest) = Self::split(self.name);
        !label.is_empty() && rest == [0] && (self.wants(kind::A) || self.wants(kind::AAAA))
    }

    /// The name's first label, and the rest of the name. The label is empty if nothing follows.
    pub fn split(name: &[u8]) -> (&[u8], &[u8]) {
        let len = name.first().map_or(0, |len| usize::from(*len));
        name.get(1..)
            .and_then(|labels| labels.split_at_checked(len))
            .unwrap_or_default()
    }

    /// The labels of the name that are in front of the domain; `None` if it is not in the domain.
    pub fn within(&self, domain: &[u8]) -> Option<&'p [u8]> {
        let mut rest = self.name;
        while rest.len() > domain.len() {
            rest = &rest[1 + usize::from(rest[0])..];
        }
        let is_in = rest.eq_ignore_ascii_case(domain);
        is_in.then(|| &self.name[..self.name.len() - rest.len()])
    }

    /// The part of in-addr.arpa that it names or is in.
    pub fn reverse4(&self) -> Option<Reverse<u32>> {
        let labels = self.within(b"\x07in-addr\x04arpa\0")?;
        Some(Reverse::of(
            labels,
            4,
            |label| decimal(label).map(u32::from),
            8,
        ))
    }

    /// The part of ip6.arpa that it names or is in.
    pub fn reverse6(&self) -> Option<Reverse<u128>> {
        let labels = self.within(b"\x03ip6\x04arpa\0")?;
        let digit = |label: &[u8]| {
            let &[digit] = label else { return None };
            char::from(digit).to_digit(16).map(u128::from)
        };
        Some(Reverse::of(labels, 32, digit, 4))
    }
}

/// What a name under in-addr.arpa or ip6.arpa says: the addresses that begin with the numbers next
/// to that, as many as can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reverse<A> {
    /// The first of them.
    pub first: A,
    /// The bits that they have in common.
    pub len: u8,
    /// Whether it is the name of that part, and nothing is in front of the numbers.
    pub is_apex: bool,
}

impl<A: From<u8> + std::ops::Shl<u32, Output = A> + std::ops::BitOr<Output = A>> Reverse<A> {
    /// `labels` are those in front of the domain; of `most` numbers each has `bits` bits.
    fn of(labels: &[u8], most: usize, read: impl Fn(&[u8]) -> Option<A>, bits: u8) -> Self {
        // The last label is next to the domain, and no name has more labels than half its bytes.
        let mut places = [0_u8; MAX_NAME / 2 + 1];
        let (mut count, mut at) = (0, 0);
        while let Some(len) = labels.get(at).filter(|_| count < places.len()) {
            places[count] = at as u8;
            count += 1;
            at += 1 + usize::from(*len);
        }
        let mut reverse = Self {
            first: A::from(0),
            len: 0,
            is_apex: true,
        };
        for (number, place) in places[..count].iter().rev().enumerate() {
            let (label, _) = Question::split(&labels[usize::from(*place)..]);
            let Some(value) = read(label).filter(|_| number < most) else {
                reverse.is_apex = false;
                break;
            };
            reverse.len += bits;
            let width = bits as u32 * most as u32;
            reverse.first = reverse.first | value << (width - u32::from(reverse.len));
        }
        reverse
    }
}

/// A number of up to three digits, as addresses are written.
fn decimal(label: &[u8]) -> Option<u8> {
    let is_usual = !label.is_empty() && (label.len() == 1 || label[0] != b'0');
    let is_number = is_usual && label.len() <= 3 && label.iter().all(u8::is_ascii_digit);
    let digits = is_number.then_some(label)?.iter();
    let number = digits.fold(0_u16, |number, digit| number * 10 + u16::from(digit - b'0'));
    u8::try_from(number).ok()
}

/// A response, as a UDP datagram.
#[derive(Debug)]
pub struct Response {
    bytes: [u8; UDP_HEADER_LEN + MAX_RESPONSE],
    len: usize,
    /// Where its answers begin.
    answers_at: usize,
    /// Where they end at the latest.
    end: usize,
    answers: u16,
    flags: u16,
    code: Code,
    has_options: bool,
}

impl Response {
    /// A response without an answer yet, to a link of which a datagram takes so many bytes.
    pub fn new(query: &Query<'_>, code: Code, is_authoritative: bool, room: usize) -> Self {
        let longest = query.size.map_or(MIN_RESPONSE, usize::from);
        let longest = longest.clamp(MIN_RESPONSE, MAX_RESPONSE);
        let room = room.saturating_sub(UDP_HEADER_LEN).max(MIN_RESPONSE);
        let options_len = if query.size.is_some() { OPT_LEN } else { 0 };
        let mut flags = query.flags & (flag::OPCODE | flag::RECURSION_DESIRED);
        flags |= flag::RESPONSE | code.number() & 0x0f;
        if is_authoritative {
            flags |= flag::AUTHORITATIVE;
        }
        let mut response = Self {
            bytes: [0; UDP_HEADER_LEN + MAX_RESPONSE],
            len: UDP_HEADER_LEN + HEAD_LEN,
            answers_at: 0,
            end: UDP_HEADER_LEN + longest.min(room) - options_len,
            answers: 0,
            flags,
            code,
            has_options: query.size.is_some(),
        };
        response.bytes[UDP_HEADER_LEN..][..2].copy_from_slice(&query.id.to_be_bytes());
        if let Ok(question) = query.question {
            response.push(question.bytes);
            response.bytes[UDP_HEADER_LEN + 5] = 1;
        }
        response.answers_at = response.len;
        response
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Adds a record of the question's name. Where one does not fit, all are left out.
    pub fn add(&mut self, kind: u16, value: &[u8]) {
        if self.flags & flag::TRUNCATED != 0 {
            return;
        }
        if self.len + 12 + value.len() > self.end {
            self.flags |= flag::TRUNCATED;
            (self.len, self.answers) = (self.answers_at, 0);
            return;
        }
        // The question's name, by its place.
        self.push(&[0xc0, HEAD_LEN as u8]);
        self.push(&kind.to_be_bytes());
        self.push(&kind::INTERNET.to_be_bytes());
        self.push(&TTL_S.to_be_bytes());
        self.push(&(value.len() as u16).to_be_bytes());
        self.push(value);
        self.answers += 1;
    }

    /// How it ends.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The whole datagram but for its checksum.
    fn finish(&mut self) -> &mut [u8] {
        if self.has_options {
            let [high, low] = (MAX_RESPONSE as u16).to_be_bytes();
            let upper = (self.code.number() >> 4) as u8;
            self.push(&[0, 0, OPT as u8, high, low, upper, 0, 0, 0, 0, 0]);
            self.bytes[UDP_HEADER_LEN + 11] = 1;
        }
        let message = &mut self.bytes[UDP_HEADER_LEN..];
        message[2..4].copy_from_slice(&self.flags.to_be_bytes());
        message[6..8].copy_from_slice(&self.answers.to_be_bytes());
        &mut self.bytes[..self.len]
    }

    /// Puts it in the place of the frame of its query. `None` if it does not fit.
    pub fn replace4(mut self, frame: &mut Frame<'_>, own_mac: [u8; 6], query: &Ipv4) -> Option<()> {
        let (from, to) = (query.destination.into(), query.source.into());
        let to_port = query.udp()?.0;
        let datagram = self.finish();
        write_udp(
            datagram,
            to_port,
            (IpAddress::Ipv4(from), IpAddress::Ipv4(to)),
        );
        let bytes = resized(
            frame,
            own_mac,
            ethertype::IPV4,
            ipv4::HEADER_LEN + datagram.len(),
        )?;
        let (header, payload) = bytes.split_at_mut(ipv4::HEADER_LEN);
        payload.copy_from_slice(datagram);
        header.fill(0);
        let total_len = (ipv4::HEADER_LEN + datagram.len()) as u16;
        let mut ip = Ipv4Packet::new_unchecked(header);
        ip.set_version(4);
        ip.set_header_len(ipv4::HEADER_LEN as u8);
        ip.set_total_len(total_len);
        ip.set_hop_limit(HOPS);
        ip.set_next_header(IpProtocol::Udp);
        ip.set_src_addr(from);
        ip.set_dst_addr(to);
        ip.fill_checksum();
        Some(())
    }

    /// As [`Self::replace4`].
    pub fn replace6(mut self, frame: &mut Frame<'_>, own_mac: [u8; 6], query: &Ipv6) -> Option<()> {
        let (from, to) = (query.destination.into(), query.source.into());
        let to_port = query.udp()?.0;
        let datagram = self.finish();
        write_udp(
            datagram,
            to_port,
            (IpAddress::Ipv6(from), IpAddress::Ipv6(to)),
        );
        let bytes = resized(
            frame,
            own_mac,
            ethertype::IPV6,
            ipv6::HEADER_LEN + datagram.len(),
        )?;
        let (header, payload) = bytes.split_at_mut(ipv6::HEADER_LEN);
        payload.copy_from_slice(datagram);
        let ip = Ipv6Repr {
            src_addr: from,
            dst_addr: to,
            next_header: IpProtocol::Udp,
            payload_len: datagram.len(),
            hop_limit: HOPS,
        };
        ip.emit(&mut Ipv6Packet::new_unchecked(header));
        Some(())
    }
}

/// Makes a frame one to the station that it came from, with a packet of that length; returns the
/// packet's bytes.
fn resized<'f>(
    frame: &'f mut Frame<'_>,
    own_mac: [u8; 6],
    ethertype: u16,
    len: usize,
) -> Option<&'f mut [u8]> {
    let to_mac = mac_at(frame.bytes(), 6);
    frame.resize(ETHERNET_LEN + len)?;
    ethernet::write(frame.bytes_mut(), to_mac, own_mac, ethertype);
    Some(&mut frame.bytes_mut()[ETHERNET_LEN..])
}

fn write_udp(datagram: &mut [u8], to_port: u16, (from, to): (IpAddress, IpAddress)) {
    let len = datagram.len() as u16;
    let mut udp = UdpPacket::new_unchecked(datagram);
    udp.set_src_port(port::DNS);
    udp.set_dst_port(to_port);
    udp.set_len(len);
    udp.fill_checksum(&from, &to);
}
