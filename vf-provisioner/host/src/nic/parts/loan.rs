//! How another process changes tables that the supervisor owns: it asks for them, and the
//! supervisor gives up ownership until the connection ends.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::HostError;

/// In the state directory, which is root's.
pub(crate) const SOCKET: &str = "locks.sock";
/// How long the supervisor may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The tables, until it is dropped.
#[derive(Debug)]
pub(crate) struct Loan {
    _connection: UnixStream,
}

/// Asks the supervisor for the tables; `None` if none runs.
pub(crate) fn borrow(state_dir: &Path) -> Result<Option<Loan>, HostError> {
    let path = state_dir.join(SOCKET);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Ok(mut connection) = UnixStream::connect(&path) else {
            return Ok(None);
        };
        let answer = connection
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| connection.read_exact(&mut [0]));
        match answer {
            Ok(()) => {
                return Ok(Some(Loan {
                    _connection: connection,
                }));
            }
            // It has given up its tables with its last port, or has ended.
            Err(error) if has_closed(&error) && Instant::now() < deadline => {}
            Err(error) => {
                let what = "the supervisor does not answer, and may own the port locks";
                return Err(HostError::io(what)(error));
            }
        }
    }
}

fn has_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | UnexpectedEof)
}

/// The supervisor's side. The file goes with it.
#[derive(Debug)]
pub(crate) struct Lender {
    path: PathBuf,
    listener: UnixListener,
    inode: u64,
    borrowers: Vec<UnixStream>,
}

impl Lender {
    /// Replaces the file that a killed supervisor has left.
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        let inode = std::fs::metadata(&path)?.ino();
        Ok(Self {
            path,
            listener,
            inode,
            borrowers: Vec::new(),
        })
    }

    /// Whether the file is still there: the last release removes it.
    pub(crate) fn is_reachable(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|file| file.ino() == self.inode)
    }

    /// Lends to all who ask, and forgets who is done. Calls `release` before the first gets them.
    /// Returns whether they are lent.
    pub(crate) fn serve(&mut self, mut release: impl FnMut()) -> bool {
        self.borrowers.retain_mut(|borrower| {
            let read = borrower.read(&mut [0]);
            matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        });
        while let Ok((mut borrower, _)) = self.listener.accept() {
            release();
            let told = borrower.write_all(&[1]);
            if told.and_then(|()| borrower.set_nonblocking(true)).is_ok() {
                self.borrowers.push(borrower);
            }
        }
        !self.borrowers.is_empty()
    }

    /// Readable when there is something to serve.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let borrowers = self.borrowers.iter().map(AsFd::as_fd);
        std::iter::once(self.listener.as_fd()).chain(borrowers)
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        if self.is_reachable() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    #[test]
    fn tables_are_lent_until_the_borrower_is_done() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(borrow(dir.path()).expect("nobody runs").is_none());
        let mut lender = Lender::open(dir.path()).expect("it opens");
        assert!(!lender.serve(|| panic!("nobody asked")));
        let path = dir.path().to_owned();
        let borrower = std::thread::spawn(move || borrow(&path));
        let mut released = 0;
        while !lender.serve(|| released += 1) {
            std::thread::yield_now();
        }
        let loan = borrower.join().expect("no panic").expect("it is lent");
        assert_eq!(released, 1);
        assert!(lender.serve(|| panic!("nobody else asked")));
        drop(loan);
        assert!(!lender.serve(|| panic!("nobody else asked")));
        drop(lender);
        assert!(!dir.path().join(SOCKET).exists());
    }

    #[test]
    fn supervisor_that_gives_up_its_tables_instead_of_an_answer_owns_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let lender = Lender::open(dir.path()).expect("it opens");
        let path = dir.path().to_owned();
        let borrower = std::thread::spawn(move || borrow(&path));
        // It has asked.
        let mut asked = [PollFd::new(lender.listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PollTimeout::NONE).expect("it asks");
        drop(lender);
        let loan = borrower.join().expect("no panic");
        assert!(loan.expect("nobody owns them").is_none());
    }
}
