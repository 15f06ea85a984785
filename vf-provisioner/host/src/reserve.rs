//! Space that is set aside in the state directory, so that a full disk stops no release, no
//! roll-back and no restart: the file is removed when a write fails for lack of space, and made
//! again behind it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::posix_fallocate;

use crate::files;

/// The file's name.
pub(crate) const FILE: &str = "reserve";
/// For the journal of an apply, and the files of a few switches.
const SLACK: u64 = 256 << 10;

/// What is set aside for a `state.json` of this length, which is replaced beside the old one.
pub(crate) fn size(state: u64) -> u64 {
    SLACK + 2 * state
}

/// Makes the file at least this long. On a full disk, and where a file system cannot allocate,
/// there is none.
pub(crate) fn keep(dir: &Path, bytes: u64) {
    let path = dir.join(FILE);
    if std::fs::metadata(&path).is_ok_and(|file| file.len() >= bytes) {
        return;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path);
    let kept = file.and_then(|file| {
        let bytes = i64::try_from(bytes).map_err(io::Error::other)?;
        Ok(posix_fallocate(file, 0, bytes)?)
    });
    if let Err(error) = kept {
        tracing::debug!(file = %path.display(), %error, "no space is set aside");
        let _ = std::fs::remove_file(&path);
    }
}

/// Whether an error says that no space is left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    let full = [Errno::ENOSPC, Errno::EDQUOT].map(|errno| Some(errno as i32));
    full.contains(&error.raw_os_error())
}

/// Does `work`, and once more with the space that was set aside if there was too little.
pub(crate) fn with<T>(dir: &Path, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let error = match work() {
        Err(error) if is_full(&error) => error,
        done => return done,
    };
    let path = dir.join(FILE);
    let Ok(bytes) = std::fs::metadata(&path).map(|file| file.len()) else {
        return Err(error);
    };
    if std::fs::remove_file(&path).is_err() {
        return Err(error);
    }
    let done = work();
    keep(dir, bytes);
    done
}

/// Replaces a file in `dir` as [`replace`] does. If there is no space even so, a content that is
/// not longer is written over the old one, which needs none: a crash at that moment leaves a
/// damaged file, but a disk that stays full would keep every tenant.
pub(crate) fn replace_or_overwrite(dir: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let error = match replace(dir, path, content, 0o600) {
        Err(error) if is_full(&error) => error,
        done => return done,
    };
    let mut file = OpenOptions::new().write(true).open(path)?;
    let length = content.len() as u64;
    if file.metadata()?.len() < length {
        return Err(error);
    }
    file.write_all(content)?;
    file.set_len(length)?;
    file.sync_all()
}

/// Replaces a file below `dir` atomically, with the space that was set aside if there is too
/// little.
pub(crate) fn replace(dir: &Path, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    with(dir, || files::replace(path, content, mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_used_once_and_set_aside_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let full = || io::Error::from(Errno::ENOSPC);
        let mut tries = 0;
        let mut work = || {
            tries += 1;
            if dir.path().join(FILE).exists() {
                Err(full())
            } else {
                Ok(tries)
            }
        };
        keep(dir.path(), 4096);
        assert_eq!(with(dir.path(), &mut work).expect("the second try"), 2);
        let kept = std::fs::metadata(dir.path().join(FILE)).expect("it is there");
        assert_eq!(kept.len(), 4096);
        let other = with(dir.path(), || Err::<(), _>(Errno::EIO.into()));
        assert_eq!(
            other.map_err(|error| error.raw_os_error()),
            Err(Some(Errno::EIO as i32))
        );
        std::fs::remove_file(dir.path().join(FILE)).expect("it is there");
        let none = with(dir.path(), || Err::<(), _>(full()));
        assert!(none.is_err_and(|error| is_full(&error)));
    }
}
