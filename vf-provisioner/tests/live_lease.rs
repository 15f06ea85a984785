//! A guest with a DHCP lease keeps it: when its switch is killed, since the supervisor gives it to
//! the next one, and against another guest that speaks in its name.
//!
//! The real switch, busybox's DHCP server and client, dnsmasq, and ISC's DHCPv6 client, on this
//! host's kernel, as root.
//! Without root the tests print that and pass.

#[path = "common/guest.rs"]
mod guest;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use guest::{Guest, command, dhcp, dropped, run, send};
use site::{Site, sh};
use supervisor::Supervisor;

const TENANT: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
[uplink]
address = "192.0.2.11/24"
next_hop = "192.0.2.1"
[[port]]
name = "t1-server"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.2"]
dhcp_server = true
[[port]]
name = "t1-guest"
mac = "52:54:00:00:01:02"
addresses = "learn-dhcp"
"#;

/// What the client does with what it was given.
const SCRIPT: &str = r#"#!/bin/sh
if [ "$1" = bound ]; then
    ip address add "$ip/24" dev eth0
fi
"#;

/// The server, which has one address to give.
fn serve(site: &Site, dir: &Path) -> Guest {
    assert!(run(
        site,
        "t1-server",
        &["ip", "address", "add", "10.1.0.2/24", "dev", "eth0"]
    ));
    let config = dir.join("udhcpd.conf");
    let (leases, pid) = (dir.join("leases"), dir.join("udhcpd.pid"));
    let text = format!(
        "start 10.1.0.50\nend 10.1.0.50\ninterface eth0\nlease_file {}\npidfile {}\n\
         opt subnet 255.255.255.0\nopt router 10.1.0.1\nopt lease 3600\n",
        leases.display(),
        pid.display()
    );
    fs::write(&config, text).expect("a file");
    fs::write(&leases, "").expect("a file");
    let config = config.to_str().expect("UTF-8");
    let arguments = ["busybox", "udhcpd", "-f", "-a", "100", config];
    let mut server = command(site, "t1-server", &arguments);
    Guest(server.spawn().expect("the server starts"))
}

/// Has the guest get its address, by a client that ends then: it renews nothing.
fn get_lease(site: &Site, dir: &Path) {
    let script = dir.join("script");
    fs::write(&script, SCRIPT).expect("a file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    let script = script.to_str().expect("UTF-8");
    let arguments = [
        "busybox", "udhcpc", "-f", "-n", "-q", "-B", "-i", "eth0", "-s", script,
    ];
    assert!(run(site, "t1-guest", &arguments), "no lease was given");
}

fn is_reachable(site: &Site) -> bool {
    run(site, "t1-guest", &["ping", "-c1", "-W1", "10.1.0.2"])
}

fn supervisor(site: &Site) -> Supervisor {
    let patience = Duration::from_secs(20);
    let supervisor = Supervisor::start(site.command(), &[], &["t1"], site.dir.path(), patience);
    // The supervisor connects and learns of the lease without an event: both poll twice a second.
    // Counters follow after five seconds.
    std::thread::sleep(Duration::from_secs(8));
    supervisor
}

/// Kills the switch, and waits until the guest is reachable again.
fn kill_switch(site: &Site, supervisor: &mut Supervisor, leases: u64) {
    let killed = site.pid("t1");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(killed),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("it is there");
    let down = supervisor.wait_for("down", "t1");
    let counted = down["last_counters"]["t1-guest"]["rx_frames"].as_u64();
    assert!(counted.is_some_and(|frames| frames > 0), "{down}");
    supervisor.wait_for("restarted", "t1");
    let began = Instant::now();
    while !is_reachable(site) {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "the guest is cut off: {}",
            fs::read_to_string(site.state_dir().join("tenants/t1/log")).unwrap_or_default()
        );
    }
    let restored = supervisor.wait_for("leases_restored", "t1");
    assert_eq!(restored["leases"], leases);
    assert_ne!(site.pid("t1"), killed);
}

/// Has a supervisor restart the switch, which has two leases.
fn restart_switch(site: &Site) {
    let mut supervisor = supervisor(site);
    kill_switch(site, &mut supervisor, 2);
    supervisor.stop();
}

