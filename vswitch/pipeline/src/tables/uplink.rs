//! The In/Out side: the switch's station on the underlay.

use std::net::IpAddr;

use packet::addr;
use tenant_config::UplinkConfig;

use crate::ids::NextHopId;

/// The In/Out side.
#[derive(Debug)]
pub(crate) struct UplinkRules {
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u16,
    /// Whether the device accepts frames for other stations, so that the switch must drop them.
    pub(crate) software_mac_filter: bool,
    pub(crate) ipv4: Option<u32>,
    pub(crate) ipv6: Option<u128>,
    /// The next hops of external destinations.
    pub(crate) next_hop4: Option<NextHopId>,
    pub(crate) next_hop6: Option<NextHopId>,
}

impl UplinkRules {
    pub(super) fn new(uplink: &UplinkConfig, next_hop: impl Fn(IpAddr) -> NextHopId) -> Self {
        Self {
            mac: uplink.mac.octets(),
            mtu: uplink.mtu,
            software_mac_filter: !uplink.device.filters_mac(),
            ipv4: uplink.ipv4.map(|net| net.addr().to_bits()),
            ipv6: uplink.ipv6.map(|net| net.addr().to_bits()),
            next_hop4: uplink.next_hops.ipv4.map(|ip| next_hop(ip.into())),
            next_hop6: uplink.next_hops.ipv6.map(|ip| next_hop(ip.into())),
        }
    }

    /// Whether a neighbour may have that MAC.
    #[inline(always)]
    pub(crate) fn is_other_station(&self, mac: [u8; 6]) -> bool {
        addr::is_station_mac(mac) && mac != self.mac
    }
}
