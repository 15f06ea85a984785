//! The real host: every kind of object makes itself.

use std::collections::BTreeSet;

use tenant_config::Name;

use crate::error::HostError;
use crate::host::Host;
use crate::kinds::for_each_kind;
use crate::launcher::files::TenantFiles;
use crate::launcher::switch::Switch;
use crate::launcher::switches;
use crate::look::Look;
use crate::nic;
use crate::nic::kind::NewTenant;
use crate::nic::probe::{self, Probe};
use crate::object::{Context, Live, Object};
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
                let look = Look::at(wanted.len());
                self.ask_switches(wanted, &look);
                parallel::map(wanted, |wanted| {
                    Ok(match wanted {
                        $(Resource::$kind(it) => {
                            let observed = it.observe_with(&self.context, &look)?;
                            observed.map(|it| Resource::$kind(it.into()))
                        })*
                    })
                })
            }

            fn exists(&self, wanted: &Resource) -> Result<bool, HostError> {
                match wanted { $(Resource::$kind(it) => it.exists(&self.context),)* }
            }

            fn create(&mut self, resource: &Resource) -> Result<(), HostError> {
                match resource { $(Resource::$kind(it) => it.create(&self.context),)* }
            }

            fn update(&mut self, from: &Resource, to: &Resource) -> Result<(), HostError> {
                match (from, to) {
                    $((Resource::$kind(from), Resource::$kind(to)) if from.key() != to.key() => {
                        to.take(from, &self.context)
                    })*
                    $((_, Resource::$kind(to)) => to.update(&self.context),)*
                }
            }

            fn delete(&mut self, resource: &Resource) -> Result<(), HostError> {
                match resource { $(Resource::$kind(it) => it.delete(&self.context),)* }
            }

            fn stays(&self, resource: &Resource) -> Result<Option<String>, HostError> {
                match resource { $(Resource::$kind(it) => it.stays(&self.context),)* }
            }

            fn refusals(&self, records: &[&Record]) -> Result<Vec<Option<String>>, HostError> {
                nic::registry::refusals(records)
            }

            fn prove(
                &mut self,
                record: &Record,
                new: &BTreeSet<Key>,
                state: &dyn Fn() -> State,
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

            fn beside(&self) -> Option<Box<dyn Host + Send>> {
                Some(Box::new(self.clone()))
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

impl RealHost {
    /// Asks all switches at once whether they are ready.
    fn ask_switches(&self, wanted: &[&Resource], look: &Look) {
        let switches = wanted.iter().filter_map(|wanted| match wanted {
            Resource::Switch(switch) => Some(&**switch),
            _ => None,
        });
        let switches: Vec<&Switch> = switches.collect();
        switches::ask_all(&self.context, &switches, look);
    }
}
