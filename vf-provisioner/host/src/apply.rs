//! The journaled half: executes a plan step by step, reads back what it set, and rolls back if a
//! step fails.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tenant_config::Name;

use crate::error::HostError;
use crate::host::Host;
use crate::nic::probe::Probe;
use crate::plan::{Action, Desired, Observed, Plan, PlanError, plan};
use crate::resource::{Key, Resource};
use crate::state::{HostLock, Record, State, StateError};

/// What an operator asks for: some tenants set, some released, the others left as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Tenants as they should be.
    pub set: BTreeMap<Name, Record>,
    /// Tenants to release.
    pub release: BTreeSet<Name>,
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
    /// The host could not be read; nothing was touched.
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
pub type CrashHere<'a> = &'a mut dyn FnMut() -> bool;

/// No faults.
pub fn never() -> impl FnMut() -> bool {
    || false
}

/// What `change` would do now. Changes nothing.
pub fn plan_change(host: &dyn Host, state: &State, change: &Change) -> Result<Plan, ApplyError> {
    let changing: BTreeSet<Name> = change.set.keys().chain(&change.release).cloned().collect();
    let desired = Desired {
        resources: change
            .set
            .values()
            .flat_map(|record| record.resources.iter().cloned())
            .collect(),
        keep: state.keys_of_others(&changing),
    };
    let mut observed = Observed {
        owned: state.owned.clone(),
        present: BTreeMap::new(),
    };
    let wanted: Vec<&Resource> = desired.resources.iter().collect();
    for (resource, is) in wanted.iter().zip(host.observe_all(&wanted)) {
        let key = resource.key();
        match is {
            Ok(Some(is)) => drop(observed.present.insert(key, is)),
            Ok(None) => {}
            Err(source) => {
                let source = Box::new(source);
                return Err(ApplyError::Observe { key, source });
            }
        }
    }
    Ok(plan(&desired, &observed)?)
}

/// Carries out `change`. After an error the host is as before, unless the error says otherwise.
pub fn apply(
    host: &mut dyn Host,
    store: &mut HostLock,
    change: &Change,
    crash: CrashHere<'_>,
) -> Result<Applied, ApplyError> {
    let _locks = store.lock_tenants(change.set.keys().chain(&change.release))?;
    let plan = plan_change(host, store.state(), change)?;
    let before = store.state().tenants.clone();
    let mut tenants = before.clone();
    for name in &change.release {
        tenants.remove(name);
    }
    for (name, record) in &change.set {
        let complete = plan.actions.is_empty() && record.complete;
        tenants.insert(
            name.clone(),
            Record {
                complete,
                ..record.clone()
            },
        );
    }
    store.set_tenants(tenants.clone())?;

    let interrupted = |name: &&Name| before.get(*name).is_none_or(|record| !record.complete);
    let mut run = Run {
        host,
        store,
        crash,
        done: Vec::new(),
        unprobed: change.set.keys().filter(interrupted).cloned().collect(),
    };
    let probes = probes(change, &plan);
    match run.forward(&plan, &probes) {
        Ok(()) => {
            for name in change.set.keys() {
                if let Some(record) = tenants.get_mut(name) {
                    record.complete = true;
                }
            }
            run.store.set_tenants(tenants)?;
            Ok(Applied {
                actions: plan.actions,
                probed: probes.into_iter().map(|probe| probe.port).collect(),
            })
        }
        Err(Stop::Killed) => Err(ApplyError::Killed),
        Err(Stop::State(error)) => Err(error.into()),
        Err(Stop::Host { step, source }) => {
            let left = run.roll_back()?;
            run.store.set_tenants(before)?;
            Err(if left.is_empty() {
                ApplyError::RolledBack { step, source }
            } else {
                ApplyError::LeftBehind { step, source, left }
            })
        }
    }
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
    State(StateError),
    Host {
        step: String,
        source: Box<HostError>,
    },
}

impl From<StateError> for Stop {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

struct Run<'a> {
    host: &'a mut dyn Host,
    store: &'a mut HostLock,
    crash: CrashHere<'a>,
    done: Vec<Action>,
    /// Tenants that are new, or whose last apply was interrupted.
    unprobed: BTreeSet<Name>,
}

impl Run<'_> {
    fn forward(&mut self, plan: &Plan, probes: &[Probe]) -> Result<(), Stop> {
        self.may_crash()?;
        for action in &plan.actions {
            tracing::info!(%action, "apply");
            self.store.intend(action)?;
            // A step that fails may have done half of its work.
            self.done.push(action.clone());
            self.may_crash()?;
            self.prove(action, plan)?;
            self.execute(action)
                .and_then(|()| self.read_back(action))
                .map_err(|source| Stop::Host {
                    step: action.to_string(),
                    source: Box::new(source),
                })?;
            self.may_crash()?;
            self.store.done(action)?;
            self.may_crash()?;
        }
        for (probe, answered) in probes.iter().zip(self.host.probe_all(probes)) {
            answered.map_err(|source| Stop::Host {
                step: format!("probe port {}", probe.port),
                source: Box::new(source),
            })?;
        }
        self.may_crash()
    }

    /// Before a switch is started or changed: probes the new objects of its tenant.
    fn prove(&mut self, action: &Action, plan: &Plan) -> Result<(), Stop> {
        let (Action::Create { resource } | Action::Update { to: resource, .. }) = action else {
            return Ok(());
        };
        let Resource::Switch(switch) = resource else {
            return Ok(());
        };
        let state = self.store.state();
        let Some(record) = state.tenants.get(&switch.tenant) else {
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
        self.host
            .prove(record, &new, state)
            .map_err(|source| Stop::Host {
                step: format!(
                    "prove that no frame gets around the switch of tenant {}",
                    switch.tenant
                ),
                source: Box::new(source),
            })
    }

    fn may_crash(&mut self) -> Result<(), Stop> {
        if (self.crash)() {
            return Err(Stop::Killed);
        }
        Ok(())
    }

    fn execute(&mut self, action: &Action) -> Result<(), HostError> {
        match action {
            Action::Create { resource } => self.host.create(resource),
            Action::Update { from, to } => self.host.update(from, to),
            Action::Delete { resource } => self.host.delete(resource),
        }
    }

    fn read_back(&self, action: &Action) -> Result<(), HostError> {
        let wanted = action.resource();
        let is = self.host.observe(wanted)?;
        let differences = match (action, is) {
            (Action::Delete { .. }, None) => return Ok(()),
            (Action::Delete { .. }, Some(is)) if is.is_idle() => return Ok(()),
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

    /// Rolls back the completed steps, last first, and continues after failures.
    fn roll_back(&mut self) -> Result<Vec<String>, StateError> {
        let mut left = Vec::new();
        for action in std::mem::take(&mut self.done).iter().rev() {
            let inverse = action.inverse();
            tracing::info!(action = %inverse, "roll back");
            self.store.intend(&inverse)?;
            match self
                .execute(&inverse)
                .and_then(|()| self.read_back(&inverse))
            {
                Ok(()) => self.store.done(&inverse)?,
                Err(error) => left.push(format!("{inverse}: {error}")),
            }
        }
        Ok(left)
    }
}
