//! Launchers: what runs a tenant's switch, isolated from all others.
//!
//! A launcher is a folder and one line of [`registry`]. `process` runs a switch as a confined
//! process; `vm` as a machine, which QEMU runs in the same confinement, or libvirt.

pub mod ask;
pub mod cgroup;
pub mod confine;
mod control;
pub mod files;
pub mod ike;
pub mod kind;
mod launched;
mod liveness;
pub mod log;
pub mod process;
mod ready;
pub mod registry;
pub mod switch;
pub mod switches;
pub mod usage;
mod vfio;
pub mod vm;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tenant_config::{IkeConfig, Memory, SwitchConfig};

use crate::error::HostError;
use crate::launcher::switch::Switch;
use crate::nic::Assignment;
use crate::object::Context;
use crate::resource::{Key, Resource};

/// What the host reserves for one switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its unprivileged user.
    pub uid: u32,
    /// The core it is pinned to.
    pub cpu: Option<u32>,
    /// Its network namespace.
    pub namespace: String,
    /// The host's devices that carry its frames.
    pub devices: Assignment,
    /// What its IKE daemon is configured from, if its tunnel has IPsec.
    pub ike: Option<IkeConfig>,
    /// The objects that carry its devices.
    pub needs: BTreeSet<Key>,
}

/// One way to run new switches. All functions are pure.
pub trait Launcher {
    /// The control socket's path as the switch sees it.
    fn control_socket_inside(&self) -> PathBuf;

    /// The host's devices as the switch sees them.
    fn inside(&self, devices: &Assignment) -> Assignment;

    /// All objects of a switch with `config` in `slot`.
    fn resources(&self, config: &SwitchConfig, slot: &Slot) -> Vec<Resource>;

    /// The packet memory of a switch.
    fn memory(&self) -> Memory;

    /// The hugepages of the host that one switch needs if it uses any, in MiB.
    fn hugepages_mib(&self) -> u32;

    /// The user of the IKE daemon beside a switch of that user, if it is one of this host's. An
    /// error says why there can be no daemon.
    ///
    /// # Errors
    /// A sentence.
    fn ike_uid(&self, switch_uid: u32) -> Result<Option<u32>, String>;

    /// How long a switch may take to answer a frame, if longer than usual.
    fn answers_within(&self) -> Option<Duration> {
        None
    }
}

/// How the switches of one launcher are started and stopped.
pub trait Runner {
    /// Whether it runs this switch.
    fn runs(&self, switch: &Switch) -> bool;

    /// Starts the switch and waits until it answers; `restarts` is noted with it.
    ///
    /// # Errors
    /// If it does not start or does not answer in time.
    fn start(&self, context: &Context, switch: &Switch, restarts: u64) -> Result<(), HostError>;

    /// Stops the switch, if it runs.
    ///
    /// # Errors
    /// If it does not end.
    fn stop(&self, context: &Context, switch: &Switch) -> Result<(), HostError>;

    /// Why a live switch executes nothing, if that can be seen from outside, without asking it.
    fn stuck(&self, _context: &Context, _switch: &Switch) -> Option<String> {
        None
    }
}