#[test]
fn guest_keeps_its_lease_when_its_switch_is_killed() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let site = Site::new("tvr", 88_000, Vec::new());
    let dir = site.dir.path();
    let file = dir.join("t1.toml");
    fs::write(&file, TENANT).expect("a file");
    site.good(&["apply", file.to_str().expect("UTF-8")]);
    let server = serve(&site, dir);
    assert!(!is_reachable(&site), "the guest has no address");
    get_lease(&site, dir);
    assert!(is_reachable(&site));
    // From here on no server assigns an address.
    drop(server);

    let mut first = supervisor(&site);
    kill_switch(&site, &mut first, 1);
    // The successor has the lease from the supervisor.
    first.stop();
    let mut second = supervisor(&site);
    kill_switch(&site, &mut second, 1);
    second.stop();
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}

/// The third port, beside those of [`TENANT`].
const SIBLING_PORT: &str = r#"[[port]]
name = "t1-sibling"
mac = "52:54:00:00:01:03"
addresses = "learn-dhcp"
"#;

const GUEST: u8 = 2;
const SIBLING: u8 = 3;
/// The identifier that the guest's client sends.
const IDENTIFIER: &str = "ff0102030400020000ab1109";

const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const RELEASE: u8 = 7;

/// dnsmasq, which writes each lease to a file.
struct Dnsmasq {
    _server: Guest,
    leases: PathBuf,
}

impl Dnsmasq {
    fn start(site: &Site, dir: &Path, ranges: &[&str]) -> Self {
        let leases = dir.join("dnsmasq.leases");
        let file = format!("--dhcp-leasefile={}", leases.display());
        let arguments = [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--user=root",
            "--port=0",
            "--interface=eth0",
            "--dhcp-authoritative",
            "--no-ping",
            &file,
        ];
        let mut server = command(site, "t1-server", &[&arguments, ranges].concat());
        let server = server.stderr(Stdio::null()).spawn();
        Self {
            _server: Guest(server.expect("dnsmasq starts")),
            leases,
        }
    }

    /// The address and the identifier of each lease.
    fn leases(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(&self.leases).unwrap_or_default();
        let leases = text.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(2);
            let (address, _, identifier) = (words.next()?, words.next()?, words.next()?);
            Some((address.to_owned(), identifier.replace(':', "")))
        });
        leases.collect()
    }

    /// Waits until the leases are as they should be, and looks again after a moment.
    #[track_caller]
    fn settles(&self, what: &str, are_right: impl Fn(&[(String, String)]) -> bool) {
        let began = Instant::now();
        while !are_right(&self.leases()) {
            let waited = began.elapsed();
            assert!(
                waited < Duration::from_secs(10),
                "{what}: {:?}",
                self.leases()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_millis(500));
        assert!(are_right(&self.leases()), "{what}: {:?}", self.leases());
    }
}

fn dnsmasq_of_v4(site: &Site, dir: &Path) -> Dnsmasq {
    let address = ["ip", "address", "add", "10.1.0.2/24", "dev", "eth0"];
    assert!(run(site, "t1-server", &address));
    let range = "--dhcp-range=10.1.0.50,10.1.0.99,255.255.255.0,3600";
    Dnsmasq::start(site, dir, &[range])
}

fn identifier() -> Vec<u8> {
    bytes(IDENTIFIER)
}

