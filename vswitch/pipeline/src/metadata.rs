//! What the thread that serves metadata and the worker say to each other, without a lock: packets,
//! in memory that goes round between them.
//!
//! A packet has the MAC of its VM with it, not the number of its port: that is another's after a
//! new configuration, which the thread and the worker do not go by at the same moment.
//!
//! Each box belongs to one of two cycles, whose queues have room for all of its boxes. So nothing
//! is allocated, freed or lost, whatever a VM sends.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;

/// The longest packet, either way: what the service says that it takes (TCP's MSS) is made from
/// this.
pub const PACKET_MAX: usize = 1500;
/// Packets that may wait for the thread, and for the worker.
const PACKETS: usize = 64;

/// A packet of IPv4 or IPv6, and the MAC of the VM that it came from or goes to.
pub struct Packet {
    station: [u8; 6],
    len: usize,
    bytes: [u8; PACKET_MAX],
}

impl Packet {
    fn blank() -> Box<Self> {
        Box::new(Self {
            station: [0; 6],
            len: 0,
            bytes: [0; PACKET_MAX],
        })
    }

    /// The MAC of the VM that it came from, or goes to.
    pub fn station(&self) -> [u8; 6] {
        self.station
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn write(&mut self, station: [u8; 6], bytes: &[u8]) -> Option<()> {
        self.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        (self.station, self.len) = (station, bytes.len());
        Some(())
    }
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Packet({:02x?}, {} bytes)", self.station, self.len)
    }
}

/// One direction: packets that wait, and boxes that are free.
#[derive(Debug)]
struct Way {
    packets: ArrayQueue<Box<Packet>>,
    blanks: ArrayQueue<Box<Packet>>,
}

impl Way {
    fn new() -> Self {
        Self {
            packets: ArrayQueue::new(PACKETS),
            blanks: ArrayQueue::new(PACKETS),
        }
    }

    fn give_blanks(&self) {
        while self.blanks.push(Packet::blank()).is_ok() {}
    }

    /// Sends a packet; false if it is too long, or too many wait.
    fn send(&self, station: [u8; 6], bytes: &[u8]) -> bool {
        let Some(mut packet) = self.blanks.pop() else {
            return false;
        };
        let way = match packet.write(station, bytes) {
            Some(()) => &self.packets,
            None => &self.blanks,
        };
        // It has room for every box.
        way.push(packet).is_ok() && bytes.len() <= PACKET_MAX
    }

    /// Passes the oldest packet to `take`; false if there is none.
    fn receive(&self, take: impl FnOnce(&Packet)) -> bool {
        let Some(packet) = self.packets.pop() else {
            return false;
        };
        take(&packet);
        drop(self.blanks.push(packet));
        true
    }
}

/// Joins a worker and the thread that serves metadata.
#[derive(Debug)]
pub struct Channel {
    requests: Way,
    answers: Way,
    /// A packet was passed on since the worker last asked.
    noticed: AtomicBool,
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            requests: Way::new(),
            answers: Way::new(),
            noticed: AtomicBool::new(false),
        }
    }
}

/// The side of the thread that serves.
impl Channel {
    /// Makes room for packets, once; without any, all are dropped.
    pub fn give_blanks(&self) {
        self.requests.give_blanks();
        self.answers.give_blanks();
    }

    /// Passes the oldest packet of a VM to `take`; false if there is none.
    pub fn request(&self, take: impl FnOnce(&Packet)) -> bool {
        self.requests.receive(take)
    }

    /// Sends a packet to a VM; false if it is too long, or too many wait. The worker must then be
    /// woken.
    pub fn answer(&self, station: [u8; 6], bytes: &[u8]) -> bool {
        self.answers.send(station, bytes)
    }
}

/// The worker's side.
impl Channel {
    /// Packets that are sent at once.
    pub(crate) const PACKETS: usize = PACKETS;

    /// Passes on a VM's packet; false if there is no room for it.
    pub(crate) fn punt(&self, station: [u8; 6], bytes: &[u8]) -> bool {
        let passed = self.requests.send(station, bytes);
        if passed {
            self.noticed.store(true, Ordering::Relaxed);
        }
        passed
    }

    /// Passes the oldest answer to `take`; false if there is none.
    pub(crate) fn take_answer(&self, take: impl FnOnce(&Packet)) -> bool {
        self.answers.receive(take)
    }

    /// Whether an answer waits.
    pub(crate) fn has_answers(&self) -> bool {
        !self.answers.packets.is_empty()
    }

    /// Whether the thread has a packet that it has not been woken for. To be called by the worker,
    /// which then wakes it.
    #[inline]
    pub fn take_noticed(&self) -> bool {
        let noticed = self.noticed.load(Ordering::Relaxed);
        if noticed {
            self.noticed.store(false, Ordering::Relaxed);
        }
        noticed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_go_round() {
        let channel = Channel::default();
        assert!(!channel.punt([2; 6], &[0; 40]) && !channel.answer([2; 6], &[0; 40]));
        channel.give_blanks();
        for turn in 0..1_000_u16 {
            let [high, low] = turn.to_be_bytes();
            let station = [2, 0, 0, 0, high, low];
            assert!(channel.punt(station, &[low; 40]));
            assert!(channel.take_noticed() && !channel.take_noticed());
            let took = channel.request(|packet| {
                assert_eq!(packet.station(), station);
                assert_eq!(packet.bytes(), [low; 40]);
            });
            assert!(took && !channel.request(|_| ()));
        }
    }

    #[test]
    fn too_many_and_too_long_are_refused() {
        let channel = Channel::default();
        channel.give_blanks();
        assert!(!channel.punt([2; 6], &[0; PACKET_MAX + 1]));
        for _ in 0..PACKETS {
            assert!(channel.punt([2; 6], &[0; PACKET_MAX]));
        }
        assert!(!channel.punt([2; 6], &[0; 40]));
        assert!(channel.request(|_| ()));
        assert!(channel.punt([2; 6], &[0; 40]));
    }
}
