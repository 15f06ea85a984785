//! The switch's end of the channel to its supervisor, over a worker on ports in memory. Needs no
//! root.
//!
//! DPDK starts once per process, so all of it is one test.

#[path = "common/wait.rs"]
mod wait;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dpdk::{Eal, EalOptions, Mempool};
use pipeline::Generation;
use ports::Port;
use tenant_config::{Memory, SwitchConfig, Tenant};
use vswitch::control::{ChannelSocket, Control, Socket, SocketError};
use vswitch::worker::{Link, PollMode, Worker};
use vswitch_api::channel::{
    Channel, Clients, Hex, Holder, Identifier, Lease, MESSAGE_MAX, Order, PortClients,
    ReceiveError, Report, Totals, VERSION,
};
use wait::eventually;

const TENANT: &str = r#"
name = "red"
vni = 5001
[gateway]
ipv4 = "10.0.0.1/24"
[[port]]
name = "vm1"
mac = "52:54:00:aa:00:01"
addresses = ["10.0.0.11"]
dhcp_server = true
[[port]]
name = "vm2"
mac = "52:54:00:aa:00:02"
addresses = "learn-dhcp"
shared = ["10.0.0.100", "10.0.0.101"]
[[port]]
name = "vm3"
mac = "52:54:00:aa:00:03"
addresses = "learn-dhcp"
"#;

fn config() -> SwitchConfig {
    let tenant = Tenant::parse("red.toml", TENANT).expect("a tenant");
    tenant.offline_config()
}

fn lease(port: &str, host: u8, seconds_left: u32) -> Lease {
    let ports = config().ports;
    let known = ports.iter().find(|known| known.name.as_str() == port);
    Lease {
        port: port.to_owned(),
        mac: known.map_or([2; 6], |known| known.mac.octets()),
        address: Ipv4Addr::new(10, 0, 0, host),
        seconds_left,
    }
}

/// A supervisor's connection, after the switch has said hello.
fn connect(path: &Path) -> Channel {
    let channel = Channel::connect(path).expect("the switch listens");
    assert_eq!(receive(&channel), Ok(Report::Hello { version: VERSION }));
    channel
}

/// The next message, or why there is none.
fn receive(channel: &Channel) -> Result<Report, String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match channel.receive() {
            Err(ReceiveError::Empty) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            received => return received.map_err(|error| error.to_string()),
        }
    }
}

fn restore(channel: &Channel, leases: &[Lease]) {
    let order = Order::Restore {
        leases: leases.to_vec(),
    };
    channel.send(&order).expect("it is sent");
}

/// The ports and addresses of the next report, each lease of which lasts for `seconds` or a little
/// less.
fn reported(channel: &Channel, seconds: u32) -> Vec<(String, Ipv4Addr)> {
    let Ok(Report::Leases { leases }) = receive(channel) else {
        panic!("no report");
    };
    let each = leases.into_iter().map(|lease| {
        assert!(
            (seconds - 10..=seconds).contains(&lease.seconds_left),
            "{lease:?}"
        );
        (lease.port, lease.address)
    });
    each.collect()
}

