//! Network namespaces and links: named as `ip netns` names them, changed and read through rtnetlink.
//!
//! A netlink socket belongs to the namespace of the thread that opens it, so each piece of work runs
//! on a thread of its own that enters the namespace first and ends with it.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoPortData, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkMessage, LinkVfInfo, VfInfo,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourState};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth};
use tenant_config::{MacAddr, PciAddress};

use crate::host::HostError;
use crate::resource::{Bridge, BridgePort, End, Pair, VfInterface};

const DIRECTORY: &str = "/run/netns";
const NSFS_MAGIC: nix::sys::statfs::FsType = nix::sys::statfs::FsType(0x6e73_6673);

/// The file of a named namespace.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Whether the namespace is there, and not only the file of one that was.
pub(crate) fn exists(name: &str) -> bool {
    nix::sys::statfs::statfs(&path(name)).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC)
}

/// Makes a named namespace with its loopback down. A file without a namespace is put to use.
pub(crate) fn create(name: &str) -> Result<(), HostError> {
    share_directory()?;
    let path = path(name);
    let what = format!("cannot make network namespace {name}");
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o444)
        .open(&path)
        .map_err(HostError::io(&what))?;
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(HostError::sys(&what))?;
        mount(
            Some("/proc/thread-self/ns/net"),
            &path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(HostError::sys(&what))
    })
}

/// As iproute2 does it: the directory is a shared mount, so that namespaces made in one mount
/// namespace are seen in the others.
fn share_directory() -> Result<(), HostError> {
    let what = format!("cannot share {DIRECTORY}");
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(DIRECTORY)
        .map_err(HostError::io(&what))?;
    let share = || {
        mount(
            None::<&str>,
            DIRECTORY,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    if share().is_ok() {
        return Ok(());
    }
    mount(
        Some(DIRECTORY),
        DIRECTORY,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .and_then(|()| share())
    .map_err(HostError::sys(&what))
}

/// Removes a named namespace and its file.
pub(crate) fn delete(name: &str) -> Result<(), HostError> {
    let path = path(name);
    let what = format!("cannot remove network namespace {name}");
    match umount2(&path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(errno) => return Err(HostError::sys(what)(errno)),
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(HostError::io(what)(error))
        }
        _ => Ok(()),
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T, HostError> + Send) -> Result<T, HostError> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Runs `work` in a namespace: the named one, or the provisioner's own.
pub(crate) fn inside<T: Send>(
    namespace: Option<&str>,
    work: impl FnOnce() -> Result<T, HostError> + Send,
) -> Result<T, HostError> {
    let Some(name) = namespace else {
        return on_thread(work);
    };
    let what = format!("cannot enter network namespace {name}");
    let file = File::open(path(name)).map_err(HostError::io(&what))?;
    on_thread(move || {
        setns(file, CloneFlags::CLONE_NEWNET).map_err(HostError::sys(what))?;
        work()
    })
}

pub(super) fn with_netlink<T: Send>(
    namespace: Option<&str>,
    work: impl AsyncFnOnce(Handle) -> Result<T, HostError> + Send,
) -> Result<T, HostError> {
    inside(namespace, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(HostError::io("cannot start the netlink client"))?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()
                .map_err(HostError::io("cannot open a netlink socket"))?;
            tokio::spawn(connection);
            work(handle).await
        })
    })
}

pub(super) fn refused(what: String) -> impl FnOnce(rtnetlink::Error) -> HostError {
    |source| HostError::Netlink { what, source }
}

/// `None` for the errors that say "there is no such link".
pub(super) fn unless_missing<T>(
    result: Result<T, rtnetlink::Error>,
) -> Result<Option<T>, rtnetlink::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(rtnetlink::Error::NetlinkError(message))
            if message.raw_code() == -(nix::Error::ENODEV as i32) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

pub(super) async fn find(
    handle: &Handle,
    interface: &str,
) -> Result<Option<LinkMessage>, HostError> {
    let request = handle.link().get().match_name(interface.to_owned());
    let link = unless_missing(request.execute().try_next().await)
        .map_err(refused(format!("cannot read interface {interface}")))?;
    Ok(link.flatten())
}

pub(super) async fn index_of(handle: &Handle, interface: &str) -> Result<u32, HostError> {
    match find(handle, interface).await? {
        Some(link) => Ok(link.header.index),
        None => Err(HostError::Io {
            what: format!("cannot find interface {interface}"),
            source: nix::Error::ENODEV.into(),
        }),
    }
}

/// Deletes an interface, and with it the other end of its pair. None there is no error.
pub(crate) fn delete_link(namespace: Option<&str>, interface: &str) -> Result<(), HostError> {
    if namespace.is_some_and(|name| !exists(name)) {
        return Ok(());
    }
    with_netlink(namespace, async |handle| {
        let Some(link) = find(&handle, interface).await? else {
            return Ok(());
        };
        unless_missing(handle.link().del(link.header.index).execute().await)
            .map_err(refused(format!("cannot delete interface {interface}")))?;
        Ok(())
    })
}

