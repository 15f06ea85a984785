//! VMs of a cluster find each other: corosync forms a membership and loses a node, OSPF routers
//! become neighbours and reach what is behind each other, names are resolved by mDNS, and an
//! address moves as Kubernetes' load balancers announce it.
//!
//! The real switch, corosync, FRR, avahi and systemd-resolved, on this host's kernel, as root.
//! Without root the test prints that and passes.

#[path = "common/guest.rs"]
mod guest;
#[path = "common/image.rs"]
mod image;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;

use std::fs;
use std::time::{Duration, Instant};

use guest::{dropped, run, send, shown};
use image::Image;
use site::{Site, sh};

const TENANT: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
ipv6 = "fd00:0:0:1::1/64"
[multicast]
groups = ["224.0.0.5", "224.0.0.6", "224.0.0.251", "ff02::fb", "239.192.1.1"]
[uplink]
address = "192.0.2.11/24"
next_hop = "192.0.2.1"
[[port]]
name = "t1-node1"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.11", "fd00:0:0:1::11"]
routes = ["172.16.1.0/24"]
shared = ["10.1.0.100", "fd00:0:0:1::100"]
[[port]]
name = "t1-node2"
mac = "52:54:00:00:01:02"
addresses = ["10.1.0.12", "fd00:0:0:1::12"]
routes = ["172.16.2.0/24"]
shared = ["10.1.0.100", "fd00:0:0:1::100"]
[[port]]
name = "t1-client"
mac = "52:54:00:00:01:03"
addresses = ["10.1.0.13", "fd00:0:0:1::13"]
"#;

/// corosync at a node, with the transport `$transport`.
const COROSYNC: &str = r#"cat >/etc/corosync/corosync.conf <<END
totem {
  version: 2
  cluster_name: t1
  transport: $transport
  interface {
    ringnumber: 0
    linknumber: 0
    mcastport: 5405
    $group
  }
}
logging {
  to_stderr: yes
  to_syslog: no
}
quorum {
  provider: corosync_votequorum
  expected_votes: 2
}
nodelist {
  node {
    ring0_addr: 10.1.0.11
    nodeid: 1
    name: one
  }
  node {
    ring0_addr: 10.1.0.12
    nodeid: 2
    name: two
  }
}
END
corosync -f &
"#;

/// The other programs of a node; `$number` is 1 or 2.
const NODE: &str = r#"bus
# What is behind this router.
ip link add behind type veth peer name far
ip address add 172.16.$number.1/24 dev behind
ip link set far up
ip link set behind up
cat >/etc/frr/ospfd.conf <<END
interface eth0
 ip ospf area 0
 ip ospf hello-interval 1
 ip ospf dead-interval 4
router ospf
 ospf router-id 10.1.0.1$number
 redistribute connected
END
: >/etc/frr/zebra.conf
/usr/lib/frr/zebra --daemon --log stdout -f /etc/frr/zebra.conf
/usr/lib/frr/ospfd --daemon --log stdout -f /etc/frr/ospfd.conf

cat >/etc/avahi/avahi-daemon.conf <<END
[server]
host-name=node$number
allow-interfaces=eth0
END
avahi-daemon --no-chroot &
"#;

/// systemd-resolved asks by mDNS where it is told to.
const CLIENT: &str = r#"bus
/lib/systemd/systemd-resolved &
until resolvectl mdns eth0 yes; do
    sleep 0.1
done
"#;

fn add_address(site: &Site, guest: &str, address: &str) {
    let mut add = vec!["ip", "address", "add", address, "dev", "eth0"];
    if address.contains(':') {
        add.push("nodad");
    }
    assert!(run(site, guest, &add));
}

/// The membership has these nodes.
fn corosync_has_members(one: &Image, expected: &[&str]) {
    let status = "corosync-quorumtool -s";
    let text = one.wait_for(status, &format!("Nodes:            {}", expected.len()));
    for name in ["one", "two"] {
        assert_eq!(
            text.contains(&format!(" {name}")),
            expected.contains(&name),
            "{text}"
        );
    }
}

/// Each router reaches what is behind the other.
fn ospf_has_routes(one: &Image, two: &Image) {
    for (node, own, other) in [(one, 1, 2), (two, 2, 1)] {
        node.wait_for("vtysh -c 'show ip ospf neighbor'", "Full/");
        let route = format!("172.16.{other}.0/24 nhid");
        node.wait_for("ip route show proto ospf", &route);
        let ping = format!("ping -c1 -W2 -I 172.16.{own}.1 172.16.{other}.1");
        node.wait_for(&ping, "1 received");
    }
}

/// The client resolves the nodes' names by mDNS.
fn names_are_resolved(client: &Image) {
    for number in [1, 2] {
        let query = format!("resolvectl query --cache=no --protocol=mdns node{number}.local");
        client.wait_for(&query, &format!("10.1.0.1{number}"));
        let query = format!("{query} --type=AAAA");
        client.wait_for(&query, &format!("fd00:0:0:1::1{number}"));
    }
}

/// An ARP packet to all, in which the node claims the shared address.
fn arp(node: u8, operation: u8, target: &str) -> String {
    format!(
        "ffffffffffff52540000010{node}0806000108000604000{operation}\
         52540000010{node}0a010064{target}0a010064"
    )
}

