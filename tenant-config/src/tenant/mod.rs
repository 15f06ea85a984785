//! The tenant file that an operator writes: TOML, checked as a whole.
//!
//! Each section of the file has a module of its own. It holds the section's shape, its reading, its
//! rules, its errors, and its part of the switch's configuration. The rules apply to tenant files
//! and to switch configurations; both are reduced to [`Facts`] for them. A value that could not be
//! read is absent there, so one bad value never hides another.

mod addresses;
mod dhcp;
mod dns;
mod encapsulation;
mod gateway;
mod host;
mod ipsec;
mod limits;
mod load;
mod metadata;
mod mtu;
mod multicast;
mod nic;
mod peer;
mod port;
mod prefixes;
mod routes;
mod shared;
mod tunnel;
mod uplink;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

pub use self::addresses::{AddressProblem, Addresses, Addresses6, LearnedFrom, MAX_ADDRESSES};
pub use self::dhcp::{
    BootFile, BootServer, Dhcp, DhcpProblem, DhcpRoute, LeaseSeconds, MAX_DHCP_LIST,
    MAX_DHCP_ROUTES,
};
pub use self::dns::{Dns, DnsProblem, MAX_RESOLVERS};
pub use self::encapsulation::Encapsulation;
pub(crate) use self::gateway::GatewayFacts;
pub use self::gateway::{Gateway, GatewayProblem, Ipv6Autoconf};
pub use self::host::{HostProblem, HostTenant, check_host};
pub use self::ipsec::{
    Authentication, Compatible, IkeConfig, IkePeer, Ipsec, IpsecConfig, IpsecProblem, IpsecSuite,
    Lifetimes, OwnCertificate, PeerIpsec, Protection,
};
pub use self::limits::{Limits, LimitsProblem};
use self::load::Loaded;
pub use self::load::{InvalidFile, TenantFiles, load_all, load_each};
pub use self::metadata::{
    DataFile, InstanceId, MAX_METADATA, MAX_PUBLIC_KEYS, MAX_USER_DATA, Metadata, MetadataConfig,
    MetadataProblem, PublicKey, UserData,
};
pub use self::mtu::{MAX_MTU, MIN_MTU_IPV4, MIN_MTU_IPV6};
pub use self::multicast::{
    AnyGroup, BroadcastUse, MAX_GROUPS, Multicast, MulticastGroups, MulticastProblem, is_own_group,
};
pub use self::nic::{LinkState, Nic, NicAttribute};
pub use self::peer::{MAX_PEERS, Peer, PeerConfig, PeerProblem};
pub(crate) use self::port::PortFacts;
pub use self::port::{Ipv6Use, MAX_EXTRA_MACS, MAX_PORTS, Port, PortConfig, PortProblem};
pub use self::prefixes::{MAX_PREFIXES, PrefixProblem};
pub use self::routes::{MAX_ROUTES, RouteProblem};
pub use self::shared::MAX_SHARED;
pub(crate) use self::tunnel::TunnelFacts;
pub use self::tunnel::{
    Inherit, Tunnel, TunnelConfig, TunnelDscp, TunnelKind, TunnelProblem, TunnelTtl,
};
pub(crate) use self::uplink::UplinkFacts;
pub use self::uplink::{MAX_ALLOWED, NextHops, Uplink, UplinkConfig, UplinkProblem};
use crate::addr::{Name, Vni};
use crate::document::{Document, Origin, Section};
use crate::error::{ConfigErrors, Report};
use crate::key::{At, KeyPath};
use crate::problem::Problem;
use crate::switch::{Device, Memory, SwitchConfig};

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
    /// The groups and broadcasts that the tenant's ports may use among themselves.
    #[serde(skip_serializing_if = "Multicast::is_default")]
    #[schemars(default)]
    multicast: Multicast,
    /// Settings that the tenant's NIC may lack.
    #[serde(skip_serializing_if = "Nic::is_default")]
    #[schemars(default)]
    nic: Nic,
    /// The tenant's ports, one for each interface of a VM.
    #[serde(rename = "port")]
    #[schemars(length(min = 1, max = 256))]
    ports: Vec<Port>,
}

/// The devices of a tenant's switch, and what else only the host knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices {
    /// One for each port, in the order of the tenant's file.
    pub ports: Vec<Device>,
    /// The In/Out side's, if and only if the tenant has an uplink.
    pub uplink: Option<Device>,
    /// The switch's packet memory.
    pub memory: Memory,
    /// The unix socket of the control API.
    pub control_socket: Option<PathBuf>,
}

/// Devices that do not match the tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceMismatch {
    /// Another number of devices than ports.
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

/// A tenant's values, as far as they could be read, each with its key.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) vni: Option<Vni>,
    pub(crate) gateway: GatewayFacts,
    /// The list of ports, if it could be read as one.
    pub(crate) ports_key: Option<KeyPath>,
    pub(crate) ports: Vec<PortFacts>,
    pub(crate) uplink: UplinkFacts,
    pub(crate) tunnel: Option<TunnelFacts>,
    /// The listed groups.
    pub(crate) groups: Vec<At<IpNet>>,
}

