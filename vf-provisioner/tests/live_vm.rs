//! Switches in virtual machines on this host's kernel, as root, translated by QEMU. Without root,
//! QEMU or the image, each test prints that and passes. `VSWITCH_IMAGE` replaces the image beside
//! the build.

#[path = "common/libvirtd.rs"]
mod libvirtd;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use libvirtd::Libvirtd;
use site::{PROVISIONER, Site, sh};
use supervisor::Supervisor;

fn image() -> PathBuf {
    let named = std::env::var_os("VSWITCH_IMAGE").map(PathBuf::from);
    let beside = || Path::new(PROVISIONER).with_file_name("../switch-image");
    named.unwrap_or_else(beside)
}

/// What is missing, if anything.
fn missing() -> Option<String> {
    let there = |path: &Path| path.exists();
    if !nix::unistd::geteuid().is_root() {
        return Some("root".to_owned());
    }
    if sh("command -v qemu-system-x86_64").is_empty() {
        return Some("QEMU (scripts/setup --for emulated)".to_owned());
    }
    if !there(&image().join("manifest.json")) {
        return Some(format!(
            "{} (scripts/build-switch-image)",
            image().display()
        ));
    }
    let switch = Path::new(PROVISIONER).with_file_name("vswitch");
    (!there(&switch)).then(|| format!("{} (cargo build)", switch.display()))
}

/// If something is missing it prints that and is `None`.
fn site(instance: &'static str, uid_base: u32) -> Option<Site> {
    if let Some(missing) = missing() {
        eprintln!("skipped: {instance} needs {missing}");
        return None;
    }
    Some(Site::new(instance, uid_base, Vec::new()))
}

impl Site {
    fn apply(&self, launcher: &str, file: &str) -> String {
        let image = image();
        let image = image.to_str().expect("a path");
        let machine = [
            "--launcher",
            launcher,
            "--accel",
            "tcg",
            "--vm-image",
            image,
        ];
        self.good(&[&machine[..], &["apply", file]].concat())
    }

    /// The tenant's file, with `more` addresses at its first port.
    fn tenant(&self, more: &str) -> String {
        let text = format!(
            r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
[uplink]
address = "192.0.2.11/24"
next_hop = "192.0.2.1"
[[port]]
name = "t1-vm1"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.11"{more}]
[port.metadata]
instance_id = "of-the-machine"
[[port]]
name = "t1-vm2"
mac = "52:54:00:00:01:02"
addresses = ["10.1.0.12"]
"#
        );
        let path = self.dir.path().join("t1.toml");
        fs::write(&path, text).expect("the file is written");
        path.display().to_string()
    }

    /// The same with a tunnel under IPsec.
    fn protected_tenant(&self) -> String {
        let path = self.tenant("");
        let text = fs::read_to_string(&path).expect("the file");
        let psk = self.dir.path().join("t1.psk");
        let tunnel = format!(
            "[tunnel]\nkind = \"geneve\"\n[tunnel.ipsec]\nmode = \"required\"\npsk = \
             \"{}\"\n[[tunnel.peer]]\nname = \"far\"\nvtep = \"192.0.2.12\"\nprefixes = \
             [\"10.1.0.21\"]\n[[port]]",
            psk.display()
        );
        fs::write(&path, text.replacen("[[port]]", &tunnel, 1)).expect("the file is written");
        path
    }

    fn in_guest(&self, port: u8, command: &str) -> String {
        sh(&format!(
            "ip netns exec {}-t1-vm{port} {command}",
            self.instance
        ))
    }

    fn pings(&self, from: u8, to: &str) -> bool {
        self.in_guest(from, &format!("ping -c 5 -i 0.2 -W 2 {to}"))
            .contains(" 5 received")
    }

    /// The answer of the switch inside, through its socket on the host.
    fn switch(&self, arguments: &[&str]) -> Value {
        let output = Command::new(Path::new(PROVISIONER).with_file_name("vswitch"))
            .args(arguments)
            .arg("--json")
            .arg("--control")
            .arg(self.dir.path().join("state/tenants/t1/run/control.sock"))
            .output()
            .expect("vswitch starts");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("it is JSON")
    }
}

fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it is there");
}

#[test]
fn vm_runs_a_tenant_until_release() {
    let Some(site) = site("tma", 85000) else {
        return;
    };
    let file = site.tenant("");
    let applied = site.apply("vm", &file);
    assert!(
        applied.contains("2 gateways answered with real frames"),
        "{applied}"
    );
    site.good(&["verify"]);
    confined(&site, 85000);
    carries(&site);
    reloads(&site);
    accounts(&site);
    is_started_again(&site);

    let began = Instant::now();
    site.good(&["release", "t1"]);
    // It shut down by itself: the provisioner waits 10 s before it makes QEMU quit or kills it.
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(site.left(), site.nothing());
}

/// QEMU is unprivileged and isolated, and sees only the files that it needs.
fn confined(site: &Site, uid: u32) {
    let pid = site.pid("t1");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let words = line.unwrap_or_default().split_whitespace();
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Uid:"), [uid; 4].map(|uid| uid.to_string()).join(" "));
    assert_eq!(field("Gid:"), [uid; 4].map(|uid| uid.to_string()).join(" "));
    assert_eq!(field("Groups:"), "");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NSpid:"), format!("{pid} 1"));
    // --placement shared takes core 0 for all of its threads.
    assert_eq!(field("Cpus_allowed_list:"), "0");
    for kind in ["net", "mnt", "ipc", "uts", "pid"] {
        let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a link");
        assert_ne!(link(&pid.to_string()), link("self"), "{kind} is the host's");
    }
    let root = format!("/proc/{pid}/root");
    let list = |path: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(format!("{root}/{path}")).expect("a directory");
        let names = entries.flatten().map(|entry| entry.file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    };
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(list("usr/bin"), set(&["qemu-system-x86_64"]));
    assert_eq!(list("usr/share"), set(&["qemu", "seabios"]));
    assert_eq!(
        list("run/vm"),
        set(&["config.sock", "control.sock", "qmp.sock"])
    );
    assert_eq!(
        list("dev"),
        set(&["net", "null", "random", "urandom", "zero"])
    );
    assert!(fs::write(format!("{root}/image/vmlinuz"), "").is_err());
}

/// Good frames pass, between ports and to the gateway; a forged one is counted.
fn carries(site: &Site) {
    for port in [1, 2] {
        site.in_guest(port, &format!("ip address add 10.1.0.1{port}/24 dev eth0"));
    }
    assert!(site.pings(1, "10.1.0.1"));
    assert!(site.pings(1, "10.1.0.12"));
    // What the gateway serves by TCP is served in the machine, too.
    let url = "http://169.254.169.254/openstack/latest/meta_data.json";
    site.in_guest(1, "ip route add 169.254.169.254 dev eth0");
    let metadata = site.in_guest(1, &format!("curl -sS -m 20 {url}"));
    assert!(metadata.contains("of-the-machine"), "{metadata}");
    // A frame with another's MAC; the drop is counted at the port that it came from. A probe sent
    // some before.
    let forgeries = || -> u64 {
        let drops = site.switch(&["show", "drops"]);
        let mut all = drops.as_array().expect("a list").iter();
        let it = all.find(|it| it["reason"] == "src-mac" && it["port"] == "t1-vm1");
        it.and_then(|it| it["frames"].as_u64()).unwrap_or(0)
    };
    let before = forgeries();
    let forged =
        "ffffffffffff525400000102080600010800060400015254000001020a01000c0000000000000a010001";
    let program = format!(
        "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((\"eth0\", \
         0)); s.send(bytes.fromhex(\"{forged}\") + bytes(18))"
    );
    site.in_guest(1, &format!("python3 -c '{program}'"));
    let began = Instant::now();
    while forgeries() == before {
        assert!(began.elapsed() < Duration::from_secs(10), "not counted");
    }
    assert_eq!(forgeries(), before + 1);
}

