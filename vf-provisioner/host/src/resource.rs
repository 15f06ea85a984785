//! The objects of the host that the provisioner makes, each as plain data: what is wanted, what is
//! recorded and what is observed are values of the same type, so that comparing them is `==`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tenant_config::{Device, MacAddr, Name, NicAttribute, PciAddress, SwitchConfig, VlanId};

/// The devices of the host that carry one tenant's frames, on the switch's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// One for each port, in the order of the tenant's file.
    pub ports: Vec<Device>,
    /// The In/Out side's, if the tenant has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<Device>,
    /// The guests' sides, one for each port, where they are chosen too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guests: Vec<Device>,
}

/// Names one object. The order of the variants is the order in which objects are made; they are
/// deleted in the reverse order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Key {
    /// A named network namespace.
    Namespace {
        /// As `ip netns` shows it.
        name: String,
    },
    /// The bridge on which the In/Out sides meet the wire.
    Bridge {
        /// Its interface name.
        interface: String,
    },
    /// The nftables table of the bridge's port locks.
    Guard {
        /// Its name in the bridge family.
        table: String,
    },
    /// A veth pair, named by the end that the switch owns.
    Pair {
        /// The namespace of the switch's end.
        namespace: String,
        /// The interface of the switch's end.
        interface: String,
    },
    /// The lock of one bridge port.
    Lock {
        /// The guard's table.
        table: String,
        /// The bridge port.
        interface: String,
    },
    /// A NIC's physical function.
    Pf {
        /// Its address.
        address: PciAddress,
    },
    /// A NIC's virtual function.
    Vf {
        /// Its address.
        address: PciAddress,
    },
    /// A tap that stands for a function of the NIC in a tenant's VM.
    Tap {
        /// Its network namespace.
        namespace: String,
        /// Its interface name there.
        interface: String,
    },
    /// A tenant's own directory.
    Directory {
        /// Whose.
        tenant: Name,
    },
    /// A tenant's control group.
    Cgroup {
        /// Its path below the mount of each controller.
        path: String,
    },
    /// A tenant's running switch.
    Switch {
        /// Whose.
        tenant: Name,
    },
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace { name } => write!(out, "network namespace {name}"),
            Self::Bridge { interface } => write!(out, "bridge {interface}"),
            Self::Guard { table } => write!(out, "nftables table bridge {table}"),
            Self::Pair {
                namespace,
                interface,
            } => write!(out, "veth pair {namespace}/{interface}"),
            Self::Lock { interface, .. } => write!(out, "port lock of {interface}"),
            Self::Pf { address } => write!(out, "physical function {address}"),
            Self::Vf { address } => write!(out, "virtual function {address}"),
            Self::Tap {
                namespace,
                interface,
            } => write!(out, "tap {namespace}/{interface}"),
            Self::Directory { tenant } => write!(out, "directory of tenant {tenant}"),
            Self::Cgroup { path } => write!(out, "control group {path}"),
            Self::Switch { tenant } => write!(out, "switch of tenant {tenant}"),
        }
    }
}

/// One object with everything that is set on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Resource {
    /// See [`Key::Namespace`].
    Namespace(Namespace),
    /// See [`Key::Bridge`].
    Bridge(Bridge),
    /// See [`Key::Guard`].
    Guard(Guard),
    /// See [`Key::Pair`].
    Pair(Pair),
    /// See [`Key::Lock`].
    Lock(Lock),
    /// See [`Key::Pf`].
    Pf(Pf),
    /// See [`Key::Vf`].
    Vf(Box<Vf>),
    /// See [`Key::Tap`].
    Tap(Tap),
    /// See [`Key::Directory`].
    Directory(Directory),
    /// See [`Key::Cgroup`].
    Cgroup(Cgroup),
    /// See [`Key::Switch`].
    Switch(Switch),
}

/// Who handles a kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The NIC backend.
    Nic,
    /// The launcher.
    Launcher,
}

