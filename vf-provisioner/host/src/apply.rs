//! The journaled half: executes a plan step by step, reads back what it set, and rolls back if a
//! step fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tenant_config::Name;

use crate::error::HostError;
use crate::history;
use crate::host::Host;
use crate::nic::probe::Probe;
use crate::object::Object;
use crate::plan::{Action, Desired, Observed, Plan, PlanError, plan};
use crate::resource::{Key, Resource};
use crate::state::{HostLock, Record, Records, State, StateError, TenantLock, Written};

/// What an operator asks for: some tenants set, some released, the others left as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Tenants as they should be.
    pub set: BTreeMap<Name, Record>,
    /// Tenants to release.
    pub release: BTreeSet<Name>,
    /// Tenants among those in `set` that have other names now, which are in `release`.
    pub renamed: BTreeMap<Name, Name>,
    /// Tenants among those in `set` whose running switch is restarted.
    pub restart: BTreeSet<Name>,
}

/// What an apply did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Every action, in order.
    pub actions: Vec<Action>,
    /// Ports whose gateway was asked with real frames and answered.
    pub probed: Vec<Name>,
}

/// Why an apply failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// There is no plan; nothing was touched.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The host cannot carry a tenant; nothing was touched.
    #[error("tenant {tenant}: {why}")]
    Refused {
        /// Which tenant.
        tenant: Name,
        /// A sentence.
        why: String,
    },
    /// The host could not be read; nothing was touched.
    #[error(transparent)]
    Unreadable(HostError),
    /// An object of the host could not be read; nothing was touched.
    #[error("cannot observe {key}: {source}")]
    Observe {
        /// The object.
        key: Key,
        /// Why.
        source: Box<HostError>,
    },
    /// The state directory failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A step failed; the host is as it was before.
    #[error("cannot {step}: {source}; all completed steps were rolled back")]
    RolledBack {
        /// The step, as `create …`.
        step: String,
        /// Why.
        source: Box<HostError>,
    },
    /// A step failed, and so did the roll-back.
    #[error(
        "cannot {step}: {source}; the roll-back failed as well ({}): run `release` for the tenant, \
         or apply again",
        left.join("; ")
    )]
    LeftBehind {
        /// The step.
        step: String,
        /// Why it failed.
        source: Box<HostError>,
        /// What could not be rolled back, and why.
        left: Vec<String>,
    },
    /// Fault injection stopped the apply; nothing was rolled back.
    #[error("stopped by fault injection")]
    Killed,
}

/// A point at which a crash must do no harm; fault injection counts them.
pub type CrashHere<'a> = &'a (dyn Fn() -> bool + Sync);

/// No faults.
pub fn never() -> impl Fn() -> bool + Sync {
    || false
}

/// Called before each step of an apply.
pub type OnStep<'a> = &'a (dyn Fn(&Action) + Sync);

/// The state directory, for applies of several tenants at the same time.
pub(crate) struct Shared<'a> {
    dir: PathBuf,
    store: Mutex<&'a mut HostLock>,
    /// Held while an object is made or removed that tenants share.
    sharing: Mutex<()>,
}

impl<'a> Shared<'a> {
    pub(crate) fn new(store: &'a mut HostLock) -> Self {
        Self {
            dir: store.dir().to_owned(),
            store: Mutex::new(store),
            sharing: Mutex::default(),
        }
    }

    /// To be held for a moment, and not during a step.
    pub(crate) fn lock(&self) -> MutexGuard<'_, &'a mut HostLock> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the disk without the lock, and so together with others.
    fn flush(&self, written: Option<Written>) -> Result<(), StateError> {
        let Some(written) = written else {
            return Ok(());
        };
        written.flush().or_else(|error| {
            // What could not be flushed is in the whole state, too.
            self.lock().save().map_err(|_| error)
        })
    }

    /// Records that `action` is about to be done.
    fn intend(&self, action: &Action) -> Result<(), StateError> {
        let written = self.lock().intend(action)?;
        self.flush(written)
    }

    /// Replaces these tenants' records.
    fn set_records(&self, records: Records) -> Result<(), StateError> {
        if records.is_empty() {
            return Ok(());
        }
        let written = self.lock().set_records(records)?;
        self.flush(written)
    }
}

/// What `change` would do now; of an empty change, to remove what is left over. Changes nothing.
pub fn plan_change(host: &dyn Host, state: &State, change: &Change) -> Result<Plan, ApplyError> {
    let present = look(host, change)?;
    plan_of(state, change, present, &BTreeSet::new())
}

