//! The rows of "IPv6".

use super::*;

/// IPv6 1 and 2.
pub(super) fn ipv6(bytes: &[u8]) -> Result<Packet<'_>, DropReason> {
    // IPv6 1
    if bytes.len() < 40 || bytes[0] >> 4 != 6 {
        return Err(Ipv6Malformed);
    }
    let end = 40 + usize::from(be16(bytes, 4));
    if end > bytes.len() {
        return Err(Ipv6Malformed);
    }
    // IPv6 2
    let whole = &bytes[..end];
    let mut at = 40;
    let mut next = whole[6];
    let mut extension_headers = 0;
    let mut fragment = Fragment::No;
    let mut more = false;
    let cut_off = |fragment, more| {
        if fragment == Fragment::First && more {
            Ipv6Fragment
        } else {
            Ipv6Malformed
        }
    };
    let upper = loop {
        match next {
            // Extension headers.
            0 | 43 | 44 | 51 | 60 => {}
            135 | 139 | 140 => return Err(SecondAddress),
            253 | 254 => return Err(Ipv6Chain),
            // An upper layer, known or not.
            _ => break Some(next),
        }
        let hop_by_hop_behind_another = next == 0 && extension_headers > 0;
        let second_fragment_header = next == 44 && fragment != Fragment::No;
        if hop_by_hop_behind_another || second_fragment_header || extension_headers == 8 {
            return Err(Ipv6Chain);
        }
        let rest = &whole[at..];
        if rest.len() < 8 {
            return Err(cut_off(fragment, more));
        }
        let length = match next {
            44 => 8,
            51 => (usize::from(rest[1]) + 2) * 4,
            _ => (usize::from(rest[1]) + 1) * 8,
        };
        if length > rest.len() {
            return Err(cut_off(fragment, more));
        }
        if next == 43 && rest[2] == 0 {
            return Err(Ipv6Chain);
        }
        if next == 43 && rest[3] > 0 {
            return Err(SecondAddress);
        }
        if next == 0 || next == 60 {
            options_have_no_address(&rest[2..length])?;
        }
        extension_headers += 1;
        at += length;
        if next == 44 {
            let field = be16(rest, 2);
            if usize::from(field >> 3) * 8 + (whole.len() - at) > 65_535 {
                return Err(Ipv6Fragment);
            }
            more = field & 1 != 0;
            fragment = if field >> 3 == 0 {
                Fragment::First
            } else {
                Fragment::Later
            };
        }
        next = rest[0];
        // Behind a fragment header with offset ≠ 0, "nothing … is read".
        if fragment == Fragment::Later {
            break None;
        }
    };
    let payload = &whole[at..];
    let whole_transport = match upper {
        Some(TCP) => tcp_is_whole(payload),
        Some(UDP) => payload.len() >= 8,
        Some(ICMPV6) => payload.len() >= 4,
        _ => true,
    };
    if !whole_transport {
        return Err(cut_off(fragment, more));
    }
    Ok(Packet {
        source: ipv6_at(bytes, 8).into(),
        destination: ipv6_at(bytes, 24).into(),
        hop_limit: bytes[7],
        fragment,
        upper,
        payload,
        whole,
    })
}

/// "Options without an address"; whichever comes first of another option and one that runs over.
fn options_have_no_address(mut options: &[u8]) -> Result<(), DropReason> {
    while let Some(&kind) = options.first() {
        match kind {
            0 | 1 | 4 | 5 | 7 | 15 | 17 | 18 | 35 | 38 | 48 | 49 | 50 | 99 | 238 => {}
            _ => return Err(SecondAddress),
        }
        let length = match (kind, options.get(1)) {
            (0, _) => 1,
            (_, Some(&after)) => 2 + usize::from(after),
            (_, None) => return Err(Ipv6Malformed),
        };
        if length > options.len() {
            return Err(Ipv6Malformed);
        }
        options = &options[length..];
    }
    Ok(())
}

impl Model {
    /// IPv6 3 to 6.
    pub(super) fn ipv6_from_port(
        &self,
        port: &PortConfig,
        packet: &Packet<'_>,
    ) -> Result<(), DropReason> {
        let IpAddr::V6(source) = packet.source else {
            unreachable!("an IPv6 packet has an IPv6 source");
        };
        // IPv6 3
        if source.is_unspecified() {
            let may_be_unspecified = packet.fragment == Fragment::No
                && matches!(
                    packet.icmpv6_type(),
                    Some(RS | NS | MLD_REPORT | MLD_DONE | MLDV2_REPORT)
                );
            if !may_be_unspecified {
                return Err(Ipv6Source);
            }
        } else if !self.has6(port, source) {
            let claims = matches!(packet.icmpv6_type(), Some(RS | NS))
                || packet.udp_ports().is_some_and(|(_, to)| to == 547);
            if !(claims && self.may_claim(port, source) && self.has_room(port, source)) {
                return Err(Ipv6Source);
            }
        }
        // IPv6 4
        if !port.dhcp_server && is_dhcpv6_servers(packet) {
            return Err(Dhcpv6Server);
        }
        let to = packet.udp_ports().map(|(_, to)| to);
        if !port.dhcp_server && to == Some(547) && !is_dhcpv6_clients(packet) {
            return Err(Dhcpv6Client);
        }
        // IPv6 5
        encapsulation(port, packet)?;
        // IPv6 6
        let Some(icmp_type) = packet.icmpv6_type() else {
            return Ok(());
        };
        nd_well_formed(icmp_type, packet)?;
        let is_own_mac = |mac: &[u8]| {
            let mut macs = port.extra_macs.iter().chain([&port.mac]);
            macs.any(|own| own.octets() == mac)
        };
        let says = |kind, allowed: bool| {
            nd_options(icmp_type, packet.payload)
                .iter()
                .filter(|option| option.kind == kind)
                .all(|option| allowed && is_own_mac(option.body))
        };
        let honest = match icmp_type {
            RA | 138 | 145 | 147 | 149 | 151 | 153 | 154 | 155 => return Err(RouterAdvertisement),
            REDIRECT | 156 => return Err(Redirect),
            141 | 142 | 157 | 158 => return Err(NdSpoof),
            NS if !source.is_unspecified() => says(SOURCE_LINK_LAYER, true),
            NS => {
                let target = nd_target(packet.payload);
                packet.destination == solicited_node(target) && says(SOURCE_LINK_LAYER, false)
            }
            NA => self.has6(port, nd_target(packet.payload)) && says(TARGET_LINK_LAYER, true),
            RS => says(SOURCE_LINK_LAYER, !source.is_unspecified()),
            MLD_QUERY => return Err(MldQuery),
            _ => true,
        };
        if honest { Ok(()) } else { Err(NdSpoof) }
    }
}
