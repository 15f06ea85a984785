//! Says which tenants an operator has drained or stopped.

use std::collections::BTreeMap;

use tenant_config::Name;

use super::events::{Event, emit};
use crate::state::{Mode, State};

/// The tenants that are paused, and how far.
#[derive(Default)]
pub(super) struct Pauses(BTreeMap<Name, Mode>);

impl Pauses {
    pub(super) fn look(&mut self, state: &State) {
        self.changes(state).iter().for_each(emit);
        self.0 = paused(state)
            .map(|(name, mode)| (name.clone(), mode))
            .collect();
    }

    /// What is new. A tenant that was released is reported as such.
    fn changes<'a>(&self, state: &'a State) -> Vec<Event<'a>> {
        let begun = paused(state).filter(|(name, mode)| self.0.get(*name) != Some(mode));
        let begun = begun.map(|(tenant, mode)| Event::Paused {
            tenant,
            mode: mode.word(),
        });
        let tenants = state.tenants.iter();
        let running = tenants.filter(|(_, record)| record.paused.is_none());
        let ended = running.filter(|(name, _)| self.0.contains_key(*name));
        let ended = ended.map(|(tenant, _)| Event::Resumed { tenant });
        begun.chain(ended).collect()
    }
}

fn paused(state: &State) -> impl Iterator<Item = (&Name, Mode)> {
    let tenants = state.tenants.iter();
    tenants.filter_map(|(name, record)| Some((name, record.paused.as_ref()?.mode)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::state::{Paused, Record};

    fn state(modes: &[(&str, Option<Mode>)]) -> State {
        let record = |mode: Option<Mode>| Record {
            uid: 66_000,
            resources: Vec::new(),
            probes: Vec::new(),
            complete: true,
            previous: None,
            formerly: None,
            paused: mode.map(|mode| Paused {
                mode,
                resources: Vec::new(),
                probes: Vec::new(),
            }),
        };
        let tenants = modes
            .iter()
            .map(|(name, mode)| (name.parse().expect("a name"), record(*mode)));
        State {
            tenants: tenants.collect(),
            owned: BTreeMap::new(),
        }
    }

    #[test]
    fn pauses_are_told_once_and_so_is_their_end() {
        let mut pauses = Pauses::default();
        let mut told = |modes: &[(&str, Option<Mode>)]| -> Vec<Value> {
            let state = state(modes);
            let events = pauses.changes(&state);
            let told = events
                .iter()
                .map(|it| serde_json::to_value(it).expect("JSON"));
            let told = told.collect();
            pauses.look(&state);
            told
        };
        let (red, blue) = (("red", Some(Mode::Drained)), ("blue", Some(Mode::Stopped)));
        assert_eq!(
            told(&[red, blue]),
            [
                json!({"event": "paused", "tenant": "blue", "mode": "stopped"}),
                json!({"event": "paused", "tenant": "red", "mode": "drained"}),
            ]
        );
        assert_eq!(told(&[red, blue]), Vec::<Value>::new());
        // One goes on, the other was released.
        assert_eq!(
            told(&[("red", Some(Mode::Stopped))]),
            [json!({"event": "paused", "tenant": "red", "mode": "stopped"})]
        );
        assert_eq!(
            told(&[("red", None)]),
            [json!({"event": "resumed", "tenant": "red"})]
        );
        assert_eq!(told(&[("red", None)]), Vec::<Value>::new());
    }
}
