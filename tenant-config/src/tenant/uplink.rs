//! `[uplink]`: the switch's side of the underlay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Facts;
use super::mtu::{self, default_mtu};
use crate::addr::{InvalidValue, MacAddr, Vni};
use crate::document::{Node, Section};
use crate::error::Report;
use crate::key::{At, KeyPath, elements, values};
use crate::problem::Problem;
use crate::subnet::{
    check_own_address, edge_role, host_bits, not_unicast, overlap, parse_address,
    parse_ipv6_address, parse_ipv6_subnet, parse_prefix, parse_subnet, same_family,
};
use crate::switch::Device;

/// The most prefixes of the underlay that a tenant may reach.
pub const MAX_ALLOWED: usize = 4096;

/// The In/Out side in a tenant file. At least one family is there, each with its next hop unless
/// the tenant reaches nothing but its peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[non_exhaustive]
pub struct Uplink {
    /// The switch's own address on the underlay, with its subnet, as in `192.0.2.2/24`. It may be
    /// an IPv6 address where there is no IPv4.
    #[serde(rename = "address", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ipv4: Option<Ipv4Net>,
    /// The router of the underlay, of the family of `address`.
    #[serde(rename = "next_hop", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IpAddr>")]
    pub ipv4_next_hop: Option<Ipv4Addr>,
    /// The switch's own IPv6 address on the underlay, with its subnet, as in `2001:db8::2/64`.
    #[serde(rename = "address6", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ipv6: Option<Ipv6Net>,
    /// The IPv6 router of the underlay; it may be a link-local address.
    #[serde(rename = "next_hop6", skip_serializing_if = "Option::is_none")]
    pub ipv6_next_hop: Option<Ipv6Addr>,
    /// Prefixes of the underlay that the tenant may reach; the rest of it is closed to the tenant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<String>>")]
    pub allow: Vec<IpNet>,
    /// Largest IP packet in bytes.
    #[schemars(default = "default_mtu", range(min = 576, max = 9216))]
    pub mtu: u16,
    /// Whether IPv4 packets of VMs without DF are fragmented that are larger than the uplink or a
    /// tunnel carries.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(default)]
    pub fragment: bool,
}

/// The In/Out side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UplinkConfig {
    /// The device of the In/Out side.
    pub device: Device,
    /// The In/Out side's MAC.
    pub mac: MacAddr,
    /// The switch's own IPv4 address on the underlay, with its subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ipv4: Option<Ipv4Net>,
    /// The switch's own IPv6 address on the underlay, with its subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ipv6: Option<Ipv6Net>,
    /// The routers towards external destinations.
    #[serde(default)]
    pub next_hops: NextHops,
    /// Prefixes of the underlay that the tenant may reach; the rest of it is closed to the tenant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub allow: Vec<IpNet>,
    /// Largest IP packet in bytes.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// Whether IPv4 packets of VMs without DF are fragmented that are larger than the uplink or a
    /// tunnel carries.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fragment: bool,
}

/// The routers of the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NextHops {
    /// For IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// For IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
}

/// The uplink, as far as it could be read.
#[derive(Debug, Default)]
pub(crate) struct UplinkFacts {
    /// The table, if there is one.
    pub(super) key: Option<KeyPath>,
    /// For each family the switch's own address and the next hop on its link.
    pub(super) links: Vec<(At<IpNet>, Option<At<IpAddr>>)>,
    /// Whether an address or next hop could not be read, so that an absent one may have been
    /// meant.
    pub(super) unreadable: bool,
    allow: Vec<At<IpNet>>,
    pub(super) mtu: Option<At<i64>>,
    /// The MAC of the In/Out side, if it is written; otherwise it follows from the VNI and the
    /// first address.
    mac: Option<MacAddr>,
}

