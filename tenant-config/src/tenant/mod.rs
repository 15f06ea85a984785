//! What an operator writes about one tenant: a TOML file, checked as a whole.

mod load;
mod read;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use load::Loaded;
pub use load::load_all;

use crate::addr::{InvalidValue, MacAddr, Name, VlanId, Vni};
use crate::document::{Document, Report};
use crate::error::{ConfigErrors, KeyPath};
use crate::rules;
use crate::switch::{
    Addresses, Device, Encapsulation, Gateway, Limits, Memory, NextHops, PeerConfig, PortConfig,
    SwitchConfig, TunnelConfig, TunnelDscp, TunnelKind, TunnelTtl, UplinkConfig, default_mtu,
    denied,
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
        let (tenant, facts) = read::read_tenant(document.section(&report));
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
