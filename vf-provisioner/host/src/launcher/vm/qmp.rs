//! QEMU's monitor, and the unix sockets of a machine.
//!
//! The folder of the sockets belongs to the user that QEMU runs as, so a link in the place of a
//! socket is not followed.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};
use serde_json::{Value, json};

use crate::files::pin_socket;

const PATIENCE: Duration = Duration::from_secs(2);
/// The maximum length of an answer.
const LINE_MAX: u64 = 1 << 16;

/// Connects to the socket at `path`, never to the target of a link.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_file, pinned) = pin_socket(path)?;
    // Non-blocking: if the server accepts no connection, its full queue is an error.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(&pinned)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A monitor that is ready for commands. QEMU serves one client at a time.
#[derive(Debug)]
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
    /// The received part of an incomplete line.
    begun: Vec<u8>,
    /// The number of commands, each of which has its number as ID, like its answer. A busy QEMU may
    /// answer late, when we already wait for the answer to a later command.
    given: u64,
}

impl Monitor {
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let mut monitor = Self {
            stream: BufReader::new(connect(path)?),
            begun: Vec::new(),
            given: 0,
        };
        monitor.line()?;
        monitor.execute("qmp_capabilities")?;
        Ok(monitor)
    }

    fn line(&mut self) -> io::Result<Value> {
        let room = LINE_MAX.saturating_sub(self.begun.len() as u64);
        (&mut self.stream)
            .take(room)
            .read_until(b'\n', &mut self.begun)?;
        if self.begun.last() != Some(&b'\n') {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let line = std::mem::take(&mut self.begun);
        Ok(serde_json::from_slice(&line)?)
    }

    /// Executes a command without arguments and returns its result.
    pub(super) fn execute(&mut self, command: &str) -> io::Result<Value> {
        self.given += 1;
        let text = json!({"execute": command, "id": self.given}).to_string();
        self.stream.get_mut().write_all(text.as_bytes())?;
        let began = Instant::now();
        loop {
            // Skips events, and late answers to earlier commands.
            let mut answer = self.line()?;
            if answer["id"] == self.given {
                if let Some(result) = answer.get_mut("return") {
                    return Ok(result.take());
                }
                return Err(Error::other(format!("{command}: {}", answer["error"])));
            }
            if began.elapsed() > PATIENCE {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }

    /// Why the machine does not execute instructions, if it does not.
    pub(super) fn stuck(&mut self) -> io::Result<Option<String>> {
        let status = self.execute("query-status")?;
        if status["running"] == true {
            return Ok(None);
        }
        let status = status["status"].as_str().unwrap_or("in an unknown state");
        Ok(Some(format!(
            "QEMU says that the machine is {status:?}, not running"
        )))
    }

    /// Whether a program in the machine has opened the port behind this chardev.
    pub(super) fn is_open(&mut self, chardev: &str) -> io::Result<bool> {
        let all = self.execute("query-chardev")?;
        let mut all = all.as_array().into_iter().flatten();
        Ok(all.any(|it| it["label"] == chardev && it["frontend-open"] == true))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use std::path::PathBuf;

    use super::*;

    fn served(lines: &'static [&'static str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("qmp.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut asked = [0; 256];
            for line in lines {
                stream.write_all(line.as_bytes()).expect("it is sent");
                if !line.contains("\"event\"") {
                    let _ = stream.read(&mut asked);
                }
            }
        });
        (dir, path)
    }

    const HELLO: &str = "{\"QMP\": {}}\n";

    #[test]
    fn events_before_an_answer_are_skipped() {
        let (_dir, path) = served(&[
            HELLO,
            "{\"return\": {}, \"id\": 1}\n",
            "{\"event\": \"RESUME\"}\n",
            "{\"return\": {\"running\": false, \"status\": \"internal-error\"}, \"id\": 2}\n",
        ]);
        let mut monitor = Monitor::connect(&path).expect("it answers");
        assert_eq!(
            monitor.stuck().expect("it answers").as_deref(),
            Some("QEMU says that the machine is \"internal-error\", not running")
        );
    }

    #[test]
    fn late_answer_is_skipped() {
        let (ours, mut qemu) = UnixStream::pair().expect("a pair");
        ours.set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a time limit");
        let mut monitor = Monitor {
            stream: BufReader::new(ours),
            begun: Vec::new(),
            given: 0,
        };
        qemu.write_all(b"{\"return\": [{\"label\": ")
            .expect("it is sent");
        assert!(!monitor.is_open("control").unwrap_or(false));
        qemu.write_all(
            b"\"control\"}], \"id\": 1}\n{\"return\": {\"running\": true}, \"id\": 2}\n",
        )
        .expect("it is sent");
        assert_eq!(monitor.stuck().expect("it answers"), None);
    }

    #[test]
    fn link_in_place_of_socket_is_not_followed() {
        let (dir, path) = served(&[HELLO, "{\"return\": {}, \"id\": 1}\n"]);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert!(Monitor::connect(&link).is_err());
        assert!(Monitor::connect(&path).is_ok());
    }

    #[test]
    fn missing_answer_is_an_error() {
        let (_dir, path) = served(&[]);
        assert!(Monitor::connect(&path).is_err());
    }
}
