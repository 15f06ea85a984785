//! What a DHCPv6 server says (RFC 8415), laid out in advance as far as it is always the same.

use std::net::Ipv6Addr;

use smoltcp::wire::{IpProtocol, Ipv6Packet, Ipv6Repr, UdpPacket};

use super::dhcp6::{Asked, ClientMessage, kind, option, status};
use super::ethernet::{self, ETHERNET_LEN};
use super::field::dns_names;
use super::icmp::HOPS;
use super::ipv6;
use crate::frame::Frame;
use crate::number::{ethertype, port};

/// The longest IP packet of a server, in bytes.
const MAX_LEN: usize = 1500;
/// The shortest MTU of an IPv6 link.
const MIN_MTU: usize = 1280;
const UDP_HEADER_LEN: usize = 8;
/// Bytes in front of the message in its frame.
const HEADERS_LEN: usize = ETHERNET_LEN + ipv6::HEADER_LEN + UDP_HEADER_LEN;
/// The fixed part of a message.
const HEAD_LEN: usize = 4;
/// The highest preference, by which clients wait for no other server (section 21.8).
const HIGHEST_PREFERENCE: u8 = 255;
/// The shortest time after which clients may ask again for what is no lease (section 7.6).
const MIN_REFRESH_S: u32 = 600;
/// The options that clients may ask for. Without a list of theirs they get all, in this order.
const ASKABLE: [u16; 5] = [
    option::DNS,
    option::SEARCH,
    option::SNTP,
    option::REFRESH_TIME,
    option::NTP,
];

/// What one client is given.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'s> {
    /// The server's own MAC, which is its identifier (DUID-LL); no station need have it.
    pub server: [u8; 6],
    /// The client's address, if it has one.
    pub address: Option<u128>,
    /// Whether it gives addresses at all.
    pub leases: bool,
    /// How long a lease lasts, in seconds.
    pub lease_s: u32,
    /// DNS servers.
    pub dns: &'s [Ipv6Addr],
    /// The domains in which short names are looked up.
    pub search: &'s [&'s str],
    /// NTP servers.
    pub ntp: &'s [Ipv6Addr],
}

/// An option as it is sent: code, length, value.
type Laid = Box<[u8]>;

/// What one client is given, laid out.
#[derive(Debug, PartialEq)]
pub struct Offer {
    address: Option<u128>,
    leases: bool,
    lease_s: u32,
    server: Laid,
    /// What clients ask for, in the order of the codes.
    options: Box<[(u16, Laid)]>,
}

/// The kind of a server's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An ADVERTISE.
    Advertise,
    /// The REPLY to a SOLICIT for a rapid commit.
    RapidReply,
    /// The REPLY to a REQUEST.
    Reply,
    /// The REPLY to a RENEW or REBIND, which ends other addresses.
    Renewal,
    /// The REPLY to a CONFIRM, with the status.
    Confirmation(u16),
    /// The REPLY to a RELEASE or DECLINE.
    Receipt,
    /// The REPLY to an INFORMATION-REQUEST.
    Information,
    /// The REPLY to what should have been sent to the group.
    UseMulticast,
}

impl Kind {
    /// The message's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Advertise => "ADVERTISE",
            Self::RapidReply => "REPLY to SOLICIT",
            Self::Reply => "REPLY to REQUEST",
            Self::Renewal => "REPLY to a renewal",
            Self::Confirmation(_) => "REPLY to CONFIRM",
            Self::Receipt => "REPLY to RELEASE or DECLINE",
            Self::Information => "REPLY to INFORMATION-REQUEST",
            Self::UseMulticast => "REPLY: use multicast",
        }
    }

    const fn message_type(self) -> u8 {
        match self {
            Self::Advertise => kind::ADVERTISE,
            _ => kind::REPLY,
        }
    }

    /// The status of the whole message, if it states one.
    const fn status(self) -> Option<u16> {
        match self {
            Self::Confirmation(status) => Some(status),
            Self::Receipt => Some(status::SUCCESS),
            Self::UseMulticast => Some(status::USE_MULTICAST),
            _ => None,
        }
    }

    /// Whether it tells what the client asks for beside addresses.
    const fn informs(self) -> bool {
        self.status().is_none()
    }
}

