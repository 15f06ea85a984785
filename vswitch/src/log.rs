//! The log of a running switch, on standard error.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_subscriber::fmt::MakeWriter;

/// The longest line in bytes, with its end. A pipe takes so many whole, or none (PIPE_BUF).
const LINE_MAX: usize = 4096;

/// Writes lines to standard error, and drops those for which it has no room: under the provisioner
/// that is a pipe that never blocks, so that no reader can delay the switch. The next line that
/// has room follows a note of how many were dropped.
#[derive(Debug, Default)]
pub(crate) struct Log {
    dropped: AtomicU64,
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Writes one line.
#[derive(Debug)]
pub(crate) struct Line<'a>(&'a Log);

impl Log {
    fn write(&self, line: &[u8], out: &mut impl Write) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let mut text = match dropped {
            0 => Vec::new(),
            _ => format!("lines missing here, because the log was full: {dropped}\n").into(),
        };
        text.extend_from_slice(line);
        if text.len() > LINE_MAX {
            text.truncate(LINE_MAX - 1);
            text.push(b'\n');
        }
        // Whole or not at all.
        match out.write_all(&text) {
            // Others may have dropped more meanwhile.
            Ok(()) => self.dropped.fetch_sub(dropped, Ordering::Relaxed),
            Err(_) => self.dropped.fetch_add(1, Ordering::Relaxed),
        };
    }
}

impl Write for Line<'_> {
    /// Takes a line; never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line, &mut io::stderr().lock());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn full_pipe_drops_whole_lines_and_counts_them() {
        let (mut reader, mut writer) = io::pipe().expect("a pipe");
        for end in [reader.as_fd(), writer.as_fd()] {
            rustix::io::ioctl_fionbio(end, true).expect("it does not block");
        }
        let log = Log::default();
        let line = |number: u64| format!("{number:099}\n");
        let mut written = 0;
        while log.dropped.load(Ordering::Relaxed) < 3 {
            log.write(line(written).as_bytes(), &mut writer);
            written += 1;
        }
        let mut text = Vec::new();
        let full = reader.read_to_end(&mut text).map_err(|error| error.kind());
        assert_eq!(full, Err(ErrorKind::WouldBlock));
        let whole: String = (0..written - 3).map(line).collect();
        assert!(text == whole.as_bytes());

        log.write(b"there is room\n", &mut writer);
        log.write(b"and more\n", &mut writer);
        let mut text = Vec::new();
        let _ = reader.read_to_end(&mut text);
        assert_eq!(
            String::from_utf8_lossy(&text),
            "lines missing here, because the log was full: 3\nthere is room\nand more\n"
        );
    }

    #[test]
    fn long_line_is_cut() {
        let mut out = Vec::new();
        Log::default().write(&[b'x'; LINE_MAX + 1], &mut out);
        assert_eq!(out.len(), LINE_MAX);
        assert_eq!(out.last(), Some(&b'\n'));
    }
}
