//! The objects of an SR-IOV NIC, as data: physical functions (PFs) and virtual functions (VFs).

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_config::{MacAddr, Name, NicAttribute, PciAddress, VlanId};

use super::device;
use crate::key::Key;
use crate::object::Object;

/// The driver that makes a function available to user space.
pub(super) const VFIO: &str = "vfio-pci";
const FOREIGN: &str = "is in use, or has settings that this provisioner did not make: \
    `vf-provisioner nic` shows by whom; free it, or name other PFs in --pf";

/// The settings of a PF on which its VFs depend. All tenants share it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pf {
    /// Its address.
    pub address: PciAddress,
    /// Its settings. The MTU is the least that the tenant needs: another may need more.
    pub set: PfSettings,
    /// Its original settings, restored with the last tenant.
    pub found: PfSettings,
}

/// The settings of a PF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PfSettings {
    /// Whether the kernel binds its own driver to each new VF.
    pub autoprobe: bool,
    /// The number of VFs.
    pub vfs: u32,
    /// Administratively up: most NICs switch frames between their functions only then.
    pub up: bool,
    /// The MTU of its interface, which bounds the frames of its VFs on many NICs; `None` in the
    /// records of programs that did not set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

impl Object for Pf {
    fn key(&self) -> Key {
        Key::Pf {
            address: self.address,
        }
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn foreign(&self) -> &'static str {
        FOREIGN
    }

    fn idle(&self) -> Option<Self> {
        Some(Self {
            set: self.found,
            ..self.clone()
        })
    }

    /// Tenants differ in the MTU only.
    fn joined(&self, other: &Self) -> Option<Self> {
        let mut both = self.clone();
        both.set.mtu = self.set.mtu.max(other.set.mtu);
        let mut theirs = other.clone();
        theirs.set.mtu = both.set.mtu;
        (both == theirs).then_some(both)
    }
}

/// The side of a tenant's traffic that a VF carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The T VF: a port, on the VM's side.
    Guest,
    /// The Gw VF: a port, on the switch's side.
    Gateway,
    /// The In/Out VF: the underlay, on the switch's side.
    InOut,
}

/// The tenant and the use of a VF.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The tenant.
    pub tenant: Name,
    /// The port; none at the In/Out side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Name>,
    /// The side.
    pub side: Side,
}

impl fmt::Display for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.tenant)?;
        if let Some(port) = &self.port {
            write!(out, "/{port}")?;
        }
        out.write_str(match self.side {
            Side::Guest => " T",
            Side::Gateway => " Gw",
            Side::InOut => " In/Out",
        })
    }
}

/// The settings of one VF at its PF. The default is that of an unassigned function.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct VfSettings {
    /// The MAC; `None` is all zero.
    pub mac: Option<MacAddr>,
    /// The VLAN to which the NIC limits the function.
    pub vlan: Option<VlanId>,
    /// The priority in the VLAN's tag.
    pub qos: u32,
    /// The tag's protocol, 802.1Q or 802.1ad.
    pub vlan_protocol: String,
    /// Frames with another source MAC are dropped.
    pub spoof_check: bool,
    /// The function may change its MAC and be promiscuous.
    pub trust: bool,
    /// `auto` (as the cable's), `enable` or `disable`.
    pub link_state: String,
    /// The guaranteed transmit rate in Mbit/s; 0 is none.
    pub min_rate_mbit: u32,
    /// The maximum transmit rate in Mbit/s; 0 is no limit.
    pub max_rate_mbit: u32,
}

impl Default for VfSettings {
    fn default() -> Self {
        Self {
            mac: None,
            vlan: None,
            qos: 0,
            vlan_protocol: "802.1Q".to_owned(),
            spoof_check: true,
            trust: false,
            link_state: "auto".to_owned(),
            min_rate_mbit: 0,
            max_rate_mbit: 0,
        }
    }
}

/// How a parked MAC begins; the rest is random.
const PARKED: [u8; 3] = [0x0e, 0x76, 0x66];

/// The MAC of an unassigned function whose driver refuses MAC zero: locally administered, random,
/// and recognised by its beginning.
///
/// # Errors
/// If the kernel gives no random bytes.
pub fn parked_mac() -> std::io::Result<MacAddr> {
    let mut random = [0; 3];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let [a, b, c] = PARKED;
    let [d, e, f] = random;
    MacAddr::new([a, b, c, d, e, f]).map_err(std::io::Error::other)
}

/// Whether a function with this MAC is unassigned.
pub fn is_parked(mac: MacAddr) -> bool {
    mac.octets().starts_with(&PARKED)
}

