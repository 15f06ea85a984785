//! Taps: the ends of a virtual machine's NICs in the kernel, each wired to the interface that a
//! switch on the host would open itself.
//!
//! The wire is a redirection at the ingress of both interfaces: every frame received on one is sent
//! on the other, before any protocol, bridge or reassembly of the kernel sees it.
//! docs/decisions/0006 explains why it is no bridge and no macvtap.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

use futures_util::TryStreamExt;
use netlink_packet_route::link::{InfoData, LinkAttribute, LinkInfo};
use netlink_packet_route::tc::{
    TcActionAttribute, TcActionMirrorOption, TcActionOption, TcAttribute, TcFilterU32Option,
    TcHandle, TcMirrorActionType, TcOption,
};
use rtnetlink::packet_core::Nla;
use rtnetlink::{Handle, LinkUnspec};

use serde::{Deserialize, Serialize};

use crate::child;
use crate::error::HostError;
use crate::key::Key;
use crate::nic::parts::link::{End, configure, observe};
use crate::nic::parts::netlink::{delete_link, find, index_of, refused, with_netlink};
use crate::nic::parts::netns::{exists, has_interface, inside, path};
use crate::object::{Context, Live, Object};

/// `ETH_P_ALL` of linux/if_ether.h.
const EVERY_PROTOCOL: u16 = 3;
/// `IFLA_TUN_OWNER` and `IFLA_TUN_TYPE` of linux/if_link.h, and the type of a tap.
const TUN_OWNER: u16 = 1;
const TUN_TYPE: u16 = 3;
const IFF_TAP: u8 = 2;

/// A tap for a tenant's VM, and the wire from it to an interface beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tap {
    /// The interface.
    pub end: End,
    /// The only user who may attach to it.
    pub owner: u32,
    /// The interface in the same namespace with which it exchanges all frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<String>,
    /// The objects that it depends on: if one of them is recreated, so is the tap.
    pub needs: BTreeSet<Key>,
}

impl Object for Tap {
    fn key(&self) -> Key {
        Key::Tap {
            namespace: self.end.namespace.clone().unwrap_or_default(),
            interface: self.end.interface.clone(),
        }
    }

    fn needs(&self) -> Option<&BTreeSet<Key>> {
        Some(&self.needs)
    }
}

impl Live for Tap {
    fn observe(&self, _: &Context) -> Result<Option<Self>, HostError> {
        look(self)
    }

    fn exists(&self, _: &Context) -> Result<bool, HostError> {
        has_interface(self.end.namespace.as_deref(), &self.end.interface)
    }

    fn create(&self, _: &Context) -> Result<(), HostError> {
        create(self)
    }

    fn update(&self, _: &Context) -> Result<(), HostError> {
        set(self)
    }

    fn delete(&self, _: &Context) -> Result<(), HostError> {
        delete(self)
    }
}

/// Makes a persistent tap and its wire.
fn create(tap: &Tap) -> Result<(), HostError> {
    delete(tap)?;
    let owner = tap.owner.to_string();
    let failed = |message| HostError::Program {
        program: "ip",
        message,
    };
    // The kernel makes no tap through netlink, and the ioctl for it needs unsafe code.
    inside(tap.end.namespace.as_deref(), || {
        let program = &mut Command::new("ip");
        let program = program.args(["tuntap", "add", "dev", &tap.end.interface, "mode", "tap"]);
        let output = child::output(program.args(["user", &owner]), &[])
            .map_err(|error| failed(format!("{error}: install the package iproute2")))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            return Err(failed(format!(
                "{}: taps need /dev/net/tun and a kernel with CONFIG_TUN",
                message.trim()
            )));
        }
        Ok(())
    })?;
    set(tap)
}

