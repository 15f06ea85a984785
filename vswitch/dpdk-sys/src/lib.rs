//! Raw bindings to Debian's libdpdk 22.11, linked statically.
//!
//! The structure follows capsule's `capsule-ffi`: bindgen over DPDK's headers, and a C shim for
//! DPDK's `static inline` functions. Names are DPDK's; functions of the shim end in `_shim`. Only
//! what the crate `dpdk` calls is bound, and only drivers that a switch can use are linked: both
//! lists are in `build.rs`. Reasons and measurements: `docs/decisions/0001-dpdk-bindings.md`.
#![allow(
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    rustdoc::all,
    clippy::all
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
