//! The IKE daemon of one switch.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bed::{Bed, eventually};
use crate::pair::{Side, Terms};
use crate::vici::Vici;

/// The pre-shared key.
pub(crate) const SECRET: &str = "correct-horse-battery-staple";

/// How the two sides prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The same secret.
    Psk,
    /// Each knows the other's certificate.
    Pinned,
    /// An authority has signed both.
    Authority,
}

/// The daemon's program; `None`, with a message, if it was not built.
pub(crate) fn program(test: &str) -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let program = target.unwrap_or_else(own).join("ike/vswitch-charon");
    if !program.exists() {
        println!("{test} is skipped: scripts/build-ike has not built the IKE daemon");
        return None;
    }
    Some(program)
}

/// A running daemon. Dropping it kills it.
pub(crate) struct Charon {
    pub(crate) child: Child,
    pub(crate) vici: PathBuf,
}

impl Charon {
    /// Starts it as an unprivileged user, in the namespace `none`, which has nothing but its own
    /// loopback. It waits for VICI to answer, and configures nothing.
    pub(crate) fn start(bed: &Bed, side: &Side, program: &Path, terms: &Terms) -> Self {
        let directory = bed.path(&format!("vici-{}", side.name));
        let uid = side.uid();
        if !directory.exists() {
            std::fs::create_dir(&directory).expect("a directory");
            chown(&directory, Some(uid), Some(uid)).expect("it has an owner");
        }
        let vici = directory.join("vici.sock");
        let _ = std::fs::remove_file(&vici);
        let user = uid.to_string();
        let child = bed
            .command("none", "setpriv")
            .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
            .args(["--bounding-set=-all", "--inh-caps=-all"])
            .arg(program)
            .arg("--switch")
            .arg(side.socket(bed))
            .arg("--vici")
            .arg(&vici)
            .args(["--address", &side.vtep(terms).to_string()])
            .spawn()
            .expect("setpriv runs");
        let charon = Self { child, vici };
        eventually("charon answers", || Vici::connect(&charon.vici).is_some());
        charon
    }

    pub(crate) fn vici(&self) -> Vici {
        Vici::connect(&self.vici).expect("charon answers")
    }

    /// Loads the connection between the two sides.
    pub(crate) fn configure(&self, bed: &Bed, side: &Side, proof: Proof, terms: &Terms) {
        let (own, peer) = (
            side.vtep(terms).to_string(),
            side.other().vtep(terms).to_string(),
        );
        let mut vici = self.vici();
        let (local, mut remote) = match proof {
            Proof::Psk => {
                let secret = json!({
                    "id": "psk", "type": "ike", "data": SECRET,
                    "owners": [&peer],
                });
                vici.done("load-shared", &secret);
                (
                    json!({ "auth": "psk", "id": own }),
                    json!({ "auth": "psk", "id": peer }),
                )
            }
            Proof::Pinned | Proof::Authority => {
                let file =
                    |name: &str| std::fs::read_to_string(bed.path(name)).expect("it was made");
                let name = side.name;
                vici.done(
                    "load-key",
                    &json!({ "type": "any", "data": file(&format!("{name}.key")) }),
                );
                let local = json!({
                    "auth": "pubkey", "id": side.identity(),
                    "certs": [file(&format!("{name}.pem"))],
                });
                (
                    local,
                    json!({ "auth": "pubkey", "id": side.other().identity() }),
                )
            }
        };
        match proof {
            Proof::Psk => {}
            Proof::Pinned => {
                let name = format!("{}.pem", side.other().name);
                let certificate = std::fs::read_to_string(bed.path(&name)).expect("it was made");
                remote["certs"] = json!([certificate]);
            }
            Proof::Authority => {
                let authority = std::fs::read_to_string(bed.path("ca.pem")).expect("it was made");
                remote["cacerts"] = json!([authority]);
                let revoked = bed.path("ca.crl");
                if revoked.exists() {
                    let data = std::fs::read_to_string(revoked).expect("it was made");
                    let list = json!({ "type": "X509_CRL", "flag": "NONE", "data": data });
                    vici.done("load-cert", &list);
                    remote["revocation"] = json!("strict");
                }
            }
        }
        let child = |ours: &str, theirs: &str| {
            json!({
                "local_ts": [ours], "remote_ts": [theirs], "mode": "transport",
                "esp_proposals": [terms.esp], "start_action": "trap",
            })
        };
        let tunnel = format!("dynamic[17/{}]", terms.port);
        let connection = json!({
            "peer": {
                "version": "2", "mobike": "no", "proposals": [terms.ike],
                // As the provisioner says it: Open vSwitch's side does not ask for it.
                "send_cert": "always",
                "local_addrs": [own], "remote_addrs": [peer], "dpd_delay": "5s",
                "local": local, "remote": remote,
                "children": {
                    "in": child(&tunnel, "dynamic[17]"),
                    "out": child("dynamic[17]", &tunnel),
                },
            },
        });
        vici.done("load-conn", &connection);
    }

    /// The SAs of the connection by which the other side receives: by state.
    pub(crate) fn children(&self) -> Vec<Value> {
        let all = self.vici().events("list-sas", "list-sa");
        let all = all
            .iter()
            .filter_map(|sa| sa["peer"]["child-sas"].as_object());
        all.flat_map(|children| children.values().cloned())
            .collect()
    }

    /// Kills it at once: it tells nobody.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it ends");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it lives");
    }
}

impl Drop for Charon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
