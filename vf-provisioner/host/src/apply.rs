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
    /// The host cannot carry a tenant; nothing was touched.
    #[error("tenant {tenant}: {why}")]
    Refused {
        /// Which tenant.
        tenant: Name,
        /// A sentence.
        why: String,
    },
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
    for (tenant, record) in &change.set {
        let why = host.refusal(record).map_err(|source| ApplyError::Observe {
            key: Key::Directory {
                tenant: tenant.clone(),
            },
            source: Box::new(source),
        })?;
        if let Some(why) = why {
            let tenant = tenant.clone();
            return Err(ApplyError::Refused { tenant, why });
        }
    }
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
    let mut locks = store.lock_tenants(change.set.keys().chain(&change.release))?;
    let plan = plan_change(host, store.state(), change)?;
    let before = store.state().tenants.clone();
    let changing = changing(&before, change, &plan);
    // The supervisor goes on to watch tenants that are as they should be.
    locks.retain(|name, _| changing.contains(name));
    if plan.actions.is_empty() && changing.is_empty() {
        return Ok(Applied::default());
    }
    let (during, after) = records(&before, change, &changing);
    if let Err(error) = store.set_tenants(during) {
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
        done: Vec::new(),
        unprobed: change.set.keys().filter(interrupted).cloned().collect(),
    };
    let probes = probes(change, &plan);
    let forward = match run.forward(&plan, &probes) {
        Ok(()) => match run.store.set_tenants(after) {
            // What is released is not made again.
            Err(error) if change.set.is_empty() => return Err(error.into()),
            recorded => {
                recorded.map_err(|error| Stop::state("record the tenants".to_owned(), error))
            }
        },
        stopped => stopped,
    };
    match forward {
        Ok(()) => Ok(Applied {
            actions: plan.actions,
            probed: probes.into_iter().map(|probe| probe.port).collect(),
        }),
        Err(Stop::Killed) => Err(ApplyError::Killed),
        Err(Stop::Failed { step, source }) => {
            let mut left = run.roll_back();
            if let Err(error) = run.store.set_tenants(before) {
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

/// The tenants that a change does something to.
fn changing(before: &BTreeMap<Name, Record>, change: &Change, plan: &Plan) -> BTreeSet<Name> {
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
) -> (BTreeMap<Name, Record>, BTreeMap<Name, Record>) {
    let mut during = before.clone();
    during.retain(|name, _| !change.release.contains(name));
    let mut after = during.clone();
    for (name, record) in &change.set {
        if !changing.contains(name) {
            continue;
        }
        let previous = match before.get(name) {
            Some(before) if before.complete => Some(Box::new(before.clone())),
            Some(interrupted) => interrupted.previous.clone(),
            None => None,
        };
        let record = |complete, previous| Record {
            complete,
            previous,
            ..record.clone()
        };
        during.insert(name.clone(), record(false, previous));
        after.insert(name.clone(), record(true, None));
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
            damaged @ StateError::Damaged { .. } => HostError::Program {
                program: "the record of what is done",
                message: damaged.to_string(),
            },
        };
        Self::failed(step, source)
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
            let intent = self.store.intend(action);
            intent.map_err(|error| Stop::state(format!("record that it will {action}"), error))?;
            // A step that fails may have done half of its work.
            self.done.push(action.clone());
            self.may_crash()?;
            self.prove(action, plan)?;
            execute(self.host, action)
                .and_then(|()| read_back(self.host, action))
                .map_err(|source| Stop::failed(action.to_string(), source))?;
            self.may_crash()?;
            self.store.done(action);
            self.may_crash()?;
        }
        for (probe, answered) in probes.iter().zip(self.host.probe_all(probes)) {
            let step = || format!("probe port {}", probe.port);
            answered.map_err(|source| Stop::failed(step(), source))?;
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
        self.host.prove(record, &new, state).map_err(|source| {
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
                Ok(()) => self.store.done(&inverse),
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
