//! The stations of running tenants: their guests' ends that are interfaces of this host, their
//! switches (through drop counters), the NIC's own interfaces and unassigned functions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tenant_config::{Name, NicAttribute, PciAddress};

use super::station::{Fabric, Place, Role, Station, failed};
use super::weakness::Weakness;
use crate::error::HostError;
use crate::nic::probe;
use crate::nic::sriov::function::Side;
use crate::nic::sriov::inventory::{Inventory, User};
use crate::resource::{Key, Resource};
use crate::state::{Record, State};

/// Stations that are probed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What connects the stations.
    pub fabric: Fabric,
    /// The stations.
    pub stations: Vec<Station>,
    /// The weaknesses that the files of all sending tenants accept.
    pub accepted: BTreeSet<Weakness>,
    /// A sentence for each guest whose switch did not answer correctly.
    pub unanswered: Vec<String>,
}

fn is_embedded(record: &Record) -> bool {
    let is_vf = |resource: &Resource| matches!(resource, Resource::Vf(_));
    record.resources.iter().any(is_vf)
}

fn accepts(record: &Record) -> bool {
    record.resources.iter().all(|resource| match resource {
        Resource::Vf(vf) => vf.accept.contains(&NicAttribute::SpoofCheck),
        _ => true,
    })
}

/// One group for the tenants on NICs and one for those on pairs. Tenants that are not `chosen` only
/// listen. Each guest's gateway is asked, which shows that both send and receive.
pub fn groups(
    state: &State,
    inventory: &Inventory,
    chosen: &BTreeSet<Name>,
    control: impl Fn(&Name) -> PathBuf,
    wire: Option<&str>,
) -> Result<Vec<Group>, HostError> {
    let mut groups = Vec::new();
    for fabric in [Fabric::Embedded, Fabric::Pair] {
        let embedded = fabric == Fabric::Embedded;
        let tenants: Vec<_> = state
            .tenants
            .iter()
            .filter(|(_, record)| is_embedded(record) == embedded)
            .collect();
        if !tenants.iter().any(|(name, _)| chosen.contains(*name)) {
            continue;
        }
        let mut stations = Vec::new();
        let mut unanswered = Vec::new();
        for (name, record) in &tenants {
            tenant(
                record,
                !chosen.contains(*name),
                &control(name),
                &mut stations,
                &mut unanswered,
            );
        }
        if embedded {
            stations.extend(of_nics(&tenants, state, inventory));
        }
        if let Some(wire) = wire {
            stations.push(own(inventory, wire, Role::Wire)?);
            // Its frames show that the wire's other end receives.
            let bridges: BTreeSet<&str> = tenants
                .iter()
                .flat_map(|(_, record)| &record.resources)
                .filter_map(|resource| match resource {
                    Resource::Bridge(bridge) => Some(&bridge.interface[..]),
                    _ => None,
                })
                .filter(|bridge| *bridge != wire && !embedded)
                .collect();
            for bridge in bridges {
                stations.push(own(inventory, bridge, Role::Host)?);
            }
        }
        let mut senders = tenants.iter().filter(|(name, _)| chosen.contains(*name));
        let accepted = match embedded && senders.all(|(_, record)| accepts(record)) {
            true => BTreeSet::from([Weakness::ForgedSource]),
            false => BTreeSet::new(),
        };
        groups.push(Group {
            fabric,
            stations,
            accepted,
            unanswered,
        });
    }
    Ok(groups)
}

/// The stations that must not receive frames of a tenant that is being set up: the functions of all
/// others on its NICs, and these NICs' own interfaces.
pub fn listeners(
    newcomer: &Record,
    state: &State,
    inventory: &Inventory,
    control: impl Fn(&Name) -> PathBuf,
) -> Vec<Station> {
    let pfs = |record: &Record| -> BTreeSet<PciAddress> {
        let pfs = record
            .resources
            .iter()
            .filter_map(|resource| match resource {
                Resource::Pf(pf) => Some(pf.address),
                _ => None,
            });
        pfs.collect()
    };
    let own = pfs(newcomer);
    let tenants: Vec<_> = state
        .tenants
        .iter()
        .filter(|(_, record)| !pfs(record).is_disjoint(&own))
        .collect();
    let mut stations = of_nics(&tenants, state, inventory);
    let newcomer = newcomer.switch().map(|switch| &switch.tenant);
    for (name, record) in tenants {
        let runs = state.owned.contains_key(&Key::Switch {
            tenant: name.clone(),
        });
        if Some(name) != newcomer && runs {
            let mut others = Vec::new();
            tenant(record, true, &control(name), &mut others, &mut Vec::new());
            // A station that is down receives nothing, and must not block this tenant.
            stations.extend(others.into_iter().filter(super::exchange::can_listen));
        }
    }
    stations
}

