//! Compares what was set with what the kernel has, and asks every gateway with real frames.
//!
//! The state's lock is held for a snapshot only, and each tenant's lock while its own objects are
//! read. All tenants are looked at together, so a switch that does not answer delays nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tenant_config::Name;

use crate::error::HostError;
use crate::host::Host;
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
    let found = parallel::map(&tenants, |(name, record)| {
        let lock = match under_way {
            UnderWay::Wait => TenantLock::lock(dir, name),
            // Its directory may be missing, which is drift.
            UnderWay::Skip => match TenantLock::try_lock(dir, name) {
                Ok(None) => return Vec::new(),
                lock => Ok(lock.unwrap_or_default()),
            },
        };
        match lock {
            Ok(_lock) => drift(&mut host(), &before, record),
            Err(error) => vec![error.to_string()],
        }
    });
    // An apply or a release may have begun meanwhile.
    let now = state::read(dir)?;
    let settled = tenants
        .iter()
        .map(|(name, record)| now.tenants.get(*name) == Some(*record));
    let mut all = before.left_over();
    all.retain(|key| now.owned.contains_key(key));
    let mut all: Vec<String> = all
        .into_iter()
        .map(|key| format!("{key} is left over"))
        .collect();
    for (found, _) in found
        .into_iter()
        .zip(settled)
        .filter(|(_, settled)| *settled)
    {
        all.extend(found);
    }
    // Tenants share some objects.
    let mut seen = BTreeSet::new();
    all.retain(|sentence| seen.insert(sentence.clone()));
    Ok(Some(all))
}

/// What differs of one tenant's objects, a sentence each. If nothing does, each of its gateways is
/// asked with real frames.
pub fn drift(host: &mut dyn Host, state: &State, record: &Record) -> Vec<String> {
    let mut found = Vec::new();
    let mut observed = Observed {
        owned: state.owned.clone(),
        present: BTreeMap::new(),
    };
    let own: BTreeSet<Key> = record.resources.iter().map(Resource::key).collect();
    observed.owned.retain(|key, _| own.contains(key));
    let wanted: Vec<&Resource> = record.resources.iter().collect();
    let mut readable = Vec::new();
    for (resource, is) in wanted.iter().zip(host.observe_all(&wanted)) {
        match is {
            Ok(is) => {
                readable.push((*resource).clone());
                observed.present.extend(is.map(|is| (resource.key(), is)));
            }
            Err(error) => found.push(format!("cannot observe {}: {error}", resource.key())),
        }
    }
    let desired = Desired {
        resources: readable,
        keep: own,
    };
    match plan(&desired, &observed) {
        Ok(plan) => found.extend(sentences(&plan.actions)),
        Err(error) => found.push(error.to_string()),
    }
    if found.is_empty() {
        let answered = host.probe_all(&record.probes).into_iter();
        found.extend(answered.filter_map(|it: Result<(), HostError>| Some(it.err()?.to_string())));
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
