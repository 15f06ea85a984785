//! What is measured on, whether it can be at all, and what would spoil it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::site::Cpus;

/// What a result was measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Processors that are online.
    pub cpus: usize,
    /// Their clock, in MHz, if the kernel tells.
    pub mhz: Option<f64>,
    /// Who scales it, if anybody does.
    pub governor: Option<String>,
    /// Whether the machine is a virtual one.
    pub virtualised: bool,
    /// The kernel's release.
    pub kernel: String,
    /// Hugepages of the default size.
    pub hugepages: Hugepages,
    /// Packages by name.
    pub versions: BTreeMap<String, String>,
    /// In UTC.
    pub date: String,
    /// Of the tree that this program was built in; `+` at the end if that has changes.
    pub commit: Option<String>,
    /// How this program was called.
    pub command: String,
}

/// Hugepages of the default size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hugepages {
    /// Set aside.
    pub total: u64,
    /// Of these, not in use.
    pub free: u64,
    /// Of each.
    pub kib: u64,
}

impl Machine {
    /// Looks at this one.
    pub fn look() -> Self {
        let processors = read("/proc/cpuinfo");
        Self {
            processor: field(&processors, "model name")
                .unwrap_or("unknown")
                .to_owned(),
            cpus: processors
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            mhz: field(&processors, "cpu MHz").and_then(|mhz| mhz.parse().ok()),
            governor: governor(0),
            virtualised: field(&processors, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            hugepages: Hugepages::parse(&read("/proc/meminfo")),
            versions: versions(),
            date: said("date", &["--utc", "+%F %T UTC"]).unwrap_or_default(),
            commit: commit(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
        }
    }

    /// All of it, as a name and a value each.
    pub fn facts(&self) -> Vec<(String, String)> {
        let clock = match (self.mhz, &self.governor) {
            (None, _) => "unknown".to_owned(),
            (Some(mhz), None) => format!("{mhz:.0} MHz"),
            (Some(mhz), Some(governor)) => format!("{mhz:.0} MHz, governor {governor}"),
        };
        let kind = if self.virtualised { "virtual" } else { "real" };
        let mut facts = vec![
            ("date", self.date.clone()),
            ("processor", self.processor.clone()),
            ("processors", format!("{}, {kind}", self.cpus)),
            ("clock", clock),
            ("kernel", self.kernel.clone()),
            ("hugepages", self.hugepages.to_string()),
        ];
        facts.extend(
            self.versions
                .iter()
                .map(|(name, version)| (name.as_str(), version.clone())),
        );
        facts.push((
            "commit",
            self.commit.clone().unwrap_or_else(|| "unknown".to_owned()),
        ));
        facts.push(("command", self.command.clone()));
        facts
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

/// On few lines.
impl fmt::Display for Machine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.facts() {
            writeln!(out, "{name}: {value}")?;
        }
        Ok(())
    }
}

impl Hugepages {
    fn parse(meminfo: &str) -> Self {
        let number = |name| {
            let value = field(meminfo, name)?;
            value.split(' ').next()?.parse().ok()
        };
        Self {
            total: number("HugePages_Total").unwrap_or(0),
            free: number("HugePages_Free").unwrap_or(0),
            kib: number("Hugepagesize").unwrap_or(0),
        }
    }
}

impl fmt::Display for Hugepages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} of {} KiB, {} free",
            self.total, self.kib, self.free
        )
    }
}

/// What a scenario must find.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs {
    /// Where it runs; `None` if one CPU will do.
    pub cpus: Option<Cpus>,
    /// Namespaces, network devices, hugepages: only root may have them.
    pub root: bool,
    /// Packet memory.
    pub hugepages: bool,
}

/// MiB of hugepages that the load, a switch and its peer's ports take.
const MEMORY_MIB: u64 = 512;

/// What is missing here for that, as sentences that say what to do.
pub fn missing(needs: Needs, programs: &[&str]) -> Vec<String> {
    let mut missing = Vec::new();
    if needs.root && !nix::unistd::geteuid().is_root() {
        missing.push(
            "switches need root, for hugepages and network devices: sudo scripts/bench …"
                .to_owned(),
        );
    }
    if needs.hugepages {
        let pages = Hugepages::parse(&read("/proc/meminfo"));
        if pages.free * pages.kib < MEMORY_MIB * 1024 {
            missing.push(format!(
                "{MEMORY_MIB} MiB of free hugepages are needed, and there are {pages}: run scripts/bench, which sets them aside, or echo 512 >/proc/sys/vm/nr_hugepages"
            ));
        }
    }
    if let Some(cpus) = needs.cpus {
        let allowed =
            cpu_list(field(&read("/proc/self/status"), "Cpus_allowed_list").unwrap_or(""));
        missing.extend(missing_cpus(cpus, &allowed));
    }
    missing.extend(missing_programs(&search_path(), programs));
    missing
}

