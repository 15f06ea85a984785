//! Ports on real interfaces: the two ends of a veth pair in a network namespace of each test.
//! Skipped without root.
//!
//! DPDK starts once per process, and `cargo nextest` gives each test a process of its own; with
//! `cargo test`, run one at a time by name.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use dpdk::{Burst, DpdkError, Eal, EalOptions, Mempool, Port, PortOptions};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SndBuf;
use tenant_config::{Device, Memory};

/// Both ends of a veth pair: the switch's and the guest's.
const SWITCH_END: &str = "switch";
const GUEST_END: &str = "guest";

/// The Ethernet frame of a UDP packet, 192.0.2.1:1000 → 192.0.2.2:2000, with `payload` bytes of
/// 0x5a.
fn udp_frame(source: [u8; 6], destination: [u8; 6], payload: u16) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(source, destination)
        .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
        .udp(1000, 2000);
    let mut frame = Vec::new();
    builder
        .write(&mut frame, &vec![0x5a; usize::from(payload)])
        .expect("a Vec takes it");
    frame
}

/// The same with an 802.1Q tag behind the addresses.
fn tagged(frame: &[u8], tci: u16) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    out.extend([0x81, 0x00]);
    out.extend(tci.to_be_bytes());
    out.extend(&frame[12..]);
    out
}

struct Bed {
    eal: Eal,
    pool: Mempool,
    options: PortOptions,
}

impl Bed {
    /// A namespace with a veth pair, and DPDK; `None` without root.
    fn new(test: &str, devices: &[Device], options: PortOptions) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("{test} is skipped: it makes interfaces, and so needs root");
            return None;
        }
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace of our own");
        let mtu = options.mtu;
        ip(&format!(
            "link add {SWITCH_END} mtu {mtu} type veth peer name {GUEST_END} mtu {mtu}"
        ));
        for end in [SWITCH_END, GUEST_END] {
            // The kernel's own neighbour discovery is not what is tested.
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1")
                .expect("the interface has IPv6");
            ip(&format!("link set {end} up"));
        }
        let memory = Memory {
            mib: 96,
            hugepages: false,
        };
        let eal = Eal::start(&EalOptions {
            memory,
            cpu: 0,
            name: test.into(),
            pci: Vec::new(),
            one_file: false,
        })
        .expect("DPDK starts");
        let pool = Mempool::for_devices(&eal, devices, &options).expect("memory");
        Some(Self { eal, pool, options })
    }

    fn open(&self, device: &Device) -> Port {
        Port::open(&self.eal, "port", device, &self.pool, &self.options).expect("the port opens")
    }

    fn send(&self, port: &mut Port, frames: &[Vec<u8>]) {
        let mut burst = Burst::new();
        for frames in frames.chunks(Burst::CAPACITY) {
            for frame in frames {
                let mbuf = self.pool.alloc_with(frame).expect("an mbuf");
                burst.push(mbuf).expect("room in the burst");
            }
            while !burst.is_empty() {
                port.tx(&mut burst);
            }
        }
    }
}

