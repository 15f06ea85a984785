//! Changes of several tenants, each of which succeeds or fails alone.
//!
//! The order is: what an interrupted apply has left is removed; tenants are released; shared
//! objects are made; each tenant is made or changed; shared objects without a user are removed.
//! Several tenants are released, or made, at the same time.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tenant_config::{Name, SwitchConfig, check_host};

use crate::apply::{
    Applied, ApplyError, Change, CrashHere, Shared, apply_beside, changing, plan_of, present,
    step_alone,
};
use crate::error::HostError;
use crate::host::Host;
use crate::parallel;
use crate::plan::{Action, Desired, Observed, Plan, plan};
use crate::resource::{Key, Resource};
use crate::state::{HostLock, Record, State};
use crate::tenants::{claims, host_tenants, sources};

/// How many tenants are released or made at once. The start of a switch is mostly waiting, and
/// behind each step of a tenant is a wait for the disk; more of them only wait for the processor.
const AT_ONCE: usize = 8;

/// The part of a batch that succeeds or fails as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Objects that an interrupted apply or release has left, or that have no user any more.
    LeftOver,
    /// Objects that tenants share.
    Shared,
    /// These tenants are released.
    Release(BTreeSet<Name>),
    /// These tenants are made or changed: one, or several that exchange something.
    Set(BTreeSet<Name>),
}

/// How a part of a batch ended, or what it would do.
#[derive(Debug)]
pub struct Outcome<T> {
    /// Which part.
    pub part: Part,
    /// How it ended. A failed part is as before, unless the error says otherwise.
    pub result: Result<T, ApplyError>,
}

/// What is told of a batch under way.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A step of a part begins.
    Step(&'a Part, &'a Action),
    /// A part has ended.
    Ended(&'a Outcome<Applied>),
}

