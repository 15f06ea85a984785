//! The port of the IKE daemon of a switch that runs in a machine.
//!
//! A virtio-serial port is one stream of bytes. It outlives the programs at both ends, and neither
//! learns in time that the other one has changed. This port carries VICI, one connection after the
//! other, as frames that a reader finds from any byte on: there is no zero within a frame (COBS,
//! Cheshire and Baker 1999), and one on each side of it. A frame belongs to a session, a random
//! number of the host; what is of another session is ignored.
//!
//! | kind | from | behind the session |
//! |---|---|---|
//! | 1, start | host | nothing; it ends the session before |
//! | 2, started | machine | the number of the daemon that it is connected to |
//! | 3, data | both | bytes of VICI |
//! | 4, end | machine | nothing; the daemon has closed the connection, or does not run |
//! | 5, replace | host | the number of a daemon that is to be killed; the answer is an end |
//!
//! What is sent holds keys, so buffers are overwritten when they are dropped, and a decoder's with
//! the next frame.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// The name of the port.
pub const IKE_PORT: &str = "org.vswitch.ike.0";
/// The most bytes of VICI in a frame.
pub const DATA_MAX: usize = 4096;

/// Kind and session.
const HEAD: usize = 9;
const START: u8 = 1;
const STARTED: u8 = 2;
const DATA: u8 = 3;
const END: u8 = 4;
const REPLACE: u8 = 5;
/// The longest run of bytes behind one code of COBS.
const RUN_MAX: usize = 254;
/// The longest frame without the zeros around it: a code for each run.
const STUFFED_MAX: usize = HEAD + DATA_MAX + (HEAD + DATA_MAX) / RUN_MAX + 1;

/// A frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its session.
    pub session: u64,
    /// What it says.
    pub body: Body<'a>,
}

/// What a frame says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// The host begins a session.
    Start,
    /// The session is connected to the daemon of this number, a random one for each start of it.
    Started(u64),
    /// Bytes of VICI.
    Data(&'a [u8]),
    /// The daemon has closed the connection, or does not run.
    End,
    /// The daemon of this number is to be killed. Another one is started in its place.
    Replace(u64),
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => out.write_str("Start"),
            Self::Started(daemon) => write!(out, "Started({daemon})"),
            // It may be a key.
            Self::Data(bytes) => write!(out, "Data({} bytes)", bytes.len()),
            Self::End => out.write_str("End"),
            Self::Replace(daemon) => write!(out, "Replace({daemon})"),
        }
    }
}

impl<'a> Frame<'a> {
    /// The bytes to send. Of [`Body::Data`] the first [`DATA_MAX`] bytes are.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let number;
        let (kind, rest): (u8, &[u8]) = match self.body {
            Body::Start => (START, &[]),
            Body::Started(daemon) => {
                number = daemon.to_be_bytes();
                (STARTED, &number)
            }
            Body::Data(bytes) => (DATA, &bytes[..bytes.len().min(DATA_MAX)]),
            Body::End => (END, &[]),
            Body::Replace(daemon) => {
                number = daemon.to_be_bytes();
                (REPLACE, &number)
            }
        };
        // Of the final size from the beginning, so no copy of a part is left behind.
        let mut plain = Zeroizing::new(Vec::with_capacity(HEAD + rest.len()));
        plain.push(kind);
        plain.extend_from_slice(&self.session.to_be_bytes());
        plain.extend_from_slice(rest);
        let mut bytes = Zeroizing::new(Vec::with_capacity(STUFFED_MAX + 2));
        bytes.push(0);
        stuff(&plain, &mut bytes);
        bytes.push(0);
        bytes
    }

    fn parse(plain: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = plain.split_first()?;
        let (session, rest) = rest.split_first_chunk()?;
        let number = || Some(u64::from_be_bytes(rest.try_into().ok()?));
        let body = match kind {
            START if rest.is_empty() => Body::Start,
            STARTED => Body::Started(number()?),
            DATA if rest.len() <= DATA_MAX => Body::Data(rest),
            END if rest.is_empty() => Body::End,
            REPLACE => Body::Replace(number()?),
            _ => return None,
        };
        let session = u64::from_be_bytes(*session);
        Some(Self { session, body })
    }
}

