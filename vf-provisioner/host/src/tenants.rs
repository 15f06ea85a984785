//! Turns tenants, as operators write them, into records of everything they need on this host.

use std::collections::{BTreeMap, BTreeSet};

use tenant_config::{DeviceMismatch, Devices, MacAddr, Name, Tenant};

use crate::launcher::{Launcher, Slot};
use crate::nic::{AssignError, NicBackend};
use crate::resource::Resource;
use crate::state::{Record, State};

/// Which cores switches run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// All on this core.
    Shared(u32),
    /// One of these cores each.
    Isolated(Vec<u32>),
}

/// The cores and users that this host has for switches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The cores.
    pub placement: Placement,
    /// The first of the users that switches run as; there are [`UIDS`] of them.
    pub uid_base: u32,
    /// Users that own a process now; a new tenant gets none of these.
    pub uids_in_use: BTreeSet<u32>,
}

/// How many users there are for switches.
pub const UIDS: u32 = 1000;

/// Why tenants cannot be placed on this host. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// No user is left.
    #[error(
        "tenant {tenant}: all {UIDS} users from {base} on are taken: release a tenant, or give \
         another --uid-base"
    )]
    NoUid {
        /// Which tenant.
        tenant: Name,
        /// The first user.
        base: u32,
    },
    /// No core is left.
    #[error(
        "tenant {tenant}: each of the cores {cores:?} is another tenant's: name more of them in \
         --cpus, or use --placement shared"
    )]
    NoCore {
        /// Which tenant.
        tenant: Name,
        /// The cores given.
        cores: Vec<u32>,
    },
    /// Two tenants of this host share what only one may have.
    #[error("tenants {one} and {other} both have {what}: change one of them")]
    Shared {
        /// One of them.
        one: Name,
        /// The other.
        other: Name,
        /// What they share.
        what: String,
    },
    /// The backend has no devices for the tenants.
    #[error("{0}")]
    Allocation(AssignError),
    /// The backend's devices do not match the tenant.
    #[error(transparent)]
    Mismatch(#[from] DeviceMismatch),
}

/// The records of `tenants`, given the others' in `state`. A tenant keeps its user and core.
pub fn records(
    tenants: &[Tenant],
    state: &State,
    site: &Site,
    nic: &dyn NicBackend,
    launcher: &dyn Launcher,
) -> Result<BTreeMap<Name, Record>, PlacementError> {
    let assigned = nic
        .assign(tenants, state)
        .map_err(PlacementError::Allocation)?;
    let mut uids = Uids::new(state, site);
    let mut cores = Cores::new(state, site);
    let mut all = state.tenants.clone();
    let mut records = BTreeMap::new();
    for (tenant, devices) in tenants.iter().zip(assigned) {
        let name = tenant.name();
        let uid = uids.of(name, state)?;
        let cpu = cores.of(name, state)?;
        let inside = launcher.inside(&devices);
        let config = tenant.switch_config(Devices {
            ports: inside.ports,
            uplink: inside.uplink,
            memory: launcher.memory(),
            control_socket: Some(launcher.control_socket_inside()),
        })?;
        let (mut resources, mut probes) = nic.resources(tenant, &config, &devices);
        for probe in &mut probes {
            probe.patience_s = launcher.answers_within().map(|patience| patience.as_secs());
        }
        let needed = resources.iter().filter(|it| it.carries_switch());
        let slot = Slot {
            uid,
            cpu: Some(cpu),
            namespace: nic.namespace(name),
            devices,
            needs: needed.map(Resource::key).collect(),
        };
        resources.extend(launcher.resources(&config, &slot));
        let record = Record {
            uid,
            resources,
            probes,
            complete: false,
        };
        all.insert(name.clone(), record.clone());
        records.insert(name.clone(), record);
    }
    no_sharing(&all)?;
    for (name, record) in &mut records {
        // An apply without changes leaves the record as it is.
        record.complete = state
            .tenants
            .get(name)
            .is_some_and(|before| before.complete && before.resources == record.resources);
    }
    Ok(records)
}

