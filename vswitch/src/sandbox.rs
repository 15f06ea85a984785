//! Drops the process's privileges after start-up.
//!
//! A switch opens its devices, its sockets and its memory first, and never needs to open anything
//! later. An attacker who takes the process over reaches nothing but the switch's own frames:
//!
//! - **no new privileges, no capabilities, no core dumps**: [`confine_thread`];
//! - **limits**: no file grows, and few descriptors can be added: [`limit_resources`];
//! - **Landlock**: no file can be opened, no TCP port bound or connected, no abstract socket
//!   reached, no other process signalled; only files in the directories of the switch's own sockets
//!   can be removed;
//! - **seccomp**: an allow-list of the system calls that the worker, the control thread and DPDK's
//!   interrupt thread make while they run, and of their arguments; anything else kills the process:
//!   [`filter_all_threads`].
//!
//! Capabilities and Landlock are per thread and inherited by new threads, so [`confine_thread`] is
//! called before the first thread is spawned, and on DPDK's interrupt thread, which runs already.
//! The seccomp filter is installed on all threads at once, when all have started. What the kernel
//! lacks is logged, and the rest is applied.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::libc;
use rustix::fs::FileType;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use tenant_config::{Device, SwitchConfig};

/// What one switch still needs after start-up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Directories in which a socket may be removed: the control socket's and the channel's.
    pub remove_in: Vec<PathBuf>,
    /// Directories in which memif has its sockets, which are removed at the end.
    pub memif_in: Vec<PathBuf>,
    /// The largest shared memory of a memif, in bytes.
    memif_bytes: u64,
    /// A device is an XDP socket.
    af_xdp: bool,
    /// A device is driven through VFIO.
    pub vfio: bool,
}

impl Needs {
    /// What the devices of `config`, and these sockets of the control thread, need.
    pub fn of<'a>(config: &SwitchConfig, sockets: impl IntoIterator<Item = &'a Path>) -> Self {
        let parent = |path: &Path| match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut needs = Self {
            remove_in: sockets.into_iter().map(parent).collect(),
            ..Self::default()
        };
        for side in config.devices() {
            match side.device {
                Device::Memif { socket, .. } => {
                    needs.memif_in.push(parent(socket));
                    needs.memif_bytes = needs.memif_bytes.max(dpdk::memif_bytes(side.mtu));
                }
                Device::Pci { .. } => needs.vfio = true,
                Device::AfXdp { .. } => needs.af_xdp = true,
                Device::Offline | Device::AfPacket { .. } => {}
            }
        }
        needs
    }

    fn memif(&self) -> bool {
        !self.memif_in.is_empty()
    }

    /// The descriptors that it may open once its devices are: for the control thread, for
    /// connections to its sockets, and for the interrupt thread. A memif has a connection, its
    /// memory, and an event for each of two rings.
    fn descriptors(&self) -> u64 {
        const CONNECTIONS: u64 = 64;
        const MEMIF: u64 = 8;
        CONNECTIONS + MEMIF * self.memif_in.len() as u64
    }

    /// The largest file that may be written.
    fn file_bytes(&self) -> u64 {
        self.memif_bytes
    }
}

/// Why the sandbox could not be built. Without it the switch runs only with `--no-sandbox`.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A prctl(2) was refused.
    #[error("prctl({what}): {source}")]
    Prctl {
        /// The operation.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// A resource limit was refused.
    #[error("the limits of the process: {0}")]
    Limit(nix::Error),
    /// Capabilities could not be dropped.
    #[error("the capabilities could not be dropped: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// Landlock refused the rules.
    #[error("Landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// A directory of the rules cannot be opened.
    #[error("Landlock: {0}; create the directory before the switch starts")]
    Directory(#[from] landlock::PathFdError),
    /// seccomp refused the filter.
    #[error("seccomp: {0}; a kernel without seccomp filters needs --no-sandbox")]
    Seccomp(#[from] seccompiler::Error),
    /// The filter could not be compiled.
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::BackendError),
}

/// How much of Landlock the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LandlockLevel {
    /// Everything requested.
    Full,
    /// An older Landlock: files, but not every newer kind of access.
    Partial,
    /// None: the kernel has no Landlock, or it is off.
    Absent,
}

