//! One device: one queue each way, unless its other end wants more.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_int};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};

use dpdk_sys as sys;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, send};
use tenant_config::{Device, MacAddr, PciAddress, VlanId};

use crate::{Burst, DpdkError, Eal, Mempool, c_string, describe};

/// The first queue in each direction, and a switch's only one.
const QUEUE: u16 = 0;

/// How a port is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortOptions {
    /// Frames that the receive ring holds.
    pub rx_desc: u16,
    /// Frames that the transmit ring holds.
    pub tx_desc: u16,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Queues in each direction. A switch has one; who talks to a program that sends on several needs as many.
    pub queues: u16,
}

impl Default for PortOptions {
    fn default() -> Self {
        Self {
            rx_desc: 512,
            tx_desc: 512,
            mtu: 1500,
            queues: 1,
        }
    }
}

/// What a device has counted since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStats {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames lost before the switch saw them, because its ring was full.
    pub rx_missed: u64,
    /// Frames that came in broken.
    pub rx_errors: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames taken by the device, but not sent.
    pub tx_errors: u64,
}

/// A device that is open and started. Dropping it closes it.
#[derive(Debug)]
pub struct Port {
    id: u16,
    /// The bus it is on and its name there.
    device: (&'static CStr, CString),
    mac: [u8; 6],
    /// The VLAN whose tag the NIC adds and takes off by itself.
    vlan: Option<VlanId>,
    /// The kernel interface behind it, if there is one.
    interface: Option<Interface>,
    wake: Wake,
    /// Whether the kernel may have left some of what the driver has put into its ring: nobody else tells it to go on.
    held: bool,
    queues: u16,
    /// Frames that the kernel had no room for; it counts them from each reading anew.
    kernel_missed: u64,
    // Both outlive the device: its rings are filled from the one, and its memory is the other's.
    _pool: Mempool,
    _eal: Eal,
}

/// What becomes readable when a frame arrives. The descriptor belongs to the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// Nothing: the driver can only be polled.
    Never,
    /// The driver's own socket, always.
    Socket(RawFd),
    /// An event of the receive queue, once it was asked for.
    Interrupt(RawFd),
}

impl Port {
    /// Multicast groups that a virtual function's filter list is given.
    pub const GROUPS_MAX: usize = 30;

    /// Opens and starts the port called `name` in errors. Frames come from `pool`.
    ///
    /// # Errors
    /// What is missing and how to get it. The port is then closed again.
    pub fn open(
        eal: &Eal,
        name: &str,
        device: &Device,
        pool: &Mempool,
        options: &PortOptions,
    ) -> Result<Self, DpdkError> {
        let attachment = Attachment::of(name, device, options)?;
        Self::attach(eal, name, &attachment, pool, options)
    }

