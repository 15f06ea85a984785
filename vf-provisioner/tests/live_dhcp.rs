//! Guests with ordinary DHCP clients are given by the gateway what their tenant's file says, renew
//! it, ask again when the gateway does not answer, and give up the address of another network.
//!
//! The real switch, busybox's and ISC's clients and systemd's network daemon, on this host's
//! kernel, as root. Without root the test prints that and passes.

#[path = "common/guest.rs"]
mod guest;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use guest::{Guest, command, dhcp, dropped, replies, run, send};
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

/// A client in a guest.
struct Client {
    program: Guest,
    guest: &'static str,
    log: PathBuf,
    errors: PathBuf,
}

/// One event that a client reported, with its variables.
#[derive(Debug)]
struct Event {
    name: String,
    variables: BTreeMap<String, String>,
}

impl Client {
    fn start(
        site: &Site,
        guest: &'static str,
        variables: [&str; 5],
        arguments: impl FnOnce(&str) -> Vec<String>,
    ) -> Self {
        let dir = site.dir.path();
        let log = dir.join(format!("{guest}.log"));
        let errors = dir.join(format!("{guest}.errors"));
        let path = dir.join(format!("{guest}.script"));
        fs::write(&path, script(&log, variables)).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        let arguments = arguments(path.to_str().expect("UTF-8"));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut program = command(site, guest, &arguments);
        let written = File::create(&errors).expect("a file");
        program.stdin(Stdio::null()).stderr(written);
        Self {
            program: Guest(program.spawn().expect("the client starts")),
            guest,
            log,
            errors,
        }
    }

    fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        // The last one may be half written.
        let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
        let events = whole.split("=> ").skip(1).map(|event| {
            let mut lines = event.lines();
            Event::new(lines.next().unwrap_or_default(), lines)
        });
        events.collect()
    }

    fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Has busybox's client renew its lease now: it counts each lease as two minutes at least.
    fn renew(&self) {
        let client = Pid::from_raw(self.program.0.id() as i32);
        kill(client, Signal::SIGUSR1).expect("it is there");
    }

    /// Waits until the client reports such an event.
    #[track_caller]
    fn wait_for(&self, name: &str) -> Event {
        let began = Instant::now();
        loop {
            let mut events = self.events().into_iter();
            if let Some(event) = events.find(|event| event.name == name) {
                return event;
            }
            let seen: Vec<_> = self.events().into_iter().map(|event| event.name).collect();
            assert!(
                began.elapsed() < Duration::from_secs(15),
                "no {name} at {}, but {seen:?}: {}",
                self.guest,
                self.errors()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Event {
    fn new<'l>(name: &str, lines: impl Iterator<Item = &'l str>) -> Self {
        let variable = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        Self {
            name: name.to_owned(),
            variables: lines.filter_map(variable).collect(),
        }
    }

    #[track_caller]
    fn has(&self, expected: &[(&str, &str)]) {
        for (name, value) in expected {
            let found = self.variables.get(*name).map(String::as_str);
            assert_eq!(found, Some(*value), "{name} of {self:?}");
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// busybox's client.
fn busybox(site: &Site) -> Client {
    let variables = ["$1", "$ip", "$mask", "$router", "$mtu"];
    Client::start(site, "t1-busybox", variables, |script| {
        let asks = "-O mtu -O search -O staticroutes -O ntpsrv";
        words(&format!("busybox udhcpc -f -i eth0 {asks} -s {script}"))
    })
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
    Client::start(site, "t1-isc", variables, |script| {
        words(&format!(
            "dhclient -4 -d -cf {} -lf {} -pf {} -sf {script} eth0",
            config.display(),
            leases.display(),
            dir.join("isc.pid").display()
        ))
    })
}

/// systemd's network daemon, with a `/run/systemd` of its own. Where `/sys` is read-only, it does
/// not wait for udev.
struct Networkd {
    _program: Guest,
    leases: PathBuf,
    log: PathBuf,
}

impl Networkd {
    const PROGRAM: &str = "/lib/systemd/systemd-networkd";

    fn start(site: &Site) -> Self {
        let (run, log) = (
            site.dir.path().join("run"),
            site.dir.path().join("networkd.log"),
        );
        for dir in ["network", "netif/links", "netif/leases", "netif/lldp"] {
            fs::create_dir_all(run.join(dir)).expect("a directory");
        }
        let text = "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n\
                    IPv6AcceptRA=no\n[DHCPv4]\nUseDomains=yes\nUseMTU=yes\nUseHostname=no\n";
        fs::write(run.join("network/eth0.network"), text).expect("a file");
        let program = format!(
            "mkdir -p /run/systemd && mount --bind {} /run/systemd && \
             chown -R systemd-network: /run/systemd && \
             mount -o remount,ro,bind /sys && exec {}",
            run.display(),
            Self::PROGRAM
        );
        let mut program = command(site, "t1-networkd", &["sh", "-c", &program]);
        let written = File::create(&log).expect("a file");
        program.stdin(Stdio::null()).stderr(written);
        program.env("SYSTEMD_LOG_TARGET", "console");
        Self {
            _program: Guest(program.spawn().expect("the client starts")),
            leases: run.join("netif/leases"),
            log,
        }
    }

    /// What it notes of its lease, once it has one.
    #[track_caller]
    fn lease(&self) -> Event {
        let began = Instant::now();
        loop {
            let mut leases = fs::read_dir(&self.leases).expect("a directory").flatten();
            let text = leases
                .next()
                .and_then(|lease| fs::read_to_string(lease.path()).ok());
            if let Some(text) = text {
                return Event::new("lease", text.lines());
            }
            assert!(
                began.elapsed() < Duration::from_secs(15),
                "no lease: {}",
                fs::read_to_string(&self.log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
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

    let (busybox, isc, networkd) = (busybox(&site), isc(&site), Networkd::start(&site));
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

    busybox.renew();
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
