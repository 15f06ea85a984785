//! The pipeline alone, without a device: switches of a given size, and frames of each kind for them.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::bail;
use packet::Frame;
use pipeline::{Generation, Pipeline, PortId, Verdict};
use tenant_config::{MacAddr, PeerConfig, TunnelConfig, TunnelKind, Vni};
use vswitch::dpdk::cycles;

use crate::load::{ATTACK_MARK, ones_complement_sum};
use crate::network::{self, Size, vm_ipv4, vm_ipv6};

/// Frames that one call of [`Run::burst`] decides on.
pub const BURST: usize = 32;

const ROOM: usize = 2048;

/// Frames that are alike but for their addresses, again and again, through one switch.
pub struct Scenario {
    /// What it is, as in `forward-v4/64-ports`.
    pub name: String,
    size: Size,
    tunnel: Option<Remote>,
    /// Where its frames come from.
    from: PortId,
    frames: Vec<Vec<u8>>,
    expected: &'static str,
}

/// A tunnel to so many peers, with so many addresses behind all of them.
#[derive(Debug, Clone, Copy)]
struct Remote {
    kind: TunnelKind,
    ipv6: bool,
    checksum: bool,
    peers: u16,
    addresses: u32,
}

impl Scenario {
    /// Builds the switch.
    pub fn start(&self) -> Run {
        let mut run = Run {
            pipeline: switch(self.size, self.tunnel),
            from: self.from,
            frames: (0..BURST)
                .map(|nth| self.frames[nth % self.frames.len()].clone())
                .collect(),
            buffers: vec![[0; ROOM]; BURST],
            verdicts: Vec::new(),
        };
        run.verdicts = (0..BURST).map(|nth| run.decide(nth)).collect();
        for verdict in &run.verdicts {
            assert_eq!(verdict_name(*verdict), self.expected, "{}", self.name);
        }
        run
    }
}

/// A scenario's switch at work.
pub struct Run {
    pipeline: Pipeline,
    from: PortId,
    /// One for each buffer, all of the same length.
    frames: Vec<Vec<u8>>,
    buffers: Vec<[u8; ROOM]>,
    /// What each frame is to come to.
    verdicts: Vec<Verdict>,
}

impl Run {
    /// Cycles of the time stamp counter that the switch spends on one frame, without the filling of buffers.
    ///
    /// # Panics
    /// If a frame comes to something else than before.
    pub fn cycles_per_frame(&mut self) -> f64 {
        const BURSTS: usize = 500;
        let mut spend = |what: fn(&mut Self) -> usize| {
            let begin = cycles();
            let right: usize = (0..BURSTS).map(|_| what(self)).sum();
            let took = cycles().wrapping_sub(begin);
            assert_eq!(right, BURSTS * BURST, "a verdict was not as expected");
            took as f64 / (BURSTS * BURST) as f64
        };
        let harness = spend(Self::baseline);
        spend(Self::burst) - harness
    }

    fn decide(&mut self, nth: usize) -> Verdict {
        let (buffer, bytes) = (&mut self.buffers[nth], &self.frames[nth]);
        let len = bytes.len();
        buffer[Frame::HEADROOM..Frame::HEADROOM + len].copy_from_slice(bytes);
        let mut frame = Frame::new(buffer, Frame::HEADROOM, len, None);
        self.pipeline.process(1, self.from, &mut frame)
    }

    /// Puts the frame into a burst of buffers and decides on each of them. Returns how many verdicts
    /// were the expected one.
    pub fn burst(&mut self) -> usize {
        let mut right = 0;
        let mut pass = self.pipeline.burst(1, self.from);
        let frames = self.frames.iter().zip(&self.verdicts);
        for (buffer, (bytes, expected)) in self.buffers.iter_mut().zip(frames) {
            let len = bytes.len();
            buffer[Frame::HEADROOM..Frame::HEADROOM + len].copy_from_slice(bytes);
            let mut frame = Frame::new(buffer, Frame::HEADROOM, len, None);
            let verdict = pass.process(&mut frame);
            right += usize::from(verdict == *expected);
        }
        right
    }

    /// The part of [`Self::burst`] that is not the switch's: filling the buffers.
    pub fn baseline(&mut self) -> usize {
        let mut right = 0;
        let frames = self.frames.iter().zip(&self.verdicts);
        for (buffer, (bytes, expected)) in self.buffers.iter_mut().zip(frames) {
            let len = bytes.len();
            buffer[Frame::HEADROOM..Frame::HEADROOM + len].copy_from_slice(bytes);
            let frame = Frame::new(buffer, Frame::HEADROOM, len, None);
            let verdict = std::hint::black_box(*expected);
            right += usize::from(verdict == *expected);
            std::hint::black_box(&frame);
        }
        right
    }
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forward(_) => "forward",
        Verdict::Reply => "reply",
        Verdict::Drop(reason) | Verdict::DropWithError(reason) => reason.name(),
    }
}

