//! Launchers: what runs a tenant's switch, and keeps it apart from all others.

pub mod cgroup;
pub mod confine;
pub mod process;
pub mod vm;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tenant_config::{Memory, Name, SwitchConfig};

use process::Process;
use vm::Vm;

use crate::host::HostError;
use crate::nic::tap;
use crate::resource::{Assignment, Key, Resource, Switch};

/// Where and as whom one switch runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Its unprivileged user.
    pub uid: u32,
    /// The core it is pinned to.
    pub cpu: Option<u32>,
    /// Its network namespace.
    pub namespace: String,
    /// The host's devices that are to carry its frames.
    pub devices: Assignment,
    /// The objects that carry its devices.
    pub needs: BTreeSet<Key>,
}

/// What is known of a running switch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Running {
    /// Its process, on the host.
    pub pid: i32,
    /// When it started, in clock ticks since boot: tells it from a later process of the same number.
    pub start_ticks: u64,
    /// Seconds since it was started.
    pub uptime_s: f64,
    /// How often the supervisor started it again.
    pub restarts: u64,
    /// Processor time it has used, in seconds.
    pub cpu_s: f64,
    /// Resident memory, in bytes.
    pub memory_bytes: u64,
}

/// What a tenant's switch has used, for whoever bills it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accounts {
    /// Processor time in seconds, of every process that ran for it since the tenant was onboarded.
    pub cpu_s: f64,
    /// Memory that it has now, in bytes. Hugepages are not among it.
    pub memory_bytes: u64,
    /// The most that it had.
    pub memory_peak_bytes: u64,
}

/// One way to run switches. The first three functions are pure.
pub trait Launcher {
    /// As messages name it.
    fn name(&self) -> &'static str;

    /// The control socket's path as the switch sees it.
    fn control_socket_inside(&self) -> PathBuf;

    /// The host's devices as the switch sees them.
    fn inside(&self, devices: &Assignment) -> Assignment;

    /// Everything that must be there for a switch to run with `config` in `seat`.
    fn resources(&self, config: &SwitchConfig, seat: &Seat) -> Vec<Resource>;

    /// The switch's packet memory here.
    fn memory(&self) -> Memory;

    /// How long a switch may take to answer a frame, if that is longer than usual.
    fn answers_within(&self) -> Option<Duration> {
        None
    }

    /// The control socket's path on the host.
    fn control_socket(&self, tenant: &Name) -> PathBuf;

    /// See [`crate::host::Host::observe`].
    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError>;
    /// See [`crate::host::Host::create`]. A switch is there once it says that it is ready.
    fn create(&mut self, resource: &Resource) -> Result<(), HostError>;
    /// See [`crate::host::Host::update`].
    fn update(&mut self, from: &Resource, to: &Resource) -> Result<(), HostError>;
    /// See [`crate::host::Host::delete`].
    fn delete(&mut self, resource: &Resource) -> Result<(), HostError>;

    /// The tenant's switch, if it runs.
    fn running(&self, tenant: &Name) -> Result<Option<Running>, HostError>;
    /// The tenant's switch as a pidfd, if it is alive and the one that was started.
    fn pidfd(&self, tenant: &Name) -> Result<Option<OwnedFd>, HostError>;
    /// Why a switch that is alive does nothing, where that can be told from outside.
    fn stuck(&self, switch: &Switch) -> Option<String>;
    /// Starts a dead switch again with what it was started with before.
    fn restart(&mut self, switch: &Switch) -> Result<(), HostError>;
    /// What the switch has used, as the kernel counts it.
    fn accounts(&self, switch: &Switch) -> Option<Accounts>;
    /// What the switch says of its ports, as JSON; `None` if it does not answer.
    fn ports(&self, switch: &Switch) -> Option<serde_json::Value>;

    /// The log of a tenant's switch.
    fn log(&self, tenant: &Name) -> PathBuf;
    /// Cuts a log that has grown too long to its tail. What appends to it goes on behind that.
    fn trim_log(&self, tenant: &Name) -> Result<(), HostError>;
}

/// Every way to run switches: new ones run in the one that was chosen, and one that is there goes on in
/// its own.
#[derive(Debug, Clone)]
pub struct Launchers {
    /// Switches that are processes, and what all have in common.
    pub process: Process,
    /// What new machines are like, if new switches are to run in machines.
    pub machines: Option<vm::Settings>,
}

