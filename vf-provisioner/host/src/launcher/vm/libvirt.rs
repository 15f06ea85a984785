//! The same machine as a libvirt domain, and virsh to start and stop it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tenant_config::Name;

use super::image::{INITRAMFS, KERNEL};
use super::machine::{Accel, Function, Machine};
use super::qemu::{self, NO_OFFLOADS};
use crate::child::{self, Bounds, ChildError};
use crate::launcher::switch::Switch;

/// How long libvirt may take to change a domain, and to tell about one. It waits for QEMU, which
/// its machine may have taken over.
const CHANGES_WITHIN: Duration = Duration::from_secs(60);
const TELLS_WITHIN: Duration = Duration::from_secs(10);
const OUTPUT_MAX: usize = 1 << 20;

/// What a domain needs in addition to the machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct DomainContext<'a> {
    /// The prefix of its name.
    pub(super) instance: &'a str,
    /// The folder of its sockets.
    pub(super) run: &'a Path,
    /// Its console.
    pub(super) log: &'a Path,
    /// Processor time in percent of one core.
    pub(super) cpu_percent: u32,
}

/// The domain's name.
pub(super) fn name(instance: &str, tenant: &Name) -> String {
    format!("{instance}-{tenant}")
}

/// The domain's UUID, which depends only on its name.
pub(super) fn uuid(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let mut bytes: Vec<u8> = digest.iter().copied().take(16).collect();
    // RFC 9562: version 8, variant 1.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

fn escape(text: impl std::fmt::Display) -> String {
    text.to_string()
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('\'', "&apos;")
}

/// The domain's definition.
pub(super) fn domain(switch: &Switch, machine: &Machine, place: &DomainContext<'_>) -> String {
    let name = name(place.instance, &switch.tenant);
    let arguments = qemu::kernel_arguments(machine.accel);
    let (kind, cpu, translator) = match machine.accel {
        Accel::Kvm => ("kvm", "host-passthrough", String::new()),
        Accel::Tcg => {
            let mib = qemu::TRANSLATED_MIB;
            let cache = format!("<tcg><tb-cache unit='MiB'>{mib}</tb-cache></tcg>");
            ("qemu", "maximum", cache)
        }
    };
    let mut memory = String::new();
    if machine.hugepages {
        memory += "<hugepages/>";
    }
    if qemu::has_vf(machine) {
        memory += "<locked/>";
    }
    if !memory.is_empty() {
        memory = format!("\n  <memoryBacking>{memory}</memoryBacking>");
    }
    let cores = switch
        .cpu
        .map(|cpu| format!(" cpuset='{cpu}'"))
        .unwrap_or_default();
    let emulator = switch
        .cpu
        .map(|cpu| format!("\n    <emulatorpin cpuset='{cpu}'/>"))
        .unwrap_or_default();
    let image = |name: &str| escape(machine.image.join(name).display());
    let mut channels = String::new();
    for (number, socket) in qemu::ports(machine) {
        let path = escape(place.run.join(format!("{socket}.sock")).display());
        // Every write to a string succeeds.
        let _ = write!(
            channels,
            "
    <channel type='unix'>
      <source mode='bind' path='{path}'/>
      <target type='virtio' name='org.vswitch.{socket}.0'/>
      <address type='virtio-serial' controller='0' bus='0' port='{number}'/>
    </channel>"
        );
    }
    let several = machine.functions.len() > qemu::SLOTS;
    let mut interfaces = String::new();
    for (number, function) in machine.functions.iter().enumerate() {
        interfaces += &interface(function, number, several);
    }
    format!(
        "<domain type='{kind}'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory_mib}</memory>{memory}
  <vcpu placement='static'{cores}>1</vcpu>
  <cputune>
    <period>100000</period>
    <quota>{quota}</quota>
    <emulator_period>100000</emulator_period>
    <emulator_quota>{quota}</emulator_quota>{emulator}
  </cputune>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>{arguments}</cmdline>
  </os>
  <features><acpi/><apic/><vmport state='off'/><ioapic driver='qemu'/>{translator}</features>
  <cpu mode='{cpu}'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>{qemu}</emulator>
    <controller type='usb' model='none'/>
    <controller type='virtio-serial' index='0' model='virtio-non-transitional'>
      <driver iommu='on'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x02' function='0x0'/>
    </controller>
    <iommu model='intel'><driver intremap='on' caching_mode='on'/></iommu>
    <serial type='file'>
      <source path='{log}' append='on'/>
      <target port='0'/>
    </serial>{channels}{interfaces}
    <memballoon model='none'/>
  </devices>
  <seclabel type='static' model='dac' relabel='no'><label>+{uid}:+{uid}</label></seclabel>
</domain>
",
        uuid = uuid(&name),
        memory_mib = machine.memory_mib,
        quota = place.cpu_percent * 1000,
        kernel = image(KERNEL),
        initramfs = image(INITRAMFS),
        qemu = escape(machine.qemu.display()),
        log = escape(place.log.display()),
        uid = switch.uid,
    )
}

fn interface(function: &Function, number: usize, several: bool) -> String {
    let (slot, part) = qemu::place(number);
    let multifunction = if part == 0 && several {
        " multifunction='on'"
    } else {
        ""
    };
    let place = format!(
        "<address type='pci' domain='0x0000' bus='0x00' slot='0x{slot:02x}' \
         function='0x{part:x}'{multifunction}/>"
    );
    match function {
        Function::Tap { interface, mac, .. } => {
            let off = |side: &str| -> String {
                let names = NO_OFFLOADS.iter().filter_map(|name| match side {
                    "guest" => name.strip_prefix("guest_"),
                    _ => name
                        .strip_prefix("host_")
                        .or_else(|| (!name.contains('_')).then_some(name)),
                });
                names.map(|name| format!(" {name}='off'")).collect()
            };
            format!(
                "
    <interface type='ethernet'>
      <mac address='{mac}'/>
      <target dev='{interface}' managed='no'/>
      <model type='virtio-non-transitional'/>
      <driver name='qemu' iommu='on'>
        <host{}/>
        <guest{}/>
      </driver>
      <rom enabled='no'/>
      {place}
    </interface>",
                off("host"),
                off("guest")
            )
        }
        Function::Vf { address, mac, vlan } => {
            // Without these, libvirt would remove the provisioner's settings from the function.
            let vlan = vlan
                .map(|vlan| format!("\n      <vlan><tag id='{vlan}'/></vlan>"))
                .unwrap_or_default();
            format!(
                "
    <interface type='hostdev' managed='no'>
      <mac address='{mac}'/>
      <source>{}</source>{vlan}
      <rom bar='off'/>
      {place}
    </interface>",
                host_address(&address.to_string())
            )
        }
    }
}

/// `0000:01:10.2` as libvirt's element.
fn host_address(address: &str) -> String {
    let mut parts = address.split([':', '.']);
    let mut part = || parts.next().unwrap_or("0");
    let (domain, bus, slot, function) = (part(), part(), part(), part());
    format!(
        "<address type='pci' domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' \
         function='0x{function}'/>"
    )
}

/// Runs virsh; the operator chooses the connection (`LIBVIRT_DEFAULT_URI`).
pub(super) fn virsh(arguments: &[&str]) -> Result<String, String> {
    let mut virsh = Command::new("virsh");
    // Some words of the output are compared.
    virsh.arg("--quiet").args(arguments).env("LC_ALL", "C");
    let within = match arguments.first() {
        Some(&("domstate" | "dumpxml")) => TELLS_WITHIN,
        _ => CHANGES_WITHIN,
    };
    let bounds = Bounds {
        within,
        output: OUTPUT_MAX,
    };
    let ended = child::run(&mut virsh, &[], bounds).map_err(|error| match error {
        ChildError::Start(error) => {
            format!("virsh does not start ({error}): install the package libvirt-clients")
        }
        error => format!("virsh {}: {error}", arguments.join(" ")),
    })?;
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.output).into_owned());
    }
    Err(format!(
        "virsh {}: {}",
        arguments.join(" "),
        ended.message()
    ))
}