/// A guest asks for a lease, with an identifier.
fn get_lease_as(site: &Site, dir: &Path, guest: &str, identifier: &str) {
    let script = dir.join("script");
    fs::write(&script, SCRIPT).expect("a file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    let option = format!("0x3d:{identifier}");
    let arguments = [
        "busybox",
        "udhcpc",
        "-f",
        "-n",
        "-q",
        "-B",
        "-C",
        "-x",
        &option,
        "-i",
        "eth0",
        "-s",
        script.to_str().expect("UTF-8"),
    ];
    assert!(run(site, guest, &arguments), "{guest} was given no lease");
}

#[test]
fn sibling_cannot_end_or_take_a_lease() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    if sh("command -v dnsmasq").is_empty() {
        eprintln!("skipped: dnsmasq is not installed (scripts/setup)");
        return;
    }
    let site = Site::new("tvd", 88_500, Vec::new());
    let dir = site.dir.path();
    let file = dir.join("t1.toml");
    fs::write(&file, format!("{TENANT}{SIBLING_PORT}")).expect("a file");
    site.good(&["apply", file.to_str().expect("UTF-8")]);
    let server = dnsmasq_of_v4(&site, dir);
    get_lease_as(&site, dir, "t1-guest", IDENTIFIER);
    get_lease_as(&site, dir, "t1-sibling", "0005");
    server.settles("two leases", |leases| leases.len() == 2);
    let of = |identifier: &str| {
        let leases = server.leases();
        let mut mine = leases.into_iter().filter(|(_, other)| other == identifier);
        mine.next().expect("a lease").0
    };
    let (victim, own) = (of(IDENTIFIER), of("0005"));
    let octets = |text: &str| {
        text.parse::<std::net::Ipv4Addr>()
            .expect("an address")
            .octets()
    };
    let (theirs, mine) = (octets(&victim), octets(&own));
    assert!(is_reachable(&site));

    // In the guest's name: its identifier, its address, both.
    let server_id = (54, vec![10, 1, 0, 2]);
    let mut frames = Vec::new();
    for source in [[0; 4], mine] {
        for (kind, ciaddr) in [(RELEASE, theirs), (DECLINE, [0; 4]), (REQUEST, theirs)] {
            for named in [identifier(), vec![0, 5]] {
                let options = [
                    (53, vec![kind]),
                    server_id.clone(),
                    (50, theirs.to_vec()),
                    (61, named),
                ];
                let wanted = if kind == RELEASE {
                    &options[..2]
                } else {
                    &options[..3]
                };
                let options = [wanted, &options[3..]].concat();
                frames.push(dhcp(SIBLING, source, ciaddr, &options));
            }
        }
        // To select another address with the guest's identifier makes dnsmasq drop the lease.
        let other = [10, 1, 0, 98];
        let options = [(53, vec![REQUEST]), server_id.clone(), (50, other.to_vec())];
        let options = [&options[..], &[(61, identifier())]].concat();
        frames.push(dhcp(SIBLING, source, [0; 4], &options));
        // Hidden from a reader that takes the first of two, or does not look in other fields.
        let hidden = [
            (53, vec![RELEASE]),
            server_id.clone(),
            (61, vec![0, 5]),
            (61, identifier()),
        ];
        frames.push(dhcp(SIBLING, source, theirs, &hidden));
    }
    send(&site, "t1-sibling", &frames);
    let still =
        |leases: &[(String, String)]| leases.contains(&(victim.clone(), IDENTIFIER.to_owned()));
    server.settles("in the guest's name", |leases| {
        leases.len() == 2 && still(leases)
    });
    assert!(is_reachable(&site));

    // Nor can it when the switch has been restarted, and has not heard the guest's client since.
    restart_switch(&site);
    send(&site, "t1-sibling", &frames);
    server.settles("after a restart", |leases| {
        leases.len() == 2 && still(leases)
    });

    // Many identifiers: dnsmasq would grant them all.
    let frames: Vec<_> = (0..20)
        .map(|number| {
            let options = [
                (53, vec![REQUEST]),
                (50, vec![10, 1, 0, 70 + number]),
                (61, vec![9, number]),
            ];
            dhcp(SIBLING, [0; 4], [0; 4], &options)
        })
        .collect();
    send(&site, "t1-sibling", &frames);
    server.settles("many identifiers", |leases| {
        leases.len() == 5 && still(leases)
    });

    // The control experiment: in its own name, the guest's release does end its lease.
    let release = [(53, vec![RELEASE]), server_id, (61, identifier())];
    send(&site, "t1-guest", &[dhcp(GUEST, theirs, theirs, &release)]);
    server.settles("its own release", |leases| {
        leases.len() == 4 && !still(leases)
    });
    assert!(
        !is_reachable(&site),
        "the switch took the release for nothing"
    );
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}

