//! `[[tunnel.peer]]`: the tunnel's other ends, and the addresses behind them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Facts;
use super::ipsec::{PeerIpsec, PeerIpsecFacts, Protection};
use super::mtu;
use super::port::gateway_macs;
use super::prefixes;
use super::tunnel::TunnelFacts;
use super::uplink::Uplink;
use crate::addr::{MacAddr, Name, Vni};
use crate::document::{Node, Section};
use crate::error::Report;
use crate::key::{At, KeyPath, elements, values};
use crate::problem::Problem;
use crate::subnet::{edge_role, not_unicast, parse_address, parse_prefix};

/// The most peers of a tenant.
pub const MAX_PEERS: usize = 1024;
/// The most further source addresses of a peer.
const MAX_SOURCES: usize = 16;

/// One other end of the tunnel in a tenant file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[non_exhaustive]
pub struct Peer {
    /// Unique among the tenant's peers.
    pub name: Name,
    /// Its tunnel endpoint, of the family of our own.
    pub vtep: IpAddr,
    /// Further addresses from which its packets come; ours go to `vtep` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = 16))]
    pub sources: Vec<IpAddr>,
    /// The addresses and prefixes behind it.
    #[schemars(with = "Vec<String>")]
    pub prefixes: Vec<IpNet>,
    /// The MAC that receives frames there, inside the tunnel. By default that of a switch of this
    /// project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// The underlay's router towards the endpoint. By default the endpoint itself if it is on-link,
    /// or else the uplink's next hop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<IpAddr>,
    /// The largest IP packet that the underlay carries to the endpoint, in bytes. By default the
    /// uplink's `mtu`, which is the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 576, max = 9216))]
    pub mtu: Option<u16>,
    /// Whether and how packets to and from it are protected.
    #[serde(flatten)]
    pub ipsec: PeerIpsec,
}

/// One other end of the tunnel, and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Unique within the tenant.
    pub name: Name,
    /// Its tunnel endpoint on the underlay.
    pub vtep: IpAddr,
    /// Further addresses from which its packets come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<IpAddr>,
    /// The MAC that receives frames there, inside the tunnel.
    pub mac: MacAddr,
    /// The station on our link that receives packets for the endpoint: the endpoint itself, or a
    /// router.
    pub next_hop: IpAddr,
    /// The largest IP packet that the underlay carries to the endpoint, in bytes; without it the
    /// uplink's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// The addresses (as /32 or /128) and prefixes behind it.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub prefixes: Vec<IpNet>,
    /// Whether packets to and from it must be protected.
    #[serde(default, skip_serializing_if = "Protection::is_off")]
    pub ipsec: Protection,
}

/// One peer, as far as it could be read.
#[derive(Debug, Default)]
pub(crate) struct PeerFacts {
    pub(super) key: KeyPath,
    name: Option<At<Name>>,
    pub(super) vtep: Option<At<IpAddr>>,
    sources: Vec<At<IpAddr>>,
    mac: Option<At<MacAddr>>,
    next_hop: Option<At<IpAddr>>,
    pub(super) mtu: Option<At<i64>>,
    /// Whether the next hop could not be read, so that an absent one may have been meant.
    unreadable: bool,
    /// Each with its index in the list; a key for each would take many times the memory.
    pub(super) prefixes: Vec<(u32, IpNet)>,
    /// The length of the list, unreadable elements included.
    pub(super) listed: usize,
    pub(super) ipsec: PeerIpsecFacts,
}

impl Peer {
    /// Reads all peers. The key and length of the list are there if it is a list.
    pub(super) fn read_all(
        node: Option<Node<'_>>,
    ) -> (Option<Vec<Self>>, Option<At<usize>>, Vec<PeerFacts>) {
        let Some(node) = node else {
            return (Some(Vec::new()), None, Vec::new());
        };
        let Some(items) = node.items("an array of tables, each under its own [[tunnel.peer]]")
        else {
            return (None, None, Vec::new());
        };
        let listed = Some(At::new(node.path.clone(), items.len()));
        let read = |item: &Node<'_>| item.section().map_or_else(Default::default, Self::read);
        let (peers, facts): (Vec<_>, Vec<_>) = items.iter().map(read).unzip();
        (peers.into_iter().collect(), listed, facts)
    }

