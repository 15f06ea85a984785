//! The bridge's port locks, in nftables.
//!
//! One table: a map leads from each In/Out port to its own chain, which lets pass what bears the
//! tenant's own addresses and drops the rest; a port that bears our prefix and is not in the map is
//! dropped whole. So a switch that has been taken over cannot pretend to be another's VTEP.

use std::io::Write;
use std::process::{Command, Stdio};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenant_config::{Addresses, SwitchConfig, UplinkConfig};

use crate::error::HostError;
use crate::key::Key;
use crate::object::{Context, Live, Object};

const BASE: &str = "guard";
const MAP: &str = "ports";

/// The nftables table that drops what comes from an In/Out port without a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Its name in the bridge family.
    pub table: String,
    /// The rules of its base chain, as `nft -j` writes them.
    pub rules: Vec<Value>,
}

/// The nftables chain that holds one In/Out port to the tenant's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The guard's table.
    pub table: String,
    /// The bridge port.
    pub interface: String,
    /// The chain's rules, as `nft -j` writes them.
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
    let iifname = json!({"meta": {"key": "iifname"}});
    Guard {
        table: table.to_owned(),
        rules: vec![
            json!([{"vmap": {"key": iifname, "data": format!("@{MAP}")}}]),
            json!([
                {"match": {"op": "==", "left": iifname, "right": format!("{prefix}*")}},
                {"counter": null},
                {"drop": null},
            ]),
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
    let field =
        |protocol: &str, field: &str| json!({"payload": {"protocol": protocol, "field": field}});
    let test = |op: &str, left: Value, right: Value| json!({"match": {"op": op, "left": left, "right": right}});
    let is = |left: Value, right: Value| test("==", left, right);
    let accept = || json!({"accept": null});
    let drop = || json!({"drop": null});
    let icmpv6 = |kind: &str| is(field("icmpv6", "type"), json!(kind));

    let mac = json!(uplink.mac.to_string());
    let mut rules = vec![json!([
        test("!=", field("ether", "saddr"), mac.clone()),
        {"counter": null},
        drop(),
    ])];
    // The kernel has taken a tag off before this hook, and the tests below see what was behind it.
    for tag in ["8021q", "8021ad"] {
        rules.push(json!([is(field("ether", "type"), json!(tag)), {"counter": null}, drop()]));
    }
    if let Some(net) = uplink.ipv4 {
        rules.push(json!([
            is(field("arp", "saddr ether"), mac.clone()),
            is(field("arp", "saddr ip"), json!(net.addr().to_string())),
            accept(),
        ]));
    }
    let link_local = uplink.mac.link_local();
    let stations: Vec<std::net::Ipv6Addr> = uplink
        .ipv6
        .iter()
        .flat_map(|net| [net.addr(), link_local])
        .collect();
    for station in &stations {
        let target = format!("0x{:032x}", u128::from(*station));
        rules.push(json!([
            is(field("ip6", "saddr"), json!(station.to_string())),
            icmpv6("nd-neighbor-solicit"),
            accept(),
        ]));
        rules.push(json!([
            icmpv6("nd-neighbor-advert"),
            is(
                json!({"payload": {"base": "th", "offset": 64, "len": 128}}),
                json!(target)
            ),
            accept(),
        ]));
    }
    for kind in [
        "nd-neighbor-solicit",
        "nd-neighbor-advert",
        "nd-router-advert",
        "nd-router-solicit",
        "nd-redirect",
    ] {
        rules.push(json!([icmpv6(kind), {"counter": null}, drop()]));
    }
    for source in sources(config, uplink) {
        let protocol = match source {
            IpNet::V4(_) => "ip",
            IpNet::V6(_) => "ip6",
        };
        let source = if source.prefix_len() == source.max_prefix_len() {
            json!(source.addr().to_string())
        } else {
            json!({"prefix": {"addr": source.network().to_string(), "len": source.prefix_len()}})
        };
        rules.push(json!([is(field(protocol, "saddr"), source), accept()]));
    }
    rules.push(json!([{"counter": null}, drop()]));
    Lock {
        table: table.to_owned(),
        interface: interface.to_owned(),
        rules,
    }
}

/// The IP sources that may leave the tenant: its own on the underlay, the gateway's subnets, and
/// what ports have beyond these; of a tenant that reaches nothing but its peers, its own alone. The link-local address is for Neighbour Discovery, which has rules of
/// its own: a Router Advertisement cut in fragments shows no type to drop it by, but no other source
/// is one that a host takes it from (RFC 4861, section 6.1.2).
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

/// Makes or replaces the table's base chain in one transaction; the locks in it stay.
fn set_guard(guard: &Guard) -> Result<(), HostError> {
    let table = &guard.table;
    let mut commands = vec![
        json!({"add": {"table": {"family": "bridge", "name": table}}}),
        json!({"add": {"map": {
            "family": "bridge", "table": table, "name": MAP, "type": "ifname", "map": "verdict",
        }}}),
        json!({"add": {"chain": {
            "family": "bridge", "table": table, "name": BASE,
            "type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept",
        }}}),
        json!({"flush": {"chain": {"family": "bridge", "table": table, "name": BASE}}}),
    ];
    commands.extend(add_rules(table, BASE, &guard.rules));
    run(&commands)
}

/// Makes or replaces a port's lock in one transaction.
fn set_lock(lock: &Lock) -> Result<(), HostError> {
    let (table, chain) = (&lock.table, chain_of(&lock.interface));
    let named = json!({"family": "bridge", "table": table, "name": chain});
    let mut commands = vec![
        json!({"add": {"chain": named}}),
        json!({"flush": {"chain": named}}),
    ];
    commands.extend(add_rules(table, &chain, &lock.rules));
    commands.push(json!({"add": {"element": element(lock)}}));
    run(&commands)
}

fn element(lock: &Lock) -> Value {
    json!({
        "family": "bridge", "table": lock.table, "name": MAP,
        "elem": [[lock.interface, {"jump": {"target": chain_of(&lock.interface)}}]],
    })
}

fn add_rules<'a>(
    table: &'a str,
    chain: &'a str,
    rules: &'a [Value],
) -> impl Iterator<Item = Value> + 'a {
    rules.iter().map(move |expr| {
        json!({"add": {"rule": {
            "family": "bridge", "table": table, "chain": chain, "expr": expr,
        }}})
    })
}

