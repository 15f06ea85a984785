//! Checks that the switch's own answers are the required ones. Headers are read with
//! `etherparse`, a parser that is neither the switch's nor the model's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{Ethernet2Slice, Ipv4HeaderSlice, Ipv6HeaderSlice};
use pipeline::DropReason;
use tenant_config::{MacAddr, SwitchConfig};

use super::frames::{self, Mac};
use super::model::{Answer, Dhcp6Answer, DhcpAnswer, DnsAnswer};

/// Fails the enclosing check with what was found.
macro_rules! owed {
    ($condition:expr, $($what:tt)*) => {
        if !$condition {
            return Err(format!($($what)*));
        }
    };
}

/// The IP packet of a frame, without tag and padding.
struct Packet<'a> {
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
    /// The upper layer's number and bytes.
    upper: (u8, &'a [u8]),
    whole: &'a [u8],
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// `frame` without its 802.1Q tag, if it has one.
pub(crate) fn untagged(frame: &[u8]) -> Vec<u8> {
    match frame.get(12..16) {
        Some([0x81, 0x00, ..]) => [&frame[..12], &frame[16..]].concat(),
        _ => frame.to_vec(),
    }
}

fn packet<'a>(frame: &Ethernet2Slice<'a>) -> Result<Packet<'a>, String> {
    let bytes = frame.payload_slice();
    if bytes.first().is_some_and(|first| first >> 4 == 4) {
        let header = Ipv4HeaderSlice::from_slice(bytes).map_err(|error| error.to_string())?;
        let whole = bytes.get(..usize::from(header.total_len()));
        let whole = whole.ok_or("a truncated packet")?;
        let sum_is_right = frames::checksum(header.slice()) == 0;
        owed!(sum_is_right, "a wrong IPv4 checksum");
        Ok(Packet {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            hop_limit: header.ttl(),
            upper: (header.protocol().0, &whole[header.slice().len()..]),
            whole,
        })
    } else {
        let header = Ipv6HeaderSlice::from_slice(bytes).map_err(|error| error.to_string())?;
        let whole = &bytes[..40 + usize::from(header.payload_length())];
        Ok(Packet {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            hop_limit: header.hop_limit(),
            upper: behind_extensions(header.next_header().0, &whole[40..])
                .ok_or("a truncated extension header")?,
            whole,
        })
    }
}

/// The upper layer behind all extension headers; `None` if one of them is truncated.
pub(crate) fn behind_extensions(mut number: u8, mut rest: &[u8]) -> Option<(u8, &[u8])> {
    while matches!(number, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
        let [next, units, ..] = *rest else {
            return None;
        };
        let length = match number {
            44 => 8,
            51 => (usize::from(units) + 2) * 4,
            _ => (usize::from(units) + 1) * 8,
        };
        (number, rest) = (next, rest.get(length..)?);
    }
    Some((number, rest))
}

/// Whether the ICMP or ICMPv6 checksum of `packet` is right.
fn icmp_sum_is_right(packet: &Packet<'_>) -> bool {
    let message = packet.upper.1;
    match (packet.source, packet.destination) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut right = message.to_vec();
            frames::set_icmpv6_checksum(from, to, &mut right);
            right == message
        }
        _ => frames::checksum(message) == 0,
    }
}

/// An answered packet, the answer, and how the answer was addressed.
struct Exchange<'a> {
    asked: Packet<'a>,
    said: Packet<'a>,
    /// The destination MAC of the answer.
    to: Mac,
    /// Whether that is the source MAC of the answered frame.
    back: bool,
}

