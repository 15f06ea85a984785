//! What a new configuration keeps: counters, and what the worker remembers of ports, next hops and
//! endpoints that both configurations have.

mod oracle;

use oracle::configs;
use oracle::frames::*;
use oracle::rows::{EXTERNAL, GW, IP1, IP2, ROUTER, VM1};
use oracle::trial::{SECOND_NS, Switch};
use oracle::tunnel_frames::{quote_of, report, tunnel};
use oracle::tunnel_rows::{B, OUT, away};
use pipeline::{DropReason, PortId, Verdict};
use tenant_config::{IpsecSuite, MacAddr, SwitchConfig};

const UPLINK: Verdict = Verdict::Forward(PortId(OUT as u16));

/// A packet of vm1 to a VM behind host B, so long.
fn to_host_b(length: usize) -> Vec<u8> {
    let packet = V4 {
        payload: udp(1, 2, &vec![0; length - 28]),
        ..away()
    };
    ethernet(GW, VM1, IPV4, &packet.bytes())
}

/// The tunnel's switch, which knows its next hops, and a path MTU of 20 bytes less to host B.
fn narrowed() -> (SwitchConfig, Switch, usize) {
    let config = configs::geneve();
    let tunnel = tunnel(&config);
    let mtu = config.uplink.as_ref().expect("an uplink").mtu - 20;
    let mut switch = Switch::new(&config, 0xee);
    switch.resolve(0);
    let largest = usize::from(mtu + 20 - tunnel.overhead());
    let (_, left) = switch.process(1, 0, &to_host_b(largest), None);
    let report = report(&config, 0, mtu.into(), &quote_of(&left));
    let taken = switch.process(1, OUT, &report, None).0;
    assert_eq!(taken, Verdict::Drop(DropReason::Absorbed));
    let max_len = usize::from(mtu - tunnel.overhead());
    (config, switch, max_len)
}

fn has_path_mtu(switch: &mut Switch, max_len: usize) {
    let fits = switch.process(SECOND_NS, 0, &to_host_b(max_len), None).0;
    assert_eq!(fits, UPLINK);
    let too_large = switch
        .process(SECOND_NS, 0, &to_host_b(max_len + 1), None)
        .0;
    assert_eq!(too_large, Verdict::DropWithError(DropReason::Mtu));
}

/// Only what lowers a path MTU is counted as believed.
#[test]
fn believed_reports_are_counted() {
    let (config, mut switch, max_len) = narrowed();
    assert_eq!(switch.path_mtus_believed(), 1);
    let (_, left) = switch.process(2, 0, &to_host_b(max_len), None);
    let mtu = (max_len as u16 + tunnel(&config).overhead()).into();
    let larger = switch.process(2, OUT, &report(&config, 0, mtu, &quote_of(&left)), None);
    assert_eq!(larger.0, Verdict::Drop(DropReason::GatewayService));
    assert_eq!(switch.path_mtus_believed(), 1);
    let smaller = report(&config, 0, mtu - 1, &quote_of(&left));
    for _ in 0..2 {
        let taken = switch.process(3, OUT, &smaller, None).0;
        assert_eq!(taken, Verdict::Drop(DropReason::Absorbed));
        assert_eq!(switch.path_mtus_believed(), 2);
    }
}

/// A quote must be of a packet that goes that way now.
#[test]
fn report_about_former_route_is_refused() {
    let mut config = configs::geneve();
    let mut switch = Switch::new(&config, 0xee);
    switch.resolve(0);
    let mtu = config.uplink.as_ref().expect("an uplink").mtu;
    let largest = usize::from(mtu - tunnel(&config).overhead());
    let (_, left) = switch.process(1, 0, &to_host_b(largest), None);
    let report = report(&config, 0, u32::from(mtu) - 20, &quote_of(&left));
    let peers = &mut config.tunnel.as_mut().expect("a tunnel").peers;
    let moved = peers[B].prefixes.remove(0);
    peers[B + 1].prefixes.push(moved);
    switch.configure(&config);
    let taken = switch.process(2, OUT, &report, None).0;
    assert_eq!(taken, Verdict::Drop(DropReason::GatewayService));
    assert_eq!(switch.path_mtus_believed(), 0);
}

