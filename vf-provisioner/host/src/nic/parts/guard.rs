//! The bridge's port locks, in nftables.
//!
//! The lock of an In/Out port is a chain of the family netdev, where the host receives the port's
//! frames: it allows what a switch sends with the tenant's own sources, marks that as judged, and
//! drops the rest. The guard, of the family bridge, drops every frame of a port with our name
//! prefix that is not so marked, and every frame of one to the host. So a compromised switch cannot
//! speak as another tenant's VTEP, nor reach the host, and a missing lock lets nothing pass.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::sync::Arc;

use ipnet::IpNet;
use netlink_packet_route::link::LinkFlags;
use rtnetlink::LinkUnspec;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenant_config::{MacAddr, PortConfig, SwitchConfig, UplinkConfig};

use super::link::links_of;
use super::links::Links;
use super::loan::borrow;
use super::netlink::{find, is_up, refused, set_up, unless_missing, with_netlink};
use super::nfnetlink::{self, Change, Happened, Owner};
use super::nft;
use super::nft::{
    ACCEPT, ARP_HARDWARE, ARP_HARDWARE_LEN, ARP_OPERATION, ARP_PROTOCOL, ARP_PROTOCOL_LEN,
    ARP_SENDER_IP, ARP_SENDER_MAC, COUNT, Command, DROP, ETHER_SOURCE, ETHER_TYPE, Family,
    GROUP_BIT, GROUP_BLOCK, Hook, ICMP_TYPE, ICMPV6_TYPE, INTERFACE, IPV4_OFFSET, IPV4_SOURCE,
    IPV6_FRAGMENT_NEXT, IPV6_HOPS, IPV6_LENGTH, IPV6_NEXT, IPV6_OFFSET, IPV6_SOURCE, Listing, MARK,
    ND_OPTION, ND_TARGET, Operand, Operator, Place, Prefix, Statement, TRANSPORT, UDP_DESTINATION,
    UDP_SOURCE, compared, is, is_not, list, rule, run,
};
use crate::error::HostError;
use crate::key::Key;
use crate::look::Look;
use crate::object::{Context, Live, Object};
use crate::parallel;

/// Chains of the guard: of the family netdev, and two of the family bridge.
const PASS: &str = "pass";
const PORTS: &str = "ports";
const HOST: &str = "host";

/// What the locks mark frames with that they have judged, and the guard asks for.
const JUDGED: u64 = 0x6c6f_636b;

/// Broadcast and multicast frames of one In/Out port: how many a second, and how many at once. A
/// switch asks for a next hop once a second; that of a tunnel with 200 peers on its own link asks
/// for all of them when it starts.
const GROUP_RATE: u64 = 200;

/// The nftables tables that drop all frames of In/Out ports that no lock has judged, and those to
/// the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Their name, in the families netdev and bridge.
    pub table: String,
    /// The rules for what In/Out ports receive, in the family bridge, as `nft -j` prints them.
    pub rules: Vec<Value>,
    /// The rules for what bridges deliver to the host, in the family bridge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<Value>,
    /// The rules for packets whose source is the port's own, in the family netdev.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pass: Vec<Value>,
}

/// The nftables chain that limits one In/Out port to the tenant's addresses, where the host
/// receives its frames. The port is up only with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The guard's tables.
    pub table: String,
    /// The bridge port.
    pub interface: String,
    /// The chain's rules, as `nft -j` prints them.
    pub rules: Vec<Value>,
    /// Whether the port is administratively up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub up: bool,
    /// The pair of which the port is an end: a new port comes without a lock, and down.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub needs: BTreeSet<Key>,
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
        Ok(Tables::without_locks(&self.table)?.guard(self))
    }

    fn observe_with(&self, _: &Context, look: &Look) -> Result<Option<Self>, HostError> {
        if look.is_wide() {
            return Ok(Tables::of(&self.table, look)?.guard(self));
        }
        let tables = look.share(&self.table, || {
            Tables::without_locks(&self.table).map(Alone)
        })?;
        Ok(tables.0.guard(self))
    }

    fn exists(&self, _: &Context) -> Result<bool, HostError> {
        let there = nft::tables()?;
        Ok(Family::ALL
            .into_iter()
            .any(|family| there.contains(&family.named(&self.table))))
    }

    fn create(&self, context: &Context) -> Result<(), HostError> {
        let _loan = borrow(&context.state_dir)?;
        set_guard(self)
    }

    fn update(&self, context: &Context) -> Result<(), HostError> {
        self.create(context)
    }

    fn delete(&self, context: &Context) -> Result<(), HostError> {
        let _loan = borrow(&context.state_dir)?;
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

    fn needs(&self) -> Option<&BTreeSet<Key>> {
        Some(&self.needs)
    }
}

