//! Plans a tenant on virtual functions.

use std::collections::HashMap;

use tenant_config::{Device, Name, PciAddress, Port, SwitchConfig, Tenant};

use super::allocate::{self, Pool};
use super::function::{
    Owner, Pf, PfSettings, Side, VFIO, Vf, VfInterface, VfSettings, kernel_driver,
};
use super::inventory::Inventory;
use crate::nic::parts::names::{GUEST_INTERFACE, Names};
use crate::nic::parts::netns::Namespace;
use crate::nic::probe::Probe;
use crate::nic::{AssignError, Assignment, NicBackend};
use crate::resource::{Key, Resource};
use crate::state::State;

/// What uses the T VFs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guests {
    /// A virtual machine: the T VF is bound to vfio-pci for it.
    Vfio,
    /// A network namespace named like the port, with the T VF as its `eth0`, by this kernel driver
    /// or, if `None`, by the one that matches the PF's driver.
    Namespace(Option<String>),
}

/// The backend.
#[derive(Debug, Clone)]
pub struct Sriov {
    names: Names,
    inventory: Inventory,
    pool: Pool,
    guests: Guests,
    /// Each VF's PF (its index in the inventory) and number, by address.
    places: HashMap<PciAddress, (usize, u32)>,
    /// The recorded PFs, which have their original settings.
    found: HashMap<PciAddress, Pf>,
    /// The original drivers of VFs.
    found_drivers: HashMap<PciAddress, Option<String>>,
}

impl Sriov {
    /// Assigns the functions of `pool` in `inventory` that are not taken in `state`.
    pub fn new(
        names: Names,
        inventory: Inventory,
        pool: Pool,
        guests: Guests,
        state: &State,
    ) -> Self {
        let mut places = HashMap::new();
        let mut found_drivers = HashMap::new();
        for (place, pf) in inventory.pfs.iter().enumerate() {
            for index in 0..pf.total_vfs {
                if let Some(address) = pf.vf_address(index) {
                    places.insert(address, (place, index));
                }
            }
            for vf in &pf.vfs {
                places.insert(vf.address, (place, vf.index));
                found_drivers.insert(vf.address, vf.driver.clone());
            }
        }
        let mut found = HashMap::new();
        let recorded = state.tenants.values().flat_map(|record| &record.resources);
        for resource in recorded.chain(state.owned.values()) {
            match resource {
                Resource::Pf(pf) => {
                    found.insert(pf.address, pf.clone());
                }
                Resource::Vf(vf) => {
                    found_drivers.insert(vf.address, vf.found_driver.clone());
                }
                _ => {}
            }
        }
        Self {
            names,
            inventory,
            pool,
            guests,
            places,
            found,
            found_drivers,
        }
    }

    fn pf(&self, place: usize) -> Option<Pf> {
        let pf = self.inventory.pfs.get(place)?;
        let interface = pf.interface.clone()?;
        let before = self.found.get(&pf.address);
        let vfs = match before {
            Some(before) if !self.pool.resize => before.set.vfs,
            _ => allocate::count(pf, self.pool.resize),
        };
        Some(Pf {
            address: pf.address,
            interface,
            set: PfSettings {
                autoprobe: false,
                vfs,
                up: true,
            },
            found: before.map_or(pf.set, |before| before.found),
        })
    }

    fn vf(
        &self,
        tenant: &Tenant,
        port: Option<&Name>,
        side: Side,
        device: &Device,
        mac: tenant_config::MacAddr,
    ) -> Option<Vf> {
        let Device::Pci { address, vlan } = device else {
            return None;
        };
        let (place, index) = *self.places.get(address)?;
        let found_driver = self.found_drivers.get(address).cloned().flatten();
        Some(Vf {
            address: *address,
            pf: self.inventory.pfs.get(place)?.interface.clone()?,
            index,
            owner: Owner {
                tenant: tenant.name().clone(),
                port: port.cloned(),
                side,
            },
            set: VfSettings {
                mac: Some(mac),
                vlan: *vlan,
                ..VfSettings::default()
            },
            accept: tenant.nic().accept.clone(),
            driver: Some(VFIO.to_owned()),
            alone: Some(true),
            interface: None,
            found_driver,
        })
    }

