//! `vswitch run` on real interfaces: guests are network namespaces, each behind a veth pair whose
//! other end is a port of the switch. Skipped without root.

#[path = "common/bed.rs"]
mod bed;
#[path = "common/descriptors.rs"]
mod descriptors;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bed::{Bed, Pings, SWITCH, Switch, eventually, http};
use descriptors::{descriptors, of_a_switch};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A switch with two guests and an "Internet" behind its uplink.
struct Site {
    switch: Option<Switch>,
    /// The driver of all its devices.
    driver: &'static str,
    bed: Bed,
}

impl Site {
    /// `None` without root.
    fn new(test: &str) -> Option<Self> {
        let bed = Bed::new(test, &["sw", "vm1", "vm2", "net"])?;
        bed.pair(("sw", "vm1"), "vm1", "52:54:00:aa:00:01");
        bed.pair(("sw", "vm2"), "vm2", "52:54:00:aa:00:02");
        bed.pair(("sw", "net"), "net", "52:54:00:ff:00:01");
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
        Some(Self {
            switch: None,
            driver: "af_packet",
            bed,
        })
    }

    fn socket(&self) -> PathBuf {
        self.bed.path("control.sock")
    }

    fn config(&self) -> Value {
        let port = |number: u32| {
            json!({
                "name": format!("red-vm{number}"),
                "device": { "driver": self.driver, "interface": format!("vm{number}") },
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
                "device": { "driver": self.driver, "interface": "net" },
                "mac": "02:00:13:89:00:00",
                "ipv4": "192.0.2.2/24",
                "next_hops": { "ipv4": "192.0.2.1" },
            },
            // For the buffers that XDP sockets hold.
            "memory": { "mib": if self.driver == "af_xdp" { 128 } else { 32 } },
            "control_socket": self.socket(),
        })
    }

    /// Starts the switch, and waits until it is ready.
    fn start(&mut self, arguments: &[&str]) {
        self.switch = Some(Switch::start(&self.bed, "sw", &self.config(), arguments));
        // The guests' links are up now. These echoes fill their neighbour tables, so that later
        // counts contain traffic only.
        for (from, to) in [
            ("vm1", "10.0.0.12"),
            ("vm2", "10.0.0.11"),
            ("vm1", "203.0.113.1"),
        ] {
            eventually("the first echo", || {
                self.bed.ping(from, &["-c1", "-W1", to]).received == 1
            });
        }
    }

    fn switch(&self) -> &Switch {
        self.switch.as_ref().expect("it runs")
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.switch().child.id() as i32)
    }

    /// The switch's CPU time in clock ticks of 10 ms.
    fn cpu_ticks(&self) -> u64 {
        let stat = format!("/proc/{}/stat", self.pid());
        let stat = std::fs::read_to_string(stat).expect("it lives");
        let after_name = stat.rsplit(") ").next().expect("a name");
        let fields: Vec<&str> = after_name.split(' ').collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    }
}

#[test]
fn confined_switch_forwards_frames_and_drops_spoofs() {
    let Some(mut site) = Site::new("confined_switch_forwards_frames_and_drops_spoofs") else {
        return;
    };
    site.start(&[]);

    // Between guests, to the gateway, and to external addresses, by both IP versions.
    for to in [
        "10.0.0.12",
        "fd00:0:0:1::12",
        "10.0.0.1",
        "fd00:0:0:1::1",
        "203.0.113.1",
    ] {
        let pings = site.bed.ping("vm1", &["-c5", "-i0.01", "-W2", to]);
        assert_eq!((pings.sent, pings.received), (5, 5), "to {to}");
    }

    // An unassigned address: nothing comes back, and each frame is counted.
    site.bed
        .inside("vm1", &["addr", "add", "10.0.0.77/32", "dev", "eth0"]);
    let before = site.switch().drops("red-vm1", "ipv4-source");
    let pings = site.bed.ping(
        "vm1",
        &["-c4", "-i0.01", "-W1", "-I", "10.0.0.77", "10.0.0.12"],
    );
    assert_eq!((pings.sent, pings.received), (4, 0));
    assert_eq!(site.switch().drops("red-vm1", "ipv4-source") - before, 4);

    counters_agree(&site);
    command_line_agrees(&site);
    threads_are_confined(site.pid());

    // A clean end: status 0, and the socket is removed.
    kill(site.pid(), Signal::SIGTERM).expect("it lives");
    let status = site.switch.take().expect("it runs").child.wait();
    assert_eq!(status.expect("it ends").code(), Some(0));
    assert!(!site.socket().exists());
}

