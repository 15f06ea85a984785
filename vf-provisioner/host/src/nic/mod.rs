//! NIC backends: what carries frames between a guest, its switch and the wire.

mod guard;
pub mod mediation;
pub(crate) mod netlink;
mod probe;
pub mod sriov;
pub(crate) mod tap;
pub mod veth;

use std::collections::BTreeSet;
use std::path::PathBuf;

use tenant_config::{Name, SwitchConfig, Tenant};

pub use sriov::allocate::AllocationError;

use crate::host::HostError;
use crate::resource::{Assignment, Key, Resource};
use crate::state::{Probe, Record, State};

/// One kind of NIC. The first three functions are pure: they propose, and `plan` decides.
pub trait NicBackend {
    /// As `--nic` and messages name it.
    fn name(&self) -> &'static str;

    /// Chooses the devices of each tenant, in their order. A backend with a finite pool counts
    /// `1 + 2 P` functions for P ports against what `state` says is taken, keeps what a tenant already
    /// has, and fails before anything is touched.
    fn assign(&self, tenants: &[Tenant], state: &State)
    -> Result<Vec<Assignment>, AllocationError>;

    /// The network namespace in which a tenant's switch finds its devices.
    fn namespace(&self, tenant: &Name) -> String;

    /// Everything that must be there for a switch with these devices of the host's, and how to ask
    /// each port. `config` has the devices as the switch sees them, which may be others.
    fn resources(
        &self,
        tenant: &Tenant,
        config: &SwitchConfig,
        devices: &Assignment,
    ) -> (Vec<Resource>, Vec<Probe>);

    /// See [`crate::host::Host::observe`].
    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError>;
    /// See [`crate::host::Host::create`].
    fn create(&mut self, resource: &Resource) -> Result<(), HostError>;
    /// See [`crate::host::Host::update`].
    fn update(&mut self, from: &Resource, to: &Resource) -> Result<(), HostError>;
    /// See [`crate::host::Host::delete`].
    fn delete(&mut self, resource: &Resource) -> Result<(), HostError>;
    /// See [`crate::host::Host::prove`]; `control` has each tenant's control socket.
    fn prove(
        &mut self,
        _record: &Record,
        _new: &BTreeSet<Key>,
        _state: &State,
        _control: &dyn Fn(&Name) -> PathBuf,
    ) -> Result<(), HostError> {
        Ok(())
    }
    /// See [`crate::host::Host::probe`].
    fn probe(&mut self, probe: &Probe) -> Result<(), HostError>;
}
