//! The bridge on which the In/Out sides meet the wire.

use std::path::PathBuf;

use netlink_packet_route::link::{InfoBridge, InfoData, LinkAttribute, LinkInfo};
use rtnetlink::LinkBridge;
use serde::{Deserialize, Serialize};

use super::link::{links_of, set_ipv6};
use super::links::Links;
use super::netlink::{delete_link, find, index_of, refused, with_netlink};
use super::netns::has_interface;
use crate::error::HostError;
use crate::key::Key;
use crate::look::Look;
use crate::object::{Context, Live, Object};

/// A Linux bridge in the provisioner's own network namespace: up, no address, no STP, no snooping,
/// and no ARP for addresses that are not its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Its interface name.
    pub interface: String,
    /// Administratively up.
    pub up: bool,
    /// Multicast snooping, which would break Neighbour Discovery.
    pub snooping: bool,
    /// The kernel's own IPv6 on the bridge.
    pub ipv6: bool,
    /// The host answers ARP there only for addresses that the bridge itself has. Otherwise it
    /// answers for all of its addresses, and one of another network may be a tenant's here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict_arp: bool,
}

impl Object for Bridge {
    fn key(&self) -> Key {
        Key::Bridge {
            interface: self.interface.clone(),
        }
    }

    fn is_shared(&self) -> bool {
        true
    }
}

impl Live for Bridge {
    fn observe(&self, _: &Context) -> Result<Option<Self>, HostError> {
        observe(&Links::one(None, &self.interface, None)?, self)
    }

    fn observe_with(&self, _: &Context, look: &Look) -> Result<Option<Self>, HostError> {
        observe(&*links_of(None, look)?, self)
    }

    fn exists(&self, _: &Context) -> Result<bool, HostError> {
        has_interface(None, &self.interface)
    }

    fn create(&self, _: &Context) -> Result<(), HostError> {
        create(self)
    }

    fn update(&self, _: &Context) -> Result<(), HostError> {
        configure(self)
    }

    fn delete(&self, _: &Context) -> Result<(), HostError> {
        delete_link(None, &self.interface)
    }
}

/// Makes a bridge.
fn create(bridge: &Bridge) -> Result<(), HostError> {
    let what = format!("cannot make bridge {}", bridge.interface);
    with_netlink(None, async |handle| {
        if find(&handle, &bridge.interface).await?.is_none() {
            let link = LinkBridge::new(&bridge.interface)
                .mcast_snooping(bridge.snooping)
                .down();
            let request = handle.link().add(link.build());
            request.execute().await.map_err(refused(what))?;
        }
        Ok(())
    })?;
    configure(bridge)
}

/// Sets all attributes of a bridge.
fn configure(bridge: &Bridge) -> Result<(), HostError> {
    set_ipv6(None, &bridge.interface, bridge.ipv6)?;
    set_strict_arp(&bridge.interface, bridge.strict_arp)?;
    with_netlink(None, async |handle| {
        let what = format!("cannot set bridge {}", bridge.interface);
        let index = index_of(&handle, &bridge.interface).await?;
        let link = rtnetlink::LinkMessageBuilder::<LinkBridge>::new(&bridge.interface)
            .index(index)
            .mcast_snooping(bridge.snooping);
        let link = if bridge.up { link.up() } else { link.down() };
        let request = handle.link().change(link.build());
        request.execute().await.map_err(refused(what))
    })
}

/// The bridge among these interfaces. An interface of another kind with its name reads as a bridge
/// with snooping.
fn observe(links: &Links, wanted: &Bridge) -> Result<Option<Bridge>, HostError> {
    let Some(seen) = links.get(&wanted.interface) else {
        return Ok(None);
    };
    let mut bridge = Bridge {
        interface: wanted.interface.clone(),
        up: seen.is_up(),
        snooping: true,
        ipv6: seen.ipv6,
        strict_arp: has_strict_arp(&wanted.interface)?,
    };
    for attribute in &seen.link.attributes {
        let LinkAttribute::LinkInfo(infos) = attribute else {
            continue;
        };
        for info in infos {
            if let LinkInfo::Data(InfoData::Bridge(attributes)) = info {
                for attribute in attributes {
                    if let InfoBridge::MulticastSnooping(on) = attribute {
                        bridge.snooping = *on;
                    }
                }
            }
        }
    }
    Ok(Some(bridge))
}

/// The kernel's `arp_ignore` of an interface, or of all.
fn arp_ignore(interface: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/net/ipv4/conf/{interface}/arp_ignore"))
}

/// The greater of both values counts. Each but 0 excludes other interfaces' addresses.
fn has_strict_arp(bridge: &str) -> Result<bool, HostError> {
    for interface in [bridge, "all"] {
        let file = arp_ignore(interface);
        let text = match std::fs::read_to_string(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            text => text.map_err(HostError::io(format!("cannot read {}", file.display())))?,
        };
        if text.trim() != "0" {
            return Ok(true);
        }
    }
    Ok(false)
}

fn set_strict_arp(bridge: &str, on: bool) -> Result<(), HostError> {
    let value = if on { "1" } else { "0" };
    std::fs::write(arp_ignore(bridge), value)
        .map_err(HostError::io(format!("cannot set ARP of bridge {bridge}")))
}
