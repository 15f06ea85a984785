//! Packet memory from hugepages, where there are some. DPDK starts once per process, so this is a file of its own.

use dpdk::{DpdkError, Eal, EalOptions, Mempool, PortOptions};
use tenant_config::{Device, Memory};

#[test]
fn hugepages_hold_the_packets_and_no_more_than_asked_for() {
    let memory = Memory {
        mib: 32,
        hugepages: true,
    };
    let started = Eal::start(&EalOptions {
        memory,
        cpu: 0,
        name: "huge".into(),
        pci: Vec::new(),
        one_file: false,
    });
    let eal = match started {
        Err(missing @ DpdkError::Hugepages { .. }) => {
            println!("skipped: {missing}");
            return;
        }
        started => started.expect("DPDK starts"),
    };
    let options = PortOptions::default();
    let pool = Mempool::for_devices(&eal, [&Device::Offline], &options).expect("memory");
    assert_eq!(
        pool.alloc_with(b"hello").expect("an mbuf").bytes(),
        b"hello"
    );
    let refused = Mempool::new(&eal, 40_000, options.mtu).expect_err("90 MiB are not in 32");
    assert!(matches!(refused, DpdkError::PacketMemory { .. }));
}
