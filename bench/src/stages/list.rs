//! The scenarios, in the order of the report.

use std::net::Ipv4Addr;

use pipeline::{PortId, Stage};
use tenant_config::TunnelKind;

use super::attacks::refused;
use super::frames::{
    PORTS, arp_request, claimed, tunnelled, udp4, udp4_from_uplink, udp4_of, udp4_to_group, udp6,
};
use super::remote::{Remote, distant};
use super::{BURST, Expected, Scenario, With};
use crate::network::{Size, vm_ipv4, vm_ipv6};

/// An external address.
const EXTERNAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// A group that goes to all ports without a report.
const MDNS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
/// Addresses that a port may have claimed.
const CLAIMS: u16 = 8;
/// The first VM's port.
const VM: PortId = PortId(0);

impl Scenario {
    /// Frames from a port that are forwarded.
    fn forwarded(name: String, size: Size, from: PortId, frames: Vec<Vec<u8>>) -> Self {
        Self {
            name,
            size,
            with: With::Nothing,
            from,
            frames,
            expected: Expected::Forward,
        }
    }
}

/// All scenarios.
pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = plain();
    let size = Size::new(2, 1);
    let request = arp_request(vm_ipv4(1, 0), Ipv4Addr::new(10, 0, 0, 1));
    scenarios.push(Scenario {
        name: named("arp-answered", size),
        expected: Expected::Reply,
        ..Scenario::forwarded(String::new(), size, VM, vec![request])
    });
    scenarios.extend(refused().into_iter().map(|(reason, frame)| Scenario {
        expected: Expected::Drop(reason),
        ..Scenario::forwarded(format!("drop/{}", reason.name()), size, VM, vec![frame])
    }));
    scenarios.extend(tunnels());
    scenarios
}

fn named(name: &str, size: Size) -> String {
    let Size { ports, addresses } = size;
    format!("{name}/{ports}-ports-{addresses}-addresses")
}

/// Forwarded packets without a tunnel, in switches of several sizes.
fn plain() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    let mut add = |name: &str, size, from, frame: &dyn Fn(u16) -> Vec<u8>| {
        let frames = hosts(size).map(frame).collect();
        scenarios.push(Scenario::forwarded(named(name, size), size, from, frames));
    };
    for (ports, addresses) in [(1, 1), (1, 1000), (64, 1), (64, 1000)] {
        let size = Size::new(ports, addresses);
        add("v4-to-uplink", size, VM, &|host| {
            udp4(vm_ipv4(1, host), EXTERNAL, PORTS)
        });
    }
    for (ports, addresses) in [(2, 1), (2, 1000), (64, 1), (64, 1000)] {
        let size = Size::new(ports, addresses);
        add("v4-port-to-port", size, VM, &|host| {
            udp4(vm_ipv4(1, host), vm_ipv4(ports, host), PORTS)
        });
        add("v6-port-to-port", size, VM, &|host| {
            udp6(&vm_ipv6(1, host), &vm_ipv6(ports, host))
        });
    }
    for (ports, addresses) in [(1, 1), (64, 1000)] {
        let size = Size::new(ports, addresses);
        add("v4-from-uplink", size, PortId(ports), &|host| {
            udp4_from_uplink(EXTERNAL, vm_ipv4(1, host))
        });
    }
    scenarios
}

/// As many of a VM's addresses as a burst has frames, spread over all of them.
fn hosts(size: Size) -> impl Iterator<Item = u16> {
    let step = (size.addresses / BURST as u16).max(1);
    (0..size.addresses)
        .rev()
        .step_by(usize::from(step))
        .take(BURST)
}

/// Into the tunnel and out of it, beside the same packets from port to port.
fn tunnels() -> Vec<Scenario> {
    const SIZES: [(&str, u16); 2] = [("64", 46), ("1400", 1400)];
    const KINDS: [(&str, TunnelKind, bool, bool); 4] = [
        ("geneve", TunnelKind::Geneve, false, false),
        ("vxlan", TunnelKind::Vxlan, false, false),
        ("geneve-v6-no-checksum", TunnelKind::Geneve, true, false),
        ("geneve-v6", TunnelKind::Geneve, true, true),
    ];
    let size = Size::new(2, 1);
    let uplink = PortId(size.ports);
    let mut scenarios = Vec::new();
    let mut add = |name: String, remote: Option<Remote>, from, frames| {
        scenarios.push(Scenario {
            with: remote.map_or(With::Nothing, With::Tunnel),
            ..Scenario::forwarded(name, size, from, frames)
        });
    };
    let (own, stage) = (vm_ipv4(1, 0), Stage::Tunnel.name());
    for (bytes, len) in SIZES {
        let plain = udp4_of(len, own, vm_ipv4(2, 0), PORTS);
        add(format!("{stage}/plain-{bytes}"), None, VM, vec![plain]);
        for (name, kind, ipv6, checksum) in KINDS {
            let remote = Remote {
                kind,
                ipv6,
                checksum,
                ..Remote::geneve(Remote::PEERS, 1000)
            };
            let frames = flows(remote, |nth| udp4_of(len, own, distant(nth), PORTS));
            let into = format!("{stage}/into-{name}-{bytes}");
            add(into, Some(remote), VM, frames);
            // With checksums the peer would have to compute them: the tests do that.
            if !checksum {
                let frames = flows(remote, |nth| tunnelled(remote, len, nth));
                let out_of = format!("{stage}/out-of-{name}-{bytes}");
                add(out_of, Some(remote), uplink, frames);
            }
        }
    }
    for addresses in [10, 1000, 100_000] {
        let remote = Remote::geneve(Remote::PEERS, addresses);
        let frames = flows(remote, |nth| udp4(own, distant(nth), PORTS));
        let name = format!("{stage}/into-{addresses}-remote-addresses");
        add(name, Some(remote), VM, frames);
    }
    scenarios
}

