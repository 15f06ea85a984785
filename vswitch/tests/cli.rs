//! The commands that need no device: their whole output and their exit codes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use etherparse::PacketBuilder;
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use serde_json::{Value, json};
use tempfile::TempDir;

const VM1: [u8; 6] = [0x52, 0x54, 0, 0xaa, 0, 1];
/// The Gw side of port 1 of VNI 5001: `02`, the VNI, the port's index.
const GATEWAY: [u8; 6] = [0x02, 0x00, 0x13, 0x89, 0, 1];

fn tenant() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/red.toml")
}

fn vswitch(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vswitch"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("it runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn json_lines(output: &Output) -> Vec<Value> {
    let lines = text(&output.stdout).lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn udp(source: [u8; 4], destination: [u8; 4], ttl: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(VM1, GATEWAY)
        .ipv4(source, destination, ttl)
        .udp(1000, 2000)
        .write(&mut frame, b"hello")
        .expect("a Vec takes it");
    frame
}

fn echo_request(destination: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(VM1, GATEWAY)
        .ipv4([10, 0, 0, 11], destination, 64)
        .icmpv4_echo_request(7, 1)
        .write(&mut frame, b"ping")
        .expect("a Vec takes it");
    frame
}

/// A capture of these frames, a millisecond apart.
fn capture(directory: &TempDir, frames: &[Vec<u8>]) -> PathBuf {
    let path = directory.path().join("in.pcap");
    let mut writer =
        PcapWriter::new(std::fs::File::create(&path).expect("a file")).expect("a header");
    for (number, frame) in frames.iter().enumerate() {
        let time = Duration::from_secs(1_700_000_000) + Duration::from_millis(number as u64);
        let packet = PcapPacket::new(time, frame.len() as u32, frame);
        writer.write_packet(&packet).expect("it is written");
    }
    path
}

/// To another VM of the tenant, to the gateway, spoofed, and with a TTL of 1.
fn four_frames() -> [Vec<u8>; 4] {
    [
        udp([10, 0, 0, 11], [10, 0, 0, 12], 64),
        echo_request([10, 0, 0, 1]),
        udp([10, 0, 0, 12], [10, 0, 0, 11], 64),
        udp([10, 0, 0, 11], [203, 0, 113, 1], 1),
    ]
}

#[test]
fn reasons_are_listed_by_number() {
    let reasons = json_lines(&vswitch(&["reasons", "--json"]));
    let numbers: Vec<u64> = reasons
        .iter()
        .map(|reason| reason["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=reasons.len() as u64).collect::<Vec<_>>());
    assert_eq!(
        reasons[2],
        json!({ "number": 3, "name": "src-mac", "help": "The source MAC is not one of the port's" })
    );
    let lines = vswitch(&["reasons"]);
    assert_eq!(text(&lines.stdout).lines().count(), reasons.len());
}

/// A generated page of the documentation is what its command prints. To update the page, run the
/// command.
#[test]
fn generated_references_are_current() {
    for (command, file) in [("openapi", "openapi.json"), ("metrics", "metrics.md")] {
        let path = format!("{}/../docs/reference/{file}", env!("CARGO_MANIFEST_DIR"));
        let committed = std::fs::read_to_string(&path).expect("a page");
        let printed = vswitch(&[command]);
        assert_eq!(
            text(&printed.stdout),
            committed,
            "vswitch {command} > docs/reference/{file}"
        );
    }
}

#[test]
fn replay_prints_the_verdict_of_each_frame() {
    let directory = TempDir::new().unwrap();
    let path = capture(&directory, &four_frames());
    let out = directory.path().join("out");
    let output = vswitch(&[
        "replay",
        "--json",
        "--tenant",
        tenant().to_str().unwrap(),
        "--port",
        "red-vm1",
        path.to_str().unwrap(),
        "--out-dir",
        out.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        concat!(
            r#"{"frame":1,"verdict":"forward","reason":null,"out":["red-vm2"]}"#,
            "\n",
            r#"{"frame":2,"verdict":"reply","reason":null,"out":["red-vm1"]}"#,
            "\n",
            r#"{"frame":3,"verdict":"drop","reason":"ipv4-source","out":[]}"#,
            "\n",
            r#"{"frame":4,"verdict":"drop","reason":"ttl","out":[],"icmp_error":true}"#,
            "\n",
        )
    );
    let summary: Value = serde_json::from_slice(&output.stderr).expect("one object");
    assert_eq!(
        summary["ports"][0],
        json!({
            "name": "red-vm1", "rx_frames": 4, "tx_frames": 2, "replies": 1,
            "drops": { "ipv4-source": 1, "ttl": 1 },
        })
    );

    // What each port sent: the forwarded frame with its new addresses; the reply and the error.
    let frames = |port: &str| -> Vec<Vec<u8>> {
        let file = std::fs::File::open(out.join(format!("{port}.pcap"))).expect("a capture");
        let mut reader = PcapReader::new(file).expect("a header");
        std::iter::from_fn(|| {
            reader
                .next_packet()
                .map(|packet| packet.unwrap().data.into_owned())
        })
        .collect()
    };
    let forwarded = frames("red-vm2");
    assert_eq!(forwarded.len(), 1);
    assert_eq!(
        forwarded[0][..12],
        [
            0x52, 0x54, 0, 0xaa, 0, 2, 0x06, 0x16, 0x7c, 0xb5, 0x9c, 0x9b
        ]
    );
    assert_eq!(forwarded[0][14..], four_frames()[0][14..]);
    let returned = frames("red-vm1");
    let icmp_types: Vec<u8> = returned.iter().map(|frame| frame[34]).collect();
    assert_eq!(icmp_types, [0, 11], "echo reply, time exceeded");
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 2);
}

#[test]
fn replay_text_ends_with_the_counters() {
    let directory = TempDir::new().unwrap();
    let path = capture(&directory, &four_frames());
    let output = vswitch(&[
        "replay",
        "--tenant",
        tenant().to_str().unwrap(),
        "--port",
        "red-vm1",
        path.to_str().unwrap(),
    ]);
    assert_eq!(
        text(&output.stdout),
        "     1  forward to red-vm2\n     2  reply to red-vm1\n     3  drop ipv4-source\n     \
         4  drop ttl (an ICMP error goes back)\n\n\
         red-vm1: received 4, sent 2, answered 1, ipv4-source 1, ttl 1\n\
         red-vm2: received 0, sent 1, answered 0\nuplink: received 0, sent 0, answered 0\n"
    );
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn replay_reads_pcapng_from_standard_input() {
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
    let [frame, ..] = four_frames();
    let mut bytes = Vec::new();
    let mut writer = PcapNgWriter::new(&mut bytes).unwrap();
    writer
        .write_pcapng_block(InterfaceDescriptionBlock {
            linktype: pcap_file::DataLink::ETHERNET,
            snaplen: 0,
            options: vec![],
        })
        .unwrap();
    writer
        .write_pcapng_block(EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::ZERO,
            original_len: frame.len() as u32,
            data: frame.into(),
            options: vec![],
        })
        .unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_vswitch"))
        .args(["replay", "--json", "--port", "red-vm1", "-", "--tenant"])
        .arg(tenant())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        json_lines(&output),
        [json!({ "frame": 1, "verdict": "forward", "reason": null, "out": ["red-vm2"] })]
    );
}

#[test]
fn trace_lists_stages_up_to_the_verdict() {
    let hex = |frame: &[u8]| {
        frame
            .iter()
            .map(|byte| format!("{byte:02x} "))
            .collect::<String>()
    };
    let trace = |frame: &[u8]| -> Value {
        let output = vswitch(&[
            "trace",
            "--json",
            "--tenant",
            tenant().to_str().unwrap(),
            "--port",
            "red-vm1",
            "--hex",
            &hex(frame),
        ]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let mut lines = json_lines(&output);
        assert_eq!(lines.len(), 1);
        lines.remove(0)
    };
    let stages = |trace: &Value| -> Vec<String> {
        let stages = trace["stages"].as_array().unwrap().iter();
        let mut names: Vec<String> = stages
            .map(|step| step["stage"].as_str().unwrap().to_owned())
            .collect();
        names.dedup();
        names
    };
    let [good, _, spoofed, _] = four_frames();
    let forwarded = trace(&good);
    assert_eq!(forwarded["verdict"], "forward");
    assert_eq!(forwarded["out"], json!(["red-vm2"]));
    assert!(
        forwarded["sent"]
            .as_str()
            .unwrap()
            .starts_with("525400aa000206167cb59c9b")
    );
    assert_eq!(
        stages(&forwarded).first().map(String::as_str),
        Some("filter")
    );
    assert_eq!(
        stages(&forwarded).last().map(String::as_str),
        Some("rewrite")
    );
    let dropped = trace(&spoofed);
    assert_eq!(dropped["reason"], "ipv4-source");
    assert_eq!(dropped["sent"], Value::Null);
    assert_eq!(stages(&dropped), ["filter"]);

    // From a capture, the same.
    let directory = TempDir::new().unwrap();
    let path = capture(&directory, &four_frames());
    let output = vswitch(&[
        "trace",
        "--json",
        "--tenant",
        tenant().to_str().unwrap(),
        "--port",
        "red-vm1",
        "--pcap",
        path.to_str().unwrap(),
        "--frame",
        "3",
    ]);
    let mut third = json_lines(&output).remove(0);
    assert_eq!(third["frame"].take(), 3);
    let mut from_hex = dropped;
    from_hex["frame"].take();
    assert_eq!(third, from_hex);
}

#[test]
fn failures_have_their_exit_code_and_message() {
    let directory = TempDir::new().unwrap();
    let path = capture(&directory, &four_frames());
    let (tenant, capture) = (tenant(), path.to_str().unwrap());
    let tenant = tenant.to_str().unwrap();
    let bad = directory.path().join("bad.toml");
    std::fs::write(&bad, "name = \"Red\"\n").unwrap();
    let bad = bad.to_str().unwrap();
    let nowhere = directory.path().join("no.sock");
    let nowhere = nowhere.to_str().unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (
            &["replay", "--tenant", tenant, "--port", "nobody", capture],
            2,
            "--port takes one of: red-vm1, red-vm2, uplink",
        ),
        (
            &[
                "trace", "--tenant", tenant, "--port", "red-vm1", "--hex", "5254zz",
            ],
            2,
            "'z' is no hexadecimal digit",
        ),
        (
            &[
                "trace", "--tenant", tenant, "--port", "red-vm1", "--hex", "525",
            ],
            2,
            "3 hexadecimal digits",
        ),
        (
            &[
                "trace", "--tenant", tenant, "--port", "red-vm1", "--pcap", capture, "--frame", "5",
            ],
            2,
            "has no frame 5",
        ),
        (
            &["show", "everything", "--control", nowhere],
            2,
            "ports, drops, routes, neighbours",
        ),
        (
            &["top", "--control", nowhere, "--interval", "0"],
            2,
            "from 0.1 to 3600",
        ),
        (
            &["replay", "--tenant", bad, "--port", "red-vm1", capture],
            3,
            "bad.toml",
        ),
        (&["run", "--config", bad], 3, "bad.toml"),
        (
            &["replay", "--tenant", tenant, "--port", "red-vm1", tenant],
            1,
            "neither a pcap nor a pcapng file",
        ),
        (
            &["replay", "--tenant", tenant, "--port", "red-vm1", nowhere],
            1,
            "no.sock: cannot be read",
        ),
        (
            &["show", "ports", "--control", nowhere],
            4,
            "is the switch running",
        ),
    ];
    for (arguments, code, sentence) in cases {
        let output = vswitch(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {said}");
        assert!(said.contains(sentence), "{arguments:?}: {said}");
    }
    let version = vswitch(&["--version"]);
    assert_eq!(
        text(&version.stdout),
        format!("vswitch {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn sandbox_refuses_all_but_the_log() {
    let output = vswitch(&["check-sandbox", "--json"]);
    let lines = json_lines(&output);
    let results: Vec<(&str, &str)> = lines[..lines.len() - 1]
        .iter()
        .map(|line| {
            (
                line["attempt"].as_str().unwrap(),
                line["result"].as_str().unwrap(),
            )
        })
        .collect();
    let (by_name, calls) = results.split_at(6);
    assert_eq!(
        by_name,
        [
            ("write a line to the log", "done"),
            ("read /etc/passwd", "refused"),
            ("list /proc", "refused"),
            ("write a file", "refused"),
            ("remove a file", "refused"),
            ("start a thread", "killed"),
        ]
    );
    // System calls, each with what a switch has open.
    let survived: Vec<_> = calls
        .iter()
        .filter(|(_, result)| *result != "killed")
        .collect();
    assert!(survived.is_empty(), "{survived:?}");
    for attempt in [
        "map executable memory",
        "map hugepages",
        "ask a port for a larger ring",
        "write behind the end of the log",
        "send to a path",
        "signal another process",
        "trace another process",
        "make a user namespace",
        "read a key",
        "use an io_uring",
        "count events",
        "load a BPF program",
        "handle its own page faults",
    ] {
        assert!(calls.contains(&(attempt, "killed")), "{attempt}");
    }
    assert_eq!(lines.last().unwrap()["ok"], true);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
