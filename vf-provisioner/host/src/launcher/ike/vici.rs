//! VICI: strongSwan's control protocol, as far as a daemon of a tenant is configured by it.
//!
//! A packet has a length of four bytes, big-endian, then a type, for some types a name, and a
//! message: keys with values, lists and sections, each with its length. What the daemon answers is
//! untrusted: its answers are bounded in length, depth and number, and in the time that they take
//! together. What is sent may hold secrets, so buffers are overwritten when they are dropped.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vswitch_api::plain::Plain;
use zeroize::Zeroizing;

/// The longest answer, of a daemon that lists the associations of all peers.
const ANSWER_MAX: usize = 1 << 19;
/// The most elements of an answer.
const ELEMENTS_MAX: usize = 1 << 16;
/// The most sections within each other.
const DEPTH_MAX: usize = 8;
/// The most events of one command.
const EVENTS_MAX: usize = 1 << 12;

const REQUEST: u8 = 0;
const RESPONSE: u8 = 1;
const UNKNOWN: u8 = 2;
const REGISTER: u8 = 3;
const UNREGISTER: u8 = 4;
const CONFIRM: u8 = 5;
const EVENT_UNKNOWN: u8 = 6;
const EVENT: u8 = 7;

const SECTION_START: u8 = 1;
const SECTION_END: u8 = 2;
const KEY_VALUE: u8 = 3;
const LIST_START: u8 = 4;
const LIST_ITEM: u8 = 5;
const LIST_END: u8 = 6;

/// How a command fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum ViciError {
    /// The daemon cannot be reached, or does not answer in time.
    #[error("the IKE daemon cannot be asked: {0}")]
    Io(#[from] io::Error),
    /// It answers not as VICI says.
    #[error("the IKE daemon gave an answer that makes no sense: {0}")]
    Answer(&'static str),
    /// It refuses the command.
    #[error("the IKE daemon refuses {command}: {message}")]
    Refused {
        /// Which command.
        command: &'static str,
        /// Its words.
        message: String,
    },
    /// What is asked for does not fit into a packet.
    #[error("{0} is too long for the IKE daemon")]
    TooLong(&'static str),
}

/// A message under construction.
#[derive(Default)]
pub(super) struct Message {
    bytes: Zeroizing<Vec<u8>>,
    too_long: Option<&'static str>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Message({} bytes)", self.bytes.len())
    }
}

impl Message {
    /// The bytes, for a digest.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends, and overwrites what a move to a larger buffer leaves behind.
    fn append(&mut self, bytes: &[u8]) {
        let needed = self.bytes.len() + bytes.len();
        if needed > self.bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two()));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn name(&mut self, kind: u8, name: &str) {
        self.append(&[kind]);
        match u8::try_from(name.len()) {
            Ok(length) => self.append(&[length]),
            Err(_) => self.too_long = Some("a name"),
        }
        self.append(name.as_bytes());
    }

    fn value(&mut self, value: &[u8]) {
        match u16::try_from(value.len()) {
            Ok(length) => self.append(&length.to_be_bytes()),
            Err(_) => self.too_long = Some("a value"),
        }
        self.append(value);
    }

    /// A key with its value.
    pub(super) fn set(&mut self, key: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.name(KEY_VALUE, key);
        self.value(value.as_ref());
        self
    }

    /// A key with several values.
    pub(super) fn list<T: AsRef<[u8]>>(
        &mut self,
        key: &str,
        values: impl IntoIterator<Item = T>,
    ) -> &mut Self {
        self.name(LIST_START, key);
        for value in values {
            self.append(&[LIST_ITEM]);
            self.value(value.as_ref());
        }
        self.append(&[LIST_END]);
        self
    }

    /// A section with what `fill` puts into it.
    pub(super) fn section(&mut self, name: &str, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.name(SECTION_START, name);
        fill(self);
        self.append(&[SECTION_END]);
        self
    }
}

/// One element of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Element {
    /// A key with its value.
    Value(String, String),
    /// A key with several values.
    List(String, Vec<String>),
    /// A section.
    Section(String, Answer),
}

/// An answer. What is no UTF-8 is replaced, and what is not plain is escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer(Vec<Element>);

