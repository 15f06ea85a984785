//! One tenant's virtual switch.

pub mod pipeline;
pub mod reason;
