//! A switch in a virtual machine of its own: one QEMU per tenant, confined like a switch that is a process.

mod image;
mod qemu;
mod qmp;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{RLIM_INFINITY, Resource as Limit, getrlimit};
use tenant_config::{Device, Memory, Name, PciAddress, SwitchConfig};

pub use image::Image;
use qmp::Monitor;

use super::confine::{Shown, Started, Task};
use super::process::{Launched, Process, give_nodes, take_nodes_back};
use super::{Launcher, Seat};
use crate::host::HostError;
use crate::nic::netlink;
use crate::resource::{Accel, Assignment, End, Function, Machine, Manager, Resource, Switch, Tap};

/// The oldest QEMU whose options are used here: Debian 12's.
const OLDEST: (u32, u32) = (7, 2);
/// Until its sockets are there.
const START_WITHIN: Duration = Duration::from_secs(20);
/// Until its switch answers. Under TCG in a machine that is itself translated a kernel takes minutes.
const BOOT_WITHIN: [(Accel, Duration); 2] = [
    (Accel::Kvm, Duration::from_secs(60)),
    (Accel::Tcg, Duration::from_secs(900)),
];
/// Until it has switched itself off, and then until QEMU has ended.
const STOP_WITHIN: Duration = Duration::from_secs(10);
const QUIT_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const TELL_EVERY: Duration = Duration::from_secs(5);
/// The longest name of an interface, in bytes.
const INTERFACE_MAX: usize = 15;
const SOCKETS: [&str; 3] = [qemu::CONTROL, qemu::CONFIG, qemu::MONITOR];

/// What new machines are like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Who starts them.
    pub manager: Manager,
    /// QEMU's executable.
    pub qemu: PathBuf,
    /// What they boot.
    pub image: Image,
    /// What executes them.
    pub accel: Accel,
    /// Their memory in MiB.
    pub memory_mib: u32,
    /// Whether that is taken from the host's hugepages.
    pub hugepages: bool,
}

impl Settings {
    /// Looks at what this host has; `accel` is what was asked for, if anything was.
    pub fn find(
        manager: Manager,
        image: &Path,
        accel: Option<Accel>,
        memory_mib: u32,
        hugepages: bool,
    ) -> Result<Self, String> {
        let qemu = find_qemu()?;
        let settings = Self {
            manager,
            qemu,
            image: Image::open(image)?,
            accel: choose(accel, kvm())?,
            memory_mib,
            hugepages,
        };
        Ok(settings)
    }
}

/// QEMU in PATH, if it is young enough.
fn find_qemu() -> Result<PathBuf, String> {
    const NAME: &str = "qemu-system-x86_64";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .map(|dir| dir.join(NAME))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            format!("there is no {NAME} in PATH: install the package qemu-system-x86")
        })?;
    let output = Command::new(&program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} does not start: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (major, minor) = OLDEST;
    match version(&text) {
        Some(version) if version >= OLDEST => Ok(program),
        Some((is_major, is_minor)) => Err(format!(
            "{} is version {is_major}.{is_minor}: install {major}.{minor} or a later one",
            program.display()
        )),
        None => Err(format!(
            "{} --version says {:?}, and no version of QEMU: install the package qemu-system-x86",
            program.display(),
            text.lines().next().unwrap_or_default()
        )),
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let rest = text.split_once(" version ")?.1;
    let mut parts = rest.split(|at: char| !at.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Why the processor cannot execute machines here, if it cannot.
fn kvm() -> Result<(), String> {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = flags.lines().find(|line| line.starts_with("flags"));
    let can = flags.is_some_and(|line| {
        line.split_whitespace()
            .any(|flag| flag == "vmx" || flag == "svm")
    });
    if !can {
        return Err("the processor has neither vmx nor svm: switch virtualization on in the firmware, or in the settings of the machine that this one is".to_owned());
    }
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "cannot open /dev/kvm ({error}): `modprobe kvm_intel` or `modprobe kvm_amd`, as root"
        )),
    }
}

fn choose(asked: Option<Accel>, kvm: Result<(), String>) -> Result<Accel, String> {
    match (asked, kvm) {
        (Some(Accel::Tcg), _) | (None, Err(_)) => Ok(Accel::Tcg),
        (Some(Accel::Kvm) | None, Ok(())) => Ok(Accel::Kvm),
        (Some(Accel::Kvm), Err(why)) => Err(format!(
            "--accel kvm: {why}; or take --accel tcg, which is slow"
        )),
    }
}

/// The tap that stands beside `interface`.
fn tap_name(interface: &str) -> String {
    let mut name = format!("vm-{}", interface.trim_start_matches("gw-"));
    name.truncate(INTERFACE_MAX);
    name
}

