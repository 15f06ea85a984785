//! From a document to a tenant. Each function takes one table, hands what it could read to the rules, and returns
//! the whole. What cannot be read is reported and left out; with a report there is no tenant. A section to come is
//! one more function and one more line in `read_tenant`.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Nic, NicAttribute, Peer, Port, Tenant, Tunnel, Uplink};
use crate::addr::{InvalidValue, MacAddr, Name, VlanId, Vni};
use crate::document::{At, Node, Section};
use crate::error::{KeyPath, Problem};
use crate::rules::{self, Facts};
use crate::switch::{
    Addresses, Encapsulation, Gateway, Inherit, LearnedFrom, Limits, TunnelDscp, TunnelKind,
    TunnelTtl, default_mtu, denied,
};

pub(super) fn read_tenant(mut file: Section<'_>) -> (Option<Tenant>, Facts) {
    let mut facts = Facts::default();
    let name = file
        .require("name", "the tenant's name, as in name = \"red\"")
        .and_then(|node| node.text(Name::from_str));
    facts.vni = file
        .require("vni", "the tenant's virtual network, as in vni = 5001")
        .and_then(|node| node.integer(parse_vni));
    let gateway = file
        .require("gateway", "a [gateway] table with ipv4, ipv6 or both")
        .and_then(|node| node.section())
        .map(|section| read_gateway(section, &mut facts.gateway));
    facts.gateway.unreadable |= gateway.is_none();
    let uplink = file.get("uplink");
    // First, because it tells what the uplink needs.
    let tunnel = file
        .get("tunnel")
        .and_then(|node| node.section())
        .map(|section| read_tunnel(section, facts.tunnel.insert(rules::Tunnel::default())));
    let tunnel_facts = facts.tunnel.as_ref();
    let routed = tunnel_facts.is_none_or(|tunnel| tunnel.only == Some(false));
    facts.uplink.key = uplink.as_ref().map(|node| node.path.clone());
    let uplink = uplink
        .and_then(|node| node.section())
        .map(|section| read_uplink(section, routed, &mut facts.uplink));
    let nic = file.get("nic").and_then(|node| node.section());
    let nic = nic.map(read_nic).unwrap_or_default();
    let ports = read_ports(file.get("port"), &mut facts);
    file.finish();
    let tenant = || {
        Some(Tenant {
            name: name?,
            vni: facts.vni?,
            gateway: gateway?,
            uplink,
            tunnel: tunnel.map_or(Some(None), |tunnel| tunnel.map(Some))?,
            nic,
            ports: ports?,
        })
    };
    (tenant(), facts)
}

fn read_nic(mut section: Section<'_>) -> Nic {
    let accept = section.get("accept").map_or_else(Vec::new, |node| {
        node.list("an array of names of settings", |item| {
            item.text(NicAttribute::from_str)
        })
    });
    section.finish();
    Nic {
        accept: values(&accept).into_iter().collect(),
    }
}

fn read_gateway(mut section: Section<'_>, facts: &mut rules::Gateway) -> Gateway {
    facts.key = section.path.clone();
    let (ipv4, ipv6) = (section.get("ipv4"), section.get("ipv6"));
    let given = usize::from(ipv4.is_some()) + usize::from(ipv6.is_some());
    let ipv4 = ipv4.and_then(|node| node.read(|node| node.text(parse_ipv4_subnet)));
    let ipv6 = ipv6.and_then(|node| node.read(|node| node.text(parse_ipv6_subnet)));
    let gateway = Gateway {
        ipv4: ipv4.as_ref().map(|ipv4| ipv4.value),
        ipv6: ipv6.as_ref().map(|ipv6| ipv6.value),
    };
    facts.addresses.extend(ipv4.map(|ipv4| ipv4.map(IpNet::V4)));
    facts.addresses.extend(ipv6.map(|ipv6| ipv6.map(IpNet::V6)));
    facts.unreadable = facts.addresses.len() < given;
    section.finish();
    gateway
}

