//! Why tenants do not fit on the NIC.

use std::fmt;

use tenant_config::{MacAddr, Name, VlanId};

/// Why tenants do not fit on the NIC. Nothing was touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// The operator named no PF.
    #[error("--nic sriov: name the physical functions in --pf; this host has {known}")]
    NoPfNamed {
        /// The existing ones.
        known: String,
    },
    /// No PF has this name.
    #[error(
        "--pf {name}: no such SR-IOV NIC; this host has {known}. A NIC is listed once SR-IOV is \
         enabled in its firmware and its driver is loaded"
    )]
    NoSuchPf {
        /// The name.
        name: String,
        /// The existing ones.
        known: String,
    },
    /// The PF has no interface.
    #[error(
        "--pf {name}: it has no interface in this network namespace: bind its driver, or move the \
         interface back"
    )]
    NoInterface {
        /// The name.
        name: String,
    },
    /// The PF is not behind an IOMMU.
    #[error(
        "--pf {name}: it is not behind an IOMMU, so its functions cannot be assigned to switches: \
         enable the IOMMU in the firmware (VT-d, AMD-Vi) and boot with intel_iommu=on or \
         amd_iommu=on"
    )]
    NoIommu {
        /// The name.
        name: String,
    },
    /// The PF cannot have so many VFs.
    #[error("--vfs {wanted}: {name} can have 1 to {total} virtual functions")]
    NoSuchNumber {
        /// The PF.
        name: String,
        /// The number.
        wanted: u32,
        /// The most.
        total: u32,
    },
    /// The PF has another number of VFs.
    #[error(
        "--vfs {wanted}: {name} has {is} virtual functions, and a change destroys them: leave \
         --vfs out, or add --resize-pf"
    )]
    OtherNumber {
        /// The PF.
        name: String,
        /// The number.
        wanted: u32,
        /// The present number.
        is: u32,
    },
    /// Too few VFs.
    #[error("{0}")]
    Budget(Box<Budget>),
    /// Too few VLANs.
    #[error(
        "tenant {tenant}: its ports need {wanted} VLANs and {free} are free in --vlans {range} \
         ({taken} are taken): widen the range, and keep it off the adjacent switch's port"
    )]
    Vlans {
        /// Which tenant.
        tenant: Name,
        /// How many more it needs.
        wanted: usize,
        /// How many are free.
        free: usize,
        /// How many are taken.
        taken: usize,
        /// The range.
        range: String,
    },
    /// An In/Out function would be on a port's VLAN.
    #[error(
        "tenant {tenant}: its In/Out function would be on VLAN {vlan}, which is a port's: choose \
         another --inout-vlan"
    )]
    Underlay {
        /// One of the tenants.
        tenant: Name,
        /// The VLAN.
        vlan: VlanId,
    },
    /// A duplicate MAC.
    #[error("MAC {mac} is that of {one} and of {other}: change one of them")]
    Mac {
        /// The MAC.
        mac: MacAddr,
        /// Its first owner.
        one: String,
        /// Its second owner.
        other: String,
    },
}

/// The numbers of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// The first tenant that does not fit.
    pub tenant: Name,
    /// How many of the given tenants fit.
    pub fit: usize,
    /// The number of given tenants.
    pub tenants: usize,
    /// The VFs that all of them need in addition to those that they have.
    pub wanted: usize,
    /// The free VFs.
    pub free: usize,
    /// The free VFs of each PF.
    pub free_on: Vec<(String, usize)>,
    /// The VFs that were not free, and why.
    pub taken: Vec<String>,
}

impl fmt::Display for Budget {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let list = |items: Vec<String>| {
            let more = items.len().saturating_sub(SHOWN);
            let mut text = items[..items.len() - more].join(", ");
            if more > 0 {
                text += &format!(" and {more} more");
            }
            text
        };
        let on = self.free_on.iter().map(|(pf, free)| format!("{pf} {free}"));
        write!(
            out,
            "tenant {} does not fit: the {} tenants need {} more virtual functions (2 for each \
             port, 1 for each uplink) and {} are free ({}); the first {} fit",
            self.tenant,
            self.tenants,
            self.wanted,
            self.free,
            list(on.collect()),
            self.fit,
        )?;
        if !self.taken.is_empty() {
            write!(out, "; not free: {}", list(self.taken.clone()))?;
        }
        out.write_str(": name more NICs in --pf, or release tenants")
    }
}