impl Uplink {
    /// `routed`: next hops are required.
    pub(super) fn read(node: Option<Node<'_>>, routed: bool) -> (Option<Self>, UplinkFacts) {
        let mut facts = UplinkFacts {
            key: node.as_ref().map(|node| node.path.clone()),
            ..UplinkFacts::default()
        };
        let Some(mut section) = node.and_then(|node| node.section()) else {
            return (None, facts);
        };
        for link in read_links(&mut section, routed) {
            facts.unreadable |= link.unreadable;
            let next_hop = link.next_hop;
            let link = link.address.map(|address| (address, next_hop));
            facts.links.extend(link);
        }
        let allow = section.get("allow");
        facts.allow = allow.map_or_else(Vec::new, |node| {
            node.list("an array of prefixes", |item| item.text(parse_prefix))
        });
        facts.mtu = mtu::read(section.get("mtu"));
        let fragment = section.flag("fragment");
        section.finish();
        let mut uplink = Self {
            ipv4: None,
            ipv4_next_hop: None,
            ipv6: None,
            ipv6_next_hop: None,
            allow: values(&facts.allow),
            mtu: mtu::value(facts.mtu.as_ref()),
            fragment,
        };
        for (address, next_hop) in &facts.links {
            match address.value {
                IpNet::V4(address) => uplink.ipv4 = Some(address),
                IpNet::V6(address) => uplink.ipv6 = Some(address),
            }
            // A next hop of the other family is outside the subnet, which the rules report.
            match next_hop.as_ref().map(|next_hop| next_hop.value) {
                Some(IpAddr::V4(next_hop)) => uplink.ipv4_next_hop = Some(next_hop),
                Some(IpAddr::V6(next_hop)) => uplink.ipv6_next_hop = Some(next_hop),
                None => {}
            }
        }
        (Some(uplink), facts)
    }

    /// The MAC of the In/Out side.
    ///
    /// # Panics
    /// If there is no address, which no checked tenant's uplink lacks.
    pub fn mac(&self, vni: Vni) -> MacAddr {
        MacAddr::of_uplink(vni, self.first_address())
    }

    /// The switch's own address on the underlay: the IPv4 one if there are two.
    pub(super) fn first_address(&self) -> IpAddr {
        let ipv4 = self.ipv4.map(|net| IpAddr::V4(net.addr()));
        let own = ipv4.or_else(|| Some(self.ipv6?.addr().into()));
        own.expect("an uplink has an address")
    }

    /// The station on the uplink's link that takes packets for `address`: the address itself if it
    /// is on-link, or else the router.
    pub(super) fn next_hop_to(&self, address: IpAddr) -> Option<IpAddr> {
        let routers = NextHops {
            ipv4: self.ipv4_next_hop,
            ipv6: self.ipv6_next_hop,
        };
        routers.towards(address, (self.ipv4, self.ipv6))
    }

    /// The switch's own addresses on the underlay with their keys.
    pub(super) fn addresses(&self) -> impl Iterator<Item = At<IpNet>> {
        let table = KeyPath::of("uplink");
        let ipv4 = self
            .ipv4
            .map(|net| At::new(table.key("address"), net.into()));
        let ipv6 = self.ipv6.map(|net| {
            // Without an IPv4 address it may be written under either key.
            let key = match self.ipv4 {
                Some(_) => table.key("address6"),
                None => table.clone(),
            };
            At::new(key, net.into())
        });
        ipv4.into_iter().chain(ipv6)
    }

    pub(super) fn config(&self, vni: Vni, device: Device) -> UplinkConfig {
        UplinkConfig {
            device,
            mac: self.mac(vni),
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            next_hops: NextHops {
                ipv4: self.ipv4_next_hop,
                ipv6: self.ipv6_next_hop,
            },
            allow: self.allow.clone(),
            mtu: self.mtu,
            fragment: self.fragment,
        }
    }
}

/// An address of the switch and the next hop on its link, as far as they could be read.
#[derive(Debug)]
struct Link {
    address: Option<At<IpNet>>,
    next_hop: Option<At<IpAddr>>,
    unreadable: bool,
}

fn read_links(section: &mut Section<'_>, routed: bool) -> impl Iterator<Item = Link> + use<> {
    let second = read_link(
        section,
        (false, routed),
        (
            "address6",
            "the switch's own IPv6 address on the underlay with its prefix length, \
             as in address6 = \"2001:db8::2/64\"",
        ),
        (
            "next_hop6",
            "the underlay's IPv6 router, as in next_hop6 = \"2001:db8::1\"",
        ),
        |text| parse_ipv6_subnet(text).map(IpNet::V6),
        |text| parse_ipv6_address(text).map(IpAddr::V6),
    );
    let first = read_link(
        section,
        (second.is_none(), routed),
        (
            "address",
            "the switch's own address on the underlay with its prefix length, \
             as in address = \"192.0.2.2/24\"",
        ),
        (
            "next_hop",
            "the underlay's router, as in next_hop = \"192.0.2.1\"",
        ),
        parse_subnet,
        parse_address,
    );
    [first, second].into_iter().flatten()
}

/// Reads an address and its next hop. A `required` address must be there; with `routed`, an address
/// and a next hop need each other.
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

