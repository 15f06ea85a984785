//! `status` with switches that were taken over: it ends in time, takes little memory, shows the
//! record's names, and prints nothing that a terminal would obey. Needs no root; with it, the
//! process that asks is another user's.

#[path = "../../vswitch/api/tests/common/hostile.rs"]
mod hostile;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hostile::{array, port, ports, serve, serve_with, whole};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::{Value, json};
use vf_host::launcher::confine::Started;

const PROVISIONER: &str = env!("CARGO_BIN_EXE_vf-provisioner");
/// What each switch has for its answer, and what the command may take in addition on a busy
/// machine.
const PATIENCE: Duration = Duration::from_secs(5);
const MARGIN: Duration = Duration::from_secs(7);
/// The memory of the command and of each client that it starts, in KiB.
const MEMORY_MAX_KIB: i64 = 64 << 10;
/// The user of the first tenant's switch.
const UID: u32 = 69_800;

/// A state directory whose tenants seem to run.
struct Host {
    dir: tempfile::TempDir,
    tenants: serde_json::Map<String, Value>,
}

impl Host {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory"),
            tenants: serde_json::Map::new(),
        }
    }

    /// Adds a tenant with the ports `vm1` and `vm2`; returns the path of its control socket.
    fn add(&mut self, tenant: &str) -> PathBuf {
        let uid = UID + self.tenants.len() as u32;
        let port = |number: u32| {
            json!({
                "name": format!("vm{number}"),
                "device": {"driver": "af_packet", "interface": format!("gw{number}")},
                "gateway_mac": format!("02:00:00:00:01:0{number}"),
                "mac": format!("52:54:00:aa:00:0{number}"),
                "addresses": [format!("10.0.0.1{number}/32")],
                "dhcp_server": false, "announce": false, "encapsulation": "deny", "mtu": 1500,
                "limits": {},
            })
        };
        let switch = json!({
            "kind": "switch", "tenant": tenant, "uid": uid, "namespace": "sw", "cgroup": "none",
            "binary": Path::new(PROVISIONER).with_file_name("vswitch"), "needs": [],
            "config": {
                "tenant": tenant, "vni": 5001, "gateway": {"ipv4": "10.0.0.1/24"},
                "ports": [port(1), port(2)],
            },
        });
        let own = Started::identify(std::process::id() as i32).expect("this process");
        let note = json!({"switch": switch, "started": own, "restarts": 0, "ready": true});
        let directory = self.dir.path().join("tenants").join(tenant);
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(directory.join("run")).expect("a directory");
        fs::write(directory.join("process.json"), note.to_string()).expect("a note");
        self.tenants.insert(
            tenant.to_owned(),
            json!({"uid": uid, "resources": [switch], "probes": [], "complete": true}),
        );
        let state = json!({"version": 1, "tenants": self.tenants, "owned": []});
        fs::write(self.dir.path().join("state.json"), state.to_string()).expect("a state");
        directory.join("run/control.sock")
    }

    /// Standard output of `vf-provisioner`, which must succeed, end in time, and print plain text.
    fn run(&self, arguments: &[&str]) -> String {
        self.ends_with(0, arguments)
    }

    /// The same of one that must find a switch that is not up.
    fn finds_fault(&self, arguments: &[&str]) -> String {
        self.ends_with(3, arguments)
    }

    fn ends_with(&self, code: i32, arguments: &[&str]) -> String {
        let began = Instant::now();
        let output = Command::new(PROVISIONER)
            .arg("--state-dir")
            .arg(self.dir.path())
            .args(arguments)
            .stdin(Stdio::null())
            .env("VF_PROVISIONER_LOG", "info")
            .output()
            .expect("it runs");
        let took = began.elapsed();
        println!("{arguments:?} took {took:?}");
        assert!(took < PATIENCE + MARGIN, "{arguments:?} took {took:?}");
        let said = plain(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        println!("{said}");
        plain(&output.stdout)
    }
}

/// What was printed, which must be plain.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let obeyed = |it: char| (it.is_control() && it != '\n') || it == '\u{202e}';
    assert!(!text.contains(obeyed), "{text:?}");
    text
}

fn honest(stream: &mut UnixStream) -> std::io::Result<()> {
    whole(
        stream,
        &ports(&format!("[{},{}]", port("vm1", "3"), port("vm2", "4"))),
    )
}

