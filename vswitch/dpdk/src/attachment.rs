//! How a device is attached to DPDK, and why that failed.

use std::ffi::{CStr, c_int};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};

use nix::libc;
use tenant_config::{Device, PciAddress, VlanId};

use crate::{DpdkError, PortOptions, describe};

/// What DPDK needs to attach a device.
pub(crate) struct Attachment<'a> {
    pub(crate) bus: &'static CStr,
    pub(crate) device: String,
    pub(crate) arguments: String,
    pub(crate) kind: Kind<'a>,
}

#[derive(Clone, Copy)]
pub(crate) enum Kind<'a> {
    /// A kernel interface, by a socket of that family.
    Socket {
        family: c_int,
        interface: &'a str,
        capability: &'static str,
    },
    Pci {
        address: PciAddress,
        vlan: Option<VlanId>,
    },
    Virtual,
}

impl<'a> Attachment<'a> {
    pub(crate) fn of(
        port: &str,
        device: &'a Device,
        options: &PortOptions,
    ) -> Result<Self, DpdkError> {
        static NUMBER: AtomicU16 = AtomicU16::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(match device {
            Device::Offline => {
                return Err(DpdkError::Offline { port: port.into() });
            }
            Device::AfPacket { interface } => {
                let frame = frame_room(options.mtu);
                Self {
                    bus: c"vdev",
                    device: format!("net_af_packet{number}"),
                    arguments: format!(
                        "iface={},blocksz={},framesz={frame},framecnt={},qdisc_bypass=1",
                        plain(interface)?,
                        frame.max(4096),
                        options.rx_desc.next_power_of_two().max(4096 / frame),
                    ),
                    kind: Kind::Socket {
                        family: libc::AF_PACKET,
                        interface,
                        capability: "CAP_NET_RAW",
                    },
                }
            }
            Device::AfXdp { interface } => Self {
                bus: c"vdev",
                device: format!("net_af_xdp{number}"),
                arguments: format!("iface={},start_queue=0,queue_count=1", plain(interface)?),
                kind: Kind::Socket {
                    family: libc::AF_XDP,
                    interface,
                    capability: "CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF, CAP_SYS_ADMIN and \
                                 CAP_IPC_LOCK",
                },
            },
            Device::Memif {
                socket, id, server, ..
            } => {
                let path = socket.to_string_lossy();
                if path.len() > 107 {
                    let path = socket.clone();
                    return Err(DpdkError::SocketPath {
                        port: port.into(),
                        path,
                    });
                }
                Self {
                    bus: c"vdev",
                    device: format!("net_memif{number}"),
                    arguments: format!(
                        "role={},id={id},socket={},socket-abstract=no,bsize={},rsize={}",
                        if *server { "server" } else { "client" },
                        plain(&path)?,
                        frame_room(options.mtu),
                        options.rx_desc.max(2).ilog2(),
                    ),
                    kind: Kind::Virtual,
                }
            }
            Device::Pci { address, vlan } => Self {
                bus: c"pci",
                device: address.to_string(),
                arguments: String::new(),
                kind: Kind::Pci {
                    address: *address,
                    vlan: *vlan,
                },
            },
        })
    }

    pub(crate) fn failed(&self, port: &str, step: &'static str, code: c_int) -> DpdkError {
        let (permission, access) = (-libc::EPERM, -libc::EACCES);
        if let Kind::Socket { capability, .. } = self.kind
            && (code == permission || code == access)
        {
            return DpdkError::Permission {
                port: port.into(),
                device: self.device.clone(),
                capability,
            };
        }
        DpdkError::Device {
            port: port.into(),
            device: self.device.clone(),
            step,
            cause: describe(code),
        }
    }

    /// Why the device was refused, of which the drivers give no reason.
    pub(crate) fn diagnose(&self, port: &str, code: c_int) -> DpdkError {
        match self.kind {
            Kind::Socket { interface, .. } if nix::net::if_::if_nametoindex(interface).is_err() => {
                DpdkError::NoInterface {
                    port: port.into(),
                    interface: interface.into(),
                }
            }
            Kind::Socket {
                family,
                capability,
                interface,
            } if !may_open(family) => DpdkError::Permission {
                port: port.into(),
                device: format!("{} on {interface}", self.device),
                capability,
            },
            // The requirements of vfio were met when the EAL started.
            Kind::Pci { address, .. } => DpdkError::Pci {
                port: port.into(),
                address,
                problem: format!(
                    "cannot be opened ({}): this build has no driver for it, or it has vanished \
                     since (DPDK's own message is on standard error)",
                    describe(code)
                ),
            },
            _ => self.failed(port, "open", code),
        }
    }

    pub(crate) fn vlan(&self) -> Option<VlanId> {
        match self.kind {
            Kind::Pci { vlan, .. } => vlan,
            Kind::Socket { .. } | Kind::Virtual => None,
        }
    }
}

/// Bytes reserved for one frame in a ring or mbuf. A power of two, so that frames fill blocks
/// without gaps, as `net_af_packet` assumes. A frame that is too long for the port must be
/// recognised as such although it is truncated, so there is room for the ring's header, the
/// frame's, a tag, and one byte.
pub(crate) fn frame_room(mtu: u16) -> u16 {
    const RING_HEADER: u16 = 80;
    const ETHERNET_AND_TAG: u16 = 14 + 4;
    mtu.saturating_add(RING_HEADER + ETHERNET_AND_TAG + 1)
        .checked_next_power_of_two()
        .unwrap_or(1 << 15)
        .max(2048)
}

/// The memory that a memif shares with its peer, in bytes, at most: a ring each way, and a buffer
/// for each of its slots.
pub fn memif_bytes(mtu: u16) -> u64 {
    const RINGS: u64 = 2;
    /// Of a ring, and of a slot in it.
    const HEADER: u64 = 1 << 12;
    const DESCRIPTOR: u64 = 16;
    let slots = 1 << PortOptions::default().rx_desc.ilog2();
    RINGS * (HEADER + slots * (DESCRIPTOR + u64::from(frame_room(mtu))))
}

/// Mbufs that a device holds in its rings. The socket drivers copy, and hold none.
pub(crate) fn frames_held(device: &Device, options: &PortOptions) -> u32 {
    /// The default ring and fill queue of an XDP socket.
    const XDP_FRAMES: u32 = 2048 + 4096;
    match device {
        Device::Offline | Device::AfPacket { .. } | Device::Memif { .. } => 0,
        Device::AfXdp { .. } => XDP_FRAMES,
        Device::Pci { .. } => u32::from(options.rx_desc) + u32::from(options.tx_desc),
    }
}

/// Checks that the text fits DPDK's `key=value,` syntax.
fn plain(text: &str) -> Result<&str, DpdkError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte);
    if !text.is_empty() && text.bytes().all(fits) {
        return Ok(text);
    }
    Err(DpdkError::Text {
        what: "the device name",
        value: text.into(),
    })
}

/// Whether this process may open a raw socket of that family.
fn may_open(family: c_int) -> bool {
    // SAFETY: no pointers; the returned descriptor is ours to close.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return false;
    }
    // SAFETY: just opened, and owned by nothing else.
    let _ = unsafe { OwnedFd::from_raw_fd(fd) }.as_raw_fd();
    true
}
