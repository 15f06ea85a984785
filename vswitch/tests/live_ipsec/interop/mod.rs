//! A switch against Linux's own IPsec and tunnel devices, with Debian's strongSwan, and against
//! Open vSwitch, whose monitor configures that. The build machine's kernel has no ESP, so these run
//! in the emulated machine, in one boot.

mod libreswan;
mod matrix;
mod open_vswitch;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::bed::{Bed, Switch, eventually, run};
use crate::capture::Capture;
use crate::certificates::{Form, PLAIN, authority, self_signed, signed};
use crate::charon::{Charon, Proof, program};
use crate::pair::{A, B, BOTH, PATTERN, Side, Terms, pattern, text};
use crate::vici::Vici;

/// A switch in `swa` with the VM `vma`, and a Linux host in `far`, which is the VM behind itself.
struct Site {
    bed: Bed,
    switch: Switch,
    ours: Charon,
    /// Unless it is Open vSwitch that configures it.
    theirs: Option<Charon>,
    terms: Terms,
}

/// Loads what the kernel has as modules: the emulated machine's has all, others may have none.
fn modules(names: &[&str]) {
    for name in names {
        let _ = Command::new("modprobe").arg(name).output();
    }
}

impl Site {
    /// The switch with its daemon, and the far end's place on the wire.
    fn begin(test: &str, terms: Terms, proof: Proof, form: Form) -> Option<Self> {
        let program = program(test)?;
        modules(&[
            "xfrm_user",
            "xfrm_algo",
            "esp4",
            "esp6",
            "geneve",
            "vxlan",
            "gcm",
            "seqiv",
        ]);
        modules(&[
            "echainiv",
            "authenc",
            "cbc",
            "hmac",
            "sha256",
            "chacha20poly1305",
        ]);
        let bed = Bed::new(test, &["swa", "vma", "far", "none"])?;
        let reachable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(bed.path(""), reachable).expect("it is ours");
        bed.pair(("far", "under0"), A.netns, &A.uplink_mac());
        bed.sysctl("far", "net.ipv6.conf.under0.disable_ipv6=0");
        bed.sysctl(A.netns, "net.ipv6.conf.eth0.disable_ipv6=1");
        let mut address = vec!["addr", "add"];
        let subnet = B.subnet(&terms);
        address.extend([&*subnet, "dev", "under0"]);
        if terms.v6 {
            address.push("nodad");
        }
        bed.inside("far", &address);
        bed.pair((A.netns, A.vm), A.vm, &A.vm_mac());
        bed.sysctl(A.vm, "net.ipv6.conf.eth0.disable_ipv6=1");
        let inner = format!("{}/24", A.inner());
        bed.inside(A.vm, &["addr", "add", &inner, "dev", "eth0"]);
        for (name, interface) in [(A.vm, "eth0"), ("far", "under0")] {
            let mut ethtool = bed.command(name, "ethtool");
            run(ethtool.args(["-K", interface, "tx", "off", "gso", "off"]));
        }
        let (socket, uid) = (A.socket(&bed), A.uid().to_string());
        let arguments = ["--ike", text(&socket), "--ike-uid", &uid];
        let switch = Switch::start(&bed, A.netns, &A.config(&bed, &terms), &arguments);
        match proof {
            Proof::Psk => {}
            Proof::Pinned => BOTH.iter().for_each(|&side| self_signed(&bed, form, side)),
            Proof::Authority => {
                authority(&bed, "ca");
                BOTH.iter()
                    .for_each(|&side| signed(&bed, form, side, "ca", "30"));
            }
        }
        let ours = Charon::start(&bed, &A, &program, &terms);
        ours.configure(&bed, &A, proof, &terms);
        let theirs = None;
        Some(Self {
            bed,
            switch,
            ours,
            theirs,
            terms,
        })
    }

    /// With a Linux host, which has a tunnel device.
    fn with_linux(test: &str, terms: Terms, proof: Proof) -> Option<Self> {
        let mut site = Self::begin(test, terms, proof, PLAIN)?;
        tunnel_device(&site.bed, &terms);
        // When ours is ready: after a failure the kernel asks for no other SA for 30 s.
        let theirs = debians_charon(&site.bed, &B, "far");
        theirs.configure(&site.bed, &B, proof, &terms);
        site.theirs = Some(theirs);
        Some(site)
    }