#[test]
fn path_mtu_and_next_hops_survive_new_prefix() {
    let (mut config, mut switch, max_len) = narrowed();
    has_path_mtu(&mut switch, max_len);
    let peers = &mut config.tunnel.as_mut().expect("a tunnel").peers;
    peers[B]
        .prefixes
        .push("10.0.9.0/24".parse().expect("a prefix"));
    switch.configure(&config);
    has_path_mtu(&mut switch, max_len);
}

#[test]
fn path_mtu_and_next_hops_survive_reordered_peers() {
    let (mut config, mut switch, max_len) = narrowed();
    config.tunnel.as_mut().expect("a tunnel").peers.reverse();
    switch.configure(&config);
    has_path_mtu(&mut switch, max_len);
}

#[test]
fn path_mtu_of_removed_peer_is_forgotten() {
    let (config, mut switch, max_len) = narrowed();
    let mut without = config.clone();
    let peers = &mut without.tunnel.as_mut().expect("a tunnel").peers;
    drop(peers.remove(B));
    switch.configure(&without);
    switch.configure(&config);
    switch.resolve(SECOND_NS);
    let sent = switch
        .process(SECOND_NS, 0, &to_host_b(max_len + 20), None)
        .0;
    assert_eq!(sent, UPLINK);
}

#[test]
fn path_mtu_above_new_uplink_mtu_is_forgotten() {
    let (mut config, mut switch, max_len) = narrowed();
    config.uplink.as_mut().expect("an uplink").mtu -= 40;
    switch.configure(&config);
    has_path_mtu(&mut switch, max_len - 20);
}

/// What the file said of a peer's path is no report of a router, which holds for a while.
#[test]
fn larger_mtu_of_a_peer_holds_at_once() {
    let mut config = configs::geneve();
    let mtu = config.uplink.as_ref().expect("an uplink").mtu;
    let max_len = usize::from(mtu - tunnel(&config).overhead());
    config.tunnel.as_mut().expect("a tunnel").peers[B].mtu = Some(mtu - 40);
    let mut switch = Switch::new(&config, 0xee);
    switch.resolve(0);
    has_path_mtu(&mut switch, max_len - 40);
    config.tunnel.as_mut().expect("a tunnel").peers[B].mtu = Some(mtu - 20);
    switch.configure(&config);
    has_path_mtu(&mut switch, max_len - 20);
    config.tunnel.as_mut().expect("a tunnel").peers[B].mtu = None;
    switch.configure(&config);
    has_path_mtu(&mut switch, max_len);
}

#[test]
fn new_next_hop_is_unresolved() {
    let mut config = configs::three();
    let mut switch = Switch::new(&config, 0xee);
    switch.resolve(0);
    let packet = V4::new(IP1, EXTERNAL, 17, udp(1, 2, b"hello"));
    let frame = ethernet(GW, VM1, IPV4, &packet.bytes());
    let uplink = Verdict::Forward(PortId(config.ports.len() as u16));
    assert_eq!(switch.process(1, 0, &frame, None).0, uplink);
    switch.configure(&config);
    assert_eq!(switch.process(1, 0, &frame, None).0, uplink);
    let next_hops = &mut config.uplink.as_mut().expect("an uplink").next_hops;
    next_hops.ipv4 = Some([192, 0, 2, 9].into());
    switch.configure(&config);
    let unresolved = Verdict::Drop(DropReason::NeighbourUnresolved);
    assert_eq!(switch.process(1, 0, &frame, None).0, unresolved);
}

/// Frames to a station that has our MAC would come back to us.
#[test]
fn next_hop_whose_mac_becomes_the_uplinks_is_forgotten() {
    let mut config = configs::three();
    let mut switch = Switch::new(&config, 0xee);
    switch.resolve(0);
    let packet = V4::new(IP1, EXTERNAL, 17, udp(1, 2, b"hello"));
    let frame = ethernet(GW, VM1, IPV4, &packet.bytes());
    config.uplink.as_mut().expect("an uplink").mac = MacAddr::new(ROUTER).expect("a MAC");
    switch.configure(&config);
    let unresolved = Verdict::Drop(DropReason::NeighbourUnresolved);
    assert_eq!(switch.process(1, 0, &frame, None).0, unresolved);
}

