//! `[port.metadata]`: what the switch tells a cloud image about itself.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::fcntl::OFlag;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Facts;
use super::port::PortFacts;
use crate::addr::{DomainName, HostName, InvalidValue, Name, text, textual};
use crate::document::{Node, Origin, Section};
use crate::error::Report;
use crate::key::KeyPath;
use crate::problem::Problem;
use crate::subnet::show;

/// The most SSH keys of a port.
pub const MAX_PUBLIC_KEYS: usize = 16;
/// The most bytes of a port's user data or vendor data, as of EC2.
pub const MAX_USER_DATA: usize = 16 << 10;
/// The most bytes of all user data, vendor data and keys of a tenant, which are part of its
/// switch's configuration.
pub const MAX_METADATA: usize = 2 << 20;
/// The most bytes of an instance's identifier.
const MAX_INSTANCE_ID: usize = 64;
/// The most bytes of an SSH key.
const MAX_PUBLIC_KEY: usize = 4096;
/// The most bytes of a label of a DNS name.
const MAX_LABEL: usize = 63;

/// What tells one instance of an image from another: 1 to 64 letters, digits, hyphens, dots and
/// underscores.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[A-Za-z0-9._-]{1,64}$"))]
pub struct InstanceId(String);

impl FromStr for InstanceId {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=MAX_INSTANCE_ID).contains(&text.len()) || !text.bytes().all(is_good) {
            return Err(InvalidValue::new(
                text,
                "an identifier of 1 to 64 letters, digits, hyphens, dots and underscores",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl InstanceId {
    /// The identifier of a port without one of its own: the same for the same names.
    fn of(tenant: &Name, port: &Name) -> Self {
        let digest = Sha256::digest(format!("{tenant}/{port}"));
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("i-{}", &digits[..17]))
    }
}

/// An SSH public key, as a line of `authorized_keys`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("minLength" = 1, "maxLength" = 4096))]
pub struct PublicKey(String);

impl FromStr for PublicKey {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let is_good = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        let has_key = text.split(' ').filter(|word| !word.is_empty()).count() >= 2;
        if text.len() > MAX_PUBLIC_KEY || !text.bytes().all(is_good) || !has_key {
            return Err(InvalidValue::new(
                text,
                "one line of authorized_keys, as in \"ssh-ed25519 AAAA… user@host\", of at most \
                 4096 ASCII characters",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}
textual!(InstanceId, PublicKey);
text!(InstanceId, PublicKey);

/// The content of a file for a VM: at most 16 KiB. It may hold secrets, so it is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("contentEncoding" = "base64", "maxLength" = 21_848))]
pub struct UserData(#[schemars(with = "String")] Arc<[u8]>);

impl UserData {
    /// The content, if it is not too long.
    ///
    /// # Errors
    /// If it is.
    pub fn new(bytes: &[u8]) -> Result<Self, InvalidValue> {
        if bytes.len() > MAX_USER_DATA {
            return Err(InvalidValue::new("(the content)", Self::EXPECTED));
        }
        Ok(Self(bytes.into()))
    }

    const EXPECTED: &str = "of at most 16384 bytes";

    /// The bytes.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.0
    }
}

impl fmt::Debug for UserData {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "UserData({} bytes)", self.0.len())
    }
}

impl TryFrom<String> for UserData {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        let bytes = STANDARD.decode(text);
        Self::new(&bytes.map_err(|_| InvalidValue::new("(the content)", "base64"))?)
    }
}

impl From<UserData> for String {
    fn from(data: UserData) -> Self {
        STANDARD.encode(&data.0)
    }
}

/// A file that the tenant's file names, and its content. It is written as the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(into = "PathBuf")]
#[schemars(with = "PathBuf")]
pub struct DataFile {
    /// As it is written.
    path: PathBuf,
    content: UserData,
}

impl From<DataFile> for PathBuf {
    fn from(file: DataFile) -> Self {
        file.path
    }
}

/// What a VM is told, as the tenant's file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[non_exhaustive]
pub struct Metadata {
    /// What tells this VM from others of its image: another one makes cloud-init begin anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<InstanceId>,
    /// The VM's host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<DomainName>,
    /// The SSH keys of the image's user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = 16))]
    pub public_keys: Vec<PublicKey>,
    /// The file with the VM's user data, by an absolute path or one from the tenant's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<DataFile>,
    /// The file with the vendor data, which is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor_data: Option<DataFile>,
    /// Whether it is also served in OpenStack's form, which has no tokens.
    #[schemars(default = "openstack_default")]
    pub openstack: bool,
}

/// What the switch tells the VM of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataConfig {
    /// What tells this VM from others of its image.
    pub instance_id: InstanceId,
    /// The VM's host name.
    pub hostname: DomainName,
    /// The SSH keys of the image's user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub public_keys: Vec<PublicKey>,
    /// The VM's user data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<UserData>,
    /// The vendor data, which is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_data: Option<UserData>,
    /// Whether it is also served in OpenStack's form, which has no tokens.
    #[serde(default = "openstack_default")]
    pub openstack: bool,
}

const fn openstack_default() -> bool {
    true
}

/// The bytes of one port, and what a rule needs to say about them.
#[derive(Debug, Default)]
pub(super) struct MetadataFacts {
    key: Option<KeyPath>,
    bytes: usize,
}

impl Metadata {
    pub(super) fn read(mut section: Section<'_>) -> (Self, MetadataFacts) {
        let key = section.path.clone();
        let id = section.get("instance_id");
        let instance_id = id.and_then(|node| node.text(InstanceId::from_str));
        let hostname = section.get("hostname");
        let hostname = hostname.and_then(|node| node.text(DomainName::from_str));
        let keys = section.get("public_keys").map(|node| {
            let expected = "an array of SSH public keys";
            let keys = node.list(expected, |item| item.text(PublicKey::from_str));
            if keys.len() > MAX_PUBLIC_KEYS {
                node.fail::<()>(Problem::TooMany {
                    count: keys.len(),
                    max: MAX_PUBLIC_KEYS,
                });
            }
            keys.into_iter().map(|key| key.value).collect()
        });
        let user_data = section.get("user_data").and_then(|node| read_file(&node));
        let vendor = section.get("vendor_data");
        let vendor_data = vendor.and_then(|node| {
            let file = read_file(&node)?;
            match is_text(&file.content) {
                true => Some(file),
                false => node.fail(InvalidValue::new(file.path.display(), TEXT)),
            }
        });
        let openstack = section.get("openstack").and_then(|node| node.flag());
        section.finish();
        let metadata = Self {
            instance_id,
            hostname,
            public_keys: keys.unwrap_or_default(),
            user_data,
            vendor_data,
            openstack: openstack.unwrap_or_else(openstack_default),
        };
        let content = |file: &Option<DataFile>| file.as_ref().map(|file| file.content.clone());
        let bytes = size(
            &metadata.public_keys,
            &[content(&metadata.user_data), content(&metadata.vendor_data)],
        );
        let key = Some(key);
        (metadata, MetadataFacts { key, bytes })
    }

