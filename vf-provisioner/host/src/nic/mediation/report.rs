//! The report of a probe, as text and as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::station::{Kind, Role, Station};
use super::weakness::Weakness;

/// The result for one kind of frames between two stations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// None arrived, as required or permitted.
    Refused,
    /// They arrived, as required or permitted.
    Passed,
    /// They reached the wire or came from it, which only the adjacent switch can prevent.
    Finding,
    /// Some arrived although none may, through a weakness that the operator accepts.
    Accepted,
    /// None arrived, but it was not shown that any could have.
    Inconclusive,
    /// None arrived although they must.
    Lost,
    /// Some arrived although none may.
    Leak,
}

/// One kind of frames between two stations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The sender.
    pub from: String,
    /// The listener.
    pub to: String,
    /// Which frames.
    pub kind: Kind,
    /// How many were sent.
    pub sent: u32,
    /// How many of them were received.
    pub seen: u64,
    /// The verdict.
    pub verdict: Verdict,
    /// The weakness that let them through, if it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weakness: Option<Weakness>,
    /// The tags of received frames, outermost first, as `ad:101+102`, or `none`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// A remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The result at the other end of the cable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// Stations whose frames reached it.
    pub out: BTreeSet<String>,
    /// Stations that frames from it reached.
    pub inward: BTreeSet<String>,
    /// The requirement on the adjacent switch, as a sentence.
    pub requirement: String,
}

/// The report of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The stations.
    pub stations: Vec<Station>,
    /// Every sender, listener and kind of frames.
    pub rows: Vec<Row>,
    /// The VLANs of tenants' ports.
    pub vlans: BTreeSet<u16>,
    /// The wire, if an interface at it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<Wire>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

impl Report {
    pub(super) fn new(stations: &[Station], rows: Vec<Row>, took: Duration) -> Self {
        let vlans: BTreeSet<u16> = stations
            .iter()
            .filter(|it| matches!(it.role, Role::Guest | Role::Gateway))
            .filter_map(|it| it.vlan)
            .collect();
        let wire = stations.iter().find(|it| it.role == Role::Wire);
        let wire = wire.map(|wire| {
            let found = |row: &&Row| row.seen > 0;
            let out = rows.iter().filter(found).filter(|row| row.to == wire.name);
            let inward = rows
                .iter()
                .filter(found)
                .filter(|row| row.from == wire.name);
            Wire {
                out: out.map(|row| row.from.clone()).collect(),
                inward: inward.map(|row| row.to.clone()).collect(),
                requirement: requirement(&vlans),
            }
        });
        Self {
            stations: stations.to_vec(),
            rows,
            vlans,
            wire,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The rows with a wrong result.
    pub fn wrong(&self) -> impl Iterator<Item = &Row> {
        let wrong = |row: &&Row| matches!(row.verdict, Verdict::Leak | Verdict::Lost);
        self.rows.iter().filter(wrong)
    }

    /// The rows with this verdict.
    pub fn of(&self, verdict: Verdict) -> Vec<&Row> {
        let mut rows = self.rows.iter().collect::<Vec<_>>();
        rows.retain(|row| row.verdict == verdict);
        rows
    }

    /// One row.
    pub fn row(&self, from: &str, to: &str, kind: Kind) -> Option<&Row> {
        let wanted = |row: &&Row| row.from == from && row.to == to && row.kind == kind;
        self.rows.iter().find(wanted)
    }

    /// The weaknesses found, accepted or not.
    pub fn weaknesses(&self) -> BTreeSet<Weakness> {
        self.rows.iter().filter_map(|row| row.weakness).collect()
    }

    /// Whether no row has a wrong result.
    pub fn is_good(&self) -> bool {
        self.wrong().next().is_none()
    }

    /// A sentence for each sender and listener with a wrong result.
    pub fn sentences(&self) -> Vec<String> {
        sentences(self.wrong())
    }
}

fn requirement(vlans: &BTreeSet<u16>) -> String {
    if vlans.is_empty() {
        return "no port is on a VLAN, so the adjacent switch has no requirement".to_owned();
    }
    format!(
        "the adjacent switch port must not carry VLAN {}: the embedded switch sends what it does \
         not know out with the port's tag, and accepts frames with it",
        ranges(vlans)
    )
}

/// As `101-104, 110`.
fn ranges(vlans: &BTreeSet<u16>) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for vlan in vlans {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *vlan => *last = *vlan,
            _ => ranges.push((*vlan, *vlan)),
        }
    }
    let show = |(first, last): (u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.into_iter().map(show).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Unicast => "unicast",
            Self::Elsewhere => "elsewhere",
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
            Self::Forged => "forged",
            Self::Tagged => "tagged",
            Self::ServiceTagged => "802.1ad",
            Self::PriorityTagged => "priority",
            Self::DoubleTagged => "2 tags",
            Self::Any => "any",
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, kind, .. } = self;
        let (seen, sent) = (self.seen, self.sent);
        write!(
            out,
            "{seen} of {sent} {kind} frames from {from} reached {to}"
        )
    }
}

