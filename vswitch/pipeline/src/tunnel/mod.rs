//! The tunnel gateway: Geneve (RFC 8926) and VXLAN (RFC 7348) to the tenant's VMs on other hosts.
//! `docs/reference/tunnel.md` is the specification.
//!
//! This file holds what is known beforehand, `header` what is on the wire, `pass` a frame's way.

mod header;
mod pass;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tenant_config::{
    Encapsulation, Inherit, MIN_MTU_IPV4, MIN_MTU_IPV6, SwitchConfig, TunnelDscp, TunnelKind,
    TunnelTtl,
};

use super::counters::Counters;
use super::lpm::Lpm;
use super::state::State;
use super::tables::NextHopId;
use packet::DropReason;
use packet::Frame;

pub(super) use self::header::{Carrier, Ecn, Inner, clamp_mss};

/// UDP ports of tunnels that a VM may run itself, beside our own.
const TUNNEL_PORTS: [u16; 2] = [
    TunnelKind::Vxlan.default_port(),
    TunnelKind::Geneve.default_port(),
];

/// What one generation knows of its tunnel.
#[derive(Debug)]
pub(super) struct Tunnel {
    kind: TunnelKind,
    vni: u32,
    /// Our own endpoint.
    vtep: IpAddr,
    port: u16,
    /// The MAC of our side, inside the tunnel.
    pub(super) mac: [u8; 6],
    /// Whether the outer TTL is the inner one.
    inherits_ttl: bool,
    /// Which bits of the inner DSCP and ECN the outer ones take, and what the others are.
    tos: (u8, u8),
    udp_checksum: bool,
    nested: Encapsulation,
    pub(super) mss_clamp: bool,
    pub(super) only: bool,
    /// The largest IP packet that the tunnel carries, in bytes, as far as the uplink's MTU goes.
    pub(super) longest: u16,
    overhead: u16,
    /// The tunnel's header as it is almost always.
    plain_header: u64,
    /// The smallest path MTU that is believed.
    least_path_mtu: u16,
    peers: Box<[Peer]>,
    vteps: Box<[Vtep]>,
    /// By the numbers of their addresses; all are of our own family.
    by_address: Lpm<u128, u16>,
}

/// A peer: what is behind it is in the routes.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) vtep: u16,
    /// The MAC that takes frames there.
    mac: [u8; 6],
}

/// The way of one packet to a peer.
pub(super) struct Way<'t> {
    tunnel: &'t Tunnel,
    id: u16,
    mac: [u8; 6],
    template: &'t header::Template,
    next_hop: [u8; 6],
    /// The largest IP packet that gets there, in bytes.
    pub(super) longest: u16,
}

impl Way<'_> {
    /// Gives the inner frame its MACs.
    #[inline(always)]
    pub(super) fn address(&self, frame: &mut Frame<'_>) {
        frame.set_macs(self.mac, self.tunnel.mac);
    }

    /// Puts the outer headers around the frame, and counts it. `None` if there is no room for them.
    #[inline(always)]
    pub(super) fn send(
        &self,
        counters: &Counters,
        inner: Inner,
        frame: &mut Frame<'_>,
    ) -> Option<()> {
        let carried = frame.len();
        self.tunnel
            .encapsulate(self.template, self.next_hop, inner, frame)?;
        counters.peer(usize::from(self.id)).sent(carried);
        Some(())
    }
}

/// Why a packet does not go into the tunnel.
pub(super) enum Unfit {
    Reason(DropReason),
    /// It is larger than that.
    TooBig(u16),
}

/// An endpoint of peers; several of them may share one.
#[derive(Debug)]
pub(super) struct Vtep {
    next_hop: NextHopId,
    /// The peer that counts what has no source of a peer.
    first_peer: u16,
    outer: header::Template,
}

