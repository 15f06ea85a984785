//! `vswitch run` on virtual functions bound to vfio-pci, as an unprivileged user. The tenant's VMs
//! are network namespaces, each with a virtual function bound to igbvf; the Internet is one with
//! the NIC's cable. Only in the emulated machine: `scripts/test sriov`, or `scripts/vm --
//! target/debug/deps/sriov_pci-…`.

#[path = "common/descriptors.rs"]
mod descriptors;
#[path = "common/vfs.rs"]
mod vfs;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use descriptors::{descriptors, of_a_switch, on_functions};
use serde_json::{Value, json};
use tempfile::TempDir;
use vfs::{Nic, emulated, eventually, ip};

const SWITCH: &str = env!("CARGO_BIN_EXE_vswitch");
const USER: u32 = 4321;
/// The default of `memory.mib`, in KiB.
const PACKET_MEMORY_KIB: u64 = 32 << 10;

/// For each VM: its function and its gateway's, with the MAC and VLAN that NIC and switch enforce.
struct Vm {
    name: &'static str,
    function: u32,
    gateway: u32,
    mac: &'static str,
    gateway_mac: &'static str,
    vlan: u16,
    address: &'static str,
}

const VMS: [Vm; 2] = [
    Vm {
        name: "vm1",
        function: 0,
        gateway: 1,
        mac: "52:54:00:aa:00:01",
        gateway_mac: "02:00:13:89:00:01",
        vlan: 101,
        address: "10.0.0.11",
    },
    Vm {
        name: "vm2",
        function: 2,
        gateway: 3,
        mac: "52:54:00:aa:00:02",
        gateway_mac: "02:00:13:89:00:02",
        vlan: 102,
        address: "10.0.0.12",
    },
];
const UPLINK: u32 = 4;
const UPLINK_MAC: &str = "02:00:13:89:00:00";

struct Bed {
    switch: Option<Child>,
    nic: Nic,
    directory: TempDir,
}

impl Bed {
    fn new() -> Self {
        let bed = Self {
            switch: None,
            nic: Nic::carve(5),
            directory: TempDir::new().expect("a directory"),
        };
        for vm in &VMS {
            bed.nic.set(vm.function, vm.mac, vm.vlan);
            bed.nic.set(vm.gateway, vm.gateway_mac, vm.vlan);
        }
        bed.nic.set(UPLINK, UPLINK_MAC, 0);
        for function in [1, 3, UPLINK] {
            bed.nic.bind(function, "vfio-pci");
            bed.give(function, USER);
        }
        std::os::unix::fs::chown(bed.directory.path(), Some(USER), Some(USER)).expect("root may");
        bed
    }

    /// All neighbour entries are static and IPv6 is off, so that no station sends frames by itself.
    fn guests(&self) {
        for vm in &VMS {
            self.nic.bind(vm.function, "igbvf");
            let interface = self.nic.interface(vm.function);
            quiet_namespace(vm.name, &interface);
            inside(vm.name, &format!("addr add {}/24 dev eth0", vm.address));
            let all = VMS.iter().map(|vm| vm.address).chain(["10.0.0.1"]);
            for address in all.filter(|address| *address != vm.address) {
                let gateway = vm.gateway_mac;
                inside(
                    vm.name,
                    &format!("neigh add {address} lladdr {gateway} dev eth0"),
                );
            }
            inside(vm.name, "route add default via 10.0.0.1");
        }
        quiet_namespace("net", "wire0");
        inside("net", "addr add 192.0.2.1/24 dev eth0");
        inside("net", "addr add 203.0.113.1/32 dev lo");
        inside(
            "net",
            &format!("neigh add 192.0.2.2 lladdr {UPLINK_MAC} dev eth0"),
        );
        inside("net", "route add 10.0.0.0/24 via 192.0.2.2");
    }

