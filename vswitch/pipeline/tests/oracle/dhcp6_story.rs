//! What DHCPv6 clients say to the gateway's own server: all kinds of messages with options of any
//! length, most of them valid.

use std::net::Ipv6Addr;

use tenant_config::{Addresses, Addresses6, Ipv6Autoconf, MacAddr, SwitchConfig};

use super::configs;
use super::frames::*;
use super::generate::{Choices, Sent, damage};
use super::rows::inner;

pub(crate) const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// The switches whose gateway serves: one that tells all it can, one with the smallest MTU, long
/// lists and a prefix, one where VMs form their addresses, and one without a table.
pub(crate) fn switches() -> [SwitchConfig; 4] {
    let mut small = configs::served();
    for port in &mut small.ports {
        port.mtu = 1280;
    }
    let net = |text: &str| text.parse().expect("a prefix");
    small.ports[0].addresses = Addresses::Static(vec![net("fd00:0:0:1:8000::/80")]);
    let dhcp = &mut small.gateway.dhcp;
    let label = "d".repeat(63);
    let name = format!("{label}.{label}.{label}.example");
    dhcp.domain = Some(name.parse().expect("a name"));
    dhcp.search.clear();
    dhcp.dns = (1..=8).map(|last| inner(last).into()).collect();
    dhcp.ntp = (1..=8).map(|last| inner(last).into()).collect();
    let mut slaac = configs::served();
    slaac.gateway.ipv6_autoconf = Ipv6Autoconf::Slaac;
    slaac.ports[0].addresses6 = Some(Addresses6::LearnNd);
    // As the provisioner gives them: each is a digest.
    for port in slaac.ports.iter_mut().chain(&mut small.ports) {
        port.gateway_mac = MacAddr::of_gateway(small.vni, port.mac);
    }
    [configs::served(), small, slaac, configs::lone()]
}

/// The identifier of that switch's server.
pub(crate) fn server_id(config: &SwitchConfig) -> Vec<u8> {
    let vni = config.vni.get().to_be_bytes();
    [&[0, 3, 0, 1, 0x02], &vni[1..], &[0, 0]].concat()
}

/// An identity association of that kind.
pub(crate) fn association_of(kind: u16, id: u8, inner: &[u8]) -> Vec<u8> {
    let times = if kind == 4 { 0 } else { 8 };
    option6(kind, &[&[0, 0, 0, id], &vec![0; times][..], inner].concat())
}

/// An address with its lifetimes.
pub(crate) fn lease6(address: Ipv6Addr) -> Vec<u8> {
    let seconds = 600_u32.to_be_bytes();
    option6(5, &[&address.octets()[..], &seconds, &seconds].concat())
}

/// A prefix with its lifetimes.
fn prefix6(address: Ipv6Addr) -> Vec<u8> {
    option6(26, &[&[0; 8][..], &[56], &address.octets()].concat())
}

/// Every address that a client may name.
fn addresses() -> [Ipv6Addr; 9] {
    [
        inner(0x11),
        inner(0x12),
        inner(0x13),
        inner(1),
        inner(0),
        "fd00:0:0:1:8000::1".parse().expect("an address"),
        "fd00:0:0:2::1".parse().expect("an address"),
        "fe80::1".parse().expect("an address"),
        Ipv6Addr::UNSPECIFIED,
    ]
}

fn association(choices: &mut Choices<'_>) -> Vec<u8> {
    let kind = choices.mostly(&[3, 3, 3, 3, 4, 25], &[3]);
    let mut inner = Vec::new();
    for _ in 0..choices.pick(&[0, 1, 1, 2, 5, 30]) {
        let address = choices.pick(&addresses());
        inner.extend(match kind {
            25 => prefix6(address),
            _ => lease6(address),
        });
    }
    if choices.once_in(8) {
        inner.extend(option6(13, &[0, 2]));
    }
    association_of(kind, choices.pick(&[0, 1, 2, 3, 255]), &inner)
}

fn wanted(choices: &mut Choices<'_>) -> Vec<u8> {
    let len = choices.pick(&[0, 1, 3, 8, 60]);
    let known = [23, 24, 31, 32, 56];
    let strange = [0, 1, 2, 3, 7, 13, 14, 59, 82, 0xffff];
    let codes: Vec<u16> = (0..len).map(|_| choices.mostly(&known, &strange)).collect();
    let mut value: Vec<u8> = codes.iter().flat_map(|code| code.to_be_bytes()).collect();
    if choices.once_in(10) {
        value.push(0);
    }
    option6(6, &value)
}