impl fmt::Display for LandlockLevel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::Absent => "absent",
        })
    }
}

/// Confines the calling thread, and the threads it will start, to `needs`.
pub fn confine_thread(needs: &Needs) -> Result<LandlockLevel, SandboxError> {
    let prctl = |what| {
        move |errno: nix::Error| SandboxError::Prctl {
            what,
            source: errno.into(),
        }
    };
    nix::sys::prctl::set_no_new_privs().map_err(prctl("no_new_privs"))?;
    // No core file, which would hold a tenant's frames, and no tracer of the same user.
    nix::sys::prctl::set_dumpable(false).map_err(prctl("dumpable"))?;
    let level = landlock(needs)?;
    drop_capabilities()?;
    Ok(level)
}

/// Bounds, for good, what the process may have of files and descriptors. It has no file to write
/// to: its log is a pipe, a socket or a terminal. If a shell has redirected the log to a file, a
/// large limit stays, and what exceeds it is not written. To be called when the devices are open,
/// and before [`confine_thread`], which ends the view of `/proc`.
pub fn limit_resources(needs: &Needs) -> Result<(), SandboxError> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::signal::{SigSet, Signal};
    const LOG_FILE_BYTES: u64 = 1 << 30;
    let is_file = |output: BorrowedFd<'_>| {
        let kind = rustix::fs::fstat(output).map(|it| FileType::from_raw_mode(it.st_mode));
        kind == Ok(FileType::RegularFile)
    };
    let mut file_bytes = needs.file_bytes();
    if is_file(io::stdout().as_fd()) || is_file(io::stderr().as_fd()) {
        // Without the signal, a write fails instead of ending the process.
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGXFSZ);
        signals.thread_block().map_err(SandboxError::Limit)?;
        file_bytes = LOG_FILE_BYTES;
    }
    let open = highest_descriptor().map_or(u64::MAX, |highest| highest + needs.descriptors());
    for (resource, wanted) in [
        (Resource::RLIMIT_FSIZE, file_bytes),
        (Resource::RLIMIT_NOFILE, open),
        (Resource::RLIMIT_CORE, 0),
    ] {
        let (_, most) = getrlimit(resource).map_err(SandboxError::Limit)?;
        let limit = wanted.min(most);
        setrlimit(resource, limit, limit).map_err(SandboxError::Limit)?;
    }
    Ok(())
}

/// The largest open descriptor.
fn highest_descriptor() -> Option<u64> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?;
    open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .max()
}

/// Clears every capability set of the calling thread.
pub fn drop_capabilities() -> Result<(), SandboxError> {
    use caps::{CapSet, Capability};
    // Without CAP_SETPCAP the bounding set stays; with no_new_privs it grants nothing.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    for set in [
        CapSet::Ambient,
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
    ] {
        caps::clear(None, set)?;
    }
    Ok(())
}

fn landlock(needs: &Needs) -> Result<LandlockLevel, SandboxError> {
    // The newest ABI that this list was checked against; an older kernel uses its own.
    const CHECKED: ABI = ABI::V7;
    let remove: BitFlags<AccessFs> = AccessFs::RemoveFile.into();
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(CHECKED))?
        .handle_access(AccessNet::from_all(CHECKED))?
        .scope(Scope::from_all(CHECKED))?
        .create()?;
    for directory in needs.remove_in.iter().chain(&needs.memif_in) {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(directory)?, remove))?;
    }
    let status = rules.restrict_self()?;
    Ok(match (status.landlock, status.ruleset) {
        (LandlockStatus::NotEnabled | LandlockStatus::NotImplemented, _)
        | (_, RulesetStatus::NotEnforced) => LandlockLevel::Absent,
        (_, RulesetStatus::PartiallyEnforced) => LandlockLevel::Partial,
        (_, RulesetStatus::FullyEnforced) => LandlockLevel::Full,
    })
}

