//! The options of the backend.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tenant_config::VlanId;

use super::allocate::Pool;
use super::inventory::Inventory;
use super::plan::{Guests, Sriov, has_namespaces, is_recorded, recorded_pfs};
use super::vlans::VlanRange;
use super::{checks, prove, stranger, sysfs};
use crate::error::{HostError, OptionError};
use crate::finding::Finding;
use crate::nic::NicBackend;
use crate::nic::kind::{Kind, NewTenant};
use crate::nic::parts::names::Names;
use crate::state::{Record, State};

/// The options of the backend.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Options {
    /// With --nic sriov: the physical functions, by interface or PCI address; the first one's
    /// functions are assigned first [default: those of this host's tenants]
    #[arg(long, global = true, value_name = "LIST", value_delimiter = ',')]
    pf: Vec<String>,
    /// The one of --pf that leads to the underlay [default: any of them]
    #[arg(long, global = true, value_name = "PF")]
    inout_pf: Option<String>,
    /// With --nic sriov: the VLAN of In/Out functions. A compromised switch can then use no other
    /// [default: none, or that of this host's tenants]
    #[arg(long, global = true, value_name = "VLAN", value_parser = parse_vlan)]
    inout_vlan: Option<VlanId>,
    /// The VLANs of ports, one each; ports on another VLAN get one of these. The adjacent switch
    /// port must carry none of them [default: ports keep theirs, new ones get one of 3000-3999]
    #[arg(long, global = true, value_name = "FIRST-LAST")]
    vlans: Option<VlanRange>,
    /// What uses a T VF: a virtual machine through vfio-pci, or a network namespace named like the
    /// port [default: as with this host's tenants, else vfio]
    #[arg(long, global = true, value_enum)]
    guest: Option<GuestKind>,
    /// With --guest netns: the kernel driver of the T VFs [default: the one that matches the NIC's
    /// driver]
    #[arg(long, global = true, value_name = "DRIVER")]
    guest_driver: Option<String>,
    /// How many virtual functions a NIC of --pf gets that has none [default: all that it can have]
    #[arg(long, global = true, value_name = "N")]
    vfs: Option<u32>,
    /// Create all virtual functions that a NIC of --pf can have, or as many as --vfs says, even if
    /// some existing ones are in use
    #[arg(long, global = true)]
    pub resize_pf: bool,
    /// Read the NICs from this JSON file (the output of `nic --json`) instead of this host
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    fake_nic: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GuestKind {
    Vfio,
    Netns,
}

fn parse_vlan(text: &str) -> Result<VlanId, String> {
    let vlan = text.parse().ok().and_then(|vlan| VlanId::new(vlan).ok());
    vlan.ok_or_else(|| "not a VLAN from 1 to 4094".to_owned())
}

impl Options {
    /// Whether the NICs are read from a file.
    pub fn is_fake(&self) -> bool {
        self.fake_nic.is_some()
    }

    /// The NICs of this host.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn inventory(&self) -> Result<Inventory, OptionError> {
        let Some(file) = &self.fake_nic else {
            return Ok(sysfs::read()?);
        };
        let failed = |error: &dyn std::fmt::Display| {
            OptionError::Usage(format!("{}: {error}", file.display()))
        };
        let text = std::fs::read(file).map_err(|error| failed(&error))?;
        serde_json::from_slice(&text).map_err(|error| failed(&error))
    }
}

impl Kind for Options {
    fn is_meant(&self, state: &State) -> bool {
        !self.pf.is_empty() || is_recorded(state)
    }

    fn backend(&self, names: &Names, state: &State) -> Result<Box<dyn NicBackend>, OptionError> {
        let pool = Pool {
            pfs: if self.pf.is_empty() {
                recorded_pfs(state)
            } else {
                self.pf.clone()
            },
            inout: self.inout_pf.clone(),
            vlans: self.vlans.unwrap_or_default(),
            keep_vlans: self.vlans.is_none(),
            inout_vlan: self.inout_vlan,
            vfs: self.vfs,
            resize: self.resize_pf,
        };
        let guests = match self.guest {
            Some(GuestKind::Netns) => Guests::Namespace(self.guest_driver.clone()),
            None if has_namespaces(state) => Guests::Namespace(self.guest_driver.clone()),
            _ => Guests::Vfio,
        };
        let (names, inventory) = (names.clone(), self.inventory()?);
        let nic = Sriov::new(names, inventory, pool, guests, state);
        Ok(Box::new(nic))
    }

    fn checks(needed: bool) -> Vec<Finding> {
        checks::all(needed)
    }

    fn refusals(records: &[&Record]) -> Result<Vec<Option<String>>, HostError> {
        stranger::refusals(records)
    }

    fn prove(tenant: &NewTenant<'_>) -> Result<(), HostError> {
        prove::before_start(tenant)
    }
}
