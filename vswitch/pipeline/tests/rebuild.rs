//! A change of one prefix in a large configuration: the rebuilt tables are those of a fresh build,
//! and `--no-capture` prints how long each takes.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use pipeline::Generation;
use serde_json::json;
use tenant_config::SwitchConfig;

const PEERS: u32 = 1000;
const PREFIXES_OF_PEER: u32 = 100;

/// The prefix `nth` of a peer: nine of ten are IPv4 hosts, the others IPv6 hosts.
fn prefix(peer: u32, nth: u32) -> String {
    if nth % 10 == 9 {
        format!("fd00:0:0:{peer:x}::{nth:x}/128")
    } else {
        format!("10.{}.{}.{}/32", 8 + peer / 256, peer % 256, nth)
    }
}

fn config() -> SwitchConfig {
    let peers: Vec<_> = (0..PEERS)
        .map(|peer| {
            let vtep = format!("198.18.{}.{}", peer / 250, peer % 250 + 1);
            json!({
                "name": format!("host-{peer}"),
                "vtep": vtep,
                "mac": format!("0e:00:00:00:{:02x}:{:02x}", peer / 256, peer % 256),
                "next_hop": "192.0.2.1",
                "prefixes": (0..PREFIXES_OF_PEER).map(|nth| prefix(peer, nth)).collect::<Vec<_>>(),
            })
        })
        .collect();
    let text = json!({
        "tenant": "red",
        "vni": 5001,
        "gateway": { "ipv4": "10.0.0.1/8", "ipv6": "fd00::1/32" },
        "ports": [{
            "name": "vm1",
            "device": { "driver": "offline" },
            "gateway_mac": "02:00:13:89:00:01",
            "mac": "52:54:00:aa:00:01",
            "addresses": ["10.0.0.11/32"],
        }],
        "uplink": {
            "device": { "driver": "offline" },
            "mac": "02:00:13:89:00:00",
            "ipv4": "192.0.2.2/24",
            "mtu": 1600,
            "next_hops": { "ipv4": "192.0.2.1" },
        },
        "tunnel": {
            "kind": "geneve",
            "vtep": "192.0.2.2",
            "port": 6081,
            "mac": "0e:00:00:00:ff:ff",
            "udp_checksum": false,
            "peers": peers,
        },
    });
    SwitchConfig::from_json("test", &text.to_string()).expect("a configuration")
}

/// The shortest of some builds, and the last one's result.
fn timed(build: impl Fn() -> Generation) -> (Duration, Generation) {
    let mut shortest = Duration::MAX;
    let mut built = build();
    for _ in 0..3 {
        let begin = Instant::now();
        let generation = build();
        shortest = shortest.min(begin.elapsed());
        built = generation;
    }
    (shortest, built)
}

#[test]
fn rebuilt_tables_equal_fresh_ones() {
    let config = config();
    let first = Generation::build(&config, None);
    let (tables, counters) = (first.tables(), first.counters());
    assert!(tables.routes().len() > (PEERS * PREFIXES_OF_PEER) as usize);
    let mut changed = config.clone();
    let peers = &mut changed.tunnel.as_mut().expect("a tunnel").peers;
    let moved: IpNet = "10.200.0.1/32".parse().expect("a prefix");
    peers[500].prefixes[50] = moved;
    let (whole, fresh) = timed(|| Generation::build(&changed, None));
    let previous = Some((&*tables, &*counters));
    let (rebuild, rebuilt) = timed(|| Generation::build(&changed, previous));
    println!("{PEERS} peers with {PREFIXES_OF_PEER} prefixes each, one prefix changed:");
    println!("built without the previous tables: {whole:?}; with them: {rebuild:?}");
    assert_eq!(rebuilt.tables().routes(), fresh.tables().routes());
    assert_ne!(rebuilt.tables().routes(), tables.routes());
    let same = Generation::build(&config, previous);
    assert_eq!(same.tables().routes(), tables.routes());
}
