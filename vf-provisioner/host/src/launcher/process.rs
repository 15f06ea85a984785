//! The embedded default: a switch is a process in namespaces of its own.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tenant_config::{Device, Memory, Name, PciAddress, SwitchConfig};

use super::cgroup::Mounts;
use super::confine::{Shown, Started, Task};
use super::{Accounts, Launcher, Running, Seat};
use crate::host::{HostError, hold};
use crate::resource::{Assignment, Cgroup, Directory, Resource, Switch};
use crate::state::{replace, tenant_directory};

/// Where the switch finds its own directory.
const INSIDE: &str = "/run/vswitch";
/// Its control socket, in that directory.
const CONTROL: &str = "control.sock";
/// Where it finds itself.
const PROGRAM: &str = "/vswitch";
/// What a dynamically linked switch reads, beside its own files.
const SYSTEM: [&str; 5] = ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache"];
const READY_WITHIN: Duration = Duration::from_secs(15);
const STOP_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A log that has grown beyond this is cut to its tail when the supervisor looks, and at a start.
const LOG_MAX_BYTES: u64 = 1 << 20;
const LOG_KEPT_BYTES: u64 = 1 << 18;
const TASKS: u32 = 64;

/// How much of the host a switch may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Processor time in percent of one core.
    pub cpu_percent: u32,
    /// Memory beside the packet memory, in MiB.
    pub memory_mib: u32,
    /// Packet memory, in MiB.
    pub packet_memory: Memory,
}

/// The launcher.
#[derive(Debug, Clone)]
pub struct Process {
    /// The state directory.
    pub state_dir: PathBuf,
    /// The switch's executable.
    pub binary: PathBuf,
    /// The prefix of control groups.
    pub instance: String,
    /// What each switch may take.
    pub limits: Limits,
}

/// What is remembered of a started switch, beside what it was started as.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Launched {
    pub(super) switch: Switch,
    pub(super) started: Started,
    pub(super) restarts: u64,
    /// Whether it has come up. One whose starter was killed before that may wait for ever, and counts as not there.
    #[serde(default = "came_up")]
    pub(super) ready: bool,
}

/// Notes of earlier versions do not say.
fn came_up() -> bool {
    true
}

impl Process {
    pub(super) fn directory(&self, tenant: &Name) -> PathBuf {
        tenant_directory(&self.state_dir, tenant)
    }

    pub(super) fn config(&self, tenant: &Name) -> PathBuf {
        self.directory(tenant).join("config.json")
    }

