//! What a backend's folder provides.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tenant_config::Name;

use super::NicBackend;
use super::parts::names::Names;
use crate::error::{HostError, OptionError};
use crate::finding::Finding;
use crate::resource::Key;
use crate::state::{Record, State};

/// A kind of NIC, as its command-line options.
pub trait Kind {
    /// Whether the tenants of this host, or the options, call for this kind.
    fn is_meant(&self, state: &State) -> bool;

    /// The backend for the tenants of an apply.
    ///
    /// # Errors
    /// If the options are wrong or the NICs cannot be read.
    fn backend(&self, names: &Names, state: &State) -> Result<Box<dyn NicBackend>, OptionError>;

    /// Whether this host has what the kind needs. `needed`: its tenants are to have this kind.
    fn checks(needed: bool) -> Vec<Finding>;

    /// Of each tenant, why this host cannot carry it although all its objects could be made, as a
    /// sentence.
    ///
    /// # Errors
    /// If the host cannot be read.
    fn refusals(records: &[&Record]) -> Result<Vec<Option<String>>, HostError> {
        Ok(vec![None; records.len()])
    }

    /// Before a switch gets the new objects of its tenant: probes with real frames whether what
    /// they carry can reach anything else. A wire with two ends needs no probe.
    ///
    /// # Errors
    /// If a frame reaches a place that it must not reach.
    fn prove(_tenant: &NewTenant<'_>) -> Result<(), HostError> {
        Ok(())
    }
}

/// A tenant whose switch is about to start.
pub struct NewTenant<'a> {
    /// The tenant.
    pub record: &'a Record,
    /// Which of its objects are new.
    pub new: &'a BTreeSet<Key>,
    /// Copies the state of this host.
    pub state: &'a dyn Fn() -> State,
    /// Each tenant's control socket.
    pub control: &'a dyn Fn(&Name) -> PathBuf,
}
