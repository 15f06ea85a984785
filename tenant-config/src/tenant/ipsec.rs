//! `[tunnel.ipsec]`: which peers are spoken to under ESP only, and how they prove who they are.
//!
//! Secrets are never here: keys of a file are paths. Who uses a path checks its owner and mode.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::peer::PeerFacts;
use super::tunnel::TunnelFacts;
use crate::addr::{InvalidValue, Name};
use crate::document::{Node, Section};
use crate::error::Report;
use crate::key::{At, KeyPath};

/// The most files of one key: those in use, and those that replace them during a rotation.
const MAX_FILES: usize = 8;
/// The UDP ports of IKE, plain and with UDP encapsulation (RFC 7296, section 2.23).
const IKE_PORTS: [i64; 2] = [500, 4500];
/// The accepted windows, as the rest of a sentence.
const WINDOW_EXPECTED: &str = "a replay window from 64 to 4096 packets";
/// The accepted paths, as the rest of a sentence.
const PATH_EXPECTED: &str = "the absolute path of a file, without .. in it";
/// The accepted identities, as the rest of a sentence.
const IDENTITY_EXPECTED: &str = "an identity of IKE: an address, a DNS name, an e-mail address or \
                                 a distinguished name, without wildcards";

/// Whether packets to and from a peer must be protected by ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protection {
    /// Never: the tunnel's packets are sent as they are.
    #[default]
    Off,
    /// Always: without a security association nothing is sent, and what comes plainly is dropped.
    Required,
}

/// A transform of ESP, by strongSwan's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IpsecSuite {
    /// AES-128-GCM with an ICV of 16 bytes (RFC 4106).
    Aes128Gcm16,
    /// AES-256-GCM with an ICV of 16 bytes (RFC 4106).
    Aes256Gcm16,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-256-CBC with HMAC-SHA2-256-128 (RFC 3602, RFC 4868).
    #[serde(rename = "aes256-sha256")]
    Aes256Sha256,
}

impl Protection {
    /// Whether it is the default.
    pub(super) const fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }
}

impl IpsecSuite {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Aes256Gcm16,
        Self::Aes128Gcm16,
        Self::ChaCha20Poly1305,
        Self::Aes256Sha256,
    ];

    /// strongSwan's name, which is that in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes128Gcm16 => "aes128gcm16",
            Self::Aes256Gcm16 => "aes256gcm16",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
            Self::Aes256Sha256 => "aes256-sha256",
        }
    }

    /// The bytes of an ESP packet that carry neither payload nor padding: SPI, sequence number, IV
    /// and ICV.
    pub const fn fixed_len(self) -> u16 {
        match self {
            Self::Aes256Sha256 => 8 + 16 + 16,
            Self::Aes128Gcm16 | Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => 8 + 8 + 16,
        }
    }

    /// The multiple to which payload and trailer are padded, in bytes.
    pub const fn alignment(self) -> u16 {
        match self {
            Self::Aes256Sha256 => 16,
            Self::Aes128Gcm16 | Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => 4,
        }
    }

    /// The longest payload, a UDP header included, of an ESP packet of at most `room` bytes.
    pub const fn max_payload(self, room: u16) -> u16 {
        let sealed = room.saturating_sub(self.fixed_len());
        // The trailer ends with pad length and next header.
        (sealed - sealed % self.alignment()).saturating_sub(2)
    }
}

/// What a switch allows security associations to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IpsecConfig {
    /// The transforms, the preferred one first.
    #[schemars(length(min = 1, max = 4))]
    pub suites: Vec<IpsecSuite>,
    /// Whether extended sequence numbers may be negotiated.
    pub esn: bool,
    /// The replay window, in packets.
    #[schemars(range(min = 64, max = 4096))]
    pub replay_window: u32,
}

impl Default for IpsecConfig {
    fn default() -> Self {
        Self {
            suites: vec![IpsecSuite::Aes256Gcm16],
            esn: true,
            replay_window: default_window(),
        }
    }
}

