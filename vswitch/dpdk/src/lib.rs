//! Safe DPDK: the environment ([`Eal`]), packet memory ([`Mempool`], [`Mbuf`], [`Burst`]) and
//! devices ([`Port`]).
//!
//! Why it is safe:
//! - There is one [`Eal`] per process, started once; every pool and port keeps it alive.
//! - An [`Mbuf`] is owned. Dropping it frees it; dropping a [`Burst`] frees the frames in it.
//! - A pool with mbufs still in use when its last handle is dropped is never freed, nor is the
//!   EAL's memory. So an [`Mbuf`] needs no lifetime and no reference count, and cannot dangle.
//! - A [`Port`] has one queue each way, and receiving and sending take `&mut`: no two threads share
//!   a queue.
// Raw DPDK is called in this crate only; every block says why it is sound.
#![allow(unsafe_code)]

mod attachment;
pub mod attempt;
mod kernel;
mod lcore;
mod mbuf;
mod pci;
mod port;
mod signals;

use std::ffi::{CStr, CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tenant_config::{MacAddr, Memory, PciAddress};
use thiserror::Error;

pub use attachment::memif_bytes;
pub use lcore::set_time_slice;
pub use mbuf::{Burst, Mbuf, Mempool};
pub use port::{Port, PortOptions, PortStats, ResetError};
pub use signals::Signals;

/// How long DPDK's interrupt thread may take to start a piece of work. It is idle, so only a slow
/// machine takes long: nested QEMU without acceleration needed more than 5 s.
const INTERRUPT_THREAD_MAX: Duration = Duration::from_secs(60);

/// How to start an [`Eal`].
#[derive(Debug, Clone)]
pub struct EalOptions {
    /// Packet memory, and whether it comes from hugepages.
    pub memory: Memory,
    /// The CPU to which the calling thread is bound; it becomes the one DPDK lcore.
    pub cpu: usize,
    /// Identifies this process in DPDK's log: the tenant's name.
    pub name: String,
    /// The PCI functions that this process may use, each after its port's name, for errors. Without
    /// any, the PCI bus is not scanned.
    pub pci: Vec<(String, PciAddress)>,
    /// Whether all hugepages are in one file: a vhost-user back end maps at most eight files.
    pub one_file: bool,
}

impl EalOptions {
    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = vec![
            format!("vswitch-{}", self.name),
            "--lcores".into(),
            format!("0@{}", self.cpu),
            "--no-telemetry".into(),
            "--iova-mode".into(),
            "va".into(),
            "--file-prefix".into(),
            format!("vswitch-{}", self.name),
            "--log-level".into(),
            "warning".into(),
            "-m".into(),
            self.memory.mib.to_string(),
        ];
        // Either way no shared files: none that another process could open, none left behind.
        if self.memory.hugepages {
            let limit = self.memory.mib.to_string();
            arguments.extend(["--in-memory".into(), "--socket-limit".into(), limit]);
            arguments.extend(self.one_file.then(|| "--single-file-segments".into()));
        } else {
            arguments.extend(["--no-huge".into(), "--no-shconf".into()]);
        }
        if self.pci.is_empty() {
            arguments.push("--no-pci".into());
        }
        for (_, address) in &self.pci {
            arguments.extend(["--allow".into(), address.to_string()]);
        }
        arguments
    }
}

/// DPDK's environment: memory, devices, the lcore. A handle; dropping the last one cleans up.
#[derive(Debug, Clone)]
pub struct Eal(Arc<Environment>);

#[derive(Debug)]
struct Environment {
    /// Its memory is still in use, so the end of the process frees it.
    abandoned: AtomicBool,
}

