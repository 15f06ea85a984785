//! Lives of SAs: renewal, limits, a new configuration, and the end of whoever negotiates.

use packet::DropReason;
use packet::wire::icmp::Unreachable;
use pipeline::ipsec::{
    Bounds, Direction, InboundSa, Lifetime, Mode, Notice, Order, OutboundSa, Request, Suite,
};
use pipeline::{Generation, Verdict};

use super::site::{End, NOW_NS, Style, UPLINK, VM, keys, packet, pair, read, resum};

const SECOND_NS: u64 = 1_000_000_000;

fn poll(end: &mut End, now_ns: u64) {
    end.pipeline.poll(now_ns, &mut |_, _| {});
}

#[test]
fn renewal_loses_nothing_and_packets_under_way_arrive() {
    let (mut here, mut there) = pair(Style::USUAL);
    let before = here.send(&packet(7, 8, 100));
    let late = here.send(&packet(7, 8, 101));
    // The responder installs inbound first, and both send on the newest policy's SPI.
    there.install_in(there.request(0x2008), 3);
    assert_eq!(there.receive(&before).0, Verdict::Forward(VM));
    here.install_out(here.request(0x2008), 3);
    let renewed = here.send(&packet(7, 8, 102));
    assert_eq!(renewed[34..38], [0, 0, 0x20, 8]);
    assert_eq!(there.receive(&renewed).0, Verdict::Forward(VM));
    assert_eq!(
        there.receive(&late).0,
        Verdict::Forward(VM),
        "the old one is still there"
    );
    let (peer, spi) = (here.request(0x1008).peer, 0x1008);
    here.order(
        NOW_NS,
        Order::Remove {
            direction: Direction::Out,
            peer,
            spi,
        },
    );
    let peer = there.request(0).peer;
    there.order(
        NOW_NS,
        Order::Remove {
            direction: Direction::In,
            peer,
            spi,
        },
    );
    assert_eq!(here.retired(), [(Direction::Out, spi)]);
    assert_eq!(there.retired(), [(Direction::In, spi)]);
    let after = here.send(&packet(7, 8, 103));
    assert_eq!(there.receive(&after).0, Verdict::Forward(VM));
    assert_eq!((here.drops(VM), there.drops(UPLINK)), (vec![], vec![]));
    assert!(here.notices().is_empty() && there.notices().is_empty());
}

/// Both ends renew at once, so there are two new SAs; each is opened, and the older one goes.
#[test]
fn simultaneous_renewal_works() {
    let (mut here, mut there) = pair(Style::USUAL);
    there.install_in(there.request(0x2008), 3);
    there.install_in(there.request(0x3008), 4);
    here.install_out(here.request(0x2008), 3);
    let first = here.send(&packet(7, 8, 100));
    here.install_out(here.request(0x3008), 4);
    let second = here.send(&packet(7, 8, 100));
    for frame in [&second, &first] {
        assert_eq!(there.receive(frame).0, Verdict::Forward(VM));
    }
    let peer = here.request(0).peer;
    here.order(NOW_NS, Order::Use { peer, spi: 0x2008 });
    assert_eq!(here.send(&packet(7, 8, 100))[34..38], [0, 0, 0x20, 8]);
}

#[test]
fn soft_limit_is_noticed_once_and_hard_limit_ends_the_sa() {
    let bounds = |packets, bytes, age_s: u64| Bounds {
        packets,
        bytes,
        age_ns: age_s.saturating_mul(SECOND_NS),
    };
    let none = u64::MAX;
    for (soft, hard) in [
        (bounds(2, none, none), bounds(4, none, none)),
        (bounds(none, 250, none), bounds(none, 500, none)),
        (bounds(none, none, 2), bounds(none, none, 4)),
    ] {
        let mut here = End::new(Style::USUAL, 7, 8);
        let lifetime = Lifetime { soft, hard };
        here.install_out(
            Request {
                lifetime,
                ..here.request(0x1008)
            },
            1,
        );
        let (mut said, mut sent) = (Vec::new(), 0);
        for second in 0..8 {
            let now_ns = NOW_NS + second * SECOND_NS;
            poll(&mut here, now_ns);
            let (verdict, _) = here.process(now_ns, VM, &packet(7, 8, 100));
            sent += u64::from(verdict == Verdict::Forward(UPLINK));
            said.extend(here.notices().into_iter().map(|notice| (second, notice)));
        }
        assert_eq!(sent, 4, "{lifetime:?}");
        let said: Vec<_> = said
            .iter()
            .map(|(second, notice)| match notice {
                Notice::Soft {
                    direction: Direction::Out,
                    spi: 0x1008,
                    ..
                } => (*second, "soft"),
                Notice::Hard {
                    direction: Direction::Out,
                    spi: 0x1008,
                    ..
                } => (*second, "hard"),
                Notice::Acquire { .. } => (*second, "acquire"),
                notice => panic!("{notice:?}"),
            })
            .collect();
        let acquires = [
            (4, "acquire"),
            (5, "acquire"),
            (6, "acquire"),
            (7, "acquire"),
        ];
        let expected = [&[(2, "soft"), (4, "hard")][..], &acquires].concat();
        assert_eq!(said, expected, "{lifetime:?}");
        assert_eq!(here.retired(), [(Direction::Out, 0x1008)]);
    }
}

