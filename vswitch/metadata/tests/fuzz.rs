//! Coverage-guided fuzzing: `scripts/fuzz`. As an ordinary test, each target replays its corpus in
//! `__fuzz__`.

mod client;

use std::time::Duration;

use client::{Client, GATEWAY4, VM4, Wire, config};

/// What only one of the two ports may be told.
const SECRETS: [&[u8]; 2] = [b"i-web", b"i-db"];

/// Whatever is answered to the VM of a port is bounded and has nothing of the other port's.
fn check(answer: &[u8], other: usize) {
    // The longest documents' base64 does not fit twice into what one connection is answered.
    assert!(answer.len() <= 100 * 24_000, "{} bytes", answer.len());
    let secret = SECRETS[other];
    assert!(!answer.windows(secret.len()).any(|it| it == secret));
}

/// Any bytes of a request, in pieces: a byte for the port, one for the pieces' length, and the
/// request, in which `%%TOKEN%%` stands for a valid token.
#[test]
fn request_is_answered_from_its_own_port() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let [choice, step, request @ ..] = input else {
                return;
            };
            let port = usize::from(choice & 1);
            let mut wire = Wire::new(&config());
            let answer = wire.ask(port as u16, client::TOKEN);
            let token = answer.rsplit("\r\n").next().unwrap_or_default();
            let request = client::replace(request, b"%%TOKEN%%", token.as_bytes());
            let mut client = Client::new(&mut wire, port as u16, 40_000);
            let mut answer = Vec::new();
            for piece in request.chunks(usize::from(*step).max(1)) {
                client.send(&mut wire, piece);
                answer.extend(client.received_bytes(&mut wire));
            }
            check(&answer, 1 - port);
        });
}

/// Any IP packets of a VM: a byte for the port, one for the time that passes, one for the length,
/// and the packet. Addresses, ports and IPv4's checksum are made right on every other one.
#[test]
fn packets_do_no_harm() {
    bolero::check!()
        .with_iterations(0)
        .for_each(|input: &[u8]| {
            let mut wire = Wire::new(&config());
            let mut rest = input;
            while let [choice, pause, len, after @ ..] = rest {
                let (packet, after) = after.split_at(usize::from(*len).min(after.len()));
                rest = after;
                wire.now += Duration::from_millis(u64::from(*pause) * 10);
                let mut packet = packet.to_vec();
                if choice & 2 != 0 && packet.len() >= 40 {
                    let total = packet.len() as u16;
                    packet[0] = 0x45;
                    packet[2..4].copy_from_slice(&total.to_be_bytes());
                    packet[6..8].fill(0);
                    packet[9] = 6;
                    packet[12..16].copy_from_slice(&VM4.octets());
                    packet[16..20].copy_from_slice(&GATEWAY4.octets());
                    packet[20..22].copy_from_slice(&40_000_u16.to_be_bytes());
                    packet[22..24].copy_from_slice(&80_u16.to_be_bytes());
                    client::set_checksum(&mut packet);
                }
                wire.send(u16::from(choice & 1), &packet);
                wire.poll();
            }
            assert!(wire.seen.iter().all(|packet| packet.len() <= 1500));
        });
}
