//! Plans a switch that runs in a machine.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tenant_config::{Device, Memory, PciAddress, SwitchConfig};

use super::machine::{Function, Machine, Manager};
use super::qemu;
use super::settings::Settings;
use super::tap::Tap;
use crate::hugepages::Hugepages;
use crate::launcher::ike::{Ike, Place};
use crate::launcher::process::plan::Process;
use crate::launcher::{Launcher, Slot};
use crate::nic::Assignment;
use crate::nic::parts::link::End;
use crate::resource::{Key, Resource};

/// The longest name of an interface, in bytes.
const INTERFACE_MAX: usize = 15;
/// QEMU's additional memory if everything that it maps is locked, not only what it uses.
const LOCKED_MIB: u32 = 192;

/// The launcher: a process's objects, and the machine around it.
#[derive(Debug)]
pub(super) struct Vm {
    pub(super) base: Process,
    pub(super) settings: Settings,
}

/// The name of the tap beside `interface`. libvirt opens it in a namespace that all tenants share.
fn tap_name(manager: Manager, uid: u32, number: usize, interface: &str) -> String {
    let mut name = match manager {
        Manager::Qemu => format!("vm-{}", interface.trim_start_matches("gw-")),
        Manager::Libvirt => format!("vm{uid}-{number}"),
    };
    name.truncate(INTERFACE_MAX);
    name
}

/// The devices as the machine sees them.
fn inside(devices: &Assignment) -> Assignment {
    let place = |number: usize, device: &Device| {
        let (slot, part) = qemu::place(number);
        let address: Option<PciAddress> = format!("0000:00:{slot:02x}.{part:x}").parse().ok();
        let vlan = match device {
            Device::Pci { vlan, .. } => *vlan,
            _ => None,
        };
        address.map_or(device.clone(), |address| Device::Pci { address, vlan })
    };
    let number = devices.ports.len();
    let ports = devices.ports.iter().enumerate();
    Assignment {
        ports: ports
            .map(|(number, device)| place(number, device))
            .collect(),
        uplink: devices.uplink.as_ref().map(|device| place(number, device)),
        guests: devices.guests.clone(),
    }
}

/// The host's memory that a machine may use in total, in MiB; `extra_mib` is QEMU's own.
pub(super) fn memory_limit(extra_mib: u32, machine: &Machine) -> u32 {
    let locked = if qemu::has_vf(machine) { LOCKED_MIB } else { 0 };
    extra_mib + machine.memory_mib + locked
}

impl Launcher for Vm {
    fn control_socket_inside(&self) -> PathBuf {
        self.base.control_socket_inside()
    }

    fn inside(&self, devices: &Assignment) -> Assignment {
        inside(devices)
    }

    /// In large pages of the machine's own memory.
    fn memory(&self) -> Memory {
        Memory {
            hugepages: true,
            ..self.base.memory()
        }
    }

    /// All the machine's memory, which includes its switch's.
    fn hugepages_mib(&self) -> u32 {
        self.settings.memory_mib
    }

    fn answers_within(&self) -> Option<Duration> {
        Some(self.settings.accel.answers_within())
    }

    /// It runs in the machine, where it is no user of this host's.
    fn ike_uid(&self, _switch_uid: u32) -> Result<Option<u32>, String> {
        self.settings.image.without_ike().map_or(Ok(None), Err)
    }

