//! A next hop of the underlay that appears later.

use serde_json::{Value, json};

use crate::bed::eventually;
use crate::site::{FAR, FAR2, Family, Kind, Site};

#[test]
fn peer_is_reachable_once_its_next_hop_answers() {
    for family in Family::BOTH {
        next_hop_appears("peer_is_reachable_once_its_next_hop_answers", family);
    }
}

fn next_hop_appears(test: &str, family: Family) {
    let Some(mut site) = Site::new(test, Kind::Vxlan, family, &["far", "far2"]) else {
        return;
    };
    for peer in [FAR, FAR2] {
        site.station(peer.name, peer.host);
    }
    if !site.linux(test, &FAR) {
        return;
    }
    let late = family.underlay(FAR2.host);
    let with_length = format!("{late}/{}", if late.is_ipv4() { 24 } else { 64 });
    site.bed
        .inside("far2", &["addr", "del", &with_length, "dev", "eth0"]);
    // Only the first peer exists.
    site.start(&site.config(&[FAR, FAR2]), &[FAR]);

    let to = Family::V4.inner(FAR2.inner).to_string();
    let before = site.switch().drops("red-vm1", "neighbour-unresolved");
    let pings = site.bed.ping("vm1", &["-c5", "-i0.01", "-W1", &to]);
    assert_eq!((pings.sent, pings.received), (5, 0));
    assert_eq!(
        site.switch().drops("red-vm1", "neighbour-unresolved") - before,
        5
    );
    let shown = site.shown("far2");
    assert_eq!(
        (
            &shown["state"],
            &shown["next_hop_mac"],
            &shown["last_seen_s"]
        ),
        (&json!("unresolved"), &Value::Null, &Value::Null),
        "{shown}"
    );
    assert_eq!(
        (&shown["tx_frames"], &shown["rx_frames"]),
        (&json!(0), &json!(0)),
        "{shown}"
    );
    assert_eq!(site.shown("far")["state"], "reachable");
    assert_eq!(neighbour(&site, &late.to_string())["state"], "unresolved");

    // Its tunnel device is created only now: a kernel reports its multicast groups even from an
    // address that it has lost.
    site.address("far2", "eth0", late);
    assert!(site.linux(test, &FAR2));
    eventually("the peer's next hop is known", || {
        site.shown("far2")["state"] == "reachable"
    });
    for from in ["vm1", "vm2"] {
        for inner in Family::BOTH {
            site.reaches(from, inner.inner(FAR2.inner));
        }
    }
    let shown = site.shown("far2");
    assert_eq!(shown["next_hop_mac"], "52:54:00:ff:00:67", "{shown}");
    assert!(shown["last_seen_s"].is_u64(), "{shown}");
    let neighbour = neighbour(&site, &late.to_string());
    assert_eq!(
        neighbour,
        json!({
            "address": late, "port": "uplink", "mac": "52:54:00:ff:00:67", "state": "reachable",
        })
    );

    // The same in the command's table.
    let table = site.switch().cli(&["show", "tunnels"]);
    for peer in ["far", "far2"] {
        let row = table
            .lines()
            .find(|line| line.split_whitespace().next() == Some(peer));
        assert!(row.is_some_and(|row| row.contains("reachable")), "{table}");
    }
}

/// The entry of an address in `vswitch show neighbours`.
fn neighbour(site: &Site, address: &str) -> Value {
    let shown = site.switch().cli(&["show", "neighbours", "--json"]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let mut rows = shown.as_array().expect("an array").iter();
    let row = rows.find(|row| row["address"] == address);
    row.unwrap_or_else(|| panic!("no {address} in {shown}"))
        .clone()
}
