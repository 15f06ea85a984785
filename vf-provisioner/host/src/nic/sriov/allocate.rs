//! Assigns virtual functions and VLANs to tenants. Pure, and linear in the number of tenants: turns
//! an inventory and the recorded state into an assignment or a refusal, before anything is touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tenant_config::{Device, MacAddr, Name, NicAttribute, PciAddress, Tenant, VlanId};

use super::function::{Owner, Side, Vf};
use super::inventory::{Inventory, PhysicalFunction, VirtualFunction};
use super::refusal::{AllocationError, Budget};
use super::vlans::VlanRange;
use crate::nic::Assignment;
use crate::resource::Resource;
use crate::state::State;

/// The pool that an operator gives to tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The PFs, by interface or address; the first one's functions are assigned first.
    pub pfs: Vec<String>,
    /// The PF that leads to the underlay; any of them if `None`.
    pub inout: Option<String>,
    /// The VLAN of In/Out functions; they keep theirs if `None`.
    pub inout_vlan: Option<VlanId>,
    /// The VLANs of ports.
    pub vlans: VlanRange,
    /// Whether a port on another VLAN keeps it.
    pub keep_vlans: bool,
    /// The number of VFs of each PF that has none; all that it can have if `None`.
    pub vfs: Option<u32>,
    /// Whether a PF's number of VFs may change although some VFs are in use.
    pub resize: bool,
}

/// The PFs of these names, in this order.
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

/// The PFs of the pool, and the index of the one that leads to the underlay, if the operator named
/// one.
fn usable<'a>(
    inventory: &'a Inventory,
    pool: &Pool,
    recorded: &Recorded<'_>,
) -> Result<(Vec<&'a PhysicalFunction>, Option<usize>), AllocationError> {
    let pfs = named(inventory, &pool.pfs)?;
    for (pf, name) in pfs.iter().zip(&pool.pfs) {
        if !pf.iommu {
            return Err(AllocationError::NoIommu { name: name.clone() });
        }
        let Some(wanted) = pool.vfs else { continue };
        let name = || pf.label();
        if wanted == 0 || wanted > pf.total_vfs {
            return Err(AllocationError::NoSuchNumber {
                name: name(),
                wanted,
                total: pf.total_vfs,
            });
        }
        let is = count(pf, pool, recorded.vfs.get(&pf.address).copied());
        if is != wanted {
            return Err(AllocationError::OtherNumber {
                name: name(),
                wanted,
                is,
            });
        }
    }
    let Some(name) = &pool.inout else {
        return Ok((pfs, None));
    };
    let inout = named(inventory, std::slice::from_ref(name))?[0].address;
    let place = pfs.iter().position(|it| it.address == inout);
    let place = place.ok_or_else(|| AllocationError::NoSuchPf {
        name: name.clone(),
        known: pool.pfs.join(", "),
    })?;
    Ok((pfs, Some(place)))
}

/// An unassigned function.
struct Free {
    address: PciAddress,
    /// The settings that its tenant must accept.
    needs: BTreeSet<NicAttribute>,
}

/// Takes the last ones that a tenant with these accepted settings can have.
fn take<const N: usize>(
    free: &mut Vec<Free>,
    accept: &BTreeSet<NicAttribute>,
) -> Option<[PciAddress; N]> {
    let fit = |(_, it): &(usize, &Free)| it.needs.is_subset(accept);
    let places = free.iter().enumerate().rev().filter(fit).take(N);
    let places: Vec<usize> = places.map(|(place, _)| place).collect();
    // The last first, so that the other places stay.
    let addresses = match places.len() == N {
        true => places.into_iter().map(|place| free.remove(place).address),
        false => return None,
    };
    addresses.collect::<Vec<_>>().try_into().ok()
}

/// The unassigned functions of each PF.
struct Stocks {
    /// By PF; each list is in descending order.
    free: Vec<Vec<Free>>,
    /// The initial numbers, by PF name.
    free_on: Vec<(String, usize)>,
    /// Functions that are not free, and why.
    taken: Vec<String>,
    /// The PF index of each function.
    on_pf: HashMap<PciAddress, usize>,
    /// The first PFs that may still have a pair or a single function. Stocks only shrink, so an
    /// empty one stays empty.
    pairs_from: usize,
    singles_from: usize,
}