/// The kernel takes as much of a burst as the socket's send buffer holds, and the driver leaves the
/// rest in its ring.
#[test]
fn frames_left_in_tx_ring_are_flushed() {
    const FRAMES: usize = 200;
    let device = af_packet(SWITCH_END);
    let name = "frames_left_in_tx_ring_are_flushed";
    let Some(bed) = Bed::new(name, std::slice::from_ref(&device), PortOptions::default()) else {
        return;
    };
    // Only a sysfs mounted inside shows the namespace's interfaces.
    unshare(CloneFlags::CLONE_NEWNS).expect("mounts of our own");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).expect("sysfs");
    // Frames count against the send buffer until the other CPU has received them, which takes a
    // while.
    let place = format!("/sys/class/net/{GUEST_END}");
    if std::fs::write(format!("{place}/queues/rx-0/rps_cpus"), "2").is_err() {
        println!("{name} is skipped: it needs a second CPU and receive packet steering");
        return;
    }
    let mut port = bed.open(&device);
    let socket = port.wait_fd().expect("the driver's socket");
    setsockopt(&socket, SndBuf, &1).expect("the smallest send buffer");
    let frame = udp_frame([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], 1400);
    bed.send(&mut port, &vec![frame; FRAMES]);
    let bytes = || -> usize {
        let text = std::fs::read_to_string(format!("{place}/statistics/rx_bytes"));
        let text = text.expect("sysfs is there");
        text.trim().parse().expect("a number")
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while bytes() < FRAMES * 1442 && Instant::now() < deadline {
        if port.may_hold_frames() {
            port.flush_tx();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    port.flush_tx();
    assert!(!port.may_hold_frames());
    assert!(bytes() >= FRAMES * 1442, "{} bytes came", bytes());
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(
        status.expect("iproute2 is installed").success(),
        "ip {arguments}"
    );
}

fn af_packet(interface: &str) -> Device {
    let interface = interface.into();
    Device::AfPacket { interface }
}

/// The next `count` frames, each with its stripped tag; fewer if they do not arrive within 5 s.
fn receive(port: &mut Port, count: usize) -> Vec<(Option<u16>, Vec<u8>)> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut burst = Burst::new();
    let mut frames = Vec::new();
    while frames.len() < count && Instant::now() < deadline {
        port.rx(&mut burst);
        frames.extend(burst.drain().map(|mbuf| {
            assert_eq!(mbuf.segments(), 1);
            (mbuf.stripped_tag(), mbuf.bytes().to_vec())
        }));
    }
    frames
}

/// Whether no frame arrives for 0.1 s.
fn is_silent(port: &mut Port) -> bool {
    let deadline = Instant::now() + Duration::from_millis(100);
    let mut burst = Burst::new();
    while burst.is_empty() && Instant::now() < deadline {
        port.rx(&mut burst);
    }
    burst.is_empty()
}

/// Whether the port's descriptor signals a frame within that time.
fn wakes(port: &mut Port, within: Duration) -> bool {
    assert!(port.arm(), "the port can wake a sleeper");
    let timeout = PollTimeout::try_from(within).expect("a short time");
    let fd = port.wait_fd().expect("a descriptor");
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    let ready = poll(&mut fds, timeout).expect("poll works");
    let readable = fds[0].revents() == Some(PollFlags::POLLIN);
    port.disarm();
    ready == 1 && readable
}

/// Drops all other capabilities of this thread.
fn keep_capabilities(capabilities: &[Capability]) {
    let capabilities = capabilities.iter().copied().collect();
    caps::set(None, CapSet::Effective, &capabilities).expect("fewer are always allowed");
}

/// Waits for the links of both ends. The kernel updates an end's carrier from a work queue, up to a
/// second after its peer has changed.
fn links_become(up: bool, ports: [&Port; 2]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while ports.iter().any(|port| port.link_up() != up) {
        assert!(Instant::now() < deadline, "the links become up={up}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Holds for every driver on a kernel interface.
fn frames_cross_both_ways(bed: &Bed, switch: &mut Port, guest: &mut Port) {
    let (switch_mac, guest_mac) = (
        switch.mac().expect("a MAC").octets(),
        guest.mac().expect("a MAC").octets(),
    );
    links_become(true, [switch, guest]);

    let sizes = [18, 64, 700, bed.options.mtu - 28];
    let up: Vec<_> = sizes
        .iter()
        .map(|&size| udp_frame(guest_mac, switch_mac, size))
        .collect();
    bed.send(guest, &up);
    let untagged = |frames: Vec<Vec<u8>>| -> Vec<_> {
        frames.into_iter().map(|frame| (None, frame)).collect()
    };
    assert_eq!(receive(switch, up.len()), untagged(up));

    let down: Vec<_> = sizes
        .iter()
        .map(|&size| udp_frame(switch_mac, guest_mac, size))
        .collect();
    bed.send(switch, &down);
    assert_eq!(receive(guest, down.len()), untagged(down));
}

fn frame_wakes_a_sleeper(bed: &Bed, switch: &mut Port, guest: &mut Port) {
    let frame = udp_frame([2; 6], [4; 6], 64);
    assert!(
        !wakes(switch, Duration::from_millis(20)),
        "nothing was sent"
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            bed.send(guest, std::slice::from_ref(&frame));
        });
        assert!(wakes(switch, Duration::from_secs(2)));
    });
    // It stays readable until the frame is received, so none is missed.
    assert!(wakes(switch, Duration::ZERO));
    assert_eq!(receive(switch, 1), [(None, frame)]);
    assert!(
        !wakes(switch, Duration::from_millis(20)),
        "all were received"
    );
}

#[test]
fn af_packet_carries_frames_both_ways_and_wakes() {
    let (near, far) = (af_packet(SWITCH_END), af_packet(GUEST_END));
    let devices = [near.clone(), far.clone()];
    let Some(bed) = Bed::new("af_packet_carries", &devices, PortOptions::default()) else {
        return;
    };
    let all = bed.pool.available();
    let (mut switch, mut guest) = (bed.open(&near), bed.open(&far));
    frames_cross_both_ways(&bed, &mut switch, &mut guest);
    frame_wakes_a_sleeper(&bed, &mut switch, &mut guest);
    let stats = switch.stats();
    assert_eq!(
        (stats.rx_frames, stats.tx_frames, stats.rx_missed),
        (5, 4, 0)
    );
    drop((switch, guest));
    assert_eq!(bed.pool.available(), all);
}

/// As a switch does: it opens its ports with one capability, drops it, and they keep working.
#[test]
fn af_packet_port_works_after_cap_net_raw_is_dropped() {
    let (near, far) = (af_packet(SWITCH_END), af_packet(GUEST_END));
    let devices = [near.clone(), far.clone()];
    let Some(bed) = Bed::new("af_packet_unprivileged", &devices, PortOptions::default()) else {
        return;
    };
    keep_capabilities(&[Capability::CAP_NET_RAW]);
    let (mut switch, mut guest) = (bed.open(&near), bed.open(&far));
    keep_capabilities(&[]);
    frames_cross_both_ways(&bed, &mut switch, &mut guest);
    frame_wakes_a_sleeper(&bed, &mut switch, &mut guest);
    assert_eq!(switch.stats().rx_missed, 0);
    let refused = Port::open(&bed.eal, "red-vm1", &near, &bed.pool, &bed.options);
    let sentence = refused.expect_err("a second one may not").to_string();
    assert_eq!(
        sentence,
        "port red-vm1: no permission to open net_af_packet2 on switch: it needs CAP_NET_RAW while \
         it starts"
    );
}

#[test]
fn af_packet_carries_jumbo_frames() {
    let (near, far) = (af_packet(SWITCH_END), af_packet(GUEST_END));
    let options = PortOptions {
        mtu: 9216,
        ..PortOptions::default()
    };
    let devices = [near.clone(), far.clone()];
    let Some(bed) = Bed::new("af_packet_jumbo", &devices, options) else {
        return;
    };
    let (mut switch, mut guest) = (bed.open(&near), bed.open(&far));
    frames_cross_both_ways(&bed, &mut switch, &mut guest);
}

#[test]
fn af_packet_reports_stripped_tag() {
    let (near, far) = (af_packet(SWITCH_END), af_packet(GUEST_END));
    let devices = [near.clone(), far.clone()];
    let Some(bed) = Bed::new("af_packet_tag", &devices, PortOptions::default()) else {
        return;
    };
    let (mut switch, mut guest) = (bed.open(&near), bed.open(&far));
    let plain = udp_frame([2; 6], [4; 6], 64);
    let one = tagged(&plain, 0x2065);
    let priority = tagged(&plain, 0);
    let two = tagged(&one, 7);
    bed.send(&mut guest, &[one.clone(), priority, two, plain.clone()]);
    // The kernel strips the outermost tag, VID 0 included, and the driver reports it beside the
    // bytes.
    assert_eq!(
        receive(&mut switch, 4),
        [
            (Some(0x2065), plain.clone()),
            (Some(0), plain.clone()),
            (Some(7), one),
            (None, plain.clone()),
        ]
    );
    // The kernel strips an 802.1ad tag too, and reports its type, which decides: such a frame comes
    // with its tag in the bytes, and nothing behind it.
    let service = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        frame[12..14].copy_from_slice(&[0x88, 0xa8]);
        frame
    };
    let (one, two) = (tagged(&plain, 0x2065), tagged(&tagged(&plain, 100), 0x2065));
    bed.send(&mut guest, &[service(&one), service(&two), one.clone()]);
    let kept = service(&one)[..16].to_vec();
    assert_eq!(
        receive(&mut switch, 3),
        [(None, kept.clone()), (None, kept), (Some(0x2065), plain),]
    );
}

