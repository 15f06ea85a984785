//! What one switch is given: the tenant's addresses joined with the devices that carry them. It is
//! written by the provisioner, read by the switch, and holds nothing of any other tenant.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::addr::{MacAddr, Name, PciAddress, VlanId, Vni};

/// Everything one switch needs to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SwitchConfig {
    /// The tenant, for logs and metrics.
    pub tenant: Name,
    /// The tenant's virtual network.
    pub vni: Vni,
    /// The addresses the switch answers for on every port.
    pub gateway: Gateway,
    /// The tenant's ports, in the order of the tenant's file.
    pub ports: Vec<PortConfig>,
    /// The In/Out side; without it the tenant's ports reach only each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<UplinkConfig>,
    /// The switch's packet memory.
    #[serde(default)]
    pub memory: Memory,
    /// The unix socket of the control API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_socket: Option<PathBuf>,
}

/// The gateway's addresses, each with the prefix that is on-link at every port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// VLAN identifiers of which the VM may use exactly one tag per frame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trunk: Vec<VlanId>,
    /// The VM serves DHCP to this tenant.
    #[serde(default)]
    pub dhcp_server: bool,
    /// The VM may send QEMU's RARP announce after a migration.
    #[serde(default)]
    pub announce: bool,
    /// Whether the VM may send IP-in-IP, 6in4, GRE and Teredo.
    #[serde(default)]
    pub encapsulation: Encapsulation,
    /// Largest IP packet in bytes.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// Storm control.
    #[serde(default)]
    pub limits: Limits,
}

/// The MTU where none is written: Ethernet's.
pub(crate) const fn default_mtu() -> u16 {
    1500
}

/// The IP sources of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Addresses {
    /// Exactly these addresses (as /32 or /128) and prefixes.
    Static(#[schemars(with = "Vec<String>")] Vec<IpNet>),
    /// Filled from a DHCP server's acknowledgements.
    Learned(LearnedFrom),
}

/// Where a port's addresses are learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LearnedFrom {
    /// From acknowledgements of the tenant's DHCP server; expires with the lease.
    #[serde(rename = "learn-dhcp")]
    Dhcp,
}

/// Whether a port may send tunnelled packets of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// Forwarded like any payload: the outer header is checked as any.
    #[default]
    Allow,
    /// Dropped.
    Deny,
}

/// Storm control of one port: frames (or bits) per second, each with a burst of one second.
/// What is absent is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Frames to a broadcast or multicast MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast_pps: Option<u32>,
    /// ARP and Neighbour Discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arp_nd_pps: Option<u32>,
    /// DHCP and DHCPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_pps: Option<u32>,
    /// All frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pps: Option<u32>,
    /// All bits of all frames, the Ethernet header included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bps: Option<u64>,
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
    /// Where packets for the world go.
    #[serde(default)]
    pub next_hops: NextHops,
    /// Prefixes of the underlay that the tenant may reach all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub allow: Vec<IpNet>,
    /// Largest IP packet in bytes.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
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

/// What carries a port's frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "driver", rename_all = "snake_case", deny_unknown_fields)]
pub enum Device {
    /// No device: frames come from a capture.
    Offline,
    /// A kernel interface through an AF_PACKET ring.
    AfPacket {
        /// The interface's name in the switch's network namespace.
        interface: String,
    },
    /// A kernel interface through an AF_XDP socket.
    AfXdp {
        /// The interface's name in the switch's network namespace.
        interface: String,
    },
    /// A shared-memory packet interface.
    Memif {
        /// The unix socket of the pair.
        socket: PathBuf,
        /// The interface's number on that socket.
        id: u32,
        /// Whether this side listens.
        server: bool,
    },
    /// A PCI function bound to vfio-pci.
    Pci {
        /// Its address.
        address: PciAddress,
    },
}

/// Packet memory of one switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// MiB of packet memory.
    #[serde(default = "default_memory_mib")]
    pub mib: u32,
    /// Take it from hugepages.
    #[serde(default)]
    pub hugepages: bool,
}

const fn default_memory_mib() -> u32 {
    32
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            mib: default_memory_mib(),
            hugepages: false,
        }
    }
}

impl Device {
    /// Whether the device hands up only frames for its own MAC and groups, as a VF does.
    /// Where it does not, the switch does it.
    pub const fn filters_mac(&self) -> bool {
        matches!(self, Self::Offline | Self::Pci { .. })
    }
}

impl UplinkConfig {
    /// The switch's own addresses on the underlay.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let ipv4 = self.ipv4.map(|net| IpAddr::V4(net.addr()));
        let ipv6 = self.ipv6.map(|net| IpAddr::V6(net.addr()));
        ipv4.into_iter().chain(ipv6)
    }
}
