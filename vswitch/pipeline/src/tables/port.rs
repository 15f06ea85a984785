//! What one port may do.

use packet::number::ethertype;
use packet::refused::{SPECIAL_PORTS, SPECIAL_PORTS_OF_DENYING, SpecialPorts};
use packet::wire::ethernet::source_and_type_of;
use tenant_config::{Addresses, Encapsulation, Limits, PortConfig};

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
    pub(crate) announce: bool,
    pub(crate) deny_encapsulation: bool,
    pub(crate) limited: bool,
    pub(crate) limits: Limits,
    /// The UDP ports that the fast path leaves to the general one.
    pub(crate) special_ports: &'static SpecialPorts,
    /// Whether the fast path serves the port: it has no tags, no limits of all frames and no
    /// learned address.
    pub(crate) express: bool,
    /// The port's source MAC and EtherType as one number, for IPv4 and for IPv6.
    pub(crate) express4: u64,
    pub(crate) express6: u64,
}

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
    pub(super) fn new(id: PortId, port: &PortConfig) -> Self {
        let (mac, gateway_mac) = (port.mac.octets(), port.gateway_mac.octets());
        let mut header = [0; 12];
        header[..6].copy_from_slice(&mac);
        header[6..].copy_from_slice(&gateway_mac);
        Self {
            id,
            target: PackedTarget::new(Target::Port(id)),
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
            announce: port.announce,
            deny_encapsulation: port.encapsulation == Encapsulation::Deny,
            special_ports: match port.encapsulation {
                Encapsulation::Allow => &SPECIAL_PORTS,
                Encapsulation::Deny => &SPECIAL_PORTS_OF_DENYING,
            },
            limited: port.limits != Limits::default(),
            limits: port.limits,
            express: port.trunk.is_empty()
                && (port.limits.pps, port.limits.bps) == (None, None)
                && matches!(port.addresses, Addresses::Static(_)),
            express4: source_and_type_of(mac, ethertype::IPV4),
            express6: source_and_type_of(mac, ethertype::IPV6),
        }
    }

    /// Whether the MAC address is one of the port's.
    #[inline(always)]
    pub(crate) fn has_mac(&self, mac: [u8; 6]) -> bool {
        mac == self.mac || self.extra_macs.contains(&mac)
    }
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
