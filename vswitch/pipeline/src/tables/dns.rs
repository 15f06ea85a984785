//! The names of the tenant's ports, and the resolvers for all others.

use std::net::IpAddr;

use ipnet::IpNet;
use packet::wire::dns::MAX_NAME;
use tenant_config::{Addresses, PortConfig, SwitchConfig};

use super::{dhcp, dhcp6};
use crate::ids::{NextHopId, PortId};

/// The most addresses of each family under one name.
const MAX_ADDRESSES: usize = 8;

/// The names for which the gateway answers.
#[derive(Debug)]
pub(crate) struct Names {
    /// The domain, as DNS writes it, in lower case.
    pub(crate) domain: Box<[u8]>,
    /// In the order of the ports; `None` where the whole name is too long.
    ports: Box<[Option<PortName>]>,
}

/// One port's name, and what it stands for.
#[derive(Debug)]
pub(crate) struct PortName {
    label: Box<[u8]>,
    /// The whole, as DNS writes it.
    pub(crate) name: Box<[u8]>,
    pub(crate) ipv4: Box<[[u8; 4]]>,
    pub(crate) ipv6: Box<[[u8; 16]]>,
}

impl Names {
    /// `None` where the gateway does not answer.
    pub(super) fn of(config: &SwitchConfig) -> Option<Self> {
        let dns = &config.gateway.dns;
        if !dns.enabled {
            return None;
        }
        let domain = match &dns.domain {
            Some(domain) => domain.to_string().to_ascii_lowercase(),
            None => format!("{}.internal", config.tenant),
        };
        let labels = domain.split('.').map(str::as_bytes);
        let domain: Vec<u8> = labels.flat_map(labelled).chain([0]).collect();
        let ports = config.ports.iter();
        let ports = ports.map(|port| PortName::new(port, &domain));
        Some(Self {
            ports: ports.collect(),
            domain: domain.into(),
        })
    }

    /// The port of that name in the domain.
    pub(crate) fn by_label(&self, label: &[u8]) -> Option<&PortName> {
        let mut names = self.ports.iter().flatten();
        names.find(|port| port.label.eq_ignore_ascii_case(label))
    }

    /// The name of that port.
    pub(crate) fn of_port(&self, id: PortId) -> Option<&PortName> {
        self.ports.get(id.index())?.as_ref()
    }
}

/// A resolver on the underlay.
#[derive(Debug)]
pub(crate) struct Resolver {
    pub(crate) address: IpAddr,
    /// The switch's own address, by which it is asked.
    pub(crate) own: IpAddr,
    pub(crate) next_hop: NextHopId,
}

impl Resolver {
    /// Whether it is asked by the same address. Its router may be another.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.address, self.own) == (other.address, other.own)
    }
}

/// The resolvers that are asked, each with the station on the uplink's link that leads to it.
pub(super) fn next_hops_to_resolvers(
    config: &SwitchConfig,
) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let dns = &config.gateway.dns;
    let uplink = config.uplink.as_ref().filter(|_| dns.enabled);
    dns.forward
        .iter()
        .filter_map(move |address| Some((*address, uplink?.next_hop_to(*address)?)))
}

/// The resolvers, in the order of the file.
pub(super) fn resolvers(
    config: &SwitchConfig,
    next_hop_id: impl Fn(IpAddr) -> NextHopId,
) -> Box<[Resolver]> {
    let uplink = config.uplink.as_ref();
    let resolver = |(address, next_hop)| {
        Some(Resolver {
            address,
            own: uplink?.own_address_for(address)?,
            next_hop: next_hop_id(next_hop),
        })
    };
    next_hops_to_resolvers(config)
        .filter_map(resolver)
        .collect()
}

/// A label behind its length.
fn labelled(label: &[u8]) -> Vec<u8> {
    [&[label.len() as u8], label].concat()
}

impl PortName {
    fn new(port: &PortConfig, domain: &[u8]) -> Option<Self> {
        let label = port.name.to_string().into_bytes();
        let name = [&labelled(&label), domain].concat();
        let nets: &[IpNet] = match &port.addresses {
            Addresses::Static(nets) => nets,
            Addresses::Learned(_) => &[],
        };
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        for net in nets {
            match first_host(*net) {
                Some(IpAddr::V4(ip)) => ipv4.push(ip.octets()),
                Some(IpAddr::V6(ip)) => ipv6.push(ip.octets()),
                None => {}
            }
        }
        ipv4.truncate(MAX_ADDRESSES);
        ipv6.truncate(MAX_ADDRESSES);
        (name.len() <= MAX_NAME).then(|| Self {
            label: label.into(),
            name: name.into(),
            ipv4: ipv4.into(),
            ipv6: ipv6.into(),
        })
    }
}

/// The address of an entry that DHCP or DHCPv6 would offer.
fn first_host(net: IpNet) -> Option<IpAddr> {
    match net {
        IpNet::V4(net) => dhcp::host_of(net).map(IpAddr::V4),
        IpNet::V6(net) => Some(IpAddr::V6(dhcp6::host_of(net))),
    }
}
