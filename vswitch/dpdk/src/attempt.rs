//! System calls that a taken-over switch would make, and must not be able to.
//!
//! They are here because a raw system call takes `unsafe`. `vswitch check-sandbox` makes each in a
//! confined process of its own. Where one is not stopped, it does no harm: it fails in the kernel
//! for its arguments, or changes nothing but that process.

use std::ffi::{c_char, c_long};
use std::io;
use std::os::fd::RawFd;

use nix::libc;

use crate::kernel::socket_option;

/// The open descriptors at which calls are aimed. One that is not there is -1.
#[derive(Debug, Clone, Copy)]
pub struct Targets {
    packet: RawFd,
    unix: RawFd,
}

impl Targets {
    /// Those of this process. Confined, it can still ask this of a socket.
    pub fn find() -> Self {
        const MOST: RawFd = 1024;
        let is_socket = |fd| socket_option::<3>(fd, libc::SOL_SOCKET, libc::SO_PEERCRED).is_some();
        let is_packet =
            |fd| socket_option::<2>(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS).is_some();
        let first = |packet| (0..MOST).find(|fd| is_socket(*fd) && is_packet(*fd) == packet);
        Self {
            packet: first(true).unwrap_or(-1),
            unix: first(false).unwrap_or(-1),
        }
    }

    /// Whether a packet socket and another, a unix socket, are open.
    pub fn are_there(&self) -> bool {
        self.packet >= 0 && self.unix >= 0
    }
}

/// One argument of a call.
#[derive(Debug, Clone, Copy)]
enum Argument {
    Number(i64),
    /// A packet socket: a port's.
    Packet,
    /// A unix socket: of the control API or the channel.
    Unix,
    /// The log.
    Log,
    /// The address of zeros: an empty name, or a structure without content.
    Zeros,
    /// The address of a `sockaddr_un` that names a socket.
    Address,
    /// The process that started this one.
    Parent,
}

use Argument::{Address, Log, Number, Packet, Parent, Unix, Zeros};

/// What the kernel may write to, or read from.
#[repr(align(4096))]
struct Page([u8; 4096]);

/// A system call with its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// What it would do.
    pub name: &'static str,
    call: c_long,
    arguments: &'static [Argument],
}

