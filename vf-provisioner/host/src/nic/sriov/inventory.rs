//! The SR-IOV NICs of a host with the users and settings of their functions, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use tenant_config::{MacAddr, NicAttribute, PciAddress};

use super::function::{PfSettings, VfSettings, is_parked};

/// The SR-IOV NICs of a host, and every MAC on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The PFs that can have VFs, by address.
    pub pfs: Vec<PhysicalFunction>,
    /// The interfaces of the provisioner's own network namespace.
    pub interfaces: Vec<Interface>,
}

/// An interface and its MAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC.
    pub mac: MacAddr,
    /// Its PCI function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<PciAddress>,
}

/// A physical function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhysicalFunction {
    /// Its address.
    pub address: PciAddress,
    /// Its interface, if it has one in the provisioner's network namespace.
    pub interface: Option<String>,
    /// Its driver.
    pub driver: Option<String>,
    /// The maximum number of VFs.
    pub total_vfs: u32,
    /// Its settings.
    pub set: PfSettings,
    /// The offset from its address to that of its first VF.
    pub offset: u16,
    /// The offset from one VF's address to the next one's.
    pub stride: u16,
    /// Whether it is behind an IOMMU.
    pub iommu: bool,
    /// The existing VFs.
    pub vfs: Vec<VirtualFunction>,
}

impl PhysicalFunction {
    /// Its name in messages.
    pub fn label(&self) -> String {
        match &self.interface {
            Some(interface) => interface.clone(),
            None => self.address.to_string(),
        }
    }

    /// The address of the VF of this number, which need not exist yet.
    pub fn vf_address(&self, index: u32) -> Option<PciAddress> {
        let text = self.address.to_string();
        let (domain, rest) = text.split_once(':')?;
        let hex = |text: &str| u32::from_str_radix(text, 16).ok();
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let own = hex(bus)? << 8 | hex(device)? << 3 | hex(function)?;
        let id = own + u32::from(self.offset) + index * u32::from(self.stride);
        let (bus, device, function) = (id >> 8, id >> 3 & 0x1f, id & 7);
        format!("{domain}:{bus:02x}:{device:02x}.{function:x}")
            .parse()
            .ok()
    }
}

/// The settings that some drivers show otherwise on a fresh function: they are no sign of a user.
const FRESH: [NicAttribute; 3] = [
    NicAttribute::SpoofCheck,
    NicAttribute::LinkState,
    NicAttribute::VlanProtocol,
];

/// A virtual function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualFunction {
    /// Its number.
    pub index: u32,
    /// Its address.
    pub address: PciAddress,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// The other devices in the group.
    pub group_others: Vec<String>,
    /// The driver that it is bound to.
    pub driver: Option<String>,
    /// Its settings at the PF.
    pub set: VfSettings,
    /// Its user.
    pub user: User,
}

/// The user of a VF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum User {
    /// None: it is bound to no driver.
    Nobody,
    /// An interface of the provisioner's network namespace.
    Interface {
        /// Its name.
        name: String,
        /// Its MAC.
        mac: Option<MacAddr>,
        /// Up, or with an address, or part of a bridge or similar.
        busy: bool,
    },
    /// An interface in another network namespace, or one that the driver has not made yet.
    Elsewhere,
    /// It is bound to a user-space driver; these processes have it open.
    Program {
        /// Their numbers.
        processes: BTreeSet<i32>,
        /// Their commands, and the virtual machines that they run.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        who: BTreeMap<i32, String>,
    },
}

impl VirtualFunction {
    /// Why it cannot be assigned to a tenant that accepts nothing.
    pub fn taken(&self) -> Option<String> {
        self.taken_for(&BTreeSet::new())
    }

    /// Who uses it, whatever its driver shows on a fresh function.
    pub fn used(&self) -> Option<String> {
        self.taken_for(&FRESH.into())
    }

    /// The settings that a tenant must accept to get it; `None` if nobody can.
    pub fn needs(&self) -> Option<BTreeSet<NicAttribute>> {
        if self.used().is_some() {
            return None;
        }
        let blank = VfSettings::default();
        let differs = |attribute: &NicAttribute| {
            let mut set = self.set.clone();
            set.take(*attribute, &blank);
            set != self.set
        };
        Some(FRESH.into_iter().filter(differs).collect())
    }

