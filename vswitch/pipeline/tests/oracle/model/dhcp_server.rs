//! The gateway's own DHCP server: `docs/reference/services.md`, and RFC 2131 where that page names
//! it.

use ipnet::IpNet;
use tenant_config::BootServer;

use super::*;

/// A server's message, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DhcpAnswer {
    pub(crate) from: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
    pub(crate) to_mac: [u8; 6],
    /// The UDP payload.
    pub(crate) message: Vec<u8>,
}

/// "Which messages": the kinds of answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Offer,
    Ack,
    AckToInform(Ipv4Addr),
    Nak,
    BootReply,
}

/// "Which address".
fn offered(port: &PortConfig) -> Option<Ipv4Addr> {
    let Addresses::Static(nets) = &port.addresses else {
        return None;
    };
    let first = nets.iter().find(|net| net.addr().is_ipv4());
    first.map(|net| match net {
        IpNet::V4(net) if net.prefix_len() < 31 => Ipv4Addr::from_bits(net.network().to_bits() + 1),
        IpNet::V4(net) => net.network(),
        IpNet::V6(_) => unreachable!("IPv4"),
    })
}

/// The IPv4 addresses of a list.
fn list(addresses: &[IpAddr]) -> Option<Vec<u8>> {
    let ipv4 = addresses.iter().filter_map(|ip| match ip {
        IpAddr::V4(ip) => Some(ip.octets()),
        IpAddr::V6(_) => None,
    });
    let bytes: Vec<u8> = ipv4.flatten().collect();
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

/// "Options", 5: the value of an option that clients ask for.
fn value(config: &SwitchConfig, port: &PortConfig, code: u8, file: &[u8]) -> Option<Vec<u8>> {
    let dhcp = &config.gateway.dhcp;
    let gateway = config.gateway.ipv4.expect("a gateway").addr();
    let text = |text: Option<String>| text.map(String::into_bytes);
    match code {
        3 => Some(gateway.octets().to_vec()),
        6 => list(&dhcp.dns),
        12 => text(port.hostname.as_ref().map(ToString::to_string)),
        15 => text(dhcp.domain.as_ref().map(ToString::to_string)),
        26 => Some(port.mtu.to_be_bytes().to_vec()),
        42 => list(&dhcp.ntp),
        66 => text(dhcp.tftp_server.as_ref().map(ToString::to_string)),
        67 => Some(file.to_vec()).filter(|file| !file.is_empty()),
        119 if !dhcp.search.is_empty() => {
            let mut bytes = Vec::new();
            for name in &dhcp.search {
                for label in name.to_string().split('.') {
                    bytes.push(u8::try_from(label.len()).expect("at most 63"));
                    bytes.extend(label.as_bytes());
                }
                bytes.push(0);
            }
            Some(bytes)
        }
        121 if !dhcp.routes.is_empty() => {
            let told = dhcp.routes.iter();
            let mut routes: Vec<_> = told.map(|route| (route.to, route.via)).collect();
            if !routes.iter().any(|(to, _)| to.prefix_len() == 0) {
                routes.push(("0.0.0.0/0".parse().expect("a prefix"), gateway));
            }
            let mut bytes = Vec::new();
            for (to, via) in routes {
                let octets = match to.prefix_len() {
                    0 => 0,
                    1..=8 => 1,
                    9..=16 => 2,
                    17..=24 => 3,
                    _ => 4,
                };
                bytes.push(to.prefix_len());
                bytes.extend(&to.addr().octets()[..octets]);
                bytes.extend(via.octets());
            }
            Some(bytes)
        }
        _ => None,
    }
}

/// "Options": what is owed, in its order, where there is room.
fn owed_options(
    config: &SwitchConfig,
    port: &PortConfig,
    kind: Kind,
    asked: &[(u8, Vec<u8>)],
    file: &[u8],
) -> Vec<(u8, Vec<u8>)> {
    let gateway = config.gateway.ipv4.expect("a gateway");
    let first = |code: u8| {
        let mut found = asked.iter().filter(|(other, _)| *other == code);
        found.next().map(|(_, value)| value.clone())
    };
    let mut owed: Vec<(u8, Vec<u8>)> = Vec::new();
    let kind_number = match kind {
        Kind::Offer => Some(2),
        Kind::Ack | Kind::AckToInform(_) => Some(5),
        Kind::Nak => Some(6),
        Kind::BootReply => None,
    };
    if let Some(number) = kind_number {
        owed.push((53, vec![number]));
        owed.push((54, gateway.addr().octets().to_vec()));
    }
    if let Kind::Offer | Kind::Ack = kind {
        let lease = config.gateway.dhcp.lease_s.get();
        let rebind = u32::try_from((u64::from(lease) * 7).div_ceil(8)).expect("less");
        for (code, seconds) in [(51, lease), (58, lease / 2), (59, rebind)] {
            owed.push((code, seconds.to_be_bytes().to_vec()));
        }
    }
    owed.extend(first(61).map(|identifier| (61, identifier)));
    if kind != Kind::Nak {
        owed.push((1, gateway.netmask().octets().to_vec()));
        let all = || vec![3, 6, 12, 15, 26, 42, 66, 67, 119, 121];
        let mut asked_for = first(55).unwrap_or_else(all);
        let mut seen = Vec::new();
        asked_for.retain(|code| {
            let new = !seen.contains(code);
            seen.push(*code);
            new
        });
        for code in asked_for {
            owed.extend(value(config, port, code, file).map(|value| (code, value)));
        }
    }
    owed
}

impl Model {
    /// Route 1, where no port serves: what the gateway's own server says. `None` for packets that
    /// are not for it.
    pub(super) fn own_dhcp(
        &self,
        from: usize,
        group: bool,
        packet: &Packet<'_>,
    ) -> Option<Outcome> {
        let config = &self.written;
        let port = config.ports.get(from)?;
        let (IpAddr::V4(source), IpAddr::V4(to)) = (packet.source, packet.destination) else {
            return None;
        };
        let served = config.ports.iter().any(|port| port.dhcp_server);
        let gateway = config.gateway.ipv4?;
        let address = offered(port)?;
        if served || !config.gateway.dhcp.enabled {
            return None;
        }
        if packet.fragment != Fragment::No || packet.udp_ports() != Some((68, 67)) {
            return None;
        }
        let is_broadcast =
            to == Ipv4Addr::BROADCAST || (gateway.prefix_len() < 31 && to == gateway.broadcast());
        if to == gateway.addr() && group {
            return Some(DstMac.into());
        }
        if !is_broadcast && to != gateway.addr() {
            return None;
        }
        let message = Message::read(packet.payload).expect("the filter lets nothing else pass");
        let kind = match message.kind {
            None => Kind::BootReply,
            Some(1) => Kind::Offer,
            Some(3) => {
                let server = message.server.as_deref();
                if server.is_some_and(|server| server != gateway.addr().octets()) {
                    return Some(Absorbed.into());
                }
                let named = [Some(message.ciaddr), message.requested];
                let zero = Ipv4Addr::UNSPECIFIED;
                let ours = match named {
                    [Some(ciaddr), None] => ciaddr == address,
                    [Some(ciaddr), Some(wanted)] if ciaddr == zero => wanted == address,
                    [Some(ciaddr), Some(wanted)] => ciaddr == address && wanted == address,
                    _ => unreachable!("ciaddr is always there"),
                };
                if ours { Kind::Ack } else { Kind::Nak }
            }
            Some(8) => {
                let informs = match message.ciaddr.is_unspecified() {
                    true => source,
                    false => message.ciaddr,
                };
                if !owns(port, informs.into()) {
                    return Some(DhcpIdentity.into());
                }
                Kind::AckToInform(informs)
            }
            _ => return Some(Absorbed.into()),
        };
        let answer = self.dhcp_answer(port, &message, packet.payload, kind);
        Some(Outcome::Reply(Answer::Dhcp(answer)))
    }

    /// "The answer".
    fn dhcp_answer(
        &self,
        port: &PortConfig,
        message: &Message,
        datagram: &[u8],
        kind: Kind,
    ) -> DhcpAnswer {
        let config = &self.written;
        let dhcp = &config.gateway.dhcp;
        let gateway = config.gateway.ipv4.expect("a gateway");
        let address = offered(port).expect("an address");
        let asked = &datagram[8..];
        let asked_options = options(asked).expect("whole options");
        let is_ipxe = asked_options.contains(&(77, b"iPXE".to_vec()));
        let ipxe = dhcp.ipxe_boot_file.as_ref().filter(|_| is_ipxe);
        let file = ipxe.or(dhcp.boot_file.as_ref());
        let file = file.map_or_else(Vec::new, |file| file.to_string().into_bytes());

        let mut reply = vec![0; 236];
        reply[..3].copy_from_slice(&[2, 1, 6]);
        reply[4..8].copy_from_slice(&asked[4..8]);
        reply[10] = asked[10] & 0x80;
        reply[28..34].copy_from_slice(&asked[28..34]);
        let is_confirmed = message.ciaddr == address;
        match kind {
            Kind::Ack | Kind::BootReply if is_confirmed => {
                reply[12..16].copy_from_slice(&address.octets());
            }
            Kind::AckToInform(by) => reply[12..16].copy_from_slice(&by.octets()),
            _ => {}
        }
        if let Kind::Offer | Kind::Ack | Kind::BootReply = kind {
            reply[16..20].copy_from_slice(&address.octets());
        }
        if kind != Kind::Nak {
            if let Some(BootServer::Address(server)) = dhcp.tftp_server {
                reply[20..24].copy_from_slice(&server.octets());
            }
            reply[108..108 + file.len()].copy_from_slice(&file);
        }
        reply.extend([99, 130, 83, 99]);

        // "The IP packet has at most …", less the IP and UDP headers.
        let most = match kind {
            Kind::BootReply => asked.len().max(300),
            _ => {
                let all = asked_options.iter().filter(|(code, _)| *code == 57);
                let mut whole = all.filter_map(|(_, value)| <[u8; 2]>::try_from(&value[..]).ok());
                let said = whole.next().map_or(576, u16::from_be_bytes);
                usize::from(said.max(576)) - 28
            }
        };
        let most = most.min(usize::from(port.mtu) - 28).min(1472);

        let owed = owed_options(config, port, kind, &asked_options, &file);
        for (code, value) in owed {
            // The end is one byte.
            if reply.len() + 2 + value.len() < most {
                reply.extend([code, u8::try_from(value.len()).expect("at most 255")]);
                reply.extend(value);
            }
        }
        reply.push(255);
        reply.resize(reply.len().max(300), 0);

        let broadcast = asked[10] & 0x80 != 0;
        let to = match kind {
            Kind::Nak => Ipv4Addr::BROADCAST,
            Kind::AckToInform(by) => by,
            _ if is_confirmed => address,
            _ if broadcast => Ipv4Addr::BROADCAST,
            _ => address,
        };
        DhcpAnswer {
            from: gateway.addr(),
            to,
            to_mac: match to {
                Ipv4Addr::BROADCAST => [0xff; 6],
                _ => port.mac.octets(),
            },
            message: reply,
        }
    }
}
