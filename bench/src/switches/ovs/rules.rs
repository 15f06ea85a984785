//! The OpenFlow rules: the filter's specification (`docs/reference/spoof-filter.md`) as far as
//! OpenFlow can express it.
//!
//! Not expressible, and therefore not checked: checksums, lengths and IP options; tiny fragments;
//! LLC/SNAP, which Open vSwitch treats as the Ethernet II frame of the same type; the content of a
//! DHCP message (a VM may send nothing to the DHCP ports); the ARP sender's MAC against the
//! Ethernet source at the uplink; IPv6 extension headers, although Open vSwitch parses past them.
//! It answers ARP, but neither pings nor Neighbour Discovery, which the rules drop. The benchmarks'
//! tenants have no trunks, DHCP server, learned addresses, limits or tunnels, so there are no rules
//! for those.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ipnet::IpNet;
use packet::DropReason;
use packet::refused::Field;
use tenant_config::{Addresses, Encapsulation, MacAddr, PortConfig, SwitchConfig, UplinkConfig};

use crate::network::NEXT_HOP_MAC;
use crate::switches::checks::{
    MARTIANS, MARTIANS_IPV6, encapsulation_ports, encapsulations, encapsulations6, link_icmpv6,
    refused, refused_icmp, upper_layers,
};

// The tables, in the order in which a frame passes them. `reg0` holds its tenant.
const ETHERNET: u8 = 0;
const ARP_SENDER: u8 = 10;
const ARP_TARGET: u8 = 11;
const ARP_REPLY: u8 = 12;
const PORT_SOURCE: u8 = 20;
const PORT_TRANSPORT: u8 = 21;
const UPLINK_SOURCE: u8 = 30;
const TRANSPORT: u8 = 40;
const ROUTE: u8 = 41;

const GROUP: &str = "01:00:00:00:00:00/01:00:00:00:00:00";
/// The rules for all tenants, as `ovs-ofctl add-flows` reads them.
pub(super) fn rules(tenants: &[SwitchConfig]) -> String {
    let mut rules = Rules(String::new());
    rules.ethernet();
    rules.port_transport();
    rules.uplink_source();
    rules.transport();
    rules.destinations();
    let mut first = 1;
    for (tenant, number) in tenants.iter().zip(1..) {
        let ports: Vec<_> = (first..).zip(&tenant.ports).collect();
        first += ports.len();
        let uplink = tenant.uplink.as_ref().map(|uplink| (first, uplink));
        first += usize::from(uplink.is_some());
        rules.tenant(number, tenant, &ports, uplink);
    }
    rules.0
}

/// A match on a packet's source.
fn source(net: &IpNet) -> String {
    address_match(net, "src")
}

/// A match on a packet's destination.
fn destination(net: &IpNet) -> String {
    address_match(net, "dst")
}

fn address_match(net: &IpNet, end: &str) -> String {
    match net {
        IpNet::V4(net) => format!("ip,nw_{end}={net}"),
        IpNet::V6(net) => format!("ipv6,ipv6_{end}={net}"),
    }
}

/// A match on an ARP target; `None` for IPv6.
fn arp_target(net: &IpNet) -> Option<String> {
    match net {
        IpNet::V4(net) => Some(format!("arp,arp_tpa={net}")),
        IpNet::V6(_) => None,
    }
}

/// Matches on packets that encapsulate.
fn encapsulation() -> impl Iterator<Item = String> {
    let ipv4 = encapsulations().map(|number| format!("ip,nw_proto={number}"));
    let ipv6 = encapsulations6().map(|number| format!("ipv6,nw_proto={number}"));
    let ports = ["udp", "udp6"].into_iter().flat_map(|family| {
        encapsulation_ports()
            .flat_map(move |port| ["tp_src", "tp_dst"].map(|end| format!("{family},{end}={port}")))
    });
    ipv4.chain(ipv6).chain(ports)
}