    fn taken_for(&self, accept: &BTreeSet<NicAttribute>) -> Option<String> {
        let driver = self.driver.as_deref().unwrap_or("no driver");
        let mut blank = VfSettings {
            mac: self.set.mac.filter(|mac| is_parked(*mac)),
            ..VfSettings::default()
        };
        for attribute in accept {
            blank.take(*attribute, &self.set);
        }
        match &self.user {
            User::Nobody => {}
            User::Interface {
                name, busy: true, ..
            } => {
                return Some(format!("interface {name} is in use"));
            }
            // The kernel's driver has chosen a MAC.
            User::Interface { mac, .. } => {
                let chosen = self.set.mac.filter(|_| self.set.mac == *mac);
                blank.mac = blank.mac.or(chosen);
            }
            User::Elsewhere => return Some(format!("{driver} has it in another namespace")),
            User::Program { processes, .. } if processes.is_empty() => {
                return Some(format!("{driver} has it"));
            }
            User::Program { processes, who } => {
                let named = processes.iter().map(|process| match who.get(process) {
                    Some(who) => format!("{process} ({who})"),
                    None => process.to_string(),
                });
                let named: Vec<_> = named.collect();
                return Some(format!("open in process {}", named.join(", ")));
            }
        }
        if self.set == blank {
            return None;
        }
        blank.spoof_check = self.set.spoof_check;
        Some(if self.set == blank {
            "its spoof check is off: only for tenants that accept spoof-check".to_owned()
        } else {
            "it has settings of another program".to_owned()
        })
    }
}

impl Inventory {
    /// A simulated host to test and time allocations: `pfs` PFs from `pf0` on, which can have `vfs`
    /// VFs each and have none.
    pub fn simulated(pfs: u16, vfs: u32) -> Self {
        let pf = |number: u16| PhysicalFunction {
            address: format!("{number:04x}:01:00.0")
                .parse()
                .expect("it is an address"),
            interface: Some(format!("pf{number}")),
            driver: Some("igb".to_owned()),
            total_vfs: vfs,
            set: PfSettings {
                autoprobe: true,
                vfs: 0,
                up: false,
                mtu: Some(1500),
            },
            offset: 0x80,
            stride: 2,
            iommu: true,
            vfs: Vec::new(),
        };
        Self {
            pfs: (0..pfs).map(pf).collect(),
            interfaces: Vec::new(),
        }
    }

    /// The same with all VFs, unassigned.
    pub fn with_vfs(mut self) -> Self {
        for pf in &mut self.pfs {
            pf.set.vfs = pf.total_vfs;
            let address = |index| Some((index, pf.vf_address(index)?));
            let vfs = (0..pf.total_vfs).filter_map(address);
            pf.vfs = vfs
                .map(|(index, address)| VirtualFunction {
                    index,
                    address,
                    group: Some(index),
                    group_others: Vec::new(),
                    driver: None,
                    set: VfSettings::default(),
                    user: User::Nobody,
                })
                .collect();
        }
        self
    }
}

impl fmt::Display for Inventory {
    /// A table with one line for each VF.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pf in &self.pfs {
            let switch = |on| if on { "on" } else { "off" };
            writeln!(
                out,
                "{} {}  driver {}  {} of {} VFs  {}  autoprobe {}  IOMMU {}",
                pf.label(),
                pf.address,
                pf.driver.as_deref().unwrap_or("none"),
                pf.set.vfs,
                pf.total_vfs,
                if pf.set.up { "up" } else { "down" },
                switch(pf.set.autoprobe),
                switch(pf.iommu),
            )?;
            if pf.vfs.is_empty() {
                continue;
            }
            writeln!(
                out,
                "  {:>3} {:<12} {:>5} {:<10} {:<17} {:>5} {:<6} {:<5} {:<7} {:>9}  USE",
                "VF",
                "ADDRESS",
                "GROUP",
                "DRIVER",
                "MAC",
                "VLAN",
                "SPOOF",
                "TRUST",
                "LINK",
                "MBIT/S"
            )?;
            for vf in &pf.vfs {
                let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
                let set = &vf.set;
                let group = vf.group.map(|group| {
                    let shared = if vf.group_others.is_empty() { "" } else { "!" };
                    format!("{group}{shared}")
                });
                writeln!(
                    out,
                    "  {:>3} {:<12} {:>5} {:<10} {:<17} {:>5} {:<6} {:<5} {:<7} {:>9}  {}",
                    vf.index,
                    vf.address.to_string(),
                    or_dash(group),
                    or_dash(vf.driver.clone()),
                    or_dash(set.mac.map(|mac| mac.to_string())),
                    or_dash(set.vlan.map(|vlan| vlan.to_string())),
                    switch(set.spoof_check),
                    switch(set.trust),
                    set.link_state,
                    format!("{}-{}", set.min_rate_mbit, set.max_rate_mbit),
                    vf.taken().unwrap_or_else(|| "free".to_owned()),
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_addresses_are_known_before_creation() {
        let pf = &Inventory::simulated(1, 126).pfs[0];
        let address = |index| pf.vf_address(index).map(|address| address.to_string());
        assert_eq!(address(0).as_deref(), Some("0000:01:10.0"));
        assert_eq!(address(4).as_deref(), Some("0000:01:11.0"));
        assert_eq!(address(64).as_deref(), Some("0000:02:00.0"));
    }
}
