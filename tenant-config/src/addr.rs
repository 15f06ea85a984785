//! Newtypes of the field's identifiers. Fields are private: a value that exists is in range.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A text or number that is no valid value of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct InvalidValue {
    /// The value as it was written.
    pub value: String,
    /// The accepted values, as the rest of a sentence.
    pub expected: &'static str,
}

impl InvalidValue {
    pub(crate) fn new(value: impl fmt::Display, expected: &'static str) -> Self {
        Self {
            value: value.to_string(),
            expected,
        }
    }
}

/// A unicast IEEE 802 MAC address: never zero, never a group address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$"))]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    const EXPECTED: &'static str =
        "a unicast MAC address of six hexadecimal bytes, as in 52:54:00:aa:00:01";

    /// Checks that `octets` name one station: not all zero, and the group bit clear.
    pub fn new(octets: [u8; 6]) -> Result<Self, InvalidValue> {
        if octets[0] & 1 != 0 || octets == [0; 6] {
            return Err(InvalidValue::new(format_mac(&octets), Self::EXPECTED));
        }
        Ok(Self(octets))
    }

    /// The locally administered MAC of a switch's own function at the port of the VM with that
    /// MAC, which all hosts can compute: `06`, and the first five bytes of the SHA-256 digest of
    /// the VNI (4 bytes, big-endian) and the VM's MAC. So a VM's gateway keeps its MAC when other
    /// ports go, or the VM moves.
    pub fn of_gateway(vni: Vni, vm: Self) -> Self {
        Self::of_digest(0x06, vni, &vm.0)
    }

    /// The locally administered MAC of a switch's tunnel side, which both ends can compute: `0e`,
    /// and the first five bytes of the SHA-256 digest of the VNI (4 bytes, big-endian) and the
    /// tunnel endpoint's address (4 or 16 bytes).
    pub fn of_vtep(vni: Vni, vtep: IpAddr) -> Self {
        Self::of_address(0x0e, vni, vtep)
    }

    /// The locally administered MAC of a switch's In/Out side: as [`Self::of_vtep`], but with `0a`
    /// and its own address on the underlay. So the switches of one tenant on several hosts can
    /// share a link.
    pub fn of_uplink(vni: Vni, own: IpAddr) -> Self {
        Self::of_address(0x0a, vni, own)
    }

    fn of_address(first: u8, vni: Vni, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(ip) => Self::of_digest(first, vni, &ip.octets()),
            IpAddr::V6(ip) => Self::of_digest(first, vni, &ip.octets()),
        }
    }

    fn of_digest(first: u8, vni: Vni, identity: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(vni.get().to_be_bytes());
        let [a, b, c, d, e, ..] = <[u8; 32]>::from(digest.chain_update(identity).finalize());
        Self([first, a, b, c, d, e])
    }

    /// The six bytes in transmission order.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// The IPv6 link-local address of this station by modified EUI-64 (RFC 4291, appendix A).
    pub fn link_local(self) -> std::net::Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let word = |hi, lo| u16::from_be_bytes([hi, lo]);
        std::net::Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            word(a ^ 2, b),
            word(c, 0xff),
            word(0xfe, d),
            word(e, f),
        )
    }
}

fn format_mac(octets: &[u8; 6]) -> String {
    let [a, b, c, d, e, f] = octets;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

impl fmt::Display for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&format_mac(&self.0))
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for MacAddr {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let invalid = || InvalidValue::new(text, Self::EXPECTED);
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(invalid)?;
            if !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(invalid());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            return Err(invalid());
        }
        Self::new(octets).map_err(|_| invalid())
    }
}

/// An IEEE 802.1Q VLAN identifier: 1 to 4094.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "u16", into = "u16")]
#[schemars(extend("minimum" = 1, "maximum" = 4094))]
pub struct VlanId(u16);

impl VlanId {
    /// Checks that `vid` is neither the priority tag (0) nor reserved (4095).
    pub fn new(vid: u16) -> Result<Self, InvalidValue> {
        match vid {
            1..=4094 => Ok(Self(vid)),
            _ => Err(InvalidValue::new(vid, "a VLAN identifier from 1 to 4094")),
        }
    }

    /// The 12-bit identifier.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// The identifier of a tag that a VM may use: a VLAN's, or 0 of a tag that has a priority only
/// (IEEE 802.1Q, table 9-2).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "u16", into = "u16")]
#[schemars(extend("minimum" = 0, "maximum" = 4094))]
pub struct TagId(u16);

impl TagId {
    /// Checks that `vid` is not reserved (4095).
    pub fn new(vid: u16) -> Result<Self, InvalidValue> {
        match vid {
            0..=4094 => Ok(Self(vid)),
            _ => Err(InvalidValue::new(
                vid,
                "a VLAN identifier from 1 to 4094, or 0",
            )),
        }
    }

