//! Linux's own bridge with nftables: what most hosts run.
//!
//! A tenant has a network namespace, which keeps it apart from the others as our processes do. All tenants have the same
//! addresses, so one routing table could not serve them all, nor could one bridge with a VLAN for each, whose gateways would be
//! in that one table. A VRF for each would do too, but leave all rules in one list: with a namespace each, a tenant's frames
//! pass its own alone, however many others there are, as with ours. It is one kernel all the same: the wires' ends are told to
//! be handled on the CPU under test, whatever namespace they are in. In it, the VMs' wires are ports of a bridge, and the
//! bridge's own interface is the VMs' gateway; the uplink's wire is an interface of its own, as the NIC of a host that routes
//! for its guests is:
//!
//! ```text
//!  switch0 ─┐ nftables,   ┌────────┐       kernel's        nftables,
//!           ├─ family ────┤ bridge ├─ br0 ─ routing ────── family ──── switch2
//!  switch1 ─┘ bridge      └────────┘       table           netdev
//! ```
//!
//! A bridge alone would hand frames on as they are. Ours routes each one (the destination address decides, both MACs are
//! rewritten, towards the uplink the TTL goes down), so the kernel does too, also between two VMs: the bridge's ports have
//! the Gw MACs that VMs send to, and are isolated from each other, so that nothing goes from VM to VM past the router.
//! Neighbours are written down, as ours knows its VMs without asking.
//!
//! The rules are those of `docs/reference/spoof-filter.md`, as far as nftables can tell them. It cannot verify checksums (the
//! kernel's IP does that for the header's), walk the options of Neighbour Discovery past the first, or compare two fields
//! of a frame with each other. What would only cost the kernel is off: connection tracking (no rule asks for it, so its
//! hooks are not there), reverse path filters (the rules know better), iptables for bridged frames, multicast snooping,
//! the bridge's learning. Segments are not merged: what comes by way of the backlog is not (GRO needs NAPI).

use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tenant_config::{Addresses, Encapsulation, Limits, PortConfig, SwitchConfig, UplinkConfig};
use vswitch::dpdk::cycles;