const fn default_window() -> u32 {
    1024
}

/// An implementation that fixes proposals and identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compatible {
    /// Open vSwitch's ovs-monitor-ipsec, as of 3.1.
    Ovs,
}

/// When a security association is replaced, and when it ends, whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(default)]
pub struct Lifetimes {
    /// Seconds until it is replaced.
    #[schemars(range(min = 10, max = 604_800))]
    pub rekey_time: u64,
    /// Seconds until it ends.
    #[schemars(range(min = 10, max = 604_800))]
    pub life_time: u64,
    /// Packets until it is replaced.
    pub rekey_packets: u64,
    /// Packets until it ends; without extended sequence numbers less than 2^32.
    pub life_packets: u64,
    /// Bytes until it is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rekey_bytes: Option<u64>,
    /// Bytes until it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_bytes: Option<u64>,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            rekey_time: 3600,
            life_time: 3960,
            rekey_packets: 3_000_000_000,
            life_packets: 4_000_000_000,
            rekey_bytes: None,
            life_bytes: None,
        }
    }
}

/// How a tenant file names one file or several.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "it describes a form and holds no value")]
enum Files {
    /// One.
    One(PathBuf),
    /// Several.
    Several(#[schemars(length(min = 1, max = 8))] Vec<PathBuf>),
}

/// The security of the tunnel in a tenant file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[non_exhaustive]
pub struct Ipsec {
    /// The protection of peers that do not say otherwise.
    pub mode: Protection,
    /// The implementation that fixes proposals and identities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compatible: Option<Compatible>,
    /// The transforms, the preferred one first. By default AES-256-GCM.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4))]
    pub proposals: Option<Vec<IpsecSuite>>,
    /// Whether extended sequence numbers may be negotiated. By default yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub esn: Option<bool>,
    /// The replay window, in packets.
    #[schemars(default = "default_window", range(min = 64, max = 4096))]
    pub replay_window: u32,
    /// When a security association is replaced and when it ends.
    #[serde(flatten)]
    pub lifetimes: Lifetimes,
    /// The pre-shared key of peers without one of their own: a file, or several of which the first
    /// is used and all are accepted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, with = "Files")]
    pub psk: Vec<PathBuf>,
    /// Our certificate, a file in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The private key of our certificate, a file in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Certificates of authorities that sign peers' certificates, files in PEM.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, with = "Files")]
    pub ca: Vec<PathBuf>,
    /// Lists of revoked certificates, files in PEM or DER.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, with = "Files")]
    pub crl: Vec<PathBuf>,
    /// Our identity. By default our endpoint's address, or what the certificate says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

/// How one peer is protected, in a tenant file. Absent keys are those of `[tunnel.ipsec]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct PeerIpsec {
    /// The protection of the peer. By default `tunnel.ipsec.mode`.
    #[serde(rename = "ipsec", skip_serializing_if = "Option::is_none")]
    pub mode: Option<Protection>,
    /// Its pre-shared key: a file, or several of which the first is used and all are accepted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, with = "Files")]
    pub psk: Vec<PathBuf>,
    /// The peer's own certificates, files in PEM, all of which are accepted. No other is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, with = "Files")]
    pub certificate: Vec<PathBuf>,
    /// The peer's identity. Without `psk` and `certificate` a certificate of an authority must say
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

/// What the IKE daemon of a tenant is configured from: everything but the secrets themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IkeConfig {
    /// Our tunnel endpoint.
    pub vtep: IpAddr,
    /// The tunnel's UDP port.
    pub port: u16,
    /// What the switch allows.
    pub allowed: IpsecConfig,
    /// The implementation that fixes proposals and identities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatible: Option<Compatible>,
    /// When a security association is replaced and when it ends.
    pub lifetimes: Lifetimes,
    /// Our identity, if it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Our certificate and its private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnCertificate>,
    /// Certificates of authorities.
    #[serde(default)]
    pub ca: Vec<PathBuf>,
    /// Lists of revoked certificates.
    #[serde(default)]
    pub crl: Vec<PathBuf>,
    /// The peers that require protection, one for each endpoint.
    #[serde(default)]
    pub peers: Vec<IkePeer>,
}

/// Our certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnCertificate {
    /// The file of the certificate.
    pub certificate: PathBuf,
    /// The file of its private key.
    pub key: PathBuf,
}

