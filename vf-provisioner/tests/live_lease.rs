//! A guest with a DHCP lease keeps it when its switch is killed: the supervisor gives it to the
//! next one.
//!
//! The real switch and busybox's DHCP server and client, on this host's kernel, as root. Without
//! root the test prints that and passes.

#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use site::{Site, sh};
use supervisor::Supervisor;

const TENANT: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
[uplink]
address = "192.0.2.11/24"
next_hop = "192.0.2.1"
[[port]]
name = "t1-server"
mac = "52:54:00:00:01:01"
addresses = ["10.1.0.2"]
dhcp_server = true
[[port]]
name = "t1-guest"
mac = "52:54:00:00:01:02"
addresses = "learn-dhcp"
"#;

/// What the client does with what it was given.
const SCRIPT: &str = r#"#!/bin/sh
if [ "$1" = bound ]; then
    ip address add "$ip/24" dev eth0
fi
"#;

/// A program in a guest's namespace; it is killed when this is dropped.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(site: &Site, guest: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    let namespace = format!("{}-{guest}", site.instance);
    command
        .args(["netns", "exec", &namespace])
        .args(arguments)
        .stdout(Stdio::null());
    command
}

fn run(site: &Site, guest: &str, arguments: &[&str]) -> bool {
    let status = command(site, guest, arguments).status();
    status.expect("ip starts").success()
}

/// The server, which has one address to give.
fn serve(site: &Site, dir: &Path) -> Guest {
    assert!(run(
        site,
        "t1-server",
        &["ip", "address", "add", "10.1.0.2/24", "dev", "eth0"]
    ));
    let config = dir.join("udhcpd.conf");
    let (leases, pid) = (dir.join("leases"), dir.join("udhcpd.pid"));
    let text = format!(
        "start 10.1.0.50\nend 10.1.0.50\ninterface eth0\nlease_file {}\npidfile {}\n\
         opt subnet 255.255.255.0\nopt router 10.1.0.1\nopt lease 3600\n",
        leases.display(),
        pid.display()
    );
    fs::write(&config, text).expect("a file");
    fs::write(&leases, "").expect("a file");
    let config = config.to_str().expect("UTF-8");
    let arguments = ["busybox", "udhcpd", "-f", "-a", "100", config];
    let mut server = command(site, "t1-server", &arguments);
    Guest(server.spawn().expect("the server starts"))
}

/// Has the guest get its address, by a client that ends then: it renews nothing.
fn get_lease(site: &Site, dir: &Path) {
    let script = dir.join("script");
    fs::write(&script, SCRIPT).expect("a file");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    let script = script.to_str().expect("UTF-8");
    let arguments = [
        "busybox", "udhcpc", "-f", "-n", "-q", "-B", "-i", "eth0", "-s", script,
    ];
    assert!(run(site, "t1-guest", &arguments), "no lease was given");
}

fn is_reachable(site: &Site) -> bool {
    run(site, "t1-guest", &["ping", "-c1", "-W1", "10.1.0.2"])
}

fn supervisor(site: &Site) -> Supervisor {
    let patience = Duration::from_secs(20);
    let supervisor = Supervisor::start(site.command(), &[], &["t1"], site.dir.path(), patience);
    // The supervisor connects and learns of the lease without an event: both poll twice a second.
    // Counters follow after five seconds.
    std::thread::sleep(Duration::from_secs(8));
    supervisor
}

/// Kills the switch, and waits until the guest is reachable again.
fn kill_switch(site: &Site, supervisor: &mut Supervisor) {
    let killed = site.pid("t1");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(killed),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("it is there");
    let down = supervisor.wait_for("down", "t1");
    let counted = down["last_counters"]["t1-guest"]["rx_frames"].as_u64();
    assert!(counted.is_some_and(|frames| frames > 0), "{down}");
    supervisor.wait_for("restarted", "t1");
    let began = Instant::now();
    while !is_reachable(site) {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "the guest is cut off: {}",
            fs::read_to_string(site.state_dir().join("tenants/t1/log")).unwrap_or_default()
        );
    }
    let restored = supervisor.wait_for("leases_restored", "t1");
    assert_eq!(restored["leases"], 1);
    assert_ne!(site.pid("t1"), killed);
}

#[test]
fn guest_keeps_its_lease_when_its_switch_is_killed() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let site = Site::new("tvr", 88_000, Vec::new());
    let dir = site.dir.path();
    let file = dir.join("t1.toml");
    fs::write(&file, TENANT).expect("a file");
    site.good(&["apply", file.to_str().expect("UTF-8")]);
    let server = serve(&site, dir);
    assert!(!is_reachable(&site), "the guest has no address");
    get_lease(&site, dir);
    assert!(is_reachable(&site));
    // From here on no server assigns an address.
    drop(server);

    let mut first = supervisor(&site);
    kill_switch(&site, &mut first);
    // The successor has the lease from the supervisor.
    first.stop();
    let mut second = supervisor(&site);
    kill_switch(&site, &mut second);
    second.stop();
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}
