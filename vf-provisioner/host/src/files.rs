//! Files that are replaced whole, and sockets in folders that others may write.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};
use tenant_config::Name;

use crate::error::HostError;

/// The directory of one tenant.
pub(crate) fn tenant_directory(dir: &Path, tenant: &Name) -> PathBuf {
    dir.join("tenants").join(tenant.as_str())
}

/// Opens the inode of a socket in a folder that others may write. The returned path leads to
/// exactly this socket while the file is open.
pub(crate) fn pin_socket(path: &Path) -> std::io::Result<(File, PathBuf)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_NOFOLLOW).bits())
        .open(path)?;
    if !file.metadata()?.file_type().is_socket() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "it is not a socket",
        ));
    }
    let pinned = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    Ok((file, pinned.into()))
}

/// Whether this process or the host lacks descriptors or memory. That says nothing about the file
/// or process that was asked for.
pub(crate) fn is_shortage(error: &std::io::Error) -> bool {
    let shortages = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM];
    let shortages = shortages.map(|errno| errno as i32);
    error
        .raw_os_error()
        .is_some_and(|errno| shortages.contains(&errno))
}

/// Removes a file, or a folder with everything in it, if it exists.
pub(crate) fn remove(path: &Path) -> Result<(), HostError> {
    let removed = match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => std::fs::remove_dir_all(path),
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(HostError::io(format!(
            "cannot remove {}",
            path.display()
        ))(error)),
        _ => Ok(()),
    }
}

/// Connects to a socket, without waiting: if its server accepts no connection, its full queue is an
/// error.
pub(crate) fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Replaces a file atomically: a reader sees the whole old or the whole new text, even after a
/// power failure.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let written = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
    if let Err(error) = written.and_then(|()| std::fs::rename(&temporary, path)) {
        // Half a file would only take space.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    if let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}
