//! Links: veth pairs, and the settings of each end.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoPortData, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
};
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::{LinkBridgePort, LinkUnspec, LinkVeth};
use serde::{Deserialize, Serialize};
use tenant_config::MacAddr;

use super::links::{self, Links, ipv6_switch};
use super::netlink::{delete_link, index_of, mac_of, refused, with_netlink};
use super::netns::{has_interface, inside, path};
use crate::error::HostError;
use crate::key::Key;
use crate::look::Look;
use crate::object::{Context, Live, Object};

/// A veth pair between a switch and its peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The end that the switch owns.
    pub switch: End,
    /// The guest's end or the bridge's.
    pub peer: End,
}

/// One end of a veth pair, with all settings that are made and read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The network namespace; `None` is the provisioner's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The interface's name there.
    pub interface: String,
    /// Its MAC address; `None` is any that the kernel chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Administratively up; `None` for a bridge port, which its lock brings up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// Whether the kernel resolves and answers ARP here.
    pub arp: bool,
    /// Whether the kernel's IPv6 is enabled here.
    pub ipv6: bool,
    /// Whether any of transmit checksum, TSO, GSO and GRO is on.
    pub offloads: bool,
    /// The description that `ip link` shows.
    pub alias: String,
    /// Its place on a bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgePort>,
}

impl End {
    /// An end that belongs to a switch: the kernel must not answer there.
    pub(crate) fn of_switch(namespace: &str, interface: &str, mtu: u16, alias: String) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
            interface: interface.to_owned(),
            mac: None,
            mtu: mtu.into(),
            up: Some(true),
            arp: false,
            ipv6: false,
            offloads: false,
            alias,
            bridge: None,
        }
    }
}

/// How a bridge treats one of its ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgePort {
    /// The bridge's interface name.
    pub bridge: String,
    /// Frames pass only between this port and those that are not isolated.
    pub isolated: bool,
    /// Whether source MACs are learned here.
    pub learning: bool,
    /// Whether unicast for unknown MACs is sent here.
    pub flood: bool,
    /// Whether the bridge itself drops what comes from here with another source MAC than the
    /// station's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub locked: bool,
    /// The only station behind this port, as a permanent forwarding entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub station: Option<MacAddr>,
}

impl Object for Pair {
    fn key(&self) -> Key {
        Key::Pair {
            namespace: self.switch.namespace.clone().unwrap_or_default(),
            interface: self.switch.interface.clone(),
        }
    }

    fn changes_in_place(&self, wanted: &Self) -> bool {
        let place = |end: &End| (end.namespace.clone(), end.interface.clone());
        place(&self.switch) == place(&wanted.switch) && place(&self.peer) == place(&wanted.peer)
    }

    fn is_movable(&self) -> bool {
        self.peer.namespace.is_some()
    }

    fn inside(&self) -> Option<Key> {
        let name = self.switch.namespace.clone()?;
        Some(Key::Namespace { name })
    }

    /// The guest's end stays where it is, with everything that the guest has set there.
    fn becomes(&self, wanted: &Self) -> bool {
        let guest = |pair: &Self| (pair.peer.namespace.clone(), pair.peer.interface.clone());
        self.is_movable() && guest(self) == guest(wanted) && self.peer.mac == wanted.peer.mac
    }

    fn carries_switch(&self) -> bool {
        true
    }

    /// The other end of the In/Out side is a port of the bridge.
    fn drained(&self) -> Option<Self> {
        let mut drained = self.clone();
        drained.peer.up = Some(false);
        self.peer.bridge.is_none().then_some(drained)
    }
}

impl Live for Pair {
    fn observe(&self, _: &Context) -> Result<Option<Self>, HostError> {
        observe_pair(self, observe)
    }

    fn observe_with(&self, _: &Context, look: &Look) -> Result<Option<Self>, HostError> {
        observe_pair(self, |end| observe_with(end, look))
    }

    fn exists(&self, _: &Context) -> Result<bool, HostError> {
        let has = |end: &End| has_interface(end.namespace.as_deref(), &end.interface);
        Ok(has(&self.switch)? && has(&self.peer)?)
    }

    fn create(&self, _: &Context) -> Result<(), HostError> {
        create_pair(self)
    }

    fn update(&self, _: &Context) -> Result<(), HostError> {
        configure_pair(self)
    }

    fn take(&self, from: &Self, _: &Context) -> Result<(), HostError> {
        move_pair(from, self)
    }

    fn delete(&self, _: &Context) -> Result<(), HostError> {
        delete_link(self.switch.namespace.as_deref(), &self.switch.interface)
    }
}

