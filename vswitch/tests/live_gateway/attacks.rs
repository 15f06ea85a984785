//! Attacks on the tunnel, by an unknown station of the underlay and by a peer. Each frame is
//! dropped for its reason, none is delivered, and the peers' traffic is unaffected.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::capture::Capture;
use crate::linux::inner_pair;
use crate::site::{FAR, FAR2, Family, Kind, Site, has};
use crate::udp;

const ATTACKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live_gateway/attack.py");

#[test]
fn on_vxlan_over_ipv4() {
    are_refused("on_vxlan_over_ipv4", Kind::Vxlan, Family::V4);
}

#[test]
fn on_vxlan_over_ipv6() {
    are_refused("on_vxlan_over_ipv6", Kind::Vxlan, Family::V6);
}

#[test]
fn on_geneve_over_ipv4() {
    are_refused("on_geneve_over_ipv4", Kind::Geneve, Family::V4);
}

#[test]
fn on_geneve_over_ipv6() {
    are_refused("on_geneve_over_ipv6", Kind::Geneve, Family::V6);
}

fn are_refused(test: &str, kind: Kind, family: Family) {
    let vm = if kind == Kind::Vxlan { "far" } else { "vm7" };
    let scapy = Command::new("/usr/bin/python3")
        .args(["-c", "import scapy"])
        .output();
    if !scapy.is_ok_and(|output| output.status.success()) {
        println!("{test} is skipped: scapy is not installed (scripts/setup)");
        return;
    }
    if !has(test, "tshark") || (kind == Kind::Geneve && !has(test, "ovs-vswitchd")) {
        return;
    }
    let Some(mut site) = Site::new(test, kind, family, &["far", "vm7", "rogue"]) else {
        return;
    };
    match kind {
        Kind::Vxlan => {
            site.station("far", FAR.host);
            if !site.linux(test, &FAR) {
                return;
            }
        }
        Kind::Geneve => crate::ovs::open_vswitch(&mut site),
    }
    site.station("rogue", 99);
    // The second peer is configured but absent.
    site.start(&site.config(&[FAR, FAR2]), &[FAR]);

    // Neither to a VM here, nor back to the peer's VM.
    let beyond = if kind == Kind::Vxlan {
        ("far", "tun0")
    } else {
        ("vm7", "eth0")
    };
    let captures = [("vm1", "eth0"), ("vm2", "eth0"), beyond]
        .map(|(name, interface)| (name, Capture::start(&site.bed, name, interface)));
    let sockets = |inner| {
        let (near, far) = inner_pair(inner);
        (
            udp::socket(&site.bed, "vm1", near),
            udp::socket(&site.bed, vm, far),
        )
    };
    let ((near4, far4), (near6, far6)) = (sockets(Family::V4), sockets(Family::V6));
    let dropped_before = dropped_between_interfaces();
    let pause = Duration::from_millis(2);
    let (out, (back, frames)) = udp::flow_while((&near4, &far4), pause, || {
        udp::flow_while((&far6, &near6), pause, || {
            // An unknown station with the peer's address, and the peer itself.
            attack(&site, "rogue") + attack(&site, "far")
        })
    });
    println!(
        "{frames} frames; beside {} and {} datagrams",
        out.sent, back.sent
    );
    // Explains a lost frame.
    for port in ["red-vm1", "uplink"] {
        let mut drops = site.switch().all_drops(port);
        drops.retain(|_, frames| *frames > 0);
        println!("{port}: {drops:?}");
    }
    println!("{}, {}", site.switch().get("/v1/ports"), site.shown("far"));
    let dropped = dropped_between_interfaces() - dropped_before;
    println!("by this kernel between interfaces, anybody's: {dropped}");
    out.assert_whole("from the VM to the peer");
    back.assert_whole("from the peer to the VM");
    for (name, capture) in captures {
        let captured = capture.finish();
        assert_eq!(captured.count(b"ATTACK"), 0, "{name}");
        // The same frame without the fault arrives, from each attacker, by IPv4 and IPv6.
        let harmless =
            captured.fields("udp.dstport == 4000 && !icmp && !icmpv6", &["frame.number"]);
        assert_eq!(harmless.len(), if name == "vm1" { 4 } else { 0 }, "{name}");
    }
    let ports = site.switch().get("/v1/ports");
    for port in ports["ports"].as_array().expect("ports") {
        assert_eq!(port["rx_missed"], 0, "{port}");
    }
}

/// Frames of the whole machine that found a CPU's queue full: the second number of each line.
fn dropped_between_interfaces() -> u64 {
    let text = std::fs::read_to_string("/proc/net/softnet_stat").expect("Linux has it");
    let second = |line: &str| u64::from_str_radix(line.split(' ').nth(1)?, 16).ok();
    text.lines().filter_map(second).sum()
}

/// Reasons of frames that stations send by themselves: replies to the switch, and neighbour
/// discovery.
const NOISE: [&str; 2] = ["absorbed", "nd-unknown"];

type Drops = BTreeMap<String, u64>;

/// The difference of two counts.
fn since(now: &Drops, before: &Drops) -> Drops {
    let drops = now.iter();
    drops
        .map(|(reason, frames)| (reason.clone(), frames - before[reason]))
        .filter(|(_, frames)| *frames > 0)
        .collect()
}

/// The uplink's drops, once the stations' frames at their start have passed.
fn settled(site: &Site) -> Drops {
    let mut before = site.switch().all_drops("uplink");
    loop {
        thread::sleep(Duration::from_millis(500));
        let now = site.switch().all_drops("uplink");
        if now == before {
            return now;
        }
        before = now;
    }
}

/// Runs all cases from one namespace; returns the number of frames.
fn attack(site: &Site, from: &str) -> u64 {
    let family = if site.family == Family::V4 { "4" } else { "6" };
    let mut before = settled(site);
    let mut command = site.bed.command(from, "/usr/bin/python3");
    command.args([ATTACKER, "eth0", site.kind.name(), family]);
    let mut attacker = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is installed");
    let mut ready = attacker.stdin.take().expect("a pipe");
    let said = BufReader::new(attacker.stdout.take().expect("a pipe"));
    let mut all = 0;
    let mut wrong = Vec::new();
    for line in said.lines() {
        let line = line.expect("UTF-8");
        let [name, reason, frames] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("the attacker says {line:?}");
        };
        let frames: u64 = frames.parse().expect("a number");
        all += frames;
        let expected: Drops = [(reason.to_owned(), frames)]
            .into_iter()
            .filter(|(reason, _)| !reason.is_empty())
            .collect();
        let begun = Instant::now();
        let counted = loop {
            let now = site.switch().all_drops("uplink");
            let mut counted = since(&now, &before);
            let all_there = expected
                .iter()
                .all(|(reason, frames)| counted.get(reason) >= Some(frames));
            if all_there || begun.elapsed() > Duration::from_secs(2) {
                before = now;
                counted.retain(|found, _| found == reason || !NOISE.contains(&found.as_str()));
                break counted;
            }
        };
        if counted != expected {
            wrong.push(format!("{name}: {expected:?}, but {counted:?}"));
        }
        writeln!(ready).expect("it waits");
    }
    let status = attacker.wait().expect("it ends");
    assert!(status.success(), "the attacker: {status}");
    assert!(wrong.is_empty(), "from {from}:\n{}", wrong.join("\n"));
    all
}
