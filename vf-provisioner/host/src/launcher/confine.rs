//! Starts a switch in its confinement.
//!
//! Two steps, which are hidden subcommands of the program that uses this library, each
//! single-threaded. `confine` joins the control groups, enters the tenant's network namespace,
//! makes mount, IPC, UTS and PID namespaces and builds the switch's view of the file system;
//! `confine --inner`, process 1 of the new PID namespace, makes that view its root, drops all
//! privileges, and becomes the switch. Neither needs `unsafe`: the work of `fork` hooks is done
//! between two `exec`s.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use caps::{CapSet, Capability, CapsHashSet};
use nix::libc::O_NONBLOCK;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns, unshare};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource as Limit, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    Gid, Pid, Uid, chdir, dup2_stdout, pivot_root, setgroups, sethostname, setresgid, setresuid,
    setsid,
};
use serde::{Deserialize, Serialize};

use super::usage::Accounts;
use crate::child::OWN_EXECUTABLE;

const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];
const OPEN_FILES: u64 = 1024;

/// The description of the confinement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// The host name inside.
    pub tenant: String,
    /// The network namespace's file; without one it is a new namespace, in which there is nothing.
    pub namespace: Option<PathBuf>,
    /// Whether it sees nothing but what is named here: no other devices, no /proc, /sys and /tmp.
    #[serde(default)]
    pub bare: bool,
    /// The files through which the control groups are joined.
    pub cgroups: Vec<PathBuf>,
    /// The user and group.
    pub uid: u32,
    /// The empty directory on which the switch's view is built.
    pub root: PathBuf,
    /// The executable, as it sees itself.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What it sees of the host's file system besides [`DEVICES`], read-only. Missing files are
    /// left out.
    pub shown: Vec<Shown>,
    /// Device nodes that it may use, at the same paths. Their permissions apply.
    pub devices: Vec<PathBuf>,
    /// The folder of the control socket on the host.
    pub run: PathBuf,
    /// The same as the switch sees it.
    pub run_inside: PathBuf,
    /// Further folders of the host that it may write to, as far as their permissions go.
    #[serde(default)]
    pub folders: Vec<Shown>,
    /// The named pipe that is its output. It never waits for room in it.
    pub log: PathBuf,
    /// Whether it starts with CAP_NET_RAW, to open packet sockets in its own network namespace.
    pub raw_sockets: bool,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The core that all its threads are bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// How much memory it may lock; `None` is limited by the control group only.
    pub locked_bytes: Option<u64>,
    /// The largest file that it may write, also one without a name, such as memory.
    pub file_bytes: u64,
}

/// A file or directory of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// On the host.
    pub host: PathBuf,
    /// As the switch sees it.
    pub inside: PathBuf,
}

impl Shown {
    /// A file or directory that has the same path inside.
    pub fn same(path: impl Into<PathBuf>) -> Self {
        let host = path.into();
        Self {
            inside: host.clone(),
            host,
        }
    }
}

/// A started process. Its start time distinguishes it from a later process with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its number on the host.
    pub pid: i32,
    /// Clock ticks from boot to its start.
    pub start_ticks: u64,
    /// Which boot that was: the same number and ticks after another are another process. 0 in notes
    /// of earlier versions, which did not outlive a boot.
    #[serde(default)]
    pub boot: u64,
}

/// The beginning of the kernel's random number of this boot; 0 if it says none.
pub(super) fn this_boot() -> u64 {
    static BOOT: OnceLock<u64> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text
            .chars()
            .filter(char::is_ascii_hexdigit)
            .take(16)
            .collect();
        u64::from_str_radix(&digits, 16).unwrap_or(0)
    })
}

/// The usage of a process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Seconds since its start.
    pub uptime_s: f64,
    /// Processor time in seconds.
    pub cpu_s: f64,
    /// Resident bytes.
    pub memory_bytes: u64,
}

/// The fields behind the command of `/proc/PID/stat` (proc(5)), from the state on.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

impl Started {
    /// Identifies a running process.
    pub fn identify(pid: i32) -> Option<Self> {
        let start_ticks = stat(pid)?.get(19)?.parse().ok()?;
        let boot = this_boot();
        Some(Self {
            pid,
            start_ticks,
            boot,
        })
    }