impl Attempt {
    /// Makes the call. Returns only if the process lives on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn make(&self, targets: &Targets) -> io::Result<()> {
        let mut page = Box::new(Page([0; 4096]));
        // SAFETY: zero is a valid address.
        let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        address.sun_family = libc::AF_UNIX as u16;
        for (to, from) in address.sun_path.iter_mut().zip(b"/run/systemd/notify") {
            *to = *from as c_char;
        }
        let mut values: [c_long; 6] = [0; 6];
        for (value, argument) in values.iter_mut().zip(self.arguments) {
            *value = match argument {
                Number(number) => *number,
                Packet => targets.packet.into(),
                Unix => targets.unix.into(),
                Log => 2,
                Zeros => (&raw mut page.0) as c_long,
                Address => (&raw mut address) as c_long,
                Parent => std::os::unix::process::parent_id().into(),
            };
        }
        let [a, b, c, d, e, f] = values;
        // SAFETY: every call of the table below is given numbers, and addresses of a page and of a
        // socket's address that live until it returns; none of them writes more than a page. None
        // gives memory to this process that is in use, or takes any away, and none starts a thread.
        let result = unsafe { libc::syscall(self.call, a, b, c, d, e, f) };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

const fn attempt(name: &'static str, call: c_long, arguments: &'static [Argument]) -> Attempt {
    Attempt {
        name,
        call,
        arguments,
    }
}

const NONE: Argument = Number(-1);
const NO: Argument = Number(0);
const PAGE: Argument = Number(4096);
const RW: i64 = (libc::PROT_READ | libc::PROT_WRITE) as i64;
const OWN: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;
/// More than a log may have.
const TIB: i64 = 1 << 40;

/// The calls, by what they would take: memory, files, sockets, other processes, privileges, and the
/// kernel's parts that have been attacked most.
pub const ATTEMPTS: &[Attempt] = &[
    attempt(
        "map executable memory",
        libc::SYS_mmap,
        &[
            NO,
            PAGE,
            Number(RW | libc::PROT_EXEC as i64),
            Number(OWN),
            NONE,
            NO,
        ],
    ),
    attempt(
        "make memory executable",
        libc::SYS_mprotect,
        &[NO, PAGE, Number(libc::PROT_EXEC as i64)],
    ),
    attempt(
        "map hugepages",
        libc::SYS_mmap,
        &[
            NO,
            Number(2 << 20),
            Number(RW),
            Number(OWN | libc::MAP_HUGETLB as i64),
            NONE,
            NO,
        ],
    ),
    attempt(
        "make a file of hugepages",
        libc::SYS_memfd_create,
        &[Zeros, Number(libc::MFD_HUGETLB as i64)],
    ),
    attempt(
        "map shared memory",
        libc::SYS_mmap,
        &[
            NO,
            PAGE,
            Number(RW),
            Number((libc::MAP_SHARED | libc::MAP_ANONYMOUS) as i64),
            NONE,
            NO,
        ],
    ),
    attempt(
        "map a port's ring again",
        libc::SYS_mmap,
        &[
            NO,
            PAGE,
            Number(RW),
            Number(libc::MAP_SHARED as i64),
            Packet,
            NO,
        ],
    ),
    attempt(
        "merge pages with others'",
        libc::SYS_madvise,
        &[NO, NO, Number(libc::MADV_MERGEABLE as i64)],
    ),
    attempt("handle its own page faults", libc::SYS_userfaultfd, &[NO]),
    attempt("lock its memory", libc::SYS_mlockall, &[NO]),
    attempt(
        "make a segment of shared memory",
        libc::SYS_shmget,
        &[NO, NO, NO],
    ),
    attempt(
        "write behind the end of the log",
        libc::SYS_pwrite64,
        &[Log, Zeros, Number(1), Number(TIB)],
    ),
    attempt("grow the log", libc::SYS_ftruncate, &[Log, Number(TIB)]),
    attempt(
        "fill the log",
        libc::SYS_fallocate,
        &[Log, NO, NO, Number(TIB)],
    ),
    attempt(
        "change the log's mode",
        libc::SYS_fcntl,
        &[Log, Number(libc::F_SETFL as i64), NO],
    ),
    attempt(
        "enlarge the log's pipe",
        libc::SYS_fcntl,
        &[Log, Number(libc::F_SETPIPE_SZ as i64), Number(1 << 20)],
    ),
    attempt("replace the log", libc::SYS_dup2, &[Unix, Log]),
    attempt(
        "send the log's pages",
        libc::SYS_vmsplice,
        &[Log, Zeros, NO, NO],
    ),
    attempt(
        "open a file by its handle",
        libc::SYS_open_by_handle_at,
        &[NONE, Zeros, NO],
    ),
    attempt("rename a file", libc::SYS_rename, &[Zeros, Zeros]),
    attempt("link a file", libc::SYS_link, &[Zeros, Zeros]),
    attempt("make a directory", libc::SYS_mkdir, &[Zeros, NO]),
    attempt("change a file's mode", libc::SYS_chmod, &[Zeros, NO]),
    attempt("watch files", libc::SYS_inotify_init1, &[NO]),
    attempt("change its root", libc::SYS_chroot, &[Zeros]),
    attempt("open a file system", libc::SYS_fsopen, &[Zeros, NO]),
    attempt("run a program", libc::SYS_execve, &[Zeros, NO, NO]),
    // With flags that exclude each other.
    attempt(
        "clone itself",
        libc::SYS_clone,
        &[Number((libc::CLONE_NEWUSER | libc::CLONE_FS) as i64)],
    ),
    attempt("clone itself (clone3)", libc::SYS_clone3, &[Zeros, NO]),
    attempt(
        "ask a port for a larger ring",
        libc::SYS_setsockopt,
        &[
            Packet,
            Number(libc::SOL_PACKET as i64),
            Number(libc::PACKET_RX_RING as i64),
            Zeros,
            Number(28),
        ],
    ),
    attempt(
        "ask a port for a larger buffer",
        libc::SYS_setsockopt,
        &[
            Packet,
            Number(libc::SOL_SOCKET as i64),
            Number(libc::SO_RCVBUF as i64),
            Zeros,
            Number(4),
        ],
    ),
    attempt(
        "attach a filter to a port",
        libc::SYS_setsockopt,
        &[
            Packet,
            Number(libc::SOL_SOCKET as i64),
            Number(libc::SO_ATTACH_FILTER as i64),
            Zeros,
            Number(16),
        ],
    ),
    attempt(
        "ask who is at the other end",
        libc::SYS_getsockopt,
        // SO_PEERPIDFD
        &[
            Unix,
            Number(libc::SOL_SOCKET as i64),
            Number(77),
            Zeros,
            Zeros,
        ],
    ),
    attempt(
        "bind a port to another interface",
        libc::SYS_bind,
        &[Packet, Zeros, Number(20)],
    ),
    attempt(
        "connect a socket",
        libc::SYS_connect,
        &[Unix, Address, Number(110)],
    ),
    attempt(
        "send to a path",
        libc::SYS_sendto,
        &[Unix, Zeros, Number(1), NO, Address, Number(110)],
    ),
    attempt("send a descriptor", libc::SYS_sendmsg, &[Unix, Zeros, NO]),
    attempt(
        "receive a descriptor",
        libc::SYS_recvmsg,
        &[Unix, Zeros, NO],
    ),
    attempt(
        "change an interface",
        libc::SYS_ioctl,
        &[Packet, Number(0x8914), Zeros],
    ),
    attempt(
        "drive an interface",
        libc::SYS_ioctl,
        &[Packet, Number(0x8946), Zeros],
    ),
    attempt(
        "type into a terminal",
        libc::SYS_ioctl,
        &[Log, Number(0x5412), Zeros],
    ),
    attempt(
        "map memory for a device",
        libc::SYS_ioctl,
        &[Unix, Number(0x3b71), Zeros],
    ),
    attempt(
        "open an IPv4 socket",
        libc::SYS_socket,
        &[
            Number(libc::AF_INET as i64),
            Number(libc::SOCK_STREAM as i64),
            NO,
        ],
    ),
    attempt(
        "open an IPv6 socket",
        libc::SYS_socket,
        &[
            Number(libc::AF_INET6 as i64),
            Number(libc::SOCK_DGRAM as i64),
            NO,
        ],
    ),
    attempt(
        "open a unix socket",
        libc::SYS_socket,
        &[
            Number(libc::AF_UNIX as i64),
            Number(libc::SOCK_DGRAM as i64),
            NO,
        ],
    ),
    attempt(
        "open a netlink socket",
        libc::SYS_socket,
        &[
            Number(libc::AF_NETLINK as i64),
            Number(libc::SOCK_RAW as i64),
            NO,
        ],
    ),
    attempt(
        "open a packet socket",
        libc::SYS_socket,
        &[
            Number(libc::AF_PACKET as i64),
            Number(libc::SOCK_RAW as i64),
            NO,
        ],
    ),
    attempt(
        "open a vsock",
        libc::SYS_socket,
        &[
            Number(libc::AF_VSOCK as i64),
            Number(libc::SOCK_STREAM as i64),
            NO,
        ],
    ),
    attempt(
        "open a socket of the kernel's ciphers",
        libc::SYS_socket,
        &[
            Number(libc::AF_ALG as i64),
            Number(libc::SOCK_SEQPACKET as i64),
            NO,
        ],
    ),
    attempt(
        "open a pair of sockets",
        libc::SYS_socketpair,
        &[
            Number(libc::AF_UNIX as i64),
            Number(libc::SOCK_STREAM as i64),
            NO,
            Zeros,
        ],
    ),
    attempt("open a pipe", libc::SYS_pipe2, &[Zeros, NO]),
    attempt("signal another process", libc::SYS_kill, &[Parent, NO]),
    attempt(
        "signal a thread of another process",
        libc::SYS_tgkill,
        &[Parent, Parent, NO],
    ),
    attempt(
        "queue a signal",
        libc::SYS_rt_sigqueueinfo,
        &[Parent, NO, Zeros],
    ),
    attempt(
        "trace another process",
        libc::SYS_ptrace,
        &[Number(0x4206), Parent, NO, NO],
    ),
    attempt("be traced", libc::SYS_ptrace, &[NO, NO, NO, NO]),
    attempt(
        "read another process's memory",
        libc::SYS_process_vm_readv,
        &[Parent, Zeros, NO, Zeros, NO, NO],
    ),
    attempt("open another process", libc::SYS_pidfd_open, &[Parent, NO]),
    attempt(
        "take a descriptor of another process",
        libc::SYS_pidfd_getfd,
        &[NONE, NO, NO],
    ),
    attempt(
        "ask for another process's CPUs",
        libc::SYS_sched_getaffinity,
        &[Parent, PAGE, Zeros],
    ),
    attempt(
        "move to another CPU",
        libc::SYS_sched_setaffinity,
        &[NO, NO, Zeros],
    ),
    attempt("change its priority", libc::SYS_setpriority, &[NO, NO, NO]),
    attempt("raise a limit", libc::SYS_prlimit64, &[NO, NO, NO, Zeros]),
    attempt("become another user", libc::SYS_setuid, &[Number(65_534)]),
    attempt("take capabilities", libc::SYS_capset, &[Zeros, Zeros]),
    attempt(
        "become dumpable",
        libc::SYS_prctl,
        &[Number(libc::PR_SET_DUMPABLE as i64), Number(1)],
    ),
    attempt(
        "change its personality",
        libc::SYS_personality,
        &[Number(0xffff_ffff)],
    ),
    attempt("add a filter of its own", libc::SYS_seccomp, &[NO, NO, NO]),
    attempt(
        "make a user namespace",
        libc::SYS_unshare,
        &[Number(libc::CLONE_NEWUSER as i64)],
    ),
    attempt(
        "make a network namespace",
        libc::SYS_unshare,
        &[Number(libc::CLONE_NEWNET as i64)],
    ),
    attempt("enter a namespace", libc::SYS_setns, &[Log, NO]),
    attempt(
        "mount a file system",
        libc::SYS_mount,
        &[Zeros, Zeros, Zeros, NO, NO],
    ),
    attempt("read a key", libc::SYS_keyctl, &[NO, Number(-3), NO]),
    attempt(
        "add a key",
        libc::SYS_add_key,
        &[Zeros, Zeros, NO, NO, Number(-1)],
    ),
    attempt(
        "ask for a key",
        libc::SYS_request_key,
        &[Zeros, Zeros, NO, Number(-1)],
    ),
    attempt(
        "use an io_uring",
        libc::SYS_io_uring_setup,
        &[Number(1), Zeros],
    ),
    attempt("use asynchronous I/O", libc::SYS_io_setup, &[NO, Zeros]),
    attempt(
        "count events",
        libc::SYS_perf_event_open,
        &[Zeros, NO, NONE, NONE, NO],
    ),
    attempt(
        "load a BPF program",
        libc::SYS_bpf,
        &[NO, Zeros, Number(16)],
    ),
    attempt("load a module", libc::SYS_finit_module, &[Log, Zeros, NO]),
    attempt("load a kernel", libc::SYS_kexec_load, &[NO, NO, NO, NO]),
    attempt(
        "read the kernel's log",
        libc::SYS_syslog,
        &[Number(3), Zeros, NO],
    ),
    attempt(
        "own a lock's priority",
        libc::SYS_futex,
        &[Zeros, Number(6), NO, NO],
    ),
    attempt(
        "use a local descriptor table",
        libc::SYS_modify_ldt,
        &[NO, Zeros, NO],
    ),
    attempt("make a timer", libc::SYS_timer_create, &[NO, Zeros, Zeros]),
    attempt("make a message queue", libc::SYS_msgget, &[NO, NO]),
];
