//! What must hold of all packets and all orders in which they come.

use std::collections::HashSet;

use esp::{Inbound, Keys, OpenError, Outbound, Suite, Window};
use proptest::prelude::*;

fn keys(suite: Suite) -> Keys {
    let encryption: Vec<u8> = (0..suite.encryption_key_len()).map(|at| at as u8).collect();
    let integrity: Vec<u8> = (0..suite.integrity_key_len()).map(|at| !at as u8).collect();
    Keys::new(suite, &encryption, &integrity).expect("keys")
}

fn sealed(sa: &mut Outbound, payload: &[u8], next_header: u8) -> Vec<u8> {
    let suite = sa.suite();
    let mut packet = vec![0xa5; suite.sealed_len(payload.len())];
    packet[suite.payload_at()..][..payload.len()].copy_from_slice(payload);
    sa.seal(&mut packet, payload.len(), next_header)
        .expect("a sequence number");
    packet
}

fn suite() -> impl Strategy<Value = Suite> {
    prop::sample::select(Suite::ALL.to_vec())
}

proptest! {
    #[test]
    fn payload_comes_out_as_it_went_in(
        suite in suite(),
        esn: bool,
        before in 0..u64::from(u32::MAX) - 4,
        payload in prop::collection::vec(any::<u8>(), 0..300),
        next_header in (0..=255u8).prop_filter("no dummy", |next| *next != 59),
    ) {
        let mut out = Outbound::new(9, &keys(suite), esn);
        let mut into = Inbound::new(9, &keys(suite), esn, 64);
        out.skip_to(before);
        into.skip_to(before);
        let mut packet = sealed(&mut out, &payload, next_header);
        let opened = into.open(&mut packet).expect("a packet");
        prop_assert_eq!(&packet[opened.begin..opened.end], &payload[..]);
        prop_assert_eq!((opened.next_header, opened.sequence), (next_header, before + 1));
    }

    #[test]
    fn packets_sealed_together_are_those_sealed_one_by_one(
        suite in suite(),
        esn: bool,
        before in prop::sample::select(vec![0, (1 << 32) - 6]),
        payloads in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..200),
            0..=Outbound::TOGETHER,
        ),
    ) {
        let (mut alone, mut together) =
            (Outbound::new(9, &keys(suite), esn), Outbound::new(9, &keys(suite), esn));
        let before = if esn { before } else { 0 };
        alone.skip_to(before);
        together.skip_to(before);
        let expected: Vec<_> =
            payloads.iter().map(|payload| sealed(&mut alone, payload, 17)).collect();
        let mut packets: Vec<(Vec<u8>, _)> = Vec::new();
        for payload in &payloads {
            let mut packet = vec![0x5a; suite.sealed_len(payload.len())];
            packet[suite.payload_at()..][..payload.len()].copy_from_slice(payload);
            let stamp = together.stamp(&mut packet, payload.len(), 17);
            packets.push((packet, stamp.expect("a sequence number")));
        }
        let all = packets.iter_mut().map(|(packet, stamp)| (*stamp, packet.as_mut_slice()));
        prop_assert_eq!(together.seal_together(all), payloads.len());
        let got: Vec<_> = packets.into_iter().map(|(packet, _)| packet).collect();
        prop_assert_eq!(got, expected);
        prop_assert_eq!(together.sequence(), alone.sequence());
    }

    #[test]
    fn flipped_bit_is_noticed_and_moves_no_window(
        suite in suite(),
        esn: bool,
        payload in prop::collection::vec(any::<u8>(), 0..100),
        bit in 0..8u32,
    ) {
        let mut out = Outbound::new(9, &keys(suite), esn);
        let mut into = Inbound::new(9, &keys(suite), esn, 64);
        let packet = sealed(&mut out, &payload, 17);
        // The SPI is the caller's to compare.
        for at in 4..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 1 << bit;
            prop_assert!(into.open(&mut changed).is_err(), "byte {}", at);
            prop_assert_eq!(into.sequence(), 0);
        }
        prop_assert!(into.open(&mut packet.clone()).is_ok());
    }

    /// The window against a model that remembers every number.
    #[test]
    fn window_agrees_with_slow_model(
        size in 64..4097u32,
        esn: bool,
        begin in prop::sample::select(
            vec![0, 1, 63, 5_000, (1 << 32) - 3_000, (1 << 32) - 3, 7 << 32],
        ),
        steps in prop::collection::vec((-5_000..6_000i64, any::<bool>()), 1..300),
    ) {
        let begin = if esn { begin } else { begin.min((1 << 32) - 1) };
        let mut window = Window::new(size, esn);
        window.skip_to(begin);
        let (mut top, mut seen) = (begin, HashSet::from([begin]));
        for (step, genuine) in steps {
            let last = if esn { i64::MAX } else { u32::MAX.into() };
            let sequence = (top as i64 + step).clamp(0, last) as u64;
            let inside = sequence <= top && top - sequence < u64::from(size);
            let is_new = sequence > top || (inside && !seen.contains(&sequence));
            let fresh = sequence > 0 && is_new;
            let found = window.find(sequence as u32);
            let is_left = sequence <= top && top - sequence >= u64::from(size);
            if esn && is_left {
                // The receiver takes it for one 2^32 later, and the ICV is wrong.
                prop_assert!(found.is_err() || found == Ok(sequence + (1 << 32)));
            } else {
                prop_assert_eq!(found.ok(), fresh.then_some(sequence));
            }
            if fresh && genuine {
                window.accept(sequence);
                seen.insert(sequence);
                top = top.max(sequence);
            }
            prop_assert_eq!(window.top(), top);
        }
    }
}

