//! One connection: what it waits for, and until when.

use std::time::Duration;

use smoltcp::socket::tcp::{Socket, State};

use crate::Station;
use crate::documents::{Body, Documents};
use crate::http::{self, Answer, HEAD_MAX};
use crate::token::Secret;

/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a request may take to come, after the handshake or the answer before.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a VM may take to take an answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a VM may take to close its side.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests of one connection; it is closed with the answer to the last.
pub const REQUESTS_MAX: u32 = 100;
/// The TCP port.
pub(crate) const PORT: u16 = 80;

/// What a connection waits for.
#[derive(Debug)]
enum Phase {
    /// Somebody who connects.
    Free,
    /// The end of a handshake.
    Handshake,
    /// The head of a request.
    Head,
    /// The answer's being taken.
    Answer(Sending),
    /// The other side's end.
    Close,
}

/// An answer, and how much of it TCP has.
#[derive(Debug)]
struct Sending {
    head: Vec<u8>,
    body: Body,
    sent: usize,
    close: bool,
}

#[derive(Debug)]
pub(crate) struct Connection {
    phase: Phase,
    until: Duration,
    /// What has come of a request.
    received: Vec<u8>,
    requests: u32,
}

impl Connection {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Free,
            until: Duration::MAX,
            received: Vec::with_capacity(HEAD_MAX),
            requests: 0,
        }
    }

    /// When it must be looked at.
    pub(crate) fn until(&self) -> Option<Duration> {
        Some(self.until).filter(|until| *until != Duration::MAX)
    }

    fn wait(&mut self, phase: Phase, until: Duration) {
        (self.phase, self.until) = (phase, until);
    }

    /// Does what there is to do between what came and what is sent.
    pub(crate) fn serve(
        &mut self,
        socket: &mut Socket<'_>,
        served: (&Documents, &Secret, Station),
        now: Duration,
    ) {
        match (socket.state(), &self.phase) {
            (State::Listen | State::Closed | State::TimeWait, _) => return,
            (State::SynReceived, Phase::Free) => {
                return self.wait(Phase::Handshake, now + HANDSHAKE_TIMEOUT);
            }
            (State::SynReceived, _) => {}
            (_, Phase::Free | Phase::Handshake) => self.wait(Phase::Head, now + HEAD_TIMEOUT),
            _ => {}
        }
        if now >= self.until {
            return socket.abort();
        }
        // An answer may make room for the next request at once; each turn takes one at most.
        for _ in 0..REQUESTS_MAX {
            let went_on = match &mut self.phase {
                Phase::Head => self.take_request(socket, served, now),
                Phase::Answer(_) => self.send(socket, now),
                Phase::Free | Phase::Handshake | Phase::Close => false,
            };
            if !went_on {
                break;
            }
        }
    }

    /// Takes in what has come; whether a request is complete.
    fn take_request(
        &mut self,
        socket: &mut Socket<'_>,
        served: (&Documents, &Secret, Station),
        now: Duration,
    ) -> bool {
        while self.received.len() < HEAD_MAX && socket.can_recv() {
            let room = HEAD_MAX - self.received.len();
            let took = socket.recv(|bytes| {
                let len = bytes.len().min(room);
                self.received.extend_from_slice(&bytes[..len]);
                (len, len)
            });
            if took.is_err() {
                break;
            }
        }
        let answer = match self.received.is_empty() {
            true => None,
            false => {
                let is_last = self.requests + 1 >= REQUESTS_MAX;
                http::answer(&self.received, served, is_last, now)
            }
        };
        let Some((len, answer)) = answer else {
            if !socket.may_recv() {
                socket.close();
                self.wait(Phase::Close, now + CLOSE_TIMEOUT);
            }
            return false;
        };
        self.received.drain(..len.min(self.received.len()));
        self.requests += 1;
        let Answer {
            head,
            body,
            close,
            one_hop,
        } = answer;
        socket.set_hop_limit(one_hop.then_some(1));
        let sending = Sending {
            head,
            body,
            sent: 0,
            close,
        };
        self.wait(Phase::Answer(sending), now + ANSWER_TIMEOUT);
        true
    }

    /// Gives TCP what it takes of the answer; whether the VM has taken all of it.
    fn send(&mut self, socket: &mut Socket<'_>, now: Duration) -> bool {
        let Phase::Answer(sending) = &mut self.phase else {
            return false;
        };
        let Sending {
            head, body, sent, ..
        } = sending;
        while *sent < head.len() + body.len() {
            let rest = match head.get(*sent..).filter(|rest| !rest.is_empty()) {
                Some(rest) => rest,
                None => &body[*sent - head.len()..],
            };
            match socket.send_slice(rest) {
                Ok(0) => break,
                Ok(len) => *sent += len,
                Err(_) => {
                    socket.abort();
                    return false;
                }
            }
        }
        if *sent < head.len() + body.len() {
            return false;
        }
        if sending.close {
            socket.close();
            // Until the VM has taken all and closed its side.
            self.wait(Phase::Close, now + ANSWER_TIMEOUT);
            return false;
        }
        // The hop limit is the connection's, and what is lost is sent again.
        if socket.send_queue() > 0 {
            return false;
        }
        socket.set_hop_limit(None);
        self.wait(Phase::Head, now + HEAD_TIMEOUT);
        true
    }

    /// Waits for the next one who connects, if the connection has ended and said all.
    pub(crate) fn renew(&mut self, socket: &mut Socket<'_>) {
        if matches!(socket.state(), State::Closed | State::TimeWait) {
            self.received.clear();
            self.requests = 0;
            self.wait(Phase::Free, Duration::MAX);
            socket.set_hop_limit(None);
            // It cannot fail: the socket is not open, and the port is none of zero.
            let _ = socket.listen(PORT);
        } else if socket.state() == State::Listen {
            // A handshake that was reset.
            self.wait(Phase::Free, Duration::MAX);
        }
    }
}
