//! What DHCP clients say to the gateway's own server: all kinds of messages with options of any
//! length, most of them valid.

use std::net::Ipv4Addr;

use tenant_config::{PortConfig, SwitchConfig};

use super::configs;
use super::frames::*;
use super::generate::{Choices, Sent, damage};
use super::lease_story::Dhcp;
use super::rows::{EXTERNAL, GATEWAY, IP1, IP2, UNOWNED};

/// The switches whose gateway serves: one that tells all it can, one with the smallest MTU and the
/// longest texts, and one without a table.
pub(crate) fn switches() -> [SwitchConfig; 3] {
    let mut small = configs::served();
    small.gateway.ipv6 = None;
    for port in &mut small.ports {
        port.mtu = 576;
    }
    let dhcp = &mut small.gateway.dhcp;
    let label = "d".repeat(63);
    let name = format!("{label}.{label}.{label}.example");
    dhcp.domain = Some(name.parse().expect("a name"));
    dhcp.tftp_server = Some(name.parse().expect("a name"));
    dhcp.search = vec![name.parse().expect("a name")];
    dhcp.boot_file = Some("b".repeat(127).parse().expect("a file"));
    [configs::served(), small, configs::lone()]
}

/// Every address that a client may name.
fn addresses() -> [Ipv4Addr; 12] {
    let near = |last| Ipv4Addr::new(10, 0, 0, last);
    [
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::BROADCAST,
        IP1,
        IP2,
        GATEWAY,
        UNOWNED,
        EXTERNAL,
        near(0),
        near(64),
        near(65),
        near(79),
        near(255),
    ]
}

/// The options that the server reads, one that it does not know, and one that it must not see.
const CODES: [u8; 10] = [50, 54, 55, 57, 61, 77, 55, 61, 12, 82];

fn value(choices: &mut Choices<'_>, code: u8) -> Vec<u8> {
    match code {
        50 | 54 => choices.pick(&addresses()).octets().to_vec(),
        57 => {
            let longest = choices.pick(&[0, 575, 576, 577, 700, 1280, 1500, 9000, 65_535]);
            u16::to_be_bytes(longest).to_vec()
        }
        77 => choices
            .pick(&[&b"iPXE"[..], b"iPXE ", b"PXEClient"])
            .to_vec(),
        55 => {
            let len = choices.pick(&[0, 1, 3, 8, 20, 255]);
            let known = [3, 6, 12, 15, 26, 42, 66, 67, 119, 121];
            let strange = [0, 1, 51, 53, 54, 61, 252, 255];
            (0..len).map(|_| choices.mostly(&known, &strange)).collect()
        }
        _ => {
            let len = choices.pick(&[0, 1, 2, 7, 16, 200, 255]);
            vec![choices.pick(&[0, 1, 255]); len]
        }
    }
}

/// One frame of a client behind any port.
pub(crate) fn frame(choices: &mut Choices<'_>, config: &SwitchConfig) -> Sent {
    let from = choices.below(config.ports.len());
    let port: &PortConfig = &config.ports[from];
    let (mac, gateway_mac) = (port.mac.octets(), port.gateway_mac.octets());
    let kind = choices.mostly(&[1, 3, 3, 3, 8, 4, 7], &[0, 2, 5, 6, 9]);
    let mut message = Dhcp {
        xid: choices.pick(&[1, 2, 3]),
        broadcast: choices.once_in(3),
        ..Dhcp::client(kind, mac)
    };
    if choices.once_in(8) {
        message.kind = None;
    }
    if choices.once_in(3) {
        message.ciaddr = choices.pick(&addresses());
    }
    if choices.once_in(20) {
        message.giaddr = choices.pick(&addresses());
    }
    for _ in 0..choices.pick(&[0, 1, 2, 2, 3, 4, 6]) {
        let code = choices.pick(&CODES);
        let mut value = value(choices, code);
        if choices.once_in(12) {
            value.push(7);
        }
        message = message.with(code, &value);
    }
    let rests: [&[u8]; 5] = [&[255], &[], &[255, 0, 0, 0], &[0, 0, 255, 9], &[55, 9, 1]];
    message.rest = choices.mostly(&rests[..4], &rests[4..]).to_vec();
    if choices.once_in(6) {
        message.rest.resize(choices.pick(&[20, 60, 300, 900]), 0);
    }
    let source = choices.pick(&[Ipv4Addr::UNSPECIFIED, IP1, IP2, Ipv4Addr::new(10, 0, 0, 66)]);
    let to = match source.is_unspecified() {
        true => choices.mostly(&[Ipv4Addr::BROADCAST], &addresses()),
        false => choices.pick(&addresses()),
    };
    let mut bytes = message.frame_to(source, to);
    let to_mac = choices.pick(&[BROADCAST, gateway_mac]);
    bytes[..6].copy_from_slice(&to_mac);
    if let Some(vid) = port.trunk.first()
        && choices.once_in(2)
    {
        bytes = tagged(&bytes, 0x8100, vid.get());
    }
    if choices.once_in(8) {
        damage(choices, &mut bytes);
    }
    Sent {
        from,
        tag: None,
        bytes,
    }
}

/// A message of the client behind that port whose options are these bytes. The high bits of `who`
/// say whether it has an address, where it goes to, and the broadcast flag.
pub(crate) fn raw(config: &SwitchConfig, from: usize, who: u8, options: &[u8]) -> Vec<u8> {
    let mut message = Dhcp {
        kind: None,
        broadcast: who & 0x10 != 0,
        rest: options.to_vec(),
        ..Dhcp::client(0, config.ports[from].mac.octets())
    };
    let (source, to) = match who >> 6 {
        0 | 1 => (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST),
        2 => (IP1, GATEWAY),
        _ => (IP1, Ipv4Addr::BROADCAST),
    };
    if who & 0x20 != 0 {
        message.ciaddr = IP1;
    }
    message.frame_to(source, to)
}