/// The switch of a tenant of that size, whose next hops have answered.
fn switch(size: Size, tunnel: Option<Remote>) -> Pipeline {
    let mut config = network::tenant(0, size);
    config.tunnel = tunnel.map(|remote| tunnel_config(config.vni, remote));
    if let (Some(uplink), Some(_)) = (&mut config.uplink, tunnel) {
        uplink.mtu = 1600;
    }
    let mut pipeline = Pipeline::new(Generation::build(&config, None));
    pipeline.assume_next_hops(
        0,
        MacAddr::new(network::NEXT_HOP_MAC).expect("a unicast MAC"),
    );
    pipeline
}

/// Our endpoint and a peer's.
fn vtep(ipv6: bool, peer: u16) -> IpAddr {
    let text = match ipv6 {
        false => format!("192.0.2.{}", peer + 2),
        true => format!("2001:db8::{}", peer + 2),
    };
    text.parse().expect("an address")
}

/// Where their number is not what is measured.
const PEERS: u16 = 16;

fn tunnel_config(vni: Vni, remote: Remote) -> TunnelConfig {
    let own = vtep(remote.ipv6, 0);
    let peer = |number: u16| PeerConfig {
        name: format!("host{number}").parse().expect("a name"),
        vtep: vtep(remote.ipv6, number),
        mac: MacAddr::of_vtep(vni, vtep(remote.ipv6, number)),
        next_hop: vtep(remote.ipv6, number),
        prefixes: (u32::from(number) - 1..remote.addresses)
            .step_by(usize::from(remote.peers))
            .map(|nth| IpAddr::from(distant(nth)).into())
            .collect(),
    };
    TunnelConfig {
        udp_checksum: remote.checksum,
        peers: (1..=remote.peers).map(peer).collect(),
        ..TunnelConfig::new(remote.kind, vni, own)
    }
}

/// An address behind a peer.
fn distant(nth: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 200, 0, 0).to_bits() + nth)
}

/// Of the VM that all frames are from.
fn vm_mac() -> [u8; 6] {
    network::vm_mac(0, 1).octets()
}

/// Of the switch, at the underlay.
fn uplink_mac() -> [u8; 6] {
    MacAddr::of_switch_function(vni(), 0).octets()
}

fn vni() -> Vni {
    Vni::new(5001).expect("a VNI")
}

fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

/// A 60-byte frame (64 with the frame check sequence) with UDP over IPv4.
fn udp4(source: Ipv4Addr, destination: Ipv4Addr, ports: (u16, u16)) -> Vec<u8> {
    udp4_of(46, source, destination, ports)
}

