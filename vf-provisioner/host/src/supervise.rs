//! Watches the switches: starts a dead one again, reports drift.
//!
//! One loop sees what is to be done. What may take its time (a restart, asking a switch whether it executes anything, a look for
//! drift) is done by a thread of its own, so that no tenant waits for another's switch.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::pidfd_send_signal;
use serde::Serialize;
use tenant_config::Name;
use vswitch_api::metrics::{Metric, Unit, Writer};

use crate::apply::{ApplyError, verify};
use crate::error::HostError;
use crate::files::replace;
use crate::launcher::switch::Switch;
use crate::launcher::switches::Switches;
use crate::real_host::RealHost;
use crate::state::{self, Held, State, StateError, Store};

/// How often the state directory is looked at for tenants that came or went.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often a switch that is alive is asked whether it executes anything.
const ASK_EVERY: Duration = Duration::from_secs(3);
/// The first restart is immediate; each further one within [`CALM`] waits twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const CALM: Duration = Duration::from_secs(60);
const NO_THREAD: &str = "the thread that was to do it could not be started, or has panicked";

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

/// What happened, one JSON object per line on standard output.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Watching {
        tenant: &'a Name,
    },
    Down {
        tenant: &'a Name,
    },
    /// It is alive and executes nothing: it is ended, to be started again.
    Stuck {
        tenant: &'a Name,
        why: String,
    },
    Restarted {
        tenant: &'a Name,
        /// From its death being seen to its being ready again.
        outage_s: f64,
    },
    RestartFailed {
        tenant: &'a Name,
        error: String,
        next_try_s: f64,
    },
    Released {
        tenant: &'a Name,
    },
    Drift {
        found: Vec<String>,
    },
    VerifyFailed {
        error: String,
    },
    Stopped {
        signal: &'static str,
    },
}

fn since_epoch() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// What the looks for drift have come to.
#[derive(Default)]
struct Seen {
    looks: u64,
    /// Seconds since the epoch.
    at: f64,
    /// How much was not as it was set, if it could be seen.
    drift: Option<usize>,
    written: String,
}

impl Seen {
    /// In Prometheus' text format.
    fn metrics(&self, state: &State, watched: &Watch) -> String {
        let mut out = Writer::default();
        out.single(&VERIFICATIONS, [], self.looks);
        if self.looks > 0 {
            out.single(&VERIFIED, [], self.at);
            out.single(&VERIFY_FAILED, [], self.drift.is_none());
        }
        if let Some(drift) = self.drift {
            out.single(&DRIFT, [], drift as u64);
        }
        if !watched.is_empty() {
            let mut up = out.family(&SWITCH_UP);
            for (tenant, it) in watched {
                up.sample([tenant.as_str()], it.down_since.is_none());
            }
        }
        let accepted: Vec<_> = state
            .tenants
            .iter()
            .flat_map(|(tenant, record)| record.accepted().into_iter().map(move |it| (tenant, it)))
            .collect();
        if !accepted.is_empty() {
            let mut family = out.family(&NIC_ACCEPTED);
            for (tenant, setting) in accepted {
                family.sample([tenant.as_str(), setting.as_str()], true);
            }
        }
        out.finish()
    }
}

const VERIFICATIONS: Metric<0> = Metric::counter(
    "vf_provisioner_verifications_total",
    Unit::Number,
    [],
    "Looks for drift since the supervisor's start.",
);
const VERIFIED: Metric<0> = Metric::gauge(
    "vf_provisioner_verified_timestamp_seconds",
    Unit::Seconds,
    [],
    "When the last look for drift ended.",
);
const VERIFY_FAILED: Metric<0> = Metric::gauge(
    "vf_provisioner_verify_failed",
    Unit::Bool,
    [],
    "1 if the last look for drift could not be made.",
);
const DRIFT: Metric<0> = Metric::gauge(
    "vf_provisioner_drift",
    Unit::Number,
    [],
    "What was not as it was set, at the last look.",
);
const SWITCH_UP: Metric<1> = Metric::gauge(
    "vf_provisioner_switch_up",
    Unit::Bool,
    ["tenant"],
    "1 while the tenant's switch runs.",
);
const NIC_ACCEPTED: Metric<2> = Metric::gauge(
    "vf_provisioner_nic_accepted",
    Unit::Bool,
    ["tenant", "setting"],
    "Settings of virtual functions that the tenant's file lets the NIC lack.",
);

