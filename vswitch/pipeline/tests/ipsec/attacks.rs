//! What does not get through, and why.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use packet::DropReason;
use packet::wire::esp::write_datagram;
use pipeline::Verdict;
use pipeline::ipsec::{Bounds, Keys, Lifetime, Notice, Order, OutboundSa, Request, Suite};

use super::site::{End, NOW_NS, PLAIN_PEER, Style, UPLINK, VM, keys, packet, pair, resum};

const IP: usize = 14;
const ESP: usize = IP + 20;

/// `frame` with bytes of its IP header replaced.
fn with_header(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[IP + at..IP + at + bytes.len()].copy_from_slice(bytes);
    resum(&mut frame);
    frame
}

/// A UDP datagram from a host on the underlay to host 8.
fn datagram(from: u8, (source, to): (u16, u16), payload: &[u8]) -> Vec<u8> {
    let style = Style::USUAL;
    let mut frame = vec![0; 3_000];
    let ends = (
        SocketAddr::new(style.address(from), source),
        SocketAddr::new(style.address(8), to),
    );
    let len = write_datagram(&mut frame, ends, false, payload).expect("room");
    frame.truncate(len);
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 0xfe]);
    frame
}

/// An ESP packet from host 7 to host 8 that carries `payload`, sealed by somebody who has the keys.
fn sealed(sa: &mut esp::Outbound, payload: &[u8], next_header: u8) -> Vec<u8> {
    let suite = sa.suite();
    let mut packet = vec![0; suite.sealed_len(payload.len())];
    packet[suite.payload_at()..][..payload.len()].copy_from_slice(payload);
    sa.seal(&mut packet, payload.len(), next_header)
        .expect("a number");
    let mut frame = vec![2, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 0xfe, 8, 0];
    frame.extend([0x45, 0]);
    frame.extend((20 + packet.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 50, 0, 0, 192, 0, 2, 7, 192, 0, 2, 8]);
    resum(&mut frame);
    frame.extend(packet);
    frame
}

/// The peer's own SA, in the hands of somebody who does with it what he likes.
fn stolen() -> esp::Outbound {
    let mut sa = esp::Outbound::new(0x1008, &keys(Suite::Aes256Gcm16, 1), true);
    sa.skip_to(500);
    sa
}

fn udp(source: u16, to: u16) -> Vec<u8> {
    let mut bytes = [source.to_be_bytes(), to.to_be_bytes()].concat();
    bytes.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    bytes
}

