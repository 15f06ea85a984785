//! QEMU's command line: a machine with what a switch needs, and no other device.

use std::path::{Path, PathBuf};

use super::machine::{Accel, Function, Machine};

use super::image::{INITRAMFS, KERNEL};

/// Where QEMU finds the image, and makes its sockets.
pub(super) const IMAGE: &str = "/image";
pub(super) const RUN: &str = "/run/vm";
/// The sockets in the tenant's run folder, and the chardevs behind them.
pub(super) const CONTROL: &str = "control";
pub(super) const CONFIG: &str = "config";
pub(super) const MONITOR: &str = "qmp";

/// The first place of a network function on the machine's bus; what is below is QEMU's.
const FIRST_SLOT: usize = 0x10;
pub(super) const SLOTS: usize = 14;
/// The translator's buffer: it needs a multiple of the code that a switch and its kernel run often.
pub(super) const TRANSLATED_MIB: u32 = 32;

/// A translated processor: without the string instructions that say of themselves that they are fast, since each byte or
/// word of them is a step of a loop here, and without a fifth level of page tables.
const TRANSLATED_CPU: &str = "max,erms=off,fsrm=off,la57=off";

/// What the kernel in the machine is told. On a busy host, an emulated timer can be too late for the kernel's check of
/// it, and then the kernel does not start. Nor is a translated processor's counter of cycles, which is the host's, to be
/// compared with that timer: it would be found wrong, and from then on each look at the clock would leave the translator.
pub(super) fn kernel_arguments(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "console=ttyS0 intel_iommu=on quiet panic=-1 no_timer_check",
        Accel::Tcg => "console=ttyS0 intel_iommu=on quiet panic=-1 no_timer_check tsc=reliable",
    }
}

/// The place of the n-th network function: a slot for each, then their further functions.
pub(super) fn place(number: usize) -> (usize, usize) {
    (FIRST_SLOT + number % SLOTS, number / SLOTS)
}

/// Everything that keeps a virtio NIC to plain frames.
pub(super) const NO_OFFLOADS: [&str; 11] = [
    "csum",
    "gso",
    "guest_csum",
    "guest_tso4",
    "guest_tso6",
    "guest_ecn",
    "guest_ufo",
    "host_tso4",
    "host_tso6",
    "host_ecn",
    "host_ufo",
];

/// The path of a socket as QEMU sees it.
fn socket(name: &str) -> String {
    format!("{RUN}/{name}.sock")
}

/// Whether functions of the host's NIC are passed through.
pub(super) fn has_vf(machine: &Machine) -> bool {
    let mut functions = machine.functions.iter();
    functions.any(|function| matches!(function, Function::Vf { .. }))
}

/// The arguments of QEMU for `machine`.
pub(super) fn arguments(name: &str, machine: &Machine) -> Vec<String> {
    let mut line: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| line.extend([option.to_owned(), value]);
    add("-name", format!("guest={name},debug-threads=on"));
    let (accel, cpu) = match machine.accel {
        Accel::Kvm => ("kvm".to_owned(), "host"),
        Accel::Tcg => (format!("tcg,tb-size={TRANSLATED_MIB}"), TRANSLATED_CPU),
    };
    add(
        "-machine",
        "q35,kernel-irqchip=split,memory-backend=memory,vmport=off,smbus=off,sata=off,i8042=off,usb=off,dump-guest-core=off"
            .to_owned(),
    );
    add("-accel", accel);
    add("-cpu", cpu.to_owned());
    add("-smp", "1".to_owned());
    add("-m", format!("{}M", machine.memory_mib));
    add("-object", memory(machine));
    if has_vf(machine) {
        add("-overcommit", "mem-lock=on".to_owned());
    }
    let image = |name: &str| Path::new(IMAGE).join(name).display().to_string();
    add("-kernel", image(KERNEL));
    add("-initrd", image(INITRAMFS));
    add("-append", kernel_arguments(machine.accel).to_owned());
    add(
        "-device",
        "intel-iommu,intremap=on,caching-mode=on".to_owned(),
    );
    add(
        "-device",
        "virtio-serial-pci,id=channels,bus=pcie.0,addr=0x2,max_ports=3,disable-legacy=on,iommu_platform=on".to_owned(),
    );
    for (number, name) in [(1, CONFIG), (2, CONTROL)] {
        add(
            "-chardev",
            format!("socket,id={name},path={},server=on,wait=off", socket(name)),
        );
        add(
            "-device",
            format!(
                "virtserialport,bus=channels.0,nr={number},chardev={name},name=org.vswitch.{name}.0"
            ),
        );
    }
    for (number, function) in machine.functions.iter().enumerate() {
        let (slot, part) = place(number);
        let several = if part == 0 && machine.functions.len() > SLOTS {
            ",multifunction=on"
        } else {
            ""
        };
        let at = format!("bus=pcie.0,addr=0x{slot:x}.{part}{several}");
        match function {
            Function::Tap { interface, mac, .. } => {
                add(
                    "-netdev",
                    format!(
                        "tap,id=net{number},ifname={interface},script=no,downscript=no,vnet_hdr=off"
                    ),
                );
                let off: String = NO_OFFLOADS
                    .iter()
                    .map(|name| format!(",{name}=off"))
                    .collect();
                add(
                    "-device",
                    format!(
                        "virtio-net-pci,netdev=net{number},{at},mac={mac},romfile=,disable-legacy=on,iommu_platform=on{off}"
                    ),
                );
            }
            Function::Vf { address, .. } => {
                add("-device", format!("vfio-pci,host={address},{at},rombar=0"))
            }
        }
    }
    add("-chardev", "stdio,id=console,signal=off".to_owned());
    add("-serial", "chardev:console".to_owned());
    add(
        "-chardev",
        format!(
            "socket,id={MONITOR},path={},server=on,wait=off",
            socket(MONITOR)
        ),
    );
    add("-mon", format!("chardev={MONITOR},mode=control"));
    add(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".to_owned(),
    );
    add("-action", "panic=exit-failure".to_owned());
    add("-display", "none".to_owned());
    for option in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        line.push(option.to_owned());
    }
    line
}

fn memory(machine: &Machine) -> String {
    let size = machine.memory_mib;
    if machine.hugepages {
        // Sealed memory of the kernel's pool: no mount of hugetlbfs has to be shown.
        format!("memory-backend-memfd,id=memory,size={size}M,hugetlb=on,prealloc=on,share=off")
    } else {
        format!("memory-backend-ram,id=memory,size={size}M")
    }
}

/// Where Debian has its libraries; elsewhere they are right in the two directories above them.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// What QEMU reads of the host beside its image: itself, libraries, firmware.
pub(super) fn reads(machine: &Machine) -> Vec<PathBuf> {
    let libraries: &[&str] = if Path::new(LIBRARIES).is_dir() {
        &[LIBRARIES]
    } else {
        &["/usr/lib"]
    };
    [
        "/usr/lib64",
        "/lib",
        "/lib64",
        "/etc/ld.so.cache",
        "/usr/share/qemu",
        "/usr/share/seabios",
    ]
    .iter()
    .chain(libraries)
    .map(PathBuf::from)
    .chain([machine.qemu.clone()])
    .collect()
}
