//! What DPDK's drivers do not report of interfaces and sockets, asked of the kernel.

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;

/// A kernel interface, whose state can be read.
#[derive(Debug)]
pub(crate) struct Interface {
    name: [u8; libc::IFNAMSIZ],
    /// Any socket, through which the kernel is asked. The driver's own does; an XDP socket answers
    /// no such question, so that needs another, which nobody can connect or send by.
    asked: Asked,
}

#[derive(Debug)]
enum Asked {
    Driver(RawFd),
    Own(OwnedFd),
}

impl Interface {
    /// Asks through `socket`, the driver's, which outlives this; or through one of its own.
    pub(crate) fn new(interface: &str, socket: Option<RawFd>) -> std::io::Result<Self> {
        let mut name = [0; libc::IFNAMSIZ];
        // The driver has opened it by that name, so the name and a NUL fit.
        for (to, from) in name.iter_mut().zip(interface.bytes()) {
            *to = from;
        }
        let asked = match socket {
            Some(socket) => Asked::Driver(socket),
            None => Asked::Own(unconnected()?),
        };
        Ok(Self { name, asked })
    }

    pub(crate) fn is_running(&self) -> bool {
        // SAFETY: a C struct of numbers and pointers, all of which may be zero.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        request.ifr_name = self.name.map(|byte| byte as libc::c_char);
        let fd = match &self.asked {
            Asked::Driver(socket) => *socket,
            Asked::Own(socket) => socket.as_raw_fd(),
        };
        // SAFETY: this request reads the name and writes the flags, the union's field that is read
        // then.
        unsafe {
            libc::ioctl(fd, libc::SIOCGIFFLAGS, &raw mut request) == 0
                && c_int::from(request.ifr_ifru.ifru_flags) & libc::IFF_RUNNING != 0
        }
    }
}

/// A stream socket without a peer. Unlike a datagram socket it sends to no path.
fn unconnected() -> std::io::Result<OwnedFd> {
    let flags = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, flags, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: just opened, and owned by nothing else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The sockets of this process. A driver does not say which is its own.
pub(crate) fn own_sockets() -> BTreeSet<RawFd> {
    std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&fd| socket_family(fd).is_some())
        .collect()
}

/// The address family of a socket; `None` if the descriptor is not a socket.
pub(crate) fn socket_family(fd: RawFd) -> Option<c_int> {
    let [family] = socket_option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)?;
    c_int::try_from(family).ok()
}

/// A socket option whose value is `N` numbers; `None` if the descriptor has no such option.
pub(crate) fn socket_option<const N: usize>(
    fd: RawFd,
    level: c_int,
    name: c_int,
) -> Option<[u32; N]> {
    let mut value = [0; N];
    let mut size = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: a place of `size` bytes.
    let code =
        unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut size) };
    (code == 0).then_some(value)
}
