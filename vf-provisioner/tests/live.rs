//! The provisioner on this host's kernel, as root. Each test has its own instance, with its own
//! network namespace for the bridge, so tests can run in parallel. Without root, each prints that
//! and passes.

#[path = "common/fake.rs"]
mod fake;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use fake::site;
use site::{Site, sh};
use supervisor::Supervisor;

#[test]
fn applied_tenant_is_verified_and_released() {
    let Some(site) = site("tva", 70000) else {
        return;
    };
    let file = site.tenant(1, 2);
    let applied = site.json(&["apply", &file]);
    assert_eq!(applied["actions"].as_array().map(Vec::len), Some(12));
    assert_eq!(applied["probed"], serde_json::json!(["t1-vm1", "t1-vm2"]));
    site.good(&["verify"]);
    assert_eq!(site.good(&["plan", &file]), "nothing to do\n");
    assert_eq!(site.good(&["apply", &file]), "nothing to do\n");

    // Drift is found, named, and repaired without a restart.
    let pid = site.pid("t1");
    sh("ip -n tva-t1-vm1 link set eth0 mtu 1400");
    sh("nsenter --net=/run/netns/tva-host nft flush ruleset");
    let verify = site.run(&["verify"]);
    let text = String::from_utf8_lossy(&verify.stdout).into_owned();
    assert_eq!(verify.status.code(), Some(3), "{text}");
    assert!(
        text.contains("peer.mtu should be 1500 and is 1400"),
        "{text}"
    );
    assert!(text.contains("nftables tables tva is missing"), "{text}");
    assert!(text.contains("port lock of tva-io"), "{text}");
    site.good(&["apply", &file]);
    site.good(&["verify"]);
    assert_eq!(site.pid("t1"), pid);

    site.good(&["release", "t1"]);
    assert_eq!(site.left(), site.nothing());
    site.good(&["release", "t1", "--ignore-missing"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn switch_is_confined() {
    let Some(site) = site("tvb", 71000) else {
        return;
    };
    site.good(&["apply", &site.tenant(1, 1), &site.tenant(2, 1)]);
    let pids = [site.pid("t1"), site.pid("t2")];
    let mut seen = Vec::new();
    for (pid, uid) in pids.iter().zip([71000_u32, 71001]) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|rest| rest.split_whitespace().collect::<Vec<_>>().join(" "))
                .unwrap_or_default()
        };
        assert_eq!(field("Uid:"), [uid; 4].map(|uid| uid.to_string()).join(" "));
        assert_eq!(field("Gid:"), [uid; 4].map(|uid| uid.to_string()).join(" "));
        assert_eq!(field("Groups:"), "");
        assert_eq!(field("NoNewPrivs:"), "1");
        // CAP_NET_RAW (13), until the switch itself drops it.
        for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(field(set), "0000000000002000", "{set}");
        }
        // The switch is process 1 of its own PID namespace.
        assert_eq!(field("NSpid:"), format!("{pid} 1"));
        let mut spaces = Vec::new();
        for kind in ["net", "mnt", "ipc", "uts", "pid"] {
            let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a link");
            let own = link(&pid.to_string());
            assert_ne!(own, link("self"), "{kind} is the host's");
            spaces.push(own);
        }
        let root = format!("/proc/{pid}/root");
        let mut entries: Vec<String> = fs::read_dir(&root)
            .expect("its root")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !["lib", "lib64", "lib32", "libx32", "bin"].contains(&name.as_str()))
            .collect();
        entries.sort();
        assert_eq!(
            entries,
            ["dev", "etc", "proc", "run", "sys", "tmp", "usr", "vswitch"]
        );
        assert!(fs::write(format!("{root}/usr/x"), "").is_err());
        assert!(fs::write(format!("{root}/x"), "").is_err());
        // Its open files: nothing inherited, and no file of others.
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("its files")
            .flatten()
        {
            let target = fs::read_link(entry.path()).expect("a link");
            let target = target.to_string_lossy().into_owned();
            let own = target.starts_with("socket:")
                || target.starts_with("anon_inode:")
                || target == "/dev/null"
                || target == "/null"
                || target.ends_with("/log.pipe");
            assert!(own, "it holds {target}");
            if let Some(inode) = target.strip_prefix("socket:") {
                spaces.push(PathBuf::from(inode));
            }
        }
        let socket = fs::metadata(format!("{root}/run/vswitch/control.sock")).expect("its socket");
        assert_eq!((socket.uid(), socket.mode() & 0o777), (uid, 0o700));
        seen.push(spaces);
    }
    let (one, other) = (&seen[0], &seen[1]);
    assert!(
        one.iter().all(|it| !other.contains(it)),
        "{one:?} {other:?}"
    );
}