use super::{Counters, Running, Switch};
use crate::command::run;
use crate::network::NEXT_HOP_MAC;
use crate::site::{End, Namespace, Site, Wires};

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
                    .join(format!("{}.step{number}", host.tenant.tenant));
                std::fs::write(&file, step.lines)?;
                run(namespace
                    .command(step.program)
                    .args(step.arguments)
                    .arg(&file))
                .with_context(|| {
                    format!(
                        "{}; scripts/setup --for bench installs what it takes",
                        step.what
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

/// One tenant's part of the host: what it is to have, and on which interfaces.
struct Host<'a> {
    tenant: &'a SwitchConfig,
    ports: Vec<(&'a str, &'a PortConfig)>,
    uplink: (&'a str, &'a UplinkConfig),
    ipv4: Family,
    ipv6: Family,
}

/// A tenant's network as one protocol has it, written as the programs take it.
struct Family {
    /// The gateway's address, and its subnet.
    gateway: String,
    subnet: String,
    /// The uplink's address, and the same with its length.
    own: String,
    own_net: String,
    next_hop: IpAddr,
    /// Destinations that no VM may send to, and sources that the underlay may not send from.
    not_to: String,
    not_from: String,
}

/// What is neither routed nor anybody's, as `docs/reference/spoof-filter.md` has it.
const NOWHERE_IPV4: [&str; 4] = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"];
const NOWHERE_IPV6: [&str; 4] = ["::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8"];

/// A file for a program.
struct Step {
    what: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    lines: String,
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

impl<'a> Host<'a> {
    /// The interfaces are the ports' in their order, then the uplink's.
    fn new(tenant: &'a SwitchConfig, interfaces: &[&'a str]) -> anyhow::Result<Self> {
        let known = |port: &PortConfig| {
            matches!(port.addresses, Addresses::Static(_))
                && port.trunk.is_empty()
                && !port.dhcp_server
                && !port.announce
                && port.encapsulation == Encapsulation::Deny
                && port.limits == Limits::default()
        };
        let whole = || {
            let uplink = tenant.uplink.as_ref()?;
            let (gateway, hops) = (&tenant.gateway, &uplink.next_hops);
            let (net, own) = (gateway.ipv4?, uplink.ipv4?);
            let [subnet, address, underlay, broadcast] = [
                net.trunc().to_string(),
                own.addr().to_string(),
                own.trunc().to_string(),
                net.broadcast().to_string(),
            ];
            let ipv4 = Family {
                not_to: set(NOWHERE_IPV4.into_iter().chain([&*underlay, &*broadcast])),
                not_from: set(NOWHERE_IPV4.into_iter().chain([&*subnet, &*address])),
                gateway: net.addr().to_string(),
                subnet,
                own: address,
                own_net: own.to_string(),
                next_hop: hops.ipv4?.into(),
            };
            let (net, own) = (gateway.ipv6?, uplink.ipv6?);
            let [subnet, address, underlay] = [
                net.trunc().to_string(),
                own.addr().to_string(),
                own.trunc().to_string(),
            ];
            let ipv6 = Family {
                not_to: set(NOWHERE_IPV6.into_iter().chain([&*underlay])),
                not_from: set(NOWHERE_IPV6.into_iter().chain([&*subnet, &*address])),
                gateway: net.addr().to_string(),
                subnet,
                own: address,
                own_net: own.to_string(),
                next_hop: hops.ipv6?.into(),
            };
            let simple = !tenant.ports.is_empty()
                && tenant.ports.iter().all(known)
                && tenant.tunnel.is_none()
                && uplink.allow.is_empty();
            simple.then_some((uplink, ipv4, ipv6))
        };
        let (uplink, ipv4, ipv6) = whole().with_context(|| {
            format!(
                "{}: the bridge is only told of tenants with IPv4 and IPv6, an uplink that allows nothing of the underlay, and ports with static addresses, without trunk, DHCP server, announcements, encapsulation, limits and tunnel",
                tenant.tenant
            )
        })?;
        Ok(Self {
            tenant,
            ports: interfaces.iter().copied().zip(&tenant.ports).collect(),
            uplink: (interfaces[tenant.ports.len()], uplink),
            ipv4,
            ipv6,
        })
    }

    fn interfaces(&self) -> impl Iterator<Item = &'a str> {
        let ports = self.ports.iter().map(|(interface, _)| *interface);
        ports.chain([self.uplink.0])
    }

    /// All that is done, in its order.
    fn steps(&self) -> [Step; 5] {
        const BATCH: &[&str] = &["-batch"];
        [
            Step {
                what: "the bridge cannot be made",
                program: "ip",
                arguments: BATCH,
                lines: self.links(),
            },
            Step {
                what: "the bridge's ports cannot be set up",
                program: "bridge",
                arguments: BATCH,
                lines: self.bridge(),
            },
            Step {
                what: "the kernel cannot be made a router",
                program: "sysctl",
                arguments: &["--quiet", "--load"],
                lines: self.parameters(),
            },
            Step {
                what: "routes and neighbours cannot be written",
                program: "ip",
                arguments: BATCH,
                lines: self.routes(),
            },
            Step {
                what: "the filter cannot be loaded",
                program: "nft",
                arguments: &["--file"],
                lines: self.filter(),
            },
        ]
    }

    /// The same to be read.
    fn rules(&self) -> String {
        self.steps()
            .iter()
            .map(|step| {
                let arguments = step.arguments.join(" ");
                format!("# {} {arguments}\n{}", step.program, step.lines)
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn links(&self) -> String {
        let (uplink, config) = self.uplink;
        let (mac, mtu) = (config.mac, config.mtu);
        let mut lines = vec![
            "link add br0 type bridge stp_state 0 mcast_snooping 0 nf_call_iptables 0 nf_call_ip6tables 0 nf_call_arptables 0".to_owned(),
            format!("link set {uplink} address {mac} mtu {mtu} arp on up"),
        ];
        for (interface, port) in &self.ports {
            let (mac, mtu) = (port.gateway_mac, port.mtu);
            lines.push(format!(
                "link set {interface} address {mac} mtu {mtu} arp on master br0 up"
            ));
        }
        // It has the least of its ports' MACs if nothing is said; now it keeps the first's.
        let (_, first) = self.ports[0];
        lines.push(format!("link set br0 address {} up", first.gateway_mac));
        text(lines)
    }

    fn bridge(&self) -> String {
        text(self.ports.iter().flat_map(|(interface, port)| {
            [
                format!(
                    "link set dev {interface} learning off flood off mcast_flood off bcast_flood off isolated on"
                ),
                format!("fdb replace {} dev {interface} master static", port.mac),
            ]
        }))
    }

    fn parameters(&self) -> String {
        let uplink = self.uplink.0;
        let mut lines = vec![
            "net.ipv4.ip_forward=1".to_owned(),
            "net.ipv6.conf.all.forwarding=1".to_owned(),
            "net.ipv4.conf.all.accept_source_route=0".to_owned(),
        ];
        for interface in ["all", "br0", uplink] {
            for name in ["rp_filter", "send_redirects", "accept_redirects"] {
                lines.push(format!("net.ipv4.conf.{interface}.{name}=0"));
            }
        }
        for interface in ["br0", uplink] {
            for name in ["accept_ra", "accept_dad", "disable_ipv6"] {
                lines.push(format!("net.ipv6.conf.{interface}.{name}=0"));
            }
        }
        // A VM's question for whatever it may reach is answered, as ours does.
        for answer in [
            "conf.br0.proxy_arp=1",
            "conf.br0.proxy_arp_pvlan=1",
            "neigh.br0.proxy_delay=0",
        ] {
            lines.push(format!("net.ipv4.{answer}"));
        }
        text(lines)
    }

    fn routes(&self) -> String {
        let uplink = self.uplink.0;
        let router = NEXT_HOP_MAC.map(|byte| format!("{byte:02x}")).join(":");
        let mut lines = Vec::new();
        for family in [&self.ipv4, &self.ipv6] {
            let Family {
                gateway,
                subnet,
                own_net,
                next_hop,
                ..
            } = family;
            lines.extend([
                format!("address add {gateway} dev br0"),
                format!("route add unreachable {subnet}"),
                format!("address add {own_net} dev {uplink}"),
                format!("neighbour replace {next_hop} lladdr {router} dev {uplink} nud permanent"),
                format!("route add default via {next_hop} dev {uplink}"),
            ]);
        }
        for (_, port) in &self.ports {
            for address in addresses(port) {
                lines.extend([
                    format!("route add {address} dev br0"),
                    format!(
                        "neighbour replace {address} lladdr {} dev br0 nud permanent",
                        port.mac
                    ),
                ]);
            }
        }
        text(lines)
    }

    /// What VMs may send, then what the underlay may.
    fn filter(&self) -> String {
        let ports = self.ports.iter().enumerate();
        let chains: String = ports
            .clone()
            .map(|(number, (_, port))| self.port_chains(number, port))
            .collect();
        let ports =
            ports.map(|(number, (interface, _))| format!("{interface} : goto port{number}"));
        format!(
            "table bridge from_vms {{
	chain dispatch {{
		type filter hook prerouting priority filter; policy drop;
		iif vmap {}
	}}
{chains}{SHARED_CHAINS}}}
{}",
            set(ports),
            self.uplink_table()
        )
    }

    /// Each ends in `accept`, or falls through to the policy.
    fn port_chains(&self, number: usize, port: &PortConfig) -> String {
        let mac = port.mac;
        let link_local = port.mac.link_local();
        let macs = set([mac].into_iter().chain(port.extra_macs.iter().copied()));
        let ipv4: Vec<_> = addresses(port).filter(IpAddr::is_ipv4).collect();
        let ipv6: Vec<_> = addresses(port)
            .filter(IpAddr::is_ipv6)
            .chain([IpAddr::from(link_local)])
            .collect();
        let targets = set(ipv6
            .iter()
            .map(|address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
                IpAddr::V6(address) => address.to_bits(),
            })
            .map(|bits| format!("0x{bits:032x}")));
        let mac_bits = mac.octets().map(|byte| format!("{byte:02x}")).concat();
        let (own4, own6) = (set(&ipv4), set(&ipv6));
        let (not_to4, not_to6) = (&self.ipv4.not_to, &self.ipv6.not_to);
        format!(
            "	chain port{number} {{
		ether saddr != {macs} drop
		ether daddr 01:80:c2:00:00:00-01:80:c2:00:00:0f drop
		ether type vmap {{ ip : goto port{number}_ipv4, ip6 : goto port{number}_ipv6, arp : goto port{number}_arp }}
	}}
	chain port{number}_arp {{
		arp htype != 1 drop
		arp ptype != ip drop
		arp hlen != 6 drop
		arp plen != 4 drop
		arp saddr ether != {mac} drop
		arp operation request arp saddr ip 0.0.0.0 accept
		arp operation {{ request, reply }} arp saddr ip {own4} accept
	}}
	chain port{number}_ipv4 {{
		ip saddr != {own4} drop
		ip daddr {not_to4} drop
		ip protocol vmap {{ udp : goto ipv4_udp, tcp : goto ipv4_tcp, icmp : goto ipv4_icmp, 4 : drop, 41 : drop, 47 : drop }}
		accept
	}}
	chain port{number}_ipv6 {{
		ip6 saddr :: icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, 131, 132, 143 }} goto port{number}_nd
		ip6 saddr != {own6} drop
		meta l4proto ipv6-icmp goto port{number}_icmpv6
		ip6 daddr {not_to6} drop
		rt type 0 drop
		meta l4proto vmap {{ udp : goto ipv6_udp, 4 : drop, 41 : drop }}
		accept
	}}
	chain port{number}_icmpv6 {{
		icmpv6 type {{ 130, 134, 137, 138, 141, 142, 151, 153 }} drop
		icmpv6 type {{ 131, 132, 133, 135, 136, 143 }} goto port{number}_nd
		ip6 daddr {not_to6} drop
		accept
	}}
	chain port{number}_nd {{
		icmpv6 type {{ 131, 132, 143 }} accept
		ip6 hoplimit != 255 drop
		icmpv6 code != 0 drop
		icmpv6 type nd-neighbor-advert @th,64,128 != {targets} drop
		icmpv6 type nd-neighbor-advert @th,32,8 & 0x80 != 0 drop
		icmpv6 type nd-neighbor-advert @th,192,8 2 @th,208,48 != 0x{mac_bits} drop
		icmpv6 type nd-neighbor-solicit @th,192,8 1 @th,208,48 != 0x{mac_bits} drop
		icmpv6 type nd-router-solicit @th,64,8 1 @th,80,48 != 0x{mac_bits} drop
		accept
	}}