impl Live for Lock {
    fn observe(&self, _: &Context) -> Result<Option<Self>, HostError> {
        let listing = read_lock(self)?;
        let up = is_up(&self.interface)? == Some(true);
        Ok(observe_lock(self, listing.as_ref(), up))
    }

    fn observe_with(&self, _: &Context, look: &Look) -> Result<Option<Self>, HostError> {
        let up = is_up_among(&*links_of(None, look)?, &self.interface);
        if look.is_wide() {
            let tables = Tables::of(&self.table, look)?;
            return Ok(observe_lock(self, tables.netdev.as_ref(), up));
        }
        Ok(observe_lock(self, read_lock(self)?.as_ref(), up))
    }

    /// It is part of the table, which is looked for once for all tenants.
    fn exists(&self, _: &Context) -> Result<bool, HostError> {
        Ok(true)
    }

    fn create(&self, context: &Context) -> Result<(), HostError> {
        let _loan = borrow(&context.state_dir)?;
        set_lock(self)?;
        set_up(&self.interface, self.up)
    }

    fn update(&self, context: &Context) -> Result<(), HostError> {
        self.create(context)
    }

    fn delete(&self, context: &Context) -> Result<(), HostError> {
        let _loan = borrow(&context.state_dir)?;
        delete_lock(self)
    }
}

/// The tables for bridge ports whose names begin with `prefix`.
pub(crate) fn guard(table: &str, prefix: &str) -> Guard {
    let from_a_port = || is(INTERFACE, format!("{prefix}*"));
    let unmark = Statement::Mangle {
        key: MARK,
        value: 0,
    };
    Guard {
        table: table.to_owned(),
        rules: vec![
            rule([from_a_port(), is_not(MARK, JUDGED), COUNT, DROP]),
            rule([from_a_port(), unmark]),
        ],
        host: vec![rule([from_a_port(), COUNT, DROP])],
        pass: pass_rules(),
    }
}

fn accept(conditions: impl IntoIterator<Item = Statement>) -> Value {
    let mark = Statement::Mangle {
        key: MARK,
        value: JUDGED,
    };
    rule(conditions.into_iter().chain([mark, ACCEPT]))
}

/// What may leave of the packets whose source is the port's own: all that claims nothing about
/// routers, neighbours or other stations' addresses.
///
/// Each rule accepts what it can read. A condition on what is not there, or is hidden behind
/// extension headers that the kernel cannot follow, is never true, so nothing hides its type.
/// Fragments but the first have no type; without the first they are nothing.
fn pass_rules() -> Vec<Value> {
    let headers = [0, 43, 44, 51, 60, 135, 139, 140];
    vec![
        // A first fragment may end in an extension header. What follows the packet in the frame
        // would then be read for the type that is in the second one.
        rule([
            is(IPV6_FRAGMENT_NEXT, headers),
            is(IPV6_OFFSET, 0),
            COUNT,
            DROP,
        ]),
        // DHCP and DHCPv6: no server's messages, and none to clients.
        accept([
            is_not(UDP_SOURCE, [67, 547]),
            is_not(UDP_DESTINATION, [68, 546]),
        ]),
        // Neither ICMP, IGMP, UDP or ICMPv6, which have rules of their own, nor a header behind
        // which the kernel does not look: mobility, HIP, shim6.
        accept([is_not(TRANSPORT, [1, 2, 17, 58, 135, 139, 140])]),
        accept([is_not(ICMP_TYPE, ["redirect", "router-advertisement"])]),
        // Errors and echo (1 to 129), and what comes behind MLD, Neighbour Discovery and their kin
        // (130 to 153).
        accept([compared(ICMPV6_TYPE, Operator::AtMost, "echo-reply")]),
        accept([compared(ICMPV6_TYPE, Operator::Above, 153)]),
        accept([is_not(IPV4_OFFSET, 0)]),
        accept([is_not(IPV6_OFFSET, 0)]),
        rule([COUNT, DROP]),
    ]
}

