//! `[gateway.dhcp]`: what the gateway's own DHCP server tells the VMs beside their addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::addresses::AddressProblem;
use super::gateway::GatewayFacts;
use crate::addr::{DomainName, InvalidValue, numeric, text, textual};
use crate::document::{Node, Section};
use crate::error::Report;
use crate::key::{At, KeyPath, elements, values};
use crate::problem::Problem;
use crate::subnet::{
    edge_role, host_bits, not_unicast, parse_address, parse_ipv4_address, parse_ipv4_prefix,
    reserved,
};

/// The most DNS servers, NTP servers and search domains, each.
pub const MAX_DHCP_LIST: usize = 8;
/// The most routes: with a default route they fit into one option.
pub const MAX_DHCP_ROUTES: usize = 24;
/// The most bytes of an option.
const MAX_OPTION: usize = 255;

/// What the gateway's DHCP and DHCPv6 servers tell VMs beside their addresses. They serve unless
/// they are disabled, or a port of the tenant is a DHCP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Dhcp {
    /// Whether the gateway serves DHCP and DHCPv6.
    pub enabled: bool,
    /// DNS servers, the preferred one first. VMs learn each by its family's protocol, those of IPv6
    /// by Router Advertisements too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// The domain of the VMs' names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainName>,
    /// Domains in which resolvers look for short names, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<DomainName>,
    /// NTP servers, the preferred one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ntp: Vec<IpAddr>,
    /// IPv4 routes beside the default route, which leads to the gateway.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<DhcpRoute>,
    /// How long a lease lasts, in seconds.
    pub lease_s: LeaseSeconds,
    /// The TFTP server from which VMs boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tftp_server: Option<BootServer>,
    /// The file that VMs boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_file: Option<BootFile>,
    /// The file that VMs boot that run iPXE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipxe_boot_file: Option<BootFile>,
}

/// One route that VMs are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DhcpRoute {
    /// The destinations.
    #[schemars(with = "String")]
    pub to: Ipv4Net,
    /// The router, in the gateway's subnet.
    pub via: Ipv4Addr,
}

/// The duration of a lease in seconds: 10 to 604800, a week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u32", into = "u32")]
#[schemars(extend("minimum" = 10, "maximum" = 604_800))]
pub struct LeaseSeconds(u32);

impl LeaseSeconds {
    /// Checks that it is neither too short to be renewed nor longer than a week.
    pub fn new(seconds: u32) -> Result<Self, InvalidValue> {
        match seconds {
            10..=604_800 => Ok(Self(seconds)),
            _ => Err(InvalidValue::new(seconds, Self::EXPECTED)),
        }
    }

    const EXPECTED: &str = "a duration from 10 to 604800 seconds";

    /// The seconds.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// An hour: VMs learn of a change within half of it, and hardly send anything.
impl Default for LeaseSeconds {
    fn default() -> Self {
        Self(3600)
    }
}
numeric!(LeaseSeconds(u32));

/// A server's IPv4 address, or its DNS name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("maxLength" = 253))]
pub enum BootServer {
    /// Its address.
    Address(Ipv4Addr),
    /// Its name, which boot ROMs do not resolve.
    Name(DomainName),
}

impl fmt::Display for BootServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => fmt::Display::fmt(address, out),
            Self::Name(name) => fmt::Display::fmt(name, out),
        }
    }
}

impl fmt::Debug for BootServer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for BootServer {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let name = || DomainName::from_str(text).map(Self::Name);
        let server = text.parse().map(Self::Address).or_else(|_| name());
        server.map_err(|_| InvalidValue::new(text, "an IPv4 address or a DNS name"))
    }
}

/// The name of a file to boot, or its URL: 1 to 127 printable ASCII characters without a space.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[!-~]{1,127}$"))]
pub struct BootFile(String);

