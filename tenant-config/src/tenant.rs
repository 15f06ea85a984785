//! What an operator writes about one tenant: a TOML file, checked as a whole.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
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
    Addresses, Device, Encapsulation, Gateway, Inherit, LearnedFrom, Limits, Memory, NextHops,
    PeerConfig, PortConfig, SwitchConfig, TunnelConfig, TunnelDscp, TunnelKind, TunnelTtl,
    UplinkConfig, default_mtu, denied,
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
    /// The tunnels to the tenant's VMs on other hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Tunnel>,
    /// What the tenant's NIC may lack.
    #[serde(skip_serializing_if = "Nic::is_default")]
    #[schemars(default)]
    nic: Nic,
    /// The tenant's ports, one for each interface of a VM.
    #[serde(rename = "port")]
    #[schemars(length(min = 1, max = 256))]
    ports: Vec<Port>,
}

/// The In/Out side as an operator describes it. At least one family is there, each with its next hop
/// unless the tenant reaches nothing but its peers.
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

/// The tunnel gateway as an operator describes it. What is absent follows from the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[non_exhaustive]
pub struct Tunnel {
    /// The encapsulation.
    pub kind: TunnelKind,
    /// Our tunnel endpoint, one of the uplink's own addresses. Without it that is its IPv4 address, or else
    /// its IPv6 one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vtep: Option<IpAddr>,
    /// The UDP destination port. Without it that is 6081 (Geneve) or 4789 (VXLAN).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The outer TTL or hop limit.
    #[schemars(default)]
    pub ttl: TunnelTtl,
    /// The outer DSCP.
    #[schemars(default)]
    pub dscp: TunnelDscp,
    /// Whether outer UDP checksums are computed, and over IPv6 demanded. Without it they are over IPv6 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_checksum: Option<bool>,
    /// Whether VMs may send VXLAN and Geneve packets of their own through the tunnel.
    #[schemars(default = "denied")]
    pub nested: Encapsulation,
    /// Whether TCP's maximum segment size is lowered to what the tunnel carries.
    #[schemars(default)]
    pub mss_clamp: bool,
    /// Whether the tenant reaches nothing but its peers.
    #[schemars(default)]
    pub only: bool,
    /// The other ends.
    #[serde(rename = "peer", skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = 1024))]
    pub peers: Vec<Peer>,
}

/// One other end of the tunnel as an operator describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[non_exhaustive]
pub struct Peer {
    /// Unique among the tenant's peers.
    pub name: Name,
    /// Its tunnel endpoint, of the family of our own.
    pub vtep: IpAddr,
    /// The addresses and prefixes behind it.
    #[schemars(with = "Vec<String>")]
    pub prefixes: Vec<IpNet>,
    /// The MAC that takes frames there, inside the tunnel. Without it that is the MAC of a switch of this project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// The underlay's router towards the endpoint. Without it that is the endpoint itself where it is on-link,
    /// and else the uplink's next hop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<IpAddr>,
}

impl Uplink {
    /// The MAC of the In/Out side.
    ///
    /// # Panics
    /// If there is no address, which no checked tenant's uplink lacks.
    pub fn mac(&self, vni: Vni) -> MacAddr {
        let ipv4 = self.ipv4.map(|net| IpAddr::V4(net.addr()));
        let own = ipv4.or_else(|| Some(self.ipv6?.addr().into()));
        MacAddr::of_uplink(vni, own.expect("an uplink has an address"))
    }
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

    /// The tunnel gateway, if the tenant has one.
    pub fn tunnel(&self) -> Option<&Tunnel> {
        self.tunnel.as_ref()
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
            tunnel: self.tunnel_config(),
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

    /// Whether the tenant's own addresses appear on the underlay.
    fn routes_plainly(&self) -> bool {
        self.uplink.is_some() && !self.tunnel.as_ref().is_some_and(|tunnel| tunnel.only)
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
            mac: uplink.mac(self.vni),
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

    fn tunnel_config(&self) -> Option<TunnelConfig> {
        let tunnel = self.tunnel.as_ref()?;
        let uplink = self.uplink.as_ref()?;
        let vtep = tunnel.vtep.or_else(|| uplink.first_address())?;
        let peer = |peer: &Peer| PeerConfig {
            name: peer.name.clone(),
            vtep: peer.vtep,
            mac: peer
                .mac
                .unwrap_or_else(|| MacAddr::of_vtep(self.vni, peer.vtep)),
            next_hop: peer
                .next_hop
                .or_else(|| uplink.next_hop_to(peer.vtep))
                .expect("the rules found a next hop for each peer"),
            prefixes: peer.prefixes.clone(),
        };
        Some(TunnelConfig {
            kind: tunnel.kind,
            vtep,
            port: tunnel.port.unwrap_or(tunnel.kind.default_port()),
            mac: MacAddr::of_vtep(self.vni, vtep),
            ttl: tunnel.ttl,
            dscp: tunnel.dscp,
            udp_checksum: tunnel.udp_checksum.unwrap_or(vtep.is_ipv6()),
            nested: tunnel.nested,
            mss_clamp: tunnel.mss_clamp,
            only: tunnel.only,
            peers: tunnel.peers.iter().map(peer).collect(),
        })
    }
}

impl Uplink {
    /// The switch's own address on the underlay; of two, the IPv4 one.
    fn first_address(&self) -> Option<IpAddr> {
        let ipv4 = self.ipv4.map(|net| IpAddr::V4(net.addr()));
        ipv4.or_else(|| Some(IpAddr::V6(self.ipv6?.addr())))
    }

    /// Who takes packets for `address` on the uplink's link: itself if it is there, or else the router.
    fn next_hop_to(&self, address: IpAddr) -> Option<IpAddr> {
        let (on_link, router) = match address {
            IpAddr::V4(ip) => (
                self.ipv4.is_some_and(|net| net.contains(&ip)),
                self.ipv4_next_hop.map(IpAddr::V4),
            ),
            IpAddr::V6(ip) => (
                self.ipv6.is_some_and(|net| net.contains(&ip)),
                self.ipv6_next_hop.map(IpAddr::V6),
            ),
        };
        if on_link { Some(address) } else { router }
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
            if !tenant.routes_plainly() || !other.tenant.routes_plainly() {
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
