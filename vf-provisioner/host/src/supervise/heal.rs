//! Repairs a tenant: makes again what it has lost, and sets again what differs from what was set.
//! Only the objects of its recorded plan, and nothing else.
//!
//! A look from time to time finds the objects that are missing, by their names only; a verification
//! finds drift. Then a thread for each such tenant, which holds that tenant's lock and waits for no
//! other tenant, reads everything that was recorded and repairs it. If the switch depends on what
//! was recreated it is stopped, and restarted as a dead one is. Functions of a NIC are repaired by
//! an apply of the record, because the mediation probe has to precede their use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::thread::Scope;
use std::time::{Duration, Instant};

use tenant_config::Name;

use super::events::{Event, emit, since_epoch};
use super::mend::{Mend, Pace, Pauses, Policy};
use super::report::{Trouble, Troubles};
use super::supervisor::{Job, LOOK_EVERY, NO_THREAD, Progress, Supervisor};
use crate::apply::{ApplyError, Change, apply, execute, never, read_back};
use crate::error::HostError;
use crate::history;
use crate::host::Host;
use crate::nic::parts::guard::Lock;
use crate::plan::{Action, Desired, Observed, PlanError, plan};
use crate::resource::{Key, Resource};
use crate::state::{self, HostLock, Record, State, StateError, TenantLock};

/// The pause between two looks for missing objects.
const SEARCH_EVERY: Duration = Duration::from_secs(2);
/// The pauses after a repair that failed, or that did not last.
const LOSS: Pace = Pace {
    first: Duration::from_millis(500),
    max: Duration::from_secs(30),
    calm: Duration::from_secs(5),
};
/// The same of drift: somebody else may want another setting.
const DRIFT: Pace = Pace {
    first: Duration::from_secs(1),
    max: Duration::from_secs(600),
    calm: Duration::from_secs(5),
};
/// Drift is seen when it is looked for: a mend has lasted if so many looks found nothing.
const CALM_LOOKS: u32 = 5;
/// How many tenants are repaired at the same time.
const AT_ONCE: usize = 8;

/// The repairs under way.
pub(super) struct Healing {
    policy: Policy,
    drift: Pace,
    search: Option<Job<BTreeMap<Name, Vec<Key>>>>,
    next_search: Option<Instant>,
    tenants: BTreeMap<Name, Repair>,
    past: BTreeMap<Name, Past>,
}

/// What is remembered of a tenant between its repairs.
#[derive(Default)]
struct Past {
    /// Repairs since the supervisor's start that changed something.
    repairs: u64,
    loss: Pauses,
    drift: Pauses,
    /// What the last verification found, and when it was first found.
    differs: Option<(String, f64)>,
}

/// Whether a tenant is to be repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// As far as is known, nothing is missing.
    None,
    /// Before its switch is restarted.
    First,
    /// It has failed, and is tried again.
    Later,
}

/// Why a tenant is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// An object is missing.
    Loss,
    /// A setting differs.
    Drift,
}

/// The repair of one tenant.
struct Repair {
    cause: Cause,
    job: Option<Job<(Healed, Result<Outcome, HealError>)>>,
    next_try: Instant,
    /// What it did in tries that failed.
    done: Healed,
    /// Why it failed, and when it did so for the first time.
    failed: Option<(String, f64)>,
    /// Whether it waits because the repair before did not last.
    waits: bool,
}

enum Outcome {
    /// An apply, a release, a restart or a verification is under way.
    Busy,
    /// All is there.
    Healed,
}

/// What a repair did.
#[derive(Default)]
struct Healed {
    /// These were made again.
    made: Vec<Key>,
    /// These were set again, a sentence each.
    set: Vec<String>,
}

/// Why a tenant's objects are still missing.
#[derive(Debug, thiserror::Error)]
enum HealError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("{0}: {1}")]
    Host(Key, Box<HostError>),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("{0} is gone: was its driver unbound, or the card removed?")]
    Gone(Key),
}

impl HealError {
    fn host(key: Key, error: HostError) -> Self {
        Self::Host(key, Box::new(error))
    }
}

impl Healing {
    /// Drift is mended as the policy says; it is looked for every so often.
    pub(super) fn new(policy: Policy, verify_every: Duration) -> Self {
        Self {
            policy,
            drift: Pace {
                calm: DRIFT.calm.max(verify_every.saturating_mul(CALM_LOOKS)),
                ..DRIFT
            },
            search: None,
            next_search: None,
            tenants: BTreeMap::new(),
            past: BTreeMap::new(),
        }
    }