/// A peer that requires protection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IkePeer {
    /// The name of the first peer with this endpoint.
    pub name: Name,
    /// Its endpoint.
    pub vtep: IpAddr,
    /// Its identity, if it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// How it proves who it is.
    pub authentication: Authentication,
}

/// How a peer proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Authentication {
    /// By a key that both ends hold. The first is used, all are accepted.
    Psk(Vec<PathBuf>),
    /// By one of these certificates.
    Pinned(Vec<PathBuf>),
    /// By a certificate of one of our authorities with the peer's identity.
    Authority,
}

impl IkeConfig {
    /// The files of secrets: pre-shared keys and our private key.
    pub fn secrets(&self) -> impl Iterator<Item = &Path> {
        let psk = self
            .peers
            .iter()
            .flat_map(|peer| match &peer.authentication {
                Authentication::Psk(files) => files.as_slice(),
                Authentication::Pinned(_) | Authentication::Authority => &[],
            });
        let key = self.own.iter().map(|own| &own.key);
        psk.chain(key).map(PathBuf::as_path)
    }
}

/// The section, as far as it could be read.
#[derive(Debug, Default)]
pub(crate) struct IpsecFacts {
    key: KeyPath,
    mode: Option<Protection>,
    pub(super) suites: Option<At<Vec<IpsecSuite>>>,
    window: Option<At<i64>>,
    /// Absent in a switch's configuration, which has no authentication.
    file: Option<FileFacts>,
}

/// The keys that only a tenant file has.
#[derive(Debug, Default)]
struct FileFacts {
    /// Keys that `compatible` fixes.
    fixed: Vec<KeyPath>,
    compatible: bool,
    psk: bool,
    certificate: Option<KeyPath>,
    private: Option<KeyPath>,
    ca: bool,
    lifetimes: Vec<(At<u64>, u64, &'static str)>,
    packets: Option<At<u64>>,
    /// Whether extended sequence numbers are certain not to be used.
    esn: bool,
}

/// The keys of a peer, as far as they could be read.
#[derive(Debug, Default)]
pub(crate) struct PeerIpsecFacts {
    pub(super) mode: Option<At<Protection>>,
    psk: Option<At<Vec<PathBuf>>>,
    certificate: Option<At<Vec<PathBuf>>>,
    identity: Option<At<String>>,
    /// Whether some key could not be read.
    unreadable: bool,
}

impl Ipsec {
    pub(super) fn read(mut section: Section<'_>) -> (Option<Self>, IpsecFacts) {
        let mode = section
            .require("mode", "mode = \"required\" or mode = \"off\"")
            .and_then(|node| node.text(parse_protection));
        let mut file = FileFacts::default();
        let compatible = section.get("compatible");
        file.compatible = compatible.is_some();
        let compatible = compatible.map(|node| node.text(parse_compatible));
        let proposals = section.get("proposals");
        let esn = section.get("esn");
        let fixed = [&proposals, &esn].into_iter().flatten();
        file.fixed = fixed.map(|node| node.path.clone()).collect();
        let suites = proposals.map(|node| node.read(read_suites));
        let esn = esn.map(|node| node.flag());
        let window = section
            .get("replay_window")
            .map(|node| node.read(|node| node.integer(Ok::<_, InvalidValue>)));
        let lifetimes = read_lifetimes(&mut section, &mut file);
        let psk = section.get("psk");
        file.psk = psk.is_some();
        let psk = psk.map_or(Some(Vec::new()), |node| read_files(&node));
        let certificate = section.get("certificate");
        file.certificate = certificate.as_ref().map(|node| node.path.clone());
        let certificate = certificate.map(|node| node.text(parse_path));
        let key = section.get("key");
        file.private = key.as_ref().map(|node| node.path.clone());
        let key = key.map(|node| node.text(parse_path));
        let ca = section.get("ca");
        file.ca = ca.is_some();
        let ca = ca.map_or(Some(Vec::new()), |node| read_files(&node));
        let crl = section.get("crl");
        let crl = crl.map_or(Some(Vec::new()), |node| read_files(&node));
        let identity = section.get("identity");
        let identity = identity.map(|node| node.text(parse_identity));
        file.esn = compatible.is_none() && esn.is_none_or(|esn| esn == Some(true));
        let facts = IpsecFacts {
            key: section.path.clone(),
            mode,
            suites: suites.clone().flatten(),
            window: window.clone().flatten(),
            file: Some(file),
        };
        section.finish();
        let ipsec = || {
            Some(Self {
                mode: mode?,
                compatible: optional(compatible)?,
                proposals: optional(suites)?.map(|suites| suites.value),
                esn: optional(esn)?,
                replay_window: match optional(window)? {
                    // The rules refuse a window that does not fit.
                    Some(window) => u32::try_from(window.value).unwrap_or(default_window()),
                    None => default_window(),
                },
                lifetimes: lifetimes?,
                psk: psk?,
                certificate: optional(certificate)?,
                key: optional(key)?,
                ca: ca?,
                crl: crl?,
                identity: optional(identity)?,
            })
        };
        (ipsec(), facts)
    }

