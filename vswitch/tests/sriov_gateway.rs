//! The tunnel gateway on virtual functions bound to vfio-pci, with Linux's Geneve and VXLAN devices
//! at the other end of the NIC's cable. Only in the emulated machine: `scripts/test sriov`.

#[path = "common/vfs.rs"]
#[expect(
    dead_code,
    reason = "this switch is root's, and needs no node given to it"
)]
mod vfs;

use std::path::PathBuf;
use std::process::{Child, Command};

use serde_json::{Value, json};
use tempfile::TempDir;
use vfs::{Nic, emulated, eventually, ip};

const SWITCH: &str = env!("CARGO_BIN_EXE_vswitch");
const VM_MAC: &str = "52:54:00:aa:00:01";
const GATEWAY_MAC: &str = "02:00:13:89:00:01";
const UPLINK_MAC: &str = "02:00:13:89:00:00";
/// The NIC's VLAN of the VM's function and its gateway's.
const VLAN: u16 = 101;
/// The functions: the VM's, its gateway's, and the uplink's.
const VM: u32 = 0;
const GATEWAY: u32 = 1;
const UPLINK: u32 = 2;

struct Bed {
    switch: Option<Child>,
    nic: Nic,
    directory: TempDir,
}

impl Bed {
    fn new() -> Self {
        let bed = Self {
            switch: None,
            nic: Nic::carve(3),
            directory: TempDir::new().expect("a directory"),
        };
        bed.nic.set(VM, VM_MAC, VLAN);
        bed.nic.set(GATEWAY, GATEWAY_MAC, VLAN);
        bed.nic.set(UPLINK, UPLINK_MAC, 0);
        for function in [GATEWAY, UPLINK] {
            bed.nic.bind(function, "vfio-pci");
        }
        bed.nic.bind(VM, "igbvf");
        namespace("vm1", &bed.nic.interface(VM));
        for address in ["10.0.0.11/24", "fd00:0:0:1::11/64 nodad"] {
            inside("vm1", &format!("addr add {address} dev eth0"));
        }
        namespace("far", "wire0");
        for address in ["192.0.2.66/24", "2001:db8::66/64 nodad"] {
            inside("far", &format!("addr add {address} dev eth0"));
        }
        bed
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn config(&self, kind: &str, port: u16, ours: &str, theirs: &str) -> Value {
        let device = |function, vlan: Option<u16>| {
            let mut device = json!({ "driver": "pci", "address": self.nic.address(function) });
            if let Some(vlan) = vlan {
                device["vlan"] = json!(vlan);
            }
            device
        };
        json!({
            "tenant": "red",
            "vni": 5001,
            "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64" },
            "ports": [{
                "name": "vm1",
                "device": device(GATEWAY, Some(VLAN)),
                "gateway_mac": GATEWAY_MAC,
                "mac": VM_MAC,
                "addresses": ["10.0.0.11/32", "fd00:0:0:1::11/128"],
            }],
            "uplink": {
                "device": device(UPLINK, None),
                "mac": UPLINK_MAC,
                "ipv4": "192.0.2.2/24",
                "ipv6": "2001:db8::2/64",
            },
            "tunnel": {
                "kind": kind,
                "vtep": ours,
                "port": port,
                "mac": "0e:00:13:89:00:02",
                "udp_checksum": true,
                "peers": [{
                    "name": "far",
                    "vtep": theirs,
                    "mac": "52:54:00:bb:00:71",
                    "next_hop": theirs,
                    "prefixes": ["10.0.0.71/32", "fd00:0:0:1::71/128"],
                }],
            },
            "control_socket": self.socket(),
        })
    }

    fn start(&mut self, config: &Value) {
        let file = self.directory.path().join("switch.json");
        std::fs::write(&file, config.to_string()).expect("a file");
        let mut command = Command::new(SWITCH);
        self.switch = Some(
            command
                .args(["run", "--config"])
                .arg(file)
                .spawn()
                .expect("it starts"),
        );
    }

