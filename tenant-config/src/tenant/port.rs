//! `[[port]]`: one interface of a VM, and the switch's side of it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Facts;
use super::addresses::{AddressFacts, Addresses, Addresses6, MAX_ADDRESSES};
use super::encapsulation::{Encapsulation, parse_encapsulation};
use super::limits::{self, Limits};
use super::metadata::{Metadata, MetadataConfig, MetadataFacts};
use super::mtu::{self, default_mtu};
use super::routes::{self, MAX_ROUTES, RouteFacts};
use super::shared::{self, MAX_SHARED};
use crate::addr::{HostName, InvalidValue, MacAddr, Name, TagId, Vni};
use crate::document::{Node, Section};
use crate::error::Report;
use crate::key::{At, KeyPath, elements, values};
use crate::problem::Problem;
use crate::subnet::show;
use crate::switch::{Device, UPLINK_NAME};

/// The most ports of a tenant.
pub const MAX_PORTS: usize = 256;
/// The most further MACs of a port: a frame whose source is not the first is compared with each.
pub const MAX_EXTRA_MACS: usize = 256;
/// The most identifiers of tags of a port: all there are.
const MAX_TRUNK: usize = 4095;

/// Whether a VM may use IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ipv6Use {
    /// As far as the tenant has it.
    #[default]
    Allow,
    /// Not at all: its IPv6 packets are dropped, link-local ones and Neighbour Discovery included.
    Deny,
}

impl Ipv6Use {
    fn parse(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            _ => Err(InvalidValue::new(text, "\"allow\" or \"deny\"")),
        }
    }

    /// Whether it is, as by default.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_allowed(&self) -> bool {
        *self == Self::Allow
    }
}

/// One port in a tenant file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[non_exhaustive]
pub struct Port {
    /// Unique within the tenant; `uplink` is taken.
    pub name: Name,
    /// The VM's MAC, unique on a host.
    pub mac: MacAddr,
    /// Further source MACs the VM may use, as VRRP's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub extra_macs: Vec<MacAddr>,
    /// The IP sources the VM may use: addresses and prefixes, or `learn-dhcp`.
    pub addresses: Addresses,
    /// IPv6 sources beside these: `learn-nd` for those that the VM makes by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses6: Option<Addresses6>,
    /// Prefixes behind the VM, outside the gateway's subnets: further sources, routed to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, with = "Vec<String>")]
    pub routes: Vec<IpNet>,
    /// Addresses that the VM may hold in turn with those of other ports: of the ports that list
    /// one, that which last announced it has it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub shared: Vec<IpAddr>,
    /// VLAN identifiers, and 0 for priority tags: the VM may use exactly one such tag per frame.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub trunk: Vec<TagId>,
    /// The host name that the gateway's DHCP server tells the VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostName>,
    /// The VM serves DHCP to this tenant.
    #[schemars(default)]
    pub dhcp_server: bool,
    /// The VM may send QEMU's RARP announce after a migration.
    #[schemars(default)]
    pub announce: bool,
    /// Whether the VM may send IP-in-IP, 6in4, GRE and Teredo.
    #[schemars(default)]
    pub encapsulation: Encapsulation,
    /// Whether the VM may use IPv6 at all.
    #[schemars(default)]
    pub ipv6: Ipv6Use,
    /// Largest IP packet in bytes.
    #[schemars(default = "default_mtu", range(min = 576, max = 9216))]
    pub mtu: u16,
    /// Upper bound of what the VM sends, in Mbit/s, enforced by an SR-IOV NIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_000_000))]
    pub rate_mbit: Option<u32>,
    /// Transmit rate that an SR-IOV NIC guarantees to the VM, in Mbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_000_000))]
    pub min_rate_mbit: Option<u32>,
    /// Storm control.
    #[schemars(default)]
    pub limits: Limits,
    /// What the switch tells a cloud image about itself; without it nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

/// One port: what its VM may send, and the switch's side of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortConfig {
    /// Unique within the tenant; `uplink` is taken.
    pub name: Name,
    /// The device of the Gw side.
    pub device: Device,
    /// The Gw side's MAC: the only neighbour the VM ever sees.
    pub gateway_mac: MacAddr,
    /// The VM's MAC (the T VF's).
    pub mac: MacAddr,
    /// Further source MACs the VM may use, as VRRP's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_macs: Vec<MacAddr>,
    /// The IP sources the VM may use.
    pub addresses: Addresses,
    /// IPv6 sources beside these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses6: Option<Addresses6>,
    /// Prefixes behind the VM, outside the gateway's subnets: further sources, routed to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub routes: Vec<IpNet>,
    /// Addresses that the VM may hold in turn with those of other ports: of the ports that list
    /// one, that which last announced it has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<IpAddr>,
    /// VLAN identifiers, and 0 for priority tags: the VM may use exactly one such tag per frame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trunk: Vec<TagId>,
    /// The host name that the gateway's DHCP server tells the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostName>,
    /// The VM serves DHCP to this tenant.
    #[serde(default)]
    pub dhcp_server: bool,
    /// The VM may send QEMU's RARP announce after a migration.
    #[serde(default)]
    pub announce: bool,
    /// Whether the VM may send IP-in-IP, 6in4, GRE and Teredo.
    #[serde(default)]
    pub encapsulation: Encapsulation,
    /// Whether the VM may use IPv6 at all.
    #[serde(default, skip_serializing_if = "Ipv6Use::is_allowed")]
    pub ipv6: Ipv6Use,
    /// Largest IP packet in bytes.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// Storm control.
    #[serde(default)]
    pub limits: Limits,
    /// What the switch tells a cloud image about itself; without it nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataConfig>,
}