/// The lock of one In/Out port, an end of `pair`.
pub(crate) fn lock(
    table: &str,
    interface: &str,
    pair: Key,
    config: &SwitchConfig,
    uplink: &UplinkConfig,
) -> Lock {
    let excess = Statement::Limit {
        rate: GROUP_RATE,
        burst: GROUP_RATE,
        per: "second",
        inv: true,
    };
    let to_a_group = || is(GROUP_BIT, "01:00:00:00:00:00");
    let mut rules = vec![
        rule([is_not(ETHER_SOURCE, uplink.mac.to_string()), COUNT, DROP]),
        // Reserved groups are for the neighbouring bridge: the kernel gives them to the host.
        rule([is(GROUP_BLOCK, "01:80:c2:00:00:00"), COUNT, DROP]),
        rule([to_a_group(), excess, COUNT, DROP]),
    ];
    // The kernel has removed a tag before this hook, and the rules below see the frame behind it.
    for tag in ["8021q", "8021ad"] {
        rules.push(rule([is(ETHER_TYPE, tag), COUNT, DROP]));
    }
    rules.extend(neighbour_rules(uplink, config.uplink_link_local()));
    // Nothing else that a switch sends to the underlay is for a group.
    rules.push(rule([to_a_group(), COUNT, DROP]));
    for source in sources(config, uplink) {
        let left = match source {
            IpNet::V4(_) => IPV4_SOURCE,
            IpNet::V6(_) => IPV6_SOURCE,
        };
        let right = if source.prefix_len() == source.max_prefix_len() {
            source.addr().to_string().into()
        } else {
            let prefix = Prefix {
                addr: source.network().to_string(),
                len: source.prefix_len(),
            };
            Operand::Prefix { prefix }
        };
        rules.push(rule([is(left, right), Statement::Goto { target: PASS }]));
    }
    rules.push(rule([COUNT, DROP]));
    Lock {
        table: table.to_owned(),
        interface: interface.to_owned(),
        rules,
        up: true,
        needs: BTreeSet::from([pair]),
    }
}

/// ARP and Neighbour Discovery, each only for the uplink's own addresses (its link-local one where
/// that speaks with a next hop) and MAC, in the form in
/// which switches send it. What has another form is dropped below, wherever it is hidden.
fn neighbour_rules(uplink: &UplinkConfig, link_local: Option<Ipv6Addr>) -> Vec<Value> {
    let mut rules = Vec::new();
    if let Some(net) = uplink.ipv4 {
        rules.push(accept([
            is(ARP_HARDWARE, 1),
            is(ARP_PROTOCOL, "ip"),
            is(ARP_HARDWARE_LEN, 6),
            is(ARP_PROTOCOL_LEN, 4),
            is(ARP_OPERATION, ["request", "reply"]),
            is(ARP_SENDER_MAC, uplink.mac.to_string()),
            is(ARP_SENDER_IP, net.addr().to_string()),
        ]));
    }
    for own in uplink
        .ipv6
        .map(|net| net.addr())
        .into_iter()
        .chain(link_local)
    {
        // No extension header, and exactly one option: the link-layer address.
        let message = |kind: &str, option: u8| {
            vec![
                is(IPV6_LENGTH, 32),
                is(IPV6_NEXT, 58),
                is(IPV6_HOPS, 255),
                is(IPV6_SOURCE, own.to_string()),
                is(ICMPV6_TYPE, kind),
                is(ND_OPTION, link_layer_option(option, uplink.mac)),
            ]
        };
        rules.push(accept(message("nd-neighbor-solicit", 1)));
        let own = format!("0x{:032x}", u128::from(own));
        let mut advert = message("nd-neighbor-advert", 2);
        advert.push(is(ND_TARGET, own));
        rules.push(accept(advert));
    }
    rules
}