/// Replaces the zeros of `plain`: each run without one has its length and 1 in front of it.
fn stuff(plain: &[u8], out: &mut Vec<u8>) {
    let mut rest = plain;
    loop {
        let run = &rest[..rest.len().min(RUN_MAX)];
        let length = run.iter().position(|byte| *byte == 0);
        let length = length.unwrap_or(run.len());
        out.push(length as u8 + 1);
        out.extend_from_slice(&run[..length]);
        if length == rest.len() {
            return;
        }
        // A run of the greatest length has no zero behind it.
        rest = &rest[length + usize::from(length < RUN_MAX)..];
    }
}

/// The reverse of [`stuff`]. False if `stuffed` is cut off.
fn unstuff(stuffed: &[u8], out: &mut Vec<u8>) -> bool {
    let mut rest = stuffed;
    while let Some((&code, behind)) = rest.split_first() {
        let length = usize::from(code).saturating_sub(1);
        let Some((run, next)) = behind.split_at_checked(length) else {
            return false;
        };
        out.extend_from_slice(run);
        if length < RUN_MAX && !next.is_empty() {
            out.push(0);
        }
        rest = next;
    }
    true
}

/// Overwrites what is in it, which takes no longer than it took to get there.
fn wipe(buffer: &mut Vec<u8>) {
    buffer.as_mut_slice().zeroize();
    buffer.clear();
}

/// Finds frames in a stream, from any byte on. Its memory is bounded.
#[derive(Debug)]
pub struct Decoder {
    /// Of the present frame.
    stuffed: Zeroizing<Vec<u8>>,
    /// It is longer than any frame, so everything up to the next zero is skipped.
    is_too_long: bool,
    /// The last whole frame.
    plain: Zeroizing<Vec<u8>>,
}

impl Default for Decoder {
    fn default() -> Self {
        let buffer = || Zeroizing::new(Vec::with_capacity(STUFFED_MAX));
        Self {
            stuffed: buffer(),
            is_too_long: false,
            plain: buffer(),
        }
    }
}