    /// Notes results, and starts the search and the repairs that are due.
    pub(super) fn look<'scope>(
        &mut self,
        supervisor: &'scope Supervisor<'_>,
        scope: &'scope Scope<'scope, '_>,
        state: &State,
    ) {
        self.search(supervisor, scope, state);
        let is_watched = |name: &Name| state.tenants.get(name).is_some_and(|it| it.complete);
        self.tenants
            .retain(|name, it| it.job.is_some() || is_watched(name));
        self.past.retain(|name, _| state.tenants.contains_key(name));
        let mut made = BTreeSet::new();
        for tenant in self.tenants.keys().cloned().collect::<Vec<_>>() {
            made.extend(self.settle(&tenant));
        }
        let running = self.tenants.values().filter(|it| it.job.is_some()).count();
        let now = Instant::now();
        let due = self.tenants.iter_mut();
        let due = due.filter(|(_, it)| it.job.is_none() && now >= it.next_try);
        for (tenant, it) in due.take(AT_ONCE.saturating_sub(running)) {
            let (tenant, cause) = (tenant.clone(), it.cause);
            it.job = Some(supervisor.spawn(scope, move || {
                let mut healed = Healed::default();
                let outcome = supervisor.heal(&tenant, cause, &mut healed);
                (healed, outcome)
            }));
        }
        // What others had in a shared object is gone with it.
        let shares = |it: &Resource| it.is_shared() && made.contains(&it.key());
        for (tenant, record) in &state.tenants {
            if record.complete && record.resources.iter().any(shares) {
                self.begin(tenant);
            }
        }
    }

    /// The repair of a tenant as against the restart of its switch. If it has failed, the restart
    /// is tried as well.
    pub(super) fn priority(&self, tenant: &Name) -> Priority {
        match self.tenants.get(tenant) {
            Some(it) if it.job.is_some() => Priority::First,
            Some(it) if it.cause == Cause::Loss => match it.failed {
                None => Priority::First,
                Some(_) => Priority::Later,
            },
            // A setting that differs keeps no switch from its start.
            _ => Priority::None,
        }
    }

    /// Makes again what a tenant has lost, unless that is under way.
    pub(super) fn begin(&mut self, tenant: &Name) {
        self.start(tenant, Cause::Loss);
    }

    /// Takes over what a verification has found of each tenant, and mends it as the policy says.
    pub(super) fn differ(&mut self, found: &BTreeMap<Name, Vec<String>>) {
        for (tenant, it) in &mut self.past {
            if !found.contains_key(tenant) {
                it.differs = None;
            }
        }
        for (tenant, found) in found {
            let it = self.past.entry(tenant.clone()).or_default();
            let since = it.differs.as_ref().map_or_else(since_epoch, |it| it.1);
            it.differs = Some((found.join("; "), since));
            if self.policy.of(tenant) == Mend::On {
                self.start(tenant, Cause::Drift);
            }
        }
    }

    /// Whether a repair was begun that was not under way.
    fn start(&mut self, tenant: &Name, cause: Cause) -> bool {
        match self.tenants.get(tenant) {
            // What is missing is more urgent than what differs.
            Some(it) if it.cause == Cause::Drift && cause == Cause::Loss && it.job.is_none() => {}
            Some(_) => return false,
            None => {}
        }
        let now = Instant::now();
        let past = self.past.entry(tenant.clone()).or_default();
        let pause = match cause {
            Cause::Loss => past.loss.before_next(LOSS, now),
            Cause::Drift => past.drift.before_next(self.drift, now),
        };
        if !pause.is_zero() {
            emit(&Event::Contended {
                tenant,
                repairs: past.repairs,
                next_try_s: pause.as_secs_f64(),
            });
        }
        let repair = Repair {
            cause,
            job: None,
            next_try: now + pause,
            done: Healed::default(),
            failed: None,
            waits: !pause.is_zero(),
        };
        self.tenants.insert(tenant.clone(), repair);
        true
    }

    /// When the next repair is due.
    pub(super) fn next_try(&self) -> Option<Instant> {
        let running = self.tenants.values().filter(|it| it.job.is_some()).count();
        let idle = self.tenants.values().filter(|it| it.job.is_none());
        let next = idle.map(|it| it.next_try).min();
        // The end of one is heard of.
        next.filter(|_| running < AT_ONCE)
    }

    /// How often a tenant was repaired since the supervisor's start.
    pub(super) fn repairs(&self, tenant: &Name) -> u64 {
        self.past.get(tenant).map_or(0, |past| past.repairs)
    }

    /// The tenants that are not as they were set.
    pub(super) fn troubles(&self, troubles: &mut Troubles) {
        for (tenant, it) in &self.past {
            if let Some((why, since)) = &it.differs {
                let trouble = match self.policy.of(tenant) {
                    Mend::On => Trouble::new("differs", why, *since),
                    Mend::Report => Trouble::new("differs, and is not mended", why, *since),
                };
                troubles.insert(tenant.clone(), trouble);
            }
        }
        let now = Instant::now();
        for (tenant, it) in &self.tenants {
            let in_s = it.next_try.saturating_duration_since(now).as_secs_f64();
            let next_try = Some(since_epoch() + in_s);
            if let Some((why, since)) = &it.failed {
                let trouble = Trouble::new("cannot be repaired", why, *since);
                troubles.insert(tenant.clone(), trouble.again(next_try));
            } else if it.waits {
                let why = "what was repaired was changed again: somebody else changes it";
                let trouble = Trouble::new("contended", why, since_epoch());
                troubles.insert(tenant.clone(), trouble.again(next_try));
            }
        }
    }

    fn search<'scope>(
        &mut self,
        supervisor: &'scope Supervisor<'_>,
        scope: &'scope Scope<'scope, '_>,
        state: &State,
    ) {
        match self.search.as_ref().map(Job::progress) {
            Some(Progress::Running) => {}
            Some(Progress::Finished(missing)) => {
                self.search = None;
                self.next_search = Instant::now().checked_add(SEARCH_EVERY);
                for (tenant, keys) in missing.into_iter().flatten() {
                    if self.start(&tenant, Cause::Loss) {
                        emit(&Event::missing(&tenant, &keys));
                    }
                }
            }
            None if self.next_search.is_none_or(|next| Instant::now() >= next) => {
                let state = state.clone();
                self.search = Some(supervisor.spawn(scope, move || supervisor.missing(&state)));
            }
            None => {}
        }
    }

    /// Notes the result of a repair, if there is one. Returns what was made, if the repair is over.
    fn settle(&mut self, tenant: &Name) -> Vec<Key> {
        let Some(it) = self.tenants.get_mut(tenant) else {
            return Vec::new();
        };
        let Some(Progress::Finished(result)) = it.job.as_ref().map(Job::progress) else {
            return Vec::new();
        };
        it.job = None;
        let past = self.past.entry(tenant.clone()).or_default();
        let now = Instant::now();
        let pauses = match it.cause {
            Cause::Loss => (&mut past.loss, LOSS),
            Cause::Drift => (&mut past.drift, self.drift),
        };
        let outcome = result.map(|(healed, outcome)| {
            it.done.add(healed);
            outcome
        });
        let error = match outcome {
            Some(Ok(Outcome::Healed)) => {
                let healed = std::mem::take(&mut it.done);
                if !healed.made.is_empty() {
                    emit(&Event::healed(tenant, &healed.made));
                }
                if !healed.set.is_empty() {
                    past.differs = None;
                    let changes = healed.set.clone();
                    emit(&Event::Mended { tenant, changes });
                }
                if !healed.made.is_empty() || !healed.set.is_empty() {
                    past.repairs += 1;
                    pauses.0.repaired(now);
                }
                self.tenants.remove(tenant);
                return healed.made;
            }
            Some(Ok(Outcome::Busy)) => {
                it.next_try = now + LOOK_EVERY;
                return Vec::new();
            }
            Some(Err(error)) => error.to_string(),
            None => NO_THREAD.to_owned(),
        };
        let pause = pauses.0.after_failure(pauses.1);
        it.next_try = now + pause;
        let since = it.failed.as_ref().map_or_else(since_epoch, |it| it.1);
        it.failed = Some((error.clone(), since));
        emit(&Event::HealFailed {
            tenant,
            error,
            next_try_s: pause.as_secs_f64(),
        });
        Vec::new()
    }
}

