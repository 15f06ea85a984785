//! What must hold between the values of one tenant. The same rules judge what an operator wrote and
//! what a switch is given, so both are first reduced to [`Facts`]: values, each with its key.
//!
//! A value that could not be read is simply absent; so one bad value never hides another.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::addr::{InvalidValue, MacAddr, Name, VlanId, Vni};
use crate::document::{At, Report};
use crate::error::{KeyPath, Problem};
use crate::switch::UPLINK_NAME;

/// The most ports of a tenant.
pub const MAX_PORTS: usize = 256;
/// The most addresses and prefixes of a port.
pub const MAX_ADDRESSES: usize = 4096;
/// The most further MACs of a port: each is compared with those of a frame that does not bear the first.
pub const MAX_EXTRA_MACS: usize = 256;
/// The most prefixes of the underlay that a tenant may reach.
pub const MAX_ALLOWED: usize = 4096;
/// The most VLAN identifiers of a port: all there are.
pub(crate) const MAX_TRUNK: usize = 4094;
/// The most peers of a tenant.
pub const MAX_PEERS: usize = 1024;
/// The most prefixes behind all peers of a tenant.
pub const MAX_PREFIXES: usize = 131_072;
/// The largest MTU: jumbo frames as common NICs carry them.
pub const MAX_MTU: u16 = 9216;
/// What every IPv4 host takes (RFC 791).
pub const MIN_MTU_IPV4: u16 = 576;
/// What every IPv6 link carries (RFC 8200, section 5).
pub const MIN_MTU_IPV6: u16 = 1280;

/// What a tunnel's TTL may be, as the rest of a sentence.
pub(crate) const TTL_EXPECTED: &str = "an integer from 1 to 255, or \"inherit\"";
/// What a tunnel's DSCP may be, as the rest of a sentence.
pub(crate) const DSCP_EXPECTED: &str = "an integer from 0 to 63, or \"inherit\"";

/// What a tunnel from `vtep` adds to a packet that it carries, in bytes: the outer IP header, UDP, the tunnel's own
/// header, and the inner Ethernet header.
pub(crate) const fn tunnel_overhead(vtep: IpAddr) -> u16 {
    let ip = match vtep {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    };
    ip + 8 + 8 + 14
}

/// A tenant's values, as far as they could be read.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) vni: Option<Vni>,
    pub(crate) gateway: Gateway,
    /// The list of ports, if it could be read as one.
    pub(crate) ports_key: Option<KeyPath>,
    pub(crate) ports: Vec<Port>,
    pub(crate) uplink: Uplink,
    pub(crate) tunnel: Option<Tunnel>,
}

/// The gateway's addresses.
#[derive(Debug, Default)]
pub(crate) struct Gateway {
    pub(crate) key: KeyPath,
    pub(crate) addresses: Vec<At<IpNet>>,
    /// One of them could not be read, so nothing can be said about one that is absent.
    pub(crate) unreadable: bool,
}

impl Gateway {
    /// Whether an absent family is one that the operator left out.
    fn is_complete(&self) -> bool {
        !self.unreadable && !self.addresses.is_empty()
    }
}

/// One port.
#[derive(Debug, Default)]
pub(crate) struct Port {
    pub(crate) name: Option<At<Name>>,
    pub(crate) mac: Option<At<MacAddr>>,
    pub(crate) extra_macs: Vec<At<MacAddr>>,
    pub(crate) addresses: Vec<At<IpNet>>,
    /// The list of addresses, if it is one, and how many it has, readable or not.
    pub(crate) listed: Option<At<usize>>,
    pub(crate) learned: Option<KeyPath>,
    pub(crate) trunk: Vec<At<VlanId>>,
    pub(crate) dhcp_server: bool,
    pub(crate) mtu: Option<At<i64>>,
    pub(crate) limits: Vec<At<u64>>,
}

/// The uplink: for each family its address and its next hop.
#[derive(Debug, Default)]
pub(crate) struct Uplink {
    /// The table, if there is one.
    pub(crate) key: Option<KeyPath>,
    pub(crate) links: Vec<(At<IpNet>, Option<At<IpAddr>>)>,
    /// An address or next hop could not be read, so nothing can be said about one that is absent.
    pub(crate) unreadable: bool,
    pub(crate) allow: Vec<At<IpNet>>,
    pub(crate) mtu: Option<At<i64>>,
}

