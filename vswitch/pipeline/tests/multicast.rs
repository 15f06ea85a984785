//! Members of groups, over time and over two switches: what reports change, what the switch asks by
//! the clock, and what it tells the switch of another host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use packet::wire::membership::{self, Change};
use packet::wire::{ETHERNET_LEN, ipv4, ipv6};
use packet::{DropReason, Frame, addr};
use pipeline::{Generation, Pipeline, PortId, Verdict};
use serde_json::{Value, json};
use tenant_config::{MacAddr, SwitchConfig, Vni};

const SECOND_NS: u64 = 1_000_000_000;
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 192, 1, 1);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 7);

/// One host's switch.
struct Host {
    pipeline: Pipeline,
    number: u8,
    ports: usize,
    now_ns: u64,
}

/// A frame and the port that it leaves by.
type Left = (usize, Vec<u8>);

fn vtep(host: u8) -> String {
    format!("192.0.2.{host}")
}

fn of_vtep(host: u8) -> MacAddr {
    let address = vtep(host).parse().expect("an address");
    MacAddr::of_vtep(Vni::new(5001).expect("a VNI"), address)
}

/// The address of a VM: host 1 has 10.0.1.1 and on.
fn vm4(host: u8, port: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, host, port as u8 + 1)
}

fn vm_mac(host: u8, port: usize) -> [u8; 6] {
    [0x52, 0x54, 0, 0, host, port as u8]
}

fn config(number: u8, ports: usize, peers: &[u8], multicast: &Value) -> SwitchConfig {
    let port = |port: usize| {
        json!({
            "name": format!("vm{port}"),
            "device": { "driver": "offline" },
            "gateway_mac": format!("02:00:13:89:{number:02x}:{port:02x}"),
            "mac": format!("52:54:00:00:{number:02x}:{port:02x}"),
            "addresses": [format!("{}/32", vm4(number, port))],
        })
    };
    let peer = |peer: &u8| {
        json!({
            "name": format!("host-{peer}"),
            "vtep": vtep(*peer),
            "mac": of_vtep(*peer),
            "next_hop": vtep(*peer),
            "prefixes": [format!("10.0.{peer}.0/24")],
        })
    };
    let mut config = json!({
        "tenant": "red",
        "vni": 5001,
        "gateway": { "ipv4": "10.0.0.1/16", "ipv6": "fd00::1/64" },
        "ports": (0..ports).map(port).collect::<Vec<_>>(),
        "multicast": multicast,
    });
    if !peers.is_empty() {
        config["uplink"] = json!({
            "device": { "driver": "offline" },
            "mac": format!("02:00:00:00:00:{number:02x}"),
            "ipv4": format!("{}/24", vtep(number)),
            "mtu": 1600,
        });
        config["tunnel"] = json!({
            "kind": "geneve",
            "vtep": vtep(number),
            "port": 6081,
            "mac": of_vtep(number),
            "udp_checksum": false,
            "peers": peers.iter().map(peer).collect::<Vec<_>>(),
        });
    }
    SwitchConfig::from_json("test", &config.to_string()).expect("a configuration")
}

impl Host {
    fn new(number: u8, ports: usize, peers: &[u8], multicast: &Value) -> Self {
        let config = config(number, ports, peers, multicast);
        let mut pipeline = Pipeline::new(Generation::build(&config, None));
        let router = MacAddr::new([2, 0, 0, 0, 0, 0xfe]).expect("a MAC");
        pipeline.assume_next_hops(0, router);
        Self {
            pipeline,
            number,
            ports,
            now_ns: 1,
        }
    }

    fn process(&mut self, from: usize, bytes: &[u8]) -> Result<Vec<Left>, DropReason> {
        let mut buffer = vec![0xee; Frame::HEADROOM];
        buffer.extend(bytes);
        buffer.extend([0xee; 200]);
        let mut frame = Frame::new(&mut buffer, Frame::HEADROOM, bytes.len(), None);
        let port = PortId(from as u16);
        let verdict = self.pipeline.process(self.now_ns, port, &mut frame);
        let became = frame.bytes().to_vec();
        match verdict {
            Verdict::Forward(to) => Ok(vec![(to.index(), became)]),
            Verdict::Copies => {
                let mut left = Vec::new();
                let mut emit = |to: PortId, copy: &[u8]| left.push((to.index(), copy.to_vec()));
                let at = (self.now_ns, port);
                self.pipeline.send_copies(at, &became, &mut emit);
                Ok(left)
            }
            Verdict::Drop(reason) | Verdict::DropWithError(reason) => Err(reason),
            Verdict::Reply => panic!("an answer"),
        }
    }

