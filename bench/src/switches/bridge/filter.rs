//! The nftables rules: the filter's specification (`docs/reference/spoof-filter.md`) as far as
//! nftables can express it.
//!
//! It cannot verify checksums (the kernel's IP layer verifies the header's), walk the options of
//! Neighbour Discovery past the first, or compare two fields of a frame.

use std::fmt;
use std::net::IpAddr;

use packet::number::port::{DHCP_CLIENT, DHCP_SERVER, DHCPV6_CLIENT, DHCPV6_SERVER};
use packet::number::protocol;
use tenant_config::PortConfig;

use super::host::{Family, addresses};
use crate::switches::checks::{
    encapsulation_ports, encapsulations, encapsulations6, from_unspecified_icmpv6, gateway_icmpv6,
    link_icmpv6, refused_icmp, refused_icmpv6, upper_layers,
};

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
        writeln!(out, "{}}}", shared_chains())?;
        out.write_str(&self.uplink_table())
    }
}

impl Filter<'_> {
    /// Each chain ends in `accept`, or falls through to the policy.
    fn port_chains(&self, number: usize, port: &PortConfig) -> String {
        let (own, mac) = (format!("port{number}"), port.mac);
        let macs = set([mac].into_iter().chain(port.extra_macs.iter().copied()));
        let ipv4: Vec<_> = addresses(port).filter(IpAddr::is_ipv4).collect();
        let ipv6: Vec<_> = addresses(port)
            .filter(IpAddr::is_ipv6)
            .chain([IpAddr::from(mac.link_local())])
            .collect();
        let targets = set(ipv6
            .iter()
            .map(|address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
                IpAddr::V6(address) => address.to_bits(),
            })
            .map(|bits| format!("0x{bits:032x}")));
        let mac_bits = mac.octets().map(|byte| format!("{byte:02x}")).concat();
        let ethertypes = set([("ip", "ipv4"), ("ip6", "ipv6"), ("arp", "arp")]
            .map(|(name, chain)| format!("{name} : goto {own}_{chain}")));
        let protocols = set(["udp", "tcp", "icmp"]
            .map(|name| format!("{name} : goto ipv4_{name}"))
            .into_iter()
            .chain(encapsulations().map(|number| format!("{number} : drop"))));
        let layers = set(["udp : goto ipv6_udp".to_owned()]
            .into_iter()
            .chain(encapsulations6().map(|number| format!("{number} : drop")))
            .chain(
                upper_layers()
                    .filter(|layer| *layer != u16::from(protocol::UDP))
                    .map(|number| format!("{number} : accept")),
            ));
        let (own4, own6) = (set(&ipv4), set(&ipv6));
        let (not_to4, not_to6) = (&self.ipv4.not_to, &self.ipv6.not_to);
        let unspecified = set(from_unspecified_icmpv6());
        let (refused, gateway) = (set(refused_icmpv6()), set(gateway_icmpv6()));
        format!(
            "	chain {own} {{
		ether saddr != {macs} drop
		ether daddr 01:80:c2:00:00:00-01:80:c2:00:00:0f drop
		ether type vmap {ethertypes}
	}}
	chain {own}_arp {{
		arp htype != 1 drop
		arp ptype != ip drop
		arp hlen != 6 drop
		arp plen != 4 drop
		arp saddr ether != {mac} drop
		arp operation request arp saddr ip 0.0.0.0 accept
		arp operation {{ request, reply }} arp saddr ip {own4} accept
	}}
	chain {own}_ipv4 {{
		ip saddr != {own4} drop
		ip daddr {not_to4} drop
		ip protocol vmap {protocols}
		accept
	}}
	chain {own}_ipv6 {{
		ip6 saddr :: icmpv6 type {unspecified} goto {own}_nd
		ip6 saddr != {own6} drop
		meta l4proto ipv6-icmp goto {own}_icmpv6
		ip6 daddr {not_to6} drop
		rt type 0 drop
		frag frag-off != 0 accept
		meta l4proto vmap {layers}
	}}
	chain {own}_icmpv6 {{
		icmpv6 type {refused} drop
		icmpv6 type {gateway} goto {own}_nd
		ip6 daddr {not_to6} drop
		accept
	}}
	chain {own}_nd {{
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
        let protocols =
            set(["udp", "tcp", "icmp"].map(|name| format!("{name} : jump ipv4_{name}")));
        let layers = set(upper_layers().chain(encapsulations6()));
        let (icmp, icmpv6) = (set(refused_icmp()), set(link_icmpv6()));
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
		ip protocol vmap {protocols}
		ip daddr {subnet4} accept
		ip daddr {own4} icmp type echo-request accept
	}}
	chain ipv4_udp {{
		udp sport {DHCP_SERVER} drop
		udp dport {DHCP_CLIENT} @th,64,8 2 drop
		udp dport {DHCP_SERVER} drop
	}}
	chain ipv4_tcp {{
		ip frag-off & 0x1fff == 1 drop
	}}
	chain ipv4_icmp {{
		icmp type {icmp} drop
	}}
	chain from_ipv6 {{
		ip6 daddr {own6} icmpv6 type nd-neighbor-solicit ip6 hoplimit 255 accept
		ip6 saddr {not_from6} drop
		rt type 0 drop
		frag frag-off != 0 ip6 daddr {subnet6} accept
		meta l4proto != {layers} drop
		meta l4proto vmap {{ udp : jump ipv6_udp, ipv6-icmp : jump ipv6_icmp }}
		ip6 daddr {subnet6} accept
		ip6 daddr {own6} icmpv6 type echo-request accept
	}}
	chain ipv6_udp {{
		udp sport {DHCPV6_SERVER} drop
		udp dport {DHCPV6_CLIENT} drop
		udp dport {DHCPV6_SERVER} drop
	}}
	chain ipv6_icmp {{
		icmpv6 type {icmpv6} drop
	}}
}}
"
        )
    }
}

