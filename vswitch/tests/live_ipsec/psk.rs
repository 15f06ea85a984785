//! Pre-shared keys: the first packet, renewal under traffic.

use std::time::Duration;

use serde_json::json;

use crate::charon::Proof;
use crate::pair::{A, B, BOTH, Pair, Side};

#[test]
fn first_packet_negotiates_and_nothing_is_plain() {
    let Some(pair) = Pair::with_charons("first packet", Proof::Psk) else {
        return;
    };
    let watched = pair.watched(|| {
        pair.reaches(A);
        pair.reaches(B);
        let arguments = ["-c20", "-i0.01", "-W2", "-p", crate::pair::PATTERN];
        let pings = pair
            .bed
            .ping(A.vm, &[&arguments[..], &[&B.inner()]].concat());
        assert_eq!((pings.sent, pings.received), (20, 20), "{pings:?}");
    });
    watched.assert_no_plaintext();
    let esp = watched.esp();
    assert!(esp >= 44, "{esp} frames of ESP for at least 22 pings");
    assert!(watched.count("isakmp") >= 4, "an IKE exchange");
    for side in BOTH {
        let drops = pair.switch(side).all_drops("uplink");
        for reason in [
            "esp-spi",
            "esp-icv",
            "esp-replay",
            "esp-selector",
            "ipsec-plain",
        ] {
            assert_eq!(drops[reason], 0, "{reason} at {side:?}");
        }
    }
}

#[test]
fn without_daemons_nothing_passes_and_all_is_counted() {
    let Some(pair) = Pair::new("no daemons") else {
        return;
    };
    let watched = pair.watched(|| {
        for side in BOTH {
            assert!(!pair.pings(side), "{side:?}");
        }
    });
    watched.assert_no_plaintext();
    assert_eq!(watched.esp(), 0);
    for side in BOTH {
        let drops = pair.switch(side).all_drops("vm");
        assert!(drops["ipsec-no-sa"] >= 1, "{side:?}: {drops:?}");
    }
}

/// Renews the SAs of this side's connections now.
fn rekey(pair: &Pair, side: Side) {
    let mut vici = pair.charon(side).vici();
    for child in ["in", "out"] {
        // One that is being renewed by the other side already is not counted.
        vici.call("rekey", &json!({ "child": child }));
    }
}

/// Pings for three seconds while `during` runs; none may be lost.
#[track_caller]
fn flow(pair: &Pair, during: impl FnOnce()) {
    std::thread::scope(|scope| {
        let flow = scope.spawn(|| {
            let arguments = ["-c300", "-i0.01", "-W3", &B.inner()];
            pair.bed.ping(A.vm, &arguments)
        });
        during();
        let pings = flow.join().expect("it ends");
        assert_eq!((pings.sent, pings.received), (300, 300), "{pings:?}");
    });
}

fn outbound_spis(pair: &Pair, side: Side) -> Vec<String> {
    let children = pair.charon(side).children();
    let spis = children.iter().map(|child| child["spi-out"].to_string());
    let mut spis: Vec<String> = spis.collect();
    spis.sort_unstable();
    spis
}

#[test]
fn rekey_under_a_flow_loses_nothing() {
    let Some(pair) = Pair::with_charons("rekey", Proof::Psk) else {
        return;
    };
    pair.reaches(A);
    pair.reaches(B);
    let before = outbound_spis(&pair, A);
    let watched = pair.watched(|| {
        flow(&pair, || {
            for side in [A, B, A, B] {
                rekey(&pair, side);
                std::thread::sleep(Duration::from_millis(500));
            }
        });
    });
    watched.assert_no_plaintext();
    let after = outbound_spis(&pair, A);
    assert!(
        !after.is_empty() && after.iter().all(|spi| !before.contains(spi)),
        "{after:?}"
    );
}

#[test]
fn simultaneous_rekey_loses_nothing() {
    let Some(pair) = Pair::with_charons("simultaneous rekey", Proof::Psk) else {
        return;
    };
    pair.reaches(A);
    pair.reaches(B);
    flow(&pair, || {
        for _ in 0..3 {
            std::thread::scope(|scope| {
                for side in BOTH {
                    let pair = &pair;
                    scope.spawn(move || rekey(pair, side));
                }
            });
            std::thread::sleep(Duration::from_millis(700));
        }
    });
    assert!(pair.pings(A) && pair.pings(B), "both ways go on");
}
