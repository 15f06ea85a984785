//! The fast path against the general path.

use proptest::prelude::*;
use tenant_config::{MacAddr, Tenant};

use crate::{Generation, Pipeline, PortId, Verdict};
use packet::DropReason;
use packet::Frame;

const TENANT: &str = r#"
    name = "red"
    vni = 5001
    [gateway]
    ipv4 = "10.0.0.1/24"
    ipv6 = "fd00::1/64"
    [uplink]
    address = "192.0.2.2/24"
    next_hop = "192.0.2.1"
    address6 = "2001:db8::2/64"
    next_hop6 = "2001:db8::1"
    mtu = 1400
    [tunnel]
    kind = "vxlan"
    [[tunnel.peer]]
    name = "host-b"
    vtep = "192.0.2.66"
    prefixes = ["10.0.0.64/27", "fd00::60/123"]
    [[tunnel.peer]]
    name = "host-c"
    vtep = "192.0.2.67"
    prefixes = ["10.0.0.96/27", "fd00::80/123"]
    [[port]]
    name = "vm1"
    mac = "52:54:00:aa:00:01"
    addresses = ["10.0.0.11", "fd00::11"]
    encapsulation = "deny"
    limits = { broadcast_pps = 1, arp_nd_pps = 1, dhcp_pps = 1 }
    [[port]]
    name = "vm2"
    mac = "52:54:00:aa:00:02"
    addresses = ["10.0.0.12", "fd00::12"]
    mtu = 1280
"#;

/// The tenant with its tunnel over IPv4 without checksums, or over IPv6 with them.
fn tenant(over_ipv6: bool) -> String {
    if !over_ipv6 {
        return TENANT.to_owned();
    }
    let text = TENANT.replace(
        "kind = \"vxlan\"",
        "kind = \"geneve\"\nvtep = \"2001:db8::2\"",
    );
    let text = text.replace("vtep = \"192.0.2.66\"", "vtep = \"2001:db8::66\"");
    text.replace("vtep = \"192.0.2.67\"", "vtep = \"2001:db8::67\"")
}

fn pipeline(over_ipv6: bool) -> Pipeline {
    pipeline_of(&tenant(over_ipv6))
}

fn pipeline_of(text: &str) -> Pipeline {
    let config = Tenant::parse("red.toml", text)
        .expect("a tenant")
        .offline_config();
    let mut pipeline = Pipeline::new(Generation::build(&config, None));
    pipeline.assume_next_hops(0, MacAddr::new([2, 0, 0, 0, 0, 1]).expect("a MAC"));
    pipeline
}

/// A common frame of vm1: version, protocol, index of the destination, UDP ports, size.
fn ordinary(
    (ipv6, tcp, destination): (bool, bool, usize),
    ports: (u16, u16),
    payload: usize,
) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 9, 0x52, 0x54, 0, 0xaa, 0, 1];
    let protocol = if tcp { 6 } else { 17 };
    let size = if tcp { 20 } else { 8 } + payload;
    if ipv6 {
        let to = ["fd00::12", "2001:db8:9::1", "2001:db8::9", "fd00::70"][destination];
        let [hi, lo] = (size as u16).to_be_bytes();
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, hi, lo, protocol, 64]);
        for text in ["fd00::11", to] {
            let address: std::net::Ipv6Addr = text.parse().expect("an address");
            frame.extend(address.octets());
        }
    } else {
        let to = [
            [10, 0, 0, 12],
            [198, 51, 100, 1],
            [192, 0, 2, 9],
            [10, 0, 0, 70],
        ][destination];
        let [hi, lo] = (20 + size as u16).to_be_bytes();
        let mut header = [
            0x45, 0, hi, lo, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 11,
        ];
        let words = header.chunks(2).chain(to.chunks(2));
        let sum: u32 = words
            .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
            .sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend([8, 0]);
        frame.extend(header);
        frame.extend(to);
    }
    frame.extend(ports.0.to_be_bytes());
    frame.extend(ports.1.to_be_bytes());
    frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50]);
    frame.resize(14 + if ipv6 { 40 } else { 20 } + size, 0);
    frame
}

/// The peer's own tenant file: vm1 there is 10.0.0.70 and fd00::70.
fn peers_side(text: &str) -> String {
    let text = text.replace("192.0.2.66", "192.0.2.88");
    let text = text
        .replace("192.0.2.2\"", "192.0.2.66\"")
        .replace("192.0.2.2/", "192.0.2.66/");
    let text = text.replace("192.0.2.88", "192.0.2.2");
    let text = text.replace("2001:db8::66", "2001:db8::88");
    let text = text
        .replace("2001:db8::2\"", "2001:db8::66\"")
        .replace("2001:db8::2/", "2001:db8::66/");
    let text = text.replace("2001:db8::88", "2001:db8::2");
    let text = text.replace("\"10.0.0.11\", \"fd00::11\"", "\"10.0.0.70\", \"fd00::70\"");
    text.replace(
        "\"10.0.0.64/27\", \"fd00::60/123\"",
        "\"10.0.0.11\", \"fd00::11\"",
    )
}

