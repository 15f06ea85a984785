//! Packet memory and ports without an interface, hugepages or root: `net_ring` loops frames back,
//! `net_null` takes and delivers any number.
//!
//! DPDK starts once per process, and `cargo nextest` gives each test a process of its own. This
//! file is one test, so that `cargo test` can run it too.

use dpdk::{Burst, DpdkError, Eal, EalOptions, Mempool, Port, PortOptions};
use packet::Buffer;
use tenant_config::{Device, Memory};

fn start() -> Result<Eal, DpdkError> {
    Eal::start(&EalOptions {
        memory: Memory {
            mib: 32,
            hugepages: false,
        },
        cpu: 0,
        name: "loop".into(),
        pci: Vec::new(),
        one_file: false,
    })
}

#[test]
fn every_mbuf_returns_to_its_pool() {
    let eal = start().expect("DPDK starts without root or hugepages");
    assert!(matches!(start(), Err(DpdkError::AlreadyStarted)));
    for directory in ["/run/dpdk/vswitch-loop", "/tmp/dpdk/vswitch-loop"] {
        assert!(
            !std::path::Path::new(directory).exists(),
            "no directory is left behind"
        );
    }
    let options = PortOptions::default();
    let pool = Mempool::for_devices(&eal, [&Device::Offline], &options).expect("memory");
    let all = pool.available();
    assert_eq!(all, pool.capacity());

    mbuf_holds_a_frame(&pool);
    assert_eq!(pool.available(), all);
    burst_keeps_its_order(&pool);
    assert_eq!(pool.available(), all);

    let mut ring = Port::open_virtual(&eal, "net_ring0", "", &pool, &options).expect("net_ring");
    ring_returns_sent_frames(&mut ring, &pool);
    assert_eq!(pool.available(), all);
    full_device_leaves_the_rest_in_the_burst(&mut ring, &pool);
    assert_eq!(pool.available(), all);
    drop(ring);

    let mut null = Port::open_virtual(&eal, "net_null0", "", &pool, &options).expect("net_null");
    null_device_takes_and_delivers(&mut null, &pool);
    drop(null);
    assert_eq!(pool.available(), all);

    refusal_says_what_to_do(&eal, &pool, &options);
}

fn mbuf_holds_a_frame(pool: &Mempool) {
    let mut mbuf = pool.alloc_with(b"hello").expect("an mbuf");
    assert_eq!(mbuf.bytes(), b"hello");
    assert_eq!((mbuf.segments(), mbuf.stripped_tag()), (1, None));
    let changed = mbuf.change(|frame| {
        assert_eq!(frame.bytes(), b"hello");
        assert!(
            frame.has_headroom(),
            "there is room in front for an ICMP error"
        );
        frame.shrink_front(1);
        frame.truncate(3);
    });
    changed.expect("one segment");
    assert_eq!(mbuf.bytes(), b"ell");
    let too_long = vec![0; usize::from(pool.room())];
    assert!(pool.alloc_with(&too_long).is_none());
}

fn burst_keeps_its_order(pool: &Mempool) {
    let mut burst = Burst::new();
    for number in 0..Burst::CAPACITY as u8 {
        push(&mut burst, pool, &[number]);
    }
    assert!(burst.is_full());
    let refused = burst.push(pool.alloc_with(&[255]).expect("an mbuf"));
    assert_eq!(refused.expect_err("it is full").bytes(), [255]);
    let mut drain = burst.drain();
    for number in 0..10 {
        assert_eq!(drain.next().expect("ten of them").bytes(), [number]);
    }
    // The rest is freed.
    drop(drain);
    assert!(burst.is_empty());
}

fn ring_returns_sent_frames(ring: &mut Port, pool: &Mempool) {
    let mut burst = Burst::new();
    for number in 0..20 {
        push(&mut burst, pool, &[number; 60]);
    }
    assert_eq!(ring.tx(&mut burst), 20);
    assert!(burst.is_empty());
    assert_eq!(ring.rx(&mut burst), 20);
    burst.prefetch();
    for (number, mbuf) in burst.drain().enumerate() {
        assert_eq!(mbuf.bytes(), [number as u8; 60]);
    }
    assert_eq!(ring.rx(&mut burst), 0);
    assert!(ring.wait_fd().is_none(), "a ring cannot wake a sleeper");
    assert!(!ring.arm());
    let stats = ring.stats();
    assert_eq!((stats.rx_frames, stats.tx_frames), (20, 20));
}

fn full_device_leaves_the_rest_in_the_burst(ring: &mut Port, pool: &Mempool) {
    /// The capacity of net_ring's ring.
    const ROOM: u32 = 1023;
    let mut burst = Burst::new();
    let mut sent = 0;
    for number in 0..ROOM + 1 {
        push(&mut burst, pool, &number.to_be_bytes());
        if burst.is_full() {
            sent += ring.tx(&mut burst);
        }
    }
    assert_eq!((sent, burst.len()), (ROOM as usize, 1));
    assert_eq!(burst.as_slice()[0].bytes(), ROOM.to_be_bytes());
    burst.clear();
    let mut back = 0;
    while ring.rx(&mut burst) > 0 {
        for mbuf in burst.drain() {
            assert_eq!(mbuf.bytes(), u32::to_be_bytes(back));
            back += 1;
        }
    }
    assert_eq!(back, ROOM);
}

fn null_device_takes_and_delivers(null: &mut Port, pool: &Mempool) {
    let mut burst = Burst::new();
    assert_eq!(null.rx(&mut burst), Burst::CAPACITY);
    assert!(burst.iter().all(|mbuf| mbuf.bytes().len() == 64));
    assert_eq!(null.tx(&mut burst), Burst::CAPACITY);
    push(&mut burst, pool, b"one");
    assert_eq!(null.rx(&mut burst), Burst::CAPACITY - 1);
    assert_eq!(burst.as_slice()[0].bytes(), b"one");
    assert!(null.link_up());
}

fn refusal_says_what_to_do(eal: &Eal, pool: &Mempool, options: &PortOptions) {
    let refusal = |device: &Device| {
        Port::open(eal, "red-vm1", device, pool, options)
            .expect_err("it cannot be opened")
            .to_string()
    };
    assert_eq!(
        refusal(&Device::Offline),
        "port red-vm1: an offline device carries no frames: give it af_packet, af_xdp, memif or pci"
    );
    let interface = "no-such-if".to_owned();
    assert_eq!(
        refusal(&Device::AfPacket { interface }),
        "port red-vm1: no interface \"no-such-if\" in this network namespace: create it, or \
         correct device.interface"
    );
    let interface = "a,qpairs=9".to_owned();
    assert_eq!(
        refusal(&Device::AfPacket { interface }),
        "the device name \"a,qpairs=9\" has a character that DPDK cannot take in a name: use \
         letters, digits, '-', '_' and '.'"
    );
    let refused = Mempool::new(eal, 1_000_000, options.mtu).expect_err("2 GiB are not in 32 MiB");
    assert!(
        matches!(refused, DpdkError::PacketMemory { frames: 1_000_000, mib, .. } if mib > 2000),
        "{refused}"
    );
}

fn push(burst: &mut Burst, pool: &Mempool, bytes: &[u8]) {
    let mbuf = pool.alloc_with(bytes).expect("an mbuf");
    burst.push(mbuf).expect("room in the burst");
}
