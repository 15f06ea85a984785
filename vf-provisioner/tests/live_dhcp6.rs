//! Guests with ordinary DHCPv6 clients are given by the gateway the IPv6 address that their
//! tenant's file gives their port, with name servers and search domains, renew it, and give up the
//! address of another network.
//!
//! The real switch, ISC's client, systemd's network daemon and dhcpcd, on this host's kernel, as
//! root. Without root the test prints that and passes.

#[path = "common/client.rs"]
mod client;
#[path = "common/guest.rs"]
mod guest;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use client::{Client, Networkd, words};
use guest::{dropped, run};
use site::{Site, sh};

const TENANT: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
ipv6 = "fd00:0:0:1::1/64"
[gateway.dhcp]
dns = ["10.1.0.53", "fd00:0:0:1::53", "fd00:0:0:1::54"]
domain = "t1.example"
search = ["t1.example", "example"]
ntp = ["10.1.0.55", "fd00:0:0:1::55"]
lease_s = 10
[gateway.dns]
enabled = true
[uplink]
address = "192.0.2.11/24"
next_hop = "192.0.2.1"
[[port]]
name = "t1-isc"
mac = "52:54:00:00:01:01"
addresses = ["fd00:0:0:1::11"]
[[port]]
name = "t1-networkd"
mac = "52:54:00:00:01:02"
addresses = ["10.1.0.12", "fd00:0:0:1:20::/80"]
[[port]]
name = "t1-dhcpcd"
mac = "52:54:00:00:01:03"
addresses = ["10.1.0.13", "fd00:0:0:1::13"]
hostname = "three"
[[port]]
name = "t1-static"
mac = "52:54:00:00:01:04"
addresses = ["10.1.0.14", "fd00:0:0:1::14"]
"#;