impl Eal {
    /// Starts DPDK on the calling thread, which becomes its lcore and is bound to `options.cpu`.
    ///
    /// # Errors
    /// [`DpdkError::AlreadyStarted`] on every call but a process's first, even after the first
    /// `Eal` was dropped: DPDK cannot start twice. Otherwise what is missing, and how to provide
    /// it.
    pub fn start(options: &EalOptions) -> Result<Self, DpdkError> {
        static STARTED: AtomicBool = AtomicBool::new(false);
        if options.memory.hugepages {
            let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
            require_hugepages(&meminfo, options.memory.mib)?;
        }
        pci::require(&options.pci, options.memory.mib)?;
        let arguments = options
            .arguments()
            .into_iter()
            .map(c_string)
            .collect::<Result<Vec<_>, _>>()?;
        // EAL reorders the array and keeps pointers into the strings.
        let mut pointers: Vec<_> = arguments.into_iter().map(CString::into_raw).collect();
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(DpdkError::AlreadyStarted);
        }
        let count = c_int::try_from(pointers.len()).expect("a few arguments");
        // SAFETY: `pointers` holds `count` NUL-terminated strings, which are never freed.
        let parsed = unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) };
        if parsed < 0 {
            return Err(DpdkError::Start {
                cause: last_error(),
                memory_mib: options.memory.mib,
                cpu: options.cpu,
            });
        }
        // SAFETY: the EAL has started.
        unsafe { dpdk_sys::rte_log_to_stderr_shim() };
        remove_runtime_directory();
        Ok(Self(Arc::new(Environment {
            abandoned: AtomicBool::new(false),
        })))
    }

    /// The version of the DPDK that is linked in, as in `DPDK 22.11.11`.
    pub fn version() -> String {
        // SAFETY: returns a static NUL-terminated string.
        let version = unsafe { CStr::from_ptr(dpdk_sys::rte_version()) };
        version.to_string_lossy().into_owned()
    }

    /// The frequency of [`cycles`], in Hz.
    pub fn cycles_per_second(&self) -> u64 {
        // SAFETY: reads a number that EAL measured when it started.
        unsafe { dpdk_sys::rte_get_tsc_hz() }
    }

    /// Runs `work` on DPDK's interrupt thread and returns its result. Attributes of a thread, such
    /// as its capabilities, can be changed only by that thread. A panic in `work` ends the process.
    ///
    /// # Errors
    /// [`DpdkError::InterruptThread`] if the thread does not run it within 60 s.
    pub fn on_interrupt_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DpdkError> {
        type Work = Box<dyn FnOnce() + Send>;
        extern "C" fn call(work: *mut c_void) {
            // SAFETY: made by `Box::into_raw` below, and DPDK calls an alarm once.
            let work = unsafe { Box::from_raw(work.cast::<Work>()) };
            work();
        }
        const SOON_US: u64 = 1;
        let (done, result) = mpsc::sync_channel(1);
        let work: Work = Box::new(move || drop(done.send(work())));
        let raw = Box::into_raw(Box::new(work));
        // SAFETY: `call` takes over the box, on the other thread; its content is `Send` and owned.
        if unsafe { dpdk_sys::rte_eal_alarm_set(SOON_US, Some(call), raw.cast()) } != 0 {
            // SAFETY: DPDK has not taken over the box.
            drop(unsafe { Box::from_raw(raw) });
            return Err(DpdkError::InterruptThread);
        }
        result
            .recv_timeout(INTERRUPT_THREAD_MAX)
            .map_err(|_| DpdkError::InterruptThread)
    }

    /// Leaves the memory to the end of the process: an mbuf in it is still in use.
    fn abandon(&self) {
        self.0.abandoned.store(true, Ordering::SeqCst);
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if !self.abandoned.load(Ordering::SeqCst) {
            // SAFETY: pools and ports hold an `Eal`, so none is left; and no mbuf is left, or its
            // pool would have abandoned the environment.
            let _ = unsafe { dpdk_sys::rte_eal_cleanup() };
        }
    }
}

