//! Linux's own bridge with nftables: what most hosts run.
//!
//! A tenant has a network namespace, which separates it from the others as our processes do. All
//! tenants have the same addresses, so they cannot share a routing table, nor a bridge with a VLAN
//! for each, whose gateways would share that table. A VRF for each would work too, but keep all
//! rules in one list: with namespaces, a tenant's frames pass only its own rules, however many
//! tenants there are, as with ours. It is still one kernel: the wires' ends are steered to the CPU
//! under test, whatever namespace they are in. In a namespace, the VMs' wires are ports of a
//! bridge, and the bridge's own interface is the VMs' gateway; the uplink's wire is an interface of
//! its own, as the NIC of a host that routes for its guests is:
//!
//! ```text
//!  switch0 ─┐ nftables,   ┌────────┐       kernel's        nftables,
//!           ├─ family ────┤ bridge ├─ br0 ─ routing ────── family ──── switch2
//!  switch1 ─┘ bridge      └────────┘       table           netdev
//! ```
//!
//! A bridge alone would forward frames unchanged. Ours routes each one (the destination address
//! decides, both MACs are rewritten, the TTL decreases towards the uplink), so the kernel does too,
//! also between two VMs: the bridge's ports have the Gw MACs that VMs send to, and are isolated
//! from each other, so that no frame bypasses the router. Neighbours are static, as ours knows its
//! VMs without ARP.
//!
//! Everything that would only slow the kernel down is off: connection tracking (no rule uses it, so
//! its hooks are absent), reverse path filters (the rules are stricter), iptables for bridged
//! frames, multicast snooping, MAC learning. Segments are not merged, because GRO needs NAPI and
//! these frames arrive by the backlog.

mod filter;
mod host;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use dpdk::cycles;

use super::{Counters, Running, Switch};
use crate::command::run;
use crate::site::{End, Namespace, Site, Wires};

use host::Host;

/// The kernel.
pub(super) struct LinuxBridge;

impl Switch for LinuxBridge {
    fn wires(&self) -> Wires {
        Wires::Veth
    }

    fn checks(&self) -> bool {
        true
    }

    fn programs(&self) -> &'static [&'static str] {
        &["ip", "nft", "sysctl"]
    }

    fn rules(&self, site: &Site) -> String {
        match hosts(site) {
            Ok(hosts) => hosts.iter().map(Host::rules).collect::<Vec<_>>().join("\n"),
            Err(error) => format!("# {error:#}"),
        }
    }

    fn start(&self, site: &Site) -> anyhow::Result<Box<dyn Running>> {
        let mut namespaces = Vec::new();
        for (number, host) in hosts(site)?.iter().enumerate() {
            let namespace = Namespace::add(&format!("-tenant{number}"))?;
            for interface in host.interfaces() {
                run(site.command("ip").args([
                    "link",
                    "set",
                    interface,
                    "netns",
                    namespace.name(),
                ]))?;
            }
            for (number, step) in host.steps().into_iter().enumerate() {
                let file = site
                    .directory()
                    .join(format!("{}.step{number}", host.tenant()));
                std::fs::write(&file, step.lines)?;
                run(namespace
                    .command(step.program)
                    .args(step.arguments)
                    .arg(&file))
                .with_context(|| {
                    format!(
                        "{}; scripts/setup --for bench installs the programs",
                        step.failure
                    )
                })?;
            }
            namespaces.push(namespace);
        }
        Ok(Box::new(Kernel {
            namespaces,
            cpu: site.cpus.switch,
            cycles_per_tick: cycles_per_second() / TICKS_PER_SECOND,
        }))
    }
}

