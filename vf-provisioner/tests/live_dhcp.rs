//! Guests with ordinary DHCP clients are given by the gateway what their tenant's file says, renew
//! it, ask again when the gateway does not answer, and give up the address of another network.
//!
//! The real switch, busybox's and ISC's clients and systemd's network daemon, on this host's
//! kernel, as root. Without root the test prints that and passes.

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

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use client::{Client, Networkd, words};
use guest::{dhcp, dropped, replies, run, send};
use site::{Site, sh};

const TENANT: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
[gateway.dhcp]
dns = ["10.1.0.53", "10.1.0.54"]
domain = "t1.example"
search = ["t1.example", "example"]
ntp = ["10.1.0.55"]
routes = [{ to = "172.16.0.0/12", via = "10.1.0.34" }]
lease_s = 10
[uplink]
address = "192.0.2.11/24"
next_hop = "192.0.2.1"
[[port]]
name = "t1-busybox"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.11"]
hostname = "busy"
mtu = 1400
[[port]]
name = "t1-isc"
mac = "52:54:00:00:01:02"
addresses = ["10.1.0.12"]
hostname = "isc"
[[port]]
name = "t1-networkd"
mac = "52:54:00:00:01:03"
addresses = ["10.1.0.32/28"]
hostname = "net"
[[port]]
name = "t1-sibling"
mac = "52:54:00:00:01:04"
addresses = ["10.1.0.14"]
"#;

/// What each client does with what it is given: it notes all of it, and sets what the network
/// needs. The words are the event and the address, its prefix, the router and the MTU in that
/// client's variables.
fn script(log: &Path, [event, address, prefix, router, mtu]: [&str; 5]) -> String {
    format!(
        "#!/bin/sh\n\
         [ -n \"{address}\" ] && {{\n\
         ip link set eth0 up mtu \"{mtu}\"\n\
         ip address replace \"{address}/{prefix}\" dev eth0\n\
         ip route replace default via \"{router}\"\n\
         }}\n\
         {{ echo \"=> {event}\"; env; echo; }} >> {}\n",
        log.display()
    )
}

/// busybox's client.
fn busybox(site: &Site) -> Client {
    let variables = ["$1", "$ip", "$mask", "$router", "$mtu"];
    Client::start(
        site,
        "t1-busybox",
        |log| script(log, variables),
        |script| {
            let asks = "-O mtu -O search -O staticroutes -O ntpsrv";
            words(&format!("busybox udhcpc -f -i eth0 {asks} -s {script}"))
        },
    )
}

/// ISC's client, which remembers an address of another network.
fn isc(site: &Site) -> Client {
    let dir = site.dir.path();
    let (config, leases) = (dir.join("isc.conf"), dir.join("isc.leases"));
    // It tries every second, so that it rebinds in the second and a quarter that are left for it.
    let text = "initial-interval 1;\nbackoff-cutoff 1;\n\
                option routes code 121 = array of unsigned integer 8;\n\
                request subnet-mask, routers, domain-name, domain-name-servers, domain-search,\n\
                host-name, interface-mtu, ntp-servers, routes;\n";
    fs::write(&config, text).expect("a file");
    let text = "lease { interface \"eth0\"; fixed-address 10.9.0.9;\n\
                option subnet-mask 255.255.255.0; option dhcp-server-identifier 10.9.0.1;\n\
                renew 4 2037/01/01 00:00:00; rebind 4 2037/01/01 00:00:00;\n\
                expire 4 2037/01/01 00:00:00; }\n";
    fs::write(&leases, text).expect("a file");
    let variables = [
        "$reason",
        "$new_ip_address",
        "24",
        "$new_routers",
        "$new_interface_mtu",
    ];
    Client::start(
        site,
        "t1-isc",
        |log| script(log, variables),
        |script| {
            words(&format!(
                "dhclient -4 -d -cf {} -lf {} -pf {} -sf {script} eth0",
                config.display(),
                leases.display(),
                dir.join("isc.pid").display()
            ))
        },
    )
}

/// systemd's network daemon.
fn networkd(site: &Site) -> Networkd {
    let settings = "[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n\
                    [DHCPv4]\nUseDomains=yes\nUseMTU=yes\nUseHostname=no\n";
    Networkd::start(site, "t1-networkd", settings)
}

/// Has busybox's client renew its lease now: it counts each lease as two minutes at least.
fn renew(client: &Client) {
    let pid = Pid::from_raw(client.program.0.id() as i32);
    kill(pid, Signal::SIGUSR1).expect("it is there");
}

