//! New configurations while packets are in the tunnel.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::linux::inner_pair;
use crate::site::{FAR, FAR2, Family, Kind, Site};
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