impl FromStr for BootFile {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let good = (1..=127).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_graphic());
        if !good {
            return Err(InvalidValue::new(
                text,
                "a file's name or URL of 1 to 127 printable ASCII characters without a space",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}
textual!(BootServer, BootFile);
text!(BootFile);

impl Default for Dhcp {
    fn default() -> Self {
        Self {
            enabled: true,
            dns: Vec::new(),
            domain: None,
            search: Vec::new(),
            ntp: Vec::new(),
            routes: Vec::new(),
            lease_s: LeaseSeconds::default(),
            tftp_server: None,
            boot_file: None,
            ipxe_boot_file: None,
        }
    }
}

/// The values of `[gateway.dhcp]` that rules judge.
#[derive(Debug, Default)]
pub(crate) struct DhcpFacts {
    dns: Vec<At<IpAddr>>,
    ntp: Vec<At<IpAddr>>,
    tftp_server: Option<At<BootServer>>,
    search: Vec<At<DomainName>>,
    /// Where the routes lead to and by way of whom.
    routes: Vec<(At<Ipv4Net>, At<Ipv4Addr>)>,
}

impl Dhcp {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn read(mut section: Section<'_>) -> (Self, DhcpFacts) {
        let enabled = section.get("enabled").and_then(|node| node.flag());
        let addresses =
            |node: Node<'_>| node.list("an array of IP addresses", |item| item.text(parse_address));
        let dns = section.get("dns").map_or_else(Vec::new, addresses);
        let domain = section.get("domain");
        let search = section.get("search").map_or_else(Vec::new, |node| {
            node.list("an array of DNS names", |item| {
                item.text(DomainName::from_str)
            })
        });
        let ntp = section.get("ntp").map_or_else(Vec::new, addresses);
        let routes = section.get("routes").and_then(|node| read_routes(&node));
        let lease_s = section.get("lease_s").and_then(|node| read_lease(&node));
        let server = section.get("tftp_server");
        let tftp_server = server.and_then(|node| node.read(|it| it.text(BootServer::from_str)));
        let file = |node: Node<'_>| node.text(BootFile::from_str);
        let boot_file = section.get("boot_file").and_then(file);
        let ipxe_boot_file = section.get("ipxe_boot_file").and_then(file);
        section.finish();
        let facts = DhcpFacts {
            dns,
            ntp,
            tftp_server,
            search,
            routes: routes.unwrap_or_default(),
        };
        let route = |(to, via): &(At<Ipv4Net>, At<Ipv4Addr>)| DhcpRoute {
            to: to.value,
            via: via.value,
        };
        let dhcp = Self {
            enabled: enabled.unwrap_or(true),
            dns: values(&facts.dns),
            domain: domain.and_then(|node| node.text(DomainName::from_str)),
            search: values(&facts.search),
            ntp: values(&facts.ntp),
            routes: facts.routes.iter().map(route).collect(),
            lease_s: lease_s.unwrap_or_default(),
            tftp_server: facts.tftp_server.as_ref().map(|it| it.value.clone()),
            boot_file,
            ipxe_boot_file,
        };
        (dhcp, facts)
    }

    pub(crate) fn check_lengths(&self, table: &KeyPath, report: &Report) {
        let lists = [
            ("dns", self.dns.len()),
            ("search", self.search.len()),
            ("ntp", self.ntp.len()),
        ];
        for (key, len) in lists {
            report.bound(&table.key(key), len, MAX_DHCP_LIST);
        }
        report.bound(&table.key("routes"), self.routes.len(), MAX_DHCP_ROUTES);
    }

    pub(super) fn facts(&self, table: &KeyPath) -> DhcpFacts {
        let (search, routes) = (table.key("search"), table.key("routes"));
        let names = self.search.iter().enumerate();
        let name = |(index, name): (usize, &DomainName)| At::new(search.index(index), name.clone());
        let route = |(index, route): (usize, &DhcpRoute)| {
            let key = routes.index(index);
            let via = At::new(key.key("via"), route.via);
            (At::new(key.key("to"), route.to), via)
        };
        let server = self.tftp_server.clone();
        DhcpFacts {
            dns: elements(&table.key("dns"), &self.dns),
            ntp: elements(&table.key("ntp"), &self.ntp),
            tftp_server: server.map(|server| At::new(table.key("tftp_server"), server)),
            search: names.map(name).collect(),
            routes: self.routes.iter().enumerate().map(route).collect(),
        }
    }
}

fn read_routes(node: &Node<'_>) -> Option<Vec<(At<Ipv4Net>, At<Ipv4Addr>)>> {
    let items = node.items("an array of routes, as in [{ to = \"...\", via = \"...\" }]")?;
    let read = |item: &Node<'_>| {
        let mut route = item.section()?;
        let to = route.require("to", "the destinations, as in to = \"172.16.0.0/12\"");
        let via = route.require("via", "the router, as in via = \"10.0.0.11\"");
        route.finish();
        let to = to.and_then(|node| node.read(|node| node.text(parse_ipv4_prefix)));
        let via = via.and_then(|node| node.read(|node| node.text(parse_ipv4_address)));
        Some((to?, via?))
    };
    Some(items.iter().filter_map(read).collect())
}

fn read_lease(node: &Node<'_>) -> Option<LeaseSeconds> {
    node.integer(|seconds| match u32::try_from(seconds) {
        Ok(seconds) => LeaseSeconds::new(seconds),
        Err(_) => Err(InvalidValue::new(seconds, LeaseSeconds::EXPECTED)),
    })
}

impl DhcpFacts {
    pub(super) fn check(&self, gateway: &GatewayFacts, report: &Report) {
        for list in [&self.dns, &self.ntp] {
            report.bound_elements(list, MAX_DHCP_LIST);
        }
        report.bound_elements(&self.search, MAX_DHCP_LIST);
        if let Some((first, _)) = self.routes.get(MAX_DHCP_ROUTES) {
            report.bound(&first.key, self.routes.len(), MAX_DHCP_ROUTES);
        }
        self.check_search(report);
        for server in self.dns.iter().chain(&self.ntp) {
            check_server(server, gateway, report);
        }
        if let Some(server) = &self.tftp_server
            && let BootServer::Address(address) = server.value
        {
            check_server(
                &At::new(server.key.clone(), address.into()),
                gateway,
                report,
            );
        }
        for (to, via) in &self.routes {
            check_route(to, via, gateway, report);
        }
    }

    /// An option holds each domain with its labels' lengths and an end.
    fn check_search(&self, report: &Report) {
        let mut bytes = 0;
        for name in &self.search {
            bytes += name.value.as_str().len() + 2;
            if bytes > MAX_OPTION {
                return report.add(&name.key, DhcpProblem::SearchTooLong { max: MAX_OPTION });
            }
        }
    }
}

/// Checks the address of a server, which VMs reach by its family.
fn check_server(server: &At<IpAddr>, gateway: &GatewayFacts, report: &Report) {
    let ip = server.value;
    let address = ip.to_string();
    if let Some(what) = not_unicast(ip) {
        report.add(&server.key, Problem::NotUnicast { address, what });
    } else if gateway.of_family(ip.into()).is_none()
        && let Some(problem) = gateway.missing(address, ip.is_ipv4())
    {
        report.add(&server.key, problem);
    }
}

/// Checks a route: its prefix, and that its router is on the VMs' link.
fn check_route(to: &At<Ipv4Net>, via: &At<Ipv4Addr>, gateway: &GatewayFacts, report: &Report) {
    if to.value != to.value.trunc() {
        report.add(&to.key, host_bits(to.value.into()));
    }
    let net = IpNet::from(IpAddr::V4(via.value));
    let Some(own) = gateway.of_family(net) else {
        let via = At::new(via.key.clone(), via.value.into());
        return check_server(&via, gateway, report);
    };
    let subnet = own.trunc();
    if !subnet.contains(&net) {
        let address = via.value.to_string();
        let key = "ipv4";
        let problem = AddressProblem::OutsideSubnet {
            address,
            subnet,
            key,
        };
        report.add(&via.key, problem);
    } else if let Some(role) = edge_role(subnet, net.addr()) {
        report.add(&via.key, reserved(net, net.addr(), role, subnet));
    }
}

/// An error in `[gateway.dhcp]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DhcpProblem {
    /// Search domains that do not fit into one option.
    #[error(
        "with this one, the domains take more than the {max} bytes of a DHCP option; write fewer \
         or shorter ones"
    )]
    SearchTooLong {
        /// Bytes that there are.
        max: usize,
    },
}
