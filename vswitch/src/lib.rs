//! One tenant's virtual switch.

pub mod cli;
pub mod control;
pub mod dpdk;
pub mod sandbox;
pub mod vm;
pub mod worker;
