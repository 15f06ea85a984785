//! How an operation on the host fails.

use nix::errno::Errno;

use crate::key::Key;

/// A failure of one operation on the host, as a sentence.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A system call or file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The kernel refused a netlink request.
    #[error("{what}: {source}")]
    Netlink {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: rtnetlink::Error,
    },
    /// A program that does part of the work failed.
    #[error("{program} failed: {message}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What it wrote, or why it did not start.
        message: String,
    },
    /// A setting reads back differently.
    #[error("{key} was set but reads back differently: {differences}")]
    ReadBack {
        /// The object.
        key: Key,
        /// The values that differ.
        differences: String,
    },
    /// A switch did not come up.
    #[error("the switch of tenant {tenant} is not ready: {message}")]
    NotReady {
        /// Whose.
        tenant: tenant_config::Name,
        /// What was seen.
        message: String,
    },
    /// An IKE daemon does not run, or cannot be configured.
    #[error("the IKE daemon of tenant {tenant}: {message}")]
    Ike {
        /// Whose.
        tenant: tenant_config::Name,
        /// What was seen.
        message: String,
    },
    /// The answer to a probe's frames was wrong or missing.
    #[error("port {port}: {message}")]
    Probe {
        /// The port.
        port: tenant_config::Name,
        /// What was seen.
        message: String,
    },
    /// What several objects depend on could not be read.
    #[error("{0}")]
    Shared(std::sync::Arc<HostError>),
}

impl HostError {
    /// The number of the kernel's error, if it is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::Netlink {
                source: rtnetlink::Error::NetlinkError(message),
                ..
            } => Some(Errno::from_raw(message.raw_code().saturating_neg())),
            _ => None,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn sys(what: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let what = what.into();
        move |errno| Self::Io {
            what,
            source: errno.into(),
        }
    }
}

/// Why a backend or launcher cannot be made from its options.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// The options are wrong for this host.
    #[error("{0}")]
    Usage(String),
    /// The host could not be read.
    #[error(transparent)]
    Host(#[from] HostError),
}
