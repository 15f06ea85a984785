//! The filter against `docs/spoof-filter.md`: by hand-made frames for each of its rows, and by random
//! ones against the model of `oracle`.

mod oracle;

use std::collections::BTreeSet;

use oracle::model::{Model, Outcome};
use oracle::rows::{self, Case, Expect};
use vswitch::reason::DropReason;

/// What the model makes of a case, in short.
fn by_the_model(case: &Case) -> Expect {
    let mut model = Model::new(&case.config);
    if case.resolved {
        model.teach(rows::NEXT_HOP.into(), rows::ROUTER);
        model.teach(rows::NEXT_HOP6.into(), rows::ROUTER);
    }
    match model.expect(0, case.from, &case.frame, case.tag) {
        Outcome::Forward { to, .. } => Expect::Forward(to),
        Outcome::Reply(_) => Expect::Reply,
        Outcome::Drop {
            reason,
            icmp_error: true,
        } => Expect::DropWithError(reason),
        Outcome::Drop { reason, .. } => Expect::Drop(reason),
    }
}

#[test]
fn the_model_agrees_with_the_table() {
    let mut wrong = Vec::new();
    for case in rows::cases() {
        let got = by_the_model(&case);
        if got != case.expect {
            wrong.push(format!(
                "{}: {}: {got:?}, not {:?}",
                case.row, case.name, case.expect
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_a_frame_for_every_reason() {
    let shown: BTreeSet<DropReason> = rows::cases()
        .iter()
        .filter_map(|case| match case.expect {
            Expect::Drop(reason) | Expect::DropWithError(reason) => Some(reason),
            Expect::Forward(_) | Expect::Reply => None,
        })
        .collect();
    // Storm control takes more than one frame, and the last two are the devices', not the filter's.
    let elsewhere = [
        DropReason::RateBroadcast,
        DropReason::RateArpNd,
        DropReason::RateDhcp,
        DropReason::RatePps,
        DropReason::RateBps,
        DropReason::TxFull,
        DropReason::NoBuffer,
    ];
    let all: BTreeSet<DropReason> = DropReason::ALL.iter().copied().collect();
    let missing: Vec<_> = all
        .difference(&shown)
        .filter(|reason| !elsewhere.contains(reason))
        .collect();
    assert_eq!(missing, Vec::<&DropReason>::new());
}
