//! What the thread that negotiates keys and the worker say to each other, without a lock.
//!
//! All memory is that thread's: SAs and datagrams come in boxes that it made, and go back to it to
//! be dropped. The worker takes an order only if there is room for what it would hand back, so the
//! thread takes out what is [`Channel::retired`] whenever it gives orders or hears a notice.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;

use super::request::UdpPorts;
use super::sa::{InboundSa, OutboundSa};
use crate::counter::Counter;

/// The longest IKE datagram, in bytes: larger ones are fragmented by IKE (RFC 7383).
pub const DATAGRAM_MAX: usize = 2048;

/// Orders that may wait, and SAs and datagrams that may wait to be taken back.
const ORDERS: usize = 256;
/// Notices that may wait; more are lost, but for those of expiries, which are repeated.
const NOTICES: usize = 256;
/// Datagrams to the thread that may wait; more are dropped.
const DATAGRAMS: usize = 64;

/// The direction of an SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the peer to us.
    In,
    /// From us to the peer.
    Out,
}

/// An IKE datagram, without its UDP header and its marker of four zero bytes at port 4500.
#[derive(Clone)]
pub struct Datagram {
    /// The sender's address and port.
    pub from: SocketAddr,
    /// The receiver's.
    pub to: SocketAddr,
    len: usize,
    bytes: [u8; DATAGRAM_MAX],
}

impl Datagram {
    /// A datagram; `None` if it is longer than [`DATAGRAM_MAX`].
    pub fn new(from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Option<Box<Self>> {
        let mut datagram = Self::blank();
        datagram.write(from, to, bytes)?;
        Some(datagram)
    }

    /// An empty one, for [`Channel::give_blank`].
    pub fn blank() -> Box<Self> {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        Box::new(Self {
            from: nobody,
            to: nobody,
            len: 0,
            bytes: [0; DATAGRAM_MAX],
        })
    }

    pub(crate) fn write(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Option<()> {
        self.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        (self.from, self.to, self.len) = (from, to, bytes.len());
        Some(())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::fmt::Debug for Datagram {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, to, len, .. } = self;
        write!(out, "Datagram({from} to {to}, {len} bytes)")
    }
}

/// What the worker is to do. Orders are obeyed in their order.
#[derive(Debug)]
pub enum Order {
    /// Open packets with that SPI. One with the same SPI is replaced.
    InstallIn(Box<InboundSa>),
    /// Have that SA ready. It seals nothing before [`Self::Use`].
    InstallOut(Box<OutboundSa>),
    /// From now on seal packets to that endpoint with the SA of that SPI: that of the newest
    /// outbound policy.
    Use {
        /// The endpoint.
        peer: IpAddr,
        /// The SPI, which must be installed.
        spi: u32,
    },
    /// Encapsulate in UDP between other ports from now on, or no more.
    Encapsulate {
        /// The direction of the SA.
        direction: Direction,
        /// The peer's endpoint.
        peer: IpAddr,
        /// The SPI.
        spi: u32,
        /// The ports.
        ports: Option<UdpPorts>,
    },
    /// Forget that SA, and hand it back.
    Remove {
        /// The direction.
        direction: Direction,
        /// The peer's endpoint.
        peer: IpAddr,
        /// The SPI.
        spi: u32,
    },
    /// Forget all SAs. From this order on no packet of a peer that requires IPsec passes.
    Wipe,
    /// Send that IKE datagram, to a peer's endpoint.
    Send(Box<Datagram>),
}

/// What the worker has noticed.
#[derive(Debug)]
pub enum Notice {
    /// A packet for that endpoint found no SA: at most once a second for each.
    Acquire {
        /// The endpoint.
        peer: IpAddr,
    },
    /// An SA reached a soft limit: another should take its place.
    Soft {
        /// Its direction.
        direction: Direction,
        /// The peer's endpoint.
        peer: IpAddr,
        /// Its SPI.
        spi: u32,
    },
    /// An SA has ended: it reached a hard limit or used all sequence numbers, or there was no room
    /// for it. It is handed back without an order.
    Hard {
        /// Its direction.
        direction: Direction,
        /// The peer's endpoint.
        peer: IpAddr,
        /// Its SPI.
        spi: u32,
    },
    /// An IKE datagram came from a peer's endpoint. Give the box back by [`Channel::give_blank`].
    Ike(Box<Datagram>),
}

/// What the worker no longer uses, to be dropped: that wipes keys.
#[derive(Debug)]
pub enum Retired {
    /// An SA.
    In(Box<InboundSa>),
    /// An SA.
    Out(Box<OutboundSa>),
    /// A datagram that was sent, or could not be.
    Datagram(Box<Datagram>),
}

/// Joins a worker and the thread that negotiates keys for it.
#[derive(Debug)]
pub struct Channel {
    orders: ArrayQueue<Order>,
    retired: ArrayQueue<Retired>,
    notices: ArrayQueue<Notice>,
    blanks: ArrayQueue<Box<Datagram>>,
    /// Something was noticed or handed back since the worker last asked.
    noticed: AtomicBool,
    /// The pipeline's clock when it last ran its timers, in nanoseconds.
    polled_ns: Counter,
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            orders: ArrayQueue::new(ORDERS),
            // Also what expires, and what an order replaces.
            retired: ArrayQueue::new(2 * ORDERS),
            notices: ArrayQueue::new(NOTICES),
            blanks: ArrayQueue::new(DATAGRAMS),
            noticed: AtomicBool::new(false),
            polled_ns: Counter::default(),
        }
    }
}