fn missing_programs(path: &[PathBuf], programs: &[&str]) -> Vec<String> {
    programs
        .iter()
        .filter(|program| find_in(path, program).is_none())
        .map(|program| format!("{program} is missing: run scripts/setup --for bench"))
        .collect()
}

fn missing_cpus(cpus: Cpus, allowed: &[usize]) -> Option<String> {
    let here = match allowed {
        [] => "none".to_owned(),
        some => some
            .iter()
            .map(usize::to_string)
            .collect::<Vec<_>>()
            .join(","),
    };
    if allowed.len() < 2 {
        Some(format!(
            "two CPUs are needed, one for the switch under test and one for the load, and this process may use only CPU {here}: use a larger machine, or undo taskset"
        ))
    } else if cpus.switch == cpus.load {
        Some(format!(
            "the switch under test and the load need a CPU each: --cpus {},{}",
            allowed[1], allowed[0]
        ))
    } else {
        let absent = [cpus.switch, cpus.load]
            .into_iter()
            .find(|cpu| !allowed.contains(cpu))?;
        Some(format!(
            "there is no CPU {absent} for this process, which may use {here}: choose two of them with --cpus SWITCH,LOAD"
        ))
    }
}

/// Where programs are: in `PATH`, or where daemons are.
fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .collect()
}

fn find_in(path: &[PathBuf], name: &str) -> Option<PathBuf> {
    path.iter()
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Looks out for what spoils a run, from its beginning to its end.
#[derive(Debug)]
pub struct Watch {
    cpus: Vec<usize>,
    begin: Snapshot,
    warnings: Vec<String>,
}

impl Watch {
    /// Looks at what runs here before anything is measured on those CPUs, which takes half a second. Where there are none, nothing is
    /// timed, and nothing spoils it.
    pub fn begin(cpus: &[usize]) -> Self {
        const LOOK: Duration = Duration::from_millis(500);
        let mut warnings = Vec::new();
        if cpus.is_empty() {
            return Self {
                cpus: Vec::new(),
                begin: Snapshot::default(),
                warnings,
            };
        }
        warnings.extend(crowded(&read("/proc/loadavg")));
        let before = Snapshot::take();
        std::thread::sleep(LOOK);
        let begin = Snapshot::take();
        warnings.extend(begin.busiest_since(&before, 0.05, "just before the run"));
        for &cpu in cpus {
            warnings.extend(governor(cpu).and_then(|governor| scaled(cpu, &governor)));
        }
        warnings.extend(begin.pinned(cpus));
        warnings.extend(meek(&read("/proc/self/stat")));
        Self {
            cpus: cpus.to_vec(),
            begin,
            warnings,
        }
    }

    /// What there is to warn of so far.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What there was to warn of, the run's own time included.
    pub fn end(mut self) -> Vec<String> {
        if self.cpus.is_empty() {
            return self.warnings;
        }
        let end = Snapshot::take();
        self.warnings
            .extend(end.stolen_since(&self.begin, &self.cpus));
        self.warnings
            .extend(end.busiest_since(&self.begin, 0.02, "during the run"));
        self.warnings
    }
}

fn crowded(loadavg: &str) -> Option<String> {
    let load: f64 = loadavg.split(' ').next()?.parse().ok()?;
    (load > 0.5).then(|| {
        format!("the load average is {load:.2} before the run: something else runs here, or did a minute ago")
    })
}

fn scaled(cpu: usize, governor: &str) -> Option<String> {
    (governor != "performance").then(|| {
        format!("the clock of CPU {cpu} is scaled by \"{governor}\": echo performance >/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")
    })
}

fn governor(cpu: usize) -> Option<String> {
    let file = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
    let governor = std::fs::read_to_string(file).ok()?;
    Some(governor.trim().to_owned())
}

/// Of one who gives way to others: `stat` is its own.
fn meek(stat: &str) -> Option<String> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // proc_pid_stat(5), fields 19 and 41; the first after the name is the third.
    let (nice, policy): (i32, u32) = (fields.get(16)?.parse().ok()?, fields.get(38)?.parse().ok()?);
    const SCHED_IDLE: u32 = 5;
    (nice > 0 || policy == SCHED_IDLE).then(|| {
        "this process and its switches give way to all others (nice or chrt): what is measured is what those leave".to_owned()
    })
}

