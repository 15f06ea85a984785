//! `docs/reference/spoof-filter.md` and `docs/reference/services.md` by example: for each of their
//! rows, frames that match it and frames that narrowly do not. This table is kept by hand; the
//! model and the switch must both agree with it.

mod arp;
mod client;
mod dhcp6_server;
mod dhcp_server;
mod dns;
mod ethernet;
mod fragment;
mod ipv4;
mod ipv6;
mod metadata;
mod multicast;
mod nd;
mod resolver;
mod route;
mod shared;
mod uplink;

use std::net::{Ipv4Addr, Ipv6Addr};

use pipeline::DropReason::{self, *};
use pipeline::Verdict;
use pipeline::ipsec::Direction;
use tenant_config::SwitchConfig;

use super::configs;
use super::frames::*;
use super::ipsec_frames::Sa;
use super::model::tunnel::path_mtu::Belief;
use super::model::{Model, Outcome};
use super::trial::Trial;

/// One frame and what it must get.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// The row of the page.
    pub(crate) row: &'static str,
    /// A short description of the frame.
    pub(crate) name: &'static str,
    pub(crate) config: SwitchConfig,
    pub(crate) from: usize,
    /// Whether the MACs of the next hops are known.
    pub(crate) resolved: bool,
    /// The SAs that there are, and the frames that came before.
    pub(crate) sas: Vec<(Direction, Sa)>,
    pub(crate) before: Vec<Vec<u8>>,
    /// Who sent those, if another.
    pub(crate) before_from: Option<usize>,
    /// The control information of a tag that the device has moved into metadata.
    pub(crate) tag: Option<u16>,
    pub(crate) frame: Vec<u8>,
    pub(crate) expect: Expect,
}

impl Case {
    /// The model's result.
    pub(crate) fn by_the_model(&self) -> Expect {
        let mut model = Model::new(&self.config);
        if self.resolved {
            model.teach_all(ROUTER);
        }
        for (direction, sa) in &self.sas {
            match direction {
                Direction::In => model.install_in(0, sa),
                Direction::Out => model.install_out(0, sa),
            }
        }
        for frame in &self.before {
            model.expect(0, self.before_from.unwrap_or(self.from), frame, None);
        }
        match model.expect(0, self.from, &self.frame, self.tag) {
            Outcome::Forward { to, .. } => Expect::Forward(to),
            Outcome::Copies(copies) => Expect::Copies(copies.len()),
            Outcome::Tunnel(_) | Outcome::Query(_) => Expect::Forward(model.uplink()),
            Outcome::Reply(_) | Outcome::TunnelReply(_) => Expect::Reply,
            Outcome::Defend(_) => Expect::DropWithError(NdSpoof),
            Outcome::TunnelError { .. } => Expect::DropWithError(Mtu),
            Outcome::Report(Belief::Must) => Expect::Drop(Absorbed),
            Outcome::Report(_) => Expect::Drop(GatewayService),
            Outcome::Drop {
                reason,
                icmp_error: true,
                ..
            } => Expect::DropWithError(reason),
            Outcome::Drop { reason, .. } => Expect::Drop(reason),
        }
    }

    /// The result of a fresh switch. The bytes must be the model's, and no other counter may have
    /// changed.
    ///
    /// # Errors
    /// Where switch and model disagree.
    pub(crate) fn by_the_switch(&self) -> Result<Expect, String> {
        let mut trial = Trial::new(&self.config);
        if self.resolved {
            trial.resolve(0);
        }
        for (direction, sa) in &self.sas {
            trial.install(0, *direction, sa);
        }
        for frame in &self.before {
            let _: Verdict = trial.send(0, self.before_from.unwrap_or(self.from), frame, None)?;
        }
        let verdict = trial.send(0, self.from, &self.frame, self.tag)?;
        Ok(match verdict {
            Verdict::Forward(port) => Expect::Forward(port.0.into()),
            Verdict::Copies => Expect::Copies(trial.copies()),
            Verdict::Reply => Expect::Reply,
            Verdict::Drop(reason) => Expect::Drop(reason),
            Verdict::DropWithError(reason) => Expect::DropWithError(reason),
        })
    }
}

