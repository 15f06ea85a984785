//! The immutable half of a switch: what every look-up reads. Built off the worker, from a checked
//! configuration; a change of configuration is a new set of tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use ipnet::IpNet;
use serde::Serialize;
use tenant_config::{Addresses, Encapsulation, Limits, PortConfig, SwitchConfig, UplinkConfig};

use super::express;
use super::filter;
use super::groups::{self, Groups};
use super::lpm::{Key, Lpm};
use super::tunnel::Tunnel;
use super::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The port that has the address.
    Port(u16),
    /// The gateway's own address.
    Gateway,
    /// The gateway's subnet, where no port has the address.
    Unowned,
    /// The broadcast address of the gateway's subnet.
    Broadcast,
    /// Out, by way of the next hop.
    Uplink,
    /// The underlay's own network, closed to the tenant.
    Underlay,
    /// The switch's own address on the underlay.
    UplinkSelf,
    /// Through the tunnel to a peer.
    Peer(u16),
}

/// A next hop's place among all of the underlay's.
pub(super) type NextHopId = u16;

impl Target {
    /// Whether the address is the switch's or its tenant's.
    fn is_inside(self) -> bool {
        match self {
            Self::Port(_)
            | Self::Gateway
            | Self::Unowned
            | Self::Broadcast
            | Self::UplinkSelf
            | Self::Peer(_) => true,
            Self::Uplink | Self::Underlay => false,
        }
    }
}

/// A [`Target`] in 16 bits that are never all zero: so a slot of a table is no larger than it must
/// be, and "no route" is the zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lead(NonZeroU16);

impl Lead {
    /// Peers, from here on; a switch has far fewer ports.
    const PEERS: u16 = 0x4000;
    /// What is neither, from here on.
    const OTHERS: u16 = 0x8000;
    const LEADS: [Target; 6] = [
        Target::Gateway,
        Target::Unowned,
        Target::Broadcast,
        Target::Uplink,
        Target::Underlay,
        Target::UplinkSelf,
    ];
    /// [`Target::Uplink`].
    pub(super) const UPLINK: Self = Self::new(Target::Uplink);
    /// [`Target::Underlay`].
    pub(super) const UNDERLAY: Self = Self::new(Target::Underlay);

    pub(super) const fn new(target: Target) -> Self {
        let code = match target {
            Target::Port(id) => id % Self::PEERS + 1,
            Target::Peer(id) => id % (Self::OTHERS - Self::PEERS) + Self::PEERS + 1,
            Target::Gateway => Self::OTHERS + 1,
            Target::Unowned => Self::OTHERS + 2,
            Target::Broadcast => Self::OTHERS + 3,
            Target::Uplink => Self::OTHERS + 4,
            Target::Underlay => Self::OTHERS + 5,
            Target::UplinkSelf => Self::OTHERS + 6,
        };
        match NonZeroU16::new(code) {
            Some(code) => Self(code),
            None => unreachable!(),
        }
    }

    #[inline(always)]
    pub(super) fn target(self) -> Target {
        if let Some(id) = self.port() {
            return Target::Port(id);
        }
        if let Some(id) = self.peer() {
            return Target::Peer(id);
        }
        Self::LEADS[usize::from(self.0.get() - Self::OTHERS - 1) % Self::LEADS.len()]
    }

    /// The port, if it leads to one.
    #[inline(always)]
    pub(super) fn port(self) -> Option<u16> {
        let code = self.0.get();
        (code <= Self::PEERS).then(|| code - 1)
    }

    /// The peer, if it leads to one.
    #[inline(always)]
    pub(super) fn peer(self) -> Option<u16> {
        let code = self.0.get();
        (code > Self::PEERS && code <= Self::OTHERS).then(|| code - Self::PEERS - 1)
    }
}

/// What the express lane needs to know of a port that it sends to.
#[derive(Debug)]
#[repr(align(16))]
pub(super) struct Egress {
    /// Destination and source MAC.
    pub(super) header: [u8; 12],
    /// Longest IP packet that goes out as it is; 0 where the lane does not serve the port.
    pub(super) longest: u16,
}