/// The same with an IP packet of `len` bytes.
fn udp4_of(len: u16, source: Ipv4Addr, destination: Ipv4Addr, ports: (u16, u16)) -> Vec<u8> {
    let mut frame = ethernet([2, 0, 0, 0, 0, 1], vm_mac(), 0x0800);
    let mut header = [
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let check = !ones_complement_sum(&header);
    header[10..12].copy_from_slice(&check.to_be_bytes());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(&ports.0.to_be_bytes());
    frame.extend_from_slice(&ports.1.to_be_bytes());
    frame.extend_from_slice(&(len - 20).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.resize(14 + usize::from(len), 0);
    frame
}

/// What a peer's switch makes of a packet of its VM's to ours: the frame as it leaves the other end of the tunnel.
fn carried(remote: Remote, len: u16, nth: u32) -> Vec<u8> {
    let vni = vni();
    let number = 1 + (nth % u32::from(remote.peers)) as u16;
    let (own, peer) = (vtep(remote.ipv6, 0), vtep(remote.ipv6, number));
    let mut inner = udp4_of(len, distant(nth), vm_ipv4(1, 0), (12345, 80));
    inner[..6].copy_from_slice(&MacAddr::of_vtep(vni, own).octets());
    inner[6..12].copy_from_slice(&MacAddr::of_vtep(vni, peer).octets());
    let datagram = 16 + inner.len() as u16;
    let to = uplink_mac();
    let mut frame = match (peer, own) {
        (IpAddr::V4(peer), IpAddr::V4(own)) => {
            let mut frame = udp4_of(20 + datagram, peer, own, (0xc000, 0));
            frame[..6].copy_from_slice(&to);
            frame.truncate(34);
            frame
        }
        (peer, own) => {
            let mut frame = udp6(&peer.to_string(), &own.to_string());
            frame[..6].copy_from_slice(&to);
            frame[18..20].copy_from_slice(&datagram.to_be_bytes());
            frame.truncate(54);
            frame
        }
    };
    frame.extend_from_slice(&0xc000u16.to_be_bytes());
    frame.extend_from_slice(&remote.kind.default_port().to_be_bytes());
    frame.extend_from_slice(&datagram.to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(match remote.kind {
        TunnelKind::Vxlan => &[8, 0, 0, 0],
        TunnelKind::Geneve => &[0, 0, 0x65, 0x58],
    });
    frame.extend_from_slice(&(vni.get() << 8).to_be_bytes());
    frame.extend_from_slice(&inner);
    frame
}

fn udp6(source: &str, destination: &str) -> Vec<u8> {
    let octets = |text: &str| {
        let address: std::net::Ipv6Addr = text.parse().expect("an address");
        address.octets()
    };
    let mut frame = ethernet([2, 0, 0, 0, 0, 1], vm_mac(), 0x86dd);
    frame.extend_from_slice(&[0x60, 0, 0, 0, 0, 8, 17, 64]);
    frame.extend_from_slice(&octets(source));
    frame.extend_from_slice(&octets(destination));
    frame.extend_from_slice(&[0x30, 0x39, 0, 80, 0, 8, 0, 0]);
    frame
}

fn arp(opcode: u8, sender_mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet([0xff; 6], vm_mac(), 0x0806);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, opcode]);
    frame.extend_from_slice(&sender_mac);
    frame.extend_from_slice(&sender.octets());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&target.octets());
    frame.resize(60, 0);
    frame
}

/// Every scenario, in the order of the report.
pub fn scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    let mut add = |name: &str, from, ports: u16, addresses: u16, frames: Vec<Vec<u8>>, expected| {
        scenarios.push(Scenario {
            name: format!("{name}/{ports}-ports-{addresses}-addresses"),
            size: Size::new(ports, addresses),
            tunnel: None,
            from: PortId(from),
            frames,
            expected,
        });
    };
    let outside = Ipv4Addr::new(198, 51, 100, 10);
    // As many addresses of the port as there are, up to a burst's worth, spread over all of them.
    let hosts = |addresses: u16| {
        let step = (addresses / BURST as u16).max(1);
        (0..addresses).rev().step_by(usize::from(step)).take(BURST)
    };
    for (ports, addresses) in [(1, 1), (1, 1000), (64, 1), (64, 1000)] {
        let frame = |host| udp4(vm_ipv4(1, host), outside, (12345, 80));
        add(
            "v4-to-uplink",
            0,
            ports,
            addresses,
            hosts(addresses).map(frame).collect(),
            "forward",
        );
    }
    for (ports, addresses) in [(2, 1), (2, 1000), (64, 1), (64, 1000)] {
        let frame = |host| udp4(vm_ipv4(1, host), vm_ipv4(ports, host), (12345, 80));
        add(
            "v4-port-to-port",
            0,
            ports,
            addresses,
            hosts(addresses).map(frame).collect(),
            "forward",
        );
        let frame = |host| udp6(&vm_ipv6(1, host), &vm_ipv6(ports, host));
        add(
            "v6-port-to-port",
            0,
            ports,
            addresses,
            hosts(addresses).map(frame).collect(),
            "forward",
        );
    }
    for (ports, addresses) in [(1, 1), (64, 1000)] {
        let frame = |host| {
            let mut frame = udp4(outside, vm_ipv4(1, host), (12345, 80));
            frame[..6].copy_from_slice(&uplink_mac());
            frame[6..12].copy_from_slice(&network::NEXT_HOP_MAC);
            frame
        };
        add(
            "v4-from-uplink",
            ports,
            ports,
            addresses,
            hosts(addresses).map(frame).collect(),
            "forward",
        );
    }
    let (own, gateway) = (vm_ipv4(1, 0), Ipv4Addr::new(10, 0, 0, 1));
    add(
        "arp-answered",
        0,
        2,
        1,
        vec![arp(1, vm_mac(), own, gateway)],
        "reply",
    );
    scenarios.extend(refused().into_iter().map(|(reason, frame)| Scenario {
        name: format!("drop/{reason}"),
        size: Size::new(2, 1),
        tunnel: None,
        from: PortId(0),
        frames: vec![frame],
        expected: reason,
    }));
    scenarios.extend(tunnel_scenarios());
    scenarios
}

