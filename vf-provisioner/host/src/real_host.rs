//! The real host: every kind of object makes itself.

use std::collections::BTreeSet;

use tenant_config::Name;

use crate::error::HostError;
use crate::host::Host;
use crate::kinds::for_each_kind;
use crate::launcher::files::TenantFiles;
use crate::nic;
use crate::nic::kind::NewTenant;
use crate::nic::probe::{self, Probe};
use crate::object::{Context, Live};
use crate::parallel;
use crate::resource::{Key, Resource};
use crate::state::{Record, State};

/// The host that this process runs on.
#[derive(Debug, Clone)]
pub struct RealHost {
    /// What making an object depends on.
    pub context: Context,
    /// Whether a switch is given new objects without the mediation probe.
    pub skip_probe: bool,
}

macro_rules! host {
    ($(
        $(#[$doc:meta])* $kind:ident: $payload:ty {
            $($(#[$field_doc:meta])* $field:ident: $type:ty),*
        } $text:literal,
    )*) => {
        impl Host for RealHost {
            fn observe(&self, wanted: &Resource) -> Result<Option<Resource>, HostError> {
                Ok(match wanted {
                    $(Resource::$kind(it) => {
                        let observed = it.observe(&self.context)?;
                        observed.map(|it| Resource::$kind(it.into()))
                    })*
                })
            }

            fn observe_all(
                &self,
                wanted: &[&Resource],
            ) -> Vec<Result<Option<Resource>, HostError>> {
                parallel::map(wanted, |wanted| self.observe(wanted))
            }

            fn exists(&self, wanted: &Resource) -> Result<bool, HostError> {
                match wanted { $(Resource::$kind(it) => it.exists(&self.context),)* }
            }

            fn create(&mut self, resource: &Resource) -> Result<(), HostError> {
                match resource { $(Resource::$kind(it) => it.create(&self.context),)* }
            }

            fn update(&mut self, _: &Resource, to: &Resource) -> Result<(), HostError> {
                match to { $(Resource::$kind(it) => it.update(&self.context),)* }
            }

            fn delete(&mut self, resource: &Resource) -> Result<(), HostError> {
                match resource { $(Resource::$kind(it) => it.delete(&self.context),)* }
            }

            fn refusal(&self, record: &Record) -> Result<Option<String>, HostError> {
                nic::registry::refusal(record)
            }

            fn prove(
                &mut self,
                record: &Record,
                new: &BTreeSet<Key>,
                state: &State,
            ) -> Result<(), HostError> {
                if self.skip_probe {
                    return Ok(());
                }
                let control =
                    |tenant: &Name| TenantFiles::new(&self.context, tenant).control_socket();
                nic::registry::prove(&NewTenant {
                    record,
                    new,
                    state,
                    control: &control,
                })
            }

            fn probe(&mut self, probe: &Probe) -> Result<(), HostError> {
                probe::ask(probe)
            }

            fn probe_all(&mut self, probes: &[Probe]) -> Vec<Result<(), HostError>> {
                parallel::map(probes, probe::ask)
            }
        }
    };
}

for_each_kind!(host);
