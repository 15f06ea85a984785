//! The log of a tenant's switch.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};

use super::files::TenantFiles;
use crate::error::HostError;

/// A longer log is cut to its tail, by the supervisor and before a start.
const MAX_BYTES: u64 = 1 << 20;
const KEPT_BYTES: u64 = 1 << 18;

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
        let path = self.log();
        let what = || format!("cannot trim {}", path.display());
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(HostError::io(what())(error)),
        };
        let mut trim = || {
            let length = file.metadata()?.len();
            if length <= MAX_BYTES {
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
