//! X.509 certificates and lists of revoked ones, as far as an operator and the daemon must know
//! them: identity, expiry, fingerprint. The daemon itself judges them when a peer presents one.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, Pem, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use super::secret::{FileError, read_public};

/// What a file says of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// The file.
    pub file: PathBuf,
    /// Its subject, as RFC 4514 writes it.
    pub subject: String,
    /// The names that it speaks for besides.
    pub names: Vec<String>,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// SHA-256 of the whole, in hexadecimal.
    pub fingerprint: String,
    /// When it begins, in seconds since the epoch.
    pub not_before: i64,
    /// When it expires, in seconds since the epoch.
    pub not_after: i64,
    /// DER.
    #[serde(skip)]
    pub(super) der: Vec<u8>,
    /// What its public key is, for the comparison with a private one.
    #[serde(skip)]
    pub(super) public_key: Vec<u8>,
}

impl Certificate {
    /// The identity of IKE that it stands for: its first name, or its subject.
    pub fn identity(&self) -> &str {
        self.names.first().unwrap_or(&self.subject)
    }

    /// Reads a file in PEM or DER.
    ///
    /// # Errors
    /// If it cannot be read, others than root may change it, or it is no certificate.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let der = der(path, "CERTIFICATE")?;
        Self::parse(path, der)
    }

    fn parse(path: &Path, der: Vec<u8>) -> Result<Self, FileError> {
        let no = |error: &dyn std::fmt::Display| {
            FileError::new(path, format!("it is no X.509 certificate: {error}"))
        };
        let (rest, parsed) = X509Certificate::from_der(&der).map_err(|error| no(&error))?;
        if !rest.is_empty() {
            return Err(FileError::new(path, "something follows the certificate"));
        }
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| no(&error))?;
        let names = names
            .into_iter()
            .flat_map(|names| &names.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => Some((*name).to_owned()),
            _ => None,
        });
        let validity = parsed.validity();
        Ok(Self {
            file: path.to_owned(),
            subject: parsed.subject().to_string(),
            names: names.collect(),
            is_authority: parsed.is_ca(),
            fingerprint: hex(&Sha256::digest(&der)),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            public_key: parsed.public_key().raw.to_vec(),
            der: der.clone(),
        })
    }
}

/// What a file says of a list of revoked certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RevocationList {
    /// The file.
    pub file: PathBuf,
    /// Whose list it is.
    pub issuer: String,
    /// How many it lists.
    pub revoked: usize,
    /// When the next one is due, in seconds since the epoch.
    pub next_update: Option<i64>,
    /// DER.
    #[serde(skip)]
    pub(super) der: Vec<u8>,
}

impl RevocationList {
    /// Reads a file in PEM or DER.
    ///
    /// # Errors
    /// If it cannot be read, others than root may change it, or it is no such list.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let der = der(path, "X509 CRL")?;
        let parsed = CertificateRevocationList::from_der(&der).map_err(|error| {
            FileError::new(
                path,
                format!("it is no list of revoked certificates: {error}"),
            )
        });
        let (_, parsed) = parsed?;
        Ok(Self {
            file: path.to_owned(),
            issuer: parsed.issuer().to_string(),
            revoked: parsed.iter_revoked_certificates().count(),
            next_update: parsed.next_update().map(|time| time.timestamp()),
            der: der.clone(),
        })
    }
}

/// The content of a file in PEM, with this label, or in DER.
fn der(path: &Path, label: &str) -> Result<Vec<u8>, FileError> {
    let bytes = read_public(path)?;
    if bytes.first() == Some(&0x30) {
        return Ok(bytes);
    }
    let mut found = Pem::iter_from_buffer(&bytes).filter_map(Result::ok);
    match found.find(|pem| pem.label == label) {
        Some(pem) => Ok(pem.contents),
        None => Err(FileError::new(
            path,
            format!("it has no part {label} in PEM"),
        )),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How long before its end an operator hears of it.
const WARNED_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A file with an end, and when that is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Expiry {
    /// Which file.
    pub file: PathBuf,
    /// Seconds since the epoch.
    pub at: i64,
}

impl Expiry {
    /// Whether it has come, or comes within 30 days.
    pub fn is_near(&self, now: SystemTime) -> bool {
        let warned = WARNED_BEFORE.as_secs() as i64;
        self.at.saturating_sub(seconds(now)) <= warned
    }

    /// Whether it has come.
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.at <= seconds(now)
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