/// An address of either family as a number; what a tunnel's are compared with is of one family.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl Tunnel {
    /// `next_hop` finds the place of a next hop among all of the underlay's.
    pub(super) fn build(
        config: &SwitchConfig,
        next_hop: impl Fn(IpAddr) -> NextHopId,
    ) -> Option<Self> {
        let (tunnel, uplink) = (config.tunnel.as_ref()?, config.uplink.as_ref()?);
        let mut vteps: Vec<Vtep> = Vec::new();
        let mut places = std::collections::HashMap::new();
        let mut peers = Vec::new();
        for (peer, id) in tunnel.peers.iter().zip(0..) {
            let vtep = *places.entry(peer.vtep).or_insert_with(|| {
                vteps.push(Vtep {
                    next_hop: next_hop(peer.next_hop),
                    first_peer: id,
                    outer: header::Template::new(config.vni, tunnel, uplink.mac, peer.vtep),
                });
                (vteps.len() - 1) as u16
            });
            let mac = peer.mac.octets();
            peers.push(Peer { vtep, mac });
        }
        let (overhead, over_ipv6) = (tunnel.overhead(), tunnel.vtep.is_ipv6());
        let least = match config.gateway.ipv6 {
            Some(_) => MIN_MTU_IPV6,
            None => MIN_MTU_IPV4,
        };
        let hosts = places
            .iter()
            .map(|(address, vtep)| (number(*address), 128, *vtep));
        Some(Self {
            kind: tunnel.kind,
            vni: config.vni.get(),
            vtep: tunnel.vtep,
            port: tunnel.port,
            mac: tunnel.mac.octets(),
            inherits_ttl: tunnel.ttl == TunnelTtl::Inherit(Inherit::Inherit),
            tos: match tunnel.dscp {
                TunnelDscp::Inherit(Inherit::Inherit) => (0xff, 0),
                TunnelDscp::Fixed(dscp) => (Ecn::MASK, dscp << 2),
            },
            udp_checksum: tunnel.udp_checksum,
            nested: tunnel.nested,
            mss_clamp: tunnel.mss_clamp,
            only: tunnel.only,
            longest: uplink.mtu.saturating_sub(overhead),
            overhead,
            plain_header: Self::plain_header(tunnel.kind, config.vni),
            least_path_mtu: (least + overhead).max(if over_ipv6 { MIN_MTU_IPV6 } else { 0 }),
            by_address: Lpm::build(hosts.collect()),
            peers: peers.into(),
            vteps: vteps.into(),
        })
    }

    pub(super) fn peers(&self) -> &[Peer] {
        &self.peers
    }

    pub(super) fn vteps(&self) -> &[Vtep] {
        &self.vteps
    }

    /// The peers' endpoints: address and place.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        let own = self.vtep;
        let all = self.by_address.routes().iter();
        all.map(move |&(address, _, vtep)| {
            let address = match own {
                IpAddr::V4(_) => Ipv4Addr::from_bits(address as u32).into(),
                IpAddr::V6(_) => Ipv6Addr::from_bits(address).into(),
            };
            (address, vtep)
        })
    }

    /// The endpoint of that address, if it is a peer's.
    #[inline(always)]
    pub(super) fn vtep_at(&self, address: IpAddr) -> Option<u16> {
        if address.is_ipv4() != self.vtep.is_ipv4() {
            return None;
        }
        self.by_address.lookup(number(address))
    }

    /// The way of an IP packet of `len` bytes to a peer.
    #[inline(always)]
    pub(super) fn way_to(&self, state: &State, id: u16, len: usize) -> Result<Way<'_>, Unfit> {
        let peer = &self.peers[usize::from(id)];
        let vtep = &self.vteps[usize::from(peer.vtep)];
        let longest = state.vteps[usize::from(peer.vtep)].longest();
        if len > usize::from(longest) {
            return Err(Unfit::TooBig(longest));
        }
        let next_hop = state.next_hop_mac(Some(vtep.next_hop));
        Ok(Way {
            tunnel: self,
            id,
            mac: peer.mac,
            template: &vtep.outer,
            next_hop: next_hop.ok_or(Unfit::Reason(DropReason::NeighbourUnresolved))?,
            longest,
        })
    }

    /// Whether UDP to that port is a tunnel of the VM's own that may not be carried.
    #[inline(always)]
    pub(super) fn refuses(&self, udp: Option<(u16, u16)>) -> bool {
        self.nested == Encapsulation::Deny
            && udp.is_some_and(|(_, to)| to == self.port || TUNNEL_PORTS.contains(&to))
    }

    /// Whether a datagram that came to `destination` is the tunnel's.
    #[inline(always)]
    pub(super) fn takes(&self, destination: IpAddr, udp: Option<(u16, u16)>) -> bool {
        udp.is_some_and(|(_, to)| to == self.port) && self.vtep == destination
    }
}

