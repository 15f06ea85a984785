//! What the tenants of one host must not share on the underlay. Tenants are compared by the
//! configurations of their switches, so a recorded tenant is compared like one of a file.
//!
//! Inner addresses are the gateway's subnets, which contain the ports' addresses, and the prefixes
//! behind peers. The underlay is the uplink's subnets, which contain its own addresses and next
//! hops, and the peers' endpoints. The inner addresses of two tenants may be the same, because the
//! switches keep them apart. An inner address of one tenant that is an underlay address of another
//! lets a VM of the first speak as an endpoint of the second's tunnel.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::PeerConfig;
use crate::addr::{MacAddr, Name, Vni};
use crate::error::{ConfigError, ConfigErrors};
use crate::key::KeyPath;
use crate::subnet::{overlap, show};
use crate::switch::SwitchConfig;

/// One tenant of a host.
#[derive(Debug, Clone, Copy)]
pub struct HostTenant<'a> {
    /// How errors name it, as in `tenant red`.
    pub source: &'a str,
    /// Its switch's configuration.
    pub config: &'a SwitchConfig,
}

/// Compares the tenants in `new` with each other and with those in `present`: no inner address of
/// one is on another's underlay, none sends to another's switch as to a station of the underlay,
/// and the In/Out sides' MACs differ.
///
/// # Errors
/// Every conflict in which a tenant of `new` takes part, at most 1000. The keys are those of tenant
/// files; there are no places.
pub fn check_host(present: &[HostTenant<'_>], new: &[HostTenant<'_>]) -> Result<(), ConfigErrors> {
    let sources: Vec<&str> = present.iter().chain(new).map(|it| it.source).collect();
    let configs: Vec<&SwitchConfig> = present.iter().chain(new).map(|it| it.config).collect();
    let conflicts = conflicts(&configs, &sources, present.len());
    let error = |conflict: Conflict| ConfigError {
        file: sources[conflict.tenant].to_owned(),
        place: None,
        key: conflict.key,
        port: None,
        problem: conflict.problem.into(),
    };
    ConfigErrors::check(conflicts.into_iter().map(error).collect())
}

/// A conflict of the tenant at an index with one before it.
#[derive(Debug)]
pub(super) struct Conflict {
    pub(super) tenant: usize,
    pub(super) key: KeyPath,
    pub(super) problem: HostProblem,
}

/// The most conflicts that are reported.
const MOST: usize = 1000;

/// The conflicts of all tenants from index `from` on with any before them.
pub(super) fn conflicts(configs: &[&SwitchConfig], sources: &[&str], from: usize) -> Vec<Conflict> {
    let mut found = Conflicts {
        sources,
        from,
        list: Vec::new(),
    };
    compare_macs(configs, &mut found);
    compare_stations(configs, &mut found);
    compare_subnets(configs, &mut found);
    found.list.sort_by_key(|conflict| conflict.tenant);
    found.list
}

struct Conflicts<'a> {
    sources: &'a [&'a str],
    from: usize,
    list: Vec<Conflict>,
}

impl Conflicts<'_> {
    /// Adds the conflict of two entries, at the tenant that comes second.
    fn add<T>(
        &mut self,
        one: &Claim<T>,
        other: &Claim<T>,
        problem: impl FnOnce(&Claim<T>, &Claim<T>, Other) -> HostProblem,
    ) {
        let (first, second) = match one.tenant < other.tenant {
            true => (one, other),
            false => (other, one),
        };
        if first.tenant == second.tenant || second.tenant < self.from || self.is_full() {
            return;
        }
        let other = Other {
            source: self.sources[first.tenant].to_owned(),
            key: first.key.path().to_string(),
        };
        self.list.push(Conflict {
            tenant: second.tenant,
            key: second.key.path(),
            problem: problem(second, first, other),
        });
    }

    fn is_full(&self) -> bool {
        self.list.len() >= MOST
    }
}

/// The other tenant of a conflict.
struct Other {
    source: String,
    key: String,
}

/// A value that a tenant has.
#[derive(Debug, Clone, Copy)]
struct Claim<T> {
    tenant: usize,
    key: Key,
    value: T,
}