/// The packet from host-b's vm1 to ours, as it arrives.
fn carried(over_ipv6: bool, kind: (bool, bool), ports: (u16, u16), payload: usize) -> Vec<u8> {
    let text = peers_side(&tenant(over_ipv6));
    let (ipv6, tcp) = kind;
    let mut frame = vec![0; Frame::HEADROOM];
    frame.extend(ordinary((ipv6, tcp, 0), ports, payload));
    let at = Frame::HEADROOM;
    if ipv6 {
        frame[at + 37] = 0x70;
        frame[at + 53] = 0x11;
    } else {
        frame[at + 26..at + 34].copy_from_slice(&[10, 0, 0, 70, 10, 0, 0, 11]);
        mend_checksum(&mut frame[at + 14..]);
    }
    let len = frame.len() - at;
    let mut frame = Frame::new(&mut frame, at, len, None);
    let verdict = pipeline_of(&text).process_traced(1, PortId(0), &mut frame, &mut |_, _| {});
    // The peer refuses nested tunnels, so use ports that it forwards.
    if verdict != Verdict::Forward(PortId(2)) {
        return carried(over_ipv6, kind, (53, 53), payload);
    }
    let mut bytes = frame.bytes().to_vec();
    let here = pipeline(over_ipv6).tables();
    bytes[..6].copy_from_slice(&here.uplink.as_ref().expect("an uplink").mac);
    bytes
}

fn mend_checksum(packet: &mut [u8]) {
    packet[10..12].copy_from_slice(&[0, 0]);
    let head = packet.first_chunk().expect("a header");
    let sum = packet::wire::ipv4::plain_checksum(head);
    packet[10..12].copy_from_slice(&sum.to_ne_bytes());
}

/// Verdict, bytes and all counters of one frame's way.
fn outcome(
    over_ipv6: bool,
    port: PortId,
    bytes: &[u8],
    express: bool,
) -> (Verdict, Vec<u8>, Vec<Vec<u64>>) {
    let mut pipeline = pipeline(over_ipv6);
    let counters = pipeline.counters();
    let mut buffer = vec![0; Frame::HEADROOM];
    buffer.extend_from_slice(bytes);
    buffer.resize(buffer.len() + 256, 0);
    // Decide twice, so that a token that only one of the paths takes shows in the second verdict.
    let mut second = buffer.clone();
    let mut first = Frame::new(&mut buffer, Frame::HEADROOM, bytes.len(), None);
    let mut frame = Frame::new(&mut second, Frame::HEADROOM, bytes.len(), None);
    let mut decide = |frame: &mut Frame<'_>| {
        if express {
            pipeline.process(1, port, frame)
        } else {
            pipeline.process_traced(1, port, frame, &mut |_, _| {})
        }
    };
    let _ = decide(&mut first);
    let verdict = decide(&mut frame);
    let state = counters.ports().map(|port| {
        let drops = DropReason::ALL
            .iter()
            .map(|reason| port.drops(*reason).get());
        let totals = [
            &port.rx_frames,
            &port.rx_bytes,
            &port.forwarded,
            &port.replies,
        ];
        let sent = [&port.tx_frames, &port.tx_bytes, &port.icmp_errors];
        totals
            .iter()
            .chain(&sent)
            .map(|counter| counter.get())
            .chain(drops)
            .collect()
    });
    let peers = counters.peers().map(|peer| {
        let counted = [
            &peer.rx_frames,
            &peer.rx_bytes,
            &peer.tx_frames,
            &peer.tx_bytes,
            &peer.last_seen_ns,
        ];
        counted.map(|counter| counter.get()).to_vec()
    });
    let state = state.chain(peers).collect();
    (verdict, frame.bytes().to_vec(), state)
}

