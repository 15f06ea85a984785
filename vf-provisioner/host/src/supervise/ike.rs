//! Watches the IKE daemons: restarts dead and stuck ones behind their switches, gives them files
//! that were replaced, and tells of certificates that end.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::thread::Scope;
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tenant_config::Name;

use super::events::{Event, Once, emit, since_epoch};
use super::mend::{Pace, Pauses};
use super::report::{Trouble, Troubles};
use super::restarts::Watched;
use super::supervisor::{Job, NO_THREAD, Progress, Supervisor};
use crate::launcher::ike::{Expiry, Ike, Place, expiries};
use crate::state::{self, State, TenantLock};

/// The pauses after a restart or reload that failed, or that did not last.
const PACE: Pace = Pace {
    first: Duration::from_millis(500),
    max: Duration::from_secs(30),
    calm: Duration::from_secs(5),
};
/// The pause between two questions to a daemon that is alive. Two that it does not answer, one
/// after the other, are its end: without it no key is replaced.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// The pause between two looks at the files.
const FILES_EVERY: Duration = Duration::from_secs(2);
/// The pause between two looks at what ends.
const EXPIRY_EVERY: Duration = Duration::from_secs(60);

/// The daemons by tenant.
#[derive(Default)]
pub(super) struct Daemons(BTreeMap<Name, Watch>);

/// One tenant's daemon.
#[derive(Default)]
struct Watch {
    /// Open while it is alive.
    pidfd: Option<OwnedFd>,
    questions: Questions,
    down_since: Option<Instant>,
    pauses: Pauses,
    next_try: Option<Instant>,
    job: Option<Job<Attempt>>,
    /// Why the last attempt failed, and when one did so for the first time.
    failed: Option<(String, f64)>,
    files_seen: Option<Instant>,
    expiry_seen: Option<Instant>,
    expiries: Vec<Expiry>,
    /// The ends that were reported.
    reported: BTreeSet<(PathBuf, i64, bool)>,
    unreadable: Once,
}

/// Whether a daemon that is alive answers.
#[derive(Default)]
struct Questions {
    asked: Option<Instant>,
    /// Whether the last one failed.
    suspect: bool,
    under_way: Option<Job<Result<(), String>>>,
}

enum Attempt {
    /// It runs, or an apply is changing the tenant.
    NotNeeded,
    Restarted,
    Reloaded,
    Failed(String),
}

impl Daemons {
    /// Notes results, and starts what is due. A daemon is of use only behind a switch that runs.
    pub(super) fn look<'scope>(
        &mut self,
        supervisor: &'scope Supervisor<'_>,
        scope: &'scope Scope<'scope, '_>,
        state: &State,
        switches: &Watched,
    ) {
        let complete = state.tenants.iter().filter(|(_, record)| record.complete);
        let wanted: BTreeMap<&Name, &Ike> = complete
            .filter_map(|(name, record)| Some((name, record.running_ike()?)))
            .collect();
        self.0
            .retain(|name, it| it.job.is_some() || wanted.contains_key(name));
        for (tenant, ike) in wanted {
            let it = self.0.entry(tenant.clone()).or_default();
            it.settle(tenant);
            it.watch_expiry(tenant, ike);
            if let Err(error) = supervisor.switches.ike(tenant).collect_log() {
                tracing::warn!(%tenant, %error, "what its IKE daemon writes is not logged");
            }
            let up = switches
                .get(tenant)
                .is_some_and(|switch| switch.pidfd.is_some());
            it.look(supervisor, scope, ike, up);
        }
    }

    /// What ends when one of the daemons does.
    pub(super) fn pidfds(&self) -> impl Iterator<Item = &OwnedFd> {
        self.0.values().filter_map(|it| it.pidfd.as_ref())
    }

    /// Whether each daemon runs.
    pub(super) fn up(&self) -> impl Iterator<Item = (&Name, bool)> {
        self.0.iter().map(|(name, it)| (name, it.pidfd.is_some()))
    }

    /// By tenant and file, when it ends.
    pub(super) fn expiries(&self) -> impl Iterator<Item = (&Name, &Expiry)> {
        let all = self.0.iter();
        all.flat_map(|(name, it)| it.expiries.iter().map(move |expiry| (name, expiry)))
    }

    /// The tenants whose daemon cannot be restarted or reloaded.
    pub(super) fn troubles(&self, troubles: &mut Troubles) {
        for (tenant, it) in &self.0 {
            if let Some((why, since)) = &it.failed {
                let trouble = Trouble::new("has no IPsec as it was set", why, *since);
                troubles.insert(tenant.clone(), trouble);
            }
        }
    }
}

impl Questions {
    /// Asks when it is time. Why the daemon is stuck, if it did not answer twice.
    fn look<'scope>(
        &mut self,
        supervisor: &'scope Supervisor<'_>,
        scope: &'scope Scope<'scope, '_>,
        tenant: &Name,
    ) -> Option<String> {
        match self.under_way.as_ref().map(Job::progress) {
            Some(Progress::Running) => None,
            Some(Progress::Finished(answer)) => {
                self.under_way = None;
                self.asked = Some(Instant::now());
                // Without a thread it was not asked.
                let failed = answer.and_then(Result::err);
                let again = std::mem::replace(&mut self.suspect, failed.is_some());
                failed.filter(|_| again)
            }
            None => {
                let is_due = |asked: Instant| asked.elapsed() > ASK_EVERY;
                if self.suspect || self.asked.is_none_or(is_due) {
                    let ike = supervisor.switches.ike(tenant);
                    self.under_way = Some(supervisor.spawn(scope, move || ike.answers()));
                }
                None
            }
        }
    }
}

