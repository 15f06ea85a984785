//! The interfaces of a network namespace, read all at once, or some of them.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::socket::SockProtocol;
use tenant_config::MacAddr;

use super::features::Features;
use super::netlink::mac_of;
use super::netns::{exists, inside};
use super::request::{Requests, Want};
use crate::child;
use crate::error::HostError;

/// One interface.
#[derive(Debug, Clone)]
pub(crate) struct Interface {
    /// Its index, flags and attributes.
    pub(super) link: LinkMessage,
    /// Whether the kernel's IPv6 is enabled here; without IPv6 in the kernel it is off everywhere.
    pub(super) ipv6: bool,
    /// Whether any of transmit checksum, scatter-gather, TSO, GSO and GRO is on.
    pub(super) offloads: bool,
    /// The stations that its bridge knows permanently behind it.
    pub(super) stations: Vec<MacAddr>,
}

impl Interface {
    /// Whether it is administratively up.
    pub(super) fn is_up(&self) -> bool {
        self.link.header.flags.contains(LinkFlags::Up)
    }
}

/// The interfaces of a namespace at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links {
    by_name: HashMap<String, Interface>,
    names: HashMap<u32, String>,
}

impl Links {
    /// All interfaces of a namespace; none if it does not exist.
    pub(crate) fn all(namespace: Option<&str>) -> Result<Self, HostError> {
        Self::read(namespace, None)
    }

    /// One interface, if it exists, and its bridge's name. Of its bridge's stations, whether
    /// `station` is behind it.
    pub(crate) fn one(
        namespace: Option<&str>,
        interface: &str,
        station: Option<MacAddr>,
    ) -> Result<Self, HostError> {
        Self::read(namespace, Some((interface, station)))
    }

    fn read(
        namespace: Option<&str>,
        one: Option<(&str, Option<MacAddr>)>,
    ) -> Result<Self, HostError> {
        if namespace.is_some_and(|name| !exists(name)) {
            return Ok(Self::default());
        }
        let what = match (namespace, one) {
            (_, Some((interface, _))) => format!("cannot read interface {interface}"),
            (Some(name), None) => format!("cannot read the interfaces of {name}"),
            (None, None) => "cannot read the interfaces".to_owned(),
        };
        inside(namespace, || {
            let read = || -> io::Result<Self> {
                let mut requests = Requests::open(SockProtocol::NetlinkRoute)?;
                match one {
                    None => Self::every(&mut requests),
                    Some((name, station)) => Self::only(&mut requests, name, station),
                }
            };
            read().map_err(HostError::io(what))
        })
    }

    fn every(requests: &mut Requests) -> io::Result<Self> {
        let mut request = LinkMessage::default();
        let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
        request.attributes.push(mask);
        let mut links = Self::default();
        let mut offloads = match Features::open().and_then(|mut features| features.all()) {
            Ok(all) => all,
            Err(error) if lacks_netlink(&error) => HashMap::new(),
            Err(error) => return Err(error),
        };
        let mut has_ports = false;
        for message in requests.route(Want::All, RouteNetlinkMessage::GetLink(request))? {
            if let RouteNetlinkMessage::NewLink(link) = message {
                has_ports |= controller(&link).is_some();
                links.add(link, |index| offloads.remove(&index))?;
            }
        }
        if has_ports {
            for (index, mac) in stations(requests)? {
                if let Some(interface) = links.by_index(index) {
                    interface.stations.push(mac);
                }
            }
        }
        Ok(links)
    }

    fn only(
        requests: &mut Requests,
        interface: &str,
        station: Option<MacAddr>,
    ) -> io::Result<Self> {
        let mut links = Self::default();
        let mut request = LinkMessage::default();
        let name = LinkAttribute::IfName(interface.to_owned());
        request.attributes.push(name);
        let Some(found) = link(requests, request)? else {
            return Ok(links);
        };
        let (index, bridge) = (found.header.index, controller(&found));
        let offloads = |index| {
            Features::open()
                .and_then(|mut it| it.of(index))
                .ok()
                .map(|it| it.is_on)
        };
        links.add(found, offloads)?;
        if let Some(bridge) = bridge {
            let mut request = LinkMessage::default();
            request.header.index = bridge;
            let bridge = link_name(link(requests, request)?.as_ref());
            links.names.extend(bridge);
            if let Some(mac) = station
                && has_station(requests, index, mac)?
                && let Some(interface) = links.by_index(index)
            {
                interface.stations.push(mac);
            }
        }
        Ok(links)
    }

    fn add(
        &mut self,
        link: LinkMessage,
        offloads: impl FnOnce(u32) -> Option<bool>,
    ) -> io::Result<()> {
        let Some((index, name)) = link_name(Some(&link)) else {
            return Ok(());
        };
        let offloads = match offloads(index) {
            Some(on) => on,
            // It may have gone meanwhile.
            None => program_says_offloads(&name)?.unwrap_or(true),
        };
        let interface = Interface {
            ipv6: has_ipv6(&name)?,
            offloads,
            stations: Vec::new(),
            link,
        };
        self.names.insert(index, name.clone());
        self.by_name.insert(name, interface);
        Ok(())
    }

