//! Reads the SR-IOV NICs of this host from sysfs and rtnetlink.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkMessage, LinkVfInfo, VfInfo, VfLinkState, VfVlan,
};
use tenant_config::{MacAddr, PciAddress, VlanId};

use super::device::{device, entries, last, link_name, number};
use super::function::{PfSettings, Vf, VfSettings};
use super::inventory::{Interface, Inventory, PhysicalFunction, User, VirtualFunction};
use super::{netlink, process};
use crate::error::HostError;
use crate::nic::parts::netlink::mac_of;

/// Whether the function at this address is still the VF of this number and PF.
pub(super) fn is_at(vf: &Vf) -> bool {
    let path = device(vf.address);
    let is = |link: &Path, address: PciAddress| {
        link_name(link).is_some_and(|name| name == address.to_string())
    };
    let number = path.join(format!("physfn/virtfn{}", vf.index));
    is(&path.join("physfn"), vf.pf) && is(&number, vf.address)
}

/// Reads everything.
pub fn read() -> Result<Inventory, HostError> {
    let links = netlink::links_with_vfs()?;
    let addressed = netlink::addressed_interfaces()?;
    let mut inventory = parse(Path::new("/sys"), &links, &addressed);
    let groups: BTreeMap<u64, u32> = inventory
        .pfs
        .iter()
        .flat_map(|pf| &pf.vfs)
        .filter(|vf| matches!(vf.user, User::Program { .. }))
        .filter_map(|vf| {
            let group = vf.group?;
            let node = fs::metadata(format!("/dev/vfio/{group}")).ok()?;
            Some((node.rdev(), group))
        })
        .collect();
    let mut open = processes_with(&groups);
    for vf in inventory.pfs.iter_mut().flat_map(|pf| &mut pf.vfs) {
        if let User::Program { processes, who } = &mut vf.user {
            *processes = vf
                .group
                .and_then(|group| open.remove(&group))
                .unwrap_or_default();
            let about = |process: &i32| Some((*process, process::about(*process)?));
            *who = processes.iter().filter_map(about).collect();
        }
    }
    Ok(inventory)
}

/// The processes that have the function at `path` open: through VFIO, or as an RDMA device.
pub(super) fn open_in(path: &Path) -> BTreeSet<i32> {
    let nodes = |folder: &str, within: &'static str| {
        let all = entries(&path.join(folder)).into_iter();
        all.filter_map(move |it| Some(Path::new(within).join(it.file_name()?)))
    };
    // Through its group, or directly through iommufd.
    let group = group(path).map(|group| PathBuf::from(format!("/dev/vfio/{group}")));
    let nodes = nodes("vfio-dev", "/dev/vfio/devices")
        .chain(nodes("infiniband_verbs", "/dev/infiniband"))
        .chain(group);
    let numbers = nodes.filter_map(|node| Some((fs::metadata(node).ok()?.rdev(), 0)));
    let mut found = processes_with(&numbers.collect());
    found.remove(&0).unwrap_or_default()
}

/// The processes that have the device nodes of these groups open. A test by opening a node would
/// lock out a switch that starts at this moment.
fn processes_with(groups: &BTreeMap<u64, u32>) -> BTreeMap<u32, BTreeSet<i32>> {
    let mut found: BTreeMap<u32, BTreeSet<i32>> = BTreeMap::new();
    if groups.is_empty() {
        return found;
    }
    for process in entries(Path::new("/proc")) {
        let number = process.file_name().and_then(|name| name.to_str());
        let Some(number) = number.and_then(|name| name.parse().ok()) else {
            continue;
        };
        for file in entries(&process.join("fd")) {
            if let Some(group) = fs::metadata(&file)
                .ok()
                .and_then(|node| groups.get(&node.rdev()))
            {
                found.entry(*group).or_default().insert(number);
            }
        }
    }
    found
}