    /// The T VF, and its namespace if it has one.
    fn guest(
        &self,
        tenant: &Tenant,
        port: &Port,
        device: &Device,
    ) -> (Option<Resource>, Option<Resource>) {
        let vf = self.vf(tenant, Some(&port.name), Side::Guest, device, port.mac);
        let Some(mut vf) = vf else {
            return (None, None);
        };
        vf.set.max_rate_mbit = port.rate_mbit.unwrap_or(0);
        vf.set.min_rate_mbit = port.min_rate_mbit.unwrap_or(0);
        let Guests::Namespace(driver) = &self.guests else {
            return (None, Some(Resource::Vf(Box::new(vf))));
        };
        let namespace = self.names.namespace(port.name.as_str());
        let pf = self.places.get(&vf.address);
        let pf = pf.and_then(|(place, _)| self.inventory.pfs.get(*place));
        let pf_driver = pf.and_then(|pf| pf.driver.as_deref()).unwrap_or_default();
        let own = || kernel_driver(pf_driver).to_owned();
        vf.driver = Some(driver.clone().unwrap_or_else(own));
        vf.alone = None;
        vf.interface = Some(VfInterface {
            namespace: namespace.clone(),
            name: GUEST_INTERFACE.to_owned(),
            mac: Some(port.mac),
            mtu: port.mtu.into(),
            up: true,
        });
        let namespace = Resource::Namespace(Namespace {
            name: namespace,
            adopt: true,
        });
        (Some(namespace), Some(Resource::Vf(Box::new(vf))))
    }
}

impl NicBackend for Sriov {
    fn assign(&self, tenants: &[Tenant], state: &State) -> Result<Vec<Assignment>, AssignError> {
        Ok(allocate::allocate(
            tenants,
            state,
            &self.inventory,
            &self.pool,
        )?)
    }

    fn namespace(&self, tenant: &Name) -> String {
        self.names.switch_namespace(tenant)
    }

    fn resources(
        &self,
        tenant: &Tenant,
        config: &SwitchConfig,
        devices: &Assignment,
    ) -> (Vec<Resource>, Vec<Probe>) {
        let mut resources = vec![Resource::Namespace(Namespace {
            name: self.namespace(tenant.name()),
            adopt: false,
        })];
        let mut probes = Vec::new();
        let all = devices.ports.iter().chain(&devices.guests);
        let mut places: Vec<usize> = all
            .chain(&devices.uplink)
            .filter_map(|device| match device {
                Device::Pci { address, .. } => Some(self.places.get(address)?.0),
                _ => None,
            })
            .collect();
        places.sort_unstable();
        places.dedup();
        let pfs = places.into_iter().filter_map(|place| self.pf(place));
        resources.extend(pfs.map(Resource::Pf));
        let ports = tenant.ports().iter().zip(&config.ports);
        let functions = devices.ports.iter().zip(&devices.guests);
        for ((port, switch_port), (gateway, guest)) in ports.zip(functions) {
            let (namespace, t_vf) = self.guest(tenant, port, guest);
            if let Some(Resource::Namespace(namespace)) = &namespace {
                let (gateway, namespace) = (&config.gateway, &namespace.name);
                probes.push(Probe::new(switch_port, gateway, namespace, GUEST_INTERFACE));
            }
            resources.extend(namespace.into_iter().chain(t_vf));
            let mac = switch_port.gateway_mac;
            let gw_vf = self.vf(tenant, Some(&port.name), Side::Gateway, gateway, mac);
            resources.extend(gw_vf.map(|vf| Resource::Vf(Box::new(vf))));
        }
        if let (Some(uplink), Some(device)) = (&config.uplink, &devices.uplink) {
            let vf = self.vf(tenant, None, Side::InOut, device, uplink.mac);
            resources.extend(vf.map(|vf| Resource::Vf(Box::new(vf))));
        }
        (resources, probes)
    }
}

/// The interfaces of the PFs of recorded tenants.
pub(super) fn recorded_pfs(state: &State) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for resource in state.tenants.values().flat_map(|record| &record.resources) {
        if let Resource::Pf(pf) = resource
            && !names.contains(&pf.interface)
        {
            names.push(pf.interface.clone());
        }
    }
    names
}

/// Whether the guests of recorded tenants are namespaces.
pub(super) fn has_namespaces(state: &State) -> bool {
    let mut resources = state.tenants.values().flat_map(|record| &record.resources);
    resources.any(|resource| matches!(resource, Resource::Vf(vf) if vf.interface.is_some()))
}

/// Whether any tenant has a VF.
pub(super) fn is_recorded(state: &State) -> bool {
    state
        .owned
        .keys()
        .any(|key| matches!(key, Key::Pf { .. } | Key::Vf { .. }))
        || !recorded_pfs(state).is_empty()
}