const TENANT6: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
ipv6 = "fd00:1::1/64"
[uplink]
address = "192.0.2.11/24"
next_hop = "192.0.2.1"
[[port]]
name = "t1-server"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.2", "fd00:1::2"]
dhcp_server = true
[[port]]
name = "t1-guest"
mac = "52:54:00:00:01:02"
addresses = ["10.1.0.50", "fd00:1::50"]
[[port]]
name = "t1-sibling"
mac = "52:54:00:00:01:03"
addresses = ["10.1.0.51", "fd00:1::51"]
"#;

/// What a client of DHCPv6 does with what it was given.
const SCRIPT6: &str = r#"#!/bin/sh
if [ "$reason" = BOUND6 ]; then
    ip address add "$new_ip6_address/64" dev eth0 nodad
fi
"#;

/// The UUIDs by which the clients know themselves.
const GUEST_UUID: &str = "the-guests-uuid.";
const SIBLING_UUID: &str = "siblings-own-one";

/// A DUID of type 4, in hexadecimal digits.
fn duid(uuid: &str) -> String {
    let digits = uuid.bytes().map(|byte| format!("{byte:02x}"));
    format!("0004{}", digits.collect::<String>())
}

fn bytes(digits: &str) -> Vec<u8> {
    let pairs = (0..digits.len()).step_by(2);
    let bytes = pairs.map(|at| u8::from_str_radix(&digits[at..at + 2], 16));
    bytes.map(|byte| byte.expect("hexadecimal")).collect()
}

