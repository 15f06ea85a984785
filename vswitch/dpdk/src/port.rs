//! One device, with one queue each way unless more are requested.

use std::ffi::{CStr, CString, c_int};
use std::mem::{self, MaybeUninit};
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;

use dpdk_sys as sys;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, send};
use tenant_config::{Device, MacAddr, VlanId};

use crate::attachment::{Attachment, Kind};
use crate::kernel::{Interface, own_sockets, socket_family, socket_option};
use crate::signals::Listener;
use crate::{Burst, DpdkError, Eal, Mempool, Signals, c_string, describe};

/// The first queue in each direction; a switch uses no other.
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
    /// Queues in each direction. A switch has one; a load generator needs as many as its peer sends
    /// on.
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
    /// Frames received with errors.
    pub rx_errors: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames that the device took but did not send.
    pub tx_errors: u64,
}

/// A device that is open and started. Dropping it closes the device.
#[derive(Debug)]
pub struct Port {
    id: u16,
    /// The bus it is on and its name there.
    device: (&'static CStr, CString),
    mac: [u8; 6],
    /// The VLAN whose tag the NIC adds and strips.
    vlan: Option<VlanId>,
    /// The kernel interface that it is on, if any.
    interface: Option<Interface>,
    wake: Wake,
    /// Whether frames may be left in the TX ring of a socket, until the next call flushes them.
    held: bool,
    options: PortOptions,
    /// Frames that the kernel had no room for, summed up: it restarts its count at each reading.
    kernel_missed: u64,
    /// The groups that it was last subscribed to, and whether to all others.
    multicast: (Vec<[u8; 6]>, bool),
    /// Of a PCI function: what its driver and VFIO report.
    listener: Option<Listener>,
    // Both must outlive the device: the pool fills its rings, and the EAL owns its memory.
    pool: Mempool,
    _eal: Eal,
}

/// What becomes readable when a frame arrives. The driver owns the descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// Nothing: the device can only be polled.
    Never,
    /// The driver's socket, always.
    Socket(RawFd),
    /// An event of the receive queue, while it is enabled.
    Interrupt(RawFd),
}

impl Port {
    /// The multicast groups that fit into the filter list of a virtual function.
    pub const GROUPS_MAX: usize = 30;

    /// Opens and starts a port; errors call it `name`. Received frames come from `pool`.
    ///
    /// # Errors
    /// What is missing and how to provide it. The port is then closed again.
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