/// The tunnel.
#[derive(Debug, Default)]
pub(crate) struct Tunnel {
    pub(crate) key: KeyPath,
    /// Our endpoint. Absent, it is the uplink's IPv4 address, or else its IPv6 one.
    pub(crate) vtep: Option<At<IpAddr>>,
    /// The endpoint could not be read, so nothing can be said about it.
    pub(crate) unreadable: bool,
    /// The MAC of our side, if it is written; otherwise it follows from the VNI and the endpoint.
    pub(crate) mac: Option<MacAddr>,
    pub(crate) port: Option<At<i64>>,
    pub(crate) ttl: Option<At<u8>>,
    pub(crate) dscp: Option<At<u8>>,
    /// Absent if it could not be read.
    pub(crate) only: Option<bool>,
    /// The list of peers, and how many it has, readable or not.
    pub(crate) listed: Option<At<usize>>,
    pub(crate) peers: Vec<Peer>,
}

/// One peer.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) key: KeyPath,
    pub(crate) name: Option<At<Name>>,
    pub(crate) vtep: Option<At<IpAddr>>,
    pub(crate) mac: Option<At<MacAddr>>,
    pub(crate) next_hop: Option<At<IpAddr>>,
    /// The next hop could not be read, so nothing can be said about an absent one.
    pub(crate) unreadable: bool,
    /// With the place of each within its list; a key for each would take many times the memory.
    pub(crate) prefixes: Vec<(u32, IpNet)>,
    /// How many there are, readable or not.
    pub(crate) listed: usize,
}

impl Peer {
    fn prefix_key(&self, index: u32) -> KeyPath {
        self.key.key("prefixes").index(index as usize)
    }
}

/// Reports everything that does not hold.
pub(crate) fn check(facts: &Facts, report: &Report) {
    check_gateway(facts, report);
    check_uplink(facts, report);
    check_names(facts, report);
    check_macs(facts, report);
    check_addresses(facts, report);
    check_overlaps(facts, report);
    check_learning(facts, report);
    if let Some(tunnel) = &facts.tunnel {
        check_tunnel(tunnel, facts, report);
    }
    for port in &facts.ports {
        check_trunk(port, report);
        for limit in port.limits.iter().filter(|limit| limit.value == 0) {
            report.add(&limit.key, Problem::ZeroLimit);
        }
        if let Some(mtu) = &port.mtu {
            check_mtu(mtu, &facts.gateway.addresses, report);
        }
    }
}

fn check_gateway(facts: &Facts, report: &Report) {
    let gateway = &facts.gateway;
    if gateway.addresses.is_empty() && !gateway.unreadable {
        report.add(&gateway.key, Problem::GatewayEmpty);
    }
    for address in &gateway.addresses {
        check_own_address(address, report);
    }
}

fn check_uplink(facts: &Facts, report: &Report) {
    let uplink = &facts.uplink;
    if let [(first, _), (second, _)] = &uplink.links[..]
        && same_family(first.value, second.value)
    {
        report.add(&second.key, Problem::SecondIpv6);
    }
    for (address, next_hop) in &uplink.links {
        check_own_address(address, report);
        let subnet = address.value.trunc();
        for inner in &facts.gateway.addresses {
            if overlap(inner.value, subnet) {
                let problem = Problem::SubnetOverlap {
                    subnet,
                    other: inner.value.trunc(),
                    other_key: inner.key.to_string(),
                };
                report.add(&address.key, problem);
            }
        }
        if let Some(next_hop) = next_hop
            && let Some(problem) = next_hop_problem(next_hop.value, address)
        {
            report.add(&next_hop.key, problem);
        }
    }
    check_length(&uplink.allow, MAX_ALLOWED, report);
    let only = facts.tunnel.as_ref().and_then(|tunnel| tunnel.only);
    for allow in &uplink.allow {
        let prefix = allow.value;
        if prefix != prefix.trunc() {
            report.add(&allow.key, host_bits(prefix));
        } else if only == Some(true) {
            report.add(&allow.key, Problem::AllowOnly { prefix });
        } else if !uplink.links.is_empty()
            && !uplink
                .links
                .iter()
                .any(|(address, _)| address.value.contains(&prefix))
        {
            report.add(&allow.key, Problem::AllowOutside { prefix });
        }
    }
    if let Some(mtu) = &uplink.mtu {
        check_mtu(mtu, uplink.links.iter().map(|(address, _)| address), report);
    }
}