/// The counters, metrics and neighbours of [`confined_switch_forwards_frames_and_drops_spoofs`].
fn counters_agree(site: &Site) {
    // Every received frame was forwarded, answered, or dropped.
    let ports = site.switch().get("/v1/ports");
    for port in ports["ports"].as_array().expect("ports") {
        let count = |key: &str| port[key].as_u64().expect("a number");
        let accounted = count("forwarded") + count("replies") + count("dropped");
        assert_eq!(count("rx_frames"), accounted, "{port}");
        assert_eq!(count("rx_missed"), 0, "{port}");
        assert_eq!(port["link_up"], true, "{port}");
    }
    let (_, metrics) = http(&site.socket(), "GET", "/metrics", "").expect("an answer");
    let dropped = site.switch().drops("red-vm1", "ipv4-source");
    let sample = format!(
        "vswitch_drops_total{{tenant=\"red\",port=\"red-vm1\",reason=\"ipv4-source\"}} {dropped}"
    );
    assert!(metrics.lines().any(|line| line == sample), "{metrics}");
    let routers: Vec<Value> = site
        .switch()
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
            "address": "192.0.2.1", "port": "uplink", "mac": "52:54:00:ff:00:01",
            "state": "reachable",
        })]
    );
}

/// The command line shows the same as the API.
fn command_line_agrees(site: &Site) {
    let dropped = site.switch().drops("red-vm1", "ipv4-source");
    let command = |arguments: &[&str]| site.switch().cli(arguments);
    // The namespaces' own frames may be counted between the two.
    let are_alike = || {
        let shown = command(&["show", "drops", "--json"]);
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        shown == site.switch().get("/v1/drops")
    };
    assert!(
        (0..10).any(|_| are_alike()),
        "the command line and the API differ"
    );
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
    let file = site.bed.path("sw.json");
    assert_eq!(
        command(&["reload", "--config", file.to_str().expect("UTF-8")]),
        "generation 2 is in use\n"
    );
}

/// Every thread is filtered, can gain no privilege, and has no capability.
fn threads_are_confined(switch: Pid) {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", switch)).expect("threads");
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
    assert_eq!(
        threads,
        ["control", "eal-intr-thread", "metadata", "vswitch"]
    );
}

