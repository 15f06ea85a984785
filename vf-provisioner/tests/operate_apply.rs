//! Each tenant succeeds or fails alone, on this host's kernel, as root. Without root, each test
//! prints that and passes.

#[path = "common/fake.rs"]
mod fake;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs;
use std::process::Output;

use fake::site;
use site::{Site, sh};

/// The exit code, the output and the errors of a command.
fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// What was done, without counts and times, and what was complained about. Tenants that are made
/// beside each other end in any order, so the first are sorted: paths stand before words.
fn divided(text: &str) -> (Vec<String>, Vec<&str>) {
    let (done, bad): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('['));
    let part = |line: &&str| {
        let (_, line) = line.split_once("] ")?;
        Some(line.rsplit_once(" in ")?.0.to_owned())
    };
    let mut done: Vec<String> = done.iter().filter_map(part).collect();
    done.sort();
    (done, bad)
}

/// A guest's namespace that exists before the tenant, with an `eth0` of its own: the tenant's pair
/// cannot be made. It goes when this is dropped.
struct Occupied(&'static str);

impl Occupied {
    fn new(name: &'static str) -> Self {
        sh(&format!(
            "ip netns add {name}; ip -n {name} link add eth0 type veth peer name other"
        ));
        Self(name)
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        sh(&format!("ip netns delete {}", self.0));
    }
}

/// The states of all tenants.
fn states(site: &Site) -> Vec<(String, String)> {
    let output = site.run(&["--json", "status"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let tenants = status["tenants"].as_array().expect("a list").iter();
    tenants
        .map(|it| (text(&it["tenant"]), text(&it["state"])))
        .collect()
}

fn up(names: &[&str]) -> Vec<(String, String)> {
    let up = |name: &&str| ((*name).to_owned(), "up".to_owned());
    names.iter().map(up).collect()
}

#[test]
fn invalid_file_and_failing_tenant_leave_the_others_onboarded() {
    let Some(site) = site("toa", 74100) else {
        return;
    };
    for number in [1, 3, 4] {
        site.tenant(number, 1);
    }
    let occupied = Occupied::new("toa-t3-vm1");
    let dir = site.dir.path().display().to_string();
    let bad = format!("{dir}/toa-t2.toml");
    let text = fs::read_to_string(site.tenant(2, 1)).expect("it is there");
    fs::write(&bad, text.replace("vni = 5002", "vni = 99999999")).expect("it is written");

    let (code, out, error) = told(&site.run(&["apply", &dir]));
    assert_eq!(code, Some(1), "{out}{error}");
    assert_eq!(
        out,
        "18 actions done; 2 gateways answered with real frames\n"
    );
    let (done, lines) = divided(&error);
    assert_eq!(
        done,
        [
            format!("{dir}/toa-t1.toml: tenant t1: 8 actions"),
            format!("{dir}/toa-t4.toml: tenant t4: 8 actions"),
            "shared by tenants: 2 actions".to_owned(),
        ]
    );
    let invalid = format!("vf-provisioner: {bad}:2:7: vni: 99999999 is no VNI;");
    assert!(lines[0].starts_with(&invalid), "{error}");
    let failed = format!("vf-provisioner: {dir}/toa-t3.toml: tenant t3: cannot create veth pair");
    assert!(lines[1].starts_with(&failed), "{error}");
    assert!(
        lines[1].ends_with("all completed steps were rolled back"),
        "{error}"
    );
    assert_eq!(lines.len(), 2, "{error}");
    assert_eq!(states(&site), up(&["t1", "t4"]));
    site.good(&["verify"]);

    // What is up stays as it is; what is mended comes up.
    let pids = [site.pid("t1"), site.pid("t4")];
    drop(occupied);
    let (code, out, error) = told(&site.run(&["apply", &dir]));
    assert_eq!(code, Some(2), "{out}{error}");
    assert_eq!(
        out,
        "8 actions done; 1 gateways answered with real frames\n"
    );
    assert_eq!(divided(&error).1.len(), 1, "{error}");
    assert_eq!(states(&site), up(&["t1", "t3", "t4"]));
    assert_eq!([site.pid("t1"), site.pid("t4")], pids);
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn tenant_keeps_running_beside_a_file_that_takes_its_vni() {
    let Some(site) = site("tob", 74200) else {
        return;
    };
    site.good(&["apply", &site.tenant(2, 1)]);
    let pid = site.pid("t2");
    let text = fs::read_to_string(site.tenant(1, 1)).expect("it is there");
    let thief = site.tenant(1, 1);
    fs::write(&thief, text.replace("vni = 5001", "vni = 5002")).expect("it is written");
    let dir = site.dir.path().display().to_string();
    // Named in this order, the other file would be the second.
    let (code, out, error) = told(&site.run(&["apply", &dir]));
    assert_eq!(code, Some(2), "{out}{error}");
    let told_of = format!("vf-provisioner: {thief}:2:7: vni: 5002 is also the VNI of {dir}/tob-t2");
    assert!(error.starts_with(&told_of), "{error}");
    assert_eq!(states(&site), up(&["t2"]));
    assert_eq!(site.pid("t2"), pid);
    // By itself it is compared with what is onboarded.
    let (code, _, error) = told(&site.run(&["apply", &thief]));
    assert_eq!(code, Some(2), "{error}");
    assert_eq!(
        error,
        format!(
            "vf-provisioner: {thief}: tenants t1 and t2 both have VNI 5002: change one of them\n"
        )
    );
}

#[test]
fn tenant_without_a_file_is_said_and_released_only_on_demand() {
    let Some(site) = site("toc", 74300) else {
        return;
    };
    let (one, two) = (site.tenant(1, 1), site.tenant(2, 1));
    let dir = site.dir.path().display().to_string();
    site.good(&["apply", &dir]);
    fs::remove_file(&one).expect("it is there");
    let said = "nothing to do\nnot named: t1; `--prune` releases it\n";
    assert_eq!(site.good(&["plan", &dir]), said);
    assert_eq!(site.good(&["apply", &dir]), said);
    assert_eq!(states(&site), up(&["t1", "t2"]));
    // Of a file nothing follows for others.
    assert_eq!(site.good(&["apply", &two]), "nothing to do\n");
    let (code, _, error) = told(&site.run(&["apply", &two, "--prune"]));
    assert_eq!(code, Some(2));
    assert!(
        error.contains(&format!("--prune: {two} is no directory")),
        "{error}"
    );

    // A file that does not say whose it is may be the tenant's.
    let broken = format!("{dir}/toc-broken.toml");
    fs::write(&broken, "name =").expect("it is written");
    let (code, _, error) = told(&site.run(&["apply", &dir, "--prune"]));
    assert_eq!(code, Some(2), "{error}");
    assert!(
        error.contains(&format!("--prune: {broken}: no name can be read")),
        "{error}"
    );
    assert_eq!(states(&site), up(&["t1", "t2"]));
    // One that is invalid, and is the tenant's, keeps it.
    fs::write(&broken, "name = \"t1\"\nvni = 0\n").expect("it is written");
    let (code, _, error) = told(&site.run(&["apply", &dir, "--prune"]));
    assert_eq!(code, Some(2), "{error}");
    assert_eq!(states(&site), up(&["t1", "t2"]));

    // What the released tenant had is free for another in the same apply.
    fs::remove_file(&broken).expect("it is there");
    let pid = site.pid("t2");
    let text = fs::read_to_string(site.tenant(1, 1)).expect("it is there");
    fs::write(&one, text.replace("name = \"t1\"", "name = \"t9\"")).expect("it is written");
    let plan = site.good(&["plan", &dir, "--prune"]);
    assert!(
        plan.contains("! tenant t1: release: it is cut off for good\n"),
        "{plan}"
    );
    site.good(&["apply", &dir, "--prune"]);
    assert_eq!(states(&site), up(&["t2", "t9"]));
    assert_eq!(site.pid("t2"), pid);
    site.good(&["verify"]);
    let (code, _, error) = told(&site.run(&["apply", "/dev/null/none", "--prune"]));
    assert_eq!(code, Some(2), "{error}");
}

#[test]
fn exit_status_says_what_is() {
    let Some(site) = site("tod", 74400) else {
        return;
    };
    let code = |arguments: &[&str]| site.run(arguments).status.code();
    assert_eq!(code(&["status"]), Some(0));
    assert_eq!(code(&["status", "t1"]), Some(2));
    site.good(&["apply", &site.tenant(1, 1), &site.tenant(2, 1)]);
    assert_eq!(code(&["status"]), Some(0));
    let pid = nix::unistd::Pid::from_raw(site.pid("t1"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it runs");
    let began = std::time::Instant::now();
    while code(&["status", "t1"]) == Some(0) {
        assert!(began.elapsed().as_secs() < 10, "it is dead");
    }
    assert_eq!(code(&["status", "t1"]), Some(3));
    assert_eq!(code(&["status"]), Some(3));
    assert_eq!(code(&["status", "t2"]), Some(0));
    let down = ("t1".to_owned(), "down".to_owned());
    assert_eq!(states(&site), [down, up(&["t2"]).remove(0)]);

    let (code, out, error) = told(&site.run(&["release", "nope", "t1"]));
    assert_eq!(code, Some(2), "{out}{error}");
    assert!(
        error.starts_with("vf-provisioner: tenant nope is not onboarded (onboarded: t1, t2)\n"),
        "{error}"
    );
    assert_eq!(states(&site), up(&["t2"]));
    site.good(&["release", "nope", "--ignore-missing"]);
    assert_eq!(site.run(&["release", "nope"]).status.code(), Some(2));
}

#[test]
fn plan_says_whom_it_interrupts_and_which_executable_was_replaced() {
    let Some(like) = site("toe", 74500) else {
        return;
    };
    drop(like);
    let dir = tempfile::tempdir().expect("a directory");
    let binary = dir.path().join("vswitch");
    let fake = std::path::Path::new(site::PROVISIONER).with_file_name("examples/fake_switch");
    fs::copy(&fake, &binary).expect("it is copied");
    let path = binary.display().to_string();
    let options = vec!["--switch-binary".to_owned(), path.clone()];
    let site = Site::new("toe", 74500, options);
    let file = site.tenant(1, 2);
    let other = site.tenant(2, 1);
    site.good(&["apply", &file, &other]);
    let status = site.status("t1");
    assert_eq!(status["version"], "0-fake");
    assert_eq!(status["replaced"], serde_json::Value::Null);

    let text = fs::read_to_string(&file).expect("it is there");
    let interruptions = |text: &str| {
        fs::write(&file, text).expect("it is written");
        site.json(&["plan", &file, &other])["interruptions"].clone()
    };
    assert_eq!(interruptions(&text), serde_json::json!([]));
    let moved = text.replace("10.1.0.11", "10.1.0.77");
    let reload = serde_json::json!([{"tenant": "t1", "kind": "reload"}]);
    assert_eq!(interruptions(&moved), reload);
    let longer = text.replacen("[[port]]", "[[port]]\nmtu = 1400", 1);
    let restart = interruptions(&longer);
    let seconds = restart[0]["seconds"].as_f64().expect("a number");
    assert!(seconds > 0.0 && seconds < 60.0, "{seconds}");
    let why = "port t1-vm1 has another mtu";
    let restarts = serde_json::json!([
        {"tenant": "t1", "kind": "restart", "why": why, "seconds": seconds}
    ]);
    assert_eq!(restart, restarts);
    let plan = site.good(&["plan", &file, &other]);
    let line = format!(
        "! tenant t1: restart ({why}): it is cut off for about {seconds:.1} s, as long as the \
         last start took\n"
    );
    assert!(plan.ends_with(&line), "{plan}");
    // A port's name is that of its guest: the other port stays.
    let renamed = text.replace("t1-vm2", "t1-vm3");
    let found = interruptions(&renamed);
    assert_eq!(found[1]["kind"], "restart", "{found}");
    let down = serde_json::json!({"tenant": "t1", "kind": "port_down", "port": "t1-vm2"});
    assert_eq!(found[0], down, "{found}");

    // An upgrade puts another file there.
    fs::write(&file, &text).expect("it is written");
    assert!(!site.good(&["verify"]).contains("replaced"));
    let new = dir.path().join("new");
    fs::copy(&fake, &new).expect("it is copied");
    fs::rename(&new, &binary).expect("it is renamed");
    let said = format!(
        "tenant t1: {path} was replaced: the switch runs the former one until `restart t1`\n"
    );
    assert!(site.good(&["plan", &file]).contains(&said));
    assert!(site.good(&["verify"]).contains(&said));
    let status = site.good(&["status"]);
    let said = said.replace("one until", "one (0-fake) until");
    assert!(status.contains(&said), "{status}");
    assert_eq!(site.status("t1")["replaced"], path);
}

#[test]
fn stopped_tenant_stays_stopped_until_it_is_started() {
    let Some(site) = site("tof", 74600) else {
        return;
    };
    let (one, two) = (site.tenant(1, 1), site.tenant(2, 1));
    site.good(&["apply", &one, &two]);
    let pid = site.pid("t2");
    let link = || sh("ip -n tof-t1-vm1 -o link show eth0 up").contains("eth0");
    let state = |of: &str| vec![("t1".to_owned(), of.to_owned()), up(&["t2"]).remove(0)];
    assert!(link());

    // Drained: the guest's link is down, and the switch runs.
    let running = site.pid("t1");
    site.good(&["drain", "t1"]);
    assert_eq!((states(&site), link()), (state("drained"), false));
    assert_eq!(site.pid("t1"), running);
    site.good(&["verify"]);
    assert_eq!(site.run(&["status"]).status.code(), Some(3));

    let options = ["--verify-every", "1"];
    let patience = std::time::Duration::from_secs(20);
    let mut supervisor = supervisor::Supervisor::start(
        site.command(),
        &options,
        &["t1", "t2"],
        site.dir.path(),
        patience,
    );
    site.good(&["stop", "t1"]);
    assert_eq!((states(&site), link()), (state("stopped"), false));
    assert_eq!(site.good(&["stop", "t1"]), "nothing to do\n");
    site.good(&["verify"]);
    // Neither an apply nor the supervisor starts it; a change is for its next start.
    let text = fs::read_to_string(&one).expect("it is there");
    fs::write(&one, text.replace("10.1.0.11", "10.1.0.77")).expect("it is written");
    let said = "tenant t1 is stopped: `start t1` starts it\n";
    assert!(site.good(&["plan", &one, &two]).ends_with(said));
    assert!(site.good(&["apply", &one, &two]).ends_with(said));
    // Another tenant's death shows that the supervisor has looked since.
    let other = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(other, nix::sys::signal::Signal::SIGKILL).expect("it runs");
    supervisor.wait_for("restarted", "t2");
    assert_eq!((states(&site), link()), (state("stopped"), false));
    let of_first = |it: &serde_json::Value| {
        let event = it["event"].as_str().unwrap_or_default();
        it["tenant"] == "t1" && event != "watching" && event != "paused"
    };
    let paused = supervisor.events();
    let paused = paused.iter().rfind(|it| it["event"] == "paused");
    let paused = paused.expect("it says so");
    assert_eq!(
        (&paused["tenant"], &paused["mode"]),
        (&"t1".into(), &"stopped".into())
    );
    assert!(
        !supervisor.events().iter().any(of_first),
        "{:?}",
        supervisor.events()
    );

    // What it has is still its own.
    let thief = fs::read_to_string(site.tenant(3, 1)).expect("it is there");
    let file = site.tenant(3, 1);
    fs::write(&file, thief.replace("vni = 5003", "vni = 5001")).expect("it is written");
    let (code, _, error) = told(&site.run(&["apply", &file]));
    assert_eq!(code, Some(2), "{error}");
    assert!(
        error.contains("tenants t1 and t3 both have VNI 5001"),
        "{error}"
    );

    site.good(&["start", "t1"]);
    assert_eq!((states(&site), link()), (up(&["t1", "t2"]), true));
    site.good(&["verify"]);
    let config = fs::read_to_string(site.state_dir().join("tenants/t1/config.json"));
    assert!(config.expect("its configuration").contains("10.1.0.77"));
    supervisor.wait_for("watching", "t1");
    supervisor.stop();

    let before = [site.pid("t1"), site.pid("t2")];
    site.good(&["restart", "t1"]);
    assert_ne!(site.pid("t1"), before[0]);
    assert_eq!(site.pid("t2"), before[1]);
    let (code, _, error) = told(&site.run(&["stop", "nope", "t2"]));
    assert_eq!(code, Some(2), "{error}");
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing());
}

#[test]
fn options_of_the_file_hold_and_another_instance_is_refused() {
    let Some(like) = site("tog", 74700) else {
        return;
    };
    drop(like);
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("config.toml");
    let fake = std::path::Path::new(site::PROVISIONER).with_file_name("examples/fake_switch");
    let text = format!(
        "switch-binary = {fake:?}\nmemory-limit = 96\n[tenant.t2]\nmemory-limit = 112\n\
         cpu-limit = 40\n"
    );
    fs::write(&config, text).expect("it is written");
    let file = config.display().to_string();
    let options = vec!["--config".to_owned(), file.clone()];
    let site = Site::new("tog", 74700, options);
    let tenants = [site.tenant(1, 1), site.tenant(2, 1)];
    let both: Vec<&str> = tenants.iter().map(String::as_str).collect();
    site.good(&[&["apply"], &both[..]].concat());
    let state = fs::read_to_string(site.state_dir().join("state.json")).expect("the state");
    let state: serde_json::Value = serde_json::from_str(&state).expect("it is JSON");
    let limits = |tenant: &str| {
        let resources = state["tenants"][tenant]["resources"]
            .as_array()
            .expect("a list");
        let group = resources
            .iter()
            .find(|it| it["kind"] == "cgroup")
            .expect("a group");
        (group["memory_mib"].as_u64(), group["cpu_percent"].as_u64())
    };
    // The packet memory, 32 MiB, is added.
    assert_eq!(limits("t1"), (Some(128), Some(100)));
    assert_eq!(limits("t2"), (Some(144), Some(40)));
    assert_eq!(
        site.good(&[&["plan"], &both[..]].concat()),
        "nothing to do\n"
    );
    let shown = site.json(&["config"]);
    let place = format!("{file}:4:16");
    let own = serde_json::json!({"value": "112", "from": place});
    assert_eq!(shown["tenant.t2.memory-limit"], own);
    assert_eq!(shown["uid-base"]["from"], "command line");

    // The command line has an instance, so the file's does not count; a wrong one is refused.
    let state_dir = site.state_dir().display().to_string();
    let other = std::process::Command::new(site::PROVISIONER)
        .args([
            "--config",
            &file,
            "--state-dir",
            &state_dir,
            "--instance",
            "toh",
            "status",
        ])
        .output();
    let (code, _, error) = told(&other.expect("it starts"));
    assert_eq!(code, Some(2), "{error}");
    assert_eq!(
        error,
        format!(
            "vf-provisioner: instance: toh (command line): the tenants of state directory \
             {state_dir} are of instance tog: give that instance, or another state directory\n"
        )
    );
    fs::write(&config, "memory-limit = 1\n").expect("it is written");
    let (code, _, error) = told(&site.run(&["status"]));
    assert_eq!(code, Some(2));
    let start = format!("vf-provisioner: {file}:1:16: memory-limit: invalid value '1'");
    assert!(error.starts_with(&start), "{error}");
    fs::remove_file(&config).expect("it is there");
    let (code, _, error) = told(&site.run(&["status"]));
    assert_eq!(code, Some(2));
    assert!(
        error.starts_with(&format!("vf-provisioner: {file}: cannot read it")),
        "{error}"
    );
    fs::write(&config, "").expect("it is written");
}
