//! What an operator writes about one tenant: a TOML file, checked as a whole.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::addr::{InvalidValue, MacAddr, Name, VlanId, Vni};
use crate::document::{Document, Node, Report, Section};
use crate::error::{ConfigError, ConfigErrors, KeyPath, Problem};
use crate::rules::{self, At, Facts};
use crate::switch::{
    Addresses, Device, Encapsulation, Gateway, LearnedFrom, Limits, Memory, NextHops, PortConfig,
    SwitchConfig, UplinkConfig, default_mtu,
};

/// One tenant as its operator describes it. A value that exists has passed every check; it
/// serialises to the form it was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Tenant {
    /// Unique on a host; part of the names of what is made for the tenant.
    name: Name,
    /// The tenant's virtual network, unique on a host.
    vni: Vni,
    /// The addresses the switch answers for on every port.
    gateway: Gateway,
    /// The In/Out side; without it the tenant's ports reach only each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    uplink: Option<Uplink>,
    /// What the tenant's NIC may lack.
    #[serde(skip_serializing_if = "Nic::is_default")]
    #[schemars(default)]
    nic: Nic,
    /// The tenant's ports, one for each interface of a VM.
    #[serde(rename = "port")]
    #[schemars(length(min = 1, max = 256))]
    ports: Vec<Port>,
}

/// The In/Out side as an operator describes it. At least one family is there, each with its next hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[non_exhaustive]
pub struct Uplink {
    /// The switch's own address on the underlay, with its subnet, as in `192.0.2.2/24`. It may be an
    /// IPv6 address where there is no IPv4.
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
    /// The IPv6 router of the underlay.
    #[serde(rename = "next_hop6", skip_serializing_if = "Option::is_none")]
    pub ipv6_next_hop: Option<Ipv6Addr>,
    /// Prefixes of the underlay that the tenant may reach all the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<String>>")]
    pub allow: Vec<IpNet>,
    /// Largest IP packet in bytes.
    #[schemars(default = "default_mtu", range(min = 576, max = 9216))]
    pub mtu: u16,
}

/// What an operator knows of the SR-IOV NIC's driver.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[non_exhaustive]
pub struct Nic {
    /// Settings of virtual functions that the driver may refuse, or not show, without the tenant being refused.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(default)]
    pub accept: BTreeSet<NicAttribute>,
}

impl Nic {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A setting of a virtual function that not every driver has. Its MAC and VLAN are none: nothing holds without them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NicAttribute {
    /// The VLAN tag's protocol.
    VlanProtocol,
    /// Dropping frames with a forged source MAC.
    SpoofCheck,
    /// Not trusting the function.
    Trust,
    /// The function's link following the cable's.
    LinkState,
    /// The assured transmit rate.
    MinRate,
    /// The largest transmit rate.
    MaxRate,
}

impl NicAttribute {
    /// All of them, in the order of their names in messages.
    pub const ALL: [Self; 6] = [
        Self::VlanProtocol,
        Self::SpoofCheck,
        Self::Trust,
        Self::LinkState,
        Self::MinRate,
        Self::MaxRate,
    ];

    /// As a tenant's file names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VlanProtocol => "vlan-protocol",
            Self::SpoofCheck => "spoof-check",
            Self::Trust => "trust",
            Self::LinkState => "link-state",
            Self::MinRate => "min-rate",
            Self::MaxRate => "max-rate",
        }
    }
}

impl fmt::Display for NicAttribute {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl FromStr for NicAttribute {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let known = Self::ALL.into_iter().find(|known| known.as_str() == text);
        known.ok_or_else(|| {
            InvalidValue::new(
                text,
                "one of vlan-protocol, spoof-check, trust, link-state, min-rate and max-rate",
            )
        })
    }
}

/// One port as an operator describes it.
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
    /// VLAN identifiers of which the VM may use exactly one tag per frame.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub trunk: Vec<VlanId>,
    /// The VM serves DHCP to this tenant.
    #[schemars(default)]
    pub dhcp_server: bool,
    /// The VM may send QEMU's RARP announce after a migration.
    #[schemars(default)]
    pub announce: bool,
    /// Whether the VM may send IP-in-IP, 6in4, GRE and Teredo.
    #[schemars(default)]
    pub encapsulation: Encapsulation,
    /// Largest IP packet in bytes.
    #[schemars(default = "default_mtu", range(min = 576, max = 9216))]
    pub mtu: u16,
    /// What the VM may send at most, in Mbit/s, if an SR-IOV NIC is to hold it to that.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_000_000))]
    pub rate_mbit: Option<u32>,
    /// What an SR-IOV NIC assures the VM, in Mbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_000_000))]
    pub min_rate_mbit: Option<u32>,
    /// Storm control.
    #[schemars(default)]
    pub limits: Limits,
}

