//! The thread that serves metadata to cloud images. It takes VMs' packets from the worker and gives
//! it the answers, by the queues of [`pipeline::metadata::Channel`]; TCP and HTTP are the crate
//! `metadata`. It sleeps while nobody is connected.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::metadata::{Secret, Served, Server};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tenant_config::SwitchConfig;

use crate::worker::Link;

/// Packets that are taken before answers are passed on.
const TURN: usize = 32;

/// What the control thread tells the thread.
#[derive(Debug)]
pub struct Shared {
    link: Arc<Link>,
    new: Mutex<Option<Served>>,
}

impl Shared {
    /// What a thread beside that worker serves; at first nothing.
    pub fn new(link: Arc<Link>) -> Arc<Self> {
        let new = Mutex::new(None);
        Arc::new(Self { link, new })
    }

    /// Serves what that configuration says from now on.
    pub fn configure(&self, config: &SwitchConfig) {
        let served = Served::of(config);
        // Nobody panics while holding the lock.
        *self.new.lock().unwrap_or_else(PoisonError::into_inner) = Some(served);
        self.link.wake_metadata();
    }

    fn take(&self) -> Option<Served> {
        self.new
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// The thread's state.
#[derive(Debug)]
pub struct Metadata {
    shared: Arc<Shared>,
    server: Server,
    started: Instant,
    /// Whether the worker has room for packets: not before a port has metadata.
    has_room: bool,
}

impl Metadata {
    /// Serves what `shared` says, with tokens that `secret` signs.
    pub fn new(shared: Arc<Shared>, secret: Secret) -> Self {
        Self {
            shared,
            server: Server::new(secret),
            started: Instant::now(),
            has_room: false,
        }
    }

    /// It never returns; the process's end is its end.
    pub fn run(mut self) -> ! {
        loop {
            self.wait();
            self.turn();
        }
    }

    /// Waits for something to do.
    fn wait(&self) {
        let next = self.server.next();
        let timeout = next.map(|next| {
            let left = next.saturating_sub(self.started.elapsed());
            // Not before it is due.
            left + Duration::from_millis(1)
        });
        let timeout = timeout.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let wake = self.shared.link.metadata_wake();
        // A signal or an error is as good as a descriptor: each is tried.
        let _ = poll(&mut [PollFd::new(wake.as_fd(), PollFlags::POLLIN)], timeout);
    }

    /// Does what there is to do, and waits for nothing.
    fn turn(&mut self) {
        let Self {
            shared,
            server,
            started,
            has_room,
        } = self;
        let (link, channel) = (&shared.link, shared.link.metadata());
        // The count says nothing: all packets are taken.
        let _ = link.metadata_wake().read();
        loop {
            if let Some(served) = shared.take() {
                if served.is_any() && !std::mem::replace(has_room, true) {
                    channel.give_blanks();
                }
                server.configure(served);
            }
            let now = started.elapsed();
            let mut taken = 0;
            let mut answered = false;
            while taken < TURN
                && channel.request(|packet| {
                    let station = packet.station();
                    server.receive(station, packet.bytes(), now, &mut |answer| {
                        // Without room it is lost, as on any wire: TCP sends it again.
                        answered |= channel.answer(station, answer);
                    });
                })
            {
                taken += 1;
            }
            server.poll(now, &mut |station, answer| {
                answered |= channel.answer(station, answer);
            });
            if answered {
                link.send_metadata();
            }
            if taken < TURN {
                return;
            }
        }
    }
}
