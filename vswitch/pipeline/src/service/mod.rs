//! The gateway's own services, one file each. Each treats all sides alike, with the side as a
//! parameter.

mod arp;
mod dhcp;
mod dhcp6_server;
mod dhcp_server;
mod dns;
mod dns_forward;
mod echo;
mod icmp_report;
mod metadata;
mod nd;
mod shared;

use crate::pass::Sent;
use crate::tables::Target;

/// What the services made of a packet.
pub(crate) enum Served {
    /// They answered it.
    Answered(Sent),
    /// It is not for them; its destination leads there.
    Unserved(Option<Target>),
}

/// The owner of an address, as seen from the side of a solicitation.
enum Owner {
    /// The switch itself, which answers.
    Switch,
    /// Another station, for which the switch answers.
    Station,
    /// The sender of the solicitation.
    Sender,
    /// No station that this side may reach.
    None,
}
