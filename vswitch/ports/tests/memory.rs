//! The wire in memory carries frames in order, within its bounds, and wakes a receiver that asked
//! for it.
//!
//! DPDK starts once per process, so all of it is one test.

use std::os::fd::BorrowedFd;

use dpdk::{Burst, Eal, EalOptions, Mempool};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ports::{MemoryPort, Port, pair};
use tenant_config::Memory;

fn push(burst: &mut Burst, pool: &Mempool, numbers: std::ops::Range<u8>) {
    for number in numbers {
        let mbuf = pool.alloc_with(&[number; 60]).expect("a buffer");
        burst.push(mbuf).expect("room in the burst");
    }
}

fn numbers(burst: &mut Burst) -> Vec<u8> {
    burst.drain().map(|mbuf| mbuf.bytes()[0]).collect()
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).expect("poll works") == 1
}

#[test]
fn wire_in_memory_behaves_as_a_port() {
    let eal = Eal::start(&EalOptions {
        memory: Memory {
            mib: 32,
            hugepages: false,
        },
        cpu: 0,
        name: "memory-port".into(),
        pci: Vec::new(),
        one_file: false,
    })
    .expect("DPDK starts");
    let pool = Mempool::new(&eal, 512, 1500).expect("memory");
    let all = pool.available();
    let (one, other) = pair(8).expect("a wire");
    let (mut one, mut other) = (Port::from(one), Port::from(other));

    full_wire_leaves_the_rest_in_order(&mut one, &mut other, &pool);
    received_frames_go_behind_those_in_the_burst(&mut one, &mut other, &pool);
    armed_receiver_is_signalled_once(&mut one, &mut other, &pool);

    let (sent, received) = (one.stats(), other.stats());
    assert_eq!(
        (sent.tx_frames, sent.tx_bytes),
        (received.rx_frames, received.rx_bytes)
    );
    assert!(one.link_up() && !one.may_hold_frames());
    // Frames that nobody received are freed with the wire.
    let mut burst = Burst::new();
    push(&mut burst, &pool, 0..3);
    assert_eq!(one.tx(&mut burst), 3);
    drop(other);
    assert!(!one.link_up());
    drop(one);
    assert_eq!(pool.available(), all);

    last_subscription_is_what_the_peer_sees(pair(1).expect("a wire"));
}

fn full_wire_leaves_the_rest_in_order(one: &mut Port, other: &mut Port, pool: &Mempool) {
    let mut burst = Burst::new();
    push(&mut burst, pool, 0..20);
    assert_eq!(one.tx(&mut burst), 8);
    assert_eq!(one.tx(&mut burst), 0);
    let mut received = Burst::new();
    assert_eq!(other.rx(&mut received), 8);
    assert_eq!(numbers(&mut received), (0..8).collect::<Vec<_>>());
    assert_eq!(numbers(&mut burst), (8..20).collect::<Vec<_>>());
}

fn received_frames_go_behind_those_in_the_burst(one: &mut Port, other: &mut Port, pool: &Mempool) {
    let mut burst = Burst::new();
    push(&mut burst, pool, 0..5);
    one.tx(&mut burst);
    let mut received = Burst::new();
    push(&mut received, pool, 100..130);
    assert_eq!(other.rx(&mut received), 2);
    assert_eq!(numbers(&mut received)[29..], [129, 0, 1]);
    assert_eq!(other.rx(&mut received), 3);
}

fn armed_receiver_is_signalled_once(one: &mut Port, other: &mut Port, pool: &Mempool) {
    let mut burst = Burst::new();
    let signalled = |port: &Port| is_readable(port.wait_fd().expect("it can wake"));
    push(&mut burst, pool, 0..1);
    one.tx(&mut burst);
    assert!(!signalled(other), "it did not ask");
    assert!(other.arm());
    push(&mut burst, pool, 1..2);
    one.tx(&mut burst);
    assert!(signalled(other));
    other.disarm();
    assert!(!signalled(other));
    assert_eq!(other.rx(&mut burst), 2);
}

fn last_subscription_is_what_the_peer_sees((mut one, other): (MemoryPort, MemoryPort)) {
    one.set_multicast(&[[0x33, 0x33, 0, 0, 0, 1]], false);
    one.set_multicast(&[[0x33, 0x33, 0, 0, 0, 2]], true);
    assert_eq!(
        other.multicast_of_peer(),
        (vec![[0x33, 0x33, 0, 0, 0, 2]], true)
    );
}
