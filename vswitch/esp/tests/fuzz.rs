//! Coverage-guided fuzzing: `scripts/fuzz`. As an ordinary test, each target replays its corpus.

use esp::{Inbound, Keys, Outbound, Suite};

fn keys(suite: Suite) -> Keys {
    let (encryption, integrity) = (suite.encryption_key_len(), suite.integrity_key_len());
    Keys::new(suite, &vec![3; encryption], &vec![4; integrity]).expect("keys")
}

/// Any bytes are refused without a panic, and move no window: a byte for the suite, and the packet.
#[test]
fn foreign_packet_is_refused() {
    bolero::check!()
        .with_iterations(2_000)
        .for_each(|input: &[u8]| {
            let Some((choice, packet)) = input.split_first() else {
                return;
            };
            let suite = Suite::ALL[usize::from(choice & 3)];
            let mut sa = Inbound::new(1, &keys(suite), choice & 4 != 0, 64);
            sa.skip_to(u64::from(choice >> 3) << 29);
            let before = sa.sequence();
            assert!(sa.open(&mut packet.to_vec()).is_err());
            assert_eq!(sa.sequence(), before);
        });
}

/// A stream of packets that comes in any order, some of them changed: none is opened twice, and
/// none that was changed. A byte for the suite, and for each event a byte.
#[test]
fn stream_in_any_order_is_opened_once() {
    bolero::check!()
        .with_iterations(200)
        .for_each(|input: &[u8]| {
            let Some((choice, events)) = input.split_first() else {
                return;
            };
            let suite = Suite::ALL[usize::from(choice & 3)];
            let esn = choice & 4 != 0;
            let mut out = Outbound::new(1, &keys(suite), esn);
            let mut into = Inbound::new(1, &keys(suite), esn, 64);
            let mut sent: Vec<(Vec<u8>, bool)> = Vec::new();
            for event in events.iter().take(200) {
                if event & 0xc0 == 0 || sent.is_empty() {
                    let mut packet = vec![*event; suite.sealed_len(usize::from(event & 7))];
                    let len = usize::from(event & 7);
                    assert!(out.seal(&mut packet, len, 17).is_ok());
                    sent.push((packet, false));
                    continue;
                }
                let last = sent.len() - 1;
                let (packet, came) = &mut sent[last - usize::from(event & 0x1f).min(last)];
                let mut arriving = packet.clone();
                let changed = event & 0x20 != 0;
                if changed {
                    let at = 4 + usize::from(*event) % (arriving.len() - 4);
                    arriving[at] ^= 0x10;
                }
                let opened = into.open(&mut arriving).is_ok();
                assert!(!opened || !(changed || *came));
                *came |= opened;
            }
        });
}