/// `routed`: there must be next hops.
fn read_uplink(mut section: Section<'_>, routed: bool, facts: &mut rules::Uplink) -> Uplink {
    let second = read_link(
        &mut section,
        (false, routed),
        (
            "address6",
            "the switch's own IPv6 address on the underlay with its prefix length, as in address6 = \"2001:db8::2/64\"",
        ),
        (
            "next_hop6",
            "the underlay's IPv6 router, as in next_hop6 = \"2001:db8::1\"",
        ),
        |text| parse_ipv6_subnet(text).map(IpNet::V6),
        |text| parse_ipv6_address(text).map(IpAddr::V6),
    );
    let first = read_link(
        &mut section,
        (second.is_none(), routed),
        (
            "address",
            "the switch's own address on the underlay with its prefix length, as in address = \"192.0.2.2/24\"",
        ),
        (
            "next_hop",
            "the underlay's router, as in next_hop = \"192.0.2.1\"",
        ),
        parse_subnet,
        parse_address,
    );
    let links = [first, second].into_iter().flatten();
    for link in links {
        facts.unreadable |= link.unreadable;
        let next_hop = link.next_hop;
        let link = link.address.map(|address| (address, next_hop));
        facts.links.extend(link);
    }
    let allow = section.get("allow");
    facts.allow = allow.map_or_else(Vec::new, |node| {
        node.list("an array of prefixes", |item| item.text(parse_prefix))
    });
    facts.mtu = section.get("mtu").and_then(|node| node.read(read_integer));
    section.finish();
    let mut uplink = Uplink {
        ipv4: None,
        ipv4_next_hop: None,
        ipv6: None,
        ipv6_next_hop: None,
        allow: values(&facts.allow),
        mtu: mtu(facts.mtu.as_ref()),
    };
    for (address, next_hop) in &facts.links {
        match address.value {
            IpNet::V4(address) => uplink.ipv4 = Some(address),
            IpNet::V6(address) => uplink.ipv6 = Some(address),
        }
        // One of the other family is outside the subnet: reported.
        match next_hop.as_ref().map(|next_hop| next_hop.value) {
            Some(IpAddr::V4(next_hop)) => uplink.ipv4_next_hop = Some(next_hop),
            Some(IpAddr::V6(next_hop)) => uplink.ipv6_next_hop = Some(next_hop),
            None => {}
        }
    }
    uplink
}

/// An address of the switch and the next hop on its link, as far as they could be read.
#[derive(Debug)]
struct Link {
    address: Option<At<IpNet>>,
    next_hop: Option<At<IpAddr>>,
    unreadable: bool,
}

/// An address of the switch and the next hop on its link: together if the link is `routed`; neither unless
/// the address is `required`.
fn read_link(
    section: &mut Section<'_>,
    (required, routed): (bool, bool),
    (address, address_expected): (&'static str, &'static str),
    (next_hop, next_hop_expected): (&'static str, &'static str),
    parse_address: impl FnOnce(&str) -> Result<IpNet, InvalidValue>,
    parse_next_hop: impl FnOnce(&str) -> Result<IpAddr, InvalidValue>,
) -> Option<Link> {
    let given = [
        section.get(address).is_some(),
        section.get(next_hop).is_some(),
    ];
    if !required && given == [false, false] {
        return None;
    }
    let address = section.require(address, address_expected);
    let next_hop = if routed {
        section.require(next_hop, next_hop_expected)
    } else {
        section.get(next_hop)
    };
    let address = address.and_then(|node| node.read(|node| node.text(parse_address)));
    let next_hop = next_hop.and_then(|node| node.read(|node| node.text(parse_next_hop)));
    Some(Link {
        unreadable: address.is_none() || (given[1] && next_hop.is_none()),
        address,
        next_hop,
    })
}

