#![forbid(unsafe_code)]

//! The host side: carves the NIC into tenants' ports and launches one switch per tenant.
//!
//! [`plan`](mod@plan) is pure: from what is wanted and what is there to ordered actions on
//! [`resource`]s. [`apply`] executes them with a journal in the [`state`] directory, reads back what
//! it set, and takes everything back if a step fails; killed at any moment and run again, it
//! converges. What carries frames is a [`nic`] backend, what runs switches a [`launcher`].

pub mod apply;
pub mod check;
pub mod host;
pub mod launcher;
pub mod nic;
pub mod plan;
pub mod real_host;
pub mod resource;
pub mod state;
pub mod status;
pub mod supervise;
pub mod tenants;