/// The cases whose result, by `found`, is not the expected one, each with its row.
pub(crate) fn wrong(
    cases: &[Case],
    found: impl Fn(&Case) -> Result<Expect, String>,
) -> Vec<String> {
    let wrong = cases.iter().filter_map(|case| {
        let problem = match found(case) {
            Ok(got) if got == case.expect => return None,
            Ok(got) => format!("{got:?}, not {:?}", case.expect),
            Err(disagreement) => disagreement,
        };
        Some(format!("{}: {}: {problem}", case.row, case.name))
    });
    wrong.collect()
}

/// The expected result for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    Drop(DropReason),
    DropWithError(DropReason),
    /// To that port; the number of ports stands for the uplink.
    Forward(usize),
    /// To so many receivers, at least two.
    Copies(usize),
    Reply,
}

pub(crate) const VM1: Mac = [0x52, 0x54, 0, 0xaa, 0, 1];
pub(crate) const VM2: Mac = [0x52, 0x54, 0, 0xaa, 0, 2];
pub(crate) const VM3: Mac = [0x52, 0x54, 0, 0xaa, 0, 3];
/// The gateway's side of `vm1`'s link.
pub(crate) const GW: Mac = [2, 0, 0x13, 0x89, 0, 1];
pub(crate) const UPLINK: Mac = [2, 0, 0x13, 0x89, 0, 0];
/// The router of the underlay.
pub(crate) const ROUTER: Mac = [2, 0, 0, 0, 0, 0xfe];
/// Of VRRP (RFC 5798, section 7.3).
pub(crate) const VIRTUAL_ROUTER: Mac = [0, 0, 0x5e, 0, 1, 7];

pub(crate) const IP1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
pub(crate) const IP2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);
pub(crate) const IP3: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 13);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const UNOWNED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);
pub(crate) const EXTERNAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const UPLINK_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ZERO: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// `fd00:0:0:1::last`.
pub(crate) const fn inner(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, last)
}
pub(crate) const EXTERNAL6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 7);
pub(crate) const UPLINK6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
pub(crate) const NEXT_HOP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// A link-local address that is made from no MAC (RFC 7217).
pub(crate) const STABLE: Ipv6Addr = stable(0x9d03);
pub(crate) const fn stable(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0x8c2e, 0x4f1b, 0x77aa, last)
}

/// The link-local address of one of this file's MACs.
pub(crate) fn link_local(mac: Mac) -> Ipv6Addr {
    let mac = tenant_config::MacAddr::new(mac).expect("a station's MAC");
    mac.link_local()
}

/// The group that a solicitation for `target` goes to.
pub(crate) fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    let high = 0xff00 | u16::from(a);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, u16::from_be_bytes([b, c]))
}

/// Collects the cases, row by row.
pub(crate) struct Rows {
    cases: Vec<Case>,
    config: SwitchConfig,
    from: usize,
    pub(crate) resolved: bool,
    /// What there is and what came before the frames that follow.
    pub(crate) sas: Vec<(Direction, Sa)>,
    pub(crate) before: Vec<Vec<u8>>,
    pub(crate) before_from: Option<usize>,
    pub(crate) row: &'static str,
}

impl Rows {
    pub(crate) fn new() -> Self {
        Self {
            cases: Vec::new(),
            config: configs::three(),
            from: 0,
            resolved: true,
            sas: Vec::new(),
            before: Vec::new(),
            before_from: None,
            row: "",
        }
    }

    pub(crate) fn cases(self) -> Vec<Case> {
        self.cases
    }

    /// The frames that follow are sent by port `from` of `config`.
    pub(crate) fn on(&mut self, config: SwitchConfig, from: usize) {
        self.config = config;
        self.from = from;
    }

    fn add(&mut self, name: &'static str, tag: Option<u16>, frame: Vec<u8>, expect: Expect) {
        self.cases.push(Case {
            row: self.row,
            name,
            config: self.config.clone(),
            from: self.from,
            resolved: self.resolved,
            sas: self.sas.clone(),
            before: self.before.clone(),
            before_from: self.before_from,
            tag,
            frame,
            expect,
        });
    }

    pub(crate) fn drop(&mut self, reason: DropReason, name: &'static str, frame: Vec<u8>) {
        self.add(name, None, frame, Expect::Drop(reason));
    }

    pub(crate) fn error(&mut self, reason: DropReason, name: &'static str, frame: Vec<u8>) {
        self.add(name, None, frame, Expect::DropWithError(reason));
    }

    pub(crate) fn forward(&mut self, to: usize, name: &'static str, frame: Vec<u8>) {
        self.add(name, None, frame, Expect::Forward(to));
    }

