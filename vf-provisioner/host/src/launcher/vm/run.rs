//! Starts and stops the machines of switches.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::pidfd_send_signal;
use tenant_config::PciAddress;

use super::image::Image;
use super::machine::{Accel, Function, Machine, Manager};
use super::options::Options;
use super::plan::memory_limit;
use super::qmp::Monitor;
use super::{libvirt, qemu, qmp, settings, tap};
use crate::error::{HostError, OptionError};
use crate::finding::{Finding, Verdict, program};
use crate::hugepages::Hugepages;
use crate::launcher::cgroup::mounts;
use crate::launcher::confine::{Shown, Started, Task};
use crate::launcher::files::TenantFiles;
use crate::launcher::kind::Kind;
use crate::launcher::launched::{Executable, Launched};
use crate::launcher::process::plan::Process;
use crate::launcher::switch::Switch;
use crate::launcher::vfio::{give_nodes, take_nodes_back};
use crate::launcher::{Launcher, Runner, control, ike};
use crate::nic::parts::netns;
use crate::object::Context;

/// Until its sockets exist.
const START_WITHIN: Duration = Duration::from_secs(20);
/// Until it has shut down, and then until QEMU has ended.
const STOP_WITHIN: Duration = Duration::from_secs(10);
const QUIT_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Each look takes processor time from the machine, so they become rarer the longer it boots.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(2);
const REPORT_EVERY: Duration = Duration::from_secs(5);
const SOCKETS: [&str; 4] = [qemu::CONTROL, qemu::CONFIG, ike::PORT, qemu::MONITOR];

/// The pause before the next look at a machine that has booted for `since`.
fn pause(since: Duration) -> Duration {
    (since / 50).clamp(LOOK_EVERY, LOOK_EVERY_MAX)
}

/// Runs machines with the provisioner's own QEMU.
#[derive(Debug)]
pub struct Qemu;

/// Runs machines through libvirt.
#[derive(Debug)]
pub struct Libvirt;

fn runs(switch: &Switch, manager: Manager) -> bool {
    let machine = switch.machine.as_ref();
    machine.is_some_and(|machine| machine.manager == manager)
}

impl Runner for Qemu {
    fn runs(&self, switch: &Switch) -> bool {
        runs(switch, Manager::Qemu)
    }

    fn start(&self, context: &Context, switch: &Switch, restarts: u64) -> Result<(), HostError> {
        Run::of(context, switch).map_or(Ok(()), |run| run.launch(restarts))
    }

    fn stop(&self, context: &Context, switch: &Switch) -> Result<(), HostError> {
        Run::of(context, switch).map_or(Ok(()), |run| run.stop())
    }

    fn stuck(&self, context: &Context, switch: &Switch) -> Option<String> {
        Run::of(context, switch)?.stuck()
    }
}

impl Runner for Libvirt {
    fn runs(&self, switch: &Switch) -> bool {
        runs(switch, Manager::Libvirt)
    }

    fn start(&self, context: &Context, switch: &Switch, restarts: u64) -> Result<(), HostError> {
        Qemu.start(context, switch, restarts)
    }

    fn stop(&self, context: &Context, switch: &Switch) -> Result<(), HostError> {
        Qemu.stop(context, switch)
    }

    fn stuck(&self, context: &Context, switch: &Switch) -> Option<String> {
        Qemu.stuck(context, switch)
    }
}

impl Kind for Qemu {
    type Options = Options;

    fn launcher(options: &Options, base: Process) -> Result<Box<dyn Launcher>, OptionError> {
        options.launcher(Manager::Qemu, base)
    }

    fn checks() -> Vec<Finding> {
        let version = program("qemu-system-x86_64", "--version");
        vec![Finding::new("QEMU", Verdict::Optional, version)]
    }
}

impl Kind for Libvirt {
    type Options = Options;

    fn launcher(options: &Options, base: Process) -> Result<Box<dyn Launcher>, OptionError> {
        options.launcher(Manager::Libvirt, base)
    }
}

/// The libvirt domain of a switch's machine, if it has one.
pub fn domain(context: &Context, switch: &Switch) -> Option<String> {
    Some(Run::of(context, switch)?.domain())
}

/// The machine of one tenant's switch.
struct Run<'a> {
    context: &'a Context,
    switch: &'a Switch,
    machine: &'a Machine,
    files: TenantFiles,
}

impl<'a> Run<'a> {
    fn of(context: &'a Context, switch: &'a Switch) -> Option<Self> {
        Some(Self {
            context,
            switch,
            machine: switch.machine.as_ref()?,
            files: TenantFiles::new(context, &switch.tenant),
        })
    }

