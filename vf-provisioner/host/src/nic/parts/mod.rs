//! Objects and helpers that any NIC backend may use.

pub mod bridge;
pub mod guard;
pub mod link;
pub mod names;
pub(crate) mod netlink;
pub mod netns;
mod nft;
pub(crate) mod packet_socket;
pub(crate) mod tag;
