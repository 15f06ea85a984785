//! The control API between the host and the switch.
//!
//! The channel carries HTTP/1.1 requests one after the other, from whichever client the host lets in. Each is taken
//! whole, goes to the switch over a connection of its own, and its answer goes back.
//!
//! The kernel says that a client has come or gone apart from the bytes, and often later than the bytes that the
//! next client sends. So bytes count as they come, and only a client that is gone for [`GRACE`] takes half a
//! request with it. An answer bears its request's `X-Request-Id`, by which a client knows it from one that was for
//! the client before it.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vswitch_api::client::Client;
use vswitch_api::{Endpoint, PREFER};

use super::channel::wait_for_peer;

/// How often a switch that starts is asked whether it is ready: the more rarely the longer it takes, as where that is long
/// each look is dear, and the switch has the same processor.
const READY_EVERY: Duration = Duration::from_millis(20);
const READY_EVERY_MAX: Duration = Duration::from_secs(1);
/// How long it may take to say so. It is the host that gives up on a switch: another question would only be more to do.
const READY_MAX: Duration = Duration::from_secs(600);
/// The largest head of a request.
const HEAD_MAX: usize = 64 << 10;
/// The largest body: more than the switch itself takes, which then says so.
const BODY_MAX: usize = 16 << 20;
/// How long a client may be silent in the middle of a request.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// How long the switch may take for its next bytes if the client does not say, and a client to take some.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// The longest that a client may have the switch take: until then the next client waits.
const PATIENCE_MAX: Duration = Duration::from_secs(3600);
/// How long nobody is connected before half a request is dropped.
const GRACE: Duration = Duration::from_millis(200);
/// What is read at a time.
const PIECE: usize = 64 << 10;

/// Returns when the switch answers and its worker goes round.
pub(super) fn wait_until_ready(socket: &Path) {
    let client = Client::new(socket, READY_MAX);
    let ready = || client.get(Endpoint::Readyz.spec().path).is_ok();
    let began = Instant::now();
    while !(socket.exists() && ready()) {
        thread::sleep(pause(began.elapsed()));
    }
}

/// How long until a switch that has been starting for `since` is asked again.
fn pause(since: Duration) -> Duration {
    (since / 50).clamp(READY_EVERY, READY_EVERY_MAX)
}

