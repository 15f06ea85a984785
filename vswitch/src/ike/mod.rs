//! The thread between charon, which negotiates keys, and the worker, which uses them.
//!
//! charon connects three times to one socket; the first message of a connection is its role
//! ([`message::Role`]). All three are one session: when one ends, all are closed, the worker wipes
//! every SA, and the next charon begins anew. Nothing of a session survives it.
//!
//! - `message`: the formats, parsed as hostile
//! - `book`: what charon may have, and the answers to its requests; no input or output
//! - `session`: the connections
//!
//! The thread shares no lock with the worker: orders and notices are queues of
//! [`pipeline::ipsec::Channel`]. `docs/reference/ike-protocol.md` is the specification.

mod book;
mod message;
mod session;

use std::collections::VecDeque;
use std::fs::Permissions;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pipeline::ipsec::{Datagram, Notice, Order, Rules};
use rustix::rand::{GetRandomFlags, getrandom};

use self::book::Book;
use self::message::{Request, Role};
use self::session::{Received, Session, Waiting};
use crate::control::{SocketError, clear_stale};
use crate::worker::Link;

/// The longest wait: connections that do not say their role are closed in time.
const IDLE: Duration = Duration::from_millis(500);
/// Messages of one connection that are taken before the others have their turn.
const TURN: usize = 32;
/// Refusals logged a second; the others are counted in the next.
const REFUSALS_PER_SECOND: u32 = 5;

/// The socket on which the switch waits for charon. Dropping it removes its file.
#[derive(Debug)]
pub struct IkeSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl IkeSocket {
    /// Listens on `path`. Any user may connect: who does not have charon's user is turned away.
    /// Replaces a stale socket.
    ///
    /// # Errors
    /// If a process listens there, or the path names another kind of file.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Bind {
            path: path.to_owned(),
            source,
        };
        clear_stale(path, session::is_live)?;
        let listener = vswitch_api::channel::listener(path).map_err(failed)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(failed)?;
        // The process may change its working directory before it removes the file.
        let path = std::path::absolute(path).map_err(failed)?;
        Ok(Self { listener, path })
    }

    /// A thread's end of it.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for IkeSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What the control thread tells the IKE thread, and shows of it.
#[derive(Debug, Default)]
pub struct Shared {
    rules: Mutex<Option<Arc<Rules>>>,
    has_new_rules: AtomicBool,
    is_connected: AtomicBool,
}

impl Shared {
    /// With the rules of the first configuration; `None` is without IPsec.
    pub fn new(rules: Option<Rules>) -> Arc<Self> {
        let shared = Self::default();
        shared.set_rules(rules);
        Arc::new(shared)
    }

    /// Judges by other rules from now on: those of a new configuration.
    pub fn set_rules(&self, rules: Option<Rules>) {
        *locked(&self.rules) = rules.map(Arc::new);
        self.has_new_rules.store(true, Ordering::Release);
    }

    /// Whether charon is connected.
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::Relaxed)
    }
}

/// Nobody panics while holding one of these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's state.
#[derive(Debug)]
pub struct Ike {
    listener: UnixListener,
    /// charon's user.
    uid: u32,
    link: Arc<Link>,
    shared: Arc<Shared>,
    book: Book,
    session: Session,
    waiting: Waiting,
    /// Orders for which the worker had no room. While there are any, no request is taken.
    backlog: VecDeque<Order>,
    refusals: Refusals,
}

impl Ike {
    /// Serves charon, which has the user `uid`, on `socket`.
    ///
    /// # Errors
    /// If the socket cannot be set up.
    pub fn new(
        socket: UnixListener,
        uid: u32,
        link: Arc<Link>,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        link.ipsec().give_blanks();
        Ok(Self {
            listener: socket,
            uid,
            link,
            shared,
            book: Book::new(None),
            session: Session::default(),
            waiting: Waiting::default(),
            backlog: VecDeque::new(),
            refusals: Refusals::default(),
        })
    }

    /// Serves one charon after the other. It never returns; the process's end is its end.
    pub fn run(mut self) -> ! {
        loop {
            self.wait();
            self.turn();
        }
    }

    /// Waits for something to do.
    fn wait(&self) {
        let open = [self.listener.as_fd(), self.link.ipsec_wake().as_fd()];
        let open = open.into_iter().chain(self.session.open());
        let mut open: Vec<PollFd<'_>> = open
            .chain(self.waiting.open())
            .map(|it| PollFd::new(it, PollFlags::POLLIN))
            .collect();
        let timeout = PollTimeout::try_from(IDLE).unwrap_or(PollTimeout::ZERO);
        // A signal or an error is as good as a descriptor: each is tried.
        let _ = poll(&mut open, timeout);
    }

    /// Does what there is to do, and waits for nothing.
    fn turn(&mut self) {
        if self.shared.has_new_rules.swap(false, Ordering::Acquire) {
            let rules = locked(&self.shared.rules).clone();
            let orders = self.book.set_rules(rules);
            self.give(orders);
        }
        // The count says nothing: all notices are taken.
        let _ = self.link.ipsec_wake().read();
        self.accept();
        self.flush();
        let mut is_alive = self.requests();
        is_alive &= self.datagrams();
        is_alive &= self.notices();
        // charon sends nothing on this one: a message or its end.
        is_alive &= matches!(self.session.receive(Role::Evt), Received::Nothing);
        while self.link.ipsec().retired().is_some() {}
        if !is_alive && !self.session.is_empty() {
            self.end();
        }
    }