/// A frame for each reason, and no other reason for it.
#[test]
fn every_reason_of_ipsec_has_a_frame() {
    use DropReason as Why;
    let (mut here, mut there) = pair(Style::USUAL);
    there.channel.give_blanks();
    let good = here.send(&packet(7, 8, 200));
    let mut sa = stolen();
    let spi = with_header(&good, 20, &[0, 0, 0x10, 0x09]);
    let mut forged = good.clone();
    *forged.last_mut().expect("a byte") ^= 1;
    let mut cut = with_header(&good, 2, &(good.len() as u16 - 14 - 1).to_be_bytes());
    cut.pop();
    let mut options = good[..IP].to_vec();
    options.extend(&good[IP..ESP]);
    options.extend([1; 4]);
    options.extend(&good[ESP..]);
    options[IP] = 0x46;
    options[IP + 2..IP + 4].copy_from_slice(&(good.len() as u16 - 14 + 4).to_be_bytes());
    options[IP + 10..IP + 12].fill(0);
    let sum = !packet::wire::checksum::folded(packet::wire::checksum::sum(&options[IP..ESP + 4]));
    options[IP + 10..IP + 12].copy_from_slice(&sum.to_ne_bytes());
    let ike = [1; 28];
    let mut bad_ike = datagram(7, (500, 500), &ike);
    *bad_ike.last_mut().expect("a byte") ^= 1;
    let rows: Vec<(Why, Vec<u8>)> = vec![
        (Why::EspSpi, spi),
        (Why::EspPeer, with_header(&good, 15, &[PLAIN_PEER])),
        (Why::EspPeer, with_header(&good, 15, &[99])),
        (Why::EspFragment, with_header(&good, 6, &[0x20, 0])),
        (Why::EspFragment, with_header(&good, 6, &[0, 9])),
        (
            Why::EspFragment,
            with_header(&datagram(7, (500, 500), &ike), 6, &[0x20, 0]),
        ),
        (Why::EspMalformed, cut),
        (Why::EspMalformed, with_header(&good, 2, &[0, 27])),
        (Why::EspMalformed, options),
        (Why::EspIcv, forged),
        (Why::EspDummy, sealed(&mut sa, b"nothing", 59)),
        (Why::EspSelector, sealed(&mut sa, &udp(50_000, 6080), 17)),
        (Why::EspSelector, sealed(&mut sa, &[0; 40], 6)),
        (Why::EspSelector, sealed(&mut sa, &good[IP..ESP], 4)),
        (Why::IkePeer, datagram(99, (500, 500), &ike)),
        (Why::IkePeer, datagram(PLAIN_PEER, (500, 500), &ike)),
        (
            Why::IkePeer,
            datagram(99, (4500, 4500), &[[0; 4].as_slice(), &ike].concat()),
        ),
        (Why::IkeMalformed, bad_ike),
        (Why::IkeMalformed, datagram(7, (500, 500), &ike[..27])),
        (Why::IkeMalformed, datagram(7, (500, 500), &[1; 2049])),
        (Why::EspMalformed, datagram(7, (4500, 4500), &[0; 4])),
        (Why::EspMalformed, datagram(7, (4500, 4500), &[0; 3])),
        (Why::EspMalformed, datagram(7, (4500, 4500), &[9; 7])),
        (Why::EspSpi, datagram(7, (4500, 4500), &[9; 60])),
        (Why::Absorbed, datagram(7, (4500, 4500), &[0xff])),
    ];
    let mut shown = BTreeSet::new();
    for (at, (reason, frame)) in rows.iter().enumerate() {
        let len = frame.len();
        if len > 1_600 {
            continue;
        }
        assert_eq!(there.refused(frame), *reason, "row {at}");
        shown.insert(*reason);
    }
    // After the frames above only the good one is left, and it comes once.
    assert_eq!(there.receive(&good).0, Verdict::Forward(VM));
    assert_eq!(there.refused(&good), Why::EspReplay);
    let limit = (0..60).map(|_| there.refused(&datagram(7, (500, 500), &ike)));
    let limit: Vec<_> = limit.collect();
    assert_eq!(
        limit.iter().filter(|why| **why == Why::Absorbed).count(),
        50
    );
    assert_eq!(limit[50..], [Why::IkeRate; 10]);
    shown.extend([Why::EspReplay, Why::IkeRate]);
    // These have tests of their own.
    shown.extend([Why::IpsecPlain, Why::IpsecNoSa, Why::EspExpired]);
    let all = DropReason::ALL.iter().copied();
    let all = all.filter(|why| (67..=80).contains(&why.number()));
    let missing: Vec<_> = all.filter(|why| !shown.contains(why)).collect();
    assert_eq!(missing, []);
}

#[test]
fn flipped_bit_in_any_byte_of_the_wire_changes_nothing_that_arrives() {
    for suite in Suite::ALL {
        let (mut here, mut there) = pair(Style {
            suite,
            ..Style::USUAL
        });
        let sent = packet(7, 8, 60);
        let good = here.send(&sent);
        for at in ESP..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1 << (at % 8);
            assert!(
                matches!(there.receive(&changed).0, Verdict::Drop(_)),
                "{suite} {at}"
            );
        }
        for len in 0..good.len() {
            assert!(
                matches!(there.receive(&good[..len]).0, Verdict::Drop(_)),
                "{suite} {len}"
            );
        }
        let (verdict, arrived) = there.receive(&good);
        assert_eq!(
            (verdict, &arrived[12..]),
            (Verdict::Forward(VM), &sent[12..])
        );
    }
}