/// An option of 8 bytes with a MAC, as a number.
fn link_layer_option(kind: u8, mac: MacAddr) -> u64 {
    let mut bytes = [kind, 1, 0, 0, 0, 0, 0, 0];
    bytes[2..].copy_from_slice(&mac.octets());
    u64::from_be_bytes(bytes)
}

/// The IP sources that may leave the tenant: its own on the underlay, the gateway's subnets, and
/// the ports' further addresses; only its own on the underlay if it reaches nothing but its peers.
/// No link-local address: a fragmented Router Advertisement shows no type to match, but hosts
/// accept it from no other source (RFC 4861, 6.1.2).
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
    let further = config.ports.iter().flat_map(PortConfig::sources);
    let further = further.map(|net| net.trunc());
    sources.extend(further.filter(|net| !subnets.iter().any(|subnet| subnet.contains(net))));
    sources.extend(subnets);
    sources.sort();
    sources.dedup();
    sources
}

const LOCK_PREFIX: &str = "lock-";

fn chain_of(interface: &str) -> String {
    format!("{LOCK_PREFIX}{interface}")
}

fn place<'a>(family: Family, table: &'a str, name: &'a str) -> Place<'a> {
    Place {
        family,
        table,
        name,
    }
}

/// The commands that make or replace a chain with its rules.
fn set_chain<'a>(
    at: Place<'a>,
    hook: Option<&'a Hook>,
    rules: &'a [Value],
) -> impl Iterator<Item = Command<'a>> {
    let add = move |expr| {
        Command::Add(nft::Object::Rule {
            family: at.family,
            table: at.table,
            chain: at.name,
            expr,
        })
    };
    let chain = [
        Command::Add(nft::Object::Chain { at, hook }),
        Command::Flush(nft::Object::Chain { at, hook: None }),
    ];
    chain.into_iter().chain(rules.iter().map(add))
}

/// The commands that remove a chain to which no rule leads.
fn delete_chain(at: Place<'_>) -> [Command<'_>; 2] {
    [
        Command::Flush(nft::Object::Chain { at, hook: None }),
        Command::Delete(nft::Object::Chain { at, hook: None }),
    ]
}

/// Makes a table, or clears the other flags of one.
fn set_table(family: Family, name: &str, persists: bool) -> Result<bool, HostError> {
    let what = format!("cannot make nftables table {name}");
    nfnetlink::make_table(family, name, persists).map_err(HostError::io(what))
}

/// Wakes a dormant table, which persists or not.
fn wake_table(family: Family, name: &str) -> Result<(), HostError> {
    if !set_table(family, name, true)? {
        set_table(family, name, false)?;
    }
    Ok(())
}

/// Makes a table that persists, for the supervisor to own, if both the kernel and `nft` know that.
fn make_table(family: Family, name: &str) -> Result<(), HostError> {
    if set_table(family, name, true)? {
        if nft::knows_persistence(family, name)? {
            return Ok(());
        }
        run(&[Command::Delete(nft::Object::Table { family, name })])?;
    }
    set_table(family, name, false).map(drop)
}