#[test]
fn hostile_switches_delay_no_other_tenant_and_take_little_memory() {
    let mut host = Host::new();
    for (number, hostile) in hostile::ALL.iter().enumerate() {
        serve(&host.add(&format!("t{number}")), *hostile);
    }
    serve_with(&host.add("honest"), honest);
    let status: Value =
        serde_json::from_str(&host.finds_fault(&["--json", "status"])).expect("JSON");
    for tenant in status["tenants"].as_array().expect("tenants") {
        let name = tenant["tenant"].as_str().expect("a name");
        let is_honest = name == "honest";
        let number = name.trim_start_matches('t').parse::<usize>();
        let hostile = number.map_or("", |number| hostile::ALL[number].name);
        assert_eq!(tenant["ports"].is_object(), is_honest, "{name}: {hostile}");
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage");
    println!("the largest took {} KiB", usage.max_rss());
    assert!(usage.max_rss() < MEMORY_MAX_KIB, "{}", usage.max_rss());
}

#[test]
fn names_are_the_records_and_sums_do_not_overflow() {
    let mut host = Host::new();
    let most = "18446744073709551615";
    // A backslash and a quote where a label ends.
    let cut = format!("{}\\\\\\\"", "a".repeat(255));
    let spoils = "x\\\"} 1\\nvf_provisioner_tenant_up{tenant=\\\"honest\\u001b[2J\u{9b}2J";
    for (tenant, names) in [("cut", ["vm1", &cut]), ("spoils", ["vm2", spoils])] {
        let [one, other] = names.map(|name| port(name, most));
        let answer = ports(&format!("[{one},{other}]"));
        serve_with(&host.add(tenant), move |stream| whole(stream, &answer));
    }
    serve_with(&host.add("honest"), honest);

    let metrics = host.run(&["status", "--metrics"]);
    let frames: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("vf_provisioner_tenant_port_frames_total{"))
        .filter(|line| line.contains("\"from\""))
        .map(|line| line.split_once("tenant=").expect("a label").1)
        .collect();
    let sample = |tenant: &str, port: &str, frames: &str| {
        format!("\"{tenant}\",launcher=\"process\",port=\"{port}\",direction=\"from\"}} {frames}")
    };
    assert_eq!(
        frames,
        [
            sample("cut", "vm1", most),
            sample("cut", "vm2", "0"),
            sample("honest", "vm1", "3"),
            sample("honest", "vm2", "4"),
            sample("spoils", "vm1", "0"),
            sample("spoils", "vm2", most),
        ]
    );
    let table = host.run(&["status"]);
    assert!(table.contains(most), "{table}");
    let status: Value = serde_json::from_str(&host.run(&["--json", "status"])).expect("JSON");
    let ports = &status["tenants"][2]["ports"];
    assert_eq!(ports["tenant"], "spoils");
    assert_eq!(ports["ports"][1]["name"], "vm2");
    assert_eq!(ports["ports"][1]["device"], "af_packet:gw2");
}

#[test]
fn list_of_ports_that_the_record_lacks_is_refused() {
    let mut host = Host::new();
    let answer = ports(&array(&port("vm1", "1"), 3));
    serve_with(&host.add("red"), move |stream| whole(stream, &answer));
    let status: Value =
        serde_json::from_str(&host.finds_fault(&["--json", "status"])).expect("JSON");
    assert!(status["tenants"][0]["ports"].is_null(), "{status}");
}

/// The lines of a file of the process that asks.
fn about(pid: i32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

#[test]
fn process_that_asks_is_confined_before_the_first_byte() {
    let mut host = Host::new();
    let (sender, receiver) = mpsc::channel();
    serve_with(&host.add("red"), move |stream| {
        let pid = getsockopt(stream, PeerCredentials)?.pid();
        let _ = sender.send((about(pid, "status"), about(pid, "limits")));
        honest(stream)
    });
    host.run(&["status"]);
    let (status, limits) = receiver.recv().expect("it asked");
    let value = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let words = line.unwrap_or_default().split_whitespace();
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(value(&status, "NoNewPrivs:"), "1");
    assert_eq!(value(&status, "Seccomp:"), "2");
    for (limit, most) in [
        ("Max address space", "268435456 268435456 bytes"),
        ("Max cpu time", "10 10 seconds"),
        ("Max processes", "0 0 processes"),
        ("Max open files", "16 16 files"),
        ("Max file size", "0 0 bytes"),
    ] {
        assert_eq!(value(&limits, limit), most, "{limit}");
    }
    if nix::unistd::geteuid().is_root() {
        let four = format!("{UID} {UID} {UID} {UID}");
        assert_eq!(value(&status, "Uid:"), four);
        assert_eq!(value(&status, "Gid:"), four);
        assert_eq!(value(&status, "Groups:"), "");
        for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            assert_eq!(value(&status, set), "0000000000000000", "{set}");
        }
    }
}
