//! The tunnel gateway against `docs/reference/tunnel.md`: by hand-made frames for each of its rows,
//! by frames with every bit of them wrong, and by random ones against the model of `oracle`.

mod oracle;

use std::collections::BTreeSet;

use oracle::configs;
use oracle::frames::*;
use oracle::generate::{self, Chance, Choices};
use oracle::model::tunnel::PATH_MTU_NS;
use oracle::rows::{self, Case, GATEWAY, GW, VM1, inner};
use oracle::trial::{SECOND_NS, Trial};
use oracle::tunnel_frames::*;
use oracle::tunnel_rows::{self, B, IP71, OUT, away, away6, home, home6};
use pipeline::DropReason;
use pipeline::{PortId, Verdict};
use proptest::prelude::*;
use tenant_config::SwitchConfig;

#[test]
fn model_agrees_with_rows() {
    let wrong = rows::wrong(&tunnel_rows::cases(), |case| Ok(case.by_the_model()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each frame alone, at a fresh switch: the verdict is the table's, the bytes are the model's, and
/// of all counters nothing else has moved.
#[test]
fn switch_agrees_with_rows() {
    let wrong = rows::wrong(&tunnel_rows::cases(), Case::by_the_switch);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tunnel packets of every kind that gets somewhere.
fn honest(config: &SwitchConfig) -> Vec<TunnelPacket> {
    let mac = tunnel(config).peers[B].mac.octets();
    let ipv4 = |packet: &V4| inner_frame(config, B, IPV4, &packet.bytes());
    let ipv6 = |packet: &V6| inner_frame(config, B, IPV6, &packet.bytes());
    let request = Arp {
        opcode: 1,
        sender_mac: mac,
        sender: IP71,
        target_mac: [0; 6],
        target: GATEWAY,
    };
    let segment = tunnel_rows::syn(&[1, 3, 3, 7], 1460);
    let mut inners = vec![
        ipv4(&V4 { class: 2, ..home() }),
        ipv4(&V4 {
            protocol: 6,
            payload: segment.clone(),
            ..home()
        }),
        ipv4(&V4::new(IP71, GATEWAY, 1, icmp(8, 0, ECHO))),
        ethernet(BROADCAST, mac, ARP, &request.bytes()),
    ];
    if config.gateway.ipv6.is_some() {
        let solicitation = neighbor(135, 0, inner(1), &[link_layer(1, mac)]);
        inners.extend([
            ipv6(&V6 {
                class: 1,
                ..home6()
            }),
            ipv6(&V6 {
                upper: 6,
                payload: segment,
                ..home6().with(60, padding_options(0))
            }),
            ipv6(&V6::icmp(inner(0x71), inner(1), icmpv6(128, 0, ECHO))),
            ipv6(&V6::icmp(inner(0x71), inner(1), solicitation)),
        ]);
    }
    let packets = inners.into_iter().map(|inner| {
        let packet = TunnelPacket::new(config, B, inner);
        TunnelPacket { class: 1, ..packet }
    });
    packets.collect()
}

/// [`configs::tunnels`] of which peer B has the VMs of this file.
fn switches() -> Vec<(&'static str, SwitchConfig)> {
    let mut switches = configs::tunnels();
    for (name, config) in &mut switches {
        if *name == "only" {
            let tunnel = config.tunnel.as_mut().expect("a tunnel");
            tunnel.peers.swap(0, 1);
        }
    }
    switches
}

/// Whole tunnel packets with one bit wrong, with their checksums made right and as they are.
#[test]
fn tunnel_packets_with_a_flipped_bit_agree_with_model() {
    for (name, config) in switches() {
        let mut trial = Trial::new(&config);
        trial.resolve(0);
        let mut now_ns = 0;
        for packet in honest(&config) {
            let good = packet.frame();
            let inner_at = usize::from(tunnel(&config).overhead());
            for at in 0..good.len() {
                for bit in 0..8 {
                    let mut frame = good.clone();
                    frame[at] ^= 1 << bit;
                    let unmended = frame.clone();
                    generate::tunnel::mend(&mut frame, inner_at);
                    let frames = if bit == 0 {
                        vec![frame, unmended]
                    } else {
                        vec![frame]
                    };
                    for frame in frames {
                        now_ns += SECOND_NS;
                        let sent = trial.send(now_ns, OUT, &frame, None);
                        assert!(sent.is_ok(), "{name}, bit {bit} of byte {at}: {sent:?}");
                    }
                }
            }
        }
    }
}

/// Tunnel packets that end anywhere: as a frame, and as an inner frame whose outer headers are
/// right.
#[test]
fn truncated_tunnel_packets_agree_with_model() {
    for (name, config) in switches() {
        let mut trial = Trial::new(&config);
        trial.resolve(0);
        let mut now_ns = 0;
        for packet in honest(&config) {
            let good = packet.frame();
            let as_frames = (0..good.len()).map(|length| good[..length].to_vec());
            let inside = [&packet.header[..], &packet.inner].concat();
            let as_datagrams = (0..inside.len()).map(|length| {
                let cut = TunnelPacket {
                    header: Vec::new(),
                    inner: inside[..length].to_vec(),
                    ..packet.clone()
                };
                cut.frame()
            });
            for frame in as_frames.chain(as_datagrams) {
                now_ns += SECOND_NS;
                let sent = trial.send(now_ns, OUT, &frame, None);
                let length = frame.len();
                assert!(sent.is_ok(), "{name}, {length} bytes: {sent:?}");
            }
        }
    }
}

/// A path's MTU is believed for ten minutes, never grows by a message, and is of one VTEP.
#[test]
fn path_mtu_only_decreases_until_it_expires() {
    for (name, config) in configs::tunnels() {
        if name == "only" || name == "narrow" {
            // The one has a single peer with other addresses, the other accepts no smaller MTU.
            continue;
        }
        let tunnel = tunnel(&config);
        let with = tunnel.overhead();
        let uplink = config.uplink.as_ref().expect("an uplink").mtu;
        let least = 1280 + with;
        let to_b = |length: usize| {
            let packet = V4 {
                payload: udp(1, 2, &vec![0; length - 28]),
                ..away()
            };
            ethernet(GW, VM1, IPV4, &packet.bytes())
        };
        let to_c = |length: usize, last: u8| {
            let packet = V4 {
                to: [10, 0, 0, last].into(),
                payload: udp(1, 2, &vec![0; length - 28]),
                ..away()
            };
            ethernet(GW, VM1, IPV4, &packet.bytes())
        };
        let mut trial = Trial::new(&config);
        let mut now_ns = 0;
        let check = |trial: &mut Trial, at_ns: u64, b: u16, c: u16| {
            trial.poll(at_ns);
            trial.resolve(at_ns);
            for (mtu, frame) in [
                (b, to_b(usize::from(b - with))),
                (c, to_c(usize::from(c - with), 81)),
                (c, to_c(usize::from(c - with), 82)),
            ] {
                let fits = trial.send(at_ns, 0, &frame, None);
                assert_eq!(
                    fits,
                    Ok(Verdict::Forward(PortId(OUT as u16))),
                    "{name}: {mtu}"
                );
            }
            let limit = config.ports[0].mtu;
            for (mtu, frame) in [
                (b, to_b(usize::from(b - with) + 1)),
                (c, to_c(usize::from(c - with) + 1, 81)),
                (c, to_c(usize::from(c - with) + 1, 82)),
            ] {
                if mtu - with < limit {
                    let too_large = trial.send(at_ns, 0, &frame, None);
                    let error = Verdict::DropWithError(DropReason::Mtu);
                    assert_eq!(too_large, Ok(error), "{name}: {mtu}");
                }
            }
        };
        let report = |trial: &mut Trial, at_ns: u64, peer: usize, mtu: u16| {
            let vtep = tunnel.peers[peer].vtep;
            let message = too_big(&config, mtu.into(), tunnel.vtep, vtep, tunnel.port);
            let reported = trial.send(at_ns, OUT, &message, None);
            assert_eq!(
                reported,
                Ok(Verdict::Drop(DropReason::Absorbed)),
                "{name}: {mtu}"
            );
        };
        check(&mut trial, now_ns, uplink, uplink);
        // What is not believed.
        for mtu in [0, 68, 576, least - 1, uplink + 1, 9000] {
            report(&mut trial, now_ns, B, mtu);
            check(&mut trial, now_ns, uplink, uplink);
        }
        if uplink == least {
            continue;
        }
        // One VTEP's is not another's, and two peers with one VTEP share it.
        report(&mut trial, now_ns, B, uplink - 20);
        check(&mut trial, now_ns, uplink - 20, uplink);
        report(&mut trial, now_ns, 1, uplink - 30);
        check(&mut trial, now_ns, uplink - 20, uplink - 30);
        // It goes down, but not up.
        report(&mut trial, now_ns, B, least);
        check(&mut trial, now_ns, least, uplink - 30);
        now_ns += SECOND_NS;
        report(&mut trial, now_ns, B, uplink - 20);
        check(&mut trial, now_ns, least, uplink - 30);
        // Ten minutes after it was reported; saying it again prolongs it.
        report(&mut trial, now_ns, 1, uplink - 30);
        now_ns = PATH_MTU_NS - SECOND_NS;
        check(&mut trial, now_ns, least, uplink - 30);
        now_ns = PATH_MTU_NS + SECOND_NS / 2;
        check(&mut trial, now_ns, uplink, uplink - 30);
        now_ns = PATH_MTU_NS + 3 * SECOND_NS;
        check(&mut trial, now_ns, uplink, uplink);
        report(&mut trial, now_ns, B, uplink - 1);
        check(&mut trial, now_ns, uplink - 1, uplink);
    }
}

/// Unsolicited Router Advertisements announce the smaller of the port's MTU and what the
/// tunnel carries, too.
#[test]
fn router_advertisement_announces_tunnel_mtu() {
    for (name, config) in configs::tunnels() {
        let uplink = config.uplink.as_ref().expect("an uplink").mtu;
        let carries = uplink - tunnel(&config).overhead();
        let mut said: BTreeSet<(usize, u16)> = BTreeSet::new();
        let mut trial = Trial::new(&config);
        for second in 0..1800 {
            for (port, frame) in trial.poll(second * SECOND_NS) {
                let is_advertisement = frame.get(20) == Some(&58) && frame.get(54) == Some(&134);
                if port != OUT && is_advertisement {
                    let mut options = frame[70..].chunks(8);
                    let mtu = options.find(|option| option[..2] == [5, 1]);
                    let mtu = mtu.expect("an MTU in an advertisement");
                    assert_eq!(mtu[2..6], [0; 4], "{name}");
                    said.insert((port, u16::from_be_bytes([mtu[6], mtu[7]])));
                }
            }
        }
        let ports = config.ports.iter().map(|port| port.mtu.min(carries));
        let expected = ports.enumerate();
        let expected: BTreeSet<_> = match config.gateway.ipv6 {
            Some(_) => expected.collect(),
            None => BTreeSet::new(),
        };
        assert_eq!(said, expected, "{name}");
    }
}

/// Many flows are spread over many source ports, and each keeps its own: the model's trial checks
/// that of equal flows, also that fragments of one packet stay together.
#[test]
fn flows_use_different_source_ports() {
    for (name, config) in configs::tunnels() {
        let with_ipv6 = config.gateway.ipv6.is_some();
        let mut trial = Trial::new(&config);
        trial.resolve(0);
        let mut now_ns = 0;
        let mut send = |trial: &mut Trial, frame: Vec<u8>| {
            now_ns += SECOND_NS;
            let sent = trial.send(now_ns, 0, &frame, None);
            assert!(matches!(sent, Ok(Verdict::Forward(_))), "{name}: {sent:?}");
        };
        for port in 1000..1200 {
            for protocol in [6, 17] {
                let payload = if protocol == 6 {
                    tcp(port, 80, 5, b"x")
                } else {
                    udp(port, 80, b"x")
                };
                for _ in 0..2 {
                    let packet = V4 {
                        protocol,
                        payload: payload.clone(),
                        ..away()
                    };
                    send(&mut trial, ethernet(GW, VM1, IPV4, &packet.bytes()));
                }
                if with_ipv6 {
                    let packet = V6 {
                        upper: protocol,
                        payload: payload.clone(),
                        ..away6()
                    };
                    send(&mut trial, ethernet(GW, VM1, IPV6, &packet.bytes()));
                }
                for (fragment, payload) in [
                    (MORE_FRAGMENTS, payload.clone()),
                    (MORE_FRAGMENTS | 3, b"in the middle".to_vec()),
                    (6, b"at the end".to_vec()),
                ] {
                    let packet = V4 {
                        protocol,
                        payload,
                        fragment,
                        ..away()
                    };
                    send(&mut trial, ethernet(GW, VM1, IPV4, &packet.bytes()));
                }
            }
        }
        let flows = trial.flows.len();
        let ports: BTreeSet<u16> = trial.flows.values().copied().collect();
        assert!(flows >= 400, "{flows} flows");
        // Of so few in 16,384, a good hash lets hardly any meet.
        let spread = ports.len();
        assert!(
            spread * 10 > flows * 9,
            "{name}: {spread} ports of {flows} flows"
        );
    }
}

/// What the page's table of the outer packet says, byte by byte and not by the model.
#[test]
fn outer_packets_have_expected_bytes() {
    let inner_packet = away().bytes();
    let sent = ethernet(GW, VM1, IPV4, &inner_packet);
    for (name, config, outer) in [
        (
            "geneve",
            configs::geneve(),
            // DF, identification 0, TTL 64, no checksum.
            "0200000000fe 020013890000 0800 4500 0053 0000 4000 40 11 b655 c0000202 \
             c0000242 .... 17c1 003f 0000 00006558 00138900",
        ),
        (
            "vxlan",
            configs::vxlan(),
            // The inner TTL, DSCP 46, and a checksum.
            "0200000000fe 020013890000 0800 45b8 0053 0000 4000 40 11 b59d c0000202 \
             c0000242 .... 12b5 003f .... 08000000 00138900",
        ),
        (
            "geneve6",
            configs::geneve6(),
            "0200000000fe 020013890000 86dd 60000000 003f 11 40 \
             20010db8000000000000000000000002 20010db8000000000000000000000066 .... 3ed1 \
             003f .... 00006558 00138900",
        ),
        (
            "vxlan6",
            configs::vxlan6(),
            "0200000000fe 020013890000 86dd 60000000 003f 11 01 \
             20010db8000000000000000000000002 20010db8000000000000000000000066 .... 12b5 \
             003f 0000 08000000 00138900",
        ),
    ] {
        let mut switch = oracle::trial::Switch::new(&config, 0xee);
        switch.resolve(0);
        let (verdict, left) = switch.process(0, 0, &sent, None);
        assert_eq!(verdict, Verdict::Forward(PortId(OUT as u16)), "{name}");
        let inner_ethernet = "0e0000000066 0e0000000002 0800";
        let expected = format!(
            "{outer}{inner_ethernet}{}",
            oracle::trial::hex(&inner_packet)
        );
        let expected: String = expected.split_whitespace().collect();
        let left = oracle::trial::hex(&left);
        let same = expected.len() == left.len()
            && expected
                .chars()
                .zip(left.chars())
                .all(|(a, b)| a == '.' || a == b);
        assert!(same, "{name}:\n{left}, not\n{expected}");
    }
}

proptest! {
    #![proptest_config(oracle::cases(1000))]

    /// Verdict, reason, bytes and counters of random frames are the model's. A second lies between
    /// two frames, so that the rate of ICMP errors has no say; now and then it is ten minutes.
    #[test]
    fn random_frames_agree_with_model(
        which in any::<prop::sample::Index>(),
        resolved: bool,
        chance in Chance::any(),
    ) {
        let configs = configs::tunnels();
        let (name, config) = which.get(&configs);
        let mut trial = Trial::new(config);
        if resolved {
            trial.resolve(0);
        }
        let mut choices = Choices::new(&chance.0);
        let mut now_ns = 0;
        while !choices.is_spent() {
            let sent = generate::tunnel::frame(&mut choices, config);
            now_ns += SECOND_NS;
            if resolved && choices.once_in(12) {
                now_ns += choices.pick(&[590, 300, 599]) * SECOND_NS;
                trial.poll(now_ns);
                trial.resolve(now_ns);
            }
            if let Err(disagreement) = trial.send(now_ns, sent.from, &sent.bytes, sent.tag) {
                return Err(TestCaseError::fail(format!("{name}: {disagreement}")));
            }
        }
    }
}