/// Moves a tap from its namespace to the provisioner's own, where libvirt opens it. Returns the tap
/// as it was.
pub(super) fn lend(namespace: &str, interface: &str, wire: &str) -> Result<Tap, HostError> {
    // A tap that a crash left there has no user.
    delete_link(None, interface)?;
    let place = Tap {
        end: End {
            namespace: Some(namespace.to_owned()),
            interface: interface.to_owned(),
            mac: None,
            mtu: 0,
            up: Some(true),
            arp: false,
            ipv6: false,
            offloads: false,
            alias: String::new(),
            bridge: None,
        },
        owner: 0,
        wire: Some(wire.to_owned()),
        needs: BTreeSet::new(),
    };
    let tap = look(&place)?.ok_or_else(|| HostError::Io {
        what: format!("cannot find tap {namespace}/{interface}"),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    let own = format!("/proc/{}/ns/net", std::process::id());
    relocate(Some(namespace), interface, &own)?;
    // It must be up and wired, whatever its current state.
    Ok(Tap {
        end: End {
            mtu: tap.end.mtu,
            alias: tap.end.alias,
            ..place.end.clone()
        },
        ..place
    })
}

/// Returns a tap to its namespace and restores its settings.
pub(super) fn return_tap(tap: &Tap) -> Result<(), HostError> {
    let namespace = tap.end.namespace.as_deref().unwrap_or_default();
    let to = path(namespace).display().to_string();
    relocate(None, &tap.end.interface, &to)?;
    set(tap)
}

fn relocate(from: Option<&str>, interface: &str, to: &str) -> Result<(), HostError> {
    let what = format!("cannot move tap {interface} to another namespace");
    let to = File::open(to).map_err(HostError::io(&what))?;
    with_netlink(from, async |handle| {
        let index = index_of(&handle, interface).await?;
        let link = LinkUnspec::new_with_index(index).setns_by_fd(to.as_raw_fd());
        let request = handle.link().change(link.build());
        request.execute().await.map_err(refused(what))
    })
}

/// Sets all attributes of a tap and its wire.
fn set(tap: &Tap) -> Result<(), HostError> {
    configure(&tap.end)?;
    let Some(wire) = &tap.wire else {
        return Ok(());
    };
    with_netlink(tap.end.namespace.as_deref(), async |handle| {
        let one = index_of(&handle, &tap.end.interface).await?;
        let other = index_of(&handle, wire).await?;
        redirect(&handle, one, other).await?;
        redirect(&handle, other, one).await
    })
}

async fn redirect(handle: &Handle, from: u32, to: u32) -> Result<(), HostError> {
    let what = || {
        "cannot wire a tap to its port: the kernel needs CONFIG_NET_SCH_INGRESS, \
         CONFIG_NET_CLS_U32 and CONFIG_NET_ACT_MIRRED"
            .to_owned()
    };
    // Removes existing redirections.
    unwire(handle, from).await;
    let request = handle.qdisc().add(from as i32).ingress();
    request.execute().await.map_err(refused(what()))?;
    let request = handle
        .traffic_filter(from as i32)
        .add()
        .parent(0xffff_0000)
        .priority(1)
        .protocol(EVERY_PROTOCOL.to_be())
        .redirect(to)
        .map_err(refused(what()))?;
    request.execute().await.map_err(refused(what()))
}

/// Removes the ingress qdisc of an interface, if it exists.
async fn unwire(handle: &Handle, at: u32) {
    let mut request = handle.qdisc().del(at as i32);
    request.message_mut().header.parent = TcHandle::INGRESS;
    let _ = request.execute().await;
}

/// The interface to which all received frames are redirected; `None` if not all are.
async fn redirected(handle: &Handle, from: u32) -> Option<u32> {
    let request = handle.traffic_filter(from as i32).get().ingress();
    let filters: Vec<_> = request.execute().try_collect().await.ok()?;
    let mut to = None;
    let options = filters.iter().flat_map(|filter| &filter.attributes);
    for option in options.filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    }) {
        for option in option {
            match option {
                TcOption::U32(TcFilterU32Option::Selector(selector))
                    if selector.keys.iter().any(|key| key.mask != 0) =>
                {
                    return None;
                }
                TcOption::U32(TcFilterU32Option::Action(actions)) => {
                    let mirrors = actions
                        .iter()
                        .flat_map(|action| &action.attributes)
                        .filter_map(|attribute| match attribute {
                            TcActionAttribute::Options(options) => Some(options),
                            _ => None,
                        })
                        .flatten();
                    for mirror in mirrors {
                        if let TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror)) = mirror
                            && mirror.eaction == TcMirrorActionType::EgressRedir
                        {
                            to = Some(mirror.ifindex);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    to
}

/// Reads a tap; `None` if it does not exist. An interface of another kind with its name has no
/// owner.
fn look(wanted: &Tap) -> Result<Option<Tap>, HostError> {
    let Some(seen) = observe(&wanted.end)? else {
        return Ok(None);
    };
    let (owner, wired) = with_netlink(wanted.end.namespace.as_deref(), async |handle| {
        let Some(link) = find(&handle, &wanted.end.interface).await? else {
            return Ok((None, false));
        };
        let index = link.header.index;
        let owner = owner(&link.attributes);
        let Some(wire) = &wanted.wire else {
            return Ok((owner, false));
        };
        let Some(wire) = find(&handle, wire).await? else {
            return Ok((owner, false));
        };
        let wire = wire.header.index;
        let there = redirected(&handle, index).await == Some(wire);
        let back = redirected(&handle, wire).await == Some(index);
        Ok((owner, there && back))
    })?;
    Ok(Some(Tap {
        end: seen.end,
        owner: owner.unwrap_or(u32::MAX),
        wire: wanted.wire.clone().filter(|_| wired),
        needs: wanted.needs.clone(),
    }))
}

fn owner(attributes: &[LinkAttribute]) -> Option<u32> {
    let infos = attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    let fields = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Tun(fields)) => Some(fields),
        _ => None,
    })?;
    let value = |kind: u16| {
        let field = fields.iter().find(|field| field.kind() == kind)?;
        let mut bytes = vec![0; field.value_len()];
        field.emit_value(&mut bytes);
        Some(bytes)
    };
    if value(TUN_TYPE)? != [IFF_TAP] {
        return None;
    }
    let bytes: [u8; 4] = value(TUN_OWNER)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

/// Removes a tap and its wire.
fn delete(tap: &Tap) -> Result<(), HostError> {
    let namespace = tap.end.namespace.as_deref();
    if namespace.is_some_and(|name| !exists(name)) {
        return Ok(());
    }
    delete_link(namespace, &tap.end.interface)?;
    let Some(wire) = &tap.wire else {
        return Ok(());
    };
    with_netlink(namespace, async |handle| {
        if let Some(link) = find(&handle, wire).await? {
            unwire(&handle, link.header.index).await;
        }
        Ok(())
    })
}
