//! Requirements for a PCI function, checked before DPDK opens it: DPDK only says that it failed.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tenant_config::PciAddress;

use super::DpdkError;

/// Checks that vfio will give every function to this process, and that it may lock `memory_mib`.
///
/// # Errors
/// The first unmet requirement, and what to do.
pub(crate) fn require(
    functions: &[(String, PciAddress)],
    memory_mib: u32,
) -> Result<(), DpdkError> {
    let Some((_, first)) = functions.first() else {
        return Ok(());
    };
    for (port, address) in functions {
        let usable = iommu_group(Path::new("/sys/bus/pci/devices"), *address)
            .and_then(|group| may_open(&format!("/dev/vfio/{group}"), *address))
            .and_then(|()| may_open("/dev/vfio/vfio", *address));
        usable.map_err(|problem| DpdkError::Pci {
            port: port.clone(),
            address: *address,
            problem,
        })?;
    }
    require_locked_memory(*first, memory_mib)
}

/// The function's IOMMU group, if the function is bound to vfio-pci and no other driver uses the
/// group. `devices` is `/sys/bus/pci/devices`.
fn iommu_group(devices: &Path, address: PciAddress) -> Result<String, String> {
    let function = devices.join(address.to_string());
    if !function.exists() {
        return Err(
            "is not there: `lspci -D` lists those that are, and a virtual function exists only \
             once its physical function's sriov_numvfs counts it"
                .to_owned(),
        );
    }
    let Some(group) = link_name(&function.join("iommu_group")) else {
        return Err(
            "has no IOMMU group, so nothing would hold it to this switch's memory: turn the IOMMU \
             on in the firmware (VT-d, AMD-Vi) and, on Intel, boot with intel_iommu=on"
                .to_owned(),
        );
    };
    let driver = link_name(&function.join("driver"));
    if driver.as_deref() != Some("vfio-pci") {
        let bound = driver.map_or("to no driver".to_owned(), |driver| format!("to {driver}"));
        return Err(format!(
            "is bound {bound}, not to vfio-pci: write vfio-pci to \
             /sys/bus/pci/devices/{address}/driver_override, unbind the function, and write its \
             address to /sys/bus/pci/drivers_probe"
        ));
    }
    // vfio gives out whole groups only.
    let others = fs::read_dir(function.join("iommu_group/devices"));
    for other in others.into_iter().flatten().flatten() {
        let other = other.file_name().to_string_lossy().into_owned();
        let driver = link_name(&devices.join(&other).join("driver"));
        if let Some(driver) = driver
            && !matches!(driver.as_str(), "vfio-pci" | "pcieport" | "pci-stub")
        {
            return Err(format!(
                "shares IOMMU group {group} with {other}, which {driver} drives: a group is given \
                 as a whole, so unbind that one too, or use a slot with ACS"
            ));
        }
    }
    Ok(group)
}

/// The last component of a sysfs link's target.
fn link_name(link: &Path) -> Option<String> {
    let target = fs::read_link(link).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// Checks by opening it: vfio opens a group for one process at a time.
fn may_open(node: &str, address: PciAddress) -> Result<(), String> {
    const EBUSY: i32 = nix::libc::EBUSY;
    let Err(error) = File::options().read(true).write(true).open(node) else {
        return Ok(());
    };
    Err(match error.kind() {
        ErrorKind::NotFound => format!(
            "is bound to vfio-pci, but {node} is not there: load the module vfio-pci; in a \
             container, add that node"
        ),
        ErrorKind::PermissionDenied => format!(
            "needs {node}, which this process may not open ({error}): `chown` it to the switch's \
             user"
        ),
        _ if error.raw_os_error() == Some(EBUSY) => {
            format!("is in use: another program has {node} open; `fuser -v {node}` names it")
        }
        _ => format!("needs {node}, which does not open ({error}); look for {address} in `dmesg`"),
    })
}

/// Memory that a device may write to is locked, and counts against the process's limit.
fn require_locked_memory(address: PciAddress, memory_mib: u32) -> Result<(), DpdkError> {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_IPC_LOCK).unwrap_or(false) {
        return Ok(());
    }
    let needed = u64::from(memory_mib) << 20;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) else {
        return Ok(());
    };
    if needed <= soft || (needed <= hard && setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard).is_ok())
    {
        return Ok(());
    }
    Err(DpdkError::LockedMemory {
        address,
        memory_mib,
        allowed_kib: hard >> 10,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory like sysfs: functions as (address, group, driver).
    fn tree(functions: &[(&str, Option<&str>, Option<&str>)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (address, group, driver) in functions {
            let function = root.path().join(address);
            fs::create_dir(&function).expect("a directory");
            if let Some(driver) = driver {
                symlink(format!("../drivers/{driver}"), function.join("driver")).expect("a link");
            }
            if let Some(group) = group {
                let group = root.path().join(format!("groups/{group}"));
                fs::create_dir_all(group.join("devices").join(address)).expect("a directory");
                symlink(&group, function.join("iommu_group")).expect("a link");
            }
        }
        root
    }

    #[test]
    fn unusable_function_is_refused_with_its_problem() {
        let devices = tree(&[
            ("0000:01:10.0", Some("7"), Some("igbvf")),
            ("0000:01:10.2", Some("8"), Some("vfio-pci")),
            ("0000:01:10.4", Some("9"), None),
            ("0000:01:10.6", None, Some("igbvf")),
            ("0000:02:00.0", Some("5"), Some("vfio-pci")),
            ("0000:02:00.1", Some("5"), Some("igb")),
            ("0000:03:00.0", Some("6"), Some("vfio-pci")),
            ("0000:03:00.1", Some("6"), None),
            ("0000:00:1c.0", Some("6"), Some("pcieport")),
        ]);
        let ask = |address: &str| {
            iommu_group(devices.path(), address.parse().expect("an address"))
                .map_err(|problem| problem.split(':').next().unwrap_or_default().to_owned())
        };
        let problem = |text: &str| Err(text.to_owned());
        assert_eq!(ask("0000:01:10.2"), Ok("8".to_owned()));
        assert_eq!(ask("0000:03:00.0"), Ok("6".to_owned()));
        assert_eq!(ask("0000:01:11.0"), problem("is not there"));
        assert_eq!(
            ask("0000:01:10.0"),
            problem("is bound to igbvf, not to vfio-pci")
        );
        assert_eq!(
            ask("0000:01:10.4"),
            problem("is bound to no driver, not to vfio-pci")
        );
        assert_eq!(
            ask("0000:01:10.6"),
            problem("has no IOMMU group, so nothing would hold it to this switch's memory")
        );
        assert_eq!(
            ask("0000:02:00.0"),
            problem("shares IOMMU group 5 with 0000")
        );
    }
}