/// Whether the loss of such an object is repaired here. The switch is restarted elsewhere.
fn is_made(resource: &Resource) -> bool {
    !matches!(resource, Resource::Switch(_) | Resource::Ike(_))
}

fn is_hardware(resource: &Resource) -> bool {
    resource.idle_settings().is_some()
}

/// The objects of a tenant that are ours and may be lost.
fn losable<'a>(state: &'a State, record: &'a Record) -> impl Iterator<Item = &'a Resource> {
    let made = record.resources.iter().filter(|it| is_made(it));
    made.filter(|it| state.owned.contains_key(&it.key()))
}

impl Supervisor<'_> {
    /// The objects of each tenant that are ours and do not exist. What cannot be read counts as
    /// there: a verification reports it.
    fn missing(&self, state: &State) -> BTreeMap<Name, Vec<Key>> {
        let host = (self.host)();
        let mut there = BTreeMap::new();
        let mut missing = BTreeMap::new();
        for (name, record) in state.tenants.iter().filter(|(_, it)| it.complete) {
            for resource in losable(state, record) {
                let key = resource.key();
                let look = || host.exists(resource).unwrap_or(true);
                if !*there.entry(key.clone()).or_insert_with(look) {
                    missing
                        .entry(name.clone())
                        .or_insert_with(Vec::new)
                        .push(key);
                }
            }
        }
        missing
    }

    /// Whether an object of one tenant is ours and does not exist.
    pub(super) fn has_lost_something(&self, state: &State, tenant: &Name) -> bool {
        let host = (self.host)();
        let record = state.tenants.get(tenant).into_iter();
        let mut losable = record.flat_map(|record| losable(state, record));
        losable.any(|resource| !host.exists(resource).unwrap_or(true))
    }

    /// Repairs everything that was recorded of a tenant, except the start of its switch: if
    /// anything is missing, or if drift is the cause. `healed` says what was done, also if the rest
    /// failed.
    fn heal(&self, tenant: &Name, cause: Cause, healed: &mut Healed) -> Result<Outcome, HealError> {
        let state = state::read(self.dir)?;
        let Some(record) = complete(&state, tenant) else {
            return Ok(Outcome::Healed);
        };
        let mut host = (self.host)();
        let Some(directory) = self.restore_directory(&mut host, tenant, record)? else {
            return Ok(Outcome::Busy);
        };
        let remade = !directory.is_empty();
        healed.made.extend(directory);
        let Some(lock) = TenantLock::try_lock(self.dir, tenant)? else {
            return Ok(Outcome::Busy);
        };
        let now = state::read(self.dir)?;
        if complete(&now, tenant) != Some(record) {
            return Ok(Outcome::Busy);
        }
        let actions = self.repairs(&host, &now, record)?;
        let lost = remade || !Healed::of(&actions).made.is_empty();
        if actions.is_empty() || (!lost && cause == Cause::Loss) {
            return Ok(Outcome::Healed);
        }
        if actions.iter().any(|action| is_hardware(action.resource())) {
            drop(lock);
            return self.apply_again(&mut host, tenant, record, healed);
        }
        let begun = history::begin(self.dir, "repair", [tenant]);
        let steps = actions.len();
        let done = self.carry_out(&mut host, actions, healed);
        begun.end(
            self.dir,
            match &done {
                Ok(()) => Ok(steps),
                Err(error) => Err(error),
            },
        );
        done.map(|()| Outcome::Healed)
    }

    fn carry_out(
        &self,
        host: &mut dyn Host,
        actions: Vec<Action>,
        healed: &mut Healed,
    ) -> Result<(), HealError> {
        let failed = |action: &Action, error| HealError::host(action.resource().key(), error);
        // Only the tenant's own objects are deleted. That waits for its switch to end.
        let (deletions, changes): (Vec<_>, Vec<_>) = actions
            .into_iter()
            .partition(|action| matches!(action, Action::Delete { .. }));
        for action in &deletions {
            execute(host, action).map_err(|error| failed(action, error))?;
            healed.note(action);
        }
        // Tenants share some objects, and these are quickly made.
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        for action in &changes {
            let resource = action.resource();
            // Another tenant's repair may have made it meanwhile.
            if resource.is_shared()
                && host.observe(resource).ok().flatten().as_ref() == Some(resource)
            {
                continue;
            }
            execute(host, action).map_err(|error| failed(action, error))?;
            healed.note(action);
            read_back(host, action)
                .or_else(|error| if_shut(host, action).ok_or(error))
                .map_err(|error| failed(action, error))?;
        }
        Ok(())
    }

    /// Applies the record once more: functions of a NIC are proven before their switch has them,
    /// and given back if that fails. The store's lock is held, as by an apply, but not while a NIC
    /// is awaited.
    fn apply_again(
        &self,
        host: &mut dyn Host,
        tenant: &Name,
        record: &Record,
        healed: &mut Healed,
    ) -> Result<Outcome, HealError> {
        let is_pf = |it: &&Resource| is_hardware(it) && it.is_shared();
        for pf in record.resources.iter().filter(is_pf) {
            let key = pf.key();
            match host.exists(pf) {
                Ok(true) => {}
                Ok(false) => return Err(HealError::Gone(key)),
                Err(error) => return Err(HealError::host(key, error)),
            }
        }
        let Some(mut store) = HostLock::try_open(self.dir)? else {
            return Ok(Outcome::Busy);
        };
        if complete(store.state(), tenant) != Some(record) {
            return Ok(Outcome::Busy);
        }
        let change = Change {
            set: BTreeMap::from([(tenant.clone(), record.clone())]),
            ..Change::default()
        };
        let applied = apply(host, &mut store, &change, &never())?;
        healed.add(Healed::of(&applied.actions));
        Ok(Outcome::Healed)
    }

    /// Makes a missing directory of a tenant, without which there is no lock of the tenant. The
    /// store's lock is held instead; `None` if that is not free. Returns what was made.
    fn restore_directory(
        &self,
        host: &mut dyn Host,
        tenant: &Name,
        record: &Record,
    ) -> Result<Option<Vec<Key>>, HealError> {
        let is_directory = |it: &&Resource| matches!(it, Resource::Directory(_));
        let Some(directory) = record.resources.iter().find(is_directory) else {
            return Ok(Some(Vec::new()));
        };
        let failed = |error| HealError::host(directory.key(), error);
        if host.exists(directory).map_err(failed)? {
            return Ok(Some(Vec::new()));
        }
        let Some(store) = HostLock::try_open(self.dir)? else {
            return Ok(None);
        };
        if complete(store.state(), tenant) != Some(record) {
            return Ok(None);
        }
        host.create(directory).map_err(failed)?;
        Ok(Some(vec![directory.key()]))
    }

    /// What is to be done, without the start of the switch.
    fn repairs(
        &self,
        host: &dyn Host,
        state: &State,
        record: &Record,
    ) -> Result<Vec<Action>, HealError> {
        let wanted: Vec<&Resource> = record.resources.iter().collect();
        let mut observed = Observed::default();
        for (resource, is) in wanted.iter().zip(host.observe_all(&wanted)) {
            let key = resource.key();
            let is = is.map_err(|error| HealError::host(key.clone(), error))?;
            observed.owned.extend(
                state
                    .owned
                    .get_key_value(&key)
                    .map(|(key, it)| (key.clone(), it.clone())),
            );
            observed.present.extend(is.map(|is| (key, is)));
        }
        let desired = Desired {
            resources: wanted.into_iter().cloned().collect(),
            keep: BTreeSet::new(),
        };
        let mut actions = plan(&desired, &observed)?.actions;
        // A guest's namespace that was not made by us is not ours to make now.
        actions.retain(|action| match action {
            Action::Create { resource } => {
                is_made(resource) && state.owned.contains_key(&resource.key())
            }
            // A switch that runs with another configuration is given its own.
            Action::Update { .. } | Action::Delete { .. } => true,
        });
        Ok(actions)
    }
}

