//! The control API of a switch, for both of its sides, and the two text formats that its programs
//! share: Prometheus metrics and tables for a terminal.
#![forbid(unsafe_code)]

pub mod metrics;
pub mod table;