#[test]
fn supervisor_is_served_within_its_bounds() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let socket = Socket::bind(&path("control.sock")).expect("a socket");
    let channel = ChannelSocket::bind(&path("channel.sock")).expect("a socket");
    let second = ChannelSocket::bind(&path("channel.sock"));
    assert!(matches!(second, Err(SocketError::InUse(_))), "{second:?}");

    let eal = Eal::start(&EalOptions {
        memory: Memory {
            mib: 32,
            hugepages: false,
        },
        cpu: 0,
        name: "supervisor-test".into(),
        pci: Vec::new(),
        one_file: false,
    })
    .expect("DPDK starts");
    let pool = Mempool::new(&eal, 512, 1500).expect("memory");
    let wires = config().ports.len();
    let (_ends, ports): (Vec<_>, Vec<_>) = (0..wires)
        .map(|_| ports::pair(64).expect("a wire"))
        .map(|(end, port)| (end, Port::from(port)))
        .unzip();
    let generation = Generation::build(&config(), None);
    let views = (generation.counters(), generation.tables());
    let link = Link::new(ports.len()).expect("a link");
    let mut worker =
        Worker::new(&eal, ports, pool, generation, Arc::clone(&link)).expect("a worker");

    let listener = socket.listener().expect("a listener");
    let channel_listener = channel.listener().expect("a listener");
    let control =
        Control::new(config(), views, Arc::clone(&link)).with_channel(Some(channel_listener));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let end = async { drop(stopped.await) };
        runtime
            .expect("a runtime")
            .block_on(control.serve(listener, end))
    });
    let path = path("channel.sock");
    let its_path = path.clone();
    let client = std::thread::spawn(move || {
        let result = std::panic::catch_unwind(|| {
            leases_are_restored_and_reported(&its_path);
            supervisor_that_breaks_the_rules_is_disconnected(&its_path);
            holders_are_restored_and_reported(&its_path);
            counters_are_reported_when_they_change(&its_path);
            clients_are_restored_and_reported(&its_path);
        });
        link.stop();
        result
    });
    worker.run(PollMode::Adaptive);
    if let Err(panic) = client.join().expect("it is caught") {
        std::panic::resume_unwind(panic);
    }
    stop.send(()).expect("the server waits");
    server.join().expect("no panic").expect("no error");
    assert!(path.exists());
    drop(channel);
    assert!(!path.exists());
}

fn leases_are_restored_and_reported(path: &Path) {
    let named = |leases: &[Lease]| -> Vec<_> {
        let each = leases
            .iter()
            .map(|lease| (lease.port.clone(), lease.address));
        each.collect()
    };
    let (taken, refused) = (
        [lease("vm2", 50, 3600), lease("vm3", 51, 3600)],
        [
            lease("vm1", 52, 3600),
            lease("vm2", 11, 3600),
            lease("vm9", 53, 3600),
        ],
    );
    let first = connect(path);
    restore(&first, &[&refused[..], &taken[..1]].concat());
    assert_eq!(reported(&first, 3600), named(&taken[..1]));
    drop(first);

    // As if the port had had another MAC when the lease was granted.
    let mut strange = taken[1].clone();
    strange.mac[5] = 9;
    // Another supervisor gets the same report, and does not replace leases that are in use.
    let second = connect(path);
    restore(&second, &[lease("vm2", 54, 3600), strange.clone()]);
    assert_eq!(reported(&second, 3600), named(&taken[..1]));
    drop(second);
    let second = connect(path);
    restore(&second, &[strange, taken[1].clone()]);
    assert_eq!(reported(&second, 3600), named(&taken));
}

/// Waits until the switch has closed the connection.
#[track_caller]
fn is_closed(channel: &Channel) {
    eventually("it is closed", || {
        matches!(
            channel.receive::<Report>(),
            Err(ReceiveError::Closed | ReceiveError::Socket(_))
        )
    });
}

fn supervisor_that_breaks_the_rules_is_disconnected(path: &Path) {
    let talkative = connect(path);
    restore(&talkative, &[]);
    restore(&talkative, &[]);
    is_closed(&talkative);

    let confused = connect(path);
    confused
        .send(&Report::Hello { version: VERSION })
        .expect("it is sent");
    is_closed(&confused);

    let longest = connect(path);
    let text = "x".repeat(MESSAGE_MAX - 2);
    longest.send(&text).expect("as long as a message may be");
    is_closed(&longest);

    for orders in [
        // More ports than there are.
        vec![vec![PortClients::default(); 4]],
        // Clients come once.
        vec![Vec::new(), Vec::new()],
    ] {
        let breaker = connect(path);
        for ports in orders {
            let order = Order::Clients { ports };
            breaker.send(&order).expect("it is sent");
        }
        is_closed(&breaker);
    }

    // The switch serves the next one all the same.
    restore(&connect(path), &[]);
}

