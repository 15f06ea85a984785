//! The secret of one start of the switch.

use std::fmt;
use std::net::IpAddr;

use packet::hash::Key;
use sha2::{Digest, Sha256};

/// The secret from which the UDP source ports of tunnel packets are made, so that only who sees a
/// packet can quote it, and the ports and IDs of queries to resolvers. It lasts from start to end:
/// a new configuration keeps every flow's port.
#[derive(Clone)]
pub struct FlowSecret([u8; 32]);

impl FlowSecret {
    /// No secret: what replays, traces, tests and benchmarks use, to be the same each time.
    pub const PUBLIC: Self = Self([0; 32]);

    /// The secret made of random bytes.
    pub const fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// The numbers of the draw of that number, which nobody foretells who lacks the secret. Unlike
    /// what keys are made from, what is hashed for them has the length of no address.
    pub(crate) fn draw(&self, number: u64) -> [u16; 16] {
        let digest = Sha256::new().chain_update(self.0);
        let digest = digest.chain_update(number.to_be_bytes()).finalize();
        let bytes = <[u8; 32]>::from(digest);
        let (words, _) = bytes.as_chunks::<2>();
        std::array::from_fn(|at| u16::from_be_bytes(words[at]))
    }

    /// The key for packets to an endpoint. Who sees those packets learns nothing about the packets
    /// to others.
    pub(crate) fn key(&self, endpoint: IpAddr) -> Key {
        let digest = Sha256::new().chain_update(self.0);
        let digest = match endpoint {
            IpAddr::V4(ip) => digest.chain_update(ip.octets()),
            IpAddr::V6(ip) => digest.chain_update(ip.octets()),
        };
        let bytes = <[u8; 32]>::from(digest.finalize());
        let (words, _) = bytes.as_chunks::<8>();
        Key::new([words[0], words[1]].map(u64::from_be_bytes))
    }
}

/// Without the secret.
impl fmt::Debug for FlowSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlowSecret(..)")
    }
}