/// Who is told.
pub type Report<'a> = &'a (dyn Fn(Progress<'_>) + Sync);

/// The parts of a change, in the order in which they are carried out.
fn parts(state: &State, change: &Change) -> Vec<(Part, Change)> {
    let release = change.release.iter().map(|name| {
        let release = BTreeSet::from([name.clone()]);
        let change = Change {
            release: release.clone(),
            ..Change::default()
        };
        (Part::Release(release), change)
    });
    let groups = groups(state, &change.set);
    let set = groups.into_iter().map(|group| {
        let set = group.iter().filter_map(|name| {
            let record = change.set.get(name)?;
            Some((name.clone(), record.clone()))
        });
        let change = Change {
            set: set.collect(),
            restart: change.restart.intersection(&group).cloned().collect(),
            ..Change::default()
        };
        (Part::Set(group), change)
    });
    release.chain(set).collect()
}

/// Divides tenants into groups, so that none takes what a tenant of another group gives up.
fn groups(state: &State, set: &BTreeMap<Name, Record>) -> Vec<BTreeSet<Name>> {
    let mut leader: BTreeMap<&Name, &Name> = set.keys().map(|name| (name, name)).collect();
    let mut join = |one: &Name, other: &Name| {
        let (Some(one), Some(other)) = (leader.get(one).copied(), leader.get(other).copied())
        else {
            return;
        };
        for name in leader.values_mut().filter(|name| **name == other) {
            *name = one;
        }
    };
    let changed: Vec<(&Name, &Record, &Record)> = set
        .iter()
        .filter_map(|(name, record)| Some((name, record, state.tenants.get(name)?)))
        .filter(|(_, record, before)| record.resources != before.resources)
        .collect();
    let mut given_up: BTreeMap<String, &Name> = BTreeMap::new();
    for (name, record, before) in &changed {
        let kept = claims(record);
        let lost = claims(before).into_iter().filter(|it| !kept.contains(it));
        given_up.extend(lost.map(|claim| (claim, *name)));
    }
    if !given_up.is_empty() {
        for (name, record) in set {
            for claim in claims(record) {
                if let Some(other) = given_up.get(&claim) {
                    join(other, name);
                }
            }
        }
    }
    // Addresses that meet only while both the old and the new ones are there.
    for (name, record, before) in &changed {
        let config = |record: &Record| record.switch().map(|it| it.config.clone());
        if let (Some(now), Some(then)) = (config(record), config(before))
            && (&now.gateway, &now.uplink, &now.tunnel)
                == (&then.gateway, &then.uplink, &then.tunnel)
        {
            continue;
        }
        let old = sources([(*name, *before)]);
        let meets = |new: &[(String, &SwitchConfig)]| {
            check_host(&host_tenants(&old), &host_tenants(new)).is_err()
        };
        let others = || set.iter().filter(|(other, _)| other != name);
        if meets(&sources(others())) {
            let met = others().filter(|(other, record)| meets(&sources([(*other, *record)])));
            met.for_each(|(other, _)| join(name, other));
        }
    }
    let mut groups: BTreeMap<&Name, BTreeSet<Name>> = BTreeMap::new();
    for (name, leader) in leader {
        groups.entry(leader).or_default().insert(name.clone());
    }
    groups.into_values().collect()
}

/// The shared objects of all tenants that are set, each as it serves all of them.
fn shared(change: &Change) -> BTreeMap<Key, Cow<'_, Resource>> {
    let all = change.set.values().flat_map(|record| &record.resources);
    let mut shared: BTreeMap<Key, Cow<'_, Resource>> = BTreeMap::new();
    for resource in all.filter(|resource| resource.is_shared()) {
        let both = shared.get(&resource.key());
        let both = both.and_then(|other| other.joined(resource));
        let both = both.map_or(Cow::Borrowed(resource), Cow::Owned);
        shared.insert(resource.key(), both);
    }
    shared
}

/// What was read of the host before a batch.
pub struct Looked<'a> {
    /// The wanted objects, and as they were found.
    objects: BTreeMap<Key, (&'a Resource, Result<Option<Resource>, HostError>)>,
    /// Why this host cannot carry a tenant; or why that is unknown.
    refusals: Result<BTreeMap<&'a Name, String>, Arc<HostError>>,
}

/// Looks at what `change` is about. Needs no lock.
pub fn look<'a>(host: &dyn Host, change: &'a Change) -> Looked<'a> {
    let all = change.set.values().flat_map(|record| &record.resources);
    let wanted: BTreeMap<Key, &Resource> = all.map(|it| (it.key(), it)).collect();
    let list: Vec<&Resource> = wanted.values().copied().collect();
    let observed = host.observe_all(&list);
    let seen = wanted.into_iter().zip(observed);
    let records: Vec<&Record> = change.set.values().collect();
    let refusals = host.refusals(&records).map_err(Arc::new);
    let refusals = refusals.map(|all| {
        let all = change.set.keys().zip(all);
        all.filter_map(|(name, why)| Some((name, why?))).collect()
    });
    Looked {
        objects: seen
            .map(|((key, wanted), is)| (key, (wanted, is)))
            .collect(),
        refusals,
    }
}

impl Looked<'_> {
    /// An object as it was found. What tenants share they may want differently, and see
    /// accordingly. Errors are read again by the part that they belong to.
    fn found(&self, host: &dyn Host, wanted: &Resource) -> Result<Option<Resource>, HostError> {
        match self.objects.get(&wanted.key()) {
            Some((seen, Ok(is))) if *seen == wanted => Ok(is.clone()),
            _ => host.observe(wanted),
        }
    }

    /// The objects of a part that exist. Fails if the host cannot carry one of its tenants.
    fn present(
        &self,
        host: &dyn Host,
        change: &Change,
    ) -> Result<BTreeMap<Key, Resource>, ApplyError> {
        let refusals = self.refusals.as_ref().map_err(|error| {
            let error = HostError::Shared(Arc::clone(error));
            ApplyError::Unreadable(error)
        })?;
        let refused = change
            .set
            .keys()
            .find_map(|name| Some((name, refusals.get(name)?)));
        if let Some((tenant, why)) = refused {
            let (tenant, why) = (tenant.clone(), why.clone());
            return Err(ApplyError::Refused { tenant, why });
        }
        let all = change.set.values().flat_map(|record| &record.resources);
        present(all.map(|it| (it, self.found(host, it))))
    }
}