/// The chains that all ports share.
fn shared_chains() -> String {
    let icmp = set(refused_icmp());
    let carriers = set(encapsulation_ports());
    format!(
        "	chain ipv4_udp {{
		udp sport {DHCP_SERVER} drop
		udp sport {carriers} drop
		udp dport {carriers} drop
		udp dport {DHCP_CLIENT} @th,64,8 2 drop
		udp dport {DHCP_SERVER} @th,64,8 != 1 drop
		accept
	}}
	chain ipv4_tcp {{
		ip frag-off & 0x1fff == 1 drop
		accept
	}}
	chain ipv4_icmp {{
		icmp type {icmp} drop
		accept
	}}
	chain ipv6_udp {{
		udp sport {DHCPV6_SERVER} drop
		udp dport {DHCPV6_CLIENT} drop
		udp dport {DHCPV6_SERVER} drop
		udp sport {carriers} drop
		udp dport {carriers} drop
		accept
	}}
"
    )
}

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
    use std::collections::BTreeSet;

    use super::*;
    use crate::switches::checks::tests::filter_numbers;

    /// The numbers in a text.
    fn numbers(text: &str) -> impl Iterator<Item = u16> {
        text.split(|letter: char| !letter.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
    }

    #[test]
    fn dropped_numbers_are_those_of_the_filter() {
        let mut dropped = BTreeSet::new();
        let mut add = |field: &str, text: &str| {
            dropped.extend(numbers(text).map(|number| (field.to_owned(), number)));
        };
        for line in include_str!("two_vms.rules").lines().map(str::trim) {
            if let Some((_, map)) = line
                .split_once("vmap {")
                .filter(|(_, map)| map.contains("drop"))
            {
                let entries = map.trim_end_matches('}').split(',');
                let drops: Vec<&str> = entries.filter(|entry| entry.contains("drop")).collect();
                let found = numbers(&drops.concat()).collect::<Vec<_>>();
                let all = encapsulations().eq(found.iter().copied());
                assert!(all || encapsulations6().eq(found), "{line}");
                add("Protocol", &drops.concat());
            }
            // A DHCP message's operation is checked beside its port.
            let checks = line
                .strip_suffix(" drop")
                .and_then(|rule| rule.split(" @th").next());
            for (head, field) in [
                ("udp sport ", "UdpSource"),
                ("udp dport ", "UdpDestination"),
                ("icmp type ", "Icmp"),
                ("icmpv6 type {", "Icmpv6"),
            ] {
                if let Some(text) = checks.and_then(|rule| rule.strip_prefix(head)) {
                    add(field, text);
                }
            }
        }
        assert_eq!(dropped, filter_numbers());
    }

    #[test]
    fn several_items_become_a_set() {
        assert_eq!(set(["a"]), "a");
        assert_eq!(set(["a", "b"]), "{ a, b }");
        assert_eq!(set(["a : drop"]), "{ a : drop }");
    }
}
