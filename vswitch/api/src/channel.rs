//! The channel between a switch and its supervisor: its messages and its socket.
//!
//! It is a unix socket of type SOCK_SEQPACKET on which the switch listens. Each datagram is one
//! message: a JSON object of at most [`MESSAGE_MAX`] bytes. The switch sends [`Report`]s, the
//! supervisor [`Order`]s:
//!
//! ```text
//! supervisor                         switch
//!     ├── connect ────────────────────►│
//!     │◄──────────────────── hello ────┤
//!     ├── restore ────────────────────►│  the leases of the switch's predecessor, often none
//!     │◄─────────────────── leases ────┤  now, and whenever one changes
//!     │◄───────────────── counters ────┤  every few seconds, if one has changed
//!     ├── log, with a descriptor ─────►│  whenever the log has become too long
//!     │◄────────────────────── log ────┤  the switch writes to the new one
//! ```
//!
//! Either side may end at any time: a new supervisor connects to a running switch, and a supervisor
//! reconnects to a restarted switch. Neither trusts the other. Both check the peer's user by
//! [`Channel::peer_uid`], bound sizes and counts, and validate the contents against their own
//! configuration. `docs/decisions/0009-supervisor-channel.md` has the reasons.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    bind, connect, listen, recv, recvmsg, send, sendmsg, socket_with,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of the messages. A side that meets another version closes the connection.
pub const VERSION: u32 = 2;
/// The largest message in bytes: the leases of all ports that a switch can have, several times
/// over.
pub const MESSAGE_MAX: usize = 64 << 10;
/// The shortest time between two logs. A switch closes the connection of a supervisor that sends
/// them faster.
pub const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// What a switch tells its supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Report {
    /// The first message of a connection.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// All leases, each time that one of them changes.
    Leases {
        /// At most one per port.
        leases: Vec<Lease>,
    },
    /// What has been counted since the switch started, from time to time.
    Counters {
        /// By port; with `uplink`, if there is one.
        ports: BTreeMap<String, Totals>,
    },
    /// The switch writes to the log that it was sent.
    Log,
}

/// What a supervisor tells a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// The first message of a connection, sent once. The switch takes the leases that its
    /// configuration allows.
    Restore {
        /// What the tenant's switch before this one reported last; empty if that is unknown.
        leases: Vec<Lease>,
    },
    /// The switch's log is now the file whose descriptor comes with this message, and with no
    /// other. At most one each [`LOG_INTERVAL`].
    Log,
}

/// The address that the tenant's DHCP server gave to a learning port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The port's name.
    pub port: String,
    /// The port's MAC, for which the server granted the address.
    pub mac: [u8; 6],
    /// The address.
    pub address: Ipv4Addr,
    /// How long it is still valid, in seconds.
    pub seconds_left: u32,
}

/// The counters of one port, named as those of the control API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs)]
pub struct Totals {
    pub rx_frames: u64,
    pub rx_bytes: u64,
    pub tx_frames: u64,
    pub tx_bytes: u64,
    pub dropped: u64,
}

/// Why no message was received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// None has arrived yet.
    #[error("no message has arrived")]
    Empty,
    /// The other side has closed the connection.
    #[error("the connection is closed")]
    Closed,
    /// It is longer than [`MESSAGE_MAX`].
    #[error("a message has {0} bytes, which is more than {MESSAGE_MAX}")]
    TooLong(usize),
    /// It is not a message of this version. The parser's own text is left out: it quotes what the
    /// other side sent, and logs would have that.
    #[error("a message is malformed ({:?})", .0.classify())]
    Malformed(serde_json::Error),
    /// It comes with more descriptors than its type has, or with fewer. They are closed.
    #[error("a message comes with a wrong number of descriptors")]
    Descriptors,
    /// The socket failed.
    #[error("the channel: {0}")]
    Socket(io::Error),
}

/// One end of a connection. Nothing here blocks.
#[derive(Debug)]
pub struct Channel(OwnedFd);

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok(socket)
}

