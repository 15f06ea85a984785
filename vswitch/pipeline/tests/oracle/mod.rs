//! How the switch is held against `docs/reference/spoof-filter.md`, `docs/reference/services.md`,
//! `docs/reference/tunnel.md` and `docs/reference/ipsec.md`: a slow, obvious [`model`] of the
//! pages, the pages by example ([`rows`], [`tunnel_rows`], [`ipsec_rows`]), and the frames and
//! switches that both are tried on.

#![allow(
    dead_code,
    reason = "each test binary takes the parts of this folder that it needs"
)]

pub(crate) mod answers;
pub(crate) mod claim_story;
pub(crate) mod configs;
pub(crate) mod dhcp6_story;
pub(crate) mod dhcp_story;
pub(crate) mod dns_story;
pub(crate) mod esp;
pub(crate) mod frames;
pub(crate) mod generate;
pub(crate) mod ipsec_frames;
pub(crate) mod ipsec_rows;
pub(crate) mod ipsec_story;
pub(crate) mod lease_story;
pub(crate) mod model;
pub(crate) mod owned;
pub(crate) mod resolver_story;
pub(crate) mod rows;
pub(crate) mod trial;
pub(crate) mod tunnel_frames;
pub(crate) mod tunnel_rows;

use proptest::test_runner::Config;

/// How many cases a property is tried on: `PROPTEST_CASES` where it is set, for long runs.
pub(crate) fn cases(usual: u32) -> Config {
    let default = Config::default();
    Config {
        cases: match std::env::var_os("PROPTEST_CASES") {
            Some(_) => default.cases,
            None => usual,
        },
        // A counterexample is kept as a frame of the table, where it has a name.
        failure_persistence: None,
        ..default
    }
}