/// A key of a tenant's file. A [`KeyPath`] for each prefix would take many times the memory.
#[derive(Debug, Clone, Copy)]
enum Key {
    /// A key of the top level.
    Table(&'static str),
    /// A table's key.
    Of(&'static str, &'static str),
    /// A peer's key.
    Peer(u32, &'static str),
    /// A prefix behind a peer: the indices of the peer and the prefix.
    Prefix(u32, u32),
    /// A prefix behind a port: the indices of the port and the prefix.
    Route(u32, u32),
}

impl Key {
    fn path(self) -> KeyPath {
        let peer = |index: u32| KeyPath::of("tunnel").key("peer").index(index as usize);
        match self {
            Self::Table(table) => KeyPath::of(table),
            Self::Of(table, key) => KeyPath::of(table).key(key),
            Self::Peer(index, key) => peer(index).key(key),
            Self::Prefix(of, index) => peer(of).key("prefixes").index(index as usize),
            Self::Route(of, index) => {
                let port = KeyPath::of("port").index(of as usize);
                port.key("routes").index(index as usize)
            }
        }
    }
}

fn compare_macs(configs: &[&SwitchConfig], found: &mut Conflicts<'_>) {
    let mut seen: HashMap<MacAddr, Claim<MacAddr>> = HashMap::new();
    for (tenant, config) in configs.iter().enumerate() {
        let Some(uplink) = &config.uplink else {
            continue;
        };
        let claim = Claim {
            tenant,
            key: Key::Table("vni"),
            value: uplink.mac,
        };
        match seen.get(&uplink.mac) {
            None => drop(seen.insert(uplink.mac, claim)),
            Some(first) => found.add(first, &claim, |this, _, other| {
                HostProblem::DuplicateInOutMac {
                    mac: this.value,
                    other: other.source,
                }
            }),
        }
    }
}

/// An address of the underlay, of a switch itself or of a station to which it sends.
#[derive(Debug, Clone, Copy)]
struct Station {
    address: IpAddr,
    is_switch: bool,
}

/// Compares the next hops and peers of each tenant with the addresses of the others' switches.
fn compare_stations(configs: &[&SwitchConfig], found: &mut Conflicts<'_>) {
    let mut switches: HashMap<IpAddr, Vec<Claim<Station>>> = HashMap::new();
    for (tenant, config) in configs.iter().enumerate() {
        let link_local = config.uplink_link_local();
        let link_local = link_local.map(|own| (Key::Table("uplink"), IpAddr::V6(own)));
        let own = uplink_addresses(config).map(|(key, own)| (key, own.addr()));
        for (key, address) in own.chain(link_local) {
            let value = Station {
                address,
                is_switch: true,
            };
            let claims = switches.entry(address).or_default();
            claims.push(Claim { tenant, key, value });
        }
    }
    for (tenant, config) in configs.iter().enumerate() {
        for (key, address) in stations(config) {
            let value = Station {
                address,
                is_switch: false,
            };
            let claim = Claim { tenant, key, value };
            for switch in switches.get(&address).into_iter().flatten() {
                found.add(switch, &claim, station_problem);
            }
        }
    }
}

fn station_problem(this: &Claim<Station>, _: &Claim<Station>, other: Other) -> HostProblem {
    let address = this.value.address;
    let (other, other_key) = (other.source, other.key);
    if this.value.is_switch {
        HostProblem::SwitchIsStation {
            address,
            other,
            other_key,
        }
    } else {
        HostProblem::StationIsSwitch {
            address,
            other,
            other_key,
        }
    }
}

/// A subnet, prefix or endpoint of a tenant, and which side of its switch it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    net: IpNet,
    side: Side,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Underlay,
    /// The gateway's subnet of a tenant that routes plainly to the underlay.
    Plain,
    /// Any other inner prefix.
    Inner,
}

/// Compares the inner and the underlay addresses of all tenants.
///
/// Two prefixes are either disjoint or one contains the other. The entries are sorted by their
/// first address, the wider first; so `open` holds the prefixes that contain the current entry,
/// one list for each side.
fn compare_subnets(configs: &[&SwitchConfig], found: &mut Conflicts<'_>) {
    let mut all: Vec<Claim<Extent>> = Vec::new();
    for (tenant, config) in configs.iter().enumerate() {
        all.extend(extents(config).map(|(key, value)| Claim { tenant, key, value }));
    }
    all.sort_by_key(|claim| (claim.value.net.network(), claim.value.net.prefix_len()));
    let mut open: [Vec<&Claim<Extent>>; 3] = Default::default();
    for claim in &all {
        for list in &mut open {
            while list
                .last()
                .is_some_and(|wider| !overlap(wider.value.net, claim.value.net))
            {
                list.pop();
            }
        }
        let against: &[Side] = match claim.value.side {
            Side::Underlay => &[Side::Plain, Side::Inner],
            Side::Plain => &[Side::Underlay, Side::Plain],
            Side::Inner => &[Side::Underlay],
        };
        for side in against {
            for wider in &open[*side as usize] {
                if found.is_full() {
                    return;
                }
                found.add(wider, claim, subnet_problem);
            }
        }
        open[claim.value.side as usize].push(claim);
    }
}

fn subnet_problem(this: &Claim<Extent>, first: &Claim<Extent>, other: Other) -> HostProblem {
    let (net, other_net) = (this.value.net, first.value.net);
    let side = |extent: Extent| extent.side == Side::Underlay;
    match (side(this.value), side(first.value)) {
        (false, true) => HostProblem::InnerOnUnderlay {
            prefix: show(net),
            underlay: show(other_net),
            other: other.source,
            other_key: other.key,
        },
        (true, _) => HostProblem::UnderlayInside {
            underlay: show(net),
            prefix: show(other_net),
            other: other.source,
            other_key: other.key,
        },
        (false, false) => HostProblem::TenantOverlap {
            subnet: net,
            other_subnet: other_net,
            other: other.source,
        },
    }
}

/// The inner and underlay prefixes of one tenant.
fn extents(config: &SwitchConfig) -> impl Iterator<Item = (Key, Extent)> {
    let only = config.tunnel.as_ref().is_some_and(|tunnel| tunnel.only);
    let side = match config.uplink.is_some() && !only {
        true => Side::Plain,
        false => Side::Inner,
    };
    let at = |key, net: IpNet, side| {
        let net = net.trunc();
        (key, Extent { net, side })
    };
    let ipv4 = config.gateway.ipv4.map(IpNet::V4);
    let ipv4 = ipv4.map(|net| at(Key::Of("gateway", "ipv4"), net, side));
    let ipv6 = config.gateway.ipv6.map(IpNet::V6);
    let ipv6 = ipv6.map(|net| at(Key::Of("gateway", "ipv6"), net, side));
    let uplinks = uplink_addresses(config);
    let endpoints = peers(config).filter_map(move |(index, peer)| {
        // A link's subnet is compared as a whole.
        let on_link = uplink_addresses(config).any(|(_, link)| link.contains(&peer.vtep));
        let key = Key::Peer(index, "vtep");
        (!on_link).then(|| at(key, peer.vtep.into(), Side::Underlay))
    });
    let sources = peers(config).flat_map(move |(index, peer)| {
        let off_link =
            |source: &&IpAddr| !uplink_addresses(config).any(|(_, link)| link.contains(*source));
        let sources = peer.sources.iter().filter(off_link);
        sources.map(move |source| {
            let key = Key::Peer(index, "sources");
            at(key, (*source).into(), Side::Underlay)
        })
    });
    let behind = peers(config).flat_map(move |(peer_index, peer)| {
        let prefixes = (0..).zip(&peer.prefixes);
        // A tenant may have all addresses behind a peer if it sends nothing plainly.
        let prefixes = prefixes.filter(|(_, net)| net.prefix_len() > 0);
        prefixes.map(move |(index, net)| at(Key::Prefix(peer_index, index), *net, Side::Inner))
    });
    let behind_ports = (0..).zip(&config.ports).flat_map(move |(of, port)| {
        let routes = (0..).zip(&port.routes);
        routes.map(move |(index, net)| at(Key::Route(of, index), *net, side))
    });
    ipv4.into_iter()
        .chain(ipv6)
        .chain(behind_ports)
        .chain(uplinks.map(move |(key, net)| at(key, net, Side::Underlay)))
        .chain(endpoints)
        .chain(sources)
        .chain(behind)
}

/// The switch's own addresses on the underlay.
fn uplink_addresses(config: &SwitchConfig) -> impl Iterator<Item = (Key, IpNet)> {
    config.uplink.iter().flat_map(|uplink| {
        let ipv4 = uplink.ipv4.map(IpNet::V4);
        let ipv6 = uplink.ipv6.map(IpNet::V6);
        // Without an IPv4 address the IPv6 one may be written under either key.
        let ipv6_key = match ipv4 {
            Some(_) => Key::Of("uplink", "address6"),
            None => Key::Table("uplink"),
        };
        let ipv4 = ipv4.map(|net| (Key::Of("uplink", "address"), net));
        ipv4.into_iter().chain(ipv6.map(|net| (ipv6_key, net)))
    })
}

/// The stations of the underlay to which a tenant's switch sends, or from which it receives.
fn stations(config: &SwitchConfig) -> impl Iterator<Item = (Key, IpAddr)> {
    let hops = config.uplink.iter().flat_map(|uplink| {
        let ipv4 = uplink.next_hops.ipv4.map(IpAddr::V4);
        let ipv6 = uplink.next_hops.ipv6.map(IpAddr::V6);
        let ipv6_key = match uplink.ipv4 {
            Some(_) => Key::Of("uplink", "next_hop6"),
            None => Key::Table("uplink"),
        };
        let ipv4 = ipv4.map(|hop| (Key::Of("uplink", "next_hop"), hop));
        ipv4.into_iter().chain(ipv6.map(|hop| (ipv6_key, hop)))
    });
    let routers: Vec<IpAddr> = hops.clone().map(|(_, hop)| hop).collect();
    let peers = peers(config).flat_map(move |(index, peer)| {
        // A file need not write the next hop: it is the endpoint itself, or the uplink's.
        let written = peer.next_hop != peer.vtep && !routers.contains(&peer.next_hop);
        let hop = written.then_some((Key::Peer(index, "next_hop"), peer.next_hop));
        let sources = peer.sources.iter();
        [(Key::Peer(index, "vtep"), peer.vtep)]
            .into_iter()
            .chain(sources.map(move |source| (Key::Peer(index, "sources"), *source)))
            .chain(hop)
    });
    hops.chain(peers)
}

fn peers(config: &SwitchConfig) -> impl Iterator<Item = (u32, &PeerConfig)> {
    let peers = config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
    (0..).zip(peers)
}

/// An error between the tenants of one host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HostProblem {
    /// Two tenants of one name.
    #[error("{name} is also the tenant of {other}; names are unique on a host")]
    DuplicateTenant {
        /// The name.
        name: Name,
        /// The other file.
        other: String,
    },
    /// Two tenants of one VNI.
    #[error("{vni} is also the VNI of {other}; every tenant has its own")]
    DuplicateVni {
        /// The VNI.
        vni: Vni,
        /// The other file.
        other: String,
    },
    /// Two tenants of one underlay address.
    #[error("{address} is also the uplink's address of {other}; every switch has its own")]
    DuplicateUplink {
        /// The address.
        address: String,
        /// The other file.
        other: String,
    },
    /// Two tenants with the same inner addresses on one underlay.
    #[error(
        "{subnet} overlaps {other_subnet} of {other}: both tenants route plainly to the underlay, \
         so its routers could not tell whose address is meant; change one subnet, leave out one \
         [uplink], or set tunnel.only = true in one file"
    )]
    TenantOverlap {
        /// This tenant's inner subnet.
        subnet: IpNet,
        /// The other tenant's.
        other_subnet: IpNet,
        /// The other file.
        other: String,
    },
    /// Two In/Out sides with one MAC.
    #[error(
        "{mac}, the MAC of the In/Out side, is also that of {other}; it is a digest of the VNI and \
         the uplink's address: change one of these"
    )]
    DuplicateInOutMac {
        /// The MAC.
        mac: MacAddr,
        /// The other file.
        other: String,
    },
    /// A next hop or peer that is the switch of another tenant.
    #[error(
        "{address} is the switch of {other} ({other_key}), which would speak for this station; \
         write the underlay's router, or a peer on another host"
    )]
    StationIsSwitch {
        /// The address.
        address: IpAddr,
        /// The other file.
        other: String,
        /// The other's key.
        other_key: String,
    },
    /// An address of the switch that is a next hop or peer of another tenant.
    #[error(
        "{address} is a station to which {other} sends ({other_key}), and this switch would speak \
         for it; choose another address"
    )]
    SwitchIsStation {
        /// The address.
        address: IpAddr,
        /// The other file.
        other: String,
        /// The other's key.
        other_key: String,
    },
    /// An inner prefix on the underlay of another tenant.
    #[error(
        "{prefix} overlaps {underlay} on the underlay of {other} ({other_key}): a VM there could \
         speak as a station of that tenant's tunnel; choose inner addresses apart from the underlay"
    )]
    InnerOnUnderlay {
        /// This tenant's inner prefix.
        prefix: String,
        /// The other tenant's subnet or endpoint.
        underlay: String,
        /// The other file.
        other: String,
        /// The other's key.
        other_key: String,
    },
    /// An underlay address among the inner addresses of another tenant.
    #[error(
        "{underlay} on the underlay overlaps {prefix}, inner addresses of {other} ({other_key}): a \
         VM there could speak as a station of this tenant's tunnel; choose inner addresses apart \
         from the underlay"
    )]
    UnderlayInside {
        /// This tenant's subnet or endpoint.
        underlay: String,
        /// The other tenant's inner prefix.
        prefix: String,
        /// The other file.
        other: String,
        /// The other's key.
        other_key: String,
    },
}