    /// The letter of its state; `None` if it has ended.
    fn state(&self) -> Option<String> {
        if self.boot != 0 && self.boot != this_boot() {
            return None;
        }
        let fields = stat(self.pid)?;
        let start: u64 = fields.get(19)?.parse().ok()?;
        let state = fields.into_iter().next()?;
        (start == self.start_ticks && state != "Z" && state != "X").then_some(state)
    }

    /// Whether it exists and is no zombie.
    pub fn is_alive(&self) -> bool {
        self.state().is_some()
    }

    /// Whether it is stopped, as by SIGSTOP.
    pub fn is_stopped(&self) -> bool {
        self.state().is_some_and(|state| state == "T")
    }

    /// Its usage; `None` if it has ended.
    pub fn usage(&self) -> Option<Usage> {
        if !self.is_alive() {
            return None;
        }
        let fields = stat(self.pid)?;
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
        let since_boot = fs::read_to_string("/proc/uptime").ok()?;
        let since_boot: f64 = since_boot.split(' ').next()?.parse().ok()?;
        Some(Usage {
            uptime_s: (since_boot - self.start_ticks as f64 / ticks as f64).max(0.0),
            cpu_s: (number(11)? + number(12)?) as f64 / ticks as f64,
            memory_bytes: number(21)? * page as u64,
        })
    }
}

impl Started {
    /// The usage of this process alone; `None` if it has ended.
    pub fn accounts(&self) -> Option<Accounts> {
        let usage = self.usage()?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let peak_kib: u64 = peak.split_whitespace().next()?.parse().ok()?;
        Some(Accounts {
            cpu_s: usage.cpu_s,
            memory_bytes: usage.memory_bytes,
            memory_peak_bytes: peak_kib << 10,
        })
    }
}

impl Task {
    /// Starts the switch, which then runs independently.
    pub fn start(&self) -> Result<Started, String> {
        let mut child = Command::new(OWN_EXECUTABLE)
            .arg("confine")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start the confinement: {error}"))?;
        let text = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        if let Some(mut input) = child.stdin.take() {
            // A child that ends early writes the reason to its standard error.
            let _ = input.write_all(&text);
        }
        let output = child
            .wait_with_output()
            .map_err(|error| format!("cannot wait for the confinement: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("the confinement did not say what it started: {error}"))
    }
}

/// Adds the failed step to an error.
fn step<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("cannot {what}: {error}"))
}

/// `vf-provisioner confine`: reads a [`Task`] from standard input, starts it, and writes
/// [`Started`] to standard output.
pub fn outer() -> Result<(), String> {
    close_inherited();
    // A supervisor blocks the signals that end it; its switches must not.
    step("unblock signals", SigSet::empty().thread_set_mask())?;
    let mut text = String::new();
    step("read the task", std::io::stdin().read_to_string(&mut text))?;
    let task: Task = step("read the task", serde_json::from_str(&text))?;

    for file in &task.cgroups {
        step(
            &format!("join {}", file.display()),
            fs::write(file, std::process::id().to_string()),
        )?;
    }
    step("start a session", setsid())?;
    match &task.namespace {
        Some(path) => {
            let namespace = step(&format!("open {}", path.display()), File::open(path))?;
            let entered = setns(namespace, CloneFlags::CLONE_NEWNET);
            step("enter the network namespace", entered)?;
        }
        None => step(
            "make a network namespace",
            unshare(CloneFlags::CLONE_NEWNET),
        )?,
    }
    let log = open_log(&task.log)?;
    step(
        "make namespaces",
        unshare(
            CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWPID,
        ),
    )?;
    build_root(&task)?;

    // The inner step holds the other end of this pipe until it becomes the switch. If it fails, it
    // writes the reason.
    let mut child = step(
        "start the inner confinement",
        Command::new(OWN_EXECUTABLE)
            .args(["confine", "--inner", &text])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn(),
    )?;
    let pid = child.id() as i32;
    let started = Started::identify(pid);
    let mut failure = String::new();
    if let Some(mut output) = child.stdout.take() {
        step(
            "read from the inner confinement",
            output.read_to_string(&mut failure),
        )?;
    }
    match started {
        Some(started) if failure.is_empty() => {
            let text = step("say what was started", serde_json::to_string(&started))?;
            step(
                "say what was started",
                std::io::stdout().write_all(text.as_bytes()),
            )
        }
        Some(_) => Err(failure),
        None => Err(format!("the inner confinement ended at once {failure}")),
    }
}