/// The time of all processors and processes so far.
#[derive(Debug, Clone, Default, PartialEq)]
struct Snapshot {
    /// In clock ticks, by number: all, and what a hypervisor took.
    cpus: HashMap<usize, (u64, u64)>,
    processes: HashMap<u32, Process>,
}

#[derive(Debug, Clone, PartialEq)]
struct Process {
    name: String,
    parent: u32,
    /// Clock ticks.
    ticks: u64,
    /// CPUs it may use; empty if not known.
    allowed: Vec<usize>,
    /// Whether it is the kernel's own.
    kernel: bool,
}

impl Snapshot {
    fn take() -> Self {
        let mut processes = HashMap::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(number) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // One that has just ended is none.
            let text =
                |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            processes.extend(
                Process::parse(&text("stat"), &text("status")).map(|process| (number, process)),
            );
        }
        Self {
            cpus: processors(&read("/proc/stat")),
            processes,
        }
    }

    /// Whether it is this one or a descendant of it.
    fn is_ours(&self, mut number: u32) -> bool {
        let own = std::process::id();
        while let Some(process) = self.processes.get(&number) {
            if number == own {
                return true;
            }
            number = process.parent;
        }
        false
    }

    /// The process that is not ours and took most time since, if it took more than that share of one CPU.
    fn busiest_since(&self, before: &Self, share: f64, when: &str) -> Option<String> {
        let all: u64 = self
            .cpus
            .iter()
            .map(|(cpu, (all, _))| all - before.all(*cpu).min(*all))
            .sum();
        let one = all as f64 / self.cpus.len().max(1) as f64;
        let (number, process, took) = self
            .processes
            .iter()
            .filter(|(number, _)| !self.is_ours(**number))
            .filter_map(|(number, process)| {
                let earlier = before
                    .processes
                    .get(number)
                    .map_or(0, |process| process.ticks);
                Some((
                    number,
                    process,
                    process.ticks.checked_sub(earlier)? as f64 / one,
                ))
            })
            .max_by(|one, other| one.2.total_cmp(&other.2))?;
        (one > 0.0 && took > share).then(|| {
            format!(
                "{} (process {number}) took {:.0} % of a CPU {when}",
                process.name,
                took * 100.0
            )
        })
    }

    fn all(&self, cpu: usize) -> u64 {
        self.cpus.get(&cpu).map_or(0, |(all, _)| *all)
    }

    /// Processes that were put on one of these CPUs and not on all.
    fn pinned(&self, cpus: &[usize]) -> Vec<String> {
        let mut pinned: Vec<_> = self
            .processes
            .iter()
            .filter(|(number, process)| !process.kernel && !self.is_ours(**number))
            .filter(|(_, process)| process.allowed.len() < self.cpus.len())
            .filter_map(|(number, process)| {
                let cpu = cpus.iter().find(|cpu| process.allowed.contains(cpu))?;
                Some((
                    number,
                    format!(
                        "{} (process {number}) is pinned to CPU {cpu}, which this run uses",
                        process.name
                    ),
                ))
            })
            .collect();
        pinned.sort();
        pinned.into_iter().map(|(_, warning)| warning).collect()
    }

    /// What a hypervisor gave to others of these CPUs' time, if it is more than a half percent.
    fn stolen_since(&self, before: &Self, cpus: &[usize]) -> Option<String> {
        let sum = |of: &Self| {
            cpus.iter()
                .filter_map(|cpu| of.cpus.get(cpu))
                .fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1))
        };
        let ((all, stolen), (all_before, stolen_before)) = (sum(self), sum(before));
        let all = all.checked_sub(all_before).filter(|all| *all > 0)?;
        let share = stolen.checked_sub(stolen_before)? as f64 / all as f64;
        (share > 0.005).then(|| {
            format!("the hypervisor took {:.1} % of the CPUs' time during the run: others use this machine too", share * 100.0)
        })
    }
}

impl Process {
    /// From `/proc/…/stat` and `status`.
    fn parse(stat: &str, status: &str) -> Option<Self> {
        let (head, rest) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        const KERNEL_THREAD: u64 = 0x0020_0000;
        Some(Self {
            name,
            parent: number(1)? as u32,
            ticks: number(11)? + number(12)?,
            allowed: field(status, "Cpus_allowed_list")
                .map(cpu_list)
                .unwrap_or_default(),
            kernel: number(6)? & KERNEL_THREAD != 0,
        })
    }
}

