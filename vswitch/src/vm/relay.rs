//! Relays the control API between the host and the switch in a VM.
//!
//! The channel carries HTTP/1.1 requests one after the other, from one client of the host after the
//! other. The relay reads each request whole, sends it to the switch over a connection of its own,
//! and sends the answer back.
//!
//! The kernel reports that a client connected or disconnected separately from the bytes, and often
//! after the first bytes of the next client. So the relay keeps received bytes, and drops part of a
//! request only after no client was connected for [`GRACE`]. An answer has the `X-Request-Id` of
//! its request, so a client can tell it from an answer to the client before.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use vswitch_api::client::Client;
use vswitch_api::{Endpoint, PREFER};

use super::channel::{self, GRACE, set_nonblocking, wait_for_peer};

/// How often a starting switch is asked whether it is ready. The interval grows with the time that
/// the start takes: on a slow machine each request is expensive, and the switch shares the CPU.
const READY_EVERY: Duration = Duration::from_millis(20);
const READY_EVERY_MAX: Duration = Duration::from_secs(1);
/// How long each answer to that may take. The host decides when to give up on a switch, so this is
/// longer than the host waits.
const READY_MAX: Duration = Duration::from_secs(600);
/// The largest head of a request.
const HEAD_MAX: usize = 64 << 10;
/// The largest body: more than the switch accepts, so that the switch answers with its own limit.
const BODY_MAX: usize = 16 << 20;
/// How long a client may pause within a request.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// How long the switch may take for its next bytes, unless the client says how long it waits, and
/// the client for reading some.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// The upper bound of a client's wait. The next client waits as long.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// The size of a read from the switch.
const CHUNK: usize = 64 << 10;

/// Returns when the switch answers that its worker is running.
pub(super) fn wait_until_ready(socket: &Path) {
    let client = Client::new(socket, READY_MAX);
    let ready = || client.get(Endpoint::Readyz, "").is_ok();
    let began = Instant::now();
    while !(socket.exists() && ready()) {
        thread::sleep(pause(began.elapsed()));
    }
}

/// The interval of asking a switch that has been starting for `since`.
fn pause(since: Duration) -> Duration {
    (since / 50).clamp(READY_EVERY, READY_EVERY_MAX)
}

/// Serves the clients that connect to `port`, one after the other, from the switch's `socket`.
/// Returns only on an error.
///
/// # Errors
/// If the port fails. Errors of a client or of the switch are answered, or end the request.
pub(super) fn serve<P: AsFd>(port: &P, socket: &Path) -> io::Result<()>
where
    for<'a> &'a P: Read + Write,
{
    set_nonblocking(port.as_fd())?;
    let mut host = Host {
        port,
        received: Vec::new(),
    };
    loop {
        match host.request()? {
            Some(Ok(request)) => forward(&request, socket, &mut host)?,
            Some(Err(error)) => {
                host.discard()?;
                host.send(&error.response())?;
            }
            None => {}
        }
    }
}