    /// Starts the machine and waits until its switch answers.
    fn launch(&self, restarts: u64) -> Result<(), HostError> {
        let Self {
            switch,
            machine,
            files,
            ..
        } = self;
        let tenant = &switch.tenant;
        let not_ready = |message| HostError::NotReady {
            tenant: tenant.clone(),
            message,
        };
        let began = Instant::now();
        let executable = Executable::of(&machine.qemu);
        let image = Image::open(&machine.image).map_err(not_ready)?;
        if image.sha256 != machine.image_sha256 {
            return Err(not_ready(format!(
                "the image in {} is not the one it was set up with: apply the tenant's file again",
                machine.image.display()
            )));
        }
        settings::enough(machine).map_err(not_ready)?;
        // A crash between the start and the note may have left processes.
        mounts()?.empty(&switch.cgroup, STOP_WITHIN)?;
        if machine.manager == Manager::Libvirt {
            self.end_domain();
        }
        for name in SOCKETS {
            files.clear_run(&format!("{name}.sock"))?;
        }
        let _held = match machine.manager {
            Manager::Qemu => files.make_log_pipe()?,
            Manager::Libvirt => {
                files.remove_log_pipe()?;
                None
            }
        };
        files.write_config(&switch.config, switch.uid)?;
        let started = match machine.manager {
            Manager::Qemu => self.start()?,
            Manager::Libvirt => self.start_domain()?,
        };
        let mut launched = Launched {
            switch: (*switch).clone(),
            started,
            restarts,
            ready: false,
            start_s: None,
            executable,
        };
        files.remember(&launched)?;
        self.boot(&started)
            .map_err(|message| not_ready(format!("{message}{}", files.tail())))?;
        files.collect_last();
        launched.ready = true;
        launched.start_s = Some(began.elapsed().as_secs_f64());
        files.remember(&launched)
    }

    fn start(&self) -> Result<Started, HostError> {
        let Self {
            switch,
            machine,
            files,
            ..
        } = self;
        let tenant = &switch.tenant;
        let mut shown: Vec<Shown> = qemu::reads(machine).into_iter().map(Shown::same).collect();
        shown.push(Shown {
            host: machine.image.clone(),
            inside: PathBuf::from(qemu::IMAGE),
        });
        let task = Task {
            tenant: tenant.to_string(),
            namespace: Some(netns::path(&switch.namespace)),
            bare: false,
            folders: Vec::new(),
            cgroups: mounts()?.joins(&switch.cgroup),
            uid: switch.uid,
            root: files.root(),
            program: machine.qemu.clone(),
            arguments: qemu::arguments(tenant.as_str(), machine),
            shown,
            devices: devices(switch, machine)?,
            run: files.run(),
            run_inside: PathBuf::from(qemu::RUN),
            log: files.log_pipe(),
            raw_sockets: false,
            groups: groups(machine),
            cpu: switch.cpu,
            locked_bytes: if qemu::has_vf(machine) { None } else { Some(0) },
            // The machine's memory is a file without a name. It writes no other.
            file_bytes: u64::from(Hugepages::read().whole_mib(machine.memory_mib)) << 20,
        };
        task.start().map_err(|message| HostError::NotReady {
            tenant: tenant.clone(),
            message,
        })
    }

    /// The machine as a libvirt domain.
    fn domain(&self) -> String {
        let place = libvirt::DomainContext {
            instance: &self.context.instance,
            run: &self.files.run(),
            log: &self.files.log(),
            cpu_percent: self.context.cpu_percent,
        };
        libvirt::domain(self.switch, self.machine, &place)
    }

    fn domain_name(&self) -> String {
        libvirt::name(&self.context.instance, &self.switch.tenant)
    }

    /// Lets libvirt start the machine. libvirt opens taps in its own namespace, so they are moved
    /// there and returned to their wires once it has opened them.
    fn start_domain(&self) -> Result<Started, HostError> {
        let Self {
            switch, machine, ..
        } = self;
        let tenant = &switch.tenant;
        let not_ready = |message| HostError::NotReady {
            tenant: tenant.clone(),
            message,
        };
        let definition = self.files.log().with_file_name("domain.xml");
        let written = self
            .files
            .replace(&definition, self.domain().as_bytes(), 0o600);
        let what = format!("cannot write {}", definition.display());
        written.map_err(HostError::io(what))?;
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
        let name = self.domain_name();
        let start = || {
            libvirt::virsh(&["define", &definition.display().to_string()])?;
            libvirt::start_paused(&name, memory_limit(self.context.memory_mib, machine))
        };
        let begun = start();
        for tap in &taps {
            tap::return_tap(tap)?;
        }
        begun.map_err(not_ready)?;
        libvirt::virsh(&["resume", &name]).map_err(not_ready)?;
        let started = libvirt::pid(&name, switch.uid).and_then(Started::identify);
        started.ok_or_else(|| {
            not_ready(format!(
                "libvirt has started domain {name}, but no process has its UUID: does libvirt run \
                 on another host? (LIBVIRT_DEFAULT_URI)"
            ))
        })
    }

    /// Ends a domain and removes its definition, if it exists.
    fn end_domain(&self) {
        let name = self.domain_name();
        let _ = libvirt::virsh(&["destroy", &name]);
        let _ = libvirt::virsh(&["undefine", &name]);
    }

    fn watch(&self) -> std::io::Result<Watch> {
        Ok(match self.machine.manager {
            Manager::Qemu => Watch::Monitor(Monitor::connect(&self.files.socket(qemu::MONITOR))?),
            Manager::Libvirt => Watch::Domain(self.domain_name()),
        })
    }

