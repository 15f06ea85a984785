//! A netlink socket that hears of changes, in the network namespace in which it was made.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{NetlinkBuffer, NlasIterator};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};

/// Notifications that wait to be read; a full queue is reported.
const QUEUE_BYTES: usize = 4 << 20;
const HEADER: usize = 16;

pub(super) fn open(protocol: SockProtocol, groups: u32, flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

pub(super) struct Listener {
    socket: OwnedFd,
    bytes: Vec<u8>,
}

impl Listener {
    /// Hears these groups, a bit each.
    pub(super) fn open(protocol: SockProtocol, groups: u32) -> io::Result<Self> {
        let socket = open(protocol, groups, SockFlag::SOCK_NONBLOCK)?;
        setsockopt(&socket, sockopt::RcvBufForce, &QUEUE_BYTES)?;
        let bytes = vec![0; 1 << 16];
        Ok(Self { socket, bytes })
    }

    /// Gives the kind and the payload of each message since the last call. Returns whether all were
    /// heard.
    pub(super) fn each(&mut self, mut hear: impl FnMut(u16, &[u8])) -> io::Result<bool> {
        let mut all = true;
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.bytes, MsgFlags::empty()) {
                Ok(length) => each(self.bytes.get(..length).unwrap_or_default(), &mut hear),
                Err(nix::Error::EAGAIN) => return Ok(all),
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::ENOBUFS) => all = false,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Gives the kind and the payload of each message.
pub(super) fn each(mut bytes: &[u8], hear: &mut impl FnMut(u16, &[u8])) {
    while let Ok(message) = NetlinkBuffer::new_checked(bytes) {
        hear(message.message_type(), message.payload());
        let length = (message.length() as usize).next_multiple_of(4);
        bytes = bytes.get(length.max(HEADER)..).unwrap_or_default();
    }
}

/// The text of an attribute, without the zero at its end.
pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// The group that hears of interfaces (RTNLGRP_LINK, 1), as a bit.
const LINKS: u32 = 1;
/// Messages and the attribute of linux/rtnetlink.h and linux/if_link.h.
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const INTERFACE_HEADER: usize = 16;
const NAME: u16 = 3;

/// Hears which interfaces change.
pub(crate) struct LinkChanges(Listener);

impl LinkChanges {
    pub(crate) fn listen() -> io::Result<Self> {
        Listener::open(SockProtocol::NetlinkRoute, LINKS).map(Self)
    }

    /// The interfaces that came, went or changed since the last call; `None` if some were not
    /// heard.
    pub(crate) fn take(&mut self) -> io::Result<Option<Vec<String>>> {
        let mut names = Vec::new();
        let all = self.0.each(|kind, payload| {
            if !matches!(kind, NEW_LINK | DELETE_LINK) {
                return;
            }
            let attributes = payload.get(INTERFACE_HEADER..).unwrap_or_default();
            let mut attributes = NlasIterator::new(attributes).flatten();
            let name = attributes.find(|attribute| attribute.kind() == NAME);
            names.extend(name.map(|name| text(name.value())));
        })?;
        Ok(all.then_some(names))
    }
}

impl AsFd for LinkChanges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