/// Makes or replaces the tables' own chains in one transaction; locks stay. Another version's
/// chains for the bridge are removed.
pub(crate) fn set_guard(guard: &Guard) -> Result<(), HostError> {
    let table = &guard.table;
    let mut commands = Vec::new();
    let bridge = list(Family::Bridge, table)?;
    for (family, listing) in [
        (Family::Netdev, &list(Family::Netdev, table)?),
        (Family::Bridge, &bridge),
    ] {
        match listing {
            None => make_table(family, table)?,
            Some(listing) if listing.is_dormant() => wake_table(family, table)?,
            Some(_) => {}
        }
    }
    let chains = bridge.iter().flat_map(Listing::chains);
    let others: Vec<_> = chains
        .filter(|name| ![PORTS, HOST].contains(name))
        .map(|name| place(Family::Bridge, table, name))
        .collect();
    for at in &others {
        commands.push(Command::Flush(nft::Object::Chain {
            at: *at,
            hook: None,
        }));
    }
    for name in bridge.iter().flat_map(Listing::maps) {
        let at = place(Family::Bridge, table, name);
        commands.push(Command::Delete(nft::Object::Map { at }));
    }
    commands.extend(others.iter().flat_map(|at| delete_chain(*at)));
    let (ports, host) = (Hook::bridge_ports(), Hook::bridge_host());
    commands.extend(set_chain(
        place(Family::Netdev, table, PASS),
        None,
        &guard.pass,
    ));
    commands.extend(set_chain(
        place(Family::Bridge, table, PORTS),
        Some(&ports),
        &guard.rules,
    ));
    commands.extend(set_chain(
        place(Family::Bridge, table, HOST),
        Some(&host),
        &guard.host,
    ));
    run(&commands)
}

/// Makes or replaces a port's lock in one transaction.
pub(crate) fn set_lock(lock: &Lock) -> Result<(), HostError> {
    let name = chain_of(&lock.interface);
    let at = place(Family::Netdev, &lock.table, &name);
    let hook = Hook::device(&lock.interface);
    let mut commands = Vec::new();
    let listing = nft::list_chain(at)?;
    if listing.is_some_and(|it| !it.is_hooked(&name, &hook)) {
        // A chain cannot be moved.
        commands.push(Command::Add(nft::Object::Chain { at, hook: None }));
        commands.extend(delete_chain(at));
    }
    commands.extend(set_chain(at, Some(&hook), &lock.rules));
    run(&commands)
}

/// Removes the tables with everything in them.
fn delete_guard(guard: &Guard) -> Result<(), HostError> {
    let mut commands = Vec::new();
    for family in Family::ALL {
        if list(family, &guard.table)?.is_some() {
            commands.push(Command::Delete(nft::Object::Table {
                family,
                name: &guard.table,
            }));
        }
    }
    run(&commands)
}

/// Takes a port down and removes its lock.
fn delete_lock(lock: &Lock) -> Result<(), HostError> {
    close(&[&lock.interface])?;
    let name = chain_of(&lock.interface);
    let at = place(Family::Netdev, &lock.table, &name);
    match nft::list_chain(at)? {
        Some(_) => run(&delete_chain(at)),
        None => Ok(()),
    }
}

/// Takes ports down, those that exist. Returns which of them were up.
pub(crate) fn close<'a>(interfaces: &[&'a str]) -> Result<Vec<&'a str>, HostError> {
    with_netlink(None, async |handle| {
        let mut closed = Vec::new();
        for interface in interfaces {
            let Some(link) = find(&handle, interface).await? else {
                continue;
            };
            if !link.header.flags.contains(LinkFlags::Up) {
                continue;
            }
            let down = LinkUnspec::new_with_index(link.header.index).down();
            let request = handle.link().change(down.build());
            unless_missing(request.execute().await)
                .map_err(refused(format!("cannot take down interface {interface}")))?;
            closed.push(*interface);
        }
        Ok(closed)
    })
}

/// The tables of a guard, as they are.
pub(crate) struct Tables {
    netdev: Option<Listing>,
    bridge: Option<Listing>,
}

/// The same without locks.
struct Alone(Tables);

impl Tables {
    /// Both tables, read once for a look.
    fn of(table: &str, look: &Look) -> Result<Arc<Self>, HostError> {
        look.share(table, || Self::read(table))
    }

    /// The tables' own chains alone: the locks may be many.
    fn without_locks(table: &str) -> Result<Self, HostError> {
        Ok(Self {
            netdev: nft::list_chain(place(Family::Netdev, table, PASS))?,
            bridge: list(Family::Bridge, table)?,
        })
    }