/// Installs the system call filter on every thread of the process, for good.
pub fn filter_all_threads(needs: &Needs) -> Result<(), SandboxError> {
    for filter in filters(needs)? {
        seccompiler::apply_filter_all_threads(&filter)?;
    }
    Ok(())
}

/// The filters. The kernel applies the strictest result of all.
fn filters(needs: &Needs) -> Result<[BpfProgram; 2], SandboxError> {
    // Calls that libraries try and can do without are refused, not fatal.
    let refused = REFUSED.iter().map(|call| (*call, vec![])).collect();
    let refused = program(
        refused,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EACCES as u32),
    )?;
    let allowed = program(
        allowed(needs)?,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
    )?;
    Ok([refused, allowed])
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, SandboxError> {
    let arch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()?)
}

/// Opening and look-ups by name: glibc and the standard library try them for things they can do
/// without (the number of CPUs, a time zone, the symbols of a backtrace).
const REFUSED: &[i64] = &[
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
];

/// What every switch calls while it runs, with any arguments: none of them reaches more than an
/// open descriptor or the caller's own memory does. Calls that are allowed with some arguments only
/// are in [`allowed`].
const ALLOWED: &[i64] = &[
    // Frames, connections and the log, on open descriptors. No file can be written to: its size
    // is limited, see `limit_resources`.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    // Connections to the control socket and the channel.
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Waiting.
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_create,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_timerfd_settime,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // Time, if the vDSO falls back to a system call.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    // The worker reads its schedstat: whether it had to wait for its CPU.
    libc::SYS_pread64,
    // Memory; mapping is below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    // The process itself.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // The end: the sockets' files are removed, which Landlock confines to their directories.
    libc::SYS_unlink,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What memif calls in addition when a peer reconnects: for its connection and the events of the
/// shared memory. The connection's messages carry descriptors.
const MEMIF: &[i64] = &[
    libc::SYS_connect,
    libc::SYS_accept,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_eventfd2,
];

fn allowed(needs: &Needs) -> Result<Rules, SandboxError> {
    let mut rules: Rules = ALLOWED
        .iter()
        .chain(REFUSED)
        .map(|call| (*call, vec![]))
        .collect();
    memory(needs, &mut rules)?;
    sockets(needs, &mut rules)?;

    // Waiting and waking, but no inheritance of priorities and no requeuing.
    const FLAGS: i32 = libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME;
    let futex = [
        libc::FUTEX_WAIT,
        libc::FUTEX_WAKE,
        libc::FUTEX_WAIT_BITSET,
        libc::FUTEX_WAKE_BITSET,
    ];
    let futex = futex.map(|op| masked(1, !FLAGS as u32 as u64, op as u64));
    rules.insert(libc::SYS_futex, any_of(futex)?);

    // What a descriptor is, and copies of it. Its status flags stay: O_APPEND, O_NONBLOCK, O_ASYNC.
    let mut fcntl = vec![
        equal(1, libc::F_GETFL as u64)?,
        equal(1, libc::F_GETFD as u64)?,
        equal(1, libc::F_DUPFD_CLOEXEC as u64)?,
    ];
    // Non-blocking mode, and an interface's flags: whether the link is up.
    let mut ioctl = vec![equal(1, libc::FIONBIO)?, equal(1, libc::SIOCGIFFLAGS)?];

    // This process only. Signals end it.
    let pid = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![equal(0, pid)?]);
    rules.insert(libc::SYS_sched_getaffinity, vec![equal(0, 0)?]);

    if needs.memif() {
        rules.extend(MEMIF.iter().map(|call| (*call, vec![])));
        fcntl.push(equal(1, libc::F_ADD_SEALS as u64)?);
    }
    if needs.vfio {
        // A driver's interrupt thread may re-arm an interrupt. Mapping memory for a device,
        // resetting one or opening another is no longer allowed.
        const VFIO_DEVICE_SET_IRQS: u64 = 0x3b6e;
        ioctl.push(equal(1, VFIO_DEVICE_SET_IRQS)?);
        // After the reset of a function, its receive interrupts get new events.
        rules.insert(libc::SYS_eventfd2, vec![]);
    }
    rules.insert(libc::SYS_fcntl, fcntl);
    rules.insert(libc::SYS_ioctl, ioctl);
    Ok(rules)
}