    fn poll(&mut self) -> Vec<Left> {
        let mut left = Vec::new();
        let mut emit = |to: PortId, bytes: &[u8]| left.push((to.index(), bytes.to_vec()));
        self.pipeline.poll(self.now_ns, &mut emit);
        left
    }

    /// Lets time pass; hands back the queries and reports of that time.
    fn wait(&mut self, seconds: u64) -> Vec<Left> {
        let mut left = Vec::new();
        for _ in 0..seconds * 10 {
            self.now_ns += SECOND_NS / 10;
            let router = MacAddr::new([2, 0, 0, 0, 0, 0xfe]).expect("a MAC");
            self.pipeline.assume_next_hops(self.now_ns, router);
            left.extend(self.poll());
        }
        left.retain(|(_, bytes)| query_of(bytes).is_some() || is_tunnelled(bytes));
        left
    }

    /// A VM's report, as it takes it: consumed.
    fn report(&mut self, port: usize, change: Change) {
        let mut bytes = [0; membership::FRAME_MAX];
        let mac = vm_mac(self.number, port);
        let len = membership::igmp_report(&mut bytes, mac, &[(GROUP.to_bits(), change)]);
        // From its address, which a switch's report lacks.
        let ip = &mut bytes[ETHERNET_LEN..];
        ip[12..16].copy_from_slice(&vm4(self.number, port).octets());
        ip[10..12].fill(0);
        let sum = packet::wire::checksum::sum(&ip[..24]);
        ip[10..12].copy_from_slice(&(!packet::wire::checksum::folded(sum)).to_ne_bytes());
        assert_eq!(self.process(port, &bytes[..len]), Err(DropReason::Absorbed));
    }

    fn report6(&mut self, port: usize, change: Change) {
        let mut bytes = [0; membership::FRAME_MAX];
        let mac = vm_mac(self.number, port);
        let own = (mac, addr::link_local6(mac));
        let len = membership::mld_report(&mut bytes, own, &[(GROUP6.to_bits(), change)]);
        assert_eq!(self.process(port, &bytes[..len]), Err(DropReason::Absorbed));
    }

    /// A UDP packet of a VM to a group.
    fn packet(&self, port: usize, to: IpAddr) -> Vec<u8> {
        let mac = vm_mac(self.number, port);
        let payload = [0x10, 0, 0x20, 0, 0, 12, 0, 0, 1, 2, 3, 4];
        let mut bytes = Vec::new();
        match to {
            IpAddr::V4(to) => {
                bytes.extend(addr::group_mac4(to.to_bits()));
                bytes.extend(mac);
                bytes.extend([8, 0, 0x45, 0, 0, 32, 0, 0, 0, 0, 1, 17, 0, 0]);
                bytes.extend(vm4(self.number, port).octets());
                bytes.extend(to.octets());
                let head = bytes[ETHERNET_LEN..].first_chunk().expect("a header");
                let sum = ipv4::plain_checksum(head).to_ne_bytes();
                bytes[24..26].copy_from_slice(&sum);
            }
            IpAddr::V6(to) => {
                bytes.extend(addr::group_mac(to.to_bits()));
                bytes.extend(mac);
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 12, 17, 1]);
                bytes.extend(addr::link_local6(mac).to_be_bytes());
                bytes.extend(to.octets());
            }
        }
        bytes.extend(payload);
        bytes
    }

    fn send(&mut self, port: usize, to: impl Into<IpAddr>) -> Result<Vec<usize>, DropReason> {
        let packet = self.packet(port, to.into());
        let left = self.process(port, &packet)?;
        Ok(left.into_iter().map(|(to, _)| to).collect())
    }

    /// What the other host's frames are here; they came over the wire.
    fn receive(&mut self, frames: &[Left]) -> Vec<Result<Vec<Left>, DropReason>> {
        let to = [2, 0, 0, 0, 0, self.number];
        let of_wire = frames.iter().filter(|(_, bytes)| is_tunnelled(bytes));
        let arrived: Vec<Vec<u8>> = of_wire
            .map(|(_, bytes)| [&to, &bytes[6..]].concat())
            .collect();
        arrived
            .iter()
            .map(|bytes| self.process(self.ports, bytes))
            .collect()
    }
}

/// The group of a query, 0 for all.
fn query_of(frame: &[u8]) -> Option<u128> {
    let packet = &frame[ETHERNET_LEN..];
    match ipv4::parse(packet) {
        Ok(ip) if ip.igmp_type() == Some(0x11) => {
            let group = ip.payload(packet)[4..8].try_into().expect("four bytes");
            let group = u32::from_be_bytes(group);
            return Some(if group == 0 { 0 } else { addr::mapped4(group) });
        }
        _ => {}
    }
    let ip = ipv6::parse(packet).ok()?;
    let group = ip.payload(packet).get(8..24)?.try_into().ok()?;
    (ip.icmp_type() == Some(130)).then(|| u128::from_be_bytes(group))
}

