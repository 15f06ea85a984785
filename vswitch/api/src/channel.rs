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
//!     ├── clients ────────────────────►│  the DHCP clients of the switch's predecessor, if any
//!     ├── holders ────────────────────►│  who held its shared addresses, if any
//!     ├── restore ────────────────────►│  its leases, often none
//!     │◄─────────────────── leases ────┤  now, and whenever one changes
//!     │◄────────────────── holders ────┤  whenever one changes
//!     │◄────────────────── clients ────┤  of the ports whose clients have changed
//!     │◄───────────────── counters ────┤  every few seconds, if one has changed
//! ```
//!
//! Either side may end at any time: a new supervisor connects to a running switch, and a supervisor
//! reconnects to a restarted switch. Neither trusts the other. Both check the peer's user by
//! [`Channel::peer_uid`], bound sizes and counts, and validate the contents against their own
//! configuration. `docs/decisions/0009-supervisor-channel.md` has the reasons.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    listen, recv, send, socket_with,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of the messages. A switch closes the connection of a supervisor of another one.
pub const VERSION: u32 = 4;
/// The first version that knows DHCP clients.
pub const WITH_CLIENTS: u32 = 3;
/// The first version that knows claimed addresses.
pub const WITH_CLAIMS: u32 = 4;
/// The first version that knows holders of shared addresses.
pub const WITH_HOLDERS: u32 = 4;
/// The oldest version that a supervisor speaks with a switch that was started before it was
/// updated.
pub const OLDEST: u32 = 2;
/// The largest message in bytes: the leases of all ports that a switch can have, several times
/// over.
pub const MESSAGE_MAX: usize = 64 << 10;
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
    /// The DHCP clients of ports at which something has changed. More ports than fit into one
    /// message take several.
    Clients {
        /// Each port once.
        ports: Vec<PortClients>,
    },
    /// Who holds shared addresses, each time that one of them changes.
    Holders {
        /// At most [`HOLDERS_MAX`]: of more, the first ones.
        holders: Vec<Holder>,
    },
    /// What has been counted since the switch started, from time to time.
    Counters {
        /// By port; with `uplink`, if there is one.
        ports: BTreeMap<String, Totals>,
    },
}

/// What a supervisor tells a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Before [`Self::Restore`], at most once: what the tenant's switch before this one reported
    /// last. The switch takes what its configuration allows.
    Clients {
        /// Each port once.
        ports: Vec<PortClients>,
    },
    /// Before [`Self::Restore`], at most once: who held shared addresses, as the tenant's switch
    /// before this one reported last. The switch takes what its configuration allows.
    Holders {
        /// At most [`HOLDERS_MAX`].
        holders: Vec<Holder>,
    },
    /// Sent once. The switch takes the leases that its configuration allows.
    Restore {
        /// What the tenant's switch before this one reported last; empty if that is unknown.
        leases: Vec<Lease>,
    },
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

/// The most holders that are reported and restored. A switch asks its ports for the addresses whose
/// holders it does not know, so that of more none is lost but a moment.
pub const HOLDERS_MAX: usize = 256;

/// Who holds a shared address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The address.
    pub address: IpAddr,
    /// The name of the port that holds it.
    pub port: String,
    /// The MAC by which it does.
    pub mac: [u8; 6],
}

/// What a switch remembers of the DHCP clients behind a port, so that no sibling can use their
/// identifiers; and the addresses that the port has claimed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortClients {
    /// The port's name.
    pub port: String,
    /// The port's MAC.
    pub mac: [u8; 6],
    /// Of DHCP.
    #[serde(default, skip_serializing_if = "Clients::is_empty")]
    pub dhcp: Clients,
    /// Of DHCPv6.
    #[serde(default, skip_serializing_if = "Clients::is_empty")]
    pub dhcp6: Clients,
    /// The IPv6 addresses that the port has claimed; at most [`CLAIMED_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claimed: Vec<Ipv6Addr>,
}

