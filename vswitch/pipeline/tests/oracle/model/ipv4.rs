//! The rows of "IPv4".

use super::*;

/// IPv4 1 to 4.
pub(super) fn ipv4(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    // IPv4 1
    if bytes.len() < 20 || bytes[0] >> 4 != 4 {
        return Err(Ipv4Malformed);
    }
    let header = usize::from(bytes[0] & 0x0f) * 4;
    let total = usize::from(be16(bytes, 2));
    if header < 20 || header > total || total > bytes.len() {
        return Err(Ipv4Malformed);
    }
    if ones_complement_sum(&bytes[..header]) != 0xffff {
        return Err(Ipv4Malformed);
    }
    let options = ipv4_option_types(&bytes[20..header])?;
    let (source, destination) = (ipv4_at(bytes, 12), ipv4_at(bytes, 16));
    // IPv4 2
    if source.is_loopback() || source.is_multicast() || source.is_broadcast() {
        return Err(Ipv4Martian);
    }
    if is_martian_destination(destination.into()) {
        return Err(Ipv4Martian);
    }
    // IPv4 3
    if options.contains(&131) || options.contains(&137) {
        return Err(Ipv4SourceRoute);
    }
    if [135, 139, 140].contains(&bytes[9]) {
        return Err(SecondAddress);
    }
    // IPv4 4
    let more = be16(bytes, 6) & 0x2000 != 0;
    let offset = be16(bytes, 6) & 0x1fff;
    let protocol = bytes[9];
    let payload = &bytes[header..total];
    if protocol == TCP && offset == 1 {
        return Err(Ipv4Fragment);
    }
    if offset > 0 && usize::from(offset) * 8 + payload.len() > 65_535 {
        return Err(Ipv4Fragment);
    }
    let whole_transport = match protocol {
        TCP => tcp_is_whole(payload),
        UDP | ICMP | IGMP => payload.len() >= 8,
        _ => true,
    };
    if offset == 0 && !whole_transport {
        return Err(if more { Ipv4Fragment } else { Ipv4Malformed });
    }
    Ok(Packet {
        source: source.into(),
        destination: destination.into(),
        hop_limit: bytes[8],
        fragment: match (offset, more) {
            (0, false) => Fragment::No,
            (0, true) => Fragment::First,
            _ => Fragment::Later,
        },
        upper: Some(protocol),
        payload,
        whole: &bytes[..total],
    })
}

/// The types of the options before the end of their list. An option that runs over the header's end
/// is `ipv4-malformed`.
pub(super) fn ipv4_option_types(mut options: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut types = Vec::new();
    while let Some(&kind) = options.first() {
        let length = match kind {
            0 => break,
            1 => 1,
            _ => {
                let length = usize::from(*options.get(1).ok_or(Ipv4Malformed)?);
                if length < 2 || length > options.len() {
                    return Err(Ipv4Malformed);
                }
                length
            }
        };
        types.push(kind);
        options = &options[length..];
    }
    Ok(types)
}

/// IPv4 2, the destination's half.
pub(super) fn is_martian_destination(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            ip.octets()[0] == 127
                || ip.octets()[0] == 0
                || (ip.octets()[0] >= 240 && !ip.is_broadcast())
        }
        IpAddr::V6(_) => false,
    }
}

/// IPv4 5 to 8.
pub(super) fn ipv4_from_port(port: &PortConfig, packet: &Packet<'_>) -> Result<(), DropReason> {
    // IPv4 5
    if packet.source.is_unspecified() {
        if packet.destination != Ipv4Addr::BROADCAST || packet.upper != Some(UDP) {
            return Err(Ipv4Source);
        }
        return if is_dhcp_clients(packet, port.mac) {
            Ok(())
        } else {
            Err(DhcpClient)
        };
    }
    // IPv4 6
    if !owns(port, packet.source) {
        return Err(Ipv4Source);
    }
    // IPv4 7
    if !port.dhcp_server {
        if is_dhcp_servers(packet) {
            return Err(DhcpServer);
        }
        let to_server = packet.udp_ports().is_some_and(|(_, to)| to == 67);
        if to_server && !is_dhcp_clients(packet, port.mac) {
            return Err(DhcpClient);
        }
    }
    // IPv4 8 and 9
    routers_messages4(packet)?;
    // IPv4 10
    encapsulation(port, packet)
}

/// IPv4 8 and 9.
pub(super) fn routers_messages4(packet: &Packet<'_>) -> Result<(), DropReason> {
    match packet.icmpv4_type() {
        Some(5 | 32) => return Err(Redirect),
        Some(9) => return Err(RouterAdvertisement),
        _ => {}
    }
    match packet.igmp_type() {
        Some(17) => Err(IgmpQuery),
        Some(19 | 20 | 48 | 50) => Err(RouterAdvertisement),
        _ => Ok(()),
    }
}

/// IPv4 10 and IPv6 5.
pub(super) fn encapsulation(port: &PortConfig, packet: &Packet<'_>) -> Result<(), DropReason> {
    if port.encapsulation == Encapsulation::Deny && may_hold_a_packet(packet) {
        return Err(DropReason::Encapsulation);
    }
    Ok(())
}

fn may_hold_a_packet(packet: &Packet<'_>) -> bool {
    let Some(mut protocol) = packet.upper else {
        return false;
    };
    let mut rest = packet.payload;
    if protocol == AH && packet.fragment != Fragment::No {
        return true;
    }
    let mut authentication_headers = 0;
    while protocol == AH {
        authentication_headers += 1;
        if authentication_headers > 8 || rest.len() < 2 {
            return true;
        }
        let length = (usize::from(rest[1]) + 2) * 4;
        if length > rest.len() {
            return true;
        }
        protocol = rest[0];
        rest = &rest[length..];
    }
    if !matches!(
        protocol,
        1 | 2 | 6 | 17 | 33 | 46 | 50 | 58 | 59 | 88 | 89 | 112 | 132 | 136
    ) {
        return true;
    }
    if packet.fragment == Fragment::Later || !matches!(protocol, TCP | UDP) {
        return false;
    }
    if rest.len() < 4 {
        return true;
    }
    let holds = |port| match (protocol, port) {
        (TCP, 7471) => true,
        (TCP, _) => false,
        (_, 434 | 1701 | 2123 | 2152 | 2268 | 3386 | 3544 | 3653 | 4191 | 4341 | 4342) => true,
        (_, 4754 | 4755 | 4789 | 4790 | 5072 | 5246 | 5247 | 5436 | 5437 | 6080 | 6081) => true,
        (_, 6633 | 6635 | 6636 | 8060 | 8472 | 12222 | 12223 | 17754) => true,
        _ => false,
    };
    holds(be16(rest, 0)) || holds(be16(rest, 2))
}
