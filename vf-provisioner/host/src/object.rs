//! What every kind of object provides: data that `plan` compares, and the verbs that make it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tenant_config::NicAttribute;

use crate::error::HostError;
use crate::key::Key;
use crate::look::Look;

/// One kind of object of the host, as data. Wanted, recorded and observed objects have the same
/// type, so they are compared with `==`. All functions but `status` are pure.
pub trait Object: Sized {
    /// The object's name.
    fn key(&self) -> Key;

    /// Whether all tenants use the same one.
    fn is_shared(&self) -> bool {
        false
    }

    /// What serves the users of both, if two users of a shared object want different settings.
    fn joined(&self, _other: &Self) -> Option<Self> {
        None
    }

    /// The refusal, after the name, if an object of this name exists and is not ours.
    fn foreign(&self) -> &'static str {
        "is there, but was not made by this provisioner: remove or rename it, or choose another \
         --instance"
    }

    /// Whether an existing object may be used without becoming ours.
    fn adoptable(&self) -> bool {
        false
    }

    /// Hardware cannot be removed. These are its settings while it is not in use; `plan` treats an
    /// object with them as absent.
    fn idle(&self) -> Option<Self> {
        None
    }

    /// Whether it can get another key and stay what it is for others.
    fn is_movable(&self) -> bool {
        false
    }

    /// The object in which it is, and with which it would end.
    fn inside(&self) -> Option<Key> {
        None
    }

    /// Whether it is the object of another key, `wanted`, if it is moved: a guest keeps its end.
    fn becomes(&self, _wanted: &Self) -> bool {
        false
    }

    /// Whether it must be cleaned before it becomes `wanted`, because the owner changes.
    fn changes_owner(&self, _wanted: &Self) -> bool {
        false
    }

    /// The objects that it depends on: if one of them is recreated, so is this one.
    fn needs(&self) -> Option<&BTreeSet<Key>> {
        None
    }

    /// Whether `self` can be changed into `wanted` in place; otherwise it is deleted and recreated.
    fn changes_in_place(&self, _wanted: &Self) -> bool {
        true
    }

    /// Whether `wanted` changes what the mediation probe has proven of `self`, so that it must be
    /// recreated and probed again.
    fn is_moved(&self, _wanted: &Self) -> bool {
        false
    }

    /// The object while its tenant is drained, if that is something else: a guest's end is down.
    fn drained(&self) -> Option<Self> {
        None
    }

    /// Whether the switch depends on it while it runs.
    fn carries_switch(&self) -> bool {
        false
    }

    /// The settings that the tenant's file allows the NIC to lack.
    fn accepted(&self) -> Option<&BTreeSet<NicAttribute>> {
        None
    }

    /// Its entry under `functions` in `status --json`, with what the host shows of it now.
    fn status(&self) -> Option<serde_json::Value> {
        None
    }
}

/// The verbs on an object of the real host.
pub trait Live: Object {
    /// Reads the object of this key; `None` if it does not exist. Changes nothing.
    fn observe(&self, context: &Context) -> Result<Option<Self>, HostError>;
    /// The same as one of many: what others need, too, is read once for all of them.
    fn observe_with(&self, context: &Context, _look: &Look) -> Result<Option<Self>, HostError> {
        self.observe(context)
    }
    /// Whether it exists, seen as cheaply as possible: the supervisor asks often.
    fn exists(&self, context: &Context) -> Result<bool, HostError> {
        Ok(self.observe(context)?.is_some())
    }
    /// Makes the object. A crash may have left a part of it.
    fn create(&self, context: &Context) -> Result<(), HostError>;
    /// Changes the existing object in place into `self`.
    fn update(&self, context: &Context) -> Result<(), HostError>;
    /// Changes an object of another key, which becomes `self`.
    fn take(&self, from: &Self, context: &Context) -> Result<(), HostError> {
        from.delete(context)?;
        self.create(context)
    }
    /// Removes the object, or what exists of it.
    fn delete(&self, context: &Context) -> Result<(), HostError>;
    /// Why the object is left as it is when it is deleted, as a sentence: others use it too.
    fn stays(&self, _context: &Context) -> Result<Option<String>, HostError> {
        Ok(None)
    }
}

/// What the verbs need in addition to the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The state directory.
    pub state_dir: PathBuf,
    /// The prefix of names.
    pub instance: String,
    /// Processor time of one switch, in percent of one core.
    pub cpu_percent: u32,
    /// Memory of one switch without its packet memory, in MiB.
    pub memory_mib: u32,
    /// Whether a PF's number of VFs may change although some VFs are in use.
    pub resize_pf: bool,
}
