//! Guests configure IPv6 by themselves: their link-local addresses are made from no MAC, their
//! default route is there at once, and the addresses that they make of the gateway's prefix reach
//! their siblings.
//!
//! The real switch, this host's kernel and systemd's network daemon, as root. Without root the test
//! prints that and passes.

#[path = "common/guest.rs"]
mod guest;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use guest::{Guest, command, dropped, run, send};
use site::{Site, sh};
use supervisor::Supervisor;

const TENANT: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
ipv6 = "fd00:0:0:1::1/64"
ipv6_autoconf = "slaac"
[uplink]
address = "192.0.2.11/24"
next_hop = "192.0.2.1"
[[port]]
name = "t1-random"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.11"]
addresses6 = "learn-nd"
[[port]]
name = "t1-networkd"
mac = "52:54:00:00:01:02"
addresses = []
addresses6 = "learn-nd"
[[port]]
name = "t1-static"
mac = "52:54:00:00:01:03"
addresses = ["10.1.0.13", "fd00:0:0:1::13"]
"#;

const STATIC: &str = "fd00:0:0:1::13";
/// From the link's first sign of life to the default route: Linux waits for up to a second before
/// it detects duplicates, then for a second more, and then it asks for its router.
const AT_ONCE: Duration = Duration::from_millis(2500);

/// What `ip` shows of a guest.
fn shown(site: &Site, guest: &str, what: &str) -> String {
    sh(&format!("ip -6 -n {}-{guest} {what}", site.instance))
}

/// Waits until the guest shows that, and hands it back with the time that it took.
#[track_caller]
fn wait_for(site: &Site, guest: &str, what: &str, part: &str) -> (String, Duration) {
    let began = Instant::now();
    loop {
        let text = shown(site, guest, what);
        if text.contains(part) {
            return (text, began.elapsed());
        }
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "no {part:?} in {text:?}; {}",
            shown(site, guest, "address show dev eth0")
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

const GLOBAL: &str = "-o address show dev eth0 scope global -tentative";
const LINK_LOCAL: &str = "-o address show dev eth0 scope link";
const DEFAULT: &str = "route show default";

/// The first address in what `ip` shows.
fn address(text: &str) -> String {
    let (_, rest) = text.split_once("inet6 ").expect("an address");
    rest.split('/').next().expect("its length").to_owned()
}

/// The guest has an address of the prefix, by which it and its sibling reach each other.
#[track_caller]
fn is_reached(site: &Site, guest: &str) -> String {
    let (text, _) = wait_for(site, guest, GLOBAL, "inet6 fd00::1:");
    let own = address(&text);
    for (from, to) in [(guest, STATIC), ("t1-static", &own)] {
        let began = Instant::now();
        while !run(site, from, &["ping", "-c1", "-W1", to]) {
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "{to} does not answer {from}"
            );
        }
    }
    own
}

/// Has the guest make its link-local address at random, as it comes up.
fn come_up(site: &Site, guest: &str) -> Duration {
    let link = |change: &str| {
        let words: Vec<&str> = change.split(' ').collect();
        let all = [&["ip", "link", "set", "dev", "eth0"][..], &words].concat();
        assert!(run(site, guest, &all), "{change}");
    };
    link("down");
    link("addrgenmode random");
    link("up");
    wait_for(site, guest, DEFAULT, "default via fe80::").1
}

/// systemd's network daemon, with a `/run/systemd` of its own.
fn networkd(site: &Site) -> Guest {
    let run = site.dir.path().join("run");
    for dir in ["network", "netif/links", "netif/leases", "netif/lldp"] {
        fs::create_dir_all(run.join(dir)).expect("a directory");
    }
    let text = "[Match]\nName=eth0\n[Network]\nDHCP=no\nIPv6AcceptRA=yes\n\
                IPv6LinkLocalAddressGenerationMode=stable-privacy\n\
                IPv6StableSecretAddress=2001:db8::5ec\n[IPv6AcceptRA]\nToken=prefixstable\n";
    fs::write(run.join("network/eth0.network"), text).expect("a file");
    let program = format!(
        "mkdir -p /run/systemd && mount --bind {} /run/systemd && \
         chown -R systemd-network: /run/systemd && \
         mount -o remount,ro,bind /sys && exec {NETWORKD}",
        run.display(),
    );
    let mut program = command(site, "t1-networkd", &["sh", "-c", &program]);
    let log = fs::File::create(site.dir.path().join("networkd.log")).expect("a file");
    program.stdin(Stdio::null()).stderr(log);
    program.env("SYSTEMD_LOG_TARGET", "console");
    Guest(program.spawn().expect("it starts"))
}

const NETWORKD: &str = "/lib/systemd/systemd-networkd";

/// Prints what passes of Duplicate Address Detection, Router Solicitations and Advertisements, with
/// the time in seconds.
const WATCH: &str = r#"
import socket, time
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("eth0", 0))
print("0 ready", flush=True)
while True:
    try:
        frame = wire.recv(2048)
    except OSError: # The link is down.
        continue
    now = time.monotonic()
    if frame[12:14] != b"\x86\xdd" or frame[20] != 58:
        continue
    kind = {133: "solicitation", 134: "advertisement"}.get(frame[54])
    if frame[54] == 135 and not any(frame[22:38]):
        kind = "detection"
    if kind:
        print(now, kind, flush=True)
"#;

/// What passes at a guest's link.
struct Watch {
    _python: Guest,
    log: PathBuf,
}