impl Facts {
    /// Reports every rule that the values break.
    pub(crate) fn check(&self, report: &Report) {
        self.gateway.check(report);
        self.gateway.dns.check(self, report);
        self.uplink.check(self, report);
        port::check_together(self, report);
        addresses::check(self, report);
        if let Some(tunnel) = &self.tunnel {
            tunnel.check(self, report);
        }
        multicast::check(&self.groups, report);
        metadata::check_together(self, report);
        for port in &self.ports {
            port.check(self, report);
        }
    }
}

impl Tenant {
    /// Reads a tenant from `text`; errors name it as `source_name`. Of files that it names, none is
    /// read: it may not have user data.
    ///
    /// # Errors
    /// Every error of the text at once.
    pub fn parse(source_name: &str, text: &str) -> Result<Self, ConfigErrors> {
        Self::parse_from(None, source_name, text)
    }

    /// As [`Self::parse`], of a file.
    fn parse_from(
        origin: Option<Origin<'_>>,
        source_name: &str,
        text: &str,
    ) -> Result<Self, ConfigErrors> {
        let document = Document::parse(source_name, text)?.read_from(origin);
        let report = Report::default();
        let (tenant, facts) = Self::read(document.section(&report));
        facts.check(&report);
        let errors = document.errors(report);
        match tenant {
            Some(tenant) if errors.is_empty() => Ok(tenant),
            _ => Err(ConfigErrors::check(errors)
                .expect_err("a tenant that cannot be read has left an error")),
        }
    }

    /// Reads the file's sections. A value that cannot be read is reported and left out of the
    /// facts; then there is no tenant.
    fn read(mut file: Section<'_>) -> (Option<Self>, Facts) {
        let name = file
            .require("name", "the tenant's name, as in name = \"red\"")
            .and_then(|node| node.text(Name::from_str));
        let vni = file
            .require("vni", "the tenant's virtual network, as in vni = 5001")
            .and_then(|node| node.integer(parse_vni));
        let gateway = file.require("gateway", "a [gateway] table with ipv4, ipv6 or both");
        let (gateway, gateway_facts) = Gateway::read(gateway);
        let uplink = file.get("uplink");
        // Before the uplink, because the tunnel decides whether the uplink needs next hops.
        let tunnel = file.get("tunnel").and_then(|node| node.section());
        let (tunnel, tunnel_facts) = match tunnel.map(Tunnel::read) {
            Some((tunnel, facts)) => (tunnel.map(Some), Some(facts)),
            None => (Some(None), None),
        };
        let routed = tunnel_facts.as_ref().is_none_or(TunnelFacts::is_routed);
        let (uplink, uplink_facts) = Uplink::read(uplink, routed);
        let multicast = file.get("multicast").and_then(|node| node.section());
        let (multicast, groups) = multicast.map(Multicast::read).unwrap_or_default();
        let nic = file.get("nic").and_then(|node| node.section());
        let nic = nic.map(Nic::read).unwrap_or_default();
        let (ports, ports_key, port_facts) = Port::read_all(file.get("port"));
        file.finish();
        let facts = Facts {
            vni,
            gateway: gateway_facts,
            ports_key,
            ports: port_facts,
            uplink: uplink_facts,
            tunnel: tunnel_facts,
            groups,
        };
        let tenant = || {
            Some(Self {
                name: name?,
                vni: vni?,
                gateway: gateway?,
                uplink,
                tunnel: tunnel?,
                multicast,
                nic,
                ports: ports?,
            })
        };
        (tenant(), facts)
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

    /// What the tenant's IKE daemon is configured from, if its tunnel has IPsec.
    pub fn ike_config(&self) -> Option<IkeConfig> {
        self.tunnel.as_ref()?.ike_config(self.uplink.as_ref()?)
    }

    /// The groups and broadcasts that the ports may use among themselves.
    pub fn multicast(&self) -> &Multicast {
        &self.multicast
    }

    /// Settings that the NIC may lack.
    pub fn nic(&self) -> &Nic {
        &self.nic
    }

    /// The ports in the order of the file.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// The configuration of this tenant's switch on a host with these devices.
    ///
    /// # Errors
    /// If there is not one device for each port, and one for the uplink if the tenant has one.
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
            (Some(uplink), Some(device)) => Some(uplink.config(self.vni, device)),
            (None, None) => None,
            (Some(_), None) => return Err(DeviceMismatch::UplinkMissing { tenant: tenant() }),
            (None, Some(_)) => return Err(DeviceMismatch::UplinkUnused { tenant: tenant() }),
        };
        let ports = self.ports.iter().zip(devices.ports);
        let tunnel = self.tunnel.as_ref().zip(self.uplink.as_ref());
        Ok(SwitchConfig {
            tenant: tenant(),
            vni: self.vni,
            gateway: self.gateway.clone(),
            ports: ports
                .map(|(port, device)| port.config((&self.name, self.vni), device))
                .collect(),
            uplink,
            tunnel: tunnel.map(|(tunnel, uplink)| tunnel.config(self.vni, uplink)),
            multicast: self.multicast.clone(),
            memory: devices.memory,
            control_socket: devices.control_socket,
        })
    }

    /// The configuration of this tenant's switch for frames from captures.
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
}

fn parse_vni(value: i64) -> Result<Vni, Problem> {
    u32::try_from(value)
        .ok()
        .and_then(|value| Vni::new(value).ok())
        .ok_or(Problem::VniRange { value })
}
