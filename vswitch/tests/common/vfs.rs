//! Virtual functions of the emulated machine's NIC, set up by `ip` and sysfs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use wait::eventually;

#[path = "wait.rs"]
mod wait;

/// `None`, with a message, outside of the emulated machine.
pub(crate) fn emulated() -> Option<()> {
    let there = Path::new("/run/emulated-machine").exists();
    if !there {
        eprintln!("skipped: needs the emulated machine (scripts/test sriov)");
    }
    there.then_some(())
}

/// `pf0` with virtual functions. Dropping it removes them.
pub(crate) struct Nic;

impl Nic {
    /// Creates `count` virtual functions, without a driver.
    pub(crate) fn carve(count: u32) -> Self {
        write(&device().join("sriov_drivers_autoprobe"), "0");
        ip("link set pf0 up");
        let running =
            || fs::read_to_string("/sys/class/net/pf0/carrier").is_ok_and(|up| up == "1\n");
        eventually("pf0 has a link", running);
        write(&device().join("sriov_numvfs"), &count.to_string());
        Self
    }

    /// Sets the MAC and VLAN that the NIC enforces on function `number`.
    pub(crate) fn set(&self, number: u32, mac: &str, vlan: u16) {
        ip(&format!("link set pf0 vf {number} mac {mac} vlan {vlan}"));
    }

    pub(crate) fn address(&self, number: u32) -> String {
        let link =
            fs::read_link(device().join(format!("virtfn{number}"))).expect("the function is there");
        let address = link.file_name().expect("it leads to the function");
        address.to_string_lossy().into_owned()
    }

    /// Binds function `number` to a driver, and unbinds it from any other.
    pub(crate) fn bind(&self, number: u32, driver: &str) {
        let address = self.address(number);
        let function = Path::new("/sys/bus/pci/devices").join(&address);
        write(&function.join("driver_override"), driver);
        // It may have no driver.
        let _ = fs::write(function.join("driver/unbind"), &address);
        write(Path::new("/sys/bus/pci/drivers_probe"), &address);
    }

    /// The interface of function `number`; waits until igbvf has created it.
    pub(crate) fn interface(&self, number: u32) -> String {
        let net = Path::new("/sys/bus/pci/devices")
            .join(self.address(number))
            .join("net");
        let name = || Some(fs::read_dir(&net).ok()?.next()?.ok()?.file_name());
        eventually("the interface is there", || name().is_some());
        name().expect("just seen").to_string_lossy().into_owned()
    }

    /// The node of function `number`'s IOMMU group.
    pub(crate) fn node(&self, number: u32) -> PathBuf {
        let function = Path::new("/sys/bus/pci/devices").join(self.address(number));
        let group = fs::read_link(function.join("iommu_group")).expect("it has a group");
        Path::new("/dev/vfio").join(group.file_name().expect("a number"))
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        let _ = fs::write(device().join("sriov_numvfs"), "0");
    }
}

fn device() -> PathBuf {
    PathBuf::from("/sys/class/net/pf0/device")
}

fn write(file: &Path, text: &str) {
    fs::write(file, text).unwrap_or_else(|error| panic!("{} = {text}: {error}", file.display()));
}

#[track_caller]
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("ip runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
}
