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
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use fake::site;
use site::Site;
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
    // Both were waited for at the same time.
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "{:?}",
        began.elapsed()
    );
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}
