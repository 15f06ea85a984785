//! A switch's log is bounded, whatever the switch writes, and goes on with another supervisor.
//!
//! The real switch in its sandbox, on this host's kernel, as root. Without root the test prints
//! that and passes.

#[path = "../../vswitch/tests/common/descriptors.rs"]
mod descriptors;
#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use descriptors::{BY_THE_PROVISIONER, descriptors, of_a_switch};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use site::{Site, sh};
use supervisor::Supervisor;

/// The supervisor begins a new log before it would be longer.
const MAX_BYTES: u64 = 1 << 20;
/// What a pipe holds.
const PIPE_BYTES: usize = 1 << 16;

fn tenant(address: &str) -> String {
    format!(
        r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
[[port]]
name = "t1-guest"
mac = "52:54:00:00:01:02"
addresses = ["{address}"]
"#
    )
}

/// The pipe to which the switch writes, as the switch has it.
fn pipe(log: &Path) -> File {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(nix::libc::O_NONBLOCK);
    options.open(log.with_extension("pipe")).expect("the pipe")
}

/// Writes as much as the pipe has room for, in the switch's place.
fn fill(pipe: &mut File) {
    while pipe.write(&[b'x'; PIPE_BYTES]).is_ok() {}
    while pipe.write(b"x").is_ok() {}
}

fn read(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

/// Waits until the log has such lines.
#[track_caller]
fn wait_for(log: &Path, lines: &str) {
    let began = Instant::now();
    while !read(log).contains(lines) {
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(20), "not in {}", log.display());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn flood_of_a_switch_is_bounded_and_its_last_words_are_kept() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let site = Site::new("tvg", 89_000, Vec::new());
    let dir = site.dir.path();
    let file = dir.join("t1.toml");
    let apply = |address| {
        fs::write(&file, tenant(address)).expect("a file");
        site.good(&["apply", file.to_str().expect("UTF-8")]);
    };
    apply("10.1.0.2");
    let pid = site.pid("t1");
    let log = site.state_dir().join("tenants/t1/log");
    let lengths = || {
        let paths = [log.clone(), log.with_extension("1")];
        paths.map(|path| fs::metadata(path).map_or(0, |log| log.len()))
    };
    // Without a supervisor, too.
    assert!(read(&log).contains("carrying frames"), "{}", read(&log));
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it lives");
    let size = limits
        .lines()
        .find(|line| line.starts_with("Max file size"));
    let size: Vec<&str> = size.expect("a limit").split_whitespace().skip(3).collect();
    assert_eq!(size, ["0", "0", "bytes"]);

    // Nothing inherited, and nothing that is not accounted for.
    let wanted = [&BY_THE_PROVISIONER[..], &[("packet socket", 1)]].concat();
    assert_eq!(descriptors(pid as u32, 0), of_a_switch(&wanted));

    // Nobody empties the pipe, so the switch drops a line, and carries on.
    let mut writer = pipe(&log);
    fill(&mut writer);
    apply("10.1.0.3");
    let patience = Duration::from_secs(20);
    let start = || Supervisor::start(site.command(), &[], &["t1"], dir, patience);
    let supervisor = start();
    wait_for(&log, "xxxxxxxx");
    apply("10.1.0.4");
    wait_for(&log, "lines missing here, because the log was full: 1\n");
    wait_for(&log, "configuration in use");

    // A flood fills two logs, and no more.
    let began = Instant::now();
    while lengths()[1] == 0 {
        fill(&mut writer);
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", lengths());
        assert!(lengths().iter().all(|length| *length <= MAX_BYTES));
        std::thread::sleep(Duration::from_millis(100));
    }

    // The switch does not notice that its supervisor is another one.
    supervisor.stop();
    fill(&mut writer);
    let supervisor = start();
    assert_eq!(site.pid("t1"), pid);
    // What a switch says at its end is not lost, and its successor goes on.
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it lives");
    wait_for(&log, "SIGTERM: ending");
    wait_for(&log, "carrying frames");
    let text = read(&log);
    let [ending, carrying] = ["SIGTERM: ending", "carrying frames"].map(|line| text.rfind(line));
    assert!(ending < carrying);
    assert!(lengths().iter().all(|length| *length <= MAX_BYTES));

    supervisor.stop();
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}