/// What is remembered of an endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct VtepState {
    /// The largest IP packet that gets there through the tunnel, in bytes.
    longest: u16,
    /// When it is time to try larger ones again.
    until_ns: u64,
}

impl VtepState {
    /// RFC 1191, section 6.3, and RFC 8201, section 4.
    const PATH_MTU_NS: u64 = 600_000_000_000;

    pub(super) fn new(tunnel: &Tunnel) -> Self {
        Self {
            longest: tunnel.longest,
            until_ns: u64::MAX,
        }
    }

    /// A router on the path carries no more than `mtu` bytes.
    fn path_carries(&mut self, tunnel: &Tunnel, mtu: u32, now_ns: u64) {
        let carried = mtu.saturating_sub(u32::from(tunnel.overhead));
        if mtu >= u32::from(tunnel.least_path_mtu) && carried <= u32::from(self.longest) {
            self.longest = carried as u16;
            self.until_ns = now_ns.saturating_add(Self::PATH_MTU_NS);
        }
    }

    /// Forgets what is too old.
    pub(super) fn poll(&mut self, tunnel: &Tunnel, now_ns: u64) {
        if now_ns >= self.until_ns {
            *self = Self::new(tunnel);
        }
    }

    /// Goes on from what was known under the tables before.
    pub(super) fn take_over(&mut self, tunnel: &Tunnel, before: Self) {
        let path = before.longest + tunnel.overhead;
        if before.longest < self.longest && path >= tunnel.least_path_mtu {
            *self = before;
        }
    }

    /// The largest IP packet that gets there, in bytes.
    pub(super) fn longest(&self) -> u16 {
        self.longest
    }
}

impl Vtep {
    /// The peer that counts what has no source of a peer.
    pub(super) fn first_peer(&self) -> u16 {
        self.first_peer
    }

