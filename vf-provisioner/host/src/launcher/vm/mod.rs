//! A switch in a virtual machine of its own: one QEMU per tenant, confined like a switch that is a process.

mod image;
mod libvirt;
mod qemu;
mod qmp;
pub(super) mod settings;

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::pidfd_send_signal;
use tenant_config::{Device, Memory, Name, PciAddress, SwitchConfig};

pub use image::Image;
use qmp::Monitor;
pub use settings::Settings;

use super::confine::{Shown, Started, Task};
use super::process::{Launched, Process, give_nodes, take_nodes_back};
use super::{Launcher, Seat};
use crate::host::HostError;
use crate::nic::{netlink, tap};
use crate::resource::{Accel, Assignment, End, Function, Machine, Manager, Resource, Switch, Tap};
use crate::state::replace;

/// Until its sockets are there.
const START_WITHIN: Duration = Duration::from_secs(20);
/// Until it has switched itself off, and then until QEMU has ended.
const STOP_WITHIN: Duration = Duration::from_secs(10);
const QUIT_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Each look takes the machine's processor from it: so the longer it boots, the rarer they are.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(2);
const TELL_EVERY: Duration = Duration::from_secs(5);
/// The longest name of an interface, in bytes.
const INTERFACE_MAX: usize = 15;
/// What QEMU takes more when all that it maps is locked, not only what it uses.
const LOCKED_MIB: u32 = 192;
const SOCKETS: [&str; 3] = [qemu::CONTROL, qemu::CONFIG, qemu::MONITOR];

/// How long to wait before a machine that has booted for `since` is looked at again.
fn pause(since: Duration) -> Duration {
    (since / 50).clamp(LOOK_EVERY, LOOK_EVERY_MAX)
}

/// The tap that stands beside `interface`. libvirt opens it in a namespace that all tenants share.
fn tap_name(manager: Manager, uid: u32, number: usize, interface: &str) -> String {
    let mut name = match manager {
        Manager::Qemu => format!("vm-{}", interface.trim_start_matches("gw-")),
        Manager::Libvirt => format!("vm{uid}-{number}"),
    };
    name.truncate(INTERFACE_MAX);
    name
}

