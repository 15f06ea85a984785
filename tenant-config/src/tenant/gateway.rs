//! `[gateway]`: the addresses that the switch answers for on every port.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dhcp::{Dhcp, DhcpFacts};
use super::dns::{Dns, DnsFacts};
use crate::addr::InvalidValue;
use crate::document::Node;
use crate::error::Report;
use crate::key::{At, KeyPath};
use crate::problem::Problem;
use crate::subnet::{check_own_address, parse_ipv4_subnet, parse_ipv6_subnet, same_family};

/// How the gateway tells VMs to come by their IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ipv6Autoconf {
    /// Not at all: they have what is configured in them.
    None,
    /// They form addresses from the prefix (RFC 4862).
    Slaac,
    /// By DHCPv6 of the gateway, or of a port of the tenant that is a DHCP server.
    #[default]
    Dhcpv6,
}

impl Ipv6Autoconf {
    fn parse(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "none" => Ok(Self::None),
            "slaac" => Ok(Self::Slaac),
            "dhcpv6" => Ok(Self::Dhcpv6),
            _ => Err(InvalidValue::new(text, "\"none\", \"slaac\" or \"dhcpv6\"")),
        }
    }

    /// Whether it is the default.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The gateway's addresses, each with the prefix that is on-link at every port, and its services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// IPv4 address and prefix length, as in `10.0.0.1/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ipv4: Option<Ipv4Net>,
    /// IPv6 address and prefix length, as in `fd00:0:0:1::1/64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ipv6: Option<Ipv6Net>,
    /// How VMs come by their IPv6 addresses.
    #[serde(default, skip_serializing_if = "Ipv6Autoconf::is_default")]
    pub ipv6_autoconf: Ipv6Autoconf,
    /// The gateway's own DHCP and DHCPv6 servers.
    #[serde(default, skip_serializing_if = "Dhcp::is_default")]
    pub dhcp: Dhcp,
    /// The names of the tenant's ports, and the resolvers for others.
    #[serde(default, skip_serializing_if = "Dns::is_default")]
    pub dns: Dns,
}

/// The gateway's addresses, as far as they could be read.
#[derive(Debug, Default)]
pub(crate) struct GatewayFacts {
    pub(super) key: KeyPath,
    pub(super) addresses: Vec<At<IpNet>>,
    /// Whether an address could not be read, so that an absent one may have been meant.
    pub(super) unreadable: bool,
    autoconf: Option<At<Ipv6Autoconf>>,
    dhcp: DhcpFacts,
    pub(super) dns: DnsFacts,
}

impl Gateway {
    pub(super) fn read(node: Option<Node<'_>>) -> (Option<Self>, GatewayFacts) {
        let mut facts = GatewayFacts {
            unreadable: true,
            ..GatewayFacts::default()
        };
        let Some(mut section) = node.and_then(|node| node.section()) else {
            return (None, facts);
        };
        facts.key = section.path.clone();
        let (ipv4, ipv6) = (section.get("ipv4"), section.get("ipv6"));
        let given = usize::from(ipv4.is_some()) + usize::from(ipv6.is_some());
        let ipv4 = ipv4.and_then(|node| node.read(|node| node.text(parse_ipv4_subnet)));
        let ipv6 = ipv6.and_then(|node| node.read(|node| node.text(parse_ipv6_subnet)));
        let autoconf = section.get("ipv6_autoconf");
        facts.autoconf = autoconf.and_then(|node| node.read(|node| node.text(Ipv6Autoconf::parse)));
        let dhcp = section.get("dhcp").and_then(|node| node.section());
        let (dhcp, dhcp_facts) = dhcp.map(Dhcp::read).unwrap_or_default();
        facts.dhcp = dhcp_facts;
        let dns = section.get("dns").and_then(|node| node.section());
        let (dns, dns_facts) = dns.map(Dns::read).unwrap_or_default();
        facts.dns = dns_facts;
        section.finish();
        let gateway = Self {
            ipv4: ipv4.as_ref().map(|ipv4| ipv4.value),
            ipv6: ipv6.as_ref().map(|ipv6| ipv6.value),
            ipv6_autoconf: facts
                .autoconf
                .as_ref()
                .map_or_else(Default::default, |it| it.value),
            dhcp,
            dns,
        };
        facts.addresses = gateway.addresses(&facts.key).collect();
        facts.unreadable = facts.addresses.len() < given;
        (Some(gateway), facts)
    }