/// A named network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// As `ip netns` shows it.
    pub name: String,
    /// One that is already there is used and left alone: it stands in for a VM, which is not ours.
    pub adopt: bool,
}

/// A Linux bridge in the provisioner's own network namespace: up, no address, no STP, no snooping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Its interface name.
    pub interface: String,
    /// Administratively up.
    pub up: bool,
    /// Multicast snooping, which would lose Neighbour Discovery.
    pub snooping: bool,
    /// The kernel's own IPv6 on the bridge.
    pub ipv6: bool,
}

/// The nftables table that drops what comes from an In/Out port without a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Its name in the bridge family.
    pub table: String,
    /// The rules of its base chain, as `nft -j` writes them.
    pub rules: Vec<serde_json::Value>,
}

/// A veth pair between a switch and its peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The end that the switch owns.
    pub switch: End,
    /// The guest's end or the bridge's.
    pub peer: End,
}

/// One end of a veth pair, with everything that is set on it and read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The network namespace; the provisioner's own where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The interface's name there.
    pub interface: String,
    /// Its MAC address; whatever the kernel chose where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Whether the kernel resolves and answers ARP here.
    pub arp: bool,
    /// Whether the kernel speaks IPv6 here.
    pub ipv6: bool,
    /// Whether any of transmit checksum, TSO, GSO and GRO is on.
    pub offloads: bool,
    /// What people read in `ip link`.
    pub alias: String,
    /// Its place on a bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgePort>,
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
    /// The only station behind this port, as a permanent forwarding entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub station: Option<MacAddr>,
}

/// The nftables chain that holds one In/Out port to the tenant's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The guard's table.
    pub table: String,
    /// The bridge port.
    pub interface: String,
    /// The chain's rules, as `nft -j` writes them.
    pub rules: Vec<serde_json::Value>,
}

/// A physical function, as far as its virtual functions hang on it. It is shared by all tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pf {
    /// Its address.
    pub address: PciAddress,
    /// Its interface.
    pub interface: String,
    /// What is set on it.
    pub set: PfSettings,
    /// What was there before, and is put back with the last tenant.
    pub found: PfSettings,
}

/// What is set on a physical function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PfSettings {
    /// Whether the kernel binds a driver of its own to each virtual function that appears.
    pub autoprobe: bool,
    /// How many virtual functions there are.
    pub vfs: u32,
    /// Administratively up: most NICs switch between their functions only then.
    pub up: bool,
}

/// Which side of a tenant's traffic a virtual function carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The T VF: a port, on the VM's side.
    Guest,
    /// The Gw VF: a port, on the switch's side.
    Gateway,
    /// The In/Out VF: the underlay, on the switch's side.
    InOut,
}

/// Whose a virtual function is, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The tenant.
    pub tenant: Name,
    /// The port; none at the In/Out side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Name>,
    /// The side.
    pub side: Side,
}

impl fmt::Display for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.tenant)?;
        if let Some(port) = &self.port {
            write!(out, "/{port}")?;
        }
        out.write_str(match self.side {
            Side::Guest => " T",
            Side::Gateway => " Gw",
            Side::InOut => " In/Out",
        })
    }
}

/// How the NIC treats one virtual function, as its physical function is told and tells. The default is that of
/// a function that nobody has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct VfSettings {
    /// The MAC; none is all zero.
    pub mac: Option<MacAddr>,
    /// The VLAN that the NIC puts the function on.
    pub vlan: Option<VlanId>,
    /// The priority in the VLAN's tag.
    pub qos: u32,
    /// The tag's protocol, 802.1Q or 802.1ad.
    pub vlan_protocol: String,
    /// Frames with another source MAC are dropped.
    pub spoof_check: bool,
    /// The function may change its MAC and be promiscuous.
    pub trust: bool,
    /// `auto`, as the cable's, or `enable` or `disable`.
    pub link_state: String,
    /// The transmit rate it is sure of, in Mbit/s; 0 is none.
    pub min_rate_mbit: u32,
    /// The transmit rate it cannot exceed, in Mbit/s; 0 is none.
    pub max_rate_mbit: u32,
}

