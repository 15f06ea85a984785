//! What one port may do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use packet::addr;
use packet::number::ethertype;
use packet::refused::{SPECIAL_PORTS, SPECIAL_PORTS_OF_DENYING, SpecialPorts};
use packet::wire::ethernet::source_and_type_of;
use tenant_config::{Addresses, Encapsulation, Ipv6Use, Limits, PortConfig};

use super::target::{PackedTarget, Target};
use crate::ids::PortId;

/// What one port may do.
#[derive(Debug, PartialEq)]
pub(crate) struct PortRules {
    pub(crate) id: PortId,
    /// Where the port's own addresses lead.
    pub(crate) target: PackedTarget,
    pub(crate) mac: [u8; 6],
    pub(crate) extra_macs: Box<[[u8; 6]]>,
    pub(crate) gateway_mac: [u8; 6],
    /// The VM's own link-local address.
    pub(crate) link_local: u128,
    /// The gateway's link-local address at this port.
    pub(crate) gateway_link_local: u128,
    /// Destination and source MAC of frames that leave by the port.
    pub(crate) header: [u8; 12],
    pub(crate) trunk: Box<[u16]>,
    pub(crate) mtu: u16,
    pub(crate) dhcp_server: bool,
    /// Whether the port's IPv4 address comes from DHCP.
    pub(crate) learns: bool,
    /// Whether the port may claim addresses in the gateway's IPv6 subnet.
    pub(crate) learns6: bool,
    pub(crate) announce: bool,
    pub(crate) deny_encapsulation: bool,
    pub(crate) deny_ipv6: bool,
    pub(crate) limited: bool,
    pub(crate) limits: Limits,
    /// Whether the port may hold shared addresses.
    pub(crate) shares: bool,
    /// Whether metadata is served to the port.
    pub(crate) metadata: bool,
    /// Group frames a second that the port may send to others, and get from them.
    pub(crate) multicast_pps: u64,
    /// `None` if the fast path does not serve the port: it has tags, limits of all frames, a
    /// learned address, or one that may not be routed.
    pub(crate) express: Option<PortExpress>,
}

/// What the fast path compares the frames of a port with: small, so that a burst has it at hand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PortExpress {
    /// Where the port's own addresses lead.
    pub(crate) target: PackedTarget,
    /// The longest IP packet.
    pub(crate) mtu: usize,
    /// The UDP ports that the fast path leaves to the general one.
    pub(crate) special_ports: &'static SpecialPorts,
    /// The port's source MAC and EtherType as one number, for IPv4 and for IPv6; [`NO_SENDER`] if
    /// it may not use that.
    pub(crate) sender4: u64,
    pub(crate) sender6: u64,
    /// An address of the port's, as a packet's source lies in memory; of IPv4 [`NO_ADDRESS4`] if it
    /// has none.
    pub(crate) own4: u64,
    pub(crate) own6: Option<u128>,
}

/// The limit of group frames of a port for which the file has none.
const MULTICAST_PPS: u32 = 1000;

/// No frame has this source and EtherType.
const NO_SENDER: u64 = 0;
/// More than any IPv4 address.
const NO_ADDRESS4: u64 = 1 << 32;

/// What the fast path needs to know of a port that it sends to.
#[derive(Debug, PartialEq)]
#[repr(align(16))]
pub(crate) struct PortEgress {
    /// Destination and source MAC.
    pub(crate) header: [u8; 12],
    /// The longest IP packet that leaves unchanged; 0 where the fast path does not serve the port.
    pub(crate) max_len: u16,
}