/// An unsolicited Neighbour Advertisement of the shared address to all nodes, from the node's
/// link-local address, with the override flag.
fn advertisement(node: u8) -> String {
    let source = format!("fe800000000000005054 00fffe00010{node}").replace(' ', "");
    let group = "ff020000000000000000000000000001";
    let target = "fd000000000000010000000000000100";
    let option = format!("020152540000010{node}");
    let message = |sum: u32| format!("8800{sum:04x}20000000{target}{option}");
    let pseudo = format!("{source}{group}00000020 0000003a{}", message(0)).replace(' ', "");
    let words = (0..pseudo.len())
        .step_by(4)
        .map(|at| u32::from_str_radix(&pseudo[at..at + 4], 16).expect("digits"));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) & 0xffff;
    format!(
        "33330000000152540000010{node}86dd6000000000203aff{source}{group}{}",
        message(sum)
    )
}

/// What the load balancers of Kubernetes send when a node takes an address over.
fn announcements(node: u8) -> [(&'static str, Vec<String>); 2] {
    let all = "ffffffffffff";
    let own = format!("52540000010{node}");
    [
        // A request and a reply, both with the group's MAC for the target's.
        (
            "MetalLB",
            vec![arp(node, 1, all), arp(node, 2, all), advertisement(node)],
        ),
        // The one or the other in turn; in a reply, the target is itself.
        (
            "kube-vip",
            vec![arp(node, 2, &own), arp(node, 1, all), advertisement(node)],
        ),
    ]
}

const SHARED: [&str; 2] = ["10.1.0.100", "fd00:0:0:1::100"];

/// Who announces the addresses has them, and no other frame is needed. The nodes have them where
/// the kernel answers no question for them.
fn announced_address_moves(site: &Site) {
    for guest in ["t1-node1", "t1-node2"] {
        let script = "ip link set lo up
            ip address add 10.1.0.100/32 dev lo
            ip address add fd00:0:0:1::100/128 dev lo
            echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_ignore";
        assert!(run(site, guest, &["sh", "-ec", script]));
    }
    for round in 0..2 {
        for node in [1, 2] {
            let guest = format!("t1-node{node}");
            let (who, frames) = &announcements(node)[round];
            send(site, &guest, frames);
            let began = Instant::now();
            let held = || {
                let neighbours = shown(site, "neighbours");
                let neighbours = neighbours.as_array().expect("a list").clone();
                SHARED.map(|address| {
                    let mut held = neighbours
                        .iter()
                        .filter(|it| it["address"] == address && it["state"] == "held");
                    held.next().is_some_and(|it| it["port"] == guest)
                })
            };
            while held() != [true; 2] {
                assert!(
                    began.elapsed() < Duration::from_secs(5),
                    "{who} at {guest}: {}",
                    shown(site, "neighbours")
                );
                std::thread::sleep(Duration::from_millis(50));
            }
            println!(
                "{who}: the addresses are at {guest} after {:?}",
                began.elapsed()
            );
            for address in SHARED {
                assert!(
                    run(site, "t1-client", &["ping", "-c1", "-W2", address]),
                    "{address} does not answer, announced by {who} at {guest}"
                );
            }
            for reason in ["arp-sender-ip", "arp-invalid", "nd-spoof"] {
                assert_eq!(dropped(site, &guest, reason), 0, "{reason} of {who}");
            }
        }
    }
}

#[test]
fn members_find_each_other() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    if Image::packages().is_none() {
        eprintln!("skipped: corosync is not unpacked (scripts/setup)");
        return;
    }
    let site = Site::new("twc", 93_300, Vec::new());
    let file = site.dir.path().join("t1.toml");
    fs::write(&file, TENANT).expect("a file");
    site.good(&["apply", file.to_str().expect("UTF-8")]);
    for (guest, number) in [("t1-node1", 11), ("t1-node2", 12), ("t1-client", 13)] {
        add_address(&site, guest, &format!("10.1.0.{number}/24"));
        add_address(&site, guest, &format!("fd00:0:0:1::{number}/64"));
        let routes = "ip link set lo up
            ip route add default via 10.1.0.1";
        assert!(run(&site, guest, &["sh", "-ec", routes]));
    }
    let node = |number: u8| {
        let group = "transport=udp group='mcastaddr: 239.192.1.1'";
        let script = format!("number={number} {group}\n{COROSYNC}{NODE}");
        Image::boot(&site, &format!("t1-node{number}"), &script)
    };
    let (one, two) = (node(1), node(2));
    let client = Image::boot(&site, "t1-client", CLIENT);

    corosync_has_members(&one, &["one", "two"]);
    names_are_resolved(&client);
    ospf_has_routes(&one, &two);
    let dropped_of_nodes = ["multicast", "no-member", "ttl"]
        .map(|reason| ["t1-node1", "t1-node2"].map(|guest| dropped(&site, guest, reason)));
    println!("dropped by the reasons multicast, no-member, ttl: {dropped_of_nodes:?}");
    drop(two);
    corosync_has_members(&one, &["one"]);
    drop((one, client));
    // Its default.
    let [one, two] = ["t1-node1", "t1-node2"].map(|guest| {
        let script = format!("transport=knet group=\n{COROSYNC}");
        Image::boot(&site, guest, &script)
    });
    corosync_has_members(&one, &["one", "two"]);
    drop((one, two));

    announced_address_moves(&site);
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}
