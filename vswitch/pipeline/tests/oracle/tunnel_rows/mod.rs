//! `docs/reference/tunnel.md` by example: for each of its rows, frames that match it and
//! frames that narrowly do not. This table is kept by hand; the model and the switch must both
//! agree with it.

mod beside;
mod header;
mod inner;
mod into;
mod multicast;
mod outer;
mod route;
mod service;
mod source;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pipeline::DropReason::{self, *};
use tenant_config::SwitchConfig;

use super::configs;
use super::frames::*;
use super::rows::{
    Case, EXTERNAL, EXTERNAL6, GATEWAY, GW, IP1, IP2, NEXT_HOP, NEXT_HOP6, ROUTER, Rows, UNOWNED,
    UPLINK, UPLINK_IP, UPLINK6, VM1, inner, link_local, solicited_node,
};
use super::tunnel_frames::*;

/// VMs behind host B and behind the two peers of host C's VTEP.
pub(crate) const IP71: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 71);
pub(crate) const IP81: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 81);
pub(crate) const IP82: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 82);
/// The numbers of the peers, and of the uplink.
pub(crate) const B: usize = 0;
pub(crate) const C1: usize = 1;
pub(crate) const C2: usize = 2;
pub(crate) const OUT: usize = 2;
const ZERO: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const CE: u8 = 3;

/// The whole table.
pub(crate) fn cases() -> Vec<Case> {
    let mut rows = Rows::new();
    into::add(&mut rows);
    outer::add(&mut rows);
    header::add(&mut rows);
    inner::add(&mut rows);
    source::add(&mut rows);
    service::add(&mut rows);
    route::add(&mut rows);
    inner::add_ecn(&mut rows);
    beside::add(&mut rows);
    multicast::add(&mut rows);
    rows.cases()
}

/// An IPv4 packet from `vm1`'s MAC to the gateway's.
fn v4(packet: &V4) -> Vec<u8> {
    ethernet(GW, VM1, IPV4, &packet.bytes())
}

/// An IPv6 packet from `vm1`'s MAC to the gateway's.
fn v6(packet: &V6) -> Vec<u8> {
    ethernet(GW, VM1, IPV6, &packet.bytes())
}

/// `vm1` to a VM behind host B by UDP.
pub(crate) fn away() -> V4 {
    V4::new(IP1, IP71, 17, udp(1000, 2000, b"hello"))
}

/// The same by IPv6.
pub(crate) fn away6() -> V6 {
    V6::new(inner(0x11), inner(0x71), 17, udp(1000, 2000, b"hello"))
}

/// From a VM behind host B to `vm1`.
pub(crate) fn home() -> V4 {
    V4::new(IP71, IP1, 17, udp(2000, 1000, b"hello"))
}

/// The same by IPv6.
pub(crate) fn home6() -> V6 {
    V6::new(inner(0x71), inner(0x11), 17, udp(2000, 1000, b"hello"))
}

/// A SYN with a maximum segment size behind `front` of other options.
pub(crate) fn syn(front: &[u8], mss: u16) -> Vec<u8> {
    let mut options = [front, &[2, 4], &mss.to_be_bytes()].concat();
    options.resize(options.len().next_multiple_of(4), 1);
    let words = 5 + options.len() / 4;
    let mut segment = tcp(1000, 80, words as u8, b"");
    segment[20..].copy_from_slice(&options);
    segment
}

/// `packet` from peer number `peer`.
fn from4(config: &SwitchConfig, peer: usize, packet: &V4) -> TunnelPacket {
    TunnelPacket::new(
        config,
        peer,
        inner_frame(config, peer, IPV4, &packet.bytes()),
    )
}

/// `packet` from peer number `peer`.
fn from6(config: &SwitchConfig, peer: usize, packet: &V6) -> TunnelPacket {
    TunnelPacket::new(
        config,
        peer,
        inner_frame(config, peer, IPV6, &packet.bytes()),
    )
}
