//! The frames of a load, written and recognised.
//!
//! A frame is UDP over IPv4. Its payload identifies it:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 42 | 2 | [`MARK`] |
//! | 44 | 1 | path |
//! | 45 | 1 | hop |
//! | 46 | 4 | flow |
//! | 50 | 4 | number within the flow |
//! | 54 | 6 | time of sending: the time stamp counter's lower 48 bits |
//! | 60 | … | a pattern, the same in every frame |

use packet::wire::{ETHERNET_LEN, checksum};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::network::Hop;
use crate::udp::headers4;

/// Bytes of the Ethernet, IPv4 and UDP headers.
pub(super) const HEADERS: usize = 42;
/// The offset of the pattern: the length of the shortest frame.
pub(super) const PATTERN: usize = 60;
/// Bytes of the frame check sequence, which devices add.
const CHECK_SEQUENCE: u16 = 4;
const MARK: [u8; 2] = [0x6d, 0x74];
const TIME_BITS: u32 = 48;

/// The last bytes of every attack frame.
pub const ATTACK_MARK: [u8; 4] = *b"evil";

/// The frames of a path.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Shape {
    /// The size of a frame, with the frame check sequence of 4 bytes that is not in memory: from 64
    /// to 1518.
    pub bytes: u16,
    /// The number of flows, which take turns in an order that the seed decides.
    pub flows: u32,
    /// The seed of the flows' order and ports.
    pub seed: u64,
}

impl Shape {
    /// The length in memory.
    pub(super) fn len(self) -> usize {
        usize::from(self.bytes - CHECK_SEQUENCE).max(PATTERN)
    }

    /// The order in which the flows take turns.
    pub(super) fn order(self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.flows).collect();
        order.shuffle(&mut StdRng::seed_from_u64(self.seed));
        order
    }

    /// The end of every frame.
    pub(super) fn pattern(self) -> Vec<u8> {
        (PATTERN..self.len())
            .map(|at| (at * 31 + 7) as u8)
            .collect()
    }

    /// The headers of each flow on a hop.
    pub(super) fn headers(self, hop: &Hop) -> Vec<[u8; HEADERS]> {
        let mut random = StdRng::seed_from_u64(self.seed);
        (0..self.flows)
            .map(|flow| {
                // The same ports on every hop.
                let ports = (
                    random.random_range(10_000..60_000),
                    random.random_range(10_000..60_000),
                );
                let macs = (hop.destination_mac, hop.source_mac);
                let ends = (hop.source.of(flow), hop.destination.of(flow));
                headers4(macs, ends, ports, (self.len() - ETHERNET_LEN) as u16)
            })
            .collect()
    }
}

/// The identity of a frame, in its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) path: u8,
    pub(super) hop: u8,
    pub(super) flow: u32,
    pub(super) number: u32,
    /// 48 bits of the time stamp counter.
    pub(super) sent: u64,
}

impl Tag {
    /// Writes a whole frame.
    #[inline]
    pub(super) fn write(self, headers: &[u8; HEADERS], pattern: &[u8], frame: &mut [u8]) {
        frame[..HEADERS].copy_from_slice(headers);
        let words = &mut frame[HEADERS..PATTERN];
        words[..2].copy_from_slice(&MARK);
        words[2] = self.path;
        words[3] = self.hop;
        words[4..8].copy_from_slice(&self.flow.to_le_bytes());
        words[8..12].copy_from_slice(&self.number.to_le_bytes());
        words[12..].copy_from_slice(&self.sent.to_le_bytes()[..6]);
        frame[PATTERN..].copy_from_slice(pattern);
    }

    /// Rewrites a frame for its next hop.
    #[inline]
    pub(super) fn forward(hop: u8, headers: &[u8; HEADERS], frame: &mut [u8]) {
        frame[..HEADERS].copy_from_slice(headers);
        frame[HEADERS + 3] = hop;
    }