/// Lays out an option.
fn laid(code: u16, value: &[u8]) -> Laid {
    let len = value.len() as u16;
    [&code.to_be_bytes()[..], &len.to_be_bytes(), value]
        .concat()
        .into()
}

fn octets(list: &[Ipv6Addr]) -> Vec<u8> {
    list.iter().flat_map(|ip| ip.octets()).collect()
}

/// RFC 5908: each server's address is an option of its own within the option.
fn ntp(list: &[Ipv6Addr]) -> Vec<u8> {
    let servers = list
        .iter()
        .map(|ip| laid(option::NTP_ADDRESS, &ip.octets()));
    servers.collect::<Vec<_>>().concat()
}

/// Whether the identity association is for prefixes.
fn is_prefixes(asked: &Asked<'_>) -> bool {
    !asked.is_for_addresses() && !asked.is_for_temporary()
}

/// The status of an identity association that gets nothing.
fn refusal(asked: &Asked<'_>) -> u16 {
    match is_prefixes(asked) {
        true => status::NO_PREFIXES,
        false => status::NO_ADDRESSES,
    }
}

impl Offer {
    /// Lays out what a client is given.
    pub fn new(settings: &Settings<'_>) -> Self {
        let refresh_s = settings.lease_s.max(MIN_REFRESH_S);
        let values = [
            (option::DNS, octets(settings.dns)),
            (option::SEARCH, dns_names(settings.search)),
            (option::SNTP, octets(settings.ntp)),
            (option::REFRESH_TIME, refresh_s.to_be_bytes().to_vec()),
            (option::NTP, ntp(settings.ntp)),
        ];
        let values = values.iter().filter(|(_, value)| !value.is_empty());
        let options = values.map(|(code, value)| (*code, laid(*code, value)));
        let identifier = [&[0, 3, 0, 1], &settings.server[..]].concat();
        Self {
            address: settings.address.filter(|_| settings.leases),
            leases: settings.leases,
            lease_s: settings.lease_s,
            server: laid(option::SERVER, &identifier),
            options: options.collect(),
        }
    }

    /// Whether it gives the client an address.
    pub fn address(&self) -> Option<u128> {
        self.address
    }

    /// Whether it serves more than information.
    pub fn leases(&self) -> bool {
        self.leases
    }

    /// Whether the identifier is the server's.
    pub fn is_server(&self, identifier: &[u8]) -> bool {
        self.server[4..] == *identifier
    }

    /// The identity association that gets the address: the first for addresses that names it, or
    /// else the first. Its place among all.
    pub fn chosen(&self, message: &ClientMessage<'_>) -> Option<usize> {
        let address = self.address?;
        let (mut first, mut naming, mut place) = (None, None, 0);
        message.each_association(|asked| {
            if asked.is_for_addresses() {
                first = first.or(Some(place));
                naming = naming.or(asked.names(|it| it == address).then_some(place));
            }
            place += 1;
        });
        naming.or(first)
    }

    /// The answer to a client's message, to that station of the link. `is_near` tells whether an
    /// address fits the link.
    pub fn answer(
        &self,
        message: &ClientMessage<'_>,
        kind: Kind,
        to: &Station,
        is_near: impl Fn(u128) -> bool,
    ) -> Answer {
        let longest = usize::from(to.mtu).clamp(MIN_MTU, MAX_LEN);
        let mut answer = Answer {
            bytes: [0; ETHERNET_LEN + MAX_LEN],
            len: 0,
        };
        let mut options = Options {
            room: &mut answer.bytes[HEADERS_LEN + HEAD_LEN..ETHERNET_LEN + longest],
            len: 0,
        };
        self.write_options(message, kind, is_near, &mut options);
        answer.len = HEADERS_LEN + HEAD_LEN + options.len;
        let head = (u32::from(kind.message_type()) << 24) | message.transaction;
        answer.bytes[HEADERS_LEN..][..HEAD_LEN].copy_from_slice(&head.to_be_bytes());
        to.write_headers(&mut answer.bytes[..answer.len]);
        answer
    }