/// Where there is no uplink, a new port takes a place that the previous tables have not at all.
#[test]
fn port_is_added_behind_the_last() {
    let mut config = configs::lone();
    let mut switch = Switch::new(&config, 0xee);
    let mut added = configs::three().ports[1].clone();
    added.name = "vm2".parse().expect("a name");
    config.ports.push(added);
    switch.configure(&config);
    let packet = V4::new(IP1, IP2, 17, udp(1, 2, b"hello"));
    let frame = ethernet(GW, VM1, IPV4, &packet.bytes());
    let to_added = Verdict::Forward(PortId(1));
    assert_eq!(switch.process(1, 0, &frame, None).0, to_added);
}

/// What fits is by the suites that are allowed now, though the endpoints are the same.
#[test]
fn other_suites_carry_other_sizes() {
    let mut config = configs::sealed();
    config.ports[0].mtu = 1500;
    let largest = |config: &SwitchConfig, switch: &mut Switch| {
        let fits = |length: &usize| {
            let verdict = switch.process(1, 0, &to_host_b(*length), None).0;
            verdict != Verdict::Drop(DropReason::Mtu)
                && verdict != Verdict::DropWithError(DropReason::Mtu)
        };
        (1300..=usize::from(config.ports[0].mtu)).rev().find(fits)
    };
    let mut switch = Switch::new(&config, 0xee);
    let all = largest(&config, &mut switch);
    let ipsec = |config: &mut SwitchConfig, suites: &[IpsecSuite]| {
        let tunnel = config.tunnel.as_mut().expect("a tunnel");
        tunnel.ipsec.as_mut().expect("IPsec").suites = suites.to_vec();
    };
    ipsec(&mut config, &[IpsecSuite::Aes256Gcm16]);
    switch.configure(&config);
    let fewer = largest(&config, &mut switch);
    assert!(fewer > all, "{fewer:?} {all:?}");
    assert_eq!(fewer, largest(&config, &mut Switch::new(&config, 0xee)));
}

/// `vm1` of [`configs::trunk`] sends with a tag, and is answered with it.
#[test]
fn tags_and_token_buckets_survive_new_configuration() {
    let mut config = configs::trunk();
    let trunk = config.ports.iter().position(|port| !port.trunk.is_empty());
    let (from, other) = (
        trunk.expect("a trunk port"),
        1 - trunk.expect("a trunk port"),
    );
    let vid = config.ports[from].trunk[0].get();
    config.ports[from].limits.pps = Some(2);
    let mac = |port: usize| config.ports[port].mac.octets();
    let (own, sibling) = if from == 0 { (IP1, IP2) } else { (IP2, IP1) };
    let sent = V4::new(own, sibling, 17, udp(1, 2, b"hello"));
    let sent = tagged(&ethernet(GW, mac(from), IPV4, &sent.bytes()), 0x8100, vid);
    let back = V4::new(sibling, own, 17, udp(2, 1, b"hello"));
    let back = ethernet(GW, mac(other), IPV4, &back.bytes());
    let mut switch = Switch::new(&config, 0xee);
    let to_other = Verdict::Forward(PortId(other as u16));
    let spent = Verdict::Drop(DropReason::RatePps);
    assert_eq!(switch.process(1, from, &sent, None).0, to_other);
    for _ in 0..2 {
        let (verdict, bytes) = switch.process(1, other, &back, None);
        assert_eq!(verdict, Verdict::Forward(PortId(from as u16)));
        assert_eq!(bytes[12..16], [&[0x81, 0][..], &vid.to_be_bytes()].concat());
        let mut config = switch.config.clone();
        config.ports[other].mtu -= 100;
        switch.configure(&config);
    }
    assert_eq!(switch.process(1, from, &sent, None).0, to_other);
    switch.configure(&config);
    assert_eq!(switch.process(1, from, &sent, None).0, spent);
}

#[test]
fn counters_survive_new_configuration() {
    let (config, mut switch, max_len) = narrowed();
    has_path_mtu(&mut switch, max_len);
    let counted = switch.counted();
    assert_eq!(counted[0].rx_frames, 3);
    switch.configure(&config);
    assert_eq!(switch.counted(), counted);
    let mut fewer = config.clone();
    drop(fewer.ports.remove(1));
    switch.configure(&fewer);
    let kept = switch.counted();
    assert_eq!(kept, [counted[0].clone(), counted[2].clone()]);
}
