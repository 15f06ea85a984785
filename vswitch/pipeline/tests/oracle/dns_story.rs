//! What VMs ask the gateway for names: queries of any kind, most of them valid.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tenant_config::{Addresses, SwitchConfig};

use super::configs;
use super::frames::*;
use super::generate::{Choices, Sent, damage};
use super::rows::{GATEWAY, IP1, IP2, UNOWNED, inner};

/// The switches whose gateway answers: one with the usual domain, one with the smallest MTU, a long
/// domain and many addresses.
pub(crate) fn switches() -> [SwitchConfig; 2] {
    [configs::named(), long()]
}

/// A domain so long that one port's name is too long, and another's answers may not fit.
pub(crate) fn long() -> SwitchConfig {
    let mut config = configs::named();
    config.gateway.ipv6 = None;
    let label = "d".repeat(63);
    let domain = format!("{label}.{label}.{label}.{}", "X".repeat(54));
    config.gateway.dns.domain = Some(domain.parse().expect("a domain"));
    for port in &mut config.ports {
        port.mtu = 576;
    }
    config.ports[2].name = "a-name-that-is-too-long".parse().expect("a name");
    let many = (20..40).map(|last| Ipv4Addr::new(10, 0, 0, last).into());
    let many = many.map(|ip: IpAddr| ipnet::IpNet::from(ip));
    config.ports[0].addresses = Addresses::Static(many.collect());
    config
}

/// The domain of the ports' names.
pub(crate) fn domain(config: &SwitchConfig) -> String {
    let dns = &config.gateway.dns;
    let usual = || format!("{}.internal", config.tenant);
    dns.domain.as_ref().map_or_else(usual, ToString::to_string)
}

/// A name in a message, of labels that dots divide.
pub(crate) fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels
        .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
        .collect();
    bytes.push(0);
    bytes
}

/// The name of an address in in-addr.arpa or ip6.arpa.
pub(crate) fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let digits = format!("{:032x}", ip.to_bits());
            let digits = digits.chars().rev().map(|digit| format!("{digit}."));
            format!("{}ip6.arpa", digits.collect::<String>())
        }
    }
}

/// A query for a name.
pub(crate) fn query(name: &[u8], kind: u16, rest: &[u8]) -> Vec<u8> {
    let additional = u8::from(!rest.is_empty());
    let head = [0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, additional];
    [&head[..], name, &kind.to_be_bytes(), &[0, 1], rest].concat()
}

/// The OPT record of a client that takes so many bytes.
pub(crate) fn opt(size: u16, version: u8, data: &[u8]) -> Vec<u8> {
    let [high, low] = size.to_be_bytes();
    let head = [
        0,
        0,
        41,
        high,
        low,
        0,
        version,
        0x80,
        0,
        0,
        data.len() as u8,
    ];
    [&head[..], data].concat()
}

fn any_name(choices: &mut Choices<'_>, config: &SwitchConfig) -> Vec<u8> {
    let domain = domain(config);
    let port = choices.pick(&config.ports).name.to_string();
    let addresses: [IpAddr; 10] = [
        IP1.into(),
        IP2.into(),
        UNOWNED.into(),
        GATEWAY.into(),
        Ipv4Addr::new(10, 0, 0, 70).into(),
        Ipv4Addr::new(172, 16, 0, 1).into(),
        inner(0x11).into(),
        inner(0x99).into(),
        inner(1).into(),
        Ipv6Addr::LOCALHOST.into(),
    ];
    let usual = [
        format!("{port}.{domain}"),
        format!("{port}.{domain}").to_uppercase(),
        reverse(choices.pick(&addresses)),
    ];
    let strange = [
        domain.clone(),
        format!("nobody.{domain}"),
        format!("a.{port}.{domain}"),
        port,
        "example".to_owned(),
        String::new(),
        "in-addr.arpa".to_owned(),
        "011.0.0.10.in-addr.arpa".to_owned(),
        "1.11.0.0.10.in-addr.arpa".to_owned(),
        "256.0.0.10.in-addr.arpa".to_owned(),
        "0.ip6.arpa".to_owned(),
        format!("x{domain}"),
    ];
    let text = choices.mostly(&usual, &strange);
    match choices.once_in(12) {
        // A pointer, a label that is too long, one with a dot.
        true => choices.pick(&[vec![0xc0, 12], [&[64][..], &[b'a'; 64], &[0]].concat(), {
            let mut whole = vec![3, b'a', b'.', b'b'];
            whole.extend(name(&domain));
            whole
        }]),
        false => name(&text),
    }
}