/// A new configuration does not restart the machine.
fn reloads(site: &Site) {
    let pid = site.pid("t1");
    site.in_guest(1, "ip address add 10.1.0.21/24 dev eth0");
    assert!(!site.pings(1, "-I 10.1.0.21 10.1.0.12"));
    let changed = site.apply("vm", &site.tenant(", \"10.1.0.21\""));
    assert!(changed.starts_with("1 actions done"), "{changed}");
    assert!(site.pings(1, "-I 10.1.0.21 10.1.0.12"));
    assert_eq!(site.pid("t1"), pid);
    site.good(&["verify"]);
}

/// Its usage is in the table, the JSON and the metrics.
fn accounts(site: &Site) {
    let status = site.status("t1");
    assert_eq!(status["launcher"], "vm");
    let accounts = &status["accounts"];
    assert!(
        accounts["cpu_s"].as_f64().expect("a number") > 1.0,
        "{accounts}"
    );
    let memory = accounts["memory_bytes"].as_u64().expect("a number");
    let peak = accounts["memory_peak_bytes"].as_u64().expect("a number");
    // The machine has 160 MiB; the group may have 128 more.
    assert!((32 << 20..=288 << 20).contains(&memory), "{memory}");
    assert!((memory..=288 << 20).contains(&peak), "{peak}");
    let metrics = site.good(&["status", "--metrics"]);
    let of = "{tenant=\"t1\",launcher=\"vm\"";
    assert!(
        metrics.contains(&format!("vf_provisioner_tenant_up{of}}} 1\n")),
        "{metrics}"
    );
    let port = format!(
        "vf_provisioner_tenant_port_frames_total{of},port=\"t1-vm1\",direction=\"from\"}} "
    );
    let line = metrics.lines().find_map(|line| line.strip_prefix(&port));
    let frames: u64 = line.and_then(|count| count.parse().ok()).expect("a count");
    // At least three good flows of 5 pings, one refused flow, and one forged frame.
    assert!(frames >= 16, "{metrics}");
    assert!(site.good(&["status"]).contains(" vm "));
}

