//! How the switch is held against `docs/spoof-filter.md`: a slow, obvious [`model`] of the page, the
//! page by example ([`rows`]), and the frames and switches that both are tried on.

#![allow(
    dead_code,
    reason = "each test binary takes the parts of this folder that it needs"
)]

pub(crate) mod configs;
pub(crate) mod frames;
pub(crate) mod model;
pub(crate) mod rows;
