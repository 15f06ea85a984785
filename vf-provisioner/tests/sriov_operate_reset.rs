//! A tenant whose NIC is reset, loses its functions or its driver while its switch runs, on real
//! functions of a real driver, `igb`, in the emulated machine. Elsewhere each test prints that and
//! passes.

#[path = "common/emulated.rs"]
mod emulated;
#[path = "common/output.rs"]
mod output;
#[path = "common/shell.rs"]
mod shell;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use emulated::is_emulated;
use output::written;
use shell::sh;
use supervisor::Supervisor;

const PROVISIONER: &str = env!("CARGO_BIN_EXE_vf-provisioner");
const PF: &str = "/sys/bus/pci/devices/0000:01:00.0";
/// How long the emulated machine may take for what a host does at once.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long the supervisor may take to make a tenant's functions again, to prove them with frames,
/// and to restart the switch, with pauses after tries that failed.
const RETURN: Duration = Duration::from_secs(400);
/// How long any look at the host may take there, whatever the host does.
const LOOK: Duration = Duration::from_secs(40);

/// A host with one tenant of two ports, whose guests are network namespaces.
struct Site {
    dir: tempfile::TempDir,
    switch: PathBuf,
    file: PathBuf,
}

impl Site {
    /// The tenant is up, and its guests reach each other.
    fn new() -> Option<Self> {
        if !is_emulated() {
            return None;
        }
        let switch = Path::new(PROVISIONER).with_file_name("vswitch");
        if !switch.is_file() {
            eprintln!("skipped: needs the switch's binary (scripts/test operate)");
            return None;
        }
        let dir = tempfile::tempdir_in("/dev/shm").expect("a temporary directory");
        let file = dir.path().join("t1.toml");
        let port = |number: u8| {
            format!(
                "[[port]]\nname = \"t1-vm{number}\"\nmac = \"52:54:00:00:01:0{number}\"\naddresses \
                 = [\"10.1.0.1{number}\"]\n"
            )
        };
        // This NIC reads back a source check that it does not make.
        let head = "name = \"t1\"\nvni = 5001\n[gateway]\nipv4 = \"10.1.0.1/24\"\n[nic]\naccept = \
                    [\"spoof-check\"]\n";
        fs::write(&file, format!("{head}{}{}", port(1), port(2))).expect("it is written");
        let site = Self { dir, switch, file };
        site.good(&[
            "apply",
            "--no-prove",
            "--nic",
            "sriov",
            "--pf",
            "pf0",
            "--guest",
            "netns",
            site.file.to_str().expect("a path"),
        ]);
        site.guests();
        assert!(site.pings(), "guests reach each other");
        Some(site)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(PROVISIONER);
        command
            .arg("--state-dir")
            .arg(self.dir.path().join("state"))
            .arg("--switch-binary")
            .arg(&self.switch)
            .stdin(Stdio::null());
        command
    }