/// From `/proc/stat`.
fn processors(stat: &str) -> HashMap<usize, (u64, u64)> {
    stat.lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("cpu")?.split(' ');
            let number = words.next()?.parse().ok()?;
            // Time of guests is in that of users already.
            let ticks: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
            Some((number, (ticks.iter().sum(), *ticks.get(7)?)))
        })
        .collect()
}

/// As in `0-2,5`.
fn cpu_list(text: &str) -> Vec<usize> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        })
        .flatten()
        .collect()
}

/// The value behind `name` and a colon.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim_end() == name).then(|| value.trim())
    })
}

/// A file of the kernel's; empty where there is none.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// What of Debian's may matter, and the compiler.
fn versions() -> BTreeMap<String, String> {
    let arguments = [
        "--show",
        "--showformat",
        "${db:Status-Status} ${Package} ${Version}\n",
        "libdpdk-dev",
        "dpdk-dev",
        "openvswitch-switch-dpdk",
        "openvswitch-switch",
        "nftables",
        "iproute2",
        "valgrind",
        "iperf3",
        "apache2",
        "apache2-utils",
        "memcached",
    ];
    let text = said("dpkg-query", &arguments).unwrap_or_default();
    let packages = text
        .lines()
        .filter_map(|line| line.strip_prefix("installed ")?.split_once(' '));
    let compiler = said("rustc", &["--version"]).unwrap_or_default();
    packages
        .chain(compiler.trim().split_once(' '))
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect()
}

/// The tree that this program was built in.
pub fn tree() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

