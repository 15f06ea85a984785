//! What is wrong with a configuration: every error of a file at once, each with its place, its key
//! and a sentence that says what to do.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::addr::{InvalidValue, MacAddr, Name, Vni};

/// Where a value stands within its file, as `port[1].mac`. Indices count from 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct KeyPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

impl KeyPath {
    /// The path of a key of the file's top level.
    pub(crate) fn of(key: &str) -> Self {
        Self::default().key(key)
    }

    /// The path of a table's key.
    pub(crate) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// The path of an array's element.
    pub(crate) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The port that the value belongs to, by its place in the file.
    pub(crate) fn port_index(&self) -> Option<usize> {
        match &self.0[..] {
            [Step::Key(ports), Step::Index(index), ..] if matches!(&**ports, "port" | "ports") => {
                Some(*index)
            }
            _ => None,
        }
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if depth == 0 => write!(out, "{key}")?,
                Step::Key(key) => write!(out, ".{key}")?,
                Step::Index(index) => write!(out, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl Serialize for KeyPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One error of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub(crate) file: String,
    pub(crate) place: Option<Place>,
    pub(crate) key: KeyPath,
    pub(crate) port: Option<String>,
    pub(crate) problem: Problem,
}

/// A line and a column, both from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character within the line.
    pub column: usize,
}

impl ConfigError {
    /// The file's name as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Where in the file, if the file could be read that far.
    pub fn place(&self) -> Option<Place> {
        self.place
    }

    /// The key, as in `port[1].mac`; empty for an error of the file as a whole.
    pub fn key(&self) -> String {
        self.key.to_string()
    }

    /// The name of the port that the key belongs to.
    pub fn port(&self) -> Option<&str> {
        self.port.as_deref()
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.file)?;
        if let Some(Place { line, column }) = self.place {
            write!(out, ":{line}:{column}")?;
        }
        if !self.key.steps().is_empty() {
            write!(out, ": {}", self.key)?;
        }
        if let Some(port) = &self.port {
            write!(out, " (port {port:?})")?;
        }
        write!(out, ": {}", self.problem)
    }
}

impl std::error::Error for ConfigError {}

impl Serialize for ConfigError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Record<'a> {
            file: &'a str,
            line: Option<usize>,
            column: Option<usize>,
            key: &'a KeyPath,
            port: Option<&'a str>,
            message: String,
            #[serde(flatten)]
            problem: &'a Problem,
        }
        Record {
            file: &self.file,
            line: self.place.map(|place| place.line),
            column: self.place.map(|place| place.column),
            key: &self.key,
            port: self.port(),
            message: self.problem.to_string(),
            problem: &self.problem,
        }
        .serialize(serializer)
    }
}

