//! The pure half: from what is wanted and what is there to the ordered list of actions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::resource::{Key, Resource};

/// What the host should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Objects of the tenants at hand. Two tenants may want the same shared object.
    pub resources: Vec<Resource>,
    /// Objects of all other tenants: neither repaired nor deleted.
    pub keep: BTreeSet<Key>,
}

/// What is known of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every object that the provisioner made and has not deleted, as it was last set.
    pub owned: BTreeMap<Key, Resource>,
    /// Those of the wanted objects that are there, as they were read from the kernel.
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
    /// Take an object away; it need not be there.
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

    /// The step that takes this one back.
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
    /// An object has the name that we need, but we did not make it.
    #[error("{0} {1}")]
    Foreign(Key, &'static str),
    /// Two wanted objects share a name.
    #[error(
        "{0} is wanted twice with different settings: rename one of the tenants or ports so that their names differ"
    )]
    Conflict(Key),
}

/// The actions that turn what is there into what is wanted: first deletions, last made first, then
/// what must be made or changed, in the order of [`Key`]. It is empty if nothing differs.
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
    let mut made_anew = BTreeSet::new();
    for (key, want) in &wanted {
        let create = |changes: &mut Vec<Action>, made_anew: &mut BTreeSet<Key>| {
            made_anew.insert(key.clone());
            changes.push(Action::Create {
                resource: (*want).clone(),
            });
        };
        let owned = observed.owned.get(key);
        let present = observed.present.get(key);
        let Some(is) = present.filter(|is| owned.is_some() || !is.is_idle()) else {
            create(&mut changes, &mut made_anew);
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
            .is_some_and(|needs| !needs.is_disjoint(&made_anew));
        // Nothing is handed from one owner to the next without being cleaned.
        let handed_on = owned.changes_owner(want);
        if is == *want && !pivoted && !handed_on {
            continue;
        }
        if !pivoted && !handed_on && !owned.is_moved(want) && is.changes_in_place(want) {
            changes.push(Action::Update {
                from: Box::new(is.clone()),
                to: (*want).clone(),
            });
        } else {
            deletions.push(Action::Delete {
                resource: is.clone(),
            });
            create(&mut changes, &mut made_anew);
        }
    }

    deletions.sort_by_key(|action| std::cmp::Reverse(action.resource().key()));
    let mut actions = deletions;
    actions.append(&mut changes);
    Ok(Plan { actions })
}
