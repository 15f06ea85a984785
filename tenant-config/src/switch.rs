//! What one switch is given: the tenant's addresses joined with the devices that carry them. It is
//! written by the provisioner, read by the switch, and holds nothing of any other tenant.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::addr::{InvalidValue, MacAddr, Name, PciAddress, VlanId, Vni};
use crate::document::{At, Report};
use crate::error::{ConfigError, ConfigErrors, KeyPath, Place, Problem};
use crate::rules::{self, Facts};

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
    /// The tunnels to the tenant's VMs on other hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelConfig>,
    /// The switch's packet memory.
    #[serde(default)]
    pub memory: Memory,
    /// The unix socket of the control API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_socket: Option<PathBuf>,
}

/// The name of the In/Out side; no port may have it.
pub const UPLINK_NAME: &str = "uplink";

/// One side of a switch with its device: a port's Gw side or the In/Out side.
#[derive(Debug, Clone, Copy)]
pub struct SwitchDevice<'c> {
    /// The port's name, or [`UPLINK_NAME`].
    pub name: &'c str,
    /// The device.
    pub device: &'c Device,
    /// The switch's own MAC on this side.
    pub mac: MacAddr,
    /// Largest IP packet in bytes.
    pub mtu: u16,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
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

/// The tunnel gateway: how a tenant's packets travel between hosts, and to which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TunnelConfig {
    /// The encapsulation.
    pub kind: TunnelKind,
    /// Our tunnel endpoint: one of the uplink's own addresses.
    pub vtep: IpAddr,
    /// The UDP destination port.
    pub port: u16,
    /// The MAC of our tunnel side, inside the tunnel.
    pub mac: MacAddr,
    /// The outer TTL or hop limit.
    #[serde(default)]
    pub ttl: TunnelTtl,
    /// The outer DSCP.
    #[serde(default)]
    pub dscp: TunnelDscp,
    /// Whether outer UDP checksums are computed, and over IPv6 demanded.
    pub udp_checksum: bool,
    /// Whether VMs may send VXLAN and Geneve packets of their own through the tunnel.
    #[serde(default = "denied")]
    pub nested: Encapsulation,
    /// Whether TCP's maximum segment size is lowered to what the tunnel carries.
    #[serde(default)]
    pub mss_clamp: bool,
    /// Whether the tenant reaches nothing but its peers.
    #[serde(default)]
    pub only: bool,
    /// The other ends.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
}

pub(crate) const fn denied() -> Encapsulation {
    Encapsulation::Deny
}

/// The encapsulations, of Ethernet in UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TunnelKind {
    /// RFC 8926.
    Geneve,
    /// RFC 7348.
    Vxlan,
}

impl TunnelKind {
    /// The UDP port that IANA gave it.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Geneve => 6081,
            Self::Vxlan => 4789,
        }
    }

    /// The name in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Geneve => "geneve",
            Self::Vxlan => "vxlan",
        }
    }
}

/// The TTL or hop limit of outer packets: `"inherit"`, or 1 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "the TTL is an integer from 1 to 255, or \"inherit\""
)]
pub enum TunnelTtl {
    /// Always this.
    Fixed(#[schemars(range(min = 1))] u8),
    /// The inner packet's.
    Inherit(Inherit),
}

impl Default for TunnelTtl {
    fn default() -> Self {
        Self::Fixed(64)
    }
}

/// The DSCP of outer packets: `"inherit"`, or 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "the DSCP is an integer from 0 to 63, or \"inherit\""
)]
pub enum TunnelDscp {
    /// Always this.
    Fixed(#[schemars(range(max = 63))] u8),
    /// The inner packet's.
    Inherit(Inherit),
}

impl Default for TunnelDscp {
    fn default() -> Self {
        Self::Inherit(Inherit::Inherit)
    }
}

/// The word for "as the inner packet has it".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Inherit {
    /// As the inner packet has it.
    Inherit,
}

/// One other end of the tunnel, and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Unique within the tenant.
    pub name: Name,
    /// Its tunnel endpoint on the underlay.
    pub vtep: IpAddr,
    /// The MAC that takes frames there, inside the tunnel.
    pub mac: MacAddr,
    /// Who takes packets for the endpoint on our link of the underlay: the endpoint itself, or a router.
    pub next_hop: IpAddr,
    /// The addresses (as /32 or /128) and prefixes behind it.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub prefixes: Vec<IpNet>,
}

impl TunnelConfig {
    /// What the tunnel adds to a packet that it carries, in bytes.
    pub const fn overhead(&self) -> u16 {
        rules::tunnel_overhead(self.vtep)
    }
}

/// What carries a port's frames.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
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
        /// The VLAN that the NIC puts this function on: it adds the tag to what the function sends and
        /// takes it off what the function receives (VST), so it is no tag of the VM's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vlan: Option<VlanId>,
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

