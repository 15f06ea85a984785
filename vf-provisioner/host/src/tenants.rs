//! Turns tenants, as operators write them, into records of everything they need on this host.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tenant_config::{
    ConfigErrors, DeviceMismatch, Devices, HostTenant, MacAddr, Name, SwitchConfig, Tenant,
    check_host,
};

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
#[derive(Debug, Clone)]
pub struct Site {
    /// The cores.
    pub placement: Placement,
    /// The first of the users that switches run as; there are [`UIDS`] of them.
    pub uid_base: u32,
    /// Users that own a process now; a new tenant gets none of these.
    pub uids_in_use: BTreeSet<u32>,
    /// Users of released tenants, the least recently released first. A new tenant gets one of these
    /// only if no other is left.
    pub released_uids: Vec<u32>,
    /// Whose account a user is, as [`account_of`](crate::accounts::account_of) does; a new tenant
    /// gets none with an account.
    pub account_of: fn(u32) -> Result<Option<String>, String>,
}

/// The first of the users that switches run as by default.
///
/// 65536 to 99999 is the range that nobody hands out: Debian's policy (9.2.2) has adduser leave it
/// alone, systemd's dynamic users end at 65519 and its containers begin at 524288, and subordinate
/// ids begin at 100000.
pub const DEFAULT_UID_BASE: u32 = 66_000;

/// How many users there are for switches.
pub const UIDS: u32 = 1000;

/// Why tenants cannot be placed on this host. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// No user is left.
    #[error(
        "tenant {tenant}: all {UIDS} users from {base} on are taken{accounts}: release a tenant, \
         or give another --uid-base"
    )]
    NoUid {
        /// Which tenant.
        tenant: Name,
        /// The first user.
        base: u32,
        /// An account among them, as the rest of a sentence.
        accounts: String,
    },
    /// It is unknown whether a user is free.
    #[error("tenant {tenant}: {reason}; no user can be given to its switch")]
    UnknownAccounts {
        /// Which tenant.
        tenant: Name,
        /// Why.
        reason: String,
    },
    /// Its launcher can run no IKE daemon.
    #[error("tenant {tenant}: tunnel.ipsec: {why}")]
    NoIke {
        /// Which tenant.
        tenant: Name,
        /// Why.
        why: String,
    },
    /// The user of its IKE daemon is somebody's.
    #[error(
        "tenant {tenant}: tunnel.ipsec: its IKE daemon would run as user {uid}, which is \
         {account}: give another --uid-base, or remove that account"
    )]
    IkeAccount {
        /// Which tenant.
        tenant: Name,
        /// The user.
        uid: u32,
        /// Whose it is.
        account: String,
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
    /// The addresses of two tenants of this host must not meet.
    #[error(transparent)]
    Addresses(#[from] ConfigErrors),
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
    let mut records = BTreeMap::new();
    for (tenant, devices) in tenants.iter().zip(assigned) {
        let name = tenant.name();
        let uid = uids.of(name, state)?;
        let cpu = cores.of(name, state)?;
        let ike = tenant.ike_config();
        if ike.is_some() {
            check_ike(name, uid, site, launcher)?;
        }
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
            ike,
            needs: needed.map(Resource::key).collect(),
        };
        resources.extend(launcher.resources(&config, &slot));
        let record = Record {
            uid,
            resources,
            probes,
            complete: false,
            previous: None,
            formerly: None,
            paused: None,
        };
        // What an operator has stopped stays so.
        let paused = state.tenants.get(name).and_then(|it| it.paused.as_ref());
        let record = match paused {
            Some(paused) => record.paused(paused.mode),
            None => record,
        };
        records.insert(name.clone(), record);
    }
    no_sharing(state, &records)?;
    no_meeting(state, &records)?;
    for (name, record) in &mut records {
        // An apply without changes leaves the record as it is.
        record.complete = state.tenants.get(name).is_some_and(|before| {
            let same = before.resources == record.resources && before.paused == record.paused;
            before.complete && same
        });
    }
    Ok(records)
}

/// Refuses an IKE daemon that this host cannot carry.
fn check_ike(
    tenant: &Name,
    switch_uid: u32,
    site: &Site,
    launcher: &dyn Launcher,
) -> Result<(), PlacementError> {
    let tenant = || tenant.clone();
    let no_ike = |why| PlacementError::NoIke {
        tenant: tenant(),
        why,
    };
    let Some(uid) = launcher.ike_uid(switch_uid).map_err(no_ike)? else {
        return Ok(());
    };
    let account = (site.account_of)(uid).map_err(|reason| PlacementError::UnknownAccounts {
        tenant: tenant(),
        reason,
    })?;
    match account {
        None => Ok(()),
        Some(account) => Err(PlacementError::IkeAccount {
            tenant: tenant(),
            uid,
            account,
        }),
    }
}

/// What becomes of tenants that are placed independently of each other.
#[derive(Debug, Default)]
pub struct Placed {
    /// The records of those that fit.
    pub records: BTreeMap<Name, Record>,
    /// Why the others do not.
    pub refused: BTreeMap<Name, PlacementError>,
}