    pub(super) fn launched(&self, tenant: &Name) -> Result<Option<Launched>, HostError> {
        let path = self.directory(tenant).join("process.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(HostError::io(format!("cannot read {}", path.display()))(
                    error,
                ));
            }
        };
        // It is replaced whole, so it is ours or nobody's.
        Ok(serde_json::from_slice(&text).ok())
    }

    pub(super) fn remember(&self, launched: &Launched) -> Result<(), HostError> {
        let path = self.directory(&launched.switch.tenant).join("process.json");
        let what = format!("cannot write {}", path.display());
        let text = serde_json::to_vec_pretty(launched)
            .map_err(|error| HostError::io(&what)(error.into()))?;
        replace(&path, &text, 0o600).map_err(HostError::io(what))
    }

    pub(super) fn mounts(&self) -> Result<Mounts, HostError> {
        Mounts::find().map_err(|message| HostError::Io {
            what: message,
            source: ErrorKind::NotFound.into(),
        })
    }

    pub(super) fn restarts(&self, tenant: &Name) -> Result<u64, HostError> {
        let launched = self.launched(tenant)?;
        Ok(launched.map_or(0, |launched| launched.restarts))
    }

    fn launch(&self, switch: &Switch, restarts: u64) -> Result<(), HostError> {
        let tenant = &switch.tenant;
        let mounts = self.mounts()?;
        // What a crash between start and note may have left.
        mounts.empty(&switch.cgroup, STOP_WITHIN)?;
        self.clear_run(tenant, CONTROL)?;
        self.trim_log(tenant)?;
        self.write_config(switch)?;
        let directory = self.directory(tenant);
        let task = Task {
            tenant: tenant.to_string(),
            namespace: crate::nic::netlink::path(&switch.namespace),
            cgroups: mounts.joins(&switch.cgroup),
            uid: switch.uid,
            root: directory.join("root"),
            program: PathBuf::from(PROGRAM),
            arguments: arguments(switch),
            shown: SYSTEM
                .into_iter()
                .map(Shown::same)
                .chain([
                    Shown {
                        host: switch.binary.clone(),
                        inside: PathBuf::from(PROGRAM),
                    },
                    Shown {
                        host: self.config(tenant),
                        inside: config_inside(),
                    },
                ])
                .collect(),
            devices: give_nodes(switch, functions(&switch.config))?,
            run: directory.join("run"),
            run_inside: PathBuf::from(INSIDE),
            log: directory.join("log"),
            // It drops the capability before it takes the first frame.
            raw_sockets: opens_raw_sockets(&switch.config),
            groups: Vec::new(),
            // The switch binds its own worker.
            cpu: None,
            locked_bytes: Some(locked_bytes(switch.config.memory)),
        };
        let started = task.start().map_err(|message| HostError::NotReady {
            tenant: tenant.clone(),
            message,
        })?;
        let mut launched = Launched {
            switch: switch.clone(),
            started,
            restarts,
            ready: false,
        };
        self.remember(&launched)?;
        self.wait_until_ready(switch, &started)?;
        launched.ready = true;
        self.remember(&launched)
    }

    fn wait_until_ready(&self, switch: &Switch, started: &Started) -> Result<(), HostError> {
        let not_ready = |message: String| HostError::NotReady {
            tenant: switch.tenant.clone(),
            message: format!("{message}{}", self.tail(&switch.tenant)),
        };
        let began = Instant::now();
        loop {
            let last = match self.ask(switch) {
                Ok(_) => return Ok(()),
                Err(message) => message,
            };
            if !started.is_alive() {
                return Err(not_ready("it ended".to_owned()));
            }
            if began.elapsed() > READY_WITHIN {
                return Err(not_ready(format!(
                    "its control API did not answer within {} s ({last})",
                    READY_WITHIN.as_secs()
                )));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What the switch says of its ports.
    pub(super) fn ask(&self, switch: &Switch) -> Result<Vec<u8>, String> {
        self.command(switch, &["show", "ports", "--json"], None)
    }

    /// Speaks to the control API through its one client, the switch's own command line. The socket's folder
    /// is the switch's: a link in the socket's place leads nowhere.
    fn command(
        &self,
        switch: &Switch,
        arguments: &[&str],
        file: Option<&Path>,
    ) -> Result<Vec<u8>, String> {
        let socket = self.control_socket(&switch.tenant);
        let (_file, held) = hold(&socket).map_err(|error| match error.kind() {
            ErrorKind::NotFound => format!("{} is not there", socket.display()),
            _ => format!("{}: {error}", socket.display()),
        })?;
        let mut command = Command::new(&switch.binary);
        command.args(arguments).args(file);
        if let Some(machine) = &switch.machine {
            let seconds = super::vm::settings::answers_within(machine.accel).as_secs();
            command.args(["--timeout", &seconds.to_string()]);
        }
        let output = command
            .arg("--control")
            .arg(&held)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("cannot run {}: {error}", switch.binary.display()))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            if message.trim().is_empty() {
                return Err(format!(
                    "{} ended without a word ({})",
                    switch.binary.display(),
                    output.status
                ));
            }
            let (held, socket) = (held.display().to_string(), socket.display().to_string());
            return Err(message.trim().replace(&held, &socket));
        }
        Ok(output.stdout)
    }

    /// The last lines of the log, for an error.
    pub(super) fn tail(&self, tenant: &Name) -> String {
        let path = self.log(tenant);
        let last = File::open(&path)
            .and_then(last_lines)
            .unwrap_or_default()
            .join(" | ");
        if last.is_empty() {
            format!("; its log {} is empty", path.display())
        } else {
            format!("; its log {} ends: {last}", path.display())
        }
    }

    /// Makes way for a socket: one of a dead switch answers nobody. The folder is the switch's, so anything
    /// may be there in its place; what a link leads to is left alone.
    pub(super) fn clear_run(&self, tenant: &Name, socket: &str) -> Result<(), HostError> {
        let socket = self.directory(tenant).join("run").join(socket);
        let removed = match fs::remove_file(&socket) {
            Err(error) if error.kind() == ErrorKind::IsADirectory => fs::remove_dir_all(&socket),
            removed => removed,
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(HostError::io(format!("cannot remove {}", socket.display()))(error))
            }
            _ => Ok(()),
        }
    }

    /// What runs, with the configuration it was last given; or the one its file has now, if only
    /// that is not as wanted. A file that nobody can read differs from any.
    pub(super) fn observe_switch(&self, wanted: &Switch) -> Result<Option<Switch>, HostError> {
        let Some(mut launched) = self.launched(&wanted.tenant)? else {
            return Ok(None);
        };
        if !launched.ready || !launched.started.is_alive() {
            return Ok(None);
        }
        // A crash between writing the file and giving it to the switch leaves it ahead of the note.
        if launched.switch.config == wanted.config {
            let path = self.config(&wanted.tenant);
            let text = fs::read(&path).unwrap_or_default();
            match serde_json::from_slice(&text) {
                Ok(config) => launched.switch.config = config,
                Err(_) => launched.switch.config.ports.clear(),
            }
        }
        Ok(Some(launched.switch))
    }

    /// Gives a running switch another configuration without losing a frame. One that does not take it
    /// (another MTU, say) says why, and must be started again.
    pub(super) fn reload(&self, switch: &Switch) -> Result<Result<(), String>, HostError> {
        let launched = self.launched(&switch.tenant)?;
        self.write_config(switch)?;
        let config = self.config(&switch.tenant);
        let reload = self.command(switch, &["reload", "--config"], Some(&config));
        match (reload, launched) {
            (Ok(_), Some(launched)) => {
                self.remember(&Launched {
                    switch: switch.clone(),
                    ..launched
                })?;
                Ok(Ok(()))
            }
            (reload, _) => Ok(Err(reload.err().unwrap_or_default())),
        }
    }

    fn reconfigure(&self, switch: &Switch) -> Result<(), HostError> {
        let Err(why) = self.reload(switch)? else {
            return Ok(());
        };
        tracing::warn!(tenant = %switch.tenant, %why, "restarted instead of reloaded");
        self.stop(switch)?;
        self.launch(switch, 0)
    }

    fn stop(&self, switch: &Switch) -> Result<(), HostError> {
        if let Some(pidfd) = self.pidfd(&switch.tenant)? {
            // It may have ended meanwhile.
            let _ = pidfd_send_signal(&pidfd, rustix::process::Signal::TERM);
            let began = Instant::now();
            while began.elapsed() < STOP_WITHIN && self.pidfd(&switch.tenant)?.is_some() {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        self.mounts()?.empty(&switch.cgroup, STOP_WITHIN)?;
        // The running one may have had other devices than the one that is wanted.
        if let Some(launched) = self.launched(&switch.tenant)? {
            take_nodes_back(functions(&launched.switch.config));
        }
        take_nodes_back(functions(&switch.config));
        self.forget(&switch.tenant)
    }

    /// Removes what is remembered of a switch that has ended.
    pub(super) fn forget(&self, tenant: &Name) -> Result<(), HostError> {
        self.clear_run(tenant, CONTROL)?;
        let path = self.directory(tenant).join("process.json");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(HostError::io(format!(
                "cannot remove {}",
                path.display()
            ))(error)),
            _ => Ok(()),
        }
    }

    fn set_directory(&self, wanted: &Directory) -> Result<(), HostError> {
        let at = self.directory(&wanted.tenant);
        let what = || format!("cannot make the tenant's directory {}", at.display());
        for (part, mode) in [("", 0o700), ("run", 0o700), ("root", 0o755)] {
            let path = at.join(part);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
                .map_err(HostError::io(what()))?;
        }
        chown(at.join("run"), Some(wanted.uid), Some(wanted.uid)).map_err(HostError::io(what()))?;
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(at.join("log"))
            .map_err(HostError::io(what()))?;
        Ok(())
    }

    /// Writes what the switch is given; only root and the switch may read it.
    pub(super) fn write_config(&self, switch: &Switch) -> Result<(), HostError> {
        let path = self.config(&switch.tenant);
        let what = format!("cannot write {}", path.display());
        let text = serde_json::to_vec_pretty(&switch.config)
            .map_err(|error| HostError::io(&what)(error.into()))?;
        replace(&path, &text, 0o440)
            .and_then(|()| chown(&path, Some(0), Some(switch.uid)))
            .map_err(HostError::io(what))
    }

    fn observe_directory(&self, wanted: &Directory) -> Result<Option<Directory>, HostError> {
        let at = self.directory(&wanted.tenant);
        let Ok(run) = fs::metadata(at.join("run")) else {
            return Ok(None);
        };
        let private = |path: &Path| {
            fs::metadata(path).is_ok_and(|meta| meta.uid() == 0 && meta.mode() & 0o077 == 0)
        };
        let right = private(&at) && run.mode() & 0o777 == 0o700 && run.uid() == run.gid();
        Ok(Some(Directory {
            tenant: wanted.tenant.clone(),
            uid: if right { run.uid() } else { u32::MAX },
        }))
    }
}