    /// Opens and starts a virtual device by its DPDK name and arguments, such as `net_ring0` or
    /// `net_null0`: for tests and benchmarks without an interface.
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
        // SAFETY: a C string and a place for the result.
        let mut find =
            || unsafe { sys::rte_eth_dev_get_port_by_name(device.as_ptr(), &raw mut id) };
        // The EAL has opened PCI functions at its start already.
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
        // From here on, dropping it closes the device.
        let mut port = Self {
            id,
            device: (attachment.bus, device),
            mac: [0; 6],
            vlan: attachment.vlan(),
            interface: None,
            wake: Wake::Never,
            held: false,
            options: *options,
            kernel_missed: 0,
            multicast: (Vec::new(), false),
            listener: None,
            pool: pool.clone(),
            _eal: eal.clone(),
        };
        if port.is_pci() {
            // Before it starts: a reset that comes meanwhile is not missed.
            let listener = Listener::new(id, &port.device.1);
            port.listener = Some(listener.map_err(|code| failed("listen to", code))?);
        }
        port.start().map_err(|(step, code)| failed(step, code))?;
        port.wake = match attachment.kind {
            Kind::Socket { family, .. } => own_sockets()
                .difference(&sockets_before)
                .copied()
                .find(|&fd| socket_family(fd) == Some(family))
                .map_or(Wake::Never, Wake::Socket),
            Kind::Pci { .. } => port.receive_interrupt(),
            Kind::Virtual => Wake::Never,
        };
        port.interface = port
            .watched(attachment)
            .map_err(|error| failed("watch", -error.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(port)
    }

    fn is_pci(&self) -> bool {
        self.device.0 == c"pci"
    }

    /// The event of the started port's receive queue, if its driver has one.
    fn receive_interrupt(&self) -> Wake {
        // SAFETY: the port is started; an error is negative.
        let fd = unsafe { sys::rte_eth_dev_rx_intr_ctl_q_get_fd(self.id, QUEUE) };
        // Some drivers have a descriptor that never becomes readable.
        // SAFETY: as above.
        let able = fd >= 0
            && unsafe {
                sys::rte_eth_dev_rx_intr_enable(self.id, QUEUE) == 0
                    && sys::rte_eth_dev_rx_intr_disable(self.id, QUEUE) == 0
            };
        if able {
            Wake::Interrupt(fd)
        } else {
            Wake::Never
        }
    }

    /// The kernel interface that the started port is on, if any.
    fn watched(&self, attachment: &Attachment<'_>) -> std::io::Result<Option<Interface>> {
        let Kind::Socket {
            family, interface, ..
        } = attachment.kind
        else {
            return Ok(None);
        };
        let socket = match self.wake {
            Wake::Socket(fd) if family == libc::AF_PACKET => Some(fd),
            _ => None,
        };
        Interface::new(interface, socket).map(Some)
    }

    fn start(&mut self) -> Result<(), (&'static str, c_int)> {
        let (id, options) = (self.id, self.options);
        let step = |what, code: c_int| if code == 0 { Ok(()) } else { Err((what, code)) };
        let mut info = MaybeUninit::zeroed();
        // SAFETY: a place for the result.
        step("ask about", unsafe {
            sys::rte_eth_dev_info_get(id, info.as_mut_ptr())
        })?;
        // SAFETY: the call has filled it, and all its fields may be zero.
        let info: sys::rte_eth_dev_info = unsafe { info.assume_init() };

        // SAFETY: a C struct of numbers and pointers; zero is DPDK's "default" in each.
        let mut config: sys::rte_eth_conf = unsafe { mem::zeroed() };
        if self.is_pci() {
            config.rxmode.mtu = u32::from(options.mtu);
            config.intr_conf.set_rxq(1);
        } else {
            // The kernel has stripped the tag already; without this the driver would insert it
            // again, and always as 0x8100.
            config.rxmode.offloads = info.rx_offload_capa & sys::RTE_ETH_RX_OFFLOAD_VLAN_STRIP_SHIM;
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
            // SAFETY: null selects the driver's defaults; the port holds the pool, which so
            // outlives it.
            step("set up the receive queue of", unsafe {
                sys::rte_eth_rx_queue_setup(
                    id,
                    queue,
                    rx,
                    ANY_NUMA_NODE,
                    std::ptr::null(),
                    self.pool.raw(),
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
        // SAFETY: a place for the result.
        step("ask the MAC of", unsafe {
            sys::rte_eth_macaddr_get(id, &raw mut mac)
        })?;
        self.mac = mac.addr_bytes;
        Ok(())
    }

    /// Receives as many frames as `burst` has room for, behind those in it; returns how many.
    #[inline]
    pub fn rx(&mut self, burst: &mut Burst) -> usize {
        self.receive(QUEUE, burst)
    }

    /// As [`Self::rx`], from one of several queues.
    ///
    /// # Panics
    /// If the port has no such queue.
    #[inline]
    pub fn rx_queue(&mut self, queue: u16, burst: &mut Burst) -> usize {
        assert!(queue < self.options.queues, "no such queue");
        self.receive(queue, burst)
    }

    #[inline]
    fn receive(&mut self, queue: u16, burst: &mut Burst) -> usize {
        let id = self.id;
        // SAFETY: the port is started with that queue, `&mut self` makes us its only user, and the
        // burst has room for `room` pointers.
        let received =
            burst.fill(|mbufs, room| unsafe { sys::rte_eth_rx_burst_shim(id, queue, mbufs, room) });
        let first = burst.len() - received;
        if let Some(vlan) = self.vlan {
            for mbuf in &mut burst.as_mut_slice()[first..] {
                mbuf.forget_tag(vlan);
            }
        }
        if matches!(self.wake, Wake::Socket(_)) {
            for mbuf in &mut burst.as_mut_slice()[first..] {
                mbuf.restore_service_tag();
            }
        }
        received
    }

    /// Sends from the front of `burst`; returns how many frames the device took. The others stay in
    /// the burst, in order, for the caller to count and free. The device may still fail to send a
    /// frame that it took, such as one longer than its ring's slots: [`PortStats::tx_errors`]
    /// counts it.
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

    /// Whether frames that [`Self::tx`] took may still be in the TX ring. When its send buffer is
    /// full, a socket takes a part of a burst only, and the driver leaves the rest in the ring
    /// until its next burst.
    #[inline]
    pub fn may_hold_frames(&self) -> bool {
        self.held
    }

    /// Flushes frames left in the TX ring (one `sendto`). To be called again while
    /// [`Self::may_hold_frames`].
    pub fn flush_tx(&mut self) {
        if let Wake::Socket(fd) = self.wake {
            // It returns the bytes sent, and more may be left. Any other error, such as an
            // interface that is down, leaves nothing to wait for.
            let sent = send(fd, &[], MsgFlags::MSG_DONTWAIT);
            self.held = matches!(sent, Ok(1..) | Err(Errno::EAGAIN | Errno::ENOBUFS));
        }
    }

    /// A descriptor that polls readable when a frame waits, between [`Self::arm`] and
    /// [`Self::disarm`]; `None` if the device can only be polled.
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        match self.wake {
            Wake::Never => None,
            // SAFETY: the driver closes it when the port is dropped, which the borrow prevents.
            Wake::Socket(fd) | Wake::Interrupt(fd) => Some(unsafe { BorrowedFd::borrow_raw(fd) }),
        }
    }

    /// Asks the device to signal frames on [`Self::wait_fd`]; false if it cannot. A frame that came
    /// just before raises no event, so receive once more between this and the sleep.
    pub fn arm(&mut self) -> bool {
        match self.wake {
            Wake::Never => false,
            Wake::Socket(_) => true,
            // SAFETY: the port is started.
            Wake::Interrupt(_) => unsafe { sys::rte_eth_dev_rx_intr_enable(self.id, QUEUE) == 0 },
        }
    }

    /// Stops the events and clears those that are pending. Also clears an error: an interface that
    /// goes down makes its socket readable until the error is read.
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
                // SAFETY: a non-blocking eventfd returns 8 bytes or none, into a place of 8.
                unsafe { libc::read(fd, (&raw mut events).cast(), mem::size_of::<u64>()) };
            }
        }
    }

    /// Subscribes to these multicast groups, and to all others if `all`; false if the device
    /// refuses. A kernel interface delivers every group anyway. Falls back to all-multicast when
    /// the NIC's filter list is full. A NIC may refuse that to an untrusted virtual function; the
    /// first [`Self::GROUPS_MAX`] groups are then still received.
    pub fn set_multicast(&mut self, groups: &[[u8; 6]], all: bool) -> bool {
        if !self.is_pci() {
            return true;
        }
        self.multicast = (groups.to_vec(), all);
        self.subscribe()
    }

    fn subscribe(&self) -> bool {
        let (groups, all) = &self.multicast;
        let mut list: Vec<_> = groups
            .iter()
            .take(Self::GROUPS_MAX)
            .map(|&addr_bytes| sys::rte_ether_addr { addr_bytes })
            .collect();
        // SAFETY: the port is started, and the driver copies the list.
        let code = unsafe {
            sys::rte_eth_dev_set_mc_addr_list(self.id, list.as_mut_ptr(), list.len() as u32)
        };
        if code == 0 && list.len() == groups.len() && !*all {
            return true;
        }
        // SAFETY: the port is started.
        unsafe { sys::rte_eth_allmulticast_enable(self.id) == 0 }
    }

    /// What the device's driver and VFIO report, if it is a PCI function.
    pub fn signals(&self) -> Option<Arc<Signals>> {
        self.listener.as_ref().map(Listener::signals)
    }

    /// Stops, resets, configures and starts a PCI function whose physical function was reset, with
    /// the multicast groups that it had. [`Self::wait_fd`] may be another descriptor afterwards.
    /// Takes milliseconds, and seconds with some drivers: not for the packet path.
    ///
    /// # Errors
    /// The step that failed. The port carries no frames until a further reset succeeds.
    pub fn reset(&mut self) -> Result<(), ResetError> {
        if !self.is_pci() {
            return Err(ResetError::Unable);
        }
        let had = self.mac;
        let failed = |(step, code): (&'static str, c_int)| ResetError::Step {
            step,
            cause: describe(code),
        };
        self.wake = Wake::Never;
        // SAFETY: the port exists. A device that has vanished returns an error.
        let code = unsafe {
            // Drivers without a reset of their own do it when they start. The others stop the port
            // themselves, and ignore that it is stopped.
            sys::rte_eth_dev_stop(self.id);
            sys::rte_eth_dev_reset(self.id)
        };
        if code != 0 && code != -libc::ENOTSUP {
            return Err(failed(("reset", code)));
        }
        self.start().map_err(failed)?;
        if self.mac != had {
            let is = self.mac;
            self.mac = had;
            return Err(ResetError::Mac { is, had });
        }
        self.wake = self.receive_interrupt();
        if !self.multicast.0.is_empty() || self.multicast.1 {
            // A refusal was reported when the groups were first set.
            self.subscribe();
        }
        Ok(())
    }

    /// Whether the device has a link; for a kernel interface, whether it and its peer are up.
    pub fn link_up(&self) -> bool {
        // The socket drivers always report "up".
        if let Some(interface) = &self.interface {
            return interface.is_running();
        }
        let mut link = MaybeUninit::<sys::rte_eth_link>::zeroed();
        // SAFETY: a place for the result, which may be all zero.
        unsafe {
            sys::rte_eth_link_get_nowait(self.id, link.as_mut_ptr()) == 0
                && link.assume_init().link_status() != 0
        }
    }

    /// The device's MAC; `None` if it is not a station's.
    pub fn mac(&self) -> Option<MacAddr> {
        MacAddr::new(self.mac).ok()
    }

    /// What the device has counted. Up to two system calls: not for the packet path.
    pub fn stats(&mut self) -> PortStats {
        let mut raw = MaybeUninit::<sys::rte_eth_stats>::zeroed();
        // SAFETY: a place for the result, which may be all zero and stays so on failure.
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

/// Why a port does not carry frames after a reset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResetError {
    /// It is no PCI function.
    #[error("a device of this kind has no reset")]
    Unable,
    /// A step failed.
    #[error("cannot {step} it: {cause}")]
    Step {
        /// The step.
        step: &'static str,
        /// DPDK's error.
        cause: String,
    },
    /// The NIC has given it another MAC.
    #[error("it has another MAC than before: {is:02x?}, and had {had:02x?}")]
    Mac {
        /// Its MAC.
        is: [u8; 6],
        /// The MAC that it was opened with.
        had: [u8; 6],
    },
}

impl Drop for Port {
    fn drop(&mut self) {
        // Nothing reports to a port that is being closed.
        self.listener = None;
        let (bus, device) = &self.device;
        // SAFETY: the port exists, and no other `Port` has its number; the strings are C strings. A
        // device that was not started or has vanished returns an error, and nothing is left to
        // undo.
        unsafe {
            sys::rte_eth_dev_stop(self.id);
            sys::rte_eth_dev_close(self.id);
            sys::rte_eal_hotplug_remove(bus.as_ptr(), device.as_ptr());
        }
    }
}
