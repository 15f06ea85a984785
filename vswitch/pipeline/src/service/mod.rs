//! The gateway's own services, one file each. Each treats all sides alike, with the side as a
//! parameter.

mod arp;
mod dhcp;
mod echo;
mod nd;

use crate::pass::Sent;
use crate::tables::Target;

/// What the services made of a packet.
pub(crate) enum Served {
    /// They answered it.
    Answered(Sent),
    /// It is not for them; its destination leads there.
    Unserved(Option<Target>),
}

/// Who has an address, as the side that asks sees it.
enum Owner {
    /// The switch itself, which answers.
    Switch,
    /// Another station, for which the switch answers.
    Station,
    /// The station that asks.
    Asker,
    /// Nobody that this side may reach.
    Nobody,
}