/// Matches on UDP ports that the filter refuses for a reason.
fn udp_ports(family: &str, reason: DropReason) -> impl Iterator<Item = String> {
    [
        ("tp_src", Field::UdpSource),
        ("tp_dst", Field::UdpDestination),
    ]
    .into_iter()
    .flat_map(move |(end, field)| {
        refused(field, reason).map(move |port| format!("{family},{end}={port}"))
    })
}

/// The sources that a VM may use.
fn addresses(port: &PortConfig) -> Vec<IpNet> {
    match &port.addresses {
        Addresses::Static(nets) => nets.iter().map(IpNet::trunc).collect(),
        Addresses::Learned(_) => Vec::new(),
    }
}

/// The gateway's address and subnet of each family.
fn gateway(tenant: &SwitchConfig) -> impl Iterator<Item = IpNet> {
    let ipv4 = tenant.gateway.ipv4.map(IpNet::from);
    ipv4.into_iter().chain(tenant.gateway.ipv6.map(IpNet::from))
}

fn gateway_subnets(tenant: &SwitchConfig) -> impl Iterator<Item = IpNet> {
    gateway(tenant).map(|net| net.trunc())
}

/// The uplink's subnets.
fn underlay_subnets(uplink: &UplinkConfig) -> impl Iterator<Item = IpNet> {
    let ipv4 = uplink.ipv4.map(|net| IpNet::from(net.trunc()));
    let ipv6 = uplink.ipv6.map(|net| IpNet::from(net.trunc()));
    ipv4.into_iter().chain(ipv6)
}

struct Rules(String);

impl Rules {
    fn comment(&mut self, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# {text}");
    }

    fn add(&mut self, table: u8, priority: u16, matching: &str, actions: &str) {
        let _ = writeln!(
            self.0,
            "table={table},priority={priority},{matching},actions={actions}"
        );
    }

    fn go_to(&mut self, table: u8, priority: u16, matching: &str, next: u8) {
        self.add(table, priority, matching, &format!("goto_table:{next}"));
    }

    fn drop(&mut self, table: u8, priority: u16, matching: &str) {
        self.add(table, priority, matching, "drop");
    }

    /// The same for every port. A frame that no rule matches is dropped.
    fn ethernet(&mut self) {
        self.comment(
            "Ethernet: no group source, tag or link-local group; \
             the later tables accept only ARP, IPv4 and IPv6",
        );
        self.drop(ETHERNET, 300, &format!("dl_src={GROUP}"));
        self.drop(ETHERNET, 300, "vlan_tci=0x1000/0x1000");
        self.drop(ETHERNET, 300, "dl_dst=01:80:c2:00:00:00/ff:ff:ff:ff:ff:f0");
        self.comment("ARP: no request for an address that no packet can be sent to");
        for net in MARTIANS {
            self.drop(ARP_TARGET, 300, &format!("arp,arp_tpa={net}"));
        }
    }

    /// What VMs must not send.
    fn port_transport(&mut self) {
        self.comment("Ports: no encapsulation; later fragments have no header to check");
        self.go_to(PORT_TRANSPORT, 200, "ipv6,nw_frag=later", TRANSPORT);
        for matching in encapsulation() {
            self.drop(PORT_TRANSPORT, 100, &matching);
        }
        for family in ["ip", "ipv6"] {
            self.go_to(PORT_TRANSPORT, 0, family, TRANSPORT);
        }
    }

    fn uplink_source(&mut self) {
        self.comment("Uplink: no martian, link-local or multicast source");
        for net in MARTIANS {
            self.drop(UPLINK_SOURCE, 300, &format!("ip,nw_src={net}"));
        }
        for net in MARTIANS_IPV6 {
            self.drop(UPLINK_SOURCE, 300, &format!("ipv6,ipv6_src={net}"));
        }
    }

