//! ESP (RFC 4303) without I/O and without a clock: one security association (SA) at a time.
//!
//! An [`Outbound`] seals packets in place, an [`Inbound`] opens them in place. Neither knows
//! addresses, ports, devices or time: the caller finds the SA by its SPI, checks who sent the
//! packet, and puts the IP header around it.
//!
//! ```text
//!  0        8           8 + IV                                               len - ICV    len
//!  ┌────────┬───────────┬───────────────────────┬─────────┬─────────┬────────┬────────────┐
//!  │SPI  seq│ IV        │ payload               │ 1 2 3 … │ its len │ next   │ ICV        │
//!  └────────┴───────────┴───────────────────────┴─────────┴─────────┴────────┴────────────┘
//!                        └──────────────── encrypted ───────────────────────┘
//! ```
//!
//! - [`Suite`]: what is negotiated: lengths, names, what a packet costs in bytes
//! - [`Keys`]: secret bytes, never printed or serialised, wiped when dropped
//! - `transform`: the small trait behind which the libraries are
//! - [`Window`]: the anti-replay window with extended sequence numbers
//! - [`Lifetime`]: soft and hard limits
//!
//! The IV of an AEAD is the 64-bit sequence number (RFC 4106, section 3.1: a counter never
//! repeats), so the nonce is unique for as long as the key is used by one [`Outbound`] that never
//! goes back. CBC needs an IV that nobody foretells: the encrypted counter (NIST SP 800-38A,
//! appendix C).

#![forbid(unsafe_code)]

mod keys;
mod lifetime;
mod sa;
mod suite;
mod transform;
mod window;

pub use self::keys::{KeyError, Keys};
pub use self::lifetime::{Bounds, Lifetime, Phase};
pub use self::sa::{Exhausted, Inbound, OpenError, Opened, Outbound, Stamp};
pub use self::suite::Suite;
pub use self::window::{Stale, WINDOW_MAX, WINDOW_MIN, Window};

/// Bytes of the SPI and the sequence number.
pub const HEADER_LEN: usize = 8;
/// Bytes of the integrity check value; all suites have the same.
pub const ICV_LEN: usize = 16;
/// Bytes behind the padding: its length and the next header.
pub(crate) const TRAILER_LEN: usize = 2;

/// The SPI of an ESP packet; `None` if it ends before its payload could begin.
#[inline]
pub fn spi(packet: &[u8]) -> Option<u32> {
    let (spi, _) = packet.get(..HEADER_LEN)?.split_first_chunk()?;
    Some(u32::from_be_bytes(*spi))
}