/// The wanted objects that exist. Fails if the host cannot carry one of the tenants.
fn look(host: &dyn Host, change: &Change) -> Result<BTreeMap<Key, Resource>, ApplyError> {
    refuse(host, change)?;
    let resources = change.set.values().flat_map(|record| &record.resources);
    let wanted: Vec<&Resource> = resources.collect();
    let observed = host.observe_all(&wanted);
    present(wanted.into_iter().zip(observed))
}

/// The objects that were found. Each user of a shared object sees as much of it as it needs.
pub(crate) fn present<'a>(
    observed: impl Iterator<Item = (&'a Resource, Result<Option<Resource>, HostError>)>,
) -> Result<BTreeMap<Key, Resource>, ApplyError> {
    let mut present = BTreeMap::new();
    for (resource, is) in observed {
        let key = resource.key();
        match is {
            Ok(Some(is)) => {
                let both = present.get(&key).and_then(|it: &Resource| it.joined(&is));
                present.insert(key, both.unwrap_or(is));
            }
            Ok(None) => {}
            Err(source) => {
                let source = Box::new(source);
                return Err(ApplyError::Observe { key, source });
            }
        }
    }
    Ok(present)
}

/// Fails if the host cannot carry one of the tenants.
pub(crate) fn refuse(host: &dyn Host, change: &Change) -> Result<(), ApplyError> {
    let records: Vec<&Record> = change.set.values().collect();
    let refusals = host.refusals(&records).map_err(ApplyError::Unreadable)?;
    for (tenant, why) in change.set.keys().zip(refusals) {
        if let Some(why) = why {
            let tenant = tenant.clone();
            return Err(ApplyError::Refused { tenant, why });
        }
    }
    Ok(())
}

/// The plan of a change whose wanted objects are `present`. Only objects of the change's tenants
/// are touched, and of the shared ones none in `keep`: nothing of another tenant can fail it.
pub(crate) fn plan_of(
    state: &State,
    change: &Change,
    present: BTreeMap<Key, Resource>,
    keep: &BTreeSet<Key>,
) -> Result<Plan, ApplyError> {
    let changing: BTreeSet<Name> = change.set.keys().chain(&change.release).cloned().collect();
    let resources = change.set.values().flat_map(|record| &record.resources);
    let resources: Vec<Resource> = resources.cloned().collect();
    let wanted: BTreeSet<Key> = resources.iter().map(Resource::key).collect();
    let owned: BTreeMap<Key, Resource> = match changing.is_empty() {
        true => state.owned.clone(),
        false => {
            let recorded = changing.iter().filter_map(|name| state.tenants.get(name));
            let own = recorded.flat_map(Record::all_keys);
            let keys: BTreeSet<Key> = own.chain(wanted.iter().cloned()).collect();
            let owned = keys.into_iter();
            owned
                .filter_map(|key| Some((key.clone(), state.owned.get(&key)?.clone())))
                .collect()
        }
    };
    let doomed = owned.keys().filter(|key| !wanted.contains(*key));
    let doomed: BTreeSet<Key> = doomed.cloned().collect();
    let mut desired = Desired {
        resources,
        keep: state.used_by_others(&doomed, &changing),
    };
    desired.keep.extend(keep.intersection(&doomed).cloned());
    let observed = Observed { owned, present };
    let mut plan = plan(&desired, &observed)?;
    let present = &observed.present;
    let switches = change.restart.iter();
    let switches = switches.filter_map(|name| Some(change.set.get(name)?.running_switch()?.key()));
    for key in switches.filter(|key| present.contains_key(key)) {
        plan.restart(&desired, &key, present);
    }
    Ok(plan)
}

/// Carries out `change`, and notes who did so. After an error the host is as before, unless the
/// error says otherwise.
pub fn apply(
    host: &mut dyn Host,
    store: &mut HostLock,
    change: &Change,
    crash: CrashHere<'_>,
) -> Result<Applied, ApplyError> {
    let store = Shared::new(store);
    apply_beside(host, &store, change, &BTreeSet::new(), crash, &|_| {})
}

/// The same, beside changes of other tenants; of the shared objects those in `keep` stay.
pub(crate) fn apply_beside(
    host: &mut dyn Host,
    store: &Shared<'_>,
    change: &Change,
    keep: &BTreeSet<Key>,
    crash: CrashHere<'_>,
    on_step: OnStep<'_>,
) -> Result<Applied, ApplyError> {
    let what = match (change.set.is_empty(), change.release.is_empty()) {
        (true, true) => "clean up",
        (true, false) => "release",
        (false, true) => "apply",
        (false, false) if !change.renamed.is_empty() => "rename",
        (false, false) => "apply and release",
    };
    let begun = history::begin(&store.dir, what, change.set.keys().chain(&change.release));
    let applied = carry_out(host, store, change, keep, crash, on_step);
    match &applied {
        Ok(applied) => begun.end(&store.dir, Ok(applied.actions.len())),
        // As a process that was killed.
        Err(ApplyError::Killed) => {}
        Err(error) => begun.end(&store.dir, Err(error)),
    }
    applied
}