impl Stocks {
    fn of(pfs: &[&PhysicalFunction], state: &State, recorded: &Recorded<'_>, pool: &Pool) -> Self {
        let mut stocks = Self {
            free: Vec::new(),
            free_on: Vec::new(),
            taken: Vec::new(),
            on_pf: HashMap::new(),
            pairs_from: 0,
            singles_from: 0,
        };
        for (place, pf) in pfs.iter().enumerate() {
            let mut free = Vec::new();
            let mut there = pf.vfs.iter().peekable();
            let recorded_vfs = recorded.vfs.get(&pf.address).copied();
            for index in 0..count(pf, pool, recorded_vfs) {
                let vf = there.next_if(|vf| vf.index == index);
                let Some(address) = vf.map_or_else(|| pf.vf_address(index), |vf| Some(vf.address))
                else {
                    continue;
                };
                stocks.on_pf.insert(address, place);
                if recorded.by_address.contains_key(&address) {
                    continue;
                }
                // A function that an interrupted release left is cleaned before it is reused.
                let foreign = vf.filter(|_| !state_owns(state, address));
                if let Some(reason) = foreign.and_then(VirtualFunction::taken) {
                    let taken = format!("{} VF {index} ({reason})", pf.label());
                    stocks.taken.push(taken);
                }
                let needs = foreign.map_or(Some(BTreeSet::new()), VirtualFunction::needs);
                free.extend(needs.map(|needs| Free { address, needs }));
            }
            free.reverse();
            let for_all = free.iter().filter(|it: &&Free| it.needs.is_empty());
            stocks.free_on.push((pf.label(), for_all.count()));
            stocks.free.push(free);
        }
        stocks
    }

    /// Two functions of one PF.
    fn pair(&mut self, accept: &BTreeSet<NicAttribute>) -> Option<(PciAddress, PciAddress)> {
        let mut left = self.free[self.pairs_from..].iter();
        self.pairs_from += left.position(|free| free.len() >= 2)?;
        let left = &mut self.free[self.pairs_from..];
        left.iter_mut()
            .find_map(|free| take::<2>(free, accept))
            .map(|[one, other]| (one, other))
    }

    /// One function, of this PF or of any.
    fn single(
        &mut self,
        place: Option<usize>,
        accept: &BTreeSet<NicAttribute>,
    ) -> Option<PciAddress> {
        let one = |free: &mut Vec<Free>| take::<1>(free, accept).map(|[one]| one);
        if let Some(place) = place {
            return one(&mut self.free[place]);
        }
        let mut left = self.free[self.singles_from..].iter();
        self.singles_from += left.position(|free| !free.is_empty())?;
        self.free[self.singles_from..].iter_mut().find_map(one)
    }

    /// The refusal that names the first tenant that does not fit.
    fn refuse(self, tenants: &[Tenant], fit: usize, wanted: usize) -> AllocationError {
        AllocationError::Budget(Box::new(Budget {
            tenant: tenants[fit].name().clone(),
            fit,
            tenants: tenants.len(),
            wanted,
            free: self.free_on.iter().map(|(_, free)| free).sum(),
            free_on: self.free_on,
            taken: self.taken,
        }))
    }
}

