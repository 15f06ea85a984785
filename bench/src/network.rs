//! A tenant's network, and the way that frames take through it.

use std::fmt;
use std::net::Ipv4Addr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tenant_config::{
    Addresses, Encapsulation, Gateway, MacAddr, NextHops, PortConfig, SwitchConfig, UplinkConfig,
    Vni,
};

/// The underlay's router, which every tenant's uplink sends to.
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

/// The MAC of a tenant's VM at the port of that number, from 1.
pub fn vm_mac(tenant: u8, port: u16) -> MacAddr {
    let [high, low] = port.to_be_bytes();
    MacAddr::new([0x52, 0x54, 0, tenant, high, low]).expect("a unicast MAC")
}

/// The IPv4 addresses of the VM at the port of that number, from 1; `host` counts from 0.
pub fn vm_ipv4(port: u16, host: u16) -> Ipv4Addr {
    let [high, low] = (host + 2).to_be_bytes();
    Ipv4Addr::new(10, port as u8, high, low)
}

/// The same for IPv6, in text.
pub fn vm_ipv6(port: u16, host: u16) -> String {
    format!("fd00::{port:x}:{:x}", host + 2)
}

/// What the switch of tenant `number` (from 0) is to know. Its devices are still to be named.
pub fn tenant(number: u8, size: Size) -> SwitchConfig {
    let vni = Vni::new(5001 + u32::from(number)).expect("a VNI");
    let port = |index: u16| {
        let addresses = (0..size.addresses).flat_map(|host| {
            [
                format!("{}/32", vm_ipv4(index, host)),
                format!("{}/128", vm_ipv6(index, host)),
            ]
        });
        let addresses = addresses.map(|net| net.parse().expect("an address"));
        PortConfig {
            encapsulation: Encapsulation::Deny,
            ..PortConfig::new(
                format!("vm{index}").parse().expect("a name"),
                MacAddr::of_switch_function(vni, index),
                vm_mac(number, index),
                Addresses::Static(addresses.collect()),
            )
        }
    };
    let name = format!("bench{number}").parse().expect("a name");
    let gateway = Gateway {
        ipv4: Some("10.0.0.1/8".parse().expect("a network")),
        ipv6: Some("fd00::1/64".parse().expect("a network")),
    };
    SwitchConfig {
        ports: (1..=size.ports).map(port).collect(),
        uplink: Some(UplinkConfig {
            ipv4: Some(
                format!("192.0.2.{}/24", 2 + number)
                    .parse()
                    .expect("a network"),
            ),
            ipv6: Some(
                format!("2001:db8::{:x}/64", 2 + u16::from(number))
                    .parse()
                    .expect("a network"),
            ),
            next_hops: NextHops {
                ipv4: Some(NEXT_HOP),
                ipv6: Some("2001:db8::1".parse().expect("an address")),
            },
            ..UplinkConfig::new(MacAddr::of_switch_function(vni, 0))
        }),
        ..SwitchConfig::new(name, vni, gateway)
    }
}

/// So many tenants, from number 0 on.
pub fn tenants(count: u8, size: Size) -> Vec<SwitchConfig> {
    (0..count).map(|number| tenant(number, size)).collect()
}

/// Where frames go. The names are MTS's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Topology {
    /// From port to port: a VM's, with the whole filter, to the uplink.
    P2p,
    /// From the uplink to a VM, which sends it back.
    P2v,
    /// From the uplink to a VM, which sends it to a second VM, which sends it out.
    V2v,
}

impl fmt::Display for Topology {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("none is skipped");
        out.write_str(value.get_name())
    }
}

impl Topology {
    /// VMs that it takes.
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

    /// The way of a frame through the switch of `config`.
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
            Self::P2p => vec![hop(0, uplink, vm(0), Address::Outside)],
            Self::P2v => vec![
                hop(uplink, 0, Address::Outside, vm(0)),
                hop(0, uplink, vm(0), Address::Outside),
            ],
            Self::V2v => vec![
                hop(uplink, 0, Address::Outside, vm(0)),
                hop(0, 1, vm(0), vm(1)),
                hop(1, uplink, vm(1), Address::Outside),
            ],
        }
    }
}

/// One pass through the switch. Ports count as the switch's do: the VMs' in their order, then the uplink.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hop {
    /// Where the frame is sent into the switch.
    pub from: usize,
    /// Where it is to come out.
    pub to: usize,
    /// Of the frame as it is sent.
    pub source_mac: [u8; 6],
    /// Of the frame as it is sent.
    pub destination_mac: [u8; 6],
    /// Of its packet.
    pub source: Address,
    /// Of its packet.
    pub destination: Address,
}

/// One end of a packet.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Address {
    /// The same for all flows.
    One(Ipv4Addr),
    /// Somewhere in the world, for each flow somewhere else: in RFC 2544's 198.18.0.0/15.
    Outside,
}

impl Address {
    /// The address in that flow, less than 131,072.
    pub fn of(self, flow: u32) -> Ipv4Addr {
        match self {
            Self::One(address) => address,
            Self::Outside => {
                Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + (flow & 0x1_ffff))
            }
        }
    }
}
