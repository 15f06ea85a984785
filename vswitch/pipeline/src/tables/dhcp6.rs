//! What the gateway's own DHCPv6 server gives each port, and its Router Advertisements tell of name
//! servers.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use packet::wire::dhcp6_server::{Offer, Settings};
use packet::wire::nd;
use tenant_config::{Addresses, Dhcp, Ipv6Autoconf, PortConfig, SwitchConfig, Vni};

/// The offers in the order of the ports; none where the gateway does not serve.
pub(super) fn offers(config: &SwitchConfig) -> Vec<Offer> {
    if config.gateway.ipv6.is_none()
        || config.gateway.ipv6_autoconf == Ipv6Autoconf::None
        || !super::dhcp::serves(config)
    {
        return Vec::new();
    }
    let dhcp = &config.gateway.dhcp;
    let (dns, ntp) = (of_ipv6(&dhcp.dns), of_ipv6(&dhcp.ntp));
    let search = search(dhcp);
    let ports = config.ports.iter();
    let offer = |port: &PortConfig| {
        Offer::new(&Settings {
            server: server_of(config.vni),
            address: first_host(&port.addresses).map(Ipv6Addr::to_bits),
            // A VM that may use what it forms of the prefix needs no other address.
            leases: port.addresses6.is_none(),
            lease_s: dhcp.lease_s.get(),
            dns: &dns,
            search: &search,
            ntp: &ntp,
        })
    };
    ports.map(offer).collect()
}

/// The options of Router Advertisements about name servers.
pub(super) fn resolver_options(config: &SwitchConfig) -> Box<[u8]> {
    if !super::dhcp::serves(config) {
        return Box::default();
    }
    let dhcp = &config.gateway.dhcp;
    nd::resolver_options(&of_ipv6(&dhcp.dns), &search(dhcp))
}

/// The MAC that names the server: the same to all ports, after each restart and on every host of
/// the tenant. It is in no frame.
fn server_of(vni: Vni) -> [u8; 6] {
    let [_, a, b, c] = vni.get().to_be_bytes();
    [0x02, a, b, c, 0, 0]
}

fn of_ipv6(addresses: &[IpAddr]) -> Vec<Ipv6Addr> {
    let all = addresses.iter().filter_map(|ip| match ip {
        IpAddr::V6(ip) => Some(*ip),
        IpAddr::V4(_) => None,
    });
    all.collect()
}

/// The domains in which short names are looked up: the VMs' own, if the file has no others.
fn search(dhcp: &Dhcp) -> Vec<&str> {
    let own = dhcp.domain.iter().filter(|_| dhcp.search.is_empty());
    dhcp.search
        .iter()
        .chain(own)
        .map(|name| name.as_str())
        .collect()
}

/// The first of a port's IPv6 addresses as the file lists them; of a prefix its first host.
fn first_host(addresses: &Addresses) -> Option<Ipv6Addr> {
    let Addresses::Static(nets) = addresses else {
        return None;
    };
    nets.iter().find_map(|net| match net {
        IpNet::V6(net) => Some(host_of(*net)),
        IpNet::V4(_) => None,
    })
}

/// The first host of a prefix, behind the subnet-router anycast address.
pub(super) fn host_of(net: Ipv6Net) -> Ipv6Addr {
    let anycast = u128::from(net.prefix_len() < 127);
    Ipv6Addr::from_bits(net.network().to_bits() + anycast)
}
