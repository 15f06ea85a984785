//! Why supervision ends.

use crate::error::HostError;
use crate::state::StateError;

/// Why supervision ended.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// Signals or descriptors cannot be waited for.
    #[error("cannot wait for events: {0}")]
    Wait(#[from] nix::Error),
    /// The state directory failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The host failed.
    #[error(transparent)]
    Host(#[from] HostError),
}