impl Launchers {
    /// A tenant's machine in libvirt's words, if its switch runs in one.
    pub fn domain(&self, switch: &Switch) -> Option<String> {
        let machine = switch.machine.as_ref()?;
        Some(self.vm().domain(switch, machine))
    }

    fn vm(&self) -> Vm<'_> {
        Vm {
            base: &self.process,
        }
    }
}

impl Launcher for Launchers {
    fn name(&self) -> &'static str {
        match &self.machines {
            None => self.process.name(),
            Some(_) => "vm",
        }
    }

    fn control_socket_inside(&self) -> PathBuf {
        self.process.control_socket_inside()
    }

    fn inside(&self, devices: &Assignment) -> Assignment {
        match &self.machines {
            None => self.process.inside(devices),
            Some(_) => vm::inside(devices),
        }
    }

    fn resources(&self, config: &SwitchConfig, seat: &Seat) -> Vec<Resource> {
        match &self.machines {
            None => self.process.resources(config, seat),
            Some(settings) => vm::resources(&self.process, settings, config, seat),
        }
    }

    fn memory(&self) -> Memory {
        match &self.machines {
            None => self.process.memory(),
            Some(_) => vm::memory(self.process.memory()),
        }
    }

    fn answers_within(&self) -> Option<Duration> {
        let settings = self.machines.as_ref()?;
        Some(vm::settings::answers_within(settings.accel))
    }

    fn control_socket(&self, tenant: &Name) -> PathBuf {
        self.process.control_socket(tenant)
    }

    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError> {
        match wanted {
            Resource::Tap(wanted) => Ok(tap::look(wanted)?.map(Resource::Tap)),
            Resource::Switch(switch) => {
                let observed = self.process.observe(wanted)?;
                // One that executes nothing is none.
                Ok(observed.filter(|_| self.stuck(switch).is_none()))
            }
            _ => self.process.observe(wanted),
        }
    }

    fn create(&mut self, resource: &Resource) -> Result<(), HostError> {
        match resource {
            Resource::Tap(tap) => tap::create(tap),
            Resource::Switch(switch) => match &switch.machine {
                Some(machine) => self.vm().launch(switch, machine, 0),
                None => self.process.create(resource),
            },
            _ => self.process.create(resource),
        }
    }

    fn update(&mut self, from: &Resource, to: &Resource) -> Result<(), HostError> {
        match to {
            Resource::Tap(tap) => tap::set(tap),
            Resource::Switch(switch) => match &switch.machine {
                Some(machine) => self.vm().reconfigure(switch, machine),
                None => self.process.update(from, to),
            },
            _ => self.process.update(from, to),
        }
    }

    fn delete(&mut self, resource: &Resource) -> Result<(), HostError> {
        match resource {
            Resource::Tap(tap) => tap::delete(tap),
            Resource::Switch(switch) if switch.machine.is_some() => self.vm().stop(switch),
            _ => self.process.delete(resource),
        }
    }

    fn running(&self, tenant: &Name) -> Result<Option<Running>, HostError> {
        self.process.running(tenant)
    }

    fn pidfd(&self, tenant: &Name) -> Result<Option<OwnedFd>, HostError> {
        self.process.pidfd(tenant)
    }

    fn stuck(&self, switch: &Switch) -> Option<String> {
        self.vm().stuck(&switch.tenant, switch.machine.as_ref()?)
    }

    fn restart(&mut self, switch: &Switch) -> Result<(), HostError> {
        match &switch.machine {
            Some(machine) => {
                let restarts = self.process.restarts(&switch.tenant)?;
                self.vm().launch(switch, machine, restarts + 1)
            }
            None => self.process.restart(switch),
        }
    }

    fn accounts(&self, switch: &Switch) -> Option<Accounts> {
        self.process.accounts(switch)
    }

    fn ports(&self, switch: &Switch) -> Option<serde_json::Value> {
        self.process.ports(switch)
    }

    fn log(&self, tenant: &Name) -> PathBuf {
        self.process.log(tenant)
    }

    fn trim_log(&self, tenant: &Name) -> Result<(), HostError> {
        self.process.trim_log(tenant)
    }
}
