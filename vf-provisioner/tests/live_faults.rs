//! What the provisioner does about faults on this host's kernel, as root: switches that are stopped
//! or hang, lost objects, a full disk, killed applies. Without root, each test prints that and
//! passes.

#[path = "common/fake.rs"]
mod fake;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use fake::site;
use site::{Site, sh};
use supervisor::Supervisor;

/// A supervisor that watches these tenants.
fn supervisor(site: &Site, tenants: &[&str]) -> Supervisor {
    let patience = Duration::from_secs(20);
    Supervisor::start(site.command(), &[], tenants, site.dir.path(), patience)
}

fn signal(site: &Site, tenant: &str, signal: Signal) -> i32 {
    let pid = site.pid(tenant);
    kill(Pid::from_raw(pid), signal).expect("it is there");
    pid
}

/// A file beside a switch's control socket.
fn beside(site: &Site, tenant: &str, name: &str) -> PathBuf {
    site.state_dir()
        .join("tenants")
        .join(tenant)
        .join("run")
        .join(name)
}

/// A sign to the fake switch.
fn tell(site: &Site, tenant: &str, sign: &str) {
    fs::write(beside(site, tenant, sign), "").expect("the fake switch's sign");
}

#[test]
fn apply_restarts_switches_that_forward_nothing() {
    let Some(site) = site("tfa", 92000) else {
        return;
    };
    let files = [1, 2, 3, 4].map(|number| site.tenant(number, 1));
    let all: Vec<&str> = files.iter().map(String::as_str).collect();
    site.good(&[&["apply"], &all[..]].concat());
    let before = ["t1", "t2", "t3", "t4"].map(|tenant| site.pid(tenant));
    signal(&site, "t1", Signal::SIGSTOP);
    tell(&site, "t2", "hang");
    fs::remove_file(beside(&site, "t3", "control.sock")).expect("it is there");
    let plan = site.good(&[&["plan"], &all[..]].concat());
    let missing = |tenant: u8| format!("+ create switch of tenant t{tenant}\n");
    assert_eq!(plan, [1, 2, 3].map(missing).concat());
    let verify = site.run(&["verify"]);
    let text = String::from_utf8_lossy(&verify.stdout).into_owned();
    let down =
        |tenant: u8| format!("switch of tenant t{tenant} does not run, or forwards nothing\n");
    assert_eq!(text, [1, 2, 3].map(down).concat());

    fs::remove_file(beside(&site, "t2", "hang")).expect("it is there");
    signal(&site, "t2", Signal::SIGSTOP);
    let applied = site.good(&[&["apply"], &all[..]].concat());
    assert!(applied.starts_with("3 actions done"), "{applied}");
    site.good(&["verify"]);
    let after = ["t1", "t2", "t3", "t4"].map(|tenant| site.pid(tenant));
    let stayed = before
        .iter()
        .zip(after)
        .map(|(before, after)| *before == after);
    assert_eq!(stayed.collect::<Vec<_>>(), [false, false, false, true]);
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn supervisor_restarts_switches_that_forward_nothing() {
    let Some(site) = site("tfb", 92040) else {
        return;
    };
    let files = [1, 2, 3, 4].map(|number| site.tenant(number, 1));
    site.good(&[&["apply"], &files.each_ref().map(String::as_str)[..]].concat());
    let mut supervisor = supervisor(&site, &["t1", "t2", "t3", "t4"]);
    let began = Instant::now();
    let first = signal(&site, "t1", Signal::SIGSTOP);
    let other = site.pid("t4");
    tell(&site, "t2", "hang");
    fs::remove_file(beside(&site, "t3", "control.sock")).expect("it is there");
    let stuck = supervisor.wait_for("stuck", "t2");
    assert_eq!(stuck["why"], "its worker forwards no frames");
    fs::remove_file(beside(&site, "t2", "hang")).expect("it is there");
    for tenant in ["t1", "t2", "t3"] {
        supervisor.wait_for("restarted", tenant);
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let stuck = supervisor.wait_for("stuck", "t1");
    assert_eq!(stuck["why"], "its process is stopped");
    let stuck = supervisor.wait_for("stuck", "t3");
    let why = stuck["why"].as_str().expect("a sentence");
    assert!(why.ends_with("control.sock is not there"), "{why}");
    assert_ne!(site.pid("t1"), first);
    assert_eq!(site.pid("t4"), other);
    site.good(&["verify"]);
    supervisor.stop();
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn switches_that_do_not_answer_delay_no_other_tenant() {
    let Some(site) = site("tfc", 92080) else {
        return;
    };
    let files = [1, 2, 3].map(|number| site.tenant(number, 2));
    site.good(&[&["apply"], &files.each_ref().map(String::as_str)[..2]].concat());
    tell(&site, "t1", "mute");
    tell(&site, "t2", "mute");
    let began = Instant::now();
    let mut verify = site
        .command()
        .args(["--json", "verify"])
        .stdout(Stdio::null())
        .spawn()
        .expect("the provisioner starts");
    std::thread::sleep(Duration::from_millis(500));
    site.good(&["apply", &files[2]]);
    assert!(verify.try_wait().expect("its state").is_none(), "too early");
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(verify.wait().expect("it ends").code(), Some(3));
    // Both were asked twice, the second time under their locks, and at the same time: 5 s each.
    assert!(
        began.elapsed() < Duration::from_secs(14),
        "{:?}",
        began.elapsed()
    );
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn killed_apply_is_completed_or_undone_by_the_supervisor() {
    let Some(site) = site("tfd", 92120) else {
        return;
    };
    let other = site.tenant(2, 1);
    site.good(&["apply", &site.tenant(1, 1), &other]);
    let before = site.left();
    let killed = |arguments: &[&str]| {
        let output = site.run(&[&["--kill-at", "4"], arguments].concat());
        assert_eq!(output.status.signal(), Some(9), "{output:?}");
    };
    // Half of the second port is made.
    killed(&["apply", &site.tenant(1, 2), &other]);
    let states = site.json(&["status"]);
    assert_eq!(states["tenants"][0]["state"], "interrupted");
    assert_eq!(states["tenants"][1]["state"], "up");
    let mut supervisor = supervisor(&site, &["t2"]);
    supervisor.wait_for("recovered", "t1");
    supervisor.wait_for("watching", "t1");
    assert_eq!(
        site.good(&["plan", &site.tenant(1, 2), &other]),
        "nothing to do\n"
    );
    site.good(&["verify"]);

    // The third port cannot be made: its guest has an eth0 of its own.
    let guest = "tfd-t1-vm3";
    sh(&format!(
        "ip netns add {guest}; ip -n {guest} link add eth0 type veth peer name other"
    ));
    killed(&["apply", &site.tenant(1, 3), &other]);
    let undone = supervisor.wait_for("recovered", "t1");
    let error = undone["error"].as_str().expect("why it is not completed");
    assert!(error.contains("File exists"), "{error}");
    supervisor.wait_for("watching", "t1");
    sh(&format!("ip netns delete {guest}"));
    assert_eq!(
        site.good(&["plan", &site.tenant(1, 2), &other]),
        "nothing to do\n"
    );
    site.good(&["verify"]);

    killed(&["release", "t1"]);
    supervisor.wait_for("removed", "");
    let of_other = |it: &Value| it["tenant"] == "t2" && it["event"] != "watching";
    assert!(!supervisor.events().iter().any(of_other));
    supervisor.stop();
    let own = |line: &String| line.contains("t1");
    assert!(!site.left().iter().any(own), "{:?}", site.left());
    assert!(before.iter().any(own));
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

/// A small file system of its own for the state; it is unmounted when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(site: &Site) -> Self {
        let path = site.state_dir();
        fs::create_dir(&path).expect("a folder");
        sh(&format!(
            "mount -t tmpfs -o size=2m,mode=700 tmpfs {}",
            path.display()
        ));
        Self(path)
    }

    fn fill(&self) {
        let fill = self.0.join("fill");
        sh(&format!("cat /dev/zero >>{}", fill.display()));
        let more = fs::write(self.0.join("more"), "x");
        assert_eq!(
            more.map_err(|error| error.kind()),
            Err(ErrorKind::StorageFull)
        );
        fs::remove_file(self.0.join("more")).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        sh(&format!("umount {}", self.0.display()));
    }
}

#[test]
fn full_disk_stops_no_restart_no_roll_back_and_no_release() {
    let Some(site) = site("tfe", 92160) else {
        return;
    };
    let disk = SmallDisk::new(&site);
    // It is released before its disk is unmounted, whatever happens.
    let site = site;
    site.good(&["apply", &site.tenant(1, 1), &site.tenant(2, 1)]);
    disk.fill();
    let mut supervisor = supervisor(&site, &["t1", "t2"]);
    signal(&site, "t1", Signal::SIGKILL);
    supervisor.wait_for("restarted", "t1");
    supervisor.stop();
    // Without the space that was set aside.
    fs::remove_file(disk.0.join("reserve")).expect("it is there");
    disk.fill();
    let objects = || {
        let mut left = site.left();
        left.retain(|line| !line.starts_with("a process"));
        left
    };
    let (before, pid) = (objects(), site.pid("t1"));
    for number in [1, 3] {
        let output = site.run(&["apply", &site.tenant(number, 2)]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("No space left on device"), "{text}");
        assert_eq!((objects(), site.pid("t1")), (before.clone(), pid));
    }
    site.good(&["verify"]);
    site.good(&["release", "t1"]);
    assert_eq!(site.status("t2")["state"], "up");
    disk.fill();
    site.good(&["release", "--all"]);
    drop(disk);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn damaged_file_of_a_tenant_affects_no_other() {
    let Some(site) = site("tff", 92200) else {
        return;
    };
    let files = [1, 2, 3].map(|number| site.tenant(number, 1));
    site.good(&[&["apply"], &files.each_ref().map(String::as_str)[..]].concat());
    let mut supervisor = supervisor(&site, &["t1", "t2", "t3"]);
    let [first, second, other] = ["t1", "t2", "t3"].map(|tenant| site.pid(tenant));
    let note = |tenant: &str| {
        site.state_dir()
            .join("tenants")
            .join(tenant)
            .join("process.json")
    };
    fs::remove_file(note("t1")).expect("it is there");
    fs::create_dir(note("t1")).expect("a folder in its place");
    fs::write(note("t2"), "{").expect("a damaged note");
    assert_eq!(site.status("t1")["state"], "down");
    for (tenant, pid) in [("t1", first), ("t2", second)] {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it goes on");
        supervisor.wait_for("restarted", tenant);
        assert_ne!(site.pid(tenant), pid);
    }
    // The state of all: it is watched as it was.
    let file = site.state_dir().join("state.json");
    let state = fs::read(&file).expect("the state");
    fs::write(&file, &state[..100]).expect("it is cut");
    supervisor.wait_for("state_unreadable", "");
    let refused = site.run(&["apply", &files[0]]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    fs::write(&file, &state).expect("it is restored");
    site.good(&["verify"]);
    assert_eq!(site.pid("t3"), other);
    supervisor.stop();
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn lost_objects_are_made_again_as_recorded() {
    let Some(site) = site("tfg", 92240) else {
        return;
    };
    let files = [1, 2, 3, 4, 5].map(|number| site.tenant(number, 1));
    let all = files.each_ref().map(String::as_str);
    site.good(&[&["apply"], &all[..]].concat());
    let mut supervisor = supervisor(&site, &["t1", "t2", "t3", "t4", "t5"]);
    let other = site.pid("t5");
    // They go with these namespaces, if nothing holds those.
    sh("ip -n tfg-host link add pin1 type veth peer name pin netns tfg-t1-vm1");
    sh("ip -n tfg-host link add pin3 type veth peer name pin netns tfg-sw-t3");
    sh("ip netns delete tfg-t1-vm1");
    sh("ip -n tfg-sw-t2 link delete inout");
    sh("ip netns delete tfg-sw-t3");
    fs::remove_dir_all(site.state_dir().join("tenants/t4")).expect("it is there");
    sh("nsenter --net=/run/netns/tfg-host nft flush ruleset");
    let began = Instant::now();
    for tenant in ["t1", "t2", "t3", "t4"] {
        supervisor.wait_for("restarted", tenant);
        supervisor.wait_for("healed", tenant);
    }
    let plan = || site.good(&[&["plan"], &all[..]].concat());
    while plan() != "nothing to do\n" {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", plan());
        std::thread::sleep(Duration::from_millis(100));
    }
    site.good(&["verify"]);
    assert_eq!(site.pid("t5"), other);
    let links = || sh("ip -n tfg-host -o link");
    while links().contains("pin") {
        assert!(began.elapsed() < Duration::from_secs(15), "{}", links());
        std::thread::sleep(Duration::from_millis(100));
    }
    supervisor.stop();
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}