    /// What the switch allows.
    pub(super) fn config(&self) -> IpsecConfig {
        let default = IpsecConfig::default();
        IpsecConfig {
            suites: self.proposals.clone().unwrap_or(default.suites),
            esn: self.esn.unwrap_or(self.compatible.is_none()),
            replay_window: self.replay_window,
        }
    }

    /// What the IKE daemon is configured from, for these peers of ours at `vtep` and `port`.
    pub(super) fn ike<'p>(
        &self,
        (vtep, port): (IpAddr, u16),
        peers: impl Iterator<Item = (&'p Name, IpAddr, &'p PeerIpsec)>,
    ) -> IkeConfig {
        let mut seen = HashSet::new();
        let required = peers.filter(|(_, vtep, peer)| {
            peer.mode.unwrap_or(self.mode) == Protection::Required && seen.insert(*vtep)
        });
        let peers = required.map(|(name, vtep, peer)| IkePeer {
            name: name.clone(),
            vtep,
            identity: peer.identity.clone(),
            authentication: if !peer.certificate.is_empty() {
                Authentication::Pinned(peer.certificate.clone())
            } else if !peer.psk.is_empty() {
                Authentication::Psk(peer.psk.clone())
            } else if peer.identity.is_some() && !self.ca.is_empty() {
                Authentication::Authority
            } else {
                Authentication::Psk(self.psk.clone())
            },
        });
        let own = self.certificate.clone().zip(self.key.clone());
        IkeConfig {
            vtep,
            port,
            allowed: self.config(),
            compatible: self.compatible,
            lifetimes: self.lifetimes,
            identity: self.identity.clone(),
            peers: peers.collect(),
            own: own.map(|(certificate, key)| OwnCertificate { certificate, key }),
            ca: self.ca.clone(),
            crl: self.crl.clone(),
        }
    }
}

/// A key that may be absent, but must be readable if it is there.
fn optional<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => value.map(Some),
    }
}

