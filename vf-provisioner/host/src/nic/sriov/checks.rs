//! What SR-IOV needs of the host.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::pools::{self, Pool};
use super::sysfs;
use crate::child;
use crate::finding::{Finding, Verdict};

/// All of them.
pub(super) fn all(needed: bool) -> Vec<Finding> {
    let otherwise = Verdict::unless_needed(needed);
    vec![
        Finding::new("IOMMU", otherwise, iommu()),
        Finding::new("vfio-pci", otherwise, vfio()),
        Finding::new("SR-IOV", otherwise, sriov()),
        Finding::new("pools on NICs", Verdict::Optional, no_pools(&pools::all())),
    ]
}

/// Another program that hands out functions of a PF may hand out a tenant's.
fn no_pools(pools: &[Pool]) -> Result<String, String> {
    if pools.is_empty() {
        return Ok("no network of libvirt hands out virtual functions".to_owned());
    }
    let named = pools
        .iter()
        .map(|pool| format!("{} ({})", pool.name, pool.pf));
    let named: Vec<String> = named.collect();
    Err(format!(
        "libvirt's networks hand out functions of these PFs, also those of tenants: {}; leave \
         these PFs out of --pf, or undefine the networks (virsh net-undefine)",
        named.join(", ")
    ))
}

fn iommu() -> Result<String, String> {
    let groups = fs::read_dir("/sys/kernel/iommu_groups").map_or(0, Iterator::count);
    if groups > 0 {
        return Ok(format!("{groups} groups"));
    }
    Err(
        "no groups: enable it in the firmware and boot with intel_iommu=on or amd_iommu=on; only \
         VFIO needs it"
            .to_owned(),
    )
}

fn vfio() -> Result<String, String> {
    let bound = Path::new("/sys/bus/pci/drivers/vfio-pci");
    if bound.exists() {
        return Ok("the kernel has it loaded".to_owned());
    }
    // Whether it could be loaded; with -n, modprobe loads nothing.
    let tried = child::output(Command::new("modprobe").args(["-n", "vfio-pci"]), &[]);
    if tried.is_ok_and(|it| it.status.success()) {
        return Ok("a module, loaded when it is needed".to_owned());
    }
    Err("not in this kernel: use one with CONFIG_VFIO_PCI; only SR-IOV needs it".to_owned())
}

fn sriov() -> Result<String, String> {
    let inventory = sysfs::read().map_err(|error| error.to_string())?;
    if inventory.pfs.is_empty() {
        return Err(
            "no interface can have VFs, so tenants get veth pairs; a NIC that should have VFs has \
             SR-IOV disabled in its firmware, or its driver is not loaded"
                .to_owned(),
        );
    }
    let found = inventory.pfs.iter().map(|pf| {
        let free = pf.vfs.iter().filter(|vf| vf.taken().is_none()).count() as u32;
        let possible = if pf.set.vfs == 0 { pf.total_vfs } else { free };
        let iommu = if pf.iommu { "" } else { ", NO IOMMU" };
        let shared = pf
            .vfs
            .iter()
            .filter(|vf| !vf.group_others.is_empty())
            .count();
        let shared = match shared {
            0 => String::new(),
            count => format!(", {count} VFs not alone in their IOMMU group: needs a slot with ACS"),
        };
        format!(
            "{} ({possible} of {} VFs free{iommu}{shared})",
            pf.label(),
            pf.total_vfs
        )
    });
    Ok(found.collect::<Vec<_>>().join(", "))
}