    /// Whether both ends reach each other, and keep doing so while either renews its keys; and
    /// nothing of it is readable. At most `lost` pings are lost meanwhile.
    fn carries_traffic(&self, lost: u64) {
        // The switch's frames pass by its own interface's captures.
        let capture = Capture::start(&self.bed, "far", "under0");
        let pings = |from: &str, to: &str, count: &str, interval: &str| {
            let arguments = ["-c", count, "-i", interval, "-W5", "-p", PATTERN, to];
            self.bed.ping(from, &arguments)
        };
        for (from, to) in [(A.vm, B.inner()), ("far", A.inner())] {
            // The kernel loads modules meanwhile.
            let mut attempts = (0..20).map(|_| pings(from, &to, "1", "1").received);
            assert!(attempts.any(|received| received == 1), "{from} to {to}");
        }
        std::thread::scope(|scope| {
            let flow = scope.spawn(|| pings(A.vm, &B.inner(), "100", "0.1"));
            let theirs = self.theirs.as_ref().unwrap_or(&self.ours);
            for charon in [&self.ours, theirs, &self.ours] {
                for child in ["in", "out"] {
                    charon.vici().call("rekey", &json!({ "child": child }));
                }
                std::thread::sleep(Duration::from_secs(2));
            }
            let pings = flow.join().expect("it ends");
            assert_eq!(pings.sent, 100, "{pings:?}");
            assert!(pings.received + lost >= 100, "{pings:?}");
        });
        let captured = capture.finish();
        assert_eq!(
            captured.count(&pattern()),
            0,
            "what the VM sent is readable"
        );
        let carried = Carried::read(captured.file(), &self.terms);
        assert_eq!(carried.plain, 0, "plain tunnel packets of the switch");
        // What configures itself may send some before it has policies; the switch drops them.
        if self.theirs.is_some() {
            assert_eq!(
                carried.plain_of_others, 0,
                "plain tunnel packets of the far end"
            );
        }
        assert!(carried.esp >= 200, "{} frames of ESP", carried.esp);
        // Before its daemon has policies, the far end sends plain packets.
        let drops = self.switch.all_drops("uplink");
        for reason in ["esp-icv", "esp-replay", "esp-selector", "esp-malformed"] {
            assert_eq!(drops[reason], 0, "{reason}");
        }
        self.assert_kernel_content();
    }

    /// Whether a TCP stream never rests for three seconds while both ends renew their keys. The
    /// emulated machine has one CPU, which the daemons take for a second when they do.
    fn carries_a_stream(&self) {
        let theirs = self.theirs.as_ref().unwrap_or(&self.ours);
        let mut server = self.bed.command("far", "iperf3");
        let mut server = server
            .args(["--server", "--one-off"])
            .stdout(Stdio::null())
            .spawn()
            .expect("iperf3 runs");
        eventually("iperf3 listens", || {
            run(self.bed.command("far", "ss").args(["-H", "-l", "-t", "-n"])).contains(":5201 ")
        });
        let output = std::thread::scope(|scope| {
            let mut client = self.bed.command(A.vm, "iperf3");
            client
                .args(["--client", &B.inner(), "--time", "8", "--json"])
                // Less than the emulated machine carries: else the stream stands in queues.
                .args(["--bitrate", "4M"]);
            let stream = scope.spawn(move || client.output().expect("iperf3 runs"));
            for charon in [&self.ours, theirs] {
                std::thread::sleep(Duration::from_secs(3));
                for child in ["in", "out"] {
                    charon.vici().call("rekey", &json!({ "child": child }));
                }
            }
            stream.join().expect("it ends")
        });
        let _ = server.kill();
        let _ = server.wait();
        let stream: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let seconds = stream["intervals"].as_array().expect("intervals");
        assert!(seconds.len() >= 8, "{stream}");
        for three in seconds.windows(3) {
            let moves = |second: &Value| second["sum"]["bytes"].as_u64() > Some(0);
            assert!(three.iter().any(moves), "{three:?}");
        }
    }

