//! The connections of charon: whose they are, and their messages.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use vswitch_api::channel::Channel;
use zeroize::Zeroizing;

use super::message::{MESSAGE_MAX, Role};

/// Connections whose role is not known yet.
const WAITING_MAX: usize = 4;
/// How long a connection may take to say its role.
const ROLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a process listens on a socket.
pub(super) fn is_live(path: &Path) -> bool {
    Channel::connect(path).is_ok()
}

/// What a connection has.
#[derive(Debug)]
pub(super) enum Received {
    /// A message, which may hold keys.
    Message(Zeroizing<Vec<u8>>),
    /// Nothing now.
    Nothing,
    /// Its end, or a message that is too long.
    End,
}

fn receive(connection: BorrowedFd<'_>) -> Received {
    let mut message = Zeroizing::new(vec![0; MESSAGE_MAX]);
    // With `TRUNC` the length is the message's own.
    let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
    loop {
        return match recv(connection, &mut message[..], flags) {
            Ok((_, 0)) => Received::End,
            Ok((kept, length)) if kept == length => {
                message.truncate(length);
                Received::Message(message)
            }
            Ok(_) => Received::End,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Received::Nothing,
            Err(_) => Received::End,
        };
    }
}

/// The connections of one charon, one for each role.
#[derive(Debug, Default)]
pub(super) struct Session([Option<OwnedFd>; Role::ALL.len()]);

impl Session {
    /// Gives a connection its role; false, and it is closed, if another has it.
    pub(super) fn set(&mut self, role: Role, connection: OwnedFd) -> bool {
        let place = &mut self.0[role as usize];
        let is_free = place.is_none();
        if is_free {
            *place = Some(connection);
        }
        is_free
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }

    /// To wait for.
    pub(super) fn open(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().flatten().map(AsFd::as_fd)
    }

    /// The next message of a connection. One that is not there has nothing.
    pub(super) fn receive(&self, role: Role) -> Received {
        let connection = self.0[role as usize].as_ref();
        connection.map_or(Received::Nothing, |it| receive(it.as_fd()))
    }

    /// Sends a message without waiting; false if it was not taken.
    pub(super) fn send(&self, role: Role, message: &[u8]) -> bool {
        let Some(connection) = &self.0[role as usize] else {
            return false;
        };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        send(connection, message, flags).is_ok_and(|sent| sent == message.len())
    }
}

/// Connections that have not said their role.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<(OwnedFd, Instant)>);

impl Waiting {
    /// Accepts those of the user `uid` that have come, and closes others.
    pub(super) fn accept(&mut self, listener: &UnixListener, uid: u32) {
        self.0.retain(|(_, since)| since.elapsed() < ROLE_TIMEOUT);
        while self.0.len() < WAITING_MAX {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(connection) = accept_with(listener, flags) else {
                return;
            };
            match getsockopt(&connection, PeerCredentials) {
                Ok(peer) if peer.uid() == uid => self.0.push((connection, Instant::now())),
                Ok(peer) => tracing::warn!(
                    uid = peer.uid(),
                    "a user that is not charon's has connected, and is turned away"
                ),
                Err(error) => tracing::warn!("the user of a connection: {error}"),
            }
        }
    }

    pub(super) fn open(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|(connection, _)| connection.as_fd())
    }

    /// A connection that has said its role. Those that say anything else are closed.
    pub(super) fn take(&mut self) -> Option<(Role, OwnedFd)> {
        let mut at = 0;
        while let Some((connection, _)) = self.0.get(at) {
            match receive(connection.as_fd()) {
                Received::Nothing => at += 1,
                Received::End => drop(self.0.swap_remove(at)),
                Received::Message(message) => {
                    let (connection, _) = self.0.swap_remove(at);
                    if let Some(role) = Role::parse(&message) {
                        return Some((role, connection));
                    }
                }
            }
        }
        None
    }
}