/// An error that the relay itself answers with: its status, and the sentence in its body.
#[derive(Debug, PartialEq, Eq)]
struct HttpError(&'static str, String);

impl HttpError {
    fn response(&self) -> Vec<u8> {
        let Self(status, sentence) = self;
        let body = serde_json::json!({ "error": sentence }).to_string();
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// A whole request, with the header that makes the switch close the connection after it.
#[derive(Debug)]
struct Request {
    bytes: Vec<u8>,
    /// How long its client waits for the answer.
    timeout: Duration,
}

/// Sends one request to the switch, and its answer to the host as it arrives.
fn forward<P>(request: &Request, socket: &Path, host: &mut Host<'_, P>) -> io::Result<()>
where
    P: AsFd,
    for<'a> &'a P: Read + Write,
{
    let mut answered = false;
    let connected = (|| {
        let mut switch = UnixStream::connect(socket)?;
        switch.set_read_timeout(Some(request.timeout))?;
        switch.set_write_timeout(Some(request.timeout))?;
        switch.write_all(&request.bytes)?;
        Ok(switch)
    })();
    let mut chunk = vec![0; CHUNK];
    let error: io::Error = match connected {
        Ok(mut switch) => loop {
            match switch.read(&mut chunk) {
                Ok(0) if answered => return Ok(()),
                Ok(0) => break ErrorKind::UnexpectedEof.into(),
                Ok(length) => {
                    answered = true;
                    if !host.send(&chunk[..length])? {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
        },
        Err(error) => error,
    };
    if !answered {
        let sentence = format!("the switch in the VM does not answer: {error}");
        host.send(&HttpError("503 Service Unavailable", sentence).response())?;
    }
    Ok(())
}

/// The channel to the host and its clients.
struct Host<'port, P> {
    port: &'port P,
    /// Bytes after the last whole request.
    received: Vec<u8>,
}

/// The result of waiting for bytes.
#[derive(PartialEq, Eq)]
enum Arrival {
    Bytes,
    /// A client is connected and sends nothing.
    Silence,
    /// No client is connected.
    Gone,
}

impl<P: AsFd> Host<'_, P>
where
    for<'a> &'a P: Read + Write,
{
    /// The next request, or the error that its client is to get. `None` if the client is gone.
    fn request(&mut self) -> io::Result<Option<Result<Request, HttpError>>> {
        loop {
            match split(&self.received) {
                Ok(Some(Extent {
                    line,
                    whole,
                    timeout,
                })) => {
                    let mut bytes = Vec::with_capacity(whole + 32);
                    bytes.extend_from_slice(&self.received[..line]);
                    bytes.extend_from_slice(b"Connection: close\r\n");
                    bytes.extend_from_slice(&self.received[line..whole]);
                    self.received.drain(..whole);
                    return Ok(Some(Ok(Request { bytes, timeout })));
                }
                Ok(None) => {}
                Err(error) => return Ok(Some(Err(error))),
            }
            match self.wait_for_bytes()? {
                Arrival::Bytes => {}
                Arrival::Silence => {
                    let sentence = format!("the request did not arrive whole within {IDLE_MAX:?}");
                    return Ok(Some(Err(HttpError("408 Request Timeout", sentence))));
                }
                Arrival::Gone => {
                    self.received = Vec::new();
                    return Ok(None);
                }
            }
        }
    }

    /// Discards all that has arrived: after a bad request, it is unknown where the next one begins.
    fn discard(&mut self) -> io::Result<()> {
        self.received = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let mut port = self.port;
            match port.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn wait_for_bytes(&mut self) -> io::Result<Arrival> {
        let mut chunk = [0; 4096];
        loop {
            let began = !self.received.is_empty();
            let mut port = self.port;
            match port.read(&mut chunk) {
                Ok(0) => {
                    if !wait_for_peer(self.port.as_fd(), began.then_some(GRACE))? {
                        return Ok(Arrival::Gone);
                    }
                }
                Ok(length) => {
                    self.received.extend_from_slice(&chunk[..length]);
                    return Ok(Arrival::Bytes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.wait_for(PollFlags::POLLIN, began.then_some(IDLE_MAX))? {
                        return Ok(Arrival::Silence);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends everything; false if the client is gone or does not read, and so loses the rest.
    fn send(&mut self, bytes: &[u8]) -> io::Result<bool> {
        channel::send(self.port, bytes, ANSWER_MAX)
    }

    /// Whether `wanted`, or a hang-up, is reported within `time`.
    fn wait_for(&self, wanted: PollFlags, time: Option<Duration>) -> io::Result<bool> {
        channel::wait_for(self.port.as_fd(), wanted, time)
    }
}

/// Where a request ends, and how long its client waits.
#[derive(Debug, PartialEq, Eq)]
struct Extent {
    /// The length up to the end of its first line.
    line: usize,
    /// The length of all of it.
    whole: usize,
    timeout: Duration,
}

/// How long the client waits for the answer, by `Prefer: wait=SECONDS` (RFC 7240).
fn wait(preferences: &str) -> Option<Duration> {
    let seconds = preferences
        .split(',')
        .find_map(|preference| preference.trim().strip_prefix("wait="))?;
    Some(Duration::from_secs(seconds.parse().ok()?).clamp(Duration::from_secs(1), TIMEOUT_MAX))
}

/// The extent of the first request in `bytes`. `None` if it has not arrived whole.
fn split(bytes: &[u8]) -> Result<Option<Extent>, HttpError> {
    let bad = |sentence: String| HttpError("400 Bad Request", sentence);
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head)) if head <= HEAD_MAX => head,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_MAX => return Ok(None),
        Ok(_) => {
            let sentence = format!("the request's head is longer than {HEAD_MAX} bytes");
            return Err(HttpError("431 Request Header Fields Too Large", sentence));
        }
        Err(error) => {
            return Err(bad(format!(
                "what arrived is no HTTP request ({error}), or the rest of one from a client that \
                 is gone: ask again"
            )));
        }
    };
    let mut body = 0;
    let mut timeout = ANSWER_MAX;
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("Transfer-Encoding") {
            let sentence = "a request to a VM gives its Content-Length".to_owned();
            return Err(HttpError("411 Length Required", sentence));
        }
        if header.name.eq_ignore_ascii_case(PREFER) {
            let text = String::from_utf8_lossy(header.value);
            timeout = wait(&text).unwrap_or(timeout);
        }
        if header.name.eq_ignore_ascii_case("Content-Length") {
            let text = String::from_utf8_lossy(header.value);
            body = text
                .parse::<usize>()
                .map_err(|_| bad(format!("Content-Length is {text:?}")))?;
        }
    }
    if body > BODY_MAX {
        let sentence = format!("the body is larger than {BODY_MAX} bytes");
        return Err(HttpError("413 Content Too Large", sentence));
    }
    // Empty lines before the request line are ignored (RFC 9112, 2.2).
    let start = bytes
        .iter()
        .take_while(|byte| b"\r\n".contains(byte))
        .count();
    let line = bytes[start..].iter().position(|byte| *byte == b'\n');
    let line = line.map_or(head, |at| start + at + 1);
    let whole = head + body;
    Ok((bytes.len() >= whole).then_some(Extent {
        line,
        whole,
        timeout,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::os::unix::net::UnixListener;

    /// A running relay: the host's end of its channel, and the listener in place of the switch.
    fn relay() -> (UnixStream, UnixListener, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("control.sock");
        let switch = UnixListener::bind(&socket).expect("a socket");
        let (host, port) = UnixStream::pair().expect("a pair");
        thread::spawn(move || serve(&port, &socket));
        (host, switch, directory)
    }

    /// Accepts one connection, answers with `text`, and returns the request.
    fn answer(switch: &UnixListener, text: &str) -> String {
        let (mut connection, _) = switch.accept().expect("a connection");
        let mut asked = [0; 4096];
        let length = connection.read(&mut asked).expect("a request");
        connection.write_all(text.as_bytes()).expect("room");
        String::from_utf8_lossy(&asked[..length]).into_owned()
    }

    fn line(host: &UnixStream) -> String {
        let mut line = String::new();
        io::BufReader::with_capacity(1, host)
            .read_line(&mut line)
            .expect("a line");
        line
    }

    #[test]
    fn pipelined_requests_are_forwarded_in_order() {
        let (mut host, switch, _directory) = relay();
        let both =
            "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPUT /b HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc";
        for chunk in both.as_bytes().chunks(7) {
            host.write_all(chunk).expect("room");
        }
        assert_eq!(
            answer(&switch, "one\n"),
            "GET /a HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n"
        );
        assert_eq!(line(&host), "one\n");
        assert_eq!(
            answer(&switch, "two\n"),
            "PUT /b HTTP/1.1\r\nConnection: close\r\ncontent-length: 3\r\n\r\nabc"
        );
        assert_eq!(line(&host), "two\n");
    }

    #[test]
    fn bad_request_is_answered_and_discarded() {
        let (mut host, switch, _directory) = relay();
        for (request, status) in [
            (&b"nonsense\r\n\r\nand more"[..], "400"),
            (b"PUT / HTTP/1.1\r\nContent-Length: some\r\n\r\n", "400"),
            (b"PUT / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", "413"),
            (
                b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                "411",
            ),
            (&[b'a'; HEAD_MAX + 1], "431"),
        ] {
            host.write_all(request).expect("room");
            assert_eq!(line(&host).split(' ').nth(1), Some(status));
            let mut rest = vec![0; 4096];
            let length = host.read(&mut rest).expect("the rest");
            let text = String::from_utf8_lossy(&rest[..length]);
            assert!(text.contains("{\"error\":\""), "{text}");
        }
        host.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("room");
        assert!(answer(&switch, "one\n").starts_with("GET / HTTP/1.1\r\n"));
        assert_eq!(line(&host), "one\n");
    }

    #[test]
    fn silent_switch_gives_503() {
        let (mut host, switch, _directory) = relay();
        host.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("room");
        drop(switch.accept().expect("a connection"));
        assert_eq!(line(&host), "HTTP/1.1 503 Service Unavailable\r\n");
    }

    #[test]
    fn wait_ends_when_switch_is_ready() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("control.sock");
        let at = socket.clone();
        let waits = thread::spawn(move || wait_until_ready(&at));
        let switch = UnixListener::bind(&socket).expect("a socket");
        let body = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}";
        let asked = answer(&switch, body);
        assert!(asked.starts_with("GET /readyz HTTP/1.1\r\n"), "{asked}");
        answer(&switch, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        waits.join().expect("it is ready");
    }

    #[test]
    fn readiness_interval_grows_with_start_time() {
        let after = |seconds: u64| pause(Duration::from_secs(seconds)).as_millis();
        assert_eq!([0, 1, 10, 500].map(after), [20, 20, 200, 1000]);
    }

    #[test]
    fn prefer_wait_sets_bounded_timeout() {
        let timeout_s = |preference: &str| {
            let text = format!("GET / HTTP/1.1\r\n{preference}\r\n");
            let extent = split(text.as_bytes()).expect("a request").expect("whole");
            extent.timeout.as_secs()
        };
        let cases = [
            ("", 15),
            ("prefer: wait=120\r\n", 120),
            ("Prefer: respond-async, wait=60\r\n", 60),
            ("Prefer: wait=0\r\n", 1),
            ("Prefer: wait=99999999\r\n", 3600),
            ("Prefer: wait=-1\r\n", 15),
            ("Prefer: wait\r\n", 15),
        ];
        for (preference, seconds) in cases {
            assert_eq!(timeout_s(preference), seconds, "{preference:?}");
        }
    }

    #[test]
    fn request_ends_after_content_length() {
        let text = b"\r\nPUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\nabGET";
        let whole = text.len() - 3;
        for length in 0..whole {
            assert_eq!(split(&text[..length]), Ok(None), "{length}");
        }
        let extent = Extent {
            line: 18,
            whole,
            timeout: ANSWER_MAX,
        };
        assert_eq!(split(text), Ok(Some(extent)));
    }
}
