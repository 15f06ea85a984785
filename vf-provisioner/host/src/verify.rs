//! Compares what was set with what the kernel has, and asks every gateway with real frames.
//!
//! The state's lock is held for a snapshot only, and no lock while all tenants are looked at
//! together. What differs is looked at once more, now with the lock of its tenant, because it may
//! be the unfinished work of a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tenant_config::Name;

use crate::error::HostError;
use crate::host::Host;
use crate::nic::probe::Probe;
use crate::parallel;
use crate::plan::{Action, Desired, Observed, plan};
use crate::resource::{Key, Resource};
use crate::state::{self, HostLock, Record, State, StateError, TenantLock};

/// What to do about applies and restarts under way, whose unfinished work is no drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnderWay {
    /// Wait for their end.
    Wait,
    /// Leave their tenants out, and everything during an apply.
    Skip,
}

/// What differs from what was set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Objects that an interrupted apply or release has left, a sentence each.
    pub left_over: Vec<String>,
    /// By tenant, why this host cannot carry it any more, as a sentence: no repair mends that.
    pub refused: BTreeMap<Name, String>,
    /// Why that could not be read.
    pub unreadable: Option<String>,
    /// By tenant, a sentence for each difference; tenants without one are not there.
    pub tenants: BTreeMap<Name, Vec<String>>,
}

impl Found {
    /// All of them, each once: tenants share some objects.
    pub fn sentences(self) -> Vec<String> {
        let mut all = self.left_over;
        all.extend(self.tenants.into_values().flatten());
        all.extend(self.refused.into_values().chain(self.unreadable));
        let mut seen = BTreeSet::new();
        all.retain(|sentence| seen.insert(sentence.clone()));
        all
    }
}

/// The drift of all tenants but `except`, a sentence each; `None` if an apply is under way and must
/// not be waited for. `host` gives a host to each thread.
///
/// # Errors
/// If the state cannot be read.
pub fn verify<H: Host>(
    host: &(dyn Fn() -> H + Sync),
    dir: &Path,
    except: &BTreeSet<Name>,
    under_way: UnderWay,
) -> Result<Option<Vec<String>>, StateError> {
    let found = verify_each(host, dir, except, under_way)?;
    Ok(found.map(Found::sentences))
}

