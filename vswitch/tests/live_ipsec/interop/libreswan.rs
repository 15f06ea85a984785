//! Libreswan at the far end, as `ovs-monitor-ipsec --ike-daemon=libreswan` configures it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::{Site, tunnel_device};
use crate::bed::{Bed, eventually, run};
use crate::certificates::PLAIN;
use crate::charon::{Proof, SECRET};
use crate::pair::{A, B, TERMS, Terms, text};

/// Where its programs look for each other.
const PROGRAMS: &str = "/usr/libexec/ipsec";

/// Its daemon. Dropping it kills it.
struct Pluto {
    child: Child,
    control: PathBuf,
}

impl Pluto {
    /// `None`, with a message, if scripts/setup has not unpacked it.
    fn start(bed: &Bed, terms: &Terms) -> Option<Self> {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or("/root".into()));
        let cache = cache.unwrap_or_else(|| home().join(".cache"));
        let unpacked = cache
            .join("vswitch-emulated-machine/libreswan")
            .join(&PROGRAMS[1..]);
        if !unpacked.join("pluto").exists() {
            println!("skipped: scripts/setup --for emulated has not unpacked libreswan");
            return None;
        }
        let _ = std::os::unix::fs::symlink(&unpacked, PROGRAMS);
        let directory = bed.path("pluto");
        fs::create_dir(&directory).expect("a directory");
        let (settings, secrets) = (
            directory.join("ipsec.conf"),
            directory.join("ipsec.secrets"),
        );
        let (own, peer) = (B.vtep(terms), A.vtep(terms));
        let child = |name: &str, own: &str, peer: &str| {
            format!(
                "conn {name}\n also=common\n leftprotoport={own}\n rightprotoport={peer}\n \
                 auto=ondemand\n"
            )
        };
        let tunnel = format!("udp/{}", terms.port);
        let content = format!(
            "conn common\n left={own}\n right={peer}\n authby=secret\n type=transport\n \
             leftupdown=%disabled\n ikev2=insist\n ike=aes_gcm256-sha2_256;dh14\n \
             esp=aes_gcm256\n{}{}",
            child("in", &tunnel, "udp"),
            child("out", "udp", &tunnel),
        );
        fs::write(&settings, content).expect("a file");
        fs::write(&secrets, format!("{own} {peer} : PSK \"{SECRET}\"\n")).expect("a file");
        fs::set_permissions(&secrets, Permissions::from_mode(0o600)).expect("it is ours");
        let database = format!("sql:{}", text(&directory));
        run(Command::new("certutil").args(["-N", "-d", &database, "--empty-password"]));
        let child = bed
            .command("far", &format!("{PROGRAMS}/pluto"))
            .args(["--nofork", "--stderrlog", "--no-dnssec"])
            .args(["--config", text(&settings), "--secretsfile", text(&secrets)])
            .args(["--rundir", text(&directory), "--nssdir", text(&directory)])
            .spawn()
            .expect("it starts");
        let pluto = Self {
            child,
            control: directory.join("pluto.ctl"),
        };
        // It tests its own cryptography first.
        eventually("libreswan has its connections", || {
            let shown = pluto.whack(bed, &["--status"]);
            shown.matches("prospective erouted").count() == 2
        });
        Some(pluto)
    }

    /// What its command prints.
    fn whack(&self, bed: &Bed, arguments: &[&str]) -> String {
        let mut whack = bed.command("far", &format!("{PROGRAMS}/whack"));
        whack.args(["--ctlsocket", text(&self.control)]);
        let output = whack.args(arguments).output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Pluto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn shared_key() {
    if !Path::new("/run/emulated-machine").exists() {
        println!("Libreswan's programs are put into /usr: it runs in the emulated machine only");
        return;
    }
    let terms = Terms {
        esp: "aes256gcm16-modp2048",
        ike: "aes256gcm16-prfsha256-modp2048",
        ..TERMS
    };
    let Some(site) = Site::begin("Libreswan", terms, Proof::Psk, PLAIN) else {
        return;
    };
    tunnel_device(&site.bed, &terms);
    let Some(_pluto) = Pluto::start(&site.bed, &terms) else {
        return;
    };
    // It sends by new keys as soon as it has agreed to them, before its answer can be here. Both
    // directions are renewed three times.
    site.carries_traffic(6);
}