/// Frames that the first VM of a tenant of two must not send, each with the reason that it is refused for.
fn refused() -> Vec<(&'static str, Vec<u8>)> {
    let (own, other) = (vm_ipv4(1, 0), vm_ipv4(2, 0));
    let gateway = Ipv4Addr::new(10, 0, 0, 1);
    let changed = |at: usize, value: u8| {
        let mut frame = udp4(own, other, (12345, 80));
        frame[at] = value;
        frame
    };
    let to = |destination| udp4(own, destination, (12345, 80));
    vec![
        ("malformed", vec![0; 8]),
        ("src-mac-group", changed(6, 0x53)),
        ("src-mac", changed(11, 9)),
        ("vlan-tag", changed(12, 0x81)),
        ("llc", changed(12, 0x00)),
        ("ethertype", changed(13, 0x01)),
        ("ipv4-malformed", changed(15, 1)),
        ("ipv4-source", udp4(other, other, (12345, 80))),
        ("ipv4-martian", to(Ipv4Addr::LOCALHOST)),
        ("dhcp-server", udp4(own, other, (67, 68))),
        ("encapsulation", udp4(own, other, (12345, 3544))),
        (
            "multicast",
            udp4(own, Ipv4Addr::new(224, 0, 0, 251), (5353, 5353)),
        ),
        ("underlay", to(Ipv4Addr::new(192, 0, 2, 9))),
        ("arp-sender-ip", arp(2, vm_mac(), gateway, own)),
        ("arp-sender-mac", arp(1, [2; 6], own, gateway)),
        ("ipv6-source", udp6(&vm_ipv6(2, 0), &vm_ipv6(2, 0))),
    ]
}

/// The same as attacks on a switch that runs, marked so that the load knows them where they must not come out. Without what is
/// no frame at all.
pub fn attacks() -> Vec<Vec<u8>> {
    let mark = |(_, mut frame): (_, Vec<u8>)| {
        let end = frame.len();
        frame[end - ATTACK_MARK.len()..].copy_from_slice(&ATTACK_MARK);
        frame
    };
    refused()
        .into_iter()
        .filter(|(_, frame)| frame.len() >= 60)
        .map(mark)
        .collect()
}

/// The same with as many broadcasts, which a switch must answer or refuse.
pub fn flood() -> Vec<Vec<u8>> {
    let mut broadcast = udp4(vm_ipv4(1, 0), Ipv4Addr::BROADCAST, (12345, 80));
    broadcast[..6].copy_from_slice(&[0xff; 6]);
    let end = broadcast.len();
    broadcast[end - ATTACK_MARK.len()..].copy_from_slice(&ATTACK_MARK);
    attacks()
        .into_iter()
        .flat_map(|attack| [attack, broadcast.clone()])
        .collect()
}

/// Into the tunnel and out of it, beside the same packets from port to port.
fn tunnel_scenarios() -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    let mut add = |name: String, remote: Option<Remote>, from: u16, frames: Vec<Vec<u8>>| {
        scenarios.push(Scenario {
            name,
            size: Size::new(2, 1),
            tunnel: remote,
            from: PortId(from),
            frames,
            expected: "forward",
        });
    };
    let (own, sibling) = (vm_ipv4(1, 0), vm_ipv4(2, 0));
    let flows = |frame: &dyn Fn(u32) -> Vec<u8>, of: u32| -> Vec<Vec<u8>> {
        let step = (of / BURST as u32).max(1) as usize;
        (0..of).step_by(step).take(BURST).map(frame).collect()
    };
    const SIZES: [(&str, u16); 2] = [("64", 46), ("1400", 1400)];
    for (bytes, len) in SIZES {
        add(
            format!("tunnel/plain-{bytes}"),
            None,
            0,
            vec![udp4_of(len, own, sibling, (12345, 80))],
        );
        for (name, kind, ipv6, checksum) in [
            ("geneve", TunnelKind::Geneve, false, false),
            ("vxlan", TunnelKind::Vxlan, false, false),
            ("geneve-v6-no-checksum", TunnelKind::Geneve, true, false),
            ("geneve-v6", TunnelKind::Geneve, true, true),
        ] {
            let remote = Remote {
                kind,
                ipv6,
                checksum,
                peers: PEERS,
                addresses: 1000,
            };
            let into = |nth| udp4_of(len, own, distant(nth), (12345, 80));
            add(
                format!("tunnel/into-{name}-{bytes}"),
                Some(remote),
                0,
                flows(&into, remote.addresses),
            );
            // One that demands checksums is fed by a peer that computes them: that is the tests'.
            if !checksum {
                let out = |nth| carried(remote, len, nth);
                add(
                    format!("tunnel/out-of-{name}-{bytes}"),
                    Some(remote),
                    2,
                    flows(&out, remote.addresses),
                );
            }
        }
    }
    for addresses in [10, 1000, 100_000] {
        let remote = Remote {
            kind: TunnelKind::Geneve,
            ipv6: false,
            checksum: false,
            peers: PEERS,
            addresses,
        };
        let into = |nth| udp4_of(46, own, distant(nth), (12345, 80));
        add(
            format!("tunnel/into-{addresses}-remote-addresses"),
            Some(remote),
            0,
            flows(&into, addresses),
        );
    }
    scenarios
}