impl PeerIpsec {
    /// Reads a peer's keys among the others of its section.
    pub(super) fn read(section: &mut Section<'_>) -> (Option<Self>, PeerIpsecFacts) {
        let mode = section.get("ipsec");
        let mode = mode.map(|node| node.read(|node| node.text(parse_protection)));
        let mut files = |key| {
            let node = section.get(key)?;
            Some(node.read(read_files))
        };
        let psk = files("psk");
        let certificate = files("certificate");
        let identity = section.get("identity");
        let identity = identity.map(|node| node.read(|node| node.text(parse_identity)));
        let facts = PeerIpsecFacts {
            unreadable: matches!(mode, Some(None))
                || matches!(psk, Some(None))
                || matches!(certificate, Some(None))
                || matches!(identity, Some(None)),
            mode: mode.flatten(),
            psk: psk.flatten(),
            certificate: certificate.flatten(),
            identity: identity.flatten(),
        };
        let value = |files: &Option<At<Vec<PathBuf>>>| {
            files
                .as_ref()
                .map(|files| files.value.clone())
                .unwrap_or_default()
        };
        let ipsec = Self {
            mode: facts.mode.as_ref().map(|mode| mode.value),
            psk: value(&facts.psk),
            certificate: value(&facts.certificate),
            identity: facts
                .identity
                .as_ref()
                .map(|identity| identity.value.clone()),
        };
        ((!facts.unreadable).then_some(ipsec), facts)
    }
}

fn read_lifetimes(section: &mut Section<'_>, file: &mut FileFacts) -> Option<Lifetimes> {
    let default = Lifetimes::default();
    let mut readable = true;
    let mut read = |key, range: std::ops::RangeInclusive<u64>, expected| {
        let node = section.get(key)?;
        let value = node.read(|node| {
            node.integer(|number| match u64::try_from(number) {
                Ok(number) if range.contains(&number) => Ok(number),
                _ => Err(InvalidValue::new(number, expected)),
            })
        });
        readable &= value.is_some();
        value
    };
    let seconds = "a number of seconds from 10 to 604800";
    let count = "a positive number";
    let count_range = 1..=u64::MAX;
    let rekey_time = read("rekey_time", 10..=604_800, seconds);
    let life_time = read("life_time", 10..=604_800, seconds);
    let rekey_packets = read("rekey_packets", count_range.clone(), count);
    let life_packets = read("life_packets", count_range.clone(), count);
    let rekey_bytes = read("rekey_bytes", count_range.clone(), count);
    let life_bytes = read("life_bytes", count_range, count);
    let number = |at: &Option<At<u64>>| at.as_ref().map(|at| at.value);
    let pair = |rekey, life| lifetime_pair(number(rekey), number(life));
    let time = pair(&rekey_time, &life_time).unwrap_or((default.rekey_time, default.life_time));
    let packets = pair(&rekey_packets, &life_packets)
        .unwrap_or((default.rekey_packets, default.life_packets));
    let bytes = pair(&rekey_bytes, &life_bytes);
    let lifetimes = Lifetimes {
        rekey_time: time.0,
        life_time: time.1,
        rekey_packets: packets.0,
        life_packets: packets.1,
        rekey_bytes: bytes.map(|bytes| bytes.0),
        life_bytes: bytes.map(|bytes| bytes.1),
    };
    file.packets = life_packets.clone().or_else(|| rekey_packets.clone());
    let pairs = [
        (rekey_time, Some(time.1), "life_time"),
        (rekey_packets, Some(packets.1), "life_packets"),
        (rekey_bytes, bytes.map(|bytes| bytes.1), "life_bytes"),
    ];
    let pairs = pairs.into_iter();
    let pairs = pairs.filter_map(|(rekey, life, name)| Some((rekey?, life?, name)));
    file.lifetimes = pairs.collect();
    if let Some(packets) = &mut file.packets {
        packets.value = lifetimes.life_packets;
    }
    readable.then_some(lifetimes)
}

/// When an association is replaced and when it ends, if one of the two is written: the end is a
/// tenth after the replacement.
fn lifetime_pair(rekey: Option<u64>, life: Option<u64>) -> Option<(u64, u64)> {
    match (rekey, life) {
        (None, None) => None,
        (Some(rekey), Some(life)) => Some((rekey, life)),
        (Some(rekey), None) => Some((rekey, rekey.saturating_add(rekey.div_ceil(10)))),
        (None, Some(life)) => Some((life - life / 10, life)),
    }
}

