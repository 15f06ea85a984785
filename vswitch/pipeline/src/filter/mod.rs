//! The spoof filter: may this side send this frame? `docs/reference/spoof-filter.md` is its
//! specification, and the functions here follow that page row by row, one file a side.
//!
//! Default deny: a frame passes only if it reaches the end of its function.

mod arp;
pub(crate) mod client;
mod dhcp;
mod encapsulation;
mod ethernet;
mod nd;
mod outside;
mod owner;
mod port;
mod tunnel;
mod uplink;

pub(crate) use self::port::from_port;
pub(crate) use self::tunnel::{Remote, from_tunnel};
pub(crate) use self::uplink::from_uplink;
