//! Looks for drift from time to time.

use std::collections::BTreeSet;
use std::thread::Scope;
use std::time::{Duration, Instant};

use tenant_config::Name;

use super::events::{Event, emit, since_epoch};
use super::heal::Healing;
use super::restarts;
use super::supervisor::{Job, LOOK_EVERY, NO_THREAD, Progress, Supervisor};
use crate::state::{State, StateError};
use crate::verify::{Found, UnderWay, verify_each};

/// The result of a verification; `None` if an apply is under way, whose unfinished work is no
/// drift.
type Verification = Result<Option<Found>, StateError>;

/// The verifications so far, and the one under way.
pub(super) struct Drift {
    every: Duration,
    due: Option<Instant>,
    under_way: Option<Job<Verification>>,
    /// Verifications since the start.
    pub(super) verifications: u64,
    /// When the last one ended, in seconds since the epoch.
    pub(super) at: f64,
    /// How many settings differed, if that could be read.
    pub(super) found: Option<usize>,
}

/// When the first verification is made, after the start.
const FIRST: Duration = Duration::from_secs(5);

/// Never, if that is beyond what the clock can express.
fn after(pause: Duration) -> Option<Instant> {
    Instant::now().checked_add(pause)
}

impl Drift {
    /// Verifies every so often; zero is never. What a supervisor finds that was just started, a
    /// former one may have missed: the first verification is soon.
    pub(super) fn new(every: Duration) -> Self {
        Self {
            every,
            due: after(every.min(FIRST)).filter(|_| !every.is_zero()),
            under_way: None,
            verifications: 0,
            at: 0.0,
            found: None,
        }
    }

    /// Notes the result of a verification, and starts the next one when it is due.
    pub(super) fn look<'scope>(
        &mut self,
        supervisor: &'scope Supervisor<'_>,
        scope: &'scope Scope<'scope, '_>,
        state: &State,
        watched: &restarts::Watched,
        healing: &mut Healing,
    ) {
        match self.under_way.as_ref().map(Job::progress) {
            Some(Progress::Running) => {}
            Some(Progress::Finished(result)) => {
                self.under_way = None;
                // One that could not be made is repeated soon.
                let next = if self.note(result, healing) {
                    self.every
                } else {
                    LOOK_EVERY
                };
                self.due = after(next);
            }
            None => {
                let due = self.due.is_some_and(|due| Instant::now() >= due);
                if due && !state.tenants.is_empty() {
                    let except = restarts::restarting(watched);
                    let job = supervisor.spawn(scope, move || supervisor.verify(&except));
                    self.under_way = Some(job);
                }
            }
        }
    }

    /// Notes a result, and returns whether the verification was made; `None` if its thread has
    /// none.
    fn note(&mut self, result: Option<Verification>, healing: &mut Healing) -> bool {
        let found = match result {
            Some(Ok(None)) => return false,
            Some(Ok(Some(found))) => Ok(found),
            Some(Err(error)) => Err(error.to_string()),
            None => Err(NO_THREAD.to_owned()),
        };
        self.verifications += 1;
        self.at = since_epoch();
        self.found = None;
        match found {
            Ok(found) => {
                report(&found);
                healing.differ(&found.tenants);
                self.found = Some(found.sentences().len());
            }
            Err(error) => emit(&Event::VerifyFailed { error }),
        }
        true
    }
}

/// An event for each tenant, and one for what is no tenant's.
fn report(found: &Found) {
    if !found.left_over.is_empty() {
        emit(&Event::Drift {
            tenant: None,
            found: &found.left_over,
        });
    }
    for (tenant, found) in &found.tenants {
        emit(&Event::Drift {
            tenant: Some(tenant),
            found,
        });
    }
    for (tenant, why) in &found.refused {
        emit(&Event::Drift {
            tenant: Some(tenant),
            found: std::slice::from_ref(why),
        });
    }
    if let Some(why) = &found.unreadable {
        emit(&Event::Drift {
            tenant: None,
            found: std::slice::from_ref(why),
        });
    }
}

impl Supervisor<'_> {
    /// What differs from what was set, of all tenants but those.
    fn verify(&self, except: &BTreeSet<Name>) -> Verification {
        verify_each(self.host, self.dir, except, UnderWay::Skip)
    }
}
