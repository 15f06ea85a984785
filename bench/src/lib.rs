//! The benchmarks: the cost of a frame in the pipeline alone, and the throughput and latency of a
//! whole switch beside its peers.
//!
//! ```text
//!  scenarios ──► site ──► network     a tenant's network, and the path of frames through it
//!      │          │
//!      │          ├─────► switches    the switch under test: ours or a peer, on one CPU
//!      │          └─────► load        generator, tenant VMs and sink: a process on the other CPU
//!      ├────────► hosts               hosts that vf-provisioner looks after
//!      └────────► report              tables, JSON, plots
//!
//!  stages                             the pipeline alone, in this process
//!  compare ──► stages                 its instructions, also those of other commits
//!  machine, interrupt                 the machine, and an early end
//! ```
//!
//! The configuration of every switch under test follows from one
//! [`SwitchConfig`](tenant_config::SwitchConfig): ours reads it, the peers' rules are derived from
//! it.

#![forbid(unsafe_code)]

mod command;
pub mod compare;
pub mod hosts;
pub mod interrupt;
pub mod load;
pub mod machine;
pub mod network;
pub mod report;
pub mod scenarios;
pub mod site;
pub mod stages;
pub mod switches;
mod udp;
