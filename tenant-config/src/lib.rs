//! The vocabulary of the project: what an operator writes about a tenant ([`Tenant`]), and what one
//! switch is given ([`SwitchConfig`]). Values are checked when they are built, so a value that
//! exists is valid; the step from the first to the second is pure.

#![forbid(unsafe_code)]

mod addr;
mod document;
mod error;
mod key;
mod problem;
mod subnet;
mod switch;
mod tenant;

pub use addr::{DomainName, HostName, InvalidValue, MacAddr, Name, PciAddress, TagId, VlanId, Vni};
pub use error::{ConfigError, ConfigErrors, Place};
pub use problem::Problem;
pub use subnet::show;
pub use switch::{Device, Memory, SwitchConfig, SwitchDevice, SwitchProblem, UPLINK_NAME};
pub use tenant::{
    AddressProblem, Addresses, Addresses6, AnyGroup, Authentication, BootFile, BootServer,
    BroadcastUse, Compatible, DataFile, DeviceMismatch, Devices, Dhcp, DhcpProblem, DhcpRoute, Dns,
    DnsProblem, Encapsulation, Gateway, GatewayProblem, HostProblem, HostTenant, IkeConfig,
    IkePeer, Inherit, InstanceId, InvalidFile, Ipsec, IpsecConfig, IpsecProblem, IpsecSuite,
    Ipv6Autoconf, Ipv6Use, LearnedFrom, LeaseSeconds, Lifetimes, Limits, LimitsProblem, LinkState,
    MAX_ADDRESSES, MAX_ALLOWED, MAX_DHCP_LIST, MAX_DHCP_ROUTES, MAX_EXTRA_MACS, MAX_GROUPS,
    MAX_METADATA, MAX_MTU, MAX_PEERS, MAX_PORTS, MAX_PREFIXES, MAX_PUBLIC_KEYS, MAX_RESOLVERS,
    MAX_ROUTES, MAX_SHARED, MAX_USER_DATA, MIN_MTU_IPV4, MIN_MTU_IPV6, Metadata, MetadataConfig,
    MetadataProblem, Multicast, MulticastGroups, MulticastProblem, NextHops, Nic, NicAttribute,
    OwnCertificate, Peer, PeerConfig, PeerIpsec, PeerProblem, Port, PortConfig, PortProblem,
    PrefixProblem, Protection, PublicKey, RouteProblem, Tenant, TenantFiles, Tunnel, TunnelConfig,
    TunnelDscp, TunnelKind, TunnelProblem, TunnelTtl, Uplink, UplinkConfig, UplinkProblem,
    UserData, check_host, is_own_group, load_all, load_each,
};