    fn read(mut section: Section<'_>) -> (Option<Self>, PeerFacts) {
        let name = section.require("name", "the peer's name, as in name = \"host-b\"");
        let vtep = section.require(
            "vtep",
            "the peer's tunnel endpoint, as in vtep = \"192.0.2.66\"",
        );
        let prefixes = section.require(
            "prefixes",
            "the addresses and prefixes behind the peer, \
             as in prefixes = [\"10.0.0.71\", \"10.0.8.0/24\"]",
        );
        let sources = section.get("sources");
        let sources = sources.map_or_else(Vec::new, |node| {
            node.list("an array of addresses", |item| item.text(parse_address))
        });
        let mac = section.get("mac");
        let next_hop = section.get("next_hop");
        let routed = next_hop.is_some();
        let mut facts = PeerFacts {
            key: section.path.clone(),
            name: name.and_then(|node| node.read(|node| node.text(Name::from_str))),
            vtep: vtep.and_then(|node| node.read(|node| node.text(parse_address))),
            sources,
            mac: mac.and_then(|node| node.read(|node| node.text(MacAddr::from_str))),
            next_hop: next_hop.and_then(|node| node.read(|node| node.text(parse_address))),
            mtu: mtu::read(section.get("mtu")),
            ..PeerFacts::default()
        };
        facts.unreadable = routed && facts.next_hop.is_none();
        let items = prefixes.and_then(|node| node.items("an array of addresses and prefixes"));
        for (index, item) in (0..).zip(items.iter().flatten()) {
            facts.listed += 1;
            let prefix = item.text(parse_prefix);
            facts.prefixes.extend(prefix.map(|prefix| (index, prefix)));
        }
        let ipsec;
        (ipsec, facts.ipsec) = PeerIpsec::read(&mut section);
        section.finish();
        let peer = || {
            Some(Self {
                name: facts.name.as_ref()?.value.clone(),
                vtep: facts.vtep.as_ref()?.value,
                sources: values(&facts.sources),
                prefixes: facts.prefixes.iter().map(|(_, prefix)| *prefix).collect(),
                mac: facts.mac.as_ref().map(|mac| mac.value),
                next_hop: facts.next_hop.as_ref().map(|next_hop| next_hop.value),
                // The rules refuse one that does not fit.
                mtu: (facts.mtu.as_ref()).and_then(|mtu| u16::try_from(mtu.value).ok()),
                ipsec: ipsec?,
            })
        };
        (peer(), facts)
    }

    pub(super) fn config(&self, vni: Vni, uplink: &Uplink, default: Protection) -> PeerConfig {
        PeerConfig {
            name: self.name.clone(),
            vtep: self.vtep,
            sources: self.sources.clone(),
            mac: self.mac.unwrap_or_else(|| MacAddr::of_vtep(vni, self.vtep)),
            next_hop: self
                .next_hop
                .or_else(|| uplink.next_hop_to(self.vtep))
                .expect("the rules found a next hop for each peer"),
            mtu: self.mtu,
            prefixes: self.prefixes.clone(),
            ipsec: self.ipsec.mode.unwrap_or(default),
        }
    }
}

impl PeerConfig {
    pub(super) fn facts(&self, table: KeyPath) -> PeerFacts {
        PeerFacts {
            name: Some(At::new(table.key("name"), self.name.clone())),
            vtep: Some(At::new(table.key("vtep"), self.vtep)),
            sources: elements(&table.key("sources"), &self.sources),
            mac: Some(At::new(table.key("mac"), self.mac)),
            next_hop: Some(At::new(table.key("next_hop"), self.next_hop)),
            mtu: (self.mtu).map(|mtu| At::new(table.key("mtu"), mtu.into())),
            unreadable: false,
            prefixes: (0..).zip(self.prefixes.iter().copied()).collect(),
            listed: self.prefixes.len(),
            ipsec: PeerIpsecFacts::of_switch(At::new(table.key("ipsec"), self.ipsec)),
            key: table,
        }
    }
}

impl PeerFacts {
    /// The addresses from which its packets come.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &At<IpAddr>> {
        self.vtep.iter().chain(&self.sources)
    }

    pub(super) fn prefix_key(&self, index: u32) -> KeyPath {
        self.key.key("prefixes").index(index as usize)
    }
}

