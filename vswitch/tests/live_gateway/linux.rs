//! Linux's VXLAN and Geneve devices as the peer.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::bed::run;
use crate::site::{FAR, Family, Kind, Site, has};
use crate::udp;

#[test]
fn vxlan_over_ipv4() {
    interoperates_with_linux("vxlan_over_ipv4", Kind::Vxlan, Family::V4);
}

#[test]
fn vxlan_over_ipv6() {
    interoperates_with_linux("vxlan_over_ipv6", Kind::Vxlan, Family::V6);
}

#[test]
fn geneve_over_ipv4() {
    interoperates_with_linux("geneve_over_ipv4", Kind::Geneve, Family::V4);
}

#[test]
fn geneve_over_ipv6() {
    interoperates_with_linux("geneve_over_ipv6", Kind::Geneve, Family::V6);
}

fn interoperates_with_linux(test: &str, kind: Kind, family: Family) {
    if !has(test, "iperf3") {
        return;
    }
    let Some(mut site) = Site::new(test, kind, family, &["far"]) else {
        return;
    };
    site.station("far", FAR.host);
    if !site.linux(test, &FAR) {
        return;
    }
    site.start(&site.config(&[FAR]), &[FAR]);

    // Echoes both ways, and to the gateway from both sides.
    for inner in Family::BOTH {
        for (from, to) in [
            ("vm1", 71),
            ("vm2", 71),
            ("far", 11),
            ("far", 12),
            ("far", 1),
        ] {
            site.echoes(from, inner.inner(to));
        }
    }
    // Linux counts the same frames as the switch, and the same bytes.
    let before = settled(&site);
    carries_every_size(&site, FAR.name);
    let after = settled(&site);
    let [of_linux, ours] =
        [0, 1].map(|whose| [0, 1, 2, 3].map(|at| after[whose][at] - before[whose][at]));
    assert_eq!(
        ours, of_linux,
        "frames and bytes from the peer, frames and bytes to it"
    );
    // TCP fills the rings, and the tunnels do not count frames lost there.
    carries_tcp(&site, FAR.name, inner_pair(Family::V4), &[]);
    carries_tcp(&site, FAR.name, inner_pair(Family::V6), &["-R"]);
    let shown = site.shown("far");
    let vtep = family.underlay(FAR.host).to_string();
    assert_eq!(shown["vtep"], vtep.as_str());
    assert_eq!(shown["next_hop"], vtep.as_str());
    assert_eq!(shown["next_hop_mac"], "52:54:00:ff:00:66");
    assert_eq!(shown["state"], "reachable");
    assert_eq!(shown["mtu"], 1500 - family.overhead());
    assert_eq!(shown["mac"], FAR.mac);
    assert!(shown["last_seen_s"].is_u64(), "{shown}");
}

/// The addresses of `vm1` and of the peer's VM.
pub(crate) fn inner_pair(inner: Family) -> (IpAddr, IpAddr) {
    (inner.inner(11), inner.inner(FAR.inner))
}

/// Sends datagrams of every size that the tunnel carries from either side; the switch counts each.
pub(crate) fn carries_every_size(site: &Site, vm: &str) {
    let largest = usize::from(1500 - site.family.overhead());
    for inner in Family::BOTH {
        let headers = if inner == Family::V4 { 28 } else { 48 };
        let (near, far) = inner_pair(inner);
        let (near, far) = (
            udp::socket(&site.bed, "vm1", near),
            udp::socket(&site.bed, vm, far),
        );
        let sizes = 0..=largest - headers;
        let count = sizes.clone().count() as u64;
        for (client, server) in [(&near, &far), (&far, &near)] {
            let before = Carried::of(site);
            udp::every_size_comes_back(client, server, sizes.clone());
            let carried = Carried::of(site).since(&before);
            // Plus a few frames of the kernels themselves, such as neighbour probes.
            assert!(
                (count..count + 10).contains(&carried.tx)
                    && (count..count + 10).contains(&carried.rx),
                "{count} datagrams each way, but {carried:?}"
            );
            assert_eq!(carried.dropped, BTreeMap::new());
        }
    }
}