/// Those stages whose names begin with one of `only`; all if there is none.
///
/// # Errors
/// If that is nothing.
pub fn chosen<T>(
    mut stages: Vec<T>,
    name: impl Fn(&T) -> &str,
    only: &[String],
) -> anyhow::Result<Vec<T>> {
    let begins = |stage: &T| only.iter().any(|prefix| name(stage).starts_with(prefix));
    stages.retain(|stage| only.is_empty() || begins(stage));
    if stages.is_empty() {
        bail!(
            "no stage's name begins with {}: bench list names all",
            only.join(" or ")
        );
    }
    Ok(stages)
}

/// One size of a switch, of those that differ in one respect.
pub struct Scale {
    /// In which respect.
    pub dimension: &'static str,
    /// How many there are.
    pub count: u32,
    /// Frames that are forwarded, spread over all of them as far as a burst reaches.
    pub scenario: Scenario,
}

/// What a frame may cost more the more there is of something: ports, addresses of a port, remote addresses (each a route),
/// peers.
pub fn scale() -> Vec<Scale> {
    let mut all = Vec::new();
    let mut add = |dimension, count: u32, size, tunnel, frames: Vec<Vec<u8>>| {
        all.push(Scale {
            dimension,
            count,
            scenario: Scenario {
                name: format!("scale/{dimension}/{count}"),
                size,
                tunnel,
                from: PortId(0),
                frames,
                expected: "forward",
            },
        });
    };
    for ports in [1, 2, 4, 8, 16, 32, 64] {
        // To every port in turn; of a single one, out.
        let to = |nth: u16| match 2 + nth % ports.max(2) {
            port if port <= ports => vm_ipv4(port, 0),
            _ => Ipv4Addr::new(198, 51, 100, 10),
        };
        let frames = (0..BURST as u16).map(|nth| udp4(vm_ipv4(1, 0), to(nth), (12345, 80)));
        let size = Size::new(ports, 1);
        add("ports", u32::from(ports), size, None, frames.collect());
    }
    for addresses in [1, 10, 100, 1000] {
        let frames = (0..BURST as u16).map(|nth| {
            let host = nth * (addresses / BURST as u16).max(1) % addresses;
            udp4(vm_ipv4(1, host), vm_ipv4(2, host), (12345, 80))
        });
        let size = Size::new(2, addresses);
        add(
            "addresses",
            u32::from(addresses),
            size,
            None,
            frames.collect(),
        );
    }
    let size = Size::new(2, 1);
    let mut remote = |dimension, count, remote: Remote| {
        let frames = (0..BURST as u32).map(|nth| {
            let nth = nth * (remote.addresses / BURST as u32).max(1) % remote.addresses;
            udp4(vm_ipv4(1, 0), distant(nth), (12345, 80))
        });
        add(dimension, count, size, Some(remote), frames.collect());
    };
    let geneve = |peers, addresses| Remote {
        kind: TunnelKind::Geneve,
        ipv6: false,
        checksum: false,
        peers,
        addresses,
    };
    for routes in [10, 100, 1000, 10_000, 100_000] {
        remote("routes", routes, geneve(PEERS, routes));
    }
    for peers in [1, 4, 16, 64, 128] {
        remote("peers", u32::from(peers), geneve(peers, 1000));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_measures_what_it_names() {
        let scale = scale().into_iter().map(|scale| scale.scenario);
        for scenario in scenarios().into_iter().chain(scale) {
            let mut run = scenario.start();
            assert_eq!(run.burst(), BURST, "{}", scenario.name);
            assert_eq!(run.burst(), BURST, "{} again", scenario.name);
        }
    }
}