impl Default for VfSettings {
    fn default() -> Self {
        Self {
            mac: None,
            vlan: None,
            qos: 0,
            vlan_protocol: "802.1Q".to_owned(),
            spoof_check: true,
            trust: false,
            link_state: "auto".to_owned(),
            min_rate_mbit: 0,
            max_rate_mbit: 0,
        }
    }
}

impl VfSettings {
    /// Makes one setting as it is in `other`.
    pub fn take(&mut self, attribute: NicAttribute, other: &Self) {
        match attribute {
            NicAttribute::VlanProtocol => self.vlan_protocol.clone_from(&other.vlan_protocol),
            NicAttribute::SpoofCheck => self.spoof_check = other.spoof_check,
            NicAttribute::Trust => self.trust = other.trust,
            NicAttribute::LinkState => self.link_state.clone_from(&other.link_state),
            NicAttribute::MinRate => self.min_rate_mbit = other.min_rate_mbit,
            NicAttribute::MaxRate => self.max_rate_mbit = other.max_rate_mbit,
            _ => {}
        }
    }
}

/// The interface of a virtual function that a driver of the kernel's has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfInterface {
    /// The network namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// Its own MAC, which must be the one the NIC holds it to.
    pub mac: Option<MacAddr>,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
}

/// A virtual function that is a tenant's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vf {
    /// Its address.
    pub address: PciAddress,
    /// The interface of its physical function.
    pub pf: String,
    /// Its number there.
    pub index: u32,
    /// Whose it is.
    pub owner: Owner,
    /// How the NIC treats it.
    pub set: VfSettings,
    /// What of `set` may be otherwise, because the tenant's file says so.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub accept: BTreeSet<NicAttribute>,
    /// The driver that has it.
    pub driver: Option<String>,
    /// Whether its IOMMU group holds nothing else. Nobody asks where the kernel drives it.
    pub alone: Option<bool>,
    /// Its interface, if a driver of the kernel's has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<VfInterface>,
    /// The driver that had it before, and gets it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_driver: Option<String>,
}

impl Vf {
    /// As it is where nobody has it and nothing of a former owner is left on it.
    fn blank(&self) -> Self {
        // A driver of the kernel's chooses a MAC for itself.
        let mac = self.set.mac.filter(|_| self.found_driver.is_some());
        let mut set = VfSettings {
            mac,
            ..VfSettings::default()
        };
        // Nobody looks at what is accepted.
        for attribute in &self.accept {
            set.take(*attribute, &self.set);
        }
        Self {
            set,
            driver: self.found_driver.clone(),
            interface: None,
            ..self.clone()
        }
    }
}

/// A tap for a tenant's VM, and the wire from it to an interface beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tap {
    /// The interface, as any other.
    pub end: End,
    /// The only user who may attach to it.
    pub owner: u32,
    /// The interface in the same namespace with which it exchanges every frame, as a cable would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<String>,
    /// The objects under which it cannot stay: if one of them is made anew, so is the tap.
    pub needs: BTreeSet<Key>,
}

/// A tenant's own directory below the state directory. In it, only the folder of the control socket
/// belongs to the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Whose.
    pub tenant: Name,
    /// The owner of the control socket's folder.
    pub uid: u32,
}

/// A tenant's control group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Its path below the mount of each controller.
    pub path: String,
    /// Upper bound of processor time, in percent of one core.
    pub cpu_percent: u32,
    /// Upper bound of memory, in MiB.
    pub memory_mib: u32,
    /// Upper bound of tasks.
    pub tasks: u32,
}