    /// What neither VMs nor the underlay may send.
    fn transport(&mut self) {
        self.comment(
            "All packets: nothing of DHCP, no redirects, router advertisements \
             or other link-scope ICMPv6, and no unknown upper layers",
        );
        self.go_to(TRANSPORT, 200, "ipv6,nw_frag=later", ROUTE);
        for (family, reason) in [
            ("udp", DropReason::DhcpServer),
            ("udp", DropReason::DhcpClient),
            ("udp6", DropReason::Dhcpv6Server),
            ("udp6", DropReason::Dhcpv6Client),
        ] {
            for matching in udp_ports(family, reason) {
                self.drop(TRANSPORT, 100, &matching);
            }
        }
        for kind in refused_icmp() {
            self.drop(TRANSPORT, 100, &format!("icmp,icmp_type={kind}"));
        }
        for kind in link_icmpv6() {
            self.drop(TRANSPORT, 100, &format!("icmp6,icmp_type={kind}"));
        }
        self.go_to(TRANSPORT, 0, "ip", ROUTE);
        for protocol in upper_layers().chain(encapsulations6()) {
            let matching = format!("ipv6,nw_proto={protocol}");
            self.go_to(TRANSPORT, 0, &matching, ROUTE);
        }
    }

    fn destinations(&mut self) {
        self.comment(
            "Destinations: no martian, link-local or multicast address, \
             and no Ethernet group for a unicast packet",
        );
        for net in MARTIANS {
            self.drop(ROUTE, 300, &format!("ip,nw_dst={net}"));
        }
        for net in MARTIANS_IPV6 {
            self.drop(ROUTE, 300, &format!("ipv6,ipv6_dst={net}"));
        }
        for family in ["ip", "ipv6"] {
            self.drop(ROUTE, 300, &format!("{family},dl_dst={GROUP}"));
        }
    }

    fn tenant(
        &mut self,
        number: u16,
        tenant: &SwitchConfig,
        ports: &[(usize, &PortConfig)],
        uplink: Option<(usize, &UplinkConfig)>,
    ) {
        let name = &tenant.tenant;
        for &(port, config) in ports {
            self.comment(&format!("{name}, {}: filter", config.name));
            self.port_filter(number, port, config);
        }
        if let Some((port, config)) = uplink {
            self.comment(&format!("{name}, uplink: filter"));
            self.uplink_filter(number, tenant, ports, (port, config));
        }
        self.comment(&format!("{name}: routes"));
        let own = format!("reg0={number}");
        for gateway in gateway(tenant).map(|net| IpNet::from(net.addr())) {
            self.drop(ROUTE, 240, &format!("{own},{}", destination(&gateway)));
            self.reply_to_arp(&own, 200, &gateway);
        }
        for &(port, config) in ports {
            let output = output(config.gateway_mac, config.mac, port);
            for net in addresses(config) {
                let matching = format!("{own},{}", destination(&net));
                self.add(ROUTE, 200, &matching, &output);
                self.reply_to_arp(&own, 200, &net);
            }
        }
        for net in gateway_subnets(tenant) {
            self.unreachable(&own, 150, &net);
        }
        if let Some((port, config)) = uplink {
            self.uplink_routes(&own, port, config);
        }
    }

    /// The filter of one VM's port.
    fn port_filter(&mut self, tenant: u16, port: usize, config: &PortConfig) {
        let from = format!("in_port={port}");
        for mac in std::iter::once(&config.mac).chain(&config.extra_macs) {
            for (family, next) in [
                ("arp", ARP_SENDER),
                ("ip", PORT_SOURCE),
                ("ipv6", PORT_SOURCE),
            ] {
                self.classify(&format!("{from},{family},dl_src={mac}"), tenant, next);
            }
            let senders = addresses(config)
                .into_iter()
                .filter(|net| net.addr().is_ipv4())
                .chain([host(Ipv4Addr::UNSPECIFIED)]);
            for sender in senders {
                let matching =
                    format!("{from},arp,arp_op=1,dl_src={mac},arp_sha={mac},arp_spa={sender}");
                self.go_to(ARP_SENDER, 100, &matching, ARP_TARGET);
            }
        }
        for target in addresses(config).iter().filter_map(arp_target) {
            self.drop(ARP_TARGET, 250, &format!("{from},{target}"));
        }
        self.arp_reply(port, config.gateway_mac);
        let link_local = host(config.mac.link_local());
        for net in addresses(config).iter().chain([&link_local]) {
            let matching = format!("{from},{}", source(net));
            self.go_to(PORT_SOURCE, 100, &matching, PORT_TRANSPORT);
        }
        if config.encapsulation != Encapsulation::Deny {
            for matching in encapsulation() {
                let matching = format!("{from},{matching}");
                self.go_to(PORT_TRANSPORT, 150, &matching, TRANSPORT);
            }
        }
        for net in addresses(config) {
            self.drop(ROUTE, 250, &format!("{from},{}", destination(&net)));
        }
    }

