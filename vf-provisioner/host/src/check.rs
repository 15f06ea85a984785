//! Whether this host can carry tenants, and what to do where it cannot.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::launcher::cgroup::Mounts;
use crate::nic::sriov::inventory;

/// How much hangs on a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is there.
    Good,
    /// It is not there, and only some uses need it.
    Optional,
    /// It is not there, and nothing works without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// With which result.
    pub verdict: Verdict,
    /// What was seen, and what to do.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict {
            Verdict::Good => "good",
            Verdict::Optional => "optional",
            Verdict::Missing => "MISSING",
        };
        write!(out, "{word:<9} {:<18} {}", self.what, self.detail)
    }
}

/// Whether nothing is missing that everything needs.
pub fn is_ready(findings: &[Finding]) -> bool {
    !findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Missing)
}

/// Looks at everything, and at what `--nic sriov` needs as at something needed only if `on_sriov` says so. It leaves
/// nothing behind.
pub fn run(switch_binary: &Path, on_sriov: bool) -> Vec<Finding> {
    let need = |what, result: Result<String, String>| finding(what, Verdict::Missing, result);
    let want = |what, result: Result<String, String>| finding(what, Verdict::Optional, result);
    let of_sriov = if on_sriov {
        Verdict::Missing
    } else {
        Verdict::Optional
    };
    vec![
        need("root", root()),
        need("veth", link("veth", "CONFIG_VETH")),
        need("bridge", link("bridge", "CONFIG_BRIDGE")),
        need("nftables", nftables()),
        need("packet sockets", packet_sockets()),
        need("ethtool", program("ethtool", "--version")),
        need("control groups", control_groups()),
        need("switch", switch(switch_binary)),
        want("bridge filtering", bridge_filtering()),
        want("hugepages", hugepages()),
        want("seccomp", status_field("Seccomp:", "CONFIG_SECCOMP")),
        want("Landlock", landlock()),
        want("QEMU", program("qemu-system-x86_64", "--version")),
        finding("IOMMU", of_sriov, iommu()),
        finding("vfio-pci", of_sriov, vfio()),
        finding("SR-IOV", of_sriov, sriov()),
    ]
}

fn finding(what: &'static str, otherwise: Verdict, result: Result<String, String>) -> Finding {
    let (verdict, detail) = match result {
        Ok(detail) => (Verdict::Good, detail),
        Err(detail) => (otherwise, detail),
    };
    Finding {
        what,
        verdict,
        detail,
    }
}

fn root() -> Result<String, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("not root: run it with sudo".to_owned());
    }
    let needed = [
        caps::Capability::CAP_SYS_ADMIN,
        caps::Capability::CAP_NET_ADMIN,
        caps::Capability::CAP_NET_RAW,
        caps::Capability::CAP_SETUID,
        caps::Capability::CAP_SETGID,
        caps::Capability::CAP_SETPCAP,
        caps::Capability::CAP_CHOWN,
        caps::Capability::CAP_KILL,
    ];
    let have = caps::read(None, caps::CapSet::Effective).map_err(|error| error.to_string())?;
    let missing: Vec<String> = needed
        .iter()
        .filter(|capability| !have.contains(capability))
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() {
        Ok("with every capability needed".to_owned())
    } else {
        Err(format!(
            "without {}: run it outside the container, or give the container these",
            missing.join(", ")
        ))
    }
}

/// Tries the kind of link in a network namespace that ends with the thread.
fn link(kind: &'static str, option: &str) -> Result<String, String> {
    let tried = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
            .map_err(|error| format!("cannot make a network namespace: {error}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let (connection, handle, _) =
                rtnetlink::new_connection().map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            let message = match kind {
                "veth" => rtnetlink::LinkVeth::new("probe0", "probe1").build(),
                _ => rtnetlink::LinkBridge::new("probe0").build(),
            };
            let request = handle.link().add(message);
            request.execute().await.map_err(|error| error.to_string())
        })
    });
    match tried.join() {
        Ok(Ok(())) => Ok("the kernel has it".to_owned()),
        Ok(Err(error)) => Err(format!(
            "{error}: `modprobe {kind}`, or use a kernel with {option}"
        )),
        Err(_) => Err("the trial ended early".to_owned()),
    }
}