/// The last lines of a log, however long it is. The switch wrote them, and an operator's terminal is to show
/// them: so without control characters.
fn last_lines(mut log: impl Read + Seek) -> std::io::Result<Vec<String>> {
    const BYTES: u64 = 2000;
    const LINES: usize = 5;
    let length = log.seek(SeekFrom::End(0))?;
    log.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
    let mut text = Vec::new();
    log.take(BYTES).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines[lines.len().saturating_sub(LINES)..].iter();
    Ok(shown
        .map(|line| line.replace(char::is_control, "?"))
        .collect())
}

fn opens_raw_sockets(config: &SwitchConfig) -> bool {
    config
        .devices()
        .any(|side| matches!(side.device, Device::AfPacket { .. } | Device::AfXdp { .. }))
}

/// The PCI functions of a switch.
fn functions(config: &SwitchConfig) -> impl Iterator<Item = PciAddress> {
    config.devices().filter_map(|side| match side.device {
        Device::Pci { address, .. } => Some(*address),
        _ => None,
    })
}

/// The node of the function's IOMMU group.
fn vfio_node(address: PciAddress) -> std::io::Result<PathBuf> {
    let group = fs::read_link(format!("/sys/bus/pci/devices/{address}/iommu_group"))?;
    let group = group.file_name().ok_or(ErrorKind::InvalidData)?;
    Ok(Path::new("/dev/vfio").join(group))
}