fn tenant(
    record: &Record,
    quiet: bool,
    control: &Path,
    stations: &mut Vec<Station>,
    unanswered: &mut Vec<String>,
) {
    let Some(switch) = record.running_switch() else {
        return;
    };
    let vlan = |port: &Name| {
        record.resources.iter().find_map(|resource| match resource {
            Resource::Vf(vf) if vf.owner.port.as_ref() == Some(port) => vf.set.vlan,
            _ => None,
        })
    };
    let place = |port: &str| Place::Switch {
        program: None,
        control: control.to_owned(),
        uid: switch.uid,
        port: port.to_owned(),
    };
    let tenant = &switch.tenant;
    for port in &switch.config.ports {
        let asked = record.probes.iter().find(|probe| probe.port == port.name);
        let mut answered = false;
        if let Some(asked) = asked {
            match probe::ask(asked) {
                Ok(()) => answered = true,
                Err(error) => unanswered.push(error.to_string()),
            }
            stations.push(Station {
                name: format!("{} T", port.name),
                role: Role::Guest,
                port: Some(port.name.to_string()),
                mac: asked.mac,
                vlan: vlan(&port.name).map(|vlan| vlan.get()),
                place: Place::Interface {
                    namespace: Some(asked.namespace.clone()),
                    interface: asked.interface.clone(),
                },
                proven: answered,
                quiet,
            });
        }
        stations.push(Station {
            name: format!("{} Gw", port.name),
            role: Role::Gateway,
            port: Some(port.name.to_string()),
            mac: port.gateway_mac,
            vlan: vlan(&port.name).map(|vlan| vlan.get()),
            place: place(port.name.as_str()),
            proven: answered,
            quiet,
        });
    }
    if let Some(uplink) = &switch.config.uplink {
        let vlan = record.resources.iter().find_map(|resource| match resource {
            Resource::Vf(vf) if vf.owner.side == Side::InOut => vf.set.vlan,
            _ => None,
        });
        stations.push(Station {
            name: format!("{tenant} In/Out"),
            role: Role::Uplink,
            port: None,
            mac: uplink.mac,
            vlan: vlan.map(|vlan| vlan.get()),
            place: place("uplink"),
            proven: false,
            quiet,
        });
    }
}

/// The PFs that the tenants are on, and their unassigned VFs that are interfaces of this host and
/// up.
fn of_nics(tenants: &[(&Name, &Record)], state: &State, inventory: &Inventory) -> Vec<Station> {
    let resources = tenants.iter().flat_map(|(_, record)| &record.resources);
    let used: BTreeSet<PciAddress> = resources
        .filter_map(|resource| match resource {
            Resource::Pf(pf) => Some(pf.address),
            _ => None,
        })
        .collect();
    let owned: Vec<_> = state
        .owned
        .values()
        .filter_map(|resource| match resource {
            Resource::Vf(vf) => Some(vf.address),
            _ => None,
        })
        .collect();
    let mut stations = Vec::new();
    for pf in &inventory.pfs {
        let Some(interface) = pf.interface.as_deref() else {
            continue;
        };
        if !used.contains(&pf.address) {
            continue;
        }
        stations.extend(own(inventory, interface, Role::Host));
        for vf in pf.vfs.iter().filter(|vf| !owned.contains(&vf.address)) {
            if let User::Interface { name, .. } = &vf.user
                && is_up(name)
            {
                let station = own(inventory, name, Role::Witness);
                stations.extend(station.map(|station| Station {
                    vlan: vf.set.vlan.map(|vlan| vlan.get()),
                    ..station
                }));
            }
        }
    }
    stations
}

fn is_up(interface: &str) -> bool {
    let flags = std::fs::read_to_string(format!("/sys/class/net/{interface}/flags"));
    let flags = flags.unwrap_or_default();
    let digits = flags.trim().trim_start_matches("0x");
    u32::from_str_radix(digits, 16).is_ok_and(|flags| flags & 1 == 1)
}

/// An interface of the provisioner's own network namespace.
fn own(inventory: &Inventory, name: &str, role: Role) -> Result<Station, HostError> {
    let found = inventory.interfaces.iter().find(|it| it.name == name);
    let Some(found) = found else {
        return Err(failed(format!("{name}: this host has no such interface")));
    };
    Ok(Station {
        name: name.to_owned(),
        role,
        port: None,
        mac: found.mac,
        vlan: None,
        place: Place::Interface {
            namespace: None,
            interface: name.to_owned(),
        },
        proven: false,
        quiet: false,
    })
}
