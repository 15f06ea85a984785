//! What the supervisor mends on this host's kernel, as root: drift, everything that a reboot
//! removes, a lost state directory. Without root, each test prints that and passes.

#[path = "common/fake.rs"]
mod fake;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use fake::site;
use site::{Site, sh};
use supervisor::Supervisor;

const PATIENCE: Duration = Duration::from_secs(30);

/// A supervisor that watches these tenants.
fn supervisor(site: &Site, options: &[&str], tenants: &[&str]) -> Supervisor {
    let options = [&["--verify-every", "1"], options].concat();
    Supervisor::start(site.command(), &options, tenants, site.dir.path(), PATIENCE)
}

/// Waits until that is so.
#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn onboard(site: &Site, tenants: &[u8]) -> Vec<String> {
    let files: Vec<String> = tenants.iter().map(|it| site.tenant(*it, 1)).collect();
    let all: Vec<&str> = files.iter().map(String::as_str).collect();
    site.good(&[&["apply"], &all[..]].concat());
    files
}

fn plan(site: &Site, files: &[String]) -> String {
    let all: Vec<&str> = files.iter().map(String::as_str).collect();
    site.good(&[&["plan"], &all[..]].concat())
}

/// The In/Out port of a tenant on the bridge.
fn bridge_port(site: &Site, tenant: &str) -> String {
    let alias = format!("alias {tenant}");
    let links = sh(&format!("ip -n {} -o link", site.host()));
    let line = links.lines().find(|line| line.contains(&alias));
    let name = line.and_then(|line| line.split(": ").nth(1));
    let name = name.unwrap_or_else(|| panic!("no port of {tenant}: {links}"));
    name.split('@').next().unwrap_or_default().to_owned()
}