impl<'de> Deserialize<'de> for Addresses {
    /// By hand, for errors that name the bad entry: serde's own for an untagged enum names none.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListOrWord;

        impl<'de> Visitor<'de> for ListOrWord {
            type Value = Addresses;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an array of addresses with prefix length, or \"learn-dhcp\"")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Addresses, E> {
                match word {
                    "learn-dhcp" => Ok(Addresses::Learned(LearnedFrom::Dhcp)),
                    _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Addresses, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(Addresses::Static)
            }
        }

        deserializer.deserialize_any(ListOrWord)
    }
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
            trunk: Vec::new(),
            dhcp_server: false,
            announce: false,
            encapsulation: Encapsulation::default(),
            mtu: default_mtu(),
            limits: Limits::default(),
        }
    }
}

impl UplinkConfig {
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
        }
    }
}

impl TunnelConfig {
    /// A tunnel without peers, whose other keys follow from these as in a tenant's file.
    pub fn new(kind: TunnelKind, vni: Vni, vtep: IpAddr) -> Self {
        Self {
            kind,
            vtep,
            port: kind.default_port(),
            mac: MacAddr::of_vtep(vni, vtep),
            ttl: TunnelTtl::default(),
            dscp: TunnelDscp::default(),
            udp_checksum: vtep.is_ipv6(),
            nested: denied(),
            mss_clamp: false,
            only: false,
            peers: Vec::new(),
        }
    }
}

impl SwitchConfig {
    /// A switch without ports, uplink and tunnel; every other key has its default.
    pub fn new(tenant: Name, vni: Vni, gateway: Gateway) -> Self {
        Self {
            tenant,
            vni,
            gateway,
            ports: Vec::new(),
            uplink: None,
            tunnel: None,
            memory: Memory::default(),
            control_socket: None,
        }
    }