    /// Opens and starts a virtual device by its DPDK name and arguments, as in `net_ring0` or `net_null0`:
    /// for tests and benchmarks, which need no interface.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_virtual(
        eal: &Eal,
        device: &str,
        arguments: &str,
        pool: &Mempool,
        options: &PortOptions,
    ) -> Result<Self, DpdkError> {
        let attachment = Attachment {
            bus: c"vdev",
            device: device.into(),
            arguments: arguments.into(),
            kind: Kind::Virtual,
        };
        Self::attach(eal, device, &attachment, pool, options)
    }

    fn attach(
        eal: &Eal,
        name: &str,
        attachment: &Attachment<'_>,
        pool: &Mempool,
        options: &PortOptions,
    ) -> Result<Self, DpdkError> {
        let failed = |step, code: c_int| attachment.failed(name, step, code);
        let device = c_string(attachment.device.clone())?;
        let arguments = c_string(attachment.arguments.clone())?;
        let sockets_before = own_sockets();

        let mut id = 0;
        // SAFETY: a C string and a place for the answer.
        let mut find =
            || unsafe { sys::rte_eth_dev_get_port_by_name(device.as_ptr(), &raw mut id) };
        // The EAL opens PCI functions when it starts.
        if find() != 0 {
            // SAFETY: three C strings, which DPDK copies.
            let code = unsafe {
                sys::rte_eal_hotplug_add(
                    attachment.bus.as_ptr(),
                    device.as_ptr(),
                    arguments.as_ptr(),
                )
            };
            if code != 0 {
                return Err(attachment.diagnose(name, code));
            }
            let code = find();
            if code != 0 {
                return Err(failed("find", code));
            }
        }
        let interface = attachment.interface().map(Interface::new).transpose();
        // From here on, dropping it undoes everything.
        let mut port = Self {
            id,
            device: (attachment.bus, device),
            mac: [0; 6],
            vlan: attachment.vlan(),
            interface: None,
            wake: Wake::Never,
            held: false,
            queues: options.queues,
            kernel_missed: 0,
            _pool: pool.clone(),
            _eal: eal.clone(),
        };
        port.interface = interface
            .map_err(|error| failed("watch", -error.raw_os_error().unwrap_or(libc::EIO)))?;
        port.start(attachment, pool, options)
            .map_err(|(step, code)| failed(step, code))?;
        port.wake = match attachment.kind {
            Kind::Socket { family, .. } => own_sockets()
                .difference(&sockets_before)
                .copied()
                .find(|&fd| socket_family(fd) == Some(family))
                .map_or(Wake::Never, Wake::Socket),
            Kind::Pci { .. } => {
                // SAFETY: the port is started; an error is a negative number.
                let fd = unsafe { sys::rte_eth_dev_rx_intr_ctl_q_get_fd(id, QUEUE) };
                // Some drivers have the descriptor, and nothing that would ever write to it.
                // SAFETY: as above.
                let able = fd >= 0
                    && unsafe {
                        sys::rte_eth_dev_rx_intr_enable(id, QUEUE) == 0
                            && sys::rte_eth_dev_rx_intr_disable(id, QUEUE) == 0
                    };
                if able {
                    Wake::Interrupt(fd)
                } else {
                    Wake::Never
                }
            }
            Kind::Virtual => Wake::Never,
        };
        Ok(port)
    }

    fn start(
        &mut self,
        attachment: &Attachment<'_>,
        pool: &Mempool,
        options: &PortOptions,
    ) -> Result<(), (&'static str, c_int)> {
        let id = self.id;
        let step = |what, code: c_int| if code == 0 { Ok(()) } else { Err((what, code)) };
        let mut info = MaybeUninit::zeroed();
        // SAFETY: a place for the answer.
        step("ask about", unsafe {
            sys::rte_eth_dev_info_get(id, info.as_mut_ptr())
        })?;
        // SAFETY: the call has filled it; and all its fields may be zero.
        let info: sys::rte_eth_dev_info = unsafe { info.assume_init() };

        // SAFETY: a C struct of numbers and pointers; zero is DPDK's "default" in each.
        let mut config: sys::rte_eth_conf = unsafe { mem::zeroed() };
        match attachment.kind {
            Kind::Pci { .. } => {
                config.rxmode.mtu = u32::from(options.mtu);
                config.intr_conf.set_rxq(1);
            }
            // The kernel has taken the tag out already; without this the driver would put it back in,
            // and always as 0x8100.
            Kind::Socket { .. } | Kind::Virtual => {
                config.rxmode.offloads =
                    info.rx_offload_capa & sys::RTE_ETH_RX_OFFLOAD_VLAN_STRIP_SHIM;
            }
        }
        // SAFETY: `config` is valid for the call.
        step("configure", unsafe {
            sys::rte_eth_dev_configure(id, options.queues, options.queues, &raw const config)
        })?;
        let (mut rx, mut tx) = (options.rx_desc, options.tx_desc);
        // SAFETY: places for two numbers.
        step("size the rings of", unsafe {
            sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &raw mut rx, &raw mut tx)
        })?;
        const ANY_NUMA_NODE: u32 = u32::MAX;
        for queue in 0..options.queues {
            // SAFETY: null asks for the driver's defaults; the pool outlives the port, which holds it.
            step("set up the receive queue of", unsafe {
                sys::rte_eth_rx_queue_setup(
                    id,
                    queue,
                    rx,
                    ANY_NUMA_NODE,
                    std::ptr::null(),
                    pool.raw(),
                )
            })?;
            // SAFETY: as above.
            step("set up the transmit queue of", unsafe {
                sys::rte_eth_tx_queue_setup(id, queue, tx, ANY_NUMA_NODE, std::ptr::null())
            })?;
        }
        // SAFETY: the port is configured.
        step("start", unsafe { sys::rte_eth_dev_start(id) })?;
        // SAFETY: zero is a valid address struct.
        let mut mac: sys::rte_ether_addr = unsafe { mem::zeroed() };
        // SAFETY: a place for the answer.
        step("ask the MAC of", unsafe {
            sys::rte_eth_macaddr_get(id, &raw mut mac)
        })?;
        self.mac = mac.addr_bytes;
        Ok(())
    }

    /// Receives behind what is in `burst`, as much as it has room for; says how many.
    #[inline]
    pub fn rx(&mut self, burst: &mut Burst) -> usize {
        self.receive(QUEUE, burst)
    }

    /// The same from one of several queues.
    ///
    /// # Panics
    /// If the port has no such queue.
    #[inline]
    pub fn rx_queue(&mut self, queue: u16, burst: &mut Burst) -> usize {
        assert!(queue < self.queues, "no such queue");
        self.receive(queue, burst)
    }

    #[inline]
    fn receive(&mut self, queue: u16, burst: &mut Burst) -> usize {
        let id = self.id;
        // SAFETY: the port is started with that queue, `&mut self` makes us its only user, and the burst has room for
        // `room` pointers.
        let received =
            burst.fill(|mbufs, room| unsafe { sys::rte_eth_rx_burst_shim(id, queue, mbufs, room) });
        if let Some(vlan) = self.vlan {
            let first = burst.len() - received;
            for mbuf in &mut burst.as_mut_slice()[first..] {
                mbuf.forget_tag(vlan);
            }
        }
        received
    }

    /// Sends from the front of `burst`; says how many the device took. The others stay in the burst, in
    /// order, and the caller counts and frees them. Taken is not yet sent: what the device then cannot send, as a frame longer
    /// than its ring's frames, is in [`PortStats::tx_errors`].
    #[inline]
    pub fn tx(&mut self, burst: &mut Burst) -> usize {
        let id = self.id;
        // SAFETY: as in `rx`; the device owns those it says it took, and frees them.
        let taken = burst.take_front(|mbufs, count| unsafe {
            sys::rte_eth_tx_burst_shim(id, QUEUE, mbufs, count)
        });
        self.held = matches!(self.wake, Wake::Socket(_));
        taken
    }

    /// Whether frames that [`Self::tx`] took may still be in the ring. A socket takes a part of a burst if it has as much under
    /// way as it may, and the driver, which does not look, leaves the rest there until its next burst.
    #[inline]
    pub fn may_hold_frames(&self) -> bool {
        self.held
    }

    /// Has the kernel go on with what is left in the ring, if anything is: a system call. To be called again while
    /// [`Self::may_hold_frames`].
    pub fn flush_tx(&mut self) {
        if let Wake::Socket(fd) = self.wake {
            // Bytes that were left; there may be more. Any other error, as of an interface that is down, is no want of room.
            let sent = send(fd, &[], MsgFlags::MSG_DONTWAIT);
            self.held = matches!(sent, Ok(1..) | Err(Errno::EAGAIN | Errno::ENOBUFS));
        }
    }

    /// A descriptor that polls readable when a frame waits, for a worker that has nothing to do: between
    /// [`Self::arm`] and [`Self::disarm`]. `None`: this device can only be polled.
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        match self.wake {
            Wake::Never => None,
            // SAFETY: the driver closes it when the port is dropped, which the borrow forbids meanwhile.
            Wake::Socket(fd) | Wake::Interrupt(fd) => Some(unsafe { BorrowedFd::borrow_raw(fd) }),
        }
    }

    /// Before sleeping on [`Self::wait_fd`]: asks the device to wake us. A frame that came just before gives no event,
    /// so receive once more between this and the sleep. Says whether it will wake us.
    pub fn arm(&mut self) -> bool {
        match self.wake {
            Wake::Never => false,
            Wake::Socket(_) => true,
            // SAFETY: the port is started.
            Wake::Interrupt(_) => unsafe { sys::rte_eth_dev_rx_intr_enable(self.id, QUEUE) == 0 },
        }
    }

    /// After the sleep: no more events, and what has made the descriptor readable is taken off it, also an error (an
    /// interface that goes down makes its socket readable until the error is read).
    pub fn disarm(&mut self) {
        match self.wake {
            Wake::Never => {}
            Wake::Socket(fd) => {
                let _ = socket_option::<1>(fd, libc::SOL_SOCKET, libc::SO_ERROR);
            }
            Wake::Interrupt(fd) => {
                // SAFETY: the port is started.
                unsafe { sys::rte_eth_dev_rx_intr_disable(self.id, QUEUE) };
                let mut events = 0_u64;
                // SAFETY: an eventfd in non-blocking mode gives 8 bytes or none, into a place of 8.
                unsafe { libc::read(fd, (&raw mut events).cast(), mem::size_of::<u64>()) };
            }
        }
    }

    /// Subscribes to these multicast groups, and to all others if `all`; false if the device refuses. A kernel
    /// interface delivers every group anyway. Falls back to all-multicast when the NIC's filter list is full,
    /// which a NIC may refuse to a virtual function that is not trusted: the first [`Self::GROUPS_MAX`] groups of
    /// the list are then still received.
    pub fn set_multicast(&mut self, groups: &[[u8; 6]], all: bool) -> bool {
        if self.device.0 != c"pci" {
            return true;
        }
        let mut list: Vec<_> = groups
            .iter()
            .take(Self::GROUPS_MAX)
            .map(|&addr_bytes| sys::rte_ether_addr { addr_bytes })
            .collect();
        // SAFETY: the port is started, and the driver copies the list.
        let code = unsafe {
            sys::rte_eth_dev_set_mc_addr_list(self.id, list.as_mut_ptr(), list.len() as u32)
        };
        if code == 0 && list.len() == groups.len() && !all {
            return true;
        }
        // SAFETY: the port is started.
        unsafe { sys::rte_eth_allmulticast_enable(self.id) == 0 }
    }

    /// Whether the device has a link; for a kernel interface, whether it and its peer are up.
    pub fn link_up(&self) -> bool {
        // The socket drivers say "up" whatever happens.
        if let Some(interface) = &self.interface {
            return interface.is_running();
        }
        let mut link = MaybeUninit::<sys::rte_eth_link>::zeroed();
        // SAFETY: a place for the answer, which may be all zero.
        unsafe {
            sys::rte_eth_link_get_nowait(self.id, link.as_mut_ptr()) == 0
                && link.assume_init().link_status() != 0
        }
    }

    /// The device's own MAC; `None` if it has none that a station could have.
    pub fn mac(&self) -> Option<MacAddr> {
        MacAddr::new(self.mac).ok()
    }

    /// What the device has counted. One or two system calls on some drivers: not for the packet path.
    pub fn stats(&mut self) -> PortStats {
        let mut raw = MaybeUninit::<sys::rte_eth_stats>::zeroed();
        // SAFETY: a place for the answer, which may be all zero, and stays so on failure.
        let raw = unsafe {
            sys::rte_eth_stats_get(self.id, raw.as_mut_ptr());
            raw.assume_init()
        };
        if let Wake::Socket(fd) = self.wake
            && let Some([_frames, drops]) =
                socket_option(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS)
        {
            self.kernel_missed += u64::from(drops);
        }
        PortStats {
            rx_frames: raw.ipackets,
            rx_bytes: raw.ibytes,
            rx_missed: raw.imissed + raw.rx_nombuf + self.kernel_missed,
            rx_errors: raw.ierrors,
            tx_frames: raw.opackets,
            tx_bytes: raw.obytes,
            tx_errors: raw.oerrors,
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let (bus, device) = &self.device;
        // SAFETY: the port exists, and nobody else has its number; the strings are C strings. A device that
        // was not started or has gone answers with an error, and there is nothing more to undo.
        unsafe {
            sys::rte_eth_dev_stop(self.id);
            sys::rte_eth_dev_close(self.id);
            sys::rte_eal_hotplug_remove(bus.as_ptr(), device.as_ptr());
        }
    }
}

