//! Makes keys and certificates for operators.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustix::rand::{GetRandomFlags, getrandom};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::secret::{FileError, Secret, guard};

/// The bytes of randomness in a pre-shared key.
const PSK_BYTES: usize = 32;
/// A part of subjects before the name: Open vSwitch's monitor finds no name that is alone.
const ORGANIZATION: &str = "tunnel endpoint";
/// Clocks of hosts differ.
const BEGINS_BEFORE: Duration = Duration::from_secs(3600);

/// Makes a pre-shared key of 256 bits, as hexadecimal digits, in a new file. Returns its
/// fingerprint.
///
/// # Errors
/// If the file is there already or cannot be written.
pub fn psk(path: &Path) -> Result<String, FileError> {
    guard().map_err(|why| FileError::new(path, why))?;
    let mut random = Zeroizing::new([0_u8; PSK_BYTES]);
    let filled = getrandom(&mut *random, GetRandomFlags::empty());
    if filled != Ok(PSK_BYTES) {
        return Err(FileError::new(path, "the kernel gives no random numbers"));
    }
    // Of the final size from the beginning, so no copy of a part is left behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * PSK_BYTES + 1));
    for byte in random.iter() {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    text.push('\n');
    create(path, text.as_bytes(), 0o600)?;
    Ok(Secret::read_psk(path)?.fingerprint())
}

/// Makes a private key (ECDSA, P-256) and a certificate of it that it signs itself, for the DNS
/// name `name` and so many days.
///
/// # Errors
/// If a file is there already or cannot be written, or the name is none.
pub fn self_signed(
    name: &str,
    days: u32,
    key_file: &Path,
    certificate_file: &Path,
) -> Result<(), FileError> {
    let wrong = |error: rcgen::Error| FileError::new(certificate_file, error);
    absent(certificate_file)?;
    let (mut params, key) = (params(name).map_err(wrong)?, key_pair()?);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BEGINS_BEFORE;
    params.not_after = now + Duration::from_secs(u64::from(days) * 24 * 3600);
    let certificate = params.self_signed(&key).map_err(wrong)?;
    create(
        key_file,
        Zeroizing::new(key.serialize_pem()).as_bytes(),
        0o600,
    )?;
    create(certificate_file, certificate.pem().as_bytes(), 0o644)
}

/// Makes a request for a certificate of the DNS name `name`, for an authority to sign. The private
/// key is made, unless its file is there.
///
/// # Errors
/// If the request is there already or cannot be written, or the name or the key is none.
pub fn request(name: &str, key_file: &Path, request_file: &Path) -> Result<(), FileError> {
    let wrong = |error: rcgen::Error| FileError::new(request_file, error);
    absent(request_file)?;
    let key = if key_file.exists() {
        let secret = Secret::read(key_file)?;
        let text = std::str::from_utf8(secret.expose());
        let text = text.map_err(|_| FileError::new(key_file, "it is no key in PEM"))?;
        KeyPair::from_pem(text)
            .map_err(|error| FileError::new(key_file, format!("it is no usable key: {error}")))?
    } else {
        let key = key_pair()?;
        create(
            key_file,
            Zeroizing::new(key.serialize_pem()).as_bytes(),
            0o600,
        )?;
        key
    };
    let request = params(name).map_err(wrong)?.serialize_request(&key);
    let text = request.and_then(|request| request.pem()).map_err(wrong)?;
    create(request_file, text.as_bytes(), 0o644)
}

fn key_pair() -> Result<KeyPair, FileError> {
    let path = Path::new("the key");
    guard().map_err(|why| FileError::new(path, why))?;
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| FileError::new(path, error))
}

fn params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, ORGANIZATION);
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

fn absent(path: &Path) -> Result<(), FileError> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Err(FileError::new(path, "it is there already; remove it first")),
        Err(_) => Ok(()),
    }
}

/// Writes a new file, which is complete or not there.
fn create(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    let mut file = match file {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return absent(path),
        file => file.map_err(|error| FileError::new(path, error))?,
    };
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = std::fs::remove_file(path);
        FileError::new(path, error)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::certificate::Certificate;
    use super::*;

    #[test]
    fn keys_and_certificates_are_made_once_and_for_root_alone() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let fingerprint = psk(&at("psk")).expect("it is made");
        assert_eq!(fingerprint.len(), 16);
        let other = psk(&at("other")).expect("it is made");
        assert_ne!(fingerprint, other);
        let again = psk(&at("psk")).expect_err("it is there");
        assert_eq!(again.why, "it is there already; remove it first");

        self_signed("host-a.example", 90, &at("a.key"), &at("a.pem")).expect("they are made");
        for file in ["psk", "a.key"] {
            let mode = std::fs::metadata(at(file)).expect("it is there").mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let certificate = Certificate::read(&at("a.pem")).expect("a certificate");
        assert_eq!(certificate.identity(), "host-a.example");
        // RFC 4514 writes it the other way round; Open vSwitch reads from CN= to the next comma.
        assert_eq!(certificate.subject, "O=tunnel endpoint, CN=host-a.example");
        let days = (certificate.not_after - certificate.not_before) / (24 * 3600);
        assert_eq!((days, certificate.is_authority), (90, false));
        let key = Secret::read(&at("a.key")).expect("a key");
        assert!(key.expose().starts_with(b"-----BEGIN PRIVATE KEY-----"));

        // The key of before, and a new one.
        request("host-a.example", &at("a.key"), &at("a.csr")).expect("it is made");
        request("host-b.example", &at("b.key"), &at("b.csr")).expect("both are made");
        let text = std::fs::read_to_string(at("b.csr")).expect("it is there");
        assert!(text.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
        assert!(Secret::read(&at("b.key")).is_ok());
    }
}