    pub(crate) fn read(table: &str) -> Result<Self, HostError> {
        let mut listings = parallel::map(&Family::ALL, |family| list(*family, table)).into_iter();
        let mut next = || listings.next().unwrap_or(Ok(None));
        Ok(Self {
            netdev: next()?,
            bridge: next()?,
        })
    }

    /// The tables' own chains. A chain with another hook reads as one without rules.
    pub(crate) fn guard(&self, wanted: &Guard) -> Option<Guard> {
        if self.netdev.is_none() && self.bridge.is_none() {
            return None;
        }
        let hooked = |chain: &str, hook: &Hook| match &self.bridge {
            Some(listing) if listing.is_hooked(chain, hook) => listing.rules(chain),
            _ => Vec::new(),
        };
        let netdev = self.netdev.as_ref().filter(|it| !it.is_dormant());
        let pass = netdev.map(|listing| listing.rules(PASS));
        Some(Guard {
            table: wanted.table.clone(),
            rules: hooked(PORTS, &Hook::bridge_ports()),
            host: hooked(HOST, &Hook::bridge_host()),
            pass: pass.unwrap_or_default(),
        })
    }

    /// The rules of a port's lock; none if its chain is called elsewhere, or is missing.
    pub(crate) fn lock(&self, wanted: &Lock) -> Vec<Value> {
        lock_rules(self.netdev.as_ref(), wanted)
    }
}

fn is_up_among(links: &Links, interface: &str) -> bool {
    let seen = links.get(interface);
    seen.is_some_and(|seen| seen.is_up())
}

fn lock_rules(listing: Option<&Listing>, wanted: &Lock) -> Vec<Value> {
    let name = chain_of(&wanted.interface);
    let hook = Hook::device(&wanted.interface);
    match listing {
        Some(listing) if listing.is_hooked(&name, &hook) => listing.rules(&name),
        _ => Vec::new(),
    }
}

/// The chain of a port's lock alone.
fn read_lock(wanted: &Lock) -> Result<Option<Listing>, HostError> {
    let name = chain_of(&wanted.interface);
    nft::list_chain(place(Family::Netdev, &wanted.table, &name))
}

/// A port's lock in a listing. A chain that is called elsewhere reads as one without rules.
fn observe_lock(wanted: &Lock, listing: Option<&Listing>, up: bool) -> Option<Lock> {
    let listing = listing.filter(|it| it.has(&chain_of(&wanted.interface)))?;
    Some(Lock {
        table: wanted.table.clone(),
        interface: wanted.interface.clone(),
        rules: lock_rules(Some(listing), wanted),
        up,
        needs: wanted.needs.clone(),
    })
}

/// Takes the tables, those that persist.
pub(crate) fn own(owner: &Owner, table: &str) -> std::io::Result<()> {
    for family in Family::ALL {
        owner.take(family, table)?;
    }
    Ok(())
}

/// What a transaction may have done to a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loss {
    None,
    Possible,
    Certain,
}

/// Whether a port has lost its lock, or what that leads to, by a transaction. A chain whose rules
/// were replaced may be the same.
pub(crate) fn loss(transaction: &[Change], lock: &Lock) -> Loss {
    let own = chain_of(&lock.interface);
    let concerns = |change: &&Change| {
        let family = Family::ALL.into_iter().find(|it| change.is_in(*it));
        change.table == lock.table
            && match family {
                Some(Family::Netdev) => [PASS, own.as_str(), ""].contains(&change.chain.as_str()),
                Some(Family::Bridge) => true,
                None => false,
            }
    };
    let of = |change: &&Change| match change.happened {
        Happened::TableGone | Happened::ChainGone => Loss::Certain,
        Happened::RuleGone => {
            let made = transaction.iter().any(|other| {
                let rule = Change {
                    happened: Happened::RuleMade,
                    ..(*change).clone()
                };
                *other == rule
            });
            if made { Loss::Possible } else { Loss::Certain }
        }
        _ => Loss::Possible,
    };
    let losses = transaction.iter().filter(concerns).map(|it| of(&it));
    losses.max().unwrap_or(Loss::None)
}