/// Opens the pipe of the log. With both of its ends in the switch, the pipe lasts as long as the
/// switch, and a switch without a reader gets no error but that the pipe is full.
fn open_log(path: &Path) -> Result<File, String> {
    let what = format!("open {}", path.display());
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(O_NONBLOCK);
    let log = step(&what, options.open(path))?;
    match step(&what, log.metadata())?.file_type().is_fifo() {
        true => Ok(log),
        false => Err(format!("cannot {what}: it is no pipe")),
    }
}

/// Closes descriptors that were inherited from the provisioner's parent, so that no switch holds
/// them. We have opened no file yet.
fn close_inherited() {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The listing's own descriptor is closed already.
        let _ = nix::unistd::close(fd);
    }
}

fn bind(from: &Path, to: &Path, flags: MsFlags) -> Result<(), String> {
    let what = format!("show {} to the switch", from.display());
    let flags = flags | MsFlags::MS_NOSUID;
    step(
        &what,
        mount(
            Some(from),
            to,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        ),
    )?;
    // A bind mount applies its flags only when it is remounted.
    step(
        &what,
        mount(
            None::<&str>,
            to,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags,
            None::<&str>,
        ),
    )
}

fn file_system(kind: &str, at: &Path, flags: MsFlags, options: &str) -> Result<(), String> {
    step(
        &format!("mount {kind} on {}", at.display()),
        mount(
            Some(kind),
            at,
            Some(kind),
            flags | MsFlags::MS_NOSUID,
            Some(options),
        ),
    )
}

/// The switch's whole view: the files of the task (read-only), a few devices, the folder of its
/// socket, and a /tmp of its own. It has no file of another tenant.
fn build_root(task: &Task) -> Result<(), String> {
    let root = &task.root;
    step(
        "keep mounts to the switch",
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_PRIVATE | MsFlags::MS_REC,
            None::<&str>,
        ),
    )?;
    file_system("tmpfs", root, MsFlags::MS_NODEV, "size=64k,mode=755")?;
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let folder = |path: &Path| {
        step(
            &format!("make {} for the switch", path.display()),
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(inside(path)),
        )
    };
    let file = |path: &Path| {
        folder(path.parent().unwrap_or(Path::new("/")))?;
        step(
            &format!("make {} for the switch", path.display()),
            File::create(inside(path)).map(drop),
        )
    };
    for Shown { host, inside: to } in &task.shown {
        let Ok(kind) = fs::symlink_metadata(host) else {
            continue;
        };
        if kind.is_symlink() {
            let target = step("read a link", fs::read_link(host))?;
            step(
                &format!("make {} for the switch", to.display()),
                std::os::unix::fs::symlink(target, inside(to)),
            )?;
            continue;
        }
        if kind.is_dir() {
            folder(to)?;
        } else {
            file(to)?;
        }
        bind(host, &inside(to), MsFlags::MS_RDONLY | MsFlags::MS_NODEV)?;
    }
    let devices = DEVICES.iter().map(PathBuf::from).filter(|_| !task.bare);
    for path in &devices.chain(task.devices.clone()).collect::<Vec<_>>() {
        file(path)?;
        bind(path, &inside(path), MsFlags::MS_NOEXEC)?;
    }
    let run = [(&task.run, &task.run_inside)];
    let folders = task.folders.iter().map(|it| (&it.host, &it.inside));
    for (host, to) in run.into_iter().chain(folders) {
        folder(to)?;
        bind(host, &inside(to), MsFlags::MS_NODEV | MsFlags::MS_NOEXEC)?;
    }
    if task.bare {
        // What becomes the root is entered by way of it.
        return folder(Path::new("/proc"));
    }
    for path in ["/tmp", "/proc", "/sys"].map(Path::new) {
        folder(path)?;
    }
    file_system(
        "tmpfs",
        &inside(Path::new("/tmp")),
        MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        "size=1m,mode=1777",
    )?;
    // Of this network namespace: the switch sees only its own interfaces.
    file_system(
        "sysfs",
        &inside(Path::new("/sys")),
        MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        "",
    )
}

/// `vf-provisioner confine --inner TASK`: drops all privileges and becomes the switch. It returns
/// only on an error.
pub fn inner(text: &str) -> String {
    // Standard output is the pipe to the outer step; this copy closes when the switch takes over.
    let pipe = match std::io::stdout().as_fd().try_clone_to_owned() {
        Ok(pipe) => pipe,
        Err(error) => return format!("cannot keep the pipe: {error}"),
    };
    let message = match prepare(text) {
        Ok(mut switch) => format!("cannot start the switch: {}", switch.exec()),
        Err(message) => message,
    };
    // If the outer step has ended, the log and the exit code show the failure.
    let _ = File::from(pipe).write_all(message.as_bytes());
    message
}