impl VfSettings {
    /// Copies one setting from `other`.
    pub fn take(&mut self, attribute: NicAttribute, other: &Self) {
        match attribute {
            NicAttribute::VlanProtocol => self.vlan_protocol.clone_from(&other.vlan_protocol),
            NicAttribute::SpoofCheck => self.spoof_check = other.spoof_check,
            NicAttribute::Trust => self.trust = other.trust,
            NicAttribute::LinkState => self.link_state.clone_from(&other.link_state),
            NicAttribute::MinRate => self.min_rate_mbit = other.min_rate_mbit,
            NicAttribute::MaxRate => self.max_rate_mbit = other.max_rate_mbit,
            _ => {}
        }
    }
}

/// The interface of a VF that is bound to a kernel driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfInterface {
    /// The network namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// Its own MAC, which must be the one that the NIC enforces.
    pub mac: Option<MacAddr>,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
}

/// A tenant's VF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vf {
    /// Its address.
    pub address: PciAddress,
    /// Its PF, whose interface may be renamed at any time.
    pub pf: PciAddress,
    /// Its number there.
    pub index: u32,
    /// Its tenant and use.
    pub owner: Owner,
    /// Its settings at the PF.
    pub set: VfSettings,
    /// The settings that may differ from `set`, because the tenant's file accepts that.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub accept: BTreeSet<NicAttribute>,
    /// The driver that it is bound to.
    pub driver: Option<String>,
    /// Whether it is alone in its IOMMU group; `None` with a kernel driver, where it does not
    /// matter.
    pub alone: Option<bool>,
    /// Its interface, if it is bound to a kernel driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<VfInterface>,
    /// Its original driver, which it is returned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_driver: Option<String>,
}

impl Object for Vf {
    fn key(&self) -> Key {
        Key::Vf {
            address: self.address,
        }
    }

    fn foreign(&self) -> &'static str {
        FOREIGN
    }

    /// Unassigned, without any setting of a former owner.
    fn idle(&self) -> Option<Self> {
        // A kernel driver chooses a MAC on its own.
        let chosen = |mac: &MacAddr| self.found_driver.is_some() || is_parked(*mac);
        let mac = self.set.mac.filter(chosen);
        let mut set = VfSettings {
            mac,
            ..VfSettings::default()
        };
        // Accepted settings are not compared.
        for attribute in &self.accept {
            set.take(*attribute, &self.set);
        }
        Some(Self {
            set,
            driver: self.found_driver.clone(),
            interface: None,
            ..self.clone()
        })
    }

    fn changes_owner(&self, wanted: &Self) -> bool {
        self.owner != wanted.owner
    }

    /// A process keeps a function that it has open; a change of the driver would need it free.
    fn changes_in_place(&self, wanted: &Self) -> bool {
        let fixed = |vf: &Self| {
            let place = |it: &VfInterface| (it.namespace.clone(), it.name.clone());
            let interface = vf.interface.as_ref();
            (
                vf.index,
                vf.pf,
                vf.driver.clone(),
                interface.map(place),
                interface.and_then(|it| it.mac),
            )
        };
        fixed(self) == fixed(wanted)
    }

    fn is_moved(&self, wanted: &Self) -> bool {
        (self.set.mac, self.set.vlan) != (wanted.set.mac, wanted.set.vlan)
    }

    fn carries_switch(&self) -> bool {
        self.owner.side != Side::Guest
    }

    fn drained(&self) -> Option<Self> {
        let lacks = self.accept.contains(&NicAttribute::LinkState);
        if self.owner.side != Side::Guest || lacks {
            return None;
        }
        let mut drained = self.clone();
        drained.set.link_state = "disable".to_owned();
        Some(drained)
    }

    fn accepted(&self) -> Option<&BTreeSet<NicAttribute>> {
        Some(&self.accept)
    }

    fn status(&self) -> Option<serde_json::Value> {
        Some(json!({
            "for": self.owner.to_string(), "pf": device::label(self.pf), "vf": self.index,
            "address": self.address, "mac": self.set.mac, "vlan": self.set.vlan,
            "link_state": self.set.link_state, "carrier": device::carrier(self.pf),
        }))
    }
}

/// Whether DPDK drives a VF of a PF with this driver beside the kernel's driver, which keeps it
/// ("bifurcated"), instead of through VFIO.
pub(super) fn is_bifurcated(pf_driver: &str) -> bool {
    matches!(pf_driver, "mlx4_core" | "mlx5_core")
}

/// The kernel's driver for the VFs of a PF with this driver.
pub(super) fn kernel_driver(pf_driver: &str) -> &str {
    match pf_driver {
        "igb" => "igbvf",
        "ixgbe" => "ixgbevf",
        "i40e" | "ice" => "iavf",
        // mlx5_core, bnxt_en and others drive PFs and VFs.
        other => other,
    }
}