fn carry_out(
    host: &mut dyn Host,
    store: &Shared<'_>,
    change: &Change,
    keep: &BTreeSet<Key>,
    crash: CrashHere<'_>,
    on_step: OnStep<'_>,
) -> Result<Applied, ApplyError> {
    let tenants: BTreeSet<&Name> = change.set.keys().chain(&change.release).collect();
    let mut locks = BTreeMap::new();
    for tenant in tenants {
        locks.insert(tenant, TenantLock::lock(&store.dir, tenant)?);
    }
    let present = look(host, change)?;
    let (mut plan, before) = {
        let held = store.lock();
        let state = held.state();
        let names = change.set.keys().chain(&change.release);
        let before: BTreeMap<Name, Record> = names
            .filter_map(|name| Some((name.clone(), state.tenants.get(name)?.clone())))
            .collect();
        (plan_of(state, change, present, &BTreeSet::new())?, before)
    };
    plan.actions.retain(|action| {
        let is_delete = matches!(action, Action::Delete { .. });
        !(is_delete && keep.contains(&action.resource().key()))
    });
    let changing = changing(&before, change, &plan);
    // The supervisor goes on to watch tenants that are as they should be.
    locks.retain(|name, _| changing.contains(*name));
    if plan.actions.is_empty() && changing.is_empty() {
        return Ok(Applied::default());
    }
    let (during, after) = records(&before, change, &changing);
    if let Err(error) = store.set_records(during) {
        if !change.set.is_empty() {
            return Err(error.into());
        }
        // A release makes the space that it needs.
        tracing::warn!(%error, "releasing all the same");
    }

    let interrupted = |name: &&Name| before.get(*name).is_none_or(|record| !record.complete);
    let mut run = Run {
        host,
        store,
        crash,
        on_step,
        done: Vec::new(),
        deleted: Vec::new(),
        unprobed: change.set.keys().filter(interrupted).cloned().collect(),
    };
    let probes = probes(change, &plan);
    let forward = match run.forward(&plan, &probes) {
        Ok(()) => match store.set_records(after) {
            // What is released is not made again.
            Err(error) if change.set.is_empty() => return Err(error.into()),
            recorded => {
                recorded.map_err(|error| Stop::state("record the tenants".to_owned(), error))
            }
        },
        stopped => stopped,
    };
    if forward.is_ok() {
        run.record_deleted();
    }
    match forward {
        Ok(()) => Ok(Applied {
            actions: plan.actions,
            probed: probes.into_iter().map(|probe| probe.port).collect(),
        }),
        Err(Stop::Killed) => Err(ApplyError::Killed),
        Err(Stop::Failed { step, source }) => {
            let mut left = run.roll_back();
            let back = changing.iter().chain(&change.release);
            let back = back.map(|name| (name.clone(), before.get(name).cloned()));
            if let Err(error) = store.set_records(back.collect()) {
                left.push(error.to_string());
            }
            Err(if left.is_empty() {
                ApplyError::RolledBack { step, source }
            } else {
                ApplyError::LeftBehind { step, source, left }
            })
        }
    }
}

/// One step that belongs to no tenant, or to several.
pub(crate) fn step_alone(
    host: &mut dyn Host,
    store: &Shared<'_>,
    action: &Action,
    crash: CrashHere<'_>,
    on_step: OnStep<'_>,
) -> Result<(), ApplyError> {
    let mut run = Run {
        host,
        store,
        crash,
        on_step,
        done: Vec::new(),
        deleted: Vec::new(),
        unprobed: BTreeSet::new(),
    };
    match run.step(action, &Plan::default()) {
        Ok(()) => {
            run.record_deleted();
            Ok(())
        }
        Err(Stop::Killed) => Err(ApplyError::Killed),
        // What could not be removed is not made again.
        Err(Stop::Failed { step, source }) => {
            let left = match action {
                Action::Delete { .. } => Vec::new(),
                _ => run.roll_back(),
            };
            Err(match left.is_empty() {
                true => ApplyError::RolledBack { step, source },
                false => ApplyError::LeftBehind { step, source, left },
            })
        }
    }
}

