//! Addresses that several ports may hold, one at a time.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tenant_config::SwitchConfig;

use crate::ids::PortId;

/// An address that several ports may hold, one at a time.
#[derive(Debug, PartialEq)]
pub(crate) struct SharedAddress {
    pub(crate) address: IpAddr,
    /// The ports that may hold it, in their order.
    pub(crate) ports: Box<[PortId]>,
}

/// All shared addresses of a configuration, sorted.
pub(super) fn of(config: &SwitchConfig) -> Vec<SharedAddress> {
    let mut all: BTreeMap<IpAddr, Vec<PortId>> = BTreeMap::new();
    for (port, id) in config.ports.iter().zip(0..) {
        for address in &port.shared {
            all.entry(*address).or_default().push(PortId(id));
        }
    }
    let shared = all.into_iter().map(|(address, ports)| SharedAddress {
        address,
        ports: ports.into(),
    });
    shared.collect()
}