    /// Takes in new connections, and gives them their roles.
    fn accept(&mut self) {
        self.waiting.accept(&self.listener, self.uid);
        while let Some((role, connection)) = self.waiting.take() {
            if self.session.set(role, connection) {
                tracing::debug!(role = role.name(), "charon has connected");
            } else {
                tracing::warn!(
                    role = role.name(),
                    "another charon has connected, and is turned away"
                );
            }
        }
        let connected = self.session.is_complete();
        if connected && !self.shared.is_connected.swap(true, Ordering::Relaxed) {
            tracing::info!("charon has connected");
        }
    }

    /// Ends the session: fail closed.
    fn end(&mut self) {
        self.session = Session::default();
        self.backlog.clear();
        let (sas, wipe) = (self.book.len(), self.book.wipe());
        self.give([wipe]);
        self.shared.is_connected.store(false, Ordering::Relaxed);
        tracing::warn!(sas, "charon is gone: all SAs are wiped");
    }

    /// Answers requests; whether the session goes on.
    fn requests(&mut self) -> bool {
        for _ in 0..TURN {
            if !self.backlog.is_empty() {
                return true;
            }
            let received = self.session.receive(Role::Ctl);
            let message = match received {
                Received::Message(message) => message,
                Received::Nothing => return true,
                Received::End => return false,
            };
            let now_ns = self.link.ipsec().polled_ns();
            let answer = Request::parse(&message)
                .map_err(|error| error.to_string())
                .and_then(|request| {
                    let answer = self.book.answer(request, Instant::now(), now_ns, random);
                    answer.map_err(|error| error.to_string())
                });
            let answer = match answer {
                Ok(reply) => {
                    self.give(reply.orders);
                    match reply.values {
                        Some(values) => format!("ok {values}"),
                        None => "ok".to_owned(),
                    }
                }
                Err(sentence) => {
                    self.refusals.log(&sentence);
                    format!("error {sentence}")
                }
            };
            if !self.session.send(Role::Ctl, answer.as_bytes()) {
                return false;
            }
        }
        true
    }

    /// Passes on charon's datagrams; whether the session goes on.
    fn datagrams(&mut self) -> bool {
        for _ in 0..TURN {
            let message = match self.session.receive(Role::Ike) {
                Received::Message(message) => message,
                Received::Nothing => return true,
                Received::End => return false,
            };
            let rules = locked(&self.shared.rules).clone();
            match datagram(rules.as_deref(), &message) {
                // Without room it is lost, as on any wire: IKE sends it again.
                Ok(datagram) => {
                    let _ = self.link.order(Order::Send(datagram));
                }
                Err(sentence) => self.refusals.log(sentence),
            }
        }
        true
    }

    /// Tells charon what the worker has noticed; whether the session goes on.
    fn notices(&mut self) -> bool {
        let mut is_alive = true;
        while let Some(notice) = self.link.ipsec().notice() {
            if let Notice::Ike(datagram) = notice {
                let message = message::ike_message(datagram.from, datagram.to, datagram.bytes());
                // Without room it is lost, as on any wire.
                self.session.send(Role::Ike, &message);
                self.link.ipsec().give_blank(datagram);
                continue;
            }
            let mut orders = Vec::new();
            let event = self.book.notice(&notice, &mut orders);
            self.give(orders);
            match event {
                // An event is not repeated: a charon that takes none is as good as dead.
                Some(event) => {
                    is_alive &= self.session.send(Role::Evt, event.to_string().as_bytes());
                }
                None => tracing::debug!(?notice, "charon has nothing for it"),
            }
        }
        is_alive
    }

    /// Gives orders to the worker, in their order.
    fn give(&mut self, orders: impl IntoIterator<Item = Order>) {
        self.backlog.extend(orders);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(order) = self.backlog.pop_front() {
            if let Err(order) = self.link.order(order) {
                self.backlog.push_front(order);
                break;
            }
        }
    }
}

/// A datagram of charon's that may be sent.
fn datagram(rules: Option<&Rules>, message: &[u8]) -> Result<Box<Datagram>, &'static str> {
    let (from, to, bytes) = message::ike_datagram(message).ok_or("an IKE datagram is none")?;
    let rules = rules.ok_or("the configuration has no IPsec")?;
    if from.ip() != rules.own || !matches!(from.port(), 500 | 4500) {
        return Err("an IKE datagram is not from the tunnel's endpoint");
    }
    if !rules.endpoints.contains(&to.ip()) {
        return Err("an IKE datagram is for no peer that requires IPsec");
    }
    Datagram::new(from, to, bytes).ok_or("an IKE datagram is too long: IKE's fragmentation is off")
}

fn random() -> Option<u32> {
    let mut bytes = [0; 4];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty()).ok()?;
    (filled == bytes.len()).then(|| u32::from_ne_bytes(bytes))
}

/// Logs refusals, but not more than a log bears.
#[derive(Debug, Default)]
struct Refusals {
    since: Option<Instant>,
    logged: u32,
    untold: u64,
}

impl Refusals {
    fn log(&mut self, sentence: &str) {
        let now = Instant::now();
        let is_new = |since: Instant| now.duration_since(since) >= Duration::from_secs(1);
        if self.since.is_none_or(is_new) {
            self.since = Some(now);
            self.logged = 0;
        }
        if self.logged == REFUSALS_PER_SECOND {
            self.untold += 1;
            return;
        }
        self.logged += 1;
        let untold = std::mem::take(&mut self.untold);
        tracing::warn!(untold, "charon is refused: {sentence}");
    }
}

#[cfg(test)]
mod tests;
