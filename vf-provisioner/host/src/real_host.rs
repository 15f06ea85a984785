//! The host itself: what NIC backends and launchers make of it.

use std::collections::BTreeSet;

use tenant_config::Name;

use crate::host::{Host, HostError};
use crate::launcher::Launcher;
use crate::nic::NicBackend;
use crate::resource::{Key, Layer, Resource};
use crate::state::{Probe, Record, State};

/// A NIC backend and a launcher: each object is one of theirs.
pub struct RealHost {
    /// Makes what carries frames.
    pub nic: Box<dyn NicBackend>,
    /// Makes what runs switches.
    pub launcher: Box<dyn Launcher>,
}

impl std::fmt::Debug for RealHost {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "RealHost({}, {})",
            self.nic.name(),
            self.launcher.name()
        )
    }
}

impl Host for RealHost {
    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError> {
        match wanted.layer() {
            Layer::Nic => self.nic.observe(wanted),
            Layer::Launcher => self.launcher.observe(wanted),
        }
    }

    fn create(&mut self, resource: &Resource) -> Result<(), HostError> {
        match resource.layer() {
            Layer::Nic => self.nic.create(resource),
            Layer::Launcher => self.launcher.create(resource),
        }
    }

    fn update(&mut self, from: &Resource, to: &Resource) -> Result<(), HostError> {
        match to.layer() {
            Layer::Nic => self.nic.update(from, to),
            Layer::Launcher => self.launcher.update(from, to),
        }
    }

    fn delete(&mut self, resource: &Resource) -> Result<(), HostError> {
        match resource.layer() {
            Layer::Nic => self.nic.delete(resource),
            Layer::Launcher => self.launcher.delete(resource),
        }
    }

    fn prove(
        &mut self,
        record: &Record,
        new: &BTreeSet<Key>,
        state: &State,
    ) -> Result<(), HostError> {
        let control = |tenant: &Name| self.launcher.control_socket(tenant);
        self.nic.prove(record, new, state, &control)
    }

    fn probe(&mut self, probe: &Probe) -> Result<(), HostError> {
        self.nic.probe(probe)
    }
}