impl NextHops {
    /// The station that takes packets for `address` on a link with these subnets.
    fn towards(
        &self,
        address: IpAddr,
        (ipv4, ipv6): (Option<Ipv4Net>, Option<Ipv6Net>),
    ) -> Option<IpAddr> {
        let (on_link, router) = match address {
            IpAddr::V4(ip) => (
                ipv4.is_some_and(|net| net.contains(&ip)),
                self.ipv4.map(IpAddr::V4),
            ),
            IpAddr::V6(ip) => (
                ipv6.is_some_and(|net| net.contains(&ip)),
                self.ipv6.map(IpAddr::V6),
            ),
        };
        if on_link { Some(address) } else { router }
    }
}

impl UplinkConfig {
    /// The station on the uplink's link that takes packets for `address`: the address itself if it
    /// is on-link, or else the router.
    pub fn next_hop_to(&self, address: IpAddr) -> Option<IpAddr> {
        self.next_hops.towards(address, (self.ipv4, self.ipv6))
    }

    /// The switch's own address of the family of `address`.
    pub fn own_address_for(&self, address: IpAddr) -> Option<IpAddr> {
        let mut own = self.own_addresses();
        own.find(|own| own.is_ipv4() == address.is_ipv4())
    }

    /// An uplink without an address; every other key has its default, and the device is offline.
    pub fn new(mac: MacAddr) -> Self {
        Self {
            device: Device::Offline,
            mac,
            ipv4: None,
            ipv6: None,
            next_hops: NextHops::default(),
            allow: Vec::new(),
            mtu: default_mtu(),
            fragment: false,
        }
    }

    /// The switch's own addresses on the underlay.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let ipv4 = self.ipv4.map(|net| IpAddr::V4(net.addr()));
        let ipv6 = self.ipv6.map(|net| IpAddr::V6(net.addr()));
        ipv4.into_iter().chain(ipv6)
    }

    pub(crate) fn check_lengths(&self, table: &KeyPath, report: &Report) {
        report.bound(&table.key("allow"), self.allow.len(), MAX_ALLOWED);
    }

    /// Checks that there is an address, and one for each next hop's family.
    pub(crate) fn check_families(&self, table: &KeyPath, report: &Report) {
        let hops = &self.next_hops;
        let lacks_ipv4 = self.ipv4.is_none() && (hops.ipv4.is_some() || self.ipv6.is_none());
        let lacks_ipv6 = self.ipv6.is_none() && hops.ipv6.is_some();
        for (key, lacks) in [("ipv4", lacks_ipv4), ("ipv6", lacks_ipv6)] {
            if lacks {
                let expected = "the switch's own address of that family, with its prefix length";
                report.add(&table.key(key), Problem::MissingKey { expected });
            }
        }
    }

    pub(crate) fn facts(&self, table: &KeyPath) -> UplinkFacts {
        let hops = table.key("next_hops");
        let link = |key: &str, address: Option<IpNet>, hop: Option<IpAddr>| {
            let hop = hop.map(|hop| At::new(hops.key(key), hop));
            address.map(|address| (At::new(table.key(key), address), hop))
        };
        let ipv4 = self.next_hops.ipv4.map(IpAddr::V4);
        let ipv4 = link("ipv4", self.ipv4.map(IpNet::V4), ipv4);
        let ipv6 = self.next_hops.ipv6.map(IpAddr::V6);
        let ipv6 = link("ipv6", self.ipv6.map(IpNet::V6), ipv6);
        UplinkFacts {
            key: Some(table.clone()),
            links: ipv4.into_iter().chain(ipv6).collect(),
            unreadable: false,
            allow: elements(&table.key("allow"), &self.allow),
            mtu: Some(At::new(table.key("mtu"), self.mtu.into())),
            mac: Some(self.mac),
        }
    }
}

impl UplinkFacts {
    pub(super) fn own_addresses(&self) -> impl Iterator<Item = IpAddr> + Clone {
        self.links.iter().map(|(address, _)| address.value.addr())
    }

    /// Our link-local address, as far as it is known.
    pub(super) fn link_local(&self, facts: &Facts) -> Option<Ipv6Addr> {
        let mac = self.mac.or_else(|| {
            let first = self.own_addresses().find(IpAddr::is_ipv4);
            let first = first.or_else(|| self.own_addresses().next());
            let first = first.filter(|_| !self.unreadable);
            Some(MacAddr::of_uplink(facts.vni?, first?))
        });
        mac.map(MacAddr::link_local)
    }

    /// The subnet of our address of `own`'s family, and the next hop there.
    pub(super) fn link_of(&self, own: IpAddr) -> Option<(&At<IpNet>, &Option<At<IpAddr>>)> {
        let mut links = self.links.iter();
        let link = links.find(|(address, _)| address.value.addr().is_ipv4() == own.is_ipv4());
        link.map(|(address, next_hop)| (address, next_hop))
    }

