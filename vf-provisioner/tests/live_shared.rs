//! A pair of guests with keepalived, as it is: one address of each family is at one of them at a
//! time, and moves when that one's link fails, when keepalived is told to stop, and when the better
//! one is back. A flow to the address loses no more than what VRRP takes to notice.
//!
//! The real switch and keepalived, on this host's kernel, as root. Without root the test prints
//! that and passes.

#[path = "common/guest.rs"]
mod guest;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use guest::{Guest, command, dropped, run, send, shown};
use site::{Site, sh};
use supervisor::Supervisor;

const TENANT: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
ipv6 = "fd00:0:0:1::1/64"
[multicast]
groups = ["224.0.0.18", "ff02::12"]
[uplink]
address = "192.0.2.11/24"
next_hop = "192.0.2.1"
address6 = "2001:db8::11/64"
next_hop6 = "2001:db8::1"
[[port]]
name = "t1-lb1"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.11", "fd00:0:0:1::11"]
shared = ["10.1.0.100", "fd00:0:0:1::100"]
extra_macs = ["00:00:5e:00:01:33", "00:00:5e:00:02:33"]
[[port]]
name = "t1-lb2"
mac = "52:54:00:00:01:02"
addresses = ["10.1.0.12", "fd00:0:0:1::12"]
shared = ["10.1.0.100", "fd00:0:0:1::100"]
extra_macs = ["00:00:5e:00:01:33", "00:00:5e:00:02:33"]
[[port]]
name = "t1-client"
mac = "52:54:00:00:01:03"
addresses = ["10.1.0.13", "fd00:0:0:1::13"]
"#;

const SHARED: [&str; 2] = ["10.1.0.100", "fd00:0:0:1::100"];
/// How often a keepalived says that it is there.
const ADVERT: Duration = Duration::from_secs(1);

/// How a pair is configured.
#[derive(Debug)]
struct Way {
    /// VRRP's version for IPv4; for IPv6 there is only the third.
    version: u8,
    /// Whether it speaks to the other node's address, not to the group of all routers.
    unicast: bool,
    /// Whether it holds the addresses by VRRP's virtual MACs.
    use_vmac: bool,
}

/// The first is keepalived's default.
const WAYS: [Way; 3] = [
    Way {
        version: 2,
        unicast: false,
        use_vmac: false,
    },
    Way {
        version: 3,
        unicast: true,
        use_vmac: true,
    },
    Way {
        version: 3,
        unicast: false,
        use_vmac: true,
    },
];

/// One of the pair, of two.
struct Node {
    guest: &'static str,
    number: u8,
}

const PAIR: [Node; 2] = [
    Node {
        guest: "t1-lb1",
        number: 1,
    },
    Node {
        guest: "t1-lb2",
        number: 2,
    },
];

impl Node {
    /// How long it takes to notice that the other is gone (RFC 5798, 6.1): three intervals, and the
    /// longer the lower its priority is.
    fn notices_after(&self) -> Duration {
        3 * ADVERT + ADVERT * (256 - u32::from(self.priority())) / 256
    }

    fn priority(&self) -> u8 {
        160 - 10 * self.number
    }

    /// Starts keepalived.
    fn start(&self, site: &Site, way: &Way) -> Keepalived {
        let (own, other) = (10 + self.number, 13 - self.number);
        let vmac = match way {
            Way {
                use_vmac: false, ..
            } => "",
            Way { unicast: false, .. } => "use_vmac",
            // It speaks to one station from the address of the interface below.
            Way { unicast: true, .. } => "use_vmac\n  vmac_xmit_base",
        };
        let to = |prefix: &str| match way.unicast {
            true => format!(
                "unicast_src_ip {prefix}{own}\n  unicast_peer {{\n    {prefix}{other}\n  }}"
            ),
            false => String::new(),
        };
        let instance = |name: &str, version: u8, prefix: &str, address: &str, length: u8| {
            format!(
                "vrrp_instance {name} {{\n  state BACKUP\n  interface eth0\n  version {version}\n  \
                 virtual_router_id 51\n  {vmac}\n  priority {}\n  advert_int 1\n  {}\n  \
                 virtual_ipaddress {{\n    {address}/{length}\n  }}\n}}\n",
                self.priority(),
                to(prefix)
            )
        };
        let config = [
            "global_defs {\n  script_user root\n}\n".to_owned(),
            instance("V4", way.version, "10.1.0.", SHARED[0], 24),
            instance("V6", 3, "fd00:0:0:1::", SHARED[1], 64),
        ]
        .concat();
        let file = |kind: &str| site.dir.path().join(format!("{}.{kind}", self.guest));
        fs::write(file("conf"), config).expect("a file");
        let path = |kind: &str| file(kind).to_str().expect("UTF-8").to_owned();
        let (conf, pid, vrrp) = (path("conf"), path("pid"), path("vrrp"));
        let arguments = [
            "keepalived",
            "--dont-fork",
            "--vrrp",
            "--log-console",
            "--dump-conf",
            "--log-detail",
            "--use-file",
            &conf,
            "--pid",
            &pid,
            "--vrrp_pid",
            &vrrp,
        ];
        let log = File::create(file("log")).expect("a file");
        let errors = log.try_clone().expect("a descriptor");
        let mut program = command(site, self.guest, &arguments);
        let program = program.stdin(Stdio::null()).stdout(log).stderr(errors);
        Keepalived {
            program: Guest(program.spawn().expect("keepalived starts")),
            log: file("log"),
        }
    }

