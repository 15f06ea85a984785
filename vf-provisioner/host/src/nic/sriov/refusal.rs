//! Why tenants do not fit on the NIC.

use std::fmt;

use tenant_config::{MacAddr, Name, VlanId};

/// Why tenants do not fit on the NIC. Nothing was touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// No physical function was named.
    #[error("--nic sriov: name the physical functions in --pf; this host has {known}")]
    NoPfNamed {
        /// Those that there are.
        known: String,
    },
    /// A name that is no physical function's.
    #[error(
        "--pf {name}: no such SR-IOV NIC; this host has {known}. A NIC shows here once SR-IOV is on in its firmware and its driver is loaded"
    )]
    NoSuchPf {
        /// What was named.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// A physical function without an interface.
    #[error(
        "--pf {name}: it has no interface in this network namespace: bind its driver, or move the interface back"
    )]
    NoInterface {
        /// What was named.
        name: String,
    },
    /// A physical function without an IOMMU in front of it.
    #[error(
        "--pf {name}: no IOMMU is in front of it, so its functions cannot be given to switches: switch it on in the firmware (VT-d, AMD-Vi) and boot with intel_iommu=on or amd_iommu=on"
    )]
    NoIommu {
        /// What was named.
        name: String,
    },
    /// More functions are wanted than there are.
    #[error("{0}")]
    Budget(Box<Budget>),
    /// More VLANs are wanted than there are.
    #[error(
        "tenant {tenant}: its ports need {wanted} VLANs and {free} are free in --vlans {range} ({taken} are taken): widen the range, and keep it off the adjacent switch's port"
    )]
    Vlans {
        /// Which tenant.
        tenant: Name,
        /// How many more it needs.
        wanted: usize,
        /// How many there are.
        free: usize,
        /// How many are not free.
        taken: usize,
        /// Of which.
        range: String,
    },
    /// An In/Out function would be on a port's VLAN.
    #[error(
        "tenant {tenant}: its In/Out function would be on VLAN {vlan}, which is a port's: choose another --inout-vlan"
    )]
    Underlay {
        /// Which tenant, of those that would meet.
        tenant: Name,
        /// The VLAN.
        vlan: VlanId,
    },
    /// A MAC that somebody else has.
    #[error("MAC {mac} is that of {one} and of {other}: change one of them")]
    Mac {
        /// The MAC.
        mac: MacAddr,
        /// Who has it.
        one: String,
        /// Who is to have it.
        other: String,
    },
}

/// The numbers of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// The first tenant that does not fit.
    pub tenant: Name,
    /// How many of the tenants given fit.
    pub fit: usize,
    /// How many tenants were given.
    pub tenants: usize,
    /// The functions that all of them need beside what they have.
    pub wanted: usize,
    /// The functions that were free for them.
    pub free: usize,
    /// The same by physical function.
    pub free_on: Vec<(String, usize)>,
    /// Functions that were not free, and why.
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
            "tenant {} does not fit: the {} tenants need {} more virtual functions (2 for each port, 1 for each uplink) and {} are free ({}); the first {} fit",
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
