//! Two switches, one at each end of a tunnel.

use serde_json::json;
use tenant_config::{MacAddr, SwitchConfig, Vni};

use packet::Frame;
use pipeline::{DropReason, Generation, Pipeline, PortId, Verdict};

const UPLINK: PortId = PortId(1);
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];

/// The switch of a host, by the host's number on the underlay; the other host is its peer.
fn switch(kind: &str, ipv6: bool, own: u8, other: u8) -> Pipeline {
    switch_with(kind, ipv6, (own, other), 1500)
}

/// As [`switch`], of a VM whose link has that MTU.
fn switch_with(kind: &str, ipv6: bool, (own, other): (u8, u8), mtu: u16) -> Pipeline {
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
        "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00::1/64" },
        "ports": [{
            "name": "vm1",
            "device": { "driver": "offline" },
            "gateway_mac": format!("02:00:13:89:00:{own:02x}"),
            "mac": format!("52:54:00:00:00:{own:02x}"),
            "addresses": [format!("10.0.0.{own}/32"), format!("fd00::{own:x}/128")],
            "mtu": mtu,
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
                "prefixes": [format!("10.0.0.{other}/32"), format!("fd00::{other:x}/128")],
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
    let sum = packet::wire::ipv4::plain_checksum(bytes[14..].first_chunk().expect("a header"));
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
fn frame_into_tunnel_leaves_it_unchanged_at_the_peer() {
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

/// A UDP packet of `len` bytes from host 7's VM to host 8's.
fn packet6(len: usize) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0x13, 0x89, 0, 7, 0x52, 0x54, 0, 0, 0, 7, 0x86, 0xdd];
    let udp_len = (len - 40) as u16;
    bytes.extend([0x60, 0, 0, 0]);
    bytes.extend(udp_len.to_be_bytes());
    bytes.extend([17, 64]);
    for host in [7, 8] {
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
    }
    bytes.extend([0x10, 0, 0x20, 0]);
    bytes.extend(udp_len.to_be_bytes());
    bytes.extend([1, 2]);
    bytes.resize(14 + len, 7);
    bytes
}

/// A VM sends a packet that is larger than the MTU of a VM on the other host: it hears so, through
/// both switches, and what is as large as it heard arrives. On one host it hears the same.
#[test]
fn packet_larger_than_the_mtu_of_the_far_port_is_reported_to_its_vm() {
    for (kind, ipv6) in [
        ("geneve", false),
        ("geneve", true),
        ("vxlan", false),
        ("vxlan", true),
    ] {
        let mut here = switch(kind, ipv6, 7, 8);
        let mut there = switch_with(kind, ipv6, (8, 7), 1300);
        for inner6 in [false, true] {
            let sized = |len: usize| match inner6 {
                false => packet(len - 28),
                true => packet6(len),
            };
            let name = format!("{kind} {ipv6} {inner6}");
            let wired = |mut carried: Vec<u8>, host: u8| {
                carried[..6].copy_from_slice(&[2, 0, 0, 0, 0, host]);
                carried[6..12].copy_from_slice(&ROUTER);
                carried
            };
            let sent = sized(1301);
            let (verdict, carried) = process(&mut here, PortId(0), &sent);
            assert_eq!(verdict, Verdict::Forward(UPLINK), "{name}");
            let (verdict, error) = process(&mut there, UPLINK, &wired(carried, 8));
            assert_eq!(verdict, Verdict::DropWithError(DropReason::Mtu), "{name}");
            let (verdict, heard) = process(&mut here, UPLINK, &wired(error, 7));
            assert_eq!(verdict, Verdict::Forward(PortId(0)), "{name}");
            assert_eq!(heard[..6], [0x52, 0x54, 0, 0, 0, 7], "{name}");
            let (kind_at, mtu_at, quote_at) = if inner6 { (54, 60, 62) } else { (34, 40, 42) };
            let expected = if inner6 { [2, 0] } else { [3, 4] };
            assert_eq!(heard[kind_at..kind_at + 2], expected, "{name}");
            assert_eq!(heard[mtu_at..mtu_at + 2], 1300_u16.to_be_bytes(), "{name}");
            let quote = &heard[quote_at..];
            assert!(quote.len() > 500, "{name}");
            assert_eq!(quote, &sent[14..14 + quote.len()], "{name}");
            let (from, to) = if inner6 {
                (22..38, 38..54)
            } else {
                (26..30, 30..34)
            };
            assert_eq!(
                (&heard[from.clone()], &heard[to.clone()]),
                (&sent[to], &sent[from])
            );
            let (verdict, carried) = process(&mut here, PortId(0), &sized(1300));
            assert_eq!(verdict, Verdict::Forward(UPLINK), "{name}");
            let (verdict, _) = process(&mut there, UPLINK, &wired(carried, 8));
            assert_eq!(verdict, Verdict::Forward(PortId(0)), "{name}");
        }
        // A hundred at once, and then as many a second.
        let (_, carried) = process(&mut here, PortId(0), &packet(1400));
        let mut wired = carried;
        wired[..6].copy_from_slice(&[2, 0, 0, 0, 0, 8]);
        let errors = (0..200).filter(|_| {
            let (verdict, _) = process(&mut there, UPLINK, &wired);
            verdict == Verdict::DropWithError(DropReason::Mtu)
        });
        assert_eq!(errors.count(), 98);
    }
}