/// The options of a message of that type, most of them those that it should have.
fn options(choices: &mut Choices<'_>, config: &SwitchConfig, kind: u8) -> Vec<Vec<u8>> {
    let mut options = Vec::new();
    if !(kind == 11 && choices.once_in(2)) {
        let duid = choices.pick(&[
            vec![0, 3, 0, 1, 0x52, 0x54, 0, 0xaa, 0, 1],
            vec![0, 4, 7],
            vec![9; 130],
        ]);
        options.push(option6(1, &duid));
    }
    if matches!(kind, 3 | 5 | 8 | 9) != choices.once_in(10) {
        let ours = server_id(config);
        let strange = [vec![0, 3, 0, 1, 2, 0, 0x13, 0x89, 0, 1], Vec::new()];
        options.push(option6(2, &choices.mostly(&[ours], &strange)));
    }
    let asks = kind != 11 || choices.once_in(10);
    for _ in 0..choices.mostly(&[1, 1, 1, 0, 2, 3, 4], &[5]) {
        if asks {
            options.push(association(choices));
        }
    }
    for _ in 0..choices.pick(&[0, 1, 1, 2]) {
        options.push(wanted(choices));
    }
    if choices.once_in(3) {
        options.push(option6(14, &[]));
    }
    if choices.once_in(4) {
        let code = choices.pick(&[8, 12, 16, 39, 13, 7]);
        let len = choices.pick(&[0, 1, 2, 16, 200]);
        options.push(option6(code, &vec![choices.pick(&[0, 1, 255]); len]));
    }
    if choices.once_in(4) && options.len() > 1 {
        let (one, other) = (choices.below(options.len()), choices.below(options.len()));
        options.swap(one, other);
    }
    options
}

/// One frame of a client behind any port.
pub(crate) fn frame(choices: &mut Choices<'_>, config: &SwitchConfig) -> Sent {
    let from = choices.below(config.ports.len());
    let port = &config.ports[from];
    let (mac, gateway_mac) = (port.mac, port.gateway_mac);
    let kind = choices.mostly(&[1, 1, 3, 3, 4, 5, 6, 8, 9, 11], &[2, 7, 10, 12]);
    let options = options(choices, config, kind);
    let message = dhcp6(kind, choices.pick(&[0, 1, 255]), &options);
    let source = choices.mostly(
        &[mac.link_local()],
        &[inner(0x11), inner(0x12), inner(0x13)],
    );
    let gateways = [inner(1), gateway_mac.link_local()];
    let strange = [&gateways[..], &gateways, &addresses()].concat();
    let to = choices.mostly(&[ALL_SERVERS], &strange);
    let ports = choices.mostly(&[(546, 547)], &[(9, 547), (547, 546), (546, 546)]);
    let packet = V6::new(source, to, 17, udp(ports.0, ports.1, &message));
    let usual = match to.is_multicast() {
        true => group_mac(to),
        false => gateway_mac.octets(),
    };
    let to_mac = choices.mostly(&[usual], &[gateway_mac.octets(), group_mac(ALL_SERVERS)]);
    let mut bytes = ethernet(to_mac, mac.octets(), IPV6, &packet.bytes());
    if let Some(vid) = port.trunk.first()
        && choices.once_in(2)
    {
        bytes = tagged(&bytes, 0x8100, vid.get());
    }
    if choices.once_in(10) {
        damage(choices, &mut bytes);
    }
    Sent {
        from,
        tag: None,
        bytes,
    }
}

/// What the client behind that port sends, whose message is these bytes. The high bits of `who` say
/// where it goes to.
pub(crate) fn raw(config: &SwitchConfig, from: usize, who: u8, message: &[u8]) -> Vec<u8> {
    let port = &config.ports[from];
    let to = match who >> 6 {
        0 | 1 => ALL_SERVERS,
        2 => inner(1),
        _ => port.gateway_mac.link_local(),
    };
    let packet = V6::new(port.mac.link_local(), to, 17, udp(546, 547, message));
    let to_mac = match to.is_multicast() {
        true => group_mac(to),
        false => port.gateway_mac.octets(),
    };
    ethernet(to_mac, port.mac.octets(), IPV6, &packet.bytes())
}

/// The addresses that a server's answer gives for a time, by a reader of its own (RFC 8415, section
/// 21).
///
/// # Errors
/// Where the answer is no whole message of a server.
pub(crate) fn given(message: &[u8]) -> Result<Vec<Ipv6Addr>, &'static str> {
    fn split(bytes: &[u8]) -> Result<Vec<(u8, &[u8])>, &'static str> {
        let mut rest = bytes;
        let mut options = Vec::new();
        while let [high, code, length_high, length, behind @ ..] = rest {
            let length = usize::from(*length_high) << 8 | usize::from(*length);
            if *high != 0 || behind.len() < length {
                return Err("an option that is cut off, or unknown");
            }
            options.push((*code, &behind[..length]));
            rest = &behind[length..];
        }
        match rest {
            [] => Ok(options),
            _ => Err("bytes behind the options"),
        }
    }
    let [2 | 7, _, _, _, options @ ..] = message else {
        return Err("no server's message");
    };
    let mut given = Vec::new();
    for (code, value) in split(options)? {
        let inner = match (code, value) {
            (1 | 2 | 7 | 13 | 14 | 23 | 24 | 31 | 32 | 56, _) => continue,
            (3 | 25, [_, _, _, _, _, _, _, _, _, _, _, _, inner @ ..]) => inner,
            (4, [_, _, _, _, inner @ ..]) => inner,
            _ => return Err("an option that was not asked for"),
        };
        for (code, value) in split(inner)? {
            match (code, value.split_first_chunk::<16>()) {
                (13, _) => {}
                (5, Some((_, [0, 0, 0, 0, 0, 0, 0, 0]))) => {}
                (5, Some((address, rest))) if rest.len() == 8 => given.push((*address).into()),
                _ => return Err("a lease that is cut off, or a prefix"),
            }
        }
    }
    Ok(given)
}
