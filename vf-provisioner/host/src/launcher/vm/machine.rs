//! A tenant's virtual machine, as data.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenant_config::{MacAddr, PciAddress, VlanId};

/// What starts a tenant's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manager {
    /// The provisioner, which confines QEMU.
    Qemu,
    /// libvirt.
    Libvirt,
}

/// What executes a machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// The processor.
    Kvm,
    /// QEMU's translator: works everywhere, but is slow.
    Tcg,
}

impl Accel {
    /// How long a machine may take until its switch first answers. Under TCG inside a translated
    /// machine, the kernel boots for minutes.
    pub(super) fn boots_within(self) -> Duration {
        Duration::from_secs(match self {
            Self::Kvm => 60,
            Self::Tcg => 1800,
        })
    }

    /// How long a running switch may take to answer. Under nested translation, the first execution
    /// of code takes seconds.
    pub(in crate::launcher) fn answers_within(self) -> Duration {
        Duration::from_secs(match self {
            Self::Kvm => 10,
            Self::Tcg => 120,
        })
    }
}

/// A tenant's virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What starts it.
    pub manager: Manager,
    /// QEMU's executable.
    pub qemu: PathBuf,
    /// The directory of the image.
    pub image: PathBuf,
    /// The SHA-256 of the image's manifest, which lists those of its files.
    pub image_sha256: String,
    /// What executes it.
    pub accel: Accel,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Whether that is taken from the host's hugepages.
    pub hugepages: bool,
    /// Whether it has a port for the IKE daemon beside its switch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ike: bool,
    /// Its network functions, in the order of their addresses.
    pub functions: Vec<Function>,
}

/// One network function of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "function", rename_all = "snake_case")]
pub enum Function {
    /// A virtio NIC on a tap.
    Tap {
        /// The tap in the switch's network namespace.
        interface: String,
        /// The interface there that it is wired to.
        wire: String,
        /// The NIC's MAC.
        mac: MacAddr,
    },
    /// A function of the host's NIC, passed through.
    Vf {
        /// Its address on the host.
        address: PciAddress,
        /// Its MAC.
        mac: MacAddr,
        /// The VLAN to which the NIC limits it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vlan: Option<VlanId>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translated_machine_gets_more_time() {
        for within in [Accel::boots_within, Accel::answers_within] {
            let [kvm, tcg] = [Accel::Kvm, Accel::Tcg].map(within);
            assert!(Duration::ZERO < kvm && kvm < tcg, "{kvm:?} {tcg:?}");
        }
    }
}