/// Checks all peers of the tunnel whose own endpoint is `own`.
pub(super) fn check(tunnel: &TunnelFacts, own: Option<IpAddr>, facts: &Facts, report: &Report) {
    if let Some(listed) = &tunnel.listed {
        report.bound(&listed.key, listed.value, MAX_PEERS);
    }
    let mut names = HashMap::new();
    let mut next_hops: HashMap<IpAddr, (Option<IpAddr>, &KeyPath)> = HashMap::new();
    let mut mtus: HashMap<IpAddr, (Option<i64>, &KeyPath)> = HashMap::new();
    for peer in &tunnel.peers {
        let next_hop = peer.next_hop.as_ref().map(|hop| hop.value);
        if let Some(vtep) = &peer.vtep
            && !peer.unreadable
            && let Some((other, other_key)) = next_hops.insert(vtep.value, (next_hop, &peer.key))
            && other != next_hop
        {
            let problem = PeerProblem::PeerNextHops {
                vtep: vtep.value,
                other_key: other_key.to_string(),
            };
            report.add(&peer.key.key("next_hop"), problem);
        }
        let mtu = peer.mtu.as_ref().map(|mtu| mtu.value);
        if let Some(vtep) = &peer.vtep
            && let Some((other, other_key)) = mtus.insert(vtep.value, (mtu, &peer.key))
            && other != mtu
        {
            let problem = PeerProblem::PeerMtus {
                vtep: vtep.value,
                other_key: other_key.to_string(),
            };
            report.add(&peer.key.key("mtu"), problem);
        }
        if let Some(name) = &peer.name
            && let Some(other) = names.insert(&name.value, &name.key)
        {
            let problem = PeerProblem::DuplicatePeer {
                name: name.value.clone(),
                other: other.to_string(),
            };
            report.add(&name.key, problem);
        }
        check_peer(peer, tunnel, own, facts, report);
    }
    check_sources(tunnel, own, facts, report);
    prefixes::check(tunnel, facts, report);
}

/// Checks the further source addresses: each is of one endpoint, written once, and none is under
/// IPsec, where the endpoint itself is authenticated.
fn check_sources(tunnel: &TunnelFacts, own: Option<IpAddr>, facts: &Facts, report: &Report) {
    let link = own.and_then(|own| facts.uplink.link_of(own));
    let mut seen = HashMap::new();
    for vtep in tunnel.peers.iter().filter_map(|peer| peer.vtep.as_ref()) {
        seen.entry(vtep.value).or_insert(&vtep.key);
    }
    for peer in &tunnel.peers {
        report.bound_elements(&peer.sources, MAX_SOURCES);
        if let Some(first) = peer.sources.first()
            && let Some(ipsec) = &tunnel.ipsec
            && ipsec.protects(&peer.ipsec)
        {
            let address = first.value;
            report.add(&first.key, PeerProblem::SourceUnderIpsec { address });
        }
        for source in &peer.sources {
            let link = link.map(|(address, _)| address);
            if let Some(problem) = vtep_problem(source.value, own, link, facts) {
                report.add(&source.key, problem);
            } else if let Some(other) = seen.insert(source.value, &source.key) {
                let problem = PeerProblem::SourceRepeated {
                    address: source.value,
                    other_key: other.to_string(),
                };
                report.add(&source.key, problem);
            }
        }
    }
}

fn check_peer(
    peer: &PeerFacts,
    tunnel: &TunnelFacts,
    own: Option<IpAddr>,
    facts: &Facts,
    report: &Report,
) {
    let uplink = &facts.uplink;
    let link = own.and_then(|own| uplink.link_of(own));
    if let Some(vtep) = &peer.vtep
        && let Some(problem) =
            vtep_problem(vtep.value, own, link.map(|(address, _)| address), facts)
    {
        report.add(&vtep.key, problem);
    } else if let (Some(vtep), Some((address, hop))) = (&peer.vtep, link)
        && !address.value.contains(&vtep.value)
        && peer.next_hop.is_none()
        && hop.is_none()
        && !peer.unreadable
        && !uplink.unreadable
        // Without `only` the uplink's next hop must be there anyway.
        && tunnel.only == Some(true)
    {
        let problem = PeerProblem::PeerUnreachable {
            vtep: vtep.value,
            subnet: address.value.trunc(),
            other_key: address.key.to_string(),
        };
        report.add(&peer.key.key("next_hop"), problem);
    }
    if let (Some(next_hop), Some((address, _))) = (&peer.next_hop, link)
        && let Some(problem) = uplink.next_hop_problem(next_hop.value, address, facts)
    {
        report.add(&next_hop.key, problem);
    }
    if let Some(mac) = &peer.mac {
        let own_mac = tunnel
            .mac
            .or_else(|| Some(MacAddr::of_vtep(facts.vni?, own?)));
        let of_function = gateway_macs(facts).any(|(own, _)| own == mac.value);
        if own_mac == Some(mac.value) || of_function {
            let problem = PeerProblem::PeerMacSelf { mac: mac.value };
            report.add(&mac.key, problem);
        }
    }
}

