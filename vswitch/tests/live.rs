//! `vswitch run` on real interfaces: guests are network namespaces, each behind a veth pair whose other end
//! is a port of the switch. Needs root; without it each test says so and passes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

const SWITCH: &str = env!("CARGO_BIN_EXE_vswitch");

/// A switch with two guests and an "Internet" behind its uplink.
struct Bed {
    /// Begins the name of every namespace, and is this bed's own.
    tag: String,
    directory: TempDir,
    switch: Option<Child>,
}

impl Bed {
    /// `None` without root.
    fn new(test: &str, number: u32) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("{test} is skipped: it makes network namespaces, and so needs root");
            return None;
        }
        let bed = Self {
            tag: format!("vst{}x{number}", std::process::id()),
            directory: TempDir::new().expect("a directory"),
            switch: None,
        };
        for name in ["sw", "vm1", "vm2", "net"] {
            ip(&["netns", "add", &bed.netns(name)]);
        }
        bed.pair("vm1", "52:54:00:aa:00:01");
        bed.pair("vm2", "52:54:00:aa:00:02");
        bed.pair("net", "52:54:00:ff:00:01");
        for (guest, host) in [("vm1", 11), ("vm2", 12)] {
            bed.inside(
                guest,
                &["addr", "add", &format!("10.0.0.{host}/24"), "dev", "eth0"],
            );
            let ipv6 = format!("fd00:0:0:1::{host}/64");
            bed.inside(guest, &["addr", "add", &ipv6, "dev", "eth0", "nodad"]);
            bed.inside(guest, &["route", "add", "default", "via", "10.0.0.1"]);
        }
        bed.inside("net", &["addr", "add", "192.0.2.1/24", "dev", "eth0"]);
        bed.inside("net", &["addr", "add", "203.0.113.1/32", "dev", "lo"]);
        bed.inside("net", &["route", "add", "10.0.0.0/24", "via", "192.0.2.2"]);
        Some(bed)
    }

    fn netns(&self, name: &str) -> String {
        format!("{}{name}", self.tag)
    }

    /// `ip` inside a namespace.
    fn inside(&self, name: &str, arguments: &[&str]) {
        let netns = self.netns(name);
        ip(&[&["-n", &netns], arguments].concat());
    }

    /// A veth pair: `eth0` in the guest's namespace, the guest's name in the switch's.
    fn pair(&self, guest: &str, mac: &str) {
        let (switch, there) = (self.netns("sw"), self.netns(guest));
        ip(&[
            "link", "add", guest, "netns", &switch, "type", "veth", "peer", "name", "eth0",
            "address", mac, "netns", &there,
        ]);
        // The switch's end is no station: the kernel's own discovery would be frames from nobody.
        let quiet = format!("net.ipv6.conf.{guest}.disable_ipv6=1");
        run(Command::new("ip").args(["netns", "exec", &switch, "sysctl", "-qw", &quiet]));
        self.inside("sw", &["link", "set", "dev", guest, "up"]);
        self.inside(guest, &["link", "set", "dev", "lo", "up"]);
        self.inside(guest, &["link", "set", "dev", "eth0", "up"]);
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn config(&self) -> Value {
        let port = |number: u32| {
            json!({
                "name": format!("red-vm{number}"),
                "device": { "driver": "af_packet", "interface": format!("vm{number}") },
                "gateway_mac": format!("02:00:13:89:00:0{number}"),
                "mac": format!("52:54:00:aa:00:0{number}"),
                "addresses": [format!("10.0.0.1{number}/32"), format!("fd00:0:0:1::1{number}/128")],
            })
        };
        json!({
            "tenant": "red",
            "vni": 5001,
            "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64" },
            "ports": [port(1), port(2)],
            "uplink": {
                "device": { "driver": "af_packet", "interface": "net" },
                "mac": "02:00:13:89:00:00",
                "ipv4": "192.0.2.2/24",
                "next_hops": { "ipv4": "192.0.2.1" },
            },
            "control_socket": self.socket(),
        })
    }

    /// Starts the switch, and waits until it is ready.
    fn start(&mut self, arguments: &[&str]) {
        let file = self.directory.path().join("switch.json");
        std::fs::write(&file, self.config().to_string()).expect("a file");
        let child = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.netns("sw"),
                SWITCH,
                "run",
                "--config",
            ])
            .arg(&file)
            .args(arguments)
            .spawn()
            .expect("the switch starts");
        self.switch = Some(child);
        let socket = self.socket();
        eventually("the switch is ready", || {
            http(&socket, "GET", "/readyz", "").is_some_and(|(status, _)| status == 200)
        });
        // The guests' links are up now; their neighbour tables are filled, so that what is counted later is
        // traffic alone.
        for (from, to) in [
            ("vm1", "10.0.0.12"),
            ("vm2", "10.0.0.11"),
            ("vm1", "203.0.113.1"),
        ] {
            eventually("the first echo", || {
                self.ping(from, &["-c1", "-W1", to]).received == 1
            });
        }
    }

    fn pid(&self) -> Pid {
        // `ip netns exec` becomes the switch.
        Pid::from_raw(self.switch.as_ref().expect("it runs").id() as i32)
    }

    fn ping(&self, from: &str, arguments: &[&str]) -> Pings {
        let netns = self.netns(from);
        let output = Command::new("ip")
            .args(["netns", "exec", &netns, "ping", "-n", "-q"])
            .args(arguments)
            .output()
            .expect("ping runs");
        Pings::parse(&output)
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = http(&self.socket(), "GET", path, "").expect("an answer");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    fn put_config(&self, config: &Value) -> (u16, Value) {
        let (status, body) =
            http(&self.socket(), "PUT", "/v1/config", &config.to_string()).expect("an answer");
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    /// The frames dropped, as (port, reason) → frames.
    fn drops(&self, port: &str, reason: &str) -> u64 {
        let drops = self.get("/v1/drops?all=1");
        let found = drops
            .as_array()
            .expect("an array")
            .iter()
            .find(|drop| drop["port"] == port && drop["reason"] == reason);
        found.expect("the reason exists")["frames"]
            .as_u64()
            .expect("a number")
    }

    /// Clock ticks of 10 ms that the switch has had of any CPU.
    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it lives");
        let after_name = stat.rsplit(") ").next().expect("a name");
        let fields: Vec<&str> = after_name.split(' ').collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(mut child) = self.switch.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in ["sw", "vm1", "vm2", "net"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.netns(name)])
                .status();
        }
    }
}

