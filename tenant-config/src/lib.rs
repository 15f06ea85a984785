//! The vocabulary of the project: what an operator writes about a tenant ([`Tenant`]), and what one
//! switch is given ([`SwitchConfig`]). Values are checked when they are built, so that a value that
//! exists is a valid one; the step from the first to the second is pure.

mod addr;
mod document;
mod error;
mod rules;
mod switch;
mod tenant;

pub use addr::{InvalidValue, MacAddr, Name, PciAddress, VlanId, Vni};
pub use error::{ConfigError, ConfigErrors, Place, Problem};
pub use rules::{
    MAX_ADDRESSES, MAX_ALLOWED, MAX_EXTRA_MACS, MAX_MTU, MAX_PEERS, MAX_PORTS, MAX_PREFIXES,
    MIN_MTU_IPV4, MIN_MTU_IPV6,
};
pub use switch::{
    Addresses, Device, Encapsulation, Gateway, Inherit, LearnedFrom, Limits, Memory, NextHops,
    PeerConfig, PortConfig, SwitchConfig, SwitchDevice, TunnelConfig, TunnelDscp, TunnelKind,
    TunnelTtl, UPLINK_NAME, UplinkConfig,
};
pub use tenant::{
    DeviceMismatch, Devices, Nic, NicAttribute, Peer, Port, Tenant, Tunnel, Uplink, load_all,
};
