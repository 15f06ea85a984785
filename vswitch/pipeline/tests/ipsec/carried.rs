//! What gets through, and how it looks on the wire.

use packet::{DropReason, Frame};
use pipeline::Verdict;
use pipeline::ipsec::{Mode, Notice, Suite};

use super::site::{End, NOW_NS, PLAIN_PEER, Style, UPLINK, VM, buffer, packet, pair};

fn styles() -> Vec<Style> {
    let mut styles = Vec::new();
    for suite in Suite::ALL {
        for kind in ["geneve", "vxlan"] {
            for ipv6 in [false, true] {
                for mode in [Mode::Transport, Mode::Tunnel] {
                    for in_udp in [false, true] {
                        for esn in [false, true] {
                            styles.push(Style {
                                kind,
                                ipv6,
                                suite,
                                mode,
                                esn,
                                in_udp,
                                mtu: 1700,
                            });
                        }
                    }
                }
            }
        }
    }
    styles
}

#[test]
fn frame_arrives_unchanged_under_every_suite_mode_and_family() {
    for style in styles() {
        let (mut here, mut there) = pair(style);
        for len in [28, 29, 46, 1400, 1500] {
            let sent = packet(7, 8, len);
            let wired = here.send(&sent);
            let inside = &sent[14 + 20..];
            let shows = wired.windows(inside.len()).any(|part| part == inside);
            assert!(!shows, "{style:?} {len}: plaintext on the wire");
            let (verdict, arrived) = there.receive(&wired);
            assert_eq!(verdict, Verdict::Forward(VM), "{style:?} {len}");
            assert_eq!(
                arrived[..12],
                [0x52, 0x54, 0, 0, 0, 8, 2, 0, 0x13, 0x89, 0, 8]
            );
            assert_eq!(arrived[12..], sent[12..], "{style:?} {len}");
            assert_eq!(
                there.refused(&wired),
                DropReason::EspReplay,
                "{style:?} {len}"
            );
        }
        assert_eq!(there.drops(UPLINK), [(DropReason::EspReplay, 5)]);
        assert_eq!(here.drops(VM), []);
    }
}

/// Also where frames that go elsewhere, or nowhere, lie between them; and in their order.
#[test]
fn burst_becomes_what_its_frames_become_one_by_one() {
    let frames: Vec<Vec<u8>> = (0..64)
        .map(|at| match at % 23 {
            5 => packet(7, PLAIN_PEER, 100 + at),
            11 => packet(7, 7, 60),
            12 => packet(9, 8, 60),
            17 => packet(7, 8, 1501),
            _ => packet(7, 8, 28 + (at * 89) % 1450),
        })
        .collect();
    for style in styles() {
        let ((mut alone, _), (mut together, _)) = (pair(style), pair(style));
        let expected: Vec<_> = frames
            .iter()
            .map(|frame| alone.process(NOW_NS, VM, frame))
            .collect();
        let mut buffers: Vec<Vec<u8>> = frames.iter().map(|frame| buffer(frame)).collect();
        let burst = buffers.iter_mut().zip(&frames);
        let burst =
            burst.map(|(buffer, frame)| Frame::new(buffer, Frame::HEADROOM, frame.len(), None));
        let mut got = Vec::new();
        let mut pass = together.pipeline.burst(NOW_NS, VM);
        pass.process_all(burst, |frame, verdict| {
            got.push((verdict, frame.bytes().to_vec()));
        });
        assert!(got == expected, "{style:?}");
        let forwarded = got
            .iter()
            .filter(|(verdict, _)| *verdict == Verdict::Forward(UPLINK));
        assert!(forwarded.count() > 40, "{style:?}");
        assert_eq!(together.drops(VM), alone.drops(VM), "{style:?}");
        assert_eq!(together.counts(), alone.counts(), "{style:?}");
    }
}

#[test]
fn without_sa_nothing_leaves_and_acquire_is_noticed_once_a_second() {
    let mut here = End::new(Style::USUAL, 7, 8);
    let sent = packet(7, 8, 100);
    let mut acquired = 0;
    for millisecond in (0..2_500).step_by(100) {
        let now_ns = NOW_NS + millisecond * 1_000_000;
        let (verdict, _) = here.process(now_ns, VM, &sent);
        assert_eq!(verdict, Verdict::Drop(DropReason::IpsecNoSa));
        for notice in here.notices() {
            let other = Style::USUAL.address(8);
            assert!(matches!(notice, Notice::Acquire { peer } if peer == other));
            acquired += 1;
        }
    }
    assert_eq!(acquired, 3);
    assert_eq!(here.drops(VM), [(DropReason::IpsecNoSa, 25)]);
}

#[test]
fn plain_tunnel_packet_of_protected_peer_is_dropped_and_of_another_passes() {
    use super::site::PLAIN_PEER;
    let (mut here, mut there) = pair(Style::USUAL);
    // What the other end would send without IPsec, written by a switch that has none.
    let plain = |own: u8, to: u8| {
        let mut config = Style::USUAL.config(own, to);
        let tunnel = config["tunnel"].as_object_mut().expect("a tunnel");
        tunnel.remove("ipsec");
        let peers = config["tunnel"]["peers"].as_array_mut().expect("peers");
        peers.truncate(1);
        peers[0]["ipsec"] = "off".into();
        let mut end = End::plain(Style::USUAL, own, to, &config);
        end.send(&packet(own, to, 100))
    };
    assert_eq!(there.refused(&plain(7, 8)), DropReason::IpsecPlain);
    let from_plain_peer = plain(PLAIN_PEER, 8);
    assert_eq!(there.receive(&from_plain_peer).0, Verdict::Forward(VM));
    // And the other way: what is sent to a peer without IPsec is plain.
    let (verdict, sent) = here.process(NOW_NS, VM, &packet(7, PLAIN_PEER, 100));
    assert_eq!((verdict, sent[23]), (Verdict::Forward(UPLINK), 17));
}

/// The fast path opens ESP only as the general path would: verdict, bytes and counters.
#[test]
fn fast_and_general_path_agree_on_every_frame() {
    use super::site::resum;
    // The kind of tunnel matters to what comes behind only.
    for style in styles().into_iter().filter(|style| style.kind == "geneve") {
        let (mut here, mut fast) = pair(style);
        let (_, mut general) = pair(style);
        let mut frames = Vec::new();
        for (at, len) in [28, 60, 1400].into_iter().enumerate() {
            let wired = here.send(&packet(7, 8, len));
            for change in [0, 15, 17, 22, 23, 35, 40, wired.len() - 1] {
                let mut changed = wired.clone();
                changed[change] ^= 1 << at;
                if !style.ipv6 && (14..34).contains(&change) {
                    resum(&mut changed);
                }
                frames.push(changed);
            }
            let mut marked = wired.clone();
            marked[15] |= if style.ipv6 { 0x30 } else { 3 };
            if !style.ipv6 {
                resum(&mut marked);
            }
            frames.push(marked);
            let padded = [&wired[..], &[0; 7]].concat();
            frames.extend([
                wired[..wired.len() - 1].to_vec(),
                padded,
                wired.clone(),
                wired,
            ]);
        }
        for (at, frame) in frames.iter().enumerate() {
            let (quick, slow) = (fast.receive(frame), general.receive_traced(frame));
            assert_eq!(quick.0, slow.0, "{style:?} {at}");
            if matches!(quick.0, Verdict::Forward(_)) {
                assert_eq!(quick.1, slow.1, "{style:?} {at}");
            }
        }
        assert_eq!(fast.counts(), general.counts(), "{style:?}");
    }
}