/// A sentence for each sender and listener, which names the kinds of frames.
fn sentences<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<String> {
    let mut pairs: Vec<(&str, &str, Verdict, Vec<&Row>)> = Vec::new();
    for row in rows {
        let key = (&row.from[..], &row.to[..], row.verdict);
        match pairs.iter_mut().find(|it| (it.0, it.1, it.2) == key) {
            Some((.., rows)) => rows.push(row),
            None => pairs.push((key.0, key.1, key.2, vec![row])),
        }
    }
    let sentence = |(from, to, verdict, rows): (&str, &str, Verdict, Vec<&Row>)| {
        let counts = rows.iter().map(|row| {
            let note = row.note.as_ref().map(|note| format!(" ({note})"));
            let note = note.unwrap_or_default();
            format!("{} of {} {}{note}", row.seen, row.sent, row.kind)
        });
        let counts = counts.collect::<Vec<_>>().join(", ");
        let names: BTreeSet<Weakness> = rows.iter().filter_map(|row| row.weakness).collect();
        let names: String = names.iter().map(|it| format!(" ({})", it.name())).collect();
        match verdict {
            Verdict::Lost => format!("LOST: {to} must get frames of {from}: {counts}"),
            _ => format!("LEAK: {to} must not get frames of {from}: {counts}{names}"),
        }
    };
    pairs.into_iter().map(sentence).collect()
}

pub(super) const COLUMNS: [Kind; 10] = [
    Kind::Unicast,
    Kind::Elsewhere,
    Kind::Broadcast,
    Kind::Multicast,
    Kind::Forged,
    Kind::Tagged,
    Kind::ServiceTagged,
    Kind::PriorityTagged,
    Kind::DoubleTagged,
    Kind::Any,
];

/// A table with a line for each sender and listener with received/sent of each kind (`!` wrong,
/// `~` accepted, `*` a finding at the wire, `?` inconclusive), and sentences about wrong results.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |name: fn(&Row) -> &str| {
            let widths = self.rows.iter().map(|row| name(row).chars().count());
            widths.max().unwrap_or(0).max(4)
        };
        let (from, to) = (width(|row| &row.from), width(|row| &row.to));
        write!(out, "{:<from$} {:<to$}", "FROM", "TO")?;
        let used: Vec<Kind> = COLUMNS
            .into_iter()
            .filter(|kind| self.rows.iter().any(|row| row.kind == *kind))
            .collect();
        for kind in &used {
            write!(out, " {kind:>9}")?;
        }
        writeln!(out)?;
        type Line<'a> = ((&'a str, &'a str), BTreeMap<Kind, &'a Row>);
        let mut lines: Vec<Line<'_>> = Vec::new();
        for row in &self.rows {
            let key = (&row.from[..], &row.to[..]);
            match lines.last_mut() {
                Some((last, cells)) if *last == key => {
                    cells.insert(row.kind, row);
                }
                _ => lines.push((key, BTreeMap::from([(row.kind, row)]))),
            }
        }
        for ((sender, listener), cells) in lines {
            write!(out, "{sender:<from$} {listener:<to$}")?;
            for kind in &used {
                let cell = cells.get(kind).map_or("-".to_owned(), |row| {
                    let mark = match row.verdict {
                        Verdict::Leak | Verdict::Lost => "!",
                        Verdict::Inconclusive => "?",
                        Verdict::Finding => "*",
                        Verdict::Accepted => "~",
                        Verdict::Passed | Verdict::Refused => "",
                    };
                    format!("{mark}{}/{}", row.seen, row.sent)
                });
                write!(out, " {cell:>9}")?;
            }
            writeln!(out)?;
        }
        let doubts: BTreeSet<&str> = self
            .rows
            .iter()
            .filter(|row| row.verdict == Verdict::Inconclusive)
            .filter_map(|row| row.note.as_deref())
            .collect();
        for doubt in doubts {
            writeln!(out, "inconclusive: {doubt}")?;
        }
        for sentence in self.sentences() {
            writeln!(out, "{sentence}")?;
        }
        for weakness in self.weaknesses() {
            writeln!(out, "{}: {}", weakness.name(), weakness.help())?;
        }
        if let Some(wire) = &self.wire {
            let list = |names: &BTreeSet<String>| {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                match names.is_empty() {
                    true => "none".to_owned(),
                    false => names.join(", "),
                }
            };
            writeln!(out, "frames of these reached the wire: {}", list(&wire.out))?;
            writeln!(
                out,
                "frames from the wire reached these: {}",
                list(&wire.inward)
            )?;
            writeln!(out, "{}", wire.requirement)?;
        }
        Ok(())
    }
}