    fn give(&self, function: u32, user: u32) {
        std::os::unix::fs::chown(self.nic.node(function), Some(user), None).expect("root may");
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn config(&self) -> Value {
        let pci = |function, vlan: Option<u16>| {
            let mut device = json!({ "driver": "pci", "address": self.nic.address(function) });
            if let Some(vlan) = vlan {
                device["vlan"] = json!(vlan);
            }
            device
        };
        let port = |vm: &Vm| {
            json!({
                "name": vm.name,
                "device": pci(vm.gateway, Some(vm.vlan)),
                "gateway_mac": vm.gateway_mac,
                "mac": vm.mac,
                "addresses": [format!("{}/32", vm.address)],
            })
        };
        json!({
            "tenant": "red",
            "vni": 5001,
            "gateway": { "ipv4": "10.0.0.1/24" },
            "ports": VMS.iter().map(port).collect::<Vec<_>>(),
            "uplink": {
                "device": pci(UPLINK, None),
                "mac": UPLINK_MAC,
                "ipv4": "192.0.2.2/24",
                "next_hops": { "ipv4": "192.0.2.1" },
            },
            "control_socket": self.socket(),
        })
    }

    /// The switch as a user without capabilities, who may lock so much memory.
    fn command(&self, config: &Value, locked_kib: u64) -> Command {
        let file = self.directory.path().join("switch.json");
        fs::write(&file, config.to_string()).expect("a file");
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--memlock={}", locked_kib << 10))
            .args(["setpriv", "--reuid", &USER.to_string()])
            .args(["--regid", &USER.to_string(), "--clear-groups"])
            .args(["--bounding-set=-all", "--inh-caps=-all"])
            .args([SWITCH, "run", "--config"])
            .arg(file);
        command
    }

    /// Starts the switch and waits until frames pass.
    fn start(&mut self) {
        let mut command = self.command(&self.config(), PACKET_MEMORY_KIB);
        self.switch = Some(command.spawn().expect("it starts"));
        for (from, to) in [("vm1", "10.0.0.12"), ("vm2", "203.0.113.1")] {
            eventually("the first echo", || {
                ping(from, &["-c1", "-W1", to]) == (1, 1)
            });
        }
    }

    /// The error message of a switch that does not start.
    fn refusal(&self, config: &Value, locked_kib: u64) -> String {
        let output = self
            .command(config, locked_kib)
            .output()
            .expect("it starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        let noise = error.lines().filter(|line| !line.starts_with("vswitch: "));
        assert_eq!(
            noise.collect::<Vec<_>>(),
            Vec::<&str>::new(),
            "only a sentence"
        );
        error
    }

    fn kill(&mut self) {
        if let Some(mut switch) = self.switch.take() {
            let _ = switch.kill();
            let _ = switch.wait();
        }
    }

    fn status(&self, field: &str) -> String {
        let pid = self.switch.as_ref().expect("it runs").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let mut lines = status.lines();
        let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.expect("the field is there").trim().to_owned()
    }

    fn show(&self, what: &str) -> Value {
        let output = Command::new(SWITCH)
            .args(["show", what, "--json", "--control"])
            .arg(self.socket())
            .output()
            .expect("it runs");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Every counter of every port that is not zero, as `port counter`.
    fn counters(&self) -> BTreeMap<String, u64> {
        let ports = self.show("ports");
        let mut counters = BTreeMap::new();
        for port in ports["ports"].as_array().expect("ports") {
            let name = port["name"].as_str().expect("a name");
            for counter in [
                "rx_missed",
                "rx_frames",
                "forwarded",
                "replies",
                "icmp_errors",
                "tx_frames",
            ] {
                let frames = port[counter].as_u64().expect("a number");
                counters.insert(format!("{name} {counter}"), frames);
            }
        }
        for drop in self.show("drops").as_array().expect("drops") {
            let (port, reason) = (drop["port"].as_str(), drop["reason"].as_str());
            let key = format!("{} {}", port.expect("a name"), reason.expect("a name"));
            counters.insert(key, drop["frames"].as_u64().expect("a number"));
        }
        counters
    }

    /// What `work` has added to the counters.
    fn counted(&self, work: impl FnOnce()) -> Vec<String> {
        let before = self.counters();
        work();
        std::thread::sleep(Duration::from_millis(300));
        let more = |(key, frames): (String, u64)| {
            let more = frames - before.get(&key).unwrap_or(&0);
            (more > 0).then(|| format!("{key} {more}"))
        };
        self.counters().into_iter().filter_map(more).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.kill();
        // Moves the cable's interface back.
        let _ = Command::new("ip")
            .args([
                "-n", "net", "link", "set", "eth0", "name", "wire0", "netns", "1",
            ])
            .output();
        for name in ["vm1", "vm2", "net"] {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// A namespace with that interface as `eth0`.
fn quiet_namespace(name: &str, interface: &str) {
    ip(&format!("netns add {name}"));
    for which in ["default", "all"] {
        let quiet = format!("net.ipv6.conf.{which}.disable_ipv6=1");
        let status = Command::new("ip")
            .args(["netns", "exec", name, "sysctl", "-qw", &quiet])
            .status();
        assert!(status.expect("sysctl runs").success());
    }
    ip(&format!("link set {interface} netns {name} name eth0"));
    inside(name, "link set lo up");
    inside(name, "link set eth0 up");
}

#[track_caller]
fn inside(name: &str, arguments: &str) {
    ip(&format!("-n {name} {arguments}"));
}

/// Echo requests sent, and answers.
fn ping(from: &str, arguments: &[&str]) -> (u64, u64) {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", from, "ping", "-n", "-q"])
        .args(arguments);
    let output = command.output().expect("ping runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.split_whitespace().collect();
    // "5 packets transmitted, 5 received, 0% packet loss"
    let before = |word: &str| {
        let at = words.iter().position(|it| it.starts_with(word))?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    };
    (
        before("packets").unwrap_or(0),
        before("received").unwrap_or(0),
    )
}

/// Sends frames, given in hexadecimal.
fn send(from: &str, frames: &[String]) {
    const PROGRAM: &str = "import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0))
for frame in sys.argv[1:]: s.send(bytes.fromhex(frame))";
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", from, "python3", "-c", PROGRAM])
        .args(frames);
    assert!(command.status().expect("python3 runs").success());
}

/// An empty Ethernet frame with that tag, in hexadecimal.
fn tagged(to: &str, from: &str, tag: u16) -> String {
    let (to, from) = (to.replace(':', ""), from.replace(':', ""));
    format!("{to}{from}8100{tag:04x}0806{}", "00".repeat(46))
}

#[test]
fn frames_pass_between_vms_gateway_and_wire_without_loss() {
    let Some(()) = emulated() else { return };
    let mut bed = Bed::new();
    bed.guests();
    bed.start();

    // The NIC's VLAN tag does not count as the VM's. An echo without data is a frame of 42 bytes.
    let counted = bed.counted(|| {
        for to in ["10.0.0.1", "10.0.0.12", "203.0.113.1"] {
            assert_eq!(
                ping("vm1", &["-c5", "-i0.01", "-W2", to]),
                (5, 5),
                "to {to}"
            );
            assert_eq!(
                ping("vm1", &["-c5", "-i0.01", "-W2", "-s0", to]),
                (5, 5),
                "to {to}"
            );
        }
    });
    assert_eq!(
        counted,
        [
            "uplink forwarded 10",
            "uplink rx_frames 10",
            "uplink tx_frames 10",
            "vm1 forwarded 20",
            "vm1 replies 10",
            "vm1 rx_frames 30",
            "vm1 tx_frames 30",
            "vm2 forwarded 10",
            "vm2 rx_frames 10",
            "vm2 tx_frames 10",
        ]
    );

    // A tag that the VM adds is inside the NIC's, even if it has the same VID; this NIC loses some
    // of them.
    let [vm1, _] = &VMS;
    let counted = bed.counted(|| {
        let tags = [0, 0x6000, vm1.vlan, 0x6000 | vm1.vlan];
        send(
            "vm1",
            &tags.map(|tag| tagged(vm1.gateway_mac, vm1.mac, tag)),
        );
    });
    assert_eq!(counted, ["vm1 rx_frames 4", "vm1 vlan-tag 4"]);
    // From the wire, frames of another VLAN do not reach the uplink's function; one with a priority
    // tag counts as untagged: what is behind the tag, no ARP, is looked at.
    let counted = bed.counted(|| {
        let tags = [5, 0x6000];
        send(
            "net",
            &tags.map(|tag| tagged(UPLINK_MAC, "52:54:00:ff:00:00", tag)),
        );
    });
    assert_eq!(counted, ["uplink arp-malformed 1", "uplink rx_frames 1"]);

    // A flow loses no frame.
    let counted = bed.counted(|| {
        let flow = ["-c600", "-i0.002", "-W2", "10.0.0.12"];
        assert_eq!(ping("vm1", &flow), (600, 600));
    });
    assert_eq!(
        counted,
        ["vm1", "vm2"]
            .map(|vm| ["forwarded", "rx_frames", "tx_frames"].map(|it| format!("{vm} {it} 600")))
            .concat()
    );
    // DPDK's driver for igbvf cannot wake the switch: when idle, it polls every millisecond.
    std::thread::sleep(Duration::from_millis(1500));
    let rounds = || {
        bed.show("ports")["worker"]["rounds"]
            .as_u64()
            .expect("a number")
    };
    let (before, begun) = (rounds(), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    let rounds = rounds() - before;
    let at_most = begun.elapsed().as_millis() as u64;
    assert!(
        (10..=at_most).contains(&rounds),
        "{rounds} rounds in {at_most} ms"
    );
}

#[test]
fn unprivileged_switch_restarts_after_kill() {
    let Some(()) = emulated() else { return };
    let mut bed = Bed::new();
    bed.guests();
    for _ in 0..2 {
        bed.start();
        let none = "0000000000000000";
        let fields = [
            "Uid",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "Seccomp",
            "VmLck",
        ];
        assert_eq!(
            fields.map(|field| bed.status(field)),
            [
                "4321\t4321\t4321\t4321",
                none,
                none,
                none,
                none,
                "1",
                "2",
                &format!("{PACKET_MEMORY_KIB} kB")
            ]
        );
        let wanted = of_a_switch(&on_functions(VMS.len() + 1));
        let pid = bed.switch.as_ref().expect("it runs").id();
        assert_eq!(descriptors(pid, 3), wanted);
        // vfio resets the functions for the next switch.
        bed.kill();
    }
}

#[test]
fn unusable_vf_is_refused_with_its_problem() {
    let Some(()) = emulated() else { return };
    let bed = Bed::new();
    let config = bed.config();
    let [vm1, _] = &VMS;
    let gateway = bed.nic.address(vm1.gateway);
    let on = |address: &str| {
        let mut config = config.clone();
        config["ports"][0]["device"]["address"] = json!(address);
        config
    };
    let expect = |config: &Value, locked_kib, words: &str| {
        let error = bed.refusal(config, locked_kib);
        assert!(error.contains(words), "{error:?} should say {words:?}");
    };
    let enough = PACKET_MEMORY_KIB;
    expect(
        &on("0000:07:00.0"),
        enough,
        "port vm1: PCI function 0000:07:00.0 is not there",
    );
    let of_vm = bed.nic.address(vm1.function);
    expect(
        &on(&of_vm),
        enough,
        "is bound to no driver, not to vfio-pci: write vfio-pci to",
    );
    bed.nic.bind(vm1.function, "igbvf");
    expect(
        &on(&of_vm),
        enough,
        "is bound to igbvf, not to vfio-pci: write vfio-pci to",
    );

    let node = bed.nic.node(vm1.gateway);
    bed.give(vm1.gateway, 0);
    let words = format!(
        "{gateway} needs {}, which this process may not open",
        node.display()
    );
    expect(&config, enough, &words);
    bed.give(vm1.gateway, USER);
    let other = File::options()
        .read(true)
        .write(true)
        .open(&node)
        .expect("root may");
    expect(
        &config,
        enough,
        &format!("is in use: another program has {} open", node.display()),
    );
    drop(other);
    expect(
        &config,
        enough - 1,
        "this process may lock only 32767 KiB. Raise the limit",
    );

    // The NIC delivers to another MAC than the gateway's.
    bed.nic.set(vm1.gateway, "02:00:13:89:00:77", vm1.vlan);
    expect(
        &config,
        enough,
        &format!(
            "port vm1: {gateway} has the MAC 02:00:13:89:00:77, but the configuration says \
             02:00:13:89:00:01"
        ),
    );
    // Once corrected, the next start succeeds: the function needs no rebinding.
    bed.nic.set(vm1.gateway, vm1.gateway_mac, vm1.vlan);
    let mut switch = bed
        .command(&config, enough)
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    eventually("the switch answers", || {
        switch.try_wait().expect("it is ours").is_none() && bed.socket().exists() && {
            let mut show = Command::new(SWITCH);
            show.args(["show", "ports", "--control"]).arg(bed.socket());
            show.stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        }
    });
    switch.kill().expect("it runs");
    switch.wait().expect("it ends");
}

#[test]
fn no_iommu_is_refused() {
    let Some(()) = emulated() else { return };
    if fs::read_dir("/sys/kernel/iommu_groups").is_ok_and(|mut groups| groups.next().is_some()) {
        eprintln!("skipped: needs the emulated machine without an IOMMU (scripts/vm --no-iommu)");
        return;
    }
    let bed = Bed {
        switch: None,
        nic: Nic::carve(5),
        directory: TempDir::new().expect("a directory"),
    };
    std::os::unix::fs::chown(bed.directory.path(), Some(USER), Some(USER)).expect("root may");
    let error = bed.refusal(&bed.config(), PACKET_MEMORY_KIB);
    assert!(
        error.contains("has no IOMMU group, so nothing would hold it to this switch's memory"),
        "{error}"
    );
}
