//! Watches the switches: restarts dead ones, recreates what is missing, completes killed applies,
//! reports drift.
//!
//! One loop decides what to do. Slow work (a restart, asking a switch whether it forwards frames, a
//! repair, a verification) runs on a thread of its own, so that no tenant waits for another's
//! switch.

mod channel;
mod descriptors;
mod drift;
mod error;
mod events;
mod heal;
mod locks;
mod metrics;
mod recover;
mod restarts;
mod supervisor;
mod watchdog;

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Mutex;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use self::channel::Channels;
use self::drift::Drift;
pub use self::error::SuperviseError;
use self::events::{Event, Once, emit};
use self::heal::Healing;
use self::metrics::MetricsFile;
#[cfg(test)]
pub(crate) use self::metrics::rows as metrics_rows;
use self::recover::Recovery;
use self::restarts::{Watched, switches};
use self::supervisor::{Job, LOOK_EVERY, NO_THREAD, Progress, Supervisor};
use self::watchdog::Watchdog;
use crate::launcher::switches::Switches;
use crate::real_host::RealHost;
use crate::state;

/// Watches until SIGTERM or SIGINT, and then waits for the threads. `host` gives a host to verify.
pub fn run(
    dir: &Path,
    host: &(dyn Fn() -> RealHost + Sync),
    switches: &Switches,
    verify_every: Duration,
    metrics: Option<&Path>,
) -> Result<(), SuperviseError> {
    descriptors::raise(state::read(dir)?.tenants.len())?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    let signal = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let supervisor = Supervisor {
        dir,
        host,
        switches,
        bell: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        making: Mutex::default(),
    };
    let drift = Drift::new(verify_every);
    let metrics = metrics.map(MetricsFile::new);
    let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
    let signal = thread::scope(|scope| {
        let keeper = supervisor.spawn(scope, || locks::keep(dir, &supervisor.making, &stop));
        let ended = watch(&supervisor, scope, &signal, &keeper, drift, metrics);
        stop.write(1)?;
        ended
    })?;
    emit(&Event::Stopped { signal });
    Ok(())
}

/// The loop. Returns the name of the signal that ended it.
fn watch<'scope>(
    supervisor: &'scope Supervisor<'_>,
    scope: &'scope Scope<'scope, '_>,
    signal: &SignalFd,
    keeper: &Job<Result<(), SuperviseError>>,
    mut drift: Drift,
    mut metrics: Option<MetricsFile<'_>>,
) -> Result<&'static str, SuperviseError> {
    let mut watched = Watched::new();
    // Of every tenant, also while an apply is changing its switch.
    let mut channels = Channels::new();
    let mut healing = Healing::default();
    let mut recovery = Recovery::default();
    let mut state = state::read(supervisor.dir)?;
    let (mut unreadable, mut too_many) = (Once::default(), Once::default());
    let watchdog = Watchdog::new();
    let mut is_new = true;
    loop {
        // Without it nobody would hear of a lost lock: a new supervisor may.
        if let Progress::Finished(ended) = keeper.progress() {
            ended.unwrap_or(Err(SuperviseError::NoKeeper(NO_THREAD)))?;
        }
        // A damaged state, or a lack of descriptors, leaves no switch unwatched.
        let read = state::read(supervisor.dir).map(|now| state = now);
        unreadable.note(read, |error| Event::StateUnreadable { error });
        let enough = descriptors::enough(state.tenants.len());
        too_many.note(enough, |error| Event::TooManyTenants { error });
        let switches = switches(&state);
        watched.retain(|tenant, _| {
            let stays = switches.contains_key(tenant);
            // A switch that an apply is changing is watched again when the apply has ended.
            if !stays && !state.tenants.contains_key(tenant) {
                emit(&Event::Released { tenant });
            }
            stays
        });
        channels.retain(|tenant, _| state.tenants.contains_key(tenant));
        for (tenant, switch) in &switches {
            if !watched.contains_key(tenant) {
                emit(&Event::Watching { tenant });
            }
            let it = watched.entry(tenant.clone()).or_default();
            let channel = channels.entry(tenant.clone()).or_default();
            // First of all: what a switch reported before it died.
            supervisor.advance(switch, channel);
            let repair = healing.priority(tenant);
            let looked = supervisor.look(scope, switch, it, channel, repair);
            let failed = |error| Event::WatchFailed { tenant, error };
            it.trouble.note(looked, failed);
            if std::mem::take(&mut it.incomplete) {
                healing.begin(tenant);
            }
            // One tenant's log is no reason to leave the others unwatched.
            if let Err(error) = supervisor.collect_log(switch, channel) {
                tracing::warn!(%tenant, %error, "what its switch writes is not logged");
            }
        }
        healing.look(supervisor, scope, &state);
        recovery.look(supervisor, scope, &state);
        drift.look(supervisor, scope, &state, &watched);
        if let Some(metrics) = &mut metrics {
            metrics.write(&drift, &state, &watched);
        }
        match std::mem::replace(&mut is_new, false) {
            true => watchdog.ready(),
            false => watchdog.alive(),
        }
        if let Some(signal) = wait(supervisor, signal, &watched, &channels, &healing)? {
            return Ok(signal);
        }
    }
}

/// Waits for a death, a thread's result, a signal, or the next look.
fn wait(
    supervisor: &Supervisor<'_>,
    signal: &SignalFd,
    watched: &Watched,
    channels: &Channels,
    healing: &Healing,
) -> Result<Option<&'static str>, nix::Error> {
    let now = Instant::now();
    let next = watched
        .values()
        .filter_map(|it| it.next_try)
        .chain(healing.next_try())
        .map(|next| next.saturating_duration_since(now))
        .fold(LOOK_EVERY, Duration::min);
    let mut fds = vec![
        PollFd::new(signal.as_fd(), PollFlags::POLLIN),
        PollFd::new(supervisor.bell.as_fd(), PollFlags::POLLIN),
    ];
    for pidfd in watched.values().filter_map(|it| it.pidfd.as_ref()) {
        fds.push(PollFd::new(pidfd.as_fd(), PollFlags::POLLIN));
    }
    // Nobody reads the channel of a switch that an apply is changing, so it would stay readable.
    let read = channels
        .iter()
        .filter(|(tenant, _)| watched.contains_key(*tenant));
    let hellos = read.filter_map(|(_, channel)| channel.hello());
    fds.extend(hellos.map(|hello| PollFd::new(hello, PollFlags::POLLIN)));
    let next = PollTimeout::try_from(next).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, next) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(errno) => return Err(errno),
    }
    match supervisor.bell.read() {
        Ok(_) | Err(nix::Error::EAGAIN) => {}
        Err(errno) => return Err(errno),
    }
    Ok(match signal.read_signal()? {
        Some(info) if info.ssi_signo == Signal::SIGINT as u32 => Some("SIGINT"),
        Some(_) => Some("SIGTERM"),
        None => None,
    })
}
