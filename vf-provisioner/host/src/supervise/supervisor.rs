//! What all parts of the supervisor share, and the threads that do the slow work.

use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::{self, Scope};
use std::time::Duration;

use nix::sys::eventfd::EventFd;

use crate::launcher::switches::Switches;
use crate::real_host::RealHost;

/// How often the state directory is read for tenants that came or went.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What is reported of a thread without a result.
pub(super) const NO_THREAD: &str = "the thread for it could not be started, or has panicked";

/// The supervisor.
pub(super) struct Supervisor<'a> {
    /// The state directory.
    pub(super) dir: &'a Path,
    /// A host to verify.
    pub(super) host: &'a (dyn Fn() -> RealHost + Sync),
    pub(super) switches: &'a Switches,
    /// Rung when a thread has a result.
    pub(super) bell: EventFd,
    /// Held while objects are made that tenants may share.
    pub(super) making: Mutex<()>,
}

/// The work of a thread, until its result is taken.
pub(super) struct Job<T>(Receiver<T>);

/// What a job has come to.
pub(super) enum Progress<T> {
    Running,
    /// `None` if the thread could not be started, or has panicked.
    Finished(Option<T>),
}

impl<T> Job<T> {
    pub(super) fn progress(&self) -> Progress<T> {
        match self.0.try_recv() {
            Ok(result) => Progress::Finished(Some(result)),
            Err(TryRecvError::Empty) => Progress::Running,
            Err(TryRecvError::Disconnected) => Progress::Finished(None),
        }
    }
}

impl Supervisor<'_> {
    pub(super) fn spawn<'scope, T: Send + 'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> Job<T> {
        let (sender, receiver) = sync_channel(1);
        let thread = thread::Builder::new().spawn_scoped(scope, move || {
            // The receiver is gone if the tenant was released meanwhile.
            let _ = sender.send(work());
            // If the counter is full, the bell has rung already.
            let _ = self.bell.write(1);
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "no thread can be started");
        }
        Job(receiver)
    }
}
