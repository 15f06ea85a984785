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
//!  compare ──► stages                 its instructions, also those of other commits
//!  machine, interrupt                 what it all runs on, and how it ends before its time
//! ```
//!
//! Everything a switch under test is told follows from one [`SwitchConfig`](tenant_config::SwitchConfig): ours reads it,
//! the peers' rules are derived from it.

mod command;
pub mod compare;
pub mod interrupt;
pub mod load;
pub mod machine;
pub mod network;
pub mod report;
pub mod scenarios;
pub mod site;
pub mod stages;
pub mod switches;
