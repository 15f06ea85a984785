//! The log of a tenant's switch.
//!
//! A switch has no file to write to. Its standard error is a named pipe in the tenant's directory,
//! which only root can open. The supervisor, and each command that starts or stops a switch, moves
//! what is in the pipe to the log, and starts a new one before it becomes too long. Nobody has to
//! wait for anybody: a switch drops and counts what a full pipe has no room for, and the pipe keeps
//! what it holds while one process has it open, the switch or a [`LogHolder`].

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustix::fs::{FlockOperation, flock};
use vswitch_api::plain::Plain;

use super::files::TenantFiles;
use crate::error::HostError;

/// A log that would become longer is kept as the one before, and a new one begins.
const MAX_BYTES: u64 = 1 << 20;
/// What is kept of a log that libvirt writes.
const KEPT_BYTES: u64 = 1 << 18;
/// What is moved at a time: as much as a pipe holds.
const PIPE_BYTES: usize = 1 << 16;
/// Of a log and its pipe: for root alone.
const MODE: u32 = 0o600;

/// Keeps what is in a switch's pipe although the switch ends: a pipe that no process has open is
/// empty.
#[derive(Debug)]
pub struct LogHolder {
    _pipe: File,
    /// Its device and number. A tenant that is set up again has another.
    identity: (u64, u64),
}

impl TenantFiles {
    /// The pipe that is a switch's standard error.
    pub(super) fn log_pipe(&self) -> PathBuf {
        self.log().with_extension("pipe")
    }

    /// The log before the present one.
    fn log_before(&self) -> PathBuf {
        self.log().with_extension("1")
    }

    /// The last lines of the log, for an error.
    pub(super) fn tail(&self) -> String {
        let path = self.log();
        // What cannot be moved is missing.
        let _ = self.collect_log();
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

    /// Makes the pipe for a switch that is started, unless it is there.
    pub(super) fn make_log_pipe(&self) -> Result<Option<LogHolder>, HostError> {
        let path = self.log_pipe();
        let what = || format!("cannot make {}", path.display());
        match mkfifo(&path, Mode::from_bits_truncate(MODE)) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(errno) => return Err(HostError::io(what())(errno.into())),
        }
        // What another switch has written last, if nobody was there to take it.
        self.collect_last();
        let mut holder = None;
        self.hold_log(&mut holder)?;
        Ok(holder)
    }

    /// Removes the pipe, for a machine whose log is written by libvirt, and cuts that log.
    pub(super) fn remove_log_pipe(&self) -> Result<(), HostError> {
        let path = self.log_pipe();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let what = format!("cannot remove {}", path.display());
                return Err(HostError::io(what)(error));
            }
            _ => {}
        }
        self.collect_log()
    }

    /// Keeps the pipe open in `holder`, unless it is already.
    pub(crate) fn hold_log(&self, holder: &mut Option<LogHolder>) -> Result<(), HostError> {
        let path = self.log_pipe();
        let identity = |file: &std::fs::Metadata| (file.dev(), file.ino());
        let mut hold = || {
            let there = std::fs::metadata(&path).ok().as_ref().map(identity);
            if there == holder.as_ref().map(|holder| holder.identity) {
                return Ok(());
            }
            *holder = match open_pipe(&path)? {
                Some(pipe) => Some(LogHolder {
                    identity: identity(&pipe.metadata()?),
                    _pipe: pipe,
                }),
                None => None,
            };
            Ok(())
        };
        hold().map_err(HostError::io(format!("cannot open {}", path.display())))
    }

    /// As [`Self::collect_log`], but no reason to stop: without room for its log, a switch can
    /// still be started and ended.
    pub(super) fn collect_last(&self) {
        if let Err(error) = self.collect_log() {
            tracing::warn!(%error, "what the switch has written is not logged");
        }
    }

    /// Moves what is in the pipe to the log. A log without a pipe, as libvirt and switches of
    /// earlier versions write it, is cut to its tail if it is too long.
    pub(crate) fn collect_log(&self) -> Result<(), HostError> {
        let (log, path) = (self.log(), self.log_pipe());
        let what = format!("cannot open {}", path.display());
        let Some(mut pipe) = open_pipe(&path).map_err(HostError::io(what))? else {
            return trim(&log, MAX_BYTES);
        };
        let mut collect = || {
            match flock(&pipe, FlockOperation::NonBlockingLockExclusive) {
                // Another process is just moving it.
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
                locked => locked?,
            }
            let text = read_pipe(&mut pipe)?;
            if text.is_empty() {
                return Ok(());
            }
            let length = std::fs::metadata(&log).map_or(0, |log| log.len());
            if length + text.len() as u64 > MAX_BYTES {
                std::fs::rename(&log, self.log_before())?;
            }
            let mut options = OpenOptions::new();
            let mut log = options.create(true).append(true).mode(MODE).open(&log)?;
            log.write_all(&text)
        };
        collect().map_err(HostError::io(format!("cannot write {}", log.display())))
    }
}