/// Removes the table with all that is in it.
fn delete_guard(guard: &Guard) -> Result<(), HostError> {
    if list(&guard.table)?.is_none() {
        return Ok(());
    }
    run(&[json!({"delete": {"table": {"family": "bridge", "name": guard.table}}})])
}

/// Removes a port's lock; from then on the guard drops the port whole.
fn delete_lock(lock: &Lock) -> Result<(), HostError> {
    let Some(table) = list(&lock.table)? else {
        return Ok(());
    };
    let mut commands = Vec::new();
    if table.leads_to(lock) {
        commands.push(json!({"delete": {"element": element(lock)}}));
    }
    let chain = chain_of(&lock.interface);
    if table.has_chain(&chain) {
        let named = json!({"family": "bridge", "table": lock.table, "name": chain});
        commands.push(json!({"flush": {"chain": named}}));
        commands.push(json!({"delete": {"chain": named}}));
    }
    if commands.is_empty() {
        return Ok(());
    }
    run(&commands)
}

/// The table's base chain as it is. A base chain that hooks elsewhere reads as one without rules.
fn observe_guard(wanted: &Guard) -> Result<Option<Guard>, HostError> {
    let table = list(&wanted.table)?;
    Ok(table.map(|table| Guard {
        table: wanted.table.clone(),
        rules: if table.is_hooked() {
            table.rules(BASE)
        } else {
            Vec::new()
        },
    }))
}

/// A port's lock as it is. A chain to which the map does not lead reads as one without rules.
fn observe_lock(wanted: &Lock) -> Result<Option<Lock>, HostError> {
    let Some(table) = list(&wanted.table)? else {
        return Ok(None);
    };
    let chain = chain_of(&wanted.interface);
    if !table.has_chain(&chain) && !table.leads_to(wanted) {
        return Ok(None);
    }
    Ok(Some(Lock {
        table: wanted.table.clone(),
        interface: wanted.interface.clone(),
        rules: if table.leads_to(wanted) {
            table.rules(&chain)
        } else {
            Vec::new()
        },
    }))
}

/// A table as `nft -j list` shows it.
struct Listing(Vec<Value>);

impl Listing {
    fn items<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter_map(move |item| item.get(kind))
    }

    fn has_chain(&self, name: &str) -> bool {
        self.items("chain").any(|chain| chain["name"] == name)
    }

    fn is_hooked(&self) -> bool {
        self.items("chain").any(|chain| {
            chain["name"] == BASE
                && chain["hook"] == "prerouting"
                && chain["prio"] == -300
                && chain["type"] == "filter"
        })
    }

    fn leads_to(&self, lock: &Lock) -> bool {
        let wanted = json!([lock.interface, {"jump": {"target": chain_of(&lock.interface)}}]);
        self.items("map")
            .filter(|map| map["name"] == MAP)
            .filter_map(|map| map["elem"].as_array())
            .any(|elements| elements.contains(&wanted))
    }

    /// The expressions of a chain's rules, with counters set back.
    fn rules(&self, chain: &str) -> Vec<Value> {
        self.items("rule")
            .filter(|rule| rule["chain"] == chain)
            .map(|rule| {
                let mut expr = rule["expr"].clone();
                for statement in expr.as_array_mut().into_iter().flatten() {
                    if let Some(counter) = statement.get_mut("counter") {
                        *counter = Value::Null;
                    }
                }
                expr
            })
            .collect()
    }
}

fn failed(message: impl ToString) -> HostError {
    HostError::Program {
        program: "nft",
        message: message.to_string(),
    }
}

fn list(table: &str) -> Result<Option<Listing>, HostError> {
    let output = Command::new("nft")
        .args(["-j", "list", "table", "bridge", table])
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return if message.contains("No such file or directory") {
            Ok(None)
        } else {
            Err(failed(message.trim()))
        };
    }
    let mut document: Value = serde_json::from_slice(&output.stdout).map_err(failed)?;
    match document["nftables"].take() {
        Value::Array(items) => Ok(Some(Listing(items))),
        _ => Err(failed("its listing has no \"nftables\"")),
    }
}

fn run(commands: &[Value]) -> Result<(), HostError> {
    let mut child = Command::new("nft")
        .args(["-j", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let text = json!({"nftables": commands}).to_string();
    if let Some(mut input) = child.stdin.take() {
        // A program that ends early says why on its standard error.
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(())
}
