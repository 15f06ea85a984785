//! Why supervision ends.

use crate::error::HostError;
use crate::state::StateError;

/// Why supervision ended.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// Signals or descriptors cannot be waited for.
    #[error("cannot wait for events: {0}")]
    Wait(#[from] nix::Error),
    /// The supervisor could not watch so many tenants.
    #[error(
        "{tenants} tenants need {needed} descriptors and the hard limit is {limit}: raise it \
         (`ulimit -Hn`, LimitNOFILE= of a systemd unit)"
    )]
    Descriptors {
        /// The tenants.
        tenants: usize,
        /// The descriptors that they need at most.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// The kernel does not say what changes.
    #[error("cannot watch the port locks: {0}")]
    Locks(std::io::Error),
    /// The thread that keeps the port locks is gone.
    #[error("nothing watches the port locks: {0}")]
    NoKeeper(&'static str),
    /// The state directory failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The host failed.
    #[error(transparent)]
    Host(#[from] HostError),
}
