//! Virtual functions of SR-IOV NICs.
//!
//! Each port has two on one physical function: its T VF for the VM and its Gw VF for the switch, alone on a VLAN of
//! their own, so that the NIC's embedded switch can give a frame of the VM to nobody but the switch. The In/Out VF
//! leads to the underlay, without a VLAN. [`inventory`] says what there is, [`allocate`] who gets what; both are data
//! and functions of data. What is set is read back from the kernel, function by function.

pub mod allocate;
mod functions;
pub mod inventory;
mod prove;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use tenant_config::{Device, Name, PciAddress, Port, SwitchConfig, Tenant};

use self::allocate::Pool;
use self::inventory::Inventory;
use super::NicBackend;
use super::mediation::onboarded;
use super::veth::{GUEST_INTERFACE, Veth};
use crate::host::HostError;
use crate::resource::{
    Assignment, Key, Namespace, Owner, Pf, PfSettings, Resource, Side, Vf, VfInterface, VfSettings,
};
use crate::state::{Probe, Record, State};

/// Who is behind the T VFs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guests {
    /// A virtual machine: the T VF is bound to vfio-pci for it.
    Vfio,
    /// A network namespace named like the port, with the T VF as its `eth0` by this driver of the kernel's; that of
    /// the NIC's maker if none is named.
    Namespace(Option<String>),
}

/// The backend. What it is asked to observe, create, update, delete or probe and does not know is a matter for
/// [`Veth`], so that tenants of both kinds are on one host.
#[derive(Debug, Clone)]
pub struct Sriov {
    inner: Veth,
    inventory: Inventory,
    pool: Pool,
    guests: Guests,
    /// Whether new functions are probed before a switch is given them.
    proving: bool,
    /// Each function's place in the inventory, by address.
    places: HashMap<PciAddress, (usize, u32)>,
    /// What physical functions were like before they were ours.
    found: HashMap<PciAddress, Pf>,
    /// The drivers that functions had before they were ours.
    found_drivers: HashMap<PciAddress, Option<String>>,
}

/// The driver of the kernel's for the virtual functions of a physical one with this driver.
fn kernel_driver(pf_driver: &str) -> &str {
    match pf_driver {
        "igb" => "igbvf",
        "ixgbe" => "ixgbevf",
        "i40e" | "ice" => "iavf",
        // mlx5_core, bnxt_en and others drive both.
        other => other,
    }
}

impl Sriov {
    /// Takes functions of `pool` out of `inventory`, as far as `state` does not say otherwise.
    pub fn new(
        inner: Veth,
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
            inner,
            inventory,
            pool,
            guests,
            proving: true,
            places,
            found,
            found_drivers,
        }
    }

    /// For all but `assign` and `resources`.
    pub fn hands(inner: Veth, resize: bool) -> Self {
        let range = allocate::VlanRange::default();
        let pool = Pool {
            pfs: Vec::new(),
            inout: None,
            vlans: range,
            keep_vlans: true,
            inout_vlan: None,
            resize,
        };
        let (inventory, state) = (Inventory::default(), State::default());
        Self::new(inner, inventory, pool, Guests::Vfio, &state)
    }

    /// The same, without a probe before a switch is given its functions.
    #[must_use]
    pub fn unproven(self) -> Self {
        Self {
            proving: false,
            ..self
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
            driver: Some(functions::VFIO.to_owned()),
            alone: Some(true),
            interface: None,
            found_driver,
        })
    }

    /// The T VF, and where it is a namespace's, that namespace.
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
        let namespace = self.inner.namespace_of(port.name.as_str());
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
    fn name(&self) -> &'static str {
        "sriov"
    }

    fn assign(
        &self,
        tenants: &[Tenant],
        state: &State,
    ) -> Result<Vec<Assignment>, allocate::AllocationError> {
        allocate::allocate(tenants, state, &self.inventory, &self.pool)
    }

    fn namespace(&self, tenant: &Name) -> String {
        self.inner.namespace(tenant)
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
                probes.push(Probe {
                    port: port.name.clone(),
                    namespace: namespace.name.clone(),
                    interface: GUEST_INTERFACE.to_owned(),
                    mac: port.mac,
                    ipv4: config.gateway.ipv4.map(|net| net.addr()),
                    ipv6: config.gateway.ipv6.map(|net| net.addr()),
                    gateway_mac: switch_port.gateway_mac,
                    patience_s: None,
                });
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

    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError> {
        Ok(match wanted {
            Resource::Pf(pf) => functions::observe_pf(pf)?.map(Resource::Pf),
            Resource::Vf(vf) => functions::observe_vf(vf)?.map(|vf| Resource::Vf(Box::new(vf))),
            _ => return self.inner.observe(wanted),
        })
    }

    fn create(&mut self, resource: &Resource) -> Result<(), HostError> {
        match resource {
            Resource::Pf(pf) => functions::set_pf(pf, pf.set, self.pool.resize),
            Resource::Vf(vf) => functions::create_vf(vf),
            _ => self.inner.create(resource),
        }
    }

    fn update(&mut self, from: &Resource, to: &Resource) -> Result<(), HostError> {
        match to {
            Resource::Pf(pf) => functions::set_pf(pf, pf.set, self.pool.resize),
            Resource::Vf(vf) => functions::update_vf(vf),
            _ => self.inner.update(from, to),
        }
    }

    fn delete(&mut self, resource: &Resource) -> Result<(), HostError> {
        match resource {
            Resource::Pf(pf) => functions::release_pf(pf, self.pool.resize),
            Resource::Vf(vf) => functions::scrub_vf(vf),
            _ => self.inner.delete(resource),
        }
    }

    fn prove(
        &mut self,
        record: &Record,
        new: &BTreeSet<Key>,
        state: &State,
        control: &dyn Fn(&Name) -> PathBuf,
    ) -> Result<(), HostError> {
        let vfs: Vec<(&Vf, String)> = record
            .resources
            .iter()
            .filter_map(|resource| match resource {
                Resource::Vf(vf) if new.contains(&resource.key()) => {
                    let driver = functions::pf_driver(&vf.pf).unwrap_or_default();
                    Some((&**vf, kernel_driver(&driver).to_owned()))
                }
                _ => None,
            })
            .collect();
        if vfs.is_empty() || !self.proving {
            return Ok(());
        }
        let others = onboarded::listeners(record, state, &inventory::read()?, control);
        prove::prove(&vfs, others)
    }

    fn probe(&mut self, probe: &Probe) -> Result<(), HostError> {
        self.inner.probe(probe)
    }
}

/// The names of the physical functions that tenants are recorded on.
pub fn recorded_pfs(state: &State) -> Vec<String> {
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

/// Whether the guests of the tenants recorded are namespaces.
pub fn has_namespaces(state: &State) -> bool {
    let mut resources = state.tenants.values().flat_map(|record| &record.resources);
    resources.any(|resource| matches!(resource, Resource::Vf(vf) if vf.interface.is_some()))
}

/// Whether any tenant has a virtual function.
pub fn is_recorded(state: &State) -> bool {
    state
        .owned
        .keys()
        .any(|key| matches!(key, Key::Pf { .. } | Key::Vf { .. }))
        || !recorded_pfs(state).is_empty()
}
