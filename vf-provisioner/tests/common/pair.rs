//! Two hosts with a tenant whose tunnel is under IPsec: two instances, each with a real switch and
//! a real IKE daemon, and a cable between their bridges, where every frame is seen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::site::{PROVISIONER, Site, sh};

/// How long a negotiation may take: its first message may be lost, and is repeated after 4 s.
const PATIENCE: Duration = Duration::from_secs(40);

/// Prints the kind of each frame that the cable carries.
const WIRE: &str = r#"
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("cable", 0))
print("ready", flush=True)
while True:
    frame = s.recv(2048)
    kind = "other"
    if frame[12:14] == b"\x08\x00":
        protocol, udp = frame[23], frame[14 + 4 * (frame[14] & 15):]
        ports = {int.from_bytes(udp[0:2], "big"), int.from_bytes(udp[2:4], "big")}
        if protocol == 50:
            kind = "esp"
        elif protocol == 17 and 6081 in ports:
            kind = "geneve"
        elif protocol == 17 and 500 in ports:
            kind = "ike"
    print(kind, flush=True)
"#;

/// What the cable carries.
pub(crate) struct Wire {
    python: Child,
    file: PathBuf,
}

impl Wire {
    /// Joins the two hosts by a cable, and listens before the first frame.
    pub(crate) fn between(a: &Site, b: &Site) -> Self {
        let (host_a, host_b) = (a.host(), b.host());
        sh(&format!(
            "ip -n {host_a} link add cable type veth peer name cable netns {host_b}; ip -n \
             {host_a} link set cable up"
        ));
        let file = a.dir.path().join("wire");
        let python = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{host_a}"))
            .args(["python3", "-c", WIRE])
            .stdout(fs::File::create(&file).expect("a file"))
            .stdin(Stdio::null())
            .spawn()
            .expect("python3 starts");
        let wire = Self { python, file };
        eventually("the capture begins", || wire.count("ready") == 1);
        for site in [a, b] {
            let (host, bridge) = (site.host(), format!("{}-br0", site.instance));
            sh(&format!("ip -n {host} link set cable master {bridge} up"));
        }
        wire
    }

    /// How many frames of a kind there were.
    pub(crate) fn count(&self, kind: &str) -> usize {
        let text = fs::read_to_string(&self.file).expect("the file");
        text.lines().filter(|line| *line == kind).count()
    }

