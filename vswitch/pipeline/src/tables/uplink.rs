//! The In/Out side: the switch's station on the underlay.

use std::net::{IpAddr, Ipv6Addr};

use packet::addr;
use tenant_config::UplinkConfig;

use crate::ids::NextHopId;

/// The In/Out side.
#[derive(Debug)]
pub(crate) struct UplinkRules {
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u16,
    /// Whether IPv4 packets without DF that are too large are fragmented.
    pub(crate) fragment: bool,
    /// Whether the device accepts frames for other stations, so that the switch must drop them.
    pub(crate) software_mac_filter: bool,
    pub(crate) ipv4: Option<u32>,
    pub(crate) ipv6: Option<u128>,
    /// Its link-local address, where a next hop has one.
    pub(crate) link_local: Option<u128>,
    /// The next hops of external destinations.
    pub(crate) next_hop4: Option<NextHopId>,
    pub(crate) next_hop6: Option<NextHopId>,
}

impl UplinkRules {
    pub(super) fn new(
        uplink: &UplinkConfig,
        link_local: Option<Ipv6Addr>,
        next_hop: impl Fn(IpAddr) -> NextHopId,
    ) -> Self {
        Self {
            mac: uplink.mac.octets(),
            mtu: uplink.mtu,
            fragment: uplink.fragment,
            software_mac_filter: !uplink.device.filters_mac(),
            ipv4: uplink.ipv4.map(|net| net.addr().to_bits()),
            ipv6: uplink.ipv6.map(|net| net.addr().to_bits()),
            link_local: link_local.map(Ipv6Addr::to_bits),
            next_hop4: uplink.next_hops.ipv4.map(|ip| next_hop(ip.into())),
            next_hop6: uplink.next_hops.ipv6.map(|ip| next_hop(ip.into())),
        }
    }

    /// The own address by which a next hop is solicited: of the scope of its address (RFC 6724).
    pub(crate) fn source_to(&self, next_hop: u128) -> Option<u128> {
        match addr::is_link_local6(next_hop) {
            true => self.link_local,
            false => self.ipv6,
        }
    }

    /// Whether the IPv6 address is the switch's own on the link.
    pub(crate) fn has6(&self, address: u128) -> bool {
        [self.ipv6, self.link_local].contains(&Some(address))
    }

    /// Whether a neighbour may have that MAC.
    #[inline(always)]
    pub(crate) fn is_other_station(&self, mac: [u8; 6]) -> bool {
        addr::is_station_mac(mac) && mac != self.mac
    }
}
