//! Sockets inside namespaces: echoes of every size, and a paced flow.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use crate::bed::Bed;

/// For a datagram that is on its way.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many datagrams are on their way at once: fewer than any queue between takes.
const WINDOW: usize = 32;

/// Makes something in a namespace. A socket stays where it was made.
pub(crate) fn within<T: Send + 'static>(
    bed: &Bed,
    name: &str,
    make: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> T {
    let netns = File::open(format!("/run/netns/{}", bed.netns(name))).expect("the namespace");
    // A namespace that a thread enters is its own alone.
    let maker = thread::spawn(move || {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        make()
    });
    let made = maker.join().expect("it ends");
    made.unwrap_or_else(|error| panic!("in {name}: {error}"))
}

/// A socket in a namespace, at this address and any port.
pub(crate) fn socket(bed: &Bed, name: &str, address: IpAddr) -> UdpSocket {
    within(bed, name, move || {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(socket)
    })
}

/// The bytes of a datagram of this size: no two sizes begin alike.
fn content(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| (size.wrapping_mul(31) + at) as u8)
        .collect()
}

/// Sends a datagram of each size, many at once, to somebody who sends them back; all must come, as they were.
pub(crate) fn every_size_comes_back(
    client: &UdpSocket,
    server: &UdpSocket,
    sizes: RangeInclusive<usize>,
) {
    let to = server.local_addr().expect("it is bound");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| echo(server, &done));
        let mut waiting = BTreeSet::new();
        let mut left = sizes.clone();
        let mut heard = Instant::now();
        let mut buffer = vec![0; 65_536];
        loop {
            while waiting.len() < WINDOW {
                let Some(size) = left.next() else { break };
                client
                    .send_to(&content(size), to)
                    .unwrap_or_else(|error| panic!("{size} bytes: {error}"));
                waiting.insert(size);
            }
            if waiting.is_empty() {
                break;
            }
            match client.recv_from(&mut buffer) {
                Ok((size, from)) => {
                    heard = Instant::now();
                    assert_eq!(from, to);
                    assert!(waiting.remove(&size), "{size} bytes were not waited for");
                    assert!(buffer[..size] == content(size), "{size} bytes came changed");
                }
                Err(_) if heard.elapsed() < PATIENCE => {}
                Err(error) => {
                    done.store(true, Ordering::Relaxed);
                    panic!("of {sizes:?}, {waiting:?} did not come back: {error}")
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Sends back what comes.
fn echo(socket: &UdpSocket, done: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !done.load(Ordering::Relaxed) {
        if let Ok((size, from)) = socket.recv_from(&mut buffer) {
            socket
                .send_to(&buffer[..size], from)
                .expect("the way back is the way here");
        }
    }
}

/// What a paced flow came to: how many were sent, and the numbers of those that arrived, in that order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) sent: u32,
    pub(crate) arrived: Vec<u32>,
}

impl Flow {
    /// Everything arrived once, in order.
    #[track_caller]
    pub(crate) fn assert_whole(&self, what: &str) {
        let misplaced = (0..)
            .zip(&self.arrived)
            .find(|(number, arrived)| number != *arrived);
        assert_eq!(misplaced, None, "{what}: (place, number) out of order");
        assert_eq!(self.arrived.len(), self.sent as usize, "{what}");
    }
}

/// Sends numbered datagrams, about one each `pause`, while `work` goes on; what arrived of them.
pub(crate) fn flow_while<T>(
    (from, to): (&UdpSocket, &UdpSocket),
    pause: Duration,
    work: impl FnOnce() -> T,
) -> (Flow, T) {
    let target: SocketAddr = to.local_addr().expect("it is bound");
    let (done, sent_all) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut number = 0_u32;
            while !done.load(Ordering::Relaxed) {
                let mut bytes = number.to_be_bytes().to_vec();
                bytes.extend(content(100));
                from.send_to(&bytes, target).expect("the network is up");
                number += 1;
                thread::sleep(pause);
            }
            sent_all.store(true, Ordering::Relaxed);
            number
        });
        let receiver = scope.spawn(|| {
            let mut buffer = vec![0; 2048];
            let mut arrived = Vec::new();
            let mut heard = Instant::now();
            // Until nothing has come for half a second after the last was sent.
            while !sent_all.load(Ordering::Relaxed) || heard.elapsed() < PATIENCE / 10 {
                if let Ok((_, source)) = to.recv_from(&mut buffer) {
                    heard = Instant::now();
                    if source == from.local_addr().expect("it is bound") {
                        let number = buffer[..4].try_into().expect("four bytes");
                        arrived.push(u32::from_be_bytes(number));
                    }
                }
            }
            arrived
        });
        // A failed assertion must end the threads too.
        let result = {
            struct End<'a>(&'a AtomicBool);
            impl Drop for End<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let _end = End(&done);
            work()
        };
        let flow = Flow {
            sent: sender.join().expect("it ends"),
            arrived: receiver.join().expect("it ends"),
        };
        (flow, result)
    })
}