impl Answer {
    /// The value of a key.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().find_map(|element| match element {
            Element::Value(name, value) if name == key => Some(value.as_str()),
            _ => None,
        })
    }

    /// The values of a list; none if there is no such list.
    pub(super) fn list(&self, key: &str) -> &[String] {
        let found = self.0.iter().find_map(|element| match element {
            Element::List(name, values) if name == key => Some(values.as_slice()),
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// The sections, by name.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.0.iter().filter_map(|element| match element {
            Element::Section(name, content) => Some((name.as_str(), content)),
            _ => None,
        })
    }

    /// The section of this name.
    pub(super) fn section(&self, wanted: &str) -> Option<&Self> {
        let mut sections = self.sections();
        Some(sections.find(|(name, _)| *name == wanted)?.1)
    }

    /// Reads a message.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ViciError> {
        let mut reader = Reader {
            rest: bytes,
            elements: 0,
        };
        reader.section(0)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    elements: usize,
}

const CUT: ViciError = ViciError::Answer("it is cut off");

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ViciError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, ViciError> {
        Ok(self.take(1)?[0])
    }

    fn name(&mut self) -> Result<String, ViciError> {
        let length = self.byte()?;
        Ok(text(self.take(length.into())?))
    }

    fn value(&mut self) -> Result<String, ViciError> {
        let length = self.take(2)?;
        let length = u16::from_be_bytes([length[0], length[1]]);
        Ok(text(self.take(length.into())?))
    }

    fn count(&mut self) -> Result<(), ViciError> {
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            return Err(ViciError::Answer("it has too many elements"));
        }
        Ok(())
    }

    /// The elements up to the section's end, or of the message.
    fn section(&mut self, depth: usize) -> Result<Answer, ViciError> {
        if depth > DEPTH_MAX {
            return Err(ViciError::Answer("its sections are too deep"));
        }
        let mut elements = Vec::new();
        loop {
            if self.rest.is_empty() && depth == 0 {
                return Ok(Answer(elements));
            }
            self.count()?;
            elements.push(match self.byte()? {
                SECTION_END if depth > 0 => return Ok(Answer(elements)),
                SECTION_START => Element::Section(self.name()?, self.section(depth + 1)?),
                KEY_VALUE => Element::Value(self.name()?, self.value()?),
                LIST_START => Element::List(self.name()?, self.list()?),
                _ => return Err(ViciError::Answer("an element has an unknown type")),
            });
        }
    }

    fn list(&mut self) -> Result<Vec<String>, ViciError> {
        let mut values = Vec::new();
        loop {
            self.count()?;
            match self.byte()? {
                LIST_ITEM => values.push(self.value()?),
                LIST_END => return Ok(values),
                _ => return Err(ViciError::Answer("a list holds something else than items")),
            }
        }
    }
}

/// The daemon's words end on an operator's terminal and in events.
fn text(bytes: &[u8]) -> String {
    Plain(String::from_utf8_lossy(bytes)).to_string()
}

/// What carries VICI to a daemon and back.
pub(super) trait Carrier {
    /// Sends all bytes.
    fn send(&mut self, bytes: &[u8], until: Instant) -> io::Result<()>;

    /// Receives some bytes; none at the end.
    fn receive(&mut self, bytes: &mut [u8], until: Instant) -> io::Result<usize>;
}

/// The time until the deadline.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}

impl Carrier for UnixStream {
    fn send(&mut self, mut bytes: &[u8], until: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.set_write_timeout(Some(left(until)?))?;
            let written = again(|| self.write(bytes))?;
            if written == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
        }
        Ok(())
    }

    fn receive(&mut self, bytes: &mut [u8], until: Instant) -> io::Result<usize> {
        self.set_read_timeout(Some(left(until)?))?;
        again(|| self.read(bytes))
    }
}

/// A connection to the daemon, for a bounded time.
pub(super) struct Client {
    carrier: Box<dyn Carrier>,
    until: Instant,
}

impl Client {
    /// Speaks over `carrier` until then, all commands together.
    pub(super) fn new(carrier: impl Carrier + 'static, until: Instant) -> Self {
        Self {
            carrier: Box::new(carrier),
            until,
        }
    }

    fn send(&mut self, kind: u8, name: &str, message: &Message) -> Result<(), ViciError> {
        if let Some(what) = message.too_long {
            return Err(ViciError::TooLong(what));
        }
        let mut packet = Zeroizing::new(Vec::with_capacity(6 + name.len() + message.bytes.len()));
        let length = 2 + name.len() + message.bytes.len();
        let length = u32::try_from(length).map_err(|_| ViciError::TooLong("a message"))?;
        packet.extend(length.to_be_bytes());
        packet.push(kind);
        let name_length = u8::try_from(name.len()).map_err(|_| ViciError::TooLong("a name"))?;
        packet.push(name_length);
        packet.extend_from_slice(name.as_bytes());
        packet.extend_from_slice(&message.bytes);
        Ok(self.carrier.send(&packet, self.until)?)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ViciError> {
        let mut filled = 0;
        while filled < bytes.len() {
            let length = self.carrier.receive(&mut bytes[filled..], self.until)?;
            if length == 0 {
                return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
            }
            filled += length;
        }
        Ok(())
    }

    /// The next packet.
    fn receive(&mut self) -> Result<Vec<u8>, ViciError> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 || length > ANSWER_MAX {
            return Err(ViciError::Answer("it has no acceptable length"));
        }
        let mut packet = vec![0; length];
        self.fill(&mut packet)?;
        Ok(packet)
    }