/// A kernel interface, to ask for its state.
#[derive(Debug)]
struct Interface {
    name: [u8; libc::IFNAMSIZ],
    socket: OwnedFd,
}

impl Interface {
    fn new(interface: &str) -> std::io::Result<Self> {
        let mut name = [0; libc::IFNAMSIZ];
        // The driver has opened it by that name, so it and a NUL fit.
        for (to, from) in name.iter_mut().zip(interface.bytes()) {
            *to = from;
        }
        let flags = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_UNIX, flags, 0) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { name, socket })
    }

    fn is_running(&self) -> bool {
        // SAFETY: a C struct of numbers and pointers that may be zero.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        request.ifr_name = self.name.map(|byte| byte as libc::c_char);
        let fd = self.socket.as_raw_fd();
        // SAFETY: this request reads the name and writes the flags, which are then what the union holds.
        unsafe {
            libc::ioctl(fd, libc::SIOCGIFFLAGS, &raw mut request) == 0
                && c_int::from(request.ifr_ifru.ifru_flags) & libc::IFF_RUNNING != 0
        }
    }
}

/// How a device is made known to DPDK.
struct Attachment<'a> {
    bus: &'static CStr,
    device: String,
    arguments: String,
    kind: Kind<'a>,
}

#[derive(Clone, Copy)]
enum Kind<'a> {
    /// A kernel interface, through a socket of that family.
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
    fn of(port: &str, device: &'a Device, options: &PortOptions) -> Result<Self, DpdkError> {
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
                    capability: "CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF, CAP_SYS_ADMIN and CAP_IPC_LOCK",
                },
            },
            Device::Memif { socket, id, server } => {
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

    fn failed(&self, port: &str, step: &'static str, code: c_int) -> DpdkError {
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

    /// Why the device was refused: the drivers say no more than "no".
    fn diagnose(&self, port: &str, code: c_int) -> DpdkError {
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
            // What vfio needs was there when the EAL started.
            Kind::Pci { address, .. } => DpdkError::Pci {
                port: port.into(),
                address,
                problem: format!(
                    "cannot be opened ({}): this build has no driver for it, or it has gone meanwhile (DPDK's own words are on \
                     standard error)",
                    describe(code)
                ),
            },
            _ => self.failed(port, "open", code),
        }
    }

    fn interface(&self) -> Option<&'a str> {
        match self.kind {
            Kind::Socket { interface, .. } => Some(interface),
            Kind::Pci { .. } | Kind::Virtual => None,
        }
    }

    fn vlan(&self) -> Option<VlanId> {
        match self.kind {
            Kind::Pci { vlan, .. } => vlan,
            Kind::Socket { .. } | Kind::Virtual => None,
        }
    }
}

