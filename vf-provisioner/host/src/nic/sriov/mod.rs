//! Virtual functions of SR-IOV NICs.
//!
//! Each port has two VFs on one PF: its T VF for the VM and its Gw VF for the switch, alone on a
//! VLAN of their own, so that the NIC's embedded switch can deliver a frame of the VM only to the
//! switch. The In/Out VF leads to the underlay, without a VLAN. [`inventory`] is what a host has,
//! [`allocate`] assigns it; both are pure. All settings are read back from the kernel, VF by VF.

pub mod allocate;
mod checks;
pub mod device;
pub mod function;
mod functions;
pub mod inventory;
pub(crate) mod knock;
mod netlink;
mod options;
mod plan;
mod pools;
mod process;
mod prove;
pub mod refusal;
pub mod setting;
pub mod stranger;
pub mod sysfs;
pub mod vlans;

pub use self::options::Options;
pub use self::plan::{Guests, Sriov};