fn commit() -> Option<String> {
    let tree = tree().to_str()?;
    let commit = said("git", &["-C", tree, "rev-parse", "--short=12", "HEAD"])?;
    let changed = said(
        "git",
        &["-C", tree, "status", "--porcelain", "--untracked-files=no"],
    )
    .is_some();
    Some(if changed { commit + "+" } else { commit })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn machine() -> Machine {
        Machine {
            processor: "An Example CPU".to_owned(),
            cpus: 2,
            mhz: Some(2000.0),
            governor: None,
            virtualised: true,
            kernel: "6.1.0".to_owned(),
            hugepages: Hugepages {
                total: 512,
                free: 500,
                kib: 2048,
            },
            versions: BTreeMap::from([("libdpdk-dev".to_owned(), "22.11".to_owned())]),
            date: "2026-11-22 01:00:00 UTC".to_owned(),
            commit: None,
            command: "bench run p2p".to_owned(),
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let place = tempfile::tempdir().expect("a directory");
        std::fs::write(place.path().join("iperf3"), "").expect("a file");
        assert_eq!(
            missing_programs(
                &[place.path().to_owned()],
                &["iperf3", "memcached", "memcaslap"]
            ),
            [
                "memcached is missing: run scripts/setup --for bench",
                "memcaslap is missing: run scripts/setup --for bench"
            ]
        );
    }

    #[test]
    fn a_machine_is_told_in_a_few_lines() {
        assert_eq!(
            machine().to_string(),
            "date: 2026-11-22 01:00:00 UTC\nprocessor: An Example CPU\nprocessors: 2, virtual\nclock: 2000 MHz\n\
             kernel: 6.1.0\nhugepages: 512 of 2048 KiB, 500 free\nlibdpdk-dev: 22.11\ncommit: unknown\ncommand: bench run p2p\n"
        );
    }

    #[test]
    fn hugepages_are_read() {
        let text = "MemTotal:       24654792 kB\nHugePages_Total:     512\nHugePages_Free:      500\nHugepagesize:       2048 kB\n";
        assert_eq!(Hugepages::parse(text), machine().hugepages);
        assert_eq!(Hugepages::parse(""), Hugepages::default());
    }

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpu_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(cpu_list("7"), [7]);
        assert_eq!(cpu_list(""), Vec::<usize>::new());
    }

    #[test]
    fn too_few_cpus_are_told() {
        let cpus = Cpus { switch: 1, load: 0 };
        assert_eq!(missing_cpus(cpus, &[0, 1]), None);
        let one = missing_cpus(cpus, &[0]).expect("one is not enough");
        assert!(one.starts_with("two CPUs are needed"), "{one}");
        let other = missing_cpus(Cpus { switch: 4, load: 0 }, &[0, 1]).expect("it is not there");
        assert_eq!(
            other,
            "there is no CPU 4 for this process, which may use 0,1: choose two of them with --cpus SWITCH,LOAD"
        );
        let same = missing_cpus(Cpus { switch: 1, load: 1 }, &[2, 3]).expect("they are the same");
        assert_eq!(
            same,
            "the switch under test and the load need a CPU each: --cpus 3,2"
        );
    }

    #[test]
    fn a_load_average_above_a_half_is_told() {
        assert_eq!(crowded("0.50 1.94 1.84 2/96 23597\n"), None);
        let warning = "the load average is 1.51 before the run: something else runs here, or did a minute ago";
        assert_eq!(
            crowded("1.51 1.94 1.84 2/96 23597\n").as_deref(),
            Some(warning)
        );
    }

    #[test]
    fn scaling_and_giving_way_are_told() {
        assert_eq!(scaled(1, "performance"), None);
        assert!(scaled(1, "powersave").is_some_and(|warning| warning.contains("CPU 1")));
        let stat = |nice, policy| {
            format!(
                "7 (a) b) R 1 7 7 0 -1 4194304 88 0 0 0 3 4 0 0 20 {nice} 1 0 1 2 3 4 5 6 7 8 9 0 0 0 0 0 0 0 17 1 0 {policy} 0 0"
            )
        };
        assert_eq!(meek(&stat(0, 0)), None);
        assert!(meek(&stat(19, 0)).is_some());
        assert!(meek(&stat(0, 5)).is_some());
    }

    const STAT: &str = "cpu  3714761 1571392 465682 1757839 9704 0 25234 30363 0 0\ncpu0 100 0 0 800 0 0 0 100 50 0\ncpu1 200 0 0 800 0 0 0 0 0 0\nintr 12\n";

    #[test]
    fn stolen_time_is_told() {
        let snapshot = |stat| Snapshot {
            cpus: processors(stat),
            processes: HashMap::new(),
        };
        let before = snapshot(STAT);
        assert_eq!(
            before.cpus,
            HashMap::from([(0, (1000, 100)), (1, (1000, 0))])
        );
        let after = snapshot("cpu0 200 0 0 1580 0 0 0 120 50 0\ncpu1 1200 0 0 800 0 0 0 0 0 0\n");
        assert_eq!(after.stolen_since(&before, &[1]), None);
        let warning = "the hypervisor took 1.1 % of the CPUs' time during the run: others use this machine too";
        assert_eq!(
            after.stolen_since(&before, &[0, 1]).as_deref(),
            Some(warning)
        );
    }

    fn process(name: &str, parent: u32, ticks: u64, allowed: &str) -> Process {
        let stat =
            format!("9 ({name}) S {parent} 9 9 0 -1 4194304 88 0 0 0 {ticks} 0 0 0 20 0 1 0");
        let status = format!("Name:\t{name}\nCpus_allowed_list:\t{allowed}\n");
        Process::parse(&stat, &status).expect("it can be read")
    }

    #[test]
    fn the_busiest_of_the_others_is_named() {
        let own = std::process::id();
        let snapshot = |stat, other, ours| Snapshot {
            cpus: processors(stat),
            processes: HashMap::from([
                (own, process("bench", 1, 0, "0-1")),
                (own + 1, process("load", own, ours, "0")),
                (own + 2, process("qemu (x)", 1, other, "0-1")),
            ]),
        };
        let before = snapshot(STAT, 10, 0);
        let after = snapshot(
            "cpu0 600 0 0 1300 0 0 0 100 0 0\ncpu1 200 0 0 1800 0 0 0 0 0 0\n",
            260,
            900,
        );
        assert_eq!(after.busiest_since(&before, 0.3, "just now"), None);
        let warning = format!("qemu (x) (process {}) took 25 % of a CPU just now", own + 2);
        assert_eq!(
            after.busiest_since(&before, 0.05, "just now"),
            Some(warning)
        );
        assert_eq!(before.busiest_since(&before, 0.05, "just now"), None);
    }

    #[test]
    fn who_is_pinned_to_our_cpus_is_named() {
        let mut kernel = process("ksoftirqd/1", 2, 0, "1");
        kernel.kernel = true;
        let snapshot = Snapshot {
            cpus: processors(STAT),
            processes: HashMap::from([
                (2, kernel),
                (7, process("everywhere", 1, 0, "0-1")),
                (8, process("tester", 1, 0, "1")),
            ]),
        };
        assert_eq!(snapshot.pinned(&[0]), Vec::<String>::new());
        assert_eq!(
            snapshot.pinned(&[1, 0]),
            ["tester (process 8) is pinned to CPU 1, which this run uses"]
        );
    }
}