/// The CPU's time stamp counter: the cheapest clock. [`Eal::cycles_per_second`] is its frequency.
#[inline]
pub fn cycles() -> u64 {
    // SAFETY: reads a register that every x86-64 has.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Why DPDK refuses. Each message says what to do.
#[derive(Debug, Error)]
pub enum DpdkError {
    /// Second start in one process.
    #[error("DPDK has already been started in this process; it can be started only once")]
    AlreadyStarted,
    /// Not enough hugepages.
    #[error(
        "memory.hugepages = true needs {needed} free hugepages of {page_kib} KiB, but {free} are \
         free: run `echo {total} > /proc/sys/vm/nr_hugepages` as root, or set memory.hugepages = \
         false (leave out vf-provisioner's --hugepages)"
    )]
    Hugepages {
        /// Pages that `memory.mib` needs.
        needed: u64,
        /// Free pages.
        free: u64,
        /// The number to set, which leaves other users' pages to them.
        total: u64,
        /// The size of one page.
        page_kib: u64,
    },
    /// EAL refused to start.
    #[error(
        "DPDK does not start ({cause}; its own message is on standard error). Check that this \
         process may use CPU {cpu}, and that {memory_mib} MiB of memory are free (memory.mib, or \
         vf-provisioner's --packet-memory)"
    )]
    Start {
        /// DPDK's error.
        cause: String,
        /// The memory asked for.
        memory_mib: u32,
        /// The CPU asked for.
        cpu: usize,
    },
    /// The interrupt thread does not answer.
    #[error("DPDK's interrupt thread does not respond; DPDK's own message is on standard error")]
    InterruptThread,
    /// A value that DPDK's argument syntax cannot carry.
    #[error(
        "{what} {value:?} has a character that DPDK cannot take in a name: use letters, digits, \
         '-', '_' and '.'"
    )]
    Text {
        /// What the value is.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// No memory for the packets.
    #[error(
        "no room for {frames} packet buffers of {bytes} bytes each ({cause}): set memory.mib, \
         or vf-provisioner's --packet-memory, to at least {mib}"
    )]
    PacketMemory {
        /// Buffers requested.
        frames: u32,
        /// Bytes of one buffer, its headers included.
        bytes: u32,
        /// The memory that would suffice.
        mib: u64,
        /// DPDK's error.
        cause: String,
    },
    /// The kernel interface does not exist.
    #[error(
        "port {port}: no interface {interface:?} in this network namespace: create it, or correct \
         device.interface"
    )]
    NoInterface {
        /// The port's name.
        port: String,
        /// The interface's name.
        interface: String,
    },
    /// A capability is missing.
    #[error("port {port}: no permission to open {device}: it needs {capability} while it starts")]
    Permission {
        /// The port's name.
        port: String,
        /// The device, as DPDK knows it.
        device: String,
        /// The capabilities.
        capability: &'static str,
    },
    /// The PCI function does not exist, or this process may not use it.
    #[error("port {port}: PCI function {address} {problem}")]
    Pci {
        /// The port's name.
        port: String,
        /// The function.
        address: PciAddress,
        /// The problem, and what to do.
        problem: String,
    },
    /// The device's MAC differs from the port's.
    #[error(
        "port {port}: {address} has the MAC {is}, but the configuration says {wanted}, so the NIC \
         would deliver it other frames: `ip link set PF vf N mac {wanted}`, then start the switch \
         again"
    )]
    Mac {
        /// The port's name.
        port: String,
        /// The function.
        address: PciAddress,
        /// The device's MAC.
        is: String,
        /// The port's MAC.
        wanted: MacAddr,
    },
    /// The limit on locked memory is too low for devices that write to memory.
    #[error(
        "{address} writes to packet memory, which must be locked (RLIMIT_MEMLOCK): memory.mib = \
         {memory_mib}, but this process may lock only {allowed_kib} KiB. Raise the limit (`ulimit \
         -l`, LimitMEMLOCK= of a systemd unit) to {} KiB, or lower memory.mib (vf-provisioner's \
         --packet-memory)",
        u64::from(*memory_mib) * 1024
    )]
    LockedMemory {
        /// A function that writes to it.
        address: PciAddress,
        /// The memory to lock.
        memory_mib: u32,
        /// The limit.
        allowed_kib: u64,
    },
    /// A device without a driver.
    #[error(
        "port {port}: an offline device carries no frames: give it af_packet, af_xdp, memif or pci"
    )]
    Offline {
        /// The port's name.
        port: String,
    },
    /// Any other refusal of a device.
    #[error(
        "port {port}: cannot {step} {device}: {cause} (DPDK's own message is on standard error)"
    )]
    Device {
        /// The port's name.
        port: String,
        /// The device, as DPDK knows it.
        device: String,
        /// The failed step.
        step: &'static str,
        /// The error.
        cause: String,
    },
    /// The socket of a memif cannot be used.
    #[error(
        "port {port}: memif socket {path:?} is longer than the 107 bytes of a unix socket's name"
    )]
    SocketPath {
        /// The port's name.
        port: String,
        /// The path.
        path: PathBuf,
    },
}