/// The records of those `tenants` that this host can carry together, as [`records`] makes them. Of
/// two that exclude each other the first has precedence.
pub fn place(
    tenants: &[Tenant],
    state: &State,
    site: &Site,
    nic: &dyn NicBackend,
    launcher: &dyn Launcher,
) -> Placed {
    let mut placed = Placed::default();
    let mut accepted: Vec<Tenant> = Vec::new();
    // Parts that do not fit are halved until the culprit is alone.
    let mut parts = vec![tenants];
    while let Some(part) = parts.pop() {
        accepted.extend_from_slice(part);
        match records(&accepted, state, site, nic, launcher) {
            Ok(records) => placed.records = records,
            Err(error) => {
                accepted.truncate(accepted.len() - part.len());
                if let [culprit] = part {
                    placed.refused.insert(culprit.name().clone(), error);
                } else {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
    }
    placed
}

/// The users of switches. Free ones are searched once: those that no tenant ever had in ascending
/// order, then released ones.
struct Uids<'a> {
    taken: BTreeSet<u32>,
    site: &'a Site,
    candidates: VecDeque<u32>,
    /// The first account that was found among the candidates.
    account: Option<String>,
}

impl<'a> Uids<'a> {
    fn new(state: &State, site: &'a Site) -> Self {
        let range = site.uid_base..site.uid_base.saturating_add(UIDS);
        let released: BTreeSet<u32> = site.released_uids.iter().copied().collect();
        let unused = range.clone().filter(|uid| !released.contains(uid));
        let released = site.released_uids.iter().copied();
        let released = released.filter(|uid| range.contains(uid));
        Self {
            taken: state.tenants.values().map(|record| record.uid).collect(),
            site,
            candidates: unused.chain(released).collect(),
            account: None,
        }
    }

    fn of(&mut self, name: &Name, state: &State) -> Result<u32, PlacementError> {
        if let Some(record) = state.tenants.get(name) {
            return Ok(record.uid);
        }
        while let Some(uid) = self.candidates.pop_front() {
            if self.taken.contains(&uid) || self.site.uids_in_use.contains(&uid) {
                continue;
            }
            let account = (self.site.account_of)(uid);
            match account.map_err(|reason| PlacementError::UnknownAccounts {
                tenant: name.clone(),
                reason,
            })? {
                None => return Ok(uid),
                Some(account) => {
                    tracing::warn!("no switch runs as user {uid}: it is {account}");
                    self.account.get_or_insert(format!("{uid} is {account}"));
                }
            }
        }
        Err(PlacementError::NoUid {
            tenant: name.clone(),
            base: self.site.uid_base,
            accounts: match &self.account {
                None => String::new(),
                Some(account) => format!(" ({account})"),
            },
        })
    }
}

/// The cores of switches.
struct Cores<'a> {
    placement: &'a Placement,
    free: VecDeque<u32>,
}

fn core_of(record: &Record) -> Option<u32> {
    record.switch()?.cpu
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
fn no_sharing(state: &State, new: &BTreeMap<Name, Record>) -> Result<(), PlacementError> {
    let mut all: BTreeMap<&Name, &Record> = state.tenants.iter().collect();
    all.extend(new);
    let mut seen: BTreeMap<String, &Name> = BTreeMap::new();
    for (name, record) in all {
        for what in claims(record) {
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

/// What no two tenants of a host may both have.
pub(crate) fn claims(record: &Record) -> BTreeSet<String> {
    let objects = record.resources.iter().filter(|it| !it.is_shared());
    let mut claims: BTreeSet<String> = objects.map(|resource| resource.key().to_string()).collect();
    let Some(switch) = record.switch() else {
        return claims;
    };
    let config = &switch.config;
    let mac = |mac: &MacAddr| format!("MAC {mac}");
    claims.insert(format!("VNI {}", config.vni));
    for port in &config.ports {
        claims.insert(mac(&port.mac));
        claims.extend(port.extra_macs.iter().map(mac));
        claims.insert(format!("a port named {}", port.name));
    }
    let uplink = config.uplink.iter();
    let addresses = uplink.flat_map(|uplink| uplink.own_addresses());
    claims.extend(addresses.map(|address| format!("uplink address {address}")));
    claims
}

/// Refuses tenants whose addresses meet on the underlay. Recorded tenants that are not of this
/// change are compared with those of the change only: an old conflict keeps no other tenant away.
fn no_meeting(state: &State, new: &BTreeMap<Name, Record>) -> Result<(), ConfigErrors> {
    let others = state.tenants.iter();
    let others = others.filter(|(name, _)| !new.contains_key(*name));
    let (others, new) = (sources(others), sources(new));
    check_host(&host_tenants(&others), &host_tenants(&new))
}

/// The records' switches, and how errors name them.
pub(crate) fn sources<'a>(
    records: impl IntoIterator<Item = (&'a Name, &'a Record)>,
) -> Vec<(String, &'a SwitchConfig)> {
    let named = records.into_iter().filter_map(|(name, record)| {
        let switch = record.switch()?;
        Some((format!("tenant {name}"), &switch.config))
    });
    named.collect()
}

pub(crate) fn host_tenants<'a>(sources: &'a [(String, &'a SwitchConfig)]) -> Vec<HostTenant<'a>> {
    let tenants = sources.iter();
    tenants
        .map(|(source, config)| HostTenant { source, config })
        .collect()
}
