//! What a DHCP server says (RFC 2131), laid out in advance as far as it is always the same.

use std::net::Ipv4Addr;

use smoltcp::wire::{IpProtocol, Ipv4Packet, UdpPacket};

use super::dhcp::{BOOTREPLY, Bootp, COOKIE, ClientMessage, option};
use super::ethernet::{self, ETHERNET_LEN};
use super::field::dns_names;
use super::icmp::HOPS;
use super::ipv4;
use crate::addr::BROADCAST_MAC;
use crate::frame::Frame;
use crate::number::{ethertype, port};

/// The longest IP packet of a server, in bytes.
const MAX_LEN: usize = 1500;
/// The longest that every client takes (RFC 2131, section 2).
const LEN_OF_ALL: u16 = 576;
const UDP_HEADER_LEN: usize = 8;
/// Bytes in front of the BOOTP message in its frame.
const HEADERS_LEN: usize = ETHERNET_LEN + ipv4::HEADER_LEN + UDP_HEADER_LEN;
/// The shortest BOOTP message (RFC 951, section 3).
const MIN_MESSAGE: usize = 300;
/// The option that ends them.
const END: u8 = 255;
/// The place of the boot file's name in the message.
const FILE_AT: usize = 108;
/// The most bytes of that name, which a zero ends.
const FILE_LEN: usize = 127;
/// The options that clients may ask for. Without a list of theirs they get all, in this order.
const ASKABLE: [u8; 10] = [
    option::ROUTER,
    option::DNS,
    option::HOST_NAME,
    option::DOMAIN,
    option::MTU,
    option::NTP,
    option::TFTP_SERVER,
    option::BOOT_FILE,
    option::SEARCH,
    option::ROUTES,
];

/// What one client is given.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'s> {
    /// The server's address, which is also the router's.
    pub server: u32,
    /// The client's address.
    pub address: u32,
    /// The subnet's mask.
    pub mask: u32,
    /// The link's MTU.
    pub mtu: u16,
    /// How long a lease lasts, in seconds.
    pub lease_s: u32,
    /// The client's host name.
    pub host_name: Option<&'s str>,
    /// DNS servers.
    pub dns: &'s [Ipv4Addr],
    /// The client's domain.
    pub domain: Option<&'s str>,
    /// The domains in which short names are looked up.
    pub search: &'s [&'s str],
    /// NTP servers.
    pub ntp: &'s [Ipv4Addr],
    /// Routes beside the default route: destination, prefix length, router.
    pub routes: &'s [(Ipv4Addr, u8, Ipv4Addr)],
    /// The TFTP server's name.
    pub tftp_server: Option<&'s str>,
    /// Its address (`siaddr`).
    pub next_server: Option<u32>,
    /// The file to boot.
    pub boot_file: Option<&'s str>,
    /// The file that iPXE boots.
    pub ipxe_boot_file: Option<&'s str>,
}

/// An option as it is sent: code, length, value.
type Laid = Box<[u8]>;

/// What one client is given, laid out.
#[derive(Debug, PartialEq)]
pub struct Offer {
    server: u32,
    address: u32,
    next_server: u32,
    /// The times of a lease.
    lease: Laid,
    mask: Laid,
    /// What clients ask for, in the order of the codes.
    options: Box<[Laid]>,
    /// The option of the boot file, for iPXE.
    ipxe_boot_file: Option<Laid>,
}

/// The kind of a server's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A DHCPOFFER.
    Offer,
    /// A DHCPACK to a request.
    Ack,
    /// A DHCPACK to a client that has that address, about everything else.
    Inform(u32),
    /// A DHCPNAK.
    Nak,
    /// The answer to BOOTP.
    Bootp,
}

impl Kind {
    /// The message's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offer => "OFFER",
            Self::Ack => "ACK",
            Self::Inform(_) => "ACK to INFORM",
            Self::Nak => "NAK",
            Self::Bootp => "BOOTREPLY",
        }
    }

    const fn message_type(self) -> Option<u8> {
        match self {
            Self::Offer => Some(option::OFFER),
            Self::Ack | Self::Inform(_) => Some(option::ACK),
            Self::Nak => Some(option::NAK),
            Self::Bootp => None,
        }
    }
}