    /// The 12-bit identifier.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// A virtual network identifier of Geneve and VXLAN: 1 to 2^24 - 1.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "u32", into = "u32")]
#[schemars(extend("minimum" = 1, "maximum" = 16_777_215))]
pub struct Vni(u32);

impl Vni {
    /// Checks that `vni` fits in 24 bits and is not zero.
    pub fn new(vni: u32) -> Result<Self, InvalidValue> {
        match vni {
            1..=0xff_ffff => Ok(Self(vni)),
            _ => Err(InvalidValue::new(vni, "a VNI from 1 to 16777215")),
        }
    }

    /// The 24-bit identifier.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A PCI function's address, `domain:bus:device.function`, as sysfs writes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\\.[0-7]$"))]
pub struct PciAddress {
    domain: u16,
    bus: u8,
    device: u8,
    function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        out.pad(&format!("{domain:04x}:{bus:02x}:{device:02x}.{function:x}"))
    }
}

impl fmt::Debug for PciAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for PciAddress {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let invalid = || InvalidValue::new(text, "a PCI address, as in 0000:01:10.0");
        let hex = |part: &str, digits: usize| {
            (part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .then(|| u16::from_str_radix(part, 16).ok())
                .flatten()
                .ok_or_else(invalid)
        };
        let (rest, function) = text.rsplit_once('.').ok_or_else(invalid)?;
        let mut parts = rest.split(':');
        let mut next = |digits| hex(parts.next().ok_or_else(invalid)?, digits);
        let (domain, bus, device) = (next(4)?, next(2)?, next(2)?);
        let function = hex(function, 1)?;
        if parts.next().is_some() || device > 0x1f || function > 7 {
            return Err(invalid());
        }
        Ok(Self {
            domain,
            bus: bus as u8,
            device: device as u8,
            function: function as u8,
        })
    }
}

/// A tenant's or port's name: 1 to 32 of `a-z 0-9 -`, beginning with a letter. It is part of file,
/// namespace and cgroup names, so no other character is accepted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[a-z][a-z0-9-]{0,31}$"))]
pub struct Name(String);

impl Name {
    /// The most characters of a name.
    pub const MAX_LEN: usize = 32;
}

impl FromStr for Name {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let good = text.len() <= Self::MAX_LEN
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !good {
            return Err(InvalidValue::new(
                text,
                "a name of 1 to 32 lower-case letters, digits and hyphens that begins with a \
                 letter",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whether the text is a label of a DNS name: 1 to 63 letters, digits and hyphens, without a hyphen
/// at either end (RFC 1123, section 2.1).
fn is_label(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(is_allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A host's name without its domain: one label of a DNS name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$"))]
pub struct HostName(String);

impl FromStr for HostName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if !is_label(text) {
            return Err(InvalidValue::new(
                text,
                "a host's name of 1 to 63 letters, digits and hyphens, without a hyphen at either \
                 end",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A DNS name: labels with dots between them, at most 253 characters, the last label not a number.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("maxLength" = 253))]
pub struct DomainName(String);

impl FromStr for DomainName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        let good = text.len() <= 253
            && text.split('.').all(is_label)
            && !text.rsplit('.').next().is_some_and(is_number);
        if !good {
            return Err(InvalidValue::new(
                text,
                "a DNS name without a dot at its end, as in red.example",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Serde's view of a newtype that is written as text.
macro_rules! textual {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = InvalidValue;
            fn try_from(text: String) -> Result<Self, InvalidValue> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )*};
}
textual!(MacAddr, PciAddress, Name, HostName, DomainName);
pub(crate) use textual;

/// What a newtype of text shows.
macro_rules! text {
    ($($name:ident),*) => {$(
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, out)
            }
        }
    )*};
}
text!(Name, HostName, DomainName);
pub(crate) use text;

/// Serde's view of a newtype that is written as a number.
macro_rules! numeric {
    ($($name:ident($int:ty)),*) => {$(
        impl TryFrom<$int> for $name {
            type Error = InvalidValue;
            fn try_from(value: $int) -> Result<Self, InvalidValue> {
                Self::new(value)
            }
        }
        impl From<$name> for $int {
            fn from(value: $name) -> $int {
                value.get()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.get(), out)
            }
        }
    )*};
}
numeric!(VlanId(u16), TagId(u16), Vni(u32));
pub(crate) use numeric;
