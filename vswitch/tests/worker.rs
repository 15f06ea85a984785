//! A worker on ports in memory: no device, no root, no hugepages.
//!
//! DPDK starts once per process, and `cargo nextest` gives each test a process of its own; with
//! `cargo test`, run one at a time by name.

#[path = "common/wait.rs"]
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dpdk::{Burst, Eal, EalOptions, Mbuf, Mempool};

use packet::Buffer;
use pipeline::{Counters, DropReason, Generation};
use ports::{MemoryPort, Port};
use tenant_config::{Memory, SwitchConfig, Tenant};
use vswitch::worker::{Ended, Link, PollMode, PortState, Worker};
use wait::eventually;

const VM1: [u8; 6] = [0x52, 0x54, 0, 0xaa, 0, 1];
const VM2: [u8; 6] = [0x52, 0x54, 0, 0xaa, 0, 2];

/// Two ports; the second has these addresses.
fn config(addresses: &str) -> SwitchConfig {
    let text = format!(
        r#"
name = "red"
vni = 5001
[gateway]
ipv4 = "10.0.0.1/24"
ipv6 = "fd00:0:0:1::1/64"
[[port]]
name = "red-vm1"
mac = "52:54:00:aa:00:01"
addresses = ["10.0.0.11"]
[[port]]
name = "red-vm2"
mac = "52:54:00:aa:00:02"
addresses = [{addresses}]
"#
    );
    let tenant = Tenant::parse("red.toml", &text).expect("a tenant");
    tenant.offline_config()
}

/// A worker that runs, and the other ends of its ports' wires.
struct Bed {
    config: SwitchConfig,
    ends: Vec<MemoryPort>,
    pool: Mempool,
    link: Arc<Link>,
    counters: Arc<Counters>,
    worker: Option<JoinHandle<Ended>>,
}

impl Bed {
    /// Each wire holds `capacity` frames each way. `prepare` gets the pool before the worker
    /// starts.
    fn new(capacity: usize, prepare: impl FnOnce(&Mempool)) -> Self {
        let config = config("\"10.0.0.12\", \"fd00:0:0:1::12\"");
        Self::with(config, capacity, prepare)
    }

    fn with(config: SwitchConfig, capacity: usize, prepare: impl FnOnce(&Mempool)) -> Self {
        let eal = Eal::start(&EalOptions {
            memory: Memory {
                mib: 32,
                hugepages: false,
            },
            cpu: 0,
            name: "worker-test".into(),
            pci: Vec::new(),
            one_file: false,
        })
        .expect("DPDK starts");
        let pool = Mempool::new(&eal, 512, 1500).expect("memory");
        prepare(&pool);
        let wires = config
            .ports
            .iter()
            .map(|_| ports::pair(capacity).expect("a wire"));
        let (ends, ports): (Vec<_>, Vec<_>) =
            wires.map(|(end, port)| (end, Port::from(port))).unzip();
        let generation = Generation::build(&config, None);
        let counters = generation.counters();
        let link = Link::new(ports.len()).expect("a link");
        let (its_pool, its_link) = (pool.clone(), Arc::clone(&link));
        let worker = std::thread::spawn(move || {
            let worker = Worker::new(&eal, ports, its_pool, generation, its_link);
            let mut worker = worker.expect("a worker");
            let repair = worker.take_repair().expect("the first time");
            std::thread::spawn(move || repair.run());
            worker.run(PollMode::Adaptive)
        });
        Self {
            config,
            ends,
            pool,
            link,
            counters,
            worker: Some(worker),
        }
    }

    /// Sends a frame into the switch by that port.
    fn send(&mut self, port: usize, frame: &[u8]) {
        let mut burst = Burst::new();
        let mbuf = self.pool.alloc_with(frame).expect("a buffer");
        burst.push(mbuf).expect("room in the burst");
        assert_eq!(self.ends[port].tx(&mut burst), 1, "the wire has room");
    }

    /// As [`Self::send`], if there is a buffer.
    fn send_if_room(&mut self, port: usize, frame: &[u8]) {
        let mut burst = Burst::new();
        if let Some(mbuf) = self.pool.alloc_with(frame) {
            burst.push(mbuf).expect("room in the burst");
            self.ends[port].tx(&mut burst);
        }
    }

    /// Takes all frames that wait at that port.
    fn discard(&mut self, port: usize) {
        let mut burst = Burst::new();
        while self.ends[port].rx(&mut burst) > 0 {
            burst.clear();
        }
    }

