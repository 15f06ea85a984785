//! Which virtual functions and VLANs each tenant gets. Pure, and linear in the number of tenants: from an inventory
//! and what is recorded to an assignment or a refusal, before anything is touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use tenant_config::{Device, MacAddr, Name, PciAddress, Tenant, VlanId};

use super::function::{Owner, Side, Vf};
use super::inventory::{Inventory, PhysicalFunction};
use crate::nic::Assignment;
use crate::resource::Resource;
use crate::state::State;

/// What an operator lets tenants have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The physical functions, by interface or address; first the first one's functions are taken.
    pub pfs: Vec<String>,
    /// The one that leads to the underlay; any of them if none is named.
    pub inout: Option<String>,
    /// The VLAN that In/Out functions are put on; they keep theirs if none is given.
    pub inout_vlan: Option<VlanId>,
    /// The VLANs that ports are put on.
    pub vlans: VlanRange,
    /// Whether a port that is on another keeps it.
    pub keep_vlans: bool,
    /// Whether a physical function's number of functions may be changed although some are in use.
    pub resize: bool,
}

/// VLANs from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanRange {
    first: VlanId,
    last: VlanId,
}

impl VlanRange {
    /// `None` if the last comes before the first.
    pub fn new(first: VlanId, last: VlanId) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// Whether `vlan` is one of them.
    pub fn contains(self, vlan: VlanId) -> bool {
        (self.first..=self.last).contains(&vlan)
    }

    fn iter(self) -> impl Iterator<Item = VlanId> {
        (self.first.get()..=self.last.get()).filter_map(|vlan| VlanId::new(vlan).ok())
    }
}

impl Default for VlanRange {
    /// 3000 to 3999: far from those that networks use first.
    fn default() -> Self {
        let vlan = |number| VlanId::new(number).expect("it is a VLAN");
        Self {
            first: vlan(3000),
            last: vlan(3999),
        }
    }
}

impl std::str::FromStr for VlanRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let vlan = |text: &str| text.parse().ok().and_then(|vlan| VlanId::new(vlan).ok());
        text.split_once('-')
            .and_then(|(first, last)| Self::new(vlan(first)?, vlan(last)?))
            .ok_or_else(|| "not two VLANs from 1 to 4094, as in 3000-3999".to_owned())
    }
}

impl fmt::Display for VlanRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.first, self.last)
    }
}

/// Why tenants do not fit on the NIC. Nothing was touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// No physical function was named.
    #[error("--nic sriov: name the physical functions in --pf; this host has {known}")]
    NoPfNamed {
        /// Those that there are.
        known: String,
    },
    /// A name that is no physical function's.
    #[error(
        "--pf {name}: no such SR-IOV NIC; this host has {known}. A NIC shows here once SR-IOV is on in its firmware and its driver is loaded"
    )]
    NoSuchPf {
        /// What was named.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// A physical function without an interface.
    #[error(
        "--pf {name}: it has no interface in this network namespace: bind its driver, or move the interface back"
    )]
    NoInterface {
        /// What was named.
        name: String,
    },
    /// A physical function without an IOMMU in front of it.
    #[error(
        "--pf {name}: no IOMMU is in front of it, so its functions cannot be given to switches: switch it on in the firmware (VT-d, AMD-Vi) and boot with intel_iommu=on or amd_iommu=on"
    )]
    NoIommu {
        /// What was named.
        name: String,
    },
    /// More functions are wanted than there are.
    #[error("{0}")]
    Budget(Box<Budget>),
    /// More VLANs are wanted than there are.
    #[error(
        "tenant {tenant}: its ports need {wanted} VLANs and {free} are free in --vlans {range} ({taken} are taken): widen the range, and keep it off the adjacent switch's port"
    )]
    Vlans {
        /// Which tenant.
        tenant: Name,
        /// How many more it needs.
        wanted: usize,
        /// How many there are.
        free: usize,
        /// How many are not free.
        taken: usize,
        /// Of which.
        range: String,
    },
    /// An In/Out function would be on a port's VLAN.
    #[error(
        "tenant {tenant}: its In/Out function would be on VLAN {vlan}, which is a port's: choose another --inout-vlan"
    )]
    Underlay {
        /// Which tenant, of those that would meet.
        tenant: Name,
        /// The VLAN.
        vlan: VlanId,
    },
    /// A MAC that somebody else has.
    #[error("MAC {mac} is that of {one} and of {other}: change one of them")]
    Mac {
        /// The MAC.
        mac: MacAddr,
        /// Who has it.
        one: String,
        /// Who is to have it.
        other: String,
    },
}