fn clients_are_restored_and_reported(path: &Path) {
    let client = |port: &str, value: &[u8]| {
        let identifier = Identifier {
            value: Hex(value.to_vec()),
            owned: 3600,
            counted: 7200,
            address: Some(Ipv4Addr::new(10, 0, 0, 50)),
            associations: Vec::new(),
        };
        let clients = Clients {
            identifiers: vec![identifier],
            declined: vec![3600],
        };
        PortClients {
            port: port.to_owned(),
            mac: lease(port, 50, 0).mac,
            dhcp: clients.clone(),
            dhcp6: clients,
            // Another one for each value.
            claimed: vec![format!("fe80::{:x}", value[1]).parse().expect("an address")],
        }
    };
    let (vm2, vm3) = (client("vm2", b"one"), client("vm3", b"two"));
    // One of a MAC that the port has not, and one with an identifier that is another's.
    let strange = PortClients {
        mac: [2; 6],
        ..client("vm1", b"three")
    };
    for (given, taken) in [
        (vec![vm2.clone(), client("vm3", b"one")], vec![&vm2]),
        (vec![strange, vm3.clone()], vec![&vm2, &vm3]),
    ] {
        let channel = connect(path);
        let order = Order::Clients { ports: given };
        channel.send(&order).expect("it is sent");
        restore(&channel, &[]);
        assert!(matches!(receive(&channel), Ok(Report::Leases { .. })));
        let clients = match receive(&channel) {
            Ok(Report::Holders { .. }) => receive(&channel),
            report => report,
        };
        let Ok(Report::Clients { mut ports }) = clients else {
            panic!("no clients");
        };
        for clients in ports
            .iter_mut()
            .flat_map(|it| [&mut it.dhcp, &mut it.dhcp6])
        {
            let identifiers = clients.identifiers.iter_mut();
            let times = identifiers.flat_map(|it| [(&mut it.owned, 3600), (&mut it.counted, 7200)]);
            for (seconds, most) in times.chain(clients.declined.iter_mut().map(|it| (it, 3600))) {
                assert!((most - 10..=most).contains(seconds), "{seconds}");
                *seconds = most;
            }
        }
        assert_eq!(ports.iter().collect::<Vec<_>>(), taken);
    }
}

fn holders_are_restored_and_reported(path: &Path) {
    let holder = |host: u8, port: &str| Holder {
        address: Ipv4Addr::new(10, 0, 0, host).into(),
        port: port.to_owned(),
        mac: lease("vm2", 0, 0).mac,
    };
    let (taken, refused) = (
        vec![holder(100, "vm2"), holder(101, "vm2")],
        [holder(102, "vm2"), holder(100, "vm3"), holder(11, "vm1")],
    );
    let channel = connect(path);
    let holders = [&refused[..], &taken].concat();
    let order = Order::Holders { holders };
    channel.send(&order).expect("it is sent");
    restore(&channel, &[]);
    assert!(matches!(receive(&channel), Ok(Report::Leases { .. })));
    assert_eq!(receive(&channel), Ok(Report::Holders { holders: taken }));
}

fn counters_are_reported_when_they_change(path: &Path) {
    let channel = connect(path);
    restore(&channel, &[]);
    assert!(matches!(receive(&channel), Ok(Report::Leases { .. })));
    assert!(matches!(receive(&channel), Ok(Report::Holders { .. })));
    let Ok(Report::Counters { mut ports }) = receive(&channel) else {
        panic!("no counters");
    };
    // Before they were restored, the port was asked for the addresses that it may hold.
    let asked = ports.get_mut("vm2").map(std::mem::take).unwrap_or_default();
    assert_eq!((asked.rx_frames, asked.tx_frames * 42), (0, asked.tx_bytes));
    let none = ["vm1", "vm2", "vm3"].map(|port| (port.to_owned(), Totals::default()));
    assert_eq!(ports, none.into());
    // Longer than the interval.
    std::thread::sleep(Duration::from_secs(6));
    let unchanged = channel.receive::<Report>();
    assert!(
        matches!(unchanged, Err(ReceiveError::Empty)),
        "{unchanged:?}"
    );
}
