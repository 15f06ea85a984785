//! Safe DPDK: the environment ([`Eal`]), packet memory ([`Mempool`], [`Mbuf`], [`Burst`]) and devices
//! ([`Port`]).
//!
//! What makes it safe to use:
//! - There is one [`Eal`] per process, started once; whatever needs it keeps it alive.
//! - An [`Mbuf`] is owned. Who drops it frees it; a [`Burst`] that is dropped frees what is left in it.
//! - A pool some of whose mbufs are still out when its last handle goes is never freed, nor is the EAL's memory:
//!   so an [`Mbuf`] needs no lifetime and no reference count, and cannot dangle.
//! - A [`Port`] has one queue each way, and receiving and sending need `&mut`: no two threads share a queue.
// Raw DPDK is called here and nowhere else; every block says why it is sound.
#![allow(unsafe_code)]

mod lcore;
mod mbuf;
mod pci;
mod port;

use std::ffi::{CStr, CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tenant_config::{MacAddr, Memory, PciAddress};
use thiserror::Error;

pub use lcore::set_time_slice;
pub use mbuf::{Burst, Mbuf, Mempool};
pub use port::{Port, PortOptions, PortStats};

/// How long DPDK's interrupt thread may take to come to its work. It has hardly any, so what takes it that long is the
/// machine: one that is translated by a translated QEMU needed more than 5 s.
const INTERRUPT_THREAD_MAX: Duration = Duration::from_secs(60);

/// What starts an [`Eal`].
#[derive(Debug, Clone)]
pub struct EalOptions {
    /// Packet memory, and whether it comes from hugepages.
    pub memory: Memory,
    /// The CPU of the calling thread, which becomes the one DPDK lcore. It is bound to that CPU.
    pub cpu: usize,
    /// What tells this process from others in DPDK's log: the tenant's name.
    pub name: String,
    /// The PCI functions that this process may touch, each behind the name of its port for errors; with none, the
    /// PCI bus is not looked at.
    pub pci: Vec<(String, PciAddress)>,
    /// Whether all hugepages are one file: a back end of vhost-user maps at most eight.
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
        // Either way no shared files: nothing that another process could open, nothing to leave behind.
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

/// DPDK's environment: memory, devices, the lcore. A handle; the last one cleans up.
#[derive(Debug, Clone)]
pub struct Eal(Arc<Environment>);

#[derive(Debug)]
struct Environment {
    /// Something still uses its memory: leave everything to the end of the process.
    abandoned: AtomicBool,
}

impl Eal {
    /// Starts DPDK on the calling thread, which becomes its lcore and is bound to `options.cpu`.
    ///
    /// # Errors
    /// [`DpdkError::AlreadyStarted`] on every call but a process's first, even after the first was dropped: DPDK cannot
    /// start twice. Otherwise what is missing, and how to get it.
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

    /// What [`cycles`] counts in a second.
    pub fn cycles_per_second(&self) -> u64 {
        // SAFETY: reads what EAL measured when it started.
        unsafe { dpdk_sys::rte_get_tsc_hz() }
    }

    /// Does `work` on DPDK's interrupt thread, and returns what it gives. What belongs to a thread, as its capabilities
    /// do, can be changed only there. A panic in `work` ends the process.
    ///
    /// # Errors
    /// [`DpdkError::InterruptThread`] if the thread does not come to it in [`INTERRUPT_THREAD_MAX`].
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
        // SAFETY: `call` takes the box over, on the other thread; everything in it is `Send` and owned.
        if unsafe { dpdk_sys::rte_eal_alarm_set(SOON_US, Some(call), raw.cast()) } != 0 {
            // SAFETY: DPDK has not taken it.
            drop(unsafe { Box::from_raw(raw) });
            return Err(DpdkError::InterruptThread);
        }
        result
            .recv_timeout(INTERRUPT_THREAD_MAX)
            .map_err(|_| DpdkError::InterruptThread)
    }

    /// Gives up on cleaning up: something still points into the memory.
    fn abandon(&self) {
        self.0.abandoned.store(true, Ordering::SeqCst);
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if !self.abandoned.load(Ordering::SeqCst) {
            // SAFETY: pools and ports hold an `Eal`, so none is left; and no mbuf is, or the pool that
            // it belongs to would have abandoned the environment.
            let _ = unsafe { dpdk_sys::rte_eal_cleanup() };
        }
    }
}

/// The CPU's time stamp counter: the cheapest clock there is, in units of [`Eal::cycles_per_second`].
#[inline]
pub fn cycles() -> u64 {
    // SAFETY: reads a register that every x86-64 has.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Why DPDK cannot do what it was asked. Each sentence says what to do.
#[derive(Debug, Error)]
pub enum DpdkError {
    /// Second start in one process.
    #[error("DPDK has already been started in this process; it can be started only once")]
    AlreadyStarted,
    /// Not enough hugepages.
    #[error(
        "memory.hugepages = true needs {needed} free hugepages of {page_kib} KiB, but {free} are free: \
         run `echo {total} > /proc/sys/vm/nr_hugepages` as root, or set memory.hugepages = false"
    )]
    Hugepages {
        /// Pages that `memory.mib` takes.
        needed: u64,
        /// Pages that are free now.
        free: u64,
        /// What to set, so that the others who use hugepages keep theirs.
        total: u64,
        /// The size of one page.
        page_kib: u64,
    },
    /// EAL refused to start.
    #[error(
        "DPDK does not start ({cause}; its own words are on standard error). Check that CPU {cpu} exists and is allowed to this \
         process, and that {memory_mib} MiB of memory are (memory.mib)"
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
    #[error("DPDK's interrupt thread does not take work; its own words are on standard error")]
    InterruptThread,
    /// A value that DPDK's argument syntax cannot carry.
    #[error(
        "{what} {value:?} has a character that DPDK cannot take in a name: use letters, digits, '-', '_' and '.'"
    )]
    Text {
        /// What the value is.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// No memory for the packets.
    #[error(
        "no room for {frames} packet buffers of {bytes} bytes each ({cause}): set memory.mib to at least {mib}"
    )]
    PacketMemory {
        /// Buffers asked for.
        frames: u32,
        /// Bytes of one, its headers included.
        bytes: u32,
        /// What would suffice.
        mib: u64,
        /// DPDK's error.
        cause: String,
    },
    /// The kernel interface is not there.
    #[error(
        "port {port}: no interface {interface:?} in this network namespace: create it, or correct device.interface"
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
    /// The PCI function is not there or not ours.
    #[error("port {port}: PCI function {address} {problem}")]
    Pci {
        /// The port's name.
        port: String,
        /// The function.
        address: PciAddress,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The device answers to another MAC than the port's.
    #[error(
        "port {port}: {address} has the MAC {is}, but the configuration says {wanted}, so the NIC would deliver it other \
         frames: `ip link set PF vf N mac {wanted}`, then start the switch again"
    )]
    Mac {
        /// The port's name.
        port: String,
        /// The function.
        address: PciAddress,
        /// What the device says.
        is: String,
        /// What it should say.
        wanted: MacAddr,
    },
    /// The limit on locked memory is too low for devices that write to it.
    #[error(
        "{address} writes to packet memory, which is locked therefor: memory.mib = {memory_mib}, but this process may lock only \
         {allowed_kib} KiB. Raise the limit (`ulimit -l`, LimitMEMLOCK= of a systemd unit) to {} KiB, or lower memory.mib",
        u64::from(*memory_mib) * 1024
    )]
    LockedMemory {
        /// A function that needs it.
        address: PciAddress,
        /// What is to be locked.
        memory_mib: u32,
        /// What may be.
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
        "port {port}: cannot {step} {device}: {cause} (DPDK's own words are on standard error)"
    )]
    Device {
        /// The port's name.
        port: String,
        /// The device, as DPDK knows it.
        device: String,
        /// What was attempted.
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

/// A string for DPDK. Ours come from checked names; what has a NUL is refused.
fn c_string(text: String) -> Result<CString, DpdkError> {
    CString::new(text).map_err(|error| DpdkError::Text {
        what: "the text",
        value: String::from_utf8_lossy(&error.into_vec()).into_owned(),
    })
}

/// DPDK's words for an error number, negative or not.
fn describe(errno: c_int) -> String {
    // SAFETY: returns a NUL-terminated string, static or in a buffer of this thread.
    let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(errno.wrapping_abs())) };
    text.to_string_lossy().into_owned()
}