/// The side of the thread that negotiates.
impl Channel {
    /// Gives an order. The worker must then be woken.
    ///
    /// # Errors
    /// The order itself, if too many wait.
    pub fn order(&self, order: Order) -> Result<(), Order> {
        self.orders.push(order)
    }

    /// The oldest notice.
    pub fn notice(&self) -> Option<Notice> {
        self.notices.pop()
    }

    /// Something that the worker no longer uses.
    pub fn retired(&self) -> Option<Retired> {
        self.retired.pop()
    }

    /// Gives the worker room for one more IKE datagram; without any, all are dropped. Those that
    /// are too many are freed.
    pub fn give_blank(&self, blank: Box<Datagram>) {
        drop(self.blanks.push(blank));
    }

    /// Gives the worker as much room for IKE datagrams as it may have.
    pub fn give_blanks(&self) {
        while !self.blanks.is_full() {
            self.give_blank(Datagram::blank());
        }
    }

    /// The pipeline's clock when it last ran its timers, in nanoseconds: at most 0.2 s ago.
    pub fn polled_ns(&self) -> u64 {
        self.polled_ns.get()
    }
}

/// The worker's side.
impl Channel {
    /// Orders that are obeyed at once.
    pub(crate) const ORDERS: usize = ORDERS;

    /// The next order, if what it hands back would find room.
    pub(crate) fn take_order(&self) -> Option<Order> {
        // An order hands back one thing at most, and nobody else fills this queue.
        if self.retired.is_full() {
            return None;
        }
        self.orders.pop()
    }

    /// Whether an order waits for which there is room.
    pub(crate) fn has_orders(&self) -> bool {
        !self.orders.is_empty() && !self.retired.is_full()
    }

    pub(crate) fn has_room_to_retire(&self) -> bool {
        !self.retired.is_full()
    }

    /// Hands something back. The caller has made sure that there is room; without any it would be
    /// freed here.
    pub(crate) fn retire(&self, retired: Retired) {
        drop(self.retired.push(retired));
        self.noticed.store(true, Ordering::Relaxed);
    }

    /// Says something; false if the notice is lost.
    pub(crate) fn notify(&self, notice: Notice) -> bool {
        self.noticed.store(true, Ordering::Relaxed);
        self.notices.push(notice).is_ok()
    }

    /// Passes on an IKE datagram; false if there is no room for it.
    pub(crate) fn punt(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> bool {
        let Some(mut blank) = self.blanks.pop() else {
            return false;
        };
        if blank.write(from, to, bytes).is_none() {
            drop(self.blanks.push(blank));
            return false;
        }
        match self.notices.push(Notice::Ike(blank)) {
            Ok(()) => {
                self.noticed.store(true, Ordering::Relaxed);
                true
            }
            Err(Notice::Ike(blank)) => {
                drop(self.blanks.push(blank));
                false
            }
            Err(_) => false,
        }
    }

    /// Whether the other thread has something to take out that it has not been woken for. To be
    /// called by the worker, which then wakes it.
    #[inline]
    pub fn take_noticed(&self) -> bool {
        let noticed = self.noticed.load(Ordering::Relaxed);
        if noticed {
            self.noticed.store(false, Ordering::Relaxed);
        }
        noticed
    }

    pub(crate) fn polled(&self, now_ns: u64) {
        self.polled_ns.set(now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notice_wakes_once() {
        let channel = Channel::default();
        assert!(!channel.take_noticed());
        let peer = IpAddr::from([192, 0, 2, 66]);
        assert!(channel.notify(Notice::Acquire { peer }));
        assert!(channel.take_noticed());
        assert!(!channel.take_noticed());
        channel.retire(Retired::Datagram(Datagram::blank()));
        assert!(channel.take_noticed());
        assert!(!channel.take_noticed());
    }

    #[test]
    fn order_waits_for_room() {
        let channel = Channel::default();
        assert!(!channel.has_orders());
        channel.order(Order::Wipe).expect("room for an order");
        assert!(channel.has_orders());
        for _ in 0..2 * ORDERS {
            channel.retire(Retired::Datagram(Datagram::blank()));
        }
        assert!(!channel.has_orders() && channel.take_order().is_none());
        assert!(channel.retired().is_some());
        assert!(channel.has_orders() && channel.take_order().is_some());
        assert!(!channel.has_orders());
    }

    #[test]
    fn clock_is_that_of_the_last_poll() {
        let channel = Channel::default();
        for now_ns in [5, 70] {
            channel.polled(now_ns);
            assert_eq!(channel.polled_ns(), now_ns);
        }
    }
}
