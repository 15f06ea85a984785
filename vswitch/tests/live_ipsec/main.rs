//! Two switches with IPsec between them, each with an IKE daemon of its own (strongSwan): an
//! unprivileged user in an empty network namespace. The underlay is a bridge, where captures see
//! every frame. Skipped without root, or before `scripts/build-ike` has built the daemon.
//!
//! The module `interop` has others at the far end, and runs in the emulated machine, whose kernel
//! has ESP.

mod attacks;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../common/bed.rs"]
mod bed;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../live_gateway/capture.rs"]
mod capture;
mod certificates;
mod charon;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../common/descriptors.rs"]
mod descriptors;
mod failing;
mod hostile;
mod interop;
mod pair;
mod psk;
mod vici;
