//! The mediation probe: shows with real frames that no frame of a tenant gets around its switch.
//!
//! Each function of the NIC is a [`Station`]. Those of the tenant send everything that a guest, or a
//! switch that was taken over, could try; all of them listen, with the host's own interface, with
//! functions that are nobody's and, where it is given, with the other end of the cable. Every frame
//! bears a random token and its number, so that counts are exact. [`run`] says of each sender,
//! listener and kind of frame how many were sent and seen, and whether that is as it must be.
//!
//! That nothing was seen says something only of a listener that hears and of a sender that sends: a
//! pair of which this was not shown is *inconclusive*.

mod field;
mod frame;
mod judge;
pub mod onboarded;
mod report;
mod rule;
mod tap;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tenant_config::MacAddr;

use self::field::Field;
pub use self::report::{Report, Row, Verdict, Weakness, Wire};
use crate::error::HostError;

/// What a station is to a tenant's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The T VF or whatever else is a VM's end of a port.
    Guest,
    /// The Gw VF: the switch's end of a port.
    Gateway,
    /// The In/Out VF.
    Uplink,
    /// A function that is nobody's.
    Witness,
    /// The physical function, or what else is the host's own interface.
    Host,
    /// An interface at the other end of the NIC's cable.
    Wire,
}

/// Where a station's frames are sent and seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Place {
    /// A network interface, which is up.
    Interface {
        /// Its network namespace; the provisioner's own where none is given.
        namespace: Option<String>,
        /// Its name there.
        interface: String,
    },
    /// A device that only a running switch has: it sends nothing, and hears as far as the switch
    /// counts what it drops.
    Switch {
        /// The switch's executable.
        program: PathBuf,
        /// Its control socket.
        control: PathBuf,
        /// The port's name, `uplink` for the In/Out side.
        port: String,
    },
}

/// One end of the embedded switch, of its cable, or of what stands in for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// As the report names it.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// For [`Role::Guest`] and [`Role::Gateway`]: the port whose two ends they are.
    pub port: Option<String>,
    /// Its MAC address, as the NIC is to enforce it.
    pub mac: MacAddr,
    /// The VLAN it is put on by the NIC.
    pub vlan: Option<u16>,
    /// Where it is.
    pub place: Place,
    /// That it sends and hears was shown before, as by a gateway that answered.
    pub proven: bool,
    /// It only listens.
    pub quiet: bool,
}

/// What refuses a forged source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fabric {
    /// The NIC's embedded switch: nobody ever sees it.
    Embedded,
    /// The tenant's switch: a port is a mere pair of ends, and what one sends the other hears.
    Pair,
}

/// How a probe is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What is between the stations.
    pub fabric: Fabric,
    /// How long links may take until frames pass that must.
    pub patience: Duration,
    /// How long a frame may take.
    pub settle: Duration,
    /// What the operator accepts of this NIC, by name.
    pub accepted: BTreeSet<Weakness>,
}

impl Options {
    /// With times that an emulated NIC on a slow machine keeps.
    pub fn new(fabric: Fabric) -> Self {
        Self {
            fabric,
            patience: Duration::from_secs(5),
            settle: Duration::from_millis(300),
            accepted: BTreeSet::new(),
        }
    }
}

/// Kinds of frames. The source is the sender's own and there is no tag unless the kind says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// For the listener's MAC.
    Unicast,
    /// For another station's MAC, or one that nobody has.
    Elsewhere,
    /// For everybody.
    Broadcast,
    /// For groups that the listener has joined.
    Multicast,
    /// With the source of another station, or of none.
    Forged,
    /// With one 802.1Q tag.
    Tagged,
    /// With one 802.1ad tag.
    ServiceTagged,
    /// With an 802.1Q tag of VLAN 0.
    PriorityTagged,
    /// With two tags.
    DoubleTagged,
    /// All of these together, where a listener cannot tell them apart.
    Any,
}

const MAX_STATIONS: usize = 1024;

/// Sends and listens. It takes `patience` only where what must pass does not, else a little more
/// than `settle` (that much for each sender where a switch counts).
pub fn run(stations: &[Station], options: &Options) -> Result<Report, HostError> {
    let started = Instant::now();
    if stations.len() > MAX_STATIONS {
        return Err(failed(format!(
            "a probe of {} stations: at most {MAX_STATIONS} at once; name fewer tenants",
            stations.len()
        )));
    }
    let mut field = Field::new(stations, options)?;
    field.prove()?;
    field.attack()?;
    Ok(field.judge(started.elapsed()))
}

/// As [`run`], and a report that is not good is an error with a sentence for each leak.
pub fn require(stations: &[Station], options: &Options) -> Result<Report, HostError> {
    let report = run(stations, options)?;
    if report.is_good() {
        return Ok(report);
    }
    let mut sentences = report.sentences();
    let found = report.weaknesses().into_iter();
    let found = found.filter(|it| !options.accepted.contains(it));
    sentences.extend(found.map(|it| format!("{}: {}", it.name(), it.help())));
    Err(failed(sentences.join("; ")))
}

fn failed(message: String) -> HostError {
    HostError::Program {
        program: "the mediation probe",
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn station(role: Role, port: Option<&str>, vlan: Option<u16>) -> Station {
        Station {
            name: format!("{role:?} {}", port.unwrap_or_default()),
            role,
            port: port.map(str::to_owned),
            mac: MacAddr::new([2, 0, 0, 0, 0, 1]).expect("a MAC"),
            vlan,
            place: Place::Interface {
                namespace: None,
                interface: "none".to_owned(),
            },
            proven: false,
            quiet: false,
        }
    }

    #[test]
    fn a_report_is_read_by_people_and_programs() {
        let stations = [
            station(Role::Guest, Some("a"), Some(101)),
            station(Role::Guest, Some("b"), Some(102)),
            station(Role::Gateway, Some("c"), Some(104)),
            station(Role::Wire, None, None),
        ];
        let row = |to: &str, kind, seen, verdict| Row {
            from: "Guest a".to_owned(),
            to: to.to_owned(),
            kind,
            sent: 8,
            seen,
            verdict,
            weakness: None,
            tags: Vec::new(),
            note: None,
        };
        let rows = vec![
            row("Guest b", Kind::Unicast, 8, Verdict::Leak),
            row("Guest b", Kind::Broadcast, 2, Verdict::Leak),
            row("Wire ", Kind::Broadcast, 8, Verdict::Finding),
        ];
        let report = Report::new(&stations, rows, Duration::from_millis(1200));
        assert!(!report.is_good());
        assert_eq!(
            report.sentences(),
            ["LEAK: Guest b must not get frames of Guest a: 8 of 8 unicast, 2 of 8 broadcast"]
        );
        let text = report.to_string();
        for wanted in [
            "Guest a Guest b      !8/8      !2/8\n",
            "must not carry VLAN 101-102, 104:",
            "frames of these reached the wire: Guest a\n",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        let json = serde_json::to_string(&report).expect("JSON");
        let again: Report = serde_json::from_str(&json).expect("a report");
        assert_eq!(again, report);
    }
}