#[test]
fn reload_loses_no_frame() {
    let Some(mut site) = Site::new("reload_loses_no_frame") else {
        return;
    };
    site.start(&[]);
    const PINGS: u64 = 1000;
    let flood = site
        .bed
        .command("vm1", "ping")
        .args(["-n", "-q", "-i0.002", "-W2", "-c"])
        .arg(PINGS.to_string())
        .arg("10.0.0.12")
        .stdout(Stdio::piped())
        .spawn()
        .expect("ping runs");
    let mut config = site.config();
    let mut swaps = 0;
    for limit in 1..=40 {
        config["ports"][0]["limits"] = json!({ "pps": 100_000 + limit });
        let (status, answer) = site.switch().put_config(&config);
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
    assert_eq!(
        site.switch().get("/v1/config")["ports"][0]["limits"]["pps"],
        100_040
    );

    // A removed address is refused from the next frame on.
    config["ports"][0]["addresses"] = json!(["10.0.0.21/32"]);
    assert_eq!(site.switch().put_config(&config).0, 200);
    assert_eq!(
        site.bed
            .ping("vm1", &["-c3", "-i0.01", "-W1", "10.0.0.12"])
            .received,
        0
    );
    assert_eq!(site.switch().drops("red-vm1", "ipv4-source"), 3);

    // What needs a restart is refused, and nothing changes.
    let mut moved = config.clone();
    moved["ports"][0]["device"]["interface"] = json!("other");
    let (status, answer) = site.switch().put_config(&moved);
    assert_eq!(status, 409);
    assert_eq!(
        answer["error"],
        "port red-vm1 has another device: that takes a restart of the switch"
    );
    let (status, _) = site.switch().put_config(&json!({ "tenant": "red" }));
    assert_eq!(status, 422);
    assert_eq!(site.switch().get("/v1/worker")["generation"], 42);
}

#[test]
fn idle_switch_sleeps_also_without_link() {
    let Some(mut site) = Site::new("idle_switch_sleeps_also_without_link") else {
        return;
    };
    site.start(&[]);
    const SECONDS: u64 = 3;
    let share = |what: &str| {
        let before = site.cpu_ticks();
        std::thread::sleep(Duration::from_secs(SECONDS));
        let percent = (site.cpu_ticks() - before) as f64 / SECONDS as f64;
        println!("{what}: {percent:.2} % of a CPU");
        // The target is 2 %; this only checks that the switch does not poll.
        assert!(percent < 25.0, "{what}: {percent} % of a CPU");
    };
    share("idle");
    let spaced = site.bed.ping("vm1", &["-c10", "-i0.1", "10.0.0.12"]);
    println!(
        "a frame at a time, the switch asleep before each: {}",
        spaced.times
    );
    println!("worker: {}", site.switch().get("/v1/worker"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.pid())).expect("it lives");
    println!(
        "{}",
        status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .expect("a line")
    );

    site.bed
        .inside("sw", &["link", "set", "dev", "vm2", "down"]);
    eventually("the link is seen to be down", || {
        site.switch().get("/v1/ports")["ports"][1]["link_up"] == false
    });
    share("idle, a link down");
    assert_eq!(
        site.bed
            .ping("vm1", &["-c2", "-i0.01", "-W1", "203.0.113.1"])
            .received,
        2
    );
    site.bed.inside("sw", &["link", "set", "dev", "vm2", "up"]);
    eventually("traffic is back", || {
        site.bed.ping("vm1", &["-c1", "-W1", "10.0.0.12"]).received == 1
    });
}

#[test]
fn switch_starts_after_predecessor_was_killed() {
    let Some(mut site) = Site::new("switch_starts_after_predecessor_was_killed") else {
        return;
    };
    site.start(&[]);
    // A second switch does not take over the socket of the first.
    let second = site
        .bed
        .command("sw", SWITCH)
        .args(["run", "--config"])
        .arg(site.bed.path("sw.json"))
        .output()
        .expect("it runs");
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another process listens there"), "{said}");

    let child = &mut site.switch.as_mut().expect("it runs").child;
    child.kill().expect("SIGKILL");
    child.wait().expect("it ends");
    // The tenant is cut off; nothing bypasses the switch.
    assert_eq!(
        site.bed
            .ping("vm1", &["-c2", "-i0.01", "-W1", "10.0.0.12"])
            .received,
        0
    );
    assert!(site.socket().exists());
    site.start(&["--poll", "busy"]);
    assert_eq!(
        site.bed
            .ping("vm1", &["-c3", "-i0.01", "10.0.0.12"])
            .received,
        3
    );
    assert_eq!(site.switch().get("/v1/worker")["sleeps"], 0);
}

/// Waits until `pid` has open what it should have, besides its standard input and outputs.
#[track_caller]
fn has_open(pid: u32, wanted: &BTreeMap<String, usize>) {
    let mut found = BTreeMap::new();
    let begun = Instant::now();
    // A client's connection is closed a moment later.
    while begun.elapsed() < Duration::from_secs(10) {
        found = descriptors(pid, 3);
        if found == *wanted {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(found, *wanted);
}

#[test]
fn switch_has_the_documented_descriptors_open() {
    let Some(mut site) = Site::new("switch_has_the_documented_descriptors_open") else {
        return;
    };
    let path = |name: &str| site.bed.path(name).to_str().expect("UTF-8").to_owned();
    let (channel, ike) = (path("channel.sock"), path("ike.sock"));
    let ike = ["--ike", &ike, "--ike-uid", "64000"];
    site.start(&[&["--channel", &channel], &ike[..]].concat());
    let wanted = of_a_switch(&[
        ("packet socket", 3),
        ("listener on channel.sock", 2),
        ("listener on ike.sock", 2),
    ]);
    has_open(site.switch().child.id(), &wanted);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", site.pid()));
    let limits = limits.expect("it lives");
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        let fields = line.expect("a limit").split_whitespace();
        fields.take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    // The test's own output may be a file.
    let output = std::fs::metadata("/proc/self/fd/2").expect("standard error");
    if !output.is_file() {
        assert_eq!(limit("Max file size"), ["0", "0"]);
    }
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    let open: Vec<u64> = limit("Max open files")
        .iter()
        .map(|most| most.parse().expect("a number"))
        .collect();
    assert!(open[0] == open[1] && open[0] < 100, "{open:?}");
}

#[test]
fn switch_on_af_xdp_has_the_documented_descriptors_open() {
    let Some(mut site) = Site::new("switch_on_af_xdp_has_the_documented_descriptors_open") else {
        return;
    };
    site.driver = "af_xdp";
    site.start(&[]);
    let echoes = site.bed.ping("vm1", &["-c3", "-i0.1", "10.0.0.12"]);
    assert_eq!(echoes.received, 3, "its ports carry frames");
    let wanted = of_a_switch(&[
        ("XDP socket", 3),
        ("BPF program", 6),
        ("BPF map", 12),
        ("BPF types", 3),
        ("unix socket without a peer", 3),
    ]);
    has_open(site.switch().child.id(), &wanted);
}

/// A switch with a port on each of two ends of a memif, and nothing else.
fn memif_config(bed: &Bed, name: &str, server: bool) -> Value {
    let last = u32::from(server);
    json!({
        "tenant": name,
        "vni": 5001,
        "gateway": { "ipv4": "10.0.0.1/24" },
        "ports": [{
            "name": format!("{name}-port"),
            "device": {
                "driver": "memif",
                "socket": bed.path("memif.sock"),
                "id": 0,
                "server": server,
                "trusted_peer": true,
            },
            "gateway_mac": format!("02:00:13:89:00:0{last}"),
            "mac": format!("52:54:00:aa:00:0{last}"),
            "addresses": [format!("10.0.0.1{last}/32")],
        }],
        "control_socket": bed.path(&format!("{name}/control.sock")),
    })
}

#[test]
fn switches_joined_by_memif_have_the_documented_descriptors_open() {
    let test = "switches_joined_by_memif_have_the_documented_descriptors_open";
    // In one namespace, whose tables list the connection.
    let Some(bed) = Bed::new(test, &["sw"]) else {
        return;
    };
    for name in ["server", "client"] {
        std::fs::create_dir(bed.path(name)).expect("a directory");
    }
    let start = |name| {
        let config = memif_config(&bed, name, name == "server");
        Switch::start(&bed, "sw", &config, &[])
    };
    // A connection, the shared memory, and an event for each ring.
    let joined = [
        ("memory of a memif", 1),
        ("event", 2),
        ("seqpacket connection", 1),
    ];
    let server = start("server");
    let mut client = start("client");
    for round in 0..3 {
        eventually("they are joined", || {
            let port = server.get("/v1/ports")["ports"][0].clone();
            port["link_up"] == true
        });
        let listening = [joined.as_slice(), &[("listener on memif.sock", 1)]].concat();
        has_open(server.child.id(), &of_a_switch(&listening));
        has_open(client.child.id(), &of_a_switch(&joined));
        if round < 2 {
            client.child.kill().expect("SIGKILL");
            client.child.wait().expect("it ends");
            client = start("client");
        }
    }
}