"
        )
    }

    fn uplink_table(&self) -> String {
        let interface = self.uplink.0;
        let (ipv4, ipv6) = (&self.ipv4, &self.ipv6);
        let (not_from4, not_from6) = (&ipv4.not_from, &ipv6.not_from);
        let (subnet4, subnet6) = (&ipv4.subnet, &ipv6.subnet);
        let (own4, own6) = (&ipv4.own, &ipv6.own);
        format!(
            "table netdev from_underlay {{
	chain dispatch {{
		type filter hook ingress device {interface} priority filter; policy drop;
		ether saddr & 01:00:00:00:00:00 != 00:00:00:00:00:00 drop
		ether type vmap {{ ip : goto from_ipv4, ip6 : goto from_ipv6, arp : goto from_arp }}
	}}
	chain from_arp {{
		arp operation request arp daddr ip {own4} accept
	}}
	chain from_ipv4 {{
		ip saddr {not_from4} drop
		ip protocol vmap {{ udp : jump ipv4_udp, tcp : jump ipv4_tcp, icmp : jump ipv4_icmp }}
		ip daddr {subnet4} accept
		ip daddr {own4} icmp type echo-request accept
	}}
	chain ipv4_udp {{
		udp sport 67 drop
		udp dport 68 @th,64,8 2 drop
	}}
	chain ipv4_tcp {{
		ip frag-off & 0x1fff == 1 drop
	}}
	chain ipv4_icmp {{
		icmp type {{ redirect, router-advertisement }} drop
	}}
	chain from_ipv6 {{
		ip6 daddr {own6} icmpv6 type nd-neighbor-solicit ip6 hoplimit 255 accept
		ip6 saddr {not_from6} drop
		rt type 0 drop
		meta l4proto vmap {{ udp : jump ipv6_udp, ipv6-icmp : jump ipv6_icmp }}
		ip6 daddr {subnet6} accept
		ip6 daddr {own6} icmpv6 type echo-request accept
	}}
	chain ipv6_udp {{
		udp sport 547 drop
		udp dport 546 drop
	}}
	chain ipv6_icmp {{
		icmpv6 type {{ 130, 131, 132, 133, 134, 135, 136, 137, 138, 141, 142, 143, 151, 153 }} drop
	}}
}}
"
        )
    }
}

