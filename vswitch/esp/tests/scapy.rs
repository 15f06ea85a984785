//! scapy as the other end: an implementation of ESP that shares no code with ours.

use std::io::Write;
use std::process::{Command, Stdio};

use esp::{Inbound, Keys, Outbound, Suite};
use serde_json::{Value, json};

/// Debian's, which has its packages.
const PYTHON: &str = "/usr/bin/python3";

const SCRIPT: &str = r#"
import json, sys
from scapy.layers.inet import IP, UDP
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw
NAMES = {
    "aes128gcm16": ("AES-GCM", None), "aes256gcm16": ("AES-GCM", None),
    "chacha20poly1305": ("CHACHA20-POLY1305", None), "aes256-sha256": ("AES-CBC", "SHA2-256-128"),
}
answers = []
for it in json.load(sys.stdin):
    cipher, mac = NAMES[it["suite"]]
    sa = SecurityAssociation(
        ESP, spi=it["spi"], crypt_algo=cipher, crypt_key=bytes.fromhex(it["encryption_key"]),
        auth_algo=mac, auth_key=bytes.fromhex(it["integrity_key"]) or None,
        seq_num=it["sequence"] & 0xffffffff, esn_en=it["esn"], esn=it["sequence"] >> 32)
    header = IP(src="192.0.2.7", dst="192.0.2.8")
    opened = sa.decrypt(header / ESP(bytes.fromhex(it["esp"])), verify=True)
    payload = IP(bytes(opened))[UDP]
    answer = Raw(b"answer" + bytes([len(answers)]))
    sealed = IP(bytes(sa.encrypt(header / UDP(sport=50000, dport=6081, chksum=0) / answer)))
    answers.append({"opened": bytes(payload).hex(), "sealed": bytes(sealed[ESP]).hex()})
json.dump(answers, sys.stdout)
"#;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("hexadecimal");
    let digits = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    digits
        .map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal"))
        .collect()
}

fn ask(requests: &Value) -> Value {
    let mut python = Command::new(PYTHON)
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python");
    let mut stdin = python.stdin.take().expect("its input");
    stdin
        .write_all(requests.to_string().as_bytes())
        .expect("the requests");
    drop(stdin);
    let output = python.wait_with_output().expect("its output");
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("its answers")
}

#[test]
fn scapy_opens_what_we_seal_and_the_other_way_round() {
    let has_scapy = Command::new(PYTHON)
        .args(["-c", "import scapy.layers.ipsec"])
        .status();
    if !has_scapy.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no python3-scapy");
        return;
    }
    let mut datagram = vec![0xc3, 0x50, 0x17, 0xc1, 0, 20, 0, 0];
    datagram.extend(b"a datagram.!");
    let (mut requests, mut openers) = (Vec::new(), Vec::new());
    for suite in Suite::ALL {
        for (esn, sequence) in [(false, 1), (true, 1), (true, (1 << 32) + 7)] {
            // scapy 2.5 leaves the upper half out of the MAC; `vectors.json` has such packets.
            if esn && suite == Suite::Aes256CbcSha256 {
                continue;
            }
            let encryption = vec![sequence as u8 ^ 0x5a; suite.encryption_key_len()];
            let integrity = vec![0xc3; suite.integrity_key_len()];
            let keys = Keys::new(suite, &encryption, &integrity).expect("keys");
            let mut out = Outbound::new(0x0102_0304, &keys, esn);
            out.skip_to(sequence - 1);
            let mut packet = vec![0; suite.sealed_len(datagram.len())];
            packet[suite.payload_at()..][..datagram.len()].copy_from_slice(&datagram);
            out.seal(&mut packet, datagram.len(), 17).expect("a number");
            let mut into = Inbound::new(0x0102_0304, &keys, esn, 64);
            into.skip_to(sequence - 1);
            openers.push(into);
            requests.push(json!({
                "suite": suite.name(), "spi": 0x0102_0304, "esn": esn, "sequence": sequence,
                "encryption_key": hex(&encryption), "integrity_key": hex(&integrity),
                "esp": hex(&packet),
            }));
        }
    }
    let answers = ask(&Value::from(requests.clone()));
    let answers = answers.as_array().expect("answers");
    assert_eq!(answers.len(), requests.len());
    for (at, (answer, into)) in answers.iter().zip(&mut openers).enumerate() {
        let what = &requests[at];
        assert_eq!(bytes(&answer["opened"]), datagram, "{what}");
        let mut sealed = bytes(&answer["sealed"]);
        let opened = into
            .open(&mut sealed)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let expected = [b"answer".as_slice(), &[at as u8]].concat();
        assert_eq!(sealed[opened.begin..opened.end][8..], expected, "{what}");
        assert_eq!(opened.next_header, 17, "{what}");
    }
}