/// Changes the length in one case of three, which leaves padding or truncates the packet, and then
/// single bytes.
fn disturb(frame: &mut Vec<u8>, edits: &[(usize, u8)], change: isize) {
    if change.rem_euclid(3) == 0 {
        frame.resize(frame.len().saturating_add_signed(change), 0xee);
    }
    for &(at, value) in edits {
        if let Some(byte) = frame.get_mut(at) {
            *byte = value;
        }
    }
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let kind = (any::<bool>(), any::<bool>(), 0..4usize);
    let port = prop_oneof![
        Just(53u16),
        Just(67),
        Just(68),
        Just(68),
        Just(546),
        Just(547),
        Just(3544),
        Just(4789),
        Just(6081),
        Just(7471),
        Just(8472),
        any::<u16>()
    ];
    let edits = prop::collection::vec((0..80usize, any::<u8>()), 0..3);
    let size = prop_oneof![0..64usize, 1200..1500usize];
    (kind, (port.clone(), port), size, edits, -30..30isize).prop_map(
        |(kind, ports, payload, edits, change)| {
            let mut frame = ordinary(kind, ports, payload);
            disturb(&mut frame, &edits, change);
            frame
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn fast_path_from_port_agrees_with_general_path(frame in frames()) {
        let port = PortId(0);
        prop_assert_eq!(outcome(false, port, &frame, true), outcome(false, port, &frame, false));
    }

    #[test]
    fn fast_path_from_underlay_agrees_with_general_path((over_ipv6, frame) in arriving_frames()) {
        let by = |express| outcome(over_ipv6, PortId(2), &frame, express);
        prop_assert_eq!(by(true), by(false));
    }

    #[test]
    fn fast_path_out_of_tunnel_agrees_with_general_path((over_ipv6, frame) in carried_frames()) {
        let by = |express| outcome(over_ipv6, PortId(2), &frame, express);
        prop_assert_eq!(by(true), by(false));
    }
}

/// `::192.0.2.66` is another address than 192.0.2.66, though both are one number.
#[test]
fn tunnel_over_ipv4_refuses_embedded_ipv6_endpoint() {
    let mut bytes = carried(false, (false, false), (53, 53), 40);
    let inner = bytes.split_off(34);
    let mut other = bytes[..12].to_vec();
    let [hi, lo] = (inner.len() as u16).to_be_bytes();
    other.extend([0x86, 0xdd, 0x60, 0, 0, 0, hi, lo, 17, 64]);
    for address in [&bytes[26..30], &bytes[30..34]] {
        other.extend([0; 12]);
        other.extend(address);
    }
    other.extend(inner);
    let (port, dropped) = (PortId(2), Verdict::Drop(DropReason::IngressSource));
    let taken = outcome(false, port, &other, true);
    assert_eq!(taken.0, dropped);
    assert_eq!(taken, outcome(false, port, &other, false));
}

/// A frame from the underlay. Sources 0 to 6 are an external address, a sibling, one behind a peer,
/// one of the underlay, and three invalid ones; destinations are vm1, vm2 and an unowned address.
fn arriving(
    (ipv6, tcp): (bool, bool),
    (from, to): (usize, usize),
    ports: (u16, u16),
    payload: usize,
) -> Vec<u8> {
    let mut frame = ordinary((ipv6, tcp, 0), ports, payload);
    let tables = pipeline(false).tables();
    frame[..6].copy_from_slice(&tables.uplink.as_ref().expect("an uplink").mac);
    if ipv6 {
        let sources = [
            "2001:db8:9::1",
            "fd00::12",
            "fd00::70",
            "2001:db8::9",
            "fe80::1",
            "::",
            "::1.2.3.4",
        ];
        let targets = ["fd00::11", "fd00::12", "fd00::99"];
        for (at, text) in [(22, sources[from]), (38, targets[to])] {
            let address: std::net::Ipv6Addr = text.parse().expect("an address");
            frame[at..at + 16].copy_from_slice(&address.octets());
        }
    } else {
        let sources = [
            [198, 51, 100, 1],
            [10, 0, 0, 12],
            [10, 0, 0, 70],
            [192, 0, 2, 9],
            [169, 254, 0, 1],
            [0, 0, 0, 9],
            [127, 0, 0, 1],
        ];
        let targets = [[10, 0, 0, 11], [10, 0, 0, 12], [10, 0, 0, 99]];
        frame[26..30].copy_from_slice(&sources[from]);
        frame[30..34].copy_from_slice(&targets[to]);
        mend_checksum(&mut frame[14..]);
    }
    frame
}

fn arriving_frames() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let port = prop_oneof![
        Just(53u16),
        Just(67),
        Just(68),
        Just(546),
        Just(547),
        Just(3544),
        Just(6081),
        any::<u16>()
    ];
    let edits = prop::collection::vec((0..80usize, any::<u8>()), 0..3);
    let size = prop_oneof![12..64usize, 1200..1390usize];
    // Half of the cases are common frames.
    let ends = (
        prop_oneof![Just(0usize), 0..7usize],
        prop_oneof![Just(0usize), 0..3usize],
    );
    (
        any::<(bool, (bool, bool), bool)>(),
        ends,
        (port.clone(), port),
        size,
        edits,
        -30..30isize,
    )
        .prop_map(
            |((over_ipv6, kind, sums), ends, ports, payload, edits, change)| {
                let mut frame = arriving(kind, ends, ports, payload);
                disturb(&mut frame, &edits, change);
                if sums && !kind.0 && frame.len() >= 34 {
                    mend_checksum(&mut frame[14..]);
                }
                (over_ipv6, frame)
            },
        )
}

fn carried_frames() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let port = prop_oneof![Just(53u16), Just(68), Just(67), Just(4789), Just(6081)];
    // Small changes of compared fields are as frequent as any other.
    let value = prop_oneof![any::<u8>(), 0..4u8, Just(66), Just(67), Just(0x70)];
    let edits = prop::collection::vec((0..130usize, value), 0..3);
    let size = prop_oneof![12..64usize, 1200..1260usize];
    let over = any::<(bool, (bool, bool))>();
    (
        over,
        (port.clone(), port),
        size,
        edits,
        any::<bool>(),
        -30..30isize,
    )
        .prop_map(|((over_ipv6, kind), ports, payload, edits, sums, change)| {
            let mut frame = carried(over_ipv6, kind, ports, payload);
            disturb(&mut frame, &edits, change);
            // With correct checksums, checks behind the checksum see the changes too.
            let inner = if over_ipv6 { 70 } else { 50 };
            for (at, ipv4) in [(14, !over_ipv6), (inner + 14, !kind.0)] {
                if sums && ipv4 && frame.len() >= at + 20 {
                    mend_checksum(&mut frame[at..]);
                }
            }
            if sums && over_ipv6 && frame.len() > 62 {
                let sum = |frame: &[u8]| packet::wire::checksum::sum(&frame[22..]);
                frame[60..62].copy_from_slice(&[0, 0]);
                let pseudo =
                    u64::from(17u16.to_be()) + u64::from(((frame.len() - 54) as u16).to_be());
                let all = (sum(&frame) + pseudo) % 0xffff;
                frame[60..62].copy_from_slice(&(!(all as u16)).to_ne_bytes());
            }
            (over_ipv6, frame)
        })
}

