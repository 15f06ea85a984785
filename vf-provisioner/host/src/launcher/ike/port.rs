//! VICI to a daemon in a machine: a session over the machine's port, as
//! [`vswitch_api::machine`] frames it.
//!
//! QEMU serves one client of the port at a time; others wait until it is gone. Everything that
//! comes out of a machine may be a hostile switch's: frames are bounded, those of other sessions
//! are skipped, and all of it has one deadline. What it says can mislead about its own tenant's
//! daemon only.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::rand::{GetRandomFlags, getrandom};
use vswitch_api::machine::{Body, DATA_MAX, Decoder, Frame};
use zeroize::Zeroizing;

use super::vici::Carrier;
use crate::files::{connect, pin_socket};

/// The pause before another attempt to get into QEMU's queue of clients, which is short.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// A session. Dropping it ends it.
pub(super) struct Port {
    stream: UnixStream,
    session: u64,
    decoder: Decoder,
    /// What was read of the stream last, and which part of it is yet to be decoded.
    chunk: Zeroizing<Vec<u8>>,
    undecoded: std::ops::Range<usize>,
    /// What the daemon said last, and how much of it was taken.
    said: Zeroizing<Vec<u8>>,
    taken: usize,
    is_over: bool,
    /// The number of the daemon.
    daemon: u64,
}

/// Connects to the port of a machine of that user. libvirt listens in the place of its QEMU, as
/// root.
fn reach(path: &Path, uid: u32, until: Instant) -> io::Result<UnixStream> {
    loop {
        // The folder is the machine's, so a link in the place of the socket is not followed.
        let (_file, pinned) = pin_socket(path)?;
        match connect(&pinned) {
            Ok(stream) => {
                let peer = getsockopt(&stream, PeerCredentials)?.uid();
                if peer != uid && peer != 0 {
                    let sentence = format!("user {peer} listens in the place of its machine");
                    return Err(io::Error::other(sentence));
                }
                return Ok(stream);
            }
            // The queue is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < until => {
                std::thread::sleep(TRY_EVERY);
            }
            Err(error) => return Err(error),
        }
    }
}

impl Port {
    /// Begins a session with the daemon in a machine of that user.
    pub(super) fn open(path: &Path, uid: u32, until: Instant) -> io::Result<Self> {
        Self::begin(reach(path, uid, until)?, until)
    }

    fn begin(stream: UnixStream, until: Instant) -> io::Result<Self> {
        let mut session = [0; 8];
        // The kernel gives so few whole.
        getrandom(&mut session, GetRandomFlags::empty())?;
        let mut port = Self {
            stream,
            session: u64::from_be_bytes(session),
            decoder: Decoder::default(),
            chunk: Zeroizing::new(vec![0; DATA_MAX]),
            undecoded: 0..0,
            said: Zeroizing::new(Vec::with_capacity(DATA_MAX)),
            taken: 0,
            is_over: false,
            daemon: 0,
        };
        port.send_frame(Body::Start, until)?;
        while port.daemon == 0 {
            if !port.hear(until)? {
                return Err(io::Error::other("it does not run in its machine"));
            }
        }
        Ok(port)
    }

    /// The number of the daemon. Another start of it has another one.
    pub(super) fn daemon(&self) -> u64 {
        self.daemon
    }

    /// Has the daemon killed; the machine starts another one.
    pub(super) fn replace(mut self, until: Instant) -> io::Result<()> {
        self.send_frame(Body::Replace(self.daemon), until)?;
        // Of what it said before, nothing is of interest.
        while self.hear(until)? {}
        Ok(())
    }

    fn send_frame(&mut self, body: Body<'_>, until: Instant) -> io::Result<()> {
        let session = self.session;
        self.stream.send(&Frame { session, body }.encode(), until)
    }

    /// Waits for the next frame of the session. False at its end.
    fn hear(&mut self, until: Instant) -> io::Result<bool> {
        while !self.is_over {
            if self.undecoded.is_empty() {
                let length = self.stream.receive(&mut self.chunk, until)?;
                self.undecoded = 0..length;
                self.is_over = length == 0;
            }
            let mut bytes = &self.chunk[self.undecoded.clone()];
            let frame = self.decoder.next(&mut bytes);
            self.undecoded.start = self.undecoded.end - bytes.len();
            match frame {
                Some(frame) if frame.session == self.session => match frame.body {
                    Body::Started(daemon) if self.daemon == 0 => {
                        // 0 stands for none.
                        self.daemon = daemon.max(1);
                        return Ok(true);
                    }
                    Body::Data(bytes) if self.daemon != 0 => {
                        self.said.clear();
                        self.said.extend_from_slice(bytes);
                        self.taken = 0;
                        return Ok(true);
                    }
                    Body::End => self.is_over = true,
                    _ => {}
                },
                _ => {}
            }
        }
        Ok(false)
    }
}

impl Carrier for Port {
    fn send(&mut self, bytes: &[u8], until: Instant) -> io::Result<()> {
        for part in bytes.chunks(DATA_MAX) {
            self.send_frame(Body::Data(part), until)?;
        }
        Ok(())
    }

