//! What the daemon is told over VICI: connections, keys and certificates of a tenant.
//!
//! There is one connection for each peer, with two children as Open vSwitch's monitor makes them:
//! `NAME-in` for packets to our tunnel port, `NAME-out` for packets to the peer's. Their policies
//! are traps, so the first packet negotiates them, and a reload closes none.

use std::path::PathBuf;

use sha2::{Digest, Sha256};
use tenant_config::{Authentication, Compatible, IkeConfig, IkePeer, IpsecSuite};

use super::certificate::{Certificate, RevocationList, hex};
use super::secret::{FileError, Secret};
use super::vici::Message;

/// Seconds without an answer after which a peer is asked whether it is alive.
const DPD_DELAY: &str = "10s";
/// Seconds until the keys of IKE itself are replaced.
const IKE_REKEY: &str = "4h";
/// The groups of key exchange among ourselves, in the order in which they are offered.
const GROUPS: &str = "curve25519-ecp256-modp2048";

/// A pre-shared key, for the peer that it is shared with.
pub(super) struct SharedKey {
    /// Names it for a later removal.
    pub(super) id: String,
    /// The peer's identity.
    pub(super) owner: String,
    pub(super) secret: Secret,
}

/// One peer's connection.
pub(super) struct Connection {
    pub(super) name: String,
    /// The argument of `load-conn`. It holds no secret.
    pub(super) message: Message,
}

impl Connection {
    /// Differs if the connection does.
    pub(super) fn digest(&self) -> String {
        hex(&Sha256::digest(self.message.as_bytes()))
    }

    /// The names of its children.
    pub(super) fn children(&self) -> [String; 2] {
        [format!("{}-in", self.name), format!("{}-out", self.name)]
    }
}

/// Everything that the daemon is told.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) shared: Vec<SharedKey>,
    /// Our private key, in PEM.
    pub(super) key: Option<Secret>,
    /// Lists of revoked certificates, in DER.
    pub(super) crls: Vec<Vec<u8>>,
    pub(super) connections: Vec<Connection>,
}

impl Settings {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// If one cannot be used.
    pub(super) fn read(config: &IkeConfig) -> Result<Self, FileError> {
        let own = config.own.as_ref();
        let certificate = own
            .map(|own| Certificate::read(&own.certificate))
            .transpose()?;
        let key = own.map(|own| Secret::read(&own.key)).transpose()?;
        let authorities = read_all(&config.ca, Certificate::read)?;
        let crls = read_all(&config.crl, RevocationList::read)?;
        let mut shared = Vec::new();
        let mut connections = Vec::new();
        for peer in &config.peers {
            if let Authentication::Psk(files) = &peer.authentication {
                // A key is good for this peer's identity only.
                let owner = peer.identity.clone();
                let owner = owner.unwrap_or_else(|| peer.vtep.to_string());
                for (place, file) in files.iter().enumerate() {
                    shared.push(SharedKey {
                        id: format!("{}-{place}", peer.name),
                        owner: owner.clone(),
                        secret: Secret::read_psk(file)?,
                    });
                }
            }
            let message = connection(config, peer, certificate.as_ref(), &authorities)?;
            connections.push(Connection {
                name: peer.name.to_string(),
                message,
            });
        }
        Ok(Self {
            shared,
            key,
            crls: crls.into_iter().map(|crl| crl.der).collect(),
            connections,
        })
    }
}

fn read_all<T>(
    files: &[PathBuf],
    read: impl Fn(&std::path::Path) -> Result<T, FileError>,
) -> Result<Vec<T>, FileError> {
    files.iter().map(|file| read(file)).collect()
}

