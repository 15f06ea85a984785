//! QEMU's monitor, and the unix sockets of a machine.
//!
//! The folder of the sockets belongs to the user that QEMU runs as, so a link in the place of a
//! socket is not followed. QEMU may have been taken over by its machine: each exchange has one
//! deadline, each line a bound, and what an error quotes of it is short and plain.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::json;
use vswitch_api::plain::quote;

use crate::files::{self, pin_socket};

/// How long an exchange may take: a connection with its greeting, or a command with its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The maximum length of a line, and with it of all that is remembered between two exchanges.
const LINE_MAX: usize = 1 << 16;

/// Connects to the socket at `path`, never to the target of a link.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_file, pinned) = pin_socket(path)?;
    let stream = files::connect(&pinned)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A monitor that is ready for commands. QEMU serves one client at a time.
#[derive(Debug)]
pub(super) struct Monitor {
    stream: UnixStream,
    /// What was received behind the last whole line.
    received: Vec<u8>,
    /// The number of commands, each of which has its number as ID, like its answer. A busy QEMU may
    /// answer late, when we already wait for the answer to a later command.
    given: u64,
}

/// Of a line, what says whether it is the answer; events have no ID.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    id: Option<u64>,
}

/// The answer to a command.
#[derive(Deserialize)]
struct Answer<T> {
    #[serde(rename = "return")]
    result: Option<T>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

/// The result of a command from which nothing is needed.
type Anything = IgnoredAny;

/// The result of `query-status`.
#[derive(Deserialize)]
struct Status {
    running: bool,
    status: String,
}

/// An element of the result of `query-chardev`.
#[derive(Deserialize)]
struct Chardev {
    label: String,
    #[serde(rename = "frontend-open")]
    is_open: bool,
}

impl Monitor {
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let until = Instant::now() + PATIENCE;
        let mut monitor = Self::new(connect(path)?);
        monitor.line(until)?;
        monitor.execute::<Anything>("qmp_capabilities", until)?;
        Ok(monitor)
    }

    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            given: 0,
        }
    }

    /// The next line. Whatever arrives of a line until the deadline is kept for the next call.
    fn line(&mut self, until: Instant) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let found = self.received[searched..]
                .iter()
                .position(|byte| *byte == b'\n');
            if let Some(end) = found {
                let rest = self.received.split_off(searched + end + 1);
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            searched = self.received.len();
            if searched >= LINE_MAX {
                let sentence = format!("a line has more than {LINE_MAX} bytes");
                return Err(Error::new(ErrorKind::InvalidData, sentence));
            }
            self.stream.set_read_timeout(Some(left(until)?))?;
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.received.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends all of it. A monitor that does not read must not hold us longer than one that does not
    /// answer.
    fn send(&mut self, mut bytes: &[u8], until: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(left(until)?))?;
            match self.stream.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Executes a command without arguments and returns its result.
    fn execute<T: DeserializeOwned>(&mut self, command: &str, until: Instant) -> io::Result<T> {
        self.given += 1;
        let text = json!({"execute": command, "id": self.given}).to_string();
        self.send(text.as_bytes(), until)?;
        loop {
            // Skips events, and late answers to earlier commands.
            let line = self.line(until)?;
            if parse::<Head>(&line)?.id != Some(self.given) {
                // Lines that are there already take no time to wait for.
                left(until)?;
                continue;
            }
            return match parse(&line)? {
                Answer {
                    result: Some(result),
                    ..
                } => Ok(result),
                Answer { error, .. } => {
                    let reason = error.map(|error| quote(&error.desc));
                    let reason = reason.unwrap_or_else(|| "it gives no reason".to_owned());
                    Err(Error::other(format!("{command}: {reason}")))
                }
            };
        }
    }

    /// Lets QEMU end.
    pub(super) fn quit(&mut self) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        self.execute::<Anything>("quit", until).map(drop)
    }

    /// Why the machine does not execute instructions, if it does not.
    pub(super) fn stuck(&mut self) -> io::Result<Option<String>> {
        let until = Instant::now() + PATIENCE;
        let Status { running, status } = self.execute("query-status", until)?;
        let status = quote(&status);
        Ok((!running).then(|| format!("QEMU says that the machine is \"{status}\", not running")))
    }

    /// Whether a program in the machine has opened the port behind this chardev.
    pub(super) fn is_open(&mut self, chardev: &str) -> io::Result<bool> {
        let until = Instant::now() + PATIENCE;
        let all: Vec<Chardev> = self.execute("query-chardev", until)?;
        Ok(all.iter().any(|it| it.label == chardev && it.is_open))
    }
}

