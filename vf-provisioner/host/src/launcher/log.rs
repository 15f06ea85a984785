//! The log of a tenant's switch.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::files::TenantFiles;
use crate::error::HostError;

/// A longer log is replaced, or cut to its tail if that cannot be, and before a start.
const MAX_BYTES: u64 = 1 << 20;
/// A log that grows longer although it is to be replaced is cut to its tail all the same.
const HARD_MAX_BYTES: u64 = 2 * MAX_BYTES;
const KEPT_BYTES: u64 = 1 << 18;
/// Of a log: for root alone.
pub(super) const MODE: u32 = 0o600;

impl TenantFiles {
    /// The last lines of the log, for an error.
    pub(super) fn tail(&self) -> String {
        let path = self.log();
        let last = File::open(&path)
            .and_then(last_lines)
            .unwrap_or_default()
            .join(" | ");
        if last.is_empty() {
            format!("; its log {} is empty", path.display())
        } else {
            format!("; its log {} ends: {last}", path.display())
        }
    }

    /// Cuts a log that is too long to its tail. Writers append behind that.
    pub(crate) fn trim_log(&self) -> Result<(), HostError> {
        trim(&self.log(), MAX_BYTES)
    }

    /// Cuts the log and the one before it if they have grown too long although a switch was given
    /// another.
    pub(crate) fn limit_logs(&self) -> Result<(), HostError> {
        trim(&self.log(), HARD_MAX_BYTES)?;
        trim(&self.log_before(), HARD_MAX_BYTES)
    }

    /// The log before the one that the switch was given last.
    fn log_before(&self) -> PathBuf {
        self.log().with_extension("1")
    }

    /// Replaces a log that is too long by an empty one, which `hand_over` gives to the switch.
    /// Returns whether that was necessary.
    ///
    /// The two files change places: both keep their names for ever, so whatever a switch writes to
    /// the one that it should have closed is seen and limited. Until the switch has taken the new
    /// file its lines go to the old one.
    pub(crate) fn replace_log(
        &self,
        hand_over: impl FnOnce(&File) -> std::io::Result<()>,
    ) -> Result<bool, HostError> {
        let (log, before) = (self.log(), self.log_before());
        let replace = || {
            if std::fs::metadata(&log)?.len() <= MAX_BYTES {
                return Ok(false);
            }
            let new = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(MODE)
                .open(&before)?;
            new.set_len(0)?;
            exchange(&log, &before)?;
            match hand_over(&new) {
                Ok(()) => Ok(true),
                Err(error) => exchange(&log, &before).and(Err(error)),
            }
        };
        replace().map_err(HostError::io(format!("cannot replace {}", log.display())))
    }
}

fn exchange(one: &Path, other: &Path) -> std::io::Result<()> {
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// Cuts a log of more than `most` bytes to its tail. Writers append behind that.
fn trim(path: &Path, most: u64) -> Result<(), HostError> {
    let what = || format!("cannot trim {}", path.display());
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(HostError::io(what())(error)),
    };
    let mut trim = || {
        let length = file.metadata()?.len();
        if length <= most {
            return Ok(());
        }
        let mut tail = Vec::new();
        file.seek(SeekFrom::Start(length - KEPT_BYTES))?;
        Read::by_ref(&mut file)
            .take(KEPT_BYTES)
            .read_to_end(&mut tail)?;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&tail)
    };
    trim().map_err(HostError::io(what()))
}

/// The last lines of a log of any length. The switch wrote them and an operator's terminal shows
/// them, so control characters are replaced.
fn last_lines(mut log: impl Read + Seek) -> std::io::Result<Vec<String>> {
    const BYTES: u64 = 2000;
    const LINES: usize = 5;
    let length = log.seek(SeekFrom::End(0))?;
    log.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
    let mut text = Vec::new();
    log.take(BYTES).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines[lines.len().saturating_sub(LINES)..].iter();
    Ok(shown
        .map(|line| line.replace(char::is_control, "?"))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A tenant's files, with logs of that many bytes.
    fn files(log: u64, before: u64) -> (tempfile::TempDir, TenantFiles) {
        let state_dir = tempfile::tempdir().expect("a directory");
        let files = TenantFiles::below(state_dir.path(), &"red".parse().expect("a name"));
        std::fs::create_dir_all(&files.directory).expect("a directory");
        for (path, length) in [(files.log(), log), (files.log_before(), before)] {
            let file = File::create(path).expect("a file");
            file.set_len(length).expect("its length");
        }
        (state_dir, files)
    }

    fn lengths(files: &TenantFiles) -> [u64; 2] {
        [files.log(), files.log_before()]
            .map(|path| std::fs::metadata(path).expect("it is there").len())
    }

    #[test]
    fn log_that_is_too_long_is_replaced_by_an_empty_one() {
        let (_state_dir, files) = files(MAX_BYTES, 7);
        let replaced = files.replace_log(|_| panic!("it is short"));
        assert!(!replaced.expect("nothing to do"));
        assert_eq!(lengths(&files), [MAX_BYTES, 7]);

        let (_state_dir, files) = self::files(MAX_BYTES + 1, 7);
        let replaced = files.replace_log(|mut new| new.write_all(b"new"));
        assert!(replaced.expect("it is replaced"));
        assert_eq!(lengths(&files), [3, MAX_BYTES + 1]);
    }

    #[test]
    fn log_that_is_not_taken_stays() {
        let (_state_dir, files) = files(MAX_BYTES + 1, 7);
        let replaced = files.replace_log(|_| Err(ErrorKind::WouldBlock.into()));
        assert!(replaced.is_err());
        assert_eq!(lengths(&files), [MAX_BYTES + 1, 0]);
    }

    #[test]
    fn both_logs_are_limited() {
        let (_state_dir, files) = files(HARD_MAX_BYTES, HARD_MAX_BYTES + 1);
        files.limit_logs().expect("they are cut");
        assert_eq!(lengths(&files), [HARD_MAX_BYTES, KEPT_BYTES]);
        std::fs::remove_file(files.log_before()).expect("it was there");
        files.limit_logs().expect("a log before is not needed");
    }

    #[test]
    fn last_lines_are_bounded_and_without_control_characters() {
        let lines = |text: &[u8]| last_lines(Cursor::new(text)).expect("it is read");
        assert_eq!(lines(b""), Vec::<String>::new());
        assert_eq!(lines(b"1\n2\n3\n4\n5\n6\n"), ["2", "3", "4", "5", "6"]);
        assert_eq!(
            lines(b"\x1b[2Jall is well\x07\xff"),
            ["?[2Jall is well?\u{fffd}"]
        );
        let long = vec![b'x'; 1 << 20];
        assert_eq!(lines(&long), ["x".repeat(2000)]);
    }
}