/// A crash at every point of an apply: the next apply converges, or a release cleans up.
fn killed_everywhere(instance: &'static str, uid_base: u32, released: bool) {
    let Some(site) = site(instance, uid_base) else {
        return;
    };
    let file = site.tenant(1, 1);
    for moment in 0.. {
        let output = site.run(&["--kill-at", &moment.to_string(), "apply", &file]);
        if output.status.success() {
            // 10 objects: before and after the intent, after the action; and the two ends.
            assert_eq!(moment, 32);
            return;
        }
        assert_eq!(output.status.signal(), Some(9), "at {moment}: {output:?}");
        if !released {
            site.good(&["apply", &file]);
            assert_eq!(site.good(&["plan", &file]), "nothing to do\n");
            if moment % 4 == 0 {
                site.good(&["verify"]);
            }
        }
        site.good(&["release", "--all"]);
        assert_eq!(site.left(), site.nothing(), "killed at {moment}");
    }
}

#[test]
fn apply_killed_at_any_point_converges() {
    killed_everywhere("tvc", 72000, false);
}

#[test]
fn apply_killed_at_any_point_can_be_released() {
    killed_everywhere("tvd", 73000, true);
}

#[test]
fn killed_release_is_completed_by_the_next() {
    let Some(site) = site("tve", 74000) else {
        return;
    };
    let file = site.tenant(1, 1);
    for moment in 0.. {
        site.good(&["apply", &file]);
        let output = site.run(&["--kill-at", &moment.to_string(), "release", "t1"]);
        site.good(&["release", "t1", "--ignore-missing"]);
        assert_eq!(site.left(), site.nothing(), "killed at {moment}");
        if output.status.success() {
            assert_eq!(moment, 32);
            return;
        }
        assert_eq!(output.status.signal(), Some(9), "at {moment}: {output:?}");
    }
}

#[test]
fn concurrent_applies_are_serialised() {
    let Some(site) = site("tvf", 75000) else {
        return;
    };
    let start = |file: String| -> Child {
        let mut command = site.command();
        command.args(["apply", &file]).stdout(Stdio::null());
        command.spawn().expect("the provisioner starts")
    };
    let running: Vec<Child> = (1..=3)
        .map(|number| start(site.tenant(number, 1)))
        .collect();
    for mut child in running {
        assert!(child.wait().expect("it ends").success());
    }
    site.good(&["verify"]);
    let status = site.json(&["status"]);
    let uids: BTreeSet<u64> = status["tenants"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|tenant| tenant["uid"].as_u64())
        .collect();
    assert_eq!(uids, BTreeSet::from([75000, 75001, 75002]));
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn failed_step_is_rolled_back() {
    let Some(site) = site("tvg", 76000) else {
        return;
    };
    // The guest exists already, and has its own eth0.
    sh("ip netns add tvg-t1-vm1; ip -n tvg-t1-vm1 link add eth0 type veth peer name other");
    let before = site.left();
    let output = site.run(&["apply", &site.tenant(1, 1)]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("all completed steps were rolled back"),
        "{text}"
    );
    assert!(text.contains("File exists"), "{text}");
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), before);
    sh("ip netns delete tvg-t1-vm1");
}

/// A supervisor that watches these tenants.
fn supervisor(site: &Site, tenants: &[&str]) -> Supervisor {
    let options = ["--verify-every", "1"];
    let patience = Duration::from_secs(20);
    Supervisor::start(site.command(), &options, tenants, site.dir.path(), patience)
}

fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it is there");
}

