//! The log of a switch that has become too long goes on in a new file, and no line is lost.
//!
//! The real switch in its sandbox, on this host's kernel, as root. Without root the test prints
//! that and passes.

#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use site::{Site, sh};
use supervisor::Supervisor;

/// The supervisor replaces a longer log.
const MAX_BYTES: u64 = 1 << 20;

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

/// Appends numbered lines, as the switch would, until the log is too long; returns them.
fn fill(log: &Path, round: u32) -> String {
    let mut file = OpenOptions::new().append(true).open(log).expect("the log");
    let lines: String = (0..25_000)
        .map(|number| format!("{round}: {number:06}, a line of a log that is much too long\n"))
        .collect();
    assert!(lines.len() as u64 > MAX_BYTES);
    file.write_all(lines.as_bytes()).expect("it is written");
    lines
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
fn log_that_is_too_long_continues_in_a_new_file() {
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
    let patience = Duration::from_secs(20);
    let supervisor = Supervisor::start(site.command(), &[], &["t1"], dir, patience);
    let pid = site.pid("t1");
    let log = site.state_dir().join("tenants/t1/log");
    let before = log.with_extension("1");

    let mut started = read(&log);
    for round in 0..2 {
        // The supervisor sends no two logs at once.
        std::thread::sleep(Duration::from_secs(3));
        let lines = fill(&log, round);
        wait_for(&before, &lines);
        wait_for(&log, "the log continues here");
        let old = read(&before);
        assert!(old.starts_with(&started), "{started}");
        started = read(&log);
        assert_eq!(started.lines().count(), 1, "{started}");
        let (new, old) = [&log, &before]
            .map(|path| fs::metadata(path).expect("it is there"))
            .into();
        assert_eq!((new.uid(), new.mode()), (old.uid(), old.mode()));
    }
    // Whatever the switch logs later is in the new file.
    let length = read(&before).len();
    apply("10.1.0.3");
    wait_for(&log, "configuration in use");
    assert_eq!(read(&before).len(), length);
    assert_eq!(site.pid("t1"), pid);

    supervisor.stop();
    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}