/// Starts the domain and limits QEMU's total memory before the first instruction. The definition
/// cannot do that: libvirt applies its limit to locked memory too, which a QEMU with VFs exceeds,
/// because it locks everything that it maps, and VFIO counts the mappings once for each VF.
pub(super) fn start_paused(name: &str, memory_limit_mib: u32) -> Result<(), String> {
    virsh(&["start", name, "--paused"])?;
    let limit = format!("{memory_limit_mib}MiB");
    virsh(&["memtune", name, "--live", "--hard-limit", &limit])?;
    Ok(())
}

/// Why an existing domain does not execute instructions.
pub(super) fn stuck(name: &str) -> Result<Option<String>, String> {
    let state = virsh(&["domstate", name])?;
    let state = state.trim();
    Ok((state != "running")
        .then(|| format!("libvirt says that the machine is {state:?}, not running")))
}

/// Whether a program in the machine has opened the channel.
pub(super) fn is_open(name: &str, channel: &str) -> bool {
    let Ok(text) = virsh(&["dumpxml", name]) else {
        return false;
    };
    let target = format!("name='org.vswitch.{channel}.0'");
    text.lines()
        .any(|line| line.contains(&target) && line.contains("state='connected'"))
}

/// The process of the domain: the one of its user with its UUID. Any program can write that into
/// its own arguments.
pub(super) fn pid(name: &str, uid: u32) -> Option<i32> {
    let uuid = uuid(name);
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| runs_as(*pid, uid))
        .find(|pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.any(|word| word == b"-uuid") && words.next() == Some(uuid.as_bytes())
        })
}

/// Whether all of a process's user ids are this one.
fn runs_as(pid: i32, uid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.is_some_and(|ids| ids.split_whitespace().all(|id| id.parse() == Ok(uid)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launcher::vm::plan::tests::{machine, switch};

    #[test]
    fn domain_matches_golden_file() {
        let place = DomainContext {
            instance: "mts",
            run: Path::new("/run/vf-provisioner/tenants/red/run"),
            log: Path::new("/run/vf-provisioner/tenants/red/log"),
            cpu_percent: 50,
        };
        let text = domain(&switch(), &machine(), &place);
        let golden = include_str!("golden/domain.xml");
        assert_eq!(text, golden);
    }

    #[test]
    fn uuid_depends_only_on_the_name() {
        assert_eq!(uuid("mts-red"), uuid("mts-red"));
        assert_ne!(uuid("mts-red"), uuid("mts-blue"));
        let uuid = uuid("mts-red");
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "8"));
    }

    #[test]
    fn process_is_recognised_by_its_user() {
        let (own, uid) = (std::process::id() as i32, nix::unistd::geteuid().as_raw());
        assert!(runs_as(own, uid));
        assert!(!runs_as(own, uid + 1));
        assert!(!runs_as(0, uid));
    }

    #[test]
    fn special_characters_are_escaped() {
        assert_eq!(escape("/a'/><&b"), "/a&apos;/>&lt;&amp;b");
    }
}