/// A socket that listens on `path`, where nothing is yet. The standard library knows no sockets of
/// type SOCK_SEQPACKET, but accepts their connections, which [`Channel::from`] takes.
///
/// # Errors
/// What the kernel says.
pub fn listener(path: &Path) -> io::Result<UnixListener> {
    const BACKLOG: i32 = 4;
    let socket = socket()?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// An accepted connection.
impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl Channel {
    /// Connects to the switch that listens on `path`.
    ///
    /// # Errors
    /// What the kernel says; [`ErrorKind::WouldBlock`] if too many connections wait to be accepted.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    /// The user of the process at the other end: of the one that connected, or that began to
    /// listen.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn peer_uid(&self) -> io::Result<u32> {
        Ok(getsockopt(&self.0, PeerCredentials)?.uid())
    }

    /// Sends a message, or nothing.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if the other side reads too slowly, [`ErrorKind::InvalidInput`] if
    /// the message is too long; otherwise what the kernel says.
    pub fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let text = encode(message)?;
        send(&self.0, &text, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }

    /// Sends a message with a copy of a descriptor, or nothing.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn send_with(
        &self,
        message: &impl Serialize,
        descriptor: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let text = encode(message)?;
        let descriptors = [descriptor];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(ErrorKind::InvalidInput.into());
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0, &[IoSlice::new(&text)], &mut control, flags)?;
        Ok(())
    }

    /// The next message. The kernel closes descriptors that come with it.
    ///
    /// # Errors
    /// [`ReceiveError::Empty`] if there is none; any other error means that the connection is of no
    /// use.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<T, ReceiveError> {
        let mut text = vec![0; MESSAGE_MAX];
        let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
        let (_, len) = recv(&self.0, &mut text[..], flags)?;
        parse(&text, len)
    }

    /// The next order, and the log if it is [`Order::Log`].
    ///
    /// # Errors
    /// As [`Channel::receive`]; [`ReceiveError::Descriptors`] if a log comes without a descriptor,
    /// another order with one, or any with more.
    pub fn receive_order(&self) -> Result<(Order, Option<OwnedFd>), ReceiveError> {
        let mut text = vec![0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(&mut text)];
        let received = recvmsg(&self.0, &mut parts, &mut control, flags)?;
        // The space is aligned, so more than one may have arrived. What is not kept is closed.
        let arrived: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        let order = parse(&text, received.bytes)?;
        let expected = usize::from(order == Order::Log);
        if received.flags.contains(ReturnFlags::CTRUNC) || arrived.len() != expected {
            return Err(ReceiveError::Descriptors);
        }
        Ok((order, arrived.into_iter().next()))
    }
}

impl From<rustix::io::Errno> for ReceiveError {
    fn from(errno: rustix::io::Errno) -> Self {
        let error = io::Error::from(errno);
        match error.kind() {
            ErrorKind::WouldBlock => Self::Empty,
            ErrorKind::ConnectionReset => Self::Closed,
            _ => Self::Socket(error),
        }
    }
}

fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(message)?;
    if text.len() > MESSAGE_MAX {
        return Err(ErrorKind::InvalidInput.into());
    }
    Ok(text)
}

