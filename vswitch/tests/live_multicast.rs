//! Multicast and broadcast among guests with the kernel's own sockets, on one host and on three
//! with a tunnel: what its IGMP and MLD say is what the switch hears, and its peers.
//!
//! Needs root; without it the test is skipped.

#[path = "common/bed.rs"]
#[expect(dead_code, reason = "a part of it suffices here")]
mod bed;

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use bed::{Bed, Switch, eventually, run};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 192, 1, 1);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 7);
const MDNS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5405;
const GUESTS: [&str; 3] = ["vm1", "vm2", "vm3"];

fn within<T: Send + 'static>(
    bed: &Bed,
    name: &str,
    make: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> T {
    let netns = File::open(format!("/run/netns/{}", bed.netns(name))).expect("the namespace");
    let maker = thread::spawn(move || {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        make()
    });
    let made = maker.join().expect("it ends");
    made.unwrap_or_else(|error| panic!("in {name}: {error}"))
}

/// A socket at the port, which listens to the group if there is one.
fn listener(bed: &Bed, name: &str, group: Option<IpAddr>) -> UdpSocket {
    within(bed, name, move || {
        let any: IpAddr = match group {
            Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, PORT))?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        let index = if_nametoindex("eth0")?;
        match group {
            Some(IpAddr::V4(group)) => socket.join_multicast_v4(&group, &own_of_eth0()?)?,
            Some(IpAddr::V6(group)) => socket.join_multicast_v6(&group, index)?,
            None => {}
        }
        Ok(socket)
    })
}

/// The address by which the kernel reaches the gateway.
fn own_of_eth0() -> io::Result<Ipv4Addr> {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    probe.connect(("10.0.0.1", 9))?;
    match probe.local_addr()?.ip() {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => Err(io::Error::other("not IPv4")),
    }
}

fn sender(bed: &Bed, name: &str, own: IpAddr) -> UdpSocket {
    within(bed, name, move || {
        let socket = UdpSocket::bind((own, 0))?;
        if own.is_ipv4() {
            socket.set_broadcast(true)?;
        }
        Ok(socket)
    })
}

/// Whether a datagram arrives, within a third of a second.
fn hears(socket: &UdpSocket) -> bool {
    let mut buffer = [0; 64];
    socket.recv_from(&mut buffer).is_ok()
}

fn config(bed: &Bed) -> Value {
    let port = |number: usize| {
        json!({
            "name": format!("red-vm{number}"),
            "device": { "driver": "af_packet", "interface": format!("vm{number}") },
            "gateway_mac": format!("02:00:13:89:00:0{number}"),
            "mac": format!("52:54:00:aa:00:0{number}"),
            "addresses": [format!("10.0.0.1{number}/32"), format!("fd00:0:0:1::1{number}/128")],
        })
    };
    json!({
        "tenant": "red",
        "vni": 5001,
        "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64" },
        "ports": (1..=3).map(port).collect::<Vec<_>>(),
        "multicast": {
            "groups": ["224.0.0.251/32", "239.192.0.0/16", "ff05::/16"],
            "broadcast": "allow",
        },
        "control_socket": bed.path("control.sock"),
    })
}

