//! Netlink requests whose answers are complete when the kernel has read the request: no runtime and
//! no task is needed to wait for them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{MsgFlags, SockFlag, SockProtocol, recv, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::listener;

const HEADER: usize = 16;
/// The largest piece of a dump.
const PIECE: usize = 1 << 16;
/// How long the kernel may take for one piece.
const PATIENCE_S: i64 = 10;
/// How often a dump is repeated that others changed meanwhile.
const TRIES: usize = 8;

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// All objects of the request's kind.
    All,
    /// The one that the request names; or nothing but that it was done.
    One,
}

/// A socket of the thread's network namespace.
pub(super) struct Requests {
    socket: OwnedFd,
    bytes: Vec<u8>,
}

impl Requests {
    pub(super) fn open(protocol: SockProtocol) -> io::Result<Self> {
        let socket = listener::open(protocol, 0, SockFlag::empty())?;
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::seconds(PATIENCE_S),
        )?;
        let bytes = vec![0; PIECE];
        Ok(Self { socket, bytes })
    }

    /// Sends a request of this kind and gives each message of the answer. A dump that was changed
    /// meanwhile is repeated, so `hear` gets the messages of the last one.
    pub(super) fn ask<T>(
        &mut self,
        kind: u16,
        want: Want,
        body: &[u8],
        mut hear: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..TRIES {
            send(
                self.socket.as_raw_fd(),
                &message(kind, want, body),
                MsgFlags::empty(),
            )?;
            let (heard, whole) = self.answer(&mut hear)?;
            if whole {
                return Ok(heard);
            }
        }
        Err(io::Error::other("others change it all the time"))
    }

    /// The messages until the last one, and whether they belong together.
    fn answer<T>(
        &mut self,
        hear: &mut impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<(Vec<T>, bool)> {
        let mut heard = Vec::new();
        let mut whole = true;
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.bytes, MsgFlags::empty())?;
            let mut rest = self.bytes.get(..length).unwrap_or_default();
            if rest.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            while let Ok(message) = NetlinkBuffer::new_checked(rest) {
                whole &= message.flags() & NLM_F_DUMP_INTR == 0;
                let code = message.payload().first_chunk().copied();
                match (message.message_type(), code.map_or(0, i32::from_ne_bytes)) {
                    (NLMSG_DONE | NLMSG_ERROR, 0) => return Ok((heard, whole)),
                    (NLMSG_DONE | NLMSG_ERROR, code) => {
                        return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
                    }
                    _ => {
                        let length = message.length() as usize;
                        heard.extend(hear(rest.get(..length).unwrap_or_default()));
                    }
                }
                let length = (message.length() as usize).next_multiple_of(4);
                rest = rest.get(length.max(HEADER)..).unwrap_or_default();
            }
        }
    }

    /// The same for rtnetlink.
    pub(super) fn route(
        &mut self,
        want: Want,
        request: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut whole = NetlinkMessage::from(request);
        whole.finalize();
        let mut bytes = vec![0; whole.buffer_len()];
        whole.serialize(&mut bytes);
        let kind = whole.header.message_type;
        let body = bytes.get(HEADER..).unwrap_or_default();
        self.ask(kind, want, body, |bytes| {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).ok()?;
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => Some(inner),
                _ => None,
            }
        })
    }
}

fn message(kind: u16, want: Want, body: &[u8]) -> Vec<u8> {
    use netlink_packet_core::Emitable;
    let mut header = NetlinkHeader::default();
    header.length = (HEADER + body.len()) as u32;
    header.message_type = kind;
    header.flags = NLM_F_REQUEST
        | match want {
            Want::All => NLM_F_DUMP,
            Want::One => NLM_F_ACK,
        };
    let mut bytes = vec![0; HEADER];
    header.emit(&mut bytes);
    bytes.extend(body);
    bytes
}
