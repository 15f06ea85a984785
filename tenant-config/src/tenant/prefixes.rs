//! The key `prefixes` of `[[tunnel.peer]]`: the addresses behind the tunnel's other ends.

use ipnet::IpNet;
use serde::Serialize;

use super::Facts;
use super::tunnel::TunnelFacts;
use crate::error::Report;
use crate::key::KeyPath;
use crate::problem::Problem;
use crate::subnet::{edge_role, host_bits, not_unicast, overlap, reserved, show};

/// The most prefixes behind all peers of a tenant.
pub const MAX_PREFIXES: usize = 131_072;

/// The owner of a prefix: the index of a port or peer, and the prefix's index in its list. Ports
/// sort first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Port(usize, usize),
    Peer(usize, u32),
}

/// Reports more prefixes than a switch takes.
pub(super) fn check_count(count: usize, key: &KeyPath, report: &Report) {
    let max = MAX_PREFIXES;
    if count > max {
        report.add(key, PrefixProblem::TooManyPrefixes { count, max });
    }
}

/// Checks the prefixes behind peers: each by itself, then against the ports' and each other.
///
/// They are sorted by their first address, the wider first. So the stack holds the ports' prefixes
/// that contain the current entry, and equal entries are neighbours.
pub(super) fn check(tunnel: &TunnelFacts, facts: &Facts, report: &Report) {
    let count = tunnel.peers.iter().map(|peer| peer.listed).sum();
    if let Some(listed) = &tunnel.listed {
        check_count(count, &listed.key, report);
    }
    let mut all: Vec<(IpNet, Owner)> = Vec::with_capacity(count);
    for (position, peer) in tunnel.peers.iter().enumerate() {
        for &(index, prefix) in &peer.prefixes {
            match prefix_problem(prefix, tunnel, facts) {
                Some(problem) => report.add(&peer.prefix_key(index), problem),
                None => all.push((prefix, Owner::Peer(position, index))),
            }
        }
    }
    for (position, port) in facts.ports.iter().enumerate() {
        let nets = port.destinations().enumerate();
        all.extend(nets.map(|(index, net)| (net.value.trunc(), Owner::Port(position, index))));
    }
    all.sort_unstable();
    let key = |owner| match owner {
        Owner::Port(port, index) => {
            let mut all = facts.ports[port].destinations();
            all.nth(index).expect("it has so many").key.clone()
        }
        Owner::Peer(peer, index) => tunnel.peers[peer].prefix_key(index),
    };
    let mut open: Vec<(IpNet, usize, Owner)> = Vec::new();
    let mut last: Option<(IpNet, Owner)> = None;
    for (net, owner) in all {
        while open.last().is_some_and(|(wider, ..)| !wider.contains(&net)) {
            open.pop();
        }
        if let Owner::Port(port, _) = owner {
            open.push((net, port, owner));
        } else if let Some((wider, port, wider_owner)) = open.last() {
            let name = facts.ports[*port].name.as_ref();
            let problem = PrefixProblem::PrefixAtPort {
                prefix: show(net),
                other: show(*wider),
                other_port: name.map_or_else(String::new, |name| name.value.to_string()),
                other_key: key(*wider_owner).to_string(),
            };
            report.add(&key(owner), problem);
        } else if let Some((_, first)) = last.filter(|(other, _)| *other == net) {
            let problem = PrefixProblem::PrefixRepeated {
                prefix: show(net),
                other_key: key(first).to_string(),
            };
            report.add(&key(owner), problem);
        } else {
            last = Some((net, owner));
        }
    }
}

/// The error of one prefix behind a peer by itself, if any.
fn prefix_problem(prefix: IpNet, tunnel: &TunnelFacts, facts: &Facts) -> Option<Problem> {
    if prefix != prefix.trunc() {
        return Some(host_bits(prefix));
    }
    let all = prefix.prefix_len() == 0;
    if !all
        && let Some(what) =
            not_unicast(prefix.network()).or_else(|| not_unicast(prefix.broadcast()))
    {
        let address = show(prefix);
        return Some(Problem::NotUnicast { address, what });
    }
    let gateway = &facts.gateway;
    let Some(at_gateway) = gateway.of_family(prefix) else {
        return gateway.missing(show(prefix), prefix.addr().is_ipv4());
    };
    if all {
        let problem = PrefixProblem::PrefixOfAll { prefix };
        return (tunnel.only == Some(false)).then(|| problem.into());
    }
    let underlay = facts.uplink.links.iter().map(|(address, _)| address);
    for address in underlay {
        if overlap(address.value, prefix) {
            return Some(Problem::SubnetOverlap {
                subnet: prefix,
                other: address.value.trunc(),
                other_key: address.key.to_string(),
            });
        }
    }
    if prefix.prefix_len() < prefix.max_prefix_len() {
        let mut ports = facts.ports.iter();
        let learned = ports.find_map(|port| match prefix {
            IpNet::V4(_) => port.addresses.learned.as_ref(),
            IpNet::V6(_) => port.addresses6.as_ref(),
        })?;
        let problem = PrefixProblem::PrefixOfLearned {
            prefix,
            other_key: learned.to_string(),
        };
        return (prefix == at_gateway.trunc()).then(|| problem.into());
    }
    let (address, subnet) = (prefix.addr(), at_gateway.trunc());
    let role = if address == at_gateway.addr() {
        Some("the address of the gateway")
    } else {
        edge_role(subnet, address)
    };
    role.map(|role| reserved(prefix, address, role, subnet))
}

/// An error in the prefixes behind peers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PrefixProblem {
    /// More prefixes behind peers than a switch takes.
    #[error(
        "there are {count} prefixes behind all peers together, and a switch takes at most {max}; \
         merge neighbouring ones"
    )]
    TooManyPrefixes {
        /// How many there are.
        count: usize,
        /// How many are accepted.
        max: usize,
    },
    /// The whole subnet of the gateway behind a peer, while a port learns its address.
    #[error(
        "{prefix} is the gateway's whole subnet, of which {other_key} learns an address; \
         write the parts that are behind the peer"
    )]
    PrefixOfLearned {
        /// The prefix.
        prefix: IpNet,
        /// The port's key.
        other_key: String,
    },
    /// A prefix that two peers have, or that one has twice.
    #[error("{prefix} is already {other_key}; a prefix is behind one peer and written once")]
    PrefixRepeated {
        /// The address or prefix.
        prefix: String,
        /// Where it is written first.
        other_key: String,
    },
    /// A prefix behind a peer that a port has.
    #[error(
        "{prefix} belongs to port {other_port:?}, which has {other} ({other_key}); an address is \
         at a port or behind a peer"
    )]
    PrefixAtPort {
        /// The address or prefix.
        prefix: String,
        /// The port's address or prefix.
        other: String,
        /// The port's name.
        other_port: String,
        /// Where the port's is written.
        other_key: String,
    },
    /// All addresses behind a peer, of a tenant that also has external routes.
    #[error(
        "{prefix} is all there is, but this tenant also reaches the world through the uplink; set \
         tunnel.only = true, or list narrower prefixes"
    )]
    PrefixOfAll {
        /// The prefix.
        prefix: IpNet,
    },
}