/// Memory is the process's own, which its control group counts: never executable, never shared,
/// never from hugepages. A memif shares memory that its peer sends, or that is made for it.
fn memory(needs: &Needs, rules: &mut Rules) -> Result<(), SandboxError> {
    const PROT: u8 = 2;
    const MAP: u8 = 3;
    let not_executable = || masked_at(PROT, libc::PROT_EXEC as u64, 0);
    rules.insert(libc::SYS_mprotect, all_of([not_executable()])?);
    let own = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let kind = libc::MAP_TYPE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
    let mut mmap = all_of([not_executable(), masked_at(MAP, kind as u64, own as u64)])?;
    if needs.memif() {
        let shared = masked_at(MAP, kind as u64, libc::MAP_SHARED as u64);
        mmap.extend(all_of([not_executable(), shared])?);
        let flags = equal(1, u64::from(libc::MFD_ALLOW_SEALING))?;
        rules.insert(libc::SYS_memfd_create, vec![flags]);
        let most = SeccompCondition::new(
            1,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::Le,
            needs.file_bytes(),
        )?;
        rules.insert(libc::SYS_ftruncate, vec![SeccompRule::new(vec![most])?]);
    }
    rules.insert(libc::SYS_mmap, mmap);
    // Freeing, and what a core dump would have; no merging with other processes' pages, no
    // hugepages.
    let advice = [
        libc::MADV_DONTNEED,
        libc::MADV_FREE,
        libc::MADV_DONTDUMP,
        libc::MADV_DODUMP,
    ];
    let advice = advice.map(|advice| equal(2, advice as u64));
    rules.insert(libc::SYS_madvise, any_of(advice)?);
    Ok(())
}

