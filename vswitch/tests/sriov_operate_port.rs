//! A port on a virtual function whose physical function is reset: dead until it is reset as well,
//! which works inside the sandbox. Only in the emulated machine: `scripts/test operate`.

#[path = "common/vfs.rs"]
#[expect(dead_code, reason = "its function is root's, and has no interface")]
mod vfs;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use dpdk::{Burst, Eal, EalOptions, Mempool, Port, PortOptions};
use serde_json::json;
use tenant_config::{Device, Memory, SwitchConfig};
use vfs::{Nic, emulated, eventually, ip};
use vswitch::sandbox::{Needs, filter_all_threads};

const MAC: &str = "02:00:13:89:00:01";
/// Tells the process of the port which function it has.
const ADDRESS: &str = "SRIOV_OPERATE_PORT_ADDRESS";
const FRAMES: usize = 3;

/// The process of the port: it is confined as a switch is, and obeys line by line.
struct Confined {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Confined {
    fn start(address: &str) -> Self {
        let program = std::env::current_exe().expect("this test");
        let mut child = Command::new(program)
            .args(["--exact", "confined_port", "--nocapture"])
            .env(ADDRESS, address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let orders = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut it = Self {
            child,
            orders,
            answers,
        };
        assert_eq!(it.answer(), "open");
        it
    }

    #[track_caller]
    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = self.answers.read_line(&mut line).expect("a pipe");
            assert_ne!(read, 0, "it has ended: {:?}", self.child.wait());
            // The test harness writes to the same pipe.
            if let Some((_, answer)) = line.trim_end().split_once("@@") {
                return answer.to_owned();
            }
        }
    }

    #[track_caller]
    fn obey(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").expect("a pipe");
        self.answer()
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends frames from the physical function to the virtual one.
fn send() {
    let to = MAC.replace(':', "");
    let script = format!(
        "import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('pf0', 0))
for _ in range({FRAMES}):
    s.send(bytes.fromhex('{to}' + '02000000000188b5') + bytes(46))"
    );
    let status = Command::new("python3").args(["-c", &script]).status();
    assert!(status.expect("python3 starts").success());
}

#[test]
fn reset_port_receives_again_inside_the_sandbox() {
    let Some(()) = emulated() else { return };
    let nic = Nic::carve(1);
    nic.set(0, MAC, 0);
    nic.bind(0, "vfio-pci");
    let mut port = Confined::start(&nic.address(0));
    let all = FRAMES.to_string();
    let heard = |port: &mut Confined| {
        send();
        port.obey("count")
    };
    assert_eq!(heard(&mut port), all);
    for _ in 0..2 {
        ip("link set pf0 down");
        ip("link set pf0 up");
        eventually("pf0 has a link", || {
            std::fs::read_to_string("/sys/class/net/pf0/carrier").is_ok_and(|up| up == "1\n")
        });
        assert_eq!(heard(&mut port), "0", "it is dead");
        assert_eq!(port.obey("link"), "up", "and does not look so");
        println!("its driver demands a reset: {}", port.obey("demanded"));
        assert_eq!(port.obey("reset"), "ok");
        assert_eq!(heard(&mut port), all);
    }
    drop(port);
    drop(nic);
}

/// Not a test of its own: what [`Confined`] runs.
#[test]
fn confined_port() {
    let Ok(address) = std::env::var(ADDRESS) else {
        return;
    };
    let address = address.parse().expect("an address");
    let device = Device::Pci {
        address,
        vlan: None,
    };
    let config: SwitchConfig = serde_json::from_value(json!({
        "tenant": "red",
        "vni": 5001,
        "gateway": { "ipv4": "10.0.0.1/24" },
        "ports": [{
            "name": "vm1",
            "device": { "driver": "pci", "address": address.to_string() },
            "gateway_mac": MAC,
            "mac": "52:54:00:aa:00:01",
            "addresses": ["10.0.0.11/32"],
        }],
    }))
    .expect("a configuration");
    let eal = Eal::start(&EalOptions {
        memory: Memory {
            mib: 32,
            hugepages: false,
        },
        cpu: 0,
        name: "reset".into(),
        pci: vec![("vm1".into(), address)],
        one_file: false,
    })
    .expect("DPDK starts");
    let options = PortOptions::default();
    let pool = Mempool::for_devices(&eal, [&device], &options).expect("memory");
    let mut port = Port::open(&eal, "vm1", &device, &pool, &options).expect("a port");
    // The group's first address is no station's, but a NIC subscribes to it.
    assert!(port.set_multicast(&[[0x33, 0x33, 0, 0, 0, 1]], false));
    filter_all_threads(&Needs::of(&config, [])).expect("a filter");
    println!("@@open");
    for order in std::io::stdin().lines() {
        let answer = match order.expect("a line").as_str() {
            "count" => count(&mut port).to_string(),
            "link" if port.link_up() => "up".to_owned(),
            "link" => "down".to_owned(),
            "demanded" => port.signals().expect("of PCI").take_reset().to_string(),
            "reset" => match port.reset() {
                Ok(()) => "ok".to_owned(),
                Err(error) => error.to_string(),
            },
            order => panic!("an order {order:?}"),
        };
        println!("@@{answer}");
    }
    // The kernel closes the device with the process.
    std::mem::forget((port, pool, eal));
}

/// The frames sent to this port that arrive within a second.
fn count(port: &mut Port) -> usize {
    let until = Instant::now() + Duration::from_secs(1);
    let mut burst = Burst::new();
    let mut counted = 0;
    while Instant::now() < until {
        port.rx(&mut burst);
        counted += burst
            .drain()
            .filter(|mbuf| mbuf.bytes().get(12..14) == Some(&[0x88, 0xb5]))
            .count();
        std::thread::sleep(Duration::from_millis(1));
    }
    counted
}
