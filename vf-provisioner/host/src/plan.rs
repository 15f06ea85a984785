//! The pure half: turns wanted and observed objects into an ordered list of actions.

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

/// The actions that turn the observed objects into the wanted ones: deletions in reverse order of
/// [`Key`], then creations and changes in its order. The plan is empty if nothing differs.
pub fn plan(desired: &Desired, observed: &Observed) -> Result<Plan, PlanError> {
    let mut wanted = BTreeMap::new();
    for resource in &desired.resources {
        let key = resource.key();
        if let Some(other) = wanted.insert(key.clone(), resource)
            && other != resource
        {
            return Err(PlanError::Conflict(key));
        }
    }

    let mut deletions = Vec::new();
    for (key, resource) in &observed.owned {
        if !wanted.contains_key(key) && !desired.keep.contains(key) {
            deletions.push(Action::Delete {
                resource: resource.clone(),
            });
        }
    }

    let mut changes = Vec::new();
    let mut recreated = BTreeSet::new();
    for (key, want) in &wanted {
        let create = |changes: &mut Vec<Action>, recreated: &mut BTreeSet<Key>| {
            recreated.insert(key.clone());
            changes.push(Action::Create {
                resource: (*want).clone(),
            });
        };
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
        if is == *want && !pivoted && !changes_owner {
            continue;
        }
        if !pivoted && !changes_owner && !owned.is_moved(want) && is.changes_in_place(want) {
            changes.push(Action::Update {
                from: Box::new(is.clone()),
                to: (*want).clone(),
            });
        } else {
            deletions.push(Action::Delete {
                resource: is.clone(),
            });
            create(&mut changes, &mut recreated);
        }
    }

    deletions.sort_by_key(|action| std::cmp::Reverse(action.resource().key()));
    let mut actions = deletions;
    actions.append(&mut changes);
    Ok(Plan { actions })
}