/// The time until the deadline.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    serde_json::from_slice(line).map_err(|error| {
        // The parser's own text quotes the line.
        Error::new(ErrorKind::InvalidData, quote(&error.to_string()))
    })
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

    /// Coverage-guided by `scripts/fuzz`; as an ordinary test it replays its corpus. Any lines of a
    /// monitor are answers or errors, and what is quoted of them is plain.
    #[test]
    fn monitor_is_read_or_refused() {
        bolero::check!()
            .with_iterations(0)
            .for_each(|input: &[u8]| {
                let (ours, mut qemu) = UnixStream::pair().expect("a pair");
                qemu.write_all(input).expect("it is sent");
                qemu.shutdown(std::net::Shutdown::Write).expect("it ends");
                let mut monitor = Monitor::new(ours);
                let errors = [
                    monitor.is_open("control").err(),
                    monitor.stuck().map_or_else(Some, |_| None),
                    monitor.quit().err(),
                ];
                for error in errors.into_iter().flatten() {
                    let text = error.to_string();
                    assert!(!text.chars().any(char::is_control), "{text:?}");
                }
            });
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
        let mut monitor = Monitor::new(ours);
        qemu.write_all(b"{\"return\": [{\"label\": ")
            .expect("it is sent");
        let until = Instant::now() + Duration::from_millis(50);
        assert!(
            monitor
                .execute::<Vec<Chardev>>("query-chardev", until)
                .is_err()
        );
        qemu.write_all(
            b"\"control\"}], \"id\": 1}\n\
              {\"return\": {\"running\": true, \"status\": \"running\"}, \"id\": 2}\n",
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

    /// A monitor that greets, then does what `hostile` does, until its client is gone.
    fn taken_over(
        hostile: impl FnMut(&mut UnixStream) -> io::Result<()> + Send + 'static,
    ) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("qmp.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let mut hostile = hostile;
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            while hostile(&mut stream).is_ok() {}
        });
        (dir, path)
    }

    /// The error of a connection, which must not take longer than an exchange may.
    fn refused(hostile: impl FnMut(&mut UnixStream) -> io::Result<()> + Send + 'static) -> Error {
        let (_dir, path) = taken_over(hostile);
        let began = Instant::now();
        let error = Monitor::connect(&path).expect_err("it is hostile");
        let took = began.elapsed();
        assert!(took < PATIENCE + Duration::from_millis(500), "{took:?}");
        error
    }

    #[test]
    fn monitor_that_drips_holds_nobody_longer_than_one_that_is_silent() {
        let dripped = refused(|stream| {
            stream.write_all(b" ")?;
            std::thread::sleep(PATIENCE * 3 / 4);
            Ok(())
        });
        let waited = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
        assert!(waited.contains(&dripped.kind()), "{dripped}");
        let events = refused(|stream| stream.write_all(b"{\"event\": \"RESUME\"}\n"));
        assert!(waited.contains(&events.kind()), "{events}");
    }

    #[test]
    fn line_of_a_taken_over_monitor_is_bounded() {
        let endless = refused(|stream| stream.write_all(&[b' '; 4096]));
        assert_eq!(endless.to_string(), "a line has more than 65536 bytes");
        let deep = refused(|stream| {
            let text = format!("{}\n", "[".repeat(LINE_MAX - 1));
            stream.write_all(text.as_bytes())
        });
        assert_eq!(deep.kind(), ErrorKind::InvalidData, "{deep}");
    }

    #[test]
    fn what_a_taken_over_monitor_says_is_quoted_plainly() {
        let said = |line: &str| {
            let line = line.to_owned();
            let mut lines = [HELLO.to_owned(), line].into_iter();
            let error = refused(move |stream| {
                let line = lines.next().ok_or(ErrorKind::UnexpectedEof)?;
                stream.write_all(line.as_bytes())?;
                stream.read(&mut [0; 256]).map(drop)
            });
            error.to_string()
        };
        let long = "\u{9b}2J".repeat(LINE_MAX / 8);
        let refusal = said(&format!(
            "{{\"id\": 1, \"error\": {{\"desc\": \"{long}\"}}}}\n"
        ));
        assert!(
            refusal.starts_with("qmp_capabilities: \\u{9b}2J"),
            "{refusal}"
        );
        for line in [
            format!("{{\"id\": \"{long}\"}}\n"),
            format!("\"{long}\"\n"),
            "{\"id\": 1e400}\n".to_owned(),
            "{\"id\": 1, \"error\": 7}\n".to_owned(),
        ] {
            let error = said(&line);
            assert!(!error.contains(char::is_control), "{error:?}");
            assert!(error.len() < 8 * vswitch_api::plain::QUOTE_MAX, "{error}");
        }
    }

    #[test]
    fn missing_answer_is_an_error() {
        let (_dir, path) = served(&[]);
        assert!(Monitor::connect(&path).is_err());
    }
}