/// The devices as the machine sees them.
pub(super) fn inside(devices: &Assignment) -> Assignment {
    let place = |number: usize, device: &Device| {
        let (slot, part) = qemu::place(number);
        let address: Option<PciAddress> = format!("0000:00:{slot:02x}.{part:x}").parse().ok();
        let vlan = match device {
            Device::Pci { vlan, .. } => *vlan,
            _ => None,
        };
        address.map_or(device.clone(), |address| Device::Pci { address, vlan })
    };
    let number = devices.ports.len();
    let ports = devices.ports.iter().enumerate();
    Assignment {
        ports: ports
            .map(|(number, device)| place(number, device))
            .collect(),
        uplink: devices.uplink.as_ref().map(|device| place(number, device)),
        guests: devices.guests.clone(),
    }
}

/// The machine's packet memory: in its own memory, all of which it has to itself, in large pages.
pub(super) fn memory(packet_memory: Memory) -> Memory {
    Memory {
        hugepages: true,
        ..packet_memory
    }
}

/// Everything that must be there for a switch to run with `config` in `seat`, as a machine.
pub(super) fn resources(
    base: &Process,
    settings: &Settings,
    config: &SwitchConfig,
    seat: &Seat,
) -> Vec<Resource> {
    let mut resources = base.resources(config, seat);
    let ports = config
        .ports
        .iter()
        .map(|port| (port.gateway_mac, port.mtu, port.name.to_string()));
    let uplink = config
        .uplink
        .iter()
        .map(|uplink| (uplink.mac, uplink.mtu, "In/Out".to_owned()));
    let devices = seat.devices.ports.iter().chain(&seat.devices.uplink);
    let mut taps = Vec::new();
    let mut functions = Vec::new();
    for (device, (mac, mtu, what)) in devices.zip(ports.chain(uplink)) {
        match device {
            Device::Pci { address, vlan } => functions.push(Function::Vf {
                address: *address,
                mac,
                vlan: *vlan,
            }),
            Device::AfPacket { interface } | Device::AfXdp { interface } => {
                let tap = tap_name(interface);
                taps.push(Resource::Tap(Tap {
                    end: End {
                        namespace: Some(seat.namespace.clone()),
                        interface: tap.clone(),
                        mac: None,
                        mtu: mtu.into(),
                        up: true,
                        arp: false,
                        ipv6: false,
                        offloads: false,
                        alias: format!("{}/{what} VM", config.tenant),
                        bridge: None,
                    },
                    owner: seat.uid,
                    wire: Some(interface.clone()),
                    needs: seat.needs.clone(),
                }));
                functions.push(Function::Tap {
                    interface: tap,
                    mac,
                });
            }
            _ => {}
        }
    }
    for resource in &mut resources {
        match resource {
            Resource::Cgroup(group) => {
                // The switch's packet memory is in the machine's.
                group.memory_mib = group.memory_mib - config.memory.mib + settings.memory_mib;
            }
            Resource::Switch(switch) => {
                switch.needs.extend(taps.iter().map(Resource::key));
                switch.machine = Some(Box::new(Machine {
                    manager: settings.manager,
                    qemu: settings.qemu.clone(),
                    image: settings.image.dir.clone(),
                    image_sha256: settings.image.sha256.clone(),
                    accel: settings.accel,
                    memory_mib: settings.memory_mib,
                    hugepages: settings.hugepages,
                    functions: std::mem::take(&mut functions),
                }));
            }
            _ => {}
        }
    }
    taps.extend(resources);
    taps
}

/// The verbs on machines and their taps. Directory, control group and notes are as for a process.
#[derive(Debug)]
pub(super) struct Vm<'a> {
    pub(super) base: &'a Process,
}

