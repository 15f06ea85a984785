//! The mediation probe before a switch gets its VFs: each VF becomes a network interface for its
//! duration, and real frames show that the NIC delivers a port's frames only to the port's other
//! end.

use std::collections::BTreeSet;

use tenant_config::NicAttribute;

use super::function::{Side, Vf, VfInterface, kernel_driver};
use super::{functions, sysfs};
use crate::error::HostError;
use crate::nic::kind::NewTenant;
use crate::nic::mediation::{self, Fabric, Options, Place, Role, Station, Weakness, onboarded};
use crate::nic::parts::netns::Unnamed;
use crate::resource::Resource;

/// Probes the new functions of a tenant.
pub(super) fn before_start(tenant: &NewTenant<'_>) -> Result<(), HostError> {
    let resources = tenant.record.resources.iter();
    let vfs: Vec<(&Vf, String)> = resources
        .filter_map(|resource| match resource {
            Resource::Vf(vf) if tenant.new.contains(&resource.key()) => {
                let driver = functions::pf_driver(vf.pf).unwrap_or_default();
                Some((&**vf, kernel_driver(&driver).to_owned()))
            }
            _ => None,
        })
        .collect();
    if vfs.is_empty() {
        return Ok(());
    }
    let inventory = sysfs::read()?;
    let state = (tenant.state)();
    let others = onboarded::listeners(tenant.record, &state, &inventory, tenant.control);
    prove(&vfs, others)
}

/// Probes with real frames whether any of these VFs of one tenant reaches anything but its port's
/// other end. Each has the kernel driver that gives it a network interface for the duration, if it
/// has none. `others` listen.
fn prove(vfs: &[(&Vf, String)], others: Vec<Station>) -> Result<(), HostError> {
    let namespace = Unnamed::new()?;
    let mut borrowed = Vec::new();
    let mut stations = others;
    let mut result = Ok(());
    for (number, (vf, driver)) in vfs.iter().enumerate() {
        let interface = match &vf.interface {
            Some(interface) => interface.clone(),
            None => {
                let interface = VfInterface {
                    namespace: namespace.path.clone(),
                    name: format!("f{number}"),
                    mac: vf.set.mac,
                    mtu: 1500,
                    up: true,
                };
                borrowed.push(*vf);
                result = functions::lend(vf, driver, &interface);
                interface
            }
        };
        if result.is_err() {
            break;
        }
        stations.extend(station(vf, &interface));
    }
    let accepts = |vf: &Vf| vf.accept.contains(&NicAttribute::SpoofCheck);
    let mut options = Options::new(Fabric::Embedded);
    if vfs.iter().all(|(vf, _)| accepts(vf)) {
        options.accepted = BTreeSet::from([Weakness::ForgedSource]);
    }
    let result = result.and_then(|()| mediation::require(&stations, &options).map(drop));
    // The VFs are returned in any case; the first failure is reported.
    borrowed.into_iter().fold(result, |result, vf| {
        let returned = functions::return_vf(vf);
        result.and(returned)
    })
}

fn station(vf: &Vf, interface: &VfInterface) -> Option<Station> {
    let (role, side) = match vf.owner.side {
        Side::Guest => (Role::Guest, "T"),
        Side::Gateway => (Role::Gateway, "Gw"),
        Side::InOut => (Role::Uplink, "In/Out"),
    };
    let port = vf.owner.port.as_ref();
    Some(Station {
        name: format!("{} {side}", port.unwrap_or(&vf.owner.tenant)),
        role,
        port: port.map(ToString::to_string),
        mac: vf.set.mac?,
        vlan: vf.set.vlan.map(|vlan| vlan.get()),
        place: Place::Interface {
            namespace: Some(interface.namespace.clone()),
            interface: interface.name.clone(),
        },
        proven: false,
        quiet: false,
    })
}
