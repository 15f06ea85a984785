#![forbid(unsafe_code)]

//! The host side: carves the NIC into tenants' ports and launches one switch per tenant.
//!
//! [`plan`](mod@plan) is pure: from what is wanted and what is there to ordered actions on
//! [`resource`]s. [`apply`] executes them with a journal in the [`state`] directory, reads back what
//! it set, and rolls back if a step fails; killed at any moment and run again, it converges. What
//! carries frames is a [`nic`] backend, what runs switches a [`launcher`].
//!
//! A file imports only what is below it: `key`, `error`, `object`; then the folders' objects; `resource`;
//! `state`, `plan`, `apply`; then the backends and launchers; and the registries on top.

pub mod apply;
pub mod check;
pub mod error;
mod files;
pub mod finding;
pub mod host;
pub mod hugepages;
pub mod key;
mod kinds;
pub mod launcher;
pub mod nic;
pub mod object;
pub mod plan;
pub mod real_host;
pub mod resource;
pub mod state;
pub mod status;
pub mod supervise;
pub mod tenants;