/// What one port may do.
#[derive(Debug)]
pub(super) struct PortRules {
    pub(super) id: u16,
    /// Where the port's own addresses lead.
    pub(super) lead: Lead,
    pub(super) mac: [u8; 6],
    pub(super) extra_macs: Box<[[u8; 6]]>,
    pub(super) gateway_mac: [u8; 6],
    /// The VM's own link-local address.
    pub(super) link_local: u128,
    /// The gateway's link-local address at this port.
    pub(super) gateway_link_local: u128,
    /// Destination and source MAC of what goes out of the port.
    pub(super) header: [u8; 12],
    pub(super) trunk: Box<[u16]>,
    pub(super) mtu: u16,
    pub(super) dhcp_server: bool,
    pub(super) learns: bool,
    pub(super) announce: bool,
    pub(super) deny_encapsulation: bool,
    pub(super) limited: bool,
    pub(super) limits: Limits,
    /// Whether the express lane serves the port: nothing of its rules is out of the ordinary.
    pub(super) express: bool,
    pub(super) express4: u64,
    pub(super) express6: u64,
}

/// What the In/Out side is.
#[derive(Debug)]
pub(super) struct UplinkRules {
    pub(super) mac: [u8; 6],
    pub(super) mtu: u16,
    pub(super) filters_mac_here: bool,
    pub(super) ipv4: Option<u32>,
    pub(super) ipv6: Option<u128>,
    /// Where packets for the world go.
    pub(super) next_hop4: Option<NextHopId>,
    pub(super) next_hop6: Option<NextHopId>,
}

/// A subnet of the gateway's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subnet<A> {
    /// Nobody's address.
    pub(super) first: A,
    pub(super) len: u8,
}

impl<A: Key> Subnet<A> {
    fn has(self, address: A) -> bool {
        address & A::mask(self.len) == self.first
    }
}

/// All look-up tables of one generation.
#[derive(Debug)]
pub struct Tables {
    pub(super) names: Box<[String]>,
    pub(super) ports: Box<[PortRules]>,
    pub(super) egress: Box<[Egress]>,
    pub(super) uplink: Option<UplinkRules>,
    pub(super) tunnel: Option<Tunnel>,
    pub(super) peer_names: Box<[String]>,
    /// Who must answer on the underlay, in their order, without repetition.
    pub(super) next_hops: Box<[IpAddr]>,
    pub(super) gateway4: Option<u32>,
    pub(super) gateway4_subnet: Option<Subnet<u32>>,
    pub(super) gateway6: Option<u128>,
    pub(super) gateway6_subnet: Option<Subnet<u128>>,
    /// Whether any port's address comes from DHCP.
    pub(super) learns: bool,
    /// Whether any port serves DHCP.
    pub(super) has_dhcp: bool,
    groups: Box<[Groups]>,
    routes4: Lpm<u32, Lead>,
    routes6: Lpm<u128, Lead>,
}

/// One route, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The destination, as in `10.0.0.11/32`.
    pub prefix: String,
    /// What kind of target: `port`, `peer`, `gateway`, `unreachable`, `broadcast`, `uplink`, `underlay`, `uplink-self`.
    pub kind: &'static str,
    /// The port's name, for kind `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The peer's name, for kind `peer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

