//! A guest as desktops and most distributions' servers have it: NetworkManager configures it from
//! what the gateway says, and systemd-resolved resolves its siblings' names there.
//!
//! The real switch and these programs, on this host's kernel, as root. Without root the test
//! prints that and passes.

#[path = "common/guest.rs"]
mod guest;
#[path = "common/image.rs"]
mod image;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use guest::{Guest, command, dropped, run};
use image::Image;
use site::{Site, sh};

const TENANT: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
ipv6 = "fd00:0:0:1::1/64"
[gateway.dhcp]
dns = ["10.1.0.1", "10.1.0.13", "fd00:0:0:1::1"]
domain = "t1.internal"
ntp = ["10.1.0.55"]
routes = [{ to = "172.16.0.0/12", via = "10.1.0.13" }]
[gateway.dns]
enabled = true
[multicast]
groups = ["224.0.0.251", "ff02::fb"]
[uplink]
address = "192.0.2.11/24"
next_hop = "192.0.2.1"
[[port]]
name = "t1-desktop"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.11", "fd00:0:0:1::11"]
hostname = "desktop"
mtu = 1400
[[port]]
name = "t1-sibling"
mac = "52:54:00:00:01:03"
addresses = ["10.1.0.13", "fd00:0:0:1::13"]
"#;

/// The same tenant, whose VMs make their IPv6 addresses themselves.
fn with_slaac() -> String {
    let text = TENANT.replace("::1/64\"", "::1/64\"\nipv6_autoconf = \"slaac\"");
    let own = "\"10.1.0.11\", \"fd00:0:0:1::11\"]";
    text.replace(own, "\"10.1.0.11\"]\naddresses6 = \"learn-nd\"")
}

/// From the link's first sign of life to both default routes. The guest itself detects duplicates
/// of its link-local address for a second, after up to a second that the kernel waits with that.
const AT_ONCE: Duration = Duration::from_millis(2500);

/// NetworkManager as it is installed, but for its log, and systemd-resolved.
const BOOT: &str = r#"bus
/lib/systemd/systemd-resolved &
ip link set lo up
cat >/etc/NetworkManager/NetworkManager.conf <<END
[main]
plugins=keyfile
dns=systemd-resolved
[connection]
connection.mdns=2
END
NetworkManager --debug &
"#;

/// Another server of names, which knows one domain and refuses all else.
const NAMES: [&str; 8] = [
    "dnsmasq",
    "--keep-in-foreground",
    "--conf-file=/dev/null",
    "--pid-file=",
    "--user=root",
    "--no-resolv",
    "--no-hosts",
    "--address=/example.com/192.0.2.80",
];

const IPV4: &str = "-4 -o address show dev eth0";
const IPV6: &str = "-6 -o address show dev eth0 scope global -tentative";

/// What `ip` shows of a guest.
fn shown(site: &Site, guest: &str, what: &str) -> String {
    sh(&format!("ip -n {}-{guest} {what}", site.instance))
}

/// How long after the link comes up the guest has a default route of either family.
fn default_routes(site: &Site, guest: &str, image: &Image) -> [Duration; 2] {
    let wait_for = |what: &str, part: &str, began: Instant| {
        while !shown(site, guest, what).contains(part) {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "no {part:?} in {:?}; {}",
                shown(site, guest, what),
                image.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
        began.elapsed()
    };
    wait_for("link show dev eth0", "state UP", Instant::now());
    let began = Instant::now();
    thread::scope(|scope| {
        [
            ("-4 route show default", "default via 10.1.0.1"),
            ("-6 route show default", "default via fe80::"),
        ]
        .map(|(what, part)| scope.spawn(move || wait_for(what, part, began)))
        .map(|waiter| waiter.join().expect("there is one"))
    })
}

#[track_caller]
fn reaches(site: &Site, from: &str, to: &str) {
    let began = Instant::now();
    while !run(site, from, &["ping", "-c1", "-W1", to]) {
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{to} does not answer {from}: {} {}",
            guest::shown(site, "drops"),
            guest::shown(site, "neighbours")
        );
    }
}

