//! Objects and helpers that any NIC backend may use.

pub mod bridge;
pub(crate) mod features;
pub mod guard;
pub mod link;
pub(crate) mod links;
pub(crate) mod listener;
pub(crate) mod loan;
pub mod names;
pub(crate) mod netlink;
pub mod netns;
pub(crate) mod nfnetlink;
pub(crate) mod nft;
pub(crate) mod packet_socket;
pub(crate) mod request;
pub(crate) mod tag;
