//! Detects what distorts a run: other processes, frequency scaling, a busy hypervisor.

use std::collections::HashMap;
use std::time::Duration;

use super::proc::{cpu_list, field, governor, read};

/// Watches the machine from the beginning of a run to its end.
#[derive(Debug)]
pub struct Watch {
    cpus: Vec<usize>,
    begin: Snapshot,
    warnings: Vec<String>,
}

impl Watch {
    /// Inspects the machine before a measurement on those CPUs, which takes half a second. Without
    /// CPUs nothing is timed, so nothing is watched.
    pub fn begin(cpus: &[usize]) -> Self {
        const INTERVAL: Duration = Duration::from_millis(500);
        let mut warnings = Vec::new();
        if cpus.is_empty() {
            return Self {
                cpus: Vec::new(),
                begin: Snapshot::default(),
                warnings,
            };
        }
        warnings.extend(load_warning(&read("/proc/loadavg")));
        let before = Snapshot::take();
        std::thread::sleep(INTERVAL);
        let begin = Snapshot::take();
        warnings.extend(begin.busiest_since(&before, 0.05, "just before the run"));
        for &cpu in cpus {
            warnings.extend(governor(cpu).and_then(|governor| governor_warning(cpu, &governor)));
        }
        warnings.extend(begin.pinned(cpus));
        warnings.extend(priority_warning(&read("/proc/self/stat")));
        Self {
            cpus: cpus.to_vec(),
            begin,
            warnings,
        }
    }

    /// The warnings so far.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// All warnings, including those about the time of the run.
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

fn load_warning(loadavg: &str) -> Option<String> {
    let load: f64 = loadavg.split(' ').next()?.parse().ok()?;
    (load > 0.5).then(|| {
        format!(
            "the load average is {load:.2} before the run: something else is running, or was a \
             minute ago"
        )
    })
}

fn governor_warning(cpu: usize, governor: &str) -> Option<String> {
    (governor != "performance").then(|| {
        format!(
            "the clock of CPU {cpu} is scaled by \"{governor}\": echo performance \
             >/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"
        )
    })
}

/// Warns of a low priority; `stat` is this process's own.
fn priority_warning(stat: &str) -> Option<String> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // proc_pid_stat(5), fields 19 and 41; the first after the name is the third.
    let (nice, policy): (i32, u32) = (fields.get(16)?.parse().ok()?, fields.get(38)?.parse().ok()?);
    const SCHED_IDLE: u32 = 5;
    (nice > 0 || policy == SCHED_IDLE).then(|| {
        "this process and its switches have a low priority (nice or chrt): they get only the time \
         that others leave"
            .to_owned()
    })
}

/// The time used by all processors and processes so far.
#[derive(Debug, Clone, Default, PartialEq)]
struct Snapshot {
    /// By CPU: all clock ticks, and those that a hypervisor stole.
    cpus: HashMap<usize, (u64, u64)>,
    processes: HashMap<u32, Process>,
}

#[derive(Debug, Clone, PartialEq)]
struct Process {
    name: String,
    parent: u32,
    /// Clock ticks.
    ticks: u64,
    /// The CPUs it may use; empty if unknown.
    allowed: Vec<usize>,
    /// Whether it is a kernel thread.
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
            // A process that has just ended has no text, and is left out.
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

    /// Whether a process is this one or a descendant of it.
    fn is_own(&self, mut number: u32) -> bool {
        let own = std::process::id();
        while let Some(process) = self.processes.get(&number) {
            if number == own {
                return true;
            }
            number = process.parent;
        }
        false
    }

    /// The foreign process that used most time since `before`, if that is more than a share of one
    /// CPU.
    fn busiest_since(&self, before: &Self, share: f64, when: &str) -> Option<String> {
        let all: u64 = self
            .cpus
            .iter()
            .map(|(cpu, (all, _))| all - before.all(*cpu).min(*all))
            .sum();
        let one = all as f64 / self.cpus.len().max(1) as f64;
        let (number, process, used) = self
            .processes
            .iter()
            .filter(|(number, _)| !self.is_own(**number))
            .filter_map(|(number, process)| {
                let earlier = before
                    .processes
                    .get(number)
                    .map_or(0, |process| process.ticks);
                let ticks = process.ticks.checked_sub(earlier)?;
                Some((number, process, ticks as f64 / one))
            })
            .max_by(|one, other| one.2.total_cmp(&other.2))?;
        (one > 0.0 && used > share).then(|| {
            format!(
                "{} (process {number}) used {:.0} % of a CPU {when}",
                process.name,
                used * 100.0
            )
        })
    }