    /// The next frame of that EtherType that leaves by that port.
    fn receive(&mut self, port: usize, ethertype: u16) -> Vec<u8> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut burst = Burst::new();
        loop {
            assert!(Instant::now() < deadline, "no frame at port {port}");
            self.ends[port].rx(&mut burst);
            let wanted = |mbuf: &Mbuf| mbuf.bytes()[12..14] == ethertype.to_be_bytes();
            if let Some(mbuf) = burst.drain().find(wanted) {
                return mbuf.bytes().to_vec();
            }
        }
    }

    /// A UDP packet from the first VM to the second, as the first sends it.
    fn udp(&self) -> Vec<u8> {
        let gateway = self.config.ports[0].gateway_mac.octets();
        let builder = etherparse::PacketBuilder::ethernet2(VM1, gateway)
            .ipv4([10, 0, 0, 11], [10, 0, 0, 12], 64)
            .udp(1000, 2000);
        let mut frame = Vec::new();
        builder
            .write(&mut frame, b"payload")
            .expect("a Vec takes it");
        frame
    }

    fn drops(&self, port: usize, reason: DropReason) -> u64 {
        self.counters.port(port).drops(reason).get()
    }

    fn stat(&self, counter: fn(&Link) -> &AtomicU64) -> u64 {
        counter(&self.link).load(Ordering::Relaxed)
    }

    fn sleeps(&self) -> u64 {
        self.stat(|link| &link.stats().sleeps)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.link.stop();
        let Some(worker) = self.worker.take() else {
            return;
        };
        let ended = worker.join();
        if !std::thread::panicking() {
            assert_eq!(ended.expect("no panic"), Ended::Stopped);
        }
    }
}

#[test]
fn frame_leaves_by_port_of_its_destination() {
    const IPV4: u16 = 0x0800;
    let mut bed = Bed::new(64, |_| {});
    let mut expected = bed.udp();
    bed.send(0, &expected);
    let received = bed.receive(1, IPV4);
    expected[..6].copy_from_slice(&VM2);
    expected[6..12].copy_from_slice(&bed.config.ports[1].gateway_mac.octets());
    // Within the subnet the TTL stays.
    assert_eq!(received, expected);
    assert_eq!(bed.counters.port(0).forwarded.get(), 1);
    assert_eq!(bed.stat(|link| &link.stats().busy_frames), 1);
}

/// A tenant of so many ports that allows a group of the link, for which the switch asks nobody.
fn grouped(ports: u8) -> SwitchConfig {
    let port = |number: u8| {
        format!(
            "[[port]]\nname = \"vm{number}\"\nmac = \"52:54:00:aa:00:{number:02x}\"\n\
             addresses = [\"10.0.0.{}\"]\n",
            10 + number
        )
    };
    let ports: String = (1..=ports).map(port).collect();
    let text = format!(
        "name = \"red\"\nvni = 5001\n[gateway]\nipv4 = \"10.0.0.1/24\"\n\
         [multicast]\ngroups = [\"224.0.0.18\"]\n{ports}"
    );
    let tenant = Tenant::parse("red.toml", &text).expect("a tenant");
    tenant.offline_config()
}

/// The buffers of a frame to 64 receivers come from one allocation, beside its own; without buffers
/// copies are lost and counted, and nothing else.
#[test]
fn frame_to_a_group_takes_one_allocation() {
    const IPV4: u16 = 0x0800;
    const RECEIVERS: usize = 64;
    let mut bed = Bed::with(grouped(RECEIVERS as u8 + 1), 64, |_| {});
    let builder = etherparse::PacketBuilder::ethernet2(VM1, [1, 0, 0x5e, 0, 0, 18])
        .ipv4([10, 0, 0, 11], [224, 0, 0, 18], 255)
        .udp(1000, 2000);
    let mut frame = Vec::new();
    let written = builder.write(&mut frame, b"payload");
    written.expect("a Vec takes it");
    bed.send(0, &frame);
    for port in 1..=RECEIVERS {
        let mut expected = frame.clone();
        let gateway = bed.config.ports[port].gateway_mac.octets();
        expected[6..12].copy_from_slice(&gateway);
        assert_eq!(bed.receive(port, IPV4), expected);
    }
    assert_eq!(bed.counters.port(0).copies.get(), RECEIVERS as u64);
    assert_eq!(bed.counters.port(0).copy_allocations.get(), 1);
    assert_eq!(bed.counters.port(0).forwarded.get(), 1);
    // Nobody takes these: the pool has 512 buffers, which eight frames fill.
    for _ in 0..20 {
        bed.send_if_room(0, &frame);
    }
    let lost = |bed: &Bed| -> u64 {
        let ports = 1..=RECEIVERS;
        ports
            .map(|port| bed.drops(port, DropReason::NoBuffer))
            .sum()
    };
    eventually("copies are lost", || lost(&bed) > 0);
    for port in 1..=RECEIVERS {
        bed.discard(port);
    }
    let sent = bed.counters.port(0).copies.get();
    let counters = bed.counters.clone();
    let reached: u64 = (1..=RECEIVERS)
        .map(|port| counters.port(port).tx_frames.get())
        .sum();
    assert_eq!(reached + lost(&bed), sent);
    bed.send(0, &frame);
    bed.receive(RECEIVERS, IPV4);
}