/// ISC's client in a guest, which runs on.
fn client6(site: &Site, dir: &Path, guest: &str, uuid: &str) -> Guest {
    let netns = format!("{}-{guest}", site.instance);
    let began = Instant::now();
    while !sh(&format!(
        "ip -n {netns} -6 address show dev eth0 scope link -tentative"
    ))
    .contains("fe80::")
    {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "no link-local address"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let script = dir.join("script6");
    fs::write(&script, SCRIPT6).expect("a file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    let leases = dir.join(format!("{guest}.leases"));
    fs::write(&leases, format!("default-duid \"\\000\\004{uuid}\";\n")).expect("a file");
    let path = |path: &Path| path.display().to_string();
    let (script, leases, pid) = (path(&script), path(&leases), path(&dir.join(guest)));
    let arguments = [
        "dhclient",
        "-6",
        "-1",
        "-d",
        "-q",
        "-cf",
        "/dev/null",
        "-lf",
        &leases,
        "-pf",
        &pid,
        "-sf",
        &script,
        "eth0",
    ];
    let mut client = command(site, guest, &arguments);
    Guest(
        client
            .stderr(Stdio::null())
            .spawn()
            .expect("the client starts"),
    )
}

/// A DHCPv6 message to all servers, from the MAC that ends in `mac` and its link-local address.
fn dhcp6(mac: u8, kind: u8, options: &[(u16, Vec<u8>)]) -> String {
    let mut message = vec![kind, 0, 0, 7];
    for (code, value) in options {
        message.extend(code.to_be_bytes());
        message.extend((value.len() as u16).to_be_bytes());
        message.extend(value);
    }
    let source = [
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0, 1, mac,
    ];
    let to = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2];
    let len = (message.len() as u16 + 8).to_be_bytes();
    let mut udp = [&[2, 34, 2, 35], &len[..], &[0, 0], &message].concat();
    let mut covered = [&source[..], &to, &[0, 0], &len, &[0, 0, 0, 17], &udp].concat();
    covered.resize(covered.len().next_multiple_of(2), 0);
    let words = covered
        .chunks(2)
        .map(|it| u32::from(it[0]) << 8 | u32::from(it[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    udp[6..8].copy_from_slice(&(!sum as u16).to_be_bytes());
    let ip = [&[0x60, 0, 0, 0], &len[..], &[17, 64], &source, &to].concat();
    let macs = [0x33, 0x33, 0, 1, 0, 2, 0x52, 0x54, 0, 0, 1, mac, 0x86, 0xdd];
    let frame = [&macs[..], &ip, &udp].concat();
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the forged messages are about.
struct Lease6 {
    server: Vec<u8>,
    association: Vec<u8>,
}

impl Lease6 {
    /// The guest's, from the file of dnsmasq.
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("its leases");
        let server = text.lines().find_map(|line| line.strip_prefix("duid "));
        let of_guest = text.lines().find(|line| line.contains(" fd00:1::50 "));
        let number = of_guest
            .and_then(|line| line.split(' ').nth(1))
            .expect("a lease");
        let number: u32 = number.parse().expect("a number");
        let address = "fd00:1::50"
            .parse::<std::net::Ipv6Addr>()
            .expect("an address");
        let leased = [&[0, 5, 0, 24], &address.octets()[..], &[0; 8]].concat();
        Self {
            server: bytes(&server.expect("its own").replace(':', "")),
            association: [&number.to_be_bytes()[..], &[0; 8], &leased].concat(),
        }
    }

    /// A message about the lease, with a client's DUID.
    fn message(&self, mac: u8, kind: u8, client: &str) -> String {
        let options = [
            (1, bytes(&duid(client))),
            (2, self.server.clone()),
            (3, self.association.clone()),
        ];
        dhcp6(mac, kind, &options)
    }
}

#[test]
fn sibling_cannot_end_or_take_a_lease_of_dhcpv6() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    if sh("command -v dnsmasq && command -v dhclient")
        .lines()
        .count()
        < 2
    {
        eprintln!("skipped: dnsmasq or dhclient is not installed (scripts/setup)");
        return;
    }
    let site = Site::new("tv6", 89_500, Vec::new());
    let dir = site.dir.path();
    let file = dir.join("t1.toml");
    fs::write(&file, TENANT6).expect("a file");
    site.good(&["apply", file.to_str().expect("UTF-8")]);
    let address = [
        "ip",
        "address",
        "add",
        "fd00:1::2/64",
        "dev",
        "eth0",
        "nodad",
    ];
    assert!(run(&site, "t1-server", &address));
    let colons = |uuid: &str| {
        let bytes = bytes(&duid(uuid));
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.join(":")
    };
    let reserved = [(GUEST_UUID, "fd00:1::50"), (SIBLING_UUID, "fd00:1::51")];
    let reserved = reserved.map(|(uuid, ip)| format!("--dhcp-host=id:{},[{ip}]", colons(uuid)));
    let range = "--dhcp-range=fd00:1::50,fd00:1::51,64,3600";
    let server = Dnsmasq::start(&site, dir, &[range, &reserved[0], &reserved[1]]);
    let _guest = client6(&site, dir, "t1-guest", GUEST_UUID);
    let _sibling = client6(&site, dir, "t1-sibling", SIBLING_UUID);
    let guests = ("fd00:1::50".to_owned(), duid(GUEST_UUID));
    let siblings = ("fd00:1::51".to_owned(), duid(SIBLING_UUID));
    server.settles("two leases", |leases| {
        leases.len() == 2 && leases.contains(&guests) && leases.contains(&siblings)
    });
    let reaches = || {
        run(
            &site,
            "t1-guest",
            &["ping", "-6", "-c1", "-W2", "fd00:1::2"],
        )
    };
    assert!(reaches());

    // In the guest's name, and in its own about the guest's address.
    let lease = Lease6::read(&server.leases);
    let (release, decline) = (8, 9);
    let kinds = [1, 3, 5, 6, release, decline];
    let mut frames: Vec<String> = kinds
        .map(|kind| lease.message(SIBLING, kind, GUEST_UUID))
        .into();
    frames.push(lease.message(SIBLING, release, SIBLING_UUID));
    assert_eq!(dropped(&site, "t1-sibling", "dhcp-identity"), 0);
    send(&site, "t1-sibling", &frames);
    server.settles("in the guest's name", |leases| {
        leases.len() == 2 && leases.contains(&guests)
    });
    assert_eq!(dropped(&site, "t1-sibling", "dhcp-identity"), 7);
    assert!(reaches());

    // The control experiment: the same message of the guest itself does end its lease.
    send(
        &site,
        "t1-guest",
        &[lease.message(GUEST, release, GUEST_UUID)],
    );
    server.settles("its own release", |leases| *leases == [siblings.clone()]);
    assert_eq!(dropped(&site, "t1-guest", "dhcp-identity"), 0);
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}
