//! Watches the switches: restarts dead ones, recreates what is missing, completes killed applies,
//! reports drift.
//!
//! One loop decides what to do. Slow work (a restart, asking a switch whether it forwards frames, a
//! repair, a verification) runs on a thread of its own, so that no tenant waits for another's
//! switch.

mod carrier;
mod channel;
mod descriptors;
mod drift;
mod error;
mod events;
mod heal;
mod ike;
mod locks;
mod mend;
mod metrics;
mod pauses;
mod recover;
mod report;
mod restarts;
mod supervisor;
mod watchdog;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use self::carrier::Carriers;
use self::channel::Channels;
use self::drift::Drift;
pub use self::error::SuperviseError;
use self::events::{Event, Once, emit};
use self::heal::Healing;
use self::ike::Daemons;
pub use self::mend::{Mend, MendRule, Policy};
use self::metrics::MetricsFile;
#[cfg(test)]
pub(crate) use self::metrics::rows as metrics_rows;
use self::pauses::Pauses;
use self::recover::Recovery;
use self::report::TroublesFile;
pub use self::report::{Trouble, Troubles, troubles};
use self::restarts::{Watched, room, switches};
use self::supervisor::{Job, LOOK_EVERY, NO_THREAD, Progress, Supervisor};
use self::watchdog::Watchdog;
use crate::launcher::switches::Switches;
use crate::real_host::RealHost;
use crate::state::{self, State};

/// How the supervisor works.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The pause between two verifications; zero is never.
    pub verify_every: Duration,
    /// What is done about the drift that they find.
    pub policy: Policy,
    /// The metrics file.
    pub metrics: Option<PathBuf>,
}

/// Watches until SIGTERM or SIGINT, and then waits for the threads. `host` gives a host to verify.
pub fn run(
    dir: &Path,
    host: &(dyn Fn() -> RealHost + Sync),
    switches: &Switches,
    options: &Options,
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
    let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
    let signal = thread::scope(|scope| {
        let keeper = supervisor.spawn(scope, || locks::keep(dir, &supervisor.making, &stop));
        let ended = watch(&supervisor, scope, &signal, &keeper, options);
        stop.write(1)?;
        ended
    })?;
    // Nobody tries any more.
    TroublesFile::new(dir).write(Troubles::new());
    emit(&Event::Stopped { signal });
    Ok(())
}

/// The loop. Returns the name of the signal that ended it.
fn watch<'scope>(
    supervisor: &'scope Supervisor<'_>,
    scope: &'scope Scope<'scope, '_>,
    signal: &SignalFd,
    keeper: &Job<Result<(), SuperviseError>>,
    options: &Options,
) -> Result<&'static str, SuperviseError> {
    let mut watched = Watched::new();
    // Of every tenant, also while an apply is changing its switch.
    let mut channels = Channels::new();
    let mut healing = Healing::new(options.policy.clone(), options.verify_every);
    let mut drift = Drift::new(options.verify_every);
    let mut metrics = options.metrics.as_deref().map(MetricsFile::new);
    let mut troubles = TroublesFile::new(supervisor.dir);
    let mut recovery = Recovery::default();
    let mut carriers = Carriers::default();
    let mut pauses = Pauses::default();
    let mut state = State::default();
    let mut reader = state::Reader::default();
    let mut daemons = Daemons::default();
    let (mut unreadable, mut too_many) = (Once::default(), Once::default());
    let watchdog = Watchdog::new();
    let mut is_new = true;
    loop {
        // Without it nobody would hear of a lost lock: a new supervisor may.
        if let Progress::Finished(ended) = keeper.progress() {
            ended.unwrap_or(Err(SuperviseError::NoKeeper(NO_THREAD)))?;
        }
        // A damaged state, or a lack of descriptors, leaves no switch unwatched.
        let read = reader.read(supervisor.dir).map(|now| {
            if let Some(now) = now {
                state = now;
            }
        });
        unreadable.note(read, |error| Event::StateUnreadable { error });
        let enough = descriptors::enough(state.tenants.len());
        too_many.note(enough, |error| Event::TooManyTenants { error });
        let switches = switches(&state);
        watched.retain(|tenant, _| {
            let stays = switches.contains_key(tenant);
            // A switch that an apply is changing is watched again when the apply has ended.
            if !stays && !state.tenants.contains_key(tenant) {
                let mut others = state.tenants.iter();
                emit(
                    &match others.find(|(_, it)| it.formerly.as_ref() == Some(tenant)) {
                        Some((to, _)) => Event::Renamed { tenant, to },
                        None => Event::Released { tenant },
                    },
                );
            }
            stays
        });
        channel::rename(&mut channels, &state);
        channels.retain(|tenant, _| state.tenants.contains_key(tenant));
        let mut room = room(&watched);
        for (tenant, switch) in &switches {
            if !watched.contains_key(tenant) {
                emit(&Event::Watching { tenant });
            }
            let it = watched.entry(tenant.clone()).or_default();
            let channel = channels.entry(tenant.clone()).or_default();
            // First of all: what a switch reported before it died.
            supervisor.advance(switch, channel);
            let repair = healing.priority(tenant);
            let looked = supervisor.look(scope, switch, it, channel, repair, &mut room);
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
        drift.look(supervisor, scope, &state, &watched, &mut healing);
        carriers.look(&state);
        pauses.look(&state);
        daemons.look(supervisor, scope, &state, &watched);
        let now = all_troubles(&watched, &healing, &daemons, &state);
        if let Some(metrics) = &mut metrics {
            let seen = metrics::Seen {
                drift: &drift,
                state: &state,
                watched: &watched,
                healing: &healing,
                troubles: &now,
                carriers: &carriers,
                daemons: &daemons,
            };
            metrics.write(&seen);
        }
        troubles.write(now);
        match std::mem::replace(&mut is_new, false) {
            true => watchdog.ready(),
            false => watchdog.alive(),
        }
        if let Some(signal) = wait(supervisor, signal, &watched, &channels, &healing, &daemons)? {
            return Ok(signal);
        }
    }
}

/// The tenants that are not as they were set.
fn all_troubles(
    watched: &Watched,
    healing: &Healing,
    daemons: &Daemons,
    state: &State,
) -> Troubles {
    let mut troubles = Troubles::new();
    daemons.troubles(&mut troubles);
    restarts::troubles(watched, &mut troubles);
    healing.troubles(&mut troubles);
    troubles.retain(|tenant, _| state.tenants.contains_key(tenant));
    troubles
}

/// Waits for a death, a thread's result, a signal, or the next look.
fn wait(
    supervisor: &Supervisor<'_>,
    signal: &SignalFd,
    watched: &Watched,
    channels: &Channels,
    healing: &Healing,
    daemons: &Daemons,
) -> Result<Option<&'static str>, nix::Error> {
    let now = Instant::now();
    let next = watched
        .values()
        .filter(|it| !it.queued)
        .filter_map(|it| it.next_try)
        .chain(healing.next_try())
        .map(|next| next.saturating_duration_since(now))
        .fold(LOOK_EVERY, Duration::min);
    let mut fds = vec![
        PollFd::new(signal.as_fd(), PollFlags::POLLIN),
        PollFd::new(supervisor.bell.as_fd(), PollFlags::POLLIN),
    ];
    let switches = watched.values().filter_map(|it| it.pidfd.as_ref());
    for pidfd in switches.chain(daemons.pidfds()) {
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
