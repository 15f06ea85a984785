//! The bridge's port locks, in nftables.
//!
//! One table: a map leads from each In/Out port to its own chain, which allows only the tenant's
//! own source addresses and drops the rest. All frames of any port with our name prefix that is not
//! in the map are dropped. So a compromised switch cannot impersonate another tenant's VTEP.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenant_config::{Addresses, SwitchConfig, UplinkConfig};

use super::nft;
use super::nft::{
    ACCEPT, ARP_SENDER_IP, ARP_SENDER_MAC, COUNT, Command, DROP, ETHER_SOURCE, ETHER_TYPE, Hook,
    ICMPV6_TYPE, INTERFACE, IPV4_SOURCE, IPV6_SOURCE, Listing, ND_TARGET, Operand, Operator,
    Prefix, Statement, is, list, rule, run,
};
use crate::error::HostError;
use crate::key::Key;
use crate::object::{Context, Live, Object};

const BASE: &str = "guard";
const MAP: &str = "ports";

/// The nftables table that drops all frames of In/Out ports without a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Its name in the bridge family.
    pub table: String,
    /// The rules of its base chain, as `nft -j` prints them.
    pub rules: Vec<Value>,
}

/// The nftables chain that limits one In/Out port to the tenant's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The guard's table.
    pub table: String,
    /// The bridge port.
    pub interface: String,
    /// The chain's rules, as `nft -j` prints them.
    pub rules: Vec<Value>,
}

impl Object for Guard {
    fn key(&self) -> Key {
        Key::Guard {
            table: self.table.clone(),
        }
    }

    fn is_shared(&self) -> bool {
        true
    }
}

impl Live for Guard {
    fn observe(&self, _: &Context) -> Result<Option<Self>, HostError> {
        observe_guard(self)
    }

    fn create(&self, _: &Context) -> Result<(), HostError> {
        set_guard(self)
    }

    fn update(&self, _: &Context) -> Result<(), HostError> {
        set_guard(self)
    }

    fn delete(&self, _: &Context) -> Result<(), HostError> {
        delete_guard(self)
    }
}

impl Object for Lock {
    fn key(&self) -> Key {
        Key::Lock {
            table: self.table.clone(),
            interface: self.interface.clone(),
        }
    }
}

impl Live for Lock {
    fn observe(&self, _: &Context) -> Result<Option<Self>, HostError> {
        observe_lock(self)
    }

    fn create(&self, _: &Context) -> Result<(), HostError> {
        set_lock(self)
    }

    fn update(&self, _: &Context) -> Result<(), HostError> {
        set_lock(self)
    }

    fn delete(&self, _: &Context) -> Result<(), HostError> {
        delete_lock(self)
    }
}

/// The table for bridge ports whose names begin with `prefix`.
pub(crate) fn guard(table: &str, prefix: &str) -> Guard {
    let look_up = Statement::Vmap {
        key: INTERFACE,
        data: format!("@{MAP}"),
    };
    Guard {
        table: table.to_owned(),
        rules: vec![
            rule([look_up]),
            rule([is(INTERFACE, format!("{prefix}*")), COUNT, DROP]),
        ],
    }
}

/// The lock of one In/Out port.
pub(crate) fn lock(
    table: &str,
    interface: &str,
    config: &SwitchConfig,
    uplink: &UplinkConfig,
) -> Lock {
    let other_mac = Statement::Match {
        op: Operator::Unequal,
        left: ETHER_SOURCE,
        right: Operand::Text(uplink.mac.to_string()),
    };
    let mut rules = vec![rule([other_mac, COUNT, DROP])];
    // The kernel has removed a tag before this hook, and the rules below see the frame behind it.
    for tag in ["8021q", "8021ad"] {
        rules.push(rule([is(ETHER_TYPE, tag), COUNT, DROP]));
    }
    rules.extend(neighbour_rules(uplink));
    for source in sources(config, uplink) {
        let left = match source {
            IpNet::V4(_) => IPV4_SOURCE,
            IpNet::V6(_) => IPV6_SOURCE,
        };
        let right = if source.prefix_len() == source.max_prefix_len() {
            Operand::Text(source.addr().to_string())
        } else {
            let prefix = Prefix {
                addr: source.network().to_string(),
                len: source.prefix_len(),
            };
            Operand::Prefix { prefix }
        };
        let own = Statement::Match {
            op: Operator::Equal,
            left,
            right,
        };
        rules.push(rule([own, ACCEPT]));
    }
    rules.push(rule([COUNT, DROP]));
    Lock {
        table: table.to_owned(),
        interface: interface.to_owned(),
        rules,
    }
}

/// ARP and Neighbour Discovery, each only for the uplink's own addresses.
fn neighbour_rules(uplink: &UplinkConfig) -> Vec<Value> {
    let mut rules = Vec::new();
    if let Some(net) = uplink.ipv4 {
        rules.push(rule([
            is(ARP_SENDER_MAC, uplink.mac),
            is(ARP_SENDER_IP, net.addr()),
            ACCEPT,
        ]));
    }
    let link_local = uplink.mac.link_local();
    for station in uplink.ipv6.iter().flat_map(|net| [net.addr(), link_local]) {
        rules.push(rule([
            is(IPV6_SOURCE, station),
            is(ICMPV6_TYPE, "nd-neighbor-solicit"),
            ACCEPT,
        ]));
        rules.push(rule([
            is(ICMPV6_TYPE, "nd-neighbor-advert"),
            is(ND_TARGET, format!("0x{:032x}", u128::from(station))),
            ACCEPT,
        ]));
    }
    for kind in [
        "nd-neighbor-solicit",
        "nd-neighbor-advert",
        "nd-router-advert",
        "nd-router-solicit",
        "nd-redirect",
    ] {
        rules.push(rule([is(ICMPV6_TYPE, kind), COUNT, DROP]));
    }
    rules
}