#[test]
fn af_packet_ignores_frames_that_the_kernel_sends() {
    let (near, far) = (af_packet(SWITCH_END), af_packet(GUEST_END));
    let devices = [near.clone(), far.clone()];
    let Some(bed) = Bed::new("af_packet_outgoing", &devices, PortOptions::default()) else {
        return;
    };
    let (mut switch, mut guest) = (bed.open(&near), bed.open(&far));
    ip(&format!("address add 192.0.2.1/24 dev {SWITCH_END}"));
    ip(&format!(
        "neighbour add 192.0.2.2 lladdr 02:00:00:00:00:09 dev {SWITCH_END}"
    ));
    let socket = UdpSocket::bind((Ipv4Addr::new(192, 0, 2, 1), 1000)).expect("our address");
    socket
        .send_to(&[0x5a; 64], (Ipv4Addr::new(192, 0, 2, 2), 2000))
        .expect("the interface is up");
    assert_eq!(receive(&mut guest, 1).len(), 1, "it did leave");
    assert!(is_silent(&mut switch));
}

/// A filter must see the frames on the wire: fragments as fragments, even if some never complete a
/// packet.
#[test]
fn af_packet_delivers_fragments_unchanged() {
    let (near, far) = (af_packet(SWITCH_END), af_packet(GUEST_END));
    let devices = [near.clone(), far.clone()];
    let Some(bed) = Bed::new("af_packet_fragments", &devices, PortOptions::default()) else {
        return;
    };
    let (mut switch, mut guest) = (bed.open(&near), bed.open(&far));
    let fragment = |offset: u16, more: bool| {
        let payload = vec![0x5a; 64];
        let mut ip = etherparse::Ipv4Header::new(
            64,
            64,
            etherparse::IpNumber::UDP,
            [192, 0, 2, 1],
            [192, 0, 2, 2],
        )
        .expect("a short payload");
        ip.identification = 7;
        ip.dont_fragment = false;
        ip.more_fragments = more;
        ip.fragment_offset = offset.try_into().expect("13 bits");
        ip.header_checksum = ip.calc_header_checksum();
        let mut frame = vec![2; 12];
        frame.extend([0x08, 0x00]);
        ip.write(&mut frame).expect("a Vec takes it");
        frame.extend(payload);
        frame
    };
    let fragments = [fragment(0, true), fragment(8, false), fragment(16, true)];
    bed.send(&mut guest, &fragments);
    assert_eq!(
        receive(&mut switch, 3),
        fragments.map(|frame| (None, frame))
    );
}

