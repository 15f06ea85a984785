//! QEMU's monitor, and the unix sockets of a machine in general.
//!
//! The folder of the sockets belongs to the user that QEMU runs as, so whatever is found there is looked at
//! before it is trusted: a link in the place of a socket leads nowhere.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};
use serde_json::{Value, json};

use crate::files::pin_socket;

const PATIENCE: Duration = Duration::from_secs(2);
/// No answer that is asked for here is longer.
const LINE_MAX: u64 = 1 << 16;

/// Connects to the socket at `path`, and never to one elsewhere.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_file, held) = pin_socket(path)?;
    // Without blocking, for a server that accepts nobody: its queue is full, and we say so.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(&held)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A monitor that is ready for commands. QEMU serves one at a time.
#[derive(Debug)]
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
    /// What has come of a line whose end has not.
    begun: Vec<u8>,
    /// Commands given: each has its number as its name, and its answer has it too. A busy QEMU answers late, when we may
    /// have given up on that command and be waiting for the next one's answer.
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

    /// What QEMU returns for a command without arguments.
    pub(super) fn execute(&mut self, command: &str) -> io::Result<Value> {
        self.given += 1;
        let text = json!({"execute": command, "id": self.given}).to_string();
        self.stream.get_mut().write_all(text.as_bytes())?;
        let began = Instant::now();
        loop {
            // Events come in between, and late answers to commands before.
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
    fn events_between_an_answer_are_passed_over() {
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
    fn a_late_answer_is_not_taken_for_the_next_one() {
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
    fn a_link_in_the_place_of_a_socket_leads_nowhere() {
        let (dir, path) = served(&[HELLO, "{\"return\": {}, \"id\": 1}\n"]);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert!(Monitor::connect(&link).is_err());
        assert!(Monitor::connect(&path).is_ok());
    }

    #[test]
    fn no_answer_and_too_long_a_one_are_errors() {
        let (_dir, path) = served(&[]);
        assert!(Monitor::connect(&path).is_err());
    }
}