fn connection(
    config: &IkeConfig,
    peer: &IkePeer,
    certificate: Option<&Certificate>,
    authorities: &[Certificate],
) -> Result<Message, FileError> {
    let mut pinned = Vec::new();
    if let Authentication::Pinned(files) = &peer.authentication {
        pinned = read_all(files, Certificate::read)?;
    }
    let mut message = Message::default();
    message.section(peer.name.as_str(), |it| {
        it.set("version", "2");
        it.list("local_addrs", [config.vtep.to_string()]);
        it.list("remote_addrs", [peer.vtep.to_string()]);
        it.list("proposals", ike_proposals(config));
        // Endpoints do not move.
        it.set("mobike", "no");
        it.set("fragmentation", "yes");
        it.set("keyingtries", "0");
        it.set("dpd_delay", DPD_DELAY);
        it.set("rekey_time", IKE_REKEY);
        it.set("send_cert", "always");
        let with_psk = matches!(peer.authentication, Authentication::Psk(_));
        it.section("local", |it| {
            it.set("auth", if with_psk { "psk" } else { "pubkey" });
            let own = config.identity.as_deref();
            match certificate.filter(|_| !with_psk) {
                Some(certificate) => {
                    it.set("id", own.unwrap_or(certificate.identity()));
                    it.list("certs", [&certificate.der]);
                }
                None => {
                    let vtep = config.vtep.to_string();
                    it.set("id", own.unwrap_or(&vtep));
                }
            }
        });
        it.section("remote", |it| {
            it.set("auth", if with_psk { "psk" } else { "pubkey" });
            let vtep = peer.vtep.to_string();
            let implied = match pinned.first() {
                Some(first) => first.identity(),
                None => &vtep,
            };
            it.set("id", peer.identity.as_deref().unwrap_or(implied));
            if !pinned.is_empty() {
                it.list("certs", pinned.iter().map(|pinned| &pinned.der));
            } else if peer.authentication == Authentication::Authority {
                it.list(
                    "cacerts",
                    authorities.iter().map(|authority| &authority.der),
                );
                if !config.crl.is_empty() {
                    // Without a valid list nobody is believed.
                    it.set("revocation", "strict");
                }
            }
        });
        it.section("children", |it| {
            // The daemon opens no file, so it knows no protocol by name.
            let port = format!("dynamic[17/{}]", config.port);
            let any = "dynamic[17]".to_owned();
            for (side, local, remote) in [("in", &port, &any), ("out", &any, &port)] {
                it.section(&format!("{}-{side}", peer.name), |it| {
                    child(it, config, local, remote);
                });
            }
        });
    });
    Ok(message)
}

fn child(it: &mut Message, config: &IkeConfig, local: &str, remote: &str) {
    let lifetimes = &config.lifetimes;
    it.set("mode", "transport");
    it.list("local_ts", [local]);
    it.list("remote_ts", [remote]);
    it.list("esp_proposals", esp_proposals(config));
    it.set("replay_window", config.allowed.replay_window.to_string());
    it.set("rekey_time", format!("{}s", lifetimes.rekey_time));
    it.set("life_time", format!("{}s", lifetimes.life_time));
    it.set("rekey_packets", lifetimes.rekey_packets.to_string());
    it.set("life_packets", lifetimes.life_packets.to_string());
    if let (Some(rekey), Some(life)) = (lifetimes.rekey_bytes, lifetimes.life_bytes) {
        it.set("rekey_bytes", rekey.to_string());
        it.set("life_bytes", life.to_string());
    }
    for action in ["start_action", "close_action", "dpd_action"] {
        it.set(action, "trap");
    }
}

/// The proposals of IKE itself: the encryption of each transform, so no tunnel is protected better
/// than the keys of it.
fn ike_proposals(config: &IkeConfig) -> Vec<String> {
    if config.compatible == Some(Compatible::Ovs) {
        return vec!["aes256gcm16-sha256-modp2048".to_owned()];
    }
    let suites = config.allowed.suites.iter();
    let proposal = |suite: &IpsecSuite| match suite {
        IpsecSuite::Aes256Sha256 => format!("aes256-sha256-{GROUPS}"),
        aead => format!("{}-prfsha256-{GROUPS}", aead.as_str()),
    };
    suites.map(proposal).collect()
}

fn esp_proposals(config: &IkeConfig) -> Vec<String> {
    if config.compatible == Some(Compatible::Ovs) {
        return vec!["aes256gcm16-modp2048".to_owned()];
    }
    let esn = match config.allowed.esn {
        true => "-esn-noesn",
        false => "-noesn",
    };
    let suites = config.allowed.suites.iter();
    suites
        .map(|suite| format!("{}-{GROUPS}{esn}", suite.as_str()))
        .collect()
}