/// Checks `reply`, which `request` got at the side whose MAC is `own_mac`, against the answer that
/// is owed.
pub(crate) fn check(
    answer: &Answer,
    own_mac: MacAddr,
    request: &[u8],
    reply: &[u8],
) -> Result<(), String> {
    let request = untagged(request);
    let request = Ethernet2Slice::from_slice_without_fcs(&request).map_err(|e| e.to_string())?;
    let reply_frame = Ethernet2Slice::from_slice_without_fcs(reply).map_err(|e| e.to_string())?;
    owed!(
        reply_frame.source() == own_mac.octets(),
        "sent from {:?}",
        reply_frame.source()
    );
    if let Answer::Arp { mac, address } = answer {
        return check_arp(*mac, *address, &request, reply);
    }

    if let Answer::Dhcp(answer) = answer {
        return check_dhcp(answer, &reply_frame);
    }
    if let Answer::Dns(answer) = answer {
        return check_dns(answer, &reply_frame);
    }
    if let Answer::Dhcp6(answer) = answer {
        return check_dhcp6(answer, &reply_frame);
    }

    let to = reply_frame.destination();
    let exchange = Exchange {
        asked: packet(&request)?,
        said: packet(&reply_frame)?,
        to,
        back: to == request.source(),
    };
    owed!(icmp_sum_is_right(&exchange.said), "a wrong ICMP checksum");
    match answer {
        Answer::Arp { .. } | Answer::Dhcp(_) | Answer::Dhcp6(_) | Answer::Dns(_) => {
            unreachable!("handled above")
        }
        Answer::Echo => check_echo(&exchange),
        Answer::NeighborAdvertisement { mac, address } => {
            check_neighbor_advertisement(*mac, *address, &exchange)
        }
        Answer::RouterAdvertisement {
            mac,
            mtu,
            flags,
            prefix,
            resolvers,
        } => {
            check_autoconf(*flags, *prefix, resolvers, &exchange)?;
            check_router_advertisement(*mac, *mtu, own_mac.link_local(), &exchange)
        }
    }
}

fn check_arp(
    mac: Mac,
    address: Ipv4Addr,
    request: &Ethernet2Slice<'_>,
    reply: &[u8],
) -> Result<(), String> {
    let asked = request.payload_slice();
    // RFC 826: to the sender hardware address, which need not be the frame's source.
    let asker: Mac = asked[8..14].try_into().expect("an ARP request");
    let expected = frames::Arp {
        opcode: 2,
        sender_mac: mac,
        sender: address,
        target_mac: asker,
        target: Ipv4Addr::new(asked[14], asked[15], asked[16], asked[17]),
    };
    let expected = frames::ethernet(asker, mac, frames::ARP, &expected.bytes());
    let padding = &reply[expected.len().min(reply.len())..];
    let same = reply.starts_with(&expected) && padding.iter().all(|byte| *byte == 0);
    owed!(same, "an ARP reply other than {expected:02x?}");
    Ok(())
}

fn check_dhcp(answer: &DhcpAnswer, frame: &Ethernet2Slice<'_>) -> Result<(), String> {
    let said = packet(frame)?;
    owed!(
        frame.destination() == answer.to_mac,
        "sent to {:?}",
        frame.destination()
    );
    owed!(
        said.source == IpAddr::V4(answer.from),
        "from {}",
        said.source
    );
    owed!(
        said.destination == IpAddr::V4(answer.to),
        "to {}",
        said.destination
    );
    owed!(said.hop_limit >= 32, "a hop limit of {}", said.hop_limit);
    owed!(said.whole.len() == frame.payload_slice().len(), "padding");
    let (number, datagram) = said.upper;
    owed!(number == 17, "IP protocol {number}");
    owed!(
        datagram[..4] == [0, 67, 0, 68],
        "ports {:?}",
        &datagram[..4]
    );
    let len = datagram.len() as u16;
    owed!(datagram[4..6] == len.to_be_bytes(), "a wrong UDP length");
    let (from, to) = (answer.from.octets(), answer.to.octets());
    let pseudo = [&from[..], &to, &[0, 17], &len.to_be_bytes(), datagram].concat();
    owed!(frames::checksum(&pseudo) == 0, "a wrong UDP checksum");
    owed!(
        datagram[8..] == answer.message,
        "the message {:02x?}",
        &datagram[8..]
    );
    Ok(())
}