fn next_hop_problem(next_hop: IpAddr, link: &At<IpNet>) -> Option<Problem> {
    let subnet = link.value.trunc();
    if let Some(what) = not_unicast(next_hop) {
        return Some(Problem::NotUnicast {
            address: next_hop.to_string(),
            what,
        });
    }
    if !subnet.contains(&next_hop) {
        return Some(Problem::NextHopOutside {
            next_hop: next_hop.to_string(),
            subnet,
            other_key: link.key.to_string(),
        });
    }
    if next_hop == link.value.addr() {
        return Some(Problem::NextHopSelf {
            next_hop: next_hop.to_string(),
        });
    }
    edge_role(subnet, next_hop).map(|role| Problem::ReservedAddress {
        address: next_hop.to_string(),
        role,
        subnet,
    })
}

/// An address of the switch itself, with its subnet.
fn check_own_address(address: &At<IpNet>, report: &Report) {
    let net = address.value;
    let (min, max) = match net {
        IpNet::V4(_) => (8, 31),
        IpNet::V6(_) => (16, 127),
    };
    if let Some(what) = not_unicast(net.addr()) {
        let address_text = show(net);
        let problem = Problem::NotUnicast {
            address: address_text,
            what,
        };
        report.add(&address.key, problem);
    } else if !(min..=max).contains(&net.prefix_len()) {
        let length = net.prefix_len();
        report.add(&address.key, Problem::SubnetLength { length, min, max });
    } else if let Some(role) = edge_role(net.trunc(), net.addr()) {
        let problem = Problem::ReservedAddress {
            address: net.addr().to_string(),
            role,
            subnet: net.trunc(),
        };
        report.add(&address.key, problem);
    }
}

fn check_names(facts: &Facts, report: &Report) {
    if let Some(key) = &facts.ports_key {
        match facts.ports.len() {
            0 => report.add(key, Problem::NoPorts),
            1..=MAX_PORTS => {}
            count => {
                let max = MAX_PORTS;
                report.add(key, Problem::TooMany { count, max });
            }
        }
    }
    let mut names = HashMap::new();
    for name in facts.ports.iter().filter_map(|port| port.name.as_ref()) {
        if name.value.as_str() == UPLINK_NAME {
            report.add(&name.key, Problem::ReservedPortName);
        }
        if let Some(other) = names.insert(&name.value, &name.key) {
            let problem = Problem::DuplicatePort {
                name: name.value.clone(),
                other: other.to_string(),
            };
            report.add(&name.key, problem);
        }
    }
}

fn check_macs(facts: &Facts, report: &Report) {
    let mut primaries: HashMap<MacAddr, &KeyPath> = HashMap::new();
    let duplicate = |mac: &At<MacAddr>, other: &KeyPath| {
        let problem = Problem::DuplicateMac {
            mac: mac.value,
            other: other.to_string(),
        };
        report.add(&mac.key, problem);
    };
    let reserved = |mac: &At<MacAddr>| {
        let vni = facts.vni?;
        is_of_switch(mac.value, vni).then_some(Problem::ReservedMac {
            mac: mac.value,
            vni,
        })
    };
    for mac in facts.ports.iter().filter_map(|port| port.mac.as_ref()) {
        if let Some(problem) = reserved(mac) {
            report.add(&mac.key, problem);
        }
        match primaries.get(&mac.value) {
            Some(other) => duplicate(mac, other),
            None => drop(primaries.insert(mac.value, &mac.key)),
        }
    }
    // An extra MAC may be on several ports, as VRRP's is on all routers of a group.
    for port in &facts.ports {
        check_length(&port.extra_macs, MAX_EXTRA_MACS, report);
        let mut own: HashMap<MacAddr, &KeyPath> = HashMap::new();
        for mac in &port.extra_macs {
            if let Some(problem) = reserved(mac) {
                report.add(&mac.key, problem);
            }
            match own.get(&mac.value).or_else(|| primaries.get(&mac.value)) {
                Some(other) => duplicate(mac, other),
                None => drop(own.insert(mac.value, &mac.key)),
            }
        }
    }
}