/// The same, by tenant.
///
/// # Errors
/// If the state cannot be read.
pub fn verify_each<H: Host>(
    host: &(dyn Fn() -> H + Sync),
    dir: &Path,
    except: &BTreeSet<Name>,
    under_way: UnderWay,
) -> Result<Option<Found>, StateError> {
    let store = match under_way {
        UnderWay::Wait => HostLock::open(dir)?,
        UnderWay::Skip => match HostLock::try_open(dir)? {
            Some(store) => store,
            None => return Ok(None),
        },
    };
    let before = store.state().clone();
    store.remove_if_empty()?;
    let tenants: Vec<(&Name, &Record)> = before
        .tenants
        .iter()
        .filter(|(name, _)| !except.contains(*name))
        .collect();
    let records: Vec<&Record> = tenants.iter().map(|(_, record)| *record).collect();
    let looked = drift_of_all(&mut host(), &before, &records);
    let differ = looked.into_iter().zip(0..).filter(|(it, _)| !it.is_empty());
    let differ: Vec<usize> = differ.map(|(_, place)| place).collect();
    let mut found = vec![Vec::new(); tenants.len()];
    for (place, sentences) in look_again(host, dir, &before, &tenants, &differ, under_way) {
        if let Some(found) = found.get_mut(place) {
            *found = sentences;
        }
    }
    let refusals = host().refusals(&records);
    // An apply or a release may have begun meanwhile.
    let now = state::read(dir)?;
    let mut left_over = before.left_over();
    left_over.retain(|key| now.owned.contains_key(key));
    let left_over = left_over.into_iter();
    let settled = |name: &Name, record: &Record| now.tenants.get(name) == Some(record);
    let (refusals, unreadable) = match refusals {
        Ok(refusals) => (refusals, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let refused = tenants
        .iter()
        .zip(refusals)
        .filter_map(|((name, record), why)| {
            let sentence = format!("tenant {name}: {}", why?);
            settled(name, record).then(|| ((*name).clone(), sentence))
        });
    let refused = refused.collect();
    let found = tenants.into_iter().zip(found);
    let found = found.filter(|((name, record), found)| !found.is_empty() && settled(name, record));
    Ok(Some(Found {
        left_over: left_over.map(|key| format!("{key} is left over")).collect(),
        refused,
        unreadable,
        tenants: found
            .map(|((name, _), found)| (name.clone(), found))
            .collect(),
    }))
}

/// What differs of these tenants, each with its lock: those of which nothing is under way together,
/// then the others as soon as that has ended.
fn look_again<H: Host>(
    host: &(dyn Fn() -> H + Sync),
    dir: &Path,
    state: &State,
    tenants: &[(&Name, &Record)],
    places: &[usize],
    under_way: UnderWay,
) -> Vec<(usize, Vec<String>)> {
    let (mut free, mut busy) = (Vec::new(), Vec::new());
    for &place in places {
        let Some((name, record)) = tenants.get(place) else {
            continue;
        };
        match TenantLock::try_lock(dir, name) {
            Ok(None) => busy.push((place, *name, *record)),
            // Its directory may be missing, which is drift.
            lock => free.push((place, *record, lock.ok().flatten())),
        }
    }
    let records: Vec<&Record> = free.iter().map(|(_, record, _)| *record).collect();
    let again = drift_of_all(&mut host(), state, &records);
    let found = free.iter().map(|(place, ..)| *place).zip(again);
    let mut found: Vec<(usize, Vec<String>)> = found.collect();
    drop(free);
    if under_way == UnderWay::Wait {
        found.extend(parallel::map(&busy, |(place, name, record)| {
            let drift = match TenantLock::lock(dir, name) {
                Ok(_lock) => drift(&mut host(), state, record),
                Err(error) => vec![error.to_string()],
            };
            (*place, drift)
        }));
    }
    found
}

/// What differs of one tenant's objects, a sentence each. If nothing does, each of its gateways is
/// asked with real frames.
pub fn drift(host: &mut dyn Host, state: &State, record: &Record) -> Vec<String> {
    let mut all = drift_of_all(host, state, &[record]);
    all.pop().unwrap_or_default()
}

/// The same of several tenants, in their order, in one look.
pub fn drift_of_all(host: &mut dyn Host, state: &State, records: &[&Record]) -> Vec<Vec<String>> {
    let wanted: Vec<&Resource> = records.iter().flat_map(|it| &it.resources).collect();
    let mut observed = host.observe_all(&wanted).into_iter();
    let mut all: Vec<Vec<String>> = records
        .iter()
        .map(|record| {
            let own = observed.by_ref().take(record.resources.len());
            differences(state, record, own)
        })
        .collect();
    let good = records
        .iter()
        .zip(0..)
        .filter(|(_, place)| all.get(*place).is_some_and(Vec::is_empty));
    let (probes, places): (Vec<Probe>, Vec<usize>) = good
        .flat_map(|(record, place)| record.probes.iter().map(move |it| (it.clone(), place)))
        .unzip();
    for (answered, place) in host.probe_all(&probes).into_iter().zip(places) {
        if let (Err(error), Some(found)) = (answered, all.get_mut(place)) {
            found.push(error.to_string());
        }
    }
    all
}

/// What differs of one tenant's objects, which were observed so.
fn differences(
    state: &State,
    record: &Record,
    observed: impl Iterator<Item = Result<Option<Resource>, HostError>>,
) -> Vec<String> {
    let mut found = Vec::new();
    let own: BTreeSet<Key> = record.resources.iter().map(Resource::key).collect();
    let owned = own.iter();
    let owned = owned.filter_map(|key| Some((key.clone(), state.owned.get(key)?.clone())));
    let mut known = Observed {
        owned: owned.collect(),
        present: BTreeMap::new(),
    };
    let mut readable = Vec::new();
    for (resource, is) in record.resources.iter().zip(observed) {
        match is {
            Ok(is) => {
                readable.push(resource.clone());
                known.present.extend(is.map(|is| (resource.key(), is)));
            }
            Err(error) => found.push(format!("cannot observe {}: {error}", resource.key())),
        }
    }
    let desired = Desired {
        resources: readable,
        keep: own,
    };
    match plan(&desired, &known) {
        Ok(plan) => found.extend(sentences(&plan.actions)),
        Err(error) => found.push(error.to_string()),
    }
    found
}

fn sentences(actions: &[Action]) -> Vec<String> {
    let deleted: BTreeMap<Key, &Resource> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Delete { resource } => Some((resource.key(), resource)),
            _ => None,
        })
        .collect();
    let sentence = |action: &Action| {
        let key = action.resource().key();
        Some(match action {
            // What is deleted is recreated: nothing else is planned.
            Action::Delete { .. } => return None,
            Action::Create { resource } => match deleted.get(&key) {
                None if matches!(resource, Resource::Switch(_)) => {
                    format!("{key} does not run, or forwards nothing")
                }
                None if matches!(resource, Resource::Ike(_)) => format!("{key} does not run"),
                None => format!("{key} is missing"),
                Some(is) if *is == resource => {
                    format!("{key} must be restarted: it depends on what must be recreated")
                }
                Some(is) => format!("{key}: {}", resource.differences(is).join("; ")),
            },
            Action::Update { from, to } => format!("{key}: {}", to.differences(from).join("; ")),
        })
    };
    actions.iter().filter_map(sentence).collect()
}
