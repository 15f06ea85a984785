//! The immutable half of a switch: everything that look-ups read. Built off the worker from a
//! checked configuration; a change of configuration is a new set of tables.

mod build;
mod dhcp;
mod dhcp6;
mod dns;
mod groups;
mod multicast;
mod port;
mod shared_address;
mod target;
mod tunnel;
mod uplink;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use packet::addr;
use packet::wire::dhcp_server::Offer;
use packet::wire::dhcp6_server::Offer as Offer6;
use packet::wire::dns::Reverse;
use packet::wire::nd::{Advertisement, Autoconf};
use serde::Serialize;
use tenant_config::Ipv6Autoconf;

pub(crate) use self::dns::{Names, Resolver};
pub use self::groups::Groups;
pub(crate) use self::multicast::MulticastRules;
pub(crate) use self::port::{PortEgress, PortExpress, PortRules};
pub(crate) use self::shared_address::SharedAddress;
pub(crate) use self::target::{PackedTarget, Target};
pub(crate) use self::tunnel::{Peer, Tunnel, Vtep};
pub(crate) use self::uplink::UplinkRules;

use crate::ids::{NextHopId, PortId, SharedId};
use crate::lpm::{Key, Lpm, LpmView};
use crate::secret::FlowSecret;

/// The routes of IPv4, for a burst of look-ups.
pub(crate) type View4<'t> = LpmView<'t, u32, PackedTarget>;
/// The same of IPv6.
pub(crate) type View6<'t> = LpmView<'t, u128, PackedTarget>;

/// A subnet of the gateway's.
#[derive(Debug, Clone, Copy)]
struct Subnet<A> {
    /// Its first address, which no station may have.
    first: A,
    len: u8,
}

impl<A: Key> Subnet<A> {
    fn has(self, address: A) -> bool {
        address & A::mask(self.len) == self.first
    }
}

/// All look-up tables of one generation. Parts that the previous generation has too are shared with
/// it, so that a change of one peer or prefix does not build all of them again.
#[derive(Debug)]
pub struct Tables {
    pub(crate) names: Arc<[String]>,
    pub(crate) ports: Arc<[PortRules]>,
    pub(crate) egress: Arc<[PortEgress]>,
    pub(crate) uplink: Option<UplinkRules>,
    pub(crate) tunnel: Option<Tunnel>,
    pub(crate) peer_names: Arc<[String]>,
    pub(crate) secret: FlowSecret,
    /// Addresses that several ports may hold, sorted.
    pub(crate) shared: Arc<[SharedAddress]>,
    /// Next hops on the underlay, sorted, without repetition.
    pub(crate) next_hops: Arc<[IpAddr]>,
    pub(crate) gateway4: Option<u32>,
    gateway4_subnet: Option<Subnet<u32>>,
    pub(crate) gateway6: Option<u128>,
    gateway6_subnet: Option<Subnet<u128>>,
    /// Whether any port's address comes from DHCP.
    pub(crate) learns: bool,
    /// Whether any port may claim addresses in the gateway's IPv6 subnet.
    pub(crate) learns6: bool,
    /// Whether any port serves DHCP.
    pub(crate) has_dhcp: bool,
    /// What the gateway's own DHCP server gives each port; empty if it does not serve.
    offers: Arc<[Option<Offer>]>,
    /// The same of its DHCPv6 server.
    offers6: Arc<[Offer6]>,
    /// What Router Advertisements tell of name servers.
    resolver_options: Box<[u8]>,
    /// The names for which the gateway answers, if it does.
    pub(crate) names_of_ports: Option<Names>,
    /// The resolvers that are asked for other names.
    pub(crate) resolvers: Box<[Resolver]>,
    /// How the gateway tells VMs to come by their IPv6 addresses.
    ipv6_autoconf: Ipv6Autoconf,
    /// What `[multicast]` allows, if anything.
    pub(crate) multicast: Option<MulticastRules>,
    groups: Box<[Groups]>,
    routes4: Lpm<u32, PackedTarget>,
    routes6: Lpm<u128, PackedTarget>,
}