    fn write_options(
        &self,
        message: &ClientMessage<'_>,
        kind: Kind,
        is_near: impl Fn(u128) -> bool,
        to: &mut Options<'_>,
    ) {
        if !message.identifier.is_empty() {
            to.add(option::CLIENT, &[message.identifier]);
        }
        to.add_laid(&self.server);
        match kind {
            Kind::Advertise => _ = to.add(option::PREFERENCE, &[&[HIGHEST_PREFERENCE]]),
            Kind::RapidReply => _ = to.add(option::RAPID_COMMIT, &[]),
            _ => {}
        }
        if let Some(status) = kind.status() {
            to.add_status(status);
        }
        let chosen = self.chosen(message);
        let mut place = 0;
        message.each_association(|asked| {
            let address = self.address.filter(|_| chosen == Some(place));
            place += 1;
            match kind {
                Kind::Confirmation(_) | Kind::Information | Kind::UseMulticast => {}
                Kind::Receipt => {
                    let is_bound = |ip| Some(ip) == self.address;
                    if !(asked.is_for_addresses() && asked.names(is_bound)) {
                        to.add_refusal(&asked, status::NO_BINDING);
                    }
                }
                Kind::Reply if !is_prefixes(&asked) && asked.names(|ip| !is_near(ip)) => {
                    to.add_refusal(&asked, status::NOT_ON_LINK);
                }
                Kind::Advertise | Kind::RapidReply | Kind::Reply | Kind::Renewal => {
                    to.add_association(&asked, (address, self.lease_s), kind == Kind::Renewal);
                }
            }
        });
        if !kind.informs() {
            return;
        }
        let mut sent = 0_u8;
        let mut add = |code: u16| {
            let Some(place) = ASKABLE.iter().position(|askable| *askable == code) else {
                return;
            };
            let is_silent = code == option::REFRESH_TIME && kind != Kind::Information;
            let mut options = self.options.iter();
            if sent & 1 << place == 0
                && !is_silent
                && let Some((_, option)) = options.find(|(known, _)| *known == code)
            {
                to.add_laid(option);
            }
            sent |= 1 << place;
        };
        match message.wanted {
            Some(wanted) => {
                for code in wanted.chunks_exact(2) {
                    add(u16::from_be_bytes([code[0], code[1]]));
                }
            }
            None => ASKABLE.into_iter().for_each(add),
        }
    }
}

/// The options of a message, in the room that there is for them.
struct Options<'r> {
    room: &'r mut [u8],
    len: usize,
}

