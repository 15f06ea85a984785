//! Control groups: version 2 if it has the controllers, else version 1. Hugepages have a controller
//! of their own, of either version, which a host may lack.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::usage::Accounts;
use crate::error::HostError;
use crate::key::Key;
use crate::look::Look;
use crate::object::{Context, Live, Object};

const CPU_PERIOD_US: u64 = 100_000;
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
const HUGETLB: &str = "hugetlb";
/// How long killed processes may take to end.
const STOP_WITHIN: Duration = Duration::from_secs(3);
const MIB: u64 = 1 << 20;

/// A tenant's control group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Its path below the mount of each controller.
    pub path: String,
    /// Upper bound of processor time, in percent of one core.
    pub cpu_percent: u32,
    /// Upper bound of memory, in MiB.
    pub memory_mib: u32,
    /// Upper bound of tasks.
    pub tasks: u32,
    /// Upper bound of memory in hugepages of each size, in MiB, which the bound of memory does not
    /// include.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hugepages_mib: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Object for Cgroup {
    fn key(&self) -> Key {
        Key::Cgroup {
            path: self.path.clone(),
        }
    }
}

impl Live for Cgroup {
    fn observe(&self, _: &Context) -> Result<Option<Self>, HostError> {
        mounts()?.observe(self)
    }

    /// Each named network namespace is a line or two of the list of mounts.
    fn observe_with(&self, _: &Context, look: &Look) -> Result<Option<Self>, HostError> {
        look.share("", mounts)?.observe(self)
    }

    fn create(&self, _: &Context) -> Result<(), HostError> {
        mounts()?.set(self)
    }

    fn update(&self, _: &Context) -> Result<(), HostError> {
        mounts()?.set(self)
    }

    fn delete(&self, _: &Context) -> Result<(), HostError> {
        let mounts = mounts()?;
        mounts.empty(&self.path, STOP_WITHIN)?;
        mounts.delete(&self.path)
    }
}

/// Where this host has its control groups.
pub(super) fn mounts() -> Result<Mounts, HostError> {
    Mounts::find().map_err(|message| HostError::Io {
        what: message,
        source: std::io::ErrorKind::NotFound.into(),
    })
}

/// Where the control groups are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounts {
    base: Base,
    /// The hierarchy with the controller of hugepages.
    hugetlb: Option<Hugetlb>,
}

impl fmt::Display for Mounts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.base {
            Base::Unified(at) => write!(out, "version 2 on {}", at.display())?,
            Base::Legacy([cpu, ..], _) => write!(out, "version 1, cpu on {}", cpu.display())?,
        }
        match &self.hugetlb {
            Some(hugetlb) => write!(out, "; hugepages on {}", hugetlb.mount.display()),
            None => write!(out, "; none for hugepages"),
        }
    }
}

/// Where hugepages are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hugetlb {
    mount: PathBuf,
    /// Whether it is of version 2.
    unified: bool,
}

/// Where everything else is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Base {
    /// One hierarchy for all controllers.
    Unified(PathBuf),
    /// One hierarchy each, in the order cpu, memory, pids; and the one that counts processor time,
    /// if it is a separate one.
    Legacy([PathBuf; 3], Option<PathBuf>),
}