    fn resources(&self, config: &SwitchConfig, slot: &Slot) -> Vec<Resource> {
        let alone = Slot {
            ike: None,
            ..slot.clone()
        };
        let mut resources = self.base.resources(config, &alone);
        let ports = config
            .ports
            .iter()
            .map(|port| (port.gateway_mac, port.device_mtu(), port.name.to_string()));
        let uplink = config
            .uplink
            .iter()
            .map(|uplink| (uplink.mac, uplink.mtu, "In/Out".to_owned()));
        let devices = slot.devices.ports.iter().chain(&slot.devices.uplink);
        let mut taps = Vec::new();
        let mut functions = Vec::new();
        for (number, (device, (mac, mtu, what))) in devices.zip(ports.chain(uplink)).enumerate() {
            match device {
                Device::Pci { address, vlan } => functions.push(Function::Vf {
                    address: *address,
                    mac,
                    vlan: *vlan,
                }),
                Device::AfPacket { interface } | Device::AfXdp { interface } => {
                    let tap = tap_name(self.settings.manager, slot.uid, number, interface);
                    taps.push(Resource::Tap(Tap {
                        end: End::of_switch(
                            &slot.namespace,
                            &tap,
                            mtu,
                            format!("{}/{what} VM", config.tenant),
                        ),
                        owner: slot.uid,
                        wire: Some(interface.clone()),
                        needs: slot.needs.clone(),
                    }));
                    functions.push(Function::Tap {
                        interface: tap,
                        wire: interface.clone(),
                        mac,
                    });
                }
                _ => {}
            }
        }
        let machine = Machine {
            manager: self.settings.manager,
            qemu: self.settings.qemu.clone(),
            image: self.settings.image.dir.clone(),
            image_sha256: self.settings.image.sha256.clone(),
            accel: self.settings.accel,
            memory_mib: self.settings.memory_mib,
            hugepages: self.settings.hugepages,
            ike: slot.ike.is_some(),
            functions,
        };
        // libvirt makes its own control group.
        resources
            .retain(|it| machine.manager == Manager::Qemu || !matches!(it, Resource::Cgroup(_)));
        for resource in &mut resources {
            match resource {
                // The machine's memory includes the switch's packet memory.
                Resource::Cgroup(group) => {
                    group.memory_mib = memory_limit(self.base.limits.memory_mib, &machine);
                    group.hugepages_mib = match machine.hugepages {
                        true => Hugepages::read().whole_mib(machine.memory_mib),
                        false => 0,
                    };
                }
                Resource::Switch(switch) => {
                    switch.needs.extend(taps.iter().map(Resource::key));
                    switch.machine = Some(Box::new(machine.clone()));
                }
                _ => {}
            }
        }
        taps.extend(resources);
        taps.extend(slot.ike.iter().map(|ike| {
            Resource::Ike(Box::new(Ike {
                tenant: config.tenant.clone(),
                place: Place::Machine {
                    machine_uid: slot.uid,
                    accel: self.settings.accel,
                },
                config: ike.clone(),
                needs: BTreeSet::from([Key::Switch {
                    tenant: config.tenant.clone(),
                }]),
            }))
        }));
        taps
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::launcher::process::plan::Limits;
    use crate::launcher::switch::Switch;
    use crate::launcher::vm::image::Image;
    use crate::launcher::vm::machine::Accel;

    pub(in crate::launcher::vm) fn machine() -> Machine {
        let mac =
            |last: u8| tenant_config::MacAddr::new([2, 0, 0x13, 0x89, 0, last]).expect("a MAC");
        Machine {
            manager: Manager::Qemu,
            qemu: PathBuf::from("/usr/bin/qemu-system-x86_64"),
            image: PathBuf::from("/usr/lib/vswitch/switch-image"),
            image_sha256: "0".repeat(64),
            accel: Accel::Tcg,
            memory_mib: 160,
            hugepages: true,
            ike: true,
            functions: vec![
                Function::Tap {
                    interface: "vm-frgker7qrb".to_owned(),
                    wire: "gw-frgker7qrb".to_owned(),
                    mac: mac(1),
                },
                Function::Vf {
                    address: "0000:01:10.2".parse().expect("an address"),
                    mac: mac(2),
                    vlan: Some(tenant_config::VlanId::new(101).expect("a VLAN")),
                },
            ],
        }
    }

    pub(in crate::launcher::vm) fn switch() -> Switch {
        let tenant = tenant_config::Tenant::parse(
            "red.toml",
            "name = \"red\"\nvni = 5001\n[gateway]\nipv4 = \"10.0.0.1/24\"\n[[port]]\nname = \
             \"red-vm1\"\nmac = \"52:54:00:aa:00:01\"\naddresses = [\"10.0.0.11\"]\n",
        )
        .expect("a tenant");
        let devices = tenant_config::Devices {
            ports: vec![Device::Offline],
            uplink: None,
            memory: Memory::default(),
            control_socket: None,
        };
        Switch {
            tenant: tenant.name().clone(),
            uid: 64000,
            namespace: "sw-red".to_owned(),
            cgroup: "mts/red".to_owned(),
            binary: PathBuf::from("/usr/bin/vswitch"),
            cpu: Some(2),
            config: tenant.switch_config(devices).expect("it fits"),
            machine: Some(Box::new(machine())),
            needs: std::collections::BTreeSet::new(),
        }
    }

    #[test]
    fn machine_has_no_other_devices() {
        let lines = |machine: &Machine| {
            let words = qemu::arguments("red", machine);
            let text: String = words
                .iter()
                .map(|word| format!("{}{word}", if word.starts_with('-') { '\n' } else { ' ' }))
                .collect();
            text.trim_start().to_owned() + "\n"
        };
        assert_eq!(lines(&machine()), include_str!("golden/qemu.txt"));
        let devices = |text: String| {
            text.lines()
                .filter(|line| line.starts_with("-device"))
                .count()
        };
        // The IOMMU, the channels' controller, the three channels, two functions.
        assert_eq!(devices(lines(&machine())), 7);
        // Without IPsec there is no port for it.
        let mut machine = machine();
        machine.ike = false;
        assert_eq!(devices(lines(&machine)), 6);
    }

    fn launcher(manager: Manager, has_ike: bool) -> Vm {
        Vm {
            base: Process {
                binary: "/usr/bin/vswitch".into(),
                ike_binary: "/usr/bin/vswitch-charon".into(),
                instance: "mts".to_owned(),
                limits: Limits {
                    cpu_percent: 100,
                    memory_mib: 128,
                    packet_memory: Memory::default(),
                },
            },
            settings: Settings {
                manager,
                qemu: "/usr/bin/qemu-system-x86_64".into(),
                image: Image {
                    dir: "/image".into(),
                    sha256: "0".repeat(64),
                    has_ike,
                },
                accel: Accel::Kvm,
                memory_mib: 160,
                hugepages: false,
            },
        }
    }

    #[test]
    fn daemon_is_planned_into_the_machine() {
        let tenant = tenant_config::Tenant::parse(
            "red.toml",
            "name = \"red\"\nvni = 5001\n[gateway]\nipv4 = \"10.0.0.1/24\"\n[uplink]\naddress = \
             \"192.0.2.11/24\"\nnext_hop = \"192.0.2.1\"\n[tunnel]\nkind = \
             \"geneve\"\n[tunnel.ipsec]\nmode = \"required\"\npsk = \
             \"/red.psk\"\n[[tunnel.peer]]\nname = \"far\"\nvtep = \"192.0.2.12\"\nprefixes = \
             [\"10.0.0.12\"]\n[[port]]\nname = \"red-vm1\"\nmac = \
             \"52:54:00:aa:00:01\"\naddresses = [\"10.0.0.11\"]\n",
        )
        .expect("a tenant");
        let config = tenant.offline_config();
        let slot = Slot {
            uid: 64000,
            cpu: None,
            namespace: "sw-red".to_owned(),
            devices: Assignment {
                ports: vec![Device::Offline],
                uplink: Some(Device::Offline),
                guests: Vec::new(),
            },
            ike: tenant.ike_config(),
            needs: BTreeSet::new(),
        };
        for manager in [Manager::Qemu, Manager::Libvirt] {
            let vm = launcher(manager, true);
            assert_eq!(vm.ike_uid(64000), Ok(None));
            let resources = vm.resources(&config, &slot);
            let daemon = resources.iter().find_map(|it| match it {
                Resource::Ike(ike) => Some(ike),
                _ => None,
            });
            let daemon = daemon.expect("it is planned");
            let place = Place::Machine {
                machine_uid: 64000,
                accel: Accel::Kvm,
            };
            assert_eq!(daemon.place, place);
            // It comes after its switch, and has no group beside the machine's.
            let has_port = |it: &Resource| match it {
                Resource::Switch(it) => it.machine.as_ref().is_some_and(|machine| machine.ike),
                _ => false,
            };
            let switch = resources.iter().position(has_port);
            assert_eq!(switch, Some(resources.len() - 2));
            let groups = resources.iter();
            let groups = groups.filter(|it| matches!(it, Resource::Cgroup(_)));
            assert_eq!(groups.count(), usize::from(manager == Manager::Qemu));
        }
        let old = launcher(Manager::Qemu, false).ike_uid(64000);
        let why = old.expect_err("there is none");
        assert!(
            why.starts_with("the image /image has no IKE daemon: "),
            "{why}"
        );
    }

    #[test]
    fn functions_have_distinct_addresses() {
        let places: std::collections::BTreeSet<_> = (0..100).map(qemu::place).collect();
        assert_eq!(places.len(), 100);
        assert!(
            places
                .iter()
                .all(|(slot, part)| (0x10..0x1e).contains(slot) && *part < 8)
        );
        assert_eq!(
            (qemu::place(0), qemu::place(13), qemu::place(14)),
            ((0x10, 0), (0x1d, 0), (0x10, 1))
        );
        let devices = Assignment {
            ports: vec![
                Device::Offline,
                Device::Pci {
                    address: "0000:01:10.2".parse().expect("an address"),
                    vlan: Some(tenant_config::VlanId::new(7).expect("a VLAN")),
                },
            ],
            uplink: Some(Device::Offline),
            guests: Vec::new(),
        };
        let inside = inside(&devices);
        let at = |address: &str, vlan: Option<u16>| Device::Pci {
            address: address.parse().expect("an address"),
            vlan: vlan.map(|vlan| tenant_config::VlanId::new(vlan).expect("a VLAN")),
        };
        assert_eq!(
            inside.ports,
            [at("0000:00:10.0", None), at("0000:00:11.0", Some(7))]
        );
        assert_eq!(inside.uplink, Some(at("0000:00:12.0", None)));
    }
}
