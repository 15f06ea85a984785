//! The control socket's file.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The control socket. Dropping it removes its file.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

/// Why a socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process listens on it.
    #[error(
        "socket {path}: another process listens there; stop it, or give another path",
        path = .0.display()
    )]
    InUse(PathBuf),
    /// The path names a file that is not a socket.
    #[error(
        "socket {path}: there is a file of that name that is no socket; remove it, or give another \
         path",
        path = .0.display()
    )]
    NoSocket(PathBuf),
    /// The system refuses.
    #[error(
        "socket {path}: {source}; its directory must exist and be writable",
        path = path.display()
    )]
    Bind {
        /// The path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Removes a stale socket at `path`: one that a killed process has left behind.
///
/// # Errors
/// If a process listens there (`is_live` says so), or the path names another kind of file.
pub(crate) fn clear_stale(
    path: &Path,
    is_live: impl FnOnce(&Path) -> bool,
) -> Result<(), SocketError> {
    let failed = |source| SocketError::Bind {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(SocketError::NoSocket(path.to_owned()))
        }
        Ok(_) if is_live(path) => Err(SocketError::InUse(path.to_owned())),
        Ok(_) => std::fs::remove_file(path).map_err(failed),
    }
}

/// Whether a process listens on a stream socket.
pub(crate) fn is_live_stream(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

impl Socket {
    /// Listens on `path`, for its owner and group. Replaces a stale socket.
    ///
    /// # Errors
    /// If a process listens there, or the path names another kind of file.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Bind {
            path: path.to_owned(),
            source,
        };
        clear_stale(path, is_live_stream)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        // The process may change its working directory before it removes the file.
        let path = std::path::absolute(path).map_err(failed)?;
        Ok(Self { listener, path })
    }

    /// The listening descriptor, for [`Control::serve`](super::Control::serve).
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
