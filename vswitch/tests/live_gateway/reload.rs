//! New configurations while packets are in the tunnel.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::capture::Capture;
use crate::linux::inner_pair;
use crate::site::{FAR, FAR2, Family, Kind, Site, has};
use crate::udp;

#[test]
fn adding_and_removing_a_peer_loses_no_frame_of_others() {
    let test = "adding_and_removing_a_peer_loses_no_frame_of_others";
    let Some(mut site) = Site::new(test, Kind::Vxlan, Family::V4, &["far", "far2"]) else {
        return;
    };
    for peer in [FAR, FAR2] {
        site.station(peer.name, peer.host);
        if !site.linux(test, &peer) {
            return;
        }
    }
    site.start(&site.config(&[FAR]), &[FAR]);
    let sockets = |family| {
        let (near, far) = inner_pair(family);
        (
            udp::socket(&site.bed, "vm1", near),
            udp::socket(&site.bed, "far", far),
        )
    };
    let ((near4, far4), (near6, far6)) = (sockets(Family::V4), sockets(Family::V6));
    let pause = Duration::from_millis(1);
    let without = site.config(&[FAR]);
    let with = site.config(&[FAR2, FAR]);
    const ROUNDS: u64 = 25;
    let (out, (back, ())) = udp::flow_while((&near4, &far4), pause, || {
        udp::flow_while((&far6, &near6), pause, || {
            for round in 0..ROUNDS {
                for (index, config) in [&with, &without].into_iter().enumerate() {
                    let (status, answer) = site.switch().put_config(config);
                    let generation = 2 + 2 * round + index as u64;
                    assert_eq!((status, answer), (200, json!({ "generation": generation })));
                    thread::sleep(Duration::from_millis(20));
                }
            }
        })
    });
    println!(
        "{} and {} datagrams over {} generations",
        out.sent,
        back.sent,
        2 * ROUNDS
    );
    out.assert_whole("from the VM to the peer");
    back.assert_whole("from the peer to the VM");

    // Its counters continued, and the other peer has none.
    let shown = site.shown("far");
    assert!(
        shown["tx_frames"].as_u64() >= Some(out.sent.into()),
        "{shown}"
    );
    let to = Family::V4.inner(FAR2.inner).to_string();
    let before = site.switch().drops("red-vm1", "arp-unknown");
    let pings = site.bed.ping("vm1", &["-c3", "-i0.01", "-W1", &to]);
    assert_eq!(pings.received, 0);
    // The switch no longer answers for it.
    assert!(site.switch().drops("red-vm1", "arp-unknown") > before);
    assert_eq!(site.switch().put_config(&with).0, 200);
    site.reaches("vm1", Family::V4.inner(FAR2.inner));
}

#[test]
fn source_ports_survive_new_configuration_and_differ_after_restart() {
    let test = "source_ports_survive_new_configuration_and_differ_after_restart";
    if !has(test, "tshark") {
        return;
    }
    let Some(mut site) = Site::new(test, Kind::Vxlan, Family::V4, &["far"]) else {
        return;
    };
    site.station("far", FAR.host);
    if !site.linux(test, &FAR) {
        return;
    }
    let mut config = site.config(&[FAR]);
    site.start(&config, &[FAR]);
    let first = source_ports(&site);
    config["tunnel"]["peers"][0]["prefixes"] =
        json!(["10.0.0.71/32", "fd00:0:0:1::71/128", "10.0.9.0/24"]);
    assert_eq!(site.switch().put_config(&config).0, 200);
    assert_eq!(source_ports(&site), first);
    site.switch = None;
    site.start(&config, &[FAR]);
    // That two are equal by chance happens once in 16,384 times.
    let again = source_ports(&site);
    let equal = first.iter().filter(|(flow, port)| again[*flow] == **port);
    assert!(equal.count() < 2, "{first:?} and {again:?}");
}

/// By the VM's address, the UDP source port of the tunnel packets that carry its echo requests to
/// the peer's VM.
fn source_ports(site: &Site) -> BTreeMap<String, String> {
    let capture = Capture::start(&site.bed, "far", "eth0");
    for from in ["vm1", "vm2"] {
        for inner in Family::BOTH {
            site.reaches(from, inner.inner(FAR.inner));
        }
    }
    let captured = capture.finish();
    let mut ports = BTreeMap::new();
    for (filter, address) in [
        ("icmp.type == 8", "ip.src"),
        ("icmpv6.type == 128", "ipv6.src"),
    ] {
        for row in captured.fields(filter, &[address, "udp.srcport"]) {
            let vm = row[0].last().expect("an address").clone();
            let before = ports.insert(vm, row[1][0].clone());
            assert!(before.is_none_or(|before| before == row[1][0]), "{row:?}");
        }
    }
    assert_eq!(ports.len(), 4, "{ports:?}");
    ports
}
