//! What strangers send to the tunnel's endpoint.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::bed::run;
use crate::charon::Proof;
use crate::pair::{A, B, Pair, TERMS};

/// Sends so many IKE_SA_INIT requests from the peer's address, each of another initiator, and
/// prints how many of the answers ask for a cookie.
const FLOOD: &str = r#"
import os, socket, struct, sys
own, peer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
def payload(kind, body): return struct.pack('!BBH', kind, 0, 4 + len(body)) + body
def transform(last, kind, number, attributes=b''):
    more = 0 if last else 3
    return struct.pack('!BBHBBH', more, 0, 8 + len(attributes), kind, 0, number) + attributes
transforms = (transform(False, 1, 20, struct.pack('!HH', 0x800e, 256)) + transform(False, 2, 5)
              + transform(True, 4, 31))
proposal = struct.pack('!BBHBBBB', 0, 0, 8 + len(transforms), 1, 1, 0, 3) + transforms
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((own, 500))
sock.settimeout(1)
cookies = answers = 0
for _ in range(count):
    body = payload(34, proposal) + payload(40, struct.pack('!HH', 31, 0) + os.urandom(32)) \
        + payload(0, os.urandom(32))
    spi = os.urandom(8)
    sock.sendto(spi + bytes(8) + struct.pack('!BBBBII', 33, 0x20, 34, 8, 0, 28 + len(body)) + body,
                (peer, 500))
    try:
        answer = sock.recv(4096)
    except TimeoutError:
        continue
    answers += 1
    # One payload: a notification of the type COOKIE.
    if answer[16] == 41 and struct.unpack('!H', answer[34:36])[0] == 16390:
        cookies += 1
print(answers, cookies)
"#;

#[test]
fn flood_of_half_open_negotiations_gets_cookies() {
    let Some(mut pair) = Pair::with_charons("a flood", Proof::Psk) else {
        return;
    };
    // The attacker has the peer's place on the wire.
    drop(pair.take_charon(B));
    pair.stop_switch(B);
    let address = B.subnet(&TERMS);
    pair.bed
        .inside(B.netns, &["addr", "add", &address, "dev", "eth0"]);
    // Without a NIC's offloads, the kernel must complete checksums itself.
    run(pair
        .bed
        .command(B.netns, "ethtool")
        .args(["-K", "eth0", "tx", "off"]));
    let mut flood = pair
        .bed
        .command(B.netns, "python3")
        .args([
            "-",
            &B.vtep(&TERMS).to_string(),
            &A.vtep(&TERMS).to_string(),
            "12",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python runs");
    let mut input = flood.stdin.take().expect("a pipe");
    input.write_all(FLOOD.as_bytes()).expect("it reads");
    drop(input);
    let output = flood.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let counts: Vec<u32> = said
        .split_whitespace()
        .filter_map(|it| it.parse().ok())
        .collect();
    let [answers, cookies] = counts[..] else {
        panic!("it printed {said:?}: {output:?}");
    };
    assert!(answers >= 9, "{answers} of 12 are answered");
    assert!(
        answers - cookies <= 3,
        "{cookies} of {answers} answers ask for a cookie"
    );
    // The true peer comes back.
    pair.bed
        .inside(B.netns, &["addr", "del", &address, "dev", "eth0"]);
    pair.start_switch(B);
    pair.start_charon(B, Proof::Psk);
    pair.reaches(B);
}

#[test]
fn stranger_on_the_wire_reaches_no_daemon() {
    let Some(pair) = Pair::with_charons("a stranger", Proof::Psk) else {
        return;
    };
    // A station that is no peer's endpoint.
    pair.bed.pair(("wire", "to-c"), "none", "52:54:00:ff:00:09");
    pair.bed
        .inside("wire", &["link", "set", "dev", "to-c", "master", "bridge0"]);
    pair.bed
        .inside("none", &["addr", "add", "192.0.2.9/24", "dev", "eth0"]);
    run(pair
        .bed
        .command("none", "ethtool")
        .args(["-K", "eth0", "tx", "off"]));
    let mut flood = pair.bed.command("none", "python3");
    flood.args(["-c", FLOOD, "192.0.2.9", &A.vtep(&TERMS).to_string(), "3"]);
    let output = flood.output().expect("Python runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "0 0\n",
        "{output:?}"
    );
    pair.reaches(A);
}

/// A user that is not the daemon's is turned away, and disturbs nobody.
#[test]
fn other_user_is_turned_away() {
    let Some(pair) = Pair::with_charons("another user", Proof::Psk) else {
        return;
    };
    let script = "import socket, sys\n\
                  s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
                  s.connect(sys.argv[1]); s.settimeout(5)\n\
                  try:\n  s.send(b'ctl')\n  print(len(s.recv(100)))\n\
                  except OSError: print(0)\n";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(A.socket(&pair.bed));
    let output = command.output().expect("Python runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{output:?}");
    pair.reaches(A);
}