impl Watch {
    fn start(site: &Site, guest: &str) -> Self {
        let log = site.dir.path().join(format!("watch-{guest}"));
        let mut python = command(site, guest, &["python3", "-c", WATCH]);
        let written = fs::File::create(&log).expect("a file");
        let python = python.stdin(Stdio::null()).stdout(written);
        let watch = Self {
            _python: Guest(python.spawn().expect("python3 starts")),
            log,
        };
        let began = Instant::now();
        while watch.seen("ready").is_empty() {
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "it does not watch"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        watch
    }

    /// When such messages passed.
    fn seen(&self, kind: &str) -> Vec<Duration> {
        let text = fs::read_to_string(&self.log).expect("the log");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().filter_map(|line| line.split_once(' '));
        let times = lines.filter(|(_, it)| *it == kind);
        let times = times.map(|(at, _)| at.parse().expect("seconds"));
        times.map(Duration::from_secs_f64).collect()
    }
}

/// systemd's network daemon is told of its router as soon as it has detected duplicates, and not
/// only when it asks.
fn networkd_is_told(watch: &Watch, took: Duration) {
    let [detections, asked, answered] =
        ["detection", "solicitation", "advertisement"].map(|kind| watch.seen(kind));
    let since = |at: &Duration| at.saturating_sub(detections[0]);
    let told = answered.iter().map(since).find(|after| !after.is_zero());
    println!(
        "networkd: {took:?} to the default route; after the first detection, told {told:?}, asks \
         {:?}",
        asked.first().map(since)
    );
    assert!(took < AT_ONCE, "{took:?}, told {told:?}");
}

/// A frame of Duplicate Address Detection for the address, from a MAC that ends in `mac`.
fn detection(mac: u8, address: &str) -> String {
    let address: std::net::Ipv6Addr = address.parse().expect("an address");
    let target = address.octets();
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];
    let group = [&group[..], &target[13..]].concat();
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target);
    let words = |bytes: &[u8]| -> u32 {
        let pairs = bytes.chunks(2);
        pairs
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum()
    };
    let sum = words(&group) + words(&message) + 24 + 58;
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![0x33, 0x33];
    frame.extend(&group[12..]);
    frame.extend([0x52, 0x54, 0, 0, 1, mac, 0x86, 0xdd]);
    frame.extend([0x60, 0, 0, 0, 0, 24, 58, 255]);
    frame.extend([0; 16]);
    frame.extend(group);
    frame.extend(message);
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The switch is killed, and its successor knows what the guest has claimed before that says
/// anything.
fn survives_a_restart(site: &Site, claimed: &str) {
    let patience = Duration::from_secs(20);
    let mut supervisor = Supervisor::start(site.command(), &[], &["t1"], site.dir.path(), patience);
    // It learns of the claims without an event: both sides poll twice a second.
    std::thread::sleep(Duration::from_secs(3));
    let switch = nix::unistd::Pid::from_raw(site.pid("t1"));
    nix::sys::signal::kill(switch, nix::sys::signal::Signal::SIGKILL).expect("it is there");
    supervisor.wait_for("down", "t1");
    supervisor.wait_for("restarted", "t1");
    let began = Instant::now();
    while !run(site, "t1-static", &["ping", "-c1", "-W1", claimed]) {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{claimed} is not known: {}",
            fs::read_to_string(site.state_dir().join("tenants/t1/log")).unwrap_or_default()
        );
    }
    println!("{claimed} answers {:?} after the restart", began.elapsed());
    supervisor.stop();
}

#[test]
fn guests_configure_ipv6_by_themselves() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let site = Site::new("tvn", 91_000, Vec::new());
    let file = site.dir.path().join("t1.toml");
    fs::write(&file, TENANT).expect("a file");
    site.good(&["apply", file.to_str().expect("UTF-8")]);
    let own = [
        "ip",
        "address",
        "add",
        "fd00:0:0:1::13/64",
        "dev",
        "eth0",
        "nodad",
    ];
    assert!(run(&site, "t1-static", &own));

    for round in 0..3 {
        let took = come_up(&site, "t1-random");
        let made = address(&shown(&site, "t1-random", LINK_LOCAL));
        println!("round {round}: {made} has a default route after {took:?}");
        assert!(
            made.starts_with("fe80::") && !made.contains("ff:fe00:"),
            "{made}"
        );
        assert!(took < AT_ONCE, "{took:?}");
        let global = is_reached(&site, "t1-random");
        assert!(!global.contains("ff:fe00:"), "{global}");

        // A sibling does not get the address, nor what it sends from there.
        let defended = dropped(&site, "t1-static", "nd-spoof");
        send(
            &site,
            "t1-static",
            &[detection(3, &made), detection(3, &global)],
        );
        let began = Instant::now();
        while dropped(&site, "t1-static", "nd-spoof") < defended + 2 {
            assert!(began.elapsed() < Duration::from_secs(5), "not refused");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(run(&site, "t1-static", &["ping", "-c1", "-W1", &global]));
    }
    assert_eq!(dropped(&site, "t1-random", "nd-spoof"), 0);
    let global = is_reached(&site, "t1-random");
    survives_a_restart(&site, &global);

    if Path::new(NETWORKD).exists() {
        let down = ["ip", "link", "set", "dev", "eth0", "down"];
        assert!(run(&site, "t1-networkd", &down));
        let watch = Watch::start(&site, "t1-networkd");
        let daemon = networkd(&site);
        wait_for(&site, "t1-networkd", "link show dev eth0", "state UP");
        let (_, took) = wait_for(&site, "t1-networkd", DEFAULT, "default via fe80::");
        let made = address(&shown(&site, "t1-networkd", LINK_LOCAL));
        let global = is_reached(&site, "t1-networkd");
        networkd_is_told(&watch, took);
        for address in [made, global] {
            assert!(!address.contains("ff:fe00:"), "{address}");
        }
        drop((daemon, watch));
    }
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}