impl Mounts {
    /// Finds them, as `mountinfo` (of proc(5)) lists them.
    pub fn find() -> Result<Self, String> {
        let text = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| format!("cannot read /proc/self/mountinfo: {error}"))?;
        let controllers =
            |mount: &Path| fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        Self::parse(&text, controllers)
    }

    fn parse(mountinfo: &str, controllers: impl Fn(&Path) -> String) -> Result<Self, String> {
        let mut unified = None;
        let mut legacy: [Option<PathBuf>; 3] = [None, None, None];
        let mut accounting = None;
        let mut hugetlb = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(mount) = left.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            let mut right = right.split(' ');
            let kind = right.next().unwrap_or_default();
            if kind == "cgroup2" {
                let there = controllers(&mount);
                let there: Vec<&str> = there.split_whitespace().collect();
                if there.contains(&HUGETLB) {
                    let mount = mount.clone();
                    hugetlb = Some(Hugetlb {
                        mount,
                        unified: true,
                    });
                }
                if CONTROLLERS.iter().all(|name| there.contains(name)) {
                    unified = Some(mount);
                }
            } else if kind == "cgroup" {
                let options = right.nth(1).unwrap_or_default();
                let has = |name: &str| options.split(',').any(|option| option == name);
                for (place, name) in legacy.iter_mut().zip(CONTROLLERS) {
                    if has(name) {
                        *place = Some(mount.clone());
                    }
                }
                if has(HUGETLB) {
                    hugetlb = Some(Hugetlb {
                        mount: mount.clone(),
                        unified: false,
                    });
                }
                if has("cpuacct") {
                    accounting = Some(mount);
                }
            }
        }
        let base = match (unified, legacy) {
            (Some(mount), _) => Base::Unified(mount),
            (None, [Some(cpu), Some(memory), Some(pids)]) => {
                let accounting = accounting.filter(|mount| *mount != cpu);
                Base::Legacy([cpu, memory, pids], accounting)
            }
            (None, legacy) => return Err(missing(&legacy)),
        };
        Ok(Self { base, hugetlb })
    }

    /// The group's directories in the hierarchies, of which that of hugepages is the last if it is
    /// a separate one.
    fn directories(&self, path: &str) -> Vec<PathBuf> {
        let mut all = self.base.directories(path);
        let hugetlb = self.hugetlb.iter().map(|it| it.mount.join(path));
        for directory in hugetlb {
            if !all.contains(&directory) {
                all.push(directory);
            }
        }
        all
    }

    /// The files to which a process writes its number to join.
    pub fn joins(&self, path: &str) -> Vec<PathBuf> {
        let directories = self.directories(path);
        directories
            .iter()
            .map(|directory| directory.join("cgroup.procs"))
            .collect()
    }

    /// The limits: the file, and the value to write and to read back.
    fn limits(&self, group: &Cgroup) -> Vec<(PathBuf, String)> {
        let directories = self.base.directories(&group.path);
        let quota_us = u64::from(group.cpu_percent) * CPU_PERIOD_US / 100;
        let memory = (u64::from(group.memory_mib) * MIB).to_string();
        let tasks = group.tasks.to_string();
        match (&self.base, directories.as_slice()) {
            (Base::Unified(_), [all]) => vec![
                (all.join("cpu.max"), format!("{quota_us} {CPU_PERIOD_US}")),
                (all.join("memory.max"), memory),
                (all.join("pids.max"), tasks),
            ],
            (Base::Legacy(..), [cpu, memory_at, pids, ..]) => vec![
                (cpu.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string()),
                (cpu.join("cpu.cfs_quota_us"), quota_us.to_string()),
                (memory_at.join("memory.limit_in_bytes"), memory),
                (pids.join("pids.max"), tasks),
            ],
            _ => Vec::new(),
        }
    }

    /// Makes the group, if it does not exist, and sets its limits.
    pub fn set(&self, group: &Cgroup) -> Result<(), HostError> {
        if let Base::Unified(mount) = &self.base {
            enable(mount, &group.path, "+cpu +memory +pids")?;
        }
        if let Some(hugetlb) = self.hugetlb.iter().find(|it| it.unified) {
            enable(&hugetlb.mount, &group.path, "+hugetlb")?;
        }
        for directory in self.directories(&group.path) {
            make(&directory)?;
        }
        for (file, value) in self.limits(group) {
            fs::write(&file, &value)
                .map_err(HostError::io(format!("cannot write {}", file.display())))?;
        }
        let bytes = (u64::from(group.hugepages_mib) * MIB).to_string();
        for Hugepages { file, .. } in self.hugepages(&group.path)? {
            fs::write(&file, &bytes)
                .map_err(HostError::io(format!("cannot write {}", file.display())))?;
        }
        Ok(())
    }

    /// The limits of hugepages, two of each size; none without the controller.
    fn hugepages(&self, path: &str) -> Result<Vec<Hugepages>, HostError> {
        let Some(Hugetlb { mount, .. }) = &self.hugetlb else {
            return Ok(Vec::new());
        };
        let directory = mount.join(path);
        let what = format!("cannot read {}", directory.display());
        let entries = fs::read_dir(&directory).map_err(HostError::io(what))?;
        let names = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().to_str()?.to_owned();
            Some((directory.join(&name), page_bytes(&name)?))
        });
        Ok(names
            .map(|(file, page_bytes)| Hugepages { file, page_bytes })
            .collect())
    }

    /// The bound of hugepages, as wanted if each limit is, else one that is not.
    fn hugepages_mib(&self, wanted: &Cgroup) -> Result<u32, HostError> {
        let bytes = u64::from(wanted.hugepages_mib) * MIB;
        for Hugepages { file, page_bytes } in self.hugepages(&wanted.path)? {
            let text = fs::read_to_string(&file)
                .map_err(HostError::io(format!("cannot read {}", file.display())))?;
            // "max" is no number.
            let limit = text.trim().parse::<u64>().unwrap_or(u64::MAX);
            // The kernel takes whole pages only.
            if limit != bytes - bytes % page_bytes {
                return Ok(u32::try_from(limit / MIB)
                    .unwrap_or(u32::MAX)
                    .max(wanted.hugepages_mib.saturating_add(1)));
            }
        }
        Ok(wanted.hugepages_mib)
    }

    /// Reads the group; `None` unless it exists in every hierarchy.
    pub fn observe(&self, wanted: &Cgroup) -> Result<Option<Cgroup>, HostError> {
        let mut directories = self.directories(&wanted.path).into_iter();
        if !directories.all(|directory| directory.is_dir()) {
            return Ok(None);
        }
        let mut values = Vec::new();
        for (file, _) in self.limits(wanted) {
            let text = fs::read_to_string(&file)
                .map_err(HostError::io(format!("cannot read {}", file.display())))?;
            values.push(text.trim().to_owned());
        }
        let number = |text: &str| text.parse::<u64>().unwrap_or(0);
        // "max", an unlimited quota, reads as 0, which is never wanted.
        let (quota, period, memory, tasks) = match values.as_slice() {
            [cpu, memory, tasks] => {
                let (quota, period) = cpu.split_once(' ').unwrap_or((cpu, "0"));
                (number(quota), number(period), number(memory), number(tasks))
            }
            [period, quota, memory, tasks] => {
                (number(quota), number(period), number(memory), number(tasks))
            }
            _ => (0, 0, 0, 0),
        };
        let clamp = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Some(Cgroup {
            path: wanted.path.clone(),
            cpu_percent: clamp((quota * 100).checked_div(period).unwrap_or(0)),
            memory_mib: clamp(memory / MIB),
            tasks: clamp(tasks),
            hugepages_mib: self.hugepages_mib(wanted)?,
        }))
    }

    /// The usage of the group's processes, including ended ones.
    pub fn accounts(&self, path: &str) -> Option<Accounts> {
        let number = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
        let directories = self.base.directories(path);
        match (&self.base, directories.as_slice()) {
            (Base::Unified(_), [all]) => {
                let text = fs::read_to_string(all.join("cpu.stat")).ok()?;
                let usage = text
                    .lines()
                    .find_map(|line| line.strip_prefix("usage_usec "))?;
                let memory_bytes = number(all.join("memory.current"))?;
                Some(Accounts {
                    cpu_s: usage.trim().parse::<u64>().ok()? as f64 / 1e6,
                    memory_bytes,
                    // Kernels before 5.19 do not record it.
                    memory_peak_bytes: number(all.join("memory.peak")).unwrap_or(memory_bytes),
                })
            }
            (Base::Legacy(..), [cpu, memory, _, rest @ ..]) => {
                let cpu = rest.first().unwrap_or(cpu);
                Some(Accounts {
                    cpu_s: number(cpu.join("cpuacct.usage"))? as f64 / 1e9,
                    memory_bytes: number(memory.join("memory.usage_in_bytes"))?,
                    memory_peak_bytes: number(memory.join("memory.max_usage_in_bytes"))?,
                })
            }
            _ => None,
        }
    }

    /// The threads of the group. The kernel no longer lists a process when its last thread begins
    /// to end, and its descriptors, such as a function's, may be open for longer. It lists a thread
    /// until they are closed.
    fn threads(&self, path: &str) -> Vec<Pid> {
        let list = |directory: &Path| {
            let versions = ["cgroup.threads", "tasks"].map(|name| directory.join(name));
            versions
                .iter()
                .find_map(|file| fs::read_to_string(file).ok())
        };
        let directories = self.directories(path);
        let texts = directories.iter().filter_map(|it| list(it));
        let mut threads: Vec<Pid> = texts
            .flat_map(|text| {
                text.lines()
                    .filter_map(|line| line.parse().ok().map(Pid::from_raw))
                    .collect::<Vec<_>>()
            })
            .collect();
        threads.sort();
        threads.dedup();
        threads
    }

    /// Kills every process of the group and waits until none is left.
    pub fn empty(&self, path: &str, patience: Duration) -> Result<(), HostError> {
        let started = Instant::now();
        loop {
            let left = self.threads(path);
            if left.is_empty() {
                return Ok(());
            }
            if started.elapsed() > patience {
                return Err(HostError::Io {
                    what: format!("threads {left:?} of control group {path} do not end"),
                    source: nix::Error::EBUSY.into(),
                });
            }
            // The number of a thread stands for its process. A process outside this PID namespace
            // reads as 0, and kill(0) would hit our own group.
            for thread in left.into_iter().filter(|it| it.as_raw() > 0) {
                // It may have ended meanwhile.
                let _ = kill(thread, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Removes the group, and its parents that are then empty.
    pub fn delete(&self, path: &str) -> Result<(), HostError> {
        for directory in self.directories(path) {
            remove(&directory)?;
            let mut above = Path::new(path).parent();
            while let Some(part) = above.filter(|part| !part.as_os_str().is_empty()) {
                let depth = Path::new(path).components().count() - part.components().count();
                let mut parent = directory.clone();
                for _ in 0..depth {
                    parent.pop();
                }
                // Another tenant's group may still be in it.
                let _ = fs::remove_dir(parent);
                above = part.parent();
            }
        }
        Ok(())
    }
}

impl Base {
    fn directories(&self, path: &str) -> Vec<PathBuf> {
        match self {
            Self::Unified(mount) => vec![mount.join(path)],
            Self::Legacy(mounts, accounting) => {
                let all = mounts.iter().chain(accounting);
                all.map(|mount| mount.join(path)).collect()
            }
        }
    }
}

/// A limit of hugepages of one size.
struct Hugepages {
    file: PathBuf,
    page_bytes: u64,
}

/// The size of the pages that a file of this name limits: `hugetlb.2MB.max`,
/// `hugetlb.2MB.rsvd.limit_in_bytes`; `None` for other files.
fn page_bytes(name: &str) -> Option<u64> {
    let (size, file) = name.strip_prefix("hugetlb.")?.split_once('.')?;
    let limits = ["max", "rsvd.max", "limit_in_bytes", "rsvd.limit_in_bytes"];
    limits.contains(&file).then_some(())?;
    let units = [("KB", 10), ("MB", 20), ("GB", 30)];
    units.iter().find_map(|(unit, shift)| {
        let number: u64 = size.strip_suffix(unit)?.parse().ok()?;
        Some(number << shift).filter(|bytes| *bytes > 0)
    })
}

/// Enables controllers of a group of version 2, level by level.
fn enable(mount: &Path, path: &str, controllers: &str) -> Result<(), HostError> {
    let mut at = mount.to_owned();
    for part in Path::new(path) {
        let control = at.join("cgroup.subtree_control");
        fs::write(&control, controllers)
            .map_err(HostError::io(format!("cannot write {}", control.display())))?;
        at.push(part);
        make(&at)?;
    }
    Ok(())
}

/// What to do about hierarchies that are not there.
fn missing(legacy: &[Option<PathBuf>; 3]) -> String {
    let missing: Vec<&str> = CONTROLLERS
        .iter()
        .zip(legacy)
        .filter(|(_, place)| place.is_none())
        .map(|(name, _)| *name)
        .collect();
    format!(
        "no control group hierarchy with {}: mount cgroup2 on /sys/fs/cgroup with these \
         controllers, or their version 1 hierarchies",
        missing.join(", ")
    )
}

fn make(directory: &Path) -> Result<(), HostError> {
    fs::create_dir_all(directory).map_err(HostError::io(format!(
        "cannot make control group {}",
        directory.display()
    )))
}

/// The kernel frees a group a moment after its last process has ended.
fn remove(directory: &Path) -> Result<(), HostError> {
    let started = Instant::now();
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if started.elapsed() > Duration::from_secs(2) => {
                let what = format!("cannot remove control group {}", directory.display());
                return Err(HostError::io(what)(error));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEGACY: &str = "\
30 20 0:25 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
31 20 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
32 20 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
33 20 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn version_1_is_used_if_version_2_lacks_the_controllers() {
        let found = Mounts::parse(LEGACY, |_| "hugetlb\n".to_owned());
        let at = |name: &str| Path::new("/sys/fs/cgroup").join(name);
        assert_eq!(
            found,
            Ok(Mounts {
                base: Base::Legacy([at("cpu,cpuacct"), at("memory"), at("pids")], None),
                hugetlb: Some(Hugetlb {
                    mount: at("unified"),
                    unified: true,
                }),
            })
        );
        let apart = "34 20 0:29 / /sys/fs/cgroup/cpuacct rw - cgroup cgroup rw,cpuacct\n";
        let found = Mounts::parse(
            &format!("{}{apart}", LEGACY.replace("rw,cpu,cpuacct", "rw,cpu")),
            |_| String::new(),
        );
        assert_eq!(
            found,
            Ok(Mounts {
                base: Base::Legacy(
                    [at("cpu,cpuacct"), at("memory"), at("pids")],
                    Some(at("cpuacct"))
                ),
                hugetlb: None,
            })
        );
    }

    #[test]
    fn version_2_is_used_if_it_has_the_controllers() {
        let found = Mounts::parse(LEGACY, |_| "cpuset cpu io memory pids\n".to_owned());
        let at = PathBuf::from("/sys/fs/cgroup/unified");
        let base = Base::Unified(at.clone());
        let without = Mounts {
            base: base.clone(),
            hugetlb: None,
        };
        assert_eq!(found, Ok(without));
        let found = Mounts::parse(LEGACY, |_| "cpu memory pids hugetlb\n".to_owned());
        let with = Mounts {
            base,
            hugetlb: Some(Hugetlb {
                mount: at.clone(),
                unified: true,
            }),
        };
        assert_eq!(
            with.directories("a/b"),
            [at.join("a/b")],
            "it is one directory"
        );
        assert_eq!(found, Ok(with));
    }

    #[test]
    fn version_1_of_hugepages_is_joined() {
        let hugetlb = "34 20 0:29 / /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb\n";
        let found = Mounts::parse(&format!("{LEGACY}{hugetlb}"), |_| String::new());
        let joins = found.expect("all are there").joins("mts/red");
        assert_eq!(
            joins.last(),
            Some(&PathBuf::from(
                "/sys/fs/cgroup/hugetlb/mts/red/cgroup.procs"
            ))
        );
    }

    #[test]
    fn limits_of_hugepages_are_told_by_their_names() {
        for (name, bytes) in [
            ("hugetlb.2MB.max", Some(2 << 20)),
            ("hugetlb.1GB.rsvd.max", Some(1 << 30)),
            ("hugetlb.64KB.limit_in_bytes", Some(64 << 10)),
            ("hugetlb.2MB.rsvd.limit_in_bytes", Some(2 << 20)),
            ("hugetlb.2MB.current", None),
            ("hugetlb.2MB.events", None),
            ("memory.max", None),
        ] {
            assert_eq!(page_bytes(name), bytes, "{name}");
        }
    }

    #[test]
    fn missing_controllers_are_named() {
        let found = Mounts::parse("31 20 0:26 / /m rw - cgroup cgroup rw,memory\n", |_| {
            String::new()
        });
        let error = found.expect_err("cpu and pids are not there");
        assert!(error.contains("with cpu, pids:"), "{error}");
    }
}