/// What is the same for all ports.
const SHARED_CHAINS: &str = "	chain ipv4_udp {
		udp sport { 67, 3544 } drop
		udp dport 3544 drop
		udp dport 68 @th,64,8 2 drop
		udp dport 67 @th,64,8 != 1 drop
		accept
	}
	chain ipv4_tcp {
		ip frag-off & 0x1fff == 1 drop
		accept
	}
	chain ipv4_icmp {
		icmp type { redirect, router-advertisement } drop
		accept
	}
	chain ipv6_udp {
		udp sport { 547, 3544 } drop
		udp dport { 546, 3544 } drop
		accept
	}
";

fn addresses(port: &PortConfig) -> impl Iterator<Item = IpAddr> {
    let nets = match &port.addresses {
        Addresses::Static(nets) => nets.as_slice(),
        Addresses::Learned(_) => &[],
    };
    nets.iter().map(|net| net.addr())
}

/// One as it is, several as a set.
fn set(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.as_slice() {
        [one] if !one.contains(" : ") => one.clone(),
        several => format!("{{ {} }}", several.join(", ")),
    }
}

fn text(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}

/// The kernel at work.
struct Kernel {
    namespaces: Vec<Namespace>,
    cpu: usize,
    cycles_per_tick: f64,
}

/// Of `/proc/stat`, on every x86.
const TICKS_PER_SECOND: f64 = 100.0;