/// The devices for a tenant's ports, and the rest of what only the host knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices {
    /// One for each port, in the order of the tenant's file.
    pub ports: Vec<Device>,
    /// The In/Out side's; there exactly if the tenant has an uplink.
    pub uplink: Option<Device>,
    /// The switch's packet memory.
    pub memory: Memory,
    /// The unix socket of the control API.
    pub control_socket: Option<PathBuf>,
}

/// Devices that are not those of the tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceMismatch {
    /// Not one device for each port.
    #[error("tenant {tenant} has {ports} ports, but {devices} port devices were given")]
    Ports {
        /// The tenant.
        tenant: Name,
        /// How many ports it has.
        ports: usize,
        /// How many devices there are.
        devices: usize,
    },
    /// An uplink without a device.
    #[error("tenant {tenant} has an uplink, but no device for it was given")]
    UplinkMissing {
        /// The tenant.
        tenant: Name,
    },
    /// A device without an uplink.
    #[error("tenant {tenant} has no uplink, but a device for one was given")]
    UplinkUnused {
        /// The tenant.
        tenant: Name,
    },
}

impl Tenant {
    /// Reads a tenant from `text`; `source_name` stands for it in errors.
    ///
    /// # Errors
    /// Every error of the text at once.
    pub fn parse(source_name: &str, text: &str) -> Result<Self, ConfigErrors> {
        let document = Document::parse(source_name, text)?;
        let report = Report::default();
        let (tenant, facts) = read_tenant(document.section(&report));
        rules::check(&facts, &report);
        let errors = document.errors(report);
        match tenant {
            Some(tenant) if errors.is_empty() => Ok(tenant),
            _ => Err(ConfigErrors::check(errors)
                .expect_err("a tenant that cannot be read has left an error")),
        }
    }

    /// Reads a tenant from a file.
    ///
    /// # Errors
    /// Every error of the file at once; a file that cannot be read is one.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Loaded::load(path).map(|loaded| loaded.tenant)
    }

    /// The tenant's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The tenant's virtual network.
    pub fn vni(&self) -> Vni {
        self.vni
    }

    /// The gateway's addresses.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// The In/Out side, if the tenant has one.
    pub fn uplink(&self) -> Option<&Uplink> {
        self.uplink.as_ref()
    }

    /// What the NIC may lack.
    pub fn nic(&self) -> &Nic {
        &self.nic
    }

    /// The ports in the order of the file.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// What this tenant's switch is given on a host that has these devices.
    ///
    /// # Errors
    /// If the devices are not one for each port, and one for the uplink exactly if there is one.
    pub fn switch_config(&self, devices: Devices) -> Result<SwitchConfig, DeviceMismatch> {
        let tenant = || self.name.clone();
        if devices.ports.len() != self.ports.len() {
            return Err(DeviceMismatch::Ports {
                tenant: tenant(),
                ports: self.ports.len(),
                devices: devices.ports.len(),
            });
        }
        let uplink = match (&self.uplink, devices.uplink) {
            (Some(uplink), Some(device)) => Some(self.uplink_config(uplink, device)),
            (None, None) => None,
            (Some(_), None) => return Err(DeviceMismatch::UplinkMissing { tenant: tenant() }),
            (None, Some(_)) => return Err(DeviceMismatch::UplinkUnused { tenant: tenant() }),
        };
        let ports = self.ports.iter().zip(devices.ports).zip(1..);
        Ok(SwitchConfig {
            tenant: tenant(),
            vni: self.vni,
            gateway: self.gateway,
            ports: ports
                .map(|((port, device), index)| self.port_config(port, device, index))
                .collect(),
            uplink,
            tunnel: None,
            memory: devices.memory,
            control_socket: devices.control_socket,
        })
    }

    /// What this tenant's switch is given where frames come from captures.
    pub fn offline_config(&self) -> SwitchConfig {
        let devices = Devices {
            ports: vec![Device::Offline; self.ports.len()],
            uplink: self.uplink.is_some().then_some(Device::Offline),
            memory: Memory::default(),
            control_socket: None,
        };
        self.switch_config(devices)
            .expect("the devices were counted by the tenant")
    }

    /// The gateway's subnets with their keys.
    fn inner_subnets(&self) -> impl Iterator<Item = (IpNet, KeyPath)> {
        let key = |key| KeyPath::of("gateway").key(key);
        let ipv4 = self
            .gateway
            .ipv4
            .map(|net| (net.trunc().into(), key("ipv4")));
        let ipv6 = self
            .gateway
            .ipv6
            .map(|net| (net.trunc().into(), key("ipv6")));
        ipv4.into_iter().chain(ipv6)
    }

    /// The switch's own addresses on the underlay with their keys.
    fn uplink_addresses(&self) -> impl Iterator<Item = (IpNet, KeyPath)> {
        let table = KeyPath::of("uplink");
        let uplink = self.uplink.as_ref();
        let ipv4 = uplink.and_then(|uplink| Some((uplink.ipv4?.into(), table.key("address"))));
        let ipv6 = uplink.and_then(|uplink| {
            // Alone it may be written as either.
            let key = match uplink.ipv4 {
                Some(_) => table.key("address6"),
                None => table.clone(),
            };
            Some((uplink.ipv6?.into(), key))
        });
        ipv4.into_iter().chain(ipv6)
    }

    fn port_config(&self, port: &Port, device: Device, index: u16) -> PortConfig {
        let port = port.clone();
        PortConfig {
            name: port.name,
            device,
            gateway_mac: MacAddr::of_switch_function(self.vni, index),
            mac: port.mac,
            extra_macs: port.extra_macs,
            addresses: port.addresses,
            trunk: port.trunk,
            dhcp_server: port.dhcp_server,
            announce: port.announce,
            encapsulation: port.encapsulation,
            mtu: port.mtu,
            limits: port.limits,
        }
    }

    fn uplink_config(&self, uplink: &Uplink, device: Device) -> UplinkConfig {
        UplinkConfig {
            device,
            mac: MacAddr::of_switch_function(self.vni, 0),
            ipv4: uplink.ipv4,
            ipv6: uplink.ipv6,
            next_hops: NextHops {
                ipv4: uplink.ipv4_next_hop,
                ipv6: uplink.ipv6_next_hop,
            },
            allow: uplink.allow.clone(),
            mtu: uplink.mtu,
        }
    }
}