fn nftables() -> Result<String, String> {
    let advice = "install the package nftables; the kernel needs CONFIG_NF_TABLES_BRIDGE";
    let output = Command::new("nft")
        .args(["-c", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            if let Some(mut input) = child.stdin.take() {
                std::io::Write::write_all(
                    &mut input,
                    b"table bridge probe { chain c { type filter hook prerouting priority -300;\n}\n}\n",
                )?;
            }
            child.wait_with_output()
        })
        .map_err(|error| format!("nft does not start ({error}): {advice}"))?;
    if output.status.success() {
        return Ok("nft takes bridge tables".to_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let first = message.lines().next().unwrap_or_default();
    Err(format!("{first}: {advice}"))
}

fn packet_sockets() -> Result<String, String> {
    nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Packet,
        nix::sys::socket::SockType::Raw,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map(|_| "the kernel has them".to_owned())
    .map_err(|error| format!("{error}: needs CAP_NET_RAW and a kernel with CONFIG_PACKET"))
}

fn program(name: &str, argument: &str) -> Result<String, String> {
    let output = Command::new(name)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{name} does not start ({error}): install its package"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn control_groups() -> Result<String, String> {
    Mounts::find().map(|mounts| match mounts {
        Mounts::Unified(at) => format!("version 2 on {}", at.display()),
        Mounts::Legacy([cpu, ..], _) => format!("version 1, cpu on {}", cpu.display()),
    })
}

fn switch(binary: &Path) -> Result<String, String> {
    let advice = "build it (cargo build --release -p vswitch), or name it in --switch-binary";
    let output = Command::new(binary)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} does not start ({error}): {advice}", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(format!("{}: {}", binary.display(), text.trim()))
}

/// With br_netfilter, a firewall for the host's own traffic (Docker's FORWARD DROP, say) also judges
/// the tenants' frames on the bridge.
fn bridge_filtering() -> Result<String, String> {
    let on = |name: &str| {
        fs::read_to_string(format!("/proc/sys/net/bridge/{name}"))
            .is_ok_and(|text| text.trim() != "0")
    };
    let on: Vec<&str> = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"]
        .into_iter()
        .filter(|name| on(name))
        .collect();
    if on.is_empty() {
        return Ok("the host's IP firewall leaves bridges alone".to_owned());
    }
    let sysctls: Vec<String> = on
        .iter()
        .map(|name| format!("net.bridge.{name}=0"))
        .collect();
    Err(format!(
        "the host's IP firewall also judges frames on the bridge: `sysctl {}`",
        sysctls.join(" ")
    ))
}

fn hugepages() -> Result<String, String> {
    let text = fs::read_to_string("/proc/meminfo").map_err(|error| error.to_string())?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|rest| rest.trim().to_owned())
            .unwrap_or_default()
    };
    let (free, size) = (field("HugePages_Free:"), field("Hugepagesize:"));
    if free.is_empty() || free == "0" {
        return Err(
            "none free: without --hugepages none is needed; `sysctl vm.nr_hugepages=128` reserves some"
                .to_owned(),
        );
    }
    Ok(format!("{free} of {size} free"))
}

fn status_field(field: &str, option: &str) -> Result<String, String> {
    let text = fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    if text.lines().any(|line| line.starts_with(field)) {
        Ok("the kernel has it".to_owned())
    } else {
        Err(format!("use a kernel with {option}"))
    }
}

fn landlock() -> Result<String, String> {
    let text = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if text.contains("landlock") {
        return Ok("the kernel has it switched on".to_owned());
    }
    Err(
        "not listed in /sys/kernel/security/lsm (is securityfs mounted?): use a kernel with CONFIG_SECURITY_LANDLOCK and lsm=landlock,…"
            .to_owned(),
    )
}

fn iommu() -> Result<String, String> {
    let groups = fs::read_dir("/sys/kernel/iommu_groups").map_or(0, Iterator::count);
    if groups > 0 {
        return Ok(format!("{groups} groups"));
    }
    Err("no groups: switch it on in the firmware and boot with intel_iommu=on or amd_iommu=on; only VFIO needs it".to_owned())
}

fn vfio() -> Result<String, String> {
    let bound = Path::new("/sys/bus/pci/drivers/vfio-pci");
    if bound.exists() {
        return Ok("the kernel has it loaded".to_owned());
    }
    // Whether it could be loaded; -n loads nothing.
    let tried = Command::new("modprobe")
        .args(["-n", "vfio-pci"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if tried.is_ok_and(|status| status.success()) {
        return Ok("a module, loaded when it is needed".to_owned());
    }
    Err("not in this kernel: use one with CONFIG_VFIO_PCI; only SR-IOV needs it".to_owned())
}

fn sriov() -> Result<String, String> {
    let inventory = inventory::read().map_err(|error| error.to_string())?;
    if inventory.pfs.is_empty() {
        return Err("no interface can have VFs: tenants get veth pairs; a NIC that should has SR-IOV off in its firmware, or its driver is not loaded".to_owned());
    }
    let found = inventory.pfs.iter().map(|pf| {
        let free = pf.vfs.iter().filter(|vf| vf.taken().is_none()).count() as u32;
        let possible = if pf.set.vfs == 0 { pf.total_vfs } else { free };
        let iommu = if pf.iommu { "" } else { ", NO IOMMU" };
        let shared = pf
            .vfs
            .iter()
            .filter(|vf| !vf.group_others.is_empty())
            .count();
        let shared = match shared {
            0 => String::new(),
            count => format!(", {count} VFs not alone in their IOMMU group: needs a slot with ACS"),
        };
        format!(
            "{} ({possible} of {} VFs free{iommu}{shared})",
            pf.label(),
            pf.total_vfs
        )
    });
    Ok(found.collect::<Vec<_>>().join(", "))
}

/// How many hugepages of the default size are free, and that size in KiB.
pub fn free_hugepages() -> (u64, u64) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    (field("HugePages_Free:"), field("Hugepagesize:"))
}

/// The users that own a process now.
pub fn uids_in_use() -> BTreeSet<u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.uid())
        .collect()
}