impl Watch {
    fn is_alive(&self) -> bool {
        let Some(pidfd) = &self.pidfd else {
            return false;
        };
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }

    fn look<'scope>(
        &mut self,
        supervisor: &'scope Supervisor<'_>,
        scope: &'scope Scope<'scope, '_>,
        ike: &Ike,
        switch_is_up: bool,
    ) {
        let tenant = &ike.tenant;
        let files = supervisor.switches.ike(tenant);
        // A machine outlives the daemon in it.
        let is_in_machine = matches!(ike.place, Place::Machine { .. });
        let is_lost = is_in_machine && !files.is_configured();
        // Also during an attempt: the end of a dead one would be seen again and again.
        if is_lost || !self.is_alive() {
            self.pidfd = files.pidfd();
            // An answer that is under way is that of another one.
            self.questions = Questions::default();
        }
        if self.job.is_some() {
            return;
        }
        let now = Instant::now();
        let reload = self.pidfd.is_some();
        if reload {
            self.down_since = None;
            if let (Some(why), Some(pidfd)) =
                (self.questions.look(supervisor, scope, tenant), &self.pidfd)
            {
                emit(&Event::IkeStuck { tenant, why });
                // Its death is seen at the next look.
                files.end_stuck(pidfd);
                return;
            }
            let due = self
                .files_seen
                .is_none_or(|seen| seen.elapsed() > FILES_EVERY);
            if !due {
                return;
            }
            self.files_seen = Some(now);
            if !files.is_outdated() {
                return;
            }
        } else if self.down_since.is_none() {
            self.down_since = Some(now);
            emit(&Event::IkeDown { tenant });
        }
        // Its switch comes first.
        if !reload && !switch_is_up {
            return;
        }
        let pauses = &mut self.pauses;
        let next = *self
            .next_try
            .get_or_insert_with(|| now + pauses.before_next(PACE, now));
        if now < next {
            return;
        }
        self.next_try = None;
        let ike = ike.clone();
        self.job = Some(supervisor.spawn(scope, move || supervisor.attend(&ike, reload)));
    }

    /// Notes the result of an attempt, if there is one.
    fn settle(&mut self, tenant: &Name) {
        let Some(Progress::Finished(attempt)) = self.job.as_ref().map(Job::progress) else {
            return;
        };
        self.job = None;
        let now = Instant::now();
        let error = match attempt {
            Some(Attempt::NotNeeded) => {
                self.next_try = Some(now + PACE.first);
                return;
            }
            Some(Attempt::Restarted) => {
                let down_since = self.down_since.take().unwrap_or(now);
                emit(&Event::IkeRestarted {
                    tenant,
                    outage_s: now.saturating_duration_since(down_since).as_secs_f64(),
                });
                None
            }
            Some(Attempt::Reloaded) => {
                // What was replaced ends at another time.
                self.expiry_seen = None;
                emit(&Event::IkeReloaded { tenant });
                None
            }
            Some(Attempt::Failed(error)) => Some(error),
            None => Some(NO_THREAD.to_owned()),
        };
        let Some(error) = error else {
            self.failed = None;
            self.pauses.repaired(now);
            return;
        };
        let pause = self.pauses.after_failure(PACE);
        self.next_try = Some(now + pause);
        let since = self.failed.as_ref().map_or_else(since_epoch, |it| it.1);
        self.failed = Some((error.clone(), since));
        emit(&Event::IkeFailed {
            tenant,
            error,
            next_try_s: pause.as_secs_f64(),
        });
    }

    /// Reports each end once when it is near, and once when it has come.
    fn watch_expiry(&mut self, tenant: &Name, ike: &Ike) {
        let due = self
            .expiry_seen
            .is_none_or(|seen| seen.elapsed() > EXPIRY_EVERY);
        if !due {
            return;
        }
        self.expiry_seen = Some(Instant::now());
        let (found, unreadable) = expiries(&ike.config);
        let read = unreadable.first().map_or(Ok(()), Err);
        self.unreadable
            .note(read, |error| Event::IkeFileUnreadable { tenant, error });
        let now = SystemTime::now();
        for Expiry { file, at } in found.iter().filter(|it| it.is_near(now)) {
            let expired = Expiry {
                file: file.clone(),
                at: *at,
            }
            .is_over(now);
            if self.reported.insert((file.clone(), *at, expired)) {
                let (file, at) = (file.display().to_string(), *at);
                emit(&Event::Expires {
                    tenant,
                    file,
                    at,
                    expired,
                });
            }
        }
        self.expiries = found;
    }
}

impl Supervisor<'_> {
    /// Restarts or reloads a daemon, unless an apply or a release holds the tenant.
    fn attend(&self, ike: &Ike, reload: bool) -> Attempt {
        let failed = |error: &dyn std::fmt::Display| Attempt::Failed(error.to_string());
        let _lock = match TenantLock::try_lock(self.dir, &ike.tenant) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Attempt::NotNeeded,
            Err(error) => return failed(&error),
        };
        let state = state::read(self.dir).ok();
        let is_wanted = |state: &State| {
            let record = state.tenants.get(&ike.tenant);
            let record = record.filter(|record| record.complete);
            record.and_then(|record| record.running_ike()) == Some(ike)
        };
        let runs = self.switches.ike(&ike.tenant).pidfd().is_some();
        if !state.as_ref().is_none_or(is_wanted) || runs != reload {
            return Attempt::NotNeeded;
        }
        let (done, attempt) = match reload {
            true => (self.switches.reload_ike(ike), Attempt::Reloaded),
            false => (self.switches.restart_ike(ike), Attempt::Restarted),
        };
        match done {
            Ok(()) => attempt,
            Err(error) => failed(&error),
        }
    }
}