#[test]
fn drift_is_mended_in_place_unless_it_is_only_reported() {
    let Some(site) = site("tna", 93000) else {
        return;
    };
    let files = onboard(&site, &[1, 2, 3]);
    let pids = ["t1", "t2", "t3"].map(|tenant| site.pid(tenant));
    let metrics = site.dir.path().join("mts.prom");
    let metrics_path = metrics.to_str().expect("a path");
    let options = ["--mend", "t2=report", "--metrics", metrics_path];
    let mut supervisor = supervisor(&site, &options, &["t1", "t2", "t3"]);
    let port = bridge_port(&site, "t1");
    sh("ip -n tna-t2-vm1 link set eth0 mtu 1300");
    sh(&format!(
        "ip -n tna-t1-vm1 link set eth0 mtu 1300; ip -n tna-sw-t1 link set inout mtu 1400; \
         bridge -n {} link set dev {port} isolated off",
        site.host()
    ));
    let drift = supervisor.wait_for("drift", "t1");
    assert!(!drift["found"].as_array().expect("a list").is_empty());
    supervisor.wait_for("drift", "t2");
    let differs = "peer.mtu should be 1500 and is 1300";
    until("only t2 differs", || {
        let plan = plan(&site, &files);
        let lines: Vec<&str> = plan.lines().collect();
        matches!(lines[..], [line] if line.starts_with("~ change veth pair tna-sw-t2/gw-")
            && line.ends_with(differs))
    });
    // What was seen first may have been a part of it.
    let mended = supervisor.events().into_iter();
    let mended = mended.filter(|it| it["event"] == "mended" && it["tenant"] == "t1");
    let changes: Vec<Value> = mended.map(|it| it["changes"].clone()).collect();
    let changes = json!(changes).to_string();
    for change in [differs, "switch.mtu should be 1500 and is 1400"] {
        assert!(changes.contains(change), "{change} is not in {changes}");
    }
    // The port's place on the bridge is a part of its lock, which is faster.
    supervisor.wait_for("locked", "t1");
    assert_eq!(site.status("t1")["trouble"], Value::Null);
    let trouble = site.status("t2")["trouble"].clone();
    assert_eq!(trouble["state"], "differs, and is not mended");
    let why = trouble["why"].as_str().expect("a sentence");
    assert!(
        why.starts_with("veth pair tna-sw-t2/gw-") && why.ends_with(differs),
        "{why}"
    );
    until("metrics", || {
        let text = fs::read_to_string(&metrics).unwrap_or_default();
        let line = |line: &str| text.lines().any(|it| it == line);
        line("vf_provisioner_troubled{tenant=\"t1\"} 0")
            && line("vf_provisioner_troubled{tenant=\"t2\"} 1")
            && line("vf_provisioner_repairs_total{tenant=\"t2\"} 0")
            && line("vf_provisioner_repairs_total{tenant=\"t3\"} 0")
            && !line("vf_provisioner_repairs_total{tenant=\"t1\"} 0")
    });
    // A lock is restored whatever the policy is: it always closes and comes back.
    let lock = format!(
        "nft delete chain netdev tna lock-{}",
        bridge_port(&site, "t2")
    );
    sh(&format!("nsenter --net=/run/netns/{} {lock}", site.host()));
    supervisor.wait_for("locked", "t2");
    // No switch was restarted.
    assert_eq!(["t1", "t2", "t3"].map(|tenant| site.pid(tenant)), pids);
    supervisor.stop();
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn tenant_that_cannot_be_repaired_backs_off_and_disturbs_no_other() {
    let Some(site) = site("tnb", 93040) else {
        return;
    };
    let files = onboard(&site, &[1, 2]);
    let other = site.pid("t2");
    let mut supervisor = supervisor(&site, &[], &["t1", "t2"]);
    // A folder in the namespace's place.
    supervisor.unseen(|| {
        sh("ip netns delete tnb-t1-vm1; mkdir /run/netns/tnb-t1-vm1");
        fs::remove_dir_all(site.state_dir().join("tenants/t1")).expect("it is there");
    });
    let pauses: Vec<f64> = (0..4)
        .map(|_| supervisor.wait_for("heal_failed", "t1"))
        .map(|failed| failed["next_try_s"].as_f64().expect("a number"))
        .collect();
    for (pause, expected) in pauses.iter().zip([0.5, 1.0, 2.0, 4.0]) {
        let bounds = expected * 0.74..expected * 1.26;
        assert!(bounds.contains(pause), "{pauses:?}");
    }
    let trouble = site.status("t1")["trouble"].clone();
    assert_eq!(trouble["state"], "cannot be repaired", "{trouble}");
    let why = trouble["why"].as_str().expect("a sentence");
    assert!(why.starts_with("network namespace tnb-t1-vm1: "), "{why}");
    assert!(trouble["next_try"].as_f64().is_some(), "{trouble}");
    let output = site.run(&["status"]);
    assert_eq!(output.status.code(), Some(3), "t1 is down");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("tenant t1 cannot be repaired since "),
        "{text}"
    );
    // The other tenant is changed, mended and verified meanwhile.
    sh("ip -n tnb-t2-vm1 link set eth0 mtu 1300");
    supervisor.wait_for("mended", "t2");
    site.good(&["apply", &site.tenant(2, 1)]);
    assert_eq!(site.status("t2")["trouble"], Value::Null);
    assert_eq!(site.pid("t2"), other);
    sh("rmdir /run/netns/tnb-t1-vm1");
    // It names what was made in the tries that failed, too.
    let healed = supervisor.wait_for("healed", "t1")["objects"].to_string();
    for made in ["directory of tenant t1", "network namespace tnb-t1-vm1"] {
        assert!(healed.contains(made), "{healed}");
    }
    until("nothing to do", || plan(&site, &files) == "nothing to do\n");
    until("no trouble", || site.status("t1")["trouble"] == Value::Null);
    supervisor.stop();
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn setting_that_somebody_else_changes_again_is_mended_more_slowly() {
    let Some(site) = site("tnc", 93080) else {
        return;
    };
    onboard(&site, &[1]);
    let mut supervisor = supervisor(&site, &[], &["t1"]);
    let mut pauses = Vec::new();
    for round in 0..4 {
        sh("ip -n tnc-t1-vm1 link set eth0 mtu 1300");
        if round > 0 {
            let contended = supervisor.wait_for("contended", "t1");
            assert_eq!(contended["repairs"], round);
            pauses.push(contended["next_try_s"].as_f64().expect("a number"));
            assert_eq!(site.status("t1")["trouble"]["state"], "contended");
        }
        supervisor.wait_for("mended", "t1");
    }
    for (pause, expected) in pauses.iter().zip([1.0, 2.0, 4.0]) {
        let bounds = expected * 0.74..expected * 1.26;
        assert!(bounds.contains(pause), "{pauses:?}");
    }
    supervisor.stop();
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

/// A process that ends with this value.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Removes everything that a reboot removes. The state directory stays.
fn reboot(site: &Site) {
    for tenant in ["t1", "t2", "t3"] {
        kill(Pid::from_raw(site.pid(tenant)), Signal::SIGKILL).expect("it runs");
    }
    let instance = site.instance;
    let names = sh("ip netns list");
    let names = names.lines().filter_map(|line| line.split(' ').next());
    for name in names.filter(|name| name.starts_with(&format!("{instance}-"))) {
        sh(&format!("ip netns delete {name}"));
    }
    // A new one in the place of the host's own.
    sh(&format!("ip netns add {}", site.host()));
    let groups = format!("find /sys/fs/cgroup -depth -path '*/{instance}*' -type d");
    until("control groups are gone", || {
        sh(&format!("{groups} -exec rmdir {{}} ';' 2>/dev/null"));
        sh(&groups).is_empty()
    });
    let mut left: Vec<String> = site.left().into_iter().collect();
    left.retain(|line| !line.starts_with("state ") && !site.nothing().contains(line));
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn supervisor_alone_brings_everything_up_after_a_reboot() {
    let Some(site) = site("tnd", 93120) else {
        return;
    };
    let files = onboard(&site, &[1, 2, 3]);
    reboot(&site);
    // After a boot the numbers of processes are given again, also to programs of others.
    let sleeper = Command::new("sleep").arg("600").spawn().expect("it starts");
    let mut sleeper = Sleeper(sleeper);
    let pid = sleeper.0.id();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("a command");
    let ticks: u64 = fields
        .split_whitespace()
        .nth(19)
        .expect("a field")
        .parse()
        .expect("a number");
    let note = site.state_dir().join("tenants/t1/process.json");
    let mut launched: Value =
        serde_json::from_slice(&fs::read(&note).expect("a note")).expect("it is JSON");
    let boot = launched["started"]["boot"].as_u64().expect("a boot");
    launched["started"] = json!({"pid": pid, "start_ticks": ticks, "boot": boot ^ 1});
    fs::write(&note, launched.to_string()).expect("it is written");
    assert_eq!(site.status("t1")["state"], "down");

    let began = Instant::now();
    let mut supervisor = supervisor(&site, &[], &["t1", "t2", "t3"]);
    for tenant in ["t1", "t2", "t3"] {
        supervisor.wait_for("healed", tenant);
        supervisor.wait_for("restarted", tenant);
    }
    until("nothing to do", || plan(&site, &files) == "nothing to do\n");
    site.good(&["verify"]);
    eprintln!(
        "three tenants were up {:.1} s after the boot",
        began.elapsed().as_secs_f64()
    );
    let states = ["t1", "t2", "t3"].map(|tenant| site.status(tenant)["state"].clone());
    assert_eq!(states, ["up", "up", "up"]);
    assert_eq!(
        sleeper.0.try_wait().expect("its state"),
        None,
        "it is not ours to end"
    );
    supervisor.stop();
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn lost_state_directory_is_restored_from_a_backup() {
    let Some(site) = site("tne", 93160) else {
        return;
    };
    let files = onboard(&site, &[1, 2]);
    let backup = site.dir.path().join("backup.json");
    let backup = backup.to_str().expect("a path");
    site.good(&["backup", backup]);
    // The switches run on, and nobody knows them any more.
    fs::remove_dir_all(site.state_dir()).expect("it is there");
    let lost = site.run(&["status", "t1"]);
    assert_eq!(lost.status.code(), Some(2), "{lost:?}");
    let dry = site.good(&["restore", "--dry-run", backup]);
    assert!(
        dry.ends_with("restored: t1\nrestored: t2\nnothing was changed\n"),
        "{dry}"
    );
    assert_eq!(site.run(&["status", "t1"]).status.code(), Some(2));
    site.good(&["restore", backup]);
    let mut supervisor = supervisor(&site, &[], &["t1", "t2"]);
    for tenant in ["t1", "t2"] {
        supervisor.wait_for("restarted", tenant);
    }
    until("nothing to do", || plan(&site, &files) == "nothing to do\n");
    site.good(&["verify"]);
    // A later apply is not undone by an old backup unless that is meant.
    site.good(&["apply", &site.tenant(3, 1)]);
    let refused = site.run(&["restore", backup]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(text.contains("would change or remove (t3)"), "{text}");
    supervisor.wait_for("watching", "t3");
    site.good(&["restore", "--replace", backup]);
    supervisor.wait_for("released", "t3");
    supervisor.wait_for("removed", "");
    until("nothing of t3 is left", || {
        !site.left().iter().any(|it| it.contains("t3"))
    });
    site.good(&["verify"]);
    supervisor.stop();
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn journal_says_who_did_what_to_whom_with_which_result() {
    let Some(site) = site("tnf", 93200) else {
        return;
    };
    let secret = "hunter2-of-the-environment";
    let apply = |number: u8, ports: u8| {
        let file = site.tenant(number, ports);
        let mut command = site.command();
        command.env("SUDO_USER", "alice").env("SECRET", secret);
        command.args(["apply", &file]).output().expect("it starts")
    };
    assert!(apply(1, 1).status.success());
    // The second port cannot be made: its guest has an eth0 of its own.
    sh("ip netns add tnf-t1-vm2; ip -n tnf-t1-vm2 link add eth0 type veth peer name other");
    assert_eq!(apply(1, 2).status.code(), Some(1));
    sh("ip netns delete tnf-t1-vm2");
    let killed = site.run(&["--kill-at", "3", "apply", &site.tenant(2, 1)]);
    assert_eq!(killed.status.code(), None);
    site.good(&["release", "--all"]);
    let journal = |options: &[&str]| {
        let changes = site.json(&[&["journal"], options].concat())["changes"].clone();
        changes.as_array().expect("a list").clone()
    };
    let all = journal(&[]);
    let result = |it: &Value| match &it["outcome"] {
        Value::Null => "none",
        outcome if outcome.get("error").is_some() => "failed",
        _ => "done",
    };
    let (changes, releases) = all.split_at(3);
    let seen: Vec<_> = changes
        .iter()
        .map(|it| json!([it["what"], it["tenants"], it["who"]["sudo"], result(it)]))
        .collect();
    let wanted = [
        json!(["apply", ["t1"], "alice", "done"]),
        json!(["apply", ["t1"], "alice", "failed"]),
        json!(["apply", ["t2"], null, "none"]),
    ];
    assert_eq!(seen, wanted);
    let released = |it: &Value| it["what"] == "release" && result(it) == "done";
    assert!(
        !releases.is_empty() && releases.iter().all(released),
        "{releases:?}"
    );
    assert_eq!(all[0]["who"]["user"], "root");
    let command = all[0]["who"]["command"].as_str().expect("words");
    assert!(
        command.contains("--instance tnf") && command.contains(" apply "),
        "{command}"
    );
    let of_other = journal(&["--tenant", "t2"]);
    assert_eq!((&of_other[0], of_other.len()), (&all[2], 2));
    assert_eq!(journal(&["--since", "1h"]), all);
    assert_eq!(journal(&["--since", "2199-01-01"]), Vec::<Value>::new());
    let text = site.good(&["journal"]);
    assert_eq!(text.lines().count(), all.len(), "{text}");
    assert!(
        text.contains("  root (alice)  apply t1  failed: cannot create "),
        "{text}"
    );
    assert!(!text.contains(secret) && !json!(all).to_string().contains(secret));
    assert_eq!(site.left(), site.nothing());
}