#[test]
fn groups_and_broadcasts_reach_the_kernels_members() {
    let names = ["sw", "vm1", "vm2", "vm3"];
    let Some(bed) = Bed::new("multicast", &names) else {
        return;
    };
    for (number, guest) in (1..).zip(GUESTS) {
        let mac = format!("52:54:00:aa:00:0{number}");
        bed.pair(("sw", guest), guest, &mac);
        let ipv4 = format!("10.0.0.1{number}/24");
        bed.inside(
            guest,
            &["addr", "add", &ipv4, "brd", "10.0.0.255", "dev", "eth0"],
        );
        let ipv6 = format!("fd00:0:0:1::1{number}/64");
        bed.inside(guest, &["addr", "add", &ipv6, "dev", "eth0", "nodad"]);
        bed.inside(guest, &["route", "add", "default", "via", "10.0.0.1"]);
        // Without a NIC's offloads, the kernel must complete checksums itself.
        run(bed
            .command(guest, "ethtool")
            .args(["-K", "eth0", "tx", "off"]));
    }
    // An old guest among new ones.
    bed.sysctl("vm3", "net.ipv4.conf.eth0.force_igmp_version=2");
    bed.sysctl("vm3", "net.ipv6.conf.eth0.force_mld_version=1");
    let switch = Switch::start(&bed, "sw", &config(&bed), &[]);
    for guest in GUESTS {
        eventually("the gateway answers", || {
            bed.ping(guest, &["-c1", "-W1", "10.0.0.1"]).received == 1
        });
    }
    let own6: IpAddr = "fd00:0:0:1::11".parse().expect("an address");
    for (group, own) in [
        (IpAddr::from(GROUP), IpAddr::from([10, 0, 0, 11])),
        (IpAddr::from(GROUP6), own6),
    ] {
        let from = sender(&bed, "vm1", own);
        let to = SocketAddr::from((group, PORT));
        let say = || from.send_to(b"hello", to).expect("it is sent");
        let before = switch.drops("red-vm1", "no-member");
        say();
        eventually("nobody listens", || {
            switch.drops("red-vm1", "no-member") > before
        });
        let second = listener(&bed, "vm2", Some(group));
        let deaf = listener(&bed, "vm3", None);
        eventually("the member hears", || {
            say();
            hears(&second)
        });
        assert!(!hears(&deaf));
        drop(deaf);
        let third = listener(&bed, "vm3", Some(group));
        eventually("the old member hears", || {
            say();
            hears(&third)
        });
        assert!(hears(&second));
        // The kernel leaves with the last socket, and the switch asks twice.
        drop((second, third));
        eventually("nobody listens any more", || {
            let before = switch.drops("red-vm1", "no-member");
            say();
            thread::sleep(Duration::from_millis(200));
            switch.drops("red-vm1", "no-member") > before
        });
    }
    let from = sender(&bed, "vm1", [10, 0, 0, 11].into());
    for to in [MDNS, Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 0, 0, 255)] {
        let group = to.is_multicast().then_some(to.into());
        let listeners = ["vm2", "vm3"].map(|name| listener(&bed, name, group));
        from.send_to(b"hello", (to, PORT)).expect("it is sent");
        assert!(listeners.iter().all(hears), "{to}");
    }
    let refused = switch.drops("red-vm1", "multicast");
    from.send_to(b"hello", (Ipv4Addr::new(239, 193, 0, 1), PORT))
        .expect("it is sent");
    eventually("the group is not listed", || {
        switch.drops("red-vm1", "multicast") > refused
    });
}

/// A host of three, each with a VM and the others for peers.
fn host(bed: &Bed, own: usize) -> Value {
    let peer = |number: usize| {
        json!({
            "name": format!("host{number}"),
            "vtep": format!("192.0.2.{number}"),
            "mac": format!("0e:00:13:89:00:0{number}"),
            "next_hop": format!("192.0.2.{number}"),
            "prefixes": [format!("10.0.0.1{number}/32"), format!("fd00:0:0:1::1{number}/128")],
        })
    };
    json!({
        "tenant": "red",
        "vni": 5001,
        "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64" },
        "ports": [{
            "name": format!("red-vm{own}"),
            "device": { "driver": "af_packet", "interface": "vm" },
            "gateway_mac": format!("02:00:13:89:00:1{own}"),
            "mac": format!("52:54:00:aa:00:0{own}"),
            "addresses": [format!("10.0.0.1{own}/32"), format!("fd00:0:0:1::1{own}/128")],
        }],
        "uplink": {
            "device": { "driver": "af_packet", "interface": "eth0" },
            "mac": format!("02:00:13:89:00:0{own}"),
            "ipv4": format!("192.0.2.{own}/24"),
        },
        "tunnel": {
            "kind": "geneve",
            "port": 6081,
            "vtep": format!("192.0.2.{own}"),
            "mac": format!("0e:00:13:89:00:0{own}"),
            "udp_checksum": false,
            "peers": (1..=3).filter(|it| *it != own).map(peer).collect::<Vec<_>>(),
        },
        "multicast": { "groups": ["239.192.0.0/16", "ff05::/16"] },
        "control_socket": bed.path(&format!("control{own}.sock")),
    })
}

/// Frames that the switch has sent into the tunnel to the peer.
fn sent_to(switch: &Switch, peer: &str) -> u64 {
    let tunnels = switch.get("/v1/tunnels");
    let mut peers = tunnels["peers"].as_array().expect("a list").iter();
    let found = peers.find(|it| it["name"] == peer).expect("the peer");
    found["tx_frames"].as_u64().expect("a number")
}