/// Whether a MAC is one of those of the functions of this tenant's switch.
fn is_of_switch(mac: MacAddr, vni: Vni) -> bool {
    mac.octets()[..4] == MacAddr::of_switch_function(vni, 0).octets()[..4]
}

fn check_addresses(facts: &Facts, report: &Report) {
    for port in &facts.ports {
        if let Some(listed) = &port.listed {
            match listed.value {
                0 => report.add(&listed.key, Problem::NoAddress),
                1..=MAX_ADDRESSES => {}
                count => {
                    let max = MAX_ADDRESSES;
                    report.add(&listed.key, Problem::TooMany { count, max });
                }
            }
        }
        for address in &port.addresses {
            if let Some(problem) = address_problem(address.value, &facts.gateway) {
                report.add(&address.key, problem);
            }
        }
    }
}

fn address_problem(net: IpNet, gateway: &Gateway) -> Option<Problem> {
    if net != net.trunc() {
        return Some(host_bits(net));
    }
    if let Some(what) = not_unicast(net.network()).or_else(|| not_unicast(net.broadcast())) {
        let address = show(net);
        return Some(Problem::NotUnicast { address, what });
    }
    let (family, key) = family(net);
    let Some(at_gateway) = gateway
        .addresses
        .iter()
        .map(|address| address.value)
        .find(|own| same_family(*own, net))
    else {
        let address = show(net);
        return gateway.is_complete().then_some(Problem::GatewayMissing {
            address,
            family,
            key,
        });
    };
    let subnet = at_gateway.trunc();
    if !subnet.contains(&net) {
        let address = show(net);
        return Some(Problem::OutsideSubnet {
            address,
            subnet,
            key,
        });
    }
    let edges = [subnet.network(), subnet.broadcast()];
    let kept = edges
        .into_iter()
        .filter_map(|edge| edge_role(subnet, edge).map(|role| (edge, role)));
    [(at_gateway.addr(), "the address of the gateway")]
        .into_iter()
        .chain(kept)
        .find(|(address, _)| net.contains(address))
        .map(|(address, role)| reserved(net, address, role, subnet))
}

fn reserved(net: IpNet, address: IpAddr, role: &'static str, subnet: IpNet) -> Problem {
    let address = address.to_string();
    if net.prefix_len() == net.max_prefix_len() {
        Problem::ReservedAddress {
            address,
            role,
            subnet,
        }
    } else {
        Problem::ContainsReserved {
            prefix: net,
            address,
            role,
            subnet,
        }
    }
}

/// Two prefixes are either apart or one contains the other. So in the order of their first address,
/// the wider first, whatever contains an entry is on the stack of those that still go on.
fn check_overlaps(facts: &Facts, report: &Report) {
    let mut all: Vec<(usize, &At<IpNet>)> = facts
        .ports
        .iter()
        .enumerate()
        .flat_map(|(port, facts)| facts.addresses.iter().map(move |address| (port, address)))
        .collect();
    // The sort is stable: of two equal entries the one written first comes first.
    all.sort_by_key(|(_, address)| (address.value.network(), address.value.prefix_len()));
    let mut open: Vec<(usize, &At<IpNet>)> = Vec::new();
    for entry in all {
        let net = entry.1.value.trunc();
        while open
            .last()
            .is_some_and(|(_, wider)| !wider.value.contains(&net))
        {
            open.pop();
        }
        if let Some(wider) = open.last() {
            report_overlap(facts, *wider, entry, report);
        }
        open.push(entry);
    }
}

fn report_overlap(
    facts: &Facts,
    (port, address): (usize, &At<IpNet>),
    (other_port, other): (usize, &At<IpNet>),
    report: &Report,
) {
    if port == other_port {
        // The narrower one is what says nothing new.
        let problem = Problem::AddressRepeated {
            address: show(other.value),
            other: show(address.value),
            other_key: address.key.to_string(),
        };
        return report.add(&other.key, problem);
    }
    // The error is the one of the port that comes second in the file.
    let (first, later, first_port) = if port < other_port {
        (address, other, port)
    } else {
        (other, address, other_port)
    };
    let name = facts.ports[first_port].name.as_ref();
    let problem = Problem::AddressOverlap {
        address: show(later.value),
        other: show(first.value),
        other_port: name.map_or_else(String::new, |name| name.value.to_string()),
        other_key: first.key.to_string(),
    };
    report.add(&later.key, problem);
}

