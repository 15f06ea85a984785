//! A switch with two VMs and a tunnel, and the other stations of the underlay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::bed::{Bed, Switch, eventually, run};

pub(crate) const VNI: u32 = 5001;
/// The switch's tunnel side, inside the tunnel.
pub(crate) const TUNNEL_MAC: &str = "0e:00:13:89:00:02";
pub(crate) const UPLINK_MAC: &str = "02:00:13:89:00:00";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Vxlan,
    Geneve,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
        }
    }

    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Vxlan => 4789,
            Self::Geneve => 6081,
        }
    }
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// A station's address on the underlay.
    pub(crate) fn underlay(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(192, 0, 2, host).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, decimal_as_hex(host)).into(),
        }
    }

    /// A VM's address in the tenant's network.
    pub(crate) fn inner(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 0, 0, host).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, decimal_as_hex(host)).into(),
        }
    }

    /// The tunnel's overhead per inner packet, in bytes.
    pub(crate) fn overhead(self) -> u16 {
        match self {
            Self::V4 => 50,
            Self::V6 => 70,
        }
    }
}

/// Makes host 71 `::71`.
fn decimal_as_hex(host: u8) -> u16 {
    u16::from_str_radix(&host.to_string(), 16).expect("decimal digits are hexadecimal ones")
}

/// Another tunnel endpoint, with one VM behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// Its name and its namespace's.
    pub(crate) name: &'static str,
    /// Its host number on the underlay.
    pub(crate) host: u8,
    /// The VM's host number.
    pub(crate) inner: u8,
    /// The inner destination MAC of frames to it.
    pub(crate) mac: &'static str,
}

pub(crate) const FAR: Peer = Peer {
    name: "far",
    host: 66,
    inner: 71,
    mac: "52:54:00:bb:00:71",
};
pub(crate) const FAR2: Peer = Peer {
    name: "far2",
    host: 67,
    inner: 72,
    mac: "52:54:00:bb:00:72",
};

impl Peer {
    /// Its entry in the switch's configuration, on-link.
    pub(crate) fn config(&self, family: Family) -> Value {
        json!({
            "name": self.name,
            "vtep": family.underlay(self.host),
            "mac": self.mac,
            "next_hop": family.underlay(self.host),
            "prefixes": [
                format!("{}/32", Family::V4.inner(self.inner)),
                format!("{}/128", Family::V6.inner(self.inner)),
            ],
        })
    }
}

/// Namespaces: `sw` with the switch, `vm1` and `vm2` behind it, `wire` with the underlay's bridge,
/// and the stations that a test adds.
pub(crate) struct Site {
    pub(crate) switch: Option<Switch>,
    daemons: Vec<Child>,
    pub(crate) bed: Bed,
    pub(crate) kind: Kind,
    /// The underlay's IP version.
    pub(crate) family: Family,
}