    /// The filter of the uplink.
    fn uplink_filter(
        &mut self,
        number: u16,
        tenant: &SwitchConfig,
        ports: &[(usize, &PortConfig)],
        (port, config): (usize, &UplinkConfig),
    ) {
        let from = format!("in_port={port}");
        let mac = config.mac;
        for (matching, next) in [
            (format!("arp,dl_dst={mac}"), ARP_SENDER),
            ("arp,dl_dst=ff:ff:ff:ff:ff:ff".to_owned(), ARP_SENDER),
            (format!("ip,dl_dst={mac}"), UPLINK_SOURCE),
            (format!("ipv6,dl_dst={mac}"), UPLINK_SOURCE),
        ] {
            self.classify(&format!("{from},{matching}"), number, next);
        }
        if let Some(own) = config.ipv4 {
            let matching = format!("{from},arp,arp_op=1,arp_tpa={}", own.addr());
            self.go_to(ARP_SENDER, 100, &matching, ARP_REPLY);
        }
        self.arp_reply(port, mac);
        let elsewhere = ports
            .iter()
            .flat_map(|(_, port)| addresses(port))
            .filter(|net| !gateway_subnets(tenant).any(|subnet| subnet.contains(net)));
        let own = config.own_addresses().map(IpNet::from);
        for net in gateway_subnets(tenant).chain(elsewhere).chain(own) {
            self.drop(UPLINK_SOURCE, 200, &format!("{from},{}", source(&net)));
        }
        for family in ["ip", "ipv6"] {
            let matching = format!("{from},{family}");
            self.go_to(UPLINK_SOURCE, 0, &matching, TRANSPORT);
            // Below the VMs' addresses: no transit.
            self.drop(ROUTE, 190, &matching);
        }
    }

    /// The routes to the uplink, and the part of the underlay that has none.
    fn uplink_routes(&mut self, tenant: &str, port: usize, config: &UplinkConfig) {
        self.drop(ROUTE, 180, &format!("{tenant},ipv6,ipv6_src=fe80::/10"));
        for own in config.own_addresses() {
            self.unreachable(tenant, 170, &IpNet::from(own));
        }
        let next_hop = MacAddr::new(NEXT_HOP_MAC).expect("a unicast MAC");
        let output = format!("dec_ttl,{}", output(config.mac, next_hop, port));
        let ipv4 = config.next_hops.ipv4.is_some();
        let ipv6 = config.next_hops.ipv6.is_some();
        for net in config.allow.iter().map(IpNet::trunc) {
            if matches!(net, IpNet::V4(_)) && ipv4 || matches!(net, IpNet::V6(_)) && ipv6 {
                let matching = format!("{tenant},{}", destination(&net));
                self.add(ROUTE, 160, &matching, &output);
                self.reply_to_arp(tenant, 160, &net);
            }
        }
        for net in underlay_subnets(config) {
            self.unreachable(tenant, 150, &net);
        }
        if ipv4 {
            self.go_to(ARP_TARGET, 100, &format!("{tenant},arp"), ARP_REPLY);
            self.add(ROUTE, 100, &format!("{tenant},ip"), &output);
        }
        if ipv6 {
            self.add(ROUTE, 100, &format!("{tenant},ipv6"), &output);
        }
    }

