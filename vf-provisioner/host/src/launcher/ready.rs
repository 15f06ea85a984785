//! Asks switches whether they are ready, all at once, in one thread and without a child.
//!
//! A switch may have been taken over, so nothing that it says is parsed here: the first bytes of
//! the answer are compared with those of a success, in a buffer of their length. Whatever else a
//! switch says, a child without privileges asks again ([`ask`](super::ask)) and returns the reason.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vswitch_api::Endpoint;

use crate::files::{connect, pin_socket};

/// How many are asked at once: each takes a descriptor.
const AT_ONCE: usize = 256;
/// How an answer begins that says so.
const YES: &[u8; 12] = b"HTTP/1.1 200";

/// What a switch said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// Its worker runs.
    Ready,
    /// Nothing, within the time that it had.
    Silent,
    /// Something else, or it could not be asked.
    Other,
}

/// A question that was sent.
struct Question {
    place: usize,
    stream: UnixStream,
    until: Instant,
    heard: Vec<u8>,
}

/// What these switches say, each within this time of its question.
pub(super) fn ask(sockets: &[PathBuf], within: Duration) -> Vec<Said> {
    let mut said = vec![Said::Other; sockets.len()];
    let mut next = 0..sockets.len();
    let mut open: Vec<Question> = Vec::new();
    loop {
        while open.len() < AT_ONCE
            && let Some(place) = next.next()
        {
            if let Ok(stream) = sockets
                .get(place)
                .map_or(Err(ErrorKind::NotFound.into()), send)
            {
                open.push(Question {
                    place,
                    stream,
                    until: Instant::now() + within,
                    heard: Vec::new(),
                });
            }
        }
        let Some(first) = open.iter().map(|it| it.until).min() else {
            return said;
        };
        wait(&open, first);
        let now = Instant::now();
        open.retain_mut(|question| {
            let answer = question
                .answer()
                .or((question.until <= now).then_some(Said::Silent));
            if let (Some(answer), Some(said)) = (answer, said.get_mut(question.place)) {
                *said = answer;
            }
            answer.is_none()
        });
    }
}

/// Waits for an answer, or until then.
fn wait(open: &[Question], until: Instant) {
    let fds = open.iter();
    let mut fds: Vec<PollFd<'_>> = fds
        .map(|it| PollFd::new(it.stream.as_fd(), PollFlags::POLLIN))
        .collect();
    // The last millisecond is waited for, too.
    let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    // After an error each stream is read, and says what is wrong with it.
    let _ = poll(&mut fds, left);
}

/// Connects and asks. The socket's folder belongs to the switch, so a link in the place of the
/// socket is not followed.
fn send(socket: impl AsRef<Path>) -> io::Result<UnixStream> {
    let (_file, pinned) = pin_socket(socket.as_ref())?;
    let mut stream = connect(&pinned)?;
    stream.set_nonblocking(true)?;
    let path = Endpoint::Readyz.spec().path;
    let request = format!("GET {path} HTTP/1.1\r\nhost: vswitch\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

impl Question {
    /// What it said, if it has said enough.
    fn answer(&mut self) -> Option<Said> {
        let mut bytes = [0; YES.len()];
        loop {
            let room = YES.len() - self.heard.len();
            match self.stream.read(bytes.get_mut(..room)?) {
                Ok(0) => return Some(Said::Other),
                Ok(length) => self.heard.extend(bytes.get(..length)?),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => return Some(Said::Other),
            }
            if !YES.starts_with(&self.heard) {
                return Some(Said::Other);
            }
            if self.heard.len() == YES.len() {
                return Some(Said::Ready);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(200);

    /// What a switch is taken to say that answers these pieces, and keeps the connection or not.
    fn said(pieces: &[&str], keeps: bool, within: Duration) -> Said {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("control.sock");
        let listener = UnixListener::bind(&socket).expect("it listens");
        std::thread::scope(|scope| {
            let switch = scope.spawn(move || {
                let (mut client, _) = listener.accept().expect("a client");
                let mut request = [0; 256];
                let length = client.read(&mut request).expect("it asks");
                assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
                for piece in pieces {
                    client.write_all(piece.as_bytes()).expect("it is written");
                    std::thread::sleep(Duration::from_millis(5));
                }
                keeps.then_some(client)
            });
            let said = ask(&[socket], within);
            drop(switch.join());
            said[0]
        })
    }

    #[test]
    fn only_a_success_is_ready() {
        assert_eq!(said(&["HTTP/1.1 200 OK\r\n\r\n"], true, LONG), Said::Ready);
        assert_eq!(said(&["HT", "TP/1.1 2", "00"], true, LONG), Said::Ready);
        assert_eq!(said(&["HTTP/1.1 503 no\r\n"], true, LONG), Said::Other);
        assert_eq!(said(&["HTTP/1.1 20"], false, LONG), Said::Other);
        assert_eq!(said(&["\u{1b}[2J"], true, LONG), Said::Other);
        assert_eq!(said(&["HTTP/1.1 20"], true, SHORT), Said::Silent);
        assert_eq!(said(&[], true, SHORT), Said::Silent);
        assert_eq!(said(&[], false, LONG), Said::Other);
    }

    #[test]
    fn what_is_no_socket_is_not_asked() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("it is written");
        let missing = dir.path().join("missing");
        assert_eq!(ask(&[file, missing], LONG), [Said::Other; 2]);
        assert_eq!(ask(&[], LONG), []);
    }

    #[test]
    fn silent_switches_are_waited_for_together() {
        let dir = tempfile::tempdir().expect("a directory");
        let sockets: Vec<PathBuf> = (0..100)
            .map(|it| dir.path().join(format!("{it}")))
            .collect();
        let listeners: Vec<UnixListener> = sockets
            .iter()
            .map(|socket| UnixListener::bind(socket).expect("it listens"))
            .collect();
        let began = Instant::now();
        assert_eq!(ask(&sockets, SHORT), [Said::Silent; 100]);
        assert!(began.elapsed() < 20 * SHORT, "{:?}", began.elapsed());
        drop(listeners);
    }
}
