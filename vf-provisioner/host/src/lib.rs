#![forbid(unsafe_code)]

//! The host side: carves the NIC into tenants' ports and launches one switch per tenant.
//!
//! [`plan`](mod@plan) is pure: it turns wanted and observed [`resource`]s into ordered actions.
//! [`apply`] executes them with a journal in the [`state`] directory, reads back what it set, and
//! rolls back if a step fails; killed at any moment and run again, it converges. [`nic`] backends
//! carry frames, [`launcher`]s run switches.
//!
//! A file imports only lower layers: `key`, `error`, `object`; the objects in the folders;
//! `resource`; `state`, `plan`, `apply`, `verify`; backends and launchers; the registries on top.

pub mod accounts;
pub mod apply;
pub mod backup;
pub mod batch;
pub mod check;
mod child;
mod deadline;
pub mod error;
mod files;
pub mod finding;
pub mod history;
pub mod host;
pub mod hugepages;
pub mod interruption;
pub mod key;
mod kinds;
pub mod launcher;
pub mod look;
pub mod nic;
pub mod object;
mod parallel;
pub mod plan;
pub mod real_host;
mod released;
mod reserve;
pub mod resource;
pub mod state;
pub mod status;
pub mod supervise;
pub mod tenants;
pub mod verify;