fn say(event: &Event<'_>) {
    let now = since_epoch();
    let mut line = serde_json::json!({ "time": now });
    if let (Some(line), Ok(serde_json::Value::Object(event))) =
        (line.as_object_mut(), serde_json::to_value(event))
    {
        line.extend(event);
    }
    let mut out = std::io::stdout().lock();
    // Where nobody reads, the switches are watched all the same.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

type Watch = BTreeMap<Name, Watched>;

#[derive(Default)]
struct Watched {
    /// Held while it is alive.
    pidfd: Option<OwnedFd>,
    /// When its death was seen.
    down_since: Option<Instant>,
    last_start: Option<Instant>,
    /// When it was last asked whether it executes anything.
    asked: Option<Instant>,
    wait: Duration,
    next_try: Option<Instant>,
    question: Option<Job<Option<String>>>,
    restart: Option<Job<Attempt>>,
}

/// What a thread is doing, and will say when it has.
struct Job<T>(Receiver<T>);

enum Done<T> {
    NotYet,
    /// `None` if the thread could not be started, or has panicked.
    With(Option<T>),
}

impl<T> Job<T> {
    fn look(&self) -> Done<T> {
        match self.0.try_recv() {
            Ok(result) => Done::With(Some(result)),
            Err(TryRecvError::Empty) => Done::NotYet,
            Err(TryRecvError::Disconnected) => Done::With(None),
        }
    }
}

/// What came of a restart.
enum Attempt {
    /// It runs, or is to run no longer, or an apply is about it.
    NotOurs,
    /// Since then it is ready.
    Ready(Instant),
    Failed(String),
}

/// What came of a look for drift; `None` if an apply is under way, whose unfinished work is no drift.
type Look = Result<Option<Vec<String>>, ApplyError>;

/// Watches until SIGTERM or SIGINT, and then ends what is under way. `host` gives a host to look for drift at.
pub fn run(
    dir: &Path,
    host: &(dyn Fn() -> RealHost + Sync),
    switches: &Switches,
    verify_every: Duration,
    metrics: Option<&Path>,
) -> Result<(), SuperviseError> {
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
    };
    let signal = thread::scope(|scope| supervisor.watch(scope, &signal, verify_every, metrics))?;
    say(&Event::Stopped { signal });
    Ok(())
}

struct Supervisor<'a> {
    dir: &'a Path,
    host: &'a (dyn Fn() -> RealHost + Sync),
    switches: &'a Switches,
    /// Rung when a thread has something to say.
    bell: EventFd,
}