/// One route, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The destination, as in `10.0.0.11/32`.
    pub prefix: String,
    /// What kind of target: `port`, `shared`, `peer`, `gateway`, `unreachable`, `broadcast`,
    /// `uplink`, `underlay`, `uplink-self`.
    pub kind: &'static str,
    /// The port's name, for kind `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The peer's name, for kind `peer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// What people read: [`Tables`] as the control API shows them.
impl Tables {
    /// The groups whose frames each side needs, in the order of [`PortId`].
    pub fn groups(&self) -> &[Groups] {
        &self.groups
    }

    /// The next hops on the underlay, those towards peers included. In the order of
    /// [`crate::Counters::next_hops`].
    pub fn next_hops(&self) -> &[IpAddr] {
        &self.next_hops
    }

    /// The shared addresses, sorted. In the order of [`crate::Counters::holders`].
    pub fn shared_addresses(&self) -> impl ExactSizeIterator<Item = IpAddr> + '_ {
        self.shared.iter().map(|shared| shared.address)
    }

    /// For each peer, in the order of the configuration: the place of its endpoint in
    /// [`crate::Counters::inner_mtu`], and of its next hop.
    pub fn peers(&self) -> impl Iterator<Item = (usize, usize)> {
        let tunnel = self.tunnel.iter();
        tunnel.flat_map(|tunnel| {
            tunnel.peers().iter().map(|peer| {
                let next_hop = tunnel.vtep(peer.vtep).next_hop;
                (peer.vtep.index(), next_hop.index())
            })
        })
    }

    /// Every port's name, in the order of [`PortId`]; the uplink's last.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Every route, for people.
    pub fn routes(&self) -> Vec<Route> {
        let ipv4 = self.routes4.routes().iter();
        let ipv4 = ipv4.filter_map(|&(address, len, target)| {
            let net = ipnet::Ipv4Net::new(Ipv4Addr::from_bits(address), len).ok()?;
            Some(self.named(IpNet::V4(net), target.target()))
        });
        let ipv6 = self.routes6.routes().iter();
        let ipv6 = ipv6.filter_map(|&(address, len, target)| {
            let net = ipnet::Ipv6Net::new(Ipv6Addr::from_bits(address), len).ok()?;
            Some(self.named(IpNet::V6(net), target.target()))
        });
        ipv4.chain(ipv6).collect()
    }

    fn named(&self, prefix: IpNet, target: Target) -> Route {
        let (mut port, mut peer) = (None, None);
        let kind = match target {
            Target::Port(id) => {
                port = Some(self.names[id.index()].clone());
                "port"
            }
            Target::Peer(id) => {
                peer = Some(self.peer_names[id.index()].clone());
                "peer"
            }
            Target::Shared(_) => "shared",
            Target::Gateway => "gateway",
            Target::Unowned => "unreachable",
            Target::Broadcast => "broadcast",
            Target::Uplink => "uplink",
            Target::Underlay | Target::UnderlayEdge => "underlay",
            Target::UplinkSelf => "uplink-self",
        };
        Route {
            prefix: prefix.trunc().to_string(),
            kind,
            port,
            peer,
        }
    }
}

/// What the stages ask.
impl Tables {
    /// The uplink's place among the ports.
    #[inline(always)]
    pub(crate) fn uplink_id(&self) -> PortId {
        PortId(self.ports.len() as u16)
    }

    /// The rules of a tenant's port.
    #[inline(always)]
    pub(crate) fn port(&self, id: PortId) -> &PortRules {
        &self.ports[id.index()]
    }

    /// The place of a next hop among all.
    pub(crate) fn next_hop_at(&self, address: IpAddr) -> Option<NextHopId> {
        let place = self.next_hops.binary_search(&address).ok()?;
        Some(NextHopId(place as u16))
    }

    /// The routes of each family, for a burst of look-ups.
    #[inline(always)]
    pub(crate) fn views(&self) -> (View4<'_>, View6<'_>) {
        (self.routes4.view(), self.routes6.view())
    }

    /// The target of the route for `destination`, as the table holds it.
    #[inline(always)]
    pub(crate) fn packed4(&self, destination: u32) -> Option<PackedTarget> {
        self.routes4.lookup(destination)
    }

    /// As [`Self::packed4`].
    #[inline(always)]
    pub(crate) fn packed6(&self, destination: u128) -> Option<PackedTarget> {
        self.routes6.lookup(destination)
    }