impl PortClients {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.dhcp.is_empty() && self.dhcp6.is_empty() && self.claimed.is_empty()
    }

    /// Whether a port can have all that.
    pub fn is_bounded(&self) -> bool {
        self.dhcp.is_bounded() && self.dhcp6.is_bounded() && self.claimed.len() <= CLAIMED_MAX
    }
}

/// A port may have claimed so many IPv6 addresses.
pub const CLAIMED_MAX: usize = 12;
/// A port may have so many identifiers of each kind, and decline so many addresses a day.
pub const CLIENTS_MAX: usize = 4;
/// The longest identifier in bytes.
pub const IDENTIFIER_MAX: usize = 255;
/// Identity associations of one identifier.
pub const ASSOCIATIONS_MAX: usize = 4;

/// The clients behind a port, of DHCP or of DHCPv6.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// At most [`CLIENTS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identifiers: Vec<Identifier>,
    /// How long each of the last declined addresses still counts, in seconds; at most
    /// [`CLIENTS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub declined: Vec<u32>,
}

impl Clients {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.identifiers.is_empty() && self.declined.is_empty()
    }

    /// Whether a port can have all that.
    pub fn is_bounded(&self) -> bool {
        let is_bounded = |it: &Identifier| {
            it.value.0.len() <= IDENTIFIER_MAX && it.associations.len() <= ASSOCIATIONS_MAX
        };
        self.identifiers.len() <= CLIENTS_MAX
            && self.declined.len() <= CLIENTS_MAX
            && self.identifiers.iter().all(is_bounded)
    }
}

/// An identifier that a port's client uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identifier {
    /// Its bytes.
    pub value: Hex,
    /// For how many seconds no other port may use it.
    pub owned: u32,
    /// For how many seconds it counts among the port's.
    pub counted: u32,
    /// The address that a server granted it last, of DHCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Of DHCPv6, its identity associations: each its option and its number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub associations: Vec<(u16, u32)>,
}

/// Bytes, written as hexadecimal digits.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hex(pub Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = self.0.iter().map(|byte| format!("{byte:02x}"));
        serializer.serialize_str(&digits.collect::<String>())
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        let bytes = pairs
            .iter()
            .map(|[high, low]| Some((digit(high)? << 4 | digit(low)?) as u8));
        match bytes.collect() {
            Some(bytes) if rest.is_empty() => Ok(Self(bytes)),
            _ => Err(serde::de::Error::custom("not pairs of hexadecimal digits")),
        }
    }
}

