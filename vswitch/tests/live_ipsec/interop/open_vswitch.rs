//! Open vSwitch's kernel datapath at the far end, whose monitor configures Debian's strongSwan.

use std::path::Path;
use std::process::Command;

use super::{Site, modules};
use crate::bed::{Bed, run};
use crate::certificates::OPEN_VSWITCH;
use crate::charon::{Proof, SECRET};
use crate::pair::{A, B, TERMS, Terms, text};

/// Open vSwitch's daemons of one test, by the files in which they keep their numbers.
struct OpenVswitch(Vec<&'static str>);

impl Drop for OpenVswitch {
    fn drop(&mut self) {
        let _ = Command::new("ipsec").arg("stop").output();
        for file in &self.0 {
            if let Ok(pid) = std::fs::read_to_string(file) {
                let _ = Command::new("kill").arg(pid.trim()).output();
            }
        }
    }
}

/// The daemons, with a bridge and a tunnel under IPsec.
fn open_vswitch(bed: &Bed, proof: Proof) -> OpenVswitch {
    const DIRECTORY: &str = "/run/openvswitch";
    const PIDS: [&str; 3] = [
        "/run/openvswitch/ovsdb-server.pid",
        "/run/openvswitch/ovs-vswitchd.pid",
        "/run/openvswitch/ovs-monitor-ipsec.pid",
    ];
    modules(&["openvswitch", "vport-geneve"]);
    std::fs::create_dir_all(DIRECTORY).expect("a directory");
    let database = bed.path("conf.db");
    run(Command::new("ovsdb-tool").args([
        "create",
        text(&database),
        "/usr/share/openvswitch/vswitch.ovsschema",
    ]));
    let inside = |program: &str, arguments: &[&str]| {
        run(bed.command("far", program).args(arguments));
    };
    let detached = |file: &str| format!("--pidfile={file}");
    let server = [
        "--remote=punix:/run/openvswitch/db.sock",
        "--detach",
        "--no-chdir",
    ];
    let pid = detached(PIDS[0]);
    inside(
        "ovsdb-server",
        &[&server[..], &[&pid, text(&database)]].concat(),
    );
    let vsctl = |arguments: &[&str]| {
        run(Command::new("ovs-vsctl")
            .arg("--timeout=60")
            .args(arguments));
    };
    vsctl(&["--no-wait", "init"]);
    inside(
        "ovs-vswitchd",
        &[&detached(PIDS[1]), "--detach", "--log-file=/dev/null"],
    );
    let address = format!("other_config:hwaddr=\"{}\"", B.tunnel_mac());
    vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", &address]);
    bed.inside("far", &["link", "set", "dev", "br0", "mtu", "1376", "up"]);
    let inner = format!("{}/24", B.inner());
    bed.inside("far", &["addr", "add", &inner, "dev", "br0"]);
    let monitor = [
        "/usr/share/openvswitch/scripts/ovs-monitor-ipsec",
        &detached(PIDS[2]),
        "--ike-daemon=strongswan",
        "--log-file=/dev/null",
        "--detach",
        "unix:/run/openvswitch/db.sock",
    ];
    inside("/usr/bin/python3", &monitor);
    let remote = format!("options:remote_ip={}", A.vtep(&TERMS));
    let file = |name: &str| bed.path(name).display().to_string();
    let own = |what: &str, name: &str| format!("other_config:{what}={}", file(name));
    let peer = match proof {
        Proof::Psk => format!("options:psk={SECRET}"),
        Proof::Pinned => format!("options:remote_cert={}", file("a.pem")),
        Proof::Authority => format!("options:remote_name={}", A.identity()),
    };
    if proof != Proof::Psk {
        let mut settings = vec![own("certificate", "b.pem"), own("private_key", "b.key")];
        if proof == Proof::Authority {
            settings.push(own("ca_cert", "ca.pem"));
            // The monitor's section of the authority has no auto=add: strongSwan ignores it.
            let known = "/etc/ipsec.d/cacerts/ca.pem";
            std::fs::copy(bed.path("ca.pem"), known).expect("it is copied");
        }
        let settings = settings.iter().map(String::as_str);
        let set = ["set", "Open_vSwitch", "."];
        vsctl(&set.into_iter().chain(settings).collect::<Vec<_>>());
    }
    let tunnel = [
        "add-port",
        "br0",
        "tun0",
        "--",
        "set",
        "interface",
        "tun0",
        "type=geneve",
    ];
    vsctl(&[&tunnel[..], &[&remote, "options:key=5001", &peer]].concat());
    OpenVswitch(PIDS.to_vec())
}

/// Whether it and ours reach each other, and keep doing so while keys are renewed.
fn carries_traffic(test: &str, proof: Proof) {
    // As ovs-monitor-ipsec 3.1 proposes.
    let terms = Terms {
        esp: "aes256gcm16-modp2048",
        ike: "aes256gcm16-prfsha256-modp2048",
        ..TERMS
    };
    if !Path::new("/run/emulated-machine").exists() {
        println!("Open vSwitch's monitor changes /etc: it runs in the emulated machine only");
        return;
    }
    let Some(site) = Site::begin(test, terms, proof, OPEN_VSWITCH) else {
        return;
    };
    let _daemons = open_vswitch(&site.bed, proof);
    site.carries_traffic(0);
}

#[test]
fn shared_key() {
    carries_traffic("Open vSwitch", Proof::Psk);
}

#[test]
fn pinned_certificates() {
    carries_traffic("Open vSwitch, pinned", Proof::Pinned);
}

#[test]
fn authority() {
    carries_traffic("Open vSwitch, an authority", Proof::Authority);
}
