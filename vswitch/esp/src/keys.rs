//! Secret keying material.

use std::fmt;

use zeroize::Zeroizing;

use crate::Suite;

/// The keys of one SA. They are not printed and not serialised, and wiped when dropped.
#[derive(Clone)]
pub struct Keys {
    suite: Suite,
    encryption: Zeroizing<Box<[u8]>>,
    integrity: Zeroizing<Box<[u8]>>,
}

/// Why bytes are no keys. It does not contain any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The encryption key has another length.
    #[error("the encryption key of {suite} has {wanted} bytes, not {got}")]
    Encryption {
        /// Whose keys they should be.
        suite: Suite,
        /// The bytes that it takes.
        wanted: usize,
        /// The bytes that there were.
        got: usize,
    },
    /// The integrity key has another length.
    #[error("the integrity key of {suite} has {wanted} bytes, not {got}")]
    Integrity {
        /// Whose keys they should be.
        suite: Suite,
        /// The bytes that it takes.
        wanted: usize,
        /// The bytes that there were.
        got: usize,
    },
}

impl Keys {
    /// Keys as IKE derives them (RFC 7296, section 2.17): an AEAD's salt is the end of its
    /// encryption key (RFC 4106, section 8.1), and its integrity key is empty. The caller wipes
    /// what it passed.
    ///
    /// # Errors
    /// If a key has not the length that the suite takes.
    pub fn new(suite: Suite, encryption: &[u8], integrity: &[u8]) -> Result<Self, KeyError> {
        let (wanted, got) = (suite.encryption_key_len(), encryption.len());
        if got != wanted {
            return Err(KeyError::Encryption { suite, wanted, got });
        }
        let (wanted, got) = (suite.integrity_key_len(), integrity.len());
        if got != wanted {
            return Err(KeyError::Integrity { suite, wanted, got });
        }
        Ok(Self {
            suite,
            encryption: Zeroizing::new(encryption.into()),
            integrity: Zeroizing::new(integrity.into()),
        })
    }

    /// The suite that they are for.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The encryption key without its salt, and the salt, which is empty for CBC.
    pub(crate) fn cipher(&self) -> (&[u8], &[u8]) {
        let salt = match self.suite {
            Suite::Aes256CbcSha256 => 0,
            _ => Suite::SALT_LEN,
        };
        self.encryption.split_at(self.encryption.len() - salt)
    }

    pub(crate) fn integrity(&self) -> &[u8] {
        &self.integrity
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Keys")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_key_byte() {
        let keys = Keys::new(Suite::Aes256CbcSha256, &[0xab; 32], &[0xcd; 32]);
        let text = format!("{:?}", keys.expect("keys"));
        assert_eq!(text, "Keys { suite: Aes256CbcSha256, .. }");
    }

    #[test]
    fn keys_of_another_length_are_refused() {
        for suite in Suite::ALL {
            let (encryption, integrity) = (suite.encryption_key_len(), suite.integrity_key_len());
            let new = |encryption: usize, integrity: usize| {
                Keys::new(suite, &vec![1; encryption], &vec![2; integrity]).map(|_| ())
            };
            assert_eq!(new(encryption, integrity), Ok(()));
            for got in [0, encryption - 4, encryption - 1, encryption + 1] {
                let wanted = encryption;
                let error = KeyError::Encryption { suite, wanted, got };
                assert_eq!(new(got, integrity), Err(error));
            }
            let (wanted, got) = (integrity, integrity + 1);
            let error = KeyError::Integrity { suite, wanted, got };
            assert_eq!(new(encryption, got), Err(error));
        }
    }
}
