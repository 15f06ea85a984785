//! The cables of the physical functions that tenants are on.

use std::collections::BTreeMap;

use tenant_config::{Name, PciAddress};

use super::events::{Event, emit};
use crate::nic::sriov::device;
use crate::resource::Resource;
use crate::state::State;

/// What was last seen of each.
#[derive(Debug, Default)]
pub(super) struct Carriers {
    /// The PF's name, and whether its cable has a link; one that has vanished has none.
    seen: BTreeMap<PciAddress, (String, bool)>,
}

impl Carriers {
    /// Looks at all of them, and reports what has changed. A link that is there from the beginning
    /// is not reported.
    pub(super) fn look(&mut self, state: &State) {
        let read = |pf| (device::label(pf), device::carrier(pf).unwrap_or(false));
        self.compare(state, read, &mut |event| emit(event));
    }

    fn compare(
        &mut self,
        state: &State,
        read: impl Fn(PciAddress) -> (String, bool),
        report: &mut dyn FnMut(&Event<'_>),
    ) {
        let mut tenants: BTreeMap<PciAddress, Vec<&Name>> = BTreeMap::new();
        for (tenant, record) in &state.tenants {
            for resource in &record.resources {
                if let Resource::Pf(pf) = resource {
                    tenants.entry(pf.address).or_default().push(tenant);
                }
            }
        }
        self.seen.retain(|pf, _| tenants.contains_key(pf));
        for (address, tenants) in tenants {
            let (pf, carrier) = read(address);
            let before = self.seen.get(&address).is_none_or(|(_, before)| *before);
            if carrier != before {
                report(&Event::Carrier {
                    pf: &pf,
                    address,
                    carrier,
                    tenants,
                });
            }
            self.seen.insert(address, (pf, carrier));
        }
    }

    /// Each PF's name and address, and whether its cable has a link.
    pub(super) fn all(&self) -> impl Iterator<Item = ([String; 2], bool)> {
        let all = self.seen.iter();
        all.map(|(address, (pf, carrier))| ([pf.clone(), address.to_string()], *carrier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::sriov::function::{Pf, PfSettings};
    use crate::state::Record;

    fn state(tenants: &[&str]) -> State {
        let set = PfSettings {
            autoprobe: false,
            vfs: 7,
            up: true,
            mtu: None,
        };
        let record = Record {
            uid: 64000,
            resources: vec![Resource::Pf(Pf {
                address: "0000:01:00.0".parse().expect("an address"),
                set,
                found: set,
            })],
            probes: Vec::new(),
            complete: true,
            previous: None,
            formerly: None,
            paused: None,
        };
        let name = |text: &&str| text.parse().expect("a name");
        State {
            tenants: tenants
                .iter()
                .map(|it| (name(it), record.clone()))
                .collect(),
            ..State::default()
        }
    }

    #[test]
    fn change_of_a_link_is_reported_once_with_its_tenants() {
        let mut carriers = Carriers::default();
        let mut look = |tenants: &[&str], pf: &str, carrier| {
            let mut events = Vec::new();
            let read = |_| (pf.to_owned(), carrier);
            carriers.compare(&state(tenants), read, &mut |event| {
                events.push(serde_json::to_value(event).expect("it is data"));
            });
            let all: Vec<_> = carriers.all().collect();
            (events, all)
        };
        let event = |pf: &str, carrier, tenants: &[&str]| {
            serde_json::json!({"event": "carrier", "pf": pf, "address": "0000:01:00.0",
                "carrier": carrier, "tenants": tenants})
        };
        let seen = |pf: &str, carrier| vec![([pf.to_owned(), "0000:01:00.0".to_owned()], carrier)];
        assert_eq!(look(&["red"], "pf0", true), (vec![], seen("pf0", true)));
        let lost = event("pf0", false, &["green", "red"]);
        let two = ["green", "red"];
        assert_eq!(look(&two, "pf0", false), (vec![lost], seen("pf0", false)));
        assert_eq!(look(&two, "pf0", false), (vec![], seen("pf0", false)));
        let back = event("lan", true, &["red"]);
        assert_eq!(look(&["red"], "lan", true), (vec![back], seen("lan", true)));
        assert_eq!(look(&[], "lan", true), (vec![], vec![]));
        // A link that is missing from the beginning is reported.
        let missing = event("pf0", false, &["red"]);
        assert_eq!(
            look(&["red"], "pf0", false),
            (vec![missing], seen("pf0", false))
        );
    }
}
