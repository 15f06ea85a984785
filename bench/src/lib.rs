//! The benchmarks: what a frame costs in the pipeline alone, and what a whole switch carries beside its peers.
//!
//! ```text
//!  scenarios ──► site ──► network     a tenant's network and the frames that cross it
//!      │          │
//!      │          ├─────► switches    the switch under test: ours or a peer, on one CPU
//!      │          └─────► load        generator, tenant VMs and sink: a process on the other CPU
//!      └────────► report              tables, JSON, plots
//!
//!  stages                             the pipeline alone, in this process
//! ```
//!
//! Everything a switch under test is told follows from one [`SwitchConfig`](tenant_config::SwitchConfig): ours reads it,
//! the peers' rules are derived from it.

pub mod load;
pub mod network;
pub mod report;
pub mod scenarios;
pub mod site;
pub mod stages;
pub mod switches;