/// A tenant's switch, as a process, or with `machine` as a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// Whose.
    pub tenant: Name,
    /// The unprivileged user and group it runs as.
    pub uid: u32,
    /// Its network namespace.
    pub namespace: String,
    /// Its control group.
    pub cgroup: String,
    /// The executable on the host.
    pub binary: PathBuf,
    /// The core it is pinned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// What it is given.
    pub config: SwitchConfig,
    /// The machine it runs in, if it is not a process of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Box<Machine>>,
    /// The objects without which it cannot run on: if one of them is made anew, it is restarted.
    pub needs: BTreeSet<Key>,
}

/// Who starts a tenant's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manager {
    /// The provisioner starts QEMU in a confinement of its own.
    Qemu,
    /// libvirt does.
    Libvirt,
}

/// What executes a machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// The processor.
    Kvm,
    /// QEMU's translator: works anywhere, and is slow.
    Tcg,
}

/// A tenant's virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Who starts it.
    pub manager: Manager,
    /// QEMU's executable.
    pub qemu: PathBuf,
    /// The directory of the image.
    pub image: PathBuf,
    /// The SHA-256 of the image's manifest, which has those of its files.
    pub image_sha256: String,
    /// What executes it.
    pub accel: Accel,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Whether that is taken from the host's hugepages.
    pub hugepages: bool,
    /// Its network functions, in the order of their places.
    pub functions: Vec<Function>,
}

/// One network function of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "function", rename_all = "snake_case")]
pub enum Function {
    /// A virtio NIC on a tap.
    Tap {
        /// The tap in the switch's network namespace.
        interface: String,
        /// The interface there that it is wired to.
        wire: String,
        /// The NIC's MAC.
        mac: MacAddr,
    },
    /// A function of the host's NIC, passed through.
    Vf {
        /// Its address on the host.
        address: PciAddress,
        /// The MAC that it has.
        mac: MacAddr,
        /// The VLAN that the NIC puts it on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vlan: Option<tenant_config::VlanId>,
    },
}

impl Resource {
    /// The object's name.
    pub fn key(&self) -> Key {
        match self {
            Self::Namespace(it) => Key::Namespace {
                name: it.name.clone(),
            },
            Self::Bridge(it) => Key::Bridge {
                interface: it.interface.clone(),
            },
            Self::Guard(it) => Key::Guard {
                table: it.table.clone(),
            },
            Self::Pair(it) => Key::Pair {
                namespace: it.switch.namespace.clone().unwrap_or_default(),
                interface: it.switch.interface.clone(),
            },
            Self::Lock(it) => Key::Lock {
                table: it.table.clone(),
                interface: it.interface.clone(),
            },
            Self::Pf(it) => Key::Pf {
                address: it.address,
            },
            Self::Vf(it) => Key::Vf {
                address: it.address,
            },
            Self::Tap(it) => Key::Tap {
                namespace: it.end.namespace.clone().unwrap_or_default(),
                interface: it.end.interface.clone(),
            },
            Self::Directory(it) => Key::Directory {
                tenant: it.tenant.clone(),
            },
            Self::Cgroup(it) => Key::Cgroup {
                path: it.path.clone(),
            },
            Self::Switch(it) => Key::Switch {
                tenant: it.tenant.clone(),
            },
        }
    }

    /// Who handles it.
    pub fn layer(&self) -> Layer {
        match self {
            Self::Namespace(_)
            | Self::Bridge(_)
            | Self::Guard(_)
            | Self::Pair(_)
            | Self::Lock(_)
            | Self::Pf(_)
            | Self::Vf(_) => Layer::Nic,
            Self::Tap(_) | Self::Directory(_) | Self::Cgroup(_) | Self::Switch(_) => {
                Layer::Launcher
            }
        }
    }

    /// Whether one that is already there may be used without becoming ours.
    pub fn adoptable(&self) -> bool {
        matches!(self, Self::Namespace(Namespace { adopt: true, .. }))
    }