fn check_learning(facts: &Facts, report: &Report) {
    let servers = facts.ports.iter().filter(|port| port.dhcp_server).count();
    for port in &facts.ports {
        let Some(learned) = &port.learned else {
            continue;
        };
        if port.dhcp_server {
            report.add(learned, Problem::ServerLearns);
        } else if servers == 0 {
            report.add(learned, Problem::NoDhcpServer);
        }
        let gateway = &facts.gateway;
        let routed = gateway
            .addresses
            .iter()
            .any(|address| address.value.addr().is_ipv4());
        if !routed && gateway.is_complete() {
            let problem = Problem::GatewayMissing {
                address: "what DHCP assigns".to_owned(),
                family: "IPv4",
                key: "ipv4",
            };
            report.add(learned, problem);
        }
    }
}

fn check_tunnel(tunnel: &Tunnel, facts: &Facts, report: &Report) {
    let uplink = &facts.uplink;
    if uplink.key.is_none() {
        report.add(&tunnel.key, Problem::TunnelWithoutUplink);
    }
    if let Some(vtep) = &tunnel.vtep
        && !uplink.links.is_empty()
        && !uplink.unreadable
        && !uplink.own_addresses().any(|own| own == vtep.value)
    {
        let own: Vec<_> = uplink.own_addresses().map(|own| own.to_string()).collect();
        let (vtep_key, vtep, own) = (&vtep.key, vtep.value, own.join(" or "));
        report.add(vtep_key, Problem::VtepNotOwn { vtep, own });
    }
    let range = |key: &KeyPath, value: i64, min, max, expected| {
        if !(min..=max).contains(&value) {
            report.add(key, InvalidValue::new(value, expected).into());
        }
    };
    if let Some(port) = &tunnel.port {
        range(
            &port.key,
            port.value,
            1,
            65535,
            "a UDP port from 1 to 65535",
        );
        if DHCP_PORTS.contains(&port.value) {
            let expected = "a UDP port other than DHCP's (67, 68, 546 and 547)";
            report.add(&port.key, InvalidValue::new(port.value, expected).into());
        }
    }
    if let Some(ttl) = &tunnel.ttl {
        range(&ttl.key, ttl.value.into(), 1, 255, TTL_EXPECTED);
    }
    if let Some(dscp) = &tunnel.dscp {
        range(&dscp.key, dscp.value.into(), 0, 63, DSCP_EXPECTED);
    }
    let own = tunnel.own_vtep(uplink);
    if let (Some(own), Some(mtu)) = (own, &uplink.mtu) {
        check_inner_mtu(own, mtu, facts, report);
    }
    if let Some(listed) = &tunnel.listed
        && listed.value > MAX_PEERS
    {
        let (count, max) = (listed.value, MAX_PEERS);
        report.add(&listed.key, Problem::TooMany { count, max });
    }
    let mut names = HashMap::new();
    let mut ways: HashMap<IpAddr, (Option<IpAddr>, &KeyPath)> = HashMap::new();
    for peer in &tunnel.peers {
        let next_hop = peer.next_hop.as_ref().map(|hop| hop.value);
        if let Some(vtep) = &peer.vtep
            && !peer.unreadable
            && let Some((other, other_key)) = ways.insert(vtep.value, (next_hop, &peer.key))
            && other != next_hop
        {
            let problem = Problem::PeerNextHops {
                vtep: vtep.value,
                other_key: other_key.to_string(),
            };
            report.add(&peer.key.key("next_hop"), problem);
        }
        if let Some(name) = &peer.name
            && let Some(other) = names.insert(&name.value, &name.key)
        {
            let problem = Problem::DuplicatePeer {
                name: name.value.clone(),
                other: other.to_string(),
            };
            report.add(&name.key, problem);
        }
        check_peer(peer, tunnel, own, facts, report);
    }
    check_prefixes(tunnel, facts, report);
}