impl PortRules {
    /// `owns` tells whether an address leads to that port.
    pub(super) fn new(
        id: PortId,
        port: &PortConfig,
        owns: impl Fn(IpAddr, PackedTarget) -> bool,
    ) -> Self {
        let target = PackedTarget::new(Target::Port(id));
        let (mac, gateway_mac) = (port.mac.octets(), port.gateway_mac.octets());
        let mut header = [0; 12];
        header[..6].copy_from_slice(&mac);
        header[6..].copy_from_slice(&gateway_mac);
        Self {
            id,
            target,
            mac,
            extra_macs: port.extra_macs.iter().map(|mac| mac.octets()).collect(),
            gateway_mac,
            link_local: port.mac.link_local().to_bits(),
            gateway_link_local: port.gateway_mac.link_local().to_bits(),
            header,
            trunk: port.trunk.iter().map(|vid| vid.get()).collect(),
            mtu: port.mtu,
            dhcp_server: port.dhcp_server,
            learns: matches!(port.addresses, Addresses::Learned(_)),
            learns6: port.addresses6.is_some(),
            announce: port.announce,
            deny_encapsulation: port.encapsulation == Encapsulation::Deny,
            deny_ipv6: port.ipv6 == Ipv6Use::Deny,
            limited: port
                .limits
                .by_name()
                .any(|(name, _)| name != "multicast_pps"),
            limits: port.limits,
            shares: !port.shared.is_empty(),
            metadata: port.metadata.is_some(),
            multicast_pps: port.limits.multicast_pps.unwrap_or(MULTICAST_PPS).into(),
            express: PortExpress::new(port, target, owns),
        }
    }

    /// Whether the MAC address is one of the port's.
    #[inline(always)]
    pub(crate) fn has_mac(&self, mac: [u8; 6]) -> bool {
        mac == self.mac || self.extra_macs.contains(&mac)
    }
}

impl PortExpress {
    fn new(
        port: &PortConfig,
        target: PackedTarget,
        owns: impl Fn(IpAddr, PackedTarget) -> bool,
    ) -> Option<Self> {
        let served = port.trunk.is_empty()
            && (port.limits.pps, port.limits.bps) == (None, None)
            && matches!(port.addresses, Addresses::Static(_))
            && port.sources().all(is_routable);
        if !served {
            return None;
        }
        let mac = port.mac.octets();
        let (own4, own6) = usual_sources(port, |address| owns(address, target));
        Some(Self {
            target,
            mtu: port.mtu.into(),
            special_ports: match port.encapsulation {
                Encapsulation::Allow => &SPECIAL_PORTS,
                Encapsulation::Deny => &SPECIAL_PORTS_OF_DENYING,
            },
            sender4: source_and_type_of(mac, ethertype::IPV4),
            sender6: match port.ipv6 {
                Ipv6Use::Allow => source_and_type_of(mac, ethertype::IPV6),
                Ipv6Use::Deny => NO_SENDER,
            },
            own4: own4.map_or(NO_ADDRESS4, u64::from),
            own6,
        })
    }
}

/// The sources that a port's packets most likely have: the first of its own addresses of each
/// family.
fn usual_sources(port: &PortConfig, owns: impl Fn(IpAddr) -> bool) -> (Option<u32>, Option<u128>) {
    let Addresses::Static(nets) = &port.addresses else {
        return (None, None);
    };
    let own = || nets.iter().map(IpNet::addr).filter(|ip| owns(*ip));
    let own4 = own().find_map(|ip| match ip {
        IpAddr::V4(ip) => Some(ip.to_bits()),
        IpAddr::V6(_) => None,
    });
    let own6 = own().find_map(|ip| match ip {
        IpAddr::V6(ip) => Some(ip.to_bits()),
        IpAddr::V4(_) => None,
    });
    (own4.map(u32::to_be), own6.map(u128::to_be))
}

/// Whether packets from all of these addresses may be routed, as a checked configuration has it.
fn is_routable(net: IpNet) -> bool {
    let is_routable = |ip| match ip {
        IpAddr::V4(ip) => addr::is_routable4(Ipv4Addr::to_bits(ip)),
        IpAddr::V6(ip) => addr::is_routable6(Ipv6Addr::to_bits(ip)),
    };
    [net.network(), net.broadcast()]
        .into_iter()
        .all(is_routable)
}

impl PortEgress {
    pub(super) fn new(rules: &PortRules) -> Self {
        let max_len = if rules.trunk.is_empty() { rules.mtu } else { 0 };
        Self {
            header: rules.header,
            max_len,
        }
    }
}
