//! IPsec between a switch in a virtual machine and one that is a process. Without root, QEMU, the
//! image or the IKE daemon, the test prints that and passes. `VSWITCH_IMAGE` replaces the image
//! beside the build.

#[path = "common/output.rs"]
mod output;
#[path = "common/pair.rs"]
mod pair;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vswitch_api::machine::{Body, Frame};

use pair::{
    answered, copy_key, eventually, join, key, make_key, note, part, places_of_key, tenant_with,
    two_hosts_with, with_key,
};
use site::{PROVISIONER, Site, sh};
use supervisor::Supervisor;

/// Two hosts, on the first of which switches run in machines.
fn hosts(names: [&'static str; 2], uid_base: u32) -> Option<[Site; 2]> {
    let named = std::env::var_os("VSWITCH_IMAGE").map(PathBuf::from);
    let beside = || Path::new(PROVISIONER).with_file_name("../switch-image");
    let image = named.unwrap_or_else(beside);
    if !image.join("manifest.json").exists() || sh("command -v qemu-system-x86_64").is_empty() {
        eprintln!("skipped: needs QEMU and {}", image.display());
        return None;
    }
    let image = image.to_str().expect("a path");
    let machines = ["--launcher", "vm", "--accel", "tcg", "--vm-image", image];
    two_hosts_with(names, uid_base, &machines)
}

fn supervise(site: &Site) -> Supervisor {
    let patience = Duration::from_secs(120);
    Supervisor::start(site.command(), &[], &["t1"], site.dir.path(), patience)
}

/// Has the machine kill its IKE daemon.
fn kill_daemon(site: &Site) {
    let number = note(site)["number"].as_u64().expect("its number");
    let port = site.state_dir().join("tenants/t1/run/ike.sock");
    let mut port = UnixStream::connect(port).expect("QEMU listens");
    let frame = Frame {
        session: 1,
        body: Body::Replace(number),
    };
    port.write_all(&frame.encode()).expect("room");
    // The answer comes when it was killed.
    port.read_exact(&mut [0]).expect("an answer");
}

/// Makes the key and the own certificate of each host, and gives each the other's.
fn make_certificates(sites: [&Site; 2]) {
    for (site, name) in sites.into_iter().zip(["host-a.example", "host-b.example"]) {
        let path = |name: &str| site.dir.path().join(name).display().to_string();
        let (key, own) = (path("own.key"), path("own.pem"));
        let made = ["ipsec", "keygen", "certificate", "--name", name];
        site.good(&[&made[..], &["--key", &key, "--certificate", &own]].concat());
    }
    let [a, b] = sites.map(|site| site.dir.path());
    for (from, to) in [(a, b), (b, a)] {
        fs::copy(from.join("own.pem"), to.join("far.pem")).expect("it is copied");
    }
}

/// The tenant's file with certificates in the place of the key.
fn pinning(site: &Site, own: u8) -> String {
    let path = |name: &str| site.dir.path().join(name).display().to_string();
    let ipsec = format!(
        "mode = \"required\"\ncertificate = \"{}\"\nkey = \"{}\"",
        path("own.pem"),
        path("own.key")
    );
    let of_peer = format!("certificate = \"{}\"", path("far.pem"));
    tenant_with(site, own, &ipsec, &of_peer)
}

#[test]
fn tunnel_of_a_machine_is_encrypted_through_every_restart() {
    let Some([a, b]) = hosts(["tmd", "tme"], 88000) else {
        return;
    };
    make_key(&a);
    copy_key(&a, &b);
    let tenant = |site, own| tenant_with(site, own, &with_key(site, "required"), "");
    let wire = join(&a, &b, &tenant(&a, 1), &tenant(&b, 2));
    eventually("the VMs talk", || answered(&a));
    a.good(&["verify"]);
    let shown = a.json(&["ipsec", "show"]);
    let log = shown["tenants"][0]["log"].as_str().expect("its log");
    let log = fs::read_to_string(log).expect("the log");
    // Otherwise it would say that its memory is not locked.
    assert!(
        log.contains("charon has connected") && !log.contains("not locked"),
        "{log}"
    );
    assert!(wire.count("esp") >= 2, "{}", wire.count("esp"));
    // QEMU's arguments, the state, the log: the key is in its file alone.
    assert_eq!(
        places_of_key(&a, &[a.pid("t1")]),
        [key(&a).display().to_string()]
    );

    let mut supervisor = supervise(&a);
    let (machine, daemon) = (a.pid("t1"), note(&a)["number"].clone());
    kill_daemon(&a);
    supervisor.wait_for("ike_down", "t1");
    supervisor.wait_for("ike_restarted", "t1");
    assert_eq!(a.pid("t1"), machine);
    assert_ne!(note(&a)["number"], daemon);
    eventually("the VMs talk behind another daemon", || answered(&a));

    // One of which the note says that it is not configured, as of one that hangs, is replaced.
    let daemon = note(&a)["number"].clone();
    let mut unknown = note(&a);
    unknown["ready"] = false.into();
    let file = a.state_dir().join("tenants/t1/ike/process.json");
    fs::write(file, unknown.to_string()).expect("it is written");
    supervisor.wait_for("ike_down", "t1");
    supervisor.wait_for("ike_restarted", "t1");
    assert_ne!(note(&a)["number"], daemon);
    eventually("the VMs talk behind a third daemon", || answered(&a));

    make_certificates([&a, &b]);
    for (site, own) in [(&a, 1), (&b, 2)] {
        site.good(&["apply", &pinning(site, own)]);
    }
    let daemon = note(&a)["number"].clone();
    supervisor.stop();
    // It finds the daemon as it was configured.
    let mut supervisor = supervise(&a);
    assert_eq!(note(&a)["number"], daemon);

    kill(Pid::from_raw(machine), Signal::SIGKILL).expect("it runs");
    supervisor.wait_for("restarted", "t1");
    supervisor.wait_for("ike_restarted", "t1");
    eventually("the VMs talk behind another machine", || answered(&a));
    let shown = a.json(&["ipsec", "show"]);
    let peer = &shown["tenants"][0]["peers"][0];
    assert_eq!(peer["authentication"], "pinned certificate", "{shown}");
    a.good(&["verify"]);
    supervisor.stop();

    wire.assert_nothing_plain();
    // The peer's daemon forgets what it had by the key. Ours tells it before it goes.
    b.good(&["restart", "t1"]);
    eventually("the VMs talk behind the peer's other daemon", || {
        answered(&a)
    });
    b.good(&["ipsec", "show"]);
    a.good(&["stop", "t1"]);
    eventually("the peer has no association", || {
        b.run(&["ipsec", "show"]).status.code() == Some(3)
    });
    part(wire, &a, &b);
}