fn read_tunnel(mut section: Section<'_>, facts: &mut rules::Tunnel) -> Option<Tunnel> {
    facts.key = section.path.clone();
    let kind = section
        .require(
            "kind",
            "the encapsulation, kind = \"geneve\" or kind = \"vxlan\"",
        )
        .and_then(|node| node.text(parse_kind));
    let vtep = section.get("vtep");
    facts.vtep = vtep
        .as_ref()
        .and_then(|node| node.read(|node| node.text(parse_address)));
    facts.unreadable = vtep.is_some() && facts.vtep.is_none();
    facts.port = section.get("port").and_then(|node| node.read(read_integer));
    let ttl = section.get("ttl");
    let ttl = ttl.and_then(|node| read_or_inherit(&node, 1..=255, rules::TTL_EXPECTED));
    let dscp = section.get("dscp");
    let dscp = dscp.and_then(|node| read_or_inherit(&node, 0..=63, rules::DSCP_EXPECTED));
    let mut flag = |key| section.get(key).map(|node| node.flag());
    let udp_checksum = flag("udp_checksum").flatten();
    let mss_clamp = flag("mss_clamp").flatten().unwrap_or(false);
    facts.only = flag("only").unwrap_or(Some(false));
    let nested = section.get("nested");
    let nested = nested
        .and_then(|node| node.text(parse_encapsulation))
        .unwrap_or(denied());
    let peers = read_peers(section.get("peer"), facts);
    section.finish();
    let port = facts.port.as_ref();
    Some(Tunnel {
        kind: kind?,
        vtep: facts.vtep.as_ref().map(|vtep| vtep.value),
        // One that does not fit is never seen: the rules refuse it.
        port: port.and_then(|port| u16::try_from(port.value).ok()),
        ttl: ttl.map_or_else(TunnelTtl::default, |ttl| {
            ttl.map_or(TunnelTtl::Inherit(Inherit::Inherit), TunnelTtl::Fixed)
        }),
        dscp: dscp.map_or_else(TunnelDscp::default, |dscp| {
            dscp.map_or(TunnelDscp::Inherit(Inherit::Inherit), TunnelDscp::Fixed)
        }),
        udp_checksum,
        nested,
        mss_clamp,
        only: facts.only?,
        peers: peers?,
    })
}

fn read_peers(node: Option<Node<'_>>, facts: &mut rules::Tunnel) -> Option<Vec<Peer>> {
    let Some(node) = node else {
        return Some(Vec::new());
    };
    let items = node.items("an array of tables, each under its own [[tunnel.peer]]")?;
    facts.listed = Some(At::new(node.path.clone(), items.len()));
    let peers: Vec<_> = items
        .iter()
        .map(|item| {
            let (peer, fact) = item.section().map_or_else(Default::default, read_peer);
            facts.peers.push(fact);
            peer
        })
        .collect();
    peers.into_iter().collect()
}

fn read_peer(mut section: Section<'_>) -> (Option<Peer>, rules::Peer) {
    let name = section.require("name", "the peer's name, as in name = \"host-b\"");
    let vtep = section.require(
        "vtep",
        "the peer's tunnel endpoint, as in vtep = \"192.0.2.66\"",
    );
    let prefixes = section.require(
        "prefixes",
        "the addresses and prefixes behind the peer, as in prefixes = [\"10.0.0.71\", \"10.0.8.0/24\"]",
    );
    let mac = section.get("mac");
    let next_hop = section.get("next_hop");
    let routed = next_hop.is_some();
    let mut facts = rules::Peer {
        key: section.path.clone(),
        name: name.and_then(|node| node.read(|node| node.text(Name::from_str))),
        vtep: vtep.and_then(|node| node.read(|node| node.text(parse_address))),
        mac: mac.and_then(|node| node.read(|node| node.text(MacAddr::from_str))),
        next_hop: next_hop.and_then(|node| node.read(|node| node.text(parse_address))),
        ..Default::default()
    };
    facts.unreadable = routed && facts.next_hop.is_none();
    let items = prefixes.and_then(|node| node.items("an array of addresses and prefixes"));
    for (index, item) in (0..).zip(items.iter().flatten()) {
        facts.listed += 1;
        let prefix = item.text(parse_prefix);
        facts.prefixes.extend(prefix.map(|prefix| (index, prefix)));
    }
    section.finish();
    let peer = || {
        Some(Peer {
            name: facts.name.as_ref()?.value.clone(),
            vtep: facts.vtep.as_ref()?.value,
            prefixes: facts.prefixes.iter().map(|(_, prefix)| *prefix).collect(),
            mac: facts.mac.as_ref().map(|mac| mac.value),
            next_hop: facts.next_hop.as_ref().map(|next_hop| next_hop.value),
        })
    };
    (peer(), facts)
}

/// A number within `range`, or the word `"inherit"`, which is `None`.
fn read_or_inherit(
    node: &Node<'_>,
    range: RangeInclusive<u8>,
    expected: &'static str,
) -> Option<Option<u8>> {
    match node.as_text() {
        Some("inherit") => Some(None),
        Some(text) => node.fail(InvalidValue::new(text, expected).into()),
        None => node.integer(|number| {
            let fits = u8::try_from(number)
                .ok()
                .filter(|number| range.contains(number));
            fits.map(Some)
                .ok_or_else(|| InvalidValue::new(number, expected))
        }),
    }
}