/// One port, as far as it could be read: the values that a rule compares with others.
#[derive(Debug, Default)]
pub(crate) struct PortFacts {
    pub(super) name: Option<At<Name>>,
    mac: Option<At<MacAddr>>,
    extra_macs: Vec<At<MacAddr>>,
    pub(super) addresses: AddressFacts,
    /// The key of `addresses6`, if it is `learn-nd`.
    pub(super) addresses6: Option<KeyPath>,
    pub(super) routes: RouteFacts,
    /// Each as the prefix of only that address.
    pub(super) shared: Vec<At<IpNet>>,
    trunk: Vec<At<TagId>>,
    pub(super) dhcp_server: bool,
    denies_ipv6: bool,
    mtu: Option<At<i64>>,
    limits: Vec<At<u64>>,
    pub(super) metadata: MetadataFacts,
}

impl Port {
    /// Reads all ports. The key is the list's, and absent if the value is no list.
    pub(super) fn read_all(
        node: Option<Node<'_>>,
    ) -> (Option<Vec<Self>>, Option<KeyPath>, Vec<PortFacts>) {
        let key = Some(KeyPath::of("port"));
        let Some(node) = node else {
            return (Some(Vec::new()), key, Vec::new());
        };
        let Some(items) = node.items("an array of tables, each under its own [[port]]") else {
            return (None, None, Vec::new());
        };
        let read = |item: &Node<'_>| item.section().map_or_else(Default::default, Self::read);
        let (ports, facts): (Vec<_>, Vec<_>) = items.iter().map(read).unzip();
        (ports.into_iter().collect(), key, facts)
    }

