//! Ethernet frames: the buffer that holds one, the formats in it, and the reasons to drop one.
//!
//! This crate knows no port, table or configuration. The pipeline is built on it, and so can other
//! programs be that write or parse frames.
//!
//! Layers, from the bottom: [`hash`], [`addr`], [`number`] and [`PortSet`]; [`encapsulation`],
//! [`DropReason`] and [`refused`];
//! [`Frame`]; [`wire`].

#![forbid(unsafe_code)]

pub mod addr;
pub mod encapsulation;
mod frame;
pub mod hash;
pub mod number;
mod port_set;
mod reason;
pub mod refused;
pub mod wire;

pub use self::frame::{Buffer, Frame};
pub use self::port_set::{PortSet, factor_of};
pub use self::reason::DropReason;