/// The assignments of `tenants`, in their order.
pub fn allocate(
    tenants: &[Tenant],
    state: &State,
    inventory: &Inventory,
    pool: &Pool,
) -> Result<Vec<Assignment>, AllocationError> {
    let recorded = Recorded::of(state);
    let (pfs, inout) = usable(inventory, pool, &recorded)?;
    macs(tenants, state, inventory)?;
    let mut stocks = Stocks::of(&pfs, state, &recorded, pool);

    // A function that a tenant of this call gives up stays taken until the next call.
    let keep = |tenant| recorded.keep(tenant, &stocks.on_pf, inout, pool);
    let keeps: Vec<Kept> = tenants.iter().map(keep).collect();
    let wanted = tenants.iter().zip(&keeps).map(|(tenant, kept)| {
        kept.ports.iter().filter(|port| port.is_none()).count() * 2
            + usize::from(tenant.uplink().is_some() && kept.uplink.is_none())
    });
    let wanted = wanted.sum();

    let mut vlans = Vlans::new(pool, &recorded, &keeps, inventory);
    let mut assignments = Vec::with_capacity(tenants.len());
    for (fit, (tenant, kept)) in tenants.iter().zip(keeps).enumerate() {
        let Some(functions) = Functions::of(tenant, &kept, inout, &mut stocks) else {
            return Err(stocks.refuse(tenants, fit, wanted));
        };
        let ports = vlans.of(tenant, &kept, pool)?;
        let devices = functions.ports.into_iter().zip(ports);
        let device = |address, vlan| Device::Pci { address, vlan };
        let (guests, ports) = devices
            .map(|((guest, gateway), vlan)| {
                (device(guest, Some(vlan)), device(gateway, Some(vlan)))
            })
            .unzip();
        let inout_vlan = pool.inout_vlan.or(kept.uplink_vlan).or(recorded.underlay);
        assignments.push(Assignment {
            ports,
            uplink: functions.uplink.map(|address| device(address, inout_vlan)),
            guests,
        });
    }
    apart(tenants, &assignments, &recorded)?;
    Ok(assignments)
}

/// The functions of one tenant.
struct Functions {
    ports: Vec<(PciAddress, PciAddress)>,
    uplink: Option<PciAddress>,
}

impl Functions {
    /// The functions that the tenant keeps and new ones; `None` if too few are left.
    fn of(tenant: &Tenant, kept: &Kept, inout: Option<usize>, stocks: &mut Stocks) -> Option<Self> {
        let accept = &tenant.nic().accept;
        let pair = |pair: &Option<_>| pair.or_else(|| stocks.pair(accept));
        let ports = kept.ports.iter().map(pair);
        let ports = ports.collect::<Option<_>>()?;
        let uplink = match (tenant.uplink(), kept.uplink) {
            (None, _) => None,
            (Some(_), Some(address)) => Some(address),
            (Some(_), None) => Some(stocks.single(inout, accept)?),
        };
        Some(Self { ports, uplink })
    }
}

/// Refuses an In/Out function on the VLAN of a port: the two could reach each other.
fn apart(
    tenants: &[Tenant],
    assignments: &[Assignment],
    recorded: &Recorded<'_>,
) -> Result<(), AllocationError> {
    let changing: BTreeSet<&Name> = tenants.iter().map(Tenant::name).collect();
    let vlan = |device: &Device| match device {
        Device::Pci { vlan, .. } => *vlan,
        _ => None,
    };
    let others = || {
        let vfs = recorded.by_address.values().copied();
        vfs.filter(|vf| !changing.contains(&vf.owner.tenant))
    };
    let assigned = assignments.iter().flat_map(|it| &it.ports).filter_map(vlan);
    let others_ports = others().filter(|vf| vf.owner.side != Side::InOut);
    let ports: BTreeSet<VlanId> = assigned
        .chain(others_ports.filter_map(|vf| vf.set.vlan))
        .collect();
    let uplinks = tenants.iter().zip(assignments);
    let uplinks = uplinks
        .filter_map(|(tenant, it)| Some((tenant.name(), it.uplink.as_ref().and_then(vlan)?)));
    let others_uplinks = others().filter(|vf| vf.owner.side == Side::InOut);
    let others_uplinks = others_uplinks.filter_map(|vf| Some((&vf.owner.tenant, vf.set.vlan?)));
    match uplinks
        .chain(others_uplinks)
        .find(|(_, vlan)| ports.contains(vlan))
    {
        Some((tenant, vlan)) => Err(AllocationError::Underlay {
            tenant: tenant.clone(),
            vlan,
        }),
        None => Ok(()),
    }
}

/// How many functions the PF will have. `recorded`: how many it has by its tenants' records.
pub fn count(pf: &PhysicalFunction, pool: &Pool, recorded: Option<u32>) -> u32 {
    let chosen = pool.vfs.unwrap_or(pf.total_vfs);
    match (recorded, pf.set.vfs) {
        _ if pool.resize => chosen,
        (Some(recorded), _) => recorded,
        (None, 0) => chosen,
        (None, found) => found,
    }
}