    /// The target of the route for `destination`.
    #[inline(always)]
    pub(crate) fn route4(&self, destination: u32) -> Option<Target> {
        self.packed4(destination).map(PackedTarget::target)
    }

    /// As [`Self::route4`].
    #[inline(always)]
    pub(crate) fn route6(&self, destination: u128) -> Option<Target> {
        self.packed6(destination).map(PackedTarget::target)
    }

    /// Whether this source must not arrive from outside. Endpoints of peers may still address the
    /// switch itself, even if a peer has 0.0.0.0/0.
    pub(crate) fn is_inside4(&self, source: u32, destination: u32) -> bool {
        match self.route4(source) {
            Some(Target::Peer(_)) => {
                self.gateway4_subnet.is_some_and(|net| net.has(source))
                    || self.route4(destination) != Some(Target::UplinkSelf)
            }
            target => target.is_some_and(Target::is_inside),
        }
    }

    /// As [`Self::is_inside4`].
    pub(crate) fn is_inside6(&self, source: u128, destination: u128) -> bool {
        match self.route6(source) {
            // These are stations of the underlay's link, even if a peer has ::/0.
            _ if source == 0 || addr::is_link_local6(source) => false,
            Some(Target::Peer(_)) => {
                self.gateway6_subnet.is_some_and(|net| net.has(source))
                    || self.route6(destination) != Some(Target::UplinkSelf)
            }
            target => target.is_some_and(Target::is_inside),
        }
    }

    /// Whether an external IPv6 address stands for an IPv4 address that is closed: inside, on the
    /// underlay, or one that no packet is routed to.
    pub(crate) fn stands_for_closed4(&self, address: u128) -> bool {
        let embedded = addr::embedded4(address);
        let mut all = embedded.addresses.into_iter().flatten();
        all.any(|ip| {
            let open = matches!(self.route4(ip), None | Some(Target::Uplink));
            !open || (embedded.exact && !addr::is_routable4(ip))
        })
    }

    /// Whether DHCP may give the address to a port that learns.
    pub(crate) fn is_free4(&self, address: u32) -> bool {
        let first = self.gateway4_subnet.map(|net| net.first);
        self.route4(address) == Some(Target::Unowned) && first != Some(address)
    }

    /// What the gateway's own DHCP server gives that port.
    pub(crate) fn dhcp_offer(&self, id: PortId) -> Option<&Offer> {
        self.offers.get(id.index())?.as_ref()
    }

    /// What the gateway's own DHCPv6 server gives that port.
    pub(crate) fn dhcp6_offer(&self, id: PortId) -> Option<&Offer6> {
        self.offers6.get(id.index())
    }

    /// The ports that receive what a DHCP client says to all servers.
    pub(crate) fn dhcp_servers_for(
        &self,
        client: PortId,
    ) -> impl Iterator<Item = &PortRules> + Clone {
        let ports = self.ports.iter();
        ports.filter(move |port| port.dhcp_server && port.id != client)
    }

    /// Whether a group is allowed, of IPv4 as [`addr::mapped4`] makes it.
    pub(crate) fn allows_group(&self, group: u128) -> bool {
        let rules = self.multicast.as_ref();
        rules.is_some_and(|rules| rules.allows(group))
    }

    /// The port of that MAC.
    pub(crate) fn port_of_mac(&self, mac: [u8; 6]) -> Option<PortId> {
        let mut ports = self.ports.iter();
        ports.find(|port| port.mac == mac).map(|port| port.id)
    }

    /// The port that may send from that MAC.
    pub(crate) fn owner_of_mac(&self, mac: [u8; 6]) -> Option<PortId> {
        let mut ports = self.ports.iter();
        ports.find(|port| port.has_mac(mac)).map(|port| port.id)
    }

    /// Whether the address is in the gateway's subnet.
    pub(crate) fn is_near4(&self, address: u32) -> bool {
        self.gateway4_subnet.is_some_and(|net| net.has(address))
    }

    /// Whether the name is of that subnet's reverse zone, or in it.
    pub(crate) fn has_zone4(&self, name: Reverse<u32>) -> bool {
        let subnet = self.gateway4_subnet;
        subnet.is_some_and(|net| name.len >= net.len && net.has(name.first))
    }

