//! The key `shared` of a port: addresses that several ports may hold, one at a time.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::addresses::{AddressProblem, address_problem};
use super::gateway::GatewayFacts;
use super::port::PortFacts;
use crate::document::Node;
use crate::error::Report;
use crate::key::{At, KeyPath, elements};
use crate::subnet::{parse_address, show};

/// The most shared addresses of one port.
pub const MAX_SHARED: usize = 64;

pub(super) fn read(node: Option<Node<'_>>) -> Vec<At<IpNet>> {
    let address = |text: &str| parse_address(text).map(IpNet::from);
    let read = |node: Node<'_>| node.list("an array of addresses", |item| item.text(address));
    node.map(read).unwrap_or_default()
}

pub(super) fn of(key: &KeyPath, addresses: &[IpAddr]) -> Vec<At<IpNet>> {
    let nets: Vec<_> = addresses.iter().copied().map(IpNet::from).collect();
    elements(key, &nets)
}

/// Checks the shared addresses of one port. That none is also a port's alone is checked with the
/// addresses of all ports, and with the prefixes behind peers.
pub(super) fn check(port: &PortFacts, gateway: &GatewayFacts, report: &Report) {
    report.bound_elements(&port.shared, MAX_SHARED);
    let mut seen: HashMap<IpNet, &KeyPath> = HashMap::new();
    for shared in &port.shared {
        if let Some(problem) = address_problem(shared.value, gateway) {
            report.add(&shared.key, problem);
        }
        if let Some(other) = seen.insert(shared.value, &shared.key) {
            let address = show(shared.value);
            let problem = AddressProblem::AddressRepeated {
                other: address.clone(),
                address,
                other_key: other.to_string(),
            };
            report.add(&shared.key, problem);
        }
    }
}
