//! NIC backends: what carries frames between a guest, its switch and the wire.

mod guard;
pub(crate) mod netlink;
mod probe;
pub mod veth;

use tenant_config::{Device, Name, SwitchConfig, Tenant};

use crate::host::HostError;
use crate::resource::Resource;
use crate::state::{Probe, State};

/// The devices a backend gives to one tenant's switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// One for each port, in the order of the tenant's file.
    pub ports: Vec<Device>,
    /// The In/Out side's, if the tenant has one.
    pub uplink: Option<Device>,
}

/// One kind of NIC. The first three functions are pure: they propose, and `plan` decides.
pub trait NicBackend {
    /// As `--nic` and messages name it.
    fn name(&self) -> &'static str;

    /// Chooses the devices of a tenant. A backend with a finite pool counts `1 + 2 P` functions for
    /// P ports against what `state` says is taken, keeps what the tenant already has, and fails
    /// before anything is touched.
    fn assign(&self, tenant: &Tenant, state: &State) -> Result<Assignment, HostError>;

    /// The network namespace in which a tenant's switch finds its devices.
    fn namespace(&self, tenant: &Name) -> String;

    /// Everything that must be there for a switch with these devices, and how to ask each port.
    fn resources(&self, config: &SwitchConfig) -> (Vec<Resource>, Vec<Probe>);

    /// See [`crate::host::Host::observe`].
    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError>;
    /// See [`crate::host::Host::create`].
    fn create(&mut self, resource: &Resource) -> Result<(), HostError>;
    /// See [`crate::host::Host::update`].
    fn update(&mut self, from: &Resource, to: &Resource) -> Result<(), HostError>;
    /// See [`crate::host::Host::delete`].
    fn delete(&mut self, resource: &Resource) -> Result<(), HostError>;
    /// See [`crate::host::Host::probe`].
    fn probe(&mut self, probe: &Probe) -> Result<(), HostError>;
}