/// The tenants that a change does something to.
pub(crate) fn changing(
    before: &BTreeMap<Name, Record>,
    change: &Change,
    plan: &Plan,
) -> BTreeSet<Name> {
    let acted: BTreeSet<Key> = plan
        .actions
        .iter()
        .map(|action| action.resource().key())
        .collect();
    let is_acted_on = |record: &Record| {
        let own = record.resources.iter().filter(|it| !it.is_shared());
        own.map(Resource::key).any(|key| acted.contains(&key))
    };
    let is_changing = |(name, record): &(&Name, &Record)| {
        let before = before.get(*name);
        !before.is_some_and(|before| before.complete && before.has_same_objects(record))
            || is_acted_on(record)
    };
    let set = change.set.iter().filter(is_changing);
    let released = change.release.iter();
    set.map(|(name, _)| name).chain(released).cloned().collect()
}

/// The records while a change is under way, and after it.
fn records(
    before: &BTreeMap<Name, Record>,
    change: &Change,
    changing: &BTreeSet<Name>,
) -> (Records, Records) {
    let mut during = Records::new();
    during.extend(change.release.iter().map(|name| (name.clone(), None)));
    let mut after = Records::new();
    for (name, record) in &change.set {
        if !changing.contains(name) {
            continue;
        }
        let known = change.renamed.get(name).unwrap_or(name);
        let previous = match before.get(known) {
            Some(before) if before.complete => Some(Box::new(before.clone())),
            Some(interrupted) => interrupted.previous.clone(),
            None => None,
        };
        let recorded = before.get(name).and_then(|it| it.formerly.clone());
        let formerly = change.renamed.get(name).cloned().or(recorded);
        let record = |complete, previous| Record {
            complete,
            previous,
            formerly: formerly.clone(),
            ..record.clone()
        };
        during.insert(name.clone(), Some(record(false, previous)));
        after.insert(name.clone(), Some(record(true, None)));
    }
    (during, after)
}

/// The ports of every tenant whose switch the plan starts or changes.
fn probes(change: &Change, plan: &Plan) -> Vec<Probe> {
    let starts: BTreeSet<&Name> = plan
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Create {
                resource: Resource::Switch(switch),
            }
            | Action::Update {
                to: Resource::Switch(switch),
                ..
            } => Some(&switch.tenant),
            _ => None,
        })
        .collect();
    change
        .set
        .iter()
        .filter(|(name, _)| starts.contains(name))
        .flat_map(|(_, record)| record.probes.iter().cloned())
        .collect()
}

enum Stop {
    Killed,
    Failed {
        step: String,
        source: Box<HostError>,
    },
}

impl Stop {
    fn failed(step: String, source: HostError) -> Self {
        let source = Box::new(source);
        Self::Failed { step, source }
    }

    /// The state could not be written.
    fn state(step: String, error: StateError) -> Self {
        let source = match error {
            StateError::Io { what, path, source } => HostError::Io {
                what: format!("{what} {}", path.display()),
                source,
            },
            other @ (StateError::Damaged { .. } | StateError::Newer { .. }) => HostError::Program {
                program: "the record of what is done",
                message: other.to_string(),
            },
        };
        Self::failed(step, source)
    }
}

struct Run<'a, 's> {
    host: &'a mut dyn Host,
    store: &'a Shared<'s>,
    crash: CrashHere<'a>,
    on_step: OnStep<'a>,
    done: Vec<Action>,
    /// Deletions among them. The journal hears of them when all is done: what is made again by a
    /// roll-back is still ours, also if that cannot be recorded.
    deleted: Vec<Action>,
    /// Tenants that are new, or whose last apply was interrupted.
    unprobed: BTreeSet<Name>,
}

impl Run<'_, '_> {
    fn forward(&mut self, plan: &Plan, probes: &[Probe]) -> Result<(), Stop> {
        self.may_crash()?;
        for action in &plan.actions {
            self.step(action, plan)?;
        }
        for (probe, answered) in probes.iter().zip(self.host.probe_all(probes)) {
            let step = || format!("probe port {}", probe.port);
            answered.map_err(|source| Stop::failed(step(), source))?;
        }
        self.may_crash()
    }