/// systemd-resolved has the gateway for its server, and names of the tenant's VMs from there.
fn names_are_resolved(image: &Image) {
    image.wait_for("resolvectl status eth0", "fd00:0:0:1::1");
    for name in ["t1-sibling.t1.internal", "t1-sibling"] {
        let found = image.good(&format!("resolvectl query {name}"));
        assert!(found.contains("10.1.0.13"), "{found}");
        assert!(found.contains("fd00:0:0:1::13"), "{found}");
        assert!(found.contains("protocol DNS"), "{found}");
    }
    for address in ["10.1.0.13", "fd00:0:0:1::13"] {
        let found = image.good(&format!("resolvectl query {address}"));
        assert!(found.contains("t1-sibling.t1.internal"), "{found}");
    }
    let missing = image.shell("resolvectl query t1-nobody.t1.internal");
    assert!(missing.contains("not found"), "{missing}");
    // The gateway refuses others' names, and the next server knows them; and the other way round.
    for (name, address) in [
        ("www.example.com", "192.0.2.80"),
        ("t1-desktop.t1.internal", "10.1.0.11"),
        ("mail.example.com", "192.0.2.80"),
        ("t1-sibling", "10.1.0.13"),
    ] {
        let found = image.good(&format!("resolvectl query {name}"));
        assert!(found.contains(address), "{found}");
    }
}

#[test]
fn networkmanager_and_resolved_are_configured_by_the_gateway() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    if Image::packages().is_none() {
        eprintln!("skipped: NetworkManager is not unpacked (scripts/setup)");
        return;
    }
    let site = Site::new("twb", 92_400, Vec::new());
    let file = site.dir.path().join("t1.toml");
    let file = file.to_str().expect("UTF-8");
    let apply = |text: &str| {
        fs::write(file, text).expect("a file");
        site.good(&["apply", file]);
    };
    apply(TENANT);
    // It may use no address that it makes itself.
    let own = "ip address add 10.1.0.13/24 dev eth0
        ip address add fd00:0:0:1::13/64 dev eth0 nodad
        echo 0 > /proc/sys/net/ipv6/conf/eth0/autoconf";
    assert!(run(&site, "t1-sibling", &["sh", "-ec", own]));
    let mut server = command(&site, "t1-sibling", &NAMES);
    let names = Guest(server.stdin(Stdio::null()).spawn().expect("it starts"));
    let down = || {
        let fresh = "ip address flush dev eth0
            ip link set dev eth0 down addrgenmode eui64";
        assert!(run(&site, "t1-desktop", &["sh", "-ec", fresh]));
    };
    down();
    let image = Image::boot(&site, "t1-desktop", BOOT);
    let took = default_routes(&site, "t1-desktop", &image);
    println!("NetworkManager has its default routes after {took:?}");
    assert!(took.iter().all(|took| *took < AT_ONCE), "{took:?}");

    image.wait_for(&format!("ip {IPV4}"), "inet 10.1.0.11/24");
    image.wait_for(&format!("ip {IPV6}"), "inet6 fd00:0:0:1::11/128");
    let link = shown(&site, "t1-desktop", "link show dev eth0");
    assert!(link.contains("mtu 1400"), "{link}");
    let route = shown(&site, "t1-desktop", "route show 172.16.0.0/12");
    assert!(route.contains("via 10.1.0.13"), "{route}");
    let own = shown(
        &site,
        "t1-desktop",
        "-6 -o address show dev eth0 scope link",
    );
    assert!(!own.contains("ff:fe00:"), "{own}");
    reaches(&site, "t1-sibling", "10.1.0.11");
    reaches(&site, "t1-sibling", "fd00:0:0:1::11");
    names_are_resolved(&image);
    for reason in ["nd-spoof", "ipv6-source", "dhcp-client", "dhcpv6-client"] {
        assert_eq!(dropped(&site, "t1-desktop", reason), 0, "{reason}");
    }
    drop(image);

    apply(&with_slaac());
    down();
    let image = Image::boot(&site, "t1-desktop", BOOT);
    let took = default_routes(&site, "t1-desktop", &image);
    println!("with SLAAC after {took:?}");
    assert!(took.iter().all(|took| *took < AT_ONCE), "{took:?}");
    let made = image.wait_for(&format!("ip {IPV6}"), "inet6 fd00::1:");
    assert!(!made.contains("ff:fe00:"), "{made}");
    let (_, made) = made.split_once("inet6 ").expect("an address");
    let made = made.split('/').next().expect("its length");
    reaches(&site, "t1-sibling", made);
    names_are_resolved(&image);
    drop(image);
    drop(names);
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}
