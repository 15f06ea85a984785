//! The libraries behind a small trait.

mod aead;
mod cbc;

use crate::keys::Keys;
use crate::suite::Suite;

/// What a packet's protection depends on, beside its text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) spi: u32,
    /// The whole sequence number, of which the lower half is sent.
    pub(crate) sequence: u64,
    /// Whether the upper half is protected too.
    pub(crate) esn: bool,
}

impl Numbers {
    /// The upper half of the sequence number, if it is protected.
    fn high(&self) -> Option<[u8; 4]> {
        self.esn
            .then(|| ((self.sequence >> 32) as u32).to_be_bytes())
    }
}

/// A whole ESP packet of the suite's lengths that has everything but IV, ciphertext and ICV.
pub(crate) struct Unsealed<'p> {
    pub(crate) numbers: Numbers,
    pub(crate) bytes: &'p mut [u8],
}

impl Default for Unsealed<'_> {
    /// One without a byte.
    fn default() -> Self {
        let numbers = Numbers {
            spi: 0,
            sequence: 0,
            esn: false,
        };
        let bytes = &mut [];
        Self { numbers, bytes }
    }
}

/// The ICV is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forged;

/// Encryption and integrity of whole ESP packets in place. The SPI and the sequence number are
/// written; IV, ciphertext and ICV are the transform's.
pub(crate) trait Transform: Send + Sync {
    /// Encrypts. `packet` is a whole ESP packet with the suite's lengths.
    fn seal(&self, numbers: Numbers, packet: &mut [u8]);

    /// Encrypts packets, and may change their order.
    fn seal_together(&self, packets: &mut [Unsealed<'_>]) {
        for packet in packets {
            self.seal(packet.numbers, packet.bytes);
        }
    }

    /// Whether several packets together take less time than each by itself.
    fn gains_by_company(&self) -> bool {
        false
    }

    /// Verifies, and then decrypts. `packet` is at least as long as an empty payload's and its text
    /// is aligned. If the ICV is wrong, the text is worthless.
    fn open(&self, numbers: Numbers, packet: &mut [u8]) -> Result<(), Forged>;
}

/// The transform of these keys.
pub(crate) fn new(keys: &Keys) -> Box<dyn Transform> {
    match keys.suite() {
        Suite::Aes256CbcSha256 => Box::new(cbc::CbcHmac::new(keys)),
        Suite::Aes128Gcm16 => Box::new(aead::Aead::new(&ring::aead::AES_128_GCM, keys)),
        Suite::Aes256Gcm16 => Box::new(aead::Aead::new(&ring::aead::AES_256_GCM, keys)),
        Suite::ChaCha20Poly1305 => Box::new(aead::Aead::new(&ring::aead::CHACHA20_POLY1305, keys)),
    }
}
