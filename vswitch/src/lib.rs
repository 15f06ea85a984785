//! One tenant's virtual switch.

pub mod dpdk;
pub mod pipeline;
pub mod reason;
