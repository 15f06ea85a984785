//! `vswitch show` towards switches that were taken over: it ends in time, takes little memory, and
//! prints nothing that a terminal would obey.

#[path = "../api/tests/common/hostile.rs"]
mod hostile;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use hostile::{Hostile, array, port, ports, serve, serve_with, whole};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;
use tempfile::TempDir;

/// What the command is given for one request, and what it may take in addition on a busy machine.
const PATIENCE: Duration = Duration::from_secs(1);
const MARGIN: Duration = Duration::from_secs(3);
/// The command's memory in KiB, of which its program is half.
const MEMORY_MAX_KIB: i64 = 64 << 10;
/// What it may print about an answer that it does not take.
const MESSAGE_MAX: usize = 8 << 10;

fn show(socket: &Path, arguments: &[&str]) -> Output {
    let began = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_vswitch"))
        .arg("show")
        .args(arguments)
        .args(["--timeout", "1", "--control"])
        .arg(socket)
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let took = began.elapsed();
    assert!(took < PATIENCE + MARGIN, "{arguments:?} took {took:?}");
    output
}

/// What was printed, which must be plain.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let obeyed = |it: char| (it.is_control() && it != '\n') || it == '\u{202e}';
    assert!(!text.contains(obeyed), "{text:?}");
    text
}

fn refuses(hostile: Hostile, arguments: &[&str]) {
    let directory = TempDir::new().expect("a directory");
    let socket = directory.path().join("control.sock");
    serve(&socket, hostile);
    let output = show(&socket, arguments);
    let (name, said) = (hostile.name, plain(&output.stderr));
    assert_eq!(output.status.code(), Some(4), "{name}: {said}");
    assert_eq!(plain(&output.stdout), "", "{name}");
    assert!(said.len() < MESSAGE_MAX, "{name}: {said}");
}

#[test]
fn hostile_answers_are_refused_in_time_and_in_little_memory() {
    for some in hostile::ALL.chunks(4) {
        std::thread::scope(|scope| {
            for hostile in some {
                scope.spawn(|| {
                    refuses(*hostile, &["ports"]);
                    refuses(*hostile, &["drops", "--json"]);
                });
            }
        });
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage");
    println!("the largest took {} KiB", usage.max_rss());
    assert!(usage.max_rss() < MEMORY_MAX_KIB, "{}", usage.max_rss());
}

/// Commands to a terminal, as JSON writes them and raw, and a backslash before a quote where 256
/// characters end.
fn hostile_name() -> String {
    let commands = "\\u001b[2J\u{9b}2J\u{202e}\\r\\n";
    format!("{commands}{}\\\\\\\"", "a".repeat(256 - 12))
}

/// An answer to each endpoint whose every text is hostile.
fn answers() -> Vec<(&'static str, String)> {
    let name = hostile_name();
    let text = format!("\"{name}\"");
    let drop = format!(
        "{{\"port\":{text},\"reason\":{text},\"number\":255,\"frames\":18446744073709551615,\
         \"help\":{text}}}"
    );
    let route = format!("{{\"prefix\":{text},\"kind\":{text},\"port\":{text},\"peer\":{text}}}");
    let neighbour =
        format!("{{\"address\":{text},\"port\":{text},\"mac\":{text},\"state\":{text}}}");
    let other = format!("{{\"mac\":{text},\"age_s\":18446744073709551615}}");
    let peer = format!(
        "{{\"name\":{text},\"vtep\":{text},\"mac\":{text},\"next_hop\":{text},\
         \"sources\":[{text}],\"other_mac\":{other},\"next_hop_conflict\":{other},\
         \"unreachable\":{{\"why\":{text},\"from\":{text},\"age_s\":1}},\"underlay_mtu\":65535,\
         \"next_hop_mac\":{text},\"state\":{text},\"mtu\":65535,\"tx_frames\":1,\"tx_bytes\":1,\
         \"rx_frames\":1,\"rx_bytes\":1,\"last_seen_s\":18446744073709551615,\
         \"prefixes\":[{text}]}}"
    );
    let rejected =
        format!("{{\"reason\":{text},\"reports\":18446744073709551615,\"help\":{text}}}");
    let tunnel = format!(
        "{{\"kind\":{text},\"vni\":1,\"vtep\":{text},\"port\":1,\"mac\":{text},\"mtu\":1,\
         \"vtep_conflict\":{other},\"path_mtu\":{{\"believed\":1,\"rejected\":{}}},\
         \"unreachable\":{{\"believed\":1,\"rejected\":{}}},\"peers\":{}}}",
        array(&rejected, 3),
        array(&rejected, 3),
        array(&peer, 3)
    );
    let sa = format!(
        "{{\"spi\":{text},\"suite\":{text},\"esn\":true,\"mode\":{text},\"in_udp\":true,\
         \"age_s\":18446744073709551615,\"packets\":1,\"bytes\":1,\"rekey_in_s\":1}}"
    );
    let endpoint = format!(
        "{{\"vtep\":{text},\"peers\":[{text}],\"state\":{text},\"outbound\":{sa},\"inbound\":{sa},\
         \"tx_packets\":18446744073709551615,\"tx_bytes\":1,\"rx_packets\":1,\"rx_bytes\":1,\
         \"replayed\":1,\"icv_failures\":1}}"
    );
    let ipsec = format!(
        "{{\"suites\":[{text}],\"esn\":true,\"replay_window\":1,\"endpoints\":{}}}",
        array(&endpoint, 3)
    );
    let switch = format!(
        "{{\"tenant\":{text},\"version\":{text},\"started_at\":1,\"uptime_s\":1,\
         \"generation\":1,\"packet_buffers\":{{\"total\":1,\"in_use\":1}}}}"
    );
    let most = port(&name, "18446744073709551615");
    vec![
        ("ports", ports(&array(&most, 3))),
        ("drops", array(&drop, 3)),
        ("routes", array(&route, 3)),
        ("neighbours", array(&neighbour, 3)),
        ("tunnels", tunnel),
        ("ipsec", ipsec),
        ("switch", switch),
    ]
}

#[test]
fn hostile_names_are_printed_plainly() {
    for (what, answer) in answers() {
        let directory = TempDir::new().expect("a directory");
        let socket = directory.path().join("control.sock");
        let body = answer.clone();
        serve_with(&socket, move |stream| whole(stream, &body));
        let table = show(&socket, &[what]);
        let text = plain(&table.stdout);
        assert!(table.status.success(), "{what}: {}", plain(&table.stderr));
        assert!(
            text.contains("\\u{1b}[2J\\u{9b}2J\\u{202e}\\r\\n"),
            "{text}"
        );
        let longest = text.lines().map(str::len).max();
        assert!(longest < Some(8192), "{what}: {longest:?}");

        let json = show(&socket, &[what, "--json"]);
        let read: Value = serde_json::from_str(&plain(&json.stdout)).expect("JSON");
        let sent: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(read, sent, "{what}");
    }
}