    /// The next hop towards it.
    pub(super) fn next_hop(&self) -> NextHopId {
        self.next_hop
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tenant_config::{MacAddr, SwitchConfig, Vni};

    use crate::{Generation, Pipeline, PortId, Verdict};
    use packet::Frame;

    const UPLINK: PortId = PortId(1);
    const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

    /// The switch of a host, by the host's number on the underlay; the other host is its peer.
    fn switch(kind: &str, ipv6: bool, own: u8, other: u8) -> Pipeline {
        let address = |host: u8| match ipv6 {
            false => format!("192.0.2.{host}"),
            true => format!("2001:db8::{host}"),
        };
        let of_vtep = |host: u8| {
            let vtep = address(host).parse().expect("an address");
            MacAddr::of_vtep(Vni::new(5001).expect("a VNI"), vtep)
        };
        let (family, len) = if ipv6 { ("ipv6", 64) } else { ("ipv4", 24) };
        let config = json!({
            "tenant": "red",
            "vni": 5001,
            "gateway": { "ipv4": "10.0.0.1/24" },
            "ports": [{
                "name": "vm1",
                "device": { "driver": "offline" },
                "gateway_mac": format!("02:00:13:89:00:{own:02x}"),
                "mac": format!("52:54:00:00:00:{own:02x}"),
                "addresses": [format!("10.0.0.{own}/32")],
            }],
            "uplink": {
                "device": { "driver": "offline" },
                "mac": format!("02:00:00:00:00:{own:02x}"),
                family: format!("{}/{len}", address(own)),
                "mtu": 1600,
            },
            "tunnel": {
                "kind": kind,
                "vtep": address(own),
                "port": if kind == "geneve" { 6081 } else { 4789 },
                "mac": of_vtep(own),
                "udp_checksum": true,
                "peers": [{
                    "name": "other",
                    "vtep": address(other),
                    "mac": of_vtep(other),
                    "next_hop": address(other),
                    "prefixes": [format!("10.0.0.{other}/32")],
                }],
            },
        });
        let config = SwitchConfig::from_json("test", &config.to_string()).expect("a configuration");
        let mut pipeline = Pipeline::new(Generation::build(&config, None));
        pipeline.assume_next_hops(0, MacAddr::new(ROUTER).expect("a MAC"));
        pipeline
    }

    /// A UDP packet from host 7's VM to host 8's.
    fn packet(payload: usize) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0x13, 0x89, 0, 7, 0x52, 0x54, 0, 0, 0, 7, 8, 0];
        let len = 28 + payload as u16;
        bytes.extend([0x45, 0]);
        bytes.extend(len.to_be_bytes());
        bytes.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 7, 10, 0, 0, 8]);
        let sum = crate::wire::ipv4_header_sum(bytes[14..].first_chunk().expect("a header"));
        bytes[24..26].copy_from_slice(&sum.to_ne_bytes());
        bytes.extend([0x10, 0, 0x20, 0]);
        bytes.extend((len - 20).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend((0..payload).map(|at| at as u8));
        bytes
    }

    fn process(pipeline: &mut Pipeline, port: PortId, bytes: &[u8]) -> (Verdict, Vec<u8>) {
        let mut buffer = vec![0xee; Frame::HEADROOM];
        buffer.extend(bytes);
        let mut frame = Frame::new(&mut buffer, Frame::HEADROOM, bytes.len(), None);
        let verdict = pipeline.process(1, port, &mut frame);
        (verdict, frame.bytes().to_vec())
    }

    #[test]
    fn what_goes_in_at_one_end_comes_out_at_the_other() {
        for (kind, ipv6) in [
            ("geneve", false),
            ("geneve", true),
            ("vxlan", false),
            ("vxlan", true),
        ] {
            let mut here = switch(kind, ipv6, 7, 8);
            let mut there = switch(kind, ipv6, 8, 7);
            for payload in [0, 1, 18, 1472] {
                let sent = packet(payload);
                let (verdict, carried) = process(&mut here, PortId(0), &sent);
                assert_eq!(verdict, Verdict::Forward(UPLINK), "{kind} {ipv6} {payload}");
                let overhead = if ipv6 { 70 } else { 50 };
                assert_eq!(carried.len(), sent.len() + overhead);
                assert_eq!(carried[..6], ROUTER);
                let mut wired = carried.clone();
                wired[..6].copy_from_slice(&[2, 0, 0, 0, 0, 8]);
                let (verdict, arrived) = process(&mut there, UPLINK, &wired);
                assert_eq!(
                    verdict,
                    Verdict::Forward(PortId(0)),
                    "{kind} {ipv6} {payload}"
                );
                assert_eq!(
                    arrived[..12],
                    [0x52, 0x54, 0, 0, 0, 8, 2, 0, 0x13, 0x89, 0, 8]
                );
                assert_eq!(arrived[12..], sent[12..]);
            }
            let peer = |pipeline: &Pipeline| {
                let counters = pipeline.counters();
                let peer = counters.peers().next().expect("a peer");
                (peer.tx_frames.get(), peer.rx_frames.get())
            };
            assert_eq!((peer(&here), peer(&there)), ((4, 0), (0, 4)));
        }
    }
}