/// Builds the inventory from sysfs, the interfaces, and the indices of those that have an address.
pub fn parse(sys: &Path, links: &[LinkMessage], addressed: &BTreeSet<u32>) -> Inventory {
    let mut inventory = Inventory::default();
    let mut of_function: BTreeMap<PciAddress, &LinkMessage> = BTreeMap::new();
    for link in links {
        let seen = Link::of(link);
        // A PF whose NIC switches in hardware also has interfaces that represent its VFs.
        if let (Some(device), false) = (seen.device, seen.represents) {
            of_function.entry(device).or_insert(link);
        }
        if let (Some(name), Some(mac)) = (seen.name, seen.mac) {
            inventory.interfaces.push(Interface {
                name,
                mac,
                device: seen.device,
            });
        }
    }
    let name = |it: &Interface| it.name.clone();
    inventory.interfaces.sort_by_key(name);
    let mut functions = entries(&sys.join("bus/pci/devices"));
    functions.sort();
    for path in functions {
        let (Some(address), Some(total_vfs)) = (
            last(&path).and_then(|name| name.parse().ok()),
            number(&path.join("sriov_totalvfs")),
        ) else {
            continue;
        };
        let link = of_function.get(&address).copied();
        let settings = link.map(vf_settings_of).unwrap_or_default();
        let vfs = number_of_vfs(&path);
        inventory.pfs.push(PhysicalFunction {
            address,
            interface: link.and_then(|link| Link::of(link).name),
            driver: link_name(&path.join("driver")),
            total_vfs,
            set: PfSettings {
                autoprobe: number(&path.join("sriov_drivers_autoprobe")) != Some(0),
                vfs,
                up: link.is_some_and(is_up),
                mtu: link.and_then(mtu),
            },
            offset: number(&path.join("sriov_offset")).unwrap_or(0) as u16,
            stride: number(&path.join("sriov_stride")).unwrap_or(0) as u16,
            iommu: path.join("iommu_group").exists(),
            // While some are being removed, those that are left need not be the first.
            vfs: (0..total_vfs)
                .filter_map(|index| {
                    let path = path.join(format!("virtfn{index}"));
                    let address = link_name(&path)?.parse().ok()?;
                    let link = of_function.get(&address).copied();
                    let set = settings.get(&index).cloned().unwrap_or_default();
                    Some(function(index, address, &path, link, set, addressed))
                })
                .collect(),
        });
    }
    inventory
}

fn function(
    index: u32,
    address: PciAddress,
    path: &Path,
    link: Option<&LinkMessage>,
    set: VfSettings,
    addressed: &BTreeSet<u32>,
) -> VirtualFunction {
    let driver = link_name(&path.join("driver"));
    let user = match (&driver, link) {
        (None, _) => User::Nobody,
        (_, Some(link)) => {
            let seen = Link::of(link);
            User::Interface {
                name: seen.name.unwrap_or_default(),
                mac: seen.mac,
                busy: is_up(link) || seen.enslaved || addressed.contains(&link.header.index),
            }
        }
        (Some(driver), None) if driver.starts_with("vfio") || driver.starts_with("uio") => {
            User::Program {
                processes: BTreeSet::new(),
                who: BTreeMap::new(),
            }
        }
        (Some(_), None) => User::Elsewhere,
    };
    VirtualFunction {
        index,
        address,
        group: group(path),
        group_others: group_others(path),
        driver,
        set,
        user,
    }
}

/// The IOMMU group of the function at `path`.
pub(super) fn group(path: &Path) -> Option<u32> {
    link_name(&path.join("iommu_group"))?.parse().ok()
}

/// The other devices in the group of the function at `path`.
pub(super) fn group_others(path: &Path) -> Vec<String> {
    let own = fs::canonicalize(path).ok();
    let own = own.as_deref().and_then(last);
    let members = entries(&path.join("iommu_group/devices"));
    let mut others: Vec<String> = members
        .iter()
        .filter_map(|member| last(member))
        .filter(|member| Some(*member) != own)
        .map(str::to_owned)
        .collect();
    others.sort();
    others
}

/// How many VFs the PF at `path` has, by the links to them. To read `sriov_numvfs` takes the lock
/// of the device, which a removal of VFs holds until their users have closed them: it would wait
/// for them, and cannot be interrupted.
pub(super) fn number_of_vfs(path: &Path) -> u32 {
    let is_vf = |path: &PathBuf| last(path).is_some_and(|name| name.starts_with("virtfn"));
    entries(path).iter().filter(|path| is_vf(path)).count() as u32
}

fn mtu(link: &LinkMessage) -> Option<u32> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
}

fn is_up(link: &LinkMessage) -> bool {
    link.header.flags.contains(LinkFlags::Up)
}

/// The attributes that are read of an interface.
struct Link {
    name: Option<String>,
    mac: Option<MacAddr>,
    device: Option<PciAddress>,
    enslaved: bool,
    represents: bool,
}

impl Link {
    fn of(link: &LinkMessage) -> Self {
        let mut seen = Self {
            name: None,
            mac: None,
            device: None,
            enslaved: false,
            represents: false,
        };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => seen.name = Some(name.clone()),
                LinkAttribute::Address(octets) => seen.mac = mac_of(octets),
                LinkAttribute::ParentDevName(name) => seen.device = name.parse().ok(),
                LinkAttribute::Controller(_) => seen.enslaved = true,
                LinkAttribute::PhysPortName(port) => seen.represents = port.contains("vf"),
                _ => {}
            }
        }
        seen
    }
}