    pub(super) fn check(&self, facts: &Facts, report: &Report) {
        self.check_links(facts, report);
        self.check_allow(facts, report);
        if let Some(mtu) = &self.mtu {
            mtu::check(mtu, self.links.iter().map(|(address, _)| address), report);
        }
    }

    fn check_links(&self, facts: &Facts, report: &Report) {
        if let [(first, _), (second, _)] = &self.links[..]
            && same_family(first.value, second.value)
        {
            report.add(&second.key, UplinkProblem::SecondIpv6);
        }
        for (address, next_hop) in &self.links {
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
                && let Some(problem) = self.next_hop_problem(next_hop.value, address, facts)
            {
                report.add(&next_hop.key, problem);
            }
        }
    }

    /// The error of a next hop on `link`, if any.
    pub(super) fn next_hop_problem(
        &self,
        next_hop: IpAddr,
        link: &At<IpNet>,
        facts: &Facts,
    ) -> Option<Problem> {
        let own = match (next_hop, link.value) {
            (IpAddr::V6(hop), IpNet::V6(_)) if hop.is_unicast_link_local() => {
                self.link_local(facts).map(IpAddr::V6)
            }
            _ => {
                if let Some(problem) = not_on_link(next_hop, link) {
                    return Some(problem);
                }
                Some(link.value.addr())
            }
        };
        (own == Some(next_hop)).then(|| {
            let next_hop = next_hop.to_string();
            UplinkProblem::NextHopSelf { next_hop }.into()
        })
    }

    fn check_allow(&self, facts: &Facts, report: &Report) {
        report.bound_elements(&self.allow, MAX_ALLOWED);
        let only = facts.tunnel.as_ref().and_then(|tunnel| tunnel.only);
        for allow in &self.allow {
            let prefix = allow.value;
            if prefix != prefix.trunc() {
                report.add(&allow.key, host_bits(prefix));
            } else if only == Some(true) {
                report.add(&allow.key, UplinkProblem::AllowOnly { prefix });
            } else if !self.links.is_empty()
                && !self
                    .links
                    .iter()
                    .any(|(address, _)| address.value.contains(&prefix))
            {
                report.add(&allow.key, UplinkProblem::AllowOutside { prefix });
            }
        }
    }
}

/// The error of a next hop that is no other station's within the subnet of `link`.
fn not_on_link(next_hop: IpAddr, link: &At<IpNet>) -> Option<Problem> {
    let subnet = link.value.trunc();
    if let Some(what) = not_unicast(next_hop) {
        return Some(Problem::NotUnicast {
            address: next_hop.to_string(),
            what,
        });
    }
    if !subnet.contains(&next_hop) {
        let problem = UplinkProblem::NextHopOutside {
            next_hop: next_hop.to_string(),
            subnet,
            other_key: link.key.to_string(),
        };
        return Some(problem.into());
    }
    if next_hop == link.value.addr() {
        return None;
    }
    edge_role(subnet, next_hop).map(|role| Problem::ReservedAddress {
        address: next_hop.to_string(),
        role,
        subnet,
    })
}

/// An error in the uplink.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UplinkProblem {
    /// A second IPv6 address on the uplink.
    #[error("address is IPv6 already; write the IPv4 address as address, or leave address6 out")]
    SecondIpv6,
    /// A next hop that the uplink cannot reach.
    #[error(
        "{next_hop} is outside {subnet}, the subnet of {other_key}; the next hop must be on the \
         uplink's own link"
    )]
    NextHopOutside {
        /// The next hop.
        next_hop: String,
        /// The uplink's subnet.
        subnet: IpNet,
        /// Where the subnet is written.
        other_key: String,
    },
    /// A next hop that is the switch itself.
    #[error("{next_hop} is the switch's own address; write the router's")]
    NextHopSelf {
        /// The next hop.
        next_hop: String,
    },
    /// An `allow` without effect.
    #[error(
        "{prefix} is not within a subnet of the uplink, where alone allow has an effect; leave it \
         out (the rest of the world is reached by next_hop)"
    )]
    AllowOutside {
        /// The prefix.
        prefix: IpNet,
    },
    /// An `allow` of a tenant that reaches nothing but its peers.
    #[error(
        "{prefix} has no effect with tunnel.only = true, as the tenant reaches nothing but its \
         peers; leave it out"
    )]
    AllowOnly {
        /// The prefix.
        prefix: IpNet,
    },
}
