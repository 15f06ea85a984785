//! The lock of an In/Out port on this host's kernel, as root: what is lost closes, and comes back.
//! Without root, each test prints that and passes.

#[path = "common/fake.rs"]
mod fake;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use fake::site;
use site::{Site, sh};
use supervisor::Supervisor;

/// Runs `nft` in the site's host.
fn nft(site: &Site, command: &str) -> String {
    let host = site.host();
    sh(&format!(
        "nsenter --net=/run/netns/{host} nft '{command}' 2>&1"
    ))
}

/// The bridge port of a tenant, by its alias.
fn port(site: &Site, tenant: &str) -> String {
    let host = site.host();
    let links = sh(&format!("ip -n {host} -j link"));
    let links: Value = serde_json::from_str(&links).expect("it is JSON");
    let links = links.as_array().expect("a list");
    let alias = format!("{tenant} In/Out");
    let port = links.iter().find(|link| link["ifalias"] == alias.as_str());
    port.and_then(|port| port["ifname"].as_str())
        .expect("it has a port")
        .to_owned()
}

fn is_up(site: &Site, port: &str) -> bool {
    let host = site.host();
    sh(&format!("ip -n {host} link show {port}")).contains(",UP")
}

/// A wire with a far end that prints when forged frames arrive: the seconds of the first and the
/// last of each burst, and how many they were.
const FAR: &str = r#"
import socket, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("far", 0))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
s.settimeout(0.2)
print("ready", flush=True)
first = None
while True:
    try:
        frame = s.recv(100)
    except TimeoutError:
        if first is not None:
            print(last - first, count, flush=True)
            first = None
        continue
    if frame[12:14] == b"\x08\x06" and frame[28:32] == bytes.fromhex("c0000263"):
        last = time.monotonic()
        if first is None:
            first, count = last, 0
        count += 1
"#;

/// A taken-over switch that claims another VTEP with its own MAC, without a pause. The bridge
/// itself stops another MAC.
const INTRUDER: &str = r#"
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("inout", 0))
mac = s.getsockname()[4].hex()
arp = bytes.fromhex("ffffffffffff" + mac + "0806" + "0001080006040002" + mac + "c0000263")
frame = (arp + bytes.fromhex("000000000000c0000201")).ljust(60, b"\0")
while True:
    try:
        s.send(frame)
    except OSError:
        pass
"#;

fn python(namespace: &str, program: &str, output: Stdio) -> Child {
    Command::new("nsenter")
        .arg(format!("--net=/run/netns/{namespace}"))
        .args(["python3", "-c", program])
        .stdout(output)
        .spawn()
        .expect("python3 starts")
}

