//! Guests resolve names of the outside at their gateway, which asks a real resolver on the underlay
//! for them; nothing of the tenant's own names gets there, and no forged answer to the guests.
//!
//! The real switch, dnsmasq, busybox's nslookup and the C library's resolver, on this host's
//! kernel, as root. Without root the test prints that and passes.

#[path = "common/guest.rs"]
mod guest;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use guest::{Guest, dropped, run};
use site::{Site, sh};

/// 192.0.2.52 answers ARP, but no query.
const TENANT: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
ipv6 = "fd00:0:0:1::1/64"
[gateway.dns]
enabled = true
forward = ["192.0.2.52", "192.0.2.53"]
[uplink]
address = "192.0.2.11/24"
next_hop = "192.0.2.1"
address6 = "2001:db8::11/64"
next_hop6 = "2001:db8::1"
[[port]]
name = "t1-one"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.11", "fd00:0:0:1::11"]
[[port]]
name = "t1-two"
mac = "52:54:00:00:01:02"
addresses = ["10.1.0.12", "fd00:0:0:1::12"]
"#;

/// Sends a query for a TXT record to a server, each second until an answer comes, with EDNS of that
/// size unless it is 0; prints the flags, the length, and how often it asked.
const ASK: &str = "import socket, struct, sys
server, name, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
question = b''.join(bytes([len(it)]) + it.encode() for it in name.split('.')) + b'\\0\\0\\x10\\0\\1'
options = struct.pack('>BHHIH', 0, 41, size, 0, 0) if size else b''
message = struct.pack('>6H', 4711, 0x0100, 1, 0, 0, bool(size)) + question + options
family = socket.AF_INET6 if ':' in server else socket.AF_INET
wire = socket.socket(family, socket.SOCK_DGRAM)
wire.connect((server, 53))
wire.settimeout(1)
for turn in range(1, 9):
    wire.send(message)
    try:
        answer = wire.recv(65535)
    except OSError:
        continue
    assert answer[:2] == message[:2] and answer[12:12 + len(question)] == question
    print(hex(int.from_bytes(answer[2:4], 'big')), len(answer), turn)
    break
else:
    print('no answer')";

/// Sends answers to no query from a station of the underlay to the switch.
const FORGE: &str = "import socket, struct, sys
wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
wire.bind((sys.argv[1], 5353 if len(sys.argv) > 2 else 53))
head = struct.pack('>6H', 1, 0x8180, 1, 1, 0, 0) + b'\\1x\\0\\0\\1\\0\\1'
for port in range(1024, 1124):
    record = b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\6\\6\\6\\6'
    wire.sendto(head + record, ('192.0.2.11', port))";

/// The resolver's host: a namespace at the underlay's bridge.
struct Resolver {
    namespace: String,
    log: PathBuf,
    program: Option<Guest>,
}

