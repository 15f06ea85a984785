//! DHCP's messages (RFC 2131, RFC 2132), as far as decisions need them.

use super::checksum;
use super::field::{be16, be32, mac_at};
use super::ipv4::Ipv4;
use super::transport::Fragment;
use crate::number::port;

/// The operation of a server's message.
pub(super) const BOOTREPLY: u8 = 2;
/// What options begin with (RFC 1497).
pub(super) const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];

/// DHCP options and message types (RFC 2132, RFC 3004, RFC 3011, RFC 3046, RFC 3397, RFC 3442).
pub mod option {
    /// The subnet's mask.
    pub const SUBNET_MASK: u8 = 1;
    /// The default router.
    pub const ROUTER: u8 = 3;
    /// DNS servers.
    pub const DNS: u8 = 6;
    /// The client's host name.
    pub const HOST_NAME: u8 = 12;
    /// The client's domain.
    pub const DOMAIN: u8 = 15;
    /// The link's MTU.
    pub const MTU: u8 = 26;
    /// NTP servers.
    pub const NTP: u8 = 42;
    /// The address that a client wants.
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// The option that gives the lease's time in seconds.
    pub const LEASE_TIME: u8 = 51;
    /// Options go on in the fields of names.
    pub const OVERLOAD: u8 = 52;
    /// The option that gives the message's type.
    pub const MESSAGE_TYPE: u8 = 53;
    /// The server that a client's message is for.
    pub const SERVER: u8 = 54;
    /// The options that a client asks for, in the order in which it prefers them.
    pub const WANTED: u8 = 55;
    /// The longest message that a client takes.
    pub const MAX_LEN: u8 = 57;
    /// When a client is to renew its lease, in seconds: T1.
    pub const RENEW_TIME: u8 = 58;
    /// When it is to ask all servers: T2.
    pub const REBIND_TIME: u8 = 59;
    /// The identifier by which servers know a client.
    pub const CLIENT_IDENTIFIER: u8 = 61;
    /// The TFTP server's name.
    pub const TFTP_SERVER: u8 = 66;
    /// The name of the file to boot.
    pub const BOOT_FILE: u8 = 67;
    /// What kind of client it is.
    pub const USER_CLASS: u8 = 77;
    /// What a relay agent says of a client.
    pub const RELAY_AGENT: u8 = 82;
    /// The subnet that a server is to take the address from.
    pub const SUBNET_SELECTION: u8 = 118;
    /// The domains in which short names are looked up.
    pub const SEARCH: u8 = 119;
    /// Routes.
    pub const ROUTES: u8 = 121;
    /// A client looks for servers.
    pub const DISCOVER: u8 = 1;
    /// A server offers an address.
    pub const OFFER: u8 = 2;
    /// A client asks for an address.
    pub const REQUEST: u8 = 3;
    /// A client refuses the address that it was given.
    pub const DECLINE: u8 = 4;
    /// A server grants an address.
    pub const ACK: u8 = 5;
    /// A server refuses an address.
    pub const NAK: u8 = 6;
    /// A client gives its address up.
    pub const RELEASE: u8 = 7;
    /// A client asks for everything but an address.
    pub const INFORM: u8 = 8;
}

/// BOOTP's fixed part with the magic cookie.
#[derive(Debug, Clone, Copy)]
pub struct Bootp {
    /// Whether a client sent it; else a server did.
    pub request: bool,
    /// The transaction.
    pub xid: u32,
    /// Whether the client takes only broadcasts, as it has no address yet.
    pub broadcast: bool,
    /// The relay agent's address (`giaddr`).
    pub relay: u32,
    /// The address that the client has (`ciaddr`).
    pub client_ip: u32,
    /// The client's new address (`yiaddr`).
    pub your_ip: u32,
    /// The client's hardware address (`chaddr`).
    pub client_mac: [u8; 6],
}

impl Bootp {
    /// Bytes up to the end of the magic cookie.
    pub const LEN: usize = 240;

    /// Reads the UDP payload of a DHCP message for an Ethernet client.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let head = payload.first_chunk::<{ Self::LEN }>()?;
        let ethernet = head[1] == 1 && head[2] == 6;
        let cookie = head[236..240] == COOKIE;
        ((1..=2).contains(&head[0]) && ethernet && cookie).then(|| Self {
            request: head[0] == 1,
            xid: be32(head, 4),
            broadcast: head[10] & 0x80 != 0,
            relay: be32(head, 24),
            client_ip: be32(head, 12),
            your_ip: be32(head, 16),
            client_mac: mac_at(head, 28),
        })
    }

    /// The value of a DHCP option behind the cookie; the walk ends with the packet.
    pub fn option(payload: &[u8], wanted: u8) -> Option<&[u8]> {
        let mut options = payload.get(Self::LEN..)?;
        loop {
            options = match options {
                [0, rest @ ..] => rest,
                [255, ..] | [] => return None,
                [kind, len, rest @ ..] => {
                    let value = rest.get(..usize::from(*len))?;
                    if *kind == wanted {
                        return Some(value);
                    }
                    &rest[usize::from(*len)..]
                }
                [_] => return None,
            };
        }
    }
}