fn read_suites(node: &Node<'_>) -> Option<Vec<IpsecSuite>> {
    let items = node.items("an array of proposals")?;
    items.iter().map(|item| item.text(parse_suite)).collect()
}

/// One path, or an array of them.
fn read_files(node: &Node<'_>) -> Option<Vec<PathBuf>> {
    if node.as_text().is_some() {
        return Some(vec![node.text(parse_path)?]);
    }
    let items = node.items("a path in quotes, or an array of them")?;
    if items.is_empty() || items.len() > MAX_FILES {
        return node.fail(InvalidValue::new(
            format!("an array of {}", items.len()),
            "a path or an array of 1 to 8 paths",
        ));
    }
    items.iter().map(|item| item.text(parse_path)).collect()
}

fn parse_protection(text: &str) -> Result<Protection, InvalidValue> {
    match text {
        "required" => Ok(Protection::Required),
        "off" => Ok(Protection::Off),
        _ => Err(InvalidValue::new(text, "\"required\" or \"off\"")),
    }
}

fn parse_compatible(text: &str) -> Result<Compatible, InvalidValue> {
    match text {
        "ovs" => Ok(Compatible::Ovs),
        _ => Err(InvalidValue::new(text, "\"ovs\"")),
    }
}

fn parse_suite(text: &str) -> Result<IpsecSuite, InvalidValue> {
    let mut all = IpsecSuite::ALL.into_iter();
    all.find(|suite| suite.as_str() == text).ok_or_else(|| {
        let expected = "\"aes256gcm16\", \"aes128gcm16\", \"chacha20poly1305\" or \
                        \"aes256-sha256\"";
        InvalidValue::new(text, expected)
    })
}

fn parse_path(text: &str) -> Result<PathBuf, InvalidValue> {
    let path = Path::new(text);
    let plain = path
        .components()
        .all(|step| step != std::path::Component::ParentDir);
    let fits = text.len() < 4096 && !text.chars().any(char::is_control);
    if path.is_absolute() && plain && fits && path.file_name().is_some() {
        return Ok(path.to_owned());
    }
    Err(InvalidValue::new(text, PATH_EXPECTED))
}

fn parse_identity(text: &str) -> Result<String, InvalidValue> {
    let character =
        |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'*' | b'%' | b'"' | b'\\');
    let fits = (1..=255).contains(&text.len()) && text.trim() == text;
    if fits && text.bytes().all(character) {
        return Ok(text.to_owned());
    }
    Err(InvalidValue::new(text, IDENTITY_EXPECTED))
}

impl IpsecConfig {
    pub(super) fn facts(&self, table: KeyPath) -> IpsecFacts {
        IpsecFacts {
            mode: Some(Protection::Off),
            suites: Some(At::new(table.key("suites"), self.suites.clone())),
            window: Some(At::new(
                table.key("replay_window"),
                self.replay_window.into(),
            )),
            file: None,
            key: table,
        }
    }
}

impl PeerIpsecFacts {
    /// A switch's.
    pub(super) fn of_switch(mode: At<Protection>) -> Self {
        Self {
            mode: Some(mode),
            ..Self::default()
        }
    }

    /// Some key of the peer that means nothing without the section.
    fn any_key(&self) -> Option<&KeyPath> {
        let mode = self.mode.as_ref();
        let mode = mode.filter(|mode| mode.value == Protection::Required);
        mode.map(|it| &it.key)
            .or(self.psk.as_ref().map(|it| &it.key))
            .or(self.certificate.as_ref().map(|it| &it.key))
            .or(self.identity.as_ref().map(|it| &it.key))
    }