fn check_dhcp6(answer: &Dhcp6Answer, frame: &Ethernet2Slice<'_>) -> Result<(), String> {
    let said = packet(frame)?;
    let to_mac = frame.destination();
    owed!(to_mac == answer.to_mac, "sent to {to_mac:?}");
    let ends = (IpAddr::V6(answer.from), IpAddr::V6(answer.to));
    owed!(
        (said.source, said.destination) == ends,
        "not between {ends:?}"
    );
    owed!(said.hop_limit >= 32, "a hop limit of {}", said.hop_limit);
    owed!(said.whole.len() == frame.payload_slice().len(), "padding");
    let (number, datagram) = said.upper;
    owed!(number == 17, "IP protocol {number}");
    let ports = &datagram[..4];
    owed!(ports == [2, 35, 2, 34], "ports {ports:?}");
    let len = datagram.len() as u16;
    owed!(datagram[4..6] == len.to_be_bytes(), "a wrong UDP length");
    let (from, to) = (answer.from.octets(), answer.to.octets());
    let pseudo = [&from[..], &to, &[0, 17], &len.to_be_bytes(), datagram].concat();
    owed!(frames::checksum(&pseudo) == 0, "a wrong UDP checksum");
    let message = &datagram[8..];
    owed!(
        message == answer.message,
        "the message {message:02x?}, not {:02x?}",
        answer.message
    );
    Ok(())
}

fn check_dns(answer: &DnsAnswer, frame: &Ethernet2Slice<'_>) -> Result<(), String> {
    let said = packet(frame)?;
    let to_mac = frame.destination();
    owed!(to_mac == answer.to_mac, "sent to {to_mac:?}");
    let ends = (answer.from, answer.to);
    owed!(
        (said.source, said.destination) == ends,
        "not between {ends:?}"
    );
    owed!(said.hop_limit >= 32, "a hop limit of {}", said.hop_limit);
    owed!(said.whole.len() == frame.payload_slice().len(), "padding");
    let (number, datagram) = said.upper;
    owed!(number == 17, "IP protocol {number}");
    let [high, low] = answer.to_port.to_be_bytes();
    let ports = &datagram[..4];
    owed!(ports == [0, 53, high, low], "ports {ports:?}");
    let len = datagram.len() as u16;
    owed!(datagram[4..6] == len.to_be_bytes(), "a wrong UDP length");
    let addresses = match ends {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
        _ => return Err("two families".to_owned()),
    };
    let pseudo = [&addresses, &[0, 17][..], &len.to_be_bytes(), datagram].concat();
    owed!(frames::checksum(&pseudo) == 0, "a wrong UDP checksum");
    let message = &datagram[8..];
    owed!(
        message == answer.message,
        "the message {message:02x?}, not {:02x?}",
        answer.message
    );
    Ok(())
}

fn check_echo(exchange: &Exchange<'_>) -> Result<(), String> {
    let Exchange {
        asked, said, to, ..
    } = exchange;
    let (number, message) = said.upper;
    let kind = if said.source.is_ipv4() {
        (1, 0)
    } else {
        (58, 129)
    };
    owed!((number, message[0]) == kind, "ICMP {number}/{}", message[0]);
    let question = asked.upper.1;
    owed!(message[1] == question[1], "another code");
    owed!(message[4..] == question[4..], "an echo of something else");
    let header = if said.source.is_ipv4() { 20 } else { 40 };
    owed!(
        said.whole.len() == header + message.len(),
        "an echo with options or extension headers"
    );
    owed!(
        said.source == asked.destination,
        "an echo from {}",
        said.source
    );
    owed!(
        said.destination == asked.source,
        "an echo to {}",
        said.destination
    );
    owed!(
        said.hop_limit >= 32,
        "an echo with a hop limit of {}",
        said.hop_limit
    );
    owed!(exchange.back, "an echo to {to:?}");
    Ok(())
}

