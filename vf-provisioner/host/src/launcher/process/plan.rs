//! Plans a switch that is a process.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tenant_config::{IkeConfig, Memory, SwitchConfig};

use crate::hugepages::Hugepages;
use crate::launcher::cgroup::Cgroup;
use crate::launcher::files::{CONTROL, Directory};
use crate::launcher::ike::{Ike, Place, uid_beside};
use crate::launcher::switch::Switch;
use crate::launcher::{Launcher, Slot};
use crate::nic::Assignment;
use crate::resource::{Key, Resource};

/// Where the switch finds its own directory.
pub(super) const INSIDE: &str = "/run/vswitch";
const TASKS: u32 = 64;
/// Processor time of an IKE daemon, in percent of one core.
const IKE_CPU_PERCENT: u32 = 50;
/// Memory of an IKE daemon, in MiB: it takes 9, and more while many peers negotiate.
const IKE_MEMORY_MIB: u32 = 64;

/// The limits of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Processor time in percent of one core.
    pub cpu_percent: u32,
    /// Memory without the packet memory, in MiB.
    pub memory_mib: u32,
    /// Packet memory, in MiB.
    pub packet_memory: Memory,
}

/// The launcher.
#[derive(Debug, Clone)]
pub struct Process {
    /// The switch's executable.
    pub binary: PathBuf,
    /// The IKE daemon's executable.
    pub ike_binary: PathBuf,
    /// The prefix of control groups.
    pub instance: String,
    /// The limits of each switch.
    pub limits: Limits,
}

impl Launcher for Process {
    fn control_socket_inside(&self) -> PathBuf {
        Path::new(INSIDE).join(CONTROL)
    }

    fn inside(&self, devices: &Assignment) -> Assignment {
        devices.clone()
    }

    fn memory(&self) -> Memory {
        self.limits.packet_memory
    }

    fn hugepages_mib(&self) -> u32 {
        self.limits.packet_memory.mib
    }

    fn resources(&self, config: &SwitchConfig, slot: &Slot) -> Vec<Resource> {
        let cgroup = format!("{}/{}", self.instance, config.tenant);
        let mut resources = vec![
            Resource::Directory(Directory {
                tenant: config.tenant.clone(),
                uid: slot.uid,
            }),
            Resource::Cgroup(Cgroup {
                path: cgroup.clone(),
                cpu_percent: self.limits.cpu_percent,
                memory_mib: self.limits.memory_mib + config.memory.mib,
                tasks: TASKS,
                hugepages_mib: match config.memory.hugepages {
                    true => packet_mib(config.memory),
                    false => 0,
                },
            }),
            Resource::Switch(Box::new(Switch {
                tenant: config.tenant.clone(),
                uid: slot.uid,
                namespace: slot.namespace.clone(),
                cgroup,
                binary: self.binary.clone(),
                cpu: slot.cpu,
                config: config.clone(),
                machine: None,
                needs: slot.needs.clone(),
            })),
        ];
        if let Some(ike) = &slot.ike {
            resources.extend(self.ike(config, slot.uid, ike.clone()));
        }
        resources
    }

    fn ike_uid(&self, switch_uid: u32) -> Result<Option<u32>, String> {
        Ok(Some(uid_beside(switch_uid)))
    }
}

impl Process {
    /// The IKE daemon beside a switch of that user.
    fn ike(&self, config: &SwitchConfig, switch_uid: u32, ike: IkeConfig) -> [Resource; 2] {
        let tenant = &config.tenant;
        // A name has no dot, so no tenant has this group.
        let cgroup = format!("{}/{tenant}.ike", self.instance);
        let group = Cgroup {
            path: cgroup.clone(),
            cpu_percent: IKE_CPU_PERCENT,
            memory_mib: IKE_MEMORY_MIB,
            tasks: TASKS,
            hugepages_mib: 0,
        };
        let daemon = Ike {
            tenant: tenant.clone(),
            place: Place::Process {
                uid: uid_beside(switch_uid),
                cgroup,
                binary: self.ike_binary.clone(),
            },
            config: ike,
            needs: BTreeSet::from([Key::Switch {
                tenant: tenant.clone(),
            }]),
        };
        [Resource::Cgroup(group), Resource::Ike(Box::new(daemon))]
    }
}

/// Packet memory in MiB, in whole pages.
pub(super) fn packet_mib(memory: Memory) -> u32 {
    match memory.hugepages {
        true => Hugepages::read().whole_mib(memory.mib),
        false => memory.mib,
    }
}
