//! Hugepages of a switch are counted in its control group, which bounds them.
//!
//! The real switch on this host's kernel, as root. Skipped without root, without the kernel's
//! controller of hugepages, and where none can be reserved.

#[path = "common/output.rs"]
mod output;
#[path = "common/site.rs"]
mod site;
#[path = "common/supervisor.rs"]
mod supervisor;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use site::{Site, sh};
use supervisor::Supervisor;

const RESERVED: &str = "/proc/sys/vm/nr_hugepages";
const TENANT: &str = r#"
name = "t1"
vni = 5001
[gateway]
ipv4 = "10.1.0.1/24"
[[port]]
name = "t1-guest"
mac = "52:54:00:00:01:02"
addresses = ["10.1.0.2"]
"#;
/// The switch's packet memory, and what else is reserved, in pages of 2 MiB.
const PACKET_MEMORY: u64 = 8;
const OTHERS: u64 = 4;

/// Reserved hugepages, which are given back.
struct Reserved(String);

impl Reserved {
    fn new() -> Option<Self> {
        let before = fs::read_to_string(RESERVED).ok()?;
        let it = Self(before.trim().to_owned());
        let wanted = it.0.parse::<u64>().ok()? + PACKET_MEMORY + OTHERS;
        fs::write(RESERVED, wanted.to_string()).ok()?;
        let got = fs::read_to_string(RESERVED).ok()?;
        (got.trim() == wanted.to_string()).then_some(it)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let _ = fs::write(RESERVED, &self.0);
    }
}

/// Maps one hugepage, in a control group if there is one; returns whether that was possible.
fn maps_a_hugepage(group: Option<&Path>) -> bool {
    const MAP_HUGETLB: u32 = 0x40000;
    let join = group.map_or(String::new(), |group| {
        format!("echo $$ > {}/cgroup.procs; ", group.display())
    });
    let map = format!(
        "import mmap; mmap.mmap(-1, 2 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | {MAP_HUGETLB})"
    );
    let command = format!("{join}exec python3 -c '{map}' 2> /dev/null");
    let status = Command::new("sh").args(["-c", &command]).status();
    status.expect("a shell").success()
}

#[test]
fn hugepages_beyond_packet_memory_are_refused() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let default = sh("grep Hugepagesize: /proc/meminfo");
    if default.split_whitespace().nth(1) != Some("2048") {
        eprintln!("skipped: the kernel's hugepages have another size");
        return;
    }
    let controller = "cat /sys/fs/cgroup/cgroup.controllers /sys/fs/cgroup/*/cgroup.controllers \
                      /proc/self/mountinfo | grep hugetlb";
    if sh(controller).is_empty() {
        eprintln!("skipped: the kernel has no controller of hugepages");
        return;
    }
    let Some(_reserved) = Reserved::new() else {
        eprintln!("skipped: no hugepages can be reserved");
        return;
    };
    let mib = (PACKET_MEMORY * 2).to_string();
    let options = ["--hugepages", "--packet-memory", &mib].map(str::to_owned);
    let site = Site::new("tvu", 87_000, options.to_vec());
    let file = site.dir.path().join("t1.toml");
    fs::write(&file, TENANT).expect("a file");
    site.good(&["apply", file.to_str().expect("UTF-8")]);

    let found = sh("find /sys/fs/cgroup -path '*/tvu/t1/hugetlb.2MB.*' | grep -v events");
    let files: Vec<PathBuf> = found.lines().map(PathBuf::from).collect();
    let group = files.first().and_then(|file| file.parent());
    let group = group.expect("the controller is enabled");
    let processes = fs::read_to_string(group.join("cgroup.procs")).expect("its processes");
    assert_eq!(processes.trim(), site.pid("t1").to_string());
    // They are counted, and the switch has all that it may have.
    let value = |names: [&str; 2]| {
        let texts = names.map(|name| fs::read_to_string(group.join(name)));
        let mut values = texts.into_iter().flatten();
        values.next().expect("of one version").trim().parse::<u64>()
    };
    let bytes = PACKET_MEMORY << 21;
    let used = value(["hugetlb.2MB.current", "hugetlb.2MB.usage_in_bytes"]);
    assert_eq!(used, Ok(bytes));
    let most = value(["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"]);
    assert_eq!(most, Ok(bytes));
    let most = value(["hugetlb.1GB.max", "hugetlb.1GB.limit_in_bytes"]);
    assert_eq!(most, Ok(0));
    // The host has more, but not for that group.
    assert!(maps_a_hugepage(None));
    assert!(!maps_a_hugepage(Some(group)));
    // A limit that is changed is drift, and is repaired.
    for file in files.iter().filter(|file| {
        let name = file.to_string_lossy();
        name.ends_with("max") || name.ends_with("limit_in_bytes")
    }) {
        fs::write(file, (1_u64 << 30).to_string()).expect("it is written");
    }
    assert!(!site.run(&["verify"]).status.success());
    site.good(&["apply", file.to_str().expect("UTF-8")]);
    assert!(site.run(&["verify"]).status.success());
    assert!(!maps_a_hugepage(Some(group)));

    // A reservation that was taken away is made again for a switch that needs it.
    fs::write(RESERVED, "0").expect("it is written");
    let mut supervisor = Supervisor::start(
        site.command(),
        &[],
        &["t1"],
        site.dir.path(),
        Duration::from_secs(30),
    );
    kill(Pid::from_raw(site.pid("t1")), Signal::SIGKILL).expect("it runs");
    let reserved = supervisor.wait_for("hugepages_reserved", "t1");
    assert_eq!(reserved["pages"], PACKET_MEMORY);
    supervisor.wait_for("restarted", "t1");
    supervisor.stop();

    site.good(&["release", "--all"]);
    assert_eq!(site.left(), site.nothing(), "{}", sh("ip netns"));
}