/// A client's message, with everything by which a server decides whose lease it is about.
///
/// Servers read options differently where a client writes them strangely: some take the first of
/// two, some join them, some read on in the fields of names. A message that two servers could read
/// differently is none.
#[derive(Debug, Clone, Copy)]
pub struct ClientMessage<'p> {
    /// BOOTP's fixed part.
    pub bootp: Bootp,
    /// Bytes of the message, BOOTP's fixed part included.
    pub len: usize,
    /// The message's type; `None` for BOOTP.
    pub kind: Option<u8>,
    /// The address that the client wants, or refuses.
    pub requested: Option<u32>,
    /// The server that it is for.
    pub server: Option<u32>,
    /// The client's identifier.
    pub identifier: Option<&'p [u8]>,
    /// The codes of the options that the client asks for.
    pub wanted: Option<&'p [u8]>,
    /// The longest IP packet that the client takes, in bytes.
    pub max_len: Option<u16>,
    /// Whether the client is iPXE, which boots what a ROM does not.
    pub is_ipxe: bool,
}

impl<'p> ClientMessage<'p> {
    /// Reads a UDP datagram, from its header on. `None` if it is no client's message, is a relay
    /// agent's, or can be read in two ways.
    pub fn parse(datagram: &'p [u8]) -> Option<Self> {
        let (header, payload) = datagram.split_first_chunk::<8>()?;
        let bootp = Bootp::parse(payload).filter(|bootp| bootp.request && bootp.relay == 0)?;
        if usize::from(be16(header, 4)) != datagram.len() {
            return None;
        }
        let mut message = Self {
            bootp,
            len: payload.len(),
            kind: None,
            requested: None,
            server: None,
            identifier: None,
            wanted: None,
            max_len: None,
            is_ipxe: false,
        };
        let mut options = payload.get(Bootp::LEN..)?;
        loop {
            options = match options {
                [0, rest @ ..] => rest,
                [255, ..] | [] => return Some(message),
                [kind, len, rest @ ..] => {
                    let (value, rest) = rest.split_at_checked(usize::from(*len))?;
                    message.take(*kind, value)?;
                    rest
                }
                [_] => return None,
            };
        }
    }

    /// Takes one option; `None` if the message may not have it.
    fn take(&mut self, kind: u8, value: &'p [u8]) -> Option<()> {
        let is_new = match kind {
            option::OVERLOAD | option::RELAY_AGENT | option::SUBNET_SELECTION => false,
            option::MESSAGE_TYPE => {
                let [kind] = *value else { return None };
                let is_clients = matches!(
                    kind,
                    option::DISCOVER
                        | option::REQUEST
                        | option::DECLINE
                        | option::RELEASE
                        | option::INFORM
                );
                is_clients && self.kind.replace(kind).is_none()
            }
            option::REQUESTED_ADDRESS => {
                let address = u32::from_be_bytes(value.try_into().ok()?);
                self.requested.replace(address).is_none()
            }
            option::SERVER => {
                let server = u32::from_be_bytes(value.try_into().ok()?);
                self.server.replace(server).is_none()
            }
            // RFC 2132, section 9.14: at least two bytes.
            option::CLIENT_IDENTIFIER => {
                value.len() >= 2 && self.identifier.replace(value).is_none()
            }
            _ => {
                self.note(kind, value);
                true
            }
        };
        is_new.then_some(())
    }

    /// Notes what decides nothing about whose lease it is; of several options the first counts.
    fn note(&mut self, kind: u8, value: &'p [u8]) {
        match kind {
            option::WANTED => self.wanted = self.wanted.or(Some(value)),
            option::MAX_LEN if self.max_len.is_none() => {
                self.max_len = value.try_into().map(u16::from_be_bytes).ok();
            }
            option::USER_CLASS => self.is_ipxe |= value == b"iPXE",
            _ => {}
        }
    }

    /// The address that the client gives up: what a release or a decline is about. The outer `None`
    /// is another message, the inner one a message that names no address.
    pub fn given_up(&self) -> Option<Option<u32>> {
        match self.kind {
            Some(option::RELEASE) => Some(Some(self.bootp.client_ip).filter(|ip| *ip != 0)),
            Some(option::DECLINE) => Some(self.requested),
            _ => None,
        }
    }
}

/// The MAC that an identifier of the form "hardware type, address" names (RFC 2132, section 9.14).
pub fn named_mac(identifier: &[u8]) -> Option<[u8; 6]> {
    match identifier {
        [1, mac @ ..] => mac.try_into().ok(),
        _ => None,
    }
}

