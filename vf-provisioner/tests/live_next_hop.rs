//! A router that is known by its link-local address only, behind the lock of an In/Out port: the
//! switch finds it by Neighbour Discovery from a link-local address of its own, and packets pass
//! both ways.
//!
//! The real switch and a Linux router, on this host's kernel, as root. Without root the test prints
//! that and passes.

#[path = "common/guest.rs"]
mod guest;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;

use std::fs;
use std::time::{Duration, Instant};

use guest::{run, shown};
use site::{Site, sh};

const TENANT: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv6 = "fd00:0:0:1::1/64"
[uplink]
address6 = "2001:db8::11/64"
next_hop6 = "fe80::1"
[[port]]
name = "t1-vm1"
mac = "52:54:00:00:01:01"
addresses = ["fd00:0:0:1::11"]
"#;

/// A router with an external address, in a namespace of its own.
struct Router(&'static str);

impl Router {
    fn new(site: &Site, name: &'static str) -> Self {
        let (host, bridge) = (site.host(), format!("{}-br0", site.instance));
        sh(&format!(
            "ip netns add {name} &&
             ip -n {host} link add wire type veth peer name eth0 netns {name} &&
             ip netns exec {name} sysctl -qw net.ipv6.conf.all.forwarding=1 \
               net.ipv6.conf.eth0.accept_dad=0 net.ipv6.conf.eth0.addr_gen_mode=1 &&
             ip -n {name} link set lo up && ip -n {name} link set eth0 up &&
             ip -n {name} address add fe80::1/64 dev eth0 nodad &&
             ip -n {name} address add 2001:db8:99::1/128 dev lo nodad &&
             ip -n {name} route add 2001:db8::/64 dev eth0 src 2001:db8:99::1 &&
             ip -n {name} route add fd00:0:0:1::/64 via 2001:db8::11 dev eth0 &&
             ip -n {host} link set wire master {bridge} up"
        ));
        Self(name)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        sh(&format!("ip netns delete {}", self.0));
    }
}

#[test]
fn link_local_next_hop_is_reached_through_the_lock() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it needs root");
        return;
    }
    let site = Site::new("tnh", 95000, Vec::new());
    let file = site.dir.path().join("t1.toml");
    fs::write(&file, TENANT).expect("a file");
    site.good(&["apply", file.to_str().expect("UTF-8")]);
    let _router = Router::new(&site, "tnh-router");
    for arguments in [
        "ip link set eth0 up",
        "ip address add fd00:0:0:1::11/64 dev eth0 nodad",
        "ip -6 route replace default via fd00:0:0:1::1",
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        assert!(run(&site, "t1-vm1", &arguments), "{arguments:?}");
    }
    let ping = ["ping", "-6", "-n", "-c1", "-W1", "2001:db8:99::1"];
    let began = Instant::now();
    while !run(&site, "t1-vm1", &ping) {
        let neighbours = shown(&site, "neighbours");
        let patience = Duration::from_secs(20);
        assert!(began.elapsed() < patience, "no echo: {neighbours}");
    }
    let neighbours = shown(&site, "neighbours");
    let mut all = neighbours.as_array().expect("a list").iter();
    let router = all.find(|it| it["address"] == "fe80::1");
    let state = router.map(|it| it["state"].clone());
    assert_eq!(state, Some("reachable".into()), "{neighbours}");
    // The lock is there, and what it is to be.
    site.good(&["verify"]);
}
