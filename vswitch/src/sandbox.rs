//! Drops the process's privileges after start-up.
//!
//! A switch opens its devices, its sockets and its memory first, and never needs to open anything
//! later. An attacker who takes the process over reaches nothing but the switch's own frames:
//!
//! - **no new privileges, no capabilities, no core dumps**: [`confine_thread`];
//! - **Landlock**: no file can be opened, no TCP port bound or connected, no abstract socket
//!   reached, no other process signalled; only files in the directories of the switch's own sockets
//!   can be removed;
//! - **seccomp**: an allow-list of the system calls that the worker, the control thread and DPDK's
//!   interrupt thread make while they run; any other kills the process: [`filter_all_threads`].
//!
//! Capabilities and Landlock are per thread and inherited by new threads, so [`confine_thread`] is
//! called before the first thread is spawned, and on DPDK's interrupt thread, which runs already.
//! The seccomp filter is installed on all threads at once, when all have started. What the kernel
//! lacks is logged, and the rest is applied.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::libc;
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
    /// Directories in which memif creates and removes its sockets.
    pub memif_in: Vec<PathBuf>,
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
                Device::Memif { socket, .. } => needs.memif_in.push(parent(socket)),
                Device::Pci { .. } => needs.vfio = true,
                Device::Offline | Device::AfPacket { .. } | Device::AfXdp { .. } => {}
            }
        }
        needs
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
    for directory in &needs.remove_in {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(directory)?, remove))?;
    }
    for directory in &needs.memif_in {
        let access = remove | AccessFs::MakeSock;
        rules = rules.add_rule(PathBeneath::new(PathFd::new(directory)?, access))?;
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
    let allowed = program(
        allowed(needs)?,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
    )?;
    // Calls that libraries try and can do without are refused, not fatal. The kernel applies the
    // stricter result of the two filters, so this one takes effect beside the first.
    let refused = REFUSED.iter().map(|call| (*call, vec![])).collect();
    let refused = program(
        refused,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EACCES as u32),
    )?;
    seccompiler::apply_filter_all_threads(&refused)?;
    seccompiler::apply_filter_all_threads(&allowed)?;
    Ok(())
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

/// What every switch calls while it runs, with any arguments.
const ALLOWED: &[i64] = &[
    // Frames, connections and the log, on open descriptors.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    // Connections to the control socket and the channel.
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // Waiting.
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_create,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_futex,
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
    libc::SYS_madvise,
    // The process itself.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    // The end: the sockets' files are removed, which Landlock confines to their directories.
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What memif calls in addition when a peer reconnects: for its socket and the shared memory.
const MEMIF: &[i64] = &[
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
];

fn allowed(needs: &Needs) -> Result<Rules, SandboxError> {
    let mut rules: Rules = ALLOWED
        .iter()
        .chain(REFUSED)
        .map(|call| (*call, vec![]))
        .collect();

    // Memory is never executable.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![masked(2, libc::PROT_EXEC as u64, 0)?]);
    }
    rules.insert(libc::SYS_mremap, vec![]);

    // Flags of a descriptor, but no leases, seals or owners.
    let fcntl = [
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_DUPFD_CLOEXEC,
    ];
    let fcntl: Result<Vec<_>, _> = fcntl.iter().map(|op| equal(1, *op as u64)).collect();
    rules.insert(libc::SYS_fcntl, fcntl?);

    // The log is replaced: only standard output and standard error can be.
    let outputs: Result<Vec<_>, _> = [1, 2].into_iter().map(|fd| equal(1, fd)).collect();
    rules.insert(libc::SYS_dup2, outputs?);

    // Non-blocking mode, and an interface's flags (DPDK reads whether the link is up).
    let mut ioctls = vec![
        equal(1, libc::FIONBIO)?,
        equal(1, libc::SIOCGIFFLAGS)?,
        equal(1, libc::SIOCSIFFLAGS)?,
        equal(1, libc::SIOCETHTOOL)?,
    ];

    // Signals go to this process only.
    let pid = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![equal(0, pid)?]);
    rules.insert(libc::SYS_kill, vec![equal(0, pid)?]);

    if !needs.memif_in.is_empty() {
        rules.extend(MEMIF.iter().map(|call| (*call, vec![])));
        rules.insert(libc::SYS_socket, vec![equal(0, libc::AF_UNIX as u64)?]);
        let seals = rules.entry(libc::SYS_fcntl).or_default();
        seals.push(equal(1, libc::F_ADD_SEALS as u64)?);
        seals.push(equal(1, libc::F_GET_SEALS as u64)?);
    }
    if needs.vfio {
        // A driver's interrupt thread may re-arm an interrupt. Mapping memory for a device,
        // resetting one or opening another is no longer allowed.
        const VFIO_DEVICE_SET_IRQS: u64 = 0x3b6e;
        ioctls.push(equal(1, VFIO_DEVICE_SET_IRQS)?);
    }
    rules.insert(libc::SYS_ioctl, ioctls);
    Ok(rules)
}

fn equal(argument: u8, value: u64) -> Result<SeccompRule, SandboxError> {
    condition(argument, SeccompCmpOp::Eq, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompRule, SandboxError> {
    condition(argument, SeccompCmpOp::MaskedEq(mask), value)
}

fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompRule, SandboxError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}