// Reading. Each function takes one table, hands what it could read to the rules, and returns the
// whole. What cannot be read is reported and left out; with a report there is no tenant. A section
// to come is one more function and one more line in `read_tenant`.

fn read_tenant(mut file: Section<'_>) -> (Option<Tenant>, Facts) {
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
    let uplink = file
        .get("uplink")
        .and_then(|node| node.section())
        .map(|section| read_uplink(section, &mut facts.uplink));
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

fn read_uplink(mut section: Section<'_>, facts: &mut rules::Uplink) -> Uplink {
    let second = read_link(
        &mut section,
        false,
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
        second.is_none(),
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
    facts.links = links
        .filter_map(|(address, next_hop)| Some((address?, next_hop)))
        .collect();
    let allow = section.get("allow");
    facts.allow = allow.map_or_else(Vec::new, |node| {
        node.list("an array of prefixes", |item| item.text(parse_prefix))
    });
    facts.mtu = section.get("mtu").and_then(|node| node.read(read_mtu));
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
        match (
            address.value,
            next_hop.as_ref().map(|next_hop| next_hop.value),
        ) {
            (IpNet::V4(address), Some(IpAddr::V4(next_hop))) => {
                (uplink.ipv4, uplink.ipv4_next_hop) = (Some(address), Some(next_hop));
            }
            (IpNet::V6(address), Some(IpAddr::V6(next_hop))) => {
                (uplink.ipv6, uplink.ipv6_next_hop) = (Some(address), Some(next_hop));
            }
            // No next hop, or one of the other family, which is outside the subnet: reported.
            _ => {}
        }
    }
    uplink
}

/// An address of the switch and the next hop on its link: together, or neither unless `required`.
#[expect(
    clippy::type_complexity,
    reason = "two values, each absent if it could not be read"
)]
fn read_link(
    section: &mut Section<'_>,
    required: bool,
    (address, address_expected): (&'static str, &'static str),
    (next_hop, next_hop_expected): (&'static str, &'static str),
    parse_address: impl FnOnce(&str) -> Result<IpNet, InvalidValue>,
    parse_next_hop: impl FnOnce(&str) -> Result<IpAddr, InvalidValue>,
) -> Option<(Option<At<IpNet>>, Option<At<IpAddr>>)> {
    let given = [section.get(address), section.get(next_hop)];
    if !required && given.iter().all(Option::is_none) {
        return None;
    }
    let address = section.require(address, address_expected);
    let next_hop = section.require(next_hop, next_hop_expected);
    Some((
        address.and_then(|node| node.read(|node| node.text(parse_address))),
        next_hop.and_then(|node| node.read(|node| node.text(parse_next_hop))),
    ))
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
    facts.mtu = section.get("mtu").and_then(|node| node.read(read_mtu));
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

fn read_mtu(node: &Node<'_>) -> Option<i64> {
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

/// Reads every tenant of `paths`: files, and directories of `*.toml`.
///
/// # Errors
/// Every error of every file, and what cannot hold between tenants of one host.
pub fn load_all(paths: &[PathBuf]) -> Result<Vec<Tenant>, ConfigErrors> {
    let mut errors = Vec::new();
    let mut loaded: Vec<Loaded> = Vec::new();
    let mut seen = HashSet::new();
    for path in paths {
        let files = files(path).unwrap_or_else(|more| {
            errors.extend(more);
            Vec::new()
        });
        for file in files {
            // A file and its directory may both be named: one file is one tenant.
            if fs::canonicalize(&file).is_ok_and(|real| !seen.insert(real)) {
                continue;
            }
            match Loaded::load(&file) {
                Ok(tenant) => loaded.push(tenant),
                Err(more) => errors.extend(more),
            }
        }
    }
    errors.extend(check_together(&loaded));
    ConfigErrors::check(errors)?;
    Ok(loaded.into_iter().map(|loaded| loaded.tenant).collect())
}

/// A tenant with the text it was read from, which tells where its values stand.
#[derive(Debug)]
struct Loaded {
    file: String,
    text: String,
    tenant: Tenant,
}

impl Loaded {
    fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let file = path.display().to_string();
        let text = read(path)?;
        let tenant = Tenant::parse(&file, &text)?;
        Ok(Self { file, text, tenant })
    }

    fn error(&self, key: KeyPath, problem: Problem) -> Option<ConfigError> {
        let document = Document::parse(&self.file, &self.text).ok()?;
        Some(document.error(key, problem))
    }
}

/// The tenant files that `path` stands for.
fn files(path: &Path) -> Result<Vec<PathBuf>, ConfigErrors> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| unreadable(path, &error.to_string()))? {
        let file = entry
            .map_err(|error| unreadable(path, &error.to_string()))?
            .path();
        if file
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(of_file(path, Problem::EmptyDirectory));
    }
    files.sort();
    Ok(files)
}

