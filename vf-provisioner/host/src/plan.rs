//! The pure half: turns wanted and observed objects into an ordered list of actions.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::resource::{Key, Resource};

/// What the host should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Objects of the tenants that change. Two tenants may want the same shared object.
    pub resources: Vec<Resource>,
    /// Objects of all other tenants: neither repaired nor deleted.
    pub keep: BTreeSet<Key>,
}

/// What is known of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every object that the provisioner made and has not deleted, as it was last set.
    pub owned: BTreeMap<Key, Resource>,
    /// The wanted objects that exist, as read from the kernel.
    pub present: BTreeMap<Key, Resource>,
}

/// One step. Each has an inverse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// Make an object.
    Create {
        /// As it will be.
        resource: Resource,
    },
    /// Change an object in place.
    Update {
        /// As it is.
        from: Box<Resource>,
        /// As it will be.
        to: Resource,
    },
    /// Remove an object; it need not exist.
    Delete {
        /// As it was set.
        resource: Resource,
    },
}

impl Action {
    /// The key that is free afterwards: of an object that is removed, or gets another key.
    pub(crate) fn frees(&self) -> Option<Key> {
        match self {
            Self::Create { .. } => None,
            Self::Delete { resource } => Some(resource.key()),
            Self::Update { from, to } => Some(from.key()).filter(|key| *key != to.key()),
        }
    }

    /// The object acted upon.
    pub fn resource(&self) -> &Resource {
        match self {
            Self::Create { resource } | Self::Delete { resource } => resource,
            Self::Update { to, .. } => to,
        }
    }

    /// The step that undoes this one.
    pub fn inverse(&self) -> Self {
        match self.clone() {
            Self::Create { resource } => Self::Delete { resource },
            Self::Delete { resource } => Self::Create { resource },
            Self::Update { from, to } => Self::Update {
                from: Box::new(to),
                to: *from,
            },
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { resource } => write!(out, "create {}", resource.key()),
            Self::Delete { resource } => write!(out, "delete {}", resource.key()),
            Self::Update { from, to } if from.key() != to.key() => {
                write!(out, "move {} to {}", from.key(), to.key())
            }
            Self::Update { from, to } => {
                write!(out, "change {}: ", to.key())?;
                out.write_str(&to.differences(from).join("; "))
            }
        }
    }
}

/// The actions, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Plan {
    /// First to last.
    pub actions: Vec<Action>,
}

impl Plan {
    /// Has the running switch of that key end before everything else, and a new one start behind
    /// it. What needs it, as its IKE daemon, ends before it and starts after it.
    pub(crate) fn restart(
        &mut self,
        desired: &Desired,
        key: &Key,
        present: &BTreeMap<Key, Resource>,
    ) {
        let is_own = |action: &Action| action.resource().key() == *key;
        let deletes = |action: &Action| matches!(action, Action::Delete { .. });
        if self.actions.iter().any(|it| is_own(it) && deletes(it)) {
            return;
        }
        let depends =
            |it: &Resource| it.key() == *key || it.needs().is_some_and(|needs| needs.contains(key));
        self.actions.retain(|action| {
            let is_present = present.contains_key(&action.resource().key());
            !depends(action.resource()) || (deletes(action) && !is_present)
        });
        let end = |it: &Resource| Action::Delete {
            resource: it.clone(),
        };
        let start = |it: &Resource| Action::Create {
            resource: it.clone(),
        };
        let running = present.values().rev().filter(|it| depends(it));
        self.actions
            .splice(0..0, running.map(end).collect::<Vec<_>>());
        let mut wanted: Vec<&Resource> =
            desired.resources.iter().filter(|it| depends(it)).collect();
        wanted.sort_by_key(|it| it.key());
        self.actions.extend(wanted.into_iter().map(start));
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An object of this name exists, but we did not make it.
    #[error("{0} {1}")]
    Foreign(Key, &'static str),
    /// Two wanted objects share a name.
    #[error(
        "{0} is wanted twice with different settings: rename one of the tenants or ports so that \
         their names differ"
    )]
    Conflict(Key),
}