/// Waits until the guest shows that.
#[track_caller]
fn wait_for(site: &Site, guest: &str, what: &str, part: &str) {
    let began = Instant::now();
    let shown = || sh(&format!("ip -n {}-{guest} {what}", site.instance));
    while !shown().contains(part) {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "no {part:?} in {:?} of {guest}",
            shown()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

const ADDRESS: &str = "-6 -o address show dev eth0 scope global -tentative";
const LINK_LOCAL: &str = "-6 -o address show dev eth0 scope link -tentative";
const DEFAULT: &str = "-6 route show default";

/// The guest has that address and a default route, and reaches its sibling.
#[track_caller]
fn is_reached(site: &Site, guest: &str, address: &str) {
    wait_for(site, guest, ADDRESS, &format!("inet6 {address}/"));
    wait_for(site, guest, DEFAULT, "default via fe80::");
    let began = Instant::now();
    while !run(site, "t1-static", &["ping", "-c1", "-W1", address]) {
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{address} does not answer"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// ISC's client, which remembers an address of another network and takes a rapid commit.
fn isc(site: &Site) -> Client {
    let dir = site.dir.path();
    let (config, leases) = (dir.join("isc.conf"), dir.join("isc.leases"));
    let text = "also request dhcp6.sntp-servers;\n\
                send dhcp6.rapid-commit;\n";
    fs::write(&config, text).expect("a file");
    let now = sh("date +%s");
    let text = format!(
        "default-duid \"\\000\\003\\000\\001RT\\000\\000\\001\\001\";\n\
         lease6 {{\n  interface \"eth0\";\n  ia-na 00:00:01:01 {{\n    starts {now};\n    \
         renew 1000;\n    rebind 2000;\n    iaaddr fd00:9::9 {{\n      starts {now};\n      \
         preferred-life 4000;\n      max-life 4000;\n    }}\n  }}\n  \
         option dhcp6.client-id 0:3:0:1:52:54:0:0:1:1;\n  \
         option dhcp6.server-id 0:3:0:1:2:9:9:9:9:9;\n}}\n",
    );
    fs::write(&leases, text.replace("\n;", ";")).expect("a file");
    let script = |log: &Path| {
        format!(
            "#!/bin/sh\n\
             [ -n \"$new_ip6_address\" ] && ip -6 address replace \
             \"$new_ip6_address/$new_ip6_prefixlen\" dev eth0\n\
             {{ echo \"=> $reason\"; env; echo; }} >> {}\n",
            log.display()
        )
    };
    Client::start(site, "t1-isc", script, |script| {
        words(&format!(
            "dhclient -6 -d -cf {} -lf {} -pf {} -sf {script} eth0",
            config.display(),
            leases.display(),
            dir.join("isc.pid").display()
        ))
    })
}

/// dhcpcd, with directories of its own.
fn dhcpcd(site: &Site) -> Client {
    let config = site.dir.path().join("dhcpcd.conf");
    let text = "duid\nslaac hwaddr\n\
                option rapid_commit, domain_name_servers, domain_name, domain_search, host_name\n\
                option interface_mtu, ntp_servers\n\
                option dhcp6_name_servers\noption dhcp6_domain_search\n";
    fs::write(&config, text).expect("a file");
    let script = |log: &Path| {
        format!(
            "#!/bin/sh\n{{ echo \"=> $reason\"; env; echo; }} >> {}\n",
            log.display()
        )
    };
    Client::start(site, "t1-dhcpcd", script, |script| {
        let program = format!(
            "mkdir -p /run/dhcpcd && mount -t tmpfs none /run/dhcpcd && \
             mount -t tmpfs none /var/lib/dhcpcd && \
             exec dhcpcd -B -f {} -c {script} eth0",
            config.display()
        );
        vec!["sh".to_owned(), "-c".to_owned(), program]
    })
}

fn networkd(site: &Site) -> Networkd {
    let settings = "[Network]\nDHCP=yes\nIPv6AcceptRA=yes\n\
                    [DHCPv4]\nUseHostname=no\n[DHCPv6]\nUseHostname=no\n\
                    [IPv6AcceptRA]\nUseDomains=yes\n";
    Networkd::start(site, "t1-networkd", settings)
}

/// What the daemon has of both families, and of Router Advertisements.
fn networkd_knows(networkd: &Networkd) {
    let lease = [("ADDRESS", "10.1.0.12"), ("DNS", "10.1.0.53")];
    networkd.lease().has(&lease);
    let links = fs::read_dir(networkd.run.join("netif/links")).expect("a directory");
    let states = links.flatten().map(|link| fs::read_to_string(link.path()));
    let state: String = states.map(|state| state.expect("a file")).collect();
    let line = |key: &str| {
        let mut lines = state.lines();
        let found = lines.find_map(|line| line.strip_prefix(key));
        found.unwrap_or_default()
    };
    let dns = "10.1.0.53 fd00:0:0:1::53 fd00:0:0:1::54";
    assert!(line("DNS=").starts_with(dns), "{state}");
    assert_eq!(line("NTP="), "10.1.0.55 fd00:0:0:1::55");
    // It keeps them in no order.
    let mut domains: Vec<&str> = line("DOMAINS=").split(' ').collect();
    domains.sort_unstable();
    assert_eq!(domains, ["example", "t1.example"]);
}

/// The same of dhcpcd.
fn dhcpcd_knows(dhcpcd: &Client) {
    dhcpcd.wait_for("BOUND").has(&[
        ("new_ip_address", "10.1.0.13"),
        ("new_domain_name_servers", "10.1.0.53"),
        ("new_domain_search", "t1.example example"),
        ("new_host_name", "three"),
        ("new_interface_mtu", "1500"),
        ("new_ntp_servers", "10.1.0.55"),
        ("new_routers", "10.1.0.1"),
    ]);
    let servers = "fd00:0:0:1::53 fd00:0:0:1::54";
    dhcpcd.wait_for("BOUND6").has(&[
        ("new_dhcp6_ia_na1_ia_addr1", "fd00:0:0:1::13"),
        ("new_dhcp6_name_servers", servers),
        ("new_dhcp6_domain_search", "t1.example example"),
    ]);
    dhcpcd.wait_for("ROUTERADVERT").has(&[
        ("nd1_rdnss1_servers", servers),
        ("nd1_dnssl1_search", "t1.example example"),
    ]);
}

/// The guest resolves its siblings' names and addresses at the gateway, by either family, and the
/// gateway refuses others'.
fn names_are_known(site: &Site) {
    let ask = |name: &str, server: &str| {
        let namespace = format!("{}-t1-networkd", site.instance);
        sh(&format!(
            "ip netns exec {namespace} busybox nslookup {name} {server} 2>&1"
        ))
    };
    for server in ["10.1.0.1", "fd00:0:0:1::1"] {
        let found = ask("t1-static.t1.internal", server);
        assert!(found.contains("10.1.0.14"), "{found}");
        assert!(found.contains("fd00:0:0:1::14"), "{found}");
        for address in ["10.1.0.14", "fd00:0:0:1::14"] {
            let found = ask(address, server);
            assert!(found.contains("name = t1-static.t1.internal"), "{found}");
        }
        let missing = ask("t1-nobody.t1.internal", server);
        assert!(missing.contains("NXDOMAIN"), "{missing}");
        let refused = ask("example.com", server);
        assert!(refused.contains("REFUSED"), "{refused}");
    }
    // The C library, by a short name.
    let file = site.dir.path().join("resolv.conf");
    fs::write(&file, "nameserver 10.1.0.1\nsearch t1.internal\n").expect("a file");
    let found = sh(&format!(
        "ip netns exec {}-t1-networkd sh -c 'mount --bind {} /etc/resolv.conf && \
         getent ahosts t1-static'",
        site.instance,
        file.display()
    ));
    assert!(found.contains("fd00:0:0:1::14"), "{found}");
    assert!(found.contains("10.1.0.14"), "{found}");
}

#[test]
fn ordinary_clients_get_their_ipv6_address_from_the_gateway() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    if sh("command -v dhclient").is_empty() || !Path::new(Networkd::PROGRAM).exists() {
        eprintln!("skipped: dhclient (scripts/setup) or systemd-networkd is not installed");
        return;
    }
    let site = Site::new("tvx", 92_000, Vec::new());
    let file = site.dir.path().join("t1.toml");
    fs::write(&file, TENANT).expect("a file");
    site.good(&["apply", file.to_str().expect("UTF-8")]);
    let address = [
        "ip",
        "address",
        "add",
        "fd00:0:0:1::14/64",
        "dev",
        "eth0",
        "nodad",
    ];
    assert!(run(&site, "t1-static", &address));

    let networkd = networkd(&site);
    let dhcpcd = (!sh("command -v dhcpcd").is_empty()).then(|| dhcpcd(&site));
    wait_for(&site, "t1-isc", LINK_LOCAL, "inet6 fe80::");
    let isc = isc(&site);

    let lease = [
        ("new_ip6_address", "fd00:0:0:1::11"),
        ("new_dhcp6_name_servers", "fd00:0:0:1::53 fd00:0:0:1::54"),
        ("new_dhcp6_domain_search", "t1.example. example."),
        ("new_dhcp6_sntp_servers", "fd00:0:0:1::55"),
        ("new_dhcp6_server_id", "0:3:0:1:2:0:13:89:0:0"),
        ("new_preferred_life", "10"),
        ("new_max_life", "10"),
    ];
    isc.wait_for("BOUND6").has(&lease);
    let bound = Instant::now();
    is_reached(&site, "t1-isc", "fd00:0:0:1::11");
    is_reached(&site, "t1-networkd", "fd00::1:20:0:0:1");
    networkd_knows(&networkd);
    names_are_known(&site);
    if let Some(dhcpcd) = &dhcpcd {
        dhcpcd_knows(dhcpcd);
        is_reached(&site, "t1-dhcpcd", "fd00:0:0:1::13");
        dhcpcd.wait_for("RENEW6");
    }
    isc.wait_for("RENEW6").has(&lease);
    // Beyond the first lease.
    std::thread::sleep(Duration::from_secs(11).saturating_sub(bound.elapsed()));
    is_reached(&site, "t1-isc", "fd00:0:0:1::11");
    is_reached(&site, "t1-networkd", "fd00::1:20:0:0:1");
    let errors = isc.errors();
    assert!(errors.contains("status code NotOnLink"), "{errors}");
    for guest in ["t1-isc", "t1-networkd", "t1-dhcpcd"] {
        for reason in [
            "dhcp-no-server",
            "dhcpv6-client",
            "dhcp-client",
            "ipv6-source",
        ] {
            assert_eq!(dropped(&site, guest, reason), 0, "{reason} of {guest}");
        }
    }
    drop((isc, networkd, dhcpcd));
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}