/// What a batch would do, part by part. Changes nothing.
pub fn plan_each(host: &dyn Host, state: &State, change: &Change) -> Vec<Outcome<Plan>> {
    let mut outcomes = Vec::new();
    let mut add = |part, result: Result<Plan, ApplyError>| {
        outcomes.push(Outcome { part, result });
    };
    if !state.left_over().is_empty() {
        let left = plan_of(state, &Change::default(), BTreeMap::new(), &BTreeSet::new());
        add(Part::LeftOver, left);
    }
    let mut looked = look(host, change);
    let shared: BTreeSet<Key> = shared(change).into_keys().collect();
    // As it will be when the releases are done.
    let mut after = Cow::Borrowed(state);
    for (part, change) in parts(state, change) {
        let planned = looked
            .present(host, &change)
            .and_then(|present| match &part {
                Part::Release(_) => plan_of(&after, &change, present, &shared),
                _ => plan_of(&after, &change, present, &BTreeSet::new()),
            });
        if let (Part::Release(names), Ok(plan)) = (&part, &planned) {
            let state = after.to_mut();
            state.tenants.retain(|name, _| !names.contains(name));
            for action in &plan.actions {
                let key = action.resource().key();
                state.owned.remove(&key);
                if let Some((_, is)) = looked.objects.get_mut(&key) {
                    *is = Ok(None);
                }
            }
        }
        add(part, planned);
    }
    // What several tenants share is in the plan of the first only.
    let mut seen = BTreeSet::new();
    for outcome in &mut outcomes {
        if let Ok(plan) = &mut outcome.result {
            plan.actions.retain(|action| {
                let key = action.resource().key();
                !action.resource().is_shared() || seen.insert(key)
            });
        }
    }
    outcomes
}

/// Carries out a batch. Every part is tried, whatever becomes of the others.
pub fn apply_each(
    host: &mut dyn Host,
    store: &mut HostLock,
    change: &Change,
    crash: CrashHere<'_>,
    report: Report<'_>,
) -> Vec<Outcome<Applied>> {
    apply_seen(host, store, change, None, crash, report)
}

/// The same, of what was looked at before the lock was taken, if the state was the same then.
pub fn apply_seen(
    host: &mut dyn Host,
    store: &mut HostLock,
    change: &Change,
    looked: Option<Looked<'_>>,
    crash: CrashHere<'_>,
    report: Report<'_>,
) -> Vec<Outcome<Applied>> {
    let mut batch = Batch {
        host,
        store: Shared::new(store),
        crash,
        report,
        outcomes: Vec::new(),
        killed: AtomicBool::new(false),
    };
    batch.remove_left_over();
    let parts = parts(batch.store.lock().state(), change);
    let shared = shared(change);
    let mut keep: BTreeSet<Key> = shared.keys().cloned().collect();
    let (release, set): (Vec<_>, Vec<_>) = parts
        .into_iter()
        .partition(|(part, _)| matches!(part, Part::Release(_)));
    // What is released, or was left over, is seen no more.
    let looked = looked.filter(|_| release.is_empty() && batch.outcomes.is_empty());
    batch.release_all(release, &keep);
    let stay = batch.not_released();
    let looked = looked.unwrap_or_else(|| look(batch.host, change));
    batch.make_shared(&shared, &looked);
    keep.extend(shared.into_keys());
    let mut outcomes = Vec::new();
    let mut todo = Vec::new();
    for (part, change) in set {
        // A tenant that is as it should be is not locked.
        let done = match excluded(&change, &stay) {
            Some(refused) => Some(Err(refused)),
            None if batch.is_done(&change, &looked) => Some(Ok(Applied::default())),
            None => None,
        };
        match done {
            Some(result) => outcomes.push(Some(batch.ended(part, result))),
            None => {
                outcomes.push(None);
                todo.push((part, change));
            }
        }
    }
    let mut applied = batch.apply_all(&todo, &keep).into_iter();
    for outcome in outcomes {
        let outcome = outcome.or_else(|| applied.next().flatten());
        batch.outcomes.extend(outcome);
    }
    batch.remove_left_over();
    batch.outcomes
}

