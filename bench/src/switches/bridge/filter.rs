//! The nftables rules: the filter's specification (`docs/reference/spoof-filter.md`) as far as
//! nftables can express it.
//!
//! It cannot verify checksums (the kernel's IP layer verifies the header's), walk the options of
//! Neighbour Discovery past the first, or compare two fields of a frame.

use std::fmt;
use std::net::IpAddr;

use tenant_config::PortConfig;

use super::host::{Family, addresses};

/// The rules of one tenant: what VMs may send, then what the underlay may send.
pub(super) struct Filter<'a> {
    /// Each with its interface.
    pub(super) ports: &'a [(&'a str, &'a PortConfig)],
    /// The uplink's interface.
    pub(super) uplink: &'a str,
    pub(super) ipv4: &'a Family,
    pub(super) ipv6: &'a Family,
}

impl fmt::Display for Filter<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.ports.iter().enumerate();
        let jumps = ports
            .clone()
            .map(|(number, (interface, _))| format!("{interface} : goto port{number}"));
        write!(
            out,
            "table bridge from_vms {{
	chain dispatch {{
		type filter hook prerouting priority filter; policy drop;
		iif vmap {}
	}}
",
            set(jumps)
        )?;
        for (number, (_, port)) in ports {
            out.write_str(&self.port_chains(number, port))?;
        }
        writeln!(out, "{SHARED_CHAINS}}}")?;
        out.write_str(&self.uplink_table())
    }
}

impl Filter<'_> {
    /// Each chain ends in `accept`, or falls through to the policy.
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
        let interface = self.uplink;
        let (ipv4, ipv6) = (self.ipv4, self.ipv6);
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

/// The chains that all ports share.
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

/// A single item as it is, several as a set or map.
pub(super) fn set(items: impl IntoIterator<Item = impl fmt::Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.as_slice() {
        [one] if !one.contains(" : ") => one.clone(),
        several => format!("{{ {} }}", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_items_become_a_set() {
        assert_eq!(set(["a"]), "a");
        assert_eq!(set(["a", "b"]), "{ a, b }");
        assert_eq!(set(["a : drop"]), "{ a : drop }");
    }
}
