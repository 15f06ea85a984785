//! `[gateway.dns]`: the names of the tenant's own ports, for which the gateway answers, and the
//! resolvers that it asks for others.

use std::net::IpAddr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Facts;
use crate::addr::DomainName;
use crate::document::Section;
use crate::error::Report;
use crate::key::{At, KeyPath, elements, values};
use crate::problem::Problem;
use crate::subnet::{edge_role, not_unicast, parse_address};

/// The most resolvers that a gateway asks.
pub const MAX_RESOLVERS: usize = 4;

/// Whether the gateway answers DNS queries for the names of the tenant's ports, and whom it asks
/// for others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Dns {
    /// Whether the gateway answers.
    pub enabled: bool,
    /// The domain that the ports' names are in; by default the tenant's name and `internal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainName>,
    /// The resolvers on the underlay that are asked for all other names; none by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub forward: Vec<IpAddr>,
}

/// What the rules take of it.
#[derive(Debug, Default)]
pub(crate) struct DnsFacts {
    /// Absent if it could not be read.
    enabled: Option<bool>,
    forward: Vec<At<IpAddr>>,
}

impl Dns {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn read(mut section: Section<'_>) -> (Self, DnsFacts) {
        let enabled = section.get("enabled");
        let enabled = match enabled {
            Some(node) => node.flag(),
            None => Some(false),
        };
        let domain = section.get("domain");
        let domain = domain.and_then(|node| node.text(DomainName::from_str));
        let forward = section.get("forward").map_or_else(Vec::new, |node| {
            node.list("an array of IP addresses", |item| item.text(parse_address))
        });
        section.finish();
        let dns = Self {
            enabled: enabled.unwrap_or_default(),
            domain,
            forward: values(&forward),
        };
        (dns, DnsFacts { enabled, forward })
    }

    pub(crate) fn check_lengths(&self, table: &KeyPath, report: &Report) {
        report.bound(&table.key("forward"), self.forward.len(), MAX_RESOLVERS);
    }

    pub(super) fn facts(&self, table: &KeyPath) -> DnsFacts {
        DnsFacts {
            enabled: Some(self.enabled),
            forward: elements(&table.key("forward"), &self.forward),
        }
    }
}

impl DnsFacts {
    pub(super) fn check(&self, facts: &Facts, report: &Report) {
        report.bound_elements(&self.forward, MAX_RESOLVERS);
        for (index, resolver) in self.forward.iter().enumerate() {
            let earlier = &self.forward[..index];
            let problem = match earlier.iter().find(|it| it.value == resolver.value) {
                Some(other) => {
                    let (resolver, other_key) = (resolver.value, other.key.to_string());
                    let problem = DnsProblem::ResolverRepeated {
                        resolver,
                        other_key,
                    };
                    Some(problem.into())
                }
                None => self.problem(resolver.value, facts),
            };
            if let Some(problem) = problem {
                report.add(&resolver.key, problem);
            }
        }
    }

    /// The error of one resolver, if any.
    fn problem(&self, resolver: IpAddr, facts: &Facts) -> Option<Problem> {
        if self.enabled == Some(false) {
            return Some(DnsProblem::ForwardDisabled.into());
        }
        if let Some(what) = not_unicast(resolver) {
            let address = resolver.to_string();
            return Some(Problem::NotUnicast { address, what });
        }
        let uplink = &facts.uplink;
        if uplink.key.is_none() {
            return Some(DnsProblem::ForwardWithoutUplink.into());
        }
        let tunnel = facts.tunnel.as_ref();
        if tunnel.and_then(|tunnel| tunnel.only) == Some(true) {
            return Some(DnsProblem::ForwardOnly.into());
        }
        let problem = |what: &'static str, other_key: &KeyPath| {
            let other_key = other_key.to_string();
            let problem = DnsProblem::ResolverAddress {
                resolver,
                what,
                other_key,
            };
            Some(problem.into())
        };
        let mut links = uplink.links.iter();
        if let Some((own, _)) = links.find(|(own, _)| own.value.addr() == resolver) {
            return problem("the switch's own address", &own.key);
        }
        let mut subnets = facts.gateway.addresses.iter();
        if let Some(own) = subnets.find(|own| own.value.contains(&resolver)) {
            return problem("in the gateway's subnet", &own.key);
        }
        let mut destinations = facts.ports.iter().flat_map(|port| port.destinations());
        if let Some(net) = destinations.find(|net| net.value.contains(&resolver)) {
            return problem("at or behind a port", &net.key);
        }
        for peer in tunnel.iter().flat_map(|tunnel| &tunnel.peers) {
            if let Some(end) = peer.endpoints().find(|end| end.value == resolver) {
                return problem("a peer's tunnel endpoint", &end.key);
            }
            let mut prefixes = peer.prefixes.iter();
            if let Some((index, _)) = prefixes.find(|(_, net)| net.contains(&resolver)) {
                return problem("behind a peer", &peer.prefix_key(*index));
            }
        }
        let Some((own, next_hop)) = uplink.link_of(resolver) else {
            let family = if resolver.is_ipv4() { "IPv4" } else { "IPv6" };
            let problem = DnsProblem::ResolverFamily { resolver, family };
            return (!uplink.unreadable).then(|| problem.into());
        };
        let subnet = own.value.trunc();
        if let Some(role) = edge_role(subnet, resolver) {
            let address = resolver.to_string();
            return Some(Problem::ReservedAddress {
                address,
                role,
                subnet,
            });
        }
        let unreachable = next_hop.is_none() && !subnet.contains(&resolver) && !uplink.unreadable;
        unreachable.then(|| DnsProblem::ResolverUnreachable { resolver }.into())
    }
}

/// An error in `[gateway.dns]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DnsProblem {
    /// Resolvers of a gateway that answers no query.
    #[error("forward has no effect without enabled = true; write that, or leave it out")]
    ForwardDisabled,
    /// Resolvers of a tenant without an uplink.
    #[error("resolvers are asked by the uplink, and there is none; add [uplink], or leave it out")]
    ForwardWithoutUplink,
    /// Resolvers of a tenant that reaches nothing but its peers.
    #[error(
        "resolvers are asked by the uplink, by which the tenant reaches nothing with tunnel.only \
         = true; leave forward out"
    )]
    ForwardOnly,
    /// A resolver that is not on the underlay, or of the tunnel.
    #[error(
        "{resolver} is {what} ({other_key}); a resolver is a station of the underlay or beyond it"
    )]
    ResolverAddress {
        /// The resolver.
        resolver: IpAddr,
        /// What the address is.
        what: &'static str,
        /// Where that is written.
        other_key: String,
    },
    /// A resolver of a family that the uplink lacks.
    #[error("{resolver} is {family}, but the uplink has no {family} address to ask it from")]
    ResolverFamily {
        /// The resolver.
        resolver: IpAddr,
        /// `IPv4` or `IPv6`.
        family: &'static str,
    },
    /// A resolver to which the uplink knows no way.
    #[error(
        "{resolver} is not on the uplink's own link, and the uplink has no next hop towards it"
    )]
    ResolverUnreachable {
        /// The resolver.
        resolver: IpAddr,
    },
    /// A resolver that is written twice.
    #[error("{resolver} is {other_key} too; write it once")]
    ResolverRepeated {
        /// The resolver.
        resolver: IpAddr,
        /// Where it is written first.
        other_key: String,
    },
}
