//! Launchers: what runs a tenant's switch, and keeps it apart from all others.

pub mod cgroup;
pub mod confine;
pub mod process;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;
use tenant_config::{Memory, Name, SwitchConfig};

use crate::host::HostError;
use crate::resource::{Assignment, Key, Resource};

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
}