/// A message of `len` bytes, of which the beginning is in `text`.
fn parse<T: DeserializeOwned>(text: &[u8], len: usize) -> Result<T, ReceiveError> {
    match len {
        // A message has at least two bytes, so this is the end.
        0 => Err(ReceiveError::Closed),
        _ => match text.get(..len) {
            Some(text) => serde_json::from_slice(text).map_err(ReceiveError::Malformed),
            None => Err(ReceiveError::TooLong(len)),
        },
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn pair() -> (Channel, Channel) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("channel.sock");
        let listener = listener(&path).expect("a listener");
        let near = Channel::connect(&path).expect("a connection");
        let (far, _) = listener.accept().expect("the connection");
        (near, Channel::from(OwnedFd::from(far)))
    }

    fn leases(count: u32) -> Report {
        let lease = |number: u32| Lease {
            port: format!("a-port-with-a-long-name-{number:039}"),
            mac: [0xfe; 6],
            address: Ipv4Addr::from_bits(u32::MAX - number),
            seconds_left: u32::MAX,
        };
        Report::Leases {
            leases: (0..count).map(lease).collect(),
        }
    }

    fn raw(channel: &Channel, bytes: &[u8]) {
        send(&channel.0, bytes, SendFlags::empty()).expect("it is sent");
    }

    #[test]
    fn message_arrives_whole_and_alone() {
        let (near, far) = pair();
        let uid = nix::unistd::geteuid().as_raw();
        assert_eq!(near.peer_uid().expect("a user"), uid);
        assert_eq!(far.peer_uid().expect("a user"), uid);
        let empty = near.receive::<Report>();
        assert!(matches!(empty, Err(ReceiveError::Empty)), "{empty:?}");
        let most = Totals {
            rx_frames: u64::MAX,
            rx_bytes: u64::MAX,
            tx_frames: u64::MAX,
            tx_bytes: u64::MAX,
            dropped: u64::MAX,
        };
        let ports = (0..256).map(|number| (format!("a-port-with-a-name-{number:012}"), most));
        let counters = Report::Counters {
            ports: ports.collect(),
        };
        // More ports than a switch can have.
        for report in [Report::Hello { version: VERSION }, leases(256), counters] {
            far.send(&report).expect("it is sent");
            assert_eq!(near.receive::<Report>().expect("a message"), report);
        }
        drop(far);
        let closed = near.receive::<Report>();
        assert!(matches!(closed, Err(ReceiveError::Closed)), "{closed:?}");
    }

    #[test]
    fn oversized_message_is_refused_by_both_sides() {
        let (near, far) = pair();
        let sent = far.send(&leases(1000));
        assert_eq!(sent.expect_err("too long").kind(), ErrorKind::InvalidInput);
        raw(&far, &vec![b' '; MESSAGE_MAX + 1]);
        let received = near.receive::<Report>();
        assert!(
            matches!(received, Err(ReceiveError::TooLong(65_537))),
            "{received:?}"
        );
    }

    #[test]
    fn malformed_message_is_refused() {
        let (near, far) = pair();
        for text in [
            "[]",
            "{}",
            r#"{"type":"restore","leases":[]}"#,
            r#"{"type":"hello"}"#,
            r#"{"type":"hello","version":1,"more":2}"#,
            r#"{"type":"leases","leases":[{"port":"a","address":"fd00::1","seconds_left":1}]}"#,
            r#"{"type":"leases","leases":[{"port":"a","address":"10.0.0.1","seconds_left":-1}]}"#,
            r#"{"type":"hello","version":1} {"type":"hello","version":1}"#,
        ] {
            raw(&far, text.as_bytes());
            let received = near.receive::<Report>();
            assert!(
                matches!(received, Err(ReceiveError::Malformed(_))),
                "{text}: {received:?}"
            );
        }
    }

    /// Sends an order with `count` copies of the end of a pipe at which is written; returns the
    /// other end.
    fn order_with(channel: &Channel, order: &Order, count: usize) -> std::io::PipeReader {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let text = serde_json::to_vec(order).expect("JSON");
        let descriptors = vec![writer.as_fd(); count];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(count == 0 || control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let parts = [IoSlice::new(&text)];
        sendmsg(&channel.0, &parts, &mut control, SendFlags::empty()).expect("it is sent");
        reader
    }

    #[test]
    fn log_order_arrives_with_its_descriptor() {
        let (near, far) = pair();
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        near.send_with(&Order::Log, writer.as_fd())
            .expect("it is sent");
        drop(writer);
        let (order, descriptor) = far.receive_order().expect("an order");
        assert_eq!(order, Order::Log);
        let descriptor = descriptor.expect("its descriptor");
        let flags = rustix::io::fcntl_getfd(&descriptor).expect("its flags");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        std::fs::File::from(descriptor)
            .write_all(b"a line")
            .expect("it is written");
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("it is read");
        assert_eq!(text, "a line");
    }

    #[test]
    fn wrong_number_of_descriptors_is_refused_and_they_are_closed() {
        let restore = Order::Restore { leases: Vec::new() };
        for (order, count) in [
            (&Order::Log, 0),
            (&Order::Log, 2),
            (&Order::Log, 8),
            (&restore, 1),
        ] {
            let (near, far) = pair();
            let mut reader = order_with(&near, order, count);
            let received = far.receive_order();
            assert!(
                matches!(received, Err(ReceiveError::Descriptors)),
                "{order:?} with {count}: {received:?}"
            );
            assert!(is_at_its_end(&mut reader), "{order:?} with {count}");
        }
    }

    #[test]
    fn descriptor_sent_to_a_supervisor_is_closed() {
        let (near, far) = pair();
        let mut reader = order_with(&far, &Order::Log, 1);
        assert_eq!(near.receive::<Report>().expect("a message"), Report::Log);
        assert!(is_at_its_end(&mut reader));
    }

    /// Whether nobody can write to the pipe any more. Does not wait for the writers to end.
    fn is_at_its_end(reader: &mut std::io::PipeReader) -> bool {
        rustix::io::ioctl_fionbio(&*reader, true).expect("it does not block");
        matches!(reader.read(&mut [0]), Ok(0))
    }
}
