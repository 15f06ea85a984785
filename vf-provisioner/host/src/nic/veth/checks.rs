//! What veth pairs and their bridge need of the host.

use std::fs;
use std::process::Command;

use crate::child;
use crate::finding::{Finding, Verdict, program};

/// All of them.
pub(super) fn all(needed: bool) -> Vec<Finding> {
    let otherwise = Verdict::unless_needed(needed);
    let need = |what, result| Finding::new(what, otherwise, result);
    vec![
        need("ethtool", program("ethtool", "--version")),
        need("veth", link("veth", "CONFIG_VETH")),
        need("bridge", link("bridge", "CONFIG_BRIDGE")),
        need("nftables", nftables()),
        need("port locks", super::proof::prove()),
        Finding::new("bridge filtering", Verdict::Optional, bridge_filtering()),
    ]
}

/// Tries this kind of link in a network namespace that ends with the thread.
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
    let table =
        b"table bridge probe { chain c { type filter hook prerouting priority -300;\n}\n}\n";
    let output = child::output(Command::new("nft").args(["-c", "-f", "-"]), table)
        .map_err(|error| format!("nft does not start ({error}): {advice}"))?;
    if output.status.success() {
        return Ok("nft takes bridge tables".to_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let first = message.lines().next().unwrap_or_default();
    Err(format!("{first}: {advice}"))
}

/// With br_netfilter, a firewall for the host's own traffic (such as Docker's FORWARD DROP) also
/// filters the tenants' frames on the bridge.
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
        return Ok("the host's IP firewall ignores bridges".to_owned());
    }
    let sysctls: Vec<String> = on
        .iter()
        .map(|name| format!("net.bridge.{name}=0"))
        .collect();
    Err(format!(
        "the host's IP firewall also filters frames on the bridge: `sysctl {}`",
        sysctls.join(" ")
    ))
}