fn read_ports(node: Option<Node<'_>>, facts: &mut Facts) -> Option<Vec<Port>> {
    facts.ports_key = Some(KeyPath::of("port"));
    let Some(node) = node else {
        return Some(Vec::new());
    };
    let Some(items) = node.items("an array of tables, each under its own [[port]]") else {
        facts.ports_key = None;
        return None;
    };
    let ports: Vec<_> = items
        .iter()
        .map(|item| {
            let (port, fact) = item.section().map_or_else(Default::default, read_port);
            facts.ports.push(fact);
            port
        })
        .collect();
    ports.into_iter().collect()
}

fn read_port(mut section: Section<'_>) -> (Option<Port>, rules::Port) {
    let name = section.require("name", "the port's name, as in name = \"red-vm1\"");
    let mac = section.require("mac", "the VM's MAC, as in mac = \"52:54:00:aa:00:01\"");
    let mut facts = rules::Port {
        name: name.and_then(|node| node.read(|node| node.text(Name::from_str))),
        mac: mac.and_then(|node| node.read(|node| node.text(MacAddr::from_str))),
        ..Default::default()
    };
    let addresses = section
        .require("addresses", "the IP sources the VM may use, as in addresses = [\"10.0.0.11\"], or addresses = \"learn-dhcp\"")
        .map(|node| read_addresses(&node, &mut facts));
    if let Some(node) = section.get("extra_macs") {
        facts.extra_macs = node.list("an array of MACs", |item| item.text(MacAddr::from_str));
    }
    if let Some(node) = section.get("trunk") {
        facts.trunk = node.list("an array of VLAN identifiers", |item| {
            item.integer(parse_vlan)
        });
    }
    let mut flag = |key| {
        section
            .get(key)
            .and_then(|node| node.flag())
            .unwrap_or(false)
    };
    facts.dhcp_server = flag("dhcp_server");
    let announce = flag("announce");
    let encapsulation = section.get("encapsulation");
    let encapsulation = encapsulation
        .and_then(|node| node.text(parse_encapsulation))
        .unwrap_or_default();
    facts.mtu = section.get("mtu").and_then(|node| node.read(read_integer));
    let rate_mbit = section.get("rate_mbit").and_then(|node| read_rate(&node));
    let least = section.get("min_rate_mbit");
    let min_rate_mbit = least.as_ref().and_then(read_rate);
    if let (Some(node), Some(min), Some(max)) = (&least, min_rate_mbit, rate_mbit)
        && min > max
    {
        node.fail::<()>(InvalidValue::new(min, "at most rate_mbit").into());
    }
    let limits = section.get("limits").and_then(|node| node.section());
    let limits = limits
        .map(|section| read_limits(section, &mut facts))
        .unwrap_or_default();
    section.finish();
    let port = || {
        Some(Port {
            name: facts.name.as_ref()?.value.clone(),
            mac: facts.mac.as_ref()?.value,
            extra_macs: values(&facts.extra_macs),
            addresses: addresses?,
            trunk: values(&facts.trunk),
            dhcp_server: facts.dhcp_server,
            announce,
            encapsulation,
            mtu: mtu(facts.mtu.as_ref()),
            rate_mbit,
            min_rate_mbit,
            limits,
        })
    };
    (port(), facts)
}

fn read_rate(node: &Node<'_>) -> Option<u32> {
    node.integer(|rate| match u32::try_from(rate) {
        Ok(mbit @ 1..=4_000_000) => Ok(mbit),
        _ => Err(InvalidValue::new(
            rate,
            "a rate from 1 to 4000000 Mbit a second",
        )),
    })
}

fn read_addresses(node: &Node<'_>, facts: &mut rules::Port) -> Addresses {
    const EXPECTED: &str = "an array of addresses and prefixes, or \"learn-dhcp\"";
    match node.as_text() {
        Some("learn-dhcp") => {
            facts.learned = Some(node.path.clone());
            return Addresses::Learned(LearnedFrom::Dhcp);
        }
        Some(text) => {
            let problem = InvalidValue::new(text, EXPECTED).into();
            node.fail::<()>(problem);
        }
        None => {
            let items = node.items(EXPECTED);
            facts.listed = node.read(|_| Some(items.as_ref()?.len()));
            facts.addresses = items
                .iter()
                .flatten()
                .filter_map(|item| item.read(|item| item.text(parse_prefix)))
                .collect();
        }
    }
    Addresses::Static(values(&facts.addresses))
}