    /// Sends a command; the answer if the daemon does not refuse it.
    pub(super) fn command(
        &mut self,
        command: &'static str,
        message: &Message,
    ) -> Result<Answer, ViciError> {
        self.send(REQUEST, command, message)?;
        let packet = self.receive()?;
        let answer = match packet.split_first() {
            Some((&RESPONSE, rest)) => Answer::parse(rest)?,
            Some((&UNKNOWN, _)) => {
                let message = "it does not know it".to_owned();
                return Err(ViciError::Refused { command, message });
            }
            _ => return Err(ViciError::Answer("it is of another type")),
        };
        match answer.value("success") {
            None | Some("yes") => Ok(answer),
            Some(_) => {
                let message = answer.value("errmsg").unwrap_or("no reason given");
                let message = message.to_owned();
                Err(ViciError::Refused { command, message })
            }
        }
    }

    /// Sends a command that answers by events; all of them.
    pub(super) fn stream(
        &mut self,
        command: &'static str,
        event: &'static str,
        message: &Message,
    ) -> Result<Vec<Answer>, ViciError> {
        self.register(REGISTER, event)?;
        self.send(REQUEST, command, message)?;
        let mut events = Vec::new();
        loop {
            let packet = self.receive()?;
            match packet.split_first() {
                Some((&EVENT, rest)) => {
                    let (length, rest) = rest.split_first().ok_or(CUT)?;
                    let (_, content) = rest.split_at_checked((*length).into()).ok_or(CUT)?;
                    events.push(Answer::parse(content)?);
                    if events.len() > EVENTS_MAX {
                        return Err(ViciError::Answer("it has no end"));
                    }
                }
                Some((&RESPONSE, _)) => break,
                _ => return Err(ViciError::Answer("it is of another type")),
            }
        }
        self.register(UNREGISTER, event)?;
        Ok(events)
    }

    fn register(&mut self, kind: u8, event: &'static str) -> Result<(), ViciError> {
        self.send(kind, event, &Message::default())?;
        match self.receive()?.first() {
            Some(&CONFIRM) => Ok(()),
            Some(&EVENT_UNKNOWN) => Err(ViciError::Refused {
                command: event,
                message: "it does not know it".to_owned(),
            }),
            _ => Err(ViciError::Answer("it is of another type")),
        }
    }
}

fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // What a socket with a time limit says.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(ErrorKind::TimedOut.into());
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn client(stream: UnixStream, within: Duration) -> Client {
        Client::new(stream, Instant::now() + within)
    }

    fn packet(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut packet = (content.len() as u32 + 1).to_be_bytes().to_vec();
        packet.push(kind);
        packet.extend(content);
        packet
    }

    /// Answers each packet with the next of `answers`, and returns what came.
    fn daemon(answers: Vec<Vec<u8>>) -> (UnixStream, std::thread::JoinHandle<Vec<Vec<u8>>>) {
        let (ours, mut theirs) = UnixStream::pair().expect("two sockets");
        let daemon = std::thread::spawn(move || {
            let mut requests = Vec::new();
            for answer in answers {
                let mut length = [0; 4];
                theirs.read_exact(&mut length).expect("a length");
                let mut packet = vec![0; u32::from_be_bytes(length) as usize];
                theirs.read_exact(&mut packet).expect("a packet");
                requests.push(packet);
                // The client may have left.
                let _ = theirs.write_all(&answer);
            }
            requests
        });
        (ours, daemon)
    }

    fn answer(fill: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::default();
        fill(&mut message);
        packet(RESPONSE, &message.bytes)
    }

    #[test]
    fn words_of_the_daemon_are_plain() {
        let no = answer(|it| {
            it.set("success", "no");
            it.set("errmsg", "\u{1b}[2Jno\n3 tenants: all is well");
        });
        let (stream, _daemon) = daemon(vec![no]);
        let refused = client(stream, LONG).command("load-conn", &Message::default());
        let refused = refused.expect_err("it is refused").to_string();
        assert_eq!(
            refused,
            "the IKE daemon refuses load-conn: \\u{1b}[2Jno\\n3 tenants: all is well"
        );
    }

    #[test]
    fn command_is_sent_and_its_answer_read() {
        let yes = answer(|it| {
            it.set("success", "yes").list("keys", ["a", "b"]);
            it.section("one", |it| {
                it.section("two", |it| {
                    it.set("deep", "1");
                });
            });
        });
        let (stream, daemon) = daemon(vec![yes]);
        let mut client = client(stream, LONG);
        let mut message = Message::default();
        message.set("id", "x");
        let got = client.command("get-keys", &message).expect("an answer");
        assert_eq!(got.list("keys"), ["a", "b"]);
        let deep = got.section("one").and_then(|one| one.section("two"));
        assert_eq!(deep.and_then(|two| two.value("deep")), Some("1"));
        let requests = daemon.join().expect("it ended");
        assert_eq!(requests, [b"\x00\x08get-keys\x03\x02id\x00\x01x".to_vec()]);
    }

    #[test]
    fn refusal_has_the_daemons_words() {
        let no = answer(|it| {
            it.set("success", "no").set("errmsg", "no such key");
        });
        let (stream, _daemon) = daemon(vec![no]);
        let mut client = client(stream, LONG);
        let error = client
            .command("unload-key", &Message::default())
            .expect_err("it refuses");
        let expected = "the IKE daemon refuses unload-key: no such key";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn events_are_collected_up_to_the_response() {
        let mut event = Message::default();
        event.section("red", |it| {
            it.set("state", "ESTABLISHED");
        });
        let content = [b"\x07list-sa", event.bytes.as_slice()].concat();
        let mut all = packet(EVENT, &content);
        all.extend(packet(EVENT, &content));
        all.extend(packet(RESPONSE, b""));
        let (stream, _daemon) = daemon(vec![packet(CONFIRM, b""), all, packet(CONFIRM, b"")]);
        let mut client = client(stream, LONG);
        let events = client
            .stream("list-sas", "list-sa", &Message::default())
            .expect("events");
        assert_eq!(events.len(), 2);
        let state = events[0].section("red").and_then(|red| red.value("state"));
        assert_eq!(state, Some("ESTABLISHED"));
    }

    #[test]
    fn hostile_answers_are_refused_or_end_in_time() {
        let deep = [SECTION_START, 0].repeat(DEPTH_MAX + 1);
        let many = [KEY_VALUE, 0, 0, 0].repeat(ELEMENTS_MAX + 1);
        for bytes in [
            packet(RESPONSE, &[KEY_VALUE]),
            packet(RESPONSE, &[KEY_VALUE, 9, b'x']),
            packet(RESPONSE, &[KEY_VALUE, 1, b'x', 0xff, 0xff]),
            packet(RESPONSE, &[LIST_START, 0, KEY_VALUE]),
            packet(RESPONSE, &[LIST_START, 0]),
            packet(RESPONSE, &[SECTION_END]),
            packet(RESPONSE, &[77]),
            packet(RESPONSE, &deep),
            packet(RESPONSE, &many),
            packet(99, b""),
            0_u32.to_be_bytes().to_vec(),
            u32::MAX.to_be_bytes().to_vec(),
        ] {
            let (stream, _daemon) = daemon(vec![bytes.clone()]);
            let mut client = client(stream, LONG);
            let answered = client.command("version", &Message::default());
            assert!(
                matches!(answered, Err(ViciError::Answer(_))),
                "{answered:?}"
            );
        }
        // One byte at a time for ever takes no longer than the whole is given.
        let (ours, mut theirs) = UnixStream::pair().expect("two sockets");
        std::thread::spawn(move || {
            while theirs.write_all(&[0, 0, 1, 0]).is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let began = Instant::now();
        let mut client = client(ours, Duration::from_millis(100));
        let late = client.command("version", &Message::default());
        assert!(late.is_err(), "{late:?}");
        assert!(began.elapsed() < LONG);
    }

    #[test]
    fn answer_is_read_or_refused() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = Answer::parse(bytes);
        });
    }

    #[test]
    fn what_does_not_fit_is_not_sent() {
        let (ours, theirs) = UnixStream::pair().expect("two sockets");
        let mut message = Message::default();
        message.set("data", vec![0; 65536]);
        let error = client(ours, LONG).command("load-cert", &message);
        assert!(matches!(error, Err(ViciError::TooLong("a value"))));
        theirs.set_nonblocking(true).expect("it is set");
        let mut byte = [0];
        assert!((&theirs).read(&mut byte).is_ok_and(|length| length == 0));
    }
}