/// What the tunnel leaves of the uplink's MTU.
fn check_inner_mtu(own: IpAddr, mtu: &At<i64>, facts: &Facts, report: &Report) {
    let links = facts.uplink.links.iter().map(|(address, _)| address);
    let mtu_key = &mtu.key;
    let mtu = mtu.value;
    // One that no link may have is told of as such.
    if mtu < least_mtu(links).0.into() || mtu > MAX_MTU.into() {
        return;
    }
    let overhead = tunnel_overhead(own);
    let (min, why) = least_mtu(&facts.gateway.addresses);
    let left = mtu - i64::from(overhead);
    if left < i64::from(min) {
        let least = min + overhead;
        let problem = Problem::TunnelMtu {
            mtu,
            left,
            overhead,
            least,
            why,
        };
        report.add(mtu_key, problem);
    }
}

fn check_peer(peer: &Peer, tunnel: &Tunnel, own: Option<IpAddr>, facts: &Facts, report: &Report) {
    let uplink = &facts.uplink;
    let link = own.and_then(|own| uplink.link_of(own));
    if let Some(vtep) = &peer.vtep
        && let Some(problem) =
            vtep_problem(vtep.value, own, link.map(|(address, _)| address), facts)
    {
        report.add(&vtep.key, problem);
    } else if let (Some(vtep), Some((address, hop))) = (&peer.vtep, link)
        && !address.value.contains(&vtep.value)
        && peer.next_hop.is_none()
        && hop.is_none()
        && !peer.unreadable
        && !uplink.unreadable
        // Without `only` the uplink's next hop must be there anyway.
        && tunnel.only == Some(true)
    {
        let problem = Problem::PeerUnreachable {
            vtep: vtep.value,
            subnet: address.value.trunc(),
            other_key: address.key.to_string(),
        };
        report.add(&peer.key.key("next_hop"), problem);
    }
    if let (Some(next_hop), Some((address, _))) = (&peer.next_hop, link)
        && let Some(problem) = next_hop_problem(next_hop.value, address)
    {
        report.add(&next_hop.key, problem);
    }
    if let Some(mac) = &peer.mac {
        let own_mac = tunnel
            .mac
            .or_else(|| Some(MacAddr::of_vtep(facts.vni?, own?)));
        let of_function = facts.vni.is_some_and(|vni| is_of_switch(mac.value, vni));
        if own_mac == Some(mac.value) || of_function {
            let problem = Problem::PeerMacSelf { mac: mac.value };
            report.add(&mac.key, problem);
        }
    }
}

/// What is wrong with a peer's endpoint, as far as ours and its link are known.
fn vtep_problem(
    vtep: IpAddr,
    own: Option<IpAddr>,
    link: Option<&At<IpNet>>,
    facts: &Facts,
) -> Option<Problem> {
    if let Some(what) = not_unicast(vtep) {
        let address = vtep.to_string();
        return Some(Problem::NotUnicast { address, what });
    }
    let mut inner = facts.gateway.addresses.iter();
    if let Some(inner) = inner.find(|inner| inner.value.contains(&vtep)) {
        return Some(Problem::PeerInside {
            vtep,
            subnet: inner.value.trunc(),
            other_key: inner.key.to_string(),
        });
    }
    let own = own?;
    if vtep.is_ipv4() != own.is_ipv4() {
        return Some(Problem::PeerFamily { vtep, own });
    }
    if vtep == own {
        return Some(Problem::PeerSelf { vtep });
    }
    let subnet = link?.value.trunc();
    edge_role(subnet, vtep).map(|role| Problem::ReservedAddress {
        address: vtep.to_string(),
        role,
        subnet,
    })
}

/// Who has a prefix: the position of a port or peer, and that within its list. Ports come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Port(usize, usize),
    Peer(usize, u32),
}

/// The prefixes behind peers: each by itself, then against the ports' and each other. In the order of their
/// first address, the wider first, whichever of the ports' contains an entry is on the stack of those
/// that still go on, and equal entries are neighbours.
/// On which the filter looks for DHCP.
const DHCP_PORTS: [i64; 4] = [67, 68, 546, 547];

