//! Virtual functions of SR-IOV NICs.
//!
//! Each port has two on one physical function: its T VF for the VM and its Gw VF for the switch, alone on a VLAN of
//! their own, so that the NIC's embedded switch can give a frame of the VM to nobody but the switch. The In/Out VF
//! leads to the underlay, without a VLAN. [`inventory`] says what there is, [`allocate`] who gets what; both are data
//! and functions of data. What is set is read back from the kernel, function by function.

pub mod allocate;
mod checks;
pub mod function;
mod functions;
pub mod inventory;
mod netlink;
mod options;
mod plan;
mod prove;
pub mod refusal;
pub mod sysfs;
pub mod vlans;

pub use self::options::Options;
pub use self::plan::{Guests, Sriov};
