//! What executes actions. The real one is [`RealHost`](crate::real_host::RealHost); a fake one for
//! tests is here.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::HostError;
use crate::nic::probe::Probe;
use crate::nic::sriov::stranger;
use crate::resource::{Key, Resource};
use crate::state::{Record, State};

/// The verbs that all objects share.
pub trait Host {
    /// Reads the object of `wanted`'s key; `None` if it does not exist. Changes nothing.
    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError>;
    /// Reads the objects of several keys, in their order, and waits for slow ones together.
    fn observe_all(&self, wanted: &[&Resource]) -> Vec<Result<Option<Resource>, HostError>> {
        wanted.iter().map(|wanted| self.observe(wanted)).collect()
    }
    /// Whether the object of `wanted`'s key exists, seen as cheaply as possible.
    fn exists(&self, wanted: &Resource) -> Result<bool, HostError> {
        Ok(self.observe(wanted)?.is_some())
    }
    /// Makes the object. A crash may have left a part of it.
    fn create(&mut self, resource: &Resource) -> Result<(), HostError>;
    /// Changes the object in place; one of another key becomes `to`.
    fn update(&mut self, from: &Resource, to: &Resource) -> Result<(), HostError>;
    /// Removes the object, or what exists of it.
    fn delete(&mut self, resource: &Resource) -> Result<(), HostError>;
    /// Why a deleted object is left as it is, as a sentence: others use it too.
    fn stays(&self, _resource: &Resource) -> Result<Option<String>, HostError> {
        Ok(None)
    }
    /// Of each tenant, why this host cannot carry it although all its objects could be made, as a
    /// sentence.
    fn refusals(&self, records: &[&Record]) -> Result<Vec<Option<String>>, HostError> {
        Ok(vec![None; records.len()])
    }
    /// Before a switch gets the `new` objects of its tenant: probes with real frames whether what
    /// they carry can reach anything else. A wire with two ends needs no probe. `state` copies the
    /// host's state.
    fn prove(
        &mut self,
        _record: &Record,
        _new: &BTreeSet<Key>,
        _state: &dyn Fn() -> State,
    ) -> Result<(), HostError> {
        Ok(())
    }
    /// Another handle on this host, for work on another tenant at the same time; `None` if it can
    /// do one thing only.
    fn beside(&self) -> Option<Box<dyn Host + Send>> {
        None
    }
    /// Probes with real frames, from a guest's end, whether the switch answers the guest and no one
    /// else.
    fn probe(&mut self, probe: &Probe) -> Result<(), HostError>;
    /// Several such probes, with the results in their order, and one wait for all slow switches.
    fn probe_all(&mut self, probes: &[Probe]) -> Vec<Result<(), HostError>> {
        probes.iter().map(|probe| self.probe(probe)).collect()
    }
}

/// A host that is only a table of objects, with failures on demand. It tests plans and journals
/// without root.
#[derive(Debug, Clone, Default)]
pub struct FakeHost {
    /// The objects that exist.
    pub objects: BTreeMap<Key, Resource>,
    /// The change, counted from 0, that fails; later changes succeed.
    pub fails_at: Option<usize>,
    /// Changes attempted so far.
    pub changes: usize,
    /// The VFs of each mediation probe.
    pub proven: Vec<BTreeSet<Key>>,
    /// The objects that others use too: a deletion leaves them as they are.
    pub shared: BTreeSet<Key>,
    /// The VFs that programs have open, and which.
    pub open: BTreeMap<Key, String>,
}

impl FakeHost {
    fn change(&mut self) -> Result<(), HostError> {
        let this = self.changes;
        self.changes += 1;
        if self.fails_at == Some(this) {
            return Err(HostError::Program {
                program: "fake",
                message: format!("change {this} was set to fail"),
            });
        }
        Ok(())
    }
}

impl Host for FakeHost {
    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError> {
        let mut is = self.objects.get(&wanted.key()).cloned();
        // As on a real one: more than the wanted MTU reads as the wanted one.
        if let (Some(Resource::Pf(is)), Resource::Pf(wanted)) = (&mut is, wanted) {
            is.set.mtu = is.set.mtu.min(wanted.set.mtu);
        }
        Ok(is)
    }

    fn create(&mut self, resource: &Resource) -> Result<(), HostError> {
        self.change()?;
        self.objects.insert(resource.key(), resource.clone());
        Ok(())
    }

    fn update(&mut self, from: &Resource, to: &Resource) -> Result<(), HostError> {
        self.change()?;
        self.objects.remove(&from.key());
        self.objects.insert(to.key(), to.clone());
        Ok(())
    }

    fn delete(&mut self, resource: &Resource) -> Result<(), HostError> {
        self.change()?;
        if !self.shared.contains(&resource.key()) {
            self.objects.remove(&resource.key());
        }
        Ok(())
    }

    fn stays(&self, resource: &Resource) -> Result<Option<String>, HostError> {
        let shared = self.shared.contains(&resource.key());
        Ok(shared.then(|| "others use it".to_owned()))
    }

    fn refusals(&self, records: &[&Record]) -> Result<Vec<Option<String>>, HostError> {
        let refused = |resource: &Resource| {
            let key = resource.key();
            let (open, is) = (self.open.get(&key)?, self.objects.get(&key)?);
            match (resource, is) {
                (Resource::Vf(wanted), Resource::Vf(is)) => stranger::refuse(wanted, &is.set, open),
                _ => None,
            }
        };
        let all = records.iter();
        Ok(all
            .map(|record| record.resources.iter().find_map(refused))
            .collect())
    }

    fn prove(
        &mut self,
        _: &Record,
        new: &BTreeSet<Key>,
        _: &dyn Fn() -> State,
    ) -> Result<(), HostError> {
        let vfs = new.iter().filter(|key| matches!(key, Key::Vf { .. }));
        self.proven.push(vfs.cloned().collect());
        Ok(())
    }

    fn probe(&mut self, _: &Probe) -> Result<(), HostError> {
        self.change()
    }
}
