//! The bridge on which the In/Out sides meet the wire.

use netlink_packet_route::link::{InfoBridge, InfoData, LinkAttribute, LinkFlags, LinkInfo};
use rtnetlink::LinkBridge;
use serde::{Deserialize, Serialize};

use super::link::{ipv6, set_ipv6};
use super::netlink::{delete_link, find, index_of, refused, with_netlink};
use super::netns::has_interface;
use crate::error::HostError;
use crate::key::Key;
use crate::object::{Context, Live, Object};

/// A Linux bridge in the provisioner's own network namespace: up, no address, no STP, no snooping.
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
        observe(self)
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

/// Reads a bridge. An interface of another kind with its name reads as a bridge with snooping.
fn observe(wanted: &Bridge) -> Result<Option<Bridge>, HostError> {
    let link = with_netlink(None, async |handle| find(&handle, &wanted.interface).await)?;
    let Some(link) = link else {
        return Ok(None);
    };
    let mut bridge = Bridge {
        interface: wanted.interface.clone(),
        up: link.header.flags.contains(LinkFlags::Up),
        snooping: true,
        ipv6: ipv6(None, &wanted.interface)?,
    };
    for attribute in link.attributes {
        let LinkAttribute::LinkInfo(infos) = attribute else {
            continue;
        };
        for info in infos {
            if let LinkInfo::Data(InfoData::Bridge(attributes)) = info {
                for attribute in attributes {
                    if let InfoBridge::MulticastSnooping(on) = attribute {
                        bridge.snooping = on;
                    }
                }
            }
        }
    }
    Ok(Some(bridge))
}
