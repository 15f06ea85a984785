//! Packets in packets, which a port may be denied: rows "IPv4 10" and "IPv6 5".

use packet::encapsulation::{is_protocol, is_tcp, is_udp};
use packet::number::protocol;
use packet::wire::{Fragment, Ipv4, Ipv6, be16};

/// At most this many authentication headers, as in an IPv6 chain.
const MAX_AUTHENTICATION_HEADERS: usize = 8;

/// Whether an IPv4 packet carries another, or may do so.
pub(super) fn is_carrier4(ip: &Ipv4, packet: &[u8]) -> bool {
    match ip.protocol {
        protocol::AUTHENTICATION => {
            ip.fragment != Fragment::Whole || is_carrier_behind(ip.payload(packet))
        }
        _ if ip.fragment == Fragment::Later => is_protocol(ip.protocol),
        other => is_carrier(other, ip.payload(packet)),
    }
}

/// Whether an IPv6 packet carries another, or may do so. Its chain has been walked.
pub(super) fn is_carrier6(ip: &Ipv6, packet: &[u8]) -> bool {
    is_carrier(ip.upper, ip.payload(packet))
}

/// Whether that is so of what is behind the authentication headers (RFC 4302) that `rest` begins
/// with.
fn is_carrier_behind(mut rest: &[u8]) -> bool {
    for _ in 0..MAX_AUTHENTICATION_HEADERS {
        let [next, words, ..] = *rest else {
            return true;
        };
        rest = match rest.get((usize::from(words) + 2) * 4..) {
            Some(rest) => rest,
            None => return true,
        };
        if next != protocol::AUTHENTICATION {
            return is_carrier(next, rest);
        }
    }
    true
}

/// Whether a payload of that protocol carries packets. One whose ports are cut off may.
fn is_carrier(protocol: u8, payload: &[u8]) -> bool {
    let ports = || {
        payload
            .first_chunk::<4>()
            .map(|head| (be16(head, 0), be16(head, 2)))
    };
    match protocol {
        protocol::UDP => ports().is_none_or(is_udp),
        protocol::TCP => ports().is_none_or(is_tcp),
        other => is_protocol(other),
    }
}