fn check_prefixes(tunnel: &Tunnel, facts: &Facts, report: &Report) {
    let count = tunnel.peers.iter().map(|peer| peer.listed).sum();
    if let Some(listed) = &tunnel.listed
        && count > MAX_PREFIXES
    {
        let max = MAX_PREFIXES;
        report.add(&listed.key, Problem::TooManyPrefixes { count, max });
    }
    let mut all: Vec<(IpNet, Holder)> = Vec::with_capacity(count);
    for (position, peer) in tunnel.peers.iter().enumerate() {
        for &(index, prefix) in &peer.prefixes {
            match prefix_problem(prefix, tunnel, facts) {
                Some(problem) => report.add(&peer.prefix_key(index), problem),
                None => all.push((prefix, Holder::Peer(position, index))),
            }
        }
    }
    for (position, port) in facts.ports.iter().enumerate() {
        let nets = port.addresses.iter().enumerate();
        all.extend(nets.map(|(index, net)| (net.value.trunc(), Holder::Port(position, index))));
    }
    all.sort_unstable();
    let key = |holder| match holder {
        Holder::Port(port, index) => facts.ports[port].addresses[index].key.clone(),
        Holder::Peer(peer, index) => tunnel.peers[peer].prefix_key(index),
    };
    let mut open: Vec<(IpNet, usize, Holder)> = Vec::new();
    let mut last: Option<(IpNet, Holder)> = None;
    for (net, holder) in all {
        while open.last().is_some_and(|(wider, ..)| !wider.contains(&net)) {
            open.pop();
        }
        if let Holder::Port(port, _) = holder {
            open.push((net, port, holder));
        } else if let Some((wider, port, wider_holder)) = open.last() {
            let name = facts.ports[*port].name.as_ref();
            let problem = Problem::PrefixAtPort {
                prefix: show(net),
                other: show(*wider),
                other_port: name.map_or_else(String::new, |name| name.value.to_string()),
                other_key: key(*wider_holder).to_string(),
            };
            report.add(&key(holder), problem);
        } else if let Some((_, first)) = last.filter(|(other, _)| *other == net) {
            let problem = Problem::PrefixRepeated {
                prefix: show(net),
                other_key: key(first).to_string(),
            };
            report.add(&key(holder), problem);
        } else {
            last = Some((net, holder));
        }
    }
}

/// What is wrong with one prefix behind a peer, whatever the others are.
fn prefix_problem(prefix: IpNet, tunnel: &Tunnel, facts: &Facts) -> Option<Problem> {
    if prefix != prefix.trunc() {
        return Some(host_bits(prefix));
    }
    let all = prefix.prefix_len() == 0;
    if !all
        && let Some(what) =
            not_unicast(prefix.network()).or_else(|| not_unicast(prefix.broadcast()))
    {
        let address = show(prefix);
        return Some(Problem::NotUnicast { address, what });
    }
    let gateway = &facts.gateway;
    let mut own = gateway.addresses.iter().map(|address| address.value);
    let Some(at_gateway) = own.find(|own| same_family(*own, prefix)) else {
        let (family, key) = family(prefix);
        return gateway.is_complete().then(|| Problem::GatewayMissing {
            address: show(prefix),
            family,
            key,
        });
    };
    if all {
        return (tunnel.only == Some(false)).then_some(Problem::PrefixOfAll { prefix });
    }
    let underlay = facts.uplink.links.iter().map(|(address, _)| address);
    for address in underlay {
        if overlap(address.value, prefix) {
            return Some(Problem::SubnetOverlap {
                subnet: prefix,
                other: address.value.trunc(),
                other_key: address.key.to_string(),
            });
        }
    }
    if prefix.prefix_len() < prefix.max_prefix_len() {
        let learned = facts.ports.iter().find_map(|port| port.learned.as_ref());
        return learned
            .filter(|_| prefix == at_gateway.trunc() && prefix.addr().is_ipv4())
            .map(|learned| Problem::PrefixOfLearned {
                prefix,
                other_key: learned.to_string(),
            });
    }
    let (address, subnet) = (prefix.addr(), at_gateway.trunc());
    let role = if address == at_gateway.addr() {
        Some("the address of the gateway")
    } else {
        edge_role(subnet, address)
    };
    role.map(|role| reserved(prefix, address, role, subnet))
}

impl Tunnel {
    /// Our endpoint, as far as it is known.
    fn own_vtep(&self, uplink: &Uplink) -> Option<IpAddr> {
        if let Some(vtep) = &self.vtep {
            return Some(vtep.value);
        }
        if self.unreadable || uplink.unreadable {
            return None;
        }
        let mut own = uplink.own_addresses();
        own.clone().find(IpAddr::is_ipv4).or_else(|| own.next())
    }
}

impl Uplink {
    fn own_addresses(&self) -> impl Iterator<Item = IpAddr> + Clone {
        self.links.iter().map(|(address, _)| address.value.addr())
    }

