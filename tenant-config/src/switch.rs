//! The configuration of one switch: the tenant's addresses and the devices that carry them. The
//! provisioner writes it and the switch reads it; it holds nothing of any other tenant.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::addr::{InvalidValue, MacAddr, Name, PciAddress, VlanId, Vni};
use crate::error::{ConfigError, ConfigErrors, Place, Report};
use crate::key::KeyPath;
use crate::problem::Problem;
use crate::tenant::{
    Facts, Gateway, MAX_PORTS, Multicast, PortConfig, PortProblem, TunnelConfig, UplinkConfig,
};

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
    /// The groups and broadcasts that the tenant's ports may use among themselves.
    #[serde(default, skip_serializing_if = "Multicast::is_default")]
    pub multicast: Multicast,
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
    /// The largest IP packet that the device takes, in bytes.
    pub mtu: u16,
}

/// The device that carries a port's frames.
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
    /// A shared-memory packet interface. Its peer must be trusted: it reads and writes the memory
    /// that the frames are in, at any time, and may crash or hang the switch.
    Memif {
        /// The unix socket of the pair.
        socket: PathBuf,
        /// The interface's number on that socket.
        id: u32,
        /// Whether this side listens.
        server: bool,
        /// Declares that the peer is trusted as much as the switch. Without it the device is
        /// refused; a VM is no such peer.
        #[serde(default)]
        trusted_peer: bool,
    },
    /// A PCI function bound to vfio-pci.
    Pci {
        /// Its address.
        address: PciAddress,
        /// The VLAN that the NIC puts this function on: it adds the tag to frames that the function
        /// sends and removes it from frames that it receives (VST). So it is not the VM's tag.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vlan: Option<VlanId>,
    },
}

impl Device {
    /// Whether the device receives only frames for its own MAC and groups, as a VF does.
    /// Otherwise the switch filters them.
    pub const fn filters_mac(&self) -> bool {
        matches!(self, Self::Offline | Self::Pci { .. })
    }
}

/// The driver and the device, as the control API and `status` show them.
impl fmt::Display for Device {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline => out.write_str("offline"),
            Self::AfPacket { interface } => write!(out, "af_packet:{interface}"),
            Self::AfXdp { interface } => write!(out, "af_xdp:{interface}"),
            Self::Memif { socket, id, .. } => write!(out, "memif:{}:{id}", socket.display()),
            Self::Pci { address, .. } => write!(out, "pci:{address}"),
        }
    }
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

impl SwitchConfig {
    /// The In/Out side's link-local address, if a next hop has one: by it the two find each other.
    pub fn uplink_link_local(&self) -> Option<Ipv6Addr> {
        let uplink = self.uplink.as_ref()?;
        let router = uplink.next_hops.ipv6.map(IpAddr::V6);
        let peers = self.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
        let mut hops = router.into_iter().chain(peers.map(|peer| peer.next_hop));
        let used = hops.any(|hop| matches!(hop, IpAddr::V6(hop) if hop.is_unicast_link_local()));
        used.then(|| uplink.mac.link_local())
    }

    /// The first difference of `new` that a running switch cannot make, as a sentence: devices are
    /// opened and memory is allocated before the switch drops its privileges.
    pub fn needs_restart(&self, new: &Self) -> Option<String> {
        let old = self;
        if old.tenant != new.tenant {
            return Some(format!("the tenant is {}, not {}", old.tenant, new.tenant));
        }
        if old.memory != new.memory {
            return Some("memory is another".to_owned());
        }
        if old.control_socket != new.control_socket {
            return Some("control_socket is another".to_owned());
        }
        if old.ports.len() != new.ports.len() {
            let (old, new) = (old.ports.len(), new.ports.len());
            return Some(format!("there are {new} ports instead of {old}"));
        }
        for (old, new) in old.ports.iter().zip(&new.ports) {
            let name = &old.name;
            if old.name != new.name {
                return Some(format!("port {name} is now {}", new.name));
            }
            if old.device != new.device {
                return Some(format!("port {name} has another device"));
            }
            if old.mtu != new.mtu {
                return Some(format!("port {name} has another mtu"));
            }
        }
        // The socket to the IKE daemon is opened before the switch drops its privileges.
        let ipsec = |config: &Self| {
            let tunnel = config.tunnel.as_ref();
            tunnel.is_some_and(|tunnel| tunnel.ipsec.is_some())
        };
        match (ipsec(old), ipsec(new)) {
            (false, true) => return Some("there is IPsec now".to_owned()),
            (true, false) => return Some("there is no IPsec any more".to_owned()),
            (true, true) | (false, false) => {}
        }
        match (&old.uplink, &new.uplink) {
            (None, None) => None,
            (Some(old), Some(new)) if old.device != new.device => {
                Some("the uplink has another device".to_owned())
            }
            (Some(old), Some(new)) if old.mtu != new.mtu => {
                Some("the uplink has another mtu".to_owned())
            }
            (Some(_), Some(_)) => None,
            (Some(_), None) => Some("there is no uplink any more".to_owned()),
            (None, Some(_)) => Some("there is an uplink now".to_owned()),
        }
    }