/// Lays out an option; a value of more than 255 bytes, which no setting has, is cut off.
fn laid(code: u8, value: &[u8]) -> Laid {
    let value = &value[..value.len().min(usize::from(u8::MAX))];
    [&[code, value.len() as u8][..], value].concat().into()
}

/// A list of addresses; `None` if it is empty.
fn addresses(code: u8, list: &[Ipv4Addr]) -> Option<Laid> {
    let bytes: Vec<u8> = list.iter().flat_map(|ip| ip.octets()).collect();
    (!bytes.is_empty()).then(|| laid(code, &bytes))
}

/// RFC 3397, without compression.
fn search(domains: &[&str]) -> Option<Laid> {
    (!domains.is_empty()).then(|| laid(option::SEARCH, &dns_names(domains)))
}

/// RFC 3442. A client that takes these routes ignores the option of the router, so the default
/// route is among them.
fn routes(list: &[(Ipv4Addr, u8, Ipv4Addr)], router: Ipv4Addr) -> Option<Laid> {
    let has_default = list.iter().any(|(_, len, _)| *len == 0);
    let default = (Ipv4Addr::UNSPECIFIED, 0, router);
    let missing = (!has_default).then_some(&default);
    let mut bytes = Vec::new();
    for (to, len, via) in list.iter().chain(missing) {
        let significant = usize::from(len.div_ceil(8)).min(4);
        bytes.push(*len);
        bytes.extend(&to.octets()[..significant]);
        bytes.extend(via.octets());
    }
    (!list.is_empty()).then(|| laid(option::ROUTES, &bytes))
}

impl Offer {
    /// Lays out what a client is given.
    pub fn new(settings: &Settings<'_>) -> Self {
        let router = Ipv4Addr::from_bits(settings.server);
        let text = |code, text: Option<&str>| text.map(|text| laid(code, text.as_bytes()));
        let options = [
            Some(laid(option::ROUTER, &router.octets())),
            addresses(option::DNS, settings.dns),
            text(option::HOST_NAME, settings.host_name),
            text(option::DOMAIN, settings.domain),
            Some(laid(option::MTU, &settings.mtu.to_be_bytes())),
            addresses(option::NTP, settings.ntp),
            text(option::TFTP_SERVER, settings.tftp_server),
            text(option::BOOT_FILE, settings.boot_file),
            search(settings.search),
            routes(settings.routes, router),
        ];
        let seconds = settings.lease_s;
        let times = [
            (option::LEASE_TIME, seconds),
            (option::RENEW_TIME, seconds / 2),
            (option::REBIND_TIME, seconds - seconds / 8),
        ];
        let times = times.map(|(code, seconds)| laid(code, &seconds.to_be_bytes()));
        Self {
            server: settings.server,
            address: settings.address,
            next_server: settings.next_server.unwrap_or(0),
            lease: times.concat().into(),
            mask: laid(option::SUBNET_MASK, &settings.mask.to_be_bytes()),
            options: options.into_iter().flatten().collect(),
            ipxe_boot_file: text(option::BOOT_FILE, settings.ipxe_boot_file),
        }
    }

    /// The server's address.
    pub fn server(&self) -> u32 {
        self.server
    }

    /// The client's address.
    pub fn address(&self) -> u32 {
        self.address
    }

    /// The option of that code, for a client of that kind.
    fn option(&self, code: u8, is_ipxe: bool) -> Option<&[u8]> {
        let ipxe = self.ipxe_boot_file.as_ref();
        if let Some(file) = ipxe.filter(|_| is_ipxe && code == option::BOOT_FILE) {
            return Some(file);
        }
        let mut options = self.options.iter();
        options.find(|laid| laid[0] == code).map(|laid| &**laid)
    }

