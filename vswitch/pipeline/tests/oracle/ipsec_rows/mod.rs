//! `docs/reference/ipsec.md` by example: for each of its rows, frames that match it and frames that
//! narrowly do not. This table is kept by hand; the model and the switch must both agree with it.

mod esp;
mod ike;
mod into;

use std::net::IpAddr;

use pipeline::DropReason::*;
use pipeline::ipsec::{Bounds, Direction};
use tenant_config::{IpsecSuite, Protection, SwitchConfig};

use super::configs;
use super::esp::Secret;
use super::frames::*;
use super::ipsec_frames::*;
use super::rows::{Case, EXTERNAL, EXTERNAL6, GW, Rows, VM1};
use super::tunnel_frames::*;
use super::tunnel_rows::{B, C1, OUT, away, home};

/// The SPI of most frames.
const SPI: u32 = 0x1000_0007;

/// The whole table.
pub(crate) fn cases() -> Vec<Case> {
    let mut rows = Rows::new();
    into::add(&mut rows);
    esp::add(&mut rows);
    ike::add(&mut rows);
    rows.cases()
}

/// A tunnel packet from that peer to `vm1`.
fn to_vm1(config: &SwitchConfig, peer: usize) -> TunnelPacket {
    let home = match peer {
        B => home(),
        _ => V4 {
            from: super::tunnel_rows::IP81,
            ..home()
        },
    };
    TunnelPacket::new(config, peer, inner_frame(config, peer, IPV4, &home.bytes()))
}

/// The tenants, each with a peer that requires IPsec.
fn tenants() -> [(&'static str, SwitchConfig, usize); 3] {
    [
        ("Geneve over IPv4", configs::sealed(), B),
        ("VXLAN over IPv6", configs::sealed6(), B),
        ("VXLAN over IPv4", configs::sealed_vxlan(), C1),
    ]
}

/// An address of that one's family that is nobody's on the underlay.
fn stranger(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => EXTERNAL.into(),
        IpAddr::V6(_) => EXTERNAL6.into(),
    }
}

/// Every way to carry a packet: the suites, both modes, bare and in UDP, with and without ESN.
fn styles(config: &SwitchConfig, peer: usize) -> Vec<Sa> {
    let mut styles = Vec::new();
    for suite in [
        IpsecSuite::Aes128Gcm16,
        IpsecSuite::Aes256Gcm16,
        IpsecSuite::ChaCha20Poly1305,
        IpsecSuite::Aes256Sha256,
    ] {
        for way in 0..8 {
            styles.push(Sa {
                secret: Secret::new(suite, way),
                whole: way & 1 != 0,
                in_udp: (way & 2 != 0).then_some(4500),
                esn: way & 4 != 0,
                ..Sa::new(config, peer, SPI)
            });
        }
    }
    styles
}
