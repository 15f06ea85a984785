//! The key `routes` of a port: prefixes behind the VM, which routes for them.

use ipnet::IpNet;
use serde::Serialize;

use super::Facts;
use super::port::PortFacts;
use crate::document::Node;
use crate::error::Report;
use crate::key::{At, KeyPath, elements};
use crate::problem::Problem;
use crate::subnet::{malformed, overlap, parse_prefix, show};

/// The most prefixes behind one port.
pub const MAX_ROUTES: usize = 1024;

/// A port's routes, as far as they could be read.
#[derive(Debug, Default)]
pub(super) struct RouteFacts {
    pub(super) list: Vec<At<IpNet>>,
}

impl RouteFacts {
    pub(super) fn read(node: Option<Node<'_>>) -> Self {
        let read =
            |node: Node<'_>| node.list("an array of prefixes", |item| item.text(parse_prefix));
        Self {
            list: node.map(read).unwrap_or_default(),
        }
    }

    pub(super) fn of(key: &KeyPath, routes: &[IpNet]) -> Self {
        Self {
            list: elements(key, routes),
        }
    }
}

/// Checks each route by itself. That it overlaps no other is checked with the ports' addresses, and
/// with the prefixes behind peers.
pub(super) fn check(port: &PortFacts, facts: &Facts, report: &Report) {
    report.bound_elements(&port.routes.list, MAX_ROUTES);
    for route in &port.routes.list {
        if let Some(problem) = route_problem(route.value, facts) {
            report.add(&route.key, problem);
        }
    }
}

fn route_problem(route: IpNet, facts: &Facts) -> Option<Problem> {
    if let Some(problem) = malformed(route) {
        return Some(problem);
    }
    let gateway = &facts.gateway;
    let Some(at_gateway) = gateway.of_family(route) else {
        return gateway.missing(show(route), route.addr().is_ipv4());
    };
    if overlap(at_gateway, route) {
        let problem = RouteProblem::RouteOnLink {
            route: show(route),
            subnet: at_gateway.trunc(),
        };
        return Some(problem.into());
    }
    let mut underlay = facts.uplink.links.iter().map(|(address, _)| address);
    let met = underlay.find(|address| overlap(address.value, route))?;
    Some(Problem::SubnetOverlap {
        subnet: route,
        other: met.value.trunc(),
        other_key: met.key.to_string(),
    })
}

/// An error in the routes of a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RouteProblem {
    /// A prefix of the VMs' own link behind one of them.
    #[error(
        "{route} overlaps the gateway's subnet {subnet}, which is the link of all VMs; write what \
         the VM has there in addresses"
    )]
    RouteOnLink {
        /// The prefix.
        route: String,
        /// The gateway's subnet of that family.
        subnet: IpNet,
    },
}
