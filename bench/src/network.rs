//! A tenant's network, and the path of frames through it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use clap::ValueEnum;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use tenant_config::{
    Addresses, Dhcp, Dns, Encapsulation, Gateway, Ipv6Autoconf, MacAddr, NextHops, PortConfig,
    SwitchConfig, UplinkConfig, Vni,
};

/// The underlay's router, the next hop of every tenant's uplink.
pub const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The router's MAC.
pub const NEXT_HOP_MAC: [u8; 6] = [0x52, 0x54, 0, 0xff, 0xff, 0xff];

/// The size of a tenant.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Its VMs, each with one port.
    pub ports: u16,
    /// IPv4 addresses of each VM, and as many IPv6 addresses.
    pub addresses: u16,
}

impl Size {
    /// A tenant of `ports` VMs with `addresses` addresses of each family.
    pub const fn new(ports: u16, addresses: u16) -> Self {
        Self { ports, addresses }
    }
}

/// The MAC of the VM at a tenant's port, counted from 1.
pub fn vm_mac(tenant: u8, port: u16) -> MacAddr {
    let [high, low] = port.to_be_bytes();
    MacAddr::new([0x52, 0x54, 0, tenant, high, low]).expect("a unicast MAC")
}

/// An IPv4 address of the VM at a port, counted from 1; `host` counts from 0.
pub fn vm_ipv4(port: u16, host: u16) -> Ipv4Addr {
    let [high, low] = (host + 2).to_be_bytes();
    Ipv4Addr::new(10, port as u8, high, low)
}

/// The same for IPv6, as text.
pub fn vm_ipv6(port: u16, host: u16) -> String {
    format!("fd00::{port:x}:{:x}", host + 2)
}

/// The virtual network of a tenant, counted from 0.
pub fn vni(tenant: u8) -> Vni {
    Vni::new(5001 + u32::from(tenant)).expect("a VNI")
}

/// The address of a tenant's switch on the underlay.
fn uplink_ipv4(tenant: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 2 + tenant)
}

/// The MAC of a tenant's switch on the underlay.
pub fn uplink_mac(tenant: u8) -> MacAddr {
    MacAddr::of_uplink(vni(tenant), uplink_ipv4(tenant).into())
}

/// The configuration of the switch of tenant `number`, counted from 0; without devices.
pub fn tenant(number: u8, size: Size) -> SwitchConfig {
    let port = |index: u16| {
        let addresses = (0..size.addresses).flat_map(|host| {
            let ipv6 = vm_ipv6(index, host).parse().expect("an address");
            [IpAddr::V4(vm_ipv4(index, host)), IpAddr::V6(ipv6)]
        });
        PortConfig {
            encapsulation: Encapsulation::Deny,
            ..PortConfig::new(
                format!("vm{index}").parse().expect("a name"),
                MacAddr::of_gateway(vni(number), vm_mac(number, index)),
                vm_mac(number, index),
                Addresses::Static(addresses.map(IpNet::from).collect()),
            )
        }
    };
    let ipv6 = format!("2001:db8::{:x}/64", 2 + u16::from(number));
    let uplink = UplinkConfig {
        ipv4: Some(Ipv4Net::new(uplink_ipv4(number), 24).expect("a length")),
        ipv6: Some(ipv6.parse().expect("a network")),
        next_hops: NextHops {
            ipv4: Some(NEXT_HOP),
            ipv6: Some("2001:db8::1".parse().expect("an address")),
        },
        ..UplinkConfig::new(uplink_mac(number))
    };
    let name = format!("bench{number}").parse().expect("a name");
    let gateway = Gateway {
        ipv4: Some("10.0.0.1/8".parse().expect("a network")),
        ipv6: Some("fd00::1/64".parse().expect("a network")),
        ipv6_autoconf: Ipv6Autoconf::default(),
        dhcp: Dhcp::default(),
        dns: Dns::default(),
    };
    SwitchConfig {
        ports: (1..=size.ports).map(port).collect(),
        uplink: Some(uplink),
        ..SwitchConfig::new(name, vni(number), gateway)
    }
}

/// The first `count` tenants.
pub fn tenants(count: u8, size: Size) -> Vec<SwitchConfig> {
    (0..count).map(|number| tenant(number, size)).collect()
}

/// The path of frames. The names are MTS's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Topology {
    /// From a VM's port, through the whole filter, to the uplink.
    P2p,
    /// From the uplink to a VM, which sends the frame back.
    P2v,
    /// From the uplink to a VM, which sends the frame to a second VM, which sends it out.
    V2v,
}

impl fmt::Display for Topology {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("none is skipped");
        out.write_str(value.get_name())
    }
}

impl Topology {
    /// The number of VMs on the path.
    pub const fn vms(self) -> u16 {
        match self {
            Self::P2p | Self::P2v => 1,
            Self::V2v => 2,
        }
    }

    /// The smallest tenant that has them.
    pub const fn size(self) -> Size {
        Size::new(self.vms(), 1)
    }

    /// The hops of a frame through the switch of `config`.
    pub fn path(self, config: &SwitchConfig) -> Vec<Hop> {
        let uplink = config.ports.len();
        let vm = |index: usize| Address::One(vm_ipv4(index as u16 + 1, 0));
        let hop = |from: usize, to: usize, source, destination| {
            let (source_mac, destination_mac) = match config.ports.get(from) {
                Some(port) => (port.mac.octets(), port.gateway_mac.octets()),
                None => {
                    let uplink = config.uplink.as_ref().expect("a tenant has an uplink");
                    (NEXT_HOP_MAC, uplink.mac.octets())
                }
            };
            Hop {
                from,
                to,
                source_mac,
                destination_mac,
                source,
                destination,
            }
        };
        match self {
            Self::P2p => vec![hop(0, uplink, vm(0), Address::External)],
            Self::P2v => vec![
                hop(uplink, 0, Address::External, vm(0)),
                hop(0, uplink, vm(0), Address::External),
            ],
            Self::V2v => vec![
                hop(uplink, 0, Address::External, vm(0)),
                hop(0, 1, vm(0), vm(1)),
                hop(1, uplink, vm(1), Address::External),
            ],
        }
    }
}

/// One pass through the switch. Ports are numbered as the switch's: the VMs' in their order, then
/// the uplink.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hop {
    /// The port that the frame is sent into.
    pub from: usize,
    /// The port that it must come out of.
    pub to: usize,
    /// The source MAC of the frame as sent.
    pub source_mac: [u8; 6],
    /// The destination MAC of the frame as sent.
    pub destination_mac: [u8; 6],
    /// The packet's source.
    pub source: Address,
    /// The packet's destination.
    pub destination: Address,
}

/// An address of a packet.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Address {
    /// The same for all flows.
    One(Ipv4Addr),
    /// An external address, another for each flow: in RFC 2544's 198.18.0.0/15.
    External,
}

impl Address {
    /// The address in a flow, whose number is below 131,072.
    pub fn of(self, flow: u32) -> Ipv4Addr {
        match self {
            Self::One(address) => address,
            Self::External => {
                Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + (flow & 0x1_ffff))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_of_all_sizes_are_valid() {
        for size in [Size::new(1, 1), Size::new(64, 1000)] {
            let config = tenant(3, size);
            assert_eq!(config.ports.len(), usize::from(size.ports));
            config.validate("a tenant").expect("a valid configuration");
            let uplink = config.uplink.expect("a tenant has an uplink");
            assert_eq!(uplink.mac, uplink_mac(3));
        }
    }
}
