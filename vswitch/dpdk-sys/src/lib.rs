//! Raw bindings to Debian's libdpdk 22.11, linked statically.
//!
//! The shape is that of capsule's `capsule-ffi`: bindgen over DPDK's headers, and a C shim for what DPDK has only as
//! `static inline` functions. The names are DPDK's own; a function from the shim ends in `_shim`. Only
//! what the crate `dpdk` calls is bound, and only the drivers that a switch can use are linked: both lists
//! are in `build.rs`. Why it is so, and what was measured: `docs/decisions/0001-dpdk-bindings.md`.
#![allow(
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    rustdoc::all,
    clippy::all
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