    /// The answer to a client's message, from a station with that MAC to a link with that MTU.
    pub fn answer(
        &self,
        message: &ClientMessage<'_>,
        kind: Kind,
        (own_mac, mtu): ([u8; 6], u16),
    ) -> Answer {
        let longest = match kind {
            Kind::Bootp => HEADERS_LEN - ETHERNET_LEN + message.len.max(MIN_MESSAGE),
            _ => message.max_len.unwrap_or(LEN_OF_ALL).max(LEN_OF_ALL).into(),
        };
        let end = ETHERNET_LEN + longest.min(mtu.into()).min(MAX_LEN);
        let end = end.max(HEADERS_LEN + MIN_MESSAGE);
        let mut answer = Answer {
            bytes: [0; ETHERNET_LEN + MAX_LEN],
            len: 0,
        };
        let mut options = Options {
            room: &mut answer.bytes[HEADERS_LEN + Bootp::LEN..end],
            len: 0,
        };
        self.write_options(message, kind, &mut options);
        answer.len = HEADERS_LEN + (Bootp::LEN + options.end()).max(MIN_MESSAGE);
        let to = self.write_head(message, kind, &mut answer.bytes[HEADERS_LEN..]);
        let mac = match to {
            u32::MAX => BROADCAST_MAC,
            _ => message.bootp.client_mac,
        };
        write_headers(
            &mut answer.bytes[..answer.len],
            (mac, own_mac),
            (to, self.server),
        );
        answer
    }

    fn write_options(&self, message: &ClientMessage<'_>, kind: Kind, to: &mut Options<'_>) {
        if let Some(message_type) = kind.message_type() {
            to.add(&[option::MESSAGE_TYPE, 1], &[message_type]);
            to.add(&[option::SERVER, 4], &self.server.to_be_bytes());
        }
        if let Kind::Offer | Kind::Ack = kind {
            to.add(&[], &self.lease);
        }
        // RFC 6842.
        if let Some(identifier) = message.identifier {
            let head = [option::CLIENT_IDENTIFIER, identifier.len() as u8];
            to.add(&head, identifier);
        }
        if kind == Kind::Nak {
            return;
        }
        to.add(&[], &self.mask);
        let mut sent = 0_u16;
        for code in message.wanted.unwrap_or(&ASKABLE) {
            let Some(place) = ASKABLE.iter().position(|askable| askable == code) else {
                continue;
            };
            if sent & 1 << place == 0
                && let Some(option) = self.option(*code, message.is_ipxe)
            {
                to.add(&[], option);
            }
            sent |= 1 << place;
        }
    }

    /// Writes BOOTP's fixed part, and returns the address that the answer goes to (RFC 2131,
    /// section 4.1).
    fn write_head(&self, message: &ClientMessage<'_>, kind: Kind, to: &mut [u8]) -> u32 {
        let asked = &message.bootp;
        let client_ip = match kind {
            Kind::Inform(address) => address,
            Kind::Nak => 0,
            _ if asked.client_ip == self.address => self.address,
            _ => 0,
        };
        to[..3].copy_from_slice(&[BOOTREPLY, 1, 6]);
        to[4..8].copy_from_slice(&asked.xid.to_be_bytes());
        to[10] = u8::from(asked.broadcast) << 7;
        if kind != Kind::Offer {
            to[12..16].copy_from_slice(&client_ip.to_be_bytes());
        }
        to[28..34].copy_from_slice(&asked.client_mac);
        to[236..Bootp::LEN].copy_from_slice(&COOKIE);
        if kind == Kind::Nak {
            return u32::MAX;
        }
        to[20..24].copy_from_slice(&self.next_server.to_be_bytes());
        if let Some(option) = self.option(option::BOOT_FILE, message.is_ipxe) {
            let name = &option[2..];
            let name = &name[..name.len().min(FILE_LEN)];
            to[FILE_AT..][..name.len()].copy_from_slice(name);
        }
        if !matches!(kind, Kind::Inform(_)) {
            to[16..20].copy_from_slice(&self.address.to_be_bytes());
        }
        match client_ip {
            0 if asked.broadcast => u32::MAX,
            0 => self.address,
            client => client,
        }
    }
}

/// The options of a message, in the room that there is for them.
struct Options<'r> {
    room: &'r mut [u8],
    len: usize,
}

