//! What every kind of object provides: data that `plan` compares, and the verbs that make it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tenant_config::NicAttribute;

use crate::error::HostError;
use crate::key::Key;

/// One kind of object of the host, as data. Wanted, recorded and observed objects have the same
/// type, so they are compared with `==`. All functions are pure.
pub trait Object: Sized {
    /// The object's name.
    fn key(&self) -> Key;

    /// Whether all tenants use the same one.
    fn is_shared(&self) -> bool {
        false
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

    /// Whether the switch depends on it while it runs.
    fn carries_switch(&self) -> bool {
        false
    }

    /// The settings that the tenant's file allows the NIC to lack.
    fn accepted(&self) -> Option<&BTreeSet<NicAttribute>> {
        None
    }

    /// Its entry under `functions` in `status --json`.
    fn status(&self) -> Option<serde_json::Value> {
        None
    }
}

/// The verbs on an object of the real host.
pub trait Live: Object {
    /// Reads the object of this key; `None` if it does not exist. Changes nothing.
    fn observe(&self, context: &Context) -> Result<Option<Self>, HostError>;
    /// Whether it exists, seen as cheaply as possible: the supervisor asks often.
    fn exists(&self, context: &Context) -> Result<bool, HostError> {
        Ok(self.observe(context)?.is_some())
    }
    /// Makes the object. A crash may have left a part of it.
    fn create(&self, context: &Context) -> Result<(), HostError>;
    /// Changes the existing object in place into `self`.
    fn update(&self, context: &Context) -> Result<(), HostError>;
    /// Removes the object, or what exists of it.
    fn delete(&self, context: &Context) -> Result<(), HostError>;
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