#[test]
fn sequence_numbers_are_never_used_twice_without_esn() {
    let style = Style {
        esn: false,
        ..Style::USUAL
    };
    let (mut here, _) = pair(style);
    let first = here.send(&packet(7, 8, 100));
    let second = here.send(&packet(7, 8, 100));
    assert_eq!(
        (&first[38..42], &second[38..42]),
        (&[0, 0, 0, 1][..], &[0, 0, 0, 2][..])
    );
    assert_ne!(first[42..50], second[42..50], "the IV");
}

#[test]
fn wiped_switch_sends_and_accepts_nothing_and_hands_every_sa_back() {
    let (mut here, mut there) = pair(Style::USUAL);
    let under_way = here.send(&packet(7, 8, 100));
    here.order(NOW_NS, Order::Wipe);
    there.order(NOW_NS, Order::Wipe);
    assert_eq!(
        here.process(NOW_NS, VM, &packet(7, 8, 100)).0,
        Verdict::Drop(DropReason::IpsecNoSa)
    );
    assert_eq!(there.refused(&under_way), DropReason::EspSpi);
    for end in [&here, &there] {
        let mut retired = end.retired();
        retired.sort_by_key(|(_, spi)| *spi);
        assert_eq!(retired.len(), 2);
    }
    let acquires = here.notices();
    assert!(
        matches!(acquires[..], [Notice::Acquire { .. }]),
        "{acquires:?}"
    );
    // And it can begin again.
    there.install_in(there.request(0x5008), 9);
    here.install_out(here.request(0x5008), 9);
    let again = here.send(&packet(7, 8, 100));
    assert_eq!(there.receive(&again).0, Verdict::Forward(VM));
}

#[test]
fn new_configuration_keeps_sas_that_it_allows_and_their_numbers() {
    let (mut here, mut there) = pair(Style::USUAL);
    let first = here.send(&packet(7, 8, 100));
    for reorder in [false, true] {
        let mut config = Style::USUAL.config(7, 8);
        let peers = config["tunnel"]["peers"].as_array_mut().expect("peers");
        if reorder {
            peers.swap(0, 1);
        }
        let previous = (&*here.pipeline.tables(), &*here.pipeline.counters());
        let generation = Generation::build(&read(&config), Some(previous));
        drop(here.pipeline.install(generation));
        let next = here.send(&packet(7, 8, 100));
        let number = u32::from_be_bytes(next[38..42].try_into().expect("a number"));
        assert_eq!(number, if reorder { 3 } else { 2 });
        assert_eq!(there.receive(&next).0, Verdict::Forward(VM));
    }
    assert_eq!(there.receive(&first).0, Verdict::Forward(VM));
    assert!(here.notices().is_empty());
    // What it does not allow ends, and is said to have ended.
    let mut config = Style::USUAL.config(7, 8);
    config["tunnel"]["ipsec"]["suites"] = serde_json::json!(["aes128gcm16"]);
    let previous = (&*here.pipeline.tables(), &*here.pipeline.counters());
    let generation = Generation::build(&read(&config), Some(previous));
    drop(here.pipeline.install(generation));
    let (verdict, _) = here.process(NOW_NS, VM, &packet(7, 8, 100));
    assert_eq!(verdict, Verdict::Drop(DropReason::IpsecNoSa));
    let ended = here.notices();
    let ended = ended
        .iter()
        .filter(|notice| matches!(notice, Notice::Hard { .. }));
    assert_eq!(ended.count(), 2);
}

