//! Work that the kernel may hold up for as long as it likes: some attributes of a device are read
//! and written under a lock that another waits with, such as the removal of a function that a
//! program has open. Such a wait cannot be interrupted, so the work has a thread of its own, which
//! is left behind.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// How long the kernel may take to bind, unbind, make or remove functions: several seconds where a
/// driver resets a NIC, and more on a slow machine.
const WRITE: Duration = Duration::from_secs(60);

/// The result of `work`, if it has one in time. Otherwise the work goes on.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = sync_channel(1);
    thread::Builder::new().spawn(move || {
        // Nobody waits for one that is late.
        let _ = done.send(work());
    })?;
    result.recv_timeout(limit).map_err(|_| {
        let message = format!("the kernel has not done it within {} s", limit.as_secs());
        io::Error::new(ErrorKind::TimedOut, message)
    })
}

/// Writes a file of sysfs, within a minute.
pub(crate) fn write(path: &Path, value: impl Into<Vec<u8>>) -> io::Result<()> {
    let (path, value) = (path.to_owned(), value.into());
    within(WRITE, move || std::fs::write(path, value))?
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn late_work_is_left_behind() {
        let began = Instant::now();
        let (go, wait) = sync_channel::<()>(0);
        let late = within(Duration::from_millis(50), move || wait.recv().is_ok());
        let error = late.expect_err("it waits");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(10));
        drop(go);
        assert_eq!(within(Duration::from_secs(60), || 7).expect("at once"), 7);
    }

    #[test]
    fn file_is_written_or_the_kernels_error_returned() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("value");
        write(&file, "7").expect("it is written");
        assert_eq!(std::fs::read_to_string(&file).expect("a file"), "7");
        let error = write(&dir.path().join("no/file"), "7").expect_err("no such folder");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