    /// The switch's devices: the ports' in the order of the file, then the uplink's.
    pub fn devices(&self) -> impl Iterator<Item = SwitchDevice<'_>> {
        let ports = self.ports.iter().map(|port| SwitchDevice {
            name: port.name.as_str(),
            device: &port.device,
            mac: port.gateway_mac,
            mtu: port.mtu,
        });
        let uplink = self.uplink.iter().map(|uplink| SwitchDevice {
            name: UPLINK_NAME,
            device: &uplink.device,
            mac: uplink.mac,
            mtu: uplink.mtu,
        });
        ports.chain(uplink)
    }

    /// The devices of [`Self::devices`], in the same order, to be replaced.
    pub fn devices_mut(&mut self) -> impl Iterator<Item = &mut Device> {
        let ports = self.ports.iter_mut().map(|port| &mut port.device);
        ports.chain(self.uplink.iter_mut().map(|uplink| &mut uplink.device))
    }

    /// Reads what a provisioner wrote; `source_name` stands for it in errors.
    ///
    /// # Errors
    /// The first error of syntax or shape, or everything that does not hold between the values.
    pub fn from_json(source_name: &str, text: &str) -> Result<Self, ConfigErrors> {
        let mut json = serde_json::Deserializer::from_str(text);
        let config: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| shape_error(source_name, key_path(error.path()), error.inner()))?;
        json.end()
            .map_err(|error| shape_error(source_name, KeyPath::default(), &error))?;
        config.validate(source_name)?;
        Ok(config)
    }

    /// Checks what must hold between the values, as the switch's tables rely on it: names, MACs,
    /// addresses and devices that belong to one port each, addresses that the gateway can route, MTUs
    /// and limits that make sense.
    ///
    /// # Errors
    /// Everything that does not hold; the errors have keys but no lines.
    pub fn validate(&self, source_name: &str) -> Result<(), ConfigErrors> {
        let report = Report::default();
        self.check_lengths(&report);
        // Each value's key takes many times the value's memory, so these are made for bounded lists only.
        if report.is_empty() {
            rules::check(&self.facts(&report), &report);
            self.check_devices(&report);
        }
        let error = |(key, problem): (KeyPath, Problem)| ConfigError {
            file: source_name.to_owned(),
            place: None,
            port: key
                .port_index()
                .and_then(|index| Some(self.ports.get(index)?.name.to_string())),
            key,
            problem,
        };
        ConfigErrors::check(report.into_inner().into_iter().map(error).collect())
    }

    /// Reports lists that are longer than any of a tenant can be.
    fn check_lengths(&self, report: &Report) {
        let check = |key: KeyPath, count: usize, max: usize| {
            if count > max {
                report.add(&key, Problem::TooMany { count, max });
            }
        };
        check(KeyPath::of("ports"), self.ports.len(), rules::MAX_PORTS);
        for (index, port) in self.ports.iter().enumerate() {
            let table = KeyPath::of("ports").index(index);
            if let Addresses::Static(list) = &port.addresses {
                check(table.key("addresses"), list.len(), rules::MAX_ADDRESSES);
            }
            let macs = port.extra_macs.len();
            check(table.key("extra_macs"), macs, rules::MAX_EXTRA_MACS);
            check(table.key("trunk"), port.trunk.len(), rules::MAX_TRUNK);
        }
        if let Some(uplink) = &self.uplink {
            let allow = KeyPath::of("uplink").key("allow");
            check(allow, uplink.allow.len(), rules::MAX_ALLOWED);
        }
        if let Some(tunnel) = &self.tunnel {
            let peers = KeyPath::of("tunnel").key("peers");
            check(peers.clone(), tunnel.peers.len(), rules::MAX_PEERS);
            let count = tunnel.peers.iter().map(|peer| peer.prefixes.len()).sum();
            let max = rules::MAX_PREFIXES;
            if count > max {
                report.add(&peers, Problem::TooManyPrefixes { count, max });
            }
        }
    }

    /// The values as the rules take them.
    fn facts(&self, report: &Report) -> Facts {
        let gateway = KeyPath::of("gateway");
        let addresses = by_family(&gateway, self.gateway.ipv4, self.gateway.ipv6).collect();
        Facts {
            vni: Some(self.vni),
            gateway: rules::Gateway {
                key: gateway,
                addresses,
                unreadable: false,
            },
            ports_key: Some(KeyPath::of("ports")),
            ports: self
                .ports
                .iter()
                .enumerate()
                .map(|(index, port)| port.facts(&KeyPath::of("ports").index(index)))
                .collect(),
            uplink: self
                .uplink
                .as_ref()
                .map(|uplink| uplink.facts(&KeyPath::of("uplink"), report))
                .unwrap_or_default(),
            tunnel: self
                .tunnel
                .as_ref()
                .map(|tunnel| tunnel.facts(&KeyPath::of("tunnel"))),
        }
    }

    /// What only the switch's own side has: devices, its MACs, its memory.
    fn check_devices(&self, report: &Report) {
        let keyed = self.ports.iter().enumerate();
        let ports = keyed.map(|(index, port)| (KeyPath::of("ports").index(index), port));
        let vm_macs: HashMap<MacAddr, KeyPath> = ports
            .clone()
            .map(|(key, port)| (port.mac, key.key("mac")))
            .collect();
        let keys = ports.map(|(key, _)| (key.key("gateway_mac"), key));
        let uplink = KeyPath::of("uplink");
        let keys = keys.chain([(uplink.key("mac"), uplink)]);
        let mut devices: HashMap<&Device, KeyPath> = HashMap::new();
        for (side, (mac_key, key)) in self.devices().zip(keys) {
            let mac = side.mac;
            if let Some(other) = vm_macs.get(&mac) {
                let other = other.to_string();
                report.add(&mac_key, Problem::DuplicateMac { mac, other });
            }
            if *side.device == Device::Offline {
                continue;
            }
            if let Some(other) = devices.insert(side.device, key.clone()) {
                let other = other.to_string();
                report.add(&key.key("device"), Problem::DuplicateDevice { other });
            }
        }
        if self.memory.mib == 0 {
            let problem = InvalidValue::new(0, "a size in MiB of at least 1").into();
            report.add(&KeyPath::of("memory").key("mib"), problem);
        }
    }
}

/// A path of serde's as a key.
fn key_path(path: &serde_path_to_error::Path) -> KeyPath {
    use serde_path_to_error::Segment;
    path.iter()
        .fold(KeyPath::default(), |key, step| match step {
            Segment::Seq { index } => key.index(*index),
            Segment::Map { key: name } => key.key(name),
            Segment::Enum { .. } | Segment::Unknown => key,
        })
}

/// An error of JSON's syntax or of a value's shape, where serde met it.
fn shape_error(source_name: &str, key: KeyPath, error: &serde_json::Error) -> ConfigErrors {
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    let reason = message
        .strip_suffix(&format!(" at line {line} column {column}"))
        .unwrap_or(&message);
    ConfigErrors::from(ConfigError {
        file: source_name.to_owned(),
        place: (line > 0).then_some(Place { line, column }),
        key,
        port: None,
        problem: Problem::Syntax {
            reason: reason.to_owned(),
        },
    })
}

/// The addresses of the families that are there, with their keys.
fn by_family(
    table: &KeyPath,
    ipv4: Option<Ipv4Net>,
    ipv6: Option<Ipv6Net>,
) -> impl Iterator<Item = At<IpNet>> {
    let ipv4 = ipv4.map(|net| At::new(table.key("ipv4"), IpNet::V4(net)));
    let ipv6 = ipv6.map(|net| At::new(table.key("ipv6"), IpNet::V6(net)));
    ipv4.into_iter().chain(ipv6)
}