    fn read(mut section: Section<'_>) -> (Option<Self>, PortFacts) {
        let name = section.require("name", "the port's name, as in name = \"red-vm1\"");
        let mac = section.require("mac", "the VM's MAC, as in mac = \"52:54:00:aa:00:01\"");
        let mut facts = PortFacts {
            name: name.and_then(|node| node.read(|node| node.text(Name::from_str))),
            mac: mac.and_then(|node| node.read(|node| node.text(MacAddr::from_str))),
            ..PortFacts::default()
        };
        let addresses = section.require(
            "addresses",
            "the IP sources the VM may use, as in addresses = [\"10.0.0.11\"], \
             or addresses = \"learn-dhcp\"",
        );
        let addresses = addresses.map(|node| {
            let (addresses, read) = Addresses::read(&node);
            facts.addresses = read;
            addresses
        });
        let addresses6 = section.get("addresses6");
        let addresses6 = addresses6.and_then(|node| node.read(|node| node.text(Addresses6::parse)));
        facts.addresses6 = addresses6.as_ref().map(|it| it.key.clone());
        facts.routes = RouteFacts::read(section.get("routes"));
        facts.shared = shared::read(section.get("shared"));
        if let Some(node) = section.get("extra_macs") {
            facts.extra_macs = node.list("an array of MACs", |item| item.text(MacAddr::from_str));
        }
        if let Some(node) = section.get("trunk") {
            facts.trunk = node.list("an array of VLAN identifiers", |item| {
                item.integer(parse_vlan)
            });
        }
        let hostname = section.get("hostname");
        let hostname = hostname.and_then(|node| node.text(HostName::from_str));
        facts.dhcp_server = section.flag("dhcp_server");
        let announce = section.flag("announce");
        let encapsulation = section.get("encapsulation");
        let encapsulation = encapsulation
            .and_then(|node| node.text(parse_encapsulation))
            .unwrap_or_default();
        let ipv6 = section.get("ipv6");
        let ipv6 = ipv6.and_then(|node| node.read(|node| node.text(Ipv6Use::parse)));
        facts.denies_ipv6 = ipv6.as_ref().is_some_and(|it| it.value == Ipv6Use::Deny);
        facts.mtu = mtu::read(section.get("mtu"));
        let rate_mbit = section.get("rate_mbit").and_then(|node| read_rate(&node));
        let least = section.get("min_rate_mbit");
        let min_rate_mbit = least.as_ref().and_then(read_rate);
        if let (Some(node), Some(min), Some(max)) = (&least, min_rate_mbit, rate_mbit)
            && min > max
        {
            node.fail::<()>(InvalidValue::new(min, "at most rate_mbit"));
        }
        let limits = section.get("limits").and_then(|node| node.section());
        let limits = limits.map(Limits::read);
        let (limits, limit_facts) = limits.unwrap_or_default();
        facts.limits = limit_facts;
        let metadata = section.get("metadata").and_then(|node| node.section());
        let metadata = metadata.map(Metadata::read).map(|(metadata, read)| {
            facts.metadata = read;
            metadata
        });
        section.finish();
        let port = || {
            Some(Self {
                name: facts.name.as_ref()?.value.clone(),
                mac: facts.mac.as_ref()?.value,
                extra_macs: values(&facts.extra_macs),
                addresses: addresses?,
                addresses6: addresses6.as_ref().map(|it| it.value),
                routes: values(&facts.routes.list),
                shared: facts.shared.iter().map(|net| net.value.addr()).collect(),
                trunk: values(&facts.trunk),
                hostname,
                dhcp_server: facts.dhcp_server,
                announce,
                encapsulation,
                ipv6: ipv6.as_ref().map_or_else(Ipv6Use::default, |it| it.value),
                mtu: mtu::value(facts.mtu.as_ref()),
                rate_mbit,
                min_rate_mbit,
                limits,
                metadata,
            })
        };
        (port(), facts)
    }

    /// The switch's side of the port.
    pub(super) fn config(&self, (tenant, vni): (&Name, Vni), device: Device) -> PortConfig {
        let port = self.clone();
        let names = (tenant, &self.name);
        let hostname = self.hostname.as_ref();
        PortConfig {
            name: port.name,
            device,
            gateway_mac: MacAddr::of_gateway(vni, port.mac),
            mac: port.mac,
            extra_macs: port.extra_macs,
            addresses: port.addresses,
            addresses6: port.addresses6,
            routes: port.routes,
            shared: port.shared,
            trunk: port.trunk,
            hostname: port.hostname,
            dhcp_server: port.dhcp_server,
            announce: port.announce,
            encapsulation: port.encapsulation,
            ipv6: port.ipv6,
            mtu: port.mtu,
            limits: port.limits,
            metadata: port.metadata.map(|it| it.config(names, hostname)),
        }
    }
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

fn parse_vlan(value: i64) -> Result<TagId, PortProblem> {
    u16::try_from(value)
        .ok()
        .and_then(|value| TagId::new(value).ok())
        .ok_or(PortProblem::VlanRange { value })
}

impl PortConfig {
    /// A port with these addresses; every other key has its default, and the device is offline.
    pub fn new(name: Name, gateway_mac: MacAddr, mac: MacAddr, addresses: Addresses) -> Self {
        Self {
            name,
            device: Device::Offline,
            gateway_mac,
            mac,
            extra_macs: Vec::new(),
            addresses,
            addresses6: None,
            routes: Vec::new(),
            shared: Vec::new(),
            trunk: Vec::new(),
            hostname: None,
            dhcp_server: false,
            announce: false,
            encapsulation: Encapsulation::default(),
            ipv6: Ipv6Use::default(),
            mtu: default_mtu(),
            limits: Limits::default(),
            metadata: None,
        }
    }