/// The numbers of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// The first tenant that does not fit.
    pub tenant: Name,
    /// How many of the tenants given fit.
    pub fit: usize,
    /// How many tenants were given.
    pub tenants: usize,
    /// The functions that all of them need beside what they have.
    pub wanted: usize,
    /// The functions that were free for them.
    pub free: usize,
    /// The same by physical function.
    pub free_on: Vec<(String, usize)>,
    /// Functions that were not free, and why.
    pub taken: Vec<String>,
}

impl fmt::Display for Budget {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let list = |items: Vec<String>| {
            let more = items.len().saturating_sub(SHOWN);
            let mut text = items[..items.len() - more].join(", ");
            if more > 0 {
                text += &format!(" and {more} more");
            }
            text
        };
        let on = self.free_on.iter().map(|(pf, free)| format!("{pf} {free}"));
        write!(
            out,
            "tenant {} does not fit: the {} tenants need {} more virtual functions (2 for each port, 1 for each uplink) and {} are free ({}); the first {} fit",
            self.tenant,
            self.tenants,
            self.wanted,
            self.free,
            list(on.collect()),
            self.fit,
        )?;
        if !self.taken.is_empty() {
            write!(out, "; not free: {}", list(self.taken.clone()))?;
        }
        out.write_str(": name more NICs in --pf, or release tenants")
    }
}

/// One physical function's functions that are left, the first last.
struct Stock {
    label: String,
    free: Vec<PciAddress>,
}

/// The physical functions named, in the order given.
pub fn named<'a>(
    inventory: &'a Inventory,
    names: &[String],
) -> Result<Vec<&'a PhysicalFunction>, AllocationError> {
    let known = || {
        let list: Vec<String> = inventory
            .pfs
            .iter()
            .map(|pf| {
                let driver = pf.driver.as_deref().unwrap_or("no driver");
                format!("{} ({driver}, {} VFs)", pf.label(), pf.total_vfs)
            })
            .collect();
        if list.is_empty() {
            "none".to_owned()
        } else {
            list.join(", ")
        }
    };
    if names.is_empty() {
        return Err(AllocationError::NoPfNamed { known: known() });
    }
    names
        .iter()
        .map(|name| {
            let is = |pf: &&PhysicalFunction| {
                pf.interface.as_ref() == Some(name) || pf.address.to_string() == *name
            };
            let pf = inventory.pfs.iter().find(is);
            let pf = pf.ok_or_else(|| AllocationError::NoSuchPf {
                name: name.clone(),
                known: known(),
            })?;
            if pf.interface.is_none() {
                return Err(AllocationError::NoInterface { name: name.clone() });
            }
            Ok(pf)
        })
        .collect()
}