/// Makes a pair, both ends in place from the start. What a crash left of it is replaced.
pub(crate) fn create_pair(pair: &Pair) -> Result<(), HostError> {
    let switch = pair.switch.namespace.as_deref();
    delete_link(switch, &pair.switch.interface)?;
    let own;
    let peer_namespace = match &pair.peer.namespace {
        Some(name) => path(name),
        None => {
            own = format!("/proc/{}/ns/net", std::process::id());
            PathBuf::from(&own)
        }
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

/// Sets everything of both ends.
pub(crate) fn configure_pair(pair: &Pair) -> Result<(), HostError> {
    configure(&pair.switch)?;
    configure(&pair.peer)
}

fn place(end: &End) -> String {
    match &end.namespace {
        Some(namespace) => format!("{namespace}/{}", end.interface),
        None => end.interface.clone(),
    }
}

pub(super) fn configure(end: &End) -> Result<(), HostError> {
    let what = || format!("cannot set interface {}", place(end));
    let namespace = end.namespace.as_deref();
    // Before the interface is up, so that the kernel never sends a frame of its own.
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
        let link = if end.up { link.up() } else { link.down() };
        let request = handle.link().change(link.build());
        request.execute().await.map_err(refused(what()))
    })
}

/// Both ends as they are; `None` unless both are there and belong together.
pub(crate) fn observe_pair(wanted: &Pair) -> Result<Option<Pair>, HostError> {
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

pub(super) struct ObservedEnd {
    pub(super) end: End,
    index: u32,
    peer: u32,
}

pub(super) fn observe(wanted: &End) -> Result<Option<ObservedEnd>, HostError> {
    let namespace = wanted.namespace.as_deref();
    if namespace.is_some_and(|name| !exists(name)) {
        return Ok(None);
    }
    let seen = with_netlink(namespace, async |handle| {
        let Some(link) = find(&handle, &wanted.interface).await? else {
            return Ok(None);
        };
        let index = link.header.index;
        let mut peer = 0;
        let mut end = End {
            namespace: wanted.namespace.clone(),
            interface: wanted.interface.clone(),
            mac: None,
            mtu: 0,
            up: link.header.flags.contains(LinkFlags::Up),
            arp: !link.header.flags.contains(LinkFlags::Noarp),
            ipv6: false,
            offloads: false,
            alias: String::new(),
            bridge: None,
        };
        let mut controller = None;
        let mut port = Vec::new();
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::Address(octets) if wanted.mac.is_some() => {
                    end.mac = mac_of(&octets);
                }
                LinkAttribute::Mtu(mtu) => end.mtu = mtu,
                LinkAttribute::IfAlias(alias) => end.alias = alias,
                LinkAttribute::Link(index) => peer = index,
                LinkAttribute::Controller(index) => controller = Some(index),
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
        if let Some(controller) = controller {
            end.bridge = Some(observe_port(&handle, wanted, index, controller, &port).await?);
        }
        Ok(Some(ObservedEnd { end, index, peer }))
    })?;
    let Some(mut seen) = seen else {
        return Ok(None);
    };
    seen.end.ipv6 = ipv6(namespace, &wanted.interface)?;
    seen.end.offloads = offloads(namespace, &wanted.interface)?;
    Ok(Some(seen))
}

async fn observe_port(
    handle: &Handle,
    wanted: &End,
    index: u32,
    controller: u32,
    attributes: &[InfoBridgePort],
) -> Result<BridgePort, HostError> {
    let what = || format!("cannot read the bridge of {}", place(wanted));
    let request = handle.link().get().match_index(controller);
    let bridge = request.execute().try_next().await;
    let bridge = bridge.map_err(refused(what()))?;
    let name = bridge.and_then(|bridge| {
        bridge
            .attributes
            .into_iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })
    });
    let mut port = BridgePort {
        bridge: name.unwrap_or_default(),
        isolated: false,
        learning: true,
        flood: true,
        station: None,
    };
    for attribute in attributes {
        match attribute {
            InfoBridgePort::Isolated(on) => port.isolated = *on,
            InfoBridgePort::Learning(on) => port.learning = *on,
            InfoBridgePort::UnicastFlood(on) => port.flood = *on,
            _ => {}
        }
    }
    let wanted = wanted.bridge.as_ref().and_then(|port| port.station);
    let request = handle
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Bridge);
    let mut entries = request.execute();
    // All of them are read even if the first one is the right one: the socket is shared.
    while let Some(entry) = entries.try_next().await.map_err(refused(what()))? {
        if entry.header.ifindex != index || !is_permanent(entry.header.state) {
            continue;
        }
        for attribute in entry.attributes {
            if let NeighbourAttribute::LinkLayerAddress(octets) = attribute
                && mac_of(&octets) == wanted
            {
                port.station = wanted;
            }
        }
    }
    Ok(port)
}

