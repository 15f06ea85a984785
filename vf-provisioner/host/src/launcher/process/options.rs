//! The options of new switches, whichever launcher runs them.

use std::path::{Path, PathBuf};

use clap::Args;
use tenant_config::Memory;

use super::plan::{Limits, Process};

/// The name of the IKE daemon's executable.
const IKE: &str = "vswitch-charon";

/// The named program, or else the one beside this program, `built` from there, or in PATH.
fn found(named: Option<&PathBuf>, name: &str, built: &str) -> PathBuf {
    if let Some(named) = named {
        return std::path::absolute(named).unwrap_or(named.clone());
    }
    let own = std::env::current_exe().ok();
    let folder = own.as_deref().and_then(Path::parent);
    let beside = folder.map(|folder| [folder.join(name), folder.join(built)]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .flatten()
        .chain(std::env::split_paths(&path).map(|dir| dir.join(name)))
        .find(|file| file.is_file())
        .unwrap_or_else(|| Path::new("/usr/bin").join(name))
}

/// The options of new switches, whichever launcher runs them.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Options {
    /// The switch's executable [default: vswitch beside this program, else the one in PATH]
    #[arg(long, global = true, value_name = "FILE")]
    switch_binary: Option<PathBuf>,
    /// The IKE daemon's executable, for tenants with IPsec [default: vswitch-charon beside this
    /// program, else in the folder ike above it, else the one in PATH]
    #[arg(long, global = true, value_name = "FILE")]
    ike_binary: Option<PathBuf>,
    /// Processor time of one switch, in percent of one core
    #[arg(long, global = true, value_name = "PERCENT", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    pub cpu_limit: u32,
    /// Memory of one switch without its packet memory, in MiB
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
        found(self.switch_binary.as_ref(), "vswitch", "vswitch")
    }

    /// The IKE daemon's executable.
    pub fn ike_binary(&self) -> PathBuf {
        let built = format!("../ike/{IKE}");
        found(self.ike_binary.as_ref(), IKE, &built)
    }

    /// What new switches have in common.
    pub fn base(&self, instance: &str) -> Process {
        Process {
            binary: self.binary(),
            ike_binary: self.ike_binary(),
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
