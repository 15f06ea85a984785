//! Whether this host can carry tenants, and what to do where it cannot.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::child;
use crate::finding::{Finding, Verdict};
use crate::hugepages::Hugepages;
use crate::launcher::cgroup::Mounts;
use crate::nic::registry::NicKind;
use crate::{launcher, nic};

/// Whether nothing is missing that every use needs.
pub fn is_ready(findings: &[Finding]) -> bool {
    !findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Missing)
}

/// Checks everything, for tenants with this kind of NIC. What only another kind needs is optional.
/// It leaves nothing behind.
pub fn run(switch_binary: &Path, nic: NicKind) -> Vec<Finding> {
    let need = |what, result| Finding::new(what, Verdict::Missing, result);
    let want = |what, result| Finding::new(what, Verdict::Optional, result);
    let mut findings = vec![
        need("root", root()),
        need("packet sockets", packet_sockets()),
        need("control groups", control_groups()),
        need("switch", switch(switch_binary)),
        want("hugepages", hugepages()),
        want("seccomp", status_field("Seccomp:", "CONFIG_SECCOMP")),
        want("Landlock", landlock()),
    ];
    findings.extend(nic::registry::checks(nic));
    findings.extend(launcher::registry::checks());
    findings
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
        Ok("with all required capabilities".to_owned())
    } else {
        Err(format!(
            "without {}: run it outside the container, or give the container these",
            missing.join(", ")
        ))
    }
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

fn control_groups() -> Result<String, String> {
    Mounts::find().map(|mounts| mounts.to_string())
}

fn switch(binary: &Path) -> Result<String, String> {
    let advice = "build it (cargo build --release -p vswitch), or name it in --switch-binary";
    let output = child::output(Command::new(binary).arg("--version"), &[])
        .map_err(|error| format!("{} does not start ({error}): {advice}", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(format!("{}: {}", binary.display(), text.trim()))
}

fn hugepages() -> Result<String, String> {
    let host = Hugepages::read();
    if host.free == 0 {
        return Err(
            "none free: without --hugepages none is needed; `sysctl vm.nr_hugepages=128` reserves \
             some"
                .to_owned(),
        );
    }
    Ok(format!(
        "{} of {} kB free",
        host.free,
        host.page_bytes >> 10
    ))
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
        return Ok("enabled in the kernel".to_owned());
    }
    Err(
        "not listed in /sys/kernel/security/lsm (is securityfs mounted?): use a kernel with \
         CONFIG_SECURITY_LANDLOCK and lsm=landlock,…"
            .to_owned(),
    )
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