#[test]
fn common_frames_take_the_fast_path() {
    let taken = |kind| {
        let mut pipeline = pipeline(false);
        let mut bytes = vec![0; Frame::HEADROOM];
        bytes.extend(ordinary(kind, (53, 5353), 40));
        let len = bytes.len() - Frame::HEADROOM;
        let mut frame = Frame::new(&mut bytes, Frame::HEADROOM, len, None);
        let rules = &pipeline.tables.ports[0];
        assert!(rules.express);
        let counters = pipeline.counters();
        super::forward(
            &pipeline.tables,
            &mut pipeline.state,
            &counters,
            rules,
            1,
            &mut frame,
        )
    };
    let (vm2, uplink) = (Some(PortId(1)), Some(PortId(2)));
    for tcp in [false, true] {
        assert_eq!(taken((false, tcp, 0)), vm2);
        assert_eq!(taken((false, tcp, 1)), uplink);
        assert_eq!(taken((false, tcp, 3)), uplink);
        assert_eq!(taken((true, tcp, 0)), vm2);
        assert_eq!(taken((true, tcp, 1)), uplink);
        assert_eq!(taken((true, tcp, 3)), uplink);
    }
    assert_eq!(
        taken((false, false, 2)),
        None,
        "the general path refuses the underlay"
    );
    for kind in [(false, false), (false, true), (true, false), (true, true)] {
        let pipeline = pipeline(false);
        for (from, to, out) in [
            (0, 0, Some(PortId(0))),
            (3, 1, Some(PortId(1))),
            (1, 0, None),
            (0, 2, None),
        ] {
            let mut bytes = arriving(kind, (from, to), (53, 5353), 40);
            let len = bytes.len();
            let mut frame = Frame::new(&mut bytes, 0, len, None);
            let taken = super::deliver(&pipeline.tables, &mut frame);
            assert_eq!(taken, out, "{kind:?} {from} {to}");
        }
    }
    for over_ipv6 in [false, true] {
        for kind in [(false, false), (false, true), (true, false), (true, true)] {
            let pipeline = pipeline(over_ipv6);
            let mut bytes = carried(over_ipv6, kind, (53, 5353), 40);
            let len = bytes.len();
            let mut frame = Frame::new(&mut bytes, 0, len, None);
            let counters = pipeline.counters();
            let out = super::decapsulate(&pipeline.tables, &counters, 1, &mut frame);
            assert_eq!(out, Some(PortId(0)), "{over_ipv6} {kind:?}");
        }
    }
}