    fn has(&self, site: &Site) -> [bool; 2] {
        let namespace = format!("{}-{}", site.instance, self.guest);
        let addresses = sh(&format!("ip -n {namespace} -o address show"));
        SHARED.map(|shared| addresses.contains(&format!(" {shared}/")))
    }
}

struct Keepalived {
    program: Guest,
    log: PathBuf,
}

impl Keepalived {
    /// Tells it to stop: it says good-bye.
    fn stop(mut self) {
        let pid = Pid::from_raw(self.program.0.id() as i32);
        kill(pid, Signal::SIGTERM).expect("it is there");
        self.program.0.wait().expect("it ends");
    }
}

/// Waits until the node alone has both addresses.
#[track_caller]
fn is_master(site: &Site, node: &Node, logs: &[&Keepalived]) {
    let began = Instant::now();
    let right = || {
        PAIR.iter()
            .all(|it| it.has(site) == [it.number == node.number; 2])
    };
    while !right() {
        let logs = || {
            logs.iter()
                .map(|it| fs::read_to_string(&it.log).unwrap_or_default())
        };
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{} is not the only master: {:?}\n{}",
            node.guest,
            PAIR.map(|it| it.has(site)),
            logs().collect::<Vec<_>>().join("\n")
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Pings to both addresses from the client, every 20 ms or a little more, and when they began.
struct Flow(Instant, [(Guest, PathBuf); 2]);

impl Flow {
    fn start(site: &Site) -> Self {
        let began = Instant::now();
        let pings = SHARED.map(|address| {
            let log = site.dir.path().join(format!("ping-{address}"));
            let mut ping = command(site, "t1-client", &["ping", "-n", "-i0.02", address]);
            let ping = ping
                .stdin(Stdio::null())
                .stdout(File::create(&log).expect("a file"));
            (Guest(ping.spawn().expect("ping starts")), log)
        });
        Self(began, pings)
    }

    /// The longest time between two answers, for each address: by their numbers, since the
    /// machine's clock may be set meanwhile.
    fn longest_gaps(self) -> [Duration; 2] {
        let Self(began, pings) = self;
        pings.map(|(ping, log)| {
            drop(ping);
            let took = began.elapsed();
            let text = fs::read_to_string(log).expect("the log");
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let answers = whole.lines().filter(|line| line.contains(" bytes from "));
            let number = |line: &str| {
                let (_, rest) = line.split_once(" icmp_seq=")?;
                rest.split(' ').next()?.parse().ok()
            };
            let numbers: Vec<u32> = answers.filter_map(number).collect();
            assert!(numbers.len() > 20, "hardly an answer: {text}");
            let gaps = numbers
                .windows(2)
                .map(|pair| pair[1].saturating_sub(pair[0]));
            let last = numbers.last().copied().unwrap_or(1);
            took / last * gaps.max().unwrap_or_default()
        })
    }
}

fn add_address(site: &Site, guest: &str, address: &str) {
    let mut add = vec!["ip", "address", "add", address, "dev", "eth0"];
    if address.contains(':') {
        add.push("nodad");
    }
    assert!(run(site, guest, &add));
}

fn site(instance: &'static str, uid_base: u32) -> Site {
    let site = Site::new(instance, uid_base, Vec::new());
    let file = site.dir.path().join("t1.toml");
    fs::write(&file, TENANT).expect("a file");
    site.good(&["apply", file.to_str().expect("UTF-8")]);
    for (guest, number) in [("t1-lb1", 11), ("t1-lb2", 12), ("t1-client", 13)] {
        for address in [
            format!("10.1.0.{number}/24"),
            format!("fd00:0:0:1::{number}/64"),
        ] {
            add_address(&site, guest, &address);
        }
    }
    site
}

/// The ports that hold the addresses, as the switch shows them, and by which MACs.
fn holders(site: &Site) -> [Option<(String, String)>; 2] {
    let neighbours = shown(site, "neighbours");
    let neighbours = neighbours.as_array().expect("a list");
    let word = |value: &Value| value.as_str().expect("a word").to_owned();
    SHARED.map(|address| {
        let mut held = neighbours
            .iter()
            .filter(|it| it["address"] == address && it["state"] == "held");
        let holder = held.next().map(|it| (word(&it["port"]), word(&it["mac"])));
        assert!(held.next().is_none(), "{neighbours:?}");
        holder
    })
}

/// Cuts the first node off, lets it come back, and has it say good-bye.
fn pair_fails_over(site: &Site, way: &Way) {
    let [first, second] = &PAIR;
    let namespace = format!("{}-{}", site.instance, first.guest);
    let (one, two) = (first.start(site, way), second.start(site, way));
    let logs = [&one, &two];
    is_master(site, first, &logs);
    let within = |flow: Flow, limit: Duration, what: &str| {
        for (gap, address) in flow.longest_gaps().into_iter().zip(SHARED) {
            assert!(gap < limit, "{way:?}, {what}: {gap:?} without {address}");
            println!("{way:?}, {what}: {gap:?} without {address}");
        }
    };
    let held_by = |node: &Node| {
        let macs = match way.use_vmac {
            true => ["00:00:5e:00:01:33", "00:00:5e:00:02:33"].map(str::to_owned),
            false => [(); 2].map(|()| format!("52:54:00:00:01:0{}", node.number)),
        };
        macs.map(|mac| Some((node.guest.to_owned(), mac)))
    };
    // Beyond what VRRP takes.
    let most = Duration::from_secs(1);

    let flow = Flow::start(site);
    std::thread::sleep(Duration::from_secs(1));
    sh(&format!("ip -n {namespace} link set eth0 down"));
    is_master(site, second, &logs);
    std::thread::sleep(Duration::from_secs(1));
    within(flow, second.notices_after() + most, "cut off");
    assert_eq!(holders(site), held_by(second));

    let flow = Flow::start(site);
    sh(&format!("ip -n {namespace} link set eth0 up"));
    // With its link a guest has lost its IPv6 addresses.
    add_address(site, first.guest, "fd00:0:0:1::11/64");
    is_master(site, first, &logs);
    std::thread::sleep(Duration::from_secs(1));
    within(flow, most, "back");
    assert_eq!(holders(site), held_by(first));

    let flow = Flow::start(site);
    std::thread::sleep(Duration::from_secs(1));
    one.stop();
    is_master(site, second, &[&two]);
    std::thread::sleep(Duration::from_secs(1));
    // The other waits for its skew alone.
    within(flow, second.notices_after() - 3 * ADVERT + most, "good-bye");
    assert_eq!(holders(site), held_by(second));
    two.stop();
}

#[test]
fn keepalived_pair_fails_over() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let site = site("tka", 89_000);
    WAYS.iter().for_each(|way| pair_fails_over(&site, way));
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}

/// A restarted switch knows who holds an address, from its supervisor, and without one it asks.
#[test]
fn holder_is_known_after_restart() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let site = site("tkb", 89_100);
    let second = Some(("t1-lb2".to_owned(), "52:54:00:00:01:02".to_owned()));
    for (address, length) in [(SHARED[0], 24), (SHARED[1], 64)] {
        add_address(&site, "t1-lb2", &format!("{address}/{length}"));
    }
    // Nobody has announced it: the switch asks.
    let reaches = || SHARED.map(|it| run(&site, "t1-client", &["ping", "-c1", "-W1", it]));
    let until = |what: &str| {
        let began = Instant::now();
        while reaches() != [true; 2] {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "{what}: {:?}",
                holders(&site)
            );
        }
        assert_eq!(holders(&site), [second.clone(), second.clone()], "{what}");
    };
    until("asked for");

    // Who may not have it cannot announce it.
    let announcement = "ffffffffffff5254000001030806\
                        00010800060400015254000001030a0100640000000000000a010064";
    let before = dropped(&site, "t1-client", "arp-sender-ip");
    send(&site, "t1-client", &[announcement.to_owned()]);
    until("a forged announcement");
    assert_eq!(dropped(&site, "t1-client", "arp-sender-ip"), before + 1);

    // Who has it answers no question any more, so only the supervisor can tell.
    let silence = "echo 8 > /proc/sys/net/ipv4/conf/eth0/arp_ignore";
    assert!(run(&site, "t1-lb2", &["sh", "-c", silence]));
    let patience = Duration::from_secs(20);
    let supervisor = Supervisor::start(site.command(), &[], &["t1"], site.dir.path(), patience);
    let mut supervisor = supervisor;
    std::thread::sleep(Duration::from_secs(2));
    let killed = Pid::from_raw(site.pid("t1"));
    kill(killed, Signal::SIGKILL).expect("it is there");
    supervisor.wait_for("restarted", "t1");
    let began = Instant::now();
    while holders(&site)[0] != second {
        let log = site.state_dir().join("tenants/t1/log");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "not restored: {}",
            fs::read_to_string(log).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    until("restored");
    supervisor.stop();
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}
