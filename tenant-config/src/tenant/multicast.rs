//! `[multicast]`: which groups and broadcasts the tenant's ports may use among themselves.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::addr::InvalidValue;
use crate::document::{Node, Section};
use crate::error::Report;
use crate::key::{At, KeyPath, elements, values};
use crate::subnet::{host_bits, overlap, parse_prefix, show};

/// The most groups and prefixes of groups of a tenant.
pub const MAX_GROUPS: usize = 256;

/// Multicast and broadcast among a tenant's ports.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Multicast {
    /// The groups that ports may send to: addresses and prefixes, or `any`.
    #[serde(default, skip_serializing_if = "MulticastGroups::is_none")]
    pub groups: MulticastGroups,
    /// Whether ports may send broadcasts to each other.
    #[serde(default, skip_serializing_if = "BroadcastUse::is_denied")]
    pub broadcast: BroadcastUse,
}

/// Whether broadcasts go to the tenant's other ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BroadcastUse {
    /// They are dropped, but for those that the gateway serves.
    #[default]
    Deny,
    /// They go to all other ports.
    Allow,
}

impl BroadcastUse {
    fn parse(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            _ => Err(InvalidValue::new(text, "\"allow\" or \"deny\"")),
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_denied(&self) -> bool {
        *self == Self::Deny
    }
}

/// The groups that a tenant's ports may send to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum MulticastGroups {
    /// Exactly these, without the switch's own ([`is_own_group`]).
    Listed(#[schemars(with = "Vec<String>")] Vec<IpNet>),
    /// All but the switch's own.
    Any(AnyGroup),
}

/// The word for all groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AnyGroup {
    /// All groups.
    #[serde(rename = "any")]
    Any,
}

impl Default for MulticastGroups {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl MulticastGroups {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The prefixes of the groups; the switch's own may be in them.
    pub fn prefixes(&self) -> &[IpNet] {
        const ALL: [IpNet; 2] = [
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)),
            IpNet::V6(Ipv6Net::new_assert(
                Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
                8,
            )),
        ];
        match self {
            Self::Listed(list) => list,
            Self::Any(AnyGroup::Any) => &ALL,
        }
    }

    fn read(node: &Node<'_>) -> (Self, Vec<At<IpNet>>) {
        const EXPECTED: &str = "an array of multicast addresses and prefixes, or \"any\"";
        match node.as_text() {
            Some("any") => return (Self::Any(AnyGroup::Any), Vec::new()),
            Some(text) => {
                node.fail::<()>(InvalidValue::new(text, EXPECTED));
            }
            None => {
                let items = node.items(EXPECTED);
                let read = items.iter().flatten();
                let listed: Vec<_> = read
                    .filter_map(|item| item.read(|item| item.text(parse_prefix)))
                    .collect();
                return (Self::Listed(values(&listed)), listed);
            }
        }
        (Self::default(), Vec::new())
    }
}

impl<'de> Deserialize<'de> for MulticastGroups {
    /// By hand, so that an error names the bad entry: serde's own for an untagged enum names none.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListOrWord;

        impl<'de> Visitor<'de> for ListOrWord {
            type Value = MulticastGroups;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an array of groups with prefix length, or \"any\"")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<MulticastGroups, E> {
                match word {
                    "any" => Ok(MulticastGroups::Any(AnyGroup::Any)),
                    _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<MulticastGroups, A::Error> {
                let list = Deserialize::deserialize(SeqAccessDeserializer::new(list));
                list.map(MulticastGroups::Listed)
            }
        }

        deserializer.deserialize_any(ListOrWord)
    }
}

impl Multicast {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn read(mut section: Section<'_>) -> (Self, Vec<At<IpNet>>) {
        let groups = section.get("groups");
        let (groups, listed) = groups
            .map(|node| MulticastGroups::read(&node))
            .unwrap_or_default();
        let broadcast = section
            .get("broadcast")
            .and_then(|node| node.text(BroadcastUse::parse));
        section.finish();
        let multicast = Self {
            groups,
            broadcast: broadcast.unwrap_or_default(),
        };
        (multicast, listed)
    }