impl Resolver {
    fn start(site: &Site) -> Self {
        let (host, bridge) = (site.host(), format!("{}-br0", site.instance));
        let namespace = format!("{}-resolver", site.instance);
        // Its NIC computes checksums.
        sh(&format!(
            "ip netns add {namespace} && \
             ip -n {host} link add wire type veth peer name eth0 netns {namespace} && \
             ip -n {host} link set wire master {bridge} up && \
             ip -n {namespace} address add 192.0.2.52/24 dev eth0 && \
             ip -n {namespace} address add 192.0.2.53/24 dev eth0 && \
             ip -n {namespace} address add 192.0.2.66/24 dev eth0 && \
             ip -n {namespace} address add 2001:db8::53/64 dev eth0 nodad && \
             ip netns exec {namespace} ethtool -K eth0 tx off && \
             ip -n {namespace} link set eth0 up && ip -n {namespace} link set lo up"
        ));
        let mut resolver = Self {
            namespace,
            log: site.dir.path().join("dnsmasq.log"),
            program: None,
        };
        let large = |letter: &str| letter.repeat(200);
        let texts = ["a", "b", "c"].map(large).join(",");
        let program = resolver
            .command()
            .args(["dnsmasq", "--no-daemon", "--conf-file=/dev/null"])
            .args(["--user=root", "--pid-file=", "--no-resolv", "--no-hosts"])
            .args(["--bind-interfaces", "--listen-address=192.0.2.53"])
            .args(["--listen-address=2001:db8::53", "--local=/example/"])
            .arg("--host-record=www.example,198.51.100.7,2001:db8:ffff::7")
            .arg(format!("--txt-record=large.example,{texts}"))
            .arg("--log-queries=extra")
            .arg(format!("--log-facility={}", resolver.log.display()))
            .spawn();
        resolver.program = Some(Guest(program.expect("dnsmasq starts")));
        let began = Instant::now();
        while !resolver.logged().contains("started") {
            assert!(began.elapsed() < Duration::from_secs(10), "dnsmasq is slow");
            std::thread::sleep(Duration::from_millis(20));
        }
        resolver
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The addresses and ports by which it was asked.
    fn asked_by(&self) -> BTreeSet<String> {
        let log = self.logged();
        let queries = log.lines().filter(|line| line.contains(" query["));
        let word = |line: &str| {
            let mut words = line.split(' ');
            words
                .find(|word| word.starts_with("192.0.2.11/") || word.starts_with("2001:db8::11/"))
                .map(str::to_owned)
        };
        queries.filter_map(word).collect()
    }

    fn forge(&self, arguments: &[&str]) {
        let mut command = self.command();
        command.args(["python3", "-c", FORGE]).args(arguments);
        assert!(command.status().expect("python3 starts").success());
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.program = None;
        sh(&format!("ip netns del {}", self.namespace));
    }
}

/// What the guest gets for a TXT record: flags, length and how often it asked.
fn ask(site: &Site, server: &str, name: &str, size: u16) -> (u16, usize, u32) {
    let answer = sh(&format!(
        "ip netns exec {}-t1-one python3 -c \"{ASK}\" {server} {name} {size}",
        site.instance
    ));
    let words: Vec<&str> = answer.split_whitespace().collect();
    let [flags, length, turns] = words[..] else {
        panic!("{name} at {server}: {answer:?}");
    };
    let flags = u16::from_str_radix(flags.trim_start_matches("0x"), 16);
    (
        flags.expect("flags"),
        length.parse().expect("a length"),
        turns.parse().expect("a number"),
    )
}

/// Ordinary programs of the guest resolve the name.
#[track_caller]
fn resolves(site: &Site) {
    let namespace = format!("{}-t1-one", site.instance);
    for server in ["10.1.0.1", "fd00:0:0:1::1"] {
        let found = sh(&format!(
            "ip netns exec {namespace} busybox nslookup www.example {server} 2>&1"
        ));
        assert!(found.contains("198.51.100.7"), "{found}");
        assert!(found.contains("2001:db8:ffff::7"), "{found}");
        let missing = sh(&format!(
            "ip netns exec {namespace} busybox nslookup nobody.example {server} 2>&1"
        ));
        assert!(missing.contains("NXDOMAIN"), "{missing}");
    }
    let file = site.dir.path().join("resolv.conf");
    fs::write(&file, "nameserver 10.1.0.1\nsearch t1.internal\n").expect("a file");
    let known = |name: &str| {
        sh(&format!(
            "ip netns exec {namespace} sh -c 'mount --bind {} /etc/resolv.conf && \
             getent ahosts {name}'",
            file.display()
        ))
    };
    let found = known("www.example");
    assert!(found.contains("198.51.100.7"), "{found}");
    assert!(found.contains("2001:db8:ffff::7"), "{found}");
    let own = known("t1-two");
    assert!(own.contains("10.1.0.12"), "{own}");
}

#[test]
fn guests_resolve_names_of_the_outside_at_their_gateway() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let programs = sh("command -v dnsmasq && command -v busybox && command -v ethtool");
    if programs.lines().count() != 3 {
        eprintln!("skipped: dnsmasq, busybox or ethtool (scripts/setup) is not installed");
        return;
    }
    let site = Site::new("twd", 93_500, Vec::new());
    let file = site.dir.path().join("t1.toml");
    let file_name = file.to_str().expect("UTF-8");
    fs::write(&file, TENANT).expect("a file");
    site.good(&["apply", file_name]);
    let resolver = Resolver::start(&site);
    let addresses = "ip link set eth0 up; ip address add 10.1.0.11/24 dev eth0; \
                     ip address add fd00:0:0:1::11/64 dev eth0 nodad; \
                     ip route add default via 10.1.0.1";
    assert!(run(&site, "t1-one", &["sh", "-c", addresses]));

