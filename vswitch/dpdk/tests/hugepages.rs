//! Packet memory from hugepages; skipped if none are free. DPDK starts once per process, so the
//! test has a file of its own.

use dpdk::{DpdkError, Eal, EalOptions, Mempool, PortOptions};
use tenant_config::{Device, Memory};

#[test]
fn pool_in_hugepages_is_limited_to_configured_memory() {
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