impl Site {
    /// `None`, with a message, without root.
    pub(crate) fn new(
        test: &str,
        kind: Kind,
        family: Family,
        others: &[&'static str],
    ) -> Option<Self> {
        let names = [&["sw", "vm1", "vm2", "wire"], others].concat();
        let site = Self {
            switch: None,
            daemons: Vec::new(),
            bed: Bed::new(test, &names)?,
            kind,
            family,
        };
        let bed = &site.bed;
        // A snooping bridge is a station too: up to a second after its start it joins 224.0.0.106
        // (IGMP from 0.0.0.0).
        bed.inside(
            "wire",
            &[
                "link",
                "add",
                "bridge0",
                "type",
                "bridge",
                "mcast_snooping",
                "0",
            ],
        );
        bed.sysctl("wire", "net.ipv6.conf.bridge0.disable_ipv6=1");
        bed.inside("wire", &["link", "set", "bridge0", "up"]);
        // If netfilter filters bridged frames, it would drop the malformed ones.
        for calls in ["iptables", "ip6tables", "arptables"] {
            let setting = format!("net/bridge/bridge-nf-call-{calls}");
            if Path::new("/proc/sys").join(&setting).exists() {
                bed.sysctl("wire", &format!("{setting}=0"));
            }
        }
        site.plug("sw", "uplink", UPLINK_MAC);
        bed.sysctl("sw", "net.ipv6.conf.eth0.disable_ipv6=1");
        for number in [1, 2] {
            let guest = format!("vm{number}");
            bed.pair(("sw", &guest), &guest, &format!("52:54:00:aa:00:0{number}"));
            site.address(&guest, "eth0", Family::V4.inner(10 + number));
            site.address(&guest, "eth0", Family::V6.inner(10 + number));
            site.no_offload(&guest, "eth0");
            bed.inside(&guest, &["route", "add", "default", "via", "10.0.0.1"]);
        }
        for name in others {
            // Only frames of the test are on the underlay.
            bed.sysctl(name, "net.ipv6.conf.default.router_solicitations=0");
        }
        Some(site)
    }

    /// Attaches a namespace's `eth0` to the underlay's bridge, by a port of that name.
    pub(crate) fn plug(&self, name: &str, port: &str, mac: &str) {
        self.bed.pair(("wire", port), name, mac);
        let arguments = ["link", "set", "dev", port, "master", "bridge0"];
        self.bed.inside("wire", &arguments);
    }

    /// As [`Self::attach`], with the address of that host number.
    pub(crate) fn station(&self, name: &str, host: u8) {
        self.plug(name, name, &format!("52:54:00:ff:00:{:02}", host % 100));
        self.address(name, "eth0", self.family.underlay(host));
        self.no_offload(name, "eth0");
    }

    /// An address of the underlay or of a VM, with its subnet.
    pub(crate) fn address(&self, name: &str, interface: &str, address: IpAddr) {
        let prefix = if address.is_ipv4() { 24 } else { 64 };
        let address = format!("{address}/{prefix}");
        let arguments = ["addr", "add", &address, "dev", interface, "nodad"];
        let count = if prefix == 24 { 5 } else { 6 };
        self.bed.inside(name, &arguments[..count]);
    }

    /// Without a NIC's offloads, the kernel must complete checksums and segments itself.
    pub(crate) fn no_offload(&self, name: &str, interface: &str) {
        let mut ethtool = self.bed.command(name, "ethtool");
        run(ethtool.args(["-K", interface, "tx", "off", "gso", "off"]));
    }

    /// Sets the MTU of the underlay: of the bridge, its ports, and the stations' ends.
    pub(crate) fn underlay_mtu(&self, stations: &[&str], mtu: u16) {
        let mtu = mtu.to_string();
        for (name, port) in [("sw", "uplink")]
            .into_iter()
            .chain(stations.iter().map(|name| (*name, *name)))
        {
            self.bed
                .inside("wire", &["link", "set", "dev", port, "mtu", &mtu]);
            self.bed
                .inside(name, &["link", "set", "dev", "eth0", "mtu", &mtu]);
        }
        self.bed
            .inside("wire", &["link", "set", "dev", "bridge0", "mtu", &mtu]);
    }

    /// Adds a Linux host with a tunnel device of this site's kind, whose inner address is the
    /// peer's VM. False, with a message, if the kernel has no such device.
    pub(crate) fn linux(&self, test: &str, peer: &Peer) -> bool {
        self.linux_at(test, peer, self.family.underlay(peer.host))
    }

    /// The same with another underlay address.
    pub(crate) fn linux_at(&self, test: &str, peer: &Peer, local: IpAddr) -> bool {
        let netns = self.bed.netns(peer.name);
        let kind = self.kind.name();
        let (vni, port) = (VNI.to_string(), self.kind.port().to_string());
        let remote = self.family.underlay(2).to_string();
        let local = local.to_string();
        let mut arguments = vec!["-n", &netns, "link", "add", "tun0", "address", peer.mac];
        arguments.extend(["type", kind, "id", &vni, "remote", &remote]);
        arguments.extend(["dstport", &port, "ttl", "64"]);
        if self.kind == Kind::Vxlan {
            arguments.extend(["local", &local, "nolearning"]);
        }
        let output = Command::new("ip").args(&arguments).output();
        let output = output.expect("iproute2 is installed");
        let error = String::from_utf8_lossy(&output.stderr);
        if error.contains("Unknown device type") {
            println!("{test} is skipped: this kernel has no {kind} devices");
            return false;
        }
        assert!(output.status.success(), "{arguments:?}: {error}");
        let mtu = (1500 - self.family.overhead()).to_string();
        let up = ["link", "set", "dev", "tun0", "mtu", &mtu, "up"];
        self.bed.inside(peer.name, &up);
        for family in Family::BOTH {
            self.address(peer.name, "tun0", family.inner(peer.inner));
        }
        // No neighbour probes while frames are counted.
        for family in ["ipv4", "ipv6"] {
            let long = format!("net.{family}.neigh.tun0.base_reachable_time_ms=3600000");
            self.bed.sysctl(peer.name, &long);
        }
        self.no_offload(peer.name, "tun0");
        true
    }

    /// Starts a program that runs until this is dropped.
    pub(crate) fn daemon(&mut self, command: &mut Command) {
        let child = command.spawn();
        self.daemons
            .push(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    /// The switch's configuration, with these peers on-link.
    pub(crate) fn config(&self, peers: &[Peer]) -> Value {
        let port = |number: u8| {
            json!({
                "name": format!("red-vm{number}"),
                "device": { "driver": "af_packet", "interface": format!("vm{number}") },
                "gateway_mac": format!("02:00:13:89:00:0{number}"),
                "mac": format!("52:54:00:aa:00:0{number}"),
                "addresses": [
                    format!("{}/32", Family::V4.inner(10 + number)),
                    format!("{}/128", Family::V6.inner(10 + number)),
                ],
            })
        };
        json!({
            "tenant": "red",
            "vni": VNI,
            "gateway": { "ipv4": "10.0.0.1/24", "ipv6": "fd00:0:0:1::1/64" },
            "ports": [port(1), port(2)],
            "uplink": {
                "device": { "driver": "af_packet", "interface": "eth0" },
                "mac": UPLINK_MAC,
                "ipv4": "192.0.2.2/24",
                "ipv6": "2001:db8::2/64",
            },
            "tunnel": {
                "kind": self.kind.name(),
                "vtep": self.family.underlay(2),
                "port": self.kind.port(),
                "mac": TUNNEL_MAC,
                "udp_checksum": self.family == Family::V6,
                "peers": peers.iter().map(|peer| peer.config(self.family)).collect::<Vec<_>>(),
            },
            "control_socket": self.bed.path("control.sock"),
        })
    }

    /// Starts the switch, and fills all neighbour tables, so that later counts contain traffic
    /// only.
    pub(crate) fn start(&mut self, config: &Value, peers: &[Peer]) {
        self.switch = Some(Switch::start(&self.bed, "sw", config, &[]));
        for family in Family::BOTH {
            for peer in peers {
                for guest in ["vm1", "vm2"] {
                    self.reaches(guest, family.inner(peer.inner));
                }
            }
            self.reaches("vm1", family.inner(12));
            self.reaches("vm2", family.inner(11));
        }
    }

    /// Waits until at least twenty echoes come back. `ping` cannot say how many were lost: it waits
    /// for the last ones no longer than two round trips.
    #[track_caller]
    pub(crate) fn echoes(&self, from: &str, to: IpAddr) {
        let arguments = ["-c20", "-i0.002", "-w10", &to.to_string()];
        let pings = self.bed.ping(from, &arguments);
        assert!(pings.received >= 20, "{from} to {to}: {pings:?}");
    }

    /// Waits until an echo comes back.
    #[track_caller]
    pub(crate) fn reaches(&self, from: &str, to: IpAddr) {
        let to = to.to_string();
        eventually(&format!("an echo of {to} at {from}"), || {
            self.bed.ping(from, &["-c1", "-W1", &to]).received == 1
        });
    }

    pub(crate) fn switch(&self) -> &Switch {
        self.switch.as_ref().expect("it runs")
    }

    /// The entry of a peer in `vswitch show tunnels`.
    pub(crate) fn shown(&self, peer: &str) -> Value {
        let shown = self.switch().cli(&["show", "tunnels", "--json"]);
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        let peers = shown["peers"].as_array().expect("peers");
        let found = peers.iter().find(|row| row["name"] == peer);
        found
            .unwrap_or_else(|| panic!("no {peer} in {shown}"))
            .clone()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Whether a program is installed; prints a message if not.
pub(crate) fn has(test: &str, program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$1\" >/dev/null", "sh", program])
        .status()
        .expect("a shell")
        .success();
    if !found {
        println!("{test} is skipped: {program} is not installed (scripts/setup)");
    }
    found
}