fn check_neighbor_advertisement(
    mac: Mac,
    address: Ipv6Addr,
    exchange: &Exchange<'_>,
) -> Result<(), String> {
    let Exchange {
        asked, said, to, ..
    } = exchange;
    let (number, message) = said.upper;
    owed!(
        (number, message[0], message[1]) == (58, 136, 0),
        "no advertisement"
    );
    owed!(said.hop_limit == 255, "a hop limit of {}", said.hop_limit);
    owed!(
        message[8..24] == address.octets(),
        "an advertisement of something else"
    );
    let option = frames::link_layer(2, mac);
    owed!(message[24..] == option, "other options than {option:?}");
    let solicited = message[4] & 0x40 != 0;
    if asked.source.is_unspecified() {
        owed!(
            said.destination == ALL_NODES,
            "sent to {}",
            said.destination
        );
        owed!(*to == ALL_NODES_MAC && !solicited, "not to all nodes");
    } else {
        owed!(
            said.destination == asked.source,
            "sent to {}",
            said.destination
        );
        owed!(exchange.back && solicited, "not to the sender");
    }
    Ok(())
}

/// The flags of a Router Advertisement, and its prefix.
fn check_autoconf(
    [managed, other, forms]: [bool; 3],
    prefix: ipnet::Ipv6Net,
    (servers, search): &(Vec<[u8; 16]>, Vec<u8>),
    exchange: &Exchange<'_>,
) -> Result<(), String> {
    let message = exchange.said.upper.1;
    let flags = u8::from(managed) << 7 | u8::from(other) << 6;
    owed!(
        message[4..6] == [64, flags],
        "flags {:02x?}",
        &message[4..6]
    );
    owed!(message[6..8] == 1800_u16.to_be_bytes(), "another lifetime");
    owed!(message[8..16] == [0; 8], "times {:02x?}", &message[8..16]);
    let mut option = vec![3, 4, prefix.prefix_len(), 0x80 | u8::from(forms) << 6];
    option.extend(2_592_000_u32.to_be_bytes());
    option.extend(604_800_u32.to_be_bytes());
    option.extend([0; 4]);
    option.extend(prefix.addr().octets());
    for (kind, value) in [(25, servers.concat()), (31, search.clone())] {
        if value.is_empty() {
            continue;
        }
        option.extend([kind, 1 + value.len().div_ceil(8) as u8, 0, 0]);
        option.extend(1800_u32.to_be_bytes());
        option.extend(value);
        // RFC 8106, 5.2: padded with zero to eight bytes.
        option.resize(option.len().next_multiple_of(8), 0);
    }
    owed!(
        message[32..] == option,
        "the prefix and resolvers {:02x?}",
        &message[32..]
    );
    Ok(())
}

fn check_router_advertisement(
    mac: Mac,
    mtu: Option<u16>,
    own_link_local: Ipv6Addr,
    exchange: &Exchange<'_>,
) -> Result<(), String> {
    let Exchange {
        asked,
        said,
        to,
        back,
    } = exchange;
    let (number, message) = said.upper;
    owed!(
        (number, message[0], message[1]) == (58, 134, 0),
        "no Router Advertisement"
    );
    owed!(said.hop_limit == 255, "a hop limit of {}", said.hop_limit);
    owed!(said.source == own_link_local, "from {}", said.source);
    // RFC 6085 allows a group's packet in a unicast frame.
    let all = said.destination == ALL_NODES && (*back || *to == ALL_NODES_MAC);
    let one = said.destination == asked.source && *back;
    owed!(all || one, "to {} at {to:?}", said.destination);
    let option = frames::link_layer(1, mac);
    let options: Vec<_> = message[16..].chunks(8).collect();
    owed!(options.contains(&&option[..]), "no MAC in {options:?}");
    if let Some(mtu) = mtu {
        let [high, low] = mtu.to_be_bytes();
        let option = [5, 1, 0, 0, 0, 0, high, low];
        owed!(options.contains(&&option[..]), "no MTU in {options:?}");
    }
    Ok(())
}

