//! A tenant's switch, as data.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenant_config::{Device, MacAddr, Name, PciAddress, SwitchConfig, VlanId};

use super::vm::machine::{self, Machine};
use crate::key::Key;
use crate::object::Object;

/// A tenant's switch, as a process, or with `machine` as a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// Whose.
    pub tenant: Name,
    /// The unprivileged user and group it runs as.
    pub uid: u32,
    /// Its network namespace.
    pub namespace: String,
    /// Its control group.
    pub cgroup: String,
    /// The executable on the host.
    pub binary: PathBuf,
    /// The core it is pinned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Its configuration.
    pub config: SwitchConfig,
    /// The machine it runs in, if it is not a process of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Box<Machine>>,
    /// The objects that it depends on: if one of them is recreated, it is restarted.
    pub needs: BTreeSet<Key>,
}

impl Switch {
    /// How long it may take to answer, if longer than usual.
    pub(crate) fn answers_within(&self) -> Option<Duration> {
        let machine = self.machine.as_ref()?;
        Some(machine.accel.answers_within())
    }
}

/// A virtual function that a switch drives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    /// The name of its port, `uplink` for the uplink.
    pub(super) port: String,
    /// Its address on the host.
    pub(super) address: PciAddress,
    /// Its MAC.
    pub(super) mac: MacAddr,
    /// The VLAN to which the NIC limits it.
    pub(super) vlan: Option<VlanId>,
}

impl Switch {
    /// Its virtual functions, by their addresses on the host: a switch in a machine sees others.
    pub(super) fn functions(&self) -> Vec<Function> {
        let function = |port: &str, address, mac, vlan| Function {
            port: port.to_owned(),
            address,
            mac,
            vlan,
        };
        let Some(machine) = &self.machine else {
            let own = self.config.devices().filter_map(|side| match side.device {
                Device::Pci { address, vlan } => {
                    Some(function(side.name, *address, side.mac, *vlan))
                }
                _ => None,
            });
            return own.collect();
        };
        let name = |wanted: MacAddr| {
            let mut sides = self.config.devices();
            Some(sides.find(|side| side.mac == wanted)?.name)
        };
        let passed = machine.functions.iter().filter_map(|it| match it {
            machine::Function::Vf { address, mac, vlan } => {
                Some(function(name(*mac)?, *address, *mac, *vlan))
            }
            machine::Function::Tap { .. } => None,
        });
        passed.collect()
    }
}

impl Object for Switch {
    fn key(&self) -> Key {
        Key::Switch {
            tenant: self.tenant.clone(),
        }
    }

    fn needs(&self) -> Option<&BTreeSet<Key>> {
        Some(&self.needs)
    }

    /// Only the configuration of a running switch can change.
    fn changes_in_place(&self, wanted: &Self) -> bool {
        let config = wanted.config.clone();
        Self {
            config,
            ..self.clone()
        } == *wanted
    }
}

/// The PCI functions of a switch.
pub(super) fn functions(config: &SwitchConfig) -> impl Iterator<Item = PciAddress> {
    config.devices().filter_map(|device| match device.device {
        Device::Pci { address, .. } => Some(*address),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::vm::machine::Manager;
    use super::*;

    fn mac(last: u8) -> MacAddr {
        MacAddr::new([2, 0, 0x13, 0x89, 0, last]).expect("a MAC")
    }

    fn pci(address: &str, vlan: u16) -> Device {
        Device::Pci {
            address: address.parse().expect("an address"),
            vlan: VlanId::new(vlan).ok(),
        }
    }

    /// Two ports, on these functions.
    fn switch(functions: [&str; 2]) -> Switch {
        let text = "name = \"red\"\nvni = 5001\n[gateway]\nipv4 = \"10.0.0.1/24\"\n\
                    [[port]]\nname = \"vm1\"\nmac = \"52:54:00:aa:00:01\"\n\
                    addresses = [\"10.0.0.11\"]\n\
                    [[port]]\nname = \"vm2\"\nmac = \"52:54:00:aa:00:02\"\n\
                    addresses = [\"10.0.0.12\"]\n";
        let tenant = tenant_config::Tenant::parse("red.toml", text).expect("a tenant");
        let mut config = tenant.offline_config();
        for (port, (address, number)) in config.ports.iter_mut().zip(functions.iter().zip(1..)) {
            port.device = pci(address, 3000 + u16::from(number));
            port.gateway_mac = mac(number);
        }
        Switch {
            tenant: "red".parse().expect("a name"),
            uid: 66000,
            namespace: "sw-red".to_owned(),
            cgroup: "red".to_owned(),
            binary: Path::new("/usr/bin/vswitch").to_owned(),
            cpu: None,
            config,
            machine: None,
            needs: BTreeSet::new(),
        }
    }

    #[test]
    fn functions_of_a_machine_are_those_of_the_host() {
        let wanted = |address: &str, number: u8| Function {
            port: format!("vm{number}"),
            address: address.parse().expect("an address"),
            mac: mac(number),
            vlan: VlanId::new(3000 + u16::from(number)).ok(),
        };
        let process = switch(["0000:01:10.2", "0000:01:10.6"]);
        let all = [wanted("0000:01:10.2", 1), wanted("0000:01:10.6", 2)];
        assert_eq!(process.functions(), all);

        // The guest sees them at other addresses, here each at that of the other.
        let mut machine = switch(["0000:01:10.6", "0000:01:10.2"]);
        let passed = all.iter().map(|it| machine::Function::Vf {
            address: it.address,
            mac: it.mac,
            vlan: it.vlan,
        });
        machine.machine = Some(Box::new(Machine {
            functions: passed.collect(),
            ..a_machine()
        }));
        assert_eq!(machine.functions(), all);
    }

    fn a_machine() -> Machine {
        Machine {
            manager: Manager::Qemu,
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            image: "/image".into(),
            image_sha256: String::new(),
            accel: machine::Accel::Kvm,
            memory_mib: 160,
            hugepages: false,
            ike: false,
            functions: Vec::new(),
        }
    }
}