#[test]
fn sas_beyond_the_room_of_an_endpoint_are_refused() {
    let mut there = End::new(Style::USUAL, 8, 7);
    for spi in 0x1000..0x1008 {
        there.install_in(there.request(spi), 1);
    }
    assert!(there.notices().is_empty());
    there.install_in(there.request(0x2000), 1);
    let notices = there.notices();
    assert!(
        matches!(notices[..], [Notice::Hard { spi: 0x2000, .. }]),
        "{notices:?}"
    );
    assert_eq!(there.retired(), [(Direction::In, 0x2000)]);
    // One with the same SPI takes the other's place.
    there.install_in(there.request(0x1000), 2);
    assert_eq!(there.retired(), [(Direction::In, 0x1000)]);
}

/// Acceptance: the largest inner packet over an underlay of 1,500 bytes.
#[test]
fn inner_mtu_is_what_esp_leaves() {
    use Suite::{Aes256CbcSha256, Aes256Gcm16};
    for (suite, ipv6, in_udp, mtu) in [
        (Aes256Gcm16, false, false, 1416),
        (Aes256Gcm16, true, false, 1396),
        (Aes256Gcm16, false, true, 1408),
        (Aes256CbcSha256, false, false, 1408),
        (Aes256CbcSha256, true, false, 1376),
        (Aes256CbcSha256, false, true, 1392),
    ] {
        let style = Style {
            suite,
            ipv6,
            in_udp,
            mtu: 1500,
            ..Style::USUAL
        };
        let (mut here, mut there) = pair(style);
        let (verdict, error) = here.process(NOW_NS, VM, &packet(7, 8, mtu + 1));
        assert_eq!(
            verdict,
            Verdict::DropWithError(DropReason::Mtu),
            "{style:?}"
        );
        assert_eq!(
            error[14 + 26..14 + 28],
            (mtu as u16).to_be_bytes(),
            "{style:?}"
        );
        let wired = here.send(&packet(7, 8, mtu));
        assert!(
            wired.len() - 14 <= 1500 && wired.len() - 14 > 1500 - 16,
            "{style:?}"
        );
        assert_eq!(there.receive(&wired).0, Verdict::Forward(VM), "{style:?}");
    }
}

/// RFC 6040, in both modes: a mark on the outer header reaches the packet.
#[test]
fn congestion_marks_reach_the_packet() {
    use pipeline::ipsec::Mode;
    for mode in [Mode::Transport, Mode::Tunnel] {
        let (mut here, mut there) = pair(Style {
            mode,
            ..Style::USUAL
        });
        for (inside, outside, expected) in [(2, 3, Some(3)), (0, 3, None), (1, 1, Some(1))] {
            let mut sent = packet(7, 8, 100);
            sent[15] = inside;
            resum(&mut sent);
            let mut wired = here.send(&sent);
            assert_eq!(wired[15], inside);
            wired[15] = outside;
            resum(&mut wired);
            let (verdict, arrived) = there.receive(&wired);
            match expected {
                Some(ecn) => assert_eq!((verdict, arrived[15]), (Verdict::Forward(VM), ecn)),
                None => assert_eq!(verdict, Verdict::Drop(DropReason::TunnelEcn)),
            }
        }
    }
}

/// A router's report about the packet in `wired`, or a part of it, to host 7.
fn report(wired: &[u8], mtu: u16, from: u8) -> Vec<u8> {
    said(4, mtu, wired, from)
}