    fn same(&self, other: &Self, default: Protection) -> bool {
        fn value<T>(at: &Option<At<T>>) -> Option<&T> {
            at.as_ref().map(|at| &at.value)
        }
        let mode = |facts: &Self| value(&facts.mode).copied().unwrap_or(default);
        mode(self) == mode(other)
            && value(&self.psk) == value(&other.psk)
            && value(&self.certificate) == value(&other.certificate)
            && value(&self.identity) == value(&other.identity)
    }
}

impl IpsecFacts {
    /// The transforms if some peer is protected. Unreadable ones are the default's.
    pub(super) fn in_use<'p>(
        &self,
        peers: impl IntoIterator<Item = &'p PeerIpsecFacts>,
    ) -> Option<Vec<IpsecSuite>> {
        let mut peers = peers.into_iter();
        let required = peers.any(|peer| self.protects(peer));
        let suites = self.suites.as_ref().map(|suites| suites.value.clone());
        required.then(|| suites.unwrap_or_else(|| IpsecConfig::default().suites))
    }

    pub(super) fn protects(&self, peer: &PeerIpsecFacts) -> bool {
        let mode = peer.mode.as_ref().map(|mode| mode.value).or(self.mode);
        mode == Some(Protection::Required)
    }

    fn check(&self, tunnel_port: Option<&At<i64>>, report: &Report) {
        if let Some(suites) = &self.suites {
            if suites.value.is_empty() {
                report.add(
                    &suites.key,
                    InvalidValue::new("[]", "an array of at least one proposal"),
                );
            }
            let mut seen = HashSet::new();
            for (index, suite) in suites.value.iter().enumerate() {
                if !seen.insert(suite) {
                    let problem = InvalidValue::new(suite.as_str(), "a proposal listed once");
                    report.add(&suites.key.index(index), problem);
                }
            }
        }
        if let Some(window) = &self.window
            && !(64..=4096).contains(&window.value)
        {
            report.add(
                &window.key,
                InvalidValue::new(window.value, WINDOW_EXPECTED),
            );
        }
        if let Some(port) = tunnel_port
            && IKE_PORTS.contains(&port.value)
        {
            let expected = "a UDP port other than IKE's (500 and 4500) beside IPsec";
            report.add(&port.key, InvalidValue::new(port.value, expected));
        }
        if let Some(file) = &self.file {
            file.check(&self.key, report);
        }
    }
}

impl FileFacts {
    fn check(&self, table: &KeyPath, report: &Report) {
        if self.compatible {
            for key in &self.fixed {
                report.add(key, IpsecProblem::IpsecFixed);
            }
        }
        let (there, missing) = match (&self.certificate, &self.private) {
            (Some(there), None) => (there, "key"),
            (None, Some(there)) => (there, "certificate"),
            (Some(_), Some(_)) | (None, None) => (table, ""),
        };
        if !missing.is_empty() {
            report.add(there, IpsecProblem::HalfCertificate { missing });
        }
        for (rekey, life, name) in &self.lifetimes {
            if rekey.value >= *life {
                let (rekey_value, life) = (rekey.value, *life);
                let problem = IpsecProblem::RekeyAfterLife {
                    rekey: rekey_value,
                    life,
                    name,
                };
                report.add(&rekey.key, problem);
            }
        }
        if let Some(packets) = &self.packets
            && packets.value > u64::from(u32::MAX)
            && !self.esn
        {
            let expected = "fewer than 2^32 packets, which the sequence number of 32 bits allows";
            report.add(&packets.key, InvalidValue::new(packets.value, expected));
        }
    }

