//! IPsec of the tunnel: what the thread that negotiates keys and the worker say to each other, and
//! the SAs that the worker uses. `docs/reference/ipsec.md` is the specification.
//!
//! - `request`: an SA as it was negotiated
//! - `rules`: what the configuration allows; an SA that it does not allow cannot be made
//! - `sa`: security associations, one a direction, and their counters
//! - `link`: orders to the worker, notices from it, IKE datagrams both ways
//! - `view`: what is shown of them
//! - `table`: the SAs of one worker
//! - `obey`: what the worker does with orders, and with time

pub(crate) mod link;
pub(crate) mod obey;
pub(crate) mod request;
pub(crate) mod rules;
pub(crate) mod sa;
pub(crate) mod table;
pub(crate) mod view;

pub use self::link::{Channel, DATAGRAM_MAX, Datagram, Direction, Notice, Order, Retired};
pub use self::request::{Mode, Request, UdpPorts};
pub use self::rules::{Refused, Rules};
pub use self::sa::{InboundSa, OutboundSa};
pub use self::view::{EndpointCounters, SaCounters, SaView, ShownSa};
pub use esp::{Bounds, KeyError, Keys, Lifetime, Suite, WINDOW_MAX, WINDOW_MIN};