/// Frames by the switch's counters.
#[derive(Debug)]
struct Carried {
    tx: u64,
    rx: u64,
    /// By port and reason, for reasons that mean lost traffic.
    dropped: BTreeMap<(&'static str, String), u64>,
}

impl Carried {
    fn of(site: &Site) -> Self {
        let shown = site.shown(FAR.name);
        let number = |key: &str| shown[key].as_u64().expect("a number");
        // Frames that a kernel sends by itself.
        let quiet = ["absorbed", "multicast", "nd-unknown", "arp-unknown"];
        let mut dropped = BTreeMap::new();
        for port in ["red-vm1", "red-vm2", "uplink"] {
            for (reason, frames) in site.switch().all_drops(port) {
                if !quiet.contains(&reason.as_str()) {
                    dropped.insert((port, reason), frames);
                }
            }
        }
        Self {
            tx: number("tx_frames"),
            rx: number("rx_frames"),
            dropped,
        }
    }

    fn since(&self, before: &Self) -> Self {
        let dropped = self.dropped.iter();
        let dropped = dropped.map(|(key, frames)| (key.clone(), frames - before.dropped[key]));
        Self {
            tx: self.tx - before.tx,
            rx: self.rx - before.rx,
            dropped: dropped.filter(|(_, frames)| *frames > 0).collect(),
        }
    }
}

/// Sends megabytes by TCP from the VM to the peer's, or with `-R` the other way.
pub(crate) fn carries_tcp(site: &Site, vm: &str, (near, far): (IpAddr, IpAddr), options: &[&str]) {
    let mut server = site
        .bed
        .command(vm, "iperf3")
        .args(["-s", "-1", "--forceflush", "-B", &far.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("iperf3 runs");
    let said = BufReader::new(server.stdout.as_mut().expect("a pipe"));
    let listens = said
        .lines()
        .map_while(Result::ok)
        .any(|line| line.contains("listening"));
    assert!(listens, "iperf3 listens");
    let mut client = site.bed.command("vm1", "iperf3");
    client.args([
        "--json",
        "-n",
        "16M",
        "-B",
        &near.to_string(),
        "-c",
        &far.to_string(),
    ]);
    let result: Value = serde_json::from_str(&run(client.args(options))).expect("JSON");
    let _ = server.kill();
    let _ = server.wait();
    let received = &result["end"]["sum_received"];
    let rate = received["bits_per_second"].as_f64().expect("a number") / 1e6;
    println!("TCP {near} to {far} {options:?}: {rate:.0} Mbit/s");
    // It ends when the sender's socket has taken the last byte; megabytes may still be in flight.
    assert!(received["bytes"].as_u64() > Some(4 << 20), "{result}");
}

/// Frames and bytes from the peer, frames and bytes to it, as counted by Linux's tunnel device and
/// by the switch, once no frame is in flight.
fn settled(site: &Site) -> [[u64; 4]; 2] {
    let counts = || [device(site), shown_counts(site)];
    let mut before = counts();
    loop {
        thread::sleep(Duration::from_millis(200));
        let now = counts();
        if now == before {
            return now;
        }
        before = now;
    }
}

/// Linux counts bytes without Ethernet headers.
fn device(site: &Site) -> [u64; 4] {
    let mut command = site.bed.command(FAR.name, "ip");
    let shown = run(command.args(["-s", "-j", "link", "show", "dev", "tun0"]));
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let number = |way: &str, what: &str| shown[0]["stats64"][way][what].as_u64().expect("a number");
    let [tx, rx] = ["tx", "rx"].map(|way| (number(way, "packets"), number(way, "bytes")));
    [tx.0, tx.1 + 14 * tx.0, rx.0, rx.1 + 14 * rx.0]
}

fn shown_counts(site: &Site) -> [u64; 4] {
    let shown = site.shown(FAR.name);
    ["rx_frames", "rx_bytes", "tx_frames", "tx_bytes"]
        .map(|key| shown[key].as_u64().expect("a number"))
}
