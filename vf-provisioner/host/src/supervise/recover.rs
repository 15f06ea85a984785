//! Completes what a killed apply or release has left half done.
//!
//! The tenant becomes what the apply was to make of it. If that fails it becomes what it was
//! before. The store's lock is held meanwhile, as by an apply, for one tenant at a time.

use std::collections::BTreeMap;
use std::thread::Scope;
use std::time::{Duration, Instant};

use tenant_config::Name;

use super::events::{Event, emit};
use super::supervisor::{Job, LOOK_EVERY, NO_THREAD, Progress, Supervisor};
use crate::apply::{ApplyError, Change, apply, never};
use crate::resource::Key;
use crate::state::{HostLock, Record, State, StateError};

/// The pause after a failure; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What is half done: a tenant, or with `None` the objects that are no tenant's.
type Half = Option<Name>;

/// The recovery under way, and what has failed before.
#[derive(Default)]
pub(super) struct Recovery {
    job: Option<(Half, Job<Result<Outcome, RecoverError>>)>,
    next_try: Option<Instant>,
    failed: BTreeMap<Half, (Instant, Duration)>,
}

enum Outcome {
    /// An apply is under way, or all is done.
    Nothing,
    Completed,
    /// It is as before the apply, which cannot be completed.
    Restored(ApplyError),
    /// These were removed.
    Removed(Vec<Key>),
}

/// Why something is still half done.
#[derive(Debug, thiserror::Error)]
enum RecoverError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl Recovery {
    /// Notes the result of a recovery, and starts the next one that is due.
    pub(super) fn look<'scope>(
        &mut self,
        supervisor: &'scope Supervisor<'_>,
        scope: &'scope Scope<'scope, '_>,
        state: &State,
    ) {
        if let Some((half, job)) = &self.job {
            let Progress::Finished(result) = job.progress() else {
                return;
            };
            let half = half.clone();
            self.job = None;
            self.settle(half, result);
        }
        let now = Instant::now();
        let all = halves(state);
        self.failed.retain(|half, _| all.contains(half));
        if self.next_try.is_some_and(|next| now < next) {
            return;
        }
        let is_due = |half: &&Half| self.failed.get(*half).is_none_or(|(next, _)| now >= *next);
        if let Some(half) = all.iter().find(is_due).cloned() {
            let it = half.clone();
            self.job = Some((
                half,
                supervisor.spawn(scope, move || supervisor.recover(it)),
            ));
        }
    }

    fn settle(&mut self, half: Half, result: Option<Result<Outcome, RecoverError>>) {
        let tenant = half.as_ref();
        let error = match result {
            Some(Ok(outcome)) => {
                self.next_try = Some(Instant::now() + LOOK_EVERY);
                self.failed.remove(&half);
                return match outcome {
                    Outcome::Nothing => {}
                    Outcome::Completed => emit(&Event::Recovered {
                        tenant,
                        error: None,
                    }),
                    Outcome::Restored(error) => emit(&Event::Recovered {
                        tenant,
                        error: Some(error.to_string()),
                    }),
                    Outcome::Removed(keys) => emit(&Event::removed(&keys)),
                };
            }
            Some(Err(error)) => error.to_string(),
            None => NO_THREAD.to_owned(),
        };
        let wait = self
            .failed
            .get(&half)
            .map_or(Duration::ZERO, |(_, wait)| *wait);
        let wait = (wait * 2).clamp(FIRST_WAIT, MAX_WAIT);
        let next_try_s = wait.as_secs_f64();
        emit(&Event::RecoverFailed {
            tenant,
            error,
            next_try_s,
        });
        self.failed.insert(half, (Instant::now() + wait, wait));
    }
}

/// Everything that is half done, if no apply is under way.
fn halves(state: &State) -> Vec<Half> {
    let interrupted = state.tenants.iter().filter(|(_, record)| !record.complete);
    let mut halves: Vec<Half> = interrupted.map(|(name, _)| Some(name.clone())).collect();
    if !state.left_over().is_empty() {
        halves.push(None);
    }
    halves
}

impl Supervisor<'_> {
    /// Completes one thing that is half done, unless an apply is under way.
    fn recover(&self, half: Half) -> Result<Outcome, RecoverError> {
        let Some(mut store) = HostLock::try_open(self.dir)? else {
            return Ok(Outcome::Nothing);
        };
        let mut host = (self.host)();
        let Some(name) = half else {
            let left = store.state().left_over();
            apply(&mut host, &mut store, &Change::default(), &never())?;
            store.remove_if_empty()?;
            return Ok(match left.is_empty() {
                true => Outcome::Nothing,
                false => Outcome::Removed(left),
            });
        };
        let record = store.state().tenants.get(&name);
        let Some(record) = record.filter(|record| !record.complete).cloned() else {
            return Ok(Outcome::Nothing);
        };
        let mut set = |record: Record| {
            // A rename that cannot be completed is undone.
            let before = record.switch().map(|switch| switch.tenant.clone());
            let before = before.filter(|before| *before != name);
            let change = Change {
                renamed: before
                    .iter()
                    .map(|old| (old.clone(), name.clone()))
                    .collect(),
                release: before.iter().map(|_| name.clone()).collect(),
                set: BTreeMap::from([(before.unwrap_or_else(|| name.clone()), record)]),
                ..Change::default()
            };
            apply(&mut host, &mut store, &change, &never())
        };
        let previous = record.previous.clone();
        match (set(record), previous) {
            (Ok(_), _) => Ok(Outcome::Completed),
            (Err(error), None) => Err(error.into()),
            (Err(error), Some(previous)) => {
                set(*previous)?;
                Ok(Outcome::Restored(error))
            }
        }
    }
}
