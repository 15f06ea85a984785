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

mod exchange;
mod frame;
pub mod onboarded;
mod report;
mod rule;
mod station;
mod verdict;
mod weakness;

use std::time::Instant;

use self::exchange::Exchange;
pub use self::report::{Report, Row, Verdict, Wire};
use self::station::failed;
pub use self::station::{Fabric, Kind, Options, Place, Role, Station};
pub use self::weakness::Weakness;
use crate::error::HostError;

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
    let mut exchange = Exchange::new(stations, options)?;
    exchange.prove()?;
    exchange.attack()?;
    Ok(exchange.report(started.elapsed()))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::station::tests::station;
    use super::*;

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
