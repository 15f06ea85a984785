//! Fast path for common frames.
//!
//! It forwards a frame only if the general path would do so too, byte for byte; any other frame it
//! leaves unchanged to the general path. So it holds no policy: everything unusual (a tag, an
//! option, a fragment, an extension header, ICMP, DHCP, limits, a drop of any kind) takes the
//! general path. The tests compare the two.

mod header;
mod port;
mod underlay;

#[cfg(test)]
mod tests;

pub(crate) use self::port::forward;
pub(crate) use self::underlay::{decapsulate, deliver};
