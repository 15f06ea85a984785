//! The formats on the wire: parse once, from bytes to a checked description of one packet, and
//! write.
//!
//! Everything that makes a packet malformed on any port is refused here, so that later stages
//! read fields and never lengths. One file a protocol; IPv4 and IPv6 are twins.

pub mod arp;
pub mod checksum;
pub mod dhcp;
pub mod dhcp6;
pub mod dhcp6_server;
pub mod dhcp_server;
pub mod dns;
pub mod dns_forward;
pub mod ecn;
pub mod esp;
pub mod ethernet;
mod field;
pub mod flow;
pub mod fragmentation;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod membership;
pub mod nd;
mod packet;
pub mod quote;
pub mod tcp;
mod transport;
pub mod tunnel;

pub use self::arp::Arp;
pub use self::ethernet::ETHERNET_LEN;
pub use self::field::{be16, be32, be128, mac_at};
pub use self::ipv4::Ipv4;
pub use self::ipv6::Ipv6;
pub use self::packet::{Ip, Packet};
pub use self::transport::{Fragment, Transport};