/// A dead machine is restarted, and so is one that is alive and executes nothing.
fn is_started_again(site: &Site) {
    let mut supervisor = Supervisor::start(
        site.command(),
        &["--verify-every", "0"],
        &["t1"],
        site.dir.path(),
        Duration::from_secs(120),
    );
    let first = site.pid("t1");
    kill(first, nix::sys::signal::Signal::SIGKILL);
    supervisor.wait_for("restarted", "t1");
    let second = site.pid("t1");
    assert_ne!(second, first);
    assert_eq!(site.status("t1")["switch"]["restarts"], 1);
    assert!(site.pings(2, "10.1.0.11"));

    // The state in which KVM leaves a machine after an internal error.
    let program = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                   f = s.makefile(\"rw\"); f.readline(); [(f.write(c), f.flush(), f.readline()) \
                   for c in (\"{\\\"execute\\\":\\\"qmp_capabilities\\\"}\", \
                   \"{\\\"execute\\\":\\\"stop\\\"}\")]";
    let monitor = site.dir.path().join("state/tenants/t1/run/qmp.sock");
    let paused = Command::new("python3")
        .args(["-c", program])
        .arg(&monitor)
        .status();
    assert!(paused.expect("python3 starts").success());
    supervisor.wait_for("stuck", "t1");
    supervisor.wait_for("restarted", "t1");
    assert_ne!(site.pid("t1"), second);
    assert!(site.pings(2, "10.1.0.11"));
    supervisor.stop();
}

#[test]
fn missing_vm_requirement_is_refused_before_any_change() {
    let Some(site) = site("tmb", 86000) else {
        return;
    };
    let file = site.tenant("");
    let image = image();
    let image = image.to_str().expect("a path");
    let damaged = site.dir.path().join("damaged");
    let copy = format!(
        "cp -r {image} {0} && echo >>{0}/initramfs",
        damaged.display()
    );
    sh(&copy);
    // Images had no IKE daemon once.
    let old = site.dir.path().join("old");
    let old = old.to_str().expect("a path");
    sh(&format!(
        "cp -r {image} {old} && sed -i s/vswitch-charon/another/ {old}/manifest.json"
    ));
    let refused = |arguments: &[&str], code: i32, words: &str| {
        let output = site.run(&[&["--launcher", "vm"], arguments, &["apply", &file]].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(words), "{text}");
        site.good(&["release", "--all"]);
        assert_eq!(site.left(), site.nothing());
    };
    refused(
        &["--vm-image", "/nowhere"],
        2,
        "there is no /nowhere/manifest.json: install vswitch-image, build it with \
         scripts/build-switch-image",
    );
    refused(
        &["--vm-image", damaged.to_str().expect("a path")],
        2,
        "initramfs is not what",
    );
    site.protected_tenant();
    refused(
        &["--vm-image", old, "--accel", "tcg"],
        2,
        &format!("tenant t1: tunnel.ipsec: the image {old} has no IKE daemon: install"),
    );
    site.tenant("");
    if !fs::read_to_string("/proc/cpuinfo")
        .is_ok_and(|text| text.contains(" vmx ") || text.contains(" svm "))
    {
        refused(
            &["--vm-image", image, "--accel", "kvm"],
            2,
            "--accel kvm: the processor has neither vmx nor svm",
        );
    }
    let many = "1000000";
    refused(
        &["--vm-image", image, "--vm-memory", many],
        2,
        "1000000 is not in 96..=65536",
    );
    if sh("grep 'HugePages_Free: *0$' /proc/meminfo").is_empty() {
        eprintln!("not tried: this host has hugepages");
    } else {
        refused(
            &["--vm-image", image, "--hugepages"],
            2,
            "the new switches need 160 MiB and 0 MiB are free: reserve 80 more pages of 2048 KiB",
        );
    }
}

#[test]
fn libvirt_runs_the_same_vm() {
    let Some(mut site) = site("tmc", 87000) else {
        return;
    };
    let libvirt = site.dir.path().join("libvirt");
    let Some(libvirtd) = Libvirtd::start(&libvirt, Some(&site.host())) else {
        return;
    };
    site.libvirt = Some(libvirtd.uri());
    let psk = site.dir.path().join("t1.psk");
    site.good(&["ipsec", "keygen", "psk", psk.to_str().expect("a path")]);
    site.apply("libvirt", &site.protected_tenant());
    assert_eq!(libvirtd.domains(), ["tmc-t1"]);
    // The IKE daemon in it is configured; there is no such peer.
    let verified = site.run(&["verify"]);
    let text = String::from_utf8_lossy(&verified.stdout).into_owned();
    let words = "everything is as it was set, but 1 peer that requires IPsec has none";
    assert_eq!(verified.status.code(), Some(3), "{text}");
    assert!(
        text.contains(words) && text.contains("it has no association"),
        "{text}"
    );
    // The machine's 160 MiB, and QEMU's own memory.
    let bounds = libvirtd.virsh(&["memtune", "tmc-t1"]).expect("it runs");
    assert!(
        bounds.contains(&format!("hard_limit     : {}", (160 + 128) << 10)),
        "{bounds}"
    );
    carries(&site);
    let status = site.status("t1");
    assert_eq!(status["launcher"], "libvirt");
    let pid = status["switch"]["pid"].as_i64().expect("it runs");
    let uid =
        fs::metadata(format!("/proc/{pid}")).map(|meta| std::os::unix::fs::MetadataExt::uid(&meta));
    assert_eq!(uid.ok(), Some(87000));
    let accounts = &status["accounts"];
    assert!(
        accounts["cpu_s"].as_f64().expect("a number") > 1.0,
        "{accounts}"
    );
    site.good(&["release", "t1"]);
    assert_eq!(libvirtd.domains(), Vec::<String>::new());
    drop(libvirtd);
    assert_eq!(site.left(), site.nothing());
}