/// As many of the remote addresses as a burst has frames, spread over all of them.
fn flows(remote: Remote, frame: impl Fn(u32) -> Vec<u8>) -> Vec<Vec<u8>> {
    let step = (remote.addresses / BURST as u32).max(1) as usize;
    (0..remote.addresses)
        .step_by(step)
        .take(BURST)
        .map(frame)
        .collect()
}

/// A switch of one size among several that differ in one dimension.
pub struct Scale {
    /// The dimension.
    pub dimension: &'static str,
    /// The size in that dimension.
    pub count: u32,
    /// Forwarded frames, spread over the whole size as far as a burst reaches.
    pub scenario: Scenario,
}

/// The dimensions that may make a frame more expensive: ports, addresses of a port, addresses that
/// VMs have claimed or leased, receivers of a multicast packet, remote addresses (each a route),
/// peers.
pub fn scale() -> Vec<Scale> {
    let mut all = Vec::new();
    let mut add = |dimension, count: u32, size, with, frames| {
        let name = format!("scale/{dimension}/{count}");
        all.push(Scale {
            dimension,
            count,
            scenario: Scenario {
                with,
                ..Scenario::forwarded(name, size, VM, frames)
            },
        });
    };
    let own = vm_ipv4(1, 0);
    for ports in [1, 2, 4, 8, 16, 32, 64] {
        // To each port in turn; with a single port, to the uplink.
        let destination = |nth: u16| match 2 + nth % ports.max(2) {
            port if port <= ports => vm_ipv4(port, 0),
            _ => EXTERNAL,
        };
        let frames = (0..BURST as u16).map(|nth| udp4(own, destination(nth), PORTS));
        let size = Size::new(ports, 1);
        add(
            "ports",
            u32::from(ports),
            size,
            With::Nothing,
            frames.collect(),
        );
    }
    for addresses in [1, 10, 100, 1000] {
        let frames = (0..BURST as u16).map(|nth| {
            let host = nth * (addresses / BURST as u16).max(1) % addresses;
            udp4(vm_ipv4(1, host), vm_ipv4(2, host), PORTS)
        });
        let (count, size) = (u32::from(addresses), Size::new(2, addresses));
        add("addresses", count, size, With::Nothing, frames.collect());
    }
    // Eight for each VM but the sender, which sends to all of them in turn.
    for addresses in [8, 56, 504] {
        let others = addresses / CLAIMS;
        let frames = (0..BURST as u16).map(|nth| {
            let nth = nth * (addresses / BURST as u16).max(1) % addresses;
            let to = claimed(2 + nth % others, nth / others);
            udp6(&vm_ipv6(1, 0), &to.to_string())
        });
        let (count, size) = (u32::from(addresses), Size::new(others + 1, 1));
        add(
            "claimed addresses",
            count,
            size,
            With::Claims(CLAIMS),
            frames.collect(),
        );
    }
    for addresses in [1, 8, 63] {
        let frames = (0..BURST as u16).map(|nth| udp4(own, vm_ipv4(2 + nth % addresses, 0), PORTS));
        let (count, size) = (u32::from(addresses), Size::new(addresses + 1, 1));
        add(
            "leased addresses",
            count,
            size,
            With::Leases,
            frames.collect(),
        );
    }
    for receivers in [1, 4, 16, 64] {
        let frame = udp4_to_group(own, MDNS);
        let (count, size) = (u32::from(receivers), Size::new(receivers + 1, 1));
        add("receivers", count, size, With::Groups, vec![frame]);
    }
    let mut remote = |dimension, count, remote: Remote| {
        let frames = (0..BURST as u32).map(|nth| {
            let nth = nth * (remote.addresses / BURST as u32).max(1) % remote.addresses;
            udp4(own, distant(nth), PORTS)
        });
        let size = Size::new(2, 1);
        add(
            dimension,
            count,
            size,
            With::Tunnel(remote),
            frames.collect(),
        );
    };
    for routes in [10, 100, 1000, 10_000, 100_000] {
        remote("routes", routes, Remote::geneve(Remote::PEERS, routes));
    }
    for peers in [1, 4, 16, 64, 128] {
        remote("peers", u32::from(peers), Remote::geneve(peers, 1000));
    }
    all
}
