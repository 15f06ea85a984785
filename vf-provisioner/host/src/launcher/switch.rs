//! A tenant's switch, as data.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenant_config::{Device, Name, PciAddress, SwitchConfig};

use super::vm::machine::Machine;
use crate::key::Key;
use crate::object::Object;

/// A tenant's switch, as a process, or with `machine` as a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// Whose.
    pub tenant: Name,
    /// The unprivileged user and group it runs as.
    pub uid: u32,
    /// Its network namespace.
    pub namespace: String,
    /// Its control group.
    pub cgroup: String,
    /// The executable on the host.
    pub binary: PathBuf,
    /// The core it is pinned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Its configuration.
    pub config: SwitchConfig,
    /// The machine it runs in, if it is not a process of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Box<Machine>>,
    /// The objects that it depends on: if one of them is recreated, it is restarted.
    pub needs: BTreeSet<Key>,
}

impl Switch {
    /// How long it may take to answer, if longer than usual.
    pub(crate) fn answers_within(&self) -> Option<Duration> {
        let machine = self.machine.as_ref()?;
        Some(machine.accel.answers_within())
    }
}

impl Object for Switch {
    fn key(&self) -> Key {
        Key::Switch {
            tenant: self.tenant.clone(),
        }
    }

    fn needs(&self) -> Option<&BTreeSet<Key>> {
        Some(&self.needs)
    }

    /// Only the configuration of a running switch can change.
    fn changes_in_place(&self, wanted: &Self) -> bool {
        let config = wanted.config.clone();
        Self {
            config,
            ..self.clone()
        } == *wanted
    }
}

/// The PCI functions of a switch.
pub(super) fn functions(config: &SwitchConfig) -> impl Iterator<Item = PciAddress> {
    config.devices().filter_map(|device| match device.device {
        Device::Pci { address, .. } => Some(*address),
        _ => None,
    })
}