/// By wanted objects that do not exist: those of ours, not wanted any more, that become them.
fn moves<'a>(
    wanted: &BTreeMap<Key, Cow<'_, Resource>>,
    desired: &Desired,
    observed: &'a Observed,
) -> BTreeMap<Key, &'a Resource> {
    let movable = observed.owned.iter().filter(|(key, it)| {
        it.is_movable() && !wanted.contains_key(*key) && !desired.keep.contains(*key)
    });
    let movable: Vec<&Resource> = movable.map(|(_, it)| it).collect();
    let absent = wanted.iter();
    let absent = absent.filter(|(key, _)| !observed.present.contains_key(*key));
    let found = absent.filter_map(|(key, want)| {
        let from = movable.iter().find(|from| from.becomes(want))?;
        Some((key.clone(), *from))
    });
    found.collect()
}

/// The actions that turn the observed objects into the wanted ones: deletions in reverse order of
/// [`Key`], then creations, moves and changes in its order, then deletions of what something was
/// moved out of. The plan is empty if nothing differs.
pub fn plan(desired: &Desired, observed: &Observed) -> Result<Plan, PlanError> {
    let mut wanted: BTreeMap<Key, Cow<'_, Resource>> = BTreeMap::new();
    for resource in &desired.resources {
        match wanted.entry(resource.key()) {
            Entry::Vacant(free) => drop(free.insert(Cow::Borrowed(resource))),
            Entry::Occupied(other) if **other.get() == *resource => {}
            Entry::Occupied(mut other) => match other.get().joined(resource) {
                Some(both) => drop(other.insert(Cow::Owned(both))),
                None => return Err(PlanError::Conflict(resource.key())),
            },
        }
    }

    let mut moves = moves(&wanted, desired, observed);
    let moved: BTreeSet<Key> = moves.values().map(|from| from.key()).collect();
    let around: BTreeSet<Key> = moves.values().filter_map(|from| from.inside()).collect();
    let mut deletions = Vec::new();
    for (key, resource) in &observed.owned {
        if moved.contains(key) {
            continue;
        }
        if !wanted.contains_key(key) && !desired.keep.contains(key) {
            deletions.push(Action::Delete {
                resource: resource.clone(),
            });
        }
    }

    let mut changes = Vec::new();
    let mut recreated = BTreeSet::new();
    for (key, want) in &wanted {
        let want: &Resource = want;
        let create = |changes: &mut Vec<Action>, recreated: &mut BTreeSet<Key>| {
            recreated.insert(key.clone());
            changes.push(Action::Create {
                resource: want.clone(),
            });
        };
        if let Some(from) = moves.remove(key) {
            recreated.insert(key.clone());
            changes.push(Action::Update {
                from: Box::new(from.clone()),
                to: want.clone(),
            });
            continue;
        }
        let owned = observed.owned.get(key);
        let present = observed.present.get(key);
        let Some(is) = present.filter(|is| owned.is_some() || !is.is_idle()) else {
            create(&mut changes, &mut recreated);
            continue;
        };
        let Some(owned) = owned else {
            if want.adoptable() {
                continue;
            }
            return Err(PlanError::Foreign(key.clone(), want.foreign()));
        };
        let pivoted = want
            .needs()
            .is_some_and(|needs| !needs.is_disjoint(&recreated));
        // An object is cleaned between two owners.
        let changes_owner = owned.changes_owner(want);
        if is == want && !pivoted && !changes_owner {
            continue;
        }
        // What the probe proved holds neither if it is moved nor if somebody else has moved it.
        let is_moved = owned.is_moved(want) || is.is_moved(want);
        if !pivoted && !changes_owner && !is_moved && is.changes_in_place(want) {
            changes.push(Action::Update {
                from: Box::new(is.clone()),
                to: want.clone(),
            });
        } else {
            deletions.push(Action::Delete {
                resource: is.clone(),
            });
            create(&mut changes, &mut recreated);
        }
    }

    deletions.sort_by_key(|action| std::cmp::Reverse(action.resource().key()));
    // What is moved out of an object must not end with it.
    let (behind, mut actions): (Vec<_>, Vec<_>) = deletions
        .into_iter()
        .partition(|action| around.contains(&action.resource().key()));
    actions.append(&mut changes);
    actions.extend(behind);
    Ok(Plan { actions })
}