fn is_tunnelled(frame: &[u8]) -> bool {
    let ip = ipv4::parse(&frame[ETHERNET_LEN..]);
    ip.is_ok_and(|ip| ip.udp().is_some_and(|(_, to)| to == 6081))
}

fn groups() -> Value {
    json!({ "groups": ["239.192.0.0/16", "224.0.0.18/32", "ff05::/16"] })
}

const NO_MEMBER: Result<Vec<usize>, DropReason> = Err(DropReason::NoMember);

#[test]
fn member_is_believed_for_260_seconds() {
    let mut host = Host::new(1, 3, &[], &groups());
    assert_eq!(host.send(0, GROUP), NO_MEMBER);
    host.report(1, Change::Join);
    assert_eq!(host.send(0, GROUP), Ok(vec![1]));
    assert_eq!(host.send(1, GROUP), NO_MEMBER, "never back to the sender");
    host.wait(200);
    host.report(2, Change::Join);
    assert_eq!(host.send(0, GROUP), Ok(vec![1, 2]));
    host.wait(59);
    assert_eq!(host.send(0, GROUP), Ok(vec![1, 2]));
    host.wait(2);
    assert_eq!(host.send(0, GROUP), Ok(vec![2]));
}

#[test]
fn leave_is_asked_about_and_ends_after_two_seconds() {
    let mut host = Host::new(1, 2, &[], &groups());
    host.wait(60);
    host.report(1, Change::Join);
    host.report6(1, Change::Join);
    assert_eq!(host.send(0, GROUP6), Ok(vec![1]));
    host.report(1, Change::Leave);
    host.report6(1, Change::Leave);
    let asked = host.wait(1);
    let asked: Vec<_> = asked
        .iter()
        .map(|(port, bytes)| (*port, query_of(bytes)))
        .collect();
    let mapped = Some(addr::mapped4(GROUP.to_bits()));
    assert_eq!(asked, [(1, mapped), (1, Some(GROUP6.to_bits()))]);
    assert_eq!(host.send(0, GROUP), Ok(vec![1]));
    // Another station behind the port still listens to one of them.
    host.report(1, Change::Join);
    let again: Vec<_> = host.wait(2).iter().map(|it| query_of(&it.1)).collect();
    assert_eq!(again, [Some(GROUP6.to_bits())]);
    assert_eq!(host.send(0, GROUP), Ok(vec![1]));
    assert_eq!(host.send(0, GROUP6), NO_MEMBER);
}

#[test]
fn ports_are_asked_twice_early_and_then_by_the_interval() {
    let mut host = Host::new(1, 2, &[], &groups());
    let mut times = Vec::new();
    for second in 0..300 {
        let asked = host.wait(1);
        if !asked.is_empty() {
            // Of each family at each port.
            assert_eq!(asked.len(), 4);
            assert!(asked.iter().all(|(_, bytes)| query_of(bytes) == Some(0)));
            times.push(second);
        }
    }
    assert_eq!(times, [0, 31, 156, 281]);
    // Where no more than groups of the link are allowed, nothing needs to be known.
    let link = json!({ "groups": ["224.0.0.18/32", "ff02::12/128"] });
    assert_eq!(Host::new(1, 2, &[], &link).wait(200), []);
    assert_ne!(Host::new(1, 2, &[2], &link).wait(200), []);
}

#[test]
fn port_has_at_most_64_groups() {
    let mut host = Host::new(1, 2, &[], &groups());
    for number in 0..70_u32 {
        let mut bytes = [0; membership::FRAME_MAX];
        let mac = vm_mac(1, 1);
        let group = 0xff05 << 112 | u128::from(number);
        let own = (mac, addr::link_local6(mac));
        let len = membership::mld_report(&mut bytes, own, &[(group, Change::Join)]);
        let _ = host.process(1, &bytes[..len]);
    }
    host.poll();
    let counters = host.pipeline.counters();
    let port = counters.port(1);
    assert_eq!((port.groups.get(), port.refused_joins.get()), (64, 6));
}

#[test]
fn one_frame_reaches_64_receivers_once_each() {
    let mut host = Host::new(1, 65, &[], &groups());
    let vrrp = Ipv4Addr::new(224, 0, 0, 18);
    let packet = host.packet(7, vrrp.into());
    let left = host.process(7, &packet).expect("copies");
    let to: Vec<usize> = left.iter().map(|(to, _)| *to).collect();
    let others: Vec<usize> = (0..65).filter(|port| *port != 7).collect();
    assert_eq!(to, others);
    for (to, bytes) in &left {
        assert_eq!(bytes[..6], packet[..6], "the group's MAC stays");
        assert_eq!(bytes[6..12], [2, 0, 0x13, 0x89, 1, *to as u8]);
        assert_eq!(bytes[12..], packet[12..]);
    }
    assert_eq!(host.pipeline.counters().port(7).copies.get(), 64);
}