fn is_permanent(state: NeighbourState) -> bool {
    matches!(state, NeighbourState::Noarp | NeighbourState::Permanent)
}

pub(super) fn mac_of(octets: &[u8]) -> Option<MacAddr> {
    MacAddr::new(octets.try_into().ok()?).ok()
}

/// Makes a bridge.
pub(crate) fn create_bridge(bridge: &Bridge) -> Result<(), HostError> {
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
    configure_bridge(bridge)
}

/// Sets everything of a bridge.
pub(crate) fn configure_bridge(bridge: &Bridge) -> Result<(), HostError> {
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

/// A bridge as it is. An interface of another kind under its name reads as a bridge that snoops.
pub(crate) fn observe_bridge(wanted: &Bridge) -> Result<Option<Bridge>, HostError> {
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

fn ipv6_switch(interface: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"))
}

/// A kernel without IPv6 has it off everywhere.
fn ipv6(namespace: Option<&str>, interface: &str) -> Result<bool, HostError> {
    inside(namespace, || {
        match std::fs::read_to_string(ipv6_switch(interface)) {
            Ok(text) => Ok(text.trim() == "0"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(HostError::io(format!("cannot read IPv6 of {interface}"))(
                error,
            )),
        }
    })
}

fn set_ipv6(namespace: Option<&str>, interface: &str, on: bool) -> Result<(), HostError> {
    inside(namespace, || {
        let what = format!("cannot switch IPv6 of {interface}");
        match std::fs::write(ipv6_switch(interface), if on { "0" } else { "1" }) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(HostError::io(what)(error))
            }
            _ => Ok(()),
        }
    })
}

/// The offloads that would show a switch frames that no wire carries, as `ethtool` sets and as it
/// reports them.
const OFFLOADS: [(&str, &str); 5] = [
    ("tx", "tx-checksumming"),
    ("sg", "scatter-gather"),
    ("tso", "tcp-segmentation-offload"),
    ("gso", "generic-segmentation-offload"),
    ("gro", "generic-receive-offload"),
];

fn ethtool(namespace: Option<&str>, arguments: &[&str]) -> Result<Vec<u8>, HostError> {
    let failed = |message| HostError::Program {
        program: "ethtool",
        message,
    };
    inside(namespace, || {
        let output = Command::new("ethtool")
            .args(arguments)
            .output()
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(
                String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            ));
        }
        Ok(output.stdout)
    })
}

fn offloads(namespace: Option<&str>, interface: &str) -> Result<bool, HostError> {
    let text = ethtool(namespace, &["--json", "-k", interface])?;
    let report: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| HostError::Program {
            program: "ethtool",
            message: error.to_string(),
        })?;
    Ok(OFFLOADS
        .iter()
        .any(|(_, name)| report[0][name]["active"] != serde_json::Value::Bool(false)))
}

fn set_offloads(namespace: Option<&str>, interface: &str, on: bool) -> Result<(), HostError> {
    if offloads(namespace, interface)? == on {
        return Ok(());
    }
    let mut arguments = vec!["-K", interface];
    for (name, _) in OFFLOADS {
        arguments.extend([name, if on { "on" } else { "off" }]);
    }
    ethtool(namespace, &arguments).map(drop)
}

// Physical and virtual functions of an SR-IOV NIC.

const VF_MASK: [LinkExtentMask; 2] = [LinkExtentMask::Vf, LinkExtentMask::SkipStats];

/// Every interface of the provisioner's own namespace, with the settings of its virtual functions.
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

/// `interface`, with the settings of its virtual functions, if it is there.
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

/// Sets one thing of one virtual function.
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

/// Whether an interface is up; `None` if it is not there.
pub(super) fn is_up(interface: &str) -> Result<Option<bool>, HostError> {
    with_netlink(None, async |handle| {
        let link = find(&handle, interface).await?;
        Ok(link.map(|link| link.header.flags.contains(LinkFlags::Up)))
    })
}

/// Takes an interface up or down.
pub(super) fn set_up(interface: &str, up: bool) -> Result<(), HostError> {
    with_netlink(None, async |handle| {
        let link = LinkUnspec::new_with_index(index_of(&handle, interface).await?);
        let link = if up { link.up() } else { link.down() };
        let request = handle.link().change(link.build());
        request
            .execute()
            .await
            .map_err(refused(format!("cannot set interface {interface}")))
    })
}

/// Moves a fresh interface to its namespace and gives it its name there.
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

/// Sets the interface of a virtual function in its namespace.
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

/// The interface of the virtual function at `device`, as it is; `None` if it is not there, or another's.
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