    // The first resolver is silent: a client that asks again is answered by the second.
    let (flags, _, turns) = ask(&site, "10.1.0.1", "nobody.example", 1232);
    assert_eq!(flags & 0x800f, 0x8003);
    assert!((2..=4).contains(&turns), "asked {turns} times");
    resolves(&site);

    // Three texts of 200 bytes: too large without EDNS.
    let (flags, length, turns) = ask(&site, "10.1.0.1", "large.example", 0);
    assert_eq!((flags & 0x8200, turns), (0x8200, 1));
    assert!(length <= 512, "{length} bytes");
    for server in ["10.1.0.1", "fd00:0:0:1::1"] {
        let (flags, length, turns) = ask(&site, server, "large.example", 1232);
        assert_eq!((flags & 0x8200, turns), (0x8000, 1));
        assert!(length > 600, "{length} bytes");
    }

    // Each query is asked by a port of its own, and the guest does not reach the resolver.
    for _ in 0..20 {
        ask(&site, "10.1.0.1", "large.example", 1232);
    }
    let ports = resolver.asked_by().len();
    assert!(ports >= 20, "{ports} ports");
    let direct = "busybox nslookup www.example 192.0.2.53";
    let direct: Vec<&str> = direct.split(' ').collect();
    assert!(!run(&site, "t1-one", &direct));
    assert!(dropped(&site, "t1-one", "underlay") > 0);

    // Answers that nobody asked for.
    let before = dropped(&site, "uplink", "dns-unsolicited");
    for forger in ["192.0.2.66", "192.0.2.53"] {
        // The resolver's own port is taken at its address.
        let elsewhere = ["elsewhere"];
        let rest: &[&str] = if forger.ends_with("53") {
            &elsewhere
        } else {
            &[]
        };
        resolver.forge(&[&[forger], rest].concat());
    }
    let unsolicited = dropped(&site, "uplink", "dns-unsolicited") - before;
    assert_eq!(unsolicited, 100);
    assert!(dropped(&site, "uplink", "gateway-service") >= 100);

    // By IPv6, after a new configuration.
    let text = TENANT.replace("\"192.0.2.52\", \"192.0.2.53\"", "\"2001:db8::53\"");
    fs::write(&file, text).expect("a file");
    site.good(&["apply", file_name]);
    let began = Instant::now();
    while ask(&site, "10.1.0.1", "large.example", 1232).2 > 1 {
        assert!(began.elapsed() < Duration::from_secs(10), "no resolver");
    }
    resolves(&site);
    let asked_by = resolver.asked_by();
    assert!(asked_by.iter().any(|it| it.starts_with("2001:db8::11/")));

    // Nothing of the tenant's names, forward or reverse.
    for name in [
        "t1-two.t1.internal",
        "nobody.t1.internal",
        "x.0.1.10.in-addr.arpa",
    ] {
        ask(&site, "10.1.0.1", name, 0);
    }
    let log = resolver.logged();
    assert!(!log.contains("internal"), "{log}");
    assert!(!log.contains("arpa"), "{log}");
    for reason in ["dns-rate", "dns-malformed"] {
        assert_eq!(dropped(&site, "t1-one", reason), 0, "{reason}");
        assert_eq!(dropped(&site, "uplink", reason), 0, "{reason}");
    }
    drop(resolver);
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}