/// All errors of one or more files, in the order of their places; never empty.
///
/// Displayed it is one line per error, as a compiler's; serialised it is an array of objects with
/// `file`, `line`, `column`, `key`, `port`, `message`, `kind` and the values of that kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// `errors` as one error, if there are any.
    pub(crate) fn check(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Self(errors))
        }
    }

    /// The errors.
    pub fn as_slice(&self) -> &[ConfigError] {
        &self.0
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(out, "{newline}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// What is wrong with a value. The kinds' names in JSON are API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read: {reason}")]
    Unreadable {
        /// The system's words.
        reason: String,
    },
    /// A directory without a tenant file.
    #[error("no tenant file in this directory: put one NAME.toml per tenant there, or name a file")]
    EmptyDirectory,
    /// Not TOML (a tenant's file) or not JSON of the right shape (a switch's).
    #[error("{reason}")]
    Syntax {
        /// The parser's words.
        reason: String,
    },
    /// A key that does not exist.
    #[error("no such key; {hint}")]
    UnknownKey {
        /// The key that was probably meant, or all there are.
        hint: String,
    },
    /// A key that must be there.
    #[error("missing; write {expected}")]
    MissingKey {
        /// What to write.
        expected: &'static str,
    },
    /// A value of another type.
    #[error("this is {found}, but the key takes {expected}")]
    WrongType {
        /// What is there.
        found: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// A value that its key does not accept.
    #[error("{value:?} is not {expected}")]
    Invalid {
        /// The value as it was written.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// A VNI that does not exist.
    #[error("{value} is no VNI; choose one from 1 to 16777215 that no other tenant has")]
    VniRange {
        /// The number.
        value: i64,
    },
    /// A VLAN identifier that does not exist.
    #[error("{value} is no VLAN identifier; choose one from 1 to 4094")]
    VlanRange {
        /// The number.
        value: i64,
    },
    /// A VLAN identifier that is listed twice.
    #[error("VLAN {value} is listed twice; write it once")]
    DuplicateVlan {
        /// The identifier.
        value: u16,
    },
    /// An MTU that no link of the tenant can have.
    #[error("{value} is no MTU here; choose one from {min} to {max}{why}")]
    MtuRange {
        /// The number.
        value: i64,
        /// The least that is accepted.
        min: u16,
        /// The most that is accepted.
        max: u16,
        /// Why the least is what it is.
        #[serde(skip)]
        why: &'static str,
    },
    /// A limit of nothing.
    #[error(
        "a limit of 0 stops every such frame; write at least 1, or leave the key out for no limit"
    )]
    ZeroLimit,
    /// More of something than a switch takes.
    #[error(
        "there are {count} of them, and a switch takes at most {max}; split the tenant's file or merge entries"
    )]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many are accepted.
        max: usize,
    },
    /// A tenant without a port.
    #[error("the tenant has no port; add a [[port]] table for each VM")]
    NoPorts,
    /// The name of the In/Out side, given to a port.
    #[error("\"uplink\" is the name of the In/Out side; give the port another name")]
    ReservedPortName,
    /// Two ports of one name.
    #[error("{other} is \"{name}\" already; names are unique within a tenant")]
    DuplicatePort {
        /// The name.
        name: Name,
        /// The other port's key.
        other: String,
    },
    /// A MAC that another port or tenant has.
    #[error("{mac} is also {other}; every MAC names one port")]
    DuplicateMac {
        /// The MAC.
        mac: MacAddr,
        /// Where it is written too.
        other: String,
    },
    /// A MAC of the tenant's own switch.
    #[error("{mac} is in 02:{vni:06x}, the MACs of this tenant's switch; give the port another",
        vni = vni.get())]
    ReservedMac {
        /// The MAC.
        mac: MacAddr,
        /// The tenant's VNI, which these MACs are made of.
        vni: Vni,
    },
    /// A device that carries two ports.
    #[error("this device also carries {other}; every port has its own")]
    DuplicateDevice {
        /// The other port's key.
        other: String,
    },
    /// A gateway without any address.
    #[error("the gateway has no address; write ipv4, ipv6 or both, as in ipv4 = \"10.0.0.1/24\"")]
    GatewayEmpty,
    /// A port's address of a family that the gateway lacks.
    #[error("{address} is {family}, but the gateway has no {family} address; add gateway.{key}")]
    GatewayMissing {
        /// What the port asks for.
        address: String,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// The key to add.
        #[serde(skip)]
        key: &'static str,
    },
    /// A subnet larger or smaller than a switch routes.
    #[error("/{length} is no prefix length of a subnet here; choose one from /{min} to /{max}")]
    SubnetLength {
        /// What is written.
        length: u8,
        /// The shortest that is accepted.
        min: u8,
        /// The longest that is accepted.
        max: u8,
    },
    /// The gateway's subnet and the uplink's are not apart.
    #[error(
        "{subnet} overlaps {other} of {other_key}: the switch routes between the two, so they must be apart"
    )]
    SubnetOverlap {
        /// This subnet.
        subnet: IpNet,
        /// The other.
        other: IpNet,
        /// Where the other is written.
        other_key: String,
    },
    /// An address that no station may have.
    #[error("{address} is {what}; write a unicast address")]
    NotUnicast {
        /// The address or prefix.
        address: String,
        /// What it is instead.
        what: &'static str,
    },
    /// A prefix with bits behind its length.
    #[error(
        "{address} has bits set behind its prefix length; write {network} for the prefix, or the address alone"
    )]
    HostBits {
        /// What is written.
        address: IpNet,
        /// The prefix that contains it.
        network: IpNet,
    },
    /// A port without an address.
    #[error(
        "the port has no address, so it could send nothing; list at least one, or write \"learn-dhcp\""
    )]
    NoAddress,
    /// An address that is not on-link at the gateway.
    #[error(
        "{address} is outside the gateway's subnet {subnet}; choose one inside, or change gateway.{key}"
    )]
    OutsideSubnet {
        /// The address or prefix.
        address: String,
        /// The gateway's subnet of that family.
        subnet: IpNet,
        /// The gateway's key.
        #[serde(skip)]
        key: &'static str,
    },
    /// An address that its subnet keeps for something else.
    #[error("{address} is {role} of {subnet}; choose another")]
    ReservedAddress {
        /// The address.
        address: String,
        /// What it is kept for.
        role: &'static str,
        /// The subnet.
        subnet: IpNet,
    },
    /// A prefix that takes in an address that its subnet keeps for something else.
    #[error("{prefix} contains {address}, {role} of {subnet}; write prefixes that leave it out")]
    ContainsReserved {
        /// The prefix.
        prefix: IpNet,
        /// The address.
        address: String,
        /// What it is kept for.
        role: &'static str,
        /// The subnet.
        subnet: IpNet,
    },
    /// Two ports with the same address.
    #[error(
        "{address} overlaps {other} of port {other_port:?} ({other_key}); every address belongs to one port"
    )]
    AddressOverlap {
        /// The address or prefix.
        address: String,
        /// The other port's address or prefix.
        other: String,
        /// The other port's name.
        other_port: String,
        /// Where the other is written.
        other_key: String,
    },
    /// An address that its port lists twice.
    #[error("{address} is already in {other} of the same port ({other_key}); leave it out")]
    AddressRepeated {
        /// The address or prefix.
        address: String,
        /// The one that has it already.
        other: String,
        /// Where the other is written.
        other_key: String,
    },
    /// A port that learns from nobody.
    #[error(
        "no other port of the tenant has dhcp_server = true, so there is nobody to learn from; set it, or list the addresses"
    )]
    NoDhcpServer,
    /// A DHCP server without an address of its own.
    #[error("a DHCP server cannot learn its own address; list its addresses")]
    ServerLearns,
    /// A second IPv6 address on the uplink.
    #[error("address is IPv6 already; write the IPv4 address as address, or leave address6 out")]
    SecondIpv6,
    /// A next hop that the uplink cannot reach.
    #[error(
        "{next_hop} is outside {subnet}, the subnet of {other_key}; the next hop must be on the uplink's own link"
    )]
    NextHopOutside {
        /// The next hop.
        next_hop: String,
        /// The uplink's subnet.
        subnet: IpNet,
        /// Where the subnet is written.
        other_key: String,
    },
    /// A next hop that is the switch itself.
    #[error("{next_hop} is the switch's own address; write the router's")]
    NextHopSelf {
        /// The next hop.
        next_hop: String,
    },
    /// An exception that excepts nothing.
    #[error(
        "{prefix} is not within a subnet of the uplink, where alone allow has an effect; leave it out (the rest of the world is reached by next_hop)"
    )]
    AllowOutside {
        /// The prefix.
        prefix: IpNet,
    },
    /// An exception of a tenant that reaches nothing but its peers.
    #[error(
        "{prefix} has no effect with tunnel.only = true, as the tenant reaches nothing but its peers; leave it out"
    )]
    AllowOnly {
        /// The prefix.
        prefix: IpNet,
    },
    /// A tunnel without an underlay.
    #[error(
        "the tunnel needs an underlay; add an [uplink] with the address of this host's tunnel endpoint, or leave [tunnel] out"
    )]
    TunnelWithoutUplink,
    /// A tunnel endpoint that is none of the switch's own addresses.
    #[error(
        "{vtep} is no address of the uplink's; write {own}, or leave the key out for the first of them"
    )]
    VtepNotOwn {
        /// The endpoint.
        vtep: IpAddr,
        /// The uplink's addresses.
        own: String,
    },
    /// An MTU that leaves too little for what the tunnel carries.
    #[error(
        "an MTU of {mtu} leaves {left} bytes for a packet within the tunnel, which adds {overhead}; write at least {least}{why}"
    )]
    TunnelMtu {
        /// The uplink's MTU.
        mtu: i64,
        /// What is left of it.
        left: i64,
        /// What the tunnel adds.
        overhead: u16,
        /// The least that is accepted.
        least: u16,
        /// Why the least is what it is.
        #[serde(skip)]
        why: &'static str,
    },
    /// Two peers of one name.
    #[error("{other} is \"{name}\" already; names of peers are unique within a tenant")]
    DuplicatePeer {
        /// The name.
        name: Name,
        /// The other peer's key.
        other: String,
    },
    /// A peer that our endpoint cannot reach.
    #[error(
        "{vtep} and our own endpoint {own} are not of one family; write the peer's address of that family, or another tunnel.vtep"
    )]
    PeerFamily {
        /// The peer's endpoint.
        vtep: IpAddr,
        /// Ours.
        own: IpAddr,
    },
    /// A peer that is the switch itself.
    #[error("{vtep} is this switch's own tunnel endpoint; write the other host's")]
    PeerSelf {
        /// The endpoint.
        vtep: IpAddr,
    },
    /// A peer among the tenant's own addresses.
    #[error(
        "{vtep} is within {subnet} of {other_key}, where the VMs are; a tunnel endpoint is on the underlay"
    )]
    PeerInside {
        /// The endpoint.
        vtep: IpAddr,
        /// The gateway's subnet.
        subnet: IpNet,
        /// Where the subnet is written.
        other_key: String,
    },
    /// A peer to which no router is known.
    #[error(
        "{vtep} is outside {subnet}, the subnet of {other_key}, and no router towards it is known; write next_hop here, or the uplink's"
    )]
    PeerUnreachable {
        /// The peer's endpoint.
        vtep: IpAddr,
        /// The uplink's subnet.
        subnet: IpNet,
        /// Where the subnet is written.
        other_key: String,
    },
    /// The whole subnet of the gateway behind a peer, where a port learns its address.
    #[error(
        "{prefix} is the gateway's whole subnet, of which {other_key} learns an address by DHCP; write the parts that are behind the peer"
    )]
    PrefixOfLearned {
        /// The prefix.
        prefix: IpNet,
        /// The port's key.
        other_key: String,
    },
    /// Two peers with one endpoint, but two ways to it.
    #[error(
        "{other_key} has the endpoint {vtep} too, but another next_hop; write the same in both"
    )]
    PeerNextHops {
        /// The peers' endpoint.
        vtep: IpAddr,
        /// The other peer.
        other_key: String,
    },
    /// A peer with a MAC of the tenant's own switch.
    #[error(
        "{mac} is a MAC of this tenant's switch; write that of what takes frames at the peer, or leave the key out if it is a switch of this kind"
    )]
    PeerMacSelf {
        /// The MAC.
        mac: MacAddr,
    },
    /// More prefixes behind peers than a switch takes.
    #[error(
        "there are {count} prefixes behind all peers together, and a switch takes at most {max}; merge neighbouring ones"
    )]
    TooManyPrefixes {
        /// How many there are.
        count: usize,
        /// How many are accepted.
        max: usize,
    },
    /// A prefix that two peers have, or that one has twice.
    #[error("{prefix} is already {other_key}; a prefix is behind one peer and written once")]
    PrefixRepeated {
        /// The address or prefix.
        prefix: String,
        /// Where it is written first.
        other_key: String,
    },
    /// A prefix behind a peer that a port has.
    #[error(
        "{prefix} belongs to port {other_port:?}, which has {other} ({other_key}); an address is at a port or behind a peer"
    )]
    PrefixAtPort {
        /// The address or prefix.
        prefix: String,
        /// The port's address or prefix.
        other: String,
        /// The port's name.
        other_port: String,
        /// Where the port's is written.
        other_key: String,
    },
    /// Everything behind a peer, of a tenant that reaches the world through the uplink.
    #[error(
        "{prefix} is all there is, but this tenant also reaches the world through the uplink; set tunnel.only = true, or list narrower prefixes"
    )]
    PrefixOfAll {
        /// The prefix.
        prefix: IpNet,
    },
    /// Two tenants of one name.
    #[error("{name} is also the tenant of {other}; names are unique on a host")]
    DuplicateTenant {
        /// The name.
        name: Name,
        /// The other file.
        other: String,
    },
    /// Two tenants of one VNI.
    #[error("{vni} is also the VNI of {other}; every tenant has its own")]
    DuplicateVni {
        /// The VNI.
        vni: Vni,
        /// The other file.
        other: String,
    },
    /// Two tenants of one underlay address.
    #[error("{address} is also the uplink's address of {other}; every switch has its own")]
    DuplicateUplink {
        /// The address.
        address: String,
        /// The other file.
        other: String,
    },
    /// Two tenants with the same inner addresses on one underlay.
    #[error(
        "{subnet} overlaps {other_subnet} of {other}: both tenants route plainly to the underlay, so its routers could not tell whose address is meant; change one subnet, leave out one [uplink], or set tunnel.only = true in one file"
    )]
    TenantOverlap {
        /// This tenant's inner subnet.
        subnet: IpNet,
        /// The other tenant's.
        other_subnet: IpNet,
        /// The other file.
        other: String,
    },
}

impl From<InvalidValue> for Problem {
    fn from(InvalidValue { value, expected }: InvalidValue) -> Self {
        Self::Invalid { value, expected }
    }
}
