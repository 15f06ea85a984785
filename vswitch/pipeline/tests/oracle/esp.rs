//! ESP (RFC 4303) as a peer speaks it: other libraries for the ciphers than the switch's, and
//! packets put together here, so that each part of them can be wrong on purpose.

use aes::Aes256;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes_gcm::aead::{Aead, Nonce, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;
use hmac::{Hmac, Mac};
use pipeline::ipsec::{Keys, Suite};
use sha2::Sha256;
use tenant_config::IpsecSuite;

/// Bytes of the SPI and the sequence number.
const HEADER: usize = 8;
/// Bytes of the ICV, of every suite.
const ICV: usize = 16;
const BLOCK: usize = 16;

/// The keys of an SA.
#[derive(Debug, Clone)]
pub(crate) struct Secret {
    pub(crate) suite: IpsecSuite,
    encryption: Vec<u8>,
    integrity: Vec<u8>,
}

/// What protects a packet beside its text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) spi: u32,
    /// All of it; the lower half is sent.
    pub(crate) sequence: u64,
    pub(crate) esn: bool,
}

impl Numbers {
    /// SPI and sequence number as they are sent.
    fn sent(self) -> Vec<u8> {
        let low = self.sequence as u32;
        [self.spi.to_be_bytes(), low.to_be_bytes()].concat()
    }

    /// The upper half, if it is protected.
    fn high(self) -> Vec<u8> {
        let high = (self.sequence >> 32) as u32;
        match self.esn {
            true => high.to_be_bytes().to_vec(),
            false => Vec::new(),
        }
    }

    /// RFC 4106, section 5: "8 or 12" bytes.
    fn associated(self) -> Vec<u8> {
        let low = self.sequence as u32;
        [
            &self.spi.to_be_bytes()[..],
            &self.high(),
            &low.to_be_bytes(),
        ]
        .concat()
    }
}

impl Secret {
    /// Keys that differ with `seed`.
    pub(crate) fn new(suite: IpsecSuite, seed: u8) -> Self {
        let (encryption, integrity) = match suite {
            IpsecSuite::Aes128Gcm16 => (20, 0),
            IpsecSuite::Aes256Gcm16 | IpsecSuite::ChaCha20Poly1305 => (36, 0),
            IpsecSuite::Aes256Sha256 => (32, 32),
        };
        let bytes = |len: u8| (0..len).map(|at| at.wrapping_mul(7) ^ seed).collect();
        Self {
            suite,
            encryption: bytes(encryption),
            integrity: bytes(integrity),
        }
    }

    /// The same for the switch.
    pub(crate) fn keys(&self) -> Keys {
        let suite = match self.suite {
            IpsecSuite::Aes128Gcm16 => Suite::Aes128Gcm16,
            IpsecSuite::Aes256Gcm16 => Suite::Aes256Gcm16,
            IpsecSuite::ChaCha20Poly1305 => Suite::ChaCha20Poly1305,
            IpsecSuite::Aes256Sha256 => Suite::Aes256CbcSha256,
        };
        Keys::new(suite, &self.encryption, &self.integrity).expect("keys")
    }

    /// The bytes of an IV, and what text is aligned to.
    pub(crate) fn lengths(suite: IpsecSuite) -> (usize, usize) {
        match suite {
            IpsecSuite::Aes256Sha256 => (16, 16),
            _ => (8, 4),
        }
    }

    /// The text of that payload: padding, its length and the next header behind it.
    pub(crate) fn text(&self, payload: &[u8], next_header: u8) -> Vec<u8> {
        let (_, alignment) = Self::lengths(self.suite);
        let mut text = payload.to_vec();
        let padding = (payload.len() + 2).next_multiple_of(alignment) - payload.len() - 2;
        text.extend(1..=padding as u8);
        text.extend([padding as u8, next_header]);
        text
    }

    /// The IV of a packet: "of an AEAD the sequence number, of CBC the encrypted sequence number".
    pub(crate) fn iv(&self, sequence: u64) -> Vec<u8> {
        let number = sequence.to_be_bytes();
        match self.suite {
            IpsecSuite::Aes256Sha256 => {
                let mut block = [[0; 8], number].concat();
                self.block().encrypt_block(block_of(&mut block));
                block
            }
            _ => number.to_vec(),
        }
    }