    /// The subnet of our address of `own`'s family, and the next hop there.
    fn link_of(&self, own: IpAddr) -> Option<(&At<IpNet>, &Option<At<IpAddr>>)> {
        let mut links = self.links.iter();
        let link = links.find(|(address, _)| address.value.addr().is_ipv4() == own.is_ipv4());
        link.map(|(address, next_hop)| (address, next_hop))
    }
}

fn check_trunk(port: &Port, report: &Report) {
    let mut seen = HashSet::new();
    for vlan in &port.trunk {
        let value = vlan.value.get();
        if !seen.insert(value) {
            report.add(&vlan.key, Problem::DuplicateVlan { value });
        }
    }
}

/// The error is that of the first element that is one too many.
fn check_length<T>(list: &[At<T>], max: usize, report: &Report) {
    if let Some(first) = list.get(max) {
        let count = list.len();
        report.add(&first.key, Problem::TooMany { count, max });
    }
}

fn check_mtu<'a>(mtu: &At<i64>, link: impl IntoIterator<Item = &'a At<IpNet>>, report: &Report) {
    let (min, why) = least_mtu(link);
    if !(i64::from(min)..=i64::from(MAX_MTU)).contains(&mtu.value) {
        let problem = Problem::MtuRange {
            value: mtu.value,
            min,
            max: MAX_MTU,
            why,
        };
        report.add(&mtu.key, problem);
    }
}

/// The least MTU of a link with these addresses, and why it is more than IPv4's.
fn least_mtu<'a>(link: impl IntoIterator<Item = &'a At<IpNet>>) -> (u16, &'static str) {
    let ipv6 = link
        .into_iter()
        .any(|address| address.value.addr().is_ipv6());
    if ipv6 {
        (MIN_MTU_IPV6, " (IPv6 needs 1280, RFC 8200)")
    } else {
        (MIN_MTU_IPV4, "")
    }
}

/// Whether two subnets share an address.
pub(crate) fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other.trunc()) || other.contains(&one.trunc())
}

/// An address or prefix as people write it: without the length where it is one address.
pub(crate) fn show(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

fn host_bits(net: IpNet) -> Problem {
    Problem::HostBits {
        address: net,
        network: net.trunc(),
    }
}

/// The family's name, and the gateway's key for it.
fn family(net: IpNet) -> (&'static str, &'static str) {
    match net {
        IpNet::V4(_) => ("IPv4", "ipv4"),
        IpNet::V6(_) => ("IPv6", "ipv6"),
    }
}

fn same_family(one: IpNet, other: IpNet) -> bool {
    one.addr().is_ipv4() == other.addr().is_ipv4()
}

/// What an address at the edge of its subnet is kept for. A subnet of two addresses keeps none
/// (RFC 3021, RFC 6164).
fn edge_role(subnet: IpNet, address: IpAddr) -> Option<&'static str> {
    if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
        return None;
    }
    match subnet {
        IpNet::V4(_) if address == subnet.network() => Some("the network address"),
        IpNet::V4(_) if address == subnet.broadcast() => Some("the broadcast address"),
        IpNet::V6(_) if address == subnet.network() => {
            Some("the subnet-router anycast address (RFC 4291)")
        }
        _ => None,
    }
}

/// What an address is, if it names no one station of a routed network.
fn not_unicast(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(ip) => match ip.octets() {
            [0, ..] => Some("in 0.0.0.0/8, which means this network"),
            [127, ..] => Some("a loopback address"),
            [169, 254, ..] => Some("a link-local address"),
            [224..=239, ..] => Some("a multicast address"),
            [240..=255, ..] if ip == Ipv4Addr::BROADCAST => Some("the broadcast address"),
            [240..=255, ..] => Some("in 240.0.0.0/4, which is reserved"),
            _ => None,
        },
        IpAddr::V6(ip) if ip.is_unspecified() => Some("the unspecified address"),
        IpAddr::V6(ip) if ip.is_loopback() => Some("the loopback address"),
        IpAddr::V6(ip) if ip.is_multicast() => Some("a multicast address"),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some("a link-local address"),
        IpAddr::V6(ip) if ip.octets()[0] == 0 => Some("in ::/8, which is reserved (RFC 4291)"),
        IpAddr::V6(_) => None,
    }
}
