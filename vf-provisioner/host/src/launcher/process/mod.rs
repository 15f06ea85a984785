//! The embedded default: a switch is a confined process in namespaces of its own.

mod run;

use std::path::{Path, PathBuf};

use clap::Args;
use tenant_config::{Memory, SwitchConfig};

pub use self::run::Confined;
use super::cgroup::Cgroup;
use super::files::{CONTROL, Directory};
use super::registry::Kind;
use super::switch::Switch;
use super::{Launcher, Slot};
use crate::error::OptionError;
use crate::nic::Assignment;
use crate::resource::Resource;

/// Where the switch finds its own directory.
const INSIDE: &str = "/run/vswitch";
const TASKS: u32 = 64;

/// The options of new switches, whichever launcher runs them.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Options {
    /// The switch's executable [default: vswitch beside this program, else the one in PATH]
    #[arg(long, global = true, value_name = "FILE")]
    switch_binary: Option<PathBuf>,
    /// Processor time of one switch, in percent of one core
    #[arg(long, global = true, value_name = "PERCENT", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    pub cpu_limit: u32,
    /// Memory of one switch beside its packet memory, in MiB
    #[arg(long, global = true, value_name = "MIB", default_value_t = 128)]
    #[arg(value_parser = clap::value_parser!(u32).range(16..=65536))]
    pub memory_limit: u32,
    /// Packet memory of one switch, in MiB
    #[arg(long, global = true, value_name = "MIB", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u32).range(8..=4096))]
    packet_memory: u32,
    /// Take packet memory from hugepages
    #[arg(long, global = true)]
    pub hugepages: bool,
}

impl Options {
    /// The switch's executable.
    pub fn binary(&self) -> PathBuf {
        if let Some(binary) = &self.switch_binary {
            return std::path::absolute(binary).unwrap_or(binary.clone());
        }
        let beside = std::env::current_exe()
            .ok()
            .map(|program| program.with_file_name("vswitch"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        beside
            .into_iter()
            .chain(std::env::split_paths(&path).map(|dir| dir.join("vswitch")))
            .find(|file| file.is_file())
            .unwrap_or_else(|| PathBuf::from("/usr/bin/vswitch"))
    }

    /// What new switches have in common.
    pub fn base(&self, instance: &str) -> Process {
        Process {
            binary: self.binary(),
            instance: instance.to_owned(),
            limits: Limits {
                cpu_percent: self.cpu_limit,
                memory_mib: self.memory_limit,
                packet_memory: Memory {
                    mib: self.packet_memory,
                    hugepages: self.hugepages,
                },
            },
        }
    }
}

/// How much of the host a switch may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Processor time in percent of one core.
    pub cpu_percent: u32,
    /// Memory beside the packet memory, in MiB.
    pub memory_mib: u32,
    /// Packet memory, in MiB.
    pub packet_memory: Memory,
}

/// The launcher.
#[derive(Debug, Clone)]
pub struct Process {
    /// The switch's executable.
    pub binary: PathBuf,
    /// The prefix of control groups.
    pub instance: String,
    /// What each switch may take.
    pub limits: Limits,
}

impl Kind for Confined {
    type Options = Options;

    fn launcher(_: &Options, base: Process) -> Result<Box<dyn Launcher>, OptionError> {
        Ok(Box::new(base))
    }
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
        vec![
            Resource::Directory(Directory {
                tenant: config.tenant.clone(),
                uid: slot.uid,
            }),
            Resource::Cgroup(Cgroup {
                path: cgroup.clone(),
                cpu_percent: self.limits.cpu_percent,
                memory_mib: self.limits.memory_mib + config.memory.mib,
                tasks: TASKS,
            }),
            Resource::Switch(Switch {
                tenant: config.tenant.clone(),
                uid: slot.uid,
                namespace: slot.namespace.clone(),
                cgroup,
                binary: self.binary.clone(),
                cpu: slot.cpu,
                config: config.clone(),
                machine: None,
                needs: slot.needs.clone(),
            }),
        ]
    }
}