    fn stop(&mut self) {
        if let Some(mut switch) = self.switch.take() {
            let _ = switch.kill();
            let _ = switch.wait();
        }
    }

    fn peer(&self) -> Value {
        let output = Command::new(SWITCH)
            .args(["show", "tunnels", "--json", "--control"])
            .arg(self.socket())
            .output()
            .expect("it runs");
        let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        shown["peers"][0].clone()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop();
        // Moves the cable's interface back.
        let _ = Command::new("ip")
            .args([
                "-n", "far", "link", "set", "eth0", "name", "wire0", "netns", "1",
            ])
            .output();
        for name in ["vm1", "far"] {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// A namespace with that interface as `eth0`.
fn namespace(name: &str, interface: &str) {
    ip(&format!("netns add {name}"));
    ip(&format!("link set {interface} netns {name} name eth0"));
    inside(name, "link set lo up");
    inside(name, "link set eth0 up");
}

#[track_caller]
fn inside(name: &str, arguments: &str) {
    ip(&format!("-n {name} {arguments}"));
}

/// Whether `count` echoes of a packet of `size` bytes come back.
fn echoes(from: &str, to: &str, size: u16, count: u32) -> bool {
    let payload = size - if to.contains(':') { 48 } else { 28 };
    let output = Command::new("ip")
        .args([
            "netns", "exec", from, "ping", "-n", "-q", "-M", "do", "-i0.01", "-w10",
        ])
        .args(["-c", &count.to_string(), "-s", &payload.to_string(), to])
        .output()
        .expect("ping runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.split_whitespace().collect();
    let at = words.iter().position(|word| word.starts_with("received"));
    let received = at.and_then(|at| words[at - 1].parse().ok());
    received >= Some(count)
}

#[test]
fn switch_on_vfs_reaches_linux_by_geneve_and_vxlan() {
    let Some(()) = emulated() else { return };
    let mut bed = Bed::new();
    for (kind, port, options) in [("geneve", 6081, ""), ("vxlan", 4789, "nolearning ")] {
        for (ours, theirs, mtu) in [
            ("192.0.2.2", "192.0.2.66", 1450),
            ("2001:db8::2", "2001:db8::66", 1430),
        ] {
            let what = format!("{kind} over {ours}");
            inside(
                "far",
                &format!(
                    "link add tun0 address 52:54:00:bb:00:71 type {kind} id 5001 {options}remote \
                     {ours} dstport {port}"
                ),
            );
            inside("far", &format!("link set tun0 mtu {mtu} up"));
            for address in ["10.0.0.71/24", "fd00:0:0:1::71/64 nodad"] {
                inside("far", &format!("addr add {address} dev tun0"));
            }
            bed.start(&bed.config(kind, port, ours, theirs));
            for (near, far) in [
                ("10.0.0.11", "10.0.0.71"),
                ("fd00:0:0:1::11", "fd00:0:0:1::71"),
            ] {
                eventually(&format!("{what}: the first echo of {far}"), || {
                    echoes("vm1", far, 100, 1)
                });
                for size in [48, 60, 61, 576, mtu - 1, mtu] {
                    assert!(echoes("vm1", far, size, 5), "{what}: {size} bytes to {far}");
                    assert!(
                        echoes("far", near, size, 5),
                        "{what}: {size} bytes to {near}"
                    );
                }
            }
            let peer = bed.peer();
            assert_eq!(
                (&peer["state"], &peer["mtu"]),
                (&json!("reachable"), &json!(mtu)),
                "{what}"
            );
            for counter in ["tx_frames", "rx_frames"] {
                assert!(peer[counter].as_u64() >= Some(120), "{what}: {peer}");
            }
            println!("{what}: {peer}");
            bed.stop();
            inside("far", "link del tun0");
        }
    }
}
