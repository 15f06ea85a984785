//! Restarts switches that have died or are stuck.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::PoisonError;
use std::thread::Scope;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::pidfd_send_signal;
use tenant_config::Name;

use super::channel::SwitchChannel;
use super::error::SuperviseError;
use super::events::{Event, Once, emit, since_epoch};
use super::heal::Priority;
use super::mend::jitter;
use super::report::{Trouble, Troubles};
use super::supervisor::{Job, LOOK_EVERY, NO_THREAD, Progress, Supervisor};
use crate::hugepages::Hugepages;
use crate::launcher::switch::Switch;
use crate::state::{self, State, TenantLock};

/// The pause between two questions to a switch that is alive. Two that fail, one after the other,
/// are its end.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// A slow machine is asked more rarely: a pause of this part of the time that it has to answer.
const ASK_PART: u32 = 5;
/// The first restart is immediate; each further one waits twice as long, unless the switch has run
/// for [`CALM_WAITS`] times the last wait, and at least for [`CALM`].
const FIRST_WAIT: Duration = Duration::from_millis(250);
const MAX_WAIT: Duration = Duration::from_secs(30);
const CALM: Duration = Duration::from_secs(5);
const CALM_WAITS: u32 = 10;

/// How many switches are started at once: after a boot, all of them are to be. Those whose start
/// takes longer hinder no others any more.
const STARTS_AT_ONCE: usize = 8;
const LONG: Duration = Duration::from_secs(5);

/// The switches by tenant.
pub(super) type Watched = BTreeMap<Name, Watch>;

/// One tenant's switch.
#[derive(Default)]
pub(super) struct Watch {
    /// Open while it is alive.
    pub(super) pidfd: Option<OwnedFd>,
    /// When its death was seen.
    pub(super) down_since: Option<Instant>,
    last_start: Option<Instant>,
    /// When it was last asked whether it forwards frames.
    asked: Option<Instant>,
    /// Whether the last question failed.
    suspect: bool,
    /// Whether an object of the tenant was missing when its switch was to be restarted.
    pub(super) incomplete: bool,
    /// Why it cannot be watched.
    pub(super) trouble: Once,
    wait: Duration,
    /// Why the last restart failed, and when one did so for the first time.
    failed: Option<(String, f64)>,
    pub(super) next_try: Option<Instant>,
    /// Whether it waits for the start of others.
    pub(super) queued: bool,
    /// When the restart under way began.
    tried: Option<Instant>,
    question: Option<Job<Option<String>>>,
    restart: Option<Job<Attempt>>,
}

/// The result of a restart.
enum Attempt {
    /// The switch runs, or must not run any more, or an apply is changing it.
    NotNeeded,
    /// An object of the tenant is missing.
    Incomplete,
    /// Ready since then.
    Ready(Instant),
    Failed(String),
}

impl Supervisor<'_> {
    /// Sees whether a switch is alive, and restarts it when it is time and there is room for one
    /// more. The repair of what it depends on comes first.
    pub(super) fn look<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        switch: &Switch,
        it: &mut Watch,
        channel: &mut SwitchChannel,
        repair: Priority,
        room: &mut usize,
    ) -> Result<(), SuperviseError> {
        let tenant = &switch.tenant;
        it.queued = false;
        if let Some(job) = &it.restart {
            let Progress::Finished(attempt) = job.progress() else {
                return Ok(());
            };
            it.restart = None;
            it.settle(tenant, attempt);
        }
        if it.is_alive()? {
            self.ask(scope, switch, it);
            return Ok(());
        }
        it.question = None;
        it.suspect = false;
        it.pidfd = self.switches.pidfd(tenant)?;
        if it.pidfd.is_some() {
            // It runs: seen for the first time, or started by an apply or by a restart.
            it.down_since = None;
            it.failed = None;
            it.last_start.get_or_insert_with(Instant::now);
            return Ok(());
        }
        if it.down_since.is_none() {
            let last_counters = channel.last_counters();
            emit(&Event::Down {
                tenant,
                last_counters,
            });
            it.down_since = Some(Instant::now());
        }
        if repair == Priority::First {
            return Ok(());
        }
        let calm_after = (it.wait * CALM_WAITS).max(CALM);
        let calm = it.last_start.is_none_or(|last| last.elapsed() > calm_after);
        if it.next_try.is_none() && calm {
            it.wait = Duration::ZERO;
        }
        let wait = jitter(it.wait);
        let next = *it.next_try.get_or_insert_with(|| Instant::now() + wait);
        if Instant::now() < next {
            return Ok(());
        }
        if *room == 0 {
            it.queued = true;
            return Ok(());
        }
        *room -= 1;
        it.next_try = None;
        it.tried = Some(Instant::now());
        let switch = switch.clone();
        it.restart = Some(self.spawn(scope, move || {
            self.restart(&switch, repair == Priority::None)
                .unwrap_or_else(|error| Attempt::Failed(error.to_string()))
        }));
        Ok(())
    }

    /// Asks from time to time whether a switch that is alive forwards frames, and kills it if it
    /// does not say so twice.
    fn ask<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        switch: &Switch,
        it: &mut Watch,
    ) {
        match it.question.as_ref().map(Job::progress) {
            Some(Progress::Running) => {}
            Some(Progress::Finished(answer)) => {
                it.question = None;
                it.asked = Some(Instant::now());
                let failed = answer.flatten();
                let again = std::mem::replace(&mut it.suspect, failed.is_some());
                if let Some(why) = failed.filter(|_| again) {
                    let tenant = &switch.tenant;
                    emit(&Event::Stuck { tenant, why });
                    if let Some(pidfd) = &it.pidfd {
                        // It may have ended meanwhile; its death is seen at the next look.
                        let _ = pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
                    }
                }
            }
            None if it.asked.is_none_or(|last| last.elapsed() > pause(switch)) => {
                let switch = switch.clone();
                it.question = Some(self.spawn(scope, move || self.switches.stuck(&switch)));
            }
            None => {}
        }
    }

    /// Restarts a dead switch, unless an apply or a release holds it, or, if that is to be seen,
    /// the tenant has lost an object. Once we have the lock, the switch may run again or be gone.
    fn restart(&self, switch: &Switch, looks: bool) -> Result<Attempt, SuperviseError> {
        let tenant = &switch.tenant;
        let lock = TenantLock::try_lock(self.dir, tenant);
        // No apply and no release begins while the state cannot be read.
        let state = state::read(self.dir).ok();
        let is_wanted = |state: &State| switches(state).get(tenant) == Some(switch);
        if !state.as_ref().is_none_or(is_wanted) || self.switches.pidfd(tenant)?.is_some() {
            return Ok(Attempt::NotNeeded);
        }
        if looks && state.is_some_and(|state| self.has_lost_something(&state, tenant)) {
            return Ok(Attempt::Incomplete);
        }
        // The switch should run, so a missing directory is no release's doing: it is an error.
        let Some(_lock) = lock? else {
            return Ok(Attempt::NotNeeded);
        };
        self.reserve_hugepages(switch);
        Ok(match self.switches.restart(switch) {
            Ok(()) => Attempt::Ready(Instant::now()),
            Err(error) => Attempt::Failed(error.to_string()),
        })
    }
}

