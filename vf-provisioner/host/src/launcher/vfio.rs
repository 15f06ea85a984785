//! The device nodes of PCI functions that are passed to a switch.

use std::io::ErrorKind;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use tenant_config::PciAddress;

use super::switch::Switch;
use crate::error::HostError;

/// The node of the function's IOMMU group.
fn vfio_node(address: PciAddress) -> std::io::Result<PathBuf> {
    let group = std::fs::read_link(format!("/sys/bus/pci/devices/{address}/iommu_group"))?;
    let group = group.file_name().ok_or(ErrorKind::InvalidData)?;
    Ok(Path::new("/dev/vfio").join(group))
}

/// Makes the switch's user the owner of the VFIO groups of its functions, and returns the nodes
/// that the switch needs.
pub(super) fn give_nodes(
    switch: &Switch,
    functions: impl Iterator<Item = PciAddress>,
) -> Result<Vec<PathBuf>, HostError> {
    let mut nodes = Vec::new();
    for address in functions {
        let node = vfio_node(address).map_err(HostError::io(format!(
            "PCI function {address} of tenant {} has no IOMMU group; is it there, and an IOMMU on?",
            switch.tenant
        )))?;
        let what = format!(
            "cannot give {} (PCI function {address}) to user {}; is the function bound to \
             vfio-pci?",
            node.display(),
            switch.uid
        );
        chown(&node, Some(switch.uid), Some(0)).map_err(HostError::io(what))?;
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    if !nodes.is_empty() {
        // Accessible to all users: it does nothing without a group.
        nodes.push(PathBuf::from("/dev/vfio/vfio"));
    }
    Ok(nodes)
}

/// Makes root their owner again. A function that was unbound meanwhile has no node.
pub(super) fn take_nodes_back(functions: impl Iterator<Item = PciAddress>) {
    for node in functions.filter_map(|address| vfio_node(address).ok()) {
        if let Err(error) = chown(&node, Some(0), Some(0))
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(node = %node.display(), %error, "still belongs to the switch's user");
        }
    }
}