#[test]
fn answer_of_gateway_returns_to_sender() {
    const ARP: u16 = 0x0806;
    let mut bed = Bed::new(64, |_| {});
    let mut request = vec![0xff; 6];
    request.extend(VM1);
    request.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request.extend(VM1);
    request.extend([10, 0, 0, 11, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    bed.send(0, &request);
    let reply = bed.receive(0, ARP);
    let gateway = bed.config.ports[0].gateway_mac.octets();
    assert_eq!((&reply[..6], &reply[6..12]), (&VM1[..], &gateway[..]));
    assert_eq!(&reply[20..28], [&[0, 2], &gateway[..]].concat());
    assert_eq!(bed.counters.port(0).replies.get(), 1);
}

#[test]
fn idle_worker_sleeps_until_frame_arrives() {
    const IPV4: u16 = 0x0800;
    let mut bed = Bed::new(64, |_| {});
    eventually("it sleeps", || bed.sleeps() > 0);
    let before = bed.sleeps();
    std::thread::sleep(Duration::from_secs(1));
    let sleeps = bed.sleeps() - before;
    // Its timers end ten of them; naps of 4 ms would be 250.
    assert!(sleeps < 50, "{sleeps} sleeps in a second");
    let wakes = bed.stat(|link| &link.stats().wakes);
    for _ in 0..20 {
        let frame = bed.udp();
        bed.send(0, &frame);
        bed.receive(1, IPV4);
        std::thread::sleep(Duration::from_millis(10));
    }
    let wakes = bed.stat(|link| &link.stats().wakes) - wakes;
    assert!((10..=20).contains(&wakes), "{wakes} of 20 frames woke it");
}

#[test]
fn frames_beyond_full_port_are_counted_as_tx_full() {
    const CAPACITY: usize = 4;
    let mut bed = Bed::new(CAPACITY, |_| {});
    let sent = 10;
    for number in 0..sent {
        let frame = bed.udp();
        bed.send(0, &frame);
        eventually("it is forwarded", || {
            bed.counters.port(0).forwarded.get() == number + 1
        });
    }
    // Of the Router Advertisement at the start and the packets, the wire holds the first four.
    let advertisements = bed.counters.port(1).tx_frames.get() - sent;
    let expected = sent + advertisements - CAPACITY as u64;
    eventually("the rest is counted", || {
        bed.drops(1, DropReason::TxFull) == expected
    });
    assert_eq!(bed.ends[1].rx(&mut Burst::new()), CAPACITY);
    let port = bed.counters.port(1);
    assert_eq!((port.unsent.get(), port.dropped()), (expected, 0));
    assert_all_accounted(&bed);
}

/// Of every port, received frames are forwarded, answered or dropped.
fn assert_all_accounted(bed: &Bed) {
    for port in bed.counters.ports() {
        let accounted = port.forwarded.get() + port.replies.get() + port.dropped();
        assert_eq!(port.rx_frames.get(), accounted, "{}", port.name);
    }
}

#[test]
fn frame_in_several_buffers_is_received_and_dropped() {
    let mut bed = Bed::new(64, |_| {});
    let mut mbuf = bed.pool.alloc_with(&bed.udp()).expect("a buffer");
    mbuf.chain(bed.pool.alloc_with(&[0; 900]).expect("a buffer"));
    let length = mbuf.frame_len() as u64;
    let mut burst = Burst::new();
    burst.push(mbuf).expect("room in the burst");
    assert_eq!(bed.ends[0].tx(&mut burst), 1, "the wire has room");
    eventually("it is dropped", || bed.drops(0, DropReason::Malformed) == 1);
    let frame = bed.udp();
    bed.send(0, &frame);
    eventually("the next one is forwarded", || {
        bed.counters.port(0).forwarded.get() == 1
    });
    let port = bed.counters.port(0);
    assert_eq!(port.rx_frames.get(), 2);
    assert_eq!(port.rx_bytes.get(), length + frame.len() as u64);
    assert_eq!(port.dropped(), 1);
    assert_all_accounted(&bed);
}

#[test]
fn frame_without_buffer_is_counted_as_no_buffer() {
    let mut taken = Vec::new();
    let bed = Bed::new(64, |pool| {
        taken.extend(std::iter::from_fn(|| pool.alloc()));
    });
    // The Router Advertisements that the worker sends when it starts.
    eventually("they are counted", || {
        (0..2).all(|port| bed.drops(port, DropReason::NoBuffer) == 1)
    });
    assert_all_accounted(&bed);
    drop(bed);
}

#[test]
fn new_generation_subscribes_to_its_groups() {
    let bed = Bed::new(64, |_| {});
    let wanted = |generation: &Generation| {
        let tables = generation.tables();
        let groups = &tables.groups()[0];
        (groups.listed.to_vec(), groups.others)
    };
    let running = Generation::build(&bed.config, None);
    let first = wanted(&running);
    eventually("it subscribes", || bed.ends[0].multicast_of_peer() == first);
    let wider = config("\"10.0.0.12\", \"fd00:0:0:1::12\", \"fd00:0:0:1::77\"");
    let generation = Generation::build(&wider, Some((&running.tables(), &bed.counters)));
    let second = wanted(&generation);
    assert_ne!(first, second);
    bed.link.install(generation).expect("the worker has room");
    eventually("it subscribes again", || {
        bed.ends[0].multicast_of_peer() == second
    });
    eventually("the old one is handed back", || {
        bed.link.take_retired().is_some()
    });
    assert_eq!(bed.stat(|link| &link.stats().generation), 2);
}

#[test]
fn lost_link_is_reported() {
    let mut bed = Bed::new(64, |_| {});
    let up = |bed: &Bed, port: usize| bed.link.devices()[port].link_up.load(Ordering::Relaxed);
    eventually("both are up", || up(&bed, 0) && up(&bed, 1));
    drop(bed.ends.pop());
    eventually("one is down", || up(&bed, 0) && !up(&bed, 1));
}

#[test]
fn reset_device_carries_frames_again_with_its_groups() {
    const IPV4: u16 = 0x0800;
    let mut bed = Bed::new(64, |_| {});
    let groups = {
        let tables = Generation::build(&bed.config, None).tables();
        let groups = &tables.groups()[1];
        (groups.listed.to_vec(), groups.others)
    };
    eventually("it subscribes", || {
        bed.ends[1].multicast_of_peer() == groups
    });
    assert_eq!(bed.ends[1].fail_resets_of_peer(2), 0, "resets so far");
    bed.ends[1].signals_of_peer().demand_reset();
    let device = |bed: &Bed| {
        let device = &bed.link.devices()[1];
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (
            device.state(),
            device.link_up.load(Ordering::Relaxed),
            count(&device.resets),
            count(&device.reset_failures),
        )
    };
    // The pause after the second failure is 0.4 s.
    eventually("it fails", || {
        device(&bed) == (PortState::Failed, false, 0, 2)
    });
    // The other port is served meanwhile.
    let frame = bed.udp();
    bed.send(0, &frame);
    eventually("nobody takes it", || bed.drops(1, DropReason::TxFull) == 1);
    eventually("it runs again", || {
        device(&bed) == (PortState::Running, true, 1, 2)
    });
    bed.send(0, &frame);
    bed.receive(1, IPV4);
    eventually("it subscribes again", || {
        bed.ends[1].multicast_of_peer() == groups
    });
    assert_eq!(bed.ends[1].fail_resets_of_peer(0), 3, "resets so far");
    let other = &bed.link.devices()[0];
    assert_eq!(other.state(), PortState::Running);
    assert_eq!(other.resets.load(Ordering::Relaxed), 0);
    assert_all_accounted(&bed);
}

#[test]
fn device_that_takes_nothing_is_reset() {
    const CAPACITY: usize = 4;
    let mut bed = Bed::new(CAPACITY, |_| {});
    let frame = bed.udp();
    let resets = |bed: &Bed| bed.link.devices()[1].resets.load(Ordering::Relaxed);
    let began = Instant::now();
    // The reader at the other end does not read, and the wire is full.
    while resets(&bed) == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "no reset");
        bed.send(0, &frame);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(began.elapsed() > Duration::from_secs(2), "too early");
    assert_eq!(bed.link.devices()[0].resets.load(Ordering::Relaxed), 0);
}

#[test]
fn device_that_must_be_closed_ends_worker() {
    let mut bed = Bed::new(64, |_| {});
    bed.ends[1].signals_of_peer().demand_removal();
    let ended = bed.worker.take().expect("it runs").join();
    assert_eq!(
        ended.expect("no panic"),
        Ended::Removed {
            port: "red-vm2".to_owned()
        }
    );
    assert_eq!(bed.link.devices()[1].state(), PortState::Removed);
}