/// What `ping -q` says at its end.
#[derive(Debug, PartialEq, Eq)]
struct Pings {
    sent: u64,
    received: u64,
    /// The line of round trip times.
    times: String,
}

impl Pings {
    fn parse(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        let number_before = |word: &str| {
            let words: Vec<&str> = text.split_whitespace().collect();
            let at = words.windows(2).position(|pair| pair[1].starts_with(word));
            at.and_then(|at| words[at].parse().ok()).unwrap_or(0)
        };
        // "5 packets transmitted, 5 received, 0% packet loss"
        Self {
            sent: number_before("packets"),
            received: number_before("received"),
            times: text
                .lines()
                .find(|line| line.starts_with("rtt"))
                .unwrap_or("")
                .to_owned(),
        }
    }
}

fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

fn run(command: &mut Command) {
    let output = command.output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}

#[track_caller]
fn eventually(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{what}: not in 20 s"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One request: status and body; `None` where nobody answers.
fn http(socket: &Path, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[test]
fn frames_pass_spoofs_do_not_and_the_sandbox_holds() {
    let Some(mut bed) = Bed::new("frames_pass_spoofs_do_not_and_the_sandbox_holds", 1) else {
        return;
    };
    bed.start(&[]);

    // Between guests by both families, to the gateway, and to the world.
    for to in [
        "10.0.0.12",
        "fd00:0:0:1::12",
        "10.0.0.1",
        "fd00:0:0:1::1",
        "203.0.113.1",
    ] {
        let pings = bed.ping("vm1", &["-c5", "-i0.01", "-W2", to]);
        assert_eq!((pings.sent, pings.received), (5, 5), "to {to}");
    }

    // An address that the port was not given: nothing comes back, and each frame is counted.
    bed.inside("vm1", &["addr", "add", "10.0.0.77/32", "dev", "eth0"]);
    let before = bed.drops("red-vm1", "ipv4-source");
    let pings = bed.ping(
        "vm1",
        &["-c4", "-i0.01", "-W1", "-I", "10.0.0.77", "10.0.0.12"],
    );
    assert_eq!((pings.sent, pings.received), (4, 0));
    assert_eq!(bed.drops("red-vm1", "ipv4-source") - before, 4);

    // The books agree: every frame that came in went on, was answered, or was dropped.
    let ports = bed.get("/v1/ports");
    for port in ports["ports"].as_array().expect("ports") {
        let count = |key: &str| port[key].as_u64().expect("a number");
        let accounted = count("forwarded") + count("replies") + count("dropped");
        assert_eq!(count("rx_frames"), accounted, "{port}");
        assert_eq!(count("rx_missed"), 0, "{port}");
        assert_eq!(port["link_up"], true, "{port}");
    }
    let (_, metrics) = http(&bed.socket(), "GET", "/metrics", "").expect("an answer");
    let dropped = bed.drops("red-vm1", "ipv4-source");
    let sample = format!(
        "vswitch_drops_total{{tenant=\"red\",port=\"red-vm1\",reason=\"ipv4-source\"}} {dropped}"
    );
    assert!(metrics.lines().any(|line| line == sample), "{metrics}");
    let routers: Vec<Value> = bed
        .get("/v1/neighbours")
        .as_array()
        .expect("an array")
        .iter()
        .filter(|neighbour| neighbour["port"] == "uplink")
        .cloned()
        .collect();
    assert_eq!(
        routers,
        [json!({
            "address": "192.0.2.1", "port": "uplink", "mac": "52:54:00:ff:00:01", "state": "reachable",
        })]
    );

    // The same through the command line.
    let socket = bed.socket();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(SWITCH);
        let output = command
            .args(arguments)
            .arg("--control")
            .arg(&socket)
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let shown: Value = serde_json::from_str(&command(&["show", "drops", "--json"])).expect("JSON");
    assert_eq!(shown, bed.get("/v1/drops"));
    let table = command(&["show", "drops"]);
    let row = ["red-vm1", "ipv4-source", &dropped.to_string()];
    assert!(
        table
            .lines()
            .any(|line| line.split_whitespace().take(3).eq(row)),
        "{table}"
    );
    let top: Value = serde_json::from_str(&command(&[
        "top",
        "--json",
        "--count",
        "1",
        "--interval",
        "0.1",
    ]))
    .expect("one object");
    let names: Vec<&Value> = top["ports"]
        .as_array()
        .expect("ports")
        .iter()
        .map(|port| &port["name"])
        .collect();
    assert_eq!(names, ["red-vm1", "red-vm2", "uplink"]);
    let file = bed.directory.path().join("switch.json");
    assert_eq!(
        command(&["reload", "--config", file.to_str().expect("UTF-8")]),
        "generation 2 is in use\n"
    );

    // Every thread is filtered, can gain nothing, and has no capability left.
    let tasks = std::fs::read_dir(format!("/proc/{}/task", bed.pid())).expect("threads");
    let mut threads = Vec::new();
    for task in tasks {
        let status =
            std::fs::read_to_string(task.expect("a thread").path().join("status")).expect("status");
        let field = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .expect("a field");
            line.trim_start_matches(':').trim().to_owned()
        };
        assert_eq!(
            (field("Seccomp").as_str(), field("NoNewPrivs").as_str()),
            ("2", "1")
        );
        let name = field("Name");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(field(set), "0000000000000000", "{set} of {name}");
        }
        threads.push(name);
    }
    threads.sort();
    assert_eq!(threads, ["control", "eal-intr-thread", "vswitch"]);

    // A clean end: status 0, and the socket's name is gone.
    kill(bed.pid(), Signal::SIGTERM).expect("it lives");
    let status = bed.switch.take().expect("it runs").wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(!bed.socket().exists());
}