/// Makes the switch's user the owner of the vfio groups of its functions; the nodes it needs.
pub(super) fn give_nodes(
    switch: &Switch,
    functions: impl Iterator<Item = PciAddress>,
) -> Result<Vec<PathBuf>, HostError> {
    let mut nodes = Vec::new();
    for address in functions {
        let node = vfio_node(address).map_err(HostError::io(format!(
            "PCI function {address} of tenant {} has no IOMMU group; is it there, and an IOMMU on?",
            switch.tenant
        )))?;
        let what = format!(
            "cannot give {} (PCI function {address}) to user {}; is the function bound to vfio-pci?",
            node.display(),
            switch.uid
        );
        chown(&node, Some(switch.uid), Some(0)).map_err(HostError::io(what))?;
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    if !nodes.is_empty() {
        // Open to all: it does nothing without a group.
        nodes.push(PathBuf::from("/dev/vfio/vfio"));
    }
    Ok(nodes)
}

/// Makes root their owner again. A function that was unbound meanwhile has no node any more.
pub(super) fn take_nodes_back(functions: impl Iterator<Item = PciAddress>) {
    for node in functions.filter_map(|address| vfio_node(address).ok()) {
        if let Err(error) = chown(&node, Some(0), Some(0))
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(node = %node.display(), %error, "still belongs to the switch's user");
        }
    }
}

