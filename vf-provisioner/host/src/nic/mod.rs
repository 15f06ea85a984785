//! NIC backends: what carries frames between a guest, its switch and the wire.
//!
//! A backend is a folder and one line of [`registry`]. It chooses devices and the objects that they
//! need; `parts` has the objects that any backend may use.

pub mod kind;
pub mod mediation;
pub mod parts;
pub mod probe;
pub mod registry;
pub mod sriov;
pub mod veth;

use serde::{Deserialize, Serialize};
use tenant_config::{Device, Name, SwitchConfig, Tenant};

use crate::nic::probe::Probe;
use crate::resource::Resource;
use crate::state::State;

/// The devices of the host that carry one tenant's frames, on the switch's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// One for each port, in the order of the tenant's file.
    pub ports: Vec<Device>,
    /// The In/Out side's, if the tenant has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<Device>,
    /// The guests' sides, one for each port, if the backend chooses them too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guests: Vec<Device>,
}

/// Why a backend has no devices for the tenants. Nothing was touched.
pub type AssignError = Box<dyn std::error::Error + Send + Sync>;

/// One kind of NIC, for the tenants of an apply. All functions are pure: they propose, `plan`
/// decides.
pub trait NicBackend {
    /// Chooses the devices of each tenant, in order. A backend with a finite pool needs `1 + 2 P`
    /// functions for P ports, respects what `state` says is taken, keeps the devices that a tenant
    /// already has, and fails before anything is touched.
    fn assign(&self, tenants: &[Tenant], state: &State) -> Result<Vec<Assignment>, AssignError>;

    /// The network namespace in which a tenant's switch finds its devices.
    fn namespace(&self, tenant: &Name) -> String;

    /// All objects of a switch with these devices of the host, and how to probe each port. `config`
    /// has the devices as the switch sees them, which may differ.
    fn resources(
        &self,
        tenant: &Tenant,
        config: &SwitchConfig,
        devices: &Assignment,
    ) -> (Vec<Resource>, Vec<Probe>);
}