#[test]
fn only_dead_switch_is_restarted() {
    let Some(site) = site("tvh", 77000) else {
        return;
    };
    site.good(&["apply", &site.tenant(1, 1), &site.tenant(2, 1)]);
    let (first, other) = (site.pid("t1"), site.pid("t2"));
    let mut supervisor = supervisor(&site, &["t1", "t2"]);
    kill(first, nix::sys::signal::Signal::SIGKILL);
    let restarted = supervisor.wait_for("restarted", "t1");
    let outage = restarted["outage_s"].as_f64().expect("a number");
    assert!((0.0..10.0).contains(&outage), "{outage}");
    let status = site.json(&["status", "t1"]);
    assert_eq!(status["tenants"][0]["state"], "up");
    assert_eq!(status["tenants"][0]["switch"]["restarts"], 1);
    assert_ne!(site.pid("t1"), first);
    assert_eq!(site.pid("t2"), other);

    sh("ip -n tvh-t2-vm1 link set eth0 mtu 1300");
    let drift = supervisor.wait_for("drift", "");
    let text = drift["found"][0].as_str().unwrap_or_default();
    assert!(
        text.contains("peer.mtu should be 1500 and is 1300"),
        "{drift}"
    );

    site.good(&["release", "t1"]);
    supervisor.wait_for("released", "t1");
    supervisor.stop();
    // The switches keep running without it, and obey SIGTERM although it blocked it.
    assert_eq!(site.pid("t2"), other);
    let began = Instant::now();
    site.good(&["release", "--all"]);
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn slow_switch_delays_no_other_tenant() {
    let Some(site) = site("tvo", 77040) else {
        return;
    };
    site.good(&["apply", &site.tenant(1, 1), &site.tenant(2, 1)]);
    let mut supervisor = supervisor(&site, &["t1", "t2"]);
    let wait = site.state_dir().join("tenants/t1/run/wait");
    fs::write(&wait, "").expect("the fake switch's sign");
    kill(site.pid("t1"), nix::sys::signal::Signal::SIGKILL);
    supervisor.wait_for("down", "t1");

    kill(site.pid("t2"), nix::sys::signal::Signal::SIGKILL);
    supervisor.wait_for("restarted", "t2");
    site.good(&["apply", &site.tenant(3, 1)]);
    site.good(&["release", "t2"]);
    supervisor.wait_for("released", "t2");
    let of_first = |it: &Value| {
        it["tenant"] == "t1" && (it["event"] == "restarted" || it["event"] == "restart_failed")
    };
    assert!(!supervisor.events().iter().any(of_first));

    fs::remove_file(&wait).expect("it is there");
    supervisor.wait_for("restarted", "t1");
    // An apply of that tenant waits for it, and finds it running.
    assert!(
        site.good(&["verify"])
            .contains("everything is as it was set")
    );
    supervisor.stop();
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

/// Sends frames from the switch's In/Out side, with python3 but without scapy.
fn send(namespace: &str, interface: &str, frames: &[String]) {
    let program = format!(
        "import socket\ns=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)\n\
         s.bind(('{interface}',0))\nfor f in {frames:?}: s.send(bytes.fromhex(f))\n"
    );
    let status = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{namespace}"))
        .args(["python3", "-c", &program])
        .status();
    assert!(status.expect("python3 starts").success());
}

/// Counts the frames from two sources that an interface receives.
fn count(namespace: &str, interface: &str, [one, other]: [&str; 2]) {
    let table = format!(
        "table netdev seen {{\nchain in {{\ntype filter hook ingress device {interface} priority \
         0;\nether saddr {one} counter\nether saddr {other} counter\n}}\n}}"
    );
    sh(&format!(
        "echo '{table}' | nsenter --net=/run/netns/{namespace} nft -f -"
    ));
    assert_eq!(counted(namespace), 0);
}

fn counted(namespace: &str) -> u64 {
    let text = sh(&format!(
        "nsenter --net=/run/netns/{namespace} nft -j list table netdev seen"
    ));
    let list: Value = serde_json::from_str(&text).expect("the counter is there");
    let items = list["nftables"].as_array().expect("a list").iter();
    let counters = items.filter_map(|it| it["rule"]["expr"][1]["counter"]["packets"].as_u64());
    counters.sum()
}

/// ARP is a broadcast, everything else for one station.
fn frame(source: &str, ethertype: &str, payload: &str) -> String {
    let source = source.replace(':', "");
    let payload = format!("{payload:0<160}");
    let to = match ethertype {
        "0806" => "ffffffffffff",
        _ => "020000000099",
    };
    format!("{to}{source}{ethertype}{payload}")
}

#[test]
fn inout_port_allows_only_its_own_sources() {
    let Some(site) = site("tvi", 78000) else {
        return;
    };
    site.good(&["apply", &site.tenant(1, 1), &site.tenant(2, 1)]);
    // A wire: one more port of the bridge, which counts its received frames.
    sh(
        "ip -n tvi-host link add wire type veth peer name far; ip -n tvi-host link set wire master \
         tvi-br0; ip -n tvi-host link set wire up; ip -n tvi-host link set far up",
    );
    // A bridge forwards to a new port once it has a carrier.
    let started = Instant::now();
    while !sh("ip -n tvi-host -d link show wire").contains("state forwarding") {
        assert!(started.elapsed() < Duration::from_secs(5), "no carrier");
        std::thread::sleep(Duration::from_millis(10));
    }
    let mac = "0a:e2:f1:b1:b2:67";
    let forged = "0a:d2:53:77:9e:a0";
    count("tvi-host", "far", [mac, forged]);
    count("tvi-sw-t2", "inout", [mac, forged]);
    let seen = || counted("tvi-host");
    let arp = |mac: &str, ip: &str| {
        format!(
            "0001080006040001{}{ip}000000000000c0000201",
            mac.replace(':', "")
        )
    };
    // With a checksum: with br_netfilter, the bridge drops packets without one.
    let ipv4 = |source: &str| {
        let header = |sum: u16| format!("4500001c000000004011{sum:04x}{source}c0000201");
        let text = header(0);
        let words = (0..20)
            .step_by(2)
            .map(|at| u32::from_str_radix(&text[2 * at..2 * at + 4], 16).expect("hexadecimal"));
        let sum: u32 = words.sum();
        header(!(((sum & 0xffff) + (sum >> 16)) as u16))
    };
    let ipv6 = |next: &str, source: &str| {
        format!("600000000020{next}ff{source}ff0200000000000000000000000000 01").replace(' ', "")
    };
    let (vtep1, vtep2) = ("c000020b", "c000020c");
    let (own6, other6) = (
        "20010db8000000000000000000000011",
        "20010db8000000000000000000000012",
    );
    let link_local = "fe80000000000000000013fffe890000";
    let advert = |target: &str| format!("8800000020000000{target}0201{}", mac.replace(':', ""));
    let good = [
        frame(mac, "0806", &arp(mac, vtep1)),
        frame(mac, "0800", &ipv4(vtep1)),
        frame(mac, "0800", &ipv4("0a01000b")),
        frame(mac, "86dd", &(ipv6("11", own6) + "00")),
        frame(mac, "86dd", &(ipv6("3a", own6) + &advert(own6))),
    ];
    let bad = [
        frame(forged, "0806", &arp(forged, vtep2)),
        frame(mac, "0806", &arp(mac, vtep2)),
        frame(mac, "0806", &arp(forged, vtep1)),
        frame(mac, "0800", &ipv4(vtep2)),
        frame(mac, "0800", &ipv4("0a02000b")),
        frame(mac, "86dd", &(ipv6("11", other6) + "00")),
        frame(mac, "86dd", &(ipv6("3a", own6) + &advert(other6))),
        frame(mac, "86dd", &(ipv6("3a", own6) + "8600000040000000")),
        // The first fragment of a Router Advertisement; its type is in the second.
        frame(
            mac,
            "86dd",
            &(ipv6("2c", link_local) + "3c000001000000053a00010400000000"),
        ),
        frame(mac, "88b5", ""),
        frame(mac, "8100", &format!("00010800{}", ipv4(vtep1))),
    ];
    // Frames arrive in order, so the bad ones were filtered once the good one behind them arrives.
    let seen_once_at_least = |count: u64| {
        let started = Instant::now();
        while seen() < count && started.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        seen()
    };
    send("tvi-sw-t1", "inout", &[&bad[..], &good[..1]].concat());
    assert_eq!(seen_once_at_least(1), 1);
    send("tvi-sw-t1", "inout", &good[1..]);
    assert_eq!(seen_once_at_least(5), 5);
    // Isolated: none of them reached the other tenant's In/Out side.
    assert_eq!(counted("tvi-sw-t2"), 0);
}

#[test]
fn foreign_bridge_is_refused() {
    let Some(site) = site("tvj", 79000) else {
        return;
    };
    sh("ip -n tvj-host link add tvj-br0 type veth peer name other");
    let before = site.left();
    let output = site.run(&["apply", &site.tenant(1, 1)]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("bridge tvj-br0 is there, but was not made by this provisioner"),
        "{text}"
    );
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), before);
}