impl Running for Kernel {
    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }

    /// The frames are those that its interfaces received. The cycles are all the time that the switch's CPU was not idle, so they
    /// include what else runs there: the interrupts by which the load's CPU wakes it, its timer. They do not include what the
    /// kernel does for the load on the load's CPU: copying frames out of AF_PACKET's ring and handing them to the switch's
    /// CPU, and into the ring from the other CPU's. The kernel finds out at 250 ticks a second what it does, so what it says of two seconds
    /// is right to a few percent.
    fn counters(&mut self) -> anyhow::Result<Counters> {
        let mut frames = 0;
        for namespace in &self.namespaces {
            let output = namespace.command("cat").arg("/proc/net/dev").output()?;
            frames += received(&String::from_utf8_lossy(&output.stdout))
                .context("/proc/net/dev is not as it was")?;
        }
        let stat = std::fs::read_to_string("/proc/stat")?;
        let ticks = busy_ticks(&stat, self.cpu).context("/proc/stat does not tell of the CPU")?;
        Ok(Counters {
            frames,
            busy_cycles: ticks as f64 * self.cycles_per_tick,
        })
    }
}

/// Frames received on all wires, of what `/proc/net/dev` says.
fn received(text: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.trim().split_once(':'))
        .filter(|(interface, _)| interface.starts_with("switch"))
        .map(|(_, numbers)| numbers.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

/// Ticks that a CPU spent in programs, the kernel and interrupts, hard and soft, of what `/proc/stat` says.
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

/// Of the time stamp counter.
fn cycles_per_second() -> f64 {
    let (begin, first) = (Instant::now(), cycles());
    std::thread::sleep(Duration::from_millis(50));
    let (last, time) = (cycles(), begin.elapsed());
    last.wrapping_sub(first) as f64 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Size, tenant};

    fn host(tenant: &SwitchConfig) -> Host<'_> {
        Host::new(tenant, &["switch0", "switch1", "switch2"]).expect("a simple tenant")
    }

    #[test]
    fn all_rules_of_two_vms() {
        let tenant = tenant(
            0,
            Size {
                ports: 2,
                addresses: 1,
            },
        );
        assert_eq!(host(&tenant).rules(), include_str!("bridge.rules"));
    }

    #[test]
    fn what_the_rules_do_not_know_is_refused() {
        let mut tenant = tenant(
            0,
            Size {
                ports: 2,
                addresses: 1,
            },
        );
        tenant.ports[1].dhcp_server = true;
        let said = Host::new(&tenant, &["switch0", "switch1", "switch2"])
            .err()
            .map(|error| error.to_string());
        assert_eq!(
            said.as_deref(),
            Some(
                "bench0: the bridge is only told of tenants with IPv4 and IPv6, an uplink that allows nothing of the underlay, and ports with static addresses, without trunk, DHCP server, announcements, encapsulation, limits and tunnel"
            )
        );
    }

    #[test]
    fn several_addresses_are_a_set() {
        assert_eq!(set(["a"]), "a");
        assert_eq!(set(["a", "b"]), "{ a, b }");
        assert_eq!(set(["a : drop"]), "{ a : drop }");
    }

    #[test]
    fn counters_are_found_in_what_the_kernel_says() {
        let dev = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       9       9    0    0    0     0          0         0        0       0    0    0    0     0       0          0
   br0:       9       9    0    0    0     0          0         0        0       0    0    0    0     0       0          0
switch0:    120       2    0    0    0     0          0         0     1234       5    0    0    0     0       0          0
switch1:    180       3    0    0    0     0          0         0     1234       5    0    0    0     0       0          0
";
        assert_eq!(received(dev), Some(5));
        assert_eq!(received("switch0: x"), None);
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 9 9 9 9 9 9 9 9 9 9\ncpu1 1 20 300 4 5 6000 70000 8 9 10\nintr 1\n";
        assert_eq!(busy_ticks(stat, 1), Some(76_321));
        assert_eq!(busy_ticks(stat, 2), None);
    }
}
