//! The command line of [`vf_host`].

#![forbid(unsafe_code)]

mod cli;

pub use cli::{command, main};