/// ICMP type 3 with that code about such a packet.
fn said(code: u8, mtu: u16, wired: &[u8], from: u8) -> Vec<u8> {
    let mut icmp = vec![3, code, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(wired);
    let sum = !packet::wire::checksum::folded(packet::wire::checksum::sum(&icmp));
    icmp[2..4].copy_from_slice(&sum.to_ne_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 0xfe, 8, 0, 0x45, 0];
    frame.extend((20 + icmp.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 60, 1, 0, 0, 198, 51, 100, from, 192, 0, 2, 7]);
    frame.extend(icmp);
    resum(&mut frame);
    frame
}

/// Acceptance: routers quote ESP's SPI. Only who has seen a packet is believed.
#[test]
fn path_mtu_is_believed_from_who_quotes_a_live_spi() {
    for in_udp in [false, true] {
        let style = Style {
            in_udp,
            mtu: 1500,
            ..Style::USUAL
        };
        let (mut here, _) = pair(style);
        let quoted = if in_udp { 36 } else { 28 };
        let spi = quoted - 8;
        let wired = here.send(&packet(7, 8, 1400))[14..].to_vec();
        let fits = |here: &mut End, len: usize| {
            here.process(NOW_NS, VM, &packet(7, 8, len)).0 == Verdict::Forward(UPLINK)
        };
        let changed = |at: usize, to: u8| {
            let mut quote = wired.clone();
            quote[at] = to;
            quote
        };
        let resummed = |at: usize, to: u8| {
            let mut frame = [&[0; 14][..], &changed(at, to)].concat();
            resum(&mut frame);
            frame[14..].to_vec()
        };
        let refused = [
            (changed(spi, 0x77), "another SPI"),
            (changed(spi + 7, 9), "a sequence number that was not used"),
            (changed(spi + 7, 0), "sequence number 0"),
            (resummed(6, 0), "without DF"),
            (resummed(5, 1), "an identification"),
            (resummed(3, wired[3] + 1), "a length that no packet has"),
            (resummed(2, 4), "a length that was not sent"),
            (changed(10, wired[10] ^ 1), "a wrong header checksum"),
        ];
        for (at, (quote, what)) in refused.iter().enumerate() {
            let report = report(&quote[..quoted], 1300, at as u8);
            assert_eq!(here.refused(&report), DropReason::GatewayService, "{what}");
            assert!(fits(&mut here, 1400), "{what}");
        }
        let short = report(&wired[..quoted - 1], 1300, 50);
        assert_eq!(here.refused(&short), DropReason::GatewayService);
        let larger = report(&wired[..quoted], wired.len() as u16, 50);
        assert_eq!(here.refused(&larger), DropReason::GatewayService);
        let genuine = report(&wired[..quoted], 1300, 50);
        assert_eq!(here.refused(&genuine), DropReason::Absorbed);
        let most = if in_udp { 1208 } else { 1216 };
        assert!(
            fits(&mut here, most) && !fits(&mut here, most + 1),
            "{in_udp}"
        );
        let later = NOW_NS + 601 * SECOND_NS;
        poll(&mut here, later);
        assert!(
            fits(&mut here, 1400),
            "after ten minutes larger packets are tried"
        );
    }
}

/// That an endpoint cannot be reached is shown, where a packet of any size is quoted that was sent
/// to it.
#[test]
fn unreachable_is_shown_from_who_quotes_a_live_spi() {
    for in_udp in [false, true] {
        let style = Style {
            in_udp,
            ..Style::USUAL
        };
        let (mut here, _) = pair(style);
        let quoted = if in_udp { 36 } else { 28 };
        let wired = here.send(&packet(7, 8, 100))[14..][..quoted].to_vec();
        let shown = |here: &mut End| {
            poll(here, NOW_NS);
            let counters = here.pipeline.counters();
            counters.undelivered[0].get(NOW_NS)
        };
        let mut other = wired.clone();
        other[quoted - 8] = 0x77;
        let mut unused = wired.clone();
        unused[quoted - 1] = 9;
        for (at, quote) in (0..).zip([&other[..], &unused, &wired[..quoted - 1]]) {
            let refused = here.refused(&said(3, 0, quote, at));
            assert_eq!(refused, DropReason::GatewayService, "{at}");
            assert_eq!(shown(&mut here), None, "{at}");
        }
        let heard = here.refused(&said(2, 0, &wired, 50));
        assert_eq!(heard, DropReason::Absorbed, "{in_udp}");
        let shown = shown(&mut here).expect("it is shown");
        let expected = (Unreachable::Protocol, [198, 51, 100, 50].into());
        assert_eq!((shown.why, shown.from), expected, "{in_udp}");
    }
}

/// The smallest path MTU that is believed is what a packet of 576 bytes becomes: with Geneve, ESP's
/// 8 bytes, an IV of 8, a trailer of 2, an ICV of 16, and UDP's 8.
#[test]
fn path_mtu_below_the_least_changes_nothing() {
    for (in_udp, least) in [(false, 660), (true, 668)] {
        let style = Style {
            in_udp,
            mtu: 1500,
            ..Style::USUAL
        };
        let (mut here, _) = pair(style);
        let quoted = if in_udp { 36 } else { 28 };
        let quote = here.send(&packet(7, 8, 1400))[14..][..quoted].to_vec();
        let fits = |here: &mut End, len: usize| {
            here.process(NOW_NS, VM, &packet(7, 8, len)).0 == Verdict::Forward(UPLINK)
        };
        let too_small = report(&quote, least - 1, 50);
        assert_eq!(here.refused(&too_small), DropReason::Absorbed, "{in_udp}");
        assert!(fits(&mut here, 1400), "{in_udp}");
        let smallest = report(&quote, least, 50);
        assert_eq!(here.refused(&smallest), DropReason::Absorbed, "{in_udp}");
        assert!(fits(&mut here, 576) && !fits(&mut here, 577), "{in_udp}");
    }
}

/// A quote shows the length of ESP, of which four lengths of packets have the same. It is believed
/// if even the least of them was sent.
#[test]
fn quote_of_the_next_length_is_refused() {
    for mode in [Mode::Transport, Mode::Tunnel] {
        let style = Style {
            mode,
            mtu: 1500,
            ..Style::USUAL
        };
        let (mut here, _) = pair(style);
        // Of the packets that need no more padding, the largest.
        let quote = here.send(&packet(7, 8, 1200))[14..][..28].to_vec();
        let mut longer = [&[0; 14][..], &quote].concat();
        longer[17] += 4;
        resum(&mut longer);
        let forged = report(&longer[14..], 700, 50);
        assert_eq!(
            here.refused(&forged),
            DropReason::GatewayService,
            "{mode:?}"
        );
        let genuine = report(&quote, 700, 50);
        assert_eq!(here.refused(&genuine), DropReason::Absorbed, "{mode:?}");
    }
}

/// What there is no room for is handed back, and said to have ended.
#[test]
fn ninth_sa_of_an_endpoint_is_refused() {
    let mut here = End::new(Style::USUAL, 7, 8);
    for number in 1..=8 {
        here.install_out(here.request(0x1000 + number), 1);
        here.install_in(here.request(0x1000 + number), 1);
    }
    assert!(here.notices().is_empty() && here.retired().is_empty());
    here.install_out(here.request(0x1009), 1);
    here.install_in(here.request(0x1009), 1);
    let ended: Vec<_> = here
        .notices()
        .iter()
        .map(|notice| match notice {
            Notice::Hard { direction, spi, .. } => (*direction, *spi),
            other => panic!("{other:?}"),
        })
        .collect();
    let both = [(Direction::Out, 0x1009), (Direction::In, 0x1009)];
    assert_eq!(ended, both);
    assert_eq!(here.retired(), both);
}

/// Of SAs that a new configuration ends, what they did counts on.
#[test]
fn counts_outlive_a_configuration_that_ends_sas() {
    let (mut here, mut there) = pair(Style::USUAL);
    for _ in 0..3 {
        let wired = here.send(&packet(7, 8, 100));
        assert_eq!(there.receive(&wired).0, Verdict::Forward(VM));
    }
    for end in [&mut here, &mut there] {
        let mut config = Style::USUAL.config(end.own, end.other);
        config["tunnel"]["ipsec"]["suites"] = serde_json::json!(["aes128gcm16"]);
        let previous = (&*end.pipeline.tables(), &*end.pipeline.counters());
        let generation = Generation::build(&read(&config), Some(previous));
        drop(end.pipeline.install(generation));
        poll(end, NOW_NS);
    }
    let (here, there) = (here.pipeline.counters(), there.pipeline.counters());
    let sent = here.endpoints().next().expect("an endpoint");
    assert_eq!((sent.tx_packets.get(), sent.tx_bytes.get()), (3, 390));
    let got = there.endpoints().next().expect("an endpoint");
    assert_eq!((got.rx_packets.get(), got.rx_bytes.get()), (3, 390));
}

/// The SA that is shown opens what comes to the tunnel's port, and not what answers our packets.
#[test]
fn sa_of_answers_is_not_shown() {
    let mut there = End::new(Style::USUAL, 8, 7);
    there.install_in(there.request(0x1008), 1);
    let answers = Request {
        peer_port: Some(Style::USUAL.port()),
        ..there.request(0x2008)
    };
    let keys = keys(Style::USUAL.suite, 2);
    let newer = InboundSa::new(&there.rules, answers, &keys).expect("an SA");
    there.order(NOW_NS + 1, Order::InstallIn(newer));
    poll(&mut there, NOW_NS + 2);
    let counters = there.pipeline.counters();
    let shown = counters.endpoints().next().expect("an endpoint");
    assert_eq!(shown.inbound.get().map(|sa| sa.spi), Some(0x1008));
}

/// The same configuration again is no reason to ask again.
#[test]
fn missing_sa_is_noticed_once_a_second_across_reloads() {
    let mut here = End::new(Style::USUAL, 7, 8);
    for (after_ns, noticed) in [(0, 1), (SECOND_NS - 1, 0), (SECOND_NS, 1)] {
        let (verdict, _) = here.process(NOW_NS + after_ns, VM, &packet(7, 8, 100));
        assert_eq!(verdict, Verdict::Drop(DropReason::IpsecNoSa));
        assert_eq!(here.notices().len(), noticed, "{after_ns}");
        let config = read(&Style::USUAL.config(7, 8));
        let previous = (&*here.pipeline.tables(), &*here.pipeline.counters());
        let generation = Generation::build(&config, Some(previous));
        drop(here.pipeline.install(generation));
    }
}

/// For captures that begin in the middle, with numbers of which ESP shows one half.
#[test]
fn sas_begin_behind_the_numbers_that_are_left_out() {
    let (mut here, mut there) = (End::new(Style::USUAL, 7, 8), End::new(Style::USUAL, 8, 7));
    let port = Some(Style::USUAL.port());
    let before = (1 << 32) + 5;
    let keys = keys(Style::USUAL.suite, 1);
    let request = Request {
        own_port: port,
        ..there.request(0x1008)
    };
    let mut sa = InboundSa::new(&there.rules, request, &keys).expect("an SA");
    sa.skip_to(before);
    there.order(NOW_NS, Order::InstallIn(sa));
    let request = Request {
        peer_port: port,
        ..here.request(0x1008)
    };
    let mut sa = OutboundSa::new(&here.rules, request, &keys).expect("an SA");
    sa.skip_to(before);
    here.order(NOW_NS, Order::InstallOut(sa));
    let (peer, spi) = (request.peer, request.spi);
    here.order(NOW_NS, Order::Use { peer, spi });
    let wired = here.send(&packet(7, 8, 100));
    assert_eq!(wired[38..42], [0, 0, 0, 6]);
    assert_eq!(there.receive(&wired).0, Verdict::Forward(VM));
}

#[test]
fn what_is_shown_survives_renewal() {
    let (mut here, mut there) = pair(Style::USUAL);
    for round in 0..2 {
        for _ in 0..3 {
            let wired = here.send(&packet(7, 8, 100));
            assert_eq!(there.receive(&wired).0, Verdict::Forward(VM));
            assert_eq!(there.refused(&wired), DropReason::EspReplay);
        }
        let mut forged = here.send(&packet(7, 8, 100));
        *forged.last_mut().expect("a byte") ^= 1;
        assert_eq!(there.refused(&forged), DropReason::EspIcv);
        poll(&mut here, NOW_NS);
        poll(&mut there, NOW_NS);
        let (here_counts, there_counts) = (here.pipeline.counters(), there.pipeline.counters());
        let sent = here_counts.endpoints().next().expect("an endpoint");
        let got = there_counts.endpoints().next().expect("an endpoint");
        let rounds = round + 1;
        // UDP, Geneve and Ethernet around 100 bytes.
        assert_eq!(
            (sent.tx_packets.get(), sent.tx_bytes.get()),
            (4 * rounds, 520 * rounds)
        );
        assert_eq!(
            (got.rx_packets.get(), got.rx_bytes.get()),
            (3 * rounds, 390 * rounds)
        );
        assert_eq!((got.replayed.get(), got.forged.get()), (3 * rounds, rounds));
        let spi = 0x1008 + 0x1000 * round as u32;
        let shown = sent.outbound.get().expect("an SA");
        assert_eq!((shown.spi, shown.packets, shown.esn), (spi, 4, true));
        assert_eq!(got.inbound.get().expect("an SA").spi, spi);
        let next = spi + 0x1000;
        there.install_in(there.request(next), 3);
        here.install_out(here.request(next), 3);
        let (peer, direction) = (there.request(0).peer, Direction::In);
        there.order(
            NOW_NS,
            Order::Remove {
                direction,
                peer,
                spi,
            },
        );
        let (peer, direction) = (here.request(0).peer, Direction::Out);
        here.order(
            NOW_NS,
            Order::Remove {
                direction,
                peer,
                spi,
            },
        );
    }
}
