//! UDP sockets inside namespaces: echoes of every size, and a paced flow.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use crate::bed::Bed;

/// The longest time that a datagram may be in flight.
const PATIENCE: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_millis(100);
/// Datagrams in flight at once: fewer than any queue on the path holds.
const WINDOW: usize = 32;

/// Creates something in a namespace. A socket stays in the namespace where it was created.
pub(crate) fn within<T: Send + 'static>(
    bed: &Bed,
    name: &str,
    make: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> T {
    let netns = File::open(format!("/run/netns/{}", bed.netns(name))).expect("the namespace");
    // Only the calling thread enters the namespace.
    let maker = thread::spawn(move || {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        make()
    });
    let made = maker.join().expect("it ends");
    made.unwrap_or_else(|error| panic!("in {name}: {error}"))
}

/// A socket in a namespace, at this address and any port.
pub(crate) fn socket(bed: &Bed, name: &str, address: IpAddr) -> UdpSocket {
    socket_at(bed, name, SocketAddr::from((address, 0)))
}

/// A socket at the port of the Echo Protocol (RFC 862). Wireshark takes other ports, also those
/// that the kernel chooses, for protocols that the datagrams do not have, and complains.
pub(crate) fn echo_socket(bed: &Bed, name: &str, address: IpAddr) -> UdpSocket {
    const ECHO: u16 = 7;
    socket_at(bed, name, SocketAddr::from((address, ECHO)))
}

fn socket_at(bed: &Bed, name: &str, address: SocketAddr) -> UdpSocket {
    within(bed, name, move || {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(READ_TIMEOUT))?;
        // Its reader may wait for a CPU longer than the default buffer lasts.
        setsockopt(&socket, RcvBufForce, &(8 << 20))?;
        Ok(socket)
    })
}

/// The bytes of a datagram of this size; each size begins differently.
fn content(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| (size.wrapping_mul(31) + at) as u8)
        .collect()
}

/// Sends a datagram of each size, many at once, to an echo; all must come back unchanged.
pub(crate) fn every_size_comes_back(
    client: &UdpSocket,
    server: &UdpSocket,
    sizes: RangeInclusive<usize>,
) {
    let to = server.local_addr().expect("it is bound");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| echo(server, &done));
        let _end = End(&done);
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
                Err(error) => panic!("of {sizes:?}, {waiting:?} did not come back: {error}"),
            }
        }
    });
}

/// Sends every datagram back.
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

/// The result of a paced flow: how many were sent, and the numbers of those that arrived, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) sent: u32,
    pub(crate) arrived: Vec<u32>,
}

impl Flow {
    /// Whether everything arrived once, in order.
    #[track_caller]
    pub(crate) fn assert_whole(&self, what: &str) {
        let misplaced = (0..)
            .zip(&self.arrived)
            .find(|(number, arrived)| number != *arrived);
        assert_eq!(misplaced, None, "{what}: (place, number) out of order");
        assert_eq!(self.arrived.len(), self.sent as usize, "{what}");
    }
}

/// Sends numbered datagrams, about one each `pause`, while `work` runs; returns which arrived.
pub(crate) fn flow_while<T>(
    (from, to): (&UdpSocket, &UdpSocket),
    pause: Duration,
    work: impl FnOnce() -> T,
) -> (Flow, T) {
    let (source, target) = [from, to]
        .map(|socket| socket.local_addr().expect("it is bound"))
        .into();
    let done = AtomicBool::new(false);
    // The number of datagrams, set when the last has been sent.
    let sent = OnceLock::new();
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
            sent.set(number).expect("only here");
        });
        let receiver = scope.spawn(|| {
            let mut buffer = vec![0; 2048];
            let mut arrived = Vec::new();
            let mut silence = Duration::ZERO;
            while sent.get() != Some(&(arrived.len() as u32)) && silence < PATIENCE {
                match to.recv_from(&mut buffer) {
                    Ok((_, from)) if from == source => {
                        let number = buffer[..4].try_into().expect("four bytes");
                        arrived.push(u32::from_be_bytes(number));
                        silence = Duration::ZERO;
                    }
                    Ok(_) => {}
                    Err(_) => silence += READ_TIMEOUT,
                }
            }
            arrived
        });
        let result = {
            // The threads must also end after a failed assertion.
            let _end = End(&done);
            work()
        };
        sender.join().expect("it ends");
        let flow = Flow {
            sent: *sent.get().expect("it is set at the end"),
            arrived: receiver.join().expect("it ends"),
        };
        (flow, result)
    })
}

/// Signals the end when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
