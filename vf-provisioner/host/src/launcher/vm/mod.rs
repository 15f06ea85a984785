//! A switch in a virtual machine of its own: one QEMU per tenant, confined like a switch that is a
//! process, or run by libvirt.

mod image;
mod libvirt;
pub mod machine;
mod options;
mod plan;
mod qemu;
mod qmp;
mod run;
mod settings;
pub mod tap;

pub use self::options::Options;
pub use self::run::{Libvirt, Qemu, domain};
