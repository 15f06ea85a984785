//! What the gateway's own DHCP server gives each port.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use packet::wire::dhcp_server::{Offer, Settings};
use tenant_config::{Addresses, BootServer, Dhcp, PortConfig, SwitchConfig};

/// The offers in the order of the ports; none for a port without an IPv4 address of its own, and
/// none at all where the gateway does not serve.
pub(super) fn offers(config: &SwitchConfig) -> Vec<Option<Offer>> {
    let dhcp = &config.gateway.dhcp;
    let Some(gateway) = config.gateway.ipv4.filter(|_| serves(config)) else {
        return Vec::new();
    };
    let ports = config.ports.iter();
    ports.map(|port| offer(dhcp, gateway, port)).collect()
}

/// Whether the gateway serves, and no port of the tenant.
pub(super) fn serves(config: &SwitchConfig) -> bool {
    config.gateway.dhcp.enabled && !config.ports.iter().any(|port| port.dhcp_server)
}

fn offer(dhcp: &Dhcp, gateway: Ipv4Net, port: &PortConfig) -> Option<Offer> {
    let search: Vec<&str> = dhcp.search.iter().map(|name| name.as_str()).collect();
    let routes = dhcp.routes.iter();
    let routes = routes.map(|route| (route.to.addr(), route.to.prefix_len(), route.via));
    let routes: Vec<_> = routes.collect();
    let (dns, ntp) = (of_ipv4(&dhcp.dns), of_ipv4(&dhcp.ntp));
    let tftp_server = dhcp.tftp_server.as_ref();
    let name = tftp_server.map(BootServer::to_string);
    Some(Offer::new(&Settings {
        server: gateway.addr().to_bits(),
        address: first_host(&port.addresses)?.to_bits(),
        mask: gateway.netmask().to_bits(),
        mtu: port.mtu,
        lease_s: dhcp.lease_s.get(),
        host_name: port.hostname.as_ref().map(|name| name.as_str()),
        dns: &dns,
        domain: dhcp.domain.as_ref().map(|name| name.as_str()),
        search: &search,
        ntp: &ntp,
        routes: &routes,
        tftp_server: name.as_deref(),
        next_server: match tftp_server {
            Some(BootServer::Address(address)) => Some(address.to_bits()),
            Some(BootServer::Name(_)) | None => None,
        },
        boot_file: dhcp.boot_file.as_ref().map(|file| file.as_str()),
        ipxe_boot_file: dhcp.ipxe_boot_file.as_ref().map(|file| file.as_str()),
    }))
}

fn of_ipv4(addresses: &[IpAddr]) -> Vec<Ipv4Addr> {
    let all = addresses.iter().filter_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    all.collect()
}

/// The first of a port's IPv4 addresses as the file lists them; of a prefix its first host.
fn first_host(addresses: &Addresses) -> Option<Ipv4Addr> {
    let Addresses::Static(nets) = addresses else {
        return None;
    };
    nets.iter().find_map(|net| match net {
        IpNet::V4(net) => host_of(*net),
        IpNet::V6(_) => None,
    })
}

/// The first host of a prefix.
pub(super) fn host_of(net: Ipv4Net) -> Option<Ipv4Addr> {
    net.hosts().next()
}