impl Decoder {
    /// The next frame in `bytes`, of which what belongs to it and to damaged frames before it is
    /// taken. `None` if all are taken: the frame is not whole yet.
    pub fn next<'a>(&'a mut self, bytes: &mut &[u8]) -> Option<Frame<'a>> {
        while self.fill(bytes) {
            if Frame::parse(&self.plain).is_some() {
                break;
            }
        }
        // Empty unless the last one is whole.
        Frame::parse(&self.plain)
    }

    /// Takes the bytes of one frame. Whether its end is there.
    fn fill(&mut self, bytes: &mut &[u8]) -> bool {
        wipe(&mut self.plain);
        let end = bytes.iter().position(|byte| *byte == 0);
        let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        let room = STUFFED_MAX - self.stuffed.len();
        self.is_too_long |= part.len() > room;
        self.stuffed
            .extend_from_slice(&part[..part.len().min(room)]);
        if end.is_none() {
            *bytes = rest;
            return false;
        }
        *bytes = &rest[1..];
        if self.is_too_long || !unstuff(&self.stuffed, &mut self.plain) {
            wipe(&mut self.plain);
        }
        self.is_too_long = false;
        wipe(&mut self.stuffed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All frames of a stream that arrives in parts of that length.
    fn frames(stream: &[u8], part: usize) -> Vec<(u64, String, Vec<u8>)> {
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        for mut bytes in stream.chunks(part) {
            while let Some(frame) = decoder.next(&mut bytes) {
                let data = match frame.body {
                    Body::Data(data) => data.to_vec(),
                    _ => Vec::new(),
                };
                found.push((frame.session, format!("{:?}", frame.body), data));
            }
        }
        found
    }

    fn data(session: u64, bytes: &[u8]) -> Zeroizing<Vec<u8>> {
        let body = Body::Data(bytes);
        Frame { session, body }.encode()
    }

    #[test]
    fn frames_are_decoded_as_they_were_encoded() {
        let bodies = [
            Body::Start,
            Body::Started(0),
            Body::Data(b""),
            Body::Data(b"key"),
            Body::End,
            Body::Replace(u64::MAX),
        ];
        let mut stream = Vec::new();
        for (session, body) in (0..).zip(bodies) {
            stream.extend_from_slice(&Frame { session, body }.encode());
        }
        for part in [1, 2, 7, stream.len()] {
            let found = frames(&stream, part);
            let found: Vec<&str> = found.iter().map(|(_, body, _)| body.as_str()).collect();
            let wanted = bodies.map(|body| format!("{body:?}"));
            assert_eq!(found, wanted, "{part}");
        }
    }

    #[test]
    fn data_of_every_length_and_content_is_carried() {
        for length in [0, 1, 244, 245, 246, 253, 254, 255, 508, 509, DATA_MAX] {
            for bytes in [
                vec![0; length],
                vec![1; length],
                (0..length).map(|at| at as u8).collect(),
            ] {
                let stream = data(7, &bytes);
                let inner = &stream[1..stream.len() - 1];
                assert!(inner.len() <= STUFFED_MAX && !inner.contains(&0));
                assert_eq!(frames(&stream, 100)[0].2, bytes, "{length}");
            }
        }
    }

    #[test]
    fn frame_behind_anything_is_found() {
        let good = data(1, b"good");
        let cut = data(2, &[5; 1000]);
        for before in [
            &cut[..500],
            &cut[500..],
            &[0; 3],
            &[1],
            &[0xff; 3 * STUFFED_MAX],
            b"HTTP/1.1 200 OK\r\n\r\n",
        ] {
            let stream = [before, &good[..], &good[..]].concat();
            let found = frames(&stream, 64);
            assert_eq!(found.len(), 2, "{before:?}");
            assert!(
                found
                    .iter()
                    .all(|(session, _, data)| (*session, &data[..]) == (1, b"good"))
            );
        }
    }

    #[test]
    fn malformed_frames_are_skipped() {
        let framed = |plain: &[u8]| {
            let mut bytes = Vec::new();
            stuff(plain, &mut bytes);
            [&[0], &bytes[..], &[0]].concat()
        };
        let of_kind = |kind: u8, rest: usize| framed(&[vec![kind; 9], vec![kind; rest]].concat());
        for bytes in [
            of_kind(0, 0),
            of_kind(START, 1),
            of_kind(STARTED, 7),
            of_kind(STARTED, 9),
            of_kind(DATA, DATA_MAX + 1),
            of_kind(END, 1),
            of_kind(REPLACE, 0),
            of_kind(6, 0),
            framed(&[DATA; 8]),
            framed(b""),
        ] {
            assert!(frames(&bytes, 10).is_empty(), "{bytes:?}");
        }
    }

    #[test]
    fn bytes_are_not_shown() {
        let body = Body::Data(b"secret");
        let shown = format!("{:?}", Frame { session: 3, body });
        assert_eq!(shown, "Frame { session: 3, body: Data(6 bytes) }");
    }

    /// Coverage-guided by `scripts/fuzz`: whatever comes before, a whole frame is found.
    #[test]
    fn frame_is_found_behind_any_bytes() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let end = Frame {
                session: 9,
                body: Body::End,
            };
            let stream = [bytes, &end.encode()[..]].concat();
            let found = frames(&stream, 50);
            let last = found
                .last()
                .map(|(session, body, _)| (*session, body.as_str()));
            assert_eq!(last, Some((9, "End")));
            assert_eq!(
                frames(&data(9, bytes), 50)[0].2,
                &bytes[..bytes.len().min(DATA_MAX)]
            );
        });
    }
}