/// Why a tenant cannot be made because of one that was to be released.
fn excluded(change: &Change, stay: &BTreeMap<Name, Record>) -> Option<ApplyError> {
    for (other, there) in stay {
        let taken = claims(there);
        for (tenant, record) in &change.set {
            let shared = claims(record).into_iter().find(|it| taken.contains(it));
            let shared = shared.map(|what| {
                format!("{what} is still that of tenant {other}, which could not be released")
            });
            let (one, two) = (sources([(other, there)]), sources([(tenant, record)]));
            let met = || check_host(&host_tenants(&one), &host_tenants(&two)).err();
            if let Some(why) = shared.or_else(|| Some(met()?.to_string())) {
                let tenant = tenant.clone();
                return Some(ApplyError::Refused { tenant, why });
            }
        }
    }
    None
}

struct Batch<'a> {
    host: &'a mut dyn Host,
    store: Shared<'a>,
    crash: CrashHere<'a>,
    report: Report<'a>,
    outcomes: Vec<Outcome<Applied>>,
    /// Fault injection stopped it.
    killed: AtomicBool,
}

fn ended(
    report: Report<'_>,
    killed: &AtomicBool,
    part: Part,
    result: Result<Applied, ApplyError>,
) -> Outcome<Applied> {
    if matches!(result, Err(ApplyError::Killed)) {
        killed.store(true, Ordering::Relaxed);
    }
    let outcome = Outcome { part, result };
    report(Progress::Ended(&outcome));
    outcome
}

/// Whether a change is about functions of a NIC.
fn has_hardware(state: &State, change: &Change) -> bool {
    let names = change.set.keys().chain(&change.release);
    let before = names.filter_map(|name| state.tenants.get(name));
    let mut all = before.chain(change.set.values());
    all.any(|record| {
        record
            .resources
            .iter()
            .any(|it| it.idle_settings().is_some())
    })
}

