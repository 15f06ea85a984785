//! Turns received frames into a row for each sender, listener and kind of frame.

use std::collections::BTreeMap;
use std::time::Duration;

use packet::number::ethertype::{SERVICE_VLAN, VLAN};

use super::exchange::{COPIES, Counted, Exchange, Received};
use super::report::{Report, Row, Verdict};
use super::rule::{Rule, rule, weakness};
use super::station::{Kind, Role, Station};
use super::weakness::Weakness;
use crate::nic::parts::tag::Tag;

impl Exchange<'_> {
    pub(super) fn report(&self, took: Duration) -> Report {
        let mut rows = Vec::new();
        let mut of: BTreeMap<(usize, Kind), Vec<usize>> = BTreeMap::new();
        for (number, spec) in self.specs.iter().enumerate() {
            if let Some(kind) = spec.kind {
                of.entry((spec.from, kind)).or_default().push(number);
            }
        }
        for from in self.indices() {
            for to in self
                .indices()
                .filter(|to| *to != from && self.sockets[*to].is_some())
            {
                let mut by_kind: BTreeMap<Kind, Vec<usize>> = BTreeMap::new();
                for ((_, kind), numbers) in of.range((from, Kind::Unicast)..=(from, Kind::Any)) {
                    for number in numbers {
                        let there = self.specs[*number].destination == self.octets(to);
                        let kind = match kind {
                            Kind::Unicast if !there => Kind::Elsewhere,
                            kind => *kind,
                        };
                        by_kind.entry(kind).or_default().push(*number);
                    }
                }
                for (kind, numbers) in by_kind {
                    rows.extend(self.row(from, to, kind, &numbers));
                }
            }
        }
        rows.extend(
            self.counted
                .iter()
                .filter_map(|counted| self.counted_row(counted, &of)),
        );
        Report::new(self.stations, rows, took)
    }

    fn row(&self, from: usize, to: usize, kind: Kind, numbers: &[usize]) -> Option<Row> {
        let (sender, listener) = (&self.stations[from], &self.stations[to]);
        let rule = rule(self.options.fabric, sender, listener, kind);
        let mut all = Received::default();
        for number in numbers {
            if let Some(received) = self.received.get(&(*number, to)) {
                all.frames += received.frames;
                all.untagged += received.untagged;
                all.tags.extend(received.tags.iter().cloned());
            }
        }
        // A frame that leaves on another VLAN than the NIC's settings say is a leak, not a finding.
        let astray = match sender.vlan {
            Some(vlan) if listener.role == Role::Wire => all
                .tags
                .iter()
                .any(|tags| tags.first().is_none_or(|(_, outer)| *outer != vlan)),
            _ => false,
        };
        let mut note = None;
        let verdict = match rule {
            Rule::Skip => return None,
            Rule::Finding if astray => {
                note = Some("it left with another VLAN's tag, or with none".to_owned());
                Verdict::Leak
            }
            Rule::MayTagged if all.untagged > 0 => {
                note = Some(format!("{} of them without any tag", all.untagged));
                Verdict::Leak
            }
            Rule::MustNot if all.frames > 0 => Verdict::Leak,
            Rule::Must if all.frames == 0 => Verdict::Lost,
            Rule::Finding if all.frames > 0 => Verdict::Finding,
            _ if all.frames > 0 => Verdict::Passed,
            _ => {
                note = self.doubt(from, to);
                silent(&note)
            }
        };
        Some(Row {
            seen: all.frames.into(),
            tags: all.tags.iter().map(|tags| show_tags(tags)).collect(),
            note,
            ..self.empty_row(from, to, kind, numbers.len(), verdict)
        })
    }

    fn counted_row(
        &self,
        counted: &Counted,
        of: &BTreeMap<(usize, Kind), Vec<usize>>,
    ) -> Option<Row> {
        let Counted { from, to, frames } = *counted;
        let (sender, listener) = (&self.stations[from], &self.stations[to]);
        // The switch knows its guest's MAC, so it counts only forged frames of its own guest.
        let kind = match self.are_counterparts(from, to) {
            true => Kind::Forged,
            false => Kind::Any,
        };
        let sent = of
            .range((from, Kind::Unicast)..=(from, Kind::Any))
            .filter(|((_, it), _)| kind == Kind::Any || *it == kind)
            .map(|(_, numbers)| numbers.len())
            .sum::<usize>();
        let mut note = None;
        let verdict = match rule(self.options.fabric, sender, listener, kind) {
            Rule::Skip => return None,
            _ if self.noisy.contains(&to) => {
                let name = &listener.name;
                note = Some(format!(
                    "the switch at {name} drops such frames also while the probe is silent"
                ));
                Verdict::Inconclusive
            }
            Rule::MustNot if frames > 0 => Verdict::Leak,
            Rule::Finding if frames > 0 => Verdict::Finding,
            _ if frames > 0 => {
                note = Some("its switch refused them".to_owned());
                Verdict::Passed
            }
            _ => {
                note = self.doubt(from, to);
                silent(&note)
            }
        };
        Some(Row {
            seen: frames,
            note,
            ..self.empty_row(from, to, kind, sent, verdict)
        })
    }

    /// A row without received frames. A leak gets the name of its weakness, and may be accepted.
    fn empty_row(
        &self,
        from: usize,
        to: usize,
        kind: Kind,
        numbers: usize,
        verdict: Verdict,
    ) -> Row {
        let (sender, listener) = (&self.stations[from], &self.stations[to]);
        let (verdict, weakness) = self.named(verdict, sender, listener, kind);
        Row {
            from: sender.name.clone(),
            to: listener.name.clone(),
            kind,
            sent: u32::try_from(numbers)
                .unwrap_or(u32::MAX)
                .saturating_mul(COPIES),
            seen: 0,
            verdict,
            weakness,
            tags: Vec::new(),
            note: None,
        }
    }

    /// The weakness of a leak, if it has a name, and the verdict if that is accepted.
    fn named(
        &self,
        verdict: Verdict,
        sender: &Station,
        listener: &Station,
        kind: Kind,
    ) -> (Verdict, Option<Weakness>) {
        match (verdict, weakness(sender, listener, kind)) {
            (Verdict::Leak, Some(name)) if self.options.accepted.contains(&name) => {
                (Verdict::Accepted, Some(name))
            }
            (Verdict::Leak, name) => (Verdict::Leak, name),
            _ => (verdict, None),
        }
    }

    fn doubt(&self, from: usize, to: usize) -> Option<String> {
        let name = |index: usize| &self.stations[index].name;
        if !self.receives[to] {
            Some(format!("{} received no frame at all", name(to)))
        } else if !self.sends[from] {
            Some(format!("no station received a frame of {}", name(from)))
        } else {
            None
        }
    }
}

/// The verdict if nothing was received.
fn silent(doubt: &Option<String>) -> Verdict {
    match doubt {
        Some(_) => Verdict::Inconclusive,
        None => Verdict::Refused,
    }
}

fn show_tags(tags: &[Tag]) -> String {
    if tags.is_empty() {
        return "none".to_owned();
    }
    let show = |(kind, vlan): &Tag| match *kind {
        VLAN => format!("{vlan}"),
        SERVICE_VLAN => format!("ad:{vlan}"),
        kind => format!("{kind:#06x}:{vlan}"),
    };
    tags.iter().map(show).collect::<Vec<_>>().join("+")
}