/// The settings of the VFs of a PF's interface, by number; empty if the interface does not exist.
pub(super) fn vf_settings(interface: &str) -> Result<BTreeMap<u32, VfSettings>, HostError> {
    let link = netlink::link_with_vfs(interface)?;
    Ok(link.as_ref().map(vf_settings_of).unwrap_or_default())
}

fn vf_settings_of(link: &LinkMessage) -> BTreeMap<u32, VfSettings> {
    let mut all = BTreeMap::new();
    for attribute in &link.attributes {
        if let LinkAttribute::VfInfoList(list) = attribute {
            all.extend(list.iter().filter_map(|LinkVfInfo(info)| settings(info)));
        }
    }
    all
}

fn settings(info: &[VfInfo]) -> Option<(u32, VfSettings)> {
    let mut set = VfSettings::default();
    let mut index = None;
    for item in info {
        match item {
            VfInfo::Mac(it) => {
                index = Some(it.vf_id);
                set.mac = it
                    .mac
                    .first_chunk::<6>()
                    .and_then(|octets| MacAddr::new(*octets).ok());
            }
            VfInfo::Vlan(it) => {
                set.vlan = u16::try_from(it.vlan_id)
                    .ok()
                    .and_then(|id| VlanId::new(id).ok());
                set.qos = it.qos;
            }
            VfInfo::VlanList(list) => {
                for vlan in list {
                    if let VfVlan::Info(it) = vlan {
                        set.vlan_protocol = it.protocol.to_string();
                    }
                }
            }
            VfInfo::Rate(it) => {
                set.min_rate_mbit = it.min_tx_rate;
                set.max_rate_mbit = it.max_tx_rate;
            }
            VfInfo::SpoofCheck(it) => set.spoof_check = it.enabled,
            VfInfo::Trust(it) => set.trust = it.enabled,
            VfInfo::LinkState(it) => {
                set.link_state = match it.state {
                    VfLinkState::Auto => "auto".to_owned(),
                    VfLinkState::Enable => "enable".to_owned(),
                    VfLinkState::Disable => "disable".to_owned(),
                    _ => "unknown".to_owned(),
                };
            }
            _ => {}
        }
    }
    Some((index?, set))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use netlink_packet_route::link::{
        VfInfoLinkState, VfInfoMac, VfInfoRate, VfInfoSpoofCheck, VfInfoTrust, VfInfoVlan,
        VfVlanInfo, VlanProtocol,
    };

    use super::*;

    /// A NIC with two VFs in sysfs: the first has an interface, the second shares its IOMMU group.
    fn sysfs() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sys = dir.path();
        let devices = sys.join("bus/pci/devices");
        let file = |path: &str, text: &str| {
            let path = devices.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
            fs::write(path, text).expect("it is written");
        };
        let link = |to: &str, path: &str| symlink(to, devices.join(path)).expect("it is made");
        for (name, text) in [
            ("totalvfs", "7\n"),
            ("offset", "128\n"),
            ("stride", "2\n"),
            ("drivers_autoprobe", "0\n"),
        ] {
            file(&format!("0000:01:00.0/sriov_{name}"), text);
        }
        for function in ["0000:01:10.0", "0000:01:10.2", "0000:00:1f.0"] {
            file(&format!("{function}/vendor"), "0x8086\n");
        }
        link("../../../../groups/1", "0000:01:00.0/iommu_group");
        link("../../drivers/igb", "0000:01:00.0/driver");
        link("../0000:01:10.0", "0000:01:00.0/virtfn0");
        link("../0000:01:10.2", "0000:01:00.0/virtfn1");
        link("../../drivers/igbvf", "0000:01:10.0/driver");
        for (group, members) in [
            (8, &["0000:01:10.0"][..]),
            (9, &["0000:01:10.2", "0000:00:1f.0"]),
        ] {
            let at = sys.join(format!("groups/{group}/devices"));
            fs::create_dir_all(&at).expect("it is made");
            for member in members {
                fs::write(at.join(member), "").expect("it is written");
            }
            let group = format!("../../../../groups/{group}");
            link(&group, &format!("{}/iommu_group", members[0]));
        }
        dir
    }

    fn link(index: u32, name: &str, device: Option<&str>, up: bool) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        if up {
            link.header.flags = LinkFlags::Up;
        }
        let mac = vec![0x52, 0x54, 0, 0, 0, index as u8];
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac),
        ];
        let device = device.map(|device| LinkAttribute::ParentDevName(device.to_owned()));
        link.attributes.extend(device);
        link
    }

    fn pf() -> LinkMessage {
        let mut pf = link(2, "pf0", Some("0000:01:00.0"), true);
        pf.attributes.push(LinkAttribute::Mtu(9000));
        let vlan = VfVlanInfo::new(1, 101, 0, VlanProtocol::Ieee8021Ad);
        pf.attributes.push(LinkAttribute::VfInfoList(vec![
            LinkVfInfo(vec![
                VfInfo::Mac(VfInfoMac::new(0, &[0x52, 0x54, 0, 0, 0, 3])),
                VfInfo::SpoofCheck(VfInfoSpoofCheck::new(0, true)),
            ]),
            LinkVfInfo(vec![
                VfInfo::Mac(VfInfoMac::new(1, &[0; 6])),
                VfInfo::Vlan(VfInfoVlan::new(1, 101, 5)),
                VfInfo::VlanList(vec![VfVlan::Info(vlan)]),
                VfInfo::Rate(VfInfoRate::new(1, 10, 100)),
                VfInfo::SpoofCheck(VfInfoSpoofCheck::new(1, false)),
                VfInfo::Trust(VfInfoTrust::new(1, true)),
                VfInfo::LinkState(VfInfoLinkState::new(1, VfLinkState::Disable)),
            ]),
        ]));
        pf
    }

    #[test]
    fn inventory_is_read_from_sysfs_and_rtnetlink() {
        let sys = sysfs();
        let mut representor = link(9, "pf0_0", Some("0000:01:00.0"), true);
        let port = LinkAttribute::PhysPortName("pf0vf0".to_owned());
        representor.attributes.push(port);
        let links = [
            representor,
            pf(),
            link(3, "vf0", Some("0000:01:10.0"), false),
            link(1, "eth0", None, true),
        ];
        let inventory = parse(sys.path(), &links, &BTreeSet::new());
        let names: Vec<&str> = inventory
            .interfaces
            .iter()
            .map(|it| it.name.as_str())
            .collect();
        assert_eq!(names, ["eth0", "pf0", "pf0_0", "vf0"]);
        let [pf] = &inventory.pfs[..] else {
            panic!("{inventory:?}");
        };
        assert_eq!(
            (pf.label(), pf.driver.as_deref(), pf.total_vfs),
            ("pf0".to_owned(), Some("igb"), 7)
        );
        assert_eq!(
            pf.set,
            PfSettings {
                autoprobe: false,
                vfs: 2,
                up: true,
                mtu: Some(9000),
            }
        );
        let [one, two] = &pf.vfs[..] else {
            panic!("{pf:?}");
        };
        assert_eq!(one.taken(), None, "its driver chose its MAC");
        assert_eq!((one.group, one.group_others.len()), (Some(8), 0));
        assert_eq!(
            two.set,
            VfSettings {
                mac: None,
                vlan: VlanId::new(101).ok(),
                qos: 5,
                vlan_protocol: "802.1ad".to_owned(),
                spoof_check: false,
                trust: true,
                link_state: "disable".to_owned(),
                min_rate_mbit: 10,
                max_rate_mbit: 100,
            }
        );
        assert_eq!(two.group_others, ["0000:00:1f.0"]);
        assert!(two.taken().is_some());
        // The JSON can be read back.
        let json = serde_json::to_string(&inventory).expect("it is data");
        assert_eq!(
            serde_json::from_str::<Inventory>(&json).expect("it reads"),
            inventory
        );
    }

    #[test]
    fn user_of_a_function_is_reported() {
        let sys = sysfs();
        let used = |links: &[LinkMessage], addressed: &[u32]| {
            let inventory = parse(sys.path(), links, &addressed.iter().copied().collect());
            inventory.pfs[0].vfs[0].taken()
        };
        let vf = |up| link(3, "vf0", Some("0000:01:10.0"), up);
        assert_eq!(
            used(&[pf(), vf(true)], &[]),
            Some("interface vf0 is in use".to_owned())
        );
        assert_eq!(
            used(&[pf(), vf(false)], &[3]),
            Some("interface vf0 is in use".to_owned())
        );
        let mut enslaved = vf(false);
        enslaved.attributes.push(LinkAttribute::Controller(7));
        assert_eq!(
            used(&[pf(), enslaved], &[]),
            Some("interface vf0 is in use".to_owned())
        );
        assert_eq!(
            used(&[pf()], &[]),
            Some("igbvf has it in another namespace".to_owned())
        );
    }
}