#[test]
fn sequence_numbers_begin_with_one_and_never_repeat() {
    for suite in Suite::ALL {
        let mut sa = Outbound::new(9, &keys(suite), false);
        let mut ivs = HashSet::new();
        for sequence in 1..=200u32 {
            let packet = sealed(&mut sa, b"the same", 17);
            assert_eq!(packet[4..8], sequence.to_be_bytes());
            assert!(
                ivs.insert(packet[8..suite.payload_at()].to_vec()),
                "{suite}"
            );
        }
        sa.skip_to(u64::from(u32::MAX) - 1);
        sealed(&mut sa, b"the last", 17);
        assert!(!sa.can_seal());
        let mut packet = vec![0; suite.sealed_len(8)];
        assert!(sa.seal(&mut packet, 8, 17).is_err());
        assert!(
            packet.iter().all(|byte| *byte == 0),
            "the packet is unchanged"
        );
    }
}

#[test]
fn extended_numbers_cross_the_half_in_both_directions() {
    for suite in Suite::ALL {
        let mut out = Outbound::new(9, &keys(suite), true);
        let mut into = Inbound::new(9, &keys(suite), true, 64);
        out.skip_to((1 << 32) - 5);
        into.skip_to((1 << 32) - 5);
        let mut packets: Vec<_> = (0..10).map(|at| sealed(&mut out, &[at], 17)).collect();
        assert_eq!(packets[4][4..8], [0; 4], "number 2^32");
        // The last first, and then those from before the half.
        packets.swap(0, 9);
        for packet in &packets {
            assert!(into.open(&mut packet.clone()).is_ok(), "{suite}");
        }
        assert_eq!(into.sequence(), (1 << 32) + 5);
        for packet in &packets {
            assert_eq!(
                into.open(&mut packet.clone()),
                Err(OpenError::Replay),
                "{suite}"
            );
        }
    }
}

#[test]
fn forged_high_number_does_not_move_the_window() {
    for suite in Suite::ALL {
        let mut out = Outbound::new(9, &keys(suite), false);
        let mut into = Inbound::new(9, &keys(suite), false, 64);
        let packet = sealed(&mut out, b"first", 17);
        let mut forged = packet.clone();
        forged[4] = 0xff;
        assert_eq!(into.open(&mut forged), Err(OpenError::Icv));
        let mut zero = packet.clone();
        zero[4..8].fill(0);
        assert_eq!(
            into.open(&mut zero),
            Err(OpenError::Replay),
            "0 is no number"
        );
        assert!(into.open(&mut packet.clone()).is_ok());
    }
}

#[test]
fn more_packets_than_fit_are_not_sealed_and_said_so() {
    let suite = Suite::Aes256CbcSha256;
    let mut out = Outbound::new(9, &keys(suite), true);
    let mut packets: Vec<(Vec<u8>, _)> = (0..=Outbound::TOGETHER)
        .map(|_| {
            let mut packet = vec![0; suite.sealed_len(40)];
            let stamp = out.stamp(&mut packet, 40, 17).expect("a number");
            (packet, stamp)
        })
        .collect();
    let plain = packets[Outbound::TOGETHER].0.clone();
    let all = packets.iter_mut();
    let all = all.map(|(packet, stamp)| (*stamp, packet.as_mut_slice()));
    assert_eq!(out.seal_together(all), Outbound::TOGETHER);
    assert_eq!(packets[Outbound::TOGETHER].0, plain);
}

#[test]
fn dummy_counts_for_the_window_and_carries_nothing() {
    let suite = Suite::Aes128Gcm16;
    let mut out = Outbound::new(9, &keys(suite), false);
    let mut into = Inbound::new(9, &keys(suite), false, 64);
    let dummy = sealed(&mut out, b"whatever", 59);
    assert_eq!(into.open(&mut dummy.clone()), Err(OpenError::Dummy));
    assert_eq!(into.open(&mut dummy.clone()), Err(OpenError::Replay));
}

/// Padding that no sender may write, under a right ICV.
#[test]
fn wrong_padding_is_refused() {
    use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let suite = Suite::Aes128Gcm16;
    let key: Vec<u8> = (0..20).collect();
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key[..16]).expect("a key"));
    let sealed = |sequence: u32, text: &[u8]| {
        let mut packet = 9u32.to_be_bytes().to_vec();
        packet.extend(sequence.to_be_bytes());
        let aad = Aad::from(packet.clone());
        packet.extend([7; 8]);
        let mut nonce = [7; 12];
        nonce[..4].copy_from_slice(&key[16..]);
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        cipher
            .seal_in_place_append_tag(nonce, aad, &mut text)
            .expect("a tag");
        packet.extend(text);
        packet
    };
    let mut into = Inbound::new(9, &keys(suite), false, 64);
    for (sequence, text, expected) in [
        (1, &[0x11, 0x22, 0, 17][..], None),
        (2, &[1, 2, 2, 17], None),
        (3, &[1, 1, 2, 17], Some(OpenError::Padding)),
        (4, &[0, 0, 2, 17], Some(OpenError::Padding)),
        (5, &[2, 3, 2, 17], Some(OpenError::Padding)),
        (6, &[1, 2, 3, 17], Some(OpenError::Padding)),
        (7, &[1, 2, 255, 17], Some(OpenError::Padding)),
        (8, &[1, 2, 3, 4, 5, 6, 6, 17], None),
        (9, &[1, 2, 3, 4, 5, 6, 7, 17], Some(OpenError::Padding)),
        (10, &[1, 2, 3, 4, 5, 17], Some(OpenError::Length)),
        (11, &[], Some(OpenError::Length)),
    ] {
        let opened = into.open(&mut sealed(sequence, text));
        assert_eq!(opened.err(), expected, "{sequence}");
    }
}