impl Supervisor<'_> {
    /// Says which signal ended it.
    fn watch<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        signal: &SignalFd,
        verify_every: Duration,
        metrics: Option<&Path>,
    ) -> Result<&'static str, SuperviseError> {
        let mut watched = Watch::new();
        let mut looking: Option<Job<Look>> = None;
        // Never, where that is beyond all time.
        let after = |pause: Duration| Instant::now().checked_add(pause);
        let mut look_due = after(verify_every).filter(|_| !verify_every.is_zero());
        let mut seen = Seen::default();
        loop {
            let state = state::read(self.dir)?;
            let switches = switches(&state);
            watched.retain(|tenant, _| {
                let stays = switches.contains_key(tenant);
                // One whose apply is under way is watched again when that is over.
                if !stays && !state.tenants.contains_key(tenant) {
                    say(&Event::Released { tenant });
                }
                stays
            });
            for (tenant, switch) in &switches {
                if !watched.contains_key(tenant) {
                    say(&Event::Watching { tenant });
                }
                let it = watched.entry(tenant.clone()).or_default();
                self.look(scope, switch, it)?;
                // One tenant's log is no reason to leave the others unwatched.
                if let Err(error) = self.switches.trim_log(tenant) {
                    tracing::warn!(%tenant, %error, "the log stays as it is");
                }
            }
            match looking.as_ref().map(Job::look) {
                Some(Done::NotYet) => {}
                Some(Done::With(look)) => {
                    looking = None;
                    // One that could not be made is made up for.
                    let next = if seen.note(look) {
                        verify_every
                    } else {
                        LOOK_EVERY
                    };
                    look_due = after(next);
                }
                None => {
                    let due = look_due.is_some_and(|due| Instant::now() >= due);
                    if due && !state.tenants.is_empty() {
                        let restarting = restarting(&watched);
                        looking = Some(self.spawn(scope, move || self.drift(&restarting)));
                    }
                }
            }
            if let Some(file) = metrics {
                let text = seen.metrics(&state, &watched);
                if text != seen.written {
                    // Whoever reads them sees by their age that they are no longer written.
                    match replace(file, text.as_bytes(), 0o644) {
                        Ok(()) => seen.written = text,
                        Err(error) => tracing::warn!(file = %file.display(), %error, "no metrics"),
                    }
                }
            }
            if let Some(signal) = self.wait(signal, &watched)? {
                return Ok(signal);
            }
        }
    }

    fn spawn<'scope, T: Send + 'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> Job<T> {
        let (say, hear) = sync_channel(1);
        let thread = thread::Builder::new().spawn_scoped(scope, move || {
            // Nobody hears it where the tenant has gone meanwhile.
            let _ = say.send(work());
            // A full counter has rung already.
            let _ = self.bell.write(1);
        });
        if let Err(error) = thread {
            tracing::warn!(%error, "no thread can be started");
        }
        Job(hear)
    }

    fn look<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        switch: &Switch,
        it: &mut Watched,
    ) -> Result<(), SuperviseError> {
        let tenant = &switch.tenant;
        if let Some(job) = &it.restart {
            let Done::With(attempt) = job.look() else {
                return Ok(());
            };
            it.restart = None;
            it.settle(tenant, attempt);
        }
        if is_alive(it)? {
            self.ask(scope, switch, it);
            return Ok(());
        }
        it.question = None;
        it.pidfd = self.switches.pidfd(tenant)?;
        if it.pidfd.is_some() {
            // It runs: seen for the first time, or started by an apply or by us.
            it.down_since = None;
            it.last_start.get_or_insert_with(Instant::now);
            return Ok(());
        }
        if it.down_since.is_none() {
            say(&Event::Down { tenant });
            it.down_since = Some(Instant::now());
        }
        let calm = it.last_start.is_none_or(|last| last.elapsed() > CALM);
        if it.next_try.is_none() && calm {
            it.wait = Duration::ZERO;
        }
        let next = *it.next_try.get_or_insert_with(|| Instant::now() + it.wait);
        if Instant::now() < next {
            return Ok(());
        }
        it.next_try = None;
        let switch = switch.clone();
        it.restart = Some(self.spawn(scope, move || {
            self.restart(&switch)
                .unwrap_or_else(|error| Attempt::Failed(error.to_string()))
        }));
        Ok(())
    }

    /// Ends a switch that is alive and executes nothing, when it was asked and has not answered.
    fn ask<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        switch: &Switch,
        it: &mut Watched,
    ) {
        match it.question.as_ref().map(Job::look) {
            Some(Done::NotYet) => {}
            Some(Done::With(answer)) => {
                it.question = None;
                it.asked = Some(Instant::now());
                if let Some(why) = answer.flatten() {
                    let tenant = &switch.tenant;
                    say(&Event::Stuck { tenant, why });
                    if let Some(pidfd) = &it.pidfd {
                        // It may have ended meanwhile; its death is seen at the next look.
                        let _ = pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
                    }
                }
            }
            None if it.asked.is_none_or(|last| last.elapsed() > ASK_EVERY) => {
                let switch = switch.clone();
                it.question = Some(self.spawn(scope, move || self.switches.stuck(&switch)));
            }
            None => {}
        }
    }

    /// Starts a dead switch again. Whoever applies or releases goes first; afterwards the switch may run or be gone.
    fn restart(&self, switch: &Switch) -> Result<Attempt, SuperviseError> {
        let tenant = &switch.tenant;
        let held = Held::try_hold(self.dir, tenant);
        let state = state::read(self.dir)?;
        if switches(&state).get(tenant) != Some(switch) || self.switches.pidfd(tenant)?.is_some() {
            return Ok(Attempt::NotOurs);
        }
        // A release takes the directory away, and then the tenant is not to run: so this is somebody else's doing.
        let Some(_held) = held? else {
            return Ok(Attempt::NotOurs);
        };
        Ok(match self.switches.restart(switch) {
            Ok(()) => Attempt::Ready(Instant::now()),
            Err(error) => Attempt::Failed(error.to_string()),
        })
    }

    /// What is not as it was set, of all but those tenants.
    fn drift(&self, except: &BTreeSet<Name>) -> Look {
        let Some(store) = Store::try_open(self.dir)? else {
            return Ok(None);
        };
        let found = verify(&mut (self.host)(), store.state(), except);
        store.remove_if_empty()?;
        found.map(Some)
    }

    /// Waits for a death, a thread's word, a signal, or the next look.
    fn wait(&self, signal: &SignalFd, watched: &Watch) -> Result<Option<&'static str>, nix::Error> {
        let now = Instant::now();
        let next = watched
            .values()
            .filter_map(|it| it.next_try)
            .map(|next| next.saturating_duration_since(now))
            .fold(LOOK_EVERY, Duration::min);
        let mut fds = vec![
            PollFd::new(signal.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.bell.as_fd(), PollFlags::POLLIN),
        ];
        for pidfd in watched.values().filter_map(|it| it.pidfd.as_ref()) {
            fds.push(PollFd::new(pidfd.as_fd(), PollFlags::POLLIN));
        }
        let next = PollTimeout::try_from(next).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, next) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        match self.bell.read() {
            Ok(_) | Err(nix::Error::EAGAIN) => {}
            Err(errno) => return Err(errno),
        }
        Ok(match signal.read_signal()? {
            Some(info) if info.ssi_signo == Signal::SIGINT as u32 => Some("SIGINT"),
            Some(_) => Some("SIGTERM"),
            None => None,
        })
    }
}

