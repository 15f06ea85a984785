//! What goes wrong on the underlay, and what is shown of it.

use serde_json::{Value, json};

use crate::bed::{eventually, run};
use crate::site::{FAR, Family, Kind, Peer, Site, has};

/// The answer of `vswitch show tunnels`.
fn tunnel(site: &Site) -> Value {
    let shown = site.switch().cli(&["show", "tunnels", "--json"]);
    serde_json::from_str(&shown).expect("JSON")
}

/// Sends one echo request, which may be in vain.
fn tries(site: &Site, from: &str, to: std::net::IpAddr) {
    site.bed.ping(from, &["-c1", "-W1", &to.to_string()]);
}

#[test]
fn peer_with_another_mac_is_shown() {
    for (kind, family) in [
        (Kind::Vxlan, Family::V4),
        (Kind::Vxlan, Family::V6),
        (Kind::Geneve, Family::V4),
    ] {
        other_mac("peer_with_another_mac_is_shown", kind, family);
    }
}

fn other_mac(test: &str, kind: Kind, family: Family) {
    const WRONG: Peer = Peer {
        mac: "52:54:00:bb:00:99",
        ..FAR
    };
    let Some(mut site) = Site::new(test, kind, family, &["far"]) else {
        return;
    };
    site.station("far", FAR.host);
    if !site.linux(test, &FAR) {
        return;
    }
    site.start(&site.config(&[WRONG]), &[]);
    for inner in Family::BOTH {
        tries(&site, "vm1", inner.inner(FAR.inner));
        let pings = site.bed.ping("far", &["-c2", "-W1", "10.0.0.11"]);
        assert_eq!(pings.received, 0, "{pings:?}");
    }
    eventually("the MAC is shown", || {
        site.shown("far")["other_mac"]["mac"] == FAR.mac
    });
    let table = site.switch().cli(&["show", "tunnels"]);
    assert!(
        table.contains(&format!("comes from MAC {}", FAR.mac)),
        "{table}"
    );
    let shown = site.shown("far");
    assert_eq!(shown["state"], "reachable", "{shown}");
    assert_eq!(shown["mac"], WRONG.mac, "{shown}");

    // What is shown is what is to be written.
    let (status, _) = site.switch().put_config(&site.config(&[FAR]));
    assert_eq!(status, 200);
    site.reaches("vm1", Family::V4.inner(FAR.inner));
    site.echoes("far", Family::V4.inner(11));
    assert_eq!(site.shown("far")["other_mac"], Value::Null);
}

#[test]
fn rejecting_host_is_shown() {
    for family in Family::BOTH {
        rejecting_host("rejecting_host_is_shown", family);
    }
}

fn rejecting_host(test: &str, family: Family) {
    if !has(test, "nft") {
        return;
    }
    let Some(mut site) = Site::new(test, Kind::Vxlan, family, &["far"]) else {
        return;
    };
    site.station("far", FAR.host);
    if !site.linux(test, &FAR) {
        return;
    }
    site.start(&site.config(&[FAR]), &[FAR]);
    let far = Family::V4.inner(FAR.inner);
    assert_eq!(site.shown("far")["unreachable"], Value::Null);
    let vtep = family.underlay(FAR.host).to_string();
    for (what, why) in [
        ("port-unreachable", "port"),
        ("admin-prohibited", "prohibited"),
    ] {
        let rules = format!(
            "table inet trouble {{ chain input {{ type filter hook input priority 0; \
             udp dport 4789 reject with icmpx {what}; }}; }}"
        );
        run(site.bed.command("far", "nft").arg(&rules));
        eventually("the report is shown", || {
            tries(&site, "vm1", far);
            let shown = site.shown("far");
            shown["unreachable"]["why"] == why && shown["unreachable"]["from"] == vtep.as_str()
        });
        let table = site.switch().cli(&["show", "tunnels"]);
        let words = format!("{why} unreachable by {vtep}");
        assert!(table.contains(&words), "{table}");
        let shown = site.shown("far");
        assert_eq!(shown["state"], "reachable", "{shown}");
        assert_eq!(shown["mtu"], 1500 - family.overhead(), "{shown}");
        // It is only shown: packets still go there.
        run(site
            .bed
            .command("far", "nft")
            .args(["delete", "table", "inet", "trouble"]));
        site.echoes("vm1", far);
    }
    let shown = tunnel(&site);
    assert_ne!(shown["unreachable"]["believed"], 0, "{shown}");
    let rejected = shown["unreachable"]["rejected"].as_array().expect("a list");
    assert!(rejected.iter().all(|it| it["reports"] == 0), "{shown}");

    // A host without the device says so by itself.
    site.bed.inside("far", &["link", "del", "tun0"]);
    eventually("its kernel's report is shown", || {
        tries(&site, "vm1", far);
        site.shown("far")["unreachable"]["why"] == "port"
    });
}

#[test]
fn second_station_with_an_address_is_shown() {
    for family in Family::BOTH {
        second_station("second_station_with_an_address_is_shown", family);
    }
}

fn second_station(test: &str, family: Family) {
    let Some(mut site) = Site::new(test, Kind::Vxlan, family, &["far", "twin", "double"]) else {
        return;
    };
    site.station("far", FAR.host);
    if !site.linux(test, &FAR) {
        return;
    }
    site.start(&site.config(&[FAR]), &[FAR]);
    let before = tunnel(&site);
    assert_eq!(before["vtep_conflict"], Value::Null, "{before}");
    assert_eq!(site.shown("far")["next_hop_conflict"], Value::Null);

    // The peer's address is another station's, too, which speaks to the switch.
    site.plug("twin", "twin", "52:54:00:ff:00:99");
    site.address("twin", "eth0", family.underlay(FAR.host));
    eventually("the second station is shown", || {
        tries(&site, "twin", family.underlay(2));
        site.shown("far")["next_hop_conflict"]["mac"] == "52:54:00:ff:00:99"
    });
    let shown = site.shown("far");
    assert_eq!(shown["state"], "reachable", "{shown}");
    assert_eq!(shown["next_hop_mac"], "52:54:00:ff:00:66", "{shown}");
    site.echoes("vm1", Family::V4.inner(FAR.inner));
    let table = site.switch().cli(&["show", "tunnels"]);
    assert!(
        table.contains("next hop also at 52:54:00:ff:00:99"),
        "{table}"
    );
    site.bed.inside("twin", &["link", "set", "eth0", "down"]);

    // Our own address is another station's, too.
    site.plug("double", "double", "52:54:00:ff:00:98");
    site.address("double", "eth0", family.underlay(2));
    eventually("the station with our address is shown", || {
        tries(&site, "double", family.underlay(200 - 1));
        tunnel(&site)["vtep_conflict"]["mac"] == "52:54:00:ff:00:98"
    });
    let table = site.switch().cli(&["show", "tunnels"]);
    let words = format!("ANOTHER STATION HAS {}", family.underlay(2));
    assert!(table.contains(&words), "{table}");
    assert_eq!(site.shown("far")["sources"], json!([]));
}
