//! Packets that others sealed: the Linux kernel, scapy, python3-cryptography, and RFC 7634.

use esp::{Inbound, Keys, OpenError, Suite};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    by: String,
    suite: String,
    esn: bool,
    encryption_key: String,
    integrity_key: String,
    /// A sequence number that came before.
    before: u64,
    sequence: u64,
    next_header: u8,
    esp: String,
    payload: String,
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16);
    digits.map(|pair| byte(pair).expect("hex")).collect()
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("vectors.json")).expect("vectors")
}

impl Vector {
    fn inbound(&self) -> Inbound {
        let suite = Suite::from_name(&self.suite).expect("a suite");
        let keys = Keys::new(suite, &hex(&self.encryption_key), &hex(&self.integrity_key));
        let spi = esp::spi(&hex(&self.esp)).expect("an SPI");
        let mut sa = Inbound::new(spi, &keys.expect("keys"), self.esn, 1024);
        sa.skip_to(self.before);
        sa
    }
}

#[test]
fn packet_of_another_implementation_is_opened_once() {
    for (at, vector) in vectors().iter().enumerate() {
        let what = format!("{at}, by {}, {}", vector.by, vector.suite);
        let mut sa = vector.inbound();
        let mut packet = hex(&vector.esp);
        let opened = sa.open(&mut packet).expect(&what);
        let payload = &packet[opened.begin..opened.end];
        assert_eq!(payload, hex(&vector.payload), "{what}");
        assert_eq!(opened.next_header, vector.next_header, "{what}");
        assert_eq!(opened.sequence, vector.sequence, "{what}");
        assert_eq!(
            sa.open(&mut hex(&vector.esp)),
            Err(OpenError::Replay),
            "{what}"
        );
    }
}

#[test]
fn upper_half_of_sequence_number_is_protected() {
    let beyond = vectors()
        .into_iter()
        .filter(|vector| vector.sequence > u32::MAX.into());
    let mut tried = 0;
    for vector in beyond {
        // The same packet 2^32 earlier: only what is not sent differs.
        let mut sa = Vector {
            before: 0,
            ..vector
        };
        let mut opener = sa.inbound();
        assert_eq!(
            opener.open(&mut hex(&sa.esp)),
            Err(OpenError::Icv),
            "{}",
            sa.suite
        );
        sa.esn = false;
        let mut opener = sa.inbound();
        assert_eq!(
            opener.open(&mut hex(&sa.esp)),
            Err(OpenError::Icv),
            "{}",
            sa.suite
        );
        tried += 1;
    }
    assert_eq!(tried, 16);
}

#[test]
fn every_changed_byte_and_every_cut_is_noticed() {
    for vector in vectors() {
        let mut sa = vector.inbound();
        let packet = hex(&vector.esp);
        for at in 4..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 1 << (at % 8);
            let error = sa.open(&mut changed).expect_err("a changed byte");
            let expected = matches!(error, OpenError::Icv | OpenError::Replay);
            assert!(expected, "{} byte {at}: {error}", vector.suite);
        }
        for len in 0..packet.len() {
            assert!(
                sa.open(&mut packet[..len].to_vec()).is_err(),
                "{} {len}",
                vector.suite
            );
        }
        // None of that has moved the window.
        assert!(sa.open(&mut packet.clone()).is_ok(), "{}", vector.suite);
    }
}