    /// The addresses with their keys; `table` is the key of the gateway.
    pub(super) fn addresses(&self, table: &KeyPath) -> impl Iterator<Item = At<IpNet>> + use<> {
        let ipv4 = self
            .ipv4
            .map(|net| At::new(table.key("ipv4"), IpNet::V4(net)));
        let ipv6 = self
            .ipv6
            .map(|net| At::new(table.key("ipv6"), IpNet::V6(net)));
        ipv4.into_iter().chain(ipv6)
    }

    pub(crate) fn facts(&self, table: KeyPath) -> GatewayFacts {
        GatewayFacts {
            addresses: self.addresses(&table).collect(),
            autoconf: Some(At::new(table.key("ipv6_autoconf"), self.ipv6_autoconf)),
            dhcp: self.dhcp.facts(&table.key("dhcp")),
            dns: self.dns.facts(&table.key("dns")),
            key: table,
            unreadable: false,
        }
    }
}

/// The gateway's key for addresses of the family of `net`.
pub(super) const fn family_key(net: IpNet) -> &'static str {
    match net {
        IpNet::V4(_) => "ipv4",
        IpNet::V6(_) => "ipv6",
    }
}

impl GatewayFacts {
    /// The gateway's address of the family of `net`.
    pub(super) fn of_family(&self, net: IpNet) -> Option<IpNet> {
        let mut own = self.addresses.iter().map(|address| address.value);
        own.find(|own| same_family(*own, net))
    }

    /// The error of `address`, for which the gateway lacks the family. There is none if the
    /// gateway's own addresses could not be read, or if there are none at all.
    pub(super) fn missing(&self, address: String, ipv4: bool) -> Option<Problem> {
        let (family, key) = if ipv4 {
            ("IPv4", "ipv4")
        } else {
            ("IPv6", "ipv6")
        };
        let is_known = !self.unreadable && !self.addresses.is_empty();
        let problem = GatewayProblem::GatewayMissing {
            address,
            family,
            key,
        };
        is_known.then(|| problem.into())
    }

    /// Whether VMs form addresses from the gateway's prefix.
    pub(super) fn has_slaac(&self) -> bool {
        let autoconf = self.autoconf.as_ref();
        autoconf.is_some_and(|it| it.value == Ipv6Autoconf::Slaac)
    }

    /// A VM forms its addresses from a prefix of 64 bits (RFC 4862, RFC 7421).
    fn check_slaac(&self, report: &Report) {
        let Some(autoconf) = self.autoconf.as_ref().filter(|_| self.has_slaac()) else {
            return;
        };
        let mut nets = self.addresses.iter().map(|address| address.value);
        match nets.find(|net| net.addr().is_ipv6()) {
            Some(net) if net.prefix_len() != 64 => {
                let subnet = net.trunc();
                report.add(&autoconf.key, GatewayProblem::SlaacSubnet { subnet });
            }
            Some(_) => {}
            None => {
                if let Some(problem) = self.missing("slaac".to_owned(), false) {
                    report.add(&autoconf.key, problem);
                }
            }
        }
    }

    pub(super) fn check(&self, report: &Report) {
        if self.addresses.is_empty() && !self.unreadable {
            report.add(&self.key, GatewayProblem::GatewayEmpty);
        }
        for address in &self.addresses {
            check_own_address(address, report);
        }
        self.check_slaac(report);
        self.dhcp.check(self, report);
    }
}

/// An error in the gateway, or of an address for which it lacks the family.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GatewayProblem {
    /// A gateway without any address.
    #[error("the gateway has no address; write ipv4, ipv6 or both, as in ipv4 = \"10.0.0.1/24\"")]
    GatewayEmpty,
    /// SLAAC from a prefix of another length than VMs expect.
    #[error(
        "VMs form addresses from prefixes of 64 bits only, and the gateway's subnet is {subnet}; \
         choose another gateway.ipv6, or \"dhcpv6\" or \"none\""
    )]
    SlaacSubnet {
        /// The gateway's subnet.
        subnet: IpNet,
    },
    /// A port's address, or SLAAC, of a family that the gateway lacks.
    #[error("{address} is {family}, but the gateway has no {family} address; add gateway.{key}")]
    GatewayMissing {
        /// The address or prefix.
        address: String,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// The key to add.
        #[serde(skip)]
        key: &'static str,
    },
}
