//! What executes actions. The real host is [`RealHost`](crate::real_host::RealHost); a fake one is here.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::HostError;
use crate::nic::probe::Probe;
use crate::resource::{Key, Resource};
use crate::state::{Record, State};

/// The verbs that all objects share.
pub trait Host {
    /// The object of `wanted`'s key as it is; `None` if it is not there. It changes nothing.
    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError>;
    /// Makes the object. A half-made one, left by a crash, may be there.
    fn create(&mut self, resource: &Resource) -> Result<(), HostError>;
    /// Changes the object in place.
    fn update(&mut self, from: &Resource, to: &Resource) -> Result<(), HostError>;
    /// Takes the object away. One that is half there or not there at all is no error.
    fn delete(&mut self, resource: &Resource) -> Result<(), HostError>;
    /// Before a switch is given the `new` ones of its tenant's objects: asks with real frames whether what they carry
    /// can reach anything else. A wire of two ends needs no asking.
    fn prove(
        &mut self,
        _record: &Record,
        _new: &BTreeSet<Key>,
        _state: &State,
    ) -> Result<(), HostError> {
        Ok(())
    }
    /// Asks with real frames, from a guest's end, whether the switch answers it, and only it.
    fn probe(&mut self, probe: &Probe) -> Result<(), HostError>;
}

/// A host that is only a table of objects, with failures on demand: plans and journals are tested
/// on it without root.
#[derive(Debug, Clone, Default)]
pub struct FakeHost {
    /// What is there.
    pub objects: BTreeMap<Key, Resource>,
    /// The change, counted from 0, that fails; every later one works again.
    pub fails_at: Option<usize>,
    /// Changes tried so far.
    pub changes: usize,
    /// Which virtual functions were proven, each time.
    pub proven: Vec<BTreeSet<Key>>,
}

impl FakeHost {
    fn change(&mut self) -> Result<(), HostError> {
        let this = self.changes;
        self.changes += 1;
        if self.fails_at == Some(this) {
            return Err(HostError::Program {
                program: "fake",
                message: format!("change {this} was told to fail"),
            });
        }
        Ok(())
    }
}

impl Host for FakeHost {
    fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError> {
        Ok(self.objects.get(&wanted.key()).cloned())
    }

    fn create(&mut self, resource: &Resource) -> Result<(), HostError> {
        self.change()?;
        self.objects.insert(resource.key(), resource.clone());
        Ok(())
    }

    fn update(&mut self, _: &Resource, to: &Resource) -> Result<(), HostError> {
        self.change()?;
        self.objects.insert(to.key(), to.clone());
        Ok(())
    }

    fn delete(&mut self, resource: &Resource) -> Result<(), HostError> {
        self.change()?;
        self.objects.remove(&resource.key());
        Ok(())
    }

    fn prove(&mut self, _: &Record, new: &BTreeSet<Key>, _: &State) -> Result<(), HostError> {
        let vfs = new.iter().filter(|key| matches!(key, Key::Vf { .. }));
        self.proven.push(vfs.cloned().collect());
        Ok(())
    }

    fn probe(&mut self, _: &Probe) -> Result<(), HostError> {
        self.change()
    }
}