/// A veth pair has no checksum offload, so the guest's stack must complete checksums itself.
#[test]
fn af_packet_delivers_partial_checksums_unless_offload_is_off() {
    let near = af_packet(SWITCH_END);
    let Some(bed) = Bed::new(
        "af_packet_checksum",
        std::slice::from_ref(&near),
        PortOptions::default(),
    ) else {
        return;
    };
    let mut switch = bed.open(&near);
    let mac = switch.mac().expect("a MAC");
    ip(&format!("address add 192.0.2.2/24 dev {GUEST_END}"));
    ip(&format!(
        "neighbour add 192.0.2.1 lladdr {mac} dev {GUEST_END}"
    ));
    let socket = UdpSocket::bind((Ipv4Addr::new(192, 0, 2, 2), 2000)).expect("our address");
    let mut checksum_is_right = || {
        socket
            .send_to(b"checksum", (Ipv4Addr::new(192, 0, 2, 1), 1000))
            .expect("the interface is up");
        let frames = receive(&mut switch, 1);
        let [(None, bytes)] = frames.as_slice() else {
            panic!("one untagged frame, not {frames:?}");
        };
        let packet = etherparse::PacketHeaders::from_ethernet_slice(bytes).expect("well formed");
        let Some(etherparse::NetHeaders::Ipv4(ip, _)) = &packet.net else {
            panic!("IPv4, not {packet:?}");
        };
        let Some(etherparse::TransportHeader::Udp(udp)) = &packet.transport else {
            panic!("UDP, not {packet:?}");
        };
        let right = udp
            .calc_checksum_ipv4(ip, b"checksum")
            .expect("a short packet");
        udp.checksum == right
    };
    assert!(!checksum_is_right(), "veth leaves the checksum to a NIC");
    let off = Command::new("ethtool")
        .args(["-K", GUEST_END, "tx", "off"])
        .output();
    assert!(off.expect("ethtool is installed").status.success());
    assert!(checksum_is_right());
}