/// No frame of a sibling's in another's name is answered, or reaches a client.
fn sibling_gets_nothing_in_anothers_name(site: &Site) {
    let discover = |mac| dhcp(mac, [0; 4], [0; 4], &[(53, vec![1])]);
    let request = dhcp(
        1,
        [0; 4],
        [0; 4],
        &[(53, vec![3]), (50, vec![10, 1, 0, 11])],
    );
    let mut forged = [discover(1), request];
    for frame in &mut forged {
        // From its own MAC.
        frame.replace_range(12..24, "525400000104");
    }
    // The provisioner has asked for the gateway from there.
    let answered = replies(site, "t1-sibling");
    send(site, "t1-sibling", &forged);
    // The control experiment: in its own name it is answered.
    send(site, "t1-sibling", &[discover(4)]);
    let began = Instant::now();
    while replies(site, "t1-sibling") == answered {
        assert!(began.elapsed() < Duration::from_secs(5), "no answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(dropped(site, "t1-sibling", "dhcp-client"), 2);
    assert_eq!(replies(site, "t1-sibling"), answered + 1);
}

/// A VM that ignores the MTU of its port learns it by ICMP.
fn vm_with_larger_mtu_is_told(site: &Site) {
    let namespace = format!("{}-t1-busybox", site.instance);
    sh(&format!("ip -n {namespace} link set eth0 mtu 1500"));
    let asked = sh(&format!(
        "ip netns exec {namespace} ping -c1 -W2 -Mdo -s1472 10.1.0.33 2>&1"
    ));
    assert!(asked.contains("mtu = 1400"), "{asked}");
    // The other side learns it by its first answer.
    let more = ["ping", "-c3", "-W2", "-s1472", "10.1.0.33"];
    assert!(run(site, "t1-busybox", &more));
}

#[test]
fn ordinary_clients_get_what_the_file_says_from_the_gateway() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    if sh("command -v dhclient").is_empty() || !Path::new(Networkd::PROGRAM).exists() {
        eprintln!("skipped: dhclient (scripts/setup) or systemd-networkd is not installed");
        return;
    }
    let site = Site::new("tvg", 90_000, Vec::new());
    let file = site.dir.path().join("t1.toml");
    fs::write(&file, TENANT).expect("a file");
    site.good(&["apply", file.to_str().expect("UTF-8")]);

    let (busybox, isc, networkd) = (busybox(&site), isc(&site), networkd(&site));
    busybox.wait_for("bound").has(&[
        ("ip", "10.1.0.11"),
        ("subnet", "255.255.255.0"),
        ("router", "10.1.0.1"),
        ("dns", "10.1.0.53 10.1.0.54"),
        ("domain", "t1.example"),
        ("search", "t1.example example"),
        ("ntpsrv", "10.1.0.55"),
        ("mtu", "1400"),
        ("hostname", "busy"),
        ("staticroutes", "172.16.0.0/12 10.1.0.34 0.0.0.0/0 10.1.0.1"),
        ("serverid", "10.1.0.1"),
        ("lease", "10"),
    ]);
    let isc_lease = [
        ("new_ip_address", "10.1.0.12"),
        ("new_subnet_mask", "255.255.255.0"),
        ("new_routers", "10.1.0.1"),
        ("new_domain_name_servers", "10.1.0.53 10.1.0.54"),
        ("new_domain_name", "t1.example"),
        ("new_domain_search", "t1.example. example."),
        ("new_host_name", "isc"),
        ("new_interface_mtu", "1500"),
        ("new_ntp_servers", "10.1.0.55"),
        ("new_routes", "12 172 16 10 1 0 34 0 10 1 0 1"),
        ("new_dhcp_server_identifier", "10.1.0.1"),
        ("new_dhcp_lease_time", "10"),
    ];
    isc.wait_for("BOUND").has(&isc_lease);
    let errors = isc.errors();
    assert!(errors.contains("DHCPNAK from 10.1.0.1"), "{errors}");
    // From here on it sends nothing to the gateway's address, so it has to rebind.
    let unreachable = ["ip", "route", "add", "blackhole", "10.1.0.1/32"];
    assert!(run(&site, "t1-isc", &unreachable));
    networkd.lease().has(&[
        ("ADDRESS", "10.1.0.33"),
        ("NETMASK", "255.255.255.0"),
        ("ROUTER", "10.1.0.1"),
        ("DNS", "10.1.0.53 10.1.0.54"),
        ("NTP", "10.1.0.55"),
        ("DOMAINNAME", "t1.example"),
        ("DOMAIN_SEARCH_LIST", "t1.example example"),
        ("HOSTNAME", "net"),
        ("MTU", "1500"),
        (
            "CLASSLESS_ROUTES",
            "172.16.0.0/12,10.1.0.34 0.0.0.0/0,10.1.0.1",
        ),
        ("SERVER_ADDRESS", "10.1.0.1"),
        ("LIFETIME", "10"),
    ]);

    // The addresses are those that the filter lets pass.
    let mtu = sh(&format!(
        "ip -n {}-t1-busybox link show eth0",
        site.instance
    ));
    assert!(mtu.contains("mtu 1400"), "{mtu}");
    let began = Instant::now();
    while !run(&site, "t1-busybox", &["ping", "-c1", "-W1", "10.1.0.33"]) {
        assert!(began.elapsed() < Duration::from_secs(5), "no answer");
        std::thread::sleep(Duration::from_millis(50));
    }

    sibling_gets_nothing_in_anothers_name(&site);

    renew(&busybox);
    busybox
        .wait_for("renew")
        .has(&[("ip", "10.1.0.11"), ("mtu", "1400")]);
    // What it says of either; here only a broadcast can have been answered.
    isc.wait_for("RENEW").has(&isc_lease);
    assert_eq!(dropped(&site, "t1-isc", "multicast"), 0);
    vm_with_larger_mtu_is_told(&site);
    drop((busybox, isc, networkd));
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}