/// Memory of the host that all of a machine may take, in MiB.
fn memory_limit(base: &Process, machine: &Machine) -> u32 {
    let locked = if qemu::has_vf(machine) { LOCKED_MIB } else { 0 };
    base.limits.memory_mib + machine.memory_mib + locked
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
    for (number, (device, (mac, mtu, what))) in devices.zip(ports.chain(uplink)).enumerate() {
        match device {
            Device::Pci { address, vlan } => functions.push(Function::Vf {
                address: *address,
                mac,
                vlan: *vlan,
            }),
            Device::AfPacket { interface } | Device::AfXdp { interface } => {
                let tap = tap_name(settings.manager, seat.uid, number, interface);
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
                    wire: interface.clone(),
                    mac,
                });
            }
            _ => {}
        }
    }
    let machine = Machine {
        manager: settings.manager,
        qemu: settings.qemu.clone(),
        image: settings.image.dir.clone(),
        image_sha256: settings.image.sha256.clone(),
        accel: settings.accel,
        memory_mib: settings.memory_mib,
        hugepages: settings.hugepages,
        functions,
    };
    // libvirt makes a control group of its own.
    resources.retain(|it| machine.manager == Manager::Qemu || !matches!(it, Resource::Cgroup(_)));
    for resource in &mut resources {
        match resource {
            // The switch's packet memory is in the machine's.
            Resource::Cgroup(group) => group.memory_mib = memory_limit(base, &machine),
            Resource::Switch(switch) => {
                switch.needs.extend(taps.iter().map(Resource::key));
                switch.machine = Some(Box::new(machine.clone()));
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
        settings::enough(machine).map_err(not_ready)?;
        // What a crash between start and note may have left.
        self.base.mounts()?.empty(&switch.cgroup, STOP_WITHIN)?;
        if machine.manager == Manager::Libvirt {
            self.end_domain(tenant);
        }
        for name in SOCKETS {
            self.base.clear_run(tenant, &format!("{name}.sock"))?;
        }
        self.base.trim_log(tenant)?;
        self.base.write_config(switch)?;
        let started = match machine.manager {
            Manager::Qemu => self.start(switch, machine)?,
            Manager::Libvirt => self.start_domain(switch, machine)?,
        };
        let mut launched = Launched {
            switch: switch.clone(),
            started,
            restarts,
            ready: false,
        };
        self.base.remember(&launched)?;
        self.boot(switch, machine, &started)
            .map_err(|message| not_ready(format!("{message}{}", self.base.tail(tenant))))?;
        launched.ready = true;
        self.base.remember(&launched)
    }

    fn start(&self, switch: &Switch, machine: &Machine) -> Result<Started, HostError> {
        let tenant = &switch.tenant;
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
            cgroups: self.base.mounts()?.joins(&switch.cgroup),
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
        task.start().map_err(|message| HostError::NotReady {
            tenant: tenant.clone(),
            message,
        })
    }

    /// The machine in libvirt's words.
    pub(super) fn domain(&self, switch: &Switch, machine: &Machine) -> String {
        let control = self.base.control_socket(&switch.tenant);
        let run = control.parent().unwrap_or(Path::new("/"));
        let log = self.base.log(&switch.tenant);
        let place = libvirt::Place {
            instance: &self.base.instance,
            run,
            log: &log,
            cpu_percent: self.base.limits.cpu_percent,
        };
        libvirt::domain(switch, machine, &place)
    }

    fn domain_name(&self, tenant: &Name) -> String {
        libvirt::name(&self.base.instance, tenant)
    }

    /// Has libvirt start the machine. It opens taps where it runs itself; once it has them they come to
    /// where they are wired.
    fn start_domain(&self, switch: &Switch, machine: &Machine) -> Result<Started, HostError> {
        let tenant = &switch.tenant;
        let not_ready = |message| HostError::NotReady {
            tenant: tenant.clone(),
            message,
        };
        let definition = self.base.log(tenant).with_file_name("domain.xml");
        replace(&definition, self.domain(switch, machine).as_bytes(), 0o600).map_err(
            HostError::io(format!("cannot write {}", definition.display())),
        )?;
        let mut taps = Vec::new();
        for function in &machine.functions {
            if let Function::Tap {
                interface, wire, ..
            } = function
            {
                taps.push(tap::lend(&switch.namespace, interface, wire)?);
            }
        }
        let _ = give_nodes(switch, passed(machine))?;
        let name = self.domain_name(tenant);
        let start = || {
            libvirt::virsh(&["define", &definition.display().to_string()])?;
            libvirt::start_paused(&name, memory_limit(self.base, machine))
        };
        let begun = start();
        for tap in &taps {
            tap::take_back(tap)?;
        }
        begun.map_err(not_ready)?;
        libvirt::virsh(&["resume", &name]).map_err(not_ready)?;
        let started = libvirt::pid(&name).and_then(Started::identify);
        started.ok_or_else(|| not_ready(format!("libvirt has started domain {name}, but no process bears its UUID: does libvirt run on another host? (LIBVIRT_DEFAULT_URI)")))
    }

    /// Ends a domain and forgets it. One that is not there is as good.
    fn end_domain(&self, tenant: &Name) {
        let name = self.domain_name(tenant);
        let _ = libvirt::virsh(&["destroy", &name]);
        let _ = libvirt::virsh(&["undefine", &name]);
    }

    fn watch(&self, tenant: &Name, manager: Manager) -> std::io::Result<Watch> {
        Ok(match manager {
            Manager::Qemu => Watch::Monitor(Monitor::connect(&self.socket(tenant, qemu::MONITOR))?),
            Manager::Libvirt => Watch::Domain(self.domain_name(tenant)),
        })
    }

    /// Brings a started machine to the point where its switch answers.
    fn boot(&self, switch: &Switch, machine: &Machine, started: &Started) -> Result<(), String> {
        let tenant = &switch.tenant;
        let began = Instant::now();
        let patience = settings::boots_within(machine.accel);
        let alive = || {
            if started.is_alive() {
                Ok(())
            } else {
                Err("its machine ended".to_owned())
            }
        };
        let connect = || {
            let began = Instant::now();
            loop {
                alive()?;
                match self.watch(tenant, machine.manager) {
                    Ok(watch) => return Ok(watch),
                    Err(error) if began.elapsed() > START_WITHIN => {
                        return Err(format!("QEMU's monitor does not answer: {error}"));
                    }
                    Err(_) => std::thread::sleep(LOOK_EVERY),
                }
            }
        };
        let mut watch = connect()?;
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
            match watch.stuck() {
                Ok(None) => {}
                Ok(Some(why)) => return Err(why),
                // A busy QEMU may answer late, and then to a question that is not the next one.
                Err(error) => {
                    tracing::debug!(%tenant, %error, "asking QEMU's monitor anew");
                    drop(watch);
                    watch = connect()?;
                }
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
            if sent == message.len() && watch.is_open(qemu::CONTROL) {
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
            std::thread::sleep(pause(began.elapsed()));
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
        let manager = switch
            .machine
            .as_ref()
            .map_or(Manager::Qemu, |machine| machine.manager);
        if !ended && let Ok(mut watch) = self.watch(tenant, manager) {
            if watch.is_open(qemu::CONFIG)
                && let Ok(mut config) = qmp::connect(&self.socket(tenant, qemu::CONFIG))
            {
                // It may be gone by now.
                let _ = config.write_all(b"stop\n");
                ended = ends_within(STOP_WITHIN)?;
            }
            if !ended {
                watch.quit();
                ends_within(QUIT_WITHIN)?;
            }
        }
        if manager == Manager::Libvirt {
            self.end_domain(tenant);
        }
        if let Some(pidfd) = self.base.pidfd(tenant)? {
            // It may end by itself meanwhile.
            let _ = pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
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
    pub(super) fn stuck(&self, tenant: &Name, machine: &Machine) -> Option<String> {
        let mut watch = self.watch(tenant, machine.manager).ok()?;
        watch.stuck().ok().flatten()
    }
}

/// Who knows how a machine is.
enum Watch {
    Monitor(Monitor),
    /// libvirt, by the domain's name.
    Domain(String),
}

impl Watch {
    /// Why the machine executes nothing, if it does not.
    fn stuck(&mut self) -> Result<Option<String>, String> {
        match self {
            Self::Monitor(monitor) => monitor
                .stuck()
                .map_err(|error| format!("QEMU's monitor: {error}")),
            Self::Domain(name) => libvirt::stuck(name),
        }
    }

    /// Whether a program in the machine has opened the channel.
    fn is_open(&mut self, channel: &str) -> bool {
        match self {
            Self::Monitor(monitor) => monitor.is_open(channel).unwrap_or(false),
            Self::Domain(name) => libvirt::is_open(name, channel),
        }
    }

    fn quit(&mut self) {
        // It may be gone by now.
        match self {
            Self::Monitor(monitor) => drop(monitor.execute("quit")),
            Self::Domain(name) => drop(libvirt::virsh(&["destroy", name])),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn machine() -> Machine {
        let mac =
            |last: u8| tenant_config::MacAddr::new([2, 0, 0x13, 0x89, 0, last]).expect("a MAC");
        Machine {
            manager: Manager::Qemu,
            qemu: PathBuf::from("/usr/bin/qemu-system-x86_64"),
            image: PathBuf::from("/usr/lib/vswitch/switch-image"),
            image_sha256: "0".repeat(64),
            accel: Accel::Tcg,
            memory_mib: 160,
            hugepages: true,
            functions: vec![
                Function::Tap {
                    interface: "vm-frgker7qrb".to_owned(),
                    wire: "gw-frgker7qrb".to_owned(),
                    mac: mac(1),
                },
                Function::Vf {
                    address: "0000:01:10.2".parse().expect("an address"),
                    mac: mac(2),
                    vlan: Some(tenant_config::VlanId::new(101).expect("a VLAN")),
                },
            ],
        }
    }

    pub(super) fn switch() -> Switch {
        let tenant = tenant_config::Tenant::parse(
            "red.toml",
            "name = \"red\"\nvni = 5001\n[gateway]\nipv4 = \"10.0.0.1/24\"\n[[port]]\nname = \"red-vm1\"\nmac = \"52:54:00:aa:00:01\"\naddresses = [\"10.0.0.11\"]\n",
        )
        .expect("a tenant");
        let devices = tenant_config::Devices {
            ports: vec![Device::Offline],
            uplink: None,
            memory: Memory::default(),
            control_socket: None,
        };
        Switch {
            tenant: tenant.name().clone(),
            uid: 64000,
            namespace: "sw-red".to_owned(),
            cgroup: "mts/red".to_owned(),
            binary: PathBuf::from("/usr/bin/vswitch"),
            cpu: Some(2),
            config: tenant.switch_config(devices).expect("it fits"),
            machine: Some(Box::new(machine())),
            needs: std::collections::BTreeSet::new(),
        }
    }

    #[test]
    fn a_machine_has_what_a_switch_needs_and_nothing_else() {
        let lines = |machine: &Machine| {
            let words = qemu::arguments("red", machine);
            let text: String = words
                .iter()
                .map(|word| format!("{}{word}", if word.starts_with('-') { '\n' } else { ' ' }))
                .collect();
            text.trim_start().to_owned() + "\n"
        };
        assert_eq!(lines(&machine()), include_str!("golden/qemu.txt"));
        let devices = |text: String| {
            text.lines()
                .filter(|line| line.starts_with("-device"))
                .count()
        };
        // The IOMMU, the channels' controller, the two channels, two functions.
        assert_eq!(devices(lines(&machine())), 6);
    }

    #[test]
    fn functions_have_places_of_their_own() {
        let places: std::collections::BTreeSet<_> = (0..100).map(qemu::place).collect();
        assert_eq!(places.len(), 100);
        assert!(
            places
                .iter()
                .all(|(slot, part)| (0x10..0x1e).contains(slot) && *part < 8)
        );
        assert_eq!(
            (qemu::place(0), qemu::place(13), qemu::place(14)),
            ((0x10, 0), (0x1d, 0), (0x10, 1))
        );
        let devices = Assignment {
            ports: vec![
                Device::Offline,
                Device::Pci {
                    address: "0000:01:10.2".parse().expect("an address"),
                    vlan: Some(tenant_config::VlanId::new(7).expect("a VLAN")),
                },
            ],
            uplink: Some(Device::Offline),
            guests: Vec::new(),
        };
        let inside = inside(&devices);
        let at = |address: &str, vlan: Option<u16>| Device::Pci {
            address: address.parse().expect("an address"),
            vlan: vlan.map(|vlan| tenant_config::VlanId::new(vlan).expect("a VLAN")),
        };
        assert_eq!(
            inside.ports,
            [at("0000:00:10.0", None), at("0000:00:11.0", Some(7))]
        );
        assert_eq!(inside.uplink, Some(at("0000:00:12.0", None)));
    }

    #[test]
    fn the_longer_a_machine_boots_the_rarer_it_is_looked_at() {
        let after = |seconds: u64| pause(Duration::from_secs(seconds)).as_millis();
        assert_eq!(
            [0, 1, 5, 30, 100, 1800].map(after),
            [100, 100, 100, 600, 2000, 2000]
        );
    }
}
