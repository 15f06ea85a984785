//! Ethernet frames: the buffer that holds one, and the reasons to drop one.
//!
//! This crate knows no port, table or configuration.

#![forbid(unsafe_code)]

mod frame;
mod reason;

pub use self::frame::Frame;
pub use self::reason::DropReason;
