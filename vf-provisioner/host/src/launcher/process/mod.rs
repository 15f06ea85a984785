//! The default launcher: a switch is a confined process in namespaces of its own.

mod options;
pub mod plan;
mod run;

pub use self::options::Options;
pub use self::plan::{Limits, Process};
pub use self::run::Confined;