/// The users of switches. Free ones are searched once, in ascending order.
struct Uids<'a> {
    taken: BTreeSet<u32>,
    site: &'a Site,
    next: u32,
}

impl<'a> Uids<'a> {
    fn new(state: &State, site: &'a Site) -> Self {
        Self {
            taken: state.tenants.values().map(|record| record.uid).collect(),
            site,
            next: site.uid_base,
        }
    }

    fn of(&mut self, name: &Name, state: &State) -> Result<u32, PlacementError> {
        if let Some(record) = state.tenants.get(name) {
            return Ok(record.uid);
        }
        let end = self.site.uid_base.saturating_add(UIDS);
        let free = |uid: &u32| !self.taken.contains(uid) && !self.site.uids_in_use.contains(uid);
        let uid = (self.next..end)
            .find(free)
            .ok_or_else(|| PlacementError::NoUid {
                tenant: name.clone(),
                base: self.site.uid_base,
            })?;
        self.next = uid + 1;
        Ok(uid)
    }
}

/// The cores of switches.
struct Cores<'a> {
    placement: &'a Placement,
    free: std::collections::VecDeque<u32>,
}

fn core_of(record: &Record) -> Option<u32> {
    record.resources.iter().find_map(|resource| match resource {
        Resource::Switch(switch) => switch.cpu,
        _ => None,
    })
}

impl<'a> Cores<'a> {
    fn new(state: &State, site: &'a Site) -> Self {
        let mut taken: BTreeSet<u32> = state.tenants.values().filter_map(core_of).collect();
        let free = match &site.placement {
            Placement::Shared(_) => Default::default(),
            Placement::Isolated(cores) => {
                let free = cores.iter().filter(|core| taken.insert(**core));
                free.copied().collect()
            }
        };
        Self {
            placement: &site.placement,
            free,
        }
    }

    fn of(&mut self, name: &Name, state: &State) -> Result<u32, PlacementError> {
        let cores = match self.placement {
            Placement::Shared(core) => return Ok(*core),
            Placement::Isolated(cores) => cores,
        };
        if let Some(core) = state.tenants.get(name).and_then(core_of)
            && cores.contains(&core)
        {
            return Ok(core);
        }
        self.free.pop_front().ok_or_else(|| PlacementError::NoCore {
            tenant: name.clone(),
            cores: cores.clone(),
        })
    }
}

/// Refuses tenants that share a MAC, a VNI, an address of the underlay, or an object of the host: a
/// port may be named like the namespace of another's switch, and shortened names of bridge ports
/// may be the same.
fn no_sharing(all: &BTreeMap<Name, Record>) -> Result<(), PlacementError> {
    let mut seen: BTreeMap<String, &Name> = BTreeMap::new();
    for (name, record) in all {
        let config = record.resources.iter().find_map(|resource| match resource {
            Resource::Switch(switch) => Some(&switch.config),
            _ => None,
        });
        let Some(config) = config else {
            continue;
        };
        let mac = |mac: &MacAddr| format!("MAC {mac}");
        let mut own = BTreeSet::from([format!("VNI {}", config.vni)]);
        let objects = record.resources.iter().filter(|it| !it.is_shared());
        own.extend(objects.map(|resource| resource.key().to_string()));
        for port in &config.ports {
            own.insert(mac(&port.mac));
            own.extend(port.extra_macs.iter().map(mac));
            own.insert(format!("a port named {}", port.name));
        }
        if let Some(uplink) = &config.uplink {
            own.extend(
                uplink
                    .own_addresses()
                    .map(|address| format!("uplink address {address}")),
            );
        }
        for what in own {
            if let Some(other) = seen.insert(what.clone(), name) {
                return Err(PlacementError::Shared {
                    one: other.clone(),
                    other: name.clone(),
                    what,
                });
            }
        }
    }
    Ok(())
}
