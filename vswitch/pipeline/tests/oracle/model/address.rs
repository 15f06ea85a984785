//! The sets of addresses that the rows name.

use super::*;

/// What the file gives the port: its addresses, and what is behind it.
pub(super) fn prefixes(port: &PortConfig) -> impl Iterator<Item = ipnet::IpNet> {
    let addresses = match &port.addresses {
        Addresses::Static(prefixes) => prefixes.clone(),
        // Nothing is learned yet.
        Addresses::Learned(_) => Vec::new(),
    };
    addresses.into_iter().chain(port.routes.clone())
}

/// Whether `address` is "one of the port's addresses".
pub(super) fn owns(port: &PortConfig, address: IpAddr) -> bool {
    prefixes(port).any(|net| net.contains(&address)) || port.shared.contains(&address)
}

/// Whether `address` is "one of the port's addresses (its link-local counts)".
pub(super) fn owns_or_link_local(port: &PortConfig, address: Ipv6Addr) -> bool {
    owns(port, address.into()) || address == port.mac.link_local()
}

pub(super) fn nets(
    ipv4: Option<ipnet::Ipv4Net>,
    ipv6: Option<ipnet::Ipv6Net>,
) -> impl Iterator<Item = ipnet::IpNet> {
    let ipv4 = ipv4.map(ipnet::IpNet::V4);
    let ipv6 = ipv6.map(ipnet::IpNet::V6);
    ipv4.into_iter().chain(ipv6)
}

/// Route 4: 169.254.0.0/16 or fe80::/10.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.octets()[..2] == [169, 254],
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// Route 4: ::/96 and ::ffff:0:0/96.
pub(super) fn is_embedded_ipv4(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.segments()[..5] == [0; 5] && [0, 0xffff].contains(&ip.segments()[5]),
    }
}

/// "The IPv4 address that an IPv6 address stands for", and whether the translator's own prefix
/// length decides which.
fn stands_for(address: Ipv6Addr) -> (Vec<Ipv4Addr>, bool) {
    let part = |at: [usize; 4]| {
        let octets = address.octets();
        Ipv4Addr::from(at.map(|at| octets[at]))
    };
    let last = part([12, 13, 14, 15]);
    let words = address.segments();
    let mut found = Vec::new();
    let mut by_length = false;
    match words {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => found.push(last),
        [0x64, 0xff9b, 1, ..] => {
            by_length = true;
            found.extend([
                part([6, 7, 9, 10]),
                part([7, 9, 10, 11]),
                part([9, 10, 11, 12]),
                last,
            ]);
        }
        [0x2002, ..] => found.push(part([2, 3, 4, 5])),
        [0x2001, 0, ..] => {
            let client = last.octets().map(|octet| !octet);
            found.extend([part([4, 5, 6, 7]), client.into()]);
        }
        [0, 0, 0, 0, 0xffff, 0, ..] => found.push(last),
        _ => {}
    }
    if let [.., 0 | 0x200, 0x5efe, _, _] = words {
        found.push(last);
    }
    (found, by_length)
}

impl Model {
    /// Whether an IPv6 address "stands for an IPv4 address of the inside or of the underlay, or for
    /// one that is never routed".
    pub(super) fn stands_for_closed(&self, address: IpAddr) -> bool {
        let IpAddr::V6(address) = address else {
            return false;
        };
        let (found, by_length) = stands_for(address);
        found.into_iter().any(|ip| {
            let [first, second, ..] = ip.octets();
            let never = matches!(first, 0 | 127 | 224..) || [first, second] == [169, 254];
            let inside = self
                .config
                .gateway
                .ipv4
                .is_some_and(|net| net.contains(&ip));
            let closed = !matches!(self.route(ip.into()), Route::Uplink | Route::Nowhere);
            inside || closed || (never && !by_length)
        })
    }

    /// Whether `address` is the first of an underlay's subnet, or the broadcast address of its IPv4
    /// subnet, which no station has unless the subnet has at most two addresses.
    pub(super) fn is_edge_of_underlay(&self, address: IpAddr) -> bool {
        let Some(uplink) = &self.config.uplink else {
            return false;
        };
        let tunnel = self.config.tunnel.as_ref();
        let station = uplink.own_addresses().any(|own| own == address)
            || tunnel.is_some_and(|it| it.peers.iter().any(|peer| is_of(peer, address)));
        let edge = nets(uplink.ipv4, uplink.ipv6).any(|net| {
            let last = address.is_ipv4() && net.broadcast() == address;
            net.max_prefix_len() - net.prefix_len() > 1 && (net.network() == address || last)
        });
        edge && !station
    }

    pub(super) fn is_gateway(&self, address: IpAddr) -> bool {
        let gateway = &self.config.gateway;
        nets(gateway.ipv4, gateway.ipv6).any(|net| net.addr() == address)
    }

    /// Route 3: "multicast, 255.255.255.255, or the gateway subnet's broadcast address".
    pub(super) fn is_multicast(&self, address: IpAddr) -> bool {
        let subnet_broadcast = self.config.gateway.ipv4.is_some_and(|net| {
            // A /31 and a /32 have no broadcast address (RFC 3021).
            net.prefix_len() < 31 && address == net.broadcast()
        });
        address.is_multicast() || address == Ipv4Addr::BROADCAST || subnet_broadcast
    }
}

/// Whether the address is an endpoint of the underlay that the peer uses.
pub(super) fn is_of(peer: &tenant_config::PeerConfig, address: IpAddr) -> bool {
    peer.vtep == address || peer.sources.contains(&address)
}