impl Tables {
    /// The tables of that configuration.
    pub(super) fn build(config: &SwitchConfig) -> Self {
        let ports: Box<[_]> = config
            .ports
            .iter()
            .enumerate()
            .map(|(id, port)| PortRules::new(id as u16, port))
            .collect();
        let mut routes4 = Vec::new();
        let mut routes6 = Vec::new();
        let mut add = |net: IpNet, target| match net {
            IpNet::V4(net) => {
                routes4.push((net.addr().to_bits(), net.prefix_len(), Lead::new(target)))
            }
            IpNet::V6(net) => {
                routes6.push((net.addr().to_bits(), net.prefix_len(), Lead::new(target)))
            }
        };
        let host = |address: IpAddr| IpNet::from(address);
        let peers = || config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
        // Of equal prefixes the later one counts, so what is closed to the tenant comes last.
        let only = config.tunnel.as_ref().is_some_and(|tunnel| tunnel.only);
        if let Some(uplink) = &config.uplink {
            if uplink.next_hops.ipv4.is_some() && !only {
                add(IpNet::V4(ipnet::Ipv4Net::default()), Target::Uplink);
            }
            if uplink.next_hops.ipv6.is_some() && !only {
                add(IpNet::V6(ipnet::Ipv6Net::default()), Target::Uplink);
            }
            let reachable = |net: &IpNet| match net {
                IpNet::V4(_) => uplink.next_hops.ipv4.is_some(),
                IpNet::V6(_) => uplink.next_hops.ipv6.is_some(),
            };
            let reachable = |net: &IpNet| !only && reachable(net);
            let allowed = || uplink.allow.iter().copied().filter(reachable);
            let underlay = [uplink.ipv4.map(IpNet::V4), uplink.ipv6.map(IpNet::V6)];
            for net in underlay.into_iter().flatten() {
                if !allowed().any(|prefix| prefix.contains(&net)) {
                    add(net, Target::Underlay);
                }
            }
            allowed().for_each(|net| add(net, Target::Uplink));
            uplink
                .own_addresses()
                .for_each(|address| add(host(address), Target::UplinkSelf));
        }
        if let Some(net) = config.gateway.ipv4 {
            add(IpNet::V4(net), Target::Unowned);
        }
        if let Some(net) = config.gateway.ipv6 {
            add(IpNet::V6(net), Target::Unowned);
        }
        for (peer, id) in peers().zip(0..) {
            peer.prefixes
                .iter()
                .for_each(|&net| add(net, Target::Peer(id)));
        }
        peers().for_each(|peer| add(host(peer.vtep), Target::Underlay));
        // The first address of a subnet is nobody's, also where a peer has the whole of it.
        if let Some(net) = config.gateway.ipv4.filter(|net| net.prefix_len() < 31) {
            add(host(net.network().into()), Target::Unowned);
        }
        if let Some(net) = config.gateway.ipv6.filter(|net| net.prefix_len() < 127) {
            add(host(net.network().into()), Target::Unowned);
        }
        for (id, port) in config.ports.iter().enumerate() {
            if let Addresses::Static(nets) = &port.addresses {
                nets.iter()
                    .for_each(|&net| add(net, Target::Port(id as u16)));
            }
        }
        if let Some(net) = config.gateway.ipv4 {
            if net.prefix_len() < 31 {
                add(host(net.broadcast().into()), Target::Broadcast);
            }
            add(host(net.addr().into()), Target::Gateway);
        }
        if let Some(net) = config.gateway.ipv6 {
            add(host(net.addr().into()), Target::Gateway);
        }
        let next_hops = next_hops_of(config);
        let next_hop_id = |address: IpAddr| {
            let place = next_hops.binary_search(&address);
            place.expect("every next hop is among them") as NextHopId
        };
        let uplink = config
            .uplink
            .as_ref()
            .map(|uplink| UplinkRules::new(uplink, next_hop_id));
        let names = config.devices().map(|side| side.name.to_owned());
        Self {
            names: names.collect(),
            learns: ports.iter().any(|port| port.learns),
            has_dhcp: ports.iter().any(|port| port.dhcp_server),
            egress: ports.iter().map(Egress::new).collect(),
            ports,
            uplink,
            tunnel: Tunnel::build(config, next_hop_id),
            peer_names: peers().map(|peer| peer.name.to_string()).collect(),
            next_hops: next_hops.clone(),
            gateway4: config.gateway.ipv4.map(|net| net.addr().to_bits()),
            gateway4_subnet: config.gateway.ipv4.map(|net| Subnet {
                first: net.network().to_bits(),
                len: net.prefix_len(),
            }),
            gateway6: config.gateway.ipv6.map(|net| net.addr().to_bits()),
            gateway6_subnet: config.gateway.ipv6.map(|net| Subnet {
                first: net.network().to_bits(),
                len: net.prefix_len(),
            }),
            groups: groups::of(config),
            routes4: Lpm::build(routes4),
            routes6: Lpm::build(routes6),
        }
    }

