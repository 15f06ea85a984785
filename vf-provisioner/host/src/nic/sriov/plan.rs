//! Plans a tenant on virtual functions.

use std::collections::{BTreeMap, HashMap};

use tenant_config::{Device, Name, PciAddress, Port, SwitchConfig, Tenant};

use super::allocate::{self, Pool};
use super::function::{
    Owner, Pf, PfSettings, Side, VFIO, Vf, VfInterface, VfSettings, is_bifurcated, kernel_driver,
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

    /// A PF whose functions carry packets of this size.
    fn pf(&self, place: usize, mtu: u16) -> Option<Pf> {
        let pf = self.inventory.pfs.get(place)?;
        pf.interface.as_ref()?;
        let before = self.found.get(&pf.address);
        let recorded = before.map(|before| before.set.vfs);
        // A program that did not set the MTU did not record it.
        let found = before.map_or(pf.set, |before| PfSettings {
            mtu: before.found.mtu.or(pf.set.mtu),
            ..before.found
        });
        Some(Pf {
            address: pf.address,
            set: PfSettings {
                autoprobe: false,
                vfs: allocate::count(pf, &self.pool, recorded),
                up: true,
                mtu: found.mtu.map(|found| found.max(mtu.into())),
            },
            found,
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
            pf: self.inventory.pfs.get(place)?.address,
            index,
            owner: Owner {
                tenant: tenant.name().clone(),
                port: port.cloned(),
                side,
            },
            set: VfSettings {
                mac: Some(mac),
                vlan: *vlan,
                link_state: tenant.nic().link_state.as_str().to_owned(),
                ..VfSettings::default()
            },
            accept: tenant.nic().accept.clone(),
            driver: Some(VFIO.to_owned()),
            alone: Some(true),
            interface: None,
            found_driver,
        })
    }

    /// The switch's VF as DPDK drives it. Some NICs' functions keep the kernel's driver: their
    /// interfaces are in the switch's namespace. A switch that sees another device runs in a
    /// machine, which gets the function as a whole.
    fn shared_with_kernel(&self, vf: Vf, mtu: u16) -> Vf {
        let pf = self.inventory.pfs.iter().find(|pf| pf.address == vf.pf);
        let driver = pf.and_then(|pf| pf.driver.as_deref()).unwrap_or_default();
        if !is_bifurcated(driver) {
            return vf;
        }
        Vf {
            driver: Some(kernel_driver(driver).to_owned()),
            alone: None,
            interface: Some(VfInterface {
                namespace: self.names.switch_namespace(&vf.owner.tenant),
                name: format!("vf{}", vf.address.to_string().replace([':', '.'], "")),
                mac: vf.set.mac,
                mtu: mtu.into(),
                up: true,
            }),
            ..vf
        }
    }

    /// The PFs of a tenant's devices, by their place in the inventory, each with the largest packet
    /// that their functions carry.
    fn largest(&self, config: &SwitchConfig, devices: &Assignment) -> BTreeMap<usize, u16> {
        let mtus = config.ports.iter().map(|port| port.mtu);
        let ports = devices.ports.iter().zip(mtus.clone());
        let guests = devices.guests.iter().zip(mtus);
        let uplink = devices.uplink.iter();
        let uplink = uplink.zip(config.uplink.iter().map(|uplink| uplink.mtu));
        let mut largest = BTreeMap::new();
        for (device, mtu) in ports.chain(guests).chain(uplink) {
            if let Device::Pci { address, .. } = device
                && let Some((place, _)) = self.places.get(address)
            {
                let most = largest.entry(*place).or_insert(mtu);
                *most = mtu.max(*most);
            }
        }
        largest
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
        let pfs = self.largest(config, devices).into_iter();
        let pfs = pfs.filter_map(|(place, mtu)| self.pf(place, mtu));
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
            let gw_vf = gw_vf.map(|vf| match switch_port.device == *gateway {
                true => self.shared_with_kernel(vf, switch_port.mtu),
                false => vf,
            });
            resources.extend(gw_vf.map(|vf| Resource::Vf(Box::new(vf))));
        }
        if let (Some(uplink), Some(device)) = (&config.uplink, &devices.uplink) {
            let vf = self.vf(tenant, None, Side::InOut, device, uplink.mac);
            let vf = vf.map(|vf| match uplink.device == *device {
                true => self.shared_with_kernel(vf, uplink.mtu),
                false => vf,
            });
            resources.extend(vf.map(|vf| Resource::Vf(Box::new(vf))));
        }
        (resources, probes)
    }
}

/// The PFs of recorded tenants, by address: they may have been renamed.
pub(super) fn recorded_pfs(state: &State) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    for resource in state.tenants.values().flat_map(|record| &record.resources) {
        if let Resource::Pf(pf) = resource {
            let address = pf.address.to_string();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    addresses
}

/// Whether the guests of recorded tenants are namespaces.
pub(super) fn has_namespaces(state: &State) -> bool {
    let mut resources = state.tenants.values().flat_map(|record| &record.resources);
    resources.any(|resource| {
        matches!(resource, Resource::Vf(vf)
        if vf.owner.side == Side::Guest && vf.interface.is_some())
    })
}

/// Whether any tenant has a VF.
pub(super) fn is_recorded(state: &State) -> bool {
    state
        .owned
        .keys()
        .any(|key| matches!(key, Key::Pf { .. } | Key::Vf { .. }))
        || !recorded_pfs(state).is_empty()
}
