//! Tells systemd that the supervisor works (sd_notify(3)): one that is stopped or hangs is
//! restarted.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where messages go, if anybody wants them.
pub(super) struct Watchdog(Option<(UnixDatagram, SocketAddr)>);

impl Watchdog {
    /// Sends to the socket that the environment names.
    pub(super) fn new() -> Self {
        Self::to(std::env::var_os("NOTIFY_SOCKET").as_deref())
    }

    fn to(name: Option<&OsStr>) -> Self {
        Self(name.and_then(|name| {
            let address = match name.as_bytes() {
                [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
                _ => SocketAddr::from_pathname(name),
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address.ok()?))
        }))
    }

    /// All tenants are watched.
    pub(super) fn ready(&self) {
        self.send("READY=1\nWATCHDOG=1");
    }

    /// The supervisor works.
    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.0 {
            // If nobody reads it, nobody waits for it.
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_manager_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        let watchdog = Watchdog::to(Some(path.as_os_str()));
        watchdog.ready();
        watchdog.alive();
        let mut text = [0; 64];
        for wanted in ["READY=1\nWATCHDOG=1", "WATCHDOG=1"] {
            let length = manager.recv(&mut text).expect("a message");
            assert_eq!(&text[..length], wanted.as_bytes());
        }
        Watchdog::to(None).alive();
    }
}