    /// Notes the tenant of a frame and starts its checks.
    fn classify(&mut self, matching: &str, tenant: u16, next: u8) {
        let actions = format!("set_field:{tenant}->reg0,goto_table:{next}");
        self.add(ETHERNET, 100, matching, &actions);
    }

    fn reply_to_arp(&mut self, tenant: &str, priority: u16, net: &IpNet) {
        if let Some(target) = arp_target(net) {
            self.go_to(
                ARP_TARGET,
                priority,
                &format!("{tenant},{target}"),
                ARP_REPLY,
            );
        }
    }

    fn unreachable(&mut self, tenant: &str, priority: u16, net: &IpNet) {
        self.drop(ROUTE, priority, &format!("{tenant},{}", destination(net)));
        if let Some(target) = arp_target(net) {
            self.drop(ARP_TARGET, priority, &format!("{tenant},{target}"));
        }
    }

    /// Turns an ARP request into its reply.
    fn arp_reply(&mut self, port: usize, mac: MacAddr) {
        let actions = format!(
            "move:eth_src->eth_dst,set_field:{mac}->eth_src,set_field:2->arp_op,\
             move:arp_sha->arp_tha,set_field:{mac}->arp_sha,move:arp_spa->reg1,\
             move:arp_tpa->arp_spa,move:reg1->arp_tpa,in_port"
        );
        self.add(ARP_REPLY, 100, &format!("in_port={port},arp"), &actions);
    }
}

fn host(address: impl Into<std::net::IpAddr>) -> IpNet {
    IpNet::from(address.into())
}

/// Sends a frame out of `port` with new MACs.
fn output(source: MacAddr, destination: MacAddr, port: usize) -> String {
    format!("set_field:{source}->eth_src,set_field:{destination}->eth_dst,output:{port}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::network::{Size, tenant};
    use crate::switches::checks::tests::filter_numbers;

    #[test]
    fn two_vms_get_the_recorded_rules() {
        let tenant = tenant(0, Size::new(2, 1));
        let (rules, expected) = (rules(&[tenant]), include_str!("two_vms.rules"));
        for (line, expected) in rules.lines().zip(expected.lines()) {
            assert_eq!(line, expected);
        }
        assert_eq!(rules, expected);
    }

    #[test]
    fn dropped_numbers_are_those_of_the_filter() {
        let rules = rules(&[tenant(0, Size::new(1, 1))]);
        let mut dropped = BTreeSet::new();
        for line in rules.lines().filter(|line| line.ends_with("actions=drop")) {
            for part in line.split(',') {
                let (key, value) = part.split_once('=').unwrap_or((part, ""));
                let field = match key {
                    "nw_proto" => "Protocol",
                    "tp_src" => "UdpSource",
                    "tp_dst" => "UdpDestination",
                    "icmp_type" if line.contains(",icmp,") => "Icmp",
                    "icmp_type" => "Icmpv6",
                    _ => continue,
                };
                let number: u16 = value.parse().expect("a number");
                dropped.insert((field.to_owned(), number));
            }
        }
        assert_eq!(dropped, filter_numbers());
    }

    #[test]
    fn each_tenant_gets_its_own_ports_and_register() {
        let size = Size::new(1, 1);
        let rules = rules(&[tenant(0, size), tenant(1, size)]);
        let entries: Vec<&str> = rules
            .lines()
            .filter(|line| line.starts_with("table=0,") && line.contains(",ip,dl_"))
            .collect();
        let entry = |port, mac, tenant, next| {
            format!(
                "table=0,priority=100,in_port={port},ip,{mac},\
                 actions=set_field:{tenant}->reg0,goto_table:{next}"
            )
        };
        assert_eq!(
            entries,
            [
                entry(1, "dl_src=52:54:00:00:00:01", 1, 20),
                entry(2, "dl_dst=0a:de:31:bb:01:1d", 1, 30),
                entry(3, "dl_src=52:54:00:01:00:01", 2, 20),
                entry(4, "dl_dst=0a:65:bd:5b:07:d7", 2, 30),
            ]
        );
    }
}
