//! One tenant's virtual switch.
#![forbid(unsafe_code)]

pub mod cli;
pub mod control;
pub mod ike;
mod log;
pub mod metadata;
pub mod sandbox;
pub mod vm;
pub mod worker;