impl Watched {
    /// Takes note of what came of a restart; `None` if its thread came to nothing.
    fn settle(&mut self, tenant: &Name, attempt: Option<Attempt>) {
        if matches!(attempt, Some(Attempt::NotOurs)) {
            self.next_try = Some(Instant::now() + LOOK_EVERY);
            return;
        }
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
        self.last_start = Some(Instant::now());
        let error = match attempt {
            Some(Attempt::Ready(at)) => {
                let down_since = self.down_since.take().unwrap_or(at);
                return say(&Event::Restarted {
                    tenant,
                    outage_s: at.saturating_duration_since(down_since).as_secs_f64(),
                });
            }
            Some(Attempt::Failed(error)) => error,
            _ => NO_THREAD.to_owned(),
        };
        say(&Event::RestartFailed {
            tenant,
            error,
            next_try_s: self.wait.as_secs_f64(),
        });
    }
}

impl Seen {
    /// Takes note of a look for drift, and says whether it was made; `None` if its thread came to nothing.
    fn note(&mut self, look: Option<Look>) -> bool {
        let found = match look {
            Some(Ok(None)) => return false,
            Some(Ok(Some(found))) => Ok(found),
            Some(Err(error)) => Err(error.to_string()),
            None => Err(NO_THREAD.to_owned()),
        };
        self.looks += 1;
        self.at = since_epoch();
        self.drift = found.as_ref().ok().map(Vec::len);
        match found {
            Ok(found) if found.is_empty() => {}
            Ok(found) => say(&Event::Drift { found }),
            Err(error) => say(&Event::VerifyFailed { error }),
        }
        true
    }
}

/// The tenants whose switch is being started again.
fn restarting(watched: &Watch) -> BTreeSet<Name> {
    let restarting = watched.iter().filter(|(_, it)| it.restart.is_some());
    restarting.map(|(name, _)| name.clone()).collect()
}

/// The switches that should run. One whose apply is under way is that apply's.
fn switches(state: &State) -> BTreeMap<Name, Switch> {
    let complete = state.tenants.iter().filter(|(_, record)| record.complete);
    complete
        .filter_map(|(name, record)| Some((name.clone(), record.switch()?.clone())))
        .collect()
}

/// A pidfd is readable once its process has ended.
fn is_alive(it: &Watched) -> Result<bool, nix::Error> {
    let Some(pidfd) = &it.pidfd else {
        return Ok(false);
    };
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? == 0)
}
