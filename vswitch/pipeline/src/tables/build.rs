//! From a checked configuration to the tables.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tenant_config::{SwitchConfig, UplinkConfig};

use super::multicast::MulticastRules;
use super::port::{PortEgress, PortRules};
use super::shared_address::{self, SharedAddress};
use super::target::{PackedTarget, Target};
use super::tunnel::Tunnel;
use super::uplink::UplinkRules;
use super::{Names, Subnet, Tables, dhcp, dhcp6, dns, groups};
use crate::ids::{NextHopId, PeerId, PortId, SharedId};
use crate::lpm::Lpm;
use crate::secret::FlowSecret;
use crate::shared::shared;

impl Tables {
    /// The tables of that configuration; unchanged parts are those of `previous`.
    pub(crate) fn build(
        config: &SwitchConfig,
        previous: Option<&Self>,
        secret: FlowSecret,
    ) -> Self {
        let shared_addresses = shared(
            shared_address::of(config),
            previous.map(|tables| &tables.shared),
        );
        let routes = Routes::of(config, &shared_addresses);
        let routes4 = Lpm::build(routes.ipv4, previous.map(|tables| &tables.routes4));
        let routes6 = Lpm::build(routes.ipv6, previous.map(|tables| &tables.routes6));
        let owns = |address, target| match address {
            IpAddr::V4(ip) => routes4.lookup(ip.to_bits()) == Some(target),
            IpAddr::V6(ip) => routes6.lookup(ip.to_bits()) == Some(target),
        };
        let ports = config.ports.iter().zip(0..);
        let ports: Vec<_> = ports
            .map(|(port, id)| PortRules::new(PortId(id), port, owns))
            .collect();
        let egress = ports.iter().map(PortEgress::new).collect();
        let next_hops = shared(
            next_hops_of(config),
            previous.map(|tables| &tables.next_hops),
        );
        let next_hop_id = |address: IpAddr| {
            let place = next_hops.binary_search(&address);
            NextHopId(place.expect("every next hop is among them") as u16)
        };
        let uplink = config
            .uplink
            .as_ref()
            .map(|uplink| UplinkRules::new(uplink, config.uplink_link_local(), next_hop_id));
        let names = config.devices().map(|side| side.name.to_owned());
        let peers = config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
        let peer_names = peers.map(|peer| peer.name.to_string());
        let previous_tunnel = previous.and_then(|tables| tables.tunnel.as_ref());
        let (ipv4, ipv6) = (config.gateway.ipv4, config.gateway.ipv6);
        Self {
            names: shared(names.collect(), previous.map(|tables| &tables.names)),
            learns: ports.iter().any(|port| port.learns),
            learns6: ports.iter().any(|port| port.learns6),
            has_dhcp: ports.iter().any(|port| port.dhcp_server),
            offers: shared(dhcp::offers(config), previous.map(|tables| &tables.offers)),
            offers6: shared(
                dhcp6::offers(config),
                previous.map(|tables| &tables.offers6),
            ),
            resolver_options: dhcp6::resolver_options(config),
            names_of_ports: Names::of(config),
            resolvers: dns::resolvers(config, next_hop_id),
            egress: shared(egress, previous.map(|tables| &tables.egress)),
            ports: shared(ports, previous.map(|tables| &tables.ports)),
            uplink,
            tunnel: Tunnel::build(config, previous_tunnel, &secret, next_hop_id),
            peer_names: shared(
                peer_names.collect(),
                previous.map(|tables| &tables.peer_names),
            ),
            secret,
            shared: shared_addresses,
            next_hops: Arc::clone(&next_hops),
            gateway4: ipv4.map(|net| net.addr().to_bits()),
            gateway4_subnet: ipv4.map(|net| Subnet {
                first: net.network().to_bits(),
                len: net.prefix_len(),
            }),
            gateway6: ipv6.map(|net| net.addr().to_bits()),
            gateway6_subnet: ipv6.map(|net| Subnet {
                first: net.network().to_bits(),
                len: net.prefix_len(),
            }),
            ipv6_autoconf: config.gateway.ipv6_autoconf,
            multicast: MulticastRules::of(config),
            groups: groups::of(config),
            routes4,
            routes6,
        }
    }
}

