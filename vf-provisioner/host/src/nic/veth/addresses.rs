//! Addresses of the underlay that the host itself must not have.
//!
//! Nothing of an In/Out port reaches the host. So the host cannot be a tenant's router, or a peer
//! of its tunnel. And if the bridge had the tenant's own address, the host would answer for it. On
//! other interfaces the host may have that address, as its networks and the underlay may overlap:
//! the bridge answers ARP for its own addresses only.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

use crate::error::HostError;
use crate::resource::Resource;
use crate::state::Record;

/// The addresses of this network namespace, and the interfaces that have them.
pub(super) type OfHost = BTreeMap<IpAddr, Vec<String>>;

/// Reads them.
pub(super) fn of_host() -> Result<OfHost, HostError> {
    let all = getifaddrs().map_err(HostError::sys("cannot list the host's addresses"))?;
    let mut addresses = OfHost::new();
    for entry in all {
        let Some(address) = entry.address else {
            continue;
        };
        let ipv4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        let ipv6 = || Some(IpAddr::V6(address.as_sockaddr_in6()?.ip()));
        if let Some(address) = ipv4.or_else(ipv6) {
            let interfaces = addresses.entry(address).or_default();
            interfaces.push(entry.interface_name);
        }
    }
    Ok(addresses)
}

/// What an address is to a tenant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Own,
    NextHop,
    Peer,
}

/// Why a host with these addresses cannot carry the tenant, as a sentence.
pub(super) fn refusal(record: &Record, host: &OfHost) -> Option<String> {
    let bridge = record
        .resources
        .iter()
        .find_map(|resource| match resource {
            Resource::Bridge(bridge) => Some(bridge.interface.as_str()),
            _ => None,
        })?;
    let config = &record.switch()?.config;
    let uplink = config.uplink.iter();
    let own = uplink.clone().flat_map(|uplink| {
        let ipv4 = uplink.ipv4.map(|it| IpAddr::V4(it.addr()));
        [ipv4, uplink.ipv6.map(|it| IpAddr::V6(it.addr()))]
    });
    let hops = uplink.flat_map(|uplink| {
        let hops = uplink.next_hops;
        [hops.ipv4.map(IpAddr::V4), hops.ipv6.map(IpAddr::V6)]
    });
    let peers = config.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
    let mut all = own
        .flatten()
        .map(|it| (Role::Own, it))
        .chain(hops.flatten().map(|it| (Role::NextHop, it)))
        .chain(peers.flat_map(|it| {
            let all = [it.vtep].into_iter().chain(it.sources.iter().copied());
            all.map(|address| (Role::Peer, address))
        }));
    all.find_map(|(role, address)| {
        let anywhere = role != Role::Own && !is_link_local(address);
        let interfaces = host.get(&address)?.iter();
        let mut meant = interfaces.filter(|it| anywhere || *it == bridge);
        let on = match meant.next()? {
            name if name == bridge => format!("bridge {name}"),
            name => format!("interface {name}"),
        };
        Some(match role {
            Role::Own => format!(
                "the host has {address}, its own address, on {on}, and would answer for it: \
                 remove that address from the host"
            ),
            Role::NextHop | Role::Peer => {
                let role = if role == Role::Peer {
                    "peer"
                } else {
                    "next hop"
                };
                format!(
                    "the host has {address}, its {role}, on {on}: nothing of a switch's port \
                     reaches the host, so move that address to a machine or a network namespace \
                     of its own"
                )
            }
        })
    })
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => it.is_link_local(),
        IpAddr::V6(it) => it.is_unicast_link_local(),
    }
}