    /// Waits until the switch of a started machine answers.
    fn boot(&self, started: &Started) -> Result<(), String> {
        let Self {
            switch,
            machine,
            files,
            ..
        } = self;
        let tenant = &switch.tenant;
        let began = Instant::now();
        let patience = machine.accel.boots_within();
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
                match self.watch() {
                    Ok(watch) => return Ok(watch),
                    Err(error) if began.elapsed() > START_WITHIN => {
                        return Err(format!("QEMU's monitor does not answer: {error}"));
                    }
                    Err(_) => std::thread::sleep(LOOK_EVERY),
                }
            }
        };
        let mut watch = connect()?;
        let mut config = qmp::connect(&self.files.socket(qemu::CONFIG)).map_err(|error| {
            format!("cannot connect to the channel for its configuration: {error}")
        })?;
        let text = serde_json::to_vec(&switch.config).map_err(|error| error.to_string())?;
        let mut message = format!("{}\n", text.len()).into_bytes();
        message.extend(text);
        let mut sent = 0;
        let mut reported = Instant::now();
        loop {
            alive()?;
            match watch.stuck() {
                Ok(None) => {}
                Ok(Some(why)) => return Err(why),
                // A busy QEMU may answer late, after the next question.
                Err(error) => {
                    tracing::debug!(%tenant, %error, "reconnecting to QEMU's monitor");
                    drop(watch);
                    watch = connect()?;
                }
            }
            // The machine reads it late in its boot; until then the socket's buffer fills. One that
            // reads a byte at a time is not waited for longer than another.
            while sent < message.len() && began.elapsed() <= patience {
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
                match control::ready(files, switch) {
                    Ok(()) => {
                        let seconds = began.elapsed().as_secs_f64();
                        tracing::info!(%tenant, seconds, "the machine has booted");
                        return Ok(());
                    }
                    Err(error) => last = error.to_string(),
                }
            }
            if began.elapsed() > patience {
                return Err(format!(
                    "it was not ready within {} s ({last})",
                    patience.as_secs()
                ));
            }
            if reported.elapsed() > REPORT_EVERY {
                reported = Instant::now();
                let seconds = began.elapsed().as_secs();
                tracing::info!(%tenant, seconds, %last, "waiting for the machine to boot");
            }
            std::thread::sleep(pause(began.elapsed()));
        }
    }

    /// Stops the machine: it shuts down, else QEMU quits, else the kernel kills it.
    fn stop(&self) -> Result<(), HostError> {
        let Self { switch, files, .. } = self;
        let ends_within = |patience: Duration| -> Result<bool, HostError> {
            let began = Instant::now();
            while files.pidfd()?.is_some() {
                if began.elapsed() > patience {
                    return Ok(false);
                }
                std::thread::sleep(LOOK_EVERY);
            }
            Ok(true)
        };
        let mut held = None;
        files.hold_log(&mut held)?;
        let mut ended = files.pidfd()?.is_none();
        if !ended && let Ok(mut watch) = self.watch() {
            if watch.is_open(qemu::CONFIG)
                && let Ok(mut config) = qmp::connect(&self.files.socket(qemu::CONFIG))
            {
                // It may have ended meanwhile.
                let _ = config.write_all(b"stop\n");
                ended = ends_within(STOP_WITHIN)?;
            }
            if !ended {
                watch.quit();
                ends_within(QUIT_WITHIN)?;
            }
        }
        if self.machine.manager == Manager::Libvirt {
            self.end_domain();
        }
        if let Some(pidfd) = files.pidfd()? {
            // It may end by itself meanwhile.
            let _ = pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        }
        mounts()?.empty(&switch.cgroup, QUIT_WITHIN)?;
        files.collect_last();
        // The running switch may have other functions than the wanted one.
        let launched = files.launched()?.map(|launched| launched.switch);
        for switch in launched.iter().chain([*switch]) {
            take_nodes_back(switch.machine.iter().flat_map(|machine| passed(machine)));
        }
        for name in SOCKETS {
            files.clear_run(&format!("{name}.sock"))?;
        }
        files.forget()
    }

    /// Why an existing machine executes nothing. If another client uses its monitor, it counts as
    /// well.
    fn stuck(&self) -> Option<String> {
        let mut watch = self.watch().ok()?;
        watch.stuck().ok().flatten()
    }
}

/// The source of a machine's state.
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
        // It may have ended meanwhile.
        match self {
            Self::Monitor(monitor) => drop(monitor.quit()),
            Self::Domain(name) => drop(libvirt::virsh(&["destroy", name])),
        }
    }
}

/// The VFs of the host's NIC that are passed through.
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

    #[test]
    fn pause_grows_with_boot_time() {
        let after = |seconds: u64| pause(Duration::from_secs(seconds)).as_millis();
        assert_eq!(
            [0, 1, 5, 30, 100, 1800].map(after),
            [100, 100, 100, 600, 2000, 2000]
        );
    }
}
