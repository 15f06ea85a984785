//! The key `addresses` of a port: the IP sources that the VM may use.

use std::collections::HashSet;
use std::fmt;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Facts;
use super::gateway::{GatewayFacts, family_key};
use crate::addr::InvalidValue;
use crate::document::Node;
use crate::error::Report;
use crate::key::{At, KeyPath, elements, values};
use crate::problem::Problem;
use crate::subnet::{edge_role, malformed, parse_prefix, reserved, show};

/// The most addresses and prefixes of a port.
pub const MAX_ADDRESSES: usize = 4096;

/// The IP sources of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Addresses {
    /// Exactly these addresses (as /32 or /128) and prefixes.
    Static(#[schemars(with = "Vec<String>")] Vec<IpNet>),
    /// Filled from a DHCP server's acknowledgements.
    Learned(LearnedFrom),
}

/// Where a port's addresses are learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LearnedFrom {
    /// From acknowledgements of the tenant's DHCP server; expires with the lease.
    #[serde(rename = "learn-dhcp")]
    Dhcp,
}

/// The IPv6 sources of a port, beside those that are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Addresses6 {
    /// What the VM claims in the gateway's subnet by Duplicate Address Detection.
    #[serde(rename = "learn-nd")]
    LearnNd,
}

impl Addresses6 {
    pub(super) fn parse(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "learn-nd" => Ok(Self::LearnNd),
            _ => Err(InvalidValue::new(text, "\"learn-nd\"")),
        }
    }
}

impl<'de> Deserialize<'de> for Addresses {
    /// By hand, so that an error names the bad entry: serde's own for an untagged enum names none.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListOrWord;

        impl<'de> Visitor<'de> for ListOrWord {
            type Value = Addresses;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an array of addresses with prefix length, or \"learn-dhcp\"")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Addresses, E> {
                match word {
                    "learn-dhcp" => Ok(Addresses::Learned(LearnedFrom::Dhcp)),
                    _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Addresses, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(Addresses::Static)
            }
        }

        deserializer.deserialize_any(ListOrWord)
    }
}

/// A port's addresses, as far as they could be read.
#[derive(Debug, Default)]
pub(crate) struct AddressFacts {
    pub(super) list: Vec<At<IpNet>>,
    /// The key of the list and its length, unreadable elements included; absent if it is no list.
    listed: Option<At<usize>>,
    /// The key, if its value is `learn-dhcp`.
    pub(super) learned: Option<KeyPath>,
}

impl Addresses {
    pub(super) fn read(node: &Node<'_>) -> (Self, AddressFacts) {
        const EXPECTED: &str = "an array of addresses and prefixes, or \"learn-dhcp\"";
        let mut facts = AddressFacts::default();
        match node.as_text() {
            Some("learn-dhcp") => {
                facts.learned = Some(node.path.clone());
                return (Self::Learned(LearnedFrom::Dhcp), facts);
            }
            Some(text) => {
                node.fail::<()>(InvalidValue::new(text, EXPECTED));
            }
            None => {
                let items = node.items(EXPECTED);
                facts.listed = node.read(|_| Some(items.as_ref()?.len()));
                facts.list = items
                    .iter()
                    .flatten()
                    .filter_map(|item| item.read(|item| item.text(parse_prefix)))
                    .collect();
            }
        }
        (Self::Static(values(&facts.list)), facts)
    }

    pub(super) fn facts(&self, key: KeyPath) -> AddressFacts {
        match self {
            Self::Static(list) => AddressFacts {
                list: elements(&key, list),
                listed: Some(At::new(key, list.len())),
                learned: None,
            },
            Self::Learned(LearnedFrom::Dhcp) => AddressFacts {
                learned: Some(key),
                ..AddressFacts::default()
            },
        }
    }

    /// The number of listed addresses and prefixes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Static(list) => list.len(),
            Self::Learned(LearnedFrom::Dhcp) => 0,
        }
    }
}

/// Checks the addresses of all ports.
pub(super) fn check(facts: &Facts, report: &Report) {
    for port in &facts.ports {
        port.addresses.check(&facts.gateway, report);
        let empty = port.addresses.listed.as_ref().filter(|it| it.value == 0);
        if let (Some(listed), None) = (empty, &port.addresses6) {
            report.add(&listed.key, AddressProblem::NoAddress);
        }
    }
    check_overlaps(facts, report);
    check_learning(facts, report);
}

impl AddressFacts {
    fn check(&self, gateway: &GatewayFacts, report: &Report) {
        if let Some(listed) = &self.listed {
            match listed.value {
                0..=MAX_ADDRESSES => {}
                count => {
                    let max = MAX_ADDRESSES;
                    report.add(&listed.key, Problem::TooMany { count, max });
                }
            }
        }
        for address in &self.list {
            if let Some(problem) = address_problem(address.value, gateway) {
                report.add(&address.key, problem);
            }
        }
    }
}

/// The error of one address or prefix by itself, if any.
pub(super) fn address_problem(net: IpNet, gateway: &GatewayFacts) -> Option<Problem> {
    if let Some(problem) = malformed(net) {
        return Some(problem);
    }
    let Some(at_gateway) = gateway.of_family(net) else {
        return gateway.missing(show(net), net.addr().is_ipv4());
    };
    let subnet = at_gateway.trunc();
    if !subnet.contains(&net) {
        let problem = AddressProblem::OutsideSubnet {
            address: show(net),
            subnet,
            key: family_key(net),
        };
        return Some(problem.into());
    }
    let edges = [subnet.network(), subnet.broadcast()];
    let kept = edges
        .into_iter()
        .filter_map(|edge| edge_role(subnet, edge).map(|role| (edge, role)));
    [(at_gateway.addr(), "the address of the gateway")]
        .into_iter()
        .chain(kept)
        .find(|(address, _)| net.contains(address))
        .map(|(address, role)| reserved(net, address, role, subnet))
}

