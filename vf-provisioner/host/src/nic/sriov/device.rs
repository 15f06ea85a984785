//! The folders of PCI functions in sysfs, and what a physical function's folder shows of its
//! interface.

use std::fs;
use std::path::{Path, PathBuf};

use tenant_config::PciAddress;

const DEVICES: &str = "/sys/bus/pci/devices";

/// The folder of a PCI function.
pub(super) fn device(address: PciAddress) -> PathBuf {
    Path::new(DEVICES).join(address.to_string())
}

/// The interface that a PF has now; `None` if it has none in this network namespace.
pub(super) fn interface_of(pf: PciAddress) -> Option<String> {
    interface_at(&device(pf))
}

/// The interface of the PF at `path`. One whose NIC switches in hardware also has interfaces that
/// represent its VFs.
pub(super) fn interface_at(path: &Path) -> Option<String> {
    let represents = |path: &PathBuf| {
        let port = fs::read_to_string(path.join("phys_port_name"));
        port.is_ok_and(|port| port.contains("vf"))
    };
    let all = entries(&path.join("net")).into_iter();
    let own = all.filter(|path| !represents(path));
    let first = own.min_by_key(|path| number(&path.join("ifindex")));
    last(&first?).map(str::to_owned)
}

/// The name of a PF in messages: its interface, or its address.
pub(crate) fn label(pf: PciAddress) -> String {
    interface_of(pf).unwrap_or_else(|| pf.to_string())
}

/// Whether a PF's cable has a link; `None` if the PF has no interface. One that is down has none.
pub fn carrier(pf: PciAddress) -> Option<bool> {
    let path = device(pf).join("net").join(interface_of(pf)?);
    Some(number(&path.join("carrier")) == Some(1))
}

/// The paths in a folder; none if it cannot be read.
pub(super) fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The last part of a path.
pub(super) fn last(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// The last part of a symbolic link's target.
pub(super) fn link_name(path: &Path) -> Option<String> {
    last(&fs::read_link(path).ok()?).map(str::to_owned)
}

/// The number in a file of sysfs.
pub(super) fn number(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