impl Supervisor<'_> {
    /// Reserves the hugepages that a switch had, where a reboot or somebody else took them. If that
    /// fails, the switch says what it lacks.
    fn reserve_hugepages(&self, switch: &Switch) {
        let memory = switch.config.memory;
        if !memory.hugepages || switch.machine.is_some() {
            return;
        }
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let tenant = &switch.tenant;
        match Hugepages::reserve(memory.mib.into()) {
            Ok(0) => {}
            Ok(pages) => emit(&Event::HugepagesReserved { tenant, pages }),
            Err(error) => tracing::warn!(%tenant, %error, "no hugepages are reserved"),
        }
    }
}

impl Watch {
    /// Whether it runs, and answered when it was last asked.
    pub(super) fn forwards(&self) -> bool {
        self.down_since.is_none() && !self.suspect
    }

    /// A pidfd is readable once its process has ended.
    fn is_alive(&self) -> Result<bool, nix::Error> {
        let Some(pidfd) = &self.pidfd else {
            return Ok(false);
        };
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, PollTimeout::ZERO)? == 0)
    }

    /// Notes the result of a restart; `None` if its thread has none.
    fn settle(&mut self, tenant: &Name, attempt: Option<Attempt>) {
        if matches!(attempt, Some(Attempt::NotNeeded | Attempt::Incomplete)) {
            self.incomplete = matches!(attempt, Some(Attempt::Incomplete));
            self.next_try = Some(Instant::now() + LOOK_EVERY);
            return;
        }
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, MAX_WAIT);
        self.last_start = Some(Instant::now());
        let error = match attempt {
            Some(Attempt::Ready(at)) => {
                self.failed = None;
                let down_since = self.down_since.take().unwrap_or(at);
                return emit(&Event::Restarted {
                    tenant,
                    outage_s: at.saturating_duration_since(down_since).as_secs_f64(),
                });
            }
            Some(Attempt::Failed(error)) => error,
            _ => NO_THREAD.to_owned(),
        };
        let since = self.failed.as_ref().map_or_else(since_epoch, |it| it.1);
        self.failed = Some((error.clone(), since));
        emit(&Event::RestartFailed {
            tenant,
            error,
            next_try_s: self.wait.as_secs_f64(),
        });
    }
}

/// How many more switches may be started now.
pub(super) fn room(watched: &Watched) -> usize {
    let is_begun =
        |it: &&Watch| it.restart.is_some() && it.tried.is_some_and(|at| at.elapsed() < LONG);
    STARTS_AT_ONCE.saturating_sub(watched.values().filter(is_begun).count())
}

/// The pause between two questions.
fn pause(switch: &Switch) -> Duration {
    let part = switch.answers_within().unwrap_or_default() / ASK_PART;
    part.max(ASK_EVERY)
}

/// The tenants whose switch cannot be restarted.
pub(super) fn troubles(watched: &Watched, troubles: &mut Troubles) {
    let now = Instant::now();
    for (tenant, it) in watched {
        if let Some((why, since)) = &it.failed {
            let next = it.next_try.map(|next| next.saturating_duration_since(now));
            let next = next.map(|next| since_epoch() + next.as_secs_f64());
            let trouble = Trouble::new("cannot be restarted", why, *since).again(next);
            troubles.insert(tenant.clone(), trouble);
        }
    }
}

/// The tenants whose switch is being restarted.
pub(super) fn restarting(watched: &Watched) -> BTreeSet<Name> {
    let restarting = watched.iter().filter(|(_, it)| it.restart.is_some());
    restarting.map(|(name, _)| name.clone()).collect()
}

/// The switches that should run. A switch that an apply is changing belongs to that apply.
pub(super) fn switches(state: &State) -> BTreeMap<Name, Switch> {
    let complete = state.tenants.iter().filter(|(_, record)| record.complete);
    complete
        .filter_map(|(name, record)| Some((name.clone(), record.running_switch()?.clone())))
        .collect()
}