/// Makes a pair, both ends in their namespaces from the start. Replaces what a crash left of it.
fn create_pair(pair: &Pair) -> Result<(), HostError> {
    let switch = pair.switch.namespace.as_deref();
    delete_link(switch, &pair.switch.interface)?;
    // The switch's end may be in a namespace without a name, which the kernel removes later.
    if observe(&pair.peer)?.is_some_and(|peer| peer.end.alias == pair.peer.alias) {
        delete_link(pair.peer.namespace.as_deref(), &pair.peer.interface)?;
    }
    let peer_namespace = match &pair.peer.namespace {
        Some(name) => path(name),
        None => PathBuf::from("/proc/thread-self/ns/net"),
    };
    let what = format!(
        "cannot make the veth pair {}, {}",
        place(&pair.switch),
        place(&pair.peer)
    );
    let peer_namespace = File::open(peer_namespace).map_err(HostError::io(&what))?;
    with_netlink(switch, async |handle| {
        let mut peer = LinkUnspec::new_with_name(&pair.peer.interface)
            .mtu(pair.peer.mtu)
            .setns_by_fd(peer_namespace.as_raw_fd());
        if let Some(mac) = pair.peer.mac {
            peer = peer.address(mac.octets().to_vec());
        }
        let mut link = LinkVeth::new(&pair.switch.interface, &pair.peer.interface)
            .mtu(pair.switch.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        if let Some(mac) = pair.switch.mac {
            link = link.address(mac.octets().to_vec());
        }
        let request = handle.link().add(link.build());
        request.execute().await.map_err(refused(what))
    })?;
    configure_pair(pair)
}

/// Moves the switch's end of a pair to another namespace; makes the pair if there is none.
fn move_pair(from: &Pair, to: &Pair) -> Result<(), HostError> {
    let there = |end: &End| has_interface(end.namespace.as_deref(), &end.interface);
    if !there(&to.switch)? {
        if !there(&from.switch)? {
            return create_pair(to);
        }
        let what = format!(
            "cannot move interface {} to {}",
            place(&from.switch),
            place(&to.switch)
        );
        let namespace = to.switch.namespace.as_deref().map(path);
        let namespace = namespace.unwrap_or_else(|| PathBuf::from("/proc/thread-self/ns/net"));
        let namespace = File::open(namespace).map_err(HostError::io(&what))?;
        with_netlink(from.switch.namespace.as_deref(), async |handle| {
            let index = index_of(&handle, &from.switch.interface).await?;
            let link = LinkUnspec::new_with_index(index)
                .setns_by_fd(namespace.as_raw_fd())
                .name(to.switch.interface.clone());
            let request = handle.link().change(link.build());
            request.execute().await.map_err(refused(what))
        })?;
    }
    configure_pair(to)
}

/// Sets all attributes of both ends.
fn configure_pair(pair: &Pair) -> Result<(), HostError> {
    configure(&pair.switch)?;
    configure(&pair.peer)
}

fn place(end: &End) -> String {
    match &end.namespace {
        Some(namespace) => format!("{namespace}/{}", end.interface),
        None => end.interface.clone(),
    }
}

pub(crate) fn configure(end: &End) -> Result<(), HostError> {
    let what = || format!("cannot set interface {}", place(end));
    let namespace = end.namespace.as_deref();
    // Before the interface is up, so that the kernel never sends a frame on its own.
    set_ipv6(namespace, &end.interface, end.ipv6)?;
    set_offloads(namespace, &end.interface, end.offloads)?;
    with_netlink(namespace, async |handle| {
        let index = index_of(&handle, &end.interface).await?;
        let mut link = LinkUnspec::new_with_index(index)
            .mtu(end.mtu)
            .arp(end.arp)
            .alias(&end.alias);
        if let Some(mac) = end.mac {
            link = link.address(mac.octets().to_vec());
        }
        if let Some(port) = &end.bridge {
            link = link.controller(index_of(&handle, &port.bridge).await?);
        }
        let request = handle.link().change(link.build());
        request.execute().await.map_err(refused(what()))?;
        if let Some(port) = &end.bridge {
            let link = LinkBridgePort::new(index)
                .isolated(port.isolated)
                .learning(port.learning)
                .flood(port.flood)
                .locked(port.locked)
                .build();
            let request = handle.link().set_port(link);
            request.execute().await.map_err(refused(what()))?;
            if let Some(station) = port.station {
                let request = handle.neighbours().add_bridge(index, &station.octets());
                let request = request
                    .state(NeighbourState::Noarp)
                    .flags(NeighbourFlags::Controller)
                    .replace();
                request.execute().await.map_err(refused(what()))?;
            }
        }
        let link = LinkUnspec::new_with_index(index);
        let link = match end.up {
            Some(true) => link.up(),
            Some(false) => link.down(),
            None => return Ok(()),
        };
        let request = handle.link().change(link.build());
        request.execute().await.map_err(refused(what()))
    })
}

/// Reads both ends; `None` unless both exist and belong together.
fn observe_pair(
    wanted: &Pair,
    observe: impl Fn(&End) -> Result<Option<ObservedEnd>, HostError>,
) -> Result<Option<Pair>, HostError> {
    let (Some(switch), Some(peer)) = (observe(&wanted.switch)?, observe(&wanted.peer)?) else {
        return Ok(None);
    };
    if (switch.index, switch.peer) != (peer.peer, peer.index) {
        return Ok(None);
    }
    Ok(Some(Pair {
        switch: switch.end,
        peer: peer.end,
    }))
}

pub(crate) struct ObservedEnd {
    pub(crate) end: End,
    index: u32,
    peer: u32,
}

/// Reads one end.
pub(crate) fn observe(wanted: &End) -> Result<Option<ObservedEnd>, HostError> {
    let station = wanted.bridge.as_ref().and_then(|port| port.station);
    let links = Links::one(wanted.namespace.as_deref(), &wanted.interface, station)?;
    Ok(observe_in(&links, wanted))
}

/// Reads one end, with all interfaces of its namespace.
fn observe_with(wanted: &End, look: &Look) -> Result<Option<ObservedEnd>, HostError> {
    Ok(observe_in(
        &*links_of(wanted.namespace.as_deref(), look)?,
        wanted,
    ))
}

/// All interfaces of a namespace, read once for a look.
pub(super) fn links_of(namespace: Option<&str>, look: &Look) -> Result<Arc<Links>, HostError> {
    // No namespace has the empty name.
    look.share(namespace.unwrap_or_default(), || Links::all(namespace))
}

/// The end as it is among these interfaces.
fn observe_in(links: &Links, wanted: &End) -> Option<ObservedEnd> {
    let seen = links.get(&wanted.interface)?;
    let header = &seen.link.header;
    let mut peer = 0;
    let mut end = End {
        namespace: wanted.namespace.clone(),
        interface: wanted.interface.clone(),
        mac: None,
        mtu: 0,
        up: wanted.up.map(|_| header.flags.contains(LinkFlags::Up)),
        arp: !header.flags.contains(LinkFlags::Noarp),
        ipv6: seen.ipv6,
        offloads: seen.offloads,
        alias: String::new(),
        bridge: None,
    };
    let mut controller = None;
    let mut port: &[InfoBridgePort] = &[];
    for attribute in &seen.link.attributes {
        match attribute {
            LinkAttribute::Address(octets) if wanted.mac.is_some() => end.mac = mac_of(octets),
            LinkAttribute::Mtu(mtu) => end.mtu = *mtu,
            LinkAttribute::IfAlias(alias) => end.alias.clone_from(alias),
            LinkAttribute::Link(index) => peer = *index,
            LinkAttribute::Controller(index) => controller = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::PortData(InfoPortData::BridgePort(attributes)) = info {
                        port = attributes;
                    }
                }
            }
            _ => {}
        }
    }
    end.bridge = controller.map(|bridge| {
        let name = links.name(bridge).unwrap_or_default();
        bridge_port(name, port, &seen.stations, wanted)
    });
    Some(ObservedEnd {
        end,
        index: header.index,
        peer,
    })
}