fn read_limits(mut section: Section<'_>, facts: &mut rules::Port) -> Limits {
    let mut rate = |key, max: i64, expected| {
        let node = section.get(key)?;
        let limit = node.read(|node| {
            node.integer(|rate| match u64::try_from(rate) {
                Ok(limit) if rate <= max => Ok(limit),
                _ => Err(InvalidValue::new(rate, expected)),
            })
        })?;
        let rate = limit.value;
        facts.limits.push(limit);
        Some(rate)
    };
    let mut frames = |key| {
        let rate = rate(
            key,
            u32::MAX.into(),
            "a rate from 1 to 4294967295 frames a second",
        )?;
        u32::try_from(rate).ok()
    };
    let limits = Limits {
        broadcast_pps: frames("broadcast_pps"),
        arp_nd_pps: frames("arp_nd_pps"),
        dhcp_pps: frames("dhcp_pps"),
        pps: frames("pps"),
        bps: rate("bps", i64::MAX, "a rate of at least 1 bit a second"),
    };
    section.finish();
    limits
}

fn read_integer(node: &Node<'_>) -> Option<i64> {
    node.integer(Ok::<_, InvalidValue>)
}

/// The MTU that was read and that the rules accept; otherwise it is never seen.
fn mtu(written: Option<&At<i64>>) -> u16 {
    written
        .and_then(|mtu| u16::try_from(mtu.value).ok())
        .unwrap_or(default_mtu())
}

fn values<T: Clone>(facts: &[At<T>]) -> Vec<T> {
    facts.iter().map(|fact| fact.value.clone()).collect()
}

fn parse_vni(value: i64) -> Result<Vni, Problem> {
    u32::try_from(value)
        .ok()
        .and_then(|value| Vni::new(value).ok())
        .ok_or(Problem::VniRange { value })
}

fn parse_vlan(value: i64) -> Result<VlanId, Problem> {
    u16::try_from(value)
        .ok()
        .and_then(|value| VlanId::new(value).ok())
        .ok_or(Problem::VlanRange { value })
}

fn parse_encapsulation(text: &str) -> Result<Encapsulation, InvalidValue> {
    match text {
        "allow" => Ok(Encapsulation::Allow),
        "deny" => Ok(Encapsulation::Deny),
        _ => Err(InvalidValue::new(text, "\"allow\" or \"deny\"")),
    }
}

fn parse_kind(text: &str) -> Result<TunnelKind, InvalidValue> {
    match text {
        "geneve" => Ok(TunnelKind::Geneve),
        "vxlan" => Ok(TunnelKind::Vxlan),
        _ => Err(InvalidValue::new(text, "\"geneve\" or \"vxlan\"")),
    }
}

fn parse_as<T: FromStr>(text: &str, expected: &'static str) -> Result<T, InvalidValue> {
    text.parse().map_err(|_| InvalidValue::new(text, expected))
}

fn parse_subnet(text: &str) -> Result<IpNet, InvalidValue> {
    parse_as(
        text,
        "an address with its prefix length, as in 192.0.2.2/24",
    )
}

fn parse_ipv4_subnet(text: &str) -> Result<Ipv4Net, InvalidValue> {
    parse_as(
        text,
        "an IPv4 address with its prefix length, as in 10.0.0.1/24",
    )
}

fn parse_ipv6_subnet(text: &str) -> Result<Ipv6Net, InvalidValue> {
    parse_as(
        text,
        "an IPv6 address with its prefix length, as in fd00:0:0:1::1/64",
    )
}

fn parse_address(text: &str) -> Result<IpAddr, InvalidValue> {
    parse_as(text, "an IP address, as in 192.0.2.1")
}

fn parse_ipv6_address(text: &str) -> Result<Ipv6Addr, InvalidValue> {
    parse_as(text, "an IPv6 address, as in 2001:db8::1")
}

/// A prefix, or one address as the prefix that holds nothing else.
fn parse_prefix(text: &str) -> Result<IpNet, InvalidValue> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => parse_as(
            text,
            "an IP address or prefix, as in 10.0.0.11 or 10.0.0.16/28",
        ),
    }
}