    /// No frame of the tunnel was without ESP.
    #[allow(dead_code)] // Not every test ends so.
    #[track_caller]
    pub(crate) fn assert_nothing_plain(&self) {
        let [esp, ike, plain] = ["esp", "ike", "geneve"].map(|kind| self.count(kind));
        println!("on the wire: {esp} of ESP, {ike} of IKE, {plain} of Geneve");
        assert_eq!(plain, 0);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.python.kill();
        let _ = self.python.wait();
    }
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not within time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Two hosts. `None`, with a message, if they cannot be.
#[allow(dead_code)] // Some tests have others.
pub(crate) fn two_hosts(names: [&'static str; 2], uid_base: u32) -> Option<[Site; 2]> {
    two_hosts_with(names, uid_base, &[])
}

/// Two hosts, the first with more options. `None`, with a message, if they cannot be.
pub(crate) fn two_hosts_with(
    names: [&'static str; 2],
    uid_base: u32,
    of_first: &[&str],
) -> Option<[Site; 2]> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it needs root");
        return None;
    }
    let own = Path::new(PROVISIONER).parent().expect("a folder");
    if !own.join("../ike/vswitch-charon").is_file() {
        eprintln!("skipped: scripts/build-ike has not built the IKE daemon");
        return None;
    }
    let switch = own.join("vswitch");
    let switch = switch.to_str().expect("a path");
    let options = ["--switch-binary", switch, "--packet-memory", "16"];
    let site = |at: usize, more: &[&str]| {
        let options = options.iter().chain(more);
        let options = options.map(|&option| option.to_owned()).collect();
        Site::new(names[at], uid_base + 100 * at as u32, options)
    };
    Some([site(0, of_first), site(1, &[])])
}

/// The file of a key on a host.
pub(crate) fn key(site: &Site) -> PathBuf {
    site.dir.path().join("red.psk")
}

/// A new key on a host.
pub(crate) fn make_key(site: &Site) {
    let path = key(site);
    site.good(&["ipsec", "keygen", "psk", path.to_str().expect("a path")]);
}

pub(crate) fn copy_key(from: &Site, to: &Site) {
    // The mode is copied, too.
    fs::copy(key(from), key(to)).expect("it is copied");
}

/// Where the key's text is, below the site's directory and in the arguments and environments of all
/// processes.
#[allow(dead_code)] // Not every test looks for it.
pub(crate) fn places_of_key(site: &Site, processes: &[i32]) -> Vec<String> {
    let (path, dir) = (key(site), site.dir.path().display().to_string());
    // The key is not among grep's own arguments.
    let found = sh(&format!("grep -rlaF -f {} {dir}", path.display()));
    let mut places: Vec<String> = found.lines().map(str::to_owned).collect();
    let key = fs::read_to_string(&path).expect("the key");
    let key = key.trim().as_bytes();
    assert!(key.len() >= 16, "it is one");
    let has = |bytes: &[u8]| bytes.windows(key.len()).any(|it| it == key);
    let mut seen = Vec::new();
    for entry in fs::read_dir("/proc").expect("it is there").flatten() {
        for file in ["cmdline", "environ"] {
            // Others may end meanwhile.
            let Ok(bytes) = fs::read(entry.path().join(file)) else {
                continue;
            };
            if has(&bytes) {
                places.push(format!("{}/{file}", entry.path().display()));
            }
            seen.push(format!("{}/{file}", entry.path().display()));
        }
    }
    for pid in processes {
        for file in ["cmdline", "environ"] {
            assert!(seen.contains(&format!("/proc/{pid}/{file}")), "{pid}");
        }
    }
    places
}

/// The tenant's file on host 1 or 2, where the other host is the peer, with what `[tunnel.ipsec]`
/// and the peer have.
pub(crate) fn tenant_with(site: &Site, own: u8, ipsec: &str, of_peer: &str) -> String {
    let peer = 3 - own;
    let text = format!(
        "name = \"t1\"\nvni = 5001\n[gateway]\nipv4 = \"10.1.0.1/24\"\n[uplink]\naddress = \
         \"192.0.2.1{own}/24\"\nnext_hop = \"192.0.2.1\"\n[tunnel]\nkind = \
         \"geneve\"\n[tunnel.ipsec]\n{ipsec}\n[[tunnel.peer]]\nname = \"far\"\nvtep = \
         \"192.0.2.1{peer}\"\nprefixes = [\"10.1.0.1{peer}\"]\n{of_peer}\n[[port]]\nname = \
         \"vm{own}\"\nmac = \"52:54:00:00:01:0{own}\"\naddresses = [\"10.1.0.1{own}\"]\n",
    );
    let path = site.dir.path().join("t1.toml");
    fs::write(&path, text).expect("the file is written");
    path.display().to_string()
}

/// A mode and the pre-shared key.
pub(crate) fn with_key(site: &Site, mode: &str) -> String {
    format!("mode = \"{mode}\"\npsk = \"{}\"", key(site).display())
}

/// What a VM's own init would do.
pub(crate) fn set_up_guest(site: &Site, own: u8) {
    let guest = format!("{}-vm{own}", site.instance);
    sh(&format!(
        "ip -n {guest} address add 10.1.0.1{own}/24 dev eth0; ip -n {guest} link set eth0 up"
    ));
}

/// Whether the VM of the first host gets an answer from that of the second.
pub(crate) fn answered(site: &Site) -> bool {
    let ping = Command::new("ip")
        .args(["netns", "exec", &format!("{}-vm1", site.instance)])
        .args(["ping", "-n", "-q", "-c", "1", "-W", "1", "10.1.0.12"])
        .stdout(Stdio::null())
        .status();
    ping.expect("ping starts").success()
}

/// The note about the tenant's IKE daemon.
pub(crate) fn note(site: &Site) -> Value {
    let note = site.state_dir().join("tenants/t1/ike/process.json");
    let note = fs::read_to_string(note).expect("the note");
    serde_json::from_str(&note).expect("it is JSON")
}

/// The process of the tenant's IKE daemon, by the note about it.
#[allow(dead_code)] // One in a machine is no process.
pub(crate) fn daemon(site: &Site) -> i32 {
    let note = note(site);
    let pid = note["started"]["pid"].as_i64().expect("its process") as i32;
    let program = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it runs");
    assert!(program.starts_with("/vswitch-charon"), "{program}");
    pid
}

/// Onboards the tenant on both hosts, and joins them.
pub(crate) fn join(a: &Site, b: &Site, file_a: &str, file_b: &str) -> Wire {
    a.good(&["apply", file_a]);
    b.good(&["apply", file_b]);
    set_up_guest(a, 1);
    set_up_guest(b, 2);
    Wire::between(a, b)
}

/// Releases all, of which nothing may be left.
pub(crate) fn part(wire: Wire, a: &Site, b: &Site) {
    drop(wire);
    sh(&format!("ip -n {} link delete cable", a.host()));
    for site in [a, b] {
        site.good(&["release", "--all"]);
        assert_eq!(site.left(), site.nothing());
    }
}
