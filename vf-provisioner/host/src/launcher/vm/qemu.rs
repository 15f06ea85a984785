//! QEMU's command line: a machine with the devices of a switch and no others.

use std::path::{Path, PathBuf};

use super::machine::{Accel, Function, Machine};

use super::image::{INITRAMFS, KERNEL};
use crate::launcher::ike;

/// Where QEMU finds the image, and where it makes its sockets.
pub(super) const IMAGE: &str = "/image";
pub(super) const RUN: &str = "/run/vm";
/// The sockets in the tenant's run folder, and the chardevs behind them.
pub(super) const CONTROL: &str = "control";
pub(super) const CONFIG: &str = "config";
pub(super) const MONITOR: &str = "qmp";

/// The first slot of a network function on the machine's bus; QEMU uses the lower ones.
const FIRST_SLOT: usize = 0x10;
pub(super) const SLOTS: usize = 14;
/// The translator's buffer: several times the code that a switch and its kernel execute often.
pub(super) const TRANSLATED_MIB: u32 = 32;

/// A translated processor: without the string instructions that claim to be fast, because TCG loops
/// over each byte or word of them, and without five-level page tables.
const TRANSLATED_CPU: &str = "max,erms=off,fsrm=off,la57=off";

/// The arguments of the machine's kernel. On a busy host, an emulated timer can be too late for the
/// kernel's check of it, and the kernel would not start. A translated processor's cycle counter,
/// which is the host's, must not be compared with that timer either: the kernel would reject it,
/// and each read of the clock would leave the translator.
pub(super) fn kernel_arguments(accel: Accel) -> &'static str {
    match accel {
        Accel::Kvm => "console=ttyS0 intel_iommu=on quiet panic=-1 no_timer_check",
        Accel::Tcg => "console=ttyS0 intel_iommu=on quiet panic=-1 no_timer_check tsc=reliable",
    }
}

/// The address of the n-th network function: a slot each, then further functions of these slots.
pub(super) fn place(number: usize) -> (usize, usize) {
    (FIRST_SLOT + number % SLOTS, number / SLOTS)
}

/// The offloads of a virtio NIC that must be off, so that it carries plain frames only.
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

/// The machine's ports, with their numbers.
pub(super) fn ports(machine: &Machine) -> impl Iterator<Item = (u32, &'static str)> {
    let ike = machine.ike.then_some(ike::PORT);
    (1..).zip([CONFIG, CONTROL].into_iter().chain(ike))
}

/// The path of a socket as QEMU sees it.
fn socket(name: &str) -> String {
    format!("{RUN}/{name}.sock")
}

/// Whether VFs of the host's NIC are passed through.
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
        "q35,kernel-irqchip=split,memory-backend=memory,vmport=off,smbus=off,sata=off,i8042=off,\
         usb=off,dump-guest-core=off"
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
    // The one with number 0 is for a console.
    let most = ports(machine).count() + 1;
    add(
        "-device",
        format!(
            "virtio-serial-pci,id=channels,bus=pcie.0,addr=0x2,max_ports={most},disable-legacy=on,\
             iommu_platform=on"
        ),
    );
    for (number, name) in ports(machine) {
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
    let several = machine.functions.len() > SLOTS;
    for (number, function) in machine.functions.iter().enumerate() {
        for (option, value) in network(number, function, several) {
            add(option, value);
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

/// The options of the n-th network function. `several` functions share a slot.
fn network(number: usize, function: &Function, several: bool) -> Vec<(&'static str, String)> {
    let (slot, part) = place(number);
    let multifunction = if part == 0 && several {
        ",multifunction=on"
    } else {
        ""
    };
    let at = format!("bus=pcie.0,addr=0x{slot:x}.{part}{multifunction}");
    match function {
        Function::Tap { interface, mac, .. } => {
            let netdev = format!(
                "tap,id=net{number},ifname={interface},script=no,downscript=no,vnet_hdr=off"
            );
            let off: String = NO_OFFLOADS
                .iter()
                .map(|name| format!(",{name}=off"))
                .collect();
            let device = format!(
                "virtio-net-pci,netdev=net{number},{at},mac={mac},romfile=,disable-legacy=on,\
                 iommu_platform=on{off}"
            );
            vec![("-netdev", netdev), ("-device", device)]
        }
        Function::Vf { address, .. } => {
            let device = format!("vfio-pci,host={address},{at},rombar=0");
            vec![("-device", device)]
        }
    }
}

fn memory(machine: &Machine) -> String {
    let size = machine.memory_mib;
    if machine.hugepages {
        // Memory of the kernel's pool, which needs no mount of hugetlbfs inside.
        format!("memory-backend-memfd,id=memory,size={size}M,hugetlb=on,prealloc=on,share=off")
    } else {
        format!("memory-backend-ram,id=memory,size={size}M")
    }
}

/// Debian's library directory; other distributions use its parents.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// What QEMU reads of the host besides its image: itself, libraries, firmware.
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
