//! The filter against `docs/spoof-filter.md`: by hand-made frames for each of its rows, and by random
//! ones against the model of `oracle`.

mod oracle;

use std::collections::BTreeSet;

use oracle::configs;
use oracle::generate::{self, Chance, Choices};
use oracle::model::{Model, Outcome};
use oracle::rows::{self, Case, Expect};
use oracle::trial::{SECOND_NS, Trial};
use proptest::prelude::*;
use vswitch::pipeline::Verdict;
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

/// Each frame alone, at a fresh switch: the verdict is the table's, the bytes are the model's, and of
/// all counters nothing else has moved.
#[test]
fn the_switch_agrees_with_the_table() {
    let mut wrong = Vec::new();
    for case in rows::cases() {
        let mut trial = Trial::new(&case.config);
        if case.resolved {
            trial.resolve(0);
        }
        let got = match trial.send(0, case.from, &case.frame, case.tag) {
            Ok(Verdict::Forward(port)) => Expect::Forward(port.0.into()),
            Ok(Verdict::Reply) => Expect::Reply,
            Ok(Verdict::Drop(reason)) => Expect::Drop(reason),
            Ok(Verdict::DropWithError(reason)) => Expect::DropWithError(reason),
            Err(disagreement) => {
                wrong.push(format!("{}: {}: {disagreement}", case.row, case.name));
                continue;
            }
        };
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

proptest! {
    #![proptest_config(oracle::cases(600))]

    /// Verdict, reason, bytes and counters of random frames are the model's. A second lies between
    /// two frames, so that neither storm control nor the rate of ICMP errors has a say.
    #[test]
    fn random_frames_get_what_the_model_says(which in any::<prop::sample::Index>(), resolved: bool, chance in Chance::any()) {
        let configs = configs::all();
        let (name, config) = which.get(&configs);
        let mut trial = Trial::new(config);
        if resolved {
            trial.resolve(0);
        }
        let mut choices = Choices::new(&chance.0);
        let mut now_ns = 0;
        while !choices.is_spent() {
            let sent = generate::frame(&mut choices, config);
            now_ns += SECOND_NS;
            if let Err(disagreement) = trial.send(now_ns, sent.from, &sent.bytes, sent.tag) {
                return Err(TestCaseError::fail(format!("{name}: {disagreement}")));
            }
        }
    }

    /// As above, but within the limits of storm control and beyond them.
    #[test]
    fn random_storms_get_what_the_model_says(chance in Chance::any()) {
        let config = configs::limited();
        let mut trial = Trial::new(&config);
        trial.resolve(0);
        trial.errors_may_be_spent = true;
        let mut choices = Choices::new(&chance.0);
        let mut now_ns = 0;
        while !choices.is_spent() {
            let sent = generate::frame(&mut choices, &config);
            now_ns += choices.pick(&[0, 0, 1_000_000, 125_000_000, 249_000_000, 250_000_000, 600_000_000]);
            for _ in 0..choices.pick(&[1, 1, 2, 9]) {
                if let Err(disagreement) = trial.send(now_ns, sent.from, &sent.bytes, sent.tag) {
                    return Err(TestCaseError::fail(disagreement));
                }
            }
        }
    }
}
