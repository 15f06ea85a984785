//! Which groups and broadcasts a tenant allows among its ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use packet::addr;
use tenant_config::{BroadcastUse, SwitchConfig, is_own_group};

/// What `[multicast]` allows.
#[derive(Debug)]
pub(crate) struct MulticastRules {
    /// The groups from the first to the last, of IPv4 as [`addr::mapped4`] makes them.
    ranges: Box<[(u128, u128)]>,
    /// Whether broadcasts go to all other ports.
    pub(crate) broadcast: bool,
    /// Whether the switch asks for members of IPv4 groups: where more than those of the link are
    /// allowed, or peers must know them.
    pub(crate) queries4: bool,
    /// The same of IPv6.
    pub(crate) queries6: bool,
}

impl MulticastRules {
    /// `None` where nothing is allowed.
    pub(super) fn of(config: &SwitchConfig) -> Option<Self> {
        let prefixes = config.multicast.groups.prefixes();
        let broadcast = config.multicast.broadcast == BroadcastUse::Allow;
        if prefixes.is_empty() && !broadcast {
            return None;
        }
        let has_peers = config
            .tunnel
            .as_ref()
            .is_some_and(|tunnel| !tunnel.peers.is_empty());
        let asked = |of_family: fn(&IpNet) -> bool| {
            let mut nets = prefixes.iter().filter(|net| of_family(net));
            nets.any(|net| has_peers || !is_of_the_link(*net))
        };
        Some(Self {
            ranges: prefixes.iter().map(|net| range(*net)).collect(),
            broadcast,
            queries4: asked(|net| net.addr().is_ipv4()),
            queries6: asked(|net| net.addr().is_ipv6()),
        })
    }

    /// Whether a group is allowed. The switch's own never are.
    pub(crate) fn allows(&self, group: u128) -> bool {
        let address = match addr::unmapped4(group) {
            Some(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip)),
            None => IpAddr::V6(Ipv6Addr::from_bits(group)),
        };
        let mut ranges = self.ranges.iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&group)) && !is_own_group(address)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => addr::mapped4(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn range(net: IpNet) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

fn is_of_the_link(net: IpNet) -> bool {
    let (first, last) = range(net);
    addr::is_link_group(first) && addr::is_link_group(last)
}