impl Healed {
    /// What these actions come to.
    fn of(actions: &[Action]) -> Self {
        let mut healed = Self::default();
        for action in actions {
            healed.note(action);
        }
        healed
    }

    /// Adds what a further try did. What each try does again is named once, so this is bounded.
    fn add(&mut self, other: Self) {
        for key in other.made {
            if !self.made.contains(&key) {
                self.made.push(key);
            }
        }
        for sentence in other.set {
            if !self.set.contains(&sentence) {
                self.set.push(sentence);
            }
        }
    }

    fn note(&mut self, action: &Action) {
        match action {
            Action::Create { resource } if is_made(resource) => self.made.push(resource.key()),
            Action::Update { .. } => self.set.push(action.to_string()),
            Action::Delete { resource } if !is_made(resource) => {
                self.set.push(format!("restart {}", resource.key()));
            }
            Action::Create { .. } | Action::Delete { .. } => {}
        }
    }
}

/// Whether a port's lock was set, and only its port is down. Who keeps the locks takes a port down
/// that it has seen without its lock, and up again when it sees the lock.
fn if_shut(host: &dyn Host, action: &Action) -> Option<()> {
    let wanted = action.resource();
    match (wanted, host.observe(wanted).ok()??) {
        (Resource::Lock(wanted), Resource::Lock(is)) => {
            let up = wanted.up;
            (Lock { up, ..is } == *wanted).then_some(())
        }
        _ => None,
    }
}

/// A tenant's record, unless an apply is changing it.
fn complete<'a>(state: &'a State, tenant: &Name) -> Option<&'a Record> {
    state.tenants.get(tenant).filter(|record| record.complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_try_does_again_is_named_once() {
        let said = |sentence: &str| Healed {
            set: vec![sentence.to_owned()],
            ..Healed::default()
        };
        let mut done = Healed::default();
        for _ in 0..3 {
            done.add(said("MTU"));
        }
        done.add(said("rules"));
        assert_eq!(done.set, ["MTU", "rules"]);
    }
}