fn hosts(site: &Site) -> anyhow::Result<Vec<Host<'_>>> {
    let interfaces: Vec<&str> = site
        .ends
        .iter()
        .map(|end| match end {
            End::Veth(interface) => Ok(interface.as_str()),
            other => bail!("the kernel's bridge has no port for {other:?}"),
        })
        .collect::<anyhow::Result<_>>()?;
    let mut rest = interfaces.as_slice();
    site.tenants
        .iter()
        .map(|tenant| {
            let uplink = usize::from(tenant.uplink.is_some());
            let (own, others) = rest.split_at(tenant.ports.len() + uplink);
            rest = others;
            Host::new(tenant, own)
        })
        .collect()
}

/// The running kernel.
struct Kernel {
    namespaces: Vec<Namespace>,
    cpu: usize,
    cycles_per_tick: f64,
}

/// The unit of `/proc/stat`, on every x86.
const TICKS_PER_SECOND: f64 = 100.0;

impl Running for Kernel {
    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }

    /// The frames are those that its interfaces received. The cycles are all the time that the
    /// switch's CPU was not idle. They include other work there: the interrupts by which the load's
    /// CPU wakes it, its timer. They exclude the kernel's work for the load on the load's CPU:
    /// copying frames out of AF_PACKET's ring and into the switch CPU's backlog, and into the ring
    /// from the other CPU's. The kernel samples at 250 ticks a second, so the figure of two seconds
    /// is accurate to a few percent.
    fn counters(&mut self) -> anyhow::Result<Counters> {
        let mut frames = 0;
        for namespace in &self.namespaces {
            let output = namespace.command("cat").arg("/proc/net/dev").output()?;
            frames += received(&String::from_utf8_lossy(&output.stdout))
                .context("/proc/net/dev has an unknown format")?;
        }
        let stat = std::fs::read_to_string("/proc/stat")?;
        let ticks = busy_ticks(&stat, self.cpu).context("/proc/stat does not list the CPU")?;
        Ok(Counters {
            frames,
            busy_cycles: ticks as f64 * self.cycles_per_tick,
        })
    }
}

/// Frames received on all wires, from `/proc/net/dev`.
fn received(text: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.trim().split_once(':'))
        .filter(|(interface, _)| interface.starts_with("switch"))
        .map(|(_, numbers)| numbers.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

/// Ticks that a CPU spent in programs, the kernel and interrupts, hard and soft, from `/proc/stat`.
fn busy_ticks(text: &str, cpu: usize) -> Option<u64> {
    let name = format!("cpu{cpu}");
    let mut words = text
        .lines()
        .map(str::split_whitespace)
        .find_map(|mut words| (words.next() == Some(name.as_str())).then_some(words))?;
    let mut next = || words.next()?.parse::<u64>().ok();
    let (user, nice, system, _idle, _waiting, irq, softirq) = (
        next()?,
        next()?,
        next()?,
        next()?,
        next()?,
        next()?,
        next()?,
    );
    Some(user + nice + system + irq + softirq)
}

/// The frequency of the time stamp counter.
fn cycles_per_second() -> f64 {
    let (begin, first) = (Instant::now(), cycles());
    std::thread::sleep(Duration::from_millis(50));
    let (last, time) = (cycles(), begin.elapsed());
    last.wrapping_sub(first) as f64 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_statistics_parse_to_frames_and_ticks() {
        let dev = "Inter-|   Receive                  |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:       9       9    0    0    0     0          0         0        0       0    0    0    0
   br0:       9       9    0    0    0     0          0         0        0       0    0    0    0
switch0:    120       2    0    0    0     0          0         0     1234       5    0    0    0
switch1:    180       3    0    0    0     0          0         0     1234       5    0    0    0
";
        assert_eq!(received(dev), Some(5));
        assert_eq!(received("switch0: x"), None);
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 9 9 9 9 9 9 9 9 9 9\n\
            cpu1 1 20 300 4 5 6000 70000 8 9 10\nintr 1\n";
        assert_eq!(busy_ticks(stat, 1), Some(76_321));
        assert_eq!(busy_ticks(stat, 2), None);
    }
}