    fn by_index(&mut self, index: u32) -> Option<&mut Interface> {
        self.by_name.get_mut(self.names.get(&index)?)
    }

    /// The interface of this name.
    pub(crate) fn get(&self, interface: &str) -> Option<&Interface> {
        self.by_name.get(interface)
    }

    /// The name of an interface, also of another one's bridge.
    pub(super) fn name(&self, index: u32) -> Option<&str> {
        self.names.get(&index).map(String::as_str)
    }
}

fn lacks_netlink(error: &io::Error) -> bool {
    let missing = [
        nix::Error::ENOENT,
        nix::Error::EOPNOTSUPP,
        nix::Error::EPROTONOSUPPORT,
    ];
    let missing = missing.map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|it| missing.contains(&it))
}

/// The index of the bridge whose port it is.
fn controller(link: &LinkMessage) -> Option<u32> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Controller(index) => Some(*index),
            _ => None,
        })
}

fn link_name(link: Option<&LinkMessage>) -> Option<(u32, String)> {
    let link = link?;
    let name = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
    Some((link.header.index, name))
}

/// One link; `None` if it does not exist.
fn link(requests: &mut Requests, request: LinkMessage) -> io::Result<Option<LinkMessage>> {
    let answer = requests.route(Want::One, RouteNetlinkMessage::GetLink(request));
    let links = match answer {
        Err(error) if error.raw_os_error() == Some(nix::Error::ENODEV as i32) => return Ok(None),
        answer => answer?,
    };
    Ok(links.into_iter().find_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    }))
}

/// All stations that bridges know permanently, by the index of the port.
fn stations(requests: &mut Requests) -> io::Result<Vec<(u32, MacAddr)>> {
    let mut request = NeighbourMessage::default();
    request.header.family = AddressFamily::Bridge;
    let entries = requests.route(Want::All, RouteNetlinkMessage::GetNeighbour(request))?;
    Ok(entries.iter().filter_map(station).collect())
}

fn station(message: &RouteNetlinkMessage) -> Option<(u32, MacAddr)> {
    let RouteNetlinkMessage::NewNeighbour(entry) = message else {
        return None;
    };
    let permanent = [NeighbourState::Noarp, NeighbourState::Permanent];
    if !permanent.contains(&entry.header.state) {
        return None;
    }
    entry
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(octets) => {
                Some((entry.header.ifindex, mac_of(octets)?))
            }
            _ => None,
        })
}

/// Whether the bridge knows this station permanently behind its port.
fn has_station(requests: &mut Requests, index: u32, mac: MacAddr) -> io::Result<bool> {
    let mut request = NeighbourMessage::default();
    request.header.family = AddressFamily::Bridge;
    request.header.ifindex = index;
    request.header.flags = NeighbourFlags::Controller;
    let address = NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec());
    request.attributes.push(address);
    match requests.route(Want::One, RouteNetlinkMessage::GetNeighbour(request)) {
        Ok(entries) => Ok(entries
            .iter()
            .filter_map(station)
            .any(|it| it == (index, mac))),
        Err(error) if error.raw_os_error() == Some(nix::Error::ENOENT as i32) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where the thread's namespace has an interface's switch of IPv6.
pub(super) fn ipv6_switch(interface: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"))
}

fn has_ipv6(interface: &str) -> io::Result<bool> {
    match std::fs::read_to_string(ipv6_switch(interface)) {
        Ok(text) => Ok(text.trim() == "0"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The offloads that must be off: the names that `ethtool` sets and those that it reports.
const OFFLOADS: [(&str, &str); 5] = [
    ("tx", "tx-checksumming"),
    ("sg", "scatter-gather"),
    ("tso", "tcp-segmentation-offload"),
    ("gso", "generic-segmentation-offload"),
    ("gro", "generic-receive-offload"),
];

/// What the program says where the kernel has no netlink for it; `None` if the interface is gone.
fn program_says_offloads(interface: &str) -> io::Result<Option<bool>> {
    let mut command = Command::new("ethtool");
    let output = child::output(command.args(["--json", "-k", interface]), &[])?;
    if !output.status.success() {
        return Ok(None);
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let off = serde_json::Value::Bool(false);
    Ok(Some(
        OFFLOADS
            .iter()
            .any(|(_, name)| report[0][name]["active"] != off),
    ))
}

/// Sets the offloads of an interface of the thread's namespace, if they are not so.
pub(super) fn set_offloads(interface: &str, on: bool) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    match Features::open().and_then(|mut features| features.set(index, on)) {
        Err(error) if lacks_netlink(&error) => {}
        done => return done,
    }
    if program_says_offloads(interface)? == Some(on) {
        return Ok(());
    }
    let mut command = Command::new("ethtool");
    command.args(["-K", interface]);
    for (name, _) in OFFLOADS {
        command.args([name, if on { "on" } else { "off" }]);
    }
    let output = child::output(&mut command, &[])?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!("ethtool failed: {message}")));
    }
    Ok(())
}