    /// Reads the identity of a frame; `None` if it is not a load's.
    #[inline]
    pub(super) fn read(frame: &[u8]) -> Option<Self> {
        let words: &[u8; PATTERN - HEADERS] = frame.get(HEADERS..PATTERN)?.try_into().ok()?;
        if words[..2] != MARK {
            return None;
        }
        let word = |at: usize| {
            u32::from_le_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]])
        };
        Some(Self {
            path: words[2],
            hop: words[3],
            flow: word(4),
            number: word(8),
            sent: u64::from(word(12)) | u64::from(words[16]) << 32 | u64::from(words[17]) << 40,
        })
    }

    /// Cycles since the frame was sent.
    #[inline]
    pub(super) fn age(self, now: u64) -> u64 {
        now.wrapping_sub(self.sent) & ((1 << TIME_BITS) - 1)
    }
}

/// Whether a frame came out of the switch intact: the fields that a router may change (MACs, TTL,
/// checksum) are valid, and all others are unchanged.
#[inline]
pub(super) fn intact(frame: &[u8], sent: &[u8; HEADERS], pattern: &[u8]) -> bool {
    frame.len() == PATTERN + pattern.len()
        && frame[12..22] == sent[12..22]
        && frame[23] == sent[23]
        && frame[26..HEADERS] == sent[26..]
        && checksum::holds(&frame[14..34])
        && frame[PATTERN..] == *pattern
}

#[cfg(test)]
mod tests {
    use packet::wire::ipv4;

    use super::*;
    use crate::network::{Size, Topology, tenant};

    const SHAPE: Shape = Shape {
        bytes: 512,
        flows: 100,
        seed: 7,
    };

    fn frame() -> (Vec<u8>, [u8; HEADERS], Vec<u8>, Tag) {
        let config = tenant(0, Size::new(1, 1));
        let headers = SHAPE.headers(&Topology::P2p.path(&config)[0])[42];
        let pattern = SHAPE.pattern();
        let tag = Tag {
            path: 1,
            hop: 2,
            flow: 42,
            number: 0xdead_beef,
            sent: 0x1234_5678_9abc,
        };
        let mut frame = vec![0; SHAPE.len()];
        tag.write(&headers, &pattern, &mut frame);
        (frame, headers, pattern, tag)
    }

    #[test]
    fn written_frame_is_recognised() {
        let (frame, headers, pattern, tag) = frame();
        assert_eq!(frame.len(), 508);
        assert_eq!(Tag::read(&frame), Some(tag));
        assert_eq!(
            tag.age(0x1_1234_5678_9abc + 5),
            5,
            "the counter's upper bits do not matter"
        );
        assert!(intact(&frame, &headers, &pattern));
    }

    #[test]
    fn change_that_no_router_makes_is_detected() {
        let (frame, headers, pattern, _) = frame();
        // MACs, TTL with its checksum, and the identity, which `Tag::read` checks.
        let changeable = |at: usize| at < 12 || (HEADERS..PATTERN).contains(&at);
        for at in 0..frame.len() {
            let mut changed = frame.clone();
            changed[at] ^= 1;
            assert_eq!(
                intact(&changed, &headers, &pattern),
                changeable(at),
                "byte {at}"
            );
        }
        assert!(!intact(&frame[..507], &headers, &pattern), "cut off");
        let mut routed = frame;
        ipv4::decrement_ttl(&mut routed, 64);
        assert!(intact(&routed, &headers, &pattern), "a hop less");
    }

    #[test]
    fn seed_decides_ports_and_order() {
        let hop = &Topology::P2p.path(&tenant(0, Size::new(1, 1)))[0];
        let other = Shape { seed: 8, ..SHAPE };
        assert_eq!(SHAPE.order(), SHAPE.order());
        assert_ne!(SHAPE.order(), other.order());
        assert_eq!(SHAPE.headers(hop), SHAPE.headers(hop));
        assert_ne!(SHAPE.headers(hop), other.headers(hop));
    }
}