impl Vm<'_> {
    fn socket(&self, tenant: &Name, name: &str) -> PathBuf {
        let socket = self.base.control_socket(tenant);
        socket.with_file_name(format!("{name}.sock"))
    }

    /// Starts the machine and waits until its switch answers.
    pub(super) fn launch(
        &self,
        switch: &Switch,
        machine: &Machine,
        restarts: u64,
    ) -> Result<(), HostError> {
        let tenant = &switch.tenant;
        let not_ready = |message| HostError::NotReady {
            tenant: tenant.clone(),
            message,
        };
        let image = Image::open(&machine.image).map_err(not_ready)?;
        if image.sha256 != machine.image_sha256 {
            return Err(not_ready(format!(
                "the image in {} is not the one it was set up with: apply the tenant's file again",
                machine.image.display()
            )));
        }
        enough(machine).map_err(not_ready)?;
        let mounts = self.base.mounts()?;
        // What a crash between start and note may have left.
        mounts.empty(&switch.cgroup, STOP_WITHIN)?;
        for name in SOCKETS {
            self.base.clear_run(tenant, &format!("{name}.sock"))?;
        }
        self.base.trim_log(tenant)?;
        self.base.write_config(switch)?;
        let control = self.base.control_socket(tenant);
        let run = control.parent().unwrap_or(Path::new("/"));
        let mut shown: Vec<Shown> = qemu::reads(machine).into_iter().map(Shown::same).collect();
        shown.push(Shown {
            host: machine.image.clone(),
            inside: PathBuf::from(qemu::IMAGE),
        });
        let task = Task {
            tenant: tenant.to_string(),
            namespace: netlink::path(&switch.namespace),
            cgroups: mounts.joins(&switch.cgroup),
            uid: switch.uid,
            root: run.with_file_name("root"),
            program: machine.qemu.clone(),
            arguments: qemu::arguments(tenant.as_str(), machine),
            shown,
            devices: devices(switch, machine)?,
            run: run.to_owned(),
            run_inside: PathBuf::from(qemu::RUN),
            log: self.base.log(tenant),
            raw_sockets: false,
            groups: groups(machine),
            cpu: switch.cpu,
            locked_bytes: if qemu::has_vf(machine) { None } else { Some(0) },
        };
        let started = task.start().map_err(not_ready)?;
        self.base.remember(&Launched {
            switch: switch.clone(),
            started,
            restarts,
        })?;
        self.boot(switch, machine, &started)
            .map_err(|message| not_ready(format!("{message}{}", self.base.tail(tenant))))
    }

    /// Brings a started machine to the point where its switch answers.
    fn boot(&self, switch: &Switch, machine: &Machine, started: &Started) -> Result<(), String> {
        let tenant = &switch.tenant;
        let began = Instant::now();
        let patience = BOOT_WITHIN
            .into_iter()
            .find_map(|(accel, patience)| (accel == machine.accel).then_some(patience))
            .unwrap_or_default();
        let alive = || {
            if started.is_alive() {
                Ok(())
            } else {
                Err("its machine ended".to_owned())
            }
        };
        let mut monitor = loop {
            alive()?;
            match Monitor::connect(&self.socket(tenant, qemu::MONITOR)) {
                Ok(monitor) => break monitor,
                Err(error) if began.elapsed() > START_WITHIN => {
                    return Err(format!("QEMU's monitor does not answer: {error}"));
                }
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        };
        let mut config = qmp::connect(&self.socket(tenant, qemu::CONFIG)).map_err(|error| {
            format!("cannot connect to the channel for its configuration: {error}")
        })?;
        let text = serde_json::to_vec(&switch.config).map_err(|error| error.to_string())?;
        let mut message = format!("{}\n", text.len()).into_bytes();
        message.extend(text);
        let mut sent = 0;
        let mut told = Instant::now();
        loop {
            alive()?;
            if let Some(why) = monitor
                .stuck()
                .map_err(|error| format!("QEMU's monitor: {error}"))?
            {
                return Err(why);
            }
            // The machine takes it when it has come that far; until then the socket's buffer fills.
            while sent < message.len() {
                match config.write(&message[sent..]) {
                    Ok(written) => sent += written,
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::WouldBlock | ErrorKind::Interrupted
                        ) =>
                    {
                        break;
                    }
                    Err(error) => return Err(format!("cannot send its configuration: {error}")),
                }
            }
            let mut last = "it has not opened the channel of its control API".to_owned();
            if sent == message.len() && monitor.is_open(qemu::CONTROL).unwrap_or(false) {
                match self.base.ask(switch) {
                    Ok(_) => {
                        let seconds = began.elapsed().as_secs_f64();
                        tracing::info!(%tenant, seconds, "the machine has booted and its switch answers");
                        return Ok(());
                    }
                    Err(message) => last = message,
                }
            }
            if began.elapsed() > patience {
                return Err(format!(
                    "its control API did not answer within {} s ({last})",
                    patience.as_secs()
                ));
            }
            if told.elapsed() > TELL_EVERY {
                told = Instant::now();
                let seconds = began.elapsed().as_secs();
                tracing::info!(%tenant, seconds, %last, "waiting for the machine to boot");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Stops the machine: by its own hand, else by QEMU's, else by the kernel's.
    pub(super) fn stop(&self, switch: &Switch) -> Result<(), HostError> {
        let tenant = &switch.tenant;
        let ends_within = |patience: Duration| -> Result<bool, HostError> {
            let began = Instant::now();
            while self.base.pidfd(tenant)?.is_some() {
                if began.elapsed() > patience {
                    return Ok(false);
                }
                std::thread::sleep(LOOK_EVERY);
            }
            Ok(true)
        };
        let mut ended = self.base.pidfd(tenant)?.is_none();
        if !ended && let Ok(mut monitor) = Monitor::connect(&self.socket(tenant, qemu::MONITOR)) {
            let listens = monitor.is_open(qemu::CONFIG).unwrap_or(false);
            if listens && let Ok(mut config) = qmp::connect(&self.socket(tenant, qemu::CONFIG)) {
                // It may be gone by now.
                let _ = config.write_all(b"stop\n");
                ended = ends_within(STOP_WITHIN)?;
            }
            if !ended {
                let _ = monitor.execute("quit");
                ends_within(QUIT_WITHIN)?;
            }
        }
        self.base.mounts()?.empty(&switch.cgroup, QUIT_WITHIN)?;
        // The running one may have had other functions than the one that is wanted.
        let launched = self.base.launched(tenant)?.map(|launched| launched.switch);
        for switch in launched.iter().chain([switch]) {
            take_nodes_back(switch.machine.iter().flat_map(|machine| passed(machine)));
        }
        for name in SOCKETS {
            self.base.clear_run(tenant, &format!("{name}.sock"))?;
        }
        self.base.forget(tenant)
    }

    pub(super) fn reconfigure(&self, switch: &Switch, machine: &Machine) -> Result<(), HostError> {
        let Err(why) = self.base.reload(switch)? else {
            return Ok(());
        };
        tracing::warn!(tenant = %switch.tenant, %why, "restarted instead of reloaded");
        self.stop(switch)?;
        self.launch(switch, machine, 0)
    }

    /// Why a machine that is there executes nothing. One whose monitor is another's for the moment is
    /// taken to be well.
    pub(super) fn stuck(&self, tenant: &Name) -> Option<String> {
        let mut monitor = Monitor::connect(&self.socket(tenant, qemu::MONITOR)).ok()?;
        monitor.stuck().ok().flatten()
    }
}

/// Whether the host has what the machine takes at once.
fn enough(machine: &Machine) -> Result<(), String> {
    if machine.hugepages {
        let text = fs::read_to_string("/proc/meminfo")
            .map_err(|error| format!("cannot read /proc/meminfo: {error}"))?;
        enough_hugepages(machine.memory_mib, &text)?;
    }
    if qemu::has_vf(machine) {
        let (_, hard) = getrlimit(Limit::RLIMIT_MEMLOCK)
            .map_err(|error| format!("cannot read the memlock limit: {error}"))?;
        let may = caps::has_cap(
            None,
            caps::CapSet::Effective,
            caps::Capability::CAP_SYS_RESOURCE,
        );
        // Root raises it, unless a container keeps it from doing so.
        if hard != RLIM_INFINITY && !may.unwrap_or(false) {
            return Err(format!(
                "its {} MiB must be locked in memory for the NIC's functions, and the memlock limit is {} MiB: raise it (`ulimit -Hl unlimited`, or LimitMEMLOCK=infinity in the unit), or give the container CAP_SYS_RESOURCE",
                machine.memory_mib,
                hard >> 20
            ));
        }
    }
    Ok(())
}

fn enough_hugepages(memory_mib: u32, meminfo: &str) -> Result<(), String> {
    let field = |name: &str| -> u64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        value.unwrap_or(0)
    };
    let (free, page_kib) = (field("HugePages_Free:"), field("Hugepagesize:").max(1));
    let needed = (u64::from(memory_mib) << 10).div_ceil(page_kib);
    if free >= needed {
        return Ok(());
    }
    Err(format!(
        "its {memory_mib} MiB take {needed} hugepages of {page_kib} KiB, and {free} are free: `sysctl vm.nr_hugepages={}` for this machine alone, or go without --hugepages",
        needed - free + field("HugePages_Total:")
    ))
}

/// The functions of the host's NIC that are passed through.
fn passed(machine: &Machine) -> impl Iterator<Item = PciAddress> {
    machine
        .functions
        .iter()
        .filter_map(|function| match function {
            Function::Vf { address, .. } => Some(*address),
            Function::Tap { .. } => None,
        })
}

/// The device nodes that QEMU uses.
fn devices(switch: &Switch, machine: &Machine) -> Result<Vec<PathBuf>, HostError> {
    let mut devices = give_nodes(switch, passed(machine))?;
    if machine.accel == Accel::Kvm {
        devices.push(PathBuf::from("/dev/kvm"));
    }
    let mut functions = machine.functions.iter();
    if functions.any(|function| matches!(function, Function::Tap { .. })) {
        devices.push(PathBuf::from("/dev/net/tun"));
    }
    Ok(devices)
}

/// The group that may use /dev/kvm, if it is used.
fn groups(machine: &Machine) -> Vec<u32> {
    let kvm = (machine.accel == Accel::Kvm)
        .then(|| fs::metadata("/dev/kvm").ok())
        .flatten();
    kvm.map(|meta| meta.gid()).into_iter().collect()
}
