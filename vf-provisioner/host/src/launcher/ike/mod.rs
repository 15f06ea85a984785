//! A tenant's IKE daemon: strongSwan's charon with a plugin by which the tenant's switch is its
//! network and the place where its keys are used.
//!
//! It is a process beside the switch, of another user, in namespaces of its own without any
//! network. It sees two folders: that of the switch's socket and that of its own. We configure it
//! over the latter ([`vici`]). Beside a switch in a machine it runs there, where the machine's
//! init starts it, and we configure it over a port of the machine ([`port`]). If the switch ends,
//! so does the daemon; it is started again behind it, and negotiates anew: no key outlives either.

mod certificate;
mod daemon;
pub mod make;
mod port;
mod run;
mod secret;
mod settings;
mod vici;

use tenant_config::Name;

pub use self::certificate::{Certificate, Expiry, RevocationList};
pub use self::daemon::{Association, Ike, Place, uid_beside};
pub(crate) use self::run::{
    IkeFiles, PORT, SWITCH_INSIDE, SWITCH_SOCKET, all_files, expiries, listen_folder,
    make_listen_folder,
};
pub use self::secret::{FileError, Secret};
use crate::error::HostError;
use crate::object::{Context, Live};

impl Live for Ike {
    fn observe(&self, context: &Context) -> Result<Option<Self>, HostError> {
        Ok(IkeFiles::new(context, &self.tenant).observe())
    }

    fn create(&self, context: &Context) -> Result<(), HostError> {
        run::start(context, self, 0)
    }

    fn update(&self, context: &Context) -> Result<(), HostError> {
        run::reload(context, self)
    }

    fn delete(&self, context: &Context) -> Result<(), HostError> {
        run::stop(context, self)
    }
}

/// Starts the daemon behind a switch that was started anew, if it has ended; `restarts` is counted
/// on. One in a machine is started by the machine, and configured.
///
/// # Errors
/// If it does not start or refuses its configuration.
pub(crate) fn restart(context: &Context, ike: &Ike) -> Result<(), HostError> {
    let restarts = IkeFiles::new(context, &ike.tenant).restarts();
    run::start(context, ike, restarts + 1)
}

/// Starts the daemon that a tenant had, if it has ended with its switch.
///
/// # Errors
/// If it does not start or refuses its configuration.
pub(crate) fn start_again(context: &Context, tenant: &Name) -> Result<(), HostError> {
    match IkeFiles::new(context, tenant).last() {
        Some(ike) => run::start(context, &ike, 0),
        None => Ok(()),
    }
}

/// Gives the running daemon its files once more: keys that were replaced are valid from then on,
/// and no association is lost.
///
/// # Errors
/// If a file cannot be used, or the daemon refuses it.
pub(crate) fn reload(context: &Context, ike: &Ike) -> Result<(), HostError> {
    run::reload(context, ike)
}
