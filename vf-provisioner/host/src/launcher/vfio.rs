//! The device nodes of PCI functions that are passed to a switch.

use std::io::ErrorKind;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use tenant_config::PciAddress;

use super::switch::Switch;
use crate::error::HostError;

const DEVICES: &str = "/sys/bus/pci/devices";

/// The node through which a switch has a function.
#[derive(Debug, PartialEq, Eq)]
enum Node {
    /// The function's IOMMU group.
    Vfio(PathBuf),
    /// Its RDMA device: the kernel's driver keeps the function, and DPDK works beside it.
    Verbs(PathBuf),
}

impl Node {
    fn of(devices: &Path, address: PciAddress) -> std::io::Result<Self> {
        let device = devices.join(address.to_string());
        let verbs = std::fs::read_dir(device.join("infiniband_verbs")).into_iter();
        if let Some(verbs) = verbs.flatten().flatten().next() {
            let node = Path::new("/dev/infiniband").join(verbs.file_name());
            return Ok(Self::Verbs(node));
        }
        let group = std::fs::read_link(device.join("iommu_group"))?;
        let group = group.file_name().ok_or(ErrorKind::InvalidData)?;
        Ok(Self::Vfio(Path::new("/dev/vfio").join(group)))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Vfio(path) | Self::Verbs(path) => path,
        }
    }
}

/// Whether DPDK drives one of these functions beside the kernel's driver.
pub(super) fn is_shared_with_kernel(mut functions: impl Iterator<Item = PciAddress>) -> bool {
    functions.any(|address| matches!(Node::of(Path::new(DEVICES), address), Ok(Node::Verbs(_))))
}

/// Makes the switch's user the owner of its functions' VFIO groups or RDMA devices, and returns the
/// nodes that the switch needs.
pub(super) fn give_nodes(
    switch: &Switch,
    functions: impl Iterator<Item = PciAddress>,
) -> Result<Vec<PathBuf>, HostError> {
    let mut nodes = Vec::new();
    let mut through_vfio = false;
    for address in functions {
        let node = Node::of(Path::new(DEVICES), address).map_err(HostError::io(format!(
            "PCI function {address} of tenant {} has no IOMMU group; is it there, and an IOMMU on?",
            switch.tenant
        )))?;
        let what = format!(
            "cannot give {} (PCI function {address}) to user {}; is the function bound to \
             vfio-pci?",
            node.path().display(),
            switch.uid
        );
        chown(node.path(), Some(switch.uid), Some(0)).map_err(HostError::io(what))?;
        through_vfio |= matches!(node, Node::Vfio(_));
        let node = node.path().to_owned();
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    if through_vfio {
        // Accessible to all users: it does nothing without a group.
        nodes.push(PathBuf::from("/dev/vfio/vfio"));
    }
    Ok(nodes)
}

/// Makes root their owner again. A function that was unbound meanwhile has no node.
pub(super) fn take_nodes_back(functions: impl Iterator<Item = PciAddress>) {
    let nodes = functions.filter_map(|address| Node::of(Path::new(DEVICES), address).ok());
    for node in nodes {
        let node = node.path();
        if let Err(error) = chown(node, Some(0), Some(0))
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(node = %node.display(), %error, "still belongs to the switch's user");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn function_with_an_rdma_device_is_reached_through_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let address = |text: &str| text.parse::<PciAddress>().expect("an address");
        for function in ["0000:01:10.0", "0000:02:10.0"] {
            let device = dir.path().join(function);
            fs::create_dir_all(&device).expect("it is made");
            symlink("../../groups/7", device.join("iommu_group")).expect("it is made");
        }
        let verbs = dir.path().join("0000:02:10.0/infiniband_verbs/uverbs3");
        fs::create_dir_all(verbs).expect("it is made");
        let node = |text: &str| Node::of(dir.path(), address(text)).expect("it is there");
        assert_eq!(node("0000:01:10.0"), Node::Vfio("/dev/vfio/7".into()));
        assert_eq!(
            node("0000:02:10.0"),
            Node::Verbs("/dev/infiniband/uverbs3".into())
        );
        assert!(Node::of(dir.path(), address("0000:03:10.0")).is_err());
    }
}