/// One frame of a VM behind any port.
pub(crate) fn frame(choices: &mut Choices<'_>, config: &SwitchConfig) -> Sent {
    let from = choices.below(config.ports.len());
    let port = &config.ports[from];
    let name = any_name(choices, config);
    let rest = match choices.once_in(2) {
        true => Vec::new(),
        false => {
            let size = choices.pick(&[0, 511, 512, 513, 700, 1232, 4096, 65_535]);
            let version = choices.mostly(&[0], &[1]);
            let data = choices.pick(&[vec![], vec![0, 10, 0, 1, 7]]);
            opt(size, version, &data)
        }
    };
    let kind = choices.mostly(&[1, 28, 12, 255], &[2, 6, 15, 16, 33, 65]);
    let mut message = query(&name, kind, &rest);
    if choices.once_in(8) {
        let at = choices.below(12);
        message[at] = choices.pick(&[0, 1, 2, 8, 0x80, 0xff]);
    }
    if choices.once_in(12) {
        let class_at = 12 + name.len() + 3;
        message[class_at] = choices.pick(&[0, 3, 255]);
    }
    if choices.once_in(12) {
        message.truncate(choices.below(message.len() + 1));
    }
    let payload = udp(choices.pick(&[53, 1024, 40_000]), 53, &message);
    let to_mac = choices.mostly(&[port.gateway_mac.octets()], &[BROADCAST]);
    let mac = port.mac.octets();
    let mut bytes = if choices.once_in(2) {
        let source = choices.pick(&[IP1, IP2, Ipv4Addr::new(10, 0, 0, 20)]);
        let mut packet = V4::new(source, choices.mostly(&[GATEWAY], &[IP2]), 17, payload);
        packet.fragment = choices.mostly(&[0], &[MORE_FRAGMENTS]);
        ethernet(to_mac, mac, IPV4, &packet.bytes())
    } else {
        let own = port.gateway_mac.link_local();
        let to = choices.pick(&[inner(1), inner(1), own]);
        let source = choices.pick(&[port.mac.link_local(), inner(0x11), inner(0x12)]);
        let packet = V6::new(source, to, 17, payload);
        ethernet(to_mac, mac, IPV6, &packet.bytes())
    };
    if choices.once_in(10) {
        damage(choices, &mut bytes);
    }
    Sent {
        from,
        tag: None,
        bytes,
    }
}

/// A query of these bytes, by IPv4 or IPv6.
pub(crate) fn raw(config: &SwitchConfig, from: usize, is_ipv6: bool, message: &[u8]) -> Vec<u8> {
    let port = &config.ports[from];
    let (mac, to) = (port.mac, port.gateway_mac);
    let payload = udp(1024, 53, message);
    if is_ipv6 {
        let packet = V6::new(mac.link_local(), to.link_local(), 17, payload);
        return ethernet(to.octets(), mac.octets(), IPV6, &packet.bytes());
    }
    let Addresses::Static(nets) = &port.addresses else {
        return Vec::new();
    };
    let mut own = nets.iter().filter_map(|net| match net.addr() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    let source = own.next().unwrap_or(Ipv4Addr::UNSPECIFIED);
    let packet = V4::new(source, GATEWAY, 17, payload);
    ethernet(to.octets(), mac.octets(), IPV4, &packet.bytes())
}
