//! Kinds of errors, each with its values and a sentence that says what to do.

use ipnet::IpNet;
use serde::Serialize;

use crate::addr::InvalidValue;
use crate::switch::SwitchProblem;
use crate::tenant::{
    AddressProblem, DhcpProblem, DnsProblem, GatewayProblem, HostProblem, IpsecProblem,
    LimitsProblem, MetadataProblem, MulticastProblem, PeerProblem, PortProblem, PrefixProblem,
    RouteProblem, TunnelProblem, UplinkProblem,
};

/// A kind of error with its values. The kinds' names in JSON are API. A kind that only one section
/// of the file has is declared in that section.
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
    /// A required key that is missing.
    #[error("missing; write {expected}")]
    MissingKey {
        /// The key with an example.
        expected: &'static str,
    },
    /// A value of another type.
    #[error("this is {found}, but the key takes {expected}")]
    WrongType {
        /// The value's type and text.
        found: String,
        /// The accepted values.
        expected: &'static str,
    },
    /// A value that its key does not accept.
    #[error("{value:?} is not {expected}")]
    Invalid {
        /// The value as it was written.
        value: String,
        /// The accepted values.
        expected: &'static str,
    },
    /// A VNI that does not exist.
    #[error("{value} is no VNI; choose one from 1 to 16777215 that no other tenant has")]
    VniRange {
        /// The number.
        value: i64,
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
        /// The reason for the minimum.
        #[serde(skip)]
        why: &'static str,
    },
    /// More of something than a switch takes.
    #[error(
        "there are {count} of them, and a switch takes at most {max}; split the tenant's file or \
         merge entries"
    )]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many are accepted.
        max: usize,
    },
    /// A subnet larger or smaller than a switch routes.
    #[error("/{length} is no prefix length of a subnet here; choose one from /{min} to /{max}")]
    SubnetLength {
        /// The written length.
        length: u8,
        /// The shortest that is accepted.
        min: u8,
        /// The longest that is accepted.
        max: u8,
    },
    /// Subnets of the gateway and the uplink that overlap.
    #[error(
        "{subnet} overlaps {other} of {other_key}: the switch routes between the two, so they must \
         be apart"
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
        /// Its kind.
        what: &'static str,
    },
    /// A prefix with bits set beyond its length.
    #[error(
        "{address} has bits set behind its prefix length; write {network} for the prefix, or the \
         address alone"
    )]
    HostBits {
        /// The written address.
        address: IpNet,
        /// The prefix that contains it.
        network: IpNet,
    },
    /// An address that its subnet reserves.
    #[error("{address} is {role} of {subnet}; choose another")]
    ReservedAddress {
        /// The address.
        address: String,
        /// The purpose of the reservation.
        role: &'static str,
        /// The subnet.
        subnet: IpNet,
    },
    /// A prefix that contains an address that its subnet reserves.
    #[error("{prefix} contains {address}, {role} of {subnet}; write prefixes that leave it out")]
    ContainsReserved {
        /// The prefix.
        prefix: IpNet,
        /// The address.
        address: String,
        /// The purpose of the reservation.
        role: &'static str,
        /// The subnet.
        subnet: IpNet,
    },
    /// A problem of the gateway.
    #[error(transparent)]
    #[serde(untagged)]
    Gateway(#[from] GatewayProblem),
    /// A problem of the gateway's DHCP server.
    #[error(transparent)]
    #[serde(untagged)]
    Dhcp(#[from] DhcpProblem),
    /// A problem of the gateway's resolvers.
    #[error(transparent)]
    #[serde(untagged)]
    Dns(#[from] DnsProblem),
    /// A problem of a port.
    #[error(transparent)]
    #[serde(untagged)]
    Port(#[from] PortProblem),
    /// A problem of a port's limits.
    #[error(transparent)]
    #[serde(untagged)]
    Limits(#[from] LimitsProblem),
    /// A problem of what VMs are told.
    #[error(transparent)]
    #[serde(untagged)]
    Metadata(#[from] MetadataProblem),
    /// A problem of the groups of `[multicast]`.
    #[error(transparent)]
    #[serde(untagged)]
    Multicast(#[from] MulticastProblem),
    /// A problem of a port's addresses.
    #[error(transparent)]
    #[serde(untagged)]
    Address(#[from] AddressProblem),
    /// A problem of the prefixes behind a port.
    #[error(transparent)]
    #[serde(untagged)]
    Route(#[from] RouteProblem),
    /// A problem of the uplink.
    #[error(transparent)]
    #[serde(untagged)]
    Uplink(#[from] UplinkProblem),
    /// A problem of the tunnel.
    #[error(transparent)]
    #[serde(untagged)]
    Tunnel(#[from] TunnelProblem),
    /// A problem of one of the tunnel's peers.
    #[error(transparent)]
    #[serde(untagged)]
    Peer(#[from] PeerProblem),
    /// A problem of the tunnel's security.
    #[error(transparent)]
    #[serde(untagged)]
    Ipsec(#[from] IpsecProblem),
    /// A problem of the prefixes behind peers.
    #[error(transparent)]
    #[serde(untagged)]
    Prefix(#[from] PrefixProblem),
    /// A problem between the tenants of one host.
    #[error(transparent)]
    #[serde(untagged)]
    Host(#[from] HostProblem),
    /// A problem that only a switch's configuration has.
    #[error(transparent)]
    #[serde(untagged)]
    Switch(#[from] SwitchProblem),
}

impl From<InvalidValue> for Problem {
    fn from(InvalidValue { value, expected }: InvalidValue) -> Self {
        Self::Invalid { value, expected }
    }
}