    /// The kernel's own counters of IPsec: nothing was wrong with what it received.
    fn assert_kernel_content(&self) {
        let table = run(self.bed.command("far", "cat").arg("/proc/net/xfrm_stat"));
        for line in table.lines() {
            let (name, count) = line
                .split_once(char::is_whitespace)
                .expect("name and count");
            // Packets that wait for a negotiation are counted as having no state.
            let is_fault = name.starts_with("XfrmIn") && name != "XfrmInNoStates";
            assert!(!is_fault || count.trim() == "0", "{table}");
        }
    }
}

/// The source of a frame.
fn mac(frame: &[u8]) -> String {
    let octets = frame[6..12].iter().map(|octet| format!("{octet:02x}"));
    octets.collect::<Vec<_>>().join(":")
}

/// Frames of a capture. Wireshark takes minutes in the emulated machine.
#[derive(Default)]
struct Carried {
    esp: usize,
    /// Packets of the tunnel without ESP: the switch's, and the far end's.
    plain: usize,
    plain_of_others: usize,
}

impl Carried {
    fn read(file: &Path, terms: &Terms) -> Self {
        let mut carried = Self::default();
        let capture = std::fs::File::open(file).expect("the capture");
        let mut capture = pcap_file::pcap::PcapReader::new(capture).expect("a capture");
        while let Some(frame) = capture.next_packet() {
            let frame = frame.expect("a frame").data;
            let (protocol, header) = match frame.get(12..14) {
                Some([0x08, 0x00]) => (frame[23], 14 + 4 * usize::from(frame[14] & 15)),
                Some([0x86, 0xdd]) => (frame[20], 14 + 40),
                _ => continue,
            };
            let is_ours = mac(&frame) == A.uplink_mac();
            let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
            match protocol {
                50 => carried.esp += 1,
                17 if port(header + 2) == terms.port && is_ours => carried.plain += 1,
                17 if port(header + 2) == terms.port => carried.plain_of_others += 1,
                _ => {}
            }
        }
        carried
    }
}

/// Starts Debian's daemon, as root of a namespace with the kernel's IPsec.
fn debians_charon(bed: &Bed, side: &Side, netns: &str) -> Charon {
    let path = |name: &str| bed.path(&format!("{name}-{}", side.name));
    let (vici, settings) = (path("debian.vici"), path("strongswan.conf"));
    let content = format!(
        "charon-systemd {{ journal {{ default = -1 }} }}\ncharon {{\n threads = 8\n \
         install_routes = no\n load_modular = no\n load = random nonce aes sha1 sha2 hmac kdf \
         gcm openssl x509 pubkey pkcs1 pkcs8 pem constraints revocation kernel-netlink \
         socket-default vici\n filelog {{ stderr {{ default = 1 }} }}\n plugins {{\n vici {{ \
         socket = unix://{} }}\n kernel-netlink {{ set_proto_port_transport_sa = yes }}\n \
         }} }}\n",
        vici.display()
    );
    std::fs::write(&settings, content).expect("a file");
    let child = bed
        .command(netns, "charon-systemd")
        .env("STRONGSWAN_CONF", &settings)
        .spawn()
        .expect("it starts");
    let charon = Charon { child, vici };
    eventually("Debian's charon answers", || {
        Vici::connect(&charon.vici).is_some()
    });
    charon
}

/// The device of the tunnel on the Linux host.
fn tunnel_device(bed: &Bed, terms: &Terms) {
    let (ours, theirs) = (A.vtep(terms).to_string(), B.vtep(terms).to_string());
    let port = terms.port.to_string();
    let mac = B.tunnel_mac();
    let mut device = vec![
        "link", "add", "tun0", "address", &mac, "type", terms.kind, "id", "5001",
    ];
    device.extend(["remote", &ours, "dstport", &port]);
    if terms.kind == "vxlan" {
        device.extend(["local", &theirs]);
    }
    bed.inside("far", &device);
    bed.inside("far", &["link", "set", "dev", "tun0", "mtu", "1376", "up"]);
    bed.inside(
        "far",
        &["addr", "add", &format!("{}/24", B.inner()), "dev", "tun0"],
    );
    let mut ethtool = bed.command("far", "ethtool");
    run(ethtool.args(["-K", "tun0", "tx", "off", "gso", "off"]));
}