    fn receive(&mut self, bytes: &mut [u8], until: Instant) -> io::Result<usize> {
        while self.taken == self.said.len() {
            if !self.hear(until)? {
                return Ok(0);
            }
        }
        let rest = &self.said[self.taken..];
        let length = bytes.len().min(rest.len());
        bytes[..length].copy_from_slice(&rest[..length]);
        self.taken += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::thread;

    use super::super::vici::{Client, Message};
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// A machine that does so when a session begins, and the host's end of its port.
    fn machine(
        then: impl FnOnce(&mut UnixStream, u64) -> io::Result<()> + Send + 'static,
    ) -> UnixStream {
        let (ours, mut theirs) = UnixStream::pair().expect("two sockets");
        thread::spawn(move || {
            let session = heard(&mut theirs, &mut Decoder::default()).0;
            // The host may have left.
            let _ = then(&mut theirs, session);
        });
        ours
    }

    /// The next frame of the host: its session and what it says.
    fn heard(port: &mut UnixStream, decoder: &mut Decoder) -> (u64, String) {
        loop {
            let mut byte = [0];
            port.read_exact(&mut byte).expect("a byte");
            if let Some(frame) = decoder.next(&mut &byte[..]) {
                return (frame.session, format!("{:?}", frame.body));
            }
        }
    }

    fn say(port: &mut UnixStream, session: u64, body: Body<'_>) -> io::Result<()> {
        port.write_all(&Frame { session, body }.encode())
    }

    fn begin(stream: UnixStream) -> io::Result<Port> {
        Port::begin(stream, Instant::now() + LONG)
    }

    #[test]
    fn session_skips_what_is_left_of_others() {
        let stream = machine(|port, session| {
            // The second half of a frame.
            let cut = Frame {
                session,
                body: Body::Data(&[7; 100]),
            };
            port.write_all(&cut.encode()[50..])?;
            say(port, session ^ 1, Body::Started(5))?;
            say(port, session ^ 1, Body::End)?;
            say(port, session, Body::Data(b"early"))?;
            say(port, session, Body::Started(6))?;
            say(port, session ^ 1, Body::Data(b"foreign"))?;
            say(port, session, Body::Data(b"he"))?;
            say(port, session, Body::Started(8))?;
            say(port, session, Body::Data(b""))?;
            say(port, session, Body::Data(b"llo"))?;
            say(port, session, Body::End)?;
            say(port, session, Body::Data(b"late"))
        });
        let mut port = begin(stream).expect("a session");
        assert_eq!(port.daemon(), 6);
        let (mut all, mut part) = (Vec::new(), [0; 2]);
        while let length @ 1.. = port
            .receive(&mut part, Instant::now() + LONG)
            .expect("bytes")
        {
            all.extend_from_slice(&part[..length]);
        }
        assert_eq!(all, b"hello");
    }

    #[test]
    fn machine_without_a_daemon_is_told_from_a_silent_one() {
        let stream = machine(|port, session| say(port, session, Body::End));
        let error = begin(stream).err().expect("it does not run");
        assert_eq!(error.to_string(), "it does not run in its machine");

        let (ours, _theirs) = UnixStream::pair().expect("two sockets");
        let soon = Instant::now() + Duration::from_millis(50);
        let error = Port::begin(ours, soon).err().expect("it is silent");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn hostile_machine_holds_nobody_beyond_the_deadline() {
        let endless: [fn(&mut UnixStream, u64) -> io::Result<()>; 4] = [
            |port, session| say(port, session ^ 1, Body::Data(&[1; DATA_MAX])),
            |port, session| say(port, session, Body::Data(b"")),
            |port, _| port.write_all(&[0; 4096]),
            |port, _| port.write_all(&[1; 4096]),
        ];
        for again in endless {
            // Before the session has begun, and behind that.
            for starts in [false, true] {
                let stream = machine(move |port, session| {
                    if starts {
                        say(port, session, Body::Started(1))?;
                    }
                    loop {
                        again(port, session)?;
                    }
                });
                let until = Instant::now() + Duration::from_millis(200);
                let began = Instant::now();
                let late = Port::begin(stream, until)
                    .and_then(|mut port| port.receive(&mut [0; 8], until));
                assert_eq!(late.expect_err("no end").kind(), ErrorKind::TimedOut);
                assert!(began.elapsed() < LONG);
            }
        }
    }

    #[test]
    fn daemon_is_replaced_by_its_number() {
        let (told, hears) = std::sync::mpsc::channel();
        let stream = machine(move |port, session| {
            say(port, session, Body::Started(77))?;
            let order = heard(port, &mut Decoder::default());
            told.send((order.0 == session, order.1)).expect("it waits");
            say(port, session, Body::Data(b"last words"))?;
            say(port, session, Body::End)
        });
        let port = begin(stream).expect("a session");
        port.replace(Instant::now() + LONG).expect("it is replaced");
        let order = hears.recv().expect("an order");
        assert_eq!(order, (true, "Replace(77)".to_owned()));
    }

    #[test]
    fn command_longer_than_a_frame_is_carried() {
        let stream = machine(|port, session| {
            say(port, session, Body::Started(1))?;
            let mut decoder = Decoder::default();
            for _ in 0..3 {
                let frame = heard(port, &mut decoder);
                assert_eq!(frame.0, session);
            }
            let answer = b"\0\0\0\x0f\x01\x03\x07success\0\x03yes";
            for part in answer.chunks(5) {
                say(port, session, Body::Data(part))?;
            }
            Ok(())
        });
        let port = begin(stream).expect("a session");
        let mut client = Client::new(port, Instant::now() + LONG);
        let mut message = Message::default();
        message.set("data", vec![0; 2 * DATA_MAX]);
        let answer = client.command("load-cert", &message).expect("an answer");
        assert_eq!(answer.value("success"), Some("yes"));
    }
}