    /// An ESP packet around a whole text.
    pub(crate) fn seal(&self, numbers: Numbers, text: &[u8]) -> Vec<u8> {
        let iv = self.iv(numbers.sequence);
        let mut packet = [numbers.sent(), iv.clone()].concat();
        match self.suite {
            IpsecSuite::Aes256Sha256 => {
                let mut before = iv;
                for chunk in text.chunks(BLOCK) {
                    let mut block: Vec<u8> =
                        chunk.iter().zip(&before).map(|(a, b)| a ^ b).collect();
                    self.block().encrypt_block(block_of(&mut block));
                    packet.extend(&block);
                    before = block;
                }
                let mac = self.mac(numbers, &packet);
                packet.extend(mac);
            }
            _ => packet.extend(self.aead(numbers, &iv, text, true).expect("a short text")),
        }
        packet
    }

    /// The text of an ESP packet that somebody with these keys sealed under these numbers.
    pub(crate) fn open(&self, numbers: Numbers, packet: &[u8]) -> Option<Vec<u8>> {
        let (iv_len, alignment) = Self::lengths(self.suite);
        let (iv, sealed) = packet.get(HEADER..)?.split_at_checked(iv_len)?;
        let text = sealed.len().checked_sub(ICV)?;
        if packet[..HEADER] != numbers.sent() || text % alignment != 0 {
            return None;
        }
        if self.suite != IpsecSuite::Aes256Sha256 {
            return self.aead(numbers, iv, sealed, false);
        }
        let (protected, icv) = packet.split_at(packet.len() - ICV);
        if self.mac(numbers, protected) != icv {
            return None;
        }
        let mut before = iv.to_vec();
        let mut opened = Vec::new();
        for chunk in sealed[..text].chunks(BLOCK) {
            let mut block = chunk.to_vec();
            self.block().decrypt_block(block_of(&mut block));
            opened.extend(block.iter().zip(&before).map(|(a, b)| a ^ b));
            before = chunk.to_vec();
        }
        Some(opened)
    }

    fn block(&self) -> Aes256 {
        Aes256::new_from_slice(&self.encryption).expect("the key's length")
    }

    /// HMAC-SHA2-256-128, "or 4 bytes at the end of the MAC's input".
    fn mac(&self, numbers: Numbers, protected: &[u8]) -> Vec<u8> {
        let mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&self.integrity);
        let mut mac = mac.expect("a key of any length");
        mac.update(protected);
        mac.update(&numbers.high());
        mac.finalize().into_bytes()[..ICV].to_vec()
    }

    /// Encrypts or decrypts, the tag behind the text.
    fn aead(&self, numbers: Numbers, iv: &[u8], msg: &[u8], seal: bool) -> Option<Vec<u8>> {
        fn with<C: KeyInit + Aead>(
            key: &[u8],
            nonce: &[u8],
            payload: Payload<'_, '_>,
            seal: bool,
        ) -> Option<Vec<u8>> {
            let cipher = C::new_from_slice(key).expect("the key's length");
            let nonce = Nonce::<C>::try_from(nonce).expect("the nonce's length");
            let done = match seal {
                true => cipher.encrypt(&nonce, payload),
                false => cipher.decrypt(&nonce, payload),
            };
            done.ok()
        }
        let (key, salt) = self.encryption.split_at(self.encryption.len() - 4);
        let nonce = [salt, iv].concat();
        let aad = &numbers.associated();
        let payload = Payload { msg, aad };
        match self.suite {
            IpsecSuite::Aes128Gcm16 => with::<Aes128Gcm>(key, &nonce, payload, seal),
            IpsecSuite::Aes256Gcm16 => with::<Aes256Gcm>(key, &nonce, payload, seal),
            _ => with::<ChaCha20Poly1305>(key, &nonce, payload, seal),
        }
    }
}

fn block_of(bytes: &mut [u8]) -> &mut aes::Block {
    bytes.try_into().expect("one block")
}