#[test]
fn guessed_spis_find_nothing_and_are_counted() {
    let (_, mut there) = pair(Style::USUAL);
    let mut sa = stolen();
    let frame = sealed(&mut sa, &udp(50_000, 6081), 17);
    for guess in 0..5_000u32 {
        let spi = guess.wrapping_mul(0x9e37_79b9) | 1 << 31;
        let guess = with_header(&frame, 20, &spi.to_be_bytes());
        assert_eq!(there.refused(&guess), DropReason::EspSpi);
    }
    assert_eq!(there.drops(UPLINK), [(DropReason::EspSpi, 5_000)]);
}

/// One peer's SA never carries another's source: neither outside nor inside.
#[test]
fn peer_does_not_speak_for_another_peer() {
    let (mut here, mut there) = pair(Style::USUAL);
    // Host 7 says that it is the VM of the other peer.
    let mut inside = packet(7, 8, 100);
    inside[14 + 15] = PLAIN_PEER;
    resum(&mut inside);
    assert_eq!(
        here.process(NOW_NS, VM, &inside).0,
        Verdict::Drop(DropReason::Ipv4Source)
    );
    let mut config = Style::USUAL.config(7, 8);
    config["ports"][0]["addresses"] = serde_json::json!([format!("10.0.0.{PLAIN_PEER}/32")]);
    config["tunnel"]["peers"]
        .as_array_mut()
        .expect("peers")
        .truncate(1);
    let mut liar = End::plain(Style::USUAL, 7, 8, &config);
    liar.pipeline
        .join_ipsec(std::sync::Arc::clone(&liar.channel));
    liar.install_out(liar.request(0x1008), 1);
    let lie = liar.send(&inside);
    assert_eq!(there.refused(&lie), DropReason::IngressSource);
}

#[test]
fn ike_of_a_peer_is_passed_on_whole_and_both_ways() {
    let (_, mut there) = pair(Style::USUAL);
    there.channel.give_blanks();
    let message: Vec<u8> = (0..200).collect();
    let marked = [[0; 4].as_slice(), &message].concat();
    for (ports, payload) in [
        ((500, 500), &message),
        ((4500, 4500), &marked),
        ((1234, 4500), &marked),
    ] {
        assert_eq!(
            there.refused(&datagram(7, ports, payload)),
            DropReason::Absorbed
        );
        let notices = there.notices();
        let [Notice::Ike(came)] = &notices[..] else {
            panic!("{notices:?}");
        };
        assert_eq!(came.bytes(), message);
        assert_eq!((came.from.port(), came.to.port()), ports);
        assert_eq!(came.from.ip(), Style::USUAL.address(7));
        // The answer is what the other end would have sent.
        let answer = pipeline::ipsec::Datagram::new(came.to, came.from, came.bytes());
        there
            .channel
            .order(Order::Send(answer.expect("a datagram")))
            .expect("room");
        let mut sent = Vec::new();
        there
            .pipeline
            .obey_ipsec(NOW_NS, &mut |port, bytes| sent.push((port, bytes.to_vec())));
        let [(port, bytes)] = &sent[..] else {
            panic!("{sent:?}");
        };
        assert_eq!(*port, UPLINK);
        let frame = etherparse::SlicedPacket::from_ethernet(bytes).expect("a packet");
        let Some(etherparse::TransportSlice::Udp(udp)) = frame.transport else {
            panic!("UDP");
        };
        assert_eq!(
            (udp.source_port(), udp.destination_port()),
            (ports.1, ports.0)
        );
        assert_eq!(udp.payload(), &payload[..]);
    }
    // Without room for it, it is lost, and said so.
    while there.channel.notice().is_some() {}
    let mut starved = End::new(Style::USUAL, 8, 7);
    assert_eq!(
        starved.refused(&datagram(7, (500, 500), &message)),
        DropReason::IkeRate
    );
}

