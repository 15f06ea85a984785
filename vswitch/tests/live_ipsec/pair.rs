//! Two switches, `a` and `b`, each with one VM and one IKE daemon, and the underlay between them.

use std::fs::Permissions;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bed::{Bed, Switch, eventually, run};
use crate::capture::{Capture, Captured};
use crate::charon::{Charon, Proof, program};

/// What a VM's pings hold, to be looked for on the wire.
pub(crate) const PATTERN: &str = "c0ffee5ecde70001";

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) name: &'static str,
    /// The namespaces of its switch and its VM.
    pub(crate) netns: &'static str,
    pub(crate) vm: &'static str,
    host: u8,
}

pub(crate) const A: Side = Side {
    name: "a",
    netns: "swa",
    vm: "vma",
    host: 1,
};
pub(crate) const B: Side = Side {
    name: "b",
    netns: "swb",
    vm: "vmb",
    host: 2,
};
pub(crate) const BOTH: [Side; 2] = [A, B];

/// What a tunnel is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) kind: &'static str,
    pub(crate) port: u16,
    /// The underlay is of IPv6.
    pub(crate) v6: bool,
    /// The suite, as the configuration names it.
    pub(crate) suite: &'static str,
    /// The proposals of the daemons, for ESP and for IKE itself.
    pub(crate) esp: &'static str,
    pub(crate) ike: &'static str,
}

pub(crate) const TERMS: Terms = Terms {
    kind: "geneve",
    port: 6081,
    v6: false,
    suite: "aes256gcm16",
    esp: "aes256gcm16-x25519-esn",
    ike: "aes256gcm16-prfsha256-x25519",
};

impl Side {
    pub(crate) fn other(&self) -> Self {
        if self.name == A.name { B } else { A }
    }

    pub(crate) fn vtep(&self, terms: &Terms) -> IpAddr {
        match terms.v6 {
            false => IpAddr::from([192, 0, 2, self.host]),
            true => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(self.host)]),
        }
    }

    /// The same with its subnet.
    pub(crate) fn subnet(&self, terms: &Terms) -> String {
        let prefix = if terms.v6 { 64 } else { 24 };
        format!("{}/{prefix}", self.vtep(terms))
    }

    /// The VM's address.
    pub(crate) fn inner(&self) -> String {
        format!("10.0.0.1{}", self.host)
    }

    pub(crate) fn identity(&self) -> String {
        format!("host-{}.example", self.name)
    }

    /// The IKE daemon's user.
    pub(crate) fn uid(&self) -> u32 {
        64_000 + u32::from(self.host)
    }

    pub(crate) fn socket(&self, bed: &Bed) -> PathBuf {
        bed.path(&format!("ike-{}.sock", self.name))
    }

    /// Its port of the underlay's bridge.
    fn port(&self) -> &'static str {
        if self.name == A.name { "to-a" } else { "to-b" }
    }

    pub(crate) fn uplink_mac(&self) -> String {
        format!("02:00:13:89:0{}:00", self.host)
    }

    pub(crate) fn tunnel_mac(&self) -> String {
        format!("0e:00:13:89:00:0{}", self.host)
    }

    pub(crate) fn vm_mac(&self) -> String {
        format!("52:54:00:aa:00:0{}", self.host)
    }

    pub(crate) fn config(&self, bed: &Bed, terms: &Terms) -> Value {
        let peer = self.other();
        let family = if terms.v6 { "ipv6" } else { "ipv4" };
        json!({
            "tenant": "red",
            "vni": 5001,
            "gateway": { "ipv4": "10.0.0.1/24" },
            "ports": [{
                "name": "vm",
                "device": { "driver": "af_packet", "interface": self.vm },
                "gateway_mac": format!("02:00:13:89:0{}:01", self.host),
                "mac": self.vm_mac(),
                "addresses": [format!("{}/32", self.inner())],
            }],
            "uplink": {
                "device": { "driver": "af_packet", "interface": "eth0" },
                "mac": self.uplink_mac(),
                family: self.subnet(terms),
            },
            "tunnel": {
                "kind": terms.kind,
                "vtep": self.vtep(terms),
                "port": terms.port,
                "mac": self.tunnel_mac(),
                "udp_checksum": terms.v6,
                "ipsec": { "suites": [terms.suite], "esn": true, "replay_window": 1024 },
                "peers": [{
                    "name": "peer",
                    "vtep": peer.vtep(terms),
                    "mac": peer.tunnel_mac(),
                    "next_hop": peer.vtep(terms),
                    "prefixes": [format!("{}/32", peer.inner())],
                    "ipsec": "required",
                }],
            },
            "control_socket": bed.path(&format!("control-{}.sock", self.name)),
        })
    }
}

/// The two, running.
pub(crate) struct Pair {
    charons: [Option<Charon>; 2],
    switches: [Option<Switch>; 2],
    pub(crate) bed: Bed,
    program: PathBuf,
}