/// Serves the hosts that connect to `port`, one after the other, from the switch's `socket`; for ever.
///
/// # Errors
/// If the port fails. What a client or the switch does wrong is answered, or dropped.
pub(super) fn serve<P: AsFd>(port: &P, socket: &Path) -> io::Result<()>
where
    for<'a> &'a P: Read + Write,
{
    fcntl(port, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut host = Host {
        port,
        received: Vec::new(),
    };
    loop {
        match host.request()? {
            Some(Ok(question)) => forward(&question, socket, &mut host)?,
            Some(Err(refusal)) => {
                host.forget()?;
                host.send(&refusal.answer())?;
            }
            None => {}
        }
    }
}

/// An answer that the switch did not give.
#[derive(Debug, PartialEq, Eq)]
struct Refusal(&'static str, String);

impl Refusal {
    fn answer(&self) -> Vec<u8> {
        let Self(status, sentence) = self;
        let body = serde_json::json!({ "error": sentence }).to_string();
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// A whole request, such that the switch closes the connection after it.
#[derive(Debug)]
struct Question {
    bytes: Vec<u8>,
    /// How long its client waits for an answer.
    patience: Duration,
}

/// Sends one request to the switch, and its answer to the host as it comes.
fn forward<P>(question: &Question, socket: &Path, host: &mut Host<'_, P>) -> io::Result<()>
where
    P: AsFd,
    for<'a> &'a P: Read + Write,
{
    let mut answered = false;
    let asked = (|| {
        let mut switch = UnixStream::connect(socket)?;
        switch.set_read_timeout(Some(question.patience))?;
        switch.set_write_timeout(Some(question.patience))?;
        switch.write_all(&question.bytes)?;
        Ok(switch)
    })();
    let mut piece = vec![0; PIECE];
    let error: io::Error = match asked {
        Ok(mut switch) => loop {
            match switch.read(&mut piece) {
                Ok(0) if answered => return Ok(()),
                Ok(0) => break ErrorKind::UnexpectedEof.into(),
                Ok(length) => {
                    answered = true;
                    if !host.send(&piece[..length])? {
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
        host.send(&Refusal("503 Service Unavailable", sentence).answer())?;
    }
    Ok(())
}

/// The host's end of the channel: whichever client is connected there.
struct Host<'port, P> {
    port: &'port P,
    /// What is not yet taken as a request.
    received: Vec<u8>,
}

/// What came of waiting for bytes.
#[derive(PartialEq, Eq)]
enum Arrival {
    Bytes,
    Silence,
    Gone,
}

impl<P: AsFd> Host<'_, P>
where
    for<'a> &'a P: Read + Write,
{
    /// The next request, or why there is none. `None` if the client is gone.
    fn request(&mut self) -> io::Result<Option<Result<Question, Refusal>>> {
        loop {
            match split(&self.received) {
                Ok(Some(Extent {
                    line,
                    whole,
                    patience,
                })) => {
                    let mut bytes = Vec::with_capacity(whole + 32);
                    bytes.extend_from_slice(&self.received[..line]);
                    bytes.extend_from_slice(b"Connection: close\r\n");
                    bytes.extend_from_slice(&self.received[line..whole]);
                    self.received.drain(..whole);
                    return Ok(Some(Ok(Question { bytes, patience })));
                }
                Ok(None) => {}
                Err(refusal) => return Ok(Some(Err(refusal))),
            }
            match self.wait_for_bytes()? {
                Arrival::Bytes => {}
                Arrival::Silence => {
                    let sentence = format!("the request did not arrive whole within {IDLE_MAX:?}");
                    return Ok(Some(Err(Refusal("408 Request Timeout", sentence))));
                }
                Arrival::Gone => {
                    self.received = Vec::new();
                    return Ok(None);
                }
            }
        }
    }

    /// Drops all that has arrived: what follows a bad request cannot be told from the rest of it.
    fn forget(&mut self) -> io::Result<()> {
        self.received = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let mut port = self.port;
            match port.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn wait_for_bytes(&mut self) -> io::Result<Arrival> {
        let mut piece = [0; 4096];
        loop {
            let began = !self.received.is_empty();
            let mut port = self.port;
            match port.read(&mut piece) {
                Ok(0) => {
                    if !wait_for_peer(self.port.as_fd(), began.then_some(GRACE))? {
                        return Ok(Arrival::Gone);
                    }
                }
                Ok(length) => {
                    self.received.extend_from_slice(&piece[..length]);
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

    /// Sends everything; false if the client is gone or does not take it, which is then the client's loss.
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        while !bytes.is_empty() {
            let mut port = self.port;
            match port.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !wait_for_peer(self.port.as_fd(), Some(GRACE))?
                        || !self.wait_for(PollFlags::POLLOUT, Some(ANSWER_MAX))?
                    {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether what is wanted, or a hang-up, comes in time.
    fn wait_for(&self, wanted: PollFlags, time: Option<Duration>) -> io::Result<bool> {
        let time = time.map_or(PollTimeout::NONE, |time| {
            PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut [PollFd::new(self.port.as_fd(), wanted)], time) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::Error::EINTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// What there is to know of a request before it is sent on.
#[derive(Debug, PartialEq, Eq)]
struct Extent {
    /// Where its first line ends, and all of it.
    line: usize,
    whole: usize,
    patience: Duration,
}

/// How long a client says that it waits for the answer (`Prefer: wait=SECONDS`, RFC 7240).
fn wait(preferences: &str) -> Option<Duration> {
    let seconds = preferences
        .split(',')
        .find_map(|preference| preference.trim().strip_prefix("wait="))?;
    Some(Duration::from_secs(seconds.parse().ok()?).clamp(Duration::from_secs(1), PATIENCE_MAX))
}

/// The first request in `bytes`. `None` if it has not arrived whole.
fn split(bytes: &[u8]) -> Result<Option<Extent>, Refusal> {
    let bad = |sentence: String| Refusal("400 Bad Request", sentence);
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head)) if head <= HEAD_MAX => head,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_MAX => return Ok(None),
        Ok(_) => {
            let sentence = format!("the request's head is longer than {HEAD_MAX} bytes");
            return Err(Refusal("431 Request Header Fields Too Large", sentence));
        }
        Err(error) => {
            return Err(bad(format!(
                "what arrived is no HTTP request ({error}), or the rest of one from a client that is gone: ask again"
            )));
        }
    };
    let mut body = 0;
    let mut patience = ANSWER_MAX;
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("Transfer-Encoding") {
            let sentence = "a request to a VM gives its Content-Length".to_owned();
            return Err(Refusal("411 Length Required", sentence));
        }
        if header.name.eq_ignore_ascii_case(PREFER) {
            let text = String::from_utf8_lossy(header.value);
            patience = wait(&text).unwrap_or(patience);
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
        return Err(Refusal("413 Content Too Large", sentence));
    }
    // Empty lines in front belong to no request.
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
        patience,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::os::unix::net::UnixListener;

    /// A relay, the host's end of its channel, and the listener that stands for the switch.
    fn relay() -> (UnixStream, UnixListener, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("control.sock");
        let switch = UnixListener::bind(&socket).expect("a socket");
        let (host, port) = UnixStream::pair().expect("a pair");
        thread::spawn(move || serve(&port, &socket));
        (host, switch, directory)
    }

    /// Takes one connection, gives the answer, and returns what was asked.
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
    fn requests_that_come_together_are_asked_one_after_the_other() {
        let (mut host, switch, _directory) = relay();
        let both =
            "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPUT /b HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc";
        for piece in both.as_bytes().chunks(7) {
            host.write_all(piece).expect("room");
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
    fn what_cannot_be_asked_is_refused_and_forgotten() {
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
    fn a_switch_that_says_nothing_is_answered_for() {
        let (mut host, switch, _directory) = relay();
        host.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("room");
        drop(switch.accept().expect("a connection"));
        assert_eq!(line(&host), "HTTP/1.1 503 Service Unavailable\r\n");
    }

    #[test]
    fn a_switch_is_waited_for_until_it_is_ready() {
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
    fn the_longer_a_switch_takes_the_more_rarely_it_is_asked() {
        let after = |seconds: u64| pause(Duration::from_secs(seconds)).as_millis();
        assert_eq!([0, 1, 10, 500].map(after), [20, 20, 200, 1000]);
    }

    #[test]
    fn a_client_says_how_long_it_waits() {
        let patience = |preference: &str| {
            let text = format!("GET / HTTP/1.1\r\n{preference}\r\n");
            let extent = split(text.as_bytes()).expect("a request").expect("whole");
            extent.patience.as_secs()
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
            assert_eq!(patience(preference), seconds, "{preference:?}");
        }
    }

    #[test]
    fn a_request_ends_where_its_length_says() {
        let text = b"\r\nPUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\nabGET";
        let whole = text.len() - 3;
        for length in 0..whole {
            assert_eq!(split(&text[..length]), Ok(None), "{length}");
        }
        let extent = Extent {
            line: 18,
            whole,
            patience: ANSWER_MAX,
        };
        assert_eq!(split(text), Ok(Some(extent)));
    }
}