/// What a switch's packet memory comes to, in whole pages.
fn locked_bytes(memory: Memory) -> u64 {
    let bytes = u64::from(memory.mib) << 20;
    if !memory.hugepages {
        return bytes;
    }
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let page = meminfo
        .lines()
        .find_map(|line| {
            line.strip_prefix("Hugepagesize:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .map_or(2 << 20, |kib: u64| kib << 10);
    bytes.next_multiple_of(page)
}

fn config_inside() -> PathBuf {
    Path::new(INSIDE).with_extension("json")
}

fn arguments(switch: &Switch) -> Vec<String> {
    let mut arguments = vec![
        "run".to_owned(),
        "--config".to_owned(),
        config_inside().display().to_string(),
    ];
    if let Some(cpu) = switch.cpu {
        arguments.extend(["--cpu".to_owned(), cpu.to_string()]);
    }
    arguments
}

impl Launcher for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn control_socket_inside(&self) -> PathBuf {
        Path::new(INSIDE).join(CONTROL)
    }

    fn control_socket(&self, tenant: &Name) -> PathBuf {
        self.directory(tenant).join("run").join(CONTROL)
    }

    fn inside(&self, devices: &Assignment) -> Assignment {
        devices.clone()
    }

    fn memory(&self) -> Memory {
        self.limits.packet_memory
    }

    fn resources(&self, config: &SwitchConfig, seat: &Seat) -> Vec<Resource> {
        let cgroup = format!("{}/{}", self.instance, config.tenant);
        vec![
            Resource::Directory(Directory {
                tenant: config.tenant.clone(),
                uid: seat.uid,
            }),
            Resource::Cgroup(Cgroup {
                path: cgroup.clone(),
                cpu_percent: self.limits.cpu_percent,
                memory_mib: self.limits.memory_mib + config.memory.mib,
                tasks: TASKS,
            }),
            Resource::Switch(Switch {
                tenant: config.tenant.clone(),
                uid: seat.uid,
                namespace: seat.namespace.clone(),
                cgroup,
                binary: self.binary.clone(),
                cpu: seat.cpu,
                config: config.clone(),
                machine: None,
                needs: seat.needs.clone(),
            }),
        ]
    }

    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError> {
        Ok(match wanted {
            Resource::Directory(directory) => {
                self.observe_directory(directory)?.map(Resource::Directory)
            }
            Resource::Cgroup(group) => self.mounts()?.observe(group)?.map(Resource::Cgroup),
            Resource::Switch(switch) => self.observe_switch(switch)?.map(Resource::Switch),
            _ => return Err(HostError::Unsupported(wanted.key())),
        })
    }

    fn create(&mut self, resource: &Resource) -> Result<(), HostError> {
        match resource {
            Resource::Directory(directory) => self.set_directory(directory),
            Resource::Cgroup(group) => self.mounts()?.set(group),
            Resource::Switch(switch) => self.launch(switch, 0),
            _ => Err(HostError::Unsupported(resource.key())),
        }
    }

    fn update(&mut self, _: &Resource, to: &Resource) -> Result<(), HostError> {
        match to {
            Resource::Directory(_) | Resource::Cgroup(_) => self.create(to),
            Resource::Switch(switch) => self.reconfigure(switch),
            _ => Err(HostError::Unsupported(to.key())),
        }
    }

    fn delete(&mut self, resource: &Resource) -> Result<(), HostError> {
        match resource {
            Resource::Directory(directory) => {
                let path = self.directory(&directory.tenant);
                match fs::remove_dir_all(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        Err(HostError::io(format!("cannot remove {}", path.display()))(
                            error,
                        ))
                    }
                    _ => Ok(()),
                }
            }
            Resource::Cgroup(group) => {
                let mounts = self.mounts()?;
                mounts.empty(&group.path, STOP_WITHIN)?;
                mounts.delete(&group.path)
            }
            Resource::Switch(switch) => self.stop(switch),
            _ => Err(HostError::Unsupported(resource.key())),
        }
    }

    fn running(&self, tenant: &Name) -> Result<Option<Running>, HostError> {
        let launched = self.launched(tenant)?;
        Ok(launched.and_then(|launched| {
            let usage = launched.started.usage()?;
            Some(Running {
                pid: launched.started.pid,
                start_ticks: launched.started.start_ticks,
                uptime_s: usage.uptime_s,
                restarts: launched.restarts,
                cpu_s: usage.cpu_s,
                memory_bytes: usage.memory_bytes,
            })
        }))
    }

    fn pidfd(&self, tenant: &Name) -> Result<Option<OwnedFd>, HostError> {
        let Some(launched) = self.launched(tenant)? else {
            return Ok(None);
        };
        let Some(pid) = rustix::process::Pid::from_raw(launched.started.pid) else {
            return Ok(None);
        };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(None);
        };
        // Only once the descriptor is held does the number belong to one process.
        Ok((launched.ready && launched.started.is_alive()).then_some(pidfd))
    }

    fn stuck(&self, _: &Switch) -> Option<String> {
        None
    }

    fn restart(&mut self, switch: &Switch) -> Result<(), HostError> {
        let restarts = self.restarts(&switch.tenant)?;
        self.launch(switch, restarts + 1)
    }

    fn accounts(&self, switch: &Switch) -> Option<Accounts> {
        let counted = self.mounts().ok()?.accounts(&switch.cgroup);
        // libvirt has its own groups: then it is what the process says of itself.
        counted.or_else(|| self.launched(&switch.tenant).ok()??.started.accounts())
    }

    fn ports(&self, switch: &Switch) -> Option<serde_json::Value> {
        let text = self.ask(switch).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn log(&self, tenant: &Name) -> PathBuf {
        self.directory(tenant).join("log")
    }

    fn trim_log(&self, tenant: &Name) -> Result<(), HostError> {
        let path = self.log(tenant);
        let what = || format!("cannot trim {}", path.display());
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(HostError::io(what())(error)),
        };
        let mut trim = || {
            let length = file.metadata()?.len();
            if length <= LOG_MAX_BYTES {
                return Ok(());
            }
            let mut tail = Vec::new();
            file.seek(SeekFrom::Start(length - LOG_KEPT_BYTES))?;
            file.by_ref().take(LOG_KEPT_BYTES).read_to_end(&mut tail)?;
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            std::io::Write::write_all(&mut file, &tail)
        };
        trim().map_err(HostError::io(what()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn whatever_a_switch_has_put_in_the_place_of_its_socket_makes_way() {
        let state_dir = tempfile::tempdir().expect("a temporary directory");
        let process = Process {
            state_dir: state_dir.path().to_owned(),
            binary: PathBuf::new(),
            instance: "test".to_owned(),
            limits: Limits {
                cpu_percent: 100,
                memory_mib: 1,
                packet_memory: Memory::default(),
            },
        };
        let tenant: Name = "red".parse().expect("a name");
        let socket = process.control_socket(&tenant);
        let others = state_dir.path().join("others");
        fs::create_dir_all(socket.parent().expect("a folder")).expect("it is made");
        fs::create_dir(&others).expect("it is made");
        fs::write(others.join("file"), "theirs").expect("it is written");

        process
            .clear_run(&tenant, CONTROL)
            .expect("nothing is there");
        fs::write(&socket, "").expect("it is written");
        process.clear_run(&tenant, CONTROL).expect("a file goes");
        std::os::unix::fs::symlink(&others, &socket).expect("it is made");
        process.clear_run(&tenant, CONTROL).expect("a link goes");
        fs::create_dir(&socket).expect("it is made");
        std::os::unix::fs::symlink(&others, socket.join("link")).expect("it is made");
        process.clear_run(&tenant, CONTROL).expect("a folder goes");
        assert!(fs::symlink_metadata(&socket).is_err());
        assert!(others.join("file").exists());
    }

    #[test]
    fn of_a_log_the_end_is_shown_and_nothing_that_moves_a_terminal() {
        let lines = |text: &[u8]| last_lines(Cursor::new(text)).expect("it is read");
        assert_eq!(lines(b""), Vec::<String>::new());
        assert_eq!(lines(b"1\n2\n3\n4\n5\n6\n"), ["2", "3", "4", "5", "6"]);
        assert_eq!(
            lines(b"\x1b[2Jall is well\x07\xff"),
            ["?[2Jall is well?\u{fffd}"]
        );
        let long = vec![b'x'; 1 << 20];
        assert_eq!(lines(&long), ["x".repeat(2000)]);
    }
}