/// The assignments of `tenants`, in their order.
pub fn allocate(
    tenants: &[Tenant],
    state: &State,
    inventory: &Inventory,
    pool: &Pool,
) -> Result<Vec<Assignment>, AllocationError> {
    let pfs = named(inventory, &pool.pfs)?;
    for (pf, name) in pfs.iter().zip(&pool.pfs) {
        if !pf.iommu {
            return Err(AllocationError::NoIommu { name: name.clone() });
        }
    }
    let inout = match &pool.inout {
        Some(name) => {
            let pf = named(inventory, std::slice::from_ref(name))?[0].address;
            let place = pfs.iter().position(|it| it.address == pf);
            Some(place.ok_or_else(|| AllocationError::NoSuchPf {
                name: name.clone(),
                known: pool.pfs.join(", "),
            })?)
        }
        None => None,
    };
    macs(tenants, state, inventory)?;

    let had = Had::of(state);
    let mut taken = Vec::new();
    let mut stocks = Vec::new();
    let mut on_pf: HashMap<PciAddress, usize> = HashMap::new();
    for (place, pf) in pfs.iter().enumerate() {
        let mut free = Vec::new();
        let count = count(pf, pool.resize);
        let mut there = pf.vfs.iter().peekable();
        for index in 0..count {
            let vf = there.next_if(|vf| vf.index == index);
            let Some(address) = vf.map_or_else(|| pf.vf_address(index), |vf| Some(vf.address))
            else {
                continue;
            };
            on_pf.insert(address, place);
            if had.recorded.contains_key(&address) {
                continue;
            }
            // What an interrupted release left is cleaned before it is made anew.
            let reason = vf
                .filter(|_| !state_owns(state, address))
                .and_then(|vf| vf.taken());
            match reason {
                Some(reason) => taken.push(format!("{} VF {index} ({reason})", pf.label())),
                None => free.push(address),
            }
        }
        free.reverse();
        let label = pf.label();
        stocks.push(Stock { label, free });
    }

    // What tenants of this call have had and do not keep stays taken: it is free once that is done.
    let mut wanted = 0;
    let keeps: Vec<Kept> = tenants
        .iter()
        .map(|tenant| {
            let kept = had.keep(tenant, &on_pf, inout, pool);
            wanted += kept.ports.iter().filter(|port| port.is_none()).count() * 2
                + usize::from(tenant.uplink().is_some() && kept.uplink.is_none());
            kept
        })
        .collect();
    let free_on: Vec<(String, usize)> = stocks
        .iter()
        .map(|stock| (stock.label.clone(), stock.free.len()))
        .collect();

    let mut vlans = Vlans::new(pool, &had, &keeps, inventory);
    let mut assignments = Vec::with_capacity(tenants.len());
    // Stocks only shrink, so what was empty stays so.
    let (mut pairs_from, mut singles_from) = (0, 0);
    for (fit, (tenant, kept)) in tenants.iter().zip(keeps).enumerate() {
        let refused = || {
            AllocationError::Budget(Box::new(Budget {
                tenant: tenant.name().clone(),
                fit,
                tenants: tenants.len(),
                wanted,
                free: free_on.iter().map(|(_, free)| free).sum(),
                free_on: free_on.clone(),
                taken: taken.clone(),
            }))
        };
        let new_vlans = kept.vlans.iter().filter(|vlan| vlan.is_none()).count();
        let mut assignment = Assignment {
            ports: Vec::with_capacity(kept.ports.len()),
            uplink: None,
            guests: Vec::with_capacity(kept.ports.len()),
        };
        for (pair, vlan) in kept.ports.iter().zip(&kept.vlans) {
            let (guest, gateway) = match pair {
                Some(pair) => *pair,
                None => {
                    pairs_from += stocks[pairs_from..]
                        .iter()
                        .position(|stock| stock.free.len() >= 2)
                        .ok_or_else(refused)?;
                    let free = &mut stocks[pairs_from].free;
                    free.pop().zip(free.pop()).ok_or_else(refused)?
                }
            };
            let vlan = match vlan {
                Some(vlan) => *vlan,
                None => vlans.next().ok_or_else(|| AllocationError::Vlans {
                    tenant: tenant.name().clone(),
                    wanted: new_vlans,
                    free: vlans.free,
                    taken: vlans.taken,
                    range: pool.vlans.to_string(),
                })?,
            };
            let device = |address| Device::Pci {
                address,
                vlan: Some(vlan),
            };
            assignment.guests.push(device(guest));
            assignment.ports.push(device(gateway));
        }
        if tenant.uplink().is_some() {
            let address = match (kept.uplink, inout) {
                (Some(address), _) => address,
                (None, Some(place)) => stocks[place].free.pop().ok_or_else(refused)?,
                (None, None) => {
                    singles_from += stocks[singles_from..]
                        .iter()
                        .position(|stock| !stock.free.is_empty())
                        .ok_or_else(refused)?;
                    stocks[singles_from].free.pop().ok_or_else(refused)?
                }
            };
            assignment.uplink = Some(Device::Pci {
                address,
                vlan: pool.inout_vlan.or(kept.uplink_vlan).or(had.underlay),
            });
        }
        assignments.push(assignment);
    }
    apart(tenants, &assignments, &had)?;
    Ok(assignments)
}