#[test]
fn a_new_configuration_loses_no_frame() {
    let Some(mut bed) = Bed::new("a_new_configuration_loses_no_frame", 2) else {
        return;
    };
    bed.start(&[]);
    const PINGS: u64 = 1000;
    let netns = bed.netns("vm1");
    let flood = Command::new("ip")
        .args([
            "netns", "exec", &netns, "ping", "-n", "-q", "-i0.002", "-W2", "-c",
        ])
        .arg(PINGS.to_string())
        .arg("10.0.0.12")
        .stdout(Stdio::piped())
        .spawn()
        .expect("ping runs");
    let mut config = bed.config();
    let mut swaps = 0;
    for limit in 1..=40 {
        config["ports"][0]["limits"] = json!({ "pps": 100_000 + limit });
        let (status, answer) = bed.put_config(&config);
        assert_eq!((status, answer), (200, json!({ "generation": limit + 1 })));
        swaps += 1;
        std::thread::sleep(Duration::from_millis(25));
    }
    let pings = Pings::parse(&flood.wait_with_output().expect("ping ends"));
    assert_eq!(
        (pings.sent, pings.received),
        (PINGS, PINGS),
        "over {swaps} swaps"
    );
    assert_eq!(bed.get("/v1/config")["ports"][0]["limits"]["pps"], 100_040);

    // An address that is taken from a port is refused from the next frame on.
    config["ports"][0]["addresses"] = json!(["10.0.0.21/32"]);
    assert_eq!(bed.put_config(&config).0, 200);
    assert_eq!(
        bed.ping("vm1", &["-c3", "-i0.01", "-W1", "10.0.0.12"])
            .received,
        0
    );
    assert_eq!(bed.drops("red-vm1", "ipv4-source"), 3);

    // What a running switch cannot do is refused, and nothing changes.
    let mut moved = config.clone();
    moved["ports"][0]["device"]["interface"] = json!("other");
    let (status, answer) = bed.put_config(&moved);
    assert_eq!(status, 409);
    assert_eq!(
        answer["error"],
        "port red-vm1 has another device: that takes a restart of the switch"
    );
    let (status, _) = bed.put_config(&json!({ "tenant": "red" }));
    assert_eq!(status, 422);
    assert_eq!(bed.get("/v1/worker")["generation"], 42);
}