    /// What the switch tells the VM of that port. `hostname` is the port's own.
    pub(super) fn config(
        self,
        (tenant, port): (&Name, &Name),
        hostname: Option<&HostName>,
    ) -> MetadataConfig {
        let content = |file: Option<DataFile>| file.map(|file| file.content);
        let named = || default_hostname(tenant, port, hostname);
        MetadataConfig {
            instance_id: self
                .instance_id
                .unwrap_or_else(|| InstanceId::of(tenant, port)),
            hostname: self.hostname.unwrap_or_else(named),
            public_keys: self.public_keys,
            user_data: content(self.user_data),
            vendor_data: content(self.vendor_data),
            openstack: self.openstack,
        }
    }
}

/// The port's host name, or one made of the names of tenant and port.
fn default_hostname(tenant: &Name, port: &Name, hostname: Option<&HostName>) -> DomainName {
    let mut made = match hostname {
        // A name of digits alone is none of a domain's.
        Some(name) if DomainName::from_str(name.as_str()).is_ok() => name.as_str().to_owned(),
        _ => format!("{tenant}-{port}"),
    };
    made.truncate(MAX_LABEL);
    let made = made.trim_end_matches('-');
    DomainName::from_str(made).expect("names begin with a letter, and have no other characters")
}

const TEXT: &str = "a file of text (UTF-8)";

fn is_text(data: &UserData) -> bool {
    std::str::from_utf8(data.bytes()).is_ok()
}

/// Reads the file that a value names.
fn read_file(node: &Node<'_>) -> Option<DataFile> {
    let written = node.text(|text| match text.is_empty() {
        true => Err(InvalidValue::new(text, "the path of a file")),
        false => Ok(PathBuf::from(text)),
    })?;
    let unreadable = |reason: String| Problem::Unreadable {
        reason: format!("{}: {reason}", written.display()),
    };
    let Some(origin) = node.origin() else {
        return node.fail(unreadable("this tenant's file has no directory".to_owned()));
    };
    match read(origin, &written) {
        Ok(bytes) => match UserData::new(&bytes) {
            Ok(content) => Some(DataFile {
                path: written,
                content,
            }),
            Err(error) => node.fail(InvalidValue::new(written.display(), error.expected)),
        },
        Err(error) => node.fail(unreadable(error.to_string())),
    }
}

/// The bytes of a file that the one of `origin` names; of one that is too long, one more than it
/// may have. The VM gets them, so whoever may write a tenant's file must not have others' files
/// read to him.
fn read(origin: Origin<'_>, path: &Path) -> std::io::Result<Vec<u8>> {
    const ROOT: u32 = 0;
    let mut open = OpenOptions::new();
    // Opening a pipe would wait for its other end.
    open.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = open.open(origin.directory.join(path))?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(std::io::Error::other("no regular file"));
    }
    if origin.owner != ROOT && found.uid() != origin.owner {
        return Err(std::io::Error::other(
            "it belongs to another user than the tenant's file",
        ));
    }
    let mut bytes = Vec::new();
    file.take(MAX_USER_DATA as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn size(keys: &[PublicKey], data: &[Option<UserData>; 2]) -> usize {
    let keys: usize = keys.iter().map(|key| key.as_str().len()).sum();
    let data: usize = data.iter().flatten().map(|data| data.bytes().len()).sum();
    keys + data
}

impl MetadataConfig {
    pub(super) fn check_lengths(&self, table: &KeyPath, report: &Report) {
        let keys = self.public_keys.len();
        report.bound(&table.key("public_keys"), keys, MAX_PUBLIC_KEYS);
        if let Some(data) = self.vendor_data.as_ref().filter(|data| !is_text(data)) {
            let problem = InvalidValue::new(format!("{data:?}"), TEXT);
            report.add(&table.key("vendor_data"), problem);
        }
    }

    pub(super) fn facts(&self, table: KeyPath) -> MetadataFacts {
        let data = [self.user_data.clone(), self.vendor_data.clone()];
        MetadataFacts {
            key: Some(table),
            bytes: size(&self.public_keys, &data),
        }
    }
}

/// The address of metadata that is no link's own, so that a file could give it to somebody.
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254);

/// Checks what the ports have together, and that the address is nobody's.
pub(super) fn check_together(facts: &Facts, report: &Report) {
    let mut bytes = 0;
    for port in facts.ports.iter().map(|port| &port.metadata) {
        bytes += port.bytes;
        if let Some(key) = port.key.as_ref().filter(|_| bytes > MAX_METADATA) {
            report.add(key, MetadataProblem::TooLong { bytes });
            break;
        }
    }
    if facts.ports.iter().all(|port| port.metadata.key.is_none()) {
        return;
    }
    let ports = facts.ports.iter().flat_map(PortFacts::destinations);
    for net in facts.gateway.addresses.iter().chain(ports) {
        if net.value.contains(&IpAddr::V6(ADDRESS)) {
            let prefix = show(net.value.trunc());
            report.add(&net.key, MetadataProblem::Taken { prefix });
        }
    }
}

/// An error in `[port.metadata]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MetadataProblem {
    /// More bytes than a switch's configuration has room for.
    #[error(
        "with this port, the tenant's user data, vendor data and keys have {bytes} bytes, and \
         2097152 is the most; have VMs fetch the rest"
    )]
    #[serde(rename = "metadata-too-long")]
    TooLong {
        /// The bytes so far.
        bytes: usize,
    },
    /// The switch's own address of metadata, within somebody's.
    #[error(
        "{prefix} contains fd00:ec2::254, where the switch serves metadata; choose other addresses"
    )]
    #[serde(rename = "metadata-address")]
    Taken {
        /// The prefix.
        prefix: String,
    },
}