    /// Checks how a peer proves who it is.
    fn check_peer(&self, peer: &PeerFacts, report: &Report) {
        let ipsec = &peer.ipsec;
        if ipsec.unreadable {
            return;
        }
        if let (Some(psk), Some(_)) = (&ipsec.psk, &ipsec.certificate) {
            report.add(&psk.key, IpsecProblem::TwoAuthentications);
            return;
        }
        let needs_own = match (&ipsec.psk, &ipsec.certificate, &ipsec.identity) {
            (Some(_), _, _) => None,
            (None, Some(certificate), _) => Some(&certificate.key),
            (None, None, Some(identity)) if self.ca => Some(&identity.key),
            (None, None, _) if self.psk => None,
            (None, None, Some(identity)) => {
                report.add(&identity.key, IpsecProblem::NoAuthority);
                return;
            }
            (None, None, None) => {
                report.add(&peer.key, IpsecProblem::NoAuthentication);
                return;
            }
        };
        if let Some(key) = needs_own
            && self.certificate.is_none()
            && self.private.is_none()
        {
            report.add(key, IpsecProblem::NoOwnCertificate);
        }
    }
}

/// Checks the section and every peer's keys.
pub(super) fn check(tunnel: &TunnelFacts, report: &Report) {
    if let Some(ipsec) = &tunnel.ipsec {
        ipsec.check(tunnel.port.as_ref(), report);
    }
    let mut endpoints: HashMap<IpAddr, &PeerFacts> = HashMap::new();
    for peer in &tunnel.peers {
        let Some(ipsec) = &tunnel.ipsec else {
            if let Some(key) = peer.ipsec.any_key()
                && !tunnel.ipsec_unreadable
            {
                report.add(key, IpsecProblem::IpsecMissing);
            }
            continue;
        };
        if let Some(file) = &ipsec.file
            && ipsec.protects(&peer.ipsec)
        {
            file.check_peer(peer, report);
        }
        let Some(vtep) = &peer.vtep else { continue };
        if let Some(other) = endpoints.insert(vtep.value, peer)
            && let Some(default) = ipsec.mode
            && !peer.ipsec.unreadable
            && !other.ipsec.unreadable
            && !peer.ipsec.same(&other.ipsec, default)
        {
            let problem = IpsecProblem::PeerProtection {
                vtep: vtep.value,
                other_key: other.key.to_string(),
            };
            report.add(&peer.key.key("ipsec"), problem);
        }
    }
}

/// An error in the security of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum IpsecProblem {
    /// A peer's protection without the section.
    #[error("this needs a [tunnel.ipsec] section, with a mode for the other peers")]
    IpsecMissing,
    /// A value that `compatible` fixes.
    #[error("compatible = \"ovs\" decides this; leave one of the two keys out")]
    IpsecFixed,
    /// A certificate without its key, or the reverse.
    #[error("a certificate of our own is two files; write tunnel.ipsec.{missing} too")]
    HalfCertificate {
        /// The key that is missing.
        missing: &'static str,
    },
    /// An association that ends before it is replaced.
    #[error("{rekey} is not less than the {name} of {life}, so traffic would stop at each rekey")]
    RekeyAfterLife {
        /// When it is replaced.
        rekey: u64,
        /// When it ends.
        life: u64,
        /// The key of the end.
        name: &'static str,
    },
    /// A peer with two ways to prove who it is.
    #[error("a peer has either a pre-shared key or a pinned certificate; leave one out")]
    TwoAuthentications,
    /// A peer with none.
    #[error(
        "this peer requires IPsec, but nothing says how it proves who it is; write psk, \
         certificate, or identity (with tunnel.ipsec.ca), or ipsec = \"off\""
    )]
    NoAuthentication,
    /// An identity that no authority vouches for.
    #[error(
        "an identity alone proves nothing; write tunnel.ipsec.ca for the authority that signs it, \
         or psk or certificate here"
    )]
    NoAuthority,
    /// A peer with certificates, but we have none.
    #[error("with certificates both ends need one; write tunnel.ipsec.certificate and .key")]
    NoOwnCertificate,
    /// Two peers with one endpoint but different protection.
    #[error(
        "{other_key} has the endpoint {vtep} too, but is protected otherwise; write the same in \
         both"
    )]
    PeerProtection {
        /// The peers' endpoint.
        vtep: IpAddr,
        /// The other peer.
        other_key: String,
    },
}