#[test]
fn an_idle_switch_sleeps_and_a_lost_link_does_not_wake_it() {
    let Some(mut bed) = Bed::new("an_idle_switch_sleeps_and_a_lost_link_does_not_wake_it", 3)
    else {
        return;
    };
    bed.start(&[]);
    const SECONDS: u64 = 3;
    let share = |what: &str| {
        let before = bed.cpu_ticks();
        std::thread::sleep(Duration::from_secs(SECONDS));
        let percent = (bed.cpu_ticks() - before) as f64 / SECONDS as f64;
        println!("{what}: {percent:.2} % of a CPU");
        // The aim is 2 %; what is held here is that it does not poll.
        assert!(percent < 25.0, "{what}: {percent} % of a CPU");
    };
    share("idle");
    let spaced = bed.ping("vm1", &["-c10", "-i0.1", "10.0.0.12"]);
    println!(
        "a frame at a time, the switch asleep before each: {}",
        spaced.times
    );
    println!("worker: {}", bed.get("/v1/worker"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", bed.pid())).expect("it lives");
    println!(
        "{}",
        status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .expect("a line")
    );

    bed.inside("sw", &["link", "set", "dev", "vm2", "down"]);
    eventually("the link is seen to be down", || {
        bed.get("/v1/ports")["ports"][1]["link_up"] == false
    });
    share("idle, a link down");
    assert_eq!(
        bed.ping("vm1", &["-c2", "-i0.01", "-W1", "203.0.113.1"])
            .received,
        2
    );
    bed.inside("sw", &["link", "set", "dev", "vm2", "up"]);
    eventually("traffic is back", || {
        bed.ping("vm1", &["-c1", "-W1", "10.0.0.12"]).received == 1
    });
}

#[test]
fn a_killed_switch_leaves_nothing_in_the_way_of_the_next() {
    let Some(mut bed) = Bed::new("a_killed_switch_leaves_nothing_in_the_way_of_the_next", 4) else {
        return;
    };
    bed.start(&[]);
    // A second one does not take the socket from the first.
    let second = Command::new("ip")
        .args(["netns", "exec", &bed.netns("sw"), SWITCH, "run", "--config"])
        .arg(bed.directory.path().join("switch.json"))
        .output()
        .expect("it runs");
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another process listens there"), "{said}");

    let mut child = bed.switch.take().expect("it runs");
    child.kill().expect("SIGKILL");
    child.wait().expect("it ends");
    // Cut off, not passed through.
    assert_eq!(
        bed.ping("vm1", &["-c2", "-i0.01", "-W1", "10.0.0.12"])
            .received,
        0
    );
    assert!(bed.socket().exists());
    bed.start(&["--poll", "busy"]);
    assert_eq!(bed.ping("vm1", &["-c3", "-i0.01", "10.0.0.12"]).received, 3);
    assert_eq!(bed.get("/v1/worker")["sleeps"], 0);
}
