//! The objects of an SR-IOV NIC: physical and virtual functions, as data.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_config::{MacAddr, Name, NicAttribute, PciAddress, VlanId};

use crate::key::Key;
use crate::object::Object;

/// The driver that gives a function to programs.
pub(super) const VFIO: &str = "vfio-pci";
const FOREIGN: &str = "is in use or not as a free one is, and not by this provisioner: \
    `vf-provisioner nic` shows by whom; free it, or name other PFs in --pf";

/// A physical function, as far as its virtual functions hang on it. It is shared by all tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pf {
    /// Its address.
    pub address: PciAddress,
    /// Its interface.
    pub interface: String,
    /// What is set on it.
    pub set: PfSettings,
    /// What was there before, and is put back with the last tenant.
    pub found: PfSettings,
}

/// What is set on a physical function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PfSettings {
    /// Whether the kernel binds a driver of its own to each virtual function that appears.
    pub autoprobe: bool,
    /// How many virtual functions there are.
    pub vfs: u32,
    /// Administratively up: most NICs switch between their functions only then.
    pub up: bool,
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
}

/// Which side of a tenant's traffic a virtual function carries.
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

/// Whose a virtual function is, and for what.
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

/// How the NIC treats one virtual function, as its physical function is told and tells. The default is that of
/// a function that nobody has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct VfSettings {
    /// The MAC; none is all zero.
    pub mac: Option<MacAddr>,
    /// The VLAN that the NIC puts the function on.
    pub vlan: Option<VlanId>,
    /// The priority in the VLAN's tag.
    pub qos: u32,
    /// The tag's protocol, 802.1Q or 802.1ad.
    pub vlan_protocol: String,
    /// Frames with another source MAC are dropped.
    pub spoof_check: bool,
    /// The function may change its MAC and be promiscuous.
    pub trust: bool,
    /// `auto`, as the cable's, or `enable` or `disable`.
    pub link_state: String,
    /// The transmit rate it is sure of, in Mbit/s; 0 is none.
    pub min_rate_mbit: u32,
    /// The transmit rate it cannot exceed, in Mbit/s; 0 is none.
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

impl VfSettings {
    /// Makes one setting as it is in `other`.
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

/// The interface of a virtual function that a driver of the kernel's has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfInterface {
    /// The network namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// Its own MAC, which must be the one the NIC holds it to.
    pub mac: Option<MacAddr>,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
}

/// A virtual function that is a tenant's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vf {
    /// Its address.
    pub address: PciAddress,
    /// The interface of its physical function.
    pub pf: String,
    /// Its number there.
    pub index: u32,
    /// Whose it is.
    pub owner: Owner,
    /// How the NIC treats it.
    pub set: VfSettings,
    /// What of `set` may be otherwise, because the tenant's file says so.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub accept: BTreeSet<NicAttribute>,
    /// The driver that has it.
    pub driver: Option<String>,
    /// Whether its IOMMU group holds nothing else. Nobody asks where the kernel drives it.
    pub alone: Option<bool>,
    /// Its interface, if a driver of the kernel's has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<VfInterface>,
    /// The driver that had it before, and gets it back.
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

    /// Nobody has it, and nothing of a former owner is left on it.
    fn idle(&self) -> Option<Self> {
        // A driver of the kernel's chooses a MAC for itself.
        let mac = self.set.mac.filter(|_| self.found_driver.is_some());
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

    /// A process that has the function open keeps it; a new driver needs it free.
    fn changes_in_place(&self, wanted: &Self) -> bool {
        let fixed = |vf: &Self| {
            let place = |it: &VfInterface| (it.namespace.clone(), it.name.clone());
            let interface = vf.interface.as_ref();
            (
                vf.index,
                vf.pf.clone(),
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

    fn accepted(&self) -> Option<&BTreeSet<NicAttribute>> {
        Some(&self.accept)
    }

    fn status(&self) -> Option<serde_json::Value> {
        Some(json!({
            "for": self.owner.to_string(), "pf": self.pf, "vf": self.index,
            "address": self.address, "mac": self.set.mac, "vlan": self.set.vlan,
        }))
    }
}

/// The driver of the kernel's for the virtual functions of a physical one with this driver.
pub(super) fn kernel_driver(pf_driver: &str) -> &str {
    match pf_driver {
        "igb" => "igbvf",
        "ixgbe" => "ixgbevf",
        "i40e" | "ice" => "iavf",
        // mlx5_core, bnxt_en and others drive both.
        other => other,
    }
}