/// The IP sources that may leave the tenant: its own on the underlay, the gateway's subnets, and
/// the ports' further addresses; only its own on the underlay if it reaches nothing but its peers.
/// The link-local address is allowed for Neighbour Discovery only, by other rules: a fragmented
/// Router Advertisement shows no type to match, but hosts accept it from no other source (RFC 4861,
/// 6.1.2).
fn sources(config: &SwitchConfig, uplink: &UplinkConfig) -> Vec<IpNet> {
    let mut sources: Vec<IpNet> = uplink.own_addresses().map(IpNet::from).collect();
    if config.tunnel.as_ref().is_some_and(|tunnel| tunnel.only) {
        return sources;
    }
    let subnets: Vec<IpNet> = [
        config.gateway.ipv4.map(IpNet::V4),
        config.gateway.ipv6.map(IpNet::V6),
    ]
    .into_iter()
    .flatten()
    .map(|net| net.trunc())
    .collect();
    for port in &config.ports {
        if let Addresses::Static(nets) = &port.addresses {
            sources.extend(
                nets.iter()
                    .filter(|net| !subnets.iter().any(|subnet| subnet.contains(*net)))
                    .map(IpNet::trunc),
            );
        }
    }
    sources.extend(subnets);
    sources.sort();
    sources.dedup();
    sources
}

fn chain_of(interface: &str) -> String {
    format!("lock-{interface}")
}

fn add_rules<'a>(
    table: &'a str,
    chain: &'a str,
    rules: &'a [Value],
) -> impl Iterator<Item = Command<'a>> {
    let add = move |expr| Command::Add(nft::Object::rule(table, chain, expr));
    rules.iter().map(add)
}

/// Makes or replaces the table's base chain in one transaction; its locks stay.
fn set_guard(guard: &Guard) -> Result<(), HostError> {
    let table = &guard.table;
    let mut commands = vec![
        Command::Add(nft::Object::table(table)),
        Command::Add(nft::Object::port_map(table, MAP)),
        Command::Add(nft::Object::chain(table, BASE, Some(Hook::ingress()))),
        Command::Flush(nft::Object::chain(table, BASE, None)),
    ];
    commands.extend(add_rules(table, BASE, &guard.rules));
    run(&commands)
}

/// Makes or replaces a port's lock in one transaction.
fn set_lock(lock: &Lock) -> Result<(), HostError> {
    let (table, chain) = (&lock.table, &chain_of(&lock.interface));
    let mut commands = vec![
        Command::Add(nft::Object::chain(table, chain, None)),
        Command::Flush(nft::Object::chain(table, chain, None)),
    ];
    commands.extend(add_rules(table, chain, &lock.rules));
    let port = nft::Object::port(table, MAP, &lock.interface, chain);
    commands.push(Command::Add(port));
    run(&commands)
}

/// Removes the table with everything in it.
fn delete_guard(guard: &Guard) -> Result<(), HostError> {
    if list(&guard.table)?.is_none() {
        return Ok(());
    }
    run(&[Command::Delete(nft::Object::table(&guard.table))])
}

/// Removes a port's lock; from then on the guard drops all frames of the port.
fn delete_lock(lock: &Lock) -> Result<(), HostError> {
    let Some(listing) = list(&lock.table)? else {
        return Ok(());
    };
    let (table, chain) = (&lock.table, &chain_of(&lock.interface));
    let mut commands = Vec::new();
    if leads_to(&listing, lock) {
        let port = nft::Object::port(table, MAP, &lock.interface, chain);
        commands.push(Command::Delete(port));
    }
    if listing.has_chain(chain) {
        commands.push(Command::Flush(nft::Object::chain(table, chain, None)));
        commands.push(Command::Delete(nft::Object::chain(table, chain, None)));
    }
    if commands.is_empty() {
        return Ok(());
    }
    run(&commands)
}

fn leads_to(listing: &Listing, lock: &Lock) -> bool {
    listing.leads_to(MAP, &lock.interface, &chain_of(&lock.interface))
}

/// Reads the table's base chain. A base chain with another hook reads as one without rules.
fn observe_guard(wanted: &Guard) -> Result<Option<Guard>, HostError> {
    let listing = list(&wanted.table)?;
    Ok(listing.map(|listing| Guard {
        table: wanted.table.clone(),
        rules: if listing.is_hooked(BASE, &Hook::ingress()) {
            listing.rules(BASE)
        } else {
            Vec::new()
        },
    }))
}

/// Reads a port's lock. A chain to which the map does not lead reads as one without rules.
fn observe_lock(wanted: &Lock) -> Result<Option<Lock>, HostError> {
    let Some(listing) = list(&wanted.table)? else {
        return Ok(None);
    };
    let chain = chain_of(&wanted.interface);
    let leads = leads_to(&listing, wanted);
    if !listing.has_chain(&chain) && !leads {
        return Ok(None);
    }
    Ok(Some(Lock {
        table: wanted.table.clone(),
        interface: wanted.interface.clone(),
        rules: if leads {
            listing.rules(&chain)
        } else {
            Vec::new()
        },
    }))
}
