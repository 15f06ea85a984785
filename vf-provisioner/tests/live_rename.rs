//! A tenant gets another name on this host's kernel, as root, while its guests talk. Without root,
//! each test prints that and passes.

#[path = "common/fake.rs"]
mod fake;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use fake::site;
use site::{PROVISIONER, Site, sh};
use supervisor::Supervisor;

/// The file of tenant 1, whose ports are called as before, with another name.
fn renamed(site: &Site, name: &str) -> String {
    let text = fs::read_to_string(site.tenant(1, 2)).expect("the file");
    let file = site.dir.path().join(format!("{name}.toml"));
    let text = text.replacen("name = \"t1\"", &format!("name = \"{name}\""), 1);
    assert!(text.contains(name), "{text}");
    fs::write(&file, text).expect("it is written");
    file.to_string_lossy().into_owned()
}

/// What a guest has set on its interface, and the interface's number.
fn guest(site: &Site, port: u8) -> String {
    let name = format!("{}-t1-vm{port}", site.instance);
    let show = format!("ip -n {name} -4 -o");
    sh(&format!(
        "{show} address show dev eth0; {show} route; {show} link show dev eth0 | cut -c1-8"
    ))
}

fn set_up_guests(site: &Site) {
    for port in 1..=2 {
        let name = format!("{}-t1-vm{port}", site.instance);
        sh(&format!(
            "ip -n {name} address add 10.1.0.{}/24 dev eth0; ip -n {name} route add default via \
             10.1.0.1",
            10 + port
        ));
    }
}

#[test]
fn renamed_tenant_keeps_its_guests_and_loses_frames_for_a_restart_only() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it needs root");
        return;
    }
    // A real one, through which frames pass.
    let switch = Path::new(PROVISIONER).with_file_name("vswitch");
    let switch = switch.to_str().expect("a path");
    let options = ["--switch-binary", switch, "--packet-memory", "16"];
    let site = Site::new("tra", 93000, options.map(str::to_owned).into());
    let old = site.tenant(1, 2);
    site.good(&["apply", &old]);
    set_up_guests(&site);
    let (before, uid) = (guest(&site, 1), site.status("t1")["uid"].clone());
    let mut supervisor = Supervisor::start(
        site.command(),
        &["--verify-every", "1"],
        &["t1"],
        site.dir.path(),
        Duration::from_secs(30),
    );
    let new = renamed(&site, "crimson");
    // A frame each 20 ms, for a minute at most.
    let mut ping = Command::new("ip");
    ping.args([
        "netns",
        "exec",
        &format!("{}-t1-vm1", site.instance),
        "ping",
    ])
    .args([
        "-n",
        "-q",
        "-i",
        "0.02",
        "-c",
        "3000",
        "-W",
        "1",
        "10.1.0.12",
    ]);
    let ping = ping.stdout(Stdio::piped()).spawn().expect("ping starts");
    std::thread::sleep(Duration::from_millis(500));
    let done = site.json(&["rename", "t1", &new]);
    assert_eq!(done["parts"][0]["error"], Value::Null, "{done}");
    std::thread::sleep(Duration::from_millis(1500));
    let pid = nix::unistd::Pid::from_raw(ping.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it runs");
    let output = ping.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = |word: &str| -> u32 {
        let line = text.lines().find(|line| line.contains("transmitted"));
        let part = line.and_then(|line| line.split(", ").find(|part| part.contains(word)));
        let number = part.and_then(|part| part.split_whitespace().next());
        number
            .and_then(|it| it.parse().ok())
            .unwrap_or_else(|| panic!("{text}"))
    };
    let lost = count("transmitted") - count("received");
    println!(
        "renamed: {lost} frames of 20 ms lost, {:.2} s",
        f64::from(lost) * 0.02
    );
    assert!(count("received") > 25, "{text}");

    assert_eq!(guest(&site, 1), before, "the guest's interface is the same");
    let status = site.json(&["status"]);
    let names: Vec<&str> = status["tenants"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| it["tenant"].as_str())
        .collect();
    assert_eq!(names, ["crimson"], "{status}");
    assert_eq!(site.status("crimson")["uid"], uid);
    site.good(&["verify"]);
    // It is done, and its file is as it was applied.
    assert_eq!(site.good(&["rename", "t1", &new]), "nothing to do\n");
    assert_eq!(site.good(&["apply", &new]), "nothing to do\n");
    let refused = site.run(&["apply", &old]);
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("tenants crimson and t1 both have"), "{text}");
    let journal = site.good(&["journal", "--tenant", "crimson"]);
    assert!(journal.contains("  rename "), "{journal}");
    let event = supervisor.wait_for("renamed", "t1");
    assert_eq!(event["to"], "crimson");
    supervisor.stop();
    let left = site.left();
    assert!(
        !left
            .iter()
            .any(|it| it.contains("t1") && !it.contains("t1-vm")),
        "{left:?}"
    );
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn rename_that_is_killed_at_any_moment_is_completed() {
    let Some(site) = site("trb", 93100) else {
        return;
    };
    let mut name = "t1".to_owned();
    site.good(&["apply", &site.tenant(1, 2)]);
    set_up_guests(&site);
    let before = guest(&site, 1);
    for (round, moment) in (0..40).step_by(5).enumerate() {
        let next = format!("r{round}");
        let file = renamed(&site, &next);
        let kill = ["--kill-at", &moment.to_string()].map(str::to_owned);
        let output = site
            .command()
            .args(&kill)
            .args(["rename", &name, &file])
            .output()
            .expect("it starts");
        assert_eq!(
            output.status.signal(),
            Some(9),
            "moment {moment}: {output:?}"
        );
        site.good(&["rename", &name, &file]);
        assert_eq!(guest(&site, 1), before, "moment {moment}");
        site.good(&["verify"]);
        name = next;
    }
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn what_cannot_be_renamed_is_refused_and_left_alone() {
    let Some(site) = site("trc", 93200) else {
        return;
    };
    let (one, two) = (site.tenant(1, 2), site.tenant(2, 1));
    site.good(&["apply", &one, &two]);
    let bad = |arguments: &[&str], words: &str| {
        let output = site.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(words), "{text}");
    };
    bad(
        &["rename", "t1", &one],
        "name: it is still t1: set the new name there first",
    );
    bad(
        &["rename", "t1", &two],
        "tenant t1: t2 is onboarded, too: release one of them",
    );
    bad(
        &["rename", "t9", &renamed(&site, "crimson")],
        "tenant t9 is not onboarded",
    );
    let folder = site.dir.path().to_string_lossy().into_owned();
    bad(
        &["rename", "t1", &folder],
        "it is a directory: name the tenant's file",
    );
    assert_eq!(site.good(&["apply", &one, &two]), "nothing to do\n");
}