fn bridge_port(
    bridge: &str,
    attributes: &[InfoBridgePort],
    stations: &[MacAddr],
    wanted: &End,
) -> BridgePort {
    let wanted = wanted.bridge.as_ref().and_then(|port| port.station);
    let mut port = BridgePort {
        bridge: bridge.to_owned(),
        isolated: false,
        learning: true,
        flood: true,
        locked: false,
        station: wanted.filter(|mac| stations.contains(mac)),
    };
    for attribute in attributes {
        match attribute {
            InfoBridgePort::Isolated(on) => port.isolated = *on,
            InfoBridgePort::Learning(on) => port.learning = *on,
            InfoBridgePort::UnicastFlood(on) => port.flood = *on,
            InfoBridgePort::Locked(on) => port.locked = *on,
            _ => {}
        }
    }
    port
}

pub(super) fn set_ipv6(
    namespace: Option<&str>,
    interface: &str,
    on: bool,
) -> Result<(), HostError> {
    inside(namespace, || {
        let what = format!("cannot set IPv6 of {interface}");
        match std::fs::write(ipv6_switch(interface), if on { "0" } else { "1" }) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(HostError::io(what)(error))
            }
            _ => Ok(()),
        }
    })
}

fn set_offloads(namespace: Option<&str>, interface: &str, on: bool) -> Result<(), HostError> {
    let what = format!("cannot set the offloads of {interface}");
    inside(namespace, || {
        links::set_offloads(interface, on).map_err(HostError::io(what))
    })
}