#[test]
fn af_packet_counts_frames_that_overflow_its_ring() {
    let (near, far) = (af_packet(SWITCH_END), af_packet(GUEST_END));
    let devices = [near.clone(), far.clone()];
    let Some(bed) = Bed::new("af_packet_missed", &devices, PortOptions::default()) else {
        return;
    };
    let (mut switch, mut guest) = (bed.open(&near), bed.open(&far));
    let room = usize::from(bed.options.rx_desc);
    let frames = vec![udp_frame([2; 6], [4; 6], 64); room + 40];
    bed.send(&mut guest, &frames);
    assert_eq!(receive(&mut switch, room).len(), room);
    assert!(is_silent(&mut switch));
    let stats = switch.stats();
    assert_eq!((stats.rx_frames, stats.rx_missed), (room as u64, 40));
}

#[test]
fn af_packet_port_survives_loss_of_its_interface() {
    let (near, far) = (af_packet(SWITCH_END), af_packet(GUEST_END));
    let devices = [near.clone(), far.clone()];
    let Some(bed) = Bed::new("af_packet_down", &devices, PortOptions::default()) else {
        return;
    };
    let (mut switch, mut guest) = (bed.open(&near), bed.open(&far));
    ip(&format!("link set {SWITCH_END} down"));
    links_become(false, [&switch, &guest]);
    // The error wakes once, without a frame.
    assert!(!wakes(&mut switch, Duration::from_secs(2)));
    assert!(!wakes(&mut switch, Duration::from_millis(20)));
    ip(&format!("link set {SWITCH_END} up"));
    frames_cross_both_ways(&bed, &mut switch, &mut guest);
    // Deleted: nothing is received or sent, and nothing crashes.
    ip(&format!("link delete {SWITCH_END}"));
    assert!(is_silent(&mut switch));
    let frame = bed.pool.alloc_with(&[0; 60]).expect("an mbuf");
    let mut burst = Burst::new();
    burst.push(frame).expect("room in the burst");
    switch.tx(&mut burst);
    let refused = Port::open(&bed.eal, "port", &near, &bed.pool, &bed.options);
    assert!(matches!(refused, Err(DpdkError::NoInterface { .. })));
}

#[test]
fn af_xdp_carries_frames_both_ways_and_wakes() {
    let interface = SWITCH_END.into();
    let near = Device::AfXdp { interface };
    let far = af_packet(GUEST_END);
    let devices = [near.clone(), far.clone()];
    let Some(bed) = Bed::new("af_xdp_carries", &devices, PortOptions::default()) else {
        return;
    };
    let (mut switch, mut guest) = (bed.open(&near), bed.open(&far));
    keep_capabilities(&[]);
    frames_cross_both_ways(&bed, &mut switch, &mut guest);
    frame_wakes_a_sleeper(&bed, &mut switch, &mut guest);
}