/// Bytes of one frame's room in a ring or mbuf: a power of two, so that frames fill blocks without gaps, as
/// `net_af_packet` takes for granted. A frame too long for the port is still seen as too long, cut off: that takes the
/// ring's own header, the frame's, a tag, and one byte more.
pub(crate) fn frame_room(mtu: u16) -> u16 {
    const RING_HEADER: u16 = 80;
    const ETHERNET_AND_TAG: u16 = 14 + 4;
    mtu.saturating_add(RING_HEADER + ETHERNET_AND_TAG + 1)
        .checked_next_power_of_two()
        .unwrap_or(1 << 15)
        .max(2048)
}

/// Mbufs that a device keeps in its rings. The socket drivers copy, and keep none.
pub(crate) fn frames_held(device: &Device, options: &PortOptions) -> u32 {
    /// The default ring and fill queue of an XDP socket.
    const XDP_FRAMES: u32 = 2048 + 4096;
    match device {
        Device::Offline | Device::AfPacket { .. } | Device::Memif { .. } => 0,
        Device::AfXdp { .. } => XDP_FRAMES,
        Device::Pci { .. } => u32::from(options.rx_desc) + u32::from(options.tx_desc),
    }
}

/// That DPDK's `key=value,` syntax cannot misread the text.
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

/// The sockets of this process. The drivers do not tell theirs.
fn own_sockets() -> BTreeSet<RawFd> {
    std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&fd| socket_family(fd).is_some())
        .collect()
}

/// The address family of a socket; `None` if the descriptor is none.
fn socket_family(fd: RawFd) -> Option<c_int> {
    let [family] = socket_option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)?;
    c_int::try_from(family).ok()
}

/// A socket option whose value is `N` numbers; `None` where the descriptor has no such option.
fn socket_option<const N: usize>(fd: RawFd, level: c_int, name: c_int) -> Option<[u32; N]> {
    let mut value = [0; N];
    let mut size = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: a place of `size` bytes.
    let code =
        unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut size) };
    (code == 0).then_some(value)
}

/// Whether this process may open a raw socket of that family.
fn may_open(family: c_int) -> bool {
    // SAFETY: no pointers; a descriptor that comes of it is ours to close.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return false;
    }
    // SAFETY: just opened, and nobody else's.
    let _ = unsafe { OwnedFd::from_raw_fd(fd) }.as_raw_fd();
    true
}