impl Options<'_> {
    /// Adds an option that is laid out, if there is room.
    fn add_laid(&mut self, option: &[u8]) -> Option<()> {
        let room = self.room.get_mut(self.len..)?.get_mut(..option.len())?;
        room.copy_from_slice(option);
        self.len += option.len();
        Some(())
    }

    /// Adds an option whose value has these parts, if there is room.
    fn add(&mut self, code: u16, parts: &[&[u8]]) -> Option<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.room.len() - self.len < 4 + len {
            return None;
        }
        self.add_laid(&code.to_be_bytes())?;
        self.add_laid(&(len as u16).to_be_bytes())?;
        parts.iter().try_for_each(|part| self.add_laid(part))
    }

    fn add_status(&mut self, status: u16) -> Option<()> {
        self.add(option::STATUS, &[&status.to_be_bytes()])
    }

    /// Adds an address with its lifetimes.
    fn add_address(&mut self, address: u128, seconds: u32) -> Option<()> {
        let seconds = seconds.to_be_bytes();
        self.add(
            option::ADDRESS,
            &[&address.to_be_bytes(), &seconds, &seconds],
        )
    }

    /// Adds an identity association: with `times` one that has an address. `inner` adds what is in
    /// it. Without room for its head, nothing is added.
    fn enclose(
        &mut self,
        asked: &Asked<'_>,
        times: [u32; 2],
        inner: impl FnOnce(&mut Self) -> Option<()>,
    ) {
        let start = self.len;
        let [renew, rebind] = times.map(u32::to_be_bytes);
        let id = asked.association.id.to_be_bytes();
        let head: [&[u8]; 3] = [&id, &renew, &rebind];
        let parts = if asked.is_for_temporary() { 1 } else { 3 };
        let added = self.add(asked.association.kind, &head[..parts]);
        let added = added.and_then(|()| inner(self));
        if added.is_none() {
            self.len = start;
            return;
        }
        let len = (self.len - start - 4) as u16;
        self.room[start + 2..start + 4].copy_from_slice(&len.to_be_bytes());
    }

    fn add_refusal(&mut self, asked: &Asked<'_>, status: u16) {
        self.enclose(asked, [0; 2], |options| options.add_status(status));
    }

    /// Adds an identity association with that address, or why it gets none. `ends` other addresses
    /// of its client's, as far as there is room.
    fn add_association(
        &mut self,
        asked: &Asked<'_>,
        (address, seconds): (Option<u128>, u32),
        ends: bool,
    ) {
        let times = match address {
            Some(_) => [seconds / 2, seconds - seconds / 8],
            None => [0; 2],
        };
        self.enclose(asked, times, |options| {
            match address {
                Some(address) => options.add_address(address, seconds)?,
                None => options.add_status(refusal(asked))?,
            }
            if ends && asked.is_for_addresses() {
                asked.each_address(|other| {
                    if Some(other) != address {
                        options.add_address(other, 0);
                    }
                });
            }
            Some(())
        });
    }
}

/// A station that is answered, and the one that answers.
#[derive(Debug, Clone, Copy)]
pub struct Station {
    /// Its MAC.
    pub mac: [u8; 6],
    /// Its address.
    pub address: u128,
    /// Our MAC.
    pub own_mac: [u8; 6],
    /// Our address.
    pub own_address: u128,
    /// The link's MTU.
    pub mtu: u16,
}

impl Station {
    /// Writes the headers in front of the message with which `bytes` end.
    fn write_headers(&self, bytes: &mut [u8]) {
        ethernet::write(bytes, self.mac, self.own_mac, ethertype::IPV6);
        let (header, datagram) = bytes[ETHERNET_LEN..].split_at_mut(ipv6::HEADER_LEN);
        let (from, to) = (self.own_address.into(), self.address.into());
        let ip = Ipv6Repr {
            src_addr: from,
            dst_addr: to,
            next_header: IpProtocol::Udp,
            payload_len: datagram.len(),
            hop_limit: HOPS,
        };
        ip.emit(&mut Ipv6Packet::new_unchecked(header));
        let len = datagram.len() as u16;
        let mut udp = UdpPacket::new_unchecked(datagram);
        udp.set_src_port(port::DHCPV6_SERVER);
        udp.set_dst_port(port::DHCPV6_CLIENT);
        udp.set_len(len);
        udp.fill_checksum(&from.into(), &to.into());
    }
}

/// A server's message as a frame.
#[derive(Debug)]
pub struct Answer {
    bytes: [u8; ETHERNET_LEN + MAX_LEN],
    len: usize,
}

impl Answer {
    /// Puts it in the place of another frame. `None` if it does not fit.
    pub fn replace(&self, frame: &mut Frame<'_>) -> Option<()> {
        frame.resize(self.len)?;
        frame.bytes_mut().copy_from_slice(&self.bytes[..self.len]);
        Some(())
    }
}