/// DPDK's words for what failed last on this thread.
fn last_error() -> String {
    // SAFETY: reads a thread-local integer.
    describe(unsafe { dpdk_sys::rte_errno_shim() })
}

/// EAL makes a directory for files that two processes share, also where it is told to share none.
fn remove_runtime_directory() {
    // SAFETY: returns a NUL-terminated string in static memory, written once at start.
    let path = unsafe { CStr::from_ptr(dpdk_sys::rte_eal_get_runtime_dir()) };
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    // Neither is removed if it has something in it, and the second is not ours alone.
    if std::fs::remove_dir(path).is_ok() {
        let _ = path.parent().map(std::fs::remove_dir);
    }
}

/// EAL would say "Cannot init memory"; this says how many pages are missing.
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
    fn eal_is_told_to_share_nothing() {
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
    fn too_few_hugepages_are_counted_before_dpdk_starts() {
        let meminfo = "HugePages_Total:      20\nHugePages_Free:       12\nHugePages_Rsvd:        2\n\
                       Hugepagesize:       2048 kB\n";
        assert!(require_hugepages(meminfo, 20).is_ok());
        let refused = require_hugepages(meminfo, 32).expect_err("ten are free, not sixteen");
        assert_eq!(
            refused.to_string(),
            "memory.hugepages = true needs 16 free hugepages of 2048 KiB, but 10 are free: run \
             `echo 26 > /proc/sys/vm/nr_hugepages` as root, or set memory.hugepages = false"
        );
    }
}