/// Frames to groups without a member that the switch got.
fn unwanted(switch: &Switch) -> u64 {
    let drops = switch.get("/v1/drops");
    let drops = drops.as_array().expect("a list").iter();
    let unwanted = drops.filter(|it| it["reason"] == "no-member");
    unwanted
        .map(|it| it["frames"].as_u64().expect("a number"))
        .sum()
}

/// A group's packet crosses the underlay to the hosts with members, and to no other.
#[test]
fn groups_reach_members_behind_peers_only() {
    const SWITCHES: [&str; 3] = ["sw1", "sw2", "sw3"];
    let names = [&["wire"][..], &SWITCHES, &GUESTS].concat();
    let Some(bed) = Bed::new("multicast-peers", &names) else {
        return;
    };
    let bridge = ["link", "add", "bridge0", "type", "bridge"];
    bed.inside("wire", &[&bridge[..], &["mcast_snooping", "0"]].concat());
    bed.sysctl("wire", "net.ipv6.conf.bridge0.disable_ipv6=1");
    bed.inside("wire", &["link", "set", "bridge0", "up"]);
    for (number, (switch, guest)) in (1..).zip(SWITCHES.into_iter().zip(GUESTS)) {
        bed.pair(
            ("wire", switch),
            switch,
            &format!("02:00:13:89:00:0{number}"),
        );
        bed.sysctl(switch, "net.ipv6.conf.eth0.disable_ipv6=1");
        let attach = ["link", "set", "dev", switch, "master", "bridge0"];
        bed.inside("wire", &attach);
        bed.pair((switch, "vm"), guest, &format!("52:54:00:aa:00:0{number}"));
        let ipv4 = format!("10.0.0.1{number}/24");
        bed.inside(guest, &["addr", "add", &ipv4, "dev", "eth0"]);
        let ipv6 = format!("fd00:0:0:1::1{number}/64");
        bed.inside(guest, &["addr", "add", &ipv6, "dev", "eth0", "nodad"]);
        bed.inside(guest, &["route", "add", "default", "via", "10.0.0.1"]);
        run(bed
            .command(guest, "ethtool")
            .args(["-K", "eth0", "tx", "off"]));
    }
    let [first, _second, third] =
        [1, 2, 3].map(|number| Switch::start(&bed, SWITCHES[number - 1], &host(&bed, number), &[]));
    for address in ["10.0.0.12", "10.0.0.13"] {
        eventually("the tunnel is up", || {
            bed.ping("vm1", &["-c1", "-W1", address]).received == 1
        });
    }
    let own6: IpAddr = "fd00:0:0:1::11".parse().expect("an address");
    for (group, own) in [
        (IpAddr::from(GROUP), IpAddr::from([10, 0, 0, 11])),
        (IpAddr::from(GROUP6), own6),
    ] {
        let from = sender(&bed, "vm1", own);
        match group {
            // Linux sends groups' packets with a TTL of 1, which ends at the first router.
            IpAddr::V4(_) => from.set_multicast_ttl_v4(8).expect("a TTL"),
            IpAddr::V6(_) => {}
        }
        let to = SocketAddr::from((group, PORT));
        let say = || from.send_to(b"hello", to).expect("it is sent");
        let before = first.drops("red-vm1", "no-member");
        say();
        eventually("nobody listens", || {
            first.drops("red-vm1", "no-member") > before
        });
        let member = listener(&bed, "vm2", Some(group));
        let deaf = listener(&bed, "vm3", None);
        eventually("the member hears", || {
            say();
            hears(&member)
        });
        while hears(&member) {}
        let (other, before) = (sent_to(&first, "host3"), unwanted(&third));
        for _ in 0..50 {
            say();
            assert!(hears(&member), "{group}");
        }
        let other = sent_to(&first, "host3") - other;
        // What it says of its own members.
        assert!(other < 10, "{other} frames to a host without a member");
        assert!(!hears(&deaf));
        assert_eq!(unwanted(&third), before, "copies came");
        drop(deaf);
        // It joins, too, and both have each packet.
        let late = listener(&bed, "vm3", Some(group));
        eventually("the second member hears", || {
            say();
            hears(&late)
        });
        while hears(&member) {}
        say();
        assert!(hears(&member) && hears(&late), "{group}");
        drop((member, late));
        eventually("nobody listens any more", || {
            let before = first.drops("red-vm1", "no-member");
            say();
            thread::sleep(Duration::from_millis(200));
            first.drops("red-vm1", "no-member") > before
        });
    }
}