/// Sockets are those that are open, as they were set up: no rings, filters or buffers of another
/// size. Whatever is sent has no address: it goes to the peer, or out of the interface.
fn sockets(needs: &Needs, rules: &mut Rules) -> Result<(), SandboxError> {
    const LEVEL: u8 = 1;
    const NAME: u8 = 2;
    const ADDRESS: u8 = 4;
    let option = |level: i32, name: i32| {
        all_of([
            condition(LEVEL, SeccompCmpOp::Eq, level as u64),
            condition(NAME, SeccompCmpOp::Eq, name as u64),
        ])
    };
    let nowhere = SeccompCondition::new(ADDRESS, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    rules.insert(libc::SYS_sendto, vec![SeccompRule::new(vec![nowhere])?]);
    let mut read = option(libc::SOL_SOCKET, libc::SO_ERROR)?;
    read.extend(option(libc::SOL_SOCKET, libc::SO_PEERCRED)?);
    read.extend(option(libc::SOL_PACKET, libc::PACKET_STATISTICS)?);
    if needs.af_xdp {
        read.extend(option(libc::SOL_XDP, libc::XDP_STATISTICS)?);
    }
    rules.insert(libc::SYS_getsockopt, read);
    if needs.memif() {
        // Only a listener of the same type, a memif or a channel, accepts what connects from it.
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let socket = all_of([
            condition(0, SeccompCmpOp::Eq, libc::AF_UNIX as u64),
            masked_at(1, !flags as u32 as u64, libc::SOCK_SEQPACKET as u64),
        ]);
        rules.insert(libc::SYS_socket, socket?);
    }
    Ok(())
}

/// One rule, whose conditions all have to hold.
fn all_of<const N: usize>(
    conditions: [Result<SeccompCondition, SandboxError>; N],
) -> Result<Vec<SeccompRule>, SandboxError> {
    let conditions: Result<Vec<_>, _> = conditions.into_iter().collect();
    Ok(vec![SeccompRule::new(conditions?)?])
}

/// Several rules, one of which has to hold.
fn any_of<const N: usize>(
    rules: [Result<SeccompRule, SandboxError>; N],
) -> Result<Vec<SeccompRule>, SandboxError> {
    rules.into_iter().collect()
}

fn equal(argument: u8, value: u64) -> Result<SeccompRule, SandboxError> {
    let condition = condition(argument, SeccompCmpOp::Eq, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompRule, SandboxError> {
    Ok(SeccompRule::new(vec![masked_at(argument, mask, value)?])?)
}

fn masked_at(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, SandboxError> {
    condition(argument, SeccompCmpOp::MaskedEq(mask), value)
}

/// On a number of 32 bits, which is all that the kernel reads of it.
fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, SandboxError> {
    let length = SeccompCmpArgLen::Dword;
    Ok(SeccompCondition::new(argument, length, op, value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: u32 = 0x8000_0000;
    const ALLOWED_ACTION: u32 = 0x7fff_0000;
    const EACCES: u32 = 0x0005_0000 | libc::EACCES as u32;

    /// A call as the kernel shows it to a filter (`struct seccomp_data`), word by word.
    fn word(call: i64, arguments: [u64; 6], offset: u32) -> u32 {
        const X86_64: u32 = 0xc000_003e;
        match offset {
            0 => call as u32,
            4 => X86_64,
            16.. => {
                let argument = arguments[(offset as usize - 16) / 8];
                (argument >> (8 * (offset % 8))) as u32
            }
            _ => 0,
        }
    }

    /// The result of one filter: an interpreter of the instructions that it has.
    fn result(filter: &BpfProgram, call: i64, arguments: [u64; 6]) -> u32 {
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let it = &filter[at];
            let jump = |holds: bool| usize::from(if holds { it.jt } else { it.jf });
            at += 1;
            match it.code {
                0x20 => accumulator = word(call, arguments, it.k),
                0x54 => accumulator &= it.k,
                0x05 => at += it.k as usize,
                0x15 => at += jump(accumulator == it.k),
                0x25 => at += jump(accumulator > it.k),
                0x35 => at += jump(accumulator >= it.k),
                0x06 => return it.k,
                code => panic!("an instruction {code:#x}"),
            }
        }
    }

    /// What the kernel does: the strictest of all.
    fn verdict(needs: &Needs, call: i64, arguments: [u64; 6]) -> u32 {
        let filters = filters(needs).expect("filters");
        let results = filters.iter().map(|it| result(it, call, arguments));
        results.min_by_key(|it| *it as i32).expect("two filters")
    }

    /// What switches with devices of each kind need.
    fn kinds() -> [Needs; 4] {
        let memif = Needs {
            memif_in: vec![PathBuf::from("/run")],
            memif_bytes: 1 << 21,
            ..Needs::default()
        };
        let vfio = Needs {
            vfio: true,
            ..Needs::default()
        };
        let af_xdp = Needs {
            af_xdp: true,
            ..Needs::default()
        };
        [Needs::default(), memif, vfio, af_xdp]
    }

    /// The numbers of x86-64, with some to spare, and of its 32-bit twin.
    fn numbers() -> impl Iterator<Item = i64> {
        (0..600).chain(0x4000_0000..0x4000_0258)
    }

    #[test]
    fn calls_off_the_list_are_killed_whatever_their_arguments() {
        const ARGUMENTS: [u64; 7] = [0, 1, 2, 4, 0x22, u32::MAX as u64, u64::MAX];
        for needs in kinds() {
            let listed = allowed(&needs).expect("rules");
            for call in numbers().filter(|call| !listed.contains_key(call)) {
                for argument in ARGUMENTS {
                    let verdict = verdict(&needs, call, [argument; 6]);
                    assert_eq!(verdict, KILLED, "call {call} with {argument:#x}");
                }
            }
        }
    }

    #[test]
    fn look_ups_by_name_are_refused() {
        for call in REFUSED {
            for needs in kinds() {
                assert_eq!(verdict(&needs, *call, [0; 6]), EACCES, "call {call}");
            }
        }
    }

    /// How many calls each kind of switch may make, with the refused ones, which the page about
    /// the sandbox names.
    #[test]
    fn number_of_allowed_calls_is_documented() {
        let count = |needs: &Needs| {
            let listed = allowed(needs).expect("rules");
            listed.len() - REFUSED.len()
        };
        let [plain, memif, vfio, af_xdp] = kinds().map(|needs| count(&needs));
        assert_eq!(
            [vfio, af_xdp],
            [plain + 1, plain],
            "af_xdp has more arguments; vfio has new events as well"
        );
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/vswitch.md");
        let page = std::fs::read_to_string(page).expect("the page");
        for words in [
            format!("an allow-list of {plain} system calls"),
            format!("{} further calls", memif - plain),
        ] {
            assert!(page.contains(&words), "{words}");
        }
    }

    /// The kinds of switches that may make a call, in the order of [`kinds`].
    const ALL: [bool; 4] = [true; 4];
    const NONE: [bool; 4] = [false; 4];
    const MEMIF_ONLY: [bool; 4] = [false, true, false, false];
    const MEMIF_AND_VFIO: [bool; 4] = [false, true, true, false];
    const VFIO_ONLY: [bool; 4] = [false, false, true, false];
    const XDP_ONLY: [bool; 4] = [false, false, false, true];

    fn n(number: i32) -> u64 {
        number as u64
    }

    /// Checks who may make a call with these arguments, and zeros.
    #[track_caller]
    fn judged(call: i64, first: &[u64], allowed: [bool; 4]) {
        let mut arguments = [0; 6];
        arguments[..first.len()].copy_from_slice(first);
        for (needs, allowed) in kinds().iter().zip(allowed) {
            let wanted = if allowed { ALLOWED_ACTION } else { KILLED };
            let verdict = verdict(needs, call, arguments);
            assert_eq!(verdict, wanted, "call {call}, {first:x?}: {needs:?}");
        }
    }

    #[test]
    fn memory_is_private_bounded_and_not_executable() {
        const HUGETLB: u64 = libc::MAP_HUGETLB as u64;
        let (rw, exec) = (3, n(libc::PROT_EXEC));
        let (own, shared) = (0x22, n(libc::MAP_SHARED));
        judged(libc::SYS_mmap, &[0, 4096, rw, own], ALL);
        judged(
            libc::SYS_mmap,
            &[0, 4096, 0, own | n(libc::MAP_NORESERVE)],
            ALL,
        );
        judged(libc::SYS_mmap, &[0, 4096, rw | exec, own], NONE);
        judged(libc::SYS_mmap, &[0, 1 << 21, rw, own | HUGETLB], NONE);
        judged(libc::SYS_mmap, &[0, 4096, rw, shared, 3], MEMIF_ONLY);
        judged(libc::SYS_mmap, &[0, 4096, rw | exec, shared, 3], NONE);
        judged(libc::SYS_mmap, &[0, 4096, rw, shared | HUGETLB, 3], NONE);
        judged(
            libc::SYS_mmap,
            &[0, 4096, rw, n(libc::MAP_PRIVATE), 3],
            NONE,
        );
        judged(libc::SYS_mprotect, &[0, 4096, rw], ALL);
        judged(libc::SYS_mprotect, &[0, 4096, exec], NONE);
        judged(libc::SYS_madvise, &[0, 4096, n(libc::MADV_DONTNEED)], ALL);
        judged(libc::SYS_madvise, &[0, 4096, n(libc::MADV_MERGEABLE)], NONE);
        judged(libc::SYS_madvise, &[0, 4096, n(libc::MADV_HUGEPAGE)], NONE);
        judged(libc::SYS_memfd_create, &[1, 2], MEMIF_ONLY);
        judged(libc::SYS_memfd_create, &[1, 2 | 4], NONE);
        judged(libc::SYS_ftruncate, &[3, 1 << 21], MEMIF_ONLY);
        judged(libc::SYS_ftruncate, &[3, (1 << 21) + 1], NONE);
        judged(libc::SYS_ftruncate, &[3, 1 << 40], NONE);
    }

    #[test]
    fn open_sockets_stay_as_they_are_and_send_to_no_address() {
        let unix = |kind: i32| [n(libc::AF_UNIX), n(kind)];
        judged(libc::SYS_sendto, &[3, 1, 1, 0, 0, 0], ALL);
        judged(libc::SYS_sendto, &[3, 1, 1, 0, 1, 110], NONE);
        judged(libc::SYS_sendto, &[3, 1, 1, 0, 1 << 32, 110], NONE);
        judged(libc::SYS_sendmsg, &[3, 1], MEMIF_ONLY);
        judged(libc::SYS_recvmsg, &[3, 1], MEMIF_ONLY);
        let option = |level, name| [3, n(level), n(name)];
        let get = libc::SYS_getsockopt;
        judged(get, &option(libc::SOL_SOCKET, libc::SO_ERROR), ALL);
        judged(get, &option(libc::SOL_SOCKET, 77), NONE);
        judged(get, &option(libc::SOL_PACKET, libc::PACKET_STATISTICS), ALL);
        judged(get, &option(libc::SOL_XDP, libc::XDP_STATISTICS), XDP_ONLY);
        let set = libc::SYS_setsockopt;
        judged(set, &option(libc::SOL_PACKET, libc::PACKET_RX_RING), NONE);
        judged(set, &option(libc::SOL_SOCKET, libc::SO_RCVBUF), NONE);
        let seqpacket = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        judged(libc::SYS_socket, &unix(seqpacket), MEMIF_ONLY);
        judged(libc::SYS_socket, &unix(libc::SOCK_DGRAM), NONE);
        judged(libc::SYS_socket, &unix(libc::SOCK_STREAM), NONE);
        judged(libc::SYS_socket, &[n(libc::AF_INET), n(seqpacket)], NONE);
        judged(libc::SYS_bind, &[3, 1], NONE);
    }

    #[test]
    fn descriptors_and_processes_are_only_asked_about() {
        let own = u64::from(std::process::id());
        judged(libc::SYS_fcntl, &[3, n(libc::F_DUPFD_CLOEXEC)], ALL);
        judged(libc::SYS_fcntl, &[3, n(libc::F_GETFL)], ALL);
        judged(libc::SYS_fcntl, &[3, n(libc::F_SETFL)], NONE);
        judged(libc::SYS_fcntl, &[3, n(libc::F_SETPIPE_SZ), 1 << 20], NONE);
        judged(libc::SYS_fcntl, &[3, n(libc::F_SETOWN), own], NONE);
        judged(libc::SYS_fcntl, &[3, n(libc::F_ADD_SEALS), 1], MEMIF_ONLY);
        judged(libc::SYS_ioctl, &[3, libc::FIONBIO], ALL);
        judged(libc::SYS_ioctl, &[3, libc::SIOCGIFFLAGS], ALL);
        judged(libc::SYS_ioctl, &[3, libc::SIOCSIFFLAGS], NONE);
        judged(libc::SYS_ioctl, &[3, libc::SIOCETHTOOL], NONE);
        judged(libc::SYS_ioctl, &[3, libc::TIOCSTI], NONE);
        judged(libc::SYS_ioctl, &[3, 0x3b6e], VFIO_ONLY);
        judged(libc::SYS_eventfd2, &[0, 0], MEMIF_AND_VFIO);
        judged(libc::SYS_ioctl, &[3, 0x3b71], NONE);
        let futex = |op: i32| [1, n(op | libc::FUTEX_PRIVATE_FLAG)];
        judged(libc::SYS_futex, &futex(libc::FUTEX_WAIT), ALL);
        judged(libc::SYS_futex, &futex(libc::FUTEX_WAKE), ALL);
        let until = libc::FUTEX_WAIT_BITSET | libc::FUTEX_CLOCK_REALTIME;
        judged(libc::SYS_futex, &futex(until), ALL);
        judged(libc::SYS_futex, &futex(libc::FUTEX_LOCK_PI), NONE);
        judged(libc::SYS_futex, &futex(libc::FUTEX_CMP_REQUEUE_PI), NONE);
        judged(libc::SYS_tgkill, &[own, own, 6], ALL);
        judged(libc::SYS_tgkill, &[own + 1, own, 6], NONE);
        judged(libc::SYS_sched_getaffinity, &[0], ALL);
        judged(libc::SYS_sched_getaffinity, &[own], NONE);
    }
}