    /// The groups whose frames each side needs, in the order of [`super::PortId`].
    pub fn groups(&self) -> &[Groups] {
        &self.groups
    }

    /// Who must answer on the underlay: next hops, and peers that are their own. In the order of
    /// [`super::Counters::next_hops`].
    pub fn next_hops(&self) -> &[IpAddr] {
        &self.next_hops
    }

    /// The place of a next hop among all.
    pub(super) fn next_hop_at(&self, address: IpAddr) -> Option<NextHopId> {
        let place = self.next_hops.binary_search(&address).ok()?;
        Some(place as NextHopId)
    }

    /// Of each peer, in the order of the configuration: the place of its endpoint in
    /// [`super::Counters::longest`], and of its next hop.
    pub fn peers(&self) -> impl Iterator<Item = (usize, usize)> {
        let tunnel = self.tunnel.iter();
        tunnel.flat_map(|tunnel| {
            tunnel.peers().iter().map(|peer| {
                let vtep = usize::from(peer.vtep);
                (vtep, usize::from(tunnel.vteps()[vtep].next_hop()))
            })
        })
    }

    /// Where the address leads.
    #[inline(always)]
    pub(super) fn lead4(&self, destination: u32) -> Option<Lead> {
        self.routes4.lookup(destination)
    }

    /// Where the address leads.
    #[inline(always)]
    pub(super) fn lead6(&self, destination: u128) -> Option<Lead> {
        self.routes6.lookup(destination)
    }

    /// [`Self::lead4`], taken apart.
    #[inline(always)]
    pub(super) fn route4(&self, destination: u32) -> Option<Target> {
        self.lead4(destination).map(Lead::target)
    }

    /// [`Self::lead6`], taken apart.
    #[inline(always)]
    pub(super) fn route6(&self, destination: u128) -> Option<Target> {
        self.lead6(destination).map(Lead::target)
    }

    /// Whether nothing outside may bear the source. To ourselves speaks whoever carries the tunnel, though all the
    /// world may be behind a peer.
    pub(super) fn is_inside4(&self, source: u32, destination: u32) -> bool {
        match self.route4(source) {
            Some(Target::Peer(_)) => {
                self.gateway4_subnet.is_some_and(|net| net.has(source))
                    || self.route4(destination) != Some(Target::UplinkSelf)
            }
            target => target.is_some_and(Target::is_inside),
        }
    }

    /// As [`Self::is_inside4`].
    pub(super) fn is_inside6(&self, source: u128, destination: u128) -> bool {
        match self.route6(source) {
            // Those are of the link, whatever is behind a peer.
            _ if source == 0 || filter::is_link_local6(source) => false,
            Some(Target::Peer(_)) => {
                self.gateway6_subnet.is_some_and(|net| net.has(source))
                    || self.route6(destination) != Some(Target::UplinkSelf)
            }
            target => target.is_some_and(Target::is_inside),
        }
    }

    /// Whether DHCP may give the address to a port that learns.
    pub(super) fn is_free4(&self, address: u32) -> bool {
        let first = self.gateway4_subnet.map(|net| net.first);
        self.route4(address) == Some(Target::Unowned) && first != Some(address)
    }

    /// The port that takes a DHCP client's broadcast.
    pub(super) fn dhcp_server_for(&self, client: u16) -> Option<u16> {
        let mut ports = self.ports.iter();
        ports
            .find(|port| port.dhcp_server && port.id != client)
            .map(|port| port.id)
    }

    /// The port of that MAC.
    pub(super) fn port_of_mac(&self, mac: [u8; 6]) -> Option<u16> {
        self.ports
            .iter()
            .find(|port| port.mac == mac)
            .map(|port| port.id)
    }