fn prepare(text: &str) -> Result<Command, String> {
    step("open the log", dup2_stdout(std::io::stderr()))?;
    let task: Task = step("read the task", serde_json::from_str(text))?;
    enter_root(&task)?;
    give_up_privileges(&task)?;
    let mut switch = Command::new(&task.program);
    switch.args(&task.arguments).env_clear();
    Ok(switch)
}

fn enter_root(task: &Task) -> Result<(), String> {
    let root = &task.root;
    // pivot_root moves every process of the mount namespace, but the outer step must stay outside.
    step("make a mount namespace", unshare(CloneFlags::CLONE_NEWNS))?;
    file_system(
        "proc",
        &root.join("proc"),
        MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        "hidepid=2",
    )?;
    step("enter its root", chdir(root))?;
    // Stack the old root on the new one, then unmount it (pivot_root(2)).
    step("change the root", pivot_root(".", "."))?;
    step("leave the host's root", umount2(".", MntFlags::MNT_DETACH))?;
    step("enter its root", chdir("/"))?;
    step(
        "close its root",
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID,
            None::<&str>,
        ),
    )?;
    step("set the host name", sethostname(&task.tenant))
}

/// The memory that a device writes to is locked and counts against our limit. Without such a
/// device, a lower limit does no harm.
fn limit_locked_memory(task: &Task) -> Result<(), String> {
    let limit = Limit::RLIMIT_MEMLOCK;
    let most = task.locked_bytes.unwrap_or(RLIM_INFINITY);
    let Err(error) = setrlimit(limit, most, most) else {
        return Ok(());
    };
    let (_, hard) = step("read resource limits", getrlimit(limit))?;
    if task.devices.is_empty() || most <= hard {
        let most = most.min(hard);
        return step("set resource limits", setrlimit(limit, most, most));
    }
    Err(format!(
        "cannot let the switch lock the {} KiB that its devices write to ({error}): the \
         provisioner itself may lock {} KiB and may not raise that. Raise its hard limit (`ulimit \
         -Hl`, LimitMEMLOCK= of a systemd unit), or give it CAP_SYS_RESOURCE",
        most >> 10,
        hard >> 10
    ))
}

fn give_up_privileges(task: &Task) -> Result<(), String> {
    umask(Mode::from_bits_truncate(0o077));
    if let Some(cpu) = task.cpu {
        let mut cores = CpuSet::new();
        step("name its core", cores.set(cpu as usize))?;
        let what = format!("bind it to core {cpu} (see --cpus)");
        step(&what, sched_setaffinity(Pid::from_raw(0), &cores))?;
    }
    for (limit, most) in [
        (Limit::RLIMIT_CORE, 0),
        (Limit::RLIMIT_NOFILE, OPEN_FILES),
        (Limit::RLIMIT_FSIZE, task.file_bytes),
    ] {
        // A container may have set a lower hard limit, which we may not raise.
        let (_, hard) = step("read resource limits", getrlimit(limit))?;
        let most = most.min(hard);
        step("set resource limits", setrlimit(limit, most, most))?;
    }
    limit_locked_memory(task)?;

    let kept: CapsHashSet = task
        .raw_sockets
        .then_some(Capability::CAP_NET_RAW)
        .into_iter()
        .collect();
    for capability in caps::all() {
        if !kept.contains(&capability) {
            step(
                "bound capabilities",
                caps::drop(None, CapSet::Bounding, capability),
            )?;
        }
    }
    let (uid, gid) = (Uid::from_raw(task.uid), Gid::from_raw(task.uid));
    let groups: Vec<Gid> = task.groups.iter().copied().map(Gid::from_raw).collect();
    step("leave groups", setgroups(&groups))?;
    step("keep capabilities", prctl::set_keepcaps(true))?;
    step("change the group", setresgid(gid, gid, gid))?;
    step("change the user", setresuid(uid, uid, uid))?;
    for set in [
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
        CapSet::Ambient,
    ] {
        step("drop capabilities", caps::set(None, set, &kept))?;
    }
    step("forbid new privileges", prctl::set_no_new_privs())
}
