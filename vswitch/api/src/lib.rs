//! The control API of a switch, for both of its sides, and the text formats that its programs
//! share: Prometheus metrics, tables for a terminal, and other processes' text made plain.
//!
//! The API is HTTP/1.1 with JSON on a unix socket. [`Endpoint`] is the table of its endpoints. The
//! server, the command line's `show`, the message of a 404 and the OpenAPI document take the paths,
//! methods, types and tables from there. Beside it, [`channel`] joins a switch and its
//! supervisor, and [`machine`] carries a host's words to the IKE daemon in a switch's machine.
#![forbid(unsafe_code)]

pub mod bounded;
pub mod channel;
#[cfg(feature = "client")]
pub mod client;
pub mod endpoint;
pub mod machine;
pub mod metrics;
pub mod openapi;
pub mod plain;
pub mod table;

pub use endpoint::Endpoint;

/// A request may have this header; its answer then has the same. Clients of a VM's switch share one
/// stream, and recognise their answer by it.
pub const REQUEST_ID: &str = "x-request-id";
/// The preference `wait` (RFC 7240): for how many seconds the client waits for the answer. A relay
/// on the way waits as long.
pub const PREFER: &str = "prefer";