impl Options<'_> {
    /// Adds an option in two parts, if it leaves room for the end.
    fn add(&mut self, head: &[u8], rest: &[u8]) {
        let end = self.len + head.len() + rest.len();
        if end < self.room.len() {
            self.room[self.len..][..head.len()].copy_from_slice(head);
            self.room[self.len + head.len()..end].copy_from_slice(rest);
            self.len = end;
        }
    }

    /// Ends the options; returns their bytes.
    fn end(self) -> usize {
        self.room[self.len] = END;
        self.len + 1
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

/// Writes the headers in front of the message with which `bytes` end.
fn write_headers(bytes: &mut [u8], (mac, own_mac): ([u8; 6], [u8; 6]), (to, from): (u32, u32)) {
    ethernet::write(bytes, mac, own_mac, ethertype::IPV4);
    let packet = &mut bytes[ETHERNET_LEN..];
    let total_len = packet.len() as u16;
    let (to, from) = (Ipv4Addr::from_bits(to), Ipv4Addr::from_bits(from));
    let mut ip = Ipv4Packet::new_unchecked(&mut *packet);
    ip.set_version(4);
    ip.set_header_len(ipv4::HEADER_LEN as u8);
    ip.set_total_len(total_len);
    ip.set_hop_limit(HOPS);
    ip.set_next_header(IpProtocol::Udp);
    ip.set_src_addr(from);
    ip.set_dst_addr(to);
    ip.fill_checksum();
    let datagram = &mut packet[ipv4::HEADER_LEN..];
    let len = datagram.len() as u16;
    let mut udp = UdpPacket::new_unchecked(datagram);
    udp.set_src_port(port::DHCP_SERVER);
    udp.set_dst_port(port::DHCP_CLIENT);
    udp.set_len(len);
    udp.fill_checksum(&from.into(), &to.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: [u8; 6] = [0x52, 0x54, 0, 0xaa, 0, 1];
    const GATEWAY: [u8; 6] = [2, 0, 0x13, 0x89, 0, 1];

    const DNS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 53), Ipv4Addr::new(10, 0, 0, 54)];
    const NTP: [Ipv4Addr; 1] = [Ipv4Addr::new(10, 0, 0, 55)];
    const ROUTES: [(Ipv4Addr, u8, Ipv4Addr); 1] =
        [(Ipv4Addr::new(172, 16, 0, 0), 12, Ipv4Addr::new(10, 0, 0, 9))];

    fn settings() -> Settings<'static> {
        Settings {
            server: 0x0a00_0001,
            address: 0x0a00_000b,
            mask: 0xffff_ff00,
            mtu: 1400,
            lease_s: 3600,
            host_name: Some("web"),
            dns: &DNS,
            domain: Some("red.example"),
            search: &["red.example", "example"],
            ntp: &NTP,
            routes: &ROUTES,
            tftp_server: Some("10.0.0.69"),
            next_server: Some(0x0a00_0045),
            boot_file: Some("rom.0"),
            ipxe_boot_file: Some("http://10.0.0.69/ipxe"),
        }
    }

    /// A client's datagram with these options.
    fn datagram(options: &[&[u8]]) -> Vec<u8> {
        let mut message = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef];
        message.resize(Bootp::LEN, 0);
        message[28..34].copy_from_slice(&CLIENT);
        message[236..].copy_from_slice(&COOKIE);
        message.extend(options.concat());
        message.push(END);
        let len = (UDP_HEADER_LEN + message.len()) as u16;
        [&[0, 68, 0, 67], &len.to_be_bytes()[..], &[0, 0], &message].concat()
    }

    /// The options of an answer, and the message in front of them.
    fn read(answer: &Answer) -> (Vec<(u8, Vec<u8>)>, &[u8]) {
        let message = &answer.bytes[HEADERS_LEN..answer.len];
        let (head, mut rest) = message.split_at(Bootp::LEN);
        let mut options = Vec::new();
        while let [code, len, more @ ..] = rest
            && *code != END
        {
            let (value, more) = more.split_at(usize::from(*len));
            options.push((*code, value.to_vec()));
            rest = more;
        }
        assert!(rest[0] == END && rest[1..].iter().all(|byte| *byte == 0));
        (options, head)
    }

    fn answer(options: &[&[u8]], kind: Kind) -> Answer {
        let datagram = datagram(options);
        let message = ClientMessage::parse(&datagram).expect("a client's message");
        Offer::new(&settings()).answer(&message, kind, (GATEWAY, 1400))
    }

    fn codes(answer: &Answer) -> Vec<u8> {
        read(answer).0.into_iter().map(|(code, _)| code).collect()
    }

    #[test]
    fn offer_without_a_list_has_every_option() {
        let answer = answer(&[&[53, 1, 1]], Kind::Offer);
        let (options, head) = read(&answer);
        let value = |code| {
            let mut found = options.iter().filter(|(other, _)| *other == code);
            let value = found.next().expect("the option").1.clone();
            assert!(found.next().is_none(), "option {code} twice");
            value
        };
        let codes: Vec<u8> = options.iter().map(|(code, _)| *code).collect();
        let all = [
            53, 54, 51, 58, 59, 1, 3, 6, 12, 15, 26, 42, 66, 67, 119, 121,
        ];
        assert_eq!(codes, all);
        assert_eq!(value(53), [2]);
        assert_eq!(value(54), [10, 0, 0, 1]);
        assert_eq!(value(51), 3600_u32.to_be_bytes());
        assert_eq!(value(58), 1800_u32.to_be_bytes());
        assert_eq!(value(59), 3150_u32.to_be_bytes());
        assert_eq!(value(1), [255, 255, 255, 0]);
        assert_eq!(value(6), [10, 0, 0, 53, 10, 0, 0, 54]);
        assert_eq!(value(12), b"web");
        assert_eq!(value(26), 1400_u16.to_be_bytes());
        assert_eq!(value(67), b"rom.0");
        assert_eq!(value(119), b"\x03red\x07example\x00\x07example\x00");
        assert_eq!(value(121), [12, 172, 16, 10, 0, 0, 9, 0, 10, 0, 0, 1]);
        assert_eq!(head[..8], [2, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
        assert_eq!(head[12..24], [0, 0, 0, 0, 10, 0, 0, 11, 10, 0, 0, 69]);
        assert_eq!(head[FILE_AT..FILE_AT + 6], *b"rom.0\0");
    }

    #[test]
    fn wanted_options_come_once_in_the_clients_order() {
        let asked = answer(&[&[53, 1, 1], &[55, 5, 26, 3, 26, 99, 6]], Kind::Offer);
        assert_eq!(codes(&asked), [53, 54, 51, 58, 59, 1, 26, 3, 6]);
    }

    #[test]
    fn options_beyond_the_longest_message_are_left_out() {
        let identifier = [&[61, 255][..], &[7; 255]].concat();
        let small = answer(&[&[53, 1, 1], &identifier], Kind::Offer);
        assert_eq!(codes(&small)[..7], [53, 54, 51, 58, 59, 61, 1]);
        assert!(!codes(&small).contains(&121));
        assert!(small.len <= ETHERNET_LEN + 576);
        let large = answer(&[&[53, 1, 1], &identifier, &[57, 2, 5, 220]], Kind::Offer);
        assert_eq!(codes(&large).len(), 17);
        assert!(large.len <= ETHERNET_LEN + 1400);
    }

    #[test]
    fn bootp_gets_no_more_than_its_own_length() {
        let bootp = answer(&[], Kind::Bootp);
        assert_eq!(bootp.len, HEADERS_LEN + MIN_MESSAGE);
        assert_eq!(codes(&bootp)[..2], [1, 3]);
        assert!(!codes(&bootp).contains(&53));
    }

    #[test]
    fn ipxe_boots_another_file() {
        let ipxe = answer(&[&[53, 1, 1], b"\x4d\x04iPXE", &[55, 1, 67]], Kind::Offer);
        let (options, head) = read(&ipxe);
        assert_eq!(
            options.last(),
            Some(&(67, b"http://10.0.0.69/ipxe".to_vec()))
        );
        assert!(head[FILE_AT..].starts_with(b"http://10.0.0.69/ipxe\0"));
    }

    #[test]
    fn refusal_is_a_broadcast_that_grants_nothing() {
        let refusal = answer(&[&[53, 1, 3], &[61, 2, 0, 5]], Kind::Nak);
        assert_eq!(refusal.bytes[..6], BROADCAST_MAC);
        assert_eq!(refusal.bytes[30..34], [255; 4]);
        let (options, head) = read(&refusal);
        let expected = [(53, vec![6]), (54, vec![10, 0, 0, 1]), (61, vec![0, 5])];
        assert_eq!(options, expected);
        assert!(
            head[12..28]
                .iter()
                .chain(&head[34..236])
                .all(|byte| *byte == 0)
        );
    }
}
