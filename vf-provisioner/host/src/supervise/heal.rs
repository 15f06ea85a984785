//! Recreates what a tenant has lost: the objects of its recorded plan, and nothing else.
//!
//! A look from time to time finds the objects that are missing, by their names only. Then a thread
//! for each such tenant, which holds that tenant's lock and waits for no other tenant, reads
//! everything that was recorded and repairs it. If the switch depends on what was recreated it is
//! stopped, and restarted as a dead one is. Functions of a NIC cannot be lost, and are left alone:
//! the mediation probe has to precede their use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::thread::Scope;
use std::time::{Duration, Instant};

use tenant_config::Name;

use super::events::{Event, emit};
use super::supervisor::{Job, LOOK_EVERY, NO_THREAD, Progress, Supervisor};
use crate::apply::{execute, read_back};
use crate::error::HostError;
use crate::host::Host;
use crate::plan::{Action, Desired, Observed, PlanError, plan};
use crate::resource::{Key, Resource};
use crate::state::{self, HostLock, Record, State, StateError, TenantLock};

/// The pause between two looks for missing objects.
const SEARCH_EVERY: Duration = Duration::from_secs(2);
/// The pause after a repair that failed; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The repairs under way.
#[derive(Default)]
pub(super) struct Healing {
    search: Option<Job<BTreeMap<Name, Vec<Key>>>>,
    next_search: Option<Instant>,
    tenants: BTreeMap<Name, Repair>,
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

/// The repair of one tenant.
struct Repair {
    job: Option<Job<Result<Outcome, HealError>>>,
    next_try: Instant,
    wait: Duration,
}

enum Outcome {
    /// An apply, a release, a restart or a verification is under way.
    Busy,
    /// These were made again; none if all was there.
    Healed(Vec<Key>),
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
}

impl HealError {
    fn host(key: Key, error: HostError) -> Self {
        Self::Host(key, Box::new(error))
    }
}

impl Healing {
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
        let mut whole = Vec::new();
        let mut made = BTreeSet::new();
        for (tenant, it) in &mut self.tenants {
            match it.job.as_ref().map(Job::progress) {
                Some(Progress::Running) => {}
                Some(Progress::Finished(result)) => {
                    it.job = None;
                    if let Some(keys) = it.settle(tenant, result) {
                        whole.push(tenant.clone());
                        made.extend(keys);
                    }
                }
                None if Instant::now() >= it.next_try => {
                    let tenant = tenant.clone();
                    let job = supervisor.spawn(scope, move || supervisor.heal(&tenant));
                    it.job = Some(job);
                }
                None => {}
            }
        }
        for tenant in whole {
            self.tenants.remove(&tenant);
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
            None => Priority::None,
            Some(it) if it.job.is_some() || it.wait.is_zero() => Priority::First,
            Some(_) => Priority::Later,
        }
    }

    /// Repairs a tenant now, unless that is under way.
    pub(super) fn begin(&mut self, tenant: &Name) {
        self.tenants
            .entry(tenant.clone())
            .or_insert_with(Repair::new);
    }

    /// When the next repair is due.
    pub(super) fn next_try(&self) -> Option<Instant> {
        let idle = self.tenants.values().filter(|it| it.job.is_none());
        idle.map(|it| it.next_try).min()
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
                    self.tenants.entry(tenant).or_insert_with_key(|tenant| {
                        emit(&Event::missing(tenant, &keys));
                        Repair::new()
                    });
                }
            }
            None if self.next_search.is_none_or(|next| Instant::now() >= next) => {
                let state = state.clone();
                self.search = Some(supervisor.spawn(scope, move || supervisor.missing(&state)));
            }
            None => {}
        }
    }
}

impl Repair {
    fn new() -> Self {
        Self {
            job: None,
            next_try: Instant::now(),
            wait: Duration::ZERO,
        }
    }

    /// Notes a result; `None` if the thread has none. Returns what was made, if the repair is over.
    fn settle(
        &mut self,
        tenant: &Name,
        result: Option<Result<Outcome, HealError>>,
    ) -> Option<Vec<Key>> {
        let error = match result {
            Some(Ok(Outcome::Healed(keys))) => {
                if !keys.is_empty() {
                    emit(&Event::healed(tenant, &keys));
                }
                return Some(keys);
            }
            Some(Ok(Outcome::Busy)) => {
                self.next_try = Instant::now() + LOOK_EVERY;
                return None;
            }
            Some(Err(error)) => error.to_string(),
            None => NO_THREAD.to_owned(),
        };
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, MAX_WAIT);
        self.next_try = Instant::now() + self.wait;
        let next_try_s = self.wait.as_secs_f64();
        emit(&Event::HealFailed {
            tenant,
            error,
            next_try_s,
        });
        None
    }
}

/// Whether the loss of such an object is repaired here. The switch is restarted elsewhere; hardware
/// cannot be lost.
fn is_made(resource: &Resource) -> bool {
    !matches!(resource, Resource::Switch(_)) && resource.idle_settings().is_none()
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

    /// Repairs everything that was recorded of a tenant, except its switch, if anything is missing.
    fn heal(&self, tenant: &Name) -> Result<Outcome, HealError> {
        let state = state::read(self.dir)?;
        let Some(record) = complete(&state, tenant) else {
            return Ok(Outcome::Healed(Vec::new()));
        };
        let mut host = (self.host)();
        let Some(directory) = self.restore_directory(&mut host, tenant, record)? else {
            return Ok(Outcome::Busy);
        };
        let Some(_lock) = TenantLock::try_lock(self.dir, tenant)? else {
            return Ok(Outcome::Busy);
        };
        let now = state::read(self.dir)?;
        if complete(&now, tenant) != Some(record) {
            return Ok(Outcome::Busy);
        }
        let actions = self.repairs(&host, &now, record)?;
        let is_loss =
            |action: &&Action| matches!(action, Action::Create { resource } if is_made(resource));
        let made = actions.iter().filter(is_loss);
        let made = made.map(|action| action.resource().key());
        let lost: Vec<Key> = directory.into_iter().chain(made).collect();
        if actions.is_empty() || lost.is_empty() {
            return Ok(Outcome::Healed(lost));
        }
        let failed = |action: &Action, error| HealError::host(action.resource().key(), error);
        // Only the tenant's own objects are deleted. That waits for its switch to end.
        let (deletions, changes): (Vec<_>, Vec<_>) = actions
            .into_iter()
            .partition(|action| matches!(action, Action::Delete { .. }));
        for action in &deletions {
            execute(&mut host, action).map_err(|error| failed(action, error))?;
        }
        // Tenants share some objects, and these are quickly made.
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        for action in &changes {
            execute(&mut host, action)
                .and_then(|()| read_back(&host, action))
                .map_err(|error| failed(action, error))?;
        }
        Ok(Outcome::Healed(lost))
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
        let wanted: Vec<&Resource> = record
            .resources
            .iter()
            .filter(|it| it.idle_settings().is_none())
            .collect();
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
            Action::Update { to, .. } => is_made(to),
            Action::Delete { .. } => true,
        });
        Ok(actions)
    }
}

/// A tenant's record, unless an apply is changing it.
fn complete<'a>(state: &'a State, tenant: &Name) -> Option<&'a Record> {
    state.tenants.get(tenant).filter(|record| record.complete)
}