/// Checks that no address belongs to two ports, or twice to one, the prefixes behind them included,
/// and that what ports share is no port's alone.
///
/// Two prefixes are either disjoint or one contains the other. The entries are sorted by their
/// first address, the wider first; the stack holds the prefixes that contain the current entry.
fn check_overlaps(facts: &Facts, report: &Report) {
    let ports = facts.ports.iter().enumerate();
    let keyed = ports.flat_map(|(index, port)| port.sources().map(move |address| (index, address)));
    let mut all: Vec<(usize, &At<IpNet>)> = keyed.collect();
    // A shared address may be at several ports: the first stands for it.
    let mut shared = HashSet::new();
    for (index, port) in facts.ports.iter().enumerate() {
        let new = port.shared.iter().filter(|net| shared.insert(net.value));
        all.extend(new.map(|net| (index, net)));
    }
    // The sort is stable: of two equal entries, the first in the file comes first.
    all.sort_by_key(|(_, address)| (address.value.network(), address.value.prefix_len()));
    let mut open: Vec<(usize, &At<IpNet>)> = Vec::new();
    for entry in all {
        let net = entry.1.value.trunc();
        while open
            .last()
            .is_some_and(|(_, wider)| !wider.value.contains(&net))
        {
            open.pop();
        }
        if let Some(wider) = open.last() {
            report_overlap(facts, *wider, entry, report);
        }
        open.push(entry);
    }
}

fn report_overlap(
    facts: &Facts,
    (port, address): (usize, &At<IpNet>),
    (other_port, other): (usize, &At<IpNet>),
    report: &Report,
) {
    if port == other_port {
        // The narrower one is redundant.
        let problem = AddressProblem::AddressRepeated {
            address: show(other.value),
            other: show(address.value),
            other_key: address.key.to_string(),
        };
        return report.add(&other.key, problem);
    }
    // The error is at the port that comes second in the file.
    let (first, later, first_port) = if port < other_port {
        (address, other, port)
    } else {
        (other, address, other_port)
    };
    let name = facts.ports[first_port].name.as_ref();
    let problem = AddressProblem::AddressOverlap {
        address: show(later.value),
        other: show(first.value),
        other_port: name.map_or_else(String::new, |name| name.value.to_string()),
        other_key: first.key.to_string(),
    };
    report.add(&later.key, problem);
}

/// Checks that each port that learns its address has a server to learn from, or makes one from the
/// gateway's prefix.
fn check_learning(facts: &Facts, report: &Report) {
    let claiming = facts
        .ports
        .iter()
        .filter_map(|port| port.addresses6.as_ref());
    for key in claiming.filter(|_| !facts.gateway.has_slaac()) {
        report.add(key, AddressProblem::NoSlaac);
    }
    let servers = facts.ports.iter().filter(|port| port.dhcp_server).count();
    for port in &facts.ports {
        let Some(learned) = &port.addresses.learned else {
            continue;
        };
        if port.dhcp_server {
            report.add(learned, AddressProblem::ServerLearns);
        } else if servers == 0 {
            report.add(learned, AddressProblem::NoDhcpServer);
        }
        let mut own = facts.gateway.addresses.iter();
        if !own.any(|address| address.value.addr().is_ipv4())
            && let Some(problem) = facts.gateway.missing("what DHCP assigns".to_owned(), true)
        {
            report.add(learned, problem);
        }
    }
}

/// An error in a port's addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AddressProblem {
    /// A port without an address.
    #[error(
        "the port has no address, so it could send nothing; list at least one, or write \
         \"learn-dhcp\""
    )]
    NoAddress,
    /// An address that is not on-link at the gateway.
    #[error(
        "{address} is outside the gateway's subnet {subnet}; choose one inside, or change \
         gateway.{key}"
    )]
    OutsideSubnet {
        /// The address or prefix.
        address: String,
        /// The gateway's subnet of that family.
        subnet: IpNet,
        /// The gateway's key.
        #[serde(skip)]
        key: &'static str,
    },
    /// Two ports with the same address.
    #[error(
        "{address} overlaps {other} of port {other_port:?} ({other_key}); every address belongs to \
         one port"
    )]
    AddressOverlap {
        /// The address or prefix.
        address: String,
        /// The other port's address or prefix.
        other: String,
        /// The other port's name.
        other_port: String,
        /// Where the other is written.
        other_key: String,
    },
    /// An address that its port lists twice.
    #[error("{address} is already in {other} of the same port ({other_key}); leave it out")]
    AddressRepeated {
        /// The address or prefix.
        address: String,
        /// The entry that contains it.
        other: String,
        /// Where the other is written.
        other_key: String,
    },
    /// A port that learns its address without a server to learn from.
    #[error(
        "no other port of the tenant has dhcp_server = true, so there is nobody to learn from; set \
         it, or list the addresses"
    )]
    NoDhcpServer,
    /// A port that learns the addresses that its VM forms, where VMs form none.
    #[error(
        "VMs form no addresses by themselves unless the gateway tells them to; write \
         gateway.ipv6_autoconf = \"slaac\", or leave the key out"
    )]
    NoSlaac,
    /// A DHCP server without an address of its own.
    #[error("a DHCP server cannot learn its own address; list its addresses")]
    ServerLearns,
}
