//! The tokens of EC2's second version. A token says when it ends, and is signed with a secret of
//! the switch, so none is remembered: there is no table to fill.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::Station;

/// The longest life of a token, in seconds, as of EC2: six hours.
pub const TTL_MAX: u64 = 21_600;

/// Bytes of the moment at which a token ends, and of the signature.
const END_LEN: usize = 8;
const SIGNATURE_LEN: usize = 24;

/// The secret that signs tokens. It lasts from a switch's start to its end.
#[derive(Clone)]
pub struct Secret([u8; 32]);

/// Without the secret.
impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(..)")
    }
}

/// A token that is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// It is no token of this switch and VM.
    Foreign,
    /// It has ended.
    Ended,
}

impl Secret {
    /// The secret made of random bytes.
    pub const fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    fn signer(&self, station: Station, end: [u8; END_LEN]) -> Hmac<Sha256> {
        let signer = Hmac::<Sha256>::new_from_slice(&self.0);
        let mut signer = signer.expect("HMAC takes keys of any length");
        signer.update(b"metadata token");
        signer.update(&station);
        signer.update(&end);
        signer
    }

    /// A token of a port's VM that lasts `ttl` seconds.
    pub fn token(&self, station: Station, ttl: u64, now: Duration) -> String {
        let end = now.as_secs().saturating_add(ttl).to_be_bytes();
        let signature = self.signer(station, end).finalize().into_bytes();
        let mut token = [0; END_LEN + SIGNATURE_LEN];
        token[..END_LEN].copy_from_slice(&end);
        token[END_LEN..].copy_from_slice(&signature[..SIGNATURE_LEN]);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Checks a token that the VM shows.
    ///
    /// # Errors
    /// If it is another's, or has ended.
    pub fn check(&self, station: Station, token: &[u8], now: Duration) -> Result<(), TokenError> {
        let mut bytes = [0; END_LEN + SIGNATURE_LEN + 2];
        let len = URL_SAFE_NO_PAD.decode_slice(token, &mut bytes);
        let bytes = len.ok().and_then(|len| bytes.get(..len));
        let (end, signature) = bytes
            .and_then(|bytes| bytes.split_first_chunk::<END_LEN>())
            .filter(|(_, signature)| signature.len() == SIGNATURE_LEN)
            .ok_or(TokenError::Foreign)?;
        let signer = self.signer(station, *end);
        let verified = signer.verify_truncated_left(signature);
        verified.map_err(|_| TokenError::Foreign)?;
        match now.as_secs() < u64::from_be_bytes(*end) {
            true => Ok(()),
            false => Err(TokenError::Ended),
        }
    }

    /// What the sequence numbers for a VM begin with.
    pub(crate) fn seed(&self, station: Station) -> u64 {
        let digest = Sha256::new()
            .chain_update(b"metadata seed")
            .chain_update(self.0);
        let digest = digest.chain_update(station).finalize();
        digest.first_chunk().copied().map_or(0, u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_of_one_port_and_ends() {
        let secret = Secret::new([7; 32]);
        let at = Duration::from_secs;
        let token = secret.token([3; 6], 60, at(100));
        let check = |last, now| secret.check([last; 6], token.as_bytes(), at(now));
        assert_eq!(check(3, 100), Ok(()));
        assert_eq!(check(3, 159), Ok(()));
        assert_eq!(check(3, 160), Err(TokenError::Ended));
        assert_eq!(check(2, 100), Err(TokenError::Foreign));
        let other = Secret::new([8; 32]).check([3; 6], token.as_bytes(), at(100));
        assert_eq!(other, Err(TokenError::Foreign));
    }

    #[test]
    fn changed_tokens_are_foreign() {
        let secret = Secret::new([7; 32]);
        let token = secret.token([0; 6], 60, Duration::ZERO);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let judged = secret.check([0; 6], &changed, Duration::ZERO);
            assert_eq!(judged, Err(TokenError::Foreign), "byte {at}");
        }
        for len in 0..token.len() {
            let judged = secret.check([0; 6], &token.as_bytes()[..len], Duration::ZERO);
            assert_eq!(judged, Err(TokenError::Foreign), "{len} bytes");
        }
        let longer = format!("{token}AAAA");
        let judged = secret.check([0; 6], longer.as_bytes(), Duration::ZERO);
        assert_eq!(judged, Err(TokenError::Foreign));
    }
}
