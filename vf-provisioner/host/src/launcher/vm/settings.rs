//! The settings of new machines, and whether this host can run them.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::resource::{RLIM_INFINITY, Resource as Limit, getrlimit};

use super::image::Image;
use super::machine::{Accel, Machine, Manager};
use super::qemu;
use crate::child;
use crate::hugepages::Hugepages;

/// The oldest supported QEMU: Debian 12's.
const OLDEST: (u32, u32) = (7, 2);

/// The settings of new machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// What starts them.
    pub(super) manager: Manager,
    /// QEMU's executable.
    pub(super) qemu: PathBuf,
    /// What they boot.
    pub(super) image: Image,
    /// What executes them.
    pub(super) accel: Accel,
    /// Their memory in MiB.
    pub(super) memory_mib: u32,
    /// Whether that is taken from the host's hugepages.
    pub(super) hugepages: bool,
}

impl Settings {
    /// Checks what this host has. `accel` is the operator's choice, if any.
    pub(super) fn find(
        manager: Manager,
        image: &Path,
        accel: Option<Accel>,
        memory_mib: u32,
        hugepages: bool,
    ) -> Result<Self, String> {
        let qemu = find_qemu()?;
        let settings = Self {
            manager,
            qemu,
            image: Image::open(image)?,
            accel: choose(accel, kvm())?,
            memory_mib,
            hugepages,
        };
        Ok(settings)
    }
}

/// QEMU in PATH, if it is recent enough.
fn find_qemu() -> Result<PathBuf, String> {
    const NAME: &str = "qemu-system-x86_64";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .map(|dir| dir.join(NAME))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            format!("there is no {NAME} in PATH: install the package qemu-system-x86")
        })?;
    let output = child::output(Command::new(&program).arg("--version"), &[])
        .map_err(|error| format!("{} does not start: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (major, minor) = OLDEST;
    match version(&text) {
        Some(version) if version >= OLDEST => Ok(program),
        Some((is_major, is_minor)) => Err(format!(
            "{} is version {is_major}.{is_minor}: install {major}.{minor} or a later one",
            program.display()
        )),
        None => Err(format!(
            "{} --version prints {:?}, not a version of QEMU: install the package qemu-system-x86",
            program.display(),
            text.lines().next().unwrap_or_default()
        )),
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let rest = text.split_once(" version ")?.1;
    let mut parts = rest.split(|at: char| !at.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether the processor can execute machines, or why not.
fn kvm() -> Result<(), String> {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = flags.lines().find(|line| line.starts_with("flags"));
    let can = flags.is_some_and(|line| {
        line.split_whitespace()
            .any(|flag| flag == "vmx" || flag == "svm")
    });
    if !can {
        return Err(
            "the processor has neither vmx nor svm: enable virtualization in the firmware, or \
             nested virtualization if this host is a virtual machine"
                .to_owned(),
        );
    }
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "cannot open /dev/kvm ({error}): `modprobe kvm_intel` or `modprobe kvm_amd`, as root"
        )),
    }
}

fn choose(asked: Option<Accel>, kvm: Result<(), String>) -> Result<Accel, String> {
    match (asked, kvm) {
        (Some(Accel::Tcg), _) | (None, Err(_)) => Ok(Accel::Tcg),
        (Some(Accel::Kvm) | None, Ok(())) => Ok(Accel::Kvm),
        (Some(Accel::Kvm), Err(why)) => Err(format!(
            "--accel kvm: {why}; or take --accel tcg, which is slow"
        )),
    }
}

/// Whether the host has the memory that the machine needs from its start.
pub(super) fn enough(machine: &Machine) -> Result<(), String> {
    if machine.hugepages {
        enough_hugepages(machine.memory_mib, Hugepages::read())?;
    }
    if qemu::has_vf(machine) {
        let (_, hard) = getrlimit(Limit::RLIMIT_MEMLOCK)
            .map_err(|error| format!("cannot read the memlock limit: {error}"))?;
        let may = caps::has_cap(
            None,
            caps::CapSet::Effective,
            caps::Capability::CAP_SYS_RESOURCE,
        );
        // Root can raise it, unless a container forbids that.
        if hard != RLIM_INFINITY && !may.unwrap_or(false) {
            return Err(format!(
                "its {} MiB must be locked in memory for the NIC's functions, and the memlock \
                 limit is {} MiB: raise it (`ulimit -Hl unlimited`, or LimitMEMLOCK=infinity in \
                 the unit), or give the container CAP_SYS_RESOURCE",
                machine.memory_mib,
                hard >> 20
            ));
        }
    }
    Ok(())
}

fn enough_hugepages(memory_mib: u32, host: Hugepages) -> Result<(), String> {
    let missing = host.missing(memory_mib.into());
    if missing == 0 {
        return Ok(());
    }
    Err(format!(
        "its {memory_mib} MiB take {} hugepages of {} KiB, and {} are free: `sysctl \
         vm.nr_hugepages={}` for this machine alone, or go without --hugepages",
        host.pages(memory_mib.into()),
        host.page_bytes >> 10,
        host.free,
        missing + host.total
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_parsed_from_qemus_output() {
        let text = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright";
        assert_eq!(version(text), Some((10, 0)));
        assert_eq!(version("QEMU emulator version 6.2.0\n"), Some((6, 2)));
        assert_eq!(version("bash: no such program"), None);
    }

    #[test]
    fn accelerator_is_the_chosen_or_the_working_one() {
        let no = || Err("no vmx".to_owned());
        assert_eq!(choose(None, Ok(())), Ok(Accel::Kvm));
        assert_eq!(choose(None, no()), Ok(Accel::Tcg));
        assert_eq!(choose(Some(Accel::Tcg), Ok(())), Ok(Accel::Tcg));
        let refused = choose(Some(Accel::Kvm), no()).expect_err("it does not work");
        assert!(
            refused.contains("no vmx") && refused.contains("--accel tcg"),
            "{refused}"
        );
    }

    #[test]
    fn missing_hugepages_are_counted() {
        let host = Hugepages {
            total: 10,
            free: 4,
            page_bytes: 2 << 20,
        };
        assert_eq!(enough_hugepages(8, host), Ok(()));
        let words = enough_hugepages(160, host).expect_err("too few");
        assert!(
            words.contains(
                "take 80 hugepages of 2048 KiB, and 4 are free: `sysctl vm.nr_hugepages=86`"
            ),
            "{words}"
        );
    }
}