    /// The listed groups with their keys; `table` is the key of this section.
    pub(crate) fn facts(&self, table: &KeyPath) -> Vec<At<IpNet>> {
        match &self.groups {
            MulticastGroups::Listed(list) => elements(&table.key("groups"), list),
            MulticastGroups::Any(AnyGroup::Any) => Vec::new(),
        }
    }

    pub(crate) fn check_lengths(&self, table: &KeyPath, report: &Report) {
        if let MulticastGroups::Listed(list) = &self.groups {
            report.bound(&table.key("groups"), list.len(), MAX_GROUPS);
        }
    }
}

const fn v4(last: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, last), 32))
}

const fn v6(scope: u16, high: u16, low: u16, len: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xff00 | scope, 0, 0, 0, 0, 0, high, low),
        len,
    ))
}

/// The groups by which the switch itself is reached or asks, each with what it is for. No frame to
/// one of them is forwarded, whatever a file lists.
const OWN_GROUPS: [(IpNet, &str); 11] = [
    (
        v4(1),
        "all systems of the link, by which the switch queries",
    ),
    (v4(2), "all routers of the link, which the switch is"),
    (v4(22), "IGMPv3 reports, which the switch takes"),
    (v6(0, 0, 0, 16), "a reserved scope"),
    (v6(1, 0, 0, 16), "the scope of one interface"),
    (
        v6(2, 0, 1, 128),
        "all nodes of the link, by which the switch advertises and queries",
    ),
    (
        v6(2, 0, 2, 128),
        "all routers of the link, which the switch is",
    ),
    (v6(2, 0, 0x16, 128), "MLDv2 reports, which the switch takes"),
    (
        v6(2, 1, 2, 128),
        "all DHCPv6 servers, which dhcp_server ports receive",
    ),
    (v6(5, 1, 3, 128), "all DHCPv6 servers of a site"),
    (
        IpNet::V6(Ipv6Net::new_assert(
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0),
            104,
        )),
        "solicited-node groups, in which the switch answers",
    ),
];

/// Whether the switch itself is reached by that group, or queries with it: it is never forwarded.
pub fn is_own_group(group: IpAddr) -> bool {
    OWN_GROUPS.iter().any(|(net, _)| net.contains(&group))
}

/// Checks the listed groups.
pub(super) fn check(groups: &[At<IpNet>], report: &Report) {
    report.bound_elements(groups, MAX_GROUPS);
    for (index, group) in groups.iter().enumerate().take(MAX_GROUPS) {
        let net = group.value;
        let address = show(net);
        if net != net.trunc() {
            report.add(&group.key, host_bits(net));
        } else if !(net.network().is_multicast() && net.broadcast().is_multicast()) {
            report.add(&group.key, MulticastProblem::NotMulticast { address });
        } else if let Some((_, what)) = OWN_GROUPS.iter().find(|(own, _)| own.contains(&net)) {
            report.add(&group.key, MulticastProblem::OwnGroup { address, what });
        } else if let Some(other) = groups[..index].iter().find(|it| overlap(it.value, net)) {
            let other = other.key.to_string();
            report.add(
                &group.key,
                MulticastProblem::DuplicateGroup { address, other },
            );
        }
    }
}

/// An error in the groups of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MulticastProblem {
    /// An address or prefix that is no group.
    #[error(
        "{address} is no multicast group; write addresses and prefixes within 224.0.0.0/4 and \
         ff00::/8"
    )]
    NotMulticast {
        /// The address or prefix.
        address: String,
    },
    /// A group of the switch's own.
    #[error("{address} is the switch's own: {what}; it is never forwarded, so leave it out")]
    OwnGroup {
        /// The address or prefix.
        address: String,
        /// The purpose of the group.
        #[serde(skip)]
        what: &'static str,
    },
    /// A group that is listed already.
    #[error("{address} is, or overlaps, {other}; leave one out")]
    DuplicateGroup {
        /// The address or prefix.
        address: String,
        /// The key of the other.
        other: String,
    },
}