    /// Every port's name, in the order of [`super::PortId`]; the uplink's last.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Every route, for people.
    pub fn routes(&self) -> Vec<Route> {
        let named = |prefix: IpNet, target: Target| {
            let (mut port, mut peer) = (None, None);
            let kind = match target {
                Target::Port(id) => {
                    port = Some(self.names[usize::from(id)].clone());
                    "port"
                }
                Target::Peer(id) => {
                    peer = Some(self.peer_names[usize::from(id)].clone());
                    "peer"
                }
                Target::Gateway => "gateway",
                Target::Unowned => "unreachable",
                Target::Broadcast => "broadcast",
                Target::Uplink => "uplink",
                Target::Underlay => "underlay",
                Target::UplinkSelf => "uplink-self",
            };
            Route {
                prefix: prefix.trunc().to_string(),
                kind,
                port,
                peer,
            }
        };
        let ipv4 = self
            .routes4
            .routes()
            .iter()
            .filter_map(|&(address, len, lead)| {
                let net = ipnet::Ipv4Net::new(Ipv4Addr::from_bits(address), len).ok()?;
                Some(named(IpNet::V4(net), lead.target()))
            });
        let ipv6 = self
            .routes6
            .routes()
            .iter()
            .filter_map(|&(address, len, lead)| {
                let net = ipnet::Ipv6Net::new(Ipv6Addr::from_bits(address), len).ok()?;
                Some(named(IpNet::V6(net), lead.target()))
            });
        ipv4.chain(ipv6).collect()
    }
}

/// All next hops of a configuration, in their order, without repetition.
fn next_hops_of(config: &SwitchConfig) -> Box<[IpAddr]> {
    let peers = config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
    let uplink = config.uplink.iter().flat_map(|uplink| {
        let ipv4 = uplink.next_hops.ipv4.map(IpAddr::V4);
        ipv4.into_iter()
            .chain(uplink.next_hops.ipv6.map(IpAddr::V6))
    });
    let mut all: Vec<IpAddr> = uplink.chain(peers.map(|peer| peer.next_hop)).collect();
    all.sort_unstable();
    all.dedup();
    all.into()
}

impl PortRules {
    fn new(id: u16, port: &PortConfig) -> Self {
        let (mac, gateway_mac) = (port.mac.octets(), port.gateway_mac.octets());
        let mut header = [0; 12];
        header[..6].copy_from_slice(&mac);
        header[6..].copy_from_slice(&gateway_mac);
        Self {
            id,
            lead: Lead::new(Target::Port(id)),
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
            limited: port.limits != Limits::default(),
            limits: port.limits,
            express: port.trunk.is_empty()
                && (port.limits.pps, port.limits.bps) == (None, None)
                && matches!(port.addresses, Addresses::Static(_)),
            express4: express::key(mac, ETHERTYPE_IPV4),
            express6: express::key(mac, ETHERTYPE_IPV6),
        }
    }
}

impl Egress {
    fn new(rules: &PortRules) -> Self {
        let longest = if rules.trunk.is_empty() { rules.mtu } else { 0 };
        Self {
            header: rules.header,
            longest,
        }
    }
}

impl UplinkRules {
    /// Whether a neighbour may have that MAC.
    pub(super) fn is_other_station(&self, mac: [u8; 6]) -> bool {
        mac[0] & 1 == 0 && mac != [0; 6] && mac != self.mac
    }

    fn new(uplink: &UplinkConfig, next_hop: impl Fn(IpAddr) -> NextHopId) -> Self {
        Self {
            mac: uplink.mac.octets(),
            mtu: uplink.mtu,
            filters_mac_here: !uplink.device.filters_mac(),
            ipv4: uplink.ipv4.map(|net| net.addr().to_bits()),
            ipv6: uplink.ipv6.map(|net| net.addr().to_bits()),
            next_hop4: uplink.next_hops.ipv4.map(|ip| next_hop(ip.into())),
            next_hop6: uplink.next_hops.ipv6.map(|ip| next_hop(ip.into())),
        }
    }
}