/// Opens a pipe for reading, without a wait for its writer; `None` if there is none.
fn open_pipe(path: &Path) -> std::io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    match options.read(true).custom_flags(O_NONBLOCK).open(path) {
        Ok(pipe) if pipe.metadata()?.file_type().is_fifo() => Ok(Some(pipe)),
        Ok(_) => Err(std::io::Error::other("it is no pipe")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is in a pipe, and no more than a pipe holds: its writer may go on writing for ever.
fn read_pipe(pipe: &mut File) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut part = [0; 1 << 12];
    while text.len() < PIPE_BYTES {
        match pipe.read(&mut part) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&part[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(text)
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
/// them, so they are made plain.
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
    Ok(shown.map(|line| Plain(line).to_string()).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A tenant's files, with a pipe, and the end of it that a switch has.
    fn files() -> (tempfile::TempDir, TenantFiles, File) {
        let state_dir = tempfile::tempdir().expect("a directory");
        let files = TenantFiles::below(state_dir.path(), &"red".parse().expect("a name"));
        std::fs::create_dir_all(&files.directory).expect("a directory");
        files.make_log_pipe().expect("a pipe");
        let switch = switch(&files);
        (state_dir, files, switch)
    }

    fn switch(files: &TenantFiles) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(O_NONBLOCK);
        options.open(files.log_pipe()).expect("its standard error")
    }

    fn collected(files: &TenantFiles) -> String {
        files.collect_log().expect("it is moved");
        std::fs::read_to_string(files.log()).unwrap_or_default()
    }

    #[test]
    fn lines_are_moved_from_the_pipe_to_the_log() {
        let (_state_dir, files, mut switch) = files();
        assert_eq!(collected(&files), "");
        for line in ["one\n", "two\n"] {
            switch.write_all(line.as_bytes()).expect("there is room");
        }
        assert_eq!(collected(&files), "one\ntwo\n");
        assert_eq!(collected(&files), "one\ntwo\n");
        let mode = std::fs::metadata(files.log()).expect("the log").mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[test]
    fn last_words_stay_while_the_pipe_is_held() {
        let (_state_dir, files, mut first) = files();
        let mut holder = None;
        files.hold_log(&mut holder).expect("it is held");
        first.write_all(b"held\n").expect("there is room");
        drop(first);
        assert_eq!(collected(&files), "held\n");
        let mut second = switch(&files);
        drop(holder);
        second.write_all(b"lost\n").expect("there is room");
        drop(second);
        assert_eq!(collected(&files), "held\n");
    }

    #[test]
    fn holder_follows_a_new_pipe() {
        let (_state_dir, files, _switch) = files();
        let mut holder = None;
        files.hold_log(&mut holder).expect("it is held");
        let first = holder.as_ref().map(|holder| holder.identity);
        let old = files.log_pipe().with_extension("old");
        std::fs::rename(files.log_pipe(), &old).expect("it is there");
        files.make_log_pipe().expect("a pipe");
        files.hold_log(&mut holder).expect("it is held");
        assert_ne!(holder.as_ref().map(|holder| holder.identity), first);
        std::fs::remove_file(files.log_pipe()).expect("it is there");
        files.hold_log(&mut holder).expect("nothing to hold");
        assert!(holder.is_none());
    }

    #[test]
    fn flood_of_lines_fills_two_logs_at_most() {
        let (_state_dir, files, mut switch) = files();
        for _ in 0..100 {
            // A pipe may take less.
            let _ = switch.write(&[b'x'; PIPE_BYTES]);
            files.collect_log().expect("it is moved");
            for path in [files.log(), files.log_before()] {
                let length = std::fs::metadata(path).map_or(0, |log| log.len());
                assert!(length <= MAX_BYTES, "{length}");
            }
        }
        assert!(files.log_before().exists());
    }

    #[test]
    fn pipe_that_is_being_moved_is_left_alone() {
        let (_state_dir, files, mut switch) = files();
        switch.write_all(b"line\n").expect("there is room");
        let other = File::open(files.log_pipe()).expect("it is there");
        flock(&other, FlockOperation::LockExclusive).expect("it is locked");
        assert_eq!(collected(&files), "");
        drop(other);
        assert_eq!(collected(&files), "line\n");
    }

    #[test]
    fn log_without_a_pipe_is_cut() {
        let (_state_dir, files, _switch) = files();
        files.remove_log_pipe().expect("it is removed");
        let log = File::create(files.log()).expect("a file");
        for (length, left) in [(MAX_BYTES, MAX_BYTES), (MAX_BYTES + 1, KEPT_BYTES)] {
            log.set_len(length).expect("its length");
            files.collect_log().expect("it is cut");
            assert_eq!(log.metadata().expect("its length").len(), left);
        }
        std::fs::remove_file(files.log()).expect("it was there");
        files.collect_log().expect("a log is not needed");
    }

    #[test]
    fn file_in_place_of_the_pipe_is_refused() {
        let (_state_dir, files, _switch) = files();
        std::fs::remove_file(files.log_pipe()).expect("it was there");
        File::create(files.log_pipe()).expect("a file");
        assert!(files.collect_log().is_err());
        assert!(files.make_log_pipe().is_err());
    }

    #[test]
    fn last_lines_are_bounded_and_plain() {
        let lines = |text: &[u8]| last_lines(Cursor::new(text)).expect("it is read");
        assert_eq!(lines(b""), Vec::<String>::new());
        assert_eq!(lines(b"1\n2\n3\n4\n5\n6\n"), ["2", "3", "4", "5", "6"]);
        assert_eq!(
            lines(b"\x1b[2Jall is well\x07\xff"),
            ["\\u{1b}[2Jall is well\\u{7}\u{fffd}"]
        );
        let long = vec![b'x'; 1 << 20];
        assert_eq!(lines(&long), ["x".repeat(2000)]);
    }
}