    fn step(&mut self, action: &Action, plan: &Plan) -> Result<(), Stop> {
        tracing::info!(%action, "apply");
        (self.on_step)(action);
        let intent = self.store.intend(action);
        intent.map_err(|error| Stop::state(format!("record that it will {action}"), error))?;
        // A step that fails may have done half of its work.
        self.done.push(action.clone());
        self.may_crash()?;
        self.prove(action, plan)?;
        {
            let sharing = &self.store.sharing;
            let shared = action.resource().is_shared();
            let _one = shared.then(|| sharing.lock().unwrap_or_else(PoisonError::into_inner));
            // Another tenant's apply may have made it meanwhile. A deletion is always tried: it
            // says what it must leave.
            let is_made = shared
                && !matches!(action, Action::Delete { .. })
                && read_back(self.host, action).is_ok();
            if !is_made {
                execute(self.host, action)
                    .and_then(|()| read_back(self.host, action))
                    .map_err(|source| Stop::failed(action.to_string(), source))?;
            }
        }
        self.may_crash()?;
        if action.frees().is_some() {
            self.store.lock().forget(action);
            self.deleted.push(action.clone());
        }
        self.may_crash()
    }

    /// Records what was deleted, now that it is not made again.
    fn record_deleted(&self) {
        let mut store = self.store.lock();
        for action in &self.deleted {
            // What was made again is ours.
            let free = action.frees();
            if free.is_some_and(|key| !store.state().owned.contains_key(&key)) {
                store.done(action);
            }
        }
    }

    /// Before a switch is started or changed: probes the new objects of its tenant.
    fn prove(&mut self, action: &Action, plan: &Plan) -> Result<(), Stop> {
        let (Action::Create { resource } | Action::Update { to: resource, .. }) = action else {
            return Ok(());
        };
        let Resource::Switch(switch) = resource else {
            return Ok(());
        };
        let store = self.store;
        let record = store.lock().state().tenants.get(&switch.tenant).cloned();
        let Some(record) = record else {
            return Ok(());
        };
        let own: BTreeSet<Key> = record.resources.iter().map(Resource::key).collect();
        let starts = matches!(action, Action::Create { .. });
        let all = starts && self.unprobed.contains(&switch.tenant);
        let created = plan.actions.iter().filter_map(|action| match action {
            Action::Create { resource } => Some(resource.key()),
            _ => None,
        });
        let new = match all {
            true => own,
            false => created.filter(|key| own.contains(key)).collect(),
        };
        // The probe lasts, and others write the state meanwhile.
        let state = || store.lock().state().clone();
        self.host.prove(&record, &new, &state).map_err(|source| {
            let tenant = &switch.tenant;
            let step = format!("prove that no frame gets around the switch of tenant {tenant}");
            Stop::failed(step, source)
        })
    }

    fn may_crash(&mut self) -> Result<(), Stop> {
        if (self.crash)() {
            return Err(Stop::Killed);
        }
        Ok(())
    }

    /// Rolls back the completed steps, last first, and continues after failures. The host is more
    /// than its record: what cannot be recorded is rolled back all the same.
    fn roll_back(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        for action in std::mem::take(&mut self.done).iter().rev() {
            let inverse = action.inverse();
            tracing::info!(action = %inverse, "roll back");
            if let Err(error) = self.store.intend(&inverse) {
                tracing::warn!(action = %inverse, %error, "rolled back without a record");
            }
            let executed = execute(self.host, &inverse);
            match executed.and_then(|()| read_back(self.host, &inverse)) {
                Ok(()) => self.store.lock().done(&inverse),
                Err(error) => left.push(format!("{inverse}: {error}")),
            }
        }
        left
    }
}

/// Executes one step.
pub(crate) fn execute(host: &mut dyn Host, action: &Action) -> Result<(), HostError> {
    match action {
        Action::Create { resource } => host.create(resource),
        Action::Update { from, to } => host.update(from, to),
        Action::Delete { resource } => host.delete(resource),
    }
}

/// Compares the object of a step that was executed with what it should be now.
pub(crate) fn read_back(host: &dyn Host, action: &Action) -> Result<(), HostError> {
    let wanted = action.resource();
    let is = host.observe(wanted)?;
    let differences = match (action, is) {
        (Action::Delete { .. }, None) => return Ok(()),
        (Action::Delete { .. }, Some(is)) if is.is_idle() => return Ok(()),
        (Action::Delete { .. }, Some(_)) if host.stays(wanted)?.is_some() => return Ok(()),
        (Action::Delete { .. }, Some(is)) => match is.idle_settings() {
            Some(idle) => idle.differences(&is).join("; "),
            None => "it still exists".to_owned(),
        },
        (_, None) => "it does not exist".to_owned(),
        (_, Some(is)) if is == *wanted => return Ok(()),
        (_, Some(is)) => wanted.differences(&is).join("; "),
    };
    Err(HostError::ReadBack {
        key: wanted.key(),
        differences,
    })
}