#[test]
fn sa_that_the_configuration_does_not_allow_cannot_be_made() {
    use pipeline::ipsec::{Refused, UdpPorts};
    let end = End::new(Style::USUAL, 8, 7);
    let good = end.request(0x1008);
    let keys = keys(Suite::Aes256Gcm16, 1);
    let refused = |request: Request, keys: &Keys| {
        OutboundSa::new(&end.rules, request, keys).expect_err("it is refused")
    };
    let other = super::site::keys(Suite::Aes128Gcm16, 1);
    assert_eq!(refused(good, &other), Refused::Suite(Suite::Aes128Gcm16));
    let stranger = Style::USUAL.address(99);
    for (request, expected) in [
        (Request { spi: 255, ..good }, Refused::Spi(255)),
        (
            Request {
                own: stranger,
                ..good
            },
            Refused::Own(stranger),
        ),
        (
            Request {
                peer: stranger,
                ..good
            },
            Refused::Peer(stranger),
        ),
        (
            Request {
                peer: Style::USUAL.address(PLAIN_PEER),
                ..good
            },
            Refused::Peer(Style::USUAL.address(PLAIN_PEER)),
        ),
        (
            Request {
                own_port: Some(22),
                ..good
            },
            Refused::Selectors,
        ),
        (
            Request {
                encapsulation: Some(UdpPorts {
                    own: 22,
                    peer: 4500,
                }),
                ..good
            },
            Refused::Encapsulation,
        ),
    ] {
        assert_eq!(refused(request, &keys), expected);
    }
    let mut strict = end.rules.clone();
    strict.esn = false;
    assert_eq!(
        OutboundSa::new(&strict, good, &keys).err(),
        Some(Refused::Esn)
    );
}

#[test]
fn expired_sa_opens_nothing() {
    let (mut here, mut there) = (End::new(Style::USUAL, 7, 8), End::new(Style::USUAL, 8, 7));
    here.install_out(here.request(0x1008), 1);
    let hard = Bounds {
        packets: 2,
        ..Bounds::NONE
    };
    let lifetime = Lifetime {
        soft: Bounds::NONE,
        hard,
    };
    there.install_in(
        Request {
            lifetime,
            ..there.request(0x1008)
        },
        1,
    );
    let frames: Vec<_> = (0..4).map(|_| here.send(&packet(7, 8, 100))).collect();
    assert_eq!(there.receive(&frames[0]).0, Verdict::Forward(VM));
    assert_eq!(there.receive(&frames[1]).0, Verdict::Forward(VM));
    assert_eq!(there.refused(&frames[2]), DropReason::EspExpired);
    there.pipeline.poll(NOW_NS + 1, &mut |_, _| {});
    assert_eq!(there.refused(&frames[3]), DropReason::EspSpi);
}

/// RFC 3948: address translation leaves UDP's checksum wrong; without it, it is checked.
#[test]
fn udp_checksum_counts_without_translation_only() {
    let mut inside = packet(7, 8, 100);
    inside[..12].copy_from_slice(&[0; 12]);
    let style = Style::USUAL;
    let mut bare = pair(style);
    let mut wired = bare.0.send(&packet(7, 8, 100));
    // Opens what was sent, spoils the checksum, and seals it again.
    let mut opener = esp::Inbound::new(0x1008, &keys(Suite::Aes256Gcm16, 1), true, 64);
    let opened = opener.open(&mut wired[ESP..]).expect("a packet");
    let mut payload = wired[ESP + opened.begin..ESP + opened.end].to_vec();
    payload[6] ^= 0x55;
    let spoiled = sealed(&mut stolen(), &payload, 17);
    assert_eq!(bare.1.refused(&spoiled), DropReason::TunnelChecksum);
    let (_, mut there) = pair(Style {
        in_udp: true,
        ..style
    });
    let in_udp = datagram(7, (4500, 4500), &spoiled[ESP..]);
    assert_eq!(there.receive(&in_udp).0, Verdict::Forward(VM));
}