/// Refuses an In/Out function on the VLAN of a port: there they would meet.
fn apart(
    tenants: &[Tenant],
    assignments: &[Assignment],
    had: &Had<'_>,
) -> Result<(), AllocationError> {
    let changing: BTreeSet<&Name> = tenants.iter().map(Tenant::name).collect();
    let vlan = |device: &Device| match device {
        Device::Pci { vlan, .. } => *vlan,
        _ => None,
    };
    let others = || {
        let vfs = had.recorded.values().copied();
        vfs.filter(|vf| !changing.contains(&vf.owner.tenant))
    };
    let assigned = assignments.iter().flat_map(|it| &it.ports).filter_map(vlan);
    let recorded = others().filter(|vf| vf.owner.side != Side::InOut);
    let ports: BTreeSet<VlanId> = assigned
        .chain(recorded.filter_map(|vf| vf.set.vlan))
        .collect();
    let uplinks = tenants.iter().zip(assignments);
    let uplinks = uplinks
        .filter_map(|(tenant, it)| Some((tenant.name(), it.uplink.as_ref().and_then(vlan)?)));
    let recorded = others().filter(|vf| vf.owner.side == Side::InOut);
    let recorded = recorded.filter_map(|vf| Some((&vf.owner.tenant, vf.set.vlan?)));
    match uplinks
        .chain(recorded)
        .find(|(_, vlan)| ports.contains(vlan))
    {
        Some((tenant, vlan)) => Err(AllocationError::Underlay {
            tenant: tenant.clone(),
            vlan,
        }),
        None => Ok(()),
    }
}

/// How many functions the physical function has once it is set.
pub fn count(pf: &PhysicalFunction, resize: bool) -> u32 {
    if pf.set.vfs == 0 || resize {
        pf.total_vfs
    } else {
        pf.set.vfs
    }
}

fn state_owns(state: &State, address: PciAddress) -> bool {
    state
        .owned
        .contains_key(&crate::resource::Key::Vf { address })
}

/// The functions that records name.
struct Had<'a> {
    recorded: HashMap<PciAddress, &'a Vf>,
    by_owner: HashMap<&'a Owner, &'a Vf>,
    /// The VLAN of all In/Out functions, if it is one.
    underlay: Option<VlanId>,
}

/// What one tenant keeps.
struct Kept {
    ports: Vec<Option<(PciAddress, PciAddress)>>,
    vlans: Vec<Option<VlanId>>,
    uplink: Option<PciAddress>,
    uplink_vlan: Option<VlanId>,
}

impl<'a> Had<'a> {
    fn of(state: &'a State) -> Self {
        let resources = state.tenants.values().flat_map(|record| &record.resources);
        let vfs = resources.filter_map(|resource| match resource {
            Resource::Vf(vf) => Some(&**vf),
            _ => None,
        });
        let mut had = Self {
            recorded: HashMap::new(),
            by_owner: HashMap::new(),
            underlay: None,
        };
        let mut underlays = BTreeSet::new();
        for vf in vfs {
            had.recorded.insert(vf.address, vf);
            had.by_owner.insert(&vf.owner, vf);
            if vf.owner.side == Side::InOut {
                underlays.insert(vf.set.vlan);
            }
        }
        if underlays.len() == 1 {
            had.underlay = underlays.into_iter().flatten().next();
        }
        had
    }