/// Divides `ports` into messages of at most [`MESSAGE_MAX`] bytes.
pub fn in_messages(ports: Vec<PortClients>) -> Vec<Vec<PortClients>> {
    // What a message has besides.
    const FRAME: usize = 64;
    let (mut messages, mut left) = (Vec::new(), 0);
    for port in ports {
        // A comma.
        let len = 1 + serde_json::to_vec(&port).map_or(MESSAGE_MAX, |text| text.len());
        if len > left || messages.is_empty() {
            messages.push(Vec::new());
            left = MESSAGE_MAX - FRAME;
        }
        left = left.saturating_sub(len);
        if let Some(last) = messages.last_mut() {
            last.push(port);
        }
    }
    messages
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
    use std::io::{IoSlice, Read};
    use std::mem::MaybeUninit;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, sendmsg};

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

    /// The most that a port can have.
    fn clients(number: u32) -> PortClients {
        let identifier = |last: u8| Identifier {
            value: Hex([vec![0xff; IDENTIFIER_MAX - 1], vec![last]].concat()),
            owned: u32::MAX,
            counted: u32::MAX,
            address: Some(Ipv4Addr::BROADCAST),
            associations: vec![(u16::MAX, u32::MAX); ASSOCIATIONS_MAX],
        };
        let all = Clients {
            identifiers: (0..CLIENTS_MAX as u8).map(identifier).collect(),
            declined: vec![u32::MAX; CLIENTS_MAX],
        };
        PortClients {
            port: format!("a-port-with-a-long-name-{number:039}"),
            mac: [0xfe; 6],
            dhcp: all.clone(),
            dhcp6: all,
            claimed: vec![Ipv6Addr::from_bits(u128::MAX - u128::from(number)); CLAIMED_MAX],
        }
    }

    #[test]
    fn clients_of_many_ports_take_several_messages() {
        let (near, far) = pair();
        let all: Vec<PortClients> = (0..256).map(clients).collect();
        assert!(all.iter().all(PortClients::is_bounded));
        let mut received = Vec::new();
        let messages = in_messages(all.clone());
        assert!(messages.len() > 10, "{}", messages.len());
        for ports in messages {
            let report = Report::Clients { ports };
            far.send(&report).expect("it is sent");
            let Report::Clients { ports } = near.receive().expect("a message") else {
                panic!("another message");
            };
            received.extend(ports);
        }
        assert_eq!(received, all);
        // Few fit into one.
        let small = |number| PortClients {
            port: format!("vm{number}"),
            claimed: clients(number).claimed[..2].to_vec(),
            ..PortClients::default()
        };
        assert_eq!(in_messages((0..256).map(small).collect()).len(), 1);
        assert_eq!(in_messages(Vec::new()), Vec::<Vec<PortClients>>::new());
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
            r#"{"type":"clients","ports":[{"port":"a","mac":[1,2,3,4,5]}]}"#,
            r#"{"type":"clients","ports":[{"port":"a","mac":[1,2,3,4,5,6],"dhcp":{"identifiers":
                [{"value":"f","owned":1,"counted":1}]}}]}"#,
            r#"{"type":"clients","ports":[{"port":"a","mac":[1,2,3,4,5,6],"dhcp":{"identifiers":
                [{"value":"+f","owned":1,"counted":1}]}}]}"#,
            r#"{"type":"clients","ports":[{"port":"a","mac":[1,2,3,4,5,6],"dhcp":{"identifiers":
                [{"value":"ff","owned":1,"counted":1,"address":"fd00::1"}]}}]}"#,
        ] {
            raw(&far, text.as_bytes());
            let received = near.receive::<Report>();
            assert!(
                matches!(received, Err(ReceiveError::Malformed(_))),
                "{text}: {received:?}"
            );
        }
    }

    /// Sends a message with `count` copies of the end of a pipe at which is written; returns the
    /// other end.
    fn with_descriptors(
        channel: &Channel,
        message: &impl Serialize,
        count: usize,
    ) -> std::io::PipeReader {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let text = serde_json::to_vec(message).expect("JSON");
        let descriptors = vec![writer.as_fd(); count];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let parts = [IoSlice::new(&text)];
        sendmsg(&channel.0, &parts, &mut control, SendFlags::empty()).expect("it is sent");
        reader
    }

    #[test]
    fn descriptors_that_come_with_a_message_are_closed() {
        for count in [1, 8] {
            let (near, far) = pair();
            let hello = Report::Hello { version: VERSION };
            let mut reader = with_descriptors(&far, &hello, count);
            assert_eq!(near.receive::<Report>().expect("a message"), hello);
            assert!(is_at_its_end(&mut reader));
            let restore = Order::Restore { leases: Vec::new() };
            let mut reader = with_descriptors(&near, &restore, count);
            assert_eq!(far.receive::<Order>().expect("a message"), restore);
            assert!(is_at_its_end(&mut reader));
        }
    }

    /// Whether nobody can write to the pipe any more. Does not wait for the writers to end.
    fn is_at_its_end(reader: &mut std::io::PipeReader) -> bool {
        rustix::io::ioctl_fionbio(&*reader, true).expect("it does not block");
        matches!(reader.read(&mut [0]), Ok(0))
    }
}
