//! What two ends agree on, and what it adds to a packet.

use std::fmt;

use crate::{HEADER_LEN, ICV_LEN, TRAILER_LEN};

/// The algorithms of an SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// AES-128-GCM with a 16-byte ICV (RFC 4106).
    Aes128Gcm16,
    /// AES-256-GCM with a 16-byte ICV (RFC 4106).
    Aes256Gcm16,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-256-CBC (RFC 3602) with HMAC-SHA2-256-128 (RFC 4868).
    Aes256CbcSha256,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Self; 4] = [
        Self::Aes128Gcm16,
        Self::Aes256Gcm16,
        Self::ChaCha20Poly1305,
        Self::Aes256CbcSha256,
    ];
    /// Bytes that an AEAD's key has behind it: the constant part of the nonce.
    pub(crate) const SALT_LEN: usize = 4;

    /// The name, which is strongSwan's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm16 => "aes128gcm16",
            Self::Aes256Gcm16 => "aes256gcm16",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
            Self::Aes256CbcSha256 => "aes256-sha256",
        }
    }

    /// The suite of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }

    /// Bytes of keying material for encryption; of an AEAD with the four bytes of salt at its end.
    pub const fn encryption_key_len(self) -> usize {
        match self {
            Self::Aes128Gcm16 => 16 + Self::SALT_LEN,
            Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => 32 + Self::SALT_LEN,
            Self::Aes256CbcSha256 => 32,
        }
    }

    /// Bytes of keying material for integrity; 0 for an AEAD.
    pub const fn integrity_key_len(self) -> usize {
        match self {
            Self::Aes256CbcSha256 => 32,
            _ => 0,
        }
    }

    /// Bytes of the IV in each packet.
    pub const fn iv_len(self) -> usize {
        match self {
            Self::Aes256CbcSha256 => 16,
            _ => 8,
        }
    }

    /// Payload, padding and trailer are a multiple of so many bytes: a power of two.
    pub const fn alignment(self) -> usize {
        match self {
            Self::Aes256CbcSha256 => 16,
            _ => 4,
        }
    }

    /// Where the payload begins in an ESP packet.
    pub const fn payload_at(self) -> usize {
        HEADER_LEN + self.iv_len()
    }

    /// Bytes of the ESP packet around a payload of `payload` bytes.
    pub const fn sealed_len(self, payload: usize) -> usize {
        // The processor would divide for `next_multiple_of`, twice a packet.
        let mask = self.alignment() - 1;
        let text = (payload + TRAILER_LEN + mask) & !mask;
        self.payload_at() + text + ICV_LEN
    }

    /// Whether a text has a length that the suite can have.
    pub(crate) const fn is_aligned(self, text: usize) -> bool {
        text & (self.alignment() - 1) == 0
    }

    /// The longest payload of an ESP packet of at most `room` bytes.
    pub const fn max_payload(self, room: usize) -> usize {
        let text = room.saturating_sub(self.payload_at() + ICV_LEN);
        (text & !(self.alignment() - 1)).saturating_sub(TRAILER_LEN)
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_payload_fits_and_one_byte_more_does_not() {
        for suite in Suite::ALL {
            for room in 40..200 {
                let longest = suite.max_payload(room);
                assert!(
                    longest == 0 || suite.sealed_len(longest) <= room,
                    "{suite} {room}"
                );
                assert!(suite.sealed_len(longest + 1) > room, "{suite} {room}");
            }
        }
    }

    #[test]
    fn lengths_are_those_of_the_standards() {
        // A payload of 58 bytes, as the Linux kernel sends it with each suite.
        let lens = Suite::ALL.map(|suite| suite.sealed_len(58));
        assert_eq!(lens, [92, 92, 92, 104]);
    }
}
