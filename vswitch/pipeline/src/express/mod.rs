//! Fast path for common frames.
//!
//! It forwards a frame only if the general path would do so too, byte for byte; any other frame it
//! leaves unchanged to the general path. So it holds no policy: everything unusual (a tag, an
//! option, a fragment, an extension header, ICMP, DHCP, limits, a drop of any kind) takes the
//! general path. The tests compare the two.
//!
//! There is a lane for each kind of burst: from a port, from the underlay, from the underlay of a
//! tunnel. What is the same for all frames of a burst is prepared when it begins; a frame's header
//! is then read in a few words and compared as a whole.

mod esp;
mod header;
mod port;
mod underlay;
mod waiting;

#[cfg(test)]
mod tests;

pub(crate) use self::esp::{Early, open_esp};
pub(crate) use self::header::{Decision, IntoTunnel, WayOut};
pub(crate) use self::port::{FromPort, enter_tunnel};
pub(crate) use self::underlay::FromUnderlay;
pub(crate) use self::waiting::Waiting;

use crate::counters::Counters;
use crate::state::State;
use crate::tables::{PortRules, Tables};

/// What serves a burst.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lane<'t> {
    /// The general path alone.
    General,
    /// From a tenant's port, where there is no tunnel.
    Port(FromPort<'t>),
    /// From a tenant's port, also into a tunnel that is plain to all peers.
    IntoTunnel(FromPort<'t>),
    /// From a tenant's port, also into a tunnel that IPsec protects to some peers.
    IntoProtectedTunnel(FromPort<'t>),
    /// From the underlay, where there is no tunnel.
    Plain(FromUnderlay<'t>),
    /// From the underlay, out of the tunnel or in plain.
    OutOfTunnel(FromUnderlay<'t>),
}

impl<'t> Lane<'t> {
    /// The lane of a burst from a port with these rules, or from the uplink.
    #[inline]
    pub(crate) fn new(
        tables: &'t Tables,
        counters: &'t Counters,
        state: &State,
        rules: Option<&'t PortRules>,
        now_ns: u64,
    ) -> Self {
        let Some(rules) = rules else {
            return match FromUnderlay::new(tables, counters, now_ns) {
                Some(lane) if tables.tunnel.is_some() => Self::OutOfTunnel(lane),
                Some(lane) => Self::Plain(lane),
                None => Self::General,
            };
        };
        let Some(port) = rules.express else {
            return Self::General;
        };
        let lane = FromPort::new(tables, counters, state, port);
        match &tables.tunnel {
            None => Self::Port(lane),
            Some(tunnel) if tunnel.ipsec.is_none() => Self::IntoTunnel(lane),
            Some(_) => Self::IntoProtectedTunnel(lane),
        }
    }
}
