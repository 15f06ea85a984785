//! Binds the switch's PCI functions to VFIO.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tenant_config::PciAddress;

/// The driver that the switch needs.
const DRIVER: &str = "vfio-pci";
/// How long the device node of a group may take to appear.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a function cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PciError {
    #[error(
        "port {port}: the machine has no PCI function {address}: the configuration and the VM's \
         devices do not agree"
    )]
    Missing { port: String, address: PciAddress },
    #[error(
        "port {port}: PCI function {address} is in no IOMMU group: the VM needs -device \
         intel-iommu,intremap=on,caching-mode=on and its kernel intel_iommu=on"
    )]
    NoIommu { port: String, address: PciAddress },
    #[error("port {port}: {DRIVER} does not take PCI function {address}: {path} \
             {problem}", path = path.display())]
    Refused {
        port: String,
        address: PciAddress,
        path: PathBuf,
        problem: String,
    },
}

/// Binds a function to VFIO; returns the device node of its IOMMU group.
pub(super) fn give_to_vfio(port: &str, address: &PciAddress) -> Result<PathBuf, PciError> {
    let device = Path::new("/sys/bus/pci/devices").join(address.to_string());
    if !device.exists() {
        return Err(PciError::Missing {
            port: port.to_owned(),
            address: *address,
        });
    }
    let refused = |path: &Path, problem: String| PciError::Refused {
        port: port.to_owned(),
        address: *address,
        path: path.to_owned(),
        problem,
    };
    let write = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|error| refused(path, format!("cannot be written: {error}")))
    };
    let Ok(group) = fs::read_link(device.join("iommu_group")) else {
        return Err(PciError::NoIommu {
            port: port.to_owned(),
            address: *address,
        });
    };
    write(&device.join("driver_override"), DRIVER)?;
    match driver(&device) {
        Some(name) if name == DRIVER => {}
        bound => {
            if bound.is_some() {
                write(&device.join("driver/unbind"), &address.to_string())?;
            }
            write(
                Path::new("/sys/bus/pci/drivers_probe"),
                &address.to_string(),
            )?;
        }
    }
    if driver(&device).as_deref() != Some(DRIVER) {
        let bound = driver(&device).unwrap_or_else(|| "nothing".to_owned());
        return Err(refused(&device.join("driver"), format!("is {bound}")));
    }
    let node = Path::new("/dev/vfio").join(group.file_name().unwrap_or_default());
    match wait_for(&node) {
        Ok(()) => Ok(node),
        Err(error) => Err(refused(&node, error.to_string())),
    }
}

/// The name of the driver that a function is bound to.
fn driver(device: &Path) -> Option<String> {
    let target = fs::read_link(device.join("driver")).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

fn wait_for(node: &Path) -> io::Result<()> {
    let start = Instant::now();
    loop {
        match fs::metadata(node) {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > NODE_TIMEOUT => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}