    /// What hardware, which nobody can take away, is like where it is not in use. To the plan it is not there then.
    pub fn rest(&self) -> Option<Self> {
        match self {
            Self::Pf(pf) => Some(Self::Pf(Pf {
                set: pf.found,
                ..pf.clone()
            })),
            Self::Vf(vf) => Some(Self::Vf(Box::new(vf.blank()))),
            _ => None,
        }
    }

    /// Whether it is as [`Resource::rest`] says.
    pub fn at_rest(&self) -> bool {
        self.rest().as_ref() == Some(self)
    }

    /// Whose it is, if it must be cleaned before it becomes another's.
    pub fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Vf(vf) => Some(&vf.owner),
            _ => None,
        }
    }

    /// The objects that cannot be made anew under it.
    pub fn needs(&self) -> Option<&BTreeSet<Key>> {
        match self {
            Self::Switch(switch) => Some(&switch.needs),
            Self::Tap(tap) => Some(&tap.needs),
            _ => None,
        }
    }

    /// Whether `self` can be turned into `wanted` in place; otherwise it is deleted and made anew.
    pub fn changes_in_place(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            // A running switch takes another configuration, but not another seat.
            (Self::Switch(is), Self::Switch(want)) => {
                let config = want.config.clone();
                Switch {
                    config,
                    ..is.clone()
                } == *want
            }
            (Self::Pair(is), Self::Pair(want)) => {
                let place = |end: &End| (end.namespace.clone(), end.interface.clone());
                place(&is.switch) == place(&want.switch) && place(&is.peer) == place(&want.peer)
            }
            // Whoever has the function open keeps it; a new driver needs it free.
            (Self::Vf(is), Self::Vf(want)) => {
                let seat = |vf: &Vf| {
                    let place = |it: &VfInterface| (it.namespace.clone(), it.name.clone());
                    let interface = vf.interface.as_ref();
                    (
                        vf.index,
                        vf.pf.clone(),
                        vf.driver.clone(),
                        interface.map(place),
                        interface.and_then(|it| it.mac),
                    )
                };
                seat(is) == seat(want)
            }
            _ => true,
        }
    }

    /// Whether a function that was set as `self` is to have another MAC or VLAN: then what was shown of it holds no more,
    /// and whoever drives it must learn it anew.
    pub fn is_moved(&self, wanted: &Self) -> bool {
        let place = |vf: &Vf| (vf.set.mac, vf.set.vlan);
        matches!((self, wanted), (Self::Vf(was), Self::Vf(want)) if place(was) != place(want))
    }

    /// The values in which `self` and `observed` differ, as `path: wanted, is …`.
    pub fn differences(&self, observed: &Self) -> Vec<String> {
        let value = |resource| serde_json::to_value(resource).unwrap_or_default();
        let mut found = Vec::new();
        compare("", &value(self), &value(observed), &mut found);
        found
    }
}

fn compare(
    path: &str,
    wanted: &serde_json::Value,
    is: &serde_json::Value,
    found: &mut Vec<String>,
) {
    use serde_json::Value::{Array, Null, Object};
    if wanted == is {
        return;
    }
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match (wanted, is) {
        (Object(wanted), Object(is)) => {
            let names: BTreeSet<&String> = wanted.keys().chain(is.keys()).collect();
            for name in names {
                let value = |of: &serde_json::Map<_, _>| of.get(name).cloned().unwrap_or(Null);
                compare(&below(name), &value(wanted), &value(is), found);
            }
        }
        (Array(wanted), Array(is)) if wanted.len() == is.len() => {
            for (place, (wanted, is)) in wanted.iter().zip(is).enumerate() {
                compare(&below(&place.to_string()), wanted, is, found);
            }
        }
        (Array(wanted), Array(is)) => found.push(format!(
            "{path} should have {} entries and has {}",
            wanted.len(),
            is.len()
        )),
        _ => found.push(format!("{path} should be {wanted} and is {is}")),
    }
}