    fn all(&self, cpu: usize) -> u64 {
        self.cpus.get(&cpu).map_or(0, |(all, _)| *all)
    }

    /// Foreign processes that are pinned to one of these CPUs.
    fn pinned(&self, cpus: &[usize]) -> Vec<String> {
        let mut pinned: Vec<_> = self
            .processes
            .iter()
            .filter(|(number, process)| !process.kernel && !self.is_own(**number))
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

    /// The share of these CPUs' time that a hypervisor stole, if it is above half a percent.
    fn stolen_since(&self, before: &Self, cpus: &[usize]) -> Option<String> {
        let sum = |snapshot: &Self| {
            cpus.iter()
                .filter_map(|cpu| snapshot.cpus.get(cpu))
                .fold((0, 0), |sum, cpu| (sum.0 + cpu.0, sum.1 + cpu.1))
        };
        let ((all, stolen), (all_before, stolen_before)) = (sum(self), sum(before));
        let all = all.checked_sub(all_before).filter(|all| *all > 0)?;
        let share = stolen.checked_sub(stolen_before)? as f64 / all as f64;
        (share > 0.005).then(|| {
            format!(
                "the hypervisor took {:.1} % of the CPUs' time during the run: others use this \
                 machine too",
                share * 100.0
            )
        })
    }
}

impl Process {
    /// From `/proc/PID/stat` and `status`.
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

/// From `/proc/stat`, by CPU: all ticks, and the stolen ones.
fn processors(stat: &str) -> HashMap<usize, (u64, u64)> {
    stat.lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("cpu")?.split(' ');
            let number = words.next()?.parse().ok()?;
            // The time of guests is part of the users' time.
            let ticks: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
            Some((number, (ticks.iter().sum(), *ticks.get(7)?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_average_above_half_warns() {
        assert_eq!(load_warning("0.50 1.94 1.84 2/96 23597\n"), None);
        let warning = "the load average is 1.51 before the run: something else is running, or was \
            a minute ago";
        assert_eq!(
            load_warning("1.51 1.94 1.84 2/96 23597\n").as_deref(),
            Some(warning)
        );
    }

    #[test]
    fn scaled_clock_and_low_priority_warn() {
        assert_eq!(governor_warning(1, "performance"), None);
        assert!(governor_warning(1, "powersave").is_some_and(|text| text.contains("CPU 1")));
        let stat = |nice, policy| {
            format!(
                "7 (a) b) R 1 7 7 0 -1 4194304 88 0 0 0 3 4 0 0 20 {nice} 1 0 1 2 3 4 5 6 7 8 9 \
                 0 0 0 0 0 0 0 17 1 0 {policy} 0 0"
            )
        };
        assert_eq!(priority_warning(&stat(0, 0)), None);
        assert!(priority_warning(&stat(19, 0)).is_some());
        assert!(priority_warning(&stat(0, 5)).is_some());
    }

    const STAT: &str = "cpu  3714761 1571392 465682 1757839 9704 0 25234 30363 0 0\n\
        cpu0 100 0 0 800 0 0 0 100 50 0\ncpu1 200 0 0 800 0 0 0 0 0 0\nintr 12\n";

    #[test]
    fn stolen_time_warns() {
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
        let warning = "the hypervisor took 1.1 % of the CPUs' time during the run: others use \
            this machine too";
        assert_eq!(
            after.stolen_since(&before, &[0, 1]).as_deref(),
            Some(warning)
        );
    }

    fn process(name: &str, parent: u32, ticks: u64, allowed: &str) -> Process {
        let stat =
            format!("9 ({name}) S {parent} 9 9 0 -1 4194304 88 0 0 0 {ticks} 0 0 0 20 0 1 0");
        let status = format!("Name:\t{name}\nCpus_allowed_list:\t{allowed}\n");
        Process::parse(&stat, &status).expect("it can be parsed")
    }

    #[test]
    fn busiest_foreign_process_is_named() {
        let own = std::process::id();
        let snapshot = |stat, other, load| Snapshot {
            cpus: processors(stat),
            processes: HashMap::from([
                (own, process("bench", 1, 0, "0-1")),
                (own + 1, process("load", own, load, "0")),
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
        let warning = format!("qemu (x) (process {}) used 25 % of a CPU just now", own + 2);
        assert_eq!(
            after.busiest_since(&before, 0.05, "just now"),
            Some(warning)
        );
        assert_eq!(before.busiest_since(&before, 0.05, "just now"), None);
    }

    #[test]
    fn process_pinned_to_measured_cpu_is_named() {
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
