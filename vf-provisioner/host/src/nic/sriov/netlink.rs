//! PFs and VFs through rtnetlink.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage, LinkVfInfo, VfInfo,
};
use rtnetlink::LinkUnspec;
use tenant_config::PciAddress;

use super::function::VfInterface;
use crate::error::HostError;
use crate::nic::parts::netlink::{find, index_of, mac_of, refused, unless_missing, with_netlink};
use crate::nic::parts::netns::{exists, path};

const VF_MASK: [LinkExtentMask; 2] = [LinkExtentMask::Vf, LinkExtentMask::SkipStats];

/// All interfaces of the provisioner's own namespace, with the settings of their VFs.
pub(super) fn links_with_vfs() -> Result<Vec<LinkMessage>, HostError> {
    with_netlink(None, async |handle| {
        let request = handle
            .link()
            .get()
            .set_filter_mask(AddressFamily::Unspec, VF_MASK.to_vec());
        let links = request.execute().try_collect().await;
        links.map_err(refused("cannot list the interfaces".to_owned()))
    })
}

/// The indices of the interfaces of the provisioner's own namespace that have an IP address.
pub(super) fn addressed_interfaces() -> Result<BTreeSet<u32>, HostError> {
    with_netlink(None, async |handle| {
        let addresses: Result<Vec<_>, _> = handle.address().get().execute().try_collect().await;
        let addresses = addresses.map_err(refused("cannot list the addresses".to_owned()))?;
        Ok(addresses.iter().map(|it| it.header.index).collect())
    })
}

/// `interface` with the settings of its VFs, if it exists.
pub(super) fn link_with_vfs(interface: &str) -> Result<Option<LinkMessage>, HostError> {
    with_netlink(None, async |handle| {
        let request = handle
            .link()
            .get()
            .match_name(interface.to_owned())
            .set_filter_mask(AddressFamily::Unspec, VF_MASK.to_vec());
        let link = unless_missing(request.execute().try_next().await)
            .map_err(refused(format!("cannot read the VFs of {interface}")))?;
        Ok(link.flatten())
    })
}

/// Sets one attribute of one VF.
pub(super) fn set_vf(pf: &str, info: VfInfo) -> Result<(), HostError> {
    with_netlink(None, async |handle| {
        let link = LinkUnspec::new_with_index(index_of(&handle, pf).await?)
            .append_extra_attribute(LinkAttribute::VfInfoList(vec![LinkVfInfo(vec![info])]));
        let request = handle.link().change(link.build());
        request
            .execute()
            .await
            .map_err(refused(format!("cannot set a VF of {pf}")))
    })
}

/// Sets the MTU of an interface.
pub(super) fn set_mtu(interface: &str, mtu: u32) -> Result<(), HostError> {
    with_netlink(None, async |handle| {
        let link = LinkUnspec::new_with_index(index_of(&handle, interface).await?).mtu(mtu);
        let request = handle.link().change(link.build());
        request.execute().await.map_err(refused(format!(
            "cannot set the MTU of {interface} to {mtu}"
        )))
    })
}

/// Moves a new interface to its namespace and renames it.
pub(super) fn take_vf_interface(made: &str, wanted: &VfInterface) -> Result<(), HostError> {
    let what = format!(
        "cannot move interface {made} to {}/{}",
        wanted.namespace, wanted.name
    );
    let namespace = File::open(path(&wanted.namespace)).map_err(HostError::io(&what))?;
    with_netlink(None, async |handle| {
        let link = LinkUnspec::new_with_index(index_of(&handle, made).await?)
            .name(&wanted.name)
            .setns_by_fd(namespace.as_raw_fd());
        let request = handle.link().change(link.build());
        request.execute().await.map_err(refused(what))
    })
}

/// Sets the interface of a VF in its namespace.
pub(super) fn set_vf_interface(wanted: &VfInterface) -> Result<(), HostError> {
    with_netlink(Some(&wanted.namespace), async |handle| {
        let index = index_of(&handle, &wanted.name).await?;
        let link = LinkUnspec::new_with_index(index).mtu(wanted.mtu);
        let link = if wanted.up { link.up() } else { link.down() };
        let request = handle.link().change(link.build());
        request.execute().await.map_err(refused(format!(
            "cannot set interface {}/{}",
            wanted.namespace, wanted.name
        )))
    })
}

/// Reads the interface of the VF at `device`; `None` if it does not exist or is another function's.
pub(super) fn observe_vf_interface(
    device: PciAddress,
    wanted: &VfInterface,
) -> Result<Option<VfInterface>, HostError> {
    if !exists(&wanted.namespace) {
        return Ok(None);
    }
    with_netlink(Some(&wanted.namespace), async |handle| {
        let Some(link) = find(&handle, &wanted.name).await? else {
            return Ok(None);
        };
        let mut seen = VfInterface {
            namespace: wanted.namespace.clone(),
            name: wanted.name.clone(),
            mac: None,
            mtu: 0,
            up: link.header.flags.contains(LinkFlags::Up),
        };
        let mut parent = None;
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::Address(octets) => seen.mac = mac_of(&octets),
                LinkAttribute::Mtu(mtu) => seen.mtu = mtu,
                LinkAttribute::ParentDevName(name) => parent = Some(name),
                _ => {}
            }
        }
        Ok((parent == Some(device.to_string())).then_some(seen))
    })
}