/// The error of a peer's endpoint, if any, as far as our endpoint and its link are known.
fn vtep_problem(
    vtep: IpAddr,
    own: Option<IpAddr>,
    link: Option<&At<IpNet>>,
    facts: &Facts,
) -> Option<Problem> {
    if let Some(what) = not_unicast(vtep) {
        let address = vtep.to_string();
        return Some(Problem::NotUnicast { address, what });
    }
    let mut inner = facts.gateway.addresses.iter();
    if let Some(inner) = inner.find(|inner| inner.value.contains(&vtep)) {
        let problem = PeerProblem::PeerInside {
            vtep,
            subnet: inner.value.trunc(),
            other_key: inner.key.to_string(),
        };
        return Some(problem.into());
    }
    let own = own?;
    if vtep.is_ipv4() != own.is_ipv4() {
        return Some(PeerProblem::PeerFamily { vtep, own }.into());
    }
    if vtep == own {
        return Some(PeerProblem::PeerSelf { vtep }.into());
    }
    let subnet = link?.value.trunc();
    edge_role(subnet, vtep).map(|role| Problem::ReservedAddress {
        address: vtep.to_string(),
        role,
        subnet,
    })
}

/// An error in a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PeerProblem {
    /// Two peers of one name.
    #[error("{other} is \"{name}\" already; names of peers are unique within a tenant")]
    DuplicatePeer {
        /// The name.
        name: Name,
        /// The other peer's key.
        other: String,
    },
    /// A peer that our endpoint cannot reach.
    #[error(
        "{vtep} and our own endpoint {own} are not of one family; write the peer's address of that \
         family, or another tunnel.vtep"
    )]
    PeerFamily {
        /// The peer's endpoint.
        vtep: IpAddr,
        /// Ours.
        own: IpAddr,
    },
    /// A peer that is the switch itself.
    #[error("{vtep} is this switch's own tunnel endpoint; write the other host's")]
    PeerSelf {
        /// The endpoint.
        vtep: IpAddr,
    },
    /// A peer among the tenant's own addresses.
    #[error(
        "{vtep} is within {subnet} of {other_key}, where the VMs are; a tunnel endpoint is on the \
         underlay"
    )]
    PeerInside {
        /// The endpoint.
        vtep: IpAddr,
        /// The gateway's subnet.
        subnet: IpNet,
        /// Where the subnet is written.
        other_key: String,
    },
    /// A peer to which no router is known.
    #[error(
        "{vtep} is outside {subnet}, the subnet of {other_key}, and no router towards it is known; \
         write next_hop here, or the uplink's"
    )]
    PeerUnreachable {
        /// The peer's endpoint.
        vtep: IpAddr,
        /// The uplink's subnet.
        subnet: IpNet,
        /// Where the subnet is written.
        other_key: String,
    },
    /// Two peers with one endpoint but different next hops.
    #[error(
        "{other_key} has the endpoint {vtep} too, but another next_hop; write the same in both"
    )]
    PeerNextHops {
        /// The peers' endpoint.
        vtep: IpAddr,
        /// The other peer.
        other_key: String,
    },
    /// An address that is an endpoint or source already.
    #[error("{address} is already {other_key}; an address is of one endpoint and written once")]
    SourceRepeated {
        /// The address.
        address: IpAddr,
        /// Where it is written first.
        other_key: String,
    },
    /// A further source of a peer under IPsec.
    #[error(
        "{address} would speak for a peer that requires IPsec, whose packets come from its vtep \
         only; leave sources out, or write ipsec = \"off\" here"
    )]
    SourceUnderIpsec {
        /// The address.
        address: IpAddr,
    },
    /// Two peers with one endpoint but different MTUs.
    #[error("{other_key} has the endpoint {vtep} too, but another mtu; write the same in both")]
    PeerMtus {
        /// The peers' endpoint.
        vtep: IpAddr,
        /// The other peer.
        other_key: String,
    },
    /// A peer with a larger MTU than the link over which it is reached.
    #[error(
        "an MTU of {mtu} is larger than that of the uplink, {uplink}; write at most that, or leave \
         the key out"
    )]
    PeerMtu {
        /// The peer's MTU.
        mtu: i64,
        /// The uplink's.
        uplink: i64,
    },
    /// A peer with a MAC of the tenant's own switch.
    #[error(
        "{mac} is a MAC of this tenant's switch; write that of what takes frames at the peer, or \
         leave the key out if it is a switch of this kind"
    )]
    PeerMacSelf {
        /// The MAC.
        mac: MacAddr,
    },
}