/// Ends its program.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn add_wire(site: &Site) {
    let (host, bridge) = (site.host(), format!("{}-br0", site.instance));
    sh(&format!(
        "ip -n {host} link add wire type veth peer name far; ip -n {host} link set wire master \
         {bridge} up; ip -n {host} link set far up"
    ));
    let started = Instant::now();
    while !sh(&format!("ip -n {host} -d link show wire")).contains("state forwarding") {
        assert!(started.elapsed() < Duration::from_secs(5), "no carrier");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Writes to the file when forged frames arrive.
fn watch_far_end(site: &Site, log: &Path) -> Running {
    let file = std::fs::File::create(log).expect("a file");
    let far = Running(python(&site.host(), FAR, file.into()));
    let began = Instant::now();
    while !std::fs::read_to_string(log)
        .expect("the log")
        .contains("ready")
    {
        assert!(began.elapsed() < Duration::from_secs(10), "python3 is slow");
        std::thread::sleep(Duration::from_millis(20));
    }
    far
}

fn supervise(site: &Site, tenants: &[&str]) -> Supervisor {
    let options = ["--verify-every", "0"];
    let patience = Duration::from_secs(20);
    Supervisor::start(site.command(), &options, tenants, site.dir.path(), patience)
}

/// Makes a table with these flags, which Debian's `nft` does not know.
const MAKE_TABLES: &str = r#"
import socket, struct, sys
def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
def message(kind, flags, family, resource, body=b""):
    head = struct.pack("=BBH", family, 0, socket.htons(resource)) + body
    return struct.pack("=IHHII", 16 + len(head), kind, flags, 0, 0) + head
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
name, flags = sys.argv[1].encode() + b"\0", int(sys.argv[2])
for family in 5, 7:
    body = attribute(1, name) + attribute(2, struct.pack(">I", flags))
    table = message(0xA00, 1 | 4 | 0x400, family, 0, body)
    s.send(message(0x10, 1, 0, 10) + table + message(0x11, 1, 0, 10))
    assert s.recv(1 << 16)[16:20] == bytes(4)
"#;

const PLAIN: u32 = 0;
const PERSISTENT: u32 = 4;

/// Replaces the tables by others with these flags: `apply` chooses by what the host's `nft` knows.
fn replace_tables(site: &Site, flags: u32, files: &[&str]) {
    let name = site.instance;
    let deleted = format!("delete table netdev {name}; delete table bridge {name}");
    assert_eq!(nft(site, &deleted), "");
    let status = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", site.host()))
        .args(["python3", "-c", MAKE_TABLES, name, &flags.to_string()])
        .status();
    assert!(status.expect("python3 starts").success());
    site.good(&[&["apply"], files].concat());
    site.good(&["verify"]);
}

#[test]
fn lost_lock_closes_its_port_until_it_is_back() {
    let Some(site) = site("tka", 92300) else {
        return;
    };
    let files = [site.tenant(1, 1), site.tenant(2, 1)];
    let files = [files[0].as_str(), files[1].as_str()];
    site.good(&[&["apply"], &files[..]].concat());
    add_wire(&site);
    let (port, name) = (port(&site, "t1"), site.instance);
    let log = site.dir.path().join("far");
    let seen = || std::fs::read_to_string(&log).expect("the log");
    let _far = watch_far_end(&site, &log);
    let _intruder = Running(python("tka-sw-t1", INTRUDER, Stdio::null()));
    // Without a supervisor, what is lost stays open.
    assert_eq!(nft(&site, "flush ruleset"), "");
    std::thread::sleep(Duration::from_secs(1));
    site.good(&[&["apply"], &files[..]].concat());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(seen().lines().count(), 2, "the control: {}", seen());
    replace_tables(&site, PLAIN, &files);
    std::thread::sleep(Duration::from_millis(500));
    let before = seen().lines().count();
    let mut supervisor = supervise(&site, &["t1", "t2"]);

    // Everything that others do to tables by accident, and what it takes from whom.
    let all = &["t1", "t2"][..];
    let one = &["t1"][..];
    for (command, losers) in [
        ("flush ruleset".to_owned(), all),
        (format!("delete table netdev {name}"), all),
        (format!("delete table bridge {name}"), all),
        (format!("flush chain bridge {name} host"), all),
        (format!("flush chain netdev {name} lock-{port}"), one),
        (format!("add table netdev {name} {{ flags dormant; }}"), all),
    ] {
        assert_eq!(nft(&site, &command), "", "{command}");
        for tenant in losers {
            supervisor.wait_for("unlocked", tenant);
        }
        for tenant in losers {
            let locked = supervisor.wait_for("locked", tenant);
            println!("{command}: {tenant} closed for {} s", locked["closed_s"]);
        }
        site.good(&["verify"]);
    }
    // Frames of 0.2 s later would be of another burst.
    std::thread::sleep(Duration::from_millis(500));
    let seen = seen();
    let bursts: Vec<&str> = seen.lines().skip(before).collect();
    println!("forged frames arrived for these seconds, so many of them: {bursts:?}");
    // Only the flush of everything opens the lock, until the port is down.
    assert!(bursts.len() <= 1, "{bursts:?}");
    for burst in bursts {
        let window: f64 = burst
            .split(' ')
            .next()
            .expect("one")
            .parse()
            .expect("seconds");
        assert!(window < 0.5, "open for {window} s");
    }
    supervisor.stop();
    site.good(&["release", "--all"]);
}

#[test]
fn only_what_is_lost_closes_also_while_nobody_watched() {
    let Some(site) = site("tkc", 92380) else {
        return;
    };
    let files = [site.tenant(1, 1), site.tenant(2, 1)];
    let files = [files[0].as_str(), files[1].as_str()];
    site.good(&[&["apply"], &files[..]].concat());
    replace_tables(&site, PLAIN, &files);
    let (port, name) = (port(&site, "t1"), site.instance);
    let mut supervisor = supervise(&site, &["t1", "t2"]);

    // What others do to their own tables is no loss, and an accepting rule elsewhere no way out.
    let before = supervisor.events().len();
    for command in [
        "add table inet firewalld".to_owned(),
        "flush table inet firewalld; delete table inet firewalld".to_owned(),
        format!(
            "table netdev other {{ chain c {{ type filter hook ingress device {port} \
             priority -600; accept; }}\n}}"
        ),
        "table bridge other { chain c { type filter hook prerouting priority -600; accept; }\n}"
            .to_owned(),
    ] {
        assert_eq!(nft(&site, &command), "", "{command}");
    }
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(
        supervisor.events().len(),
        before,
        "{:?}",
        supervisor.events()
    );
    nft(
        &site,
        "delete table netdev other; delete table bridge other",
    );

    // The port's place on the bridge is of the lock.
    sh(&format!(
        "bridge -n tkc-host link set dev {port} isolated off"
    ));
    supervisor.wait_for("unlocked", "t1");
    supervisor.wait_for("locked", "t1");
    site.good(&["verify"]);
    supervisor.stop();

    // Nobody watches: what is lost is found, and repaired.
    nft(&site, &format!("delete table netdev {name}"));
    let verify = site.run(&["verify"]);
    assert_eq!(verify.status.code(), Some(3));
    sh(&format!("ip -n tkc-host link set {port} down"));
    let mut supervisor = supervise(&site, &["t1", "t2"]);
    supervisor.wait_for("locked", "t2");
    let began = Instant::now();
    while !is_up(&site, &port) {
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{port} stays down"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    site.good(&["verify"]);
    supervisor.stop();
    site.good(&["release", "--all"]);
}

#[test]
fn supervisor_that_comes_back_closes_what_was_lost_meanwhile() {
    let Some(site) = site("tkg", 92540) else {
        return;
    };
    let file = site.tenant(1, 1);
    site.good(&["apply", &file]);
    add_wire(&site);
    replace_tables(&site, PLAIN, &[&file]);
    supervise(&site, &["t1"]).stop();
    let log = site.dir.path().join("far");
    let _far = watch_far_end(&site, &log);
    let _intruder = Running(python("tkg-sw-t1", INTRUDER, Stdio::null()));
    // It sends: its socket counts that.
    let sends = || {
        let sent = sh("ip -n tkg-sw-t1 -s -j link show inout");
        let sent: Value = serde_json::from_str(&sent).expect("it is JSON");
        sent[0]["stats64"]["tx"]["packets"]
            .as_u64()
            .expect("a number")
    };
    let began = Instant::now();
    while sends() < 1000 {
        assert!(began.elapsed() < Duration::from_secs(20), "python3 is slow");
        std::thread::sleep(Duration::from_millis(50));
    }
    let flushed = Instant::now();
    assert_eq!(nft(&site, "flush ruleset"), "");
    // As long as systemd waits before it starts a service again.
    std::thread::sleep(Duration::from_secs(1));
    let away = flushed.elapsed();
    let mut supervisor = supervise(&site, &["t1"]);
    supervisor.wait_for("unlocked", "t1");
    supervisor.wait_for("locked", "t1");
    site.good(&["verify"]);
    // Frames of 0.2 s later would be of another burst.
    std::thread::sleep(Duration::from_millis(500));
    let seen = std::fs::read_to_string(&log).expect("the log");
    let bursts: Vec<&str> = seen.lines().skip(1).collect();
    println!("away for {away:?}; forged frames for these seconds, so many: {bursts:?}");
    let window = bursts
        .iter()
        .filter_map(|it| it.split(' ').next()?.parse::<f64>().ok());
    let open: f64 = window.sum();
    assert!(open > 0.0, "the control: {bursts:?}");
    assert!(open < away.as_secs_f64() + 2.0, "{bursts:?}");
    supervisor.stop();
    sh("ip -n tkg-host link delete wire");
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

/// Whether the kernel knows tables that persist (Linux 6.9).
fn tables_persist() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a version");
    let mut numbers = release.split(['.', '-']).map(|it| it.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(9))
}

#[test]
fn owned_tables_survive_a_flush_and_can_be_changed() {
    let Some(site) = site("tkb", 92340) else {
        return;
    };
    if !tables_persist() {
        eprintln!("skipped: before Linux 6.9, no table persists");
        return;
    }
    let file = site.tenant(1, 1);
    site.good(&["apply", &file]);
    replace_tables(&site, PERSISTENT, &[&file]);
    let supervisor = supervise(&site, &["t1"]);
    let listed = format!("list table netdev {}", site.instance);
    let began = Instant::now();
    while !nft(&site, &listed).contains("flags owner") {
        assert!(began.elapsed() < Duration::from_secs(5), "nobody owns it");
        std::thread::sleep(Duration::from_millis(50));
    }
    let deleted = nft(&site, &format!("delete table bridge {}", site.instance));
    assert!(deleted.contains("Operation not permitted"), "{deleted}");
    let before = supervisor.events().len();
    nft(&site, "flush ruleset");
    std::thread::sleep(Duration::from_millis(700));
    site.good(&["verify"]);
    assert_eq!(
        supervisor.events().len(),
        before,
        "{:?}",
        supervisor.events()
    );

    // Others get the tables when they ask for them.
    let changed = site.tenant(1, 2);
    site.good(&["apply", &changed]);
    site.good(&["verify"]);
    site.good(&["apply", &site.tenant(2, 1)]);
    site.good(&["release", "t2"]);
    site.good(&["verify"]);
    let down = supervisor
        .events()
        .iter()
        .any(|it| it["event"] == "unlocked");
    assert!(!down, "{:?}", supervisor.events());

    // The tables stay when their owner ends.
    drop(supervisor);
    site.good(&["verify"]);
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn check_shows_with_frames_that_the_lock_holds() {
    let Some(site) = site("tkd", 92420) else {
        return;
    };
    let output = site.run(&["check"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.lines().find(|line| line.contains("port locks"));
    assert!(found.is_some_and(|it| it.starts_with("good")), "{text}");
    assert_eq!(site.left(), site.nothing());
}

/// Addresses that the host must not have beside tenants 1 and 2 of the next test, each on an
/// interface, and what is said of them.
const TAKEN: &[(&str, &str, &str)] = &[
    (
        "192.0.2.1/24",
        "tke-br0",
        "192.0.2.1, its next hop, on bridge tke-br0: nothing of a",
    ),
    (
        "2001:db8::1/64",
        "aside",
        "2001:db8::1, its next hop, on interface aside: nothing of a",
    ),
    (
        "192.0.2.12/32",
        "tke-br0",
        "192.0.2.12, its own address, on bridge tke-br0, and would",
    ),
];

#[test]
fn check_follows_the_kind_of_nic() {
    let Some(site) = site("tkf", 92500) else {
        return;
    };
    // Without the programs of veth pairs.
    let programs = site.dir.path().join("programs");
    std::fs::create_dir(&programs).expect("a directory");
    std::os::unix::fs::symlink("/usr/bin/nsenter", programs.join("nsenter")).expect("a link");
    let found = |nic: &[&str]| {
        let mut command = site.command();
        let output = command
            .args(["--json", "check"])
            .args(nic)
            .env("PATH", &programs)
            .output();
        let found: Value =
            serde_json::from_slice(&output.expect("it starts").stdout).expect("JSON");
        let findings = found["findings"].as_array().expect("a list").clone();
        let missing = findings.into_iter().filter(|it| it["verdict"] == "missing");
        let names = missing.map(|it| it["what"].as_str().expect("a name").to_owned());
        names.collect::<Vec<_>>()
    };
    let of_veth = ["ethtool", "nftables", "port locks"];
    assert_eq!(found(&[]), of_veth);
    assert_eq!(found(&["--nic", "veth"]), of_veth);
    let of_sriov = found(&["--nic", "sriov"]);
    let foreign = of_sriov.iter().filter(|it| of_veth.contains(&it.as_str()));
    assert_eq!(foreign.count(), 0, "{of_sriov:?}");
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn host_cannot_be_its_tenants_router_on_the_bridge() {
    let Some(site) = site("tke", 92460) else {
        return;
    };
    let files = [site.tenant(1, 1), site.tenant(2, 1)];
    site.good(&["apply", &files[0]]);
    add_wire(&site);
    sh("ip -n tke-host link add aside type bridge; ip -n tke-host link set aside up");
    let with = |verb: &str, address: &str, interface: &str| {
        sh(&format!(
            "ip -n tke-host address {verb} {address} dev {interface} 2>&1"
        ))
    };
    for (address, interface, wanted) in TAKEN {
        assert_eq!(with("add", address, interface), "");
        let output = site.run(&["apply", &files[1]]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(
            text.contains(&format!("tenant t2: the host has {wanted}")),
            "{text}"
        );
        assert_eq!(with("del", address, interface), "");
    }

    // What comes after the tenant is drift, until it has gone.
    site.good(&["apply", &files[1]]);
    for (address, interface, wanted) in TAKEN {
        assert_eq!(with("add", address, interface), "");
        let verify = site.run(&["--json", "verify"]);
        assert_eq!(verify.status.code(), Some(3));
        let found: Value = serde_json::from_slice(&verify.stdout).expect("it is JSON");
        let found = found["drift"].as_array().expect("a list");
        // A next hop is that of both.
        let of_t2 = format!("tenant t2: the host has {wanted}");
        let met = |it: &Value| it.as_str().is_some_and(|it| it.starts_with(&of_t2));
        assert_eq!(found.iter().filter(|it| met(it)).count(), 1, "{found:?}");
        let tenants = if wanted.contains("next hop") { 2 } else { 1 };
        assert_eq!(found.len(), tenants, "{found:?}");
        assert_eq!(with("del", address, interface), "");
        site.good(&["verify"]);
    }
    let mut supervisor = {
        let options = ["--verify-every", "1"];
        let patience = Duration::from_secs(20);
        let dir = site.dir.path();
        Supervisor::start(site.command(), &options, &["t1", "t2"], dir, patience)
    };
    assert_eq!(with("add", "192.0.2.1/24", "tke-br0"), "");
    for tenant in ["t1", "t2"] {
        let drift = supervisor.wait_for("drift", tenant);
        let found = drift["found"].as_array().expect("a list");
        let why = found[0].as_str().expect("a sentence");
        assert!(
            found.len() == 1 && why.contains("192.0.2.1, its next hop"),
            "{drift}"
        );
    }
    assert_eq!(with("del", "192.0.2.1/24", "tke-br0"), "");
    supervisor.stop();
    sh("ip -n tke-host link delete wire; ip -n tke-host link delete aside");
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

/// Asks for addresses by ARP, from the wire's far end, and prints those that somebody has.
const ASK: &str = r#"
import socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
s.bind(("far", 0))
s.settimeout(0.2)
mac = s.getsockname()[4]
who = bytes.fromhex("000108000604") + b"\0\1" + mac + socket.inet_aton("192.0.2.99") + bytes(6)
for address in sys.argv[1:]:
    s.send(b"\xff" * 6 + mac + b"\x08\x06" + who + socket.inet_aton(address))
end = time.monotonic() + 1
while time.monotonic() < end:
    try:
        frame = s.recv(100)
    except TimeoutError:
        continue
    if frame[20:22] == b"\0\2" and frame[:6] == mac:
        print(socket.inet_ntoa(frame[28:32]), flush=True)
"#;

#[test]
fn host_answers_on_the_bridge_only_for_the_bridges_own_addresses() {
    let Some(site) = site("tkg", 92540) else {
        return;
    };
    site.good(&["apply", &site.tenant(1, 1)]);
    add_wire(&site);
    // The tenant's own address, in another network of the host, and one that the bridge has.
    sh(
        "ip -n tkg-host link add aside type bridge; ip -n tkg-host link set aside up; ip -n \
         tkg-host address add 192.0.2.11/24 dev aside; ip -n tkg-host address add 198.51.100.1/24 \
         dev tkg-br0",
    );
    let answered = || {
        let python = format!("nsenter --net=/run/netns/{} python3 -c", site.host());
        sh(&format!("{python} '{ASK}' 192.0.2.11 198.51.100.1"))
    };
    assert_eq!(answered(), "198.51.100.1\n");

    let ignore = "/proc/sys/net/ipv4/conf/tkg-br0/arp_ignore";
    sh(&format!(
        "nsenter --net=/run/netns/tkg-host sh -c 'echo 0 > {ignore}'"
    ));
    assert_eq!(answered(), "192.0.2.11\n198.51.100.1\n");
    assert_eq!(site.run(&["verify"]).status.code(), Some(3));
    site.good(&["apply", &site.tenant(1, 1)]);
    assert_eq!(answered(), "198.51.100.1\n");

    sh("ip -n tkg-host link delete wire; ip -n tkg-host link delete aside");
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}
