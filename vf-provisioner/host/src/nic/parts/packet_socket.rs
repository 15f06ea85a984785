//! A packet socket on one interface.

use std::io;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
    SockaddrLike, bind, recvmsg, send, setsockopt, socket, sockopt,
};
use nix::{setsockopt_impl, sockopt_impl};
use packet::number::ethertype;
use packet::wire::ethernet::VID_MASK;

use super::tag::{Tag, tags};

sockopt_impl!(
    AuxiliaryData,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_AUXDATA,
    bool
);
sockopt_impl!(
    Membership,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_ADD_MEMBERSHIP,
    libc::packet_mreq
);

/// Longer frames are cut: what the probes look for is in the first bytes.
const LOOK_AT: usize = 256;
const QUEUE_BYTES: usize = 4 << 20;
/// How often a full send queue is retried, and after how long.
const TRIES: usize = 50;
const AGAIN: Duration = Duration::from_millis(1);

/// A received frame.
pub(crate) struct ReceivedFrame<'a> {
    pub(crate) bytes: &'a [u8],
    /// All tags, including the one that the NIC or the kernel took out of the bytes.
    pub(crate) tags: Vec<Tag>,
}

pub(crate) struct PacketSocket {
    socket: OwnedFd,
    flags: InterfaceFlags,
    mac: [u8; 6],
    control: Vec<u8>,
    bytes: [u8; LOOK_AT],
}

impl PacketSocket {
    /// Opens an interface of the thread's network namespace. It receives what is sent to `groups`,
    /// and, if it is `promiscuous`, everything that its device lets through.
    pub(crate) fn open(interface: &str, promiscuous: bool, groups: &[[u8; 6]]) -> io::Result<Self> {
        // The kernel's answer is the only address that needs no unsafe code. It names no protocol,
        // so binding keeps the socket's.
        let entry = nix::ifaddrs::getifaddrs()?
            .find(|entry| {
                let address = entry.address.as_ref();
                entry.interface_name == interface
                    && address.and_then(SockaddrLike::family) == Some(AddressFamily::Packet)
            })
            .ok_or(nix::Error::ENODEV)?;
        let address = entry.address.as_ref().and_then(|it| it.as_link_addr());
        let address = address.ok_or(nix::Error::ENODEV)?;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )?;
        bind(socket.as_raw_fd(), address)?;
        setsockopt(&socket, AuxiliaryData, &true)?;
        setsockopt(&socket, sockopt::RcvBufForce, &QUEUE_BYTES)?;
        // Memberships end with the socket.
        let join = |kind, group: [u8; 6]| {
            let mut mreq = libc::packet_mreq {
                mr_ifindex: address.ifindex() as i32,
                mr_type: kind as u16,
                mr_alen: 6,
                mr_address: [0; 8],
            };
            mreq.mr_address[..6].copy_from_slice(&group);
            setsockopt(&socket, Membership, &mreq)
        };
        for group in groups {
            join(libc::PACKET_MR_MULTICAST, *group)?;
        }
        if promiscuous {
            join(libc::PACKET_MR_PROMISC, [0; 6])?;
        }
        Ok(Self {
            flags: entry.flags,
            mac: address.addr().unwrap_or_default(),
            socket,
            control: vec![0; 256],
            bytes: [0; LOOK_AT],
        })
    }

    /// Administratively up when it was opened.
    pub(crate) fn is_up(&self) -> bool {
        self.flags.contains(InterfaceFlags::IFF_UP)
    }

    /// Up and with a carrier when it was opened.
    pub(crate) fn is_running(&self) -> bool {
        self.flags
            .contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING)
    }

    /// The interface's MAC when it was opened.
    pub(crate) fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Fails if the interface does not accept the frame within the retries.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        for _ in 0..TRIES {
            match send(self.socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EAGAIN | nix::Error::ENOBUFS) => std::thread::sleep(AGAIN),
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(nix::Error::ENOBUFS.into())
    }

    /// The next received frame; `None` if there is none now. Frames that this host sent are
    /// skipped.
    pub(crate) fn receive(&mut self) -> io::Result<Option<ReceivedFrame<'_>>> {
        loop {
            let mut parts = [IoSliceMut::new(&mut self.bytes)];
            let received = recvmsg::<LinkAddr>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut self.control),
                MsgFlags::MSG_DONTWAIT,
            );
            let received = match received {
                Ok(received) => received,
                Err(nix::Error::EAGAIN) => return Ok(None),
                Err(nix::Error::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let outgoing = libc::PACKET_OUTGOING;
            if received.address.is_some_and(|it| it.pkttype() == outgoing) {
                continue;
            }
            let stripped = received.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::Unknown(it)
                    if it.cmsg_header.cmsg_level == libc::SOL_PACKET
                        && it.cmsg_header.cmsg_type == libc::PACKET_AUXDATA =>
                {
                    tag_of(&it.data_bytes)
                }
                _ => None,
            });
            let length = received.bytes.min(LOOK_AT);
            let bytes = &self.bytes[..length];
            let tags = stripped.into_iter().chain(tags(bytes)).collect();
            return Ok(Some(ReceivedFrame { bytes, tags }));
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The tag in a `struct tpacket_auxdata`, if the kernel says that it is valid.
fn tag_of(data: &[u8]) -> Option<Tag> {
    const VALID: u32 = libc::TP_STATUS_VLAN_VALID;
    const TYPE_VALID: u32 = libc::TP_STATUS_VLAN_TPID_VALID;
    let status = u32::from_ne_bytes(*data.first_chunk()?);
    let word = |at: usize| Some(u16::from_ne_bytes(*data.get(at..)?.first_chunk()?));
    if status & VALID == 0 {
        return None;
    }
    let kind = match status & TYPE_VALID {
        0 => ethertype::VLAN,
        _ => word(18)?,
    };
    Some((kind, word(16)? & VID_MASK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripped_tag_is_read_if_valid() {
        let data = |status: u32, control: u16, kind: u16| {
            let mut data = status.to_ne_bytes().to_vec();
            data.extend([0; 12]);
            data.extend(control.to_ne_bytes());
            data.extend(kind.to_ne_bytes());
            data
        };
        let valid = libc::TP_STATUS_VLAN_VALID;
        let both = valid | libc::TP_STATUS_VLAN_TPID_VALID;
        assert_eq!(tag_of(&data(both, 0xe065, 0x88a8)), Some((0x88a8, 0x65)));
        assert_eq!(tag_of(&data(valid, 0, 0)), Some((0x8100, 0)));
        assert_eq!(tag_of(&data(0, 0x65, 0x8100)), None);
        for length in 0..20 {
            assert_eq!(tag_of(&data(both, 1, 1)[..length]), None);
        }
    }
}
