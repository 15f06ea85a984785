//! What a launcher's folder provides.

use super::process::plan::Process;
use super::{Launcher, Runner};
use crate::error::OptionError;
use crate::finding::Finding;

/// What a launcher's folder provides.
pub trait Kind: Runner {
    /// Its command-line options.
    type Options;

    /// The launcher for new switches. `base` is what they have in common.
    ///
    /// # Errors
    /// If the options are wrong for this host.
    fn launcher(options: &Self::Options, base: Process) -> Result<Box<dyn Launcher>, OptionError>;

    /// Whether this host has what the launcher needs.
    fn checks() -> Vec<Finding> {
        Vec::new()
    }
}
