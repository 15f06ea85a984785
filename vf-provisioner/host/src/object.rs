//! What every kind of object has: values that `plan` compares, and the verbs that make it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tenant_config::NicAttribute;

use crate::error::HostError;
use crate::key::Key;

/// One kind of object of the host, as data. What is wanted, recorded and observed are values of the
/// same type, so that comparing them is `==`. All functions are pure.
pub trait Object: Sized {
    /// The object's name.
    fn key(&self) -> Key;

    /// Whether all tenants use the same one.
    fn is_shared(&self) -> bool {
        false
    }

    /// What a refusal says, after the name, of one that is there and not ours.
    fn foreign(&self) -> &'static str {
        "is there, but was not made by this provisioner: remove or rename it, or choose another \
         --instance"
    }

    /// Whether one that is already there may be used without becoming ours.
    fn adoptable(&self) -> bool {
        false
    }

    /// Hardware cannot be removed. This is how it is set while it is not in use; `plan` treats an
    /// object in this state as absent.
    fn idle(&self) -> Option<Self> {
        None
    }

    /// Whether it must be cleaned before it becomes `wanted`, because the owner changes.
    fn changes_owner(&self, _wanted: &Self) -> bool {
        false
    }

    /// The objects that it depends on: if one of them is made again, so is this one.
    fn needs(&self) -> Option<&BTreeSet<Key>> {
        None
    }

    /// Whether `self` can be turned into `wanted` in place; otherwise it is deleted and made again.
    fn changes_in_place(&self, _wanted: &Self) -> bool {
        true
    }

    /// Whether the place that was set as `self` changes with `wanted`, so that the probe's result no
    /// longer holds and the driver must be started again.
    fn is_moved(&self, _wanted: &Self) -> bool {
        false
    }

    /// Whether a running switch cannot go on without it.
    fn carries_switch(&self) -> bool {
        false
    }

    /// What the tenant's file lets the NIC lack.
    fn accepted(&self) -> Option<&BTreeSet<NicAttribute>> {
        None
    }

    /// What `status --json` lists under `functions`.
    fn status(&self) -> Option<serde_json::Value> {
        None
    }
}

/// The verbs on an object of the real host.
pub trait Live: Object {
    /// The object of this key as it is; `None` if it is not there. It changes nothing.
    fn observe(&self, context: &Context) -> Result<Option<Self>, HostError>;
    /// Makes the object. A half-made one, left by a crash, may be there.
    fn create(&self, context: &Context) -> Result<(), HostError>;
    /// Changes the object in place so that it becomes `self`.
    fn update(&self, context: &Context) -> Result<(), HostError>;
    /// Removes the object. One that is half there or not there at all is no error.
    fn delete(&self, context: &Context) -> Result<(), HostError>;
}

/// What the verbs need to know beside the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The state directory.
    pub state_dir: PathBuf,
    /// The prefix of names.
    pub instance: String,
    /// Processor time of one switch, in percent of one core.
    pub cpu_percent: u32,
    /// Memory of one switch beside its packet memory, in MiB.
    pub memory_mib: u32,
    /// Whether a physical function's number of functions may be changed although some are in use.
    pub resize_pf: bool,
}
