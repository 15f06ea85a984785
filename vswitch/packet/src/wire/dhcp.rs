//! DHCP's messages (RFC 2131, RFC 2132), as far as decisions need them.

use super::field::{be32, mac_at};
use super::ipv4::Ipv4;
use super::transport::Fragment;
use crate::number::port;

/// The operation of a server's message.
const BOOTREPLY: u8 = 2;

/// DHCP options and message types.
pub mod option {
    /// The option that gives the message's type.
    pub const MESSAGE_TYPE: u8 = 53;
    /// The option that gives the lease's time in seconds.
    pub const LEASE_TIME: u8 = 51;
    /// A client looks for servers.
    pub const DISCOVER: u8 = 1;
    /// A client asks for an address.
    pub const REQUEST: u8 = 3;
    /// A server grants an address.
    pub const ACK: u8 = 5;
    /// A server refuses an address.
    pub const NAK: u8 = 6;
    /// A client gives its address up.
    pub const RELEASE: u8 = 7;
}

/// BOOTP's fixed part with the magic cookie.
#[derive(Debug, Clone, Copy)]
pub struct Bootp {
    /// Whether a client sent it; else a server did.
    pub request: bool,
    /// The transaction.
    pub xid: u32,
    /// The relay agent's address (`giaddr`).
    pub relay: u32,
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
        let cookie = head[236..240] == [0x63, 0x82, 0x53, 0x63];
        ((1..=2).contains(&head[0]) && ethernet && cookie).then(|| Self {
            request: head[0] == 1,
            xid: be32(head, 4),
            relay: be32(head, 24),
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

/// A packet from 0.0.0.0, which only a DHCP client may send.
#[inline(always)]
pub fn is_client_broadcast(ip: &Ipv4) -> bool {
    ip.source == 0
}