    /// A switch without ports, uplink and tunnel; every other key has its default.
    pub fn new(tenant: Name, vni: Vni, gateway: Gateway) -> Self {
        Self {
            tenant,
            vni,
            gateway,
            ports: Vec::new(),
            uplink: None,
            tunnel: None,
            multicast: Multicast::default(),
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
            mtu: port.device_mtu(),
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

    /// Reads JSON that a provisioner wrote; errors name it as `source_name`.
    ///
    /// # Errors
    /// The first error of syntax or shape, or every rule that the values break.
    pub fn from_json(source_name: &str, text: &str) -> Result<Self, ConfigErrors> {
        let mut json = serde_json::Deserializer::from_str(text);
        let config: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| shape_error(source_name, key_path(error.path()), error.inner()))?;
        json.end()
            .map_err(|error| shape_error(source_name, KeyPath::default(), &error))?;
        config.validate(source_name)?;
        Ok(config)
    }

    /// Checks the rules that the switch's tables rely on: names, MACs, addresses and devices that
    /// belong to one port each, addresses that the gateway can route, valid MTUs and limits.
    ///
    /// # Errors
    /// Every rule that the values break; the errors have keys but no lines.
    pub fn validate(&self, source_name: &str) -> Result<(), ConfigErrors> {
        let report = Report::default();
        self.check_lengths(&report);
        // A value's key takes many times the value's memory, so keys are built for bounded lists
        // only.
        if report.is_empty() {
            if let Some(uplink) = &self.uplink {
                uplink.check_families(&KeyPath::of("uplink"), &report);
            }
            self.facts().check(&report);
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

    /// Reports lists that are longer than any tenant's.
    fn check_lengths(&self, report: &Report) {
        let dhcp = KeyPath::of("gateway").key("dhcp");
        self.gateway.dhcp.check_lengths(&dhcp, report);
        let dns = KeyPath::of("gateway").key("dns");
        self.gateway.dns.check_lengths(&dns, report);
        report.bound(&KeyPath::of("ports"), self.ports.len(), MAX_PORTS);
        for (index, port) in self.ports.iter().enumerate() {
            port.check_lengths(&KeyPath::of("ports").index(index), report);
        }
        let multicast = KeyPath::of("multicast");
        self.multicast.check_lengths(&multicast, report);
        if let Some(uplink) = &self.uplink {
            uplink.check_lengths(&KeyPath::of("uplink"), report);
        }
        if let Some(tunnel) = &self.tunnel {
            tunnel.check_lengths(&KeyPath::of("tunnel"), report);
        }
    }

    /// The values as the rules take them.
    fn facts(&self) -> Facts {
        let ports = self.ports.iter().enumerate();
        let uplink = self.uplink.as_ref();
        let uplink = uplink.map(|uplink| uplink.facts(&KeyPath::of("uplink")));
        let tunnel = self.tunnel.as_ref();
        Facts {
            vni: Some(self.vni),
            gateway: self.gateway.facts(KeyPath::of("gateway")),
            ports_key: Some(KeyPath::of("ports")),
            ports: ports
                .map(|(index, port)| port.facts(&KeyPath::of("ports").index(index)))
                .collect(),
            uplink: uplink.unwrap_or_default(),
            tunnel: tunnel.map(|tunnel| tunnel.facts(KeyPath::of("tunnel"))),
            groups: self.multicast.facts(&KeyPath::of("multicast")),
        }
    }

    /// Checks the values that only a switch's configuration has: devices, own MACs, memory.
    fn check_devices(&self, report: &Report) {
        let keyed = self.ports.iter().enumerate();
        let ports = keyed.map(|(index, port)| (KeyPath::of("ports").index(index), port));
        let vm_macs: HashMap<MacAddr, KeyPath> = ports
            .clone()
            .flat_map(|(key, port)| {
                let extra = port.extra_macs.iter().enumerate();
                let extra = extra.map(|(index, mac)| (*mac, key.key("extra_macs").index(index)));
                extra
                    .chain([(port.mac, key.key("mac"))])
                    .collect::<Vec<_>>()
            })
            .collect();
        let keys = ports.map(|(key, _)| (key.key("gateway_mac"), key));
        let uplink = KeyPath::of("uplink");
        let keys = keys.chain([(uplink.key("mac"), uplink)]);
        let mut devices: HashMap<&Device, KeyPath> = HashMap::new();
        for (side, (mac_key, key)) in self.devices().zip(keys) {
            let mac = side.mac;
            if let Some(other) = vm_macs.get(&mac) {
                let other = other.to_string();
                report.add(&mac_key, PortProblem::DuplicateMac { mac, other });
            }
            if *side.device == Device::Offline {
                continue;
            }
            if let Device::Memif {
                trusted_peer: false,
                ..
            } = side.device
            {
                let key = key.key("device").key("trusted_peer");
                report.add(&key, SwitchProblem::UntrustedPeer);
            }
            if let Some(other) = devices.insert(side.device, key.clone()) {
                let other = other.to_string();
                report.add(&key.key("device"), SwitchProblem::DuplicateDevice { other });
            }
        }
        if self.memory.mib == 0 {
            let problem = InvalidValue::new(0, "a size in MiB of at least 1");
            report.add(&KeyPath::of("memory").key("mib"), problem);
        }
    }
}

/// The key of a path in serde's errors.
fn key_path(path: &serde_path_to_error::Path) -> KeyPath {
    use serde_path_to_error::Segment;
    path.iter()
        .fold(KeyPath::default(), |key, step| match step {
            Segment::Seq { index } => key.index(*index),
            Segment::Map { key: name } => key.key(name),
            Segment::Enum { .. } | Segment::Unknown => key,
        })
}

/// An error of JSON syntax or of a value's shape, at the place where serde found it.
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

/// An error in a switch's devices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SwitchProblem {
    /// One device for two sides.
    #[error("this device also carries {other}; every port has its own")]
    DuplicateDevice {
        /// The other port's key.
        other: String,
    },
    /// A device whose peer shares memory with the switch, and is not declared trusted.
    #[error(
        "missing or false; the peer of a memif shares memory with the switch, can read and change \
         frames there after they are checked, and can crash or hang it: write true only for a peer \
         that is trusted as much as the switch, which a VM is not"
    )]
    UntrustedPeer,
}