fn locked<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Batch<'_> {
    fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// The outcome of a part that has ended, which is reported.
    fn ended(&self, part: Part, result: Result<Applied, ApplyError>) -> Outcome<Applied> {
        ended(self.report, &self.killed, part, result)
    }

    fn end(&mut self, part: Part, result: Result<Applied, ApplyError>) {
        let outcome = self.ended(part, result);
        self.outcomes.push(outcome);
    }

    /// The tenants that could not be released.
    fn not_released(&self) -> BTreeMap<Name, Record> {
        let store = self.store.lock();
        let failed = self.outcomes.iter().filter(|it| it.result.is_err());
        let names = failed.flat_map(|it| match &it.part {
            Part::Release(names) => names.iter(),
            _ => Default::default(),
        });
        names
            .filter_map(|name| Some((name.clone(), store.state().tenants.get(name)?.clone())))
            .collect()
    }

    /// Whether the part's tenants are as they should be.
    fn is_done(&self, change: &Change, looked: &Looked<'_>) -> bool {
        let planned = looked.present(self.host, change).and_then(|present| {
            let store = self.store.lock();
            let plan = plan_of(store.state(), change, present, &BTreeSet::new())?;
            Ok(changing(&store.state().tenants, change, &plan).is_empty() && plan.is_empty())
        });
        planned.unwrap_or(false)
    }

    /// Releases tenants. What several share is left over, and removed behind them.
    fn release_all(&mut self, release: Vec<(Part, Change)>, keep: &BTreeSet<Key>) {
        let mut keep = keep.clone();
        if release.len() > 1 {
            let store = self.store.lock();
            let owned = store.state().owned.iter();
            keep.extend(
                owned
                    .filter(|(_, it)| it.is_shared())
                    .map(|(key, _)| key.clone()),
            );
        }
        let released = self.apply_all(&release, &keep);
        self.outcomes.extend(released.into_iter().flatten());
        if release.len() > 1 {
            self.remove_left_over();
        }
    }

    /// Each part by itself, several at once if the host can do that. `None` of one that was not
    /// tried.
    fn apply_all(
        &mut self,
        parts: &[(Part, Change)],
        keep: &BTreeSet<Key>,
    ) -> Vec<Option<Outcome<Applied>>> {
        let at_once = match parts.len() {
            0 | 1 => 0,
            many => many.min(AT_ONCE),
        };
        let hosts: Vec<_> = (0..at_once).map_while(|_| self.host.beside()).collect();
        let (store, crash, report) = (&self.store, self.crash, self.report);
        let killed = &self.killed;
        let apply = |host: &mut dyn Host, (part, change): &(Part, Change)| {
            if killed.load(Ordering::Relaxed) {
                return None;
            }
            let on_step = |action: &Action| report(Progress::Step(part, action));
            let result = apply_beside(host, store, change, keep, crash, &on_step);
            Some(ended(report, killed, part.clone(), result))
        };
        if hosts.is_empty() {
            let host = &mut *self.host;
            return parts.iter().map(|it| apply(host, it)).collect();
        }
        let at_once = hosts.len();
        let hosts = Mutex::new(hosts);
        // A probe of a NIC's functions is disturbed by the making of others.
        let hardware = Mutex::new(());
        parallel::map_at_most(at_once, parts, |it| {
            let alone = has_hardware(store.lock().state(), &it.1);
            let _alone = alone.then(|| locked(&hardware));
            // There are as many as threads.
            let mut host = locked(&hosts).pop()?;
            let outcome = apply(&mut *host, it);
            locked(&hosts).push(host);
            outcome
        })
    }

    /// Carries out steps that need not succeed together.
    fn steps(&mut self, part: Part, actions: &[Action]) {
        let mut done = Vec::new();
        for action in actions {
            if self.is_killed() {
                return;
            }
            let report = self.report;
            let on_step = |action: &Action| report(Progress::Step(&part, action));
            let (host, store, crash) = (&mut *self.host, &self.store, self.crash);
            match step_alone(host, store, action, crash, &on_step) {
                Ok(()) => done.push(action.clone()),
                // A tenant that needs it tries again, and says why it fails.
                Err(error) if part == Part::Shared && !matches!(error, ApplyError::Killed) => {
                    tracing::info!(%error, "not made for all");
                }
                Err(error) => self.end(part.clone(), Err(error)),
            }
        }
        if !done.is_empty() {
            let applied = Applied {
                actions: done,
                probed: Vec::new(),
            };
            self.end(part, Ok(applied));
        }
    }

    /// Removes objects of ours that no tenant has.
    fn remove_left_over(&mut self) {
        let none = Change::default();
        let left = {
            let store = self.store.lock();
            if store.state().left_over().is_empty() {
                return;
            }
            plan_of(store.state(), &none, BTreeMap::new(), &BTreeSet::new())
        };
        match left {
            Ok(plan) => self.steps(Part::LeftOver, &plan.actions),
            Err(error) => self.end(Part::LeftOver, Err(error)),
        }
    }

    /// Makes and changes what tenants share.
    fn make_shared(&mut self, shared: &BTreeMap<Key, Cow<'_, Resource>>, looked: &Looked<'_>) {
        let mut actions = Vec::new();
        for (key, resource) in shared {
            let Ok(is) = looked.found(self.host, resource) else {
                continue;
            };
            let desired = Desired {
                resources: vec![Resource::clone(resource)],
                keep: BTreeSet::new(),
            };
            let store = self.store.lock();
            let owned = store.state().owned.get_key_value(key).into_iter();
            let is = is.into_iter().map(|is| (key.clone(), is));
            let observed = Observed {
                owned: owned.map(|(key, it)| (key.clone(), it.clone())).collect(),
                present: is.collect(),
            };
            actions.extend(
                plan(&desired, &observed)
                    .into_iter()
                    .flat_map(|it| it.actions),
            );
        }
        self.steps(Part::Shared, &actions);
    }
}