    /// A run that ends in time.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Output {
        let began = Instant::now();
        let output = self.command().args(arguments).output();
        assert!(
            began.elapsed() < LOOK,
            "{arguments:?}: {:?}",
            began.elapsed()
        );
        output.expect("the provisioner starts")
    }

    #[track_caller]
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output();
        written(&output.expect("the provisioner starts"), arguments)
    }

    /// The guests' addresses; a guest's own network manager sets them whenever an interface comes.
    fn guests(&self) {
        for number in [1, 2] {
            sh(&format!(
                "ip -n t1-vm{number} addr replace 10.1.0.1{number}/24 dev eth0
                 ip -n t1-vm{number} link set eth0 up"
            ));
        }
    }

    /// Whether guests whose interfaces may be new reach each other.
    fn is_back(&self) -> bool {
        let configure = "for n in 1 2; do ip -n t1-vm$n addr replace 10.1.0.1$n/24 dev eth0 && ip \
                         -n t1-vm$n link set eth0 up || exit 1; done 2>/dev/null";
        let done = Command::new("sh").args(["-c", configure]).status();
        done.expect("sh starts").success() && self.pings()
    }

    fn pings(&self) -> bool {
        let status = Command::new("ip")
            .args(["netns", "exec", "t1-vm1", "ping", "-q", "-c", "3"])
            .args(["-i", "0.3", "-W", "3", "10.1.0.12"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.expect("ping starts").success()
    }

    #[track_caller]
    fn drift(&self) -> Vec<String> {
        let output = self.run(&["--json", "verify"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!(
                "{error}: {text} {}",
                String::from_utf8_lossy(&output.stderr)
            );
        });
        let lines = json["drift"].as_array().expect("a list").iter();
        lines.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    #[track_caller]
    fn status(&self) -> Value {
        let output = self.run(&["--json", "status"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let json: Value = serde_json::from_str(&text).expect("JSON");
        json["tenants"][0].clone()
    }

    fn pid(&self) -> u64 {
        self.status()["switch"]["pid"].as_u64().expect("it runs")
    }

    fn supervise(&self, options: &[&str]) -> Supervisor {
        Supervisor::start(self.command(), options, &["t1"], self.dir.path(), PATIENCE)
    }

    fn release(&self) {
        self.good(&["release", "--all"]);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // For the next test.
            let _ = self.command().args(["release", "--all"]).output();
        }
    }
}

#[track_caller]
fn eventually(what: &str, within: Duration, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Resets the PF; returns when it has a link again.
fn reset(how: &str) {
    sh(how);
    eventually("the link of pf0", PATIENCE, || {
        fs::read_to_string("/sys/class/net/pf0/carrier").is_ok_and(|text| text.trim() == "1")
    });
}

#[test]
fn switch_after_reset_of_pf_is_reported_and_restarted() {
    let Some(site) = Site::new() else { return };
    let pid = site.pid();
    reset("ip link set pf0 down; sleep 1; ip link set pf0 up");
    // Its driver, igbvf, does not tell the switch: it lives, answers, and sees a link.
    assert!(!site.pings(), "the functions are dead");
    let drift = site.drift();
    assert_eq!(
        drift,
        ["switch of tenant t1 does not run, or forwards nothing"]
    );
    let status = site.status();
    assert_eq!(status["state"], "stuck");
    let why = status["stuck"].as_str().expect("a sentence");
    let words = "receives no frame that pf0 sends to its virtual function 0000:01:10.2";
    assert!(why.contains(words), "{why}");
    assert_eq!(status["switch"]["pid"].as_u64(), Some(pid), "it lives");
    let metrics = site.good(&["status", "--metrics"]);
    let up = "vf_provisioner_tenant_up{tenant=\"t1\",launcher=\"process\"} 0\n";
    assert!(metrics.contains(up), "{metrics}");

    // An apply restarts it.
    site.good(&["apply", "--no-prove", site.file.to_str().expect("a path")]);
    assert_ne!(site.pid(), pid);
    eventually("guests reach each other", PATIENCE, || site.pings());
    assert_eq!(site.drift(), Vec::<String>::new());
    assert_eq!(site.status()["state"], "up");

    // So does the supervisor, which finds it by itself.
    let mut supervisor = site.supervise(&["--verify-every", "0"]);
    reset("ip link set pf0 mtu 1600");
    let stuck = supervisor.wait_for("stuck", "t1");
    let why = stuck["why"].as_str().expect("a sentence");
    assert!(why.contains("receives no frame that pf0 sends"), "{why}");
    supervisor.wait_for("restarted", "t1");
    eventually("guests reach each other", PATIENCE, || site.pings());
    supervisor.stop();
    sh("ip link set pf0 mtu 1500");
    site.release();
}

#[test]
fn removed_functions_are_given_up_and_come_back() {
    let Some(site) = Site::new() else { return };
    let pid = site.pid();
    // It keeps what the switch writes at its end.
    let mut supervisor = site.supervise(&["--verify-every", "2"]);
    let began = Instant::now();
    sh(&format!("echo 0 > {PF}/sriov_numvfs"));
    assert!(began.elapsed() < LOOK, "{:?}", began.elapsed());
    supervisor.wait_for("down", "t1");
    // Nobody is needed.
    eventually("the tenant is back", RETURN, || site.is_back());
    supervisor.stop();
    assert_eq!(site.drift(), Vec::<String>::new());
    let status = site.status();
    assert_eq!(status["state"], "up");
    assert_ne!(status["switch"]["pid"].as_u64(), Some(pid));
    let log = status["log"].as_str().expect("a path");
    let log = fs::read_to_string(log).expect("a log");
    let words = "the kernel wants the device of port t1-vm1 back";
    assert!(log.contains(words), "{log}");
    site.release();
}

#[test]
fn removal_that_waits_for_a_switch_blocks_no_look_and_ends() {
    let Some(site) = Site::new() else { return };
    // It does not hear of the request.
    let pid = site.pid();
    sh(&format!("kill -STOP {pid}"));
    let mut remove = Command::new("sh")
        .args(["-c", "echo 0000:01:00.0 > /sys/bus/pci/drivers/igb/unbind"])
        .spawn()
        .expect("sh starts");
    eventually("the removal begins", PATIENCE, || {
        !Path::new(PF).join("virtfn0").exists()
    });
    assert_eq!(remove.try_wait().expect("it is ours"), None, "it waits");
    let drift = site.drift();
    let stuck = "switch of tenant t1 does not run, or forwards nothing".to_owned();
    assert!(
        drift.iter().any(|line| line.contains("virtual function")),
        "{drift:?}"
    );
    assert!(drift.contains(&stuck), "{drift:?}");
    assert_eq!(site.status()["state"], "stuck");
    site.run(&["nic"]);
    assert_eq!(remove.try_wait().expect("it is ours"), None, "it waits");

    // The supervisor ends the switch, and so the removal.
    let mut supervisor = site.supervise(&["--verify-every", "2"]);
    supervisor.wait_for("down", "t1");
    eventually("the removal ends", PATIENCE, || {
        remove.try_wait().expect("it is ours").is_some()
    });
    // The NIC's driver returns, and the tenant with it.
    sh("echo 0000:01:00.0 > /sys/bus/pci/drivers/igb/bind; sleep 1
        [ -e /sys/class/net/pf0 ] ||
             ip link set $(ls /sys/bus/pci/devices/0000:01:00.0/net) name pf0");
    eventually("the tenant is back", RETURN, || site.is_back());
    supervisor.stop();
    assert_eq!(site.drift(), Vec::<String>::new());
    assert_eq!(site.status()["state"], "up");
    site.release();
    sh("echo 1 > /sys/class/net/pf0/device/sriov_drivers_autoprobe");
}
