//! Questions about addresses and subnets, and how they are written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::addr::InvalidValue;
use crate::error::Report;
use crate::key::At;
use crate::problem::Problem;

/// Checks an address of the switch itself and its subnet.
pub(crate) fn check_own_address(address: &At<IpNet>, report: &Report) {
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

/// Whether two subnets share an address.
pub(crate) fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other.trunc()) || other.contains(&one.trunc())
}

/// An address or prefix in its usual form: a single address without its length.
pub fn show(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// The error of the form of an address or prefix, if any: its bits behind the length, or what it
/// is for.
pub(crate) fn malformed(net: IpNet) -> Option<Problem> {
    if net != net.trunc() {
        return Some(host_bits(net));
    }
    let what = not_unicast(net.network()).or_else(|| not_unicast(net.broadcast()))?;
    let address = show(net);
    Some(Problem::NotUnicast { address, what })
}

pub(crate) fn host_bits(net: IpNet) -> Problem {
    Problem::HostBits {
        address: net,
        network: net.trunc(),
    }
}

/// The error of an address or prefix that is or contains `address`, which `subnet` reserves.
pub(crate) fn reserved(net: IpNet, address: IpAddr, role: &'static str, subnet: IpNet) -> Problem {
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

pub(crate) fn same_family(one: IpNet, other: IpNet) -> bool {
    one.addr().is_ipv4() == other.addr().is_ipv4()
}

/// The purpose for which `subnet` reserves an address at its edge. A subnet of two addresses
/// reserves none (RFC 3021, RFC 6164).
pub(crate) fn edge_role(subnet: IpNet, address: IpAddr) -> Option<&'static str> {
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

/// The kind of an address that is not a unicast address of a routed network.
pub(crate) fn not_unicast(address: IpAddr) -> Option<&'static str> {
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

fn parse_as<T: FromStr>(text: &str, expected: &'static str) -> Result<T, InvalidValue> {
    text.parse().map_err(|_| InvalidValue::new(text, expected))
}

pub(crate) fn parse_subnet(text: &str) -> Result<IpNet, InvalidValue> {
    parse_as(
        text,
        "an address with its prefix length, as in 192.0.2.2/24",
    )
}

pub(crate) fn parse_ipv4_subnet(text: &str) -> Result<Ipv4Net, InvalidValue> {
    parse_as(
        text,
        "an IPv4 address with its prefix length, as in 10.0.0.1/24",
    )
}

pub(crate) fn parse_ipv6_subnet(text: &str) -> Result<Ipv6Net, InvalidValue> {
    parse_as(
        text,
        "an IPv6 address with its prefix length, as in fd00:0:0:1::1/64",
    )
}

pub(crate) fn parse_address(text: &str) -> Result<IpAddr, InvalidValue> {
    parse_as(text, "an IP address, as in 192.0.2.1")
}

pub(crate) fn parse_ipv4_address(text: &str) -> Result<Ipv4Addr, InvalidValue> {
    parse_as(text, "an IPv4 address, as in 192.0.2.1")
}

pub(crate) fn parse_ipv6_address(text: &str) -> Result<Ipv6Addr, InvalidValue> {
    parse_as(text, "an IPv6 address, as in 2001:db8::1")
}

pub(crate) fn parse_ipv4_prefix(text: &str) -> Result<Ipv4Net, InvalidValue> {
    match text.parse::<Ipv4Addr>() {
        Ok(address) => Ok(Ipv4Net::from(address)),
        Err(_) => parse_as(
            text,
            "an IPv4 address or prefix, as in 192.0.2.9 or 172.16.0.0/12",
        ),
    }
}

/// A prefix, or one address as the prefix of only that address.
pub(crate) fn parse_prefix(text: &str) -> Result<IpNet, InvalidValue> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => parse_as(
            text,
            "an IP address or prefix, as in 10.0.0.11 or 10.0.0.16/28",
        ),
    }
}