/// Checks the ICMP error that `request` from port `from` got for `reason`, and the MTU that it
/// says.
pub(crate) fn check_error(
    reason: DropReason,
    next_mtu: Option<u16>,
    config: &SwitchConfig,
    from: usize,
    request: &[u8],
    error: &[u8],
) -> Result<(), String> {
    let request = untagged(request);
    let own_mac = side(config, from);
    let gateway = &config.gateway;
    let own = [
        gateway.ipv4.map(|net| net.addr().into()),
        gateway.ipv6.map(|net| net.addr().into()),
        Some(own_mac.link_local().into()),
    ];
    check_error_from((reason, next_mtu), own_mac, &own, &request, error)
}

/// Checks the ICMP error about a packet that came through the tunnel: it is from the packet's own
/// destination.
pub(crate) fn check_tunnel_error(
    mtu: u16,
    own_mac: MacAddr,
    request: &[u8],
    error: &[u8],
) -> Result<(), String> {
    let asked = Ethernet2Slice::from_slice_without_fcs(request).map_err(|e| e.to_string())?;
    let own = [Some(packet(&asked)?.destination)];
    check_error_from((DropReason::Mtu, Some(mtu)), own_mac, &own, request, error)
}

/// Checks an ICMP error, which must be from one of `own`.
fn check_error_from(
    (reason, next_mtu): (DropReason, Option<u16>),
    own_mac: MacAddr,
    own: &[Option<IpAddr>],
    request: &[u8],
    error: &[u8],
) -> Result<(), String> {
    let request = Ethernet2Slice::from_slice_without_fcs(request).map_err(|e| e.to_string())?;
    let error = Ethernet2Slice::from_slice_without_fcs(error).map_err(|e| e.to_string())?;
    owed!(
        error.source() == own_mac.octets(),
        "sent from {:?}",
        error.source()
    );
    owed!(
        error.destination() == request.source(),
        "sent to {:?}",
        error.destination()
    );
    let (asked, said) = (packet(&request)?, packet(&error)?);
    owed!(
        said.destination == asked.source,
        "sent to {}",
        said.destination
    );
    owed!(icmp_sum_is_right(&said), "a wrong ICMP checksum");
    let (number, longest) = match said.source {
        IpAddr::V4(_) => (1, 576),
        IpAddr::V6(_) => (58, 1280),
    };
    owed!(own.contains(&Some(said.source)), "from {}", said.source);
    owed!(said.whole.len() <= longest, "{} bytes", said.whole.len());
    let (said_number, message) = said.upper;
    owed!(said_number == number, "IP protocol {said_number}");
    let kind = (message[0], message[1]);
    let ipv4 = number == 1;
    let right = match reason {
        DropReason::RouteNone => kind.0 == if ipv4 { 3 } else { 1 },
        DropReason::Ttl => kind == if ipv4 { (11, 0) } else { (3, 0) },
        DropReason::TunnelNested => kind == if ipv4 { (3, 13) } else { (1, 1) },
        DropReason::Mtu => kind == if ipv4 { (3, 4) } else { (2, 0) },
        DropReason::GatewayService => kind == if ipv4 { (3, 3) } else { (1, 4) },
        _ => false,
    };
    owed!(right, "ICMP {kind:?} for {reason}");
    let quoted = &message[8..];
    owed!(asked.whole.starts_with(quoted), "it quotes something else");
    owed!(
        quoted.len() == asked.whole.len() || quoted.len() >= 28,
        "it quotes {} bytes",
        quoted.len()
    );
    if reason == DropReason::Mtu {
        let mtu = usize::from(u16::from_be_bytes([message[6], message[7]]));
        owed!(next_mtu.map(usize::from) == Some(mtu), "an MTU of {mtu}");
        owed!(mtu < asked.whole.len(), "an MTU of {mtu} for less");
    }
    Ok(())
}

/// The switch's own MAC at port `from`.
pub(crate) fn side(config: &SwitchConfig, from: usize) -> MacAddr {
    match (config.ports.get(from), &config.uplink) {
        (Some(port), _) => port.gateway_mac,
        (None, Some(uplink)) => uplink.mac,
        (None, None) => panic!("port {from} is not there"),
    }
}
