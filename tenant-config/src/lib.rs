//! The vocabulary of the project: what an operator writes about a tenant ([`Tenant`]), and what one
//! switch is given ([`SwitchConfig`]). Values are checked when they are built, so that a value that
//! exists is a valid one; the step from the first to the second is pure.

mod addr;
mod switch;

pub use addr::{InvalidValue, MacAddr, Name, PciAddress, VlanId, Vni};
pub use switch::{
    Addresses, Device, Encapsulation, Gateway, LearnedFrom, Limits, Memory, NextHops, PortConfig,
    SwitchConfig, UplinkConfig,
};