#[test]
fn sender_and_receivers_are_limited() {
    let mut config = config(1, 3, &[], &groups());
    config.ports[0].limits.multicast_pps = Some(4);
    config.ports[2].limits.multicast_pps = Some(2);
    let mut host = Host::new(1, 3, &[], &groups());
    host.pipeline = Pipeline::new(Generation::build(&config, None));
    let vrrp = Ipv4Addr::new(224, 0, 0, 18);
    let sent: Vec<_> = (0..6).map(|_| host.send(0, vrrp)).collect();
    let over = Err(DropReason::RateMulticast);
    let both = || Ok(vec![1, 2]);
    let one = || Ok(vec![1]);
    assert_eq!(sent, [both(), both(), one(), one(), over.clone(), over]);
    let counters = host.pipeline.counters();
    assert_eq!(counters.port(2).unsent.get(), 2);
    let limited = DropReason::RateMulticast;
    assert_eq!(counters.port(2).drops(limited).get(), 2);
    // A second later a token for each quarter of it.
    host.wait(1);
    assert_eq!(host.send(0, vrrp), both());
}

/// Reports of one host's ports reach the other host's switch, and then its packets the ports.
#[test]
fn groups_reach_members_at_a_peer() {
    let mut here = Host::new(1, 2, &[2], &groups());
    let mut there = Host::new(2, 2, &[1], &groups());
    let uplink = 2;
    for (join, to) in [(true, IpAddr::from(GROUP)), (false, IpAddr::from(GROUP6))] {
        assert_eq!(here.send(0, to), NO_MEMBER);
        match join {
            true => there.report(1, Change::Join),
            false => there.report6(1, Change::Join),
        }
        let told = there.wait(1);
        let heard = here.receive(&told);
        assert!(heard.iter().all(|it| *it == Err(DropReason::Absorbed)));
        assert!(!heard.is_empty());
        let packet = here.packet(0, to);
        let left = here.process(0, &packet).expect("a member");
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0, uplink);
        let [Ok(arrived)] = &there.receive(&left)[..] else {
            panic!("the packet does not arrive");
        };
        let [(1, bytes)] = &arrived[..] else {
            panic!("not to the member alone: {arrived:?}");
        };
        assert_eq!(bytes[..6], packet[..6]);
        assert_eq!(bytes[6..12], [2, 0, 0x13, 0x89, 2, 1]);
        assert_eq!(bytes[12..], packet[12..]);
    }
    // A member at home as well.
    here.report(1, Change::Join);
    assert_eq!(here.send(0, GROUP), Ok(vec![1, uplink]));
    // What came from a peer never goes on to one.
    let packet = there.packet(0, GROUP.into());
    here.wait(1);
    there.receive(&here.wait(2));
    let left = there.process(0, &packet).expect("members");
    assert_eq!(left.iter().map(|it| it.0).collect::<Vec<_>>(), [1, uplink]);
    let back = here.receive(&left);
    let ports = back[0].as_ref().map(|left| left[0].0);
    assert_eq!((back.len(), ports), (1, Ok(1)));
    // The last member leaves; its host says so.
    there.report(1, Change::Leave);
    here.receive(&there.wait(4));
    assert_eq!(here.send(0, GROUP), Ok(vec![1]));
    // Without a word, a peer is forgotten.
    assert_eq!(here.send(0, GROUP6), Ok(vec![uplink]));
    here.wait(261);
    assert_eq!(here.send(0, GROUP6), NO_MEMBER);
}

#[test]
fn reload_keeps_members_of_allowed_groups() {
    let mut host = Host::new(1, 2, &[], &groups());
    host.report(1, Change::Join);
    host.report6(1, Change::Join);
    let tables = host.pipeline.tables();
    let counters = host.pipeline.counters();
    let only4 = config(1, 2, &[], &json!({ "groups": "any" }));
    let generation = Generation::build(&only4, Some((&tables, &counters)));
    drop(host.pipeline.install(generation));
    assert_eq!(host.send(0, GROUP), Ok(vec![1]));
    let fewer = config(1, 2, &[], &json!({ "groups": ["239.192.0.0/16"] }));
    let (tables, counters) = (host.pipeline.tables(), host.pipeline.counters());
    let generation = Generation::build(&fewer, Some((&tables, &counters)));
    drop(host.pipeline.install(generation));
    assert_eq!(host.send(0, GROUP), Ok(vec![1]));
    assert_eq!(host.send(0, GROUP6), Err(DropReason::Multicast));
}