/// The elements of an array, with their keys.
fn elements<T: Copy>(array: &KeyPath, values: &[T]) -> Vec<At<T>> {
    values
        .iter()
        .enumerate()
        .map(|(index, value)| At::new(array.index(index), *value))
        .collect()
}

impl PortConfig {
    fn facts(&self, table: &KeyPath) -> rules::Port {
        let addresses = table.key("addresses");
        let limits = table.key("limits");
        let (listed, learned) = match &self.addresses {
            Addresses::Static(list) => (&list[..], None),
            Addresses::Learned(LearnedFrom::Dhcp) => (&[][..], Some(addresses.clone())),
        };
        rules::Port {
            name: Some(At::new(table.key("name"), self.name.clone())),
            mac: Some(At::new(table.key("mac"), self.mac)),
            extra_macs: elements(&table.key("extra_macs"), &self.extra_macs),
            addresses: elements(&addresses, listed),
            listed: learned.is_none().then(|| At::new(addresses, listed.len())),
            learned,
            trunk: elements(&table.key("trunk"), &self.trunk),
            dhcp_server: self.dhcp_server,
            mtu: Some(At::new(table.key("mtu"), self.mtu.into())),
            limits: self
                .limits
                .by_name()
                .map(|(name, rate)| At::new(limits.key(name), rate))
                .collect(),
        }
    }
}

impl UplinkConfig {
    fn facts(&self, table: &KeyPath, report: &Report) -> rules::Uplink {
        let hops = table.key("next_hops");
        let ipv4 = self
            .next_hops
            .ipv4
            .map(|ip| At::new(hops.key("ipv4"), IpAddr::V4(ip)));
        let ipv6 = self
            .next_hops
            .ipv6
            .map(|ip| At::new(hops.key("ipv6"), IpAddr::V6(ip)));
        for (key, lacks) in [
            (
                "ipv4",
                self.ipv4.is_none() && (ipv4.is_some() || self.ipv6.is_none()),
            ),
            ("ipv6", self.ipv6.is_none() && ipv6.is_some()),
        ] {
            if lacks {
                let expected = "the switch's own address of that family, with its prefix length";
                report.add(&table.key(key), Problem::MissingKey { expected });
            }
        }
        let links = by_family(table, self.ipv4, self.ipv6).map(|address| {
            let hop = if address.value.addr().is_ipv4() {
                &ipv4
            } else {
                &ipv6
            };
            (address, hop.clone())
        });
        rules::Uplink {
            key: Some(table.clone()),
            links: links.collect(),
            unreadable: false,
            allow: elements(&table.key("allow"), &self.allow),
            mtu: Some(At::new(table.key("mtu"), self.mtu.into())),
        }
    }
}

impl TunnelConfig {
    fn facts(&self, table: &KeyPath) -> rules::Tunnel {
        let peers = table.key("peers");
        rules::Tunnel {
            key: table.clone(),
            vtep: Some(At::new(table.key("vtep"), self.vtep)),
            unreadable: false,
            mac: Some(self.mac),
            port: Some(At::new(table.key("port"), self.port.into())),
            ttl: match self.ttl {
                TunnelTtl::Fixed(ttl) => Some(At::new(table.key("ttl"), ttl)),
                TunnelTtl::Inherit(Inherit::Inherit) => None,
            },
            dscp: match self.dscp {
                TunnelDscp::Fixed(dscp) => Some(At::new(table.key("dscp"), dscp)),
                TunnelDscp::Inherit(Inherit::Inherit) => None,
            },
            only: Some(self.only),
            peers: self
                .peers
                .iter()
                .enumerate()
                .map(|(index, peer)| peer.facts(peers.index(index)))
                .collect(),
            listed: Some(At::new(peers, self.peers.len())),
        }
    }
}

impl PeerConfig {
    fn facts(&self, table: KeyPath) -> rules::Peer {
        rules::Peer {
            name: Some(At::new(table.key("name"), self.name.clone())),
            vtep: Some(At::new(table.key("vtep"), self.vtep)),
            mac: Some(At::new(table.key("mac"), self.mac)),
            next_hop: Some(At::new(table.key("next_hop"), self.next_hop)),
            unreadable: false,
            prefixes: (0..).zip(self.prefixes.iter().copied()).collect(),
            listed: self.prefixes.len(),
            key: table,
        }
    }
}

impl Limits {
    /// The limits that are there, by the names of their keys.
    pub fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("broadcast_pps", self.broadcast_pps.map(u64::from)),
            ("arp_nd_pps", self.arp_nd_pps.map(u64::from)),
            ("dhcp_pps", self.dhcp_pps.map(u64::from)),
            ("pps", self.pps.map(u64::from)),
            ("bps", self.bps),
        ]
        .into_iter()
        .filter_map(|(name, rate)| Some((name, rate?)))
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