/// The most bytes of a tenant's file: far beyond the most that its bounds let it say.
const MAX_FILE_BYTES: u64 = 64 << 20;

fn read(path: &Path) -> Result<String, ConfigErrors> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| unreadable(path, &error.to_string()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable(path, "larger than any tenant's file (64 MiB)"));
    }
    Ok(text)
}

fn unreadable(path: &Path, reason: &str) -> ConfigErrors {
    let reason = reason.to_owned();
    of_file(path, Problem::Unreadable { reason })
}

/// An error of a file as a whole.
fn of_file(path: &Path, problem: Problem) -> ConfigErrors {
    ConfigErrors::from(ConfigError {
        file: path.display().to_string(),
        place: None,
        key: KeyPath::default(),
        port: None,
        problem,
    })
}

/// What must hold between the tenants of one host. The tenant that comes second has the error.
fn check_together(loaded: &[Loaded]) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    let mut names = HashMap::new();
    let mut vnis = HashMap::new();
    let mut macs = HashMap::new();
    let mut uplinks = HashMap::new();
    for (index, this) in loaded.iter().enumerate() {
        let tenant = &this.tenant;
        let mut add = |key, problem| errors.extend(this.error(key, problem));
        if let Some(other) = names.insert(&tenant.name, &this.file) {
            let problem = Problem::DuplicateTenant {
                name: tenant.name.clone(),
                other: other.clone(),
            };
            add(KeyPath::of("name"), problem);
        }
        if let Some(other) = vnis.insert(tenant.vni, &this.file) {
            let problem = Problem::DuplicateVni {
                vni: tenant.vni,
                other: other.clone(),
            };
            add(KeyPath::of("vni"), problem);
        }
        for (port, index) in tenant.ports.iter().zip(0..) {
            let key = KeyPath::of("port").index(index).key("mac");
            let whose = format!("port {:?} of {}", port.name.as_str(), this.file);
            if let Some(other) = macs.insert(port.mac, whose) {
                let mac = port.mac;
                add(key, Problem::DuplicateMac { mac, other });
            }
        }
        for (address, key) in tenant.uplink_addresses() {
            if let Some(other) = uplinks.insert(address.addr(), &this.file) {
                let problem = Problem::DuplicateUplink {
                    address: address.addr().to_string(),
                    other: other.clone(),
                };
                add(key, problem);
            }
        }
        for other in &loaded[..index] {
            if tenant.uplink.is_none() || other.tenant.uplink.is_none() {
                continue;
            }
            for (subnet, key) in tenant.inner_subnets() {
                for (other_subnet, _) in other.tenant.inner_subnets() {
                    if rules::overlap(subnet, other_subnet) {
                        let problem = Problem::TenantOverlap {
                            subnet,
                            other_subnet,
                            other: other.file.clone(),
                        };
                        add(key.clone(), problem);
                    }
                }
            }
        }
    }
    errors
}