    /// A port keeps its two functions as long as they are on one physical function of those named.
    fn keep(
        &self,
        tenant: &Tenant,
        on_pf: &HashMap<PciAddress, usize>,
        inout: Option<usize>,
        pool: &Pool,
    ) -> Kept {
        let vf = |port: Option<&Name>, side| {
            let owner = Owner {
                tenant: tenant.name().clone(),
                port: port.cloned(),
                side,
            };
            self.by_owner.get(&owner).copied()
        };
        let mut kept = Kept {
            ports: Vec::new(),
            vlans: Vec::new(),
            uplink: None,
            uplink_vlan: None,
        };
        for port in tenant.ports() {
            let guest = vf(Some(&port.name), Side::Guest);
            let gateway = vf(Some(&port.name), Side::Gateway);
            let place = |vf: Option<&Vf>| vf.and_then(|vf| on_pf.get(&vf.address));
            let together = place(guest).is_some() && place(guest) == place(gateway);
            let pair = guest.zip(gateway).filter(|_| together);
            kept.ports
                .push(pair.map(|(guest, gateway)| (guest.address, gateway.address)));
            let vlan = pair.and_then(|(_, gateway)| gateway.set.vlan);
            let stays = |vlan: &VlanId| pool.keep_vlans || pool.vlans.contains(*vlan);
            kept.vlans.push(vlan.filter(stays));
        }
        if tenant.uplink().is_some() {
            let here = |vf: &&Vf| match (on_pf.get(&vf.address), inout) {
                (Some(place), Some(inout)) => *place == inout,
                (place, None) => place.is_some(),
                (None, _) => false,
            };
            let uplink = vf(None, Side::InOut);
            kept.uplink_vlan = uplink.and_then(|vf| vf.set.vlan);
            kept.uplink = uplink.filter(here).map(|vf| vf.address);
        }
        kept
    }
}

/// The VLANs that nobody has.
struct Vlans {
    left: std::vec::IntoIter<VlanId>,
    free: usize,
    taken: usize,
}

impl Vlans {
    fn new(pool: &Pool, had: &Had<'_>, keeps: &[Kept], inventory: &Inventory) -> Self {
        let range = pool.vlans;
        let kept = keeps.iter().flat_map(|kept| kept.vlans.iter().flatten());
        let of_vfs = inventory.pfs.iter().flat_map(|pf| &pf.vfs);
        let taken: BTreeSet<VlanId> = kept
            .copied()
            .chain(pool.inout_vlan)
            .chain(had.recorded.values().filter_map(|vf| vf.set.vlan))
            .chain(of_vfs.filter_map(|vf| vf.set.vlan))
            .collect();
        let left: Vec<VlanId> = range.iter().filter(|vlan| !taken.contains(vlan)).collect();
        Self {
            free: left.len(),
            taken: range.iter().count() - left.len(),
            left: left.into_iter(),
        }
    }

    fn next(&mut self) -> Option<VlanId> {
        self.left.next()
    }
}

/// Refuses a MAC that two would have: a VM's or a switch's function, and whatever else has one on this host.
fn macs(tenants: &[Tenant], state: &State, inventory: &Inventory) -> Result<(), AllocationError> {
    let changing: BTreeSet<&Name> = tenants.iter().map(Tenant::name).collect();
    let mut seen: BTreeMap<MacAddr, String> = BTreeMap::new();
    let interfaces = inventory.interfaces.iter();
    for interface in
        interfaces.filter(|it| !it.device.is_some_and(|address| state_owns(state, address)))
    {
        seen.insert(interface.mac, format!("interface {}", interface.name));
    }
    for pf in &inventory.pfs {
        for vf in pf.vfs.iter().filter(|vf| !state_owns(state, vf.address)) {
            if let Some(mac) = vf.set.mac {
                seen.entry(mac)
                    .or_insert_with(|| format!("{} VF {}", pf.label(), vf.index));
            }
        }
    }
    for resource in state
        .tenants
        .iter()
        .filter(|(name, _)| !changing.contains(name))
        .flat_map(|(_, record)| &record.resources)
    {
        if let Resource::Vf(vf) = resource
            && let Some(mac) = vf.set.mac
        {
            seen.insert(mac, format!("tenant {}", vf.owner));
        }
    }
    for tenant in tenants {
        let name = tenant.name();
        let switch = |index| MacAddr::of_switch_function(tenant.vni(), index);
        let uplink = tenant
            .uplink()
            .map(|uplink| (uplink.mac(tenant.vni()), format!("tenant {name} In/Out")));
        let ports = tenant.ports().iter().zip(1..).flat_map(|(port, index)| {
            [
                (port.mac, format!("tenant {name}/{} T", port.name)),
                (switch(index), format!("tenant {name}/{} Gw", port.name)),
            ]
        });
        for (mac, other) in uplink.into_iter().chain(ports) {
            if let Some(one) = seen.insert(mac, other.clone()) {
                return Err(AllocationError::Mac { mac, one, other });
            }
        }
    }
    Ok(())
}