/// All next hops of a configuration, sorted, without repetition.
fn next_hops_of(config: &SwitchConfig) -> Vec<IpAddr> {
    let peers = config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
    let uplink = config.uplink.iter().flat_map(|uplink| {
        let ipv4 = uplink.next_hops.ipv4.map(IpAddr::V4);
        ipv4.into_iter()
            .chain(uplink.next_hops.ipv6.map(IpAddr::V6))
    });
    let resolvers = dns::next_hops_to_resolvers(config).map(|(_, next_hop)| next_hop);
    let peers = peers.map(|peer| peer.next_hop);
    let mut all: Vec<IpAddr> = uplink.chain(peers).chain(resolvers).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Routes of both families: address, prefix length, target. Of equal prefixes the last counts.
#[derive(Default)]
struct Routes {
    ipv4: Vec<(u32, u8, PackedTarget)>,
    ipv6: Vec<(u128, u8, PackedTarget)>,
}

impl Routes {
    /// All routes of a configuration. Routes that close something to the tenant come last.
    fn of(config: &SwitchConfig, shared: &[SharedAddress]) -> Self {
        let mut routes = Self::default();
        let peers = || config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
        let (ipv4, ipv6) = (config.gateway.ipv4, config.gateway.ipv6);
        if let Some(uplink) = &config.uplink {
            let only = config.tunnel.as_ref().is_some_and(|tunnel| tunnel.only);
            routes.add_uplink(uplink, only);
        }
        let subnets = [ipv4.map(IpNet::V4), ipv6.map(IpNet::V6)];
        for net in subnets.into_iter().flatten() {
            routes.add(net, Target::Unowned);
        }
        for (peer, id) in peers().zip(0..) {
            for &net in &peer.prefixes {
                routes.add(net, Target::Peer(PeerId(id)));
            }
        }
        for peer in peers() {
            for address in peer.sources.iter().chain([&peer.vtep]) {
                routes.add_host(*address, Target::Underlay);
            }
        }
        // No station has the first address of a subnet, even where a peer has the whole subnet.
        if let Some(net) = ipv4.filter(|net| net.prefix_len() < 31) {
            routes.add_host(net.network().into(), Target::Unowned);
        }
        if let Some(net) = ipv6.filter(|net| net.prefix_len() < 127) {
            routes.add_host(net.network().into(), Target::Unowned);
        }
        for (port, id) in config.ports.iter().zip(0..) {
            for net in port.sources() {
                routes.add(net, Target::Port(PortId(id)));
            }
        }
        for (shared, id) in shared.iter().zip(0..) {
            routes.add_host(shared.address, Target::Shared(SharedId(id)));
        }
        if let Some(net) = ipv4.filter(|net| net.prefix_len() < 31) {
            routes.add_host(net.broadcast().into(), Target::Broadcast);
        }
        for net in subnets.into_iter().flatten() {
            routes.add_host(net.addr(), Target::Gateway);
        }
        routes
    }

    /// The routes to the underlay. With `only`, nothing is reached but through the tunnel.
    fn add_uplink(&mut self, uplink: &UplinkConfig, only: bool) {
        let reachable = |net: &IpNet| {
            let next_hop = match net {
                IpNet::V4(_) => uplink.next_hops.ipv4.is_some(),
                IpNet::V6(_) => uplink.next_hops.ipv6.is_some(),
            };
            next_hop && !only
        };
        let defaults = [
            IpNet::V4(ipnet::Ipv4Net::default()),
            IpNet::V6(ipnet::Ipv6Net::default()),
        ];
        for net in defaults.into_iter().filter(reachable) {
            self.add(net, Target::Uplink);
        }
        let allowed = || uplink.allow.iter().copied().filter(reachable);
        let underlay = [uplink.ipv4.map(IpNet::V4), uplink.ipv6.map(IpNet::V6)];
        for net in underlay.into_iter().flatten() {
            if !allowed().any(|prefix| prefix.contains(&net)) {
                self.add(net, Target::Underlay);
            }
        }
        for net in allowed() {
            self.add(net, Target::Uplink);
        }
        if let Some(net) = uplink.ipv4.filter(|net| net.prefix_len() < 31) {
            self.add_host(net.network().into(), Target::UnderlayEdge);
            self.add_host(net.broadcast().into(), Target::UnderlayEdge);
        }
        if let Some(net) = uplink.ipv6.filter(|net| net.prefix_len() < 127) {
            self.add_host(net.network().into(), Target::UnderlayEdge);
        }
        for address in uplink.own_addresses() {
            self.add_host(address, Target::UplinkSelf);
        }
    }

    fn add_host(&mut self, address: IpAddr, target: Target) {
        self.add(IpNet::from(address), target);
    }

    fn add(&mut self, net: IpNet, target: Target) {
        let target = PackedTarget::new(target);
        match net {
            IpNet::V4(net) => self
                .ipv4
                .push((net.addr().to_bits(), net.prefix_len(), target)),
            IpNet::V6(net) => self
                .ipv6
                .push((net.addr().to_bits(), net.prefix_len(), target)),
        }
    }
}