/// A string for DPDK. One with a NUL is refused.
fn c_string(text: String) -> Result<CString, DpdkError> {
    CString::new(text).map_err(|error| DpdkError::Text {
        what: "the text",
        value: String::from_utf8_lossy(&error.into_vec()).into_owned(),
    })
}

/// DPDK's text for an error number, negative or not.
fn describe(errno: c_int) -> String {
    // SAFETY: returns a NUL-terminated string, static or in a buffer of this thread.
    let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(errno.wrapping_abs())) };
    text.to_string_lossy().into_owned()
}

/// DPDK's text for the last error of this thread.
fn last_error() -> String {
    // SAFETY: reads a thread-local integer.
    describe(unsafe { dpdk_sys::rte_errno_shim() })
}

/// Removes the directory that EAL creates for shared files, even if it is told to share none.
fn remove_runtime_directory() {
    // SAFETY: returns a NUL-terminated string in static memory, written once at start.
    let path = unsafe { CStr::from_ptr(dpdk_sys::rte_eal_get_runtime_dir()) };
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    // Neither is removed unless it is empty; other processes may use the second.
    if std::fs::remove_dir(path).is_ok() {
        let _ = path.parent().map(std::fs::remove_dir);
    }
}

/// Counts the free hugepages before EAL starts, which would only say "Cannot init memory".
fn require_hugepages(meminfo: &str, mib: u32) -> Result<(), DpdkError> {
    let field = |name: &str| {
        meminfo
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .unwrap_or(0_u64)
    };
    let page_kib = field("Hugepagesize:").max(1);
    let needed = (u64::from(mib) * 1024).div_ceil(page_kib);
    let free = field("HugePages_Free:").saturating_sub(field("HugePages_Rsvd:"));
    if needed <= free {
        return Ok(());
    }
    Err(DpdkError::Hugepages {
        needed,
        free,
        total: field("HugePages_Total:") + needed - free,
        page_kib,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eal_arguments_share_no_file() {
        let mut options = EalOptions {
            memory: Memory {
                mib: 32,
                hugepages: false,
            },
            cpu: 3,
            name: "red".into(),
            pci: Vec::new(),
            one_file: false,
        };
        assert_eq!(
            options.arguments().join(" "),
            "vswitch-red --lcores 0@3 --no-telemetry --iova-mode va --file-prefix vswitch-red \
             --log-level warning -m 32 --no-huge --no-shconf --no-pci"
        );
        options.memory.hugepages = true;
        let address = "0000:3b:02.1".parse().expect("an address");
        options.pci = vec![("red-vm1".into(), address)];
        assert_eq!(
            options.arguments().join(" "),
            "vswitch-red --lcores 0@3 --no-telemetry --iova-mode va --file-prefix vswitch-red \
             --log-level warning -m 32 --in-memory --socket-limit 32 --allow 0000:3b:02.1"
        );
    }

    #[test]
    fn missing_hugepages_are_counted() {
        let meminfo = "HugePages_Total:      20\nHugePages_Free:       12\n\
                       HugePages_Rsvd:        2\nHugepagesize:       2048 kB\n";
        assert!(require_hugepages(meminfo, 20).is_ok());
        let refused = require_hugepages(meminfo, 32).expect_err("ten are free, not sixteen");
        assert_eq!(
            refused.to_string(),
            "memory.hugepages = true needs 16 free hugepages of 2048 KiB, but 10 are free: run \
             `echo 26 > /proc/sys/vm/nr_hugepages` as root, or set memory.hugepages = false \
             (leave out vf-provisioner's --hugepages)"
        );
    }
}
