//! IPsec against `docs/reference/ipsec.md`: by hand-made frames for each of its rows, and by random
//! sequences against the model of `oracle`.

mod oracle;

use oracle::configs;
use oracle::generate::{Chance, Choices};
use oracle::ipsec_rows;
use oracle::ipsec_story::Story;
use oracle::rows::{self, Case};
use proptest::prelude::*;

#[test]
fn model_agrees_with_rows() {
    let wrong = rows::wrong(&ipsec_rows::cases(), |case| Ok(case.by_the_model()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn switch_agrees_with_rows() {
    let wrong = rows::wrong(&ipsec_rows::cases(), Case::by_the_switch);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

proptest! {
    #![proptest_config(oracle::cases(150))]

    /// Verdict, reason, bytes, counters, those of SAs, and what the daemon is told are the model's:
    /// of what SAs carry, of what only looks like it, and of what comes plainly.
    #[test]
    fn random_sequences_agree_with_model(
        which in any::<prop::sample::Index>(),
        chance in Chance::long(),
    ) {
        let configs = configs::protected();
        let (name, config) = which.get(&configs);
        let told = Story::new(config).run(&mut Choices::new(&chance.0));
        prop_assert!(told.is_ok(), "{name}: {}", told.unwrap_err());
    }
}