/// Whether the UDP payload is a server's message, by its first byte.
#[inline(always)]
pub fn is_reply_payload(payload: &[u8]) -> bool {
    payload.first() == Some(&BOOTREPLY)
}

/// A DHCP server's message to a client.
#[inline(always)]
pub fn is_reply(ip: &Ipv4, packet: &[u8]) -> bool {
    ip.fragment == Fragment::Whole
        && ip.udp() == Some((port::DHCP_SERVER, port::DHCP_CLIENT))
        && is_reply_payload(ip.udp_payload(packet))
}

/// A DHCP client's message to a server.
#[inline(always)]
pub fn is_request(ip: &Ipv4) -> bool {
    ip.fragment == Fragment::Whole && ip.udp() == Some((port::DHCP_CLIENT, port::DHCP_SERVER))
}

/// A client's message to a server of boot files beside the server of addresses (PXE).
#[inline(always)]
pub fn is_proxy_request(ip: &Ipv4) -> bool {
    ip.fragment == Fragment::Whole && ip.udp() == Some((port::DHCP_CLIENT, port::PROXY_DHCP))
}

/// Has the answers to a client's message be broadcasts (RFC 2131, 4.1), unless the client has an
/// address to answer to. `datagram` begins with the UDP header; its checksum stays as right or
/// wrong as it was.
pub fn ask_for_broadcasts(datagram: &mut [u8]) {
    const CHECKSUM_AT: usize = 6;
    const FLAGS_AT: usize = 8 + 10;
    const CIADDR_AT: usize = 8 + 12;
    const BROADCAST: u16 = 0x8000;
    if datagram.len() < 8 + Bootp::LEN || be32(datagram, CIADDR_AT) != 0 {
        return;
    }
    let flags = be16(datagram, FLAGS_AT);
    let asked = flags | BROADCAST;
    datagram[FLAGS_AT..FLAGS_AT + 2].copy_from_slice(&asked.to_be_bytes());
    if be16(datagram, CHECKSUM_AT) == 0 {
        return; // There is none.
    }
    checksum::adjust(datagram, CHECKSUM_AT, flags, asked);
    if be16(datagram, CHECKSUM_AT) == 0 {
        datagram[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&[0xff; 2]);
    }
}

/// A packet from 0.0.0.0, which only a DHCP client may send.
#[inline(always)]
pub fn is_client_broadcast(ip: &Ipv4) -> bool {
    ip.source == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum of all words, with its carries added to it.
    fn sum(bytes: &[u8]) -> u32 {
        let words = bytes.chunks(2).map(|pair| u32::from(be16(pair, 0)));
        words.fold(0, |sum, word| {
            let sum = sum + word;
            (sum & 0xffff) + (sum >> 16)
        })
    }

    /// A client's datagram with this `secs` and `ciaddr`, and a right checksum.
    fn datagram(secs: u16, ciaddr: u8, flags: u16) -> Vec<u8> {
        let mut datagram = vec![0; 8 + Bootp::LEN];
        datagram[..4].copy_from_slice(&[0, 68, 0, 67]);
        datagram[16..18].copy_from_slice(&secs.to_be_bytes());
        datagram[18..20].copy_from_slice(&flags.to_be_bytes());
        datagram[20] = ciaddr;
        let checksum = match !(sum(&datagram) as u16) {
            0 => 0xffff,
            checksum => checksum,
        };
        datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
        datagram
    }

    #[test]
    fn answers_are_asked_for_as_broadcasts_with_a_right_checksum() {
        // Every checksum occurs.
        let each = (0..=u16::MAX).map(|secs| (secs, 0));
        for (secs, flags) in each.chain([(7, 0x8000), (7, 1)]) {
            let mut asked = datagram(secs, 0, flags);
            assert_eq!(sum(&asked), 0xffff);
            ask_for_broadcasts(&mut asked);
            assert_eq!(asked[18..20], (flags | 0x8000).to_be_bytes());
            assert_ne!(asked[6..8], [0, 0], "none");
            assert_eq!(sum(&asked), 0xffff, "secs {secs}, flags {flags}");
        }
    }

    #[test]
    fn no_checksum_stays_none_and_who_has_an_address_is_answered_there() {
        let mut without = datagram(7, 0, 0);
        without[6..8].fill(0);
        ask_for_broadcasts(&mut without);
        assert_eq!((without[6], without[7], without[18]), (0, 0, 0x80));
        let with_address = datagram(7, 10, 0);
        let mut asked = with_address.clone();
        ask_for_broadcasts(&mut asked);
        assert_eq!(asked, with_address);
        let mut short = vec![0; 8 + Bootp::LEN - 1];
        ask_for_broadcasts(&mut short);
        assert!(short.iter().all(|byte| *byte == 0));
    }
}