    /// What the VM may send from, as far as it is configured: its addresses, and what is behind it.
    pub fn sources(&self) -> impl Iterator<Item = IpNet> + '_ {
        let addresses = match &self.addresses {
            Addresses::Static(nets) => &nets[..],
            Addresses::Learned(_) => &[],
        };
        addresses.iter().chain(&self.routes).copied()
    }

    /// The largest IP packet that the Gw side's device takes, in bytes: never less than Ethernet's,
    /// so that a VM whose own MTU is larger than the port's is told by ICMP.
    pub fn device_mtu(&self) -> u16 {
        self.mtu.max(default_mtu())
    }

    pub(crate) fn check_lengths(&self, table: &KeyPath, report: &Report) {
        let addresses = self.addresses.len();
        report.bound(&table.key("addresses"), addresses, MAX_ADDRESSES);
        report.bound(&table.key("routes"), self.routes.len(), MAX_ROUTES);
        report.bound(&table.key("shared"), self.shared.len(), MAX_SHARED);
        let macs = self.extra_macs.len();
        report.bound(&table.key("extra_macs"), macs, MAX_EXTRA_MACS);
        report.bound(&table.key("trunk"), self.trunk.len(), MAX_TRUNK);
        if let Some(metadata) = &self.metadata {
            metadata.check_lengths(&table.key("metadata"), report);
        }
    }

    pub(crate) fn facts(&self, table: &KeyPath) -> PortFacts {
        PortFacts {
            name: Some(At::new(table.key("name"), self.name.clone())),
            mac: Some(At::new(table.key("mac"), self.mac)),
            extra_macs: elements(&table.key("extra_macs"), &self.extra_macs),
            addresses: self.addresses.facts(table.key("addresses")),
            addresses6: self.addresses6.map(|_| table.key("addresses6")),
            routes: RouteFacts::of(&table.key("routes"), &self.routes),
            shared: shared::of(&table.key("shared"), &self.shared),
            trunk: elements(&table.key("trunk"), &self.trunk),
            dhcp_server: self.dhcp_server,
            denies_ipv6: self.ipv6 == Ipv6Use::Deny,
            mtu: Some(At::new(table.key("mtu"), self.mtu.into())),
            limits: self.limits.facts(&table.key("limits")),
            metadata: match &self.metadata {
                Some(metadata) => metadata.facts(table.key("metadata")),
                None => MetadataFacts::default(),
            },
        }
    }
}

/// Checks what must hold between the ports, apart from their addresses.
pub(super) fn check_together(facts: &Facts, report: &Report) {
    check_names(facts, report);
    check_macs(facts, report);
}