fn state_owns(state: &State, address: PciAddress) -> bool {
    state
        .owned
        .contains_key(&crate::resource::Key::Vf { address })
}

/// The recorded functions.
struct Recorded<'a> {
    by_address: HashMap<PciAddress, &'a Vf>,
    by_owner: HashMap<&'a Owner, &'a Vf>,
    /// The number of functions of each PF.
    vfs: HashMap<PciAddress, u32>,
    /// The VLAN of all In/Out functions, if they share one.
    underlay: Option<VlanId>,
}

/// What one tenant keeps.
struct Kept {
    ports: Vec<Option<(PciAddress, PciAddress)>>,
    vlans: Vec<Option<VlanId>>,
    uplink: Option<PciAddress>,
    uplink_vlan: Option<VlanId>,
}

impl<'a> Recorded<'a> {
    fn of(state: &'a State) -> Self {
        let resources = state.tenants.values().flat_map(|record| &record.resources);
        let pfs = resources.clone().filter_map(|resource| match resource {
            Resource::Pf(pf) => Some((pf.address, pf.set.vfs)),
            _ => None,
        });
        let vfs = resources.filter_map(|resource| match resource {
            Resource::Vf(vf) => Some(&**vf),
            _ => None,
        });
        let mut recorded = Self {
            by_address: HashMap::new(),
            by_owner: HashMap::new(),
            vfs: pfs.collect(),
            underlay: None,
        };
        let mut underlays = BTreeSet::new();
        for vf in vfs {
            recorded.by_address.insert(vf.address, vf);
            recorded.by_owner.insert(&vf.owner, vf);
            if vf.owner.side == Side::InOut {
                underlays.insert(vf.set.vlan);
            }
        }
        if underlays.len() == 1 {
            recorded.underlay = underlays.into_iter().flatten().next();
        }
        recorded
    }

    /// A port keeps its two functions while both are on one PF of the pool.
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

/// The unassigned VLANs.
struct Vlans {
    left: std::vec::IntoIter<VlanId>,
    free: usize,
    taken: usize,
}

impl Vlans {
    fn new(pool: &Pool, recorded: &Recorded<'_>, keeps: &[Kept], inventory: &Inventory) -> Self {
        let range = pool.vlans;
        let kept = keeps.iter().flat_map(|kept| kept.vlans.iter().flatten());
        let of_vfs = inventory.pfs.iter().flat_map(|pf| &pf.vfs);
        let taken: BTreeSet<VlanId> = kept
            .copied()
            .chain(pool.inout_vlan)
            .chain(recorded.by_address.values().filter_map(|vf| vf.set.vlan))
            .chain(of_vfs.filter_map(|vf| vf.set.vlan))
            .collect();
        let left: Vec<VlanId> = range.iter().filter(|vlan| !taken.contains(vlan)).collect();
        Self {
            free: left.len(),
            taken: range.iter().count() - left.len(),
            left: left.into_iter(),
        }
    }

    /// The VLANs of a tenant's ports: those that it keeps, and new ones.
    fn of(
        &mut self,
        tenant: &Tenant,
        kept: &Kept,
        pool: &Pool,
    ) -> Result<Vec<VlanId>, AllocationError> {
        let wanted = kept.vlans.iter().filter(|vlan| vlan.is_none()).count();
        let refused = AllocationError::Vlans {
            tenant: tenant.name().clone(),
            wanted,
            free: self.free,
            taken: self.taken,
            range: pool.vlans.to_string(),
        };
        let vlans = kept
            .vlans
            .iter()
            .map(|vlan| vlan.or_else(|| self.left.next()));
        vlans.collect::<Option<_>>().ok_or(refused)
    }
}

/// Refuses duplicate MACs among the functions of VMs and switches and all other interfaces of this
/// host.
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
        let switch = |mac| MacAddr::of_gateway(tenant.vni(), mac);
        let uplink = tenant
            .uplink()
            .map(|uplink| (uplink.mac(tenant.vni()), format!("tenant {name} In/Out")));
        let ports = tenant.ports().iter().flat_map(|port| {
            [
                (port.mac, format!("tenant {name}/{} T", port.name)),
                (switch(port.mac), format!("tenant {name}/{} Gw", port.name)),
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
