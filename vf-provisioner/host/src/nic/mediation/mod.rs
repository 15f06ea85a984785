//! The mediation probe: shows with real frames that no frame of a tenant bypasses its switch.
//!
//! Each function of the NIC is a [`Station`]. The tenant's stations send everything that a guest or
//! a compromised switch could try. All stations listen: the tenant's, the host's own interface,
//! unassigned functions and, if given, the other end of the cable. Every frame has a random token
//! and its number, so the counts are exact. [`run`] reports for each sender, listener and kind of
//! frame how many were sent and received, and whether that is correct.
//!
//! If nothing arrived, that is a result only for a sender that sends and a listener that receives.
//! A pair for which this was not shown is *inconclusive*.

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

/// Makes the probe. It takes a little more than `settle` (for each sender, if a switch counts), and
/// up to `patience` longer while frames that must pass do not.
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

/// Like [`run`], but a bad report is an error with a sentence for each leak.
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
    fn report_is_text_and_json() {
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