    /// As [`Self::has_zone4`].
    pub(crate) fn has_zone6(&self, name: Reverse<u128>) -> bool {
        let subnet = self.gateway6_subnet;
        subnet.is_some_and(|net| name.len >= net.len && net.has(name.first))
    }

    /// Whether the port may hold that shared address.
    #[cold]
    pub(crate) fn may_hold(&self, id: PortId, shared: SharedId) -> bool {
        self.shared[shared.index()].ports.contains(&id)
    }

    /// The shared address's place, if the address is one.
    pub(crate) fn shared_at(&self, address: IpAddr) -> Option<SharedId> {
        let place = self
            .shared
            .binary_search_by_key(&address, |shared| shared.address);
        Some(SharedId(place.ok()? as u16))
    }

    /// Whether the address is in the gateway's IPv6 subnet.
    pub(crate) fn is_near6(&self, address: u128) -> bool {
        self.gateway6_subnet.is_some_and(|net| net.has(address))
    }

    /// Whether the port may claim the address: a link-local one that is neither the gateway's nor
    /// made from a port's MAC, or if the port learns, one of the gateway's subnet that is nobody's.
    pub(crate) fn is_claimable6(&self, rules: &PortRules, address: u128) -> bool {
        if addr::is_link_local6(address) {
            return !self.is_assigned_link_local(address);
        }
        rules.learns6 && self.is_free6(address)
    }

    /// Whether the address is in the gateway's subnet, and nobody's by the configuration.
    #[inline]
    pub(crate) fn is_free6(&self, address: u128) -> bool {
        let first = self.gateway6_subnet.map(|net| net.first);
        self.route6(address) == Some(Target::Unowned) && first != Some(address)
    }

    /// Whether the link-local address is the gateway's at a port, or made from a port's MAC.
    fn is_assigned_link_local(&self, address: u128) -> bool {
        self.ports
            .iter()
            .any(|port| [port.link_local, port.gateway_link_local].contains(&address))
    }

    /// Whether the gateway, a port by its configuration, or a peer has the address.
    pub(crate) fn has_station6(&self, address: u128) -> bool {
        if addr::is_link_local6(address) {
            return self.is_assigned_link_local(address);
        }
        let target = self.route6(address);
        let has_it = matches!(
            target,
            Some(Target::Gateway | Target::Port(_) | Target::Peer(_))
        );
        has_it && !addr::is_embedded4(address)
    }

    /// The port whose MAC that link-local address is made from.
    pub(crate) fn port_of_link_local(&self, address: u128) -> Option<PortId> {
        let mut ports = self.ports.iter();
        ports
            .find(|port| port.link_local == address)
            .map(|port| port.id)
    }

    /// The Router Advertisement of that port, if the tenant has an IPv6 gateway.
    pub(crate) fn advertisement(&self, rules: &PortRules) -> Option<Advertisement<'_>> {
        let offer = self.dhcp6_offer(rules.id);
        let has_address = offer.is_some_and(|offer| offer.address().is_some());
        let other = self.has_dhcp || offer.is_some();
        self.gateway6.map(|gateway| Advertisement {
            mac: rules.gateway_mac,
            link_local: rules.gateway_link_local,
            gateway,
            prefix_len: self.gateway6_subnet.map_or(0, |net| net.len),
            mtu: match &self.tunnel {
                Some(tunnel) => rules.mtu.min(tunnel.max_len),
                None => rules.mtu,
            },
            autoconf: match self.ipv6_autoconf {
                Ipv6Autoconf::None => Autoconf::default(),
                Ipv6Autoconf::Slaac if rules.learns6 => Autoconf {
                    prefix: true,
                    other,
                    ..Autoconf::default()
                },
                // A VM that may use nothing that it forms is given its address.
                Ipv6Autoconf::Slaac | Ipv6Autoconf::Dhcpv6 => Autoconf {
                    managed: self.has_dhcp || has_address,
                    other,
                    ..Autoconf::default()
                },
            },
            resolvers: &self.resolver_options,
        })
    }

    /// Whether frames from the underlay must come through the tunnel.
    #[inline(always)]
    pub(crate) fn takes_only_tunnel(&self) -> bool {
        self.tunnel.as_ref().is_some_and(|tunnel| tunnel.only)
    }
}