    pub(crate) fn copies(&mut self, count: usize, name: &'static str, frame: Vec<u8>) {
        self.add(name, None, frame, Expect::Copies(count));
    }

    pub(crate) fn reply(&mut self, name: &'static str, frame: Vec<u8>) {
        self.add(name, None, frame, Expect::Reply);
    }
}

/// An IPv4 packet from `vm1`'s MAC to the gateway's.
fn v4(packet: &V4) -> Vec<u8> {
    ethernet(GW, VM1, IPV4, &packet.bytes())
}

/// An IPv6 packet from `vm1`'s MAC to the gateway's.
fn v6(packet: &V6) -> Vec<u8> {
    ethernet(GW, VM1, IPV6, &packet.bytes())
}

/// An IPv6 packet from `vm1`'s MAC to the MAC of its destination group.
fn v6_group(packet: &V6) -> Vec<u8> {
    ethernet(group_mac(packet.to), VM1, IPV6, &packet.bytes())
}

/// An IPv4 packet from `vm1`'s MAC to all stations.
fn broadcast(packet: &V4) -> Vec<u8> {
    ethernet(BROADCAST, VM1, IPV4, &packet.bytes())
}

/// IPv6 addresses that stand for an IPv4 address, each by another rule.
fn standing_for(ip: [u8; 4]) -> Vec<Ipv6Addr> {
    let [a, b, c, d] = ip;
    let [high, low] = [[a, b], [c, d]].map(u16::from_be_bytes);
    let octets = |prefix: [u8; 7], rest: [u8; 9]| {
        Ipv6Addr::from(<[u8; 16]>::try_from([&prefix[..], &rest].concat()).expect("sixteen"))
    };
    let local = |seventh| [0, 0x64, 0xff, 0x9b, 0, 1, seventh];
    vec![
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 1, 0xfffe, 0, 0, high, low),
        octets(local(0xff), [0xfe, 0, a, b, c, d, 0, 0, 0]),
        octets(local(0xff), [a, 0, b, c, d, 0, 0, 0, 0]),
        octets(local(a), [b, 0, c, d, 0, 0, 0, 0, 0]),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0, high, low, 0, 0, 0x3333, 0x4444),
        Ipv6Addr::new(0x2001, 0, 0x0808, 0x0808, 0, 0, !high, !low),
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
        Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 1, 0, 0x5efe, high, low),
        Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 1, 0x200, 0x5efe, high, low),
    ]
}

/// A plain packet: `vm1` to `vm2` by UDP.
fn plain() -> V4 {
    V4::new(IP1, IP2, 17, udp(1000, 2000, b"hello"))
}

/// The same by IPv6.
fn plain6() -> V6 {
    V6::new(inner(0x11), inner(0x12), 17, udp(1000, 2000, b"hello"))
}

/// `packet` with the bytes from `at` on replaced, and its header checksum updated.
fn patched(packet: &V4, at: usize, bytes: &[u8]) -> V4Bytes {
    let mut raw = packet.bytes();
    raw[at..at + bytes.len()].copy_from_slice(bytes);
    set_ipv4_checksum(&mut raw);
    V4Bytes(raw)
}

struct V4Bytes(Vec<u8>);

impl V4Bytes {
    fn frame(&self) -> Vec<u8> {
        ethernet(GW, VM1, IPV4, &self.0)
    }
}

fn arp(opcode: u16, sender: Ipv4Addr, target: Ipv4Addr) -> Arp {
    Arp {
        opcode,
        sender_mac: VM1,
        sender,
        target_mac: [0; 6],
        target,
    }
}

fn arp_frame(message: &Arp) -> Vec<u8> {
    ethernet(BROADCAST, VM1, ARP, &message.bytes())
}

/// The whole table.
pub(crate) fn cases() -> Vec<Case> {
    let mut rows = Rows::new();
    ethernet::add(&mut rows);
    arp::add(&mut rows);
    ipv4::add(&mut rows);
    ipv6::add(&mut rows);
    nd::add(&mut rows);
    client::add(&mut rows);
    dhcp_server::add(&mut rows);
    dhcp6_server::add(&mut rows);
    dns::add(&mut rows);
    resolver::add(&mut rows);
    metadata::add(&mut rows);
    route::add(&mut rows);
    fragment::add(&mut rows);
    shared::add(&mut rows);
    multicast::add(&mut rows);
    uplink::add(&mut rows);
    rows.cases()
}