impl Pair {
    /// The switches alone; `None`, with a message, if something is missing.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let program = program(test)?;
        let bed = Bed::new(test, &["swa", "swb", "vma", "vmb", "wire", "none"])?;
        // The daemons' users pass through it.
        std::fs::set_permissions(bed.path(""), Permissions::from_mode(0o711)).expect("it is ours");
        let bridge = [
            "link",
            "add",
            "bridge0",
            "type",
            "bridge",
            "mcast_snooping",
            "0",
        ];
        bed.inside("wire", &bridge);
        bed.sysctl("wire", "net.ipv6.conf.bridge0.disable_ipv6=1");
        bed.inside("wire", &["link", "set", "bridge0", "up"]);
        for side in BOTH {
            let port = side.port();
            bed.pair(("wire", port), side.netns, &side.uplink_mac());
            bed.inside("wire", &["link", "set", "dev", port, "master", "bridge0"]);
            bed.sysctl(side.netns, "net.ipv6.conf.eth0.disable_ipv6=1");
            bed.pair((side.netns, side.vm), side.vm, &side.vm_mac());
            bed.sysctl(side.vm, "net.ipv6.conf.eth0.disable_ipv6=1");
            let address = format!("{}/24", side.inner());
            bed.inside(side.vm, &["addr", "add", &address, "dev", "eth0"]);
            let mut ethtool = bed.command(side.vm, "ethtool");
            run(ethtool.args(["-K", "eth0", "tx", "off", "gso", "off"]));
        }
        let mut pair = Self {
            charons: [None, None],
            switches: [None, None],
            bed,
            program,
        };
        for side in BOTH {
            pair.start_switch(side);
        }
        Some(pair)
    }

    /// With daemons that have proven themselves by `proof`.
    pub(crate) fn with_charons(test: &str, proof: Proof) -> Option<Self> {
        let mut pair = Self::new(test)?;
        for side in BOTH {
            pair.start_charon(side, proof);
        }
        Some(pair)
    }

    pub(crate) fn start_switch(&mut self, side: Side) {
        let (socket, uid) = (side.socket(&self.bed), side.uid().to_string());
        let socket = socket.to_str().expect("UTF-8");
        let config = side.config(&self.bed, &TERMS);
        let arguments = ["--ike", socket, "--ike-uid", &uid];
        let switch = Switch::start(&self.bed, side.netns, &config, &arguments);
        self.switches[index(side)] = Some(switch);
    }

    pub(crate) fn start_charon(&mut self, side: Side, proof: Proof) {
        let charon = Charon::start(&self.bed, &side, &self.program, &TERMS);
        charon.configure(&self.bed, &side, proof, &TERMS);
        self.charons[index(side)] = Some(charon);
    }

    pub(crate) fn stop_switch(&mut self, side: Side) {
        self.switches[index(side)] = None;
    }

    pub(crate) fn take_charon(&mut self, side: Side) -> Charon {
        self.charons[index(side)].take().expect("it runs")
    }

    pub(crate) fn switch(&self, side: Side) -> &Switch {
        self.switches[index(side)].as_ref().expect("it runs")
    }

    pub(crate) fn charon(&self, side: Side) -> &Charon {
        self.charons[index(side)].as_ref().expect("it runs")
    }

    /// Whether one ping of the other side's VM comes back within a second.
    pub(crate) fn pings(&self, from: Side) -> bool {
        let arguments = ["-c1", "-W1", "-p", PATTERN, &from.other().inner()];
        self.bed.ping(from.vm, &arguments).received == 1
    }

    #[track_caller]
    pub(crate) fn reaches(&self, from: Side) {
        eventually("an echo through the tunnel", || self.pings(from));
    }

    /// Frames with ESP, and plain tunnel packets, that the bridge carries while `during` runs.
    pub(crate) fn watched(&self, during: impl FnOnce()) -> Watched {
        let ports = BOTH.map(|side| Capture::start(&self.bed, "wire", side.port()));
        during();
        Watched(ports.map(Capture::finish))
    }
}

fn index(side: Side) -> usize {
    usize::from(side.name == B.name)
}

/// What both ports of the underlay's bridge carried.
pub(crate) struct Watched([Captured; 2]);

impl Watched {
    /// Frames with ESP.
    pub(crate) fn esp(&self) -> usize {
        self.count("esp")
    }

    /// Frames that match a filter, on the port of either side.
    pub(crate) fn count(&self, filter: &str) -> usize {
        let frames = |capture: &Captured| capture.fields(filter, &["frame.number"]).len();
        self.0.iter().map(frames).max().unwrap_or(0)
    }

    /// Fails if anything of a VM was readable.
    #[track_caller]
    pub(crate) fn assert_no_plaintext(&self) {
        assert_eq!(self.count("udp.port == 6081"), 0, "plain tunnel packets");
        for capture in &self.0 {
            assert_eq!(capture.count(&pattern()), 0, "what the VM sent is readable");
        }
    }
}

/// The bytes of [`PATTERN`].
pub(crate) fn pattern() -> Vec<u8> {
    (0..PATTERN.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&PATTERN[at..at + 2], 16).expect("digits"))
        .collect()
}

/// A file's path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