fn check_names(facts: &Facts, report: &Report) {
    if let Some(key) = &facts.ports_key {
        match facts.ports.len() {
            0 => report.add(key, PortProblem::NoPorts),
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
            report.add(&name.key, PortProblem::ReservedPortName);
        }
        if let Some(other) = names.insert(&name.value, &name.key) {
            let problem = PortProblem::DuplicatePort {
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
        let problem = PortProblem::DuplicateMac {
            mac: mac.value,
            other: other.to_string(),
        };
        report.add(&mac.key, problem);
    };
    let mut gateways: HashMap<MacAddr, &At<MacAddr>> = HashMap::new();
    for (gateway, mac) in gateway_macs(facts) {
        let other = gateways.insert(gateway, mac);
        // Of one MAC twice, that is the error.
        if let Some(other) = other.filter(|other| other.value != mac.value) {
            let problem = PortProblem::DuplicateGatewayMac {
                mac: gateway,
                other: other.key.to_string(),
            };
            report.add(&mac.key, problem);
        }
    }
    let reserved = |mac: &At<MacAddr>| {
        let other = gateways.get(&mac.value)?;
        Some(PortProblem::ReservedMac {
            mac: mac.value,
            other: other.key.to_string(),
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
        report.bound_elements(&port.extra_macs, MAX_EXTRA_MACS);
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

/// The MACs of the switch's own functions at the ports, each with the VM's that it is made of.
pub(super) fn gateway_macs(facts: &Facts) -> impl Iterator<Item = (MacAddr, &At<MacAddr>)> {
    let macs = facts.ports.iter().filter_map(|port| port.mac.as_ref());
    macs.filter_map(|mac| Some((MacAddr::of_gateway(facts.vni?, mac.value), mac)))
}

impl PortFacts {
    /// The addresses, and what is behind the port.
    pub(super) fn sources(&self) -> impl Iterator<Item = &At<IpNet>> {
        self.addresses.list.iter().chain(&self.routes.list)
    }

    /// All that may lead to the port: its sources, and what it may hold in turn with others.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &At<IpNet>> {
        self.sources().chain(&self.shared)
    }

    /// Checks what must hold of the port alone, apart from its addresses.
    pub(super) fn check(&self, facts: &Facts, report: &Report) {
        self.check_trunk(report);
        self.check_ipv6(report);
        routes::check(self, facts, report);
        shared::check(self, &facts.gateway, report);
        limits::check(&self.limits, report);
        if let Some(mtu) = &self.mtu {
            mtu::check(mtu, &facts.gateway.addresses, report);
        }
    }

    fn check_ipv6(&self, report: &Report) {
        let denied = self.destinations().filter(|_| self.denies_ipv6);
        if let Some(key) = self.addresses6.as_ref().filter(|_| self.denies_ipv6) {
            let address = "learn-nd".to_owned();
            report.add(key, PortProblem::Ipv6Denied { address });
        }
        for net in denied.filter(|net| net.value.addr().is_ipv6()) {
            let address = show(net.value);
            report.add(&net.key, PortProblem::Ipv6Denied { address });
        }
    }

    fn check_trunk(&self, report: &Report) {
        let mut seen = HashSet::new();
        for vlan in &self.trunk {
            let value = vlan.value.get();
            if !seen.insert(value) {
                report.add(&vlan.key, PortProblem::DuplicateVlan { value });
            }
        }
    }
}

/// An error in a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PortProblem {
    /// A tenant without a port.
    #[error("the tenant has no port; add a [[port]] table for each VM")]
    NoPorts,
    /// The name of the In/Out side, given to a port.
    #[error("\"uplink\" is the name of the In/Out side; give the port another name")]
    ReservedPortName,
    /// Two ports of one name.
    #[error("{other} is \"{name}\" already; names are unique within a tenant")]
    DuplicatePort {
        /// The name.
        name: Name,
        /// The other port's key.
        other: String,
    },
    /// A MAC that another port or tenant has.
    #[error("{mac} is also {other}; every MAC names one port")]
    DuplicateMac {
        /// The MAC.
        mac: MacAddr,
        /// Where else it is written.
        other: String,
    },
    /// A MAC of the tenant's own switch.
    #[error(
        "{mac} is the MAC of this tenant's switch at the port of {other}; give the port another"
    )]
    ReservedMac {
        /// The MAC.
        mac: MacAddr,
        /// The port's MAC that it is made of, by its key.
        other: String,
    },
    /// Two ports whose MACs give the switch one MAC at both.
    #[error(
        "{mac}, the switch's MAC at this port, is also its MAC at the port of {other}; it is a \
         digest of the VNI and the port's mac: change this mac"
    )]
    DuplicateGatewayMac {
        /// The switch's MAC.
        mac: MacAddr,
        /// The other port's MAC, by its key.
        other: String,
    },
    /// A VLAN identifier that does not exist.
    #[error("{value} is no VLAN identifier; choose one from 1 to 4094, or 0 for priority tags")]
    VlanRange {
        /// The number.
        value: i64,
    },
    /// An IPv6 address of a port that may not use IPv6.
    #[error("{address} is of IPv6, and the port has ipv6 = \"deny\"; leave one of them out")]
    Ipv6Denied {
        /// The address or prefix.
        address: String,
    },
    /// A VLAN identifier that is listed twice.
    #[error("VLAN {value} is listed twice; write it once")]
    DuplicateVlan {
        /// The identifier.
        value: u16,
    },
}
